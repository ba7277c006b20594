//! What arrives, and what is expected to arrive.
//!
//! The level and its trend are Holt's, for steps of any length. A trend is believed only as far as
//! it stands out of the noise of the counts, and dies away over the time looked ahead, so that a
//! blip does not run away. A load that turned round lately is expected to turn round at the same
//! height. After a day, what usually arrives at this time of day is expected at least.

use serde::{Deserialize, Serialize};

use super::number::{ratio, real, seconds, signed, whole};

/// Over how long the level is smoothed, in s: half of the calls of the last ten seconds decide.
const LEVEL_S: f64 = 12.0;
/// Over how long the trend is smoothed, in s.
const TREND_S: f64 = 20.0;
/// Over how long the spread of the counts is smoothed, in s.
const SPREAD_S: f64 = 300.0;
/// A trend counts as far as it is beyond so many of its standard deviations.
const DEVIATIONS: f64 = 2.0;
/// Within which time a trend has died away to half, in s.
const HALF_LIFE_S: f64 = 60.0;
/// A peak is remembered for so long.
const PEAK_MS: u64 = 3_600_000;
/// A load has turned round once it fell under this part of its peak.
const TURNED: f64 = 0.75;
/// A load beyond its peak by this factor is a new one.
const BROKEN: f64 = 1.25;

/// A day, in ms.
const DAY_MS: u64 = 86_400_000;
/// Parts of a day.
const PARTS: usize = 96;
/// How long a part is: 15 min.
const PART_MS: u64 = 900_000;
/// How much a new day counts against those before.
const DAY_WEIGHT: f64 = 0.4;
/// How much a part of today counts in how today compares with other days.
const TODAY_WEIGHT: f64 = 0.3;

/// Arrivals of one group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Rate {
    /// Messages per 1,000,000 s.
    level_micro: u64,
    /// Its change per second, in messages per 1,000,000,000 s.
    trend_nano: i64,
    /// How long arrivals were observed, in ms.
    seen_ms: u64,
    /// Variance of the counts over their mean, in thousandths; that of independent arrivals is 1.
    spread_milli: u64,
    peak: Peak,
    season: Season,
}

/// Expected arrivals, in messages a second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Expected {
    /// At the end of the time looked ahead.
    pub(super) then: f64,
    /// On average until then.
    pub(super) until_then: f64,
}

impl Rate {
    /// Takes in `count` messages accepted within the `span` ms up to `now`.
    pub(super) fn observe(&mut self, now: u64, span: u64, count: u64, at: u64) {
        let (span_s, rate) = (seconds(span), ratio(real(count), seconds(span)));
        self.season.observe(now, span, count);
        let seen_s = seconds(self.seen_ms);
        self.seen_ms = self.seen_ms.saturating_add(span);
        // At first a plain mean: the first count alone is no level.
        let level_weight = (span_s / (LEVEL_S + span_s)).max(span_s / (seen_s + span_s));
        let trend_weight = span_s / (TREND_S + span_s);
        let was = self.level();
        let is_settled = seen_s >= LEVEL_S;
        let trend = if is_settled { self.trend() } else { 0.0 };
        let foreseen = (was + trend * span_s).max(0.0);
        let error = rate - foreseen;
        let level = (foreseen + level_weight * error).max(0.0);
        self.level_micro = whole(level * 1e6);
        if is_settled {
            let seen = ratio(level - was, span_s);
            self.trend_nano = signed((trend + trend_weight * (seen - trend)) * 1e9);
            self.observe_spread(error, span_s, foreseen);
        } else {
            self.spread_milli = 1_000;
        }
        self.peak.observe(level, at);
    }

    fn observe_spread(&mut self, error: f64, span_s: f64, foreseen: f64) {
        let was = real(self.spread_milli) / 1_000.0;
        // A front is no noise: what is far out counts only as far as noise would be.
        let seen = ratio(error * error * span_s, foreseen.max(0.05)).min(was * 6.0);
        let weight = span_s / (SPREAD_S + span_s);
        let spread = (was + weight * (seen - was)).clamp(1.0, 1_000.0);
        self.spread_milli = whole(spread * 1_000.0);
    }

    /// Messages a second, over the last seconds.
    pub(super) fn level(&self) -> f64 {
        real(self.level_micro) / 1e6
    }

    fn trend(&self) -> f64 {
        let size = real(self.trend_nano.unsigned_abs()) / 1e9;
        if self.trend_nano < 0 { -size } else { size }
    }

    /// The part of the trend that noise does not explain.
    fn believed_trend(&self) -> f64 {
        // Of counts with variance v a second, this filter makes a trend with variance
        // v / (2 LEVEL_S TREND_S^2).
        let variance = self.level() * real(self.spread_milli) / 1_000.0;
        let deviation = (variance / (2.0 * LEVEL_S * TREND_S * TREND_S)).sqrt();
        let trend = self.trend();
        let size = (trend.abs() - DEVIATIONS * deviation).max(0.0);
        if trend < 0.0 { -size } else { size }
    }

    /// What is expected `ahead` seconds after `now`.
    pub(super) fn expect(&self, now: u64, ahead: f64, at: u64) -> Expected {
        let level = self.level();
        let lasting = ahead * HALF_LIFE_S / (HALF_LIFE_S + ahead);
        let grown = (level + self.believed_trend() * lasting).max(0.0);
        let bounded = grown.min(self.peak.bound(at).map_or(grown, |peak| peak.max(level)));
        let usual = self.season.usual(now, ahead).unwrap_or(0.0);
        let then = bounded.max(usual);
        Expected {
            then,
            until_then: f64::midpoint(level, then),
        }
    }
}

/// The highest level lately, and whether the load fell from it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Peak {
    level_micro: u64,
    at: u64,
    has_turned: bool,
}

impl Peak {
    fn observe(&mut self, level: f64, at: u64) {
        let peak = real(self.level_micro) / 1e6;
        let is_old = at.saturating_sub(self.at) > PEAK_MS;
        if is_old || level > peak * BROKEN || (!self.has_turned && level >= peak) {
            *self = Self {
                level_micro: whole(level * 1e6),
                at,
                has_turned: false,
            };
        } else if level >= peak {
            self.level_micro = whole(level * 1e6);
            self.at = at;
        } else if level < peak * TURNED {
            self.has_turned = true;
        }
    }

    /// How high the load is expected to go at most, once it turned round.
    fn bound(&self, at: u64) -> Option<f64> {
        let is_known = self.has_turned && at.saturating_sub(self.at) <= PEAK_MS;
        is_known.then(|| real(self.level_micro) / 1e6)
    }
}

/// What usually arrives at a time of day.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Season {
    /// Messages per 1,000 s and 1 more, for each part of a day; 0 while unknown.
    parts: Vec<u32>,
    /// Parts learned so far.
    learned: u32,
    /// The part of time under way, counted from the epoch.
    part: u64,
    /// Its messages so far.
    count: u64,
    /// How much of it was observed, in ms.
    seen_ms: u64,
    /// How today compares with other days, in thousandths; 0 while unknown.
    today_milli: u64,
}

impl Season {
    fn observe(&mut self, now: u64, span: u64, count: u64) {
        let part = now / PART_MS;
        if part != self.part {
            self.learn();
            self.part = part;
            self.count = 0;
            self.seen_ms = 0;
        }
        self.count = self.count.saturating_add(count);
        self.seen_ms = self.seen_ms.saturating_add(span);
    }

    /// Takes in the part that is over, unless too little of it was seen.
    fn learn(&mut self) {
        if self.seen_ms < PART_MS / 2 {
            return;
        }
        self.parts.resize(PARTS, 0);
        let rate = ratio(real(self.count), seconds(self.seen_ms));
        let Some(kept) = self.parts.get_mut(index(self.part)) else {
            return;
        };
        let usual = before(*kept);
        let next = usual.map_or(rate, |usual| usual + DAY_WEIGHT * (rate - usual));
        *kept = u32::try_from(whole(next * 1_000.0).saturating_add(1)).unwrap_or(u32::MAX);
        self.learned = self.learned.saturating_add(1);
        // Few messages compare badly.
        if let Some(usual) = usual
            && usual * seconds(self.seen_ms) >= 20.0
        {
            let was = if self.today_milli == 0 {
                1.0
            } else {
                real(self.today_milli) / 1_000.0
            };
            let today = was + TODAY_WEIGHT * (ratio(rate, usual) - was);
            self.today_milli = whole(today.clamp(0.1, 4.0) * 1_000.0);
        }
    }

    /// Messages a second that usually arrive `ahead` seconds after `now`, as today compares; none
    /// before a whole day is known.
    fn usual(&self, now: u64, ahead: f64) -> Option<f64> {
        if self.today_milli == 0 || self.learned < 96 {
            return None;
        }
        let then = now.saturating_add(whole(ahead * 1_000.0));
        // A part's mean stands for its middle; between two middles it goes straight.
        let middle = then.saturating_sub(PART_MS / 2);
        let (part, share) = (
            middle / PART_MS,
            ratio(real(middle % PART_MS), real(PART_MS)),
        );
        let from = before(*self.parts.get(index(part))?)?;
        let to = before(*self.parts.get(index(part.saturating_add(1)))?)?;
        let today = real(self.today_milli) / 1_000.0;
        Some((from + share * (to - from)) * today)
    }
}

/// The place of a part of time in its day.
fn index(part: u64) -> usize {
    let parts_of_day = DAY_MS / PART_MS;
    usize::try_from(part.checked_rem(parts_of_day).unwrap_or(0)).unwrap_or(0)
}

/// Messages a second that a part of a day held before.
fn before(kept: u32) -> Option<f64> {
    let rate = kept.checked_sub(1)?;
    Some(f64::from(rate) / 1_000.0)
}
