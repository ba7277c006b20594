//! Which group gets a task, which group an agent joins (`agent`), and how many tasks of a run may
//! be at work at once.
//!
//! The router and the coordinator ask the same functions over the same facts, so that what one
//! answers to a caller is what the other does. Nobody falls silently to a group of generalists: a
//! type that no group serves is refused, with what was looked for.

pub mod agent;
mod template;

use crate::{capability::CapabilitySet, group::GroupState, violation::quoted};

/// Groups by what callers call their work. The key is a task's type, the value the agents' type.
pub const ALIASES: [(&str, &str); 10] = [
    ("architecture", "architects"),
    ("architect", "architects"),
    ("backend", "backend_engineers"),
    ("frontend", "frontend_developers"),
    ("testing", "qa_engineers"),
    ("qa", "qa_engineers"),
    ("deployment", "devops_engineers"),
    ("devops", "devops_engineers"),
    ("security", "security_engineers"),
    ("data", "data_engineers"),
];

/// What is known of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupFacts {
    /// Its name.
    pub name: String,
    /// The stream it reads.
    pub stream: String,
    /// What its agents are.
    pub agent_type: String,
    /// Messages that wait.
    pub waiting: u64,
    /// Messages that consumers hold.
    pub pending: u64,
    /// Consumers that are alive.
    pub live_consumers: u32,
    /// Most consumers that it takes.
    pub max_consumers: u32,
    /// What each of them can do.
    pub capabilities: Vec<CapabilitySet>,
    /// What messages that wait or are held require, each set once; the empty set is there where
    /// some require nothing.
    pub wanted_sets: Vec<CapabilitySet>,
    /// Where the group is in its life.
    pub state: GroupState,
}

/// What a task asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// The group that the caller names.
    pub group: Option<String>,
    /// The type of agent; empty for none.
    pub kind: String,
    /// What an agent must be able to do.
    pub required_capabilities: CapabilitySet,
    /// Whether groups with a capable consumer are preferred: the strategies `capability_matched`
    /// and `hybrid`.
    pub is_by_capability: bool,
}

/// By which rule a group was found, in the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The caller names it.
    Named,
    /// Its agents are of that type.
    AgentType,
    /// It is called `<type>_consumers`.
    Consumers,
    /// It is called after the alias of the type, or its agents are.
    Alias,
}

impl Rule {
    fn finds(self, group: &GroupFacts, wanted: &Wanted) -> bool {
        let GroupFacts {
            name, agent_type, ..
        } = group;
        let kind = wanted.kind.as_str();
        match self {
            Self::Named => wanted.group.as_ref() == Some(name),
            Self::AgentType => agent_type == kind,
            Self::Consumers => name.strip_suffix("_consumers") == Some(kind),
            Self::Alias => alias_of(kind).is_some_and(|alias| agent_type == alias || name == alias),
        }
    }
}

/// The group that gets a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Its name.
    pub group: String,
    /// By which rule it was found.
    pub rule: Rule,
    /// Why this one, in words.
    pub reason: String,
}

/// No group serves what a task asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no group serves {wanted}; looked for {looked_for}")]
pub struct Unserved {
    /// What was asked for.
    pub wanted: String,
    /// Which groups would have done.
    pub looked_for: String,
}

/// The group for a task: the first rule by which there is one decides, and among several that it
/// finds the least work for each live consumer, ties by name. Groups that deliver come before
/// paused and unfinished ones, and, where the task asks for it, groups with a consumer that has
/// all capabilities before those without.
///
/// Groups that are being deleted do not exist any more.
///
/// # Errors
/// No rule finds a group.
pub fn choose_group(facts: &[GroupFacts], wanted: &Wanted) -> Result<Choice, Unserved> {
    let rules = [Rule::Named, Rule::AgentType, Rule::Consumers, Rule::Alias];
    // Without a type only the name is left to go by.
    let count = if wanted.kind.is_empty() {
        1
    } else {
        rules.len()
    };
    for rule in rules.into_iter().take(count) {
        let found: Vec<&GroupFacts> = facts
            .iter()
            .filter(|group| group.state != GroupState::Deleting && rule.finds(group, wanted))
            .collect();
        let best = found.iter().min_by_key(|group| rank(group, wanted));
        if let Some(best) = best {
            return Ok(Choice {
                group: best.name.clone(),
                rule,
                reason: reason(rule, best, found.len(), wanted),
            });
        }
    }
    Err(unserved(wanted))
}

/// The type of agents that a task's type stands for.
#[must_use]
pub fn alias_of(kind: &str) -> Option<&'static str> {
    let found = ALIASES.iter().find(|(name, _)| *name == kind);
    found.map(|(_, alias)| *alias)
}

/// The order of groups that the same rule finds; the smallest gets the task.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank<'a> {
    is_stopped: bool,
    is_incapable: bool,
    work: Work,
    name: &'a str,
}

/// What is to be done in a group; where somebody does it comes first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    /// Thousandths of a message for each live consumer.
    Shared(u64),
    /// Messages, and nobody is there.
    Deserted(u64),
}

fn rank<'a>(group: &'a GroupFacts, wanted: &Wanted) -> Rank<'a> {
    let messages = group.waiting.saturating_add(group.pending);
    let shared = messages
        .saturating_mul(1_000)
        .checked_div(u64::from(group.live_consumers));
    Rank {
        is_stopped: group.state != GroupState::Active,
        is_incapable: wanted.is_by_capability && !is_capable(group, wanted),
        work: shared.map_or(Work::Deserted(messages), Work::Shared),
        name: &group.name,
    }
}

/// Whether one of its live consumers can do all that is asked for.
fn is_capable(group: &GroupFacts, wanted: &Wanted) -> bool {
    let required = &wanted.required_capabilities;
    required.is_empty() || group.capabilities.iter().any(|has| has.covers(required))
}

fn reason(rule: Rule, group: &GroupFacts, found: usize, wanted: &Wanted) -> String {
    let kind = quoted(&wanted.kind);
    let mut words = match rule {
        Rule::Named => "the task names it".to_owned(),
        Rule::AgentType => format!("its agents are of type {kind}"),
        Rule::Consumers => format!("it is the group of consumers of {kind}"),
        Rule::Alias => format!(
            "{kind} stands for `{}`",
            alias_of(&wanted.kind).unwrap_or_default()
        ),
    };
    if found > 1 {
        let (work, live) = (
            group.waiting.saturating_add(group.pending),
            group.live_consumers,
        );
        words.push_str(&format!(
            "; of {found} groups it has the least work, {work} messages for {live} live consumers"
        ));
    }
    if !is_capable(group, wanted) {
        let required = &wanted.required_capabilities;
        words.push_str(&format!(
            "; none of its live consumers has all of `{required}`"
        ));
    }
    if group.state != GroupState::Active {
        words.push_str(&format!("; it is {}", group.state));
    }
    words
}

fn unserved(wanted: &Wanted) -> Unserved {
    let kind = &wanted.kind;
    let mut asked = Vec::new();
    let mut looked_for = Vec::new();
    if let Some(group) = &wanted.group {
        asked.push(format!("group {}", quoted(group)));
        looked_for.push(format!("a group {}", quoted(group)));
    }
    if !kind.is_empty() {
        asked.push(format!("type {}", quoted(kind)));
        looked_for.push(format!("agents of type {}", quoted(kind)));
        looked_for.push(format!("a group {}", quoted(&format!("{kind}_consumers"))));
    }
    if let Some(alias) = alias_of(kind) {
        looked_for.push(format!("a group or agents of type `{alias}`"));
    }
    Unserved {
        wanted: asked.join(", "),
        looked_for: looked_for.join(", "),
    }
}

/// What moves the limit of an adaptive run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadFacts {
    /// The limit so far.
    pub limit: u32,
    /// The limit of the definition, which is never passed.
    pub limit_max: u32,
    /// Tasks of the run that are at work.
    pub at_work: u32,
    /// Messages that wait in the groups that the run sends to.
    pub waiting: u64,
    /// Live consumers of these groups.
    pub live_consumers: u32,
    /// Attempts that succeeded since the last answer.
    pub succeeded: u32,
    /// Attempts that failed since then.
    pub failed: u32,
}

/// Fewest outcomes that say something of a success rate: with less, one failure would halve.
pub const OUTCOMES_MIN: u32 = 5;

/// The limit of tasks at work for runs with the strategy `adaptive` or `hybrid`, 1 to
/// `limit_max`. It grows by steps and shrinks by shares, as congestion control does, since too
/// many at work cost everybody and too few only this run:
///
/// - fewer than half of at least [`OUTCOMES_MIN`] attempts succeeded: half of it;
/// - fewer than four fifths did: three quarters of it;
/// - else, more than two messages wait for each live consumer: three quarters of it, but at least
///   one task for each consumer, so that a backlog of others does not starve the run;
/// - else, the run uses all of its limit: an eighth more, at least 1;
/// - else as it is.
#[must_use]
pub fn parallel_limit(facts: &LoadFacts) -> u32 {
    let max = facts.limit_max.max(1);
    let limit = facts.limit.clamp(1, max);
    let outcomes = facts.succeeded.saturating_add(facts.failed);
    let is_known = outcomes >= OUTCOMES_MIN;
    let share = |parts: u32, of: u32| {
        let part = u64::from(limit).saturating_mul(u64::from(parts));
        let part = part.checked_div(u64::from(of)).unwrap_or(0);
        u32::try_from(part).unwrap_or(u32::MAX)
    };
    let succeeded = u64::from(facts.succeeded);
    let is_below = |parts: u64, of: u64| {
        succeeded.saturating_mul(of) < u64::from(outcomes).saturating_mul(parts)
    };
    let backlog = u64::from(facts.live_consumers).saturating_mul(2);
    let next = if is_known && is_below(1, 2) {
        share(1, 2)
    } else if is_known && is_below(4, 5) {
        share(3, 4)
    } else if facts.waiting > backlog {
        share(3, 4).max(facts.live_consumers.min(limit))
    } else if facts.at_work >= limit {
        limit.saturating_add(share(1, 8).max(1))
    } else {
        limit
    };
    next.clamp(1, max)
}

#[cfg(test)]
mod tests;
