//! Groups and streams of the wire as domain types, and back.
//!
//! At creation an unset field means the default, at an update it means "keep": both read the same
//! way, on top of another base. What comes out is valid; nothing further in asks again.

mod coordination;
mod scaling;

pub use coordination::{
    allocation_mode, coordinator_config, placement_strategy, provisioning_policy,
    update_coordinator_config,
};
pub use scaling::{scaling_executor, scaling_policy, scaling_strategy};

use hive_domain::{
    group::{
        GroupDefinition, GroupSettings, GroupState, INITIAL_BACKOFF_MS_MAX, LEASE_MS_MAX,
        MAX_BACKOFF_MS_MAX, OrderingOnDead, PRIORITY_AGEING_MS_MAX, PROGRESS_TIMEOUT_MS_MAX,
        RECONNECT_GRACE_MS_MAX, RoutingMode, Start,
    },
    name,
    stream::{Durability, RETENTION_MAX_AGE_MS_MAX, StreamDefinition, StreamSettings},
    time::Timestamp,
    violation::Violations,
};
use prost_types::Duration as WireDuration;

use crate::{time, wire};

/// The group that a request asks to create: state `Creating`, version 1, created `now`.
///
/// # Errors
/// All violations: names, reserved names, ranges, more than one shard; also those of the stream's
/// limits, which are not the group's.
pub fn create_group(
    request: &wire::CreateGroupRequest,
    now: Timestamp,
) -> Result<GroupDefinition, Violations> {
    let mut faults = Violations::new();
    faults.take(name::check_group("name", &request.name));
    faults.take(name::check("stream_name", &request.stream_name));
    faults.take(name::check("agent_type", &request.agent_type));
    let shards = one_shard(request.shards, &mut faults);
    let start = match wire::StartPosition::try_from(request.start) {
        Ok(wire::StartPosition::Unspecified | wire::StartPosition::Earliest) => Start::Earliest,
        Ok(wire::StartPosition::Latest) => Start::Latest,
        Err(unknown) => {
            faults.push(
                "start",
                format!("`{}` is no known start position", unknown.0),
            );
            Start::Earliest
        },
    };
    let asked = request.settings.as_ref();
    let settings = apply_group(&GroupSettings::default(), asked).unwrap_or_else(|inner| {
        faults.nest("settings", inner);
        GroupSettings::default()
    });
    if let Err(inner) = stream_of_group(&StreamSettings::default(), request) {
        faults.nest("", inner);
    }
    faults.into_result()?;
    Ok(GroupDefinition {
        name: request.name.clone(),
        stream: request.stream_name.clone(),
        agent_type: request.agent_type.clone(),
        shards,
        start,
        state: GroupState::Creating,
        created_at: now,
        version: 1,
        settings,
    })
}

/// The stream that a request asks to create: version 1, created `now`.
///
/// # Errors
/// All violations: the name, ranges, more than one shard.
pub fn create_stream(
    request: &wire::CreateStreamRequest,
    now: Timestamp,
) -> Result<StreamDefinition, Violations> {
    let mut faults = Violations::new();
    faults.take(name::check("name", &request.name));
    let shards = one_shard(request.shards, &mut faults);
    let asked = request.settings.as_ref();
    let settings = apply_stream(&StreamSettings::default(), asked).unwrap_or_else(|inner| {
        faults.nest("settings", inner);
        StreamSettings::default()
    });
    faults.into_result()?;
    Ok(StreamDefinition {
        name: request.name.clone(),
        shards,
        created_at: now,
        version: 1,
        settings,
    })
}

/// The limits that a new group asks of its stream, on top of what the stream has or would get.
///
/// # Errors
/// All violations, their fields below `stream_settings`.
pub fn stream_of_group(
    base: &StreamSettings,
    request: &wire::CreateGroupRequest,
) -> Result<StreamSettings, Violations> {
    apply_stream(base, request.stream_settings.as_ref()).map_err(|inner| {
        let mut placed = Violations::new();
        placed.nest("stream_settings", inner);
        placed
    })
}

/// The settings of a group after the change that a request asks for; unset fields stay.
///
/// # Errors
/// All violations, their fields below `settings`.
pub fn update_group(
    current: &GroupSettings,
    change: Option<&wire::GroupSettings>,
) -> Result<GroupSettings, Violations> {
    apply_group(current, change).map_err(below_settings)
}

/// The limits of a stream after the change that a request asks for; unset fields stay.
///
/// # Errors
/// All violations, their fields below `settings`.
pub fn update_stream(
    current: &StreamSettings,
    change: Option<&wire::StreamSettings>,
) -> Result<StreamSettings, Violations> {
    apply_stream(current, change).map_err(below_settings)
}

/// A group as callers see it.
#[must_use]
pub fn group(definition: &GroupDefinition, figures: Option<wire::GroupFigures>) -> wire::Group {
    wire::Group {
        name: definition.name.clone(),
        stream_name: definition.stream.clone(),
        agent_type: definition.agent_type.clone(),
        settings: Some(group_settings(&definition.settings)),
        start: start(definition.start).into(),
        shards: definition.shards,
        paused: definition.is_paused(),
        created_at: Some(time::to_timestamp(definition.created_at)),
        figures,
    }
}

/// Settings of a group as callers see them, all set.
#[must_use]
pub fn group_settings(settings: &GroupSettings) -> wire::GroupSettings {
    wire::GroupSettings {
        max_consumers: Some(settings.max_consumers),
        min_consumers: Some(settings.min_consumers),
        auto_scale_enabled: Some(settings.auto_scale_enabled),
        lag_threshold: Some(settings.lag_threshold),
        routing_mode: routing_mode(settings.routing_mode).into(),
        lease: Some(time::to_duration(settings.lease_ms)),
        max_attempts: Some(settings.max_attempts),
        initial_backoff: Some(time::to_duration(settings.initial_backoff_ms)),
        max_backoff: Some(time::to_duration(settings.max_backoff_ms)),
        priority_ageing: Some(time::to_duration(settings.priority_ageing_ms)),
        reconnect_grace: Some(time::to_duration(settings.reconnect_grace_ms)),
        max_in_flight_per_consumer: Some(settings.max_in_flight_per_consumer),
        max_in_flight: Some(settings.max_in_flight),
        ordering_on_dead: ordering_on_dead(settings.ordering_on_dead).into(),
        scaling: Some(scaling_policy(&settings.scaling)),
        progress_timeout: Some(time::to_duration(settings.progress_timeout_ms)),
    }
}

/// A stream as callers see it: `groups` read it, `entries` are kept, `dead_letters` wait to be
/// taken.
#[must_use]
pub fn stream(
    definition: &StreamDefinition,
    groups: Vec<String>,
    (entries, held): (u64, u64),
    dead_letters: u64,
) -> wire::Stream {
    wire::Stream {
        name: definition.name.clone(),
        shards: definition.shards,
        settings: Some(stream_settings(&definition.settings)),
        groups,
        entries,
        dead_letters,
        created_at: Some(time::to_timestamp(definition.created_at)),
        held_for_consumers: held,
    }
}

/// Limits of a stream as callers see them, all set.
#[must_use]
pub fn stream_settings(settings: &StreamSettings) -> wire::StreamSettings {
    wire::StreamSettings {
        max_backlog: Some(settings.max_backlog),
        retention_max_age: Some(time::to_duration(settings.retention_max_age_ms)),
        retention_max_len: Some(settings.retention_max_len),
        max_backlog_bytes: Some(settings.max_backlog_bytes),
        retention_max_bytes: Some(settings.retention_max_bytes),
        durability: durability(settings.durability).into(),
        buffer_without_groups: Some(settings.buffer_without_groups),
    }
}

/// The routing mode on the wire.
#[must_use]
pub const fn routing_mode(mode: RoutingMode) -> wire::RoutingMode {
    match mode {
        RoutingMode::LoadBalanced => wire::RoutingMode::LoadBalanced,
        RoutingMode::RoundRobin => wire::RoutingMode::RoundRobin,
        RoutingMode::PriorityBased => wire::RoutingMode::PriorityBased,
        RoutingMode::CapabilityMatched => wire::RoutingMode::CapabilityMatched,
        RoutingMode::WorkflowAware => wire::RoutingMode::WorkflowAware,
    }
}

/// What becomes of an ordering key behind a dead letter, on the wire.
#[must_use]
pub const fn ordering_on_dead(word: OrderingOnDead) -> wire::OrderingOnDead {
    match word {
        OrderingOnDead::Continue => wire::OrderingOnDead::Continue,
        OrderingOnDead::Block => wire::OrderingOnDead::Block,
    }
}

/// The start position on the wire.
#[must_use]
pub const fn start(start: Start) -> wire::StartPosition {
    match start {
        Start::Earliest => wire::StartPosition::Earliest,
        Start::Latest => wire::StartPosition::Latest,
    }
}

/// The durability on the wire.
#[must_use]
pub const fn durability(durability: Durability) -> wire::Durability {
    match durability {
        Durability::Memory => wire::Durability::Memory,
        Durability::Local => wire::Durability::Local,
    }
}

fn one_shard(asked: Option<u32>, faults: &mut Violations) -> u32 {
    let shards = asked.unwrap_or(1);
    if shards != 1 {
        faults.push(
            "shards",
            format!("`{shards}` must be 1: sharding is not built yet"),
        );
    }
    shards
}

/// `base` with every set field of `change` in place, checked as a whole.
fn apply_group(
    base: &GroupSettings,
    change: Option<&wire::GroupSettings>,
) -> Result<GroupSettings, Violations> {
    let Some(change) = change else {
        return Ok(base.clone());
    };
    let mut faults = Violations::new();
    let mut millis = |field: &str, wire: Option<&WireDuration>, base: u64, ms_max: u64| {
        faults
            .take(time::optional_duration_ms(field, wire, ms_max))
            .flatten()
            .unwrap_or(base)
    };
    let lease_ms = millis("lease", change.lease.as_ref(), base.lease_ms, LEASE_MS_MAX);
    let initial_backoff_ms = millis(
        "initial_backoff",
        change.initial_backoff.as_ref(),
        base.initial_backoff_ms,
        INITIAL_BACKOFF_MS_MAX,
    );
    let max_backoff_ms = millis(
        "max_backoff",
        change.max_backoff.as_ref(),
        base.max_backoff_ms,
        MAX_BACKOFF_MS_MAX,
    );
    let priority_ageing_ms = millis(
        "priority_ageing",
        change.priority_ageing.as_ref(),
        base.priority_ageing_ms,
        PRIORITY_AGEING_MS_MAX,
    );
    let reconnect_grace_ms = millis(
        "reconnect_grace",
        change.reconnect_grace.as_ref(),
        base.reconnect_grace_ms,
        RECONNECT_GRACE_MS_MAX,
    );
    let progress_timeout_ms = millis(
        "progress_timeout",
        change.progress_timeout.as_ref(),
        base.progress_timeout_ms,
        PROGRESS_TIMEOUT_MS_MAX,
    );
    let scaling = scaling::apply(&base.scaling, change.scaling.as_ref()).unwrap_or_else(|inner| {
        faults.nest("scaling", inner);
        base.scaling.clone()
    });
    let routing_mode = match wire::RoutingMode::try_from(change.routing_mode) {
        Ok(wire::RoutingMode::Unspecified) => base.routing_mode,
        Ok(wire::RoutingMode::LoadBalanced) => RoutingMode::LoadBalanced,
        Ok(wire::RoutingMode::RoundRobin) => RoutingMode::RoundRobin,
        Ok(wire::RoutingMode::PriorityBased) => RoutingMode::PriorityBased,
        Ok(wire::RoutingMode::CapabilityMatched) => RoutingMode::CapabilityMatched,
        Ok(wire::RoutingMode::WorkflowAware) => RoutingMode::WorkflowAware,
        Err(unknown) => {
            faults.push(
                "routing_mode",
                format!("`{}` is no known routing mode", unknown.0),
            );
            base.routing_mode
        },
    };
    let ordering_on_dead = match wire::OrderingOnDead::try_from(change.ordering_on_dead) {
        Ok(wire::OrderingOnDead::Unspecified) => base.ordering_on_dead,
        Ok(wire::OrderingOnDead::Continue) => OrderingOnDead::Continue,
        Ok(wire::OrderingOnDead::Block) => OrderingOnDead::Block,
        Err(unknown) => {
            faults.push(
                "ordering_on_dead",
                format!("`{}` is no known word for it", unknown.0),
            );
            base.ordering_on_dead
        },
    };
    let settings = GroupSettings {
        max_consumers: change.max_consumers.unwrap_or(base.max_consumers),
        min_consumers: change.min_consumers.unwrap_or(base.min_consumers),
        auto_scale_enabled: change.auto_scale_enabled.unwrap_or(base.auto_scale_enabled),
        lag_threshold: change.lag_threshold.unwrap_or(base.lag_threshold),
        routing_mode,
        lease_ms,
        max_attempts: change.max_attempts.unwrap_or(base.max_attempts),
        initial_backoff_ms,
        max_backoff_ms,
        priority_ageing_ms,
        reconnect_grace_ms,
        max_in_flight_per_consumer: change
            .max_in_flight_per_consumer
            .unwrap_or(base.max_in_flight_per_consumer),
        max_in_flight: change.max_in_flight.unwrap_or(base.max_in_flight),
        ordering_on_dead,
        scaling,
        progress_timeout_ms,
    };
    finish(settings.validate(), faults).map(|()| settings)
}

/// `base` with every set field of `change` in place, checked as a whole.
fn apply_stream(
    base: &StreamSettings,
    change: Option<&wire::StreamSettings>,
) -> Result<StreamSettings, Violations> {
    let Some(change) = change else {
        return Ok(base.clone());
    };
    let mut faults = Violations::new();
    let retention_max_age_ms = faults
        .take(time::optional_duration_ms(
            "retention_max_age",
            change.retention_max_age.as_ref(),
            RETENTION_MAX_AGE_MS_MAX,
        ))
        .flatten()
        .unwrap_or(base.retention_max_age_ms);
    let durability = match wire::Durability::try_from(change.durability) {
        Ok(wire::Durability::Unspecified) => base.durability,
        Ok(wire::Durability::Memory) => Durability::Memory,
        Ok(wire::Durability::Local) => Durability::Local,
        Err(unknown) => {
            faults.push(
                "durability",
                format!("`{}` is no known durability", unknown.0),
            );
            base.durability
        },
    };
    let settings = StreamSettings {
        max_backlog: change.max_backlog.unwrap_or(base.max_backlog),
        max_backlog_bytes: change.max_backlog_bytes.unwrap_or(base.max_backlog_bytes),
        retention_max_age_ms,
        retention_max_len: change.retention_max_len.unwrap_or(base.retention_max_len),
        retention_max_bytes: change
            .retention_max_bytes
            .unwrap_or(base.retention_max_bytes),
        durability,
        buffer_without_groups: change
            .buffer_without_groups
            .unwrap_or(base.buffer_without_groups),
    };
    finish(settings.validate(), faults).map(|()| settings)
}

/// Success when neither reading (`faults`) nor validating found anything.
fn finish(validated: Result<(), Violations>, mut faults: Violations) -> Result<(), Violations> {
    if let Err(inner) = validated {
        faults.nest("", inner);
    }
    faults.into_result()
}

fn below_settings(inner: Violations) -> Violations {
    let mut placed = Violations::new();
    placed.nest("settings", inner);
    placed
}

#[cfg(test)]
mod tests;
