//! All kinds across gRPC, in both directions.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use hive_domain::violation::{Violation, Violations};
use tonic::{Code, ConnectError, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::code;
use crate::{
    fault::{Fault, FaultKind, Reason},
    wire,
};

/// The table of kinds and codes, as the house style has it.
const KINDS: [(FaultKind, Reason, Code); 13] = [
    (
        FaultKind::Invalid,
        Reason::InvalidArgument,
        Code::InvalidArgument,
    ),
    (
        FaultKind::Unauthenticated,
        Reason::Unauthenticated,
        Code::Unauthenticated,
    ),
    (
        FaultKind::Forbidden,
        Reason::PermissionDenied,
        Code::PermissionDenied,
    ),
    (FaultKind::NotFound, Reason::GroupNotFound, Code::NotFound),
    (FaultKind::Exists, Reason::GroupExists, Code::AlreadyExists),
    (
        FaultKind::WrongState,
        Reason::GroupNotEmpty,
        Code::FailedPrecondition,
    ),
    (
        FaultKind::Fenced,
        Reason::StaleLease,
        Code::FailedPrecondition,
    ),
    (
        FaultKind::Saturated,
        Reason::StreamFull,
        Code::ResourceExhausted,
    ),
    (
        FaultKind::Unavailable,
        Reason::RedisUnavailable,
        Code::Unavailable,
    ),
    (
        FaultKind::Timeout,
        Reason::OutcomeUnknown,
        Code::DeadlineExceeded,
    ),
    (
        FaultKind::Unsupported,
        Reason::NotBuilt,
        Code::Unimplemented,
    ),
    (FaultKind::Corrupt, Reason::DataLoss, Code::DataLoss),
    (FaultKind::Bug, Reason::Bug, Code::Internal),
];

fn fault(reason: Reason) -> Fault {
    let mut fault =
        Fault::new(reason, "what `value` rule").with_retry_after(Duration::from_millis(1_500));
    fault.violations = vec![Violation::new("a.b", "`1` must be 2")];
    fault
}

#[test]
fn every_kind_keeps_its_code_and_comes_back_as_it_went() {
    assert_eq!(KINDS.map(|(kind, ..)| kind), FaultKind::ALL);
    for (kind, reason, expected) in KINDS {
        let sent = fault(reason);
        assert_eq!(sent.kind, kind);
        let status = Status::from(sent.clone().with_detail("for the log"));
        assert_eq!(status.code(), expected, "{kind:?}");
        assert_eq!(status.message(), "what `value` rule");
        // All but the words for the log comes back.
        assert_eq!(Fault::from(status), sent);
    }
}

#[test]
fn every_kind_comes_back_from_the_problem_of_a_batch_as_it_went() {
    for (kind, reason, code) in KINDS {
        let sent = fault(reason);
        let problem = wire::Problem::from(&sent);
        assert_eq!(
            problem.code,
            u32::try_from(i32::from(code)).unwrap(),
            "{kind:?}"
        );
        assert_eq!(Fault::from(problem), sent);
    }
}

#[test]
fn every_reason_comes_back_over_grpc() {
    for reason in Reason::ALL {
        assert_eq!(
            Fault::from(Status::from(Fault::new(*reason, "x"))),
            Fault::new(*reason, "x")
        );
    }
}

#[test]
fn every_foreign_code_has_a_kind() {
    let kinds = [
        (Code::Ok, FaultKind::Bug),
        (Code::Cancelled, FaultKind::Timeout),
        (Code::Unknown, FaultKind::Timeout),
        (Code::InvalidArgument, FaultKind::Invalid),
        (Code::DeadlineExceeded, FaultKind::Timeout),
        (Code::NotFound, FaultKind::NotFound),
        (Code::AlreadyExists, FaultKind::Exists),
        (Code::PermissionDenied, FaultKind::Forbidden),
        (Code::ResourceExhausted, FaultKind::Saturated),
        (Code::FailedPrecondition, FaultKind::WrongState),
        (Code::Aborted, FaultKind::Unavailable),
        (Code::OutOfRange, FaultKind::Invalid),
        (Code::Unimplemented, FaultKind::Unsupported),
        (Code::Internal, FaultKind::Timeout),
        (Code::Unavailable, FaultKind::Unavailable),
        (Code::DataLoss, FaultKind::Corrupt),
        (Code::Unauthenticated, FaultKind::Unauthenticated),
    ];
    for (foreign, kind) in kinds {
        let fault = Fault::from(Status::new(foreign, "of a proxy"));
        assert_eq!(fault.kind, kind, "{foreign:?}");
        assert_eq!(fault.message, "of a proxy");
    }
}

#[test]
fn only_a_failure_to_connect_promises_that_nothing_was_done() {
    let mut refused = Status::unavailable("refused");
    refused.set_source(Arc::new(ConnectError(Box::new(io::Error::other(
        "refused",
    )))));
    assert_eq!(Fault::from(refused).reason, Reason::Unreachable);
    let mut died = Status::unavailable("keep-alive timed out");
    died.set_source(Arc::new(io::Error::other("timed out")));
    assert_eq!(Fault::from(died).reason, Reason::OutcomeUnknown);
}

#[test]
fn a_reason_of_a_newer_server_keeps_its_kind_and_its_word() {
    let newer = |code, domain: &str| {
        let details = ErrorDetails::with_error_info("OUT_OF_PAPER", domain, HashMap::new());
        Fault::from(Status::with_error_details(code, "no paper", details))
    };
    let ours = newer(Code::Internal, "agenthive");
    assert_eq!(
        (ours.kind, ours.message.as_str()),
        (FaultKind::Bug, "OUT_OF_PAPER: no paper")
    );
    assert_eq!(newer(Code::NotFound, "agenthive").kind, FaultKind::NotFound);
    assert_eq!(newer(Code::Internal, "elsewhere").kind, FaultKind::Timeout);
}

#[test]
fn what_does_not_fit_a_trailer_is_cut_and_said() {
    let mut faults = Violations::new();
    for n in 0..1_000 {
        faults.push(
            format!("messages[{n}].priority"),
            "`99` must be between 0 and 9",
        );
    }
    let status = Status::from(Fault::invalid(faults));
    assert!(
        status.details().len() < 8 << 10,
        "{} bytes",
        status.details().len()
    );
    assert!(status.message().len() <= 1_100);
    let shown = Fault::from(status).violations;
    let last = shown.last().unwrap();
    assert_eq!(
        last.description,
        format!("{} more faults do not fit here", 1_001 - shown.len())
    );
}

#[test]
fn both_failed_preconditions_share_a_code_and_differ_by_reason() {
    assert_eq!(code(FaultKind::WrongState), code(FaultKind::Fenced));
}
