//! The migration guide's calls for routing: one message or task, or a whole workflow.
//!
//! A message without a workflow is published to the group that serves it, now. One with a workflow
//! becomes a task of it, which its router holds back until what it depends on is done.

use std::sync::Arc;

use axum::{Json, extract::State, routing::post};
use hive_domain::{
    capability::CapabilitySet,
    placement::Wanted,
    violation::{Violation, Violations},
    workflow::definition::DURATION_MS_MAX,
};
use hive_protocol::{
    fault::{Fault, Reason},
    limits::{CONTENT_TYPE_BYTES_MAX, CORRELATION_ID_BYTES_MAX, REQUIRED_CAPABILITIES_MAX},
    wire,
};
use serde_json::{Value, json, value::RawValue};

use super::{
    asked::{Asked, JsonBody, Trace},
    fields::{Fields, Given},
    messages::{RETRY, read_payload, read_retry},
    problem::{Problem, in_our_words, renamed},
    shape::{
        Answer, Body, Call,
        Kind::{
            self, Base64, Count, Flag, GuidePriority, Json as AnyJson, Name, Names, One, Text,
            TextOrNull, Word,
        },
        Shape, optional, required,
    },
    workflows::{
        self, GUIDE_TASK, GUIDE_WORKFLOW, Manner, SUBMITTED, read_completion, read_workflow,
    },
};
use crate::core::Gateway;

/// The calls of this file.
pub(crate) static CALLS: [Call; 2] = [
    Call {
        method: "POST",
        path: "/consumer-groups/route",
        id: "routeMessage",
        about: "Sends a message to the group that serves it: `target_group`, else that of \
                `payload.task_type`, `payload.type` or `message_type`, the first that one serves. \
                With a workflow it becomes a task of it, held until its dependencies are done.",
        query: &ROUTE_QUERY,
        body: Body::One(&ROUTE),
        answers: &[Answer {
            status: 200,
            about: "Stored.",
            body: Body::One(&ROUTED),
        }],
        refusals: &[404, 409, 429, 504],
        route: || post(route),
    },
    Call {
        method: "POST",
        path: "/consumer-groups/route/workflow",
        id: "routeWorkflow",
        about: "Starts a run, as the migration guide writes workflows: priorities count from 1, \
                and tasks are completed by a signal.",
        query: &ROUTE_WORKFLOW_QUERY,
        body: Body::OneOrList(&GUIDE_WORKFLOW, &GUIDE_TASK),
        answers: &[Answer {
            status: 200,
            about: "Started, or started before.",
            body: Body::One(&SUBMITTED),
        }],
        refusals: &[409, 429, 504],
        route: || post(route_workflow),
    },
];

const MODES: &[&str] = &[
    "load_balanced",
    "round_robin",
    "priority_based",
    "capability_matched",
    "workflow_aware",
];

static ROUTE_QUERY: Shape = Shape::new(
    "RouteQuery",
    "Where the message goes.",
    &[&[optional(
        "target_group",
        Name,
        "The group. Default the one that serves the message.",
    )]],
);

static ROUTE_WORKFLOW_QUERY: Shape = Shape::new(
    "RouteWorkflowQuery",
    "The name of the workflow, where the body is a bare list of tasks.",
    &[&[optional("workflow_id", Name, "Its name.")]],
);

static ROUTE: Shape = Shape::new(
    "RouteMessage",
    "A message for the group that serves it: exactly one of `payload` and `payload_base64`.",
    &[&[
        required("message_id", Name, "Its id; in a workflow the task's."),
        required("from_agent", Name, "Who sends it."),
        required("message_type", Name, "What kind of work this is."),
        optional("payload", AnyJson, "The work itself, as JSON."),
        optional(
            "payload_base64",
            Base64,
            "The work itself, where it is no JSON.",
        ),
        optional(
            "content_type",
            Text(CONTENT_TYPE_BYTES_MAX),
            "Media type of the payload.",
        ),
        optional(
            "priority",
            GuidePriority,
            "1 (least urgent) to 10, stored as one less, or low, normal, high, urgent, critical. \
             Default normal.",
        ),
        optional(
            "workflow_id",
            Name,
            "The open workflow that it is a task of; made when unknown.",
        ),
        optional(
            "dependencies",
            Names(usize::MAX),
            "Tasks of that workflow it waits for; those that come later are awaited.",
        ),
        optional(
            "routing_mode",
            Word(MODES),
            "Must be the group's: the mode belongs to the group.",
        ),
        optional(
            "required_capabilities",
            Names(REQUIRED_CAPABILITIES_MAX),
            "A consumer must have all of these.",
        ),
        optional(
            "correlation_id",
            Text(CORRELATION_ID_BYTES_MAX),
            "Ties a conversation together; of messages without a workflow.",
        ),
        optional("retry", One(&RETRY), "Overrides the group's retry policy."),
        optional(
            "timeout_seconds",
            Kind::Seconds(0, DURATION_MS_MAX),
            "Longest time from the start of the task to its outcome; with a workflow. Default 1 h \
             where a signal completes it, else none.",
        ),
        optional(
            "completion",
            Word(&["ack", "signal"]),
            "What completes the task; with a workflow. Default signal.",
        ),
    ]],
);

static ROUTED: Shape = Shape::new(
    "MessageRouted",
    "Where a message went.",
    &[&[
        required("status", Word(&["success"]), "Always `success`."),
        required("message_id", Name, "Its id."),
        required("routing_decision", One(&DECISION), "Where it went."),
        optional("workflow_id", Name, "The workflow that it is a task of."),
        optional("run_id", Name, "Its run."),
        optional(
            "already",
            Flag,
            "True when the same task was added before; nothing changed.",
        ),
    ]],
);

static DECISION: Shape = Shape::new(
    "RoutingDecision",
    "Where a message went.",
    &[&[
        required("target_group", Name, "The group."),
        required(
            "routing_strategy",
            Word(MODES),
            "How the group hands out its messages.",
        ),
        required(
            "priority_boost",
            Count(0, 0),
            "Always 0: a message keeps the priority that it came with.",
        ),
        required("dependency_wait", Flag, "Whether it waits for other tasks."),
        required("waits_for", Names(usize::MAX), "Those tasks."),
        required(
            "estimated_completion_time",
            TextOrNull,
            "Always null: nothing here can tell.",
        ),
        required("reasoning", Text(8_192), "Why this group."),
    ]],
);

/// A message to be routed, as it was read.
struct Routing {
    message: wire::Message,
    workflow_id: String,
    dependencies: Vec<String>,
    mode: Option<&'static str>,
    timeout: Option<prost_types::Duration>,
    completion: i32,
    /// Types that it may be work for, the best first.
    kinds: Vec<String>,
}

async fn route(
    State(gateway): State<Arc<Gateway>>,
    mut asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, Problem> {
    let mut fields = Fields::of(&body, &ROUTE, "");
    let read = read(&mut fields, &asked.trace);
    let target = asked.query.take_text("target_group");
    let onward = asked.onward();
    fields.finish()?;
    let namespace = asked.namespace;
    asked.query.finish()?;

    let wanted = wanted(&read, &target);
    let (number, choice) = gateway.choose(&onward, &namespace, &wanted).await?;
    let view = gateway.catalog.group(&namespace, &choice.group).await?;
    let own = view.definition.settings.routing_mode.as_str();
    if let Some(asked_for) = read.mode.filter(|mode| *mode != own) {
        let group = &choice.group;
        let rule = format!(
            "`{asked_for}` must be `{own}`: the mode belongs to the group, and `{group}` has that"
        );
        return Err(Fault::invalid_field("routing_mode", rule).into());
    }
    let message_id = read.message.message_id.clone();
    let decision = |group: &str, reason: &str, waits_for: &[String]| {
        json!({
            "target_group": group,
            "routing_strategy": own,
            "priority_boost": 0,
            "dependency_wait": !waits_for.is_empty(),
            "waits_for": waits_for,
            "estimated_completion_time": Value::Null,
            "reasoning": reason,
        })
    };
    if read.workflow_id.is_empty() {
        let request = wire::PublishRequest {
            group: choice.group.clone(),
            message: Some(read.message),
            ..wire::PublishRequest::default()
        };
        let published = gateway.publish(&namespace, request).await;
        published.map_err(|fault| in_our_words(fault, ""))?;
        return Ok(Json(json!({
            "status": "success",
            "message_id": message_id,
            "routing_decision": decision(&choice.group, &choice.reason, &[]),
        })));
    }
    let workflow_id = read.workflow_id.clone();
    let request = wire::RouteTaskRequest {
        workflow_id: workflow_id.clone(),
        task: Some(task(read, target, number)),
    };
    let answer = gateway.route_task(&onward, request).await;
    let answer = answer.map_err(|status| of_task(Fault::from(status)))?;
    Ok(Json(json!({
        "status": "success",
        "message_id": message_id,
        "routing_decision": decision(&answer.group, &answer.reason, &answer.waits_for),
        "workflow_id": workflow_id,
        "run_id": answer.run_id,
        "already": answer.already,
    })))
}

fn read(fields: &mut Fields, trace: &Trace) -> Routing {
    let (payload, content_type) = read_payload(fields);
    let mut headers = std::collections::BTreeMap::new();
    trace.fill(&mut headers);
    let message = wire::Message {
        message_id: fields.take_text("message_id"),
        from_agent: fields.take_text("from_agent"),
        message_type: fields.take_text("message_type"),
        payload,
        content_type,
        headers,
        priority: fields.take_guide_priority("priority"),
        correlation_id: fields.take_text("correlation_id"),
        required_capabilities: fields.take_names("required_capabilities"),
        retry: read_retry(fields),
        ..wire::Message::default()
    };
    let workflow_id = fields.take_text("workflow_id");
    let dependencies = fields.take_names("dependencies");
    if workflow_id.is_empty() {
        if !dependencies.is_empty() {
            fields.fault("workflow_id", "must be set where there are dependencies");
        }
        for field in ["timeout_seconds", "completion"] {
            if fields.has(field) {
                fields.fault(field, "is of tasks: workflow_id must be set, too");
            }
        }
    } else if !message.correlation_id.is_empty() {
        fields.fault("correlation_id", "is of messages without a workflow");
    }
    Routing {
        kinds: kinds(&message),
        workflow_id,
        dependencies,
        mode: fields.take_word("routing_mode"),
        timeout: fields.take_seconds("timeout_seconds"),
        completion: read_completion(fields, Manner::Guide),
        message,
    }
}

/// What a message may be work for: `payload.task_type`, `payload.type`, its own type.
fn kinds(message: &wire::Message) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Payload {
        task_type: Option<Value>,
        r#type: Option<Value>,
    }
    let payload: Option<Payload> = serde_json::from_slice(&message.payload).ok();
    let said = payload.map_or([None, None], |payload| [payload.task_type, payload.r#type]);
    let mut kinds: Vec<String> = said
        .into_iter()
        .flatten()
        .filter_map(|kind| kind.as_str().map(str::to_owned))
        .filter(|kind| hive_domain::name::is_name(kind))
        .collect();
    kinds.push(message.message_type.clone());
    kinds
}

fn wanted(read: &Routing, target: &str) -> Vec<Wanted> {
    let required: CapabilitySet = read.message.required_capabilities.iter().cloned().collect();
    let one = |group: Option<String>, kind: &str| Wanted {
        group,
        kind: kind.to_owned(),
        required_capabilities: required.clone(),
        is_by_capability: true,
    };
    if target.is_empty() {
        read.kinds.iter().map(|kind| one(None, kind)).collect()
    } else {
        vec![one(Some(target.to_owned()), "")]
    }
}

/// The task that a message becomes; `number` says which of its types is served.
fn task(read: Routing, target: String, number: usize) -> wire::TaskSpec {
    let kind = if target.is_empty() {
        read.kinds.into_iter().nth(number).unwrap_or_default()
    } else {
        String::new()
    };
    let message = read.message;
    wire::TaskSpec {
        id: message.message_id,
        r#type: kind,
        group: target,
        dependencies: read.dependencies,
        priority: message.priority,
        payload: message.payload,
        content_type: message.content_type,
        required_capabilities: message.required_capabilities,
        timeout: read.timeout,
        retry: message.retry,
        completion: read.completion,
        message_type: message.message_type,
        from_agent: message.from_agent,
        ..wire::TaskSpec::default()
    }
}

/// What a router says of the one task of a call, in the words of that call.
fn of_task(fault: Fault) -> Problem {
    if fault.violations.is_empty() {
        return fault.into();
    }
    let reason = fault.reason;
    let faults = fault.violations.into_iter().map(|fault| {
        let field = match fault.field.strip_prefix("task.") {
            Some("id") => "message_id",
            Some(field) => field,
            None => &fault.field,
        };
        Violation::new(field, fault.description.clone())
    });
    let faults: Violations = faults.collect();
    Fault::invalid_because(reason, renamed(faults, "")).into()
}

async fn route_workflow(
    State(gateway): State<Arc<Gateway>>,
    mut asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, Problem> {
    let named = asked.query.take_text("workflow_id");
    let onward = asked.onward();
    asked.query.finish()?;
    let body = whole(&body)?;
    let mut fields = Fields::new(body, &GUIDE_WORKFLOW, "");
    let manner = (Manner::Guide, &GUIDE_TASK);
    let mut spec = read_workflow(&mut fields, manner, gateway.payload_max());
    if spec.workflow_id.is_empty() {
        spec.workflow_id.clone_from(&named);
    } else if !named.is_empty() && named != spec.workflow_id {
        let rule = format!("`{named}` in the query is another one than that in the body");
        fields.fault("workflow_id", rule);
    }
    if spec.workflow_id.is_empty() && !fields.has_faults() {
        fields.fault("workflow_id", "must be set, here or in the query");
    }
    fields.finish()?;
    let answer = workflows::send(&gateway, &onward, spec).await?;
    Ok(Json(workflows::submitted(&answer)))
}

/// The fields of a body that is an object, or a bare list of tasks.
fn whole(body: &RawValue) -> Result<Given, Fault> {
    if let Some(given) = Given::object(body) {
        return Ok(given);
    }
    if body.get().starts_with('[') {
        return Ok(Given::one("tasks", body));
    }
    let rule = "the body must be an object, or a list of tasks";
    Err(Fault::new(Reason::MalformedBody, rule))
}

#[cfg(test)]
mod tests;
