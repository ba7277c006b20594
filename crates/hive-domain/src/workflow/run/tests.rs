//! Each rule of a run on an example.

use super::*;
use crate::workflow::{
    Completion, DependencyMode, FailurePolicy, Limits, Quorum, Strategy, TaskDefinition,
    TaskStatus, definition::check,
};

mod endings;
mod failures;
mod modes;
mod shapes;
mod timers;

/// A run and the words for what it owes.
struct Bench {
    run: Run,
    now: u64,
    owed: Vec<String>,
}

/// A definition of tasks like `a`, `b<a` and `c<a,b`, one word each.
fn flow(words: &str) -> WorkflowDefinition {
    let tasks = words.split_whitespace().map(|word| {
        let (id, needs) = word.split_once('<').unwrap_or((word, ""));
        TaskDefinition {
            id: id.to_owned(),
            kind: "worker".to_owned(),
            dependencies: needs
                .split(',')
                .filter(|need| !need.is_empty())
                .map(str::to_owned)
                .collect(),
            ..TaskDefinition::default()
        }
    });
    WorkflowDefinition {
        workflow_id: "w".to_owned(),
        tasks: tasks.collect(),
        ..WorkflowDefinition::default()
    }
}

/// The same, every task with that policy.
fn with_policy(words: &str, policy: FailurePolicy) -> WorkflowDefinition {
    WorkflowDefinition {
        on_failure: policy,
        ..flow(words)
    }
}

/// The same in that mode.
fn in_mode(words: &str, mode: DependencyMode) -> WorkflowDefinition {
    WorkflowDefinition {
        dependency_mode: mode,
        ..flow(words)
    }
}

fn edit(
    mut definition: WorkflowDefinition,
    id: &str,
    change: impl FnOnce(&mut TaskDefinition),
) -> WorkflowDefinition {
    let found = definition.tasks.iter_mut().find(|task| task.id == id);
    change(found.expect("the task is there"));
    definition
}

impl Bench {
    fn new(definition: WorkflowDefinition) -> Self {
        let graph = check(&definition, &Limits::default()).expect("it has no faults");
        let (run, effects) = Run::start(definition, graph, Timestamp(0));
        let mut bench = Self {
            run,
            now: 0,
            owed: Vec::new(),
        };
        bench.owed = bench.words(&effects);
        bench
    }

    fn task(&self, id: &str) -> TaskIndex {
        self.run.find(id).expect("the task is there")
    }

    fn state(&self, id: &str) -> &TaskState {
        self.run.task(self.task(id)).expect("the task is there")
    }

    fn attempt(&self, id: &str) -> u32 {
        self.state(id).attempt
    }

    /// Words for effects, the history left out.
    fn words(&self, effects: &[Effect]) -> Vec<String> {
        let id = |task: &TaskIndex| self.run.id(*task).unwrap();
        let words = effects.iter().filter_map(|effect| match effect {
            Effect::Dispatch { task, attempt } => Some(format!("dispatch {}/{attempt}", id(task))),
            Effect::Void { task, attempt } => Some(format!("void {}/{attempt}", id(task))),
            Effect::Resolve {
                task,
                attempt,
                resolution,
            } => Some(format!("resolve {}/{attempt} {resolution:?}", id(task))),
            Effect::Evaluate { task } => Some(format!("evaluate {}", id(task))),
            Effect::DropResult { task } => Some(format!("drop {}", id(task))),
            Effect::Record { .. } => None,
            Effect::Finished { status } => Some(format!("finished {status}")),
        });
        words.collect()
    }

    fn apply(&mut self, event: Event) -> Vec<String> {
        let effects = self.run.apply(event, Timestamp(self.now));
        self.words(&effects.expect("it is legal"))
    }

    fn refused(&mut self, event: Event) -> Illegal {
        let before = self.run.clone();
        let refused = self.run.apply(event, Timestamp(self.now)).unwrap_err();
        assert_eq!(self.run, before);
        refused
    }

    fn place(&mut self, id: &str) {
        let (task, attempt) = (self.task(id), self.attempt(id));
        assert!(self.apply(Event::Placed { task, attempt }).is_empty());
    }

    fn begin(&mut self, id: &str, deliveries: u32) {
        let (task, attempt) = (self.task(id), self.attempt(id));
        self.apply(Event::Started {
            task,
            attempt,
            consumer: format!("c{deliveries}"),
            deliveries,
        });
    }

    fn settle(&mut self, id: &str, outcome: Outcome) -> Vec<String> {
        let (task, attempt) = (self.task(id), self.attempt(id));
        self.apply(Event::Settled {
            task,
            attempt,
            outcome,
        })
    }

    fn succeed(&mut self, id: &str) -> Vec<String> {
        self.settle(id, Outcome::Succeeded { has_result: true })
    }

    fn fail(&mut self, id: &str) -> Vec<String> {
        let reason = "broke".to_owned();
        self.settle(id, Outcome::Failed { reason })
    }

    fn cancelled(&mut self, id: &str) -> Vec<String> {
        let reason = "told to".to_owned();
        self.settle(id, Outcome::Cancelled { reason })
    }

    fn suspend(&mut self, id: &str) -> Vec<String> {
        let prompt = "which one?".to_owned();
        self.settle(id, Outcome::Suspended { prompt })
    }

    fn cancel(&mut self) -> Vec<String> {
        let reason = "enough".to_owned();
        self.apply(Event::Cancel { reason })
    }

    fn pause(&mut self) -> Vec<String> {
        let reason = "lunch".to_owned();
        self.apply(Event::Pause { reason })
    }

    fn retry(&mut self, id: &str) -> Vec<String> {
        let task = self.task(id);
        self.apply(Event::Retry { task })
    }

    fn tick(&mut self, now: u64) -> Vec<String> {
        self.now = now;
        self.apply(Event::Tick)
    }

    fn add(&mut self, words: &str) -> Result<Vec<String>, Refused> {
        let added = flow(words).tasks;
        let now = Timestamp(self.now);
        let effects = self.run.add_tasks(added, &Limits::default(), now)?;
        Ok(self.words(&effects))
    }

    /// Where each task is, e.g. `a:succeeded b:queued`.
    fn states(&self) -> String {
        let tasks = self.run.definition().tasks.iter().zip(self.run.tasks());
        let words = tasks.map(|(task, state)| format!("{}:{}", task.id, state.status));
        words.collect::<Vec<_>>().join(" ")
    }
}
