//! The calls about tasks of a run.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    routing::{get, post},
};
use bytes::Bytes;
use hive_protocol::wire;
use serde_json::{Value, json};

use super::{
    super::{
        asked::{Asked, JsonBody},
        fields::Fields,
        problem::Problem,
        shape::{Answer, Body, Call, NOTHING},
    },
    DONE_ANSWERS, done, ours,
    read::{Manner, own_task_shape, read_tasks, state_word},
    shapes::{COMPLETE, EXPLAINED, FAIL, INPUT, RERUN, RESULT, RUN_QUERY, TASKS, TRIGGERED},
    shown::ResultOut,
};
use crate::core::Gateway;

/// The calls of this file.
pub(crate) static TASK_CALLS: [Call; 8] = [
    Call {
        method: "POST",
        path: "/workflows/{workflow_id}/tasks",
        id: "addTasks",
        about: "Adds tasks to a run that goes on; all of them or none.",
        query: &RUN_QUERY,
        body: Body::One(&TASKS),
        answers: DONE_ANSWERS,
        refusals: &[404, 409, 429, 504],
        route: || post(add),
    },
    Call {
        method: "POST",
        path: "/workflows/{workflow_id}/tasks/{task_id}/complete",
        id: "completeTask",
        about: "Completes a task from outside. The same result again answers the same tasks; \
                another one is refused.",
        query: &RUN_QUERY,
        body: Body::One(&COMPLETE),
        answers: &[Answer {
            status: 200,
            about: "It is complete.",
            body: Body::One(&TRIGGERED),
        }],
        refusals: &[404, 409, 504],
        route: || post(complete),
    },
    Call {
        method: "POST",
        path: "/workflows/{workflow_id}/tasks/{task_id}/fail",
        id: "failTask",
        about: "Fails a task from outside; its failure policy acts.",
        query: &RUN_QUERY,
        body: Body::One(&FAIL),
        answers: DONE_ANSWERS,
        refusals: &[404, 409, 504],
        route: || post(fail),
    },
    Call {
        method: "POST",
        path: "/workflows/{workflow_id}/tasks/{task_id}/input",
        id: "provideInput",
        about: "Answers a task that waits for input; it is dispatched again with the answer.",
        query: &RUN_QUERY,
        body: Body::One(&INPUT),
        answers: DONE_ANSWERS,
        refusals: &[404, 409, 504],
        route: || post(input),
    },
    Call {
        method: "POST",
        path: "/workflows/{workflow_id}/tasks/{task_id}/retry",
        id: "retryTask",
        about: "Tries a failed task again, and with it all that was skipped or cancelled because \
                of it.",
        query: &RUN_QUERY,
        body: Body::None,
        answers: DONE_ANSWERS,
        refusals: &[404, 409, 504],
        route: || post(retry),
    },
    Call {
        method: "POST",
        path: "/workflows/{workflow_id}/tasks/{task_id}/rerun",
        id: "rerunWorkflow",
        about: "Starts a new run in which a task and all that depends on it are done again; the \
                run must be over.",
        query: &NOTHING,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "The new run.",
            body: Body::One(&RERUN),
        }],
        refusals: &[404, 409, 504],
        route: || post(rerun),
    },
    Call {
        method: "GET",
        path: "/workflows/{workflow_id}/tasks/{task_id}/explain",
        id: "explainTask",
        about: "Why a task is not running.",
        query: &RUN_QUERY,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "Why.",
            body: Body::One(&EXPLAINED),
        }],
        refusals: &[404],
        route: || get(explain),
    },
    Call {
        method: "GET",
        path: "/workflows/{workflow_id}/tasks/{task_id}/result",
        id: "getTaskResult",
        about: "The result of a task; no field where it gave none.",
        query: &RUN_QUERY,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "The result.",
            body: Body::One(&RESULT),
        }],
        refusals: &[404],
        route: || get(result),
    },
];

async fn add(
    State(gateway): State<Arc<Gateway>>,
    mut asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, Problem> {
    let mut fields = Fields::of(&body, &TASKS, "");
    let tasks = read_tasks(&mut fields, "tasks", (Manner::Ours, own_task_shape()));
    let workflow_id = asked.name("workflow_id");
    let run_id = asked.query.take_text("run_id");
    let onward = asked.onward();
    fields.finish()?;
    asked.query.finish()?;
    let request = wire::AddTasksRequest {
        workflow_id: workflow_id.clone(),
        run_id,
        tasks,
    };
    let answer = gateway.add_tasks(&onward, request).await.map_err(ours)?;
    Ok(done(&workflow_id, answer.already))
}

/// The bytes of `name`, or those of `<name>_base64`; none where neither is given.
pub(in crate::rest) fn read_bytes(fields: &mut Fields, name: &str) -> Option<Bytes> {
    let encoded = format!("{name}_base64");
    if fields.has(name) && fields.has(&encoded) {
        fields.fault(&encoded, format!("is given beside {name}, one must be"));
    }
    let json = fields.take_json(name);
    let base64 = fields.take_base64(&encoded);
    json.or(base64)
}

async fn complete(
    State(gateway): State<Arc<Gateway>>,
    mut asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, Problem> {
    let mut fields = Fields::of(&body, &COMPLETE, "");
    let result = read_bytes(&mut fields, "result").unwrap_or_default();
    let request = wire::SignalTaskCompletionRequest {
        workflow_id: asked.name("workflow_id"),
        run_id: asked.query.take_text("run_id"),
        task_id: asked.name("task_id"),
        result,
    };
    let onward = asked.onward();
    fields.finish()?;
    asked.query.finish()?;
    let answer = gateway.signal_task_completion(&onward, request).await;
    let answer = answer.map_err(ours)?;
    Ok(Json(json!({
        "triggered_tasks": answer.triggered_tasks, "already": answer.already,
    })))
}

async fn fail(
    State(gateway): State<Arc<Gateway>>,
    mut asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, Problem> {
    let mut fields = Fields::of(&body, &FAIL, "");
    let workflow_id = asked.name("workflow_id");
    let request = wire::SignalTaskFailureRequest {
        workflow_id: workflow_id.clone(),
        run_id: asked.query.take_text("run_id"),
        task_id: asked.name("task_id"),
        reason: fields.take_text("reason"),
    };
    let onward = asked.onward();
    fields.finish()?;
    asked.query.finish()?;
    let answer = gateway.signal_task_failure(&onward, request).await;
    Ok(done(&workflow_id, answer.map_err(ours)?.already))
}

async fn input(
    State(gateway): State<Arc<Gateway>>,
    mut asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, Problem> {
    let mut fields = Fields::of(&body, &INPUT, "");
    if !fields.has("input") && !fields.has("input_base64") {
        fields.fault("input", "must be set, or input_base64");
    }
    let input = read_bytes(&mut fields, "input").unwrap_or_default();
    let workflow_id = asked.name("workflow_id");
    let request = wire::ProvideInputRequest {
        workflow_id: workflow_id.clone(),
        run_id: asked.query.take_text("run_id"),
        task_id: asked.name("task_id"),
        input,
    };
    let onward = asked.onward();
    fields.finish()?;
    asked.query.finish()?;
    let answer = gateway.provide_input(&onward, request).await;
    let wire::ProvideInputResponse {} = answer.map_err(ours)?;
    Ok(done(&workflow_id, false))
}

async fn retry(
    State(gateway): State<Arc<Gateway>>,
    mut asked: Asked,
) -> Result<Json<Value>, Problem> {
    let workflow_id = asked.name("workflow_id");
    let request = wire::RetryTaskRequest {
        workflow_id: workflow_id.clone(),
        run_id: asked.query.take_text("run_id"),
        task_id: asked.name("task_id"),
        ..wire::RetryTaskRequest::default()
    };
    let onward = asked.onward();
    asked.query.finish()?;
    let answer = gateway.retry_task(&onward, request).await;
    let wire::RetryTaskResponse { duplicate, .. } = answer.map_err(ours)?;
    Ok(done(&workflow_id, duplicate))
}

async fn rerun(State(gateway): State<Arc<Gateway>>, asked: Asked) -> Result<Json<Value>, Problem> {
    let workflow_id = asked.name("workflow_id");
    let request = wire::RerunWorkflowRequest {
        workflow_id: workflow_id.clone(),
        from_task: asked.name("task_id"),
    };
    let answer = gateway.rerun_workflow(&asked.onward(), request).await;
    let run_id = answer.map_err(ours)?.run_id;
    Ok(Json(json!({
        "status": "success", "workflow_id": workflow_id, "run_id": run_id,
    })))
}

async fn explain(
    State(gateway): State<Arc<Gateway>>,
    mut asked: Asked,
) -> Result<Json<Value>, Problem> {
    let request = wire::ExplainTaskRequest {
        workflow_id: asked.name("workflow_id"),
        run_id: asked.query.take_text("run_id"),
        task_id: asked.name("task_id"),
    };
    let onward = asked.onward();
    asked.query.finish()?;
    let answer = gateway.explain_task(&onward, request).await;
    let answer = answer.map_err(ours)?;
    Ok(Json(json!({
        "state": state_word(answer.state()),
        "waits_for": answer.waits_for,
        "lines": answer.lines,
    })))
}

async fn result(
    State(gateway): State<Arc<Gateway>>,
    mut asked: Asked,
) -> Result<Json<ResultOut>, Problem> {
    let request = wire::GetTaskResultRequest {
        workflow_id: asked.name("workflow_id"),
        run_id: asked.query.take_text("run_id"),
        task_id: asked.name("task_id"),
    };
    let onward = asked.onward();
    asked.query.finish()?;
    let answer = gateway.get_task_result(&onward, request).await;
    Ok(Json(ResultOut::of(&answer.map_err(ours)?.result)))
}
