//! The run: messages, workers and decisions, in steps of a second.
//!
//! Within a step the queue is exact: each message in its order goes to the slot that is free
//! first. Only decisions, and the workers that come and go by them, keep to full seconds.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
};

use super::{
    Load, Outcome, SECONDS_MAX, Scaler, World,
    keda::{self, Keda},
    random::Random,
};
use crate::{
    scaling::{
        Demand, Memory,
        number::{real, whole},
        plan,
        policy::{ScalingPolicy, Strategy},
        victim::{Holder, victims},
    },
    time::Timestamp,
};

/// Acks are counted by the minute, and the last five minutes are facts.
const MINUTE_MS: u64 = 60_000;
/// Minutes of acks that are facts, the one under way among them.
const MINUTES: u64 = 5;
/// Waits are counted in parts of so many ms.
const FINE_MS: u64 = 10;
/// Most parts: waits over 4 h count as 4 h in percentiles.
const PARTS_MAX: usize = 1_440_000;

/// Room for one message at a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Slot {
    /// When it is free, or has been since.
    free_ms: u64,
    worker: u32,
    /// How long its last message was held; 0 before the first, and once that is counted.
    held_ms: u64,
}

impl Slot {
    /// Whether it works on a message at a time.
    const fn is_busy(&self, now: u64) -> bool {
        self.free_ms > now && self.held_ms > 0
    }
}

/// A worker that works, or will.
struct Worker {
    started_ms: u64,
}

/// What is known while it runs.
struct Run<'a> {
    world: &'a World,
    load: &'a Load,
    seed: u64,
    /// Arrivals not begun, in ms.
    queue: VecDeque<u64>,
    /// Arrivals of one second.
    offsets: Vec<u64>,
    begun: u64,
    /// Slots of workers that stay, the one free first on top.
    slots: BinaryHeap<Reverse<Slot>>,
    /// Slots of workers that drain, while they are not free.
    leaving: Vec<Slot>,
    /// Workers that stay, by number.
    workers: BTreeMap<u32, Worker>,
    /// Workers started and not ready, those ready last at the end.
    starting: Vec<(u64, u32)>,
    /// Workers that drain, by when they go.
    draining: Vec<(u64, u32)>,
    next_worker: u32,
    acked: Acked,
    published: u64,
    consumer_ms: u64,
    peak: u32,
    interrupted: u64,
    waits: Waits,
}

/// What a load comes to in a world, by what scales it.
#[must_use]
pub fn run(world: &World, load: &Load, scaler: Scaler, seed: u64) -> Outcome {
    let mut run = Run::new(world, load, seed);
    let mut random = Random::new(seed ^ 0x7265_6164);
    let mut decider = Decider::new(world, scaler);
    for _ in 0..world.limits.min {
        run.start(0, 0);
    }
    let mut second = 0_u64;
    for count in load.arrivals.iter().copied().take(SECONDS_MAX) {
        let now = ms64(second);
        // Nothing but a decision looks at the workers, so that between two there is nothing to do.
        if decider.is_due(second) {
            run.begin_until(now);
            run.settle(now);
            let asked = decider.asked(second, &run);
            run.follow(asked, now, &mut random);
        }
        run.arrive(count, now, &mut random);
        second = second.saturating_add(1);
    }
    let end = ms64(second);
    run.begin_until(end);
    run.finish(end, decider.changes)
}

impl<'a> Run<'a> {
    fn new(world: &'a World, load: &'a Load, seed: u64) -> Self {
        Self {
            world,
            load,
            seed,
            queue: VecDeque::new(),
            offsets: Vec::new(),
            begun: 0,
            slots: BinaryHeap::new(),
            leaving: Vec::new(),
            workers: BTreeMap::new(),
            starting: Vec::new(),
            draining: Vec::new(),
            next_worker: 0,
            acked: Acked(Vec::new()),
            published: 0,
            consumer_ms: 0,
            peak: 0,
            interrupted: 0,
            waits: Waits::new(),
        }
    }

    /// Lets messages arrive within the second that starts at `now`.
    fn arrive(&mut self, count: u32, now: u64, random: &mut Random) {
        if count == 0 {
            return;
        }
        self.offsets.clear();
        for _ in 0..count {
            let offset = whole(random.share() * 999.0);
            self.offsets.push(now.saturating_add(offset));
        }
        self.offsets.sort_unstable();
        self.queue.extend(&self.offsets);
        self.published = self.published.saturating_add(count.into());
    }

    /// Begins what can be begun before `until`.
    fn begin_until(&mut self, until: u64) {
        while let (Some(arrived), Some(Reverse(slot))) =
            (self.queue.front().copied(), self.slots.peek().copied())
        {
            let taken = arrived.max(slot.free_ms);
            if taken >= until {
                return;
            }
            self.queue.pop_front();
            let begin = self.working(taken);
            let done = self.done(begin);
            self.begun = self.begun.saturating_add(1);
            self.waits.count(begin.saturating_sub(arrived));
            self.acked.count(&slot);
            if let Some(mut top) = self.slots.peek_mut() {
                *top = Reverse(Slot {
                    free_ms: done,
                    held_ms: done.saturating_sub(taken),
                    ..slot
                });
            }
        }
    }

    /// When work begins that could at `at`: no earlier than the end of an outage.
    fn working(&self, at: u64) -> u64 {
        let mut begin = at;
        for (from, until) in &self.load.outages {
            let (from, until) = (ms(*from), ms(*until));
            if begin >= from && begin < until {
                begin = until;
            }
        }
        begin
    }

    /// When work begun is done. The times of work belong to the messages, not to the run.
    fn done(&self, begin: u64) -> u64 {
        let mut random = Random::new(self.seed.wrapping_add(self.begun.wrapping_mul(0x1_0001)));
        let share = f64::midpoint(1.0, random.gap());
        let service = whole(real(self.world.service_ms) * share).max(1);
        let mut done = begin.saturating_add(service);
        for (from, until) in &self.load.outages {
            let (from, until) = (ms(*from), ms(*until));
            if begin < from && done > from {
                done = done.saturating_add(until.saturating_sub(from));
            }
        }
        done
    }

    /// Lets end what has ended by `now`: starts, and drains.
    fn settle(&mut self, now: u64) {
        self.starting.retain(|(ready, _)| *ready > now);
        let leaving = &self.leaving;
        let interrupted = &mut self.interrupted;
        self.draining.retain(|(gone, worker)| {
            if *gone > now {
                return true;
            }
            let undone = |slot: &&Slot| slot.worker == *worker && slot.free_ms > *gone;
            let left = count(leaving.iter().filter(undone).count());
            *interrupted = interrupted.saturating_add(left);
            false
        });
        let acked = &mut self.acked;
        self.leaving.retain(|slot| {
            let is_busy = slot.free_ms > now;
            if !is_busy {
                acked.count(slot);
            }
            is_busy
        });
    }

    /// Starts and drains workers until as many as asked for stay. Those that drain are there until
    /// they are gone, and with them there are never more than allowed.
    fn follow(&mut self, asked: u32, now: u64, random: &mut Random) {
        let there = size(self.workers.len());
        let room = self
            .world
            .limits
            .max
            .saturating_sub(size(self.draining.len()));
        for _ in there..asked.min(room) {
            let share = 0.8 + 0.4 * random.share();
            self.start(now, whole(real(self.world.startup_ms) * share));
        }
        let mut surplus = there.saturating_sub(asked);
        // One that does not work yet holds nothing.
        while surplus > 0
            && let Some((_, worker)) = self.starting.pop()
        {
            self.slots.retain(|Reverse(slot)| slot.worker != worker);
            self.end(worker, now);
            surplus = surplus.saturating_sub(1);
        }
        if surplus > 0 {
            self.drain(surplus, now);
        }
        let all = self.workers.len().saturating_add(self.draining.len());
        self.peak = self.peak.max(size(all));
    }

    fn start(&mut self, now: u64, startup_ms: u64) {
        let (number, ready_ms) = (self.next_worker, now.saturating_add(startup_ms));
        self.next_worker = self.next_worker.saturating_add(1);
        let worker = Worker { started_ms: now };
        self.workers.insert(number, worker);
        for _ in 0..self.world.concurrency {
            self.slots.push(Reverse(Slot {
                free_ms: ready_ms,
                worker: number,
                held_ms: 0,
            }));
        }
        self.starting.push((ready_ms, number));
        self.starting.sort_unstable();
    }

    /// Tells those who lose least to finish and go.
    fn drain(&mut self, surplus: u32, now: u64) {
        // Of each worker how many it works on, and when its last slot is free, or has been since.
        let mut known: BTreeMap<u32, (u32, u64)> = BTreeMap::new();
        for Reverse(slot) in &self.slots {
            let (held, last) = known.entry(slot.worker).or_default();
            *held = held.saturating_add(u32::from(slot.is_busy(now)));
            *last = (*last).max(slot.free_ms);
        }
        let holders = known.iter().map(|(worker, (held, last))| Holder {
            consumer: format!("{worker:010}"),
            held: *held,
            begun: *held,
            idle_ms: now.saturating_sub(*last),
            draining: false,
        });
        let holders: Vec<Holder> = holders.collect();
        for victim in victims(&holders, surplus) {
            let Ok(worker) = victim.consumer.parse::<u32>() else {
                continue;
            };
            let last = known.get(&worker).map_or(now, |(_, last)| *last);
            let gone = last.max(now);
            for Reverse(slot) in &self.slots {
                if slot.worker == worker {
                    self.leaving.push(*slot);
                }
            }
            self.slots.retain(|Reverse(slot)| slot.worker != worker);
            self.end(worker, gone);
            self.draining.push((gone, worker));
        }
    }

    /// Counts the time of a worker that goes at `gone`.
    fn end(&mut self, worker: u32, gone: u64) {
        if let Some(worker) = self.workers.remove(&worker) {
            let span = gone.saturating_sub(worker.started_ms);
            self.consumer_ms = self.consumer_ms.saturating_add(span);
        }
    }

    /// The facts at a time, as Redis would tell them.
    fn demand(&self, now: u64) -> Demand {
        let oldest = now / MINUTE_MS;
        let oldest = oldest.saturating_sub(MINUTES.saturating_sub(1));
        let (mut recent_acked, mut recent_work_ms) = self.acked.since(oldest);
        let mut leased = 0_u64;
        let staying = self.slots.iter().map(|Reverse(slot)| slot);
        for slot in staying.chain(&self.leaving) {
            if slot.is_busy(now) {
                leased = leased.saturating_add(1);
            } else if slot.held_ms > 0 && slot.free_ms / MINUTE_MS >= oldest {
                // Done, and not counted before the slot is used again.
                recent_acked = recent_acked.saturating_add(1);
                recent_work_ms = recent_work_ms.saturating_add(slot.held_ms);
            }
        }
        let draining = size(self.draining.len());
        let staying = size(self.workers.len().saturating_sub(self.starting.len()));
        let first = self.queue.front();
        Demand {
            now: Timestamp(now),
            published: self.published,
            waiting: count(self.queue.len()),
            leased,
            ready: 0,
            later: 0,
            oldest_waiting_ms: first.map_or(0, |arrived| now.saturating_sub(*arrived)),
            recent_acked,
            recent_work_ms,
            recent_ms: now.saturating_sub(oldest.saturating_mul(MINUTE_MS)),
            consumers: staying.saturating_add(draining),
            draining,
            slots: staying.saturating_mul(self.world.concurrency),
        }
    }

    fn finish(mut self, end: u64, changes: u32) -> Outcome {
        let staying: Vec<u32> = self.workers.keys().copied().collect();
        for worker in staying {
            self.end(worker, end);
        }
        Outcome {
            messages: self.begun,
            mean_wait_ms: self.waits.mean(),
            p95_wait_ms: self.waits.share(95),
            p99_wait_ms: self.waits.share(99),
            consumer_seconds: self.consumer_ms / 1_000,
            changes,
            peak: self.peak,
            interrupted: self.interrupted,
            left: count(self.queue.len()),
        }
    }
}

/// What asks for workers.
struct Decider<'a> {
    world: &'a World,
    policy: Option<ScalingPolicy>,
    memory: Memory,
    keda: Keda,
    asked: u32,
    is_rising: Option<bool>,
    changes: u32,
}

impl<'a> Decider<'a> {
    fn new(world: &'a World, scaler: Scaler) -> Self {
        let strategy = match scaler {
            Scaler::Reactive => Some(Strategy::Reactive),
            Scaler::Predictive => Some(Strategy::Predictive),
            Scaler::Hybrid => Some(Strategy::Hybrid),
            Scaler::Keda => None,
        };
        Self {
            world,
            policy: strategy.map(|strategy| ScalingPolicy {
                strategy,
                ..world.policy.clone()
            }),
            memory: Memory::default(),
            keda: Keda::new(&world.limits),
            asked: world.limits.min,
            is_rising: None,
            changes: 0,
        }
    }

    /// Whether there is a decision at a second.
    fn is_due(&self, second: u64) -> bool {
        let pause = if self.policy.is_some() {
            u64::from(self.world.decide_every_s.max(1))
        } else {
            keda::POLL_S
        };
        second.is_multiple_of(pause)
    }

    /// What is asked for at a second.
    fn asked(&mut self, second: u64, run: &Run<'_>) -> u32 {
        let asked = if let Some(policy) = &self.policy {
            let demand = run.demand(ms64(second));
            // As `decide`, without the words, which take most of its time.
            plan::step(policy, &self.world.limits, &demand, &mut self.memory).asked
        } else {
            let lag = count(run.queue.len());
            self.keda.look(&self.world.limits, second, lag)
        };
        if asked != self.asked {
            let is_rising = asked > self.asked;
            if self.is_rising.is_some_and(|before| before != is_rising) {
                self.changes = self.changes.saturating_add(1);
            }
            self.is_rising = Some(is_rising);
            self.asked = asked;
        }
        asked
    }
}

/// Acks and for how long their messages were held, by minute.
struct Acked(Vec<(u64, u64)>);

impl Acked {
    /// Counts the last message of a slot that is free of it.
    fn count(&mut self, slot: &Slot) {
        if slot.held_ms == 0 {
            return;
        }
        let minute = usize::try_from(slot.free_ms / MINUTE_MS).unwrap_or(usize::MAX);
        // Whatever a run is, it ends with its load.
        if minute > SECONDS_MAX {
            return;
        }
        if self.0.len() <= minute {
            self.0.resize(minute.saturating_add(1), (0, 0));
        }
        if let Some((acked, work_ms)) = self.0.get_mut(minute) {
            *acked = acked.saturating_add(1);
            *work_ms = work_ms.saturating_add(slot.held_ms);
        }
    }

    /// The sums since a minute.
    fn since(&self, minute: u64) -> (u64, u64) {
        let minute = usize::try_from(minute).unwrap_or(usize::MAX);
        let recent = self.0.get(minute..).unwrap_or(&[]);
        let add = |sum: (u64, u64), (acked, work_ms): &(u64, u64)| {
            (sum.0.saturating_add(*acked), sum.1.saturating_add(*work_ms))
        };
        recent.iter().fold((0, 0), add)
    }
}

/// How long messages waited.
struct Waits {
    sum_ms: u128,
    count: u64,
    /// Counts by wait, in parts of `FINE_MS`; the last one holds all beyond.
    parts: Vec<u64>,
}

impl Waits {
    const fn new() -> Self {
        Self {
            sum_ms: 0,
            count: 0,
            parts: Vec::new(),
        }
    }

    fn count(&mut self, wait_ms: u64) {
        self.sum_ms = self.sum_ms.saturating_add(wait_ms.into());
        self.count = self.count.saturating_add(1);
        let part = usize::try_from(wait_ms.div_ceil(FINE_MS)).unwrap_or(PARTS_MAX);
        let part = part.min(PARTS_MAX);
        if self.parts.len() <= part {
            self.parts.resize(part.saturating_add(1), 0);
        }
        if let Some(kept) = self.parts.get_mut(part) {
            *kept = kept.saturating_add(1);
        }
    }

    fn mean(&self) -> u64 {
        let mean = self.sum_ms.checked_div(self.count.into());
        u64::try_from(mean.unwrap_or(0)).unwrap_or(u64::MAX)
    }

    /// What `percent` of a hundred did not wait longer than.
    fn share(&self, percent: u64) -> u64 {
        let wanted = self.count.saturating_mul(percent).div_ceil(100);
        let (mut seen, mut upper_ms) = (0_u64, 0_u64);
        for counted in &self.parts {
            seen = seen.saturating_add(*counted);
            if seen >= wanted {
                return upper_ms;
            }
            upper_ms = upper_ms.saturating_add(FINE_MS);
        }
        upper_ms
    }
}

fn ms(second: u32) -> u64 {
    ms64(second.into())
}

const fn ms64(second: u64) -> u64 {
    second.saturating_mul(1_000)
}

fn count(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

fn size(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
