//! Leases messages of one group to the consumers that are attached to this gateway.
//!
//! One task per group fetches for all of them at once: reads for many consumers ride in one call,
//! and who gets what is one decision (`hive_domain::routing`). It sleeps until a bell, a grant of
//! credit or the poll wakes it; an idle consumer costs no Redis command but the group's one poll a
//! second. A connection that goes away while its messages are on the way gives them back uncounted.
//!
//! The common case is one lane with work and nothing to deliver again. There a plain pipelined read
//! costs Redis less than half of the script, which copies every payload through Lua; so what a
//! script fetch found is trusted for [`PLAIN_FOR`], as long as no other lane got an entry.

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
    time, wire,
};
use hive_store::{
    Lane, Lease, Shard, StoreError,
    fetch::{Fetch, Fetched, Lanes, ReadLane, Taken, Taker},
    header::expiry_and_envelope,
    scripts::seeded,
    settle::{Action, Settle},
};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::Notify;

use crate::{
    attached::Attached,
    catalog::GroupView,
    core::{Gateway, now_ms},
};

/// How long a lost bell may delay a message.
const POLL: Duration = Duration::from_secs(1);
/// How long plain reads may follow a script fetch: how late a redelivery or an old priority may be
/// noticed.
const PLAIN_FOR: Duration = Duration::from_millis(100);
/// Most messages of one fetch, as the script bounds it.
const FETCH_MAX: u32 = 1_000;
/// Most messages of one plain read, which has no bound by bytes.
const PLAIN_MAX: u32 = 256;
/// A dispatcher without consumers ends after this long.
const RETIRE: Duration = Duration::from_secs(60);
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
    consumers: Mutex<BTreeMap<String, Arc<Attached>>>,
    /// Bells of the shard, grants of credit.
    wake: Arc<Notify>,
    /// Whether something may be waiting; false once a fetch found every source empty.
    may_have_work: AtomicBool,
}

/// What the dispatcher's task remembers from one fetch to the next.
#[derive(Debug, Default)]
struct Memory {
    /// Position of the consumer that was served last.
    last_served: Option<usize>,
    /// Set while plain reads may follow.
    plain: Option<Plain>,
}

/// The one lane that had work, as a script fetch found it.
#[derive(Debug)]
struct Plain {
    reference: String,
    until: Instant,
    /// Entries that the last read took: about so many are there again.
    expected: u64,
    /// Newest entries of all other lanes at the first plain read.
    others: Option<Vec<(String, String)>>,
}

/// Who takes how many from where.
#[derive(Clone, Copy)]
struct Order<'a> {
    read: &'a [ReadLane],
    takers: &'a [Taker],
    slots: &'a [(usize, u32)],
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
        self.may_have_work.store(true, Ordering::Release);
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

    /// Says that credit was granted: fetches if there may be work.
    pub fn credit_granted(&self) {
        if self.may_have_work.load(Ordering::Acquire) {
            self.wake.notify_one();
        }
    }

    /// Runs until the gateway drains, or nobody was attached for a minute.
    pub async fn run(self: Arc<Self>, gateway: Arc<Gateway>) {
        let mut idle_since = Instant::now();
        let mut memory = Memory::default();
        loop {
            let woken = tokio::select! {
                () = self.wake.notified() => true,
                () = tokio::time::sleep(POLL), if !seeded::is(seeded::NO_POLL) => false,
                () = gateway.shutdown.draining() => return,
            };
            if self.is_empty() {
                if idle_since.elapsed() > RETIRE && gateway.retire(&self) {
                    return;
                }
                continue;
            }
            idle_since = Instant::now();
            self.may_have_work.store(true, Ordering::Release);
            if !woken
                && !self.hungry().is_empty()
                && let Ok(view) = gateway.catalog.group(&self.namespace, &self.group).await
            {
                gateway.wake_due(&view).await;
            }
            while !gateway.shutdown.is_draining() {
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

    /// Ends all connections: their group was deleted.
    fn end_group_gone(&self) {
        for consumer in std::mem::take(&mut *self.consumers.lock()).values() {
            consumer.end_group_gone();
        }
    }

    /// Ends all connections with this fault.
    pub(crate) fn end_all(&self, fault: &Fault) {
        for consumer in std::mem::take(&mut *self.consumers.lock()).values() {
            consumer.end_with(fault.clone());
        }
    }

    fn hungry(&self) -> Vec<Arc<Attached>> {
        self.consumers
            .lock()
            .values()
            .filter(|one| one.room() > 0)
            .cloned()
            .collect()
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
        let hungry = self.hungry();
        if hungry.is_empty() {
            return Step::Rest;
        }
        let Ok(lanes) = gateway.catalog.lanes(&self.shard).await else {
            return Step::Failed;
        };
        match self.fetch(gateway, &view, &lanes, &hungry, memory).await {
            Ok(step) => step,
            Err(error) => {
                tracing::debug!(group = self.group, %error, "fetch_failed");
                // Some of it may have been leased whatever the error is.
                self.reconcile(gateway, &view, &lanes, &hungry).await;
                Step::Failed
            },
        }
    }

    async fn fetch(
        &self,
        gateway: &Arc<Gateway>,
        view: &GroupView,
        lanes: &Lanes,
        hungry: &[Arc<Attached>],
        memory: &mut Memory,
    ) -> Result<Step, StoreError> {
        let read = lanes.of_group(&self.shard, &self.group);
        let takers: Vec<Taker> = hungry.iter().map(|one| one.taker()).collect();
        let free: Vec<Free> = hungry
            .iter()
            .enumerate()
            .map(|(index, one)| Free {
                index,
                free: one.room(),
                capacity: one.capacity,
                specialisation: one.capabilities.len(),
            })
            .collect();
        let own_free: u64 = free.iter().map(|one| u64::from(one.free)).sum();
        let mode = view.definition.settings.routing_mode;
        let slots = bounded(&routing::rounds(mode, &free, memory.last_served));
        if let Some((lane, expected)) = plain_lane(memory.plain.as_ref(), &read) {
            let slots = plain_slots(&slots, &free, expected);
            let order = Order {
                read: &read,
                takers: &takers,
                slots: &slots,
            };
            return self
                .fetch_plain(gateway, view, hungry, order, (lane, memory))
                .await;
        }
        memory.plain = None;
        let wanted = total(&slots);
        let fetch = Fetch {
            group: &self.group,
            gateway: &gateway.incarnation,
            own_free,
            ageing_ms: view.ageing_ms(),
            group_limit: u64::from(view.definition.settings.max_in_flight),
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
                left,
                parked,
            } => {
                for position in fenced {
                    if let Some(consumer) = hungry.get(position) {
                        consumer.fence();
                        self.detach(consumer);
                    }
                }
                let taken = entries.len();
                let has_limit = view.definition.settings.max_in_flight > 0;
                let may_read_plainly = !has_limit && (gateway.is_alone() || taken as u64 == wanted);
                if may_read_plainly && let Some(lane) = only_lane(&read, &entries, &left) {
                    memory.plain = Some(Plain {
                        reference: lane.reference.clone(),
                        until: Instant::now() + PLAIN_FOR,
                        expected: taken as u64,
                        others: None,
                    });
                }
                memory.last_served = entries
                    .last()
                    .map(|entry| entry.taker)
                    .or(memory.last_served);
                self.deliver(gateway, view, &read, hungry, entries).await;
                self.may_have_work
                    .store(!left.is_empty(), Ordering::Release);
                // What was parked was read: behind it there may be work for others.
                Ok(if taken as u64 + parked > 0 && !left.is_empty() {
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

    /// Reads the one lane that had work, and whether any other got some meanwhile.
    async fn fetch_plain(
        &self,
        gateway: &Arc<Gateway>,
        view: &GroupView,
        hungry: &[Arc<Attached>],
        order: Order<'_>,
        (lane, memory): (usize, &mut Memory),
    ) -> Result<Step, StoreError> {
        let Some(read) = order.read.get(lane) else {
            return Ok(Step::Rest);
        };
        gateway.metrics.fetches_plain.increment(1);
        let found = gateway
            .store
            .fetch_plain(
                &self.shard,
                &self.group,
                (lane, read),
                order.takers,
                order.slots,
            )
            .await?;
        let taken = found.entries.len() as u64;
        let others: Vec<(String, String)> = found
            .newest
            .into_iter()
            .filter(|(reference, _)| *reference != read.reference)
            .collect();
        let changed = memory.plain.as_mut().is_none_or(|plain| {
            // As many again were taken as were hoped for: the next read hopes for twice that.
            plain.expected = taken.saturating_mul(1 + u64::from(taken >= plain.expected));
            let known = plain.others.get_or_insert_with(|| others.clone());
            *known != others
        });
        let is_full = taken == total(order.slots);
        let bytes: usize = found.entries.iter().map(|entry| entry.body.len()).sum();
        let is_large = bytes > BATCH_BYTES_MAX;
        if changed || found.lost || is_large || (!is_full && !gateway.is_alone()) {
            memory.plain = None;
        }
        memory.last_served = found
            .entries
            .last()
            .map(|entry| entry.taker)
            .or(memory.last_served);
        self.deliver(gateway, view, order.read, hungry, found.entries)
            .await;
        // A change elsewhere is looked at by the script at once.
        let more = is_full || changed || found.lost;
        self.may_have_work.store(more, Ordering::Release);
        Ok(if more { Step::Again } else { Step::Rest })
    }

    /// Hands entries to their connections; what cannot be handed over goes back.
    async fn deliver(
        &self,
        gateway: &Arc<Gateway>,
        view: &GroupView,
        lanes: &[ReadLane],
        hungry: &[Arc<Attached>],
        entries: Vec<Taken>,
    ) {
        let now = now_ms();
        let lease_ms = view.definition.settings.lease_ms;
        let ends = time::to_timestamp(now.saturating_add(lease_ms).into());
        let mut frames: BTreeMap<usize, Vec<wire::Delivery>> = BTreeMap::new();
        let mut back = Vec::new();
        for entry in entries {
            let Some(consumer) = hungry.get(entry.taker) else {
                continue;
            };
            let lease = Lease {
                lane: lanes
                    .get(entry.lane)
                    .map(|l| l.reference.clone())
                    .unwrap_or_default(),
                id: entry.id,
                count: entry.count,
                consumer: consumer.consumer.clone(),
                session: consumer.session.clone(),
                delivered_ms: now,
            };
            let (expires, envelope) = match expiry_and_envelope(&entry.body) {
                Ok(parts) => parts,
                Err(error) => {
                    tracing::error!(group = self.group, lane = lease.lane, id = lease.id, %error,
                        "entry_undecodable");
                    let category = "parsing_error".to_owned();
                    let record = bytes::Bytes::new();
                    back.push(settle(consumer, lease, Action::Reject { category, record }));
                    continue;
                },
            };
            if expires > 0 && expires <= now {
                back.push(settle(consumer, lease, Action::Expire));
                continue;
            }
            let token = lease.to_string();
            match consumer.hold(&token, lease, lease_ms) {
                Ok(()) => frames.entry(entry.taker).or_default().push(wire::Delivery {
                    lease: token,
                    attempt: entry.failures.saturating_add(1),
                    lease_expires_at: Some(ends),
                    message: envelope,
                }),
                Err(lease) => {
                    back.push(settle(consumer, lease, Action::GiveBack { idle_ms: 0 }));
                },
            }
        }
        for (position, deliveries) in frames {
            if let Some(consumer) = hungry.get(position) {
                gateway.metrics.delivered.increment(deliveries.len() as u64);
                for frame in cut(deliveries) {
                    consumer.send_deliveries(frame);
                }
            }
        }
        if !back.is_empty() {
            let settler = gateway.settler(&self.namespace, &self.group);
            if let Err(error) = settler.settle(back).await {
                tracing::debug!(group = self.group, %error, "give_back_failed");
            }
        }
    }

    /// After a lost reply: gives back, uncounted, what a consumer's PEL has and nobody holds.
    async fn reconcile(
        &self,
        gateway: &Arc<Gateway>,
        view: &GroupView,
        lanes: &Lanes,
        consumers: &[Arc<Attached>],
    ) {
        let read = lanes.of_group(&self.shard, &self.group);
        for consumer in consumers {
            let Ok(pending) = gateway
                .store
                .held_by(&self.group, &read, &consumer.consumer)
                .await
            else {
                return;
            };
            let back: Vec<Settle> = pending
                .iter()
                .map(|entry| entry.lease(&read, &consumer.session, now_ms()))
                .filter(|lease| !consumer.holds(lease))
                .map(|lease| settle(consumer, lease, Action::GiveBack { idle_ms: 0 }))
                .collect();
            if back.is_empty() {
                continue;
            }
            gateway
                .metrics
                .given_back_reply
                .increment(back.len() as u64);
            let settling = view.settling(&read);
            if gateway
                .store
                .settle(&self.shard, settling, &back, now_ms())
                .await
                .is_err()
            {
                return;
            }
        }
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

/// Position of the lane that may be read plainly now, and how many entries to expect in it.
fn plain_lane(plain: Option<&Plain>, read: &[ReadLane]) -> Option<(usize, u64)> {
    let plain = plain.filter(|plain| plain.until > Instant::now())?;
    let lane = read
        .iter()
        .position(|lane| lane.reference == plain.reference)?;
    Some((lane, plain.expected))
}

/// One read per consumer, in the order of the plan, for a little more than is expected: each read
/// is a command of its own, and one that finds nothing costs as much as one that does.
fn plain_slots(plan: &[(usize, u32)], free: &[Free], expected: u64) -> Vec<(usize, u32)> {
    let mut order: Vec<usize> = Vec::new();
    let asked = usize::try_from(expected)
        .unwrap_or(usize::MAX)
        .saturating_add(1);
    for (index, _) in plan {
        if order.len() < asked && !order.contains(index) {
            order.push(*index);
        }
    }
    let share = expected
        .saturating_add(1)
        .div_ceil(order.len().max(1) as u64);
    let share = u32::try_from(share).unwrap_or(u32::MAX);
    let mut left = PLAIN_MAX;
    let mut slots = Vec::with_capacity(order.len());
    for index in order {
        let room = free.get(index).map_or(0, |one| one.free);
        let count = room.min(share).min(left);
        if count > 0 {
            left -= count;
            slots.push((index, count));
        }
    }
    slots
}

fn total(slots: &[(usize, u32)]) -> u64 {
    slots.iter().map(|(_, count)| u64::from(*count)).sum()
}

/// The one lane that a script fetch found work in, if it is one that anybody may read plainly.
fn only_lane<'a>(
    read: &'a [ReadLane],
    entries: &[Taken],
    left: &[Option<usize>],
) -> Option<&'a ReadLane> {
    let lane = match left {
        [] => entries.first()?.lane,
        [Some(lane)] => *lane,
        _ => return None,
    };
    let same = entries
        .iter()
        .all(|entry| entry.lane == lane && entry.count == 1);
    let lane = read.get(lane).filter(|_| same)?;
    let Lane {
        marked,
        capabilities,
        consumer,
        ..
    } = &lane.lane.lane;
    (!marked && capabilities.is_empty() && consumer.is_empty()).then_some(lane)
}

impl Gateway {
    /// Moves entries whose backoff is over, so that retries go on without a coordinator.
    pub(crate) async fn wake_due(&self, view: &GroupView) {
        let (shard, group) = (&view.shard, &view.definition.name);
        let Ok(lanes) = self.catalog.lanes(shard).await else {
            return;
        };
        let lanes = lanes.of_group(shard, group);
        let due = self
            .store
            .due_delayed(shard, group, &lanes, view.ageing_ms())
            .await;
        if due.is_ok_and(|due| due.lanes_changed) {
            // The next poll has the lanes.
            drop(self.catalog.read_lanes(shard).await);
        }
    }
}

fn settle(consumer: &Attached, lease: Lease, action: Action) -> Settle {
    Settle {
        lease,
        attach: consumer.attach,
        check_session: true,
        action,
    }
}

/// The plan as far as one fetch carries it.
fn bounded(plan: &[routing::Slot]) -> Vec<(usize, u32)> {
    let mut left = FETCH_MAX;
    let mut slots = Vec::with_capacity(plan.len());
    for slot in plan {
        let count = slot.count.min(left);
        if count == 0 {
            break;
        }
        left -= count;
        slots.push((slot.index, count));
    }
    slots
}
