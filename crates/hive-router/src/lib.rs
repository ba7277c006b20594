//! `hive-router`: runs workflows.
//!
//! A workflow's run is a machine of `hive_domain::workflow`: this daemon tells it what happened and
//! carries out what it owes. Replicas share shards and partitions by rendezvous hashing over the
//! registry; any of them takes any call.
//!
//! # Invariants
//! - A step of a run, and what it owes to shards, are written by one script under the version that
//!   the step was worked out from.
//! - The outcome of an attempt is the first one in its shard; what is decided here is asked for
//!   there first.
//! - An attempt has one target, stored before it is sent there, and one dispatch key; attempt n + 1
//!   is dispatched after the outcome of attempt n was applied.
//! - What is carried out twice does no harm; what was not carried out stands in an outbox.
//! - No loop ends because Redis is away; each resumes by itself.
//!
//! Read next: `desk` (how a step is written), `outbox` (what it owes), `settled` (what comes back),
//! `rounds` (who looks after what), `calls` (the service).

#![warn(
    clippy::unwrap_used,
    clippy::get_unwrap,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::string_slice
)]

mod audit;
mod calls;
mod desk;
mod grpc;
mod history;
pub mod metrics;
mod names;
mod outbox;
mod placing;
mod provisioning;
mod rounds;
pub mod settings;
mod settled;
mod stored;
mod taken_back;
mod view;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use hive_runtime::config::Config;
use hive_runtime::door::ServeError;
use hive_runtime::health::Component;
use hive_runtime::shutdown::Shutdown;
use hive_runtime::tasks::LOOP;
use hive_runtime::{Chassis, Daemon};
use hive_store::registry::{Heard, Registration, Unfit, places};
use hive_store::{Store, StoreConfig, StoreError};
use tokio::sync::watch;

use crate::desk::Desk;
use crate::settings::Workflows;

/// The daemon as its chassis sees it.
pub const DAEMON: Daemon = Daemon {
    name: "hive-router",
    version: env!("CARGO_PKG_VERSION"),
    about: "Runs the workflows of Agent Hive",
    listen: "127.0.0.1:8002",
    metrics: &[metrics::TABLE],
};

/// Runs the daemon with `args`, which come without the program's name.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    hive_runtime::run(&DAEMON, args, serve)
}

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// The main port failed.
    #[error("serving the main port")]
    Serve(#[from] ServeError),
    /// The Redis URL is none.
    #[error("opening the store")]
    Store(#[from] StoreError),
}

/// Serves until the daemon stops.
///
/// # Errors
/// When the main port fails, or the Redis URL is none.
pub async fn serve(config: Config<Workflows>, chassis: Chassis) -> Result<(), RouterError> {
    let store = Store::open(StoreConfig::new(
        &config.redis.url,
        config.redis.exposed_password(),
        &config.redis.prefix,
    ))?;
    let me = Registration::new("router", DAEMON.version, &config.server.advertise);
    let Chassis {
        tasks,
        shutdown,
        gate,
        health,
        door,
    } = chassis;
    let redis = health.component("redis");
    let desk = Desk::new(store, config.own, tasks.clone());
    let (routers, live) = watch::channel(Vec::new());
    let rounds = rounds::run(desk.clone(), me.instance.clone(), live, shutdown.clone());
    tasks.spawn(LOOP, "rounds", rounds);
    let allow_eviction = config.redis.allow_eviction;
    let announced = announce(
        desk.clone(),
        me,
        redis,
        allow_eviction,
        routers,
        shutdown.clone(),
    );
    tasks.spawn(LOOP, "announce", announced);
    let routes = grpc::routes(&desk, gate, shutdown);
    Ok(door.serve(routes, &grpc::SERVICES).await?)
}

async fn announce(
    desk: Arc<Desk>,
    me: Registration,
    redis: Component,
    allow_eviction: bool,
    routers: watch::Sender<Vec<String>>,
    shutdown: Shutdown,
) -> Result<(), Unfit> {
    let heard = |heard: Heard<'_>| match heard {
        Heard::There { live, .. } => {
            desk.provisioning.peers.note(places(live));
            let live = live.iter().filter(|one| one.daemon == me.daemon);
            routers.send_replace(live.map(|one| one.instance.clone()).collect());
            redis.ready();
        },
        Heard::Away(error) => redis.not_ready(error.to_string()),
        Heard::Changed(error) => {
            metrics::dataset_changed(true);
            redis.not_ready(error.to_string());
        },
        Heard::Accepted => metrics::dataset_changed(false),
    };
    desk.store
        .announce(&me, allow_eviction, shutdown.stopped(), heard)
        .await
}
