//! Agents that are gone without a word, or there without a word, in a group that goes on working.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use hive_client::Target;
use hive_testkit::{
    checker::{Report, Terms},
    history::{Event, Loss},
    redis::{Aof, RedisServer},
    wait,
};

use crate::{
    crew::{self, Agent},
    hand::{Hand, Taken},
    load::{self, Load},
    world::{PATIENCE, Victim, World, settings, terms},
};

const GROUP: &str = "workers";
const LEASE: Duration = Duration::from_secs(2);
const GRACE: Duration = Duration::from_secs(3);
const RATE: u32 = 200;
/// What the silent one holds.
const HELD: u32 = 5;

/// A group at work at the second gateway, and one more agent that holds messages of it.
struct Scene {
    world: World,
    load: Load,
    agents: Vec<Agent>,
}

impl Scene {
    async fn start() -> Result<Self> {
        let world = World::start(RedisServer::builder().aof(Aof::Everysec), 2, 2).await?;
        world.group(GROUP, settings(LEASE, GRACE)).await?;
        let spec = load::Spec {
            number: 0,
            target: Target::group(GROUP),
            groups: vec![GROUP.into()],
            rate: RATE,
            seed: 3,
        };
        let load = Load::start(world.client(1)?, &world.log, spec);
        let agent = |number: usize| crew::Spec {
            group: GROUP.into(),
            id: format!("agent-{number}").into(),
            urls: world.urls(1),
            concurrency: 8,
            work: Duration::from_millis(20),
            lease: LEASE,
            is_moody: false,
        };
        let agents = (0..2)
            .map(|number| Agent::start(&world.log, agent(number)))
            .collect();
        Ok(Self {
            world,
            load,
            agents,
        })
    }

    /// An agent at the first gateway alone that took what it can.
    async fn holder(&self) -> Result<(Hand, Vec<Taken>)> {
        let mut hand = Hand::join(&self.world.log, &self.world.url(0), (GROUP, "silent")).await?;
        hand.credit(HELD).await?;
        let held = hand.take(HELD as usize, PATIENCE).await?;
        ensure!(held.len() == HELD as usize, "{} came", held.len());
        Ok((hand, held))
    }

    /// Waits until others have what the silent one held.
    async fn redelivered(&self, held: &[Taken]) -> Result<()> {
        let log = Arc::clone(&self.world.log);
        wait::try_until(PATIENCE, "what the silent agent held to come again", || {
            let history = log.snapshot();
            let mut others = Vec::new();
            for entry in &history.entries {
                if let Event::Delivered(delivery) = &entry.event
                    && &*delivery.consumer != "silent"
                {
                    others.push(&delivery.message);
                }
            }
            let came = |one: &&Taken| others.iter().any(|id| ***id == one.message.message_id);
            std::future::ready(held.iter().filter(came).count() == held.len())
        })
        .await?;
        Ok(())
    }

    async fn finish(self, redelivery_max: Duration) -> Result<Report> {
        self.load.stop().await?;
        self.world.drained(&[GROUP], PATIENCE).await?;
        for agent in self.agents {
            agent.stop().await?;
        }
        let terms = Terms {
            redelivery_max: Some(redelivery_max),
            ..terms(LEASE)
        };
        self.world.verdict(&[GROUP], &terms).await
    }
}

fn assert_moved_on(report: &Report) {
    report.assert_clean();
    assert_eq!(report.redeliveries.len(), HELD as usize, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_moves_its_work_on_in_under_5_seconds() -> Result<()> {
    let scene = Scene::start().await?;
    let (hand, held) = scene.holder().await?;
    hand.note_loss(Loss::Killed);
    drop(hand);
    scene.redelivered(&held).await?;
    assert_moved_on(&scene.finish(Duration::from_secs(5)).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_agent_loses_its_work_within_its_lease_and_a_second() -> Result<()> {
    let scene = Scene::start().await?;
    let (hand, held) = scene.holder().await?;
    hand.note_loss(Loss::Stopped);
    scene.redelivered(&held).await?;
    let report = scene.finish(LEASE + Duration::from_secs(1)).await?;
    assert_moved_on(&report);
    // Its connection was open all the time.
    drop(hand);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_died_with_its_gateway_is_redelivered_in_under_12_seconds() -> Result<()> {
    let mut scene = Scene::start().await?;
    let (hand, held) = scene.holder().await?;
    // Both at once: nobody is left who could say that the agent is gone.
    scene.world.kill(Victim::Gateway(0))?;
    hand.note_loss(Loss::Killed);
    drop(hand);
    scene.redelivered(&held).await?;
    scene.world.revive(Victim::Gateway(0)).await?;
    assert_moved_on(&scene.finish(Duration::from_secs(12)).await?);
    Ok(())
}
