//! Starting runs: a submit, a look at what one would do, and a run begun anew.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use hive_domain::{
    name,
    placement::Unserved,
    violation::Violations,
    workflow::{Limits, Run, TaskDefinition, WorkflowDefinition},
};
use hive_protocol::{
    fault::{Fault, Reason},
    limits::PAYLOAD_BYTES_MAX,
    wire, workflow,
};
use hive_store::runs::{Created, NewRun};
use prost::Message as _;
use uuid::Uuid;

use super::{Answer, Calls, illegal};
use crate::{
    metrics,
    names::{RunName, mint_run_id},
    placing::Facts,
    stored::Loaded,
};

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
            return self
                .again(namespace, &workflow_id, &run_id, known == digest)
                .await;
        }
        let (submitted, _) = self.checked(namespace, spec, Lacking::Make).await?;
        let name = RunName::new(namespace, &mint_run_id(&workflow_id));
        let run = Run::start(submitted.definition, submitted.graph, self.desk.now());
        self.desk.note(namespace).await?;
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

    /// The answer to a submit of a workflow that is there.
    pub(super) async fn again(
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
        match self
            .checked(
                namespace,
                request.workflow.unwrap_or_default(),
                Lacking::Say,
            )
            .await
        {
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
    pub(super) async fn checked(
        &self,
        namespace: &str,
        spec: wire::WorkflowSpec,
        lacking: Lacking,
    ) -> Answer<(workflow::Submitted, Vec<wire::TaskPlacement>)> {
        let submitted = workflow::read_workflow(spec, &Limits::default(), PAYLOAD_BYTES_MAX)
            .map_err(Fault::invalid)?;
        let placements = self
            .placed(namespace, &submitted.definition, "tasks", lacking)
            .await?;
        Ok((submitted, placements))
    }

    /// Where tasks would go now.
    pub(super) async fn placed(
        &self,
        namespace: &str,
        definition: &WorkflowDefinition,
        prefix: &str,
        lacking: Lacking,
    ) -> Answer<Vec<wire::TaskPlacement>> {
        let namespace: Arc<str> = namespace.into();
        let placing = &self.desk.placing;
        let mut found = Found::of(&*placing.facts(&namespace).await?, definition);
        if !found.unserved.is_empty() {
            // A group that was made a moment ago.
            found = Found::of(&*placing.fresh(&namespace).await?, definition);
        }
        if !found.unserved.is_empty() {
            let is_dry = lacking == Lacking::Say;
            let tasks = found.unserved.iter().map(|(_, task, _)| *task);
            let provisioning = &self.desk.provisioning;
            let answers = provisioning.ask(&namespace, tasks, is_dry).await?;
            if is_dry {
                found.add(&answers);
            } else if !answers.is_empty() {
                found = Found::of(&*placing.anew(&namespace).await?, definition);
            }
        }
        if found.unserved.is_empty() {
            return Ok(found.placements);
        }
        let mut faults = Violations::new();
        for (number, task, unserved) in found.unserved {
            let field = if task.group.is_some() {
                "group"
            } else {
                "type"
            };
            faults.push(format!("{prefix}[{number}].{field}"), unserved.to_string());
        }
        Err(Fault::invalid_because(Reason::UnservedType, faults))
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
}

/// What is done about tasks that no group serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lacking {
    /// Their groups are made where coordinators make them.
    Make,
    /// Said whether they would be.
    Say,
}

/// Where tasks would go.
struct Found<'a> {
    placements: Vec<wire::TaskPlacement>,
    /// Tasks without a group, with their numbers.
    unserved: Vec<(usize, &'a TaskDefinition, Unserved)>,
}

impl<'a> Found<'a> {
    fn of(facts: &Facts, definition: &'a WorkflowDefinition) -> Self {
        let (mut placements, mut unserved) = (Vec::new(), Vec::new());
        for (number, task) in definition.tasks.iter().enumerate() {
            if task.is_awaited() {
                continue;
            }
            match facts.look(definition, task) {
                Ok(choice) => placements.push(placement(task, choice.group, choice.reason)),
                Err(none) => unserved.push((number, task, none)),
            }
        }
        Self {
            placements,
            unserved,
        }
    }

    /// Takes tasks for served whose groups would be made.
    fn add(&mut self, answers: &BTreeMap<String, wire::PlaceTaskResponse>) {
        let placements = &mut self.placements;
        self.unserved.retain(|(_, task, _)| {
            let made = answers.get(&task.kind).filter(|_| task.group.is_none());
            if let Some(made) = made {
                let (group, reason) = (made.group.clone(), made.reasoning.clone());
                placements.push(placement(task, group, reason));
            }
            made.is_none()
        });
    }
}

fn placement(task: &TaskDefinition, group: String, reason: String) -> wire::TaskPlacement {
    wire::TaskPlacement {
        task_id: task.id.clone(),
        group,
        reason,
    }
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

/// Says whether two submits are the same.
fn digest(spec: &wire::WorkflowSpec) -> String {
    let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, &spec.encode_to_vec());
    digest.simple().to_string()
}
