//! What the gateway says of itself: once a second to the registry, every two seconds to each shard
//! whose consumers it holds. A gateway that a shard has not heard for ten seconds loses them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use hive_protocol::fault::{Fault, Reason};
use hive_runtime::health::Component;
use hive_store::{
    StoreError,
    registry::{Heard, Registration, Unfit, places},
};

use crate::{core::Gateway, dispatcher::Dispatcher};

/// How often a shard hears of the gateway.
const SHARDS: Duration = Duration::from_secs(2);
/// Length of the grace after a restart of Redis where the group's lease is not known.
const LEASE_MS: u64 = 30_000;

/// A shard that was not reached for so long gives the gateway's consumers up in a moment: after ten
/// seconds without a beat the coordinator hands their work to others. Until then they look for a
/// gateway that does reach it.
const UNREACHED: Duration = Duration::from_secs(5);
/// Beats under way at once: one by one, a thousand shards a few milliseconds away would all pass
/// for unreached.
const BEATS_MAX: usize = 32;
/// How long a beat may take, so that the time above is looked at in time.
const BEAT_WITHIN: Duration = Duration::from_secs(1);
/// What clients are told to wait before they come back.
const RETRY: Duration = Duration::from_millis(100);

/// How often Redis' clock is read.
const CLOCK: Duration = Duration::from_secs(1);

/// Keeps in mind how far Redis' clock is from ours, until the daemon stops: times to live are
/// judged by Redis' clock alone. While Redis is away what was known serves.
pub async fn read_clock(gateway: Arc<Gateway>) {
    loop {
        if let Err(error) = gateway.store.read_clock().await {
            tracing::debug!(%error, "clock_not_read");
        }
        tokio::select! {
            () = tokio::time::sleep(CLOCK) => {},
            () = gateway.shutdown.stopped() => return,
        }
    }
}

/// Keeps the gateway in the registry until the daemon stops.
///
/// # Errors
/// `Unfit` when Redis may lose accepted work by its set-up.
pub async fn announce(
    gateway: Arc<Gateway>,
    me: Registration,
    redis: Component,
    allow_eviction: bool,
) -> Result<(), Unfit> {
    let stop = gateway.shutdown.stopped();
    let heard = |heard: Heard<'_>| match heard {
        Heard::There { live, .. } => {
            let gateways = live.iter().filter(|one| one.daemon == me.daemon).count();
            gateway.note_gateways(gateways);
            gateway.routers.note(places(live));
            gateway.dead_letters.note(places(live));
            gateway.coordinators.note(places(live));
            gateway.note_redis(true);
            redis.ready();
        },
        Heard::Away(error) => {
            gateway.note_redis(false);
            redis.not_ready(error.to_string());
        },
        Heard::Changed(error) => {
            gateway.metrics.dataset_changed.set(1.0);
            gateway.note_redis(false);
            redis.not_ready(error.to_string());
            // Their memberships are gone. Told so later, by a Redis that knows none of them, they
            // would pass for fenced out and end; so they join again, and wait.
            for dispatcher in gateway.dispatchers() {
                dispatcher.end_all(&StoreError::clone(error).into());
            }
        },
        Heard::Accepted => gateway.metrics.dataset_changed.set(0.0),
    };
    gateway
        .store
        .announce(&me, allow_eviction, stop, heard)
        .await
}

/// Tells shards that this gateway holds consumers of theirs, until the daemon stops.
pub async fn beat_shards(gateway: Arc<Gateway>) {
    let mut pace = tokio::time::interval(SHARDS);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut reached = HashMap::new();
    loop {
        tokio::select! {
            _ = pace.tick() => {},
            () = gateway.shutdown.stopped() => return,
        }
        send_away(&gateway, &mut reached);
        gateway.retire_publishers();
        let mut shards: BTreeMap<String, Arc<Dispatcher>> = BTreeMap::new();
        for dispatcher in gateway.dispatchers() {
            shards
                .entry(dispatcher.shard.tag().to_owned())
                .or_insert(dispatcher);
        }
        let gateway = &gateway;
        let mut beats = stream::iter(shards)
            .map(|(tag, one)| async move {
                (
                    tag,
                    tokio::time::timeout(BEAT_WITHIN, beat(gateway, &one)).await,
                )
            })
            .buffer_unordered(BEATS_MAX);
        while let Some((tag, beaten)) = beats.next().await {
            match beaten {
                Ok(Ok(())) => drop(reached.insert(tag, Instant::now())),
                // It is this shard alone.
                Ok(Err(error)) if !error.is_transient() => {
                    tracing::debug!(%error, "shard_beat_failed");
                },
                // Redis is away for all of them.
                Ok(Err(_)) | Err(_) => {
                    tracing::debug!("shard_beat_missed");
                    break;
                },
            }
        }
    }
}

/// Tells the shard of this group that the gateway holds consumers of it.
async fn beat(gateway: &Gateway, dispatcher: &Dispatcher) -> Result<(), StoreError> {
    let view = gateway
        .catalog
        .group(&dispatcher.namespace, &dispatcher.group)
        .await;
    let lease = view.map_or(LEASE_MS, |view| view.definition.settings.lease_ms);
    let me = Some(&*gateway.incarnation);
    gateway
        .store
        .tick(&dispatcher.shard, lease, me)
        .await
        .map(drop)
}

/// Ends the streams of shards that were not reached for too long, where another gateway may reach
/// them. Where none is known, clients have nowhere to go, and nobody takes their work meanwhile.
fn send_away(gateway: &Gateway, reached: &mut HashMap<String, Instant>) {
    let dispatchers = gateway.dispatchers();
    reached.retain(|tag, _| dispatchers.iter().any(|one| one.shard.tag() == tag));
    for dispatcher in dispatchers {
        let tag = dispatcher.shard.tag();
        let last = *reached.entry(tag.to_owned()).or_insert_with(Instant::now);
        if last.elapsed() > UNREACHED && !gateway.is_alone() && !dispatcher.is_empty() {
            let group = &dispatcher.group;
            tracing::warn!(group, "consumers_sent_away");
            let fault = Fault::new(
                Reason::RedisUnavailable,
                "this gateway does not reach Redis; another one may",
            );
            dispatcher.end_all(&fault.with_retry_after(RETRY));
        }
    }
}
