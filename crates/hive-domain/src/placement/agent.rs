//! Which group an agent joins.
//!
//! Each group gets a score of 0 to 1,000 with a reason; the highest wins, ties by name. The scores
//! of the strategies are sums of three plain numbers: what the group's agents are, how much of its
//! work the agent can do, and how much work there is for each consumer.
//!
//! Where no group fits, the group of the template of the agent's type is to be made, but only where
//! that makes sense: a group of its name that is there already is what it is, with whatever type
//! and stream, and a second group of a type on one stream would work on every message twice.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

pub use super::template::{OTHER_CONSUMERS_MAX, Template, has_template, template};
use super::{GroupFacts, template::canonical};
use crate::{capability::CapabilitySet, group::GroupState, name, violation::quoted, words::words};

/// The best score.
pub const SCORE_MAX: u32 = 1_000;
/// Groups that an answer tells the scores of at most.
pub const SCORES_TOLD_MAX: usize = 20;

/// What placement goes by.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// The group of the agent's type.
    AgentTypeBased,
    /// The group whose work needs most of what the agent can do.
    CapabilityBased,
    /// The group with the most work for each consumer.
    WorkloadBased,
    /// All three, weighted.
    #[default]
    Hybrid,
}

words!(Strategy {
    AgentTypeBased => "agent_type_based",
    CapabilityBased => "capability_based",
    WorkloadBased => "workload_based",
    Hybrid => "hybrid",
});

/// An agent that looks for a group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AgentWanted {
    /// What it is; a type or a word that stands for one.
    pub agent_type: String,
    /// What it can do.
    pub capabilities: CapabilitySet,
}

/// How well a group suits an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Score {
    /// The group.
    pub group: String,
    /// 0 to [`SCORE_MAX`]; 0 is never chosen.
    ///
    /// Groups that fit and deliver have 100 and more, others that fit 50 to 99; groups of the
    /// agent's type whose work it cannot do have 1 or 2.
    pub score: u32,
    /// What it is made of, for a person.
    pub reason: String,
}

/// The group for an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentChoice {
    /// Its name.
    pub group: String,
    /// The template it is to be made from; none where it exists.
    pub made_from: Option<Template>,
    /// Why this one, for a person.
    pub reason: String,
    /// The groups that were looked at, the best first, at most [`SCORES_TOLD_MAX`].
    pub scores: Vec<Score>,
}

/// No group takes an agent, and none is to be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no group has a place for an agent of type {agent_type}: {reason}")]
pub struct Unplaced {
    /// What the agent is, quoted.
    pub agent_type: String,
    /// Why, for a person.
    pub reason: String,
    /// The groups that were looked at, the best first, at most [`SCORES_TOLD_MAX`].
    pub scores: Vec<Score>,
}

/// The group that an agent joins: the one with the highest score, ties by name. Where none fits,
/// the one of the template of its type is to be made; where that is not to be, a group of its type
/// that does not fit is still better than none.
///
/// Groups that are being deleted do not exist any more; full ones are never chosen; paused and
/// unfinished ones come after all others that fit.
///
/// # Errors
/// Nothing fits and the template is not to be made: its group or another of the type on its stream
/// exists (and is full), or the type is so long or odd that it makes no name.
pub fn choose_for_agent(
    strategy: Strategy,
    facts: &[GroupFacts],
    wanted: &AgentWanted,
) -> Result<AgentChoice, Unplaced> {
    let mut scores = scores(strategy, facts, wanted);
    let best = scores.first().cloned();
    scores.truncate(SCORES_TOLD_MAX);
    let kind = quoted(&wanted.agent_type);
    let template = template(&wanted.agent_type);
    let chosen = |best: Score, note: &str| {
        let Score {
            group,
            score,
            reason,
        } = best;
        let reason = format!("`{group}` scores {score} by {strategy}: {reason}{note}");
        (group, None, reason)
    };
    let (group, made_from, reason) = match (best, obstacle(&template, facts, wanted)) {
        (Some(best), Some(obstacle)) if best.score >= FIT_MIN => {
            // Said only where the template's group is another than one would expect.
            let note = if obstacle.is_odd {
                format!("; its template is not made: {}", obstacle.reason)
            } else {
                String::new()
            };
            chosen(best, &note)
        },
        (Some(best), None) if best.score >= FIT_MIN => chosen(best, ""),
        (_, None) => {
            let reason = of_template(&template, facts, &kind);
            (template.group.clone(), Some(template), reason)
        },
        (Some(best), Some(obstacle)) if best.score > 0 => {
            let note = format!("; its template is not made: {}", obstacle.reason);
            chosen(best, &note)
        },
        (_, Some(obstacle)) => {
            return Err(Unplaced {
                agent_type: kind,
                reason: format!("none fits by {strategy}, and {}", obstacle.reason),
                scores,
            });
        },
    };
    Ok(AgentChoice {
        group,
        made_from,
        reason,
        scores,
    })
}

/// The scores of all groups but those that are being deleted, the best first, ties by name.
#[must_use]
pub fn scores(strategy: Strategy, facts: &[GroupFacts], wanted: &AgentWanted) -> Vec<Score> {
    let mut scores: Vec<Score> = facts
        .iter()
        .filter(|group| group.state != GroupState::Deleting)
        .map(|group| score(strategy, group, wanted))
        .collect();
    scores.sort_by(|a, b| (Reverse(a.score), &a.group).cmp(&(Reverse(b.score), &b.group)));
    scores
}

/// Least score of groups that fit and do not deliver.
const FIT_MIN: u32 = 50;
/// Least score of groups that fit and deliver.
const ACTIVE_MIN: u32 = 100;

/// How well a group suits an agent, whatever other groups there are.
#[must_use]
pub fn score(strategy: Strategy, group: &GroupFacts, wanted: &AgentWanted) -> Score {
    let told = |score, reason| Score {
        group: group.name.clone(),
        score,
        reason,
    };
    if is_full(group) {
        let (live, max) = (group.live_consumers, group.max_consumers);
        return told(0, format!("it is full, with {live} of {max} consumers"));
    }
    let kind = of_type(group, wanted);
    let fit = capability_fit(group, wanted);
    let load = workload(group);
    let (parts, is_fit) = match strategy {
        Strategy::AgentTypeBased => (vec![(&kind, 1)], kind.points > 0),
        Strategy::CapabilityBased => {
            let is_fit = fit.can_do && (fit.part.points > 0 || kind.points > 0);
            (vec![(&fit.part, 1)], is_fit)
        },
        Strategy::WorkloadBased => {
            let is_fit = fit.can_do && (load.points > 0 || kind.points > 0);
            (vec![(&load, 1)], is_fit)
        },
        Strategy::Hybrid => {
            let is_fit = kind.points > 0 || fit.is_asked_for;
            (vec![(&kind, 5), (&fit.part, 3), (&load, 2)], is_fit)
        },
    };
    let (sum, weights) = parts
        .iter()
        .fold((0_u32, 0_u32), |(sum, all), (part, weight)| {
            let points = part.points.saturating_mul(*weight);
            (sum.saturating_add(points), all.saturating_add(*weight))
        });
    let points = sum.checked_div(weights).unwrap_or(0).min(SCORE_MAX);
    let is_active = group.state == GroupState::Active;
    let score = match (is_fit, is_active) {
        (true, true) => within(points, ACTIVE_MIN, SCORE_MAX),
        (true, false) => within(points, FIT_MIN, ACTIVE_MIN.saturating_sub(1)),
        (false, _) if kind.points > 0 => 1_u32.saturating_add(u32::from(is_active)),
        (false, _) => 0,
    };
    let mut words: Vec<String> = parts
        .iter()
        .map(|(part, _)| format!("{} ({})", part.words, part.points))
        .collect();
    if !is_fit && !matches!(strategy, Strategy::AgentTypeBased) {
        words.push(misfit(strategy, &kind, &fit).to_owned());
    }
    if !is_active {
        words.push(format!("it is {}", group.state));
    }
    told(score, words.join("; "))
}

fn misfit(strategy: Strategy, kind: &Part, fit: &Fit) -> &'static str {
    if !fit.can_do {
        "the agent can do nothing of it"
    } else if kind.points == 0 && strategy == Strategy::WorkloadBased {
        "there is no work for an agent of another type"
    } else {
        "nothing asks for an agent of another type there"
    }
}

/// Points within 0 to [`SCORE_MAX`], put in proportion between `least` and `most`.
fn within(points: u32, least: u32, most: u32) -> u32 {
    let width = most.saturating_sub(least);
    let above = points.saturating_mul(width).checked_div(SCORE_MAX);
    least.saturating_add(above.unwrap_or(0))
}

/// One of the numbers of a score.
struct Part {
    /// 0 to [`SCORE_MAX`].
    points: u32,
    words: String,
}

impl Part {
    fn new(points: u64, words: impl Into<String>) -> Self {
        Self {
            points: u32::try_from(points).unwrap_or(u32::MAX).min(SCORE_MAX),
            words: words.into(),
        }
    }
}

fn is_full(group: &GroupFacts) -> bool {
    group.live_consumers >= group.max_consumers
}

/// Whether a group is for agents of that type: by their type, or by its name, as tasks of the type
/// find it.
fn of_type(group: &GroupFacts, wanted: &AgentWanted) -> Part {
    let (asked, meant) = (wanted.agent_type.as_str(), canonical(&wanted.agent_type));
    let kind = quoted(asked);
    let its_type = quoted(&group.agent_type);
    let called = group.name.strip_suffix("_consumers").unwrap_or(&group.name);
    if asked.is_empty() {
        Part::new(0, "the agent has no type")
    } else if group.agent_type == asked {
        Part::new(1_000, format!("its agents are of type {kind}"))
    } else if canonical(&group.agent_type) == meant {
        let words = format!("its agents are of type {its_type}, as {kind} are");
        Part::new(900, words)
    } else if called == asked || called == meant {
        let words = format!("it is named after {kind}, its agents are of type {its_type}");
        Part::new(700, words)
    } else {
        Part::new(0, format!("its agents are of type {its_type}, not {kind}"))
    }
}

/// How much of a group's work an agent can do.
struct Fit {
    part: Part,
    /// Whether it can do something of what waits or is held, or nothing does.
    can_do: bool,
    /// Whether something of that asks for what it can do.
    is_asked_for: bool,
}

/// Half of the points are for how many of the sets that messages ask for an agent has, half for how
/// much of what it can do they ask for. Where there are no messages, half are for likeness to a
/// member.
fn capability_fit(group: &GroupFacts, wanted: &AgentWanted) -> Fit {
    let own = &wanted.capabilities;
    let sets = &group.wanted_sets;
    if sets.is_empty() {
        let like = group
            .capabilities
            .iter()
            .map(|has| likeness(own, has))
            .max();
        let part = match like {
            Some(like) => Part::new(like / 2, format!("its members are alike by {like} of 1000")),
            None => Part::new(0, "nothing there asks for capabilities"),
        };
        return Fit {
            part,
            can_do: true,
            is_asked_for: false,
        };
    }
    let done: Vec<&CapabilitySet> = sets.iter().filter(|set| own.covers(set)).collect();
    let used: std::collections::BTreeSet<&String> =
        done.iter().flat_map(|set| set.names()).collect();
    let points = if done.is_empty() {
        0
    } else {
        let of_sets = share(done.len(), sets.len());
        of_sets.saturating_add(share(used.len(), own.len())) / 2
    };
    let words = format!(
        "the agent has {} of {} sets of capabilities that messages ask for, and these need {} of \
         its {}",
        done.len(),
        sets.len(),
        used.len(),
        own.len()
    );
    Fit {
        can_do: !done.is_empty(),
        is_asked_for: !used.is_empty(),
        part: Part::new(points, words),
    }
}

/// Capabilities that both have, of those that one of them has, in thousandths; all of them where
/// neither has any.
fn likeness(a: &CapabilitySet, b: &CapabilitySet) -> u64 {
    let both = a
        .names()
        .iter()
        .filter(|name| b.names().binary_search(name).is_ok())
        .count();
    let either = a.len().saturating_add(b.len()).saturating_sub(both);
    if either == 0 {
        return 1_000;
    }
    share(both, either)
}

/// Thousandths; 0 of nothing.
fn share(part: usize, of: usize) -> u64 {
    let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let parts = number(part).saturating_mul(1_000);
    parts.checked_div(number(of)).unwrap_or(0)
}

/// Messages for each consumer at which half of the points are reached.
const HALFWAY: u128 = 10;

/// How much a group needs somebody: more for more work for each consumer, most where work has
/// nobody. Never less for more work.
fn workload(group: &GroupFacts) -> Part {
    let work = u128::from(group.waiting).saturating_add(group.pending.into());
    let live = u128::from(group.live_consumers);
    // work / (work + 10 for each consumer), which grows towards 1.
    let towards = |points: u128, consumers: u128| {
        let all = work.saturating_add(HALFWAY.saturating_mul(consumers));
        let points = work.saturating_mul(points).checked_div(all).unwrap_or(0);
        u64::try_from(points).unwrap_or(u64::MAX)
    };
    match (work, live) {
        (0, _) => Part::new(0, format!("no work for {live} consumers")),
        (_, 0) => Part::new(
            towards(99, 1).saturating_add(901),
            format!("{work} messages and no consumer"),
        ),
        _ => Part::new(
            towards(900, live),
            format!("{work} messages for {live} consumers"),
        ),
    }
}

/// Why a template is not to be made.
struct Obstacle {
    reason: String,
    /// Whether the group that is in its place is another than the template would make.
    is_odd: bool,
}

fn obstacle(template: &Template, facts: &[GroupFacts], wanted: &AgentWanted) -> Option<Obstacle> {
    let names = name::check_group("group", &template.group)
        .and_then(|()| name::check("stream", &template.stream))
        .and_then(|()| name::check("agent_type", &template.agent_type));
    if let Err(fault) = names {
        return Some(Obstacle {
            reason: format!("its template makes no name: {fault}"),
            is_odd: false,
        });
    }
    let live = || {
        facts
            .iter()
            .filter(|group| group.state != GroupState::Deleting)
    };
    let about = |group: &GroupFacts| {
        format!(
            "`{}` exists, on stream `{}` with agents of type {} and {} of {} consumers",
            group.name,
            group.stream,
            quoted(&group.agent_type),
            group.live_consumers,
            group.max_consumers
        )
    };
    if let Some(group) = live().find(|group| group.name == template.group) {
        return Some(Obstacle {
            reason: about(group),
            is_odd: group.stream != template.stream || group.agent_type != template.agent_type,
        });
    }
    let same = live()
        .filter(|group| group.stream == template.stream && of_type(group, wanted).points > 0)
        .min_by_key(|group| &group.name)?;
    Some(Obstacle {
        reason: format!(
            "{}, and a second group of the type on that stream would do all of its work again",
            about(same)
        ),
        is_odd: false,
    })
}

fn of_template(template: &Template, facts: &[GroupFacts], kind: &str) -> String {
    let Template {
        group,
        stream,
        max_consumers,
        ..
    } = template;
    let looked_at = facts.len();
    let mut words = format!(
        "none of {looked_at} groups fits; `{group}` is the group of the template of {kind}, on \
         stream `{stream}` with at most {max_consumers} consumers"
    );
    if facts.iter().any(|facts| facts.name == *group) {
        words.push_str("; the one of that name is being deleted, which comes first");
    }
    words
}

#[cfg(test)]
#[expect(
    clippy::arithmetic_side_effects,
    reason = "an overflow in a test fails it, as it should"
)]
mod tests;
