//! Dead letters as JSON, and what is read of a request.

use hive_domain::violation::Violations;
use hive_protocol::{
    fault::Fault,
    wire,
    words::{DEAD_LETTER_STATUSES, dead_letter_status, parse_dead_letter_status},
};
use serde_json::{Value, json};

use super::{
    shapes::{
        ANALYSIS, ATTEMPT, BATCH_REPLAY, BATCH_REPLAYED, CHANGE, DEAD_LETTER, JOB, STATISTICS,
        STATUSES,
    },
    shown::{AnalysisOut, BatchOut, DeadLetterOut, JobOut, StatisticsOut},
    *,
};
use crate::rest::tests::{misfits, raw};

const AT: Option<prost_types::Timestamp> = Some(prost_types::Timestamp {
    seconds: 1,
    nanos: 0,
});

fn shown(value: impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

fn full_letter() -> wire::DeadLetter {
    let text = str::to_owned;
    wire::DeadLetter {
        dlq_id: text("d"),
        message_id: text("m"),
        stream: text("s"),
        group: text("g"),
        category: text("timeout"),
        rule: text("named"),
        fingerprint: text("00ff"),
        status: wire::DeadLetterStatus::Replayed.into(),
        deliveries: 3,
        failures: 3,
        attempts: vec![wire::FailedAttempt {
            consumer: text("c"),
            started_at: AT,
            ended_at: AT,
            category: text("timeout"),
            error_type: text("TimeoutError"),
            reason: text("no answer"),
            stack: text("at a"),
        }],
        dead_lettered_at: AT,
        message_type: text("t"),
        from_agent: text("a"),
        workflow_id: text("w"),
        run_id: text("r"),
        task_id: text("k"),
        traceparent: text("00-a-b-01"),
        strategy: text("delayed_retry"),
        recovery_at: AT,
        replays: 1,
        automatic_replays: 1,
        replay_message_id: text("n"),
        replay_outcome: wire::ReplayOutcome::Pending.into(),
        replay_of: text("e"),
        payload_bytes: 7,
        message: Some(wire::Message::default()),
        edited_payload: Some("{\"n\":2}".into()),
        history: vec![wire::DeadLetterChange {
            at: AT,
            status: wire::DeadLetterStatus::Quarantined.into(),
            by: text("intake"),
            why: text("new"),
        }],
        undecodable: "x".into(),
    }
}

#[test]
fn a_full_dead_letter_has_every_declared_field() {
    let letter = shown(DeadLetterOut::from(full_letter()));
    assert_eq!(misfits(&letter, &DEAD_LETTER), ["edited_payload_base64"]);
    assert_eq!(misfits(&letter["attempts"][0], &ATTEMPT), [""; 0]);
    assert_eq!(misfits(&letter["history"][0], &CHANGE), [""; 0]);
    assert_eq!(letter["edited_payload"], json!({ "n": 2 }));
    assert_eq!(letter["replay_outcome"], "pending");
}

#[test]
fn what_is_not_known_of_a_dead_letter_is_not_shown() {
    let letter = shown(DeadLetterOut::from(wire::DeadLetter::default()));
    let required = DEAD_LETTER.fields().filter(|field| field.is_required);
    let shown: Vec<&String> = letter.as_object().unwrap().keys().collect();
    assert_eq!(shown.len(), required.count(), "{shown:?}");
}

#[test]
fn every_status_has_a_word_that_is_read_back() {
    for ((status, word), declared) in DEAD_LETTER_STATUSES.iter().zip(STATUSES) {
        assert_eq!((dead_letter_status(*status), word), (*word, declared));
        assert_eq!(parse_dead_letter_status(word), Some(*status));
    }
    assert_eq!(STATUSES.len(), DEAD_LETTER_STATUSES.len());
}

fn full_job(state: wire::ReplayJobState) -> wire::ReplayJob {
    wire::ReplayJob {
        job_id: "j".into(),
        state: state.into(),
        filter: Some(wire::DeadLetterFilter {
            category: "timeout".into(),
            status: vec![wire::DeadLetterStatus::Analyzed.into()],
            ..wire::DeadLetterFilter::default()
        }),
        limit: 10,
        rate: 5,
        canary: 1,
        total: 4,
        attempted: 3,
        replayed: 2,
        failed: 1,
        errors: vec!["d: taken".into()],
        error: "e".into(),
        created_at: AT,
        ended_at: AT,
        by: "me".into(),
    }
}

#[test]
fn a_job_is_shown_in_the_words_that_asked_for_it() {
    let job = shown(JobOut::from(full_job(wire::ReplayJobState::Canary)));
    assert_eq!(misfits(&job, &JOB), [""; 0]);
    let filter = json!({ "failure_category": "timeout", "status": ["analyzed"] });
    assert_eq!(job["filter_criteria"], filter);
    assert_eq!(job["state"], "canary");
}

#[test]
fn a_batch_says_whether_it_is_done() {
    use wire::ReplayJobState::{Canary, Cancelled, Done, Failed, Running};
    for (state, word) in [
        (Done, "success"),
        (Running, "running"),
        (Canary, "running"),
        (Cancelled, "cancelled"),
        (Failed, "failed"),
    ] {
        let answer = wire::ReplayDeadLettersResponse {
            job: Some(full_job(state)),
            would_replay: 4,
            sample: Vec::new(),
        };
        let batch = BatchOut::of(answer, false);
        assert_eq!(batch.is_running(), word == "running");
        let batch = shown(batch);
        assert_eq!(batch["status"], word);
        assert_eq!(misfits(&batch, &BATCH_REPLAYED), ["would_replay"]);
        let result = json!({
            "total_attempted": 3, "successful": 2, "failed": 1, "errors": ["d: taken"],
        });
        assert_eq!(batch["batch_replay_result"], result);
    }
    let counted = wire::ReplayDeadLettersResponse {
        would_replay: 4,
        ..wire::ReplayDeadLettersResponse::default()
    };
    let counted = shown(BatchOut::of(counted, true));
    assert_eq!(
        counted,
        json!({
            "status": "success",
            "batch_replay_result":
                { "total_attempted": 0, "successful": 0, "failed": 0, "errors": [] },
            "dry_run": true,
            "would_replay": 4,
        })
    );
}

#[test]
fn figures_and_patterns_have_every_declared_field() {
    let figures = wire::GetDeadLetterStatisticsResponse {
        mean_age: Some(prost_types::Duration {
            seconds: 5_400,
            nanos: 0,
        }),
        by_age: vec![wire::NamedCount {
            name: "<1h".into(),
            count: 2,
        }],
        ..wire::GetDeadLetterStatisticsResponse::default()
    };
    let figures = shown(StatisticsOut::from(figures));
    assert_eq!(misfits(&figures, &STATISTICS), [""; 0]);
    assert_eq!(figures["average_time_in_dlq_hours"], 1.5);
    assert_eq!(figures["messages_by_age"], json!({ "<1h": 2 }));
    let found = wire::AnalyzeDeadLettersResponse::default();
    assert_eq!(
        misfits(&shown(AnalysisOut::from(found)), &ANALYSIS),
        [""; 0]
    );
}

fn read(body: &Value) -> Result<wire::ReplayDeadLettersRequest, Vec<String>> {
    let mut fields = Fields::of(&raw(body), &BATCH_REPLAY, "");
    let request = read_batch(&mut fields);
    let named = |faults: Violations| faults.into_iter().map(|fault| fault.field).collect();
    fields.finish().map(|()| request).map_err(named)
}

#[test]
fn every_field_of_a_batch_is_read() {
    let request = read(&json!({
        "filter_criteria": {
            "failure_category": "timeout", "group": "g", "stream": "s", "status": "analyzed",
            "fingerprint": "ff", "message_type": "t", "workflow_id": "w", "error_type": "E",
            "from_time": "2026-01-01T00:00:00Z", "to_time": "2026-01-02T00:00:00Z",
        },
        "max_messages": 7, "priority_boost": true, "dry_run": true, "rate": 3, "canary": 2,
        "target_group": "h", "target_stream": "u", "job_id": "j",
    }))
    .unwrap();
    let filter = request.filter.unwrap();
    assert_eq!((&*filter.category, &*filter.group), ("timeout", "g"));
    assert_eq!(filter.status, [wire::DeadLetterStatus::Analyzed as i32]);
    assert_eq!((&*filter.fingerprint, &*filter.error_type), ("ff", "E"));
    assert_eq!(filter.from_time.unwrap().seconds, 1_767_225_600);
    assert_eq!((request.limit, request.priority_boost), (7, 2));
    assert_eq!(
        (request.rate, request.canary, request.dry_run),
        (3, 2, true)
    );
    assert_eq!(
        (&*request.target_group, &*request.target_stream),
        ("h", "u")
    );
    assert_eq!((&*request.job_id, request.wait.unwrap().seconds), ("j", 25));

    let bare = read(&json!({})).unwrap();
    assert_eq!((bare.limit, bare.priority_boost), (10, 0));
    let boosted = read(&json!({ "priority_boost": 9 })).unwrap();
    assert_eq!(boosted.priority_boost, 9);
    let many = json!({ "filter_criteria": { "status": ["analyzed", "replayable"] } });
    assert_eq!(read(&many).unwrap().filter.unwrap().status.len(), 2);
}

#[test]
fn all_faults_of_a_batch_are_told_at_once() {
    let faults = read(&json!({
        "filter_criteria": {
            "category": "timeout", "status": ["lost"], "group": "no name",
            "from_time": "2026-01-02T00:00:00Z", "to_time": "2026-01-01T00:00:00Z",
        },
        "max_messages": 101, "priority_boost": 10, "force": true,
    }))
    .unwrap_err();
    let expected = [
        "force",
        "filter_criteria.category",
        "filter_criteria.status",
        "filter_criteria.group",
        "filter_criteria.to_time",
        "max_messages",
        "priority_boost",
    ];
    assert_eq!(faults, expected);
}

#[test]
fn fields_of_the_wire_get_the_names_of_this_door() {
    let status = || {
        let mut faults = Violations::new();
        faults.push("filter.category", "is none");
        faults.push("filter.group", "is none");
        faults.push("limit", "too many");
        Status::from(Fault::invalid(faults))
    };
    let text = format!("{:?}", ours(status()));
    for field in [
        "filter_criteria.failure_category",
        "filter_criteria.group",
        "max_messages",
    ] {
        assert!(text.contains(field), "{text}");
    }
    let text = format!("{:?}", ours_of_query(status()));
    assert!(
        text.contains("\"category\"") && text.contains("\"limit\""),
        "{text}"
    );
}
