//! Waits for a condition with a deadline that names it.
//!
//! Tests never sleep and hope: they say what must become true and how long that may take. A probe
//! answers `bool`, `Option` or `Result`; the last reason against it stands in the failure.

use std::{fmt, future::Future, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

/// First pause between two probes.
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// Longest pause between two probes: short against every deadline in the tests.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// What a probe may answer.
pub trait Answer {
    /// What the wait gives once the condition holds.
    type Value;

    /// The value when the condition holds, else why it does not.
    ///
    /// # Errors
    /// The reason against the condition, for the message of a failed wait.
    fn settled(self) -> Result<Self::Value, String>;
}

impl Answer for bool {
    type Value = ();

    fn settled(self) -> Result<(), String> {
        if self {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    }
}

impl<T> Answer for Option<T> {
    type Value = T;

    fn settled(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing yet".to_owned())
    }
}

impl<T, E: fmt::Display> Answer for Result<T, E> {
    type Value = T;

    fn settled(self) -> Result<T, String> {
        self.map_err(|error| format!("{error:#}"))
    }
}

/// A wait that ended without its condition.
#[derive(Debug)]
pub struct TimedOut {
    what: String,
    after: Duration,
    last: String,
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, after, last } = self;
        write!(f, "waited {after:?} for {what}; last answer: {last}")
    }
}

impl std::error::Error for TimedOut {}

/// Probes until the condition holds and gives its value.
///
/// # Panics
/// When `deadline` passes first; the message names `what` and the last answer.
pub async fn until<F, A>(deadline: Duration, what: &str, probe: F) -> <A::Output as Answer>::Value
where
    F: FnMut() -> A,
    A: Future<Output: Answer>,
{
    match try_until(deadline, what, probe).await {
        Ok(value) => value,
        Err(late) => panic!("{late}"),
    }
}

/// Like [`until`], for callers with more to say about a failure.
///
/// A probe that hangs is cut off at the deadline, so the whole never takes longer.
///
/// # Errors
/// [`TimedOut`] when `deadline` passes first.
pub async fn try_until<F, A>(
    deadline: Duration,
    what: &str,
    mut probe: F,
) -> Result<<A::Output as Answer>::Value, TimedOut>
where
    F: FnMut() -> A,
    A: Future<Output: Answer>,
{
    let end = Instant::now() + deadline;
    let mut pause = PAUSE_MIN;
    let mut last = "the first probe did not answer".to_owned();
    loop {
        match timeout_at(end, probe()).await.map(Answer::settled) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(reason)) => last = reason,
            Err(_) => {
                return Err(TimedOut {
                    what: what.to_owned(),
                    after: deadline,
                    last,
                });
            },
        }
        if Instant::now() + pause >= end {
            pause = end.saturating_duration_since(Instant::now());
            if pause.is_zero() {
                return Err(TimedOut {
                    what: what.to_owned(),
                    after: deadline,
                    last,
                });
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condition_that_comes_true_ends_the_wait_with_its_value() {
        let mut probes = 0;
        let value = until(Duration::from_secs(5), "the third probe", || {
            probes += 1;
            let answer = (probes >= 3).then_some(probes);
            async move { answer }
        })
        .await;
        assert_eq!(value, 3);
    }

    #[tokio::test]
    async fn a_deadline_names_the_condition_and_the_last_answer() {
        let late = try_until(Duration::from_millis(20), "the moon", || async {
            Err::<(), _>("still day")
        })
        .await
        .unwrap_err();
        assert_eq!(
            late.to_string(),
            "waited 20ms for the moon; last answer: still day"
        );
    }

    #[tokio::test]
    async fn a_probe_that_hangs_is_cut_off_at_the_deadline() {
        let late = try_until(
            Duration::from_millis(20),
            "a hanging probe",
            std::future::pending::<bool>,
        )
        .await
        .unwrap_err();
        assert!(late.to_string().contains("a hanging probe"));
    }
}
