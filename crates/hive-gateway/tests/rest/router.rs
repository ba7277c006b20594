//! A router that answers from a script: it notes what it was asked, and refuses on demand.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use hive_protocol::{
    fault::{Fault, Reason},
    wire::{
        self,
        workflow_service_server::{WorkflowService, WorkflowServiceServer},
    },
};
use hive_store::{Store, StoreConfig, registry::Registration};
use parking_lot::Mutex;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, metadata::MetadataMap, transport::Server};

/// What a call brought.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) call: &'static str,
    pub(crate) namespace: String,
    pub(crate) trace: String,
    pub(crate) has_deadline: bool,
    pub(crate) request: String,
}

#[derive(Default)]
struct Script {
    seen: Mutex<Vec<Seen>>,
    refusals: Mutex<VecDeque<Fault>>,
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
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let script = Arc::new(Script::default());
        let service = WorkflowServiceServer::new(Service(script.clone()));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            let served = Server::builder().add_service(service);
            served.serve_with_incoming(incoming).await.unwrap();
        });
        let store = Store::open(StoreConfig {
            url: redis_url.to_owned(),
            ..StoreConfig::default()
        })
        .unwrap();
        let me = Registration::new("router", "0", &address.to_string());
        store.beat(&me).await.unwrap();
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                store.beat(&me).await.unwrap();
            }
        });
        Self {
            script,
            _tasks: tasks,
        }
    }

    /// Refuses the next call.
    pub(crate) fn refuse(&self, fault: Fault) {
        self.script.refusals.lock().push_back(fault);
    }

    /// Everything that it was asked.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.script.seen.lock().clone()
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

impl Service {
    fn note<T: std::fmt::Debug>(
        &self,
        call: &'static str,
        request: &Request<T>,
    ) -> Result<(), Status> {
        let metadata: &MetadataMap = request.metadata();
        let text = |header: &str| {
            let value = metadata.get(header).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        self.0.seen.lock().push(Seen {
            call,
            namespace: text("hive-namespace"),
            trace: text("traceparent"),
            has_deadline: metadata.contains_key("grpc-timeout"),
            request: format!("{:?}", request.get_ref()),
        });
        match self.0.refusals.lock().pop_front() {
            Some(fault) => Err(fault.into()),
            None => Ok(()),
        }
    }
}

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

macro_rules! answers {
    ($($call:ident $request:ident $response:ident |$self:ident, $asked:ident| $answer:expr;)*) => {
        $(
            fn $call<'life0, 'async_trait>(
                &'life0 self,
                request: Request<wire::$request>,
            ) -> std::pin::Pin<Box<
                dyn Future<Output = Result<Response<wire::$response>, Status>>
                    + Send + 'async_trait,
            >>
            where
                'life0: 'async_trait,
                Self: 'async_trait,
            {
                Box::pin(async move {
                    self.note(stringify!($call), &request)?;
                    let ($self, $asked) = (self, request.into_inner());
                    let _script = &$self.0;
                    Ok(Response::new($answer))
                })
            }
        )*
    };
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
        self.note("watch_workflow", &request)?;
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
