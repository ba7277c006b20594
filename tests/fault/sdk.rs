//! The SDK under faults: what an agent of a user does without knowing of any of it.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use hive_client::{Client, Ended, Job, Outcome, Publisher, Target, WorkError, Worker, message};
use hive_testkit::{
    proxy::{FaultProxy, Mode},
    redis::{Aof, RedisServer},
    wait,
};
use parking_lot::Mutex;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::world::{PATIENCE, STREAM, Victim, World, settings};

const GROUP: &str = "workers";
const LEASE: Duration = Duration::from_secs(10);
/// Longer than a client needs to be elsewhere, also on a busy machine.
const GRACE: Duration = Duration::from_secs(10);
const MESSAGES: usize = 150;

/// Works through all messages while `fault` goes on; says how often each was handled.
async fn work_through(victim: Victim) -> Result<BTreeMap<String, usize>> {
    let redis = RedisServer::builder().aof(Aof::Always);
    let mut world = World::start(redis, 2, 1).await?;
    world.group(GROUP, settings(LEASE, GRACE)).await?;
    let handled: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
    let stop = CancellationToken::new();
    let mut workers = Vec::new();
    for number in 0..3 {
        let handled = Arc::clone(&handled);
        let work = move |job: Job| {
            *handled.lock().entry(job.message.message_id).or_default() += 1;
            async {
                sleep(Duration::from_millis(150)).await;
                Outcome::done()
            }
        };
        let worker = Worker::builder(world.client(number % 2)?, GROUP, work)
            .consumer_id(format!("worker-{number}"))
            .concurrency(4)
            .shutdown(stop.clone())
            .build();
        #[expect(clippy::disallowed_methods, reason = "a test has no chassis")]
        workers.push(tokio::spawn(worker.run()));
    }
    let publisher = Publisher::new(&world.client(0)?, Target::group(GROUP));
    let all = (0..MESSAGES).map(|number| message("task", number.to_string()));
    let published = publisher.publish_all(all);
    let faults = async {
        for _ in 0..2 {
            let before = handled.lock().len();
            let seen = || std::future::ready(handled.lock().len() >= before + MESSAGES / 6);
            wait::try_until(PATIENCE, "messages to be handled", seen).await?;
            world.kill(victim)?;
            world.revive(victim).await?;
        }
        anyhow::Ok(())
    };
    let (published, faults) = tokio::join!(published, faults);
    faults?;
    for receipt in published {
        ensure!(
            !receipt?.duplicate,
            "a publish without a key is no duplicate"
        );
    }
    world.drained(&[GROUP], PATIENCE).await?;
    stop.cancel();
    for worker in workers {
        timeout(PATIENCE, worker)
            .await
            .context("a worker ends")???;
    }
    let figures = world.figures(GROUP).await?;
    assert_eq!(figures.published_total, MESSAGES as u64);
    assert_eq!(
        (figures.acked_total, figures.dead_total),
        (MESSAGES as u64, 0)
    );
    let handled = handled.lock().clone();
    Ok(handled)
}

fn assert_once(handled: &BTreeMap<String, usize>) {
    assert_eq!(handled.len(), MESSAGES);
    let twice: Vec<_> = handled.iter().filter(|(_, times)| **times > 1).collect();
    assert_eq!(
        twice,
        Vec::new(),
        "a worker that comes back in time keeps what it works on"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_keep_what_they_work_on_when_their_gateway_is_killed() -> Result<()> {
    assert_once(&work_through(Victim::Gateway(0)).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_keep_what_they_work_on_when_redis_is_killed() -> Result<()> {
    assert_once(&work_through(Victim::Redis).await?);
    Ok(())
}

/// One worker at one long task, at the second of two gateways, which is behind a line.
struct Long {
    world: World,
    line: FaultProxy,
    begun: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
    worker: JoinHandle<Result<Ended, WorkError>>,
}

impl Long {
    async fn start(aof: Aof) -> Result<Self> {
        let mut world = World::start(RedisServer::builder().aof(aof), 0, 1).await?;
        let line = FaultProxy::start(world.redis.socket()).await?;
        let direct = world.redis.url();
        world.add_gateway(&direct, &[]).await?;
        // The second, so that it knows of the other from its first beat on.
        world.add_gateway(&line.redis_url(), &[]).await?;
        world.group(GROUP, settings(LEASE, GRACE)).await?;
        let begun: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = Arc::clone(&begun);
        // Longer than the trouble of the tests.
        let work = move |job: Job| {
            noted.lock().push(job.message.message_id);
            async {
                sleep(Duration::from_secs(18)).await;
                Outcome::done()
            }
        };
        let stop = CancellationToken::new();
        let worker = Worker::builder(world.client(1)?, GROUP, work)
            .consumer_id("worker")
            .concurrency(1)
            .shutdown(stop.clone())
            .build();
        #[expect(clippy::disallowed_methods, reason = "a test has no chassis")]
        let worker = tokio::spawn(worker.run());
        let publisher = Publisher::new(&world.client(0)?, Target::group(GROUP));
        publisher.publish(message("task", "long")).await?;
        let has_begun = || std::future::ready(!begun.lock().is_empty());
        wait::try_until(PATIENCE, "the work to begin", has_begun).await?;
        Ok(Self {
            world,
            line,
            begun,
            stop,
            worker,
        })
    }

    async fn finish_once(self) -> Result<()> {
        self.world.drained(&[GROUP], PATIENCE).await?;
        assert!(!self.worker.is_finished(), "the worker goes on");
        self.stop.cancel();
        timeout(PATIENCE, self.worker)
            .await
            .context("the worker ends")???;
        assert_eq!(self.begun.lock().len(), 1, "nobody got it again meanwhile");
        let figures = self.world.figures(GROUP).await?;
        assert_eq!((figures.acked_total, figures.failed_total), (1, 0));
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_were_given_up_with_their_only_gateway_work_on() -> Result<()> {
    let mut world = World::start(RedisServer::builder().aof(Aof::Everysec), 0, 1).await?;
    let line = FaultProxy::start(world.redis.socket()).await?;
    world.add_gateway(&line.redis_url(), &[]).await?;
    world.group(GROUP, settings(LEASE, GRACE)).await?;
    let store = world.store()?;
    let shard = store.shard("default", STREAM, 0);
    let members = async |count: usize| {
        wait::try_until(PATIENCE, "the members", async || {
            let there = store.members(&shard, GROUP).await?.len();
            ensure!(there == count, "there are {there}");
            anyhow::Ok(())
        })
        .await
    };
    let begun: Arc<Mutex<Vec<String>>> = Arc::default();
    let stop = CancellationToken::new();
    let mut workers = Vec::new();
    let publisher = Publisher::new(&world.client(0)?, Target::group(GROUP));
    // The first holds what it can and hears of its end by a heartbeat, the second by a fetch.
    publisher.publish(message("task", "held")).await?;
    for id in ["busy", "idle"] {
        let noted = Arc::clone(&begun);
        let work = move |job: Job| {
            let mut noted = noted.lock();
            noted.push(job.message.message_id);
            let is_first = noted.len() == 1;
            async move {
                if is_first {
                    job.cancelled.cancelled().await;
                }
                Outcome::done()
            }
        };
        let worker = Worker::builder(world.client(0)?, GROUP, work)
            .consumer_id(id)
            .concurrency(1)
            .shutdown(stop.clone())
            .build();
        #[expect(clippy::disallowed_methods, reason = "a test has no chassis")]
        workers.push(tokio::spawn(worker.run()));
        let has_begun = || std::future::ready(!begun.lock().is_empty());
        wait::try_until(PATIENCE, "the work to begin", has_begun).await?;
    }
    members(2).await?;
    line.set(Mode::HalfOpen);
    members(0).await?;
    line.set(Mode::Pass);
    members(2).await?;
    publisher.publish(message("task", "more")).await?;
    world.drained(&[GROUP], PATIENCE).await?;
    stop.cancel();
    for worker in workers {
        timeout(PATIENCE, worker)
            .await
            .context("a worker ends")??
            .context("a worker that nobody fenced out")?;
    }
    assert_eq!(begun.lock().len(), 3, "the first was given back once");
    let figures = world.figures(GROUP).await?;
    assert_eq!((figures.acked_total, figures.failed_total), (2, 0));
    Ok(())
}

/// Longer than a gateway may be unheard, and than a coordinator waits for it.
const AWAY: Duration = Duration::from_secs(14);

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_leaves_a_gateway_that_alone_lost_redis_and_keeps_its_work() -> Result<()> {
    let long = Long::start(Aof::Everysec).await?;
    long.line.set(Mode::HalfOpen);
    sleep(AWAY).await;
    long.line.set(Mode::Pass);
    long.finish_once().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_keeps_its_work_while_redis_is_away_for_everybody() -> Result<()> {
    let mut long = Long::start(Aof::Always).await?;
    long.world.kill(Victim::Redis)?;
    sleep(AWAY).await;
    long.world.revive(Victim::Redis).await?;
    long.finish_once().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_comes_back_in_a_flood_handles_everything_once() -> Result<()> {
    let world = World::start(RedisServer::builder().aof(Aof::Everysec), 1, 1).await?;
    world.group(GROUP, settings(LEASE, GRACE)).await?;
    let gateway = world.url(0);
    let address: SocketAddr = gateway.trim_start_matches("http://").parse()?;
    let line = FaultProxy::start(address).await?;
    let handled: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
    let noted = Arc::clone(&handled);
    let work = move |job: Job| {
        *noted.lock().entry(job.message.message_id).or_default() += 1;
        async { Outcome::done() }
    };
    let stop = CancellationToken::new();
    let worker = Worker::builder(Client::new(&line.url())?, GROUP, work)
        .consumer_id("worker")
        .concurrency(64)
        .shutdown(stop.clone())
        .build();
    #[expect(clippy::disallowed_methods, reason = "a test has no chassis")]
    let worker = tokio::spawn(worker.run());
    let publisher = Publisher::new(&world.client(0)?, Target::group(GROUP));
    let done = CancellationToken::new();
    let flood = async {
        let mut published = 0_usize;
        while !done.is_cancelled() {
            let some = (0..500).map(|number| message("task", number.to_string()));
            for receipt in publisher.publish_all(some).await {
                receipt?;
                published += 1;
            }
        }
        anyhow::Ok(published)
    };
    let resets = async {
        for _ in 0..4 {
            // The gateway looks again at who came back one second later, in the middle of reads.
            sleep(Duration::from_millis(1_600)).await;
            line.reset();
        }
        sleep(Duration::from_millis(1_600)).await;
        done.cancel();
    };
    let (published, ()) = tokio::join!(flood, resets);
    let published = published?;
    world.drained(&[GROUP], PATIENCE).await?;
    stop.cancel();
    timeout(PATIENCE, worker)
        .await
        .context("the worker ends")???;
    let handled = handled.lock().clone();
    let twice = handled.values().filter(|times| **times > 1).count();
    assert_eq!((handled.len(), twice), (published, 0));
    Ok(())
}
