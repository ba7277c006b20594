//! Who may get a message, and which one comes first.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use hive_client::{Job, Outcome, Publisher, Target, message, wire};
use hive_testkit::{redis::Aof, wait};
use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

use crate::{
    fleet::{Agent, Fleet, PATIENCE, Seen},
    member::{Member, ack, join, text_of},
};

/// A message of this priority.
fn urgent(priority: u32, payload: impl Into<bytes::Bytes>) -> wire::Message {
    wire::Message {
        priority: Some(priority),
        ..message("t", payload)
    }
}

/// A message that only agents with this capability may get.
fn requiring(capability: &str, payload: impl Into<bytes::Bytes>) -> wire::Message {
    wire::Message {
        required_capabilities: vec![capability.into()],
        ..message("t", payload)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_needs_a_gpu_reaches_only_agents_that_have_one() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 2, 0).await?;
    fleet.group("mixed", wire::GroupSettings::default()).await?;
    let (plain, gifted) = (Seen::default(), Seen::default());
    let mut agents = Vec::new();
    for (number, seen) in [&plain, &plain, &gifted, &plain].into_iter().enumerate() {
        let capabilities = if number == 2 {
            &["big", "gpu"][..]
        } else {
            &["big"]
        };
        let client = fleet.client(number % 2)?;
        agents.push(Agent::acking(
            client,
            "mixed",
            &format!("a{number}"),
            seen,
            |builder| {
                builder
                    .capabilities(capabilities.iter().copied())
                    .concurrency(4)
            },
        ));
    }
    fleet.members("mixed", 4).await?;
    let publisher = Publisher::new(&fleet.client(0)?, Target::group("mixed"));
    let messages = (0..600).map(|n| {
        let mut one = if n % 3 == 0 {
            requiring("gpu", "")
        } else {
            message("t", "")
        };
        one.message_id = if n % 3 == 0 {
            format!("gpu-{n}")
        } else {
            format!("any-{n}")
        };
        one
    });
    for receipt in publisher.publish_all(messages).await {
        receipt?;
    }
    fleet.drained("mixed").await?;
    assert_eq!(plain.matching("gpu-"), 0);
    assert_eq!(gifted.matching("gpu-"), 200);
    assert_eq!(plain.matching("any-") + gifted.matching("any-"), 400);
    for agent in agents {
        agent.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_nobody_can_do_waits_in_sight_and_blocks_nobody() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    fleet.group("mixed", wire::GroupSettings::default()).await?;
    let seen = Seen::default();
    let agent = Agent::acking(fleet.client(0)?, "mixed", "plain", &seen, |builder| builder);
    fleet.members("mixed", 1).await?;
    for n in 0..5 {
        fleet
            .publish("mixed", requiring("gpu", n.to_string()))
            .await?;
    }
    let publisher = Publisher::new(&fleet.client(0)?, Target::group("mixed"));
    for receipt in publisher
        .publish_all((0..100).map(|n| message("t", n.to_string())))
        .await
    {
        receipt?;
    }
    wait::until(PATIENCE, "plain work to be done", || async {
        seen.messages() == 100
    })
    .await;
    let figures = wait::until(PATIENCE, "the acks to be counted", || async {
        let figures = fleet.figures("mixed").await?;
        anyhow::ensure!(figures.pending_count == 0, "{figures:?}");
        anyhow::Ok(figures)
    })
    .await;
    assert_eq!(
        (figures.lag, figures.health.as_str()),
        (5, "no_capable_consumer")
    );
    let request = wire::PeekMessagesRequest {
        group: "mixed".into(),
        ..wire::PeekMessagesRequest::default()
    };
    let peeked = fleet.client(0)?.peek_messages(request).await?.messages;
    assert_eq!(peeked.len(), 5);
    for one in peeked {
        assert_eq!(one.state(), wire::MessageState::Waiting);
        let message = one.message.context("a peek shows the message")?;
        assert_eq!(message.required_capabilities, ["gpu"]);
    }
    let late = Agent::acking(fleet.client(0)?, "mixed", "gifted", &seen, |builder| {
        builder.capabilities(["gpu"])
    });
    fleet.drained("mixed").await?;
    late.stop().await?;
    agent.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn urgent_work_overtakes_a_backlog_of_a_hundred_thousand() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    fleet.group("busy", wire::GroupSettings::default()).await?;
    let publisher = Publisher::new(&fleet.client(0)?, Target::group("busy"));
    for receipt in publisher
        .publish_all((0..100_000).map(|_| urgent(0, "later")))
        .await
    {
        receipt?;
    }
    let handled: Arc<Mutex<BTreeMap<String, Instant>>> = Arc::default();
    let noted = handled.clone();
    let work = move |job: Job| {
        let noted = noted.clone();
        async move {
            if job.message.payload != "later" {
                noted.lock().insert(job.message.message_id, Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            Outcome::done()
        }
    };
    let agent = Agent::working(fleet.client(0)?, "busy", "a", work, |builder| {
        builder.concurrency(2).max_in_flight(4)
    });
    wait::until(PATIENCE, "the backlog to move", || async {
        anyhow::Ok(fleet.figures("busy").await?.acked_total > 20)
    })
    .await;
    let mut waits = Vec::new();
    for n in 0..15 {
        let id = format!("urgent-{n}");
        let sent = Instant::now();
        let message = wire::Message {
            message_id: id.clone(),
            ..urgent(9, "now")
        };
        publisher.publish(message).await?;
        let at = wait::until(PATIENCE, "the urgent message", || async {
            handled.lock().get(&id).copied()
        });
        waits.push(at.await.duration_since(sent));
    }
    waits.sort();
    // The median: other programs share the machine with this test.
    assert!(waits[7] < Duration::from_millis(100), "{waits:?}");
    assert!(fleet.figures("busy").await?.lag > 90_000);
    agent.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_urgent_message_still_moves_under_a_flood_of_the_most_urgent() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    let settings = wire::GroupSettings {
        priority_ageing: Some(hive_protocol::time::to_duration(1_000)),
        ..wire::GroupSettings::default()
    };
    fleet.group("flooded", settings).await?;
    let low: Arc<Mutex<Vec<u64>>> = Arc::default();
    let noted = low.clone();
    let work = move |job: Job| {
        let noted = noted.clone();
        async move {
            if job.message.priority == Some(0) {
                noted.lock().push(1);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            Outcome::done()
        }
    };
    let agent = Agent::working(fleet.client(0)?, "flooded", "a", work, |builder| {
        builder.concurrency(2)
    });
    let publisher = Publisher::new(&fleet.client(0)?, Target::group("flooded"));
    let end = Instant::now() + PATIENCE;
    let mut published_low = false;
    while low.lock().is_empty() {
        assert!(Instant::now() < end, "the message of priority 0 starves");
        if fleet.figures("flooded").await?.lag < 500 {
            for receipt in publisher.publish_all((0..500).map(|_| urgent(9, ""))).await {
                receipt?;
            }
        }
        if !published_low {
            publisher.publish(urgent(0, "")).await?;
            published_low = true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let figures = fleet.figures("flooded").await?;
    assert!(figures.lag > 0, "the flood went on: {figures:?}");
    agent.stop().await
}

/// What is in flight of each ordering key, and what was done.
#[derive(Default)]
struct Keys {
    in_flight: BTreeMap<String, usize>,
    done: BTreeMap<String, Vec<usize>>,
    twice: Vec<String>,
}

/// Takes a key while a handler works, also one that is dropped in mid-work.
struct Taken(Arc<Mutex<Keys>>, String);

impl Taken {
    fn new(keys: &Arc<Mutex<Keys>>, key: &str) -> Self {
        let mut held = keys.lock();
        let count = held.in_flight.entry(key.to_owned()).or_default();
        *count += 1;
        if *count > 1 {
            held.twice.push(key.to_owned());
        }
        drop(held);
        Self(keys.clone(), key.to_owned())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        *self.0.lock().in_flight.entry(self.1.clone()).or_default() -= 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordering_key_keeps_its_order_over_failures_and_lost_agents() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 2, 1).await?;
    let settings = wire::GroupSettings {
        reconnect_grace: Some(hive_protocol::time::to_duration(200)),
        initial_backoff: Some(hive_protocol::time::to_duration(20)),
        max_attempts: Some(50),
        ..wire::GroupSettings::default()
    };
    fleet.group("ordered", settings).await?;
    let keys: Arc<Mutex<Keys>> = Arc::default();
    let start = |number: usize| {
        let keys = keys.clone();
        let work = move |job: Job| {
            let taken = Taken::new(&keys, &job.message.ordering_key);
            let keys = keys.clone();
            async move {
                let number: usize = std::str::from_utf8(&job.message.payload)
                    .ok()
                    .and_then(|text| text.parse().ok())
                    .expect("payloads are numbers");
                tokio::time::sleep(Duration::from_millis(2)).await;
                if number.is_multiple_of(5) && job.attempt == 1 {
                    drop(taken);
                    return Outcome::nack("the first try fails");
                }
                let key = job.message.ordering_key;
                keys.lock().done.entry(key).or_default().push(number);
                drop(taken);
                Outcome::done()
            }
        };
        let client = fleet
            .client(number % 2)
            .expect("the gateways have addresses");
        Agent::working(client, "ordered", &format!("a{number}"), work, |builder| {
            builder.concurrency(4).max_in_flight(8)
        })
    };
    let mut agents: Vec<Agent> = (0..4).map(start).collect();
    let publisher = Publisher::new(&fleet.client(0)?, Target::group("ordered"));
    let messages = (0..1_000).map(|n| wire::Message {
        ordering_key: format!("key-{}", n % 20),
        ..message("t", (n / 20).to_string())
    });
    for receipt in publisher.publish_all(messages).await {
        receipt?;
    }
    let lost = agents.remove(1);
    lost.task.abort();
    fleet.drained("ordered").await?;
    let keys = std::mem::take(&mut *keys.lock());
    assert_eq!(keys.twice, Vec::<String>::new());
    for (key, done) in &keys.done {
        // What the lost agent had done and not settled is done again, in its place.
        let mut once = done.clone();
        once.dedup();
        assert_eq!(once, (0..50).collect::<Vec<_>>(), "{key}");
    }
    assert_eq!(keys.done.len(), 20);
    for agent in agents {
        agent.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn capability_matched_gives_work_to_the_least_capable_agent_that_is_free() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    let settings = wire::GroupSettings {
        routing_mode: wire::RoutingMode::CapabilityMatched.into(),
        ..wire::GroupSettings::default()
    };
    fleet.group("matched", settings).await?;
    let client = fleet.client(0)?;
    let mut members = Vec::new();
    for (id, capabilities) in [("z", &[][..]), ("y", &["gpu"]), ("x", &["big", "gpu"])] {
        let join = wire::Join {
            capabilities: capabilities.iter().map(ToString::to_string).collect(),
            ..join("matched", id)
        };
        let member = Member::join(&client, 0, join).await?;
        member.credit(1).await?;
        members.push(member);
    }
    // Credit is granted when the gateway has answered something that was asked after it.
    for member in &mut members {
        member.settle(vec![wire::Outcome::default()]).await?;
    }
    for (position, member) in members.iter_mut().enumerate() {
        fleet
            .publish("matched", message("t", position.to_string()))
            .await?;
        let got = member.deliveries(1).await?;
        assert_eq!(text_of(&got[0])?, position.to_string());
        member.settle(vec![ack(&got[0])]).await?;
    }
    for member in &mut members {
        member.credit(1).await?;
        member.settle(vec![wire::Outcome::default()]).await?;
    }
    fleet
        .publish("matched", requiring("gpu", "special"))
        .await?;
    assert_eq!(text_of(&members[1].deliveries(1).await?[0])?, "special");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn priority_based_hands_out_strictly_by_priority_then_age() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    let settings = wire::GroupSettings {
        routing_mode: wire::RoutingMode::PriorityBased.into(),
        ..wire::GroupSettings::default()
    };
    fleet.group("strict", settings).await?;
    let mut random = SmallRng::seed_from_u64(7);
    let mut sent: Vec<(u32, usize)> = (0..300).map(|n| (random.random_range(0..10), n)).collect();
    let publisher = Publisher::new(&fleet.client(0)?, Target::group("strict"));
    let messages = sent
        .iter()
        .map(|(priority, n)| urgent(*priority, n.to_string()));
    for receipt in publisher.publish_all(messages.collect::<Vec<_>>()).await {
        receipt?;
    }
    let seen: Arc<Mutex<Vec<usize>>> = Arc::default();
    let noted = seen.clone();
    let work = move |job: Job| {
        let number = std::str::from_utf8(&job.message.payload)
            .ok()
            .and_then(|n| n.parse().ok());
        noted.lock().push(number.expect("payloads are numbers"));
        async { Outcome::done() }
    };
    let agent = Agent::working(fleet.client(0)?, "strict", "a", work, |builder| builder);
    fleet.drained("strict").await?;
    sent.sort_by_key(|(priority, n)| (std::cmp::Reverse(*priority), *n));
    let expected: Vec<usize> = sent.into_iter().map(|(_, n)| n).collect();
    assert_eq!(*seen.lock(), expected);
    agent.stop().await
}
