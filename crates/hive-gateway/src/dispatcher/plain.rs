//! Plain reads: the common case, one lane with work and nothing to deliver again.
//!
//! There a plain pipelined read costs Redis less than half of the script, which copies every
//! payload through Lua; so what a script fetch found is trusted for [`PLAIN_FOR`], as long as no
//! other lane got an entry. With a backlog two reads are under way: Redis does the next one while
//! this process hands out what the last one brought.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream::FuturesOrdered};
use hive_domain::routing;
use hive_protocol::{fault::Fault, limits::BATCH_BYTES_MAX};
use hive_store::{
    Lane, LaneKind, StoreError,
    fetch::{PlainFetched, ReadLane, Taken},
};

use super::{Dispatcher, Hungry, Memory, Reserved, Step};
use crate::{catalog::GroupView, core::Gateway};

/// How long plain reads may follow a script fetch: how late a redelivery or an old priority may be
/// noticed.
const PLAIN_FOR: Duration = Duration::from_millis(100);
/// Most messages of one read.
const READ_MAX: u64 = 500;
/// Reads under way together.
const READS_MAX: usize = 2;

/// The one lane that had work, as a script fetch found it.
#[derive(Debug)]
pub(super) struct Plain {
    reference: Arc<str>,
    until: Instant,
    /// Entries that the last read took: about so many are there again.
    expected: u64,
    /// Whether the last read brought all that it asked for: there is a backlog.
    is_deep: bool,
    /// Bytes of the largest entry of the last read.
    entry_bytes: usize,
    /// Newest entries of all other lanes at the first plain read.
    others: Option<Vec<(String, String)>>,
}

/// One read on its way.
struct Read {
    view: Arc<GroupView>,
    lane: ReadLane,
    hungry: Hungry,
    /// Which of the hungry take how many.
    slots: Vec<(usize, u32)>,
    reserved: Reserved,
}

impl Plain {
    /// The lane that may be read plainly after a script fetch took `entries` and left work at
    /// `left`, if there is one.
    pub(super) fn after(
        read: &[ReadLane],
        entries: &[Taken],
        left: &[Option<usize>],
        is_deep: bool,
    ) -> Option<Self> {
        let lane = only_lane(read, entries, left)?;
        Some(Self {
            reference: lane.reference.clone(),
            until: Instant::now() + PLAIN_FOR,
            expected: entries.len() as u64,
            is_deep,
            entry_bytes: largest(entries),
            others: None,
        })
    }

    /// Whether it is still trusted.
    pub(super) fn is_fresh(&self) -> bool {
        self.until > Instant::now()
    }

    /// Most entries of the next read: as many as a batch's bytes hold, if they are like the last.
    fn most(&self) -> u64 {
        let fitting = BATCH_BYTES_MAX / self.entry_bytes.max(1);
        u64::try_from(fitting).unwrap_or(1).clamp(1, READ_MAX)
    }

    /// Notes what a read brought; false when the script has to look again.
    fn note(&mut self, found: &PlainFetched, asked: u64) -> bool {
        let taken = found.entries.len() as u64;
        self.is_deep = taken == asked;
        // As many again were taken as were hoped for: the next read hopes for twice that.
        self.expected = taken.saturating_mul(1 + u64::from(taken >= self.expected));
        let bytes: usize = found.entries.iter().map(|entry| entry.body.len()).sum();
        self.entry_bytes = largest(&found.entries);
        let others: Vec<(String, String)> = found
            .newest
            .iter()
            .filter(|(reference, _)| **reference != *self.reference)
            .cloned()
            .collect();
        let known = self.others.get_or_insert_with(|| others.clone());
        *known == others && !found.lost && bytes <= BATCH_BYTES_MAX
    }
}

impl Dispatcher {
    /// Reads the one lane that had work until it has no more, another one has, or the trust is
    /// over.
    pub(super) async fn read_plainly(
        &self,
        gateway: &Arc<Gateway>,
        memory: &mut Memory,
    ) -> Result<Step, StoreError> {
        let mut under_way = FuturesOrdered::new();
        let mut failed = None;
        let mut step = Step::Again;
        loop {
            let is_wanted =
                under_way.is_empty() || memory.plain.as_ref().is_some_and(|plain| plain.is_deep);
            if failed.is_none() && is_wanted && under_way.len() < READS_MAX {
                match self.plan_plain(gateway, memory).await {
                    Ok(Some(read)) => {
                        under_way.push_back(self.read(gateway, read));
                        continue;
                    },
                    Ok(None) => {},
                    // The next step asks for the group again, and says what became of it.
                    Err(_fault) => memory.plain = None,
                }
            }
            // What is under way has leased already: it is waited for, whatever went wrong.
            let Some((read, answer)) = under_way.next().await else {
                break;
            };
            match answer {
                Ok(found) => step = self.take_plain(gateway, read, found, memory).await,
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(step),
        }
    }

    /// The next read; none where nobody is hungry or the trust is over.
    async fn plan_plain(&self, gateway: &Gateway, memory: &Memory) -> Result<Option<Read>, Fault> {
        let Some(plain) = memory.plain.as_ref().filter(|plain| plain.is_fresh()) else {
            return Ok(None);
        };
        if gateway.shutdown.is_draining() {
            return Ok(None);
        }
        let view = gateway.catalog.group(&self.namespace, &self.group).await?;
        let lanes = gateway.catalog.lanes(&self.shard).await?;
        let lanes = lanes.of_group(&self.shard, &self.group);
        let lane = lanes.iter().find(|lane| lane.reference == plain.reference);
        let hungry = self.hungry();
        let (Some(lane), false) = (lane, hungry.is_empty()) else {
            return Ok(None);
        };
        let mode = view.definition.settings.routing_mode;
        let plan = routing::rounds(mode, &hungry.free(), memory.turn(&hungry));
        let slots = slots(&plan, &hungry, plain.expected, plain.most());
        let reserved = hungry.reserve(&slots);
        Ok(Some(Read {
            lane: lane.clone(),
            view,
            hungry,
            slots,
            reserved,
        }))
    }

    async fn read(
        &self,
        gateway: &Gateway,
        read: Read,
    ) -> (Read, Result<PlainFetched, StoreError>) {
        gateway.metrics.fetches_plain.increment(1);
        let asks: Vec<(Arc<str>, u32)> = read
            .slots
            .iter()
            .filter_map(|(index, count)| Some((read.hungry.get(*index)?.consumer.clone(), *count)))
            .collect();
        let answer = gateway
            .store
            .fetch_plain(&self.shard, &self.group, &read.lane, &asks)
            .await;
        (read, answer)
    }

    /// Hands out what a read brought, and says whether there may be more.
    async fn take_plain(
        &self,
        gateway: &Arc<Gateway>,
        mut read: Read,
        mut found: PlainFetched,
        memory: &mut Memory,
    ) -> Step {
        let asked = read.slots.iter().map(|(_, count)| u64::from(*count)).sum();
        let is_full = found.entries.len() as u64 == asked;
        let is_same = memory
            .plain
            .as_mut()
            .is_some_and(|plain| plain.note(&found, asked));
        // With other gateways there a read that found less than it could take ends: what comes
        // next is shared by the script.
        if !is_same || !is_full && !gateway.is_alone() {
            memory.plain = None;
        }
        for entry in &mut found.entries {
            // The reads were numbered by slot; deliveries are by consumer.
            entry.taker = read.slots.get(entry.taker).map_or(0, |(index, _)| *index);
        }
        let lanes = std::slice::from_ref(&read.lane);
        let (of, hungry) = ((&*read.view, lanes), &read.hungry);
        let last = self
            .deliver(gateway, of, hungry, found.entries, &mut read.reserved)
            .await;
        memory.last_served = last.or(memory.last_served.take());
        // A change elsewhere is looked at by the script at once.
        let more = is_full || !is_same;
        self.note_work(more);
        if more { Step::Again } else { Step::Rest }
    }
}

fn largest(entries: &[Taken]) -> usize {
    let sizes = entries.iter().map(|entry| entry.body.len());
    sizes.max().unwrap_or(0)
}

/// One read per consumer, in the order of the plan, for a little more than is expected: each read
/// is a command of its own, and one that finds nothing costs as much as one that does.
fn slots(plan: &[routing::Slot], hungry: &Hungry, expected: u64, most: u64) -> Vec<(usize, u32)> {
    let mut order: Vec<usize> = Vec::new();
    let asked = usize::try_from(expected)
        .unwrap_or(usize::MAX)
        .saturating_add(1);
    for slot in plan {
        if order.len() < asked && !order.contains(&slot.index) {
            order.push(slot.index);
        }
    }
    let share = expected
        .saturating_add(1)
        .div_ceil(order.len().max(1) as u64);
    let mut left = most;
    let mut slots = Vec::with_capacity(order.len());
    for index in order {
        let room = u64::from(hungry.room(index));
        let count = room.min(share).min(left);
        if count > 0 {
            left -= count;
            slots.push((index, u32::try_from(count).unwrap_or(u32::MAX)));
        }
    }
    slots
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
        kind,
        capabilities,
        consumer,
        ..
    } = &lane.lane.lane;
    (*kind == LaneKind::Plain && capabilities.is_empty() && consumer.is_empty()).then_some(lane)
}
