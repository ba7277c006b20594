//! Workflows of the wire as domain types, and what is asked of them as checked calls.
//!
//! A workflow comes apart at the door: the definition, which decisions are made of, and for each
//! task the message that its group gets, which no decision needs. What a caller left out is filled
//! in here. Faults of both come in one answer, with those that `hive_domain` finds in the graph.
//!
//! `words` turns states and modes of the wire into the domain's and back; the words of JSON and of
//! command lines are those of the domain. `calls` checks what is asked about runs.

use hive_domain::{
    name,
    violation::{Violation, Violations, quoted},
    workflow::{
        Graph, Limits, Quorum, TaskDefinition, WorkflowDefinition,
        definition::{DURATION_MS_MAX, PARALLEL_TASKS_DEFAULT, check},
    },
};
use prost::Message as _;

use crate::{
    limits::{ADDED_TASKS_MAX, PRIORITY_DEFAULT, PRIORITY_MAX, WORKFLOW_BYTES_MAX},
    message::{at_most, check_content_type, check_retry},
    time, wire,
};

mod calls;
mod words;

pub use self::{
    calls::{History, Listing, check_input, check_labels, check_result, history, list},
    words::{
        completion_said, dependency_mode, dependency_mode_said, failure_policy,
        failure_policy_said, read_completion, read_dependency_mode, read_failure_policy,
        read_state, read_strategy, run_status, strategy, strategy_said, task_completion,
        task_state, task_status, workflow_state,
    },
};

/// Most faults that an answer lists of what is read here; `hive_domain` lists as many of its own.
const FAULTS_MAX: usize = 200;

/// A checked workflow.
#[derive(Debug, Clone, PartialEq)]
pub struct Submitted {
    /// What decisions are made of.
    pub definition: WorkflowDefinition,
    /// Who waits for whom; tasks that are awaited stand behind the others.
    pub graph: Graph,
    /// What the groups get, one message for each task of `definition`. The router adds the run,
    /// the inputs, the answer to a question and the message's own id.
    pub contents: Vec<wire::Message>,
}

/// A task that was read and not held against a run yet.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadTask {
    /// What decisions are made of.
    pub definition: TaskDefinition,
    /// What its group gets, as in [`Submitted::contents`].
    pub content: wire::Message,
}

/// The workflow that a caller gives. `payload_max` is the largest payload of a task in bytes.
///
/// # Errors
/// All faults, with paths like `tasks[3].timeout`; where there are more tasks than `limits` allow
/// none of them is looked at.
pub fn read_workflow(
    spec: wire::WorkflowSpec,
    limits: &Limits,
    payload_max: usize,
) -> Result<Submitted, Violations> {
    let mut faults = Faults::default();
    let bytes = spec.encoded_len();
    faults.take(at_most("tasks", bytes, WORKFLOW_BYTES_MAX));
    let count = spec.tasks.len();
    let is_too_long = count > limits.tasks_max;
    if is_too_long {
        let max = limits.tasks_max;
        faults.push(
            "tasks",
            format!("has `{count}` tasks and must have at most {max}"),
        );
    }
    let wire::WorkflowSpec {
        workflow_id,
        tasks,
        dependency_mode,
        strategy,
        max_parallel_tasks,
        deadline,
        labels,
        on_failure,
        open,
    } = spec;
    let mut definition = WorkflowDefinition {
        dependency_mode: faults.or_default(read_dependency_mode(dependency_mode)),
        strategy: faults.or_default(read_strategy(strategy)),
        max_parallel_tasks: match max_parallel_tasks {
            0 => PARALLEL_TASKS_DEFAULT,
            named => named,
        },
        deadline_ms: faults.or_default(duration("deadline", deadline.as_ref())),
        labels,
        on_failure: faults
            .or_default(read_failure_policy(on_failure))
            .unwrap_or_default(),
        is_open: open,
        workflow_id,
        tasks: Vec::new(),
    };
    let mut contents = Vec::new();
    if !is_too_long {
        contents.reserve(count);
        definition.tasks.reserve(count);
        for (number, task) in tasks.into_iter().enumerate() {
            let place = || format!("tasks[{number}]");
            let task = read(
                task,
                &definition.workflow_id,
                place,
                payload_max,
                &mut faults,
            );
            definition.tasks.push(task.definition);
            contents.push(task.content);
        }
    }
    let checked = check(&definition, limits);
    match checked {
        Ok(graph) if faults.is_empty() => Ok(Submitted {
            definition,
            graph,
            contents,
        }),
        Ok(_) => Err(faults.into_violations()),
        Err(of_graph) => {
            let mut all = faults.into_violations();
            // Without its tasks a workflow seems empty, and what is wrong was said above.
            let seen = of_graph
                .into_iter()
                .filter(|fault| !(is_too_long && fault.field == "tasks"));
            all.nest("", seen.collect());
            Err(all)
        },
    }
}

/// Tasks that are to be added to a run of `workflow_id`, which stand in the field `prefix` of
/// their call. Names, conditions and dependencies are left to
/// `hive_domain::workflow::definition::check_added`, which knows the run.
///
/// # Errors
/// All faults, with paths like `tasks[3].timeout` for the prefix `tasks`.
pub fn read_tasks(
    specs: Vec<wire::TaskSpec>,
    workflow_id: &str,
    prefix: &str,
    payload_max: usize,
) -> Result<Vec<ReadTask>, Violations> {
    let (tasks, faults) = read_added(specs, workflow_id, prefix, payload_max);
    faults.into_result().map(|()| tasks)
}

/// As [`read_tasks`], for a caller that has more to check: what could be read, and the faults of
/// the rest. There are no tasks where there are too many or none.
#[must_use]
pub fn read_added(
    specs: Vec<wire::TaskSpec>,
    workflow_id: &str,
    prefix: &str,
    payload_max: usize,
) -> (Vec<ReadTask>, Violations) {
    let mut faults = Faults::default();
    let count = specs.len();
    if !(1..=ADDED_TASKS_MAX).contains(&count) {
        let rule = format!("has `{count}` tasks and must have 1 to {ADDED_TASKS_MAX}");
        return (Vec::new(), Violations::one(prefix, rule));
    }
    let bytes = specs.iter().map(wire::TaskSpec::encoded_len).sum();
    faults.take(at_most(prefix, bytes, WORKFLOW_BYTES_MAX));
    let tasks = specs.into_iter().enumerate().map(|(number, task)| {
        let place = || format!("{prefix}[{number}]");
        read(task, workflow_id, place, payload_max, &mut faults)
    });
    let tasks = tasks.collect();
    (tasks, faults.into_violations())
}

/// The one task of a call, which stands in its field `field`.
///
/// # Errors
/// All faults, with paths like `task.timeout`.
pub fn read_task(
    spec: wire::TaskSpec,
    workflow_id: &str,
    field: &str,
    payload_max: usize,
) -> Result<ReadTask, Violations> {
    let mut faults = Faults::default();
    let place = || field.to_owned();
    let task = read(spec, workflow_id, place, payload_max, &mut faults);
    faults.into_violations().into_result().map(|()| task)
}

/// Faults of a list of tasks as those of a call that has one task in its field `field`.
#[must_use]
pub fn of_one_task(faults: Violations, field: &str) -> Violations {
    let moved = faults.into_iter().map(|mut fault| {
        if let Some(rest) = fault.field.strip_prefix("tasks[0]") {
            fault.field = format!("{field}{rest}");
        }
        fault
    });
    moved.collect()
}

/// One task; `place` is its path.
fn read(
    spec: wire::TaskSpec,
    workflow_id: &str,
    place: impl Fn() -> String,
    payload_max: usize,
    faults: &mut Faults,
) -> ReadTask {
    let wire::TaskSpec {
        id,
        r#type: kind,
        group,
        dependencies,
        priority,
        payload,
        content_type,
        required_capabilities,
        timeout,
        queue_timeout,
        retry,
        on_failure,
        condition,
        completion,
        quorum,
        message_type,
        from_agent,
    } = spec;
    let mut own = Violations::new();
    own.take(at_most("payload", payload.len(), payload_max));
    check_content_type(&content_type, &mut own);
    for (field, value) in [("message_type", &message_type), ("from_agent", &from_agent)] {
        own.take(name::check_optional(field, value));
    }
    if let Some(retry) = &retry {
        let mut inner = Violations::new();
        check_retry(retry, &mut inner);
        own.nest("retry", inner);
    }
    let definition = TaskDefinition {
        priority: own.take(read_priority(priority)).unwrap_or_default(),
        timeout_ms: own
            .take(duration("timeout", timeout.as_ref()))
            .unwrap_or_default(),
        queue_timeout_ms: own
            .take(duration("queue_timeout", queue_timeout.as_ref()))
            .unwrap_or_default(),
        on_failure: own
            .take(read_failure_policy(on_failure))
            .unwrap_or_default(),
        completion: own.take(read_completion(completion)).unwrap_or_default(),
        quorum: own.take(read_quorum(&quorum)).unwrap_or_default(),
        required_capabilities: required_capabilities.iter().cloned().collect(),
        group: (!group.is_empty()).then_some(group),
        id,
        kind,
        dependencies,
        condition,
    };
    if !own.is_empty() {
        let place = place();
        own.into_iter()
            .for_each(|fault| faults.add(fault.below(&place)));
    }
    let content = wire::Message {
        from_agent,
        message_type: if message_type.is_empty() {
            definition.kind.clone()
        } else {
            message_type
        },
        payload,
        content_type,
        priority: Some(u32::from(definition.priority)),
        workflow_id: workflow_id.to_owned(),
        task_id: definition.id.clone(),
        required_capabilities,
        retry,
        ..wire::Message::default()
    };
    ReadTask {
        definition,
        content,
    }
}

fn read_priority(priority: Option<u32>) -> Result<u8, Violation> {
    let Some(named) = priority else {
        return Ok(PRIORITY_DEFAULT);
    };
    let fits = u8::try_from(named).ok().filter(|it| *it <= PRIORITY_MAX);
    fits.ok_or_else(|| {
        let rule = format!("`{named}` must be between 0 and {PRIORITY_MAX}");
        Violation::new("priority", rule)
    })
}

fn read_quorum(text: &str) -> Result<Quorum, Violation> {
    if text.is_empty() {
        return Ok(Quorum::default());
    }
    text.parse().map_err(|_no_quorum| {
        let rule = format!("{} must be `majority`, `any` or a number", quoted(text));
        Violation::new("quorum", rule)
    })
}

/// Milliseconds of a duration that may be unset: then 0, which means none.
fn duration(field: &str, wire: Option<&prost_types::Duration>) -> Result<u64, Violation> {
    let read = time::optional_duration_ms(field, wire, DURATION_MS_MAX)?;
    Ok(read.unwrap_or_default())
}

/// Faults up to the number that an answer lists.
#[derive(Default)]
struct Faults {
    listed: Violations,
    more: usize,
}

impl Faults {
    fn add(&mut self, fault: Violation) {
        if self.listed.len() < FAULTS_MAX {
            self.listed.push(fault.field, fault.description);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    fn push(&mut self, field: &str, description: String) {
        self.add(Violation::new(field, description));
    }

    fn take(&mut self, checked: Result<(), Violation>) {
        self.or_default(checked);
    }

    /// The value, or the default one after noting the fault.
    fn or_default<T: Default>(&mut self, read: Result<T, Violation>) -> T {
        read.unwrap_or_else(|fault| {
            self.add(fault);
            T::default()
        })
    }

    const fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    fn into_violations(self) -> Violations {
        let mut listed = self.listed;
        if self.more > 0 {
            let rule = format!("have `{}` more faults that are not listed", self.more);
            listed.push("tasks", rule);
        }
        listed
    }
}

#[cfg(test)]
mod tests;
