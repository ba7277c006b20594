//! Messages spread over consumers, so that the fullest is as little full as can be.

use std::cmp::Ordering;

/// A consumer that messages are spread over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vessel {
    /// What it holds in any case.
    pub(super) least: u32,
    /// What it can hold, at least `least`.
    pub(super) most: u32,
    /// What it holds now: of two spreads that are as good, the one in which less moves is taken.
    pub(super) has: u32,
    /// Its share counts by these, at least 1.
    pub(super) slots: u32,
}

/// Parts of a message that levels are counted in; beyond the most slots, so that one step of a
/// level is at most one message of a vessel.
const PARTS: u128 = 1 << 32;

impl Vessel {
    /// What it holds at a level, in parts of a message for each slot.
    fn at(&self, level: u128) -> u32 {
        let count = level
            .saturating_mul(self.slots.into())
            .checked_div(PARTS)
            .unwrap_or(0);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        count.max(self.least).min(self.most)
    }
}

/// What each vessel holds when `count` messages, at least as many as all hold in any case and at
/// most as many as all can hold, are spread evenly. More have no place and fewer change nothing of
/// what is held in any case. Ties go by place.
pub(super) fn fill(vessels: &[Vessel], count: u64) -> Vec<u32> {
    let sum = |level: u128| -> u64 {
        let counts = vessels.iter().map(|vessel| u64::from(vessel.at(level)));
        counts.fold(0, u64::saturating_add)
    };
    // The highest level whose messages there are; `high` is one that has too many, or all.
    let (mut low, mut high) = (0_u128, PARTS.saturating_mul(PARTS));
    while low < high {
        let middle = low.saturating_add(high.saturating_sub(low).div_ceil(2));
        if sum(middle) <= count {
            low = middle;
        } else {
            high = middle.saturating_sub(1);
        }
    }
    let mut counts: Vec<u32> = vessels.iter().map(|vessel| vessel.at(low)).collect();
    let mut rest = count.saturating_sub(sum(low));
    let mut next: Vec<usize> = (0..vessels.len())
        .filter(|i| above(vessels, &counts, *i).is_some())
        .collect();
    // One step of the level is less than a message, so nobody gets two of the rest.
    next.sort_by(|a, b| by_level(vessels, &counts, *a, *b));
    for place in next {
        if rest == 0 {
            break;
        }
        if let Some(count) = counts.get_mut(place) {
            *count = count.saturating_add(1);
            rest = rest.saturating_sub(1);
        }
    }
    counts
}

/// What a vessel would hold with one message more, if it can.
fn above(vessels: &[Vessel], counts: &[u32], place: usize) -> Option<(Vessel, u32)> {
    let (vessel, count) = (vessels.get(place)?, counts.get(place)?);
    (*count < vessel.most).then(|| (*vessel, count.saturating_add(1)))
}

/// Who gets one message more first: the least full with it, then who holds it now, then by place.
fn by_level(vessels: &[Vessel], counts: &[u32], a: usize, b: usize) -> Ordering {
    let (Some((one, one_has)), Some((other, other_has))) =
        (above(vessels, counts, a), above(vessels, counts, b))
    else {
        return a.cmp(&b);
    };
    let share = |has: u32, slots: u32| u64::from(has).saturating_mul(slots.into());
    share(one_has, other.slots)
        .cmp(&share(other_has, one.slots))
        .then((one_has > one.has).cmp(&(other_has > other.has)))
        .then(a.cmp(&b))
}
