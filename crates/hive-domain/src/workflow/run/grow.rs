//! How a run changes its shape: tasks are added, failed ones are tried again, or a new run begins
//! where an old one went wrong.

use std::collections::BTreeSet;

use super::{
    Run,
    dispatch::AWAITED_MS,
    event::{Effect, Entry, Illegal, Refused},
    index::Step,
    review::Leave,
    state::{Head, Mark, TaskState},
};
use crate::{
    time::Timestamp,
    workflow::{
        definition::{Known, Limits, TaskDefinition, WorkflowDefinition, check_added},
        graph::{TaskIndex, place},
        status::{RunStatus, TaskStatus},
    },
};

impl Run {
    /// Adds tasks to a run that goes on. They may depend on its tasks and on each other, and fill
    /// places where a task of an open workflow is awaited. All or nothing.
    ///
    /// The graph is checked and ordered anew, so the cost is that of the whole run.
    ///
    /// # Errors
    /// The run is final, about to be or closed; or all faults of the tasks.
    pub fn add_tasks(
        &mut self,
        added: Vec<TaskDefinition>,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<Vec<Effect>, Refused> {
        self.is_going()?;
        if self.head.is_closed {
            return Err(Illegal::AlreadyClosed.into());
        }
        let known = |id: &str| match self.index.ids.get(id) {
            None => Known::Nobody,
            Some(task) => match self.tasks.get(place(*task)).map(|state| state.status) {
                Some(TaskStatus::Awaited) => Known::Awaited(*task),
                Some(_) | None => Known::Task(*task),
            },
        };
        let addition = check_added(&added, &self.definition, &self.graph, known, limits)?;
        let mut step = Step::new(now);
        self.graph = addition.graph;
        self.head.added_at = now;
        for (task, definition) in addition.places.iter().copied().zip(added) {
            match self.definition.tasks.get_mut(place(task)) {
                Some(slot) => *slot = definition,
                None => self.definition.tasks.push(definition),
            }
            match self.tasks.get_mut(place(task)) {
                Some(slot) => *slot = TaskState::default(),
                None => self.tasks.push(TaskState::default()),
            }
            step.record(Some(task), Entry::Added);
            self.changed.insert(task);
        }
        for id in &addition.awaited {
            let definition = TaskDefinition::awaited(id);
            self.changed.extend(TaskIndex::try_from(self.tasks.len()));
            self.tasks.push(first_state(&definition, now));
            self.definition.tasks.push(definition);
        }
        self.rebuild();
        let mut new = addition.places;
        new.sort_unstable_by_key(|task| self.graph.rank(*task));
        for task in new {
            self.review(task, &mut step);
            self.drain(&mut step);
        }
        Ok(self.conclude(step))
    }

    /// A new run of the same definition, in which `task` and all that depends on it are still to
    /// be done, and whatever else succeeded for good is kept. Who had not succeeded begins anew
    /// too.
    ///
    /// # Errors
    /// There is no such task.
    pub fn rerun_from(
        &self,
        task: TaskIndex,
        now: Timestamp,
    ) -> Result<(Self, Vec<Effect>), Illegal> {
        self.state(task)?;
        let mut again: BTreeSet<TaskIndex> = [task].into();
        let mut left = vec![task];
        while let Some(task) = left.pop() {
            let next = self.graph.dependants(task).iter().copied();
            left.extend(next.filter(|next| again.insert(*next)));
        }
        let states = (0..).zip(&self.tasks).zip(&self.definition.tasks);
        let tasks = states
            .map(|((task, state), definition)| {
                let is_kept = state.status == TaskStatus::Succeeded
                    && !state.is_provisional()
                    && !again.contains(&task);
                if is_kept {
                    state.clone()
                } else {
                    first_state(definition, now)
                }
            })
            .collect();
        let mut run = Self {
            head: Head {
                is_closed: self.head.is_closed,
                ..first_head(&self.definition, now)
            },
            definition: self.definition.clone(),
            graph: self.graph.clone(),
            tasks,
            ..Self::default()
        };
        let effects = run.begin(now);
        Ok((run, effects))
    }

    /// Tries a failed task again, and with it all that was skipped or cancelled because of it.
    pub(super) fn retry(&mut self, task: TaskIndex, step: &mut Step) -> Result<(), Illegal> {
        let state = self.state(task)?;
        let status = self.head.status;
        let ending = self.head.ending.as_ref();
        match (status, ending) {
            (RunStatus::Succeeded | RunStatus::Cancelled, _) => {
                return Err(Illegal::RunIsFinal { status });
            },
            // What it cancels is still on its way; a moment later it has failed.
            (RunStatus::Running | RunStatus::Paused, Some(ending)) => {
                return Err(Illegal::IsEnding {
                    status: ending.status,
                });
            },
            (RunStatus::Running | RunStatus::Paused, None) | (RunStatus::Failed, _) => {},
        }
        let is_failure = state.status.is_failure() || state.status == TaskStatus::Cancelled;
        // Whoever the deadline took comes back as well: it had no other cause.
        let is_deadline = ending.is_some_and(|ending| ending.cause.is_none());
        let is_futile = !is_deadline && self.leave(task) == Leave::Never;
        if !is_failure || state.cause.is_some() || is_futile {
            // A failure that could not be tried would become a skip, and be forgotten.
            let lost = if is_futile { self.root(task) } else { None };
            let why = match state.cause.or(lost).and_then(|cause| self.id(cause)) {
                Some(cause) => format!("it cannot go on because of `{cause}`, retry that"),
                None => "only what failed is retried".to_owned(),
            };
            return Err(Illegal::NotRetryable {
                status: state.status,
                why,
            });
        }
        let back = |(number, state): &(TaskIndex, &TaskState)| {
            *number == task
                || state.status.is_final() && state.cause == Some(task)
                || is_deadline && state.mark == Mark::Swept && state.cause.is_none()
        };
        let states = (0..).zip(&self.tasks);
        let back: Vec<TaskIndex> = states.filter(back).map(|(number, _)| number).collect();
        let deadline_ms = self.definition.deadline_ms;
        self.head.deadline_at = (deadline_ms > 0).then(|| step.now.plus(deadline_ms));
        self.head.ending = None;
        if status != RunStatus::Running {
            self.set_run(RunStatus::Running, "", step);
        }
        for task in back {
            self.revive(task, step);
        }
        // All at once, not dependant by dependant: who lost two dependencies and got both back
        // must not be judged when it knows of one.
        self.rebuild();
        step.moved.clear();
        self.review_revived(step);
        Ok(())
    }
}

/// The state in which a task begins.
pub(super) fn first_state(definition: &TaskDefinition, now: Timestamp) -> TaskState {
    if definition.is_awaited() {
        TaskState {
            status: TaskStatus::Awaited,
            due: Some(now.plus(AWAITED_MS)),
            ..TaskState::default()
        }
    } else {
        TaskState::default()
    }
}

/// The state in which a run begins.
pub(super) fn first_head(definition: &WorkflowDefinition, now: Timestamp) -> Head {
    let deadline_ms = definition.deadline_ms;
    Head {
        parallel_limit: definition.max_parallel_tasks,
        started_at: now,
        added_at: now,
        deadline_at: (deadline_ms > 0).then(|| now.plus(deadline_ms)),
        ..Head::default()
    }
}
