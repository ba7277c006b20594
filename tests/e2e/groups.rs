//! Groups: created, changed, paused, deleted; and who is in them.

use std::time::Duration;

use anyhow::{Context as _, Result};
use hive_client::{CallError, Client, FaultKind, Reason, message, wire};
use hive_protocol::time::to_duration;
use hive_testkit::{redis::Aof, wait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::{
    fleet::{Agent, Fleet, PATIENCE, Seen},
    member::{Member, ack, join, text_of},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_created_once_and_other_settings_are_told_apart() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    let request = wire::CreateGroupRequest {
        name: "reviewers".into(),
        stream_name: "s".into(),
        agent_type: "reviewer".into(),
        ..wire::CreateGroupRequest::default()
    };
    let client = fleet.client(0)?;
    assert!(client.create_group(request.clone()).await?.created);
    assert!(!client.create_group(request.clone()).await?.created);
    let other = wire::CreateGroupRequest {
        settings: Some(wire::GroupSettings {
            max_consumers: Some(3),
            ..wire::GroupSettings::default()
        }),
        ..request
    };
    let fault = client
        .create_group(other)
        .await
        .expect_err("other settings")
        .fault()
        .clone();
    assert_eq!(fault.reason, Reason::GroupExists);
    assert!(fault.message.contains("max_consumers"), "{}", fault.message);
    let all = client.list_groups(wire::ListGroupsRequest {}).await?.groups;
    assert_eq!(
        all.iter()
            .map(|group| group.name.as_str())
            .collect::<Vec<_>>(),
        ["reviewers"]
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_group_delivers_nothing_and_takes_everything_else() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 2, 0).await?;
    fleet.group("moody", wire::GroupSettings::default()).await?;
    let client = fleet.client(0)?;
    let mut member = Member::join(&client, 1, join("moody", "a")).await?;
    member.credit(1).await?;
    fleet.publish("moody", message("t", "before")).await?;
    let before = member.deliveries(1).await?;
    assert!(client.pause_group("moody").await?.paused);
    // Other gateways hear of it within a second: their fast path trusts a definition for so long.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    fleet.publish("moody", message("t", "after")).await?;
    member.settle(vec![ack(&before[0])]).await?;
    member.credit(1).await?;
    let request = wire::FetchRequest {
        group: "moody".into(),
        consumer_id: "puller".into(),
        wait: Some(to_duration(1_500)),
        ..wire::FetchRequest::default()
    };
    assert_eq!(client.fetch(request).await?.deliveries, []);
    let figures = fleet.figures("moody").await?;
    let seen = (figures.lag, figures.acked_total, figures.health.as_str());
    assert_eq!(seen, (1, 1, "paused"), "{figures:?}");
    assert!(!client.resume_group("moody").await?.paused);
    let after = member.deliveries(1).await?;
    assert_eq!(text_of(&after[0])?, "after");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_settings_hold_at_every_gateway() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 2, 0).await?;
    fleet.group("tuned", wire::GroupSettings::default()).await?;
    let request = wire::UpdateGroupRequest {
        name: "tuned".into(),
        settings: Some(wire::GroupSettings {
            max_consumers: Some(1),
            lease: Some(to_duration(7_000)),
            ..wire::GroupSettings::default()
        }),
    };
    let group = fleet.client(0)?.update_group(request).await?;
    let settings = group.settings.context("a group comes with settings")?;
    assert_eq!(
        (settings.max_consumers, settings.max_attempts),
        (Some(1), Some(3))
    );
    for gateway in 0..2 {
        let client = fleet.client(gateway)?;
        wait::until(PATIENCE, "the new lease at every gateway", || async {
            let member = Member::join(&client, 0, join("tuned", "a")).await?;
            let lease = member.joined.lease_duration;
            anyhow::ensure!(lease == Some(to_duration(7_000)), "{lease:?}");
            member.leave().await
        })
        .await;
    }
    let empty = wire::UpdateGroupRequest {
        name: "tuned".into(),
        settings: Some(wire::GroupSettings {
            max_consumers: Some(10_001),
            max_attempts: Some(5_000),
            lease: Some(to_duration(5)),
            ..wire::GroupSettings::default()
        }),
    };
    let fault = fleet
        .client(0)?
        .update_group(empty)
        .await
        .expect_err("three faults");
    assert_eq!(fault.fault().violations.len(), 3, "{fault:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_with_unsettled_messages_is_deleted_by_force_alone() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    fleet
        .group("doomed", wire::GroupSettings::default())
        .await?;
    for n in 0..5 {
        fleet.publish("doomed", message("t", n.to_string())).await?;
    }
    let client = fleet.client(0)?;
    let mut member = Member::join(&client, 0, join("doomed", "a")).await?;
    member.credit(2).await?;
    member.deliveries(2).await?;
    let delete = |force: bool| wire::DeleteGroupRequest {
        name: "doomed".into(),
        force,
    };
    let refused = client
        .delete_group(delete(false))
        .await
        .expect_err("it is not empty");
    let fault = refused.fault();
    assert_eq!(
        (fault.reason, fault.kind),
        (Reason::GroupNotEmpty, FaultKind::WrongState)
    );
    assert!(
        fault.message.contains("lag `3`") && fault.message.contains("pending `2`"),
        "{}",
        fault.message
    );
    assert_eq!(client.delete_group(delete(true)).await?.cancelled, 5);
    let dead = fleet.dead_letters_come(5).await?;
    assert!(
        dead.iter().all(|letter| letter.category == "cancelled"),
        "{dead:?}"
    );
    assert_eq!(member.fault().await?.reason, Reason::GroupGone);
    let gone = client.get_group("doomed").await.expect_err("it is gone");
    assert_eq!(gone.fault().reason, Reason::GroupNotFound);
    // Its name is free again, and its past does not come back.
    fleet
        .group("doomed", wire::GroupSettings::default())
        .await?;
    assert_eq!(fleet.figures("doomed").await?.lag, 0);
    client.delete_group(delete(false)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_half_deleted_hides_no_other_and_goes() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    for group in ["leaving", "lost", "staying"] {
        fleet.group(group, wire::GroupSettings::default()).await?;
    }
    let client = fleet.client(0)?;
    let request = wire::PublishRequest {
        stream: "s".into(),
        message: Some(message("t", "for all")),
        ..wire::PublishRequest::default()
    };
    client.publish(request).await?;
    let got = fleet.fetch("leaving", "puller", 1).await?;
    fleet
        .settle("leaving", got.iter().map(ack).collect())
        .await?;
    // A gateway that died between the shard and the definition.
    let store = fleet.store()?;
    let shard = store.shard("default", "s", 0);
    store.retire_on_shard(&shard, "leaving").await?;
    // And a shard that lost a group.
    let lane = shard.lane(&"/p4".parse()?);
    let mut socket = UnixStream::connect(fleet.redis.socket()).await?;
    let command = format!("XGROUP DESTROY {lane} lost\r\n");
    socket.write_all(command.as_bytes()).await?;
    assert_eq!(socket.read(&mut [0; 64]).await?, ":1\r\n".len());
    let list = async || {
        let groups = client.list_groups(wire::ListGroupsRequest {}).await?.groups;
        anyhow::Ok(
            groups
                .into_iter()
                .map(|group| (group.name, group.figures.unwrap_or_default().health))
                .collect::<Vec<_>>(),
        )
    };
    let lost = ("lost".to_owned(), "data_lost".to_owned());
    let staying = ("staying".to_owned(), "no_consumers".to_owned());
    assert_eq!(list().await?, [lost, staying]);
    let gone = client.get_group("leaving").await.expect_err("it goes");
    assert_eq!(gone.fault().reason, Reason::GroupGone);
    let request = wire::CreateGroupRequest {
        name: "leaving".into(),
        stream_name: "s".into(),
        agent_type: "tester".into(),
        ..wire::CreateGroupRequest::default()
    };
    let again = client.create_group(request).await.expect_err("it goes");
    assert_eq!(again.fault().reason, Reason::GroupGone);
    // The same call again carries on.
    let delete = wire::DeleteGroupRequest {
        name: "leaving".into(),
        force: false,
    };
    assert_eq!(client.delete_group(delete).await?.cancelled, 0);
    assert!(store.group("default", "leaving").await?.is_none());
    assert_eq!(store.shard_groups(&shard).await?.len(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_of_changes_and_ends_with_the_group() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    fleet.group("seen", wire::GroupSettings::default()).await?;
    let client = fleet.client(0)?;
    let mut watch = client.watch("seen");
    let mut next = async || -> Result<wire::GroupFigures> {
        Ok(tokio::time::timeout(PATIENCE, watch.next()).await??)
    };
    assert_eq!(next().await?.published_total, 0);
    // Also without a change, within 5 s.
    assert_eq!(next().await?.published_total, 0);
    fleet.publish("seen", message("t", "a")).await?;
    while next().await?.published_total == 0 {}
    let got = fleet.fetch("seen", "puller", 1).await?;
    fleet.settle("seen", got.iter().map(ack).collect()).await?;
    while next().await?.acked_total == 0 {}
    let request = wire::StatsRequest {
        group: "seen".into(),
    };
    let stats = client.stats(request).await?;
    assert_eq!(stats.figures.context("figures")?.acked_total, 1);
    assert_eq!(stats.minutes.len(), 1);
    assert_eq!((stats.minutes[0].acked, stats.minutes[0].failed), (1, 0));
    let delete = wire::DeleteGroupRequest {
        name: "seen".into(),
        force: true,
    };
    client.delete_group(delete).await?;
    let end = loop {
        if let Err(end) = next().await {
            break end;
        }
    };
    let reason = end.downcast::<CallError>()?.fault().reason;
    assert!(
        [Reason::GroupGone, Reason::GroupNotFound].contains(&reason),
        "{reason:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_at_the_next_gateway() -> Result<()> {
    let mut fleet = Fleet::start(Aof::Off, 2, 0).await?;
    fleet.group("seen", wire::GroupSettings::default()).await?;
    let client = Client::builder(fleet.urls(0).parse()?)
        .call_deadline(Duration::from_secs(3))
        .build()?;
    let mut watch = client.watch("seen");
    let mut next = async || tokio::time::timeout(PATIENCE, watch.next()).await;
    assert_eq!(next().await??.published_total, 0);
    fleet.gateways[0].kill9()?;
    let publish = wire::PublishRequest {
        group: "seen".into(),
        message: Some(message("t", "a")),
        ..wire::PublishRequest::default()
    };
    fleet.client(1)?.publish(publish).await?;
    while next().await??.published_total == 0 {}
    // With nobody left to answer it ends, in bounded time.
    fleet.gateways[1].kill9()?;
    let end = loop {
        if let Err(end) = next().await? {
            break end;
        }
    };
    assert!(matches!(end, CallError::Unreachable { .. }), "{end}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_group_starts_at_the_earliest_message_or_at_the_latest() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    fleet.group("first", wire::GroupSettings::default()).await?;
    let client = fleet.client(0)?;
    let publish = async |payload: &'static str| {
        let request = wire::PublishRequest {
            stream: "s".into(),
            message: Some(message("t", payload)),
            ..wire::PublishRequest::default()
        };
        client.publish(request).await
    };
    for _ in 0..3 {
        publish("old").await?;
    }
    for (name, start) in [
        ("early", wire::StartPosition::Earliest),
        ("late", wire::StartPosition::Latest),
    ] {
        let request = wire::CreateGroupRequest {
            name: name.into(),
            stream_name: "s".into(),
            agent_type: "tester".into(),
            start: start.into(),
            ..wire::CreateGroupRequest::default()
        };
        client.create_group(request).await?;
    }
    publish("new").await?;
    assert_eq!(fleet.figures("early").await?.lag, 4);
    assert_eq!(fleet.figures("late").await?.lag, 1);
    let mut early = Vec::new();
    for delivery in fleet.fetch_all("early", "e", 4).await? {
        early.push(text_of(&delivery)?);
    }
    assert_eq!(early, ["old", "old", "old", "new"]);
    let late = fleet.fetch("late", "l", 10).await?;
    assert_eq!(late.len(), 1);
    assert_eq!(text_of(&late[0])?, "new");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_takes_as_many_consumers_as_it_may() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 2, 0).await?;
    let settings = wire::GroupSettings {
        max_consumers: Some(2),
        ..wire::GroupSettings::default()
    };
    fleet.group("small", settings).await?;
    let client = fleet.client(0)?;
    let streaming = Member::join(&client, 0, join("small", "a")).await?;
    let add = |consumer: &str| wire::AddConsumerRequest {
        group: "small".into(),
        consumer_id: consumer.into(),
        capabilities: vec!["gpu".into()],
    };
    let added = client
        .add_consumer(add("b"))
        .await?
        .consumer
        .context("the new member")?;
    assert_eq!(
        (added.kind(), added.capabilities),
        (wire::ConsumerKind::Pull, vec!["gpu".into()])
    );
    let full = client
        .add_consumer(add("c"))
        .await
        .expect_err("the group is full");
    assert_eq!(full.fault().reason, Reason::GroupFull);
    let Err(full) = Member::join(&client, 1, join("small", "c")).await else {
        anyhow::bail!("the group is full");
    };
    assert_eq!(full.reason, Reason::GroupFull);
    assert!(full.retry_after.is_some());
    let list = wire::ListConsumersRequest {
        group: "small".into(),
    };
    let listed = client.list_consumers(list).await?.consumers;
    assert_eq!(
        listed
            .iter()
            .map(|one| one.consumer_id.as_str())
            .collect::<Vec<_>>(),
        ["a", "b"]
    );
    streaming.leave().await?;
    fleet.members("small", 1).await?;
    Member::join(&client, 1, join("small", "c"))
        .await?
        .leave()
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_consumer_gives_back_what_it_held() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    let settings = wire::GroupSettings {
        max_attempts: Some(1),
        ..wire::GroupSettings::default()
    };
    fleet.group("shrinking", settings).await?;
    let client = fleet.client(0)?;
    for n in 0..3 {
        fleet
            .publish("shrinking", message("t", n.to_string()))
            .await?;
    }
    let held = fleet.fetch("shrinking", "puller", 3).await?;
    assert_eq!(held.len(), 3);
    let remove = wire::RemoveConsumerRequest {
        group: "shrinking".into(),
        consumer_id: "puller".into(),
    };
    assert_eq!(client.remove_consumer(remove.clone()).await?.released, 3);
    let missing = client
        .remove_consumer(remove)
        .await
        .expect_err("it is gone");
    assert_eq!(missing.fault().reason, Reason::ConsumerNotFound);
    assert_eq!(
        fleet.settle("shrinking", vec![ack(&held[0])]).await?,
        [wire::SettleStatus::StaleLease]
    );
    let seen = Seen::default();
    let agent = Agent::acking(fleet.client(0)?, "shrinking", "a", &seen, |builder| {
        builder.grace(Duration::from_secs(1))
    });
    let figures = fleet.drained("shrinking").await?;
    assert_eq!(
        (
            figures.acked_total,
            figures.dead_total,
            figures.failed_total
        ),
        (3, 0, 0)
    );
    agent.stop().await
}
