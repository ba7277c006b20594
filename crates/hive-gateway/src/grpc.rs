//! The gRPC door: metadata in, typed calls through, faults out as statuses.

use std::{pin::Pin, sync::Arc};

use futures_util::{StreamExt as _, stream::FuturesOrdered};
use hive_protocol::{
    fault::Fault,
    limits::FRAME_BYTES_MAX,
    namespace,
    wire::{
        self,
        dead_letter_service_server::{DeadLetterService, DeadLetterServiceServer},
        gateway_control_service_server::{GatewayControlService, GatewayControlServiceServer},
        group_service_server::{GroupService, GroupServiceServer},
        messaging_service_server::{MessagingService, MessagingServiceServer},
        stream_service_server::{StreamService, StreamServiceServer},
        workflow_service_server::{WorkflowService, WorkflowServiceServer},
    },
};
use hive_runtime::tasks::BACKGROUND;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, codec::CompressionEncoding, service::Routes};

use crate::{
    attached::Frames,
    consume,
    core::Gateway,
    peers::Onward,
    publisher::Chain,
    publishing::{Queued, QueuedBatch, changing},
    routers::WatchFrame,
    watching,
};

/// Publish batches under way for one stream: what the client may send ahead of the answers.
const BATCHES_MAX: usize = 32;

/// Full names of the services, for whoever asks for the health of one.
pub const SERVICES: [&str; 6] = [
    "agenthive.v1.MessagingService",
    "agenthive.v1.GroupService",
    "agenthive.v1.StreamService",
    "agenthive.v1.WorkflowService",
    "agenthive.v1.DeadLetterService",
    "agenthive.v1.GatewayControlService",
];

/// The services over one gateway.
#[derive(Debug, Clone)]
pub struct Door {
    gateway: Arc<Gateway>,
}

/// All services as routes.
#[must_use]
pub fn routes(gateway: &Arc<Gateway>) -> Routes {
    let door = Door {
        gateway: gateway.clone(),
    };
    let messaging = MessagingServiceServer::new(door.clone())
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd);
    let groups = GroupServiceServer::new(door.clone())
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd);
    let streams = StreamServiceServer::new(door.clone())
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd);
    let workflows = WorkflowServiceServer::new(door.clone())
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd);
    let dead_letters = DeadLetterServiceServer::new(door.clone())
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd);
    let control = GatewayControlServiceServer::new(door)
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd);
    Routes::new(messaging)
        .add_service(groups)
        .add_service(streams)
        .add_service(workflows)
        .add_service(dead_letters)
        .add_service(control)
}

/// A future as `async_trait` writes it: macros inside its traits are expanded after it.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'a>>;

macro_rules! unary {
    ($($call:ident $request:ident $response:ident;)*) => {
        $(
            fn $call<'life0, 'async_trait>(
                &'life0 self,
                request: Request<wire::$request>,
            ) -> Boxed<'async_trait, wire::$response>
            where
                'life0: 'async_trait,
                Self: 'async_trait,
            {
                Box::pin(async move {
                    let namespace = namespace::from_metadata(request.metadata())?;
                    let answer = self.gateway.$call(&namespace, request.into_inner()).await?;
                    Ok(Response::new(answer))
                })
            }
        )*
    };
}

/// Puts the trace context of a call into a message that has none.
fn carry_trace(metadata: &tonic::metadata::MetadataMap, message: &mut wire::Message) {
    for header in ["traceparent", "tracestate"] {
        if message.headers.contains_key(header) {
            continue;
        }
        if let Some(value) = metadata.get(header).and_then(|value| value.to_str().ok()) {
            message.headers.insert(header.to_owned(), value.to_owned());
        }
    }
}

#[tonic::async_trait]
impl MessagingService for Door {
    type PublishStreamStream =
        Pin<Box<dyn Stream<Item = Result<wire::PublishStreamResponse, Status>> + Send + 'static>>;
    type ConsumeStream = Frames;

    unary! {
        fetch FetchRequest FetchResponse;
        settle SettleRequest SettleResponse;
        peek_messages PeekMessagesRequest PeekMessagesResponse;
        get_message GetMessageRequest GetMessageResponse;
        cancel_message CancelMessageRequest CancelMessageResponse;
        replay_stream ReplayStreamRequest ReplayStreamResponse;
        get_replay GetReplayRequest GetReplayResponse;
        cancel_replay CancelReplayRequest CancelReplayResponse;
    }

    async fn publish(
        &self,
        request: Request<wire::PublishRequest>,
    ) -> Result<Response<wire::PublishResponse>, Status> {
        let namespace = namespace::from_metadata(request.metadata())?;
        let (metadata, _, mut publish) = request.into_parts();
        if let Some(message) = &mut publish.message {
            carry_trace(&metadata, message);
        }
        Ok(Response::new(
            self.gateway.publish(&namespace, publish).await?,
        ))
    }

    async fn publish_batch(
        &self,
        request: Request<wire::PublishBatchRequest>,
    ) -> Result<Response<wire::PublishBatchResponse>, Status> {
        let namespace = namespace::from_metadata(request.metadata())?;
        let (metadata, _, mut publish) = request.into_parts();
        for message in &mut publish.messages {
            carry_trace(&metadata, message);
        }
        Ok(Response::new(
            self.gateway.publish_batch(&namespace, publish).await?,
        ))
    }

    async fn publish_stream(
        &self,
        request: Request<Streaming<wire::PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let namespace = namespace::from_metadata(request.metadata())?;
        let frames = request.into_inner();
        let (answers, stream) = mpsc::channel(BATCHES_MAX);
        let task = publish_frames(self.gateway.clone(), namespace, frames, answers);
        self.gateway.tasks.spawn(BACKGROUND, "publish_stream", task);
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn consume(
        &self,
        request: Request<Streaming<wire::ConsumeRequest>>,
    ) -> Result<Response<Frames>, Status> {
        let namespace = namespace::from_metadata(request.metadata())?;
        // In a task of its own: a client that hangs up in mid-join leaves no half member behind.
        let (answer, joined) = oneshot::channel();
        let open = consume::open(self.gateway.clone(), namespace, request.into_inner());
        self.gateway.tasks.spawn(BACKGROUND, "join", async move {
            // Nobody takes the frames when the caller hung up; the session's task notices.
            drop(answer.send(open.await));
        });
        let stopped = |_stopped| Status::unavailable("this gateway is going away");
        let frames = joined.await.map_err(stopped)??;
        Ok(Response::new(frames))
    }
}

#[tonic::async_trait]
impl GroupService for Door {
    unary! {
        create_group CreateGroupRequest CreateGroupResponse;
        get_group GetGroupRequest GetGroupResponse;
        list_groups ListGroupsRequest ListGroupsResponse;
        update_group UpdateGroupRequest UpdateGroupResponse;
        delete_group DeleteGroupRequest DeleteGroupResponse;
        purge_group PurgeGroupRequest PurgeGroupResponse;
        pause_group PauseGroupRequest PauseGroupResponse;
        resume_group ResumeGroupRequest ResumeGroupResponse;
        list_blocked_keys ListBlockedKeysRequest ListBlockedKeysResponse;
        unblock_key UnblockKeyRequest UnblockKeyResponse;
        list_consumers ListConsumersRequest ListConsumersResponse;
        add_consumer AddConsumerRequest AddConsumerResponse;
        remove_consumer RemoveConsumerRequest RemoveConsumerResponse;
        stats StatsRequest StatsResponse;
    }

    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<wire::WatchResponse, Status>> + Send + 'static>>;

    async fn watch(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let namespace = namespace::from_metadata(request.metadata())?;
        let watch = self
            .gateway
            .open_watch(&namespace, request.into_inner())
            .await?;
        let (frames, stream) = mpsc::channel(1);
        let task = watching::watch(self.gateway.clone(), watch, frames);
        self.gateway.tasks.spawn(BACKGROUND, "watch", task);
        let stream = ReceiverStream::new(stream).map(|frame| frame.map_err(Status::from));
        Ok(Response::new(Box::pin(stream)))
    }
}

#[tonic::async_trait]
impl StreamService for Door {
    unary! {
        create_stream CreateStreamRequest CreateStreamResponse;
        get_stream GetStreamRequest GetStreamResponse;
        list_streams ListStreamsRequest ListStreamsResponse;
        update_stream UpdateStreamRequest UpdateStreamResponse;
        delete_stream DeleteStreamRequest DeleteStreamResponse;
        accept_loss AcceptLossRequest AcceptLossResponse;
    }
}

#[tonic::async_trait]
impl GatewayControlService for Door {
    unary! {
        list_connections ListConnectionsRequest ListConnectionsResponse;
        revoke_deliveries RevokeDeliveriesRequest RevokeDeliveriesResponse;
        drain_consumer DrainConsumerRequest DrainConsumerResponse;
        offer_group OfferGroupRequest OfferGroupResponse;
    }
}

/// Calls that go on to another daemon, with the trace and the deadline of their caller.
macro_rules! onward {
    ($($call:ident $request:ident $response:ident;)*) => {
        $(
            fn $call<'life0, 'async_trait>(
                &'life0 self,
                request: Request<wire::$request>,
            ) -> Boxed<'async_trait, wire::$response>
            where
                'life0: 'async_trait,
                Self: 'async_trait,
            {
                Box::pin(async move {
                    let onward = onward(request.metadata())?;
                    let answer = self.gateway.$call(&onward, request.into_inner()).await?;
                    Ok(Response::new(answer))
                })
            }
        )*
    };
}

fn onward(metadata: &tonic::metadata::MetadataMap) -> Result<Onward, Fault> {
    Ok(Onward::new(&namespace::from_metadata(metadata)?).with(metadata))
}

#[tonic::async_trait]
impl WorkflowService for Door {
    onward! {
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

    type WatchWorkflowStream = ReceiverStream<WatchFrame>;

    async fn watch_workflow(
        &self,
        request: Request<wire::WatchWorkflowRequest>,
    ) -> Result<Response<Self::WatchWorkflowStream>, Status> {
        let onward = onward(request.metadata())?;
        let watch = self.gateway.watch_workflow(&onward, request.into_inner());
        let frames = watch.await?.follow(&self.gateway);
        Ok(Response::new(ReceiverStream::new(frames)))
    }
}

#[tonic::async_trait]
impl DeadLetterService for Door {
    onward! {
        list_dead_letters ListDeadLettersRequest ListDeadLettersResponse;
        get_dead_letter GetDeadLetterRequest GetDeadLetterResponse;
        replay_dead_letter ReplayDeadLetterRequest ReplayDeadLetterResponse;
        replay_dead_letters ReplayDeadLettersRequest ReplayDeadLettersResponse;
        get_replay_job GetReplayJobRequest GetReplayJobResponse;
        list_replay_jobs ListReplayJobsRequest ListReplayJobsResponse;
        cancel_replay_job CancelReplayJobRequest CancelReplayJobResponse;
        get_dead_letter_statistics GetDeadLetterStatisticsRequest GetDeadLetterStatisticsResponse;
        analyze_dead_letters AnalyzeDeadLettersRequest AnalyzeDeadLettersResponse;
        set_dead_letter_status SetDeadLetterStatusRequest SetDeadLetterStatusResponse;
        purge_dead_letters PurgeDeadLettersRequest PurgeDeadLettersResponse;
    }
}

/// Publishes the batches of one stream: queued in order, several under way, answered in order. A
/// batch that is not stored ends the stream with its fault, and none behind it is stored either;
/// the client sends again what was not answered.
async fn publish_frames(
    gateway: Arc<Gateway>,
    namespace: String,
    mut frames: Streaming<wire::PublishStreamRequest>,
    answers: mpsc::Sender<Result<wire::PublishStreamResponse, Status>>,
) {
    let chain = Chain::default();
    let mut under_way = FuturesOrdered::new();
    let mut open = true;
    let mut broken = None;
    while open || !under_way.is_empty() {
        tokio::select! {
            frame = frames.next(), if open && under_way.len() < BATCHES_MAX => match frame {
                Some(Ok(wire::PublishStreamRequest { batch, publish })) => {
                    let publish = publish.unwrap_or_default();
                    let queued = queue(&gateway, &namespace, publish, &chain).await;
                    open = queued.is_ok();
                    under_way.push_back(async move {
                        let done = match queued {
                            Ok(queued) => queued.outcome().await,
                            Err(fault) => Err(fault),
                        };
                        (batch, done)
                    });
                },
                Some(Err(status)) => {
                    broken = Some(status);
                    open = false;
                },
                None => open = false,
            },
            Some((batch, done)) = under_way.next(), if !under_way.is_empty() => {
                let (answer, failed) = match done {
                    Ok(Queued::Done(done)) => {
                        let outcomes = done.outcomes;
                        (Ok(wire::PublishStreamResponse { batch, outcomes }), false)
                    },
                    Ok(Queued::AddressChanged(_)) => (Err(changing().into()), true),
                    Err(fault) => (Err(fault.into()), true),
                };
                if answers.send(answer).await.is_err() || failed {
                    return;
                }
            },
        }
    }
    if let Some(status) = broken {
        // Nobody listens when it is the connection that broke.
        drop(answers.send(Err(status)).await);
    }
}

async fn queue(
    gateway: &Gateway,
    namespace: &str,
    publish: wire::PublishBatchRequest,
    chain: &Chain,
) -> Result<QueuedBatch, Fault> {
    let batch = gateway.check_batch(namespace, publish).await?;
    gateway.queue_batch(batch, chain.clone()).await
}
