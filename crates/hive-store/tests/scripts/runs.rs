//! `run_create`, `run_commit`, `run_read`: a run is whole, and each step is taken once.

use bytes::Bytes;
use hive_store::{
    StoreError,
    runs::{
        Commit, Committed, Created, Inputs, NewRun, Partition, RunKey, Step, TaskInputs, TaskResult,
    },
};

use crate::world::{World, world};

const RECORD: usize = 4;

fn partition(world: &World) -> Partition {
    let namespace = world.shard.tag().split(['{', '/']).nth(1);
    world.store.partition(namespace.expect("a namespace"), 3)
}

fn new(run_id: &str, digest: &str) -> NewRun {
    NewRun {
        workflow_id: "w".into(),
        run_id: run_id.into(),
        digest: digest.into(),
        plan: Bytes::from_static(b"plan"),
        contents: vec![(1, Bytes::from_static(b"payload"))],
        states: Bytes::from_static(b"aaaabbbbcccc"),
        status: "running".into(),
        first: Step {
            head: vec![("machine".into(), Bytes::from_static(b"{}"))],
            notes: vec![(0, Bytes::from_static(b"note"))],
            outbox: vec![Bytes::from_static(b"dispatch")],
            history: vec![Bytes::from_static(b"submitted")],
            due_ms: Some(77),
            ..Step::default()
        },
        ..NewRun::default()
    }
}

async fn create(world: &World, run: &NewRun) -> Created {
    let created = world
        .store
        .create_run(&partition(world), run, false, 5)
        .await;
    created.expect("an answer")
}

async fn commit(
    world: &World,
    version: u64,
    status: (&str, &str),
    step: &Step,
) -> Result<Committed, StoreError> {
    let commit = Commit {
        run_id: "r",
        version,
        record_bytes: RECORD,
        status,
        has_ended: status.1 != "running",
        durable: false,
    };
    let partition = partition(world);
    world.store.commit_run(&partition, commit, step, 9).await
}

async fn zset(world: &World, key: &str) -> Vec<String> {
    world.redis(&["ZRANGE", key, "0", "-1", "WITHSCORES"]).await
}

#[tokio::test]
async fn a_run_is_stored_whole_and_the_same_submit_finds_it() {
    let world = world().await;
    let at = partition(&world);
    let Created::Stored { at_ms, written } = create(&world, &new("r", "d")).await else {
        panic!("it is new");
    };
    assert_eq!((at_ms, written.owed.len()), (5, 1));
    assert_eq!(
        create(&world, &new("other", "d")).await,
        Created::Exists("r".into())
    );
    assert_eq!(
        create(&world, &new("other", "e")).await,
        Created::Other("r".into())
    );
    let run = world.store.read_run(&at, "r", true).await.expect("read");
    let run = run.expect("a run");
    assert_eq!((run.version, run.created_ms), (1, 5));
    assert_eq!(
        run.head,
        [("machine".to_owned(), Bytes::from_static(b"{}"))]
    );
    assert_eq!(
        (&*run.plan, &*run.states),
        (&b"plan"[..], &b"aaaabbbbcccc"[..])
    );
    assert_eq!(run.notes, [(0, Bytes::from_static(b"note"))]);
    assert_eq!(zset(&world, &at.runs()).await, ["r", "5"]);
    assert_eq!(zset(&world, &at.runs_of("running")).await, ["r", "5"]);
    assert_eq!(zset(&world, &at.timers()).await, ["r", "77"]);
    for (key, length) in [(at.outbox(), 1), (at.run("r", RunKey::History), 1)] {
        let found: u64 = world.redis(&["XLEN", &key]).await;
        assert_eq!(found, length, "{key}");
    }
    let absent = world.store.read_run(&at, "other", true).await;
    assert_eq!(absent.expect("read"), None, "nothing of the refused ones");
    let payload: String = world
        .redis(&["HGET", &at.run("r", RunKey::Contents), "1"])
        .await;
    assert_eq!(payload, "payload");
}

#[tokio::test]
async fn a_workflow_may_be_run_anew_only_in_place_of_the_run_that_was_seen() {
    let world = world().await;
    create(&world, &new("r", "d")).await;
    let mut next = new("s", "e");
    next.replaces = "r".into();
    let created = create(&world, &next).await;
    assert!(matches!(created, Created::Stored { .. }), "{created:?}");
    next.run_id = "t".into();
    next.digest = "f".into();
    assert_eq!(create(&world, &next).await, Created::Other("s".into()));
    let newest = world.store.run_of_workflow(&partition(&world), "w").await;
    assert_eq!(newest.expect("read"), Some(("s".into(), "e".into())));
}

#[tokio::test]
async fn a_step_is_taken_from_the_state_that_it_was_worked_out_from_and_once() {
    let world = world().await;
    let at = partition(&world);
    create(&world, &new("r", "d")).await;
    let step = Step {
        head: vec![("machine".into(), Bytes::from_static(b"{1}"))],
        states: vec![(1, Bytes::from_static(b"BBBB"))],
        notes: vec![(0, Bytes::new()), (1, Bytes::from_static(b"n"))],
        results: vec![(1, Bytes::from_static(b"result"))],
        outbox: vec![Bytes::from_static(b"two"), Bytes::from_static(b"three")],
        history: vec![Bytes::from_static(b"done")],
        contents: vec![(2, Bytes::from_static(b"more"))],
        ..Step::default()
    };
    let status = ("running", "succeeded");
    let done = commit(&world, 1, status, &step).await.expect("an answer");
    let Committed::Done { version, written } = done else {
        panic!("{done:?}");
    };
    assert_eq!(version, 2);
    let here = [(at.clone(), "0-0".to_owned())];
    let owed = world.store.read_outboxes(&here, u64::MAX >> 11, 10).await;
    let owed = owed.expect("read").remove(0);
    let ids: Vec<&str> = owed.iter().map(|entry| entry.id.as_str()).collect();
    assert_eq!(ids[1..], written.owed);
    let history = world.store.run_history(&at, "r", "0-0", 10).await;
    let newest = world.store.newest_event(&at, "r").await.expect("read");
    assert_eq!(
        history.expect("read").last().map(|one| &one.id),
        Some(&newest)
    );
    assert_eq!(newest, written.newest);
    let again = commit(&world, 1, status, &step).await.expect("an answer");
    assert_eq!(again, Committed::Conflict(2));
    let run = world.store.read_run(&at, "r", false).await.expect("read");
    let run = run.expect("a run");
    assert_eq!((run.version, &*run.states), (2, &b"aaaaBBBBcccc"[..]));
    assert_eq!(run.notes, [(1, Bytes::from_static(b"n"))]);
    assert!(run.plan.is_empty(), "it was not asked for");
    assert_eq!(
        zset(&world, &at.runs_of("running")).await,
        Vec::<String>::new()
    );
    assert_eq!(zset(&world, &at.runs_of("succeeded")).await, ["r", "5"]);
    assert_eq!(zset(&world, &at.finished()).await, ["r", "9"]);
    assert_eq!(zset(&world, &at.timers()).await, Vec::<String>::new());
    let owed: u64 = world.redis(&["XLEN", &at.outbox()]).await;
    assert_eq!(owed, 3);
}

#[tokio::test]
async fn a_step_of_a_run_that_is_gone_writes_nothing() {
    let world = world().await;
    let step = Step {
        outbox: vec![Bytes::from_static(b"x")],
        ..Step::default()
    };
    let gone = commit(&world, 1, ("running", "running"), &step).await;
    assert_eq!(gone.expect("an answer"), Committed::Gone);
    let owed: u64 = world.redis(&["XLEN", &partition(&world).outbox()]).await;
    assert_eq!(owed, 0);
}

#[tokio::test]
async fn messages_get_what_is_stored_for_them_and_large_results_stay_behind() {
    let world = world().await;
    let at = partition(&world);
    create(&world, &new("r", "d")).await;
    let step = Step {
        results: vec![
            (0, Bytes::from_static(b"small")),
            (2, vec![b'x'; 65_537].into()),
        ],
        answers: vec![(1, Bytes::from_static(b"answer"))],
        ..Step::default()
    };
    let status = ("running", "running");
    commit(&world, 1, status, &step).await.expect("an answer");
    let asked = [
        Inputs {
            task: 1,
            dependencies: vec![0, 1, 2],
        },
        Inputs {
            task: 5,
            dependencies: vec![],
        },
    ];
    let found = world.store.task_inputs(&at, "r", &asked).await;
    let first = TaskInputs {
        content: Bytes::from_static(b"payload"),
        answer: Bytes::from_static(b"answer"),
        results: vec![
            TaskResult::Bytes(Bytes::from_static(b"small")),
            TaskResult::None,
            TaskResult::Omitted,
        ],
    };
    let nothing = TaskInputs {
        content: Bytes::new(),
        answer: Bytes::new(),
        results: vec![],
    };
    assert_eq!(found.expect("read"), [first, nothing]);
}

#[tokio::test]
async fn a_run_begun_anew_takes_over_contents_and_results_but_those_to_be_done_again() {
    let world = world().await;
    let at = partition(&world);
    create(&world, &new("r", "d")).await;
    let step = Step {
        results: vec![
            (0, Bytes::from_static(b"kept")),
            (1, Bytes::from_static(b"dropped")),
        ],
        ..Step::default()
    };
    let status = ("running", "failed");
    commit(&world, 1, status, &step).await.expect("an answer");
    let mut next = new("s", "d");
    next.contents.clear();
    (next.replaces, next.copies, next.drops) = ("r".into(), "r".into(), vec![1]);
    create(&world, &next).await;
    let results = world.store.run_results(&at, "s", &[0, 1]).await;
    let kept = Some(Bytes::from_static(b"kept"));
    assert_eq!(results.expect("read"), [kept, None]);
    let payload: String = world
        .redis(&["HGET", &at.run("s", RunKey::Contents), "1"])
        .await;
    assert_eq!(payload, "payload");
}

#[tokio::test]
async fn a_run_is_forgotten_only_as_it_was_seen_and_leaves_nothing() {
    let world = world().await;
    let at = partition(&world);
    create(&world, &new("r", "d")).await;
    let status = ("running", "succeeded");
    commit(&world, 1, status, &Step::default())
        .await
        .expect("an answer");
    let forget = |version| {
        world
            .store
            .delete_run(&at, "w", "r", ("succeeded", version))
    };
    assert!(!forget(1).await.expect("an answer"));
    assert!(forget(2).await.expect("an answer"));
    assert!(forget(2).await.expect("an answer"), "it is gone");
    let keys: Vec<String> = world.redis(&["KEYS", &format!("{}*", at.tag())]).await;
    assert_eq!(keys, [at.outbox()], "the rest is gone");
}

#[tokio::test]
async fn lists_go_on_behind_the_last_run_seen() {
    let world = world().await;
    let at = partition(&world);
    for name in ["a", "b", "c"] {
        let mut run = new(name, "d");
        run.workflow_id = name.into();
        create(&world, &run).await;
    }
    let list = async |before, limit| {
        let list = world
            .store
            .list_runs(std::slice::from_ref(&at), None, 0, before, limit)
            .await;
        let list = list.expect("read").runs.into_iter();
        list.map(|one| one.run_id).collect::<Vec<_>>()
    };
    assert_eq!(list((u64::MAX >> 11, ""), 2).await, ["c", "b"]);
    assert_eq!(list((5, "b"), 2).await, ["a"], "all are of one ms");
    let due = world
        .store
        .due_runs(std::slice::from_ref(&at), 77, 10)
        .await;
    assert_eq!(due.expect("read")[0].len(), 3);
    let early = world
        .store
        .due_runs(std::slice::from_ref(&at), 76, 10)
        .await;
    assert!(early.expect("read")[0].is_empty());
}

#[tokio::test]
async fn pages_of_a_list_over_partitions_leave_out_nothing_and_repeat_nothing() {
    let world = world().await;
    let base = partition(&world);
    let namespace = base.tag().split(['{', '/']).nth(1).expect("a namespace");
    let partitions: Vec<Partition> = (0..3)
        .map(|number| world.store.partition(namespace, number))
        .collect();
    let mut all = Vec::new();
    for number in 0..60_u64 {
        let mut run = new(&format!("r{number}"), "d");
        run.workflow_id = run.run_id.clone();
        // One partition has most of them, and many are of one ms.
        let place = usize::try_from(number % 7 % 3).expect("small");
        let created = 10 + number / 25;
        let stored = world
            .store
            .create_run(&partitions[place], &run, false, created)
            .await;
        stored.expect("an answer");
        all.push((created, run.run_id));
    }
    all.sort_by(|a, b| b.cmp(a));
    for limit in [1, 3, 50] {
        let (mut seen, mut before) = (Vec::new(), (u64::MAX >> 11, String::new()));
        loop {
            let from = (before.0, before.1.as_str());
            let page = world
                .store
                .list_runs(&partitions, None, 0, from, limit)
                .await
                .expect("a page");
            assert!(page.runs.len() <= limit);
            seen.extend(
                page.runs
                    .into_iter()
                    .map(|run| (run.created_ms, run.run_id)),
            );
            match page.last.filter(|_| !page.is_end) {
                Some(last) => before = last,
                None => break,
            }
        }
        assert_eq!(seen, all, "pages of {limit}");
    }
}
