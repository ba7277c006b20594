//! Leases messages of one group to the consumers that are attached to this gateway.
//!
//! One task per group fetches for all of them at once: reads for many consumers ride in one call,
//! and who gets what is one decision (`hive_domain::routing`). It sleeps until a bell, a grant of
//! credit or the poll wakes it; an idle consumer costs no Redis command but the group's one poll a
//! second. A connection that goes away while its messages are on the way gives them back uncounted.
//!
//! The common case, one lane with work and nothing to deliver again, is read without the script:
//! see `dispatcher/plain.rs`.

mod plain;
mod specialists;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hive_domain::routing::{self, Free};
use hive_protocol::{
    fault::{Fault, Reason},
    limits::BATCH_BYTES_MAX,
    wire::{self, consume_response::Frame},
};
use hive_store::{
    Shard, StoreError,
    bells::CancelledLease,
    fetch::{Fetch, Fetched, Lanes, ReadLane, Taken, Taker},
    scripts::seeded,
    settle::{Action, Settle},
};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::Notify;

use self::{plain::Plain, specialists::Elsewhere};
use crate::{
    attached::Attached,
    catalog::GroupView,
    core::{Gateway, now_ms},
    delivery::{Deliveries, Fate, Holder},
    outcomes,
};

/// How long a lost bell may delay a message.
const POLL: Duration = Duration::from_secs(1);
/// When a consumer that came is looked at again: longer than a read of its old connection may be
/// under way, as plain reads are trusted for a tenth of it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Most consumers that are looked at before a fetch: one costs as much as a fetch, and thousands
/// come back at once when a gateway goes.
const LOOKS_MAX: usize = 16;
/// Most messages of one fetch by the script: it copies each through Lua, so it takes no more than
/// it needs to be cheap per message, and leaves the rest of a backlog to plain reads.
const FETCH_MAX: u32 = 100;
/// A dispatcher without consumers ends after this long.
const RETIRE: Duration = Duration::from_secs(60);
/// Calls of one look for what is due: enough for all tasks that a group holds at once.
const DUE_CALLS: u32 = 3;
/// Pause after a failed fetch.
const RETRY: Duration = Duration::from_millis(200);

/// The consumers of one group at this gateway.
#[derive(Debug)]
pub struct Dispatcher {
    /// Namespace of the group.
    pub namespace: String,
    /// Name of the group.
    pub group: String,
    /// Its shard.
    pub shard: Shard,
    consumers: Mutex<BTreeMap<Arc<str>, Arc<Attached>>>,
    /// Bells of the shard, grants of credit.
    wake: Arc<Notify>,
    /// Whether something may be waiting; false once a fetch found every source empty.
    may_have_work: AtomicBool,
    /// Whether something may be leased that nobody holds: an answer was lost, or what could not be
    /// handed over could not be given back.
    must_reconcile: AtomicBool,
    /// Sessions that were told to go for good, by consumer: one that lost its connection and comes
    /// back is told again.
    drained: Mutex<BTreeMap<Arc<str>, Arc<str>>>,
    /// Consumers to look at again, and when: see `look_again`.
    to_look: Mutex<BTreeMap<Arc<str>, Instant>>,
}

/// What the dispatcher's task remembers from one fetch to the next.
#[derive(Debug)]
struct Memory {
    /// The consumer that was served last.
    last_served: Option<Arc<str>>,
    /// Set while plain reads may follow.
    plain: Option<Plain>,
    /// No reconciliation before this time: the last one was refused.
    reconcile_after: Option<Instant>,
    /// When work arrived that nothing had been left of before.
    woke: Instant,
    /// When those who left it to others have their turn.
    again_at: Option<Instant>,
    /// When a task that is held for one consumer is anybody's.
    due_at: Option<Instant>,
    /// Who those others are.
    elsewhere: Elsewhere,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            last_served: None,
            plain: None,
            reconcile_after: None,
            woke: Instant::now(),
            again_at: None,
            due_at: None,
            elsewhere: Elsewhere::default(),
        }
    }
}

impl Memory {
    fn has_alarm(&self) -> bool {
        self.again_at.or(self.due_at).is_some()
    }

    /// Waits until the first of what it is to be woken for.
    async fn alarm(&self) {
        let first = self.again_at.into_iter().chain(self.due_at).min();
        tokio::time::sleep_until(first.unwrap_or_else(Instant::now).into()).await;
    }

    /// Whose turn was the last, as `routing` takes it: a position among the hungry.
    fn turn(&self, hungry: &Hungry) -> Option<usize> {
        let last = self.last_served.as_ref()?;
        let behind = hungry
            .consumers
            .partition_point(|(one, _)| one.consumer <= *last);
        behind.checked_sub(1)
    }
}

/// Consumers with room, by id, each with what it could take when it was looked at.
#[derive(Debug)]
struct Hungry {
    consumers: Vec<(Arc<Attached>, u32)>,
}

impl Hungry {
    fn is_empty(&self) -> bool {
        self.consumers.is_empty()
    }

    fn get(&self, index: usize) -> Option<&Arc<Attached>> {
        self.consumers.get(index).map(|(one, _)| one)
    }

    fn room(&self, index: usize) -> u32 {
        self.consumers.get(index).map_or(0, |(_, room)| *room)
    }

    fn free(&self) -> Vec<Free> {
        let free = |(index, (one, room)): (usize, &(Arc<Attached>, u32))| Free {
            index,
            free: *room,
            capacity: one.capacity,
            specialisation: one.capabilities.len(),
        };
        self.consumers.iter().enumerate().map(free).collect()
    }

    /// Sets credit aside for what is asked for.
    fn reserve(&self, slots: &[(usize, u32)]) -> Reserved {
        let mut parts: Vec<Part> = self
            .consumers
            .iter()
            .map(|(one, _)| Part {
                consumer: one.clone(),
                left: 0,
            })
            .collect();
        for (index, count) in slots {
            if let Some(part) = parts.get_mut(*index) {
                part.left = part.left.saturating_add(*count);
            }
        }
        for part in &parts {
            part.consumer.reserve(part.left);
        }
        Reserved { parts }
    }
}

/// Credit set aside for a fetch that is under way; what the fetch did not use is credit again when
/// this is dropped.
#[derive(Debug)]
struct Reserved {
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    consumer: Arc<Attached>,
    /// Credit that is set aside and was not held under yet.
    left: u32,
}

impl Reserved {
    /// Notes a delivery to the consumer at this position.
    fn bring(&mut self, index: usize) {
        if let Some(part) = self.parts.get_mut(index) {
            part.left = part.left.saturating_sub(1);
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        for part in &self.parts {
            part.consumer.end_reserve(part.left);
        }
    }
}

/// What a fetch came to.
enum Step {
    /// There may be more for whoever has credit.
    Again,
    /// Nothing more until something wakes us.
    Rest,
    /// Redis is away, or the group is gone.
    Failed,
}

impl Dispatcher {
    /// A dispatcher without consumers.
    #[must_use]
    pub fn new(view: &GroupView, wake: Arc<Notify>) -> Self {
        Self {
            namespace: view.namespace.clone(),
            group: view.definition.name.clone(),
            shard: view.shard.clone(),
            consumers: Mutex::default(),
            wake,
            may_have_work: AtomicBool::new(true),
            must_reconcile: AtomicBool::new(false),
            drained: Mutex::default(),
            to_look: Mutex::default(),
        }
    }

    /// Whether nobody is attached.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.consumers.lock().is_empty()
    }

    /// Adds a consumer; answers the connection that has to go: the one that it replaces, or itself
    /// where a newer connection of its session was quicker.
    pub fn attach(&self, consumer: &Arc<Attached>) -> Option<Arc<Attached>> {
        let mut consumers = self.consumers.lock();
        if let Some(present) = consumers.get(&consumer.consumer)
            && present.session == consumer.session
            && present.attach > consumer.attach
        {
            return Some(consumer.clone());
        }
        let mut drained = self.drained.lock();
        match drained.get(&consumer.consumer) {
            Some(session) if *session == consumer.session => drop(consumer.begin_drain()),
            // A new process under the name: nobody told it to go.
            Some(_) => drop(drained.remove(&consumer.consumer)),
            None => {},
        }
        drop(drained);
        self.may_have_work.store(true, Ordering::Release);
        // A read that was under way at its old connection, here or elsewhere, may lease for it
        // until a moment from now, and nobody would know of it.
        let at = Instant::now() + LOOK_AGAIN;
        self.to_look.lock().insert(consumer.consumer.clone(), at);
        consumers.insert(consumer.consumer.clone(), consumer.clone())
    }

    /// Removes a connection, unless another one has taken its place.
    pub fn detach(&self, consumer: &Attached) {
        let mut consumers = self.consumers.lock();
        if consumers
            .get(&consumer.consumer)
            .is_some_and(|held| held.attach == consumer.attach && held.session == consumer.session)
        {
            consumers.remove(&consumer.consumer);
        }
    }

    /// The consumer of this name, if it is attached here.
    #[must_use]
    pub fn consumer(&self, name: &str) -> Option<Arc<Attached>> {
        self.consumers.lock().get(name).cloned()
    }

    /// All that are attached here, by name.
    #[must_use]
    pub fn attached(&self) -> Vec<Arc<Attached>> {
        self.consumers.lock().values().cloned().collect()
    }

    /// Tells a consumer to finish and go for good; nothing more is fetched for it, also after it
    /// lost its connection and came back here.
    pub fn drain(&self, consumer: &Attached) {
        let (name, session) = (consumer.consumer.clone(), consumer.session.clone());
        // Under the lock of an attach: who comes back meanwhile finds it noted, or is found.
        let consumers = self.consumers.lock();
        self.drained.lock().insert(name, session);
        let present = consumers.get(&consumer.consumer).cloned();
        drop(consumers);
        for one in present.iter().map(|one| &**one).chain([consumer]) {
            if one.session == consumer.session && one.begin_drain() {
                one.send_drain();
            }
        }
    }

    /// Forgets that a session was told to go, unless it is attached here again.
    pub(crate) fn forget_drain(&self, gone: &Attached) {
        let consumers = self.consumers.lock();
        let is_back = consumers
            .get(&gone.consumer)
            .is_some_and(|one| one.session == gone.session);
        let mut drained = self.drained.lock();
        if !is_back && drained.get(&gone.consumer) == Some(&gone.session) {
            drained.remove(&gone.consumer);
        }
    }

    /// Takes a lease away that was ended elsewhere; false where its consumer is attached here and
    /// does not hold it, or not yet. One that its client is settling is told of with that outcome's
    /// answer.
    pub(crate) fn cancel(&self, lease: &CancelledLease) -> bool {
        let consumer = self.consumers.lock().get(&*lease.consumer).cloned();
        let Some(consumer) = consumer else {
            return true;
        };
        let entry = (lease.lane.as_str(), lease.id.as_str(), lease.deliveries);
        let Some(token) = consumer.forget_entry(entry) else {
            return false;
        };
        let reason = "the task was decided elsewhere".to_owned();
        let leases = vec![token];
        consumer.send(Frame::Cancel(wire::Cancel { leases, reason }));
        true
    }

    /// Says that credit was granted: fetches if there may be work.
    pub fn credit_granted(&self) {
        if self.may_have_work.load(Ordering::Acquire) {
            self.wake.notify_one();
        }
    }

    /// Notes whether there may be more work than was just handed out.
    fn note_work(&self, is_there: bool) {
        self.may_have_work.store(is_there, Ordering::Release);
    }

    /// Runs until the gateway drains, or nobody was attached for a minute.
    pub async fn run(self: Arc<Self>, gateway: Arc<Gateway>) {
        let mut idle_since = Instant::now();
        let mut memory = Memory::default();
        let mut next_due = Instant::now() + POLL;
        loop {
            tokio::select! {
                () = self.wake.notified() => {},
                () = tokio::time::sleep(POLL), if !seeded::is(seeded::NO_POLL) => {},
                () = memory.alarm(), if memory.has_alarm() => {},
                () = gateway.shutdown.draining() => return,
            }
            memory.again_at = None;
            if memory.due_at.take().is_some_and(|at| at <= Instant::now()) {
                next_due = Instant::now();
            }
            if !self.may_have_work.load(Ordering::Acquire) {
                memory.woke = Instant::now();
            }
            if self.is_empty() {
                if idle_since.elapsed() > RETIRE && gateway.retire(&self) {
                    return;
                }
                continue;
            }
            idle_since = Instant::now();
            self.note_work(true);
            while !gateway.shutdown.is_draining() {
                // Also in the middle of a flood: bells that never stop must not stop retries.
                if next_due <= Instant::now() {
                    next_due = Instant::now() + POLL;
                    self.wake_due(&gateway).await;
                }
                match self.step(&gateway, &mut memory).await {
                    Step::Again => {},
                    Step::Rest => break,
                    Step::Failed => {
                        tokio::time::sleep(RETRY).await;
                        break;
                    },
                }
            }
        }
    }

    /// Moves what has waited out its backoff to where it is fetched from.
    async fn wake_due(&self, gateway: &Gateway) {
        if !self.hungry().is_empty()
            && let Ok(view) = gateway.catalog.group(&self.namespace, &self.group).await
        {
            gateway.wake_due(&view).await;
        }
    }

    /// Ends all connections: their group was deleted.
    fn end_group_gone(&self) {
        for consumer in std::mem::take(&mut *self.consumers.lock()).values() {
            consumer.end_group_gone();
        }
    }

    /// Ends all connections with this fault; their clients may come back to what they hold.
    pub(crate) fn end_all(&self, fault: &Fault) {
        for consumer in std::mem::take(&mut *self.consumers.lock()).values() {
            consumer.end_lost(fault.clone());
        }
    }

    fn hungry(&self) -> Hungry {
        let consumers = self
            .consumers
            .lock()
            .values()
            .map(|one| (one.clone(), one.room()))
            .filter(|(_, room)| *room > 0)
            .collect();
        Hungry { consumers }
    }

    async fn step(&self, gateway: &Arc<Gateway>, memory: &mut Memory) -> Step {
        // Asked first: consumers without credit learn too that their group is gone.
        let view = match gateway.catalog.group(&self.namespace, &self.group).await {
            Ok(view) => view,
            Err(fault) if matches!(fault.reason, Reason::GroupNotFound | Reason::GroupGone) => {
                self.end_group_gone();
                return Step::Rest;
            },
            Err(_fault) => return Step::Failed,
        };
        let may_reconcile = memory
            .reconcile_after
            .is_none_or(|after| after <= Instant::now());
        // Here no read is under way: what a consumer has and nobody holds, nobody will.
        let doubtful = if may_reconcile {
            self.take_doubtful()
        } else {
            Vec::new()
        };
        if !doubtful.is_empty() {
            match self.reconcile(gateway, &view, &doubtful).await {
                Ok(()) => {},
                Err(error) if error.is_transient() => {
                    tracing::debug!(group = self.group, %error, "reconcile_failed");
                    self.must_reconcile.store(true, Ordering::Release);
                    return Step::Failed;
                },
                // One lane or entry that Redis refuses must not stop the others: what nobody holds
                // waits for its lease, and is tried again with the next look.
                Err(error) => {
                    tracing::warn!(group = self.group, %error, "reconcile_refused");
                    self.must_reconcile.store(true, Ordering::Release);
                    memory.reconcile_after = Some(Instant::now() + POLL);
                },
            }
        }
        let hungry = self.hungry();
        if hungry.is_empty() {
            return Step::Rest;
        }
        let hungry = self.whose_turn(gateway, &view, hungry, memory).await;
        if hungry.is_empty() {
            return Step::Rest;
        }
        let done = if memory.plain.as_ref().is_some_and(Plain::is_fresh) {
            self.read_plainly(gateway, memory).await
        } else {
            memory.plain = None;
            self.fetch(gateway, &view, &hungry, memory).await
        };
        done.unwrap_or_else(|error| {
            tracing::debug!(group = self.group, %error, "fetch_failed");
            // Some of it may have been leased whatever the error is.
            self.must_reconcile.store(true, Ordering::Release);
            Step::Failed
        })
    }

    /// Fetches by the script, which looks at all lanes and at what is to be delivered again.
    async fn fetch(
        &self,
        gateway: &Arc<Gateway>,
        view: &GroupView,
        hungry: &Hungry,
        memory: &mut Memory,
    ) -> Result<Step, StoreError> {
        let lanes = gateway.catalog.lanes(&self.shard).await?;
        let read = lanes.of_group(&self.shard, &self.group);
        let takers: Vec<Taker> = hungry
            .consumers
            .iter()
            .map(|(one, _)| one.taker())
            .collect();
        let free = hungry.free();
        let mode = view.definition.settings.routing_mode;
        let plan = routing::rounds(mode, &free, memory.turn(hungry));
        let slots = routing::carried(mode, &plan, FETCH_MAX);
        let wanted: u64 = slots.iter().map(|(_, count)| u64::from(*count)).sum();
        let mut reserved = hungry.reserve(&slots);
        let fetch = Fetch {
            group: &self.group,
            gateway: &gateway.incarnation,
            own_free: free.iter().map(|one| u64::from(one.free)).sum(),
            ageing_ms: view.ageing_ms(),
            group_limit: u64::from(view.definition.settings.max_in_flight),
            hold_ms: mode.affinity_wait_ms(),
            known_lanes: lanes.all.len(),
            lanes: &read,
            takers: &takers,
            slots: &slots,
        };
        gateway.metrics.fetches_script.increment(1);
        match gateway.store.fetch(&self.shard, &fetch).await? {
            Fetched::Taken {
                entries,
                fenced,
                detached,
                left,
                parked,
                due_in_ms,
            } => {
                if due_in_ms > 0 {
                    memory.due_at = Some(Instant::now() + Duration::from_millis(due_in_ms));
                }
                for position in fenced {
                    if let Some(consumer) = hungry.get(position) {
                        consumer.fence();
                        self.detach(consumer);
                    }
                }
                for position in detached {
                    if let Some(consumer) = hungry.get(position) {
                        consumer.detach();
                        self.detach(consumer);
                    }
                }
                let taken = entries.len() as u64;
                let is_deep = taken == wanted;
                let has_limit = view.definition.settings.max_in_flight > 0;
                if !has_limit && (gateway.is_alone() || is_deep) {
                    memory.plain = Plain::after(&read, &entries, &left, is_deep);
                }
                let last = self
                    .deliver(gateway, (view, &read), hungry, entries, &mut reserved)
                    .await;
                memory.last_served = last.or(memory.last_served.take());
                self.note_work(!left.is_empty());
                // What was parked was read: behind it there may be work for others.
                Ok(if taken + parked > 0 && !left.is_empty() {
                    Step::Again
                } else {
                    Step::Rest
                })
            },
            Fetched::LanesChanged => {
                gateway.catalog.read_lanes(&self.shard).await?;
                Ok(Step::Again)
            },
            Fetched::Paused => Ok(Step::Rest),
            Fetched::Gone => {
                gateway.store.check_dataset().await?;
                gateway
                    .catalog
                    .forget(&self.namespace, &self.group, &view.definition.stream);
                self.end_group_gone();
                Ok(Step::Rest)
            },
        }
    }

    /// Hands entries to their connections; what cannot be handed over goes back. Answers who was
    /// served last.
    async fn deliver(
        &self,
        gateway: &Arc<Gateway>,
        (view, lanes): (&GroupView, &[ReadLane]),
        hungry: &Hungry,
        entries: Vec<Taken>,
        reserved: &mut Reserved,
    ) -> Option<Arc<str>> {
        let last = entries
            .last()
            .and_then(|entry| Some(hungry.get(entry.taker)?.consumer.clone()));
        let lease_ms = view.definition.settings.lease_ms;
        let deliveries = Deliveries::new(view, lanes, gateway.store.now_ms());
        let mut frames: BTreeMap<usize, Vec<wire::Delivery>> = BTreeMap::new();
        let mut back = Vec::new();
        for entry in entries {
            let index = entry.taker;
            let Some(consumer) = hungry.get(index) else {
                continue;
            };
            let holder = consumer.holder();
            match deliveries.fate(entry, holder) {
                Fate::Deliver(lease, delivery) => {
                    match consumer.hold(&delivery.lease, lease, lease_ms) {
                        Ok(()) => {
                            reserved.bring(index);
                            frames.entry(index).or_default().push(delivery);
                        },
                        Err(lease) => {
                            back.push(Holder::unheard(lease));
                        },
                    }
                },
                Fate::End(settle) => back.push(settle),
            }
        }
        for (index, deliveries) in frames {
            if let Some(consumer) = hungry.get(index) {
                gateway.metrics.delivered.increment(deliveries.len() as u64);
                for frame in cut(deliveries) {
                    consumer.send_deliveries(frame);
                }
            }
        }
        if !back.is_empty() {
            let settler = gateway.settler(&self.namespace, &self.group);
            if let Err(error) = settler.settle(back).await {
                tracing::warn!(group = self.group, %error, "give_back_failed");
                self.must_reconcile.store(true, Ordering::Release);
            }
        }
        last
    }

    /// Gives back, uncounted, what the PELs of these consumers have and nobody holds: after a lost
    /// reply, and a moment after a consumer came.
    async fn reconcile(
        &self,
        gateway: &Arc<Gateway>,
        view: &GroupView,
        consumers: &[Arc<Attached>],
    ) -> Result<(), StoreError> {
        let lanes: Arc<Lanes> = gateway.catalog.read_lanes(&self.shard).await?;
        let read = lanes.of_group(&self.shard, &self.group);
        for consumer in consumers {
            self.reconcile_one(gateway, (view, &read), consumer).await?;
        }
        Ok(())
    }

    /// Whom to look at now: all after a lost reply, else who came a moment ago.
    fn take_doubtful(&self) -> Vec<Arc<Attached>> {
        // Before the look: what is lost meanwhile is looked for with the next one.
        if self.must_reconcile.swap(false, Ordering::AcqRel) {
            self.to_look.lock().clear();
            return self.consumers.lock().values().cloned().collect();
        }
        let now = Instant::now();
        let mut to_look = self.to_look.lock();
        let due: Vec<Arc<str>> = to_look
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(consumer, _)| consumer.clone())
            .take(LOOKS_MAX)
            .collect();
        for consumer in &due {
            to_look.remove(consumer);
        }
        drop(to_look);
        let consumers = self.consumers.lock();
        due.iter()
            .filter_map(|consumer| consumers.get(consumer).cloned())
            .collect()
    }

    async fn reconcile_one(
        &self,
        gateway: &Gateway,
        (view, read): (&GroupView, &[ReadLane]),
        consumer: &Attached,
    ) -> Result<(), StoreError> {
        let pending = gateway
            .store
            .held_by(&self.group, read, &consumer.consumer)
            .await?;
        let holdings = consumer.holdings();
        let back: Vec<Settle> = pending
            .iter()
            .map(|entry| entry.lease(read, &consumer.session, now_ms()))
            .filter(|lease| {
                !holdings.contains(&(lease.lane.clone(), lease.id.clone(), lease.count))
            })
            .map(|lease| {
                let action = Action::GiveBack { idle_ms: 0 };
                consumer.holder().settle(lease, action)
            })
            .collect();
        if back.is_empty() {
            return Ok(());
        }
        let verdicts = gateway
            .store
            .settle(&self.shard, view.settling(read), &back, now_ms())
            .await?;
        let taken = outcomes::taken(&verdicts);
        gateway.metrics.given_back_reply.increment(taken);
        Ok(())
    }
}

/// Cuts deliveries into frames that a client takes: one holds a batch's bytes, or one delivery.
fn cut(deliveries: Vec<wire::Delivery>) -> Vec<Vec<wire::Delivery>> {
    let mut frames = Vec::with_capacity(1);
    let mut frame = Vec::with_capacity(deliveries.len());
    let mut bytes = 0;
    for delivery in deliveries {
        let size = delivery.encoded_len();
        if bytes + size > BATCH_BYTES_MAX && !frame.is_empty() {
            frames.push(std::mem::take(&mut frame));
            bytes = 0;
        }
        bytes += size;
        frame.push(delivery);
    }
    frames.push(frame);
    frames
}

impl Gateway {
    /// Moves entries whose backoff is over, so that retries go on without a coordinator.
    pub(crate) async fn wake_due(&self, view: &GroupView) {
        let (shard, group) = (&view.shard, &view.definition.name);
        let Ok(lanes) = self.catalog.lanes(shard).await else {
            return;
        };
        let lanes = lanes.of_group(shard, group);
        for _ in 0..DUE_CALLS {
            let due = self
                .store
                .due_delayed(shard, group, &lanes, view.ageing_ms())
                .await;
            let Ok(due) = due else { return };
            if due.lanes_changed {
                // The next poll has the lanes.
                drop(self.catalog.read_lanes(shard).await);
            }
            if due.next_ms == 0 || due.next_ms > self.store.now_ms() {
                return;
            }
        }
    }
}
