//! The flags of a daemon: five, the same for each; everything else is a key of the configuration.

use std::ffi::OsString;
use std::iter;
use std::path::PathBuf;

use clap::CommandFactory as _;
use clap::FromArgMatches as _;
use clap::Parser;

use crate::run::Daemon;

const AFTER_HELP: &str = "Every key section.key of the configuration can also be set by the \
    environment variable HIVE_SECTION_KEY.\n\n\
    Exit codes: 0 drained, 1 failed, 3 stopped with work unfinished, 64 wrong flags, 70 panic, \
    78 wrong configuration.";

/// What the command line says.
#[derive(Debug, Parser)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Flags {
    /// Read the configuration from this TOML file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Report everything that is wrong with the configuration, and exit
    #[arg(long)]
    pub(crate) check_config: bool,
    /// Print every key with its value and where it came from, and exit
    #[arg(long)]
    pub(crate) print_config: bool,
    /// Listen on this address (server.listen)
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    /// Log what this filter lets through (log.filter)
    #[arg(long, value_name = "FILTER")]
    pub(crate) log: Option<String>,
}

impl Flags {
    /// Reads the flags of `daemon`; `args` come without the program's name.
    pub(crate) fn parse(
        daemon: &Daemon,
        args: impl Iterator<Item = OsString>,
    ) -> Result<Self, clap::Error> {
        let command = Self::command()
            .name(daemon.name)
            .version(daemon.version)
            .about(daemon.about);
        let args = iter::once(OsString::from(daemon.name)).chain(args);
        Self::from_arg_matches(&command.try_get_matches_from(args)?)
    }
}
