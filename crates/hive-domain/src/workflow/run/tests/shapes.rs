//! Open workflows, tasks that are added, and runs that begin again.

use super::*;

#[test]
fn an_attempt_has_one_place() {
    let mut bench = Bench::new(flow("a"));
    bench.place("a");
    let again = Event::Placed {
        task: 0,
        attempt: 1,
    };
    assert_eq!(bench.refused(again.clone()), Illegal::AlreadyPlaced);
    bench.begin("a", 1);
    assert_eq!(bench.refused(again), Illegal::AlreadyPlaced);
}

fn open(words: &str) -> WorkflowDefinition {
    WorkflowDefinition {
        is_open: true,
        on_failure: FailurePolicy::SkipDependents,
        ..flow(words)
    }
}

#[test]
fn an_open_workflow_waits_for_what_nobody_added() {
    let mut bench = Bench::new(open("a<x,y"));
    assert!(bench.owed.is_empty());
    assert_eq!(bench.states(), "a:pending x:awaited y:awaited");
    assert_eq!(bench.add("x b<a,z"), Ok(vec!["dispatch x/1".to_owned()]));
    assert_eq!(
        bench.states(),
        "a:pending x:queued y:awaited b:pending z:awaited"
    );
    bench.succeed("x");
    let task = bench.task("y");
    let signal = Signal::Succeeded { has_result: false };
    assert_eq!(
        bench.apply(Event::Signalled { task, signal }),
        ["dispatch a/1"]
    );
}

#[test]
fn an_awaited_task_fails_after_a_day() {
    let mut bench = Bench::new(open("a<x"));
    assert_eq!(bench.run.deadline(), Some(Timestamp(AWAITED_MS)));
    // Nothing was added for much longer than an hour, so it ends as well.
    assert_eq!(bench.tick(AWAITED_MS), ["finished failed"]);
    assert_eq!(bench.states(), "a:skipped x:failed");
}

#[test]
fn an_open_workflow_ends_when_it_is_closed() {
    let mut bench = Bench::new(open("a"));
    assert!(bench.succeed("a").is_empty());
    assert_eq!(bench.apply(Event::Close), ["finished succeeded"]);
    let mut bench = Bench::new(open("a"));
    assert!(bench.apply(Event::Close).is_empty());
    assert_eq!(bench.refused(Event::Close), Illegal::AlreadyClosed);
    assert_eq!(bench.add("b"), Err(Illegal::AlreadyClosed.into()));
    assert_eq!(bench.succeed("a"), ["finished succeeded"]);
    let mut bench = Bench::new(flow("a"));
    assert_eq!(bench.refused(Event::Close), Illegal::NotOpenWorkflow);
}

#[test]
fn an_open_workflow_ends_when_nothing_was_added_for_an_hour() {
    let mut bench = Bench::new(open(""));
    assert_eq!(bench.run.deadline(), Some(Timestamp(OPEN_IDLE_MS)));
    bench.now = 1_000;
    bench.add("a").unwrap();
    assert_eq!(bench.run.deadline(), None);
    bench.succeed("a");
    assert_eq!(bench.run.deadline(), Some(Timestamp(1_000 + OPEN_IDLE_MS)));
    assert!(bench.tick(OPEN_IDLE_MS).is_empty());
    assert_eq!(bench.tick(1_000 + OPEN_IDLE_MS), ["finished succeeded"]);
}

#[test]
fn tasks_are_added_all_or_none() {
    let mut bench = Bench::new(flow("a b<a"));
    let before = bench.run.clone();
    let refused = bench.add("c<a d<q a").unwrap_err();
    assert_eq!(
        refused.to_string(),
        "tasks[2].id: `a` is a task of this run already; \
         tasks[1].dependencies[0]: `q` is no task of this workflow"
    );
    assert_eq!(bench.run, before);
    assert_eq!(bench.add("c<a d"), Ok(vec!["dispatch d/1".to_owned()]));
    assert_eq!(bench.succeed("a"), ["dispatch b/1", "dispatch c/1"]);
}

#[test]
fn a_cycle_through_an_awaited_task_is_refused() {
    let mut bench = Bench::new(open("a<x"));
    let refused = bench.add("x<a").unwrap_err();
    assert_eq!(
        refused.to_string(),
        "tasks: wait for each other: a -> x -> a"
    );
    assert_eq!(bench.states(), "a:pending x:awaited");
}

#[test]
fn a_task_added_to_what_failed_is_skipped() {
    let mut bench = Bench::new(with_policy("a b", FailurePolicy::SkipDependents));
    bench.fail("a");
    assert_eq!(bench.add("c<a"), Ok(Vec::new()));
    assert_eq!(bench.states(), "a:failed b:queued c:skipped");
    bench.cancel();
    let status = RunStatus::Cancelled;
    assert_eq!(bench.add("d"), Err(Illegal::RunIsFinal { status }.into()));
}

#[test]
fn a_rerun_keeps_what_does_not_depend_on_the_task() {
    let mut bench = Bench::new(with_policy(
        "a b<a c<b d e<d",
        FailurePolicy::SkipDependents,
    ));
    for id in ["a", "b", "c"] {
        bench.succeed(id);
    }
    assert_eq!(bench.fail("d"), ["finished failed"]);
    let (run, effects) = bench.run.rerun_from(1, Timestamp(9)).unwrap();
    let owed = bench.words(&effects);
    assert_eq!(owed, ["dispatch d/1", "dispatch b/1"]);
    assert_eq!(run.head().started_at, Timestamp(9));
    bench.run = run;
    assert_eq!(
        bench.states(),
        "a:succeeded b:queued c:pending d:queued e:pending"
    );
    assert_eq!(
        bench.run.rerun_from(7, Timestamp(9)),
        Err(Illegal::UnknownTask { task: 7 })
    );
}

#[test]
fn parts_that_do_not_belong_together_are_not_loaded() {
    let bench = Bench::new(flow("a b<a"));
    let mut parts = bench.run.parts();
    parts.tasks.pop();
    assert_eq!(
        Run::load(parts),
        Err(Corrupt::Count {
            states: 1,
            tasks: 2
        })
    );
    let mut parts = bench.run.parts();
    parts.definition.tasks[0].dependencies.push("b".to_owned());
    assert!(matches!(Run::load(parts), Err(Corrupt::Definition(_))));
}

#[test]
fn parts_are_read_back_from_their_json() {
    let mut bench = Bench::new(edit(flow("a b<a"), "b", |task| {
        task.condition = "1 > 0".to_owned();
    }));
    bench.place("a");
    bench.begin("a", 1);
    bench.succeed("a");
    let json = serde_json::to_string(&bench.run.parts()).unwrap();
    let parts: Parts = serde_json::from_str(&json).unwrap();
    bench.run.take_changed();
    assert_eq!(Run::load(parts).unwrap(), bench.run);
}
