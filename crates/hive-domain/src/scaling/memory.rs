//! What a group's decisions remember of the ones before.
//!
//! Whole numbers only, so that a memory written as JSON and read back is the same one, and a
//! bounded number of them: 96 parts of a day, 64 extremes for each window.

use serde::{Deserialize, Serialize};

use super::{
    Demand,
    forecast::Rate,
    number::{ratio, real, whole},
    window::Steps,
};

/// A longer pause between two calls tells no rate.
const GAP_MS_MAX: u64 = 60_000;
/// So much of a pause counts as time that a wish held: a clock set forward ends no window.
const CREDIT_MS_MAX: u64 = 10_000;
/// A shorter pause is joined to the next one: over an instant a counter tells no rate.
const PAUSE_MS_MIN: u64 = 500;
/// For how long the last known time of work is believed once nothing is acknowledged.
const SERVICE_MS_MAX: u64 = 3_600_000;

/// What one call leaves to the next: opaque, at most 16 KiB of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Time as this memory counts it, in ms: it starts at 0 and never goes back.
    pub(super) at: u64,
    /// Redis' time and the counter, from where the next difference is taken.
    base: Option<(u64, u64)>,
    /// Redis' time of the last call.
    called: Option<u64>,
    /// What arrives.
    pub(super) rate: Rate,
    /// Time of work in ms, and when it was known.
    service: Option<(u64, u64)>,
    /// Messages that 1,000 consumers work on at once; 0 while unknown.
    capacity_milli: u64,
    /// Thousandths of slots, mean of the last minutes.
    slots_milli: u64,
    /// What was asked for, and what was wished.
    pub(super) steps: Steps,
}

impl Memory {
    /// Takes in the time and the counter of a call; answers whether it is the first of all.
    pub(super) fn observe(&mut self, demand: &Demand) -> bool {
        let now = demand.now.as_millis();
        let called = self.called.replace(now);
        let Some(called) = called else {
            self.base = Some((now, demand.published));
            return true;
        };
        // A clock that went back or leapt lets the least time pass: this is another call.
        let pause = now.abs_diff(called);
        let is_leap = now < called || pause > GAP_MS_MAX;
        let credit = if is_leap { 1 } else { pause.min(CREDIT_MS_MAX) };
        self.at = self.at.saturating_add(credit);
        let (since, published) = self.base.unwrap_or((now, demand.published));
        let span = now.saturating_sub(since);
        if is_leap || demand.published < published || span > GAP_MS_MAX {
            self.base = Some((now, demand.published));
        } else if span >= PAUSE_MS_MIN {
            self.base = Some((now, demand.published));
            let count = demand.published.saturating_sub(published);
            self.rate.observe(now, span, count, self.at);
        }
        self.observe_slots(demand, credit);
        false
    }

    fn observe_slots(&mut self, demand: &Demand, pause: u64) {
        let slots = real(demand.slots.into()) * 1_000.0;
        let window = real(demand.recent_ms.max(1_000)) / 2.0;
        let weight = ratio(real(pause), real(pause) + window);
        let mean = real(self.slots_milli);
        self.slots_milli = whole(mean + weight * (slots - mean));
    }

    /// Messages that one consumer works on at once: of those that stay, else as known before,
    /// else 1.
    pub(super) fn capacity(&mut self, demand: &Demand) -> f64 {
        let staying = u64::from(demand.staying());
        let slots = u64::from(demand.slots).saturating_mul(1_000);
        if let Some(mean) = slots.checked_div(staying)
            && mean > 0
        {
            self.capacity_milli = mean;
        }
        if self.capacity_milli == 0 {
            return 1.0;
        }
        real(self.capacity_milli) / 1_000.0
    }

    /// Time of work on a message in seconds: from the last minutes, else as known in the last
    /// hour.
    ///
    /// Time from delivery to ack has the wait inside an agent in it. By Little's law the mean in
    /// flight is the summed time over the window; what is beyond the slots waited.
    pub(super) fn service(&mut self, demand: &Demand, capacity: f64) -> Option<f64> {
        if demand.recent_acked > 0 {
            let held_ms = real(demand.recent_work_ms) / real(demand.recent_acked);
            let in_flight = ratio(real(demand.recent_work_ms), real(demand.recent_ms));
            let leaving = real(demand.draining.into()) * capacity;
            let slots = real(demand.slots.into()) + leaving;
            let slots = slots.max(real(self.slots_milli) / 1_000.0);
            let worked_ms = if slots > 0.0 && in_flight > slots {
                held_ms * slots / in_flight
            } else {
                held_ms
            };
            self.service = Some((whole(worked_ms).max(1), self.at));
        }
        let (millis, known_at) = self.service?;
        let is_fresh = self.at.saturating_sub(known_at) <= SERVICE_MS_MAX;
        is_fresh.then(|| real(millis) / 1_000.0)
    }
}
