//! The sections `[recovery]`, how patient the coordinator is, `[scaling]`, what executors may do,
//! and `[coordination]`, how agents are placed and work is evened out until somebody stores other
//! options.

use std::path::PathBuf;
use std::time::Duration;

use hive_domain::coordination::CoordinatorConfig;
use hive_runtime::config::{Key, Problems, Secret, Settings, Spec, Values};

use crate::executors::webhook::{self, Allowed};

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
const WEBHOOK_URLS: Key<Vec<String>> = Key::urls(
    "scaling.webhook_urls",
    &["https://", "http://"],
    "[\"https://hooks.example.org/scale\"]",
    "Where webhooks of scaling may go: the target of a group must lie under one of these URLs. \
     Without any no webhook is sent. In the environment with commas between them.",
);
const WEBHOOK_SECRET_FILE: Key<Option<PathBuf>> = Key::file(
    "scaling.webhook_secret_file",
    "\"/run/secrets/webhook\"",
    "File that holds the secret by which webhooks are signed: `whsec_` and 24 to 64 random bytes \
     in base64. Without it no webhook is sent.",
);

const STRATEGY: Key<String> = Key::choice(
    "coordination.strategy",
    "hybrid",
    &[
        "agent_type_based",
        "capability_based",
        "workload_based",
        "hybrid",
    ],
    "\"hybrid\"",
    "What placement of agents goes by. This and the other keys of this section hold until options \
     are stored by PUT /consumer-groups/coordinator/config.",
);
const PROVISIONING: Key<String> = Key::choice(
    "coordination.provisioning_policy",
    "hybrid",
    &["reactive", "predictive", "hybrid"],
    "\"hybrid\"",
    "How groups that are made from templates are scaled.",
);
const FOR_TASKS: Key<bool> = Key::flag(
    "coordination.provision_for_tasks",
    false,
    "Whether the group of a type with a template is made for a task that no group serves; else \
     such a task is refused.",
);
const ALLOCATION: Key<String> = Key::choice(
    "coordination.allocation_mode",
    "adaptive",
    &["equal", "weighted", "adaptive", "performance_based"],
    "\"adaptive\"",
    "How max_total_consumers is divided when groups want more.",
);
const CROSS_GROUP: Key<bool> = Key::flag(
    "coordination.enable_cross_group_coordination",
    true,
    "Whether idle agents that take offers are offered to groups with a backlog that they can work \
     on.",
);
const HEALTH_CHECK: Key<Duration> = Key::duration(
    "coordination.health_check_interval",
    "30s",
    (Duration::from_secs(1), Duration::from_secs(3_600)),
    "\"30s\"",
    "How often groups are looked at for work that lies unevenly, and for backlogs that idle agents \
     of other groups could work on.",
);
const REBALANCE: Key<Duration> = Key::duration(
    "coordination.rebalance_interval",
    "300s",
    (Duration::from_secs(1), Duration::from_secs(86_400)),
    "\"300s\"",
    "How often work is evened out whether or not it looks uneven.",
);
const MAX_TOTAL: Key<u32> = Key::count(
    "coordination.max_total_consumers",
    0,
    (0, 10_000_000),
    "200",
    "Most consumers wanted by all scaled groups of all namespaces together; 0 for no limit.",
);

/// The coordinator's own sections.
#[derive(Debug, Clone)]
pub struct Options {
    /// `[recovery]`.
    pub recovery: Recovery,
    /// `[scaling]`.
    pub scaling: Scaling,
    /// `[coordination]`.
    pub coordination: CoordinatorConfig,
}

impl Settings for Options {
    const KEYS: &'static [&'static Spec] = &[
        CONSUMER_TTL.spec(),
        RETENTION_EVERY.spec(),
        AUDIT_EVERY.spec(),
        LANE_IDLE.spec(),
        WEBHOOK_URLS.spec(),
        WEBHOOK_SECRET_FILE.spec(),
        STRATEGY.spec(),
        PROVISIONING.spec(),
        FOR_TASKS.spec(),
        ALLOCATION.spec(),
        CROSS_GROUP.spec(),
        HEALTH_CHECK.spec(),
        REBALANCE.spec(),
        MAX_TOTAL.spec(),
    ];

    fn read(values: &Values, problems: &mut Problems) -> Self {
        Self {
            recovery: Recovery::read(values),
            scaling: Scaling::read(values, problems),
            coordination: coordination(values),
        }
    }
}

/// `[coordination]`. The words are those of the choices: others were refused.
fn coordination(values: &Values) -> CoordinatorConfig {
    let millis = |key| {
        let duration: Duration = values.get(key);
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
    };
    CoordinatorConfig {
        strategy: values.get(&STRATEGY).parse().unwrap_or_default(),
        provisioning_policy: values.get(&PROVISIONING).parse().unwrap_or_default(),
        provision_for_tasks: values.get(&FOR_TASKS),
        allocation_mode: values.get(&ALLOCATION).parse().unwrap_or_default(),
        enable_cross_group_coordination: values.get(&CROSS_GROUP),
        health_check_interval_ms: millis(&HEALTH_CHECK),
        rebalance_interval_ms: millis(&REBALANCE),
        max_total_consumers: values.get(&MAX_TOTAL),
    }
}

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

impl Recovery {
    fn read(values: &Values) -> Self {
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

/// `[scaling]`.
#[derive(Debug, Clone)]
pub struct Scaling {
    /// Where webhooks may go, and how they are signed.
    pub webhook: webhook::Settings,
}

impl Scaling {
    fn read(values: &Values, problems: &mut Problems) -> Self {
        let mut urls = Vec::new();
        for url in values.get(&WEBHOOK_URLS) {
            match Allowed::parse(&url) {
                Ok(allowed) => urls.push(allowed),
                Err(rule) => values.refuse(&WEBHOOK_URLS, format!("`{url}` {rule}"), problems),
            }
        }
        let key = values.get(&WEBHOOK_SECRET_FILE).and_then(|path| {
            Secret::of_file(&path)
                .and_then(|secret| webhook::Key::parse(secret.expose()))
                .map_err(|rule| values.refuse(&WEBHOOK_SECRET_FILE, rule, problems))
                .ok()
        });
        let webhook = webhook::Settings {
            urls,
            key,
            ..webhook::Settings::default()
        };
        Self { webhook }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use hive_runtime::config::{Config, Inputs};

    use super::Options;

    /// What is wrong with these variables, or the configuration.
    fn resolve(env: &[(&str, &str)]) -> Result<Config<Options>, String> {
        let env = env.iter();
        let env = env.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let inputs = Inputs {
            env: env.collect(),
            ..Inputs::default()
        };
        Config::resolve("127.0.0.1:8000", &inputs).map_err(|refused| refused.0.to_string())
    }

    #[test]
    fn a_lane_is_kept_for_longer_than_gateways_remember_it() {
        for (lane_idle, is_taken) in [("9s", false), ("10s", true)] {
            let config = resolve(&[("HIVE_RECOVERY_LANE_IDLE", lane_idle)]);
            assert_eq!(config.is_ok(), is_taken, "{lane_idle}");
        }
    }

    #[test]
    fn webhooks_go_nowhere_until_they_are_allowed_and_signed() {
        let webhook = resolve(&[]).unwrap().own.scaling.webhook;
        assert!(webhook.urls.is_empty() && webhook.key.is_none());
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let path = file.path().display().to_string();
        let config = resolve(&[
            (
                "HIVE_SCALING_WEBHOOK_URLS",
                "https://a.example/b,http://c.example",
            ),
            ("HIVE_SCALING_WEBHOOK_SECRET_FILE", &path),
        ]);
        let config = config.unwrap();
        assert!(!format!("{config:?}{}", config.values.render()).contains("MfKQ9"));
        let webhook = config.own.scaling.webhook;
        assert!(webhook.urls.len() == 2 && webhook.key.is_some());
    }

    #[test]
    fn a_secret_that_is_none_and_a_url_that_is_no_place_are_problems() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "hunter2").unwrap();
        let path = file.path().display().to_string();
        let problems = resolve(&[("HIVE_SCALING_WEBHOOK_SECRET_FILE", &path)]).unwrap_err();
        assert!(problems.contains("must hold `whsec_`"), "{problems}");
        assert!(!problems.contains("hunter2"), "{problems}");
        let missing = [("HIVE_SCALING_WEBHOOK_SECRET_FILE", "/nowhere/secret")];
        let problems = resolve(&missing).unwrap_err();
        assert!(problems.contains("must be readable"), "{problems}");
        let urls = [(
            "HIVE_SCALING_WEBHOOK_URLS",
            "https://a.example/..,https://b.example?c",
        )];
        let problems = resolve(&urls).unwrap_err();
        assert!(problems.contains("must have a path without"), "{problems}");
        assert!(problems.contains("must have no query"), "{problems}");
    }
}
