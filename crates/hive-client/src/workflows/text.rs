//! Workflows from YAML or JSON.
//!
//! The fields are those of the REST interface, so that one file serves `curl`, the command line and
//! this crate. What begins with a brace is read as JSON, everything else as YAML; a payload is JSON
//! in both.

use std::{collections::BTreeMap, time::Duration};

use hive_protocol::{
    message::priority_word,
    wire::{
        DependencyMode, FailurePolicy, RetryPolicy, TaskCompletion, TaskSpec, WorkflowSpec,
        WorkflowStrategy,
    },
};
use serde::Deserialize;
use serde_json::Value;

use super::{Workflow, wire_duration};

/// Why a text is no workflow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Its form is wrong: the place and the rule.
    #[error("this is no workflow: {0}")]
    Form(String),
    /// A word stands for nothing.
    #[error("{field}: `{word}` must be one of {known}")]
    Word {
        /// Path of the field.
        field: String,
        /// What it says.
        word: String,
        /// What it may say.
        known: String,
    },
    /// A number is none that the field can have.
    #[error("{field}: `{value}` must be {rule}")]
    Value {
        /// Path of the field.
        field: String,
        /// What it says.
        value: String,
        /// What it must be.
        rule: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkflowText {
    workflow_id: String,
    #[serde(default)]
    tasks: Vec<TaskText>,
    dependency_mode: Option<String>,
    strategy: Option<String>,
    max_parallel_tasks: Option<u32>,
    deadline_seconds: Option<f64>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    on_failure: Option<String>,
    #[serde(default)]
    open: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskText {
    id: String,
    #[serde(alias = "task_type")]
    r#type: Option<String>,
    group: Option<String>,
    #[serde(default)]
    dependencies: Vec<String>,
    priority: Option<NumberOrWord>,
    payload: Option<Value>,
    content_type: Option<String>,
    #[serde(default)]
    required_capabilities: Vec<String>,
    timeout_seconds: Option<f64>,
    queue_timeout_seconds: Option<f64>,
    retry: Option<RetryText>,
    on_failure: Option<String>,
    condition: Option<String>,
    completion: Option<String>,
    quorum: Option<NumberOrWord>,
    message_type: Option<String>,
    from_agent: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryText {
    max_attempts: Option<u32>,
    initial_backoff_seconds: Option<f64>,
    max_backoff_seconds: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrWord {
    Number(u32),
    Word(String),
}

/// Reads a workflow.
///
/// # Errors
/// The first fault.
pub(super) fn read(text: &str) -> Result<Workflow, ReadError> {
    let form = |fault: String| ReadError::Form(fault);
    let read: WorkflowText = if text.trim_start().starts_with('{') {
        serde_json::from_str(text).map_err(|fault| form(fault.to_string()))?
    } else {
        serde_saphyr::from_str(text).map_err(|fault| form(fault.to_string()))?
    };
    let mut tasks = Vec::with_capacity(read.tasks.len());
    for (number, task) in read.tasks.into_iter().enumerate() {
        tasks.push(read_task(task, &format!("tasks[{number}]"))?);
    }
    let policy = failure_policy("on_failure", read.on_failure)?;
    Ok(Workflow::from(WorkflowSpec {
        workflow_id: read.workflow_id,
        tasks,
        dependency_mode: word(
            "dependency_mode",
            read.dependency_mode,
            (&MODES, "DEPENDENCY_MODE_", DependencyMode::from_str_name),
        )?
        .map_or(0, Into::into),
        strategy: word(
            "strategy",
            read.strategy,
            (
                &STRATEGIES,
                "WORKFLOW_STRATEGY_",
                WorkflowStrategy::from_str_name,
            ),
        )?
        .map_or(0, Into::into),
        max_parallel_tasks: read.max_parallel_tasks.unwrap_or(0),
        deadline: seconds("deadline_seconds", read.deadline_seconds)?,
        labels: read.labels,
        on_failure: policy.map_or(0, Into::into),
        open: read.open,
    }))
}

fn read_task(task: TaskText, place: &str) -> Result<TaskSpec, ReadError> {
    let at = |field: &str| format!("{place}.{field}");
    let completion = word(
        &at("completion"),
        task.completion,
        (
            &["ack", "signal"],
            "TASK_COMPLETION_",
            TaskCompletion::from_str_name,
        ),
    )?;
    let policy = failure_policy(&at("on_failure"), task.on_failure)?;
    let retry = match task.retry {
        None => None,
        Some(retry) => Some(RetryPolicy {
            max_attempts: retry.max_attempts,
            initial_backoff: seconds(
                &at("retry.initial_backoff_seconds"),
                retry.initial_backoff_seconds,
            )?,
            max_backoff: seconds(&at("retry.max_backoff_seconds"), retry.max_backoff_seconds)?,
        }),
    };
    let payload = task.payload.map_or(Ok(String::new()), |payload| {
        serde_json::to_string(&payload).map_err(|fault| ReadError::Form(fault.to_string()))
    })?;
    Ok(TaskSpec {
        id: task.id,
        r#type: task.r#type.unwrap_or_default(),
        group: task.group.unwrap_or_default(),
        dependencies: task.dependencies,
        priority: task
            .priority
            .map(|said| priority(&at("priority"), said))
            .transpose()?,
        payload: payload.into(),
        content_type: task.content_type.unwrap_or_default(),
        required_capabilities: task.required_capabilities,
        timeout: seconds(&at("timeout_seconds"), task.timeout_seconds)?,
        queue_timeout: seconds(&at("queue_timeout_seconds"), task.queue_timeout_seconds)?,
        retry,
        on_failure: policy.map_or(0, Into::into),
        condition: task.condition.unwrap_or_default(),
        completion: completion.map_or(0, Into::into),
        quorum: match task.quorum {
            None => String::new(),
            Some(NumberOrWord::Number(count)) => count.to_string(),
            Some(NumberOrWord::Word(word)) => word,
        },
        message_type: task.message_type.unwrap_or_default(),
        from_agent: task.from_agent.unwrap_or_default(),
    })
}

const MODES: [&str; 3] = ["strict", "best_effort", "optimistic"];
const STRATEGIES: [&str; 6] = [
    "sequential",
    "parallel",
    "adaptive",
    "priority_based",
    "capability_matched",
    "hybrid",
];
const POLICIES: [&str; 4] = ["fail_workflow", "skip_dependents", "continue", "pause"];

fn failure_policy(field: &str, said: Option<String>) -> Result<Option<FailurePolicy>, ReadError> {
    let words = (
        &POLICIES[..],
        "FAILURE_POLICY_",
        FailurePolicy::from_str_name as Named<_>,
    );
    word(field, said, words)
}

/// Finds the number of a name of the wire.
type Named<T> = fn(&str) -> Option<T>;

/// The value of the wire that a word stands for: its name there is the word in upper case.
fn word<T>(
    field: &str,
    said: Option<String>,
    (known, prefix, named): (&[&str], &str, Named<T>),
) -> Result<Option<T>, ReadError> {
    let Some(said) = said else { return Ok(None) };
    let is_known = known.contains(&said.as_str());
    let name = format!("{prefix}{}", said.to_ascii_uppercase());
    let found = is_known.then(|| named(&name)).flatten();
    found.map(Some).ok_or_else(|| ReadError::Word {
        field: field.to_owned(),
        word: said,
        known: known.join(", "),
    })
}

fn priority(field: &str, said: NumberOrWord) -> Result<u32, ReadError> {
    match said {
        NumberOrWord::Number(number) => Ok(number),
        NumberOrWord::Word(word) => {
            let known = priority_word(&word).map(u32::from);
            known.ok_or_else(|| ReadError::Word {
                field: field.to_owned(),
                word,
                known: "0 to 9, low, normal, high, urgent, critical".to_owned(),
            })
        },
    }
}

fn seconds(field: &str, said: Option<f64>) -> Result<Option<prost_types::Duration>, ReadError> {
    let Some(said) = said else { return Ok(None) };
    let duration = Duration::try_from_secs_f64(said);
    let duration = duration.map_err(|_none| ReadError::Value {
        field: field.to_owned(),
        value: said.to_string(),
        rule: "a number of seconds, at least 0",
    })?;
    Ok(wire_duration(duration))
}

#[cfg(test)]
mod tests {
    use hive_protocol::wire::{DependencyMode, FailurePolicy, TaskCompletion, WorkflowStrategy};

    use super::{ReadError, read};
    use crate::workflows::{Task, Workflow};

    const YAML: &str = r#"
# A comment.
workflow_id: feature-42
dependency_mode: best_effort
strategy: priority_based
max_parallel_tasks: 3
deadline_seconds: 3600
on_failure: pause
labels: {team: a, ticket: "42"}
tasks:
  - id: design
    type: architecture
    payload:
      feature: 42
      title: "größer: 1 < 2"
      tags: [a, null, true]
  - id: api
    task_type: backend
    dependencies: [design]
    priority: high
    timeout_seconds: 1.5
    retry: {max_attempts: 2, initial_backoff_seconds: 0.5}
    on_failure: continue
    condition: |-
      inputs.design.ok == true
    completion: signal
    quorum: 1
    required_capabilities: [rust]
"#;

    #[test]
    fn a_workflow_is_read_from_yaml() {
        let workflow = read(YAML).unwrap();
        let payload = r#"{"feature":42,"tags":["a",null,true],"title":"größer: 1 < 2"}"#;
        let expected = Workflow::new("feature-42")
            .dependency_mode(DependencyMode::BestEffort)
            .strategy(WorkflowStrategy::PriorityBased)
            .max_parallel_tasks(3)
            .deadline(std::time::Duration::from_secs(3_600))
            .on_failure(FailurePolicy::Pause)
            .label("team", "a")
            .label("ticket", "42")
            .task(Task::new("design").kind("architecture").payload(payload))
            .task(
                Task::new("api")
                    .kind("backend")
                    .after(["design"])
                    .priority(7)
                    .timeout(std::time::Duration::from_millis(1_500))
                    .retry(crate::wire::RetryPolicy {
                        max_attempts: Some(2),
                        initial_backoff: Some(prost_types::Duration {
                            seconds: 0,
                            nanos: 500_000_000,
                        }),
                        max_backoff: None,
                    })
                    .on_failure(FailurePolicy::Continue)
                    .when("inputs.design.ok == true")
                    .completed_by(TaskCompletion::Signal)
                    .quorum(1)
                    .requires(["rust"]),
            );
        assert_eq!(workflow, expected);
    }

    #[test]
    fn a_workflow_is_read_from_json() {
        let text = r#" {"workflow_id": "w", "open": true,
            "tasks": [{"id": "a", "group": "g", "priority": 9, "payload": {"n": 1.50}}]}"#;
        let workflow = read(text).unwrap();
        let task = Task::new("a")
            .group("g")
            .priority(9)
            .payload(r#"{"n":1.5}"#);
        assert_eq!(workflow, Workflow::new("w").open().task(task));
    }

    #[test]
    fn what_is_no_workflow_says_why() {
        for (text, expected) in [
            ("{", "EOF"),
            ("tasks: []", "workflow_id"),
            ("workflow_id: w\nnonsense: 1", "nonsense"),
            ("workflow_id: w\ntasks: [{id: a, id2: b}]", "id2"),
            ("workflow_id: w\ntasks: 7", "tasks"),
            ("a: [b", ""),
            ("", ""),
        ] {
            let fault = read(text).unwrap_err().to_string();
            assert!(fault.contains(expected), "{text}: {fault}");
        }
        assert_eq!(
            read("workflow_id: w\nstrategy: best")
                .unwrap_err()
                .to_string(),
            "strategy: `best` must be one of sequential, parallel, adaptive, priority_based, \
             capability_matched, hybrid"
        );
        let fault = read("workflow_id: w\ntasks: [{id: a, timeout_seconds: -1}]").unwrap_err();
        assert!(matches!(fault, ReadError::Value { ref field, .. }
            if field == "tasks[0].timeout_seconds"));
    }

    #[test]
    fn a_text_that_grows_without_end_is_refused() {
        let mut text = "workflow_id: w\nlabels: {}\ntasks:\n".to_owned();
        text.push_str("  - id: a\n    payload:\n      a0: &a0 [x]\n");
        for n in 1..40 {
            let before = n - 1;
            text.push_str(&format!("      a{n}: &a{n} [*a{before}, *a{before}]\n"));
        }
        assert!(read(&text).is_err());
    }
}
