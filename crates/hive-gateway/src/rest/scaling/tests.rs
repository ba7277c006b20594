//! Wishes and events in JSON: what is declared is shown, and nothing else.

use hive_domain::scaling::ScalingPolicy;
use hive_protocol::{convert, wire};
use serde_json::json;

use super::{
    COORDINATOR_METRICS, CoordinatorMetricsOut, EventOut, SCALING, ScalingOut, shapes::EVENT,
};
use crate::rest::tests::misfits;

fn group() -> wire::GroupScaling {
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    wire::GroupScaling {
        group: "g".to_owned(),
        enabled: true,
        policy: Some(convert::scaling_policy(&ScalingPolicy::default())),
        min_consumers: 1,
        max_consumers: 8,
        current_consumers: 3,
        draining_consumers: 1,
        desired_consumers: Some(2),
        reason: "little to do".to_owned(),
        decided_at: Some(prost_types::Timestamp::default()),
        inputs: Some(wire::ScalingInputs {
            lag: 4,
            oldest_waiting: seconds(5),
            arrivals_per_second: 0.5,
            service_time: seconds(2),
            ..wire::ScalingInputs::default()
        }),
        executor_state: wire::ExecutorState::Failing.into(),
        executor_error: "it does not answer".to_owned(),
        epoch: 7,
    }
}

#[test]
fn a_wish_is_shown_as_declared() {
    let shown = serde_json::to_value(ScalingOut::from(group())).unwrap();
    assert_eq!(misfits(&shown, &SCALING), Vec::<String>::new());
    assert_eq!(shown["policy"]["executor"], "none");
    assert_eq!(shown["policy"]["scale_down_window_seconds"], 300);
    assert_eq!(shown["inputs"]["service_time_seconds"], 2);
    assert_eq!(shown["desired_consumers"], 2);
}

#[test]
fn what_is_not_decided_is_null() {
    let fresh = wire::GroupScaling {
        desired_consumers: None,
        inputs: None,
        ..group()
    };
    let shown = serde_json::to_value(ScalingOut::from(fresh)).unwrap();
    assert_eq!(shown["desired_consumers"], json!(null));
    assert_eq!(shown["inputs"]["service_time_seconds"], json!(null));
}

#[test]
fn an_event_is_shown_as_declared() {
    let event = wire::ScalingEvent {
        event_id: "1-0".to_owned(),
        time: Some(prost_types::Timestamp::default()),
        group: "g".to_owned(),
        kind: wire::ScalingEventKind::Drain.into(),
        consumer_id: "a".to_owned(),
        inputs: group().inputs,
        ..wire::ScalingEvent::default()
    };
    let shown = serde_json::to_value(EventOut::from(event)).unwrap();
    assert_eq!(misfits(&shown, &EVENT), Vec::<String>::new());
    assert_eq!(shown["kind"], "drain");
}

#[test]
fn groups_that_are_not_scaled_do_not_count() {
    let idle = wire::GroupScaling {
        enabled: false,
        ..group()
    };
    let figures = CoordinatorMetricsOut::new(2, &[group(), idle, group()]);
    let shown = serde_json::to_value(figures).unwrap();
    assert_eq!(misfits(&shown, &COORDINATOR_METRICS), Vec::<String>::new());
    let expected = json!({
        "coordinators": 2, "groups_scaled": 2, "desired_consumers": 4, "current_consumers": 6,
        "draining_consumers": 2, "failing_executors": 2,
    });
    assert_eq!(shown, expected);
}
