//! Publishes messages to a group or to every group of a stream, one or many at once.
//!
//! In a batch each message is judged on its own. One that is refused here never reaches the
//! gateway, so its ordering is kept here: later messages of its key are refused with it.

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
    routing::post,
};
use hive_domain::violation::quoted;
use hive_protocol::{
    fault::{Fault, Reason},
    http::ProblemJson,
    message::place,
    request::{Target, items},
    wire,
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    asked::{Asked, JsonBody, Trace},
    fields::{Fields, Given},
    messages::{self, MESSAGE},
    problem::{PROBLEM, Problem, in_our_words},
    shape::{
        Answer, Body, Call,
        Kind::{Flag, Many, Name, One},
        NOTHING, Shape, optional, required,
    },
};
use crate::core::Gateway;

/// The calls of this file.
pub(crate) static CALLS: [Call; 2] = [
    Call {
        method: "POST",
        path: "/consumer-groups/{group_name}/messages",
        id: "publishToGroup",
        about: "Publishes one message, or a batch of at most 1,000, to this group alone. \
                Without an idempotency key a repeated call may publish twice.",
        query: &NOTHING,
        body: Body::Either(&MESSAGE, &MESSAGES),
        answers: PUBLISHED_ANSWERS,
        refusals: &[404, 409, 429, 504],
        route: || post(to_group),
    },
    Call {
        method: "POST",
        path: "/streams/{stream}/messages",
        id: "publishToStream",
        about: "Publishes one message, or a batch of at most 1,000, to every group of this \
                stream. Without an idempotency key a repeated call may publish twice.",
        query: &NOTHING,
        body: Body::Either(&MESSAGE, &MESSAGES),
        answers: PUBLISHED_ANSWERS,
        refusals: &[404, 409, 429, 504],
        route: || post(to_stream),
    },
];

const PUBLISHED_ANSWERS: &[Answer] = &[Answer {
    status: 200,
    about: "Stored; of a batch, each message was judged.",
    body: Body::Either(&PUBLISHED, &PUBLISHED_BATCH),
}];

static MESSAGES: Shape = Shape::new(
    "Messages",
    "A batch of messages, together at most 4 MiB.",
    &[&[required("messages", Many(&MESSAGE), "1 to 1,000 messages.")]],
);

static PUBLISHED: Shape = Shape::new(
    "Published",
    "A stored message.",
    &[&[
        required(
            "message_id",
            Name,
            "Id of the stored message; the first one's if `duplicate`.",
        ),
        required(
            "duplicate",
            Flag,
            "True when a message with this idempotency key was stored before.",
        ),
    ]],
);

static PUBLISHED_BATCH: Shape = Shape::new(
    "PublishedBatch",
    "What became of a batch.",
    &[&[required(
        "results",
        Many(&PUBLISHED_ITEM),
        "One result per message, in order.",
    )]],
);

static PUBLISHED_ITEM: Shape = Shape::new(
    "PublishedItem",
    "What became of one message: stored, or refused with `error`.",
    &[&[
        optional("message_id", Name, "Id of the stored message."),
        optional("duplicate", Flag, "True when it was stored before."),
        optional(
            "error",
            One(&PROBLEM),
            "Why it was refused: nothing of it is stored.",
        ),
    ]],
);

async fn to_group(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let target = Target::Group(asked.name("group_name"));
    publish(&gateway, &asked, target, &body).await
}

async fn to_stream(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let target = Target::Stream(asked.name("stream"));
    publish(&gateway, &asked, target, &body).await
}

async fn publish(
    gateway: &Gateway,
    asked: &Asked,
    target: Target,
    body: &RawValue,
) -> Result<Response, Problem> {
    let (stream, group) = match target {
        Target::Stream(stream) => (stream, String::new()),
        Target::Group(group) => (String::new(), group),
    };
    if Given::object(body).is_some_and(|given| given.has("messages")) {
        let batch = Batch::read(body, gateway.payload_max(), &asked.trace)?;
        let results = batch.send(gateway, &asked.namespace, stream, group).await?;
        return Ok(Json(PublishedBatchOut { results }).into_response());
    }
    let mut fields = Fields::of(body, &MESSAGE, "");
    let message = messages::read(&mut fields, "", gateway.payload_max(), &asked.trace);
    fields.finish()?;
    let request = wire::PublishRequest {
        stream,
        group,
        message: Some(message),
        producer_id: String::new(),
        sequence: 0,
    };
    let answer = gateway
        .publish(&asked.namespace, request)
        .await
        .map_err(|fault| in_our_words(fault, ""))?;
    let message_id = Some(answer.message_id);
    let duplicate = Some(answer.duplicate);
    Ok(Json(PublishedOut {
        message_id,
        duplicate,
        error: None,
    })
    .into_response())
}

/// A batch that was read: what is sent on, and what is refused here.
struct Batch {
    /// Per message of the body its refusal; none for those that are sent on.
    refused: Vec<Option<Fault>>,
    /// The others, in order.
    messages: Vec<wire::Message>,
}

impl Batch {
    /// Reads every message of a batch.
    ///
    /// # Errors
    /// When the body is no batch, or one of no or too many messages.
    fn read(body: &RawValue, payload_max: usize, trace: &Trace) -> Result<Self, Fault> {
        let mut fields = Fields::of(body, &MESSAGES, "");
        let unread = fields.take_items("messages");
        fields.finish()?;
        items("messages", unread.len())?;
        let mut batch = Self {
            refused: Vec::with_capacity(unread.len()),
            messages: Vec::with_capacity(unread.len()),
        };
        let mut refused_keys = BTreeSet::new();
        for (index, json) in unread.iter().enumerate() {
            let prefix = place("", index);
            let mut fields = Fields::of(json, &MESSAGE, &prefix);
            let message = messages::read(&mut fields, &prefix, payload_max, trace);
            let key = message.ordering_key.clone();
            let refusal = match fields.finish() {
                Err(violations) => Some(Fault::invalid(violations)),
                Ok(()) if refused_keys.contains(&key) => Some(behind_a_refused_one(&key)),
                Ok(()) => None,
            };
            match refusal {
                Some(_) if !key.is_empty() => {
                    refused_keys.insert(key);
                },
                Some(_) => {},
                None => batch.messages.push(message),
            }
            batch.refused.push(refusal);
        }
        Ok(batch)
    }

    /// Publishes what was not refused and puts the outcomes in their places.
    async fn send(
        self,
        gateway: &Gateway,
        namespace: &str,
        stream: String,
        group: String,
    ) -> Result<Vec<PublishedOut>, Fault> {
        let mut outcomes = if self.messages.is_empty() {
            Vec::new()
        } else {
            let request = wire::PublishBatchRequest {
                stream,
                group,
                messages: self.messages,
                producer_id: String::new(),
                first_sequence: 0,
            };
            let answer = gateway.publish_batch(namespace, request).await;
            answer.map_err(|fault| in_our_words(fault, ""))?.outcomes
        }
        .into_iter();
        let place_one = |(index, refusal): (usize, Option<Fault>)| {
            if let Some(fault) = refusal {
                return Ok(PublishedOut::refused(&fault));
            }
            let outcome = outcomes.next();
            outcome
                .map(|outcome| PublishedOut::of(outcome, &place("", index)))
                .ok_or_else(|| Fault::bug("a batch was answered with too few outcomes"))
        };
        self.refused
            .into_iter()
            .enumerate()
            .map(place_one)
            .collect()
    }
}

fn behind_a_refused_one(key: &str) -> Fault {
    let key = quoted(key);
    let message = format!("an earlier message of key {key} was refused");
    Fault::new(Reason::EarlierMessageRefused, message)
}

#[derive(Serialize)]
struct PublishedBatchOut {
    results: Vec<PublishedOut>,
}

#[derive(Serialize)]
struct PublishedOut {
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duplicate: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ProblemJson>,
}

impl PublishedOut {
    fn refused(fault: &Fault) -> Self {
        Self {
            message_id: None,
            duplicate: None,
            error: Some(fault.into()),
        }
    }

    fn of(outcome: wire::PublishOutcome, prefix: &str) -> Self {
        if let Some(problem) = outcome.error {
            return Self::refused(&in_our_words(Fault::from(problem), prefix));
        }
        Self {
            message_id: Some(outcome.message_id),
            duplicate: Some(outcome.duplicate),
            error: None,
        }
    }
}

#[cfg(test)]
mod tests;
