//! One Consume stream: join, credit, settles, heartbeats, and what happens when it ends.
//!
//! The stream's task reads frames and keeps the deadlines of what its consumer holds; deliveries
//! are pushed by the group's dispatcher. Reading and writing are apart: a client that does not read
//! stops being read from, and harms nobody else. When the connection is lost, the leases live on
//! for the group's `reconnect_grace`; then what was begun counts as failed and the rest goes back
//! uncounted. Everything names (session, attach), so the timer of an old connection changes nothing
//! after the consumer attached elsewhere.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hive_protocol::{
    fault::{Fault, Reason},
    outcome, request, time,
    wire::{self, SettleStatus, consume_request, consume_response::Frame},
};
use hive_runtime::tasks::BACKGROUND;
use hive_store::{
    Lease, StoreError,
    settle::{Action, Settle, Verdict},
};
use tokio_stream::Stream;
use tonic::Status;

use crate::{
    attached::{Attached, Frames, Held, Told},
    catalog::GroupView,
    core::Gateway,
    dispatcher::Dispatcher,
    joining, outcomes,
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
/// First and longest pause before a membership that could not be ended is tried again.
const END_RETRY: Duration = Duration::from_millis(200);
const END_RETRY_MAX: Duration = Duration::from_secs(5);
/// What a client gets at least to come back once Redis is there again: it pauses between its tries.
const BACK_WITHIN: Duration = Duration::from_secs(5);
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
    if let Some(going) = going {
        going.fence();
    }
    attached.send(Frame::Joined(joined.answer));
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
    /// Another session or connection has the name, or the group is gone.
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
        match end {
            End::Left => self.leave().await,
            End::Fenced => {},
            // A draining gateway is gone before the grace is over; its clients come back elsewhere,
            // and the coordinator gives up those that do not.
            End::Lost if self.gateway.shutdown.is_draining() => {},
            End::Lost => {
                self.wait_out_grace().await;
                self.give_up().await;
            },
        }
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
                return End::Fenced;
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
                    self.attached.send(Frame::Drain(wire::Drain { deadline }));
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
                let batch = check(&self.view, &self.attached, batch.outcomes);
                let (gateway, view) = (self.gateway.clone(), self.view.clone());
                settling.push(Box::pin(settle(
                    gateway,
                    view,
                    self.attached.clone(),
                    batch,
                )));
            },
            consume_request::Frame::Heartbeat(beat) => self.heartbeat(beat).await?,
            consume_request::Frame::Progress(progress) => {
                let beat = wire::Heartbeat {
                    leases: vec![progress.lease.clone()],
                    begun: vec![progress.lease],
                };
                self.heartbeat(beat).await?;
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

    async fn heartbeat(&self, beat: wire::Heartbeat) -> Result<(), Fault> {
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
        let verdicts = match self.extend(&items).await {
            Ok(verdicts) => verdicts,
            // Redis is away: nobody ends a lease meanwhile, and the next heartbeat is soon. Ending
            // the stream for it would start the grace in which this agent cannot come back.
            Err(error) if error.is_transient() => {
                tracing::debug!(consumer = &*self.attached.consumer, %error, "beat_not_passed_on");
                return Ok(());
            },
            Err(error) => return Err(error.into()),
        };
        let begun: std::collections::HashSet<&String> = beat.begun.iter().collect();
        let mut lost = Vec::new();
        for ((lease, _), verdict) in items.into_iter().zip(verdicts) {
            let token = lease.token();
            match verdict {
                Verdict::Done => {
                    let has_begun = begun.contains(&token);
                    let told = if has_begun { Told::Begun } else { Told::Held };
                    self.attached.beat(&token, told, lease_ms);
                },
                Verdict::Fenced => {
                    // Members that are gone with everything else look like fenced ones.
                    self.gateway.store.check_dataset().await?;
                    return Err(Fault::new(
                        Reason::Fenced,
                        format!(
                            "consumer `{}` joined again elsewhere",
                            self.attached.consumer
                        ),
                    ));
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

    async fn extend(&self, items: &[(Lease, u64)]) -> Result<Vec<Verdict>, StoreError> {
        let (shard, group) = (&self.view.shard, &self.view.definition.name);
        let lanes = self.gateway.catalog.lanes(shard).await?;
        let lanes = lanes.of_group(shard, group);
        self.gateway.store.extend(shard, group, &lanes, items).await
    }

    /// Ends the leases whose time is over; false when some were spared.
    async fn expire(&self) -> bool {
        let now = Instant::now();
        let mut over = judged(&self.attached);
        over.retain(|(held, _)| held.deadline <= now);
        if over.is_empty() {
            self.attached.checked();
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
        self.attached.checked();
        if !lost.is_empty() {
            self.gateway
                .metrics
                .given_back_expired
                .increment(lost.len() as u64);
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

    /// The client said that it goes: what it holds goes back uncounted.
    async fn leave(&self) {
        let held = self.attached.all_held();
        let items: Vec<Settle> = held
            .iter()
            .map(|held| Settle {
                lease: held.lease.clone(),
                attach: self.attached.attach,
                check_session: true,
                action: Action::GiveBack { idle_ms: 0 },
            })
            .collect();
        self.gateway
            .metrics
            .given_back_left
            .increment(items.len() as u64);
        self.end_membership(&items).await;
    }

    /// Waits as long as the client may take to come back. While Redis is away it cannot: its time
    /// begins when Redis is there.
    async fn wait_out_grace(&self) {
        let settings = &self.view.definition.settings;
        let grace = Duration::from_millis(settings.reconnect_grace_ms);
        tokio::time::sleep(grace).await;
        let mut was_away = false;
        while let Err(error) = self.gateway.store.groups_on_shard(&self.view.shard).await {
            if !error.is_transient() {
                break;
            }
            was_away = true;
            tokio::select! {
                () = tokio::time::sleep(END_RETRY) => {},
                () = self.gateway.shutdown.draining() => return,
            }
        }
        if was_away {
            tokio::time::sleep(grace.max(BACK_WITHIN)).await;
        }
    }

    /// The connection did not come back in time.
    async fn give_up(&self) {
        let held = judged(&self.attached);
        let items = recovery(&self.attached, &held, (0, "connection_lost"));
        self.gateway
            .metrics
            .given_back_lost
            .increment(items.len() as u64);
        self.end_membership(&items).await;
    }

    /// Settles what was held, then removes the member. Tried until it is so: the coordinator finds
    /// members of dead gateways, not those that a living one forgot.
    async fn end_membership(&self, items: &[Settle]) {
        let mut pause = END_RETRY;
        while let Err(error) = self.try_end_membership(items).await {
            let (group, consumer) = (&self.view.definition.name, &*self.attached.consumer);
            tracing::warn!(group, consumer, %error, "give_up_failed");
            tokio::select! {
                () = tokio::time::sleep(pause) => {},
                () = self.gateway.shutdown.draining() => return,
            }
            pause = (pause * 2).min(END_RETRY_MAX);
        }
        if !items.is_empty() {
            self.gateway
                .bells
                .announce(&self.gateway.store, &self.view.shard);
        }
    }

    async fn try_end_membership(&self, items: &[Settle]) -> Result<(), StoreError> {
        let (namespace, group) = (&self.view.namespace, &self.view.definition.name);
        let shard = &self.view.shard;
        if !self
            .gateway
            .store
            .groups_on_shard(shard)
            .await?
            .contains(group)
        {
            return Ok(());
        }
        for batch in items.chunks(500) {
            let verdicts = self.gateway.settle_now(namespace, group, batch).await?;
            if verdicts.contains(&Verdict::Fenced) {
                return Ok(());
            }
        }
        let lanes = self
            .gateway
            .catalog
            .read_lanes(shard)
            .await?
            .of_group(shard, group);
        let who = (&*self.attached.consumer, &*self.attached.session);
        let who = (who.0, who.1, self.attached.attach);
        self.gateway
            .store
            .leave(shard, group, &lanes, who)
            .await
            .map(drop)
    }
}

/// Which deliveries count as failed when their consumer is lost: what heartbeats named as begun,
/// and of those that no heartbeat covers, what is among its `concurrency` oldest.
fn counted(held: &[Held], concurrency: u32) -> Vec<bool> {
    let oldest = usize::try_from(concurrency.max(1)).unwrap_or(usize::MAX);
    held.iter()
        .enumerate()
        .map(|(position, held)| match held.told {
            Told::Begun => true,
            Told::Held => false,
            Told::Nothing => position < oldest,
        })
        .collect()
}

/// Everything that a connection holds, and whether its loss counts as a failed attempt.
fn judged(attached: &Attached) -> Vec<(Held, bool)> {
    let held = attached.all_held();
    let counted = counted(&held, attached.concurrency);
    held.into_iter().zip(counted).collect()
}

fn recovery(
    attached: &Attached,
    held: &[(Held, bool)],
    (idle_ms, category): (u64, &str),
) -> Vec<Settle> {
    held.iter()
        .map(|(held, is_counted)| {
            let lease = held.lease.clone();
            let action = if *is_counted {
                let record = outcomes::record(&lease, category, "the consumer was lost at work");
                Action::Lose {
                    idle_ms,
                    category: category.to_owned(),
                    record,
                }
            } else {
                Action::GiveBack { idle_ms }
            };
            Settle {
                lease,
                attach: attached.attach,
                check_session: true,
                action,
            }
        })
        .collect()
}

/// Outcomes of one frame, checked and ready for the store.
#[derive(Default)]
struct Batch {
    results: Vec<wire::SettleResult>,
    items: Vec<Settle>,
    /// Position of each item's result.
    places: Vec<usize>,
    extends: Vec<(usize, Lease)>,
}

/// Checks the outcomes of a frame. What is to be settled is marked at once, so that a heartbeat
/// behind it does not call it lost.
fn check(view: &GroupView, attached: &Attached, wire_outcomes: Vec<wire::Outcome>) -> Batch {
    let mut batch = Batch::default();
    for mut wire_outcome in wire_outcomes {
        let place = batch.results.len();
        let action = wire_outcome.action.take();
        let token = wire_outcome.lease;
        let status = match outcome::parse_action(&token, action) {
            Err(violations) => Err((SettleStatus::Invalid, violations.to_string())),
            Ok(outcome::Action::Extend) => match lease_of(attached, &token) {
                Some(lease) => {
                    batch.extends.push((place, lease));
                    Ok(())
                },
                None => Err(unknown()),
            },
            Ok(action) => {
                match attached
                    .settling(&token)
                    .or_else(|| lease_of(attached, &token))
                {
                    Some(lease) => {
                        batch.places.push(place);
                        batch
                            .items
                            .push(outcomes::settle(view, lease, attached.attach, action));
                        Ok(())
                    },
                    None => Err(unknown()),
                }
            },
        };
        let (status, error) = status.err().unwrap_or((SettleStatus::Ok, String::new()));
        batch.results.push(wire::SettleResult {
            lease: token,
            status: status.into(),
            error,
        });
    }
    batch
}

/// The lease that a token says, if it is this consumer's.
fn lease_of(attached: &Attached, token: &str) -> Option<Lease> {
    token
        .parse::<Lease>()
        .ok()
        .filter(|lease| lease.consumer == attached.consumer)
}

fn unknown() -> (SettleStatus, String) {
    (
        SettleStatus::UnknownLease,
        "the token is none of this consumer's leases".into(),
    )
}

async fn settle(
    gateway: Arc<Gateway>,
    view: Arc<GroupView>,
    attached: Arc<Attached>,
    batch: Batch,
) -> Result<wire::Settled, Fault> {
    let Batch {
        mut results,
        items,
        places,
        extends,
    } = batch;
    let group = &view.definition.name;
    if !items.is_empty() {
        let verdicts = gateway
            .settler(&view.namespace, group)
            .settle(items)
            .await?;
        for (place, verdict) in places.into_iter().zip(verdicts) {
            outcomes::note(&gateway.metrics, verdict);
            if let Some(result) = results.get_mut(place) {
                attached.forget(&result.lease);
                outcomes::judge(result, verdict);
            }
        }
    }
    if !extends.is_empty() {
        let lanes = gateway.catalog.lanes(&view.shard).await?;
        let lanes = lanes.of_group(&view.shard, group);
        let asked: Vec<(Lease, u64)> = extends
            .iter()
            .map(|(_, lease)| (lease.clone(), attached.attach))
            .collect();
        let verdicts = gateway
            .store
            .extend(&view.shard, group, &lanes, &asked)
            .await?;
        for ((place, lease), verdict) in extends.into_iter().zip(verdicts) {
            if verdict == Verdict::Done {
                attached.beat(
                    &lease.token(),
                    Told::Nothing,
                    view.definition.settings.lease_ms,
                );
            }
            if let Some(result) = results.get_mut(place) {
                outcomes::judge(result, verdict);
            }
        }
    }
    Ok(wire::Settled { results })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn held(id: u64, told: Told) -> Held {
        Held {
            lease: Lease {
                lane: "g/p4".into(),
                id: format!("{id}-0"),
                count: 1,
                consumer: "a".into(),
                session: "s".into(),
                delivered_ms: id,
                bytes: 1,
            },
            deadline: Instant::now(),
            told,
        }
    }

    #[test]
    fn a_lost_consumer_fails_what_it_began_and_nothing_else() {
        let all = [
            held(1, Told::Begun),
            held(2, Told::Held),
            held(3, Told::Nothing),
        ];
        assert_eq!(counted(&all, 1), [true, false, false]);
    }

    #[test]
    fn without_any_heartbeat_the_oldest_deliveries_count() {
        let all = [
            held(1, Told::Nothing),
            held(2, Told::Nothing),
            held(3, Told::Nothing),
        ];
        assert_eq!(counted(&all, 2), [true, true, false]);
    }
}
