//! What is stored of a run: one head, and one state for each task. Everything else is derived.

use serde::{Deserialize, Serialize};

use crate::{
    time::Timestamp,
    workflow::{
        definition::WorkflowDefinition,
        graph::TaskIndex,
        status::{RunStatus, TaskStatus},
    },
};

/// Longest reason that a state keeps, in bytes.
pub const REASON_BYTES_MAX: usize = 1_024;

/// What a shard is asked to make of an open attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// Succeeded, by a signal.
    Succeeded,
    /// Failed, by a signal.
    Failed,
    /// Timed out.
    TimedOut,
    /// Cancelled: the run ends, or what the task was built on failed.
    Cancelled,
}

/// Whether a task's condition was asked for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// Not yet, or there is none.
    #[default]
    Closed,
    /// Asked, not answered.
    Asked,
    /// It holds.
    Open,
}

/// What is special about the state of a task. Never two things at once, hence one field.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// Nothing.
    #[default]
    Plain,
    /// It succeeded, and what it depends on has not all done so yet.
    Provisional,
    /// It failed, and the run can do without it.
    Absorbed,
    /// It failed, and a person decides what that means.
    Held,
    /// It was skipped or cancelled because the run ended, not for what it did or depends on.
    Swept,
}

/// The state of a task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskState {
    /// Where it is.
    pub status: TaskStatus,
    /// Dispatches so far: the number of the open attempt or of the last one.
    pub attempt: u32,
    /// Whether a target shard is stored for the open attempt.
    pub is_placed: bool,
    /// Who has it or had it last; empty for nobody.
    pub consumer: String,
    /// How often the message of this attempt was delivered.
    pub deliveries: u32,
    /// When this attempt was first delivered.
    pub started_at: Option<Timestamp>,
    /// When it became final.
    pub finished_at: Option<Timestamp>,
    /// When something happens to it by itself.
    pub due: Option<Timestamp>,
    /// Whether a result is stored.
    pub has_result: bool,
    /// What is special about it.
    pub mark: Mark,
    /// Whether its condition was asked for.
    pub gate: Gate,
    /// What the shard was asked to make of the open attempt.
    pub resolving: Option<Resolution>,
    /// The task because of which it was skipped or cancelled: the one that failed, however far.
    pub cause: Option<TaskIndex>,
    /// Why it is where it is, at most 1 KiB; the question where it waits for input.
    pub reason: String,
}

impl TaskState {
    /// Whether it succeeded, and what it depends on has not all done so yet.
    #[must_use]
    pub const fn is_provisional(&self) -> bool {
        matches!(self.mark, Mark::Provisional)
    }

    /// Whether it failed, and the run can do without it.
    #[must_use]
    pub const fn is_absorbed(&self) -> bool {
        matches!(self.mark, Mark::Absorbed)
    }

    /// Whether it failed, and a person decides what that means.
    #[must_use]
    pub const fn is_held(&self) -> bool {
        matches!(self.mark, Mark::Held)
    }

    /// Whether its condition is being evaluated.
    #[must_use]
    pub const fn is_asked(&self) -> bool {
        matches!(self.status, TaskStatus::Pending) && matches!(self.gate, Gate::Asked)
    }

    /// Whether it failed itself: not because the run ended or because of another task.
    #[must_use]
    pub const fn is_own_failure(&self) -> bool {
        self.cause.is_none()
            && (self.status.is_failure()
                || matches!(self.status, TaskStatus::Cancelled)
                    && !matches!(self.mark, Mark::Swept))
    }
}

/// How a run comes to its end before its tasks do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// What it becomes.
    pub status: RunStatus,
    /// The task whose failure ends it.
    pub cause: Option<TaskIndex>,
    /// Why it ends.
    pub reason: String,
}

/// The state of a run without its tasks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Head {
    /// Where it is.
    pub status: RunStatus,
    /// How it ends, once that is decided; stays when it has ended.
    pub ending: Option<Ending>,
    /// Why it is paused; empty when it is not.
    pub reason: String,
    /// Most tasks at work at once by the load of the groups.
    pub parallel_limit: u32,
    /// Whether an open workflow takes no more tasks.
    pub is_closed: bool,
    /// When it started.
    pub started_at: Timestamp,
    /// When tasks were added last.
    pub added_at: Timestamp,
    /// When it became final.
    pub finished_at: Option<Timestamp>,
    /// When it fails because it takes too long.
    pub deadline_at: Option<Timestamp>,
}

/// All that is stored of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// What was asked for, with the tasks that were added or are awaited.
    pub definition: WorkflowDefinition,
    /// The state of the run.
    pub head: Head,
    /// The states of the tasks, in their order.
    pub tasks: Vec<TaskState>,
}

/// `reason`, cut to what a state keeps.
pub(super) fn clip(reason: &str) -> String {
    let mut bytes = 0_usize;
    reason
        .chars()
        .take_while(|c| {
            bytes = bytes.saturating_add(c.len_utf8());
            bytes <= REASON_BYTES_MAX
        })
        .collect()
}
