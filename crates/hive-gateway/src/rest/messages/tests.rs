//! Messages in JSON: what is sent is shown, and every fault is named.

use hive_domain::violation::Violations;
use hive_protocol::wire;
use serde_json::{Value, json};

use super::{
    MESSAGE, MessageOut, STORED_MESSAGE, read,
    shapes::{RESUMPTION, STATES, TASK_INPUT},
};
use crate::rest::{
    asked::Trace,
    fields::Fields,
    tests::{misfits, raw},
};

fn message(body: &Value) -> Result<wire::Message, Violations> {
    let mut fields = Fields::of(&raw(body), &MESSAGE, "");
    let message = read(&mut fields, "", 1 << 20, &Trace::default());
    fields.finish()?;
    Ok(message)
}

fn faults(body: &Value) -> Vec<String> {
    let mut fields: Vec<String> = message(body)
        .unwrap_err()
        .into_iter()
        .map(|fault| fault.field)
        .collect();
    fields.sort();
    fields
}

fn everything() -> Value {
    json!({
        "message_id": "m", "from_agent": "f", "to_agent": "t", "message_type": "w",
        "payload": {"b": [1, 2.50], "a": null}, "content_type": "application/json",
        "headers": {"k": "v"}, "priority": 7, "correlation_id": "c c", "workflow_id": "wf",
        "task_id": "ta", "required_capabilities": ["gpu"], "idempotency_key": "i",
        "ordering_key": "o", "not_before": "2026-01-31T12:00:00Z",
        "retry": {"max_attempts": 2, "initial_backoff_seconds": 0.5, "max_backoff_seconds": 9},
    })
}

#[test]
fn what_is_sent_is_shown_as_it_was() {
    let sent = everything();
    let mut message = message(&sent).unwrap();
    message.published_at = message.not_before;
    message.expires_at = message.not_before;
    message.run_id = "r".to_owned();
    let input = wire::TaskInput {
        result: "{\"n\":1}".into(),
        state: "failed".to_owned(),
        error: "why".to_owned(),
        ..wire::TaskInput::default()
    };
    message.inputs.insert("a".to_owned(), input);
    message.resumption = Some(wire::Resumption {
        prompt: "which?".to_owned(),
        state: vec![0xff].into(),
        input: "\"this\"".into(),
    });
    message.track = true;
    message.replay_of = "first".into();
    message.replay_number = 1;
    let shown = serde_json::to_value(MessageOut::from(message)).unwrap();
    assert_eq!(misfits(&shown, &STORED_MESSAGE), Vec::<String>::new());
    let input = &shown["inputs"]["a"];
    assert_eq!(misfits(input, &TASK_INPUT), ["result_base64"]);
    assert_eq!(input["result"], json!({ "n": 1 }));
    let resumption = &shown["resumption"];
    let absent = misfits(resumption, &RESUMPTION);
    assert_eq!(absent, ["input_base64", "state"]);
    assert_eq!(resumption["state_base64"], "/w==");
    for (field, value) in sent.as_object().unwrap() {
        assert_eq!(&shown[field], value, "{field}");
    }
}

#[test]
fn a_message_needs_nothing_but_a_payload() {
    let message = message(&json!({ "payload": null })).unwrap();
    assert_eq!(message.payload, "null");
    assert_eq!(message.content_type, "application/json");
    assert_eq!(faults(&json!({})), ["payload"]);
}

#[test]
fn bytes_come_and_go_in_base64() {
    let message = message(&json!({ "payload_base64": "AP8=" })).unwrap();
    assert_eq!(message.payload, &b"\0\xff"[..]);
    assert_eq!(message.content_type, "application/octet-stream");
    let shown = serde_json::to_value(MessageOut::from(message)).unwrap();
    assert_eq!(shown["payload_base64"], "AP8=");
}

#[test]
fn a_delay_becomes_a_time_and_a_time_to_live_too() {
    let message =
        message(&json!({ "payload": 1, "delay_seconds": 60, "ttl_seconds": 90 })).unwrap();
    let (start, end) = (message.not_before.unwrap(), message.expires_at.unwrap());
    assert_eq!(end.seconds - start.seconds, 30);
    assert_eq!(end.nanos, start.nanos);
}

#[test]
fn every_fault_of_a_message_is_named_at_once() {
    let body = json!({
        "message_id": "a b", "payload": 1, "payload_base64": "AA==", "priority": 10,
        "delay_seconds": 1, "not_before": "2026-01-31T12:00:00Z", "ttl_seconds": 0,
        "headers": {"": "x"}, "retry": {"max_attempts": 0, "initial_backoff_seconds": 9,
        "max_backoff_seconds": 3, "tries": 1}, "expires_at": "2026-01-31T12:00:00Z",
    });
    assert_eq!(
        faults(&body),
        [
            "expires_at",
            "headers",
            "message_id",
            "not_before",
            "payload_base64",
            "priority",
            "retry.max_attempts",
            "retry.max_backoff_seconds",
            "retry.tries",
            "ttl_seconds"
        ]
    );
}

#[test]
fn a_json_payload_is_not_declared_as_something_else() {
    assert_eq!(
        faults(&json!({ "payload": 1, "content_type": "text/plain" })),
        ["content_type"]
    );
}

#[test]
fn the_words_for_states_are_those_of_the_contract() {
    assert_eq!(
        STATES,
        hive_protocol::words::MESSAGE_STATES.map(|(_, word)| word)
    );
}
