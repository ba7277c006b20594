//! Work of groups with a backlog, offered to idle agents of others.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use crate::capability::CapabilitySet;

/// An agent is idle once it has held nothing for so long: 10 s.
pub const IDLE_MS_MIN: u64 = 10_000;
/// Most offers of one group's work at a time.
pub const OFFERS_PER_GROUP_MAX: u32 = 10;

/// What waits in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// The group.
    pub group: String,
    /// Messages that wait.
    pub waiting: u64,
    /// Live consumers.
    pub consumers: u32,
    /// Most consumers that it takes.
    pub max_consumers: u32,
    /// What the messages require, each set once; the empty set where some require nothing. None at
    /// all where that is not known: anybody may try.
    pub wanted_sets: Vec<CapabilitySet>,
}

/// An agent that holds nothing in a group of which it is a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idle {
    /// The group.
    pub group: String,
    /// Its id.
    pub consumer: String,
    /// What it can do.
    pub capabilities: CapabilitySet,
    /// For how long it has held nothing, in ms.
    pub idle_ms: u64,
}

/// Work of another group, for an idle agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The agent.
    pub consumer: String,
    /// Where it is a member.
    pub group: String,
    /// The group that has the work.
    pub to: String,
    /// Why, for a person.
    pub reason: String,
}

/// Which idle agents are offered the work of which groups, by group and agent.
///
/// An agent gets at most one offer: where nothing waits in any of its groups, it has held nothing
/// for at least [`IDLE_MS_MIN`] in all that are told, and it can do something of what waits there.
/// A group asks for one agent for each message that waits for each of its consumers, and never for
/// more than messages, [`OFFERS_PER_GROUP_MAX`] or its `max_consumers`: what its own consumers take
/// in one turn needs nobody. Groups take turns, those with the most for each consumer first.
#[must_use]
pub fn offers(backlogs: &[Backlog], idle: &[Idle]) -> Vec<Offer> {
    let mut asking: Vec<(&Backlog, u32)> = unique(backlogs)
        .into_values()
        .map(|backlog| (backlog, needed(backlog)))
        .filter(|(_, count)| *count > 0)
        .collect();
    asking.sort_by_key(|(backlog, _)| (Reverse(each(backlog)), &backlog.group));
    let mut free = free(backlogs, idle);
    let mut offers = Vec::new();
    let mut is_done = false;
    while !is_done {
        is_done = true;
        for (backlog, count) in asking.iter_mut().filter(|(_, count)| *count > 0) {
            let best = free
                .values()
                .filter(|agent| !agent.groups.contains(&backlog.group.as_str()))
                .filter_map(|agent| Some((fit(agent.idle, backlog)?, agent)))
                .max_by_key(|(fit, agent)| {
                    (*fit, agent.idle.idle_ms, Reverse(&agent.idle.consumer))
                })
                .map(|(_, agent)| agent.idle);
            let Some(idle) = best else {
                *count = 0;
                continue;
            };
            free.remove(idle.consumer.as_str());
            *count = count.saturating_sub(1);
            is_done = false;
            offers.push(Offer {
                consumer: idle.consumer.clone(),
                group: idle.group.clone(),
                to: backlog.group.clone(),
                reason: reason(idle, backlog),
            });
        }
    }
    offers.sort_by(|a, b| (&a.to, &a.consumer).cmp(&(&b.to, &b.consumer)));
    offers
}

/// An idle agent, and all groups that it is told to be in.
struct Agent<'a> {
    idle: &'a Idle,
    groups: BTreeSet<&'a str>,
}

/// Each group once: of two with the same name the one with the least to do.
fn unique(backlogs: &[Backlog]) -> BTreeMap<&str, &Backlog> {
    let mut found: BTreeMap<&str, &Backlog> = BTreeMap::new();
    for backlog in backlogs {
        let kept = found.entry(&backlog.group).or_insert(backlog);
        let key = |b: &Backlog| (b.waiting, Reverse(b.consumers), b.max_consumers);
        if (key(backlog), &backlog.wanted_sets) < (key(kept), &kept.wanted_sets) {
            *kept = backlog;
        }
    }
    found
}

/// Agents that may get an offer, by id.
fn free<'a>(backlogs: &[Backlog], idle: &'a [Idle]) -> BTreeMap<&'a str, Agent<'a>> {
    let busy: BTreeSet<&str> = backlogs
        .iter()
        .filter(|backlog| backlog.waiting > 0)
        .map(|backlog| backlog.group.as_str())
        .collect();
    let mut sorted: Vec<&Idle> = idle.iter().collect();
    sorted.sort_by_key(|idle| {
        (
            &idle.consumer,
            &idle.group,
            idle.idle_ms,
            &idle.capabilities,
        )
    });
    let mut agents: BTreeMap<&str, Agent<'a>> = BTreeMap::new();
    let mut at_work: BTreeSet<&str> = BTreeSet::new();
    for idle in sorted {
        if busy.contains(idle.group.as_str()) || idle.idle_ms < IDLE_MS_MIN {
            at_work.insert(&idle.consumer);
        }
        let agent = agents.entry(&idle.consumer).or_insert_with(|| Agent {
            idle,
            groups: BTreeSet::new(),
        });
        agent.groups.insert(&idle.group);
    }
    agents.retain(|consumer, _| !at_work.contains(consumer));
    agents
}

/// Messages for each consumer; all of them where there is none.
fn each(backlog: &Backlog) -> u64 {
    backlog
        .waiting
        .checked_div(backlog.consumers.into())
        .unwrap_or(backlog.waiting)
}

/// How many agents a group asks for.
fn needed(backlog: &Backlog) -> u32 {
    let places = backlog.max_consumers.saturating_sub(backlog.consumers);
    let each = u32::try_from(each(backlog)).unwrap_or(u32::MAX);
    each.min(places).min(OFFERS_PER_GROUP_MAX)
}

/// How many of the wanted sets an agent has and, among as many, whether it is a specialist; none
/// where it can do nothing of it.
fn fit(idle: &Idle, backlog: &Backlog) -> Option<(usize, Reverse<usize>)> {
    let sets = &backlog.wanted_sets;
    let own = &idle.capabilities;
    let done = sets.iter().filter(|set| own.covers(set)).count();
    // Agents that can do less are not needed elsewhere as much.
    (done > 0 || sets.is_empty()).then(|| (done, Reverse(own.len())))
}

fn reason(idle: &Idle, backlog: &Backlog) -> String {
    let Backlog {
        group,
        waiting,
        consumers,
        max_consumers,
        wanted_sets,
    } = backlog;
    let fits = match fit(idle, backlog) {
        Some((done, _)) if !wanted_sets.is_empty() => format!(
            "has {done} of {} sets of capabilities that they require",
            wanted_sets.len()
        ),
        _ => "is told nothing that they require".to_owned(),
    };
    format!(
        "`{group}` has {waiting} messages waiting for {consumers} of {max_consumers} consumers; \
         `{}` of `{}` has been idle for {} s, where nothing waits, and {fits}",
        idle.consumer,
        idle.group,
        idle.idle_ms / 1_000
    )
}

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "an overflow in a test fails it, as it should"
)]
mod tests;
