//! Groups and streams across the wire.

use hive_domain::{
    group::{GroupDefinition, GroupSettings, GroupState, OrderingOnDead, RoutingMode, Start},
    scaling::{Executor, ScalingPolicy, Strategy},
    stream::{Durability, StreamDefinition, StreamSettings},
    time::Timestamp,
    violation::Violations,
};
use prost_types::Duration as WireDuration;

use super::{
    create_group, group, group_settings, stream, stream_settings, update_group, update_stream,
};
use crate::{time::to_duration, wire};

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn request() -> wire::CreateGroupRequest {
    wire::CreateGroupRequest {
        name: "builders".to_owned(),
        stream_name: "work".to_owned(),
        agent_type: "qa_engineers".to_owned(),
        ..wire::CreateGroupRequest::default()
    }
}

fn fields<T: std::fmt::Debug>(result: Result<T, Violations>) -> Vec<String> {
    result
        .unwrap_err()
        .into_iter()
        .map(|violation| violation.field)
        .collect()
}

#[test]
fn a_new_group_has_the_defaults_for_what_is_unset() {
    let expected = GroupDefinition {
        name: "builders".to_owned(),
        stream: "work".to_owned(),
        agent_type: "qa_engineers".to_owned(),
        shards: 1,
        start: Start::Earliest,
        state: GroupState::Creating,
        created_at: NOW,
        version: 1,
        settings: GroupSettings::default(),
    };
    assert_eq!(create_group(&request(), NOW), Ok(expected.clone()));
    let empty = wire::CreateGroupRequest {
        settings: Some(Default::default()),
        ..request()
    };
    assert_eq!(create_group(&empty, NOW), Ok(expected));
}

#[test]
fn every_fault_of_a_new_group_is_reported_at_once() {
    let bad = wire::CreateGroupRequest {
        name: "dlq".to_owned(),
        stream_name: String::new(),
        agent_type: "a b".to_owned(),
        start: 9,
        shards: Some(4),
        settings: Some(wire::GroupSettings {
            max_consumers: Some(0),
            routing_mode: 77,
            lease: Some(WireDuration {
                seconds: -3,
                nanos: 0,
            }),
            ..wire::GroupSettings::default()
        }),
        stream_settings: Some(wire::StreamSettings {
            max_backlog: Some(0),
            ..wire::StreamSettings::default()
        }),
    };
    assert_eq!(
        fields(create_group(&bad, NOW)),
        [
            "name",
            "stream_name",
            "agent_type",
            "shards",
            "start",
            "settings.lease",
            "settings.routing_mode",
            "settings.max_consumers",
            "settings.min_consumers",
            "stream_settings.max_backlog",
        ]
    );
}

#[test]
fn more_than_one_shard_is_refused_with_the_reason() {
    let sharded = wire::CreateGroupRequest {
        shards: Some(2),
        ..request()
    };
    assert_eq!(
        create_group(&sharded, NOW).unwrap_err().to_string(),
        "shards: `2` must be 1: sharding is not built yet"
    );
    assert!(
        create_group(
            &wire::CreateGroupRequest {
                shards: Some(0),
                ..request()
            },
            NOW
        )
        .is_err()
    );
}

#[test]
fn an_update_keeps_what_is_unset() {
    let current = GroupSettings {
        max_consumers: 7,
        lease_ms: 5_000,
        ..GroupSettings::default()
    };
    assert_eq!(update_group(&current, None), Ok(current.clone()));
    let change = wire::GroupSettings {
        routing_mode: wire::RoutingMode::RoundRobin.into(),
        max_backoff: Some(to_duration(90_000)),
        auto_scale_enabled: Some(true),
        ..wire::GroupSettings::default()
    };
    let expected = GroupSettings {
        routing_mode: RoutingMode::RoundRobin,
        max_backoff_ms: 90_000,
        auto_scale_enabled: true,
        ..current.clone()
    };
    assert_eq!(update_group(&current, Some(&change)), Ok(expected));
}

#[test]
fn another_executor_forgets_what_the_old_one_acted_on() {
    let kubernetes = ScalingPolicy {
        executor: Executor::Kubernetes,
        target: "agents/builders".to_owned(),
        ..ScalingPolicy::default()
    };
    let current = GroupSettings {
        scaling: kubernetes.clone(),
        ..GroupSettings::default()
    };
    let to = |executor: wire::ScalingExecutor| wire::GroupSettings {
        scaling: Some(wire::ScalingPolicy {
            executor: executor.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let none = update_group(&current, Some(&to(wire::ScalingExecutor::None))).unwrap();
    assert_eq!(none.scaling.target, "");
    let same = update_group(&current, Some(&to(wire::ScalingExecutor::Kubernetes))).unwrap();
    assert_eq!(same.scaling, kubernetes);
    let webhook = update_group(&current, Some(&to(wire::ScalingExecutor::Webhook)));
    assert_eq!(fields(webhook), ["settings.scaling.target"]);
}

#[test]
fn an_update_is_judged_together_with_what_stays() {
    let current = GroupSettings {
        min_consumers: 5,
        ..GroupSettings::default()
    };
    let change = wire::GroupSettings {
        max_consumers: Some(3),
        ..Default::default()
    };
    assert_eq!(
        fields(update_group(&current, Some(&change))),
        ["settings.min_consumers"]
    );
}

#[test]
fn a_lease_outside_its_range_is_refused_at_both_ends() {
    for (millis, is_fine) in [
        (0, false),
        (999, false),
        (1_000, true),
        (86_400_000, true),
        (86_400_001, false),
    ] {
        let change = wire::GroupSettings {
            lease: Some(to_duration(millis)),
            ..Default::default()
        };
        let updated = update_group(&GroupSettings::default(), Some(&change));
        assert_eq!(updated.is_ok(), is_fine, "{millis} ms: {updated:?}");
    }
}

#[test]
fn settings_survive_the_wire() {
    let settings = GroupSettings {
        max_consumers: 9,
        min_consumers: 2,
        auto_scale_enabled: true,
        lag_threshold: 3,
        routing_mode: RoutingMode::CapabilityMatched,
        lease_ms: 1_500,
        max_attempts: 7,
        initial_backoff_ms: 1,
        max_backoff_ms: 2,
        priority_ageing_ms: 1_001,
        reconnect_grace_ms: 0,
        max_in_flight_per_consumer: 4,
        max_in_flight: 5,
        ordering_on_dead: OrderingOnDead::Block,
        scaling: ScalingPolicy {
            strategy: Strategy::Predictive,
            drain_target_ms: 1_001,
            startup_time_ms: 1,
            scale_up_window_ms: 2,
            scale_down_window_ms: 3,
            scale_up_cooldown_ms: 4,
            scale_down_cooldown_ms: 5,
            scale_up_step: 6,
            scale_down_step: 7,
            weight: 8,
            executor: Executor::Kubernetes,
            target: "agents/builders".to_owned(),
        },
        progress_timeout_ms: 1_002,
    };
    let over = update_group(&GroupSettings::default(), Some(&group_settings(&settings)));
    assert_eq!(over, Ok(settings));
    for mode in RoutingMode::ALL {
        let settings = GroupSettings {
            routing_mode: mode,
            ..GroupSettings::default()
        };
        let over = update_group(&GroupSettings::default(), Some(&group_settings(&settings)));
        assert_eq!(over, Ok(settings));
    }
}

#[test]
fn limits_of_a_stream_survive_the_wire() {
    let settings = StreamSettings {
        max_backlog: 1,
        max_backlog_bytes: 2,
        retention_max_age_ms: 0,
        retention_max_len: 0,
        retention_max_bytes: 0,
        durability: Durability::Local,
        buffer_without_groups: true,
    };
    let over = update_stream(
        &StreamSettings::default(),
        Some(&stream_settings(&settings)),
    );
    assert_eq!(over, Ok(settings.clone()));
    assert_eq!(
        update_stream(&settings, Some(&Default::default())),
        Ok(settings)
    );
}

#[test]
fn every_fault_of_a_stream_is_reported_at_once() {
    let bad = wire::StreamSettings {
        max_backlog: Some(0),
        retention_max_age: Some(WireDuration {
            seconds: i64::MAX,
            nanos: 0,
        }),
        retention_max_len: Some(u64::MAX),
        max_backlog_bytes: Some(0),
        retention_max_bytes: Some(u64::MAX),
        durability: 3,
        buffer_without_groups: None,
    };
    assert_eq!(
        fields(update_stream(&StreamSettings::default(), Some(&bad))),
        [
            "settings.retention_max_age",
            "settings.durability",
            "settings.max_backlog",
            "settings.max_backlog_bytes",
            "settings.retention_max_len",
            "settings.retention_max_bytes",
        ]
    );
}

#[test]
fn a_group_shows_whether_it_is_paused() {
    let mut definition = create_group(&request(), NOW).unwrap();
    assert!(!group(&definition, None).paused);
    definition.state = GroupState::Paused;
    let shown = group(&definition, None);
    assert!(shown.paused);
    assert_eq!(shown.created_at.unwrap().seconds, 1_700_000_000);
    assert_eq!(shown.start, i32::from(wire::StartPosition::Earliest));
}

#[test]
fn a_stream_shows_its_groups_and_figures() {
    let definition = StreamDefinition {
        name: "work".to_owned(),
        shards: 1,
        created_at: NOW,
        version: 1,
        settings: StreamSettings::default(),
    };
    let shown = stream(&definition, vec!["builders".to_owned()], (7, 3), 2);
    let counts = (shown.entries, shown.held_for_consumers, shown.dead_letters);
    assert_eq!(counts, (7, 3, 2));
    assert_eq!(shown.groups, ["builders"]);
}
