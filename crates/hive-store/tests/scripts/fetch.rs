//! `fetch`: who may take what, in which order.

use bytes::Bytes;
use hive_domain::group::{GroupState, Start};
use hive_store::{
    fetch::{Fetch, Fetched, Taken, Taker},
    keys::GroupKey,
    publish::Item,
    settle::{Action, Verdict},
};

use crate::world::{
    AGEING_MS, World, ids, item, lane_ref, lose, nack, ordered, reject, with_group,
};

async fn taken(
    world: &World,
    takers: &[Taker],
    slots: &[(usize, u32)],
    change: impl FnOnce(&mut Fetch<'_>),
) -> Vec<Taken> {
    match world.fetch_with("g", takers, slots, change).await {
        Fetched::Taken { entries, .. } => entries,
        other @ (Fetched::Paused | Fetched::Gone | Fetched::LanesChanged) => panic!("{other:?}"),
    }
}

/// Makes lanes look as if they were last served so many ms ago.
async fn age(world: &World, lane: &str, ms: u64) {
    let now: (u64, u64) = world.redis(&["TIME"]).await;
    let served = world.key("g", GroupKey::Served);
    let row = format!("0-0 {}", now.0 * 1_000 - ms);
    let _: i64 = world.redis(&["HSET", &served, lane, &row]).await;
}

#[tokio::test]
async fn the_highest_priority_goes_first() {
    let world = with_group().await;
    for lane in ["g/p0", "g/p9", "g/p4", "/p9"] {
        world.add(lane, &[lane]).await;
    }
    let a = world.join("g", "a", &[]).await;
    let order = ids(&world.take("g", &a, 10).await);
    assert_eq!(order[2..], ["g/p4", "g/p0"]);
}

#[tokio::test]
async fn a_lane_of_priority_0_moves_under_a_flood_of_9_unless_strict() {
    let world = with_group().await;
    world.add("g/p0", &["low1", "low2"]).await;
    let flood: Vec<Item> = (0..50).map(|n| item("g/p9", &format!("high{n}"))).collect();
    world.publish(flood).await;
    let a = [world.join("g", "a", &[]).await];
    assert_eq!(
        ids(&taken(&world, &a, &[(0, 2)], |_| {}).await),
        ["high0", "high1"]
    );
    age(&world, "g/p0", 300_000).await;
    let strict = taken(&world, &a, &[(0, 2)], |fetch| fetch.ageing_ms = 0).await;
    assert_eq!(ids(&strict), ["high2", "high3"]);
    age(&world, "g/p0", 300_000).await;
    age(&world, "g/p9", 1_000).await;
    assert_eq!(
        ids(&taken(&world, &a, &[(0, 3)], |_| {}).await),
        ["low1", "high4", "high5"]
    );
    assert_eq!(
        ids(&taken(&world, &a, &[(0, 1)], |_| {}).await),
        ["high6"],
        "served anew"
    );
}

#[tokio::test]
async fn a_consumer_without_the_capabilities_never_gets_a_message_nor_is_blocked_by_it() {
    let world = with_group().await;
    world.add("g/p9+gpu", &["gpu"]).await;
    world.add("g/p4", &["plain"]).await;
    let plain = world.join("g", "a", &["cpu"]).await;
    let able = world.join("g", "b", &["cpu", "gpu"]).await;
    assert_eq!(ids(&world.take("g", &plain, 9).await), ["plain"]);
    let got = world.take("g", &able, 9).await;
    assert_eq!(ids(&got), ["gpu"]);
    assert_eq!(
        world.settle("g", &able, &got[0], nack(Some(0))).await,
        Verdict::Done
    );
    assert!(
        world.take("g", &plain, 9).await.is_empty(),
        "nor when it comes again"
    );
    assert_eq!(ids(&world.take("g", &able, 9).await), ["gpu"]);
}

#[tokio::test]
async fn a_direct_message_reaches_its_consumer_alone() {
    let world = with_group().await;
    world.add("g/p9@b", &["for b"]).await;
    let a = world.join("g", "a", &[]).await;
    let b = world.join("g", "b", &[]).await;
    assert!(world.take("g", &a, 9).await.is_empty());
    assert_eq!(ids(&world.take("g", &b, 9).await), ["for b"]);
}

#[tokio::test]
async fn a_parked_entry_goes_next_when_its_key_ends_and_stays_while_it_is_retried() {
    for (action, lets_go) in [
        (Action::Ack, true),
        (reject(), true),
        (Action::Expire, true),
        (Action::Cancel, true),
        (nack(Some(0)), false),
        (nack(None), false),
        (Action::Release { retry_after_ms: 0 }, false),
        (lose(0), false),
        (Action::GiveBack { idle_ms: 0 }, false),
    ] {
        let world = with_group().await;
        world
            .publish(vec![ordered("g/p4m", "a", "k"), ordered("g/p4m", "b", "k")])
            .await;
        let a = world.join("g", "a", &[]).await;
        let first = world.take("g", &a, 9).await;
        assert_eq!(ids(&first), ["a"]);
        let what = format!("{action:?}");
        let verdict = world.settle("g", &a, &first[0], action).await;
        assert!(matches!(verdict, Verdict::Done | Verdict::Dead), "{what}");
        world.end_backoffs("g").await;
        let next = if lets_go { "b" } else { "a" };
        assert_eq!(ids(&world.take("g", &a, 9).await), [next], "{what}");
    }
}

#[tokio::test]
async fn an_ordering_key_holds_over_priorities_and_two_lanes() {
    let world = with_group().await;
    world
        .publish(vec![ordered("g/p4m", "a", "k"), ordered("g/p9m", "b", "k")])
        .await;
    let a = world.join("g", "a", &[]).await;
    let first = world.take("g", &a, 9).await;
    assert_eq!(ids(&first), ["b"]);
    assert_eq!(world.places("g").await, (0, 1, 0, 0, 1, 0));
    assert_eq!(
        world.settle("g", &a, &first[0], Action::Ack).await,
        Verdict::Done
    );
    assert_eq!(ids(&world.take("g", &a, 9).await), ["a"]);
}

#[tokio::test]
async fn a_thousand_entries_of_one_busy_key_are_the_most_that_one_call_parks() {
    let world = with_group().await;
    for round in 0..3 {
        let items = (0..500)
            .map(|n| ordered("g/p4m", &format!("{round}.{n}"), "k"))
            .collect();
        world.publish(items).await;
    }
    let a = world.join("g", "a", &[]).await;
    assert_eq!(ids(&world.take("g", &a, 100).await), ["0.0"]);
    assert_eq!(world.places("g").await, (500, 1, 0, 0, 999, 0));
}

#[tokio::test]
async fn two_gateways_share_by_their_free_credit_and_nobody_gets_nothing() {
    let world = with_group().await;
    let items = (0..10).map(|n| item("g/p4", &format!("m{n}"))).collect();
    world.publish(items).await;
    let takers = [world.join("g", "a", &[]).await];
    let other = taken(&world, &takers, &[(0, 0)], |fetch| {
        fetch.gateway = "other";
        fetch.own_free = 60;
    });
    assert!(other.await.is_empty());
    let mine = taken(&world, &takers, &[(0, 20)], |_| {}).await;
    assert_eq!(mine.len(), 3, "ceil(10 x 20 / 80)");
    let least = taken(&world, &takers, &[(0, 1)], |_| {}).await;
    assert_eq!(least.len(), 1);
    let credit = world.key("g", GroupKey::Credit);
    let _: i64 = world.redis(&["HSET", &credit, "other", "60 1000"]).await;
    let rest = taken(&world, &takers, &[(0, 20)], |_| {}).await;
    assert_eq!(rest.len(), 6, "a silent gateway has no share");
}

#[tokio::test]
async fn a_group_limit_counts_what_consumers_hold() {
    let world = with_group().await;
    let items = (0..6).map(|n| item("g/p4", &format!("m{n}"))).collect();
    world.publish(items).await;
    let takers = [world.join("g", "a", &[]).await];
    let limited = async || taken(&world, &takers, &[(0, 9)], |f| f.group_limit = 4).await;
    let first = limited().await;
    assert_eq!(first.len(), 4);
    assert!(limited().await.is_empty());
    world
        .settle(
            "g",
            &takers[0],
            &first[0],
            Action::Release {
                retry_after_ms: 60_000,
            },
        )
        .await;
    assert_eq!(
        limited().await.len(),
        1,
        "what waits out a delay is held by nobody"
    );
}

#[tokio::test]
async fn an_old_session_or_connection_takes_nothing_and_is_told_which_it_is() {
    let world = with_group().await;
    world.add("g/p4", &["a", "b"]).await;
    let old = world.join("g", "a", &[]).await;
    let new = world.join("g", "a", &[]).await;
    let other = Taker {
        session: "other".into(),
        ..new.clone()
    };
    let absent = Taker {
        consumer: "x".into(),
        ..new.clone()
    };
    let takers = [old, new, other, absent];
    let slots = [(0, 5), (1, 1), (2, 5), (3, 5)];
    let Fetched::Taken {
        entries,
        fenced,
        detached,
        ..
    } = world.fetch_with("g", &takers, &slots, |_| {}).await
    else {
        panic!("not taken")
    };
    assert_eq!((fenced, detached), (vec![2], vec![0, 3]));
    assert_eq!(entries.iter().map(|e| e.taker).collect::<Vec<_>>(), [1]);
}

#[tokio::test]
async fn a_group_that_is_paused_gone_or_has_new_lanes_gives_nothing() {
    let world = with_group().await;
    world.add("g/p4", &["a"]).await;
    let takers = [world.join("g", "a", &[]).await];
    let stale = world
        .fetch_with("g", &takers, &[(0, 1)], |fetch| fetch.known_lanes = 0)
        .await;
    assert_eq!(stale, Fetched::LanesChanged);
    assert!(world.set_state("g", GroupState::Paused, 2).await);
    let fetch = async || world.fetch_with("g", &takers, &[(0, 1)], |_| {}).await;
    assert_eq!(fetch().await, Fetched::Paused);
    assert!(world.set_state("g", GroupState::Active, 3).await);
    assert!(world.set_state("g", GroupState::Deleting, 4).await);
    assert_eq!(fetch().await, Fetched::Gone);
    let absent = world.fetch_with("h", &takers, &[(0, 1)], |_| {}).await;
    assert_eq!(absent, Fetched::Gone);
    assert_eq!(world.places("g").await.0, 1);
}

#[tokio::test]
async fn a_ready_entry_of_a_lane_that_the_caller_does_not_know_stays_where_it_is() {
    let world = with_group().await;
    world.add("g/p4", &["a"]).await;
    let a = world.join("g", "a", &[]).await;
    world.add("g/p9", &["b"]).await;
    let got = world.take("g", &a, 1).await;
    world.settle("g", &a, &got[0], nack(Some(0))).await;
    // One lane went with its group while another came: their number tells nothing.
    let lanes = world.lanes("g").await;
    let old: Vec<_> = lanes
        .iter()
        .filter(|lane| &*lane.reference == "g/p4")
        .cloned()
        .collect();
    let fetch = Fetch {
        group: "g",
        gateway: "gw",
        own_free: 9,
        ageing_ms: AGEING_MS,
        group_limit: 0,
        hold_ms: 0,
        known_lanes: 2,
        lanes: &old,
        takers: &[a],
        slots: &[(0, 9)],
    };
    let fetched = world
        .store
        .fetch(&world.shard, &fetch)
        .await
        .expect("fetch");
    let Fetched::Taken { entries, .. } = fetched else {
        panic!("{fetched:?}")
    };
    assert_eq!(ids(&entries), ["a"]);
    assert_eq!(world.places("g").await, (0, 1, 1, 0, 0, 0));
}

#[tokio::test]
async fn a_redelivery_says_how_often_it_was_delivered_and_how_often_it_failed() {
    let world = with_group().await;
    world.add("g/p4", &["a"]).await;
    let a = world.join("g", "a", &[]).await;
    let first = world.take("g", &a, 1).await;
    world
        .settle("g", &a, &first[0], Action::GiveBack { idle_ms: 0 })
        .await;
    let second = world.take("g", &a, 1).await;
    assert_eq!((second[0].count, second[0].failures), (2, 0));
    world.settle("g", &a, &second[0], lose(0)).await;
    let third = world.take("g", &a, 1).await;
    assert_eq!((third[0].count, third[0].failures), (3, 1));
    assert_eq!(world.figures("g").await.redelivered, 2);
}

#[tokio::test]
async fn what_comes_again_goes_before_what_waits_at_the_same_priority() {
    let world = with_group().await;
    world.add("g/p4", &["a", "b", "c"]).await;
    let a = world.join("g", "a", &[]).await;
    let first = world.take("g", &a, 2).await;
    for taken in first.iter().rev() {
        world
            .settle("g", &a, taken, Action::Release { retry_after_ms: 0 })
            .await;
    }
    assert_eq!(ids(&world.take("g", &a, 9).await), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_plain_read_leases_and_tells_of_other_work() {
    let world = with_group().await;
    world.create("h", Start::Earliest).await;
    world.add("g/p4", &["a", "b", "c"]).await;
    let a = world.join("g", "a", &[]).await;
    let lanes = world.lanes("g").await;
    let read = world
        .store
        .fetch_plain(
            &world.shard,
            "g",
            &lanes[0],
            &[(a.consumer.clone(), 1), (a.consumer.clone(), 5)],
        )
        .await
        .expect("read");
    assert_eq!(ids(&read.entries), ["a", "b", "c"]);
    assert_eq!(read.newest.len(), 1);
    assert!(!read.lost);
    for taken in &read.entries {
        assert_eq!(
            world.settle("g", &a, taken, Action::Ack).await,
            Verdict::Done
        );
    }
    assert!(world.take("g", &a, 9).await.is_empty());
}

#[tokio::test]
async fn one_answer_holds_about_4_mib() {
    let world = with_group().await;
    let large = vec![7_u8; 1 << 20];
    for number in 0..6 {
        let name = format!("m{number}");
        let body = crate::world::header().join(&large);
        world
            .publish(vec![Item {
                body,
                ..item("g/p4", &name)
            }])
            .await;
    }
    let a = world.join("g", "a", &[]).await;
    let first = world.take("g", &a, 100).await;
    assert_eq!(first.len(), 4);
    for taken in &first {
        world
            .settle("g", &a, taken, Action::Release { retry_after_ms: 0 })
            .await;
    }
    assert_eq!(
        world.take("g", &a, 100).await.len(),
        4,
        "what comes again as well"
    );
    assert_eq!(world.take("g", &a, 100).await.len(), 2);
    let small = (0..300).map(|n| item("g/p4", &format!("s{n}"))).collect();
    world.publish(small).await;
    assert_eq!(
        world.take("g", &a, 1_000).await.len(),
        300,
        "small ones ride together"
    );
}

#[tokio::test]
async fn what_another_build_wrote_is_delivered_and_can_be_refused() {
    let world = with_group().await;
    let a = world.join("g", "a", &[]).await;
    // A header of another version, and bytes that are none.
    let mut older = vec![1_u8; 22];
    older.extend(*b"\x240192f0c1-0000-7000-8000-000000000000");
    for body in [Bytes::from(older), Bytes::from_static(b"x")] {
        let foreign = Item {
            body,
            ..item("g/p4m", "foreign")
        };
        world.publish(vec![foreign]).await;
        let taken = world.take("g", &a, 9).await;
        assert_eq!(taken.len(), 1);
        let verdict = world.settle("g", &a, &taken[0], reject()).await;
        assert_eq!(verdict, Verdict::Dead);
    }
    world.publish(vec![ordered("g/p4m", "ours", "k")]).await;
    assert_eq!(ids(&world.take("g", &a, 9).await), ["ours"]);
}

#[tokio::test]
async fn a_task_or_tracked_message_of_another_build_is_delivered_and_can_be_refused() {
    for lane in ["g/p4t", "g/p4r"] {
        let world = with_group().await;
        let a = world.join("g", "a", &[]).await;
        world.publish(vec![item(lane, "makes the lane")]).await;
        world.take("g", &a, 9).await;
        let stream = world.shard.lane(&lane_ref(lane));
        for foreign in ["x", "\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}"] {
            let id: String = world.redis(&["XADD", &stream, "*", "m", foreign]).await;
            let lanes = world.shard.lanes();
            let _: i64 = world.redis(&["HSET", &lanes, lane, &id]).await;
            let taken = world.take("g", &a, 9).await;
            assert_eq!(taken.len(), 1, "{lane}");
            assert_eq!(taken[0].body, foreign);
            let verdict = world.settle("g", &a, &taken[0], reject()).await;
            assert_eq!(verdict, Verdict::Dead, "{lane}");
        }
    }
}
