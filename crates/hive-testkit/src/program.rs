//! A child process of a test: its output is kept, its end is awaited, its signals are named.
//!
//! A child stays in the test's own process group, so that a runner which ends the group ends the
//! child too; dropping the value kills it in any case. What it says is kept as a bounded tail for
//! failure messages and for tests that wait for a line.

use std::{
    collections::VecDeque,
    env, fmt,
    io::{self, BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal};

use crate::wait;

/// Lines kept of a program's output; older ones are dropped.
const LINES_MAX: usize = 4_096;
/// Lines shown in a failure message.
const TAIL_LINES: usize = 40;

/// A running program of this workspace.
pub struct Program {
    name: String,
    child: Child,
    log: Arc<Mutex<Log>>,
    /// Those who read its outputs.
    readers: Vec<thread::JoinHandle<()>>,
}

/// The last lines that a program wrote, to whichever of its outputs.
#[derive(Default)]
struct Log {
    lines: VecDeque<String>,
    /// Number of the first kept line since the start.
    first: usize,
}

impl Log {
    fn push(&mut self, line: String) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
            self.first += 1;
        }
        self.lines.push_back(line);
    }
}

impl Program {
    /// Starts a binary of this workspace, with `HIVE_…` variables from `environment` alone.
    ///
    /// # Errors
    /// When the binary is not built or does not start.
    pub fn start<'a>(
        name: &str,
        arguments: &[&str],
        environment: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(binary(name)?);
        command.args(arguments);
        for (inherited, _) in env::vars_os() {
            if inherited.to_string_lossy().starts_with("HIVE_") {
                command.env_remove(inherited);
            }
        }
        command.env("RUST_BACKTRACE", "1").envs(environment);
        Self::spawn(name, command)
    }

    /// Starts any command; its output is kept under `name`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn spawn(name: &str, mut command: Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start of `{name}`"))?;
        let log = Arc::new(Mutex::new(Log::default()));
        let outputs: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|output| Box::new(output) as Box<_>),
            child.stderr.take().map(|output| Box::new(output) as Box<_>),
        ];
        let read = |output| {
            let log = Arc::clone(&log);
            // Ends with the pipe. A thread and not a task: it must drain while a test blocks.
            thread::spawn(move || keep_lines(output, &log))
        };
        let readers = outputs.into_iter().flatten().map(read).collect();
        Ok(Self {
            readers,
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Name that it was started under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The last lines of its output, for failure messages.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log.lock();
        let skipped = log.lines.len().saturating_sub(TAIL_LINES);
        log.lines
            .iter()
            .skip(skipped)
            .cloned()
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Its kept output, the last 4,096 lines, oldest first.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.log.lock().lines.iter().cloned().collect()
    }

    /// Waits for a line of which `pick` makes a value, among those written already and to come.
    ///
    /// # Errors
    /// When the program ends or `deadline` passes first; with its last lines.
    pub async fn wait_line<T>(
        &mut self,
        deadline: Duration,
        what: &str,
        mut pick: impl FnMut(&str) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut seen: usize = 0;
        let (mut ended, mut turns) = (None, 0_u32);
        let found = wait::try_until(deadline, what, || {
            // Asked before the lines are read: what an ended program wrote last is still seen.
            let status = self.child.try_wait().ok().flatten();
            let log = self.log.lock();
            let skipped = seen.saturating_sub(log.first);
            let value = log.lines.iter().skip(skipped).find_map(|line| pick(line));
            seen = log.first + log.lines.len();
            let answer = match (value, status) {
                (Some(value), _) => Some(Some(value)),
                // Its pipes may still be read; and a child of its own may hold them for ever.
                (None, Some(status)) => {
                    ended = Some(status);
                    turns += 1;
                    let is_read = self.readers.iter().all(thread::JoinHandle::is_finished);
                    (turns > 1 && is_read || turns > TURNS_MAX).then_some(None)
                },
                (None, None) => None,
            };
            async move { answer }
        })
        .await;
        match found {
            Ok(Some(value)) => Ok(value),
            Ok(None) => {
                let status = ended.map(|status| status.to_string()).unwrap_or_default();
                bail!(
                    "`{}` ended with {status} before {what}\n{}",
                    self.name,
                    self.log_tail()
                )
            },
            Err(late) => bail!("`{}`: {late}\n{}", self.name, self.log_tail()),
        }
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn is_running(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When `deadline` passes first; with its last lines.
    pub async fn wait_exit(&mut self, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let what = format!("`{}` to end", self.name);
        let child = &mut self.child;
        let ended = wait::try_until(deadline, &what, || {
            let status = child.try_wait().ok().flatten();
            async move { status }
        })
        .await;
        ended.with_context(|| format!("last lines of `{}`:\n{}", self.name, self.log_tail()))
    }

    /// Waits for its end with this exit code.
    ///
    /// # Errors
    /// When `deadline` passes first or the code is another; with its last lines.
    pub async fn wait_exit_code(&mut self, code: i32, deadline: Duration) -> anyhow::Result<()> {
        let status = self.wait_exit(deadline).await?;
        if status.code() == Some(code) {
            return Ok(());
        }
        bail!(
            "`{}` ended with {status}, not exit code {code}\n{}",
            self.name,
            self.log_tail()
        )
    }

    /// Kills it with SIGKILL and waits for its end. Does nothing when it has ended.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        kill_and_wait(&mut self.child).with_context(|| format!("kill of `{}`", self.name))
    }

    /// Asks it to end with SIGTERM.
    ///
    /// # Errors
    /// When it has ended.
    pub fn sigterm(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Stops it with SIGSTOP: its connections stay open and it does nothing.
    ///
    /// # Errors
    /// When it has ended.
    pub fn sigstop(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a stopped program go on.
    ///
    /// # Errors
    /// When it has ended.
    pub fn sigcont(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        signal_child(&mut self.child, signal).with_context(|| format!("signal to `{}`", self.name))
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("name", &self.name)
            .field("pid", &self.pid())
            .finish()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(kill_and_wait(&mut self.child));
    }
}

/// Path of a binary of this workspace: it lies beside the test executable, in `target/<profile>/`.
///
/// # Errors
/// When it is not built: cargo builds no binaries of other packages for a test.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let test = env::current_exe().context("path of the test executable")?;
    let path = test
        .parent()
        .and_then(|deps| deps.parent())
        .map(|profile| profile.join(name))
        .with_context(|| format!("`{}` must lie in target/<profile>/deps", test.display()))?;
    if path.is_file() {
        return Ok(path);
    }
    bail!(
        "`{}` is not built: run scripts/test, or `cargo build --workspace`",
        path.display()
    )
}

/// Sends a signal to a child that has not been reaped: its id cannot be another process's.
pub(crate) fn signal_child(child: &mut Child, signal: Signal) -> anyhow::Result<()> {
    if let Some(status) = child.try_wait()? {
        bail!("the process has ended with {status}");
    }
    Ok(rustix::process::kill_process(
        Pid::from_child(child),
        signal,
    )?)
}

/// Kills a child and reaps it; a child that has ended is only reaped.
pub(crate) fn kill_and_wait(child: &mut Child) -> io::Result<()> {
    child.kill()?;
    child.wait().map(drop)
}

/// Looks at the output of a program that has ended, while something still holds it open.
const TURNS_MAX: u32 = 50;

fn keep_lines(output: Box<dyn Read + Send>, log: &Mutex<Log>) {
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    while let Ok(1..) = reader.read_until(b'\n', &mut line) {
        log.lock()
            .push(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Program {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Program::spawn("sh", command).unwrap()
    }

    #[tokio::test]
    async fn a_line_of_either_output_is_found() {
        let mut program = shell("echo one; echo two >&2; sleep 60");
        for wanted in ["one", "two"] {
            let pick = |line: &str| (line == wanted).then_some(line.len());
            assert_eq!(program.wait_line(DEADLINE, wanted, pick).await.unwrap(), 3);
        }
    }

    #[tokio::test]
    async fn an_early_end_is_told_with_the_last_lines() {
        let mut program = shell("echo broken; exit 7");
        let error = program
            .wait_line(DEADLINE, "ready", |_| None::<()>)
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("exit status: 7") && text.contains("broken"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_stopped_program_still_dies_by_kill() {
        let mut program = shell("echo up; sleep 60");
        program
            .wait_line(DEADLINE, "up", |line| (line == "up").then_some(()))
            .await
            .unwrap();
        program.sigstop().unwrap();
        program.kill9().unwrap();
        assert!(!program.is_running().unwrap());
        assert!(program.sigcont().is_err());
    }

    #[tokio::test]
    async fn another_exit_code_is_an_error() {
        let error = shell("exit 3")
            .wait_exit_code(0, DEADLINE)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("not exit code 0"));
        shell("exit 3").wait_exit_code(3, DEADLINE).await.unwrap();
    }

    #[test]
    fn a_binary_that_is_not_built_names_the_way_out() {
        let error = binary("hive-nothing").unwrap_err();
        assert!(error.to_string().contains("run scripts/test"));
    }
}
