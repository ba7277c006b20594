//! The metrics of `hive-dlq`; those of the chassis come with it.

use hive_runtime::metrics::{Counter, Gauge, MetricDef, MetricKind, Unit};

/// Calls that no service takes.
const REFUSED: MetricDef = MetricDef {
    name: "hive_dlq_calls_refused_total",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    help: "Calls answered UNIMPLEMENTED because this build has no dead-letter service",
    labels: &[],
};

/// Whether Redis holds other data than was known.
const DATASET_CHANGED: MetricDef = MetricDef {
    name: "hive_dataset_changed",
    kind: MetricKind::Gauge,
    unit: Unit::Count,
    help: "1 while Redis holds other data than this daemon knew and nothing is served, else 0",
    labels: &[],
};

/// Every metric of this daemon.
pub const TABLE: &[MetricDef] = &[REFUSED, DATASET_CHANGED];

/// Counts calls that no service takes.
#[must_use]
pub fn refused() -> Counter {
    Counter::new(&REFUSED, &[])
}

/// Says whether Redis holds other data than was known.
pub fn dataset_changed(is_changed: bool) {
    Gauge::new(&DATASET_CHANGED, &[]).set(f64::from(u8::from(is_changed)));
}
