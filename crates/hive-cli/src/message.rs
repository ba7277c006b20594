//! A message as it is printed and as a line of JSON is read: the names of the REST API.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use hive_protocol::wire;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::values::{moment_after, rfc3339, wire_duration};

/// A message as it is printed. Unset fields are left out.
#[derive(Debug, Serialize)]
pub(crate) struct MessageView {
    pub(crate) message_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    from_agent: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    to_agent: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) message_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    content_type: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    pub(crate) priority: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    correlation_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    workflow_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    task_id: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    required_capabilities: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    ordering_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    published_at: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    track: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    replay_of: String,
    #[serde(skip_serializing_if = "is_zero")]
    replay_number: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl MessageView {
    /// The payload: as JSON where it is JSON, else in base64.
    pub(crate) fn payload(&self) -> (Option<&Value>, Option<&str>) {
        (self.payload.as_ref(), self.payload_base64.as_deref())
    }
}

/// Priority of a message that names none.
pub(crate) const DEFAULT_PRIORITY: u32 = 4;

impl From<wire::Message> for MessageView {
    fn from(message: wire::Message) -> Self {
        let payload = serde_json::from_slice::<Value>(&message.payload).ok();
        let raw = payload.is_none() && !message.payload.is_empty();
        Self {
            message_id: message.message_id,
            from_agent: message.from_agent,
            to_agent: message.to_agent,
            message_type: message.message_type,
            payload,
            payload_base64: raw.then(|| STANDARD.encode(&message.payload)),
            content_type: message.content_type,
            headers: message.headers,
            priority: message.priority.unwrap_or(DEFAULT_PRIORITY),
            correlation_id: message.correlation_id,
            workflow_id: message.workflow_id,
            task_id: message.task_id,
            required_capabilities: message.required_capabilities,
            ordering_key: message.ordering_key,
            track: message.track,
            replay_of: message.replay_of,
            replay_number: message.replay_number,
            not_before: rfc3339(message.not_before.as_ref()),
            expires_at: rfc3339(message.expires_at.as_ref()),
            published_at: rfc3339(message.published_at.as_ref()),
        }
    }
}

/// One line of `hive publish --jsonl`: a message of the REST API.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct MessageLine {
    message_id: String,
    from_agent: String,
    to_agent: String,
    message_type: String,
    payload: Option<Box<RawValue>>,
    payload_base64: Option<String>,
    content_type: String,
    headers: BTreeMap<String, String>,
    priority: Option<Priority>,
    correlation_id: String,
    workflow_id: String,
    task_id: String,
    required_capabilities: Vec<String>,
    idempotency_key: String,
    ordering_key: String,
    delay_seconds: Option<f64>,
    not_before: Option<jiff::Timestamp>,
    ttl_seconds: Option<f64>,
    track: bool,
    retry: Option<RetryLine>,
}

/// A priority as a number or as one of the words that the API takes.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Priority {
    Number(u32),
    Word(String),
}

/// Overrides of the group's retry policy.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RetryLine {
    max_attempts: Option<u32>,
    initial_backoff_seconds: Option<f64>,
    max_backoff_seconds: Option<f64>,
}

impl MessageLine {
    /// The message on the wire. Ranges and names are judged by the gateway, in one place.
    ///
    /// # Errors
    /// When a field cannot be said on the wire; the text names it and the rule.
    pub(crate) fn into_wire(self) -> Result<wire::Message, String> {
        let delay = self
            .delay_seconds
            .map(|value| moment("delay_seconds", value))
            .transpose()?;
        if delay.is_some() && self.not_before.is_some() {
            return Err("`delay_seconds` and `not_before` exclude each other".to_owned());
        }
        let not_before = self.not_before.map(|moment| prost_types::Timestamp {
            seconds: moment.as_second(),
            nanos: moment.subsec_nanosecond(),
        });
        Ok(wire::Message {
            payload: payload(self.payload.as_deref(), self.payload_base64.as_deref())?,
            priority: self.priority.map(Priority::number).transpose()?,
            not_before: not_before.or(delay),
            expires_at: self
                .ttl_seconds
                .map(|value| moment("ttl_seconds", value))
                .transpose()?,
            retry: self.retry.map(RetryLine::into_wire).transpose()?,
            message_id: self.message_id,
            from_agent: self.from_agent,
            to_agent: self.to_agent,
            message_type: self.message_type,
            content_type: self.content_type,
            headers: self.headers,
            correlation_id: self.correlation_id,
            workflow_id: self.workflow_id,
            task_id: self.task_id,
            required_capabilities: self.required_capabilities,
            idempotency_key: self.idempotency_key,
            ordering_key: self.ordering_key,
            track: self.track,
            ..wire::Message::default()
        })
    }
}

impl Priority {
    fn number(self) -> Result<u32, String> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Word(word) => priority(&word),
        }
    }
}

impl RetryLine {
    fn into_wire(self) -> Result<wire::RetryPolicy, String> {
        let wire = |name, value: Option<f64>| {
            let value = value.map(|value| span(name, value)).transpose()?;
            Ok::<_, String>(value.and_then(wire_duration))
        };
        Ok(wire::RetryPolicy {
            max_attempts: self.max_attempts,
            initial_backoff: wire(
                "retry.initial_backoff_seconds",
                self.initial_backoff_seconds,
            )?,
            max_backoff: wire("retry.max_backoff_seconds", self.max_backoff_seconds)?,
        })
    }
}

/// Reads a priority: 0 to 9, or `low`, `normal`, `high`, `urgent`, `critical`.
pub(crate) fn priority(text: &str) -> Result<u32, String> {
    match text {
        "low" => Ok(2),
        "normal" => Ok(DEFAULT_PRIORITY),
        "high" => Ok(7),
        "urgent" | "critical" => Ok(9),
        number => number
            .parse::<u32>()
            .ok()
            .filter(|number| *number <= 9)
            .ok_or_else(|| {
                format!(
                    "priority `{text}` must be 0 to 9, or low, normal, high, urgent or critical"
                )
            }),
    }
}

/// The payload from one of its two fields; a payload of JSON keeps its own spelling.
fn payload(json: Option<&RawValue>, base64: Option<&str>) -> Result<Bytes, String> {
    match (json, base64) {
        (Some(_), Some(_)) => Err("`payload` and `payload_base64` exclude each other".to_owned()),
        (Some(json), None) => Ok(Bytes::copy_from_slice(json.get().as_bytes())),
        (None, Some(text)) => STANDARD
            .decode(text)
            .map(Bytes::from)
            .map_err(|error| format!("`payload_base64` is not base64: {error}")),
        (None, None) => Err("a message needs `payload` or `payload_base64`".to_owned()),
    }
}

/// A span of seconds as JSON gives it.
fn span(name: &str, seconds: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_out_of_range| format!("`{name}` `{seconds}` must be seconds, 0 or more"))
}

/// The moment that lies these seconds ahead.
fn moment(name: &str, seconds: f64) -> Result<prost_types::Timestamp, String> {
    moment_after(span(name, seconds)?)
        .ok_or_else(|| format!("`{name}` `{seconds}` is further ahead than a clock can say"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<wire::Message, String> {
        serde_json::from_str::<MessageLine>(line)
            .map_err(|error| error.to_string())
            .and_then(MessageLine::into_wire)
    }

    #[test]
    fn a_json_payload_keeps_its_own_spelling() {
        let message = read(r#"{"payload": {"b":1.0, "a": "x"}}"#).unwrap();
        assert_eq!(&message.payload[..], br#"{"b":1.0, "a": "x"}"#);
    }

    #[test]
    fn an_unknown_field_is_refused_with_its_name() {
        assert!(
            read(r#"{"payload": 1, "priorty": 3}"#)
                .unwrap_err()
                .contains("priorty")
        );
    }

    #[test]
    fn a_message_without_a_payload_is_refused() {
        assert!(read("{}").unwrap_err().contains("payload_base64"));
    }

    #[test]
    fn priorities_are_numbers_or_words() {
        assert_eq!(
            read(r#"{"payload":1,"priority":"urgent"}"#)
                .unwrap()
                .priority,
            Some(9)
        );
        assert_eq!(
            read(r#"{"payload":1,"priority":0}"#).unwrap().priority,
            Some(0)
        );
        assert!(read(r#"{"payload":1,"priority":"10"}"#).is_err());
    }

    #[test]
    fn a_payload_that_is_no_json_is_shown_as_base64() {
        let message = wire::Message {
            payload: Bytes::from_static(b"\xff"),
            ..Default::default()
        };
        let view = MessageView::from(message);
        assert_eq!(view.payload_base64.as_deref(), Some("/w=="));
        assert!(view.payload.is_none());
    }
}
