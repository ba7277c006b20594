//! Runs as callers see them.

use bytes::Bytes;
use hive_domain::{
    time::Timestamp,
    workflow::{RunStatus, TaskIndex, TaskStatus, run::Waits},
};
use hive_protocol::{time, wire, workflow};
use hive_store::runs::Heading;

use crate::stored::{self, Loaded, Undecodable};

/// A run with its tasks.
pub(crate) fn workflow(loaded: &Loaded, run_id: &str) -> wire::Workflow {
    let run = &loaded.run;
    let tasks = (0..).take(run.tasks().len());
    wire::Workflow {
        tasks: tasks.filter_map(|task| self::task(loaded, task)).collect(),
        ..summary(
            run_id,
            loaded.created_ms,
            run.head(),
            &stored::Meta::of(run.definition()),
            &stored::counts(run),
        )
    }
}

/// A run as lists show it.
pub(crate) fn heading(heading: &Heading) -> Result<wire::Workflow, Undecodable> {
    Ok(summary(
        &heading.run_id,
        heading.created_ms,
        &stored::head_of(&heading.head)?,
        &stored::meta_of(&heading.head)?,
        &stored::counts_of(&heading.head)?,
    ))
}

fn summary(
    run_id: &str,
    created_ms: u64,
    head: &hive_domain::workflow::run::Head,
    meta: &stored::Meta,
    counts: &[u32],
) -> wire::Workflow {
    let ending = head.ending.as_ref();
    let reason = match head.status {
        RunStatus::Paused => head.reason.clone(),
        RunStatus::Running | RunStatus::Succeeded | RunStatus::Failed | RunStatus::Cancelled => {
            ending.map(|one| one.reason.clone()).unwrap_or_default()
        },
    };
    let counts = TaskStatus::ALL.iter().zip(counts);
    wire::Workflow {
        workflow_id: meta.workflow_id.clone(),
        run_id: run_id.to_owned(),
        state: workflow::workflow_state(head.status).into(),
        reason,
        created_at: Some(time::to_timestamp(Timestamp(created_ms))),
        finished_at: head.finished_at.map(time::to_timestamp),
        deadline_at: head.deadline_at.map(time::to_timestamp),
        labels: meta.labels.clone(),
        dependency_mode: workflow::dependency_mode(meta.dependency_mode).into(),
        strategy: workflow::strategy(meta.strategy).into(),
        max_parallel_tasks: meta.max_parallel_tasks,
        parallel_limit: head.parallel_limit,
        open: meta.is_open && !head.is_closed,
        task_counts: counts
            .filter(|(_, count)| **count > 0)
            .map(|(status, count)| (status.to_string(), *count))
            .collect(),
        tasks: Vec::new(),
        event_id: String::new(),
        ending: ending.is_some() && !head.status.is_final(),
    }
}

fn task(loaded: &Loaded, task: TaskIndex) -> Option<wire::Task> {
    let state = loaded.run.task(task)?;
    let place = usize::try_from(task).ok()?;
    let definition = loaded.run.definition().tasks.get(place)?;
    let target = loaded.target(task).map(|at| at.group.clone());
    let group = target.or_else(|| definition.group.clone());
    Some(wire::Task {
        id: definition.id.clone(),
        r#type: definition.kind.clone(),
        group: group.unwrap_or_default(),
        dependencies: definition.dependencies.clone(),
        priority: u32::from(definition.priority),
        state: workflow::task_state(state.status).into(),
        attempt: state.attempt,
        deliveries: state.deliveries,
        consumer: state.consumer.clone(),
        started_at: state.started_at.map(time::to_timestamp),
        finished_at: state.finished_at.map(time::to_timestamp),
        reason: state.reason.clone(),
        has_result: state.has_result,
        result: Bytes::new(),
        provisional: state.is_provisional(),
    })
}

/// Why a task is not running: a stable word, and sentences for a person.
pub(crate) fn explain(loaded: &Loaded, task: TaskIndex) -> Option<wire::ExplainTaskResponse> {
    let run = &loaded.run;
    let state = run.task(task)?;
    let name = |task: &TaskIndex| run.id(*task).unwrap_or_default().to_owned();
    let target = loaded.target(task);
    let (word, line) = match run.waits(task)? {
        Waits::Over => (
            "nothing",
            if state.reason.is_empty() {
                format!("it is {}", state.status)
            } else {
                format!("it is {}: {}", state.status, state.reason)
            },
        ),
        Waits::Dependencies { open, missing } => (
            "dependencies",
            format!(
                "{missing} more of its dependencies must succeed; open are {}",
                quoted(open.iter().map(name))
            ),
        ),
        Waits::Condition => ("condition", "its condition is being evaluated".to_owned()),
        Waits::Resume => (
            "resume",
            "the run is paused; `hive workflow resume` lets it go on".to_owned(),
        ),
        Waits::Slot { ahead } => (
            "slot",
            format!(
                "as many tasks of the run are at work as may be, {}; {ahead} that are ready go \
                 first",
                run.head()
                    .parallel_limit
                    .min(run.definition().max_parallel_tasks)
            ),
        ),
        Waits::Queue { is_placed: false } => (
            "placement",
            "no group serves it yet; create one for its type".to_owned(),
        ),
        Waits::Queue { is_placed: true } => (
            "queue",
            format!(
                "it is sent to group `{}` and no agent has it",
                target.map(|at| at.group.as_str()).unwrap_or_default()
            ),
        ),
        Waits::Agent { consumer, .. } => (
            "agent",
            format!("agent `{consumer}` has it, delivery {}", state.deliveries),
        ),
        Waits::Shard => (
            "shard",
            "its attempt is being ended; the outcome is on its way".to_owned(),
        ),
        Waits::Input => (
            "input",
            format!("it asks: {}; answer by `hive workflow input`", state.reason),
        ),
        Waits::Addition => (
            "addition",
            "others depend on it, and nobody added or signalled it yet".to_owned(),
        ),
    };
    Some(wire::ExplainTaskResponse {
        state: workflow::task_state(state.status).into(),
        waits_for: word.to_owned(),
        lines: vec![line],
    })
}

fn quoted(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    names.join(", ")
}
