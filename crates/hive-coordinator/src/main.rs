//! `hive-coordinator`: gives the work of the lost to the living.
//!
//! Configuration: `deploy/config/coordinator.toml` shows every key. Exit codes: 0 drained,
//! 1 failed, 3 work unfinished, 64 wrong flags, 70 panic, 78 wrong configuration.

use std::env;
use std::process::ExitCode;

/// Frees and allocates across threads without the contention of the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    hive_coordinator::run(env::args_os().skip(1))
}
