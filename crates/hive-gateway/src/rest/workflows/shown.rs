//! Runs and their tasks as JSON.

use std::collections::BTreeMap;

use hive_domain::workflow::{RunStatus, TaskStatus};
use hive_protocol::{wire, workflow};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::rest::render::{Bytes, is_zero, time};

/// A run as this door shows it.
#[derive(Serialize)]
pub(super) struct WorkflowOut {
    workflow_id: String,
    run_id: String,
    state: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
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
    #[serde(skip_serializing_if = "Option::is_none")]
    tasks: Option<Vec<TaskOut>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    event_id: String,
}

impl WorkflowOut {
    /// A run without its tasks.
    pub(super) fn listed(run: wire::Workflow) -> Self {
        Self {
            state: workflow::run_status(run.state()).map_or("unspecified", RunStatus::as_str),
            dependency_mode: workflow::dependency_mode_said(run.dependency_mode())
                .unwrap_or_default()
                .as_str(),
            strategy: workflow::strategy_said(run.strategy())
                .unwrap_or_default()
                .as_str(),
            created_at: time(run.created_at.as_ref()),
            finished_at: time(run.finished_at.as_ref()),
            deadline_at: time(run.deadline_at.as_ref()),
            workflow_id: run.workflow_id,
            run_id: run.run_id,
            reason: run.reason,
            labels: run.labels,
            max_parallel_tasks: run.max_parallel_tasks,
            parallel_limit: run.parallel_limit,
            open: run.open,
            ending: run.ending,
            task_counts: run.task_counts,
            tasks: None,
            event_id: run.event_id,
        }
    }

    /// A run with its tasks.
    pub(super) fn whole(mut run: wire::Workflow) -> Self {
        let tasks = std::mem::take(&mut run.tasks);
        Self {
            tasks: Some(tasks.into_iter().map(TaskOut::from).collect()),
            ..Self::listed(run)
        }
    }
}

/// A task of a run as this door shows it.
#[derive(Serialize)]
pub(super) struct TaskOut {
    id: String,
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    group: String,
    dependencies: Vec<String>,
    priority: u32,
    state: &'static str,
    attempt: u32,
    deliveries: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    consumer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
    has_result: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_base64: Option<String>,
    provisional: bool,
}

impl From<wire::Task> for TaskOut {
    fn from(task: wire::Task) -> Self {
        let status = workflow::task_status(task.state());
        let is_failure = status.is_some_and(TaskStatus::is_failure);
        let (reason, error) = if is_failure {
            (String::new(), task.reason)
        } else {
            (task.reason, String::new())
        };
        let result = ResultOut::of(&task.result);
        Self {
            state: status.map_or("unspecified", TaskStatus::as_str),
            started_at: time(task.started_at.as_ref()),
            finished_at: time(task.finished_at.as_ref()),
            id: task.id,
            kind: task.r#type,
            group: task.group,
            dependencies: task.dependencies,
            priority: task.priority,
            attempt: task.attempt,
            deliveries: task.deliveries,
            consumer: task.consumer,
            reason,
            error,
            has_result: task.has_result,
            result: result.result,
            result_base64: result.result_base64,
            provisional: task.provisional,
        }
    }
}

/// A result as JSON where it is JSON, else in base64; nothing of no bytes.
#[derive(Serialize, Default)]
pub(super) struct ResultOut {
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_base64: Option<String>,
}

impl ResultOut {
    pub(super) fn of(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self::default();
        }
        let Bytes { json, base64 } = Bytes::of(bytes, "");
        Self {
            result: json,
            result_base64: base64,
        }
    }
}

/// An event as this door shows it.
#[derive(Serialize)]
pub(super) struct EventOut {
    event_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    task_id: String,
    what: String,
    #[serde(skip_serializing_if = "is_zero")]
    attempt: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    consumer: String,
}

impl From<wire::WorkflowEvent> for EventOut {
    fn from(event: wire::WorkflowEvent) -> Self {
        Self {
            time: time(event.time.as_ref()),
            event_id: event.event_id,
            task_id: event.task_id,
            what: event.what,
            attempt: event.attempt,
            reason: event.reason,
            consumer: event.consumer,
        }
    }
}
