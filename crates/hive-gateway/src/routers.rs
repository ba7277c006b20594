//! Calls about workflows: those about one workflow go to one router.

use hive_protocol::{
    fault::Reason,
    limits::FRAME_BYTES_MAX,
    wire::{self, workflow_service_client::WorkflowServiceClient},
};
use hive_runtime::peers::Kind;
use tonic::{Request, Status, transport::Channel};

use crate::{
    core::Gateway,
    forwarding::{Forwarded, opening},
    peers::{Onward, Repeat, handed_on, never, safe},
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
    ) -> Result<Forwarded<wire::WatchWorkflowResponse>, Status> {
        let workflow_id = request.workflow_id.clone();
        let from = (&self.routers, &self.workflow_watches);
        let open = |channel: Channel, asked: Request<_>| async move {
            opening(client(channel).watch_workflow(asked)).await
        };
        self.forward(from, (onward, &workflow_id), request, open)
            .await
    }
}

/// A frame of a watch, or why there is no other.
pub type WatchFrame = Result<wire::WatchWorkflowResponse, Status>;

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
