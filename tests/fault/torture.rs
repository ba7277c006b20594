//! Everything at once: a seeded schedule of kills under load, and nothing lost.
//!
//! The short form runs with all tests; `scripts/torture` runs the same test for minutes. What is
//! killed and when, what the messages are like and how agents fare comes from one printed seed;
//! what the machine makes of it does not, so a replay repeats the faults, not the interleaving.

use std::{env, time::Duration};

use anyhow::{Context as _, Result};
use hive_client::Target;
use hive_testkit::{
    checker::Terms,
    history::Name,
    redis::{Aof, RedisServer},
    rng,
};
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use tokio::time::{Instant, sleep_until};

use crate::{
    crew::{self, Agent},
    load::{self, Load},
    world::{STREAM, Victim, World, settings, terms},
};

/// Long enough for a machine that is busy with everything else to beat in time.
const LEASE: Duration = Duration::from_secs(6);
const GRACE: Duration = Duration::from_secs(3);
/// Messages for one group are the rule; every so many go to both.
const GROUPS: [&str; 2] = ["workers", "watchers"];
/// Agents of the first group; the second has half of them.
const AGENTS: usize = 6;
/// Messages per second and agent, an agent taking `WORK` at most for each of `CONCURRENCY`.
const CONCURRENCY: u32 = 24;
const WORK: Duration = Duration::from_millis(30);
/// What may pass between the last fault and the last settle.
const DRAIN: Duration = Duration::from_secs(30);

/// How long and how hard.
#[derive(Debug, Clone, Copy)]
struct Plan {
    length: Duration,
    kills: u64,
    rate: u32,
}

impl Plan {
    /// From the environment that `scripts/torture` sets, else short enough for every test run.
    fn read() -> Result<Self> {
        let number = |name: &str, default: u64| match env::var(name) {
            Ok(text) => text
                .parse()
                .with_context(|| format!("{name} `{text}` must be a number")),
            Err(_) => Ok(default),
        };
        Ok(Self {
            length: Duration::from_secs(number("HIVE_TORTURE_SECONDS", 18)?),
            kills: number("HIVE_TORTURE_KILLS", 6)?,
            rate: u32::try_from(number("HIVE_TORTURE_RATE", 600)?)?,
        })
    }
}

/// Who dies next.
#[derive(Debug, Clone, Copy)]
enum Prey {
    Agent(usize),
    Process(Victim),
}

/// Moments and victims, in order; the first four are one of each kind.
fn schedule(rng: &mut StdRng, plan: Plan) -> Vec<(Duration, Prey)> {
    let last = plan.length.mul_f64(0.9);
    let mut moments: Vec<Duration> = (0..plan.kills)
        .map(|_| last.mul_f64(rng.random_range(0.08..1.0)))
        .collect();
    moments.sort_unstable();
    let mut kinds = vec![0_u32, 1, 2, 3];
    while kinds.len() < moments.len() {
        kinds.extend([0, 0, 1, 1, 2, 3].choose(rng));
    }
    let prey = |rng: &mut StdRng, kind| match kind {
        0 => Prey::Agent(rng.random_range(0..AGENTS + AGENTS / 2)),
        1 => Prey::Process(Victim::Gateway(rng.random_range(0..2))),
        2 => Prey::Process(Victim::Coordinator(rng.random_range(0..2))),
        _ => Prey::Process(Victim::Redis),
    };
    moments
        .into_iter()
        .zip(kinds)
        .map(|(at, kind)| (at, prey(rng, kind)))
        .collect()
}

fn spec(world: &World, number: usize) -> crew::Spec {
    let group = usize::from(number >= AGENTS);
    crew::Spec {
        group: GROUPS[group].into(),
        id: format!("agent-{number}").into(),
        urls: world.urls(number % 2),
        concurrency: CONCURRENCY,
        work: WORK,
        lease: LEASE,
        is_moody: true,
    }
}

fn loads(world: &World, plan: Plan, seed: u64) -> Result<Vec<Load>> {
    let both: Vec<Name> = GROUPS.map(Name::from).to_vec();
    let mut loads = Vec::new();
    for number in 0..4 {
        let is_for_all = number == 3;
        let spec = load::Spec {
            number,
            target: if is_for_all {
                Target::stream(STREAM)
            } else {
                Target::group(GROUPS[0])
            },
            groups: if is_for_all {
                both.clone()
            } else {
                vec![GROUPS[0].into()]
            },
            rate: plan.rate / 4,
            seed: seed.wrapping_add(number as u64),
        };
        loads.push(Load::start(world.client(number % 2)?, &world.log, spec));
    }
    Ok(loads)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_schedule_of_kills_loses_a_message() -> Result<()> {
    let plan = Plan::read()?;
    let mut seeded = rng::seeded("torture");
    let redis = RedisServer::builder().aof(Aof::Always);
    let mut world = World::start(redis, 2, 2).await?;
    for group in GROUPS {
        world.group(group, settings(LEASE, GRACE)).await?;
    }
    let mut agents: Vec<Agent> = (0..AGENTS + AGENTS / 2)
        .map(|number| Agent::start(&world.log, spec(&world, number)))
        .collect();
    let loads = loads(&world, plan, seeded.seed)?;
    let started = Instant::now();
    for (at, prey) in schedule(&mut seeded.rng, plan) {
        sleep_until(started + at).await;
        match prey {
            Prey::Agent(number) => {
                let spec = agents.remove(number).kill().await;
                // Under its old name: the new process fences the old one out.
                agents.insert(number, Agent::start(&world.log, spec));
            },
            Prey::Process(victim) => {
                world.kill(victim)?;
                let away = Duration::from_millis(seeded.rng.random_range(0..1_500));
                sleep_until(Instant::now() + away).await;
                world.revive(victim).await?;
            },
        }
    }
    sleep_until(started + plan.length).await;
    let mut published = 0;
    for load in loads {
        published += load.stop().await?;
    }
    // A run that does not drain is judged all the same: the checker says what is left.
    let drained = world.drained(&GROUPS, DRAIN + LEASE).await;
    for agent in agents {
        agent.stop().await?;
    }
    let terms = Terms {
        drain_within: Some(DRAIN),
        ..terms(LEASE)
    };
    let report = world.verdict(&GROUPS, &terms).await?;
    tell(plan, published, &report.to_string());
    if !report.violations.is_empty() {
        let path = env::temp_dir().join(format!("hive-torture-{}.log", seeded.seed));
        world.log.snapshot().dump(&path)?;
        tell(
            plan,
            published,
            &format!("history written to {}", path.display()),
        );
    }
    report.assert_clean();
    drained
}

#[expect(
    clippy::print_stderr,
    reason = "figures of a run belong beside its seed"
)]
fn tell(plan: Plan, published: u64, text: &str) {
    eprintln!("torture of {plan:?}, {published} published: {text}");
}
