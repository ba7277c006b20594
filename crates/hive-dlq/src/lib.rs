//! `hive-dlq`: keeps dead letters.
//!
//! Workers share the shards and namespaces among them. What died in a shard becomes a record, once
//! and classified (`intake`); what may go back by itself does while its group is healthy
//! (`recovery`); a person sends back one (`replay`) or many (`jobs`), and what became of them is
//! looked up (`outcomes`). What is old goes (`trim`).
//!
//! # Invariants
//! - A dead delivery has one record, and leaves its shard only after that is stored.
//! - One replay of a record is under way at a time; whoever carries it on carries out the stored
//!   plan.
//! - A task of a workflow is sent back by its router alone.
//! - Nothing in the queue is dropped for want of room.

#![warn(
    clippy::unwrap_used,
    clippy::get_unwrap,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::string_slice
)]

mod calls;
mod desk;
mod filter;
mod grpc;
mod insight;
mod intake;
mod jobs;
pub mod metrics;
mod outcomes;
mod recovery;
mod replay;
mod rounds;
mod routers;
pub mod settings;
mod trim;
mod view;
#[cfg(test)]
mod world;

use std::{ffi::OsString, process::ExitCode, sync::Arc};

use hive_runtime::{
    Chassis, Daemon, config::Config, door::ServeError, health::Component, shutdown::Shutdown,
    tasks::LOOP,
};
use hive_store::{
    Store, StoreConfig, StoreError,
    registry::{Heard, Registration, Unfit, places},
};
use tokio::sync::watch;

use crate::{desk::Desk, settings::DeadLetters};

/// The daemon as its chassis sees it.
pub const DAEMON: Daemon = Daemon {
    name: "hive-dlq",
    version: env!("CARGO_PKG_VERSION"),
    about: "Keeps the dead letters of Agent Hive",
    listen: "127.0.0.1:8003",
    metrics: &[metrics::TABLE],
};

/// Runs the daemon with `args`, which come without the program's name.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    hive_runtime::run(&DAEMON, args, serve)
}

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum DlqError {
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
pub async fn serve(config: Config<DeadLetters>, chassis: Chassis) -> Result<(), DlqError> {
    let store = Store::open(StoreConfig::new(
        &config.redis.url,
        config.redis.exposed_password(),
        &config.redis.prefix,
    ))?;
    let me = Registration::new("dlq", DAEMON.version, &config.server.advertise);
    let Chassis {
        tasks,
        shutdown,
        gate,
        health,
        door,
    } = chassis;
    let redis = health.component("redis");
    let desk = Desk::new(store.clone(), config.own, tasks.clone());
    let (workers, live) = watch::channel(Vec::new());
    let rounds = rounds::run(desk.clone(), me.instance.clone(), live, shutdown.clone());
    tasks.spawn(LOOP, "rounds", rounds);
    let allow_eviction = config.redis.allow_eviction;
    let announced = announce(
        desk.clone(),
        me,
        redis,
        allow_eviction,
        workers,
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
    workers: watch::Sender<Vec<String>>,
    shutdown: Shutdown,
) -> Result<(), Unfit> {
    let heard = |heard: Heard<'_>| match heard {
        Heard::There { live, .. } => {
            desk.routers.note(places(live));
            let live = live.iter().filter(|one| one.daemon == me.daemon);
            workers.send_replace(live.map(|one| one.instance.clone()).collect());
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
