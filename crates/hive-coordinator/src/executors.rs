//! Who carries a stored wish out: Kubernetes, a webhook, KEDA.
//!
//! An executor is told how many consumers a group is to have and makes it so, or says why not. It
//! decides nothing and remembers nothing: whoever calls it works level-triggered on what is stored,
//! so a call that was lost, or that came twice, does no harm. None of them retries by itself beyond
//! a conflict; [`retry_after`] says when the caller may try again.
//!
//! What each needs of its surroundings stands in `docs/scaling-executors.md`.
//!
//! # Invariants
//! - Every call ends within a deadline, whatever the other side does.
//! - What another side says is cut and escaped before it stands in an error.
//! - No text of a group makes the coordinator call a host that its operator did not allow.

pub mod keda;
pub mod kubernetes;
pub mod webhook;

mod answer;

use std::error::Error;
use std::time::Duration;

/// The first pause after a failure.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause that failures alone lead to.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The longest pause that another side may ask for: a wrong header must not stop scaling for a day.
const HINT_MAX: Duration = Duration::from_secs(300);

/// Why a wish was not carried out. The variants say what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecutorError {
    /// The target is not there. Somebody has to make it, or to name another one.
    #[error("{what} does not exist")]
    Missing {
        /// What is not there.
        what: String,
    },
    /// The coordinator lacks a right. Somebody has to grant it.
    #[error("not allowed to {need}: {words}")]
    Forbidden {
        /// The verb and the resource, e.g. `patch deployments/scale`.
        need: String,
        /// What the other side said.
        words: String,
    },
    /// Somebody else scales the target. One of both has to stop.
    #[error(
        "{target} is scaled by {owner} already; remove it, or scale the group by executor keda"
    )]
    Owned {
        /// What was to be scaled.
        target: String,
        /// Who scales it.
        owner: String,
    },
    /// The other side asks for less. It works again after a while by itself.
    #[error("{who} asks to wait")]
    Busy {
        /// Who asks.
        who: String,
        /// For how long, where that was said.
        retry_after: Option<Duration>,
    },
    /// The other side does not answer. Whether it did what was asked is unknown.
    #[error("{who} is away: {why}")]
    Away {
        /// Who does not answer.
        who: String,
        /// What happened instead.
        why: String,
    },
    /// It can never succeed as things are set. Somebody has to change a setting.
    #[error("{why}")]
    Refused {
        /// What is wrong, and what to set.
        why: String,
    },
    /// The other side failed, or answered what cannot be understood.
    #[error("{why}")]
    Failed {
        /// What it answered.
        why: String,
    },
}

impl ExecutorError {
    /// One word for metrics and logs.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing",
            Self::Forbidden { .. } => "forbidden",
            Self::Owned { .. } => "owned",
            Self::Busy { .. } => "busy",
            Self::Away { .. } => "away",
            Self::Refused { .. } => "refused",
            Self::Failed { .. } => "failed",
        }
    }

    /// Whether somebody has to act before it can succeed. It is retried even so: the act may be
    /// done where the coordinator does not see it.
    #[must_use]
    pub const fn needs_a_hand(&self) -> bool {
        match self {
            Self::Missing { .. }
            | Self::Forbidden { .. }
            | Self::Owned { .. }
            | Self::Refused { .. } => true,
            Self::Busy { .. } | Self::Away { .. } | Self::Failed { .. } => false,
        }
    }

    /// How long the other side asked to wait.
    const fn hint(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            Self::Missing { .. }
            | Self::Forbidden { .. }
            | Self::Owned { .. }
            | Self::Away { .. }
            | Self::Refused { .. }
            | Self::Failed { .. } => None,
        }
    }
}

/// How long to wait after failure number `attempt`, from 1 on: 1 s, doubling to 60 s, or what
/// the other side asked for where that is longer, up to 5 min.
#[must_use]
pub fn retry_after(attempt: u32, error: &ExecutorError) -> Duration {
    let doublings = attempt.saturating_sub(1).min(16);
    let pause = PAUSE_FIRST.saturating_mul(1 << doublings).min(PAUSE_MAX);
    let hint = error.hint().unwrap_or_default();
    pause.max(hint.min(HINT_MAX))
}

/// An error with what is behind it, in one line.
fn chain(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_words = inner.to_string();
        // Many errors repeat what is behind them.
        if !words.contains(&inner_words) {
            words.push_str(": ");
            words.push_str(&inner_words);
        }
        source = inner.source();
    }
    answer::excerpt(words.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ExecutorError, retry_after};

    fn busy(seconds: Option<u64>) -> ExecutorError {
        ExecutorError::Busy {
            who: "the API server".to_owned(),
            retry_after: seconds.map(Duration::from_secs),
        }
    }

    #[test]
    fn pauses_double_from_a_second_to_a_minute() {
        let failed = ExecutorError::Failed { why: String::new() };
        let seconds = |attempt| retry_after(attempt, &failed).as_secs();
        let pauses: Vec<u64> = [0, 1, 2, 3, 6, 7, 8, u32::MAX].map(seconds).into();
        assert_eq!(pauses, [1, 1, 2, 4, 32, 60, 60, 60]);
    }

    #[test]
    fn a_longer_wait_is_kept_and_bounded() {
        let seconds = |attempt, hint| retry_after(attempt, &busy(hint)).as_secs();
        assert_eq!(seconds(1, None), 1);
        assert_eq!(seconds(1, Some(20)), 20);
        assert_eq!(seconds(7, Some(20)), 60);
        assert_eq!(seconds(7, Some(90)), 90);
        assert_eq!(seconds(1, Some(86_400)), 300);
    }
}
