//! Metrics of things that come and go, such as groups: all their series are replaced together.
//!
//! What is gone is gone at the next scrape, and the series of one thing are of one reading. The
//! recorder can do neither: a series that it knows stays for the life of the process.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, LazyLock},
};

use parking_lot::Mutex;

use super::{MetricDef, MetricKind};

/// The rows that a scrape of this process shows.
static SHOWN: LazyLock<Mutex<Vec<Box<dyn Shown>>>> = LazyLock::new(Mutex::default);

/// What a scrape shows beside what the recorder knows.
trait Shown: Send + Sync {
    /// Appends all series in the text format of Prometheus.
    fn render(&self, text: &mut String);
}

/// The values of one thing, in the order of the declarations; none where it has no such value.
pub type Values<const N: usize> = [Option<f64>; N];

/// `N` metrics with the same labels, and a row of values for each thing that there is now. Cheap to
/// clone.
#[derive(Debug, Clone)]
pub struct Rows<const N: usize> {
    defs: &'static [MetricDef; N],
    rows: Arc<Mutex<BTreeMap<Vec<String>, Values<N>>>>,
}

impl<const N: usize> Rows<N> {
    /// No rows yet; shown by every scrape of this process from now on. The declarations are a table
    /// of the daemon, too.
    #[must_use]
    pub fn shown(defs: &'static [MetricDef; N]) -> Self {
        let rows = Self::new(defs);
        SHOWN.lock().push(Box::new(rows.clone()));
        rows
    }

    fn new(defs: &'static [MetricDef; N]) -> Self {
        let labels = defs.first().map(|def| def.labels).unwrap_or_default();
        for def in defs {
            assert!(
                def.labels == labels && matches!(def.kind, MetricKind::Gauge | MetricKind::Total),
                "metric `{}` has other labels than its row, or is no gauge and no total",
                def.name
            );
        }
        Self {
            defs,
            rows: Arc::default(),
        }
    }

    /// Sets the values of one thing. `labels` and `values` are in the order of the declarations.
    pub fn set(&self, labels: &[&str], values: Values<N>) {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        self.rows.lock().insert(labels, values);
    }

    /// Forgets the things for which `is_there` says no.
    pub fn keep(&self, mut is_there: impl FnMut(&[String]) -> bool) {
        self.rows.lock().retain(|labels, _| is_there(labels));
    }
}

impl<const N: usize> Shown for Rows<N> {
    fn render(&self, text: &mut String) {
        let rows = self.rows.lock();
        for (place, def) in self.defs.iter().enumerate() {
            let (name, help) = (def.name, def.help);
            // Writing to a string does not fail.
            let _ok = writeln!(text, "# HELP {name} {help}");
            let _ok = writeln!(text, "# TYPE {name} {}", def.kind.name());
            for (labels, values) in &*rows {
                let Some(value) = values.get(place).copied().flatten() else {
                    continue;
                };
                text.push_str(name);
                for (number, (label, value)) in def.labels.iter().zip(labels).enumerate() {
                    let before = if number == 0 { '{' } else { ',' };
                    let value = Escaped(value);
                    let _ok = write!(text, "{before}{}=\"{value}\"", label.name);
                }
                let end = if labels.is_empty() { "" } else { "}" };
                let _ok = writeln!(text, "{end} {value}");
            }
            text.push('\n');
        }
    }
}

/// Appends what every set of rows of this process shows.
pub(super) fn render(text: &mut String) {
    for rows in &*SHOWN.lock() {
        rows.render(text);
    }
}

/// The value of a label as the text format wants it.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Label, Unit};

    const LABELS: &[Label] = &[Label::open("namespace"), Label::open("group")];
    const LAG: MetricDef = MetricDef {
        name: "hive_test_lag",
        kind: MetricKind::Gauge,
        unit: Unit::Count,
        help: "Waiting",
        labels: LABELS,
    };
    const DONE: MetricDef = MetricDef {
        name: "hive_test_done_total",
        kind: MetricKind::Total,
        unit: Unit::Count,
        help: "Done",
        labels: LABELS,
    };

    fn text<const N: usize>(rows: &Rows<N>) -> String {
        let mut text = String::new();
        rows.render(&mut text);
        text
    }

    #[test]
    fn what_is_gone_is_shown_no_more() {
        let rows = Rows::new(&[LAG, DONE]);
        rows.set(&["default", "b"], [Some(3.0), Some(7.0)]);
        rows.set(&["default", "a\"\\"], [Some(0.5), None]);
        assert_eq!(
            text(&rows),
            "# HELP hive_test_lag Waiting\n# TYPE hive_test_lag gauge\n\
             hive_test_lag{namespace=\"default\",group=\"a\\\"\\\\\"} 0.5\n\
             hive_test_lag{namespace=\"default\",group=\"b\"} 3\n\n\
             # HELP hive_test_done_total Done\n# TYPE hive_test_done_total counter\n\
             hive_test_done_total{namespace=\"default\",group=\"b\"} 7\n\n"
        );
        rows.keep(|labels| labels.last().is_some_and(|group| group != "b"));
        assert!(!text(&rows).contains("group=\"b\""));
        rows.set(&["default", "a\"\\"], [Some(4.0), Some(1.0)]);
        assert!(text(&rows).contains("hive_test_done_total{namespace=\"default\",group=\"a"));
    }

    #[test]
    fn what_is_shown_is_in_a_scrape() {
        let rows = Rows::shown(&[LAG]);
        rows.set(&["default", "shown"], [Some(1.0)]);
        let mut all = String::new();
        render(&mut all);
        assert!(all.contains("hive_test_lag{namespace=\"default\",group=\"shown\"} 1\n"));
    }
}
