//! Laws of any run, checked by code that asks the machine for states only, never for a decision.
//!
//! A world with a shard and agents drives random workflows: outcomes come in any order, twice and
//! late; people pause, cancel, retry and signal; routers crash and load what was stored.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::workflow::{
    DependencyMode, FailurePolicy, Limits, Strategy as Order, TaskDefinition, TaskStatus,
    definition::check,
};

mod chance;
mod world;

use self::{chance::Chance, world::World};

/// What an observer of effects and states has seen.
#[derive(Default)]
struct Observer {
    /// Each attempt that was dispatched.
    dispatched: BTreeSet<(TaskIndex, u32)>,
    /// Those of them that are over.
    closed: BTreeSet<(TaskIndex, u32)>,
    /// Those in the outbox.
    outbox: BTreeSet<(TaskIndex, u32)>,
    /// Tasks whose condition was found to hold.
    wanted: BTreeSet<TaskIndex>,
    /// Tasks whose condition is asked for.
    asked: BTreeSet<TaskIndex>,
    /// Whether the end was announced.
    is_finished: bool,
}

impl Observer {
    fn open(&self) -> usize {
        self.dispatched.difference(&self.closed).count()
    }

    /// Checks what one event led to. Filled and added tasks are new: `before` knows them not.
    fn see(&mut self, before: &[TaskState], run: &Run, effects: &[Effect]) {
        let mut at: BTreeMap<TaskIndex, TaskStatus> = (0..)
            .zip(before)
            .map(|(task, state)| (task, state.status))
            .collect();
        let mut has_dispatched = false;
        for effect in effects {
            match effect {
                Effect::Dispatch { task, attempt } => {
                    has_dispatched = true;
                    self.see_dispatch(run, *task, *attempt);
                },
                Effect::Void { task, attempt } => {
                    assert!(
                        self.outbox.remove(&(*task, *attempt)),
                        "a void of what is not there"
                    );
                    self.closed.insert((*task, *attempt));
                },
                Effect::Resolve { task, attempt, .. } => {
                    let key = (*task, *attempt);
                    assert!(self.dispatched.contains(&key) && !self.closed.contains(&key));
                    assert!(
                        !self.outbox.contains(&key),
                        "only what is placed is resolved"
                    );
                },
                Effect::Evaluate { task } => {
                    self.asked.insert(*task);
                },
                Effect::DropResult { task } => {
                    assert!(!run.tasks()[*task as usize].has_result);
                },
                Effect::Record { task, what } => match (task, what) {
                    (Some(task), Entry::Became { status, .. }) => {
                        let was = at.insert(*task, *status);
                        let was = was.unwrap_or_default();
                        assert!(was.may_become(*status), "{was} became {status}");
                    },
                    (Some(task), Entry::Added) => {
                        at.insert(*task, TaskStatus::Pending);
                    },
                    // A retry, which may end again at once.
                    (None, Entry::RunBecame { status, .. }) if !status.is_final() => {
                        self.is_finished = false;
                    },
                    (_, _) => {},
                },
                Effect::Finished { status } => {
                    assert!(!self.is_finished, "the end is announced once");
                    self.is_finished = true;
                    self.see_end(run, *status);
                },
            }
        }
        for (task, state) in (0..).zip(run.tasks()) {
            let known = at.get(&task).copied().unwrap_or(state.status);
            assert_eq!(known, state.status, "each step of a task is recorded");
        }
        if has_dispatched {
            assert_eq!(run.status(), RunStatus::Running);
            assert!(!run.is_ending(), "a run that ends dispatches nothing");
            let definition = run.definition();
            let most = if definition.strategy == Order::Sequential {
                1
            } else {
                definition.max_parallel_tasks.min(run.head().parallel_limit)
            };
            assert!(
                self.open() <= most as usize,
                "{} of {most} slots",
                self.open()
            );
        }
        self.see_states(run);
    }

    fn see_dispatch(&mut self, run: &Run, task: TaskIndex, attempt: u32) {
        let key = (task, attempt);
        assert!(self.dispatched.insert(key), "an attempt is dispatched once");
        self.outbox.insert(key);
        assert!(attempt > 0);
        if attempt > 1 {
            assert!(
                self.closed.contains(&(task, attempt - 1)),
                "its predecessor is over"
            );
        }
        let definition = &run.definition().tasks[task as usize];
        assert!(definition.condition.is_empty() || self.wanted.contains(&task));
        let satisfied = count(run, task, is_satisfied);
        let lost = count(run, task, is_lost);
        match run.definition().dependency_mode {
            DependencyMode::Strict => assert_eq!(satisfied, definition.dependencies.len()),
            DependencyMode::BestEffort => assert!(satisfied >= quorum(definition)),
            DependencyMode::Optimistic => assert_eq!(lost, 0),
        }
    }

    /// What holds of the states after any event.
    fn see_states(&self, run: &Run) {
        let tasks = run.tasks();
        let has = |test: fn(&TaskState) -> bool| tasks.iter().any(test);
        for (task, state) in (0..).zip(tasks) {
            let is_open = state.status.is_open();
            let key = (task, state.attempt);
            assert_eq!(
                is_open,
                self.dispatched.contains(&key) && !self.closed.contains(&key)
            );
            assert!(is_open || state.resolving.is_none());
            let is_hopeless = is_hopeless(run, task);
            if state.status == TaskStatus::Pending {
                assert!(!is_hopeless, "nobody waits in vain");
            }
            let is_given_up = matches!(state.status, TaskStatus::Skipped | TaskStatus::Cancelled)
                && state.cause.is_some()
                && state.mark != Mark::Swept;
            assert!(
                is_hopeless || !is_given_up,
                "nobody is given up who has a way"
            );
            if state.is_provisional() {
                assert_eq!(state.status, TaskStatus::Succeeded);
                assert!(!is_hopeless, "nothing is built on a loss");
                assert!(count(run, task, is_satisfied) < run.graph().dependencies(task).len());
            }
        }
        if run.status() == RunStatus::Running && !run.is_ending() && !run.definition().is_open {
            let goes_on = run.has_more()
                || has(|state| state.status.is_open() || state.is_asked())
                || has(|state| {
                    matches!(state.status, TaskStatus::WaitingInput | TaskStatus::Awaited)
                });
            assert!(goes_on, "a run that goes on has something that goes on");
        }
        if run.is_ending() {
            let is_left = |state: &TaskState| state.status.is_open();
            assert!(has(is_left), "a run that ends waits for shards");
        }
    }

    fn see_end(&self, run: &Run, status: RunStatus) {
        assert_eq!(run.status(), status);
        assert_eq!(self.open(), 0, "no attempt is open at the end");
        for state in run.tasks() {
            assert!(state.status.is_final() && !state.is_provisional() && !state.is_held());
        }
        let bad = |(task, state): (usize, &TaskState)| {
            is_failure(state)
                && !state.is_absorbed()
                && policy(run, task) != FailurePolicy::Continue
        };
        let has_failed = run.tasks().iter().enumerate().any(bad);
        let expected = match (&run.head().ending, has_failed) {
            (Some(ending), _) => ending.status,
            (None, true) => RunStatus::Failed,
            (None, false) => RunStatus::Succeeded,
        };
        assert_eq!(status, expected);
    }
}

fn policy(run: &Run, task: usize) -> FailurePolicy {
    let own = run.definition().tasks[task].on_failure;
    own.unwrap_or(run.definition().on_failure)
}

fn is_failure(state: &TaskState) -> bool {
    let is_failure = matches!(
        state.status,
        TaskStatus::Failed | TaskStatus::TimedOut | TaskStatus::DeadLettered
    ) || state.status == TaskStatus::Cancelled && state.mark != Mark::Swept;
    is_failure && state.cause.is_none()
}

fn is_satisfied(run: &Run, task: TaskIndex) -> bool {
    let state = &run.tasks()[task as usize];
    let is_continued = policy(run, task as usize) == FailurePolicy::Continue;
    state.status == TaskStatus::Succeeded && !state.is_provisional()
        || is_failure(state) && is_continued
}

fn is_lost(run: &Run, task: TaskIndex) -> bool {
    let state = &run.tasks()[task as usize];
    let is_over = state.status.is_final() && !state.is_held() && !state.is_provisional();
    is_over && !is_satisfied(run, task)
}

fn count(run: &Run, task: TaskIndex, test: fn(&Run, TaskIndex) -> bool) -> usize {
    let needs = run.graph().dependencies(task).iter();
    needs.filter(|need| test(run, **need)).count()
}

fn quorum(task: &TaskDefinition) -> usize {
    let all = u32::try_from(task.dependencies.len()).unwrap();
    task.quorum.of(all) as usize
}

fn is_hopeless(run: &Run, task: TaskIndex) -> bool {
    let definition = &run.definition().tasks[task as usize];
    let lost = count(run, task, is_lost);
    match run.definition().dependency_mode {
        DependencyMode::Strict | DependencyMode::Optimistic => lost > 0,
        DependencyMode::BestEffort => definition.dependencies.len() - lost < quorum(definition),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn every_run_keeps_the_laws_and_ends(
        seed in any::<u64>(),
        tasks in 1..60_usize,
        steps in 0..300_usize,
    ) {
        let mut world = World::new(seed, tasks);
        for _ in 0..steps {
            world.turn();
        }
        world.finish();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_small_run_keeps_the_laws_and_ends(
        seed in any::<u64>(),
        tasks in 1..7_usize,
        steps in 0..60_usize,
    ) {
        let mut world = World::new(seed, tasks);
        for _ in 0..steps {
            world.turn();
        }
        if seed % 3 == 0 {
            world.rerun();
        }
        world.finish();
    }
}
