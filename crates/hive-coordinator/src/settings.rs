//! The section `[recovery]`: how patient the coordinator is.

use std::time::Duration;

use hive_runtime::config::{Key, Problems, Settings, Spec, Values};

const CONSUMER_TTL: Key<Duration> = Key::duration(
    "recovery.consumer_ttl",
    "5m",
    (Duration::from_secs(1), Duration::from_secs(86_400)),
    "\"5m\"",
    "How long a consumer that fetches its messages stays a member of its group after its last call \
     and its last lease. Consumers with an open stream are members while it is open.",
);
const RETENTION_EVERY: Key<Duration> = Key::duration(
    "recovery.retention_interval",
    "10s",
    (Duration::from_millis(100), Duration::from_secs(3600)),
    "\"10s\"",
    "How often messages beyond their stream's retention are expired and deleted.",
);
const AUDIT_EVERY: Key<Duration> = Key::duration(
    "recovery.audit_interval",
    "30s",
    (Duration::from_millis(100), Duration::from_secs(3600)),
    "\"30s\"",
    "How often the auditor looks at each group for broken invariants, and repairs what it can.",
);
const LANE_IDLE: Key<Duration> = Key::duration(
    "recovery.lane_idle",
    "10m",
    // Gateways remember lanes for a second, and wait for Redis for three.
    (Duration::from_secs(10), Duration::from_secs(86_400)),
    "\"10m\"",
    "How long an empty lane of a set of required capabilities, or of direct messages to one \
     consumer, is kept after its last message. Its stream is removed so long after that.",
);

/// `[recovery]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// How long a silent pull consumer stays a member, in ms.
    pub consumer_ttl_ms: u64,
    /// Pause between two passes of retention.
    pub retention_every: Duration,
    /// Pause between two passes of the auditor.
    pub audit_every: Duration,
    /// How long an empty lane is kept after its last message, in ms.
    pub lane_idle_ms: u64,
}

impl Settings for Recovery {
    const KEYS: &'static [&'static Spec] = &[
        CONSUMER_TTL.spec(),
        RETENTION_EVERY.spec(),
        AUDIT_EVERY.spec(),
        LANE_IDLE.spec(),
    ];

    fn read(values: &Values, _problems: &mut Problems) -> Self {
        let consumer_ttl = values.get(&CONSUMER_TTL);
        let lane_idle = values.get(&LANE_IDLE);
        Self {
            consumer_ttl_ms: u64::try_from(consumer_ttl.as_millis()).unwrap_or(u64::MAX),
            retention_every: values.get(&RETENTION_EVERY),
            audit_every: values.get(&AUDIT_EVERY),
            lane_idle_ms: u64::try_from(lane_idle.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use hive_runtime::config::{Config, Inputs};

    use super::Recovery;

    #[test]
    fn a_lane_is_kept_for_longer_than_gateways_remember_it() {
        for (lane_idle, is_taken) in [("9s", false), ("10s", true)] {
            let env = ("HIVE_RECOVERY_LANE_IDLE".to_owned(), lane_idle.to_owned());
            let inputs = Inputs {
                env: [env].into_iter().collect(),
                ..Inputs::default()
            };
            let config = Config::<Recovery>::resolve("127.0.0.1:8000", &inputs);
            assert_eq!(config.is_ok(), is_taken, "{lane_idle}");
        }
    }
}
