//! An agent over plain HTTP: fetch by long poll, settle what was handled.

use std::sync::Arc;

use axum::{Json, extract::State, routing::post};
use hive_domain::violation::Violations;
use hive_protocol::{
    fault::{Fault, Reason},
    limits::{
        CAPABILITIES_MAX, FETCH_MESSAGES_MAX, LEASE_BYTES_MAX, RESULT_BYTES_MAX,
        SETTLE_DELAY_MS_MAX, SUSPEND_STATE_BYTES_MAX, WAIT_MS_MAX,
    },
    request::items,
    wire::{self, outcome::Action},
    words::settle_status,
};
use prost::Message as _;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    asked::{Asked, JsonBody},
    fields::Fields,
    messages::{MessageOut, STORED_MESSAGE},
    problem::{Problem, in_our_words},
    render::time,
    shape::{
        Answer, Body, Call,
        Kind::{self, Count, Json as AnyJson, Many, Name, Names, One, Text, Time, Word},
        NOTHING, Shape, optional, required,
    },
};
use crate::core::Gateway;

/// The calls of this file.
pub(crate) static CALLS: [Call; 2] = [
    Call {
        method: "POST",
        path: "/consumer-groups/{group_name}/messages/fetch",
        id: "fetchMessages",
        about: "Leases messages to a consumer, by long poll. An unknown consumer is registered.",
        query: &NOTHING,
        body: Body::One(&FETCH),
        answers: &[Answer {
            status: 200,
            about: "Leased messages, at most 4 MiB; none when none came in time.",
            body: Body::One(&FETCHED),
        }],
        refusals: &[404, 409, 429],
        route: || post(fetch),
    },
    Call {
        method: "POST",
        path: "/consumer-groups/{group_name}/messages/settle",
        id: "settleMessages",
        about: "Says what became of deliveries; each outcome is judged on its own.",
        query: &NOTHING,
        body: Body::One(&SETTLE),
        answers: &[Answer {
            status: 200,
            about: "Each outcome was judged.",
            body: Body::One(&SETTLED),
        }],
        refusals: &[404],
        route: || post(settle),
    },
];

static FETCH: Shape = Shape::new(
    "Fetch",
    "Who fetches how much.",
    &[&[
        required("consumer_id", Name, "Id of the agent."),
        optional(
            "max_messages",
            Count(1, FETCH_MESSAGES_MAX as u64),
            "Most messages. Default 10.",
        ),
        optional(
            "wait_seconds",
            Kind::Seconds(0, WAIT_MS_MAX),
            "How long to wait for the first message. Default 0.",
        ),
        optional(
            "capabilities",
            Names(CAPABILITIES_MAX),
            "What the agent can do; at every call.",
        ),
        optional(
            "request_id",
            Name,
            "The same id repeats the same answer while its leases live.",
        ),
    ]],
);

static FETCHED: Shape = Shape::new(
    "Fetched",
    "Leased messages.",
    &[&[required("deliveries", Many(&DELIVERY), "The deliveries.")]],
);

static DELIVERY: Shape = Shape::new(
    "Delivery",
    "One message under a lease.",
    &[&[
        required(
            "lease",
            Text(LEASE_BYTES_MAX),
            "Opaque token to settle with.",
        ),
        required(
            "attempt",
            Count(1, u32::MAX as u64),
            "1 for the first try, plus one for each failed attempt before.",
        ),
        optional(
            "lease_expires_at",
            Time,
            "When the lease ends unless extended.",
        ),
        required("message", One(&STORED_MESSAGE), "The message."),
    ]],
);

static SETTLE: Shape = Shape::new(
    "Settle",
    "Outcomes of deliveries.",
    &[&[required("outcomes", Many(&OUTCOME), "1 to 1,000 outcomes.")]],
);

const ACTIONS: &[&str] = &["ack", "nack", "release", "reject", "extend", "suspend"];

/// Longest reason that is read; what is kept of it is cut to 1 KiB.
const REASON_TEXT_MAX: usize = 1 << 20;

static OUTCOME: Shape = Shape::new(
    "Outcome",
    "What became of one delivery.",
    &[&[
        required("lease", Text(LEASE_BYTES_MAX), "The token of the delivery."),
        required(
            "action",
            Word(ACTIONS),
            "ack: done; nack: failed, counted; release: given back, not counted; reject: can \
             never be done; extend: not settled, its lease starts anew; suspend, a task of a \
             workflow alone: it goes on once its question is answered.",
        ),
        optional("result", AnyJson, "With ack: what came out, at most 1 MiB."),
        optional(
            "reason",
            Text(REASON_TEXT_MAX),
            "With nack and reject, for people; cut to 1 KiB.",
        ),
        optional(
            "category",
            Name,
            "With nack and reject: failure category, e.g. `timeout`.",
        ),
        optional(
            "error_type",
            Text(REASON_TEXT_MAX),
            "With nack and reject: type of the error; cut to 128 bytes.",
        ),
        optional(
            "stack",
            Text(REASON_TEXT_MAX),
            "With nack and reject: stack trace; of more than 4 KiB the middle is left out.",
        ),
        optional(
            "delay_seconds",
            Kind::Seconds(0, SETTLE_DELAY_MS_MAX),
            "With nack and release: not delivered again before this long.",
        ),
        optional(
            "prompt",
            Text(REASON_TEXT_MAX),
            "With suspend: the question; cut to 1 KiB.",
        ),
        optional(
            "state",
            AnyJson,
            "With suspend: what the next attempt needs to go on, at most 64 KiB.",
        ),
        optional(
            "progress",
            AnyJson,
            "With any action: how far the work is. It is read and not kept; `extend` is what keeps \
             the lease meanwhile.",
        ),
    ]],
);

static SETTLED: Shape = Shape::new(
    "Settled",
    "How the outcomes were judged.",
    &[&[required(
        "results",
        Many(&SETTLE_RESULT),
        "One result per outcome, in order.",
    )]],
);

static SETTLE_RESULT: Shape = Shape::new(
    "SettleResult",
    "How one outcome was judged.",
    &[&[
        required("lease", Text(LEASE_BYTES_MAX), "The token of the outcome."),
        required(
            "status",
            Word(&["ok", "gone", "stale_lease", "unknown_lease", "invalid"]),
            "ok: taken; gone: settled before; stale_lease: somebody else's by now; \
             unknown_lease: none of this group's; invalid: breaks a rule. Only ok changed \
             anything.",
        ),
        optional(
            "error",
            Text(REASON_TEXT_MAX),
            "Why it was not taken, for a person.",
        ),
    ]],
);

async fn fetch(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Json<FetchedOut>, Problem> {
    let mut fields = Fields::of(&body, &FETCH, "");
    let request = wire::FetchRequest {
        group: asked.name("group_name"),
        consumer_id: fields.take_text("consumer_id"),
        max_messages: fields.take_u32("max_messages").unwrap_or(0),
        wait: fields.take_seconds("wait_seconds"),
        capabilities: fields.take_names("capabilities"),
        request_id: fields.take_text("request_id"),
    };
    fields.finish()?;
    let answer = gateway
        .fetch(&asked.namespace, request)
        .await
        .map_err(|fault| in_our_words(fault, ""))?;
    let deliveries: Result<Vec<DeliveryOut>, Fault> = answer
        .deliveries
        .into_iter()
        .map(DeliveryOut::read)
        .collect();
    Ok(Json(FetchedOut {
        deliveries: deliveries?,
    }))
}

async fn settle(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Json<SettledOut>, Problem> {
    let (judged, outcomes) = read_outcomes(&body)?;
    let mut results = if outcomes.is_empty() {
        Vec::new()
    } else {
        let group = asked.name("group_name");
        let request = wire::SettleRequest { group, outcomes };
        gateway.settle(&asked.namespace, request).await?.results
    }
    .into_iter();
    let place_one = |judged: Option<SettleResultOut>| {
        judged
            .or_else(|| results.next().map(SettleResultOut::from))
            .ok_or_else(|| Fault::bug("outcomes were answered with too few results"))
    };
    let results: Result<Vec<SettleResultOut>, Fault> = judged.into_iter().map(place_one).collect();
    Ok(Json(SettledOut { results: results? }))
}

/// Per outcome of a body its result, where it is invalid, and all others as the wire has them.
type ReadOutcomes = (Vec<Option<SettleResultOut>>, Vec<wire::Outcome>);

/// Reads every outcome of a body.
///
/// # Errors
/// When the body holds no outcomes, or too many.
fn read_outcomes(body: &RawValue) -> Result<ReadOutcomes, Fault> {
    let mut fields = Fields::of(body, &SETTLE, "");
    let unread = fields.take_items("outcomes");
    fields.finish()?;
    items("outcomes", unread.len())?;
    let mut judged = Vec::with_capacity(unread.len());
    let mut outcomes = Vec::with_capacity(unread.len());
    for json in unread {
        let fields = Fields::of(&json, &OUTCOME, "");
        match read_outcome(fields) {
            Ok(outcome) => {
                outcomes.push(outcome);
                judged.push(None);
            },
            Err((lease, violations)) => judged.push(Some(SettleResultOut {
                lease,
                status: settle_status(wire::SettleStatus::Invalid),
                error: violations.to_string(),
            })),
        }
    }
    Ok((judged, outcomes))
}

/// One outcome; its lease and every fault when it breaks a rule.
fn read_outcome(mut fields: Fields) -> Result<wire::Outcome, (String, Violations)> {
    let action = fields.take_word("action").unwrap_or_default();
    for (field, actions) in [
        ("result", &["ack"][..]),
        ("reason", &["nack", "reject"]),
        ("category", &["nack", "reject"]),
        ("error_type", &["nack", "reject"]),
        ("stack", &["nack", "reject"]),
        ("delay_seconds", &["nack", "release"]),
        ("prompt", &["suspend"]),
        ("state", &["suspend"]),
    ] {
        if fields.has(field) && !action.is_empty() && !actions.contains(&action) {
            fields.fault(field, format!("does not belong to `{action}`"));
        }
    }
    let lease = fields.take_text("lease");
    let result = fields.take_json("result").unwrap_or_default();
    if result.len() > RESULT_BYTES_MAX {
        let bytes = result.len();
        let rule = format!("has `{bytes}` bytes and must have at most {RESULT_BYTES_MAX}");
        fields.fault("result", rule);
    }
    let reason = fields.take_text("reason");
    let category = fields.take_text("category");
    let error_type = fields.take_text("error_type");
    let stack = fields.take_text("stack");
    let delay = fields.take_seconds("delay_seconds");
    let prompt = fields.take_text("prompt");
    let state = fields.take_json("state").unwrap_or_default();
    if state.len() > SUSPEND_STATE_BYTES_MAX {
        let bytes = state.len();
        let rule = format!("has `{bytes}` bytes and must have at most {SUSPEND_STATE_BYTES_MAX}");
        fields.fault("state", rule);
    }
    // Nobody shows it, so nothing keeps it: the wire's progress report has no content either.
    drop(fields.take_json("progress"));
    if let Err(violations) = fields.finish() {
        return Err((lease, violations));
    }
    let action = match action {
        "ack" => Action::Ack(wire::Ack {
            result,
            add_tasks: Vec::new(),
        }),
        "nack" => Action::Nack(wire::Nack {
            reason,
            category,
            delay,
            error_type,
            stack,
        }),
        "release" => Action::Release(wire::Release { retry_after: delay }),
        "reject" => Action::Reject(wire::Reject {
            reason,
            category,
            error_type,
            stack,
        }),
        "suspend" => Action::Suspend(wire::Suspend { prompt, state }),
        // The shape lets only six words through.
        _ => Action::Extend(wire::Extend {}),
    };
    Ok(wire::Outcome {
        lease,
        action: Some(action),
    })
}

#[derive(Serialize)]
struct FetchedOut {
    deliveries: Vec<DeliveryOut>,
}

#[derive(Serialize)]
struct DeliveryOut {
    lease: String,
    attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_expires_at: Option<String>,
    message: MessageOut,
}

impl DeliveryOut {
    /// A delivery with its message decoded.
    ///
    /// # Errors
    /// `CORRUPT`: what is stored is no message.
    fn read(delivery: wire::Delivery) -> Result<Self, Fault> {
        let message = wire::Message::decode(delivery.message).map_err(|fault| {
            Fault::new(Reason::Corrupt, "a stored message does not decode")
                .with_detail(format!("lease `{}`: {fault}", delivery.lease))
        })?;
        Ok(Self {
            lease_expires_at: time(delivery.lease_expires_at.as_ref()),
            lease: delivery.lease,
            attempt: delivery.attempt,
            message: MessageOut::from(message),
        })
    }
}

#[derive(Serialize)]
struct SettledOut {
    results: Vec<SettleResultOut>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct SettleResultOut {
    lease: String,
    status: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

impl From<wire::SettleResult> for SettleResultOut {
    fn from(result: wire::SettleResult) -> Self {
        Self {
            status: settle_status(result.status()),
            lease: result.lease,
            error: result.error,
        }
    }
}

#[cfg(test)]
mod tests;
