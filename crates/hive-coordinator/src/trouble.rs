//! Says once what went wrong, and once that it is over: a loop that fails ten times a second must
//! not fill the log.

use std::collections::BTreeMap;
use std::time::Instant;

use hive_store::StoreError;
use parking_lot::Mutex;

use crate::metrics::{self, Loop};

/// What is wrong with the loops of one shard, as it was last said.
#[derive(Debug)]
pub(crate) struct Trouble {
    shard: String,
    said: Mutex<BTreeMap<Loop, String>>,
}

impl Trouble {
    pub(crate) fn new(shard: String) -> Self {
        Self {
            shard,
            said: Mutex::default(),
        }
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
            StoreError::Lost { .. } => {
                metrics::data_lost();
                if is_news {
                    tracing::error!(shard, "loop" = name, error = text, "data_lost");
                }
            },
            // The beat says that Redis is away, once for all shards.
            StoreError::Unavailable { .. } | StoreError::Unknown { .. } => {
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
}
