//! All kinds across REST, in both directions.

use std::time::Duration;

use hive_domain::violation::Violation;

use super::{ProblemJson, retry_after_seconds, status};
use crate::fault::{Fault, FaultKind, Reason};

/// The table of kinds and statuses, as the house style has it.
const KINDS: [(FaultKind, Reason, u16); 13] = [
    (FaultKind::Invalid, Reason::InvalidArgument, 422),
    (FaultKind::Unauthenticated, Reason::Unauthenticated, 401),
    (FaultKind::Forbidden, Reason::PermissionDenied, 403),
    (FaultKind::NotFound, Reason::StreamNotFound, 404),
    (FaultKind::Exists, Reason::IdempotencyKeyReused, 409),
    (FaultKind::WrongState, Reason::GroupNotEmpty, 409),
    (FaultKind::Fenced, Reason::Fenced, 409),
    (FaultKind::Saturated, Reason::GroupFull, 429),
    (FaultKind::Unavailable, Reason::Draining, 503),
    (FaultKind::Timeout, Reason::DeadlineExceeded, 504),
    (FaultKind::Unsupported, Reason::NotBuilt, 501),
    (FaultKind::Corrupt, Reason::Corrupt, 500),
    (FaultKind::Bug, Reason::Bug, 500),
];

#[test]
fn every_kind_keeps_its_status_and_comes_back_as_it_went() {
    assert_eq!(KINDS.map(|(kind, ..)| kind), FaultKind::ALL);
    for (kind, reason, expected) in KINDS {
        let mut sent =
            Fault::new(reason, "what `value` rule").with_retry_after(Duration::from_secs(2));
        sent.violations = vec![Violation::new("a", "b")];
        assert_eq!(sent.kind, kind);
        assert_eq!(status(&sent), expected, "{kind:?}");
        let json = serde_json::to_string(&ProblemJson::from(&sent)).unwrap();
        let back: ProblemJson = serde_json::from_str(&json).unwrap();
        assert_eq!(back.status, expected);
        assert_eq!(Fault::from(back), sent);
    }
}

#[test]
fn what_http_has_its_own_status_for_gets_it() {
    for (reason, expected) in [
        (Reason::MalformedBody, 400),
        (Reason::MethodNotAllowed, 405),
        (Reason::BodyTooLarge, 413),
        (Reason::PayloadTooLarge, 413),
        (Reason::BatchTooLarge, 413),
        (Reason::UnsupportedMediaType, 415),
    ] {
        assert_eq!(status(&Fault::new(reason, "x")), expected, "{reason}");
    }
}

#[test]
fn a_problem_reads_as_rfc_9457_has_it() {
    let fault = Fault::no_group("builders");
    assert_eq!(
        serde_json::to_value(ProblemJson::from(&fault)).unwrap(),
        serde_json::json!({
            "type": "urn:agenthive:problem:group-not-found",
            "title": "There is no such thing",
            "status": 404,
            "detail": "there is no group `builders`",
            "reason": "GROUP_NOT_FOUND",
        })
    );
}

#[test]
fn the_words_for_the_log_stay_inside() {
    let json = serde_json::to_string(&ProblemJson::from(&Fault::bug("secret key 7"))).unwrap();
    assert!(!json.contains("secret"), "{json}");
}

#[test]
fn retry_after_is_whole_seconds_rounded_up_and_never_zero() {
    let seconds = |millis| {
        let fault = Fault::new(Reason::StreamFull, "x");
        retry_after_seconds(&fault.with_retry_after(Duration::from_millis(millis)))
    };
    assert_eq!(
        (seconds(0), seconds(50), seconds(1_001)),
        (Some(1), Some(1), Some(2))
    );
    assert_eq!(retry_after_seconds(&Fault::bug("x")), None);
}

#[test]
fn a_problem_of_a_newer_server_keeps_its_word_and_the_kind_of_its_status() {
    let problem = ProblemJson {
        kind: "about:blank".to_owned(),
        title: String::new(),
        status: 503,
        detail: "no paper".to_owned(),
        reason: "OUT_OF_PAPER".to_owned(),
        violations: Vec::new(),
        retry_after_seconds: None,
    };
    let fault = Fault::from(problem);
    assert_eq!(fault.kind, FaultKind::Unavailable);
    assert_eq!(fault.message, "OUT_OF_PAPER: no paper");
}
