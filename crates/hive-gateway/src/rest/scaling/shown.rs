//! Policies, wishes and scaling events as JSON.

use hive_protocol::{
    wire,
    words::coordination::{
        EXECUTOR_STATES, SCALING_EVENT_KINDS, SCALING_EXECUTORS, SCALING_STRATEGIES, word_for,
    },
};
use serde::Serialize;

use crate::rest::render::{Seconds, time};

/// A policy as this door shows it.
#[derive(Serialize)]
pub(in crate::rest) struct PolicyOut {
    strategy: &'static str,
    drain_target_seconds: Option<Seconds>,
    startup_time_seconds: Option<Seconds>,
    scale_up_window_seconds: Option<Seconds>,
    scale_down_window_seconds: Option<Seconds>,
    scale_up_cooldown_seconds: Option<Seconds>,
    scale_down_cooldown_seconds: Option<Seconds>,
    scale_up_step: Option<u32>,
    scale_down_step: Option<u32>,
    weight: Option<u32>,
    executor: &'static str,
    target: Option<String>,
}

impl From<wire::ScalingPolicy> for PolicyOut {
    fn from(policy: wire::ScalingPolicy) -> Self {
        Self {
            strategy: word_for(&SCALING_STRATEGIES, policy.strategy()),
            executor: word_for(&SCALING_EXECUTORS, policy.executor()),
            drain_target_seconds: Seconds::of(policy.drain_target.as_ref()),
            startup_time_seconds: Seconds::of(policy.startup_time.as_ref()),
            scale_up_window_seconds: Seconds::of(policy.scale_up_window.as_ref()),
            scale_down_window_seconds: Seconds::of(policy.scale_down_window.as_ref()),
            scale_up_cooldown_seconds: Seconds::of(policy.scale_up_cooldown.as_ref()),
            scale_down_cooldown_seconds: Seconds::of(policy.scale_down_cooldown.as_ref()),
            scale_up_step: policy.scale_up_step,
            scale_down_step: policy.scale_down_step,
            weight: policy.weight,
            target: policy.target,
        }
    }
}

/// A group with its wish as this door shows it.
#[derive(Serialize)]
pub(super) struct ScalingOut {
    group: String,
    enabled: bool,
    policy: PolicyOut,
    min_consumers: u32,
    max_consumers: u32,
    current_consumers: u32,
    draining_consumers: u32,
    desired_consumers: Option<u32>,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_at: Option<String>,
    inputs: InputsOut,
    executor_state: &'static str,
    executor_error: String,
    epoch: u64,
}

impl From<wire::GroupScaling> for ScalingOut {
    fn from(scaling: wire::GroupScaling) -> Self {
        Self {
            executor_state: word_for(&EXECUTOR_STATES, scaling.executor_state()),
            decided_at: time(scaling.decided_at.as_ref()),
            policy: scaling.policy.unwrap_or_default().into(),
            inputs: scaling.inputs.unwrap_or_default().into(),
            group: scaling.group,
            enabled: scaling.enabled,
            min_consumers: scaling.min_consumers,
            max_consumers: scaling.max_consumers,
            current_consumers: scaling.current_consumers,
            draining_consumers: scaling.draining_consumers,
            desired_consumers: scaling.desired_consumers,
            reason: scaling.reason,
            executor_error: scaling.executor_error,
            epoch: scaling.epoch,
        }
    }
}

#[derive(Serialize)]
struct InputsOut {
    lag: u64,
    in_flight: u64,
    retrying: u64,
    oldest_waiting_seconds: Seconds,
    arrivals_per_second: f64,
    forecast_per_second: f64,
    service_time_seconds: Option<Seconds>,
    capacity_per_consumer: f64,
}

impl From<wire::ScalingInputs> for InputsOut {
    fn from(inputs: wire::ScalingInputs) -> Self {
        Self {
            lag: inputs.lag,
            in_flight: inputs.in_flight,
            retrying: inputs.retrying,
            oldest_waiting_seconds: Seconds::of(inputs.oldest_waiting.as_ref())
                .unwrap_or(Seconds(0)),
            arrivals_per_second: inputs.arrivals_per_second,
            forecast_per_second: inputs.forecast_per_second,
            service_time_seconds: Seconds::of(inputs.service_time.as_ref()),
            capacity_per_consumer: inputs.capacity_per_consumer,
        }
    }
}

/// An event as this door shows it.
#[derive(Serialize)]
pub(super) struct EventOut {
    event_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    group: String,
    kind: &'static str,
    from: u32,
    to: u32,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    inputs: Option<InputsOut>,
    #[serde(skip_serializing_if = "String::is_empty")]
    consumer_id: String,
    epoch: u64,
}

impl From<wire::ScalingEvent> for EventOut {
    fn from(event: wire::ScalingEvent) -> Self {
        Self {
            kind: word_for(&SCALING_EVENT_KINDS, event.kind()),
            time: time(event.time.as_ref()),
            inputs: event.inputs.map(InputsOut::from),
            event_id: event.event_id,
            group: event.group,
            from: event.from,
            to: event.to,
            reason: event.reason,
            consumer_id: event.consumer_id,
            epoch: event.epoch,
        }
    }
}

/// Figures of coordination as this door shows them.
#[derive(Serialize)]
pub(in crate::rest) struct CoordinatorMetricsOut {
    coordinators: usize,
    groups_scaled: usize,
    desired_consumers: u64,
    current_consumers: u64,
    draining_consumers: u64,
    failing_executors: usize,
}

impl CoordinatorMetricsOut {
    /// The figures of these groups; those that are not scaled do not count.
    pub(super) fn new(coordinators: usize, groups: &[wire::GroupScaling]) -> Self {
        let scaled = groups.iter().filter(|group| group.enabled);
        let sum = |of: fn(&wire::GroupScaling) -> u32| {
            scaled.clone().map(|group| u64::from(of(group))).sum()
        };
        Self {
            coordinators,
            groups_scaled: scaled.clone().count(),
            desired_consumers: sum(wire::GroupScaling::desired_consumers),
            current_consumers: sum(|group| group.current_consumers),
            draining_consumers: sum(|group| group.draining_consumers),
            failing_executors: scaled
                .clone()
                .filter(|group| group.executor_state() == wire::ExecutorState::Failing)
                .count(),
        }
    }
}
