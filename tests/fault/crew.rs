//! Agents that work by themselves and write down every frame: what an SDK does, in the open.
//!
//! Each has connections of its own, so that aborting its task is the death of its process as far as
//! anybody outside can tell. It follows `docs/protocol.md`: it beats every third of a lease, joins
//! again elsewhere with what it holds, asks again for outcomes that were not answered, and never
//! works twice on what it still works on.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use hive_client::{Client, Fault, FaultKind, lease, wire};
use hive_testkit::history::{Action, Event, Loss, Name, Recorder, SettleAnswer};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use wire::{consume_request::Frame as Ask, consume_response::Frame};

use crate::{
    hand::{self, Link, Taken},
    world::PATIENCE,
};

/// Pause after a round of gateways that did not take the join.
const RETRY: Duration = Duration::from_millis(100);
/// Longest wait for the answers of what was settled last.
const FAREWELL: Duration = Duration::from_secs(5);

/// How an agent works.
#[derive(Clone)]
pub(crate) struct Spec {
    pub(crate) group: Name,
    pub(crate) id: Name,
    /// Gateways, the preferred one first.
    pub(crate) urls: String,
    /// How many it works on at once; it holds twice as many.
    pub(crate) concurrency: u32,
    /// Longest work on one message.
    pub(crate) work: Duration,
    /// The lease of the group: it beats every third of it.
    pub(crate) lease: Duration,
    /// Whether some messages fail, are given back or rejected.
    pub(crate) is_moody: bool,
}

/// A running agent.
pub(crate) struct Agent {
    pub(crate) spec: Spec,
    log: Arc<Recorder>,
    stop: CancellationToken,
    task: JoinHandle<Result<()>>,
}

impl Agent {
    /// Starts it.
    pub(crate) fn start(log: &Arc<Recorder>, spec: Spec) -> Self {
        let stop = CancellationToken::new();
        let running = run(spec.clone(), Arc::clone(log), stop.clone());
        #[expect(clippy::disallowed_methods, reason = "a test has no chassis")]
        let task = tokio::spawn(running);
        Self {
            spec,
            log: Arc::clone(log),
            stop,
            task,
        }
    }

    /// Lets it die: its connections close in mid-work.
    pub(crate) async fn kill(self) -> Spec {
        self.log.record(Event::ConsumerLost {
            group: Arc::clone(&self.spec.group),
            consumer: Arc::clone(&self.spec.id),
            loss: Loss::Killed,
        });
        self.task.abort();
        // Cancelled, or it had ended: either way nothing of it runs any more.
        drop(self.task.await);
        self.spec
    }

    /// Stops it in good order.
    pub(crate) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        timeout(PATIENCE, self.task)
            .await
            .context("an agent stops")??
    }
}

/// What is to be done with a delivery.
enum State {
    /// Not begun.
    Queued(Box<Taken>),
    /// A job is on it.
    Running,
    /// To be settled.
    Done(Action),
    /// Settled, and not answered.
    Asked(u64, Action),
}

struct Entry {
    lease: Name,
    state: State,
}

struct Member {
    spec: Spec,
    log: Arc<Recorder>,
    session: String,
    entries: BTreeMap<String, Entry>,
    queue: VecDeque<String>,
    jobs: JoinSet<(String, Action)>,
}

/// Why a connection is over.
enum End {
    Stopped,
    Lost,
}

async fn run(spec: Spec, log: Arc<Recorder>, stop: CancellationToken) -> Result<()> {
    let client = Client::new(&spec.urls)?;
    let mut member = Member {
        spec,
        log,
        session: String::new(),
        entries: BTreeMap::new(),
        queue: VecDeque::new(),
        jobs: JoinSet::new(),
    };
    for number in 0_usize.. {
        let count = client.gateways().len();
        let Some(gateway) = client.gateways().get(number % count) else {
            break;
        };
        if stop.is_cancelled() {
            break;
        }
        let end = match hand::join(gateway, member.ask()).await {
            Ok(link) => member.serve(link, &stop).await?,
            // An SDK would end for good. No name is taken over here while its agent lives.
            Err(fault) if fault.kind == FaultKind::Fenced => {
                bail!("agent `{}` is refused: {fault}", member.spec.id)
            },
            Err(_fault) => End::Lost,
        };
        match end {
            End::Stopped => break,
            End::Lost if number % count == count - 1 => sleep(RETRY).await,
            End::Lost => {},
        }
    }
    Ok(())
}

impl Member {
    fn ask(&self) -> wire::Join {
        wire::Join {
            group: self.spec.group.to_string(),
            consumer_id: self.spec.id.to_string(),
            session: self.session.clone(),
            capabilities: Vec::new(),
            max_in_flight: self.spec.concurrency * 2,
            concurrency: self.spec.concurrency,
            held_leases: self
                .entries
                .values()
                .map(|entry| entry.lease.to_string())
                .collect(),
            accepts_offers: false,
            pod: String::new(),
        }
    }

    /// One connection, from its join to its end.
    async fn serve(&mut self, mut link: Link, stop: &CancellationToken) -> Result<End> {
        self.log.record(Event::Joined {
            group: Arc::clone(&self.spec.group),
            consumer: Arc::clone(&self.spec.id),
            concurrency: self.spec.concurrency,
        });
        self.session.clone_from(&link.joined.session);
        for lost in std::mem::take(&mut link.joined.lost_leases) {
            self.forget(&lost);
        }
        let lost = self.exchange(&mut link, stop).await;
        for entry in self.entries.values_mut() {
            if let State::Asked(call, action) = entry.state {
                self.log.settle_answered(call, SettleAnswer::Unknown);
                entry.state = State::Done(action);
            }
        }
        match lost {
            Ok(end) => Ok(end),
            Err(ended) => {
                if let Some(status) = ended.downcast_ref::<tonic::Status>() {
                    let fault = Fault::from(status.clone());
                    let is_fenced = fault.kind == FaultKind::Fenced;
                    ensure!(!is_fenced, "agent `{}` is sent away: {fault}", self.spec.id);
                }
                self.log.record(Event::ConsumerLost {
                    group: Arc::clone(&self.spec.group),
                    consumer: Arc::clone(&self.spec.id),
                    loss: Loss::Disconnected,
                });
                Ok(End::Lost)
            },
        }
    }

    /// Frames in both directions; an error when the stream ends.
    async fn exchange(&mut self, link: &mut Link, stop: &CancellationToken) -> Result<End> {
        let room = (self.spec.concurrency * 2) as usize;
        let credit = room.saturating_sub(self.entries.len());
        grant(link, credit).await?;
        let mut beats = tokio::time::interval(self.spec.lease / 3);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.begin();
            self.settle(link).await?;
            tokio::select! {
                () = stop.cancelled() => return self.leave(link).await,
                frame = link.answers.message() => self.receive(frame?, link).await?,
                Some(done) = self.jobs.join_next(), if !self.jobs.is_empty() => {
                    self.finish(done);
                    while let Some(done) = self.jobs.try_join_next() {
                        self.finish(done);
                    }
                },
                _ = beats.tick() => self.beat(link).await?,
            }
        }
    }

    async fn receive(
        &mut self,
        frame: Option<wire::ConsumeResponse>,
        link: &mut Link,
    ) -> Result<()> {
        match frame
            .and_then(|frame| frame.frame)
            .context("the gateway closed the stream")?
        {
            Frame::Deliveries(deliveries) => {
                for delivery in deliveries.deliveries {
                    self.deliver(delivery)?;
                }
            },
            Frame::Settled(settled) => {
                let count = settled.results.len();
                for result in &settled.results {
                    self.answered(result);
                }
                grant(link, count).await?;
            },
            Frame::Cancel(cancel) => {
                let count = cancel
                    .leases
                    .iter()
                    .filter(|lost| self.forget(lost))
                    .count();
                grant(link, count).await?;
            },
            Frame::Joined(_)
            | Frame::Revoke(_)
            | Frame::Drain(_)
            | Frame::KeepAlive(_)
            | Frame::Offer(_) => {},
        }
        Ok(())
    }

    fn deliver(&mut self, delivery: wire::Delivery) -> Result<()> {
        let member = (&self.spec.group, &self.spec.id);
        let taken = hand::note_delivery(&self.log, member, delivery)?;
        let key = lease::entry(&taken.lease).to_owned();
        if let Some(entry) = self.entries.get_mut(&key) {
            // It came again while its job goes on: the job settles the newer lease.
            entry.lease = Arc::clone(&taken.lease);
            match entry.state {
                State::Running => self.log.record(Event::Begun { lease: taken.lease }),
                State::Asked(call, action) => {
                    self.log.settle_answered(call, SettleAnswer::Unknown);
                    entry.state = State::Done(action);
                },
                State::Queued(_) => entry.state = State::Queued(Box::new(taken)),
                State::Done(_) => {},
            }
            return Ok(());
        }
        let entry = Entry {
            lease: Arc::clone(&taken.lease),
            state: State::Queued(Box::new(taken)),
        };
        self.entries.insert(key.clone(), entry);
        self.queue.push_back(key);
        Ok(())
    }

    /// Begins what is queued, as far as the concurrency goes.
    fn begin(&mut self) {
        while self.jobs.len() < self.spec.concurrency as usize {
            let Some(key) = self.queue.pop_front() else {
                return;
            };
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            let State::Queued(taken) = std::mem::replace(&mut entry.state, State::Running) else {
                continue;
            };
            self.log.record(Event::Begun {
                lease: Arc::clone(&entry.lease),
            });
            let (work, action) = plan(&self.spec, &taken);
            self.jobs.spawn(async move {
                sleep(work).await;
                (key, action)
            });
        }
    }

    fn finish(&mut self, done: Result<(String, Action), tokio::task::JoinError>) {
        if let Ok((key, action)) = done
            && let Some(entry) = self.entries.get_mut(&key)
        {
            entry.state = State::Done(action);
        }
    }

    /// Sends what is done.
    async fn settle(&mut self, link: &Link) -> Result<()> {
        let mut outcomes = Vec::new();
        for entry in self.entries.values_mut() {
            if let State::Done(action) = entry.state {
                let call = self.log.settle_called(&entry.lease, action);
                entry.state = State::Asked(call, action);
                outcomes.push(hand::outcome(&entry.lease, action));
            }
        }
        if outcomes.is_empty() {
            return Ok(());
        }
        send(link, Ask::Settle(wire::SettleBatch { outcomes })).await
    }

    fn answered(&mut self, result: &wire::SettleResult) {
        let key = lease::entry(&result.lease);
        let Some(entry) = self.entries.get(key) else {
            return;
        };
        if let State::Asked(call, _) = entry.state
            && *entry.lease == *result.lease
        {
            self.log.settle_answered(call, hand::answer_of(result));
            self.entries.remove(key);
        }
    }

    async fn beat(&self, link: &Link) -> Result<()> {
        let mut leases = Vec::new();
        let mut begun = Vec::new();
        for entry in self.entries.values() {
            leases.push(Arc::clone(&entry.lease));
            if !matches!(entry.state, State::Queued(_)) {
                begun.push(entry.lease.to_string());
            }
        }
        if leases.is_empty() {
            return Ok(());
        }
        let named = leases.iter().map(ToString::to_string).collect();
        self.log.record(Event::Heartbeat { leases });
        send(
            link,
            Ask::Heartbeat(wire::Heartbeat {
                leases: named,
                begun,
            }),
        )
        .await
    }

    /// Drops a delivery that is no longer its own; false when it held none of that lease.
    fn forget(&mut self, lost: &str) -> bool {
        let key = lease::entry(lost);
        let is_held = self
            .entries
            .get(key)
            .is_some_and(|entry| *entry.lease == *lost);
        if is_held {
            self.entries.remove(key);
        }
        is_held
    }

    /// Takes the last answers, then leaves: what is not settled goes back.
    async fn leave(&mut self, link: &mut Link) -> Result<End> {
        let answers = async {
            while self
                .entries
                .values()
                .any(|entry| matches!(entry.state, State::Asked(..)))
            {
                let frame = link.answers.message().await?;
                let Some(Frame::Settled(settled)) = frame.and_then(|frame| frame.frame) else {
                    continue;
                };
                for result in &settled.results {
                    self.answered(result);
                }
            }
            anyhow::Ok(())
        };
        // Without its answers the rest of the log says that they are unknown.
        drop(timeout(FAREWELL, answers).await);
        self.log.record(Event::ConsumerLost {
            group: Arc::clone(&self.spec.group),
            consumer: Arc::clone(&self.spec.id),
            loss: Loss::Left,
        });
        send(link, Ask::Leave(wire::Leave {})).await?;
        // The gateway closes the stream when everything is given back.
        let end = Instant::now() + FAREWELL;
        while let Ok(Ok(Some(_))) = tokio::time::timeout_at(end, link.answers.message()).await {}
        Ok(End::Stopped)
    }
}

async fn send(link: &Link, frame: Ask) -> Result<()> {
    let frame = wire::ConsumeRequest { frame: Some(frame) };
    timeout(PATIENCE, link.frames.send(frame))
        .await?
        .context("the stream ended")
}

async fn grant(link: &Link, messages: usize) -> Result<()> {
    if messages == 0 {
        return Ok(());
    }
    send(
        link,
        Ask::Credit(wire::Credit {
            messages: u32::try_from(messages)?,
        }),
    )
    .await
}

/// How long the work takes and how it ends: by the message and its attempt, so that a seed replays.
fn plan(spec: &Spec, taken: &Taken) -> (Duration, Action) {
    let mut hasher = DefaultHasher::new();
    (&taken.message.message_id, taken.attempt).hash(&mut hasher);
    let hash = hasher.finish();
    let work = spec.work.mul_f64((hash % 1_000) as f64 / 1_000.0);
    let action = match (hash / 1_000) % 1_000 {
        0..20 if spec.is_moody => Action::Nack,
        20..30 if spec.is_moody && taken.attempt == 1 => Action::Nack,
        30..35 if spec.is_moody => Action::Reject,
        _ => Action::Ack,
    };
    (work, action)
}
