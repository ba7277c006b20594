//! The machine fails under a daemon or under Redis: a process that is stopped and goes on, a clock
//! that jumps, a disk that is slow or full.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hive_client::{FaultKind, Reason, Target, message, wire};
use hive_testkit::{
    history::{
        Action, Damage, Event, Loss, Publish, PublishAnswer, SettleAnswer, Target as Hit,
        payload_hash,
    },
    redis::{Aof, RedisServer},
    wait,
};
use tokio::time::sleep;

use crate::{
    crew::{self, Agent},
    hand::{Hand, Taken},
    load::{self, Load, named, publish_plain},
    world::{PATIENCE, Victim, World, settings, terms},
};

const GROUP: &str = "workers";
const LEASE: Duration = Duration::from_secs(3);
const GRACE: Duration = Duration::from_secs(1);
/// How far clocks jump, in ms.
const HOUR_MS: i64 = 3_600_000;

fn began(world: &World, name: &str, target: Hit, damage: Damage) {
    world.log.record(Event::FaultBegan {
        name: name.into(),
        target,
        damage,
    });
}

fn ended(world: &World, name: &str) {
    world.log.record(Event::FaultEnded { name: name.into() });
}

/// Messages of these names, stored.
async fn publish(world: &World, gateway: usize, names: &[&str]) -> Result<()> {
    let target = (&Target::group(GROUP), [GROUP].as_slice());
    let named = named(names.iter().map(|name| (*name).to_owned()));
    publish_plain(&world.client(gateway)?, &world.log, target, named).await;
    Ok(())
}

fn load(world: &World, gateway: usize) -> Result<Load> {
    let spec = load::Spec {
        number: 0,
        target: Target::group(GROUP),
        groups: vec![GROUP.into()],
        rate: 200,
        seed: 6,
    };
    Ok(Load::start(world.client(gateway)?, &world.log, spec))
}

fn agent(world: &World, gateway: usize, id: &str) -> Agent {
    let spec = crew::Spec {
        group: GROUP.into(),
        id: id.into(),
        urls: world.urls(gateway),
        concurrency: 8,
        work: Duration::from_millis(20),
        lease: LEASE,
        is_moody: false,
    };
    Agent::start(&world.log, spec)
}

/// An agent that holds one message.
async fn holder(world: &World, gateway: usize, id: &str) -> Result<(Hand, Taken)> {
    let mut hand = Hand::join(&world.log, &world.url(gateway), (GROUP, id)).await?;
    hand.credit(1).await?;
    let taken = hand.take_one().await?;
    Ok((hand, taken))
}

#[tokio::test(flavor = "multi_thread")]
async fn another_coordinator_goes_on_where_one_is_stopped_and_it_does_no_harm_later() -> Result<()>
{
    let mut world = World::start(RedisServer::builder().aof(Aof::Everysec), 2, 2).await?;
    world.group(GROUP, settings(LEASE, GRACE)).await?;
    // One of the two looks after the shard, and it is not asked which.
    for number in 0..2 {
        let id = format!("silent-{number}");
        publish(&world, 0, &[&id]).await?;
        let (hand, held) = holder(&world, 0, &id).await?;
        let name = format!("coordinator {number}");
        began(&world, &name, Hit::Daemon, Damage::Stopped);
        world.coordinators[number].sigstop()?;
        // Nobody is left who could say that the agent is gone but the other coordinator.
        world.kill(Victim::Gateway(0))?;
        hand.note_loss(Loss::Killed);
        drop(hand);
        let begun = Instant::now();
        let mut heir = Hand::join(&world.log, &world.url(1), (GROUP, "heir")).await?;
        heir.credit(1).await?;
        let again = heir.take_one().await?;
        assert_eq!(again.message.message_id, held.message.message_id);
        let waited = begun.elapsed();
        ensure!(waited < Duration::from_secs(20), "{waited:?}");
        world.coordinators[number].sigcont()?;
        ended(&world, &name);
        // The one that slept believes that it is still the owner; what it does harms nobody.
        for _ in 0..4 {
            heir.beat(&[&again]).await?;
            sleep(LEASE / 3).await;
        }
        assert_eq!(heir.settle(&again, Action::Ack).await, SettleAnswer::Ok);
        heir.note_loss(Loss::Killed);
        drop(heir);
        world.revive(Victim::Gateway(0)).await?;
    }
    world.drained(&[GROUP], PATIENCE).await?;
    world.verdict(&[GROUP], &terms(LEASE)).await?.assert_clean();
    Ok(())
}

/// A gateway, a coordinator and a Redis whose clock can be moved.
async fn under_a_clock(ahead_ms: i64) -> Result<World> {
    let redis = RedisServer::builder().aof(Aof::Everysec).shimmed();
    let mut world = World::start(redis, 0, 0).await?;
    world.redis.set_clock(ahead_ms)?;
    world.add_gateway(&world.redis.url(), &[]).await?;
    let coordinator = hive_testkit::daemon::Daemon::coordinator(&world.redis.url()).await?;
    world.coordinators.push(coordinator);
    world.group(GROUP, settings(LEASE, GRACE)).await?;
    // That a clock jumped is known by the time that was noted before.
    wait::try_until(PATIENCE, "the time to be noted", || async {
        let clocks = world.redis("KEYS *:clock").await?;
        ensure!(clocks.contains(":clock"), "{clocks}");
        Ok(())
    })
    .await?;
    Ok(world)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_ends_no_lease_of_an_agent_at_work() -> Result<()> {
    let world = under_a_clock(0).await?;
    publish(&world, 0, &["held"]).await?;
    let (mut hand, held) = holder(&world, 0, "a").await?;
    hand.beat(&[&held]).await?;
    let load = load(&world, 0)?;
    let others = agent(&world, 0, "b");
    for ahead in [HOUR_MS, 0, 60_000, -HOUR_MS, 0] {
        began(&world, "clock", Hit::Redis, Damage::Stopped);
        world.redis.set_clock(ahead)?;
        // Longer than a lease: who would end it for the jump has done so.
        for _ in 0..4 {
            sleep(LEASE / 3).await;
            hand.beat(&[&held]).await?;
        }
        ended(&world, "clock");
    }
    assert_eq!(hand.settle(&held, Action::Ack).await, SettleAnswer::Ok);
    load.stop().await?;
    world.drained(&[GROUP], PATIENCE).await?;
    others.stop().await?;
    let figures = world.figures(GROUP).await?;
    assert_eq!((figures.failed_total, figures.dead_total), (0, 0));
    world.verdict(&[GROUP], &terms(LEASE)).await?.assert_clean();
    Ok(())
}

/// An agent hangs and a retry waits while the clock jumps; both go on in their time.
async fn recovers_after_a_jump_to(ahead_ms: i64) -> Result<()> {
    let world = under_a_clock(0).await?;
    publish(&world, 0, &["hung"]).await?;
    let (hand, _held) = holder(&world, 0, "hangs").await?;
    publish(&world, 0, &["retried"]).await?;
    let (mut fails, failed) = holder(&world, 0, "fails").await?;
    assert_eq!(fails.settle(&failed, Action::Nack).await, SettleAnswer::Ok);
    world.redis.set_clock(ahead_ms)?;
    hand.note_loss(Loss::Stopped);
    let begun = Instant::now();
    let mut heir = Hand::join(&world.log, &world.url(0), (GROUP, "heir")).await?;
    assert_eq!(heir.ack_all(2, Duration::from_secs(20)).await?, 2);
    // A lease from the jump on, the rest of the one that ran, and the time of a sweep.
    let waited = begun.elapsed();
    assert!(waited < LEASE * 2 + Duration::from_secs(5), "{waited:?}");
    drop(hand);
    world.drained(&[GROUP], PATIENCE).await
}

#[tokio::test(flavor = "multi_thread")]
async fn work_is_recovered_soon_after_the_clock_jumped_back() -> Result<()> {
    recovers_after_a_jump_to(-HOUR_MS).await
}

#[tokio::test(flavor = "multi_thread")]
async fn work_is_recovered_soon_after_the_clock_jumped_ahead() -> Result<()> {
    recovers_after_a_jump_to(HOUR_MS).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_a_message_is_too_old_is_judged_by_the_clock_of_redis() -> Result<()> {
    // An hour behind the machine's, which is the gateway's.
    let world = under_a_clock(-HOUR_MS).await?;
    let expires_ms = now_ms() + 2_000;
    let request = wire::PublishRequest {
        group: GROUP.into(),
        message: Some(wire::Message {
            message_id: "alive".into(),
            expires_at: Some(hive_protocol::time::to_timestamp(expires_ms.into())),
            ..message("task", "")
        }),
        ..wire::PublishRequest::default()
    };
    world.client(0)?.publish(request).await?;
    // By the gateway's own clock it is over then, and by Redis' it has an hour.
    sleep(Duration::from_secs(4)).await;
    let mut hand = Hand::join(&world.log, &world.url(0), (GROUP, "a")).await?;
    hand.credit(1).await?;
    let taken = hand.take(1, Duration::from_secs(5)).await?;
    let ids: Vec<&str> = taken
        .iter()
        .map(|one| one.message.message_id.as_str())
        .collect();
    assert_eq!(ids, ["alive"]);
    Ok(())
}

fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_refuses_work_and_loses_none() -> Result<()> {
    let redis = RedisServer::builder().aof(Aof::Everysec).shimmed();
    let mut world = World::start(redis, 1, 1).await?;
    world.group(GROUP, settings(LEASE, GRACE)).await?;
    let load = load(&world, 0)?;
    let worker = agent(&world, 0, "a");
    wait::try_until(PATIENCE, "work to flow", || async {
        ensure!(world.figures(GROUP).await?.acked_total > 100);
        Ok(())
    })
    .await?;
    began(&world, "disk", Hit::Redis, Damage::Full);
    world.redis.set_full(true)?;
    let probes = std::sync::atomic::AtomicU32::new(0);
    let refused = wait::try_until(PATIENCE, "a refusal", || async {
        let number = probes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let id = format!("probe-{number}");
        let call = world.log.publish_called(Publish {
            message: id.as_str().into(),
            groups: vec![GROUP.into()],
            payload: payload_hash(b"probe"),
            ..Publish::default()
        });
        let request = wire::PublishRequest {
            group: GROUP.into(),
            message: Some(wire::Message {
                // With a key the call is safe to repeat, and the answer says so.
                idempotency_key: id.clone(),
                message_id: id.clone(),
                ..message("task", "probe")
            }),
            ..wire::PublishRequest::default()
        };
        let mut door = world.client(0)?.gateway().messaging();
        match door.publish(request).await {
            Ok(_) => {
                let stored = PublishAnswer::Stored(id.into());
                world.log.publish_answered(call, stored);
                anyhow::bail!("it is stored")
            },
            Err(status) => {
                world.log.publish_answered(call, PublishAnswer::Unknown);
                Ok(hive_client::Fault::from(status))
            },
        }
    })
    .await?;
    assert_eq!(
        (refused.kind, refused.reason),
        (FaultKind::Unavailable, Reason::RedisUnavailable)
    );
    assert!(refused.retry_after.is_some());
    sleep(Duration::from_secs(5)).await;
    let full = world.figures(GROUP).await?;
    world.redis.set_full(false)?;
    ended(&world, "disk");
    let back = Instant::now();
    wait::try_until(PATIENCE, "work to flow again", || async {
        let figures = world.figures(GROUP).await?;
        ensure!(figures.acked_total > full.acked_total + 100, "{figures:?}");
        Ok(())
    })
    .await?;
    let resumed = back.elapsed();
    assert!(resumed < Duration::from_secs(10), "{resumed:?}");
    load.stop().await?;
    world.drained(&[GROUP], PATIENCE).await?;
    worker.stop().await?;
    // And what was acknowledged behind the fault is on the disk.
    sleep(Duration::from_secs(2)).await;
    world.kill(Victim::Redis)?;
    world.revive(Victim::Redis).await?;
    world.drained(&[GROUP], PATIENCE).await?;
    world.verdict(&[GROUP], &terms(LEASE)).await?.assert_clean();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_slow_delays_answers_and_costs_nothing() -> Result<()> {
    let redis = RedisServer::builder().aof(Aof::Always).shimmed();
    let world = World::start(redis, 1, 1).await?;
    let lease = Duration::from_secs(10);
    world.group(GROUP, settings(lease, GRACE)).await?;
    let load = load(&world, 0)?;
    let worker = agent(&world, 0, "a");
    for takes in [200, 1_500, 4_000] {
        began(&world, "disk", Hit::Redis, Damage::Stopped);
        world.redis.set_sync(Duration::from_millis(takes))?;
        sleep(Duration::from_secs(6)).await;
        world.redis.set_sync(Duration::ZERO)?;
        ended(&world, "disk");
        let before = world.figures(GROUP).await.context("figures again")?;
        wait::try_until(PATIENCE, "work to flow again", || async {
            let figures = world.figures(GROUP).await?;
            ensure!(figures.acked_total > before.acked_total + 50, "{figures:?}");
            Ok(())
        })
        .await?;
    }
    load.stop().await?;
    world.drained(&[GROUP], PATIENCE).await?;
    worker.stop().await?;
    world.verdict(&[GROUP], &terms(lease)).await?.assert_clean();
    Ok(())
}
