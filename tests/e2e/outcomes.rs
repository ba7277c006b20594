//! What an agent may say of a message, and what becomes of it.

use std::time::{Duration, Instant};

use anyhow::Result;
use hive_client::{message, wire};
use hive_protocol::time::to_duration;
use hive_testkit::redis::Aof;
use wire::{SettleStatus, outcome::Action};

use crate::{
    fleet::Fleet,
    member::{Member, ack, join, message_of, nack, outcome, verdicts},
};

/// A fleet with one gateway, and a group `work` with short backoffs.
async fn quick(settings: wire::GroupSettings) -> Result<Fleet> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    let settings = wire::GroupSettings {
        initial_backoff: Some(to_duration(10)),
        max_backoff: Some(to_duration(20)),
        ..settings
    };
    fleet.group("work", settings).await?;
    Ok(fleet)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_dead_after_exactly_its_attempts_with_their_history() -> Result<()> {
    let fleet = quick(wire::GroupSettings {
        max_attempts: Some(4),
        ..wire::GroupSettings::default()
    })
    .await?;
    let own = wire::Message {
        retry: Some(wire::RetryPolicy {
            max_attempts: Some(2),
            ..wire::RetryPolicy::default()
        }),
        ..message("own", "")
    };
    fleet.publish("work", message("group", "")).await?;
    fleet.publish("work", own).await?;
    let mut attempts = Vec::new();
    for _ in 0..6 {
        for delivery in fleet.fetch_all("work", "puller", 1).await? {
            attempts.push((message_of(&delivery)?.message_type, delivery.attempt));
            let reason = format!("attempt {} failed", delivery.attempt);
            let verdict = fleet.settle("work", vec![nack(&delivery, &reason)]).await?;
            assert_eq!(verdict, [SettleStatus::Ok]);
        }
    }
    attempts.sort();
    let expected = [
        ("group", 1),
        ("group", 2),
        ("group", 3),
        ("group", 4),
        ("own", 1),
        ("own", 2),
    ];
    assert_eq!(
        attempts,
        expected.map(|(name, attempt)| (name.to_owned(), attempt))
    );
    let dead = fleet.dead_letters_come(2).await?;
    assert_eq!(dead.len(), 2);
    for letter in dead {
        assert_eq!(
            (letter.group.as_str(), letter.category.as_str()),
            ("work", "")
        );
        assert!(matches!(letter.failures, 2 | 4), "{letter:?}");
        assert_eq!(u32::try_from(letter.attempts.len())?, letter.failures);
        for (number, attempt) in letter.attempts.iter().enumerate() {
            assert_eq!(attempt.consumer, "puller");
            assert_eq!(attempt.reason, format!("attempt {} failed", number + 1));
            assert!(attempt.ended_ms >= attempt.started_ms && attempt.started_ms > 0);
        }
    }
    let figures = fleet.drained("work").await?;
    assert_eq!((figures.failed_total, figures.dead_total), (6, 2));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nack_waits_out_the_delay_that_it_asks_for() -> Result<()> {
    let fleet = quick(wire::GroupSettings::default()).await?;
    fleet.publish("work", message("t", "")).await?;
    let got = fleet.fetch_all("work", "puller", 1).await?;
    let later = wire::Nack {
        delay: Some(to_duration(1_200)),
        ..wire::Nack::default()
    };
    let asked = Instant::now();
    fleet
        .settle("work", vec![outcome(&got[0].lease, Action::Nack(later))])
        .await?;
    let again = fleet.fetch_all("work", "puller", 1).await?;
    let waited = asked.elapsed();
    assert_eq!(again.len(), 1);
    assert!(waited >= Duration::from_millis(1_200), "{waited:?}");
    assert!(waited < Duration::from_secs(4), "{waited:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_message_is_dead_at_once() -> Result<()> {
    let fleet = quick(wire::GroupSettings::default()).await?;
    fleet.publish("work", message("t", "")).await?;
    let got = fleet.fetch_all("work", "puller", 1).await?;
    let reject = wire::Reject {
        reason: "it makes no sense".into(),
        category: "nonsense".into(),
        error_type: "SenseError".into(),
        stack: "at work".into(),
    };
    let verdict = fleet
        .settle("work", vec![outcome(&got[0].lease, Action::Reject(reject))])
        .await?;
    assert_eq!(verdict, [SettleStatus::Ok]);
    let dead = fleet.dead_letters_come(1).await?;
    assert_eq!(dead[0].category, "nonsense");
    assert_eq!(
        dead[0].attempts.last().map(|one| one.reason.as_str()),
        Some("it makes no sense")
    );
    fleet.drained("work").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_message_comes_again_uncounted_and_not_before_it_may() -> Result<()> {
    let fleet = quick(wire::GroupSettings {
        max_attempts: Some(1),
        ..wire::GroupSettings::default()
    })
    .await?;
    fleet.publish("work", message("t", "")).await?;
    for _ in 0..3 {
        let got = fleet.fetch_all("work", "puller", 1).await?;
        assert_eq!((got.len(), got[0].attempt), (1, 1));
        let release = outcome(&got[0].lease, Action::Release(wire::Release::default()));
        assert_eq!(
            fleet.settle("work", vec![release]).await?,
            [SettleStatus::Ok]
        );
    }
    let got = fleet.fetch_all("work", "puller", 1).await?;
    let later = wire::Release {
        retry_after: Some(to_duration(1_200)),
    };
    let asked = Instant::now();
    fleet
        .settle("work", vec![outcome(&got[0].lease, Action::Release(later))])
        .await?;
    let again = fleet.fetch_all("work", "puller", 1).await?;
    assert!(
        asked.elapsed() >= Duration::from_millis(1_200),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(again[0].attempt, 1);
    fleet.settle("work", vec![ack(&again[0])]).await?;
    let figures = fleet.drained("work").await?;
    assert_eq!(
        (
            figures.failed_total,
            figures.released_total,
            figures.dead_total
        ),
        (0, 4, 0)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extended_lease_outlives_its_first_deadline() -> Result<()> {
    let fleet = quick(wire::GroupSettings {
        lease: Some(to_duration(1_000)),
        ..wire::GroupSettings::default()
    })
    .await?;
    let client = fleet.client(0)?;
    let mut member = Member::join(&client, 0, join("work", "slow")).await?;
    fleet.publish("work", message("t", "")).await?;
    member.credit(1).await?;
    let got = member.deliveries(1).await?;
    let taken = Instant::now();
    while taken.elapsed() < Duration::from_millis(2_500) {
        let extend = outcome(&got[0].lease, Action::Extend(wire::Extend {}));
        let results = member.settle(vec![extend]).await?;
        assert_eq!(verdicts(&results), [SettleStatus::Ok]);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(
        verdicts(&member.settle(vec![ack(&got[0])]).await?),
        [SettleStatus::Ok]
    );
    assert_eq!(
        verdicts(&member.settle(vec![ack(&got[0])]).await?),
        [SettleStatus::Gone]
    );
    let figures = fleet.drained("work").await?;
    assert_eq!((figures.acked_total, figures.redelivered_total), (1, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_outcome_of_a_batch_is_judged_on_its_own() -> Result<()> {
    let fleet = quick(wire::GroupSettings::default()).await?;
    for _ in 0..2 {
        fleet.publish("work", message("t", "")).await?;
    }
    let got = fleet.fetch_all("work", "puller", 2).await?;
    let stale = nack(&got[0], "late");
    let long = wire::Nack {
        delay: Some(to_duration(90_000_000)),
        ..wire::Nack::default()
    };
    let outcomes = vec![
        ack(&got[0]),
        outcome("nonsense", Action::Ack(wire::Ack::default())),
        wire::Outcome {
            lease: got[1].lease.clone(),
            action: None,
        },
        outcome(&got[1].lease, Action::Nack(long)),
        outcome(&got[1].lease, Action::Extend(wire::Extend {})),
    ];
    let judged = fleet.settle("work", outcomes).await?;
    let expected = [
        SettleStatus::Ok,
        SettleStatus::UnknownLease,
        SettleStatus::Invalid,
        SettleStatus::Invalid,
        SettleStatus::Ok,
    ];
    assert_eq!(judged, expected);
    let last = vec![stale, ack(&got[1])];
    let judged = fleet.settle("work", last).await?;
    assert_eq!(judged, [SettleStatus::Gone, SettleStatus::Ok]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_released_gets_nothing_until_it_grants_credit() -> Result<()> {
    let fleet = quick(wire::GroupSettings::default()).await?;
    fleet.publish("work", message("t", "")).await?;
    let mut member = Member::join(&fleet.client(0)?, 0, join("work", "a")).await?;
    member.credit(5).await?;
    let held = member.deliveries(1).await?;
    let release = outcome(&held[0].lease, Action::Release(wire::Release::default()));
    let answer = member.settle(vec![release]).await?;
    assert_eq!(verdicts(&answer), [SettleStatus::Ok]);
    fleet.publish("work", message("t", "")).await?;
    // It has credit left, and is passed over: longer than a lost bell takes.
    let early = tokio::time::timeout(Duration::from_millis(1_500), member.deliveries(1)).await;
    assert!(early.is_err(), "{early:?}");
    member.credit(1).await?;
    assert_eq!(member.deliveries(2).await?.len(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_message_blocks_its_ordering_key_until_an_operator_lets_it_go_on() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 1).await?;
    let settings = wire::GroupSettings {
        max_attempts: Some(1),
        ordering_on_dead: wire::OrderingOnDead::Block.into(),
        ..wire::GroupSettings::default()
    };
    fleet.group("g", settings).await?;
    let client = fleet.client(0)?;
    for _ in 0..2 {
        let message = wire::Message {
            ordering_key: "k".into(),
            ..message("t", "")
        };
        let request = wire::PublishRequest {
            group: "g".into(),
            message: Some(message),
            ..wire::PublishRequest::default()
        };
        client.publish(request).await?;
    }
    let got = fleet.fetch("g", "puller", 2).await?;
    assert_eq!(got.len(), 1, "the second waits for the first");
    fleet.settle("g", vec![nack(&got[0], "broken")]).await?;
    let name = || "g".to_owned();
    let request = wire::ListBlockedKeysRequest { name: name() };
    let blocked = client.list_blocked_keys(request).await?;
    assert_eq!(blocked.ordering_keys, ["k"]);
    let figures = client.get_group("g").await?.figures.unwrap_or_default();
    assert_eq!((figures.blocked_keys, figures.dead_total), (1, 1));
    let unblock = async || {
        let request = wire::UnblockKeyRequest {
            name: name(),
            ordering_key: "k".into(),
        };
        client.unblock_key(request).await
    };
    assert!(unblock().await?.unblocked);
    assert!(!unblock().await?.unblocked, "it goes on already");
    let next = fleet.fetch("g", "puller", 1).await?;
    assert_eq!(next.len(), 1);
    fleet.settle("g", next.iter().map(ack).collect()).await?;
    Ok(())
}
