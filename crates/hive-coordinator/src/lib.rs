//! `hive-coordinator`: gives the work of the lost to the living.
//!
//! Replicas share the shards of all streams by rendezvous hashing over the registry. The owner of a
//! shard sweeps its deliveries, gives up members that are gone, moves what is due, expires and
//! trims by retention, finishes half-made groups and audits. It serves no call of its own.
//!
//! # Invariants
//! - Every step is one script that checks again what was seen: two owners of a shard at one time do
//!   no harm, and a step that is cut off leaves nothing half done.
//! - Nothing here is needed for delivery: with every coordinator gone, publishing, consuming and
//!   settling go on.
//! - No loop ends because Redis is away; each resumes by itself.
//!
//! Read next: `fleet` (who owns what), `shard` (the loops of one shard), `sweep`, and the decisions
//! in `hive_domain::recovery`.

#![warn(
    clippy::unwrap_used,
    clippy::get_unwrap,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::string_slice
)]

mod audit;
mod due;
mod expire;
mod fleet;
mod lifecycle;
mod members;
pub mod metrics;
mod recover;
mod replay;
mod retain;
pub mod settings;
mod shard;
mod sweep;
mod trouble;

use std::ffi::OsString;
use std::process::ExitCode;

use hive_runtime::config::Config;
use hive_runtime::door::{ServeError, refuse_unknown};
use hive_runtime::tasks::LOOP;
use hive_runtime::{Chassis, Daemon};
use hive_store::registry::Registration;
use hive_store::{Store, StoreConfig, StoreError};
use tonic::service::Routes;

use crate::fleet::Fleet;
use crate::settings::Recovery;

/// The daemon as its chassis sees it.
pub const DAEMON: Daemon = Daemon {
    name: "hive-coordinator",
    version: env!("CARGO_PKG_VERSION"),
    about: "Recovers, moves and expires the messages of Agent Hive",
    listen: "127.0.0.1:8001",
    metrics: metrics::TABLE,
};

/// Why a call is refused.
const NO_SERVICE: &str = "this build's coordinator serves no calls but health and reflection";

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
pub async fn serve(config: Config<Recovery>, chassis: Chassis) -> Result<(), StartError> {
    let redis = chassis.health.component("redis");
    let store = Store::open(StoreConfig::new(
        &config.redis.url,
        config.redis.exposed_password(),
        &config.redis.prefix,
    ))
    .map_err(StartError::Url)?;
    let fleet = Fleet::new(
        store,
        Registration::new("coordinator", DAEMON.version, &config.server.advertise),
        config.own,
        (chassis.tasks.clone(), chassis.shutdown.clone()),
    );
    let recovery = fleet.run(redis, config.redis.allow_eviction);
    chassis.tasks.spawn(LOOP, "recovery", recovery);

    let refused = metrics::calls_refused();
    let routes = refuse_unknown(Routes::default(), NO_SERVICE, move || refused.increment(1));
    chassis.door.serve(routes, &[]).await?;
    Ok(())
}
