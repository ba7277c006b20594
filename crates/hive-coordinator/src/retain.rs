//! The loop that keeps a shard tidy: time to live, retention, names nobody uses, half-made groups.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hive_domain::stream::StreamSettings;
use hive_protocol::limits::{TRACKED_KEPT_BYTES_MAX, TRACKED_KEPT_MS};
use hive_store::StoreError;
use hive_store::fetch::{Lanes, ReadLane};
use hive_store::lane::LaneRef;
use hive_store::members::PLACEHOLDER;
use hive_store::replays::{Replay, ReplayState};
use hive_store::retention::{Keep, Trimmed, Unused};

use crate::expire::Walks;
use crate::metrics::{self, Forgotten, Loop};
use crate::shard::{Scope, View, every};
use crate::{expire, lifecycle};

/// Pause between two looks at the heads of lanes for messages whose time to live has passed.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// Pause between two looks for Redis consumers and producers that nobody uses.
const FORGET_EVERY: Duration = Duration::from_secs(60);
/// Most entries that one slice of a lane deletes by their number, so that lanes take turns by age.
const TRIM_SLICE: u64 = 200;
/// No limit by length or bytes: scripts count in doubles.
const LENGTH_MAX: u64 = 1 << 52;
/// Pause between two slices that make a shard smaller: what is published and delivered meanwhile
/// goes in between. About 40,000 messages a second are deleted so.
const TRIM_PAUSE: Duration = Duration::from_millis(4);
/// Slices per pass: 400,000 messages.
const TRIMS_MAX: u32 = 2_000;
/// Slices in vain of a look at the bytes: 4,000 messages that are not settled, in front of those
/// that are. The next pass of retention goes further.
const VAIN_MAX: u32 = 20;
/// Steps of 500 outcomes that are forgotten in one pass; more wait for the next one.
const OUTCOME_STEPS_MAX: u32 = 1_000;
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
        tokio::time::sleep(scope.extra_pause(TEND_EVERY)).await;
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
        let end = expire::parked(scope, group, &read, walks).await;
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
    if let Some(stream) = &view.stream {
        if agenda.retain {
            retain(scope, &view, &lanes, &stream.settings, now_ms).await?;
            retire_lanes(scope, &lanes).await?;
        } else {
            hold_bytes(scope, &lanes, &stream.settings).await?;
        }
    }
    if agenda.forget {
        forget_producers(scope, now_ms).await?;
    }
    if agenda.retain {
        forget_outcomes(scope).await?;
    }
    hold_outcomes(scope).await
}

/// Forgets outcomes of tracked messages by their age.
async fn forget_outcomes(scope: &Scope) -> Result<(), StoreError> {
    let (store, shard) = (&scope.store, &scope.shard);
    let kept = Duration::from_millis(TRACKED_KEPT_MS);
    let (aged, _) = store
        .forget_outcomes(shard, kept, OUTCOME_STEPS_MAX)
        .await?;
    metrics::outcomes_forgotten(Forgotten::Age, aged);
    Ok(())
}

/// Forgets outcomes sooner, the oldest first, where all of them take more memory than they may. At
/// a second's pace: what is over is what a second brings.
async fn hold_outcomes(scope: &Scope) -> Result<(), StoreError> {
    let (store, shard) = (&scope.store, &scope.shard);
    let mut sooner = 0;
    for _ in 0..OUTCOME_STEPS_MAX {
        if store.bytes_of_outcomes(shard).await? <= TRACKED_KEPT_BYTES_MAX {
            break;
        }
        let (forgotten, is_end) = store.forget_outcomes(shard, Duration::ZERO, 1).await?;
        sooner += forgotten;
        if is_end {
            break;
        }
    }
    if sooner > 0 {
        metrics::outcomes_forgotten(Forgotten::Bytes, sooner);
        tracing::warn!(?shard, outcomes = sooner, "outcomes_forgotten_sooner");
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
    let age_ms = stream.retention_max_age_ms;
    // An age of 0 keeps no settled message; it ends no unsettled one.
    if age_ms > 0 {
        let limit_ms = now_ms.saturating_sub(age_ms);
        for group in view.live() {
            let read = lanes.of_group(&scope.shard, &group.name);
            let end = expire::by_age(scope, group, &read, limit_ms).await;
            scope.settle_trouble(&group.name, end).await?;
        }
    }
    let lanes = settled_lanes(lanes);
    for lane in &lanes {
        if lane.group.is_empty() {
            expire_buffered(scope, lane, age_ms).await?;
        }
        let keep = Keep {
            age_ms,
            len: LENGTH_MAX,
            bytes: LENGTH_MAX,
        };
        let mut from = Some("-".to_owned());
        while let Some(cursor) = from {
            from = trim(scope, lane, keep, &cursor).await?.next;
        }
    }
    shorten(scope, &lanes, stream, TRIMS_MAX).await
}

/// Takes lanes out of use that nothing was published to for long: sets of capabilities and
/// consumers come and go, and each lane costs every fetch. Plain lanes are few, and stay.
async fn retire_lanes(scope: &Scope, lanes: &Lanes) -> Result<(), StoreError> {
    let (store, shard, idle_ms) = (&scope.store, &scope.shard, scope.settings.lane_idle_ms);
    let groups = store.groups_on_shard(shard).await?;
    let mut unused = store.retired_lanes(shard).await?;
    let may_go = |lane: &&LaneRef| !lane.lane.suffix().is_empty();
    unused.extend(lanes.all.iter().filter(may_go).cloned());
    for lane in unused {
        match store.retire_lane(shard, &lane, &groups, idle_ms).await? {
            Unused::Retired => tracing::debug!(?shard, %lane, "lane_retired"),
            Unused::Removed => tracing::debug!(?shard, %lane, "lane_removed"),
            Unused::Used => {},
        }
    }
    Ok(())
}

/// The limit of bytes holds at a second's pace: what is over is what a second brings.
async fn hold_bytes(
    scope: &Scope,
    lanes: &Lanes,
    stream: &StreamSettings,
) -> Result<(), StoreError> {
    let bytes = scope.store.bytes_by_lane(&scope.shard).await?;
    let lanes: Vec<LaneRef> = settled_lanes(lanes);
    let held: u64 = lanes
        .iter()
        .filter_map(|lane| bytes.get(&lane.to_string()))
        .sum();
    if held > stream.retention_max_bytes {
        shorten(scope, &lanes, stream, VAIN_MAX).await?;
    }
    Ok(())
}

/// A lane of messages whose consumer no group has is read by nobody: all in it is unsettled.
fn settled_lanes(lanes: &Lanes) -> Vec<LaneRef> {
    let settled = lanes.all.iter().filter(|lane| !lane.is_held());
    settled.cloned().collect()
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

/// Deletes settled messages, the oldest of all lanes first, while the shard has more than the
/// limits by number and by bytes say, until so many slices were in vain. Twice the limits while a
/// replay is under way: what it publishes is as much again, and must not push out what it has yet
/// to read.
async fn shorten(
    scope: &Scope,
    lanes: &[LaneRef],
    stream: &StreamSettings,
    vain_max: u32,
) -> Result<(), StoreError> {
    // Where to go on in each lane, none at its end: a head that is not settled yet is passed by.
    let mut cursors: BTreeMap<&LaneRef, Option<String>> = lanes
        .iter()
        .map(|lane| (lane, Some("-".to_owned())))
        .collect();
    let replays = scope.store.replays(&scope.shard).await?;
    let is_under_way = |replay: &Replay| replay.state == ReplayState::Running;
    let times = if replays.iter().any(is_under_way) {
        2
    } else {
        1
    };
    let len_max = stream.retention_max_len.saturating_mul(times);
    let bytes_max = stream.retention_max_bytes.saturating_mul(times);
    let mut vain = 0;
    for _ in 0..TRIMS_MAX {
        let sizes = scope.store.lane_sizes(&scope.shard, lanes).await?;
        let entries: u64 = sizes.iter().map(|size| size.entries).sum();
        let bytes: u64 = sizes.iter().map(|size| size.bytes).sum();
        let over_len = entries.saturating_sub(len_max).min(TRIM_SLICE);
        let over_bytes = bytes.saturating_sub(bytes_max);
        if over_len == 0 && over_bytes == 0 {
            break;
        }
        let oldest = lanes
            .iter()
            .zip(&sizes)
            .filter_map(|(lane, size)| Some((lane, size, cursors.get(lane)?.clone()?)))
            .filter(|(_, size, _)| size.oldest.is_some())
            .min_by_key(|(_, size, _)| size.oldest);
        let Some((lane, size, cursor)) = oldest else {
            break;
        };
        let limit = |held: u64, over: u64| match over {
            0 => LENGTH_MAX,
            over => held.saturating_sub(over),
        };
        let keep = Keep {
            age_ms: stream.retention_max_age_ms,
            len: limit(size.entries, over_len),
            bytes: limit(size.bytes, over_bytes),
        };
        let trimmed = trim(scope, lane, keep, &cursor).await?;
        tokio::time::sleep(TRIM_PAUSE).await;
        vain += u32::from(trimmed.deleted == 0);
        if vain >= vain_max {
            break;
        }
        // Without a next one, the limits of this step were reached, or the end of the lane.
        if trimmed.next.is_some() || trimmed.deleted == 0 {
            cursors.insert(lane, trimmed.next);
        }
    }
    Ok(())
}

/// Trims one slice of a lane.
async fn trim(
    scope: &Scope,
    lane: &LaneRef,
    keep: Keep,
    from: &str,
) -> Result<Trimmed, StoreError> {
    let began = Instant::now();
    let trimmed = scope.store.trim(&scope.shard, lane, keep, from).await?;
    metrics::trimmed(trimmed.deleted);
    if trimmed.deleted > 0 || trimmed.next.is_some() {
        // As long as the slice took: half of Redis' time at most, and others go between.
        tokio::time::sleep(began.elapsed().max(Duration::from_millis(1))).await;
    }
    Ok(trimmed)
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
