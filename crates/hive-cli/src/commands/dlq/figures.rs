//! Figures of dead letters, and patterns in them, as they are printed.

use std::collections::BTreeMap;

use hive_client::wire;
use serde::Serialize;

use super::views::{or_dash, short_age};
use crate::{output::table, values::rfc3339};

/// Figures of all dead letters of a namespace.
#[derive(Debug, Serialize)]
pub(super) struct StatisticsView {
    pub(super) total_dlq_messages: u64,
    pub(super) messages_by_category: BTreeMap<String, u64>,
    messages_by_status: BTreeMap<String, u64>,
    messages_by_stream: BTreeMap<String, u64>,
    messages_by_consumer_group: BTreeMap<String, u64>,
    messages_by_age: BTreeMap<String, u64>,
    top_failure_patterns: Vec<PatternCount>,
    top_failure_sources: Vec<SourceCount>,
    pub(super) dlq_growth_rate: f64,
    recovery_success_rate: f64,
    average_time_in_dlq_hours: f64,
    recovery_recommendations: Vec<String>,
    breakers: Vec<BreakerView>,
    records: u64,
    records_max: u64,
    is_full: bool,
    #[serde(skip)]
    by_age: Vec<(String, u64)>,
}

#[derive(Debug, Serialize)]
struct PatternCount {
    fingerprint: String,
    count: u64,
    category: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    group: String,
    error: String,
}

#[derive(Debug, Serialize)]
struct SourceCount {
    source: String,
    count: u64,
}

#[derive(Debug, Serialize)]
struct BreakerView {
    group: String,
    state: String,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    opened_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probe_at: Option<String>,
}

fn counts(named: Vec<wire::NamedCount>) -> BTreeMap<String, u64> {
    named.into_iter().map(|one| (one.name, one.count)).collect()
}

impl From<wire::GetDeadLetterStatisticsResponse> for StatisticsView {
    fn from(figures: wire::GetDeadLetterStatisticsResponse) -> Self {
        let pattern = |one: wire::FailurePattern| PatternCount {
            fingerprint: one.fingerprint,
            count: one.count,
            category: one.category,
            group: one.group,
            error: one.error,
        };
        let source = |one: wire::NamedCount| SourceCount {
            source: one.name,
            count: one.count,
        };
        let breaker = |one: wire::GroupBreaker| BreakerView {
            opened_at: rfc3339(one.opened_at.as_ref()),
            probe_at: rfc3339(one.probe_at.as_ref()),
            group: one.group,
            state: one.state,
            reason: one.reason,
        };
        let by_age = figures
            .by_age
            .iter()
            .map(|one| (one.name.clone(), one.count));
        Self {
            by_age: by_age.collect(),
            total_dlq_messages: figures.total,
            messages_by_category: counts(figures.by_category),
            messages_by_status: counts(figures.by_status),
            messages_by_stream: counts(figures.by_stream),
            messages_by_consumer_group: counts(figures.by_group),
            messages_by_age: counts(figures.by_age),
            top_failure_patterns: figures.top_patterns.into_iter().map(pattern).collect(),
            top_failure_sources: figures.top_sources.into_iter().map(source).collect(),
            dlq_growth_rate: figures.growth_per_hour,
            recovery_success_rate: figures.recovery_success_rate,
            average_time_in_dlq_hours: crate::values::seconds(figures.mean_age.as_ref()) / 3_600.0,
            recovery_recommendations: figures.recommendations,
            breakers: figures.breakers.into_iter().map(breaker).collect(),
            records: figures.records,
            records_max: figures.records_max,
            is_full: figures.is_full,
        }
    }
}

impl StatisticsView {
    /// All of it for a person: how many, of what, and what to do.
    pub(super) fn text(&self) -> String {
        let mean = std::time::Duration::try_from_secs_f64(self.average_time_in_dlq_hours * 3_600.0);
        let mean = short_age(mean.unwrap_or_default().as_secs());
        let mut text = format!(
            "{} dead letters in the queue, {:.1} more an hour, mean age {mean}\n\
             {} of {} records kept; {:.0} % of replays succeeded\n",
            self.total_dlq_messages,
            self.dlq_growth_rate,
            self.records,
            self.records_max,
            self.recovery_success_rate * 100.0,
        );
        if self.is_full {
            text.push_str("FULL: nothing more is taken in until some are replayed or archived\n");
        }
        for (title, counts) in [
            ("GROUP", &self.messages_by_consumer_group),
            ("CATEGORY", &self.messages_by_category),
            ("STREAM", &self.messages_by_stream),
            ("STATUS", &self.messages_by_status),
        ] {
            let counts = counts.iter().map(|(name, count)| (name.clone(), *count));
            write_counts(&mut text, title, counts.collect());
        }
        write_counts(&mut text, "AGE", self.by_age.clone());
        let sources = self.top_failure_sources.iter();
        let sources = sources.map(|one| (one.source.clone(), one.count));
        write_counts(&mut text, "SOURCE", sources.collect());
        self.write_patterns(&mut text);
        for breaker in &self.breakers {
            let (group, state, why) = (&breaker.group, &breaker.state, &breaker.reason);
            let probe = breaker.probe_at.as_deref().unwrap_or("-");
            text.push_str(&format!(
                "\nbreaker of `{group}` is {state}: {why}; next probe {probe}\n"
            ));
        }
        write_advice(&mut text, &self.recovery_recommendations);
        text.trim_end().to_owned()
    }

    fn write_patterns(&self, text: &mut String) {
        if self.top_failure_patterns.is_empty() {
            return;
        }
        let rows = self.top_failure_patterns.iter().map(|one| {
            vec![
                one.count.to_string(),
                one.fingerprint.clone(),
                or_dash(&one.group),
                one.category.clone(),
                crate::values::cut(&one.error, 80),
            ]
        });
        let rows: Vec<Vec<String>> = rows.collect();
        let columns = ["COUNT", "FINGERPRINT", "GROUP", "CATEGORY", "ERROR"];
        text.push_str(&format!("\n{}\n", table(&columns, &rows)));
    }
}

/// A table of counts, the largest first; nothing of none.
fn write_counts(text: &mut String, title: &str, mut counts: Vec<(String, u64)>) {
    if counts.is_empty() {
        return;
    }
    if title != "AGE" {
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    }
    let rows = counts.into_iter();
    let rows = rows.map(|(name, count)| vec![or_dash(&name), count.to_string()]);
    let rows: Vec<Vec<String>> = rows.collect();
    text.push_str(&format!("\n{}\n", table(&[title, "COUNT"], &rows)));
}

fn write_advice(text: &mut String, advice: &[String]) {
    if !advice.is_empty() {
        text.push_str("\nwhat to do\n");
    }
    for one in advice {
        text.push_str(&format!("  - {one}\n"));
    }
}

/// Patterns in what failed lately.
#[derive(Debug, Serialize)]
pub(super) struct AnalysisView {
    patterns: Vec<PatternView>,
    messages_analyzed: u64,
    recommendations: Vec<String>,
}

#[derive(Debug, Serialize)]
struct PatternView {
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    group: String,
    subject: String,
    evidence: String,
    recommendation: String,
    share: f64,
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_at: Option<String>,
    dlq_ids: Vec<String>,
}

impl From<wire::AnalyzeDeadLettersResponse> for AnalysisView {
    fn from(found: wire::AnalyzeDeadLettersResponse) -> Self {
        let pattern = |one: wire::DeadLetterPattern| PatternView {
            first_at: rfc3339(one.first_at.as_ref()),
            last_at: rfc3339(one.last_at.as_ref()),
            kind: one.kind,
            group: one.group,
            subject: one.subject,
            evidence: one.evidence,
            recommendation: one.recommendation,
            share: one.share,
            count: one.count,
            dlq_ids: one.dlq_ids,
        };
        Self {
            patterns: found.patterns.into_iter().map(pattern).collect(),
            messages_analyzed: found.looked_at,
            recommendations: found.recommendations,
        }
    }
}

impl AnalysisView {
    /// All of it for a person, the worst first.
    pub(super) fn text(&self) -> String {
        let (looked_at, count) = (self.messages_analyzed, self.patterns.len());
        let patterns = if count == 1 { "pattern" } else { "patterns" };
        let mut text = format!("{count} {patterns} in {looked_at} dead letters\n");
        for pattern in &self.patterns {
            let kind = pattern.kind.replace('_', " ");
            let (subject, share) = (&pattern.subject, pattern.share * 100.0);
            let of = if pattern.group.is_empty() {
                String::new()
            } else {
                format!(" in `{}`", pattern.group)
            };
            text.push_str(&format!(
                "\n{kind}{of}: {subject} ({} dead letters, {share:.0} %)\n  {}\n  -> {}\n",
                pattern.count, pattern.evidence, pattern.recommendation
            ));
            if let Some(id) = pattern.dlq_ids.first() {
                text.push_str(&format!("  for one: hive dlq get {id}\n"));
            }
        }
        write_advice(&mut text, &self.recommendations);
        text.trim_end().to_owned()
    }
}
