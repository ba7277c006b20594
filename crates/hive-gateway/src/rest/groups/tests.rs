//! Groups in JSON: what is sent is shown, and every fault is named.

use hive_domain::stream::StreamSettings;
use hive_protocol::{convert, wire};
use serde_json::{Value, json};

use super::{GROUP, GROUP_CREATE, GROUP_UPDATE, GroupOut, read_create, read_settings};
use crate::rest::{
    fields::Fields,
    render::now,
    tests::{misfits, raw},
};

fn create(body: &Value) -> Result<wire::CreateGroupRequest, Vec<String>> {
    read_create(Fields::of(&raw(body), &GROUP_CREATE, ""))
        .map_err(|faults| faults.into_iter().map(|fault| fault.field).collect())
}

fn everything() -> Value {
    json!({
        "name": "a", "stream_name": "s", "agent_type": "t", "routing_mode": "round_robin",
        "max_consumers": 8, "min_consumers": 2, "auto_scale_enabled": true, "lag_threshold": 9,
        "lease_seconds": 1.5, "max_attempts": 4, "initial_backoff_seconds": 0.25,
        "max_backoff_seconds": 10, "priority_ageing_seconds": 20, "reconnect_grace_seconds": 0,
        "max_in_flight_per_consumer": 6, "max_in_flight": 7,
        "ordering_on_dead": "block", "start": "latest", "shards": 1,
        "progress_timeout_seconds": 600,
        "scaling": {
            "strategy": "predictive", "drain_target_seconds": 20, "startup_time_seconds": 0.5,
            "scale_up_window_seconds": 1, "scale_down_window_seconds": 2,
            "scale_up_cooldown_seconds": 3, "scale_down_cooldown_seconds": 4,
            "scale_up_step": 5, "scale_down_step": 6, "weight": 7, "executor": "webhook",
            "target": "https://scale.example/hook",
        },
    })
}

#[test]
fn what_is_sent_at_creation_is_shown_afterwards() {
    let request = create(&everything()).unwrap();
    let definition = convert::create_group(&request, now()).unwrap();
    let figures = wire::GroupFigures {
        health: "healthy".to_owned(),
        ..Default::default()
    };
    let group = GroupOut::from(convert::group(&definition, Some(figures)));
    let shown = serde_json::to_value(group).unwrap();
    assert_eq!(misfits(&shown, &GROUP), Vec::<String>::new());
    for (field, sent) in everything().as_object().unwrap() {
        assert_eq!(&shown[field], sent, "{field}");
    }
}

#[test]
fn limits_of_the_stream_are_taken_at_creation_and_shown_with_the_stream() {
    let request = create(&json!({
        "name": "a", "stream_name": "s", "agent_type": "t", "max_backlog": 5,
        "retention": {"max_age_seconds": 0.5, "max_len": 6},
    }));
    let settings = convert::stream_of_group(&StreamSettings::default(), &request.unwrap());
    let expected = StreamSettings {
        max_backlog: 5,
        retention_max_age_ms: 500,
        retention_max_len: 6,
        ..StreamSettings::default()
    };
    assert_eq!(settings.unwrap(), expected);
    let faults = create(&json!({
        "name": "dlq", "stream_name": "s", "agent_type": "t", "max_backlog": 0,
        "retention": {"max_age_seconds": 1e9},
    }));
    let mut faults = faults.unwrap_err();
    faults.sort();
    let expected = ["max_backlog", "name", "retention.max_age_seconds"];
    assert_eq!(faults, expected);
}

#[test]
fn the_printed_body_of_the_guide_is_taken() {
    let request = create(&json!({
        "name": "qa_engineers_consumers", "stream_name": "agent_messages:qa",
        "agent_type": "qa_engineers", "max_consumers": 8, "auto_scale_enabled": true,
    }));
    assert!(convert::create_group(&request.unwrap(), now()).is_ok());
}

#[test]
fn faults_of_type_of_range_and_between_fields_come_together() {
    let faults = create(&json!({
        "name": "dlq", "agent_type": 5, "max_consumers": 2, "min_consumers": 3,
        "lease_seconds": 0.5, "retention": {"max_len": -1}, "colour": "red",
        "scaling": {"weight": 0, "steps": 1},
    }));
    let mut fields = faults.unwrap_err();
    fields.sort();
    assert_eq!(
        fields,
        [
            "agent_type",
            "colour",
            "lease_seconds",
            "min_consumers",
            "name",
            "retention.max_len",
            "scaling.steps",
            "scaling.weight",
            "stream_name"
        ]
    );
}

#[test]
fn what_never_changes_is_refused_in_a_change() {
    let body = json!({ "stream_name": "s", "shards": 1, "max_backlog": 5, "max_attempts": 2 });
    let mut fields = Fields::of(&raw(&body), &GROUP_UPDATE, "");
    let settings = read_settings(&mut fields);
    assert_eq!(settings.max_attempts, Some(2));
    assert_eq!(
        fields.finish().unwrap_err().to_string(),
        "max_backlog: is a setting of the stream: change it by PATCH /api/v1/streams/{stream}; \
         shards: never changes once the group is created; \
         stream_name: never changes once the group is created"
    );
}

#[test]
fn the_words_are_those_of_the_domain() {
    use hive_domain::group::{RoutingMode, Start};
    assert_eq!(
        super::shapes::ROUTING_MODES,
        RoutingMode::ALL.map(RoutingMode::as_str)
    );
    assert_eq!(super::shapes::STARTS, Start::ALL.map(Start::as_str));
}
