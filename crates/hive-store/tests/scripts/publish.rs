//! `publish`: one flush is one step, and sent again it adds nothing.

use hive_domain::group::{GroupState, Start};
use hive_store::{
    Purpose,
    keys::GroupKey,
    publish::{Flushed, Idempotency, Item, Outcome},
    scripts::{Call, ROW_FORGET},
    settle::{Action, Verdict},
};

use crate::world::{World, header, ids, item, ordered, reject, with_group, world};

fn produced(id: &str, sequence: u64) -> Item {
    Item {
        producer: Some(("p".into(), sequence)),
        ..item("g/p4", id)
    }
}

fn keyed(id: &str, key: &str, print: u64) -> Item {
    Item {
        idempotency: Some(Idempotency {
            key: key.into(),
            fingerprint: print,
            message_id: id.into(),
        }),
        ..item("g/p4", id)
    }
}

fn later(lane: &str, id: &str) -> Item {
    Item {
        not_before_ms: 4_000_000_000_000,
        ..item(lane, id)
    }
}

async fn length(world: &World, lane: &str) -> u64 {
    world
        .redis(&["XLEN", &world.shard.lane(&crate::world::lane_ref(lane))])
        .await
}

#[tokio::test]
async fn a_flush_that_is_sent_again_answers_the_same_and_adds_nothing() {
    let world = with_group().await;
    let mut missing = item("g/p4", "b");
    missing.lanes = [crate::world::lane_ref("h/p4")].into();
    let flush = world.flush(vec![item("g/p4", "a"), missing]).await;
    let first = world.send(&flush).await;
    assert_eq!(first, Flushed::Done(vec![Outcome::Added, Outcome::NoGroup]));
    assert_eq!(world.send(&flush).await, first);
    assert_eq!(length(&world, "g/p4").await, 1);
    assert_eq!(world.figures("g").await.published, 1);
    assert_eq!(
        length(&world, "h/p4").await,
        0,
        "no lane for a group that is not there"
    );
}

#[tokio::test]
async fn only_the_last_eight_replies_are_kept() {
    let world = with_group().await;
    for number in 0..12 {
        world.add("g/p4", &[&format!("m{number}")]).await;
    }
    let kept: i64 = world.redis(&["HLEN", &world.shard.flush("gw")]).await;
    assert_eq!(kept, 8);
}

#[tokio::test]
async fn a_producers_sequence_is_stored_once() {
    let world = with_group().await;
    assert_eq!(
        world
            .publish(vec![produced("a", 1), produced("b", 2)])
            .await
            .len(),
        2
    );
    let again = world
        .publish(vec![produced("a", 1), produced("b", 2), produced("c", 3)])
        .await;
    assert_eq!(
        again,
        [Outcome::SeenSequence, Outcome::SeenSequence, Outcome::Added]
    );
    assert_eq!(length(&world, "g/p4").await, 3);
}

#[tokio::test]
async fn a_producer_that_publishes_before_it_is_forgotten_is_not() {
    let world = with_group().await;
    let (store, key) = (&world.store, world.shard.producers());
    let forget = async |row: &str| {
        let mut call = Call::new(&ROW_FORGET);
        call.key(&key).text("absent").text("").text("p").text(row);
        let value = store.run_safely(Purpose::Control, call).await;
        redis::from_redis_value::<(String, u64)>(value.expect("an answer")).expect("a count")
    };
    world.publish(vec![produced("a", 1)]).await;
    let seen: String = world.redis(&["HGET", &key, "p"]).await;
    assert_eq!(
        world.publish(vec![produced("b", 2)]).await,
        [Outcome::Added]
    );
    assert_eq!(forget(&seen).await, ("OK".to_owned(), 0));
    // Its answer was lost, and it sends that again.
    let again = world.publish(vec![produced("b", 2)]).await;
    assert_eq!(again, [Outcome::SeenSequence]);
    let last: String = world.redis(&["HGET", &key, "p"]).await;
    assert_eq!(forget(&last).await, ("OK".to_owned(), 1));
    assert_eq!(forget(&last).await, ("OK".to_owned(), 0));
}

#[tokio::test]
async fn producers_are_forgotten_after_a_day_of_silence() {
    let world = with_group().await;
    let key = world.shard.producers();
    world.publish(vec![produced("a", 1)]).await;
    let _: i64 = world.redis(&["HSET", &key, "silent", "7 1000 -"]).await;
    let _: i64 = world.redis(&["HSET", &key, "unreadable", "x"]).await;
    let now_ms = world.store.now_ms();
    let forgotten = world.store.forget_producers(&world.shard, 0, now_ms).await;
    assert_eq!(forgotten.expect("a page"), 0);
    let left: Vec<String> = world.redis(&["HKEYS", &key]).await;
    assert_eq!(left, ["p"]);
}

#[tokio::test]
async fn a_refused_sequence_may_come_again_and_is_then_stored_once() {
    let world = with_group().await;
    let mut flush = world
        .flush((1..=4).map(|n| produced(&format!("m{n}"), n)).collect())
        .await;
    flush.max_backlog = 1;
    let Flushed::Done(outcomes) = world.send(&flush).await else {
        panic!("not done")
    };
    use Outcome::{Added, BacklogFull, SeenSequence};
    assert_eq!(outcomes, [Added, BacklogFull, BacklogFull, BacklogFull]);
    assert_eq!(world.publish(vec![produced("m3", 3)]).await, [Added]);
    let all = (1..=4).map(|n| produced(&format!("m{n}"), n)).collect();
    assert_eq!(
        world.publish(all).await,
        [SeenSequence, Added, SeenSequence, Added]
    );
    assert_eq!(length(&world, "g/p4").await, 4);
}

#[tokio::test]
async fn an_idempotency_key_answers_the_first_message_of_its_window() {
    let world = with_group().await;
    let outcomes = world
        .publish(vec![
            keyed("a", "k", 1),
            keyed("b", "k", 1),
            keyed("c", "k", 2),
        ])
        .await;
    let same = Outcome::Duplicate("a".into());
    let other = Outcome::KeyReused("a".into());
    assert_eq!(outcomes, [Outcome::Added, same.clone(), other.clone()]);
    assert_eq!(
        world
            .publish(vec![keyed("d", "k", 1), keyed("e", "k", 2)])
            .await,
        [same.clone(), other]
    );
    let key = move_bucket(&world, -4).await;
    assert_eq!(world.publish(vec![keyed("f", "k", 1)]).await, [same]);
    let lives: i64 = world.redis(&["TTL", &key]).await;
    assert!((100_000..=115_200).contains(&lives), "{lives} s");
}

/// Makes the one bucket of idempotency keys that there is an older or a later one.
async fn move_bucket(world: &World, by: i64) -> String {
    let pattern = format!("{}dedup:*", world.shard.tag());
    let keys: Vec<String> = world.redis(&["KEYS", &pattern]).await;
    let mut parts: Vec<&str> = keys[0].rsplitn(3, ':').collect();
    let other = (parts[1].parse::<i64>().expect("a bucket") + by).to_string();
    parts[1] = &other;
    parts.reverse();
    let key = parts.join(":");
    let _: String = world.redis(&["RENAME", &keys[0], &key]).await;
    key
}

#[tokio::test]
async fn an_idempotency_key_is_known_when_the_clock_was_set_back_over_a_bucket_s_begin() {
    let world = with_group().await;
    let added = world.publish(vec![keyed("a", "k", 1)]).await;
    assert_eq!(added, [Outcome::Added]);
    move_bucket(&world, 1).await;
    assert_eq!(
        world.publish(vec![keyed("b", "k", 1)]).await,
        [Outcome::Duplicate("a".into())]
    );
}

#[tokio::test]
async fn a_refused_message_leaves_its_idempotency_key_free() {
    let world = with_group().await;
    let mut flush = world.flush(vec![keyed("a", "k", 1)]).await;
    flush.max_backlog = 0;
    assert_eq!(
        world.send(&flush).await,
        Flushed::Done(vec![Outcome::BacklogFull])
    );
    assert_eq!(
        world.publish(vec![keyed("a", "k", 1)]).await,
        [Outcome::Added]
    );
}

#[tokio::test]
async fn a_delayed_message_waits_outside_its_lanes() {
    let world = with_group().await;
    world.create("h", Start::Earliest).await;
    let mut both = later("g/p4@c", "direct");
    both.lanes = ["g/p4@c", "h/p4@c"].map(crate::world::lane_ref).into();
    let outcomes = world.publish(vec![later("/p4", "a"), both]).await;
    assert_eq!(outcomes, [Outcome::Added, Outcome::Added]);
    for group in ["g", "h"] {
        let figures = world.figures(group).await;
        assert_eq!(
            (figures.scheduled, figures.published, figures.waiting),
            (2, 0, 0),
            "{group}"
        );
    }
    let waiting: i64 = world.redis(&["ZCARD", &world.shard.scheduled()]).await;
    assert_eq!(
        waiting, 3,
        "one for both groups, one for each of the two direct lanes"
    );
    let past = Item {
        not_before_ms: 1,
        ..item("g/p4", "past")
    };
    world.publish(vec![past]).await;
    assert_eq!(world.figures("g").await.waiting, 1);
}

#[tokio::test]
async fn a_full_group_refuses_and_scheduled_messages_fill_it_too() {
    let world = with_group().await;
    world.create("h", Start::Earliest).await;
    world.publish(vec![later("g/p4", "a")]).await;
    let mut flush = world
        .flush(vec![
            item("g/p4", "b"),
            item("g/p4", "c"),
            item("/p4", "d"),
            item("h/p4", "e"),
        ])
        .await;
    flush.max_backlog = 2;
    let Flushed::Done(outcomes) = world.send(&flush).await else {
        panic!("not done")
    };
    use Outcome::{Added, BacklogFull};
    assert_eq!(outcomes, [Added, BacklogFull, BacklogFull, Added]);
}

#[tokio::test]
async fn a_stream_without_groups_refuses_unless_it_buffers_up_to_its_limit() {
    let world = world().await;
    assert_eq!(
        world.publish(vec![item("/p4", "a")]).await,
        [Outcome::NoGroups]
    );
    let mut flush = world
        .flush(vec![item("/p4", "a"), item("/p4", "b"), item("/p4", "c")])
        .await;
    flush.buffer_without_groups = true;
    flush.max_backlog = 2;
    let Flushed::Done(outcomes) = world.send(&flush).await else {
        panic!("not done")
    };
    use Outcome::{Added, BacklogFull};
    assert_eq!(outcomes, [Added, Added, BacklogFull]);
    let mut flush = world.flush(vec![item("/p4", "d")]).await;
    flush.buffer_without_groups = true;
    flush.max_backlog = 2;
    assert_eq!(world.send(&flush).await, Flushed::Done(vec![BacklogFull]));
    world.create("g", Start::Earliest).await;
    let a = world.join("g", "a", &[]).await;
    assert_eq!(ids(&world.take("g", &a, 9).await), ["a", "b"]);
}

#[tokio::test]
async fn a_message_for_all_groups_needs_them_all_named() {
    let world = with_group().await;
    let flush = world.flush(vec![item("/p4", "a")]).await;
    world.create("h", Start::Earliest).await;
    assert_eq!(world.send(&flush).await, Flushed::GroupsChanged);
    assert_eq!(length(&world, "/p4").await, 0);
    world.publish(vec![item("/p4", "a")]).await;
    for group in ["g", "h"] {
        assert_eq!(world.places(group).await.0, 1, "{group}");
    }
}

#[tokio::test]
async fn a_group_that_is_not_there_does_not_hold_up_messages_for_all() {
    let world = with_group().await;
    let outcomes = world
        .publish(vec![item("absent/p4", "a"), item("/p4", "b")])
        .await;
    assert_eq!(outcomes, [Outcome::NoGroup, Outcome::Added]);
}

#[tokio::test]
async fn a_group_that_is_being_deleted_takes_nothing_new() {
    let world = with_group().await;
    assert!(world.set_state("g", GroupState::Deleting, 2).await);
    assert_eq!(
        world.publish(vec![item("g/p4", "a")]).await,
        [Outcome::NoGroup]
    );
}

#[tokio::test]
async fn a_held_lane_is_written_only_while_no_group_has_the_consumer() {
    let world = with_group().await;
    assert_eq!(
        world.publish(vec![item("/p4@c", "a")]).await,
        [Outcome::Added]
    );
    assert_eq!(
        world.places("g").await,
        (0, 0, 0, 0, 0, 0),
        "no group counts it"
    );
    let flush = world.flush(vec![item("/p4@c", "b")]).await;
    let c = world.join("g", "c", &[]).await;
    assert_eq!(world.send(&flush).await, Flushed::MemberByNow("c".into()));
    let all = world.store.lanes(&world.shard).await.expect("lanes").all;
    let moved = world.store.move_held(&world.shard, "g", "c", &all).await;
    assert_eq!(moved.expect("moved"), 1);
    let moved = world.store.move_held(&world.shard, "g", "c", &all).await;
    assert_eq!(moved.expect("moved"), 0, "a repeat moves nothing");
    let other = world.join("g", "d", &[]).await;
    assert!(
        world.take("g", &other, 9).await.is_empty(),
        "another consumer's"
    );
    assert_eq!(ids(&world.take("g", &c, 9).await), ["a"]);
    assert_eq!(world.places("g").await, (0, 1, 0, 0, 0, 0));
}

#[tokio::test]
async fn a_refused_message_refuses_the_later_ones_of_its_ordering_key() {
    let world = with_group().await;
    let mut first = ordered("absent/p4m", "a", "k");
    first.producer = Some(("p".into(), 1));
    let outcomes = world
        .publish(vec![
            first,
            ordered("g/p4m", "b", "k"),
            ordered("g/p4m", "c", "l"),
        ])
        .await;
    use Outcome::{Added, EarlierRefused, NoGroup};
    assert_eq!(outcomes, [NoGroup, EarlierRefused, Added]);
}

#[tokio::test]
async fn a_lane_gets_the_groups_that_it_is_for_with_its_first_message() {
    let world = with_group().await;
    world.create("h", Start::Earliest).await;
    world.add("/p4", &["a"]).await;
    world.add("g/p4", &["b"]).await;
    for (lane, groups) in [("/p4", 2), ("g/p4", 1)] {
        let key = world.shard.lane(&crate::world::lane_ref(lane));
        let info: Vec<redis::Value> = world.redis(&["XINFO", "GROUPS", &key]).await;
        assert_eq!(info.len(), groups, "{lane}");
    }
}

#[tokio::test]
async fn a_lane_whose_stream_is_gone_is_an_alarm_not_a_new_lane() {
    let world = with_group().await;
    world.add("g/p4", &["a"]).await;
    let key = world.shard.lane(&crate::world::lane_ref("g/p4"));
    let _: i64 = world.redis(&["DEL", &key]).await;
    let flush = world.flush(vec![item("g/p4", "b")]).await;
    let lost = world.store.publish(&world.shard, &flush).await;
    assert!(
        matches!(lost, Err(hive_store::StoreError::Lost { .. })),
        "{lost:?}"
    );
    let counters = world.key("g", GroupKey::Counters);
    let published: u64 = world.redis(&["HGET", &counters, "published"]).await;
    assert_eq!(published, 1);
}

#[tokio::test]
async fn scripts_that_the_server_forgot_are_loaded_again() {
    let world = with_group().await;
    world.add("g/p4", &["a"]).await;
    let _: String = world.redis(&["SCRIPT", "FLUSH"]).await;
    world.add("g/p4", &["b"]).await;
}

fn large(lane: &str, id: &str, bytes: usize) -> Item {
    Item {
        body: header().join(&vec![0; bytes]),
        ..item(lane, id)
    }
}

#[tokio::test]
async fn a_group_that_is_full_by_bytes_refuses_and_what_is_over_is_one_message() {
    let world = with_group().await;
    world.create("h", Start::Earliest).await;
    use Outcome::{Added, BacklogBytesFull};
    let send = async |items: Vec<Item>| {
        let mut flush = world.flush(items).await;
        flush.max_backlog_bytes = 1_000;
        match world.send(&flush).await {
            Flushed::Done(outcomes) => outcomes,
            other @ (Flushed::GroupsChanged | Flushed::Closed | Flushed::MemberByNow(_)) => {
                panic!("{other:?}")
            },
        }
    };
    let five = (0..5).map(|n| large("g/p4", &n.to_string(), 400)).collect();
    let first = send(five).await;
    assert_eq!(
        first,
        [Added, Added, Added, BacklogBytesFull, BacklogBytesFull]
    );
    let all = send(vec![large("/p4", "all", 1), large("h/p4", "own", 1)]).await;
    assert_eq!(all, [BacklogBytesFull, Added], "one full group is enough");
    let a = world.join("g", "a", &[]).await;
    let taken = world.take("g", &a, 9).await;
    assert_eq!(
        world.settle("g", &a, &taken[0], Action::Ack).await,
        Verdict::Done
    );
    let more = send(vec![large("g/p4", "more", 2_000)]).await;
    assert_eq!(more, [Added], "none is too large for ever");
    assert_eq!(
        world.settle("g", &a, &taken[1], reject()).await,
        Verdict::Dead
    );
    assert_eq!(
        world.settle("g", &a, &taken[2], Action::Ack).await,
        Verdict::Done
    );
    assert_eq!(send(vec![large("g/p4", "x", 1)]).await, [BacklogBytesFull]);
    let last = world.take("g", &a, 9).await;
    world.settle("g", &a, &last[0], Action::Ack).await;
    assert_eq!(send(vec![large("g/p4", "x", 1)]).await, [Added]);
}

#[tokio::test]
async fn delayed_and_held_messages_count_by_their_bytes() {
    let world = with_group().await;
    use Outcome::{Added, BacklogBytesFull};
    let send = async |one: Item| {
        let mut flush = world.flush(vec![one]).await;
        flush.max_backlog_bytes = 500;
        match world.send(&flush).await {
            Flushed::Done(outcomes) => outcomes,
            other @ (Flushed::GroupsChanged | Flushed::Closed | Flushed::MemberByNow(_)) => {
                panic!("{other:?}")
            },
        }
    };
    let delayed = Item {
        not_before_ms: 4_000_000_000_000,
        ..large("g/p4", "later", 600)
    };
    assert_eq!(send(delayed).await, [Added]);
    assert_eq!(send(item("g/p4", "a")).await, [BacklogBytesFull]);
    assert_eq!(send(large("/p4@c", "b", 600)).await, [Added]);
    assert_eq!(send(item("/p4@c", "c")).await, [BacklogBytesFull]);
    world.join("g", "c", &[]).await;
    let all = world.store.lanes(&world.shard).await.expect("lanes").all;
    let moved = world.store.move_held(&world.shard, "g", "c", &all).await;
    assert_eq!(moved.expect("held_move"), 1);
    let sizes = world
        .store
        .bytes_by_lane(&world.shard)
        .await
        .expect("sizes");
    assert_eq!(sizes["/p4@c"], 0);
    assert!(sizes["g/p4@c"] > 600);
    let key = world.key("g", GroupKey::Counters);
    let bytes: u64 = world.redis(&["HGET", &key, "bytes"]).await;
    assert!(bytes > 1_200, "{bytes}");
}

#[tokio::test]
async fn an_empty_group_has_no_bytes_whatever_was_counted() {
    let world = with_group().await;
    let key = world.key("g", GroupKey::Counters);
    let _: i64 = world.redis(&["HSET", &key, "bytes", "99999"]).await;
    let mut flush = world.flush(vec![item("g/p4", "a")]).await;
    flush.max_backlog_bytes = 500;
    assert_eq!(
        world.send(&flush).await,
        Flushed::Done(vec![Outcome::Added])
    );
    let bytes: usize = world.redis(&["HGET", &key, "bytes"]).await;
    assert_eq!(bytes, flush.items[0].body.len());
}
