//! What arrives when: shapes, and recorded loads.

use std::f64::consts::TAU;

use super::{SECONDS_MAX, random::Random};
use crate::{scaling::number::ratio, words::words};

/// A load as it may come. Arrivals are independent of each other; the shape says how many are
/// expected in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shape {
    /// 10 a second for an hour.
    Steady,
    /// 2 a second for an hour, and every 10 min a burst: up to 20 within 30 s, 2 min of it, and
    /// down within 30 s.
    Burst,
    /// 2 a second for 10 min, up to 20 within 20 min, 10 min of it, and down within 10 min.
    Ramp,
    /// Three days between 0.05 and 1 a second, least at midnight, most at noon.
    DailyWave,
    /// Up from 4 to 16 a second within 2 min, and down at once, for an hour.
    Sawtooth,
    /// 10 a second for an hour, in which all work stops twice, for 1 and for 2 min.
    Outage,
}

words!(Shape {
    Steady => "steady",
    Burst => "burst",
    Ramp => "ramp",
    DailyWave => "daily_wave",
    Sawtooth => "sawtooth",
    Outage => "outage",
});

impl Shape {
    /// How long it is, in s.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        match self {
            Self::Steady | Self::Burst | Self::Ramp | Self::Sawtooth | Self::Outage => 3_600,
            Self::DailyWave => 3 * 86_400,
        }
    }

    /// Messages expected in a second of it.
    fn rate(self, second: u32) -> f64 {
        let at = f64::from(second);
        match self {
            Self::Steady | Self::Outage => 10.0,
            Self::Burst => line(
                f64::from(second % 600),
                &[(240.0, 2.0), (270.0, 20.0), (390.0, 20.0), (420.0, 2.0)],
            ),
            Self::Ramp => line(
                at,
                &[
                    (600.0, 2.0),
                    (1_800.0, 20.0),
                    (2_400.0, 20.0),
                    (3_000.0, 2.0),
                ],
            ),
            Self::DailyWave => 0.525 - 0.475 * (TAU * at / 86_400.0).cos(),
            Self::Sawtooth => line(f64::from(second % 120), &[(0.0, 4.0), (120.0, 16.0)]),
        }
    }

    /// The load that a seed makes of it.
    #[must_use]
    pub fn load(self, seed: u64) -> Load {
        let mut random = Random::new(seed ^ 0x6c6f_6164);
        let seconds = 0..self.seconds();
        let outages = match self {
            Self::Outage => vec![(1_200, 1_260), (2_100, 2_220)],
            Self::Steady | Self::Burst | Self::Ramp | Self::DailyWave | Self::Sawtooth => {
                Vec::new()
            },
        };
        Load {
            arrivals: seconds.map(|at| random.count(self.rate(at))).collect(),
            outages,
        }
    }
}

/// The height at `at` of the line through `corners`, level before the first and after the last.
fn line(at: f64, corners: &[(f64, f64)]) -> f64 {
    let mut before: Option<(f64, f64)> = None;
    for (place, height) in corners.iter().copied() {
        if at < place {
            return before.map_or(height, |(from, start)| {
                start + (height - start) * ratio(at - from, place - from)
            });
        }
        before = Some((place, height));
    }
    before.map_or(0.0, |(_, height)| height)
}

/// Messages by second, and when no work gets done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Load {
    /// Messages that arrive in each second, from 0 on; at most `SECONDS_MAX` are looked at.
    pub arrivals: Vec<u32>,
    /// Seconds from and until which work stands still, in order and apart.
    pub outages: Vec<(u32, u32)>,
}

impl Load {
    /// A recorded load: seconds and how many messages arrived in them, in any order. Seconds of
    /// 31 days from the first one on count.
    #[must_use]
    pub fn recorded(rows: &[(u64, u32)]) -> Self {
        let first = rows.iter().map(|(second, _)| *second).min().unwrap_or(0);
        let mut arrivals = Vec::new();
        for (second, count) in rows {
            let place = usize::try_from(second.saturating_sub(first)).unwrap_or(usize::MAX);
            if place >= SECONDS_MAX {
                continue;
            }
            if arrivals.len() <= place {
                arrivals.resize(place.saturating_add(1), 0);
            }
            if let Some(kept) = arrivals.get_mut(place) {
                *kept = count.saturating_add(*kept);
            }
        }
        Self {
            arrivals,
            outages: Vec::new(),
        }
    }

    /// Messages of it.
    #[must_use]
    pub fn messages(&self) -> u64 {
        let counts = self.arrivals.iter().map(|count| u64::from(*count));
        counts.fold(0, u64::saturating_add)
    }

    /// Mean messages a second, in thousandths.
    #[must_use]
    pub fn mean_milli(&self) -> u64 {
        let seconds = u64::try_from(self.arrivals.len()).unwrap_or(u64::MAX);
        let messages = self.messages().saturating_mul(1_000);
        messages.checked_div(seconds).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Load, Shape};
    use crate::scaling::number::whole;

    #[test]
    fn a_seed_makes_the_same_load_again_and_another_seed_another() {
        assert_eq!(Shape::Burst.load(3), Shape::Burst.load(3));
        assert_ne!(Shape::Burst.load(3), Shape::Burst.load(4));
    }

    #[test]
    fn a_burst_rises_to_its_height_and_falls_again() {
        let rates = [0, 240, 255, 300, 405, 500].map(|at| Shape::Burst.rate(at));
        assert_eq!(rates.map(whole), [2, 2, 11, 20, 11, 2]);
    }

    #[test]
    fn a_recorded_load_starts_with_its_first_second() {
        let load = Load::recorded(&[(1_000, 3), (1_002, 1), (1_000, 2), (u64::MAX, 9)]);
        assert_eq!(load.arrivals, [5, 0, 1]);
        assert_eq!(load.messages(), 6);
        assert_eq!(load.mean_milli(), 2_000);
        assert_eq!(Load::recorded(&[]), Load::default());
    }
}
