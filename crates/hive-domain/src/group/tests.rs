//! Ranges, differences and words of groups.

use super::{GroupDefinition, GroupSettings, GroupState, RoutingMode, Start};
use crate::time::Timestamp;

fn definition() -> GroupDefinition {
    GroupDefinition {
        name: "builders".to_owned(),
        stream: "work".to_owned(),
        agent_type: "qa_engineers".to_owned(),
        shards: 1,
        start: Start::Earliest,
        state: GroupState::Active,
        created_at: Timestamp(0),
        version: 1,
        settings: GroupSettings::default(),
    }
}

#[test]
fn the_defaults_are_valid() {
    assert_eq!(GroupSettings::default().validate(), Ok(()));
}

#[test]
fn every_setting_out_of_range_is_reported_at_once() {
    let settings = GroupSettings {
        max_consumers: 0,
        min_consumers: 1,
        lag_threshold: 0,
        lease_ms: 999,
        max_attempts: 1_001,
        initial_backoff_ms: 3_600_001,
        max_backoff_ms: 86_400_001,
        priority_ageing_ms: 0,
        reconnect_grace_ms: 300_001,
        ..GroupSettings::default()
    };
    let faults = settings.validate().unwrap_err();
    let fields: Vec<&str> = faults.as_slice().iter().map(|v| v.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "max_consumers",
            "lag_threshold",
            "lease",
            "max_attempts",
            "initial_backoff",
            "max_backoff",
            "priority_ageing",
            "reconnect_grace",
            "min_consumers",
        ]
    );
    assert!(
        faults
            .to_string()
            .contains("lease: `999 ms` must be between 1000 ms and 86400000 ms")
    );
}

#[test]
fn both_ends_of_every_range_are_inside() {
    let least = GroupSettings {
        max_consumers: 1,
        min_consumers: 0,
        lag_threshold: 1,
        lease_ms: 1_000,
        max_attempts: 1,
        initial_backoff_ms: 0,
        max_backoff_ms: 0,
        priority_ageing_ms: 1_000,
        reconnect_grace_ms: 0,
        ..GroupSettings::default()
    };
    assert_eq!(least.validate(), Ok(()));
    let most = GroupSettings {
        max_consumers: 10_000,
        min_consumers: 10_000,
        lag_threshold: u32::MAX,
        lease_ms: 86_400_000,
        max_attempts: 1_000,
        initial_backoff_ms: 3_600_000,
        max_backoff_ms: 86_400_000,
        priority_ageing_ms: 86_400_000,
        reconnect_grace_ms: 300_000,
        max_in_flight_per_consumer: u32::MAX,
        max_in_flight: u32::MAX,
        ..GroupSettings::default()
    };
    assert_eq!(most.validate(), Ok(()));
}

#[test]
fn the_longest_backoff_is_at_least_the_first() {
    let settings = GroupSettings {
        initial_backoff_ms: 2,
        max_backoff_ms: 1,
        ..Default::default()
    };
    assert_eq!(
        settings.validate().unwrap_err().to_string(),
        "max_backoff: `1 ms` must be at least initial_backoff `2 ms`"
    );
}

#[test]
fn a_difference_names_each_setting_with_both_values() {
    let is = definition();
    let mut asked = definition();
    asked.stream = "other".to_owned();
    asked.start = Start::Latest;
    asked.settings.max_consumers = 20;
    asked.settings.routing_mode = RoutingMode::RoundRobin;
    assert_eq!(
        is.difference(&asked),
        [
            "stream_name is `work`, asked for `other`",
            "start is `earliest`, asked for `latest`",
            "max_consumers is `10`, asked for `20`",
            "routing_mode is `load_balanced`, asked for `round_robin`",
        ]
    );
}

#[test]
fn state_age_and_version_are_no_difference() {
    let is = definition();
    let asked = GroupDefinition {
        state: GroupState::Paused,
        created_at: Timestamp(7),
        version: 9,
        ..definition()
    };
    assert!(is.difference(&asked).is_empty());
}

#[test]
fn every_word_parses_to_what_it_names() {
    for mode in RoutingMode::ALL {
        assert_eq!(mode.as_str().parse(), Ok(mode));
        assert_eq!(serde_json::to_value(mode).unwrap(), mode.as_str());
    }
    for start in Start::ALL {
        assert_eq!(start.as_str().parse(), Ok(start));
        assert_eq!(serde_json::to_value(start).unwrap(), start.as_str());
    }
    for state in GroupState::ALL {
        assert_eq!(state.as_str().parse(), Ok(state));
        assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
    }
}

#[test]
fn an_unknown_word_is_refused_with_the_known_ones() {
    let words = "newest".parse::<Start>().unwrap_err().to_string();
    assert_eq!(words, "`newest` must be one of `earliest`, `latest`");
}

#[test]
fn a_definition_survives_json_and_an_older_one_gets_the_defaults() {
    let json = serde_json::to_string(&definition()).unwrap();
    assert_eq!(
        serde_json::from_str::<GroupDefinition>(&json).unwrap(),
        definition()
    );
    let older: GroupSettings = serde_json::from_str(r#"{"max_consumers": 7}"#).unwrap();
    assert_eq!(
        older,
        GroupSettings {
            max_consumers: 7,
            ..GroupSettings::default()
        }
    );
}
