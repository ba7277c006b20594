//! The drain gate: counts work that must not be cut off, and names what keeps a daemon waiting.
//!
//! Whoever works holds a [`Pass`]. At shutdown the chassis waits until all are given back; after
//! 100 ms it names the late ones in the log, each in the span in which it entered, because "waiting
//! for 3 requests" helps nobody. The gate never refuses entry: which calls are new work, and which
//! end old work, only the daemon knows.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::Span;

/// Work that ends within this time after the shutdown began is not late: most calls are shorter.
pub(crate) const LATE_AFTER: Duration = Duration::from_millis(100);

/// Most late ones that are named; beyond it they are only counted.
const NAMED_MAX: usize = 20;

/// Counts work that runs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    inside: Mutex<Inside>,
    empty: Notify,
}

#[derive(Debug, Default)]
struct Inside {
    next_id: u64,
    work: BTreeMap<u64, Work>,
}

#[derive(Debug)]
struct Work {
    name: Cow<'static, str>,
    since: Instant,
    span: Span,
}

/// Keeps the daemon from stopping until it is dropped.
#[derive(Debug)]
#[must_use = "work is only waited for while its pass lives"]
pub struct Pass {
    id: u64,
    gate: Gate,
}

impl Gate {
    /// A gate with nothing inside.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Announces work under a name that tells an operator what it is.
    pub fn enter(&self, name: impl Into<Cow<'static, str>>) -> Pass {
        let mut inside = self.shared.inside.lock();
        let id = inside.next_id;
        inside.next_id += 1;
        let work = Work {
            name: name.into(),
            since: Instant::now(),
            span: Span::current(),
        };
        inside.work.insert(id, work);
        Pass {
            id,
            gate: self.clone(),
        }
    }

    /// Names of the work that runs, longest first.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let inside = self.shared.inside.lock();
        inside
            .work
            .values()
            .map(|work| work.name.clone().into_owned())
            .collect()
    }

    /// Ends when nothing is inside.
    pub async fn emptied(&self) {
        loop {
            let mut empty = std::pin::pin!(self.shared.empty.notified());
            empty.as_mut().enable();
            if self.shared.inside.lock().work.is_empty() {
                return;
            }
            empty.await;
        }
    }

    /// Waits up to `grace` until nothing is inside, naming what is late after [`LATE_AFTER`].
    /// Answers with what was left inside.
    pub(crate) async fn close(&self, grace: Duration) -> Vec<String> {
        let quick = LATE_AFTER.min(grace);
        if tokio::time::timeout(quick, self.emptied()).await.is_ok() {
            return Vec::new();
        }
        self.log_late();
        match tokio::time::timeout(grace.saturating_sub(quick), self.emptied()).await {
            Ok(()) => Vec::new(),
            Err(_elapsed) => self.names(),
        }
    }

    fn log_late(&self) {
        let inside = self.shared.inside.lock();
        for work in inside.work.values().take(NAMED_MAX) {
            let running_ms = u64::try_from(work.since.elapsed().as_millis()).unwrap_or(u64::MAX);
            work.span.in_scope(|| {
                tracing::warn!(work = work.name.as_ref(), running_ms, "drain_waits");
            });
        }
        let more = inside.work.len().saturating_sub(NAMED_MAX);
        if more > 0 {
            tracing::warn!(more, "drain_waits_for_more");
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let is_empty = {
            let mut inside = self.gate.shared.inside.lock();
            inside.work.remove(&self.id);
            inside.work.is_empty()
        };
        if is_empty {
            self.gate.shared.empty.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_empty_gate_closes_at_once() {
        assert!(Gate::new().close(Duration::from_secs(5)).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_outlives_the_grace_is_named() {
        let gate = Gate::new();
        let _pass = gate.enter("settle of group a");
        let started = tokio::time::Instant::now();
        let late = gate.close(Duration::from_secs(5)).await;
        assert_eq!(late, ["settle of group a"]);
        assert_eq!(started.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_gate_closes_when_the_last_pass_is_given_back() {
        let gate = Gate::new();
        let first = gate.enter("a");
        let second = gate.enter("b");
        drop(first);
        let close = gate.close(Duration::from_secs(5));
        let give_back = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(second);
        };
        let (late, ()) = tokio::join!(close, give_back);
        assert!(late.is_empty());
    }
}
