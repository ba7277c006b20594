//! The main port: gRPC and HTTP/1 on one listener, with every limit of the transport set.
//!
//! The listener is bound before the daemon's own code runs, so that port 0 works and the address
//! can be announced. tonic's server is used rather than axum's, because only that has HTTP/2
//! keepalive and a bound on streams. What tonic leaves unlimited or off is set here.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tonic::Status;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::health::{Component, Health};
use crate::shutdown::Shutdown;
use crate::tasks::{BACKGROUND, Tasks};

/// A peer that says nothing for this long is asked whether it is there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
/// A peer that does not answer within this time is gone.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a stream may send ahead: a slow reader holds up its own stream with this much at most.
const STREAM_WINDOW: u32 = 256 * 1024;
/// What a connection may send ahead: enough for 64 streams whose windows are full, so that slow
/// streams do not hold up quick ones beside them.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Streams of one connection at a time. A client that needs more opens a second connection.
const STREAMS_MAX: u32 = 1024;
/// Largest HTTP/2 frame: a stream's window in one piece, instead of 16 of the default size.
const FRAME_MAX: u32 = STREAM_WINDOW;
/// Largest headers of a request, all together.
const HEADERS_MAX: u32 = 16 * 1024;
/// Streams that a peer may reset before they were accepted, and errors that a peer may cause,
/// before its connection is closed (CVE-2023-44487, CVE-2025-8671).
const RESETS_MAX: usize = 64;
/// How long connections with open streams live on after the stop. Work is done by then: the drain
/// gate waited for it. What is left watches something, as health watchers do.
const LINGER: Duration = Duration::from_secs(2);

/// The main port, bound and not yet serving.
#[derive(Debug)]
pub struct Door {
    pub(crate) listener: TcpListener,
    pub(crate) address: SocketAddr,
    pub(crate) component: Component,
    pub(crate) health: Health,
    pub(crate) tasks: Tasks,
    pub(crate) shutdown: Shutdown,
}

/// The main port could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The transport failed.
    #[error("the main port stopped serving")]
    Transport(#[source] tonic::transport::Error),
    /// The descriptors for reflection do not decode.
    #[error("the descriptors for reflection do not decode")]
    Reflection(#[source] tonic_reflection::server::Error),
}

impl Door {
    /// The address that is bound.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `routes`, `grpc.health.v1` and reflection until the daemon stops. `services` are the
    /// full names of the gRPC services in `routes`, for whoever asks for the health of one.
    /// The daemon can be ready from the moment this runs.
    ///
    /// # Errors
    /// When the transport fails.
    pub async fn serve(self, routes: Routes, services: &[&'static str]) -> Result<(), ServeError> {
        let (reporter, health) = tonic_health::server::health_reporter();
        let names: Vec<_> = ["", "grpc.health.v1.Health"]
            .iter()
            .chain(services)
            .copied()
            .collect();
        report(&reporter, &names, self.health.is_ready()).await;
        self.tasks.spawn(
            BACKGROUND,
            "grpc_health",
            follow(reporter, names, self.health.clone()),
        );
        let routes = routes
            .add_service(health)
            .add_service(reflection().build_v1().map_err(ServeError::Reflection)?)
            .add_service(
                reflection()
                    .build_v1alpha()
                    .map_err(ServeError::Reflection)?,
            );

        let incoming = TcpIncoming::from(self.listener)
            .with_nodelay(Some(true))
            .with_keepalive(Some(KEEPALIVE_AFTER))
            .with_keepalive_interval(Some(KEEPALIVE_TIMEOUT));
        let shutdown = self.shutdown.clone();
        let stop = async move { shutdown.stopped().await };
        let serving = server()
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, stop);
        self.component.ready();
        let lingered = async {
            self.shutdown.stopped().await;
            tokio::time::sleep(LINGER).await;
        };
        tokio::select! {
            served = serving => served.map_err(ServeError::Transport),
            () = lingered => {
                tracing::info!("connections_cut");
                Ok(())
            },
        }
    }
}

/// Makes `routes` answer every call that no service takes with UNIMPLEMENTED and `reason`; what is
/// no gRPC gets the same as HTTP. Each such call is told to `count`.
#[must_use]
pub fn refuse_unknown(
    mut routes: Routes,
    reason: &'static str,
    count: impl Fn() + Clone + Send + Sync + 'static,
) -> Routes {
    let router = std::mem::take(routes.axum_router_mut());
    let refuse = async move |headers: HeaderMap| -> Response {
        count();
        let kind = headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok());
        if kind.is_some_and(|kind| kind.starts_with("application/grpc")) {
            Status::unimplemented(reason).into_http()
        } else {
            (StatusCode::NOT_IMPLEMENTED, format!("{reason}\n")).into_response()
        }
    };
    *routes.axum_router_mut() = router.fallback(refuse);
    routes
}

fn server() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .accept_http1(true)
        .http2_keepalive_interval(Some(KEEPALIVE_AFTER))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS_MAX)
        .max_frame_size(FRAME_MAX)
        .http2_max_header_list_size(HEADERS_MAX)
        .http2_max_pending_accept_reset_streams(Some(RESETS_MAX))
        .http2_max_local_error_reset_streams(Some(RESETS_MAX))
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(hive_protocol::wire::DESCRIPTORS)
        .register_encoded_file_descriptor_set(hive_protocol::externalscaler::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

async fn follow(reporter: HealthReporter, names: Vec<&'static str>, health: Health) {
    let mut changes = health.watch();
    loop {
        let is_ready = changes.borrow_and_update().is_ready();
        report(&reporter, &names, is_ready).await;
        if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn report(reporter: &HealthReporter, names: &[&'static str], is_ready: bool) {
    let status = if is_ready {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    for name in names {
        reporter.set_service_status(name, status).await;
    }
}
