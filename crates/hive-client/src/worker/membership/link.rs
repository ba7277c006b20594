//! One connection of a membership: the stream, its heartbeat, and whether anything is heard.

use std::time::Duration;

use hive_protocol::{
    fault::{Fault, Reason},
    wire::{ConsumeRequest, ConsumeResponse, Join, Joined, consume_request, consume_response},
};
use tokio::{
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{End, end_of};
use crate::client::Gateway;

/// How long a gateway may take to answer a join. It waits for Redis up to 3 s.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a leave may take to be answered by the end of the stream.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Silence that is not suspicious yet, however short the lease: keep-alives come every few
/// seconds.
const SILENCE_MIN: Duration = Duration::from_secs(10);
/// Heartbeat interval of a server that does not say, and bounds for one that says nonsense.
const BEAT_DEFAULT: Duration = Duration::from_secs(10);
const BEAT_MIN: Duration = Duration::from_millis(100);
const BEAT_MAX: Duration = Duration::from_secs(8 * 3_600);

/// A joined stream.
pub(super) struct Link {
    /// Holds one frame: what gathers while it waits rides in the next.
    pub(super) frames: mpsc::Sender<ConsumeRequest>,
    /// A heartbeat should be the next frame.
    pub(super) is_beat_due: bool,
    inbound: Streaming<ConsumeResponse>,
    beat: Interval,
    silence: Duration,
    last_heard: Instant,
}

impl Link {
    /// Opens a stream and joins.
    pub(super) async fn join(gateway: &Gateway, join: Join) -> Result<(Self, Joined), End> {
        let opened = timeout(JOIN_TIMEOUT, Self::open(gateway, join)).await;
        let (frames, inbound, joined) = opened.map_err(|_elapsed| {
            let message = "the gateway did not answer the join";
            End::Lost(Fault::new(Reason::DeadlineExceeded, message))
        })??;
        let asked = joined.heartbeat_interval;
        let beat = asked.and_then(|beat| Duration::try_from(beat).ok());
        let beat = beat.unwrap_or(BEAT_DEFAULT).clamp(BEAT_MIN, BEAT_MAX);
        let mut interval = interval_at(Instant::now() + beat, beat);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let link = Self {
            frames,
            is_beat_due: false,
            inbound,
            beat: interval,
            silence: (beat * 2).max(SILENCE_MIN),
            last_heard: Instant::now(),
        };
        Ok((link, joined))
    }

    async fn open(
        gateway: &Gateway,
        join: Join,
    ) -> Result<
        (
            mpsc::Sender<ConsumeRequest>,
            Streaming<ConsumeResponse>,
            Joined,
        ),
        End,
    > {
        let (frames, outbound) = mpsc::channel(1);
        let frame = Some(consume_request::Frame::Join(join));
        // The queue is empty and its reader lives: the join always fits.
        drop(frames.try_send(ConsumeRequest { frame }));
        let opened = gateway
            .messaging()
            .consume(ReceiverStream::new(outbound))
            .await;
        let mut inbound = opened
            .map_err(|status| end_of(Fault::from(status)))?
            .into_inner();
        loop {
            match next_frame(&mut inbound).await? {
                consume_response::Frame::Joined(joined) => return Ok((frames, inbound, joined)),
                consume_response::Frame::KeepAlive(_) => {},
                consume_response::Frame::Deliveries(_)
                | consume_response::Frame::Settled(_)
                | consume_response::Frame::Revoke(_)
                | consume_response::Frame::Cancel(_)
                | consume_response::Frame::Drain(_)
                | consume_response::Frame::Offer(_) => {
                    let message = "the gateway sent another frame before `joined`";
                    return Err(End::Lost(Fault::new(Reason::OutcomeUnknown, message)));
                },
            }
        }
    }

    /// The next frame of the server. Marks heartbeats as due meanwhile, and takes a long silence
    /// for the end. Returns early, without a frame of the server, when a heartbeat falls due: as a
    /// keep-alive of our own. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<consume_response::Frame, End> {
        let silent_at = self.last_heard + self.silence;
        tokio::select! {
            biased;
            frame = next_frame(&mut self.inbound) => {
                self.last_heard = Instant::now();
                frame
            },
            _ = self.beat.tick() => {
                self.is_beat_due = true;
                Ok(consume_response::Frame::KeepAlive(hive_protocol::wire::KeepAlive {}))
            },
            () = sleep_until(silent_at) => {
                let message = format!("nothing heard from the gateway for {:?}", self.silence);
                Err(End::Lost(Fault::new(Reason::Unreachable, message)))
            },
        }
    }

    /// Why the stream takes no more frames: what the server said at its end.
    pub(super) async fn why(&mut self) -> End {
        let last = timeout(LEAVE_TIMEOUT, async {
            loop {
                if let Err(end) = next_frame(&mut self.inbound).await {
                    return end;
                }
            }
        });
        last.await.unwrap_or_else(|_elapsed| End::Lost(closed()))
    }

    /// Leaves: sends the last frame and waits a little for the server to close the stream.
    pub(super) async fn leave(&mut self, frame: ConsumeRequest) -> End {
        let left = async {
            if self.frames.send(frame).await.is_err() {
                return;
            }
            while next_frame(&mut self.inbound).await.is_ok() {}
        };
        // A server that does not answer gives the membership up when the connection closes.
        drop(timeout(LEAVE_TIMEOUT, left).await);
        End::Left
    }
}

/// The next frame, or why there is none. A frame of a newer server that this version does not know
/// is passed over.
async fn next_frame(
    inbound: &mut Streaming<ConsumeResponse>,
) -> Result<consume_response::Frame, End> {
    loop {
        match inbound.message().await {
            Ok(Some(ConsumeResponse { frame: Some(frame) })) => return Ok(frame),
            Ok(Some(ConsumeResponse { frame: None })) => {},
            Ok(None) => return Err(End::Lost(closed())),
            Err(status) => return Err(end_of(Fault::from(status))),
        }
    }
}

fn closed() -> Fault {
    Fault::new(Reason::Unreachable, "the gateway closed the stream")
}
