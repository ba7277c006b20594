//! Every rule of the calls around messages.

use hive_domain::violation::Violations;
use prost_types::Duration as WireDuration;

use super::{
    Fetch, Producer, Target, batch, fetch, items, join, leases, peek, pod, producer, target,
};
use crate::{
    fault::{Fault, Reason},
    wire,
};

fn fields<T: std::fmt::Debug>(result: Result<T, Violations>) -> Vec<String> {
    result
        .unwrap_err()
        .into_iter()
        .map(|violation| violation.field)
        .collect()
}

fn reason<T: std::fmt::Debug>(result: Result<T, Fault>) -> Reason {
    result.unwrap_err().reason
}

#[test]
fn a_publish_goes_to_exactly_one_of_stream_and_group() {
    assert_eq!(target("work", ""), Ok(Target::Stream("work".to_owned())));
    assert_eq!(
        target("", "builders"),
        Ok(Target::Group("builders".to_owned()))
    );
    assert!(target("", "").is_err());
    assert!(target("work", "builders").is_err());
    assert_eq!(fields(target("a b", "")), ["stream"]);
    assert_eq!(fields(target("", "a b")), ["group"]);
}

#[test]
fn a_sequence_and_a_producer_need_each_other() {
    assert_eq!(producer("", "sequence", 0, 1), Ok(None));
    assert_eq!(fields(producer("", "sequence", 1, 1)), ["sequence"]);
    assert_eq!(
        fields(producer("p", "first_sequence", 0, 1)),
        ["first_sequence"]
    );
    assert_eq!(
        fields(producer("a b", "sequence", u64::MAX, 1)),
        ["producer_id", "sequence"]
    );
    let known = Producer {
        id: "p".to_owned(),
        first_sequence: 7,
    };
    assert_eq!(producer("p", "sequence", 7, 1_000), Ok(Some(known)));
}

#[test]
fn a_batch_has_one_to_a_thousand_items() {
    assert_eq!(reason(items("outcomes", 0)), Reason::InvalidArgument);
    assert_eq!(items("outcomes", 1_000), Ok(()));
    assert_eq!(reason(items("outcomes", 1_001)), Reason::BatchTooLarge);
}

#[test]
fn a_batch_has_at_most_four_mebibytes() {
    let message = wire::Message {
        payload: vec![0; 1 << 20].into(),
        ..Default::default()
    };
    assert_eq!(batch(&vec![message.clone(); 3]), Ok(()));
    assert_eq!(reason(batch(&vec![message; 4])), Reason::BatchTooLarge);
}

#[test]
fn a_fetch_gets_its_defaults() {
    let request = wire::FetchRequest {
        group: "builders".to_owned(),
        consumer_id: "a".to_owned(),
        ..Default::default()
    };
    let expected = Fetch {
        group: "builders".to_owned(),
        consumer_id: "a".to_owned(),
        max_messages: 10,
        wait_ms: 0,
        capabilities: Default::default(),
        request_id: None,
    };
    assert_eq!(fetch(&request), Ok(expected));
}

#[test]
fn every_fault_of_a_fetch_is_reported_at_once() {
    let request = wire::FetchRequest {
        group: String::new(),
        consumer_id: "~ready".to_owned(),
        max_messages: 1_001,
        wait: Some(WireDuration {
            seconds: 31,
            nanos: 0,
        }),
        capabilities: vec!["a,b".to_owned()],
        request_id: "a b".to_owned(),
    };
    assert_eq!(
        fields(fetch(&request)),
        [
            "group",
            "consumer_id",
            "request_id",
            "max_messages",
            "wait",
            "capabilities[0]"
        ]
    );
}

#[test]
fn a_join_gets_its_defaults() {
    let joined = join(wire::Join {
        group: "builders".to_owned(),
        consumer_id: "a".to_owned(),
        capabilities: vec!["gpu".to_owned(), "cuda".to_owned()],
        ..Default::default()
    })
    .unwrap();
    assert_eq!(
        (joined.session, joined.max_in_flight, joined.concurrency),
        (None, None, 1)
    );
    assert_eq!(joined.capabilities.to_string(), "cuda,gpu");
}

#[test]
fn a_pod_is_named_by_its_namespace_and_its_name() {
    let name = "a".repeat(253);
    let longest = format!("{}/{name}", "n".repeat(63));
    for fine in ["prod/agent-7", "a/b", "prod/web.7-x", longest.as_str()] {
        assert_eq!(pod("pod", fine), Ok(()), "{fine}");
    }
    let long_name = format!("n/{}", "a".repeat(254));
    let long_namespace = format!("{}/a", "n".repeat(64));
    let long = format!("n/{}", "a".repeat(400));
    let none = [
        "agent", "/a", "n/", "N/a", "n/-a", "n/a-", "n/a..b", "n.x/a", "n/a/b", "n/a b",
    ];
    for bad in none
        .iter()
        .copied()
        .chain([&*long_name, &*long_namespace, &*long])
    {
        assert!(pod("pod", bad).is_err(), "{bad}");
    }
    let joined = join(wire::Join {
        group: "g".to_owned(),
        consumer_id: "a".to_owned(),
        accepts_offers: true,
        pod: "prod/agent-7".to_owned(),
        ..Default::default()
    });
    let joined = joined.unwrap();
    assert!(joined.accepts_offers);
    assert_eq!(joined.pod.as_deref(), Some("prod/agent-7"));
}

#[test]
fn every_fault_of_a_join_is_reported_at_once() {
    let request = wire::Join {
        group: "a/b".to_owned(),
        consumer_id: String::new(),
        session: "{x}".to_owned(),
        capabilities: (0..65).map(|n| format!("c{n}")).collect(),
        max_in_flight: 10_001,
        concurrency: 10_001,
        held_leases: vec![String::new()],
        pod: "agent-7".to_owned(),
        ..Default::default()
    };
    assert_eq!(
        fields(join(request)),
        [
            "group",
            "consumer_id",
            "session",
            "max_in_flight",
            "concurrency",
            "capabilities",
            "held_leases[0]",
            "pod",
        ]
    );
}

#[test]
fn a_list_of_leases_is_bounded() {
    assert_eq!(leases("leases", &vec!["t".to_owned(); 10_000]), Ok(()));
    assert_eq!(
        fields(leases("leases", &vec!["t".to_owned(); 10_001])),
        ["leases"]
    );
    assert_eq!(
        fields(leases("leases", &["t".repeat(1_025)])),
        ["leases[0]"]
    );
}

#[test]
fn a_look_at_a_group_gets_its_defaults_and_refuses_unknown_states() {
    let request = wire::PeekMessagesRequest {
        group: "g".to_owned(),
        ..Default::default()
    };
    let look = peek(&request).unwrap();
    assert_eq!((look.state, look.limit, look.cursor), (None, 100, None));
    let bad = wire::PeekMessagesRequest {
        state: 99,
        limit: 1_001,
        ..request
    };
    assert_eq!(fields(peek(&bad)), ["limit", "state"]);
}
