//! `hive-coordinator`: gives the work of the lost to the living, and says who is to do it.
//!
//! Replicas share the shards of all streams by rendezvous hashing over the registry. The owner of a
//! shard sweeps its deliveries, gives up members that are gone, moves what is due, expires and
//! trims by retention, finishes half-made groups and audits. Groups are shared in the same way:
//! their owner says how many consumers are wanted and has them started, and evens out what they
//! hold. Any replica serves `CoordinatorService`.
//!
//! # Invariants
//! - A wish of a group changes under the epoch of its owner alone; what a former owner decides is
//!   refused.
//! - Every step is one script that checks again what was seen: two owners of a shard at one time do
//!   no harm, and a step that is cut off leaves nothing half done.
//! - Nothing here is needed for delivery: with every coordinator gone, publishing, consuming and
//!   settling go on.
//! - No loop ends because Redis is away; each resumes by itself.
//!
//! Read next: `fleet` (who owns what), `shard` (the loops of one shard), `sweep`, and the decisions
//! in `hive_domain::recovery`; of groups `scaling`, `rebalancing` and `placing`.

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
mod due;
pub mod executors;
mod expire;
mod fleet;
mod gateways;
mod grpc;
mod lifecycle;
mod members;
pub mod metrics;
mod observing;
mod options;
mod placing;
mod rebalancing;
mod recover;
mod replay;
mod retain;
mod roster;
mod scaling;
pub mod settings;
mod shard;
mod sweep;
mod trouble;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use hive_runtime::config::Config;
use hive_runtime::door::ServeError;
use hive_runtime::tasks::{BACKGROUND, LOOP};
use hive_runtime::{Chassis, Daemon};
use hive_store::registry::Registration;
use hive_store::{Store, StoreConfig, StoreError};
use tokio::sync::watch;

use crate::desk::Desk;
use crate::executors::kubernetes::{self, Kubernetes};
use crate::executors::webhook::Webhook;
use crate::fleet::Fleet;
use crate::scaling::executing::{Executing, Executors};
use crate::scaling::keda::Stored;
use crate::scaling::watching;
use crate::settings::Options;

/// The daemon as its chassis sees it.
pub const DAEMON: Daemon = Daemon {
    name: "hive-coordinator",
    version: env!("CARGO_PKG_VERSION"),
    about: "Recovers, moves and expires the messages of Agent Hive",
    listen: "127.0.0.1:8001",
    metrics: &[metrics::TABLE, &metrics::GROUPS, &metrics::REDIS],
};

/// Why the daemon does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The URL of Redis is none.
    #[error("`redis.url` cannot be used")]
    Url(#[source] StoreError),
    /// The main port failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Runs the daemon with `args`, which come without the program's name.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    hive_runtime::run(&DAEMON, args, serve)
}

/// Serves until the daemon stops.
///
/// # Errors
/// When the URL of Redis is none, or the main port fails. A Redis that is away is waited for; one
/// that is unsafe fails the task `recovery`, which ends the daemon.
pub async fn serve(config: Config<Options>, chassis: Chassis) -> Result<(), StartError> {
    let Chassis {
        tasks,
        shutdown,
        gate,
        health,
        door,
    } = chassis;
    let redis = health.component("redis");
    let store = Store::open(StoreConfig::new(
        &config.redis.url,
        config.redis.exposed_password(),
        &config.redis.prefix,
    ))
    .map_err(StartError::Url)?;
    let me = Registration::new("coordinator", DAEMON.version, &config.server.advertise);
    let (roster, known) = watch::channel(Arc::default());
    let desk = Arc::new(Desk::new(
        store.clone(),
        tasks.clone(),
        me.instance.clone(),
        known,
        config.own.coordination,
    ));
    let executors = Executors {
        kubernetes: Kubernetes::connect(kubernetes::Settings::default()),
        webhook: Webhook::new(config.own.scaling.webhook),
    };
    let fleet = Fleet::new(
        store,
        me,
        config.own.recovery,
        (roster, Arc::clone(&desk)),
        (tasks.clone(), shutdown.clone()),
    );
    let recovery = fleet.run(redis, config.redis.allow_eviction);
    tasks.spawn(LOOP, "recovery", recovery);
    let executing = Arc::new(Executing::new(Arc::clone(&desk), executors));
    tasks.spawn(BACKGROUND, "observing", observing::run(Arc::clone(&desk)));
    tasks.spawn(BACKGROUND, "bells", watching::hear(Arc::clone(&desk)));
    tasks.spawn(BACKGROUND, "options", options::follow(Arc::clone(&desk)));
    tasks.spawn(
        BACKGROUND,
        "scaling",
        scaling::run(Arc::clone(&desk), executing),
    );
    tasks.spawn(
        BACKGROUND,
        "rebalancing",
        rebalancing::run(Arc::clone(&desk)),
    );
    let stored = Arc::new(Stored {
        desk: Arc::clone(&desk),
    });
    let keda = executors::keda::service(stored, gate.clone(), shutdown.clone());
    let routes = grpc::routes(&desk, gate, shutdown).add_service(keda);
    door.serve(routes, &[grpc::SERVICE, executors::keda::SERVICE])
        .await?;
    Ok(())
}
