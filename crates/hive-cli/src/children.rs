//! Starts child processes that die with this process, also when it is killed with -9.
//!
//! Linux can send a process a signal when its parent dies, but "parent" there is the *thread* that
//! forked it: a child started from a pool thread would be killed whenever that thread retires. So
//! one thread does nothing but fork, and lives until the process ends.
//!
//! What is started here is either one of our own daemons, which watches its parent itself, or a
//! foreign program behind `hive __supervise` (see `commands::supervise`).

use std::{env, ffi::OsStr, io, process, sync::mpsc, thread};

use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
};

/// One program to start, and where the answer goes.
struct Job {
    command: Command,
    answer: oneshot::Sender<io::Result<Child>>,
}

/// The thread that forks. Cloning shares it; when the last one is dropped, the thread ends and
/// supervised children are ended too.
#[derive(Clone, Debug)]
pub(crate) struct Spawner {
    jobs: mpsc::Sender<Job>,
}

impl Spawner {
    /// Starts the thread. Must be called inside a runtime.
    ///
    /// # Errors
    /// When the system refuses another thread.
    pub(crate) fn start() -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let runtime = Handle::current();
        thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                let _inside = runtime.enter();
                while let Ok(mut job) = queue.recv() {
                    if let Err(Ok(mut unwanted)) = job.answer.send(job.command.spawn()) {
                        // Nobody waits any more. A child that is gone by itself is just as well.
                        drop(unwanted.start_kill());
                    }
                }
            })?;
        Ok(Self { jobs })
    }

    /// Starts a program from the thread.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub(crate) async fn spawn(&self, command: Command) -> io::Result<Child> {
        let (answer, answered) = oneshot::channel();
        let gone = || io::Error::other("the thread that starts programs is gone");
        self.jobs
            .send(Job { command, answer })
            .map_err(|_closed| gone())?;
        answered.await.map_err(|_closed| gone())?
    }
}

/// A command that runs this binary again with these arguments.
///
/// # Errors
/// When the path of this binary cannot be found out.
pub(crate) fn hive_command<A: AsRef<OsStr>>(args: &[A]) -> io::Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.args(args);
    Ok(command)
}

/// A command that runs `program` behind a supervisor that ends it, with all it started, when this
/// process is gone. SIGTERM to the supervisor stops the program gently. `called` is the program's
/// name for itself where that is not its file's.
///
/// # Errors
/// When the path of this binary cannot be found out.
pub(crate) fn supervised_command<A: AsRef<OsStr>>(
    program: &OsStr,
    called: Option<&str>,
    args: &[A],
) -> io::Result<Command> {
    let mut command = supervisor()?;
    if let Some(name) = called {
        command.arg("--called").arg(name);
    }
    command.arg("--").arg(program).args(args);
    Ok(command)
}

/// As [`supervised_command`], for a command of the shell that may take as long as it needs to stop:
/// only a second SIGTERM to the supervisor kills it.
///
/// # Errors
/// When the path of this binary cannot be found out.
pub(crate) fn patient_command(line: &OsStr) -> io::Result<Command> {
    let mut command = supervisor()?;
    command.args(["--patient", "--", "sh", "-c"]).arg(line);
    Ok(command)
}

/// The beginning of a command that runs a supervisor.
fn supervisor() -> io::Result<Command> {
    let own = process::id().to_string();
    hive_command(&["__supervise", "--parent", &own])
}
