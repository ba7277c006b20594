//! Wishes and scaling events as they are printed: the names of the REST API.

use hive_client::wire;
use hive_protocol::words::coordination::{EXECUTOR_STATES, SCALING_EVENT_KINDS, word_for};
use serde::Serialize;

use super::policy::PolicyView;
use crate::{
    output::{Show, Tone},
    values::{cut, rfc3339, seconds, short_seconds},
};

/// Longest reason in a table, in characters.
const REASON_CHARS: usize = 80;

/// What a decision was made on.
#[derive(Debug, Serialize)]
pub(super) struct InputsView {
    lag: u64,
    in_flight: u64,
    retrying: u64,
    oldest_waiting_seconds: f64,
    arrivals_per_second: f64,
    forecast_per_second: f64,
    service_time_seconds: Option<f64>,
    capacity_per_consumer: f64,
}

impl From<wire::ScalingInputs> for InputsView {
    fn from(inputs: wire::ScalingInputs) -> Self {
        let service_time = inputs.service_time.as_ref();
        Self {
            lag: inputs.lag,
            in_flight: inputs.in_flight,
            retrying: inputs.retrying,
            oldest_waiting_seconds: seconds(inputs.oldest_waiting.as_ref()),
            arrivals_per_second: inputs.arrivals_per_second,
            forecast_per_second: inputs.forecast_per_second,
            service_time_seconds: service_time.map(|time| seconds(Some(time))),
            capacity_per_consumer: inputs.capacity_per_consumer,
        }
    }
}

/// A group with its wish.
#[derive(Debug, Serialize)]
pub(super) struct ScalingView {
    pub(super) group: String,
    enabled: bool,
    policy: PolicyView,
    min_consumers: u32,
    max_consumers: u32,
    current_consumers: u32,
    draining_consumers: u32,
    desired_consumers: Option<u32>,
    reason: String,
    decided_at: Option<String>,
    inputs: InputsView,
    executor_state: &'static str,
    executor_error: String,
    epoch: u64,
}

impl From<wire::GroupScaling> for ScalingView {
    fn from(scaling: wire::GroupScaling) -> Self {
        Self {
            executor_state: word_for(&EXECUTOR_STATES, scaling.executor_state()),
            decided_at: rfc3339(scaling.decided_at.as_ref()),
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

impl ScalingView {
    /// One text per column, with the whole reason.
    pub(super) fn texts(&self) -> [String; 12] {
        let dash = || "-".to_owned();
        let current = match self.draining_consumers {
            0 => self.current_consumers.to_string(),
            draining => format!("{} ({draining} draining)", self.current_consumers),
        };
        let desired = self.desired_consumers.map(|count| count.to_string());
        let service = self.inputs.service_time_seconds;
        let (state, reason) = if !self.enabled {
            ("off", &self.reason)
        } else if self.executor_error.is_empty() {
            (self.executor_state, &self.reason)
        } else {
            (self.executor_state, &self.executor_error)
        };
        [
            self.group.clone(),
            current,
            desired.unwrap_or_else(dash),
            self.min_consumers.to_string(),
            self.max_consumers.to_string(),
            self.inputs.lag.to_string(),
            self.inputs.in_flight.to_string(),
            format!("{:.1}", self.inputs.arrivals_per_second),
            service.map_or_else(dash, short_seconds),
            self.policy.executor.to_owned(),
            state.to_owned(),
            reason.clone(),
        ]
    }
}

impl Show for ScalingView {
    const COLUMNS: &'static [&'static str] = &[
        "GROUP",
        "CURRENT",
        "DESIRED",
        "MIN",
        "MAX",
        "LAG",
        "IN FLIGHT",
        "ARRIVALS/S",
        "SERVICE",
        "EXECUTOR",
        "STATE",
        "REASON",
    ];

    fn cells(&self) -> Vec<String> {
        let mut cells = self.texts();
        let [.., reason] = &mut cells;
        *reason = cut(reason, REASON_CHARS);
        cells.into()
    }

    fn tone(&self, column: usize) -> Option<Tone> {
        let desired = self.desired_consumers.unwrap_or(self.current_consumers);
        match column {
            2 if desired != self.current_consumers => Some(Tone::Attention),
            10 if !self.enabled => Some(Tone::Faint),
            10 if self.executor_state == "failing" => Some(Tone::Bad),
            10 if self.executor_state == "ok" => Some(Tone::Good),
            _ => None,
        }
    }
}

/// A scaling event.
#[derive(Debug, Serialize)]
pub(super) struct EventView {
    pub(super) event_id: String,
    time: Option<String>,
    group: String,
    kind: &'static str,
    from: u32,
    to: u32,
    reason: String,
    inputs: Option<InputsView>,
    consumer_id: String,
    epoch: u64,
}

impl From<wire::ScalingEvent> for EventView {
    fn from(event: wire::ScalingEvent) -> Self {
        Self {
            kind: word_for(&SCALING_EVENT_KINDS, event.kind()),
            time: rfc3339(event.time.as_ref()),
            inputs: event.inputs.map(InputsView::from),
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

impl EventView {
    /// One text per column, with the whole reason.
    pub(super) fn texts(&self) -> [String; 5] {
        let change = if self.consumer_id.is_empty() {
            format!("{} -> {}", self.from, self.to)
        } else {
            self.consumer_id.clone()
        };
        [
            self.time.clone().unwrap_or_default(),
            self.group.clone(),
            self.kind.to_owned(),
            change,
            self.reason.clone(),
        ]
    }
}

impl Show for EventView {
    const COLUMNS: &'static [&'static str] = &["TIME", "GROUP", "KIND", "CHANGE", "REASON"];

    fn cells(&self) -> Vec<String> {
        let mut cells = self.texts();
        let [.., reason] = &mut cells;
        *reason = cut(reason, REASON_CHARS);
        cells.into()
    }

    fn tone(&self, column: usize) -> Option<Tone> {
        match (column, self.kind) {
            (2, "failing") => Some(Tone::Bad),
            (2, "recovered") => Some(Tone::Good),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaling() -> wire::GroupScaling {
        wire::GroupScaling {
            group: "g".to_owned(),
            enabled: true,
            current_consumers: 4,
            desired_consumers: Some(2),
            reason: "little to do".to_owned(),
            ..wire::GroupScaling::default()
        }
    }

    #[test]
    fn consumers_that_go_are_told_apart() {
        let group = wire::GroupScaling {
            draining_consumers: 2,
            ..scaling()
        };
        let [_, current, desired, ..] = ScalingView::from(group).texts();
        assert_eq!((&*current, &*desired), ("4 (2 draining)", "2"));
    }

    #[test]
    fn a_group_that_is_not_scaled_is_off_and_one_that_fails_says_why() {
        let off = wire::GroupScaling {
            enabled: false,
            desired_consumers: None,
            ..scaling()
        };
        let [.., state, _] = ScalingView::from(off).texts();
        assert_eq!(state, "off");
        let failing = wire::GroupScaling {
            executor_state: wire::ExecutorState::Failing.into(),
            executor_error: "no such deployment".to_owned(),
            ..scaling()
        };
        let [.., state, reason] = ScalingView::from(failing).texts();
        assert_eq!((&*state, &*reason), ("failing", "no such deployment"));
    }

    #[test]
    fn an_event_of_a_drain_names_its_consumer() {
        let drain = wire::ScalingEvent {
            kind: wire::ScalingEventKind::Drain.into(),
            consumer_id: "a".to_owned(),
            ..wire::ScalingEvent::default()
        };
        assert_eq!(EventView::from(drain).texts()[2..4], ["drain", "a"]);
        let up = wire::ScalingEvent {
            kind: wire::ScalingEventKind::Up.into(),
            from: 1,
            to: 4,
            ..wire::ScalingEvent::default()
        };
        assert_eq!(EventView::from(up).texts()[2..4], ["up", "1 -> 4"]);
    }
}
