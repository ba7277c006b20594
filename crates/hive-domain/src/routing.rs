//! Who gets the next messages among the consumers of one gateway.
//!
//! A gateway does not know what it will find when it reads, so the plan is an ordered list of
//! small read requests: the first messages go to whoever should have them, and if there are more,
//! the requests grow, so that few messages are spread evenly and many cost few calls.
//!
//! Which message comes first is not decided here: the script that fetches compares what waits, and
//! ages low priorities so that they keep moving.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
};

use crate::{capability::CapabilitySet, group::RoutingMode};

/// Most requests for one consumer in a plan. The first eleven ask for 1, 1, 2, 4 … 512, together
/// 1,024; the twelfth takes all that is left, which is more than one fetch may carry.
pub const SLOTS_PER_CONSUMER_MAX: u32 = 12;
/// Most consumers that [`carried`] asks for one message behind the others.
pub const ASKED_BEHIND_MAX: usize = 1_000;

/// A consumer with room for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Free {
    /// What the caller calls it; [`Slot::index`] repeats it. Turns follow this number.
    pub index: usize,
    /// Messages it can take now.
    pub free: u32,
    /// Messages it can hold in all.
    pub capacity: u32,
    /// Number of its capabilities; fewer is more specialised.
    pub specialisation: usize,
}

/// A request: read up to `count` messages for consumer `index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The consumer, as [`Free::index`] names it.
    pub index: usize,
    /// Messages, at least 1.
    pub count: u32,
}

/// The order in which a consumer is served; the smallest comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// Number of capabilities where the mode cares, else 0.
    specialisation: usize,
    /// Free share of the capacity in ten-thousandths where the mode cares, else 0.
    share: Reverse<u64>,
    /// Requests planned for it so far.
    slots: u32,
    /// Whether its turn comes only after the wrap: its number is not beyond the last served.
    is_wrapped: bool,
    /// Its number, which settles every tie but that of one consumer listed twice.
    index: usize,
    /// Place in the caller's list.
    place: usize,
}

/// Plans the read requests for all consumers with room, the first to be served first.
///
/// All free room is asked for; the caller stops when nothing is left to read. `last_served` is the
/// [`Free::index`] of the consumer that got the last message: turns and ties go on behind it, so
/// that a trickle of single messages does not all end at the first of several idle consumers.
///
/// - `load_balanced`, `priority_based`, `workflow_aware`: the largest free share of its capacity
///   first, counting what this plan has given already. Whose the tasks of a workflow are is known
///   to the script that reads them: see [`carried`].
/// - `round_robin`: in turn.
/// - `capability_matched`: the fewest capabilities first while they have room, among equals the
///   largest free share.
#[must_use]
pub fn rounds(mode: RoutingMode, free: &[Free], last_served: Option<usize>) -> Vec<Slot> {
    let rank = |place: usize, consumer: &Free, left: u32, slots: u32| {
        let share = u64::from(left)
            .saturating_mul(10_000)
            .checked_div(u64::from(consumer.capacity))
            .unwrap_or(u64::MAX);
        let (specialisation, share) = match mode {
            RoutingMode::LoadBalanced | RoutingMode::PriorityBased | RoutingMode::WorkflowAware => {
                (0, share)
            },
            RoutingMode::RoundRobin => (0, 0),
            RoutingMode::CapabilityMatched => (consumer.specialisation, share),
        };
        Reverse(Rank {
            specialisation,
            share: Reverse(share),
            slots,
            is_wrapped: last_served.is_some_and(|last| consumer.index <= last),
            index: consumer.index,
            place,
        })
    };

    let mut left: Vec<u32> = free.iter().map(|consumer| consumer.free).collect();
    let mut queue: BinaryHeap<Reverse<Rank>> = free
        .iter()
        .enumerate()
        .filter(|(_, consumer)| consumer.free > 0)
        .map(|(place, consumer)| rank(place, consumer, consumer.free, 0))
        .collect();

    let mut plan: Vec<Slot> = Vec::with_capacity(queue.len());
    while let Some(Reverse(Rank { place, slots, .. })) = queue.pop() {
        let (Some(consumer), Some(rest)) = (free.get(place), left.get_mut(place)) else {
            continue;
        };
        let count = request_size(slots).min(*rest);
        *rest = rest.saturating_sub(count);
        match plan.last_mut() {
            // The same consumer again: one larger request hands out the same messages.
            Some(last) if last.index == consumer.index => {
                last.count = last.count.saturating_add(count);
            },
            _ => plan.push(Slot {
                index: consumer.index,
                count,
            }),
        }
        if *rest > 0 {
            queue.push(rank(place, consumer, *rest, slots.saturating_add(1)));
        }
    }
    plan
}

/// The plan as far as one fetch of `most` messages carries it: (consumer, messages).
///
/// In `workflow_aware` whoever is cut off has one message asked for behind all others, up to
/// [`ASKED_BEHIND_MAX`] consumers: what waits for a consumer with room must find it among the
/// fetch's, however many have more.
#[must_use]
pub fn carried(mode: RoutingMode, plan: &[Slot], most: u32) -> Vec<(usize, u32)> {
    let mut left = most;
    let mut slots: Vec<(usize, u32)> = Vec::new();
    let mut asked = BTreeSet::new();
    let mut behind = 0_usize;
    for slot in plan {
        let mut count = slot.count.min(left);
        left = left.saturating_sub(count);
        if count == 0 {
            if mode.affinity_wait_ms() == 0 || behind == ASKED_BEHIND_MAX {
                break;
            }
            if asked.contains(&slot.index) {
                continue;
            }
            behind = behind.saturating_add(1);
            count = 1;
        }
        asked.insert(slot.index);
        slots.push((slot.index, count));
    }
    slots
}

/// Whether whatever a consumer could take has a more specialised taker elsewhere: for each of the
/// `wanted` sets of capabilities that `own` covers, somebody of `elsewhere` covers it too and has
/// fewer capabilities. True for a consumer that covers none of them.
#[must_use]
pub fn is_outdone(
    own: &CapabilitySet,
    elsewhere: &[CapabilitySet],
    wanted: &[CapabilitySet],
) -> bool {
    let mut mine = wanted.iter().filter(|wanted| own.covers(wanted));
    mine.all(|wanted| {
        elsewhere
            .iter()
            .any(|other| other.len() < own.len() && other.covers(wanted))
    })
}

/// Size of a consumer's request after `slots` earlier ones: 1, 1, 2, 4 … 512, then everything.
fn request_size(slots: u32) -> u32 {
    if slots.saturating_add(1) >= SLOTS_PER_CONSUMER_MAX {
        return u32::MAX;
    }
    1_u32
        .checked_shl(slots.saturating_sub(1))
        .unwrap_or(u32::MAX)
}

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "an overflow in a test fails it, as it should"
)]
mod tests;
