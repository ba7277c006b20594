//! One kill each, under load: nothing lost, nothing settled by a stale lease, and moved on in time.

use std::time::Duration;

use anyhow::{Result, ensure};
use hive_client::Target;
use hive_testkit::{
    checker::{Report, Terms},
    history::Name,
    redis::{Aof, RedisServer},
    wait,
};

use crate::{
    crew::{self, Agent},
    load::{self, Load},
    world::{PATIENCE, STREAM, Victim, World, settings, terms},
};

const GROUP: &str = "workers";
/// Long enough for a busy machine to beat in time.
const LEASE: Duration = Duration::from_secs(5);
/// As groups have it by default.
const GRACE: Duration = Duration::from_secs(3);
/// Messages per second of these tests.
const RATE: u32 = 300;

/// A world under load with some agents.
struct Run {
    world: World,
    agents: Vec<Agent>,
    load: Load,
}

impl Run {
    async fn start(aof: Aof, coordinators: usize) -> Result<Self> {
        let world = World::start(RedisServer::builder().aof(aof), 2, coordinators).await?;
        world.group(GROUP, settings(LEASE, GRACE)).await?;
        let spec = load::Spec {
            number: 0,
            target: Target::group(GROUP),
            groups: vec![GROUP.into()],
            rate: RATE,
            seed: 1,
        };
        let load = Load::start(world.client(0)?, &world.log, spec);
        let mut run = Self {
            world,
            agents: Vec::new(),
            load,
        };
        for number in 0..4 {
            run.add_agent(number);
        }
        run.progress(300).await?;
        Ok(run)
    }

    /// Starts an agent that knows both gateways and prefers one.
    fn add_agent(&mut self, number: usize) {
        let spec = crew::Spec {
            group: GROUP.into(),
            id: format!("agent-{number}").into(),
            urls: self.world.urls(number % 2),
            concurrency: 16,
            work: Duration::from_millis(100),
            lease: LEASE,
            is_moody: true,
        };
        self.agents.push(Agent::start(&self.world.log, spec));
    }

    /// Waits until so many more messages were acked.
    async fn progress(&self, messages: u64) -> Result<()> {
        let before = self.world.figures(GROUP).await?.acked_total;
        wait::try_until(PATIENCE, "messages to be acked", || async {
            let acked = self.world.figures(GROUP).await?.acked_total;
            ensure!(
                acked >= before + messages,
                "{} of {messages}",
                acked - before
            );
            Ok(())
        })
        .await?;
        Ok(())
    }

    /// Kills and revives, goes on for a while, and drains.
    async fn kill_and_finish(mut self, victim: Victim, terms: Terms) -> Result<Report> {
        self.world.kill(victim)?;
        self.world.revive(victim).await?;
        self.progress(300).await?;
        self.finish(terms).await
    }

    async fn finish(self, terms: Terms) -> Result<Report> {
        self.load.stop().await?;
        self.world.drained(&[GROUP], PATIENCE).await?;
        for agent in self.agents {
            agent.stop().await?;
        }
        self.world.verdict(&[GROUP], &terms).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_loses_nothing_and_its_work_moves_on_in_5_seconds() -> Result<()> {
    let mut run = Run::start(Aof::Everysec, 1).await?;
    for _ in 0..2 {
        drop(run.agents.remove(0).kill().await);
        run.progress(300).await?;
    }
    let terms = Terms {
        redelivery_max: Some(Duration::from_secs(5)),
        ..terms(LEASE)
    };
    let report = run.finish(terms).await?;
    report.assert_clean();
    assert!(!report.redeliveries.is_empty(), "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_gateways_that_is_killed_loses_nothing() -> Result<()> {
    let run = Run::start(Aof::Everysec, 1).await?;
    let report = run
        .kill_and_finish(Victim::Gateway(0), terms(LEASE))
        .await?;
    report.assert_clean();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_coordinators_that_is_killed_loses_nothing() -> Result<()> {
    let mut run = Run::start(Aof::Everysec, 2).await?;
    run.world.kill(Victim::Coordinator(0))?;
    drop(run.agents.remove(0).kill().await);
    run.progress(600).await?;
    run.world.revive(Victim::Coordinator(0)).await?;
    run.finish(terms(LEASE)).await?.assert_clean();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_syncs_each_answer_loses_nothing_when_it_is_killed() -> Result<()> {
    let run = Run::start(Aof::Always, 2).await?;
    let report = run.kill_and_finish(Victim::Redis, terms(LEASE)).await?;
    report.assert_clean();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_for_all_groups_survive_the_kill_of_a_gateway_in_each_group() -> Result<()> {
    let mut world = World::start(RedisServer::builder(), 2, 1).await?;
    let groups = ["a", "b"];
    let mut agents = Vec::new();
    for group in groups {
        world.group(group, settings(LEASE, GRACE)).await?;
        let spec = crew::Spec {
            group: group.into(),
            id: "one".into(),
            urls: world.urls(0),
            concurrency: 8,
            work: Duration::from_millis(5),
            lease: LEASE,
            is_moody: true,
        };
        agents.push(Agent::start(&world.log, spec));
    }
    let spec = load::Spec {
        number: 0,
        target: Target::stream(STREAM),
        groups: groups.map(Name::from).to_vec(),
        rate: RATE,
        seed: 2,
    };
    let load = Load::start(world.client(0)?, &world.log, spec);
    let acked = |count: u64, what: &'static str| {
        let world = &world;
        async move {
            wait::try_until(PATIENCE, what, || async {
                ensure!(world.figures("b").await?.acked_total >= count);
                Ok(())
            })
            .await
        }
    };
    acked(200, "the first messages").await?;
    world.kill(Victim::Gateway(0))?;
    world.revive(Victim::Gateway(0)).await?;
    load.stop().await?;
    world.drained(&groups, PATIENCE).await?;
    for agent in agents {
        agent.stop().await?;
    }
    world.verdict(&groups, &terms(LEASE)).await?.assert_clean();
    Ok(())
}
