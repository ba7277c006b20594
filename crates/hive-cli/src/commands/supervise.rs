//! The small process between us and a foreign program: it ends the program when we are gone.
//!
//! A worker that is killed with -9 cannot clean up, and the task it ran is delivered to somebody
//! else. The old copy must be gone by then. So a worker starts each program behind this process:
//!
//! ```text
//! hive work ── hive __supervise ── hive __enter, which becomes: sh -c '…'   (own process group)
//! ```
//!
//! 1. The supervisor asks the kernel for SIGTERM at its parent's death, and *then* checks that the
//!    parent still lives: a death before the first step would otherwise go unseen.
//! 2. It starts the program in a process group of its own. `__enter` asks for SIGKILL at the
//!    supervisor's death and becomes the program by `exec`, which keeps that request: so even a
//!    supervisor killed with -9 takes the program along (but not what the program started).
//! 3. SIGTERM with the parent gone: the whole group is killed at once. SIGTERM with the parent
//!    there is a request to stop: SIGTERM to the group, and SIGKILL after the grace period or at
//!    a second SIGTERM.
//! 4. When the program ends, what it left in its group is killed before the program is reaped, so
//!    that the group's number cannot belong to somebody else by then.
//!
//! Standard streams are inherited untouched. SIGINT and SIGHUP are ignored here: a terminal sends
//! them to the whole job, and what happens to the program is the worker's decision. A program that
//! leaves its process group on purpose (`setsid`) leaves this protection as well.

use std::{
    ffi::OsString,
    future::pending,
    io,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Child, Command, ExitStatus},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getppid, kill_process_group,
    set_parent_process_death_signal, waitid,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep_until},
};

use crate::{
    children::hive_command,
    exit::{Exit, Failure},
};

/// How long a program may take to stop after SIGTERM.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(10);

/// Runs a program and ends it when the parent is gone.
#[derive(Args, Debug)]
pub(crate) struct SuperviseArgs {
    /// Process id of the parent at whose death the program ends.
    #[arg(long)]
    parent: i32,
    /// Name by which the program is called, where that is not its file's.
    #[arg(long)]
    called: Option<OsString>,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

/// Starts the program, waits for it and answers its exit code (128 + signal when one killed it).
///
/// # Errors
/// When the parent is gone already, or the program cannot be started.
pub(crate) async fn supervise(args: &SuperviseArgs) -> anyhow::Result<Exit> {
    // All handlers stand before the request for the death signal, so that none is lost.
    let mut terminated = signal(SignalKind::terminate())?;
    let mut ended = signal(SignalKind::child())?;
    let _ignored = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::hangup())?,
    );
    set_parent_process_death_signal(Some(Signal::TERM))?;
    ensure_parent(args.parent)?;

    let (mut child, group) = start(args)?;
    let mut kill_at: Option<Instant> = None;
    while !has_ended(group)? {
        tokio::select! {
            _ = ended.recv() => {},
            _ = terminated.recv() => {
                if kill_at.is_some() || !is_parent(args.parent) {
                    end_group(group, Signal::KILL)?;
                } else {
                    kill_at = Some(Instant::now() + STOP_GRACE);
                    end_group(group, Signal::TERM)?;
                }
            },
            () = passed(kill_at) => {
                kill_at = None;
                end_group(group, Signal::KILL)?;
            },
        }
    }
    end_group(group, Signal::KILL)?;
    Ok(Exit::Program(exit_code(child.wait()?)))
}

/// Becomes the program, bound to the life of the parent. Returns only when that fails.
///
/// # Errors
/// When the parent is gone already, or the program cannot be started.
pub(crate) fn enter(args: &SuperviseArgs) -> anyhow::Result<Exit> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    ensure_parent(args.parent)?;
    let (program, rest) = args
        .program
        .split_first()
        .context("a program is required")?;
    let mut command = Command::new(program);
    if let Some(name) = &args.called {
        command.arg0(name);
    }
    let error = command.args(rest).exec();
    let exit = if error.kind() == io::ErrorKind::NotFound {
        127
    } else {
        126
    };
    let message = format!("cannot start `{}`: {error}", program.display());
    Err(Failure::new(Exit::Program(exit), message).into())
}

/// Starts the program in a process group of its own, whose number is the process id.
fn start(args: &SuperviseArgs) -> anyhow::Result<(Child, Pid)> {
    let own = std::process::id().to_string();
    let mut command = hive_command(&["__enter", "--parent", &own])?.into_std();
    if let Some(name) = &args.called {
        command.arg("--called").arg(name);
    }
    command.arg("--").args(&args.program).process_group(0);
    let child = command.spawn().context("cannot start the program")?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    Ok((child, group.context("a process id is a positive number")?))
}

/// Whether the program has ended; it is not reaped by this question.
fn has_ended(program: Pid) -> io::Result<bool> {
    let how = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Ok(waitid(WaitId::Pid(program), how)?.is_some())
}

/// Sends a signal to the whole group. A group that is gone has what it needs.
fn end_group(group: Pid, signal: Signal) -> io::Result<()> {
    match kill_process_group(group, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits for a moment, or for ever when there is none.
async fn passed(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}

/// Whether this process is still our parent.
fn is_parent(parent: i32) -> bool {
    getppid().is_some_and(|pid| pid.as_raw_nonzero().get() == parent)
}

/// Refuses to start anything for a parent that is gone.
fn ensure_parent(parent: i32) -> Result<(), Failure> {
    if is_parent(parent) {
        return Ok(());
    }
    let message = format!("process `{parent}` is not the parent of this one any more");
    Err(Failure::new(Exit::Unavailable, message))
}

/// The exit code a shell would show.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
