//! A refused request says every field that is wrong, at once.

use anyhow::Result;
use hive_client::{CallError, Fault, FaultKind, Reason, message, wire};
use hive_protocol::time::to_duration;
use hive_testkit::redis::Aof;

use crate::{fleet::Fleet, member::Member};

/// The names of the fields of a refused call.
fn fields(fault: &Fault) -> Vec<&str> {
    let mut fields: Vec<&str> = fault
        .violations
        .iter()
        .map(|one| one.field.as_str())
        .collect();
    fields.sort_unstable();
    fields.dedup();
    fields
}

fn refused<T: std::fmt::Debug>(answer: Result<T, CallError>) -> Fault {
    let fault = answer.expect_err("the request is wrong").fault().clone();
    assert_eq!(fault.kind, FaultKind::Invalid, "{fault:?}");
    fault
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_names_all_its_faults_at_once() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    fleet.group("g", wire::GroupSettings::default()).await?;
    let client = fleet.client(0)?;

    let group = wire::CreateGroupRequest {
        name: "a b".into(),
        stream_name: String::new(),
        agent_type: "{".into(),
        shards: Some(2),
        settings: Some(wire::GroupSettings {
            max_consumers: Some(10_001),
            max_attempts: Some(1_001),
            lease: Some(to_duration(1)),
            ..wire::GroupSettings::default()
        }),
        ..wire::CreateGroupRequest::default()
    };
    let fault = refused(client.create_group(group).await);
    let expected = [
        "agent_type",
        "name",
        "settings.lease",
        "settings.max_attempts",
        "settings.max_consumers",
        "shards",
        "stream_name",
    ];
    assert_eq!(fields(&fault), expected, "{fault:?}");

    let wrong = wire::Message {
        message_id: "no spaces".into(),
        from_agent: "{".into(),
        priority: Some(10),
        content_type: "x".repeat(129),
        ordering_key: "k".repeat(257),
        required_capabilities: vec!["a b".into()],
        ..message("also wrong!", "")
    };
    let publish = wire::PublishRequest {
        group: "g".into(),
        message: Some(wrong.clone()),
        ..wire::PublishRequest::default()
    };
    let fault = refused(client.publish(publish).await);
    let named = fields(&fault);
    for field in [
        "content_type",
        "from_agent",
        "message_id",
        "message_type",
        "ordering_key",
    ] {
        assert!(
            named.contains(&&*format!("message.{field}")),
            "{field} of {named:?}"
        );
    }
    assert!(named.contains(&"message.priority"), "{named:?}");
    assert!(
        named
            .iter()
            .any(|one| one.contains("required_capabilities")),
        "{named:?}"
    );

    // In a batch each message has its own answer, and the others are taken.
    let batch = wire::PublishBatchRequest {
        group: "g".into(),
        messages: vec![message("t", ""), wrong],
        ..wire::PublishBatchRequest::default()
    };
    let outcomes = client.publish_batch(batch).await?.outcomes;
    assert_eq!(outcomes[0].error, None);
    let problem = outcomes[1].error.as_ref().expect("the second is wrong");
    assert_eq!(
        (problem.reason.as_str(), problem.code),
        ("INVALID_ARGUMENT", 3)
    );
    assert!(problem.field_violations.len() >= 7, "{problem:?}");

    let fetch = wire::FetchRequest {
        group: "/".into(),
        consumer_id: "?".into(),
        max_messages: 1_001,
        wait: Some(to_duration(30_001)),
        capabilities: vec!["~".into()],
        request_id: " ".into(),
    };
    let fault = refused(client.fetch(fetch).await);
    assert!(fields(&fault).len() >= 6, "{fault:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_join_names_all_its_faults_at_once() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    let join = wire::Join {
        group: String::new(),
        consumer_id: "{}".into(),
        session: "s".repeat(200),
        capabilities: vec!["a b".into()],
        max_in_flight: 10_001,
        concurrency: 10_001,
        ..wire::Join::default()
    };
    let Err(fault) = Member::join(&fleet.client(0)?, 0, join).await else {
        anyhow::bail!("the join is wrong");
    };
    assert_eq!(fault.kind, FaultKind::Invalid);
    assert!(fields(&fault).len() >= 6, "{fault:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_exist_is_not_found_by_name() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    let client = fleet.client(0)?;
    let publish = |stream: &str, group: &str| wire::PublishRequest {
        stream: stream.into(),
        group: group.into(),
        message: Some(message("t", "")),
        ..wire::PublishRequest::default()
    };
    let missing = client
        .publish(publish("", "ghost"))
        .await
        .expect_err("no such group");
    assert_eq!(missing.fault().reason, Reason::GroupNotFound);
    assert!(missing.fault().message.contains("`ghost`"), "{missing}");
    let missing = client
        .publish(publish("ghost", ""))
        .await
        .expect_err("no such stream");
    assert_eq!(missing.fault().reason, Reason::StreamNotFound);
    for (stream, group) in [("", ""), ("a", "b")] {
        let fault = refused(client.publish(publish(stream, group)).await);
        assert!(!fault.violations.is_empty(), "{fault:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_refused_at_the_door_holds_back_the_later_ones_of_its_key() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    fleet.group("g", wire::GroupSettings::default()).await?;
    let keyed = |key: &str, kind: &str| wire::Message {
        ordering_key: key.into(),
        ..message(kind, "")
    };
    let batch = wire::PublishBatchRequest {
        group: "g".into(),
        messages: vec![
            keyed("a", "first"),
            keyed("a", "no type at all"),
            keyed("a", "later"),
            keyed("b", "other"),
        ],
        ..wire::PublishBatchRequest::default()
    };
    let mut door = fleet.client(0)?.gateways()[0].messaging();
    let outcomes = door.publish_batch(batch).await?.into_inner().outcomes;
    let reasons: Vec<Option<String>> = outcomes
        .iter()
        .map(|outcome| outcome.error.as_ref().map(|error| error.reason.clone()))
        .collect();
    let [None, Some(_), Some(later), None] = &reasons[..] else {
        panic!("{outcomes:?}");
    };
    assert_eq!(later, "EARLIER_MESSAGE_REFUSED");
    assert_eq!(fleet.figures("g").await?.lag, 2);
    Ok(())
}
