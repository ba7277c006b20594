//! What an operator does to the messages of a group: purging them, and replaying those of before.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hive_client::{Client, Publisher, Target, message, wire};
use hive_protocol::time::to_duration;
use hive_testkit::{redis::Aof, wait};
use wire::ReplayState;

use crate::{
    fleet::{Fleet, PATIENCE},
    member::{Member, ack, join, message_of, nack},
};

async fn purge(
    client: &Client,
    change: wire::PurgeGroupRequest,
) -> Result<wire::PurgeGroupResponse> {
    let request = wire::PurgeGroupRequest {
        name: "work".into(),
        ..change
    };
    Ok(client.purge_group(request).await?)
}

fn for_real(keep_leased: bool) -> wire::PurgeGroupRequest {
    wire::PurgeGroupRequest {
        confirm: "work".into(),
        keep_leased,
        ..wire::PurgeGroupRequest::default()
    }
}

/// A group with a message in each state: two leased, one delayed, one ready, one parked, one
/// scheduled, three waiting.
async fn in_every_state() -> Result<(Fleet, Member)> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    let settings = wire::GroupSettings {
        initial_backoff: Some(to_duration(60_000)),
        ..wire::GroupSettings::default()
    };
    fleet.group("work", settings).await?;
    let client = fleet.client(0)?;
    fleet.publish("work", message("delayed", "")).await?;
    let taken = fleet.fetch_all("work", "puller", 1).await?;
    fleet.settle("work", vec![nack(&taken[0], "later")]).await?;
    let mut member = Member::join(&client, 0, join("work", "a")).await?;
    member.credit(2).await?;
    let ordered = |name: &str| wire::Message {
        ordering_key: "k".into(),
        ..message(name, "")
    };
    fleet.publish("work", ordered("leased")).await?;
    fleet.publish("work", message("leased", "")).await?;
    member.deliveries(2).await?;
    fleet.publish("work", ordered("behind")).await?;
    for _ in 0..3 {
        fleet.publish("work", message("waiting", "")).await?;
    }
    let later = wire::Message {
        not_before: Some((std::time::SystemTime::now() + Duration::from_secs(3_600)).into()),
        ..message("scheduled", "")
    };
    fleet.publish("work", later).await?;
    Ok((fleet, member))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_of_a_purge_counts_and_changes_nothing() -> Result<()> {
    let (fleet, _member) = in_every_state().await?;
    let client = fleet.client(0)?;
    let dry = wire::PurgeGroupRequest {
        dry_run: true,
        ..wire::PurgeGroupRequest::default()
    };
    let counted = purge(&client, dry.clone()).await?;
    assert_eq!((counted.leased, counted.retrying), (2, 1));
    assert_eq!((counted.waiting, counted.scheduled), (4, 1));
    assert_eq!(counted.purged, 8);
    let spared = wire::PurgeGroupRequest {
        keep_leased: true,
        ..dry
    };
    assert_eq!(purge(&client, spared).await?.purged, 6);
    let unsure = wire::PurgeGroupRequest {
        confirm: "worK".into(),
        ..wire::PurgeGroupRequest::default()
    };
    let refused = purge(&client, unsure).await.expect_err("it is refused");
    assert!(
        format!("{refused:#}").contains("must be the name"),
        "{refused:#}"
    );
    let figures = fleet.figures("work").await?;
    assert_eq!((figures.lag, figures.pending_count), (4, 3));
    assert!(fleet.dead_letters().await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_moves_everything_to_the_dead_letters_and_tells_who_holds_it() -> Result<()> {
    let (fleet, mut member) = in_every_state().await?;
    let purged = purge(&fleet.client(0)?, for_real(false)).await?;
    assert_eq!((purged.purged, purged.more), (8, false));
    let mut cancelled = 0;
    while cancelled < 2 {
        cancelled += member.cancelled().await?.leases.len();
    }
    let dead = fleet.dead_letters_come(8).await?;
    assert_eq!(dead.len(), 8);
    assert!(dead.iter().all(|letter| letter.category == "cancelled"));
    let figures = fleet.drained("work").await?;
    assert_eq!((figures.dead_total, figures.unsettled_bytes), (8, 0));
    // The group goes on.
    member.credit(2).await?;
    fleet.publish("work", message("next", "")).await?;
    let next = member.deliveries(1).await?.remove(0);
    member.settle(vec![ack(&next)]).await?;
    assert_eq!(fleet.drained("work").await?.acked_total, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_can_leave_consumers_what_they_hold() -> Result<()> {
    let (fleet, member) = in_every_state().await?;
    let purged = purge(&fleet.client(0)?, for_real(true)).await?;
    assert_eq!(purged.purged, 6);
    let figures = fleet.figures("work").await?;
    assert_eq!((figures.lag, figures.pending_count), (0, 2));
    assert_eq!(figures.scheduled_count, 0);
    drop(member);
    Ok(())
}

async fn replay(client: &Client, id: &str) -> Result<wire::StreamReplay> {
    let get = wire::GetReplayRequest {
        stream: "s".into(),
        replay_id: id.into(),
    };
    let answer = client.get_replay(get).await?;
    answer.replay.context("a replay")
}

async fn ended(client: &Client, id: &str) -> Result<wire::StreamReplay> {
    let ended = wait::try_until(PATIENCE, "the end of the replay", || async {
        let replay = replay(client, id).await?;
        anyhow::ensure!(replay.ended_at.is_some(), "{replay:?}");
        anyhow::Ok(replay)
    });
    Ok(ended.await?)
}

fn asked(id: &str) -> wire::ReplayStreamRequest {
    wire::ReplayStreamRequest {
        stream: "s".into(),
        group: "work".into(),
        replay_id: id.into(),
        rate: 1_000,
        ..wire::ReplayStreamRequest::default()
    }
}

fn asked_for_nothing(id: &str) -> wire::ReplayStreamRequest {
    wire::ReplayStreamRequest {
        from_agents: vec!["nobody".into()],
        ..asked(id)
    }
}

/// A group that has settled so many messages to all groups and as many of its own, of two types.
async fn with_history(coordinators: usize, count: usize) -> Result<Fleet> {
    let fleet = Fleet::start(Aof::Off, 1, coordinators).await?;
    for group in ["work", "other"] {
        fleet.group(group, wire::GroupSettings::default()).await?;
    }
    let client = fleet.client(0)?;
    for target in [Target::stream("s"), Target::group("work")] {
        let publisher = Publisher::new(&client, target);
        for number in 0..count {
            let kind = if number % 2 == 0 { "even" } else { "odd" };
            publisher.publish(message(kind, "")).await?;
        }
    }
    let taken = fleet.fetch_all("work", "puller", 2 * count).await?;
    fleet
        .settle("work", taken.iter().map(ack).collect())
        .await?;
    fleet.drained("work").await?;
    Ok(fleet)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_publishes_the_history_once_more_to_one_group() -> Result<()> {
    let fleet = with_history(1, 20).await?;
    let client = fleet.client(0)?;
    let other = fleet.figures("other").await?.lag;
    client.replay_stream(asked("r")).await?;
    let done = ended(&client, "r").await?;
    assert_eq!((done.state(), done.error.as_str()), (ReplayState::Done, ""));
    assert_eq!((done.examined, done.published), (40, 40));
    let taken = fleet.fetch_all("work", "puller", 40).await?;
    for delivery in &taken {
        let message = message_of(delivery)?;
        assert!(!message.replay_of.is_empty() && message.replay_of != message.message_id);
    }
    fleet
        .settle("work", taken.iter().map(ack).collect())
        .await?;
    assert_eq!(fleet.drained("work").await?.published_total, 80);
    assert_eq!(
        fleet.figures("other").await?.lag,
        other,
        "it alone gets them"
    );
    // The same id begins nothing again, and with other settings it is refused.
    let again = client.replay_stream(asked("r")).await?.replay;
    assert_eq!(again.context("a replay")?.published, 40);
    let changed = wire::ReplayStreamRequest {
        message_types: vec!["odd".into()],
        ..asked("r")
    };
    let refused = client.replay_stream(changed).await.expect_err("it differs");
    assert!(refused.to_string().contains("other settings"), "{refused}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_takes_what_it_is_asked_for_and_passes_by_what_is_not_settled() -> Result<()> {
    let fleet = with_history(1, 10).await?;
    let client = fleet.client(0)?;
    // One waits, and one is held.
    for _ in 0..2 {
        fleet.publish("work", message("odd", "")).await?;
    }
    fleet.fetch_all("work", "puller", 1).await?;
    let request = wire::ReplayStreamRequest {
        message_types: vec!["odd".into()],
        ..asked("r")
    };
    client.replay_stream(request).await?;
    let done = ended(&client, "r").await?;
    assert_eq!((done.examined, done.published), (22, 10), "{done:?}");
    client.replay_stream(asked_for_nothing("nothing")).await?;
    let done = ended(&client, "nothing").await?;
    assert_eq!((done.state(), done.published), (ReplayState::Done, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_goes_on_after_its_coordinator_died_and_doubles_nothing() -> Result<()> {
    let mut fleet = with_history(2, 100).await?;
    let client = fleet.client(0)?;
    let slow = wire::ReplayStreamRequest {
        rate: 40,
        ..asked("r")
    };
    client.replay_stream(slow).await?;
    for _ in 0..2 {
        let before = replay(&client, "r").await?.published;
        let went_on = wait::try_until(PATIENCE, "progress", || async {
            let replay = replay(&client, "r").await?;
            anyhow::ensure!(replay.published > before + 20, "{replay:?}");
            anyhow::Ok(())
        });
        went_on.await?;
        drop(fleet.coordinators.remove(0));
        let fresh = hive_testkit::daemon::Daemon::coordinator(&fleet.redis.url()).await?;
        fleet.coordinators.push(fresh);
    }
    let done = ended(&client, "r").await?;
    assert_eq!((done.state(), done.published), (ReplayState::Done, 200));
    let figures = fleet.figures("work").await?;
    assert_eq!((figures.lag, figures.published_total), (200, 400));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_whose_progress_was_lost_publishes_nothing_twice() -> Result<()> {
    let fleet = with_history(1, 20).await?;
    let client = fleet.client(0)?;
    client.replay_stream(asked("r")).await?;
    ended(&client, "r").await?;
    let store = fleet.store()?;
    let shard = store.shard("default", "s", 0);
    let mut job = store.replay(&shard, "r").await?.context("a job")?;
    job.state = hive_store::replays::ReplayState::Running;
    (job.ended_ms, job.published, job.examined) = (0, 0, 0);
    job.lane.clear();
    job.after.clear();
    store.put_replay("default", &shard, &job).await?;
    let done = ended(&client, "r").await?;
    assert_eq!((done.examined, done.published), (40, 40));
    let figures = fleet.figures("work").await?;
    assert_eq!((figures.lag, figures.published_total), (40, 80));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_keeps_its_rate_and_can_be_cancelled() -> Result<()> {
    let fleet = with_history(1, 50).await?;
    let client = fleet.client(0)?;
    let slow = wire::ReplayStreamRequest {
        rate: 5,
        ..asked("r")
    };
    let began = Instant::now();
    client.replay_stream(slow).await?;
    let went_on = wait::try_until(PATIENCE, "10 messages", || async {
        let replay = replay(&client, "r").await?;
        anyhow::ensure!(replay.published >= 10, "{replay:?}");
        anyhow::Ok(replay)
    });
    let under_way = went_on.await?;
    // What a second gives may be saved.
    let (past, rate) = (began.elapsed().as_millis(), 5);
    assert!(
        u128::from(under_way.published) * 1_000 <= rate * (past + 1_000),
        "{past} ms: {under_way:?}"
    );
    assert_eq!(under_way.state(), ReplayState::Running);
    let cancel = wire::CancelReplayRequest {
        stream: "s".into(),
        replay_id: "r".into(),
    };
    let cancelled = client.cancel_replay(cancel.clone()).await?.replay;
    let cancelled = cancelled.context("a replay")?;
    assert_eq!(cancelled.state(), ReplayState::Cancelled);
    // The coordinator takes replays in turn: once another has ended it knows of the cancel.
    client.replay_stream(asked_for_nothing("another")).await?;
    ended(&client, "another").await?;
    let lag = fleet.figures("work").await?.lag;
    assert!(lag <= cancelled.published + 1, "{lag}: {cancelled:?}");
    let again = client.cancel_replay(cancel).await?.replay;
    assert_eq!(again.context("a replay")?.state(), ReplayState::Cancelled);
    Ok(())
}
