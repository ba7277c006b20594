//! Cases of scaling, told one by one.

use super::{
    AllocationMode, Decision, Demand, Holder, Limits, Memory, ScalingPolicy, Strategy, Want,
    decide, divide, victims,
};
use crate::time::Timestamp;

const LIMITS: Limits = Limits {
    min: 0,
    max: 50,
    lag_threshold: 100,
};

fn policy(strategy: Strategy) -> ScalingPolicy {
    ScalingPolicy {
        strategy,
        ..ScalingPolicy::default()
    }
}

/// Two consumers with two slots each, and work of 2 s a message.
fn facts() -> Demand {
    Demand {
        now: Timestamp(1_000),
        recent_acked: 300,
        recent_work_ms: 600_000,
        recent_ms: 300_000,
        consumers: 2,
        slots: 4,
        ..Demand::default()
    }
}

/// Decides once a second on what `at` makes of the seconds passed, and answers the last decision.
fn over(policy: &ScalingPolicy, seconds: u64, at: impl Fn(u64) -> Demand) -> Decision {
    let mut decision = decide(policy, &LIMITS, &at(0), &Memory::default());
    for second in 1..=seconds {
        decision = decide(policy, &LIMITS, &at(second), &decision.memory);
    }
    decision
}

fn after(second: u64, facts: &Demand) -> Demand {
    Demand {
        now: Timestamp(1_000 + second * 1_000),
        ..*facts
    }
}

#[test]
fn a_backlog_is_cleared_within_the_drain_target_and_the_reason_names_the_numbers() {
    let demand = Demand {
        waiting: 120,
        ..facts()
    };
    let decision = decide(
        &policy(Strategy::Reactive),
        &LIMITS,
        &demand,
        &Memory::default(),
    );
    assert_eq!(decision.asked, 12);
    assert_eq!(
        decision.reason,
        "120 waiting at 2.0 s each for 2 slots per consumer: 12 consumers clear them in 10 s"
    );
    assert_eq!(decision.inputs.service_ms, Some(2_000));
    assert_eq!(decision.inputs.capacity_milli, 2_000);
}

#[test]
fn arrivals_need_what_works_on_them_at_a_time() {
    let steady = |second| Demand {
        published: second * 6,
        leased: 4,
        ..after(second, &facts())
    };
    let decision = over(&policy(Strategy::Reactive), 60, steady);
    assert_eq!(decision.asked, 6);
    assert_eq!(decision.inputs.arrivals_milli, 6_000);
    assert_eq!(
        decision.reason,
        "6 arrive a second at 2.0 s each for 2 slots per consumer: 6 consumers keep up"
    );
}

#[test]
fn while_no_service_time_is_known_the_lag_alone_decides() {
    for strategy in Strategy::ALL {
        let rows = [(0, 0), (1, 1), (100, 1), (101, 2), (250, 3), (9_999, 50)];
        for (waiting, asked) in rows {
            let demand = Demand {
                now: Timestamp(1_000),
                waiting,
                ..Demand::default()
            };
            let decision = decide(&policy(strategy), &LIMITS, &demand, &Memory::default());
            assert_eq!(decision.asked, asked, "{strategy}: {}", decision.reason);
            assert_eq!(decision.inputs.service_ms, None);
        }
    }
}

#[test]
fn a_message_to_be_delivered_again_wakes_a_group_without_a_consumer() {
    let demand = Demand {
        ready: 1,
        ..Demand::default()
    };
    let decision = decide(
        &policy(Strategy::Hybrid),
        &LIMITS,
        &demand,
        &Memory::default(),
    );
    assert_eq!(decision.asked, 1);
    assert_eq!(decision.reason, "1 to deliver: 1 consumer at least");
}

#[test]
fn the_reason_says_which_bound_decided() {
    let limits = Limits {
        min: 3,
        max: 8,
        ..LIMITS
    };
    let demand = Demand {
        waiting: 120,
        ..facts()
    };
    let most = decide(
        &policy(Strategy::Hybrid),
        &limits,
        &demand,
        &Memory::default(),
    );
    assert_eq!(most.asked, 8);
    assert!(
        most.reason.ends_with("; at most 8 are allowed"),
        "{}",
        most.reason
    );
    let least = decide(
        &policy(Strategy::Hybrid),
        &limits,
        &facts(),
        &Memory::default(),
    );
    assert_eq!(least.asked, 3);
    assert_eq!(
        least.reason,
        "nothing to do and nothing expected: no consumer is wanted; at least 3 are kept"
    );
}

#[test]
fn delayed_and_parked_messages_want_nobody() {
    let demand = Demand {
        later: 1_000,
        ..Demand::default()
    };
    let decision = decide(
        &policy(Strategy::Hybrid),
        &LIMITS,
        &demand,
        &Memory::default(),
    );
    assert_eq!(decision.asked, 0);
}

#[test]
fn time_that_a_message_waits_in_an_agent_is_no_time_of_work() {
    // Four slots that hold 40 at a time: each message is held ten times as long as it takes.
    let demand = Demand {
        leased: 40,
        recent_acked: 600,
        recent_work_ms: 12_000_000,
        ..facts()
    };
    let decision = decide(
        &policy(Strategy::Reactive),
        &LIMITS,
        &demand,
        &Memory::default(),
    );
    assert_eq!(decision.inputs.service_ms, Some(2_000));
    // 36 are held and not begun: 36 x 2 s / 10 s / 2 slots.
    assert_eq!(decision.asked, 4);
}

#[test]
fn fewer_are_asked_for_once_that_held_through_the_window() {
    let policy = policy(Strategy::Hybrid);
    let quiet = |second| after(second, &facts());
    let before = over(&policy, 299, quiet);
    assert_eq!(before.asked, 2);
    assert!(
        before.reason.contains("the last 300 s"),
        "{}",
        before.reason
    );
    assert_eq!(over(&policy, 330, quiet).asked, 0);
}

#[test]
fn a_busy_group_without_lag_is_not_scaled_down_under_its_consumers() {
    let busy = |second| Demand {
        leased: 3,
        recent_acked: 0,
        ..after(second, &facts())
    };
    let decision = over(&policy(Strategy::Hybrid), 2_000, busy);
    assert_eq!(decision.asked, 2);
    assert_eq!(
        decision.reason,
        "3 in flight for 2 slots per consumer: 2 consumers are busy"
    );
}

#[test]
fn steps_are_no_larger_and_no_closer_than_the_policy_says() {
    let policy = ScalingPolicy {
        scale_up_step: 3,
        scale_up_cooldown_ms: 10_000,
        ..policy(Strategy::Reactive)
    };
    let demand = Demand {
        waiting: 120,
        ..facts()
    };
    let asked = [0, 9, 10, 19, 20].map(|second| {
        let decision = over(&policy, second, |second| after(second, &demand));
        (decision.asked, decision.reason)
    });
    let counts = asked.clone().map(|(asked, _)| asked);
    assert_eq!(counts, [5, 5, 8, 8, 11]);
    let [step, pause, ..] = asked.map(|(_, reason)| reason);
    assert!(step.ends_with("; a step of 3 from 2 to 5"), "{step}");
    assert!(
        pause.ends_with("; stays 5 for another 1.0 s, the pause between steps"),
        "{pause}"
    );
}

#[test]
fn more_are_asked_for_once_that_held_through_the_window_up() {
    let policy = ScalingPolicy {
        scale_up_window_ms: 30_000,
        ..policy(Strategy::Reactive)
    };
    let blip = |second: u64| Demand {
        waiting: if second == 20 { 0 } else { 120 },
        ..after(second, &facts())
    };
    assert_eq!(over(&policy, 29, blip).asked, 2);
    assert_eq!(over(&policy, 45, blip).asked, 2);
    assert_eq!(over(&policy, 55, blip).asked, 12);
}

#[test]
fn a_rise_is_forecast_and_a_counter_that_went_back_is_not() {
    let rising = |second: u64| Demand {
        published: second * second / 4,
        ..after(second, &facts())
    };
    let decision = over(&policy(Strategy::Predictive), 60, rising);
    let (now, then) = (
        decision.inputs.arrivals_milli,
        decision.inputs.forecast_milli,
    );
    assert!(then > now + 1_500, "{now} {then}");
    let reset = Demand {
        published: 0,
        ..after(61, &facts())
    };
    let decision = decide(
        &policy(Strategy::Predictive),
        &LIMITS,
        &reset,
        &decision.memory,
    );
    assert_eq!(decision.inputs.arrivals_milli, now);
    assert_eq!(decision.inputs.forecast_milli, then);
}

#[test]
fn after_two_days_the_morning_is_expected_before_it_comes() {
    // 30 a second from 9 to 17, else 1; a call every 30 s.
    let policy = policy(Strategy::Predictive);
    let (mut memory, mut published) = (Memory::default(), 0);
    let mut seen = Vec::new();
    for call in 0..3 * 2_880_u64 {
        let hour = call % 2_880 / 120;
        published += if (9..17).contains(&hour) { 900 } else { 30 };
        let demand = Demand {
            now: Timestamp(1_800_000_000_000 / 86_400_000 * 86_400_000 + call * 30_000),
            published,
            ..facts()
        };
        let decision = decide(&policy, &LIMITS, &demand, &memory);
        memory = decision.memory;
        // A minute before nine of each day.
        if call % 2_880 == 9 * 120 - 2 {
            seen.push(decision.inputs.forecast_milli);
        }
    }
    assert!(seen[0] < 2_000, "{seen:?}");
    assert!(seen[2] > 10_000, "{seen:?}");
}

fn want(group: &str, min: u32, asked: u32) -> Want {
    Want {
        group: group.to_owned(),
        min,
        asked,
        weight: 100,
        backlog: 0,
        trend_milli: 0,
        success_permille: 1_000,
        service_ms: None,
    }
}

fn granted(mode: AllocationMode, ceiling: u32, wants: &[Want]) -> Vec<u32> {
    let grants = divide(mode, ceiling, wants);
    grants.iter().map(|grant| grant.granted).collect()
}

#[test]
fn each_mode_divides_by_its_own_share() {
    let mut wants = vec![want("n/a", 0, 30), want("n/b", 0, 30)];
    (wants[0].weight, wants[1].weight) = (100, 300);
    (wants[0].backlog, wants[1].backlog) = (90, 10);
    (wants[0].service_ms, wants[1].service_ms) = (Some(1_000), Some(4_000));
    assert_eq!(granted(AllocationMode::Equal, 20, &wants), [10, 10]);
    assert_eq!(granted(AllocationMode::Weighted, 20, &wants), [5, 15]);
    assert_eq!(granted(AllocationMode::Adaptive, 20, &wants), [18, 2]);
    assert_eq!(
        granted(AllocationMode::PerformanceBased, 20, &wants),
        [16, 4]
    );
    wants[0].success_permille = 250;
    assert_eq!(
        granted(AllocationMode::PerformanceBased, 20, &wants),
        [10, 10]
    );
    wants[1].trend_milli = 3_000;
    assert_eq!(granted(AllocationMode::Adaptive, 20, &wants), [6, 14]);
}

#[test]
fn minima_come_first_and_where_they_do_not_fit_that_is_said() {
    let wants = [want("n/a", 6, 6), want("n/b", 1, 30)];
    assert_eq!(granted(AllocationMode::Equal, 10, &wants), [6, 4]);
    let wants = [want("n/b", 6, 9), want("n/a", 6, 9)];
    let grants = divide(AllocationMode::Adaptive, 9, &wants);
    assert_eq!(grants[0].granted, 4);
    assert_eq!(grants[1].granted, 5);
    assert_eq!(
        grants[0].reason.as_deref(),
        Some(
            "4 of 9: even the minima of 12 consumers are over the ceiling of 9, \
             which is divided by backlog and trend (`adaptive`)"
        )
    );
}

fn holder(consumer: &str, held: u32, begun: u32, idle_ms: u64) -> Holder {
    Holder {
        consumer: consumer.to_owned(),
        held,
        begun,
        idle_ms,
        draining: false,
    }
}

#[test]
fn who_holds_nothing_goes_first_then_who_has_begun_least() {
    let mut holders = vec![
        holder("busy", 3, 2, 0),
        holder("fresh", 0, 0, 1_000),
        holder("full", 9, 1, 0),
        holder("idle", 0, 0, 60_000),
        holder("light", 2, 1, 0),
        holder("gone", 0, 0, 90_000),
    ];
    holders[5].draining = true;
    let all = victims(&holders, 9);
    let names: Vec<&str> = all.iter().map(|one| one.consumer.as_str()).collect();
    assert_eq!(names, ["idle", "fresh", "light", "full", "busy"]);
    assert_eq!(
        all[0].reason,
        "holds nothing, idle for 60 s; loses least of 5"
    );
    assert_eq!(
        all[3].reason,
        "works on 1 and gives 8 back; loses least of 5"
    );
}
