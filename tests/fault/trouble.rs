//! A Redis that is full, away, or not fit to keep anything.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use hive_client::{Fault, FaultKind, Reason, Target, message, wire};
use hive_testkit::{
    history::{Damage, Event, Publish, PublishAnswer, Target as Hit, payload_hash},
    program::Program,
    redis::{Aof, RedisServer},
    wait,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    crew::{self, Agent},
    hand::Hand,
    load::{self, Load, named, publish_plain},
    world::{PATIENCE, Victim, World, settings, terms},
};

const GROUP: &str = "workers";
const LEASE: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_secs(3);
/// Of a message that soon fills a Redis.
const LARGE: usize = 100_000;

/// One call to one gateway, not repeated.
async fn publish_once(world: &World, gateway: usize, made: wire::Message) -> Result<(), Fault> {
    let client = world
        .client(gateway)
        .map_err(|error| Fault::bug(error.to_string()))?;
    let request = wire::PublishRequest {
        group: GROUP.into(),
        message: Some(made),
        ..wire::PublishRequest::default()
    };
    let answer = client.gateway().messaging().publish(request).await;
    answer.map(drop).map_err(Fault::from)
}

/// Status of a page of a daemon's admin port.
async fn status_of(address: std::net::SocketAddr, page: &str) -> Result<u16> {
    let mut connection = TcpStream::connect(address).await?;
    let request = format!("GET {page} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).context("a status line")?;
    Ok(status.parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_refuses_publishes_at_once_and_is_emptied() -> Result<()> {
    let world = World::start(RedisServer::builder().maxmemory("12mb"), 1, 1).await?;
    world.group(GROUP, settings(LEASE, GRACE)).await?;
    world.log.record(Event::FaultBegan {
        name: "full".into(),
        target: Hit::Redis,
        damage: Damage::Full,
    });
    let mut stored = 0;
    let refused = loop {
        let payload = Bytes::from(vec![b'x'; LARGE]);
        let mut made = message("task", payload.clone());
        made.message_id = format!("m{stored}");
        let call = world.log.publish_called(Publish {
            message: made.message_id.as_str().into(),
            groups: vec![GROUP.into()],
            payload: payload_hash(&payload),
            ..Publish::default()
        });
        let id = made.message_id.clone();
        match publish_once(&world, 0, made).await {
            Ok(()) => world
                .log
                .publish_answered(call, PublishAnswer::Stored(id.into())),
            Err(fault) => {
                world.log.publish_answered(call, PublishAnswer::Refused);
                break fault;
            },
        }
        stored += 1;
        ensure!(stored < 1_000, "it is never full");
    };
    assert_eq!(
        (refused.kind, refused.reason),
        (FaultKind::Saturated, Reason::RedisFull)
    );
    assert!(refused.retry_after.is_some());
    let asked = Instant::now();
    let again = publish_once(&world, 0, message("task", vec![b'x'; LARGE])).await;
    assert!(again.is_err());
    assert!(
        asked.elapsed() < Duration::from_millis(500),
        "{:?}",
        asked.elapsed()
    );
    // Fetches, beats and settles go on, so that it empties.
    let mut agent = Hand::join(&world.log, &world.url(0), (GROUP, "a")).await?;
    agent.credit(1).await?;
    let first = agent.take_one().await?;
    agent.beat(&[&first]).await?;
    let answer = agent
        .settle(&first, hive_testkit::history::Action::Ack)
        .await;
    assert_eq!(answer, hive_testkit::history::SettleAnswer::Ok);
    assert_eq!(agent.ack_all(stored - 1, PATIENCE).await?, stored - 1);
    // Settled messages stay for replay: an operator makes room by keeping less of them.
    let retention = wire::StreamSettings {
        retention_max_len: Some(1),
        ..wire::StreamSettings::default()
    };
    let shrink = wire::UpdateStreamRequest {
        name: crate::world::STREAM.into(),
        settings: Some(retention),
    };
    world.client(0)?.update_stream(shrink).await?;
    let last = std::sync::atomic::AtomicU32::new(0);
    wait::try_until(PATIENCE, "room for new work", || async {
        let number = last.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut made = message("task", "small");
        made.message_id = format!("after-{number}");
        let call = world.log.publish_called(Publish {
            message: made.message_id.as_str().into(),
            groups: vec![GROUP.into()],
            payload: payload_hash(b"small"),
            ..Publish::default()
        });
        let id = made.message_id.clone();
        let answer = publish_once(&world, 0, made).await;
        let noted = match &answer {
            Ok(()) => PublishAnswer::Stored(id.into()),
            Err(_) => PublishAnswer::Refused,
        };
        world.log.publish_answered(call, noted);
        answer
    })
    .await?;
    world.log.record(Event::FaultEnded {
        name: "full".into(),
    });
    agent.ack_all(1, PATIENCE).await?;
    world.verdict(&[GROUP], &terms(LEASE)).await?.assert_clean();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_away_is_waited_for_and_everything_resumes() -> Result<()> {
    let mut world = World::start(RedisServer::builder().aof(Aof::Always), 2, 1).await?;
    world.group(GROUP, settings(LEASE, GRACE)).await?;
    let agent = crew::Spec {
        group: GROUP.into(),
        id: "a".into(),
        urls: world.urls(0),
        concurrency: 4,
        work: Duration::from_millis(5),
        lease: LEASE,
        is_moody: false,
    };
    let agent = Agent::start(&world.log, agent);
    let target = (&Target::group(GROUP), [GROUP].as_slice());
    publish_plain(
        &world.client(0)?,
        &world.log,
        target,
        named(["before".into()]),
    )
    .await;
    world.drained(&[GROUP], PATIENCE).await?;
    world.kill(Victim::Redis)?;
    let asked = Instant::now();
    let mut made = message("task", "away");
    // With a key the call is safe to repeat, and the answer says so.
    made.idempotency_key = "away".into();
    let refused = publish_once(&world, 1, made)
        .await
        .err()
        .context("nobody can store it")?;
    let waited = asked.elapsed();
    assert_eq!(
        (refused.kind, refused.reason),
        (FaultKind::Unavailable, Reason::RedisUnavailable)
    );
    assert!(refused.retry_after.is_some());
    assert!(
        waited > Duration::from_secs(1) && waited < Duration::from_secs(6),
        "{waited:?}"
    );
    let admin = world.gateways.first().context("a gateway")?.admin();
    wait::try_until(PATIENCE, "readiness to be false", || async {
        let status = status_of(admin, "/readyz").await?;
        ensure!(status == 503, "{status}");
        Ok(())
    })
    .await?;
    assert_eq!(status_of(admin, "/livez").await?, 200);
    world.revive(Victim::Redis).await?;
    let back = Instant::now();
    publish_plain(
        &world.client(0)?,
        &world.log,
        target,
        named(["after".into()]),
    )
    .await;
    world.drained(&[GROUP], PATIENCE).await?;
    let resumed = back.elapsed();
    assert!(resumed < Duration::from_secs(3), "{resumed:?}");
    wait::try_until(PATIENCE, "readiness to be true", || async {
        let status = status_of(admin, "/readyz").await?;
        ensure!(status == 200, "{status}");
        Ok(())
    })
    .await?;
    // And under load it is as if nothing had been.
    let spec = load::Spec {
        number: 0,
        target: Target::group(GROUP),
        groups: vec![GROUP.into()],
        rate: 200,
        seed: 4,
    };
    let load = Load::start(world.client(0)?, &world.log, spec);
    wait::try_until(PATIENCE, "deliveries to go on", || async {
        ensure!(world.figures(GROUP).await?.acked_total > 100);
        Ok(())
    })
    .await?;
    load.stop().await?;
    world.drained(&[GROUP], PATIENCE).await?;
    agent.stop().await?;
    world.verdict(&[GROUP], &terms(LEASE)).await?.assert_clean();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_at_work_keeps_its_lease_while_redis_is_away() -> Result<()> {
    let mut world = World::start(RedisServer::builder().aof(Aof::Always), 1, 1).await?;
    let lease = Duration::from_secs(30);
    // Without a grace, whoever loses its connection loses its work at once.
    world.group(GROUP, settings(lease, Duration::ZERO)).await?;
    let target = (&Target::group(GROUP), [GROUP].as_slice());
    publish_plain(
        &world.client(0)?,
        &world.log,
        target,
        named(["long".into()]),
    )
    .await;
    let mut agent = Hand::join(&world.log, &world.url(0), (GROUP, "a")).await?;
    agent.credit(1).await?;
    let task = agent.take_one().await?;
    world.kill(Victim::Redis)?;
    // The gateway waits for Redis for 3 s before it knows that it cannot pass the beat on; the
    // second one is read only after that.
    agent.beat(&[&task]).await?;
    agent.beat(&[&task]).await?;
    let refused = publish_once(&world, 0, message("task", "away")).await;
    ensure!(refused.is_err(), "nobody can store it");
    world.revive(Victim::Redis).await?;
    let answer = agent
        .settle(&task, hive_testkit::history::Action::Ack)
        .await;
    assert_eq!(answer, hive_testkit::history::SettleAnswer::Ok);
    let figures = world.figures(GROUP).await?;
    assert_eq!((figures.acked_total, figures.failed_total), (1, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_sent_while_redis_is_away_is_taken_when_it_is_back() -> Result<()> {
    let mut world = World::start(RedisServer::builder().aof(Aof::Always), 1, 1).await?;
    // Without a grace, whoever loses its connection loses its work at once.
    let lease = Duration::from_secs(30);
    world.group(GROUP, settings(lease, Duration::ZERO)).await?;
    let target = (&Target::group(GROUP), [GROUP].as_slice());
    let client = world.client(0)?;
    publish_plain(&client, &world.log, target, named(["done".into()])).await;
    let mut agent = Hand::join(&world.log, &world.url(0), (GROUP, "a")).await?;
    agent.credit(1).await?;
    let task = agent.take_one().await?;
    world.kill(Victim::Redis)?;
    // Longer than a call waits for Redis, on the same stream.
    let back = async {
        tokio::time::sleep(Duration::from_secs(8)).await;
        world.revive(Victim::Redis).await
    };
    let ack = hive_testkit::history::Action::Ack;
    let (answer, revived) = tokio::join!(agent.settle(&task, ack), back);
    revived?;
    assert_eq!(answer, hive_testkit::history::SettleAnswer::Ok);
    world.drained(&[GROUP], PATIENCE).await?;
    let figures = world.figures(GROUP).await?;
    assert_eq!((figures.acked_total, figures.failed_total), (1, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_refuse_a_redis_that_may_delete_accepted_work() -> Result<()> {
    let redis = RedisServer::builder()
        .option("--maxmemory-policy", "allkeys-lru")
        .start()
        .await?;
    for name in ["hive-gateway", "hive-coordinator"] {
        let url = redis.url();
        let environment = [
            ("HIVE_REDIS_URL", url.as_str()),
            ("HIVE_SERVER_LISTEN", "127.0.0.1:0"),
            ("HIVE_ADMIN_LISTEN", "127.0.0.1:0"),
        ];
        let mut daemon = Program::start(name, &[], environment)?;
        daemon.wait_exit_code(1, PATIENCE).await?;
        let said = daemon.log_tail();
        for part in ["allkeys-lru", "set `maxmemory-policy noeviction`"] {
            ensure!(
                said.contains(part),
                "{name} says nothing of `{part}`:\n{said}"
            );
        }
    }
    Ok(())
}
