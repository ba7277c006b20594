//! Tasks held for the consumer that last worked on their run: who gets them, and that nothing that
//! becomes of the consumer, the task or the group leaves one behind.

use bytes::Bytes;
use hive_domain::group::{AFFINITY_WAIT_MS, GroupState};
use hive_store::{
    fetch::{Fetched, Taker},
    keys::GroupKey,
    settle::{Action, Settle, Verdict},
    tasks::{Resolved, TaskEntry, TaskOutcome, TaskRow},
};

use super::{dispatch, given, key, purge, row, task, told};
use crate::world::{World, header, nack, with_group};

/// What a fetch of such a group came to.
#[derive(Debug)]
struct Got {
    /// `<consumer> <task>`, in the order of the answer.
    entries: Vec<String>,
    parked: u64,
    due_in_ms: u64,
    is_left: bool,
}

fn none() -> Vec<String> {
    Vec::new()
}

fn of_run(run: &str, number: u32) -> TaskEntry {
    let dispatch_key = format!("{run}/{number}/1");
    let mut header = header();
    header.dispatch_key = dispatch_key.clone().into();
    TaskEntry {
        body: header.join(dispatch_key.as_bytes()),
        dispatch_key,
        ..task(number)
    }
}

async fn aware(world: &World, takers: &[Taker], slots: &[(usize, u32)]) -> Got {
    let change = |fetch: &mut hive_store::fetch::Fetch<'_>| fetch.hold_ms = AFFINITY_WAIT_MS;
    let Fetched::Taken {
        entries,
        fenced,
        detached,
        left,
        parked,
        due_in_ms,
    } = world.fetch_with("g", takers, slots, change).await
    else {
        panic!("nothing is fetched");
    };
    assert!(fenced.is_empty() && detached.is_empty(), "fenced");
    let entries = entries.iter().map(|taken| {
        assert_eq!(
            taken.count, 1,
            "a task that was held was not delivered before"
        );
        let key = crate::world::id_of(&taken.body);
        let task = key.split('/').nth(1).expect("a task").to_owned();
        format!("{} {task}", takers[taken.taker].consumer)
    });
    Got {
        entries: entries.collect(),
        parked,
        due_in_ms,
        is_left: !left.is_empty(),
    }
}

/// Consumers `a` and `b`, of which `a` has task 0 of the run.
async fn begun() -> (World, Taker, Taker) {
    let world = with_group().await;
    let (a, b) = (
        world.join("g", "a", &[]).await,
        world.join("g", "b", &[]).await,
    );
    dispatch(&world, &[task(0)]).await;
    let got = aware(&world, std::slice::from_ref(&a), &[(0, 1)]).await;
    assert_eq!(got.entries, ["a 0"]);
    (world, a, b)
}

/// The same, with task 1 held for `a`.
async fn held() -> (World, Taker, Taker) {
    let (world, a, b) = begun().await;
    dispatch(&world, &[task(1)]).await;
    let got = aware(&world, std::slice::from_ref(&b), &[(0, 9)]).await;
    assert_eq!((got.entries, got.parked), (none(), 1));
    assert_eq!((got.due_in_ms, got.is_left), (AFFINITY_WAIT_MS, true));
    assert_eq!(world.places("g").await, (0, 1, 0, 1, 0, 0));
    assert_eq!(row(&world, 1).await, TaskRow::Waiting);
    (world, a, b)
}

async fn rows(world: &World) -> i64 {
    world
        .redis(&["ZCARD", &world.key("g", GroupKey::Held)])
        .await
}

/// Lets the time of what is held be over, and moves it as a gateway or a coordinator does.
async fn end_holding(world: &World) {
    let key = world.key("g", GroupKey::Held);
    let members: Vec<Bytes> = world.redis(&["ZRANGE", &key, "0", "-1"]).await;
    for member in members {
        let member = std::str::from_utf8(&member).expect("a name");
        let _: i64 = world.redis(&["ZADD", &key, "XX", "1", member]).await;
    }
    world.end_backoffs("g").await;
}

#[tokio::test]
async fn tasks_of_a_run_go_to_who_last_worked_on_it_and_others_by_their_slots() {
    let (world, a, b) = begun().await;
    let others = [of_run("other", 7), of_run("other", 8)];
    dispatch(&world, &[task(1), task(2)]).await;
    dispatch(&world, &others).await;
    let got = aware(&world, &[a, b], &[(1, 9), (0, 9)]).await;
    let mut entries = got.entries;
    entries.sort();
    assert_eq!(entries, ["a 1", "a 2", "b 7", "b 8"]);
    assert_eq!((got.parked, got.due_in_ms), (0, 0));
    assert_eq!(told(&world).await[1], "1 started a 1");
    assert_eq!(world.figures("g").await.redelivered, 0);
}

#[tokio::test]
async fn nobody_gets_more_than_its_slots_say() {
    let (world, a, b) = begun().await;
    let tasks: Vec<TaskEntry> = (1..8).map(task).collect();
    dispatch(&world, &tasks).await;
    let got = aware(&world, &[a, b], &[(1, 2), (0, 1), (1, 2), (0, 2)]).await;
    assert_eq!(got.entries, ["a 1", "a 2", "a 3"], "of one run");
    assert_eq!((got.parked, rows(&world).await), (4, 4));
}

#[tokio::test]
async fn a_held_task_is_taken_by_whom_it_is_held_for_and_by_nobody_else() {
    let (world, a, b) = held().await;
    let again = aware(&world, &[b], &[(0, 9)]).await;
    assert_eq!((again.entries, again.parked), (none(), 0));
    assert!(again.due_in_ms > 0 && again.is_left, "{}", again.due_in_ms);
    let got = aware(&world, &[a], &[(0, 1)]).await;
    assert_eq!((got.entries, got.is_left), (vec!["a 1".to_owned()], false));
    assert_eq!(world.places("g").await, (0, 2, 0, 0, 0, 0));
    assert_eq!(rows(&world).await, 0);
    assert_eq!(told(&world).await, ["0 started a 1", "1 started a 1"]);
    assert_eq!(world.figures("g").await.redelivered, 0);
}

#[tokio::test]
async fn a_held_task_is_anybodys_when_its_time_is_over_and_the_run_follows_it() {
    let (world, a, b) = held().await;
    end_holding(&world).await;
    let got = aware(&world, std::slice::from_ref(&b), &[(0, 1)]).await;
    assert_eq!(got.entries, ["b 1"]);
    assert_eq!(rows(&world).await, 0);
    dispatch(&world, &[task(2)]).await;
    let got = aware(&world, &[a, b], &[(0, 9), (1, 9)]).await;
    assert_eq!(got.entries, ["b 2"]);
    assert_eq!(world.figures("g").await.redelivered, 0);
}

#[tokio::test]
async fn a_row_whose_time_is_over_is_told_of_and_goes() {
    let (world, _, b) = held().await;
    let key = world.key("g", GroupKey::Held);
    for score in ["1", "9000000000000"] {
        // Long over, or of before the clock went back.
        let _: i64 = world.redis(&["ZADD", &key, score, "a\0g/p4t|1-1"]).await;
        let got = aware(&world, std::slice::from_ref(&b), &[(0, 1)]).await;
        assert_eq!((got.due_in_ms, rows(&world).await), (1, 1), "{score}");
    }
}

#[tokio::test]
async fn a_fetch_of_another_mode_holds_nothing_and_leaves_no_trace() {
    let world = with_group().await;
    let a = world.join("g", "a", &[]).await;
    dispatch(&world, &[task(0), task(1)]).await;
    assert_eq!(world.take("g", &a, 9).await.len(), 2);
    for key in [GroupKey::Affinity, GroupKey::AffinityOld, GroupKey::Held] {
        let there: i64 = world.redis(&["EXISTS", &world.key("g", key)]).await;
        assert_eq!(there, 0, "{key:?}");
    }
}

#[tokio::test]
async fn what_is_held_is_delivered_where_the_mode_is_another_by_then() {
    let (world, _, b) = held().await;
    end_holding(&world).await;
    assert_eq!(world.take("g", &b, 9).await.len(), 1);
}

#[tokio::test]
async fn nothing_is_held_for_who_left_or_serves_no_such_lane() {
    let (world, a, b) = begun().await;
    let able = world.join("g", "able", &["gpu"]).await;
    let mut special = task(1);
    special.capabilities = "gpu".into();
    dispatch(&world, &[special]).await;
    let got = aware(&world, std::slice::from_ref(&able), &[(0, 9)]).await;
    assert_eq!((got.entries, got.parked), (vec!["able 1".to_owned()], 0));
    let lanes = world.lanes("g").await;
    for one in [&a, &able] {
        let who = (&*one.consumer, &*one.session, one.attach);
        let left = world.store.leave(&world.shard, "g", &lanes, who).await;
        left.expect("it leaves");
    }
    dispatch(&world, &[task(2)]).await;
    let got = aware(&world, &[b], &[(0, 9)]).await;
    assert_eq!((got.entries, got.parked), (vec!["b 2".to_owned()], 0));
}

#[tokio::test]
async fn a_held_task_outlives_whom_it_is_held_for() {
    let (world, a, b) = held().await;
    let lanes = world.lanes("g").await;
    let who = (&*a.consumer, &*a.session, a.attach);
    let left = world.store.leave(&world.shard, "g", &lanes, who).await;
    left.expect("it leaves");
    end_holding(&world).await;
    assert_eq!(aware(&world, &[b], &[(0, 9)]).await.entries, ["b 1"]);
}

#[tokio::test]
async fn a_held_task_that_is_decided_is_settled_once() {
    let (world, a, _) = held().await;
    let reason = Bytes::from_static(b"from outside");
    let resolved = world
        .store
        .resolve_task(&world.shard, "g", &key(1), TaskOutcome::TimedOut, reason)
        .await;
    assert_eq!(
        resolved.expect("an answer"),
        Resolved::Ended { holder: None }
    );
    assert_eq!(world.places("g").await, (0, 1, 0, 0, 0, 1));
    let got = aware(&world, &[a], &[(0, 9)]).await;
    assert_eq!(got.entries, none());
    assert_eq!((rows(&world).await, world.places("g").await.5), (0, 1));
}

#[tokio::test]
async fn a_held_task_is_cancelled_and_purged_as_any_backoff() {
    let (world, a, _) = held().await;
    let lanes = world.lanes("g").await;
    let pending = world.store.held_by("g", &lanes, "~delayed").await;
    let pending = pending.expect("what is held");
    assert_eq!((pending.len(), pending[0].count), (1, 0));
    let cancel = Settle {
        lease: pending[0].lease(&lanes, "*", 0),
        attach: 0,
        check_session: false,
        action: Action::Cancel,
    };
    assert_eq!(world.settle_all("g", &[cancel]).await, [Verdict::Dead]);
    assert_eq!(aware(&world, &[a], &[(0, 9)]).await.entries, none());
    assert_eq!(world.places("g").await, (0, 1, 0, 0, 0, 1));
    let told = told(&world).await;
    assert_eq!(told[1..], ["1 dead_lettered cancelled"]);
    purge(&world).await;
    assert_eq!(rows(&world).await, 0);
}

#[tokio::test]
async fn a_pause_keeps_what_is_held_and_nothing_is_stuck_behind_it() {
    let (world, _, b) = held().await;
    assert!(world.set_state("g", GroupState::Paused, 2).await);
    end_holding(&world).await;
    let paused = world
        .fetch_with("g", std::slice::from_ref(&b), &[(0, 9)], |_| {})
        .await;
    assert_eq!(paused, Fetched::Paused);
    assert!(world.set_state("g", GroupState::Active, 3).await);
    assert_eq!(aware(&world, &[b], &[(0, 9)]).await.entries, ["b 1"]);
}

#[tokio::test]
async fn what_is_held_blocks_nobody_and_is_bounded() {
    let (world, a, b) = begun().await;
    let tasks: Vec<TaskEntry> = (1..400).map(task).collect();
    dispatch(&world, &tasks).await;
    dispatch(&world, &[of_run("other", 999)]).await;
    let mut got = Vec::new();
    for _ in 0..9 {
        let some = aware(&world, std::slice::from_ref(&b), &[(0, 100)]).await;
        got.extend(some.entries);
    }
    assert_eq!((got.len(), rows(&world).await), (400 - 256, 256));
    assert_eq!(got.last().expect("the other run's"), "b 999");
    let mine = aware(&world, &[a], &[(0, 100)]).await.entries;
    // Of those held in one ms the order is that of their ids as texts.
    assert_eq!(mine.len(), 100);
    assert!(mine.iter().all(|task| task.starts_with("a ")), "{mine:?}");
}

#[tokio::test]
async fn the_latest_runs_are_known_and_their_number_is_bounded() {
    let (world, a, b) = begun().await;
    let now = world.key("g", GroupKey::Affinity);
    let old = world.key("g", GroupKey::AffinityOld);
    let fill = "for i = 1, 4096 do redis.call('HSET', KEYS[1], 'r' .. i, 'b') end return 1";
    let _: i64 = world.redis(&["EVAL", fill, "1", &now]).await;
    dispatch(&world, &[task(1)]).await;
    let one = aware(&world, std::slice::from_ref(&a), &[(0, 1)]).await;
    assert_eq!(one.entries, ["a 1"]);
    let there: (i64, i64) = (
        world.redis(&["EXISTS", &now]).await,
        world.redis(&["HLEN", &old]).await,
    );
    assert_eq!(there, (0, 4_097));
    let ttl: i64 = world.redis(&["TTL", &old]).await;
    assert!((1..=3_600).contains(&ttl), "{ttl}");
    dispatch(&world, &[task(2)]).await;
    let got = aware(&world, &[b, a], &[(0, 9), (1, 9)]).await;
    assert_eq!(got.entries, ["a 2"], "known from before");
    let noted: String = world.redis(&["HGET", &now, "run"]).await;
    assert_eq!(noted, "a", "and among the latest again");
}

#[tokio::test]
async fn a_redelivery_waits_for_nobody() {
    let (world, a, b) = begun().await;
    dispatch(&world, &[task(1)]).await;
    let taken = world.take("g", &a, 1).await;
    world.settle("g", &a, &taken[0], nack(Some(0))).await;
    let change = |fetch: &mut hive_store::fetch::Fetch<'_>| fetch.hold_ms = AFFINITY_WAIT_MS;
    let takers = [b.clone()];
    let Fetched::Taken { entries, .. } = world.fetch_with("g", &takers, &[(0, 1)], change).await
    else {
        panic!("nothing is fetched");
    };
    assert_eq!((entries.len(), entries[0].count), (1, 2));
    let done = world.settle("g", &b, &entries[0], given("1")).await;
    assert_eq!(done, Verdict::Done);
}

#[tokio::test]
async fn a_task_held_for_who_came_back_without_its_capability_is_anybodys_at_once() {
    let special = |number: u32| TaskEntry {
        capabilities: "gpu".into(),
        ..task(number)
    };
    let world = with_group().await;
    let able = world.join("g", "a", &["gpu"]).await;
    let b = world.join("g", "b", &["gpu"]).await;
    dispatch(&world, &[special(0)]).await;
    let got = aware(&world, &[able], &[(0, 1)]).await;
    assert_eq!(got.entries, ["a 0"]);
    dispatch(&world, &[special(1)]).await;
    let got = aware(&world, std::slice::from_ref(&b), &[(0, 9)]).await;
    assert_eq!((got.entries, got.parked), (none(), 1));
    let unable = world.join("g", "a", &[]).await;
    let got = aware(&world, &[unable], &[(0, 9)]).await;
    assert_eq!((got.entries, got.due_in_ms), (none(), 1));
    assert_eq!(rows(&world).await, 0);
    let lanes = world.lanes("g").await;
    let due = world
        .store
        .due_delayed(&world.shard, "g", &lanes, crate::world::AGEING_MS);
    due.await.expect("due");
    assert_eq!(aware(&world, &[b], &[(0, 9)]).await.entries, ["b 1"]);
}
