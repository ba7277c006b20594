//! `hive dlq watch`: a line for each message that dies, and how many there are.
//!
//! Lines and no screen that is drawn anew, as with groups. On a terminal the totals stand below
//! them and follow; elsewhere they are a line of their own whenever they change.

use std::{collections::VecDeque, io::IsTerminal as _, time::Duration};

use hive_client::{CallError, Client, wire};
use indicatif::ProgressBar;
use serde::Serialize;
use tokio::time::sleep;

use super::{figures::StatisticsView, filter::FilterArgs, views::LetterView};
use crate::{
    connection::{refused, told},
    exit::Exit,
    output::{Format, Output, note, progress},
};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Dead letters of one look; where more died between two, the newest of them are shown.
const PAGE: u32 = 100;
/// Ids that are remembered, so that none is shown twice.
const KNOWN_MAX: usize = 10_000;

/// Columns and their widths; a longer cell pushes those behind it.
const COLUMNS: [(&str, usize); 5] = [
    ("DIED", 24),
    ("GROUP", 20),
    ("CATEGORY", 20),
    ("ID", 32),
    ("LAST ERROR", 0),
];

/// What is printed in JSON.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Shown<'a> {
    DeadLetter(&'a LetterView),
    Totals(&'a StatisticsView),
}

/// Prints what dies until it is stopped, after the last few that did.
///
/// # Errors
/// When the calls are refused. While nobody answers it goes on trying, and says so once.
pub(super) async fn run(
    client: &Client,
    filter: FilterArgs,
    last: u32,
    out: Output,
) -> anyhow::Result<Exit> {
    let mut view = View {
        known: VecDeque::new(),
        totals: String::new(),
        bar: (out.format() == Format::Table && std::io::stderr().is_terminal())
            .then(|| progress(0, "")),
        out,
    };
    if out.format() == Format::Table {
        out.text(&line(&COLUMNS.map(|(title, _)| title.to_owned())))?;
    }
    let mut is_away = false;
    let mut is_first = true;
    loop {
        match look(client, &filter).await {
            Ok((letters, figures)) => {
                if std::mem::take(&mut is_away) {
                    note("they answer again");
                }
                let most = if is_first { last as usize } else { usize::MAX };
                is_first = false;
                view.take(letters, most)?;
                view.count(&figures.into())?;
            },
            Err(CallError::Unreachable { last, .. }) => {
                if !std::mem::replace(&mut is_away, true) {
                    note(&format!("nobody answers, trying on: {}", told(&last)));
                }
            },
            Err(error) => return Err(refused(error).into()),
        }
        sleep(LOOK_EVERY).await;
    }
}

type Looked = (Vec<wire::DeadLetter>, wire::GetDeadLetterStatisticsResponse);

async fn look(client: &Client, filter: &FilterArgs) -> Result<Looked, CallError> {
    let request = wire::ListDeadLettersRequest {
        filter: Some(filter.wire()),
        limit: PAGE,
        ..wire::ListDeadLettersRequest::default()
    };
    let page = client.list_dead_letters(request).await?;
    Ok((page.messages, client.dead_letter_statistics().await?))
}

/// What was shown so far.
struct View {
    known: VecDeque<String>,
    totals: String,
    bar: Option<ProgressBar>,
    out: Output,
}

impl View {
    /// Shows those that are new, the oldest first, at most so many.
    fn take(&mut self, letters: Vec<wire::DeadLetter>, most: usize) -> anyhow::Result<()> {
        let is_full = letters.len() >= PAGE as usize;
        let new = fresh(letters, &mut self.known);
        if is_full && new.len() >= PAGE as usize && most > new.len() {
            note("more died than are shown here: `hive dlq ls` has them all");
        }
        let skipped = new.len().saturating_sub(most);
        for letter in new.into_iter().skip(skipped) {
            let letter = LetterView::from(letter);
            match self.out.format() {
                Format::Table => self.print(&line(&letter.line()))?,
                Format::Json | Format::Jsonl => self.out.item(&Shown::DeadLetter(&letter))?,
            }
        }
        Ok(())
    }

    /// Shows the totals where they changed.
    fn count(&mut self, figures: &StatisticsView) -> anyhow::Result<()> {
        let text = totals(figures);
        if text == self.totals {
            return Ok(());
        }
        self.totals.clone_from(&text);
        match (self.out.format(), &self.bar) {
            (Format::Table, Some(bar)) => {
                bar.set_position(figures.total_dlq_messages);
                bar.set_message(text);
                Ok(())
            },
            (Format::Table, None) => self.print(&text),
            (Format::Json | Format::Jsonl, _) => self.out.item(&Shown::Totals(figures)),
        }
    }

    fn print(&self, text: &str) -> anyhow::Result<()> {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.out.text(text)),
            None => self.out.text(text),
        }
    }
}

/// Those that were not known, the oldest first; they are known from now on.
fn fresh(letters: Vec<wire::DeadLetter>, known: &mut VecDeque<String>) -> Vec<wire::DeadLetter> {
    let mut new: Vec<wire::DeadLetter> = letters
        .into_iter()
        .filter(|letter| !known.contains(&letter.dlq_id))
        .collect();
    new.reverse();
    known.extend(new.iter().map(|letter| letter.dlq_id.clone()));
    let surplus = known.len().saturating_sub(KNOWN_MAX);
    known.drain(..surplus);
    new
}

/// How many there are, in a line.
fn totals(figures: &StatisticsView) -> String {
    let mut by: Vec<(&String, &u64)> = figures.messages_by_category.iter().collect();
    by.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let by: Vec<String> = by
        .into_iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    let by = if by.is_empty() {
        String::new()
    } else {
        format!(": {}", by.join(", "))
    };
    format!(
        "{} in the queue, {:.1} more an hour{by}",
        figures.total_dlq_messages, figures.dlq_growth_rate
    )
}

/// Cells in columns of fixed width.
fn line(cells: &[String; 5]) -> String {
    let cells = cells.iter().zip(COLUMNS);
    let padded = cells.map(|(cell, (_, width))| format!("{cell:<width$}"));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters(ids: &[&str]) -> Vec<wire::DeadLetter> {
        let letter = |id: &&str| wire::DeadLetter {
            dlq_id: (*id).to_owned(),
            ..wire::DeadLetter::default()
        };
        ids.iter().map(letter).collect()
    }

    #[test]
    fn each_dead_letter_is_new_once_and_the_oldest_comes_first() {
        let mut known = VecDeque::new();
        let ids = |new: Vec<wire::DeadLetter>| {
            let ids = new.into_iter().map(|letter| letter.dlq_id);
            ids.collect::<Vec<String>>()
        };
        assert_eq!(ids(fresh(letters(&["b", "a"]), &mut known)), ["a", "b"]);
        assert_eq!(ids(fresh(letters(&["c", "b", "a"]), &mut known)), ["c"]);
        assert!(fresh(letters(&["c"]), &mut known).is_empty());
    }

    #[test]
    fn totals_name_the_commonest_category_first() {
        let count = |name: &str, count| wire::NamedCount {
            name: name.to_owned(),
            count,
        };
        let figures = wire::GetDeadLetterStatisticsResponse {
            total: 3,
            growth_per_hour: 2.0,
            by_category: vec![count("a", 1), count("timeout", 2)],
            ..wire::GetDeadLetterStatisticsResponse::default()
        };
        let text = totals(&figures.into());
        assert_eq!(text, "3 in the queue, 2.0 more an hour: timeout 2, a 1");
    }
}
