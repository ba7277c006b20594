//! The metrics that every daemon has: its build, its process, its tasks.

use super::Label;
use super::MetricDef;
use super::MetricKind;
use super::Unit;

const KINDS: Label = Label::of("kind", &["server", "loop", "request", "background"]);

/// Which build this is.
pub const BUILD_INFO: MetricDef = MetricDef {
    name: "hive_build_info",
    kind: MetricKind::Gauge,
    unit: Unit::Count,
    help: "Always 1; the labels say which daemon this is and in which version",
    labels: &[Label::open("daemon"), Label::open("version")],
};

/// When the process started.
pub const START_TIME: MetricDef = MetricDef {
    name: "hive_process_start_time_seconds",
    kind: MetricKind::Gauge,
    unit: Unit::Seconds,
    help: "When the process started, in seconds since 1970",
    labels: &[],
};

/// Age of the process.
pub const UPTIME: MetricDef = MetricDef {
    name: "hive_process_uptime_seconds",
    kind: MetricKind::Gauge,
    unit: Unit::Seconds,
    help: "How long the process has been running",
    labels: &[],
};

/// Processor time.
pub const CPU: MetricDef = MetricDef {
    name: "hive_process_cpu_seconds_total",
    kind: MetricKind::Total,
    unit: Unit::Seconds,
    help: "Processor time of the process in user and kernel mode",
    labels: &[],
};

/// Memory.
pub const RESIDENT: MetricDef = MetricDef {
    name: "hive_process_resident_memory_bytes",
    kind: MetricKind::Gauge,
    unit: Unit::Bytes,
    help: "Memory of the process that is in RAM",
    labels: &[],
};

/// File descriptors.
pub const OPEN_FILES: MetricDef = MetricDef {
    name: "hive_process_open_files",
    kind: MetricKind::Gauge,
    unit: Unit::Count,
    help: "File descriptors that the process holds open, connections included",
    labels: &[],
};

/// Tasks that run.
pub const TASKS_RUNNING: MetricDef = MetricDef {
    name: "hive_tasks_running",
    kind: MetricKind::Gauge,
    unit: Unit::Count,
    help: "Tasks that run inside the daemon",
    labels: &[KINDS],
};

/// Tasks that failed.
pub const TASK_FAILURES: MetricDef = MetricDef {
    name: "hive_task_failures_total",
    kind: MetricKind::Counter,
    unit: Unit::Count,
    help: "Tasks inside the daemon that ended with an error or a panic",
    labels: &[KINDS],
};

/// Readiness.
pub const READY: MetricDef = MetricDef {
    name: "hive_ready",
    kind: MetricKind::Gauge,
    unit: Unit::Count,
    help: "1 while every part of the daemon is ready, 0 otherwise",
    labels: &[],
};

/// Every metric of the chassis.
pub const TABLE: &[MetricDef] = &[
    BUILD_INFO,
    START_TIME,
    UPTIME,
    CPU,
    RESIDENT,
    OPEN_FILES,
    TASKS_RUNNING,
    TASK_FAILURES,
    READY,
];
