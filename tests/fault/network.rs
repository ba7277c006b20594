//! A bad network between gateways, agents and Redis: replies that are lost, lines that go silent,
//! processes that are stopped and go on.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hive_client::{Target, wire};
use hive_testkit::{
    checker::Report,
    history::{Action, Damage, Event, SettleAnswer, Target as Hit},
    proxy::{FaultProxy, Mode},
    redis::{Aof, RedisServer},
    wait,
};
use tokio::time::sleep;

use crate::{
    crew::{self, Agent},
    hand::Hand,
    load::{self, Load, named, publish_plain},
    world::{PATIENCE, World, settings, terms},
};

const GROUP: &str = "workers";
const LEASE: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_secs(3);
const RATE: u32 = 300;
/// How often a line fails, and how long it is well in between.
const TIMES: usize = 12;
const WELL: Duration = Duration::from_millis(250);

/// A group at work at two gateways, the first of them behind a proxy on its way to Redis.
struct Scene {
    world: World,
    line: FaultProxy,
    load: Load,
    agents: Vec<Agent>,
}

impl Scene {
    async fn start() -> Result<Self> {
        let redis = RedisServer::builder().aof(Aof::Everysec);
        let mut world = World::start(redis, 0, 1).await?;
        let line = FaultProxy::start(world.redis.socket()).await?;
        world.add_gateway(&line.redis_url(), &[]).await?;
        let direct = world.redis.url();
        world.add_gateway(&direct, &[]).await?;
        world.group(GROUP, settings(LEASE, GRACE)).await?;
        let spec = load::Spec {
            number: 0,
            target: Target::group(GROUP),
            groups: vec![GROUP.into()],
            rate: RATE,
            seed: 5,
        };
        let load = Load::start(world.client(0)?, &world.log, spec);
        let agent = |number: usize| crew::Spec {
            group: GROUP.into(),
            id: format!("agent-{number}").into(),
            urls: world.urls(number % 2),
            concurrency: 8,
            work: Duration::from_millis(40),
            lease: LEASE,
            is_moody: true,
        };
        let agents = (0..4)
            .map(|number| Agent::start(&world.log, agent(number)))
            .collect();
        let scene = Self {
            world,
            line,
            load,
            agents,
        };
        scene.acked(200).await?;
        Ok(scene)
    }

    async fn acked(&self, messages: u64) -> Result<()> {
        wait::try_until(PATIENCE, "messages to be acked", || async {
            // Asked at the gateway with the good line.
            let client = self.world.client(1)?;
            let group = client.get_group(GROUP).await?;
            let acked = group.figures.context("figures")?.acked_total;
            ensure!(acked >= messages, "{acked}");
            Ok(())
        })
        .await?;
        Ok(())
    }

    fn begin(&self, damage: Damage) {
        let (name, target) = ("line".into(), Hit::Network);
        self.world.log.record(Event::FaultBegan {
            name,
            target,
            damage,
        });
    }

    fn end(&self) {
        self.world.log.record(Event::FaultEnded {
            name: "line".into(),
        });
    }

    async fn finish(self) -> Result<Report> {
        self.load.stop().await?;
        self.world.drained(&[GROUP], PATIENCE).await?;
        for agent in self.agents {
            agent.stop().await?;
        }
        self.world.verdict(&[GROUP], &terms(LEASE)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_of_redis_that_are_lost_again_and_again_cost_nothing() -> Result<()> {
    let scene = Scene::start().await?;
    for _ in 0..TIMES {
        scene.begin(Damage::Cut);
        scene.line.set(Mode::CutBeforeReply);
        sleep(Duration::from_millis(60)).await;
        scene.line.set(Mode::Pass);
        scene.end();
        sleep(WELL).await;
    }
    scene.finish().await?.assert_clean();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_redis_that_are_reset_again_and_again_cost_nothing() -> Result<()> {
    let scene = Scene::start().await?;
    for _ in 0..TIMES {
        scene.begin(Damage::Cut);
        scene.line.reset();
        scene.end();
        sleep(WELL).await;
    }
    scene.finish().await?.assert_clean();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_line_to_redis_is_noticed_and_costs_nothing() -> Result<()> {
    let scene = Scene::start().await?;
    scene.begin(Damage::Stopped);
    scene.line.set(Mode::HalfOpen);
    sleep(LEASE + GRACE).await;
    scene.line.set(Mode::Pass);
    scene.end();
    scene.finish().await?.assert_clean();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_redis_that_goes_on_costs_nothing() -> Result<()> {
    let mut scene = Scene::start().await?;
    for _ in 0..2 {
        scene.begin(Damage::Stopped);
        scene.world.redis.pause()?;
        sleep(Duration::from_secs(3)).await;
        scene.world.redis.resume()?;
        scene.end();
        sleep(WELL).await;
    }
    scene.finish().await?.assert_clean();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_gateway_that_goes_on_settles_nothing_stale() -> Result<()> {
    let mut scene = Scene::start().await?;
    scene.begin(Damage::Stopped);
    let gateway = scene.world.gateways.first_mut().context("a gateway")?;
    gateway.sigstop()?;
    // Its consumers are given up after 10 s; then it comes back and knows nothing of that.
    sleep(Duration::from_secs(13)).await;
    gateway.sigcont()?;
    scene.end();
    scene.finish().await?.assert_clean();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_whose_answer_redis_lost_is_answered_as_taken() -> Result<()> {
    let mut world = World::start(RedisServer::builder(), 0, 0).await?;
    let line = FaultProxy::start(world.redis.socket()).await?;
    world.add_gateway(&line.redis_url(), &[]).await?;
    let direct = world.redis.url();
    world.add_gateway(&direct, &[]).await?;
    world.group(GROUP, settings(LEASE, GRACE)).await?;
    let target = (&Target::group(GROUP), [GROUP].as_slice());
    let ids = ["warm", "acked", "failed", "rejected"].map(str::to_owned);
    publish_plain(&world.client(0)?, &world.log, target, named(ids)).await;
    let mut agent = Hand::join(&world.log, &world.url(0), (GROUP, "a")).await?;
    agent.ack_all(1, PATIENCE).await?;
    for action in [Action::Ack, Action::Nack, Action::Reject] {
        let taken = agent.take_one().await?;
        let before = done(&world).await?;
        line.set(Mode::CutBeforeReply);
        let heal = async {
            let carried_out =
                wait::try_until(PATIENCE, "the outcome to be carried out", || async {
                    ensure!(done(&world).await? > before);
                    Ok(())
                });
            let carried_out = carried_out.await;
            line.set(Mode::Pass);
            carried_out
        };
        let (answer, healed) = tokio::join!(agent.settle(&taken, action), heal);
        healed?;
        assert_eq!(answer, SettleAnswer::Ok, "{action:?}");
    }
    Ok(())
}

/// Outcomes that the group took, asked at the gateway with the good line.
async fn done(world: &World) -> Result<u64> {
    let group = world.client(1)?.get_group(GROUP).await?;
    let figures = group.figures.context("figures")?;
    Ok(figures.acked_total + figures.failed_total)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duplicate_that_is_sent_again_still_names_the_first_message() -> Result<()> {
    let world = World::start(RedisServer::builder(), 1, 0).await?;
    world.group(GROUP, settings(LEASE, GRACE)).await?;
    let mut messages = named(["first".to_owned(), "second".to_owned()]);
    for message in &mut messages {
        message.idempotency_key = "k".into();
        message.payload = "the same".into();
    }
    let batch = wire::PublishBatchRequest {
        group: GROUP.into(),
        messages,
        producer_id: "p".into(),
        first_sequence: 1,
        ..wire::PublishBatchRequest::default()
    };
    for sending in 1..=2 {
        let answer = world.client(0)?.publish_batch(batch.clone()).await?;
        let ids: Vec<&str> = answer
            .outcomes
            .iter()
            .map(|one| one.message_id.as_str())
            .collect();
        assert_eq!(ids, ["first", "first"], "sending {sending}");
        assert!(
            answer
                .outcomes
                .iter()
                .skip(1)
                .all(|second| second.duplicate)
        );
    }
    Ok(())
}
