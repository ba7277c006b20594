//! A thousand groups: what looking after them costs Redis, and that none is looked after late.

#![expect(
    clippy::print_stdout,
    reason = "what it measures is for people to read"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, stream};
use hive_client::{Client, message, wire};
use hive_store::{
    Store, StoreConfig,
    members::{Joining, Kind},
};
use hive_testkit::{
    daemon::Daemon,
    redis::{Aof, RedisServer},
    wait,
};

/// Groups; `HIVE_GROUPS` says another number.
const GROUPS: usize = 200;
/// Consumers of each.
const CONSUMERS: usize = 10;
/// How long the cost is measured.
const MEASURED: Duration = Duration::from_secs(10);
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);
/// Redis' time that looking after a thousand groups may cost: 5 % of a core.
const COST_MAX: f64 = 0.05;

/// Processor time that Redis has used, in s.
async fn used(store: &Store) -> Result<f64> {
    let info = store.info("cpu").await?;
    let of = |name: &str| -> Result<f64> {
        let found = info.iter().find(|(key, _)| key == name);
        Ok(found
            .with_context(|| format!("`{name}` in INFO"))?
            .1
            .parse()?)
    };
    Ok(of("used_cpu_user")? + of("used_cpu_sys")?)
}

/// Calls and microseconds of each command so far.
async fn commands(store: &Store) -> Result<BTreeMap<String, (f64, f64)>> {
    let info = store.info("commandstats").await?;
    let number = |text: &str, name: &str| {
        let field = text.split(',').find_map(|field| field.strip_prefix(name));
        field.and_then(|value| value.parse().ok()).unwrap_or(0.0)
    };
    let row = |(name, text): &(String, String)| {
        (
            name.clone(),
            (number(text, "calls="), number(text, "usec=")),
        )
    };
    Ok(info.iter().map(row).collect())
}

/// The share of a core that Redis uses while this test waits, and what for.
async fn load(store: &Store) -> Result<f64> {
    let calls = commands(store).await?;
    let (began, before) = (Instant::now(), used(store).await?);
    tokio::time::sleep(MEASURED).await;
    let (took, after) = (began.elapsed().as_secs_f64(), used(store).await?);
    let mut spent: Vec<(f64, f64, String)> = commands(store)
        .await?
        .into_iter()
        .map(|(name, (count, micros))| {
            let (before, spent) = calls.get(&name).copied().unwrap_or_default();
            ((micros - spent) / took, (count - before) / took, name)
        })
        .collect();
    spent.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (micros, count, name) in spent.iter().take(8) {
        println!(
            "  {name}: {count:.0} calls a second, {:.2} ms",
            micros / 1_000.0
        );
    }
    Ok((after - before) / took)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_groups_cost_redis_less_than_a_twentieth_of_a_core() -> Result<()> {
    let groups = match std::env::var("HIVE_GROUPS") {
        Ok(count) => count.parse().context("HIVE_GROUPS")?,
        Err(_unset) => GROUPS,
    };
    let redis = RedisServer::builder().aof(Aof::Everysec).start().await?;
    let gateway = Daemon::gateway(&redis.url()).await?;
    let client = Client::new(&gateway.url())?;
    let store = Store::open(StoreConfig {
        url: redis.url(),
        ..StoreConfig::default()
    })?;
    let made: Vec<Result<()>> = stream::iter(0..groups)
        .map(|number| {
            let (client, store) = (client.clone(), store.clone());
            async move { group(&client, &store, number).await }
        })
        .buffer_unordered(16)
        .collect()
        .await;
    made.into_iter().collect::<Result<Vec<()>>>()?;
    let before = load(&store).await?;
    let _one = Daemon::coordinator(&redis.url()).await?;
    let mut other = Daemon::coordinator(&redis.url()).await?;
    let decided = wait::try_until(PATIENCE, "a wish for every group", || async {
        let all = client.get_scaling("").await?;
        let count = all
            .iter()
            .filter(|one| one.desired_consumers.is_some())
            .count();
        ensure!(count == groups, "{count} of {groups}");
        anyhow::Ok(())
    });
    decided.await?;
    // What is done once only, claims and first looks, is over.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let with = load(&store).await?;
    let cost = (with - before) / f64::from(u32::try_from(groups)?) * 1_000.0;
    println!(
        "{groups} groups with {CONSUMERS} consumers each: Redis uses {:.1} % of a core, {:.1} % \
         without coordinators; {:.1} % for a thousand groups",
        with * 100.0,
        before * 100.0,
        cost * 100.0
    );
    a_lost_lease_is_found(&client, groups / 2).await?;
    let owners = || async {
        let rows = store.scaling_rows("default").await?;
        anyhow::Ok(
            rows.into_values()
                .map(|row| row.owner)
                .collect::<BTreeSet<String>>(),
        )
    };
    // Where one was not heard for long, the other had them all for a while.
    let shared = wait::try_until(PATIENCE, "two owners", || async {
        ensure!(owners().await?.len() == 2);
        anyhow::Ok(())
    });
    shared.await?;
    other.kill9()?;
    let died = Instant::now();
    let taken_over = wait::try_until(PATIENCE, "one owner of all groups", || async {
        let owners = owners().await?;
        ensure!(owners.len() == 1, "{owners:?}");
        anyhow::Ok(())
    });
    taken_over.await?;
    println!(
        "a coordinator died: the other had all of its groups after {:?}",
        died.elapsed()
    );
    // Few groups are looked at more often each: what counts is what all of them cost.
    let all = with - before;
    ensure!(
        all < COST_MAX,
        "{groups} groups cost {:.1} % of a core",
        all * 100.0
    );
    Ok(())
}

/// A lease that nobody extends is found in time among all of them.
async fn a_lost_lease_is_found(client: &Client, number: usize) -> Result<()> {
    let began = Instant::now();
    let request = wire::FetchRequest {
        group: format!("group-{number}"),
        consumer_id: "consumer-0".to_owned(),
        max_messages: 1,
        ..wire::FetchRequest::default()
    };
    let sent = wire::PublishRequest {
        group: format!("group-{number}"),
        message: Some(message("job", "{}")),
        ..wire::PublishRequest::default()
    };
    client.publish(sent).await?;
    let taken = client.fetch(request.clone()).await?;
    assert_eq!(taken.deliveries.len(), 1);
    let again = wire::FetchRequest {
        consumer_id: "consumer-1".to_owned(),
        ..request
    };
    let redelivered = wait::try_until(PATIENCE, "the redelivery", || async {
        let taken = client.fetch(again.clone()).await?;
        ensure!(taken.deliveries.len() == 1);
        anyhow::Ok(())
    });
    redelivered.await?;
    let took = began.elapsed();
    println!("a lease of 2 s that ended was found after {took:?}");
    ensure!(took < Duration::from_secs(5), "it took {took:?}");
    Ok(())
}

/// A group that is scaled, on a stream of its own, with its consumers.
async fn group(client: &Client, store: &Store, number: usize) -> Result<()> {
    let (name, stream) = (format!("group-{number}"), format!("stream-{number}"));
    let settings = wire::GroupSettings {
        auto_scale_enabled: Some(true),
        min_consumers: Some(1),
        max_consumers: Some(20),
        lease: Some(hive_protocol::time::to_duration(2_000)),
        ..wire::GroupSettings::default()
    };
    let request = wire::CreateGroupRequest {
        name: name.clone(),
        stream_name: stream.clone(),
        agent_type: "tester".to_owned(),
        settings: Some(settings),
        ..wire::CreateGroupRequest::default()
    };
    client.create_group(request).await?;
    let shard = store.shard("default", &stream, 0);
    for number in 0..CONSUMERS {
        let joining = Joining {
            group: &name,
            consumer: &format!("consumer-{number}"),
            session: &format!("{number:024x}"),
            resume: None,
            kind: Kind::Pull,
            gateway: "-",
            concurrency: 1,
            capabilities: &[],
            max_consumers: 20,
            lease_ms: 2_000,
            pod: "",
        };
        store.join(&shard, &joining).await?;
    }
    Ok(())
}
