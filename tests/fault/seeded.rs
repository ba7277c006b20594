//! The checker's own test: each deliberate bug must be found, and nothing where there is none.
//!
//! Each scenario does the least that shows one bug, on a Redis of its own, with gateways that were
//! started with `HIVE_SEEDED_BUG`; and once more without it, where the checker must be content. The
//! bugs themselves are in `hive_store::scripts::seeded`, which only a debug build has.
#![cfg(debug_assertions)]

mod scenarios;

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, stream};
use hive_client::wire;
use hive_store::scripts::seeded;
use hive_testkit::{
    checker::{Report, Rule, Terms},
    redis::RedisServer,
};

use crate::world::{World, settings, terms};

/// Lease of all scenarios: short, so that an expiry is not waited for.
pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// How long a lost connection is waited for.
pub(crate) const GRACE: Duration = Duration::from_secs(1);
/// How long nothing may come before a scenario takes it that nothing will: above every poll.
pub(crate) const QUIET: Duration = Duration::from_secs(3);
/// Scenarios that run at once.
const AT_ONCE: usize = 6;

/// A world for one scenario, whose gateways have the bug or not.
pub(crate) struct Stage {
    pub(crate) world: World,
    bug: Option<&'static str>,
}

impl Stage {
    async fn new(bug: Option<&'static str>) -> Result<Self> {
        Ok(Self {
            world: World::start(RedisServer::builder(), 0, 0).await?,
            bug,
        })
    }

    /// Starts a gateway, with the bug if there is one.
    pub(crate) async fn gateway(&mut self) -> Result<()> {
        let url = self.world.redis.url();
        self.gateway_by(&url).await
    }

    /// Starts a gateway on this way to the Redis.
    pub(crate) async fn gateway_by(&mut self, redis_url: &str) -> Result<()> {
        let environment = self.bug.map(|bug| (seeded::VARIABLE, bug));
        self.world
            .add_gateway(redis_url, environment.as_slice())
            .await
    }

    /// Creates a group with the settings of all scenarios.
    pub(crate) async fn group(&self, name: &str) -> Result<()> {
        self.group_with(name, settings(LEASE, GRACE)).await
    }

    pub(crate) async fn group_with(&self, name: &str, settings: wire::GroupSettings) -> Result<()> {
        self.world.group(name, settings).await
    }

    /// Judges the run.
    pub(crate) async fn verdict(&self, groups: &[&str]) -> Result<Report> {
        self.verdict_by(groups, &terms(LEASE)).await
    }

    pub(crate) async fn verdict_by(&self, groups: &[&str], terms: &Terms) -> Result<Report> {
        self.world.verdict(groups, terms).await
    }
}

/// A bug, and one of the rules that its scenario must break.
type Case = (&'static str, &'static [Rule]);

const CASES: &[Case] = &[
    ("plain_xack", &[Rule::StaleAccepted]),
    ("maxlen_trim", &[Rule::Lost]),
    ("two_step_dead_lettering", &[Rule::SettledTwice]),
    ("no_dedup", &[Rule::DuplicateKey]),
    ("no_session_fence", &[Rule::LiveLeaseLost]),
    ("no_attach_check", &[Rule::LiveLeaseLost]),
    ("group_at_end", &[Rule::Lost]),
    ("lane_without_its_group", &[Rule::Lost]),
    ("delconsumer_with_entries", &[Rule::Lost]),
    ("expiry_keeps_owner", &[Rule::NotDrained]),
    ("flush_without_number", &[Rule::SettledTwice]),
    (seeded::SHARED_LANE, &[Rule::Phantom]),
    ("no_allow_oom", &[Rule::NotDrained]),
    (seeded::NO_POLL, &[Rule::NotDrained]),
];

async fn play(name: &'static str, bug: Option<&'static str>) -> Result<Report> {
    let stage = Stage::new(bug).await?;
    let played = match name {
        "plain_xack" => scenarios::late_ack(stage).await,
        "maxlen_trim" => scenarios::backlog(stage).await,
        "two_step_dead_lettering" => scenarios::reject_in_a_crash(stage).await,
        "no_dedup" => scenarios::same_key_twice(stage).await,
        "no_session_fence" => scenarios::old_connection_ends(stage, false).await,
        "no_attach_check" => scenarios::old_connection_ends(stage, true).await,
        "group_at_end" => scenarios::late_group(stage).await,
        "lane_without_its_group" => scenarios::new_lane(stage).await,
        "delconsumer_with_entries" => scenarios::removed_consumer(stage).await,
        "expiry_keeps_owner" => scenarios::hung_agent(stage).await,
        "flush_without_number" => scenarios::lost_reply(stage).await,
        seeded::SHARED_LANE => scenarios::two_groups(stage).await,
        "no_allow_oom" => scenarios::full_redis(stage).await,
        seeded::NO_POLL => scenarios::lost_bell(stage).await,
        _ => anyhow::bail!("bug `{name}` has no scenario"),
    };
    played.with_context(|| format!("scenario `{name}`, bug {bug:?}"))
}

/// What is wrong with the checker or its scenario, if anything.
async fn judge((name, rules): Case, is_seeded: bool) -> Option<String> {
    let report = match play(name, is_seeded.then_some(name)).await {
        Ok(report) => report,
        Err(error) => return Some(format!("{error:#}")),
    };
    if is_seeded {
        let is_found = rules.iter().all(|rule| report.breaks(*rule));
        return (!is_found).then(|| format!("`{name}` was not found as {rules:?}: {report}"));
    }
    let is_clean = report.violations.is_empty();
    (!is_clean).then(|| format!("scenario `{name}` without the bug: {report}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checker_finds_each_seeded_bug_and_nothing_without_one() {
    let only = std::env::var(seeded::VARIABLE).ok();
    let cases = CASES
        .iter()
        .filter(|(name, _)| only.as_deref().is_none_or(|only| only == *name));
    let judged = |case, is_seeded| Box::pin(judge(case, is_seeded));
    let plays = cases.flat_map(|case| [judged(*case, true), judged(*case, false)]);
    let faults: Vec<Option<String>> = stream::iter(plays)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let faults: Vec<String> = faults.into_iter().flatten().collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_seeded_bug_has_a_scenario() {
    let patched = seeded::PATCHES.iter().map(|patch| patch.bug);
    let seeded: BTreeSet<&str> = patched
        .chain([seeded::SHARED_LANE, seeded::NO_POLL])
        .collect();
    let played: BTreeSet<&str> = CASES.iter().map(|(name, _)| *name).collect();
    assert_eq!(seeded, played);
}
