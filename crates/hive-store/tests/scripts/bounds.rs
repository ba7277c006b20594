//! What a call reads at most: by their number, messages of a megabyte each would hold Redis up for
//! far longer than small ones.

use hive_domain::group::Start;
use hive_store::{
    header::Header,
    keys::GroupKey,
    publish::Item,
    scripts::{Call, HELD_MOVE},
    settle::{Action, Settle, Verdict},
    sweep::Take,
};

use crate::world::{World, header, lane_ref, ordered, reject, with_group};

const LARGE: usize = 1_000_000;
const COUNT: usize = 12;
/// Four of a megabyte, which leave room, and one that passes 4 MiB.
const READ: u64 = 5;

fn large(lane: &str, expires_at_ms: u64) -> Item {
    let header = Header {
        expires_at_ms,
        ..header()
    };
    Item {
        body: header.join(&vec![0; LARGE]),
        ..crate::world::item(lane, "large")
    }
}

/// A world with large messages in a lane, whose time is over.
async fn with_large(lane: &str) -> World {
    let world = with_group().await;
    world.publish(vec![large(lane, 1); COUNT]).await;
    world
}

#[tokio::test]
async fn large_messages_expire_behind_the_head_in_slices() {
    let world = with_large("g/p4").await;
    let lanes = world.lanes("g").await;
    let (mut from, mut slices) = (Some("-".to_owned()), Vec::new());
    while let Some(cursor) = from {
        let end = ("expired", b"".as_slice());
        let (store, shard) = (&world.store, &world.shard);
        let step = store.expire_waiting(shard, "g", &lanes[0], &cursor, end);
        let (count, next) = step.await.expect("waiting_expire");
        slices.push(count);
        from = next;
    }
    assert_eq!(slices, [READ, READ, 2]);
}

#[tokio::test]
async fn large_held_messages_expire_in_slices() {
    let world = with_large("/p4@c").await;
    let held = lane_ref("/p4@c");
    let (mut from, mut slices) = (Some("-".to_owned()), Vec::new());
    while let Some(cursor) = from {
        let step = world.store.expire_held(&world.shard, &held, &cursor);
        let (count, next) = step.await.expect("held_expire");
        slices.push(count);
        from = next;
    }
    assert_eq!(slices, [READ, READ, 2]);
}

#[tokio::test]
async fn large_held_messages_are_moved_in_slices() {
    let world = with_large("/p4@c").await;
    let shard = &world.shard;
    let (held, target) = (lane_ref("/p4@c"), lane_ref("g/p4@c"));
    let mut call = Call::new(&HELD_MOVE);
    call.key(shard.groups()).key(shard.lanes());
    call.key(shard.group("g", GroupKey::Counters));
    call.key(shard.lane(&held)).key(shard.lane(&target));
    call.key(shard.sizes());
    call.text("g").text("g/p4@c").number(100).text("/p4@c");
    let _: String = world.redis(&["SCRIPT", "LOAD", HELD_MOVE.text()]).await;
    let mut raw = world.raw.clone();
    let answer: Vec<String> = call.command().query_async(&mut raw).await.expect("a slice");
    assert_eq!(answer, ["OK", &READ.to_string()]);
    let all = world.store.lanes(shard).await.expect("lanes").all;
    let moved = world.store.move_held(shard, "g", "c", &all).await;
    assert_eq!(moved.expect("held_move"), COUNT as u64 - READ);
    assert_eq!(world.places("g").await.0, COUNT as u64);
}

#[tokio::test]
async fn large_buffered_messages_expire_in_slices() {
    let world = crate::world::world().await;
    let mut flush = world.flush(vec![large("/p4", 0); COUNT]).await;
    flush.buffer_without_groups = true;
    world.send(&flush).await;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let mut slices = Vec::new();
    loop {
        let ended = world
            .store
            .expire_buffered(&world.shard, &lane_ref("/p4"), 1)
            .await
            .expect("buffered_expire");
        slices.push(ended.expired);
        if !ended.more {
            break;
        }
    }
    assert_eq!(slices, [READ, READ, 2]);
}

#[tokio::test]
async fn large_messages_are_taken_in_slices() {
    let world = with_large("g/p4").await;
    let lanes = world.lanes("g").await;
    for which in [Take::Expired, Take::All, Take::OlderThan(1 << 50)] {
        let (store, shard) = (&world.store, &world.shard);
        let taken = store.take_waiting(shard, "g", &lanes[0], which, 20).await;
        // Half as much is looked at, since what is taken is read once more.
        assert_eq!(taken.expect("take").len(), 3, "{which:?}");
    }
}

#[tokio::test]
async fn large_delayed_messages_come_due_in_slices() {
    let world = with_group().await;
    let later = Item {
        not_before_ms: 4_000_000_000_000,
        ..large("g/p4", 0)
    };
    let items = (0..COUNT).map(|n| Item {
        body: header().join(&vec![u8::try_from(n).expect("few"); LARGE]),
        ..later.clone()
    });
    world.publish(items.collect()).await;
    let scheduled = world.shard.scheduled();
    let members: Vec<String> = world.redis(&["ZRANGE", &scheduled, "0", "-1"]).await;
    for member in &members {
        let _: i64 = world.redis(&["ZADD", &scheduled, "1", member]).await;
    }
    let lanes = world.store.lanes(&world.shard).await.expect("lanes");
    let mut slices = Vec::new();
    while slices.iter().sum::<u64>() < members.len() as u64 {
        let groups = ["g".to_owned()];
        let due = world.store.due_scheduled(&world.shard, &lanes, &groups);
        slices.push(due.await.expect("due").moved);
    }
    assert_eq!(slices, [READ, READ, 2]);
}

/// How many settles that changed anything this process made on the shard, and verdicts of them.
async fn verdicts_of_calls(world: &World) -> Vec<String> {
    let pattern = format!("{}*verdicts:*", world.shard.tag());
    let keys: Vec<String> = world.redis(&["KEYS", &pattern]).await;
    let mut answers: Vec<String> = world.redis(&["HVALS", &keys[0]]).await;
    answers.sort();
    let letters = |answer: String| answer.split(' ').nth(1).map(str::to_owned);
    answers.into_iter().filter_map(letters).collect()
}

#[tokio::test]
async fn a_batch_of_large_messages_is_settled_in_several_calls() {
    // By the sizes that leases tell, or where they tell none as Redis finds them.
    for (is_known, expected) in [
        (true, ["dddd", "dddd", "dddd"]),
        (false, ["dddddbbbbbbb", "dddddbb", "dd"]),
    ] {
        let world = with_large("g/p4").await;
        let a = world.join("g", "a", &[]).await;
        let mut settles: Vec<Settle> = Vec::new();
        while settles.len() < COUNT {
            for taken in world.take("g", &a, 99).await {
                let mut settle = world.settle_of("g", &a, &taken, reject()).await;
                settle.lease.bytes *= u32::from(is_known);
                settles.push(settle);
            }
        }
        let verdicts = world.settle_all("g", &settles).await;
        assert_eq!(verdicts, [Verdict::Dead; COUNT]);
        let mut calls = verdicts_of_calls(&world).await;
        calls.sort_by_key(|letters| std::cmp::Reverse(letters.len()));
        assert_eq!(calls, expected);
    }
}

#[tokio::test]
async fn a_batch_of_acks_reads_nothing_and_is_one_call() {
    let world = with_large("g/p4").await;
    world.create("h", Start::Earliest).await;
    let a = world.join("g", "a", &[]).await;
    let mut settles: Vec<Settle> = Vec::new();
    while settles.len() < COUNT {
        for taken in world.take("g", &a, 99).await {
            settles.push(world.settle_of("g", &a, &taken, Action::Ack).await);
        }
    }
    let verdicts = world.settle_all("g", &settles).await;
    assert_eq!(verdicts, [Verdict::Done; COUNT]);
    assert_eq!(verdicts_of_calls(&world).await, ["oooooooooooo"]);
}

#[tokio::test]
async fn of_an_ordering_key_the_next_message_is_read_too() {
    let world = with_group().await;
    let keys: Vec<String> = (0..4).map(|n| format!("k{n}")).collect();
    let items = keys.iter().chain(&keys).map(|key| {
        let mut header = header();
        header.ordering_key = key.as_str().into();
        Item {
            body: header.join(&vec![0; LARGE]),
            ..ordered("g/p4m", "large", key)
        }
    });
    world.publish(items.collect()).await;
    let a = world.join("g", "a", &[]).await;
    let mut settles: Vec<Settle> = Vec::new();
    while world.places("g").await.0 > 0 {
        for taken in world.take("g", &a, 99).await {
            settles.push(world.settle_of("g", &a, &taken, Action::Ack).await);
        }
    }
    let verdicts = world.settle_all("g", &settles).await;
    assert_eq!(verdicts, [Verdict::Done; 4]);
    assert_eq!(verdicts_of_calls(&world).await, ["oo", "oo"]);
    assert_eq!(world.figures("g").await.ready, 4);
}
