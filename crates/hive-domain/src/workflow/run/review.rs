//! What the verdicts of its dependencies mean to a task.
//!
//! A verdict goes to the dependants by a list, task by task: nothing recurses, and the cost is
//! that of the dependants alone.

use super::{
    Run,
    event::Entry,
    index::{Step, Verdict, at},
    state::{Gate, Mark},
};
use crate::workflow::{
    definition::DependencyMode,
    graph::{TaskIndex, place},
    status::TaskStatus,
};

/// Whether the dependencies of a task let it start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// They may do so later.
    Wait,
    /// They do.
    Go,
    /// They never will.
    Never,
}

impl Run {
    /// Tells dependants of new verdicts until there is none left, and looks what they make of it.
    pub(super) fn drain(&mut self, step: &mut Step) {
        while let Some((task, old, new)) = step.moved.pop_front() {
            let mut position = 0_usize;
            while let Some(next) = self.graph.dependants(task).get(position).copied() {
                position = position.saturating_add(1);
                self.index.weigh(next, old, false);
                self.index.weigh(next, new, true);
                self.review(next, step);
            }
        }
    }

    /// Tells dependants of new verdicts; their turn to be reviewed comes.
    fn drain_weights(&mut self, step: &mut Step) {
        while let Some((task, old, new)) = step.moved.pop_front() {
            for next in self.graph.dependants(task) {
                self.index.weigh(*next, old, false);
                self.index.weigh(*next, new, true);
            }
        }
    }

    /// Looks what the verdicts of its dependencies mean to a task.
    pub(super) fn review(&mut self, task: TaskIndex, step: &mut Step) {
        let Some(state) = self.tasks.get(place(task)) else {
            return;
        };
        let gate = state.gate;
        match (state.status, self.leave(task)) {
            (TaskStatus::Pending, Leave::Never) => {
                let cause = self.root(task);
                let reason = self.because(cause);
                self.become_status(task, TaskStatus::Skipped, step, |state| {
                    state.cause = cause;
                    state.reason = reason;
                });
            },
            (TaskStatus::Pending, Leave::Go) if gate != Gate::Asked => {
                let turn = self.turn(task);
                self.index.ready.insert(turn);
            },
            (TaskStatus::Pending, Leave::Wait) => {
                let turn = self.turn(task);
                self.index.ready.remove(&turn);
                if gate == Gate::Asked {
                    self.touch(task, step, |state| {
                        state.gate = Gate::Closed;
                        state.due = None;
                    });
                }
            },
            (TaskStatus::Queued | TaskStatus::Running | TaskStatus::WaitingInput, leave) => {
                if leave == Leave::Never && self.is_optimistic() {
                    self.drop_base(task, step);
                }
            },
            (TaskStatus::Succeeded, leave) if state.is_provisional() => {
                if leave == Leave::Never {
                    self.cancel_base(task, step);
                } else if self.is_firm(task) {
                    self.touch(task, step, |state| state.mark = Mark::Plain);
                    step.record(Some(task), Entry::Confirmed);
                }
            },
            (
                TaskStatus::Pending
                | TaskStatus::Awaited
                | TaskStatus::Succeeded
                | TaskStatus::Failed
                | TaskStatus::TimedOut
                | TaskStatus::DeadLettered
                | TaskStatus::Skipped
                | TaskStatus::Cancelled,
                _,
            ) => {},
        }
    }

    /// Reviews all tasks, each once, after what it depends on.
    pub(super) fn review_all(&mut self, step: &mut Step) {
        let mut position = 0_usize;
        while let Some(task) = self.graph.order().get(position).copied() {
            position = position.saturating_add(1);
            self.review(task, step);
            self.drain_weights(step);
        }
    }

    /// As [`Self::review_all`], after a retry. Who was given up for a dependency comes back where
    /// there is a way again: it names one cause, and may have had another one that is retried now.
    pub(super) fn review_revived(&mut self, step: &mut Step) {
        let mut position = 0_usize;
        while let Some(task) = self.graph.order().get(position).copied() {
            position = position.saturating_add(1);
            let state = self.tasks.get(place(task));
            let was_given_up = state.is_some_and(|state| {
                matches!(state.status, TaskStatus::Skipped | TaskStatus::Cancelled)
                    && state.mark != Mark::Swept
                    && state.cause.is_some()
            });
            if was_given_up && self.leave(task) != Leave::Never {
                self.revive(task, step);
                self.drain_weights(step);
            }
            self.review(task, step);
            self.drain_weights(step);
        }
    }

    /// Sends a final task back to those that wait.
    pub(super) fn revive(&mut self, task: TaskIndex, step: &mut Step) {
        self.become_status(task, TaskStatus::Pending, step, |state| {
            state.gate = Gate::Closed;
            state.cause = None;
            state.has_result = false;
            state.reason = String::new();
        });
    }

    /// Whether the dependencies of a task let it start.
    pub(super) fn leave(&self, task: TaskIndex) -> Leave {
        let all = self.need_count(task);
        let satisfied = at(&self.index.satisfied, task);
        let lost = at(&self.index.lost, task);
        let (is_go, is_never) = match self.definition.dependency_mode {
            DependencyMode::Strict => (satisfied >= all, lost > 0),
            DependencyMode::Optimistic => (true, lost > 0),
            DependencyMode::BestEffort => {
                let quorum = self.quorum(task);
                (satisfied >= quorum, all.saturating_sub(lost) < quorum)
            },
        };
        match (is_never, is_go) {
            (true, _) => Leave::Never,
            (false, true) => Leave::Go,
            (false, false) => Leave::Wait,
        }
    }

    /// How many more dependencies of a task must be satisfied for it to start.
    pub(super) fn missing(&self, task: TaskIndex) -> u32 {
        let needed = match self.definition.dependency_mode {
            DependencyMode::Strict => self.need_count(task),
            DependencyMode::BestEffort => self.quorum(task),
            DependencyMode::Optimistic => 0,
        };
        needed.saturating_sub(at(&self.index.satisfied, task))
    }

    /// Whether a task could start if one more of its dependencies were lost.
    pub(super) fn can_lose_one(&self, task: TaskIndex) -> bool {
        let lost = at(&self.index.lost, task).saturating_add(1);
        self.need_count(task).saturating_sub(lost) >= self.quorum(task)
    }

    /// Whether all dependencies of a task are satisfied.
    pub(super) fn is_firm(&self, task: TaskIndex) -> bool {
        at(&self.index.satisfied, task) >= self.need_count(task)
    }

    pub(super) const fn is_optimistic(&self) -> bool {
        matches!(self.definition.dependency_mode, DependencyMode::Optimistic)
    }

    /// The task because of which this one cannot go on: a lost dependency, or what that one was
    /// lost for.
    pub(super) fn root(&self, task: TaskIndex) -> Option<TaskIndex> {
        let lost = self.graph.dependencies(task).iter().copied().find(|need| {
            let verdict = self.index.verdicts.get(place(*need));
            verdict == Some(&Verdict::Lost)
        })?;
        let cause = self.tasks.get(place(lost)).and_then(|state| state.cause);
        Some(cause.unwrap_or(lost))
    }

    /// What is said of a task that does not go on because of another one.
    pub(super) fn because(&self, cause: Option<TaskIndex>) -> String {
        match cause.and_then(|cause| self.definition.tasks.get(place(cause))) {
            Some(cause) => format!("dependency_failed: `{}`", cause.id),
            None => "dependency_failed".to_owned(),
        }
    }
}
