//! Published twice, stored once.

use anyhow::{Context as _, Result};
use hive_client::{CallError, Reason, message, wire};
use hive_testkit::redis::Aof;

use crate::fleet::Fleet;

fn keyed(payload: &'static str) -> wire::Message {
    wire::Message {
        idempotency_key: "order-7".into(),
        ..message("order", payload)
    }
}

/// Publishes to a group or, with an empty group, to the stream `s`.
async fn publish(
    fleet: &Fleet,
    group: &str,
    message: wire::Message,
) -> Result<wire::PublishResponse, CallError> {
    let request = wire::PublishRequest {
        stream: if group.is_empty() {
            "s".into()
        } else {
            String::new()
        },
        group: group.into(),
        message: Some(message),
        ..wire::PublishRequest::default()
    };
    let client = fleet.client(0).expect("the gateways have addresses");
    client.publish(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_idempotency_key_answers_the_first_message() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 2, 0).await?;
    fleet
        .group("orders", wire::GroupSettings::default())
        .await?;
    fleet
        .group("others", wire::GroupSettings::default())
        .await?;
    let first = publish(&fleet, "orders", keyed("7 apples")).await?;
    assert!(!first.duplicate);
    for gateway in 0..2 {
        let request = wire::PublishRequest {
            group: "orders".into(),
            message: Some(keyed("7 apples")),
            ..wire::PublishRequest::default()
        };
        let again = fleet.client(gateway)?.publish(request).await?;
        assert_eq!(
            (again.message_id.as_str(), again.duplicate),
            (&*first.message_id, true)
        );
    }
    let other_type = wire::Message {
        message_type: "refund".into(),
        ..keyed("7 apples")
    };
    let other_agent = wire::Message {
        to_agent: "ann".into(),
        ..keyed("7 apples")
    };
    let others = [
        ("orders", keyed("8 apples")),
        ("orders", other_type),
        ("orders", other_agent),
        ("others", keyed("7 apples")),
        ("", keyed("7 apples")),
    ];
    for (group, other) in others {
        let refused = publish(&fleet, group, other.clone()).await;
        let refused = refused.expect_err("another message under a used key");
        assert_eq!(
            refused.fault().reason,
            Reason::IdempotencyKeyReused,
            "{group} {other:?}"
        );
    }
    assert_eq!(fleet.figures("orders").await?.published_total, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_sends_again_adds_nothing_twice() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 2, 0).await?;
    fleet
        .group("orders", wire::GroupSettings::default())
        .await?;
    let batch = |first: u64, count: u64| wire::PublishBatchRequest {
        group: "orders".into(),
        messages: (first..first + count)
            .map(|n| wire::Message {
                message_id: format!("message-{n}"),
                ..message("order", n.to_string())
            })
            .collect(),
        producer_id: "till-3".into(),
        first_sequence: first,
        ..wire::PublishBatchRequest::default()
    };
    for (gateway, first, count, stored) in [
        (0, 1, 10, 10),
        (0, 1, 10, 0),
        (1, 1, 10, 0),
        (1, 6, 10, 5),
        (0, 16, 1, 1),
    ] {
        let request = batch(first, count);
        let outcomes = fleet
            .client(gateway)?
            .publish_batch(request)
            .await?
            .outcomes;
        let fresh = outcomes.iter().filter(|one| !one.duplicate).count();
        assert_eq!(fresh, stored, "{count} from {first} on: {outcomes:?}");
        for (number, outcome) in (first..).zip(&outcomes) {
            assert_eq!(outcome.error, None);
            assert_eq!(outcome.message_id, format!("message-{number}"));
        }
    }
    let group = fleet.client(0)?.get_group("orders").await?;
    let figures = group.figures.context("a group comes with figures")?;
    assert_eq!((figures.published_total, figures.lag), (16, 16));
    Ok(())
}
