//! Poison in a flow: it dies after its attempts, and the rest goes on as if it were not there.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use hive_client::{Outcome, Target, message, wire};
use hive_testkit::redis::RedisServer;
use parking_lot::Mutex;

use super::set::{Agent, GROUP, Set, attempts, handled, number, percentile, publish, tell};
use crate::world::{PATIENCE, STREAM};

const ATTEMPTS: u32 = 3;
/// One in so many is poison.
const ONE_IN: usize = 100;
const RATE: u32 = 500;
/// What a busy machine may add in the short form.
const SLACK: Duration = Duration::from_millis(250);

fn messages(name: &str, count: usize, is_poisoned: bool) -> Vec<wire::Message> {
    let one = |number: usize| {
        let is_poison = is_poisoned && number % ONE_IN == ONE_IN / 2;
        let kind = if is_poison { "poison" } else { "task" };
        let mut made = message(kind, format!("{{\"n\":{number}}}"));
        made.message_id = format!("{name}{number}");
        made
    };
    (0..count).map(one).collect()
}

/// How long healthy messages took from their publish to their agent.
async fn flow(set: &Set, name: &str, count: usize, is_poisoned: bool) -> Result<Vec<Duration>> {
    let seen = handled();
    let tries: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
    let mut agents = Vec::new();
    for number in 0..2 {
        let (seen, tries) = (Arc::clone(&seen), Arc::clone(&tries));
        let client = set.world.client(0)?;
        let id = format!("{name}-{number}");
        agents.push(Agent::start(client, GROUP, &id, move |job| {
            if job.message.message_type == "poison" {
                let id = job.message.message_id.clone();
                *tries.lock().entry(id).or_default() += 1;
                return Outcome::nack("KeyError: 'total'");
            }
            seen.note(&job.message);
            Outcome::done()
        }));
    }
    let client = set.world.client(0)?;
    let all = messages(name, count, is_poisoned);
    let poison = all.iter().filter(|one| one.message_type == "poison");
    let poison = poison.count();
    let sent = publish(&client, Target::group(GROUP), all, RATE).await?;
    set.world.drained(&[GROUP], PATIENCE).await?;
    for agent in agents {
        agent.stop().await?;
    }
    let tries = tries.lock().clone();
    ensure!(tries.len() == poison, "{} of {poison}", tries.len());
    let wrong: BTreeMap<_, _> = tries.iter().filter(|(_, n)| **n != ATTEMPTS).collect();
    if !wrong.is_empty() {
        let figures = set.world.figures(GROUP).await?;
        let dead = set.world.dead_letters().await?;
        let of = |one: &hive_store::dead::DeadLetter| {
            let body = String::from_utf8_lossy(&one.body).into_owned();
            wrong.keys().any(|id| body.contains(id.as_str()))
        };
        let dead: Vec<_> = dead.into_iter().filter(of).collect();
        bail!("not tried {ATTEMPTS} times: {wrong:?}, dead: {dead:?}, {figures:?}");
    }
    let mut times = Vec::new();
    for (at, message) in seen.all() {
        let sent = sent.get(&message.message_id).context("it was sent")?;
        times.push(at.saturating_duration_since(*sent));
    }
    ensure!(times.len() == count - poison, "{} came", times.len());
    Ok(times)
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_dies_after_its_attempts_and_holds_up_nothing_healthy() -> Result<()> {
    let full = number("HIVE_TORTURE_POISON", 0)?;
    let count = usize::try_from(if full > 0 { full } else { 5_000 })?;
    let slack = if full > 0 { Duration::ZERO } else { SLACK };
    let set = Set::start(RedisServer::builder(), (1, 1), &[]).await?;
    set.group(STREAM, GROUP, attempts(ATTEMPTS)).await?;
    // What is slow at first is slow in neither.
    flow(&set, "warm", 500, false).await?;
    let clean = flow(&set, "clean", (count / 2).min(20_000), false).await?;
    let mixed = flow(&set, "mixed", count, true).await?;
    let poison = count / ONE_IN;
    set.taken_in(u64::try_from(poison)?, PATIENCE).await?;
    for letter in set.counts_are_true().await?.values() {
        ensure!(letter.message_type == "poison", "{letter:?}");
        let tried = (letter.deliveries, letter.failures);
        ensure!(tried == (u64::from(ATTEMPTS), ATTEMPTS), "{letter:?}");
    }
    let [before, with] = [&clean, &mixed].map(|times| percentile(times, 99));
    tell(&format!(
        "{poison} poisonous of {count} at {RATE}/s: healthy p50 {:?}, p99 {with:?}; without poison \
         p50 {:?}, p99 {before:?}",
        percentile(&mixed, 50),
        percentile(&clean, 50)
    ));
    ensure!(with <= before * 2 + slack, "p99 {with:?} after {before:?}");
    Ok(())
}
