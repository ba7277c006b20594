//! Deadlines: drained in time, no long gap, what a lost consumer held moves on.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Report, Rule,
    facts::{Facts, Lease},
};
use crate::history::Loss;

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    check_drain(facts, report);
    check_gaps(facts, report);
    check_redeliveries(facts, report);
}

/// The last settle of each group against the last fault and the last publish.
fn check_drain(facts: &Facts<'_>, report: &mut Report) {
    let Some(limit) = facts.terms.drain_within.filter(|_| facts.terms.is_drained) else {
        return;
    };
    let faults = facts
        .faults
        .iter()
        .map(|fault| fault.to.unwrap_or(fault.from));
    let losses = facts.losses.values().flatten().map(|(at, _)| *at);
    let publishes = facts.publishes.values().map(|call| call.called);
    let calm = faults
        .chain(losses)
        .chain(publishes)
        .max()
        .unwrap_or_default();
    let settles = facts.leases.values().flat_map(|lease| &lease.settles);
    let taken = settles.filter(|settle| settle.is_terminal() && settle.is_ok());
    let Some(last) = taken.filter_map(|settle| settle.answered).max() else {
        return;
    };
    if last > calm + limit {
        let evidence =
            format!("the last settle came at {last:?}, the last fault or publish at {calm:?}");
        report.add(Rule::DrainedLate, evidence);
    }
}

/// What changes the set of waiting messages of a group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Stored,
    Delivered,
}

/// The longest time per group in which a message waited and none was delivered.
fn check_gaps(facts: &Facts<'_>, report: &mut Report) {
    let mut changes: BTreeMap<&str, Vec<(Duration, Change, &str)>> = BTreeMap::new();
    for (id, message) in &facts.messages {
        let (Some(stored), Some(publish)) = (message.stored, facts.publish_of(id)) else {
            continue;
        };
        for group in &publish.groups {
            changes
                .entry(group)
                .or_default()
                .push((stored, Change::Stored, id));
        }
    }
    for lease in facts.leases.values() {
        let (group, id) = lease.slot();
        changes
            .entry(group)
            .or_default()
            .push((lease.at, Change::Delivered, id));
    }
    for (group, mut changes) in changes {
        changes.sort_unstable();
        let mut seen = BTreeSet::new();
        let mut waiting = BTreeSet::new();
        let mut since: Option<Duration> = None;
        for (at, change, id) in changes {
            match change {
                // Its delivery may be on record before the answer of its publish.
                Change::Stored if seen.contains(id) => continue,
                Change::Stored => {
                    waiting.insert(id);
                    since = since.or(Some(at));
                    continue;
                },
                Change::Delivered => {},
            }
            if let Some(start) = since {
                let gap = at.saturating_sub(start);
                report.longest_gap = report.longest_gap.max(gap);
                if facts.terms.gap_max.is_some_and(|limit| gap > limit) {
                    let evidence =
                        format!("group `{group}` delivered nothing for {gap:?} from {start:?}");
                    report.add(Rule::GapTooLong, evidence);
                }
            }
            seen.insert(id);
            waiting.remove(id);
            since = (!waiting.is_empty()).then_some(at);
        }
    }
}

/// How long what a lost consumer held took to be delivered again.
fn check_redeliveries(facts: &Facts<'_>, report: &mut Report) {
    for (member, losses) in &facts.losses {
        let held = facts.held.get(member).into_iter().flatten();
        for lease in held.filter_map(|token| facts.leases.get(token)) {
            let mut losses = losses.iter().filter(|(_, loss)| *loss != Loss::Left);
            let Some((at, _)) = losses.find(|(at, _)| is_given_up(lease, *at)) else {
                continue;
            };
            let next = facts
                .leases_of(lease.slot())
                .map(|next| next.at)
                .find(|next| next > at);
            let Some(next) = next else { continue };
            let delay = next - *at;
            report.redeliveries.push(delay);
            if facts
                .terms
                .redelivery_max
                .is_some_and(|limit| delay > limit)
            {
                let evidence = format!(
                    "`{}` of group `{}` was lost with `{}` at {at:?} and came after {delay:?}",
                    lease.slot().1,
                    lease.slot().0,
                    member.1
                );
                report.add(Rule::RedeliveredLate, evidence);
            }
        }
    }
    report.redeliveries.sort_unstable();
}

/// Whether the lease was held at a loss, and its consumer did nothing with it any more.
fn is_given_up(lease: &Lease<'_>, at: Duration) -> bool {
    lease.at < at
        && lease.heartbeats.iter().all(|beat| *beat <= at)
        && !lease
            .settles
            .iter()
            .any(|settle| settle.called > at || settle.may_be_taken())
}
