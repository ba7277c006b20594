//! Tracked messages: where one stands, and its cancellation.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    routing::{delete, get},
};
use hive_protocol::{
    fault::Fault,
    limits::{REASON_BYTES_MAX, WAIT_MS_MAX},
    wire,
    words::tracked_state,
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    asked::Asked,
    problem::{Problem, in_our_words},
    render::{Bytes, time},
    shape::{
        Answer, Body, Call, Field,
        Kind::{Base64, Count, Json as AnyJson, Name, Seconds, Text, Time, Word},
        Shape, optional, required,
    },
};
use crate::core::Gateway;

/// The calls of this file.
pub(crate) static CALLS: [Call; 2] = [
    Call {
        method: "GET",
        path: "/messages/{message_id}",
        id: "getMessage",
        about: "Where a message stands that was published with `track`. It may wait for its end. \
                Its outcome is kept for 24 h. Refused with `MESSAGE_AMBIGUOUS` where several \
                streams know the id and no group is named.",
        query: &GET_QUERY,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "Where it stands.",
            body: Body::One(&TRACKED),
        }],
        refusals: &[404, 409],
        route: || get(show),
    },
    Call {
        method: "DELETE",
        path: "/messages/{message_id}",
        id: "cancelMessage",
        about: "Ends a tracked message that is not settled: it is not delivered any more, and \
                who holds it is told. Refused with `MESSAGE_OVER` where it ended otherwise.",
        query: &CANCEL_QUERY,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "It is cancelled.",
            body: Body::One(&TRACKED),
        }],
        refusals: &[404, 409],
        route: || delete(cancel),
    },
];

const STATES: &[&str] = &[
    "scheduled",
    "waiting",
    "leased",
    "retrying",
    "acked",
    "dead",
    "expired",
    "cancelled",
];

const GROUP: Field = optional(
    "group",
    Name,
    "The group that it was published to; it is found sooner so.",
);

static GET_QUERY: Shape = Shape::new(
    "GetMessageQuery",
    "Which message, and whether to wait.",
    &[&[
        GROUP,
        optional(
            "wait_seconds",
            Seconds(0, WAIT_MS_MAX),
            "Waits for its end for so long, then answers as it is. Default 0.",
        ),
    ]],
);

static CANCEL_QUERY: Shape = Shape::new(
    "CancelMessageQuery",
    "Which message, and why.",
    &[&[
        GROUP,
        optional(
            "reason",
            Text(REASON_BYTES_MAX),
            "For people; it is shown as `error`.",
        ),
    ]],
);

static TRACKED: Shape = Shape::new(
    "TrackedMessage",
    "A tracked message, as far as it is followed.",
    &[&[
        required("message_id", Name, "Its id."),
        required("state", Word(STATES), "Where it stands."),
        required(
            "attempts",
            Count(0, u32::MAX as u64),
            "Attempts that were begun, one under way included.",
        ),
        optional("consumer", Name, "Who holds it, or settled it."),
        optional("result", AnyJson, "What its consumer gave with the ack."),
        optional("result_base64", Base64, "The same, where it is no JSON."),
        optional(
            "error",
            Text(usize::MAX),
            "Why it is dead or cancelled, or why a result is not kept.",
        ),
        optional("ended_at", Time, "When it ended."),
    ]],
);

async fn show(
    State(gateway): State<Arc<Gateway>>,
    mut asked: Asked,
) -> Result<Json<TrackedOut>, Problem> {
    let request = wire::GetMessageRequest {
        message_id: asked.name("message_id"),
        group: asked.query.take_text("group"),
        wait: asked.query.take_seconds("wait_seconds"),
    };
    asked.query.finish()?;
    let answer = gateway
        .get_message(&asked.namespace, request)
        .await
        .map_err(|fault| in_our_words(fault, ""))?;
    out(answer.message)
}

async fn cancel(
    State(gateway): State<Arc<Gateway>>,
    mut asked: Asked,
) -> Result<Json<TrackedOut>, Problem> {
    let request = wire::CancelMessageRequest {
        message_id: asked.name("message_id"),
        group: asked.query.take_text("group"),
        reason: asked.query.take_text("reason"),
    };
    asked.query.finish()?;
    let answer = gateway
        .cancel_message(&asked.namespace, request)
        .await
        .map_err(|fault| in_our_words(fault, ""))?;
    out(answer.message)
}

fn out(message: Option<wire::TrackedMessage>) -> Result<Json<TrackedOut>, Problem> {
    let message = message.ok_or_else(|| Fault::bug("the gateway answered no message"))?;
    Ok(Json(message.into()))
}

#[derive(Serialize)]
struct TrackedOut {
    message_id: String,
    state: &'static str,
    attempts: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    consumer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_base64: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
}

impl From<wire::TrackedMessage> for TrackedOut {
    fn from(message: wire::TrackedMessage) -> Self {
        let result = if message.result.is_empty() {
            Bytes::default()
        } else {
            Bytes::of(&message.result, "")
        };
        Self {
            state: tracked_state(message.state()),
            message_id: message.message_id,
            attempts: message.attempts,
            consumer: message.consumer_id,
            result: result.json,
            result_base64: result.base64,
            error: message.error,
            ended_at: time(message.ended_at.as_ref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use hive_protocol::time::to_timestamp;

    use super::*;
    use crate::rest::tests::misfits;

    fn full(result: &'static [u8]) -> serde_json::Value {
        let message = wire::TrackedMessage {
            message_id: "m".into(),
            state: wire::TrackedState::Acked.into(),
            attempts: 1,
            consumer_id: "a".into(),
            result: bytes::Bytes::from_static(result),
            error: "e".into(),
            ended_at: Some(to_timestamp(1_000.into())),
        };
        serde_json::to_value(TrackedOut::from(message)).unwrap()
    }

    #[test]
    fn a_full_answer_has_every_declared_field() {
        assert_eq!(misfits(&full(b"{}"), &TRACKED), ["result_base64"]);
        assert_eq!(misfits(&full(b"{"), &TRACKED), ["result"]);
    }

    #[test]
    fn every_state_is_declared() {
        for number in 1..=8 {
            let state = wire::TrackedState::try_from(number).unwrap();
            assert!(STATES.contains(&tracked_state(state)), "{state:?}");
        }
    }
}
