//! Filters, bounds, rates and canaries of replays.

use proptest::prelude::*;

use super::{
    Budget, Canary, Facts, Filter, LIMIT_MAX, LoopGuard, Next, Options, PRIORITY_MAX, guard,
    priority,
};
use crate::{
    dead_letter::{Category, Status},
    time::Timestamp,
};

fn facts() -> Facts<'static> {
    Facts {
        category: Category::Timeout,
        group: "builders",
        stream: "work",
        status: Status::Analyzed,
        fingerprint: "0123456789abcdef",
        message_type: "build",
        workflow_id: "w",
        error_type: "ReadTimeout",
        at_ms: 1_000,
    }
}

proptest! {
    #[test]
    fn a_priority_is_raised_and_never_lowered(original: u8, boost: u8) {
        let raised = priority(original, boost);
        prop_assert!(raised >= original);
        prop_assert!(raised <= PRIORITY_MAX.max(original));
    }

    #[test]
    fn a_budget_never_gives_more_than_its_rate_and_one_second_saved(
        rate in 1..1_000_u32, pauses in proptest::collection::vec(0..3_000_u64, 1..50)
    ) {
        let (mut budget, mut now, mut sent) = (Budget::new(Timestamp(0)), 0, 0);
        for pause in pauses {
            now = u64::saturating_add(now, pause);
            budget.fill(rate, Timestamp(now));
            let messages = budget.messages(rate);
            budget.take(messages);
            sent = u64::saturating_add(sent, messages);
            prop_assert!(sent.saturating_mul(1_000) <= u64::from(rate).saturating_mul(now));
            prop_assert!(messages <= u64::from(rate));
        }
    }

    #[test]
    fn after_the_time_of_one_a_budget_has_a_message(rate in 1..5_000_u32, start in 0..10_u64) {
        let mut budget = Budget::new(Timestamp(0));
        budget.fill(rate, Timestamp(start));
        budget.take(budget.messages(rate));
        let wait_ms = 1_000_u64.div_ceil(u64::from(rate));
        budget.fill(rate, Timestamp(start).plus(wait_ms));
        prop_assert!(budget.messages(rate) >= 1);
    }

    #[test]
    fn a_canary_goes_on_only_when_all_that_went_succeeded(
        wanted in 0..5_u32, sent in 0..5_u32, succeeded in 0..5_u32, failed in 0..2_u32,
        is_exhausted: bool
    ) {
        let canary = Canary { wanted, sent, succeeded, failed };
        if canary.next(is_exhausted) == Next::GoOn {
            prop_assert_eq!(failed, 0);
            prop_assert!(succeeded >= sent);
            prop_assert!(sent >= wanted || is_exhausted);
        }
    }
}

#[test]
fn an_empty_filter_matches_what_is_open_to_a_replay() {
    for status in &Status::ALL {
        let facts = Facts {
            status: *status,
            ..facts()
        };
        assert_eq!(
            Filter::default().matches(&facts),
            status.is_open_to_replay(),
            "{status}"
        );
    }
}

#[test]
fn each_field_of_a_filter_excludes() {
    let empty = Filter::default;
    let other = || "other".to_owned();
    let filters = [
        Filter {
            category: Some(Category::Unknown),
            ..empty()
        },
        Filter {
            group: other(),
            ..empty()
        },
        Filter {
            stream: other(),
            ..empty()
        },
        Filter {
            status: vec![Status::Replayed],
            ..empty()
        },
        Filter {
            fingerprint: other(),
            ..empty()
        },
        Filter {
            message_type: other(),
            ..empty()
        },
        Filter {
            workflow_id: other(),
            ..empty()
        },
        Filter {
            error_type: other(),
            ..empty()
        },
        Filter {
            from_ms: 1_001,
            ..empty()
        },
        Filter {
            to_ms: 1_000,
            ..empty()
        },
    ];
    for filter in filters {
        assert!(!filter.matches(&facts()), "{filter:?}");
    }
    let all = Filter {
        category: Some(Category::Timeout),
        group: "builders".to_owned(),
        stream: "work".to_owned(),
        status: vec![Status::Analyzed],
        fingerprint: "0123456789abcdef".to_owned(),
        message_type: "build".to_owned(),
        workflow_id: "w".to_owned(),
        error_type: "ReadTimeout".to_owned(),
        from_ms: 1_000,
        to_ms: 1_001,
    };
    assert!(all.matches(&facts()));
    assert_eq!(all.validate(), Ok(()));
}

#[test]
fn a_filter_is_refused_with_each_field_at_fault() {
    let filter = Filter {
        group: "g".repeat(257),
        from_ms: 5,
        to_ms: 5,
        ..Filter::default()
    };
    let faults = filter.validate().unwrap_err();
    let fields: Vec<&str> = faults.as_slice().iter().map(|v| v.field.as_str()).collect();
    assert_eq!(fields, ["group", "to_ms"]);
}

#[test]
fn options_are_refused_with_each_field_at_fault() {
    assert_eq!(Options::default().validate(), Ok(()));
    let options = Options {
        limit: LIMIT_MAX + 1,
        rate: 10_001,
        canary: 101,
        target_group: "a b".to_owned(),
        target_stream: "~".to_owned(),
        priority_boost: 10,
        force: false,
    };
    assert_eq!(options.validate().unwrap_err().len(), 6);
    let canary = |limit, canary| {
        Options {
            limit,
            canary,
            ..Options::default()
        }
        .validate()
    };
    assert_eq!(
        canary(5, 5).unwrap_err().to_string(),
        "canary: `5` must be less than the limit 5"
    );
    assert_eq!(canary(5, 4), Ok(()));
    assert_eq!(canary(0, 100), Ok(()));
}

#[test]
fn the_fourth_replay_of_the_same_failure_is_refused_unless_forced() {
    assert_eq!(guard(2, false), Ok(()));
    assert_eq!(guard(3, false), Err(LoopGuard { replays: 3 }));
    assert_eq!(guard(3, true), Ok(()));
}

#[test]
fn without_a_rate_nothing_waits() {
    let budget = Budget::new(Timestamp(0));
    assert_eq!(budget.messages(0), u64::MAX);
    assert_eq!(budget.messages(10), 0);
}

#[test]
fn a_canary_sends_waits_and_then_goes_on_or_stops() {
    let canary = |sent, succeeded, failed| Canary {
        wanted: 3,
        sent,
        succeeded,
        failed,
    };
    assert_eq!(canary(0, 0, 0).next(false), Next::Send(3));
    assert_eq!(canary(1, 1, 0).next(false), Next::Send(2));
    assert_eq!(canary(1, 0, 0).next(true), Next::Wait);
    assert_eq!(canary(3, 2, 0).next(false), Next::Wait);
    assert_eq!(canary(3, 3, 0).next(false), Next::GoOn);
    assert_eq!(
        canary(3, 1, 1).next(false),
        Next::Stop {
            why: "1 of 3 messages that went ahead failed".to_owned()
        }
    );
    assert_eq!(Canary::default().next(false), Next::GoOn);
}
