//! A group as JSON.

use hive_protocol::wire;
use serde::Serialize;

use crate::rest::{
    render::{Seconds, time},
    scaling::PolicyOut,
};

/// A group as this door shows it.
#[derive(Serialize)]
pub(in crate::rest) struct GroupOut {
    pub(in crate::rest) name: String,
    stream_name: String,
    agent_type: String,
    #[serde(flatten)]
    settings: SettingsOut,
    start: &'static str,
    shards: u32,
    paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    #[serde(flatten)]
    figures: FiguresOut,
}

impl From<wire::Group> for GroupOut {
    fn from(group: wire::Group) -> Self {
        let start = match group.start() {
            wire::StartPosition::Unspecified | wire::StartPosition::Earliest => "earliest",
            wire::StartPosition::Latest => "latest",
        };
        Self {
            start,
            created_at: time(group.created_at.as_ref()),
            settings: SettingsOut::from(group.settings.unwrap_or_default()),
            figures: FiguresOut::from(group.figures.unwrap_or_default()),
            name: group.name,
            stream_name: group.stream_name,
            agent_type: group.agent_type,
            shards: group.shards,
            paused: group.paused,
        }
    }
}

#[derive(Serialize)]
struct SettingsOut {
    routing_mode: &'static str,
    max_consumers: Option<u32>,
    min_consumers: Option<u32>,
    auto_scale_enabled: Option<bool>,
    lag_threshold: Option<u32>,
    lease_seconds: Option<Seconds>,
    max_attempts: Option<u32>,
    initial_backoff_seconds: Option<Seconds>,
    max_backoff_seconds: Option<Seconds>,
    priority_ageing_seconds: Option<Seconds>,
    reconnect_grace_seconds: Option<Seconds>,
    max_in_flight_per_consumer: Option<u32>,
    max_in_flight: Option<u32>,
    ordering_on_dead: &'static str,
    progress_timeout_seconds: Option<Seconds>,
    scaling: PolicyOut,
}

impl From<wire::GroupSettings> for SettingsOut {
    fn from(settings: wire::GroupSettings) -> Self {
        let routing_mode = match settings.routing_mode() {
            wire::RoutingMode::Unspecified | wire::RoutingMode::LoadBalanced => "load_balanced",
            wire::RoutingMode::RoundRobin => "round_robin",
            wire::RoutingMode::PriorityBased => "priority_based",
            wire::RoutingMode::CapabilityMatched => "capability_matched",
            wire::RoutingMode::WorkflowAware => "workflow_aware",
        };
        let ordering_on_dead = match settings.ordering_on_dead() {
            wire::OrderingOnDead::Unspecified | wire::OrderingOnDead::Continue => "continue",
            wire::OrderingOnDead::Block => "block",
        };
        Self {
            routing_mode,
            ordering_on_dead,
            max_consumers: settings.max_consumers,
            min_consumers: settings.min_consumers,
            auto_scale_enabled: settings.auto_scale_enabled,
            lag_threshold: settings.lag_threshold,
            lease_seconds: Seconds::of(settings.lease.as_ref()),
            max_attempts: settings.max_attempts,
            initial_backoff_seconds: Seconds::of(settings.initial_backoff.as_ref()),
            max_backoff_seconds: Seconds::of(settings.max_backoff.as_ref()),
            priority_ageing_seconds: Seconds::of(settings.priority_ageing.as_ref()),
            reconnect_grace_seconds: Seconds::of(settings.reconnect_grace.as_ref()),
            max_in_flight_per_consumer: settings.max_in_flight_per_consumer,
            max_in_flight: settings.max_in_flight,
            progress_timeout_seconds: Seconds::of(settings.progress_timeout.as_ref()),
            scaling: settings.scaling.unwrap_or_default().into(),
        }
    }
}

#[derive(Serialize)]
struct FiguresOut {
    current_consumers: u32,
    desired_consumers: Option<u32>,
    lag: u64,
    pending_count: u64,
    scheduled_count: u64,
    throughput_msg_per_sec: f64,
    success_rate: f64,
    avg_processing_time_ms: f64,
    oldest_waiting_seconds: f64,
    health: String,
    published_total: u64,
    acked_total: u64,
    failed_total: u64,
    dead_total: u64,
    redelivered_total: u64,
    released_total: u64,
    expired_total: u64,
    blocked_keys: u64,
    unsettled_bytes: u64,
}

impl From<wire::GroupFigures> for FiguresOut {
    fn from(figures: wire::GroupFigures) -> Self {
        Self {
            current_consumers: figures.current_consumers,
            desired_consumers: figures.desired_consumers,
            lag: figures.lag,
            pending_count: figures.pending_count,
            scheduled_count: figures.scheduled_count,
            throughput_msg_per_sec: figures.throughput_msg_per_sec,
            success_rate: figures.success_rate,
            avg_processing_time_ms: figures.avg_processing_time_ms,
            oldest_waiting_seconds: figures.oldest_waiting_seconds,
            health: figures.health,
            published_total: figures.published_total,
            acked_total: figures.acked_total,
            failed_total: figures.failed_total,
            dead_total: figures.dead_total,
            redelivered_total: figures.redelivered_total,
            released_total: figures.released_total,
            expired_total: figures.expired_total,
            blocked_keys: figures.blocked_keys,
            unsettled_bytes: figures.unsettled_bytes,
        }
    }
}
