//! Not before, and not after.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use hive_client::{Job, Outcome, message, wire};
use hive_protocol::time::to_timestamp;
use hive_testkit::{redis::Aof, wait};
use parking_lot::Mutex;

use crate::{
    fleet::{Agent, Fleet, PATIENCE, Seen},
    member::{Member, join},
};

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is after 1970");
    u64::try_from(now.as_millis()).expect("it is before the year 500,000,000")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_message_comes_at_its_time() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 1).await?;
    fleet.group("later", wire::GroupSettings::default()).await?;
    let came: Arc<Mutex<BTreeMap<String, u64>>> = Arc::default();
    let noted = came.clone();
    let work = move |job: Job| {
        noted.lock().insert(job.message.message_id, now_ms());
        async { Outcome::done() }
    };
    let agent = Agent::working(fleet.client(0)?, "later", "a", work, |builder| builder);
    fleet.members("later", 1).await?;
    let start = now_ms();
    let mut due = BTreeMap::new();
    for n in 0..20_u64 {
        let at = start + 1_000 + n * 100;
        let one = wire::Message {
            not_before: Some(to_timestamp(at.into())),
            ..message("t", "")
        };
        due.insert(fleet.publish("later", one).await?.message_id, at);
    }
    assert!(fleet.figures("later").await?.scheduled_count > 10);
    fleet.drained("later").await?;
    let came = came.lock().clone();
    assert_eq!(came.len(), due.len());
    let mut late: Vec<u64> = due
        .iter()
        .map(|(id, at)| came[id].checked_sub(*at).expect("never before its time"))
        .collect();
    late.sort_unstable();
    // The median: other programs share the machine with this test.
    assert!(late[10] <= 200 && late[19] <= 2_000, "late by {late:?} ms");
    agent.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_past_its_time_goes_to_the_dead_letters() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 1).await?;
    fleet.group("hurry", wire::GroupSettings::default()).await?;
    let brief = |payload: &str| wire::Message {
        expires_at: Some(to_timestamp((now_ms() + 700).into())),
        ..message("t", payload.to_owned())
    };
    fleet.publish("hurry", brief("for any")).await?;
    let nobody = wire::Message {
        to_agent: "nobody".into(),
        ..brief("for nobody")
    };
    fleet.publish("hurry", nobody).await?;
    let dead = fleet.dead_letters_come(2).await?;
    let mut categories: Vec<&str> = dead.iter().map(|letter| letter.category.as_str()).collect();
    categories.sort_unstable();
    assert_eq!(categories, ["expired", "no_capable_consumer"]);
    fleet.drained("hurry").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_past_its_time_is_never_delivered() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    fleet.group("hurry", wire::GroupSettings::default()).await?;
    let one = wire::Message {
        expires_at: Some(to_timestamp((now_ms() + 200).into())),
        ..message("t", "")
    };
    fleet.publish("hurry", one).await?;
    let end = now_ms() + 300;
    wait::until(PATIENCE, "its time to pass", || async { now_ms() > end }).await;
    let seen = Seen::default();
    let agent = Agent::acking(fleet.client(0)?, "hurry", "a", &seen, |builder| builder);
    let dead = fleet.dead_letters_come(1).await?;
    assert_eq!((dead[0].category.as_str(), seen.messages()), ("expired", 0));
    agent.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_go_on_without_a_coordinator() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    fleet
        .group("stubborn", wire::GroupSettings::default())
        .await?;
    let work = move |job: Job| async move {
        if job.attempt == 1 {
            return Outcome::Nack {
                failure: "not now".into(),
                delay: Some(Duration::from_millis(300)),
            };
        }
        Outcome::done()
    };
    let agent = Agent::working(fleet.client(0)?, "stubborn", "a", work, |builder| builder);
    fleet.publish("stubborn", message("t", "")).await?;
    let figures = fleet.drained("stubborn").await?;
    assert_eq!((figures.failed_total, figures.acked_total), (1, 1));
    agent.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_without_heartbeats_ends_and_its_message_comes_again() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    let settings = wire::GroupSettings {
        lease: Some(hive_protocol::time::to_duration(1_000)),
        ..wire::GroupSettings::default()
    };
    fleet.group("hung", settings).await?;
    let client = fleet.client(0)?;
    let mut hung = Member::join(&client, 0, join("hung", "hung")).await?;
    fleet.publish("hung", message("t", "")).await?;
    hung.credit(1).await?;
    let first = hung.deliveries(1).await?;
    let taken = std::time::Instant::now();
    let mut other = Member::join(&client, 0, join("hung", "other")).await?;
    other.credit(1).await?;
    let again = other.deliveries(1).await?;
    assert!(
        taken.elapsed() >= Duration::from_millis(900),
        "{:?}",
        taken.elapsed()
    );
    assert!(
        taken.elapsed() < Duration::from_secs(5),
        "{:?}",
        taken.elapsed()
    );
    assert_eq!(again[0].attempt, 2);
    assert_eq!(hung.cancelled().await?.leases, [first[0].lease.clone()]);
    Ok(())
}
