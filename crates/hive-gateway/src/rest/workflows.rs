//! Workflows: submit, show, list, listen, steer.
//!
//! Everything is asked of a router; this door reads and shows. `tasks` has the calls about one
//! task, `events` the stream of what happens, `read` workflows from JSON, `shown` runs as JSON.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use hive_domain::{
    violation::{Violations, quoted},
    workflow::RunStatus,
};
use hive_protocol::{
    fault::{Fault, FaultKind},
    http::FieldFault,
    time as wire_time, wire, workflow,
};
use serde_json::{Value, json};
use tonic::Status;

pub(super) use self::{
    read::{Manner, read_completion, read_workflow},
    shapes::{GUIDE_TASK, GUIDE_WORKFLOW, SUBMITTED},
    tasks::{TASK_CALLS, read_bytes},
};
use self::{
    shapes::{
        DONE, EVENT, EVENTS_QUERY, HISTORY, HISTORY_QUERY, LIST_QUERY, REASON_QUERY, SHOW_QUERY,
        VALIDATED, WORKFLOW, WORKFLOW_SPEC, WORKFLOWS,
    },
    shown::{EventOut, WorkflowOut},
};
use super::{
    asked::{Asked, JsonBody},
    fields::Fields,
    problem::{Problem, in_our_words, renamed},
    shape::{Answer, Body, Call, NOTHING},
};
use crate::{core::Gateway, peers::Onward};

mod events;
mod read;
mod shapes;
mod shown;
mod tasks;

/// The calls about whole runs.
pub(crate) static CALLS: [Call; 11] = [
    Call {
        method: "POST",
        path: "/workflows",
        id: "submitWorkflow",
        about: "Starts a run. The same workflow under the same id answers the run that is there; \
                all faults are told at once, and nothing is stored.",
        query: &NOTHING,
        body: Body::One(&WORKFLOW_SPEC),
        answers: &[
            Answer {
                status: 201,
                about: "Started.",
                body: Body::One(&SUBMITTED),
            },
            Answer {
                status: 200,
                about: "The same was submitted before.",
                body: Body::One(&SUBMITTED),
            },
        ],
        refusals: &[409, 429, 504],
        route: || post(submit),
    },
    Call {
        method: "GET",
        path: "/workflows",
        id: "listWorkflows",
        about: "Runs, the newest first.",
        query: &LIST_QUERY,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "A page of runs, without their tasks.",
            body: Body::One(&WORKFLOWS),
        }],
        refusals: &[],
        route: || get(list),
    },
    Call {
        method: "POST",
        path: "/workflows/validate",
        id: "validateWorkflow",
        about: "Checks a workflow as a submit does, and stores nothing.",
        query: &NOTHING,
        body: Body::One(&WORKFLOW_SPEC),
        answers: &[Answer {
            status: 200,
            about: "What is wrong with it, or where its tasks would go.",
            body: Body::One(&VALIDATED),
        }],
        refusals: &[504],
        route: || post(validate),
    },
    Call {
        method: "GET",
        path: "/workflows/{workflow_id}",
        id: "getWorkflow",
        about: "One run with its tasks.",
        query: &SHOW_QUERY,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "The run.",
            body: Body::One(&WORKFLOW),
        }],
        refusals: &[404],
        route: || get(show),
    },
    Call {
        method: "DELETE",
        path: "/workflows/{workflow_id}",
        id: "deleteWorkflow",
        about: "Forgets a run that is over; its id may be used again.",
        query: &NOTHING,
        body: Body::None,
        answers: DONE_ANSWERS,
        refusals: &[404, 409, 504],
        route: || delete(remove),
    },
    Call {
        method: "GET",
        path: "/workflows/{workflow_id}/events",
        id: "listenToWorkflow",
        about: "Server-sent events: `snapshot`, the run as it is, then an `event` for each thing \
                that happens, until the run is over. With `Last-Event-ID` no snapshot, but all \
                events behind that one. `problem` says why the stream ends early.",
        query: &EVENTS_QUERY,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "The events.",
            body: Body::Events(&EVENT),
        }],
        refusals: &[404, 429],
        route: || get(events::listen),
    },
    Call {
        method: "GET",
        path: "/workflows/{workflow_id}/history",
        id: "getWorkflowHistory",
        about: "What happened in a run, the oldest first.",
        query: &HISTORY_QUERY,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "A part of the history.",
            body: Body::One(&HISTORY),
        }],
        refusals: &[404],
        route: || get(history),
    },
    Call {
        method: "POST",
        path: "/workflows/{workflow_id}/pause",
        id: "pauseWorkflow",
        about: "Dispatches nothing more; what runs goes on.",
        query: &REASON_QUERY,
        body: Body::None,
        answers: DONE_ANSWERS,
        refusals: &[404, 409, 504],
        route: || post(pause),
    },
    Call {
        method: "POST",
        path: "/workflows/{workflow_id}/resume",
        id: "resumeWorkflow",
        about: "Goes on after a pause.",
        query: &NOTHING,
        body: Body::None,
        answers: DONE_ANSWERS,
        refusals: &[404, 409, 504],
        route: || post(resume),
    },
    Call {
        method: "POST",
        path: "/workflows/{workflow_id}/cancel",
        id: "cancelWorkflow",
        about: "Ends a run; agents that work on its tasks are told to stop.",
        query: &REASON_QUERY,
        body: Body::None,
        answers: DONE_ANSWERS,
        refusals: &[404, 409, 504],
        route: || post(cancel),
    },
    Call {
        method: "POST",
        path: "/workflows/{workflow_id}/close",
        id: "closeWorkflow",
        about: "Ends the growth of an open workflow: it is over when its tasks are.",
        query: &NOTHING,
        body: Body::None,
        answers: DONE_ANSWERS,
        refusals: &[404, 409, 504],
        route: || post(close),
    },
];

const DONE_ANSWERS: &[Answer] = &[Answer {
    status: 200,
    about: "Done.",
    body: Body::One(&DONE),
}];

/// What a router says, with the fields named as this door names them.
pub(super) fn ours(status: Status) -> Problem {
    in_our_words(Fault::from(status), "").into()
}

async fn submit(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let mut fields = Fields::of(&body, read::own_shape(), "");
    let manner = (Manner::Ours, read::own_task_shape());
    let spec = read_workflow(&mut fields, manner, gateway.payload_max());
    fields.finish()?;
    let answer = send(&gateway, &asked.onward(), spec).await?;
    let status = if answer.already {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok((status, Json(submitted(&answer))).into_response())
}

/// Submits a workflow. A refusal by its fields comes whole: a status of gRPC has room for some of
/// them only, so they are asked for once more.
///
/// # Errors
/// What the router says.
pub(super) async fn send(
    gateway: &Gateway,
    onward: &Onward,
    spec: wire::WorkflowSpec,
) -> Result<wire::SubmitWorkflowResponse, Problem> {
    let workflow = Some(spec.clone());
    let request = wire::SubmitWorkflowRequest { workflow };
    let status = match gateway.submit_workflow(onward, request).await {
        Ok(answer) => return Ok(answer),
        Err(status) => status,
    };
    let fault = Fault::from(&status);
    if fault.kind == FaultKind::Invalid && !fault.violations.is_empty() {
        let workflow = Some(spec);
        let request = wire::ValidateWorkflowRequest { workflow };
        if let Ok(answer) = gateway.validate_workflow(onward, request).await
            && !answer.field_violations.is_empty()
        {
            let whole = violations(answer.field_violations);
            return Err(Fault::invalid_because(fault.reason, whole).into());
        }
    }
    Err(in_our_words(fault, "").into())
}

/// Faults of the wire with their fields named as this door names them.
fn violations(faults: Vec<wire::FieldViolation>) -> Violations {
    let faults = faults
        .into_iter()
        .map(|fault| hive_domain::violation::Violation::new(fault.field, fault.description));
    renamed(faults, "")
}

/// What became of a submit, as JSON.
pub(super) fn submitted(answer: &wire::SubmitWorkflowResponse) -> Value {
    json!({
        "status": "success",
        "workflow_id": answer.workflow_id,
        "run_id": answer.run_id,
        "already": answer.already,
        "workflow_routing": {
            "tasks_routed": answer.routed_tasks.len(),
            "tasks_waiting": answer.waiting_tasks,
            "routed_tasks": answer.routed_tasks,
        },
    })
}

async fn validate(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, Problem> {
    let mut fields = Fields::of(&body, read::own_shape(), "");
    let manner = (Manner::Ours, read::own_task_shape());
    let spec = read_workflow(&mut fields, manner, gateway.payload_max());
    fields.finish()?;
    let workflow = Some(spec);
    let request = wire::ValidateWorkflowRequest { workflow };
    let answer = gateway.validate_workflow(&asked.onward(), request).await;
    let answer = answer.map_err(ours)?;
    let faults: Vec<FieldFault> = violations(answer.field_violations)
        .into_iter()
        .map(|fault| FieldFault {
            field: fault.field,
            description: fault.description,
        })
        .collect();
    let placements = answer
        .placements
        .into_iter()
        .map(|one| json!({ "task_id": one.task_id, "group": one.group, "reason": one.reason }));
    Ok(Json(json!({
        "valid": faults.is_empty(),
        "violations": faults,
        "placements": placements.collect::<Vec<Value>>(),
    })))
}

async fn list(
    State(gateway): State<Arc<Gateway>>,
    mut asked: Asked,
) -> Result<Json<Value>, Problem> {
    let state = asked
        .query
        .take_word("state")
        .and_then(|word| word.parse::<RunStatus>().ok());
    let labels = read_labels(&mut asked.query);
    let request = wire::ListWorkflowsRequest {
        state: state.map_or(0, |state| workflow::workflow_state(state).into()),
        labels,
        created_since: asked
            .query
            .take_time("created_since")
            .map(wire_time::to_timestamp),
        created_before: asked
            .query
            .take_time("created_before")
            .map(wire_time::to_timestamp),
        limit: asked.query.take_u32("limit").unwrap_or(0),
        cursor: asked.query.take_text("cursor"),
    };
    let onward = asked.onward();
    asked.query.finish()?;
    let answer = gateway.list_workflows(&onward, request).await;
    let answer = answer.map_err(ours)?;
    let runs: Vec<WorkflowOut> = answer
        .workflows
        .into_iter()
        .map(WorkflowOut::listed)
        .collect();
    let next_cursor = Some(answer.next_cursor).filter(|cursor| !cursor.is_empty());
    Ok(Json(
        json!({ "workflows": runs, "next_cursor": next_cursor }),
    ))
}

/// Labels as a query has them: `team=a,kind=build`.
fn read_labels(query: &mut Fields) -> BTreeMap<String, String> {
    let text = query.take_text("labels");
    let mut labels = BTreeMap::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some((key, value)) => {
                if labels.insert(key.to_owned(), value.to_owned()).is_some() {
                    query.fault("labels", format!("names {} twice", quoted(key)));
                }
            },
            None => query.fault("labels", format!("{} must be `key=value`", quoted(pair))),
        }
    }
    labels
}

async fn show(
    State(gateway): State<Arc<Gateway>>,
    mut asked: Asked,
) -> Result<Json<WorkflowOut>, Problem> {
    let request = wire::GetWorkflowRequest {
        workflow_id: asked.name("workflow_id"),
        run_id: asked.query.take_text("run_id"),
        include_results: asked.query.take_flag("results").unwrap_or(false),
    };
    let onward = asked.onward();
    asked.query.finish()?;
    let answer = gateway.get_workflow(&onward, request).await;
    let run = answer.map_err(ours)?.workflow;
    let run = run.ok_or_else(|| Fault::bug("a router answered no run"))?;
    Ok(Json(WorkflowOut::whole(run)))
}

async fn history(
    State(gateway): State<Arc<Gateway>>,
    mut asked: Asked,
) -> Result<Json<Value>, Problem> {
    let request = wire::GetHistoryRequest {
        workflow_id: asked.name("workflow_id"),
        run_id: asked.query.take_text("run_id"),
        after_event_id: asked.query.take_text("after_event_id"),
        limit: asked.query.take_u32("limit").unwrap_or(0),
    };
    let onward = asked.onward();
    asked.query.finish()?;
    let answer = gateway.get_history(&onward, request).await.map_err(ours)?;
    let events: Vec<EventOut> = answer.events.into_iter().map(EventOut::from).collect();
    Ok(Json(json!({ "events": events, "more": answer.more })))
}

fn done(workflow_id: &str, already: bool) -> Json<Value> {
    Json(json!({ "status": "success", "workflow_id": workflow_id, "already": already }))
}

async fn remove(State(gateway): State<Arc<Gateway>>, asked: Asked) -> Result<Json<Value>, Problem> {
    let workflow_id = asked.name("workflow_id");
    let request = wire::DeleteWorkflowRequest {
        workflow_id: workflow_id.clone(),
    };
    let answer = gateway.delete_workflow(&asked.onward(), request).await;
    let wire::DeleteWorkflowResponse {} = answer.map_err(ours)?;
    Ok(done(&workflow_id, false))
}

async fn pause(
    State(gateway): State<Arc<Gateway>>,
    mut asked: Asked,
) -> Result<Json<Value>, Problem> {
    let workflow_id = asked.name("workflow_id");
    let request = wire::PauseWorkflowRequest {
        workflow_id: workflow_id.clone(),
        reason: asked.query.take_text("reason"),
    };
    let onward = asked.onward();
    asked.query.finish()?;
    let answer = gateway.pause_workflow(&onward, request).await;
    Ok(done(&workflow_id, answer.map_err(ours)?.already))
}

async fn resume(State(gateway): State<Arc<Gateway>>, asked: Asked) -> Result<Json<Value>, Problem> {
    let workflow_id = asked.name("workflow_id");
    let request = wire::ResumeWorkflowRequest {
        workflow_id: workflow_id.clone(),
    };
    let answer = gateway.resume_workflow(&asked.onward(), request).await;
    Ok(done(&workflow_id, answer.map_err(ours)?.already))
}

async fn cancel(
    State(gateway): State<Arc<Gateway>>,
    mut asked: Asked,
) -> Result<Json<Value>, Problem> {
    let workflow_id = asked.name("workflow_id");
    let request = wire::CancelWorkflowRequest {
        workflow_id: workflow_id.clone(),
        reason: asked.query.take_text("reason"),
    };
    let onward = asked.onward();
    asked.query.finish()?;
    let answer = gateway.cancel_workflow(&onward, request).await;
    Ok(done(&workflow_id, answer.map_err(ours)?.already))
}

async fn close(State(gateway): State<Arc<Gateway>>, asked: Asked) -> Result<Json<Value>, Problem> {
    let workflow_id = asked.name("workflow_id");
    let request = wire::CloseWorkflowRequest {
        workflow_id: workflow_id.clone(),
    };
    let answer = gateway.close_workflow(&asked.onward(), request).await;
    Ok(done(&workflow_id, answer.map_err(ours)?.already))
}

#[cfg(test)]
mod tests;
