//! Deciding tasks from outside, and answering their questions.

use std::collections::BTreeSet;

use bytes::Bytes;
use hive_domain::workflow::{
    Event, Illegal, Run, TaskIndex, TaskStatus,
    run::{Signal, Waits},
};
use hive_protocol::{
    fault::{Fault, Reason},
    outcome::cut_reason,
    wire, workflow,
};
use hive_store::tasks::{Resolved, TaskOutcome};
use prost::Message as _;

use super::{Answer, Calls, ids, illegal};
use crate::{
    desk::StepError,
    metrics,
    names::{RunName, dispatch_key},
    settled,
    stored::{Loaded, Target},
};

/// How often a signal waits for the outcome that another one decided.
const OUTCOME_LOOKS: u32 = 40;
/// Pause between these looks.
const OUTCOME_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

impl Calls {
    pub(crate) async fn signal_task_completion(
        &self,
        namespace: &str,
        request: wire::SignalTaskCompletionRequest,
    ) -> Answer<wire::SignalTaskCompletionResponse> {
        workflow::check_result(&request.result).map_err(Fault::invalid)?;
        let name = self
            .run(namespace, &request.workflow_id, &request.run_id)
            .await?;
        let task = self
            .task(&name, &request.workflow_id, &request.task_id)
            .await?;
        let result = request.result;
        let ack = wire::Ack {
            result: result.clone(),
            add_tasks: Vec::new(),
        };
        let detail = Bytes::from(ack.encode_to_vec());
        let signal = Signal::Succeeded {
            has_result: !result.is_empty(),
        };
        let decided = self
            .signal(
                &name,
                task,
                (TaskOutcome::Succeeded, detail),
                &signal,
                &result,
            )
            .await?;
        if decided == Decided::Before {
            self.same_result(&name, task, &request.task_id, &result)
                .await?;
        }
        let already = decided == Decided::Before;
        let triggered_tasks = self
            .desk
            .look(&name, |loaded| triggered(&loaded.run, task))
            .await?;
        Ok(wire::SignalTaskCompletionResponse {
            triggered_tasks,
            already,
        })
    }

    /// Whether a task that is over succeeded with this result.
    pub(super) async fn same_result(
        &self,
        name: &RunName,
        task: TaskIndex,
        task_id: &str,
        result: &Bytes,
    ) -> Answer<()> {
        let status = self.status_of(name, task).await?;
        if status != TaskStatus::Succeeded {
            return Err(Fault::new(
                Reason::TaskOver,
                format!("task `{task_id}` is `{status}` already"),
            ));
        }
        if self.result(name, task).await?.unwrap_or_default() != *result {
            return Err(Fault::new(
                Reason::ResultDiffers,
                format!("task `{task_id}` is complete with another result"),
            ));
        }
        Ok(())
    }

    /// Where a task is.
    pub(super) async fn status_of(&self, name: &RunName, task: TaskIndex) -> Answer<TaskStatus> {
        let status = self.desk.look(name, |loaded| {
            loaded.run.task(task).map(|state| state.status)
        });
        Ok(status.await?.unwrap_or_default())
    }

    pub(crate) async fn signal_task_failure(
        &self,
        namespace: &str,
        request: wire::SignalTaskFailureRequest,
    ) -> Answer<wire::SignalTaskFailureResponse> {
        let name = self
            .run(namespace, &request.workflow_id, &request.run_id)
            .await?;
        let task = self
            .task(&name, &request.workflow_id, &request.task_id)
            .await?;
        let reason = cut_reason(request.reason);
        let detail = Bytes::from(reason.clone());
        let over = |status: TaskStatus| {
            if status.is_failure() {
                return Ok(wire::SignalTaskFailureResponse { already: true });
            }
            Err(Fault::new(
                Reason::TaskOver,
                format!("task `{}` is `{status}` already", request.task_id),
            ))
        };
        let signal = Signal::Failed { reason };
        let how = (TaskOutcome::Failed, detail);
        let nothing = Bytes::new();
        match self.signal(&name, task, how, &signal, &nothing).await? {
            Decided::Now => Ok(wire::SignalTaskFailureResponse { already: false }),
            Decided::Before => over(self.status_of(&name, task).await?),
        }
    }

    /// Decides a task: by the shard of its open attempt, or by its partition where it has none. One
    /// that changes hands meanwhile is looked at again.
    async fn signal(
        &self,
        name: &RunName,
        task: TaskIndex,
        (outcome, detail): (TaskOutcome, Bytes),
        signal: &Signal,
        result: &Bytes,
    ) -> Answer<Decided> {
        for _ in 0..OUTCOME_LOOKS {
            match self.decide(name, task, outcome, detail.clone()).await? {
                Some(Decided::Now) => return Ok(Decided::Now),
                // A question is no end of the task: the signal may still decide it.
                Some(Decided::Before) if !self.status_of(name, task).await?.is_final() => {
                    tokio::time::sleep(OUTCOME_PAUSE).await;
                    continue;
                },
                Some(Decided::Before) => return Ok(Decided::Before),
                None => {},
            }
            let step = self.desk.step(name, |draft| {
                let state = draft.run().task(task);
                if state.is_some_and(|state| state.status.is_open() && state.is_placed) {
                    // It was sent to a shard meanwhile: that decides.
                    return Ok(false);
                }
                draft.apply(Event::Signalled {
                    task,
                    signal: signal.clone(),
                })?;
                draft.put_result(task, result.clone());
                Ok(true)
            });
            match step.await? {
                Ok(true) => return Ok(Decided::Now),
                Ok(false) => {},
                Err(Illegal::AlreadyFinal { .. }) => return Ok(Decided::Before),
                Err(why) => return Err(illegal(why)),
            }
        }
        Err(Fault::new(
            Reason::Unreachable,
            "the task changes hands all the while; ask again in a moment",
        ))
    }

    /// Has the shard of an open attempt decide it, and applies what it decided; none where no
    /// attempt is open. Where another outcome came first that one is waited for.
    async fn decide(
        &self,
        name: &RunName,
        task: TaskIndex,
        outcome: TaskOutcome,
        detail: Bytes,
    ) -> Answer<Option<Decided>> {
        let open = self.desk.look(name, |loaded| open_attempt(loaded, task));
        let Some((attempt, Target { stream, group })) = open.await? else {
            return Ok(None);
        };
        let shard = self.desk.store.shard(&name.namespace, &stream, 0);
        let key = dispatch_key(&name.run_id, task, attempt);
        let resolved = self
            .desk
            .store
            .resolve_task(&shard, &group, &key, outcome, detail.clone())
            .await?;
        match resolved {
            Resolved::Ended { .. } => {
                // The record that the shard wrote comes later, and finds it done.
                let step = self.desk.step(name, |draft| {
                    settled::ended(draft, task, attempt, outcome, &detail)
                });
                if let Err(why) = step.await? {
                    metrics::illegal_event(&why);
                }
                Ok(Some(Decided::Now))
            },
            Resolved::Already(_) => {
                for _ in 0..OUTCOME_LOOKS {
                    let open = self.desk.look(name, |loaded| open_attempt(loaded, task));
                    if open.await?.is_none_or(|(now, _)| now != attempt) {
                        return Ok(Some(Decided::Before));
                    }
                    tokio::time::sleep(OUTCOME_PAUSE).await;
                }
                Err(Fault::new(
                    Reason::Unreachable,
                    "another outcome of the task is on its way; ask again in a moment",
                ))
            },
        }
    }

    pub(crate) async fn provide_input(
        &self,
        namespace: &str,
        request: wire::ProvideInputRequest,
    ) -> Answer<wire::ProvideInputResponse> {
        workflow::check_input(&request.input).map_err(Fault::invalid)?;
        let name = self
            .run(namespace, &request.workflow_id, &request.run_id)
            .await?;
        let task = self
            .task(&name, &request.workflow_id, &request.task_id)
            .await?;
        let partition = name.partition(&self.desk.store).ok_or(StepError::Gone)?;
        // Before the question is read: it is the question of this attempt, or the step is refused
        // because another one has asked meanwhile.
        let attempt = self.desk.look(&name, |loaded| {
            let state = loaded.run.task(task);
            state.map_or(0, |state| state.attempt)
        });
        let attempt = attempt.await?;
        let asked = self
            .desk
            .store
            .task_answer(&partition, &name.run_id, task)
            .await?;
        let mut answer = wire::Resumption::decode(asked).unwrap_or_default();
        answer.input = request.input;
        let answer = Bytes::from(answer.encode_to_vec());
        let step = self.desk.step(&name, |draft| {
            draft.apply(Event::ProvideInput { task, attempt })?;
            draft.put_answer(task, answer.clone());
            Ok(())
        });
        step.await?.map_err(illegal)?;
        Ok(wire::ProvideInputResponse {})
    }
}

/// When a task was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decided {
    /// By this call.
    Now,
    /// Before it.
    Before,
}

/// The open attempt of a task and where it was sent.
fn open_attempt(loaded: &Loaded, task: TaskIndex) -> Option<(u32, Target)> {
    let state = loaded.run.task(task)?;
    if !state.status.is_open() || !state.is_placed {
        return None;
    }
    Some((state.attempt, loaded.target(task)?.clone()))
}

/// Dependants of a task that wait for no dependency any more, where this task was the last of
/// them: what its completion set going. The same whenever it is asked.
fn triggered(run: &Run, task: TaskIndex) -> Vec<String> {
    let Some(finished) = run.task(task).and_then(|state| state.finished_at) else {
        return Vec::new();
    };
    let graph = run.graph();
    let dependants: BTreeSet<TaskIndex> = graph.dependants(task).iter().copied().collect();
    let set_going: Vec<TaskIndex> = dependants
        .into_iter()
        .filter(|dependant| {
            let waits = run.waits(*dependant);
            let is_skipped = run
                .task(*dependant)
                .is_some_and(|state| state.attempt == 0 && state.status.is_final());
            let was_last = graph.dependencies(*dependant).iter().all(|need| {
                run.task(*need)
                    .and_then(|state| state.finished_at)
                    .is_none_or(|other| other <= finished)
            });
            !is_skipped && was_last && !matches!(waits, Some(Waits::Dependencies { .. }) | None)
        })
        .collect();
    ids(run, &set_going)
}
