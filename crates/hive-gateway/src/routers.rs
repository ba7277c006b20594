//! Hands calls about workflows on to the routers.
//!
//! Which routers live is what the last beat said. The calls about one workflow go to one router as
//! long as it lives, so that what it keeps of a run serves all of them; any other one can take its
//! place, and does at once when it does not answer. What a router says comes back as it is.
//!
//! Nothing is decided and nothing is kept here but connections, one for each live router.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use hive_domain::ownership::owner;
use hive_protocol::{
    fault::{Fault, FaultKind, Reason},
    limits::{FRAME_BYTES_MAX, NAMESPACE_HEADER},
    wire::{self, workflow_service_client::WorkflowServiceClient},
};
use hive_store::registry::Replica;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::{
    Request, Response, Status, Streaming,
    metadata::{AsciiMetadataValue, MetadataMap},
    transport::{Channel, Endpoint},
};

use crate::core::Gateway;

/// The daemon's name in the registry.
const DAEMON: &str = "router";
/// How long a router may take to accept a connection before the next is asked.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often an idle connection is tried, so that one that is dead is not found out by a call.
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// How long a probe may take.
const PROBE_WITHIN: Duration = Duration::from_secs(3);
/// How long a call may take that names no deadline.
const CALL_WITHIN: Duration = Duration::from_secs(30);
/// How long routers are looked for that take a call, where all that live refuse.
const LOOK_WITHIN: Duration = Duration::from_secs(3);
/// Between two rounds over all live routers.
const ROUND_PAUSE: Duration = Duration::from_millis(100);
/// What callers are told to wait where no router lives: a router is known a second after its start.
const RETRY: Duration = Duration::from_secs(1);
/// Watches of one gateway at a time: each holds a stream at a router.
pub(crate) const WATCHES_MAX: usize = 1_024;
/// Frames of a watch that wait for their reader.
const WATCH_FRAMES: usize = 64;

/// What a call takes along, beside its request.
#[derive(Debug, Clone)]
pub struct Onward {
    namespace: String,
    trace: MetadataMap,
    deadline: Option<Instant>,
}

impl Onward {
    /// A call in a namespace, without a trace and a deadline.
    #[must_use]
    pub fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            trace: MetadataMap::new(),
            deadline: None,
        }
    }

    /// The same call with the trace and the deadline of `metadata`.
    #[must_use]
    pub fn with(mut self, metadata: &MetadataMap) -> Self {
        for header in ["traceparent", "tracestate"] {
            if let Some(value) = metadata.get(header) {
                self.trace.insert(header, value.clone());
            }
        }
        let timeout = metadata
            .get("grpc-timeout")
            .and_then(|value| value.to_str().ok())
            .and_then(timeout);
        self.deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self
    }

    fn request<T>(&self, message: T, within: Option<Duration>) -> Result<Request<T>, Fault> {
        let mut request = Request::new(message);
        let name = AsciiMetadataValue::try_from(self.namespace.as_str())
            .map_err(|_no_header| Fault::bug("a namespace that is no name"))?;
        *request.metadata_mut() = self.trace.clone();
        request.metadata_mut().insert(NAMESPACE_HEADER, name);
        if let Some(within) = within {
            request.set_timeout(within);
        }
        Ok(request)
    }
}

/// The duration that a header `grpc-timeout` says: at most 8 digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count.checked_mul(3_600)?)),
        "M" => Some(Duration::from_secs(count.checked_mul(60)?)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// Whether a call may be sent again when its answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// The second one changes nothing and is answered as the first.
    Safe,
    /// The second one would be refused, or do it twice.
    Never,
}

/// The routers that live, and the connections to them.
#[derive(Debug)]
pub struct Routers {
    live: Mutex<BTreeMap<String, Option<Channel>>>,
    watches: Arc<Semaphore>,
}

impl Default for Routers {
    fn default() -> Self {
        Self {
            live: Mutex::default(),
            watches: Arc::new(Semaphore::new(WATCHES_MAX)),
        }
    }
}

impl Routers {
    /// Notes which daemons live; connections to routers that do not are given up.
    pub fn note(&self, replicas: &[Replica]) {
        let mut live = self.live.lock();
        let mut before = std::mem::take(&mut *live);
        for replica in replicas.iter().filter(|one| one.daemon == DAEMON) {
            let address = &replica.advertise;
            live.insert(address.clone(), before.remove(address).flatten());
        }
    }

    /// Addresses of the live routers.
    fn addresses(&self) -> Vec<String> {
        self.live.lock().keys().cloned().collect()
    }

    /// The connection to a router, made at its first call.
    fn client(&self, address: &str) -> Result<WorkflowServiceClient<Channel>, Fault> {
        let mut live = self.live.lock();
        let known = live.get(address).cloned().flatten();
        let channel = match known {
            Some(channel) => channel,
            None => {
                let channel = connect(address)?;
                if let Some(place) = live.get_mut(address) {
                    *place = Some(channel.clone());
                }
                channel
            },
        };
        Ok(WorkflowServiceClient::new(channel)
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX))
    }
}

fn connect(address: &str) -> Result<Channel, Fault> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| {
        let message = format!("the address `{address}` of a router is none");
        Fault::new(Reason::Unreachable, message).with_detail(error.to_string())
    })?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PROBE_EVERY)
        .keep_alive_timeout(PROBE_WITHIN)
        .keep_alive_while_idle(true)
        .connect_lazy())
}

/// A status of a router as one of ours: its code, words and details, and nothing of its transport.
/// What the transport said becomes a fault of ours.
fn passed_on(status: &Status) -> Status {
    if std::error::Error::source(status).is_some() {
        return Fault::from(status).into();
    }
    let details = status.details().to_vec().into();
    Status::with_details(status.code(), status.message(), details)
}

fn no_router() -> Fault {
    Fault::new(
        Reason::NoRouter,
        "no router is alive: workflows need a `hive-router`",
    )
    .with_retry_after(RETRY)
}

impl Gateway {
    /// Asks the router of a workflow, and others in its place while it cannot be reached or says
    /// that it cannot serve, until the deadline.
    async fn ask<Req, Res, Asked>(
        &self,
        onward: &Onward,
        workflow_id: &str,
        message: Req,
        (repeat, send): (
            Repeat,
            impl Fn(WorkflowServiceClient<Channel>, Request<Req>) -> Asked,
        ),
    ) -> Result<Res, Status>
    where
        Req: Clone,
        Asked: Future<Output = Result<Response<Res>, Status>>,
    {
        let _pass = self.enter("workflow")?;
        let begun = Instant::now();
        let end = onward.deadline.unwrap_or_else(|| begun + CALL_WITHIN);
        let last_look = end.min(begun + LOOK_WITHIN);
        let key = format!("{}/{workflow_id}", onward.namespace);
        loop {
            let mut left = self.routers.addresses();
            if left.is_empty() {
                // One that started since the last beat: only the registry itself may say none.
                self.routers
                    .note(&self.store.replicas().await.map_err(Fault::from)?);
                left = self.routers.addresses();
            }
            let mut refusal = no_router().into();
            while let Some(address) = owner(&key, &left).map(str::to_owned) {
                left.retain(|one| *one != address);
                let within = end.saturating_duration_since(Instant::now());
                if within.is_zero() {
                    let message = "the deadline of the call passed";
                    return Err(Fault::new(Reason::DeadlineExceeded, message).into());
                }
                let request = onward.request(message.clone(), Some(within))?;
                let asked = send(self.routers.client(&address)?, request);
                let status = match asked.await {
                    Ok(answer) => return Ok(answer.into_inner()),
                    Err(status) => status,
                };
                let fault = Fault::from(&status);
                let is_lost = fault.reason == Reason::OutcomeUnknown && repeat == Repeat::Safe;
                if fault.kind != FaultKind::Unavailable && !is_lost {
                    return Err(passed_on(&status));
                }
                tracing::debug!(address, %fault, "router_refused");
                refusal = passed_on(&status);
            }
            let is_known = !self.routers.addresses().is_empty();
            if !is_known || Instant::now() + ROUND_PAUSE >= last_look {
                return Err(refusal);
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }

    /// Opens a watch at the router of a workflow, or at another one.
    ///
    /// # Errors
    /// `TOO_MANY_CONNECTIONS`, `NO_ROUTER`, or what the router says.
    pub async fn watch_workflow(
        &self,
        onward: &Onward,
        request: wire::WatchWorkflowRequest,
    ) -> Result<WorkflowWatch, Status> {
        let place = self.routers.watches.clone().try_acquire_owned();
        let place = place.map_err(|_none_left| {
            let message = format!("this gateway has its limit of {WATCHES_MAX} watches");
            Fault::new(Reason::TooManyConnections, message).with_retry_after(RETRY)
        })?;
        let workflow_id = request.workflow_id.clone();
        // The deadline of a call is that of its stream, which the caller's own connection keeps.
        let opened = |mut client: WorkflowServiceClient<Channel>, mut asked: Request<_>| {
            asked.metadata_mut().remove("grpc-timeout");
            async move {
                let open = client.watch_workflow(asked);
                let in_time = tokio::time::timeout(LOOK_WITHIN, open).await;
                in_time.unwrap_or_else(|_elapsed| Err(Status::unavailable("no answer in time")))
            }
        };
        let frames = self
            .ask(onward, &workflow_id, request, (Repeat::Safe, opened))
            .await?;
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

/// Calls that are handed on as they are.
macro_rules! handed_on {
    ($($(#[doc = $doc:literal])+ $call:ident $request:ident $response:ident $repeat:ident
        $of:expr;)*) => {
        impl Gateway {
            $(
                $(#[doc = $doc])+
                ///
                /// # Errors
                /// `NO_ROUTER`, or what the router says.
                pub async fn $call(
                    &self,
                    onward: &Onward,
                    request: wire::$request,
                ) -> Result<wire::$response, Status> {
                    let of: fn(&wire::$request) -> &str = $of;
                    let workflow_id = of(&request).to_owned();
                    let send = |mut client: WorkflowServiceClient<Channel>, request| async move {
                        client.$call(request).await
                    };
                    let how = (Repeat::$repeat, send);
                    self.ask(onward, &workflow_id, request, how).await
                }
            )*
        }
    };
}

handed_on! {
    /// Starts a run.
    submit_workflow SubmitWorkflowRequest SubmitWorkflowResponse Safe
        |asked| asked.workflow.as_ref().map_or("", |workflow| &workflow.workflow_id);
    /// Checks a workflow.
    validate_workflow ValidateWorkflowRequest ValidateWorkflowResponse Safe
        |asked| asked.workflow.as_ref().map_or("", |workflow| &workflow.workflow_id);
    /// Adds one task to an open workflow.
    route_task RouteTaskRequest RouteTaskResponse Safe |asked| &asked.workflow_id;
    /// Shows a run.
    get_workflow GetWorkflowRequest GetWorkflowResponse Safe |asked| &asked.workflow_id;
    /// Shows the result of a task.
    get_task_result GetTaskResultRequest GetTaskResultResponse Safe |asked| &asked.workflow_id;
    /// Lists runs; any router can.
    list_workflows ListWorkflowsRequest ListWorkflowsResponse Safe |_asked| "";
    /// Completes a task from outside.
    signal_task_completion SignalTaskCompletionRequest SignalTaskCompletionResponse Safe
        |asked| &asked.workflow_id;
    /// Fails a task from outside.
    signal_task_failure SignalTaskFailureRequest SignalTaskFailureResponse Safe
        |asked| &asked.workflow_id;
    /// Answers the question of a task.
    provide_input ProvideInputRequest ProvideInputResponse Never |asked| &asked.workflow_id;
    /// Ends the growth of an open workflow.
    close_workflow CloseWorkflowRequest CloseWorkflowResponse Safe |asked| &asked.workflow_id;
    /// Adds tasks to a run.
    add_tasks AddTasksRequest AddTasksResponse Safe |asked| &asked.workflow_id;
    /// Dispatches nothing more.
    pause_workflow PauseWorkflowRequest PauseWorkflowResponse Safe |asked| &asked.workflow_id;
    /// Goes on after a pause.
    resume_workflow ResumeWorkflowRequest ResumeWorkflowResponse Safe |asked| &asked.workflow_id;
    /// Ends a run.
    cancel_workflow CancelWorkflowRequest CancelWorkflowResponse Safe |asked| &asked.workflow_id;
    /// Tries a failed task again.
    retry_task RetryTaskRequest RetryTaskResponse Never |asked| &asked.workflow_id;
    /// Starts a new run from a task on.
    rerun_workflow RerunWorkflowRequest RerunWorkflowResponse Never |asked| &asked.workflow_id;
    /// Forgets a run that is over.
    delete_workflow DeleteWorkflowRequest DeleteWorkflowResponse Never |asked| &asked.workflow_id;
    /// Shows the history of a run.
    get_history GetHistoryRequest GetHistoryResponse Safe |asked| &asked.workflow_id;
    /// Says why a task is not running.
    explain_task ExplainTaskRequest ExplainTaskResponse Safe |asked| &asked.workflow_id;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hive_protocol::fault::{Fault, Reason};
    use hive_store::registry::Replica;
    use tonic::Status;

    use super::{Routers, passed_on, timeout};

    fn replica(daemon: &str, advertise: &str) -> Replica {
        Replica {
            daemon: daemon.to_owned(),
            instance: advertise.to_owned(),
            advertise: advertise.to_owned(),
            version: String::new(),
            beat_ms: 0,
            dataset: "-".to_owned(),
        }
    }

    #[test]
    fn deadlines_of_callers_are_read() {
        for (text, millis) in [("5S", 5_000), ("1M", 60_000), ("20m", 20), ("0n", 0)] {
            assert_eq!(timeout(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "S", "5", "-5S", "123456789S", "5x", "é"] {
            assert_eq!(timeout(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn connections_live_as_long_as_their_routers() {
        let routers = Routers::default();
        routers.note(&[
            replica("router", "a:1"),
            replica("router", "b:1"),
            replica("gateway", "c:1"),
        ]);
        assert_eq!(routers.addresses(), ["a:1", "b:1"]);
        routers.client("a:1").unwrap();
        assert!(routers.live.lock()["a:1"].is_some());
        routers.note(&[replica("router", "a:1"), replica("router", "d:1")]);
        assert_eq!(routers.addresses(), ["a:1", "d:1"]);
        assert!(routers.live.lock()["a:1"].is_some());
        routers.client("gone:1").unwrap();
        assert_eq!(routers.addresses().len(), 2);
    }

    #[test]
    fn what_a_router_says_is_passed_on_whole() {
        let fault = Fault::new(Reason::WorkflowOver, "the run is over")
            .with_retry_after(Duration::from_secs(3));
        let status = passed_on(&Status::from(&fault));
        assert_eq!(Fault::from(status), fault);
    }
}
