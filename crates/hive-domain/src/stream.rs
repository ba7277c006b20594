//! What a stream is: its definition, its limits and their ranges.

use serde::{Deserialize, Serialize};

use crate::{
    group::{differs, in_range},
    time::Timestamp,
    violation::Violations,
    words::words,
};

/// Largest number that a limit may be: 2^53 - 1. Scripts count in doubles.
pub const COUNT_MAX: u64 = 9_007_199_254_740_991;
/// Longest retention: 3,650 days. What is wanted for longer belongs into an archive.
pub const RETENTION_MAX_AGE_MS_MAX: u64 = 315_360_000_000;

/// How reliably a stream keeps what it accepted.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Redis has it in memory; its own persistence decides what a crash loses.
    #[default]
    Memory,
    /// On the disk of the primary before it is acknowledged.
    Local,
}

words!(Durability {
    Memory => "memory",
    Local => "local",
});

/// Limits of a stream, all of them set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamSettings {
    /// Most unsettled messages, at least 1.
    pub max_backlog: u64,
    /// Most bytes of unsettled messages, with their envelopes, at least 1. The message that passes
    /// it is taken still: what is over is one message at most.
    pub max_backlog_bytes: u64,
    /// How long messages are kept, 0 to 3,650 days: then settled ones are deleted, and unsettled
    /// ones that nobody holds are dead letters. 0 keeps no settled one, and ends no other.
    pub retention_max_age_ms: u64,
    /// How many messages a shard keeps, of all its lanes. 0 keeps no settled one.
    pub retention_max_len: u64,
    /// How many bytes of messages a shard keeps, of all its lanes. 0 keeps no settled one.
    pub retention_max_bytes: u64,
    /// When a publish or a settle is acknowledged.
    pub durability: Durability,
    /// Takes messages while it has no group, for the groups to come.
    pub buffer_without_groups: bool,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            max_backlog: 1_000_000,
            max_backlog_bytes: 1 << 30,
            retention_max_age_ms: 86_400_000,
            retention_max_len: 1_000_000,
            retention_max_bytes: 256 << 20,
            durability: Durability::Memory,
            buffer_without_groups: false,
        }
    }
}

impl StreamSettings {
    /// Whether a settled message is kept at all, for replay. Where it is not, settling deletes it.
    #[must_use]
    pub const fn keeps_settled(&self) -> bool {
        self.retention_max_age_ms > 0 && self.retention_max_len > 0 && self.retention_max_bytes > 0
    }

    /// Checks every range.
    ///
    /// # Errors
    /// All violations. Durations are named as the wire names them, without their unit.
    pub fn validate(&self) -> Result<(), Violations> {
        let mut faults = Violations::new();
        let ranges = [
            ("max_backlog", self.max_backlog, 1, COUNT_MAX, ""),
            (
                "max_backlog_bytes",
                self.max_backlog_bytes,
                1,
                COUNT_MAX,
                "",
            ),
            (
                "retention_max_age",
                self.retention_max_age_ms,
                0,
                RETENTION_MAX_AGE_MS_MAX,
                " ms",
            ),
            (
                "retention_max_len",
                self.retention_max_len,
                0,
                COUNT_MAX,
                "",
            ),
            (
                "retention_max_bytes",
                self.retention_max_bytes,
                0,
                COUNT_MAX,
                "",
            ),
        ];
        for (field, value, min, max, unit) in ranges {
            faults.take(in_range(field, value, min, max, unit));
        }
        faults.into_result()
    }

    /// Each limit in which `asked` differs from these, in words with both values.
    #[must_use]
    pub fn difference(&self, asked: &Self) -> Vec<String> {
        // Destructured, so that a new limit does not compile until it is compared.
        let Self {
            max_backlog,
            max_backlog_bytes,
            retention_max_age_ms,
            retention_max_len,
            retention_max_bytes,
            durability,
            buffer_without_groups,
        } = self;
        [
            differs("max_backlog", max_backlog, &asked.max_backlog),
            differs(
                "max_backlog_bytes",
                max_backlog_bytes,
                &asked.max_backlog_bytes,
            ),
            differs(
                "retention_max_age_ms",
                retention_max_age_ms,
                &asked.retention_max_age_ms,
            ),
            differs(
                "retention_max_len",
                retention_max_len,
                &asked.retention_max_len,
            ),
            differs(
                "retention_max_bytes",
                retention_max_bytes,
                &asked.retention_max_bytes,
            ),
            differs("durability", durability, &asked.durability),
            differs(
                "buffer_without_groups",
                buffer_without_groups,
                &asked.buffer_without_groups,
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// What a stream is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamDefinition {
    /// Its name, unique in the namespace.
    pub name: String,
    /// Number of shards. Never changes.
    pub shards: u32,
    /// When it was created.
    pub created_at: Timestamp,
    /// Counts its changes, from 1.
    pub version: u64,
    /// Its limits.
    pub settings: StreamSettings,
}

impl StreamDefinition {
    /// Each thing in which `asked` differs from this stream, in words with both values. Age and
    /// version do not count.
    #[must_use]
    pub fn difference(&self, asked: &Self) -> Vec<String> {
        let mut words: Vec<String> = differs("shards", &self.shards, &asked.shards)
            .into_iter()
            .collect();
        words.extend(self.settings.difference(&asked.settings));
        words
    }
}

#[cfg(test)]
mod tests {
    use super::{Durability, StreamDefinition, StreamSettings};
    use crate::time::Timestamp;

    fn definition() -> StreamDefinition {
        StreamDefinition {
            name: "work".to_owned(),
            shards: 1,
            created_at: Timestamp(0),
            version: 1,
            settings: StreamSettings::default(),
        }
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(StreamSettings::default().validate(), Ok(()));
    }

    #[test]
    fn every_limit_out_of_range_is_reported_at_once() {
        let settings = StreamSettings {
            max_backlog: 0,
            max_backlog_bytes: 0,
            retention_max_age_ms: u64::MAX,
            retention_max_len: 1 << 53,
            retention_max_bytes: 1 << 53,
            ..StreamSettings::default()
        };
        let faults = settings.validate().unwrap_err();
        let fields: Vec<&str> = faults.as_slice().iter().map(|v| v.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "max_backlog",
                "max_backlog_bytes",
                "retention_max_age",
                "retention_max_len",
                "retention_max_bytes"
            ]
        );
    }

    #[test]
    fn a_retention_of_nothing_by_any_limit_keeps_no_settled_message() {
        let kept = StreamSettings::default();
        assert!(kept.keeps_settled());
        for none in [
            StreamSettings {
                retention_max_age_ms: 0,
                ..kept.clone()
            },
            StreamSettings {
                retention_max_len: 0,
                ..kept.clone()
            },
            StreamSettings {
                retention_max_bytes: 0,
                ..kept
            },
        ] {
            assert!(!none.keeps_settled());
        }
    }

    #[test]
    fn a_difference_names_each_limit_with_both_values() {
        let mut asked = definition();
        asked.shards = 2;
        asked.version = 3;
        asked.settings.durability = Durability::Local;
        assert_eq!(
            definition().difference(&asked),
            [
                "shards is `1`, asked for `2`",
                "durability is `memory`, asked for `local`"
            ]
        );
    }

    #[test]
    fn every_word_parses_to_what_it_names() {
        for level in Durability::ALL {
            assert_eq!(level.as_str().parse(), Ok(level));
            assert_eq!(serde_json::to_value(level).unwrap(), level.as_str());
        }
        assert!("replicated".parse::<Durability>().is_err());
    }
}
