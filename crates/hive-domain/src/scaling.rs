//! How many consumers a group wants, how a shared ceiling is divided, and who goes first.
//!
//! `decide` is asked about once a second for each group, with facts of one moment and with the
//! memory that it returned the last time. It answers how many consumers are asked for and why.
//! `divide` cuts what all groups ask for down to a ceiling that they share. `victims` names the
//! consumers that lose least by going.
//!
//! Laws, tested in `laws`:
//! - A second plan on the same facts, at the same moment, with the memory returned, moves nothing.
//! - More waiting never means fewer asked for.
//! - Never above the ceiling, and below it never fewer than what is in flight needs.
//! - A steady load and a sawtooth load settle: nothing is added and removed again for ever.
//! - A clock that goes back, or leaps by more than a minute, moves nothing. A shorter leap is
//!   like a late call.
//!
//! It starts and stops nothing, and knows no executor. Read next: `policy` (how a group is scaled),
//! `plan` (the formula), `forecast` (what is expected), `window` (when it is acted upon),
//! `simulate` (what it costs and saves).

mod allocation;
mod forecast;
mod memory;
mod number;
mod plan;
mod policy;
pub mod simulate;
mod victim;
mod window;
mod words;

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "small numbers; an overflow fails the test"
)]
mod laws;
#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "small numbers; an overflow fails the test"
)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

pub use allocation::{AllocationMode, Grant, Want, divide};
pub use memory::Memory;
pub use policy::{
    DRAIN_TARGET_MS_MIN, Executor, SCALE_MS_MAX, STEP_MAX, ScalingPolicy, Strategy,
    TARGET_BYTES_MAX, WEIGHT_MAX,
};
pub use victim::{Holder, Victim, victims};

/// Between which bounds a group is scaled, from its settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Fewest consumers asked for, 0 to `max`.
    pub min: u32,
    /// Most consumers asked for. It wins over `min`.
    pub max: u32,
    /// Messages to deliver from which there is at least one consumer for so many. 0 counts as 1.
    pub lag_threshold: u32,
}

/// Facts of one group at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Demand {
    /// When, by Redis' clock.
    pub now: Timestamp,
    /// Messages accepted since the group was created: a counter.
    pub published: u64,
    /// Messages accepted and never delivered.
    pub waiting: u64,
    /// Messages held by consumers.
    pub leased: u64,
    /// Messages delivered before, to be delivered again at once.
    pub ready: u64,
    /// Messages delayed or parked: no work for now.
    pub later: u64,
    /// Age of the oldest waiting message, in ms; 0 without one.
    pub oldest_waiting_ms: u64,
    /// Acks of the last minutes, at most 5.
    pub recent_acked: u64,
    /// Their time from delivery to ack, summed, in ms.
    pub recent_work_ms: u64,
    /// How long those last minutes are, in ms.
    pub recent_ms: u64,
    /// Live consumers, the draining ones among them.
    pub consumers: u32,
    /// Consumers that finish what they have begun, and go.
    pub draining: u32,
    /// Messages that the live consumers not draining work on at once, summed.
    pub slots: u32,
}

impl Demand {
    /// Live consumers that stay.
    #[must_use]
    pub const fn staying(&self) -> u32 {
        self.consumers.saturating_sub(self.draining)
    }

    /// Messages to deliver at once.
    #[must_use]
    pub const fn lag(&self) -> u64 {
        self.waiting.saturating_add(self.ready)
    }
}

/// The facts of a decision, for a record and for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Inputs {
    /// Messages accepted and never delivered.
    pub lag: u64,
    /// Messages held by consumers.
    pub in_flight: u64,
    /// Messages delivered before and waiting to be again.
    pub retrying: u64,
    /// Age of the oldest message never delivered, in ms; 0 without one.
    pub oldest_waiting_ms: u64,
    /// Messages accepted per 1,000 s, over the last seconds.
    pub arrivals_milli: u64,
    /// Messages per 1,000 s expected once a worker started now works; 0 where nothing is forecast.
    pub forecast_milli: u64,
    /// Mean time of work on a message, in ms; none while it is unknown.
    pub service_ms: Option<u64>,
    /// Messages that 1,000 consumers work on at once.
    pub capacity_milli: u64,
}

/// How many consumers a group asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Consumers, `min` to `max`.
    pub asked: u32,
    /// Why, for a person, with the numbers.
    pub reason: String,
    /// What it was decided on.
    pub inputs: Inputs,
    /// To be given to the next call for the same group.
    pub memory: Memory,
}

/// How many consumers a group asks for now.
///
/// To be called about once a second, and whenever something happened to a group at rest. A group
/// that was never decided on has the default memory.
#[must_use]
pub fn decide(
    policy: &ScalingPolicy,
    limits: &Limits,
    demand: &Demand,
    memory: &Memory,
) -> Decision {
    let mut memory = memory.clone();
    let plan = plan::step(policy, limits, demand, &mut memory);
    Decision {
        asked: plan.asked,
        reason: words::reason(policy, limits, demand, &plan),
        inputs: plan.inputs,
        memory,
    }
}
