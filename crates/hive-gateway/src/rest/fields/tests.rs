//! The reader of requests: every kind of field, and every fault at once.

use hive_domain::{time::Timestamp, violation::Violations};
use proptest::prelude::*;
use serde_json::value::RawValue;

use super::{Fields, Given, compact};
use crate::rest::shape::{Kind, Shape, optional, required};

static INNER: Shape = Shape::new("Inner", "", &[&[optional("count", Kind::Count(1, 10), "")]]);

static OUTER: Shape = Shape {
    name: "Outer",
    about: "",
    parts: &[&[
        required("name", Kind::Name, ""),
        optional("text", Kind::Text(4), ""),
        optional("flag", Kind::Flag, ""),
        optional("count", Kind::Count(1, 10), ""),
        optional("wait", Kind::Seconds(500, 30_000), ""),
        optional("time", Kind::Time, ""),
        optional("word", Kind::Word(&["a", "b"]), ""),
        optional("priority", Kind::Priority, ""),
        optional("json", Kind::Json, ""),
        optional("base64", Kind::Base64, ""),
        optional("names", Kind::Names(2), ""),
        optional("pairs", Kind::Pairs, ""),
        optional("inner", Kind::One(&INNER), ""),
    ]],
    elsewhere: &[("size", "is a setting of something else")],
};

#[derive(Debug, Default, PartialEq)]
struct Read {
    name: String,
    text: String,
    flag: Option<bool>,
    count: Option<u64>,
    wait: Option<u64>,
    time: Option<Timestamp>,
    word: Option<&'static str>,
    priority: Option<u32>,
    json: Option<bytes::Bytes>,
    base64: Option<bytes::Bytes>,
    names: Vec<String>,
    pairs: Vec<(String, String)>,
    inner: Option<u64>,
}

fn read_all(mut fields: Fields) -> Result<Read, Violations> {
    let read = Read {
        name: fields.take_text("name"),
        text: fields.take_text("text"),
        flag: fields.take_flag("flag"),
        count: fields.take_count("count"),
        wait: fields.take_ms("wait"),
        time: fields.take_time("time"),
        word: fields.take_word("word"),
        priority: fields.take_priority("priority"),
        json: fields.take_json("json"),
        base64: fields.take_base64("base64"),
        names: fields.take_names("names"),
        pairs: fields.take_pairs("pairs").into_iter().collect(),
        inner: fields.take_object("inner").and_then(|mut inner| {
            let count = inner.take_count("count");
            fields.close(inner);
            count
        }),
    };
    fields.finish()?;
    Ok(read)
}

fn read(json: &str) -> Result<Read, Violations> {
    let json: Box<RawValue> = serde_json::from_str(json).unwrap();
    read_all(Fields::of(&json, &OUTER, ""))
}

fn faults(json: &str) -> Vec<String> {
    let faults = read(json).unwrap_err();
    faults.into_iter().map(|fault| fault.to_string()).collect()
}

/// The faults of an object whose field is `value`, without the name of the field.
fn fault_of(field: &str, value: &str) -> String {
    let all = faults(&format!(r#"{{"name":"a","{field}":{value}}}"#));
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].strip_prefix(field).unwrap().to_owned()
}

#[test]
fn every_kind_is_read() {
    let read = read(
        r#"{"name":"a","text":"b","flag":true,"count":3,"wait":1.5,"time":"1970-01-01T00:00:01Z",
        "word":"b","priority":"high","json":{"z": 1.0, "a":null},"base64":"aGk=","names":["x"],
        "pairs":{"k":"v"},"inner":{"count":7}}"#,
    );
    let expected = Read {
        name: "a".to_owned(),
        text: "b".to_owned(),
        flag: Some(true),
        count: Some(3),
        wait: Some(1_500),
        time: Some(Timestamp(1_000)),
        word: Some("b"),
        priority: Some(7),
        json: Some(r#"{"z":1.0,"a":null}"#.into()),
        base64: Some("hi".into()),
        names: vec!["x".to_owned()],
        pairs: vec![("k".to_owned(), "v".to_owned())],
        inner: Some(7),
    };
    assert_eq!(read, Ok(expected));
}

#[test]
fn all_faults_come_at_once_with_their_fields() {
    let all = read(
        r#"{"text":5,"flag":"yes","count":11,"wait":0.1,"time":"noon","word":"c","priority":10,
        "base64":"?","names":["a b","c"],"pairs":{"k":1},"inner":{"count":"x","odd":1},"size":1,
        "odd":true}"#,
    )
    .unwrap_err();
    let fields: Vec<&str> = all
        .as_slice()
        .iter()
        .map(|fault| fault.field.as_str())
        .collect();
    assert_eq!(
        fields,
        [
            "size",
            "odd",
            "name",
            "text",
            "flag",
            "count",
            "wait",
            "time",
            "word",
            "priority",
            "base64",
            "names[0]",
            "pairs",
            "inner.odd",
            "inner.count"
        ]
    );
}

#[test]
fn each_fault_says_the_value_and_the_rule() {
    assert_eq!(
        fault_of("count", "0"),
        ": `0` must be a whole number between 1 and 10"
    );
    assert_eq!(
        fault_of("count", "2.5"),
        ": `2.5` must be a whole number between 1 and 10"
    );
    assert_eq!(
        fault_of("wait", "-1"),
        ": `-1` must be a number of seconds between 0.5 and 30"
    );
    assert_eq!(
        fault_of("wait", "1e300"),
        ": `1e300` must be a number of seconds between 0.5 and 30"
    );
    assert_eq!(
        fault_of("word", "\"c\""),
        ": `\"c\"` must be one of `a`, `b`"
    );
    assert_eq!(fault_of("flag", "1"), ": `1` must be true or false");
    assert_eq!(
        fault_of("text", "\"abcde\""),
        ": has `5` bytes and must have at most 4"
    );
    assert_eq!(
        fault_of("names", "[\"a\",\"b\",\"c\"]"),
        ": has `3` names and must have at most 2"
    );
    assert_eq!(fault_of("size", "1"), ": is a setting of something else");
    assert_eq!(fault_of("odd", "1"), ": is no field of `Outer`");
    assert_eq!(fault_of("inner", "[]"), ": `[]` must be an object");
    assert_eq!(
        fault_of("time", "\"1969-01-01T00:00:00Z\"")
            .matches("RFC 3339")
            .count(),
        1
    );
}

#[test]
fn a_body_that_is_no_object_is_a_fault_of_the_body() {
    let json: Box<RawValue> = serde_json::from_str("[1]").unwrap();
    let faults = Fields::of(&json, &INNER, "").finish().unwrap_err();
    assert_eq!(faults.to_string(), "body: `[1]` must be an object");
}

#[test]
fn a_field_given_twice_is_a_fault() {
    assert_eq!(
        faults(r#"{"name":"a","name":"b"}"#),
        ["name: is given twice"]
    );
}

#[test]
fn null_means_that_a_field_is_left_out_but_is_json() {
    let read = read(r#"{"name":"a","count":null,"json":null}"#).unwrap();
    assert_eq!(read.count, None);
    assert_eq!(read.json, Some("null".into()));
    assert_eq!(faults(r#"{"name":null}"#), ["name: must be set"]);
}

#[test]
fn an_unknown_field_with_an_odd_name_is_shown_cut_and_escaped() {
    let key = format!("{}\\n", "x".repeat(100));
    let all = faults(&format!(r#"{{"name":"a","{key}":1}}"#));
    assert_eq!(all.len(), 1);
    assert!(all[0].len() < 120, "{all:?}");
}

#[test]
fn a_query_is_read_as_fields_are() {
    let pairs = [
        ("name", "a"),
        ("flag", "true"),
        ("count", "3"),
        ("names", "x,y"),
        ("text", "7"),
    ];
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let read = read_all(Fields::new(Given::query(pairs.into(), &OUTER), &OUTER, "")).unwrap();
    assert_eq!(read.flag, Some(true));
    assert_eq!(read.count, Some(3));
    assert_eq!(read.names, ["x", "y"]);
    assert_eq!(read.text, "7");
}

#[test]
fn a_query_with_nonsense_names_its_faults() {
    let pairs = [("flag", "yes"), ("count", "[1"), ("odd", "")];
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let faults = read_all(Fields::new(Given::query(pairs.into(), &OUTER), &OUTER, ""));
    let fields: Vec<String> = faults
        .unwrap_err()
        .into_iter()
        .map(|fault| fault.field)
        .collect();
    assert_eq!(fields, ["odd", "name", "flag", "count"]);
}

proptest! {
    #[test]
    fn compact_json_means_the_same_and_has_no_idle_spaces(
        text in "\\PC{0,20}", key in "[a-z \"\\\\]{0,8}", number in any::<i64>()
    ) {
        let value = serde_json::json!({ key: [text, number, null, {}, []] });
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        let short = compact(&pretty);
        let short = std::str::from_utf8(&short).unwrap();
        prop_assert_eq!(short, serde_json::to_string(&value).unwrap());
    }

    #[test]
    fn no_input_makes_a_reader_panic(json in "[\\[\\]{}\":,a-z0-9.eE+ -]{0,60}") {
        if let Ok(json) = serde_json::from_str::<Box<RawValue>>(&json) {
            let read = read_all(Fields::of(&json, &OUTER, ""));
            prop_assert!(read.is_err() || json.get().contains("name"));
        }
    }

    #[test]
    fn seconds_with_up_to_three_digits_are_exact(millis in 500_u64..=30_000) {
        let seconds = format!("{}.{:03}", millis / 1_000, millis % 1_000);
        let read = read(&format!(r#"{{"name":"a","wait":{seconds}}}"#)).unwrap();
        prop_assert_eq!(read.wait, Some(millis));
    }
}
