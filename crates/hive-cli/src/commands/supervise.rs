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
//! With `--patient` a program that is asked to stop may take as long as it needs, and so may what
//! it started: a shell that a SIGTERM ends at once does not take a worker along that finishes its
//! task. A second SIGTERM ends that patience.
//!
//! Standard streams are inherited untouched. SIGINT and SIGHUP are ignored here: a terminal sends
//! them to the whole job, and what happens to the program is the worker's decision. A program that
//! leaves its process group on purpose (`setsid`) leaves this protection as well.

use std::{
    ffi::OsString,
    fs,
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
    time::{Instant, sleep, sleep_until},
};

use crate::{
    children::hive_command,
    exit::{Exit, Failure},
};

/// How long a program may take to stop after SIGTERM.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(10);

/// How often a patient supervisor looks whether what its program started has ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs a program and ends it when the parent is gone.
#[derive(Args, Debug)]
pub(crate) struct SuperviseArgs {
    /// Process id of the parent at whose death the program ends.
    #[arg(long)]
    parent: i32,
    /// Name by which the program is called, where that is not its file's.
    #[arg(long)]
    called: Option<OsString>,
    /// Let the program take as long as it needs to stop.
    #[arg(long)]
    patient: bool,
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
    let (mut is_told, mut is_patient) = (false, args.patient);
    loop {
        let waits_for_others = is_told && is_patient;
        if has_ended(group)? && !(waits_for_others && has_others(group)) {
            break;
        }
        tokio::select! {
            _ = ended.recv() => {},
            _ = terminated.recv() => {
                if is_told || !is_parent(args.parent) {
                    is_patient = false;
                    end_group(group, Signal::KILL)?;
                } else {
                    kill_at = (!is_patient).then(|| Instant::now() + STOP_GRACE);
                    end_group(group, Signal::TERM)?;
                }
                is_told = true;
            },
            () = passed(kill_at) => {
                kill_at = None;
                end_group(group, Signal::KILL)?;
            },
            // Of the end of a program's own children nobody tells.
            () = sleep(LOOK_EVERY), if waits_for_others => {},
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

/// Whether the group holds a living process beside the program itself.
fn has_others(group: Pid) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else {
        return false;
    };
    let group = group.as_raw_nonzero().get();
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != group).any(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        is_living_in(&stat, group)
    })
}

/// Whether a line of `/proc/<pid>/stat` is that of a living process of this group: behind the name
/// in brackets, which may hold anything, stand state, parent and group.
fn is_living_in(stat: &str, group: i32) -> bool {
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = rest.split_whitespace();
    let is_living = fields.next().is_some_and(|state| !"ZX".contains(state));
    is_living && fields.nth(1).and_then(|field| field.parse().ok()) == Some(group)
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

#[cfg(test)]
mod tests {
    use super::is_living_in;

    #[test]
    fn a_process_is_told_from_one_of_another_group_and_from_a_dead_one() {
        assert!(is_living_in("7 (a) b) S 1 42 42 0 -1", 42));
        assert!(!is_living_in("7 (a) S 1 41 42 0 -1", 42));
        assert!(!is_living_in("7 (a) Z 1 42 42 0 -1", 42));
        assert!(!is_living_in("", 42));
    }
}
