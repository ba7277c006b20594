//! The section `[workflows]`.

use std::time::Duration;

use hive_runtime::config::{Key, Problems, Settings, Spec, Values};

const RETENTION: Key<Duration> = Key::duration(
    "workflows.retention",
    "24h",
    (Duration::from_secs(1), Duration::from_secs(31_536_000)),
    "\"24h\"",
    "How long a run is kept after it ended, with its results and its history.",
);
const PROVISION_TIMEOUT: Key<Duration> = Key::duration(
    "workflows.provision_timeout",
    "60s",
    (Duration::from_secs(1), Duration::from_secs(86_400)),
    "\"60s\"",
    "How long a task waits for a group that serves it, before it fails.",
);
const DURABILITY: Key<String> = Key::choice(
    "workflows.durability",
    "memory",
    &["memory", "local"],
    "\"local\"",
    "When a submit and every step of a run is answered: `memory` once Redis has it, `local` once \
     it is on the disk of Redis.",
);

/// `[workflows]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workflows {
    /// How long a run is kept after it ended, in ms.
    pub retention_ms: u64,
    /// How long a task waits for a group, in ms.
    pub provision_timeout_ms: u64,
    /// Whether a step is on disk before it is answered.
    pub durable: bool,
}

impl Settings for Workflows {
    const KEYS: &'static [&'static Spec] = &[
        RETENTION.spec(),
        PROVISION_TIMEOUT.spec(),
        DURABILITY.spec(),
    ];

    fn read(values: &Values, _problems: &mut Problems) -> Self {
        let millis = |key| {
            let duration: Duration = values.get(key);
            u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
        };
        Self {
            retention_ms: millis(&RETENTION),
            provision_timeout_ms: millis(&PROVISION_TIMEOUT),
            durable: values.get(&DURABILITY) == "local",
        }
    }
}
