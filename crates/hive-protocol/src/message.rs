//! Checks a message at the door, all faults at once.
//!
//! What passes here is stored as it is and delivered as it is: nothing further in looks at the
//! envelope again.

use hive_domain::{
    capability::CapabilitySet,
    name,
    retry::RetryPolicy,
    time::Timestamp,
    violation::{Violation, Violations, path, quoted},
};

use crate::{
    fault::{Fault, Reason},
    limits::{
        CONTENT_TYPE_BYTES_MAX, CORRELATION_ID_BYTES_MAX, HEADERS_BYTES_MAX, HEADERS_MAX,
        IDEMPOTENCY_KEY_BYTES_MAX, INITIAL_BACKOFF_MS_MAX, MAX_ATTEMPTS_MAX, MAX_BACKOFF_MS_MAX,
        NOT_BEFORE_AHEAD_MS_MAX, ORDERING_KEY_BYTES_MAX, PRIORITY_DEFAULT, PRIORITY_MAX,
        REQUIRED_CAPABILITIES_MAX,
    },
    time, wire,
};

/// A message's own retry policy: what is set replaces the group's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOverride {
    /// Attempts before the message is dead, 1 to 1,000.
    pub max_attempts: Option<u32>,
    /// First backoff, 0 to 1 h.
    pub initial_backoff_ms: Option<u64>,
    /// Longest backoff, 0 to 24 h.
    pub max_backoff_ms: Option<u64>,
}

impl RetryOverride {
    /// The policy that counts for the message in a group with policy `base`.
    #[must_use]
    pub fn over(self, base: RetryPolicy) -> RetryPolicy {
        RetryPolicy {
            max_attempts: self.max_attempts.unwrap_or(base.max_attempts),
            initial_backoff_ms: self.initial_backoff_ms.unwrap_or(base.initial_backoff_ms),
            max_backoff_ms: self.max_backoff_ms.unwrap_or(base.max_backoff_ms),
        }
    }
}

/// Every fault of `message`; fields are named below `prefix` (`message`, `messages[3]`, or empty).
///
/// `payload_max` is the largest payload in bytes; `now` is the door's clock, against which
/// `not_before` and `expires_at` are held.
#[must_use]
pub fn check(
    message: &wire::Message,
    prefix: &str,
    payload_max: usize,
    now: Timestamp,
) -> Violations {
    let mut faults = Violations::new();
    check_names(message, &mut faults);
    faults.take(at_most("payload", message.payload.len(), payload_max));
    check_content_type(&message.content_type, &mut faults);
    check_headers(message, &mut faults);
    if let Some(priority) = message
        .priority
        .filter(|priority| *priority > u32::from(PRIORITY_MAX))
    {
        faults.push(
            "priority",
            format!("`{priority}` must be between 0 and {PRIORITY_MAX}"),
        );
    }
    for (field, value, max) in [
        (
            "correlation_id",
            &message.correlation_id,
            CORRELATION_ID_BYTES_MAX,
        ),
        (
            "idempotency_key",
            &message.idempotency_key,
            IDEMPOTENCY_KEY_BYTES_MAX,
        ),
        (
            "ordering_key",
            &message.ordering_key,
            ORDERING_KEY_BYTES_MAX,
        ),
    ] {
        faults.take(at_most(field, value.len(), max));
    }
    check_times(message, now, &mut faults);
    if let Some(retry) = &message.retry {
        let mut inner = Violations::new();
        check_retry(retry, &mut inner);
        faults.nest("retry", inner);
    }
    for (field, is_set) in [
        ("run_id", !message.run_id.is_empty()),
        ("inputs", !message.inputs.is_empty()),
        ("resumption", message.resumption.is_some()),
    ] {
        if is_set {
            faults.push(field, "is set by the router alone, for tasks of workflows");
        }
    }
    for (field, is_set) in [
        ("replay_of", !message.replay_of.is_empty()),
        ("replay_number", message.replay_number > 0),
    ] {
        if is_set {
            faults.push(field, "is set by the server alone");
        }
    }
    if message.track && !message.ordering_key.is_empty() {
        faults.push("track", "must not be set with an ordering_key");
    }

    let mut placed = Violations::new();
    placed.nest(prefix, faults);
    placed
}

/// Checks `message` as [`check`] does and makes a fault of what it finds.
///
/// # Errors
/// `PAYLOAD_TOO_LARGE` when that is the only thing wrong, else `INVALID_ARGUMENT`.
pub fn accept(
    message: &wire::Message,
    prefix: &str,
    payload_max: usize,
    now: Timestamp,
) -> Result<(), Fault> {
    check(message, prefix, payload_max, now)
        .into_result()
        .map_err(|faults| {
            let only_payload = faults.len() == 1 && message.payload.len() > payload_max;
            let reason = if only_payload {
                Reason::PayloadTooLarge
            } else {
                Reason::InvalidArgument
            };
            Fault::invalid_because(reason, faults)
        })
}

/// The priority of `message`: 4 unless it names one; never above 9.
#[must_use]
pub fn priority(message: &wire::Message) -> u8 {
    let named = message
        .priority
        .map(|priority| u8::try_from(priority).unwrap_or(PRIORITY_MAX));
    named.unwrap_or(PRIORITY_DEFAULT).min(PRIORITY_MAX)
}

/// The priority that a word stands for, where a door takes words: `low`, `normal`, `high`, `urgent`
/// or `critical`.
#[must_use]
pub fn priority_word(word: &str) -> Option<u8> {
    match word {
        "low" => Some(2),
        "normal" => Some(PRIORITY_DEFAULT),
        "high" => Some(7),
        "urgent" | "critical" => Some(PRIORITY_MAX),
        _ => None,
    }
}

/// What `message` says about its retries; an unset part keeps the group's.
#[must_use]
pub fn retry(message: &wire::Message) -> RetryOverride {
    let Some(retry) = &message.retry else {
        return RetryOverride::default();
    };
    let millis = |wire: &Option<prost_types::Duration>, ms_max| {
        time::optional_duration_ms("retry", wire.as_ref(), ms_max)
            .ok()
            .flatten()
    };
    RetryOverride {
        max_attempts: retry.max_attempts,
        initial_backoff_ms: millis(&retry.initial_backoff, INITIAL_BACKOFF_MS_MAX),
        max_backoff_ms: millis(&retry.max_backoff, MAX_BACKOFF_MS_MAX),
    }
}

/// The capabilities that `message` asks for. Call it on a checked message.
#[must_use]
pub fn required_capabilities(message: &wire::Message) -> CapabilitySet {
    message.required_capabilities.iter().cloned().collect()
}

/// When `message` may be delivered at the earliest; none for at once, also when the field is
/// nonsense, which [`check`] refuses.
#[must_use]
pub fn not_before(message: &wire::Message) -> Option<Timestamp> {
    message
        .not_before
        .as_ref()
        .and_then(|wire| time::timestamp("not_before", wire).ok())
}

/// When `message` expires; none for never, also when the field is nonsense, which [`check`]
/// refuses.
#[must_use]
pub fn expires_at(message: &wire::Message) -> Option<Timestamp> {
    message
        .expires_at
        .as_ref()
        .and_then(|wire| time::timestamp("expires_at", wire).ok())
}

fn check_names(message: &wire::Message, faults: &mut Violations) {
    for (field, value) in [
        ("message_id", &message.message_id),
        ("from_agent", &message.from_agent),
        ("to_agent", &message.to_agent),
        ("message_type", &message.message_type),
        ("workflow_id", &message.workflow_id),
        ("task_id", &message.task_id),
    ] {
        faults.take(name::check_optional(field, value));
    }
    let required = CapabilitySet::checked(
        "required_capabilities",
        &message.required_capabilities,
        REQUIRED_CAPABILITIES_MAX,
    );
    if let Err(inner) = required {
        faults.nest("", inner);
    }
}

/// A media type goes into an HTTP header again, so it is visible ASCII.
pub(crate) fn check_content_type(content_type: &str, faults: &mut Violations) {
    faults.take(at_most(
        "content_type",
        content_type.len(),
        CONTENT_TYPE_BYTES_MAX,
    ));
    if !content_type
        .bytes()
        .all(|byte| byte == b' ' || byte.is_ascii_graphic())
    {
        faults.push(
            "content_type",
            format!(
                "{} must hold only visible ASCII characters",
                quoted(content_type)
            ),
        );
    }
}

fn check_headers(message: &wire::Message, faults: &mut Violations) {
    let headers = &message.headers;
    if headers.len() > HEADERS_MAX {
        let len = headers.len();
        faults.push(
            "headers",
            format!("has `{len}` entries and must have at most {HEADERS_MAX}"),
        );
    }
    if headers.contains_key("") {
        faults.push("headers", "has an entry without a name");
    }
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    faults.take(at_most("headers", bytes, HEADERS_BYTES_MAX));
}

fn check_times(message: &wire::Message, now: Timestamp, faults: &mut Violations) {
    let not_before = message
        .not_before
        .as_ref()
        .and_then(|wire| faults.take(time::timestamp("not_before", wire)));
    let expires_at = message
        .expires_at
        .as_ref()
        .and_then(|wire| faults.take(time::timestamp("expires_at", wire)));
    if let Some(not_before) = not_before.filter(|t| t.since(now) > NOT_BEFORE_AHEAD_MS_MAX) {
        let days = not_before.since(now) / 86_400_000;
        faults.push(
            "not_before",
            format!("lies `{days}` days ahead and may lie at most 365"),
        );
    }
    if let Some(expires_at) = expires_at {
        if expires_at <= now {
            let late = now.since(expires_at);
            faults.push(
                "expires_at",
                format!("passed `{late} ms` ago and must lie ahead"),
            );
        }
        if let Some(not_before) = not_before.filter(|not_before| *not_before >= expires_at) {
            let gap = not_before.since(expires_at);
            faults.push(
                "expires_at",
                format!("must be after not_before, is `{gap} ms` before"),
            );
        }
    }
}

pub(crate) fn check_retry(retry: &wire::RetryPolicy, faults: &mut Violations) {
    if let Some(attempts) = retry
        .max_attempts
        .filter(|n| !(1..=MAX_ATTEMPTS_MAX).contains(n))
    {
        let rule = format!("`{attempts}` must be between 1 and {MAX_ATTEMPTS_MAX}");
        faults.push("max_attempts", rule);
    }
    let initial = faults.take(time::optional_duration_ms(
        "initial_backoff",
        retry.initial_backoff.as_ref(),
        INITIAL_BACKOFF_MS_MAX,
    ));
    let longest = faults.take(time::optional_duration_ms(
        "max_backoff",
        retry.max_backoff.as_ref(),
        MAX_BACKOFF_MS_MAX,
    ));
    if let (Some(Some(initial)), Some(Some(longest))) = (initial, longest)
        && initial > longest
    {
        faults.push(
            "max_backoff",
            format!("`{longest} ms` must be at least initial_backoff `{initial} ms`"),
        );
    }
}

/// Checks that `field` has at most `max` bytes.
///
/// # Errors
/// A violation where it has more.
pub fn at_most(field: &str, bytes: usize, max: usize) -> Result<(), Violation> {
    if bytes <= max {
        return Ok(());
    }
    Err(Violation::new(
        field,
        format!("has `{bytes}` bytes and must have at most {max}"),
    ))
}

/// Where message `index` of a batch is: `messages[3]`, below `prefix` if there is one.
#[must_use]
pub fn place(prefix: &str, index: usize) -> String {
    path(prefix, &format!("messages[{index}]"))
}

#[cfg(test)]
mod tests;
