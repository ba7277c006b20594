//! The machine of a run: events in, effects out.
//!
//! It decides what is dispatched when, what an outcome means to the rest, and when the run is
//! over. It keeps one state for each task and derives everything else, so that a run that is
//! loaded from its stored states is the same as one that never left memory.
//!
//! Invariants
//! - An event that is refused changes nothing.
//! - Attempt n + 1 of a task is dispatched only after attempt n has an outcome.
//! - No more tasks are at work than the limit allows, and none is dispatched while the run is
//!   paused or coming to an end.
//! - A run whose attempts get their outcomes ends.
//!
//! Read `state` for what is stored, `index` and `review` for how one change leads to the
//! next, `outcome` for what a failure means, `ending`, `dispatch` and `grow` for the rest;
//! `explain` answers why a task is not running.

use std::collections::BTreeSet;

use crate::{
    time::Timestamp,
    workflow::{
        definition::{WorkflowDefinition, graph_of},
        graph::{Graph, TaskIndex, place},
        status::RunStatus,
    },
};

mod dispatch;
mod ending;
mod event;
mod explain;
mod grow;
mod index;
mod outcome;
mod review;
mod state;

use self::index::{Index, Step};
pub use self::{
    dispatch::{AWAITED_MS, DISPATCHES_MAX, SIGNAL_TIMEOUT_MS},
    ending::OPEN_IDLE_MS,
    event::{Corrupt, Effect, Entry, Event, Illegal, Outcome, Refused, Signal},
    explain::Waits,
    state::{Ending, Gate, Head, Mark, Parts, REASON_BYTES_MAX, Resolution, TaskState},
};

/// A run of a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Run {
    definition: WorkflowDefinition,
    graph: Graph,
    head: Head,
    tasks: Vec<TaskState>,
    index: Index,
    changed: BTreeSet<TaskIndex>,
}

impl Run {
    /// Starts a run of a checked definition; `graph` is what the check made of it. Tasks that an
    /// open workflow names and nobody added are awaited from now on.
    #[must_use]
    pub fn start(
        definition: WorkflowDefinition,
        graph: Graph,
        now: Timestamp,
    ) -> (Self, Vec<Effect>) {
        let definition = definition.with_awaited();
        let states = definition.tasks.iter();
        let tasks = states.map(|task| grow::first_state(task, now)).collect();
        let mut run = Self {
            head: grow::first_head(&definition, now),
            definition,
            graph,
            tasks,
            ..Self::default()
        };
        let effects = run.begin(now);
        (run, effects)
    }

    /// The run that is stored as `parts`.
    ///
    /// # Errors
    /// The parts do not belong together, or the definition is not one that was checked.
    pub fn load(parts: Parts) -> Result<Self, Corrupt> {
        let Parts {
            definition,
            head,
            tasks,
        } = parts;
        let graph = graph_of(&definition).map_err(Corrupt::Definition)?;
        if tasks.len() != graph.len() {
            return Err(Corrupt::Count {
                states: tasks.len(),
                tasks: graph.len(),
            });
        }
        let mut run = Self {
            definition,
            graph,
            head,
            tasks,
            ..Self::default()
        };
        run.rebuild();
        Ok(run)
    }

    /// What is to be stored of the run. A store that keeps up writes the head and the tasks of
    /// [`Self::take_changed`] instead.
    #[must_use]
    pub fn parts(&self) -> Parts {
        Parts {
            definition: self.definition.clone(),
            head: self.head.clone(),
            tasks: self.tasks.clone(),
        }
    }

    /// Applies an event and answers what is owed.
    ///
    /// # Errors
    /// Why the event is not legal here; it has changed nothing.
    pub fn apply(&mut self, event: Event, now: Timestamp) -> Result<Vec<Effect>, Illegal> {
        let mut step = Step::new(now);
        self.take(event, &mut step)?;
        Ok(self.conclude(step))
    }

    /// Applies one of several events that come together, and answers what is owed but for
    /// dispatches: send [`Event::Continue`] behind the last of them. Each event by itself may
    /// dispatch as much as one step of a store can bear.
    ///
    /// # Errors
    /// Why the event is not legal here; it has changed nothing.
    pub fn apply_one_of(&mut self, event: Event, now: Timestamp) -> Result<Vec<Effect>, Illegal> {
        let mut step = Step::new(now);
        self.take(event, &mut step)?;
        self.drain(&mut step);
        self.finish(&mut step);
        Ok(step.effects)
    }

    /// The tasks whose state changed since this was asked last, in their order.
    pub fn take_changed(&mut self) -> Vec<TaskIndex> {
        std::mem::take(&mut self.changed).into_iter().collect()
    }

    /// What was asked for, with the tasks that were added or are awaited.
    #[must_use]
    pub const fn definition(&self) -> &WorkflowDefinition {
        &self.definition
    }

    /// Who waits for whom.
    #[must_use]
    pub const fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The state of the run.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// Where the run is.
    #[must_use]
    pub const fn status(&self) -> RunStatus {
        self.head.status
    }

    /// Whether the run is coming to an end before its tasks do.
    #[must_use]
    pub const fn is_ending(&self) -> bool {
        self.head.ending.is_some() && !self.head.status.is_final()
    }

    /// The states of the tasks, in their order.
    #[must_use]
    pub fn tasks(&self) -> &[TaskState] {
        &self.tasks
    }

    /// The state of a task.
    #[must_use]
    pub fn task(&self, task: TaskIndex) -> Option<&TaskState> {
        self.tasks.get(place(task))
    }

    /// The id of a task.
    #[must_use]
    pub fn id(&self, task: TaskIndex) -> Option<&str> {
        let definition = self.definition.tasks.get(place(task))?;
        Some(&definition.id)
    }

    /// The task of that id.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<TaskIndex> {
        self.index.ids.get(id).copied()
    }

    fn take(&mut self, event: Event, step: &mut Step) -> Result<(), Illegal> {
        match event {
            Event::Placed { task, attempt } => self.placed(task, attempt, step),
            Event::Started {
                task,
                attempt,
                consumer,
                deliveries,
            } => self.started(task, attempt, (consumer, deliveries), step),
            Event::Settled {
                task,
                attempt,
                outcome,
            } => self.settled(task, attempt, outcome, step),
            Event::Evaluated { task, holds } => self.evaluated(task, holds, step),
            Event::Signalled { task, signal } => self.signalled(task, signal, step),
            Event::ProvideInput { task, attempt } => self.provide_input(task, attempt, step),
            Event::Undeliverable {
                task,
                attempt,
                reason,
            } => self.undeliverable(task, attempt, reason, step),
            Event::Pause { reason } => self.pause(&reason, step),
            Event::Resume => self.resume(step),
            Event::Cancel { reason } => {
                self.is_going()?;
                self.begin_end(RunStatus::Cancelled, None, &reason, step);
                Ok(())
            },
            Event::Retry { task } => self.retry(task, step),
            Event::Close => self.close(step),
            Event::Tick => {
                if !self.head.status.is_final() {
                    self.tick(step);
                }
                Ok(())
            },
            Event::ParallelLimit(limit) => {
                self.is_going()?;
                self.head.parallel_limit = limit.max(1);
                Ok(())
            },
            Event::Continue => Ok(()),
        }
    }

    /// The first step of a run.
    fn begin(&mut self, now: Timestamp) -> Vec<Effect> {
        self.changed = (0..).take(self.tasks.len()).collect();
        let mut step = Step::new(now);
        self.rebuild();
        self.review_all(&mut step);
        self.conclude(step)
    }

    /// Works off what a step has begun.
    fn conclude(&mut self, mut step: Step) -> Vec<Effect> {
        self.drain(&mut step);
        self.dispatch(&mut step);
        self.finish(&mut step);
        step.effects
    }

    fn pause(&mut self, reason: &str, step: &mut Step) -> Result<(), Illegal> {
        self.is_going()?;
        if self.head.status == RunStatus::Paused {
            return Err(Illegal::AlreadyPaused);
        }
        self.set_run(RunStatus::Paused, reason, step);
        Ok(())
    }

    /// Goes on; who was held counts as lost, and its dependants are skipped.
    fn resume(&mut self, step: &mut Step) -> Result<(), Illegal> {
        self.is_going()?;
        if self.head.status != RunStatus::Paused {
            return Err(Illegal::NotPaused);
        }
        self.set_run(RunStatus::Running, "", step);
        while let Some(task) = self.index.held.first().copied() {
            self.touch(task, step, |state| state.mark = Mark::Plain);
        }
        Ok(())
    }

    fn close(&mut self, step: &mut Step) -> Result<(), Illegal> {
        self.is_going()?;
        if !self.definition.is_open {
            return Err(Illegal::NotOpenWorkflow);
        }
        if self.head.is_closed {
            return Err(Illegal::AlreadyClosed);
        }
        self.head.is_closed = true;
        step.record(None, Entry::Closed);
        Ok(())
    }

    /// Checks that the run is neither final nor coming to an end.
    fn is_going(&self) -> Result<(), Illegal> {
        let status = self.head.status;
        match &self.head.ending {
            _ if status.is_final() => Err(Illegal::RunIsFinal { status }),
            Some(ending) => Err(Illegal::IsEnding {
                status: ending.status,
            }),
            None => Ok(()),
        }
    }

    fn state(&self, task: TaskIndex) -> Result<&TaskState, Illegal> {
        self.task(task).ok_or(Illegal::UnknownTask { task })
    }
}

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "an overflow in a test fails it, as it should"
)]
mod laws;
#[cfg(test)]
mod tests;
