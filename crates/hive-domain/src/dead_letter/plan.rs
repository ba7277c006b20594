//! What a replay takes, how fast it goes, and when it stops by itself.
//!
//! A filter chooses, options bound, the loop guard refuses what failed the same way too often, the
//! budget keeps the rate, and the canary waits for the first few before the rest goes. Whether one
//! dead letter may be replayed at all is its status' affair, and checked again where it is stored.

use serde::{Deserialize, Serialize};

use super::{category::Category, recovery::range, status::Status};
use crate::{
    name,
    time::Timestamp,
    violation::{Violations, quoted},
};

/// Most messages of one replay.
pub const LIMIT_MAX: u32 = 100_000;
/// Most messages a second of one replay.
pub const RATE_MAX: u32 = 10_000;
/// Most messages that go ahead of the others.
pub const CANARY_MAX: u32 = 100;
/// Longest text of a filter's field, in bytes.
pub const FILTER_BYTES_MAX: usize = 256;
/// Highest priority of a message.
pub const PRIORITY_MAX: u8 = 9;
/// Replays of the same failure before a person must force another one.
pub const SAME_FAILURE_REPLAYS_MAX: u32 = 3;

/// Which dead letters are meant; what is empty or 0 matches all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Of this category.
    pub category: Option<Category>,
    /// Of this group.
    pub group: String,
    /// Of this stream.
    pub stream: String,
    /// In one of these states; empty for those that are open to a replay.
    pub status: Vec<Status>,
    /// With this fault.
    pub fingerprint: String,
    /// Of this message type.
    pub message_type: String,
    /// Of this run of a workflow.
    pub workflow_id: String,
    /// With this error type.
    pub error_type: String,
    /// Dead since this time, in ms since 1970.
    pub from_ms: u64,
    /// Dead before this time, in ms since 1970.
    pub to_ms: u64,
}

/// What a filter looks at in a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts<'a> {
    /// Its category.
    pub category: Category,
    /// The group that it died in.
    pub group: &'a str,
    /// Its stream.
    pub stream: &'a str,
    /// Its state.
    pub status: Status,
    /// Its fault.
    pub fingerprint: &'a str,
    /// Its message type.
    pub message_type: &'a str,
    /// Its run; empty for none.
    pub workflow_id: &'a str,
    /// The error type of its last attempt.
    pub error_type: &'a str,
    /// When it died, in ms since 1970.
    pub at_ms: u64,
}

impl Filter {
    /// Whether a dead letter is meant.
    #[must_use]
    pub fn matches(&self, facts: &Facts<'_>) -> bool {
        let is_in = |wanted: &str, given: &str| wanted.is_empty() || wanted == given;
        let is_wanted_status = if self.status.is_empty() {
            facts.status.is_open_to_replay()
        } else {
            self.status.contains(&facts.status)
        };
        is_wanted_status
            && self
                .category
                .is_none_or(|category| category == facts.category)
            && is_in(&self.group, facts.group)
            && is_in(&self.stream, facts.stream)
            && is_in(&self.fingerprint, facts.fingerprint)
            && is_in(&self.message_type, facts.message_type)
            && is_in(&self.workflow_id, facts.workflow_id)
            && is_in(&self.error_type, facts.error_type)
            && facts.at_ms >= self.from_ms
            && (self.to_ms == 0 || facts.at_ms < self.to_ms)
    }

    /// Checks the lengths and the order of the times.
    ///
    /// # Errors
    /// A violation for each field at fault.
    pub fn validate(&self) -> Result<(), Violations> {
        let mut violations = Violations::new();
        let texts = [
            ("group", &self.group),
            ("stream", &self.stream),
            ("fingerprint", &self.fingerprint),
            ("message_type", &self.message_type),
            ("workflow_id", &self.workflow_id),
            ("error_type", &self.error_type),
        ];
        for (field, text) in texts {
            if text.len() > FILTER_BYTES_MAX {
                let (text, len) = (quoted(text), text.len());
                violations.push(
                    field,
                    format!("{text} has {len} bytes and must have at most {FILTER_BYTES_MAX}"),
                );
            }
        }
        if self.to_ms != 0 && self.to_ms <= self.from_ms {
            let (to, from) = (self.to_ms, self.from_ms);
            violations.push(
                "to_ms",
                format!("`{to}` must be later than from_ms `{from}`"),
            );
        }
        violations.into_result()
    }
}

/// How a replay goes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Most messages, 0 to 100,000; 0 for all that match.
    pub limit: u32,
    /// Messages a second, 0 to 10,000; 0 for as fast as it goes.
    pub rate: u32,
    /// Messages that go ahead and must succeed before the rest goes, 0 to 100; 0 for none.
    pub canary: u32,
    /// The group that gets them; empty for their own.
    pub target_group: String,
    /// The stream that they go to; empty for their own.
    pub target_stream: String,
    /// Added to the priority, 0 to 9.
    pub priority_boost: u8,
    /// Whether the loop guard is passed over and what was replayed goes again.
    pub force: bool,
}

impl Options {
    /// Checks the ranges, the names, and that a canary leaves something to wait for it.
    ///
    /// # Errors
    /// A violation for each field at fault.
    pub fn validate(&self) -> Result<(), Violations> {
        let mut violations = Violations::new();
        range(&mut violations, "limit", self.limit, (0, LIMIT_MAX));
        range(&mut violations, "rate", self.rate, (0, RATE_MAX));
        range(&mut violations, "canary", self.canary, (0, CANARY_MAX));
        range(
            &mut violations,
            "priority_boost",
            self.priority_boost,
            (0, PRIORITY_MAX),
        );
        if self.limit > 0 && self.canary >= self.limit {
            let (canary, limit) = (self.canary, self.limit);
            violations.push(
                "canary",
                format!("`{canary}` must be less than the limit {limit}"),
            );
        }
        violations.take(name::check_optional("target_group", &self.target_group));
        violations.take(name::check_optional("target_stream", &self.target_stream));
        violations.into_result()
    }
}

/// The priority of a replay: raised by `boost`, never lowered, at most 9 unless it was higher.
#[must_use]
pub fn priority(original: u8, boost: u8) -> u8 {
    original
        .saturating_add(boost)
        .min(PRIORITY_MAX)
        .max(original)
}

/// A failure that came back after each of its replays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "replayed `{replays}` times and failed the same way each time: the next replay must be forced"
)]
pub struct LoopGuard {
    /// Replays of this failure so far.
    pub replays: u32,
}

/// Refuses a replay of what was replayed three times and failed the same way, unless forced.
///
/// # Errors
/// With the number of replays.
pub const fn guard(replays_of_this_failure: u32, forced: bool) -> Result<(), LoopGuard> {
    if forced || replays_of_this_failure < SAME_FAILURE_REPLAYS_MAX {
        Ok(())
    } else {
        Err(LoopGuard {
            replays: replays_of_this_failure,
        })
    }
}

/// What a replay may publish by now, in thousandths of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    millis: u64,
    at: Timestamp,
}

impl Budget {
    /// An empty one: the first message waits for its share of a second.
    #[must_use]
    pub const fn new(now: Timestamp) -> Self {
        Self { millis: 0, at: now }
    }

    /// Adds what came since the last look; at most what a second gives is saved, or one message.
    /// A clock that went back adds nothing.
    pub fn fill(&mut self, rate: u32, now: Timestamp) {
        let more = u64::from(rate).saturating_mul(now.since(self.at));
        let most = u64::from(rate).max(1).saturating_mul(1_000);
        self.millis = self.millis.saturating_add(more).min(most);
        self.at = self.at.max(now);
    }

    /// Whole messages that may go now; all of them where `rate` is 0.
    #[must_use]
    pub const fn messages(&self, rate: u32) -> u64 {
        if rate == 0 {
            u64::MAX
        } else {
            self.millis / 1_000
        }
    }

    /// Notes that so many went.
    pub const fn take(&mut self, messages: u64) {
        self.millis = self.millis.saturating_sub(messages.saturating_mul(1_000));
    }
}

/// The messages that go ahead of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Canary {
    /// How many go ahead; 0 for none.
    pub wanted: u32,
    /// How many went.
    pub sent: u32,
    /// How many of them were done.
    pub succeeded: u32,
    /// How many of them failed, or were not heard of in time.
    pub failed: u32,
}

/// What a replay with a canary does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// So many more go ahead.
    Send(u32),
    /// For their outcome.
    Wait,
    /// All of them succeeded: the rest goes.
    GoOn,
    /// One failed: nothing more goes.
    Stop {
        /// For people.
        why: String,
    },
}

impl Canary {
    /// What comes next. `is_exhausted` says that nothing more matches: then fewer are enough.
    #[must_use]
    pub fn next(&self, is_exhausted: bool) -> Next {
        if self.failed > 0 {
            let (failed, sent) = (self.failed, self.sent);
            return Next::Stop {
                why: format!("{failed} of {sent} messages that went ahead failed"),
            };
        }
        let missing = self.wanted.saturating_sub(self.sent);
        if missing > 0 && !is_exhausted {
            return Next::Send(missing);
        }
        if self.succeeded < self.sent {
            return Next::Wait;
        }
        Next::GoOn
    }
}

#[cfg(test)]
mod tests;
