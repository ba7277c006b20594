//! What is kept of a run's history: a short JSON text per event. Its time is in its id.

use bytes::Bytes;
use hive_domain::workflow::{Run, TaskIndex, TaskStatus, run::Entry};
use hive_protocol::{time, wire};
use hive_store::runs::HistoryRecord;
use serde::{Deserialize, Serialize};

use crate::stored::json;

/// An event as it lies in Redis. The words of `what` are promised to callers.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    #[serde(rename = "t", skip_serializing_if = "Option::is_none")]
    task: Option<TaskIndex>,
    #[serde(rename = "w")]
    what: String,
    #[serde(rename = "a", skip_serializing_if = "is_zero")]
    attempt: u32,
    #[serde(rename = "r", skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(rename = "c", skip_serializing_if = "String::is_empty")]
    consumer: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The stored form of an event.
pub(crate) fn record(run: &Run, task: Option<TaskIndex>, what: Entry) -> Bytes {
    let plain = |what: &str| Record {
        task,
        what: what.to_owned(),
        ..Record::default()
    };
    let record = match what {
        Entry::Became {
            status,
            attempt,
            reason,
        } => Record {
            attempt,
            reason,
            consumer: match status {
                TaskStatus::Running => consumer(run, task),
                TaskStatus::Pending
                | TaskStatus::Awaited
                | TaskStatus::Queued
                | TaskStatus::WaitingInput
                | TaskStatus::Succeeded
                | TaskStatus::Failed
                | TaskStatus::TimedOut
                | TaskStatus::DeadLettered
                | TaskStatus::Skipped
                | TaskStatus::Cancelled => String::new(),
            },
            ..plain(status.as_str())
        },
        Entry::Confirmed => plain("confirmed"),
        Entry::RunBecame { status, reason } => Record {
            reason,
            ..plain(status.as_str())
        },
        Entry::Ending { status, reason } => Record {
            reason: if reason.is_empty() {
                status.to_string()
            } else {
                format!("{status}: {reason}")
            },
            ..plain("ending")
        },
        Entry::Added => plain("added"),
        Entry::Closed => plain("closed"),
    };
    json(&record)
}

fn consumer(run: &Run, task: Option<TaskIndex>) -> String {
    let state = task.and_then(|task| run.task(task));
    state
        .map(|state| state.consumer.clone())
        .unwrap_or_default()
}

/// The event of a stored record; none where it does not decode.
pub(crate) fn event(run: &Run, record: HistoryRecord) -> Option<wire::WorkflowEvent> {
    let read: Record = serde_json::from_slice(&record.body).ok()?;
    let millis = record.id.split('-').next()?.parse::<u64>().ok()?;
    let task = read.task.and_then(|task| run.id(task));
    Some(wire::WorkflowEvent {
        time: Some(time::to_timestamp(millis.into())),
        event_id: record.id,
        task_id: task.unwrap_or_default().to_owned(),
        what: read.what,
        attempt: read.attempt,
        reason: read.reason,
        consumer: read.consumer,
    })
}
