//! Adding tasks to runs that go on.

use bytes::Bytes;
use hive_domain::{
    name,
    workflow::{
        Illegal, Limits, Run, TaskIndex, WorkflowDefinition,
        definition::check,
        run::{Refused, Waits},
    },
};
use hive_protocol::{
    fault::{Fault, Reason},
    limits::PAYLOAD_BYTES_MAX,
    wire, workflow,
};
use hive_store::runs::{Created, NewRun};
use prost::Message as _;
use uuid::Uuid;

use super::{Answer, Calls, ids, illegal, submit::Lacking};
use crate::{
    desk::StepError,
    metrics,
    names::{RunName, mint_run_id},
};

/// How tasks are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Adding {
    /// Only looked whether they are there.
    Look,
    /// To an open workflow.
    OnlyOpen,
    /// To any run that goes on.
    Any,
}

impl Calls {
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
        let mut placement = None;
        if !self.has_task(namespace, &workflow_id, &read).await? {
            let placed = self.placed(namespace, &lone, "tasks", Lacking::Make).await;
            let placed = placed.map_err(|mut fault| {
                let faults = fault.violations.drain(..).collect();
                fault.violations = workflow::of_one_task(faults, "task").into_vec();
                fault
            })?;
            placement = placed.into_iter().next();
        }
        let (name, already) = self.add_to_open(namespace, &workflow_id, read).await?;
        let task_id = lone.tasks.into_iter().next().map(|task| task.id);
        let (waits_for, target) = self
            .desk
            .look(&name, |loaded| {
                let task = loaded.run.find(&task_id.unwrap_or_default());
                let waits = task.and_then(|task| loaded.run.waits(task));
                let waits_for = if let Some(Waits::Dependencies { open, .. }) = waits {
                    ids(&loaded.run, &open)
                } else {
                    Vec::new()
                };
                let target = task.and_then(|task| loaded.target(task)).cloned();
                (waits_for, target)
            })
            .await?;
        // Where it was sent, or would go now.
        let (mut group, mut reason) = placement
            .map(|one| (one.group, one.reason))
            .unwrap_or_default();
        if let Some(target) = target
            && target.group != group
        {
            (group, reason) = (target.group, "it was sent there".to_owned());
        }
        Ok(wire::RouteTaskResponse {
            run_id: name.run_id.to_string(),
            group,
            reason,
            waits_for,
            already,
        })
    }

    /// Whether the newest run of a workflow has this very task.
    async fn has_task(
        &self,
        namespace: &str,
        workflow_id: &str,
        read: &workflow::ReadTask,
    ) -> Answer<bool> {
        let Some((run_id, _)) = self.newest(namespace, workflow_id).await? else {
            return Ok(false);
        };
        let name = RunName::new(namespace, &run_id);
        match self.add(&name, vec![read.clone()], Adding::Look).await {
            Err(fault) if fault.reason == Reason::RunNotFound => Ok(false),
            other => other,
        }
    }

    /// Adds a task to the open workflow of an id, which is made where it is unknown.
    pub(super) async fn add_to_open(
        &self,
        namespace: &str,
        workflow_id: &str,
        read: workflow::ReadTask,
    ) -> Answer<(RunName, bool)> {
        // Between the look and the making another caller may make it, or it may be deleted.
        for _ in 0..5 {
            if let Some((run_id, _)) = self.newest(namespace, workflow_id).await? {
                let name = RunName::new(namespace, &run_id);
                match self.add(&name, vec![read.clone()], Adding::OnlyOpen).await {
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
            let graph = check(&definition, &limits)
                .map_err(|faults| Fault::invalid(workflow::of_one_task(faults, "task")))?;
            let name = RunName::new(namespace, &mint_run_id(workflow_id));
            let run = Run::start(definition, graph, self.desk.now());
            self.desk.note(namespace).await?;
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
    pub(super) async fn add(
        &self,
        name: &RunName,
        read: Vec<workflow::ReadTask>,
        adding: Adding,
    ) -> Answer<bool> {
        let (known, is_open, is_closed) = self
            .desk
            .look(name, |loaded| {
                let definition = loaded.run.definition();
                let known = read.iter().map(|task| {
                    let number = loaded.run.find(&task.definition.id)?;
                    let known = definition.tasks.get(usize::try_from(number).ok()?)?;
                    (*known == task.definition).then_some(number)
                });
                let known: Option<Vec<TaskIndex>> = known.collect();
                (known, definition.is_open, loaded.run.head().is_closed)
            })
            .await?;
        if let Some(known) = known {
            let partition = name.partition(&self.desk.store).ok_or(StepError::Gone)?;
            let store = &self.desk.store;
            let stored = store.run_contents(&partition, &name.run_id, &known).await?;
            for (task, stored) in read.iter().zip(stored) {
                if stored.unwrap_or_default() != task.content.encode_to_vec() {
                    let id = &task.definition.id;
                    return Err(Fault::new(
                        Reason::TaskExists,
                        format!("the run has a task `{id}` with other content"),
                    ));
                }
            }
            return Ok(true);
        }
        if adding == Adding::Look {
            return Ok(false);
        }
        if adding == Adding::OnlyOpen && !is_open {
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
        // Tasks that were added before are not held against the groups that are there now.
        if self.add(&name, read.clone(), Adding::Look).await? {
            return Ok(wire::AddTasksResponse { already: true });
        }
        let _now = self
            .placed(namespace, &asked, "tasks", Lacking::Make)
            .await?;
        let already = self.add(&name, read, Adding::Any).await?;
        Ok(wire::AddTasksResponse { already })
    }
}
