//! One Consume stream: join, credit, settles, heartbeats, and what happens when it ends.
//!
//! The stream's task reads frames and keeps the deadlines of what its consumer holds; deliveries
//! are pushed by the group's dispatcher. Reading and writing are apart: a client that does not read
//! stops being read from, and harms nobody else. When the connection is lost, the leases live on
//! for the group's `reconnect_grace`; then what was begun counts as failed and the rest goes back
//! uncounted. Everything names (session, attach), so the timer of an old connection changes nothing
//! after the consumer attached elsewhere.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hive_protocol::{
    fault::{Fault, Reason},
    request, time,
    wire::{self, consume_request, consume_response::Frame},
};
use hive_runtime::tasks::BACKGROUND;
use hive_store::{
    Lease,
    settle::{Action, Settle, Verdict},
};
use tokio_stream::Stream;
use tonic::Status;

use crate::{
    attached::{Attached, Frames, Told, session_lost},
    catalog::GroupView,
    core::Gateway,
    dispatcher::Dispatcher,
    ending::{Ending, judged, recovery},
    joining,
    outcomes::{self, Batch},
};

/// The first frame must come within this time.
const JOIN_WITHIN: Duration = Duration::from_secs(10);
/// The longest silence towards a client.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Frames that may wait for the client before its own are no longer read.
const QUEUE_MAX: usize = 256;
/// Settle frames under way for one connection.
const SETTLES_MAX: usize = 16;
/// How long a draining gateway waits for its clients to go elsewhere.
const DRAIN: Duration = Duration::from_secs(2);
/// Category of an attempt that reported no progress.
const HUNG: &str = "timeout";
/// Pause before a lease that was spared is looked at again.
const SPARED: Duration = Duration::from_millis(500);

/// Opens a stream: waits for the join, attaches, and starts the task that serves it.
///
/// # Errors
/// The fault of the join.
pub async fn open<S>(
    gateway: Arc<Gateway>,
    namespace: String,
    mut frames: S,
) -> Result<Frames, Fault>
where
    S: Stream<Item = Result<wire::ConsumeRequest, Status>> + Send + Unpin + 'static,
{
    if gateway.shutdown.is_draining() {
        return Err(Fault::new(Reason::Draining, "this gateway is going away"));
    }
    let first = tokio::time::timeout(JOIN_WITHIN, frames.next()).await;
    let join = match first {
        Ok(Some(Ok(wire::ConsumeRequest {
            frame: Some(consume_request::Frame::Join(join)),
        }))) => request::join(join)?,
        Ok(Some(Err(status))) => return Err(status.into()),
        Ok(Some(Ok(_))) | Ok(None) => {
            return Err(Fault::new(
                Reason::FrameOutOfOrder,
                "the first frame of a Consume stream must be `join`",
            ));
        },
        Err(_elapsed) => {
            return Err(Fault::new(
                Reason::DeadlineExceeded,
                "no `join` within 10 s",
            ));
        },
    };
    let joined = joining::join(&gateway, &namespace, join).await?;
    let attached = joined.attached;
    let (dispatcher, going) = gateway.attach(&joined.view, &attached);
    match going {
        Some(going) if going.session == attached.session => going.detach(),
        Some(going) => going.fence(),
        None => {},
    }
    attached.send(Frame::Joined(joined.answer));
    // It was told before, on a connection that is lost.
    if attached.is_draining() {
        attached.send_drain();
    }
    let session = Session {
        gateway: gateway.clone(),
        view: joined.view,
        dispatcher,
        attached,
    };
    gateway
        .tasks
        .spawn(BACKGROUND, "consume", session.run(frames));
    Ok(joined.frames)
}

struct Session {
    gateway: Arc<Gateway>,
    view: Arc<GroupView>,
    dispatcher: Arc<Dispatcher>,
    attached: Arc<Attached>,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client left.
    Left,
    /// The connection broke, or the gateway drained.
    Lost,
    /// Another session has the name, or the group is gone.
    Fenced,
}

type Settling = std::pin::Pin<Box<dyn Future<Output = Result<wire::Settled, Fault>> + Send>>;

impl Session {
    async fn run<S>(self, mut frames: S)
    where
        S: Stream<Item = Result<wire::ConsumeRequest, Status>> + Send + Unpin + 'static,
    {
        self.gateway.metrics.connections.add(1.0);
        let end = self.serve(&mut frames).await;
        self.gateway.metrics.connections.add(-1.0);
        self.attached.end();
        self.dispatcher.detach(&self.attached);
        let ending = Ending {
            gateway: self.gateway,
            view: self.view,
            attached: self.attached,
        };
        match end {
            End::Left => ending.left().await,
            End::Fenced => {},
            // A draining gateway is gone before the grace is over; its clients come back elsewhere,
            // and the coordinator gives up those that do not.
            End::Lost if ending.gateway.shutdown.is_draining() => {},
            End::Lost => ending.lost().await,
        }
        self.dispatcher.forget_drain(&ending.attached);
    }

    async fn serve<S>(&self, frames: &mut S) -> End
    where
        S: Stream<Item = Result<wire::ConsumeRequest, Status>> + Send + Unpin + 'static,
    {
        let settings = &self.view.definition.settings;
        let every = KEEP_ALIVE.min(Duration::from_millis(settings.heartbeat_ms()));
        let mut keep_alive = tokio::time::interval(every);
        keep_alive.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut settling: FuturesUnordered<Settling> = FuturesUnordered::new();
        let mut not_before = Instant::now();
        let mut drain_ends: Option<tokio::time::Instant> = None;
        loop {
            if self.attached.has_ended() {
                return if self.attached.is_lost() {
                    End::Lost
                } else {
                    End::Fenced
                };
            }
            let deadline = self.attached.check_at().map(|at| at.max(not_before));
            tokio::select! {
                frame = frames.next(), if settling.len() < SETTLES_MAX
                    && self.attached.queued() < QUEUE_MAX =>
                {
                    let frame = match frame {
                        Some(Ok(wire::ConsumeRequest { frame: Some(frame) })) => frame,
                        Some(Ok(wire::ConsumeRequest { frame: None })) => {
                            self.attached.end_with(Fault::new(
                                Reason::Unsupported,
                                "this gateway does not know the frame",
                            ));
                            return End::Lost;
                        },
                        Some(Err(status)) => {
                            self.attached.end_with(status.into());
                            return End::Lost;
                        },
                        None => return End::Lost,
                    };
                    match self.take(frame, &mut settling).await {
                        Ok(false) => {},
                        Ok(true) => {
                            while let Some(settled) = settling.next().await {
                                self.answer(settled);
                            }
                            return End::Left;
                        },
                        Err(fault) => {
                            self.attached.end_with(fault);
                            return End::Lost;
                        },
                    }
                },
                Some(settled) = settling.next(), if !settling.is_empty() => {
                    if !self.answer(settled) {
                        return End::Lost;
                    }
                },
                () = self.attached.queue_below(QUEUE_MAX),
                    if self.attached.queued() >= QUEUE_MAX => {},
                // Also while the client's own frames are not read.
                () = self.attached.closed() => return End::Lost,
                () = self.attached.changed.notified() => {},
                () = sleep_until(deadline) => {
                    if !self.expire().await {
                        not_before = Instant::now() + SPARED;
                    }
                },
                _ = keep_alive.tick() => {
                    if self.attached.queued() == 0 {
                        self.attached.send(Frame::KeepAlive(wire::KeepAlive {}));
                    }
                },
                () = self.gateway.shutdown.draining(), if drain_ends.is_none() => {
                    self.attached.withdraw();
                    drain_ends = Some(tokio::time::Instant::now() + DRAIN);
                    let deadline = u64::try_from(DRAIN.as_millis()).unwrap_or(u64::MAX);
                    let deadline = Some(time::to_duration(deadline));
                    self.attached.send(Frame::Drain(wire::Drain {
                        deadline,
                        reason: wire::DrainReason::GatewayLeaving.into(),
                    }));
                },
                () = tokio::time::sleep_until(drain_ends.unwrap_or_else(far)),
                    if drain_ends.is_some() =>
                {
                    let fault = Fault::new(Reason::Draining, "this gateway is going away");
                    self.attached.end_with(fault);
                    return End::Lost;
                },
            }
        }
    }

    /// Takes one client frame; true when it was the last.
    async fn take(
        &self,
        frame: consume_request::Frame,
        settling: &mut FuturesUnordered<Settling>,
    ) -> Result<bool, Fault> {
        match frame {
            consume_request::Frame::Join(_) => {
                return Err(Fault::new(
                    Reason::FrameOutOfOrder,
                    "`join` comes once, as the first frame",
                ));
            },
            consume_request::Frame::Credit(credit) => {
                if !self.gateway.shutdown.is_draining() {
                    self.attached.grant(credit.messages);
                    self.dispatcher.credit_granted();
                }
            },
            consume_request::Frame::Settle(batch) => {
                request::items("outcomes", batch.outcomes.len())?;
                let (gateway, view) = (self.gateway.clone(), self.view.clone());
                let attached = self.attached.clone();
                let outcomes = batch.outcomes;
                let batch = Batch::check(&gateway.metrics, &view, Some(&attached), outcomes);
                settling.push(Box::pin(async move {
                    let results = batch.judge(&gateway, &view, Some(&attached)).await?;
                    Ok(wire::Settled { results })
                }));
            },
            consume_request::Frame::Heartbeat(beat) => self.heartbeat(beat, false).await?,
            consume_request::Frame::Progress(progress) => {
                let beat = wire::Heartbeat {
                    leases: vec![progress.lease.clone()],
                    begun: vec![progress.lease],
                };
                self.heartbeat(beat, true).await?;
            },
            consume_request::Frame::Leave(wire::Leave {}) => return Ok(true),
        }
        Ok(false)
    }

    /// Sends a settle's answer; false when it failed and the stream ends: the client reconnects and
    /// asks again.
    fn answer(&self, settled: Result<wire::Settled, Fault>) -> bool {
        match settled {
            Ok(settled) => {
                self.attached.send(Frame::Settled(settled));
                true
            },
            Err(fault) => {
                self.attached.end_with(fault);
                false
            },
        }
    }

    /// Starts leases anew. `is_report`: what is named reported progress.
    async fn heartbeat(&self, beat: wire::Heartbeat, is_report: bool) -> Result<(), Fault> {
        request::leases("heartbeat.leases", &beat.leases)?;
        request::leases("heartbeat.begun", &beat.begun)?;
        let lease_ms = self.view.definition.settings.lease_ms;
        let mut items = Vec::with_capacity(beat.leases.len());
        for token in &beat.leases {
            // A heartbeat behind a settle that is under way would find the entry gone.
            if let Ok(lease) = token.parse::<Lease>()
                && !self.attached.is_settling(token)
            {
                items.push((lease, self.attached.attach));
            }
        }
        if items.is_empty() {
            return Ok(());
        }
        let begun: HashSet<&String> = beat.begun.iter().collect();
        let note = |token: &String| {
            if is_report {
                self.attached.progress(token, lease_ms);
            } else if begun.contains(token) {
                self.attached.beat(token, Told::Begun, lease_ms);
            } else {
                self.attached.beat(token, Told::Held, lease_ms);
            }
        };
        let verdicts = match self.gateway.extend_now(&self.view, &items).await {
            Ok(verdicts) => verdicts,
            // Redis is away, maybe for this gateway alone, which then sends its consumers elsewhere
            // (`beats.rs`). The agent is alive: nothing of it ends by our timer meanwhile, and the
            // next heartbeat is soon.
            Err(error) if error.is_transient() => {
                tracing::debug!(consumer = &*self.attached.consumer, %error, "beat_not_passed_on");
                for (lease, _) in &items {
                    note(&lease.token());
                }
                return Ok(());
            },
            Err(error) => return Err(error.into()),
        };
        let mut lost = Vec::new();
        for ((lease, _), verdict) in items.into_iter().zip(verdicts) {
            let token = lease.token();
            match verdict {
                Verdict::Done => note(&token),
                Verdict::Fenced => {
                    // Where everything is as it was long ago, so may the member be.
                    self.gateway.store.check_dataset().await?;
                    return Err(Fault::new(
                        Reason::Fenced,
                        format!(
                            "consumer `{}` joined again elsewhere",
                            self.attached.consumer
                        ),
                    ));
                },
                Verdict::Detached => {
                    // The member may be gone with everything else.
                    self.gateway.store.check_dataset().await?;
                    return Err(session_lost(&self.attached.consumer));
                },
                Verdict::Gone
                | Verdict::Stale
                | Verdict::Unknown
                | Verdict::Dead
                | Verdict::Spared => {
                    self.attached.forget(&token);
                    lost.push(token);
                },
            }
        }
        if !lost.is_empty() {
            let reason = "the lease is no longer yours".to_owned();
            self.attached.send(Frame::Cancel(wire::Cancel {
                leases: lost,
                reason,
            }));
        }
        Ok(())
    }

    /// Ends the leases whose time is over, and the attempts that hang; false when some were spared.
    async fn expire(&self) -> bool {
        let all_ended = self.end_leases().await;
        let all_failed = self.end_hung().await;
        self.attached.checked();
        all_ended && all_failed
    }

    /// Ends the leases whose time is over; false when some were spared.
    async fn end_leases(&self) -> bool {
        let now = Instant::now();
        let mut over = judged(&self.attached);
        over.retain(|(held, _)| held.deadline <= now);
        if over.is_empty() {
            return true;
        }
        let idle_ms = self.view.definition.settings.lease_ms;
        let items = recovery(&self.attached, &over, (idle_ms, "lease_expired"));
        let name = &self.view.definition.name;
        let verdicts = self
            .gateway
            .settle_now(&self.view.namespace, name, &items)
            .await;
        let Ok(verdicts) = verdicts else { return false };
        let taken = outcomes::taken(&verdicts);
        self.gateway.metrics.given_back_expired.increment(taken);
        let mut lost = Vec::new();
        let mut spared = false;
        for ((held, _), verdict) in over.into_iter().zip(verdicts) {
            if verdict == Verdict::Spared {
                spared = true;
                continue;
            }
            let token = held.lease.token();
            self.attached.forget(&token);
            lost.push(token);
        }
        if !lost.is_empty() {
            self.gateway
                .bells
                .announce(&self.gateway.store, &self.view.shard);
            let reason = "the lease ended without a heartbeat".to_owned();
            self.attached.send(Frame::Cancel(wire::Cancel {
                leases: lost,
                reason,
            }));
        }
        !spared
    }

    /// Fails the attempts of which nothing was heard for the group's `progress_timeout`, heartbeats
    /// or not; false when Redis is away.
    async fn end_hung(&self) -> bool {
        let Some(timeout) = self.attached.progress_timeout() else {
            return true;
        };
        let hung = self.attached.hung(Instant::now());
        if hung.is_empty() {
            return true;
        }
        let reason = format!("no progress for {} s", timeout.as_secs_f64());
        let fail = |lease: &Lease| Settle {
            lease: lease.clone(),
            attach: self.attached.attach,
            check_session: true,
            action: Action::Lose {
                idle_ms: 0,
                category: HUNG.to_owned(),
                record: outcomes::record(lease, HUNG, &reason),
            },
        };
        let items: Vec<Settle> = hung.iter().map(fail).collect();
        // Before they are anybody's again: not this one's, where no handler is free.
        self.attached
            .expect_hung(u32::try_from(hung.len()).unwrap_or(u32::MAX));
        let name = &self.view.definition.name;
        let verdicts = self
            .gateway
            .settle_now(&self.view.namespace, name, &items)
            .await;
        let Ok(verdicts) = verdicts else { return false };
        let taken = outcomes::taken(&verdicts);
        self.gateway.metrics.given_back_hung.increment(taken);
        if taken > 0 {
            self.gateway
                .bells
                .announce(&self.gateway.store, &self.view.shard);
        }
        let leases: Vec<String> = hung.iter().map(Lease::token).collect();
        for token in &leases {
            self.attached.forget_hung(token);
        }
        let consumer = &*self.attached.consumer;
        tracing::warn!(
            group = name,
            consumer,
            count = taken,
            reason,
            "consumer_hangs"
        );
        self.attached
            .send(Frame::Cancel(wire::Cancel { leases, reason }));
        // What waits behind handlers that hang would wait for ever: heartbeats keep its leases.
        let stranded = self.attached.stranded();
        if stranded > 0 {
            self.attached.revoke(stranded);
        }
        true
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn far() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(3_600)
}
