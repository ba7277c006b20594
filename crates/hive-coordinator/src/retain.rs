//! The loop that keeps a shard tidy: time to live, retention, names nobody uses, half-made groups.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use hive_domain::stream::StreamSettings;
use hive_store::StoreError;
use hive_store::fetch::{Lanes, ReadLane};
use hive_store::lane::LaneRef;
use hive_store::members::PLACEHOLDER;

use crate::expire::Walks;
use crate::metrics::{self, Loop};
use crate::shard::{Scope, View, every};
use crate::{expire, lifecycle};

/// Pause between two looks at the heads of lanes for messages whose time to live has passed.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// Pause between two looks for Redis consumers and producers that nobody uses.
const FORGET_EVERY: Duration = Duration::from_secs(60);
/// A trim that deletes fewer has nothing left to delete.
const TRIM_SLICE: u64 = 500;
/// No limit by length: scripts count in doubles.
const LENGTH_MAX: u64 = 1 << 52;
/// Slices per pass: a million messages.
const TRIMS_MAX: u32 = 2_000;
/// Producers are forgotten in pages; more than these wait for the next pass.
const PRODUCER_PAGES_MAX: u32 = 1_000;

/// What a round does beside what every round does.
#[derive(Debug, Clone, Copy)]
struct Agenda {
    retain: bool,
    forget: bool,
}

/// Tidies, round by round.
pub(crate) async fn run(scope: Scope) {
    let (mut retained, mut forgot) = (None::<Instant>, Instant::now());
    let mut walks = Walks::new();
    let mut pace = every(TEND_EVERY.min(scope.settings.retention_every));
    loop {
        pace.tick().await;
        let began = Instant::now();
        let agenda = Agenda {
            retain: retained.is_none_or(|at| at.elapsed() >= scope.settings.retention_every),
            forget: forgot.elapsed() >= FORGET_EVERY,
        };
        let end = round(&scope, agenda, &mut walks).await;
        if scope.trouble.note(Loop::Tend, began, end) {
            if agenda.retain {
                retained = Some(began);
            }
            if agenda.forget {
                forgot = began;
            }
        }
    }
}

async fn round(scope: &Scope, agenda: Agenda, walks: &mut Walks) -> Result<(), StoreError> {
    let view = scope.view();
    let is_there = |name: &String| view.live().any(|group| group.name == *name);
    walks.retain(|(group, _), _| group.is_empty() || is_there(group));
    lifecycle::resume(scope, &view).await?;
    let lanes = scope.store.lanes(&scope.shard).await?;
    for group in view.live() {
        let read = lanes.of_group(&scope.shard, &group.name);
        let end = expire::by_ttl(scope, group, &read).await;
        scope.settle_trouble(&group.name, end).await?;
        let end = expire::behind_head(scope, group, &read, walks).await;
        scope.settle_trouble(&group.name, end).await?;
        if agenda.forget {
            let end = forget_consumers(scope, &group.name, &read).await;
            scope.settle_trouble(&group.name, end).await?;
        }
    }
    tend_held(scope, &view, &lanes, walks).await?;
    // Redis' time comes from the first round of the other loop.
    let Some(now_ms) = scope.now_ms() else {
        return Ok(());
    };
    if let Some(stream) = &view.stream
        && agenda.retain
    {
        retain(scope, &view, &lanes, &stream.settings, now_ms).await?;
    }
    if agenda.forget {
        forget_producers(scope, now_ms).await?;
    }
    Ok(())
}

/// Direct messages whose consumer no group had: a delayed one may have come due after its consumer
/// joined, and one that nobody came for ends with its time to live.
async fn tend_held(
    scope: &Scope,
    view: &View,
    lanes: &Lanes,
    walks: &mut Walks,
) -> Result<(), StoreError> {
    let (store, shard) = (&scope.store, &scope.shard);
    let groups: Vec<String> = view.live().map(|group| group.name.clone()).collect();
    let mut moved = 0;
    for held in lanes.all.iter().filter(|lane| lane.is_held()) {
        let consumer = &held.lane.consumer;
        for group in store.groups_of_consumer(shard, &groups, consumer).await? {
            moved += store.move_held(shard, &group, consumer, &lanes.all).await?;
        }
        expire::held(scope, held, walks).await?;
    }
    if moved > 0 {
        scope.ring().await?;
    }
    Ok(())
}

async fn retain(
    scope: &Scope,
    view: &View,
    lanes: &Lanes,
    stream: &StreamSettings,
    now_ms: u64,
) -> Result<(), StoreError> {
    let (age_ms, length) = (stream.retention_max_age_ms, stream.retention_max_len);
    // An age of 0 keeps no settled message; it ends no unsettled one.
    if age_ms > 0 {
        let limit_ms = now_ms.saturating_sub(age_ms);
        for group in view.live() {
            let read = lanes.of_group(&scope.shard, &group.name);
            let end = expire::by_age(scope, group, &read, limit_ms).await;
            scope.settle_trouble(&group.name, end).await?;
        }
    }
    // A lane of messages whose consumer no group has is read by nobody: all in it is unsettled.
    let lanes: Vec<LaneRef> = lanes
        .all
        .iter()
        .filter(|lane| !lane.is_held())
        .cloned()
        .collect();
    for lane in &lanes {
        if lane.group.is_empty() {
            expire_buffered(scope, lane, age_ms).await?;
        }
        while trim(scope, lane, age_ms, LENGTH_MAX).await? >= TRIM_SLICE {}
    }
    shorten(scope, &lanes, age_ms, length).await
}

/// Ends old messages of a lane that no group reads.
async fn expire_buffered(scope: &Scope, lane: &LaneRef, age_ms: u64) -> Result<(), StoreError> {
    for _ in 0..TRIMS_MAX {
        let ended = scope
            .store
            .expire_buffered(&scope.shard, lane, age_ms)
            .await?;
        metrics::expired(metrics::Expired::Retention, ended.expired);
        metrics::trimmed(ended.deleted);
        if !ended.more {
            break;
        }
    }
    Ok(())
}

/// Deletes settled messages, the oldest of all lanes first, while the shard has more than `length`.
async fn shorten(
    scope: &Scope,
    lanes: &[LaneRef],
    age_ms: u64,
    length: u64,
) -> Result<(), StoreError> {
    // Lanes whose head is unsettled: they have nothing to give.
    let mut pinned = BTreeSet::new();
    for _ in 0..TRIMS_MAX {
        let sizes = scope.store.lane_sizes(&scope.shard, lanes).await?;
        let kept: u64 = sizes.iter().map(|size| size.entries).sum();
        let excess = kept.saturating_sub(length).min(TRIM_SLICE);
        let oldest = lanes
            .iter()
            .zip(&sizes)
            .filter(|(lane, size)| size.oldest.is_some() && !pinned.contains(lane))
            .min_by_key(|(_, size)| size.oldest);
        let Some((lane, size)) = oldest.filter(|_| excess > 0) else {
            break;
        };
        let left = size.entries.saturating_sub(excess);
        if trim(scope, lane, age_ms, left).await? == 0 {
            pinned.insert(lane);
        }
    }
    Ok(())
}

/// Trims one slice of a lane; answers how many went.
async fn trim(scope: &Scope, lane: &LaneRef, age_ms: u64, length: u64) -> Result<u64, StoreError> {
    let began = Instant::now();
    let gone = scope.store.trim(&scope.shard, lane, age_ms, length).await?;
    metrics::trimmed(gone);
    if gone > 0 {
        // As long as the slice took: half of Redis' time at most, and others go between.
        tokio::time::sleep(began.elapsed().max(Duration::from_millis(1))).await;
    }
    Ok(gone)
}

/// Removes Redis consumers that are no members and hold nothing; the script checks both.
async fn forget_consumers(
    scope: &Scope,
    group: &str,
    lanes: &[ReadLane],
) -> Result<(), StoreError> {
    let members = scope.store.members(&scope.shard, group).await?;
    let is_member = |name: &String| members.iter().any(|member| member.consumer == *name);
    for lane in lanes {
        for name in scope.store.lane_consumers(group, lane).await? {
            if !name.starts_with(PLACEHOLDER) && !is_member(&name) {
                scope
                    .store
                    .forget_consumer(&scope.shard, group, lane, &name)
                    .await?;
            }
        }
    }
    Ok(())
}

async fn forget_producers(scope: &Scope, now_ms: u64) -> Result<(), StoreError> {
    let mut cursor = 0;
    for _ in 0..PRODUCER_PAGES_MAX {
        cursor = scope
            .store
            .forget_producers(&scope.shard, cursor, now_ms)
            .await?;
        if cursor == 0 {
            break;
        }
    }
    Ok(())
}
