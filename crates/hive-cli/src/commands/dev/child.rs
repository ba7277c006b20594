//! One process of `hive dev`: started, watched, started again, stopped.
//!
//! A task owns the process and follows it; what others ask (`ready`, `pid`, `stop`) goes through
//! watch channels, so that no question waits for a restart in progress.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::Command,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    children::{Spawner, hive_command},
    commands::serve::Daemon,
    local_redis::LocalRedis,
    output::{log_line, note},
};

/// First and longest pause before a process is started again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A process that lived this long starts its backoff anew.
const STEADY_AFTER: Duration = Duration::from_secs(10);

/// How long a process may take to stop after SIGTERM. The daemons' own grace is shorter.
pub(super) const STOP_WITHIN: Duration = Duration::from_secs(15);

/// How often a process is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(25);

/// Lines of its log that are kept to explain a failure.
const LAST_LINES: usize = 20;

/// Exit codes that starting again cannot mend: bad flags, bad configuration.
const HOPELESS: [i32; 2] = [64, 78];

/// How to start a process and how to see that it is ready.
#[derive(Debug)]
pub(in crate::commands) struct Plan {
    name: String,
    what: What,
}

/// The two kinds of processes.
#[derive(Debug)]
enum What {
    Daemon {
        daemon: Daemon,
        listen: SocketAddr,
        admin: SocketAddr,
        settings: Vec<(&'static str, String)>,
    },
    Redis {
        redis: Arc<LocalRedis>,
        is_told: bool,
    },
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Started and not ready yet, or waiting to be started again.
    Starting,
    /// Ready at least once since it was started.
    Ready,
    /// Ended with this code, and not started again.
    Hopeless(i32),
    /// Ended because it was told to.
    Stopped,
}

/// How it is asked to go away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Not at all.
    Run,
    /// Gently.
    Stop,
    /// At once.
    Kill,
}

/// A process that is kept running.
#[derive(Debug)]
pub(in crate::commands) struct Child {
    plan: Arc<Plan>,
    state: watch::Receiver<State>,
    pid: watch::Receiver<Option<u32>>,
    order: watch::Sender<Order>,
    lines: Arc<Mutex<VecDeque<String>>>,
}

/// What the task that owns the process needs.
struct Keeper {
    plan: Arc<Plan>,
    spawner: Spawner,
    state: watch::Sender<State>,
    pid: watch::Sender<Option<u32>>,
    order: watch::Receiver<Order>,
    lines: Arc<Mutex<VecDeque<String>>>,
}

impl Plan {
    /// A daemon of ours.
    pub(in crate::commands) fn daemon(
        name: String,
        daemon: Daemon,
        listen: SocketAddr,
        admin: SocketAddr,
        settings: Vec<(&'static str, String)>,
    ) -> Self {
        Self {
            name,
            what: What::Daemon {
                daemon,
                listen,
                admin,
                settings,
            },
        }
    }

    /// The private Redis. Its log is shown only where `is_told`: it greets at the level `warning`.
    pub(in crate::commands) fn redis(redis: Arc<LocalRedis>, is_told: bool) -> Self {
        Self {
            name: "redis".to_owned(),
            what: What::Redis { redis, is_told },
        }
    }

    fn command(&self) -> io::Result<Command> {
        let mut command = match &self.what {
            What::Redis { redis, is_told } => {
                redis.command(if *is_told { "notice" } else { "warning" })?
            },
            What::Daemon {
                daemon, settings, ..
            } => {
                let mut command = hive_command(&["serve", daemon.name()])?;
                command.envs(settings.iter().map(|(name, value)| (name, value)));
                command
            },
        };
        // A terminal sends Ctrl-C to its foreground group; only we shall get it.
        command.process_group(0).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(command)
    }

    async fn is_ready(&self) -> bool {
        match &self.what {
            What::Redis { redis, .. } => redis.is_ready().await,
            What::Daemon { admin, .. } => {
                let answer = timeout(Duration::from_secs(2), readyz(*admin)).await;
                answer.is_ok_and(|answer| answer.unwrap_or(false))
            },
        }
    }
}

impl Child {
    /// Starts the process and keeps it running.
    pub(in crate::commands) fn start(spawner: &Spawner, plan: Plan) -> Self {
        let plan = Arc::new(plan);
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let (state, state_seen) = watch::channel(State::Starting);
        let (pid, pid_seen) = watch::channel(None);
        let (order, order_seen) = watch::channel(Order::Run);
        let keeper = Keeper {
            plan: Arc::clone(&plan),
            spawner: spawner.clone(),
            state,
            pid,
            order: order_seen,
            lines: Arc::clone(&lines),
        };
        in_background(keeper.run());
        Self {
            plan,
            state: state_seen,
            pid: pid_seen,
            order,
            lines,
        }
    }

    /// Its name in logs and tables.
    pub(in crate::commands) fn name(&self) -> &str {
        &self.plan.name
    }

    /// Its process id, while it runs. For the Redis that of its supervisor.
    pub(in crate::commands) fn pid(&self) -> Option<u32> {
        *self.pid.borrow()
    }

    /// Where it serves.
    pub(in crate::commands) fn address(&self) -> String {
        match &self.plan.what {
            What::Redis { redis, .. } => redis.url(),
            What::Daemon { listen, .. } => format!("http://{listen}"),
        }
    }

    /// Where it answers questions about itself.
    pub(in crate::commands) fn admin(&self) -> String {
        match &self.plan.what {
            What::Redis { .. } => String::new(),
            What::Daemon { admin, .. } => format!("http://{admin}"),
        }
    }

    /// Whether it is ready.
    pub(in crate::commands) fn is_ready(&self) -> bool {
        *self.state.borrow() == State::Ready
    }

    /// Waits until it is ready.
    pub(in crate::commands) async fn ready(&self) {
        self.reach(|state| state == State::Ready).await;
    }

    /// Waits until it has ended in a way that starting again cannot mend; answers its exit code.
    pub(in crate::commands) async fn hopeless(&self) -> i32 {
        match self
            .reach(|state| matches!(state, State::Hopeless(_)))
            .await
        {
            State::Hopeless(code) => code,
            State::Starting | State::Ready | State::Stopped => std::future::pending().await,
        }
    }

    /// Stops it with SIGTERM, and SIGKILL when it takes too long.
    pub(in crate::commands) async fn stop(&self) {
        self.order.send_replace(Order::Stop);
        self.ended().await;
    }

    /// Stops it with SIGKILL.
    pub(in crate::commands) async fn kill(&self) {
        self.order.send_replace(Order::Kill);
        self.ended().await;
    }

    /// Its name and the last lines it logged.
    pub(in crate::commands) fn last_words(&self) -> String {
        let lines = self.lines.lock();
        let lines = lines
            .iter()
            .map(|line| format!("\n  {line}"))
            .collect::<String>();
        format!("{}:{lines}", self.plan.name)
    }

    async fn ended(&self) {
        self.reach(|state| matches!(state, State::Stopped | State::Hopeless(_)))
            .await;
    }

    /// Waits for a state. A keeper that is gone has left its last state.
    async fn reach(&self, is_wanted: impl Fn(State) -> bool) -> State {
        let mut state = self.state.clone();
        match state.wait_for(|state| is_wanted(*state)).await {
            Ok(state) => *state,
            Err(_) => *self.state.borrow(),
        }
    }
}

impl Keeper {
    /// Starts the process again and again until it is told to stop or there is no hope.
    async fn run(mut self) {
        let mut pause = BACKOFF.0;
        while *self.order.borrow() == Order::Run {
            self.state.send_replace(State::Starting);
            let started = Instant::now();
            let ended = match self.plan.command() {
                Ok(command) => self.run_once(command).await,
                Err(error) => Err(error),
            };
            self.pid.send_replace(None);
            if *self.order.borrow() != Order::Run {
                break;
            }
            match ended {
                Ok(status) => {
                    if let Some(code) = status.code().filter(|code| HOPELESS.contains(code)) {
                        self.state.send_replace(State::Hopeless(code));
                        return;
                    }
                    note(&format!(
                        "{} ended ({status}) and is started again",
                        self.plan.name
                    ));
                },
                Err(error) => note(&format!("{} cannot be started: {error}", self.plan.name)),
            }
            pause = if started.elapsed() > STEADY_AFTER {
                BACKOFF.0
            } else {
                pause
            };
            if timeout(pause, self.ordered()).await.is_ok() {
                break;
            }
            pause = (pause * 2).min(BACKOFF.1);
        }
        self.state.send_replace(State::Stopped);
    }

    /// One life of the process.
    async fn run_once(&mut self, command: Command) -> io::Result<ExitStatus> {
        let mut process = self.spawner.spawn(command).await?;
        self.pid.send_replace(process.id());
        if let Some(stdout) = process.stdout.take() {
            in_background(pass_on(
                Arc::clone(&self.plan),
                Arc::clone(&self.lines),
                stdout,
            ));
        }
        if let Some(stderr) = process.stderr.take() {
            in_background(pass_on(
                Arc::clone(&self.plan),
                Arc::clone(&self.lines),
                stderr,
            ));
        }
        let (plan, state) = (Arc::clone(&self.plan), self.state.clone());
        let mut watched = in_background(async move {
            while !plan.is_ready().await {
                sleep(ASK_EVERY).await;
            }
            state.send_replace(State::Ready);
        });
        let ended = tokio::select! {
            ended = process.wait() => ended,
            () = self.ordered() => self.end(&mut process).await,
        };
        watched.abort();
        // Cancelled or finished: either way it reports nothing more.
        drop((&mut watched).await);
        ended
    }

    /// Waits until it is told to go away.
    async fn ordered(&mut self) {
        if self
            .order
            .wait_for(|order| *order != Order::Run)
            .await
            .is_err()
        {
            // The owner is gone, and with it the reason to run.
            drop(self.order.borrow());
        }
    }

    /// Ends the process as it was told to.
    async fn end(&mut self, process: &mut tokio::process::Child) -> io::Result<ExitStatus> {
        let pid = process
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|_| *self.order.borrow() != Order::Kill) {
            // A process that ended meanwhile is not reaped yet: the number is still its own.
            if let Err(error) = kill_process(pid, Signal::TERM) {
                note(&format!(
                    "{} cannot be told to stop: {error}",
                    self.plan.name
                ));
            }
            tokio::select! {
                ended = process.wait() => return ended,
                _ = self.order.wait_for(|order| *order == Order::Kill) => {},
                () = sleep(STOP_WITHIN) => {
                    note(&format!("{} did not stop within {STOP_WITHIN:?}", self.plan.name));
                },
            }
        }
        process.start_kill()?;
        process.wait().await
    }
}

/// Passes lines of a log on to stderr and keeps the last ones.
async fn pass_on(
    plan: Arc<Plan>,
    lines: Arc<Mutex<VecDeque<String>>>,
    log: impl AsyncRead + Unpin,
) {
    let mut log = BufReader::new(log).split(b'\n');
    while let Ok(Some(line)) = log.next_segment().await {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if line.is_empty() {
            continue;
        }
        if !matches!(plan.what, What::Redis { is_told: false, .. }) {
            log_line(&plan.name, &line);
        }
        let mut lines = lines.lock();
        if lines.len() == LAST_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

/// Asks a daemon whether it is ready, in the plainest HTTP there is.
async fn readyz(admin: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect(admin).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    Ok(&status == b"HTTP/1.1 200")
}

/// Runs a future beside this one. The chassis' task kinds are for daemons; a command ends with its
/// process, and these tasks with it.
#[expect(
    clippy::disallowed_methods,
    reason = "a command line tool has no drain gate to name tasks"
)]
pub(super) fn in_background<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}
