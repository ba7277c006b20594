//! What happens when time is up.

use super::*;

#[test]
fn a_task_that_nobody_begins_in_time_is_timed_out() {
    let definition = with_policy("a b", FailurePolicy::SkipDependents);
    let definition = edit(definition, "a", |task| task.queue_timeout_ms = 100);
    let mut bench = Bench::new(edit(definition, "b", |task| task.queue_timeout_ms = 100));
    bench.place("b");
    assert_eq!(bench.tick(100), ["void a/1", "resolve b/1 TimedOut"]);
    assert_eq!(bench.states(), "a:timed_out b:queued");
    assert_eq!(bench.settle("b", Outcome::TimedOut), ["finished failed"]);
}

#[test]
fn a_timeout_runs_from_the_first_start_over_all_redeliveries() {
    let mut bench = Bench::new(edit(flow("a"), "a", |task| task.timeout_ms = 100));
    bench.place("a");
    assert_eq!(bench.run.deadline(), None);
    bench.now = 50;
    bench.begin("a", 1);
    bench.now = 120;
    bench.begin("a", 2);
    assert_eq!(bench.state("a").consumer, "c2");
    assert_eq!(bench.run.deadline(), Some(Timestamp(150)));
    bench.begin("a", 1);
    assert_eq!(
        bench.state("a").consumer,
        "c2",
        "an older record says nothing new"
    );
    assert_eq!(bench.tick(150), ["resolve a/1 TimedOut"]);
    // The agent was faster.
    assert_eq!(bench.succeed("a"), ["finished succeeded"]);
}

#[test]
fn a_start_ends_the_time_in_the_queue() {
    let mut bench = Bench::new(edit(flow("a"), "a", |task| task.queue_timeout_ms = 100));
    bench.place("a");
    bench.begin("a", 1);
    assert_eq!(bench.run.deadline(), None);
}

#[test]
fn a_task_that_a_signal_completes_does_not_hang() {
    let definition = edit(flow("a"), "a", |task| task.completion = Completion::Signal);
    let mut bench = Bench::new(definition);
    bench.place("a");
    bench.begin("a", 1);
    assert_eq!(bench.run.deadline(), Some(Timestamp(SIGNAL_TIMEOUT_MS)));
}

#[test]
fn a_run_fails_at_its_deadline_and_a_retry_revives_what_it_took() {
    let mut bench = Bench::new(WorkflowDefinition {
        deadline_ms: 1_000,
        ..flow("a b<a c")
    });
    bench.succeed("c");
    bench.place("a");
    assert_eq!(bench.tick(1_000), ["resolve a/1 Cancelled"]);
    assert_eq!(bench.cancelled("a"), ["finished failed"]);
    assert_eq!(bench.states(), "a:cancelled b:skipped c:succeeded");
    assert_eq!(bench.state("b").reason, "deadline");
    assert_eq!(bench.retry("a"), ["dispatch a/2"]);
    assert_eq!(bench.states(), "a:queued b:pending c:succeeded");
    assert_eq!(bench.run.deadline(), Some(Timestamp(2_000)));
}
