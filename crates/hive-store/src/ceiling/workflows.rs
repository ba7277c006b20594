//! The ceiling of workflows: the scripts that a task passes through, and nothing between them.
//!
//! Each task is dispatched, fetched, acked, and its start and its end are committed to its run, by
//! the calls that daemons make, a hundred tasks at a time, as a run of many tasks makes them. There
//! is no gateway, no agent, no machine of a run and no bell.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::try_join_all;
use hive_domain::{
    group::{GroupDefinition, GroupSettings, GroupState, Start},
    time::Timestamp,
};

use crate::{
    Lease, Store, StoreConfig, StoreError,
    fetch::{Fetch, Fetched, Taker},
    header::{GROUP_BACKOFF, Header},
    keys::Shard,
    lease::size_of_body,
    members::{Joined, Joining, Kind},
    runs::{Commit, Committed, NewRun, Partition, Step},
    settle::{Action, Settle, SettleGroup},
    tasks::{TaskEntry, TaskTarget},
};

/// Tasks of one call.
const BATCH: u32 = 100;
/// Runs that are worked off side by side.
const RUNS: u32 = 4;
/// Bytes of a task's record, as routers write it.
const RECORD_BYTES: usize = 44;
const LEASE_MS: u64 = 30_000;

/// How long `tasks` tasks took, from the first dispatch to the last commit.
///
/// # Errors
/// What Redis says.
pub async fn workflows(url: &str, prefix: &str, tasks: u32) -> Result<Duration, StoreError> {
    let store = Store::open(StoreConfig {
        url: url.to_owned(),
        prefix: prefix.to_owned(),
        ..StoreConfig::default()
    })?;
    let each = tasks.div_ceil(RUNS).next_multiple_of(BATCH);
    let started = Instant::now();
    try_join_all((0..RUNS).map(|number| work_off(&store, number, each))).await?;
    let elapsed = started.elapsed();
    // What was measured is the tasks asked for.
    let done = f64::from(each.saturating_mul(RUNS));
    Ok(elapsed.mul_f64(f64::from(tasks) / done))
}

/// Everything of one run.
struct Line<'a> {
    store: &'a Store,
    shard: Shard,
    partition: Partition,
    run_id: String,
    version: u64,
    taker: Taker,
}

async fn work_off(store: &Store, number: u32, tasks: u32) -> Result<(), StoreError> {
    let mut line = Line::open(store, number, tasks).await?;
    for first in (0..tasks).step_by(usize::try_from(BATCH).unwrap_or(1)) {
        line.batch(first).await?;
    }
    Ok(())
}

impl<'a> Line<'a> {
    async fn open(store: &'a Store, number: u32, tasks: u32) -> Result<Self, StoreError> {
        let shard = store.shard("ceiling", &format!("s{number}"), 0);
        let definition = GroupDefinition {
            name: "g".into(),
            stream: "s".into(),
            agent_type: "any".into(),
            shards: 1,
            start: Start::Earliest,
            state: GroupState::Active,
            created_at: Timestamp::default(),
            version: 1,
            settings: GroupSettings::default(),
        };
        store.create_on_shard(&shard, &definition).await?;
        let joining = Joining {
            group: "g",
            consumer: "c",
            session: "000000000000000000000000",
            resume: None,
            kind: Kind::Stream,
            gateway: "gw",
            concurrency: BATCH,
            capabilities: &[],
            max_consumers: 1,
            lease_ms: LEASE_MS,
            pod: "",
        };
        let Joined::Member {
            session, attach, ..
        } = store.join(&shard, &joining).await?
        else {
            return Err(StoreError::reply("join"));
        };
        let partition = store.partition("ceiling", number);
        let run_id = format!("{number}-0");
        let new = NewRun {
            workflow_id: "w".into(),
            run_id: run_id.clone(),
            digest: "d".into(),
            plan: Bytes::from_static(b"{}"),
            states: vec![0; RECORD_BYTES * usize::try_from(tasks).unwrap_or(0)].into(),
            status: "running".into(),
            ..NewRun::default()
        };
        store.create_run(&partition, &new, false, 0).await?;
        Ok(Self {
            store,
            shard,
            partition,
            run_id,
            version: 1,
            taker: Taker {
                consumer: "c".into(),
                session: session.into(),
                attach,
                capabilities: [].into(),
            },
        })
    }

    /// A hundred tasks, from their dispatch to their end.
    async fn batch(&mut self, first: u32) -> Result<(), StoreError> {
        let numbers = first..first + BATCH;
        let owed = self.commit(numbers.clone(), BATCH, &[]).await?;
        let entries: Vec<TaskEntry> = numbers.clone().map(|task| self.entry(task)).collect();
        let target = TaskTarget {
            group: "g",
            max_backlog: u64::MAX >> 11,
            max_backlog_bytes: u64::MAX >> 11,
            durable: false,
        };
        self.store
            .dispatch_tasks(&self.shard, target, 0, &entries, 0)
            .await?;
        self.store.clear_outbox(&self.partition, &owed).await?;
        self.fetch_and_ack().await?;
        let after = self.store.settled_applied(&self.shard).await?;
        let count = usize::try_from(BATCH).unwrap_or(0) * 2;
        let records = self.store.read_settled(&self.shard, &after, count).await?;
        self.commit(numbers.clone(), 0, &[]).await?;
        let results: Vec<(u32, Bytes)> = numbers
            .clone()
            .map(|task| (task, Bytes::from_static(b"{\"ok\":true}")))
            .collect();
        self.commit(numbers, 0, &results).await?;
        if let Some(last) = records.last() {
            self.store
                .advance_settled(&self.shard, &after, &last.id)
                .await?;
        }
        Ok(())
    }

    /// One step of the run, in which so many tasks change and so many are owed.
    async fn commit(
        &mut self,
        tasks: std::ops::Range<u32>,
        owed: u32,
        results: &[(u32, Bytes)],
    ) -> Result<Vec<String>, StoreError> {
        let record = Bytes::from_static(&[1; RECORD_BYTES]);
        let history = Bytes::from_static(b"{\"t\":1000,\"w\":\"succeeded\",\"a\":1}");
        let step = Step {
            head: vec![("machine".into(), Bytes::from_static(&[b'x'; 200]))],
            states: tasks.clone().map(|task| (task, record.clone())).collect(),
            notes: tasks
                .clone()
                .map(|task| {
                    (
                        task,
                        Bytes::from_static(b"{\"s\":\"stream\",\"g\":\"group\"}"),
                    )
                })
                .collect(),
            results: results.to_vec(),
            outbox: (0..owed)
                .map(|task| Bytes::from(format!("dispatch {} {task} 1", self.run_id)))
                .collect(),
            history: tasks.map(|_| history.clone()).collect(),
            ..Step::default()
        };
        let commit = Commit {
            run_id: &self.run_id,
            version: self.version,
            record_bytes: RECORD_BYTES,
            status: ("running", "running"),
            has_ended: false,
            durable: false,
        };
        let committed = self.store.commit_run(&self.partition, commit, &step, 0);
        let Committed::Done { version, written } = committed.await? else {
            return Err(StoreError::reply("run_commit"));
        };
        self.version = version;
        Ok(written.owed)
    }

    fn entry(&self, task: u32) -> TaskEntry {
        let dispatch_key = format!("{}/{task}/1", self.run_id);
        let header = Header {
            priority: 4,
            max_attempts: 0,
            initial_backoff_ms: GROUP_BACKOFF,
            max_backoff_ms: GROUP_BACKOFF,
            expires_at_ms: 0,
            ordering_key: "".into(),
            dispatch_key: dispatch_key.as_str().into(),
        };
        TaskEntry {
            body: header.join(&[b'x'; 256]),
            dispatch_key,
            awaits_signal: false,
            priority: 4,
            capabilities: String::new(),
        }
    }

    async fn fetch_and_ack(&self) -> Result<(), StoreError> {
        let (lanes, all) = self.store.read_lanes(&self.shard, "g").await?;
        let mut left = BATCH;
        while left > 0 {
            let fetch = Fetch {
                group: "g",
                gateway: "gw",
                own_free: u64::from(BATCH),
                ageing_ms: 30_000,
                group_limit: 0,
                hold_ms: 0,
                known_lanes: all.all.len(),
                lanes: &lanes,
                takers: std::slice::from_ref(&self.taker),
                slots: &[(0, left)],
            };
            let Fetched::Taken { entries, .. } = self.store.fetch(&self.shard, &fetch).await?
            else {
                return Err(StoreError::reply("fetch"));
            };
            let items = entries.iter().filter_map(|taken| {
                let lease = Lease {
                    lane: lanes.get(taken.lane)?.reference.clone(),
                    id: taken.id.clone(),
                    count: taken.count,
                    consumer: self.taker.consumer.clone(),
                    session: self.taker.session.clone(),
                    delivered_ms: 0,
                    bytes: size_of_body(&taken.body),
                };
                Some(Settle {
                    lease,
                    attach: self.taker.attach,
                    check_session: true,
                    action: Action::Complete {
                        result: Bytes::from_static(b"\x0a\x0b{\"ok\":true}"),
                    },
                })
            });
            let items: Vec<Settle> = items.collect();
            let group = SettleGroup {
                name: "g",
                lanes: &lanes,
                ageing_ms: 30_000,
                max_attempts: 3,
                initial_backoff_ms: 1_000,
                max_backoff_ms: 60_000,
                durable: false,
                keep: true,
                block: false,
            };
            self.store.settle(&self.shard, group, &items, 0).await?;
            let taken = u32::try_from(items.len()).unwrap_or(left);
            if taken == 0 {
                return Err(StoreError::reply("fetch"));
            }
            left = left.saturating_sub(taken);
        }
        Ok(())
    }
}
