//! The words for placement, rebalancing and scaling.
//!
//! Each table holds what may be asked for and answered; the zero of an enum stands in none.

use crate::wire::{
    AllocationMode, ExecutorState, PlacementStrategy, ProvisioningPolicy, RebalanceAction,
    ScalingEventKind, ScalingExecutor, ScalingStrategy,
};

/// What placement goes by.
pub const PLACEMENT_STRATEGIES: [(PlacementStrategy, &str); 4] = [
    (PlacementStrategy::AgentTypeBased, "agent_type_based"),
    (PlacementStrategy::CapabilityBased, "capability_based"),
    (PlacementStrategy::WorkloadBased, "workload_based"),
    (PlacementStrategy::Hybrid, "hybrid"),
];
/// How groups that are made from templates are scaled.
pub const PROVISIONING_POLICIES: [(ProvisioningPolicy, &str); 3] = [
    (ProvisioningPolicy::Reactive, "reactive"),
    (ProvisioningPolicy::Predictive, "predictive"),
    (ProvisioningPolicy::Hybrid, "hybrid"),
];
/// How a shared ceiling is divided.
pub const ALLOCATION_MODES: [(AllocationMode, &str); 4] = [
    (AllocationMode::Equal, "equal"),
    (AllocationMode::Weighted, "weighted"),
    (AllocationMode::Adaptive, "adaptive"),
    (AllocationMode::PerformanceBased, "performance_based"),
];
/// What was done to a consumer.
pub const REBALANCE_ACTIONS: [(RebalanceAction, &str); 2] = [
    (RebalanceAction::Revoke, "revoke"),
    (RebalanceAction::Offer, "offer"),
];
/// On which numbers more or fewer consumers are wanted.
pub const SCALING_STRATEGIES: [(ScalingStrategy, &str); 3] = [
    (ScalingStrategy::Reactive, "reactive"),
    (ScalingStrategy::Predictive, "predictive"),
    (ScalingStrategy::Hybrid, "hybrid"),
];
/// Who starts and stops consumers.
pub const SCALING_EXECUTORS: [(ScalingExecutor, &str); 5] = [
    (ScalingExecutor::None, "none"),
    (ScalingExecutor::Keda, "keda"),
    (ScalingExecutor::Kubernetes, "kubernetes"),
    (ScalingExecutor::Process, "process"),
    (ScalingExecutor::Webhook, "webhook"),
];
/// How carrying out a wish goes.
pub const EXECUTOR_STATES: [(ExecutorState, &str); 3] = [
    (ExecutorState::None, "none"),
    (ExecutorState::Ok, "ok"),
    (ExecutorState::Failing, "failing"),
];
/// What kind of scaling event it is.
pub const SCALING_EVENT_KINDS: [(ScalingEventKind, &str); 5] = [
    (ScalingEventKind::Up, "up"),
    (ScalingEventKind::Down, "down"),
    (ScalingEventKind::Drain, "drain"),
    (ScalingEventKind::Failing, "failing"),
    (ScalingEventKind::Recovered, "recovered"),
];

/// The words of a table, in its order.
#[must_use]
pub const fn words<E: Copy, const N: usize>(table: &[(E, &'static str); N]) -> [&'static str; N] {
    let mut words = [""; N];
    let mut index = 0;
    while index < N {
        words[index] = table[index].1;
        index += 1;
    }
    words
}

/// The word for a value; `unspecified` for one that is never answered.
#[must_use]
pub fn word_for<E: Copy + PartialEq>(table: &[(E, &'static str)], value: E) -> &'static str {
    let found = table.iter().find(|(known, _)| *known == value);
    found.map_or("unspecified", |(_, word)| word)
}

/// The value that a word names, or none.
#[must_use]
pub fn value_of<E: Copy>(table: &[(E, &'static str)], word: &str) -> Option<E> {
    let found = table.iter().find(|(_, known)| *known == word);
    found.map(|(value, _)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Holds a table against the names of the wire: each but the zero, without its prefix.
    fn check<E: Copy + PartialEq + TryFrom<i32>>(
        table: &[(E, &'static str)],
        prefix: &str,
        name: fn(E) -> &'static str,
    ) {
        let all: Vec<E> = (1..20).map_while(|one| E::try_from(one).ok()).collect();
        assert_eq!(table.len(), all.len(), "{prefix}");
        for value in all {
            let word = word_for(table, value);
            assert_eq!(
                name(value),
                format!("{prefix}_{}", word.to_ascii_uppercase())
            );
            assert!(value_of(table, word) == Some(value), "{word}");
        }
    }

    #[test]
    fn every_word_is_the_name_of_the_wire_in_lower_case() {
        let strategies = |one: PlacementStrategy| one.as_str_name();
        check(&PLACEMENT_STRATEGIES, "PLACEMENT_STRATEGY", strategies);
        let policies = |one: ProvisioningPolicy| one.as_str_name();
        check(&PROVISIONING_POLICIES, "PROVISIONING_POLICY", policies);
        let modes = |one: AllocationMode| one.as_str_name();
        check(&ALLOCATION_MODES, "ALLOCATION_MODE", modes);
        let actions = |one: RebalanceAction| one.as_str_name();
        check(&REBALANCE_ACTIONS, "REBALANCE_ACTION", actions);
        let scaling = |one: ScalingStrategy| one.as_str_name();
        check(&SCALING_STRATEGIES, "SCALING_STRATEGY", scaling);
        let executors = |one: ScalingExecutor| one.as_str_name();
        check(&SCALING_EXECUTORS, "SCALING_EXECUTOR", executors);
        let states = |one: ExecutorState| one.as_str_name();
        check(&EXECUTOR_STATES, "EXECUTOR_STATE", states);
        let kinds = |one: ScalingEventKind| one.as_str_name();
        check(&SCALING_EVENT_KINDS, "SCALING_EVENT_KIND", kinds);
    }

    #[test]
    fn the_words_of_a_table_keep_its_order() {
        assert_eq!(words(&EXECUTOR_STATES), ["none", "ok", "failing"]);
        assert_eq!(value_of(&EXECUTOR_STATES, "unspecified"), None);
    }
}
