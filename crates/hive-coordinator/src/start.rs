//! What stands before the loops: whether Redis is there, and safe.

use std::time::Duration;

use hive_runtime::config::Redis;
use hive_runtime::health::Component;
use hive_store::preflight::Severity;
use hive_store::{Store, StoreConfig};

use crate::StartError;

/// Pause between two attempts to reach a Redis that is away at start.
const RETRY: Duration = Duration::from_millis(200);

/// Where the state is, as the store takes it.
pub(crate) fn store_config(redis: &Redis) -> StoreConfig {
    let url = match &redis.password {
        Some(password) => with_password(&redis.url, password.expose()),
        None => redis.url.clone(),
    };
    StoreConfig {
        url,
        prefix: redis.prefix.clone(),
        ..StoreConfig::default()
    }
}

/// Puts the password where the URL's scheme has it.
fn with_password(url: &str, password: &str) -> String {
    let mut encoded = String::new();
    for byte in password.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    if scheme == "redis+unix" {
        let joint = if rest.contains('?') { '&' } else { '?' };
        return format!("{url}{joint}pass={encoded}");
    }
    match rest.split_once('@') {
        Some((user, address)) => format!("{scheme}://{user}:{encoded}@{address}"),
        None => format!("{scheme}://:{encoded}@{rest}"),
    }
}

/// Waits for Redis, then looks whether it keeps what it accepts.
///
/// # Errors
/// When it may delete accepted messages, unless `allow_eviction`.
pub(crate) async fn wait_until_fit(
    store: &Store,
    redis: &Component,
    allow_eviction: bool,
) -> Result<(), StartError> {
    let mut said = String::new();
    let findings = loop {
        match store.preflight().await {
            Ok(findings) => break findings,
            Err(error) => {
                let text = error.to_string();
                redis.not_ready(text.clone());
                if said != text {
                    tracing::warn!(error = text, "waiting_for_redis");
                    said = text;
                }
                tokio::time::sleep(RETRY).await;
            },
        }
    };
    for finding in findings {
        let (topic, text) = (finding.topic, finding.text);
        match finding.severity {
            Severity::Info => tracing::info!(topic, text, "preflight"),
            Severity::Warning => tracing::warn!(topic, text, "preflight"),
            Severity::Refusal if allow_eviction => tracing::warn!(topic, text, "preflight"),
            Severity::Refusal => return Err(StartError::Eviction(text)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::with_password;

    #[test]
    fn a_password_stands_where_the_scheme_has_it() {
        let rows = [
            ("redis://h:1", "redis://:a%40b@h:1"),
            ("rediss://u@h:1/0", "rediss://u:a%40b@h:1/0"),
            ("redis+unix:///s", "redis+unix:///s?pass=a%40b"),
            ("redis+unix:///s?db=1", "redis+unix:///s?db=1&pass=a%40b"),
        ];
        for (url, expected) in rows {
            assert_eq!(with_password(url, "a@b"), expected);
        }
    }
}
