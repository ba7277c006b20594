//! The formula: from facts to consumers.
//!
//! By Little's law, `arrivals x service` messages are worked on at a time, and a backlog of `b` is
//! cleared within the drain target by `b x service / drain target` slots more. Together, over what
//! one consumer works on at once, that is how many consumers are wanted today. The forecast asks
//! the same of the moment at which a worker started now would work: of the arrivals expected then,
//! and of the backlog that will have gathered until then.

use super::{
    Demand, Inputs, Limits, Memory,
    number::{consumers, ratio, real, seconds, whole},
    policy::{ScalingPolicy, Strategy},
    window::Hold,
};

/// Under so much of one consumer's work, with nothing in the system, a group is idle.
const IDLE: f64 = 0.01;
/// A consumer goes once the wish is so much of one below what is left: else a wish that trembles
/// about a whole number would start and stop one for ever.
const SLACK: f64 = 0.1;
/// Of many consumers this part is that slack.
const SLACK_SHARE: f64 = 0.02;

/// What is worked on at a time varies about its mean by the root of it. A forecast has this
/// part of that to spare: the rule of the square root, by which queues are staffed.
const SPARE: f64 = 0.7;

/// What a decision comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Plan {
    /// The answer.
    pub(super) asked: u32,
    /// What was asked for before.
    pub(super) before: u32,
    /// What is wished now, without windows, steps, pauses and limits.
    pub(super) wish: u32,
    /// Which rule wished most.
    pub(super) rule: Rule,
    /// What kept the answer from the wish.
    pub(super) hold: Hold,
    /// Messages not begun.
    pub(super) backlog: u64,
    /// Messages not begun once a worker started now works.
    pub(super) backlog_then: u64,
    pub(super) inputs: Inputs,
}

/// Which rule wishes for most consumers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// There is nothing to do.
    Idle,
    /// There is work, and nobody.
    Wake,
    /// One consumer for each `lag_threshold` messages.
    Lag,
    /// Today's arrivals and backlog.
    Today,
    /// Those expected.
    Forecast,
    /// What consumers hold.
    Busy,
}

/// What a group wishes for at a moment, and the numbers behind it.
struct Wish {
    count: u32,
    rule: Rule,
    /// What is kept where it is there: more by a little.
    kept: u32,
}

impl Wish {
    fn raise(&mut self, count: u32, rule: Rule) {
        if count > self.count {
            (self.count, self.rule) = (count, rule);
        }
        self.kept = self.kept.max(count);
    }

    /// Likewise by a number with a fraction.
    fn raise_to(&mut self, exact: f64, rule: Rule) {
        self.raise(consumers(exact), rule);
        if exact > 0.0 {
            let slack = (exact * SLACK_SHARE).max(SLACK);
            self.kept = self.kept.max(consumers(exact + slack));
        }
    }
}

/// The next answer for a group; its memory takes in what it must.
pub(super) fn step(
    policy: &ScalingPolicy,
    limits: &Limits,
    demand: &Demand,
    memory: &mut Memory,
) -> Plan {
    let is_first = memory.observe(demand);
    let floor = limits.min.min(limits.max);
    if is_first {
        // Whoever is there was wanted so far: a lost memory stops nobody at once.
        memory.steps.asked = demand.staying().clamp(floor, limits.max);
    }
    let before = memory.steps.asked;
    let capacity = memory.capacity(demand);
    let service = memory.service(demand, capacity);

    let leaving = real(demand.draining.into()) * capacity;
    let worked_on = u64::from(demand.slots).saturating_add(whole(leaving));
    let backlog = demand
        .lag()
        .saturating_add(demand.leased.saturating_sub(worked_on));
    let needed = consumers(ratio(real(demand.leased), capacity));
    let busy = needed.min(demand.staying());

    let mut wish = Wish {
        count: 0,
        rule: Rule::Idle,
        kept: 0,
    };
    if demand.lag() > 0 {
        wish.raise(1, Rule::Wake);
    }
    let threshold = u64::from(limits.lag_threshold.max(1));
    if demand.lag() > threshold {
        let count = demand.lag().div_ceil(threshold);
        wish.raise(u32::try_from(count).unwrap_or(u32::MAX), Rule::Lag);
    }
    let level = memory.rate.level();
    let ahead = seconds(policy.startup_time_ms);
    let expected = memory.rate.expect(demand.now.as_millis(), ahead, memory.at);
    let mut backlog_then = 0;
    if let Some(service) = service {
        let world = World {
            capacity,
            service,
            drain: seconds(policy.drain_target_ms).max(1.0),
            is_empty: backlog == 0 && demand.leased == 0,
        };
        let (now, then) = match policy.strategy {
            Strategy::Reactive => (true, false),
            Strategy::Predictive => (false, true),
            Strategy::Hybrid => (true, true),
        };
        if now {
            wish.raise_to(world.wanted(level, level, real(backlog)), Rule::Today);
        }
        if then {
            let slots = real(demand.slots.into()) + coming(policy, demand, memory) * capacity;
            let worked = ratio(slots * ahead, service);
            let gathered = (real(backlog) + expected.until_then * ahead - worked).max(0.0);
            backlog_then = whole(gathered);
            let steady = expected.then * service;
            let spared = ratio(steady + SPARE * steady.sqrt(), service);
            // Where the load turned round lately, what varies was in its peak.
            let top = expected.peak.map_or(spared, |peak| peak.max(expected.then));
            wish.raise_to(
                world.wanted(expected.then, spared.min(top), gathered),
                Rule::Forecast,
            );
        }
    }
    wish.raise(busy, Rule::Busy);

    let (held, hold) = memory.steps.next(policy, memory.at, wish.count, wish.kept);
    let asked = held.max(busy).max(floor).min(limits.max);
    memory.steps.settle(memory.at, asked);
    let forecast = match policy.strategy {
        Strategy::Reactive => 0.0,
        Strategy::Predictive | Strategy::Hybrid => expected.then,
    };
    Plan {
        asked,
        before,
        wish: wish.count,
        rule: wish.rule,
        hold,
        backlog,
        backlog_then,
        inputs: Inputs {
            lag: demand.waiting,
            in_flight: demand.leased,
            retrying: demand.ready,
            oldest_waiting_ms: demand.oldest_waiting_ms,
            arrivals_milli: whole(level * 1_000.0),
            forecast_milli: whole(forecast * 1_000.0),
            service_ms: service.map(|service| whole(service * 1_000.0)),
            capacity_milli: whole(capacity * 1_000.0),
        },
    }
}

/// Consumers asked for that are not there yet, on average over the time until the last of them
/// works: half of them. Those that did not come within twice that time are not counted on.
fn coming(policy: &ScalingPolicy, demand: &Demand, memory: &mut Memory) -> f64 {
    let patience_ms = policy.startup_time_ms.saturating_mul(2);
    let asked = memory.steps.raised(memory.at, patience_ms).unwrap_or(0);
    real(asked.saturating_sub(demand.staying()).into()) / 2.0
}

/// What turns arrivals and a backlog into consumers.
struct World {
    /// Messages that one consumer works on at once.
    capacity: f64,
    /// Time of work on one, in s.
    service: f64,
    /// Within which time a backlog is to be cleared, in s.
    drain: f64,
    /// Whether nothing waits and nothing is held.
    is_empty: bool,
}

impl World {
    /// Consumers for so many arrivals a second and such a backlog; `spared` are the arrivals with
    /// what is to spare, which keep nobody where nothing is to be done.
    fn wanted(&self, arrivals: f64, spared: f64, backlog: f64) -> f64 {
        if self.is_empty && ratio(arrivals * self.service, self.capacity) < IDLE {
            return 0.0;
        }
        let slots = spared * self.service + backlog * self.service / self.drain;
        ratio(slots, self.capacity)
    }
}
