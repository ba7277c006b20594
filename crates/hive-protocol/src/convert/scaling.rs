//! The scaling policy of a group, of the wire and back.

use hive_domain::{
    scaling::{Executor, SCALE_MS_MAX, ScalingPolicy, Strategy},
    violation::Violations,
};
use prost_types::Duration as WireDuration;

use super::finish;
use crate::{time, wire};

/// `base` with every set field of `change` in place, checked as a whole.
pub(super) fn apply(
    base: &ScalingPolicy,
    change: Option<&wire::ScalingPolicy>,
) -> Result<ScalingPolicy, Violations> {
    let Some(change) = change else {
        return Ok(base.clone());
    };
    let mut faults = Violations::new();
    let mut millis = |field: &str, wire: Option<&WireDuration>, base: u64| {
        faults
            .take(time::optional_duration_ms(field, wire, SCALE_MS_MAX))
            .flatten()
            .unwrap_or(base)
    };
    let drain_target_ms = millis(
        "drain_target",
        change.drain_target.as_ref(),
        base.drain_target_ms,
    );
    let startup_time_ms = millis(
        "startup_time",
        change.startup_time.as_ref(),
        base.startup_time_ms,
    );
    let scale_up_window_ms = millis(
        "scale_up_window",
        change.scale_up_window.as_ref(),
        base.scale_up_window_ms,
    );
    let scale_down_window_ms = millis(
        "scale_down_window",
        change.scale_down_window.as_ref(),
        base.scale_down_window_ms,
    );
    let scale_up_cooldown_ms = millis(
        "scale_up_cooldown",
        change.scale_up_cooldown.as_ref(),
        base.scale_up_cooldown_ms,
    );
    let scale_down_cooldown_ms = millis(
        "scale_down_cooldown",
        change.scale_down_cooldown.as_ref(),
        base.scale_down_cooldown_ms,
    );
    let strategy = match wire::ScalingStrategy::try_from(change.strategy) {
        Ok(wire::ScalingStrategy::Unspecified) => base.strategy,
        Ok(wire::ScalingStrategy::Reactive) => Strategy::Reactive,
        Ok(wire::ScalingStrategy::Predictive) => Strategy::Predictive,
        Ok(wire::ScalingStrategy::Hybrid) => Strategy::Hybrid,
        Err(unknown) => {
            faults.push(
                "strategy",
                format!("`{}` is no known scaling strategy", unknown.0),
            );
            base.strategy
        },
    };
    let executor = match wire::ScalingExecutor::try_from(change.executor) {
        Ok(wire::ScalingExecutor::Unspecified) => base.executor,
        Ok(wire::ScalingExecutor::None) => Executor::None,
        Ok(wire::ScalingExecutor::Keda) => Executor::Keda,
        Ok(wire::ScalingExecutor::Kubernetes) => Executor::Kubernetes,
        Ok(wire::ScalingExecutor::Process) => Executor::Process,
        Ok(wire::ScalingExecutor::Webhook) => Executor::Webhook,
        Err(unknown) => {
            faults.push("executor", format!("`{}` is no known executor", unknown.0));
            base.executor
        },
    };
    let target = match &change.target {
        Some(target) => target.clone(),
        // What another executor acted on is none of the new one's.
        None if executor != base.executor => String::new(),
        None => base.target.clone(),
    };
    let policy = ScalingPolicy {
        strategy,
        drain_target_ms,
        startup_time_ms,
        scale_up_window_ms,
        scale_down_window_ms,
        scale_up_cooldown_ms,
        scale_down_cooldown_ms,
        scale_up_step: change.scale_up_step.unwrap_or(base.scale_up_step),
        scale_down_step: change.scale_down_step.unwrap_or(base.scale_down_step),
        weight: change.weight.unwrap_or(base.weight),
        executor,
        target,
    };
    finish(policy.validate(), faults).map(|()| policy)
}

/// A policy as callers see it, all set.
#[must_use]
pub fn scaling_policy(policy: &ScalingPolicy) -> wire::ScalingPolicy {
    wire::ScalingPolicy {
        strategy: scaling_strategy(policy.strategy).into(),
        drain_target: Some(time::to_duration(policy.drain_target_ms)),
        startup_time: Some(time::to_duration(policy.startup_time_ms)),
        scale_up_window: Some(time::to_duration(policy.scale_up_window_ms)),
        scale_down_window: Some(time::to_duration(policy.scale_down_window_ms)),
        scale_up_cooldown: Some(time::to_duration(policy.scale_up_cooldown_ms)),
        scale_down_cooldown: Some(time::to_duration(policy.scale_down_cooldown_ms)),
        scale_up_step: Some(policy.scale_up_step),
        scale_down_step: Some(policy.scale_down_step),
        weight: Some(policy.weight),
        executor: scaling_executor(policy.executor).into(),
        target: Some(policy.target.clone()),
    }
}

/// The scaling strategy on the wire.
#[must_use]
pub const fn scaling_strategy(strategy: Strategy) -> wire::ScalingStrategy {
    match strategy {
        Strategy::Reactive => wire::ScalingStrategy::Reactive,
        Strategy::Predictive => wire::ScalingStrategy::Predictive,
        Strategy::Hybrid => wire::ScalingStrategy::Hybrid,
    }
}

/// The executor on the wire.
#[must_use]
pub const fn scaling_executor(executor: Executor) -> wire::ScalingExecutor {
    match executor {
        Executor::None => wire::ScalingExecutor::None,
        Executor::Keda => wire::ScalingExecutor::Keda,
        Executor::Kubernetes => wire::ScalingExecutor::Kubernetes,
        Executor::Process => wire::ScalingExecutor::Process,
        Executor::Webhook => wire::ScalingExecutor::Webhook,
    }
}
