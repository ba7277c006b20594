//! What an outcome does: success, failure and its policy, cancellation, a question.

use super::{
    Run,
    event::{Effect, Entry, Illegal, Outcome, Signal},
    index::Step,
    review::Leave,
    state::{Gate, Mark, Resolution, clip},
};
use crate::workflow::{
    definition::{DependencyMode, FailurePolicy},
    graph::{TaskIndex, place},
    status::{RunStatus, TaskStatus},
};

/// A request to a shard is repeated after this time in ms, until its outcome comes: it may have
/// been lost with the router that was to carry it.
pub(super) const REPEAT_MS: u64 = 10_000;

impl Run {
    /// The outcome of an attempt, as its shard tells it.
    pub(super) fn settled(
        &mut self,
        task: TaskIndex,
        attempt: u32,
        outcome: Outcome,
        step: &mut Step,
    ) -> Result<(), Illegal> {
        self.open_attempt(task, attempt)?;
        self.settle(task, outcome, step);
        Ok(())
    }

    /// An attempt that no agent ever gets.
    pub(super) fn undeliverable(
        &mut self,
        task: TaskIndex,
        attempt: u32,
        reason: String,
        step: &mut Step,
    ) -> Result<(), Illegal> {
        self.open_attempt(task, attempt)?;
        let state = self.state(task)?;
        if state.status != TaskStatus::Queued {
            return Err(Illegal::NotQueued {
                status: state.status,
            });
        }
        if !state.is_placed {
            step.effects.push(Effect::Void { task, attempt });
        }
        let is_cancelled = state.resolving == Some(Resolution::Cancelled);
        let outcome = if is_cancelled {
            Outcome::Cancelled { reason }
        } else {
            Outcome::Failed { reason }
        };
        self.settle(task, outcome, step);
        Ok(())
    }

    /// A condition's answer.
    pub(super) fn evaluated(
        &mut self,
        task: TaskIndex,
        holds: Result<bool, String>,
        step: &mut Step,
    ) -> Result<(), Illegal> {
        if !self.state(task)?.is_asked() {
            return Err(Illegal::NotAsked);
        }
        match holds {
            Ok(true) => {
                self.touch(task, step, |state| {
                    state.gate = Gate::Open;
                    state.due = None;
                });
                self.review(task, step);
            },
            Ok(false) => self.become_status(task, TaskStatus::Skipped, step, |state| {
                state.cause = None;
                state.reason = "the condition is false".to_owned();
            }),
            Err(reason) => {
                let reason = format!("condition: {reason}");
                self.fail(task, TaskStatus::Failed, &reason, step);
            },
        }
        Ok(())
    }

    /// A decision from outside: by the shard where it has an open attempt, and else here.
    pub(super) fn signalled(
        &mut self,
        task: TaskIndex,
        signal: Signal,
        step: &mut Step,
    ) -> Result<(), Illegal> {
        let state = self.state(task)?;
        if state.status.is_final() {
            return Err(Illegal::AlreadyFinal {
                status: state.status,
            });
        }
        if let Some(resolution) = state.resolving {
            return Err(Illegal::Resolving { resolution });
        }
        if state.status.is_open() && state.is_placed {
            let resolution = match signal {
                Signal::Succeeded { .. } => Resolution::Succeeded,
                Signal::Failed { .. } => Resolution::Failed,
            };
            self.resolve(task, resolution, step);
            return Ok(());
        }
        self.void(task, step);
        match signal {
            Signal::Succeeded { has_result } => self.succeed(task, has_result, step),
            Signal::Failed { reason } => self.fail(task, TaskStatus::Failed, &reason, step),
        }
        Ok(())
    }

    /// Asks the shard of a placed attempt to decide it.
    pub(super) fn resolve(&mut self, task: TaskIndex, resolution: Resolution, step: &mut Step) {
        let due = step.now.plus(REPEAT_MS);
        self.touch(task, step, |state| {
            state.resolving = Some(resolution);
            state.due = Some(due);
        });
        let attempt = self.attempt(task);
        step.effects.push(Effect::Resolve {
            task,
            attempt,
            resolution,
        });
    }

    /// Takes an attempt out of the outbox, if it is there and not placed.
    pub(super) fn void(&mut self, task: TaskIndex, step: &mut Step) {
        let waits = self
            .tasks
            .get(place(task))
            .filter(|state| state.status == TaskStatus::Queued && !state.is_placed);
        if let Some(state) = waits {
            let attempt = state.attempt;
            step.effects.push(Effect::Void { task, attempt });
        }
    }

    /// A failure that is the task's own, and what it means for the run.
    pub(super) fn fail(
        &mut self,
        task: TaskIndex,
        status: TaskStatus,
        reason: &str,
        step: &mut Step,
    ) {
        let policy = self.policy(task);
        let is_ending = self.head.ending.is_some();
        let (mark, is_fatal) = match policy {
            _ if is_ending => (Mark::Plain, false),
            FailurePolicy::Continue | FailurePolicy::SkipDependents => (Mark::Plain, false),
            FailurePolicy::Pause => (Mark::Held, false),
            FailurePolicy::FailWorkflow if self.can_do_without(task) => (Mark::Absorbed, false),
            FailurePolicy::FailWorkflow => (Mark::Plain, true),
        };
        let reason = clip(reason);
        // With the mark at once: dependants of a held task must not see a loss first.
        self.become_status(task, status, step, |state| {
            state.mark = mark;
            state.cause = None;
            state.has_result = false;
            state.reason.clone_from(&reason);
        });
        let id = self.id(task).unwrap_or_default();
        if mark == Mark::Held && self.head.status == RunStatus::Running {
            let words = format!("task `{id}` is {status}: {reason}");
            self.set_run(RunStatus::Paused, &words, step);
        } else if is_fatal {
            let words = format!("task `{id}` is {status}: {reason}");
            self.begin_end(RunStatus::Failed, Some(task), &words, step);
        }
    }

    /// A provisional success, or one without an attempt, ends with what it was built on.
    pub(super) fn cancel_base(&mut self, task: TaskIndex, step: &mut Step) {
        let cause = self.root(task);
        let reason = self.because(cause);
        if self
            .tasks
            .get(place(task))
            .is_some_and(|state| state.has_result)
        {
            step.effects.push(Effect::DropResult { task });
        }
        self.become_status(task, TaskStatus::Cancelled, step, |state| {
            state.cause = cause;
            state.has_result = false;
            state.reason = reason;
        });
    }

    /// What a task at work was built on is lost.
    pub(super) fn drop_base(&mut self, task: TaskIndex, step: &mut Step) {
        let Some(state) = self.tasks.get(place(task)) else {
            return;
        };
        if !(state.status.is_open() && state.is_placed) {
            self.void(task, step);
            self.cancel_base(task, step);
        } else if state.resolving != Some(Resolution::Cancelled) {
            let cause = self.root(task);
            self.touch(task, step, |state| state.cause = cause);
            self.resolve(task, Resolution::Cancelled, step);
        }
    }

    fn settle(&mut self, task: TaskIndex, outcome: Outcome, step: &mut Step) {
        let is_lost = self.is_optimistic() && self.leave(task) == Leave::Never;
        let state = self.tasks.get(place(task));
        let was_lost = state.is_some_and(|state| state.cause.is_some());
        let resolving = state.and_then(|state| state.resolving);
        match outcome {
            Outcome::Succeeded { has_result } if is_lost => {
                self.touch(task, step, |state| state.has_result = has_result);
                self.cancel_base(task, step);
            },
            Outcome::Succeeded { has_result } => self.succeed(task, has_result, step),
            Outcome::Suspended { .. } if self.head.ending.is_some() => self.sweep(task, step),
            Outcome::Suspended { .. } if is_lost => self.cancel_base(task, step),
            Outcome::Suspended { prompt } => {
                let reason = clip(&prompt);
                self.become_status(task, TaskStatus::WaitingInput, step, |state| {
                    state.cause = None;
                    state.reason = reason;
                });
            },
            Outcome::Cancelled { .. } | Outcome::Unsent { .. } if is_lost => {
                self.cancel_base(task, step);
            },
            Outcome::Cancelled { .. } | Outcome::Unsent { .. } if self.head.ending.is_some() => {
                self.sweep(task, step);
            },
            // What it was built on was retried in the meantime.
            Outcome::Cancelled { .. } if was_lost => {
                self.requeue(task, "what it was built on is tried again", step);
            },
            // Its time was up before.
            Outcome::Unsent { .. } if resolving == Some(Resolution::TimedOut) => {
                self.fail(task, TaskStatus::TimedOut, "timeout", step);
            },
            Outcome::Unsent { reason } => self.requeue(task, &reason, step),
            Outcome::Cancelled { reason } => {
                self.fail(task, TaskStatus::Cancelled, &reason, step);
            },
            Outcome::Failed { reason } => {
                self.fail_or_lose(task, TaskStatus::Failed, &reason, is_lost, step);
            },
            Outcome::DeadLettered { reason } => {
                self.fail_or_lose(task, TaskStatus::DeadLettered, &reason, is_lost, step);
            },
            Outcome::TimedOut => {
                self.fail_or_lose(task, TaskStatus::TimedOut, "timeout", is_lost, step);
            },
        }
    }

    /// A failure; one whose base is lost has no policy of its own any more.
    fn fail_or_lose(
        &mut self,
        task: TaskIndex,
        status: TaskStatus,
        reason: &str,
        is_lost: bool,
        step: &mut Step,
    ) {
        if !is_lost {
            self.fail(task, status, reason, step);
            return;
        }
        let cause = self.root(task);
        let reason = clip(reason);
        self.become_status(task, status, step, |state| {
            state.mark = Mark::Absorbed;
            state.cause = cause;
            state.has_result = false;
            state.reason = reason;
        });
    }

    fn succeed(&mut self, task: TaskIndex, has_result: bool, step: &mut Step) {
        let is_provisional = self.is_optimistic() && !self.is_firm(task);
        self.become_status(task, TaskStatus::Succeeded, step, |state| {
            state.mark = if is_provisional {
                Mark::Provisional
            } else {
                Mark::Plain
            };
            state.cause = None;
            state.has_result = has_result;
            state.reason = String::new();
        });
    }

    /// Whether the run goes on without this task: in best effort, when somebody who asked for it
    /// has enough others or did not wait for it.
    fn can_do_without(&self, task: TaskIndex) -> bool {
        self.definition.dependency_mode == DependencyMode::BestEffort
            && self.graph.dependants(task).iter().any(|next| {
                let status = self.tasks.get(place(*next)).map(|state| state.status);
                match status {
                    Some(TaskStatus::Pending) => self.can_lose_one(*next),
                    None
                    | Some(TaskStatus::Awaited | TaskStatus::Skipped | TaskStatus::Cancelled) => {
                        false
                    },
                    Some(
                        TaskStatus::Queued
                        | TaskStatus::Running
                        | TaskStatus::WaitingInput
                        | TaskStatus::Succeeded
                        | TaskStatus::Failed
                        | TaskStatus::TimedOut
                        | TaskStatus::DeadLettered,
                    ) => true,
                }
            })
    }

    /// Checks that `attempt` is the open one of a task.
    pub(super) fn open_attempt(&self, task: TaskIndex, attempt: u32) -> Result<(), Illegal> {
        let state = self.state(task)?;
        let (status, current) = (state.status, state.attempt);
        if attempt != current {
            Err(Illegal::StaleAttempt { current })
        } else if status.is_final() {
            Err(Illegal::AlreadyFinal { status })
        } else if status.is_open() {
            Ok(())
        } else {
            Err(Illegal::NotOpen { status })
        }
    }

    /// Moves the run to another state, paused or running or final.
    pub(super) fn set_run(&mut self, status: RunStatus, reason: &str, step: &mut Step) {
        self.head.status = status;
        self.head.reason = match status {
            RunStatus::Paused => clip(reason),
            RunStatus::Running
            | RunStatus::Succeeded
            | RunStatus::Failed
            | RunStatus::Cancelled => String::new(),
        };
        self.head.finished_at = status.is_final().then_some(step.now);
        let reason = clip(reason);
        step.record(None, Entry::RunBecame { status, reason });
    }

    pub(super) fn attempt(&self, task: TaskIndex) -> u32 {
        self.tasks.get(place(task)).map_or(0, |state| state.attempt)
    }
}
