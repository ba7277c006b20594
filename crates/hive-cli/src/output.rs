//! The one place that prints: results on stdout as a table, JSON or JSON lines, the rest on stderr.
//!
//! Results and nothing else go to stdout, so that every command can stand in a pipe. Progress bars
//! and colours appear only where a person looks: when stderr is a terminal.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use clap::ValueEnum;
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::Value;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// One indented JSON document.
    Json,
    /// One JSON object per line.
    Jsonl,
}

/// Something that can be a row of a table and a JSON object.
pub(crate) trait Show: Serialize {
    /// Titles of the columns.
    const COLUMNS: &'static [&'static str];

    /// One text per column.
    fn cells(&self) -> Vec<String>;

    /// How the cell in this column stands out, where a person looks.
    fn tone(&self, column: usize) -> Option<Tone> {
        let _plain = column;
        None
    }
}

/// How a cell stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// All is well.
    Good,
    /// Somebody should look.
    Attention,
    /// It is broken.
    Bad,
    /// Not worth a look.
    Faint,
}

impl Tone {
    const fn colour(self) -> Color {
        match self {
            Self::Good => Color::Green,
            Self::Attention => Color::Yellow,
            Self::Bad => Color::Red,
            Self::Faint => Color::DarkGrey,
        }
    }
}

/// Where results go, and in which form.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    format: Format,
}

impl Output {
    /// Prints in this format.
    pub(crate) fn new(format: Format) -> Self {
        Self { format }
    }

    /// The format asked for.
    pub(crate) fn format(self) -> Format {
        self.format
    }

    /// Prints a list: a table with a row per item, a JSON array, or a line per item.
    pub(crate) fn list<T: Show>(self, items: &[T]) -> anyhow::Result<()> {
        match self.format {
            Format::Table => {
                let is_plain = std::env::var_os("NO_COLOR").is_some();
                let cell = |item: &T, (column, text): (usize, String)| {
                    let tone = item.tone(column).filter(|_| !is_plain);
                    match tone {
                        Some(tone) => Cell::new(text).fg(tone.colour()),
                        None => Cell::new(text),
                    }
                };
                let row = |item: &T| {
                    let cells = item.cells().into_iter().enumerate();
                    cells.map(|one| cell(item, one)).collect::<Vec<Cell>>()
                };
                self.text(&laid_out(T::COLUMNS, items.iter().map(row)))
            },
            Format::Json => self.text(&serde_json::to_string_pretty(items)?),
            Format::Jsonl => {
                for item in items {
                    self.text(&serde_json::to_string(item)?)?;
                }
                Ok(())
            },
        }
    }

    /// Prints one thing: a table with a row per field, or a JSON object.
    pub(crate) fn item<T: Serialize>(self, item: &T) -> anyhow::Result<()> {
        match self.format {
            Format::Table => {
                let mut rows = Vec::new();
                if let Value::Object(fields) = serde_json::to_value(item)? {
                    flatten("", &fields, &mut rows);
                }
                self.text(&table(&["FIELD", "VALUE"], &rows))
            },
            Format::Json => self.text(&serde_json::to_string_pretty(item)?),
            Format::Jsonl => self.text(&serde_json::to_string(item)?),
        }
    }

    /// Prints text as it is, and a line end.
    pub(crate) fn text(self, text: &str) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()?;
        Ok(())
    }

    /// Prints what an action did, for people; JSON formats get `item` instead.
    pub(crate) fn done<T: Serialize>(self, text: &str, item: &T) -> anyhow::Result<()> {
        match self.format {
            Format::Table => self.text(text),
            Format::Json | Format::Jsonl => self.item(item),
        }
    }
}

/// A note for the person at the terminal, on stderr. A closed stderr is nobody's failure.
pub(crate) fn note(text: &str) {
    let mut err = io::stderr().lock();
    if err.write_all(format!("{text}\n").as_bytes()).is_ok() {
        drop(err.flush());
    }
}

/// Bytes of a program's stderr, as they are, on ours.
pub(crate) fn pass_through(bytes: &[u8]) {
    let mut err = io::stderr().lock();
    if err.write_all(bytes).is_ok() {
        drop(err.flush());
    }
}

/// A line of a child's log on stderr, with the child's name before it.
pub(crate) fn log_line(name: &str, line: &str) {
    if is_coloured() {
        note(&format!("\u{1b}[2m{name:>11} |\u{1b}[0m {line}"));
    } else {
        note(&format!("{name:>11} | {line}"));
    }
}

/// A line of a local worker on stderr, with the worker's name before it.
pub(crate) fn worker_line(name: &str, line: &str) {
    if is_coloured() {
        note(&format!("\u{1b}[2m[{name}]\u{1b}[0m {line}"));
    } else {
        note(&format!("[{name}] {line}"));
    }
}

/// Whether stderr takes colours: a terminal, and `NO_COLOR` is not set.
fn is_coloured() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// A progress bar on stderr; invisible when stderr is no terminal. `total` 0 means unknown.
pub(crate) fn progress(total: u64, what: &str) -> ProgressBar {
    let target = if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let (bar, template) = if total == 0 {
        (
            ProgressBar::no_length(),
            "{spinner} {human_pos} {msg} ({per_sec}, {elapsed})",
        )
    } else {
        (
            ProgressBar::new(total),
            "{bar:30} {human_pos}/{human_len} {msg} ({per_sec}, {eta})",
        )
    };
    bar.set_draw_target(target);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A table for people, without lines between the rows.
pub(crate) fn table<C: AsRef<str>>(columns: &[&str], rows: &[Vec<C>]) -> String {
    let cells = |row: &Vec<C>| row.iter().map(|text| Cell::new(text.as_ref())).collect();
    laid_out(columns, rows.iter().map(cells))
}

/// A table of cells, coloured where stdout is a terminal.
fn laid_out(columns: &[&str], rows: impl Iterator<Item = Vec<Cell>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(columns);
    for row in rows {
        table.add_row(row);
    }
    let lines = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect::<Vec<_>>();
    lines.join("\n")
}

/// Adds a row per field, with the path of a nested one; lists of plain values share a cell.
fn flatten(path: &str, fields: &serde_json::Map<String, Value>, rows: &mut Vec<Vec<String>>) {
    for (name, value) in fields {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        match value {
            Value::Object(inner) => flatten(&path, inner, rows),
            Value::Null => rows.push(vec![path, "-".to_owned()]),
            Value::String(text) => rows.push(vec![path, text.clone()]),
            Value::Array(items) => {
                let items = items.iter().map(plain).collect::<Vec<_>>();
                rows.push(vec![path, items.join(", ")]);
            },
            Value::Bool(_) | Value::Number(_) => rows.push(vec![path, value.to_string()]),
        }
    }
}

/// A JSON value as a person would write it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_for_its_titles_and_one_per_row() {
        let text = table(&["A", "B"], &[vec!["1", "2"], vec!["3", "4"]]);
        let lines = text.lines().collect::<Vec<_>>();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].contains('A') && lines[2].contains('4'));
    }

    #[test]
    fn nested_fields_become_rows_with_their_path() {
        let Value::Object(fields) = serde_json::json!({"a": {"b": 1}, "c": ["x", "y"]}) else {
            panic!("an object")
        };
        let mut rows = Vec::new();
        flatten("", &fields, &mut rows);
        assert_eq!(rows, [vec!["a.b", "1"], vec!["c", "x, y"]]);
    }
}
