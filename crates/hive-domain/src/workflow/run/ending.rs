//! How a run ends: all at once by a failure, a cancel or its deadline, or when nothing is left.

use super::{
    Run,
    event::{Effect, Entry},
    index::Step,
    state::{Ending, Mark, Resolution, clip},
};
use crate::{
    time::Timestamp,
    workflow::{
        graph::{TaskIndex, place},
        status::{RunStatus, TaskStatus},
    },
};

/// An open workflow with nothing left to do ends when nothing was added for this long: 1 h.
pub const OPEN_IDLE_MS: u64 = 3_600_000;

impl Run {
    /// Begins to end the run: nothing more is dispatched, what does not run is ended here, what
    /// does is cancelled by its shard.
    pub(super) fn begin_end(
        &mut self,
        status: RunStatus,
        cause: Option<TaskIndex>,
        reason: &str,
        step: &mut Step,
    ) {
        let reason = clip(reason);
        self.head.ending = Some(Ending {
            status,
            cause,
            reason: reason.clone(),
        });
        if self.head.status == RunStatus::Paused {
            self.set_run(RunStatus::Running, &reason, step);
        }
        step.record(None, Entry::Ending { status, reason });
        let mut position = 0_usize;
        while let Some(task) = self.graph.order().get(position).copied() {
            position = position.saturating_add(1);
            let Some(state) = self.tasks.get(place(task)) else {
                continue;
            };
            if state.status.is_open() && state.is_placed {
                if state.resolving != Some(Resolution::Cancelled) {
                    self.resolve(task, Resolution::Cancelled, step);
                }
            } else if !state.status.is_final() {
                self.sweep(task, step);
            } else if state.is_held() {
                self.touch(task, step, |state| state.mark = Mark::Plain);
            }
        }
    }

    /// Ends a task because the run ends.
    pub(super) fn sweep(&mut self, task: TaskIndex, step: &mut Step) {
        let Some(ending) = self.head.ending.clone() else {
            return;
        };
        let Some(state) = self.tasks.get(place(task)) else {
            return;
        };
        // Who was asked for input has run: that is no skip.
        let is_untouched = matches!(state.status, TaskStatus::Pending | TaskStatus::Awaited);
        let status = match ending.status {
            RunStatus::Failed if is_untouched => TaskStatus::Skipped,
            RunStatus::Running
            | RunStatus::Paused
            | RunStatus::Succeeded
            | RunStatus::Failed
            | RunStatus::Cancelled => TaskStatus::Cancelled,
        };
        self.void(task, step);
        self.become_status(task, status, step, |state| {
            state.mark = Mark::Swept;
            state.cause = ending.cause;
            state.has_result = false;
            state.reason = ending.reason;
        });
    }

    /// Makes the run final when nothing is left, or paused when only a person can go on.
    pub(super) fn finish(&mut self, step: &mut Step) {
        let status = self.head.status;
        if status.is_final() {
            return;
        }
        let sums = self.index.sums;
        let is_done = sums.unfinished == 0 && sums.provisional == 0;
        let ending = self.head.ending.as_ref();
        let ending = ending.map(|ending| (ending.status, ending.reason.clone()));
        match ending {
            Some((status, reason)) if is_done => self.end(status, &reason, step),
            Some(_) => {},
            None if !self.index.held.is_empty() => {
                let is_stuck = sums.open == 0
                    && sums.asked == 0
                    && sums.outside == 0
                    && self.index.ready.is_empty();
                if is_stuck && status == RunStatus::Running {
                    self.set_run(
                        RunStatus::Paused,
                        "a failed task waits for a decision",
                        step,
                    );
                }
            },
            None if is_done && self.idle_until().is_none_or(|until| until <= step.now) => {
                let status = if sums.failures > 0 {
                    RunStatus::Failed
                } else {
                    RunStatus::Succeeded
                };
                self.end(status, "", step);
            },
            None => {},
        }
    }

    /// Until when an open workflow waits for more tasks; none for one that does not.
    pub(super) const fn idle_until(&self) -> Option<Timestamp> {
        if self.definition.is_open && !self.head.is_closed {
            Some(self.head.added_at.plus(OPEN_IDLE_MS))
        } else {
            None
        }
    }

    fn end(&mut self, status: RunStatus, reason: &str, step: &mut Step) {
        self.set_run(status, reason, step);
        step.effects.push(Effect::Finished { status });
    }
}
