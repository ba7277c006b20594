//! Who may settle: the latest lease, once; and nobody loses a lease that it keeps alive.

use std::time::Duration;

use super::{
    Report, Rule,
    facts::{Facts, Lease, Settle, Slot},
};
use crate::history::{Action, Damage, SettleAnswer, Target};

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    for slot in facts.slots.keys() {
        check_outcomes(facts, *slot, report);
        check_order(facts, *slot, report);
    }
    for (token, lease) in &facts.leases {
        check_reuse(token, lease, report);
        for settle in &lease.settles {
            if is_wrongly_refused(facts, lease, settle) {
                let evidence = format!(
                    "lease `{token}` of `{}` in group `{}` was kept alive by `{}` from {:?} and \
                     its {:?} at {:?} was answered {:?}",
                    lease.delivery.message,
                    lease.delivery.group,
                    lease.delivery.consumer,
                    lease.at,
                    settle.action,
                    settle.called,
                    settle.answer,
                );
                report.add(Rule::LiveLeaseLost, evidence);
            }
        }
    }
}

/// At most one outcome per entry, and it stays.
fn check_outcomes(facts: &Facts<'_>, slot: Slot<'_>, report: &mut Report) {
    let (group, id) = slot;
    let acks = facts
        .leases_of(slot)
        .flat_map(|lease| &lease.settles)
        .filter(|settle| settle.action == Action::Ack && settle.is_ok())
        .filter(|settle| !settle.answered.is_some_and(|at| facts.may_be_undone(at)))
        .count();
    let dead = facts.dead.get(&slot).map_or(0, Vec::len);
    let entries = facts.entries_max(id);
    if acks + dead > entries {
        let evidence = format!(
            "message `{id}` of group `{group}` has {acks} accepted acks and {dead} dead letters \
             and at most {entries} entries"
        );
        report.add(Rule::SettledTwice, evidence);
    }
    let is_unsettled = facts
        .rest
        .get(group)
        .is_some_and(|(_, ids)| ids.contains(id));
    if acks == entries && is_unsettled {
        let evidence = format!("message `{id}` of group `{group}` is acked and still pending");
        report.add(Rule::SettleUndone, evidence);
    }
}

/// No settle was taken from a lease when a later one had been granted.
fn check_order(facts: &Facts<'_>, slot: Slot<'_>, report: &mut Report) {
    let leases: Vec<&Lease<'_>> = facts.leases_of(slot).collect();
    // With several entries under one id, a later lease may be of another entry.
    if leases.len() < 2 || facts.entries_max(slot.1) > 1 {
        return;
    }
    for lease in &leases {
        for settle in lease.settles.iter().filter(|settle| settle.is_ok()) {
            if settle.answered.is_some_and(|at| facts.may_be_undone(at)) {
                continue;
            }
            let others = || leases.iter().filter(|other| !std::ptr::eq(**other, *lease));
            // Nothing is granted after a terminal settle, so there the order of records is moot.
            let later = others()
                .filter(|other| other.is_later_than(lease) == Some(true))
                .find(|other| settle.is_terminal() || other.at < settle.called);
            if let Some(later) = later {
                let evidence = format!(
                    "lease `{}` of `{}` in group `{}` settled ({:?}) at {:?} beside the later \
                     lease `{}` of {:?}",
                    lease.delivery.lease,
                    slot.1,
                    slot.0,
                    settle.action,
                    settle.called,
                    later.delivery.lease,
                    later.at,
                );
                report.add(Rule::StaleAccepted, evidence);
            } else if settle.is_terminal() && others().any(|o| o.is_later_than(lease).is_none()) {
                report.undecided += 1;
            }
        }
    }
}

/// A lease that was given back or has ended settles nothing more.
fn check_reuse(token: &str, lease: &Lease<'_>, report: &mut Report) {
    let taken = |settle: &&Settle| settle.is_ok() && settle.action != Action::Extend;
    let Some(ended) = lease
        .settles
        .iter()
        .filter(taken)
        .filter_map(|s| s.answered)
        .min()
    else {
        return;
    };
    for settle in lease
        .settles
        .iter()
        .filter(|settle| settle.is_ok() && settle.called > ended)
    {
        let evidence = format!(
            "lease `{token}` ended at {ended:?} and its {:?} at {:?} was taken",
            settle.action, settle.called
        );
        report.add(Rule::StaleAccepted, evidence);
    }
}

/// Whether a settle was refused though its consumer lived, beat and kept its connection.
fn is_wrongly_refused(facts: &Facts<'_>, lease: &Lease<'_>, settle: &Settle) -> bool {
    if !matches!(settle.answer, SettleAnswer::Stale | SettleAnswer::Gone) {
        return false;
    }
    let ended_before = lease.settles.iter().any(|other| {
        !std::ptr::eq(other, settle) && other.action != Action::Extend && other.may_be_taken()
    });
    let may_expire = facts
        .publish_of(lease.slot().1)
        .is_some_and(|publish| publish.may_expire);
    if ended_before || may_expire || facts.deleted.contains(lease.slot().0) {
        return false;
    }
    // A delivery may be read long after it was granted: look one lease further back.
    let from = lease.at.saturating_sub(facts.terms.lease);
    let to = settle.answered.unwrap_or(settle.called);
    let is_lost = facts
        .losses
        .get(&lease.member())
        .is_some_and(|losses| losses.iter().any(|(at, _)| *at >= from && *at <= to));
    let is_excused = facts.faults.iter().any(|fault| {
        let cuts_off = match (fault.target, fault.damage) {
            (Target::Daemon, _) | (Target::Redis, Damage::Full) => false,
            // Whoever was attached there has lost its connection, and says so.
            (Target::Gateway, damage) => damage != Damage::Killed,
            (Target::Redis, Damage::Killed) => facts.terms.loss_window.is_some(),
            (Target::Redis, Damage::Stopped | Damage::Cut) | (Target::Network, _) => true,
        };
        cuts_off && fault.overlaps(from, to)
    });
    !is_lost && !is_excused && longest_silence(lease, settle.called) <= silence_max(facts)
}

/// Longest time between two signs of life of a lease, from its delivery to `until`.
fn longest_silence(lease: &Lease<'_>, until: Duration) -> Duration {
    let beats = lease.heartbeats.iter().copied();
    let settles = lease.settles.iter().map(|settle| settle.called);
    let mut signs: Vec<Duration> = beats.chain(settles).filter(|at| *at <= until).collect();
    signs.sort_unstable();
    let mut last = lease.at;
    let mut longest = Duration::ZERO;
    for at in signs {
        longest = longest.max(at.saturating_sub(last));
        last = last.max(at);
    }
    longest.max(until.saturating_sub(last))
}

/// A heartbeat takes time to arrive, and so does a delivery: only well under a lease is on time.
fn silence_max(facts: &Facts<'_>) -> Duration {
    facts.terms.lease * 3 / 4
}
