//! Figures of all dead letters, and patterns in those that died lately.

use std::collections::BTreeMap;

use hive_domain::{
    dead_letter::{
        breaker::State,
        category::Category,
        pattern::{self, Context, Event, EventKind, GroupTotals, Seen, Stats},
        status::Status,
    },
    violation::Violations,
};
use hive_protocol::{
    fault::Fault,
    limits::ANALYSIS_WINDOW_MS_MAX,
    time::{self, to_timestamp},
    wire,
};
use hive_store::{
    StoreError,
    letters::{Found, Index, Letters, LettersKey, Order, Row, Totals},
    members::Kind,
};

use crate::{desk::Desk, recovery::GroupBreaker, view};

const HOUR_MS: u64 = 3_600_000;
/// Dead letters that an analysis looks at.
const LOOKED_AT_MAX: usize = 10_000;
/// Records read at once.
const PAGE: usize = 500;
/// How far back the recommendations of the statistics look.
const RECENT_MS: u64 = 6 * HOUR_MS;
/// Dead letters that they look at.
const RECENT_MAX: usize = 500;
/// Patterns and sources that the statistics name.
const TOP: usize = 10;
/// How far back an analysis looks where the call does not say.
const WINDOW_MS: u64 = 24 * HOUR_MS;

/// Figures of all dead letters. What they cost does not grow with how many there are.
pub(crate) async fn statistics(
    desk: &Desk,
    letters: &Letters,
) -> Result<wire::GetDeadLetterStatisticsResponse, Fault> {
    let store = &desk.store;
    let totals = store.letter_totals(letters).await?;
    let now_ms = desk.now().as_millis();
    let since = |ms: u64| now_ms.saturating_sub(ms);
    let mut by_age = Vec::new();
    let ages = [
        ("<1h", since(HOUR_MS), 0),
        ("<6h", since(6 * HOUR_MS), since(HOUR_MS)),
        ("<24h", since(24 * HOUR_MS), since(6 * HOUR_MS)),
        ("<7d", since(168 * HOUR_MS), since(24 * HOUR_MS)),
        (">=7d", 0, since(168 * HOUR_MS)),
    ];
    for (name, from, to) in ages {
        let count = store
            .count_letters(letters, &Index::Live, (from, to))
            .await?;
        by_age.push(named(name, count));
    }
    let hour = (since(HOUR_MS), 0);
    let died = store.count_letters(letters, &Index::All, hour).await?;
    let top = store
        .top_letters(letters, LettersKey::Patterns, TOP)
        .await?;
    let prints: Vec<String> = top.iter().map(|(print, _)| print.clone()).collect();
    let examples = store.examples(letters, &prints).await?;
    let top_patterns = top.into_iter().zip(examples);
    let top_patterns =
        top_patterns.map(
            |((fingerprint, count), [category, group, error])| wire::FailurePattern {
                fingerprint,
                count,
                category,
                group,
                error,
            },
        );
    let sources = store.top_letters(letters, LettersKey::Sources, TOP).await?;
    let rows: Vec<Row<GroupBreaker>> = store.letter_rows(letters, LettersKey::Breakers).await?;
    let breakers = rows.into_iter().map(|row| row.value);
    let bounds = desk.settings.bounds;
    let recent = seen(desk, letters, "", RECENT_MS, RECENT_MAX).await?;
    let patterns = find(desk, letters, &recent, RECENT_MS).await?;
    let recommendations = pattern::recommendations(&stats(&totals, patterns));
    Ok(wire::GetDeadLetterStatisticsResponse {
        total: totals.live,
        by_category: counts(&totals.by_category),
        by_status: counts(&totals.by_status),
        by_stream: counts(&totals.by_stream),
        by_group: counts(&totals.by_group),
        by_age,
        top_patterns: top_patterns.collect(),
        top_sources: counts(&sources),
        growth_per_hour: float(died),
        recovery_success_rate: success(&totals),
        mean_age: Some(view::span(mean_age_ms(&totals, now_ms))),
        recommendations,
        breakers: breakers.filter_map(breaker).collect(),
        records: totals.records,
        records_max: bounds.records,
        is_full: totals.live >= bounds.records
            || totals.bytes >= bounds.bytes && totals.live == totals.records,
    })
}

fn named(name: &str, count: u64) -> wire::NamedCount {
    wire::NamedCount {
        name: name.to_owned(),
        count,
    }
}

/// The largest first.
fn counts(rows: &[(String, u64)]) -> Vec<wire::NamedCount> {
    let mut rows: Vec<_> = rows
        .iter()
        .map(|(name, count)| named(name, *count))
        .collect();
    rows.sort_by(|a, b| (b.count, &a.name).cmp(&(a.count, &b.name)));
    rows
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
const fn float(count: u64) -> f64 {
    count as f64
}

fn success(totals: &Totals) -> f64 {
    let known = totals.succeeded.saturating_add(totals.failed);
    if known == 0 {
        1.0
    } else {
        float(totals.succeeded) / float(known)
    }
}

fn mean_age_ms(totals: &Totals, now_ms: u64) -> u64 {
    let mean = totals.dead_ms.checked_div(u128::from(totals.live));
    mean.and_then(|mean| u64::try_from(mean).ok())
        .map_or(0, |mean| now_ms.saturating_sub(mean))
}

fn stats(totals: &Totals, patterns: Vec<pattern::Pattern>) -> Stats {
    let parse = |rows: &[(String, u64)]| {
        let rows = rows.iter();
        rows.filter_map(|(name, count)| Some((Category::parse(name)?, *count)))
            .collect::<BTreeMap<_, _>>()
    };
    let statuses = totals.by_status.iter();
    Stats {
        by_category: parse(&totals.by_category),
        by_status: statuses
            .filter_map(|(name, count)| Some((Status::parse(name)?, *count)))
            .collect(),
        patterns,
    }
}

fn breaker(row: GroupBreaker) -> Option<wire::GroupBreaker> {
    let at = |ms: u64| Some(to_timestamp(ms.into()));
    let state = row.breaker.state.as_str().to_owned();
    match row.breaker.state {
        State::Closed => None,
        State::Open {
            until,
            opened_at,
            reason,
            ..
        } => Some(wire::GroupBreaker {
            group: row.group,
            state,
            reason,
            opened_at: at(opened_at.as_millis()),
            probe_at: at(until.as_millis()),
        }),
        State::HalfOpen {
            since,
            opened_at,
            reason,
            ..
        } => Some(wire::GroupBreaker {
            group: row.group,
            state,
            reason,
            opened_at: at(opened_at.as_millis()),
            probe_at: at(since.as_millis()),
        }),
    }
}

/// Patterns in what died within a window.
pub(crate) async fn analyze(
    desk: &Desk,
    letters: &Letters,
    request: wire::AnalyzeDeadLettersRequest,
) -> Result<wire::AnalyzeDeadLettersResponse, Fault> {
    let mut faults = Violations::new();
    let window = request.window.as_ref();
    let asked = faults.take(time::optional_duration_ms(
        "window",
        window,
        ANALYSIS_WINDOW_MS_MAX,
    ));
    let span_ms = asked.flatten().unwrap_or(WINDOW_MS);
    if span_ms < 60_000 {
        faults.push(
            "window",
            format!("`{span_ms} ms` must be at least 1 minute"),
        );
    }
    faults.into_result()?;
    let found = seen(desk, letters, &request.group, span_ms, LOOKED_AT_MAX).await?;
    let patterns = find(desk, letters, &found, span_ms).await?;
    let totals = desk.store.letter_totals(letters).await?;
    let looked_at = u64::try_from(found.len()).unwrap_or(u64::MAX);
    let at = |ms: u64| Some(to_timestamp(ms.into()));
    let shown = patterns.iter().map(|one| wire::DeadLetterPattern {
        kind: one.kind.to_string(),
        group: one.group.clone(),
        subject: one.key.clone(),
        evidence: one.evidence.clone(),
        recommendation: one.recommendation.clone(),
        share: one.share,
        count: one.count,
        first_at: at(one.first_ms),
        last_at: at(one.last_ms),
        dlq_ids: one.examples.clone(),
    });
    Ok(wire::AnalyzeDeadLettersResponse {
        patterns: shown.collect(),
        looked_at,
        recommendations: pattern::recommendations(&stats(&totals, patterns.clone())),
    })
}

/// What died within a window, the newest first.
async fn seen(
    desk: &Desk,
    letters: &Letters,
    group: &str,
    span_ms: u64,
    most: usize,
) -> Result<Vec<Seen>, StoreError> {
    let index = if group.is_empty() {
        Index::All
    } else {
        Index::Group(group.to_owned())
    };
    let since = desk.now().as_millis().saturating_sub(span_ms);
    let (mut found, mut after) = (Vec::new(), None);
    while found.len() < most {
        let limit = PAGE.min(most.saturating_sub(found.len()));
        let range = (since, 0);
        let page = desk
            .store
            .letter_ids(
                letters,
                &index,
                (Order::Newest, after.as_ref()),
                range,
                limit,
            )
            .await?;
        let ids: Vec<String> = page.iter().map(|place| place.id.clone()).collect();
        for letter in desk
            .store
            .read_letters(letters, &ids)
            .await?
            .into_iter()
            .filter_map(Found::there)
        {
            let facts = letter.facts;
            let last = facts.attempts.last().cloned().unwrap_or_default();
            let host = pattern::upstream(&last.reason).or_else(|| pattern::upstream(&last.stack));
            found.push(Seen {
                dlq_id: letter.id,
                at_ms: facts.dead_ms,
                group: facts.group,
                stream: facts.stream,
                category: facts.category,
                fingerprint: facts.fingerprint,
                host: host.unwrap_or_default().to_owned(),
                consumer: last.consumer,
                message_type: facts.message_type,
            });
        }
        let is_end = page.len() < limit;
        after = page.into_iter().last();
        if is_end {
            break;
        }
    }
    Ok(found)
}

async fn find(
    desk: &Desk,
    letters: &Letters,
    found: &[Seen],
    span_ms: u64,
) -> Result<Vec<pattern::Pattern>, StoreError> {
    let mut groups: Vec<&str> = found.iter().map(|one| one.group.as_str()).collect();
    groups.sort_unstable();
    groups.dedup();
    let (mut events, mut totals) = (Vec::new(), BTreeMap::new());
    for group in groups {
        let Some(definition) = desk.store.group(letters.namespace(), group).await? else {
            continue;
        };
        let shard = desk.store.shard(letters.namespace(), &definition.stream, 0);
        // What each has handled is not counted: all are taken to have handled as much.
        let by_consumer: &mut BTreeMap<String, u64> = &mut totals
            .entry(group.to_owned())
            .or_insert_with(GroupTotals::default)
            .by_consumer;
        for member in desk.store.members(&shard, group).await? {
            by_consumer.insert(member.consumer.clone(), 1);
            // What a pull consumer did last is no news.
            if member.kind == Kind::Stream {
                events.push(Event {
                    at_ms: member.last_ms,
                    kind: EventKind::Join,
                    group: group.to_owned(),
                    what: member.consumer,
                });
            }
        }
    }
    let context = Context {
        span_ms,
        events,
        totals,
        ..Context::default()
    };
    Ok(pattern::detect(found, &context, desk.now()))
}
