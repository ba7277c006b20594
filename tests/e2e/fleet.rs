//! A Redis, gateways and coordinators for one test, and clients that talk to them.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use hive_client::{Client, Job, Outcome, Worker, WorkError, Ended, wire};
use hive_testkit::{daemon::Daemon, redis::{Aof, RedisServer}};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest wait of a test for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that runs for one test.
pub(crate) struct Fleet {
    pub(crate) redis: RedisServer,
    pub(crate) gateways: Vec<Daemon>,
    pub(crate) coordinators: Vec<Daemon>,
}

impl Fleet {
    /// A Redis with this persistence, and so many gateways and coordinators.
    pub(crate) async fn start(aof: Aof, gateways: usize, coordinators: usize) -> Result<Self> {
        let redis = RedisServer::builder().aof(aof).start().await?;
        let mut fleet = Self { redis, gateways: Vec::new(), coordinators: Vec::new() };
        for _ in 0..gateways {
            fleet.gateways.push(Daemon::gateway(&fleet.redis.url()).await?);
        }
        for _ in 0..coordinators {
            fleet.coordinators.push(Daemon::coordinator(&fleet.redis.url()).await?);
        }
        Ok(fleet)
    }

    /// URLs of all gateways, the given one first.
    pub(crate) fn urls(&self, first: usize) -> String {
        let count = self.gateways.len();
        (0..count)
            .filter_map(|step| self.gateways.get((first + step) % count))
            .map(|gateway| gateway.url())
            .collect::<Vec<_>>()
            .join(",")
    }

    /// A client that prefers one gateway and knows the others.
    pub(crate) fn client(&self, first: usize) -> Result<Client> {
        Ok(Client::new(&self.urls(first))?)
    }

    /// Creates a group on the stream `s`.
    pub(crate) async fn group(&self, name: &str, settings: wire::GroupSettings) -> Result<()> {
        let request = wire::CreateGroupRequest {
            name: name.into(),
            stream_name: "s".into(),
            agent_type: "tester".into(),
            settings: Some(settings),
            ..wire::CreateGroupRequest::default()
        };
        self.client(0)?.create_group(request).await.context("creating the group")?;
        Ok(())
    }

    /// The figures of a group as they are now.
    pub(crate) async fn figures(&self, group: &str) -> Result<wire::GroupFigures> {
        let group = self.client(0)?.get_group(group).await?;
        group.figures.context("a group comes with figures")
    }

    /// Waits until nothing of a group is unsettled.
    pub(crate) async fn drained(&self, group: &str) -> Result<wire::GroupFigures> {
        let end = Instant::now() + PATIENCE;
        loop {
            let figures = self.figures(group).await;
            if let Ok(figures) = &figures
                && figures.lag + figures.pending_count + figures.scheduled_count == 0
            {
                return Ok(figures.clone());
            }
            anyhow::ensure!(Instant::now() < end, "group `{group}` is not drained: {figures:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What handlers saw: message id -> how often it was handled, and by whom.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<BTreeMap<String, Vec<String>>>>);

impl Seen {
    pub(crate) fn note(&self, message: &str, consumer: &str) {
        self.0.lock().entry(message.to_owned()).or_default().push(consumer.to_owned());
    }

    pub(crate) fn messages(&self) -> usize {
        self.0.lock().len()
    }

    pub(crate) fn twice(&self) -> Vec<String> {
        let seen = self.0.lock();
        seen.iter().filter(|(_, by)| by.len() > 1).map(|(id, _)| id.clone()).collect()
    }

    pub(crate) fn by_consumer(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for by in self.0.lock().values() {
            for consumer in by {
                *counts.entry(consumer.clone()).or_default() += 1;
            }
        }
        counts
    }
}

/// A worker in this process, stopped by its token.
pub(crate) struct Agent {
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<Result<Ended, WorkError>>,
}

impl Agent {
    /// Starts an agent that acks everything it sees.
    pub(crate) fn acking(
        client: Client,
        group: &str,
        id: &str,
        seen: &Seen,
        tune: impl FnOnce(AckingBuilder) -> AckingBuilder,
    ) -> Self {
        let stop = CancellationToken::new();
        let work = Acking { seen: seen.clone(), consumer: id.to_owned() };
        let builder = Worker::builder(client, group, work).consumer_id(id).shutdown(stop.clone());
        let worker = tune(builder).build();
        #[expect(clippy::disallowed_methods, reason = "a test has no chassis")]
        let task = tokio::spawn(worker.run());
        Self { stop, task }
    }

    /// Stops the agent in good order.
    pub(crate) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.context("the agent stops")???;
        Ok(())
    }
}

pub(crate) type AckingBuilder = hive_client::WorkerBuilder<Acking>;

/// Acks and notes what it saw.
pub(crate) struct Acking {
    seen: Seen,
    consumer: String,
}

impl hive_client::Work for Acking {
    fn work(&self, job: Job) -> impl Future<Output = Outcome> + Send {
        self.seen.note(&job.message.message_id, &self.consumer);
        async { Outcome::ack("") }
    }
}
