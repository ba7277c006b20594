//! The section `[dead_letters]`, and the policy file that it names.

use std::{path::PathBuf, time::Duration};

use hive_domain::{
    dead_letter::{
        breaker,
        classify::{RuleSpec, Rules},
        recovery::Policy,
    },
    violation::Violations,
};
use hive_runtime::config::{Key, Problem, Problems, Settings, Spec, Values};
use hive_store::letters::Bounds;
use serde::Deserialize;

/// The times of death are summed in a number of 64 bits, which has room for these until 2043.
const RECORDS_MOST: u32 = 4_000_000;
const RECORDS_MAX: Key<u32> = Key::count(
    "dead_letters.records_max",
    100_000,
    (100, RECORDS_MOST),
    "1000000",
    "Most dead letters of a namespace. Beyond it the oldest that were archived or replayed go \
     first; where all are in the queue nothing more is taken in until a person acts: none is lost, \
     they wait in their shards.",
);
const BYTES_MAX: Key<u64> = Key::size(
    "dead_letters.bytes_max",
    "1GiB",
    (1 << 20, 1 << 40),
    "\"4GiB\"",
    "Most bytes of Redis' memory that the dead letters of a namespace take; as records_max.",
);
const MAX_AGE: Key<Duration> = Key::duration(
    "dead_letters.max_age",
    "7d",
    (Duration::from_secs(60), Duration::from_secs(31_536_000)),
    "\"30d\"",
    "How long a dead letter is kept. Older ones are archived, where an archive is configured, and \
     removed.",
);
const ARCHIVE_DIR: Key<Option<String>> = Key::optional_text(
    "dead_letters.archive_dir",
    "\"/var/lib/hive/dead-letters\"",
    "Directory for dead letters that are cleaned up or purged: one file a batch, lines of JSON, \
     compressed by gzip. Without it they are removed for good.",
);
const POLICY_FILE: Key<Option<PathBuf>> = Key::file(
    "dead_letters.policy_file",
    "\"/etc/hive/dead-letters.toml\"",
    "TOML file with rules of classification that come before the built-in ones, strategies of \
     recovery and the settings of circuit breakers: see docs/dead-letters.md.",
);

/// `[dead_letters]`.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    /// How much is kept of a namespace.
    pub bounds: Bounds,
    /// How long, in ms.
    pub max_age_ms: u64,
    /// Where what is cleaned up goes.
    pub archive_dir: Option<PathBuf>,
    /// What is decided how.
    pub policies: Policies,
}

/// What is decided how.
#[derive(Debug, Clone)]
pub struct Policies {
    /// What goes back by itself, and when.
    pub recovery: Policy,
    /// When a breaker opens, and for how long.
    pub breaker: breaker::Settings,
    /// Whether a group is paused while its breaker is open.
    pub pause_groups: bool,
    /// What kind of failure one is.
    pub rules: Rules,
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            recovery: Policy::default(),
            breaker: breaker::Settings::default(),
            pause_groups: false,
            rules: Rules::built_in(),
        }
    }
}

/// The policy file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PolicyFile {
    recovery: Policy,
    breaker: breaker::Settings,
    pause_groups: bool,
    rule: Vec<RuleSpec>,
}

impl Policies {
    /// Reads and checks a policy file.
    ///
    /// # Errors
    /// For people: what is wrong with it, all at once.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut file: PolicyFile = toml::from_str(text).map_err(|error| error.to_string())?;
        // What it does not name stays as it is.
        let mut strategies = Policy::default().strategies;
        strategies.append(&mut file.recovery.strategies);
        file.recovery.strategies = strategies;
        let mut faults = Violations::new();
        let parts = [
            ("recovery", file.recovery.validate()),
            ("breaker", file.breaker.validate()),
        ];
        for (section, checked) in parts {
            for one in checked.err().into_iter().flatten() {
                faults.push(format!("{section}.{}", one.field), one.description);
            }
        }
        let rules = match Rules::with(file.rule) {
            Ok(rules) => rules,
            Err(violations) => {
                for one in violations {
                    faults.push(one.field, one.description);
                }
                Rules::built_in()
            },
        };
        faults.into_result().map_err(|faults| faults.to_string())?;
        Ok(Self {
            recovery: file.recovery,
            breaker: file.breaker,
            pause_groups: file.pause_groups,
            rules,
        })
    }
}

impl Settings for DeadLetters {
    const KEYS: &'static [&'static Spec] = &[
        RECORDS_MAX.spec(),
        BYTES_MAX.spec(),
        MAX_AGE.spec(),
        ARCHIVE_DIR.spec(),
        POLICY_FILE.spec(),
    ];

    fn read(values: &Values, problems: &mut Problems) -> Self {
        let age: Duration = values.get(&MAX_AGE);
        let file: Option<PathBuf> = values.get(&POLICY_FILE);
        let policies = match &file {
            None => Policies::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
                text.and_then(|text| Policies::parse(&text))
                    .unwrap_or_else(|why| {
                        problems.push(Problem {
                            key: POLICY_FILE.path().to_owned(),
                            given: Some(path.display().to_string()),
                            rule: format!("must be a policy that is right: {why}"),
                            example: "\"/etc/hive/dead-letters.toml\"".to_owned(),
                        });
                        Policies::default()
                    })
            },
        };
        Self {
            bounds: Bounds {
                records: u64::from(values.get(&RECORDS_MAX)),
                bytes: values.get(&BYTES_MAX),
            },
            max_age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            archive_dir: values.get(&ARCHIVE_DIR).map(PathBuf::from),
            policies,
        }
    }
}
