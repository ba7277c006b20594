//! Fetch and Settle: agents without streams.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hive_client::{FaultKind, Publisher, Reason, Target, message, wire};
use hive_protocol::time::to_duration;
use hive_store::Lease;
use hive_testkit::{
    proxy::{FaultProxy, Mode},
    redis::Aof,
};
use wire::SettleStatus;

use crate::{
    fleet::Fleet,
    member::{Member, ack, join, outcome, text_of},
};

fn fetch(max_messages: u32, wait_ms: u64) -> wire::FetchRequest {
    wire::FetchRequest {
        group: "pulled".into(),
        consumer_id: "puller".into(),
        max_messages,
        wait: Some(to_duration(wait_ms)),
        ..wire::FetchRequest::default()
    }
}

async fn fleet(gateways: usize) -> Result<Fleet> {
    let fleet = Fleet::start(Aof::Off, gateways, 0).await?;
    fleet
        .group("pulled", wire::GroupSettings::default())
        .await?;
    Ok(fleet)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_waits_for_the_first_message_and_no_longer_than_asked() -> Result<()> {
    let fleet = fleet(2).await?;
    let client = fleet.client(0)?;
    let start = Instant::now();
    assert_eq!(client.fetch(fetch(5, 600)).await?.deliveries, []);
    let waited = start.elapsed();
    assert!(waited >= Duration::from_millis(600), "{waited:?}");
    assert!(waited < Duration::from_secs(3), "{waited:?}");
    let other = fleet.client(1)?;
    let publish = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let request = wire::PublishRequest {
            group: "pulled".into(),
            message: Some(message("t", "hello")),
            ..wire::PublishRequest::default()
        };
        other.publish(request).await
    };
    let start = Instant::now();
    let (fetched, published) = tokio::join!(client.fetch(fetch(5, 20_000)), publish);
    published?;
    let deliveries = fetched?.deliveries;
    assert_eq!(
        text_of(deliveries.first().context("one message")?)?,
        "hello"
    );
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(
        fleet.settle("pulled", vec![ack(&deliveries[0])]).await?,
        [SettleStatus::Ok]
    );
    fleet.drained("pulled").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_id_answers_the_same_deliveries() -> Result<()> {
    let fleet = fleet(1).await?;
    for n in 0..4 {
        fleet.publish("pulled", message("t", n.to_string())).await?;
    }
    let client = fleet.client(0)?;
    let asked = |id: &str| wire::FetchRequest {
        request_id: id.into(),
        ..fetch(2, 0)
    };
    let first = client.fetch(asked("one")).await?;
    assert_eq!(first.deliveries.len(), 2);
    assert_eq!(client.fetch(asked("one")).await?, first);
    let second = client.fetch(asked("two")).await?;
    assert_eq!(second.deliveries.len(), 2);
    let all = first
        .deliveries
        .iter()
        .chain(&second.deliveries)
        .map(ack)
        .collect();
    assert_eq!(fleet.settle("pulled", all).await?, [SettleStatus::Ok; 4]);
    fleet.drained("pulled").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_again_while_its_first_call_waits_gets_what_that_one_got() -> Result<()> {
    let fleet = fleet(1).await?;
    let line = FaultProxy::start(fleet.gateways[0].listen()).await?;
    let unheard = hive_client::Client::new(&line.url())?;
    let client = fleet.client(0)?;
    let asked = wire::FetchRequest {
        request_id: "one".into(),
        ..fetch(1, 15_000)
    };
    let mut door = unheard.gateway().messaging();
    let request = asked.clone();
    let first = async {
        if let Ok(heard) = door.fetch(request).await {
            panic!("the line is dead: {heard:?}");
        }
        std::future::pending::<()>().await;
    };
    let again = async {
        fleet.members("pulled", 1).await?;
        // Its line dies, and nobody tells the gateway.
        line.set(Mode::HalfOpen);
        let publish = async {
            // The call that asks again is on its way or there: either way it gets the same.
            tokio::time::sleep(Duration::from_millis(300)).await;
            fleet.publish("pulled", message("t", "m")).await?;
            anyhow::Ok(Instant::now())
        };
        let (answer, published) = tokio::join!(client.fetch(asked.clone()), publish);
        let waited = published?.elapsed();
        assert!(waited < Duration::from_secs(3), "{waited:?}");
        anyhow::Ok(answer?.deliveries)
    };
    let taken = tokio::select! {
        () = first => return Ok(()),
        taken = again => taken?,
    };
    assert_eq!(text_of(taken.first().context("one message")?)?, "m");
    // It is what is remembered, and the one thing that is leased.
    fleet.publish("pulled", message("t", "n")).await?;
    assert_eq!(client.fetch(asked).await?.deliveries, taken);
    assert_eq!(fleet.figures("pulled").await?.pending_count, 1);
    let settled = fleet.settle("pulled", vec![ack(&taken[0])]).await?;
    assert_eq!(settled, [SettleStatus::Ok]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_calls_with_one_request_id_share_one_answer() -> Result<()> {
    let fleet = fleet(1).await?;
    let client = fleet.client(0)?;
    let asked = wire::FetchRequest {
        request_id: "one".into(),
        ..fetch(1, 4_000)
    };
    let publish = async {
        fleet.members("pulled", 1).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        for text in ["m", "n"] {
            fleet.publish("pulled", message("t", text)).await?;
        }
        anyhow::Ok(())
    };
    let (first, second, published) = tokio::join!(
        client.fetch(asked.clone()),
        client.fetch(asked.clone()),
        publish
    );
    published?;
    let first = first?;
    assert_eq!(first.deliveries.len(), 1);
    assert_eq!(first, second?);
    assert_eq!(fleet.figures("pulled").await?.pending_count, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_streams_cannot_fetch_under_the_same_name() -> Result<()> {
    let fleet = fleet(1).await?;
    let client = fleet.client(0)?;
    let _streaming = Member::join(&client, 0, join("pulled", "puller")).await?;
    let refused = client
        .fetch(fetch(1, 0))
        .await
        .expect_err("the name is taken");
    assert_eq!(refused.fault().reason, Reason::Fenced);
    assert_eq!(refused.fault().kind, FaultKind::Fenced);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_forged_or_late_tokens_are_all_refused() -> Result<()> {
    let fleet = fleet(1).await?;
    let publisher = Publisher::new(&fleet.client(0)?, Target::group("pulled"));
    for receipt in publisher
        .publish_all((0..100).map(|n| message("t", n.to_string())))
        .await
    {
        receipt?;
    }
    let held = fleet.fetch_all("pulled", "puller", 100).await?;
    assert_eq!(held.len(), 100);
    // The first half is given back and taken again: their first tokens are late ones.
    let release = |one: &wire::Delivery| {
        outcome(
            &one.lease,
            wire::outcome::Action::Release(wire::Release::default()),
        )
    };
    fleet
        .settle("pulled", held[..50].iter().map(release).collect())
        .await?;
    let again = fleet.fetch_all("pulled", "puller", 50).await?;
    let leases = held.iter().map(|one| one.lease.parse::<Lease>());
    let leases = leases.collect::<Result<Vec<_>, _>>()?;
    let forge = |number: usize| {
        let mut lease = leases[number % 100].clone();
        match number / 100 % 5 {
            // Late, where it was taken again; else guesses of the session.
            0 if number % 100 < 50 => {},
            0 | 1 => lease.session = format!("{:024x}", number + 1).into(),
            2 => lease.count += 1 + number as u64,
            3 => lease.consumer = "somebody".into(),
            _ => lease.id = format!("{}-{number}", 1_600_000_000_000_u64 + number as u64),
        }
        outcome(
            &lease.to_string(),
            wire::outcome::Action::Ack(wire::Ack::default()),
        )
    };
    let client = fleet.client(0)?;
    let mut refused = 0;
    for batch in 0..100 {
        let request = wire::SettleRequest {
            group: "pulled".into(),
            outcomes: (batch * 1_000..(batch + 1) * 1_000).map(forge).collect(),
        };
        for result in client.settle(request).await?.results {
            assert_ne!(result.status(), SettleStatus::Ok, "{}", result.lease);
            assert_ne!(result.status(), SettleStatus::Invalid, "{}", result.error);
            refused += 1;
        }
    }
    assert_eq!(refused, 100_000);
    let figures = fleet.figures("pulled").await?;
    assert_eq!((figures.pending_count, figures.acked_total), (100, 0));
    let mine = held[50..].iter().chain(&again).map(ack).collect();
    assert_eq!(fleet.settle("pulled", mine).await?, [SettleStatus::Ok; 100]);
    fleet.drained("pulled").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_registers_again_is_told_what_it_holds() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    fleet.group("g", wire::GroupSettings::default()).await?;
    let add = async || {
        let request = wire::AddConsumerRequest {
            group: "g".into(),
            consumer_id: "puller".into(),
            ..wire::AddConsumerRequest::default()
        };
        let added = fleet.client(0)?.add_consumer(request).await?.consumer;
        anyhow::Ok(added.context("a member")?.in_flight)
    };
    assert_eq!(add().await?, 0);
    for n in 0..3 {
        fleet.publish("g", message("t", n.to_string())).await?;
    }
    fleet.fetch_all("g", "puller", 3).await?;
    assert_eq!(add().await?, 3);
    Ok(())
}
