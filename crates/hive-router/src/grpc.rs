//! The gRPC door: metadata in, typed calls through, faults out as statuses.

use std::{pin::Pin, sync::Arc, time::Duration};

use hive_protocol::{
    fault::{Fault, Reason},
    limits::FORWARDED_WATCHES_MAX,
    namespace, served, unary,
    wire::{
        self,
        watch_workflow_response::Frame,
        workflow_service_server::{WorkflowService, WorkflowServiceServer},
    },
};
use hive_runtime::{
    gate::{Gate, Pass},
    shutdown::Shutdown,
    tasks::BACKGROUND,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, metadata::MetadataMap, service::Routes};

use crate::{calls::Calls, desk::Desk, names::RunName};

/// Full name of the service, for whoever asks for its health.
pub(crate) const SERVICES: [&str; 1] = ["agenthive.v1.WorkflowService"];
/// A watch looks again after so long where the step was written by another router.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Events sent of one look.
const EVENTS: usize = 200;

/// The service, and what a call needs besides.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    calls: Calls,
    gate: Gate,
    shutdown: Shutdown,
    watches: Arc<Semaphore>,
}

/// The service as routes.
pub(crate) fn routes(desk: &Arc<Desk>, gate: Gate, shutdown: Shutdown) -> Routes {
    let door = Door {
        calls: Calls {
            desk: Arc::clone(desk),
        },
        gate,
        shutdown,
        watches: Arc::new(Semaphore::new(FORWARDED_WATCHES_MAX)),
    };
    Routes::new(served!(WorkflowServiceServer::new(door)))
}

impl Door {
    /// Lets a call in, unless the daemon goes away.
    fn enter(&self, name: &'static str) -> Result<Pass, Fault> {
        if self.shutdown.is_draining() {
            return Err(Fault::new(Reason::Draining, "this router is going away"));
        }
        Ok(self.gate.enter(name))
    }

    /// Lets a call in, and says for which namespace it is.
    fn admit(&self, name: &'static str, metadata: &MetadataMap) -> Result<(Pass, String), Fault> {
        let pass = self.enter(name)?;
        Ok((pass, namespace::from_metadata(metadata)?))
    }
}

#[tonic::async_trait]
impl WorkflowService for Door {
    type WatchWorkflowStream =
        Pin<Box<dyn Stream<Item = Result<wire::WatchWorkflowResponse, Status>> + Send + 'static>>;

    unary! {
        calls after admit;
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

    async fn watch_workflow(
        &self,
        request: Request<wire::WatchWorkflowRequest>,
    ) -> Result<Response<Self::WatchWorkflowStream>, Status> {
        drop(self.enter("watch_workflow")?);
        let place = Arc::clone(&self.watches).try_acquire_owned();
        let place = place.map_err(|_none_left| {
            Fault::new(
                Reason::TooManyConnections,
                format!("this router has its limit of {FORWARDED_WATCHES_MAX} watches"),
            )
            .with_retry_after(Duration::from_secs(5))
        })?;
        let namespace = namespace::from_metadata(request.metadata())?;
        let asked = request.into_inner();
        let name = self
            .calls
            .run(&namespace, &asked.workflow_id, &asked.run_id)
            .await?;
        // What is wrong with the event's id is answered before the stream begins.
        self.calls.events(&name, &asked.after_event_id, 1).await?;
        let (frames, stream) = mpsc::channel(16);
        let watch = watch(self.clone(), name, asked.after_event_id, frames, place);
        self.calls.desk.tasks.spawn(BACKGROUND, "watch", watch);
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

type Frames = mpsc::Sender<Result<wire::WatchWorkflowResponse, Status>>;

/// Sends what happens in a run, until it is over, the caller hangs up or the daemon drains.
async fn watch(
    door: Door,
    name: RunName,
    after: String,
    frames: Frames,
    _place: OwnedSemaphorePermit,
) {
    let told = tokio::select! {
        told = tell(&door.calls, &name, after, &frames) => told,
        () = frames.closed() => return,
        () = door.shutdown.draining() => {
            Err(Fault::new(Reason::Draining, "this router is going away"))
        },
    };
    if let Err(fault) = told {
        // A caller that takes nothing learns of it by the connection.
        drop(frames.try_send(Err(fault.into())));
    }
}

async fn tell(
    calls: &Calls,
    name: &RunName,
    mut after: String,
    frames: &Frames,
) -> Result<(), Fault> {
    let send = async |frame| {
        let frame = wire::WatchWorkflowResponse { frame: Some(frame) };
        // Nobody to send to: the select above ends this.
        let _hung_up = frames.send(Ok(frame)).await;
    };
    if after.is_empty() {
        let snapshot = calls.snapshot(name).await?;
        after.clone_from(&snapshot.event_id);
        send(Frame::Snapshot(snapshot)).await;
    }
    let wakes = calls.desk.wakes(name);
    let mut seen = None;
    loop {
        let woken = wakes.notified();
        let version = calls.desk.version(name).await?;
        if seen == Some(version) {
            let _either = tokio::time::timeout(LOOK_EVERY, woken).await;
            continue;
        }
        seen = Some(version);
        // Before the events: a run that is over then has no more of them behind those.
        let is_over = calls
            .desk
            .look(name, |loaded| loaded.run.status().is_final())
            .await?;
        loop {
            let events = calls.events(name, &after, EVENTS).await?;
            let count = events.len();
            for event in events {
                after.clone_from(&event.event_id);
                send(Frame::Event(event)).await;
            }
            if count < EVENTS {
                break;
            }
        }
        if is_over {
            return Ok(());
        }
        let _either = tokio::time::timeout(LOOK_EVERY, woken).await;
    }
}
