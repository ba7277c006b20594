//! Runs, tasks and events as they are printed: the names of the REST API.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hive_client::wire;
use hive_protocol::workflow;
use prost_types::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::{
    output::Show,
    values::{rfc3339, short_seconds},
};

/// Longest reason in a table, in characters.
const REASON_CHARS: usize = 80;

/// A run.
#[derive(Debug, Serialize)]
pub(super) struct RunView {
    workflow_id: String,
    run_id: String,
    state: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_at: Option<String>,
    labels: BTreeMap<String, String>,
    dependency_mode: &'static str,
    strategy: &'static str,
    max_parallel_tasks: u32,
    parallel_limit: u32,
    open: bool,
    ending: bool,
    task_counts: BTreeMap<String, u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tasks: Vec<TaskView>,
    event_id: String,
}

impl RunView {
    /// Takes the tasks out, to be shown by themselves.
    pub(super) fn take_tasks(&mut self) -> Vec<TaskView> {
        std::mem::take(&mut self.tasks)
    }
}

impl From<wire::Workflow> for RunView {
    fn from(run: wire::Workflow) -> Self {
        Self {
            state: state_word(run.state()),
            dependency_mode: workflow::dependency_mode_said(run.dependency_mode())
                .unwrap_or_default()
                .as_str(),
            strategy: workflow::strategy_said(run.strategy())
                .unwrap_or_default()
                .as_str(),
            created_at: rfc3339(run.created_at.as_ref()),
            finished_at: rfc3339(run.finished_at.as_ref()),
            deadline_at: rfc3339(run.deadline_at.as_ref()),
            tasks: run.tasks.into_iter().map(TaskView::from).collect(),
            workflow_id: run.workflow_id,
            run_id: run.run_id,
            reason: run.reason,
            labels: run.labels,
            max_parallel_tasks: run.max_parallel_tasks,
            parallel_limit: run.parallel_limit,
            open: run.open,
            ending: run.ending,
            task_counts: run.task_counts,
            event_id: run.event_id,
        }
    }
}

/// A run as a row.
#[derive(Debug, Serialize)]
pub(super) struct RunRow {
    #[serde(flatten)]
    run: RunView,
}

impl From<wire::Workflow> for RunRow {
    fn from(run: wire::Workflow) -> Self {
        Self { run: run.into() }
    }
}

impl Show for RunRow {
    const COLUMNS: &'static [&'static str] = &[
        "WORKFLOW", "RUN", "STATE", "DONE", "RUNNING", "CREATED", "FINISHED",
    ];

    fn cells(&self) -> Vec<String> {
        let counts = &self.run.task_counts;
        let of = |word: &str| counts.get(word).copied().unwrap_or_default();
        let all: u32 = counts.values().sum();
        let dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        vec![
            self.run.workflow_id.clone(),
            self.run.run_id.clone(),
            self.run.state.to_owned(),
            format!("{}/{all}", of("succeeded")),
            of("running").to_string(),
            dash(&self.run.created_at),
            dash(&self.run.finished_at),
        ]
    }
}

/// A task of a run.
#[derive(Debug, Serialize)]
pub(super) struct TaskView {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    group: String,
    dependencies: Vec<String>,
    priority: u32,
    state: &'static str,
    attempt: u32,
    deliveries: u32,
    consumer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    has_result: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_base64: Option<String>,
    provisional: bool,
    #[serde(skip)]
    took: Option<Duration>,
}

impl From<wire::Task> for TaskView {
    fn from(task: wire::Task) -> Self {
        let result: Option<Value> = serde_json::from_slice(&task.result).ok();
        let is_other = result.is_none() && !task.result.is_empty();
        Self {
            state: task_word(task.state()),
            took: took(task.started_at.as_ref(), task.finished_at.as_ref()),
            started_at: rfc3339(task.started_at.as_ref()),
            finished_at: rfc3339(task.finished_at.as_ref()),
            result_base64: is_other.then(|| STANDARD.encode(&task.result)),
            result,
            id: task.id,
            kind: task.r#type,
            group: task.group,
            dependencies: task.dependencies,
            priority: task.priority,
            attempt: task.attempt,
            deliveries: task.deliveries,
            consumer: task.consumer,
            reason: task.reason,
            has_result: task.has_result,
            provisional: task.provisional,
        }
    }
}

/// A task as a row.
#[derive(Debug, Serialize)]
pub(super) struct TaskRow {
    #[serde(flatten)]
    task: TaskView,
}

impl From<TaskView> for TaskRow {
    fn from(task: TaskView) -> Self {
        Self { task }
    }
}

impl Show for TaskRow {
    const COLUMNS: &'static [&'static str] = &[
        "TASK",
        "STATE",
        "GROUP",
        "AGENT",
        "ATTEMPT",
        "TOOK",
        "WAITS FOR",
        "REASON",
    ];

    fn cells(&self) -> Vec<String> {
        let task = &self.task;
        vec![
            task.id.clone(),
            task.state.to_owned(),
            or_dash(&task.group),
            or_dash(&task.consumer),
            task.attempt.to_string(),
            task.took.map_or_else(|| "-".to_owned(), short),
            or_dash(&task.dependencies.join(", ")),
            crate::values::cut(&task.reason, REASON_CHARS),
        ]
    }
}

/// An event of a run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct EventView {
    pub(super) event_id: String,
    pub(super) time: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) task_id: String,
    pub(super) what: String,
    pub(super) attempt: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) consumer: String,
}

impl From<wire::WorkflowEvent> for EventView {
    fn from(event: wire::WorkflowEvent) -> Self {
        Self {
            time: rfc3339(event.time.as_ref()),
            event_id: event.event_id,
            task_id: event.task_id,
            what: event.what,
            attempt: event.attempt,
            reason: event.reason,
            consumer: event.consumer,
        }
    }
}

impl Show for EventView {
    const COLUMNS: &'static [&'static str] = &[
        "TIME", "EVENT", "TASK", "WHAT", "ATTEMPT", "AGENT", "REASON",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.time.clone().unwrap_or_default(),
            self.event_id.clone(),
            or_dash(&self.task_id),
            self.what.clone(),
            self.attempt.to_string(),
            or_dash(&self.consumer),
            crate::values::cut(&self.reason, REASON_CHARS),
        ]
    }
}

/// Where a task would go.
#[derive(Debug, Serialize)]
pub(super) struct PlacementView {
    task_id: String,
    group: String,
    reason: String,
}

impl From<wire::TaskPlacement> for PlacementView {
    fn from(placement: wire::TaskPlacement) -> Self {
        Self {
            task_id: placement.task_id,
            group: placement.group,
            reason: placement.reason,
        }
    }
}

impl Show for PlacementView {
    const COLUMNS: &'static [&'static str] = &["TASK", "GROUP", "WHY"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.task_id.clone(),
            self.group.clone(),
            self.reason.clone(),
        ]
    }
}

/// What is wrong with a workflow.
#[derive(Debug, Serialize)]
pub(super) struct ViolationView {
    field: String,
    description: String,
}

impl From<wire::FieldViolation> for ViolationView {
    fn from(violation: wire::FieldViolation) -> Self {
        Self {
            field: violation.field,
            description: violation.description,
        }
    }
}

impl Show for ViolationView {
    const COLUMNS: &'static [&'static str] = &["FIELD", "RULE"];

    fn cells(&self) -> Vec<String> {
        vec![self.field.clone(), self.description.clone()]
    }
}

/// The word for the state of a run.
pub(super) fn state_word(state: wire::WorkflowState) -> &'static str {
    workflow::run_status(state).map_or("unspecified", |state| state.as_str())
}

/// The word for the state of a task.
pub(super) fn task_word(state: wire::TaskState) -> &'static str {
    workflow::task_status(state).map_or("unspecified", |state| state.as_str())
}

/// Time from a start to an end, or to now where there is none.
pub(super) fn took(started: Option<&Timestamp>, finished: Option<&Timestamp>) -> Option<Duration> {
    let moment = |wire: &Timestamp| SystemTime::try_from(*wire).ok();
    let started = moment(started?)?;
    let end = match finished {
        Some(finished) => moment(finished)?,
        None => SystemTime::now(),
    };
    end.duration_since(started).ok()
}

/// A duration as a person reads it.
pub(super) fn short(duration: Duration) -> String {
    short_seconds(duration.as_secs_f64())
}

/// The text, or a dash for none.
pub(super) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}
