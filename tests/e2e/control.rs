//! What coordinators ask of gateways: who holds what, some of it back, one to go, one to help out.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use hive_client::{Event, Fault, Job, Outcome, Reason, WorkerBuilder, message, wire};
use hive_protocol::time::to_duration;
use hive_store::coordination::ScalingWrite;
use hive_testkit::{redis::Aof, wait};
use tokio::sync::{Semaphore, mpsc};
use tonic::transport::Channel;
use wire::gateway_control_service_client::GatewayControlServiceClient;

use crate::{
    fleet::{Agent, Fleet, PATIENCE, Seen},
    member::{Member, join},
};

/// The calls of a coordinator, to the gateway with this number.
async fn control(fleet: &Fleet, gateway: usize) -> Result<GatewayControlServiceClient<Channel>> {
    let url = fleet.gateways.get(gateway).context("a gateway")?.url();
    Ok(GatewayControlServiceClient::connect(url).await?)
}

/// The connections of a group at a gateway, by consumer.
async fn connections(
    fleet: &Fleet,
    gateway: usize,
    group: &str,
) -> Result<BTreeMap<String, wire::Connection>> {
    let request = wire::ListConnectionsRequest {
        groups: vec![group.into()],
    };
    let mut control = control(fleet, gateway).await?;
    let answer = control.list_connections(request).await?;
    let connections = answer.into_inner().connections;
    Ok(connections
        .into_iter()
        .map(|one| (one.consumer_id.clone(), one))
        .collect())
}

async fn revoke(
    fleet: &Fleet,
    gateway: usize,
    (group, consumer): (&str, &str),
    messages: u32,
) -> Result<u32> {
    let request = wire::RevokeDeliveriesRequest {
        shares: Vec::new(),
        group: group.into(),
        from: vec![wire::RevokeFrom {
            consumer_id: consumer.into(),
            messages,
        }],
    };
    let mut control = control(fleet, gateway).await?;
    let answer = control.revoke_deliveries(request).await?;
    Ok(answer.into_inner().asked)
}

async fn drain(
    fleet: &Fleet,
    gateway: usize,
    (group, consumer): (&str, &str),
    epoch: u64,
) -> Result<bool, Fault> {
    let request = wire::DrainConsumerRequest {
        group: group.into(),
        consumer_id: consumer.into(),
        epoch,
        reason: "fewer are wanted".into(),
    };
    let mut control = control(fleet, gateway)
        .await
        .map_err(|error| Fault::new(Reason::Unreachable, error.to_string()))?;
    let answer = control.drain_consumer(request).await.map_err(Fault::from)?;
    Ok(answer.into_inner().told)
}

async fn publish(fleet: &Fleet, group: &str, count: usize) -> Result<()> {
    for number in 0..count {
        let one = wire::Message {
            message_id: format!("{group}-{number}"),
            ..message("t", "")
        };
        fleet.publish(group, one).await?;
    }
    Ok(())
}

/// Work that holds each job until a permit comes.
fn gated(
    seen: &Seen,
    name: &str,
    gate: &Arc<Semaphore>,
) -> impl Fn(Job) -> std::pin::Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync + 'static
{
    let (seen, name, gate) = (seen.clone(), name.to_owned(), Arc::clone(gate));
    move |job: Job| {
        let (seen, name, gate) = (seen.clone(), name.clone(), Arc::clone(&gate));
        Box::pin(async move {
            seen.note(&job.message.message_id, &name);
            tokio::select! {
                permit = gate.acquire() => if let Ok(permit) = permit { permit.forget() },
                () = job.cancelled.cancelled() => {},
            }
            Outcome::done()
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hoarder_gives_back_is_shared_evenly_by_the_idle() -> Result<()> {
    is_evened_out(1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_hoarder_gives_back_goes_to_the_idle_at_other_gateways_too() -> Result<()> {
    is_evened_out(2).await
}

/// One consumer holds a hundred; after a revoke nine idle ones, with room for ten each, are full.
async fn is_evened_out(gateways: usize) -> Result<()> {
    let fleet = Fleet::start(Aof::Off, gateways, 0).await?;
    fleet.group("hoard", wire::GroupSettings::default()).await?;
    let (seen, gate) = (Seen::default(), Arc::new(Semaphore::new(0)));
    let start = |gateway: usize, id: &str, most: u32| {
        let client = fleet.client(gateway).expect("the gateways have addresses");
        let work = gated(&seen, id, &gate);
        Agent::working(client, "hoard", id, work, |builder| {
            builder.max_in_flight(most)
        })
    };
    let mut agents = vec![start(0, "hoarder", 100)];
    fleet.members("hoard", 1).await?;
    publish(&fleet, "hoard", 100).await?;
    wait::try_until(PATIENCE, "the hoarder to hold all", || async {
        let held = connections(&fleet, 0, "hoard").await?;
        let hoarder = held.get("hoarder").context("the hoarder")?;
        ensure!((hoarder.held, hoarder.begun) == (100, 1), "{hoarder:?}");
        Ok(())
    })
    .await?;
    for number in 1..10 {
        let gateway = usize::from(number > 4) % gateways;
        agents.push(start(gateway, &format!("idle-{number}"), 10));
    }
    fleet.members("hoard", 10).await?;
    wait::try_until(PATIENCE, "all to have room", || async {
        for gateway in 0..gateways {
            let one = connections(&fleet, gateway, "hoard").await?;
            let mut idle = one.values().filter(|one| one.consumer_id != "hoarder");
            ensure!(idle.all(|one| one.room == 10 && one.held == 0), "{one:?}");
        }
        Ok(())
    })
    .await?;

    let asked = Instant::now();
    assert_eq!(revoke(&fleet, 0, ("hoard", "nobody"), 90).await?, 0);
    assert_eq!(revoke(&fleet, 0, ("hoard", "hoarder"), 90).await?, 1);
    wait::try_until(PATIENCE, "all to hold their share", || async {
        let mut counts = Vec::new();
        for gateway in 0..gateways {
            let held = connections(&fleet, gateway, "hoard").await?;
            let idle = held.values().filter(|one| one.consumer_id != "hoarder");
            counts.extend(idle.map(|one| one.held));
        }
        ensure!(counts == [10; 9], "{counts:?}");
        Ok(())
    })
    .await?;
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    let hoarder = &connections(&fleet, 0, "hoard").await?["hoarder"];
    assert_eq!((hoarder.held, hoarder.room), (10, 0));

    gate.add_permits(Semaphore::MAX_PERMITS);
    let figures = fleet.drained("hoard").await?;
    assert_eq!((seen.messages(), seen.twice()), (100, Vec::new()));
    assert_eq!((figures.failed_total, figures.acked_total), (0, 100));
    for agent in agents {
        agent.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_consumer_finishes_what_it_began_and_goes() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    fleet.group("fewer", wire::GroupSettings::default()).await?;
    let (seen, gate) = (Seen::default(), Arc::new(Semaphore::new(0)));
    let work = gated(&seen, "going", &gate);
    let (client, tune) = (fleet.client(0)?, |builder: WorkerBuilder<_>| {
        // The grace is for a shutdown alone.
        builder.max_in_flight(4).grace(Duration::from_millis(1))
    });
    let going = Agent::working(client, "fewer", "going", work, tune);
    fleet.members("fewer", 1).await?;
    publish(&fleet, "fewer", 4).await?;
    wait::try_until(PATIENCE, "the first to begin", || async {
        let held = connections(&fleet, 0, "fewer").await?;
        ensure!(held["going"].held == 4 && seen.messages() == 1, "{held:?}");
        Ok(())
    })
    .await?;

    let none = drain(&fleet, 0, ("fewer", "going"), 1).await;
    assert_eq!(none.map_err(|fault| fault.reason), Err(Reason::Fenced));
    let store = fleet.store()?;
    store.claim_scaling("default", &["fewer"], "a").await?;
    let rows = store.claim_scaling("default", &["fewer"], "b").await?;
    let epoch = rows[0].epoch;
    let old = drain(&fleet, 0, ("fewer", "going"), epoch - 1).await;
    assert_eq!(old.map_err(|fault| fault.reason), Err(Reason::Fenced));
    assert!(!connections(&fleet, 0, "fewer").await?["going"].draining);

    assert_eq!(
        drain(&fleet, 0, ("fewer", "nobody"), epoch).await,
        Ok(false)
    );
    assert_eq!(drain(&fleet, 0, ("fewer", "going"), epoch).await, Ok(true));
    wait::try_until(PATIENCE, "the unstarted to go back", || async {
        let held = connections(&fleet, 0, "fewer").await?;
        let going = held.get("going").context("it has begun one")?;
        ensure!(
            (going.held, going.room, going.draining) == (1, 0, true),
            "{going:?}"
        );
        Ok(())
    })
    .await?;
    publish_more(&fleet).await?;
    // Longer than its grace, and than a bell may take.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(connections(&fleet, 0, "fewer").await?["going"].held, 1);
    gate.add_permits(1);
    let ended = tokio::time::timeout(PATIENCE, going.task).await???;
    assert_eq!(
        (ended.handled, ended.unfinished, ended.drained),
        (1, 0, true)
    );
    assert_eq!(seen.messages(), 1);
    assert_eq!(connections(&fleet, 0, "fewer").await?, BTreeMap::new());

    let other = Agent::acking(fleet.client(0)?, "fewer", "other", &seen, |builder| builder);
    let figures = fleet.drained("fewer").await?;
    assert_eq!((figures.failed_total, figures.acked_total), (0, 5));
    other.stop().await
}

async fn publish_more(fleet: &Fleet) -> Result<()> {
    fleet.publish("fewer", message("t", "")).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_holds_for_a_client_that_ignores_it_and_comes_back() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    fleet.group("deaf", wire::GroupSettings::default()).await?;
    let client = fleet.client(0)?;
    let deaf = Member::join(&client, 0, join("deaf", "deaf")).await?;
    deaf.credit(5).await?;
    let store = fleet.store()?;
    let rows = store.claim_scaling("default", &["deaf"], "a").await?;
    assert_eq!(
        drain(&fleet, 0, ("deaf", "deaf"), rows[0].epoch).await,
        Ok(true)
    );
    let again = wire::Join {
        session: deaf.joined.session.clone(),
        ..join("deaf", "deaf")
    };
    drop(deaf);
    let mut deaf = Member::join(&client, 0, again).await?;
    deaf.credit(5).await?;
    let told = deaf.drained().await?;
    assert_eq!(told.reason(), wire::DrainReason::ScaleDown);
    assert_eq!(told.deadline, None, "it has all the time it takes");
    fleet.publish("deaf", message("t", "")).await?;
    // Its bell, and the poll behind it.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let shown = &connections(&fleet, 0, "deaf").await?["deaf"];
    assert_eq!((shown.held, shown.room, shown.draining), (0, 0, true));
    // A new process under the name is not the one that was told to go.
    let mut fresh = Member::join(&client, 0, join("deaf", "deaf")).await?;
    fresh.credit(1).await?;
    fresh.deliveries(1).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_agent_helps_another_group_out_and_comes_back() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    fleet.group("own", wire::GroupSettings::default()).await?;
    fleet.group("busy", wire::GroupSettings::default()).await?;
    let (tell, mut events) = mpsc::unbounded_channel();
    let seen = Seen::default();
    let noted = seen.clone();
    let work = move |job: Job| {
        noted.note(&job.message.message_id, &job.group);
        std::future::ready(Outcome::done())
    };
    let agent = Agent::working(fleet.client(0)?, "own", "a", work, |builder| {
        builder
            .accept_offers(true)
            .pod("prod/agent-7")
            .on_event(move |event| drop(tell.send(event)))
    });
    let modest = Agent::acking(fleet.client(0)?, "own", "modest", &seen, |builder| builder);
    fleet.members("own", 2).await?;
    publish(&fleet, "busy", 20).await?;
    let shown = connections(&fleet, 0, "own").await?;
    assert_eq!(
        (&*shown["a"].pod, shown["a"].accepts_offers),
        ("prod/agent-7", true)
    );
    let store = fleet.store()?;
    let member = store
        .member(&store.shard("default", "s", 0), "own", "a")
        .await?;
    assert_eq!(member.context("it is a member")?.pod, "prod/agent-7");
    let offer = |consumer: &str| wire::OfferGroupRequest {
        group: "own".into(),
        consumer_id: consumer.into(),
        offered_group: "busy".into(),
        reason: "20 wait there".into(),
    };
    let mut control = control(&fleet, 0).await?;
    let modest_told = control
        .offer_group(offer("modest"))
        .await?
        .into_inner()
        .told;
    assert!(!modest_told, "it takes no offers");
    assert!(control.offer_group(offer("a")).await?.into_inner().told);
    fleet.drained("busy").await?;
    assert_eq!(
        seen.by_consumer(),
        BTreeMap::from([("busy".to_owned(), 20)])
    );
    // Its own group has work again.
    let mine = wire::Message {
        to_agent: "a".into(),
        ..message("t", "")
    };
    fleet.publish("own", mine).await?;
    let mut told = Vec::new();
    while !told
        .iter()
        .any(|word: &String| word.starts_with("returned"))
    {
        let event = tokio::time::timeout(PATIENCE, events.recv()).await?;
        let event = event.context("the agent lives")?;
        if let Event::Offered { group, reason } = event {
            told.push(format!("offered {group}: {reason}"));
        } else if let Event::Helping { group } = event {
            told.push(format!("helping {group}"));
        } else if let Event::Returned { group, handled } = event {
            told.push(format!("returned {group} {handled}"));
        }
    }
    assert_eq!(
        told,
        [
            "offered busy: 20 wait there",
            "helping busy",
            "returned busy 20"
        ]
    );
    fleet.drained("own").await?;
    fleet.members("busy", 0).await?;
    modest.stop().await?;
    agent.stop().await
}

/// A group whose begun messages must report progress every second.
async fn impatient(fleet: &Fleet, group: &str) -> Result<()> {
    let settings = wire::GroupSettings {
        progress_timeout: Some(to_duration(1_000)),
        // A heartbeat every half a second says what is begun.
        lease: Some(to_duration(1_500)),
        ..wire::GroupSettings::default()
    };
    fleet.group(group, settings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_beats_without_progress_loses_its_message_to_another() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    impatient(&fleet, "zombies").await?;
    let client = fleet.client(0)?;
    let (tell, mut events) = mpsc::unbounded_channel();
    let hung = |_: Job| std::future::pending::<Outcome>();
    // The second waits behind the first for ever, and heartbeats keep it too.
    let hung = Agent::working(client.clone(), "zombies", "hung", hung, |builder| {
        builder
            .max_in_flight(2)
            .on_event(move |event| drop(tell.send(event)))
            .grace(Duration::from_millis(1))
    });
    fleet.members("zombies", 1).await?;
    publish(&fleet, "zombies", 2).await?;
    wait::try_until(PATIENCE, "the hung one to hold both", || async {
        let held = connections(&fleet, 0, "zombies").await?;
        ensure!(held["hung"].held == 2, "{held:?}");
        Ok(())
    })
    .await?;
    let mut other = Member::join(&client, 0, join("zombies", "other")).await?;
    other.credit(2).await?;
    let again = other.deliveries(2).await?;
    let attempts: Vec<u32> = again.iter().map(|one| one.attempt).collect();
    assert_eq!(
        attempts.iter().sum::<u32>(),
        3,
        "one of them counted: {attempts:?}"
    );
    let reason = loop {
        let event = tokio::time::timeout(PATIENCE, events.recv()).await?;
        if let Event::Cancelled { reason, .. } = event.context("the agent lives")? {
            break reason;
        }
    };
    assert_eq!(reason, "no progress for 1 s");
    assert_eq!(fleet.figures("zombies").await?.failed_total, 1);
    hung.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_reports_progress_keeps_its_message() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    impatient(&fleet, "alive").await?;
    let work = |job: Job| async move {
        for _ in 0..16 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            job.progress();
        }
        Outcome::done()
    };
    let agent = Agent::working(fleet.client(0)?, "alive", "slow", work, |builder| builder);
    fleet.members("alive", 1).await?;
    fleet.publish("alive", message("t", "")).await?;
    let figures = fleet.drained("alive").await?;
    assert_eq!((figures.failed_total, figures.acked_total), (0, 1));
    agent.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scaled_group_shows_how_many_consumers_are_wanted() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    for (group, is_scaled) in [("scaled", true), ("fixed", false)] {
        let settings = wire::GroupSettings {
            auto_scale_enabled: Some(is_scaled),
            ..wire::GroupSettings::default()
        };
        fleet.group(group, settings).await?;
    }
    assert_eq!(fleet.figures("scaled").await?.desired_consumers, None);
    let store = fleet.store()?;
    let groups = ["scaled", "fixed"];
    let rows = store.claim_scaling("default", &groups, "a").await?;
    let writes: Vec<ScalingWrite<'_>> = rows
        .iter()
        .map(|row| ScalingWrite {
            group: &row.group,
            epoch: row.epoch,
            desired: 7,
            asked: 9,
            state: "{}",
            events: &[],
        })
        .collect();
    let written = store.write_scaling("default", "a", &writes).await?;
    assert_eq!(written, [true, true]);
    assert_eq!(fleet.figures("scaled").await?.desired_consumers, Some(7));
    assert_eq!(fleet.figures("fixed").await?.desired_consumers, None);
    let listed = fleet
        .client(0)?
        .list_groups(wire::ListGroupsRequest {})
        .await?;
    let wanted: Vec<(String, Option<u32>)> = listed
        .groups
        .into_iter()
        .map(|group| {
            (
                group.name,
                group.figures.and_then(|one| one.desired_consumers),
            )
        })
        .collect();
    assert_eq!(
        wanted,
        [("fixed".to_owned(), None), ("scaled".to_owned(), Some(7))]
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_a_coordinator_that_makes_no_sense_says_all_that_is_wrong() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    let mut control = control(&fleet, 0).await?;
    let request = wire::RevokeDeliveriesRequest {
        shares: Vec::new(),
        group: "a/b".into(),
        from: vec![wire::RevokeFrom {
            consumer_id: String::new(),
            messages: 0,
        }],
    };
    let refused = control.revoke_deliveries(request).await;
    let fault = Fault::from(refused.expect_err("it makes no sense"));
    let fields: Vec<&str> = fault
        .violations
        .iter()
        .map(|violation| violation.field.as_str())
        .collect();
    assert_eq!(fields, ["group", "from[0].consumer_id", "from[0].messages"]);
    let same = wire::OfferGroupRequest {
        group: "g".into(),
        consumer_id: "a".into(),
        offered_group: "g".into(),
        reason: String::new(),
    };
    let refused = control.offer_group(same).await;
    let fault = Fault::from(refused.expect_err("it is a member there"));
    assert_eq!(fault.reason, Reason::InvalidArgument);
    // Nobody is attached: nobody is shown, asked or told.
    let all = wire::ListConnectionsRequest::default();
    let shown = control.list_connections(all).await?.into_inner();
    assert_eq!(shown.connections, Vec::new());
    Ok(())
}
