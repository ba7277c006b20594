//! What starts when: modes, conditions, slots and their order.

use super::*;

#[test]
fn a_strict_task_starts_when_all_it_needs_succeeded() {
    let mut bench = Bench::new(flow("a b c<a,b"));
    assert_eq!(bench.owed, ["dispatch a/1", "dispatch b/1"]);
    assert!(bench.succeed("a").is_empty());
    assert_eq!(bench.succeed("b"), ["dispatch c/1"]);
    assert_eq!(bench.succeed("c"), ["finished succeeded"]);
}

#[test]
fn a_best_effort_task_starts_with_the_quorum() {
    let definition = in_mode("a b c d<a,b,c", DependencyMode::BestEffort);
    let mut bench = Bench::new(definition.clone());
    assert!(bench.succeed("a").is_empty());
    assert_eq!(bench.succeed("c"), ["dispatch d/1"]);
    let any = edit(definition.clone(), "d", |task| task.quorum = Quorum::Any);
    assert_eq!(Bench::new(any).succeed("b"), ["dispatch d/1"]);
    let all = edit(definition, "d", |task| task.quorum = Quorum::Count(3));
    let mut bench = Bench::new(all);
    bench.succeed("a");
    assert!(bench.succeed("b").is_empty());
    assert_eq!(bench.succeed("c"), ["dispatch d/1"]);
}

#[test]
fn best_effort_absorbs_a_failure_that_a_dependant_can_do_without() {
    let mut bench = Bench::new(in_mode("a b c d<a,b,c", DependencyMode::BestEffort));
    assert!(bench.fail("a").is_empty());
    assert!(bench.state("a").is_absorbed());
    bench.succeed("b");
    assert_eq!(bench.succeed("c"), ["dispatch d/1"]);
    assert_eq!(bench.succeed("d"), ["finished succeeded"]);
}

#[test]
fn best_effort_fails_where_nobody_can_do_without() {
    let mut bench = Bench::new(in_mode("a b c d<a,b,c", DependencyMode::BestEffort));
    bench.fail("a");
    bench.place("c");
    assert_eq!(bench.fail("b"), ["resolve c/1 Cancelled"]);
    assert_eq!(bench.states(), "a:failed b:failed c:queued d:skipped");
    assert_eq!(bench.cancelled("c"), ["finished failed"]);
    // A task without dependants: nobody absorbs its failure.
    let mut bench = Bench::new(in_mode("a", DependencyMode::BestEffort));
    assert_eq!(bench.fail("a"), ["finished failed"]);
}

#[test]
fn an_impossible_quorum_skips_the_dependant_at_once() {
    let definition = WorkflowDefinition {
        on_failure: FailurePolicy::SkipDependents,
        ..in_mode("a b c d<a,b,c e<d", DependencyMode::BestEffort)
    };
    let mut bench = Bench::new(definition);
    bench.fail("a");
    bench.fail("b");
    assert_eq!(
        bench.states(),
        "a:failed b:failed c:queued d:skipped e:skipped"
    );
    assert_eq!(bench.state("e").cause, Some(bench.task("a")));
    assert_eq!(bench.state("d").reason, "dependency_failed: `a`");
    assert_eq!(bench.succeed("c"), ["finished failed"]);
}

#[test]
fn optimistic_tasks_start_at_once_in_the_order_of_the_graph() {
    let mut bench = Bench::new(in_mode("c<b a b<a", DependencyMode::Optimistic));
    assert_eq!(bench.owed, ["dispatch a/1", "dispatch b/1", "dispatch c/1"]);
    bench.succeed("c");
    bench.succeed("b");
    assert!(bench.state("c").is_provisional() && bench.state("b").is_provisional());
    assert_eq!(bench.succeed("a"), ["finished succeeded"]);
    assert!(!bench.state("c").is_provisional());
}

#[test]
fn what_was_built_on_a_failure_is_cancelled_and_its_result_dropped() {
    let definition = WorkflowDefinition {
        on_failure: FailurePolicy::SkipDependents,
        ..in_mode("a b<a c<b d<a e<a", DependencyMode::Optimistic)
    };
    let mut bench = Bench::new(definition);
    bench.succeed("b");
    bench.succeed("c");
    bench.place("d");
    assert_eq!(
        bench.fail("a"),
        ["drop b", "resolve d/1 Cancelled", "void e/1", "drop c"]
    );
    assert_eq!(
        bench.states(),
        "a:failed b:cancelled c:cancelled d:queued e:cancelled"
    );
    assert_eq!(bench.state("c").cause, Some(bench.task("a")));
    // The agent was faster than the cancel: its result does not count either.
    assert_eq!(bench.succeed("d"), ["drop d", "finished failed"]);
    assert_eq!(bench.state("d").reason, "dependency_failed: `a`");
}

#[test]
fn a_condition_is_asked_for_when_the_task_could_start() {
    let definition = edit(flow("a b<a c<b"), "b", |task| {
        task.condition = "true".to_owned();
    });
    let mut bench = Bench::new(definition);
    assert_eq!(bench.succeed("a"), ["evaluate b"]);
    let task = bench.task("b");
    let mut no = bench.run.clone();
    let holds = Ok(true);
    assert_eq!(
        bench.apply(Event::Evaluated { task, holds }),
        ["dispatch b/1"]
    );
    let holds = Ok(true);
    assert_eq!(
        bench.refused(Event::Evaluated { task, holds }),
        Illegal::NotAsked
    );
    std::mem::swap(&mut bench.run, &mut no);
    let holds = Ok(false);
    assert_eq!(
        bench.apply(Event::Evaluated { task, holds }),
        ["finished succeeded"]
    );
    assert_eq!(bench.states(), "a:succeeded b:skipped c:skipped");
}

#[test]
fn a_condition_without_an_answer_is_a_failure() {
    let definition = edit(flow("a"), "a", |task| {
        task.condition = "inputs.x".to_owned();
    });
    let mut bench = Bench::new(definition);
    assert_eq!(bench.owed, ["evaluate a"]);
    // Whoever was to evaluate it may be gone.
    assert_eq!(bench.tick(10_000), ["evaluate a"]);
    let holds = Err("no such key: x".to_owned());
    let owed = bench.apply(Event::Evaluated { task: 0, holds });
    assert_eq!(owed, ["finished failed"]);
    assert_eq!(bench.state("a").reason, "condition: no such key: x");
}

#[test]
fn a_sequential_run_has_one_task_at_work_in_topological_order() {
    let definition = WorkflowDefinition {
        strategy: Strategy::Sequential,
        ..edit(flow("a b c<a"), "c", |task| task.priority = 9)
    };
    let mut bench = Bench::new(definition);
    assert_eq!(bench.owed, ["dispatch a/1"]);
    assert_eq!(bench.succeed("a"), ["dispatch b/1"]);
    assert_eq!(bench.succeed("b"), ["dispatch c/1"]);
}

#[test]
fn priority_counts_only_where_the_strategy_says_so() {
    let definition = |strategy| WorkflowDefinition {
        strategy,
        max_parallel_tasks: 1,
        ..edit(flow("a b c<b"), "a", |task| task.priority = 5)
    };
    assert_eq!(
        Bench::new(definition(Strategy::Hybrid)).owed,
        ["dispatch a/1"]
    );
    assert_eq!(
        Bench::new(definition(Strategy::PriorityBased)).owed,
        ["dispatch a/1"]
    );
    // The longest way first: b has another one behind it.
    assert_eq!(
        Bench::new(definition(Strategy::Parallel)).owed,
        ["dispatch b/1"]
    );
    assert_eq!(
        Bench::new(definition(Strategy::CapabilityMatched)).owed,
        ["dispatch b/1"]
    );
}

#[test]
fn the_limit_moves_and_what_is_at_work_stays() {
    let mut bench = Bench::new(WorkflowDefinition {
        max_parallel_tasks: 3,
        ..flow("a b c d e f")
    });
    assert_eq!(bench.owed.len(), 3);
    assert!(bench.apply(Event::ParallelLimit(1)).is_empty());
    assert!(bench.succeed("a").is_empty());
    assert!(bench.succeed("b").is_empty());
    assert_eq!(bench.succeed("c"), ["dispatch d/1"]);
    assert_eq!(
        bench.apply(Event::ParallelLimit(9)),
        ["dispatch e/1", "dispatch f/1"]
    );
}

#[test]
fn one_answer_dispatches_a_thousand() {
    let words: Vec<String> = (0..2_500).map(|n| format!("t{n}")).collect();
    let mut bench = Bench::new(WorkflowDefinition {
        max_parallel_tasks: 2_200,
        ..flow(&words.join(" "))
    });
    assert_eq!(bench.owed.len(), DISPATCHES_MAX);
    assert!(bench.run.has_more());
    assert_eq!(bench.apply(Event::Continue).len(), DISPATCHES_MAX);
    assert_eq!(bench.apply(Event::Continue).len(), 200);
    assert!(!bench.run.has_more());
}

#[test]
fn an_attempt_is_known_by_its_number() {
    let mut bench = Bench::new(flow("a b<a"));
    let settled = |task, attempt| Event::Settled {
        task,
        attempt,
        outcome: Outcome::Succeeded { has_result: true },
    };
    assert_eq!(
        bench.refused(settled(0, 2)),
        Illegal::StaleAttempt { current: 1 }
    );
    assert_eq!(
        bench.refused(settled(7, 1)),
        Illegal::UnknownTask { task: 7 }
    );
    bench.suspend("a");
    let status = TaskStatus::WaitingInput;
    assert_eq!(bench.refused(settled(0, 1)), Illegal::NotOpen { status });
    assert_eq!(bench.apply(answer_to(0, 1)), ["dispatch a/2"]);
    assert_eq!(
        bench.refused(settled(0, 1)),
        Illegal::StaleAttempt { current: 2 }
    );
    bench.succeed("a");
    let status = TaskStatus::Succeeded;
    assert_eq!(
        bench.refused(settled(0, 2)),
        Illegal::AlreadyFinal { status }
    );
}

fn answer_to(task: TaskIndex, attempt: u32) -> Event {
    Event::ProvideInput { task, attempt }
}

#[test]
fn an_answer_is_to_the_question_that_is_open() {
    let mut bench = Bench::new(flow("a"));
    let status = TaskStatus::Queued;
    assert_eq!(
        bench.refused(answer_to(0, 1)),
        Illegal::NotWaitingInput { status }
    );
    bench.suspend("a");
    bench.apply(answer_to(0, 1));
    bench.suspend("a");
    assert_eq!(
        bench.refused(answer_to(0, 1)),
        Illegal::StaleAttempt { current: 2 }
    );
    assert_eq!(bench.apply(answer_to(0, 2)), ["dispatch a/3"]);
}

#[test]
fn a_suspended_task_frees_its_slot() {
    let mut bench = Bench::new(WorkflowDefinition {
        max_parallel_tasks: 1,
        ..flow("a b")
    });
    assert_eq!(bench.suspend("a"), ["dispatch b/1"]);
    assert_eq!(bench.state("a").reason, "which one?");
    assert!(bench.apply(answer_to(0, 1)).is_empty());
    assert_eq!(bench.succeed("b"), ["dispatch a/2"]);
}

#[test]
fn a_task_says_what_it_waits_for() {
    let definition = WorkflowDefinition {
        max_parallel_tasks: 1,
        ..in_mode("a b c<a,b d<c", DependencyMode::Strict)
    };
    let mut bench = Bench::new(edit(definition, "c", |task| {
        task.condition = "true".to_owned();
    }));
    let waits = |bench: &Bench, id: &str| bench.run.waits(bench.task(id)).unwrap();
    assert_eq!(waits(&bench, "a"), Waits::Queue { is_placed: false });
    assert_eq!(waits(&bench, "b"), Waits::Slot { ahead: 0 });
    let (open, missing) = (vec![0, 1], 2);
    assert_eq!(waits(&bench, "c"), Waits::Dependencies { open, missing });
    bench.pause();
    assert_eq!(waits(&bench, "b"), Waits::Resume);
    bench.apply(Event::Resume);
    bench.place("a");
    bench.begin("a", 1);
    let (consumer, since) = ("c1".to_owned(), Some(Timestamp(0)));
    assert_eq!(waits(&bench, "a"), Waits::Agent { consumer, since });
    bench.succeed("a");
    assert_eq!(waits(&bench, "a"), Waits::Over);
    let (open, missing) = (vec![1], 1);
    assert_eq!(waits(&bench, "c"), Waits::Dependencies { open, missing });
    bench.suspend("b");
    assert_eq!(waits(&bench, "b"), Waits::Input);
    bench.apply(answer_to(1, 1));
    bench.succeed("b");
    assert_eq!(waits(&bench, "c"), Waits::Condition);
    assert_eq!(bench.run.waits(9), None);
}
