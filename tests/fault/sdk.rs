//! The SDK under faults: what an agent of a user does without knowing of any of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use hive_client::{Job, Outcome, Publisher, Target, Worker, message};
use hive_testkit::{
    redis::{Aof, RedisServer},
    wait,
};
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::world::{PATIENCE, Victim, World, settings};

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
