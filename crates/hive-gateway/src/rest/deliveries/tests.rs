//! Outcomes in JSON: every action, and each one judged alone.

use hive_protocol::wire::outcome::Action;
use serde_json::{Value, json};

use super::read_outcomes;
use crate::rest::tests::raw;

fn actions(outcomes: &Value) -> Vec<Action> {
    let (judged, outcomes) = read_outcomes(&raw(&json!({ "outcomes": outcomes }))).unwrap();
    assert!(judged.iter().all(Option::is_none), "{judged:?}");
    outcomes
        .into_iter()
        .filter_map(|outcome| outcome.action)
        .collect()
}

#[test]
fn every_action_is_read() {
    let read = actions(&json!([
        {"lease": "l", "action": "ack", "result": {"a": 1}},
        {"lease": "l", "action": "nack", "reason": "r", "category": "timeout", "delay_seconds": 2},
        {"lease": "l", "action": "release", "delay_seconds": 0.5},
        {"lease": "l", "action": "reject", "reason": "r", "category": "c"},
        {"lease": "l", "action": "extend"},
        {"lease": "l", "action": "suspend", "prompt": "which?", "state": [1]},
    ]));
    let [
        Action::Ack(ack),
        Action::Nack(nack),
        Action::Release(release),
        Action::Reject(reject),
        Action::Extend(_),
        Action::Suspend(suspend),
    ] = &read[..]
    else {
        panic!("{read:?}");
    };
    assert_eq!(ack.result, r#"{"a":1}"#);
    assert_eq!(nack.delay.unwrap().seconds, 2);
    assert_eq!(nack.category, "timeout");
    assert_eq!(release.retry_after.unwrap().nanos, 500_000_000);
    assert_eq!(reject.reason, "r");
    assert_eq!(
        (&*suspend.prompt, &*suspend.state),
        ("which?", b"[1]".as_slice())
    );
}

#[test]
fn a_word_on_the_progress_makes_no_outcome_invalid() {
    let read = actions(&json!([
        {"lease": "l", "action": "extend", "progress": {"percent": 40, "step": "tests"}},
        {"lease": "l", "action": "extend", "progress": 0.4},
        {"lease": "l", "action": "ack", "progress": "all of it", "result": 1},
        {"lease": "l", "action": "nack", "progress": null},
    ]));
    let [
        Action::Extend(_),
        Action::Extend(_),
        Action::Ack(ack),
        Action::Nack(_),
    ] = &read[..]
    else {
        panic!("{read:?}");
    };
    assert_eq!(ack.result, "1");
}

#[test]
fn an_outcome_that_breaks_a_rule_is_judged_alone() {
    let body = raw(&json!({ "outcomes": [
        {"lease": "one", "action": "done"},
        {"lease": "two", "action": "ack"},
        {"lease": "three", "action": "ack", "delay_seconds": 1, "colour": "red"},
    ] }));
    let (judged, outcomes) = read_outcomes(&body).unwrap();
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].lease, "two");
    let invalid: Vec<(&str, &str)> = judged
        .iter()
        .flatten()
        .map(|result| (result.lease.as_str(), result.status))
        .collect();
    assert_eq!(invalid, [("one", "invalid"), ("three", "invalid")]);
    assert_eq!(
        judged[2].as_ref().unwrap().error,
        "colour: is no field of `Outcome`; delay_seconds: does not belong to `ack`"
    );
}

#[test]
fn a_body_without_outcomes_is_refused() {
    assert!(read_outcomes(&raw(&json!({}))).is_err());
    assert!(read_outcomes(&raw(&json!({ "outcomes": [] }))).is_err());
    assert!(read_outcomes(&raw(&json!({ "outcomes": 5 }))).is_err());
}
