//! Pause, cancel, and the ways to an end.

use super::*;

#[test]
fn a_paused_run_dispatches_nothing_and_takes_outcomes() {
    let mut bench = Bench::new(flow("a b<a"));
    assert!(bench.pause().is_empty());
    let reason = String::new();
    assert_eq!(
        bench.refused(Event::Pause { reason }),
        Illegal::AlreadyPaused
    );
    assert!(bench.succeed("a").is_empty());
    assert_eq!(bench.apply(Event::Resume), ["dispatch b/1"]);
    assert_eq!(bench.refused(Event::Resume), Illegal::NotPaused);
}

#[test]
fn a_paused_run_ends_with_its_last_task() {
    let mut bench = Bench::new(flow("a"));
    bench.pause();
    assert_eq!(bench.succeed("a"), ["finished succeeded"]);
}

#[test]
fn a_cancel_ends_each_task_where_it_is() {
    let mut bench = Bench::new(flow("a b c d<a e"));
    bench.place("a");
    bench.begin("a", 1);
    bench.place("b");
    bench.suspend("e");
    assert_eq!(
        bench.cancel(),
        ["resolve a/1 Cancelled", "resolve b/1 Cancelled", "void c/1"]
    );
    assert_eq!(
        bench.states(),
        "a:running b:queued c:cancelled d:cancelled e:cancelled"
    );
    let reason = String::new();
    let status = RunStatus::Cancelled;
    assert_eq!(
        bench.refused(Event::Cancel { reason }),
        Illegal::IsEnding { status }
    );
    bench.cancelled("a");
    assert_eq!(bench.cancelled("b"), ["finished cancelled"]);
    assert_eq!(bench.state("a").reason, "enough");
    let reason = String::new();
    assert_eq!(
        bench.refused(Event::Cancel { reason }),
        Illegal::RunIsFinal { status }
    );
}

#[test]
fn a_cancel_is_applied_after_a_question() {
    let mut bench = Bench::new(flow("a"));
    bench.place("a");
    bench.cancel();
    assert_eq!(bench.suspend("a"), ["finished cancelled"]);
    assert_eq!(bench.states(), "a:cancelled");
}

#[test]
fn a_request_to_a_shard_is_repeated_until_it_answers() {
    let mut bench = Bench::new(flow("a"));
    bench.place("a");
    bench.cancel();
    assert_eq!(bench.run.deadline(), Some(Timestamp(10_000)));
    assert!(bench.tick(9_999).is_empty());
    assert_eq!(bench.tick(10_000), ["resolve a/1 Cancelled"]);
    assert_eq!(bench.tick(20_000), ["resolve a/1 Cancelled"]);
    bench.cancelled("a");
    assert_eq!(bench.run.deadline(), None);
}

#[test]
fn a_cancelled_paused_run_ends() {
    let mut bench = Bench::new(with_policy("a b", FailurePolicy::Pause));
    bench.fail("a");
    assert_eq!(bench.run.status(), RunStatus::Paused);
    assert_eq!(bench.cancel(), ["void b/1", "finished cancelled"]);
    assert!(!bench.state("a").is_held());
}

#[test]
fn a_reason_is_cut_to_what_a_state_keeps() {
    let mut bench = Bench::new(flow("a"));
    let reason = "ä".repeat(2_000);
    bench.settle("a", Outcome::Failed { reason });
    assert_eq!(bench.state("a").reason.len(), REASON_BYTES_MAX);
}

#[test]
fn a_cancel_comes_before_a_timeout_that_is_on_its_way() {
    let mut bench = Bench::new(edit(flow("a"), "a", |task| task.timeout_ms = 100));
    bench.place("a");
    bench.begin("a", 1);
    assert_eq!(bench.tick(100), ["resolve a/1 TimedOut"]);
    assert_eq!(bench.cancel(), ["resolve a/1 Cancelled"]);
    assert_eq!(bench.suspend("a"), ["finished cancelled"]);
}

#[test]
fn a_question_beats_a_timeout_that_is_on_its_way() {
    let mut bench = Bench::new(edit(flow("a"), "a", |task| task.timeout_ms = 100));
    bench.place("a");
    bench.begin("a", 1);
    bench.tick(100);
    assert!(bench.suspend("a").is_empty());
    assert_eq!(bench.states(), "a:waiting_input");
    assert_eq!(bench.run.deadline(), None);
}

#[test]
fn a_cancelled_run_has_no_deadline_any_more() {
    let mut bench = Bench::new(WorkflowDefinition {
        deadline_ms: 1_000,
        ..flow("a")
    });
    bench.place("a");
    bench.cancel();
    assert_eq!(bench.run.deadline(), Some(Timestamp(10_000)));
    assert!(bench.tick(1_000).is_empty());
    assert_eq!(bench.cancelled("a"), ["finished cancelled"]);
}
