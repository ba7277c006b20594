//! Ordering keys: one message in flight per key and group, in publish order.

use std::{collections::BTreeMap, time::Duration};

use super::{Report, Rule, facts::Facts};

/// A message with an ordering key in one group.
struct Ordered<'a> {
    id: &'a str,
    priority: u8,
    called: Duration,
    /// When the answer came that it is stored; none when that is unknown or may be undone.
    stored: Option<Duration>,
    /// Records of its deliveries.
    delivered: Vec<Duration>,
    /// From when on it may have been over.
    over_from: Option<Duration>,
}

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    let mut keys: BTreeMap<(&str, &str), Vec<Ordered<'_>>> = BTreeMap::new();
    for (slot, tokens) in &facts.slots {
        let (group, id) = *slot;
        let Some(publish) = facts.publish_of(id) else {
            continue;
        };
        let Some(key) = publish.ordering_key.as_deref() else {
            continue;
        };
        // Two entries under one id are two messages that the log cannot tell apart.
        if facts.entries_max(id) > 1 {
            continue;
        }
        let leases = tokens.iter().filter_map(|token| facts.leases.get(token));
        let ended = facts
            .leases_of(*slot)
            .flat_map(|lease| &lease.settles)
            .filter(|settle| settle.is_terminal() && settle.may_be_taken())
            .map(|settle| settle.called)
            .min();
        // When a dead letter died is not in the log: it may have been at once.
        let over_from = if facts.dead.contains_key(slot) {
            Some(Duration::ZERO)
        } else {
            ended
        };
        let message = facts.messages.get(id);
        let calls = message.into_iter().flat_map(|message| &message.calls);
        let called = calls
            .filter_map(|call| facts.publishes.get(call))
            .map(|call| call.called);
        keys.entry((group, key)).or_default().push(Ordered {
            id,
            priority: publish.priority,
            called: called.min().unwrap_or_default(),
            stored: message
                .and_then(|m| m.stored)
                .filter(|at| !facts.may_be_undone(*at)),
            delivered: leases.map(|lease| lease.at).collect(),
            over_from,
        });
    }
    for ((group, key), messages) in &mut keys {
        check_in_flight(group, key, messages, report);
        check_publish_order(group, key, messages, report);
    }
}

fn check_in_flight(group: &str, key: &str, messages: &[Ordered<'_>], report: &mut Report) {
    let mut deliveries: Vec<(Duration, usize)> = messages
        .iter()
        .enumerate()
        .flat_map(|(index, message)| message.delivered.iter().map(move |at| (*at, index)))
        .collect();
    deliveries.sort_unstable();
    let is_over = |index: usize, at| messages[index].over_from.is_some_and(|over| over <= at);
    let mut open: Vec<usize> = Vec::new();
    for (at, index) in deliveries {
        open.retain(|other| !is_over(*other, at));
        // A frame that is read after its message was settled elsewhere proves nothing.
        if is_over(index, at) || open.contains(&index) {
            continue;
        }
        if let Some(other) = open.first() {
            let evidence = format!(
                "key `{key}` of group `{group}`: `{}` was delivered at {at:?} while `{}` was in \
                 flight",
                messages[index].id, messages[*other].id
            );
            report.add(Rule::TwoInFlight, evidence);
        }
        open.push(index);
    }
}

fn check_publish_order(group: &str, key: &str, messages: &mut [Ordered<'_>], report: &mut Report) {
    messages.sort_by_key(|message| (message.priority, message.delivered.first().copied()));
    for equal in messages.chunk_by(|one, next| one.priority == next.priority) {
        // From the last delivery backwards: the earliest stored of those delivered afterwards.
        let mut earliest: Option<(Duration, &str)> = None;
        for message in equal.iter().rev() {
            if let Some((stored, id)) = earliest
                && stored < message.called
            {
                let evidence = format!(
                    "key `{key}` of group `{group}`: `{id}` was stored before `{}` was published \
                     and delivered after it",
                    message.id
                );
                report.add(Rule::OrderBroken, evidence);
            }
            if let Some(stored) = message.stored
                && earliest.is_none_or(|(before, _)| stored < before)
            {
                earliest = Some((stored, message.id));
            }
        }
    }
}
