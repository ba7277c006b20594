//! How many local workers to start, and how many are too many: plain functions of what is known.

use std::time::Duration;

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
    /// Consumers that were told to finish and go.
    pub(super) draining: u32,
    /// Most consumers.
    pub(super) max: u32,
    /// Whether `draining` was told after the end of the last worker: until then it may count one
    /// that is gone.
    pub(super) is_fresh: bool,
    /// Processes that are there, whatever they were told.
    pub(super) there: u32,
    /// Of them, those that were told to end.
    pub(super) ending: u32,
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
/// Workers that drain or end count until they are gone, so that the processes are never more than
/// `max`. Those that drain are not replaced: their place is part of the target.
#[must_use]
pub(super) fn change(facts: &Facts) -> Change {
    let draining = if facts.is_fresh { facts.draining } else { 0 };
    let target = facts.desired.saturating_add(draining).min(facts.max);
    let kept = facts.there.saturating_sub(facts.ending);
    let wanted = facts.desired.saturating_add(facts.draining);
    Change {
        start: target.saturating_sub(facts.there),
        surplus: kept.saturating_sub(wanted),
    }
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
        draining: 0,
        max: 8,
        is_fresh: true,
        there: 0,
        ending: 0,
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
        assert_eq!(steps(Facts { there: 4, ..facts }), (0, 0));
        assert_eq!(steps(QUIET), (0, 0));
    }

    #[test]
    fn workers_that_drain_are_neither_replaced_nor_surplus() {
        let facts = Facts {
            desired: 1,
            draining: 3,
            there: 4,
            ..QUIET
        };
        assert_eq!(steps(facts), (0, 0));
        // One that is not told to go has died.
        assert_eq!(steps(Facts { there: 3, ..facts }), (1, 0));
    }

    #[test]
    fn a_worker_that_ended_is_not_replaced_by_what_was_told_before_its_end() {
        let facts = Facts {
            desired: 1,
            draining: 3,
            there: 3,
            is_fresh: false,
            ..QUIET
        };
        assert_eq!(steps(facts), (0, 0));
        assert_eq!(steps(Facts { there: 0, ..facts }), (1, 0));
    }

    #[test]
    fn workers_that_end_count_until_they_are_gone() {
        let facts = Facts {
            desired: 3,
            there: 3,
            ending: 2,
            ..QUIET
        };
        assert_eq!(steps(facts), (0, 0));
        assert_eq!(
            steps(Facts {
                there: 1,
                ending: 0,
                ..facts
            }),
            (2, 0)
        );
    }

    #[test]
    fn there_are_never_more_than_the_most() {
        let facts = Facts {
            desired: 8,
            draining: 6,
            there: 6,
            ..QUIET
        };
        assert_eq!(steps(facts), (2, 0));
        let facts = Facts {
            desired: u32::MAX,
            draining: u32::MAX,
            there: 8,
            ..QUIET
        };
        assert_eq!(steps(facts), (0, 0));
    }

    #[test]
    fn what_nobody_told_to_go_is_surplus_and_told_once() {
        let facts = Facts {
            desired: 1,
            draining: 1,
            there: 4,
            ..QUIET
        };
        assert_eq!(steps(facts), (0, 2));
        assert_eq!(steps(Facts { ending: 2, ..facts }), (0, 0));
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
