//! The message as JSON, in both directions, and a look at the messages of a group.
//!
//! `publish` sends them, `deliveries` hands them out.

use std::sync::Arc;

use axum::{Json, extract::State, routing::get};
use hive_domain::{time::Timestamp, violation::Violations};
use hive_protocol::{message, time as wire_time, wire, words::parse_message_state};

pub(super) use self::{
    shapes::{MESSAGE, RETRY, STORED_MESSAGE},
    shown::MessageOut,
};
use self::{
    shapes::{PEEK_QUERY, PEEKED},
    shown::PeekedOut,
};
use super::{
    asked::{Asked, Trace, is_json},
    fields::Fields,
    problem::{Problem, in_our_words, renamed},
    render::now,
    shape::{Answer, Body, Call},
};
use crate::core::Gateway;

mod shapes;
mod shown;

/// The calls of this file.
pub(crate) static CALLS: [Call; 1] = [Call {
    method: "GET",
    path: "/consumer-groups/{group_name}/messages",
    id: "peekMessages",
    about: "Looks at the unsettled messages of a group without taking any.",
    query: &PEEK_QUERY,
    body: Body::None,
    answers: &[Answer {
        status: 200,
        about: "A page of messages.",
        body: Body::One(&PEEKED),
    }],
    refusals: &[404],
    route: || get(peek),
}];

async fn peek(
    State(gateway): State<Arc<Gateway>>,
    mut asked: Asked,
) -> Result<Json<PeekedOut>, Problem> {
    let state = asked.query.take_word("state").and_then(parse_message_state);
    let request = wire::PeekMessagesRequest {
        group: asked.name("group_name"),
        state: state.map_or(0, Into::into),
        limit: asked.query.take_u32("limit").unwrap_or(0),
        cursor: asked.query.take_text("cursor"),
    };
    asked.query.finish()?;
    let answer = gateway
        .peek_messages(&asked.namespace, request)
        .await
        .map_err(|fault| in_our_words(fault, ""))?;
    Ok(Json(PeekedOut::from(answer)))
}

/// Reads one message. Once anything is at fault, what the gateway would find in the rest is noted
/// too.
pub(super) fn read(
    fields: &mut Fields,
    prefix: &str,
    payload_max: usize,
    trace: &Trace,
) -> wire::Message {
    let now = now();
    let (payload, content_type) = read_payload(fields);
    let mut headers = fields.take_pairs("headers");
    trace.fill(&mut headers);
    let not_before = read_start(fields, now);
    let ttl = fields.take_ms("ttl_seconds");
    let message = wire::Message {
        message_id: fields.take_text("message_id"),
        from_agent: fields.take_text("from_agent"),
        to_agent: fields.take_text("to_agent"),
        message_type: fields.take_text("message_type"),
        payload,
        content_type,
        headers,
        priority: fields.take_priority("priority"),
        correlation_id: fields.take_text("correlation_id"),
        workflow_id: fields.take_text("workflow_id"),
        task_id: fields.take_text("task_id"),
        required_capabilities: fields.take_names("required_capabilities"),
        idempotency_key: fields.take_text("idempotency_key"),
        ordering_key: fields.take_text("ordering_key"),
        not_before: not_before.map(wire_time::to_timestamp),
        expires_at: ttl.map(|ttl| wire_time::to_timestamp(now.plus(ttl))),
        retry: read_retry(fields),
        track: fields.take_flag("track").unwrap_or(false),
        ..wire::Message::default()
    };
    if fields.has_faults() {
        let more: Violations = message::check(&message, "", payload_max, now);
        fields.add_missing(renamed(more, prefix));
    }
    message
}

/// The bytes of the payload and their media type.
pub(super) fn read_payload(fields: &mut Fields) -> (bytes::Bytes, String) {
    let (has_json, has_base64) = (fields.has("payload"), fields.has("payload_base64"));
    let json = fields.take_json("payload");
    let base64 = fields.take_base64("payload_base64");
    let given_type = fields.take_text("content_type");
    match (has_json, has_base64) {
        (true, true) => fields.fault("payload_base64", "is given beside payload, one must be"),
        (false, false) => fields.fault("payload", "must be set, or payload_base64"),
        (true, false) if !given_type.is_empty() && !is_json(&given_type) => {
            fields.fault(
                "content_type",
                "must be JSON for a payload; other bytes go into payload_base64",
            );
        },
        (true, false) | (false, true) => {},
    }
    let default = if has_json {
        "application/json"
    } else {
        "application/octet-stream"
    };
    let content_type = if given_type.is_empty() {
        default.to_owned()
    } else {
        given_type
    };
    (json.or(base64).unwrap_or_default(), content_type)
}

/// When the message may be delivered at the earliest.
fn read_start(fields: &mut Fields, now: Timestamp) -> Option<Timestamp> {
    if fields.has("delay_seconds") && fields.has("not_before") {
        fields.fault(
            "not_before",
            "is given beside delay_seconds, at most one may be",
        );
    }
    let not_before = fields.take_time("not_before");
    let delay = fields.take_ms("delay_seconds").filter(|delay| *delay > 0);
    not_before.or_else(|| delay.map(|delay| now.plus(delay)))
}

/// The retry policy of a message or task.
pub(super) fn read_retry(fields: &mut Fields) -> Option<wire::RetryPolicy> {
    let mut inner = fields.take_object("retry")?;
    let retry = wire::RetryPolicy {
        max_attempts: inner.take_u32("max_attempts"),
        initial_backoff: inner.take_seconds("initial_backoff_seconds"),
        max_backoff: inner.take_seconds("max_backoff_seconds"),
    };
    fields.close(inner);
    Some(retry)
}

#[cfg(test)]
mod tests;
