//! Workflows: build one, submit it, steer its run, watch it.
//!
//! ```no_run
//! use hive_client::{Client, Task, Workflow};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new("http://127.0.0.1:8000")?;
//! let workflow = Workflow::new("feature-42")
//!     .task(Task::new("design").kind("architecture").payload(r#"{"feature": 42}"#))
//!     .task(Task::new("api").kind("backend").after(["design"]))
//!     .task(Task::new("test").kind("testing").after(["api"]).priority(7));
//! client.submit_workflow(workflow).await?;
//!
//! let mut watch = client.watch_workflow("feature-42");
//! while let Some(frame) = watch.next().await? {
//!     println!("{frame:?}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Nothing is checked here that the server checks: it tells all faults at once.

mod calls;
mod text;
mod watch;

use std::{fmt::Display, time::Duration};

use bytes::Bytes;
use hive_protocol::wire::{
    DependencyMode, FailurePolicy, RetryPolicy, TaskCompletion, TaskSpec, WorkflowSpec,
    WorkflowStrategy,
};

pub use self::{text::ReadError, watch::WorkflowWatch};

/// A workflow that is being written.
#[derive(Debug, Clone, PartialEq, Default)]
#[must_use]
pub struct Workflow {
    spec: WorkflowSpec,
}

impl Workflow {
    /// A workflow of this name, without tasks. The name is the key of the submit: the same workflow
    /// under the same name is the same run.
    pub fn new(id: impl Into<String>) -> Self {
        let workflow_id = id.into();
        Self {
            spec: WorkflowSpec {
                workflow_id,
                ..WorkflowSpec::default()
            },
        }
    }

    /// Reads a workflow from YAML or JSON, with the fields of `POST /api/v1/workflows`.
    ///
    /// # Errors
    /// The text is neither, has a field that no workflow has, or a value of another kind.
    pub fn read(text: &str) -> Result<Self, ReadError> {
        text::read(text)
    }

    /// Adds a task.
    pub fn task(mut self, task: Task) -> Self {
        self.spec.tasks.push(task.spec);
        self
    }

    /// What a dependency must be for its dependants to start. Default strict.
    pub fn dependency_mode(mut self, mode: DependencyMode) -> Self {
        self.spec.dependency_mode = mode.into();
        self
    }

    /// How many tasks at once, and who first. Default hybrid.
    pub fn strategy(mut self, strategy: WorkflowStrategy) -> Self {
        self.spec.strategy = strategy.into();
        self
    }

    /// Most tasks at work at once. Default 50.
    pub const fn max_parallel_tasks(mut self, count: u32) -> Self {
        self.spec.max_parallel_tasks = count;
        self
    }

    /// The run fails when it takes longer. Default never.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.spec.deadline = wire_duration(deadline);
        self
    }

    /// Something to find it by.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.spec.labels.insert(key.into(), value.into());
        self
    }

    /// What the failure of a task means that does not say so itself. Default: the run fails.
    pub fn on_failure(mut self, policy: FailurePolicy) -> Self {
        self.spec.on_failure = policy.into();
        self
    }

    /// Tasks may be added call by call, and name dependencies that come later.
    pub const fn open(mut self) -> Self {
        self.spec.open = true;
        self
    }

    /// What goes over the wire.
    #[must_use]
    pub const fn spec(&self) -> &WorkflowSpec {
        &self.spec
    }
}

impl From<Workflow> for WorkflowSpec {
    fn from(workflow: Workflow) -> Self {
        workflow.spec
    }
}

impl From<WorkflowSpec> for Workflow {
    fn from(spec: WorkflowSpec) -> Self {
        Self { spec }
    }
}

/// A task that is being written.
#[derive(Debug, Clone, PartialEq, Default)]
#[must_use]
pub struct Task {
    spec: TaskSpec,
}

impl Task {
    /// A task of this name, unique in its workflow.
    pub fn new(id: impl Into<String>) -> Self {
        let id = id.into();
        Self {
            spec: TaskSpec {
                id,
                ..TaskSpec::default()
            },
        }
    }

    /// The type of agent it is for; the group is found by it.
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.spec.r#type = kind.into();
        self
    }

    /// The group it is for.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.spec.group = group.into();
        self
    }

    /// Tasks it waits for, on top of those named before.
    pub fn after<I: Into<String>>(mut self, tasks: impl IntoIterator<Item = I>) -> Self {
        let tasks = tasks.into_iter().map(Into::into);
        self.spec.dependencies.extend(tasks);
        self
    }

    /// The work itself; JSON unless [`Self::content_type`] says otherwise.
    pub fn payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.spec.payload = payload.into();
        self
    }

    /// Media type of the payload. Default JSON.
    pub fn content_type(mut self, media_type: impl Into<String>) -> Self {
        self.spec.content_type = media_type.into();
        self
    }

    /// 0 (least urgent) to 9. Default 4.
    pub const fn priority(mut self, priority: u32) -> Self {
        self.spec.priority = Some(priority);
        self
    }

    /// What an agent must be able to do, on top of what was named before.
    pub fn requires<I: Into<String>>(mut self, names: impl IntoIterator<Item = I>) -> Self {
        let names = names.into_iter().map(Into::into);
        self.spec.required_capabilities.extend(names);
        self
    }

    /// Longest time from its first start to its outcome. Default none.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.spec.timeout = wire_duration(timeout);
        self
    }

    /// Longest time from its dispatch to its start. Default none.
    pub fn queue_timeout(mut self, timeout: Duration) -> Self {
        self.spec.queue_timeout = wire_duration(timeout);
        self
    }

    /// How often and how soon it is tried again. Default: as the group says.
    pub const fn retry(mut self, policy: RetryPolicy) -> Self {
        self.spec.retry = Some(policy);
        self
    }

    /// What its failure means to the run. Default: what the workflow says.
    pub fn on_failure(mut self, policy: FailurePolicy) -> Self {
        self.spec.on_failure = policy.into();
        self
    }

    /// Whether it is wanted, in CEL over `inputs`, e.g. `inputs.review.approved`. Default always.
    pub fn when(mut self, condition: impl Into<String>) -> Self {
        self.spec.condition = condition.into();
        self
    }

    /// What completes it. Default its ack.
    pub fn completed_by(mut self, completion: TaskCompletion) -> Self {
        self.spec.completion = completion.into();
        self
    }

    /// How many dependencies must succeed under best_effort: `majority` (default), `any`, or a
    /// number.
    pub fn quorum(mut self, quorum: impl Display) -> Self {
        self.spec.quorum = quorum.to_string();
        self
    }

    /// What kind of work this is, for handlers to tell apart. Default its kind.
    pub fn message_type(mut self, message_type: impl Into<String>) -> Self {
        self.spec.message_type = message_type.into();
        self
    }

    /// Who asks for it.
    pub fn sent_by(mut self, agent: impl Into<String>) -> Self {
        self.spec.from_agent = agent.into();
        self
    }
}

impl From<Task> for TaskSpec {
    fn from(task: Task) -> Self {
        task.spec
    }
}

/// A duration on the wire; the longest one where it does not fit, which the server refuses.
fn wire_duration(duration: Duration) -> Option<prost_types::Duration> {
    let longest = prost_types::Duration {
        seconds: i64::MAX,
        nanos: 0,
    };
    Some(prost_types::Duration::try_from(duration).unwrap_or(longest))
}
