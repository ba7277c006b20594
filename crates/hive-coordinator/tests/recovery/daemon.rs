//! The daemon around the loops: configuration, start on an unsafe Redis, readiness, the end.

use std::fs;

use hive_coordinator::settings::Options;
use hive_domain::stream::StreamSettings;
use hive_runtime::Daemon;
use hive_runtime::config::{check_reference, reference, specs};
use hive_testkit::daemon::Daemon as Process;
use hive_testkit::redis::{Aof, RedisServer};
use hive_testkit::wait::until;

use crate::seconds;
use crate::world::{World, admin, coordinator, lease, metric, store_on};

/// With `UPDATE_REFERENCE` in the environment the file is written anew.
#[test]
fn the_reference_file_shows_every_key_with_its_default() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../deploy/config/coordinator.toml"
    );
    let Daemon { name, listen, .. } = hive_coordinator::DAEMON;
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(path, reference(name, &specs::<Options>(listen))).unwrap();
    }
    let text = fs::read_to_string(path).unwrap();
    assert_eq!(check_reference::<Options>(name, listen, &text), Ok(()));
}

#[tokio::test]
async fn a_redis_that_evicts_is_refused_unless_that_is_allowed() {
    let redis = RedisServer::builder()
        .option("--maxmemory-policy", "allkeys-lru")
        .start()
        .await
        .unwrap();
    let refused = Process::coordinator(&redis.url()).await.unwrap_err();
    let refused = format!("{refused:#}");
    assert!(refused.contains("allkeys-lru"), "{refused}");
    coordinator(&redis, &[("HIVE_REDIS_ALLOW_EVICTION", "true")]).await;
}

#[tokio::test]
async fn a_coordinator_without_redis_is_not_ready_and_resumes_by_itself() {
    let redis = RedisServer::builder().aof(Aof::Everysec).start().await;
    let mut redis = redis.unwrap();
    let daemon = coordinator(&redis, &[]).await;
    redis.kill9().unwrap();
    until(seconds(6), "the coordinator to be not ready", async || {
        admin(&daemon, "/readyz").await.starts_with("HTTP/1.1 503")
    })
    .await;
    assert!(admin(&daemon, "/livez").await.starts_with("HTTP/1.1 200"));
    redis.restart().await.unwrap();
    until(
        seconds(3),
        "the coordinator to be ready again",
        async || admin(&daemon, "/readyz").await.starts_with("HTTP/1.1 200"),
    )
    .await;
}

#[tokio::test]
async fn a_coordinator_beats_in_time_however_many_namespaces_there_are() {
    let world = World::new(lease(30_000), StreamSettings::default()).await;
    for first in (0..20_000).step_by(500) {
        let names: Vec<String> = (first..first + 500).map(|n| format!("n{n}")).collect();
        let added = format!("SADD hive:{{ctl}}:namespaces {}", names.join(" "));
        assert_eq!(world.raw(&added).await, ":500");
    }
    let daemon = coordinator(&world.redis, &[]).await;
    let series = "hive_coordinator_loop_duration_seconds_count{loop=\"beat\"}";
    until(seconds(4), "four beats", async || {
        let beats = metric(&daemon, series).await;
        beats.is_some_and(|beats| beats >= 4.0)
    })
    .await;
}

#[tokio::test]
async fn a_coordinator_that_ends_signs_off_and_exits_0() {
    let redis = RedisServer::start().await.unwrap();
    let mut daemon = coordinator(&redis, &[]).await;
    let store = store_on(&redis);
    assert_eq!(store.replicas().await.unwrap().len(), 1);
    daemon.sigterm().unwrap();
    daemon.wait_exit_code(0, seconds(10)).await.unwrap();
    assert_eq!(store.replicas().await.unwrap(), []);
}
