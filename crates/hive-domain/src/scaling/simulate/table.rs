//! Outcomes side by side.

use std::fmt::Write as _;

use super::{Load, Outcome, Scaler, World, run};

/// What one scaler makes of a load over several seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// What scales.
    pub scaler: Scaler,
    /// The means over the seeds; of interrupted and left messages the sums, of peaks the largest.
    pub outcome: Outcome,
}

/// Runs each scaler over the same loads: one for each seed.
#[must_use]
pub fn compare(world: &World, loads: &[(u64, Load)], scalers: &[Scaler]) -> Vec<Row> {
    let rows = scalers.iter().copied().map(|scaler| {
        let outcomes = loads
            .iter()
            .map(|(seed, load)| run(world, load, scaler, *seed));
        Row {
            scaler,
            outcome: mean(&outcomes.collect::<Vec<_>>()),
        }
    });
    rows.collect()
}

fn mean(outcomes: &[Outcome]) -> Outcome {
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).fold(0, u64::saturating_add);
    let count = u64::try_from(outcomes.len()).unwrap_or(u64::MAX);
    let mean = |of: fn(&Outcome) -> u64| {
        let half = count / 2;
        let rounded = sum(of).saturating_add(half).checked_div(count);
        rounded.unwrap_or(0)
    };
    Outcome {
        messages: mean(|one| one.messages),
        mean_wait_ms: mean(|one| one.mean_wait_ms),
        p95_wait_ms: mean(|one| one.p95_wait_ms),
        p99_wait_ms: mean(|one| one.p99_wait_ms),
        consumer_seconds: mean(|one| one.consumer_seconds),
        changes: u32::try_from(mean(|one| one.changes.into())).unwrap_or(u32::MAX),
        peak: outcomes.iter().map(|one| one.peak).max().unwrap_or(0),
        interrupted: sum(|one| one.interrupted),
        left: sum(|one| one.left),
    }
}

/// Rows as a Markdown table under the name of their load.
#[must_use]
pub fn table(loads: &[(String, Vec<Row>)]) -> String {
    let mut text = String::from(
        "| load | scaled by | mean wait | p95 | p99 | consumer-hours | changes | peak | \
         interrupted |\n|---|---|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for (name, rows) in loads {
        for Row { scaler, outcome } in rows {
            let [mean, p95, p99] = [
                outcome.mean_wait_ms,
                outcome.p95_wait_ms,
                outcome.p99_wait_ms,
            ]
            .map(seconds);
            let hours = outcome.consumer_seconds.saturating_mul(100) / 3_600;
            let (whole, part) = (hours / 100, hours % 100);
            let (changes, peak) = (outcome.changes, outcome.peak);
            let interrupted = outcome.interrupted;
            // Writing to a text does not fail.
            let written = writeln!(
                text,
                "| {name} | {scaler} | {mean} | {p95} | {p99} | {whole}.{part:02} | {changes} | \
                 {peak} | {interrupted} |"
            );
            debug_assert!(written.is_ok());
        }
    }
    text
}

fn seconds(millis: u64) -> String {
    let (whole, part) = (millis / 1_000, millis % 1_000);
    format!("{whole}.{part:03} s")
}
