//! What a message is work for, and the task that it becomes.

use hive_protocol::wire;
use serde_json::{Value, json};

use super::{ROUTE, Routing, kinds, read, task, wanted, whole};
use crate::rest::{asked::Trace, fields::Fields, tests::raw};

fn message(payload: &str) -> wire::Message {
    wire::Message {
        message_type: "task_request".to_owned(),
        payload: payload.to_owned().into(),
        ..wire::Message::default()
    }
}

fn routing(body: &Value) -> Result<Routing, Vec<String>> {
    let mut fields = Fields::of(&raw(body), &ROUTE, "");
    let routing = read(&mut fields, &Trace::default());
    let faults = fields.finish();
    faults
        .map(|()| routing)
        .map_err(|faults| faults.into_iter().map(|fault| fault.field).collect())
}

#[test]
fn a_message_is_work_for_what_its_payload_says_and_then_for_its_type() {
    for (payload, expected) in [
        (
            r#"{"task_type":"qa","type":"x"}"#,
            vec!["qa", "x", "task_request"],
        ),
        (r#"{"type":"x"}"#, vec!["x", "task_request"]),
        (r#"{"type":7,"task_type":"no name"}"#, vec!["task_request"]),
        ("[]", vec!["task_request"]),
        ("\u{1}", vec!["task_request"]),
    ] {
        assert_eq!(kinds(&message(payload)), expected, "{payload}");
    }
}

#[test]
fn the_message_of_the_guide_becomes_a_task_that_a_signal_completes() {
    let read = routing(&json!({
        "message_id": "task_123", "from_agent": "orchestrator", "message_type": "task_request",
        "payload": {"task": "run_tests", "type": "testing"}, "workflow_id": "test_workflow_1",
        "dependencies": ["build_task"], "priority": 10, "timeout_seconds": 5,
        "required_capabilities": ["rust"], "retry": {"max_attempts": 1},
        "routing_mode": "round_robin",
    }))
    .unwrap();
    assert_eq!(read.mode, Some("round_robin"));
    let kinds: Vec<String> = wanted(&read, "").into_iter().map(|one| one.kind).collect();
    assert_eq!(kinds, ["testing", "task_request"]);
    let named = wanted(&read, "g");
    assert_eq!(named.len(), 1);
    assert_eq!(
        (named[0].group.as_deref(), &*named[0].kind),
        (Some("g"), "")
    );
    let task = task(read, String::new(), 0);
    assert_eq!((&*task.id, &*task.r#type), ("task_123", "testing"));
    assert_eq!(task.message_type, "task_request");
    assert_eq!(task.priority, Some(9));
    assert_eq!(task.dependencies, ["build_task"]);
    assert_eq!(task.completion(), wire::TaskCompletion::Signal);
}

#[test]
fn fields_of_tasks_need_a_workflow() {
    let faults = routing(&json!({
        "message_id": "m", "from_agent": "a", "message_type": "t", "payload": 1,
        "dependencies": ["x"], "completion": "ack", "timeout_seconds": 1,
    }))
    .err();
    let expected = ["workflow_id", "timeout_seconds", "completion"];
    assert_eq!(faults.unwrap(), expected);
    let faults = routing(&json!({
        "message_id": "m", "from_agent": "a", "message_type": "t", "payload": 1,
        "workflow_id": "w", "correlation_id": "c",
    }))
    .err();
    assert_eq!(faults.unwrap(), ["correlation_id"]);
}

#[test]
fn a_workflow_is_an_object_or_a_bare_list_of_tasks() {
    assert!(whole(&raw(&json!({"tasks": []}))).unwrap().has("tasks"));
    assert!(whole(&raw(&json!([]))).unwrap().has("tasks"));
    assert!(whole(&raw(&json!(7))).is_err());
}
