//! Placement, rebalancing and scaling, through the public doors.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use hive_client::{Client, Job, Outcome, message, wire};
use hive_store::{Store, StoreConfig};
use hive_testkit::{daemon::Daemon, redis::Aof, wait};
use tokio::sync::watch;

use crate::fleet::{Agent, Fleet, PATIENCE, Seen};

/// Settings of a group that is scaled, and scaled down at once.
fn scaled(min: u32, max: u32) -> wire::GroupSettings {
    wire::GroupSettings {
        min_consumers: Some(min),
        max_consumers: Some(max),
        auto_scale_enabled: Some(true),
        scaling: Some(wire::ScalingPolicy {
            executor: wire::ScalingExecutor::Process.into(),
            scale_down_window: Some(hive_protocol::time::to_duration(0)),
            scale_down_cooldown: Some(hive_protocol::time::to_duration(0)),
            ..wire::ScalingPolicy::default()
        }),
        ..wire::GroupSettings::default()
    }
}

/// Waits until a group's scaling is as it is meant to be.
async fn becomes(
    client: &Client,
    group: &str,
    what: &str,
    is_so: impl Fn(&wire::GroupScaling) -> bool,
) -> Result<wire::GroupScaling> {
    let found = wait::try_until(PATIENCE, what, || async {
        let found = client.get_scaling(group).await?;
        let found = found.into_iter().next().context("the group")?;
        ensure!(is_so(&found), "{found:?}");
        anyhow::Ok(found)
    });
    Ok(found.await?)
}

/// Waits for a wish in a watch.
async fn wished(
    watch: &mut hive_client::ScalingWatch,
    group: &str,
    is_so: impl Fn(&wire::GroupScaling) -> bool,
) -> Result<Instant> {
    let told = async {
        loop {
            let groups = watch.next().await?;
            if groups.iter().any(|one| one.group == group && is_so(one)) {
                return anyhow::Ok(Instant::now());
            }
        }
    };
    tokio::time::timeout(PATIENCE, told)
        .await
        .context("no such wish was told")?
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_message_of_an_idle_group_wakes_it_in_less_than_200_ms() -> Result<()> {
    let fleet = Fleet::start(Aof::Everysec, 1, 1).await?;
    fleet.group("sleepers", scaled(0, 5)).await?;
    let client = fleet.client(0)?;
    let is_none = |one: &wire::GroupScaling| one.desired_consumers == Some(0);
    becomes(&client, "sleepers", "a wish for nobody", is_none).await?;
    let mut watch = client.watch_scaling(vec!["sleepers".to_owned()]);
    wished(&mut watch, "sleepers", is_none).await?;
    // Groups at rest are looked at less often: the bell must wake this one.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let began = Instant::now();
    fleet.publish("sleepers", message("job", "{}")).await?;
    let told = wished(&mut watch, "sleepers", |one| {
        one.desired_consumers == Some(1)
    })
    .await?;
    let took = told.duration_since(began);
    ensure!(took < Duration::from_millis(200), "it took {took:?}");
    let events = wire::ListScalingEventsRequest::default();
    let events = client.list_scaling_events(events).await?.events;
    let up = events
        .iter()
        .find(|event| event.kind() == wire::ScalingEventKind::Up);
    let up = up.context("an event")?;
    assert_eq!((up.group.as_str(), up.from, up.to), ("sleepers", 0, 1));
    assert_eq!(up.inputs.as_ref().map(|inputs| inputs.lag), Some(1));
    let figures = fleet.figures("sleepers").await?;
    assert_eq!(figures.desired_consumers, Some(1));
    Ok(())
}

/// The consumers of the group `hoard`.
async fn list(client: &Client) -> Result<Vec<wire::Consumer>> {
    let request = wire::ListConsumersRequest {
        group: "hoard".to_owned(),
    };
    Ok(client.list_consumers(request).await?.consumers)
}

/// An agent whose handlers wait for a gate.
fn gated(
    client: Client,
    id: &str,
    seen: &Seen,
    gate: watch::Receiver<bool>,
    max_in_flight: u32,
) -> Agent {
    let (noted, name) = (seen.clone(), id.to_owned());
    let work = move |job: Job| {
        let (noted, name, mut gate) = (noted.clone(), name.clone(), gate.clone());
        async move {
            drop(gate.wait_for(|is_open| *is_open).await);
            noted.note(&job.message.message_id, &name);
            Outcome::done()
        }
    };
    Agent::working(client, "hoard", id, work, |builder| {
        builder.max_in_flight(max_in_flight).concurrency(1)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_consumer_hoards_is_evened_out_and_handled_once() -> Result<()> {
    let fleet = Fleet::start(Aof::Everysec, 2, 1).await?;
    let settings = wire::GroupSettings {
        max_consumers: Some(20),
        ..wire::GroupSettings::default()
    };
    fleet.group("hoard", settings).await?;
    let (seen, (gate, closed)) = (Seen::default(), watch::channel(false));
    let hoarder = gated(fleet.client(0)?, "hoarder", &seen, closed.clone(), 100);
    fleet.members("hoard", 1).await?;
    for number in 0..100 {
        let text = format!("{{\"number\":{number}}}");
        fleet.publish("hoard", message("job", text)).await?;
    }
    let client = fleet.client(0)?;
    let held = |count: u64| {
        let client = client.clone();
        move || {
            let client = client.clone();
            async move {
                let consumers = list(&client).await?;
                let held: Vec<u64> = consumers.iter().map(|one| one.in_flight).collect();
                let is_even = held.iter().all(|one| one.abs_diff(count) <= 1);
                ensure!(is_even, "{held:?}");
                anyhow::Ok(())
            }
        }
    };
    wait::try_until(PATIENCE, "the hoard", held(100)).await?;
    let mut idle = Vec::new();
    for number in 0..9 {
        let id = format!("idle-{number}");
        idle.push(gated(
            fleet.client(number % 2)?,
            &id,
            &seen,
            closed.clone(),
            100,
        ));
    }
    fleet.members("hoard", 10).await?;
    let request = wire::RebalanceRequest {
        group: "hoard".to_owned(),
        dry_run: false,
    };
    let dry = wire::RebalanceRequest {
        dry_run: true,
        ..request.clone()
    };
    let planned = client.rebalance(dry).await?;
    let moved: u32 = planned.operations.iter().map(|one| one.count).sum();
    ensure!((85..=95).contains(&moved), "{planned:?}");
    let began = Instant::now();
    let answer = client.rebalance(request.clone()).await?;
    assert_eq!(answer.groups_analyzed, 1);
    // Right behind the first, while all of it is on its way.
    let second = client.rebalance(request.clone()).await?;
    let evened = wait::try_until(Duration::from_secs(10), "evenness", held(10)).await;
    let took = began.elapsed();
    let later = client.rebalance(request).await?;
    gate.send_replace(true);
    evened?;
    ensure!(took < Duration::from_secs(2), "it took {took:?}");
    ensure!(second.operations.is_empty(), "right behind: {second:?}");
    ensure!(later.operations.is_empty(), "evened out: {later:?}");
    let figures = fleet.drained("hoard").await?;
    assert_eq!((figures.acked_total, figures.failed_total), (100, 0));
    assert_eq!((seen.messages(), seen.twice()), (100, Vec::new()));
    for agent in idle {
        agent.stop().await?;
    }
    hoarder.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn unevenness_is_found_and_mended_without_a_call() -> Result<()> {
    let fleet = Fleet::start(Aof::Everysec, 1, 1).await?;
    fleet.group("hoard", wire::GroupSettings::default()).await?;
    let client = fleet.client(0)?;
    let soon = wire::CoordinatorConfig {
        health_check_interval: Some(hive_protocol::time::to_duration(1_000)),
        ..wire::CoordinatorConfig::default()
    };
    client.update_coordinator_config(soon).await?;
    let (seen, (gate, closed)) = (Seen::default(), watch::channel(false));
    let hoarder = gated(fleet.client(0)?, "hoarder", &seen, closed.clone(), 20);
    fleet.members("hoard", 1).await?;
    for _ in 0..20 {
        fleet.publish("hoard", message("job", "{}")).await?;
    }
    let held = |count: u64| {
        let client = client.clone();
        move || {
            let client = client.clone();
            async move {
                let consumers = list(&client).await?;
                let held: Vec<u64> = consumers.iter().map(|one| one.in_flight).collect();
                let is_even = held.iter().all(|one| one.abs_diff(count) <= 1);
                ensure!(is_even, "{held:?}");
                anyhow::Ok(())
            }
        }
    };
    wait::try_until(PATIENCE, "the hoard", held(20)).await?;
    let idle = gated(fleet.client(0)?, "idle", &seen, closed, 20);
    let evened = wait::try_until(PATIENCE, "evenness", held(10)).await;
    gate.send_replace(true);
    evened?;
    fleet.drained("hoard").await?;
    assert_eq!((seen.messages(), seen.twice()), (20, Vec::new()));
    idle.stop().await?;
    hoarder.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_wanted_any_more_finishes_what_it_has_begun_and_goes() -> Result<()> {
    let fleet = Fleet::start(Aof::Everysec, 2, 1).await?;
    fleet.group("few", scaled(1, 4)).await?;
    let client = fleet.client(0)?;
    let is_busy = Arc::new(AtomicBool::new(false));
    let (gate, closed) = watch::channel(false);
    let mut agents = Vec::new();
    for number in 0..4 {
        let (gate, is_busy) = (closed.clone(), Arc::clone(&is_busy));
        let work = move |_job: Job| {
            let (mut gate, is_busy) = (gate.clone(), Arc::clone(&is_busy));
            async move {
                is_busy.store(true, Ordering::Relaxed);
                drop(gate.wait_for(|is_open| *is_open).await);
                Outcome::done()
            }
        };
        let id = format!("agent-{number}");
        agents.push(Agent::working(
            fleet.client(number % 2)?,
            "few",
            &id,
            work,
            |builder| builder,
        ));
    }
    fleet.members("few", 4).await?;
    fleet.publish("few", message("job", "{}")).await?;
    // Three of four have nothing to do and go; the fourth is not interrupted.
    fleet.members("few", 1).await?;
    ensure!(
        is_busy.load(Ordering::Relaxed),
        "the one that stays is at work"
    );
    let held = fleet.figures("few").await?.pending_count;
    assert_eq!(held, 1);
    gate.send_replace(true);
    let figures = fleet.drained("few").await?;
    assert_eq!(
        (
            figures.acked_total,
            figures.failed_total,
            figures.released_total
        ),
        (1, 0, 0)
    );
    let scaling = becomes(&client, "few", "nobody draining", |one| {
        one.draining_consumers == 0 && one.current_consumers == 1
    });
    assert_eq!(scaling.await?.desired_consumers, Some(1));
    let events = wire::ListScalingEventsRequest {
        group: "few".to_owned(),
        ..wire::ListScalingEventsRequest::default()
    };
    let events = client.list_scaling_events(events).await?.events;
    let drains = events
        .iter()
        .filter(|one| one.kind() == wire::ScalingEventKind::Drain);
    assert_eq!(drains.count(), 3, "{events:?}");
    let mut gone = 0;
    for agent in agents {
        if agent.task.is_finished() {
            let ended = agent.task.await??;
            ensure!(ended.drained, "{ended:?}");
            gone += 1;
        } else {
            agent.stop().await?;
        }
    }
    assert_eq!(gone, 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_coordinator_takes_a_group_over_in_less_than_5_s() -> Result<()> {
    let mut fleet = Fleet::start(Aof::Everysec, 1, 2).await?;
    for number in 0..8 {
        fleet.group(&format!("g{number}"), scaled(0, 5)).await?;
    }
    let client = fleet.client(0)?;
    for number in 0..8 {
        let is_none = |one: &wire::GroupScaling| one.desired_consumers == Some(0);
        becomes(&client, &format!("g{number}"), "a first wish", is_none).await?;
    }
    let before = client.get_scaling("").await?;
    // Whichever of them owns a group: some are the other's.
    fleet.coordinators[0].kill9()?;
    let died = Instant::now();
    for number in 0..8 {
        fleet
            .publish(&format!("g{number}"), message("job", "{}"))
            .await?;
    }
    for number in 0..8 {
        let is_one = |one: &wire::GroupScaling| one.desired_consumers == Some(1);
        becomes(&client, &format!("g{number}"), "a wish for one", is_one).await?;
    }
    let took = died.elapsed();
    ensure!(took < Duration::from_secs(5), "it took {took:?}");
    let after = client.get_scaling("").await?;
    let rose = before.iter().zip(&after).filter(|(a, b)| a.epoch < b.epoch);
    ensure!(rose.count() > 0, "no group changed its owner: {after:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_slept_takes_its_groups_up_again() -> Result<()> {
    let mut fleet = Fleet::start(Aof::Everysec, 1, 2).await?;
    for number in 0..8 {
        fleet.group(&format!("g{number}"), scaled(0, 5)).await?;
    }
    let store = Store::open(StoreConfig {
        url: fleet.redis.url(),
        ..StoreConfig::default()
    })?;
    let owners = || async {
        let rows = store.scaling_rows("default").await?;
        let owners = rows.into_iter().map(|(group, row)| (group, row.owner));
        anyhow::Ok(owners.collect::<BTreeMap<String, String>>())
    };
    let count = |owners: &BTreeMap<String, String>| owners.values().collect::<BTreeSet<_>>().len();
    let limit = Duration::from_secs(10);
    let before = wait::try_until(limit, "all groups shared among two", || async {
        let now = owners().await?;
        ensure!(now.len() == 8 && count(&now) == 2, "{now:?}");
        anyhow::Ok(now)
    })
    .await?;
    fleet.coordinators[0].sigstop()?;
    wait::try_until(limit, "one owner of all groups", || async {
        let now = owners().await?;
        ensure!(count(&now) == 1, "{now:?}");
        anyhow::Ok(())
    })
    .await?;
    // It knows its groups still, and that others may have looked after them meanwhile.
    fleet.coordinators[0].sigcont()?;
    wait::try_until(limit, "every group as it was shared", || async {
        let now = owners().await?;
        ensure!(now == before, "{now:?}");
        anyhow::Ok(())
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn options_reach_all_coordinators_and_outlive_them() -> Result<()> {
    let mut fleet = Fleet::start(Aof::Everysec, 1, 2).await?;
    let client = fleet.client(0)?;
    let config = client.coordinator_config().await?;
    assert_eq!(config.strategy(), wire::PlacementStrategy::Hybrid);
    assert_eq!(config.max_total_consumers, Some(0));
    fleet.group("a", scaled(2, 5)).await?;
    fleet.group("b", scaled(2, 5)).await?;
    let is_two = |one: &wire::GroupScaling| one.desired_consumers == Some(2);
    becomes(&client, "b", "a first wish", is_two).await?;
    let ceiling = |most: u32| wire::CoordinatorConfig {
        max_total_consumers: Some(most),
        allocation_mode: wire::AllocationMode::Equal.into(),
        ..wire::CoordinatorConfig::default()
    };
    let refused = client.update_coordinator_config(ceiling(3)).await;
    let refused = refused
        .err()
        .context("a ceiling below the sum of minima is refused")?;
    ensure!(
        refused.to_string().contains("max_total_consumers"),
        "{refused}"
    );
    client.update_coordinator_config(ceiling(6)).await?;
    for group in ["a", "b"] {
        for _ in 0..500 {
            fleet.publish(group, message("job", "{}")).await?;
        }
    }
    for group in ["a", "b"] {
        let is_shared = |one: &wire::GroupScaling| {
            one.desired_consumers == Some(3) && one.reason.contains("ceiling")
        };
        becomes(&client, group, "its share of the ceiling", is_shared).await?;
    }
    for coordinator in &mut fleet.coordinators {
        coordinator.kill9()?;
    }
    fleet.coordinators = vec![Daemon::coordinator(&fleet.redis.url()).await?];
    let kept = wait::try_until(PATIENCE, "a coordinator", || async {
        client.coordinator_config().await
    });
    let kept = kept.await?;
    assert_eq!(kept.max_total_consumers, Some(6));
    assert_eq!(kept.allocation_mode(), wire::AllocationMode::Equal);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_placed_and_its_group_made_from_a_template_once() -> Result<()> {
    let fleet = Fleet::start(Aof::Everysec, 1, 1).await?;
    let client = fleet.client(0)?;
    let agent = |dry_run| wire::PlaceAgentRequest {
        agent_type: "qa_engineers".to_owned(),
        capabilities: vec!["pytest".to_owned()],
        dry_run,
    };
    let dry = client.place_agent(agent(true)).await?;
    assert_eq!(
        (dry.group.as_str(), dry.created),
        ("qa_engineers_consumers", true)
    );
    let groups = client.list_groups(wire::ListGroupsRequest {}).await?.groups;
    ensure!(groups.is_empty(), "a dry run makes none: {groups:?}");
    let both = tokio::join!(
        client.place_agent(agent(false)),
        client.place_agent(agent(false))
    );
    let (one, other) = (both.0?, both.1?);
    assert_eq!(
        (one.group.as_str(), other.group.as_str()),
        (&*dry.group, &*dry.group)
    );
    ensure!(
        one.created || other.created,
        "one of them makes it: {one:?} {other:?}"
    );
    let third = client.place_agent(agent(false)).await?;
    ensure!(!third.created, "it is there: {third:?}");
    ensure!(!one.reasoning.is_empty());
    let group = client.get_group("qa_engineers_consumers").await?;
    let settings = group.settings.context("settings")?;
    assert_eq!(group.stream_name, "agent_messages:qa_engineers");
    assert_eq!(
        (settings.max_consumers(), settings.auto_scale_enabled()),
        (8, true)
    );
    let task = wire::PlaceTaskRequest {
        r#type: "testing".to_owned(),
        ..wire::PlaceTaskRequest::default()
    };
    let placed = client.place_task(task).await?;
    assert_eq!(
        (placed.group.as_str(), placed.created),
        ("qa_engineers_consumers", false)
    );
    let unserved = wire::PlaceTaskRequest {
        r#type: "sculpture".to_owned(),
        provision: true,
        ..wire::PlaceTaskRequest::default()
    };
    let refused = client
        .place_task(unserved)
        .await
        .err()
        .context("nobody serves it")?;
    ensure!(refused.to_string().contains("sculpture"), "{refused}");
    Ok(())
}
