//! When a breaker opens, and how it closes again.

use proptest::prelude::*;

use super::{Breaker, Change, Settings, State, Window};
use crate::time::Timestamp;

fn window(acked: u64, failed_deliveries: u64, dead: u64, top_fingerprint: u64) -> Window {
    Window {
        acked,
        failed_deliveries,
        dead,
        top_fingerprint,
        span_ms: 300_000,
    }
}

fn opened(now: Timestamp) -> Breaker {
    let mut breaker = Breaker::default();
    let change = breaker.observe(&window(0, 20, 10, 1), &Settings::default(), now);
    assert!(matches!(change, Some(Change::Opened { .. })));
    breaker
}

#[derive(Debug, Clone)]
enum Step {
    Observe(Window),
    Probe(String),
    Outcome(String, bool),
}

fn steps() -> impl Strategy<Value = Vec<(Step, u64)>> {
    let counts = (0..40_u64, 0..40_u64, 0..20_u64, 0..20_u64);
    let step = prop_oneof![
        counts.prop_map(|(a, f, d, t)| Step::Observe(window(a, f, d, t.min(d)))),
        "[a-c]".prop_map(Step::Probe),
        ("[a-c]", any::<bool>()).prop_map(|(id, good)| Step::Outcome(id, good)),
    ];
    proptest::collection::vec((step, 0..120_000_u64), 0..60)
}

proptest! {
    #[test]
    fn only_a_success_of_the_one_probe_closes_it(steps in steps()) {
        let (settings, mut breaker, mut now) = (Settings::default(), Breaker::default(), 0);
        let mut probe: Option<String> = None;
        for (step, pause) in steps {
            now = u64::saturating_add(now, pause);
            let (before, at) = (breaker.clone(), Timestamp(now));
            match &step {
                Step::Observe(window) => {
                    let change = breaker.observe(window, &settings, at);
                    prop_assert_eq!(change.is_some(), before != breaker);
                    prop_assert!(!breaker.admits() || before.admits());
                },
                Step::Probe(id) => {
                    let is_probe = breaker.probe(id, at);
                    prop_assert!(!is_probe || probe.is_none(), "two probes at once");
                    prop_assert_eq!(breaker.admits(), before.admits());
                    if is_probe {
                        probe = Some(id.clone());
                    }
                },
                Step::Outcome(id, succeeded) => {
                    let change = breaker.outcome(id, *succeeded, &settings, at);
                    let is_of_probe = probe.as_ref() == Some(id);
                    prop_assert_eq!(change.is_some(), is_of_probe);
                    prop_assert_eq!(
                        breaker.admits(), before.admits() || (is_of_probe && *succeeded)
                    );
                },
            }
            if !matches!(breaker.state, State::HalfOpen { .. }) {
                probe = None;
            }
            if let State::Open { until, opened_at, .. } = &breaker.state {
                prop_assert!(*opened_at <= at);
                prop_assert!(until.since(at) <= settings.open_ms_max);
            }
        }
    }

    #[test]
    fn it_is_read_back_as_it_was_written(steps in steps()) {
        let (settings, mut breaker, mut now) = (Settings::default(), Breaker::default(), 0);
        for (step, pause) in steps {
            now = u64::saturating_add(now, pause);
            let at = Timestamp(now);
            match step {
                Step::Observe(window) => drop(breaker.observe(&window, &settings, at)),
                Step::Probe(id) => {
                    breaker.probe(&id, at);
                },
                Step::Outcome(id, good) => drop(breaker.outcome(&id, good, &settings, at)),
            }
            let json = serde_json::to_string(&breaker).unwrap();
            prop_assert_eq!(serde_json::from_str::<Breaker>(&json).unwrap(), breaker.clone());
        }
    }
}

#[test]
fn few_dead_letters_open_nothing() {
    let mut breaker = Breaker::default();
    let change = breaker.observe(&window(0, 99, 9, 9), &Settings::default(), Timestamp(0));
    assert_eq!(change, None);
    assert!(breaker.admits());
}

#[test]
fn it_opens_when_most_deliveries_fail() {
    let mut breaker = Breaker::default();
    let change = breaker.observe(&window(40, 40, 10, 1), &Settings::default(), Timestamp(5));
    assert_eq!(
        change,
        Some(Change::Opened {
            reason: "40 of 80 deliveries failed in the last 5 minutes, and 10 messages died".into(),
            until: Timestamp(60_005),
        })
    );
    assert!(!breaker.admits());
}

#[test]
fn one_fault_opens_it_only_where_enough_deliveries_fail() {
    let settings = Settings::default();
    let mut breaker = Breaker::default();
    assert_eq!(
        breaker.observe(&window(81, 19, 10, 10), &settings, Timestamp(0)),
        None
    );
    assert_eq!(
        breaker.observe(&window(80, 20, 10, 7), &settings, Timestamp(0)),
        None
    );
    assert!(
        breaker
            .observe(&window(80, 20, 10, 8), &settings, Timestamp(0))
            .is_some()
    );
}

#[test]
fn a_probe_waits_for_its_time_and_each_failure_doubles_it_up_to_the_longest() {
    let settings = Settings::default();
    let mut breaker = opened(Timestamp(0));
    assert!(!breaker.probe("a", Timestamp(59_999)));
    let mut now = 60_000;
    let mut waits = Vec::new();
    for _ in 0..6 {
        assert!(breaker.probe("a", Timestamp(now)));
        assert!(!breaker.probe("b", Timestamp(now)));
        assert!(
            breaker
                .outcome("a", false, &settings, Timestamp(now))
                .is_some()
        );
        let until = breaker.deadline(&settings).unwrap();
        waits.push(until.since(Timestamp(now)));
        now = until.as_millis();
    }
    assert_eq!(
        waits,
        [120_000, 240_000, 480_000, 960_000, 1_800_000, 1_800_000]
    );
}

#[test]
fn a_probe_that_nobody_hears_of_counts_as_failed() {
    let settings = Settings::default();
    let mut breaker = opened(Timestamp(0));
    assert!(breaker.probe("a", Timestamp(60_000)));
    let nothing = Window::default();
    assert_eq!(
        breaker.observe(&nothing, &settings, Timestamp(659_999)),
        None
    );
    assert_eq!(
        breaker.observe(&nothing, &settings, Timestamp(660_000)),
        Some(Change::OpenedAgain {
            reason: "nothing was heard of probe `a` for 600 s".into(),
            until: Timestamp(780_000),
        })
    );
    // Its outcome comes too late to matter.
    assert_eq!(
        breaker.outcome("a", true, &settings, Timestamp(660_001)),
        None
    );
}

#[test]
fn a_success_closes_it_and_so_does_a_person() {
    let settings = Settings::default();
    let mut breaker = opened(Timestamp(0));
    assert!(breaker.probe("a", Timestamp(60_000)));
    assert_eq!(
        breaker.outcome("a", true, &settings, Timestamp(61_000)),
        Some(Change::Closed)
    );
    assert!(breaker.admits());
    assert!(!breaker.reset());
    assert!(opened(Timestamp(0)).reset());
}

#[test]
fn the_defaults_are_valid_and_each_field_at_fault_is_named() {
    assert_eq!(Settings::default().validate(), Ok(()));
    let settings = Settings {
        min_dead: 0,
        failed_percent: 0,
        dominant_percent: 101,
        dominant_failed_percent: 101,
        open_ms: 999,
        open_ms_max: 998,
        probe_within_ms: 0,
    };
    assert_eq!(settings.validate().unwrap_err().len(), 7);
}
