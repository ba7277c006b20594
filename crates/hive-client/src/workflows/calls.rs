//! The calls about workflows by name, each with its own answer to the question whether it may be
//! repeated.

use bytes::Bytes;
use hive_protocol::wire::{
    AddTasksRequest, AddTasksResponse, CancelWorkflowRequest, CancelWorkflowResponse,
    CloseWorkflowRequest, CloseWorkflowResponse, DeleteWorkflowRequest, DeleteWorkflowResponse,
    ExplainTaskRequest, ExplainTaskResponse, GetHistoryRequest, GetHistoryResponse,
    GetTaskResultRequest, GetWorkflowRequest, ListWorkflowsRequest, ListWorkflowsResponse,
    PauseWorkflowRequest, PauseWorkflowResponse, ProvideInputRequest, ProvideInputResponse,
    RerunWorkflowRequest, RerunWorkflowResponse, ResumeWorkflowRequest, ResumeWorkflowResponse,
    RetryTaskRequest, RetryTaskResponse, RouteTaskRequest, RouteTaskResponse,
    SignalTaskCompletionRequest, SignalTaskCompletionResponse, SignalTaskFailureRequest,
    SignalTaskFailureResponse, SubmitWorkflowRequest, SubmitWorkflowResponse,
    ValidateWorkflowRequest, ValidateWorkflowResponse, Workflow as Run, WorkflowSpec,
};

use crate::client::{CallError, Client, Repeat};

macro_rules! calls {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident($request:ty) -> $answer:ty, $repeat:ident;
    )+) => {
        $(
            $(#[doc = $doc])+
            ///
            /// # Errors
            /// When it is refused, or nobody answers in time.
            pub async fn $name(&self, request: $request) -> Result<$answer, CallError> {
                self.call(request, Repeat::$repeat, |gateway, request| async move {
                    gateway.workflows().$name(request).await
                })
                .await
            }
        )+
    };
}

impl Client {
    /// Starts a run, or answers the one that is there: the same workflow under the same id.
    ///
    /// # Errors
    /// When it is refused, with all its faults at once; or nobody answers in time.
    pub async fn submit_workflow(
        &self,
        workflow: impl Into<WorkflowSpec>,
    ) -> Result<SubmitWorkflowResponse, CallError> {
        let workflow = Some(workflow.into());
        let request = SubmitWorkflowRequest { workflow };
        self.call(request, Repeat::Safe, |gateway, request| async move {
            gateway.workflows().submit_workflow(request).await
        })
        .await
    }

    /// Checks a workflow as a submit does; faults are an answer here.
    ///
    /// # Errors
    /// When nobody answers in time.
    pub async fn validate_workflow(
        &self,
        workflow: impl Into<WorkflowSpec>,
    ) -> Result<ValidateWorkflowResponse, CallError> {
        let workflow = Some(workflow.into());
        let request = ValidateWorkflowRequest { workflow };
        self.call(request, Repeat::Safe, |gateway, request| async move {
            gateway.workflows().validate_workflow(request).await
        })
        .await
    }

    /// Shows a run with its tasks.
    ///
    /// # Errors
    /// When it is refused, or nobody answers in time.
    pub async fn get_workflow(&self, request: GetWorkflowRequest) -> Result<Run, CallError> {
        let call = self.call(request, Repeat::Safe, |gateway, request| async move {
            gateway.workflows().get_workflow(request).await
        });
        Ok(call.await?.workflow.unwrap_or_default())
    }

    /// The result of a task; empty where it gave none.
    ///
    /// # Errors
    /// When it is refused, or nobody answers in time.
    pub async fn get_task_result(&self, request: GetTaskResultRequest) -> Result<Bytes, CallError> {
        let call = self.call(request, Repeat::Safe, |gateway, request| async move {
            gateway.workflows().get_task_result(request).await
        });
        Ok(call.await?.result)
    }

    calls! {
        /// Adds one task to an open workflow.
        route_task(RouteTaskRequest) -> RouteTaskResponse, Safe;
        /// Runs, the newest first.
        list_workflows(ListWorkflowsRequest) -> ListWorkflowsResponse, Safe;
        /// Completes a task from outside.
        signal_task_completion(SignalTaskCompletionRequest) -> SignalTaskCompletionResponse, Safe;
        /// Fails a task from outside.
        signal_task_failure(SignalTaskFailureRequest) -> SignalTaskFailureResponse, Safe;
        /// Answers a task that waits for input. Not repeated: a second answer is refused.
        provide_input(ProvideInputRequest) -> ProvideInputResponse, Never;
        /// Ends the growth of an open workflow.
        close_workflow(CloseWorkflowRequest) -> CloseWorkflowResponse, Safe;
        /// Adds tasks to a run that goes on; all of them or none.
        add_tasks(AddTasksRequest) -> AddTasksResponse, Safe;
        /// Dispatches nothing more; what runs goes on.
        pause_workflow(PauseWorkflowRequest) -> PauseWorkflowResponse, Safe;
        /// Goes on after a pause.
        resume_workflow(ResumeWorkflowRequest) -> ResumeWorkflowResponse, Safe;
        /// Ends a run.
        cancel_workflow(CancelWorkflowRequest) -> CancelWorkflowResponse, Safe;
        /// Tries a failed task again. Not repeated: a second one is refused.
        retry_task(RetryTaskRequest) -> RetryTaskResponse, Never;
        /// Starts a new run from a task on. Not repeated: a second one is refused.
        rerun_workflow(RerunWorkflowRequest) -> RerunWorkflowResponse, Never;
        /// Forgets a run that is over. Not repeated: a second one says that there is none.
        delete_workflow(DeleteWorkflowRequest) -> DeleteWorkflowResponse, Never;
        /// What happened in a run, the oldest first.
        get_history(GetHistoryRequest) -> GetHistoryResponse, Safe;
        /// Why a task is not running.
        explain_task(ExplainTaskRequest) -> ExplainTaskResponse, Safe;
    }
}
