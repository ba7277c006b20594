//! `stream_close`, `stream_open`, and what a closed shard refuses.

use hive_domain::{
    group::Start,
    stream::{StreamDefinition, StreamSettings},
    time::Timestamp,
};
use hive_store::{
    control::Made,
    publish::{Flushed, Outcome},
    settle::Action,
    streams::{Closing, Ensured, Held},
};

use crate::world::{World, item, reject, with_group, world};

const MADE: Timestamp = Timestamp(100);

async fn close(world: &World, created_at: Timestamp) -> Closing {
    let closed = world.store.close_on_shard(&world.shard, created_at).await;
    closed.expect("close")
}

/// The mark of the shard.
async fn mark(world: &World) -> Option<Timestamp> {
    let state = world.store.shard_state(&world.shard).await;
    state.expect("state").1
}

async fn open(world: &World, created_at: Timestamp) -> bool {
    let opened = world.store.open_on_shard(&world.shard, created_at).await;
    opened.expect("open")
}

/// Publishes to a stream that buffers.
async fn buffer(world: &World, lane: &str, id: &str) -> Flushed {
    let mut flush = world.flush(vec![item(lane, id)]).await;
    flush.buffer_without_groups = true;
    world.send(&flush).await
}

#[tokio::test]
async fn an_empty_stream_leaves_a_mark_alone_and_takes_nothing_more() {
    let world = world().await;
    for _ in 0..2 {
        assert_eq!(close(&world, MADE).await, Closing::Closed);
    }
    assert_eq!(mark(&world).await, Some(MADE));
    assert_eq!(buffer(&world, "/p4", "late").await, Flushed::Closed);
    assert_eq!(buffer(&world, "/p4@c", "late").await, Flushed::Closed);
    let group = World::definition("g", Start::Earliest);
    let made = world.store.create_on_shard(&world.shard, &group).await;
    assert_eq!(made.expect("create"), Made::Closed);
    let states = world.store.shard_groups(&world.shard).await;
    assert_eq!(states.expect("groups"), [], "the mark is no group");
    let left: Vec<String> = world
        .redis(&["KEYS", &format!("{}*", world.shard.tag())])
        .await;
    assert_eq!(left, [world.shard.groups()]);
    let left_ms: i64 = world.redis(&["PTTL", &world.shard.groups()]).await;
    assert!(left_ms > 0, "{left_ms}");
}

#[tokio::test]
async fn a_mark_gives_way_to_a_younger_stream_alone() {
    let world = world().await;
    assert!(open(&world, MADE).await);
    close(&world, MADE).await;
    assert!(!open(&world, MADE).await, "it is the one that goes");
    assert!(!open(&world, MADE.minus(1)).await, "an older one is gone");
    assert!(open(&world, MADE.plus(1)).await);
    assert!(world.create("g", Start::Earliest).await);
    let left_ms: i64 = world.redis(&["PTTL", &world.shard.groups()]).await;
    assert_eq!(left_ms, -1, "nothing of the mark is left");
    world.add("g/p4", &["a"]).await;
}

#[tokio::test]
async fn what_a_stream_still_holds_is_counted_and_kept() {
    let world = world().await;
    for id in ["a", "b"] {
        let stored = buffer(&world, "/p4", id).await;
        assert_eq!(stored, Flushed::Done(vec![Outcome::Added]));
    }
    buffer(&world, "/p4@c", "held").await;
    let mut delayed = item("/p4", "delayed");
    delayed.not_before_ms = 1 << 52;
    let mut flush = world.flush(vec![delayed]).await;
    flush.buffer_without_groups = true;
    world.send(&flush).await;
    let held = Held {
        buffered: 2,
        held_for_consumers: 1,
        scheduled: 1,
        ..Held::default()
    };
    assert_eq!(close(&world, MADE).await, Closing::Filled(held));
    assert_eq!(mark(&world).await, None);
    world.create("g", Start::Earliest).await;
    assert_eq!(world.places("g").await.0, 2, "nothing was touched");
}

#[tokio::test]
async fn settled_messages_go_with_the_stream_and_dead_letters_do_not() {
    let world = with_group().await;
    world.add("/p4", &["a", "b"]).await;
    let filled = |held| Closing::Filled(held);
    let reader = Held {
        groups: 1,
        buffered: 2,
        ..Held::default()
    };
    assert_eq!(close(&world, MADE).await, filled(reader));
    let a = world.join("g", "a", &[]).await;
    let taken = world.take("g", &a, 9).await;
    world.settle("g", &a, &taken[0], Action::Ack).await;
    world.settle("g", &a, &taken[1], reject()).await;
    world
        .store
        .retire_on_shard(&world.shard, "g")
        .await
        .expect("retire");
    world
        .store
        .delete_on_shard(&world.shard, "g")
        .await
        .expect("delete");
    let dead = Held {
        dead_letters: 1,
        ..Held::default()
    };
    assert_eq!(close(&world, MADE).await, filled(dead));
    buffer(&world, "/p4", "c").await;
    let waiting = Held {
        buffered: 1,
        dead_letters: 1,
        ..Held::default()
    };
    assert_eq!(close(&world, MADE).await, filled(waiting));
    let _: u64 = world.redis(&["DEL", &world.shard.dead()]).await;
    let lane = world.shard.lane(&crate::world::lane_ref("/p4"));
    let _: u64 = world.redis(&["XTRIM", &lane, "MAXLEN", "0"]).await;
    assert_eq!(close(&world, MADE).await, Closing::Closed);
}

#[tokio::test]
async fn a_stream_is_made_once_and_a_decided_end_is_carried_out_first() {
    let world = world().await;
    let tag = world.shard.tag().split_once('{').expect("a tag").1;
    let namespace = tag.split('/').next().expect("a namespace");
    let asked = StreamDefinition {
        name: "s".into(),
        shards: 1,
        created_at: MADE,
        version: 0,
        settings: StreamSettings::default(),
    };
    let ensure = async || {
        let ensured = world.store.ensure_stream(namespace, &asked).await;
        match ensured.expect("ensure") {
            Ensured::There(stream, created) => (stream.created_at, created),
            other @ (Ensured::Conflict | Ensured::Full) => panic!("{other:?}"),
        }
    };
    assert_eq!(ensure().await, (MADE, true));
    assert_eq!(ensure().await, (MADE, false));
    // Whoever deletes it dies behind the decision; the clock of the next one is behind.
    close(&world, MADE).await;
    assert_eq!(ensure().await, (MADE.plus(1), true));
    assert_eq!(mark(&world).await, None);
}

#[tokio::test]
async fn nothing_of_a_retired_lane_outlives_its_stream() {
    let world = with_group().await;
    world.add("g/p4+gpu", &["a"]).await;
    let a = world.join("g", "a", &["gpu"]).await;
    let taken = world.take("g", &a, 9).await;
    let settle = world.settle_of("g", &a, &taken[0], Action::Ack).await;
    let lanes = world.lanes("g").await;
    world
        .settle_with("g", &lanes, &[settle], |group| group.keep = false)
        .await;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let groups = ["g".to_owned()];
    let lane = crate::world::lane_ref("g/p4+gpu");
    let retired = world.store.retire_lane(&world.shard, &lane, &groups, 1);
    let retired = retired.await.expect("lane_retire");
    assert_eq!(retired, hive_store::retention::Unused::Retired);
    for step in [
        world.store.retire_on_shard(&world.shard, "g").await,
        world.store.delete_on_shard(&world.shard, "g").await,
    ] {
        step.expect("a step");
    }
    assert_eq!(close(&world, MADE).await, Closing::Closed);
    let pattern = format!("{}*", world.shard.tag());
    let mut left: Vec<String> = world.redis(&["KEYS", &pattern]).await;
    // What was stored for calls that are sent again ends by itself.
    left.retain(|key| *key != world.shard.groups());
    for key in left {
        let left_ms: i64 = world.redis(&["PTTL", &key]).await;
        assert!(left_ms > 0, "{key}");
    }
}

#[tokio::test]
async fn bytes_of_a_lane_that_went_take_no_room_from_the_next_one() {
    for lane in ["/p4@c", "/p4"] {
        let world = world().await;
        let sizes = world.shard.sizes();
        let _: i64 = world.redis(&["HSET", &sizes, lane, "1000000"]).await;
        let mut flush = world.flush(vec![item(lane, "a")]).await;
        flush.buffer_without_groups = true;
        flush.max_backlog_bytes = 1_000;
        let added = Flushed::Done(vec![Outcome::Added]);
        assert_eq!(world.send(&flush).await, added, "{lane}");
    }
}
