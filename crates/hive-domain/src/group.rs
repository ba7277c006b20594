//! What a consumer group is: its definition, its settings and their ranges.
//!
//! Settings are plain numbers in milliseconds, all of them always set: what a caller left out is
//! filled in at the door, so nothing further in asks whether a field is there.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    retry::RetryPolicy,
    scaling::ScalingPolicy,
    time::Timestamp,
    violation::{Violation, Violations},
    words::words,
};

/// Most consumers that a group may allow.
pub const MAX_CONSUMERS_MAX: u32 = 10_000;
/// Longest lease: 24 h. Longer tasks keep theirs by heartbeats.
pub const LEASE_MS_MAX: u64 = 86_400_000;
/// Shortest lease: 1 s, below which a pause of any process would end it.
pub const LEASE_MS_MIN: u64 = 1_000;
/// Most attempts that a policy may allow.
pub const MAX_ATTEMPTS_MAX: u32 = 1_000;
/// Longest first backoff: 1 h.
pub const INITIAL_BACKOFF_MS_MAX: u64 = 3_600_000;
/// Longest backoff: 24 h.
pub const MAX_BACKOFF_MS_MAX: u64 = 86_400_000;
/// Shortest priority ageing: 1 s.
pub const PRIORITY_AGEING_MS_MIN: u64 = 1_000;
/// Longest priority ageing: 24 h.
pub const PRIORITY_AGEING_MS_MAX: u64 = 86_400_000;
/// Longest time that a lost connection may take to come back: 300 s.
pub const RECONNECT_GRACE_MS_MAX: u64 = 300_000;
/// Shortest time without progress after which a delivery counts as hung: 1 s.
pub const PROGRESS_TIMEOUT_MS_MIN: u64 = 1_000;
/// Longest such time: 24 h.
pub const PROGRESS_TIMEOUT_MS_MAX: u64 = 86_400_000;
/// How long a task is held for the consumer that last worked on its run: 2 s.
pub const AFFINITY_WAIT_MS: u64 = 2_000;

/// Who gets the next message.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum RoutingMode {
    /// The consumer with the largest free share of its capacity.
    #[default]
    LoadBalanced,
    /// In turn.
    RoundRobin,
    /// As load balanced; messages strictly by priority, then age, without ageing.
    PriorityBased,
    /// The most specialised capable consumer that is free.
    CapabilityMatched,
    /// A task of a workflow: the consumer that last worked on its run, if it has room within
    /// [`AFFINITY_WAIT_MS`]; all else as load balanced.
    WorkflowAware,
}

words!(RoutingMode {
    LoadBalanced => "load_balanced",
    RoundRobin => "round_robin",
    PriorityBased => "priority_based",
    CapabilityMatched => "capability_matched",
    WorkflowAware => "workflow_aware",
});

impl RoutingMode {
    /// How long a task waits for the consumer that last worked on its run, in ms; 0 where it does
    /// not.
    #[must_use]
    pub const fn affinity_wait_ms(self) -> u64 {
        match self {
            Self::WorkflowAware => AFFINITY_WAIT_MS,
            Self::LoadBalanced
            | Self::RoundRobin
            | Self::PriorityBased
            | Self::CapabilityMatched => 0,
        }
    }
}

/// Where a new group starts to read its stream.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At the oldest retained message.
    #[default]
    Earliest,
    /// At the messages published after its creation.
    Latest,
}

words!(Start {
    Earliest => "earliest",
    Latest => "latest",
});

/// What becomes of an ordering key whose message dies of its failures.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum OrderingOnDead {
    /// Its next message is delivered.
    #[default]
    Continue,
    /// Its later messages wait until an operator lets the key go on.
    Block,
}

words!(OrderingOnDead {
    Continue => "continue",
    Block => "block",
});

/// Where a group is in its life.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum GroupState {
    /// Defined; its Redis groups are being made. A coordinator finishes it after a crash.
    #[default]
    Creating,
    /// Delivers.
    Active,
    /// Delivers nothing; publishes and settles go on.
    Paused,
    /// Being taken apart. A coordinator finishes it after a crash.
    Deleting,
}

words!(GroupState {
    Creating => "creating",
    Active => "active",
    Paused => "paused",
    Deleting => "deleting",
});

/// Settings of a group, all of them set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupSettings {
    /// Most consumers, 1 to 10,000.
    pub max_consumers: u32,
    /// Fewest consumers wanted, 0 to `max_consumers`.
    pub min_consumers: u32,
    /// Whether consumers are added and removed by demand.
    pub auto_scale_enabled: bool,
    /// Waiting messages per consumer beyond which more are wanted, at least 1.
    pub lag_threshold: u32,
    /// Who gets the next message.
    pub routing_mode: RoutingMode,
    /// How long a delivery stays a consumer's without a heartbeat, 1 s to 24 h.
    pub lease_ms: u64,
    /// Attempts before a message is dead, 1 to 1,000.
    pub max_attempts: u32,
    /// First backoff after a failure, 0 to 1 h.
    pub initial_backoff_ms: u64,
    /// Longest backoff, 0 to 24 h, at least `initial_backoff_ms`.
    pub max_backoff_ms: u64,
    /// A lane not served for this long counts one priority more, 1 s to 24 h.
    pub priority_ageing_ms: u64,
    /// How long a lost connection may take to come back, 0 to 300 s.
    pub reconnect_grace_ms: u64,
    /// Most deliveries one consumer may hold; 0 for no limit beyond its own.
    pub max_in_flight_per_consumer: u32,
    /// Most deliveries the whole group may hold; 0 for no limit.
    pub max_in_flight: u32,
    /// What becomes of an ordering key whose message dies of its failures.
    pub ordering_on_dead: OrderingOnDead,
    /// How consumers are added and removed where `auto_scale_enabled` is set.
    pub scaling: ScalingPolicy,
    /// A delivery that was begun and of which nothing is heard but heartbeats for so long counts as
    /// hung, 1 s to 24 h; 0 for no limit.
    pub progress_timeout_ms: u64,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            max_consumers: 10,
            min_consumers: 1,
            auto_scale_enabled: false,
            lag_threshold: 100,
            routing_mode: RoutingMode::LoadBalanced,
            lease_ms: 30_000,
            max_attempts: 3,
            initial_backoff_ms: 1_000,
            max_backoff_ms: 60_000,
            priority_ageing_ms: 30_000,
            reconnect_grace_ms: 3_000,
            max_in_flight_per_consumer: 0,
            max_in_flight: 0,
            ordering_on_dead: OrderingOnDead::Continue,
            scaling: ScalingPolicy::default(),
            progress_timeout_ms: 0,
        }
    }
}

impl GroupSettings {
    /// How often to send a heartbeat: a third of the lease, so that two may be lost.
    #[must_use]
    pub const fn heartbeat_ms(&self) -> u64 {
        self.lease_ms / 3
    }

    /// Ageing of priorities in ms; 0 where they are strict.
    #[must_use]
    pub const fn ageing_ms(&self) -> u64 {
        match self.routing_mode {
            RoutingMode::PriorityBased => 0,
            RoutingMode::LoadBalanced
            | RoutingMode::RoundRobin
            | RoutingMode::CapabilityMatched
            | RoutingMode::WorkflowAware => self.priority_ageing_ms,
        }
    }

    /// The retry policy of messages that bring none.
    #[must_use]
    pub const fn retry(&self) -> RetryPolicy {
        RetryPolicy {
            max_attempts: self.max_attempts,
            initial_backoff_ms: self.initial_backoff_ms,
            max_backoff_ms: self.max_backoff_ms,
        }
    }

    /// Checks every range and the rules between fields.
    ///
    /// # Errors
    /// All violations. Durations are named as the wire names them, without their unit.
    pub fn validate(&self) -> Result<(), Violations> {
        let mut faults = Violations::new();
        let count = |n: u32| u64::from(n);
        let ranges = [
            (
                "max_consumers",
                count(self.max_consumers),
                1,
                count(MAX_CONSUMERS_MAX),
                "",
            ),
            (
                "lag_threshold",
                count(self.lag_threshold),
                1,
                u64::from(u32::MAX),
                "",
            ),
            ("lease", self.lease_ms, LEASE_MS_MIN, LEASE_MS_MAX, " ms"),
            (
                "max_attempts",
                count(self.max_attempts),
                1,
                count(MAX_ATTEMPTS_MAX),
                "",
            ),
            (
                "initial_backoff",
                self.initial_backoff_ms,
                0,
                INITIAL_BACKOFF_MS_MAX,
                " ms",
            ),
            (
                "max_backoff",
                self.max_backoff_ms,
                0,
                MAX_BACKOFF_MS_MAX,
                " ms",
            ),
            (
                "priority_ageing",
                self.priority_ageing_ms,
                PRIORITY_AGEING_MS_MIN,
                PRIORITY_AGEING_MS_MAX,
                " ms",
            ),
            (
                "reconnect_grace",
                self.reconnect_grace_ms,
                0,
                RECONNECT_GRACE_MS_MAX,
                " ms",
            ),
        ];
        for (field, value, min, max, unit) in ranges {
            faults.take(in_range(field, value, min, max, unit));
        }
        if self.progress_timeout_ms > 0 {
            let (least, most) = (PROGRESS_TIMEOUT_MS_MIN, PROGRESS_TIMEOUT_MS_MAX);
            let given = self.progress_timeout_ms;
            faults.take(in_range("progress_timeout", given, least, most, " ms"));
        }
        if let Err(inner) = self.scaling.validate() {
            faults.nest("scaling", inner);
        }
        if self.min_consumers > self.max_consumers {
            let (min, max) = (self.min_consumers, self.max_consumers);
            faults.push(
                "min_consumers",
                format!("`{min}` must be between 0 and max_consumers `{max}`"),
            );
        }
        if self.initial_backoff_ms > self.max_backoff_ms {
            let (initial, max) = (self.initial_backoff_ms, self.max_backoff_ms);
            faults.push(
                "max_backoff",
                format!("`{max} ms` must be at least initial_backoff `{initial} ms`"),
            );
        }
        faults.into_result()
    }

    /// Each setting in which `asked` differs from these, in words with both values. Empty when
    /// they are the same.
    #[must_use]
    pub fn difference(&self, asked: &Self) -> Vec<String> {
        // Destructured, so that a new setting does not compile until it is compared.
        let Self {
            max_consumers,
            min_consumers,
            auto_scale_enabled,
            lag_threshold,
            routing_mode,
            lease_ms,
            max_attempts,
            initial_backoff_ms,
            max_backoff_ms,
            priority_ageing_ms,
            reconnect_grace_ms,
            max_in_flight_per_consumer,
            max_in_flight,
            ordering_on_dead,
            scaling,
            progress_timeout_ms,
        } = self;
        let mut words: Vec<String> = [
            differs("max_consumers", max_consumers, &asked.max_consumers),
            differs("min_consumers", min_consumers, &asked.min_consumers),
            differs(
                "auto_scale_enabled",
                auto_scale_enabled,
                &asked.auto_scale_enabled,
            ),
            differs("lag_threshold", lag_threshold, &asked.lag_threshold),
            differs("routing_mode", routing_mode, &asked.routing_mode),
            differs("lease_ms", lease_ms, &asked.lease_ms),
            differs("max_attempts", max_attempts, &asked.max_attempts),
            differs(
                "initial_backoff_ms",
                initial_backoff_ms,
                &asked.initial_backoff_ms,
            ),
            differs("max_backoff_ms", max_backoff_ms, &asked.max_backoff_ms),
            differs(
                "priority_ageing_ms",
                priority_ageing_ms,
                &asked.priority_ageing_ms,
            ),
            differs(
                "reconnect_grace_ms",
                reconnect_grace_ms,
                &asked.reconnect_grace_ms,
            ),
            differs(
                "max_in_flight_per_consumer",
                max_in_flight_per_consumer,
                &asked.max_in_flight_per_consumer,
            ),
            differs("max_in_flight", max_in_flight, &asked.max_in_flight),
            differs(
                "ordering_on_dead",
                ordering_on_dead,
                &asked.ordering_on_dead,
            ),
            differs(
                "progress_timeout_ms",
                progress_timeout_ms,
                &asked.progress_timeout_ms,
            ),
        ]
        .into_iter()
        .flatten()
        .collect();
        words.extend(scaling.difference(&asked.scaling));
        words
    }
}

/// What a group is: one consumer group on one stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDefinition {
    /// Its name, unique in the namespace.
    pub name: String,
    /// The stream it reads. Never changes.
    pub stream: String,
    /// What its agents are. Never changes.
    pub agent_type: String,
    /// Shards of its stream. Never changes.
    pub shards: u32,
    /// Where it started to read. Never changes.
    pub start: Start,
    /// Where it is in its life.
    pub state: GroupState,
    /// When it was created.
    pub created_at: Timestamp,
    /// Counts its changes, from 1.
    pub version: u64,
    /// Its settings.
    pub settings: GroupSettings,
}

impl GroupDefinition {
    /// Whether its deliveries are stopped.
    #[must_use]
    pub const fn is_paused(&self) -> bool {
        matches!(self.state, GroupState::Paused)
    }

    /// Each thing in which `asked` differs from this group, in words with both values: what a
    /// second creation of the same name would change. State, age and version do not count.
    #[must_use]
    pub fn difference(&self, asked: &Self) -> Vec<String> {
        let mut words: Vec<String> = [
            differs("stream_name", &self.stream, &asked.stream),
            differs("agent_type", &self.agent_type, &asked.agent_type),
            differs("shards", &self.shards, &asked.shards),
            differs("start", &self.start, &asked.start),
        ]
        .into_iter()
        .flatten()
        .collect();
        words.extend(self.settings.difference(&asked.settings));
        words
    }
}

/// Words for a setting that is `is` and was asked to be `asked`; none when they are equal.
pub(crate) fn differs<T: PartialEq + fmt::Display>(
    setting: &str,
    is: &T,
    asked: &T,
) -> Option<String> {
    (is != asked).then(|| format!("{setting} is `{is}`, asked for `{asked}`"))
}

/// Checks that `value` is within `min` and `max`; `unit` follows each number, e.g. ` ms`.
pub(crate) fn in_range(
    field: &str,
    value: u64,
    min: u64,
    max: u64,
    unit: &str,
) -> Result<(), Violation> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(Violation::new(
        field,
        format!("`{value}{unit}` must be between {min}{unit} and {max}{unit}"),
    ))
}

#[cfg(test)]
mod tests;
