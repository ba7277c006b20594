//! What dies becomes one record each: while workers are killed, and soon.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use hive_client::{Failure, Outcome, Target, message, wire};
use hive_protocol::time::to_duration;
use hive_testkit::{
    history::Action,
    redis::{Aof, RedisServer},
    rng,
};
use parking_lot::Mutex;
use prost::Message as _;
use rand::{Rng as _, rngs::StdRng};
use wire::DeadLetterStatus;

use super::set::{Agent, GROUP, Set, attempts, percentile, publish, tell};
use crate::{
    hand,
    world::{PATIENCE, STREAM, Victim},
};

const OTHER: &str = "failing-too";
const KILLS: usize = 6;
/// Messages for both groups.
const MESSAGES: usize = 900;

/// Who died in which group: what the agents said.
type Died = Arc<Mutex<BTreeSet<(String, String)>>>;

/// An agent with which a third is rejected, a third fails to its end, and the rest is handled.
fn agent(set: &Set, group: &'static str, number: usize, died: &Died) -> Result<Agent> {
    let died = Arc::clone(died);
    let client = set.world.client(number)?;
    let id = format!("agent-{number}");
    Ok(Agent::start(client, group, &id, move |job| {
        let id = &job.message.message_id;
        let number: usize = id.trim_start_matches('m').parse().unwrap_or_default();
        let note = || died.lock().insert((group.to_owned(), id.clone()));
        match number % 6 {
            0 => {
                note();
                Outcome::reject("KeyError: 'total'")
            },
            1 => {
                note();
                let failure = Failure::new("invalid").category("validation_error");
                Outcome::Reject { failure }
            },
            2 | 3 => {
                note();
                Outcome::nack(format!("timed out after {number} ms"))
            },
            _ => Outcome::done(),
        }
    }))
}

async fn kill_workers(set: &mut Set, rng: &mut StdRng) -> Result<()> {
    for kill in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(rng.random_range(100..900))).await;
        let worker = kill % set.workers.len();
        set.workers[worker].kill9()?;
        if kill == KILLS / 2 {
            set.world.kill(Victim::Redis)?;
            set.world.revive(Victim::Redis).await?;
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..500))).await;
        set.workers[worker].restart().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_death_has_one_record_though_the_workers_are_killed_meanwhile() -> Result<()> {
    let mut seeded = rng::seeded("intake");
    let redis = RedisServer::builder().aof(Aof::Everysec);
    let mut set = Set::start(redis, (2, 2), &[]).await?;
    let died = Died::default();
    let mut agents = Vec::new();
    for (number, group) in [GROUP, OTHER].into_iter().enumerate() {
        set.group(STREAM, group, attempts(2)).await?;
        agents.push(agent(&set, group, number, &died)?);
    }
    let client = set.world.client(0)?;
    let messages = (0..MESSAGES).map(|number| {
        let mut made = message("task", format!("payload of m{number}"));
        made.message_id = format!("m{number}");
        made
    });
    // Six seconds of it: as long as the kills take, about.
    let rate = u32::try_from(MESSAGES)? / 6;
    let publishing = publish(&client, Target::stream(STREAM), messages.collect(), rate);
    let (published, killed) = tokio::join!(publishing, kill_workers(&mut set, &mut seeded.rng));
    ensure!(published?.len() == MESSAGES);
    killed?;
    set.world.drained(&[GROUP, OTHER], PATIENCE).await?;
    let died = died.lock().clone();
    ensure!(died.len() == MESSAGES / 6 * 4 * 2, "{}", died.len());
    let mut counted = 0;
    for group in [GROUP, OTHER] {
        counted += set.world.figures(group).await?.dead_total;
    }
    ensure!(usize::try_from(counted)? == died.len(), "{counted}");
    set.taken_in(counted, PATIENCE).await?;
    // Some are put aside: counts by status are of those, too.
    for (id, letter) in set.all().await?.into_iter().take(40) {
        let status = match letter.category.as_str() {
            "validation_error" => DeadLetterStatus::PermanentFailure,
            _ => DeadLetterStatus::Archived,
        };
        set.set_status(&id, status).await?;
    }
    let all = set.counts_are_true().await?;
    let of = |one: &wire::DeadLetter| (one.group.clone(), one.message_id.clone());
    let listed: BTreeSet<_> = all.values().map(of).collect();
    ensure!(listed == died, "records are of others than died");
    ensure!(all.len() == died.len(), "{} of {}", all.len(), died.len());
    for letter in all.values() {
        let kept = letter.message.as_ref().context("a payload")?;
        let payload = format!("payload of {}", letter.message_id);
        ensure!(kept.payload == payload.as_bytes(), "{letter:?}");
    }
    tell(&format!(
        "{} records of {} deaths over {KILLS} kills of workers and one of Redis",
        all.len(),
        died.len()
    ));
    for agent in agents {
        agent.stop().await?;
    }
    Ok(())
}

/// Failures of the test of time, and of each second.
const FAILURES: usize = 500;
const RATE: usize = 100;
/// Pause between two batches of failures.
const EVERY: Duration = Duration::from_millis(50);
/// Of a hundred failures 99 are listed within it.
const LISTED_WITHIN: Duration = Duration::from_secs(1);

/// Leases so many messages as a pull consumer.
async fn lease(set: &Set, count: usize) -> Result<Vec<(String, String)>> {
    let client = set.world.client(0)?;
    let mut taken = Vec::new();
    let end = Instant::now() + PATIENCE;
    while taken.len() < count {
        ensure!(Instant::now() < end, "{} of {count} came", taken.len());
        let request = wire::FetchRequest {
            group: GROUP.into(),
            consumer_id: "puller".into(),
            max_messages: u32::try_from(count - taken.len())?,
            wait: Some(to_duration(1_000)),
            ..wire::FetchRequest::default()
        };
        for delivery in client.fetch(request).await?.deliveries {
            let message = wire::Message::decode(delivery.message)?;
            taken.push((delivery.lease, message.message_id));
        }
    }
    Ok(taken)
}

/// Rejects all, at a steady rate; answers when each was answered.
async fn fail(set: &Set, leased: &[(String, String)]) -> Result<BTreeMap<String, Instant>> {
    let client = set.world.client(0)?;
    let per_batch = RATE * usize::try_from(EVERY.as_millis())? / 1_000;
    let mut ticks = tokio::time::interval(EVERY);
    let mut failed = BTreeMap::new();
    for batch in leased.chunks(per_batch) {
        ticks.tick().await;
        let outcomes = batch
            .iter()
            .map(|(lease, _)| hand::outcome(&lease.as_str().into(), Action::Reject));
        let request = wire::SettleRequest {
            group: GROUP.into(),
            outcomes: outcomes.collect(),
        };
        client.settle(request).await?;
        let now = Instant::now();
        failed.extend(batch.iter().map(|(_, id)| (id.clone(), now)));
    }
    Ok(failed)
}

/// Looks at the newest until all were listed; answers when each was seen first.
async fn watch(set: &Set, count: usize) -> Result<BTreeMap<String, Instant>> {
    let client = set.world.client(0)?;
    let mut seen: BTreeMap<String, Instant> = BTreeMap::new();
    let end = Instant::now() + PATIENCE;
    while seen.len() < count {
        ensure!(Instant::now() < end, "{} of {count} are listed", seen.len());
        let request = wire::ListDeadLettersRequest {
            limit: 150,
            ..wire::ListDeadLettersRequest::default()
        };
        let page = client.list_dead_letters(request).await?;
        let now = Instant::now();
        for letter in page.messages {
            seen.entry(letter.message_id).or_insert(now);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_listed_within_a_second_at_100_failures_a_second() -> Result<()> {
    let set = Set::start(RedisServer::builder(), (1, 1), &[]).await?;
    set.group(STREAM, GROUP, attempts(1)).await?;
    let client = set.world.client(0)?;
    let messages = (0..FAILURES).map(|number| {
        let mut made = message("task", "{}");
        made.message_id = format!("m{number}");
        made
    });
    publish(&client, Target::group(GROUP), messages.collect(), 5_000).await?;
    let leased = lease(&set, FAILURES).await?;
    // A stream that is new is followed within a second; from then on all is as soon.
    let first = fail(&set, &leased[..1]).await?;
    ensure!(watch(&set, 1).await?.keys().eq(first.keys()));
    let leased = &leased[1..];
    let begun = Instant::now();
    let (failed, seen) = tokio::join!(fail(&set, leased), watch(&set, FAILURES));
    let (failed, seen) = (failed?, seen?);
    let mut times = Vec::new();
    for (id, at) in &failed {
        let seen = seen.get(id).context("it was listed")?;
        times.push(seen.saturating_duration_since(*at));
    }
    let [half, most, longest] = [50, 99, 100].map(|of_100| percentile(&times, of_100));
    tell(&format!(
        "{FAILURES} failures in {:?} were listed after {half:?} (p50), {most:?} (p99), {longest:?} \
         (max)",
        begun.elapsed()
    ));
    ensure!(most < LISTED_WITHIN, "p99 {most:?}");
    set.counts_are_true().await?;
    Ok(())
}
