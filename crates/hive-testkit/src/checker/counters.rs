//! Figures at rest equal what happened; a drained run left nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use super::{Report, Rule, facts::Facts};
use crate::history::{Action, AtRest, Figures, PublishAnswer, SettleAnswer};

pub(super) fn check(facts: &Facts<'_>, report: &mut Report) {
    for (rest, unsettled) in facts.rest.values() {
        if facts.terms.is_drained && !unsettled.is_empty() {
            let some: Vec<_> = unsettled.iter().take(5).collect();
            let evidence = format!(
                "group `{}` holds {}, such as {some:?}",
                rest.group,
                unsettled.len()
            );
            report.add(Rule::NotDrained, evidence);
        }
        if let Some(figures) = rest.figures {
            check_figures(facts, rest, figures, report);
        }
    }
}

fn check_figures(facts: &Facts<'_>, rest: &AtRest, figures: Figures, report: &mut Report) {
    let group = &*rest.group;
    let mut expect = |name: &str, figure: u64, truth: RangeInclusive<u64>| {
        if !truth.contains(&figure) {
            let evidence = format!("{name} of group `{group}` is {figure}, the truth {truth:?}");
            report.add(Rule::CounterWrong, evidence);
        }
    };
    let unsettled = count(rest.unsettled.len());
    let held = figures.lag + figures.pending + figures.scheduled;
    expect("lag + pending + scheduled", held, unsettled..=unsettled);
    let owed = figures
        .published_total
        .saturating_sub(figures.acked_total + figures.dead_total);
    expect("published - acked - dead", owed, unsettled..=unsettled);
    if facts.may_have_forgotten() || facts.deleted.contains(group) {
        return;
    }
    expect(
        "published_total",
        figures.published_total,
        published(facts, group),
    );
    expect("acked_total", figures.acked_total, acked(facts, group));
    let dead = facts.dead.iter().filter(|((of, _), _)| *of == group);
    let dead = count(dead.map(|(_, letters)| letters.len()).sum());
    expect("dead_total", figures.dead_total, dead..=dead);
}

/// Entries of a group: those that answers prove, and those that unknown calls may have made.
fn published(facts: &Facts<'_>, group: &str) -> RangeInclusive<u64> {
    let mut certain = 0;
    // By what makes repeats one: the idempotency key, or the id of a sequenced message.
    let mut once: BTreeMap<(bool, &str), bool> = BTreeMap::new();
    let mut possible = 0;
    for call in facts.publishes.values().filter(|call| !call.is_refused()) {
        let publish = call.publish;
        if !publish.groups.iter().any(|target| &**target == group) {
            continue;
        }
        let is_stored = matches!(call.answer, Some((_, PublishAnswer::Stored(_))));
        if let Some(key) = publish.idempotency_key.as_deref() {
            *once.entry((true, key)).or_default() |= is_stored;
        } else if publish.is_sequenced {
            *once.entry((false, &publish.message)).or_default() |= is_stored;
        } else if is_stored {
            certain += 1;
        } else {
            possible += 1;
        }
    }
    let stored = count(once.values().filter(|stored| **stored).count());
    let certain = certain + stored;
    certain..=certain + possible + count(once.len()) - stored
}

/// Acks of a group: those that were answered, and those whose answer never came.
fn acked(facts: &Facts<'_>, group: &str) -> RangeInclusive<u64> {
    let mut certain = 0;
    let mut possible = BTreeSet::new();
    for lease in facts
        .leases
        .values()
        .filter(|lease| lease.slot().0 == group)
    {
        for settle in lease
            .settles
            .iter()
            .filter(|settle| settle.action == Action::Ack)
        {
            match settle.answer {
                SettleAnswer::Ok => certain += 1,
                SettleAnswer::Unknown => {
                    possible.insert((lease.slot().1, &lease.delivery.lease));
                },
                SettleAnswer::Gone | SettleAnswer::Stale | SettleAnswer::Refused => {},
            }
        }
    }
    certain..=certain + count(possible.len())
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
