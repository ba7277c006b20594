//! What daemons tell of groups to whoever scrapes them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use hive_client::{Job, Outcome, message, wire};
use hive_testkit::{daemon::Daemon, redis::Aof, wait};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::fleet::{Agent, Fleet, PATIENCE};

/// The series of a daemon: name with labels -> value.
async fn scrape(daemon: &Daemon) -> Result<BTreeMap<String, f64>> {
    let mut connection = TcpStream::connect(daemon.admin()).await?;
    let request = "GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    connection.write_all(request.as_bytes()).await?;
    let mut page = String::new();
    connection.read_to_string(&mut page).await?;
    let (_, body) = page.split_once("\r\n\r\n").context("a body")?;
    let series = body.lines().filter(|line| line.starts_with("hive_"));
    series
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').context("a value")?;
            Ok((name.to_owned(), value.parse()?))
        })
        .collect()
}

/// What the coordinators tell of a group, by metric.
async fn of_group(fleet: &Fleet, group: &str) -> Result<BTreeMap<String, f64>> {
    let mut found = BTreeMap::new();
    let labels = format!("{{namespace=\"default\",group=\"{group}\"}}");
    for coordinator in &fleet.coordinators {
        for (name, value) in scrape(coordinator).await? {
            if let Some(metric) = name.strip_suffix(&labels) {
                found.insert(metric.trim_start_matches("hive_group_").to_owned(), value);
            }
        }
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_of_a_group_are_told_by_its_owner_and_go_with_it() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 2).await?;
    fleet.group("idle", wire::GroupSettings::default()).await?;
    let settings = wire::GroupSettings {
        max_attempts: Some(1),
        ..wire::GroupSettings::default()
    };
    fleet.group("busy", settings).await?;
    for number in 0..10 {
        let text = if number < 2 { "bad" } else { "good" };
        fleet.publish("busy", message("job", text)).await?;
    }
    let judge = async |job: Job| {
        if &*job.message.payload == b"bad" {
            Outcome::reject("it is bad")
        } else {
            Outcome::ack("")
        }
    };
    let agent = Agent::working(fleet.client(0)?, "busy", "a", judge, |builder| builder);
    let expected = [
        ("consumers", 1.0),
        ("lag", 0.0),
        ("pending", 0.0),
        ("ready", 0.0),
        ("delayed", 0.0),
        ("oldest_waiting_seconds", 0.0),
        ("published_total", 10.0),
        ("delivered_total", 10.0),
        ("acked_total", 8.0),
        ("dead_total", 2.0),
        ("redelivered_total", 0.0),
        ("recovered_total", 0.0),
    ];
    wait::try_until(PATIENCE, "the figures of the group", || async {
        let found = of_group(&fleet, "busy").await?;
        for (metric, value) in expected {
            ensure!(found.get(metric) == Some(&value), "{metric}: {found:?}");
        }
        // Nobody scales it.
        ensure!(!found.contains_key("desired_consumers"), "{found:?}");
        anyhow::Ok(())
    })
    .await?;
    let idle = of_group(&fleet, "idle").await?;
    assert_eq!(idle.get("published_total"), Some(&0.0), "{idle:?}");
    for coordinator in &fleet.coordinators {
        let redis = scrape(coordinator).await?;
        let used = redis.get("hive_redis_memory_used_bytes");
        ensure!(used.is_some_and(|used| *used > 100_000.0), "{used:?}");
    }
    agent.stop().await?;
    let client = fleet.client(0)?;
    let request = wire::DeleteGroupRequest {
        name: "busy".into(),
        force: true,
    };
    client.delete_group(request).await?;
    wait::try_until(PATIENCE, "no figures of a group that is gone", || async {
        let found = of_group(&fleet, "busy").await?;
        ensure!(found.is_empty(), "{found:?}");
        anyhow::Ok(())
    })
    .await?;
    ensure!(!of_group(&fleet, "idle").await?.is_empty());
    Ok(())
}
