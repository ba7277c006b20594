//! `hive-router`: runs workflows.
//!
//! This build has the daemon and none of its service: every call but `grpc.health.v1` and
//! reflection is answered UNIMPLEMENTED with that reason, so that a caller learns at once what it
//! cannot have.
//!
//! # Invariants
//! - No call succeeds that was not carried out.

#![warn(
    clippy::unwrap_used,
    clippy::get_unwrap,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::string_slice
)]

pub mod metrics;

use std::ffi::OsString;
use std::process::ExitCode;

use hive_runtime::config::{Config, NoSettings};
use hive_runtime::door::{ServeError, refuse_unknown};
use hive_runtime::health::Component;
use hive_runtime::shutdown::Shutdown;
use hive_runtime::tasks::LOOP;
use hive_runtime::{Chassis, Daemon};
use hive_store::dataset::ADVICE;
use hive_store::registry::{Heard, Registration, Unfit};
use hive_store::{Store, StoreConfig, StoreError};
use tonic::service::Routes;

/// The daemon as its chassis sees it.
pub const DAEMON: Daemon = Daemon {
    name: "hive-router",
    version: env!("CARGO_PKG_VERSION"),
    about: "Runs the workflows of Agent Hive",
    listen: "127.0.0.1:8002",
    metrics: metrics::TABLE,
};

/// Why a call is refused.
const NO_SERVICE: &str = "this build has no workflow service";

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
pub async fn serve(config: Config<NoSettings>, chassis: Chassis) -> Result<(), RouterError> {
    let store = Store::open(StoreConfig {
        url: config.redis.url.clone(),
        password: config
            .redis
            .password
            .as_ref()
            .map(|secret| secret.expose().to_owned()),
        prefix: config.redis.prefix.clone(),
        ..StoreConfig::default()
    })?;
    let me = Registration::new("router", DAEMON.version, &config.server.advertise);
    let redis = chassis.health.component("redis");
    let task = announce(
        store,
        me,
        redis,
        config.redis.allow_eviction,
        chassis.shutdown.clone(),
    );
    chassis.tasks.spawn(LOOP, "announce", task);
    let refused = metrics::refused();
    let routes = refuse_unknown(Routes::default(), NO_SERVICE, move || refused.increment(1));
    Ok(chassis.door.serve(routes, &[]).await?)
}

async fn announce(
    store: Store,
    me: Registration,
    redis: Component,
    allow_eviction: bool,
    shutdown: Shutdown,
) -> Result<(), Unfit> {
    let heard = |heard: Heard<'_>| match heard {
        Heard::Found(finding) => {
            tracing::debug!(topic = finding.topic, text = finding.text(), "preflight");
        },
        Heard::There(_) => redis.ready(),
        Heard::Away(error) => redis.not_ready(error.to_string()),
        Heard::Changed(error) => {
            tracing::error!(%error, advice = ADVICE, "dataset_changed");
            metrics::dataset_changed(true);
            redis.not_ready(error.to_string());
        },
        Heard::Accepted => {
            tracing::info!("dataset_accepted");
            metrics::dataset_changed(false);
        },
    };
    store
        .announce(&me, allow_eviction, shutdown.stopped(), heard)
        .await
}
