//! The calls of `WorkflowService`: what each reads, decides and answers.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hive_domain::{
    name,
    violation::Violations,
    workflow::{Event, Illegal, Run, RunStatus, TaskIndex, TaskStatus},
};
use hive_protocol::{
    fault::{Fault, Reason},
    limits::PAYLOAD_BYTES_MAX,
    message::at_most,
    outcome::cut_reason,
    wire,
};
use hive_store::StoreError;
use prost::Message as _;

use crate::{
    desk::{Desk, StepError},
    names::{RunName, partition_of_workflow},
};

mod growing;
mod looking;
mod signals;
mod submit;

/// The service over one desk.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    pub(crate) desk: Arc<Desk>,
}

type Answer<T> = Result<T, Fault>;

impl Calls {
    pub(crate) async fn close_workflow(
        &self,
        namespace: &str,
        request: wire::CloseWorkflowRequest,
    ) -> Answer<wire::CloseWorkflowResponse> {
        let name = self.run(namespace, &request.workflow_id, "").await?;
        let step = self.desk.step(&name, |draft| {
            let was_closed = draft.run().head().is_closed;
            match draft.apply(Event::Close) {
                Ok(()) => Ok(false),
                // It may be over by now, and because of that.
                Err(_) if was_closed => Ok(true),
                Err(why) => Err(why),
            }
        });
        let already = step.await?.map_err(illegal)?;
        Ok(wire::CloseWorkflowResponse { already })
    }

    pub(crate) async fn pause_workflow(
        &self,
        namespace: &str,
        request: wire::PauseWorkflowRequest,
    ) -> Answer<wire::PauseWorkflowResponse> {
        let reason = cut_reason(request.reason);
        let already = self
            .steer(
                namespace,
                &request.workflow_id,
                Event::Pause { reason },
                |why| matches!(why, Illegal::AlreadyPaused),
            )
            .await?;
        Ok(wire::PauseWorkflowResponse { already })
    }

    pub(crate) async fn resume_workflow(
        &self,
        namespace: &str,
        request: wire::ResumeWorkflowRequest,
    ) -> Answer<wire::ResumeWorkflowResponse> {
        let already = self
            .steer(namespace, &request.workflow_id, Event::Resume, |why| {
                matches!(why, Illegal::NotPaused)
            })
            .await?;
        Ok(wire::ResumeWorkflowResponse { already })
    }

    pub(crate) async fn cancel_workflow(
        &self,
        namespace: &str,
        request: wire::CancelWorkflowRequest,
    ) -> Answer<wire::CancelWorkflowResponse> {
        let reason = cut_reason(request.reason);
        let already = self
            .steer(
                namespace,
                &request.workflow_id,
                Event::Cancel { reason },
                |why| {
                    matches!(
                        why,
                        Illegal::RunIsFinal {
                            status: RunStatus::Cancelled
                        } | Illegal::IsEnding {
                            status: RunStatus::Cancelled
                        }
                    )
                },
            )
            .await?;
        Ok(wire::CancelWorkflowResponse { already })
    }

    /// Applies an event to the newest run of a workflow; true when it had been applied before.
    async fn steer(
        &self,
        namespace: &str,
        workflow_id: &str,
        event: Event,
        is_done: impl FnOnce(&Illegal) -> bool,
    ) -> Answer<bool> {
        let name = self.run(namespace, workflow_id, "").await?;
        let step = self.desk.step(&name, |draft| draft.apply(event.clone()));
        match step.await? {
            Ok(()) => Ok(false),
            Err(why) if is_done(&why) => Ok(true),
            Err(why) => Err(illegal(why)),
        }
    }

    pub(crate) async fn retry_task(
        &self,
        namespace: &str,
        request: wire::RetryTaskRequest,
    ) -> Answer<wire::RetryTaskResponse> {
        let name = self
            .run(namespace, &request.workflow_id, &request.run_id)
            .await?;
        let task = self
            .task(&name, &request.workflow_id, &request.task_id)
            .await?;
        let content = match request.payload {
            Some(payload) => Some(self.with_payload(&name, task, payload).await?),
            None => None,
        };
        let failed = request.failed_attempt;
        let step = self.desk.step(&name, |draft| {
            let state = draft.run().task(task);
            let (status, attempt) = state.map_or((TaskStatus::Pending, 0), |state| {
                (state.status, state.attempt)
            });
            match retried(status, attempt, failed) {
                Retried::Before => return Ok((attempt.max(failed.saturating_add(1)), true)),
                Retried::TooEarly => return Err(still_at_work(&request.task_id, failed)),
                Retried::Not => {},
            }
            draft.apply(Event::Retry { task }).map_err(illegal)?;
            if let Some(content) = &content {
                draft.put_content(task, content.clone());
            }
            Ok((attempt.saturating_add(1), false))
        });
        let (attempt, duplicate) = step.await??;
        Ok(wire::RetryTaskResponse { attempt, duplicate })
    }

    /// What the message of a task says, with another payload.
    async fn with_payload(&self, name: &RunName, task: TaskIndex, payload: Bytes) -> Answer<Bytes> {
        let mut faults = Violations::new();
        faults.take(at_most("payload", payload.len(), PAYLOAD_BYTES_MAX));
        faults.into_result()?;
        let store = &self.desk.store;
        let partition = name.partition(store).ok_or(StepError::Gone)?;
        let stored = store
            .run_contents(&partition, &name.run_id, &[task])
            .await?;
        let stored = stored.into_iter().next().flatten().unwrap_or_default();
        // What was written by a router of this build decodes.
        let mut message = wire::Message::decode(stored).unwrap_or_default();
        message.payload = payload;
        Ok(message.encode_to_vec().into())
    }

    pub(crate) async fn delete_workflow(
        &self,
        namespace: &str,
        request: wire::DeleteWorkflowRequest,
    ) -> Answer<wire::DeleteWorkflowResponse> {
        let name = self.run(namespace, &request.workflow_id, "").await?;
        if self.desk.delete(&name).await? {
            return Ok(wire::DeleteWorkflowResponse {});
        }
        Err(Fault::new(
            Reason::WorkflowNotOver,
            "the run is not over; cancel it first",
        ))
    }

    /// The newest run of a workflow and the digest of what was submitted.
    async fn newest(
        &self,
        namespace: &str,
        workflow_id: &str,
    ) -> Result<Option<(String, String)>, StoreError> {
        let number = partition_of_workflow(workflow_id);
        let partition = self.desk.store.partition(namespace, number);
        self.desk
            .store
            .run_of_workflow(&partition, workflow_id)
            .await
    }

    /// The run that a caller names: by its id, or the newest of the workflow.
    pub(crate) async fn run(
        &self,
        namespace: &str,
        workflow_id: &str,
        run_id: &str,
    ) -> Answer<RunName> {
        let mut faults = Violations::new();
        faults.take(name::check("workflow_id", workflow_id));
        faults.take(name::check_optional("run_id", run_id));
        faults.into_result().map_err(Fault::invalid)?;
        if run_id.is_empty() {
            let newest = self.newest(namespace, workflow_id).await?;
            let (run_id, _) = newest.ok_or_else(|| Fault::no_workflow(workflow_id))?;
            return Ok(RunName::new(namespace, &run_id));
        }
        let name = RunName::new(namespace, run_id);
        let is_of = self.desk.look(&name, |loaded| {
            loaded.run.definition().workflow_id == workflow_id
        });
        match is_of.await {
            Ok(true) => Ok(name),
            Ok(false) | Err(StepError::Gone) => Err(Fault::no_run(workflow_id, run_id)),
            Err(error) => Err(error.into()),
        }
    }

    /// The task that a caller names.
    async fn task(&self, name: &RunName, workflow_id: &str, task_id: &str) -> Answer<TaskIndex> {
        let found = self.desk.look(name, |loaded| loaded.run.find(task_id));
        found
            .await?
            .ok_or_else(|| Fault::no_task(workflow_id, task_id))
    }
}

/// Whether the retry of a failed attempt was made before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retried {
    /// No.
    Not,
    /// Yes: the task is past that attempt, or waits for its next one.
    Before,
    /// The attempt is not known to have failed: what its shard says of it is on the way.
    TooEarly,
}

/// Judges a retry that names the attempt whose failure it answers; 0 names none.
const fn retried(status: TaskStatus, attempt: u32, failed: u32) -> Retried {
    if failed == 0 || attempt < failed {
        Retried::Not
    } else if attempt > failed {
        Retried::Before
    } else {
        match status {
            TaskStatus::Pending => Retried::Before,
            TaskStatus::Queued | TaskStatus::Running => Retried::TooEarly,
            TaskStatus::Awaited
            | TaskStatus::WaitingInput
            | TaskStatus::Succeeded
            | TaskStatus::Failed
            | TaskStatus::TimedOut
            | TaskStatus::DeadLettered
            | TaskStatus::Skipped
            | TaskStatus::Cancelled => Retried::Not,
        }
    }
}

fn still_at_work(task_id: &str, attempt: u32) -> Fault {
    let message = format!("attempt {attempt} of task `{task_id}` is not known to have failed yet");
    Fault::new(Reason::TaskNotRetryable, message).with_retry_after(Duration::from_secs(1))
}

fn ids(run: &Run, tasks: &[TaskIndex]) -> Vec<String> {
    let ids = tasks.iter().filter_map(|task| run.id(*task));
    ids.map(str::to_owned).collect()
}

/// Why an event was refused, for a caller.
#[expect(clippy::needless_pass_by_value, reason = "what `map_err` hands over")]
pub(crate) fn illegal(why: Illegal) -> Fault {
    let reason = match &why {
        Illegal::UnknownTask { .. } => Reason::TaskNotFound,
        Illegal::RunIsFinal { .. } => Reason::WorkflowOver,
        Illegal::IsEnding { .. } => Reason::WorkflowEnding,
        Illegal::NotWaitingInput { .. } => Reason::TaskNotWaitingInput,
        Illegal::NotRetryable { .. } => Reason::TaskNotRetryable,
        Illegal::NotOpenWorkflow | Illegal::AlreadyClosed => Reason::WorkflowNotOpen,
        Illegal::AlreadyFinal { .. } => Reason::TaskOver,
        Illegal::StaleAttempt { .. }
        | Illegal::NotOpen { .. }
        | Illegal::AlreadyPlaced
        | Illegal::NotQueued { .. }
        | Illegal::NotAsked
        | Illegal::Resolving { .. }
        | Illegal::AlreadyPaused
        | Illegal::NotPaused => Reason::FailedPrecondition,
    };
    Fault::new(reason, why.to_string())
}
