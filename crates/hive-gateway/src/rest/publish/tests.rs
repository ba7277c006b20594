//! Batches: what is refused here, and what goes on.

use serde_json::{Value, json};

use super::Batch;
use crate::rest::{asked::Trace, tests::raw};

fn read(body: &Value) -> Batch {
    Batch::read(&raw(body), 1 << 20, &Trace::default()).unwrap()
}

#[test]
fn a_refused_message_does_not_stop_the_others() {
    let batch = read(&json!({ "messages": [
        {"payload": 1}, {"payload": 2, "priority": 10}, {"payload": 3}, 4,
    ] }));
    let sent: Vec<&[u8]> = batch
        .messages
        .iter()
        .map(|message| &message.payload[..])
        .collect();
    assert_eq!(sent, [b"1", b"3"]);
    let refused: Vec<Option<String>> = batch
        .refused
        .into_iter()
        .map(|fault| fault.map(|fault| fault.violations[0].field.clone()))
        .collect();
    assert_eq!(
        refused,
        [
            None,
            Some("messages[1].priority".to_owned()),
            None,
            Some("messages[3]".to_owned())
        ]
    );
}

#[test]
fn a_refused_message_refuses_the_later_ones_of_its_ordering_key() {
    let batch = read(&json!({ "messages": [
        {"payload": 1, "ordering_key": "k"},
        {"payload": 2, "ordering_key": "k", "priority": 10},
        {"payload": 3, "ordering_key": "k"},
        {"payload": 4, "ordering_key": "other"},
    ] }));
    let reasons: Vec<Option<&str>> = batch
        .refused
        .iter()
        .map(|fault| fault.as_ref().map(|fault| fault.reason.as_str()))
        .collect();
    assert_eq!(
        reasons,
        [
            None,
            Some("INVALID_ARGUMENT"),
            Some("EARLIER_MESSAGE_REFUSED"),
            None
        ]
    );
}

#[test]
fn a_batch_of_none_or_too_many_is_refused_as_a_whole() {
    let reason = |messages: Vec<Value>| {
        let body = raw(&json!({ "messages": messages }));
        let fault = Batch::read(&body, 1 << 20, &Trace::default())
            .err()
            .unwrap();
        fault.reason.as_str()
    };
    assert_eq!(reason(Vec::new()), "INVALID_ARGUMENT");
    assert_eq!(reason(vec![json!(1); 1_001]), "BATCH_TOO_LARGE");
}
