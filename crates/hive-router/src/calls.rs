//! The calls of `WorkflowService`: what each reads, decides and answers.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use hive_domain::{
    name,
    violation::Violations,
    workflow::{
        Event, Illegal, Limits, Run, RunStatus, TaskIndex, TaskStatus,
        WorkflowDefinition,
        run::{Refused, Signal, Waits},
    },
};
use hive_protocol::{
    fault::{Fault, Reason},
    limits::PAYLOAD_BYTES_MAX,
    outcome::cut_reason,
    wire, workflow,
};
use hive_store::{
    StoreError,
    runs::{Created, NewRun},
    tasks::{Resolved, TaskOutcome},
};
use prost::Message as _;
use uuid::Uuid;

use crate::{
    desk::{Desk, StepError},
    history, metrics,
    names::{PARTITIONS, RunName, dispatch_key, mint_run_id, partition_of_workflow},
    settled,
    stored::{Loaded, Target},
    view,
};

/// Longest result that rides along with a look at a run, in bytes.
const RESULT_SHOWN: u64 = 65_536;
/// Results that ride along with one look at a run, in bytes.
const RESULTS_SHOWN: u64 = 4 * 1024 * 1024;
/// Runs that one call looks through for labels.
const LOOKED_THROUGH: usize = 5_000;
/// How often a signal waits for the outcome that another one decided.
const OUTCOME_LOOKS: u32 = 40;
/// Pause between these looks.
const OUTCOME_PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// The service over one desk.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    pub(crate) desk: Arc<Desk>,
}

type Answer<T> = Result<T, Fault>;

impl Calls {
    pub(crate) async fn submit_workflow(
        &self,
        namespace: &str,
        request: wire::SubmitWorkflowRequest,
    ) -> Answer<wire::SubmitWorkflowResponse> {
        let spec = request.workflow.unwrap_or_default();
        let digest = digest(&spec);
        let workflow_id = spec.workflow_id.clone();
        // A submit sent again is answered before anything else is held against it: a group that
        // is gone by now does not matter to a run that is there.
        if name::check("workflow_id", &workflow_id).is_ok()
            && let Some((run_id, known)) = self.newest(namespace, &workflow_id).await?
        {
            return self.again(namespace, &workflow_id, &run_id, known == digest).await;
        }
        let (submitted, _) = self.checked(namespace, spec).await?;
        let name = RunName::new(namespace, &mint_run_id(&workflow_id));
        let run = Run::start(submitted.definition, submitted.graph, self.desk.now());
        self.desk.store.note_workflows(namespace).await?;
        let new = NewRun {
            workflow_id: workflow_id.clone(),
            digest: digest.clone(),
            contents: (0..)
                .zip(submitted.contents)
                .map(|(task, content)| (task, Bytes::from(content.encode_to_vec())))
                .collect(),
            ..NewRun::default()
        };
        match self.desk.create(&name, run, new).await? {
            Created::Stored { .. } => {
                metrics::run_started();
                let (routed_tasks, waiting_tasks) = self.desk.look(&name, started).await?;
                Ok(wire::SubmitWorkflowResponse {
                    workflow_id,
                    run_id: name.run_id.to_string(),
                    already: false,
                    routed_tasks,
                    waiting_tasks,
                })
            },
            Created::Exists(run_id) => self.again(namespace, &workflow_id, &run_id, true).await,
            Created::Other(run_id) => self.again(namespace, &workflow_id, &run_id, false).await,
        }
    }

    async fn again(
        &self,
        namespace: &str,
        workflow_id: &str,
        run_id: &str,
        is_same: bool,
    ) -> Answer<wire::SubmitWorkflowResponse> {
        if !is_same {
            return Err(Fault::new(
                Reason::WorkflowExists,
                format!(
                    "workflow `{workflow_id}` exists with other content; delete its run first, or \
                     use another id"
                ),
            ));
        }
        let name = RunName::new(namespace, run_id);
        let (routed_tasks, waiting_tasks) = self.desk.look(&name, started).await?;
        Ok(wire::SubmitWorkflowResponse {
            workflow_id: workflow_id.to_owned(),
            run_id: run_id.to_owned(),
            already: true,
            routed_tasks,
            waiting_tasks,
        })
    }

    pub(crate) async fn validate_workflow(
        &self,
        namespace: &str,
        request: wire::ValidateWorkflowRequest,
    ) -> Answer<wire::ValidateWorkflowResponse> {
        match self.checked(namespace, request.workflow.unwrap_or_default()).await {
            Ok((_, placements)) => Ok(wire::ValidateWorkflowResponse {
                field_violations: Vec::new(),
                placements,
            }),
            Err(fault) if !fault.violations.is_empty() => Ok(wire::ValidateWorkflowResponse {
                field_violations: fault
                    .violations
                    .into_iter()
                    .map(|one| wire::FieldViolation {
                        field: one.field,
                        description: one.description,
                    })
                    .collect(),
                placements: Vec::new(),
            }),
            Err(fault) => Err(fault),
        }
    }

    /// A workflow without faults, and where its tasks would go now.
    async fn checked(
        &self,
        namespace: &str,
        spec: wire::WorkflowSpec,
    ) -> Answer<(workflow::Submitted, Vec<wire::TaskPlacement>)> {
        let submitted = workflow::read_workflow(spec, &Limits::default(), PAYLOAD_BYTES_MAX)
            .map_err(Fault::invalid)?;
        let placements = self
            .placed(namespace, &submitted.definition, 0, "tasks")
            .await?;
        Ok((submitted, placements))
    }

    /// Where the tasks from number `from` on would go now.
    async fn placed(
        &self,
        namespace: &str,
        definition: &WorkflowDefinition,
        from: usize,
        prefix: &str,
    ) -> Answer<Vec<wire::TaskPlacement>> {
        let namespace: Arc<str> = namespace.into();
        let mut facts = self.desk.placing.facts(&namespace).await?;
        let mut is_fresh = false;
        loop {
            let (mut placements, mut faults) = (Vec::new(), Violations::new());
            for (number, task) in definition.tasks.iter().enumerate().skip(from) {
                if task.is_awaited() {
                    continue;
                }
                match facts.look(definition, task) {
                    Ok(choice) => placements.push(wire::TaskPlacement {
                        task_id: task.id.clone(),
                        group: choice.group,
                        reason: choice.reason,
                    }),
                    Err(unserved) => {
                        let field = if task.group.is_some() { "group" } else { "type" };
                        let place = number.saturating_sub(from);
                        faults.push(format!("{prefix}[{place}].{field}"), unserved.to_string());
                    },
                }
            }
            if faults.is_empty() {
                return Ok(placements);
            }
            if is_fresh {
                return Err(Fault::invalid_because(Reason::UnservedType, faults));
            }
            // A group that was made a moment ago.
            facts = self.desk.placing.fresh(&namespace).await?;
            is_fresh = true;
        }
    }

    pub(crate) async fn route_task(
        &self,
        namespace: &str,
        request: wire::RouteTaskRequest,
    ) -> Answer<wire::RouteTaskResponse> {
        let spec = request.task.unwrap_or_default();
        let workflow_id = request.workflow_id;
        name::check("workflow_id", &workflow_id).map_err(Fault::from)?;
        let read = workflow::read_task(spec, &workflow_id, "task", PAYLOAD_BYTES_MAX)
            .map_err(Fault::invalid)?;
        let lone = WorkflowDefinition {
            tasks: vec![read.definition.clone()],
            ..WorkflowDefinition::default()
        };
        let placed = self.placed(namespace, &lone, 0, "tasks").await;
        let placed = placed.map_err(|mut fault| {
            let faults = fault.violations.drain(..).collect();
            fault.violations = workflow::of_one_task(faults, "task").into_vec();
            fault
        })?;
        let (group, reason) = placed
            .into_iter()
            .next()
            .map(|one| (one.group, one.reason))
            .unwrap_or_default();
        let (name, already) = self.add_to_open(namespace, &workflow_id, read).await?;
        let task_id = lone.tasks.into_iter().next().map(|task| task.id);
        let waits_for = self
            .desk
            .look(&name, |loaded| {
                let task = loaded.run.find(&task_id.unwrap_or_default());
                match task.and_then(|task| loaded.run.waits(task)) {
                    Some(Waits::Dependencies { open, .. }) => ids(&loaded.run, &open),
                    Some(
                        Waits::Over
                        | Waits::Condition
                        | Waits::Resume
                        | Waits::Slot { .. }
                        | Waits::Queue { .. }
                        | Waits::Agent { .. }
                        | Waits::Shard
                        | Waits::Input
                        | Waits::Addition,
                    )
                    | None => Vec::new(),
                }
            })
            .await?;
        Ok(wire::RouteTaskResponse {
            run_id: name.run_id.to_string(),
            group,
            reason,
            waits_for,
            already,
        })
    }

    /// Adds a task to the open workflow of an id, which is made where it is unknown.
    async fn add_to_open(
        &self,
        namespace: &str,
        workflow_id: &str,
        read: workflow::ReadTask,
    ) -> Answer<(RunName, bool)> {
        // Between the look and the making another caller may make it, or it may be deleted.
        for _ in 0..5 {
            if let Some((run_id, _)) = self.newest(namespace, workflow_id).await? {
                let name = RunName::new(namespace, &run_id);
                match self.add(&name, vec![read.clone()], true).await {
                    Ok(already) => return Ok((name, already)),
                    Err(fault) if fault.reason == Reason::RunNotFound => continue,
                    Err(mut fault) => {
                        let faults = fault.violations.drain(..).collect();
                        fault.violations = workflow::of_one_task(faults, "task").into_vec();
                        return Err(fault);
                    },
                }
            }
            let definition = WorkflowDefinition {
                workflow_id: workflow_id.to_owned(),
                tasks: vec![read.definition.clone()],
                is_open: true,
                ..WorkflowDefinition::default()
            };
            let limits = Limits::default();
            let graph = hive_domain::workflow::definition::check(&definition, &limits)
                .map_err(|faults| Fault::invalid(workflow::of_one_task(faults, "task")))?;
            let name = RunName::new(namespace, &mint_run_id(workflow_id));
            let run = Run::start(definition, graph, self.desk.now());
            self.desk.store.note_workflows(namespace).await?;
            let new = NewRun {
                workflow_id: workflow_id.to_owned(),
                // No submit is the same as an open workflow: its tasks come one by one.
                digest: Uuid::now_v7().simple().to_string(),
                contents: vec![(0, read.content.encode_to_vec().into())],
                ..NewRun::default()
            };
            if let Created::Stored { .. } = self.desk.create(&name, run, new).await? {
                metrics::run_started();
                return Ok((name, false));
            }
        }
        Err(StepError::Contended.into())
    }

    /// Adds tasks to a run; true when the same were added before.
    async fn add(
        &self,
        name: &RunName,
        read: Vec<workflow::ReadTask>,
        only_open: bool,
    ) -> Answer<bool> {
        let known = self.desk.look(name, |loaded| {
            let definition = loaded.run.definition();
            let same = read.iter().all(|task| {
                let number = loaded.run.find(&task.definition.id);
                let place = number.and_then(|number| usize::try_from(number).ok());
                let known = place.and_then(|place| definition.tasks.get(place));
                known == Some(&task.definition)
            });
            (same, definition.is_open, loaded.run.head().is_closed)
        });
        let (is_same, is_open, is_closed) = known.await?;
        if is_same {
            return Ok(true);
        }
        if only_open && !is_open {
            return Err(illegal(Illegal::NotOpenWorkflow));
        }
        if is_closed {
            return Err(illegal(Illegal::AlreadyClosed));
        }
        let step = self.desk.step(name, |draft| {
            let added = read
                .iter()
                .map(|task| {
                    let content = Bytes::from(task.content.encode_to_vec());
                    (task.definition.clone(), content)
                })
                .collect();
            draft.add_tasks(added, &Limits::default())
        });
        match step.await? {
            Ok(()) => Ok(false),
            Err(Refused::Illegal(why)) => Err(illegal(why)),
            Err(Refused::Invalid(faults)) => Err(Fault::invalid(faults)),
        }
    }

    pub(crate) async fn add_tasks(
        &self,
        namespace: &str,
        request: wire::AddTasksRequest,
    ) -> Answer<wire::AddTasksResponse> {
        let name = self
            .run(namespace, &request.workflow_id, &request.run_id)
            .await?;
        let read = workflow::read_tasks(
            request.tasks,
            &request.workflow_id,
            "tasks",
            PAYLOAD_BYTES_MAX,
        )
        .map_err(Fault::invalid)?;
        let asked = WorkflowDefinition {
            tasks: read.iter().map(|task| task.definition.clone()).collect(),
            ..WorkflowDefinition::default()
        };
        let _now = self.placed(namespace, &asked, 0, "tasks").await?;
        let already = self.add(&name, read, false).await?;
        Ok(wire::AddTasksResponse { already })
    }

    pub(crate) async fn get_workflow(
        &self,
        namespace: &str,
        request: wire::GetWorkflowRequest,
    ) -> Answer<wire::GetWorkflowResponse> {
        let name = self
            .run(namespace, &request.workflow_id, &request.run_id)
            .await?;
        let mut workflow = self.snapshot(&name).await?;
        if request.include_results {
            self.fill_results(&name, &mut workflow).await?;
        }
        Ok(wire::GetWorkflowResponse {
            workflow: Some(workflow),
        })
    }

    /// A run with the newest event that it shows.
    pub(crate) async fn snapshot(&self, name: &RunName) -> Answer<wire::Workflow> {
        let partition = name.partition(&self.desk.store).ok_or(StepError::Gone)?;
        // Before the look: what happens in between is shown twice, never missed.
        let event_id = self
            .desk
            .store
            .newest_event(&partition, &name.run_id)
            .await?;
        let mut workflow = self
            .desk
            .look(name, |loaded| view::workflow(loaded, &name.run_id))
            .await?;
        workflow.event_id = event_id;
        Ok(workflow)
    }

    async fn fill_results(&self, name: &RunName, workflow: &mut wire::Workflow) -> Answer<()> {
        let partition = name.partition(&self.desk.store).ok_or(StepError::Gone)?;
        let with_result: Vec<TaskIndex> = (0..)
            .zip(&workflow.tasks)
            .filter_map(|(number, task)| task.has_result.then_some(number))
            .collect();
        let (store, run_id) = (&self.desk.store, &name.run_id);
        let mut left = RESULTS_SHOWN;
        for some in with_result.chunks(100) {
            let lengths = store.result_lengths(&partition, run_id, some).await?;
            let shown: Vec<TaskIndex> = some
                .iter()
                .zip(lengths)
                .filter(|(_, length)| {
                    let fits = *length <= RESULT_SHOWN.min(left);
                    left = if fits { left.saturating_sub(*length) } else { left };
                    fits
                })
                .map(|(task, _)| *task)
                .collect();
            let results = store.run_results(&partition, run_id, &shown).await?;
            for (task, result) in shown.iter().zip(results) {
                let place = usize::try_from(*task).unwrap_or(usize::MAX);
                if let (Some(task), Some(result)) = (workflow.tasks.get_mut(place), result) {
                    task.result = result;
                }
            }
        }
        Ok(())
    }

    pub(crate) async fn get_task_result(
        &self,
        namespace: &str,
        request: wire::GetTaskResultRequest,
    ) -> Answer<wire::GetTaskResultResponse> {
        let name = self
            .run(namespace, &request.workflow_id, &request.run_id)
            .await?;
        let task = self.task(&name, &request.workflow_id, &request.task_id).await?;
        match self.result(&name, task).await? {
            Some(result) => Ok(wire::GetTaskResultResponse { result }),
            None => Err(Fault::new(
                Reason::ResultNotFound,
                format!("task `{}` has no result", request.task_id),
            )),
        }
    }

    async fn result(&self, name: &RunName, task: TaskIndex) -> Answer<Option<Bytes>> {
        let partition = name.partition(&self.desk.store).ok_or(StepError::Gone)?;
        let results = self
            .desk
            .store
            .run_results(&partition, &name.run_id, &[task]);
        Ok(results.await?.pop().flatten())
    }

    pub(crate) async fn list_workflows(
        &self,
        namespace: &str,
        request: wire::ListWorkflowsRequest,
    ) -> Answer<wire::ListWorkflowsResponse> {
        let listing = workflow::list(&request).map_err(Fault::invalid)?;
        let limit = usize::try_from(listing.limit).unwrap_or(usize::MAX);
        let mut before = (
            listing.created_before.map_or(u64::MAX >> 11, |at| at.as_millis()),
            String::new(),
        );
        if let Some(cursor) = &listing.cursor {
            before = read_cursor(cursor)
                .ok_or_else(|| Fault::invalid_field("cursor", "is none that a list answered"))?;
        }
        let since = listing.created_since.map_or(0, |at| at.as_millis());
        let here: Vec<_> = (0..PARTITIONS)
            .map(|number| self.desk.store.partition(namespace, number))
            .collect();
        let status = listing.state.map(RunStatus::as_str);
        let (mut workflows, mut seen, mut is_end) = (Vec::new(), 0, false);
        while workflows.len() < limit && seen < LOOKED_THROUGH && !is_end {
            let page = self
                .desk
                .store
                .list_runs(&here, status, since, (before.0, &before.1), limit)
                .await?;
            is_end = page.len() < limit;
            seen += page.len();
            for one in page {
                before = (one.created_ms, one.run_id.clone());
                let shown = view::heading(&one).map_err(StepError::from)?;
                let is_wanted = listing
                    .labels
                    .iter()
                    .all(|(key, value)| shown.labels.get(key) == Some(value));
                if is_wanted {
                    workflows.push(shown);
                    if workflows.len() == limit {
                        is_end = false;
                        break;
                    }
                }
            }
        }
        let next_cursor = if is_end {
            String::new()
        } else {
            format!("{}/{}", before.0, before.1)
        };
        Ok(wire::ListWorkflowsResponse {
            workflows,
            next_cursor,
        })
    }

    pub(crate) async fn signal_task_completion(
        &self,
        namespace: &str,
        request: wire::SignalTaskCompletionRequest,
    ) -> Answer<wire::SignalTaskCompletionResponse> {
        workflow::check_result(&request.result).map_err(Fault::invalid)?;
        let name = self
            .run(namespace, &request.workflow_id, &request.run_id)
            .await?;
        let task = self.task(&name, &request.workflow_id, &request.task_id).await?;
        let result = request.result;
        let ack = wire::Ack {
            result: result.clone(),
            add_tasks: Vec::new(),
        };
        let decided = self
            .decide(&name, task, TaskOutcome::Succeeded, ack.encode_to_vec().into())
            .await?;
        let already = match decided {
            Decided::Applied => false,
            Decided::Before => {
                self.same_result(&name, task, &request.task_id, &result).await?;
                true
            },
            Decided::InPartition => {
                let signal = Signal::Succeeded {
                    has_result: !result.is_empty(),
                };
                let step = self.desk.step(&name, |draft| {
                    draft.apply(Event::Signalled {
                        task,
                        signal: signal.clone(),
                    })?;
                    if !result.is_empty() {
                        draft.put_result(task, result.clone());
                    }
                    Ok(())
                });
                match step.await? {
                    Ok(()) => false,
                    Err(Illegal::AlreadyFinal { .. }) => {
                        self.same_result(&name, task, &request.task_id, &result).await?;
                        true
                    },
                    Err(why) => return Err(illegal(why)),
                }
            },
        };
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
    async fn same_result(
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

    async fn status_of(&self, name: &RunName, task: TaskIndex) -> Answer<TaskStatus> {
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
        let task = self.task(&name, &request.workflow_id, &request.task_id).await?;
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
        match self.decide(&name, task, TaskOutcome::Failed, detail).await? {
            Decided::Applied => Ok(wire::SignalTaskFailureResponse { already: false }),
            Decided::Before => over(self.status_of(&name, task).await?),
            Decided::InPartition => {
                let step = self.desk.step(&name, |draft| {
                    let reason = reason.clone();
                    let signal = Signal::Failed { reason };
                    draft.apply(Event::Signalled { task, signal })
                });
                match step.await? {
                    Ok(()) => Ok(wire::SignalTaskFailureResponse { already: false }),
                    Err(Illegal::AlreadyFinal { status }) => over(status),
                    Err(why) => Err(illegal(why)),
                }
            },
        }
    }

    /// Has the shard of an open attempt decide it, and applies what it decided. Where another
    /// outcome came first that one is waited for.
    async fn decide(
        &self,
        name: &RunName,
        task: TaskIndex,
        outcome: TaskOutcome,
        detail: Bytes,
    ) -> Answer<Decided> {
        let open = self.desk.look(name, |loaded| open_attempt(loaded, task));
        let Some((attempt, Target { stream, group })) = open.await? else {
            return Ok(Decided::InPartition);
        };
        let shard = self.desk.store.shard(&name.namespace, &stream, 0);
        let key = dispatch_key(&name.run_id, task, attempt);
        let resolved = self
            .desk
            .store
            .resolve_task(&shard, &group, &key, outcome, detail.clone(), 0)
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
                Ok(Decided::Applied)
            },
            Resolved::Already(_) => {
                for _ in 0..OUTCOME_LOOKS {
                    let open = self.desk.look(name, |loaded| open_attempt(loaded, task));
                    if open.await?.is_none_or(|(now, _)| now != attempt) {
                        return Ok(Decided::Before);
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
        let task = self.task(&name, &request.workflow_id, &request.task_id).await?;
        let partition = name.partition(&self.desk.store).ok_or(StepError::Gone)?;
        let asked = self
            .desk
            .store
            .task_answer(&partition, &name.run_id, task)
            .await?;
        let mut answer = wire::Resumption::decode(asked).unwrap_or_default();
        answer.input = request.input;
        let answer = Bytes::from(answer.encode_to_vec());
        let step = self.desk.step(&name, |draft| {
            draft.apply(Event::ProvideInput { task })?;
            draft.put_answer(task, answer.clone());
            Ok(())
        });
        step.await?.map_err(illegal)?;
        Ok(wire::ProvideInputResponse {})
    }

    pub(crate) async fn close_workflow(
        &self,
        namespace: &str,
        request: wire::CloseWorkflowRequest,
    ) -> Answer<wire::CloseWorkflowResponse> {
        let already = self
            .steer(namespace, &request.workflow_id, Event::Close, |why| {
                matches!(why, Illegal::AlreadyClosed)
            })
            .await?;
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
        let task = self.task(&name, &request.workflow_id, &request.task_id).await?;
        let step = self
            .desk
            .step(&name, |draft| draft.apply(Event::Retry { task }));
        step.await?.map_err(illegal)?;
        Ok(wire::RetryTaskResponse {})
    }

    pub(crate) async fn rerun_workflow(
        &self,
        namespace: &str,
        request: wire::RerunWorkflowRequest,
    ) -> Answer<wire::RerunWorkflowResponse> {
        let workflow_id = request.workflow_id;
        name::check("workflow_id", &workflow_id).map_err(Fault::from)?;
        let newest = self.newest(namespace, &workflow_id).await?;
        let (run_id, digest) = newest.ok_or_else(|| Fault::no_workflow(&workflow_id))?;
        let old = RunName::new(namespace, &run_id);
        let task = self.task(&old, &workflow_id, &request.from_task).await?;
        let now = self.desk.now();
        let rerun = self.desk.look(&old, |loaded| {
            if !loaded.run.status().is_final() {
                return Err(Fault::new(
                    Reason::WorkflowNotOver,
                    format!(
                        "the run is `{}`; cancel it or wait for its end",
                        loaded.run.status()
                    ),
                ));
            }
            loaded.run.rerun_from(task, now).map_err(illegal)
        });
        let (run, effects) = rerun.await??;
        let drops = (0..).zip(run.tasks());
        let new = NewRun {
            workflow_id: workflow_id.clone(),
            digest,
            replaces: run_id.clone(),
            copies: run_id,
            drops: drops
                .filter(|(_, state)| !state.has_result)
                .map(|(task, _)| task)
                .collect(),
            ..NewRun::default()
        };
        let name = RunName::new(namespace, &mint_run_id(&workflow_id));
        match self.desk.create(&name, (run, effects), new).await? {
            Created::Stored { .. } => {
                metrics::run_started();
                Ok(wire::RerunWorkflowResponse {
                    run_id: name.run_id.to_string(),
                })
            },
            Created::Exists(other) | Created::Other(other) => Err(Fault::new(
                Reason::VersionConflict,
                format!("run `{other}` was started meanwhile"),
            )),
        }
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

    pub(crate) async fn get_history(
        &self,
        namespace: &str,
        request: wire::GetHistoryRequest,
    ) -> Answer<wire::GetHistoryResponse> {
        let asked = workflow::history(&request).map_err(Fault::invalid)?;
        let run_id = asked.run_id.unwrap_or_default();
        let name = self.run(namespace, &asked.workflow_id, &run_id).await?;
        let limit = usize::try_from(asked.limit).unwrap_or(usize::MAX);
        let after = asked.after_event_id.unwrap_or_default();
        let mut events = self.events(&name, &after, limit.saturating_add(1)).await?;
        let more = events.len() > limit;
        events.truncate(limit);
        Ok(wire::GetHistoryResponse { events, more })
    }

    /// Events of a run behind one; from the beginning where that is empty.
    pub(crate) async fn events(
        &self,
        name: &RunName,
        after: &str,
        limit: usize,
    ) -> Answer<Vec<wire::WorkflowEvent>> {
        let after = if after.is_empty() { "0-0" } else { after };
        let is_event = |text: &str| {
            let parts = text.split_once('-');
            parts.is_some_and(|(ms, number)| {
                ms.parse::<u64>().is_ok() && number.parse::<u64>().is_ok()
            })
        };
        if !is_event(after) {
            return Err(Fault::invalid_field(
                "after_event_id",
                "is none that a history or a watch answered",
            ));
        }
        let partition = name.partition(&self.desk.store).ok_or(StepError::Gone)?;
        let records = self
            .desk
            .store
            .run_history(&partition, &name.run_id, after, limit)
            .await?;
        let read = self.desk.look(name, |loaded| {
            let events = records.into_iter();
            events
                .filter_map(|record| history::event(&loaded.run, record))
                .collect()
        });
        Ok(read.await?)
    }

    pub(crate) async fn explain_task(
        &self,
        namespace: &str,
        request: wire::ExplainTaskRequest,
    ) -> Answer<wire::ExplainTaskResponse> {
        let name = self
            .run(namespace, &request.workflow_id, &request.run_id)
            .await?;
        let task = self.task(&name, &request.workflow_id, &request.task_id).await?;
        let namespace = Arc::clone(&name.namespace);
        let facts = self.desk.placing.facts(&namespace).await?;
        let explained = self.desk.look(&name, |loaded| {
            let mut explained = view::explain(loaded, task)?;
            if explained.waits_for == "queue"
                && let Some(group) = loaded.target(task).and_then(|at| facts.group(&at.group))
            {
                explained.lines.push(format!(
                    "the group is {}, {} messages wait in it and {} consumers are there",
                    group.state, group.waiting, group.live_consumers
                ));
            }
            Some(explained)
        });
        explained
            .await?
            .ok_or_else(|| Fault::no_task(&request.workflow_id, &request.task_id))
    }

    /// The newest run of a workflow and the digest of what was submitted.
    async fn newest(
        &self,
        namespace: &str,
        workflow_id: &str,
    ) -> Result<Option<(String, String)>, StoreError> {
        let number = partition_of_workflow(workflow_id);
        let partition = self.desk.store.partition(namespace, number);
        self.desk.store.run_of_workflow(&partition, workflow_id).await
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

    async fn task(&self, name: &RunName, workflow_id: &str, task_id: &str) -> Answer<TaskIndex> {
        let found = self.desk.look(name, |loaded| loaded.run.find(task_id));
        found
            .await?
            .ok_or_else(|| Fault::no_task(workflow_id, task_id))
    }
}

/// Who decided a task.
enum Decided {
    /// The shard of its open attempt, just now.
    Applied,
    /// Somebody else, before.
    Before,
    /// It has no attempt that a shard knows of.
    InPartition,
}

/// The open attempt of a task and where it was sent.
fn open_attempt(loaded: &Loaded, task: TaskIndex) -> Option<(u32, Target)> {
    let state = loaded.run.task(task)?;
    if !state.status.is_open() || !state.is_placed {
        return None;
    }
    Some((state.attempt, loaded.target(task)?.clone()))
}

/// Tasks that were handed to their groups, and how many wait.
fn started(loaded: &Loaded) -> (Vec<String>, u32) {
    let run = &loaded.run;
    let (mut routed, mut waiting) = (Vec::new(), 0_u32);
    for (task, state) in (0..).zip(run.tasks()) {
        if state.attempt > 0 {
            routed.extend(run.id(task).map(str::to_owned));
        } else if !state.status.is_final() {
            waiting = waiting.saturating_add(1);
        }
    }
    (routed, waiting)
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
            let is_skipped = run.task(*dependant).is_some_and(|state| {
                state.attempt == 0 && state.status.is_final()
            });
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

fn ids(run: &Run, tasks: &[TaskIndex]) -> Vec<String> {
    let ids = tasks.iter().filter_map(|task| run.id(*task));
    ids.map(str::to_owned).collect()
}

/// Says whether two submits are the same.
fn digest(spec: &wire::WorkflowSpec) -> String {
    let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, &spec.encode_to_vec());
    digest.simple().to_string()
}

fn read_cursor(cursor: &str) -> Option<(u64, String)> {
    let (created, run_id) = cursor.split_once('/')?;
    Some((created.parse().ok()?, run_id.to_owned()))
}

/// Why an event was refused, for a caller.
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
        | Illegal::NotQueued { .. }
        | Illegal::NotAsked
        | Illegal::Resolving { .. }
        | Illegal::AlreadyPaused
        | Illegal::NotPaused => Reason::FailedPrecondition,
    };
    Fault::new(reason, why.to_string())
}

#[cfg(test)]
mod tests {
    use super::read_cursor;

    #[test]
    fn a_cursor_is_read_back_and_anything_else_refused() {
        assert_eq!(read_cursor("5/a"), Some((5, "a".to_owned())));
        assert_eq!(read_cursor("a"), None);
        assert_eq!(read_cursor("x/a"), None);
    }
}
