//! `join`, `leave`, `consumer_forget`, `daemon_beat`: who is a member, and who lives.

use hive_domain::group::{GroupState, Start};
use hive_store::{
    fetch::Taker,
    header::Header,
    keys::GroupKey,
    members::{Joined, Joining, Kind, Leaving, Member},
    publish::Item,
    registry::Registration,
    settle::Action,
};

use crate::world::{World, header, ids, item, lane_ref, nack, with_group, world};

fn member(joined: Joined) -> (String, u64, bool) {
    match joined {
        Joined::Member {
            session,
            attach,
            resumed,
        } => (session, attach, resumed),
        other @ (Joined::Full(_)
        | Joined::AttachedByStream
        | Joined::SessionLost
        | Joined::Gone) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_new_session_fences_the_old_one_and_a_resumed_one_counts_its_connections() {
    let world = with_group().await;
    let first = World::joining("g", "a", "s1");
    assert_eq!(member(world.joined(&first).await), ("s1".into(), 1, false));
    let mut resumed = first.clone();
    resumed.resume = Some("n");
    assert_eq!(member(world.joined(&resumed).await), ("s1".into(), 2, true));
    let second = World::joining("g", "a", "s2");
    assert_eq!(member(world.joined(&second).await), ("s2".into(), 1, false));
    assert_eq!(world.joined(&resumed).await, Joined::SessionLost);
    let members = world
        .store
        .members(&world.shard, "g")
        .await
        .expect("members");
    assert_eq!(members.len(), 1);
    assert_eq!((members[0].session.as_str(), members[0].attach), ("s2", 1));
    assert_eq!(
        (members[0].gateway.as_str(), members[0].concurrency),
        ("gw", 4)
    );
}

#[tokio::test]
async fn a_session_that_is_no_member_any_more_is_followed_by_another_that_it_may_ask_for_again() {
    let world = with_group().await;
    let away = |next| {
        let mut resumed = World::joining("g", "a", "s1");
        resumed.resume = Some(next);
        resumed
    };
    let join = async |joining: &Joining<'_>| member(world.joined(joining).await);
    assert_eq!(join(&away("n1")).await, ("n1".into(), 1, false));
    // The answer was lost: it knows of `s1` alone, however often.
    assert_eq!(join(&away("n2")).await, ("n1".into(), 2, true));
    assert_eq!(join(&away("n3")).await, ("n1".into(), 3, true));
    // It was heard: what asks for the old one now is late.
    let mut heard = World::joining("g", "a", "n1");
    heard.resume = Some("n4");
    assert_eq!(join(&heard).await, ("n1".into(), 4, true));
    assert_eq!(world.joined(&away("n5")).await, Joined::SessionLost);
    // It was given up again: each session is used once.
    let lanes = world.lanes("g").await;
    let who = ("a", "*", 0);
    let left = world.store.leave(&world.shard, "g", &lanes, who).await;
    assert_eq!(left.expect("leave"), Leaving::Done);
    assert_eq!(join(&away("n6")).await, ("n6".into(), 1, false));
}

#[tokio::test]
async fn a_session_that_follows_none_or_another_is_not_taken_for_ones_own() {
    let world = with_group().await;
    let mut mine = World::joining("g", "a", "s1");
    mine.resume = Some("n1");
    let other = World::joining("g", "a", "s2");
    assert_eq!(member(world.joined(&other).await).1, 1);
    assert_eq!(world.joined(&mine).await, Joined::SessionLost);
    let mut again = other.clone();
    again.resume = Some("n2");
    let lanes = world.lanes("g").await;
    let who = ("a", "*", 0);
    let left = world.store.leave(&world.shard, "g", &lanes, who).await;
    assert_eq!(left.expect("leave"), Leaving::Done);
    assert_eq!(member(world.joined(&again).await), ("n2".into(), 1, false));
    assert_eq!(world.joined(&mine).await, Joined::SessionLost);
    // As an older build writes it: without what it follows.
    let key = world.shard.group("g", GroupKey::Members);
    let row = "s3 1 stream gw 4 0 - 30000 s1";
    let _: redis::Value = world.redis(&["HSET", &key, "a", row]).await;
    assert_eq!(world.joined(&mine).await, Joined::SessionLost);
}

#[tokio::test]
async fn a_pull_consumer_keeps_its_session_from_call_to_call() {
    let world = with_group().await;
    let mut pull = World::joining("g", "a", "s1");
    pull.kind = Kind::Pull;
    pull.gateway = "-";
    assert_eq!(member(world.joined(&pull).await), ("s1".into(), 0, false));
    let mut again = pull.clone();
    again.session = "s2";
    assert_eq!(member(world.joined(&again).await), ("s1".into(), 0, true));
    world.add("g/p4", &["m"]).await;
    let taker = Taker {
        consumer: "a".into(),
        session: "s1".into(),
        attach: 0,
        capabilities: std::sync::Arc::default(),
    };
    assert_eq!(ids(&world.take("g", &taker, 1).await), ["m"]);
    let stream = World::joining("g", "a", "s3");
    assert_eq!(member(world.joined(&stream).await), ("s3".into(), 1, false));
    assert_eq!(world.joined(&again).await, Joined::AttachedByStream);
}

#[tokio::test]
async fn a_full_group_takes_no_new_member_but_the_old_ones_again() {
    let world = with_group().await;
    let mut joining = World::joining("g", "a", "s1");
    joining.max_consumers = 1;
    assert_eq!(member(world.joined(&joining).await).1, 1);
    assert_eq!(member(world.joined(&joining).await).1, 2);
    let mut other = World::joining("g", "b", "s2");
    other.max_consumers = 1;
    assert_eq!(world.joined(&other).await, Joined::Full(1));
}

#[tokio::test]
async fn nobody_joins_a_group_that_is_absent_or_being_deleted() {
    let world = with_group().await;
    assert_eq!(
        world.joined(&World::joining("h", "a", "s")).await,
        Joined::Gone
    );
    world.set_state("g", GroupState::Paused, 2).await;
    assert_eq!(
        member(world.joined(&World::joining("g", "a", "s")).await).1,
        1
    );
    world.set_state("g", GroupState::Deleting, 3).await;
    assert_eq!(
        world.joined(&World::joining("g", "a", "s")).await,
        Joined::Gone
    );
}

#[tokio::test]
async fn capabilities_are_read_back() {
    let world = with_group().await;
    world.join("g", "a", &["cuda", "gpu"]).await;
    let member = world
        .store
        .member(&world.shard, "g", "a")
        .await
        .expect("member");
    assert_eq!(member.expect("a member").capabilities, ["cuda", "gpu"]);
    let groups = ["g".to_owned(), "h".to_owned()];
    let of = world
        .store
        .groups_of_consumer(&world.shard, &groups, "a")
        .await;
    assert_eq!(of.expect("groups"), ["g"]);
}

#[tokio::test]
async fn only_the_connection_that_is_attached_may_leave() {
    let world = with_group().await;
    let old = world.join("g", "a", &[]).await;
    let new = world.join("g", "a", &[]).await;
    let lanes = world.lanes("g").await;
    let leave = async |session: &str, attach| {
        world
            .store
            .leave(&world.shard, "g", &lanes, ("a", session, attach))
            .await
            .expect("leave")
    };
    assert_eq!(leave(&old.session, old.attach).await, Leaving::Fenced);
    assert_eq!(leave("other", 0).await, Leaving::Fenced);
    assert_eq!(leave(&new.session, new.attach).await, Leaving::Done);
    assert_eq!(leave(&new.session, new.attach).await, Leaving::Absent);
    world.join("g", "a", &[]).await;
    assert_eq!(leave("*", 0).await, Leaving::Done);
}

#[tokio::test]
async fn a_silent_member_that_calls_before_it_is_ended_stays() {
    let world = with_group().await;
    world.add("g/p4", &["m"]).await;
    let mut joining = World::joining("g", "a", "session-a");
    (joining.kind, joining.gateway) = (Kind::Pull, "-");
    world.joined(&joining).await;
    let (store, shard) = (&world.store, &world.shard);
    let lanes = world.lanes("g").await;
    let seen = async || store.member(shard, "g", "a").await.expect("member");
    let silent = seen().await.expect("a member");
    // It calls once more, a minute later and with the session that it had.
    let key = world.key("g", GroupKey::Members);
    let row: String = world.redis(&["HGET", &key, "a"]).await;
    let (old, new) = (silent.last_ms, silent.last_ms + 60_000);
    let row = row.replace(&old.to_string(), &new.to_string());
    let _: i64 = world.redis(&["HSET", &key, "a", &row]).await;
    let leave = async |seen: &Member| {
        let left = store.leave_silent(shard, "g", &lanes, seen).await;
        left.expect("leave")
    };
    assert_eq!(leave(&silent).await, Leaving::Fenced);
    let fresh = seen().await.expect("still a member");
    assert_eq!((&fresh.session, fresh.last_ms), (&silent.session, new));
    assert_eq!(leave(&fresh).await, Leaving::Done);
    assert_eq!(leave(&fresh).await, Leaving::Absent);
    assert_eq!(seen().await, None);
}

#[tokio::test]
async fn a_redis_consumer_goes_only_when_it_holds_nothing() {
    let world = with_group().await;
    world.add("g/p4", &["m"]).await;
    world.add("g/p9", &["n"]).await;
    let a = world.join("g", "a", &[]).await;
    let taken = world.take("g", &a, 9).await;
    world.settle("g", &a, &taken[0], Action::Ack).await;
    let lanes = world.lanes("g").await;
    let left = world
        .store
        .leave(&world.shard, "g", &lanes, ("a", "*", 0))
        .await;
    assert_eq!(left.expect("leave"), Leaving::Done);
    assert_eq!(
        world.places("g").await,
        (0, 1, 0, 0, 0, 1),
        "what it holds stays pending"
    );
    for lane in &*lanes {
        let names = world.store.lane_consumers("g", lane).await.expect("names");
        let holds = &*lane.reference == "g/p4";
        assert_eq!(names.contains(&"a".to_owned()), holds, "{}", lane.reference);
        let forgotten = world
            .store
            .forget_consumer(&world.shard, "g", lane, "a")
            .await;
        assert_eq!(forgotten.expect("forget"), !holds);
    }
    assert_eq!(world.places("g").await.1, 1);
    world.join("g", "b", &[]).await;
    let forgotten = world
        .store
        .forget_consumer(&world.shard, "g", &lanes[0], "b")
        .await;
    assert!(!forgotten.expect("forget"), "a member");
}

#[tokio::test]
async fn everything_that_a_consumer_holds_is_listed_by_lane() {
    let world = with_group().await;
    world.add("g/p4", &["a", "b"]).await;
    world.add("/p4", &["c"]).await;
    let a = world.join("g", "a", &[]).await;
    let taken = world.take("g", &a, 9).await;
    let lanes = world.lanes("g").await;
    assert_eq!(
        world
            .store
            .held_by("g", &lanes, "a")
            .await
            .expect("held")
            .len(),
        3
    );
    world.settle("g", &a, &taken[0], nack(None)).await;
    assert_eq!(
        world
            .store
            .held_by("g", &lanes, "a")
            .await
            .expect("held")
            .len(),
        2
    );
    assert_eq!(
        world
            .store
            .held_by("g", &lanes, "~delayed")
            .await
            .expect("held")
            .len(),
        1
    );
}

#[tokio::test]
async fn replicas_see_who_beats_and_not_who_is_silent_or_signed_off() {
    let world = world().await;
    let me = |instance: &str| Registration {
        daemon: "gateway",
        instance: instance.into(),
        advertise: "127.0.0.1:1".into(),
        version: "1".into(),
        started_ms: 1,
    };
    world.store.beat(&me("beats-a")).await.expect("beat");
    let seen = world.store.beat(&me("beats-b")).await.expect("beat");
    let named = |seen: &[hive_store::registry::Replica], name: &str| {
        seen.iter().any(|replica| replica.instance == name)
    };
    assert!(named(&seen, "beats-a") && named(&seen, "beats-b"));
    world
        .store
        .sign_off(&me("beats-a"))
        .await
        .expect("sign off");
    let daemons = world.store.control_keys().daemons();
    let _: i64 = world
        .redis(&["HSET", &daemons, "gateway/beats-b", "1 x 1 1"])
        .await;
    let seen = world.store.replicas().await.expect("replicas");
    assert!(
        !named(&seen, "beats-a") && !named(&seen, "beats-b"),
        "{seen:?}"
    );
}

fn timed(lane: &str, id: &str, expires_at_ms: u64) -> Item {
    let header = Header {
        expires_at_ms,
        ..header()
    };
    Item {
        body: header.join(id.as_bytes()),
        ..item(lane, id)
    }
}

const FAR_MS: u64 = 9_000_000_000_000;

#[tokio::test]
async fn what_is_held_for_nobody_ends_with_its_time_to_live_and_what_may_live_stays() {
    let world = with_group().await;
    let mut items: Vec<Item> = (0..120)
        .map(|n| timed("/p4@c", &format!("m{n}"), FAR_MS))
        .collect();
    items.push(timed("/p4@c", "late", 1));
    world.publish(items).await;
    let held = lane_ref("/p4@c");
    for expected in [1, 0] {
        let (mut from, mut expired) = (Some("-".to_owned()), 0);
        while let Some(cursor) = from {
            let step = world.store.expire_held(&world.shard, &held, &cursor).await;
            let (count, next) = step.expect("held_expire");
            (expired, from) = (expired + count, next);
        }
        assert_eq!(expired, expected);
    }
    let dead = world
        .store
        .dead_letters(&world.shard, "0-0", 10)
        .await
        .expect("dead letters");
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].category, "no_capable_consumer");
    assert!(dead[0].body.ends_with(b"late"));
    let entries = world.store.entries(&world.shard, &[held]).await;
    assert_eq!(entries.expect("entries"), 120);
}

/// Ends what waits behind the head of the lane; answers how many.
async fn expire_behind(world: &World, lane: &str) -> u64 {
    let lanes = world.lanes("g").await;
    let lane = lanes.iter().find(|known| *known.reference == *lane);
    let lane = lane.expect("the lane");
    let (mut from, mut expired) = (Some("-".to_owned()), 0);
    while let Some(cursor) = from {
        let end = ("expired", b"".as_slice());
        let (store, shard) = (&world.store, &world.shard);
        let step = store.expire_waiting(shard, "g", lane, &cursor, end).await;
        let (count, next) = step.expect("waiting_expire");
        (expired, from) = (expired + count, next);
    }
    expired
}

#[tokio::test]
async fn what_waits_behind_a_message_that_lives_longer_ends_with_its_own_time() {
    let world = with_group().await;
    let mut items: Vec<Item> = (0..120)
        .map(|n| timed("g/p4", &format!("m{n}"), FAR_MS))
        .collect();
    items.insert(1, timed("g/p4", "held", 1));
    items.push(timed("g/p4", "late", 1));
    world.publish(items).await;
    let a = world.join("g", "a", &[]).await;
    let taken = world.take("g", &a, 2).await;
    assert_eq!(ids(&taken), ["m0", "held"]);
    assert_eq!(expire_behind(&world, "g/p4").await, 1, "the one that waits");
    assert_eq!(expire_behind(&world, "g/p4").await, 0);
    assert_eq!(world.places("g").await, (119, 2, 0, 0, 0, 1));
    let figures = world.figures("g").await;
    assert_eq!((figures.dead, figures.published), (1, 122));
    let mut left = 0;
    while left < 119 {
        left += world.take("g", &a, 119).await.len();
    }
    assert_eq!(world.places("g").await.0, 0);
}

#[tokio::test]
async fn what_another_group_is_to_read_is_not_deleted_behind_the_head() {
    let world = with_group().await;
    let items = vec![timed("/p4", "head", FAR_MS), timed("/p4", "late", 1)];
    world.publish(items).await;
    world.create("h", Start::Earliest).await;
    assert_eq!(expire_behind(&world, "/p4").await, 0);
    assert_eq!(world.places("h").await.0, 2);
}
