//! Which tasks are dispatched now, and what happens when their time is up.

use super::{
    Run,
    event::{Effect, Illegal},
    index::Step,
    outcome::REPEAT_MS,
    state::{Gate, Resolution},
};
use crate::{
    time::Timestamp,
    workflow::{
        definition::{Completion, Strategy},
        graph::{TaskIndex, place},
        status::{RunStatus, TaskStatus},
    },
};

/// Most attempts that one answer dispatches, so that it fits into one script.
pub const DISPATCHES_MAX: usize = 1_000;

/// How long a task that a signal completes may run where it has no timeout, in ms: 1 h, so that
/// nothing hangs when nobody signals.
pub const SIGNAL_TIMEOUT_MS: u64 = 3_600_000;

/// How long a task may be awaited, in ms: 24 h.
pub const AWAITED_MS: u64 = 86_400_000;

impl Run {
    /// A target shard is stored for an attempt. It is so once and for all: an attempt that was sent
    /// to one and belongs to another would be worked on twice.
    pub(super) fn placed(
        &mut self,
        task: TaskIndex,
        attempt: u32,
        step: &mut Step,
    ) -> Result<(), Illegal> {
        self.open_attempt(task, attempt)?;
        if self.state(task)?.is_placed {
            return Err(Illegal::AlreadyPlaced);
        }
        self.touch(task, step, |state| state.is_placed = true);
        Ok(())
    }

    /// An agent got an attempt. The first time counts for the timeout; a redelivery does not start
    /// it again.
    pub(super) fn started(
        &mut self,
        task: TaskIndex,
        attempt: u32,
        (consumer, deliveries): (String, u32),
        step: &mut Step,
    ) -> Result<(), Illegal> {
        self.open_attempt(task, attempt)?;
        let state = self.state(task)?;
        if state.status == TaskStatus::Running {
            // Records may be read twice; an older one says nothing new.
            if deliveries > state.deliveries {
                self.touch(task, step, |state| {
                    state.consumer = consumer;
                    state.deliveries = deliveries;
                });
            }
            return Ok(());
        }
        let now = step.now;
        let asked = (state.resolving, state.due);
        let due = self.timeout_ms(task).map(|timeout_ms| now.plus(timeout_ms));
        self.become_status(task, TaskStatus::Running, step, |state| {
            state.is_placed = true;
            state.consumer = consumer;
            state.deliveries = deliveries;
            state.started_at = Some(now);
            // A shard that was asked to decide still has to answer.
            (state.resolving, state.due) = match asked {
                (Some(resolution), repeat) => (Some(resolution), repeat),
                (None, _) => (None, due),
            };
        });
        Ok(())
    }

    /// The answer to what an attempt asked came. One to an earlier question is no answer.
    pub(super) fn provide_input(
        &mut self,
        task: TaskIndex,
        attempt: u32,
        step: &mut Step,
    ) -> Result<(), Illegal> {
        let (status, current) = (self.state(task)?.status, self.attempt(task));
        if status != TaskStatus::WaitingInput {
            return Err(Illegal::NotWaitingInput { status });
        }
        if attempt != current {
            return Err(Illegal::StaleAttempt { current });
        }
        self.become_status(task, TaskStatus::Pending, step, |state| {
            state.reason = String::new();
        });
        self.review(task, step);
        Ok(())
    }

    /// Does whatever is due.
    pub(super) fn tick(&mut self, step: &mut Step) {
        let now = step.now;
        if self.head.ending.is_none() && self.head.deadline_at.is_some_and(|due| due <= now) {
            self.begin_end(RunStatus::Failed, None, "deadline", step);
        }
        let due = self.index.timers.range(..=(now, TaskIndex::MAX));
        let due: Vec<TaskIndex> = due.map(|(_, task)| *task).collect();
        for task in due {
            // The one before it may have ended the run.
            let state = self.tasks.get(place(task));
            if state.is_some_and(|state| state.due.is_some_and(|due| due <= now)) {
                self.fire(task, step);
                self.drain(step);
            }
        }
    }

    /// When something happens by itself next: a task's timer, the deadline, or the end of an open
    /// workflow that nobody adds to. None when the run is final.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        if self.head.status.is_final() {
            return None;
        }
        let sums = self.index.sums;
        let is_idle = sums.unfinished == 0
            && sums.provisional == 0
            && self.index.held.is_empty()
            && self.head.ending.is_none();
        let task = self.index.timers.first().map(|(due, _)| *due);
        let run = self.head.deadline_at.filter(|_| self.head.ending.is_none());
        let idle = self.idle_until().filter(|_| is_idle);
        [task, run, idle].into_iter().flatten().min()
    }

    /// Whether tasks are left that could be dispatched now: send [`super::Event::Continue`].
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.head.status == RunStatus::Running
            && self.head.ending.is_none()
            && !self.index.ready.is_empty()
            && self.has_slot()
    }

    /// Dispatches what is ready, as far as there are slots.
    pub(super) fn dispatch(&mut self, step: &mut Step) {
        let mut left = DISPATCHES_MAX;
        while left > 0 && self.has_more() {
            left = left.saturating_sub(1);
            let Some(turn) = self.index.ready.pop_first() else {
                return;
            };
            let task = turn.task;
            if self.is_gated(task) {
                self.ask(task, step);
                continue;
            }
            let now = step.now;
            let definition = self.definition.tasks.get(place(task));
            let timeout_ms = definition.map_or(0, |task| task.queue_timeout_ms);
            self.become_status(task, TaskStatus::Queued, step, |state| {
                state.attempt = state.attempt.saturating_add(1);
                state.due = (timeout_ms > 0).then(|| now.plus(timeout_ms));
                state.cause = None;
                state.reason = String::new();
            });
            let attempt = self.attempt(task);
            step.effects.push(Effect::Dispatch { task, attempt });
        }
    }

    /// Whether one more task may be at work. Who is asked about its condition takes a slot: the
    /// next in turn must not overtake it.
    fn has_slot(&self) -> bool {
        let limit = match self.definition.strategy {
            Strategy::Sequential => 1,
            Strategy::Parallel
            | Strategy::Adaptive
            | Strategy::PriorityBased
            | Strategy::CapabilityMatched
            | Strategy::Hybrid => {
                let most = self.definition.max_parallel_tasks;
                most.min(self.head.parallel_limit).max(1)
            },
        };
        let sums = self.index.sums;
        sums.open.saturating_add(sums.asked) < limit
    }

    /// Whether a task has a condition that nobody evaluated yet.
    fn is_gated(&self, task: TaskIndex) -> bool {
        let definition = self.definition.tasks.get(place(task));
        let gate = self.tasks.get(place(task)).map(|state| state.gate);
        definition.is_some_and(|task| !task.condition.is_empty()) && gate == Some(Gate::Closed)
    }

    fn ask(&mut self, task: TaskIndex, step: &mut Step) {
        let due = step.now.plus(REPEAT_MS);
        self.touch(task, step, |state| {
            state.gate = Gate::Asked;
            state.due = Some(due);
        });
        step.effects.push(Effect::Evaluate { task });
    }

    /// Longest time that a task may run, in ms.
    fn timeout_ms(&self, task: TaskIndex) -> Option<u64> {
        let definition = self.definition.tasks.get(place(task))?;
        match (definition.timeout_ms, definition.completion) {
            (0, Completion::Ack) => None,
            (0, Completion::Signal) => Some(SIGNAL_TIMEOUT_MS),
            (timeout_ms, Completion::Ack | Completion::Signal) => Some(timeout_ms),
        }
    }

    fn fire(&mut self, task: TaskIndex, step: &mut Step) {
        let Some(state) = self.tasks.get(place(task)) else {
            return;
        };
        let is_placed = state.is_placed;
        match (state.status, state.resolving) {
            (TaskStatus::Queued | TaskStatus::Running, Some(resolution)) => {
                self.resolve(task, resolution, step);
            },
            (TaskStatus::Queued, None) if !is_placed => {
                self.void(task, step);
                self.fail(task, TaskStatus::TimedOut, "queue_timeout", step);
            },
            (TaskStatus::Queued | TaskStatus::Running, None) => {
                self.resolve(task, Resolution::TimedOut, step);
            },
            (TaskStatus::Awaited, _) => {
                let reason = "nobody added the task or signalled it within 24 h";
                self.fail(task, TaskStatus::Failed, reason, step);
            },
            (TaskStatus::Pending, _) if state.is_asked() => self.ask(task, step),
            (
                TaskStatus::Pending
                | TaskStatus::WaitingInput
                | TaskStatus::Succeeded
                | TaskStatus::Failed
                | TaskStatus::TimedOut
                | TaskStatus::DeadLettered
                | TaskStatus::Skipped
                | TaskStatus::Cancelled,
                _,
            ) => self.touch(task, step, |state| state.due = None),
        }
    }
}
