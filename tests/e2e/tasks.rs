//! Tasks of workflows on their way through a gateway: what the router sends, an agent does, and the
//! router is told.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use hive_client::{Job, Outcome, message, wire};
use hive_protocol::time::to_duration;
use hive_store::{
    Shard, Store,
    header::{GROUP_BACKOFF, Header},
    tasks::{Dispatched, Resolved, SettledRecord, SettledWhat, TaskEntry, TaskOutcome, TaskTarget},
};
use hive_testkit::{redis::Aof, wait};
use prost::Message as _;
use tokio::sync::mpsc;
use wire::{SettleStatus, outcome::Action};

use crate::{
    fleet::{Agent, Fleet, PATIENCE},
    member::{Member, ack, join, outcome, verdicts},
};

/// How soon an agent hears that its task was decided elsewhere.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

struct Tasks {
    fleet: Fleet,
    store: Store,
    shard: Shard,
}

impl Tasks {
    /// A fleet with so many gateways and the group `work`.
    async fn start(gateways: usize, settings: wire::GroupSettings) -> Result<Self> {
        let fleet = Fleet::start(Aof::Off, gateways, 0).await?;
        fleet.group("work", settings).await?;
        let store = fleet.store()?;
        let shard = store.shard("default", "s", 0);
        Ok(Self {
            fleet,
            store,
            shard,
        })
    }

    /// Does the router's part.
    async fn dispatch(&self, keys: &[&str]) -> Result<()> {
        let entries: Vec<TaskEntry> = keys.iter().map(|key| entry(key)).collect();
        let target = TaskTarget {
            group: "work",
            max_backlog: 1_000,
            max_backlog_bytes: 1 << 30,
            durable: false,
        };
        let done = self
            .store
            .dispatch_tasks(&self.shard, target, 0, &entries, 0)
            .await?;
        let added = u32::try_from(keys.len())?;
        assert_eq!(done, Dispatched::Done { added });
        Ok(())
    }

    async fn resolve(&self, key: &str) -> Result<Resolved> {
        let (outcome, why) = (TaskOutcome::Cancelled, Bytes::from_static(b"not wanted"));
        let resolved = self
            .store
            .resolve_task(&self.shard, "work", key, outcome, why);
        Ok(resolved.await?)
    }

    async fn settled(&self) -> Result<Vec<SettledRecord>> {
        Ok(self.store.read_settled(&self.shard, "0-0", 1_000).await?)
    }

    /// Waits for so many records.
    async fn told(&self, count: usize) -> Result<Vec<SettledRecord>> {
        let told = wait::try_until(PATIENCE, "the records", || async {
            let records = self.settled().await?;
            anyhow::ensure!(records.len() >= count, "{records:?}");
            anyhow::Ok(records)
        });
        Ok(told.await?)
    }
}

fn entry(key: &str) -> TaskEntry {
    let header = Header {
        priority: 4,
        max_attempts: 0,
        initial_backoff_ms: GROUP_BACKOFF,
        max_backoff_ms: GROUP_BACKOFF,
        expires_at_ms: 0,
        ordering_key: "".into(),
        dispatch_key: key.into(),
    };
    let envelope = wire::Message {
        message_id: key.into(),
        ..message("task", "do it")
    };
    TaskEntry {
        dispatch_key: key.into(),
        awaits_signal: false,
        priority: 4,
        capabilities: String::new(),
        body: header.join(&envelope.encode_to_vec()),
    }
}

fn started(record: &SettledRecord) -> Option<(&str, u64)> {
    match &record.what {
        SettledWhat::Started {
            consumer,
            deliveries,
        } => Some((consumer, *deliveries)),
        SettledWhat::Ended { .. } => None,
    }
}

fn ended(record: &SettledRecord) -> Option<(TaskOutcome, Bytes)> {
    match &record.what {
        SettledWhat::Started { .. } => None,
        SettledWhat::Ended { outcome, detail } => Some((*outcome, detail.clone())),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_gives_for_a_task_comes_to_the_router_whole() -> Result<()> {
    let tasks = Tasks::start(1, wire::GroupSettings::default()).await?;
    let more = wire::TaskSpec {
        id: "next".into(),
        ..wire::TaskSpec::default()
    };
    let added = more.clone();
    let work = move |job: Job| {
        let added = added.clone();
        async move {
            match job.message.message_id.as_str() {
                "r/0/1" => Outcome::ack_with("result", vec![added]),
                "r/1/1" => Outcome::suspend("which one?", "state"),
                _ => Outcome::done(),
            }
        }
    };
    let agent = Agent::working(tasks.fleet.client(0)?, "work", "a", work, |worker| worker);
    for key in ["r/0/1", "r/1/1", "r/2/1"] {
        tasks.dispatch(&[key]).await?;
    }
    let records = tasks.told(6).await?;
    let of = |key: &str| {
        let mine = records.iter().filter(|record| record.dispatch_key == key);
        let mine: Vec<&SettledRecord> = mine.collect();
        assert_eq!(mine.len(), 2, "{mine:?}");
        assert_eq!(started(mine[0]), Some(("a", 1)));
        ended(mine[1]).expect("an end")
    };
    let given = wire::Ack {
        result: "result".into(),
        add_tasks: vec![more],
    };
    let asked = wire::Suspend {
        prompt: "which one?".into(),
        state: "state".into(),
    };
    assert_eq!(
        of("r/0/1"),
        (TaskOutcome::Succeeded, given.encode_to_vec().into())
    );
    assert_eq!(
        of("r/1/1"),
        (TaskOutcome::Suspended, asked.encode_to_vec().into())
    );
    assert_eq!(of("r/2/1"), (TaskOutcome::Succeeded, Bytes::new()));
    tasks.fleet.drained("work").await?;
    agent.stop.cancel();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_decided_elsewhere_is_taken_from_its_agent_at_once() -> Result<()> {
    // The agent is at the other gateway than the one that would hear of it alone.
    let tasks = Tasks::start(2, wire::GroupSettings::default()).await?;
    let (begun, mut begins) = mpsc::unbounded_channel::<Option<Instant>>();
    let work = move |job: Job| {
        let begun = begun.clone();
        async move {
            begun.send(None).expect("the test listens");
            job.cancelled.cancelled().await;
            let stopped = Some(Instant::now());
            begun.send(stopped).expect("the test listens");
            Outcome::ack("too late")
        }
    };
    let agent = Agent::working(tasks.fleet.client(1)?, "work", "a", work, |worker| worker);
    tasks.dispatch(&["r/0/1"]).await?;
    assert_eq!(begins.recv().await, Some(None));
    let asked = Instant::now();
    let resolved = tasks.resolve("r/0/1").await?;
    let Resolved::Ended {
        holder: Some(holder),
    } = resolved
    else {
        panic!("{resolved:?}");
    };
    assert_eq!((holder.consumer.as_str(), holder.deliveries), ("a", 1));
    let stopped = tokio::time::timeout(PATIENCE, begins.recv()).await?;
    let stopped = stopped.flatten().context("the handler was stopped")?;
    assert!(stopped - asked < HEARD_WITHIN, "{:?}", stopped - asked);
    // Its place is free again, and what it answered changed nothing.
    tasks.dispatch(&["r/1/1"]).await?;
    assert_eq!(begins.recv().await, Some(None));
    let records = tasks.told(3).await?;
    let outcomes: Vec<TaskOutcome> = records.iter().filter_map(ended).map(|end| end.0).collect();
    assert_eq!(outcomes, [TaskOutcome::Cancelled]);
    agent.stop.cancel();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_dies_at_work_leaves_its_task_to_another_and_one_outcome() -> Result<()> {
    let settings = wire::GroupSettings {
        reconnect_grace: Some(to_duration(0)),
        initial_backoff: Some(to_duration(10)),
        max_backoff: Some(to_duration(20)),
        ..wire::GroupSettings::default()
    };
    let tasks = Tasks::start(1, settings).await?;
    let client = tasks.fleet.client(0)?;
    let mut first = Member::join(&client, 0, join("work", "a")).await?;
    first.credit(1).await?;
    tasks.dispatch(&["r/0/1"]).await?;
    let taken = first.deliveries(1).await?.remove(0);
    drop(first);
    let mut second = Member::join(&client, 0, join("work", "b")).await?;
    second.credit(1).await?;
    let again = second.deliveries(1).await?.remove(0);
    assert_eq!(again.attempt, 2);
    let late = tasks.fleet.settle("work", vec![ack(&taken)]).await?;
    assert_eq!(late, [SettleStatus::StaleLease]);
    let settled = second.settle(vec![ack(&again)]).await?;
    assert_eq!(verdicts(&settled), [SettleStatus::Ok]);
    let records = tasks.told(3).await?;
    let starts: Vec<(&str, u64)> = records.iter().filter_map(started).collect();
    assert_eq!(starts, [("a", 1), ("b", 2)]);
    let ends: Vec<TaskOutcome> = records.iter().filter_map(ended).map(|end| end.0).collect();
    assert_eq!(ends, [TaskOutcome::Succeeded]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_task_can_be_suspended_or_add_tasks() -> Result<()> {
    let tasks = Tasks::start(1, wire::GroupSettings::default()).await?;
    let client = tasks.fleet.client(0)?;
    let mut member = Member::join(&client, 0, join("work", "a")).await?;
    member.credit(1).await?;
    tasks.fleet.publish("work", message("plain", "")).await?;
    let taken = member.deliveries(1).await?.remove(0);
    let suspend = Action::Suspend(wire::Suspend::default());
    let adding = Action::Ack(wire::Ack {
        result: Bytes::new(),
        add_tasks: vec![wire::TaskSpec::default()],
    });
    for action in [suspend, adding] {
        let refused = member.settle(vec![outcome(&taken.lease, action.clone())]);
        assert_eq!(verdicts(&refused.await?), [SettleStatus::Invalid]);
        let refused = tasks
            .fleet
            .settle("work", vec![outcome(&taken.lease, action)]);
        assert_eq!(refused.await?, [SettleStatus::Invalid]);
    }
    let settled = member.settle(vec![ack(&taken)]).await?;
    assert_eq!(verdicts(&settled), [SettleStatus::Ok], "it was kept");
    assert!(tasks.settled().await?.is_empty());
    Ok(())
}
