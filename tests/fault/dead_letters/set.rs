//! Dead-letter workers over a world, agents that fail as they are told, and what is to be seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use hive_client::{Client, Job, Outcome, Publisher, Target, Work, WorkError, Worker, wire};
use hive_protocol::time::to_duration;
use hive_store::header::Header;
use hive_testkit::{daemon::Daemon, redis::RedisBuilder, wait};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::DeadLetterStatus;

use crate::world::{PATIENCE, STREAM, World};

/// The group whose messages die.
pub(crate) const GROUP: &str = "failing";
/// Nothing goes back by itself.
const BY_HAND: &str = "[recovery]\nmax_auto_replays = 0\n";

/// A world with dead-letter workers.
pub(crate) struct Set {
    pub(crate) world: World,
    pub(crate) workers: Vec<Daemon>,
    policy: tempfile::NamedTempFile,
}

impl Set {
    /// A Redis, so many gateways and workers, and a coordinator.
    pub(crate) async fn start(
        redis: RedisBuilder,
        (gateways, workers): (usize, usize),
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let policy = tempfile::NamedTempFile::new()?;
        std::fs::write(policy.path(), BY_HAND)?;
        let mut set = Self {
            world: World::start(redis, gateways, 1).await?,
            workers: Vec::new(),
            policy,
        };
        let url = set.world.redis.url();
        for _ in 0..workers {
            set.add_worker(&url, environment).await?;
        }
        Ok(set)
    }

    /// Starts one more worker, on this way to the Redis.
    pub(crate) async fn add_worker(
        &mut self,
        redis_url: &str,
        environment: &[(&str, &str)],
    ) -> Result<()> {
        let path = self.policy.path().to_str().context("a path")?;
        let mut all = vec![("HIVE_DEAD_LETTERS_POLICY_FILE", path)];
        all.extend_from_slice(environment);
        let worker = Daemon::start("hive-dlq", redis_url, &all).await?;
        self.workers.push(worker);
        Ok(())
    }

    /// Creates a group on a stream.
    pub(crate) async fn group(
        &self,
        stream: &str,
        name: &str,
        settings: wire::GroupSettings,
    ) -> Result<()> {
        let request = wire::CreateGroupRequest {
            name: name.into(),
            stream_name: stream.into(),
            agent_type: "tester".into(),
            settings: Some(settings),
            ..wire::CreateGroupRequest::default()
        };
        self.world.client(0)?.create_group(request).await?;
        Ok(())
    }

    /// Waits for an answer of a worker.
    pub(crate) async fn statistics(&self) -> Result<wire::GetDeadLetterStatisticsResponse> {
        let client = self.world.client(0)?;
        let asked = wait::try_until(PATIENCE, "a worker to answer", || async {
            client.dead_letter_statistics().await
        });
        Ok(asked.await?)
    }

    /// Waits until so many records are kept, and no more.
    pub(crate) async fn taken_in(&self, count: u64, patience: Duration) -> Result<()> {
        let client = self.world.client(0)?;
        let come = wait::try_until(patience, "what died to be taken in", || async {
            let figures = client.dead_letter_statistics().await?;
            ensure!(figures.records == count, "{} of {count}", figures.records);
            anyhow::Ok(())
        });
        Ok(come.await?)
    }

    /// All dead letters, the newest first, by their ids.
    pub(crate) async fn all(&self) -> Result<BTreeMap<String, wire::DeadLetter>> {
        let filter = wire::DeadLetterFilter::default();
        let client = self.world.client(0)?;
        let mut letters = client.dead_letters(filter).page(500).with_payloads();
        let mut found = BTreeMap::new();
        while let Some(letter) = letters.next().await? {
            let id = letter.dlq_id.clone();
            let before = found.insert(id, letter);
            ensure!(before.is_none(), "{before:?} is listed twice");
        }
        Ok(found)
    }

    /// Sets the status of one.
    pub(crate) async fn set_status(&self, id: &str, status: DeadLetterStatus) -> Result<()> {
        let request = wire::SetDeadLetterStatusRequest {
            dlq_id: id.into(),
            status: status.into(),
            ..wire::SetDeadLetterStatusRequest::default()
        };
        let client = self.world.client(0)?;
        client.set_dead_letter_status(request).await?;
        Ok(())
    }

    /// Ids of the messages that died on the stream, and that no worker has taken in.
    pub(crate) async fn waiting(&self) -> Result<Vec<String>> {
        let store = self.world.store()?;
        let shard = store.shard("default", STREAM, 0);
        let mut after = store.dead_taken(&shard).await?;
        let mut ids = Vec::new();
        loop {
            let page = store.dead_letters(&shard, &after, 500).await?;
            let Some(last) = page.last() else {
                return Ok(ids);
            };
            after.clone_from(&last.id);
            for dead in page {
                let (_, envelope) = Header::split(&dead.body)?;
                ids.push(wire::Message::decode(envelope)?.message_id);
            }
        }
    }

    /// What is counted must be what is there: every record of a full listing.
    pub(crate) async fn counts_are_true(&self) -> Result<BTreeMap<String, wire::DeadLetter>> {
        let figures = self.statistics().await?;
        let all = self.all().await?;
        let mut counts = [const { BTreeMap::<String, u64>::new() }; 4];
        let mut live = 0;
        for letter in all.values() {
            let status = letter.status();
            let word = status
                .as_str_name()
                .trim_start_matches("DEAD_LETTER_STATUS_");
            let is_live = !matches!(
                status,
                DeadLetterStatus::Replayed | DeadLetterStatus::Archived
            );
            let mut names = vec![(0, word.to_lowercase())];
            if is_live {
                live += 1;
                names.push((1, letter.category.clone()));
                names.push((2, letter.group.clone()));
                names.push((3, letter.stream.clone()));
            }
            for (which, name) in names {
                let counts: &mut BTreeMap<String, u64> = &mut counts[which];
                *counts.entry(name).or_default() += 1;
            }
        }
        let told = [
            &figures.by_status,
            &figures.by_category,
            &figures.by_group,
            &figures.by_stream,
        ];
        for (told, counted) in told.into_iter().zip(&counts) {
            let told = told.iter().map(|one| (one.name.clone(), one.count));
            let told: BTreeMap<String, u64> = told.filter(|(_, count)| *count > 0).collect();
            ensure!(told == *counted, "{told:?} is told, {counted:?} is there");
        }
        ensure!(figures.total == live, "{} of {live}", figures.total);
        ensure!(usize::try_from(figures.records)? == all.len());
        Ok(all)
    }
}

/// Messages that a test handled, with when each came.
#[derive(Default)]
pub(crate) struct Handled {
    seen: Mutex<Vec<(Instant, wire::Message)>>,
}

impl Handled {
    pub(crate) fn note(&self, message: &wire::Message) {
        self.seen.lock().push((Instant::now(), message.clone()));
    }

    /// Different messages so far.
    pub(crate) fn count(&self) -> usize {
        let seen = self.seen.lock();
        let ids = seen.iter().map(|(_, message)| message.message_id.as_str());
        ids.collect::<BTreeSet<_>>().len()
    }

    /// All of them, each as often as it came.
    pub(crate) fn all(&self) -> Vec<(Instant, wire::Message)> {
        self.seen.lock().clone()
    }
}

struct Doing<F>(F);

impl<F> Work for Doing<F>
where
    F: Fn(&Job) -> Outcome + Send + Sync + 'static,
{
    async fn work(&self, job: Job) -> Outcome {
        (self.0)(&job)
    }
}

/// An agent of this process.
pub(crate) struct Agent {
    stop: CancellationToken,
    task: JoinHandle<Result<hive_client::Ended, WorkError>>,
}

impl Agent {
    /// Starts one that does with each message what the function says.
    pub(crate) fn start<F>(client: Client, group: &str, id: &str, verdict: F) -> Self
    where
        F: Fn(&Job) -> Outcome + Send + Sync + 'static,
    {
        let stop = CancellationToken::new();
        let worker = Worker::builder(client, group, Doing(verdict))
            .consumer_id(id)
            .concurrency(64)
            .shutdown(stop.clone())
            .build();
        #[expect(clippy::disallowed_methods, reason = "a test has no chassis")]
        let task = tokio::spawn(worker.run());
        Self { stop, task }
    }

    pub(crate) async fn stop(self) -> Result<()> {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.task).await;
        ended.context("an agent stops")???;
        Ok(())
    }
}

/// Settings of a group whose messages die of so many failed attempts.
pub(crate) fn attempts(count: u32) -> wire::GroupSettings {
    wire::GroupSettings {
        max_attempts: Some(count),
        initial_backoff: Some(to_duration(20)),
        max_backoff: Some(to_duration(100)),
        ..wire::GroupSettings::default()
    }
}

/// Publishes these at so many a second; answers when each was handed over, by its id.
pub(crate) async fn publish(
    client: &Client,
    target: Target,
    messages: Vec<wire::Message>,
    rate: u32,
) -> Result<BTreeMap<String, Instant>> {
    const EVERY: Duration = Duration::from_millis(10);
    let publisher = Publisher::builder(client, target).window(100_000).build();
    let mut ticks = tokio::time::interval(EVERY);
    let (mut sent, mut pending, mut owed) = (BTreeMap::new(), Vec::new(), 0);
    for message in messages {
        while owed < 1_000 {
            ticks.tick().await;
            owed += rate * 10;
        }
        owed -= 1_000;
        sent.insert(message.message_id.clone(), Instant::now());
        pending.push(publisher.enqueue(message).await?);
    }
    for answer in pending {
        answer.await?;
    }
    publisher.close().await;
    Ok(sent)
}

/// What so many of a hundred stay below.
pub(crate) fn percentile(times: &[Duration], of_100: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * of_100).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

/// A number of the environment that `scripts/torture` sets.
pub(crate) fn number(name: &str, default: u64) -> Result<u64> {
    match env::var(name) {
        Ok(text) => text
            .parse()
            .with_context(|| format!("{name} `{text}` must be a number")),
        Err(_) => Ok(default),
    }
}

/// Figures of a run, for the one who reads its output.
#[expect(clippy::print_stderr, reason = "figures belong beside the test")]
pub(crate) fn tell(text: &str) {
    eprintln!("dead letters: {text}");
}

/// Nothing handled yet; shared with agents.
pub(crate) fn handled() -> Arc<Handled> {
    Arc::default()
}
