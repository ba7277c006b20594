//! The exit codes of a daemon.

use std::process::ExitCode;

/// How a daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Everything was finished.
    Drained,
    /// It could not start or could not go on.
    Failed,
    /// The grace ended, or a second signal came, with work unfinished.
    Unfinished,
    /// The flags are wrong.
    Usage,
    /// A panic.
    Panic,
    /// The configuration is wrong.
    Config,
}

impl Exit {
    /// The code; 64, 70 and 78 are those of sysexits(3).
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Drained => 0,
            Self::Failed => 1,
            Self::Unfinished => 3,
            Self::Usage => 64,
            Self::Panic => 70,
            Self::Config => 78,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
