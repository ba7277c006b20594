//! What is derived from the states of the tasks, and the one place where a state changes.
//!
//! Each change goes through [`Run::become_status`] or [`Run::touch`]: they compare what the task
//! adds to the sums before and after, so that the index cannot drift from the states. What a
//! change means to the dependants is noted, and worked off in `review`.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

use super::{
    Run,
    event::{Effect, Entry},
    review::Leave,
    state::{Gate, Mark, TaskState, clip},
};
use crate::{
    time::Timestamp,
    workflow::{
        definition::{FailurePolicy, Strategy},
        graph::{TaskIndex, place},
        status::TaskStatus,
    },
};

/// What a task is to those who depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Verdict {
    /// Not known yet.
    #[default]
    Open,
    /// They may build on it.
    Satisfied,
    /// It will give them nothing.
    Lost,
}

/// The order of the ready tasks; the smallest goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    priority: Reverse<u8>,
    tail: Reverse<u32>,
    rank: u32,
    pub(super) task: TaskIndex,
}

/// How many tasks are in which situation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sums {
    /// Queued or running.
    pub(super) open: u32,
    /// Their condition is being evaluated.
    pub(super) asked: u32,
    /// Not final.
    pub(super) unfinished: u32,
    /// Waiting for input, or awaited.
    pub(super) outside: u32,
    /// Provisional.
    pub(super) provisional: u32,
    /// Failed, in a way that fails the run.
    pub(super) failures: u32,
}

/// All that is derived.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Index {
    pub(super) ids: BTreeMap<String, TaskIndex>,
    pub(super) verdicts: Vec<Verdict>,
    pub(super) satisfied: Vec<u32>,
    pub(super) lost: Vec<u32>,
    pub(super) ready: BTreeSet<Turn>,
    pub(super) timers: BTreeSet<(Timestamp, TaskIndex)>,
    pub(super) held: BTreeSet<TaskIndex>,
    pub(super) sums: Sums,
}

/// What one event has led to so far.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) now: Timestamp,
    pub(super) effects: Vec<Effect>,
    /// Tasks whose dependants do not know of their new verdict yet.
    pub(super) moved: VecDeque<(TaskIndex, Verdict, Verdict)>,
}

impl Step {
    pub(super) const fn new(now: Timestamp) -> Self {
        Self {
            now,
            effects: Vec::new(),
            moved: VecDeque::new(),
        }
    }

    pub(super) fn record(&mut self, task: Option<TaskIndex>, what: Entry) {
        self.effects.push(Effect::Record { task, what });
    }
}

impl Run {
    /// Moves a task to another state, and lets `change` write the rest of it. A step that no rule
    /// allows changes nothing; callers have asked before.
    pub(super) fn become_status(
        &mut self,
        task: TaskIndex,
        status: TaskStatus,
        step: &mut Step,
        change: impl FnOnce(&mut TaskState),
    ) {
        let is_legal = self
            .tasks
            .get(place(task))
            .is_some_and(|state| state.status.may_become(status));
        debug_assert!(is_legal, "task {task} may not become {status}");
        if !is_legal {
            return;
        }
        let now = step.now;
        self.touch(task, step, |state| {
            set_status(state, status, now);
            change(state);
        });
        self.record_status(task, step);
    }

    /// Sends a cancelled attempt back to those that wait: through both states at once, so that its
    /// dependants see neither a loss nor its end. `reason` says why it was cancelled.
    pub(super) fn requeue(&mut self, task: TaskIndex, reason: &str, step: &mut Step) {
        let now = step.now;
        let what = Entry::Became {
            status: TaskStatus::Cancelled,
            attempt: self.attempt(task),
            reason: clip(reason),
        };
        step.record(Some(task), what);
        self.touch(task, step, |state| {
            if state.status.may_become(TaskStatus::Cancelled) {
                set_status(state, TaskStatus::Cancelled, now);
                set_status(state, TaskStatus::Pending, now);
                state.cause = None;
                state.reason = String::new();
            }
        });
        self.record_status(task, step);
        self.review(task, step);
    }

    /// Changes the state of a task without moving it.
    pub(super) fn touch(
        &mut self,
        task: TaskIndex,
        step: &mut Step,
        change: impl FnOnce(&mut TaskState),
    ) {
        self.count(task, false);
        let was_pending = self.is_pending(task);
        if let Some(state) = self.tasks.get_mut(place(task)) {
            change(state);
        }
        self.count(task, true);
        if was_pending && !self.is_pending(task) {
            let turn = self.turn(task);
            self.index.ready.remove(&turn);
        }
        let new = self.verdict(task);
        if let Some(slot) = self.index.verdicts.get_mut(place(task))
            && *slot != new
        {
            step.moved.push_back((task, *slot, new));
            *slot = new;
        }
        self.changed.insert(task);
    }

    /// Derives everything anew.
    pub(super) fn rebuild(&mut self) {
        let count = self.tasks.len();
        let ids = (0..).zip(&self.definition.tasks);
        self.index = Index {
            ids: ids.map(|(task, is)| (is.id.clone(), task)).collect(),
            verdicts: Vec::with_capacity(count),
            satisfied: vec![0; count],
            lost: vec![0; count],
            ..Index::default()
        };
        for task in (0..).take(count) {
            self.count(task, true);
            let verdict = self.verdict(task);
            self.index.verdicts.push(verdict);
            for next in self.graph.dependants(task) {
                self.index.weigh(*next, verdict, true);
            }
        }
        for task in (0..).take(count) {
            let is_ready = self.is_pending(task)
                && self.leave(task) == Leave::Go
                && self.gate(task) != Gate::Asked;
            if is_ready {
                let turn = self.turn(task);
                self.index.ready.insert(turn);
            }
        }
    }

    /// What the failure of a task means.
    pub(super) fn policy(&self, task: TaskIndex) -> FailurePolicy {
        let own = self.definition.tasks.get(place(task));
        own.and_then(|task| task.on_failure)
            .unwrap_or(self.definition.on_failure)
    }

    fn verdict(&self, task: TaskIndex) -> Verdict {
        let Some(state) = self.tasks.get(place(task)) else {
            return Verdict::Open;
        };
        if !state.status.is_final() || state.is_provisional() || state.is_held() {
            Verdict::Open
        } else if state.status == TaskStatus::Succeeded
            || state.is_own_failure() && self.policy(task) == FailurePolicy::Continue
        {
            Verdict::Satisfied
        } else {
            Verdict::Lost
        }
    }

    pub(super) fn turn(&self, task: TaskIndex) -> Turn {
        let strategy = self.definition.strategy;
        let is_by_graph = strategy == Strategy::Sequential || self.is_optimistic();
        let priority = match self.definition.tasks.get(place(task)) {
            Some(task) if strategy.is_by_priority() && !is_by_graph => task.priority,
            Some(_) | None => 0,
        };
        let tail = if is_by_graph {
            0
        } else {
            self.graph.tail(task)
        };
        Turn {
            priority: Reverse(priority),
            tail: Reverse(tail),
            rank: self.graph.rank(task),
            task,
        }
    }

    pub(super) fn need_count(&self, task: TaskIndex) -> u32 {
        u32::try_from(self.graph.dependencies(task).len()).unwrap_or(u32::MAX)
    }

    pub(super) fn quorum(&self, task: TaskIndex) -> u32 {
        let quorum = self
            .definition
            .tasks
            .get(place(task))
            .map(|task| task.quorum);
        quorum.unwrap_or_default().of(self.need_count(task))
    }

    fn is_pending(&self, task: TaskIndex) -> bool {
        self.tasks
            .get(place(task))
            .is_some_and(|state| state.status == TaskStatus::Pending)
    }

    fn gate(&self, task: TaskIndex) -> Gate {
        self.tasks
            .get(place(task))
            .map_or(Gate::Closed, |state| state.gate)
    }

    /// Adds a task to the sums, or takes it out.
    fn count(&mut self, task: TaskIndex, is_in: bool) {
        let policy = self.policy(task);
        let Some(state) = self.tasks.get(place(task)) else {
            return;
        };
        let sums = &mut self.index.sums;
        let is_failure =
            state.is_own_failure() && !state.is_absorbed() && policy != FailurePolicy::Continue;
        let is_outside = matches!(state.status, TaskStatus::WaitingInput | TaskStatus::Awaited);
        for (sum, is_one) in [
            (&mut sums.open, state.status.is_open()),
            (&mut sums.asked, state.is_asked()),
            (&mut sums.unfinished, !state.status.is_final()),
            (&mut sums.outside, is_outside),
            (&mut sums.provisional, state.is_provisional()),
            (&mut sums.failures, is_failure),
        ] {
            if is_one {
                shift(sum, is_in);
            }
        }
        if state.is_held() {
            if is_in {
                self.index.held.insert(task);
            } else {
                self.index.held.remove(&task);
            }
        }
        if let Some(due) = state.due {
            if is_in {
                self.index.timers.insert((due, task));
            } else {
                self.index.timers.remove(&(due, task));
            }
        }
    }

    fn record_status(&self, task: TaskIndex, step: &mut Step) {
        if let Some(state) = self.tasks.get(place(task)) {
            let what = Entry::Became {
                status: state.status,
                attempt: state.attempt,
                reason: state.reason.clone(),
            };
            step.record(Some(task), what);
        }
    }
}

impl Index {
    /// Notes that a dependency of `task` has a verdict, or has it no more.
    pub(super) fn weigh(&mut self, task: TaskIndex, verdict: Verdict, is_in: bool) {
        let list = match verdict {
            Verdict::Open => return,
            Verdict::Satisfied => &mut self.satisfied,
            Verdict::Lost => &mut self.lost,
        };
        if let Some(sum) = list.get_mut(place(task)) {
            shift(sum, is_in);
        }
    }
}

/// Writes what every state of that status has in common.
fn set_status(state: &mut TaskState, status: TaskStatus, now: Timestamp) {
    state.status = status;
    state.due = None;
    state.resolving = None;
    state.mark = Mark::Plain;
    state.finished_at = status.is_final().then_some(now);
    if status == TaskStatus::Pending {
        state.is_placed = false;
        state.consumer = String::new();
        state.deliveries = 0;
        state.started_at = None;
    }
    if status.is_final() && state.gate == Gate::Asked {
        state.gate = Gate::Closed;
    }
}

fn shift(sum: &mut u32, is_in: bool) {
    *sum = if is_in {
        sum.saturating_add(1)
    } else {
        sum.saturating_sub(1)
    };
}

pub(super) fn at(list: &[u32], task: TaskIndex) -> u32 {
    list.get(place(task)).copied().unwrap_or(0)
}
