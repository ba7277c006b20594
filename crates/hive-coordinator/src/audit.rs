//! The auditor: looks slowly and for ever whether the invariants hold, and repairs what it can.
//!
//! Nothing here should ever be found. An entry of a placeholder that its index lacks would wait for
//! ever; it is put back by a script that checks again, so a page that is old by then does no harm.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use hive_domain::group::GroupDefinition;
use hive_store::StoreError;
use hive_store::fetch::ReadLane;
use hive_store::members::PLACEHOLDER;

use crate::metrics::{self, Invariant, Loop};
use crate::shard::{Scope, ageing_ms, every};

/// Entries checked per group and pass, one small script each; the next pass goes on behind them.
const CHECKS_MAX: usize = 1_000;
/// Entries per page.
const PAGE: u64 = 1_000;
const TAKEN: &str = "~taken";
/// Pages read per group and pass.
const PAGES_MAX: u32 = 100;

/// What is remembered between passes.
#[derive(Debug, Default)]
struct Memory {
    /// By group: the lane and the id behind which the next pass begins.
    cursors: BTreeMap<String, (String, String)>,
    /// Groups whose counters did not add up in the last pass.
    suspects: BTreeSet<String>,
}

/// Audits, pass by pass.
pub(crate) async fn run(scope: Scope) {
    let mut memory = Memory::default();
    let mut pace = every(scope.settings.audit_every);
    // The first pass comes after a pause: a start has enough to do.
    pace.tick().await;
    loop {
        pace.tick().await;
        let began = Instant::now();
        let end = pass(&scope, &mut memory).await;
        scope.trouble.note(Loop::Audit, began, end);
    }
}

async fn pass(scope: &Scope, memory: &mut Memory) -> Result<(), StoreError> {
    let view = scope.view();
    let is_there = |name: &String| view.live().any(|group| group.name == *name);
    memory.cursors.retain(|name, _| is_there(name));
    memory.suspects.retain(is_there);
    for group in view.live() {
        let (lanes, _) = scope.store.read_lanes(&scope.shard, &group.name).await?;
        let end = check_counters(scope, memory, group, &lanes).await;
        scope.settle_trouble(&group.name, end).await?;
        let end = check_places(scope, memory, group, &lanes).await;
        scope.settle_trouble(&group.name, end).await?;
    }
    Ok(())
}

/// Whether more is settled and pending than was published. The published ones are read last: what
/// comes in meanwhile makes them more, never fewer.
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
    if published >= accounted {
        memory.suspects.remove(&group.name);
        return Ok(());
    }
    if !memory.suspects.insert(group.name.clone()) {
        metrics::violation(Invariant::Counters);
        tracing::error!(
            shard = ?scope.shard,
            group = group.name,
            published,
            accounted,
            "invariant_violated"
        );
    }
    Ok(())
}

/// Checks a slice of the entries that places own.
async fn check_places(
    scope: &Scope,
    memory: &mut Memory,
    group: &GroupDefinition,
    lanes: &[ReadLane],
) -> Result<(), StoreError> {
    let (start, mut cursor) = match memory.cursors.remove(&group.name) {
        Some((lane, id)) => match lanes.iter().position(|known| *known.reference == *lane) {
            Some(number) => (number, format!("({id}")),
            None => (0, "-".to_owned()),
        },
        None => (0, "-".to_owned()),
    };
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
