//! A Redis, gateways and coordinators for one test, and clients that talk to them.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use hive_client::{Client, Ended, Job, Outcome, Work, WorkError, Worker, WorkerBuilder, wire};
use hive_store::{Store, StoreConfig, dead::DeadLetter};
use hive_testkit::{
    daemon::Daemon,
    redis::{Aof, RedisServer},
    wait,
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    task::JoinHandle,
};
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
        Self::start_on(redis, gateways, coordinators).await
    }

    /// As [`Fleet::start`], on this Redis.
    pub(crate) async fn start_on(
        redis: RedisServer,
        gateways: usize,
        coordinators: usize,
    ) -> Result<Self> {
        let mut fleet = Self {
            redis,
            gateways: Vec::new(),
            coordinators: Vec::new(),
        };
        for _ in 0..gateways {
            fleet
                .gateways
                .push(Daemon::gateway(&fleet.redis.url()).await?);
        }
        for _ in 0..coordinators {
            fleet
                .coordinators
                .push(Daemon::coordinator(&fleet.redis.url()).await?);
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
        self.client(0)?
            .create_group(request)
            .await
            .context("creating the group")?;
        Ok(())
    }

    /// What the daemons keep in Redis, for looking at it.
    pub(crate) fn store(&self) -> Result<Store> {
        Ok(Store::open(StoreConfig {
            url: self.redis.url(),
            ..StoreConfig::default()
        })?)
    }

    /// The dead letters of the stream `s`, oldest first.
    pub(crate) async fn dead_letters(&self) -> Result<Vec<DeadLetter>> {
        let store = self.store()?;
        let shard = store.shard("default", "s", 0);
        Ok(store.dead_letters(&shard, "0-0", 1_000).await?)
    }

    /// Waits until the stream `s` has so many dead letters.
    pub(crate) async fn dead_letters_come(&self, count: usize) -> Result<Vec<DeadLetter>> {
        let dead = wait::try_until(PATIENCE, "the dead letters", || async {
            let dead = self.dead_letters().await?;
            anyhow::ensure!(dead.len() >= count, "there are {}", dead.len());
            anyhow::Ok(dead)
        });
        Ok(dead.await?)
    }

    /// Whether this Redis can be asked to wait for its disk (WAITAOF: from 7.2 on).
    pub(crate) async fn can_wait_for_sync(&self) -> Result<bool> {
        let info = self.store()?.info("server").await?;
        let of = |name: &str| {
            info.iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value)
        };
        let version = of("valkey_version").or_else(|| of("redis_version"));
        let mut parts = version
            .context("a version")?
            .split('.')
            .map(str::parse::<u32>);
        let mut part = || parts.next().context("a number")?.context("a number");
        Ok((part()?, part()?) >= (7, 2))
    }

    /// One command to the Redis, as a person types it; an error answer is an error.
    pub(crate) async fn redis(&self, line: &str) -> Result<String> {
        let mut connection = UnixStream::connect(self.redis.socket()).await?;
        connection
            .write_all(format!("{line}\r\n").as_bytes())
            .await?;
        let mut answer = vec![0; 64 * 1024];
        let length = connection.read(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        anyhow::ensure!(!answer.starts_with('-'), "`{line}`: {}", answer.trim_end());
        Ok(answer)
    }

    /// The figures of a group as they are now.
    pub(crate) async fn figures(&self, group: &str) -> Result<wire::GroupFigures> {
        let group = self.client(0)?.get_group(group).await?;
        group.figures.context("a group comes with figures")
    }

    /// Waits until a group has so many live members.
    pub(crate) async fn members(&self, group: &str, count: usize) -> Result<()> {
        let joined = wait::try_until(PATIENCE, "the members", || async {
            let live = self.figures(group).await?.current_consumers;
            anyhow::ensure!(usize::try_from(live)? == count, "there are {live}");
            anyhow::Ok(())
        });
        Ok(joined.await?)
    }

    /// Publishes one message to a group.
    pub(crate) async fn publish(
        &self,
        group: &str,
        message: wire::Message,
    ) -> Result<wire::PublishResponse> {
        let request = wire::PublishRequest {
            group: group.into(),
            message: Some(message),
            ..wire::PublishRequest::default()
        };
        Ok(self.client(0)?.publish(request).await?)
    }

    /// Takes messages of a group as a pull consumer.
    pub(crate) async fn fetch(
        &self,
        group: &str,
        consumer: &str,
        max_messages: u32,
    ) -> Result<Vec<wire::Delivery>> {
        let request = wire::FetchRequest {
            group: group.into(),
            consumer_id: consumer.into(),
            max_messages,
            wait: Some(hive_protocol::time::to_duration(10_000)),
            ..wire::FetchRequest::default()
        };
        Ok(self.client(0)?.fetch(request).await?.deliveries)
    }

    /// Takes so many messages of a group as a pull consumer, over several calls if need be.
    pub(crate) async fn fetch_all(
        &self,
        group: &str,
        consumer: &str,
        count: usize,
    ) -> Result<Vec<wire::Delivery>> {
        let mut taken = Vec::new();
        let end = Instant::now() + PATIENCE;
        while taken.len() < count {
            anyhow::ensure!(Instant::now() < end, "{} of {count} came", taken.len());
            let wanted = u32::try_from(count - taken.len())?;
            taken.extend(self.fetch(group, consumer, wanted).await?);
        }
        Ok(taken)
    }

    /// Settles as a pull consumer.
    pub(crate) async fn settle(
        &self,
        group: &str,
        outcomes: Vec<wire::Outcome>,
    ) -> Result<Vec<wire::SettleStatus>> {
        let request = wire::SettleRequest {
            group: group.into(),
            outcomes,
        };
        let answer = self.client(0)?.settle(request).await?;
        Ok(crate::member::verdicts(&answer.results))
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
            anyhow::ensure!(
                Instant::now() < end,
                "group `{group}` is not drained: {figures:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// What handlers saw: message id -> how often it was handled, and by whom.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<BTreeMap<String, Vec<String>>>>);

impl Seen {
    pub(crate) fn note(&self, message: &str, consumer: &str) {
        self.0
            .lock()
            .entry(message.to_owned())
            .or_default()
            .push(consumer.to_owned());
    }

    pub(crate) fn messages(&self) -> usize {
        self.0.lock().len()
    }

    /// How many messages whose id starts so.
    pub(crate) fn matching(&self, start: &str) -> usize {
        self.0
            .lock()
            .keys()
            .filter(|id| id.starts_with(start))
            .count()
    }

    pub(crate) fn twice(&self) -> Vec<String> {
        let seen = self.0.lock();
        seen.iter()
            .filter(|(_, by)| by.len() > 1)
            .map(|(id, _)| id.clone())
            .collect()
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
    /// Starts an agent that does this work.
    pub(crate) fn working<W: Work>(
        client: Client,
        group: &str,
        id: &str,
        work: W,
        tune: impl FnOnce(WorkerBuilder<W>) -> WorkerBuilder<W>,
    ) -> Self {
        let stop = CancellationToken::new();
        let builder = Worker::builder(client, group, work)
            .consumer_id(id)
            .shutdown(stop.clone());
        let worker = tune(builder).build();
        #[expect(clippy::disallowed_methods, reason = "a test has no chassis")]
        let task = tokio::spawn(worker.run());
        Self { stop, task }
    }

    /// Starts an agent that acks everything it sees.
    pub(crate) fn acking(
        client: Client,
        group: &str,
        id: &str,
        seen: &Seen,
        tune: impl FnOnce(AckingBuilder) -> AckingBuilder,
    ) -> Self {
        let work = Acking {
            seen: seen.clone(),
            consumer: id.to_owned(),
        };
        Self::working(client, group, id, work, tune)
    }

    /// Stops the agent in good order.
    pub(crate) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .context("the agent stops")???;
        Ok(())
    }
}

pub(crate) type AckingBuilder = WorkerBuilder<Acking>;

/// Acks and notes what it saw.
pub(crate) struct Acking {
    seen: Seen,
    consumer: String,
}

impl Work for Acking {
    fn work(&self, job: Job) -> impl Future<Output = Outcome> + Send {
        self.seen.note(&job.message.message_id, &self.consumer);
        async { Outcome::ack("") }
    }
}
