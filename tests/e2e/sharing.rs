//! Equal agents get equal work, at whichever gateway they are.
//!
//! Their handlers are what limits them here, not the gateways, and what they hold in advance is
//! enough to hide the way there.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use hive_client::{Job, Outcome, Publisher, Target, message, wire};
use hive_testkit::{redis::Aof, wait};

use crate::fleet::{Agent, Fleet, PATIENCE, Seen};

const AGENTS: usize = 10;

/// How the messages come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// All are there before the first one is done.
    Backlog,
    /// A few at a time, half of what the agents could do: most of them are free.
    Trickle,
}

impl Flow {
    const fn messages(self) -> usize {
        match self {
            Self::Backlog => 10_000,
            Self::Trickle => 5_000,
        }
    }

    /// How far from even a share may be, in percent. Of few waiting messages a fetch takes one more
    /// than its gateway's share, and the first to hear the bell does so each time.
    const fn tolerance(self) -> usize {
        match self {
            Self::Backlog => 20,
            Self::Trickle => 50,
        }
    }
}

/// Ten equal agents, so many of them at the first gateway, work all messages.
async fn is_even(mode: wire::RoutingMode, at_first: usize, flow: Flow) -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 2, 0).await?;
    let settings = wire::GroupSettings {
        routing_mode: mode.into(),
        ..wire::GroupSettings::default()
    };
    fleet.group("even", settings).await?;
    let seen = Seen::default();
    let start = Arc::new(tokio::sync::Semaphore::new(0));
    let agents: Vec<Agent> = (0..AGENTS)
        .map(|number| {
            let gateway = usize::from(number >= at_first);
            let id = format!("agent-{number}");
            let (seen, name, start) = (seen.clone(), id.clone(), start.clone());
            let work = move |job: Job| {
                let (seen, name, start) = (seen.clone(), name.clone(), start.clone());
                async move {
                    drop(start.acquire().await);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    seen.note(&job.message.message_id, &name);
                    Outcome::done()
                }
            };
            let client = fleet.client(gateway).expect("the gateways have addresses");
            Agent::working(client, "even", &id, work, |builder| {
                builder.concurrency(6).max_in_flight(18)
            })
        })
        .collect();
    fleet.members("even", AGENTS).await?;
    let publisher = Publisher::new(&fleet.client(0)?, Target::group("even"));
    if flow == Flow::Trickle {
        start.add_permits(tokio::sync::Semaphore::MAX_PERMITS);
    }
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    for some in (0..flow.messages()).collect::<Vec<_>>().chunks(15) {
        if flow == Flow::Trickle {
            ticks.tick().await;
        }
        for receipt in publisher
            .publish_all(some.iter().map(|n| message("t", n.to_string())))
            .await
        {
            receipt?;
        }
    }
    if flow == Flow::Backlog {
        start.add_permits(tokio::sync::Semaphore::MAX_PERMITS);
    }
    fleet.drained("even").await?;
    let shares = seen.by_consumer();
    assert_eq!((seen.messages(), shares.len()), (flow.messages(), AGENTS));
    let even = flow.messages() / AGENTS;
    assert!(
        shares
            .values()
            .all(|share| share.abs_diff(even) * 100 <= even * flow.tolerance()),
        "every share must be within {} % of {even}: {shares:?}",
        flow.tolerance()
    );
    for agent in agents {
        agent.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn load_balanced_is_even_over_five_agents_on_each_of_two_gateways() -> Result<()> {
    is_even(wire::RoutingMode::LoadBalanced, 5, Flow::Backlog).await
}

#[tokio::test(flavor = "multi_thread")]
async fn load_balanced_is_even_over_nine_agents_on_one_gateway_and_one_on_the_other() -> Result<()>
{
    is_even(wire::RoutingMode::LoadBalanced, 9, Flow::Backlog).await
}

#[tokio::test(flavor = "multi_thread")]
async fn round_robin_is_even_over_five_agents_on_each_of_two_gateways() -> Result<()> {
    is_even(wire::RoutingMode::RoundRobin, 5, Flow::Backlog).await
}

#[tokio::test(flavor = "multi_thread")]
async fn round_robin_is_even_over_nine_agents_on_one_gateway_and_one_on_the_other() -> Result<()> {
    is_even(wire::RoutingMode::RoundRobin, 9, Flow::Backlog).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trickle_reaches_the_agents_of_both_gateways_by_load() -> Result<()> {
    is_even(wire::RoutingMode::LoadBalanced, 5, Flow::Trickle).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trickle_reaches_the_agents_of_both_gateways_in_turn() -> Result<()> {
    is_even(wire::RoutingMode::RoundRobin, 5, Flow::Trickle).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_left_to_the_specialist_at_another_gateway_for_a_moment() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 2, 0).await?;
    let settings = wire::GroupSettings {
        routing_mode: wire::RoutingMode::CapabilityMatched.into(),
        ..wire::GroupSettings::default()
    };
    fleet.group("g", settings).await?;
    let seen = Seen::default();
    let start = |gateway: usize, id: &'static str, capabilities: &[&str]| {
        let seen = seen.clone();
        let work = move |job: Job| {
            seen.note(&job.message.message_id, id);
            std::future::ready(Outcome::done())
        };
        let client = fleet.client(gateway).expect("the gateways have addresses");
        Agent::working(client, "g", id, work, |builder| {
            builder.capabilities(capabilities.iter().copied())
        })
    };
    let generalist = start(0, "generalist", &["gpu", "python", "rust"]);
    let specialist = start(1, "specialist", &["gpu"]);
    fleet.members("g", 2).await?;
    // The gateways count each other once a second.
    let publish = async |id: String| {
        let task = wire::Message {
            message_id: id,
            required_capabilities: vec!["gpu".to_owned()],
            ..message("t", "")
        };
        fleet.publish("g", task).await?;
        fleet.drained("g").await?;
        anyhow::Ok(())
    };
    let by_specialist = || seen.by_consumer().get("specialist").copied().unwrap_or(0);
    wait::try_until(PATIENCE, "the specialist to be preferred", || async {
        let before = by_specialist();
        for _ in 0..4 {
            publish(String::new()).await?;
        }
        ensure!(by_specialist() == before + 4, "{:?}", seen.by_consumer());
        Ok(())
    })
    .await?;
    let before = by_specialist();
    for _ in 0..20 {
        publish(String::new()).await?;
    }
    assert_eq!(by_specialist(), before + 20, "it is free each time");
    specialist.stop().await?;
    publish("last".to_owned()).await?;
    assert_eq!(seen.matching("last"), 1, "whoever can takes it then");
    generalist.stop().await?;
    Ok(())
}
