//! The states of tasks and runs, and the one function that says which may follow which.

use serde::{Deserialize, Serialize};

use crate::words::words;

/// Where a task is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Waits for others, for a place among those at work, or for a paused run.
    #[default]
    Pending,
    /// Named as a dependency of an open workflow, and not yet added itself.
    Awaited,
    /// Handed to its group; nobody has begun it.
    Queued,
    /// An agent has it.
    Running,
    /// An agent asked a person or another system; the answer dispatches it again.
    WaitingInput,
    /// Done; its result counts.
    Succeeded,
    /// Failed for good, without a dead letter: told by a signal, by its condition or by the router.
    Failed,
    /// Took longer than its `timeout` or `queue_timeout`.
    TimedOut,
    /// Its attempts are used up or an agent rejected it: it has a dead letter.
    DeadLettered,
    /// Will not run: what it needs failed, its condition is false, or the run failed before.
    Skipped,
    /// Ended from outside: the run was cancelled or failed, or what it was built on failed.
    Cancelled,
}

words!(TaskStatus {
    Pending => "pending",
    Awaited => "awaited",
    Queued => "queued",
    Running => "running",
    WaitingInput => "waiting_input",
    Succeeded => "succeeded",
    Failed => "failed",
    TimedOut => "timed_out",
    DeadLettered => "dead_lettered",
    Skipped => "skipped",
    Cancelled => "cancelled",
});

impl TaskStatus {
    /// Whether only a retry or a rerun can move it again.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Pending | Self::Awaited | Self::Queued | Self::Running | Self::WaitingInput => {
                false
            },
            Self::Succeeded
            | Self::Failed
            | Self::TimedOut
            | Self::DeadLettered
            | Self::Skipped
            | Self::Cancelled => true,
        }
    }

    /// Whether an attempt of it is open: its group has it, or an agent.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }

    /// Whether it was tried and did not succeed.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::TimedOut | Self::DeadLettered)
    }

    /// Whether a task may go from this state to `next` in one step.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        use TaskStatus as S;
        match self {
            S::Pending => matches!(
                next,
                S::Queued | S::Succeeded | S::Failed | S::Skipped | S::Cancelled
            ),
            S::Awaited => matches!(
                next,
                S::Pending | S::Succeeded | S::Failed | S::Skipped | S::Cancelled
            ),
            S::Queued => matches!(
                next,
                S::Running
                    | S::WaitingInput
                    | S::Succeeded
                    | S::Failed
                    | S::TimedOut
                    | S::DeadLettered
                    | S::Cancelled
            ),
            S::Running => matches!(
                next,
                S::WaitingInput
                    | S::Succeeded
                    | S::Failed
                    | S::TimedOut
                    | S::DeadLettered
                    | S::Cancelled
            ),
            S::WaitingInput => matches!(
                next,
                S::Pending | S::Succeeded | S::Failed | S::TimedOut | S::Cancelled
            ),
            // A provisional success falls with what it was built on.
            S::Succeeded => matches!(next, S::Cancelled),
            // By a retry of this task or of the one because of which it did not run.
            S::Failed | S::TimedOut | S::DeadLettered | S::Skipped | S::Cancelled => {
                matches!(next, S::Pending)
            },
        }
    }
}

/// Where a run is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Tasks are dispatched as they become ready.
    #[default]
    Running,
    /// Nothing is dispatched; what runs goes on.
    Paused,
    /// Every task is final, and every failure was one that the workflow can do without.
    Succeeded,
    /// Every task is final, and one failed. A retry revives it.
    Failed,
    /// Every task is final, after somebody cancelled the run.
    Cancelled,
}

words!(RunStatus {
    Running => "running",
    Paused => "paused",
    Succeeded => "succeeded",
    Failed => "failed",
    Cancelled => "cancelled",
});

impl RunStatus {
    /// Whether every task of it is final.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Running | Self::Paused => false,
            Self::Succeeded | Self::Failed | Self::Cancelled => true,
        }
    }
}
