//! Why a task is not running: what a person asks first.

use super::{Run, index::Verdict};
use crate::{
    time::Timestamp,
    workflow::{
        graph::{TaskIndex, place},
        status::{RunStatus, TaskStatus},
    },
};

/// What a task waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waits {
    /// For nothing: it is final.
    Over,
    /// For its dependencies: those that are not decided yet.
    Dependencies {
        /// Which.
        open: Vec<TaskIndex>,
        /// How many more must succeed.
        missing: u32,
    },
    /// For the answer to its condition.
    Condition,
    /// For somebody to resume the run.
    Resume,
    /// For a place among those at work.
    Slot {
        /// Tasks that are ready and go first.
        ahead: usize,
    },
    /// For its message to be placed and delivered.
    Queue {
        /// Whether a shard has it.
        is_placed: bool,
    },
    /// For the agent that has it.
    Agent {
        /// Which.
        consumer: String,
        /// Since when.
        since: Option<Timestamp>,
    },
    /// For the shard to end its attempt.
    Shard,
    /// For the answer to a question.
    Input,
    /// For somebody to add or signal it.
    Addition,
}

impl Run {
    /// What a task waits for. The cost is that of its dependencies, and of the ready tasks where
    /// it is one of them.
    #[must_use]
    pub fn waits(&self, task: TaskIndex) -> Option<Waits> {
        let state = self.task(task)?;
        Some(match state.status {
            TaskStatus::Pending => self.pending_waits(task, state.is_asked()),
            TaskStatus::Awaited => Waits::Addition,
            TaskStatus::Queued | TaskStatus::Running if state.resolving.is_some() => Waits::Shard,
            TaskStatus::Queued => Waits::Queue {
                is_placed: state.is_placed,
            },
            TaskStatus::Running => Waits::Agent {
                consumer: state.consumer.clone(),
                since: state.started_at,
            },
            TaskStatus::WaitingInput => Waits::Input,
            TaskStatus::Succeeded
            | TaskStatus::Failed
            | TaskStatus::TimedOut
            | TaskStatus::DeadLettered
            | TaskStatus::Skipped
            | TaskStatus::Cancelled => Waits::Over,
        })
    }

    fn pending_waits(&self, task: TaskIndex, is_asked: bool) -> Waits {
        let turn = self.turn(task);
        if is_asked {
            Waits::Condition
        } else if !self.index.ready.contains(&turn) {
            let is_open =
                |need: &TaskIndex| self.index.verdicts.get(place(*need)) == Some(&Verdict::Open);
            let needs = self.graph.dependencies(task).iter().copied();
            Waits::Dependencies {
                open: needs.filter(is_open).collect(),
                missing: self.missing(task),
            }
        } else if self.head.status == RunStatus::Paused {
            Waits::Resume
        } else {
            Waits::Slot {
                ahead: self.index.ready.range(..turn).count(),
            }
        }
    }
}
