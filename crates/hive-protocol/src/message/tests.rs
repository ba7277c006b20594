//! Every rule of a message, at both ends.

use std::collections::BTreeMap;

use hive_domain::{retry::RetryPolicy as Policy, time::Timestamp};
use proptest::prelude::*;
use prost_types::{Duration as WireDuration, Timestamp as WireTimestamp};

use super::{
    RetryOverride, accept, check, place, priority, priority_word, required_capabilities, retry,
};
use crate::{
    fault::Reason,
    limits::PAYLOAD_BYTES_MAX,
    time::{to_duration, to_timestamp},
    wire::{Message, Resumption, RetryPolicy, TaskInput},
};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const DAY_MS: u64 = 86_400_000;

/// The fields at fault, in order.
fn fields(message: &Message) -> Vec<String> {
    let faults = check(message, "", PAYLOAD_BYTES_MAX, NOW);
    faults
        .into_iter()
        .map(|violation| violation.field)
        .collect()
}

fn words(message: &Message) -> String {
    check(message, "message", PAYLOAD_BYTES_MAX, NOW).to_string()
}

#[test]
fn an_empty_message_is_fine() {
    assert!(fields(&Message::default()).is_empty());
}

#[test]
fn a_message_at_every_limit_is_fine() {
    let message = Message {
        message_id: "m".repeat(128),
        from_agent: "a:1".to_owned(),
        to_agent: "b.2".to_owned(),
        message_type: "code_review".to_owned(),
        payload: vec![0; PAYLOAD_BYTES_MAX].into(),
        content_type: "x".repeat(128),
        headers: (0..64)
            .map(|n| (format!("{n:028}"), "v".repeat(100)))
            .collect(),
        priority: Some(9),
        correlation_id: "c".repeat(256),
        workflow_id: "w".to_owned(),
        task_id: "t".to_owned(),
        required_capabilities: (0..16).map(|n| format!("c{n}")).collect(),
        idempotency_key: "i".repeat(256),
        ordering_key: "o".repeat(256),
        not_before: Some(to_timestamp(NOW.plus(365 * DAY_MS))),
        expires_at: Some(to_timestamp(NOW.plus(365 * DAY_MS + 1))),
        retry: Some(RetryPolicy {
            max_attempts: Some(1_000),
            initial_backoff: Some(to_duration(3_600_000)),
            max_backoff: Some(to_duration(DAY_MS)),
        }),
        ..Message::default()
    };
    assert_eq!(words(&message), "");
}

#[test]
fn every_fault_of_a_message_is_reported_at_once() {
    let message = Message {
        message_id: "m".repeat(129),
        from_agent: "a b".to_owned(),
        to_agent: "~ready".to_owned(),
        message_type: "a/b".to_owned(),
        payload: vec![0; PAYLOAD_BYTES_MAX + 1].into(),
        content_type: "text/ä".to_owned(),
        headers: BTreeMap::from([(String::new(), "x".repeat(8_193))]),
        priority: Some(10),
        correlation_id: "c".repeat(257),
        workflow_id: "{w}".to_owned(),
        task_id: ",".to_owned(),
        required_capabilities: vec!["ok".to_owned(), String::new()],
        idempotency_key: "i".repeat(257),
        ordering_key: "o".repeat(257),
        not_before: Some(WireTimestamp {
            seconds: -1,
            nanos: 0,
        }),
        expires_at: Some(to_timestamp(NOW)),
        retry: Some(RetryPolicy {
            max_attempts: Some(0),
            initial_backoff: Some(WireDuration {
                seconds: 0,
                nanos: -1,
            }),
            max_backoff: Some(to_duration(DAY_MS + 1)),
        }),
        run_id: "r".to_owned(),
        inputs: BTreeMap::from([("a".to_owned(), TaskInput::default())]),
        resumption: Some(Resumption::default()),
        published_at: None,
        track: true,
        replay_of: "m".to_owned(),
        replay_number: 1,
    };
    assert_eq!(
        fields(&message),
        [
            "message_id",
            "from_agent",
            "to_agent",
            "message_type",
            "workflow_id",
            "task_id",
            "required_capabilities[1]",
            "payload",
            "content_type",
            "headers",
            "headers",
            "priority",
            "correlation_id",
            "idempotency_key",
            "ordering_key",
            "not_before",
            "expires_at",
            "retry.max_attempts",
            "retry.initial_backoff",
            "retry.max_backoff",
            "run_id",
            "inputs",
            "resumption",
            "replay_of",
            "replay_number",
            "track",
        ]
    );
}

#[test]
fn a_fault_names_its_place_its_value_and_its_rule() {
    let message = Message {
        priority: Some(12),
        ..Message::default()
    };
    assert_eq!(
        words(&message),
        "message.priority: `12` must be between 0 and 9"
    );
    assert_eq!(place("publish", 3), "publish.messages[3]");
}

#[test]
fn a_message_may_not_expire_before_it_may_be_delivered() {
    let message = Message {
        not_before: Some(to_timestamp(NOW.plus(2_000))),
        expires_at: Some(to_timestamp(NOW.plus(1_000))),
        ..Message::default()
    };
    assert_eq!(
        words(&message),
        "message.expires_at: must be after not_before, is `1000 ms` before"
    );
}

#[test]
fn a_time_in_the_past_delays_nothing_and_expires_nothing_new() {
    let past = Some(to_timestamp(NOW.minus(5)));
    assert!(
        fields(&Message {
            not_before: past,
            ..Message::default()
        })
        .is_empty()
    );
    let expired = Message {
        expires_at: past,
        ..Message::default()
    };
    assert_eq!(
        words(&expired),
        "message.expires_at: passed `5 ms` ago and must lie ahead"
    );
}

#[test]
fn a_delay_beyond_a_year_is_refused() {
    let message = Message {
        not_before: Some(to_timestamp(NOW.plus(400 * DAY_MS))),
        ..Message::default()
    };
    assert_eq!(
        words(&message),
        "message.not_before: lies `400` days ahead and may lie at most 365"
    );
}

#[test]
fn the_longest_backoff_of_a_message_is_at_least_its_first() {
    let retry = RetryPolicy {
        max_attempts: None,
        initial_backoff: Some(to_duration(2)),
        max_backoff: Some(to_duration(1)),
    };
    assert_eq!(
        fields(&Message {
            retry: Some(retry),
            ..Message::default()
        }),
        ["retry.max_backoff"]
    );
}

#[test]
fn a_payload_alone_too_large_has_its_own_reason() {
    let mut message = Message {
        payload: vec![0; 11].into(),
        ..Message::default()
    };
    let reason = |message: &Message| accept(message, "", 10, NOW).unwrap_err().reason;
    assert_eq!(reason(&message), Reason::PayloadTooLarge);
    message.priority = Some(10);
    assert_eq!(reason(&message), Reason::InvalidArgument);
    assert_eq!(accept(&Message::default(), "", 10, NOW), Ok(()));
}

#[test]
fn the_priority_is_four_unless_named() {
    assert_eq!(priority(&Message::default()), 4);
    assert_eq!(
        priority(&Message {
            priority: Some(0),
            ..Message::default()
        }),
        0
    );
    assert_eq!(
        priority(&Message {
            priority: Some(u32::MAX),
            ..Message::default()
        }),
        9
    );
}

#[test]
fn words_stand_for_priorities() {
    let words = ["low", "normal", "high", "urgent", "critical", "Low"].map(priority_word);
    assert_eq!(words, [Some(2), Some(4), Some(7), Some(9), Some(9), None]);
}

#[test]
fn a_message_overrides_only_what_it_sets() {
    let group = Policy {
        max_attempts: 3,
        initial_backoff_ms: 1_000,
        max_backoff_ms: 60_000,
    };
    assert_eq!(retry(&Message::default()).over(group), group);
    let own = RetryPolicy {
        max_attempts: Some(9),
        initial_backoff: Some(to_duration(5)),
        max_backoff: None,
    };
    let named = retry(&Message {
        retry: Some(own),
        ..Message::default()
    });
    assert_eq!(
        named,
        RetryOverride {
            max_attempts: Some(9),
            initial_backoff_ms: Some(5),
            max_backoff_ms: None,
        }
    );
    let policy = named.over(group);
    assert_eq!(
        (policy.initial_backoff_ms, policy.max_backoff_ms),
        (5, 60_000)
    );
}

#[test]
fn required_capabilities_are_a_set() {
    let names = ["b", "a", "b"].map(str::to_owned).to_vec();
    let message = Message {
        required_capabilities: names,
        ..Message::default()
    };
    assert_eq!(required_capabilities(&message).to_string(), "a,b");
}

proptest! {
    #[test]
    fn no_time_or_duration_makes_a_check_panic(
        seconds in any::<i64>(), nanos in any::<i32>(), now in any::<u64>()
    ) {
        let retry = RetryPolicy {
            max_attempts: None,
            initial_backoff: Some(WireDuration { seconds, nanos }),
            max_backoff: Some(WireDuration { seconds, nanos }),
        };
        let message = Message {
            not_before: Some(WireTimestamp { seconds, nanos }),
            expires_at: Some(WireTimestamp { seconds, nanos }),
            retry: Some(retry),
            ..Message::default()
        };
        let faults = check(&message, "", 0, Timestamp(now));
        // Never clean: what it may be delivered at and what it expires at are the same.
        prop_assert!(!faults.is_empty());
    }

    #[test]
    fn any_decodable_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(message) = <Message as prost::Message>::decode(bytes.as_slice()) {
            let faults = check(&message, "message", 100, NOW);
            prop_assert!(faults.as_slice().iter().all(|v| v.field.starts_with("message.")));
        }
    }
}
