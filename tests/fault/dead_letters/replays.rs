//! A large replay while its workers, Redis or the line between them fail, and its call is sent more
//! than once.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use hive_client::{Client, Outcome, Target, message, wire};
use hive_testkit::{
    proxy::{FaultProxy, Mode},
    redis::{Aof, RedisServer},
    rng, wait,
};
use rand::{Rng as _, rngs::StdRng};
use wire::{DeadLetterStatus, ReplayJobState, ReplayOutcome};

use super::set::{Agent, GROUP, Handled, Set, attempts, handled, number, publish, tell};
use crate::world::{PATIENCE, STREAM, Victim};

/// Longest wait of a replay for its next message, and for its end.
const MOVES_WITHIN: Duration = Duration::from_secs(45);

/// A replay of everything under this name, sent until it is answered.
async fn call(client: &Client, job_id: &str) -> Result<String> {
    let request = wire::ReplayDeadLettersRequest {
        filter: Some(wire::DeadLetterFilter {
            group: GROUP.into(),
            ..wire::DeadLetterFilter::default()
        }),
        job_id: job_id.into(),
        ..wire::ReplayDeadLettersRequest::default()
    };
    let answered = wait::try_until(PATIENCE, "the call to be answered", || async {
        client.replay_dead_letters(request.clone()).await
    });
    Ok(answered.await?.job.context("a job")?.job_id)
}

/// Messages that die at once, with payloads that tell them apart.
fn messages(count: usize) -> Vec<wire::Message> {
    let one = |number: usize| {
        let padding = "x".repeat(number % 97);
        let mut made = message("task", format!("{{\"n\":{number},\"p\":\"{padding}\"}}"));
        made.message_id = format!("m{number}");
        made
    };
    (0..count).map(one).collect()
}

/// Kills workers in turn, and Redis once, while the replay goes on.
async fn kill_meanwhile(
    set: &mut Set,
    rng: &mut StdRng,
    handled: &Handled,
    (letters, kills): (usize, usize),
) -> Result<()> {
    for kill in 0..kills {
        // Half die at their work; the others while it is taken over.
        if rng.random_bool(0.5) {
            let wanted = handled.count() + rng.random_range(1..=letters / (kills + 2));
            let wanted = wanted.min(letters);
            wait::try_until(MOVES_WITHIN, "the replay to move on", || async {
                let count = handled.count();
                ensure!(count >= wanted, "{count} of {letters}");
                anyhow::Ok(())
            })
            .await?;
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..300))).await;
        let worker = kill % set.workers.len();
        set.workers[worker].kill9()?;
        if kill == kills / 2 {
            set.world.kill(Victim::Redis)?;
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..500))).await;
            set.world.revive(Victim::Redis).await?;
        }
        // The call is sent again in mid-work, under its name and under another one.
        if kill == kills / 3 {
            let client = set.world.client(1)?;
            call(&client, "first").await?;
            call(&client, "second").await?;
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..700))).await;
        set.workers[worker].restart().await?;
    }
    Ok(())
}

/// Each record was sent once, as it was, and says so; each new message says what it repeats.
fn judge(
    dead: &BTreeMap<String, wire::DeadLetter>,
    after: &BTreeMap<String, wire::DeadLetter>,
    handled: &Handled,
) -> Result<()> {
    let mut sent: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (_, message) in handled.all() {
        let of = &message.replay_of;
        let record = dead.get(of).with_context(|| format!("{message:?}"))?;
        let original = record.message.as_ref().context("a payload")?;
        ensure!(message.payload == original.payload, "{message:?}");
        ensure!(message.replay_number == 1, "{message:?}");
        ensure!(message.message_id != record.message_id, "{message:?}");
        sent.entry(of.clone())
            .or_default()
            .insert(message.message_id);
    }
    ensure!(sent.len() == dead.len(), "{} of {}", sent.len(), dead.len());
    let mut ids = BTreeSet::new();
    for (of, messages) in &sent {
        ensure!(messages.len() == 1, "{of} was sent as {messages:?}");
        ids.extend(messages);
        let record = after.get(of).context("a record stays")?;
        ensure!(record.status() == DeadLetterStatus::Replayed, "{record:?}");
        ensure!(messages.contains(&record.replay_message_id), "{record:?}");
        ensure!(record.replays == 1, "{record:?}");
        let outcome = record.replay_outcome();
        ensure!(outcome == ReplayOutcome::Succeeded, "{record:?}");
    }
    ensure!(ids.len() == dead.len(), "two records sent one message");
    Ok(())
}

/// A set in which everything has died, whose agents handle what comes from now on.
struct Replay {
    set: Set,
    seen: Arc<Handled>,
    agents: Vec<Agent>,
    dead: BTreeMap<String, wire::DeadLetter>,
}

impl Replay {
    async fn start(set: Set, letters: usize) -> Result<Self> {
        set.group(STREAM, GROUP, attempts(1)).await?;
        let (broken, seen) = (Arc::new(AtomicBool::new(true)), handled());
        let mut agents = Vec::new();
        for number in 0..2 {
            let (is_broken, seen) = (Arc::clone(&broken), Arc::clone(&seen));
            let client = set.world.client(number)?;
            let id = format!("agent-{number}");
            agents.push(Agent::start(client, GROUP, &id, move |job| {
                if is_broken.load(Ordering::Relaxed) {
                    return Outcome::reject("KeyError: 'total'");
                }
                seen.note(&job.message);
                Outcome::done()
            }));
        }
        let client = set.world.client(0)?;
        let sent = messages(letters);
        publish(&client, Target::group(GROUP), sent.clone(), 3_000).await?;
        let count = u64::try_from(letters)?;
        set.taken_in(count, MOVES_WITHIN * 4).await?;
        let dead = set.counts_are_true().await?;
        let by_message = |one: &wire::DeadLetter| (one.message_id.clone(), one.message.clone());
        let died: BTreeMap<_, _> = dead.values().map(by_message).collect();
        for message in sent {
            let kept = died.get(&message.message_id).context("a record")?;
            let kept = kept.as_ref().context("a payload")?;
            ensure!(kept.payload == message.payload, "{kept:?}");
        }
        broken.store(false, Ordering::Relaxed);
        Ok(Self {
            set,
            seen,
            agents,
            dead,
        })
    }

    /// Waits for the end of so many jobs, and judges them and all that they sent.
    async fn over(self, count: usize) -> Result<Vec<wire::ReplayJob>> {
        let Self {
            set,
            seen,
            agents,
            dead,
        } = self;
        let client = set.world.client(0)?;
        let ends = wait::try_until(MOVES_WITHIN * 2, "the jobs to end", || async {
            let all = wire::ListReplayJobsRequest::default();
            let jobs = client.list_replay_jobs(all).await?.jobs;
            let is_over = |job: &wire::ReplayJob| job.ended_at.is_some();
            ensure!(jobs.iter().all(is_over), "{} {jobs:?}", seen.count());
            anyhow::Ok(jobs)
        });
        let jobs = ends.await?;
        ensure!(jobs.len() == count, "{jobs:?}");
        for job in &jobs {
            ensure!(job.state() == ReplayJobState::Done, "{job:?}");
            ensure!(job.attempted == job.replayed && job.failed == 0, "{job:?}");
            ensure!(job.errors.is_empty(), "{job:?}");
        }
        let replayed: u64 = jobs.iter().map(|job| job.replayed).sum();
        ensure!(usize::try_from(replayed)? == dead.len(), "{jobs:?}");
        set.world.drained(&[GROUP], PATIENCE).await?;
        let known = wait::try_until(PATIENCE, "the outcomes to be known", || async {
            let all = set.all().await?;
            let is_known = |one: &wire::DeadLetter| one.replay_outcome() != ReplayOutcome::Pending;
            let known = all.values().filter(|one| is_known(one)).count();
            ensure!(known == all.len(), "{known} of {}", all.len());
            anyhow::Ok(())
        });
        known.await?;
        let after = set.counts_are_true().await?;
        judge(&dead, &after, &seen)?;
        ensure!(after.len() == dead.len(), "something died of its replay");
        // The shard has counted as much: no second message lies anywhere.
        let figures = set.world.figures(GROUP).await?;
        let count = u64::try_from(dead.len())?;
        let counted = (figures.published_total, figures.acked_total);
        ensure!(counted == (2 * count, count), "{figures:?}");
        ensure!(figures.dead_total == count, "{figures:?}");
        for agent in agents {
            agent.stop().await?;
        }
        Ok(jobs)
    }
}

/// For the one who reads the output.
fn tell_of(jobs: &[wire::ReplayJob], took: Duration, faults: &str) {
    let by_job: Vec<_> = jobs
        .iter()
        .map(|job| (job.job_id.as_str(), job.replayed))
        .collect();
    let all: u64 = by_job.iter().map(|(_, replayed)| replayed).sum();
    tell(&format!(
        "{all} replayed once each in {took:?} over {faults}; by job {by_job:?}"
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_sends_each_once_though_its_workers_and_redis_are_killed() -> Result<()> {
    let letters = usize::try_from(number("HIVE_TORTURE_DEAD_LETTERS", 600)?)?;
    let kills = usize::try_from(number("HIVE_TORTURE_DEAD_LETTER_KILLS", 6)?)?;
    let mut seeded = rng::seeded("dead letters");
    let redis = RedisServer::builder().aof(Aof::Everysec);
    let set = Set::start(redis, (2, 2), &[]).await?;
    let mut replay = Replay::start(set, letters).await?;
    let client = replay.set.world.client(0)?;
    let begun = Instant::now();
    let twice = tokio::join!(call(&client, "first"), call(&client, "first"));
    ensure!((twice.0?, twice.1?) == ("first".into(), "first".into()));
    let (set, plan) = (&mut replay.set, (letters, kills));
    kill_meanwhile(set, &mut seeded.rng, &replay.seen, plan).await?;
    let jobs = replay.over(2).await?;
    let faults = format!("{kills} kills of workers and one of Redis");
    tell_of(&jobs, begun.elapsed(), &faults);
    Ok(())
}

/// How often the line fails, and how long at most it is well in between.
const CUTS: usize = 24;
const WELL_MS: u64 = 160;

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_sends_each_once_though_answers_of_redis_are_lost() -> Result<()> {
    let mut seeded = rng::seeded("lost answers");
    let set = Set::start(RedisServer::builder(), (2, 0), &[]).await?;
    let line = FaultProxy::start(set.world.redis.socket()).await?;
    let mut set = set;
    set.add_worker(&line.redis_url(), &[]).await?;
    let replay = Replay::start(set, 500).await?;
    let client = replay.set.world.client(0)?;
    let begun = Instant::now();
    call(&client, "first").await?;
    for cut in 0..CUTS {
        let well = Duration::from_millis(seeded.rng.random_range(20..WELL_MS));
        tokio::time::sleep(well).await;
        if cut % 2 == 0 {
            // It was done, and nobody hears of it.
            line.set(Mode::CutBeforeReply);
            tokio::time::sleep(Duration::from_millis(5)).await;
            line.set(Mode::Pass);
        } else {
            // It may have been done or not.
            line.reset();
        }
    }
    let jobs = replay.over(1).await?;
    tell_of(&jobs, begun.elapsed(), &format!("{CUTS} cuts of the line"));
    Ok(())
}
