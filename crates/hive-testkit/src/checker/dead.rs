//! Who may die: a message by its own failures, after exactly its allowed attempts.

use std::time::Duration;

use super::{
    Report, Rule,
    facts::{Facts, Lease, Member, Slot},
};
use crate::history::{Action, Damage, DeadCause, DeadLetter, Loss, Target};

/// How far apart the record of a gateway's death and a client's record of its broken connection
/// may lie.
const NOTICE: Duration = Duration::from_secs(2);

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    for (slot, letters) in &facts.dead {
        for letter in letters {
            if let Some(reason) = unjustified(facts, *slot, letter) {
                let evidence = format!("message `{}` of group `{}` {reason}", slot.1, slot.0);
                report.add(Rule::WronglyDead, evidence);
            }
            check_attempts(facts, *slot, letter, report);
        }
    }
}

fn check_attempts(facts: &Facts<'_>, slot: Slot<'_>, letter: &DeadLetter, report: &mut Report) {
    if letter.cause != DeadCause::AttemptsUsedUp {
        return;
    }
    let own = facts
        .publish_of(slot.1)
        .and_then(|publish| publish.max_attempts);
    let allowed = own.unwrap_or(facts.terms.max_attempts);
    if u32::try_from(letter.failures.len()) != Ok(allowed) {
        let evidence = format!(
            "message `{}` of group `{}` died after {} attempts and not after {allowed}",
            slot.1,
            slot.0,
            letter.failures.len()
        );
        report.add(Rule::AttemptsWrong, evidence);
    }
}

/// Why this dead letter ought to live.
fn unjustified(facts: &Facts<'_>, slot: Slot<'_>, letter: &DeadLetter) -> Option<String> {
    match letter.cause {
        DeadCause::Rejected => {
            let mut settles = facts.leases_of(slot).flat_map(|lease| &lease.settles);
            let is_rejected = settles.any(|s| s.action == Action::Reject && s.may_be_taken());
            (!is_rejected).then(|| "is dead as rejected and nobody rejected it".to_owned())
        },
        DeadCause::Expired => {
            let may_expire = facts
                .publish_of(slot.1)
                .is_some_and(|publish| publish.may_expire);
            (!may_expire).then(|| "is dead as expired and had all the time".to_owned())
        },
        DeadCause::Cancelled => {
            let is_deleted = facts.deleted.contains(slot.0);
            (!is_deleted).then(|| "is dead as cancelled and its group was kept".to_owned())
        },
        DeadCause::Other => Some("is dead for no good reason".to_owned()),
        DeadCause::AttemptsUsedUp => unjustified_failure(facts, slot, letter),
    }
}

fn unjustified_failure(facts: &Facts<'_>, slot: Slot<'_>, letter: &DeadLetter) -> Option<String> {
    for (attempt, failure) in (1_u32..).zip(&letter.failures) {
        let consumer = &*failure.consumer;
        let mut leases = facts
            .leases_of(slot)
            .filter(|lease| lease.member().1 == consumer && lease.delivery.attempt == attempt)
            .peekable();
        let is_seen = leases.peek().is_some();
        if !failure.is_loss {
            let mut settles = leases.flat_map(|lease| &lease.settles);
            if !settles.any(|settle| settle.action == Action::Nack && settle.may_be_taken()) {
                return Some(format!("counts a nack of `{consumer}`, which sent none"));
            }
        } else if is_seen {
            if !leases.any(|lease| is_failed_by_loss(facts, lease)) {
                return Some(format!(
                    "counts attempt {attempt} of `{consumer}`, which was not lost or had not \
                     begun it"
                ));
            }
        } else if !is_ever_lost(facts, (slot.0, consumer)) {
            // A consumer that dies before it reads a delivery leaves no record of it.
            return Some(format!("counts a loss of `{consumer}`, which was not lost"));
        }
    }
    None
}

/// Whether the consumer was lost with this delivery begun or among its oldest; where it was not
/// lost at all, whether it kept silent about it.
fn is_failed_by_loss(facts: &Facts<'_>, lease: &Lease<'_>) -> bool {
    // The delivery may have been granted before the loss and read after it.
    let from = lease.at.saturating_sub(facts.terms.lease);
    let losses = facts.losses.get(&lease.member()).into_iter().flatten();
    let mut losses = losses.filter(|(at, _)| *at >= from).peekable();
    if losses.peek().is_none() {
        return is_silent(facts, lease);
    }
    losses.any(|loss| counts(facts, loss) && may_count_at(facts, lease, loss.0))
}

fn is_ever_lost(facts: &Facts<'_>, member: Member<'_>) -> bool {
    let mut losses = facts.losses.get(&member).into_iter().flatten();
    losses.any(|loss| counts(facts, loss))
}

/// Whether a loss is the consumer's own: not its leaving, and not the death of its gateway.
fn counts(facts: &Facts<'_>, (at, loss): &(Duration, Loss)) -> bool {
    match loss {
        Loss::Killed | Loss::Stopped => true,
        Loss::Left | Loss::Replaced => false,
        Loss::Disconnected => !facts.faults.iter().any(|fault| {
            fault.target == Target::Gateway
                && fault.damage == Damage::Killed
                && fault.overlaps(at.saturating_sub(NOTICE), *at + NOTICE)
        }),
    }
}

/// Whether the delivery counts as begun at a loss: a handler had it, or fewer others were begun
/// than the consumer works on at once, so that this one may be among the oldest.
fn may_count_at(facts: &Facts<'_>, lease: &Lease<'_>, at: Duration) -> bool {
    let is_begun = |lease: &Lease<'_>| lease.begun.is_some_and(|begun| begun <= at);
    if is_begun(lease) {
        return true;
    }
    let concurrency = facts.concurrency.get(&lease.member()).copied().unwrap_or(1);
    let held = facts.held.get(&lease.member()).into_iter().flatten();
    let begun = held
        .filter_map(|token| facts.leases.get(token))
        .filter(|other| is_begun(other))
        .filter(|other| {
            let mut settles = other.settles.iter();
            !settles.any(|settle| settle.may_be_taken() && settle.called <= at)
        })
        .count();
    u32::try_from(begun).is_ok_and(|begun| begun < concurrency)
}

/// Whether the consumer kept silent about a lease for so long that it may have ended.
fn is_silent(facts: &Facts<'_>, lease: &Lease<'_>) -> bool {
    let mut last = lease.at;
    for beat in &lease.heartbeats {
        if beat.saturating_sub(last) >= facts.terms.lease {
            return true;
        }
        last = *beat;
    }
    let end = lease.settles.iter().map(|settle| settle.called).max();
    end.is_none_or(|end| end.saturating_sub(last) >= facts.terms.lease)
}
