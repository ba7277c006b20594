//! The coordinator as a process on a real Redis: what the lost held goes to the living, in time.

mod daemon;
mod replay;
mod tidy;
mod world;

use std::time::Duration;

use hive_domain::group::GroupState;
use hive_domain::stream::StreamSettings;
use hive_store::Lane;
use hive_store::members::Kind;
use hive_store::settle::{Action, Verdict};
use hive_testkit::redis::{Aof, RedisServer};
use hive_testkit::wait::until;
use tokio::time::Instant;

use crate::world::{GROUP, NAMESPACE, World, coordinator, define, lease, nack};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test]
async fn what_a_hung_consumer_held_is_ready_within_its_lease_and_a_second() {
    let mut world = World::new(lease(1_000), StreamSettings::default()).await;
    world.publish(3, Lane::plain(4), 0).await;
    let _coordinator = coordinator(&world.redis, &[]).await;
    let hung = world.join("hung", Kind::Pull, "-").await;
    assert_eq!(world.fetch(&hung, 3).await.len(), 3);
    until(seconds(2), "the entries of the hung consumer", async || {
        world.figures().await.ready == 3
    })
    .await;
    let figures = world.figures().await;
    // Only what it worked on counts; the two that it had not begun do not.
    assert_eq!(
        (figures.failed, figures.released, figures.expired),
        (1, 2, 3)
    );
    let other = world.join("other", Kind::Pull, "-").await;
    assert_eq!(world.fetch(&other, 3).await.len(), 3);
}

#[tokio::test]
async fn a_member_keeps_the_lease_that_it_was_told_also_after_a_hand_over() {
    let mut world = World::new(lease(30_000), StreamSettings::default()).await;
    world.publish(2, Lane::plain(4), 0).await;
    let old = world.join("old", Kind::Stream, "gw").await;
    assert_eq!(world.fetch(&old, 1).await.len(), 1);
    let mut group = world.store.group(NAMESPACE, GROUP).await.unwrap().unwrap();
    group.settings.lease_ms = 1_000;
    world.store.put_group(NAMESPACE, &group).await.unwrap();
    let new = world.join("new", Kind::Stream, "gw").await;
    assert_eq!(world.fetch(&new, 1).await.len(), 1);
    // This coordinator never saw the longer lease.
    let _coordinator = coordinator(&world.redis, &[]).await;
    until(seconds(5), "the new member's entry", async || {
        world.figures().await.ready == 1
    })
    .await;
    let lanes = world.lanes().await;
    let held = world.store.held_by(GROUP, &lanes, "old").await.unwrap();
    assert_eq!(held.len(), 1);
}

#[tokio::test]
async fn deliveries_that_expire_later_are_not_counted_a_second_time() {
    let mut world = World::new(lease(1_500), StreamSettings::default()).await;
    world.publish(2, Lane::plain(4), 0).await;
    let _coordinator = coordinator(&world.redis, &[]).await;
    let hung = world.join("hung", Kind::Pull, "-").await;
    assert_eq!(world.fetch(&hung, 1).await.len(), 1);
    // The second delivery comes about a sweep after the first, and expires so much later.
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(world.fetch(&hung, 1).await.len(), 1);
    until(seconds(5), "both entries to be ready", async || {
        world.figures().await.ready == 2
    })
    .await;
    let figures = world.figures().await;
    assert_eq!((figures.failed, figures.released), (1, 1));
}

#[tokio::test]
async fn what_a_stranger_holds_is_given_back_at_once_and_uncounted() {
    let mut world = World::new(lease(30_000), StreamSettings::default()).await;
    world.publish(2, Lane::plain(4), 0).await;
    let _coordinator = coordinator(&world.redis, &[]).await;
    let gone = world.join("gone", Kind::Pull, "-").await;
    assert_eq!(world.fetch(&gone, 2).await.len(), 2);
    let (lanes, who) = (world.lanes().await, ("gone", "*", 0));
    world
        .store
        .leave(&world.shard, GROUP, &lanes, who)
        .await
        .unwrap();
    until(seconds(3), "the entries of the stranger", async || {
        world.figures().await.ready == 2
    })
    .await;
    assert_eq!(world.figures().await.failed, 0);
}

#[tokio::test]
async fn a_dead_gateway_loses_its_consumers_uncounted_within_12_seconds() {
    let mut world = World::new(lease(30_000), StreamSettings::default()).await;
    world.publish(2, Lane::plain(4), 0).await;
    let _coordinator = coordinator(&world.redis, &[]).await;
    let victim = world.join("victim", Kind::Stream, "dead").await;
    let healthy = world.join("healthy", Kind::Stream, "alive").await;
    let beat = async |gateway| {
        let beat = world.store.tick(&world.shard, 30_000, Some(gateway)).await;
        beat.unwrap();
    };
    assert_eq!(world.fetch(&victim, 1).await.len(), 1);
    assert_eq!(world.fetch(&healthy, 1).await.len(), 1);
    beat("dead").await;
    until(seconds(12), "the victim to be given up", async || {
        beat("alive").await;
        let members = world.store.members(&world.shard, GROUP).await.unwrap();
        members.len() == 1 && members[0].consumer == "healthy"
    })
    .await;
    let figures = world.figures().await;
    assert_eq!((figures.ready, figures.leased, figures.failed), (1, 1, 0));
}

#[tokio::test]
async fn a_delayed_message_is_due_within_100_ms() {
    let mut world = World::new(lease(30_000), StreamSettings::default()).await;
    world.publish(1, Lane::plain(4), 0).await;
    let _coordinator = coordinator(&world.redis, &[]).await;
    let agent = world.join("a", Kind::Pull, "-").await;
    // The best of several: the machine that runs the tests does other work as well.
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let leases = world.fetch(&agent, 1).await;
        let nacked = Instant::now();
        let verdicts = world.settle(&agent, &leases, nack(300)).await;
        if verdicts == [Verdict::Dead] {
            break;
        }
        assert_eq!(verdicts, [Verdict::Done]);
        until(seconds(5), "the delayed message", async || {
            world.figures().await.ready == 1
        })
        .await;
        best = best.min(nacked.elapsed());
    }
    assert!(best >= Duration::from_millis(295), "{best:?} is too early");
    assert!(best < Duration::from_millis(450), "{best:?} is too late");
}

#[tokio::test]
async fn a_backoff_is_no_longer_for_a_clock_that_went_back() {
    let mut world = World::new(lease(30_000), StreamSettings::default()).await;
    world.publish(1, Lane::plain(4), 0).await;
    let agent = world.join("a", Kind::Pull, "-").await;
    let leases = world.fetch(&agent, 1).await;
    world.settle(&agent, &leases, nack(592_000)).await;
    // As if all this had been written by a clock that was 590 s ahead.
    let ahead = world.figures().await.now_ms + 590_000;
    let noted = format!("HSET {} last_ms {ahead}", world.shard.clock());
    assert_eq!(world.raw(&noted).await, ":1");
    let _coordinator = coordinator(&world.redis, &[]).await;
    until(seconds(10), "the backoff to be over", async || {
        world.figures().await.ready == 1
    })
    .await;
}

#[tokio::test]
async fn a_scheduled_message_comes_when_its_delay_is_over() {
    let mut world = World::new(lease(30_000), StreamSettings::default()).await;
    world.publish(1, Lane::plain(4), 0).await;
    let _coordinator = coordinator(&world.redis, &[]).await;
    let now_ms = world.figures().await.now_ms;
    world.publish_at(1, Lane::plain(7), 0, now_ms + 1_000).await;
    assert_eq!(world.figures().await.scheduled, 1);
    until(seconds(5), "the scheduled message", async || {
        world.figures().await.waiting == 2
    })
    .await;
    assert!(world.figures().await.now_ms >= now_ms + 1_000);
    assert_eq!(world.figures().await.scheduled, 0);
}

#[tokio::test]
async fn a_second_coordinator_takes_over_within_5_seconds_of_kill_9() {
    let redis = RedisServer::start().await.unwrap();
    let mut world = World::on(redis, "s0", lease(1_000), StreamSettings::default()).await;
    let mut coordinators = [
        coordinator(&world.redis, &[]).await,
        coordinator(&world.redis, &[]).await,
    ];
    // A shard that the killed one owned, and one that it did not, with near certainty.
    let mut shards = vec![world.shard.clone()];
    for number in 1..10 {
        let (stream, group) = (format!("s{number}"), format!("g{number}"));
        let limits = StreamSettings::default();
        let definition = define(
            &world.store,
            (&stream, limits),
            (&group, lease(1_000)),
            GroupState::Active,
        )
        .await;
        let shard = world.store.shard(NAMESPACE, &stream, 0);
        world
            .store
            .create_on_shard(&shard, &definition)
            .await
            .unwrap();
        shards.push(shard);
    }
    until(seconds(5), "both to own shards", async || {
        let mut owned = Vec::new();
        for coordinator in &coordinators {
            let gauge = world::metric(coordinator, "hive_coordinator_owned_shards").await;
            owned.push(gauge.unwrap_or_default());
        }
        owned.iter().all(|owned| *owned > 0.0) && (owned.iter().sum::<f64>() - 10.0).abs() < 0.1
    })
    .await;
    world.publish(1, Lane::plain(4), 0).await;
    coordinators[0].kill9().unwrap();
    let killed = Instant::now();
    until(seconds(5), "the other to own all shards", async || {
        let owned = world::metric(&coordinators[1], "hive_coordinator_owned_shards").await;
        owned.is_some_and(|owned| (owned - 10.0).abs() < 0.1)
    })
    .await;
    assert!(killed.elapsed() < seconds(5));
    let hung = world.join("hung", Kind::Pull, "-").await;
    assert_eq!(world.fetch(&hung, 1).await.len(), 1);
    until(seconds(2), "the hung consumer's entry", async || {
        world.figures().await.ready == 1
    })
    .await;
}

#[tokio::test]
async fn a_restart_of_redis_expires_no_healthy_lease() {
    let redis = RedisServer::builder().aof(Aof::Always).start().await;
    let stream = StreamSettings::default();
    let mut world = World::on(redis.unwrap(), "work", lease(2_000), stream).await;
    world.publish(1, Lane::plain(4), 0).await;
    let daemon = coordinator(&world.redis, &[]).await;
    let agent = world.join("a", Kind::Pull, "-").await;
    let leases = world.fetch(&agent, 1).await;
    assert_eq!(leases.len(), 1);
    world.redis.kill9().unwrap();
    // Longer than the lease: without a grace the first sweep would take the entry.
    tokio::time::sleep(seconds(3)).await;
    world.restart_redis().await;
    let back = Instant::now();
    until(
        seconds(3),
        "the coordinator to be ready again",
        async || {
            world::admin(&daemon, "/readyz")
                .await
                .starts_with("HTTP/1.1 200")
        },
    )
    .await;
    until(seconds(3), "two sweeps after the restart", async || {
        back.elapsed() > Duration::from_millis(1_200)
    })
    .await;
    let figures = world.figures().await;
    assert_eq!((figures.leased, figures.expired), (1, 0));
    let verdicts = world.settle(&agent, &leases, Action::Ack).await;
    assert_eq!(verdicts, [Verdict::Done]);
}

#[tokio::test]
async fn the_lease_of_a_silent_consumer_ends_after_the_grace() {
    let redis = RedisServer::builder().aof(Aof::Always).start().await;
    let stream = StreamSettings::default();
    let mut world = World::on(redis.unwrap(), "work", lease(1_000), stream).await;
    world.publish(1, Lane::plain(4), 0).await;
    let _coordinator = coordinator(&world.redis, &[]).await;
    let agent = world.join("a", Kind::Pull, "-").await;
    assert_eq!(world.fetch(&agent, 1).await.len(), 1);
    world.restart_redis().await;
    until(seconds(8), "the entry to be ready", async || {
        world.figures().await.ready == 1
    })
    .await;
    assert_eq!(world.figures().await.failed, 1);
}
