//! How a command ends: the exit codes of `hive` and the failure that carries one.
//!
//! Scripts branch on these numbers, so each has one meaning and none is reused. The codes from 64
//! up follow `sysexits.h`.

use std::{error::Error, fmt, io, process::ExitCode};

/// Text for `--help`: every exit code with its meaning.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
   0  done
   1  failed
   2  refused by the server: the request breaks a rule, or the thing does not exist
  64  wrong usage: a flag or an argument that cannot be
  69  something needed is missing or away: no gateway answers, no Redis server is found
  78  a daemon refused its configuration
 130  stopped by a signal before the work was done";

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All that was asked for is done.
    Done,
    /// It did not work, and none of the codes below says why.
    Failed,
    /// The server judged the request and refused it; sending it again changes nothing.
    Refused,
    /// The command line cannot be what was meant.
    Usage,
    /// A server or a program that is needed is not there; trying later may work.
    Unavailable,
    /// A daemon refused its configuration.
    Config,
    /// A signal ended it early.
    Interrupted,
    /// The code of a program that ran in our place.
    Program(u8),
}

impl Exit {
    /// The number that the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Refused => 2,
            Self::Usage => 64,
            Self::Unavailable => 69,
            Self::Config => 78,
            Self::Interrupted => 130,
            Self::Program(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An error that knows its exit code. Errors without one end with [`Exit::Failed`].
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    /// A failure with this exit code and this text for the person at the terminal.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl Error for Failure {}

/// The exit code of an error, through all context that was added to it.
pub(crate) fn exit_of(error: &anyhow::Error) -> Exit {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.exit;
    }
    Exit::Failed
}

/// Whether the reader of our output went away, as `| head` does; that is no failure.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_failure_keeps_its_exit_code_under_added_context() {
        let error = Err::<(), _>(Failure::new(Exit::Unavailable, "no gateway answers"))
            .context("group `a`")
            .unwrap_err();
        assert_eq!(exit_of(&error), Exit::Unavailable);
    }

    #[test]
    fn an_error_without_a_code_ends_with_one() {
        assert_eq!(exit_of(&anyhow::anyhow!("odd")).code(), 1);
    }

    #[test]
    fn every_exit_code_stands_in_the_help() {
        use Exit::{Config, Done, Failed, Interrupted, Refused, Unavailable, Usage};
        for exit in [
            Done,
            Failed,
            Refused,
            Usage,
            Unavailable,
            Config,
            Interrupted,
        ] {
            let code = format!("{:>4}  ", exit.code());
            assert!(
                EXIT_CODES.lines().any(|line| line.starts_with(&code)),
                "{code}"
            );
        }
    }
}
