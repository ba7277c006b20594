//! Calls that answer only when their effect is on disk.

use std::sync::Arc;

use hive_domain::group::Start;
use hive_store::{
    StoreError,
    publish::{Flushed, Outcome},
    settle::{Action, Verdict},
};
use hive_testkit::redis::{Aof, RedisServer};

use crate::world::{World, item, on, open};

/// Writes since the last snapshot: each is appended to the log, so WAITAOF waits for it.
async fn writes(world: &World) -> u64 {
    let info = world.store.info("persistence").await.expect("info");
    let found = info
        .iter()
        .find(|(name, _)| name == "rdb_changes_since_last_save");
    found.expect("a field").1.parse().expect("a number")
}

#[tokio::test]
async fn a_repeat_writes_something_so_that_the_disk_is_waited_for() {
    let server = RedisServer::builder()
        .aof(Aof::Always)
        .start()
        .await
        .expect("a server");
    let world = on(Arc::new(server)).await;
    world.create("g", Start::Earliest).await;
    let mut flush = world.flush(vec![item("g/p4", "a")]).await;
    flush.durable = true;
    let added = Flushed::Done(vec![Outcome::Added]);
    assert_eq!(world.send(&flush).await, added);
    let before = writes(&world).await;
    assert_eq!(world.send(&flush).await, added);
    assert!(writes(&world).await > before, "a flush sent again");
    let a = world.join("g", "a", &[]).await;
    let taken = world.take("g", &a, 1).await;
    assert_eq!(
        world.settle("g", &a, &taken[0], Action::Ack).await,
        Verdict::Done
    );
    for action in [Action::Ack, Action::Release { retry_after_ms: 0 }] {
        let before = writes(&world).await;
        assert_eq!(
            world.settle("g", &a, &taken[0], action.clone()).await,
            Verdict::Gone
        );
        assert!(writes(&world).await > before, "{action:?} sent again");
    }
}

#[tokio::test]
async fn a_sync_waits_for_the_disk_or_says_that_there_is_none() {
    for aof in [Aof::Off, Aof::Everysec, Aof::Always] {
        let server = RedisServer::builder().aof(aof).start().await;
        let world = on(Arc::new(server.expect("a server"))).await;
        world.create("g", Start::Earliest).await;
        let (checked, synced) = (
            world.store.check_durable().await,
            world.store.sync(&world.shard).await,
        );
        let commands = world.store.info("commandstats").await.expect("info");
        let waits = commands
            .iter()
            .filter(|(name, _)| name == "cmdstat_waitaof");
        if world.store.can_be_durable() {
            assert!(checked.is_ok() && synced.is_ok(), "{synced:?}");
            assert_eq!(waits.count(), usize::from(matches!(aof, Aof::Everysec)));
        } else {
            assert!(matches!(checked, Err(StoreError::Durability { .. })));
            assert!(matches!(synced, Err(StoreError::Durability { .. })));
        }
    }
}

#[tokio::test]
async fn a_durable_flush_survives_kill_9_and_goes_on_after_it() {
    let mut server = RedisServer::builder()
        .aof(Aof::Always)
        .start()
        .await
        .expect("a server");
    let store = open(&server);
    let shard = store.shard("n", "s", 0);
    let group = World::definition("g", Start::Earliest);
    store.create_on_shard(&shard, &group).await.expect("create");
    let mut flush = hive_store::publish::Flush {
        number: 1,
        incarnation: "gw".into(),
        max_backlog: 10,
        max_backlog_bytes: 1 << 40,
        buffer_without_groups: false,
        groups: vec!["g".into()],
        items: vec![item("g/p4", "a")],
        durable: true,
    };
    let added = Flushed::Done(vec![Outcome::Added]);
    assert_eq!(store.publish(&shard, &flush).await.expect("publish"), added);
    server.restart().await.expect("restart");
    assert_eq!(
        store.publish(&shard, &flush).await.expect("a repeat"),
        added
    );
    flush.number = 2;
    assert_eq!(
        store.publish(&shard, &flush).await.expect("the next"),
        added
    );
    let (lanes, _) = store.read_lanes(&shard, "g").await.expect("lanes");
    assert_eq!(
        store
            .figures(&shard, "g", &lanes)
            .await
            .expect("figures")
            .published,
        2
    );
}

#[tokio::test]
async fn the_first_call_of_a_store_knows_what_its_server_can_do() {
    let server = RedisServer::builder()
        .aof(Aof::Everysec)
        .start()
        .await
        .expect("a server");
    let world = on(Arc::new(server)).await;
    world.create("g", Start::Earliest).await;
    let fresh = open(&world.server);
    let mut flush = world.flush(vec![item("g/p4", "a")]).await;
    flush.durable = true;
    let answer = fresh.publish(&world.shard, &flush).await;
    if fresh.can_be_durable() {
        assert_eq!(
            answer.expect("publish"),
            Flushed::Done(vec![Outcome::Added])
        );
    } else {
        assert!(
            matches!(answer, Err(StoreError::Durability { .. })),
            "{answer:?}"
        );
        assert_eq!(
            world.places("g").await.0,
            0,
            "a level out of reach writes nothing"
        );
    }
}

#[tokio::test]
async fn without_an_append_only_file_no_level_but_memory_is_reached() {
    let server = RedisServer::builder().aof(Aof::Off).start().await;
    let world = on(Arc::new(server.expect("a server"))).await;
    world.create("g", Start::Earliest).await;
    assert!(!world.store.can_be_durable());
    let mut flush = world.flush(vec![item("g/p4", "a")]).await;
    flush.durable = true;
    let answer = world.store.publish(&world.shard, &flush).await;
    assert!(
        matches!(answer, Err(StoreError::Durability { .. })),
        "{answer:?}"
    );
    assert_eq!(world.places("g").await.0, 0, "nothing was written");
}
