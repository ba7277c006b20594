//! The chassis of every daemon: configuration, log, metrics, health, ports, tasks and shutdown.
//!
//! A daemon is a [`Daemon`] description, its [`config::Settings`] and a `serve` function; [`run()`]
//! does the rest and gives the exit code. This crate knows nothing of Redis or of messages.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use hive_runtime::config::{Config, NoSettings};
//! use hive_runtime::door::ServeError;
//! use hive_runtime::{Chassis, Daemon};
//!
//! const DAEMON: Daemon = Daemon {
//!     name: "hive-example",
//!     version: "0.1.0",
//!     about: "Shows how a daemon is built",
//!     listen: "127.0.0.1:8009",
//!     metrics: &[],
//! };
//!
//! async fn serve(_config: Config<NoSettings>, chassis: Chassis) -> Result<(), ServeError> {
//!     chassis.door.serve(tonic::service::Routes::default(), &[]).await
//! }
//!
//! fn main() -> ExitCode {
//!     hive_runtime::run(&DAEMON, std::env::args_os().skip(1), serve)
//! }
//! ```
//!
//! # Invariants
//! - Nothing of a daemon runs before its whole configuration was found right.
//! - Every asynchronous task is in [`tasks::Tasks`]; a panic in any of them ends the process.
//! - Work inside the [`gate::Gate`] is cut off by the end of the grace or a second signal alone.
//! - Every series whose labels are known is there, at zero, before the first scrape.

#![warn(
    clippy::unwrap_used,
    clippy::get_unwrap,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::string_slice
)]

mod admin;
pub mod chassis;
pub mod config;
pub mod door;
pub mod exit;
mod flags;
pub mod gate;
pub mod health;
pub mod metrics;
pub mod peers;
pub mod run;
pub mod shutdown;
mod signals;
pub mod tasks;
pub mod telemetry;

pub use chassis::Chassis;
pub use run::{Daemon, run};
