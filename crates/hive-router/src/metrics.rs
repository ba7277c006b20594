//! The metrics of `hive-router`; those of the chassis come with it.

use hive_domain::workflow::{Illegal, RunStatus};
use hive_runtime::metrics::{Counter, Gauge, Label, MetricDef, MetricKind, Unit};
use hive_store::StoreError;

const LOOPS: Label = Label::of(
    "loop",
    &["beat", "settled", "outbox", "timers", "audit", "retention"],
);
const ENDS: Label = Label::of("status", &["succeeded", "failed", "cancelled"]);
const REFUSALS: Label = Label::of("reason", &["full", "group_gone", "late"]);
const ILLEGAL: Label = Label::of("reason", &["stale", "final", "other"]);
const REPAIRS: Label = Label::of(
    "kind",
    &["lost_dispatch", "lost_start", "lost_outcome", "stuck"],
);

const fn counter(name: &'static str, help: &'static str, labels: &'static [Label]) -> MetricDef {
    MetricDef {
        name,
        kind: MetricKind::Counter,
        unit: Unit::Count,
        help,
        labels,
    }
}

const STEPS: MetricDef = counter("hive_workflow_steps_total", "Steps of runs written", &[]);
const CONFLICTS: MetricDef = counter(
    "hive_workflow_step_conflicts_total",
    "Steps worked out again because another router had changed the run",
    &[],
);
const RUNS_STARTED: MetricDef = counter("hive_workflow_runs_started_total", "Runs started", &[]);
const RUNS_ENDED: MetricDef = counter("hive_workflow_runs_ended_total", "Runs ended", &[ENDS]);
const DISPATCHED: MetricDef = counter(
    "hive_workflow_tasks_dispatched_total",
    "Attempts of tasks added to the lanes of their groups",
    &[],
);
const REFUSED: MetricDef = counter(
    "hive_workflow_dispatches_refused_total",
    "Dispatches that a shard refused; they stay in the outbox and are tried again",
    &[REFUSALS],
);
const NOT_CARRIED_OUT: MetricDef = counter(
    "hive_workflow_carry_out_failures_total",
    "Calls to shards that failed; what they were for stays in the outbox",
    &[],
);
const ILLEGAL_EVENTS: MetricDef = counter(
    "hive_workflow_events_ignored_total",
    "Records of shards and other events that changed nothing: of an old attempt, of a task or run \
     that had ended, or not legal otherwise",
    &[ILLEGAL],
);
const UNKNOWN_RUNS: MetricDef = counter(
    "hive_workflow_records_unknown_total",
    "Records of shards about runs that are gone",
    &[],
);
const UNDECODABLE: MetricDef = counter(
    "hive_workflow_undecodable_total",
    "Stored runs and records that do not decode; each is in the log",
    &[],
);
const REPAIRED: MetricDef = counter(
    "hive_workflow_repairs_total",
    "Tasks and runs that could not move and were repaired; each means that data was lost, or a \
     fault in this system",
    &[REPAIRS],
);
const ROUND_FAILURES: MetricDef = counter(
    "hive_router_loop_failures_total",
    "Rounds of a loop that ended with an error; the next round tries again",
    &[LOOPS],
);
const OWNED: MetricDef = MetricDef {
    name: "hive_router_owned_partitions",
    kind: MetricKind::Gauge,
    unit: Unit::Count,
    help: "Partitions of workflows that this replica looks after",
    labels: &[],
};
const DATASET_CHANGED: MetricDef = MetricDef {
    name: "hive_dataset_changed",
    kind: MetricKind::Gauge,
    unit: Unit::Count,
    help: "1 while Redis holds other data than this daemon knew and nothing is served, else 0",
    labels: &[],
};

/// Every metric of this daemon.
pub const TABLE: &[MetricDef] = &[
    STEPS,
    CONFLICTS,
    RUNS_STARTED,
    RUNS_ENDED,
    DISPATCHED,
    REFUSED,
    NOT_CARRIED_OUT,
    ILLEGAL_EVENTS,
    UNKNOWN_RUNS,
    UNDECODABLE,
    REPAIRED,
    ROUND_FAILURES,
    OWNED,
    DATASET_CHANGED,
];

/// A loop of the router.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Loop {
    /// Definitions and owners.
    Beat,
    /// Records of shards.
    Settled,
    /// Outboxes that others left.
    Outbox,
    /// Runs whose time has come.
    Timers,
    /// The reconciler and the auditor.
    Audit,
    /// Runs that ended long ago.
    Retention,
}

impl Loop {
    const fn name(self) -> &'static str {
        match self {
            Self::Beat => "beat",
            Self::Settled => "settled",
            Self::Outbox => "outbox",
            Self::Timers => "timers",
            Self::Audit => "audit",
            Self::Retention => "retention",
        }
    }
}

/// Why a shard refused a dispatch.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refusal {
    /// The stream has as many unsettled messages as it may.
    Full,
    /// The group is gone.
    GroupGone,
    /// The router took too long.
    Late,
}

/// What was repaired.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Repair {
    /// A shard did not know a dispatch.
    LostDispatch,
    /// A shard had given an attempt to an agent, and no router had applied that.
    LostStart,
    /// A shard had an outcome that no router had applied.
    LostOutcome,
    /// Nothing moved a run that goes on.
    Stuck,
}

pub(crate) fn step_written() {
    Counter::new(&STEPS, &[]).increment(1);
}

pub(crate) fn step_conflict() {
    Counter::new(&CONFLICTS, &[]).increment(1);
}

pub(crate) fn run_started() {
    Counter::new(&RUNS_STARTED, &[]).increment(1);
}

pub(crate) fn run_ended(status: RunStatus) {
    match status {
        RunStatus::Running | RunStatus::Paused => {},
        RunStatus::Succeeded | RunStatus::Failed | RunStatus::Cancelled => {
            Counter::new(&RUNS_ENDED, &[status.as_str()]).increment(1);
        },
    }
}

pub(crate) fn dispatched(count: u32) {
    Counter::new(&DISPATCHED, &[]).increment(u64::from(count));
}

pub(crate) fn refused(reason: Refusal) {
    let word = match reason {
        Refusal::Full => "full",
        Refusal::GroupGone => "group_gone",
        Refusal::Late => "late",
    };
    Counter::new(&REFUSED, &[word]).increment(1);
}

pub(crate) fn not_carried_out(error: &StoreError) {
    tracing::debug!(%error, "not_carried_out");
    Counter::new(&NOT_CARRIED_OUT, &[]).increment(1);
}

pub(crate) fn illegal_event(illegal: &Illegal) {
    let word = match illegal {
        Illegal::StaleAttempt { .. } => "stale",
        Illegal::AlreadyFinal { .. } | Illegal::RunIsFinal { .. } => "final",
        Illegal::UnknownTask { .. }
        | Illegal::NotOpen { .. }
        | Illegal::AlreadyPlaced
        | Illegal::NotQueued { .. }
        | Illegal::NotAsked
        | Illegal::NotWaitingInput { .. }
        | Illegal::NotRetryable { .. }
        | Illegal::Resolving { .. }
        | Illegal::IsEnding { .. }
        | Illegal::AlreadyPaused
        | Illegal::NotPaused
        | Illegal::NotOpenWorkflow
        | Illegal::AlreadyClosed => "other",
    };
    tracing::debug!(%illegal, "event_ignored");
    Counter::new(&ILLEGAL_EVENTS, &[word]).increment(1);
}

pub(crate) fn unknown_run(records: usize) {
    Counter::new(&UNKNOWN_RUNS, &[]).increment(u64::try_from(records).unwrap_or(u64::MAX));
}

pub(crate) fn undecodable() {
    Counter::new(&UNDECODABLE, &[]).increment(1);
}

pub(crate) fn repaired(repair: Repair) {
    let word = match repair {
        Repair::LostDispatch => "lost_dispatch",
        Repair::LostStart => "lost_start",
        Repair::LostOutcome => "lost_outcome",
        Repair::Stuck => "stuck",
    };
    Counter::new(&REPAIRED, &[word]).increment(1);
}

pub(crate) fn round_failed(of: Loop) {
    Counter::new(&ROUND_FAILURES, &[of.name()]).increment(1);
}

pub(crate) fn owned_partitions(count: usize) {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    Gauge::new(&OWNED, &[]).set(f64::from(count));
}

/// Says whether Redis holds other data than was known.
pub fn dataset_changed(is_changed: bool) {
    Gauge::new(&DATASET_CHANGED, &[]).set(f64::from(u8::from(is_changed)));
}
