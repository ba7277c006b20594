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
    StoreConfig {
        url: redis.url.clone(),
        password: redis
            .password
            .as_ref()
            .map(|password| password.expose().to_owned()),
        prefix: redis.prefix.clone(),
        ..StoreConfig::default()
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
        let (topic, text) = (finding.topic, finding.text());
        match finding.severity {
            Severity::Info => tracing::info!(topic, text, "preflight"),
            Severity::Warning => tracing::warn!(topic, text, "preflight"),
            Severity::Refusal if allow_eviction => tracing::warn!(topic, text, "preflight"),
            Severity::Refusal => return Err(StartError::Eviction(text)),
        }
    }
    Ok(())
}
