//! Deliveries that nobody hears: their caller or their connection went away.

use std::time::{Duration, Instant};

use anyhow::Result;
use hive_client::{Client, message, wire};
use hive_protocol::time::to_duration;
use hive_testkit::{
    proxy::{FaultProxy, Mode},
    redis::Aof,
    wait,
};

use crate::{
    fleet::{Fleet, PATIENCE},
    member::{Member, join},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_fetched_for_a_caller_who_hung_up_goes_back_at_once() -> Result<()> {
    let mut fleet = Fleet::start(Aof::Off, 1, 0).await?;
    fleet.group("g", wire::GroupSettings::default()).await?;
    // The consumer is a member, so that its next fetch is one script.
    assert!(
        fleet
            .client(0)?
            .fetch(fetch("gone", 0))
            .await?
            .deliveries
            .is_empty()
    );
    fleet.publish("g", message("t", "")).await?;
    fleet.redis.pause()?;
    // Without a request id: nobody can ask for the same deliveries again.
    let mut door = fleet.client(0)?.gateway().messaging();
    let hung_up = tokio::time::timeout(Duration::from_millis(300), door.fetch(fetch("gone", 0)));
    assert!(hung_up.await.is_err(), "Redis does not answer");
    fleet.redis.resume()?;
    let asked = Instant::now();
    let taken = fleet
        .client(0)?
        .fetch(fetch("other", 10_000))
        .await?
        .deliveries;
    assert_eq!(taken.len(), 1, "{:?}", asked.elapsed());
    assert_eq!(taken[0].attempt, 1, "it was given back uncounted");
    Ok(())
}

fn fetch(consumer: &str, wait_ms: u64) -> wire::FetchRequest {
    wire::FetchRequest {
        group: "g".into(),
        consumer_id: consumer.into(),
        max_messages: 1,
        wait: Some(to_duration(wait_ms)),
        ..wire::FetchRequest::default()
    }
}

/// More frames than a gateway lets gather before it stops to read.
const FRAMES: usize = 400;

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_dies_behind_a_full_queue_gives_everything_back() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    let settings = wire::GroupSettings {
        reconnect_grace: Some(to_duration(0)),
        ..wire::GroupSettings::default()
    };
    fleet.group("g", settings).await?;
    let line = FaultProxy::start(fleet.gateways[0].listen()).await?;
    let member = Member::join(&Client::new(&line.url())?, 0, join("g", "dies")).await?;
    member.credit(1_000).await?;
    fleet.members("g", 1).await?;
    // It reads nothing any more, and what it is sent is more than its connection holds.
    line.set(Mode::HalfOpen);
    for number in 1..=FRAMES as u64 {
        fleet.publish("g", message("t", vec![b'x'; 8_000])).await?;
        // One by one, so that each is a frame of its own.
        wait::try_until(PATIENCE, "the delivery", || async {
            let figures = fleet.figures("g").await?;
            anyhow::ensure!(figures.pending_count == number, "{figures:?}");
            Ok(())
        })
        .await?;
    }
    // The gateway looks at its queue when it would send a keep-alive, every 5 s; from then on it
    // does not read its client's frames, nor sees them end.
    tokio::time::sleep(Duration::from_secs(6)).await;
    line.set(Mode::Refuse);
    drop(member);
    let mut heir = Member::join(&fleet.client(0)?, 0, join("g", "heir")).await?;
    heir.credit(1_000).await?;
    let asked = Instant::now();
    assert_eq!(heir.deliveries(FRAMES).await?.len(), FRAMES);
    let waited = asked.elapsed();
    assert!(waited < Duration::from_secs(10), "{waited:?}");
    Ok(())
}
