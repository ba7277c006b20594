//! Workflows and tasks from JSON.

use hive_domain::violation::path;
use hive_domain::workflow::{
    Completion, DependencyMode, FailurePolicy, Limits, Strategy, TaskStatus,
};
use hive_protocol::{wire, workflow};

use super::{
    super::{
        fields::Fields,
        messages::{read_payload, read_retry},
        problem::renamed,
    },
    shapes::{TASK, WORKFLOW_SPEC},
};
use crate::rest::shape::Shape;

/// How a caller writes tasks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::rest) enum Manner {
    /// As this interface does.
    Ours,
    /// As the migration guide does: priorities count from 1, and tasks are completed by a signal.
    Guide,
}

/// The shape of a workflow that is written as this interface does.
pub(super) const fn own_shape() -> &'static Shape {
    &WORKFLOW_SPEC
}

/// The shape of a task that is written as this interface does.
pub(super) const fn own_task_shape() -> &'static Shape {
    &TASK
}

/// Reads a workflow. Once anything is at fault, what the router would find in the rest is noted
/// too, as far as its limits are the usual ones.
pub(in crate::rest) fn read_workflow(
    fields: &mut Fields,
    (manner, task): (Manner, &'static Shape),
    payload_max: usize,
) -> wire::WorkflowSpec {
    let spec = wire::WorkflowSpec {
        workflow_id: fields.take_text("workflow_id"),
        tasks: read_tasks(fields, "tasks", (manner, task)),
        dependency_mode: fields
            .take_word("dependency_mode")
            .and_then(|word| word.parse::<DependencyMode>().ok())
            .map_or(0, |mode| workflow::dependency_mode(mode).into()),
        strategy: fields
            .take_word("strategy")
            .and_then(|word| word.parse::<Strategy>().ok())
            .map_or(0, |strategy| workflow::strategy(strategy).into()),
        max_parallel_tasks: fields.take_u32("max_parallel_tasks").unwrap_or(0),
        deadline: fields.take_seconds("deadline_seconds"),
        labels: fields.take_pairs("labels"),
        on_failure: read_policy(fields),
        open: fields.take_flag("open").unwrap_or(false),
    };
    if fields.has_faults()
        && let Err(more) = workflow::read_workflow(spec.clone(), &Limits::default(), payload_max)
    {
        fields.add_missing(renamed(more, ""));
    }
    spec
}

/// Reads the tasks of the field `name`.
pub(in crate::rest) fn read_tasks(
    fields: &mut Fields,
    name: &str,
    (manner, shape): (Manner, &'static Shape),
) -> Vec<wire::TaskSpec> {
    let items = fields.take_items(name);
    let mut tasks = Vec::with_capacity(items.len());
    for (number, item) in items.iter().enumerate() {
        let place = path("", &format!("{name}[{number}]"));
        let mut inner = Fields::of(item, shape, &place);
        tasks.push(read_task(&mut inner, manner));
        fields.close(inner);
    }
    tasks
}

fn read_task(fields: &mut Fields, manner: Manner) -> wire::TaskSpec {
    if fields.has("type") && fields.has("task_type") {
        fields.fault("task_type", "is given beside type, one must be");
    }
    let kind = fields.take_text("type");
    let other = fields.take_text("task_type");
    let (payload, content_type) = if fields.has("payload") || fields.has("payload_base64") {
        read_payload(fields)
    } else {
        (bytes::Bytes::new(), fields.take_text("content_type"))
    };
    wire::TaskSpec {
        id: fields.take_text("id"),
        r#type: if kind.is_empty() { other } else { kind },
        group: fields.take_text("group"),
        dependencies: fields.take_names("dependencies"),
        priority: match manner {
            Manner::Ours => fields.take_priority("priority"),
            Manner::Guide => fields.take_guide_priority("priority"),
        },
        payload,
        content_type,
        required_capabilities: fields.take_names("required_capabilities"),
        timeout: fields.take_seconds("timeout_seconds"),
        queue_timeout: fields.take_seconds("queue_timeout_seconds"),
        retry: read_retry(fields),
        on_failure: read_policy(fields),
        condition: fields.take_text("condition"),
        completion: read_completion(fields, manner),
        quorum: fields.take_text_or_number("quorum"),
        message_type: fields.take_text("message_type"),
        from_agent: fields.take_text("from_agent"),
    }
}

fn read_policy(fields: &mut Fields) -> i32 {
    let word = fields.take_word("on_failure");
    word.and_then(|word| word.parse::<FailurePolicy>().ok())
        .map_or(0, |policy| workflow::failure_policy(policy).into())
}

/// What completes a task; what is not said is as the manner has it.
pub(in crate::rest) fn read_completion(fields: &mut Fields, manner: Manner) -> i32 {
    let said = fields
        .take_word("completion")
        .and_then(|word| word.parse::<Completion>().ok());
    match (said, manner) {
        (Some(said), _) => workflow::task_completion(said).into(),
        (None, Manner::Ours) => 0,
        (None, Manner::Guide) => wire::TaskCompletion::Signal.into(),
    }
}

/// The word for the state of a task.
pub(super) fn state_word(state: wire::TaskState) -> &'static str {
    workflow::task_status(state).map_or("unspecified", TaskStatus::as_str)
}
