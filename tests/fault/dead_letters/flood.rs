//! More dies than is kept: live traffic goes on, nothing is kept beyond the bound, nothing lost.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use hive_client::{Client, Outcome, Target, message, wire};
use hive_testkit::{redis::RedisServer, wait};
use tokio_util::sync::CancellationToken;
use wire::DeadLetterStatus;

use super::set::{Agent, GROUP, Set, attempts, handled, percentile, publish, tell};
use crate::world::{PATIENCE, STREAM};

const LIVE: &str = "live";
/// Most records.
const RECORDS_MAX: u64 = 1_000;
/// Deaths, and of each second: 48,000 a minute.
const DEATHS: usize = 4_000;
const RATE: u32 = 800;
/// Live messages, and of each second: they go on as long as the flood.
const LIVE_MESSAGES: usize = 1_000;
const LIVE_RATE: u32 = 100;
/// What 99 of 100 live messages stay below on a small machine that does all of this unoptimised.
const LIVE_WITHIN: Duration = Duration::from_secs(1);
/// Records that are put away in the end.
const ARCHIVED: usize = 250;

fn named(name: &str, count: usize) -> Vec<wire::Message> {
    let one = |number: usize| {
        let mut made = message("task", "{}");
        made.message_id = format!("{name}{number}");
        made
    };
    (0..count).map(one).collect()
}

/// Looks until it is told to stop that no more is kept than may be; answers the most that was.
async fn watch(client: &Client, stop: &CancellationToken) -> Result<u64> {
    let mut most = 0;
    while !stop.is_cancelled() {
        let figures = client.dead_letter_statistics().await?;
        ensure!(figures.records <= RECORDS_MAX, "{figures:?}");
        ensure!(figures.records_max == RECORDS_MAX, "{figures:?}");
        most = most.max(figures.records);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(most)
}

/// Waits until the queue is full and so many wait in their shard.
async fn is_full(set: &Set, waiting: usize) -> Result<Vec<String>> {
    let full = wait::try_until(PATIENCE, "the queue to be full", || async {
        let figures = set.statistics().await?;
        let is_full = figures.records == RECORDS_MAX;
        ensure!(is_full, "{figures:?}");
        let ids = set.waiting().await?;
        ensure!(ids.len() == waiting, "{} of {waiting} wait", ids.len());
        anyhow::Ok(ids)
    });
    Ok(full.await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_deaths_fills_the_queue_and_neither_stops_the_living_nor_is_lost() -> Result<()>
{
    let bound = RECORDS_MAX.to_string();
    let small = [("HIVE_DEAD_LETTERS_RECORDS_MAX", bound.as_str())];
    let set = Set::start(RedisServer::builder(), (2, 1), &small).await?;
    set.group(STREAM, GROUP, attempts(1)).await?;
    set.group("t", LIVE, attempts(5)).await?;
    let seen = handled();
    let noted = Arc::clone(&seen);
    let dying = Agent::start(set.world.client(1)?, GROUP, "dying", |_| {
        Outcome::reject("KeyError: 'total'")
    });
    let living = Agent::start(set.world.client(0)?, LIVE, "living", move |job| {
        noted.note(&job.message);
        Outcome::done()
    });
    let (client, other) = (set.world.client(0)?, set.world.client(1)?);
    set.statistics().await?;
    let stop = CancellationToken::new();
    let begun = Instant::now();
    let flooding = async {
        // The living are alone at first.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let flooded = Instant::now();
        publish(&other, Target::group(GROUP), named("d", DEATHS), RATE).await?;
        set.world.drained(&[GROUP], PATIENCE).await?;
        anyhow::Ok((flooded, flooded.elapsed()))
    };
    let live = publish(
        &client,
        Target::group(LIVE),
        named("l", LIVE_MESSAGES),
        LIVE_RATE,
    );
    let both = async {
        let both = tokio::join!(live, flooding);
        stop.cancel();
        both
    };
    let (most, (sent, flood)) = tokio::join!(watch(&client, &stop), both);
    let (most, sent, (flooded, took)) = (most?, sent?, flood?);
    set.world.drained(&[LIVE], PATIENCE).await?;
    let (mut before, mut during) = (Vec::new(), Vec::new());
    for (at, message) in seen.all() {
        let sent = *sent.get(&message.message_id).context("it was sent")?;
        let time = at.saturating_duration_since(sent);
        if sent < flooded {
            before.push(time);
        } else if sent < flooded + took {
            during.push(time);
        }
    }
    ensure!(
        before.len() > 100 && during.len() > 100,
        "the flood is of another time"
    );
    let [calm, busy] = [&before, &during].map(|times| percentile(times, 99));
    ensure!(seen.count() == LIVE_MESSAGES, "{}", seen.count());
    let kept = usize::try_from(RECORDS_MAX)?;
    let waiting = is_full(&set, DEATHS - kept).await?;
    ensure!(set.statistics().await?.is_full);
    // What is put away makes room, and what waited is taken in.
    let records = set.counts_are_true().await?;
    let mut archived = BTreeSet::new();
    for (id, letter) in records.iter().take(ARCHIVED) {
        set.set_status(id, DeadLetterStatus::Archived).await?;
        archived.insert(letter.message_id.clone());
    }
    let left = is_full(&set, waiting.len() - ARCHIVED).await?;
    let records = set.counts_are_true().await?;
    let kept: BTreeSet<String> = records.into_values().map(|one| one.message_id).collect();
    ensure!(kept.is_disjoint(&archived), "one that made room is back");
    let mut all: BTreeSet<String> = kept.union(&archived).cloned().collect();
    ensure!(
        left.iter().all(|id| all.insert(id.clone())),
        "one is taken and waits"
    );
    ensure!(all.len() == DEATHS, "{} of {DEATHS} are left", all.len());
    tell(&format!(
        "{DEATHS} deaths in {took:?} of {:?}: {most} records at most, {} waited; live p99 \
         {busy:?}, {calm:?} before the flood",
        begun.elapsed(),
        waiting.len()
    ));
    ensure!(busy < LIVE_WITHIN, "live p99 {busy:?}");
    dying.stop().await?;
    living.stop().await
}
