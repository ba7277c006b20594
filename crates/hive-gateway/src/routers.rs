//! Calls about workflows: those about one workflow go to one router.

use std::sync::Arc;

use hive_protocol::{
    fault::{Fault, Reason},
    limits::{FRAME_BYTES_MAX, WORKFLOW_WATCHES_MAX},
    wire::{self, workflow_service_client::WorkflowServiceClient},
};
use hive_runtime::peers::{Kind, RETRY};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::{Request, Status, Streaming, transport::Channel};

use crate::{
    core::Gateway,
    peers::{LOOK_WITHIN, Onward, Repeat, handed_on, never, passed_on, safe},
};

/// The daemons that take these calls.
pub(crate) static ROUTERS: Kind = Kind {
    daemon: "router",
    about: "workflow",
    missing: (
        Reason::NoRouter,
        "no router is alive: workflows need a `hive-router`",
    ),
};
/// Frames of a watch that wait for their reader.
const WATCH_FRAMES: usize = 64;

/// A retry that says which attempt it answers is made once.
const fn of_an_attempt(asked: &wire::RetryTaskRequest) -> Repeat {
    if asked.failed_attempt > 0 {
        Repeat::Safe
    } else {
        Repeat::Never
    }
}

fn client(channel: Channel) -> WorkflowServiceClient<Channel> {
    WorkflowServiceClient::new(channel)
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX)
}

impl Gateway {
    /// Opens a watch at the router of a workflow, or at another one.
    ///
    /// # Errors
    /// `TOO_MANY_CONNECTIONS`, `NO_ROUTER`, or what the router says.
    pub async fn watch_workflow(
        &self,
        onward: &Onward,
        request: wire::WatchWorkflowRequest,
    ) -> Result<WorkflowWatch, Status> {
        let place = self.workflow_watches.clone().try_acquire_owned();
        let place = place.map_err(|_none_left| {
            let message = format!("this gateway has its limit of {WORKFLOW_WATCHES_MAX} watches");
            Fault::new(Reason::TooManyConnections, message).with_retry_after(RETRY)
        })?;
        let workflow_id = request.workflow_id.clone();
        // The deadline of a call is that of its stream, which the caller's own connection keeps.
        let opened = |channel: Channel, mut asked: Request<_>| {
            asked.metadata_mut().remove("grpc-timeout");
            async move {
                let mut client = client(channel);
                let open = client.watch_workflow(asked);
                let in_time = tokio::time::timeout(LOOK_WITHIN, open).await;
                in_time.unwrap_or_else(|_elapsed| Err(Status::unavailable("no answer in time")))
            }
        };
        let (of, how) = ((onward, &*workflow_id), (Repeat::Safe, opened));
        let frames = self.ask(&self.routers, of, request, how).await?;
        Ok(WorkflowWatch {
            frames,
            _place: place,
        })
    }
}

/// A watch that a router has let in.
#[derive(Debug)]
pub struct WorkflowWatch {
    frames: Streaming<wire::WatchWorkflowResponse>,
    _place: OwnedSemaphorePermit,
}

/// A frame of a watch, or why there is no other.
pub type WatchFrame = Result<wire::WatchWorkflowResponse, Status>;

impl WorkflowWatch {
    /// Hands the frames on until the run is over, the caller hangs up or the gateway drains. A
    /// caller that does not read holds up nobody but its router's stream.
    #[must_use]
    pub fn follow(mut self, gateway: &Arc<Gateway>) -> mpsc::Receiver<WatchFrame> {
        let (frames, taken) = mpsc::channel(WATCH_FRAMES);
        let shutdown = gateway.shutdown.clone();
        let task = async move {
            loop {
                let frame = tokio::select! {
                    frame = self.frames.message() => frame,
                    () = frames.closed() => return,
                    () = shutdown.draining() => {
                        let away = Fault::new(Reason::Draining, "this gateway is going away");
                        drop(frames.try_send(Err(away.into())));
                        return;
                    },
                };
                let (frame, is_last) = match frame {
                    Ok(Some(frame)) => (Ok(frame), false),
                    Ok(None) => return,
                    Err(status) => (Err(passed_on(&status)), true),
                };
                if frames.send(frame).await.is_err() || is_last {
                    return;
                }
            }
        };
        gateway
            .tasks
            .spawn(hive_runtime::tasks::BACKGROUND, "workflow_watch", task);
        taken
    }
}

handed_on! {
    client at routers;
    /// Starts a run.
    submit_workflow SubmitWorkflowRequest SubmitWorkflowResponse safe
        |asked| asked.workflow.as_ref().map_or("", |workflow| &workflow.workflow_id);
    /// Checks a workflow.
    validate_workflow ValidateWorkflowRequest ValidateWorkflowResponse safe
        |asked| asked.workflow.as_ref().map_or("", |workflow| &workflow.workflow_id);
    /// Adds one task to an open workflow.
    route_task RouteTaskRequest RouteTaskResponse safe |asked| &asked.workflow_id;
    /// Shows a run.
    get_workflow GetWorkflowRequest GetWorkflowResponse safe |asked| &asked.workflow_id;
    /// Shows the result of a task.
    get_task_result GetTaskResultRequest GetTaskResultResponse safe |asked| &asked.workflow_id;
    /// Lists runs; any router can.
    list_workflows ListWorkflowsRequest ListWorkflowsResponse safe |_asked| "";
    /// Completes a task from outside.
    signal_task_completion SignalTaskCompletionRequest SignalTaskCompletionResponse safe
        |asked| &asked.workflow_id;
    /// Fails a task from outside.
    signal_task_failure SignalTaskFailureRequest SignalTaskFailureResponse safe
        |asked| &asked.workflow_id;
    /// Answers the question of a task.
    provide_input ProvideInputRequest ProvideInputResponse never |asked| &asked.workflow_id;
    /// Ends the growth of an open workflow.
    close_workflow CloseWorkflowRequest CloseWorkflowResponse safe |asked| &asked.workflow_id;
    /// Adds tasks to a run.
    add_tasks AddTasksRequest AddTasksResponse safe |asked| &asked.workflow_id;
    /// Dispatches nothing more.
    pause_workflow PauseWorkflowRequest PauseWorkflowResponse safe |asked| &asked.workflow_id;
    /// Goes on after a pause.
    resume_workflow ResumeWorkflowRequest ResumeWorkflowResponse safe |asked| &asked.workflow_id;
    /// Ends a run.
    cancel_workflow CancelWorkflowRequest CancelWorkflowResponse safe |asked| &asked.workflow_id;
    /// Tries a failed task again.
    retry_task RetryTaskRequest RetryTaskResponse of_an_attempt |asked| &asked.workflow_id;
    /// Starts a new run from a task on.
    rerun_workflow RerunWorkflowRequest RerunWorkflowResponse never |asked| &asked.workflow_id;
    /// Forgets a run that is over.
    delete_workflow DeleteWorkflowRequest DeleteWorkflowResponse never |asked| &asked.workflow_id;
    /// Shows the history of a run.
    get_history GetHistoryRequest GetHistoryResponse safe |asked| &asked.workflow_id;
    /// Says why a task is not running.
    explain_task ExplainTaskRequest ExplainTaskResponse safe |asked| &asked.workflow_id;
}
