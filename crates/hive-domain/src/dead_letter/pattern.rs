//! What many dead letters have in common: bursts, one fault, one consumer, one service.
//!
//! Each pattern says what it saw in numbers and what to do about it, for people. Nothing acts on a
//! pattern. The order is fixed, the worst first, so that two looks at the same facts say the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{category::Category, status::Status};
use crate::{time::Timestamp, words::words};

mod find;
mod host;
mod say;

pub use self::{host::upstream, say::recommendations};

/// Most patterns of one look.
pub const PATTERNS_MAX: usize = 20;
/// Most examples of one pattern.
pub const EXAMPLES_MAX: usize = 5;

/// A dead letter, as far as patterns look at it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// Its id.
    pub dlq_id: String,
    /// When it died, in ms since 1970.
    pub at_ms: u64,
    /// The group that it died in.
    pub group: String,
    /// Its stream.
    pub stream: String,
    /// Its category.
    pub category: Category,
    /// Its fault.
    pub fingerprint: String,
    /// The consumer of its last attempt; empty for none.
    pub consumer: String,
    /// Its message type; empty for none.
    pub message_type: String,
    /// The upstream host in its text; empty for none. See [`upstream`].
    pub host: String,
}

/// What a group did besides, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupTotals {
    /// Handled messages by consumer, dead ones included.
    pub by_consumer: BTreeMap<String, u64>,
    /// Handled messages by message type, dead ones included.
    pub by_message_type: BTreeMap<String, u64>,
}

/// What happened to a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A new version of its agents.
    Deploy,
    /// More or fewer of them.
    Scale,
    /// A consumer came.
    Join,
}

words!(EventKind {
    Deploy => "deploy",
    Scale => "scale",
    Join => "join",
});

/// Something that happened to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When, in ms since 1970.
    pub at_ms: u64,
    /// Of what kind.
    pub kind: EventKind,
    /// To which group.
    pub group: String,
    /// What exactly, for people; may be empty.
    pub what: String,
}

/// What is known besides the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// How far back the dead letters go, in ms; the words name it.
    pub span_ms: u64,
    /// By group.
    pub totals: BTreeMap<String, GroupTotals>,
    /// In any order.
    pub events: Vec<Event>,
    /// Fewest dead letters of a group that make a pattern.
    pub min_count: u64,
}

impl Default for Context {
    fn default() -> Self {
        Self {
            span_ms: 3_600_000,
            totals: BTreeMap::new(),
            events: Vec::new(),
            min_count: 5,
        }
    }
}

/// What kind of pattern it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PatternKind {
    /// They began after a deploy, a change of scale or a join.
    AfterEvent,
    /// They name one service.
    OneUpstream,
    /// They come from one consumer.
    OneConsumer,
    /// They are of one message type.
    OneMessageType,
    /// They have one fault.
    OneFingerprint,
    /// They came within a short time.
    Burst,
}

words!(PatternKind {
    AfterEvent => "after_event",
    OneUpstream => "one_upstream",
    OneConsumer => "one_consumer",
    OneMessageType => "one_message_type",
    OneFingerprint => "one_fingerprint",
    Burst => "burst",
});

/// What dead letters of one group have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pattern {
    /// What kind it is.
    pub kind: PatternKind,
    /// The group.
    pub group: String,
    /// What they have in common: the consumer, type, host, fault or event; empty for a burst.
    pub key: String,
    /// The numbers, for people.
    pub evidence: String,
    /// What to do, for people.
    pub recommendation: String,
    /// Share of the group's dead letters, 0 to 1.
    pub share: f64,
    /// How many dead letters have it.
    pub count: u64,
    /// Of how many of the group.
    pub of: u64,
    /// When the first of them died, in ms since 1970.
    pub first_ms: u64,
    /// When the last of them died, in ms since 1970.
    pub last_ms: u64,
    /// Some of them, oldest first.
    pub examples: Vec<String>,
}

/// What a queue holds, for recommendations.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stats {
    /// Dead letters by category.
    pub by_category: BTreeMap<Category, u64>,
    /// Dead letters by status.
    pub by_status: BTreeMap<Status, u64>,
    /// What `detect` found.
    pub patterns: Vec<Pattern>,
}

/// Finds what the dead letters of each group have in common; the worst first, at most 20.
#[must_use]
pub fn detect(facts: &[Seen], context: &Context, now: Timestamp) -> Vec<Pattern> {
    let mut groups: BTreeMap<&str, Vec<&Seen>> = BTreeMap::new();
    let from = now.minus(context.span_ms).as_millis();
    for seen in facts.iter().filter(|seen| seen.at_ms >= from) {
        groups.entry(&seen.group).or_default().push(seen);
    }
    let mut found = Vec::new();
    for (group, mut seen) in groups {
        seen.sort_by(|a, b| (a.at_ms, &a.dlq_id).cmp(&(b.at_ms, &b.dlq_id)));
        found.extend(find::of_group(group, &seen, context, now));
    }
    found.sort_by(|a: &Pattern, b: &Pattern| {
        let key = |p: &Pattern| {
            (
                std::cmp::Reverse(p.count),
                p.kind,
                p.group.clone(),
                p.key.clone(),
            )
        };
        key(a).cmp(&key(b))
    });
    found.truncate(PATTERNS_MAX);
    found
}

#[cfg(test)]
mod tests;
