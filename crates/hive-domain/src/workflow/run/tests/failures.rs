//! What a failure means, and how it is tried again.

use super::*;

#[test]
fn fail_workflow_cancels_what_runs_and_skips_the_rest() {
    let mut bench = Bench::new(flow("a b c d<a e"));
    bench.place("b");
    bench.begin("b", 1);
    bench.suspend("e");
    assert_eq!(bench.fail("a"), ["resolve b/1 Cancelled", "void c/1"]);
    assert!(bench.run.is_ending());
    assert_eq!(
        bench.states(),
        "a:failed b:running c:cancelled d:skipped e:cancelled"
    );
    assert_eq!(bench.state("d").cause, Some(0));
    assert_eq!(bench.cancelled("b"), ["finished failed"]);
    assert_eq!(bench.state("b").cause, Some(0));
    let ending = bench.run.head().ending.clone().unwrap();
    assert_eq!(ending.reason, "task `a` is failed: broke");
}

#[test]
fn a_success_that_beats_the_cancel_counts() {
    let mut bench = Bench::new(flow("a b"));
    bench.place("b");
    bench.fail("a");
    assert_eq!(bench.succeed("b"), ["finished failed"]);
    assert_eq!(bench.states(), "a:failed b:succeeded");
}

#[test]
fn skip_dependents_skips_those_alone() {
    let mut bench = Bench::new(with_policy("a b<a c<b d", FailurePolicy::SkipDependents));
    assert!(bench.fail("a").is_empty());
    assert_eq!(bench.states(), "a:failed b:skipped c:skipped d:queued");
    assert_eq!(bench.state("c").reason, "dependency_failed: `a`");
    assert_eq!(bench.succeed("d"), ["finished failed"]);
}

#[test]
fn dependants_go_on_after_a_failure_that_they_see_as_an_input() {
    let mut bench = Bench::new(with_policy("a b<a", FailurePolicy::Continue));
    let reason = "tried three times".to_owned();
    let owed = bench.settle("a", Outcome::DeadLettered { reason });
    assert_eq!(owed, ["dispatch b/1"]);
    assert_eq!(bench.succeed("b"), ["finished succeeded"]);
}

#[test]
fn a_task_decides_for_itself_what_its_failure_means() {
    let definition = with_policy("a b", FailurePolicy::Continue);
    let definition = edit(definition, "a", |task| {
        task.on_failure = Some(FailurePolicy::FailWorkflow);
    });
    let mut bench = Bench::new(definition);
    assert_eq!(bench.fail("a"), ["void b/1", "finished failed"]);
}

#[test]
fn a_cancel_by_the_shard_without_a_reason_in_the_run_is_a_failure() {
    let mut bench = Bench::new(with_policy("a b<a", FailurePolicy::SkipDependents));
    assert_eq!(bench.cancelled("a"), ["finished failed"]);
    assert_eq!(bench.states(), "a:cancelled b:skipped");
    assert_eq!(bench.retry("a"), ["dispatch a/2"]);
}

#[test]
fn pause_holds_the_failure_until_somebody_decides() {
    let mut bench = Bench::new(with_policy("a b<a c d<c", FailurePolicy::Pause));
    assert!(bench.fail("a").is_empty());
    assert_eq!(bench.run.status(), RunStatus::Paused);
    assert_eq!(bench.run.head().reason, "task `a` is failed: broke");
    assert!(bench.state("a").is_held());
    assert!(
        bench.succeed("c").is_empty(),
        "what runs goes on, and starts nothing"
    );
    let held = bench.run.clone();
    assert_eq!(bench.apply(Event::Resume), ["dispatch d/1"]);
    assert_eq!(bench.states(), "a:failed b:skipped c:succeeded d:queued");
    assert_eq!(bench.succeed("d"), ["finished failed"]);
    bench.run = held;
    assert_eq!(bench.retry("a"), ["dispatch a/2", "dispatch d/1"]);
    bench.succeed("a");
    bench.succeed("d");
    assert_eq!(bench.succeed("b"), ["finished succeeded"]);
}

#[test]
fn a_run_in_which_only_a_held_task_is_left_is_paused_again() {
    let mut bench = Bench::new(with_policy("a b c<a", FailurePolicy::Pause));
    bench.fail("a");
    bench.fail("b");
    assert_eq!(bench.retry("a"), ["dispatch a/2"]);
    bench.succeed("a");
    assert!(bench.succeed("c").is_empty());
    assert_eq!(bench.run.status(), RunStatus::Paused);
    assert_eq!(bench.apply(Event::Resume), ["finished failed"]);
}

#[test]
fn an_attempt_that_reached_nobody_is_followed_by_another_and_no_failure() {
    let unsent = || Outcome::Unsent {
        reason: "group `g` is gone".to_owned(),
    };
    let mut bench = Bench::new(flow("a b<a"));
    bench.place("a");
    assert_eq!(bench.settle("a", unsent()), ["dispatch a/2"]);
    assert_eq!(bench.states(), "a:queued b:pending");
    let state = bench.state("a");
    assert!(!state.is_placed && state.reason.is_empty(), "{state:?}");
    bench.place("a");
    // What the first one left behind comes late, and again.
    let late = Event::Settled {
        task: 0,
        attempt: 1,
        outcome: unsent(),
    };
    assert_eq!(bench.refused(late), Illegal::StaleAttempt { current: 2 });
    assert_eq!(bench.succeed("a"), ["dispatch b/1"]);

    // In a run that ends it is over, and so it is when its time was up.
    let mut bench = Bench::new(flow("a b"));
    bench.place("b");
    bench.fail("a");
    assert_eq!(bench.settle("b", unsent()), ["finished failed"]);
    assert_eq!(bench.states(), "a:failed b:cancelled");
    let definition = edit(flow("a"), "a", |task| task.queue_timeout_ms = 1_000);
    let mut bench = Bench::new(definition);
    bench.place("a");
    assert_eq!(bench.tick(1_000), ["resolve a/1 TimedOut"]);
    assert_eq!(bench.settle("a", unsent()), ["finished failed"]);
    assert_eq!(bench.states(), "a:timed_out");

    // In a paused run it waits, as all do.
    let mut bench = Bench::new(flow("a"));
    bench.place("a");
    bench.pause();
    assert!(bench.settle("a", unsent()).is_empty());
    assert_eq!(bench.states(), "a:pending");
    assert_eq!(bench.apply(Event::Resume), ["dispatch a/2"]);
}

#[test]
fn a_retry_revives_the_task_and_all_it_took_with_it() {
    let mut bench = Bench::new(WorkflowDefinition {
        deadline_ms: 1_000,
        ..flow("a b c<a,b d")
    });
    bench.succeed("d");
    bench.place("b");
    bench.now = 500;
    bench.fail("a");
    assert_eq!(
        bench.refused(Event::Retry { task: 0 }),
        Illegal::IsEnding {
            status: RunStatus::Failed
        }
    );
    assert_eq!(bench.cancelled("b"), ["finished failed"]);
    bench.now = 5_000;
    assert_eq!(bench.retry("a"), ["dispatch a/2", "dispatch b/2"]);
    assert_eq!(bench.states(), "a:queued b:queued c:pending d:succeeded");
    assert_eq!(bench.run.deadline(), Some(Timestamp(6_000)));
    bench.succeed("a");
    assert_eq!(bench.succeed("b"), ["dispatch c/1"]);
    assert_eq!(bench.succeed("c"), ["finished succeeded"]);
}

#[test]
fn who_lost_two_dependencies_comes_back_with_the_second() {
    let mut bench = Bench::new(with_policy("a b c<a,b", FailurePolicy::SkipDependents));
    bench.fail("a");
    bench.fail("b");
    bench.retry("a");
    assert_eq!(bench.states(), "a:queued b:failed c:skipped");
    assert_eq!(bench.state("c").cause, Some(1));
    bench.retry("b");
    assert_eq!(bench.states(), "a:queued b:queued c:pending");
}

#[test]
fn a_retry_is_refused_where_there_is_nothing_to_try() {
    let mut bench = Bench::new(with_policy("a b<a", FailurePolicy::SkipDependents));
    bench.fail("a");
    let refused = bench.refused(Event::Retry { task: 1 });
    assert_eq!(
        refused.to_string(),
        "the task is `skipped` and cannot be retried: it cannot go on because of `a`, retry that"
    );
    let mut bench = Bench::new(flow("a"));
    bench.succeed("a");
    let status = RunStatus::Succeeded;
    assert_eq!(
        bench.refused(Event::Retry { task: 0 }),
        Illegal::RunIsFinal { status }
    );
    let mut bench = Bench::new(flow("a"));
    bench.cancel();
    let status = RunStatus::Cancelled;
    assert_eq!(
        bench.refused(Event::Retry { task: 0 }),
        Illegal::RunIsFinal { status }
    );
}

#[test]
fn a_failure_whose_base_is_lost_is_not_retried_into_a_skip() {
    let definition = WorkflowDefinition {
        on_failure: FailurePolicy::SkipDependents,
        ..in_mode("a b<a", DependencyMode::Optimistic)
    };
    let mut bench = Bench::new(definition);
    bench.fail("b");
    bench.fail("a");
    assert_eq!(bench.states(), "a:failed b:failed");
    assert!(matches!(
        bench.refused(Event::Retry { task: 1 }),
        Illegal::NotRetryable { .. }
    ));
    bench.retry("a");
    bench.succeed("a");
    assert_eq!(bench.retry("b"), ["dispatch b/2"]);
}

#[test]
fn a_cancel_on_its_way_to_a_task_whose_base_is_retried_sends_it_back() {
    let definition = WorkflowDefinition {
        on_failure: FailurePolicy::SkipDependents,
        ..in_mode("a b<a c", DependencyMode::Optimistic)
    };
    let mut bench = Bench::new(definition);
    bench.place("b");
    assert_eq!(bench.fail("a"), ["resolve b/1 Cancelled"]);
    assert_eq!(bench.retry("a"), ["dispatch a/2"]);
    assert_eq!(bench.cancelled("b"), ["dispatch b/2"]);
    bench.succeed("a");
    bench.succeed("b");
    assert_eq!(bench.succeed("c"), ["finished succeeded"]);
}

#[test]
fn an_undeliverable_attempt_fails() {
    let mut bench = Bench::new(with_policy("a b", FailurePolicy::SkipDependents));
    let undeliverable = |task| Event::Undeliverable {
        task,
        attempt: 1,
        reason: "no group serves it".to_owned(),
    };
    assert_eq!(bench.apply(undeliverable(0)), ["void a/1"]);
    assert_eq!(bench.state("a").reason, "no group serves it");
    bench.begin("b", 1);
    let status = TaskStatus::Running;
    assert_eq!(
        bench.refused(undeliverable(1)),
        Illegal::NotQueued { status }
    );
}

#[test]
fn a_signal_decides_where_it_may() {
    let mut bench = Bench::new(flow("a b<a"));
    let done = |task| Event::Signalled {
        task,
        signal: Signal::Succeeded { has_result: true },
    };
    // Nothing of it is open: decided here.
    assert!(bench.apply(done(1)).is_empty());
    assert_eq!(bench.states(), "a:queued b:succeeded");
    let status = TaskStatus::Succeeded;
    assert_eq!(bench.refused(done(1)), Illegal::AlreadyFinal { status });
    let mut other = Bench::new(flow("a b<a"));
    assert_eq!(other.apply(done(0)), ["void a/1", "dispatch b/1"]);
    // Placed: its shard decides.
    bench.place("a");
    assert_eq!(bench.apply(done(0)), ["resolve a/1 Succeeded"]);
    let resolution = Resolution::Succeeded;
    assert_eq!(bench.refused(done(0)), Illegal::Resolving { resolution });
    assert_eq!(bench.succeed("a"), ["finished succeeded"]);
}

#[test]
fn a_task_that_lost_its_base_twice_is_cancelled_once() {
    let definition = WorkflowDefinition {
        on_failure: FailurePolicy::SkipDependents,
        ..in_mode("a x b<a,x", DependencyMode::Optimistic)
    };
    let mut bench = Bench::new(definition);
    bench.place("b");
    assert_eq!(bench.fail("a"), ["resolve b/1 Cancelled"]);
    assert!(bench.fail("x").is_empty());
    // It failed by itself before the cancel came: that has a policy no more.
    assert_eq!(bench.fail("b"), ["finished failed"]);
    assert_eq!(bench.states(), "a:failed x:failed b:failed");
    assert!(bench.state("b").is_absorbed());
    assert_eq!(bench.state("b").cause, Some(0));
}

#[test]
fn a_question_about_a_condition_is_taken_back_when_a_dependency_is_tried_again() {
    let definition = with_policy("a b<a", FailurePolicy::Continue);
    let definition = edit(definition, "b", |task| {
        task.condition = "inputs.a.ok".to_owned();
    });
    let mut bench = Bench::new(definition);
    assert_eq!(bench.fail("a"), ["evaluate b"]);
    assert_eq!(bench.retry("a"), ["dispatch a/2"]);
    let holds = Ok(true);
    let refused = bench.refused(Event::Evaluated { task: 1, holds });
    assert_eq!(refused, Illegal::NotAsked);
    assert_eq!(bench.succeed("a"), ["evaluate b"]);
}
