//! Limits and promises of streams.

use std::time::Duration;

use anyhow::{Context as _, Result};
use hive_client::{CallError, Client, FaultKind, Reason, message, wire};
use hive_testkit::redis::{Aof, RedisServer};

use crate::{fleet::Fleet, member::ack};

/// Changes settings of the stream `s`.
async fn set(fleet: &Fleet, settings: wire::StreamSettings) -> Result<wire::Stream, CallError> {
    let client = fleet.client(0).expect("the gateways have addresses");
    set_by(&client, settings).await
}

async fn set_by(
    client: &Client,
    settings: wire::StreamSettings,
) -> Result<wire::Stream, CallError> {
    let request = wire::UpdateStreamRequest {
        name: "s".into(),
        settings: Some(settings),
    };
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
async fn a_stream_that_buffers_holds_messages_before_its_first_group() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    let client = fleet.client(0)?;
    let create = |max_backlog| wire::CreateStreamRequest {
        name: "s".into(),
        shards: None,
        settings: Some(wire::StreamSettings {
            buffer_without_groups: Some(true),
            max_backlog,
            ..wire::StreamSettings::default()
        }),
    };
    let made = client.create_stream(create(Some(5))).await?;
    assert!(made.created);
    let stream = made.stream.context("a creation answers the stream")?;
    let settings = stream.settings.context("with settings")?;
    assert_eq!((settings.max_backlog(), stream.groups.len()), (5, 0));
    assert!(!client.create_stream(create(Some(5))).await?.created);
    let other = client.create_stream(create(None)).await;
    let other = other.expect_err("another limit").fault().clone();
    assert_eq!(
        (other.reason, other.kind),
        (Reason::StreamExists, FaultKind::Exists)
    );
    let difference = "max_backlog is `5`, asked for `1000000`";
    assert!(other.message.contains(difference), "{other}");
    let request = wire::PublishRequest {
        stream: "s".into(),
        message: Some(message("t", "early")),
        ..wire::PublishRequest::default()
    };
    client.publish(request).await?;
    assert_eq!(client.get_stream("s").await?.entries, 1, "counted at once");
    fleet.group("late", wire::GroupSettings::default()).await?;
    let got = fleet.fetch("late", "puller", 1).await?;
    assert_eq!(got.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_when_it_holds_nothing_and_no_message_goes_with_it() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 2, 0).await?;
    let (client, elsewhere) = (fleet.client(0)?, fleet.client(1)?);
    let delete = async || {
        let request = wire::DeleteStreamRequest { name: "s".into() };
        client
            .delete_stream(request)
            .await
            .map_err(|refused| refused.fault().clone())
    };
    let missing = delete().await.expect_err("there is none");
    assert_eq!(missing.reason, Reason::StreamNotFound);
    fleet.group("g", wire::GroupSettings::default()).await?;
    let read = delete().await.expect_err("a group reads it");
    assert_eq!(
        (read.reason, read.kind),
        (Reason::StreamNotEmpty, FaultKind::WrongState)
    );
    assert!(read.message.contains("groups `1`"), "{read}");
    let gone = wire::DeleteGroupRequest {
        name: "g".into(),
        force: false,
    };
    client.delete_group(gone).await?;
    let buffering = wire::StreamSettings {
        buffer_without_groups: Some(true),
        ..wire::StreamSettings::default()
    };
    set(&fleet, buffering).await?;
    let request = |content: &str| wire::PublishRequest {
        stream: "s".into(),
        message: Some(message("t", content.to_owned())),
        ..wire::PublishRequest::default()
    };
    elsewhere.publish(request("buffered")).await?;
    let holds = delete().await.expect_err("a message waits");
    assert!(
        holds.message.contains("buffered messages at least `1`"),
        "{holds}"
    );
    fleet.group("g", wire::GroupSettings::default()).await?;
    let got = fleet.fetch("g", "puller", 1).await?;
    fleet.settle("g", got.iter().map(ack).collect()).await?;
    let gone = wire::DeleteGroupRequest {
        name: "g".into(),
        force: false,
    };
    client.delete_group(gone).await?;
    // The other gateway knows the stream, for a moment longer than it lives.
    elsewhere.publish(request("one more")).await?;
    fleet.group("g", wire::GroupSettings::default()).await?;
    // The settled one is kept for replay, and a new group begins there.
    let got = fleet.fetch_all("g", "puller", 2).await?;
    fleet.settle("g", got.iter().map(ack).collect()).await?;
    let gone = wire::DeleteGroupRequest {
        name: "g".into(),
        force: true,
    };
    client.delete_group(gone).await?;
    delete().await.map_err(anyhow::Error::from)?;
    let late = elsewhere.publish(request("late")).await;
    let late = late.expect_err("there is no stream").fault().reason;
    assert_eq!(late, Reason::StreamNotFound);
    // A group makes a new one of the name, with limits of its own.
    let request = wire::CreateGroupRequest {
        name: "g".into(),
        stream_name: "s".into(),
        agent_type: "tester".into(),
        stream_settings: Some(wire::StreamSettings {
            max_backlog: Some(7),
            ..wire::StreamSettings::default()
        }),
        ..wire::CreateGroupRequest::default()
    };
    client.create_group(request.clone()).await?;
    assert!(!client.create_group(request).await?.created);
    let stream = client.get_stream("s").await?;
    let settings = stream.settings.context("with settings")?;
    assert_eq!(settings.max_backlog(), 7);
    assert!(!settings.buffer_without_groups(), "it is another stream");
    fleet.publish("g", message("t", "new")).await?;
    assert_eq!(fleet.fetch("g", "puller", 1).await?.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_and_a_publish_at_once_are_never_both_accepted() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 2, 0).await?;
    let (client, elsewhere) = (fleet.client(0)?, fleet.client(1)?);
    let (mut kept, mut deleted) = (0, 0);
    for round in 0..60 {
        let name = format!("s{round}");
        let create = wire::CreateStreamRequest {
            name: name.clone(),
            shards: None,
            settings: Some(wire::StreamSettings {
                buffer_without_groups: Some(true),
                ..wire::StreamSettings::default()
            }),
        };
        client.create_stream(create).await?;
        let publish = |priority| wire::PublishRequest {
            stream: name.clone(),
            message: Some(wire::Message {
                priority,
                ..message("t", "")
            }),
            ..wire::PublishRequest::default()
        };
        // Refused, and the other gateway has read the definition.
        let refused = elsewhere.publish(publish(Some(77))).await;
        assert!(refused.is_err(), "there is no such priority");
        let delete = wire::DeleteStreamRequest { name: name.clone() };
        let publish_late = async {
            tokio::time::sleep(Duration::from_micros(50 * (round % 12))).await;
            elsewhere.publish(publish(None)).await
        };
        let (gone, stored) = tokio::join!(client.delete_stream(delete), publish_late);
        match (gone, stored) {
            (Ok(_), Err(refused)) => {
                assert_eq!(refused.fault().reason, Reason::StreamNotFound);
                deleted += 1;
            },
            (Err(refused), Ok(_)) => {
                assert_eq!(refused.fault().reason, Reason::StreamNotEmpty);
                kept += 1;
            },
            other => anyhow::bail!("round {round}: {other:?}"),
        }
    }
    assert!(kept > 0 && deleted > 0, "{kept} kept, {deleted} deleted");
    let left = client.list_streams(wire::ListStreamsRequest {}).await?;
    assert_eq!(left.streams.len(), kept);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_made_while_its_stream_goes_has_a_stream() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 2, 0).await?;
    let (client, elsewhere) = (fleet.client(0)?, fleet.client(1)?);
    for round in 0..40 {
        let name = format!("s{round}");
        let create = wire::CreateStreamRequest {
            name: name.clone(),
            ..wire::CreateStreamRequest::default()
        };
        client.create_stream(create).await?;
        let delete = wire::DeleteStreamRequest { name: name.clone() };
        let group = wire::CreateGroupRequest {
            name: format!("g{round}"),
            stream_name: name.clone(),
            agent_type: "tester".into(),
            ..wire::CreateGroupRequest::default()
        };
        let late = async {
            tokio::time::sleep(Duration::from_micros(100 * (round % 10))).await;
            client.delete_stream(delete).await
        };
        let (made, gone) = tokio::join!(elsewhere.create_group(group), late);
        assert!(made?.created);
        if let Err(refused) = gone {
            assert_eq!(refused.fault().reason, Reason::StreamNotEmpty);
        }
        assert_eq!(
            client.get_stream(&name).await?.groups,
            [format!("g{round}")]
        );
        fleet
            .publish(&format!("g{round}"), message("t", ""))
            .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_and_its_stream_agree_on_the_limits_or_are_not_made() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    fleet.group("g", wire::GroupSettings::default()).await?;
    let client = fleet.client(0)?;
    let group = |name: &str, max_backlog| wire::CreateGroupRequest {
        name: name.into(),
        stream_name: "s".into(),
        agent_type: "tester".into(),
        stream_settings: Some(wire::StreamSettings {
            max_backlog: Some(max_backlog),
            ..wire::StreamSettings::default()
        }),
        ..wire::CreateGroupRequest::default()
    };
    client.create_group(group("same", 1_000_000)).await?;
    let other = client.create_group(group("other", 5)).await;
    let other = other
        .expect_err("the stream has another limit")
        .fault()
        .clone();
    assert_eq!(other.reason, Reason::StreamExists);
    let difference = "max_backlog is `1000000`, asked for `5`";
    assert!(other.message.contains(difference), "{other}");
    let names = client.get_stream("s").await?.groups;
    assert_eq!(names, ["g", "same"]);
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
    let set = set_by(&client, local).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_reaches_the_limit_of_sets_counts_the_unsettled_alone() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    fleet.group("g", wire::GroupSettings::default()).await?;
    let client = fleet.client(0)?;
    let publish = async |sets: std::ops::Range<usize>| {
        let messages = sets.map(|set| wire::Message {
            required_capabilities: vec![format!("c{set}")],
            ..message("t", "")
        });
        let request = wire::PublishBatchRequest {
            group: "g".into(),
            messages: messages.collect(),
            ..wire::PublishBatchRequest::default()
        };
        client.publish_batch(request).await
    };
    publish(0..15).await?;
    let request = wire::FetchRequest {
        group: "g".into(),
        consumer_id: "puller".into(),
        capabilities: (0..15).map(|set| format!("c{set}")).collect(),
        max_messages: 15,
        wait: Some(hive_protocol::time::to_duration(10_000)),
        ..wire::FetchRequest::default()
    };
    let got = client.fetch(request).await?.deliveries;
    assert_eq!(got.len(), 15);
    fleet.settle("g", got.iter().map(ack).collect()).await?;
    let outcomes = publish(15..18).await?.outcomes;
    let refused: Vec<_> = outcomes
        .iter()
        .filter_map(|one| one.error.as_ref())
        .collect();
    assert!(refused.is_empty(), "{refused:?}");
    Ok(())
}
