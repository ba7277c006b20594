//! A publisher follows its messages: their results, their ends, and what it cancels.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use hive_client::{CallError, Client, Job, Outcome, Publisher, Target, message, wire};
use hive_protocol::time::to_duration;
use hive_testkit::redis::Aof;
use tokio::sync::mpsc;
use wire::{SettleStatus, TrackedState, outcome::Action};

use crate::{
    fleet::{Agent, Fleet, PATIENCE},
    member::{Member, ack, join, nack, outcome},
};

/// How soon a publisher hears of an end: by what rings, not by its gateway's next look.
const TOLD_WITHIN: Duration = Duration::from_millis(500);
/// How soon an agent hears of a cancel.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

fn tracked(id: &str) -> wire::Message {
    wire::Message {
        message_id: id.into(),
        track: true,
        ..message("t", "do it")
    }
}

async fn look(client: &Client, id: &str, wait_ms: u64) -> Result<wire::TrackedMessage, CallError> {
    let request = wire::GetMessageRequest {
        message_id: id.into(),
        wait: Some(to_duration(wait_ms)),
        ..wire::GetMessageRequest::default()
    };
    let answer = client.get_message(request).await?;
    Ok(answer.message.unwrap_or_default())
}

async fn cancel(client: &Client, id: &str) -> Result<wire::TrackedMessage, CallError> {
    let request = wire::CancelMessageRequest {
        message_id: id.into(),
        group: "work".into(),
        reason: "not wanted".into(),
    };
    let answer = client.cancel_message(request).await?;
    Ok(answer.message.unwrap_or_default())
}

fn reason<T: std::fmt::Debug>(answer: Result<T, CallError>) -> String {
    match answer {
        Ok(answer) => panic!("{answer:?}"),
        Err(error) => error.to_string(),
    }
}

async fn quick(gateways: usize, coordinators: usize) -> Result<Fleet> {
    let fleet = Fleet::start(Aof::Off, gateways, coordinators).await?;
    let settings = wire::GroupSettings {
        initial_backoff: Some(to_duration(10)),
        max_backoff: Some(to_duration(20)),
        max_attempts: Some(2),
        reconnect_grace: Some(to_duration(0)),
        ..wire::GroupSettings::default()
    };
    fleet.group("work", settings).await?;
    Ok(fleet)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_gets_the_result_of_its_message_as_soon_as_there_is_one() -> Result<()> {
    // The publisher waits at another gateway than the agent works at.
    let fleet = quick(2, 0).await?;
    let (asker, publisher) = (fleet.client(1)?, fleet.client(0)?);
    fleet.publish("work", tracked("m")).await?;
    let seen = look(&asker, "m", 0).await?;
    assert_eq!((seen.state(), seen.attempts), (TrackedState::Waiting, 0));
    let waits = async {
        let end = look(&asker, "m", 20_000).await?;
        anyhow::Ok((end, Instant::now()))
    };
    let works = async {
        let taken = fleet.fetch_all("work", "a", 1).await?;
        let seen = look(&publisher, "m", 0).await?;
        assert_eq!((seen.state(), seen.attempts), (TrackedState::Leased, 1));
        assert_eq!(seen.consumer_id, "a");
        let done = Action::Ack(wire::Ack {
            result: Bytes::from_static(b"{\"answer\":42}"),
            ..wire::Ack::default()
        });
        let settled = Instant::now();
        let settle = fleet.settle("work", vec![outcome(&taken[0].lease, done)]);
        settle.await?;
        anyhow::Ok(settled)
    };
    let ((end, heard), settled) = tokio::try_join!(waits, works)?;
    assert!(heard - settled < TOLD_WITHIN, "{:?}", heard - settled);
    assert_eq!((end.state(), end.attempts), (TrackedState::Acked, 1));
    assert_eq!(end.result, "{\"answer\":42}");
    assert_eq!((end.consumer_id.as_str(), end.error.as_str()), ("a", ""));
    assert!(end.ended_at.is_some());
    fleet.drained("work").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_gives_results_of_tracked_messages_and_of_others_as_before() -> Result<()> {
    let fleet = quick(1, 0).await?;
    let work = |job: Job| async move {
        match job.message.message_type.as_str() {
            "large" => Outcome::ack(vec![b'x'; 70_000]),
            _ => Outcome::ack("result"),
        }
    };
    let agent = Agent::working(fleet.client(0)?, "work", "a", work, |worker| worker);
    let publisher = Publisher::new(&fleet.client(0)?, Target::group("work"));
    let large = wire::Message {
        message_type: "large".into(),
        ..tracked("large")
    };
    for one in [tracked("m"), large, message("plain", "")] {
        publisher.publish(one).await?;
    }
    let client = fleet.client(0)?;
    let end = look(&client, "m", 20_000).await?;
    assert_eq!(
        (end.state(), &*end.result),
        (TrackedState::Acked, &b"result"[..])
    );
    let end = look(&client, "large", 20_000).await?;
    assert_eq!((end.state(), &*end.result), (TrackedState::Acked, &b""[..]));
    assert!(end.error.contains("`70000` bytes"), "{}", end.error);
    let figures = fleet.drained("work").await?;
    assert_eq!(figures.acked_total, 3);
    agent.stop.cancel();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tracked_message_that_fails_says_how_often_and_why() -> Result<()> {
    let fleet = quick(1, 1).await?;
    let client = fleet.client(0)?;
    fleet.publish("work", tracked("m")).await?;
    for attempt in 1..=2 {
        let taken = fleet.fetch_all("work", "a", 1).await?;
        let why = format!("attempt {attempt} failed");
        fleet.settle("work", vec![nack(&taken[0], &why)]).await?;
        if attempt == 1 {
            let seen = look(&client, "m", 0).await?;
            assert!(matches!(seen.state(), TrackedState::Retrying), "{seen:?}");
            assert_eq!(seen.attempts, 1);
        }
    }
    let end = look(&client, "m", 0).await?;
    assert_eq!((end.state(), end.attempts), (TrackedState::Dead, 2));
    assert_eq!(end.error, "attempt 2 failed");
    assert_eq!(fleet.dead_letters_come(1).await?[0].category, "");
    let short = wire::Message {
        expires_at: Some((std::time::SystemTime::now() + Duration::from_millis(300)).into()),
        ..tracked("short")
    };
    fleet.publish("work", short).await?;
    let end = look(&client, "short", 20_000).await?;
    assert_eq!((end.state(), end.attempts), (TrackedState::Expired, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_message_is_taken_from_its_agent_and_has_one_end() -> Result<()> {
    let fleet = quick(2, 0).await?;
    let (begun, mut begins) = mpsc::unbounded_channel();
    let work = move |job: Job| {
        let begun = begun.clone();
        async move {
            let _gone = begun.send(None);
            job.cancelled.cancelled().await;
            let _gone = begun.send(Some(Instant::now()));
            Outcome::ack("too late")
        }
    };
    let agent = Agent::working(fleet.client(1)?, "work", "a", work, |worker| worker);
    fleet.publish("work", tracked("m")).await?;
    assert_eq!(begins.recv().await, Some(None));
    let client = fleet.client(0)?;
    let asked = Instant::now();
    let end = cancel(&client, "m").await?;
    assert_eq!(
        (end.state(), end.error.as_str()),
        (TrackedState::Cancelled, "not wanted")
    );
    let stopped = tokio::time::timeout(PATIENCE, begins.recv()).await?;
    let stopped = stopped.flatten().context("the handler was stopped")?;
    assert!(stopped - asked < HEARD_WITHIN, "{:?}", stopped - asked);
    assert_eq!(
        cancel(&client, "m").await?,
        end,
        "again it answers the same"
    );
    agent.stop.cancel();
    let later = wire::Message {
        not_before: Some((std::time::SystemTime::now() + Duration::from_secs(3_600)).into()),
        ..tracked("later")
    };
    fleet.publish("work", later).await?;
    assert_eq!(
        look(&client, "later", 0).await?.state(),
        TrackedState::Scheduled
    );
    assert_eq!(
        cancel(&client, "later").await?.state(),
        TrackedState::Cancelled
    );
    let figures = fleet.drained("work").await?;
    assert_eq!((figures.acked_total, figures.dead_total), (0, 0));
    assert!(fleet.dead_letters().await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_tracked_is_refused_with_the_reason() -> Result<()> {
    let fleet = quick(1, 0).await?;
    let client = fleet.client(0)?;
    fleet.publish("work", tracked("m")).await?;
    let send = |stream: &str, group: &str, message: wire::Message| {
        let request = wire::PublishRequest {
            stream: stream.into(),
            group: group.into(),
            message: Some(message),
            ..wire::PublishRequest::default()
        };
        client.publish(request)
    };
    let again = reason(send("", "work", tracked("m")).await);
    assert!(
        again.contains("a message `m` is tracked already"),
        "{again}"
    );
    let to_all = reason(send("s", "", tracked("n")).await);
    assert!(to_all.contains("publish it to the group"), "{to_all}");
    let ordered = wire::Message {
        ordering_key: "k".into(),
        ..tracked("n")
    };
    let ordered = reason(send("", "work", ordered).await);
    assert!(ordered.contains("track"), "{ordered}");
    for id in ["n", "nobody"] {
        let unknown = reason(look(&client, id, 0).await);
        assert!(unknown.contains("is not tracked"), "{unknown}");
    }
    let taken = fleet.fetch_all("work", "a", 1).await?;
    let suspend = Action::Suspend(wire::Suspend::default());
    let refused = fleet.settle("work", vec![outcome(&taken[0].lease, suspend)]);
    assert_eq!(refused.await?, [SettleStatus::Invalid]);
    fleet.settle("work", vec![ack(&taken[0])]).await?;
    let over = reason(cancel(&client, "m").await);
    assert!(over.contains("settled already: acked"), "{over}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_dies_at_work_leaves_a_tracked_message_to_another() -> Result<()> {
    let fleet = quick(1, 0).await?;
    let client = fleet.client(0)?;
    let mut first = Member::join(&client, 0, join("work", "a")).await?;
    first.credit(1).await?;
    fleet.publish("work", tracked("m")).await?;
    first.deliveries(1).await?;
    drop(first);
    let mut second = Member::join(&client, 0, join("work", "b")).await?;
    second.credit(1).await?;
    let again = second.deliveries(1).await?.remove(0);
    second.settle(vec![ack(&again)]).await?;
    let end = look(&client, "m", 0).await?;
    assert_eq!((end.state(), end.attempts), (TrackedState::Acked, 2));
    assert_eq!(end.consumer_id, "b");
    Ok(())
}
