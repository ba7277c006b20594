//! What every part of the daemon needs: the store, the policies, the routers that live.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use hive_domain::dead_letter::status::Status;
use hive_domain::time::Timestamp;
use hive_runtime::{peers::Peers, tasks::Tasks};
use hive_store::{
    Store,
    letters::{Change, Letters},
};
use uuid::Uuid;

use crate::{routers::ROUTERS, settings::DeadLetters};

/// One daemon.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) store: Store,
    pub(crate) settings: DeadLetters,
    pub(crate) tasks: Tasks,
    pub(crate) routers: Peers,
    /// Names this process to the shards that it publishes to.
    incarnation: Arc<str>,
    flushes: AtomicU64,
}

impl Desk {
    pub(crate) fn new(store: Store, settings: DeadLetters, tasks: Tasks) -> Arc<Self> {
        Arc::new(Self {
            store,
            settings,
            tasks,
            routers: Peers::new(&ROUTERS),
            incarnation: format!("dlq-{}", Uuid::new_v4().simple()).into(),
            flushes: AtomicU64::new(0),
        })
    }

    /// Now, by the clock of Redis.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.store.now_ms())
    }

    /// The dead letters of a namespace.
    pub(crate) fn letters(&self, namespace: &str) -> Letters {
        self.store.letters(namespace)
    }

    /// Names the next flush of this process.
    pub(crate) fn next_flush(&self) -> (Arc<str>, u64) {
        let number = self
            .flushes
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1);
        (Arc::clone(&self.incarnation), number)
    }

    /// A line of a history.
    pub(crate) fn change(&self, status: Status, by: &str, why: impl Into<String>) -> Change {
        let mut why = why.into();
        why.truncate(why.floor_char_boundary(WHY_BYTES_MAX));
        Change {
            at_ms: self.now().as_millis(),
            status,
            by: by.to_owned(),
            why,
        }
    }
}

/// Longest reason in a history, in bytes.
const WHY_BYTES_MAX: usize = 1_024;
