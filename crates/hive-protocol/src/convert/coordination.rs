//! The options of coordinators, of the wire and back.

use hive_domain::{
    coordination::{
        CoordinatorConfig, HEALTH_CHECK_INTERVAL_MS_MAX, ProvisioningPolicy,
        REBALANCE_INTERVAL_MS_MAX,
    },
    placement::agent::Strategy,
    scaling::AllocationMode,
    violation::Violations,
};

use super::finish;
use crate::{time, wire};

/// The options of coordinators after the change that a request asks for; unset fields stay.
/// Whether the ceiling is above what groups want at the least is not checked here.
///
/// # Errors
/// All violations, their fields below `config`.
pub fn update_coordinator_config(
    base: &CoordinatorConfig,
    change: Option<&wire::CoordinatorConfig>,
) -> Result<CoordinatorConfig, Violations> {
    apply(base, change).map_err(|inner| {
        let mut placed = Violations::new();
        placed.nest("config", inner);
        placed
    })
}

/// `base` with every set field of `change` in place, checked as a whole.
fn apply(
    base: &CoordinatorConfig,
    change: Option<&wire::CoordinatorConfig>,
) -> Result<CoordinatorConfig, Violations> {
    let Some(change) = change else {
        return Ok(base.clone());
    };
    let mut faults = Violations::new();
    let strategy = match wire::PlacementStrategy::try_from(change.strategy) {
        Ok(wire::PlacementStrategy::Unspecified) => base.strategy,
        Ok(wire::PlacementStrategy::AgentTypeBased) => Strategy::AgentTypeBased,
        Ok(wire::PlacementStrategy::CapabilityBased) => Strategy::CapabilityBased,
        Ok(wire::PlacementStrategy::WorkloadBased) => Strategy::WorkloadBased,
        Ok(wire::PlacementStrategy::Hybrid) => Strategy::Hybrid,
        Err(unknown) => {
            faults.push(
                "strategy",
                format!("`{}` is no known placement strategy", unknown.0),
            );
            base.strategy
        },
    };
    let provisioning_policy = match wire::ProvisioningPolicy::try_from(change.provisioning_policy) {
        Ok(wire::ProvisioningPolicy::Unspecified) => base.provisioning_policy,
        Ok(wire::ProvisioningPolicy::Reactive) => ProvisioningPolicy::Reactive,
        Ok(wire::ProvisioningPolicy::Predictive) => ProvisioningPolicy::Predictive,
        Ok(wire::ProvisioningPolicy::Hybrid) => ProvisioningPolicy::Hybrid,
        Err(unknown) => {
            faults.push(
                "provisioning_policy",
                format!("`{}` is no known provisioning policy", unknown.0),
            );
            base.provisioning_policy
        },
    };
    let allocation_mode = match wire::AllocationMode::try_from(change.allocation_mode) {
        Ok(wire::AllocationMode::Unspecified) => base.allocation_mode,
        Ok(wire::AllocationMode::Equal) => AllocationMode::Equal,
        Ok(wire::AllocationMode::Weighted) => AllocationMode::Weighted,
        Ok(wire::AllocationMode::Adaptive) => AllocationMode::Adaptive,
        Ok(wire::AllocationMode::PerformanceBased) => AllocationMode::PerformanceBased,
        Err(unknown) => {
            faults.push(
                "allocation_mode",
                format!("`{}` is no known allocation mode", unknown.0),
            );
            base.allocation_mode
        },
    };
    let health_check_interval_ms = faults
        .take(time::optional_duration_ms(
            "health_check_interval",
            change.health_check_interval.as_ref(),
            HEALTH_CHECK_INTERVAL_MS_MAX,
        ))
        .flatten()
        .unwrap_or(base.health_check_interval_ms);
    let rebalance_interval_ms = faults
        .take(time::optional_duration_ms(
            "rebalance_interval",
            change.rebalance_interval.as_ref(),
            REBALANCE_INTERVAL_MS_MAX,
        ))
        .flatten()
        .unwrap_or(base.rebalance_interval_ms);
    let config = CoordinatorConfig {
        strategy,
        provisioning_policy,
        provision_for_tasks: change
            .provision_for_tasks
            .unwrap_or(base.provision_for_tasks),
        allocation_mode,
        enable_cross_group_coordination: change
            .enable_cross_group_coordination
            .unwrap_or(base.enable_cross_group_coordination),
        health_check_interval_ms,
        rebalance_interval_ms,
        max_total_consumers: change
            .max_total_consumers
            .unwrap_or(base.max_total_consumers),
    };
    finish(config.validate(), faults).map(|()| config)
}

/// The options of coordinators as callers see them, all set.
#[must_use]
pub fn coordinator_config(config: &CoordinatorConfig) -> wire::CoordinatorConfig {
    wire::CoordinatorConfig {
        strategy: placement_strategy(config.strategy).into(),
        provisioning_policy: provisioning_policy(config.provisioning_policy).into(),
        allocation_mode: allocation_mode(config.allocation_mode).into(),
        enable_cross_group_coordination: Some(config.enable_cross_group_coordination),
        health_check_interval: Some(time::to_duration(config.health_check_interval_ms)),
        rebalance_interval: Some(time::to_duration(config.rebalance_interval_ms)),
        max_total_consumers: Some(config.max_total_consumers),
        provision_for_tasks: Some(config.provision_for_tasks),
    }
}

/// The placement strategy on the wire.
#[must_use]
pub const fn placement_strategy(strategy: Strategy) -> wire::PlacementStrategy {
    match strategy {
        Strategy::AgentTypeBased => wire::PlacementStrategy::AgentTypeBased,
        Strategy::CapabilityBased => wire::PlacementStrategy::CapabilityBased,
        Strategy::WorkloadBased => wire::PlacementStrategy::WorkloadBased,
        Strategy::Hybrid => wire::PlacementStrategy::Hybrid,
    }
}

/// The provisioning policy on the wire.
#[must_use]
pub const fn provisioning_policy(policy: ProvisioningPolicy) -> wire::ProvisioningPolicy {
    match policy {
        ProvisioningPolicy::Reactive => wire::ProvisioningPolicy::Reactive,
        ProvisioningPolicy::Predictive => wire::ProvisioningPolicy::Predictive,
        ProvisioningPolicy::Hybrid => wire::ProvisioningPolicy::Hybrid,
    }
}

/// The allocation mode on the wire.
#[must_use]
pub const fn allocation_mode(mode: AllocationMode) -> wire::AllocationMode {
    match mode {
        AllocationMode::Equal => wire::AllocationMode::Equal,
        AllocationMode::Weighted => wire::AllocationMode::Weighted,
        AllocationMode::Adaptive => wire::AllocationMode::Adaptive,
        AllocationMode::PerformanceBased => wire::AllocationMode::PerformanceBased,
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Duration as WireDuration;

    use super::*;

    #[test]
    fn every_config_comes_back_from_the_wire() {
        let defaults = CoordinatorConfig::default();
        for strategy in Strategy::ALL {
            for provisioning_policy in ProvisioningPolicy::ALL {
                for allocation_mode in AllocationMode::ALL {
                    let config = CoordinatorConfig {
                        strategy,
                        provisioning_policy,
                        provision_for_tasks: true,
                        allocation_mode,
                        enable_cross_group_coordination: false,
                        health_check_interval_ms: 1_500,
                        rebalance_interval_ms: 86_400_000,
                        max_total_consumers: 7,
                    };
                    let wire = coordinator_config(&config);
                    let back = update_coordinator_config(&defaults, Some(&wire));
                    assert_eq!(back, Ok(config));
                }
            }
        }
    }

    #[test]
    fn unset_fields_of_a_config_stay() {
        let base = CoordinatorConfig {
            strategy: Strategy::WorkloadBased,
            rebalance_interval_ms: 2_000,
            ..CoordinatorConfig::default()
        };
        assert_eq!(update_coordinator_config(&base, None), Ok(base.clone()));
        let change = wire::CoordinatorConfig {
            max_total_consumers: Some(9),
            ..Default::default()
        };
        let changed = update_coordinator_config(&base, Some(&change)).unwrap();
        assert_eq!(
            changed,
            CoordinatorConfig {
                max_total_consumers: 9,
                ..base
            }
        );
    }

    #[test]
    fn every_fault_of_a_config_is_reported_at_once() {
        let seconds = |seconds| Some(WireDuration { seconds, nanos: 0 });
        let bad = wire::CoordinatorConfig {
            strategy: 9,
            provisioning_policy: 9,
            allocation_mode: 9,
            health_check_interval: seconds(0),
            rebalance_interval: seconds(-1),
            ..Default::default()
        };
        let faults = update_coordinator_config(&CoordinatorConfig::default(), Some(&bad));
        let fields: Vec<String> = faults
            .unwrap_err()
            .into_iter()
            .map(|fault| fault.field)
            .collect();
        assert_eq!(
            fields,
            [
                "config.strategy",
                "config.provisioning_policy",
                "config.allocation_mode",
                "config.rebalance_interval",
                "config.health_check_interval",
            ]
        );
    }
}
