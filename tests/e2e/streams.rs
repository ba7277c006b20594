//! Limits and promises of streams.

use std::time::Duration;

use anyhow::{Context as _, Result};
use hive_client::{CallError, Client, FaultKind, Reason, message, wire};
use hive_testkit::redis::{Aof, RedisServer};

use crate::{fleet::Fleet, member::ack};

/// Changes settings of the stream `s`.
async fn set(fleet: &Fleet, settings: wire::StreamSettings) -> Result<wire::Stream, CallError> {
    let request = wire::UpdateStreamRequest {
        name: "s".into(),
        settings: Some(settings),
    };
    let client = fleet.client(0).expect("the gateways have addresses");
    client.update_stream(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_refuses_with_a_hint_and_takes_more_when_it_has_emptied() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    fleet.group("g", wire::GroupSettings::default()).await?;
    let small = wire::StreamSettings {
        max_backlog: Some(3),
        ..wire::StreamSettings::default()
    };
    let stream = set(&fleet, small).await?;
    assert_eq!(
        stream
            .settings
            .context("a stream comes with settings")?
            .max_backlog,
        Some(3)
    );
    let publish = async || {
        let request = wire::PublishRequest {
            group: "g".into(),
            message: Some(message("t", "")),
            ..wire::PublishRequest::default()
        };
        fleet.client(0).expect("an address").publish(request).await
    };
    for _ in 0..3 {
        publish().await?;
    }
    let full = publish()
        .await
        .expect_err("the stream is full")
        .fault()
        .clone();
    assert_eq!(
        (full.reason, full.kind),
        (Reason::StreamFull, FaultKind::Saturated)
    );
    assert!(full.retry_after > Some(Duration::ZERO));
    let got = fleet.fetch("g", "puller", 1).await?;
    fleet.settle("g", got.iter().map(ack).collect()).await?;
    publish().await?;
    let request = wire::PublishBatchRequest {
        group: "g".into(),
        messages: vec![message("t", "")],
        ..wire::PublishBatchRequest::default()
    };
    let outcomes = fleet.client(0)?.publish_batch(request).await?.outcomes;
    let problem = outcomes[0]
        .error
        .as_ref()
        .context("the stream is full again")?;
    assert_eq!(problem.reason, "STREAM_FULL");
    assert!(problem.retry_after.is_some());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_groups_refuses_unless_it_is_to_buffer() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    fleet.group("g", wire::GroupSettings::default()).await?;
    let client = fleet.client(0)?;
    let delete = wire::DeleteGroupRequest {
        name: "g".into(),
        force: false,
    };
    client.delete_group(delete).await?;
    let request = wire::PublishRequest {
        stream: "s".into(),
        message: Some(message("t", "kept")),
        ..wire::PublishRequest::default()
    };
    let refused = client
        .publish(request.clone())
        .await
        .expect_err("nobody would get it");
    assert_eq!(refused.fault().reason, Reason::StreamWithoutGroups);
    let buffering = wire::StreamSettings {
        buffer_without_groups: Some(true),
        ..wire::StreamSettings::default()
    };
    set(&fleet, buffering).await?;
    client.publish(request).await?;
    fleet.group("late", wire::GroupSettings::default()).await?;
    assert_eq!(fleet.fetch("late", "puller", 1).await?.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn local_durability_is_kept_where_redis_syncs_each_write() -> Result<()> {
    let mut fleet = Fleet::start(Aof::Always, 1, 0).await?;
    fleet.group("g", wire::GroupSettings::default()).await?;
    let local = wire::StreamSettings {
        durability: wire::Durability::Local.into(),
        ..wire::StreamSettings::default()
    };
    set(&fleet, local).await?;
    for n in 0..20 {
        fleet.publish("g", message("t", n.to_string())).await?;
    }
    fleet.redis.kill9()?;
    fleet.redis.restart().await?;
    assert_eq!(fleet.figures("g").await?.lag, 20);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn local_durability_is_refused_where_redis_cannot_promise_it() -> Result<()> {
    let redis = RedisServer::builder().aof(Aof::Everysec).start().await?;
    let fleet = Fleet::start_on(redis, 1, 0).await?;
    // Whoever must not wait for better times is told at once.
    let client = Client::builder(fleet.urls(0).parse()?)
        .call_deadline(Duration::from_secs(1))
        .build()?;
    fleet.group("g", wire::GroupSettings::default()).await?;
    let local = wire::StreamSettings {
        durability: wire::Durability::Local.into(),
        ..wire::StreamSettings::default()
    };
    let set = set(&fleet, local).await;
    let request = wire::PublishRequest {
        group: "g".into(),
        message: Some(message("t", "")),
        ..wire::PublishRequest::default()
    };
    let published = client.publish(request).await;
    if fleet.can_wait_for_sync().await? {
        set?;
        published?;
        return Ok(());
    }
    let refused = match (set, published) {
        (Err(refused), _) | (Ok(_), Err(refused)) => refused,
        (Ok(_), Ok(answer)) => anyhow::bail!("promised what it cannot keep: {answer:?}"),
    };
    assert_eq!(
        refused.fault().reason,
        Reason::DurabilityUnreachable,
        "{refused}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_full_by_bytes_refuses_until_messages_are_settled() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    fleet.group("g", wire::GroupSettings::default()).await?;
    let small = wire::StreamSettings {
        max_backlog_bytes: Some(100_000),
        retention_max_bytes: Some(0),
        ..wire::StreamSettings::default()
    };
    set(&fleet, small).await?;
    let publish = async || {
        let large = wire::Message {
            payload: vec![0; 60_000].into(),
            ..message("t", "")
        };
        let request = wire::PublishRequest {
            group: "g".into(),
            message: Some(large),
            ..wire::PublishRequest::default()
        };
        fleet.client(0).expect("an address").publish(request).await
    };
    for _ in 0..2 {
        publish().await?;
    }
    let full = publish().await.expect_err("the stream is full");
    let full = full.fault();
    assert_eq!(full.reason, Reason::StreamFull);
    assert!(full.message.contains("limit of bytes"), "{}", full.message);
    let got = fleet.fetch("g", "puller", 2).await?;
    fleet.settle("g", got.iter().map(ack).collect()).await?;
    publish().await?;
    let client = fleet.client(0).expect("an address");
    let stream = client.get_stream("s").await?;
    assert_eq!(stream.entries, 1, "nothing settled is kept");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_sets_of_capabilities_with_unsettled_messages_count() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    fleet.group("g", wire::GroupSettings::default()).await?;
    let client = fleet.client(0)?;
    let publish = async |set: usize| {
        let message = wire::Message {
            required_capabilities: vec![format!("c{set}")],
            ..message("t", "")
        };
        let request = wire::PublishRequest {
            group: "g".into(),
            message: Some(message),
            ..wire::PublishRequest::default()
        };
        client.publish(request).await
    };
    for set in 0..16 {
        publish(set).await?;
    }
    let refused = publish(16).await.expect_err("one set too many");
    let refused = refused.fault();
    assert_eq!(refused.reason, Reason::TooManyCapabilitySets);
    assert!(refused.message.contains("unsettled"), "{}", refused.message);
    let request = wire::FetchRequest {
        group: "g".into(),
        consumer_id: "puller".into(),
        capabilities: vec!["c3".into()],
        max_messages: 1,
        wait: Some(hive_protocol::time::to_duration(10_000)),
        ..wire::FetchRequest::default()
    };
    let got = client.fetch(request).await?.deliveries;
    fleet.settle("g", got.iter().map(ack).collect()).await?;
    publish(16).await?;
    Ok(())
}
