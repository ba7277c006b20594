//! Evening out work: within a group by moving deliveries that no handler has begun (`plan`), and
//! between groups by offering work to idle agents (`offers`).
//!
//! A consumer's share goes by how many messages it works on at once. A move must be paid for: it
//! gives work to an idle slot, or evens out a difference that is worth it; what drains gives
//! whatever it has not begun. Planning again after a plan was carried out moves nothing.
//!
//! Read `level` for how messages are spread over consumers, `offers` for offers.

use std::collections::BTreeSet;

use crate::capability::CapabilitySet;

mod level;
mod offers;

pub use offers::{Backlog, IDLE_MS_MIN, Idle, OFFERS_PER_GROUP_MAX, Offer, offers};

use self::level::{Vessel, fill};

/// How often consumers that gain by a move are looked for, before all take part.
const ROUNDS_MAX: usize = 8;
/// What was left undone is told for so many consumers at most.
const LEFT_MAX: usize = 20;

/// What a consumer of a group holds at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    /// Its id.
    pub consumer: String,
    /// Messages delivered to it and not settled.
    pub held: u32,
    /// Of them, those that a handler has begun.
    pub begun: u32,
    /// Messages that it can take on top.
    pub room: u32,
    /// Messages that it works on at once; 0 counts as 1.
    pub concurrency: u32,
    /// Most messages that it may hold.
    pub max_in_flight: u32,
    /// For how long it has held nothing, in ms.
    pub idle_ms: u64,
    /// What it can do.
    pub capabilities: CapabilitySet,
    /// Whether it was told to finish and go.
    pub draining: bool,
    /// Whether it takes offers of other groups.
    pub accepts_offers: bool,
}

/// Messages that one consumer gives back, for another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Who gives them back.
    pub from: String,
    /// Who is meant to get them: it has room for them.
    pub to: String,
    /// How many, at least 1.
    pub count: u32,
    /// Why, for a person.
    pub reason: String,
}

/// What is to be moved.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Moves, those of draining consumers first.
    pub moves: Vec<Move>,
    /// What was left undone and why, for a person; of at most 20 consumers.
    pub left: Vec<String>,
}

/// What is to be moved among the consumers of one group. Consumers are told apart by their ids; of
/// two with the same id the first in the order of ids and figures counts.
///
/// `room` of a consumer that gives is taken not to grow by what it gives: its window is lowered
/// along, and comes back as it finishes messages.
#[must_use]
pub fn plan(holdings: &[Holding]) -> Plan {
    let mut sorted: Vec<&Holding> = holdings.iter().collect();
    sorted.sort_by_key(|h| {
        (
            &h.consumer,
            h.draining,
            h.held,
            h.begun,
            h.room,
            h.concurrency,
        )
    });
    sorted.dedup_by_key(|h| &h.consumer);
    let mut stands: Vec<Stand<'_>> = sorted.into_iter().map(Stand::new).collect();
    drain(&mut stands);
    level(&mut stands);
    let left = left(&stands);
    Plan {
        moves: moves(&stands),
        left,
    }
}

/// Whether it looks as if something were to be moved, from what consumers hold and how many
/// messages each works on at once: somebody holds more than that while somebody else has a free
/// slot, or one has more than twice the other's share and so much more that more than two messages
/// would move (with equal concurrency, more than 4).
///
/// Only a hint: who drains, has begun more than it works on at once or has no room is not seen
/// here, so a caller that plans on it waits before it asks again.
#[must_use]
pub fn is_uneven(held: &[(u32, u32)]) -> bool {
    let different: BTreeSet<(u64, u64)> = held
        .iter()
        .map(|(held, slots)| (u64::from(*held), u64::from((*slots).max(1))))
        .collect();
    different
        .iter()
        .filter(|(held, slots)| held > slots)
        .any(|high| {
            different.iter().any(|low| {
                let is_twice = wide(high.0, low.1) > wide(low.0, high.1).saturating_mul(2);
                low.0 < low.1 || (is_twice && gain(*high, *low) > GAIN_MIN)
            })
        })
}

/// Fewest messages that must move between two busy consumers for it to be worth it.
const GAIN_MIN: u128 = 2;

/// One consumer while a plan is made.
struct Stand<'a> {
    holding: &'a Holding,
    /// What it is to hold.
    target: u32,
}

impl<'a> Stand<'a> {
    const fn new(holding: &'a Holding) -> Self {
        let target = holding.held;
        Self { holding, target }
    }

    fn slots(&self) -> u32 {
        self.holding.concurrency.max(1)
    }

    fn begun(&self) -> u32 {
        self.holding.begun.min(self.holding.held)
    }

    fn movable(&self) -> u32 {
        self.target.saturating_sub(self.begun())
    }

    /// Room as it is once the plan so far is carried out.
    fn room(&self) -> u32 {
        let received = self.target.saturating_sub(self.holding.held);
        self.holding.room.saturating_sub(received)
    }

    /// What it holds and its slots.
    fn load(&self) -> (u64, u64) {
        (self.target.into(), self.slots().into())
    }

    /// What it would hold and take, `least` at the least.
    fn vessel(&self, least: u32) -> Vessel {
        Vessel {
            least,
            most: self.target.saturating_add(self.room()).max(least),
            has: self.target,
            slots: self.slots(),
        }
    }
}

fn wide(a: u64, b: u64) -> u128 {
    u128::from(a).saturating_mul(b.into())
}

/// Messages that would move from `high` to `low`, each (held, slots), until both were level.
fn gain(high: (u64, u64), low: (u64, u64)) -> u128 {
    let above = wide(high.0, low.1).saturating_sub(wide(low.0, high.1));
    // Rounded up: `> 2` holds for anything beyond two whole messages.
    above.div_ceil(u128::from(high.1.saturating_add(low.1)).max(1))
}

/// Whether a move between two consumers, each (held, slots), pays: it fills a free slot from beyond
/// the other's own slots, or at least [`GAIN_MIN`] messages move and the lower one has at most
/// three quarters of the other's share.
fn is_worth_it(high: (u64, u64), low: (u64, u64)) -> bool {
    if high.0 <= high.1 {
        return false;
    }
    let (above, below) = (wide(high.0, low.1), wide(low.0, high.1));
    let whole = above.saturating_sub(below);
    let least = GAIN_MIN.saturating_mul(u128::from(high.1.saturating_add(low.1)));
    low.0 < low.1 || (whole >= least && below.saturating_mul(4) <= above.saturating_mul(3))
}

/// Gives what draining consumers have not begun to the others, the lowest first.
fn drain(stands: &mut [Stand<'_>]) {
    let sum = |is_draining: bool, of: &dyn Fn(&Stand<'_>) -> u32| -> u64 {
        stands
            .iter()
            .filter(|stand| stand.holding.draining == is_draining)
            .map(|stand| u64::from(of(stand)))
            .sum()
    };
    let given = sum(true, &|stand| stand.movable()).min(sum(false, &|stand| stand.room()));
    if given == 0 {
        return;
    }
    let kept = sum(true, &|stand| stand.target).saturating_sub(given);
    let taken = sum(false, &|stand| stand.target).saturating_add(given);
    let places = of_all(stands, |stand| stand.holding.draining);
    refill(stands, &places, kept, |stand| Vessel {
        most: stand.target,
        ..stand.vessel(stand.begun())
    });
    let places = of_all(stands, |stand| !stand.holding.draining);
    refill(stands, &places, taken, |stand| stand.vessel(stand.target));
}

/// Levels those that gain by it until nobody does.
fn level(stands: &mut [Stand<'_>]) {
    for round in 0..=ROUNDS_MAX {
        let mut places = gaining(stands);
        if places.is_empty() {
            return;
        }
        if round == ROUNDS_MAX {
            // The spread over all is final: nobody gains by any move after it.
            places = of_all(stands, |stand| !stand.holding.draining);
        }
        let count = places
            .iter()
            .filter_map(|i| stands.get(*i))
            .map(|stand| u64::from(stand.target))
            .sum();
        refill(stands, &places, count, |stand| stand.vessel(stand.begun()));
    }
}

/// Places of those that a move is worth it for, as giver or as taker.
fn gaining(stands: &[Stand<'_>]) -> Vec<usize> {
    let here = || stands.iter().filter(|stand| !stand.holding.draining);
    // Many hold the same: each different load is compared once.
    let givers: BTreeSet<(u64, u64)> = here()
        .filter(|stand| stand.movable() > 0)
        .map(Stand::load)
        .collect();
    let takers: BTreeSet<(u64, u64)> = here()
        .filter(|stand| stand.room() > 0)
        .map(Stand::load)
        .collect();
    let giving: BTreeSet<(u64, u64)> = givers
        .iter()
        .filter(|high| takers.iter().any(|low| is_worth_it(**high, *low)))
        .copied()
        .collect();
    let taking: BTreeSet<(u64, u64)> = takers
        .iter()
        .filter(|low| givers.iter().any(|high| is_worth_it(*high, **low)))
        .copied()
        .collect();
    let takes_part = |stand: &Stand<'_>| {
        !stand.holding.draining
            && ((stand.movable() > 0 && giving.contains(&stand.load()))
                || (stand.room() > 0 && taking.contains(&stand.load())))
    };
    of_all(stands, takes_part)
}

/// Places of those that are so.
fn of_all(stands: &[Stand<'_>], is_so: impl Fn(&Stand<'_>) -> bool) -> Vec<usize> {
    let all = stands.iter().enumerate();
    all.filter(|(_, stand)| is_so(stand))
        .map(|(place, _)| place)
        .collect()
}

/// Spreads `count` messages over the consumers at `places`.
fn refill(
    stands: &mut [Stand<'_>],
    places: &[usize],
    count: u64,
    vessel: impl Fn(&Stand<'_>) -> Vessel,
) {
    let vessels: Vec<Vessel> = places
        .iter()
        .filter_map(|i| stands.get(*i))
        .map(vessel)
        .collect();
    for (place, target) in places.iter().zip(fill(&vessels, count)) {
        if let Some(stand) = stands.get_mut(*place) {
            stand.target = target;
        }
    }
}

/// Who gives how much to whom: pairs in which the taker can do all that the giver can come first,
/// then the largest counts.
fn moves(stands: &[Stand<'_>]) -> Vec<Move> {
    let count = |more: u32, less: u32| more.saturating_sub(less);
    let mut givers: Vec<(&Stand<'_>, u32)> = stands
        .iter()
        .map(|stand| (stand, count(stand.holding.held, stand.target)))
        .filter(|(_, count)| *count > 0)
        .collect();
    let mut takers: Vec<(&Stand<'_>, u32)> = stands
        .iter()
        .map(|stand| (stand, count(stand.target, stand.holding.held)))
        .filter(|(_, count)| *count > 0)
        .collect();
    givers.sort_by_key(|(stand, count)| {
        (
            !stand.holding.draining,
            std::cmp::Reverse(*count),
            &stand.holding.consumer,
        )
    });
    takers.sort_by_key(|(stand, count)| (std::cmp::Reverse(*count), &stand.holding.consumer));
    let mut moves = Vec::new();
    for is_sure in [true, false] {
        for (giver, gives) in &mut givers {
            for (taker, takes) in &mut takers {
                let count = (*gives).min(*takes);
                let covers = taker
                    .holding
                    .capabilities
                    .covers(&giver.holding.capabilities);
                if count == 0 || (is_sure && !covers) {
                    continue;
                }
                *gives = gives.saturating_sub(count);
                *takes = takes.saturating_sub(count);
                moves.push(Move {
                    from: giver.holding.consumer.clone(),
                    to: taker.holding.consumer.clone(),
                    count,
                    reason: reason(giver, taker, covers),
                });
            }
        }
    }
    moves
}

fn reason(giver: &Stand<'_>, taker: &Stand<'_>, covers: bool) -> String {
    let (from, to) = (giver.holding, taker.holding);
    let gives = if from.draining {
        format!(
            "`{}` drains and holds {} ({} begun)",
            from.consumer,
            from.held,
            giver.begun()
        )
    } else {
        format!(
            "`{}` holds {} ({} begun), its share is {}",
            from.consumer,
            from.held,
            giver.begun(),
            giver.target
        )
    };
    let sure = if covers {
        ""
    } else {
        "; messages that require more than it can do go to others"
    };
    format!(
        "{gives}; `{}` holds {} with room for {} and works on {} at once, its share is {}{sure}",
        to.consumer,
        to.held,
        to.room,
        taker.slots(),
        taker.target
    )
}

/// What stays where it is although somebody else could use it.
fn left(stands: &[Stand<'_>]) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let here = || stands.iter().filter(|stand| !stand.holding.draining);
    for stand in stands
        .iter()
        .filter(|s| s.holding.draining && s.movable() > 0)
    {
        let (count, consumer) = (stand.movable(), &stand.holding.consumer);
        words.push(format!(
            "{count} messages that `{consumer}`, which drains, has not begun stay: nobody has room"
        ));
    }
    let has_surplus = |stand: &&Stand<'_>| stand.movable() > 0 && stand.load().0 > stand.load().1;
    if here().any(|stand| has_surplus(&stand)) {
        for stand in here().filter(|stand| stand.load().0 < stand.load().1) {
            words.push(format!(
                "`{}` holds {} of the {} that it works on at once, and has no room for more",
                stand.holding.consumer,
                stand.target,
                stand.slots()
            ));
        }
    }
    let by_share = |a: &&Stand<'_>, b: &&Stand<'_>| {
        let (one, other) = (a.load(), b.load());
        wide(one.0, other.1).cmp(&wide(other.0, one.1))
    };
    let highest = here().filter(has_surplus).max_by(by_share);
    let lowest = here().filter(|stand| stand.room() > 0).min_by(by_share);
    if let (Some(high), Some(low)) = (highest, lowest)
        && gain(high.load(), low.load()) >= 2
    {
        words.push(format!(
            "`{}` holds {} and `{}` {}: evening that out would not pay for the moves",
            high.holding.consumer, high.target, low.holding.consumer, low.target
        ));
    }
    if words.len() > LEFT_MAX {
        let more = words.len().saturating_sub(LEFT_MAX).saturating_add(1);
        words.truncate(LEFT_MAX.saturating_sub(1));
        words.push(format!("and {more} more"));
    }
    words
}

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "an overflow in a test fails it, as it should"
)]
mod tests;
