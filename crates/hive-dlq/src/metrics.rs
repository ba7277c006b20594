//! The metrics of `hive-dlq`; those of the chassis come with it.

use hive_domain::dead_letter::category::Category;
use hive_runtime::metrics::{Counter, Gauge, Histogram, Label, MetricDef, MetricKind, Unit};

const LOOPS: Label = Label::of("loop", &["beat", "intake", "namespace", "cleanup"]);
const CATEGORIES: Label = Label::of(
    "category",
    &[
        "timeout",
        "parsing_error",
        "validation_error",
        "network_error",
        "resource_exhaustion",
        "rate_limited",
        "dependency_failure",
        "authentication_error",
        "budget_exhausted",
        "handler_exception",
        "expired",
        "cancelled",
        "no_capable_consumer",
        "unknown",
    ],
);
const BY: Label = Label::of("by", &["recovery", "job", "person"]);
const WHY: Label = Label::of("why", &["old", "room", "purge"]);

const INTAKE_SECONDS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0];

const fn counter(name: &'static str, help: &'static str, labels: &'static [Label]) -> MetricDef {
    MetricDef {
        name,
        kind: MetricKind::Counter,
        unit: Unit::Count,
        help,
        labels,
    }
}

const fn gauge(name: &'static str, help: &'static str) -> MetricDef {
    MetricDef {
        name,
        kind: MetricKind::Gauge,
        unit: Unit::Count,
        help,
        labels: &[],
    }
}

const TAKEN: MetricDef = counter(
    "hive_dead_letters_taken_total",
    "Dead letters taken over from their shards",
    &[CATEGORIES],
);
const TAKEN_AFTER: MetricDef = MetricDef {
    name: "hive_dead_letter_intake_seconds",
    kind: MetricKind::Histogram {
        buckets: INTAKE_SECONDS,
    },
    unit: Unit::Seconds,
    help: "From the death of a message to its record",
    labels: &[],
};
const REPLAYED: MetricDef = counter(
    "hive_dead_letters_replayed_total",
    "Dead letters sent back",
    &[BY],
);
const REMOVED: MetricDef = counter(
    "hive_dead_letters_removed_total",
    "Records removed: the old, those that made room, those that a person purged",
    &[WHY],
);
const INTAKE_FULL: MetricDef = counter(
    "hive_dead_letters_full_total",
    "Looks at a shard that took nothing over because all records are in the queue; what died \
     waits in its shard",
    &[],
);
const ARCHIVE_FAILED: MetricDef = counter(
    "hive_dead_letters_archive_failures_total",
    "Batches of records that were not written to the archive, and so not removed",
    &[],
);
const BREAKERS_OPENED: MetricDef = counter(
    "hive_dead_letter_breakers_opened_total",
    "Times that the breaker of a group opened, or opened again after a probe",
    &[],
);
const LIVE: MetricDef = gauge(
    "hive_dead_letters",
    "Dead letters in the queue, of the namespaces that this replica looks after",
);
const BREAKERS: MetricDef = gauge(
    "hive_dead_letter_breakers_open",
    "Groups whose breaker is not closed, of the namespaces that this replica looks after",
);
const ROUND_FAILURES: MetricDef = counter(
    "hive_dlq_loop_failures_total",
    "Rounds of a loop that ended with an error; the next round tries again",
    &[LOOPS],
);
const DATASET_CHANGED: MetricDef = gauge(
    "hive_dataset_changed",
    "1 while Redis holds other data than this daemon knew and nothing is served, else 0",
);

/// Every metric of this daemon.
pub const TABLE: &[MetricDef] = &[
    TAKEN,
    TAKEN_AFTER,
    REPLAYED,
    REMOVED,
    INTAKE_FULL,
    ARCHIVE_FAILED,
    BREAKERS_OPENED,
    LIVE,
    BREAKERS,
    ROUND_FAILURES,
    DATASET_CHANGED,
];

/// A loop of the daemon.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Loop {
    /// Definitions and owners.
    Beat,
    /// What died in a shard.
    Intake,
    /// Recovery, jobs and outcomes of a namespace.
    Namespace,
    /// What is old.
    Cleanup,
}

/// Who sent a dead letter back.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Replayed {
    /// Recovery.
    Automatic,
    /// A job.
    Job,
    /// A person.
    Single,
}

/// Why records were removed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Removed {
    /// Their time was over.
    Old,
    /// Others needed the room.
    ForRoom,
    /// A person said so.
    Purged,
}

/// One more was taken over, so many ms after its death.
pub(crate) fn taken(category: Category, after_ms: u64) {
    Counter::new(&TAKEN, &[category.as_str()]).increment(1);
    Histogram::new(&TAKEN_AFTER, &[])
        .record(std::time::Duration::from_millis(after_ms).as_secs_f64());
}

/// One more was sent back.
pub(crate) fn replayed(by: Replayed) {
    let by = match by {
        Replayed::Automatic => "recovery",
        Replayed::Job => "job",
        Replayed::Single => "person",
    };
    Counter::new(&REPLAYED, &[by]).increment(1);
}

/// So many records are gone.
pub(crate) fn removed(why: Removed, count: u64) {
    let why = match why {
        Removed::Old => "old",
        Removed::ForRoom => "room",
        Removed::Purged => "purge",
    };
    Counter::new(&REMOVED, &[why]).increment(count);
}

/// Nothing was taken over for want of room.
pub(crate) fn intake_full() {
    Counter::new(&INTAKE_FULL, &[]).increment(1);
}

/// A batch was not archived.
pub(crate) fn archive_failed() {
    Counter::new(&ARCHIVE_FAILED, &[]).increment(1);
}

/// A breaker opened.
pub(crate) fn breaker_opened() {
    Counter::new(&BREAKERS_OPENED, &[]).increment(1);
}

/// What this replica looks after: dead letters in the queue, and breakers that are not closed.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
pub(crate) fn looked_after(live: u64, breakers: u64) {
    Gauge::new(&LIVE, &[]).set(live as f64);
    Gauge::new(&BREAKERS, &[]).set(breakers as f64);
}

/// A round of a loop failed.
pub(crate) fn round_failed(of: Loop) {
    let name = match of {
        Loop::Beat => "beat",
        Loop::Intake => "intake",
        Loop::Namespace => "namespace",
        Loop::Cleanup => "cleanup",
    };
    Counter::new(&ROUND_FAILURES, &[name]).increment(1);
}

/// Says whether Redis holds other data than was known.
pub fn dataset_changed(is_changed: bool) {
    Gauge::new(&DATASET_CHANGED, &[]).set(f64::from(u8::from(is_changed)));
}
