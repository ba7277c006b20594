//! `hive group get --watch`: a line for each change of a group's figures.
//!
//! Lines and no screen that is drawn anew: what was stays to be read, and a pipe takes it as it is.

use std::time::SystemTime;

use hive_client::Client;
use serde::Serialize;

use super::FiguresView;
use crate::{
    connection::refused,
    exit::Exit,
    output::{Format, Output},
    values::{rfc3339, short_seconds},
};

/// Columns and their widths; a longer cell pushes those behind it.
const COLUMNS: [(&str, usize); 11] = [
    ("TIME", 24),
    ("HEALTH", 19),
    ("CONSUMERS", 9),
    ("LAG", 8),
    ("PENDING", 8),
    ("SCHEDULED", 9),
    ("ACKED", 10),
    ("FAILED", 8),
    ("DEAD", 8),
    ("MSG/S", 9),
    ("OLDEST", 6),
];

/// Figures at one moment.
#[derive(Debug, Serialize)]
struct Moment {
    time: Option<String>,
    name: String,
    #[serde(flatten)]
    figures: FiguresView,
}

/// Prints figures until the group is gone or nobody answers.
///
/// # Errors
/// When a gateway refuses, also since the group is gone, or none answers.
pub(super) async fn run(client: &Client, name: &str, out: Output) -> anyhow::Result<Exit> {
    let mut watch = client.watch(name);
    let mut is_first = true;
    loop {
        let figures = watch.next().await.map_err(refused)?;
        let now = SystemTime::now().into();
        let moment = Moment {
            time: rfc3339(Some(&now)),
            name: name.to_owned(),
            figures: figures.into(),
        };
        match out.format() {
            Format::Table => {
                if is_first {
                    out.text(&line(&COLUMNS.map(|(title, _)| title.to_owned())))?;
                }
                out.text(&line(&moment.cells()))?;
            },
            Format::Json | Format::Jsonl => out.item(&moment)?,
        }
        is_first = false;
    }
}

impl Moment {
    fn cells(&self) -> [String; 11] {
        let figures = &self.figures;
        [
            self.time.clone().unwrap_or_default(),
            figures.health.clone(),
            figures.current_consumers.to_string(),
            figures.lag.to_string(),
            figures.pending_count.to_string(),
            figures.scheduled_count.to_string(),
            figures.acked_total.to_string(),
            figures.failed_total.to_string(),
            figures.dead_total.to_string(),
            format!("{:.1}", figures.throughput_msg_per_sec),
            short_seconds(figures.oldest_waiting_seconds),
        ]
    }
}

/// Cells in columns of fixed width.
fn line(cells: &[String; 11]) -> String {
    let cells = cells.iter().zip(COLUMNS);
    let padded = cells.map(|(cell, (_, width))| format!("{cell:<width$}"));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_below_their_titles() {
        let figures = hive_client::wire::GroupFigures {
            lag: 7,
            health: "no_capable_consumer".to_owned(),
            ..Default::default()
        };
        let moment = Moment {
            time: Some("1970-01-01T00:00:00.000Z".to_owned()),
            name: "g".to_owned(),
            figures: figures.into(),
        };
        let titles = line(&COLUMNS.map(|(title, _)| title.to_owned()));
        let cells = line(&moment.cells());
        let at = titles.find("LAG").unwrap();
        assert_eq!(cells.get(at..=at), Some("7"));
    }
}
