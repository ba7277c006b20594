//! Options in JSON: what is sent is read, what is answered is shown, faults come together.

use axum::Json;
use hive_protocol::wire;
use serde_json::{Value, json};

use super::{CONFIG, CONFIG_CHANGE, REBALANCED, read_config, rebalanced, shown};
use crate::rest::{
    fields::Fields,
    tests::{misfits, raw},
};

fn read(body: &Value) -> Result<wire::CoordinatorConfig, String> {
    let mut fields = Fields::of(&raw(body), &CONFIG_CHANGE, "");
    let config = read_config(&mut fields);
    fields
        .finish()
        .map(|()| config)
        .map_err(|faults| faults.to_string())
}

#[test]
fn options_that_are_sent_are_shown_as_they_were_sent() {
    let sent = json!({
        "strategy": "capability_based", "provisioning_policy": "predictive",
        "allocation_mode": "performance_based", "enable_cross_group_coordination": false,
        "health_check_interval": 30, "rebalance_interval": 2.5, "max_total_consumers": 40,
        "provision_for_tasks": true,
    });
    let Json(answer) = shown(Some(read(&sent).unwrap())).unwrap();
    assert_eq!(answer, sent);
    assert_eq!(misfits(&answer, &CONFIG), Vec::<String>::new());
}

#[test]
fn an_option_that_is_left_out_is_left_as_it_is() {
    let config = read(&json!({ "allocation_mode": "equal" })).unwrap();
    let expected = wire::CoordinatorConfig {
        allocation_mode: wire::AllocationMode::Equal.into(),
        ..wire::CoordinatorConfig::default()
    };
    assert_eq!(config, expected);
}

#[test]
fn every_option_at_fault_is_named() {
    let faults = read(&json!({
        "strategy": "random", "health_check_interval": 0.5, "max_total_consumers": -1,
        "colour": "red",
    }))
    .unwrap_err();
    for field in [
        "strategy: ",
        "health_check_interval: ",
        "max_total_consumers: ",
        "colour: ",
    ] {
        assert!(faults.contains(field), "{faults}");
    }
}

#[test]
fn a_rebalance_is_shown_by_the_words_of_the_guide() {
    let answer = wire::RebalanceResponse {
        groups_analyzed: 2,
        operations: vec![wire::RebalanceOperation {
            group: "g".to_owned(),
            action: wire::RebalanceAction::Revoke.into(),
            from: "a".to_owned(),
            to: "b".to_owned(),
            count: 3,
            reason: "why".to_owned(),
        }],
        elapsed: Some(prost_types::Duration {
            seconds: 0,
            nanos: 12_000_000,
        }),
        timestamp: Some(prost_types::Timestamp {
            seconds: 1_700_000_000,
            nanos: 0,
        }),
    };
    let shown = rebalanced(&answer, false);
    let expected = json!({
        "status": "success", "groups_analyzed": 2, "rebalance_time_ms": 12,
        "timestamp": "2023-11-14T22:13:20Z", "operations_performed": [{
            "group": "g", "action": "revoke", "from": "a", "to": "b", "count": 3, "reason": "why",
        }],
    });
    assert_eq!(shown, expected);
    assert_eq!(misfits(&shown, &REBALANCED), Vec::<String>::new());
    assert_eq!(rebalanced(&answer, true)["status"], "dry_run");
}
