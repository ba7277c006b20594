//! Workers share the shards among them, and take over those of one that dies.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hive_client::{Outcome, Target, message, wire};
use hive_testkit::{daemon::Daemon, redis::RedisServer, wait};

use super::set::{Agent, Set, attempts, publish, tell};
use crate::{dataset::page, world::PATIENCE};

const STREAMS: usize = 12;
/// A worker that is silent for 4 s is gone; its shards are looked for every second.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(8);

fn group(number: usize) -> String {
    format!("g{number}")
}

/// Dead letters that a worker took in.
async fn taken_by(worker: &Daemon) -> Result<u64> {
    let metrics = page(worker, "/metrics").await?;
    let counts = metrics
        .lines()
        .filter(|line| line.starts_with("hive_dead_letters_taken_total{"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
    Ok(counts.sum())
}

/// One message for each group, each of which dies.
async fn one_for_each(set: &Set) -> Result<()> {
    let client = set.world.client(0)?;
    for number in 0..STREAMS {
        let target = Target::group(group(number));
        publish(&client, target, vec![message("task", "{}")], 1_000).await?;
    }
    Ok(())
}

/// Ids of the streams of which there are so many records.
async fn streams_with(set: &Set, count: u64) -> Result<Vec<String>> {
    let figures = set.statistics().await?;
    let such = figures.by_stream.into_iter();
    let such = such.filter(|one| one.count == count);
    Ok(such.map(|one| one.name).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shards_of_a_worker_that_dies_are_taken_over_within_seconds() -> Result<()> {
    let mut set = Set::start(RedisServer::builder(), (1, 2), &[]).await?;
    let mut agents = Vec::new();
    for number in 0..STREAMS {
        let name = group(number);
        set.group(&format!("s{number}"), &name, attempts(1)).await?;
        let client = set.world.client(0)?;
        agents.push(Agent::start(client, &name, "agent", |_| {
            Outcome::reject("no")
        }));
    }
    one_for_each(&set).await?;
    let all = u64::try_from(STREAMS)?;
    set.taken_in(all, PATIENCE).await?;
    // What one took while the other had not heard of it says nothing: the next ones do.
    let shared = wait::try_until(PATIENCE, "both to take some", || async {
        let before = (
            taken_by(&set.workers[0]).await?,
            taken_by(&set.workers[1]).await?,
        );
        let records = set.statistics().await?.records;
        one_for_each(&set).await?;
        set.taken_in(records + all, PATIENCE).await?;
        let one = taken_by(&set.workers[0]).await? - before.0;
        let other = taken_by(&set.workers[1]).await? - before.1;
        ensure!(one > 0 && other > 0, "{one} and {other}");
        ensure!(
            one + other == all,
            "{one} and {other}: some were taken twice"
        );
        anyhow::Ok((one, other))
    });
    let (one, other) = shared.await?;
    let records = set.statistics().await?.records;
    set.workers[0].kill9()?;
    let died = Instant::now();
    one_for_each(&set).await?;
    set.taken_in(records + all, TAKEN_OVER_WITHIN).await?;
    let took = died.elapsed();
    ensure!(took < TAKEN_OVER_WITHIN, "{took:?}");
    let rounds = records / all + 1;
    ensure!(streams_with(&set, rounds).await?.len() == STREAMS);
    set.counts_are_true().await?;
    tell(&format!(
        "{STREAMS} shards were shared {one} to {other}; those of the killed worker were taken over \
         after {took:?}"
    ));
    for agent in agents {
        agent.stop().await?;
    }
    // No job, no breaker: what was taken is all that is there.
    let jobs = wire::ListReplayJobsRequest::default();
    let jobs = set.world.client(0)?.list_replay_jobs(jobs).await?;
    ensure!(jobs.jobs.is_empty());
    Ok(())
}
