//! Faults as gRPC statuses, and statuses of others as faults.
//!
//! Ours carry `google.rpc.ErrorInfo` (domain `agenthive`), `BadRequest` with every field fault and
//! `RetryInfo`. Details ride in an HTTP/2 trailer, which common clients bound to 8 or 16 KiB for
//! all trailers together, so they are cut; the REST door sends them whole.

use std::{collections::HashMap, error::Error, time::Duration};

use hive_domain::violation::Violation;
use tonic::{Code, ConnectError, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::{
    fault::{Fault, FaultKind, Reason},
    time, wire,
};

/// The domain of our reasons in `google.rpc.ErrorInfo`.
pub const ERROR_DOMAIN: &str = "agenthive";

/// Most bytes of field faults in a trailer. Base64 makes 4 KiB of these 3 KiB.
const VIOLATIONS_BYTES_MAX: usize = 3 << 10;
/// Most bytes of the message in a trailer. It is percent-encoded, and it is repeated in the
/// details.
const MESSAGE_BYTES_MAX: usize = 1 << 10;

/// The gRPC code of a kind.
#[must_use]
pub const fn code(kind: FaultKind) -> Code {
    match kind {
        FaultKind::Invalid => Code::InvalidArgument,
        FaultKind::Unauthenticated => Code::Unauthenticated,
        FaultKind::Forbidden => Code::PermissionDenied,
        FaultKind::NotFound => Code::NotFound,
        FaultKind::Exists => Code::AlreadyExists,
        FaultKind::WrongState | FaultKind::Fenced => Code::FailedPrecondition,
        FaultKind::Saturated => Code::ResourceExhausted,
        FaultKind::Unavailable => Code::Unavailable,
        FaultKind::Timeout => Code::DeadlineExceeded,
        FaultKind::Unsupported => Code::Unimplemented,
        FaultKind::Corrupt => Code::DataLoss,
        FaultKind::Bug => Code::Internal,
    }
}

/// What a code means that came without a reason of ours: from a proxy, a library or a newer
/// version.
///
/// INTERNAL and UNKNOWN without our details are what transports answer when a connection breaks in
/// mid-call, so the outcome is unknown; our own broken invariants always carry their reason.
const fn foreign_reason(code: Code) -> Reason {
    match code {
        Code::InvalidArgument | Code::OutOfRange => Reason::InvalidArgument,
        Code::Unauthenticated => Reason::Unauthenticated,
        Code::PermissionDenied => Reason::PermissionDenied,
        Code::NotFound => Reason::NotFound,
        Code::AlreadyExists => Reason::AlreadyExists,
        Code::FailedPrecondition => Reason::FailedPrecondition,
        Code::ResourceExhausted => Reason::Saturated,
        // ABORTED says that a concurrent change won: nothing was done, and it may be tried again.
        Code::Unavailable | Code::Aborted => Reason::Unreachable,
        Code::DeadlineExceeded => Reason::DeadlineExceeded,
        Code::Cancelled | Code::Unknown | Code::Internal => Reason::OutcomeUnknown,
        Code::Unimplemented => Reason::Unsupported,
        Code::DataLoss => Reason::DataLoss,
        // A success is no fault: whoever made one of it is wrong.
        Code::Ok => Reason::Bug,
    }
}

/// What a status without a reason of ours means, also by where it came from.
///
/// `Unavailable` promises that nothing was done. Our own transport answers UNAVAILABLE when it
/// could not connect, where that holds, but also when a connection dies in mid-call, where it does
/// not.
fn transport_reason(status: &Status) -> Reason {
    let is_local = status.source().is_some();
    if status.code() == Code::Unavailable && is_local && !has_connect_error(status) {
        return Reason::OutcomeUnknown;
    }
    foreign_reason(status.code())
}

/// Whether a failure to connect stands behind `error`.
fn has_connect_error(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<ConnectError>() {
            return true;
        }
        next = error.source();
    }
    false
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        Self::from(&fault)
    }
}

impl From<&Fault> for Status {
    fn from(fault: &Fault) -> Self {
        let mut details = ErrorDetails::new();
        details.set_error_info(fault.reason.as_str(), ERROR_DOMAIN, HashMap::new());
        if !fault.violations.is_empty() {
            details.set_bad_request(field_violations(&fault.violations));
        }
        if let Some(wait) = fault.retry_after {
            details.set_retry_info(Some(wait));
        }
        let message = cut(&fault.message, MESSAGE_BYTES_MAX);
        Self::with_error_details(code(fault.kind), message, details)
    }
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        Self::from(&status)
    }
}

impl From<&Status> for Fault {
    fn from(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details
            .error_info()
            .filter(|info| info.domain == ERROR_DOMAIN);
        let known = info.and_then(|info| info.reason.parse::<Reason>().ok());
        let reason = known.unwrap_or_else(|| transport_reason(status));
        let mut fault = Self::new(reason, status.message());
        // A newer server's reason is lost here, so its word goes into the message.
        if let (Some(info), None) = (info, known) {
            fault.message = format!("{}: {}", info.reason, fault.message);
            fault.kind = ours_of_code(status.code());
        }
        fault.retry_after = details.retry_info().and_then(|retry| retry.retry_delay);
        fault.violations = details
            .bad_request()
            .map(|bad| bad.field_violations.as_slice())
            .unwrap_or_default()
            .iter()
            .map(|fault| Violation::new(fault.field.clone(), fault.description.clone()))
            .collect();
        fault
    }
}

impl From<&Fault> for wire::Problem {
    fn from(fault: &Fault) -> Self {
        Self {
            reason: fault.reason.as_str().to_owned(),
            message: fault.message.clone(),
            code: u32::try_from(i32::from(code(fault.kind))).unwrap_or_default(),
            field_violations: fault
                .violations
                .iter()
                .map(|fault| wire::FieldViolation {
                    field: fault.field.clone(),
                    description: fault.description.clone(),
                })
                .collect(),
            retry_after: fault
                .retry_after
                .map(|wait| time::to_duration(millis(wait))),
        }
    }
}

impl From<wire::Problem> for Fault {
    fn from(problem: wire::Problem) -> Self {
        let code = i32::try_from(problem.code).map_or(Code::Unknown, Code::from_i32);
        let mut fault = match problem.reason.parse::<Reason>() {
            Ok(reason) => Self::new(reason, problem.message),
            Err(_) => {
                let message = format!("{}: {}", problem.reason, problem.message);
                let mut fault = Self::new(foreign_reason(code), message);
                fault.kind = ours_of_code(code);
                fault
            },
        };
        fault.violations = problem
            .field_violations
            .into_iter()
            .map(|fault| Violation::new(fault.field, fault.description))
            .collect();
        fault.retry_after = problem
            .retry_after
            .and_then(|wait| time::duration_ms("retry_after", &wait, u64::MAX).ok())
            .map(Duration::from_millis);
        fault
    }
}

/// The kind of a fault of ours whose reason this version does not know. Unlike a foreign one an
/// INTERNAL of ours is a broken invariant.
const fn ours_of_code(code: Code) -> FaultKind {
    match code {
        Code::Internal => FaultKind::Bug,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => foreign_reason(code).kind(),
    }
}

/// The field faults that fit a trailer; a last one says how many do not.
fn field_violations(violations: &[Violation]) -> Vec<FieldViolation> {
    let mut room = VIOLATIONS_BYTES_MAX;
    let mut fitting = Vec::new();
    for violation in violations {
        let bytes = violation.field.len() + violation.description.len();
        let Some(rest) = room.checked_sub(bytes) else {
            break;
        };
        room = rest;
        fitting.push(FieldViolation::new(
            &violation.field,
            &violation.description,
        ));
    }
    let left_out = violations.len() - fitting.len();
    if left_out > 0 {
        fitting.push(FieldViolation::new(
            "",
            format!("{left_out} more faults do not fit here"),
        ));
    }
    fitting
}

/// The first `max` bytes of `text`, cut between characters.
fn cut(text: &str, max: usize) -> String {
    let mut text = text.to_owned();
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max));
        text.push('…');
    }
    text
}

fn millis(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
