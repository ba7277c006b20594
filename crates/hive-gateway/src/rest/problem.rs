//! Faults as answers, in the words of this door.
//!
//! The gateway names fields as the wire does; callers of this door wrote JSON, where durations
//! carry their unit in the name and settings stand at the top.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use hive_domain::violation::{Violation, Violations};
use hive_protocol::{
    fault::{Fault, FaultKind},
    http::{PROBLEM_MEDIA_TYPE, ProblemJson, retry_after_seconds},
};

use super::shape::{
    Kind::{Count, Many, Text},
    Shape, optional, required,
};

/// The body of every refusal.
pub(crate) static PROBLEM: Shape = Shape::new(
    "Problem",
    "Why a request was refused (RFC 9457).",
    &[&[
        required("type", Text(128), "A URN that names the kind of problem."),
        required("title", Text(128), "The kind of problem in words."),
        required("status", Count(400, 599), "The HTTP status, again."),
        required("detail", Text(65_536), "What, which value, which rule."),
        required(
            "reason",
            Text(64),
            "Stable word in upper snake case, the same as over gRPC.",
        ),
        optional("violations", Many(&VIOLATION), "Every field at fault."),
        optional(
            "retry_after_seconds",
            Count(1, u64::MAX),
            "Seconds to wait before trying again; absent when waiting does not help.",
        ),
    ]],
);

static VIOLATION: Shape = Shape::new(
    "Violation",
    "One field that breaks a rule.",
    &[&[
        required("field", Text(1_024), "Path of the field."),
        required("description", Text(1_024), "The value and the rule."),
    ]],
);

/// A refusal on its way out.
#[derive(Debug)]
pub(crate) struct Problem(Fault);

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Self(fault)
    }
}

impl From<Violations> for Problem {
    fn from(violations: Violations) -> Self {
        Self(Fault::invalid(violations))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self(fault) = self;
        if fault.kind.is_alarm() {
            let (reason, detail) = (fault.reason.as_str(), fault.detail.as_deref());
            tracing::error!(reason, detail, message = %fault.message, "rest_call_broken");
        }
        let problem = ProblemJson::from(&fault);
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(PROBLEM_MEDIA_TYPE),
        );
        if let Some(seconds) = retry_after_seconds(&fault) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A fault of the gateway with its fields named as this door names them; `prefix` is where the
/// object stands that was sent on.
pub(crate) fn in_our_words(fault: Fault, prefix: &str) -> Fault {
    if fault.kind != FaultKind::Invalid || fault.violations.is_empty() {
        return fault;
    }
    let renamed = renamed(fault.violations, prefix);
    let mut ours = Fault::invalid_because(fault.reason, renamed);
    ours.detail = fault.detail;
    ours.retry_after = fault.retry_after;
    ours
}

/// Violations with their fields named as this door names them.
pub(crate) fn renamed(violations: impl IntoIterator<Item = Violation>, prefix: &str) -> Violations {
    let rename = |violation: Violation| {
        Violation::new(field(&violation.field), violation.description).below(prefix)
    };
    violations.into_iter().map(rename).collect()
}

/// The name at this door of a field of the wire. Where an object stood in the wire's request is
/// cut off.
fn field(wire: &str) -> String {
    let is_place = |segment: &&str| {
        !["settings", "stream_settings", "message", "config"].contains(segment)
            && !segment.starts_with("messages[")
    };
    let segments = wire
        .split('.')
        .filter(is_place)
        .map(|segment| match segment {
            "lease" => "lease_seconds",
            "initial_backoff" => "initial_backoff_seconds",
            "max_backoff" => "max_backoff_seconds",
            "priority_ageing" => "priority_ageing_seconds",
            "reconnect_grace" => "reconnect_grace_seconds",
            "retention_max_age" => "retention.max_age_seconds",
            "retention_max_len" => "retention.max_len",
            "retention_max_bytes" => "retention.max_bytes",
            "expires_at" => "ttl_seconds",
            "wait" => "wait_seconds",
            "timeout" => "timeout_seconds",
            "queue_timeout" => "queue_timeout_seconds",
            "deadline" => "deadline_seconds",
            "progress_timeout" => "progress_timeout_seconds",
            "drain_target" => "drain_target_seconds",
            "startup_time" => "startup_time_seconds",
            "scale_up_window" => "scale_up_window_seconds",
            "scale_down_window" => "scale_down_window_seconds",
            "scale_up_cooldown" => "scale_up_cooldown_seconds",
            "scale_down_cooldown" => "scale_down_cooldown_seconds",
            other => other,
        });
    segments.collect::<Vec<&str>>().join(".")
}

#[cfg(test)]
mod tests {
    use axum::{http::header, response::IntoResponse as _};
    use hive_domain::violation::Violations;
    use hive_protocol::fault::{Fault, Reason};

    use super::{Problem, field, in_our_words};

    #[test]
    fn fields_of_the_wire_get_the_names_of_this_door() {
        for (wire, ours) in [
            ("settings.lease", "lease_seconds"),
            ("settings.retention_max_age", "retention.max_age_seconds"),
            ("stream_settings.max_backlog", "max_backlog"),
            ("message.retry.max_backoff", "retry.max_backoff_seconds"),
            ("messages[3].expires_at", "ttl_seconds"),
            ("headers", "headers"),
            (
                "settings.scaling.drain_target",
                "scaling.drain_target_seconds",
            ),
            ("config.rebalance_interval", "rebalance_interval"),
        ] {
            assert_eq!(field(wire), ours);
        }
    }

    #[test]
    fn the_message_of_a_fault_follows_its_renamed_fields() {
        let fault = Fault::invalid(Violations::one("settings.lease", "too long"));
        let ours = in_our_words(fault, "");
        assert_eq!(ours.message, "invalid request: lease_seconds: too long");
    }

    #[test]
    fn a_fault_that_time_heals_says_when_to_come_back() {
        let fault = Fault::new(Reason::RedisUnavailable, "redis does not answer")
            .with_retry_after(std::time::Duration::from_millis(1_200));
        let response = Problem::from(fault).into_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
    }
}
