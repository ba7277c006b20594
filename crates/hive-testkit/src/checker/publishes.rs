//! What publishers were promised: nothing lost, nothing made up, nothing changed, one per key.

use std::collections::{BTreeMap, BTreeSet};

use super::{Report, Rule, facts::Facts};
use crate::history::{Action, PublishAnswer};

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    check_lost(facts, report);
    check_delivered(facts, report);
    check_keys(facts, report);
}

/// A stored message is acked, dead or still there, in each of its groups.
fn check_lost(facts: &Facts<'_>, report: &mut Report) {
    let mut without_end = BTreeSet::new();
    for (id, message) in &facts.messages {
        let Some(stored) = message.stored else {
            continue;
        };
        let Some(publish) = facts.publish_of(id) else {
            continue;
        };
        if facts.may_be_undone(stored) {
            continue;
        }
        for group in publish.groups.iter().map(|group| &**group) {
            if facts.deleted.contains(group) {
                continue;
            }
            let Some((_, unsettled)) = facts.rest.get(group) else {
                without_end.insert(group);
                continue;
            };
            let slot = (group, *id);
            let may_be_acked = facts
                .leases_of(slot)
                .flat_map(|lease| &lease.settles)
                .any(|settle| settle.action == Action::Ack && settle.may_be_taken());
            if !may_be_acked && !facts.dead.contains_key(&slot) && !unsettled.contains(id) {
                let evidence = format!(
                    "message `{id}` of group `{group}` was stored at {stored:?}; it is not acked, \
                     not dead and not pending"
                );
                report.add(Rule::Lost, evidence);
            }
        }
    }
    for group in without_end {
        let evidence = format!("group `{group}` has no record at rest");
        report.add(Rule::LogBroken, evidence);
    }
}

/// A delivered message was published to that group, with that payload.
fn check_delivered(facts: &Facts<'_>, report: &mut Report) {
    for (token, lease) in &facts.leases {
        let (group, id) = lease.slot();
        let message = facts.messages.get(id);
        let mut calls = message
            .into_iter()
            .flat_map(|message| &message.calls)
            .filter_map(|call| facts.publishes.get(call))
            .filter(|call| !call.is_refused())
            .filter(|call| call.publish.groups.iter().any(|target| &**target == group))
            .peekable();
        if calls.peek().is_none() {
            let evidence =
                format!("lease `{token}` brought `{id}` to group `{group}`, where nobody sent it");
            report.add(Rule::Phantom, evidence);
        } else if calls.all(|call| call.publish.payload != lease.delivery.payload) {
            let evidence = format!("lease `{token}` brought `{id}` with another payload");
            report.add(Rule::PayloadChanged, evidence);
        }
    }
    for &(group, id) in facts.dead.keys() {
        if !facts.messages.contains_key(id) {
            let evidence = format!("dead letter `{id}` of group `{group}` was never published");
            report.add(Rule::Phantom, evidence);
        }
    }
}

/// All that was answered and delivered for an idempotency key is one message.
fn check_keys(facts: &Facts<'_>, report: &mut Report) {
    let mut stored: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for call in facts.publishes.values() {
        let own = &*call.publish.message;
        match (&call.publish.idempotency_key, call.answer) {
            (Some(key), Some((at, PublishAnswer::Stored(id)))) if !facts.may_be_undone(at) => {
                stored.entry(key).or_default().insert(id);
            },
            (None, Some((_, PublishAnswer::Stored(id)))) if &**id != own => {
                let evidence = format!("`{own}` has no key and was answered as `{id}`");
                report.add(Rule::DuplicateKey, evidence);
            },
            (Some(_) | None, _) => {},
        }
    }
    for &(_, id) in facts.slots.keys() {
        let publish = facts.publish_of(id);
        let is_kept = facts
            .messages
            .get(id)
            .and_then(|message| message.stored)
            .is_none_or(|at| !facts.may_be_undone(at));
        if let Some(key) = publish.and_then(|publish| publish.idempotency_key.as_deref())
            && is_kept
        {
            stored.entry(key).or_default().insert(id);
        }
    }
    // A message that was stored, forgotten and stored anew is two messages by right.
    for (key, ids) in stored.iter().filter(|(_, ids)| ids.len() > 1) {
        if !facts.may_have_forgotten() {
            report.add(
                Rule::DuplicateKey,
                format!("key `{key}` was stored as {ids:?}"),
            );
        }
    }
}
