//! `hive-gateway`: the one door for agents and operators, by gRPC and REST on one port.
//!
//! It checks what comes in, coalesces publishes and settles into few calls to Redis, leases
//! messages to the consumers that are attached to it, and gives leases up when a connection is
//! lost. It keeps no state that counts: any replica serves any call, and may be killed at any
//! moment.
//!
//! # Invariants
//! - A publish is answered OK only after its flush was.
//! - A lease ends only by a script; this process only asks for it.
//! - No task waits for a client that does not read, but the client's own.
//!
//! Read next: `dispatcher.rs` (who gets what), `consume.rs` (one connection), `publisher.rs`.

#![warn(
    clippy::unwrap_used,
    clippy::get_unwrap,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::string_slice
)]

pub mod accepting;
pub mod attached;
pub mod beats;
pub mod bells;
pub mod catalog;
pub mod consume;
mod control;
pub mod coordinators;
pub mod core;
pub mod dead_letters;
pub mod delivery;
pub mod dispatcher;
mod ending;
pub mod forwarding;
pub mod groups;
pub mod grpc;
pub mod health;
pub mod joining;
pub mod looking;
pub mod metrics;
pub mod outcomes;
pub mod peers;
pub mod placing;
pub mod publisher;
pub mod publishing;
pub mod pull;
mod purge;
mod replays;
pub mod rest;
pub mod routers;
pub mod settings;
pub mod settler;
pub mod streams;
mod tracked;
pub mod watching;

use std::{ffi::OsString, process::ExitCode, sync::Arc};

use hive_runtime::{
    Chassis, Daemon,
    config::Config,
    door::ServeError,
    tasks::{BACKGROUND, LOOP},
};
use hive_store::{Store, StoreConfig, StoreError, bells::CancelledLease, registry::Registration};

use crate::{core::Gateway, settings::Settings};

/// The daemon as its chassis sees it.
pub const DAEMON: Daemon = Daemon {
    name: "hive-gateway",
    version: env!("CARGO_PKG_VERSION"),
    about: "The door of Agent Hive for agents and operators",
    listen: "127.0.0.1:8000",
    metrics: &[metrics::TABLE],
};

/// Why the gateway ended.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The main port failed.
    #[error("serving the main port")]
    Serve(#[from] ServeError),
    /// The Redis URL is none.
    #[error("opening the store")]
    Store(#[from] StoreError),
}

/// Runs the daemon with `args`, which come without the program's name.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    hive_runtime::run(&DAEMON, args, serve)
}

/// Serves until the daemon stops.
///
/// # Errors
/// When the main port fails, or the Redis URL is none.
pub async fn serve(config: Config<Settings>, chassis: Chassis) -> Result<(), GatewayError> {
    let store = Store::open(StoreConfig::new(
        &config.redis.url,
        config.redis.exposed_password(),
        &config.redis.prefix,
    ))?;
    let me = Registration::new("gateway", DAEMON.version, &config.server.advertise);
    let incarnation: Arc<str> = me.instance.as_str().into();
    let Chassis {
        tasks,
        shutdown,
        gate,
        health,
        door,
    } = chassis;
    let redis = health.component("redis");
    redis.not_ready("not connected yet");
    let parts = (tasks.clone(), shutdown.clone(), gate);
    let gateway = Gateway::new(store.clone(), config.own, incarnation, parts);
    let hearing = gateway.clone();
    let cancel = move |channel: &str, lease: &CancelledLease| hearing.cancel(channel, lease);
    let bells = gateway.bells.clone().hear(store, cancel);
    tasks.spawn(BACKGROUND, "bells", bells);
    let allow_eviction = config.redis.allow_eviction;
    tasks.spawn(
        LOOP,
        "announce",
        beats::announce(gateway.clone(), me, redis, allow_eviction),
    );
    tasks.spawn(LOOP, "clock", beats::read_clock(gateway.clone()));
    tasks.spawn(LOOP, "shard_beats", beats::beat_shards(gateway.clone()));
    tasks.spawn(LOOP, "remember", accepting::remember(gateway.clone()));
    let routes = grpc::routes(&gateway);
    let routes = tonic::service::Routes::from(
        routes
            .into_axum_router()
            .merge(rest::routes(gateway.clone())),
    );
    Ok(door.serve(routes, &grpc::SERVICES).await?)
}
