//! Streams of other daemons, handed on frame by frame.
//!
//! A gateway holds nothing of them but a place: a caller that does not read holds up nobody but the
//! daemon's stream to it.

use std::sync::Arc;

use hive_protocol::{
    fault::{Fault, Reason},
    limits::FORWARDED_WATCHES_MAX,
};
use hive_runtime::peers::{Peers, RETRY};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::{Request, Response, Status, Streaming, transport::Channel};

use crate::{
    core::Gateway,
    peers::{LOOK_WITHIN, Onward, Repeat, passed_on},
};

/// Frames of a watch that wait for their reader.
const WATCH_FRAMES: usize = 64;

/// Waits for a stream to open; a daemon that takes too long is passed over.
///
/// # Errors
/// What the daemon says, or that it says nothing.
pub(crate) async fn opening<T>(
    open: impl Future<Output = Result<Response<Streaming<T>>, Status>>,
) -> Result<Response<Streaming<T>>, Status> {
    let in_time = tokio::time::timeout(LOOK_WITHIN, open).await;
    in_time.unwrap_or_else(|_elapsed| Err(Status::unavailable("no answer in time")))
}

impl Gateway {
    /// Opens a stream at the daemon that calls about `id` go to, or at another one of its kind.
    pub(crate) async fn forward<Req, T, Asked>(
        &self,
        (peers, places): (&Peers, &Arc<Semaphore>),
        of: (&Onward, &str),
        request: Req,
        open: impl Fn(Channel, Request<Req>) -> Asked,
    ) -> Result<Forwarded<T>, Status>
    where
        Req: Clone,
        Asked: Future<Output = Result<Response<Streaming<T>>, Status>>,
    {
        let place = places.clone().try_acquire_owned();
        let place = place.map_err(|_none_left| {
            let message =
                format!("this gateway has its limit of {FORWARDED_WATCHES_MAX} such watches");
            Fault::new(Reason::TooManyConnections, message).with_retry_after(RETRY)
        })?;
        let opened = |channel, mut asked: Request<Req>| {
            // The deadline of a call is that of its stream, which the caller's connection keeps.
            asked.metadata_mut().remove("grpc-timeout");
            open(channel, asked)
        };
        let frames = self.ask(peers, of, request, (Repeat::Safe, opened)).await?;
        Ok(Forwarded {
            frames,
            _place: place,
        })
    }
}

/// A stream that a daemon has opened.
#[derive(Debug)]
pub struct Forwarded<T> {
    frames: Streaming<T>,
    _place: OwnedSemaphorePermit,
}

impl<T: Send + 'static> Forwarded<T> {
    /// Hands the frames on, in a task called `name`, until the daemon ends them, the caller hangs
    /// up or the gateway drains.
    #[must_use]
    pub fn follow(
        mut self,
        gateway: &Arc<Gateway>,
        name: &'static str,
    ) -> mpsc::Receiver<Result<T, Status>> {
        let (frames, taken) = mpsc::channel(WATCH_FRAMES);
        let shutdown = gateway.shutdown.clone();
        let task = async move {
            loop {
                let frame = tokio::select! {
                    frame = self.frames.message() => frame,
                    () = frames.closed() => return,
                    () = shutdown.draining() => {
                        let away = Fault::new(Reason::Draining, "this gateway is going away");
                        drop(frames.try_send(Err(away.into())));
                        return;
                    },
                };
                let (frame, is_last) = match frame {
                    Ok(Some(frame)) => (Ok(frame), false),
                    Ok(None) => return,
                    Err(status) => (Err(passed_on(&status)), true),
                };
                if frames.send(frame).await.is_err() || is_last {
                    return;
                }
            }
        };
        gateway
            .tasks
            .spawn(hive_runtime::tasks::BACKGROUND, name, task);
        taken
    }
}
