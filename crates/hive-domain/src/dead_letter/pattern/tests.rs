//! Which patterns are seen, in which order, and what is said of them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    Context, Event, EventKind, GroupTotals, PATTERNS_MAX, Pattern, PatternKind, Seen, Stats,
    detect, recommendations, upstream,
};
use crate::{
    dead_letter::{Category, Status},
    time::Timestamp,
};

const MINUTE: u64 = 60_000;
const NOW: Timestamp = Timestamp(120 * MINUTE);

/// A dead letter of its own kind in every respect, `minute` minutes after the first that counts.
fn seen(number: u64, minute: u64) -> Seen {
    Seen {
        dlq_id: format!("d{number:03}"),
        at_ms: minute.saturating_add(60).saturating_mul(MINUTE),
        group: "builders".to_owned(),
        stream: "work".to_owned(),
        category: Category::Timeout,
        fingerprint: format!("f{number}"),
        consumer: format!("c{number}"),
        message_type: format!("t{number}"),
        host: String::new(),
    }
}

fn spread(count: u64) -> Vec<Seen> {
    (0..count)
        .map(|number| {
            seen(
                number,
                number.saturating_mul(59).checked_div(count).unwrap_or(0),
            )
        })
        .collect()
}

fn kinds(patterns: &[Pattern]) -> Vec<PatternKind> {
    patterns.iter().map(|pattern| pattern.kind).collect()
}

#[test]
fn what_has_nothing_in_common_has_no_pattern() {
    assert_eq!(detect(&spread(40), &Context::default(), NOW), []);
    assert_eq!(detect(&[], &Context::default(), NOW), []);
}

#[test]
fn one_consumer_is_told_with_its_numbers() {
    let mut all = spread(20);
    for seen in all.iter_mut().take(18) {
        seen.consumer = "a-7".to_owned();
    }
    let found = detect(&all, &Context::default(), NOW);
    assert_eq!(kinds(&found), [PatternKind::OneConsumer]);
    let pattern = &found[0];
    assert_eq!(
        pattern.evidence,
        "18 of 20 dead letters in the last 60 minutes came from consumer `a-7`"
    );
    assert!(pattern.recommendation.contains("drain or restart it"));
    assert_eq!((pattern.count, pattern.of, pattern.share), (18, 20, 0.9));
    assert_eq!(pattern.examples, ["d000", "d001", "d002", "d003", "d004"]);
    assert_eq!(
        (pattern.first_ms, pattern.last_ms),
        (all[0].at_ms, all[17].at_ms)
    );
}

#[test]
fn who_does_all_the_work_is_not_to_blame() {
    let mut all = spread(20);
    for seen in &mut all {
        seen.consumer = "a".to_owned();
    }
    let totals = |a, b| {
        let by_consumer = BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]);
        let totals = GroupTotals {
            by_consumer,
            ..GroupTotals::default()
        };
        Context {
            totals: BTreeMap::from([("builders".to_owned(), totals)]),
            ..Context::default()
        }
    };
    assert_eq!(detect(&all, &totals(90, 10), NOW), []);
    assert_eq!(
        kinds(&detect(&all, &totals(50, 50), NOW)),
        [PatternKind::OneConsumer]
    );
}

#[test]
fn one_type_one_service_and_one_fault_are_seen() {
    let mut all = spread(20);
    for seen in &mut all {
        seen.message_type = "build".to_owned();
        seen.host = "api.example.com".to_owned();
        seen.fingerprint = "f".to_owned();
    }
    assert_eq!(
        kinds(&detect(&all, &Context::default(), NOW)),
        [
            PatternKind::OneUpstream,
            PatternKind::OneMessageType,
            PatternKind::OneFingerprint
        ]
    );
}

#[test]
fn many_within_a_short_time_are_a_burst() {
    let mut all = spread(10);
    all.extend((10..30).map(|number| seen(number, 31)));
    let found = detect(&all, &Context::default(), NOW);
    assert_eq!(kinds(&found), [PatternKind::Burst]);
    assert!(
        found[0]
            .evidence
            .ends_with("in the last 60 minutes died within 5 minutes")
    );
}

#[test]
fn what_began_with_a_deploy_is_told_and_what_was_there_before_is_not() {
    let event = |minute: u64| Context {
        events: vec![Event {
            at_ms: minute.saturating_add(60).saturating_mul(MINUTE),
            kind: EventKind::Deploy,
            group: "builders".to_owned(),
            what: "v2".to_owned(),
        }],
        ..Context::default()
    };
    let all: Vec<Seen> = (0..8)
        .map(|number| seen(number, number.saturating_add(30)))
        .collect();
    let found = detect(&all, &event(30), NOW);
    assert_eq!(kinds(&found), [PatternKind::AfterEvent]);
    assert_eq!(
        found[0].evidence,
        "8 messages died in the 10 minutes after the deploy `v2`, 0 in as long before it"
    );
    assert_eq!(detect(&all, &event(34), NOW), []);
    let steady = spread(60);
    assert_eq!(detect(&steady, &event(30), NOW), []);
}

#[test]
fn what_is_older_than_the_span_does_not_count() {
    let all: Vec<Seen> = (0..20)
        .map(|number| Seen {
            at_ms: 1,
            consumer: "a".to_owned(),
            ..seen(number, 0)
        })
        .collect();
    assert_eq!(detect(&all, &Context::default(), NOW), []);
}

proptest! {
    #[test]
    fn the_order_of_the_facts_does_not_matter_and_patterns_are_bounded(
        mut all in proptest::collection::vec(
            (0..40_u64, 0..60_u64, "[ab]", "[ab]?", "[a-z]").prop_map(
                |(number, minute, consumer, host, group)| Seen {
                    consumer, host, group, fingerprint: "f".to_owned(), ..seen(number, minute)
                }
            ), 0..200
        )
    ) {
        let context = Context { min_count: 1, ..Context::default() };
        let mut found = detect(&all, &context, NOW);
        prop_assert!(found.len() <= PATTERNS_MAX);
        for pattern in &found {
            prop_assert!(pattern.share > 0.0 && pattern.share <= 1.0);
            prop_assert!(pattern.count <= pattern.of);
            prop_assert!(!pattern.evidence.is_empty() && !pattern.recommendation.is_empty());
        }
        all.reverse();
        let mut turned = detect(&all, &context, NOW);
        // Equal ids at equal times are not facts that exist.
        for pattern in found.iter_mut().chain(&mut turned) {
            pattern.examples.clear();
        }
        prop_assert_eq!(found, turned);
    }

    #[test]
    fn any_text_has_a_host_or_none(text: String) {
        prop_assert!(upstream(&text).is_none_or(|host| !host.is_empty()));
    }
}

#[test]
fn the_host_of_a_service_is_found() {
    let texts = [
        (
            "GET https://u:p@api.example.com:8443/v1 failed",
            Some("api.example.com"),
        ),
        (
            "HTTPSConnectionPool(host='api.openai.com', port=443): x",
            Some("api.openai.com"),
        ),
        ("dial tcp 10.0.0.1:5432: refused", Some("10.0.0.1")),
        (
            "lookup ledger.internal on 10.96.0.10:53: no such host",
            Some("ledger.internal"),
        ),
        (
            "getaddrinfo ENOTFOUND api.anthropic.com",
            Some("api.anthropic.com"),
        ),
        ("connect ECONNREFUSED 127.0.0.1:6379", Some("127.0.0.1")),
        (
            "kafka-2.internal:9092: Disconnected",
            Some("kafka-2.internal"),
        ),
        ("json.decoder.JSONDecodeError: at main.py:12", None),
        ("it failed", None),
    ];
    for (text, expected) in texts {
        assert_eq!(upstream(text), expected, "{text}");
    }
}

#[test]
fn recommendations_name_numbers_and_each_only_once() {
    let mut all = spread(20);
    for seen in &mut all {
        seen.host = "api.example.com".to_owned();
    }
    let stats = Stats {
        by_category: BTreeMap::from([(Category::Timeout, 20), (Category::Unknown, 2)]),
        by_status: BTreeMap::from([(Status::Analyzed, 20), (Status::Quarantined, 2)]),
        patterns: detect(&all, &Context::default(), NOW),
    };
    assert_eq!(
        recommendations(&stats),
        [
            "20 of 20 dead letters in the last 60 minutes name the service `api.example.com`: look \
             at `api.example.com` before anything is replayed to group `builders`; find what \
             became slow, or allow it more time",
            "20 of 22 dead letters are `timeout`: find what became slow, or allow it more time",
            "2 of 22 dead letters are `unknown`: read an example, and add a rule for its kind",
            "20 dead letters wait for a person: replay them, or mark them as permanent failures",
            "2 dead letters are not understood: read them, then replay or mark them",
        ]
    );
    assert!(recommendations(&Stats::default()).is_empty());
}
