//! Metrics: declared in tables of constants, built only from them, all at zero from the start.
//!
//! A name that stands in one place can be documented, drawn and alerted on by name, with a test
//! that holds these together. A series that appears only with its first event breaks `rate()` and
//! hides that nothing happened; so every series whose labels are known is registered at start.
//! Series with an open label (a group's name) appear when the daemon first learns of the value;
//! those of things that go away again are [`Rows`].

pub mod chassis;
mod process;
mod rows;

use std::fmt::Write as _;

use metrics::{Key, Level, Metadata, Recorder, Unit as MetricUnit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

pub use rows::{Rows, Values};

/// The declaration of a metric.
#[derive(Debug, Clone, Copy)]
pub struct MetricDef {
    /// `hive_<thing>_<unit|total>`.
    pub name: &'static str,
    /// How it moves.
    pub kind: MetricKind,
    /// What is counted.
    pub unit: Unit,
    /// One sentence without a full stop: what it means, and when it moves.
    pub help: &'static str,
    /// Its labels, in the order in which instruments give their values.
    pub labels: &'static [Label],
}

/// How a metric moves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MetricKind {
    /// Only up.
    Counter,
    /// Only up, and counted elsewhere (in Redis, by the kernel): told by [`Rows`] as it was read.
    Total,
    /// Up and down.
    Gauge,
    /// A distribution.
    Histogram {
        /// Upper bounds of the buckets, rising; the last, infinite one is added.
        buckets: &'static [f64],
    },
}

/// What a metric counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// A share between 0 and 1.
    Ratio,
}

/// A label and the values that it can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// Name of the label.
    pub name: &'static str,
    /// All its values; empty when they are known only at run time and bounded elsewhere.
    pub values: &'static [&'static str],
}

impl Label {
    /// A label whose values are all known.
    #[must_use]
    pub const fn of(name: &'static str, values: &'static [&'static str]) -> Self {
        Self { name, values }
    }

    /// A label whose values are known at run time and bounded by an admission limit, such as a
    /// group's name. Never an id.
    #[must_use]
    pub const fn open(name: &'static str) -> Self {
        Self { name, values: &[] }
    }
}

impl Unit {
    /// The unit in the words of the reference.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::Ratio => "ratio",
        }
    }

    const fn of_recorder(self) -> MetricUnit {
        match self {
            Self::Count | Self::Ratio => MetricUnit::Count,
            Self::Seconds => MetricUnit::Seconds,
            Self::Bytes => MetricUnit::Bytes,
        }
    }
}

impl MetricKind {
    /// The kind in the words of Prometheus.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter | Self::Total => "counter",
            Self::Gauge => "gauge",
            Self::Histogram { .. } => "histogram",
        }
    }
}

const METADATA: Metadata<'static> = Metadata::new("hive", Level::INFO, None);

/// The series of `def` with these label values, in the order of its labels.
fn key(def: &'static MetricDef, values: &[&str]) -> Key {
    assert!(
        def.labels.len() == values.len(),
        "metric `{}` has {} labels and was given {} values",
        def.name,
        def.labels.len(),
        values.len()
    );
    let label =
        |(label, value): (&Label, &&str)| metrics::Label::new(label.name, (*value).to_owned());
    Key::from_parts(
        def.name,
        def.labels.iter().zip(values).map(label).collect::<Vec<_>>(),
    )
}

macro_rules! instrument {
    ($(#[$doc:meta])* $name:ident, $kind:pat, $register:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(metrics::$name);

        impl $name {
            /// The series of `def` with these label values, in the order of its labels. Keep it
            /// where it is used often: finding a series costs a hash of its labels.
            #[must_use]
            pub fn new(def: &'static MetricDef, values: &[&str]) -> Self {
                assert!(
                    matches!(def.kind, $kind),
                    "metric `{}` is declared as a {}",
                    def.name,
                    def.kind.name()
                );
                let key = key(def, values);
                Self(metrics::with_recorder(|recorder| recorder.$register(&key, &METADATA)))
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    };
}

instrument! {
    /// A series that only rises.
    Counter, MetricKind::Counter, register_counter
}
instrument! {
    /// A series that rises and falls.
    Gauge, MetricKind::Gauge, register_gauge
}
instrument! {
    /// A series of observations.
    Histogram, MetricKind::Histogram { .. }, register_histogram
}

impl Counter {
    /// Adds `by`.
    pub fn increment(&self, by: u64) {
        self.0.increment(by);
    }

    /// Sets the total, for a count that is kept elsewhere. Never falls.
    pub fn absolute(&self, total: u64) {
        self.0.absolute(total);
    }
}

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: f64) {
        self.0.set(value);
    }

    /// Adds `by`, which may be negative.
    pub fn add(&self, by: f64) {
        self.0.increment(by);
    }
}

impl Histogram {
    /// Adds an observation, in the unit of the declaration.
    pub fn record(&self, value: f64) {
        self.0.record(value);
    }
}

/// Gives the metrics of this process as Prometheus reads them. Cheap to clone.
#[derive(Clone)]
pub struct Scrape {
    handle: PrometheusHandle,
}

/// The metrics of the process were installed before.
#[derive(Debug, thiserror::Error)]
#[error("the metrics of this process are already installed")]
pub struct AlreadyInstalled;

impl Scrape {
    /// Makes the metrics of `tables` and of the chassis those of this process.
    ///
    /// # Errors
    /// When this was done before.
    pub fn install(tables: &[&'static [MetricDef]]) -> Result<Self, AlreadyInstalled> {
        let recorder = builder(tables).build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|_taken| AlreadyInstalled)?;
        metrics::with_recorder(|recorder| register(recorder, tables));
        process::record_start();
        Ok(Self { handle })
    }

    /// The metrics of `tables`, all at zero for ever, for a chassis inside a test: a process has
    /// only one set of metrics, a test process many daemons.
    #[must_use]
    pub fn detached(tables: &[&'static [MetricDef]]) -> Self {
        let recorder = builder(tables).build_recorder();
        register(&recorder, tables);
        Self {
            handle: recorder.handle(),
        }
    }

    /// All series in the text format of Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        process::record();
        let mut text = self.handle.render();
        rows::render(&mut text);
        text
    }

    /// Folds observations into their buckets; without it they pile up until the next scrape.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

impl std::fmt::Debug for Scrape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scrape")
    }
}

fn all(tables: &[&'static [MetricDef]]) -> impl Iterator<Item = &'static MetricDef> {
    chassis::TABLE
        .iter()
        .chain(tables.iter().flat_map(|table| table.iter()))
}

fn builder(tables: &[&'static [MetricDef]]) -> PrometheusBuilder {
    let mut builder = PrometheusBuilder::new();
    for def in all(tables) {
        if let MetricKind::Histogram { buckets } = def.kind {
            let name = Matcher::Full(def.name.to_owned());
            builder = builder
                .set_buckets_for_metric(name, buckets)
                .expect("a declared histogram has at least one bucket");
        }
    }
    builder
}

/// Describes every metric, and registers every series whose labels are known.
fn register(recorder: &dyn Recorder, tables: &[&'static [MetricDef]]) {
    for def in all(tables) {
        let (unit, help) = (Some(def.unit.of_recorder()), def.help.into());
        match def.kind {
            MetricKind::Total => continue,
            MetricKind::Counter => recorder.describe_counter(def.name.into(), unit, help),
            MetricKind::Gauge => recorder.describe_gauge(def.name.into(), unit, help),
            MetricKind::Histogram { .. } => {
                recorder.describe_histogram(def.name.into(), unit, help);
            },
        }
        for values in known_series(def.labels) {
            let key = key(def, &values);
            match def.kind {
                MetricKind::Total => {},
                MetricKind::Counter => recorder.register_counter(&key, &METADATA).increment(0),
                MetricKind::Gauge => recorder.register_gauge(&key, &METADATA).set(0.0),
                MetricKind::Histogram { .. } => {
                    drop(recorder.register_histogram(&key, &METADATA));
                },
            }
        }
    }
}

/// Every combination of label values; none as soon as one label is open.
fn known_series(labels: &[Label]) -> Vec<Vec<&'static str>> {
    labels.iter().fold(vec![Vec::new()], |series, label| {
        let mut longer = Vec::with_capacity(series.len() * label.values.len());
        for values in &series {
            for value in label.values {
                let mut values = values.clone();
                values.push(*value);
                longer.push(values);
            }
        }
        longer
    })
}

/// The rows of the metric reference: a Markdown table of every metric of `tables`.
#[must_use]
pub fn reference(tables: &[&[MetricDef]]) -> String {
    let mut text = "| Name | Kind | Unit | Labels | Meaning |\n|---|---|---|---|---|\n".to_owned();
    for def in tables.iter().flat_map(|table| table.iter()) {
        let labels: Vec<_> = def
            .labels
            .iter()
            .map(|label| format!("`{}`", label.name))
            .collect();
        writeln!(
            text,
            "| `{}` | {} | {} | {} | {} |",
            def.name,
            def.kind.name(),
            def.unit.name(),
            labels.join(", "),
            def.help
        )
        .expect("writing to a string does not fail");
    }
    text
}

#[cfg(test)]
mod tests;
