//! `hive serve <daemon>`: runs one daemon in this process, exactly as its own binary does.

use std::{ffi::OsString, process::ExitCode};

use clap::{Args, ValueEnum};

/// Which daemon, and its flags.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// The daemon.
    #[arg(value_enum)]
    daemon: Daemon,
    /// Flags of the daemon, e.g. `--config FILE`; `--help` shows them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    flags: Vec<OsString>,
}

/// The daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Daemon {
    /// The door for agents and operators: gRPC and REST.
    Gateway,
    /// Recovery, due messages and retention.
    Coordinator,
    /// Workflows.
    Router,
    /// Dead letters.
    Dlq,
}

impl Daemon {
    /// All of them, in the order in which they are started.
    pub(crate) const ALL: [Self; 4] = [Self::Gateway, Self::Coordinator, Self::Router, Self::Dlq];

    /// The word that `hive serve` takes.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Coordinator => "coordinator",
            Self::Router => "router",
            Self::Dlq => "dlq",
        }
    }
}

/// Runs the daemon until it is told to stop; its own exit codes hold.
pub(crate) fn run(args: ServeArgs) -> ExitCode {
    let flags = args.flags.into_iter();
    match args.daemon {
        Daemon::Gateway => hive_gateway::run(flags),
        Daemon::Coordinator => hive_coordinator::run(flags),
        Daemon::Router => hive_router::run(flags),
        Daemon::Dlq => hive_dlq::run(flags),
    }
}
