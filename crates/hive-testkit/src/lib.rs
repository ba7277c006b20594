//! What tests stand on: real servers, real daemons, faults, and a judge.
//!
//! A test starts a private Redis ([`redis::RedisServer`]) and the daemons that it needs
//! ([`daemon::Daemon`]) as processes of their own, puts a [`proxy::FaultProxy`] where a network can
//! fail, kills and stops what it likes, and writes down what its clients saw
//! ([`history::Recorder`]). In the end [`checker::check`] says which promises were broken.
//!
//! # Invariants
//! - Nothing that this crate starts outlives the value that stands for it: dropping the value kills
//!   the process, also in a panicking test.
//! - Nothing listens on a well-known port: Redis sits on a Unix socket, daemons on free ports.
//! - Every wait has a deadline and names what it waited for.
//! - Randomness comes from one printed seed; `HIVE_SEED` replays it.
//!
//! This crate is for tests alone, so it is free of the panic lints; a daemon never depends on it.

pub mod checker;
pub mod daemon;
pub mod history;
pub mod program;
pub mod proxy;
pub mod redis;
pub mod rng;
mod shim;
pub mod wait;
