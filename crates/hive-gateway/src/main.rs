//! `hive-gateway`: the one door for agents and operators.
//!
//! Configuration: `--config`, environment `HIVE_…`; `--print-config` shows all of it.
//! Exit codes: 0 drained, 1 failed, 3 grace ended early, 64 bad flags, 70 panic, 78 bad config.

use std::process::ExitCode;

/// Less time in the allocator than the system's, where a message costs microseconds.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    hive_gateway::run(std::env::args_os().skip(1))
}
