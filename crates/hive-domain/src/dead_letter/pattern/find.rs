//! Finds the patterns of one group.

use std::collections::BTreeMap;

use super::{Context, Event, EventKind, Pattern, PatternKind, Seen, say};
use crate::{
    dead_letter::text::span,
    dead_letter::{breaker::percent, category::Category},
    time::Timestamp,
};

/// Share from which one key is what a group's dead letters have in common, in percent.
const COMMON_PERCENT: u64 = 60;
/// The same for one fault: half of a queue by one cause is worth a look.
const FAULT_PERCENT: u64 = 50;
/// A consumer or message type stands out when its share of the dead is at least so many percent of
/// its share of the work: who does all the work has all the failures, and nobody is to blame.
const OUT_PERCENT: u64 = 150;
/// A burst is so small a part of the time…
const BURST_PART: u64 = 12;
/// … with at least so many percent of the dead letters.
const BURST_PERCENT: u64 = 50;
/// How long after an event its effect is looked for, in ms.
const AFTER_MS: u64 = 600_000;
/// So many times more must die after an event than before it.
const AFTER_FACTOR: u64 = 4;

/// The patterns of the dead letters of one group, which are in the order of their death.
pub(super) fn of_group(
    group: &str,
    seen: &[&Seen],
    context: &Context,
    now: Timestamp,
) -> Vec<Pattern> {
    let kinds = [
        PatternKind::OneConsumer,
        PatternKind::OneMessageType,
        PatternKind::OneUpstream,
        PatternKind::OneFingerprint,
    ];
    let mut found: Vec<Pattern> = kinds
        .iter()
        .filter_map(|kind| common(*kind, group, seen, context))
        .collect();
    found.extend(burst(group, seen, context));
    let events = context.events.iter();
    let events = events.filter(|event| event.group.is_empty() || event.group == group);
    // Of several events with the same following the last one is the likelier cause.
    found.extend(
        events
            .filter_map(|event| after(event, group, seen, (context, now)))
            .max_by_key(|(pattern, event)| (pattern.count, event.at_ms, event.what.clone()))
            .map(|(pattern, _)| pattern),
    );
    found
}

fn key_of(kind: PatternKind, seen: &Seen) -> &str {
    match kind {
        PatternKind::OneConsumer => &seen.consumer,
        PatternKind::OneMessageType => &seen.message_type,
        PatternKind::OneUpstream => &seen.host,
        PatternKind::OneFingerprint => &seen.fingerprint,
        PatternKind::AfterEvent | PatternKind::Burst => "",
    }
}

/// The most frequent of the texts; of equally frequent ones the first by name.
fn top<'a>(texts: impl Iterator<Item = &'a str>) -> Option<(&'a str, u64)> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for text in texts.filter(|text| !text.is_empty()) {
        let count = counts.entry(text).or_default();
        *count = count.saturating_add(1);
    }
    counts.into_iter().rev().max_by_key(|(_, count)| *count)
}

fn common(kind: PatternKind, group: &str, seen: &[&Seen], context: &Context) -> Option<Pattern> {
    let (key, count) = top(seen.iter().map(|seen| key_of(kind, seen)))?;
    let share = percent(count, length(seen));
    let least = if kind == PatternKind::OneFingerprint {
        FAULT_PERCENT
    } else {
        COMMON_PERCENT
    };
    if count < context.min_count || share < least || !stands_out(kind, group, key, share, context) {
        return None;
    }
    let those: Vec<&Seen> = seen
        .iter()
        .copied()
        .filter(|seen| key_of(kind, seen) == key)
        .collect();
    let span = span(context.span_ms);
    let of = length(seen);
    let what = match kind {
        PatternKind::OneConsumer => format!("came from consumer `{key}`"),
        PatternKind::OneMessageType => format!("are of message type `{key}`"),
        PatternKind::OneUpstream => format!("name the service `{key}`"),
        PatternKind::OneFingerprint => format!("have the fault `{key}`"),
        PatternKind::AfterEvent | PatternKind::Burst => String::new(),
    };
    let evidence = format!("{count} of {of} dead letters in the last {span} {what}");
    Some(pattern(kind, (group, key), &those, (of, evidence)))
}

/// Whether the share of a consumer or message type among the dead is more than its share of work.
fn stands_out(kind: PatternKind, group: &str, key: &str, share: u64, context: &Context) -> bool {
    let Some(totals) = context.totals.get(group) else {
        return true;
    };
    let handled = match kind {
        PatternKind::OneConsumer => &totals.by_consumer,
        PatternKind::OneMessageType => &totals.by_message_type,
        PatternKind::OneUpstream
        | PatternKind::OneFingerprint
        | PatternKind::AfterEvent
        | PatternKind::Burst => return true,
    };
    let all = handled
        .values()
        .fold(0_u64, |sum, count| sum.saturating_add(*count));
    let own = percent(handled.get(key).copied().unwrap_or(0), all);
    all == 0 || share.saturating_mul(100) >= own.saturating_mul(OUT_PERCENT)
}

fn burst(group: &str, seen: &[&Seen], context: &Context) -> Option<Pattern> {
    let length_ms = context.span_ms / BURST_PART;
    let mut best: &[&Seen] = &[];
    let mut from = 0_usize;
    for (to, last) in seen.iter().enumerate() {
        while seen
            .get(from)
            .is_some_and(|first| last.at_ms.saturating_sub(first.at_ms) > length_ms)
        {
            from = from.saturating_add(1);
        }
        let window = seen.get(from..=to).unwrap_or_default();
        if window.len() > best.len() {
            best = window;
        }
    }
    let (count, of) = (length(best), length(seen));
    if count < context.min_count.saturating_mul(2) || percent(count, of) < BURST_PERCENT {
        return None;
    }
    let (span, part) = (span(context.span_ms), span(length_ms));
    let evidence = format!("{count} of {of} dead letters in the last {span} died within {part}");
    Some(pattern(
        PatternKind::Burst,
        (group, ""),
        best,
        (of, evidence),
    ))
}

fn after<'a>(
    event: &'a Event,
    group: &str,
    seen: &[&Seen],
    (context, now): (&Context, Timestamp),
) -> Option<(Pattern, &'a Event)> {
    let at = event.at_ms;
    let window_ms = now.since(Timestamp(at)).min(AFTER_MS);
    let until = at.saturating_add(window_ms);
    let before = seen
        .iter()
        .filter(|seen| seen.at_ms < at && seen.at_ms >= at.saturating_sub(window_ms))
        .count();
    let before = u64::try_from(before).unwrap_or(u64::MAX);
    let those: Vec<&Seen> = seen
        .iter()
        .copied()
        .filter(|seen| seen.at_ms >= at && seen.at_ms <= until)
        .collect();
    let count = length(&those);
    if count < context.min_count || count < before.saturating_mul(AFTER_FACTOR) {
        return None;
    }
    let span = span(window_ms);
    let kind = match event.kind {
        EventKind::Deploy => "deploy",
        EventKind::Scale => "change of scale",
        EventKind::Join => "join",
    };
    let what = if event.what.is_empty() {
        String::new()
    } else {
        format!(" `{}`", event.what)
    };
    let evidence = format!(
        "{count} messages died in the {span} after the {kind}{what}, {before} in as long before it"
    );
    let key = if event.what.is_empty() {
        event.kind.as_str()
    } else {
        &event.what
    };
    let pattern = pattern(
        PatternKind::AfterEvent,
        (group, key),
        &those,
        (length(seen), evidence),
    );
    Some((pattern, event))
}

/// A pattern over `those`, which are in the order of their death and not empty.
fn pattern(
    kind: PatternKind,
    (group, key): (&str, &str),
    those: &[&Seen],
    (of, evidence): (u64, String),
) -> Pattern {
    let words: Vec<&str> = those.iter().map(|seen| seen.category.as_str()).collect();
    let category = top(words.into_iter()).and_then(|(word, _)| Category::parse(word));
    let count = length(those);
    Pattern {
        kind,
        group: group.to_owned(),
        key: key.to_owned(),
        evidence,
        recommendation: say::recommendation(kind, (group, key), category.unwrap_or_default()),
        share: share(count, of),
        count,
        of,
        first_ms: those.first().map_or(0, |seen| seen.at_ms),
        last_ms: those.last().map_or(0, |seen| seen.at_ms),
        examples: those
            .iter()
            .take(super::EXAMPLES_MAX)
            .map(|seen| seen.dlq_id.clone())
            .collect(),
    }
}

/// In thousandths, so that the number is the same in every test and on every screen.
fn share(count: u64, of: u64) -> f64 {
    let thousandths = count.saturating_mul(1_000).checked_div(of).unwrap_or(0);
    f64::from(u32::try_from(thousandths).unwrap_or(1_000)) / 1_000.0
}

fn length(seen: &[&Seen]) -> u64 {
    u64::try_from(seen.len()).unwrap_or(u64::MAX)
}
