//! The OpenAPI 3.1 document, printed from the tables that the router and the readers go by.
//!
//! Nothing is written twice, so it cannot promise a path or a field that is not served.

use std::collections::BTreeMap;

use axum::{
    Json,
    response::{IntoResponse, Response},
    routing::get,
};
use hive_domain::name::NAME_LEN_MAX;
use hive_protocol::{
    http::PROBLEM_MEDIA_TYPE,
    limits::{BATCH_ITEMS_MAX, NAMESPACE_DEFAULT, NAMESPACE_HEADER},
};
use serde_json::{Map, Value, json};

use super::{
    asked::Asked,
    problem::PROBLEM,
    shape::{Answer, Body, Call, Field, Kind, NOTHING, Shape},
};

/// The calls of this file.
pub(crate) static CALLS: [Call; 1] = [Call {
    method: "GET",
    path: "/openapi.json",
    id: "getOpenApi",
    about: "This document.",
    query: &NOTHING,
    body: Body::None,
    answers: &[Answer {
        status: 200,
        about: "The document.",
        body: Body::AnyObject,
    }],
    refusals: &[],
    route: || get(show),
}];

/// The rule of names as a regular expression.
const NAME_PATTERN: &str = "^[A-Za-z0-9][A-Za-z0-9_.:-]*$";

async fn show(_asked: Asked) -> Response {
    Json(document(super::all_calls())).into_response()
}

/// The document for `calls`.
pub(crate) fn document(calls: impl Iterator<Item = &'static Call>) -> Value {
    let mut paths = Map::new();
    let mut schemas = Schemas::default();
    for call in calls {
        let path = format!("{}{}", super::BASE, call.path);
        let operation = operation(call, &mut schemas);
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        if let Value::Object(methods) = methods {
            methods.insert(call.method.to_ascii_lowercase(), operation);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Agent Hive",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Messages between agents, with consumer groups. Every path is served \
                with and without a slash at the end. Durations are numbers of seconds, times are \
                RFC 3339 in UTC, unknown fields are refused.",
        },
        "paths": paths,
        "components": { "schemas": schemas.0 },
    })
}

fn operation(call: &Call, schemas: &mut Schemas) -> Value {
    let mut responses = Map::new();
    for answer in call.answers {
        let mut response = json!({ "description": answer.about });
        if let Some(schema) = schemas.body(answer.body) {
            let media = match answer.body {
                Body::Events(_) => "text/event-stream",
                Body::None
                | Body::One(_)
                | Body::Maybe(_)
                | Body::Either(..)
                | Body::List(_)
                | Body::OneOrList(..)
                | Body::AnyObject => "application/json",
            };
            response["content"] = json!({ media: { "schema": schema } });
        }
        responses.insert(answer.status.to_string(), response);
    }
    let problem = schemas.reference(&PROBLEM);
    let mut refuse = |status: String, about: &str| {
        let content = json!({ PROBLEM_MEDIA_TYPE: { "schema": problem } });
        responses
            .entry(status)
            .or_insert_with(|| json!({ "description": about, "content": content }));
    };
    for (status, about) in refusals(call) {
        refuse(status.to_string(), about);
    }
    refuse("default".to_owned(), "Refused.");
    let mut operation = json!({
        "operationId": call.id,
        "summary": call.about,
        "tags": [tag(call.path)],
        "parameters": parameters(call, schemas),
        "responses": responses,
    });
    if let Some(schema) = schemas.body(call.body) {
        let is_required = !matches!(call.body, Body::Maybe(_));
        let content = json!({ "application/json": { "schema": schema } });
        operation["requestBody"] = json!({ "required": is_required, "content": content });
    }
    operation
}

/// The statuses with which a call is refused. 422 and 503 can come of every one.
fn refusals(call: &Call) -> impl Iterator<Item = (u16, &'static str)> {
    let with_body: &[u16] = if matches!(call.body, Body::None) {
        &[]
    } else {
        &[400, 413, 415]
    };
    let mut all: Vec<u16> = with_body.iter().chain(call.refusals).copied().collect();
    all.extend([422, 503]);
    all.into_iter().map(|status| (status, meaning(status)))
}

/// What a status means at this door.
const fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The body does not parse.",
        404 => "There is no such thing.",
        409 => "It does not fit the present state, or it exists with other content.",
        413 => "The request, a payload or a batch is too large.",
        415 => "The body is not declared as JSON.",
        422 => "A field breaks a rule; all of them are named.",
        429 => "A limit is reached; try again after a wait.",
        503 => "Nothing was done; repeating is safe.",
        504 => "The outcome is unknown.",
        _ => "Refused.",
    }
}

/// What a path is about: its last fixed part that names a thing.
fn tag(path: &str) -> &'static str {
    if path.ends_with("/health") || path.ends_with("/metrics") {
        "monitoring"
    } else if path.starts_with("/workflows") || path.contains("/route") {
        "workflows"
    } else if path.contains("/dlq/") {
        "dead letters"
    } else if path.starts_with("/scaling")
        || path.starts_with("/placement")
        || path.contains("/coordinator/")
        || path.ends_with("/rebalance")
    {
        "coordination"
    } else if path.contains("/messages") {
        "messages"
    } else if path.contains("/consumers") {
        "consumers"
    } else if path.starts_with("/consumer-groups") {
        "groups"
    } else if path.starts_with("/streams") {
        "streams"
    } else {
        "document"
    }
}

fn parameters(call: &Call, schemas: &mut Schemas) -> Vec<Value> {
    let mut all = vec![json!({
        "name": NAMESPACE_HEADER,
        "in": "header",
        "required": false,
        "description": "The namespace of the call.",
        "schema": { "type": "string", "pattern": NAME_PATTERN, "maxLength": NAME_LEN_MAX,
            "default": NAMESPACE_DEFAULT },
    })];
    for segment in call.path.split('/') {
        let name = segment
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'));
        if let Some(name) = name {
            let schema = schemas.kind(Kind::Name);
            all.push(json!({ "name": name, "in": "path", "required": true, "schema": schema }));
        }
    }
    for field in call.query.fields() {
        let mut parameter = json!({
            "name": field.name,
            "in": "query",
            "required": field.is_required,
            "description": field.about,
            "schema": schemas.kind(field.kind),
        });
        if matches!(field.kind, Kind::Names(_) | Kind::Words(_)) {
            parameter["style"] = json!("form");
            parameter["explode"] = json!(false);
        }
        all.push(parameter);
    }
    all
}

/// The schemas that were referred to so far.
#[derive(Default)]
struct Schemas(BTreeMap<&'static str, Value>);

impl Schemas {
    fn body(&mut self, body: Body) -> Option<Value> {
        match body {
            Body::None => None,
            Body::One(shape) | Body::Maybe(shape) => Some(self.reference(shape)),
            Body::Either(one, other) => {
                Some(json!({ "oneOf": [self.reference(one), self.reference(other)] }))
            },
            Body::List(shape) => Some(json!({ "type": "array", "items": self.reference(shape) })),
            Body::OneOrList(one, listed) => {
                let list = json!({ "type": "array", "items": self.reference(listed) });
                Some(json!({ "oneOf": [self.reference(one), list] }))
            },
            Body::Events(shape) => Some(self.reference(shape)),
            Body::AnyObject => Some(json!({ "type": "object" })),
        }
    }

    /// A reference to `shape`, which is printed at its first one.
    fn reference(&mut self, shape: &'static Shape) -> Value {
        if !self.0.contains_key(shape.name) {
            self.0.insert(shape.name, Value::Null);
            let schema = self.schema(shape);
            self.0.insert(shape.name, schema);
        }
        json!({ "$ref": format!("#/components/schemas/{}", shape.name) })
    }

    fn schema(&mut self, shape: &'static Shape) -> Value {
        let mut properties = Map::new();
        for field in shape.fields() {
            properties.insert(field.name.to_owned(), self.field(field));
        }
        let required: Vec<&str> = shape
            .fields()
            .filter(|field| field.is_required)
            .map(|field| field.name)
            .collect();
        json!({
            "type": "object",
            "description": shape.about,
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        })
    }

    fn field(&mut self, field: &Field) -> Value {
        let mut schema = self.kind(field.kind);
        if let Value::Object(schema) = &mut schema {
            schema.insert("description".to_owned(), json!(field.about));
        }
        schema
    }

    fn kind(&mut self, kind: Kind) -> Value {
        match kind {
            Kind::Name => {
                json!({ "type": "string", "pattern": NAME_PATTERN, "maxLength": NAME_LEN_MAX })
            },
            // The limit counts bytes; a text within it has no more characters than that.
            Kind::Text(bytes_max) => json!({ "type": "string", "maxLength": bytes_max }),
            Kind::Flag => json!({ "type": "boolean" }),
            Kind::Count(min, u64::MAX) => json!({ "type": "integer", "minimum": min }),
            Kind::Count(min, max) => {
                json!({ "type": "integer", "minimum": min, "maximum": max })
            },
            Kind::Number => json!({ "type": "number" }),
            Kind::Seconds(ms_min, ms_max) => json!({
                "type": "number",
                "minimum": seconds(ms_min),
                "maximum": seconds(ms_max),
            }),
            Kind::Time => json!({ "type": "string", "format": "date-time" }),
            Kind::Word(words) => json!({ "type": "string", "enum": words }),
            Kind::Words(words) => {
                let word = json!({ "type": "string", "enum": words });
                json!({ "oneOf": [word, { "type": "array", "items": word }] })
            },
            Kind::Boost => json!({ "oneOf": [
                { "type": "boolean" },
                { "type": "integer", "minimum": 0, "maximum": 9 },
            ] }),
            Kind::Priority => json!({ "oneOf": [
                { "type": "integer", "minimum": 0, "maximum": 9 },
                { "type": "string", "enum": ["low", "normal", "high", "urgent", "critical"] },
            ] }),
            Kind::GuidePriority => json!({ "oneOf": [
                { "type": "integer", "minimum": 1, "maximum": 10 },
                { "type": "string", "enum": ["low", "normal", "high", "urgent", "critical"] },
            ] }),
            Kind::Json => json!({}),
            Kind::Base64 => json!({ "type": "string", "contentEncoding": "base64" }),
            Kind::Names(max) => {
                let items = self.kind(Kind::Name);
                match max {
                    usize::MAX => json!({ "type": "array", "items": items }),
                    max => json!({ "type": "array", "items": items, "maxItems": max }),
                }
            },
            Kind::Texts(count, bytes) => {
                let items = self.kind(Kind::Text(bytes));
                json!({ "type": "array", "items": items, "maxItems": count })
            },
            Kind::Pairs => {
                json!({ "type": "object", "additionalProperties": { "type": "string" } })
            },
            Kind::One(shape) => self.reference(shape),
            Kind::Many(shape) => {
                let items = self.reference(shape);
                json!({ "type": "array", "items": items, "maxItems": BATCH_ITEMS_MAX })
            },
            Kind::UpTo(max, shape) => {
                let items = self.reference(shape);
                json!({ "type": "array", "items": items, "maxItems": max })
            },
            Kind::Counts => json!({
                "type": "object",
                "additionalProperties": { "type": "integer", "minimum": 0 },
            }),
            Kind::ByName(shape) => {
                let named = self.reference(shape);
                json!({ "type": "object", "additionalProperties": named })
            },
            Kind::TextOrNull => json!({ "type": ["string", "null"] }),
            Kind::CountOrNull => json!({ "type": ["integer", "null"], "minimum": 0 }),
            Kind::NumberOrNull => json!({ "type": ["number", "null"] }),
        }
    }
}

/// Milliseconds in seconds: whole where they are.
fn seconds(millis: u64) -> Value {
    json!(super::render::Seconds(millis))
}

#[cfg(test)]
mod tests;
