//! `Store::demand` and `Store::held_counts`: the work of groups, and who is there for it.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use hive_domain::group::{GroupDefinition, Start};
use hive_store::{
    Shard,
    demand::GroupDemand,
    keys::GroupKey,
    members::{Joined, Kind},
    publish::{Flush, Flushed, Outcome},
    settle::Action,
};
use hive_testkit::redis::RedisServer;
use redis::Pipeline;

use crate::{
    coordination::namespace,
    world::{World, item, nack, on, ordered, with_group, world},
};

async fn demand(world: &World, groups: &[&str]) -> BTreeMap<String, GroupDemand> {
    let groups: Vec<GroupDefinition> = groups
        .iter()
        .map(|group| World::definition(group, Start::Earliest))
        .collect();
    let groups: Vec<&GroupDefinition> = groups.iter().collect();
    let demand = world.store.demand(namespace(world), &groups).await;
    demand.expect("demand")
}

#[tokio::test]
async fn work_of_every_kind_is_told_apart_and_agrees_with_the_figures() {
    let world = with_group().await;
    world.create("h", Start::Earliest).await;
    world.add("/p4", &["a", "b", "c"]).await;
    world.add("g/p9", &["d", "e", "f", "h"]).await;
    world
        .publish(vec![
            ordered("g/p4m", "o1", "k"),
            ordered("g/p4m", "o2", "k"),
        ])
        .await;
    let a = world.join("g", "a", &[]).await;
    world.join("g", "b", &[]).await;
    let taken = world.take("g", &a, 6).await;
    assert_eq!(taken.len(), 6);
    let settle = async |at: usize, action| {
        world.settle("g", &a, &taken[at], action).await;
    };
    settle(0, Action::Ack).await;
    settle(1, nack(Some(60_000))).await;
    settle(2, Action::Release { retry_after_ms: 0 }).await;
    let taken = world.take("g", &a, 9).await;
    world
        .settle("g", &a, &taken[0], Action::Release { retry_after_ms: 0 })
        .await;
    world.add("g/p4", &["w1", "w2"]).await;
    let found = demand(&world, &["g", "h", "absent"]).await;
    let (g, figures) = (&found["g"], world.figures("g").await);
    assert_eq!(g.published, figures.published);
    assert_eq!(g.waiting, figures.waiting);
    assert_eq!((g.leased, g.ready), (figures.leased, figures.ready));
    assert_eq!(g.later, figures.delayed + figures.parked);
    assert!(
        g.waiting >= 2 && g.leased > 0 && g.ready == 1 && g.later >= 2,
        "{g:?}"
    );
    assert_eq!((g.recent_acked, g.recent_failed), (1, 1));
    assert_eq!(g.recent_work_ms, figures.recent_work_ms);
    assert!((240_000..=300_000).contains(&g.recent_ms));
    assert!(g.oldest_waiting_ms < 60_000, "{}", g.oldest_waiting_ms);
    let oldest = figures.oldest_waiting_ms.expect("something waits");
    assert_eq!(g.now_ms - g.oldest_waiting_ms, oldest);
    assert_eq!((g.consumers, g.slots, g.members.len()), (2, 8, 2));
    let h = &found["h"];
    assert_eq!((h.waiting, h.leased, h.ready, h.later), (3, 0, 0, 0));
    assert_eq!((h.consumers, h.slots), (0, 0));
    let absent = &found["absent"];
    assert_eq!((absent.published, absent.consumers), (0, 0));
    assert!(absent.now_ms > 0);
}

#[tokio::test]
async fn the_age_of_the_oldest_is_that_of_what_was_never_delivered() {
    let world = with_group().await;
    let shard = &world.shard;
    world.add("g/p4", &["a"]).await;
    world.add("/p9", &["b"]).await;
    let stream = shard.lane(&"g/p4".parse().expect("a lane"));
    let entries: Vec<(String, Vec<Vec<u8>>)> = world.redis(&["XRANGE", &stream, "-", "+"]).await;
    let (ms, _) = entries[0].0.split_once('-').expect("an id");
    let found = demand(&world, &["g"]).await;
    let ms: u64 = ms.parse().expect("a time");
    assert_eq!(found["g"].now_ms - found["g"].oldest_waiting_ms, ms);
    let a = world.join("g", "a", &[]).await;
    while !world.take("g", &a, 9).await.is_empty() {}
    let found = demand(&world, &["g"]).await;
    assert_eq!((found["g"].oldest_waiting_ms, found["g"].leased), (0, 2));
}

#[tokio::test]
async fn tasks_held_for_a_consumer_are_work_for_now_and_not_for_later() {
    let world = with_group().await;
    let shard = &world.shard;
    world.add("g/p4", &["a", "b", "c"]).await;
    let a = world.join("g", "a", &[]).await;
    let taken = world.take("g", &a, 3).await;
    for taken in &taken {
        world.settle("g", &a, taken, nack(Some(60_000))).await;
    }
    let held = shard.group("g", GroupKey::Held);
    let _: i64 = world.redis(&["ZADD", &held, "1", "a\0g/p4t|1-0"]).await;
    let found = demand(&world, &["g"]).await;
    assert_eq!(
        (found["g"].ready, found["g"].later, found["g"].leased),
        (1, 2, 0)
    );
}

#[tokio::test]
async fn a_member_says_its_pod_and_an_older_row_has_none() {
    let world = with_group().await;
    let mut joining = World::joining("g", "a", "s1");
    joining.pod = "default/worker-7";
    assert!(matches!(
        world.joined(&joining).await,
        Joined::Member { .. }
    ));
    world.join("g", "b", &[]).await;
    let mut pull = World::joining("g", "c", "s3");
    pull.kind = Kind::Pull;
    world.joined(&pull).await;
    let key = world.shard.group("g", GroupKey::Members);
    for (consumer, row) in [
        ("d", "s4 1 stream gw 4 7 cuda 30000"),
        ("e", "s5 1 stream gw 4 7 -"),
        ("f", "not a member"),
    ] {
        let _: i64 = world.redis(&["HSET", &key, consumer, row]).await;
    }
    let found = demand(&world, &["g"]).await;
    let pods: Vec<(&str, &str)> = found["g"]
        .members
        .iter()
        .map(|member| (&*member.consumer, &*member.pod))
        .collect();
    let none = ["b", "c", "d", "e"].map(|consumer| (consumer, ""));
    assert_eq!(pods[0], ("a", "default/worker-7"));
    assert_eq!(pods[1..], none);
    assert_eq!((found["g"].consumers, found["g"].slots), (6, 20));
    let member = world.store.member(&world.shard, "g", "a").await;
    let member = member.expect("member").expect("a member");
    assert_eq!(
        (&*member.pod, member.lease_ms),
        ("default/worker-7", 30_000)
    );
}

#[tokio::test]
async fn what_each_consumer_holds_is_counted_over_all_lanes_without_the_places() {
    let world = with_group().await;
    let lanes = world.lanes("g").await;
    let none = world.store.held_counts("g", &lanes).await;
    assert_eq!(none.expect("counts"), BTreeMap::new());
    world.add("g/p4", &["a", "b", "c"]).await;
    world.add("/p9", &["d", "e"]).await;
    let (a, b) = (
        world.join("g", "a", &[]).await,
        world.join("g", "b", &[]).await,
    );
    let taken = world.take("g", &a, 4).await;
    world.take("g", &b, 1).await;
    world.settle("g", &a, &taken[0], nack(None)).await;
    let lanes = world.lanes("g").await;
    let counts = world.store.held_counts("g", &lanes).await;
    let wanted = BTreeMap::from([("a".to_owned(), 3), ("b".to_owned(), 1)]);
    assert_eq!(counts.expect("counts"), wanted);
}

#[tokio::test]
async fn no_groups_have_no_demand() {
    let world = world().await;
    assert_eq!(demand(&world, &[]).await, BTreeMap::new());
}

/// Groups of the measurement, each on a stream of its own.
const GROUPS: usize = 1_000;
/// Consumers of each.
const CONSUMERS: usize = 10;

/// A thousand groups with ten consumers each are asked about once a second: Redis has a core for
/// more than that.
#[tokio::test]
#[expect(clippy::print_stdout, reason = "what each command costs")]
async fn the_demand_of_a_thousand_groups_costs_redis_little() {
    let server = RedisServer::start().await.expect("a server");
    let world = on(Arc::new(server)).await;
    let namespace = namespace(&world);
    let mut definitions = Vec::with_capacity(GROUPS);
    for number in 0..GROUPS {
        let name = format!("group-{number}");
        let mut definition = World::definition(&name, Start::Earliest);
        definition.stream = format!("stream-{number}");
        let shard = world.store.shard(namespace, &definition.stream, 0);
        world
            .store
            .create_on_shard(&shard, &definition)
            .await
            .expect("create");
        fill(&world, &shard, &name).await;
        definitions.push(definition);
    }
    let groups: Vec<&GroupDefinition> = definitions.iter().collect();
    let before = spent(&world).await;
    let rounds = 5;
    let began = Instant::now();
    for _ in 0..rounds {
        let found = world.store.demand(namespace, &groups).await;
        let found = found.expect("demand");
        let group = &found["group-7"];
        assert_eq!((group.waiting, group.leased), (2, 2));
        assert_eq!((found.len(), group.consumers), (GROUPS, 10));
    }
    let took = began.elapsed() / rounds;
    let (calls, all) = spent(&world).await;
    println!("a round of {GROUPS} groups: {took:?}");
    let ms = (all - before.1) * 1_000.0 / f64::from(rounds);
    println!("  {ms:.1} ms of Redis' processor time");
    for (name, (count, us)) in calls {
        let (count_before, us_before) = before.0.get(&name).copied().unwrap_or_default();
        if count > count_before {
            let count = (count - count_before) / u64::from(rounds);
            let us = (us - us_before) / u64::from(rounds);
            println!("  {name}: {count} calls, {us} us");
        }
    }
    // Well above what it costs, for builds and machines of any speed.
    assert!(ms < 300.0, "{ms} ms a round");
}

/// Members, something waiting in two lanes, and something leased.
async fn fill(world: &World, shard: &Shard, group: &str) {
    let mut pipeline = Pipeline::new();
    for consumer in 0..CONSUMERS {
        pipeline
            .cmd("HSET")
            .arg(shard.group(group, GroupKey::Members))
            .arg(format!("worker-{consumer}"))
            .arg(format!(
                "0123456789abcdef01234567 1 stream 01234567-89ab-cdef-0123-456789abcdef 4 \
                 1700000000000 cuda,rust 30000 default/worker-{consumer}"
            ));
    }
    for minute in 0..6 {
        for name in ["minute", "acked", "failed", "work"] {
            pipeline
                .cmd("HSET")
                .arg(shard.group(group, GroupKey::Counters))
                .arg(format!("{name}{minute}"))
                .arg(1_000);
        }
    }
    pipeline
        .query_async::<()>(&mut world.raw.clone())
        .await
        .expect("filled");
    let own = format!("{group}/p4");
    let flush = Flush {
        number: 1,
        incarnation: "gw".into(),
        max_backlog: 1_000,
        max_backlog_bytes: 1 << 30,
        buffer_without_groups: false,
        groups: vec![group.to_owned()],
        items: vec![
            item("/p4", "a"),
            item("/p4", "b"),
            item(&own, "c"),
            item(&own, "d"),
        ],
        durable: false,
    };
    let flushed = world.store.publish(shard, &flush).await.expect("publish");
    assert_eq!(flushed, Flushed::Done(vec![Outcome::Added; 4]));
    for lane in ["/p4", &own] {
        let stream = shard.lane(&lane.parse().expect("a lane"));
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(group).arg("worker-1");
        read.arg("COUNT").arg(1).arg("STREAMS").arg(stream).arg(">");
        let _: redis::Value = read
            .query_async(&mut world.raw.clone())
            .await
            .expect("read");
    }
}

/// Calls and time in us of each command, and the processor's time of the server in seconds.
async fn spent(world: &World) -> (BTreeMap<String, (u64, u64)>, f64) {
    let text: String = world.redis(&["INFO", "commandstats"]).await;
    let mut calls = BTreeMap::new();
    for line in text.lines() {
        let Some((name, values)) = line.split_once(':') else {
            continue;
        };
        let number = |wanted: &str| {
            let mut fields = values.split(',').filter_map(|field| field.split_once('='));
            let found = fields.find(|(name, _)| *name == wanted);
            found.and_then(|(_, value)| value.parse().ok())
        };
        if let (Some(count), Some(us)) = (number("calls"), number("usec")) {
            calls.insert(name.to_owned(), (count, us));
        }
    }
    let text: String = world.redis(&["INFO", "cpu"]).await;
    let cpu = text.lines().filter_map(|line| line.split_once(':'));
    let used = cpu.filter(|(name, _)| ["used_cpu_sys", "used_cpu_user"].contains(name));
    let used = used.filter_map(|(_, seconds)| seconds.trim().parse::<f64>().ok());
    (calls, used.sum())
}
