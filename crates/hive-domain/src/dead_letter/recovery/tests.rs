//! Bounds, waits and words of recovery.

use proptest::prelude::*;

use super::{Policy, Recovery, Strategy as Way, decide};
use crate::{dead_letter::Category, time::Timestamp};

const NOW: Timestamp = Timestamp(1_000);

fn categories() -> impl Strategy<Value = Category> {
    proptest::sample::select(Category::ALL.to_vec())
}

fn ways() -> impl Strategy<Value = Way> {
    proptest::sample::select(Way::ALL.to_vec())
}

proptest! {
    #[test]
    fn only_what_passes_by_itself_goes_back_by_itself_and_within_its_bounds(
        category in categories(), way in ways(), is_task: bool, replays in 0..6_u32, entropy: u64
    ) {
        let mut policy = Policy::default();
        policy.strategies.insert(category, way);
        match decide(category, is_task, replays, &policy, (NOW, entropy)) {
            Recovery::At { due, strategy, raises_priority } => {
                prop_assert!(category.is_transient());
                prop_assert!(strategy.is_automatic());
                prop_assert!(replays < policy.max_auto_replays);
                prop_assert!(due >= NOW && due.since(NOW) <= policy.max_ms);
                prop_assert_eq!(raises_priority, strategy == Way::RequeueWithPriority);
            },
            Recovery::Person { strategy, why } => {
                prop_assert!(!strategy.is_automatic());
                prop_assert!(is_task || !strategy.is_for_tasks());
                prop_assert!(!why.is_empty());
            },
        }
    }

    #[test]
    fn a_valid_policy_is_one_whose_automatic_strategies_are_for_transient_failures(
        category in categories(), way in ways()
    ) {
        let mut policy = Policy::default();
        policy.strategies.insert(category, way);
        let is_legal = category.is_transient() || !way.is_automatic();
        prop_assert_eq!(policy.validate().is_ok(), is_legal);
    }

    #[test]
    fn odd_policies_are_answered(
        replays: u32, max_auto_replays: u32, initial_ms: u64, max_ms: u64, entropy: u64
    ) {
        let policy = Policy { max_auto_replays, initial_ms, max_ms, ..Policy::default() };
        let answer = decide(Category::Timeout, false, replays, &policy, (NOW, entropy));
        prop_assert_eq!(
            matches!(answer, Recovery::At { .. }), replays < max_auto_replays
        );
    }
}

fn wait(category: Category, replays: u32, entropy: u64) -> u64 {
    match decide(category, false, replays, &Policy::default(), (NOW, entropy)) {
        Recovery::At { due, .. } => due.since(NOW),
        Recovery::Person { why, .. } => panic!("left to a person: {why}"),
    }
}

#[test]
fn the_wait_doubles_and_lies_between_half_of_it_and_all() {
    assert_eq!(wait(Category::Timeout, 0, 0), 15_000);
    assert_eq!(wait(Category::Timeout, 0, 15_000), 30_000);
    assert_eq!(wait(Category::Timeout, 1, 0), 30_000);
    assert_eq!(wait(Category::Timeout, 2, 0), 60_000);
}

#[test]
fn a_limited_rate_is_tried_later_than_other_failures() {
    assert_eq!(wait(Category::RateLimited, 0, 0), 60_000);
}

#[test]
fn the_fourth_failure_in_a_life_is_left_to_a_person() {
    let answer = decide(Category::Timeout, false, 3, &Policy::default(), (NOW, 0));
    assert_eq!(
        answer,
        Recovery::Person {
            strategy: Way::ManualIntervention,
            why: "it was sent back by itself 3 times of 3".to_owned(),
        }
    );
}

#[test]
fn what_is_for_tasks_is_recommended_for_tasks_alone() {
    let mut policy = Policy::default();
    policy
        .strategies
        .insert(Category::ParsingError, Way::SkipAndContinue);
    let strategy = |is_task| match decide(Category::ParsingError, is_task, 0, &policy, (NOW, 0)) {
        Recovery::Person { strategy, .. } => strategy,
        Recovery::At { .. } => panic!("it went back"),
    };
    assert_eq!(strategy(true), Way::SkipAndContinue);
    assert_eq!(strategy(false), Way::ManualIntervention);
}

#[test]
fn an_immediate_retry_is_due_now() {
    let mut policy = Policy::default();
    policy
        .strategies
        .insert(Category::Timeout, Way::ImmediateRetry);
    let answer = decide(Category::Timeout, false, 0, &policy, (NOW, 7));
    assert!(matches!(answer, Recovery::At { due: NOW, .. }));
}

#[test]
fn the_defaults_are_valid_and_each_field_at_fault_is_named() {
    assert_eq!(Policy::default().validate(), Ok(()));
    let mut policy = Policy {
        max_auto_replays: 101,
        initial_ms: 3_600_001,
        max_ms: 1,
        batch: 0,
        ..Policy::default()
    };
    policy
        .strategies
        .insert(Category::Unknown, Way::DelayedRetry);
    let faults = policy.validate().unwrap_err();
    let fields: Vec<&str> = faults.as_slice().iter().map(|v| v.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "strategies.unknown",
            "max_auto_replays",
            "initial_ms",
            "max_ms",
            "batch"
        ]
    );
}
