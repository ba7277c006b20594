//! Says once what went wrong, and once that it is over: a loop that fails ten times a second must
//! not fill the log.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use hive_store::StoreError;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::metrics::{self, Loop};

/// What is wrong with the loops of one shard, as it was last said.
#[derive(Debug)]
pub(crate) struct Trouble {
    shard: String,
    said: Mutex<BTreeMap<Loop, String>>,
    lost: Mutex<BTreeSet<String>>,
    news: Notify,
}

/// Losses that are remembered so as to be told once; more of them need no more telling.
const LOSSES_MAX: usize = 1_000;

impl Trouble {
    pub(crate) fn new(shard: String) -> Self {
        Self {
            shard,
            said: Mutex::default(),
            lost: Mutex::default(),
            news: Notify::new(),
        }
    }

    /// Waits for a loss that was not told before.
    pub(crate) async fn has_lost(&self) {
        self.news.notified().await;
    }

    /// Notes how a round ended; true when it went well.
    pub(crate) fn note(&self, which: Loop, began: Instant, end: Result<(), StoreError>) -> bool {
        metrics::round(which, began.elapsed());
        let (shard, name) = (self.shard.as_str(), which.as_str());
        let Err(error) = end else {
            if self.said.lock().remove(&which).is_some() {
                tracing::info!(shard, "loop" = name, "loop_resumed");
            }
            return true;
        };
        metrics::round_failed(which);
        let text = error.to_string();
        let is_news = self.said.lock().insert(which, text.clone()).as_ref() != Some(&text);
        match error {
            StoreError::Lost { .. } => self.lose(text),
            // The beat says that Redis is away or another, once for all shards.
            StoreError::Unavailable { .. }
            | StoreError::Unknown { .. }
            | StoreError::Dataset { .. } => {
                tracing::debug!(shard, "loop" = name, error = text, "redis_away");
            },
            StoreError::Full
            | StoreError::Durability { .. }
            | StoreError::Corrupt { .. }
            | StoreError::Refused { .. } => {
                if is_news {
                    tracing::error!(shard, "loop" = name, error = text, "loop_failed");
                }
            },
        }
        false
    }

    /// Tells and counts, once each, that data is gone which must be there.
    pub(crate) fn lose(&self, what: String) {
        let mut lost = self.lost.lock();
        if lost.len() < LOSSES_MAX && !lost.contains(&what) {
            metrics::data_lost();
            tracing::error!(shard = self.shard, error = what, "data_lost");
            lost.insert(what);
            self.news.notify_one();
        }
    }
}
