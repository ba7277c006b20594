//! What a gateway counts of outcomes.

use anyhow::{Context as _, Result, ensure};
use hive_client::{message, wire};
use hive_testkit::{redis::Aof, wait};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use wire::{SettleStatus, outcome::Action};

use crate::{
    fleet::{Fleet, PATIENCE},
    member::{Member, ack, join, outcome, verdicts},
};

/// One sample of the gateway's metrics; 0 where it is not there yet.
async fn sample(fleet: &Fleet, name: &str) -> Result<u64> {
    let admin = fleet.gateways.first().context("a gateway")?.admin();
    let mut connection = TcpStream::connect(admin).await?;
    let request = "GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    connection.write_all(request.as_bytes()).await?;
    let mut page = String::new();
    connection.read_to_string(&mut page).await?;
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    Ok(line.map_or(Ok(0), |value| value.trim().parse())?)
}

#[tokio::test(flavor = "multi_thread")]
async fn outcomes_of_streams_are_counted_by_every_verdict() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    fleet.group("g", wire::GroupSettings::default()).await?;
    fleet.publish("g", message("t", "")).await?;
    let mut member = Member::join(&fleet.client(0)?, 0, join("g", "a")).await?;
    member.credit(1).await?;
    let held = member.deliveries(1).await?;
    let bad = wire::Reject {
        category: "no name".into(),
        ..wire::Reject::default()
    };
    let outcomes = vec![
        outcome("no lease", Action::Ack(wire::Ack::default())),
        outcome(&held[0].lease, Action::Reject(bad)),
        outcome(&held[0].lease, Action::Extend(wire::Extend {})),
        ack(&held[0]),
        ack(&held[0]),
    ];
    let answer = member.settle(outcomes).await?;
    let [unknown, invalid, _, _, _] = verdicts(&answer)[..] else {
        panic!("one verdict per outcome: {answer:?}");
    };
    assert_eq!(unknown, SettleStatus::UnknownLease);
    assert_eq!(invalid, SettleStatus::Invalid);
    for verdict in ["unknown_lease", "invalid", "gone"] {
        let name = format!("hive_gateway_settles_total{{verdict=\"{verdict}\"}}");
        wait::try_until(PATIENCE, &name, || async {
            let count = sample(&fleet, &name).await?;
            ensure!(count >= 1, "{count}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_consumer_had_settled_when_it_left_is_not_counted_as_given_back() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    fleet.group("g", wire::GroupSettings::default()).await?;
    for _ in 0..2 {
        fleet.publish("g", message("t", "")).await?;
    }
    let mut member = Member::join(&fleet.client(0)?, 0, join("g", "a")).await?;
    member.credit(2).await?;
    let held = member.deliveries(2).await?;
    // By the other way in: its connection still counts it as held.
    let settled = fleet.settle("g", vec![ack(&held[0])]).await?;
    assert_eq!(settled, [SettleStatus::Ok]);
    member.leave().await?;
    fleet.members("g", 0).await?;
    let name = "hive_gateway_deliveries_given_back_total{reason=\"left\"}";
    wait::try_until(PATIENCE, name, || async {
        let count = sample(&fleet, name).await?;
        ensure!(count == 1, "{count}");
        Ok(())
    })
    .await?;
    Ok(())
}
