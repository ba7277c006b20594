//! How a group is scaled: part of its settings.

use serde::{Deserialize, Serialize};

use crate::{
    group::{MAX_CONSUMERS_MAX, differs, in_range},
    violation::{Violation, Violations, quoted},
    words::words,
};

/// Longest duration of a scaling policy: 1 h.
pub const SCALE_MS_MAX: u64 = 3_600_000;
/// Shortest time within which a backlog is to be worked off: 1 s.
pub const DRAIN_TARGET_MS_MIN: u64 = 1_000;
/// Most consumers added or removed by one step, where that is limited.
pub const STEP_MAX: u32 = MAX_CONSUMERS_MAX;
/// Largest weight of a group.
pub const WEIGHT_MAX: u32 = 1_000;
/// Longest target of an executor.
pub const TARGET_BYTES_MAX: usize = 1_024;
/// Longest name of a Kubernetes object (RFC 1123 subdomain).
const OBJECT_BYTES_MAX: usize = 253;

/// On which numbers more or fewer consumers are wanted.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// On today's.
    Reactive,
    /// On those forecast for when a worker started now would be ready.
    Predictive,
    /// On the larger of both.
    #[default]
    Hybrid,
}

words!(Strategy {
    Reactive => "reactive",
    Predictive => "predictive",
    Hybrid => "hybrid",
});

/// Who starts and stops consumers.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Executor {
    /// Nobody of ours: the wish is published.
    #[default]
    None,
    /// KEDA, which asks the coordinator.
    Keda,
    /// The coordinator, by the scale subresource of a Deployment.
    Kubernetes,
    /// Worker processes of `hive dev --scale`.
    Process,
    /// A signed POST to a URL.
    Webhook,
}

words!(Executor {
    None => "none",
    Keda => "keda",
    Kubernetes => "kubernetes",
    Process => "process",
    Webhook => "webhook",
});

/// How consumers of a group are added and removed, all of it set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScalingPolicy {
    /// On which numbers.
    pub strategy: Strategy,
    /// Within which time a backlog is to be worked off, 1 s to 1 h.
    pub drain_target_ms: u64,
    /// How long a worker takes from its start until it works, 0 to 1 h: how far the forecast looks.
    pub startup_time_ms: u64,
    /// More are wanted once that held for so long, 0 to 1 h.
    pub scale_up_window_ms: u64,
    /// Fewer are wanted once that held for so long, 0 to 1 h.
    pub scale_down_window_ms: u64,
    /// Pause between two steps up, 0 to 1 h.
    pub scale_up_cooldown_ms: u64,
    /// Pause between two steps down, 0 to 1 h.
    pub scale_down_cooldown_ms: u64,
    /// Most consumers added by one step; 0 for no limit.
    pub scale_up_step: u32,
    /// Most consumers removed by one step; 0 for no limit.
    pub scale_down_step: u32,
    /// Share of a ceiling that groups share, 1 to 1,000.
    pub weight: u32,
    /// Who starts and stops consumers.
    pub executor: Executor,
    /// What the executor acts on: `namespace/deployment` for `kubernetes`, a URL for `webhook`,
    /// else empty.
    pub target: String,
}

impl Default for ScalingPolicy {
    fn default() -> Self {
        Self {
            strategy: Strategy::Hybrid,
            drain_target_ms: 10_000,
            startup_time_ms: 10_000,
            scale_up_window_ms: 0,
            scale_down_window_ms: 300_000,
            scale_up_cooldown_ms: 0,
            scale_down_cooldown_ms: 15_000,
            scale_up_step: 0,
            scale_down_step: 0,
            weight: 100,
            executor: Executor::None,
            target: String::new(),
        }
    }
}

impl ScalingPolicy {
    /// Checks every range and the rules between fields.
    ///
    /// # Errors
    /// All violations. Durations are named as the wire names them, without their unit.
    pub fn validate(&self) -> Result<(), Violations> {
        let mut faults = Violations::new();
        let (least, most) = (DRAIN_TARGET_MS_MIN, SCALE_MS_MAX);
        faults.take(in_range(
            "drain_target",
            self.drain_target_ms,
            least,
            most,
            " ms",
        ));
        let durations = [
            ("startup_time", self.startup_time_ms),
            ("scale_up_window", self.scale_up_window_ms),
            ("scale_down_window", self.scale_down_window_ms),
            ("scale_up_cooldown", self.scale_up_cooldown_ms),
            ("scale_down_cooldown", self.scale_down_cooldown_ms),
        ];
        for (field, value) in durations {
            faults.take(in_range(field, value, 0, SCALE_MS_MAX, " ms"));
        }
        let counts = [
            ("scale_up_step", self.scale_up_step, 0, STEP_MAX),
            ("scale_down_step", self.scale_down_step, 0, STEP_MAX),
            ("weight", self.weight, 1, WEIGHT_MAX),
        ];
        for (field, value, min, max) in counts {
            faults.take(in_range(field, value.into(), min, max.into(), ""));
        }
        faults.take(check_target(self.executor, &self.target));
        faults.into_result()
    }

    /// Each thing in which `asked` differs from this policy, in words with both values.
    #[must_use]
    pub fn difference(&self, asked: &Self) -> Vec<String> {
        // Destructured, so that a new setting does not compile until it is compared.
        let Self {
            strategy,
            drain_target_ms,
            startup_time_ms,
            scale_up_window_ms,
            scale_down_window_ms,
            scale_up_cooldown_ms,
            scale_down_cooldown_ms,
            scale_up_step,
            scale_down_step,
            weight,
            executor,
            target,
        } = self;
        let millis = [
            ("drain_target_ms", drain_target_ms, asked.drain_target_ms),
            ("startup_time_ms", startup_time_ms, asked.startup_time_ms),
            (
                "scale_up_window_ms",
                scale_up_window_ms,
                asked.scale_up_window_ms,
            ),
            (
                "scale_down_window_ms",
                scale_down_window_ms,
                asked.scale_down_window_ms,
            ),
            (
                "scale_up_cooldown_ms",
                scale_up_cooldown_ms,
                asked.scale_up_cooldown_ms,
            ),
            (
                "scale_down_cooldown_ms",
                scale_down_cooldown_ms,
                asked.scale_down_cooldown_ms,
            ),
        ];
        let counts = [
            ("scale_up_step", scale_up_step, asked.scale_up_step),
            ("scale_down_step", scale_down_step, asked.scale_down_step),
            ("weight", weight, asked.weight),
        ];
        let mut words: Vec<String> = differs("scaling.strategy", strategy, &asked.strategy)
            .into_iter()
            .collect();
        for (name, is, asked) in millis {
            words.extend(differs(&format!("scaling.{name}"), is, &asked));
        }
        for (name, is, asked) in counts {
            words.extend(differs(&format!("scaling.{name}"), is, &asked));
        }
        words.extend(differs("scaling.executor", executor, &asked.executor));
        words.extend(differs("scaling.target", target, &asked.target));
        words
    }
}

/// Checks that a target is what its executor acts on.
fn check_target(executor: Executor, target: &str) -> Result<(), Violation> {
    let wrong = |rule: &str| {
        let shown = quoted(target);
        Err(Violation::new(
            "target",
            format!("{shown} {rule} for the executor `{executor}`"),
        ))
    };
    if target.len() > TARGET_BYTES_MAX {
        return wrong("must be at most 1 KiB");
    }
    match executor {
        Executor::None | Executor::Keda | Executor::Process if target.is_empty() => Ok(()),
        Executor::None | Executor::Keda | Executor::Process => wrong("must be empty"),
        Executor::Kubernetes => {
            let parts = target.split_once('/');
            let is_named =
                parts.is_some_and(|(space, name)| is_object(space, 63) && is_object(name, 253));
            if is_named {
                Ok(())
            } else {
                wrong("must be `namespace/deployment`")
            }
        },
        Executor::Webhook => {
            let rest = target
                .strip_prefix("https://")
                .or_else(|| target.strip_prefix("http://"));
            let is_url = rest.is_some_and(|rest| {
                let is_plain = |c: char| c.is_ascii_graphic() && c != '@' && c != '#';
                !rest.is_empty() && !rest.starts_with('/') && rest.chars().all(is_plain)
            });
            if is_url {
                Ok(())
            } else {
                wrong("must be an `http://` or `https://` URL without user and fragment")
            }
        },
    }
}

/// Whether Kubernetes takes it as the name of an object.
fn is_object(name: &str, bytes_max: usize) -> bool {
    let is_edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= bytes_max.min(OBJECT_BYTES_MAX)
        && name.starts_with(is_edge)
        && name.ends_with(is_edge)
        && name.chars().all(|c| is_edge(c) || c == '-' || c == '.')
}

#[cfg(test)]
mod tests {
    use super::{Executor, ScalingPolicy};

    #[test]
    fn the_default_policy_is_valid() {
        assert_eq!(ScalingPolicy::default().validate().ok(), Some(()));
    }

    #[test]
    fn a_target_must_be_what_its_executor_acts_on() {
        let rows = [
            (Executor::None, "", true),
            (Executor::None, "x", false),
            (Executor::Keda, "ns/agents", false),
            (Executor::Kubernetes, "ns/agents", true),
            (Executor::Kubernetes, "agents", false),
            (Executor::Kubernetes, "ns/Agents", false),
            (Executor::Kubernetes, "ns/a/b", false),
            (Executor::Webhook, "https://scale.example/hook?x=1", true),
            (Executor::Webhook, "http://127.0.0.1:80", true),
            (Executor::Webhook, "ftp://scale.example", false),
            (Executor::Webhook, "https://user@scale.example", false),
            (Executor::Webhook, "https:///hook", false),
        ];
        for (executor, target, is_taken) in rows {
            let policy = ScalingPolicy {
                executor,
                target: target.to_owned(),
                ..ScalingPolicy::default()
            };
            assert_eq!(policy.validate().is_ok(), is_taken, "{executor} {target}");
        }
    }

    #[test]
    fn all_violations_are_told_at_once() {
        let policy = ScalingPolicy {
            drain_target_ms: 0,
            scale_down_window_ms: 3_600_001,
            weight: 0,
            executor: Executor::Kubernetes,
            ..ScalingPolicy::default()
        };
        let faults = policy.validate().unwrap_err();
        let fields: Vec<String> = faults.into_iter().map(|fault| fault.field).collect();
        assert_eq!(
            fields,
            ["drain_target", "scale_down_window", "weight", "target"]
        );
    }
}
