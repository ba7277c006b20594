//! `pending_check`, `pending_write_off`, `group_restore`: data that is gone from a shard.

use hive_domain::group::{GroupState, Start};
use hive_store::{
    fetch::{ReadLane, Taken},
    keys::GroupKey,
    repair::WrittenOff,
    settle::{Action, Verdict},
};

use crate::world::{AGEING_MS, World, ids, item, nack, ordered, with_group};

async fn lane(world: &World, reference: &str) -> (std::sync::Arc<[ReadLane]>, ReadLane) {
    let lanes = world.lanes("g").await;
    let found = lanes.iter().find(|lane| *lane.reference == *reference);
    let found = found.expect("the lane").clone();
    (lanes, found)
}

async fn remove(world: &World, reference: &str, id: &str) {
    let (_, lane) = lane(world, reference).await;
    assert_eq!(world.redis::<i64>(&["XDEL", &lane.stream, id]).await, 1);
}

async fn missing(world: &World, reference: &str, from: &str) -> (Option<String>, Vec<String>) {
    let (_, lane) = lane(world, reference).await;
    let found = world.store.check_pending("g", &lane, from).await;
    let found = found.expect("a look");
    (found.last, found.missing)
}

async fn write_off(world: &World, reference: &str, id: &str) -> WrittenOff {
    let (lanes, lane) = lane(world, reference).await;
    let settings = ("g", AGEING_MS);
    let end = world
        .store
        .write_off(&world.shard, settings, &lanes, (&lane, id));
    end.await.expect("an answer")
}

async fn counter(world: &World, name: &str) -> u64 {
    let key = world.key("g", GroupKey::Counters);
    world
        .redis::<Option<u64>>(&["HGET", &key, name])
        .await
        .unwrap_or(0)
}

fn id_of(taken: &[Taken], position: usize) -> String {
    taken[position].id.clone()
}

#[tokio::test]
async fn deliveries_without_an_entry_are_found_and_nothing_is_touched_by_looking() {
    let world = with_group().await;
    world.add("g/p4", &["a", "b", "c"]).await;
    let a = world.join("g", "a", &[]).await;
    let taken = world.take("g", &a, 3).await;
    let (first, gone, last) = (id_of(&taken, 0), id_of(&taken, 1), id_of(&taken, 2));
    assert_eq!(
        missing(&world, "g/p4", "-").await,
        (Some(last.clone()), vec![])
    );
    remove(&world, "g/p4", &gone).await;
    for _ in 0..2 {
        let found = missing(&world, "g/p4", "-").await;
        assert_eq!(found, (Some(last.clone()), vec![gone.clone()]));
    }
    let behind = missing(&world, "g/p4", &format!("({gone}")).await;
    assert_eq!(behind, (Some(last.clone()), vec![]));
    assert_eq!(
        missing(&world, "g/p4", &format!("({last}")).await,
        (None, vec![])
    );
    assert_eq!(world.figures("g").await.pending, 3);
    assert_eq!(write_off(&world, "g/p4", &first).await, WrittenOff::Sound);
    assert_eq!(world.figures("g").await.pending, 3);
}

#[tokio::test]
async fn what_is_written_off_is_neither_waiting_nor_pending_and_has_no_outcome() {
    let world = with_group().await;
    world.add("g/p4", &["a", "b", "c"]).await;
    let a = world.join("g", "a", &[]).await;
    let taken = world.take("g", &a, 2).await;
    // One is leased, one waits out a backoff with a failed attempt on record.
    let verdict = world.settle("g", &a, &taken[1], nack(Some(60_000))).await;
    assert_eq!(verdict, Verdict::Done);
    for one in &taken {
        remove(&world, "g/p4", &one.id).await;
        assert_eq!(
            write_off(&world, "g/p4", &one.id).await,
            WrittenOff::Lost(1)
        );
        assert_eq!(write_off(&world, "g/p4", &one.id).await, WrittenOff::Sound);
    }
    let figures = world.figures("g").await;
    assert_eq!(
        (figures.waiting, figures.pending, figures.delayed),
        (1, 0, 0)
    );
    assert_eq!((figures.settled, figures.acked, figures.dead), (2, 0, 0));
    assert_eq!(counter(&world, "lost").await, 2);
    let failures = world.key("g", GroupKey::Failures);
    assert_eq!(world.redis::<i64>(&["HLEN", &failures]).await, 0);
    assert_eq!(
        world.settle("g", &a, &taken[0], Action::Ack).await,
        Verdict::Gone
    );
}

#[tokio::test]
async fn an_ordering_key_goes_on_behind_an_entry_that_is_gone() {
    let world = with_group().await;
    let items = ["1", "2", "3"].map(|id| ordered("g/p4m", id, "k"));
    world.publish(items.to_vec()).await;
    let a = world.join("g", "a", &[]).await;
    let taken = world.take("g", &a, 9).await;
    assert_eq!(ids(&taken), ["1"], "the others are parked");
    let (lanes, _) = lane(&world, "g/p4m").await;
    let parked = world.store.pending("g", &lanes, 0, ("-", 9), None).await;
    let parked = parked.expect("a page");
    // The one in flight is gone, and the one that would come next.
    for one in &parked[..2] {
        remove(&world, "g/p4m", &one.id).await;
    }
    let end = write_off(&world, "g/p4m", &parked[0].id).await;
    assert_eq!(end, WrittenOff::Lost(2));
    assert_eq!(ids(&world.take("g", &a, 9).await), ["3"]);
    let figures = world.figures("g").await;
    assert_eq!(
        (figures.waiting, figures.pending, figures.parked),
        (0, 1, 0)
    );
}

#[tokio::test]
async fn a_parked_entry_that_is_gone_leaves_the_one_in_flight_its_key() {
    let world = with_group().await;
    let items = ["1", "2"].map(|id| ordered("g/p4m", id, "k"));
    world.publish(items.to_vec()).await;
    let a = world.join("g", "a", &[]).await;
    let taken = world.take("g", &a, 9).await;
    let (lanes, _) = lane(&world, "g/p4m").await;
    let parked = world.store.pending("g", &lanes, 0, ("-", 9), None).await;
    let parked = parked.expect("a page").pop().expect("an entry");
    remove(&world, "g/p4m", &parked.id).await;
    assert_eq!(
        write_off(&world, "g/p4m", &parked.id).await,
        WrittenOff::Lost(1)
    );
    assert_eq!(world.figures("g").await.parked, 0);
    let busy = world.key("g", GroupKey::Busy);
    assert_eq!(world.redis::<i64>(&["HLEN", &busy]).await, 1);
    assert_eq!(
        world.settle("g", &a, &taken[0], Action::Ack).await,
        Verdict::Done
    );
    assert_eq!(world.redis::<i64>(&["HLEN", &busy]).await, 0);
}

#[tokio::test]
async fn what_waits_in_no_lane_is_counted_as_lost() {
    let world = with_group().await;
    world.add("g/p4", &["a", "b"]).await;
    let a = world.join("g", "a", &[]).await;
    let taken = world.take("g", &a, 1).await;
    let mend = async || {
        let mended = world.store.mend_counters(&world.shard, "g").await;
        mended.expect("an answer")
    };
    // Given back, Redis forgets a delivery whose entry is gone.
    remove(&world, "g/p4", &taken[0].id).await;
    let verdict = world.settle("g", &a, &taken[0], Action::GiveBack { idle_ms: 0 });
    assert_eq!(verdict.await, Verdict::Done);
    let figures = world.figures("g").await;
    assert_eq!((figures.waiting, figures.pending), (2, 0));
    assert_eq!(
        mend().await,
        0,
        "one does wait, and nobody knows of how many"
    );
    let taken = world.take("g", &a, 9).await;
    assert_eq!(ids(&taken), ["b"]);
    assert_eq!(mend().await, 1);
    assert_eq!(mend().await, 0);
    let figures = world.figures("g").await;
    assert_eq!((figures.waiting, figures.pending), (0, 1));
    assert_eq!(
        (
            figures.settled,
            figures.acked,
            counter(&world, "lost").await
        ),
        (1, 0, 1)
    );
}

async fn restore(world: &World) -> Vec<(String, u64)> {
    let restored = world.store.restore_on_shard(&world.shard, "g").await;
    restored.expect("an answer")
}

async fn destroy(world: &World, reference: &str) {
    let (_, lane) = lane(world, reference).await;
    let destroy = ["XGROUP", "DESTROY", &lane.stream, "g"];
    assert_eq!(world.redis::<i64>(&destroy).await, 1);
}

#[tokio::test]
async fn a_group_that_a_lane_lost_reads_it_from_the_oldest_retained_entry() {
    let world = with_group().await;
    world.add("g/p4", &["a", "b", "c"]).await;
    world.add("g/p7", &["other"]).await;
    let a = world.join("g", "a", &[]).await;
    let taken = world.take("g", &a, 3).await;
    assert_eq!(ids(&taken), ["other", "a", "b"]);
    for one in &taken[..2] {
        assert_eq!(world.settle("g", &a, one, Action::Ack).await, Verdict::Done);
    }
    assert_eq!(restore(&world).await, [], "nothing is lost");
    destroy(&world, "g/p4").await;
    assert_eq!(restore(&world).await, [("g/p4".to_owned(), 3)]);
    assert_eq!(restore(&world).await, [], "it is there");
    let figures = world.figures("g").await;
    assert_eq!((figures.waiting, figures.pending), (3, 0));
    assert_eq!(ids(&world.take("g", &a, 9).await), ["a", "b", "c"]);
    assert_eq!(world.figures("g").await.waiting, 0);
}

#[tokio::test]
async fn a_lane_that_is_gone_is_empty_and_takes_messages_again() {
    let world = with_group().await;
    world.add("g/p4", &["a", "b"]).await;
    world.add("g/p7", &["other"]).await;
    let (_, gone) = lane(&world, "g/p4").await;
    assert_eq!(world.redis::<i64>(&["UNLINK", &gone.stream]).await, 1);
    assert_eq!(restore(&world).await, [("g/p4".to_owned(), 0)]);
    let figures = world.figures("g").await;
    assert_eq!((figures.waiting, figures.pending), (1, 0));
    assert_eq!(counter(&world, "lost").await, 2);
    world.publish(vec![item("g/p4", "c")]).await;
    let a = world.join("g", "a", &[]).await;
    assert_eq!(ids(&world.take("g", &a, 9).await), ["other", "c"]);
}

#[tokio::test]
async fn ordering_keys_of_a_lost_lane_are_let_go_and_kept_in_order() {
    let world = with_group().await;
    let items = ["1", "2"].map(|id| ordered("g/p4m", id, "k"));
    world.publish(items.to_vec()).await;
    let a = world.join("g", "a", &[]).await;
    let first = world.take("g", &a, 9).await;
    assert_eq!(ids(&first), ["1"]);
    destroy(&world, "g/p4m").await;
    assert_eq!(restore(&world).await, [("g/p4m".to_owned(), 2)]);
    let again = world.take("g", &a, 9).await;
    assert_eq!(ids(&again), ["1"]);
    assert_eq!(
        world.settle("g", &a, &again[0], Action::Ack).await,
        Verdict::Done
    );
    assert_eq!(ids(&world.take("g", &a, 9).await), ["2"]);
}

#[tokio::test]
async fn a_group_that_is_being_deleted_is_not_restored() {
    let world = with_group().await;
    world.add("g/p4", &["a"]).await;
    destroy(&world, "g/p4").await;
    assert!(world.set_state("g", GroupState::Deleting, 2).await);
    assert_eq!(restore(&world).await, []);
    assert!(world.create("other", Start::Earliest).await);
}

async fn set_bytes(world: &World, bytes: Option<&str>) {
    let key = world.key("g", GroupKey::Counters);
    let _: i64 = match bytes {
        Some(bytes) => world.redis(&["HSET", &key, "bytes", bytes]).await,
        None => world.redis(&["HDEL", &key, "bytes"]).await,
    };
}

#[tokio::test]
async fn a_group_without_a_count_of_bytes_is_repaired_as_any_other() {
    // An older version counted none; a guess may have left nothing, or less.
    for bytes in [None, Some("0"), Some("1"), Some("-5")] {
        let world = with_group().await;
        let items = ["1", "2", "3"].map(|id| ordered("g/p4m", id, "k"));
        world.publish(items.to_vec()).await;
        let a = world.join("g", "a", &[]).await;
        let taken = world.take("g", &a, 9).await;
        set_bytes(&world, bytes).await;
        remove(&world, "g/p4m", &taken[0].id).await;
        let end = write_off(&world, "g/p4m", &taken[0].id).await;
        assert_eq!(end, WrittenOff::Lost(1), "{bytes:?}");
        let next = world.take("g", &a, 9).await;
        assert_eq!(ids(&next), ["2"], "{bytes:?}: the key goes on");
        set_bytes(&world, bytes).await;
        // Given back, Redis forgets a delivery whose entry is gone.
        remove(&world, "g/p4m", &next[0].id).await;
        let verdict = world.settle("g", &a, &next[0], Action::GiveBack { idle_ms: 0 });
        assert_eq!(verdict.await, Verdict::Done);
        let mended = world.store.mend_counters(&world.shard, "g").await;
        assert_eq!(mended.expect("an answer"), 1, "{bytes:?}");
    }
}

#[tokio::test]
async fn what_waits_in_sound_lanes_or_is_delayed_keeps_its_bytes_in_a_restore() {
    let world = with_group().await;
    world.add("g/p4", &["a", "b"]).await;
    world.add("g/p7", &["c", "d", "e"]).await;
    let later = hive_store::publish::Item {
        not_before_ms: 4_000_000_000_000,
        ..item("g/p7", "f")
    };
    world.publish(vec![later]).await;
    let a = world.join("g", "a", &[]).await;
    assert_eq!(world.take("g", &a, 1).await.len(), 1);
    let before = counter(&world, "bytes").await;
    destroy(&world, "g/p4").await;
    assert_eq!(restore(&world).await, [("g/p4".to_owned(), 2)]);
    assert_eq!(
        counter(&world, "bytes").await,
        before,
        "all are of one size"
    );
    let (_, gone) = lane(&world, "g/p4").await;
    assert_eq!(world.redis::<i64>(&["UNLINK", &gone.stream]).await, 1);
    assert_eq!(restore(&world).await, [("g/p4".to_owned(), 0)]);
    assert_eq!(counter(&world, "bytes").await, before / 6 * 4);
}
