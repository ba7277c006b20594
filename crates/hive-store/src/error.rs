//! Why an operation on Redis did not succeed, by what the caller can do about it.

use std::time::Duration;

use hive_protocol::fault::{Fault, Reason};
use redis::RedisError;

/// What a refused caller is told to wait: a restart of Redis takes about so long.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What callers are told while Redis holds other data than was known.
const DATASET_CHANGED: &str = "redis no longer holds the data that this system knew; nothing is \
    done until the data is back or an operator accepts the loss: hive doctor --accept-loss";

/// Why an operation on Redis did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Nothing was done: Redis is away, loading, failing over or busy. Repeating is safe.
    #[error("redis is not available: {detail}")]
    Unavailable {
        /// What Redis or the connection said.
        detail: String,
    },
    /// The command was sent and no answer came: it may or may not have been done.
    #[error("redis did not answer: {detail}")]
    Unknown {
        /// What the connection said.
        detail: String,
    },
    /// Redis is at its memory limit and refuses new work. Nothing was done.
    #[error("redis is at its memory limit")]
    Full,
    /// The durability asked for cannot be reached by this server. Nothing was done.
    #[error("the durability cannot be reached: {detail}")]
    Durability {
        /// What is missing.
        detail: String,
    },
    /// Stored bytes are not what this build writes.
    #[error("stored data does not decode: {what}")]
    Corrupt {
        /// Which key or field, and how.
        what: String,
    },
    /// Data that must be there is gone.
    #[error("data is gone: {what}")]
    Lost {
        /// Which key.
        what: String,
    },
    /// Redis holds other data than this process knew. Nothing was sent.
    #[error("redis holds other data than this process knew: {detail}")]
    Dataset {
        /// How it shows.
        detail: String,
    },
    /// Redis refused the command for another reason: a fault of this system or its set-up.
    #[error("redis refused: {detail}")]
    Refused {
        /// What Redis said.
        detail: String,
    },
}

/// What an error answer of Redis means; the one table of error classes.
///
/// `None` for codes that are not in it: those are refusals.
fn class(code: &str, detail: &str) -> Option<StoreError> {
    let detail = format!("{code} {detail}");
    match code {
        "OOM" => Some(StoreError::Full),
        // Nothing ran: the server is starting, failing over, moving slots, read-only or cannot
        // write.
        "LOADING" | "MASTERDOWN" | "READONLY" | "CLUSTERDOWN" | "TRYAGAIN" | "MOVED" | "ASK"
        | "BUSY" | "MISCONF" | "NOREPLICAS" | "NOSCRIPT" => {
            Some(StoreError::Unavailable { detail })
        },
        "NOGROUP" => Some(StoreError::Lost { what: detail }),
        _ => None,
    }
}

impl StoreError {
    /// The error of a command that was sent on a live connection.
    #[must_use]
    pub fn of_command(error: &RedisError) -> Self {
        let detail = error.detail().unwrap_or_default().to_owned();
        if let Some(found) = error.code().and_then(|code| class(code, &detail)) {
            return found;
        }
        // An error inside a script may carry the code in its text.
        if detail.contains("OOM command not allowed") {
            return Self::Full;
        }
        if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() {
            return Self::Unknown {
                detail: error.to_string(),
            };
        }
        Self::Refused {
            detail: error.to_string(),
        }
    }

    /// A reply of a shape that the script cannot give.
    #[must_use]
    pub fn reply(script: &str) -> Self {
        Self::Corrupt {
            what: format!("reply of script `{script}`"),
        }
    }

    /// Whether nothing was done, so that anybody may repeat the call.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// Whether an idempotent call may be repeated.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Unknown { .. })
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        let detail = error.to_string();
        let fault = match error {
            StoreError::Unavailable { .. } => Self::new(
                Reason::RedisUnavailable,
                "redis is not available; repeating is safe",
            )
            .with_retry_after(RETRY_AFTER),
            StoreError::Unknown { .. } => Self::new(
                Reason::OutcomeUnknown,
                "redis did not answer: it may have been done",
            ),
            StoreError::Full => Self::new(
                Reason::RedisFull,
                "redis is at its memory limit and takes no new work",
            )
            .with_retry_after(RETRY_AFTER),
            StoreError::Durability { .. } => Self::new(
                Reason::DurabilityUnreachable,
                "the stream's durability cannot be reached",
            )
            .with_retry_after(RETRY_AFTER),
            StoreError::Corrupt { .. } => Self::new(Reason::Corrupt, "stored data does not decode"),
            StoreError::Lost { .. } => Self::new(Reason::DataLoss, "data in redis is gone"),
            StoreError::Dataset { .. } => {
                Self::new(Reason::DatasetChanged, DATASET_CHANGED).with_retry_after(RETRY_AFTER)
            },
            StoreError::Refused { .. } => Self::new(Reason::Bug, "redis refused a command"),
        };
        fault.with_detail(detail)
    }
}
