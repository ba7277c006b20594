//! How a ceiling that groups share is divided when they want more than there is.
//!
//! Minima come first. Above them each group gets consumers in proportion to its share, never more
//! than it asked for, and what one does not need goes to the others: as long as anybody wants
//! more, all of the ceiling is used. The mode says what a share is.

use serde::{Deserialize, Serialize};

use crate::words::words;

/// Shares are scaled to at most this, so that sums of products stay within 128 bits.
const SHARE_MAX: u128 = 1 << 20;
/// Fineness of the level up to which shares are filled; a share is less, so that one step of the
/// level gives each group at most one consumer.
const LEVEL_ONE: u128 = 1 << 32;
/// Over how many seconds a trend counts, against a backlog.
const TREND_S: i128 = 60;

/// By what a shared ceiling is divided.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum AllocationMode {
    /// The same for each group.
    Equal,
    /// By the groups' weights.
    Weighted,
    /// By backlog and trend.
    #[default]
    Adaptive,
    /// By what a consumer gets done: success rate over time of work.
    PerformanceBased,
}

words!(AllocationMode {
    Equal => "equal",
    Weighted => "weighted",
    Adaptive => "adaptive",
    PerformanceBased => "performance_based",
});

impl AllocationMode {
    /// By what it divides, for a person.
    const fn divides_by(self) -> &'static str {
        match self {
            Self::Equal => "the same for each",
            Self::Weighted => "by weight",
            Self::Adaptive => "by backlog and trend",
            Self::PerformanceBased => "by success rate and service time",
        }
    }
}

/// What a group asks for under a shared ceiling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The group, `namespace/name`.
    pub group: String,
    /// Fewest consumers it is to have.
    pub min: u32,
    /// Consumers it asks for.
    pub asked: u32,
    /// Its weight, from its scaling policy. 0 counts as 1.
    pub weight: u32,
    /// Messages that wait.
    pub backlog: u64,
    /// Expected arrivals less today's, in messages per 1,000 s.
    pub trend_milli: i64,
    /// Acks of a thousand attempts.
    pub success_permille: u32,
    /// Mean time of work on a message, in ms; none while it is unknown.
    pub service_ms: Option<u64>,
}

impl Want {
    /// What it gets before anybody gets more.
    fn least(&self) -> u32 {
        self.min.min(self.asked)
    }
}

/// What a group gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The group, as in its want.
    pub group: String,
    /// Consumers, at most those asked for.
    pub granted: u32,
    /// Why it is less than asked for; none where it is not.
    pub reason: Option<String>,
}

/// Divides a ceiling, 0 for none, among groups. Grants come in the order of the wants; ties go by
/// name.
///
/// The sum of the grants is the smaller of the ceiling and the sum of what is asked for.
#[must_use]
pub fn divide(mode: AllocationMode, ceiling: u32, wants: &[Want]) -> Vec<Grant> {
    let asked = sum(wants.iter().map(|want| want.asked));
    if ceiling == 0 || asked <= u64::from(ceiling) {
        let all = wants.iter().map(|want| Grant {
            group: want.group.clone(),
            granted: want.asked,
            reason: None,
        });
        return all.collect();
    }
    let least = sum(wants.iter().map(Want::least));
    let is_tight = least > u64::from(ceiling);
    let shares = shares(mode, wants);
    let mut bounds: Vec<Bounds<'_>> = Vec::with_capacity(wants.len());
    for (want, share) in wants.iter().zip(shares) {
        let (floor, top) = if is_tight {
            (0, want.least())
        } else {
            (want.least(), want.asked)
        };
        bounds.push(Bounds {
            group: &want.group,
            share,
            floor,
            top,
        });
    }
    let granted = fill(ceiling, &bounds);
    let by = mode.divides_by();
    let grants = wants.iter().zip(granted).map(|(want, granted)| {
        let why = if is_tight {
            format!(
                "even the minima of {least} consumers are over the ceiling of {ceiling}, \
                 which is divided {by} (`{mode}`)"
            )
        } else {
            format!(
                "{asked} consumers are asked for under a ceiling of {ceiling}, \
                 which is divided {by} (`{mode}`)"
            )
        };
        let wanted = want.asked;
        let reason = (granted < wanted).then(|| format!("{granted} of {wanted}: {why}"));
        Grant {
            group: want.group.clone(),
            granted,
            reason,
        }
    });
    grants.collect()
}

fn sum(counts: impl Iterator<Item = u32>) -> u64 {
    counts.fold(0, |sum, count| sum.saturating_add(count.into()))
}

/// Between which bounds a group gets how large a share.
struct Bounds<'a> {
    group: &'a str,
    share: u128,
    floor: u32,
    top: u32,
}

impl Bounds<'_> {
    /// What it gets at a level.
    fn at(&self, level: u128) -> u32 {
        let filled = self.share.saturating_mul(level) / LEVEL_ONE;
        let filled = u32::try_from(filled).unwrap_or(u32::MAX);
        filled.max(self.floor).min(self.top)
    }
}

/// Fills all shares to one level, within their bounds, so that the sum is the ceiling. The sum of
/// the floors is at most the ceiling, that of the tops at least.
fn fill(ceiling: u32, bounds: &[Bounds<'_>]) -> Vec<u32> {
    let used = |level: u128| sum(bounds.iter().map(|one| one.at(level)));
    // At the upper end each share, 1 at least, is beyond any top.
    let (mut fits, mut beyond) = (0_u128, LEVEL_ONE.saturating_mul(LEVEL_ONE));
    while beyond.saturating_sub(fits) > 1 {
        let middle = u128::midpoint(fits, beyond);
        if used(middle) <= u64::from(ceiling) {
            fits = middle;
        } else {
            beyond = middle;
        }
    }
    let mut granted: Vec<u32> = bounds.iter().map(|one| one.at(fits)).collect();
    let mut left = u64::from(ceiling).saturating_sub(used(fits));
    let mut order: Vec<(&Bounds<'_>, &mut u32)> = bounds.iter().zip(&mut granted).collect();
    order.sort_by_key(|(one, _)| one.group);
    for (one, granted) in order {
        if left > 0 && one.at(beyond) > *granted {
            *granted = granted.saturating_add(1);
            left = left.saturating_sub(1);
        }
    }
    granted
}

/// The share of each group, 1 to `SHARE_MAX`.
fn shares(mode: AllocationMode, wants: &[Want]) -> Vec<u128> {
    let raw: Vec<u128> = match mode {
        AllocationMode::Equal => wants.iter().map(|_| 1).collect(),
        AllocationMode::Weighted => wants.iter().map(|want| want.weight.into()).collect(),
        AllocationMode::Adaptive => wants.iter().map(pressure).collect(),
        AllocationMode::PerformanceBased => performance(wants),
    };
    let most = raw.iter().copied().max().unwrap_or(1).max(1);
    let scaled = raw.into_iter().map(|share| {
        let share = if most > SHARE_MAX {
            let product = share.saturating_mul(SHARE_MAX);
            product.checked_div(most).unwrap_or(1)
        } else {
            share
        };
        share.max(1)
    });
    scaled.collect()
}

/// Messages that wait, and those that the trend brings or spares within a minute.
fn pressure(want: &Want) -> u128 {
    let brought = i128::from(want.trend_milli).saturating_mul(TREND_S) / 1_000;
    let pressure = i128::from(want.backlog).saturating_add(brought);
    u128::try_from(pressure).unwrap_or(0)
}

/// Messages that a consumer gets done in a time; of one whose service time is unknown, as many as
/// of the others on average.
fn performance(wants: &[Want]) -> Vec<u128> {
    let done = |want: &Want| {
        let service_ms = u128::from(want.service_ms?.max(1));
        let success = u128::from(want.success_permille.min(1_000));
        success.saturating_mul(1_000_000).checked_div(service_ms)
    };
    let known: Vec<u128> = wants.iter().filter_map(done).collect();
    let all = known
        .iter()
        .fold(0, |sum: u128, one| sum.saturating_add(*one));
    let count = u128::try_from(known.len()).unwrap_or(1);
    let mean = all.checked_div(count).unwrap_or(1);
    wants
        .iter()
        .map(|want| done(want).unwrap_or(mean))
        .collect()
}
