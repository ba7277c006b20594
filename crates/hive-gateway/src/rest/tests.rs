//! The tables of calls fit together, and the documentation fits them.

use std::collections::BTreeSet;

use axum::http::{HeaderMap, HeaderValue, Uri};
use serde_json::{Value, value::RawValue};

use super::{all_calls, no_such_path, router, shape::Shape};

/// A value as a body.
pub(crate) fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap()
}

/// How a full answer differs from its shape: fields that are undeclared, and declared ones that it
/// does not have. Alternatives of one field (`payload_base64` of `payload`) are no misfit.
pub(crate) fn misfits(answer: &Value, shape: &Shape) -> Vec<String> {
    let shown: BTreeSet<&str> = answer
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let declared: BTreeSet<&str> = shape.fields().map(|field| field.name).collect();
    shown
        .symmetric_difference(&declared)
        .filter(|field| **field != "payload_base64")
        .map(|field| (*field).to_owned())
        .collect()
}

#[test]
fn the_routes_fit_together() {
    drop(router());
}

#[test]
fn the_documentation_lists_every_call_and_no_other() {
    let page = include_str!("../../../../docs/rest.md");
    let documented: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|call| call.contains(" /"))
        .map(str::to_owned)
        .collect();
    let served: BTreeSet<String> = all_calls()
        .map(|call| format!("{} /api/v1{}", call.method, call.path))
        .collect();
    assert_eq!(documented, served);
}

#[tokio::test]
async fn a_grpc_call_that_nobody_takes_gets_a_grpc_status() {
    let mut headers = HeaderMap::new();
    headers.insert(
        "content-type",
        HeaderValue::from_static("application/grpc+proto"),
    );
    let answer = no_such_path(headers, Uri::from_static("/other.v1.Service/Call")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["grpc-status"], "12");
}
