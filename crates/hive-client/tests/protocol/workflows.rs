//! A watch of a run against a gateway whose streams the test writes.

use std::{future::Future, pin::Pin, sync::Arc};

use hive_client::{
    CallError, Client, Fault, Reason,
    wire::{
        self, WatchWorkflowRequest, WatchWorkflowResponse, Workflow, WorkflowEvent, WorkflowState,
        watch_workflow_response::Frame,
        workflow_service_server::{WorkflowService, WorkflowServiceServer},
    },
};
use parking_lot::Mutex;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use crate::peer::within;

type Frames = Vec<Result<WatchWorkflowResponse, Status>>;

/// What each opening is answered, and what it asked for.
#[derive(Default)]
struct Script {
    streams: Vec<Result<Frames, Status>>,
    asked: Vec<WatchWorkflowRequest>,
}

struct Door(Arc<Mutex<Script>>);

/// Calls that these tests never make.
macro_rules! never {
    ($($call:ident $request:ident $response:ident;)*) => {
        $(
            fn $call<'life0, 'async_trait>(
                &'life0 self,
                _request: Request<wire::$request>,
            ) -> Pin<Box<
                dyn Future<Output = Result<Response<wire::$response>, Status>>
                    + Send + 'async_trait,
            >>
            where
                'life0: 'async_trait,
                Self: 'async_trait,
            {
                Box::pin(async { Err(Status::unimplemented("never called")) })
            }
        )*
    };
}

#[tonic::async_trait]
impl WorkflowService for Door {
    type WatchWorkflowStream =
        tokio_stream::Iter<std::vec::IntoIter<Result<WatchWorkflowResponse, Status>>>;

    async fn watch_workflow(
        &self,
        request: Request<WatchWorkflowRequest>,
    ) -> Result<Response<Self::WatchWorkflowStream>, Status> {
        let mut script = self.0.lock();
        script.asked.push(request.into_inner());
        if script.streams.is_empty() {
            return Err(Status::unavailable("the script is over"));
        }
        let frames = script.streams.remove(0)?;
        Ok(Response::new(tokio_stream::iter(frames)))
    }

    never! {
        submit_workflow SubmitWorkflowRequest SubmitWorkflowResponse;
        validate_workflow ValidateWorkflowRequest ValidateWorkflowResponse;
        route_task RouteTaskRequest RouteTaskResponse;
        get_workflow GetWorkflowRequest GetWorkflowResponse;
        get_task_result GetTaskResultRequest GetTaskResultResponse;
        list_workflows ListWorkflowsRequest ListWorkflowsResponse;
        signal_task_completion SignalTaskCompletionRequest SignalTaskCompletionResponse;
        signal_task_failure SignalTaskFailureRequest SignalTaskFailureResponse;
        provide_input ProvideInputRequest ProvideInputResponse;
        close_workflow CloseWorkflowRequest CloseWorkflowResponse;
        add_tasks AddTasksRequest AddTasksResponse;
        pause_workflow PauseWorkflowRequest PauseWorkflowResponse;
        resume_workflow ResumeWorkflowRequest ResumeWorkflowResponse;
        cancel_workflow CancelWorkflowRequest CancelWorkflowResponse;
        retry_task RetryTaskRequest RetryTaskResponse;
        rerun_workflow RerunWorkflowRequest RerunWorkflowResponse;
        delete_workflow DeleteWorkflowRequest DeleteWorkflowResponse;
        get_history GetHistoryRequest GetHistoryResponse;
        explain_task ExplainTaskRequest ExplainTaskResponse;
    }
}

/// A gateway with a script; it ends with the value.
struct Peer {
    client: Client,
    script: Arc<Mutex<Script>>,
    _server: JoinSet<()>,
}

impl Peer {
    async fn start(streams: Vec<Result<Frames, Status>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let script = Arc::new(Mutex::new(Script {
            streams,
            asked: Vec::new(),
        }));
        let service = WorkflowServiceServer::new(Door(script.clone()));
        let mut server = JoinSet::new();
        server.spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            let served = Server::builder().add_service(service);
            served.serve_with_incoming(incoming).await.unwrap();
        });
        Self {
            client,
            script,
            _server: server,
        }
    }

    /// The events behind which each opening went on, with the runs.
    fn asked(&self) -> Vec<(String, String)> {
        let asked = self.script.lock().asked.clone();
        asked
            .into_iter()
            .map(|one| (one.run_id, one.after_event_id))
            .collect()
    }
}

fn snapshot(event_id: &str, state: WorkflowState) -> Result<WatchWorkflowResponse, Status> {
    let frame = Frame::Snapshot(Workflow {
        run_id: "r".to_owned(),
        event_id: event_id.to_owned(),
        state: state.into(),
        ..Workflow::default()
    });
    Ok(WatchWorkflowResponse { frame: Some(frame) })
}

fn event(event_id: &str, task_id: &str, what: &str) -> Result<WatchWorkflowResponse, Status> {
    let frame = Frame::Event(WorkflowEvent {
        event_id: event_id.to_owned(),
        task_id: task_id.to_owned(),
        what: what.to_owned(),
        ..WorkflowEvent::default()
    });
    Ok(WatchWorkflowResponse { frame: Some(frame) })
}

/// The ids of everything that a watch sees until it ends.
async fn seen(peer: &Peer) -> Result<Vec<String>, CallError> {
    let mut watch = peer.client.watch_workflow("w");
    let mut ids = Vec::new();
    while let Some(frame) = within("a frame", watch.next()).await? {
        ids.push(match frame {
            Frame::Snapshot(run) => format!("snapshot {}", run.event_id),
            Frame::Event(event) => event.event_id,
        });
    }
    Ok(ids)
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(run, after): &(&str, &str)| ((*run).to_owned(), (*after).to_owned());
    expected.iter().map(owned).collect()
}

#[tokio::test]
async fn a_watch_goes_on_behind_the_last_event_that_it_saw() {
    let peer = Peer::start(vec![
        Ok(vec![
            snapshot("1", WorkflowState::Running),
            event("2", "a", "running"),
            Err(Fault::new(Reason::Draining, "going away").into()),
        ]),
        Err(Status::unavailable("not yet")),
        // An end without a word is no end of the run.
        Ok(vec![event("3", "a", "succeeded")]),
        Ok(vec![event("4", "", "succeeded")]),
    ])
    .await;
    let ids = seen(&peer).await.unwrap();
    assert_eq!(ids, ["snapshot 1", "2", "3", "4"]);
    let expected = [("", ""), ("r", "2"), ("r", "2"), ("r", "3")];
    assert_eq!(peer.asked(), pairs(&expected));
}

#[tokio::test]
async fn a_run_that_is_over_is_shown_once() {
    let over = vec![snapshot("9", WorkflowState::Cancelled)];
    let peer = Peer::start(vec![Ok(over)]).await;
    assert_eq!(seen(&peer).await.unwrap(), ["snapshot 9"]);
    assert_eq!(peer.asked().len(), 1);
}

#[tokio::test]
async fn a_place_that_the_history_forgot_leads_to_a_snapshot() {
    let peer = Peer::start(vec![
        Ok(vec![snapshot("1", WorkflowState::Running)]),
        Err(Fault::new(Reason::EventNotFound, "trimmed").into()),
        Ok(vec![snapshot("8", WorkflowState::Succeeded)]),
    ])
    .await;
    assert_eq!(seen(&peer).await.unwrap(), ["snapshot 1", "snapshot 8"]);
    let expected = [("", ""), ("r", "1"), ("r", "")];
    assert_eq!(peer.asked(), pairs(&expected));
}

#[tokio::test]
async fn a_refusal_for_good_ends_the_watch() {
    let peer = Peer::start(vec![Err(Fault::no_workflow("w").into())]).await;
    let refused = seen(&peer).await.unwrap_err();
    assert_eq!(refused.fault().reason, Reason::WorkflowNotFound);
}
