//! A router that answers from a script: it notes what it was asked, and refuses on demand.

use std::sync::Arc;

use hive_protocol::{
    fault::{Fault, Reason},
    wire::{
        self,
        workflow_service_server::{WorkflowService, WorkflowServiceServer},
    },
};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tonic::{Request, Response, Status, service::Routes};

use crate::fake::{self, Seen, answers, live};

#[derive(Default)]
struct Script {
    calls: fake::Script,
    routed: Mutex<Option<wire::RouteTaskRequest>>,
    submitted: Mutex<Option<wire::WorkflowSpec>>,
}

/// A live router; dropping it ends it as a crash does.
pub(crate) struct FakeRouter {
    script: Arc<Script>,
    _tasks: JoinSet<()>,
}

impl FakeRouter {
    /// A router that says at this Redis that it lives.
    pub(crate) async fn start(redis_url: &str) -> Self {
        let script = Arc::new(Script::default());
        let service = WorkflowServiceServer::new(Service(script.clone()));
        let tasks = live("router", redis_url, Routes::new(service)).await;
        Self {
            script,
            _tasks: tasks,
        }
    }

    /// Refuses the next call.
    pub(crate) fn refuse(&self, fault: Fault) {
        self.script.calls.refuse(fault);
    }

    /// Everything that it was asked.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.script.calls.seen()
    }

    /// The last task that was routed.
    pub(crate) fn routed(&self) -> Option<wire::RouteTaskRequest> {
        self.script.routed.lock().clone()
    }

    /// The last workflow that was submitted or validated.
    pub(crate) fn submitted(&self) -> Option<wire::WorkflowSpec> {
        self.script.submitted.lock().clone()
    }
}

struct Service(Arc<Script>);

fn run(workflow_id: &str) -> wire::Workflow {
    wire::Workflow {
        workflow_id: workflow_id.to_owned(),
        run_id: "run-1".to_owned(),
        state: wire::WorkflowState::Running.into(),
        created_at: Some(prost_types::Timestamp::default()),
        max_parallel_tasks: 50,
        parallel_limit: 50,
        task_counts: [("running".to_owned(), 1)].into(),
        tasks: vec![wire::Task {
            id: "a".to_owned(),
            r#type: "backend".to_owned(),
            state: wire::TaskState::Succeeded.into(),
            attempt: 1,
            has_result: true,
            result: "{\"ok\":true}".into(),
            ..wire::Task::default()
        }],
        event_id: "5-0".to_owned(),
        ..wire::Workflow::default()
    }
}

fn event(event_id: &str, what: &str) -> wire::WorkflowEvent {
    wire::WorkflowEvent {
        event_id: event_id.to_owned(),
        time: Some(prost_types::Timestamp::default()),
        task_id: "a".to_owned(),
        what: what.to_owned(),
        attempt: 1,
        ..wire::WorkflowEvent::default()
    }
}

#[tonic::async_trait]
impl WorkflowService for Service {
    type WatchWorkflowStream =
        tokio_stream::Iter<std::vec::IntoIter<Result<wire::WatchWorkflowResponse, Status>>>;

    answers! {
        submit_workflow SubmitWorkflowRequest SubmitWorkflowResponse |me, asked| {
            let spec = asked.workflow.unwrap_or_default();
            *me.0.submitted.lock() = Some(spec.clone());
            wire::SubmitWorkflowResponse {
                workflow_id: spec.workflow_id,
                run_id: "run-1".to_owned(),
                routed_tasks: vec!["a".to_owned()],
                waiting_tasks: 3,
                already: false,
            }
        };
        validate_workflow ValidateWorkflowRequest ValidateWorkflowResponse |me, asked| {
            let spec = asked.workflow.unwrap_or_default();
            let is_wrong = spec.workflow_id == "wrong";
            *me.0.submitted.lock() = Some(spec);
            let fault = |number| wire::FieldViolation {
                field: format!("tasks[{number}].timeout"),
                description: "`-1 s` must be between 0 s and 31536000 s".to_owned(),
            };
            wire::ValidateWorkflowResponse {
                field_violations: (0..if is_wrong { 200 } else { 0 }).map(fault).collect(),
                placements: vec![wire::TaskPlacement {
                    task_id: "a".to_owned(),
                    group: "g".to_owned(),
                    reason: "its agents are of type `a`".to_owned(),
                }],
            }
        };
        route_task RouteTaskRequest RouteTaskResponse |me, asked| {
            *me.0.routed.lock() = Some(asked.clone());
            wire::RouteTaskResponse {
                run_id: "run-1".to_owned(),
                group: "qa_engineers_consumers".to_owned(),
                reason: "the router says so".to_owned(),
                waits_for: asked.task.unwrap_or_default().dependencies,
                already: false,
            }
        };
        get_workflow GetWorkflowRequest GetWorkflowResponse |_me, asked| {
            wire::GetWorkflowResponse { workflow: Some(run(&asked.workflow_id)) }
        };
        get_task_result GetTaskResultRequest GetTaskResultResponse |_me, asked| {
            let result = if asked.task_id == "a" { "{\"ok\":true}" } else { "no json" };
            wire::GetTaskResultResponse { result: result.into() }
        };
        list_workflows ListWorkflowsRequest ListWorkflowsResponse |_me, _asked| {
            wire::ListWorkflowsResponse {
                workflows: vec![run("w")],
                next_cursor: "next".to_owned(),
            }
        };
        signal_task_completion SignalTaskCompletionRequest SignalTaskCompletionResponse
            |_me, _asked| {
            wire::SignalTaskCompletionResponse {
                triggered_tasks: vec!["b".to_owned()],
                already: false,
            }
        };
        signal_task_failure SignalTaskFailureRequest SignalTaskFailureResponse |_me, _asked| {
            wire::SignalTaskFailureResponse { already: true }
        };
        provide_input ProvideInputRequest ProvideInputResponse |_me, _asked| {
            wire::ProvideInputResponse {}
        };
        close_workflow CloseWorkflowRequest CloseWorkflowResponse |_me, _asked| {
            wire::CloseWorkflowResponse { already: false }
        };
        add_tasks AddTasksRequest AddTasksResponse |_me, _asked| {
            wire::AddTasksResponse { already: false }
        };
        pause_workflow PauseWorkflowRequest PauseWorkflowResponse |_me, _asked| {
            wire::PauseWorkflowResponse { already: false }
        };
        resume_workflow ResumeWorkflowRequest ResumeWorkflowResponse |_me, _asked| {
            wire::ResumeWorkflowResponse { already: false }
        };
        cancel_workflow CancelWorkflowRequest CancelWorkflowResponse |_me, _asked| {
            wire::CancelWorkflowResponse { already: false }
        };
        retry_task RetryTaskRequest RetryTaskResponse |_me, _asked| {
            wire::RetryTaskResponse { attempt: 2, duplicate: false }
        };
        rerun_workflow RerunWorkflowRequest RerunWorkflowResponse |_me, _asked| {
            wire::RerunWorkflowResponse { run_id: "run-2".to_owned() }
        };
        delete_workflow DeleteWorkflowRequest DeleteWorkflowResponse |_me, _asked| {
            wire::DeleteWorkflowResponse {}
        };
        get_history GetHistoryRequest GetHistoryResponse |_me, _asked| {
            wire::GetHistoryResponse { events: vec![event("1-0", "queued")], more: true }
        };
        explain_task ExplainTaskRequest ExplainTaskResponse |_me, _asked| {
            wire::ExplainTaskResponse {
                state: wire::TaskState::Queued.into(),
                waits_for: "agent".to_owned(),
                lines: vec!["group `g` has no consumer".to_owned()],
            }
        };
    }

    async fn watch_workflow(
        &self,
        request: Request<wire::WatchWorkflowRequest>,
    ) -> Result<Response<Self::WatchWorkflowStream>, Status> {
        use wire::watch_workflow_response::Frame;
        self.0.calls.note("watch_workflow", &request)?;
        let asked = request.into_inner();
        let frame = |frame| Ok(wire::WatchWorkflowResponse { frame: Some(frame) });
        let mut frames = Vec::new();
        if asked.after_event_id.is_empty() {
            frames.push(frame(Frame::Snapshot(run(&asked.workflow_id))));
        }
        frames.push(frame(Frame::Event(event("6-0", "succeeded"))));
        if asked.workflow_id == "broken" {
            frames.push(Err(Fault::new(Reason::Draining, "going away").into()));
        }
        Ok(Response::new(tokio_stream::iter(frames)))
    }
}
