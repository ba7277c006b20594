//! What recovery does: due entries, the clock, purges, repairs, retention.

use hive_domain::group::Start;
use hive_store::{
    control::Removal,
    header::Header,
    keys::GroupKey,
    publish::Item,
    retention::{Keep, Unused},
    settle::{Action, Verdict},
    sweep::{Take, Tick},
};

use crate::world::{
    AGEING_MS, World, header, ids, item, lane_ref, lose, nack, ordered, with_group,
};

async fn due_delayed(world: &World) -> hive_store::sweep::Due {
    let lanes = world.lanes("g").await;
    world
        .store
        .due_delayed(&world.shard, "g", &lanes, AGEING_MS)
        .await
        .expect("due")
}

async fn due_scheduled(world: &World) -> hive_store::sweep::Due {
    let lanes = world.store.lanes(&world.shard).await.expect("lanes");
    let groups = world
        .store
        .groups_on_shard(&world.shard)
        .await
        .expect("groups");
    world
        .store
        .due_scheduled(&world.shard, &lanes, &groups)
        .await
        .expect("due")
}

fn later(lane: &str, id: &str) -> Item {
    Item {
        not_before_ms: 4_000_000_000_000,
        ..item(lane, id)
    }
}

/// Makes every scheduled message due.
async fn end_delays(world: &World) {
    let members: Vec<String> = world
        .redis(&["ZRANGE", &world.shard.scheduled(), "0", "-1"])
        .await;
    for member in members {
        let _: i64 = world
            .redis(&["ZADD", &world.shard.scheduled(), "1", &member])
            .await;
    }
}

#[tokio::test]
async fn a_backoff_that_is_over_makes_an_entry_ready_and_another_one_does_not() {
    let world = with_group().await;
    world.add("g/p4", &["a", "b"]).await;
    let a = world.join("g", "a", &[]).await;
    for taken in world.take("g", &a, 9).await {
        world.settle("g", &a, &taken, nack(Some(60_000))).await;
    }
    let none = due_delayed(&world).await;
    assert_eq!(none.moved, 0);
    assert!(none.next_ms > 0);
    let key = world.key("g", GroupKey::Delayed);
    let members: Vec<String> = world.redis(&["ZRANGE", &key, "0", "-1"]).await;
    let _: i64 = world.redis(&["ZADD", &key, "1", &members[0]]).await;
    assert_eq!(due_delayed(&world).await.moved, 1);
    assert_eq!(due_delayed(&world).await.moved, 0);
    assert_eq!(world.places("g").await, (0, 0, 1, 1, 0, 0));
    let _: i64 = world.redis(&["ZADD", &key, "1", &members[1]]).await;
    let changed = world
        .store
        .due_delayed(&world.shard, "g", &[], AGEING_MS)
        .await
        .expect("due");
    assert!(changed.lanes_changed, "its lane is not named");
    assert_eq!(world.places("g").await, (0, 0, 1, 1, 0, 0));
}

#[tokio::test]
async fn a_delay_that_is_over_puts_a_message_into_its_lanes_once() {
    let world = with_group().await;
    world.create("h", Start::Earliest).await;
    world
        .publish(vec![later("/p4", "all"), later("g/p4", "one")])
        .await;
    assert_eq!(due_scheduled(&world).await.moved, 0);
    end_delays(&world).await;
    assert_eq!(due_scheduled(&world).await.moved, 2);
    assert_eq!(due_scheduled(&world).await.moved, 0);
    for (group, expected) in [("g", 2), ("h", 1)] {
        let figures = world.figures(group).await;
        let seen = (figures.scheduled, figures.published, figures.waiting);
        assert_eq!(seen, (0, expected, expected), "{group}");
        let a = world.join(group, "a", &[]).await;
        assert_eq!(world.take(group, &a, 9).await.len() as u64, expected);
    }
    let bodies: i64 = world.redis(&["HLEN", &world.shard.bodies()]).await;
    assert_eq!(bodies, 0);
}

#[tokio::test]
async fn a_due_message_waits_until_the_caller_knows_every_lane_and_group() {
    let world = with_group().await;
    world.publish(vec![later("/p4", "a")]).await;
    end_delays(&world).await;
    let lanes = world.store.lanes(&world.shard).await.expect("lanes");
    let groups = ["g".to_owned()];
    world.create("h", Start::Earliest).await;
    let due = world
        .store
        .due_scheduled(&world.shard, &lanes, &groups)
        .await
        .expect("due");
    assert!(due.lanes_changed, "nobody would count it for `h`");
    let none = hive_store::fetch::Lanes::default();
    let groups = ["g".to_owned(), "h".to_owned()];
    let due = world
        .store
        .due_scheduled(&world.shard, &none, &groups)
        .await
        .expect("due");
    assert!(due.lanes_changed);
    assert_eq!(due_scheduled(&world).await.moved, 1);
    for group in ["g", "h"] {
        let figures = world.figures(group).await;
        assert_eq!((figures.scheduled, figures.waiting), (0, 1), "{group}");
    }
}

async fn tick(world: &World) -> Tick {
    world
        .store
        .tick(&world.shard, 30_000, Some("gw"))
        .await
        .expect("tick")
}

#[tokio::test]
async fn a_jump_of_the_clock_or_another_server_starts_a_grace() {
    let world = with_group().await;
    let clock = world.shard.clock();
    let first = tick(&world).await;
    assert_eq!(first.grace_until_ms, 0, "nothing was leased before");
    assert_eq!(tick(&world).await.grace_until_ms, 0);
    for (field, value) in [
        ("last_ms", (first.now_ms - 60_000).to_string()),
        ("last_ms", (first.now_ms + 60_000).to_string()),
        ("run_id", "another".to_owned()),
    ] {
        let _: i64 = world.redis(&["HSET", &clock, "grace_until", "0"]).await;
        let _: i64 = world.redis(&["HSET", &clock, field, &value]).await;
        let tick = tick(&world).await;
        assert_eq!(tick.grace_until_ms, tick.now_ms + 30_000, "{field}");
    }
    let far = (first.now_ms + 90_000_000).to_string();
    let _: i64 = world.redis(&["HSET", &clock, "grace_until", &far]).await;
    let clamped = tick(&world).await;
    assert_eq!(
        clamped.grace_until_ms,
        clamped.now_ms + 30_000,
        "of a clock that went back"
    );
    let beats = world
        .store
        .gateway_beats(&world.shard)
        .await
        .expect("beats");
    assert_eq!(beats, [("gw".to_owned(), clamped.now_ms)]);
    // What was seen of it is older than its last beat.
    let (store, shard) = (&world.store, &world.shard);
    let forget = async |beat_ms| {
        let forgotten = store.forget_gateway(shard, "gw", beat_ms).await;
        forgotten.expect("forget");
        store.gateway_beats(shard).await.expect("beats")
    };
    assert_eq!(forget(clamped.now_ms - 1).await, beats);
    assert_eq!(forget(clamped.now_ms).await, []);
}

#[tokio::test]
async fn a_grace_is_as_long_as_the_longest_lease_that_there_still_is() {
    let world = with_group().await;
    let clock = world.shard.clock();
    let tick = async |lease_ms, gateway| {
        let tick = world.store.tick(&world.shard, lease_ms, gateway).await;
        tick.expect("tick")
    };
    let restart = async || {
        let _: i64 = world.redis(&["HSET", &clock, "run_id", "another"]).await;
    };
    tick(86_400_000, None).await;
    tick(1_000, Some("gw")).await;
    restart().await;
    let long = tick(1_000, Some("gw")).await;
    assert_eq!(
        long.grace_until_ms,
        long.now_ms + 86_400_000,
        "its group is another gateway's"
    );
    assert_eq!(long.grace_from_ms, long.now_ms);
    // The coordinator knows that its group is gone.
    let short = tick(30_000, None).await;
    assert_eq!(short.grace_until_ms, short.now_ms + 30_000);
    assert_eq!(short.grace_from_ms, long.now_ms);
    restart().await;
    let next = tick(1_000, Some("gw")).await;
    assert_eq!(next.grace_until_ms, next.now_ms + 30_000);
}

#[tokio::test]
async fn after_a_step_back_backoffs_are_shifted_once_and_leases_grow_old_again() {
    let world = with_group().await;
    let ids: Vec<String> = (0..1_201).map(|n| format!("m{n}")).collect();
    for ids in ids.chunks(400) {
        world
            .add("g/p4", &ids.iter().map(String::as_str).collect::<Vec<_>>())
            .await;
    }
    let a = world.join("g", "a", &[]).await;
    let mut settles = Vec::new();
    while settles.len() < 1_200 {
        let wanted = u32::try_from(1_200 - settles.len()).expect("few");
        for taken in world.take("g", &a, wanted).await {
            settles.push(world.settle_of("g", &a, &taken, nack(Some(60_000))).await);
        }
    }
    world.settle_all("g", &settles).await;
    let hung = world.take("g", &a, 1).await;
    let lane = world.lanes("g").await[0].clone();
    // The clock was an hour ahead: what was delivered and nacked then lies ahead of us.
    let now = tick(&world).await.now_ms;
    let key = world.key("g", GroupKey::Delayed);
    let members: Vec<String> = world.redis(&["ZRANGE", &key, "0", "-1"]).await;
    for (n, member) in members.iter().enumerate() {
        let due = (now + 3_600_000 + u64::try_from(n).expect("few") / 700).to_string();
        let _: i64 = world.redis(&["ZADD", &key, "XX", &due, member]).await;
    }
    let time = (now + 3_600_000).to_string();
    let _: Vec<String> = world
        .redis(&[
            "XCLAIM",
            &lane.stream,
            "g",
            "a",
            "0",
            &hung[0].id,
            "TIME",
            &time,
            "JUSTID",
        ])
        .await;
    let _: i64 = world
        .redis(&["HSET", &world.shard.clock(), "last_ms", &time])
        .await;
    let stepped = tick(&world).await;
    assert!(stepped.back_ms > 3_590_000, "{stepped:?}");
    let _: i64 = world
        .redis(&["ZADD", &key, "XX", &(now + 500).to_string(), &members[0]])
        .await;
    let mut slices = 0;
    while world
        .store
        .shift_delayed(&world.shard, "g")
        .await
        .expect("shift")
    {
        slices += 1;
    }
    assert!(slices >= 2, "{slices}");
    let furthest: Vec<String> = world
        .redis(&["ZRANGE", &key, "-1", "-1", "WITHSCORES"])
        .await;
    let furthest: u64 = furthest[1].parse().expect("a score");
    assert!(furthest < now + 10_000, "{furthest} is not shifted");
    let score: u64 = world.redis(&["ZSCORE", &key, &members[0]]).await;
    assert_eq!(score, now + 500, "it was nacked after the step");
    let next = world.store.restamp("g", &lane, "-").await.expect("restamp");
    let mut from = next;
    while let Some(cursor) = from {
        from = world
            .store
            .restamp("g", &lane, &cursor)
            .await
            .expect("restamp");
    }
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let lanes = [lane];
    let held = world.store.held_by("g", &lanes, "a").await.expect("held");
    assert_eq!((held.len(), held[0].count), (1, 1));
    assert!(held[0].idle_ms > 0, "it grows old again");
    world
        .store
        .forget_step_back(&world.shard, &["g"])
        .await
        .expect("forget");
    assert_eq!(tick(&world).await.back_ms, 0);
    assert!(
        !world
            .store
            .shift_delayed(&world.shard, "g")
            .await
            .expect("shift")
    );
}

#[tokio::test]
async fn what_grew_old_by_a_jump_that_nobody_noted_yet_is_not_expired() {
    let world = with_group().await;
    world.add("g/p4", &["a"]).await;
    let a = world.join("g", "a", &[]).await;
    let taken = world.take("g", &a, 1).await.remove(0);
    let now = tick(&world).await.now_ms;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let expire = world.settle_of("g", &a, &taken, lose(1)).await;
    for jumped in [now + 60_000, now - 60_000] {
        let _: i64 = world
            .redis(&["HSET", &world.shard.clock(), "last_ms", &jumped.to_string()])
            .await;
        let verdicts = world.settle_all("g", std::slice::from_ref(&expire)).await;
        assert_eq!(verdicts, [Verdict::Spared], "the clock went by 60 s");
    }
    // Noted, and no reason for a grace.
    let _: i64 = world
        .redis(&["HSET", &world.shard.clock(), "last_ms", &now.to_string()])
        .await;
    let verdicts = world.settle_all("g", &[expire]).await;
    assert_eq!(verdicts, [Verdict::Done]);
}

#[tokio::test]
async fn a_restart_of_redis_starts_a_grace_with_the_first_tick_after_it() {
    let mut server = hive_testkit::redis::RedisServer::builder()
        .aof(hive_testkit::redis::Aof::Always)
        .start()
        .await
        .expect("a server");
    let store = crate::world::open(&server);
    let shard = store.shard("n", "s", 0);
    assert_eq!(
        store
            .tick(&shard, 30_000, None)
            .await
            .expect("tick")
            .grace_until_ms,
        0
    );
    server.restart().await.expect("restart");
    let tick = store.tick(&shard, 30_000, None).await.expect("tick");
    assert!(tick.grace_until_ms > tick.now_ms, "{tick:?}");
}

fn expiring(id: &str, expires_at_ms: u64) -> Item {
    let header = Header {
        expires_at_ms,
        ..header()
    };
    Item {
        body: header.join(id.as_bytes()),
        ..item("g/p4", id)
    }
}

#[tokio::test]
async fn a_take_stops_at_what_must_stay() {
    let world = with_group().await;
    let items = vec![
        expiring("old", 1),
        expiring("older", 2),
        expiring("never", 0),
        expiring("behind", 1),
    ];
    world.publish(items).await;
    let lane = world.lanes("g").await[0].clone();
    let take = async |which, limit| {
        world
            .store
            .take_waiting(&world.shard, "g", &lane, which, limit)
            .await
            .expect("take")
    };
    assert!(take(Take::OlderThan(1), 9).await.is_empty());
    assert_eq!(take(Take::Expired, 1).await.len(), 1);
    assert_eq!(
        take(Take::Expired, 9).await.len(),
        1,
        "up to the one that never expires"
    );
    assert!(take(Take::Expired, 9).await.is_empty());
    assert_eq!(take(Take::OlderThan(4_000_000_000_000), 1).await.len(), 1);
    assert_eq!(take(Take::All, 9).await.len(), 1);
    let lanes = [lane.clone()];
    assert_eq!(
        world
            .store
            .held_by("g", &lanes, "~taken")
            .await
            .expect("held")
            .len(),
        4
    );
}

async fn repair(world: &World, owner: &str) -> Vec<bool> {
    let lanes = world.lanes("g").await;
    let mut repaired = Vec::new();
    for held in world.store.held_by("g", &lanes, owner).await.expect("held") {
        let lane = &lanes[held.lane];
        let done = world
            .store
            .reindex(&world.shard, "g", lane, &held.id, AGEING_MS)
            .await;
        repaired.push(done.expect("reindex"));
    }
    repaired
}

#[tokio::test]
async fn an_entry_that_its_index_lost_is_put_back_and_a_sound_one_stays() {
    let world = with_group().await;
    world.add("g/p4", &["ready", "delayed", "held"]).await;
    let a = world.join("g", "a", &[]).await;
    let taken = world.take("g", &a, 9).await;
    world.settle("g", &a, &taken[0], nack(Some(0))).await;
    world.settle("g", &a, &taken[1], nack(Some(60_000))).await;
    for owner in ["~ready", "~delayed", "a"] {
        assert_eq!(repair(&world, owner).await, [false], "{owner}");
    }
    assert_eq!(world.places("g").await, (0, 1, 1, 1, 0, 0));
    let _: i64 = world.redis(&["DEL", &world.shard.ready("g", "")]).await;
    let _: i64 = world
        .redis(&["DEL", &world.key("g", GroupKey::Delayed)])
        .await;
    assert_eq!(repair(&world, "~ready").await, [true]);
    assert_eq!(repair(&world, "~delayed").await, [true]);
    assert_eq!(world.places("g").await, (0, 1, 2, 0, 0, 0));
    assert_eq!(ids(&world.take("g", &a, 9).await), ["ready", "delayed"]);
}

#[tokio::test]
async fn a_parked_entry_that_its_index_lost_still_waits_for_its_key() {
    let world = with_group().await;
    let items = ["a", "b"].map(|id| ordered("g/p4m", id, "k")).to_vec();
    world.publish(items).await;
    let a = world.join("g", "a", &[]).await;
    let taken = world.take("g", &a, 9).await;
    assert_eq!(repair(&world, "~ordered").await, [false]);
    let _: i64 = world
        .redis(&["DEL", &world.key("g", GroupKey::Parked)])
        .await;
    assert_eq!(repair(&world, "~ordered").await, [true]);
    assert!(world.take("g", &a, 9).await.is_empty(), "its key is busy");
    assert_eq!(
        world.settle("g", &a, &taken[0], Action::Ack).await,
        Verdict::Done
    );
    assert_eq!(ids(&world.take("g", &a, 9).await), ["b"]);
}

#[tokio::test]
async fn a_parked_entry_whose_key_is_free_is_let_go_once() {
    let world = with_group().await;
    let items = ["a", "b"].map(|id| ordered("g/p4m", id, "k")).to_vec();
    world.publish(items).await;
    let a = world.join("g", "a", &[]).await;
    let first = world.take("g", &a, 9).await;
    let _: i64 = world.redis(&["DEL", &world.key("g", GroupKey::Busy)]).await;
    assert_eq!(repair(&world, "~ordered").await, [true]);
    assert_eq!(world.places("g").await, (0, 1, 1, 0, 0, 0));
    let second = world.take("g", &a, 9).await;
    assert_eq!(ids(&second), ["b"]);
    world.settle("g", &a, &first[0], Action::Ack).await;
    assert_eq!(
        world.settle("g", &a, &second[0], Action::Ack).await,
        Verdict::Done
    );
    assert_eq!(world.places("g").await, (0, 0, 0, 0, 0, 2));
}

fn keep(age_ms: u64, len: u64) -> Keep {
    let bytes = 1 << 40;
    Keep { age_ms, len, bytes }
}

async fn trim_to(world: &World, keep: Keep) -> u64 {
    let lane = lane_ref("/p4");
    let (mut deleted, mut from) = (0, Some("-".to_owned()));
    while let Some(cursor) = from {
        let trimmed = world.store.trim(&world.shard, &lane, keep, &cursor).await;
        let trimmed = trimmed.expect("trim");
        deleted += trimmed.deleted;
        from = trimmed.next;
    }
    deleted
}

async fn trim(world: &World, max_age_ms: u64, max_len: u64) -> u64 {
    trim_to(world, keep(max_age_ms, max_len)).await
}

/// Bytes that a lane holds, as they are counted and as they are.
async fn bytes(world: &World, lane: &str) -> (u64, u64) {
    let key = world.shard.lane(&lane_ref(lane));
    let entries: Vec<(String, Vec<Vec<u8>>)> = world.redis(&["XRANGE", &key, "-", "+"]).await;
    let held = entries.iter().map(|(_, fields)| fields[1].len() as u64);
    let counted = world
        .store
        .bytes_by_lane(&world.shard)
        .await
        .expect("sizes");
    (counted.get(lane).copied().unwrap_or(0), held.sum())
}

async fn length(world: &World) -> u64 {
    world
        .redis(&["XLEN", &world.shard.lane(&lane_ref("/p4"))])
        .await
}

#[tokio::test]
async fn nothing_unsettled_of_any_group_is_trimmed() {
    let world = with_group().await;
    world.create("h", Start::Earliest).await;
    world.add("/p4", &["a", "b", "c", "d"]).await;
    assert_eq!(trim(&world, 0, 0).await, 0);
    let a = world.join("g", "a", &[]).await;
    let b = world.join("h", "b", &[]).await;
    let of_g = world.take("g", &a, 9).await;
    for taken in &of_g {
        world.settle("g", &a, taken, Action::Ack).await;
    }
    assert_eq!(trim(&world, 0, 0).await, 0, "`h` has read nothing");
    let of_h = world.take("h", &b, 3).await;
    world.settle("h", &b, &of_h[0], Action::Ack).await;
    world.settle("h", &b, &of_h[1], nack(Some(60_000))).await;
    assert_eq!(
        trim(&world, 0, 0).await,
        1,
        "up to what waits out a backoff"
    );
    assert_eq!(length(&world).await, 3);
    world.end_backoffs("h").await;
    for taken in world.take("h", &b, 9).await {
        world.settle("h", &b, &taken, Action::Ack).await;
    }
    world.settle("h", &b, &of_h[2], Action::Ack).await;
    assert_eq!(trim(&world, 0, 0).await, 3);
    assert_eq!(length(&world).await, 0);
    world.add("/p4", &["e"]).await;
    assert_eq!(
        ids(&world.take("g", &a, 9).await),
        ["e"],
        "an empty lane goes on"
    );
}

#[tokio::test]
async fn settled_messages_are_kept_by_age_and_by_number() {
    let world = with_group().await;
    world.add("/p4", &["a", "b", "c", "d"]).await;
    let a = world.join("g", "a", &[]).await;
    for taken in world.take("g", &a, 9).await {
        world.settle("g", &a, &taken, Action::Ack).await;
    }
    assert_eq!(trim(&world, 60_000, 100).await, 0);
    assert_eq!(trim(&world, 60_000, 3).await, 1);
    assert_eq!(trim(&world, 60_000, 3).await, 0);
    assert_eq!(trim(&world, 0, 100).await, 3);
    assert_eq!(trim(&world, 0, 100).await, 0);
}

#[tokio::test]
async fn a_trim_goes_by_slices() {
    let world = with_group().await;
    for round in 0..3 {
        let items = (0..400)
            .map(|n| item("/p4", &format!("{round}.{n}")))
            .collect();
        world.publish(items).await;
    }
    let a = world.join("g", "a", &[]).await;
    for _ in 0..2 {
        let mut settles = Vec::new();
        for taken in world.take("g", &a, 1_000).await {
            settles.push(world.settle_of("g", &a, &taken, Action::Ack).await);
        }
        world.settle_all("g", &settles).await;
    }
    let (mut slices, lane) = (Vec::new(), lane_ref("/p4"));
    while length(&world).await > 10 {
        let trimmed = world
            .store
            .trim(&world.shard, &lane, keep(60_000, 10), "-")
            .await;
        slices.push(trimmed.expect("trim").deleted);
    }
    assert_eq!(slices, [200, 200, 200, 200, 200, 190]);
    let (counted, held) = bytes(&world, "/p4").await;
    assert_eq!(counted, held);
}

#[tokio::test]
async fn a_slice_of_large_messages_ends_by_their_bytes() {
    let world = with_group().await;
    let large = |n: usize| Item {
        body: header().join(&vec![0; 1_000_000]),
        ..item("/p4", &n.to_string())
    };
    world.publish((0..40).map(large).collect()).await;
    let a = world.join("g", "a", &[]).await;
    while let taken = world.take("g", &a, 1_000).await
        && !taken.is_empty()
    {
        for taken in taken {
            world.settle("g", &a, &taken, Action::Ack).await;
        }
    }
    let lane = lane_ref("/p4");
    let first = world
        .store
        .trim(&world.shard, &lane, keep(60_000, 0), "-")
        .await;
    let first = first.expect("trim");
    assert_eq!(first.deleted, 2, "1 MiB is passed with the second message");
    assert!(first.next.is_some());
    assert_eq!(trim(&world, 60_000, 0).await, 38);
    assert_eq!(bytes(&world, "/p4").await, (0, 0));
}

/// Acks all that a group's lanes hold.
async fn ack_all(world: &World) {
    let a = world.join("g", "a", &[]).await;
    loop {
        let taken = world.take("g", &a, 1_000).await;
        if taken.is_empty() {
            return;
        }
        let mut settles = Vec::new();
        for taken in &taken {
            settles.push(world.settle_of("g", &a, taken, Action::Ack).await);
        }
        world.settle_all("g", &settles).await;
    }
}

fn sized(id: usize, bytes: usize) -> Item {
    Item {
        body: header().join(&vec![0; bytes]),
        ..item("/p4", &id.to_string())
    }
}

#[tokio::test]
async fn large_messages_behind_small_ones_end_a_slice_by_their_bytes() {
    let world = with_group().await;
    world.publish((0..30).map(|n| sized(n, 10)).collect()).await;
    for part in 0..3 {
        let large = (0..30).map(|n| sized(30 + part * 30 + n, 250_000));
        world.publish(large.collect()).await;
    }
    ack_all(&world).await;
    let lane = lane_ref("/p4");
    let first = world
        .store
        .trim(&world.shard, &lane, keep(60_000, 0), "-")
        .await;
    let first = first.expect("trim");
    assert_eq!(first.deleted, 41, "a page of forty behind a small one");
    assert!(first.next.is_some());
    let (counted, held) = bytes(&world, "/p4").await;
    assert_eq!(counted, held);
    assert_eq!(trim(&world, 60_000, 0).await, 79);
    assert_eq!(bytes(&world, "/p4").await, (0, 0));
}

#[tokio::test]
async fn bytes_are_exact_after_each_slice_of_messages_of_all_sizes() {
    let world = with_group().await;
    let size = |n: usize| [1, 7_000, 40, 300, 2_500][n % 5] + n;
    world
        .publish((0..700).map(|n| sized(n, size(n))).collect())
        .await;
    ack_all(&world).await;
    let (_, mut left) = bytes(&world, "/p4").await;
    let lane = lane_ref("/p4");
    let limit = left / 5;
    let mut from = Some("-".to_owned());
    while let Some(cursor) = from {
        let of_bytes = Keep {
            bytes: limit,
            ..keep(60_000, 1_000)
        };
        let trimmed = world
            .store
            .trim(&world.shard, &lane, of_bytes, &cursor)
            .await;
        from = trimmed.expect("trim").next;
        let (counted, held) = bytes(&world, "/p4").await;
        assert_eq!(counted, held);
        left = held;
    }
    assert!(left <= limit, "{left} of {limit}");
    assert!(left > limit - 8_000, "one message more was enough: {left}");
}

#[tokio::test]
async fn a_slice_that_is_partly_old_loses_what_is_old() {
    let world = with_group().await;
    let key = world.shard.lane(&lane_ref("/p4"));
    let mut all: Vec<String> = Vec::new();
    let ms = |id: &String| id.split_once('-').map(|(ms, _)| ms.parse::<u64>());
    while all.len() < 4 || ms(&all[0]) == ms(&all[all.len() - 1]) {
        world.add("/p4", &[&all.len().to_string()]).await;
        let entries: Vec<(String, Vec<Vec<u8>>)> = world.redis(&["XRANGE", &key, "-", "+"]).await;
        all = entries.into_iter().map(|(id, _)| id).collect();
    }
    ack_all(&world).await;
    let newest = ms(&all[all.len() - 1]).expect("an id").expect("a number");
    let old = all
        .iter()
        .filter(|id| ms(id) != ms(&all[all.len() - 1]))
        .count();
    let script = include_str!("../../src/scripts/trim.lua");
    let now = (newest + 1_000).to_string();
    let many = "1000000";
    let reply: Vec<String> = world
        .redis(&[
            "EVAL",
            script,
            "2",
            &key,
            &world.shard.sizes(),
            "/p4",
            "1000",
            many,
            many,
            "-",
            "200",
            &now,
        ])
        .await;
    assert_eq!(reply, ["OK", &old.to_string(), ""]);
    assert_eq!(length(&world).await, (all.len() - old) as u64);
    let (counted, held) = bytes(&world, "/p4").await;
    assert_eq!(counted, held);
}

#[tokio::test]
async fn settled_messages_are_kept_by_bytes() {
    let world = with_group().await;
    world.add("/p4", &["a", "b", "c", "d"]).await;
    let (counted, held) = bytes(&world, "/p4").await;
    assert_eq!(counted, held);
    let a = world.join("g", "a", &[]).await;
    for taken in world.take("g", &a, 9).await {
        world.settle("g", &a, &taken, Action::Ack).await;
    }
    let of_bytes = |bytes| Keep {
        bytes,
        ..keep(60_000, 100)
    };
    assert_eq!(trim_to(&world, of_bytes(held)).await, 0);
    assert_eq!(trim_to(&world, of_bytes(held / 2)).await, 2);
    assert_eq!(bytes(&world, "/p4").await, (held / 2, held / 2));
    assert_eq!(trim_to(&world, of_bytes(held / 2 - 1)).await, 1);
    assert_eq!(trim_to(&world, of_bytes(0)).await, 1);
    assert_eq!(bytes(&world, "/p4").await, (0, 0));
}

#[tokio::test]
async fn what_is_settled_behind_a_pinned_head_is_deleted_and_nothing_else() {
    let world = with_group().await;
    world.create("h", Start::Earliest).await;
    world.add("/p4", &["pins", "a", "b", "c", "unread"]).await;
    let (a, b) = (
        world.join("g", "a", &[]).await,
        world.join("h", "b", &[]).await,
    );
    let of_g = world.take("g", &a, 5).await;
    let of_h = world.take("h", &b, 4).await;
    for taken in &of_g[1..] {
        world.settle("g", &a, taken, Action::Ack).await;
    }
    assert_eq!(trim(&world, 60_000, 0).await, 0, "`h` holds all of it");
    world.settle("h", &b, &of_h[0], Action::Ack).await;
    world.settle("h", &b, &of_h[1], Action::Ack).await;
    world.settle("h", &b, &of_h[2], nack(Some(60_000))).await;
    world.settle("h", &b, &of_h[3], Action::Ack).await;
    assert_eq!(trim(&world, 60_000, 3).await, 2, "`a` and `c`");
    let key = world.shard.lane(&lane_ref("/p4"));
    let kept: Vec<(String, Vec<Vec<u8>>)> = world.redis(&["XRANGE", &key, "-", "+"]).await;
    let kept: Vec<String> = kept
        .into_iter()
        .map(|(_, fields)| crate::world::id_of(&fields[1].clone().into()))
        .collect();
    assert_eq!(kept, ["pins", "b", "unread"]);
    world.settle("g", &a, &of_g[0], Action::Ack).await;
    assert_eq!(trim(&world, 60_000, 0).await, 1, "the pin");
    world.end_backoffs("h").await;
    assert_eq!(ids(&world.take("h", &b, 9).await), ["b", "unread"]);
}

async fn expire_buffered(world: &World, lane: &str, max_age_ms: u64) -> (u64, u64) {
    let lane = lane_ref(lane);
    let ended = world
        .store
        .expire_buffered(&world.shard, &lane, max_age_ms)
        .await
        .expect("buffered_expire");
    (ended.expired, ended.deleted)
}

/// Waits until what was published before is older than a millisecond.
async fn grow_old() {
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
}

#[tokio::test]
async fn buffered_messages_of_a_lane_without_groups_die_of_age_alone() {
    let world = crate::world::world().await;
    let mut flush = world.flush(vec![item("/p4", "a"), item("/p4", "b")]).await;
    flush.buffer_without_groups = true;
    world.send(&flush).await;
    grow_old().await;
    assert_eq!(trim(&world, 1, 0).await, 0, "a trim ends nothing unsettled");
    assert_eq!(expire_buffered(&world, "/p4", 60_000).await, (0, 0));
    assert_eq!(expire_buffered(&world, "/p4", 0).await, (0, 0));
    assert_eq!(expire_buffered(&world, "/p4", 1).await, (2, 0));
    assert_eq!(length(&world).await, 0);
    let dead = world.store.dead_letters(&world.shard, "0-0", 9).await;
    let seen: Vec<_> = dead
        .expect("dead")
        .into_iter()
        .map(|dead| (dead.group, dead.category))
        .collect();
    let expected = (String::new(), "expired".to_owned());
    assert_eq!(seen, [expected.clone(), expected]);
    world.create("g", Start::Earliest).await;
    world.add("/p4", &["c"]).await;
    grow_old().await;
    assert_eq!(
        expire_buffered(&world, "/p4", 1).await,
        (0, 0),
        "`g` has it"
    );
}

#[tokio::test]
async fn what_the_last_group_of_a_lane_had_settled_is_deleted_and_no_dead_letter() {
    let world = with_group().await;
    world.add("/p4", &["a", "b"]).await;
    let a = world.join("g", "a", &[]).await;
    for taken in world.take("g", &a, 9).await {
        world.settle("g", &a, &taken, Action::Ack).await;
    }
    let retired = world.store.retire_on_shard(&world.shard, "g").await;
    assert_eq!(retired.expect("retire"), Removal::Done(0));
    let mut flush = world.flush(vec![item("/p4", "c")]).await;
    flush.buffer_without_groups = true;
    world.send(&flush).await;
    grow_old().await;
    assert_eq!(expire_buffered(&world, "/p4", 60_000).await, (0, 0));
    assert_eq!(expire_buffered(&world, "/p4", 0).await, (0, 2));
    assert_eq!(expire_buffered(&world, "/p4", 1).await, (1, 0));
}

#[tokio::test]
async fn a_lane_without_groups_is_not_trimmed() {
    let world = with_group().await;
    world.add("/p4@c", &["held"]).await;
    let lane = lane_ref("/p4@c");
    assert_eq!(
        world
            .store
            .trim(&world.shard, &lane, keep(0, 0), "-")
            .await
            .expect("trim")
            .deleted,
        0
    );
}

async fn retire(world: &World, lane: &str, idle_ms: u64) -> Unused {
    let groups = world.store.groups_on_shard(&world.shard).await;
    let lane = lane_ref(lane);
    world
        .store
        .retire_lane(&world.shard, &lane, &groups.expect("groups"), idle_ms)
        .await
        .expect("lane_retire")
}

#[tokio::test]
async fn a_lane_is_retired_once_it_is_empty_and_idle_and_removed_later() {
    let world = with_group().await;
    let lane = "g/p4+gpu";
    world.add(lane, &["a"]).await;
    let a = world.join("g", "a", &["gpu"]).await;
    grow_old().await;
    assert_eq!(retire(&world, lane, 1).await, Unused::Used, "it waits");
    let taken = world.take("g", &a, 9).await;
    grow_old().await;
    assert_eq!(retire(&world, lane, 1).await, Unused::Used, "it is leased");
    let late = world.settle_of("g", &a, &taken[0], Action::Ack).await;
    let lanes = world.lanes("g").await;
    world
        .settle_with("g", &lanes, std::slice::from_ref(&late), |group| {
            group.keep = false;
        })
        .await;
    assert_eq!(
        retire(&world, lane, 60_000).await,
        Unused::Used,
        "lately used"
    );
    assert_eq!(retire(&world, lane, 1).await, Unused::Retired);
    assert_eq!(world.lanes("g").await.len(), 0);
    let served = world.key("g", GroupKey::Served);
    let served: u64 = world.redis(&["HLEN", &served]).await;
    assert_eq!(served, 0, "its hints go with it");
    let verdicts = world.settle_with("g", &lanes, &[late], |_| {}).await;
    assert_eq!(verdicts, [Verdict::Gone], "a late ack finds no loss");
    let retired = world.store.retired_lanes(&world.shard).await;
    assert_eq!(retired.expect("retired"), [lane_ref(lane)]);
    assert_eq!(retire(&world, lane, 60_000).await, Unused::Used, "not yet");
    grow_old().await;
    assert_eq!(retire(&world, lane, 1).await, Unused::Removed);
    let left: u64 = world.redis(&["HLEN", &world.shard.sizes()]).await;
    assert_eq!(left, 0);
    let stream = world.shard.lane(&lane_ref(lane));
    let is_there: bool = world.redis(&["EXISTS", &stream]).await;
    assert!(!is_there);
}

#[tokio::test]
async fn a_retired_lane_comes_back_with_the_next_message_and_with_its_groups_of_then() {
    let world = with_group().await;
    world.create("h", Start::Earliest).await;
    world.add("/p4+gpu", &["a"]).await;
    let (a, b) = (
        world.join("g", "a", &["gpu"]).await,
        world.join("h", "b", &["gpu"]).await,
    );
    for (group, agent) in [("g", &a), ("h", &b)] {
        let taken = world.take(group, agent, 9).await;
        world.settle(group, agent, &taken[0], Action::Ack).await;
    }
    grow_old().await;
    let lane = lane_ref("/p4+gpu");
    let trimmed = world.store.trim(&world.shard, &lane, keep(0, 0), "-").await;
    assert_eq!(trimmed.expect("trim").deleted, 1);
    assert_eq!(retire(&world, "/p4+gpu", 1).await, Unused::Retired);
    let retired = world.store.retire_on_shard(&world.shard, "h").await;
    assert_eq!(retired.expect("retire"), Removal::Done(0));
    world.create("new", Start::Earliest).await;
    world.add("/p4+gpu", &["b"]).await;
    assert!(
        world
            .store
            .retired_lanes(&world.shard)
            .await
            .expect("retired")
            .is_empty()
    );
    let c = world.join("new", "c", &["gpu"]).await;
    assert_eq!(ids(&world.take("g", &a, 9).await), ["b"]);
    assert_eq!(ids(&world.take("new", &c, 9).await), ["b"]);
    let groups: Vec<redis::Value> = world
        .redis(&["XINFO", "GROUPS", &world.shard.lane(&lane)])
        .await;
    assert_eq!(groups.len(), 2, "`h` is gone");
}

#[tokio::test]
async fn a_lane_that_a_delayed_message_is_for_stays() {
    let world = with_group().await;
    let later = Item {
        not_before_ms: 4_000_000_000_000,
        ..item("g/p4+gpu", "later")
    };
    world.publish(vec![later]).await;
    grow_old().await;
    assert_eq!(retire(&world, "g/p4+gpu", 1).await, Unused::Used);
    let scheduled = world.shard.scheduled();
    let member: Vec<String> = world.redis(&["ZRANGE", &scheduled, "0", "-1"]).await;
    let _: i64 = world.redis(&["ZADD", &scheduled, "1", &member[0]]).await;
    assert_eq!(due_scheduled(&world).await.moved, 1);
    let a = world.join("g", "a", &["gpu"]).await;
    let taken = world.take("g", &a, 9).await;
    let settle = world.settle_of("g", &a, &taken[0], Action::Ack).await;
    let lanes = world.lanes("g").await;
    world
        .settle_with("g", &lanes, &[settle], |group| group.keep = false)
        .await;
    grow_old().await;
    assert_eq!(retire(&world, "g/p4+gpu", 1).await, Unused::Retired);
}

#[tokio::test]
async fn held_messages_come_to_a_direct_lane_that_was_retired() {
    let world = with_group().await;
    world.add("g/p4@c", &["a"]).await;
    let c = world.join("g", "c", &[]).await;
    let taken = world.take("g", &c, 9).await;
    let settle = world.settle_of("g", &c, &taken[0], Action::Ack).await;
    let lanes = world.lanes("g").await;
    world
        .settle_with("g", &lanes, &[settle], |group| group.keep = false)
        .await;
    grow_old().await;
    assert_eq!(retire(&world, "g/p4@c", 1).await, Unused::Retired);
    let left = world
        .store
        .leave(&world.shard, "g", &lanes, ("c", "*", 0))
        .await;
    left.expect("leave");
    world.add("/p4@c", &["b"]).await;
    let c = world.join("g", "c", &[]).await;
    let all = world.store.lanes(&world.shard).await.expect("lanes").all;
    let moved = world.store.move_held(&world.shard, "g", "c", &all).await;
    assert_eq!(moved.expect("held_move"), 1);
    assert_eq!(ids(&world.take("g", &c, 9).await), ["b"]);
    grow_old().await;
    assert_eq!(retire(&world, "/p4@c", 1).await, Unused::Retired);
}

#[tokio::test]
async fn only_sets_with_unsettled_or_delayed_messages_count() {
    let world = with_group().await;
    let later = Item {
        not_before_ms: 4_000_000_000_000,
        ..item("g/p4+later", "d")
    };
    world.add("g/p4+gone", &["a"]).await;
    let a = world.join("g", "a", &["gone", "leased"]).await;
    let taken = world.take("g", &a, 9).await;
    world.settle("g", &a, &taken[0], Action::Ack).await;
    world.add("g/p4+leased", &["b"]).await;
    assert_eq!(ids(&world.take("g", &a, 9).await), ["b"]);
    world.add("g/p4+waits", &["c"]).await;
    world.add("/p4+held@nobody", &["e"]).await;
    world.publish(vec![later]).await;
    let all = world.store.lanes(&world.shard).await.expect("lanes").all;
    let sets = world.store.unsettled_sets(&world.shard, &all).await;
    let sets: Vec<String> = sets.expect("sets").into_iter().collect();
    assert_eq!(sets, ["held", "later", "leased", "waits"]);
}

#[tokio::test]
async fn a_lane_whose_bytes_nobody_counted_is_trimmed() {
    let world = with_group().await;
    world.add("/p4", &["a", "b"]).await;
    let a = world.join("g", "a", &[]).await;
    for taken in world.take("g", &a, 9).await {
        world.settle("g", &a, &taken, Action::Ack).await;
    }
    let _: i64 = world.redis(&["DEL", &world.shard.sizes()]).await;
    assert_eq!(trim(&world, 60_000, 1).await, 1);
    assert_eq!(trim(&world, 60_000, 0).await, 1);
    assert_eq!(length(&world).await, 0);
}

#[tokio::test]
async fn a_lane_that_lost_its_stream_is_not_retired() {
    let world = with_group().await;
    world.add("g/p4+gpu", &["a"]).await;
    grow_old().await;
    let stream = world.shard.lane(&lane_ref("g/p4+gpu"));
    let _: i64 = world.redis(&["UNLINK", &stream]).await;
    assert_eq!(retire(&world, "g/p4+gpu", 1).await, Unused::Used);
    let flush = world.flush(vec![item("g/p4+gpu", "b")]).await;
    let told = world.store.publish(&world.shard, &flush).await;
    assert!(matches!(told, Err(hive_store::StoreError::Lost { .. })));
}

#[tokio::test]
async fn a_due_message_makes_its_lane_anew_while_its_group_lives() {
    for lane in ["g/p4+gpu", "/p4+gpu", "/p4@c"] {
        let world = with_group().await;
        world
            .publish(vec![later(lane, "a"), later(lane, "b")])
            .await;
        end_delays(&world).await;
        // An older version did not count what is delayed, and the lane went.
        let _: i64 = world.redis(&["DEL", &world.shard.sizes()]).await;
        grow_old().await;
        assert_eq!(retire(&world, lane, 1).await, Unused::Retired, "{lane}");
        let due = due_scheduled(&world).await;
        assert_eq!((due.moved, due.lanes_changed), (2, false), "{lane}");
        let dead = world.store.dead_count(&world.shard).await;
        assert_eq!(dead.expect("dead"), 0, "{lane}");
        let retired = world.store.retired_lanes(&world.shard).await;
        assert_eq!(retired.expect("retired"), [], "{lane}");
        let c = world.join("g", "c", &["gpu"]).await;
        let all = world.store.lanes(&world.shard).await.expect("lanes").all;
        let moved = world.store.move_held(&world.shard, "g", "c", &all).await;
        assert_eq!(
            moved.expect("held_move"),
            if lane == "/p4@c" { 2 } else { 0 }
        );
        assert_eq!(ids(&world.take("g", &c, 9).await), ["a", "b"], "{lane}");
    }
}
