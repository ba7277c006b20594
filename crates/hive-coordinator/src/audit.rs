//! The auditor: looks slowly and for ever whether the invariants hold, and repairs what it can.
//!
//! Nothing here should ever be found. Each finding is an alarm, and is repaired by a script that
//! checks again, so a page that is old by then does no harm:
//! - an entry of a placeholder that its index lacks would wait for ever: it is put back;
//! - a lane without its Redis group can be read by nobody: the group is restored at the oldest
//!   retained entry. Nothing tells how far it had come, so work that was settled may be done again;
//! - a delivery whose entry is gone blocks its ordering key and counts as work for ever: it is
//!   written off. What became of the message nobody knows, and no outcome is made up for it.
//!
//! Entries are looked at in slices, so some are found late. A delivery whose lease ends before its
//! turn comes is dropped by Redis itself, and shows in the counters alone: as soon as no lane has
//! anything that waits, what waits by the counters is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use hive_domain::group::GroupDefinition;
use hive_store::StoreError;
use hive_store::fetch::ReadLane;
use hive_store::members::PLACEHOLDER;
use hive_store::repair::WrittenOff;

use crate::metrics::{self, Invariant, Loop};
use crate::shard::{Scope, ageing_ms, every, is_loss};

/// Entries checked per group and pass, one small script each; the next pass goes on behind them.
const CHECKS_MAX: usize = 1_000;
/// Looks for entries that are gone per group and pass, each at up to a hundred deliveries.
const ENTRY_CALLS_MAX: u32 = 20;
/// Entries per page.
const PAGE: u64 = 1_000;
const TAKEN: &str = "~taken";
/// Pages read per group and pass.
const PAGES_MAX: u32 = 100;

/// What a person learns of a message that is gone.
const LOST_ADVICE: &str =
    "a delivered message is gone from redis, and nobody knows whether it was handled";

/// What is remembered between passes.
#[derive(Debug, Default)]
struct Memory {
    /// By group: the lane and the id behind which the next pass begins.
    cursors: BTreeMap<String, (String, String)>,
    /// The same of the look for entries that are gone.
    entry_cursors: BTreeMap<String, (String, String)>,
    /// Groups whose counters did not add up in the last passes.
    suspects: BTreeSet<String>,
}

/// Audits, pass by pass.
pub(crate) async fn run(scope: Scope) {
    let mut memory = Memory::default();
    let mut pace = every(scope.settings.audit_every);
    // The first pass comes after a pause: a start has enough to do.
    pace.tick().await;
    loop {
        tokio::select! {
            _ = pace.tick() => {},
            // Another loop missed something: a lane that nobody can read must not wait its turn.
            () = scope.trouble.has_lost() => {},
        }
        let began = Instant::now();
        let end = pass(&scope, &mut memory).await;
        scope.trouble.note(Loop::Audit, began, end);
    }
}

async fn pass(scope: &Scope, memory: &mut Memory) -> Result<(), StoreError> {
    let view = scope.view();
    let is_there = |name: &String| view.live().any(|group| group.name == *name);
    memory.cursors.retain(|name, _| is_there(name));
    memory.entry_cursors.retain(|name, _| is_there(name));
    memory.suspects.retain(is_there);
    let mut first = Ok(());
    for group in view.live() {
        match audit(scope, memory, group).await {
            // A group that cannot be audited keeps no other from its turn.
            Err(error) if !error.is_transient() => first = first.and(Err(error)),
            other => other?,
        }
    }
    first
}

async fn audit(
    scope: &Scope,
    memory: &mut Memory,
    group: &GroupDefinition,
) -> Result<(), StoreError> {
    let (lanes, _) = scope.store.read_lanes(&scope.shard, &group.name).await?;
    let mut end = check_counters(scope, memory, group, &lanes).await;
    if end.as_ref().is_err_and(is_loss) {
        let restored = restore(scope, group).await;
        if restored.as_ref().is_ok_and(|restored| *restored) {
            end = Ok(());
        }
    }
    let counted = scope.settle_trouble(&group.name, end).await;
    if counted.as_ref().is_err_and(StoreError::is_transient) {
        return counted;
    }
    // What the counters are refused for says nothing of the deliveries.
    let end = check_entries(scope, memory, group, &lanes).await;
    scope.settle_trouble(&group.name, end).await?;
    let end = check_places(scope, memory, group, &lanes).await;
    scope.settle_trouble(&group.name, end).await?;
    counted
}

/// Whether more is settled and pending than was published, or waits that is in no lane. The
/// published ones are read last: what comes in meanwhile makes them more, never fewer.
async fn check_counters(
    scope: &Scope,
    memory: &mut Memory,
    group: &GroupDefinition,
    lanes: &[ReadLane],
) -> Result<(), StoreError> {
    let first = scope
        .store
        .figures(&scope.shard, &group.name, lanes)
        .await?;
    let then = scope
        .store
        .figures(&scope.shard, &group.name, lanes)
        .await?;
    let (published, accounted) = (then.published, first.settled.saturating_add(first.pending));
    // The heads are read behind the counters: what is taken meanwhile leaves no waiting lane.
    let waits_nowhere = then.waiting > 0 && then.waiting_lanes.is_empty();
    if published >= accounted && !waits_nowhere {
        memory.suspects.remove(&group.name);
        return Ok(());
    }
    if memory.suspects.insert(group.name.clone()) {
        return Ok(());
    }
    if published < accounted {
        metrics::violation(Invariant::Counters);
        tracing::error!(
            shard = ?scope.shard,
            group = group.name,
            published,
            accounted,
            "invariant_violated"
        );
        return Ok(());
    }
    // Counted again in one step: a busy group is suspect by chance.
    let store = &scope.store;
    let lost = store.mend_counters(&scope.shard, &group.name).await?;
    if lost > 0 {
        metrics::violation(Invariant::Counters);
        metrics::data_lost();
        tracing::error!(
            shard = ?scope.shard,
            group = group.name,
            lost,
            advice = LOST_ADVICE,
            "invariant_violated"
        );
    }
    Ok(())
}

/// Gives the group its place back on lanes that lost it; answers whether any had.
async fn restore(scope: &Scope, group: &GroupDefinition) -> Result<bool, StoreError> {
    let restored = scope
        .store
        .restore_on_shard(&scope.shard, &group.name)
        .await?;
    for (lane, retained) in &restored {
        metrics::violation(Invariant::LaneHasGroup);
        tracing::error!(
            shard = ?scope.shard,
            group = group.name,
            lane,
            retained,
            advice = "data is gone from this lane; what it retains is delivered again, also what \
                was settled before",
            "group_restored"
        );
    }
    if restored.is_empty() {
        return Ok(false);
    }
    scope.ring().await?;
    Ok(true)
}

/// Checks a slice of all deliveries for entries that are gone.
async fn check_entries(
    scope: &Scope,
    memory: &mut Memory,
    group: &GroupDefinition,
    lanes: &[ReadLane],
) -> Result<(), StoreError> {
    let known = memory.entry_cursors.remove(&group.name);
    let (start, mut cursor) = begin(known, lanes);
    let (mut calls, mut lost) = (0, 0);
    for lane in lanes.iter().skip(start) {
        loop {
            let store = &scope.store;
            let found = store.check_pending(&group.name, lane, &cursor).await?;
            for id in &found.missing {
                lost += write_off(scope, group, lanes, (lane, id)).await?;
            }
            let Some(last) = found.last else { break };
            calls += 1;
            if calls >= ENTRY_CALLS_MAX {
                let at = (lane.reference.to_string(), last);
                memory.entry_cursors.insert(group.name.clone(), at);
                return ring_if(scope, lost).await;
            }
            cursor = format!("({last}");
        }
        "-".clone_into(&mut cursor);
    }
    ring_if(scope, lost).await
}

/// Where a walk goes on: the number of the lane, and the cursor in it.
fn begin(known: Option<(String, String)>, lanes: &[ReadLane]) -> (usize, String) {
    let at = known.and_then(|(lane, id)| {
        let number = lanes.iter().position(|known| *known.reference == *lane)?;
        Some((number, format!("({id}")))
    });
    at.unwrap_or((0, "-".to_owned()))
}

async fn write_off(
    scope: &Scope,
    group: &GroupDefinition,
    lanes: &[ReadLane],
    (lane, id): (&ReadLane, &str),
) -> Result<u64, StoreError> {
    let settings = (group.name.as_str(), ageing_ms(group));
    let end = scope
        .store
        .write_off(&scope.shard, settings, lanes, (lane, id))
        .await?;
    let lost = match end {
        WrittenOff::Lost(lost) => lost,
        // The next round of the walk reads the lanes again.
        WrittenOff::Sound | WrittenOff::LanesChanged => return Ok(0),
    };
    metrics::violation(Invariant::DeliveryHasEntry);
    metrics::data_lost();
    tracing::error!(
        shard = ?scope.shard,
        group = group.name,
        lane = &*lane.reference,
        id,
        lost,
        advice = LOST_ADVICE,
        "invariant_violated"
    );
    Ok(lost)
}

/// Checks a slice of the entries that places own.
async fn check_places(
    scope: &Scope,
    memory: &mut Memory,
    group: &GroupDefinition,
    lanes: &[ReadLane],
) -> Result<(), StoreError> {
    let (start, mut cursor) = begin(memory.cursors.remove(&group.name), lanes);
    let (mut checks, mut pages, mut repaired) = (0, 0, 0);
    for (number, lane) in lanes.iter().enumerate().skip(start) {
        loop {
            let page = scope
                .store
                .pending(&group.name, lanes, number, (&cursor, PAGE), None)
                .await?;
            pages += 1;
            for entry in &page {
                cursor = format!("({}", entry.id);
                // What was taken out to be settled has no index; the sweep gives it back.
                if !entry.owner.starts_with(PLACEHOLDER) || entry.owner == TAKEN {
                    continue;
                }
                checks += 1;
                let (id, ageing) = (entry.id.as_str(), ageing_ms(group));
                let was_missing = scope
                    .store
                    .reindex(&scope.shard, &group.name, lane, id, ageing)
                    .await?;
                if was_missing {
                    repaired += 1;
                    metrics::violation(Invariant::PlaceholderIndexed);
                    tracing::error!(
                        shard = ?scope.shard,
                        group = group.name,
                        lane = &*lane.reference,
                        id,
                        owner = entry.owner,
                        "invariant_violated"
                    );
                }
                if checks >= CHECKS_MAX {
                    break;
                }
            }
            let is_budget_spent = checks >= CHECKS_MAX || pages >= PAGES_MAX;
            if is_budget_spent && !page.is_empty() {
                let id = cursor.trim_start_matches('(').to_owned();
                let at = (lane.reference.to_string(), id);
                memory.cursors.insert(group.name.clone(), at);
                return ring_if(scope, repaired).await;
            }
            if u64::try_from(page.len()).unwrap_or(u64::MAX) < PAGE {
                break;
            }
        }
        "-".clone_into(&mut cursor);
    }
    ring_if(scope, repaired).await
}

async fn ring_if(scope: &Scope, repaired: u64) -> Result<(), StoreError> {
    if repaired > 0 {
        scope.ring().await?;
    }
    Ok(())
}
