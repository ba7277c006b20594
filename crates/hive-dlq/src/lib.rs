//! `hive-dlq`: keeps dead letters.
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
use hive_runtime::{Chassis, Daemon};
use tonic::service::Routes;

/// The daemon as its chassis sees it.
pub const DAEMON: Daemon = Daemon {
    name: "hive-dlq",
    version: env!("CARGO_PKG_VERSION"),
    about: "Keeps the dead letters of Agent Hive",
    listen: "127.0.0.1:8003",
    metrics: metrics::TABLE,
};

/// Why a call is refused.
const NO_SERVICE: &str = "this build has no dead-letter service";

/// Runs the daemon with `args`, which come without the program's name.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    hive_runtime::run(&DAEMON, args, serve)
}

/// Serves until the daemon stops.
///
/// # Errors
/// When the main port fails.
pub async fn serve(_config: Config<NoSettings>, chassis: Chassis) -> Result<(), ServeError> {
    let refused = metrics::refused();
    let routes = refuse_unknown(Routes::default(), NO_SERVICE, move || refused.increment(1));
    chassis.door.serve(routes, &[]).await
}
