//! Options of all coordinators, and the settings of groups that they make from templates.

use serde::{Deserialize, Serialize};

use crate::{
    group::{GroupSettings, in_range},
    placement::agent::{Strategy, Template},
    scaling::{self, AllocationMode, ScalingPolicy},
    violation::{Violation, Violations},
    words::words,
};

/// Shortest time between two looks at the health of groups: 1 s.
pub const HEALTH_CHECK_INTERVAL_MS_MIN: u64 = 1_000;
/// Longest such time: 1 h.
pub const HEALTH_CHECK_INTERVAL_MS_MAX: u64 = 3_600_000;
/// Shortest time between two rebalances: 1 s.
pub const REBALANCE_INTERVAL_MS_MIN: u64 = 1_000;
/// Longest such time: 24 h.
pub const REBALANCE_INTERVAL_MS_MAX: u64 = 86_400_000;

/// How groups that are made from templates are scaled.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum ProvisioningPolicy {
    /// By the numbers of today.
    Reactive,
    /// By what the demand of the past lets expect.
    Predictive,
    /// By both.
    #[default]
    Hybrid,
}

words!(ProvisioningPolicy {
    Reactive => "reactive",
    Predictive => "predictive",
    Hybrid => "hybrid",
});

impl ProvisioningPolicy {
    /// The scaling strategy of groups that are made under it.
    #[must_use]
    pub const fn scaling(self) -> scaling::Strategy {
        match self {
            Self::Reactive => scaling::Strategy::Reactive,
            Self::Predictive => scaling::Strategy::Predictive,
            Self::Hybrid => scaling::Strategy::Hybrid,
        }
    }
}

/// Options of all coordinators, all of them set. As JSON, what is missing has its default and what
/// is unknown is passed over, so that older and newer coordinators read each other's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CoordinatorConfig {
    /// What placement goes by.
    pub strategy: Strategy,
    /// How groups that are made from templates are scaled.
    pub provisioning_policy: ProvisioningPolicy,
    /// Whether the group of a type with a template is made for a task that no group serves; else
    /// such a task is refused.
    pub provision_for_tasks: bool,
    /// How a ceiling that groups share is divided where they want more.
    pub allocation_mode: AllocationMode,
    /// Whether idle agents are offered to groups with a backlog that they can work on.
    pub enable_cross_group_coordination: bool,
    /// How often groups are looked at for imbalance and for work that nobody takes, 1 s to 1 h.
    pub health_check_interval_ms: u64,
    /// How often work is evened out in any case, 1 s to 24 h.
    pub rebalance_interval_ms: u64,
    /// Most consumers of all groups of all namespaces that are scaled; 0 for no limit.
    pub max_total_consumers: u32,
}

impl Default for CoordinatorConfig {
    fn default() -> Self {
        Self {
            strategy: Strategy::Hybrid,
            provisioning_policy: ProvisioningPolicy::Hybrid,
            provision_for_tasks: false,
            allocation_mode: AllocationMode::Adaptive,
            enable_cross_group_coordination: true,
            health_check_interval_ms: 30_000,
            rebalance_interval_ms: 300_000,
            max_total_consumers: 0,
        }
    }
}

impl CoordinatorConfig {
    /// Checks every range. Whether the ceiling is above what groups want at the least is said by
    /// [`check_ceiling`], which must know the groups.
    ///
    /// # Errors
    /// All violations. Durations are named as the wire names them, without their unit.
    pub fn validate(&self) -> Result<(), Violations> {
        let mut faults = Violations::new();
        let ranges = [
            (
                "health_check_interval",
                self.health_check_interval_ms,
                HEALTH_CHECK_INTERVAL_MS_MIN,
                HEALTH_CHECK_INTERVAL_MS_MAX,
            ),
            (
                "rebalance_interval",
                self.rebalance_interval_ms,
                REBALANCE_INTERVAL_MS_MIN,
                REBALANCE_INTERVAL_MS_MAX,
            ),
        ];
        for (field, value, min, max) in ranges {
            faults.take(in_range(field, value, min, max, " ms"));
        }
        faults.into_result()
    }
}

/// Checks that a ceiling, 0 for none, is not below the sum of the `min_consumers` of all groups
/// that are scaled.
///
/// # Errors
/// A violation of `max_total_consumers`.
pub fn check_ceiling(max_total: u32, sum_of_minima: u64) -> Result<(), Violation> {
    if max_total == 0 || u64::from(max_total) >= sum_of_minima {
        return Ok(());
    }
    Err(Violation::new(
        "max_total_consumers",
        format!(
            "`{max_total}` must be 0 for no limit or at least `{sum_of_minima}`, the sum of the \
             min_consumers of all groups that are scaled"
        ),
    ))
}

/// The settings of a group that is made from a template: the defaults, scaled by demand up to what
/// the template allows.
#[must_use]
pub fn provisioned(template: &Template, policy: ProvisioningPolicy) -> GroupSettings {
    GroupSettings {
        max_consumers: template.max_consumers,
        auto_scale_enabled: true,
        scaling: ScalingPolicy {
            strategy: policy.scaling(),
            ..ScalingPolicy::default()
        },
        ..GroupSettings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::agent::template;

    #[test]
    fn a_stored_config_of_another_version_is_read() {
        let older: CoordinatorConfig = serde_json::from_str("{}").unwrap();
        assert_eq!(older, CoordinatorConfig::default());
        let newer = r#"{"strategy":"workload_based","provisioning_policy":"reactive","moods":[1]}"#;
        let newer: CoordinatorConfig = serde_json::from_str(newer).unwrap();
        assert_eq!(newer.strategy, Strategy::WorkloadBased);
        assert_eq!(newer.provisioning_policy, ProvisioningPolicy::Reactive);
        let text = serde_json::to_string(&newer).unwrap();
        assert_eq!(
            serde_json::from_str::<CoordinatorConfig>(&text).unwrap(),
            newer
        );
    }

    #[test]
    fn all_violations_are_told_at_once() {
        assert_eq!(CoordinatorConfig::default().validate(), Ok(()));
        let config = CoordinatorConfig {
            health_check_interval_ms: 999,
            rebalance_interval_ms: 86_400_001,
            ..CoordinatorConfig::default()
        };
        assert_eq!(
            config.validate().unwrap_err().to_string(),
            "health_check_interval: `999 ms` must be between 1000 ms and 3600000 ms; \
             rebalance_interval: `86400001 ms` must be between 1000 ms and 86400000 ms"
        );
    }

    #[test]
    fn a_ceiling_below_the_sum_of_the_minima_is_refused() {
        assert_eq!(check_ceiling(0, u64::MAX), Ok(()));
        assert_eq!(check_ceiling(7, 7), Ok(()));
        let fault = check_ceiling(6, 7).unwrap_err();
        assert_eq!(fault.field, "max_total_consumers");
        assert!(fault.description.starts_with("`6` must be"), "{fault}");
    }

    #[test]
    fn a_group_of_a_template_is_scaled_as_the_policy_says() {
        let made = provisioned(&template("security"), ProvisioningPolicy::Predictive);
        assert_eq!((made.max_consumers, made.auto_scale_enabled), (4, true));
        assert_eq!(made.scaling.strategy, scaling::Strategy::Predictive);
        assert_eq!(made.validate(), Ok(()));
    }
}
