//! The document holds every call and every schema, and no other.

use std::collections::BTreeSet;

use serde_json::Value;

use super::document;
use crate::rest::all_calls;

fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get("$ref") {
                found.insert(reference.strip_prefix("#/components/schemas/").unwrap());
            }
            object.values().for_each(|inner| references(inner, found));
        },
        Value::Array(items) => items.iter().for_each(|inner| references(inner, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {},
    }
}

#[test]
fn every_reference_leads_to_a_schema_and_every_schema_is_referred_to() {
    let document = document(all_calls());
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    let schemas: BTreeSet<&str> = document["components"]["schemas"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(found, schemas);
}

#[test]
fn the_document_holds_every_call_and_no_other() {
    let document = document(all_calls());
    let mut documented = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            documented.insert((method.to_ascii_uppercase(), path.clone(), id));
        }
    }
    let served: BTreeSet<(String, String, String)> = all_calls()
        .map(|call| {
            (
                call.method.to_owned(),
                format!("/api/v1{}", call.path),
                call.id.to_owned(),
            )
        })
        .collect();
    assert_eq!(documented, served);
    assert_eq!(served.len(), all_calls().count());
}

#[test]
fn every_name_in_a_path_is_a_declared_parameter() {
    let document = document(all_calls());
    for (path, methods) in document["paths"].as_object().unwrap() {
        for operation in methods.as_object().unwrap().values() {
            let parameters = operation["parameters"].as_array().unwrap();
            let declared: Vec<&str> = parameters
                .iter()
                .filter(|parameter| parameter["in"] == "path")
                .filter_map(|parameter| parameter["name"].as_str())
                .collect();
            let in_path: Vec<&str> = path
                .split('/')
                .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
                .collect();
            assert_eq!(declared, in_path);
        }
    }
}
