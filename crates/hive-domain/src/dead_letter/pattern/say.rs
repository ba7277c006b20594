//! What to do, in words.

use super::{PatternKind, Stats};
use crate::dead_letter::{category::Category, status::Status};

/// What to do about a pattern whose dead letters are mostly of `category`.
pub(super) fn recommendation(
    kind: PatternKind,
    (group, key): (&str, &str),
    category: Category,
) -> String {
    match kind {
        PatternKind::OneConsumer => format!(
            "look at consumer `{key}` of group `{group}`: drain or restart it, then replay its \
             dead letters"
        ),
        PatternKind::OneMessageType => format!(
            "look at how group `{group}` handles `{key}`, and at who publishes it; replay after \
             the fix, with a canary"
        ),
        PatternKind::OneUpstream => format!(
            "look at `{key}` before anything is replayed to group `{group}`; {}",
            advice(category)
        ),
        PatternKind::OneFingerprint => format!(
            "it is one fault: {}; replay all of `{key}` with a canary after that",
            advice(category)
        ),
        PatternKind::AfterEvent => format!(
            "compare group `{group}` before and after `{key}`, and undo it if in doubt; replay \
             what died since"
        ),
        PatternKind::Burst => format!(
            "look at what happened at that time in group `{group}`: {}",
            advice(category)
        ),
    }
}

/// What to do about failures of a category.
const fn advice(category: Category) -> &'static str {
    match category {
        Category::Timeout => "find what became slow, or allow it more time",
        Category::ParsingError => "find who sends or answers what cannot be read",
        Category::ValidationError => "mend the producer, or the schema that it does not know",
        Category::NetworkError => "check names, routes and certificates from the agents' hosts",
        Category::ResourceExhaustion => "give the agents more room, or let them do less at once",
        Category::RateLimited => "lower the rate of the agents, or raise the quota",
        Category::DependencyFailure => "wait until the service is well again",
        Category::AuthenticationError => "renew keys or permissions: no replay helps before",
        Category::BudgetExhausted => "raise the budget, or make the tasks smaller",
        Category::HandlerException => "mend the agent's code",
        Category::Expired => "add consumers, or give the messages more time to live",
        Category::Cancelled => "ask who cancelled them; nothing is broken",
        Category::NoCapableConsumer => "start agents with the capabilities that are asked for",
        Category::Unknown => "read an example, and add a rule for its kind",
    }
}

/// Recommendations for a queue: those of its patterns, then of its commonest category, of what is
/// not understood and of what waits for a person. Each once.
#[must_use]
pub fn recommendations(stats: &Stats) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for pattern in &stats.patterns {
        all.push(format!("{}: {}", pattern.evidence, pattern.recommendation));
    }
    let sum = |counts: &mut dyn Iterator<Item = &u64>| {
        counts.fold(0_u64, |sum, count| sum.saturating_add(*count))
    };
    let total = sum(&mut stats.by_category.values());
    let top = stats
        .by_category
        .iter()
        .rev()
        .max_by_key(|(_, count)| **count);
    if let Some((category, count)) = top.filter(|(_, count)| **count > 0) {
        all.push(format!(
            "{count} of {total} dead letters are `{category}`: {}",
            advice(*category)
        ));
    }
    let unknown = stats
        .by_category
        .get(&Category::Unknown)
        .copied()
        .unwrap_or(0);
    if unknown > 0 && top.is_none_or(|(category, _)| *category != Category::Unknown) {
        let words = advice(Category::Unknown);
        all.push(format!(
            "{unknown} of {total} dead letters are `unknown`: {words}"
        ));
    }
    let count = |status| stats.by_status.get(&status).copied().unwrap_or(0);
    let statuses = [
        (
            Status::Analyzed,
            "wait for a person: replay them, or mark them as permanent failures",
        ),
        (
            Status::Quarantined,
            "are not understood: read them, then replay or mark them",
        ),
        (Status::Replayable, "may be sent back"),
        (
            Status::PermanentFailure,
            "are permanent failures: archive them",
        ),
    ];
    for (status, words) in statuses {
        let count = count(status);
        if count > 0 {
            all.push(format!("{count} dead letters {words}"));
        }
    }
    let mut once: Vec<String> = Vec::new();
    for one in all {
        if !once.contains(&one) {
            once.push(one);
        }
    }
    once
}
