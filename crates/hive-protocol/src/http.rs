//! Faults as answers of the REST door: RFC 9457 problem details.

use std::time::Duration;

use hive_domain::violation::Violation;
use serde::{Deserialize, Serialize};

use crate::fault::{Fault, FaultKind, Reason};

/// Media type of [`ProblemJson`].
pub const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

/// What `type` of a problem begins with; the reason in lower case with hyphens follows.
const TYPE_PREFIX: &str = "urn:agenthive:problem:";

/// The body of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemJson {
    /// A URN that names the kind of problem, e.g. `urn:agenthive:problem:group-not-found`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem in words; the same for each problem of this kind.
    pub title: String,
    /// The HTTP status, again.
    pub status: u16,
    /// This problem: what, which value, which rule.
    pub detail: String,
    /// Stable word in upper snake case, the same as over gRPC.
    pub reason: String,
    /// Every field at fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<FieldFault>,
    /// Seconds to wait before trying again; absent when waiting does not help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u64>,
}

/// One field that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldFault {
    /// Path of the field.
    pub field: String,
    /// The value and the rule.
    pub description: String,
}

/// What HTTP has a status of its own for, closer than that of the kind.
const CLOSER: [(Reason, u16); 6] = [
    (Reason::MalformedBody, 400),
    (Reason::MethodNotAllowed, 405),
    (Reason::BodyTooLarge, 413),
    (Reason::PayloadTooLarge, 413),
    (Reason::BatchTooLarge, 413),
    (Reason::UnsupportedMediaType, 415),
];

/// The HTTP status of a fault.
#[must_use]
pub fn status(fault: &Fault) -> u16 {
    if let Some((_, closer)) = CLOSER.iter().find(|(reason, _)| *reason == fault.reason) {
        return *closer;
    }
    match fault.kind {
        FaultKind::Invalid => 422,
        FaultKind::Unauthenticated => 401,
        FaultKind::Forbidden => 403,
        FaultKind::NotFound => 404,
        FaultKind::Exists | FaultKind::WrongState | FaultKind::Fenced => 409,
        FaultKind::Saturated => 429,
        FaultKind::Unavailable => 503,
        FaultKind::Timeout => 504,
        FaultKind::Unsupported => 501,
        FaultKind::Corrupt | FaultKind::Bug => 500,
    }
}

/// Whole seconds of the `Retry-After` header, rounded up and at least 1; none when waiting does not
/// help.
#[must_use]
pub fn retry_after_seconds(fault: &Fault) -> Option<u64> {
    fault.retry_after.map(|wait| {
        let part = u64::from(wait.subsec_nanos() > 0);
        wait.as_secs().saturating_add(part).max(1)
    })
}

impl From<&Fault> for ProblemJson {
    fn from(fault: &Fault) -> Self {
        let word = fault.reason.as_str();
        Self {
            kind: format!(
                "{TYPE_PREFIX}{}",
                word.to_ascii_lowercase().replace('_', "-")
            ),
            title: title(fault.kind).to_owned(),
            status: status(fault),
            detail: fault.message.clone(),
            reason: word.to_owned(),
            violations: fault
                .violations
                .iter()
                .map(|violation| FieldFault {
                    field: violation.field.clone(),
                    description: violation.description.clone(),
                })
                .collect(),
            retry_after_seconds: retry_after_seconds(fault),
        }
    }
}

impl From<ProblemJson> for Fault {
    fn from(problem: ProblemJson) -> Self {
        let mut fault = match problem.reason.parse::<Reason>() {
            Ok(reason) => Self::new(reason, problem.detail),
            Err(_) => {
                let message = format!("{}: {}", problem.reason, problem.detail);
                Self::new(foreign_reason(problem.status), message)
            },
        };
        fault.violations = problem
            .violations
            .into_iter()
            .map(|violation| Violation::new(violation.field, violation.description))
            .collect();
        fault.retry_after = problem.retry_after_seconds.map(Duration::from_secs);
        fault
    }
}

/// A kind in words, the same for each fault of that kind.
const fn title(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::Invalid => "The request is invalid",
        FaultKind::Unauthenticated => "The caller is not known",
        FaultKind::Forbidden => "The caller is not allowed to do this",
        FaultKind::NotFound => "There is no such thing",
        FaultKind::Exists => "It exists already with other content",
        FaultKind::WrongState => "The request does not fit the present state",
        FaultKind::Fenced => "Somebody else has taken over",
        FaultKind::Saturated => "A limit is reached",
        FaultKind::Unavailable => "The service is not available",
        FaultKind::Timeout => "The outcome is unknown",
        FaultKind::Unsupported => "This is not supported",
        FaultKind::Corrupt => "Stored data is damaged",
        FaultKind::Bug => "The server is at fault",
    }
}

/// What a status means that came without a reason this version knows.
const fn foreign_reason(status: u16) -> Reason {
    match status {
        400 => Reason::MalformedBody,
        401 => Reason::Unauthenticated,
        403 => Reason::PermissionDenied,
        404 => Reason::NotFound,
        405 => Reason::MethodNotAllowed,
        409 => Reason::FailedPrecondition,
        413 => Reason::BodyTooLarge,
        415 => Reason::UnsupportedMediaType,
        429 => Reason::Saturated,
        501 => Reason::Unsupported,
        502 | 503 => Reason::Unreachable,
        // A 500 from somebody else says nothing about what was done.
        500 | 504 => Reason::OutcomeUnknown,
        _ if status < 500 => Reason::InvalidArgument,
        _ => Reason::OutcomeUnknown,
    }
}

#[cfg(test)]
mod tests;
