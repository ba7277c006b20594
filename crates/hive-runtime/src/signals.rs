//! What asks a daemon to stop from outside: signals, and the death of the process that started it.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::shutdown::Shutdown;

/// Names the process that the daemon must not outlive; `hive dev` sets it for its children.
pub(crate) const PARENT_VARIABLE: &str = "HIVE_PARENT_PID";

/// How often the parent is looked for. A signal at its death would need a call that is `unsafe`.
const PARENT_CHECK_EVERY: Duration = Duration::from_secs(1);

/// SIGTERM and SIGINT.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes both signals over from the system, which would end the process.
    pub(crate) fn new() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self {
            terminate,
            interrupt,
        })
    }

    /// Begins the shutdown at the first signal, and ends at the second.
    pub(crate) async fn second(mut self, shutdown: Shutdown) {
        let name = self.next().await;
        tracing::info!(signal = name, "signal");
        shutdown.drain();
        let name = self.next().await;
        tracing::warn!(signal = name, "second_signal");
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Begins the shutdown once the process `parent` is no longer the parent of this one.
pub(crate) async fn watch_parent(parent: i32, shutdown: Shutdown) {
    let mut ticks = tokio::time::interval(PARENT_CHECK_EVERY);
    loop {
        ticks.tick().await;
        let now = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
        if now != Some(parent) {
            tracing::info!(parent, "parent_gone");
            shutdown.drain();
            return;
        }
    }
}
