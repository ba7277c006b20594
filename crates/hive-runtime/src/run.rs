//! Runs a daemon from its flags to its exit code: the same order of steps in each of them.
//!
//! Flags, configuration with all its problems, log and panic hook, metrics, runtime, ports, the
//! daemon's own `serve`; then the phases of the shutdown. Nothing of a daemon runs before its
//! configuration is known to be right.

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::Instant;

use crate::chassis::Chassis;
use crate::config::common::{LISTEN, LOG_FILTER};
use crate::config::{Config, Inputs, Problem, Problems, Settings};
use crate::exit::Exit;
use crate::flags::Flags;
use crate::gate::Gate;
use crate::health::Health;
use crate::metrics::chassis::BUILD_INFO;
use crate::metrics::{Gauge, MetricDef, Scrape};
use crate::shutdown::Shutdown;
use crate::signals::{self, Signals};
use crate::tasks::{BACKGROUND, Failure, Tasks, chain};
use crate::telemetry::{self, LogFilter};

/// How long tasks may take to end after the stop: with the default grace of 25 s this fills the
/// 30 s that Kubernetes gives a container.
const WIND_UP: Duration = Duration::from_secs(5);

/// What tells one daemon from another.
#[derive(Debug, Clone, Copy)]
pub struct Daemon {
    /// Name of the binary.
    pub name: &'static str,
    /// Version of the build.
    pub version: &'static str,
    /// What it does, for `--help`.
    pub about: &'static str,
    /// Default of `server.listen`.
    pub listen: &'static str,
    /// The daemon's own metrics, in tables.
    pub metrics: &'static [&'static [MetricDef]],
}

/// Runs `daemon` with `args`, which come without the program's name, until it is asked to stop.
///
/// `serve` is the daemon's own code. It runs until `chassis.shutdown` says stop; its return before
/// that begins the shutdown, an error makes the exit code 1.
pub fn run<S, Serve, Fut, E>(
    daemon: &Daemon,
    args: impl Iterator<Item = OsString>,
    serve: Serve,
) -> ExitCode
where
    S: Settings,
    Serve: FnOnce(Config<S>, Chassis) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: Error,
{
    let exit = match Flags::parse(daemon, args) {
        Ok(flags) => run_with(daemon, &flags, serve),
        Err(error) => {
            // A closed output leaves nobody to tell.
            drop(error.print());
            if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Drained
            }
        },
    };
    exit.into()
}

fn run_with<S, Serve, Fut, E>(daemon: &Daemon, flags: &Flags, serve: Serve) -> Exit
where
    S: Settings,
    Serve: FnOnce(Config<S>, Chassis) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: Error,
{
    let config = match read_config::<S>(daemon, flags) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    if flags.check_config {
        return say(io::stdout(), "the configuration is valid\n");
    }
    let log = match telemetry::install(&config.log) {
        Ok(log) => log,
        Err(error) => return fail(daemon, &error),
    };
    telemetry::install_panic_hook();
    for warning in config.values.warnings() {
        tracing::warn!(warning, "configuration");
    }
    // An error means that another provider stands already, which serves as well.
    drop(rustls::crypto::ring::default_provider().install_default());
    let scrape = match Scrape::install(daemon.metrics) {
        Ok(scrape) => scrape,
        Err(error) => return fail(daemon, &error.to_string()),
    };
    Gauge::new(&BUILD_INFO, &[daemon.name, daemon.version]).set(1.0);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.server.threads.get())
        .thread_name(daemon.name)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(Box::pin(host(daemon, config, serve, scrape, log)));
            // Tasks are over or given up; a blocking thread must not hold up the exit.
            runtime.shutdown_background();
            tracing::info!(code = exit.code(), "exit");
            exit
        },
        Err(error) => fail(daemon, &format!("the runtime does not start: {error}")),
    }
}

/// Reads the configuration; says what is wrong with it, or prints it if that was asked for.
fn read_config<S: Settings>(daemon: &Daemon, flags: &Flags) -> Result<Config<S>, Exit> {
    let (inputs, unreadable) = collect_inputs(flags);
    let (problems, values, config) = match Config::<S>::resolve(daemon.listen, &inputs) {
        Ok(config) => (Problems::default(), config.values.clone(), Some(config)),
        Err(refused) => (refused.0, refused.1, None),
    };
    if flags.print_config {
        let printed = say(io::stdout(), &values.render());
        if printed != Exit::Drained {
            return Err(printed);
        }
    }
    let count = problems.all().len() + usize::from(unreadable.is_some());
    match config {
        Some(config) if count == 0 => {
            if flags.check_config || !flags.print_config {
                Ok(config)
            } else {
                Err(Exit::Drained)
            }
        },
        Some(_) | None => {
            let file = unreadable
                .map(|problem| format!("  {problem}\n"))
                .unwrap_or_default();
            let noun = if count == 1 { "problem" } else { "problems" };
            let text = format!("{}: {count} {noun} in the configuration\n", daemon.name);
            say(io::stderr(), &(text + &file + &problems.to_string()));
            Err(Exit::Config)
        },
    }
}

fn collect_inputs(flags: &Flags) -> (Inputs, Option<Problem>) {
    let mut inputs = Inputs::default();
    let mut unreadable = None;
    if let Some(path) = &flags.config {
        let name = path.display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => inputs.file = Some((name, text)),
            Err(error) => {
                unreadable = Some(Problem::of_file(&name, format!("cannot be read: {error}")));
            },
        }
    }
    inputs.env = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("HIVE_"))
        .collect::<BTreeMap<_, _>>();
    let flag = |path, value: &Option<String>| value.clone().map(|value| (path, value));
    inputs.flags.extend(flag(LISTEN.path(), &flags.listen));
    inputs.flags.extend(flag(LOG_FILTER.path(), &flags.log));
    (inputs, unreadable)
}

/// Writes `text` for the person at the terminal.
fn say(mut to: impl io::Write, text: &str) -> Exit {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Ok(()) => Exit::Drained,
        Err(_closed) => Exit::Failed,
    }
}

/// Tells of an end before there is a log.
fn fail(daemon: &Daemon, error: &str) -> Exit {
    say(io::stderr(), &format!("{}: {error}\n", daemon.name));
    Exit::Failed
}

async fn host<S, Serve, Fut, E>(
    daemon: &Daemon,
    config: Config<S>,
    serve: Serve,
    scrape: Scrape,
    log: LogFilter,
) -> Exit
where
    S: Settings,
    Serve: FnOnce(Config<S>, Chassis) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: Error,
{
    tracing::info!(daemon = daemon.name, version = daemon.version, "start");
    let signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(error = chain(&error), "start_failed");
            return Exit::Failed;
        },
    };
    let (config, chassis) = match Chassis::open(config, scrape, log).await {
        Ok(opened) => opened,
        Err(error) => {
            tracing::error!(error = chain(&error), "start_failed");
            return Exit::Failed;
        },
    };
    let ending = Ending {
        tasks: chassis.tasks.clone(),
        shutdown: chassis.shutdown.clone(),
        gate: chassis.gate.clone(),
        health: chassis.health.clone(),
        grace: config.server.grace,
    };
    if let Some(parent) = env::var(signals::PARENT_VARIABLE)
        .ok()
        .and_then(|pid| pid.parse().ok())
    {
        let watch = signals::watch_parent(parent, ending.shutdown.clone());
        ending.tasks.spawn(BACKGROUND, "parent_watch", watch);
    }
    let second_signal = signals.second(ending.shutdown.clone());
    let served = Box::pin(serve(config, chassis));
    tokio::select! {
        exit = ending.follow(served) => exit,
        () = second_signal => {
            let unfinished = ending.gate.names();
            tracing::warn!(?unfinished, "cut");
            if unfinished.is_empty() { Exit::Drained } else { Exit::Unfinished }
        },
    }
}

/// What is needed to bring a daemon to its end.
#[derive(Debug)]
struct Ending {
    tasks: Tasks,
    shutdown: Shutdown,
    gate: Gate,
    health: Health,
    grace: Duration,
}

impl Ending {
    /// Runs the daemon's own code and, once something ends it, the phases of the shutdown.
    async fn follow<Fut, E>(&self, mut served: Pin<Box<Fut>>) -> Exit
    where
        Fut: Future<Output = Result<(), E>>,
        E: Error,
    {
        let mut returned = None;
        let mut is_failed = false;
        tokio::select! {
            result = &mut served => {
                is_failed = log_failure(&result);
                returned = Some(result);
            },
            failure = self.tasks.failed() => match failure {
                Failure::Panic { task, message } => {
                    tracing::error!(task, message, "task_panicked");
                    return Exit::Panic;
                },
                Failure::Error { .. } => is_failed = true,
            },
            () = self.shutdown.draining() => {},
        }
        self.health.component("shutdown").not_ready("draining");
        self.shutdown.drain();
        tracing::info!(grace_seconds = self.grace.as_secs_f64(), "draining");

        let mut late = {
            let closing = self.gate.close(self.grace);
            tokio::pin!(closing);
            loop {
                tokio::select! {
                    late = &mut closing => break late,
                    result = &mut served, if returned.is_none() => {
                        is_failed |= log_failure(&result);
                        returned = Some(result);
                    },
                }
            }
        };
        self.shutdown.stop();
        let deadline = Instant::now() + WIND_UP;
        if returned.is_none() {
            match tokio::time::timeout_at(deadline, &mut served).await {
                Ok(result) => is_failed |= log_failure(&result),
                Err(_elapsed) => late.push("serve".to_owned()),
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        late.extend(self.tasks.close(left).await);
        if !late.is_empty() {
            tracing::warn!(unfinished = ?late, "grace_over");
        }
        match (is_failed, late.is_empty()) {
            (true, _) => Exit::Failed,
            (false, true) => Exit::Drained,
            (false, false) => Exit::Unfinished,
        }
    }
}

fn log_failure<E: Error>(result: &Result<(), E>) -> bool {
    if let Err(error) = result {
        tracing::error!(error = chain(error), "failed");
    }
    result.is_err()
}

#[cfg(test)]
mod tests;
