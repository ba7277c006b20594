//! What a gateway answers to those who ask about it, and to those who speak nonsense.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::{StreamExt as _, stream};
use hive_testkit::{daemon::Daemon, redis::Aof};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_check_response, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::fleet::Fleet;

const SERVICES: [&str; 6] = [
    "agenthive.v1.DeadLetterService",
    "agenthive.v1.GatewayControlService",
    "agenthive.v1.GroupService",
    "agenthive.v1.MessagingService",
    "agenthive.v1.StreamService",
    "agenthive.v1.WorkflowService",
];

/// Bytes as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

async fn channel(gateway: &Daemon) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(gateway.url())?.timeout(Duration::from_secs(20));
    Ok(endpoint.connect().await?)
}

/// Sends these bytes to a method; its status.
async fn status_of(channel: &Channel, path: &'static str, body: Bytes) -> Result<Status> {
    let mut client = Grpc::new(channel.clone()).max_encoding_message_size(64 << 20);
    client.ready().await?;
    let path = path.parse()?;
    let request = Request::new(stream::iter([body]));
    let answer = match client.streaming(request, path, Raw).await {
        Ok(answer) => answer.into_inner().next().await,
        Err(status) => Some(Err(status)),
    };
    answer.context("an answer")?.err().context("a refusal")
}

/// Whether the gateway says that it is ready.
async fn is_ready(gateway: &Daemon) -> Result<bool> {
    let mut stream = TcpStream::connect(gateway.admin()).await?;
    stream
        .write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_shows_every_service_and_its_descriptor() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    let mut client = ServerReflectionClient::new(channel(&fleet.gateways[0]).await?);
    let ask = |message_request| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(message_request),
    };
    let asked = vec![
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol(
            "agenthive.v1.MessagingService".into(),
        )),
    ];
    let mut answers = client
        .server_reflection_info(stream::iter(asked))
        .await?
        .into_inner();
    let listed = answers
        .message()
        .await?
        .and_then(|answer| answer.message_response);
    let Some(MessageResponse::ListServicesResponse(list)) = listed else {
        anyhow::bail!("the services are listed, not {listed:?}");
    };
    let names: Vec<&str> = list.service.iter().map(|one| one.name.as_str()).collect();
    for service in SERVICES {
        assert!(names.contains(&service), "{service} of {names:?}");
    }
    let described = answers
        .message()
        .await?
        .and_then(|answer| answer.message_response);
    assert!(
        matches!(described, Some(MessageResponse::FileDescriptorResponse(_))),
        "{described:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_health_answers_for_the_daemon_and_each_of_its_services() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    let mut client = HealthClient::new(channel(&fleet.gateways[0]).await?);
    for service in SERVICES.iter().chain(&[""]) {
        let request = HealthCheckRequest {
            service: (*service).to_owned(),
        };
        let answer = client.check(request).await;
        let answer = answer.with_context(|| format!("the health of `{service}`"))?;
        let status = answer.into_inner().status();
        assert_eq!(
            status,
            health_check_response::ServingStatus::Serving,
            "{service}"
        );
    }
    let request = HealthCheckRequest {
        service: "no.such.Service".into(),
    };
    let missing = client.check(request).await.expect_err("there is none");
    assert_eq!(missing.code(), Code::NotFound);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_answered_with_a_status_and_harms_nobody() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    let gateway = &fleet.gateways[0];
    let channel = channel(gateway).await?;
    let methods = [
        "/agenthive.v1.MessagingService/Publish",
        "/agenthive.v1.MessagingService/PublishBatch",
        "/agenthive.v1.MessagingService/PublishStream",
        "/agenthive.v1.MessagingService/Consume",
        "/agenthive.v1.MessagingService/Fetch",
        "/agenthive.v1.MessagingService/Settle",
        "/agenthive.v1.MessagingService/PeekMessages",
        "/agenthive.v1.GroupService/CreateGroup",
        "/agenthive.v1.StreamService/UpdateStream",
        "/agenthive.v1.WorkflowService/SubmitWorkflow",
    ];
    for method in methods {
        // A field that ends in mid-length, a wrong wire type, a length beyond the end, no UTF-8.
        for body in [
            &b"\x0a"[..],
            &[0xff; 64],
            b"\x0a\xff\xff\xff\xff\x0f",
            b"\x0a\x02\xff\xfe",
        ] {
            let status = status_of(&channel, method, Bytes::from_static(body)).await?;
            assert_ne!(status.code(), Code::Ok, "{method} {body:?}");
            assert_ne!(status.code(), Code::Unknown, "{method} {body:?} {status:?}");
        }
        let large = Bytes::from(vec![0; 17 << 20]);
        let status = status_of(&channel, method, large).await;
        let status = status.with_context(|| format!("17 MiB to {method}"))?;
        assert!(
            matches!(status.code(), Code::OutOfRange | Code::InvalidArgument),
            "{method} {status:?}"
        );
    }
    for path in [
        "/agenthive.v1.MessagingService/Nothing",
        "/no.such.Service/Call",
    ] {
        let status = status_of(&channel, path, Bytes::new()).await?;
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
    }
    let consume = "/agenthive.v1.MessagingService/Consume";
    let status = status_of(&channel, consume, Bytes::from_static(b"\x12\x02\x08\x01")).await?;
    assert_eq!(
        status.code(),
        Code::FailedPrecondition,
        "credit before the join: {status:?}"
    );
    assert!(is_ready(gateway).await?);
    let log = gateway.log_tail();
    assert!(!log.contains("panic"), "{log}");
    Ok(())
}
