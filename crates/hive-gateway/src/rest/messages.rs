//! The message as JSON, in both directions, and a look at the messages of a group.
//!
//! `publish` sends them, `deliveries` hands them out.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State, routing::get};
use hive_domain::{time::Timestamp, violation::Violations};
use hive_protocol::{
    limits::{
        CONTENT_TYPE_BYTES_MAX, CORRELATION_ID_BYTES_MAX, CURSOR_BYTES_MAX,
        IDEMPOTENCY_KEY_BYTES_MAX, INITIAL_BACKOFF_MS_MAX, MAX_ATTEMPTS_MAX, MAX_BACKOFF_MS_MAX,
        NOT_BEFORE_AHEAD_MS_MAX, ORDERING_KEY_BYTES_MAX, PEEK_MESSAGES_MAX,
        REQUIRED_CAPABILITIES_MAX,
    },
    message, time as wire_time, wire,
    words::{message_state, parse_message_state},
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    asked::{Asked, Trace, is_json},
    fields::Fields,
    problem::{Problem, in_our_words, renamed},
    render::{Bytes, Seconds, now, time},
    shape::{
        Answer, Body, Call, Field,
        Kind::{
            self, Base64, Count, Flag, Json as AnyJson, Many, Name, Names, Number, One, Pairs,
            Priority, Text, TextOrNull, Time, Word,
        },
        Shape, optional, required,
    },
};
use crate::core::Gateway;

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

/// Longest time to live: 10 years, so that sums of times stay far from their end.
const TTL_MS_MAX: u64 = 10 * NOT_BEFORE_AHEAD_MS_MAX;

/// What both directions share.
const COMMON: [Field; 12] = [
    optional("from_agent", Name, "Who sends it."),
    optional("to_agent", Name, "The one consumer that may handle it."),
    optional("message_type", Name, "What kind of work this is."),
    optional("payload", AnyJson, "The work itself, as JSON."),
    optional(
        "payload_base64",
        Base64,
        "The work itself, where it is no JSON.",
    ),
    optional(
        "content_type",
        Text(CONTENT_TYPE_BYTES_MAX),
        "Media type of the payload. Default application/json, with `payload_base64` \
         application/octet-stream.",
    ),
    optional(
        "headers",
        Pairs,
        "Free text pairs, at most 64 and 8 KiB together.",
    ),
    optional(
        "correlation_id",
        Text(CORRELATION_ID_BYTES_MAX),
        "Ties a conversation together.",
    ),
    optional(
        "workflow_id",
        Name,
        "The workflow this belongs to, for people and searches.",
    ),
    optional("task_id", Name, "The task of that workflow."),
    optional(
        "required_capabilities",
        Names(REQUIRED_CAPABILITIES_MAX),
        "A consumer must have all of these to get it.",
    ),
    optional(
        "idempotency_key",
        Text(IDEMPOTENCY_KEY_BYTES_MAX),
        "The same key within 24 h is accepted once.",
    ),
];

const COMMON_TOO: [Field; 4] = [
    optional(
        "ordering_key",
        Text(ORDERING_KEY_BYTES_MAX),
        "At most one message per key is in flight in a group, in publish order.",
    ),
    optional(
        "not_before",
        Time,
        "Not delivered before this time, at most 365 days ahead.",
    ),
    optional("retry", One(&RETRY), "Overrides the group's retry policy."),
    optional(
        "track",
        Flag,
        "Keeps the outcome and its result for 24 h. Default false.",
    ),
];

/// A message to publish.
pub(super) static MESSAGE: Shape = Shape::new(
    "Message",
    "A message to publish: exactly one of `payload` and `payload_base64`, at most one of \
     `delay_seconds` and `not_before`.",
    &[
        &[optional(
            "message_id",
            Name,
            "The caller's id; a new UUIDv7 where it is left out.",
        )],
        &COMMON,
        &COMMON_TOO,
        &[
            optional(
                "priority",
                Priority,
                "0 (least urgent) to 9, or low (2), normal (4), high (7), urgent or critical \
                 (9). Default 4.",
            ),
            optional(
                "delay_seconds",
                Kind::Seconds(0, NOT_BEFORE_AHEAD_MS_MAX),
                "Not delivered before this long.",
            ),
            optional(
                "ttl_seconds",
                Kind::Seconds(1, TTL_MS_MAX),
                "Not delivered after this long; then it goes to the dead letters as `expired`.",
            ),
        ],
    ],
);

static RETRY: Shape = Shape::new(
    "Retry",
    "How often and how soon a failed message is tried again.",
    &[&[
        optional(
            "max_attempts",
            Count(1, MAX_ATTEMPTS_MAX as u64),
            "Attempts before it is dead.",
        ),
        optional(
            "initial_backoff_seconds",
            Kind::Seconds(0, INITIAL_BACKOFF_MS_MAX),
            "First backoff.",
        ),
        optional(
            "max_backoff_seconds",
            Kind::Seconds(0, MAX_BACKOFF_MS_MAX),
            "Longest backoff.",
        ),
    ]],
);

/// A message as it is handed out.
pub(super) static STORED_MESSAGE: Shape = Shape::new(
    "StoredMessage",
    "A message as it was published; what was not set is absent.",
    &[
        &[required("message_id", Name, "Its id.")],
        &COMMON,
        &COMMON_TOO,
        &[
            required(
                "priority",
                Count(0, 9),
                "0 (least urgent) to 9 (most urgent).",
            ),
            optional("expires_at", Time, "Not delivered after this time."),
            optional("published_at", Time, "When the gateway accepted it."),
        ],
    ],
);

const STATES: &[&str] = &[
    "waiting",
    "leased",
    "ready",
    "delayed",
    "parked",
    "scheduled",
];

static PEEK_QUERY: Shape = Shape::new(
    "PeekQuery",
    "Which messages to look at.",
    &[&[
        optional(
            "state",
            Word(STATES),
            "Only messages in this state. Default all.",
        ),
        optional(
            "limit",
            Count(1, PEEK_MESSAGES_MAX as u64),
            "Most messages. Default 100.",
        ),
        optional(
            "cursor",
            Text(CURSOR_BYTES_MAX),
            "Goes on where an earlier answer ended: its `next_cursor`.",
        ),
    ]],
);

static PEEKED: Shape = Shape::new(
    "PeekedMessages",
    "A page of unsettled messages, by lanes, then age.",
    &[&[
        required("messages", Many(&PEEKED_MESSAGE), "The messages."),
        required(
            "next_cursor",
            TextOrNull,
            "Cursor of the next page; null at the end.",
        ),
    ]],
);

static PEEKED_MESSAGE: Shape = Shape::new(
    "PeekedMessage",
    "An unsettled message, looked at and not taken.",
    &[&[
        required("state", Word(STATES), "Where it is."),
        optional("consumer_id", Name, "Who holds it, when it is leased."),
        required(
            "deliveries",
            Count(0, u64::MAX),
            "How often it was delivered.",
        ),
        optional(
            "idle_seconds",
            Number,
            "Time since its last delivery or extension.",
        ),
        required("message", One(&STORED_MESSAGE), "The message."),
    ]],
);

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
    Ok(Json(PeekedOut {
        messages: answer
            .messages
            .into_iter()
            .map(PeekedMessageOut::from)
            .collect(),
        next_cursor: Some(answer.next_cursor).filter(|cursor| !cursor.is_empty()),
    }))
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
        published_at: None,
    };
    if fields.has_faults() {
        let more: Violations = message::check(&message, "", payload_max, now);
        fields.add_missing(renamed(more, prefix));
    }
    message
}

/// The bytes of the payload and their media type.
fn read_payload(fields: &mut Fields) -> (bytes::Bytes, String) {
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

fn read_retry(fields: &mut Fields) -> Option<wire::RetryPolicy> {
    let mut inner = fields.take_object("retry")?;
    let retry = wire::RetryPolicy {
        max_attempts: inner.take_u32("max_attempts"),
        initial_backoff: inner.take_seconds("initial_backoff_seconds"),
        max_backoff: inner.take_seconds("max_backoff_seconds"),
    };
    fields.close(inner);
    Some(retry)
}

#[derive(Serialize)]
struct PeekedOut {
    messages: Vec<PeekedMessageOut>,
    next_cursor: Option<String>,
}

#[derive(Serialize)]
struct PeekedMessageOut {
    state: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    consumer_id: String,
    deliveries: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_seconds: Option<Seconds>,
    message: MessageOut,
}

impl From<wire::PeekedMessage> for PeekedMessageOut {
    fn from(peeked: wire::PeekedMessage) -> Self {
        Self {
            state: message_state(peeked.state()),
            idle_seconds: Seconds::of(peeked.idle.as_ref()),
            consumer_id: peeked.consumer_id,
            deliveries: peeked.deliveries,
            message: MessageOut::from(peeked.message.unwrap_or_default()),
        }
    }
}

/// A message as this door shows it: everything that is set.
#[derive(Serialize)]
pub(super) struct MessageOut {
    message_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    from_agent: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    to_agent: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    message_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    content_type: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    priority: u8,
    #[serde(skip_serializing_if = "String::is_empty")]
    correlation_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    workflow_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    task_id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    required_capabilities: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    idempotency_key: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    ordering_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry: Option<RetryOut>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    track: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    published_at: Option<String>,
}

impl From<wire::Message> for MessageOut {
    fn from(message: wire::Message) -> Self {
        let payload = Bytes::of(&message.payload, &message.content_type);
        Self {
            priority: message::priority(&message),
            payload: payload.json,
            payload_base64: payload.base64,
            not_before: time(message.not_before.as_ref()),
            expires_at: time(message.expires_at.as_ref()),
            published_at: time(message.published_at.as_ref()),
            retry: message.retry.as_ref().map(RetryOut::from),
            message_id: message.message_id,
            from_agent: message.from_agent,
            to_agent: message.to_agent,
            message_type: message.message_type,
            content_type: message.content_type,
            headers: message.headers,
            correlation_id: message.correlation_id,
            workflow_id: message.workflow_id,
            task_id: message.task_id,
            required_capabilities: message.required_capabilities,
            idempotency_key: message.idempotency_key,
            ordering_key: message.ordering_key,
            track: message.track,
        }
    }
}

#[derive(Serialize)]
struct RetryOut {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    initial_backoff_seconds: Option<Seconds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_backoff_seconds: Option<Seconds>,
}

impl From<&wire::RetryPolicy> for RetryOut {
    fn from(retry: &wire::RetryPolicy) -> Self {
        Self {
            max_attempts: retry.max_attempts,
            initial_backoff_seconds: Seconds::of(retry.initial_backoff.as_ref()),
            max_backoff_seconds: Seconds::of(retry.max_backoff.as_ref()),
        }
    }
}

#[cfg(test)]
mod tests;
