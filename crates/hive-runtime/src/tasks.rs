//! The only place that starts asynchronous tasks: each has a kind, a name and an end that counts.
//!
//! A task nobody knows of keeps a daemon from stopping, or dies and leaves half a daemon behind.
//! So the kind says beforehand what happens at shutdown and on an error, and a panic always stops
//! the daemon. Tasks are listed at `/tasks`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::Instrument as _;

use crate::metrics::chassis::{TASK_FAILURES, TASKS_RUNNING};
use crate::metrics::{Counter, Gauge};

/// A part of the daemon that ends only with it: it is waited for, and its error stops the daemon.
pub const SERVER: Kind = Kind {
    name: "server",
    on_cancel: OnCancel::Wait,
    on_error: OnError::StopDaemon,
};
/// A loop that must always run: it is waited for, and its error stops the daemon.
pub const LOOP: Kind = Kind {
    name: "loop",
    on_cancel: OnCancel::Wait,
    on_error: OnError::StopDaemon,
};
/// Work that may be cut off at any point: it is aborted, and its error is logged.
pub const BACKGROUND: Kind = Kind {
    name: "background",
    on_cancel: OnCancel::Abort,
    on_error: OnError::Log,
};

/// What happens to a task when the daemon stops, and to the daemon when the task fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    name: &'static str,
    on_cancel: OnCancel,
    on_error: OnError,
}

/// What happens to a task when the daemon stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnCancel {
    /// It sees the stop itself and is waited for.
    Wait,
    /// It is cut off.
    Abort,
}

/// What happens to the daemon when a task returns an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The daemon drains and exits 1.
    StopDaemon,
    /// The error is logged.
    Log,
}

/// How a task ends: `()`, or a `Result` whose error is handled as the kind says.
pub trait Outcome: Send + 'static {
    /// The error with its causes; `None` when the task went well.
    fn error(self) -> Option<String>;
}

impl Outcome for () {
    fn error(self) -> Option<String> {
        None
    }
}

impl<E: Error + Send + 'static> Outcome for Result<(), E> {
    fn error(self) -> Option<String> {
        self.err().map(|error| chain(&error))
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// All tasks of a daemon. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tasks {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    running: Mutex<BTreeMap<u64, Running>>,
    next_id: AtomicU64,
    /// Number of running tasks, for whoever waits for them.
    count: watch::Sender<usize>,
    failure: watch::Sender<Option<Failure>>,
}

#[derive(Debug)]
struct Running {
    kind: Kind,
    name: Cow<'static, str>,
    since: Instant,
    /// None for the moment between registration and start.
    abort: Option<AbortHandle>,
}

/// Why the daemon cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A task returned an error that its kind does not forgive.
    #[error("task `{task}` ended with an error: {error}")]
    Error {
        /// Name of the task.
        task: String,
        /// The error with its causes.
        error: String,
    },
    /// A task panicked.
    #[error("task `{task}` panicked: {message}")]
    Panic {
        /// Name of the task.
        task: String,
        /// What the panic said.
        message: String,
    },
}

/// A row of `/tasks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Name given at the start.
    pub name: String,
    /// Name of the kind.
    pub kind: &'static str,
    /// Whole seconds since the start.
    pub age_seconds: u64,
}

/// Ends one task early.
#[derive(Debug, Clone)]
pub struct TaskHandle(AbortHandle);

impl TaskHandle {
    /// Cuts the task off at its next wait. Never a fault of the task.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Whether the task is over.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// No tasks yet.
    #[must_use]
    pub fn new() -> Self {
        let shared = Shared {
            running: Mutex::new(BTreeMap::new()),
            next_id: AtomicU64::new(0),
            count: watch::Sender::new(0),
            failure: watch::Sender::new(None),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Starts `task` within the span of the caller.
    #[expect(clippy::disallowed_methods, reason = "the one place where tasks start")]
    pub fn spawn<F>(&self, kind: Kind, name: impl Into<Cow<'static, str>>, task: F) -> TaskHandle
    where
        F: Future + Send + 'static,
        F::Output: Outcome,
    {
        let entry = self.register(kind, name.into());
        let id = entry.id;
        let run = async move {
            let ended = AssertUnwindSafe(task).catch_unwind().await;
            match ended {
                Ok(outcome) => entry.settle(outcome.error()),
                Err(panic) => entry.panicked(&*panic),
            }
        };
        let abort = tokio::spawn(run.in_current_span()).abort_handle();
        if let Some(running) = self.shared.running.lock().get_mut(&id) {
            running.abort = Some(abort.clone());
        }
        TaskHandle(abort)
    }

    /// The running tasks, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Listed> {
        let running = self.shared.running.lock();
        let listed = |task: &Running| Listed {
            name: task.name.clone().into_owned(),
            kind: task.kind.name,
            age_seconds: task.since.elapsed().as_secs(),
        };
        running.values().map(listed).collect()
    }

    /// Ends when a task failed in a way that stops the daemon.
    pub async fn failed(&self) -> Failure {
        let mut failure = self.shared.failure.subscribe();
        let found = failure
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|found| found.clone());
        found.expect("the sender lives in `self`, and the value was checked to be there")
    }

    /// Aborts the tasks whose kind says so, and gives the others `limit` to end by themselves;
    /// they are to have seen the stop. Answers with the names of those that did not, now aborted.
    pub async fn close(&self, limit: Duration) -> Vec<String> {
        self.abort_where(|task| task.kind.on_cancel == OnCancel::Abort);
        let mut count = self.shared.count.subscribe();
        match tokio::time::timeout(limit, count.wait_for(|count| *count == 0)).await {
            Ok(_) => Vec::new(),
            Err(_elapsed) => self.abort_where(|_| true),
        }
    }

    fn abort_where(&self, which: impl Fn(&Running) -> bool) -> Vec<String> {
        let running = self.shared.running.lock();
        let mut names = Vec::new();
        for task in running.values().filter(|task| which(task)) {
            names.push(task.name.clone().into_owned());
            if let Some(abort) = &task.abort {
                abort.abort();
            }
        }
        names
    }

    fn register(&self, kind: Kind, name: Cow<'static, str>) -> Entry {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let task = Running {
            kind,
            name: name.clone(),
            since: Instant::now(),
            abort: None,
        };
        self.shared.running.lock().insert(id, task);
        self.shared.count.send_modify(|count| *count += 1);
        let running = Gauge::new(&TASKS_RUNNING, &[kind.name]);
        running.add(1.0);
        Entry {
            id,
            kind,
            name,
            running,
            shared: Arc::clone(&self.shared),
        }
    }
}

/// A task's place in the list; leaves it when the task ends in whatever way.
struct Entry {
    id: u64,
    kind: Kind,
    name: Cow<'static, str>,
    running: Gauge,
    shared: Arc<Shared>,
}

impl Entry {
    fn settle(&self, error: Option<String>) {
        let Some(error) = error else { return };
        Counter::new(&TASK_FAILURES, &[self.kind.name]).increment(1);
        let task = self.name.as_ref();
        match self.kind.on_error {
            OnError::StopDaemon => {
                tracing::error!(task, error, "task_failed");
                self.stop_daemon(Failure::Error {
                    task: task.to_owned(),
                    error,
                });
            },
            OnError::Log => tracing::warn!(task, error, "task_failed"),
        }
    }

    fn panicked(&self, panic: &(dyn std::any::Any + Send)) {
        Counter::new(&TASK_FAILURES, &[self.kind.name]).increment(1);
        let message = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned());
        let task = self.name.clone().into_owned();
        self.stop_daemon(Failure::Panic { task, message });
    }

    /// The first failure is the one that is told.
    fn stop_daemon(&self, failure: Failure) {
        self.shared.failure.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                *first = Some(failure);
            }
            is_first
        });
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.shared.running.lock().remove(&self.id);
        self.shared.count.send_modify(|count| *count -= 1);
        self.running.add(-1.0);
    }
}

#[cfg(test)]
mod tests;
