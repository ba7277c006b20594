//! Streams in JSON: what is sent is shown, and every fault is named.

use hive_domain::{
    stream::{Durability, StreamDefinition, StreamSettings},
    time::Timestamp,
};
use hive_protocol::convert;
use serde_json::json;

use super::{STREAM, STREAM_CREATE, STREAM_UPDATE, StreamOut, read_create, read_settings};
use crate::rest::{
    fields::Fields,
    tests::{misfits, raw},
};

#[test]
fn what_is_changed_is_shown_afterwards() {
    let sent = json!({
        "max_backlog": 5, "max_backlog_bytes": 7,
        "retention": {"max_age_seconds": 0.5, "max_len": 6, "max_bytes": 8},
        "durability": "local", "buffer_without_groups": true,
    });
    let mut fields = Fields::of(&raw(&sent), &STREAM_UPDATE, "");
    let change = read_settings(&mut fields);
    fields.finish().unwrap();
    let settings = convert::update_stream(&StreamSettings::default(), Some(&change)).unwrap();
    assert_eq!(settings.durability, Durability::Local);
    let definition = StreamDefinition {
        name: "s".to_owned(),
        shards: 1,
        created_at: Timestamp(1_000),
        version: 1,
        settings,
    };
    let stream = convert::stream(&definition, vec!["g".to_owned()], (2, 1), 3);
    let shown = serde_json::to_value(StreamOut::from(stream)).unwrap();
    assert_eq!(misfits(&shown, &STREAM), Vec::<String>::new());
    for (field, value) in sent.as_object().unwrap() {
        assert_eq!(&shown[field], value, "{field}");
    }
}

#[test]
fn faults_of_a_stream_to_create_come_together() {
    let body = json!({ "name": "a b", "max_backlog": 0, "shards": 2, "colour": "red" });
    let faults = read_create(Fields::of(&raw(&body), &STREAM_CREATE, "")).unwrap_err();
    let mut fields: Vec<String> = faults.into_iter().map(|fault| fault.field).collect();
    fields.sort();
    assert_eq!(fields, ["colour", "max_backlog", "name", "shards"]);
}

#[test]
fn faults_inside_retention_are_named_with_their_place() {
    let sent =
        json!({ "retention": {"max_age_seconds": -1, "max_words": 1}, "durability": "disk" });
    let mut fields = Fields::of(&raw(&sent), &STREAM_UPDATE, "");
    read_settings(&mut fields);
    let faults = fields.finish().unwrap_err();
    let fields: Vec<&str> = faults
        .as_slice()
        .iter()
        .map(|fault| fault.field.as_str())
        .collect();
    assert_eq!(
        fields,
        [
            "retention.max_words",
            "retention.max_age_seconds",
            "durability"
        ]
    );
}
