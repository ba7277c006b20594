//! `task_dispatch`, `task_resolve`, `task_look`, the `settled_*` scripts, and what `fetch`,
//! `settle`, `waiting_expire` and `group_delete` do to tasks.

mod affinity;
mod random;

use bytes::Bytes;
use hive_domain::group::{GroupState, Start};
use hive_store::{
    StoreError,
    bells::{CancelledLease, Line},
    control::Removal,
    fetch::Taker,
    repair::WrittenOff,
    settle::{Action, Settle, Verdict},
    sweep::Take,
    tasks::{
        Dispatched, Holder, Resolved, SettledWhat, TaskEntry, TaskOutcome, TaskRow, TaskTarget,
    },
};

use crate::world::{World, header, lose, nack, reject, with_group, world};

const LANE: &str = "g/p4t";

fn task(number: u32) -> TaskEntry {
    let dispatch_key = key(number);
    let mut header = header();
    header.dispatch_key = dispatch_key.clone().into();
    TaskEntry {
        body: header.join(dispatch_key.as_bytes()),
        dispatch_key,
        awaits_signal: false,
        priority: 4,
        capabilities: String::new(),
    }
}

fn by_signal(number: u32) -> TaskEntry {
    TaskEntry {
        awaits_signal: true,
        ..task(number)
    }
}

fn expiring(number: u32) -> TaskEntry {
    let mut header = header();
    header.dispatch_key = key(number).into();
    header.expires_at_ms = 1;
    TaskEntry {
        body: header.join(b"old"),
        ..task(number)
    }
}

fn key(number: u32) -> String {
    format!("run/{number}/1")
}

fn target() -> TaskTarget<'static> {
    TaskTarget {
        group: "g",
        max_backlog: 1_000,
        max_backlog_bytes: 1 << 30,
        durable: false,
    }
}

fn given(text: &'static str) -> Action {
    Action::Complete {
        result: Bytes::from_static(text.as_bytes()),
    }
}

/// What the router is told, as short words.
async fn told(world: &World) -> Vec<String> {
    let records = world.store.read_settled(&world.shard, "0-0", 1_000).await;
    records
        .expect("records")
        .into_iter()
        .map(|record| {
            let task = record.dispatch_key.split('/').nth(1).expect("a task");
            match record.what {
                SettledWhat::Started {
                    consumer,
                    deliveries,
                } => format!("{task} started {consumer} {deliveries}"),
                SettledWhat::Ended { outcome, detail } => {
                    let detail = String::from_utf8_lossy(&detail);
                    format!("{task} {} {detail}", outcome.as_str())
                },
            }
        })
        .collect()
}

async fn row(world: &World, number: u32) -> TaskRow {
    let row = world.store.look_up_task(&world.shard, &key(number)).await;
    row.expect("a row")
}

async fn dispatch(world: &World, tasks: &[TaskEntry]) -> Dispatched {
    let done = world
        .store
        .dispatch_tasks(&world.shard, target(), 0, tasks, 0)
        .await;
    done.expect("a dispatch")
}

/// One task, whatever becomes of it.
pub(crate) async fn dispatch_raw(world: &World, number: u32) -> Result<Dispatched, StoreError> {
    let tasks = [task(number)];
    let (store, shard) = (&world.store, &world.shard);
    store.dispatch_tasks(shard, target(), 0, &tasks, 0).await
}

async fn resolve(world: &World, number: u32, outcome: TaskOutcome) -> Resolved {
    let detail = Bytes::from_static(b"from outside");
    let resolved = world
        .store
        .resolve_task(&world.shard, "g", &key(number), outcome, detail)
        .await;
    resolved.expect("an answer")
}

/// A group with so many tasks, and a consumer.
async fn with_tasks(count: u32) -> (World, Taker) {
    let world = with_group().await;
    let tasks: Vec<TaskEntry> = (0..count).map(task).collect();
    assert_eq!(
        dispatch(&world, &tasks).await,
        Dispatched::Done { added: count }
    );
    let a = world.join("g", "a", &[]).await;
    (world, a)
}

#[tokio::test]
async fn a_task_is_added_once_whatever_became_of_it() {
    let (world, a) = with_tasks(2).await;
    assert_eq!(world.places("g").await, (2, 0, 0, 0, 0, 0));
    let again = dispatch(&world, &[task(0), task(1), task(2), task(2)]).await;
    assert_eq!(again, Dispatched::Done { added: 1 });
    let taken = world.take("g", &a, 1).await;
    world.settle("g", &a, &taken[0], Action::Ack).await;
    let again = dispatch(&world, &[task(0), task(1), task(2)]).await;
    assert_eq!(again, Dispatched::Done { added: 0 });
    assert_eq!(world.places("g").await, (2, 0, 0, 0, 0, 1));
    let figures = world.figures("g").await;
    let size = 2 * task(0).body.len() as u64;
    assert_eq!((figures.published, figures.unsettled_bytes), (3, size));
}

#[tokio::test]
async fn tasks_go_to_lanes_of_their_priority_and_capabilities() {
    let world = with_group().await;
    let mut urgent = task(0);
    urgent.priority = 9;
    let mut special = task(1);
    special.capabilities = "cuda,gpu".into();
    dispatch(&world, &[urgent, special]).await;
    let lanes = world.lanes("g").await;
    let names: Vec<&str> = lanes.iter().map(|lane| &*lane.reference).collect();
    assert_eq!(names, ["g/p4t+cuda,gpu", "g/p9t"]);
    let a = world.join("g", "a", &[]).await;
    assert_eq!(world.take("g", &a, 9).await.len(), 1);
    let b = world.join("g", "b", &["cuda", "gpu"]).await;
    assert_eq!(world.take("g", &b, 9).await.len(), 1);
    assert_eq!(told(&world).await, ["0 started a 1", "1 started b 1"]);
}

#[tokio::test]
async fn a_dispatch_is_refused_where_the_group_is_gone_or_it_is_late() {
    let world = world().await;
    assert_eq!(dispatch(&world, &[task(0)]).await, Dispatched::GroupGone);
    world.create("g", Start::Earliest).await;
    let late = world
        .store
        .dispatch_tasks(&world.shard, target(), 10, &[task(0)], 11)
        .await;
    assert_eq!(late.expect("an answer"), Dispatched::Late);
    assert_eq!(row(&world, 0).await, TaskRow::Unknown);
    let in_time = world
        .store
        .dispatch_tasks(&world.shard, target(), 10, &[task(0)], 10)
        .await;
    assert_eq!(in_time.expect("an answer"), Dispatched::Done { added: 1 });
    assert!(world.set_state("g", GroupState::Paused, 2).await);
    assert_eq!(
        dispatch(&world, &[task(1)]).await,
        Dispatched::Done { added: 1 }
    );
    assert!(world.set_state("g", GroupState::Deleting, 3).await);
    assert_eq!(dispatch(&world, &[task(2)]).await, Dispatched::GroupGone);
}

#[tokio::test]
async fn a_full_group_takes_what_has_room_and_the_rest_later() {
    let (world, a) = with_tasks(1).await;
    let small = TaskTarget {
        max_backlog: 2,
        ..target()
    };
    let tasks = [task(0), task(1), task(2)];
    let send = || {
        world
            .store
            .dispatch_tasks(&world.shard, small, 0, &tasks, 0)
    };
    assert_eq!(send().await.expect("an answer"), Dispatched::Full);
    assert_eq!(row(&world, 1).await, TaskRow::Waiting);
    assert_eq!(row(&world, 2).await, TaskRow::Unknown);
    let taken = world.take("g", &a, 1).await;
    world.settle("g", &a, &taken[0], Action::Ack).await;
    let added = send().await.expect("an answer");
    assert_eq!(added, Dispatched::Done { added: 1 });
    let narrow = TaskTarget {
        max_backlog_bytes: 1,
        ..target()
    };
    let refused = world
        .store
        .dispatch_tasks(&world.shard, narrow, 0, &[task(3)], 0)
        .await;
    assert_eq!(refused.expect("an answer"), Dispatched::Full);
}

#[tokio::test]
async fn a_lane_that_is_gone_is_a_loss_of_data() {
    let (world, _) = with_tasks(1).await;
    let lane = world.shard.lane(&LANE.parse().expect("a lane"));
    let _: i64 = world.redis(&["DEL", &lane]).await;
    let lost = world
        .store
        .dispatch_tasks(&world.shard, target(), 0, &[task(1)], 0)
        .await;
    assert!(matches!(lost, Err(StoreError::Lost { .. })), "{lost:?}");
    assert_eq!(row(&world, 0).await, TaskRow::Unknown, "it is forgotten");
    let rows: i64 = world.redis(&["HLEN", &world.shard.tasks()]).await;
    assert_eq!(rows, 0);
}

#[tokio::test]
async fn an_ack_tells_the_result_in_the_step_that_settles() {
    let (world, a) = with_tasks(2).await;
    let taken = world.take("g", &a, 2).await;
    assert_eq!(
        row(&world, 0).await,
        TaskRow::Leased {
            consumer: "a".into(),
            deliveries: 1
        }
    );
    let verdict = world.settle("g", &a, &taken[0], given("result")).await;
    assert_eq!(verdict, Verdict::Done);
    world.settle("g", &a, &taken[1], Action::Ack).await;
    assert_eq!(
        told(&world).await,
        [
            "0 started a 1",
            "1 started a 1",
            "0 succeeded result",
            "1 succeeded "
        ]
    );
    assert_eq!(row(&world, 0).await, TaskRow::Ended(TaskOutcome::Succeeded));
    let figures = world.figures("g").await;
    assert_eq!((figures.settled, figures.acked), (2, 2));
    assert_eq!(figures.unsettled_bytes, 0);
}

#[tokio::test]
async fn an_ack_without_a_result_leaves_a_signalled_task_open() {
    let world = with_group().await;
    dispatch(&world, &[by_signal(0), by_signal(1)]).await;
    let a = world.join("g", "a", &[]).await;
    let taken = world.take("g", &a, 2).await;
    world.settle("g", &a, &taken[0], Action::Ack).await;
    world.settle("g", &a, &taken[1], given("now")).await;
    assert_eq!(row(&world, 0).await, TaskRow::Acked);
    assert_eq!(row(&world, 1).await, TaskRow::Ended(TaskOutcome::Succeeded));
    assert_eq!(world.places("g").await, (0, 0, 0, 0, 0, 2));
    let signalled = resolve(&world, 0, TaskOutcome::Succeeded).await;
    assert_eq!(signalled, Resolved::Ended { holder: None });
    let again = resolve(&world, 0, TaskOutcome::Cancelled).await;
    assert_eq!(again, Resolved::Already(TaskOutcome::Succeeded));
    assert_eq!(
        told(&world).await[2..],
        ["1 succeeded now", "0 succeeded from outside"]
    );
    assert_eq!(world.places("g").await, (0, 0, 0, 0, 0, 2));
}

#[tokio::test]
async fn whatever_ends_a_delivery_ends_its_task() {
    let (world, a) = with_tasks(4).await;
    let taken = world.take("g", &a, 4).await;
    let asked = Action::Suspend {
        asked: Bytes::from_static(b"which one?"),
    };
    let record = hive_store::attempt::record(&hive_store::attempt::Attempt {
        category: "validation_error".into(),
        reason: "no such file".into(),
        ..hive_store::attempt::Attempt::default()
    });
    let refused = Action::Reject {
        category: "validation_error".into(),
        record,
    };
    for (taken, action) in taken.iter().zip([asked, refused, reject(), Action::Expire]) {
        world.settle("g", &a, taken, action).await;
    }
    assert_eq!(
        told(&world).await[4..],
        [
            "0 suspended which one?",
            "1 dead_lettered validation_error: no such file",
            "2 dead_lettered validation_error",
            "3 dead_lettered expired",
        ]
    );
    let figures = world.figures("g").await;
    assert_eq!((figures.settled, figures.acked, figures.dead), (4, 0, 3));
}

#[tokio::test]
async fn a_task_that_fails_is_delivered_again_until_its_attempts_are_used_up() {
    let (world, a) = with_tasks(1).await;
    for attempt in 1..=3 {
        let taken = world.take("g", &a, 1).await;
        assert_eq!(taken[0].count, attempt);
        let action = if attempt == 2 { lose(0) } else { nack(Some(0)) };
        world.settle("g", &a, &taken[0], action).await;
    }
    assert!(world.take("g", &a, 1).await.is_empty());
    assert_eq!(
        told(&world).await,
        [
            "0 started a 1",
            "0 started a 2",
            "0 started a 3",
            "0 dead_lettered unknown",
        ]
    );
}

#[tokio::test]
async fn a_task_given_back_stays_open() {
    let (world, a) = with_tasks(1).await;
    let taken = world.take("g", &a, 1).await;
    let back = Action::Release { retry_after_ms: 0 };
    world.settle("g", &a, &taken[0], back).await;
    assert_eq!(row(&world, 0).await, TaskRow::Waiting);
    assert_eq!(world.take("g", &a, 1).await.len(), 1);
}

#[tokio::test]
async fn a_task_decided_at_work_is_settled_for_its_holder() {
    let (world, a) = with_tasks(1).await;
    let taken = world.take("g", &a, 1).await;
    let holder = Holder {
        group: "g".into(),
        lane: LANE.into(),
        id: taken[0].id.clone(),
        consumer: "a".into(),
        deliveries: 1,
    };
    assert_eq!(
        resolve(&world, 0, TaskOutcome::TimedOut).await,
        Resolved::Ended {
            holder: Some(holder)
        }
    );
    let late = world.settle("g", &a, &taken[0], given("too late")).await;
    assert_eq!(late, Verdict::Gone);
    assert_eq!(
        told(&world).await,
        ["0 started a 1", "0 timed_out from outside"]
    );
    let figures = world.figures("g").await;
    assert_eq!((figures.settled, figures.acked), (1, 0));
    assert_eq!((figures.failed, figures.unsettled_bytes), (0, 0));
    assert_eq!(world.places("g").await, (0, 0, 0, 0, 0, 1));
}

#[tokio::test]
async fn a_task_decided_before_it_is_delivered_is_settled_by_the_fetch() {
    let (world, a) = with_tasks(3).await;
    assert_eq!(
        resolve(&world, 1, TaskOutcome::Cancelled).await,
        Resolved::Ended { holder: None }
    );
    assert_eq!(world.places("g").await, (3, 0, 0, 0, 0, 0));
    let taken = world.take("g", &a, 9).await;
    assert_eq!(taken.len(), 2);
    assert_eq!(world.places("g").await, (0, 2, 0, 0, 0, 1));
    for one in &taken {
        world.settle("g", &a, one, Action::Ack).await;
    }
    let figures = world.figures("g").await;
    assert_eq!((figures.settled, figures.unsettled_bytes), (3, 0));
}

#[tokio::test]
async fn a_task_decided_while_it_waits_again_leaves_its_index() {
    for (back, index) in [
        (Action::Release { retry_after_ms: 0 }, "ready"),
        (nack(Some(60_000)), "delayed"),
    ] {
        let (world, a) = with_tasks(1).await;
        let taken = world.take("g", &a, 1).await;
        world.settle("g", &a, &taken[0], back).await;
        let resolved = resolve(&world, 0, TaskOutcome::Cancelled).await;
        assert_eq!(resolved, Resolved::Ended { holder: None }, "{index}");
        assert_eq!(world.places("g").await, (0, 0, 0, 0, 0, 1), "{index}");
        assert!(world.take("g", &a, 1).await.is_empty(), "{index}");
    }
}

#[tokio::test]
async fn a_task_decided_before_its_dispatch_is_never_added() {
    let world = with_group().await;
    resolve(&world, 0, TaskOutcome::Cancelled).await;
    assert_eq!(
        dispatch(&world, &[task(0)]).await,
        Dispatched::Done { added: 0 }
    );
    assert_eq!(row(&world, 0).await, TaskRow::Ended(TaskOutcome::Cancelled));
    assert_eq!(told(&world).await, ["0 cancelled from outside"]);
}

#[tokio::test]
async fn a_task_whose_time_passed_in_mid_lane_is_told_as_dead() {
    let world = with_group().await;
    dispatch(&world, &[task(0), expiring(1), expiring(2)]).await;
    resolve(&world, 2, TaskOutcome::Cancelled).await;
    let lanes = world.lanes("g").await;
    let (expired, _) = world
        .store
        .expire_waiting(&world.shard, "g", &lanes[0], "-", ("expired", b""))
        .await
        .expect("an expiry");
    assert_eq!(expired, 2);
    assert_eq!(
        told(&world).await,
        ["2 cancelled from outside", "1 dead_lettered expired"]
    );
    let figures = world.figures("g").await;
    assert_eq!((figures.waiting, figures.settled, figures.dead), (1, 2, 1));
}

/// Ends what waits, as a purge does.
async fn purge(world: &World) -> Vec<Verdict> {
    let lanes = world.lanes("g").await;
    let ids = world
        .store
        .take_waiting(&world.shard, "g", &lanes[0], Take::All, 100)
        .await
        .expect("ids");
    let settles: Vec<Settle> = ids
        .into_iter()
        .map(|id| Settle {
            lease: hive_store::Lease {
                lane: LANE.into(),
                id,
                count: 1,
                consumer: "~taken".into(),
                session: "*".into(),
                delivered_ms: 0,
                bytes: 0,
            },
            attach: 0,
            check_session: false,
            action: Action::Cancel,
        })
        .collect();
    world.settle_all("g", &settles).await
}

#[tokio::test]
async fn a_purge_ends_what_is_open_and_leaves_what_is_decided() {
    let (world, _) = with_tasks(2).await;
    resolve(&world, 1, TaskOutcome::Failed).await;
    assert_eq!(purge(&world).await, [Verdict::Dead, Verdict::Done]);
    assert_eq!(
        told(&world).await,
        ["1 failed from outside", "0 dead_lettered cancelled"]
    );
    let figures = world.figures("g").await;
    assert_eq!((figures.waiting, figures.settled, figures.dead), (0, 2, 1));
}

#[tokio::test]
async fn records_are_read_on_and_forgotten_once_applied_and_old() {
    let (world, a) = with_tasks(2).await;
    let taken = world.take("g", &a, 1).await;
    world.settle("g", &a, &taken[0], given("result")).await;
    let (store, shard) = (&world.store, &world.shard);
    assert_eq!(store.settled_applied(shard).await.expect("an id"), "0-0");
    let records = store.read_settled(shard, "0-0", 1).await.expect("records");
    assert_eq!(records.len(), 1);
    let rest = store.read_settled(shard, &records[0].id, 9).await;
    let last = rest.expect("records").pop().expect("a record").id;
    let later = store.now_ms() + 10_000;
    let trim = |keep| store.trim_settled(shard, keep, later);
    assert_eq!(trim(0).await.expect("a trim"), 0, "not applied");
    let noted = store.advance_settled(shard, "0-0", &last).await;
    assert!(noted.expect("noted"));
    let older = store.advance_settled(shard, "0-0", &records[0].id).await;
    assert!(older.expect("kept"));
    assert_eq!(store.settled_applied(shard).await.expect("an id"), last);
    assert_eq!(trim(60_000).await.expect("a trim"), 0, "not old");
    assert_eq!(row(&world, 0).await, TaskRow::Ended(TaskOutcome::Succeeded));
    assert_eq!(trim(1_000).await.expect("a trim"), 2);
    assert_eq!(row(&world, 0).await, TaskRow::Unknown);
    assert_eq!(row(&world, 1).await, TaskRow::Waiting, "an open row stays");
    assert!(told(&world).await.is_empty());
}

#[tokio::test]
async fn whoever_read_on_behind_a_position_that_was_lost_notes_nothing() {
    let (world, a) = with_tasks(3).await;
    let (store, shard) = (&world.store, &world.shard);
    for one in world.take("g", &a, 3).await {
        world.settle("g", &a, &one, given("result")).await;
    }
    let records = store.read_settled(shard, "0-0", 9).await.expect("records");
    let ids: Vec<String> = records.into_iter().map(|record| record.id).collect();
    let note = async |from: &str, id: &str| {
        let noted = store.advance_settled(shard, from, id).await.expect("noted");
        (noted, store.settled_applied(shard).await.expect("an id"))
    };
    assert_eq!(note("0-0", &ids[0]).await, (true, ids[0].clone()));
    // Redis comes back with less than it had: what was noted behind the first one is gone.
    assert_eq!(note(&ids[3], &ids[5]).await, (false, ids[0].clone()));
    assert_eq!(note(&ids[3], &ids[5]).await, (false, ids[0].clone()));
    // Whoever reads on behind what is noted goes on, also one that is slower than another.
    assert_eq!(note(&ids[0], &ids[4]).await, (true, ids[4].clone()));
    assert_eq!(note(&ids[0], &ids[2]).await, (true, ids[4].clone()));
    assert_eq!(note(&ids[4], &ids[5]).await, (true, ids[5].clone()));
    assert_eq!(note(&ids[4], &ids[5]).await, (true, ids[5].clone()));
}

#[tokio::test]
async fn large_results_are_read_in_parts() {
    let (world, a) = with_tasks(8).await;
    for one in world.take("g", &a, 8).await {
        let result = vec![0; 1 << 20].into();
        let action = Action::Complete { result };
        world.settle("g", &a, &one, action).await;
    }
    let (mut after, mut found) = ("0-0".to_owned(), Vec::new());
    loop {
        let records = world.store.read_settled(&world.shard, &after, 500).await;
        let records = records.expect("records");
        let Some(last) = records.last() else { break };
        after = last.id.clone();
        found.push(records.len());
    }
    assert!(found.len() > 1, "{found:?}");
    assert_eq!(found.iter().sum::<usize>(), 16);
}

#[tokio::test]
async fn a_group_that_goes_cancels_the_last_tasks_and_tells() {
    let (world, _) = with_tasks(2).await;
    resolve(&world, 1, TaskOutcome::Cancelled).await;
    assert!(world.set_state("g", GroupState::Deleting, 2).await);
    let gone = world.store.delete_on_shard(&world.shard, "g").await;
    assert_eq!(gone.expect("an answer"), Removal::Done(1));
    assert_eq!(
        told(&world).await,
        ["1 cancelled from outside", "0 dead_lettered cancelled"]
    );
    assert_eq!(
        row(&world, 0).await,
        TaskRow::Ended(TaskOutcome::DeadLettered)
    );
}

#[tokio::test]
async fn a_group_restored_delivers_no_task_that_was_decided() {
    let (world, a) = with_tasks(3).await;
    let taken = world.take("g", &a, 2).await;
    world.settle("g", &a, &taken[0], given("result")).await;
    let lane = world.shard.lane(&LANE.parse().expect("a lane"));
    let _: i64 = world.redis(&["XGROUP", "DESTROY", &lane, "g"]).await;
    assert_eq!(row(&world, 1).await, TaskRow::Waiting, "it is in its lane");
    assert_eq!(
        resolve(&world, 2, TaskOutcome::Cancelled).await,
        Resolved::Ended { holder: None }
    );
    let restored = world.store.restore_on_shard(&world.shard, "g").await;
    assert_eq!(restored.expect("restored"), [(LANE.to_owned(), 3)]);
    let again = world.take("g", &a, 9).await;
    assert_eq!(crate::world::ids(&again), ["run/1/1"]);
    world.settle("g", &a, &again[0], given("again")).await;
    assert_eq!(
        told(&world).await[2..],
        [
            "0 succeeded result",
            "2 cancelled from outside",
            "1 started a 1",
            "1 succeeded again",
        ]
    );
    let figures = world.figures("g").await;
    assert_eq!((figures.waiting, figures.pending), (0, 0));
}

#[tokio::test]
async fn a_task_lost_at_work_is_written_off_and_may_be_sent_again() {
    let (world, a) = with_tasks(1).await;
    let taken = world.take("g", &a, 1).await;
    let lane = world.shard.lane(&LANE.parse().expect("a lane"));
    let _: i64 = world.redis(&["XDEL", &lane, &taken[0].id]).await;
    let lanes = world.lanes("g").await;
    let written = world.store.write_off(
        &world.shard,
        ("g", crate::world::AGEING_MS),
        &lanes,
        (&lanes[0], &taken[0].id),
    );
    assert_eq!(written.await.expect("an answer"), WrittenOff::Lost(1));
    assert_eq!(row(&world, 0).await, TaskRow::Unknown);
    let again = dispatch(&world, &[task(0)]).await;
    assert_eq!(again, Dispatched::Done { added: 1 });
    assert_eq!(world.take("g", &a, 1).await.len(), 1);
}

#[tokio::test]
async fn whoever_listens_hears_of_outcomes_and_of_cancelled_leases() {
    let (world, a) = with_tasks(1).await;
    let taken = world.take("g", &a, 1).await;
    let kinds = [Line::Settled, Line::Cancels];
    let line = world.store.lines(&kinds).await.expect("a line");
    let (rings, mut heard) = tokio::sync::mpsc::unbounded_channel();
    // Tests that run at once share a server.
    let mine = world.shard.tag().to_owned();
    let listen = line.listen(move |channel, said| {
        if channel.starts_with(&mine) {
            drop(rings.send((channel.to_owned(), said.to_owned())));
        }
    });
    tokio::pin!(listen);
    resolve(&world, 0, TaskOutcome::Cancelled).await;
    let mut next = async || {
        tokio::select! {
            bell = heard.recv() => bell.expect("a bell"),
            () = &mut listen => panic!("the line lives"),
        }
    };
    assert_eq!(next().await, (world.shard.settled(), String::new()));
    let (channel, said) = next().await;
    assert_eq!(channel, world.shard.cancels());
    let lease = CancelledLease {
        group: "g".into(),
        consumer: "a".into(),
        lane: LANE.into(),
        id: taken[0].id.clone(),
        deliveries: 1,
    };
    assert_eq!(CancelledLease::parse(&said), Some(lease));
}

#[tokio::test]
async fn large_results_are_settled_in_several_calls() {
    let (world, a) = with_tasks(8).await;
    let mut settles = Vec::new();
    for one in world.take("g", &a, 8).await {
        let result = vec![0; 1 << 20].into();
        let action = Action::Complete { result };
        settles.push(world.settle_of("g", &a, &one, action).await);
    }
    let verdicts = world.settle_all("g", &settles).await;
    assert_eq!(verdicts, [Verdict::Done; 8]);
    // Each call keeps its verdicts under the caller's key.
    let pattern = format!("{}verdicts:*", world.shard.tag());
    let keys: Vec<String> = world.redis(&["KEYS", &pattern]).await;
    let calls: i64 = world.redis(&["HLEN", &keys[0]]).await;
    assert!(calls > 1, "{calls}");
}
