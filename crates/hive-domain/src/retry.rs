//! How often and how soon a failed message is tried again.
//!
//! The backoff is the first one, doubled by each further failure up to the longest, with full
//! jitter: messages that failed together do not come back together. The script that settles
//! computes it, because it alone knows how often an entry failed; the jitter is given to it as a
//! hash of the delivery, so a replay of the same history gives the same delays.

use serde::{Deserialize, Serialize};

/// How often and how soon a failed message is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Attempts before the message is dead, 1 to 1,000.
    pub max_attempts: u32,
    /// Longest wait after the first failure, 0 to 1 h, in milliseconds.
    pub initial_backoff_ms: u64,
    /// Longest wait after any failure, 0 to 24 h, in milliseconds.
    pub max_backoff_ms: u64,
}
