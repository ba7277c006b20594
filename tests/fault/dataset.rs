//! Redis loses the data that the daemons knew: nothing goes on by itself, and an operator is told
//! what to do.

use std::{
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use hive_client::{Fault, FaultKind, Reason, Target, message, wire};
use hive_testkit::{
    daemon::Daemon,
    program::{Program, binary},
    redis::RedisServer,
    wait,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    crew::{self, Agent},
    hand,
    load::{named, publish_plain},
    world::{PATIENCE, Victim, World, settings},
};

const GROUP: &str = "workers";
const LEASE: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_secs(1);
/// Within this time of a loss nobody takes work any more.
const NOTICED: Duration = Duration::from_secs(2);

/// A page of a daemon's admin port, status line and headers included.
/// A page of a daemon's admin port, with its head.
pub(crate) async fn page(daemon: &Daemon, path: &str) -> Result<String> {
    let mut connection = TcpStream::connect(daemon.admin()).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn is_ready(daemon: &Daemon) -> Result<bool> {
    Ok(page(daemon, "/readyz").await?.starts_with("HTTP/1.1 200"))
}

fn daemons(world: &World) -> impl Iterator<Item = &Daemon> {
    world.gateways.iter().chain(&world.coordinators)
}

/// One call to one gateway, not repeated.
async fn publish_once(world: &World, gateway: usize) -> Result<(), Fault> {
    let client = world.client(gateway);
    let client = client.map_err(|error| Fault::bug(error.to_string()))?;
    let request = wire::PublishRequest {
        group: GROUP.into(),
        message: Some(message("task", "lost?")),
        ..wire::PublishRequest::default()
    };
    let answer = client.gateway().messaging().publish(request).await;
    answer.map(drop).map_err(Fault::from)
}

fn doctor(world: &World, more: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary("hive")?);
    command.args(["doctor", "--url", &world.urls(0), "-o", "json"]);
    Ok(command.args(more).env_remove("HIVE_REDIS_URL").output()?)
}

/// What a gateway remembers, and whether it knows of a loss.
async fn looked(world: &World, gateway: usize) -> Result<wire::AcceptLossResponse> {
    let client = hive_client::Client::new(&world.url(gateway))?;
    let request = wire::AcceptLossRequest { look_only: true };
    Ok(client.accept_loss(request).await?)
}

fn worker_of(world: &World) -> Agent {
    let spec = crew::Spec {
        group: GROUP.into(),
        id: "a".into(),
        urls: world.urls(0),
        concurrency: 4,
        work: Duration::from_millis(5),
        lease: LEASE,
        is_moody: false,
    };
    Agent::start(&world.log, spec)
}

/// Waits until every daemon has noticed the loss, and looks at what each says of it.
async fn stopped(world: &World) -> Result<()> {
    for gateway in 0..world.gateways.len() {
        wait::try_until(NOTICED, "publishes to be refused", || async {
            let fault = publish_once(world, gateway).await;
            let fault = fault.err().context("it was accepted")?;
            ensure!(fault.reason == Reason::DatasetChanged, "{fault}");
            ensure!(fault.kind == FaultKind::Unavailable && fault.retry_after.is_some());
            let advice = "hive doctor --accept-loss";
            ensure!(fault.message.contains(advice), "{fault}");
            Ok(())
        })
        .await?;
    }
    for daemon in daemons(world) {
        wait::try_until(NOTICED, "readiness to be false", || async {
            ensure!(!is_ready(daemon).await?);
            let metrics = page(daemon, "/metrics").await?;
            ensure!(metrics.contains("\nhive_dataset_changed 1"));
            Ok(())
        })
        .await?;
        ensure!(page(daemon, "/livez").await?.starts_with("HTTP/1.1 200"));
        let told = daemon.log_tail().matches("dataset_changed").count();
        ensure!(told == 1, "told {told} times: {}", daemon.log_tail());
    }
    Ok(())
}

/// Waits until every daemon goes on.
async fn serving(world: &World) -> Result<()> {
    for daemon in daemons(world) {
        wait::try_until(NOTICED, "readiness to be true", || async {
            ensure!(is_ready(daemon).await?);
            let metrics = page(daemon, "/metrics").await?;
            ensure!(metrics.contains("\nhive_dataset_changed 0"));
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_empty_takes_nothing() -> Result<()> {
    let mut world = World::start(RedisServer::builder(), 1, 1).await?;
    world.group(GROUP, settings(LEASE, GRACE)).await?;
    wait::try_until(PATIENCE, "the gateway to remember", || async {
        let seen = looked(&world, 0).await?;
        ensure!(seen.groups.len() == 1, "{seen:?}");
        Ok(())
    })
    .await?;
    world.kill(Victim::Redis)?;
    world.revive(Victim::Redis).await?;
    // From the first answer on: the connection that finds the empty Redis shows the loss.
    wait::try_until(PATIENCE, "an answer about the data", || async {
        let fault = publish_once(&world, 0).await.err();
        let fault = fault.context("it was accepted")?;
        let is_away = fault.reason == Reason::RedisUnavailable;
        ensure!(
            !is_away && fault.reason != Reason::OutcomeUnknown,
            "{fault}"
        );
        assert_eq!(fault.reason, Reason::DatasetChanged, "{fault}");
        Ok(())
    })
    .await?;
    stopped(&world).await?;
    let done = doctor(&world, &["--accept-loss", "--yes"])?;
    ensure!(done.status.success(), "{done:?}");
    serving(&world).await?;
    publish_once(&world, 0).await?;
    ensure!(world.figures(GROUP).await?.lag == 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_data_stops_all_daemons_until_an_operator_accepts_it() -> Result<()> {
    let mut world = World::start(RedisServer::builder(), 2, 1).await?;
    world.group(GROUP, settings(LEASE, GRACE)).await?;
    world.group("paused", settings(LEASE, GRACE)).await?;
    world.client(0)?.pause_group("paused").await?;
    let target = (&Target::group(GROUP), [GROUP].as_slice());
    let agent = worker_of(&world);
    let client = world.client(0)?;
    publish_plain(&client, &world.log, target, named(["before".into()])).await;
    world.drained(&[GROUP], PATIENCE).await?;
    for gateway in 0..2 {
        wait::try_until(PATIENCE, "the gateways to remember", || async {
            let seen = looked(&world, gateway).await?;
            ensure!(seen.groups.len() == 2 && seen.loss.is_empty(), "{seen:?}");
            Ok(())
        })
        .await?;
    }

    world.redis("FLUSHALL").await?;
    let lost = Instant::now();
    stopped(&world).await?;
    ensure!(lost.elapsed() < 2 * NOTICED, "{:?}", lost.elapsed());
    // One that starts now remembers nothing, and must not take the empty Redis for a new one.
    let url = world.redis.url();
    let environment = [
        ("HIVE_REDIS_URL", url.as_str()),
        ("HIVE_SERVER_LISTEN", "127.0.0.1:0"),
        ("HIVE_ADMIN_LISTEN", "127.0.0.1:0"),
    ];
    let newcomer = Program::start("hive-gateway", &[], environment)?;
    wait::try_until(PATIENCE, "the newcomer to stop too", || async {
        ensure!(newcomer.log_tail().contains("dataset_changed"));
        Ok(())
    })
    .await?;

    let seen = doctor(&world, &[])?;
    let said = String::from_utf8_lossy(&seen.stdout).into_owned();
    ensure!(seen.status.code() == Some(1), "{seen:?}");
    ensure!(
        said.contains("\"trouble\"") && said.contains("--accept-loss"),
        "{said}"
    );
    let unsure = doctor(&world, &["--accept-loss"])?;
    ensure!(unsure.status.code() == Some(64), "{unsure:?}");
    ensure!(publish_once(&world, 0).await.is_err(), "nothing changed");

    let done = doctor(&world, &["--accept-loss", "--yes"])?;
    ensure!(done.status.success(), "{done:?}");
    let done: serde_json::Value = serde_json::from_slice(&done.stdout)?;
    let groups = serde_json::json!(["default/paused", "default/workers"]);
    assert_eq!(
        (&done["accepted"], &done["groups"]),
        (&true.into(), &groups)
    );
    serving(&world).await?;
    publish_plain(&client, &world.log, target, named(["after".into()])).await;
    world.drained(&[GROUP], PATIENCE).await?;
    ensure!(world.figures(GROUP).await?.acked_total == 1, "it worked on");
    let paused = client.get_group("paused").await?;
    let health = paused.figures.clone().unwrap_or_default().health;
    ensure!(health == "paused", "{paused:?}");
    let again = doctor(&world, &["--accept-loss", "--yes"])?;
    let said = String::from_utf8_lossy(&again.stdout).into_owned();
    ensure!(
        again.status.success() && said.contains("\"accepted\": false"),
        "{said}"
    );
    agent.stop().await?;
    // A daemon that was started anew knows the new data.
    world.kill(Victim::Gateway(0))?;
    world.revive(Victim::Gateway(0)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_stream_ends_at_once_when_the_data_is_another() -> Result<()> {
    let world = World::start(RedisServer::builder(), 1, 0).await?;
    world.group(GROUP, settings(LEASE, GRACE)).await?;
    let client = world.client(0)?;
    let join = wire::Join {
        group: GROUP.into(),
        consumer_id: "idle".into(),
        ..wire::Join::default()
    };
    // It asks for nothing, so nothing but the gateway can tell it.
    let mut link = hand::join(client.gateway(), join).await?;
    world.redis("FLUSHALL").await?;
    let told = async {
        loop {
            match link.answers.message().await {
                Ok(Some(_)) => {},
                Ok(None) => anyhow::bail!("the stream ended without a fault"),
                Err(status) => return Ok(Fault::from(status)),
            }
        }
    };
    let fault = tokio::time::timeout(NOTICED * 2, told).await;
    let fault = fault.context("the stream goes on")??;
    assert_eq!(fault.reason, Reason::DatasetChanged, "{fault:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_what_is_wrong_with_a_redis() -> Result<()> {
    let builder = RedisServer::builder().option("--maxmemory-policy", "allkeys-lru");
    let redis = builder.start().await?;
    let nobody = "http://127.0.0.1:9";
    let mut command = Command::new(binary("hive")?);
    command.args(["doctor", "--url", nobody, "-o", "json"]);
    let seen = command.args(["--redis-url", &redis.url()]).output()?;
    ensure!(seen.status.code() == Some(69), "{seen:?}");
    let findings: Vec<serde_json::Value> = serde_json::from_slice(&seen.stdout)?;
    let of = |words: &str| {
        let is_it = |finding: &&serde_json::Value| {
            finding["finding"]
                .as_str()
                .is_some_and(|it| it.contains(words))
        };
        let found = findings.iter().find(is_it);
        found.with_context(|| format!("nothing of `{words}` in {findings:?}"))
    };
    let eviction = of("eviction: maxmemory-policy `allkeys-lru`")?;
    assert_eq!(eviction["level"], "trouble");
    assert_eq!(eviction["advice"], "set `maxmemory-policy noeviction`");
    assert_eq!(of("no append-only file")?["level"], "note");
    assert_eq!(of("clock: ")?["level"], "well");
    Ok(())
}
