//! The guide's groups, routers, and agents that work off tasks.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use hive_client::{
    Job, Outcome, Work,
    wire::{self, workflow_service_client::WorkflowServiceClient},
};
use hive_testkit::{daemon::Daemon, redis::Aof};
use parking_lot::Mutex;
use tonic::transport::Channel;

use crate::fleet::{Agent, Fleet, PATIENCE};

/// The guide's groups: name, stream and type of agent.
pub(crate) const GROUPS: [(&str, &str); 4] = [
    ("architects_consumers", "architects"),
    ("backend_engineers_consumers", "backend_engineers"),
    ("frontend_developers_consumers", "frontend_developers"),
    ("qa_engineers_consumers", "qa_engineers"),
];

/// Daemons for workflows, with the guide's groups.
pub(crate) struct Flow {
    pub(crate) fleet: Fleet,
    pub(crate) routers: Vec<Daemon>,
    pub(crate) done: Done,
}

/// What agents got: message id -> the messages, in their order.
#[derive(Clone, Default)]
pub(crate) struct Done(Arc<Mutex<Vec<wire::Message>>>);

impl Done {
    /// How often each task was begun, by its id.
    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for message in self.0.lock().iter() {
            *counts.entry(message.task_id.clone()).or_default() += 1;
        }
        counts
    }

    /// The last message of a task.
    pub(crate) fn of(&self, task: &str) -> Option<wire::Message> {
        let seen = self.0.lock();
        seen.iter().rev().find(|one| one.task_id == task).cloned()
    }

    fn note(&self, message: &wire::Message) {
        self.0.lock().push(message.clone());
    }
}

/// An agent that answers each task as a function says, and notes what it got.
pub(crate) struct Answering<F> {
    done: Done,
    answer: F,
}

impl<F> Answering<F> {
    pub(crate) fn new(done: &Done, answer: F) -> Self {
        let done = done.clone();
        Self { done, answer }
    }
}

impl<F> Work for Answering<F>
where
    F: Fn(&Job) -> Answer + Send + Sync + 'static,
{
    async fn work(&self, job: Job) -> Outcome {
        self.done.note(&job.message);
        match (self.answer)(&job) {
            Answer::Now(outcome) => outcome,
            Answer::Later(after, outcome) => {
                tokio::select! {
                    () = tokio::time::sleep(after) => outcome,
                    () = job.cancelled.cancelled() => Outcome::release(),
                }
            },
        }
    }
}

/// What an agent does with a task.
pub(crate) enum Answer {
    Now(Outcome),
    Later(Duration, Outcome),
}

impl Flow {
    /// A Redis, gateways, coordinators, routers and the guide's groups.
    pub(crate) async fn start(aof: Aof, gateways: usize, routers: usize) -> Result<Self> {
        let fleet = Fleet::start(aof, gateways, 1).await?;
        let mut flow = Self {
            fleet,
            routers: Vec::new(),
            done: Done::default(),
        };
        for _ in 0..routers {
            let url = flow.fleet.redis.url();
            flow.routers.push(Daemon::router(&url).await?);
        }
        for (name, agent_type) in GROUPS {
            let request = wire::CreateGroupRequest {
                name: name.into(),
                stream_name: format!("agent_messages:{agent_type}"),
                agent_type: agent_type.into(),
                settings: Some(wire::GroupSettings {
                    max_attempts: Some(100),
                    initial_backoff: Some(hive_protocol::time::to_duration(10)),
                    max_backoff: Some(hive_protocol::time::to_duration(50)),
                    ..wire::GroupSettings::default()
                }),
                ..wire::CreateGroupRequest::default()
            };
            flow.fleet.client(0)?.create_group(request).await?;
        }
        Ok(flow)
    }

    /// The service, at the gateway.
    pub(crate) async fn service(&self) -> Result<WorkflowServiceClient<Channel>> {
        let gateway = self.fleet.gateways.first().context("a gateway")?;
        Ok(WorkflowServiceClient::connect(gateway.url()).await?)
    }

    /// One agent for each group, all of which answer so.
    pub(crate) fn agents<F>(&self, answer: F) -> Result<Vec<Agent>>
    where
        F: Fn(&Job) -> Answer + Clone + Send + Sync + 'static,
    {
        let agents = GROUPS.iter().map(|(group, agent_type)| {
            let work = Answering::new(&self.done, answer.clone());
            let id = format!("{agent_type}-1");
            Ok(Agent::working(
                self.fleet.client(0)?,
                group,
                &id,
                work,
                |builder| builder,
            ))
        });
        agents.collect()
    }

    /// Submits a workflow.
    pub(crate) async fn submit(
        &self,
        workflow: wire::WorkflowSpec,
    ) -> Result<wire::SubmitWorkflowResponse> {
        let request = wire::SubmitWorkflowRequest {
            workflow: Some(workflow),
        };
        let answer = self.service().await?.submit_workflow(request).await?;
        Ok(answer.into_inner())
    }

    /// A run as it is now, with results.
    pub(crate) async fn get(&self, workflow_id: &str) -> Result<wire::Workflow> {
        let request = wire::GetWorkflowRequest {
            workflow_id: workflow_id.into(),
            run_id: String::new(),
            include_results: true,
        };
        let answer = self.service().await?.get_workflow(request).await?;
        answer.into_inner().workflow.context("a workflow")
    }

    /// Waits until a run is in this state.
    pub(crate) async fn becomes(
        &self,
        workflow_id: &str,
        state: wire::WorkflowState,
    ) -> Result<wire::Workflow> {
        self.until(workflow_id, |run| run.state() == state).await
    }

    /// Waits until a task of a run is in this state.
    pub(crate) async fn task_becomes(
        &self,
        workflow_id: &str,
        task: &str,
        state: wire::TaskState,
    ) -> Result<wire::Workflow> {
        self.until(workflow_id, |run| state_of(run, task) == Some(state))
            .await
    }

    async fn until(
        &self,
        workflow_id: &str,
        is_so: impl Fn(&wire::Workflow) -> bool,
    ) -> Result<wire::Workflow> {
        let end = Instant::now() + PATIENCE;
        loop {
            // A daemon that was killed may just be on its way back.
            let run = self.get(workflow_id).await;
            match run {
                Ok(run) if is_so(&run) => return Ok(run),
                Ok(_) | Err(_) if Instant::now() < end => {},
                other => anyhow::bail!("it did not come to that: {other:#?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The state of a task of a run.
pub(crate) fn state_of(run: &wire::Workflow, task: &str) -> Option<wire::TaskState> {
    run.tasks
        .iter()
        .find(|one| one.id == task)
        .map(wire::Task::state)
}

/// A task of this type that waits for these.
pub(crate) fn task(id: &str, kind: &str, dependencies: &[&str]) -> wire::TaskSpec {
    wire::TaskSpec {
        id: id.into(),
        r#type: kind.into(),
        dependencies: dependencies.iter().map(|id| (*id).to_owned()).collect(),
        payload: Bytes::from(format!("{{\"task\":\"{id}\"}}")),
        ..wire::TaskSpec::default()
    }
}

/// A workflow of these tasks.
pub(crate) fn workflow(id: &str, tasks: Vec<wire::TaskSpec>) -> wire::WorkflowSpec {
    wire::WorkflowSpec {
        workflow_id: id.into(),
        tasks,
        ..wire::WorkflowSpec::default()
    }
}

/// The guide's workflow.
pub(crate) fn feature_development() -> wire::WorkflowSpec {
    workflow(
        "feature_development_workflow",
        vec![
            task("architecture_task", "architecture", &[]),
            task("backend_task", "backend", &["architecture_task"]),
            task("frontend_task", "frontend", &["backend_task"]),
            task(
                "testing_task",
                "testing",
                &["backend_task", "frontend_task"],
            ),
        ],
    )
}

/// Acks with a result that names the task.
pub(crate) fn acks(job: &Job) -> Answer {
    let result = format!("{{\"done\":\"{}\"}}", job.message.task_id);
    Answer::Now(Outcome::ack(result))
}
