//! Large workflows take no more than their size: what would be quadratic takes minutes here.
//!
//! The bounds are for builds without optimisation on a machine with other work. They are far from
//! what is measured (see each test) and far from what a quadratic step would cost.

#![expect(
    clippy::disallowed_methods,
    reason = "the time that a decision takes is what is tested"
)]

use std::time::{Duration, Instant};

use hive_domain::{
    time::Timestamp,
    workflow::{
        DependencyMode, Effect, Event, FailurePolicy, Limits, Outcome, RunStatus, TaskDefinition,
        WorkflowDefinition,
        definition::check,
        run::{Parts, Run},
    },
};

const SIZE: u32 = 10_000;

fn workflow(needs: impl Fn(u32) -> Vec<u32>) -> WorkflowDefinition {
    let tasks = (0..SIZE).map(|n| TaskDefinition {
        id: format!("t{n}"),
        kind: "worker".to_owned(),
        dependencies: needs(n).iter().map(|need| format!("t{need}")).collect(),
        ..TaskDefinition::default()
    });
    WorkflowDefinition {
        workflow_id: "w".to_owned(),
        tasks: tasks.collect(),
        max_parallel_tasks: SIZE,
        ..WorkflowDefinition::default()
    }
}

fn start(definition: WorkflowDefinition) -> (Run, Vec<Effect>) {
    let limits = Limits {
        dependencies_max: SIZE as usize,
        ..Limits::default()
    };
    let graph = check(&definition, &limits).expect("it has no faults");
    Run::start(definition, graph, Timestamp(0))
}

/// Lets every task that is dispatched succeed, and answers how many did.
fn drive(run: &mut Run, effects: Vec<Effect>) -> u32 {
    let mut left = effects;
    let mut count = 0;
    while !run.status().is_final() {
        let mut next = Vec::new();
        for effect in left {
            if let Effect::Dispatch { task, attempt } = effect {
                count += 1;
                let outcome = Outcome::Succeeded { has_result: true };
                let event = Event::Settled {
                    task,
                    attempt,
                    outcome,
                };
                next.extend(run.apply(event, Timestamp(1)).expect("it is open"));
            }
        }
        if run.has_more() {
            next.extend(
                run.apply(Event::Continue, Timestamp(1))
                    .expect("it is legal"),
            );
        }
        left = next;
    }
    count
}

fn assert_quick(what: &str, begin: Instant) {
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(5), "{what} took {took:?}");
}

#[test]
fn a_chain_of_ten_thousand_is_driven_in_linear_time() {
    let begin = Instant::now();
    let (mut run, effects) = start(workflow(|n| n.checked_sub(1).into_iter().collect()));
    assert_eq!(drive(&mut run, effects), SIZE);
    assert_eq!(run.status(), RunStatus::Succeeded);
    assert_quick("a chain", begin);
}

#[test]
fn ten_thousand_tasks_before_one_and_behind_one_are_driven_in_linear_time() {
    let begin = Instant::now();
    let last = SIZE - 1;
    let needs = |n: u32| match n {
        0 => Vec::new(),
        n if n == last => (0..last).collect(),
        _ => vec![0],
    };
    for mode in &DependencyMode::ALL {
        let (mut run, effects) = start(WorkflowDefinition {
            dependency_mode: *mode,
            ..workflow(needs)
        });
        assert_eq!(drive(&mut run, effects), SIZE);
        assert_eq!(run.status(), RunStatus::Succeeded);
    }
    assert_quick("a fan", begin);
}

#[test]
fn a_failure_reaches_the_end_of_a_chain_in_linear_time() {
    let begin = Instant::now();
    for mode in &DependencyMode::ALL {
        let (mut run, _) = start(WorkflowDefinition {
            dependency_mode: *mode,
            on_failure: FailurePolicy::SkipDependents,
            ..workflow(|n| n.checked_sub(1).into_iter().collect())
        });
        let outcome = Outcome::TimedOut;
        let event = Event::Settled {
            task: 0,
            attempt: 1,
            outcome,
        };
        run.apply(event, Timestamp(1)).expect("it is open");
        assert_eq!(run.status(), RunStatus::Failed);
        run.apply(Event::Retry { task: 0 }, Timestamp(2))
            .expect("it failed");
        assert_eq!(run.status(), RunStatus::Running);
    }
    assert_quick("a failure", begin);
}

#[test]
fn a_large_run_is_cancelled_and_loaded_in_linear_time() {
    let begin = Instant::now();
    let (mut run, _) = start(workflow(|_| Vec::new()));
    let reason = "enough".to_owned();
    run.apply(Event::Cancel { reason }, Timestamp(1))
        .expect("it runs");
    assert_eq!(run.status(), RunStatus::Cancelled);
    let parts: Parts = run.parts();
    assert_eq!(
        Run::load(parts).expect("it was stored").status(),
        RunStatus::Cancelled
    );
    assert_quick("a cancel", begin);
}

#[test]
fn a_large_definition_is_checked_in_linear_time() {
    let mut definition = workflow(|n| (n.saturating_sub(20)..n).collect());
    for task in &mut definition.tasks {
        task.condition = "inputs.x > 7".to_owned();
    }
    let begin = Instant::now();
    check(&definition, &Limits::default()).expect("it has no faults");
    assert_quick("a check", begin);
    let begin = Instant::now();
    for task in &mut definition.tasks {
        task.dependencies.push("nobody".to_owned());
    }
    let faults = check(&definition, &Limits::default()).expect_err("nobody is unknown");
    assert_eq!(faults.len(), 201);
    assert_quick("a check with faults", begin);
}

#[test]
fn tasks_are_added_to_a_large_run_one_by_one() {
    let (mut run, _) = start(workflow(|n| n.checked_sub(1).into_iter().collect()));
    let limits = Limits {
        tasks_max: 20_000,
        ..Limits::default()
    };
    let begin = Instant::now();
    // Each one costs as much as the run is large: its order is made anew.
    for n in 0..50 {
        let task = TaskDefinition {
            id: format!("more{n}"),
            kind: "worker".to_owned(),
            dependencies: vec!["t9999".to_owned()],
            ..TaskDefinition::default()
        };
        run.add_tasks(vec![task], &limits, Timestamp(1))
            .expect("it has no faults");
    }
    assert_quick("adding tasks", begin);
}
