//! How many local workers to start, and how many are too many: plain functions of what is known.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

/// First and longest pause before a command that failed is started again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// A worker that lived this long starts the pauses anew.
const STEADY_AFTER: Duration = Duration::from_secs(10);

/// What is known of a group and its local workers at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Consumers that are wanted.
    pub(super) desired: u32,
    /// Live consumers, wherever they run; local workers that did not join yet are none.
    pub(super) current: u32,
    /// Of them, those that were told to finish and go.
    pub(super) draining: u32,
    /// Most consumers.
    pub(super) max: u32,
    /// Processes that are there, whatever they were told.
    pub(super) there: u32,
    /// Of them, those that were told to end.
    pub(super) ending: u32,
    /// Processes that died so lately that `current` and `draining` may count them still.
    pub(super) lost: u32,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Workers to start now.
    pub(super) start: u32,
    /// Workers that nobody wants and nobody told to go; to be ended when that lasts.
    pub(super) surplus: u32,
}

/// What is to be done about these facts.
///
/// Consumers that run elsewhere do work that is wanted, so that fewer are started here: else the
/// coordinator would tell one of them all to go, a new one would take its place, and so for ever.
/// Who drains is not known, and need not be: all that are there or elsewhere, less those that
/// drain, are the ones that stay, and only those that are missing of these are started. One that
/// left is a consumer elsewhere for the short time in which it is counted still; so it is not
/// replaced before its drain is forgotten too. One that died is replaced at once.
///
/// Workers that drain or end count until they are gone, so that there are never more than `max`.
#[must_use]
pub(super) fn change(facts: &Facts) -> Change {
    let here = facts.there.saturating_add(facts.lost);
    let all = (facts.there).saturating_add(facts.current.saturating_sub(here));
    let draining = facts.draining.min(facts.current).saturating_sub(facts.lost);
    let stay = all.saturating_sub(draining.max(facts.ending));
    let missing = facts.desired.saturating_sub(stay);
    let kept = facts.there.saturating_sub(facts.ending);
    let wanted = facts.desired.saturating_add(facts.draining);
    Change {
        start: missing.min(facts.max.saturating_sub(all)),
        surplus: kept.saturating_sub(wanted),
    }
}

/// The order in which surplus workers are told to end, by their places in `ids`, which are in the
/// order of their start. First those that are no members (they left, did not join yet, or their
/// command has an id of its own), then those that hold nothing, last those that hold something;
/// of equals the newest. `held` says how much each member holds.
#[must_use]
pub(super) fn farewells(ids: &[&str], held: &BTreeMap<String, u64>) -> Vec<usize> {
    let mut places: Vec<usize> = (0..ids.len()).rev().collect();
    places.sort_by_key(|place| {
        let held = ids.get(*place).and_then(|id| held.get(*id));
        held.map_or(0, |held| if *held == 0 { 1 } else { 2 })
    });
    places
}

/// The pauses of a command that fails: 100 ms, doubled up to 10 s.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pauses {
    last: Option<Duration>,
    until: Option<Instant>,
}

impl Pauses {
    /// Notes that a worker which nobody told to go ended at `now` after it had lived for `lived`.
    /// Answers the pause where that is news: several that fail together make one.
    pub(super) fn note(&mut self, now: Instant, lived: Duration) -> Option<Duration> {
        if self.is_over(now) {
            let before = self.last.filter(|_| lived < STEADY_AFTER);
            let pause = before.map_or(PAUSES.0, |pause| (pause * 2).min(PAUSES.1));
            self.until = now.checked_add(pause);
            let is_news = self.last != Some(pause);
            self.last = Some(pause);
            return is_news.then_some(pause);
        }
        None
    }

    /// When the next worker may be started; none: now.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    fn is_over(&self, now: Instant) -> bool {
        self.until(now).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Facts = Facts {
        desired: 0,
        current: 0,
        draining: 0,
        max: 8,
        there: 0,
        ending: 0,
        lost: 0,
    };

    fn steps(facts: Facts) -> (u32, u32) {
        let Change { start, surplus } = change(&facts);
        (start, surplus)
    }

    #[test]
    fn missing_workers_are_started_and_no_more() {
        let facts = Facts {
            desired: 4,
            there: 1,
            ..QUIET
        };
        assert_eq!(steps(facts), (3, 0));
        // Whether they have joined or not.
        let facts = Facts { there: 4, ..facts };
        for current in 0..=4 {
            assert_eq!(steps(Facts { current, ..facts }), (0, 0));
        }
        assert_eq!(steps(QUIET), (0, 0));
    }

    #[test]
    fn workers_elsewhere_count() {
        let facts = Facts {
            desired: 3,
            current: 2,
            there: 1,
            ..QUIET
        };
        assert_eq!(steps(facts), (1, 0));
        assert_eq!(
            steps(Facts {
                current: 3,
                ..facts
            }),
            (0, 0)
        );
    }

    #[test]
    fn nothing_is_started_for_a_drain_whoever_it_is_that_goes() {
        // Of one here and one elsewhere one is to go.
        let facts = Facts {
            desired: 1,
            current: 2,
            draining: 1,
            there: 1,
            ..QUIET
        };
        assert_eq!(steps(facts), (0, 0));
        // The one elsewhere went, or the one here, still or no longer counted.
        let gone = Facts {
            current: 1,
            draining: 0,
            ..facts
        };
        assert_eq!(steps(gone), (0, 0));
        assert_eq!(steps(Facts { there: 0, ..facts }), (0, 0));
        assert_eq!(steps(Facts { there: 0, ..gone }), (0, 0));
    }

    #[test]
    fn workers_that_drain_are_neither_replaced_nor_surplus() {
        let facts = Facts {
            desired: 1,
            current: 4,
            draining: 3,
            there: 4,
            ..QUIET
        };
        assert_eq!(steps(facts), (0, 0));
        // One has left; what is told counts it still, then no longer.
        let facts = Facts { there: 3, ..facts };
        assert_eq!(steps(facts), (0, 0));
        let told = Facts {
            current: 3,
            draining: 2,
            ..facts
        };
        assert_eq!(steps(told), (0, 0));
    }

    #[test]
    fn a_worker_that_was_killed_while_it_drained_is_not_replaced() {
        let facts = Facts {
            desired: 1,
            current: 4,
            draining: 3,
            there: 3,
            lost: 1,
            ..QUIET
        };
        assert_eq!(steps(facts), (0, 0));
        let noticed = Facts {
            current: 3,
            draining: 2,
            ..facts
        };
        assert_eq!(steps(noticed), (0, 0));
        assert_eq!(steps(Facts { lost: 0, ..noticed }), (0, 0));
        // It was the one that was to stay.
        let facts = Facts {
            current: 3,
            lost: 0,
            ..facts
        };
        assert_eq!(steps(facts), (1, 0));
    }

    #[test]
    fn a_worker_that_was_killed_is_replaced_before_it_is_missed() {
        let facts = Facts {
            desired: 2,
            current: 2,
            there: 1,
            lost: 1,
            ..QUIET
        };
        assert_eq!(steps(facts), (1, 0));
    }

    #[test]
    fn workers_that_end_count_until_they_are_gone_and_are_replaced_where_wanted() {
        let facts = Facts {
            desired: 3,
            there: 3,
            ending: 2,
            max: 3,
            ..QUIET
        };
        assert_eq!(steps(facts), (0, 0));
        let gone = Facts {
            there: 1,
            ending: 0,
            ..facts
        };
        assert_eq!(steps(gone), (2, 0));
        assert_eq!(steps(Facts { max: 4, ..facts }), (1, 0));
    }

    #[test]
    fn there_are_never_more_than_the_most() {
        let facts = Facts {
            desired: 8,
            current: 6,
            draining: 6,
            there: 6,
            ..QUIET
        };
        assert_eq!(steps(facts), (2, 0));
        // Those elsewhere are of these too.
        assert_eq!(
            steps(Facts {
                current: 7,
                ..facts
            }),
            (1, 0)
        );
        let facts = Facts {
            desired: u32::MAX,
            current: u32::MAX,
            draining: u32::MAX,
            lost: u32::MAX,
            there: 8,
            ..QUIET
        };
        assert_eq!(steps(facts), (0, 0));
    }

    #[test]
    fn what_nobody_told_to_go_is_surplus_and_told_once() {
        let facts = Facts {
            desired: 1,
            current: 4,
            draining: 1,
            there: 4,
            ..QUIET
        };
        assert_eq!(steps(facts), (0, 2));
        assert_eq!(steps(Facts { ending: 2, ..facts }), (0, 0));
    }

    #[test]
    fn who_holds_something_is_told_to_end_last() {
        let held = BTreeMap::from([
            ("a".to_owned(), 1),
            ("c".to_owned(), 0),
            ("e".to_owned(), 2),
        ]);
        let order = farewells(&["a", "b", "c", "d", "e"], &held);
        assert_eq!(order, [3, 1, 2, 4, 0]);
        assert_eq!(farewells(&["a", "b"], &BTreeMap::new()), [1, 0]);
    }

    #[test]
    fn a_command_that_fails_is_started_ever_later_and_told_once_a_step() {
        let mut pauses = Pauses::default();
        let mut now = Instant::now();
        let mut told = Vec::new();
        for _ in 0..10 {
            told.extend(pauses.note(now, Duration::ZERO));
            // Another one that fails at the same time changes nothing.
            assert_eq!(pauses.note(now, Duration::ZERO), None);
            now = pauses.until(now).unwrap();
            assert_eq!(pauses.until(now), None);
        }
        let millis: Vec<u128> = told.iter().map(Duration::as_millis).collect();
        assert_eq!(millis, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000]);
    }

    #[test]
    fn a_worker_that_lived_long_starts_the_pauses_anew() {
        let mut pauses = Pauses::default();
        let mut now = Instant::now();
        for _ in 0..4 {
            pauses.note(now, Duration::ZERO);
            now = pauses.until(now).unwrap();
        }
        assert_eq!(
            pauses.note(now, Duration::from_secs(60)),
            Some(Duration::from_millis(100))
        );
    }
}
