//! What the gateway says of itself: once a second to the registry, every two seconds to each shard
//! whose consumers it holds. A gateway that a shard has not heard for ten seconds loses them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hive_runtime::health::Component;
use hive_store::{preflight::Severity, registry::Registration};

use crate::core::{Gateway, now_ms};

const EVERY: Duration = Duration::from_secs(1);
/// Shards hear a beat every so many rounds.
const SHARDS_EVERY: u64 = 2;
/// A fault of Redis' set-up that only an operator mends.
#[derive(Debug, thiserror::Error)]
#[error("this Redis is not fit to keep accepted work: {0}")]
pub struct Unfit(String);

/// Beats until the daemon stops.
///
/// # Errors
/// `Unfit` when the preflight refuses the server.
pub async fn run(
    gateway: Arc<Gateway>,
    redis: Component,
    advertise: String,
    allow_eviction: bool,
) -> Result<(), Unfit> {
    let me = Registration {
        daemon: "gateway",
        instance: gateway.incarnation.to_string(),
        advertise,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch: now_ms(),
    };
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut checked = false;
    let mut round: u64 = 0;
    let mut away_since: Option<Instant> = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {},
            () = gateway.shutdown.stopped() => break,
        }
        if !checked && let Ok(findings) = gateway.store.preflight().await {
            checked = true;
            for finding in findings {
                match finding.severity {
                    Severity::Refusal if !allow_eviction => return Err(Unfit(finding.text)),
                    Severity::Refusal | Severity::Warning => {
                        tracing::warn!(topic = finding.topic, text = finding.text, "preflight");
                    },
                    Severity::Info => {
                        tracing::info!(topic = finding.topic, text = finding.text, "preflight");
                    },
                }
            }
        }
        match gateway.store.beat(&me).await {
            Ok(live) => {
                let gateways = live.iter().filter(|one| one.daemon == me.daemon).count();
                gateway.note_gateways(gateways);
                if checked {
                    redis.ready();
                    gateway.note_redis(true);
                }
                if let Some(since) = away_since.take() {
                    let seconds = since.elapsed().as_secs();
                    tracing::info!(seconds, "redis_is_back");
                }
            },
            Err(error) => {
                if away_since.is_none() {
                    away_since = Some(Instant::now());
                    tracing::warn!(%error, "redis_is_away");
                }
                redis.not_ready(error.to_string());
                gateway.note_redis(false);
            },
        }
        if round.is_multiple_of(SHARDS_EVERY) {
            beat_shards(&gateway).await;
        }
        round += 1;
    }
    if let Err(error) = gateway.store.sign_off(&me).await {
        tracing::debug!(%error, "sign_off_failed");
    }
    Ok(())
}

async fn beat_shards(gateway: &Gateway) {
    let mut done = Vec::new();
    for dispatcher in gateway.dispatchers() {
        if done.contains(&dispatcher.shard) {
            continue;
        }
        let view = gateway
            .catalog
            .group(&dispatcher.namespace, &dispatcher.group)
            .await;
        let lease = view.map_or(30_000, |view| view.definition.settings.lease_ms);
        let beat = gateway
            .store
            .tick(&dispatcher.shard, lease, Some(&gateway.incarnation))
            .await;
        if let Err(error) = beat {
            tracing::debug!(%error, "shard_beat_failed");
            return;
        }
        done.push(dispatcher.shard.clone());
    }
}
