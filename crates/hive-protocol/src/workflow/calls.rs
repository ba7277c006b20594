//! Checks the calls about runs and fills in their defaults.

use std::collections::BTreeMap;

use hive_domain::{
    name,
    time::Timestamp,
    violation::Violations,
    workflow::{
        RunStatus,
        definition::{LABEL_BYTES_MAX, LABELS_MAX},
    },
};

use super::read_state;
use crate::{
    limits::{
        CURSOR_BYTES_MAX, EVENT_ID_BYTES_MAX, HISTORY_EVENTS_DEFAULT, HISTORY_EVENTS_MAX,
        LIST_RUNS_DEFAULT, LIST_RUNS_MAX, TASK_RESULT_BYTES_MAX,
    },
    message::at_most,
    time, wire,
};

/// A checked list of runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Only runs in this state.
    pub state: Option<RunStatus>,
    /// Only runs with all of these labels.
    pub labels: BTreeMap<String, String>,
    /// Only runs created at this time or later.
    pub created_since: Option<Timestamp>,
    /// Only runs created before this time.
    pub created_before: Option<Timestamp>,
    /// Most runs, 1 to 1,000.
    pub limit: u32,
    /// Where to go on; none for the newest.
    pub cursor: Option<String>,
}

/// A checked look at the history of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The workflow.
    pub workflow_id: String,
    /// The run; none for the newest.
    pub run_id: Option<String>,
    /// Go on behind this event; none from the beginning.
    pub after_event_id: Option<String>,
    /// Most events, 1 to 1,000.
    pub limit: u32,
}

/// Checks a list of runs.
///
/// # Errors
/// All violations.
pub fn list(request: &wire::ListWorkflowsRequest) -> Result<Listing, Violations> {
    let mut faults = Violations::new();
    let state = faults.take(read_state(request.state)).flatten();
    if let Err(inner) = check_labels(&request.labels) {
        faults.nest("", inner);
    }
    let mut point = |field, wire: &Option<prost_types::Timestamp>| {
        wire.as_ref()
            .and_then(|wire| faults.take(time::timestamp(field, wire)))
    };
    let created_since = point("created_since", &request.created_since);
    let created_before = point("created_before", &request.created_before);
    let limit = limit(request.limit, LIST_RUNS_DEFAULT, LIST_RUNS_MAX, &mut faults);
    faults.take(at_most("cursor", request.cursor.len(), CURSOR_BYTES_MAX));
    faults.into_result()?;
    Ok(Listing {
        state,
        labels: request.labels.clone(),
        created_since,
        created_before,
        limit,
        cursor: some_text(&request.cursor),
    })
}

/// Checks a look at a history.
///
/// # Errors
/// All violations.
pub fn history(request: &wire::GetHistoryRequest) -> Result<History, Violations> {
    let mut faults = Violations::new();
    faults.take(name::check("workflow_id", &request.workflow_id));
    faults.take(name::check_optional("run_id", &request.run_id));
    let after = &request.after_event_id;
    faults.take(at_most("after_event_id", after.len(), EVENT_ID_BYTES_MAX));
    let limit = limit(
        request.limit,
        HISTORY_EVENTS_DEFAULT,
        HISTORY_EVENTS_MAX,
        &mut faults,
    );
    faults.into_result()?;
    Ok(History {
        workflow_id: request.workflow_id.clone(),
        run_id: some_text(&request.run_id),
        after_event_id: some_text(after),
        limit,
    })
}

/// Checks labels that runs are looked for by, by the rules of those that a workflow may have.
///
/// # Errors
/// All violations of the field `labels`.
pub fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Violations> {
    let mut faults = Violations::new();
    let count = labels.len();
    if count > LABELS_MAX {
        faults.push(
            "labels",
            format!("has `{count}` labels and must have at most {LABELS_MAX}"),
        );
    }
    let pairs = labels.iter();
    let bytes = pairs.map(|(key, value)| key.len() + value.len()).sum();
    faults.take(at_most("labels", bytes, LABEL_BYTES_MAX));
    for key in labels.keys().take(LABELS_MAX) {
        faults.take(name::check("labels", key));
    }
    faults.into_result()
}

/// Checks the size of a result that comes from outside.
///
/// # Errors
/// The violation of `result`.
pub fn check_result(result: &[u8]) -> Result<(), Violations> {
    Ok(at_most("result", result.len(), TASK_RESULT_BYTES_MAX)?)
}

/// Checks the size of an answer to the question of a task.
///
/// # Errors
/// The violation of `input`.
pub fn check_input(input: &[u8]) -> Result<(), Violations> {
    Ok(at_most("input", input.len(), TASK_RESULT_BYTES_MAX)?)
}

fn limit(asked: u32, default: u32, max: u32, faults: &mut Violations) -> u32 {
    match asked {
        0 => default,
        asked if asked > max => {
            faults.push("limit", format!("`{asked}` must be at most {max}"));
            default
        },
        asked => asked,
    }
}

fn some_text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
