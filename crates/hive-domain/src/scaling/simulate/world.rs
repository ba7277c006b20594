//! The run: messages, workers and decisions, in steps of a second.
//!
//! Within a step the queue is exact: each message in its order goes to the slot that is free
//! first. Only decisions, and the workers that come and go by them, keep to full seconds.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
};

use super::{Load, Outcome, SECONDS_MAX, Scaler, World, keda::Keda, random::Random};
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

/// A worker that works, or will.
struct Worker {
    started_ms: u64,
    ready_ms: u64,
}

/// What is known while it runs.
struct Run<'a> {
    world: &'a World,
    load: &'a Load,
    seed: u64,
    /// Arrivals not begun, in ms.
    queue: VecDeque<u64>,
    begun: u64,
    /// Slots by when they are free, and whose they are.
    slots: BinaryHeap<Reverse<(u64, u32)>>,
    /// Messages worked on: when they are done, how long they were held, by whom.
    held: BinaryHeap<Reverse<(u64, u64, u32)>>,
    /// Workers that stay, by number.
    workers: BTreeMap<u32, Worker>,
    /// Workers started and not ready, those ready last at the end.
    starting: Vec<(u64, u32)>,
    /// Workers that drain, by when they go.
    draining: Vec<(u64, u32)>,
    next_worker: u32,
    /// Acks and their time held, by minute.
    minutes: VecDeque<(u64, u64, u64)>,
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
    let mut offsets: Vec<u64> = Vec::new();
    let mut second = 0_u64;
    for count in load.arrivals.iter().copied().take(SECONDS_MAX) {
        let now = second.saturating_mul(1_000);
        run.begin_until(now);
        run.settle(now);
        let asked = decider.asked(second, &run);
        if let Some(asked) = asked {
            run.follow(asked, now, &mut random);
        }
        offsets.clear();
        offsets.extend((0..count).map(|_| now.saturating_add(whole(random.share() * 999.0))));
        offsets.sort_unstable();
        run.queue.extend(&offsets);
        run.published = run.published.saturating_add(count.into());
        second = second.saturating_add(1);
    }
    let end = second.saturating_mul(1_000);
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
            begun: 0,
            slots: BinaryHeap::new(),
            held: BinaryHeap::new(),
            workers: BTreeMap::new(),
            starting: Vec::new(),
            draining: Vec::new(),
            next_worker: 0,
            minutes: VecDeque::new(),
            published: 0,
            consumer_ms: 0,
            peak: 0,
            interrupted: 0,
            waits: Waits::new(),
        }
    }

    /// Begins what can be begun before `until`.
    fn begin_until(&mut self, until: u64) {
        while let (Some(arrived), Some(Reverse((free, worker)))) =
            (self.queue.front().copied(), self.slots.peek().copied())
        {
            let begin = self.working(arrived.max(free));
            if arrived.max(free) >= until {
                return;
            }
            self.queue.pop_front();
            self.slots.pop();
            let done = self.done(begin);
            self.begun = self.begun.saturating_add(1);
            self.waits.count(begin.saturating_sub(arrived));
            let taken = arrived.max(free);
            self.slots.push(Reverse((done, worker)));
            let span = done.saturating_sub(taken);
            self.held.push(Reverse((done, span, worker)));
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

    /// Lets end what has ended by `now`: work, starts and drains.
    fn settle(&mut self, now: u64) {
        while let Some(Reverse((done, span, _))) = self.held.peek().copied()
            && done <= now
        {
            self.held.pop();
            let minute = done / MINUTE_MS;
            match self.minutes.back_mut() {
                Some((last, acked, work)) if *last == minute => {
                    *acked = acked.saturating_add(1);
                    *work = work.saturating_add(span);
                },
                _ => self.minutes.push_back((minute, 1, span)),
            }
        }
        while let Some((ready, worker)) = self.starting.first().copied()
            && ready <= now
        {
            self.starting.remove(0);
            for _ in 0..self.world.concurrency {
                self.slots.push(Reverse((ready, worker)));
            }
        }
        let held = &self.held;
        let interrupted = &mut self.interrupted;
        self.draining.retain(|(gone, worker)| {
            if *gone > now {
                return true;
            }
            let left = held.iter().filter(|Reverse((_, _, by))| by == worker);
            *interrupted = interrupted.saturating_add(count(left.count()));
            false
        });
    }

    /// Starts and drains workers until as many as asked for stay.
    fn follow(&mut self, asked: u32, now: u64, random: &mut Random) {
        let there = size(self.workers.len());
        for _ in there..asked {
            let share = 0.8 + 0.4 * random.share();
            self.start(now, whole(real(self.world.startup_ms) * share));
        }
        let mut surplus = there.saturating_sub(asked);
        // One that does not work yet holds nothing.
        while surplus > 0
            && let Some((_, worker)) = self.starting.pop()
        {
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
        let worker = Worker {
            started_ms: now,
            ready_ms,
        };
        self.workers.insert(number, worker);
        self.starting.push((ready_ms, number));
        self.starting.sort_unstable();
    }

    /// Tells those who lose least to finish and go.
    fn drain(&mut self, surplus: u32, now: u64) {
        let mut busy: BTreeMap<u32, (u32, u64)> = BTreeMap::new();
        for Reverse((done, _, worker)) in &self.held {
            let (count, last) = busy.entry(*worker).or_default();
            *count = count.saturating_add(1);
            *last = (*last).max(*done);
        }
        let mut idle: BTreeMap<u32, u64> = BTreeMap::new();
        for Reverse((free, worker)) in &self.slots {
            let since = idle.entry(*worker).or_default();
            *since = (*since).max(*free);
        }
        let mut holders = Vec::with_capacity(self.workers.len());
        for (worker, facts) in &self.workers {
            let held = busy.get(worker).map_or(0, |(count, _)| *count);
            let since = idle.get(worker).copied().unwrap_or(facts.ready_ms);
            holders.push(Holder {
                consumer: format!("{worker:08}"),
                held,
                begun: held,
                idle_ms: now.saturating_sub(since),
                draining: false,
            });
        }
        for victim in victims(&holders, surplus) {
            let Ok(worker) = victim.consumer.parse::<u32>() else {
                continue;
            };
            let gone = busy.get(&worker).map_or(now, |(_, last)| *last);
            self.slots.retain(|Reverse((_, by))| *by != worker);
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
        let (mut recent_acked, mut recent_work_ms) = (0_u64, 0_u64);
        for (minute, acked, work) in self.minutes.iter().rev() {
            if *minute < oldest {
                break;
            }
            recent_acked = recent_acked.saturating_add(*acked);
            recent_work_ms = recent_work_ms.saturating_add(*work);
        }
        let draining = size(self.draining.len());
        let staying = size(self.workers.len().saturating_sub(self.starting.len()));
        let first = self.queue.front();
        Demand {
            now: Timestamp(now),
            published: self.published,
            waiting: count(self.queue.len()),
            leased: count(self.held.len()),
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

    /// What is asked for at a second, where it is decided on then.
    fn asked(&mut self, second: u64, run: &Run<'_>) -> Option<u32> {
        let asked = if let Some(policy) = &self.policy {
            if !second.is_multiple_of(u64::from(self.world.decide_every_s.max(1))) {
                return None;
            }
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
        Some(asked)
    }
}

/// How long messages waited.
struct Waits {
    sum_ms: u128,
    count: u64,
    /// Counts by wait, in parts of `FINE_MS`.
    fine: BTreeMap<u64, u64>,
}

impl Waits {
    const fn new() -> Self {
        Self {
            sum_ms: 0,
            count: 0,
            fine: BTreeMap::new(),
        }
    }

    fn count(&mut self, wait_ms: u64) {
        self.sum_ms = self.sum_ms.saturating_add(wait_ms.into());
        self.count = self.count.saturating_add(1);
        let kept = self.fine.entry(wait_ms.div_ceil(FINE_MS)).or_default();
        *kept = kept.saturating_add(1);
    }

    fn mean(&self) -> u64 {
        let mean = self.sum_ms.checked_div(self.count.into());
        u64::try_from(mean.unwrap_or(0)).unwrap_or(u64::MAX)
    }

    /// What `percent` of a hundred did not wait longer than.
    fn share(&self, percent: u64) -> u64 {
        let wanted = self.count.saturating_mul(percent).div_ceil(100);
        let mut seen = 0_u64;
        for (part, count) in &self.fine {
            seen = seen.saturating_add(*count);
            if seen >= wanted {
                return part.saturating_mul(FINE_MS);
            }
        }
        0
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
