//! A fleet with a dead-letter worker, agents that fail as they are told, and waits.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use hive_client::{Client, Failure, Job, Outcome, Work, wire};
use hive_testkit::{daemon::Daemon, redis::Aof, wait};
use parking_lot::Mutex;

use crate::fleet::{Agent, Fleet, PATIENCE};

/// The group of the tests.
pub(crate) const GROUP: &str = "g";

/// A fleet with a dead-letter worker and a policy.
pub(crate) struct Set {
    pub(crate) fleet: Fleet,
    _dlq: Daemon,
    pub(crate) seen: Arc<Mutex<Vec<wire::Message>>>,
    _policy: tempfile::NamedTempFile,
}

/// What an agent does with a message: none for an ack.
pub(crate) type Verdict = Option<Outcome>;

struct Failing<F> {
    seen: Arc<Mutex<Vec<wire::Message>>>,
    verdict: F,
}

impl<F> Work for Failing<F>
where
    F: Fn(&Job) -> Verdict + Send + Sync + 'static,
{
    async fn work(&self, job: Job) -> Outcome {
        let verdict = (self.verdict)(&job);
        if verdict.is_none() {
            self.seen.lock().push(job.message);
        }
        verdict.unwrap_or_else(Outcome::done)
    }
}

/// A rejection with this reason.
pub(crate) fn reject(reason: &str) -> Verdict {
    Some(Outcome::reject(reason))
}

/// A failure of this category, that is the message's last attempt.
pub(crate) fn reject_as(category: &str, reason: &str) -> Verdict {
    let failure = Failure::new(reason).category(category);
    Some(Outcome::Reject { failure })
}

/// A policy under which what is transient goes back soon.
pub(crate) const QUICK: &str = "[recovery]\ninitial_ms = 200\nmax_ms = 400\n";
/// A policy under which nothing goes back by itself.
pub(crate) const BY_HAND: &str = "[recovery]\nmax_auto_replays = 0\n";

impl Set {
    pub(crate) async fn start(policy: &str, settings: wire::GroupSettings) -> Result<Self> {
        Self::start_with(policy, &[], settings).await
    }

    /// As `start`, with environment for the worker.
    pub(crate) async fn start_with(
        policy: &str,
        environment: &[(&str, &str)],
        settings: wire::GroupSettings,
    ) -> Result<Self> {
        let fleet = Fleet::start(Aof::Off, 1, 1).await?;
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), policy)?;
        let path = file.path().to_str().context("a path")?;
        let mut all = vec![("HIVE_DEAD_LETTERS_POLICY_FILE", path)];
        all.extend_from_slice(environment);
        let dlq = Daemon::start("hive-dlq", &fleet.redis.url(), &all).await?;
        fleet.group(GROUP, settings).await?;
        let client = fleet.client(0)?;
        let is_there = || async {
            client.dead_letter_statistics().await?;
            anyhow::Ok(())
        };
        wait::try_until(PATIENCE, "the worker to be known", is_there).await?;
        Ok(Self {
            fleet,
            _dlq: dlq,
            seen: Arc::default(),
            _policy: file,
        })
    }

    pub(crate) fn client(&self) -> Result<Client> {
        self.fleet.client(0)
    }

    /// An agent that does with each message what the function says.
    pub(crate) fn agent<F>(&self, verdict: F) -> Result<Agent>
    where
        F: Fn(&Job) -> Verdict + Send + Sync + 'static,
    {
        let work = Failing {
            seen: Arc::clone(&self.seen),
            verdict,
        };
        Ok(Agent::working(
            self.client()?,
            GROUP,
            "agent",
            work,
            |one| one.concurrency(16),
        ))
    }

    pub(crate) async fn publish(&self, message: wire::Message) -> Result<String> {
        Ok(self.fleet.publish(GROUP, message).await?.message_id)
    }

    /// All dead letters, the newest first.
    pub(crate) async fn all(
        &self,
        filter: wire::DeadLetterFilter,
    ) -> Result<Vec<wire::DeadLetter>> {
        let mut letters = self.client()?.dead_letters(filter);
        let mut found = Vec::new();
        while let Some(letter) = letters.next().await? {
            found.push(letter);
        }
        Ok(found)
    }

    /// Waits for so many dead letters.
    pub(crate) async fn come(&self, count: usize) -> Result<Vec<wire::DeadLetter>> {
        let come = wait::try_until(PATIENCE, "the dead letters", || async {
            let found = self.all(wire::DeadLetterFilter::default()).await?;
            ensure!(found.len() >= count, "there are {}", found.len());
            anyhow::Ok(found)
        });
        Ok(come.await?)
    }

    pub(crate) async fn get(&self, id: &str) -> Result<wire::DeadLetter> {
        Ok(self.client()?.get_dead_letter(id).await?)
    }

    /// Waits until a dead letter is as the function wants it.
    pub(crate) async fn becomes(
        &self,
        id: &str,
        what: &str,
        is_so: impl Fn(&wire::DeadLetter) -> bool,
    ) -> Result<wire::DeadLetter> {
        let come = wait::try_until(PATIENCE, what, || async {
            let letter = self.get(id).await?;
            ensure!(is_so(&letter), "{letter:?}");
            anyhow::Ok(letter)
        });
        Ok(come.await?)
    }

    /// Replays all of a filter, and waits for the end of the job.
    pub(crate) async fn replay(
        &self,
        request: wire::ReplayDeadLettersRequest,
    ) -> Result<wire::ReplayJob> {
        let client = self.client()?;
        let job = client.replay_dead_letters(request).await?;
        let id = job.job.context("a job")?.job_id;
        let over = wait::try_until(PATIENCE, "the job to end", || async {
            let job = client.get_replay_job(&id).await?;
            ensure!(job.ended_at.is_some(), "{job:?}");
            anyhow::Ok(job)
        });
        Ok(over.await?)
    }

    /// How often each message was handled, by its id.
    pub(crate) fn handled(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for message in self.seen.lock().iter() {
            *counts.entry(message.message_id.clone()).or_default() += 1;
        }
        counts
    }

    /// Waits until so many messages were handled.
    pub(crate) async fn handles(&self, count: usize) -> Result<()> {
        let come = wait::try_until(PATIENCE, "the messages to be handled", || async {
            let handled = self.seen.lock().len();
            ensure!(handled >= count, "{handled} were");
            anyhow::Ok(())
        });
        Ok(come.await?)
    }
}

/// Group settings with one attempt.
pub(crate) fn one_attempt() -> wire::GroupSettings {
    wire::GroupSettings {
        max_attempts: Some(1),
        initial_backoff: Some(hive_protocol::time::to_duration(1)),
        ..wire::GroupSettings::default()
    }
}

/// How long a test looks whether nothing happens.
pub(crate) const A_WHILE: Duration = Duration::from_millis(1_500);
