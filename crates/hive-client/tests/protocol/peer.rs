//! A gateway played by the test: real gRPC on a free port, every frame in the test's hands.

use std::{future::Future, time::Duration};

use hive_client::wire::{
    self, ConsumeRequest, ConsumeResponse, FetchRequest, FetchResponse, Joined, Message,
    PeekMessagesRequest, PeekMessagesResponse, PublishBatchRequest, PublishBatchResponse,
    PublishRequest, PublishResponse, PublishStreamRequest, PublishStreamResponse, SettleRequest,
    SettleResponse, consume_request, consume_response,
    messaging_service_server::{MessagingService, MessagingServiceServer},
};
use prost::Message as _;
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet, time::timeout};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// How long the test waits for anything before it fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// What `wanted` yields, or a failure that names it.
pub(crate) async fn within<T>(what: &str, wanted: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, wanted).await {
        Ok(value) => value,
        Err(_) => panic!("nothing within {PATIENCE:?}: {what}"),
    }
}

/// One stream of a client, with the frames of both directions.
pub(crate) struct Stream<Q, A> {
    inbound: Streaming<Q>,
    outbound: mpsc::Sender<Result<A, Status>>,
    pub(crate) namespace: String,
}

pub(crate) type Consumer = Stream<ConsumeRequest, ConsumeResponse>;
pub(crate) type Producer = Stream<PublishStreamRequest, PublishStreamResponse>;

impl<Q, A> Stream<Q, A> {
    /// The next frame of the client; none when it ended its side.
    pub(crate) async fn next(&mut self) -> Option<Q> {
        within("a frame of the client", self.inbound.message())
            .await
            .ok()
            .flatten()
    }

    pub(crate) async fn send(&self, answer: A) {
        self.outbound
            .send(Ok(answer))
            .await
            .expect("the client listens");
    }

    /// Ends the stream as a dying gateway does.
    pub(crate) async fn cut(self) {
        self.end(Status::unavailable("cut by the test")).await;
    }

    pub(crate) async fn end(self, status: Status) {
        self.outbound
            .send(Err(status))
            .await
            .expect("the client listens");
    }
}

impl Consumer {
    pub(crate) async fn frame(&mut self) -> consume_request::Frame {
        self.next()
            .await
            .and_then(|it| it.frame)
            .expect("the client goes on")
    }

    /// Reads until the frame that `wanted` takes; passes over the others.
    pub(crate) async fn until<T>(
        &mut self,
        wanted: impl Fn(consume_request::Frame) -> Option<T>,
    ) -> T {
        loop {
            if let Some(found) = wanted(self.frame().await) {
                return found;
            }
        }
    }

    pub(crate) async fn answer(&self, frame: consume_response::Frame) {
        self.send(ConsumeResponse { frame: Some(frame) }).await;
    }
}

/// The played gateway.
pub(crate) struct Peer {
    pub(crate) url: String,
    consumers: mpsc::Receiver<Consumer>,
    producers: mpsc::Receiver<Producer>,
    _server: JoinSet<()>,
}

impl Peer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (consumers_in, consumers) = mpsc::channel(16);
        let (producers_in, producers) = mpsc::channel(16);
        let door = Door {
            consumers: consumers_in,
            producers: producers_in,
        };
        let mut server = JoinSet::new();
        server.spawn(async move {
            let service = MessagingServiceServer::new(door);
            let incoming = TcpListenerStream::new(listener);
            let served = Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming);
            served.await.expect("the listener lives");
        });
        Self {
            url,
            consumers,
            producers,
            _server: server,
        }
    }

    pub(crate) async fn consumer(&mut self) -> Consumer {
        within("a Consume call", self.consumers.recv())
            .await
            .expect("the server lives")
    }

    pub(crate) async fn producer(&mut self) -> Producer {
        within("a PublishStream call", self.producers.recv())
            .await
            .expect("the server lives")
    }

    /// Takes the next Consume call and its join, and answers `joined` with `lost` leases.
    pub(crate) async fn join(&mut self, joined: Joined) -> (Consumer, wire::Join) {
        let mut consumer = self.consumer().await;
        let consume_request::Frame::Join(join) = consumer.frame().await else {
            panic!("the first frame must be a join");
        };
        consumer
            .answer(consume_response::Frame::Joined(joined))
            .await;
        (consumer, join)
    }
}

/// The message of id `id` with a text payload, encoded as a delivery carries it.
pub(crate) fn encoded(id: &str) -> bytes::Bytes {
    let message = Message {
        message_id: id.to_owned(),
        payload: id.to_owned().into(),
        ..Message::default()
    };
    message.encode_to_vec().into()
}

struct Door {
    consumers: mpsc::Sender<Consumer>,
    producers: mpsc::Sender<Producer>,
}

/// Hands a call over to the test.
async fn hand_over<Q, A>(
    request: Request<Streaming<Q>>,
    to: &mpsc::Sender<Stream<Q, A>>,
) -> Result<Response<ReceiverStream<Result<A, Status>>>, Status> {
    let (outbound, answers) = mpsc::channel(64);
    let namespace = request.metadata().get("hive-namespace");
    let stream = Stream {
        namespace: namespace.map_or("", |it| it.to_str().unwrap()).to_owned(),
        inbound: request.into_inner(),
        outbound,
    };
    let handed = to.send(stream).await;
    handed.map_err(|_over| Status::unavailable("the test is over"))?;
    Ok(Response::new(ReceiverStream::new(answers)))
}

#[tonic::async_trait]
impl MessagingService for Door {
    type PublishStreamStream = ReceiverStream<Result<PublishStreamResponse, Status>>;
    type ConsumeStream = ReceiverStream<Result<ConsumeResponse, Status>>;

    async fn publish_stream(
        &self,
        request: Request<Streaming<PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        hand_over(request, &self.producers).await
    }

    async fn consume(
        &self,
        request: Request<Streaming<ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        hand_over(request, &self.consumers).await
    }

    async fn publish(
        &self,
        _request: Request<PublishRequest>,
    ) -> Result<Response<PublishResponse>, Status> {
        Err(Status::unavailable("this gateway is away"))
    }

    async fn publish_batch(
        &self,
        _request: Request<PublishBatchRequest>,
    ) -> Result<Response<PublishBatchResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn fetch(
        &self,
        _request: Request<FetchRequest>,
    ) -> Result<Response<FetchResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn settle(
        &self,
        _request: Request<SettleRequest>,
    ) -> Result<Response<SettleResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn peek_messages(
        &self,
        _request: Request<PeekMessagesRequest>,
    ) -> Result<Response<PeekMessagesResponse>, Status> {
        Ok(Response::new(PeekMessagesResponse::default()))
    }

    async fn get_message(
        &self,
        _request: Request<wire::GetMessageRequest>,
    ) -> Result<Response<wire::GetMessageResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn cancel_message(
        &self,
        _request: Request<wire::CancelMessageRequest>,
    ) -> Result<Response<wire::CancelMessageResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn replay_stream(
        &self,
        _request: Request<wire::ReplayStreamRequest>,
    ) -> Result<Response<wire::ReplayStreamResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn get_replay(
        &self,
        _request: Request<wire::GetReplayRequest>,
    ) -> Result<Response<wire::GetReplayResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn cancel_replay(
        &self,
        _request: Request<wire::CancelReplayRequest>,
    ) -> Result<Response<wire::CancelReplayResponse>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }
}
