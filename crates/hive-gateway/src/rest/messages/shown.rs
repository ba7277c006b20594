//! Messages as JSON.

use std::collections::BTreeMap;

use hive_protocol::{message, wire, words::message_state};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::rest::render::{Bytes, Seconds, time};

/// A page of messages as this door shows it.
#[derive(Serialize)]
pub(super) struct PeekedOut {
    messages: Vec<PeekedMessageOut>,
    next_cursor: Option<String>,
}

impl From<wire::PeekMessagesResponse> for PeekedOut {
    fn from(page: wire::PeekMessagesResponse) -> Self {
        Self {
            messages: page
                .messages
                .into_iter()
                .map(PeekedMessageOut::from)
                .collect(),
            next_cursor: Some(page.next_cursor).filter(|cursor| !cursor.is_empty()),
        }
    }
}

#[derive(Serialize)]
struct PeekedMessageOut {
    state: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    consumer_id: String,
    deliveries: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_seconds: Option<Seconds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<MessageOut>,
}

impl From<wire::PeekedMessage> for PeekedMessageOut {
    fn from(peeked: wire::PeekedMessage) -> Self {
        Self {
            state: message_state(peeked.state()),
            idle_seconds: Seconds::of(peeked.idle.as_ref()),
            consumer_id: peeked.consumer_id,
            deliveries: peeked.deliveries,
            message: peeked.message.map(MessageOut::from),
        }
    }
}

/// A message as this door shows it: everything that is set.
#[derive(Serialize)]
pub(in crate::rest) struct MessageOut {
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
    #[serde(skip_serializing_if = "String::is_empty")]
    run_id: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    inputs: BTreeMap<String, InputOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resumption: Option<ResumptionOut>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    published_at: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    track: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    replay_of: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    replay_number: Option<u32>,
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
            run_id: message.run_id,
            inputs: message
                .inputs
                .into_iter()
                .map(|(id, input)| (id, input.into()))
                .collect(),
            resumption: message.resumption.map(ResumptionOut::from),
            required_capabilities: message.required_capabilities,
            idempotency_key: message.idempotency_key,
            ordering_key: message.ordering_key,
            track: message.track,
            replay_of: message.replay_of,
            replay_number: (message.replay_number > 0).then_some(message.replay_number),
        }
    }
}

/// What a dependency gave: JSON where it is JSON, else base64.
#[derive(Serialize)]
struct InputOut {
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_base64: Option<String>,
    result_omitted: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

impl From<wire::TaskInput> for InputOut {
    fn from(input: wire::TaskInput) -> Self {
        let (result, result_base64) = json_or_base64(&input.result);
        Self {
            state: input.state,
            result,
            result_base64,
            result_omitted: input.result_omitted,
            error: input.error,
        }
    }
}

/// The answer to a question of an earlier attempt.
#[derive(Serialize)]
struct ResumptionOut {
    prompt: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_base64: Option<String>,
}

impl From<wire::Resumption> for ResumptionOut {
    fn from(resumption: wire::Resumption) -> Self {
        let (state, state_base64) = json_or_base64(&resumption.state);
        let (input, input_base64) = json_or_base64(&resumption.input);
        Self {
            prompt: resumption.prompt,
            state,
            state_base64,
            input,
            input_base64,
        }
    }
}

/// Bytes as JSON or in base64; neither of no bytes.
fn json_or_base64(bytes: &[u8]) -> (Option<Box<RawValue>>, Option<String>) {
    if bytes.is_empty() {
        return (None, None);
    }
    let Bytes { json, base64 } = Bytes::of(bytes, "");
    (json, base64)
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
