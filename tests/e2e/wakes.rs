//! What wakes a gateway for work that no publish announces.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use hive_client::{Job, Outcome, Publisher, Target, message, wire};
use hive_protocol::time::to_duration;
use hive_testkit::{redis::Aof, wait};
use parking_lot::Mutex;

use crate::{
    fleet::{Agent, Fleet, PATIENCE},
    member::{Member, ack, join, text_of},
};

/// A backlog of one ordering key.
const BACKLOG: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn the_backlog_of_an_ordering_key_needs_no_poll_for_each_message() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    fleet.group("g", wire::GroupSettings::default()).await?;
    for number in 0..BACKLOG {
        let made = wire::Message {
            ordering_key: "k".into(),
            ..message("t", number.to_string())
        };
        fleet.publish("g", made).await?;
    }
    let mut member = Member::join(&fleet.client(0)?, 0, join("g", "a")).await?;
    // All credit at once: no grant wakes the gateway later.
    member.credit(u32::try_from(BACKLOG)?).await?;
    let begun = Instant::now();
    for number in 0..BACKLOG {
        let next = member.deliveries(1).await?;
        assert_eq!(text_of(&next[0])?, number.to_string());
        member.settle(vec![ack(&next[0])]).await?;
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_not_put_off_by_a_flood() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    let settings = wire::GroupSettings {
        initial_backoff: Some(to_duration(500)),
        max_backoff: Some(to_duration(500)),
        ..wire::GroupSettings::default()
    };
    fleet.group("g", settings).await?;
    let tries: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let seen = tries.clone();
    let work = move |job: Job| {
        let is_first = job.message.message_type == "retried" && {
            let mut tries = seen.lock();
            tries.push(Instant::now());
            tries.len() == 1
        };
        async move {
            if is_first {
                return Outcome::nack("the first try fails");
            }
            Outcome::done()
        }
    };
    let agent = Agent::working(fleet.client(0)?, "g", "a", work, |builder| {
        builder.concurrency(64).max_in_flight(512)
    });
    // Without a pause, so that bells and grants never stop.
    let over = Arc::new(AtomicBool::new(false));
    let flood = {
        let publisher = Publisher::new(&fleet.client(0)?, Target::group("g"));
        let over = over.clone();
        async move {
            while !over.load(Ordering::Relaxed) {
                let some = (0..100).map(|_| message("flood", ""));
                for receipt in publisher.publish_all(some).await {
                    receipt?;
                }
            }
            anyhow::Ok(())
        }
    };
    let watched = async {
        // In the midst of it.
        wait::try_until(PATIENCE, "the flood to flow", || async {
            let figures = fleet.figures("g").await?;
            anyhow::ensure!(figures.acked_total > 500, "{figures:?}");
            Ok(())
        })
        .await?;
        fleet.publish("g", message("retried", "")).await?;
        let again = wait::try_until(Duration::from_secs(10), "the retry", || async {
            anyhow::ensure!(tries.lock().len() > 1, "it was tried once");
            Ok(())
        })
        .await;
        over.store(true, Ordering::Relaxed);
        again?;
        anyhow::Ok(())
    };
    let (flooded, watched) = tokio::join!(flood, watched);
    flooded?;
    watched?;
    let tries = tries.lock().clone();
    let waited = tries.get(1).context("a retry")?.duration_since(tries[0]);
    assert!(waited < Duration::from_secs(4), "{waited:?}");
    agent.stop().await
}
