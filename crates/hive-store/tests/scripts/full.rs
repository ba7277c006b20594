//! A full Redis: new work is refused, everything else goes on, so that it drains.

use std::sync::Arc;

use hive_domain::group::{GroupDefinition, GroupState, Start};
use hive_store::{
    LaneRef, Lease, StoreError,
    control::{Put, Removal},
    publish::Item,
    registry::Registration,
    retention::Keep,
    settle::{Action, Settle, Verdict},
    sweep::Take,
};
use hive_testkit::redis::RedisServer;

use crate::world::{AGEING_MS, World, item, nack, on, ordered};

/// A world whose Redis is over its limit by now.
async fn full() -> World {
    let server = RedisServer::start().await.expect("a server");
    let world = on(Arc::new(server)).await;
    world.create("g", Start::Earliest).await;
    world.create("h", Start::Earliest).await;
    world.add("g/p4", &["a", "b", "c", "d", "e"]).await;
    world.add("/p4@c", &["held"]).await;
    let later = Item {
        not_before_ms: 1_000,
        ..item("g/p4", "later")
    };
    world
        .publish(vec![
            ordered("g/p4m", "o1", "k"),
            ordered("g/p4m", "o2", "k"),
            later,
        ])
        .await;
    world.join("g", "a", &[]).await;
    let _: String = world.redis(&["CONFIG", "SET", "maxmemory", "1"]).await;
    world
}

#[tokio::test]
async fn new_work_is_refused_as_full() {
    let world = full().await;
    let flush = world.flush(vec![item("g/p4", "x")]).await;
    let refused = world.store.publish(&world.shard, &flush).await;
    assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
    let task = crate::tasks::dispatch_raw(&world, 0).await;
    assert!(matches!(task, Err(StoreError::Full)), "{task:?}");
    let group = World::definition("new", Start::Earliest);
    let refused = world.store.create_on_shard(&world.shard, &group).await;
    assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
    let group = GroupDefinition {
        version: 0,
        ..group
    };
    let refused = world.store.put_group("n", &group).await;
    assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
}

#[tokio::test]
async fn a_definition_changes_all_the_same_so_that_an_operator_can_make_room() {
    let server = RedisServer::start().await.expect("a server");
    let world = on(Arc::new(server)).await;
    let mut group = GroupDefinition {
        version: 0,
        ..World::definition("g", Start::Earliest)
    };
    let Put::Stored(first) = world.store.put_group("n", &group).await.expect("new") else {
        panic!("it is new");
    };
    let _: String = world.redis(&["CONFIG", "SET", "maxmemory", "1"]).await;
    group.version = first;
    let put = world.store.put_group("n", &group).await.expect("changed");
    assert!(
        matches!(put, Put::Stored(second) if second > first),
        "{put:?}"
    );
}

#[tokio::test]
async fn everything_that_drains_it_goes_on() {
    let world = full().await;
    let a = world.join("g", "a", &[]).await;
    let c = world.join("g", "c", &[]).await;
    let all = world.store.lanes(&world.shard).await.expect("lanes").all;
    let moved = world.store.move_held(&world.shard, "g", "c", &all).await;
    assert_eq!(moved.expect("held_move"), 1);
    let taken = world.take("g", &a, 9).await;
    assert_eq!(taken.len(), 7, "o2 is parked");
    let lanes = world.lanes("g").await;
    let lease = (world.lease("g", &a, &taken[0]).await, a.attach);
    let extended = world
        .store
        .extend(&world.shard, "g", &lanes, &[lease])
        .await;
    assert_eq!(extended.expect("extend"), [Verdict::Done]);
    let actions = [
        Action::Ack,
        nack(Some(60_000)),
        Action::Release { retry_after_ms: 0 },
        crate::world::reject(),
        crate::world::lose(0),
        Action::GiveBack { idle_ms: 0 },
        Action::Expire,
    ];
    for (taken, action) in taken.iter().zip(actions) {
        let what = format!("{action:?}");
        let verdict = world.settle("g", &a, taken, action).await;
        assert!(
            matches!(verdict, Verdict::Done | Verdict::Dead),
            "{what}: {verdict:?}"
        );
    }
    let due = world
        .store
        .due_delayed(&world.shard, "g", &lanes, AGEING_MS)
        .await;
    due.expect("due_delayed");
    let held = world
        .store
        .held_by("g", &lanes, "~ready")
        .await
        .expect("held");
    let lane = &lanes[held[0].lane];
    let sound = world
        .store
        .reindex(&world.shard, "g", lane, &held[0].id, AGEING_MS)
        .await;
    assert!(!sound.expect("reindex"));
    world
        .store
        .tick(&world.shard, 30_000, Some("gw"))
        .await
        .expect("clock_tick");
    let me = Registration {
        daemon: "gateway",
        instance: "a".into(),
        advertise: "x".into(),
        version: "1".into(),
        started_ms: 1,
    };
    world.store.beat(&me).await.expect("daemon_beat");
    let groups = world
        .store
        .groups_on_shard(&world.shard)
        .await
        .expect("groups");
    let known = world.store.lanes(&world.shard).await.expect("lanes");
    world
        .store
        .due_scheduled(&world.shard, &known, &groups)
        .await
        .expect("due_scheduled");
    forget_settled(&world, &all).await;
    assert!(world.set_state("h", GroupState::Deleting, 2).await);
    let cancelled = world
        .store
        .cancel_scheduled(&world.shard, "h", (0, false))
        .await;
    cancelled.expect("scheduled_cancel");
    let removed = world.store.delete_on_shard(&world.shard, "h").await;
    assert_eq!(removed.expect("group_delete"), Removal::Done(0));
    let left = world
        .store
        .leave(&world.shard, "g", &lanes, ("a", "*", 0))
        .await;
    left.expect("leave");
    let forgotten = world
        .store
        .forget_consumer(&world.shard, "g", &lanes[0], "a")
        .await;
    forgotten.expect("consumer_forget");
    while !world.take("g", &c, 9).await.is_empty() {}
    drain(&world, &lanes).await;
    assert_eq!(world.figures("g").await.pending, 0);
}

/// Trims all lanes, as if nothing were to be kept.
async fn forget_settled(world: &World, lanes: &[LaneRef]) {
    let keep = Keep {
        age_ms: 0,
        len: 0,
        bytes: 0,
    };
    for lane in lanes {
        world
            .store
            .trim(&world.shard, lane, keep, "-")
            .await
            .expect("trim");
        let ended = world.store.expire_buffered(&world.shard, lane, 0).await;
        ended.expect("buffered_expire");
    }
}

/// Cancels whatever is left, as a purge does.
async fn drain(world: &World, lanes: &[hive_store::fetch::ReadLane]) {
    for lane in lanes {
        let taken = world
            .store
            .take_waiting(&world.shard, "g", lane, Take::All, 100)
            .await;
        taken.expect("group_take");
    }
    let lanes = world.lanes("g").await;
    for number in 0..lanes.len() {
        let page = world
            .store
            .pending("g", &lanes, number, ("-", 100), None)
            .await;
        for held in page.expect("pending") {
            let lease: Lease = held.lease(&lanes, "*", 0);
            let cancel = Settle {
                lease,
                attach: 0,
                check_session: false,
                action: Action::Cancel,
            };
            world.settle_all("g", &[cancel]).await;
        }
    }
}
