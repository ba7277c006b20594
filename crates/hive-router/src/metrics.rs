//! The metrics of `hive-router`; those of the chassis come with it.

use hive_runtime::metrics::{Counter, MetricDef, MetricKind, Unit};

/// Calls that no service takes.
const REFUSED: MetricDef = MetricDef {
    name: "hive_router_calls_refused_total",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    help: "Calls answered UNIMPLEMENTED because this build has no workflow service",
    labels: &[],
};

/// Every metric of this daemon.
pub const TABLE: &[MetricDef] = &[REFUSED];

/// Counts calls that no service takes.
#[must_use]
pub fn refused() -> Counter {
    Counter::new(&REFUSED, &[])
}
