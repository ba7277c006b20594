//! The laws of scaling, over policies, facts and histories by chance.

use proptest::prelude::*;

use super::{
    AllocationMode, Decision, Demand, Holder, Limits, Memory, ScalingPolicy, Strategy as By, Want,
    decide, divide, victims,
};
use crate::time::Timestamp;

fn strategies() -> impl Strategy<Value = By> {
    prop::sample::select(By::ALL.to_vec())
}

fn policies() -> impl Strategy<Value = ScalingPolicy> {
    let times = (
        1_000..120_000_u64,
        0..60_000_u64,
        0..60_000_u64,
        0..400_000_u64,
    );
    let steps = (0..30_000_u64, 0..30_000_u64, 0..4_u32, 0..4_u32);
    (strategies(), times, steps).prop_map(|(strategy, times, steps)| ScalingPolicy {
        strategy,
        drain_target_ms: times.0,
        startup_time_ms: times.1,
        scale_up_window_ms: times.2,
        scale_down_window_ms: times.3,
        scale_up_cooldown_ms: steps.0,
        scale_down_cooldown_ms: steps.1,
        scale_up_step: steps.2,
        scale_down_step: steps.3,
        ..ScalingPolicy::default()
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    (0..10_u32, 0..60_u32, 0..200_u32).prop_map(|(min, more, lag_threshold)| Limits {
        min,
        max: min + more,
        lag_threshold,
    })
}

prop_compose! {
    /// Facts that a moment may have, `now` and `published` counted from the moment before.
    fn demands()(
        pause in 0..3_000_u64, arrived in 0..100_u64, waiting in 0..500_u64, leased in 0..80_u64,
        ready in 0..20_u64, acked in 0..1_000_u64, held_ms in 1..10_000_u64,
        consumers in 0..20_u32, leaving in 0..5_u32, concurrency in 1..4_u32,
    ) -> Demand {
        let draining = leaving.min(consumers);
        Demand {
            now: Timestamp(pause),
            published: arrived,
            waiting,
            leased,
            ready,
            later: 0,
            oldest_waiting_ms: waiting * 10,
            recent_acked: acked,
            recent_work_ms: acked * held_ms,
            recent_ms: 250_000,
            consumers,
            draining,
            slots: (consumers - draining) * concurrency,
        }
    }
}

/// Any facts at all, the largest numbers among them.
fn odd_demands() -> impl Strategy<Value = Demand> {
    let number = || prop_oneof![Just(0), Just(1), Just(u64::MAX), any::<u64>(), 0..1_000_u64];
    let few = || prop_oneof![Just(0), Just(u32::MAX), any::<u32>(), 0..50_u32];
    let counts = prop::array::uniform10(number());
    (counts, few(), few(), few()).prop_map(|(counts, consumers, draining, slots)| Demand {
        now: Timestamp(counts[0]),
        published: counts[1],
        waiting: counts[2],
        leased: counts[3],
        ready: counts[4],
        later: counts[5],
        oldest_waiting_ms: counts[6],
        recent_acked: counts[7],
        recent_work_ms: counts[8],
        recent_ms: counts[9],
        consumers,
        draining,
        slots,
    })
}

/// Decides through a history, and answers the last facts with the memory before them.
fn history(policy: &ScalingPolicy, limits: &Limits, steps: &[Demand]) -> (Demand, Memory) {
    let (mut memory, mut now, mut published) = (Memory::default(), 1_000_000, 0);
    let mut last = Demand::default();
    for (at, step) in steps.iter().enumerate() {
        now += step.now.as_millis();
        published += step.published;
        last = Demand {
            now: Timestamp(now),
            published,
            ..*step
        };
        if at + 1 < steps.len() {
            memory = decide(policy, limits, &last, &memory).memory;
        }
    }
    (last, memory)
}

fn busy(demand: &Demand) -> u32 {
    let staying = demand.consumers - demand.draining;
    let Some(capacity) = demand.slots.checked_div(staying) else {
        return 0;
    };
    let needed = demand.leased.div_ceil(capacity.max(1).into());
    u32::try_from(needed).unwrap_or(u32::MAX).min(staying)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_second_plan_at_the_same_moment_moves_nothing(
        policy in policies(), limits in limits(), steps in prop::collection::vec(demands(), 1..60),
    ) {
        let (demand, memory) = history(&policy, &limits, &steps);
        let first = decide(&policy, &limits, &demand, &memory);
        let second = decide(&policy, &limits, &demand, &first.memory);
        prop_assert_eq!(second.asked, first.asked);
        prop_assert_eq!(second.inputs, first.inputs);
        prop_assert_eq!(second.memory, first.memory);
    }

    #[test]
    fn more_waiting_never_means_fewer_asked(
        policy in policies(), limits in limits(), steps in prop::collection::vec(demands(), 1..60),
        more in 0..2_000_u64,
    ) {
        let (demand, memory) = history(&policy, &limits, &steps);
        let fewer = decide(&policy, &limits, &demand, &memory);
        let demand = Demand { waiting: demand.waiting + more, ..demand };
        let greater = decide(&policy, &limits, &demand, &memory);
        prop_assert!(greater.asked >= fewer.asked, "{} < {}", greater.asked, fewer.asked);
    }

    #[test]
    fn what_is_asked_keeps_to_the_bounds_and_to_what_is_in_flight(
        policy in policies(), limits in limits(), steps in prop::collection::vec(demands(), 1..60),
    ) {
        let (demand, memory) = history(&policy, &limits, &steps);
        let Decision { asked, reason, .. } = decide(&policy, &limits, &demand, &memory);
        prop_assert!(asked <= limits.max && asked >= limits.min, "{asked}");
        prop_assert!(asked >= busy(&demand).min(limits.max), "{asked}: {reason}");
        prop_assert!(!reason.is_empty());
    }

    #[test]
    fn hybrid_wishes_for_what_the_larger_of_both_does(
        policy in policies(), limits in limits(), steps in prop::collection::vec(demands(), 1..60),
    ) {
        let free = ScalingPolicy {
            scale_up_window_ms: 0, scale_down_window_ms: 0, scale_up_cooldown_ms: 0,
            scale_down_cooldown_ms: 0, scale_up_step: 0, scale_down_step: 0, ..policy
        };
        let (demand, memory) = history(&free, &limits, &steps);
        let wish = |strategy| {
            let policy = ScalingPolicy { strategy, ..free.clone() };
            super::plan::step(&policy, &limits, &demand, &mut memory.clone()).wish
        };
        let larger = wish(By::Reactive).max(wish(By::Predictive));
        prop_assert_eq!(wish(By::Hybrid), larger);
    }

    #[test]
    fn whatever_the_facts_are_there_is_an_answer_within_the_bounds(
        policy in policies(), min in any::<u32>(), max in any::<u32>(), lag in any::<u32>(),
        steps in prop::collection::vec(odd_demands(), 1..30),
    ) {
        let limits = Limits { min, max, lag_threshold: lag };
        let mut memory = Memory::default();
        for demand in steps {
            let decision = decide(&policy, &limits, &demand, &memory);
            prop_assert!(decision.asked <= max && decision.asked >= min.min(max));
            let text = serde_json::to_string(&decision.memory).unwrap();
            memory = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&memory, &decision.memory);
        }
    }

    #[test]
    fn a_ceiling_is_used_up_and_never_passed(
        ceiling in 0..120_u32, mode in modes(), wants in prop::collection::vec(wants(), 0..12),
    ) {
        let wants = named(wants);
        let grants = divide(mode, ceiling, &wants);
        prop_assert_eq!(grants.len(), wants.len());
        let asked: u32 = wants.iter().map(|want| want.asked).sum();
        let granted: u32 = grants.iter().map(|grant| grant.granted).sum();
        let top = if ceiling == 0 { asked } else { asked.min(ceiling) };
        prop_assert_eq!(granted, top);
        let minima: u32 = wants.iter().map(|want| want.min.min(want.asked)).sum();
        for (want, grant) in wants.iter().zip(&grants) {
            prop_assert_eq!(&want.group, &grant.group);
            prop_assert!(grant.granted <= want.asked);
            if ceiling == 0 || minima <= ceiling {
                prop_assert!(grant.granted >= want.min.min(want.asked));
            } else {
                prop_assert!(grant.granted <= want.min);
            }
            prop_assert_eq!(grant.reason.is_some(), grant.granted < want.asked);
            if let Some(reason) = &grant.reason {
                prop_assert!(reason.contains(&format!("ceiling of {ceiling}")), "{}", reason);
                prop_assert!(reason.contains(mode.as_str()), "{}", reason);
            }
        }
    }

    #[test]
    fn grants_do_not_depend_on_the_order_of_the_wants(
        ceiling in 0..120_u32, mode in modes(), wants in prop::collection::vec(wants(), 0..12),
    ) {
        let mut wants = named(wants);
        let mut grants = divide(mode, ceiling, &wants);
        wants.reverse();
        let mut reversed = divide(mode, ceiling, &wants);
        grants.sort_by(|a, b| a.group.cmp(&b.group));
        reversed.sort_by(|a, b| a.group.cmp(&b.group));
        prop_assert_eq!(grants, reversed);
    }

    #[test]
    fn nobody_who_stays_loses_less_than_one_who_goes(
        holders in prop::collection::vec(holders(), 0..20), count in 0..25_u32,
    ) {
        let mut holders: Vec<Holder> = holders
            .into_iter()
            .enumerate()
            .map(|(n, holder)| Holder { consumer: format!("c{n:02}"), ..holder })
            .collect();
        let gone = victims(&holders, count);
        let staying = holders.iter().filter(|one| !one.draining).count();
        prop_assert_eq!(gone.len(), staying.min(count as usize));
        let names: Vec<&str> = gone.iter().map(|one| one.consumer.as_str()).collect();
        for holder in &holders {
            let goes = names.contains(&holder.consumer.as_str());
            prop_assert!(!(goes && holder.draining));
            for other in holders.iter().filter(|other| goes && !other.draining) {
                let stays = !names.contains(&other.consumer.as_str());
                prop_assert!(!stays || loss(holder) <= loss(other));
            }
        }
        holders.reverse();
        prop_assert_eq!(victims(&holders, count), gone);
    }
}

fn loss(holder: &Holder) -> (bool, u32, u32) {
    (holder.held > 0, holder.begun, holder.held)
}

fn modes() -> impl Strategy<Value = AllocationMode> {
    prop::sample::select(AllocationMode::ALL.to_vec())
}

prop_compose! {
    fn wants()(
        min in 0..8_u32, asked in 0..40_u32, weight in 0..1_000_u32, backlog in any::<u64>(),
        small in 0..500_u64, is_small in any::<bool>(), trend_milli in any::<i64>(),
        success_permille in 0..=1_000_u32, service_ms in prop::option::of(0..100_000_u64),
    ) -> Want {
        Want {
            group: String::new(),
            min,
            asked,
            weight,
            backlog: if is_small { small } else { backlog },
            trend_milli: if is_small { 0 } else { trend_milli },
            success_permille,
            service_ms,
        }
    }
}

fn named(wants: Vec<Want>) -> Vec<Want> {
    let named = wants.into_iter().enumerate();
    named
        .map(|(n, want)| Want {
            group: format!("default/g{n:02}"),
            ..want
        })
        .collect()
}

prop_compose! {
    fn holders()(
        held in 0..4_u32, begun in 0..4_u32, idle_ms in 0..9_000_u64, draining in any::<bool>(),
    ) -> Holder {
        Holder { consumer: String::new(), held, begun: begun.min(held), idle_ms, draining }
    }
}

/// A world without chance: consumers are there when asked for, and work like water flows.
struct Water {
    policy: ScalingPolicy,
    limits: Limits,
    service_ms: u64,
    concurrency: u32,
    memory: Memory,
    now: u64,
    published: u64,
    /// Thousandths of messages that wait.
    waiting_milli: u64,
    asked: u32,
}

impl Water {
    fn new(strategy: By, service_ms: u64, concurrency: u32) -> Self {
        Self {
            policy: ScalingPolicy {
                strategy,
                ..ScalingPolicy::default()
            },
            limits: Limits {
                min: 0,
                max: 200,
                lag_threshold: 100,
            },
            service_ms,
            concurrency,
            memory: Memory::default(),
            now: 1_000_000,
            published: 0,
            waiting_milli: 0,
            asked: 1,
        }
    }

    fn demand(&self, arrived: u64) -> Demand {
        let slots = u64::from(self.asked * self.concurrency);
        let wanted = arrived * self.service_ms / 1_000;
        let acked = 300 * wanted.min(slots).max(1) * 1_000 / self.service_ms;
        Demand {
            now: Timestamp(self.now),
            published: self.published,
            waiting: self.waiting_milli / 1_000,
            leased: wanted.min(slots),
            recent_acked: acked,
            recent_work_ms: acked * self.service_ms,
            recent_ms: 300_000,
            consumers: self.asked,
            slots: self.asked * self.concurrency,
            ..Demand::default()
        }
    }

    /// A second in which so many arrive; answers what is asked for after it.
    fn second(&mut self, arrived: u64) -> u32 {
        self.now += 1_000;
        self.published += arrived;
        let slots = u64::from(self.asked * self.concurrency);
        let done_milli = slots * 1_000_000 / self.service_ms;
        self.waiting_milli = (self.waiting_milli + arrived * 1_000).saturating_sub(done_milli);
        let demand = self.demand(arrived);
        let decision = decide(&self.policy, &self.limits, &demand, &self.memory);
        self.memory = decision.memory;
        self.asked = decision.asked;
        self.asked
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_steady_load_settles_and_nothing_changes_any_more(
        strategy in strategies(), rates in prop::collection::vec(0..30_u64, 1..6),
        service_ms in 100..4_000_u64, concurrency in 1..4_u32,
    ) {
        // A rate with a fraction is a short row of counts.
        let mut water = Water::new(strategy, service_ms, concurrency);
        let load = |second: usize| rates[second % rates.len()];
        for second in 0..1_200 {
            water.second(load(second));
        }
        let settled = water.asked;
        for second in 1_200..2_400 {
            prop_assert_eq!(water.second(load(second)), settled, "at {} s", second);
        }
    }

    #[test]
    fn a_sawtooth_shorter_than_the_window_settles_too(
        strategy in strategies(), low in 0..10_u64, height in 1..30_u64, period in 10..200_u64,
        service_ms in 100..4_000_u64, concurrency in 1..4_u32,
    ) {
        let mut water = Water::new(strategy, service_ms, concurrency);
        let load = |second: u64| low + height * (second % period) / period;
        for second in 0..1_800 {
            water.second(load(second));
        }
        let settled = water.asked;
        for second in 1_800..3_000 {
            prop_assert_eq!(water.second(load(second)), settled, "at {} s", second);
        }
    }

    #[test]
    fn a_clock_that_goes_back_or_leaps_over_a_minute_moves_nothing(
        strategy in strategies(), rate in 0..30_u64, service_ms in 100..4_000_u64,
        step in 60_001..10_000_000_000_u64, is_back in any::<bool>(),
    ) {
        let mut water = Water::new(strategy, service_ms, 2);
        for _ in 0..900 {
            water.second(rate);
        }
        let settled = water.asked;
        water.now = if is_back {
            water.now.saturating_sub(step)
        } else {
            water.now + step
        };
        for second in 0..600 {
            prop_assert_eq!(water.second(rate), settled, "{} s after", second);
        }
    }
}

#[test]
fn a_memory_stays_under_16_kib_and_survives_being_written() {
    let policy = ScalingPolicy {
        scale_up_window_ms: 3_600_000,
        scale_down_window_ms: 3_600_000,
        ..ScalingPolicy::default()
    };
    let limits = Limits {
        min: 0,
        max: u32::MAX,
        lag_threshold: 1,
    };
    let (mut memory, mut published, mut longest) = (Memory::default(), 0, 0);
    for call in 0..6_000_u64 {
        // Wishes that rise and fall, so that each part of a window has an extreme of its own.
        let waiting = 4_000_000_000 - call * 7 % 1_000;
        published += 3_000_000_000 + call % 97;
        let demand = Demand {
            now: Timestamp(1_800_000_000_000 + call * 45_000),
            published,
            waiting,
            recent_acked: 1,
            recent_work_ms: 1_000,
            recent_ms: 300_000,
            consumers: 7,
            slots: 14,
            ..Demand::default()
        };
        memory = decide(&policy, &limits, &demand, &memory).memory;
        let text = serde_json::to_string(&memory).unwrap();
        longest = longest.max(text.len());
        let read: Memory = serde_json::from_str(&text).unwrap();
        assert_eq!(read, memory);
    }
    assert!(longest <= 16 * 1_024, "{longest} bytes");
}
