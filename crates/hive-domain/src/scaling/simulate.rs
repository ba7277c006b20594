//! A group under a load, second by second: how long messages wait, and what that costs.
//!
//! A shape makes arrivals from a seed, workers take time to start, work on several messages at
//! once, and when told to go finish what is begun. What scales them is this crate's `decide` by
//! one of its strategies, or KEDA's lag rule as the Horizontal Pod Autoscaler applies it. The same
//! seed gives the same messages, with the same times of work, to whatever scales them, so that two
//! outcomes differ by the scaling alone.
//!
//! Read next: `load` (the shapes), `keda` (the baseline), `world` (the run), `table` (side by
//! side).

mod keda;
mod load;
mod random;
mod table;
mod world;

use crate::words::words;

use super::{Limits, ScalingPolicy};

pub use load::{Load, Shape};
pub use table::{Row, compare, table};
pub use world::run;

/// Longest load that is simulated: 31 days.
pub const SECONDS_MAX: usize = 31 * 86_400;

/// What scales the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scaler {
    /// This crate's decision on today's numbers.
    Reactive,
    /// This crate's decision on those forecast.
    Predictive,
    /// This crate's decision on the larger of both.
    Hybrid,
    /// KEDA's lag rule under a Horizontal Pod Autoscaler.
    Keda,
}

words!(Scaler {
    Reactive => "reactive",
    Predictive => "predictive",
    Hybrid => "hybrid",
    Keda => "keda",
});

/// The group, its workers and their work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// How it is scaled; the strategy is the scaler's.
    pub policy: ScalingPolicy,
    /// Its bounds.
    pub limits: Limits,
    /// Messages that a worker works on at once, 1 to 1,000.
    pub concurrency: u32,
    /// Mean time of work on a message, in ms; at least half of it, the rest varies.
    pub service_ms: u64,
    /// Mean time from the start of a worker until it works, in ms; it varies by a fifth.
    pub startup_ms: u64,
    /// Pause between two decisions, in s; KEDA has its own.
    pub decide_every_s: u32,
}

impl Default for World {
    fn default() -> Self {
        Self {
            policy: ScalingPolicy {
                startup_time_ms: 20_000,
                ..ScalingPolicy::default()
            },
            limits: Limits {
                min: 1,
                max: 60,
                lag_threshold: 10,
            },
            concurrency: 2,
            service_ms: 2_000,
            startup_ms: 20_000,
            decide_every_s: 1,
        }
    }
}

impl World {
    /// The world in which a shape is compared.
    ///
    /// A wave of days has work of agents, of 20 s each, and decides every 10 s; all else is alike.
    #[must_use]
    pub fn of(shape: Shape) -> Self {
        match shape {
            Shape::Steady | Shape::Burst | Shape::Ramp | Shape::Sawtooth | Shape::Outage => {
                Self::default()
            },
            Shape::DailyWave => Self {
                service_ms: 20_000,
                decide_every_s: 10,
                ..Self::default()
            },
        }
    }
}

/// What came of a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Messages whose work began.
    pub messages: u64,
    /// Mean time from arrival to the begin of work, in ms.
    pub mean_wait_ms: u64,
    /// Nineteen of twenty waited no longer, in ms.
    pub p95_wait_ms: u64,
    /// Ninety-nine of a hundred waited no longer, in ms.
    pub p99_wait_ms: u64,
    /// Time of all workers from their start to their end, summed, in s.
    pub consumer_seconds: u64,
    /// How often what was asked for went up after down, or down after up.
    pub changes: u32,
    /// Most workers at a time, starting and draining ones among them.
    pub peak: u32,
    /// Messages whose worker went before they were done.
    pub interrupted: u64,
    /// Messages left when the load ended.
    pub left: u64,
}
