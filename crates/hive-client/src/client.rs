//! A client of the gateways: connections, the namespace on each call, and the next gateway when
//! one does not answer.
//!
//! Connections are made at the first call over them and made again by themselves; an unreachable
//! gateway is a call that fails, never a client that cannot be built. What this never does: repeat
//! a call whose repetition could do a thing twice.

mod calls;
pub(crate) mod watch;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hive_protocol::{
    fault::{Fault, FaultKind, Reason},
    limits::{FRAME_BYTES_MAX, NAMESPACE_DEFAULT, NAMESPACE_HEADER},
    wire::{
        coordinator_service_client::CoordinatorServiceClient,
        dead_letter_service_client::DeadLetterServiceClient,
        group_service_client::GroupServiceClient, messaging_service_client::MessagingServiceClient,
        stream_service_client::StreamServiceClient, workflow_service_client::WorkflowServiceClient,
    },
};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{
    Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use crate::{
    backoff::Backoff,
    endpoints::{Endpoints, EndpointsError},
};

pub(crate) use calls::calls;
pub use watch::Watch;

/// How long one gateway may take to accept a connection before the next is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a unary call may take with all its repetitions. Gateways wait for Redis up to 3 s.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// The transport of a stub: a connection that names the namespace on each call.
pub type Stub = InterceptedService<Channel, Namespaced>;

/// Puts the namespace on each call.
#[derive(Debug, Clone)]
pub struct Namespaced(MetadataValue<Ascii>);

impl Interceptor for Namespaced {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert(NAMESPACE_HEADER, self.0.clone());
        Ok(request)
    }
}

/// Access to the gateways in one namespace. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    gateways: Vec<Gateway>,
    // Index of the gateway that answered last; unary calls start there.
    current: AtomicUsize,
    call_deadline: Duration,
}

/// One gateway, with a stub per service.
#[derive(Debug, Clone)]
pub struct Gateway {
    url: String,
    channel: Channel,
    namespace: Namespaced,
}

impl Gateway {
    /// Its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Calls of messages.
    #[must_use]
    pub fn messaging(&self) -> MessagingServiceClient<Stub> {
        MessagingServiceClient::new(self.stub())
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX)
    }

    /// Calls of groups.
    #[must_use]
    pub fn groups(&self) -> GroupServiceClient<Stub> {
        GroupServiceClient::new(self.stub())
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX)
    }

    /// Calls of streams.
    #[must_use]
    pub fn streams(&self) -> StreamServiceClient<Stub> {
        StreamServiceClient::new(self.stub())
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX)
    }

    /// Calls of workflows.
    #[must_use]
    pub fn workflows(&self) -> WorkflowServiceClient<Stub> {
        WorkflowServiceClient::new(self.stub())
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX)
    }

    /// Calls of dead letters.
    #[must_use]
    pub fn dead_letters(&self) -> DeadLetterServiceClient<Stub> {
        DeadLetterServiceClient::new(self.stub())
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX)
    }

    /// Calls of placement, rebalancing and scaling.
    #[must_use]
    pub fn coordination(&self) -> CoordinatorServiceClient<Stub> {
        CoordinatorServiceClient::new(self.stub())
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX)
    }

    fn stub(&self) -> Stub {
        InterceptedService::new(self.channel.clone(), self.namespace.clone())
    }
}

/// Whether a call may be sent again when its answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Repeating it changes nothing more: reads, settles, keyed publishes, fetches with their id.
    Safe,
    /// It may have been done already: only the caller can decide.
    Never,
}

/// Why a client cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The gateways cannot be.
    #[error(transparent)]
    Endpoints(#[from] EndpointsError),
    /// The namespace cannot be.
    #[error("namespace `{namespace}` must be visible ascii text, at most 128 characters")]
    Namespace {
        /// What was given.
        namespace: String,
    },
}

/// Why a call has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// A gateway refused it; the reason says whether trying again helps.
    #[error("{0}")]
    Refused(Fault),
    /// No gateway answered in time.
    #[error("no answer from `{urls}` within {waited:?}: {last}")]
    Unreachable {
        /// The gateways that were tried.
        urls: String,
        /// How long.
        waited: Duration,
        /// What the last one said, or what the connection to it did.
        last: Fault,
    },
}

impl CallError {
    /// What the gateway said last.
    #[must_use]
    pub const fn fault(&self) -> &Fault {
        match self {
            Self::Refused(fault) | Self::Unreachable { last: fault, .. } => fault,
        }
    }
}

/// Settings of a [`Client`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ClientBuilder {
    endpoints: Endpoints,
    namespace: String,
    connect_timeout: Duration,
    call_deadline: Duration,
}

impl ClientBuilder {
    /// The namespace in which all names live. Default `default`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// How long one gateway may take to accept a connection. Default 2 s.
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a unary call may take with all its repetitions, apart from what it asks the server
    /// to wait. Default 10 s.
    pub const fn call_deadline(mut self, deadline: Duration) -> Self {
        self.call_deadline = deadline;
        self
    }

    /// Builds the client; nothing is connected yet. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// When a URL or the namespace cannot be.
    pub fn build(self) -> Result<Client, ClientError> {
        let refused = |namespace: &str| ClientError::Namespace {
            namespace: namespace.to_owned(),
        };
        if self.namespace.is_empty() || self.namespace.len() > 128 {
            return Err(refused(&self.namespace));
        }
        let namespace = self.namespace.parse().map(Namespaced);
        let namespace = namespace.map_err(|_not_ascii| refused(&self.namespace))?;
        let transports = self.endpoints.transports(self.connect_timeout)?;
        let gateways = transports
            .into_iter()
            .map(|(url, endpoint)| Gateway {
                url,
                channel: endpoint.connect_lazy(),
                namespace: namespace.clone(),
            })
            .collect();
        let shared = Shared {
            gateways,
            current: AtomicUsize::new(0),
            call_deadline: self.call_deadline,
        };
        Ok(Client {
            shared: Arc::new(shared),
        })
    }
}

impl Client {
    /// A client of these gateways (URLs with commas between) in the namespace `default`. Needs a
    /// tokio runtime around it.
    ///
    /// # Errors
    /// When a URL cannot be.
    pub fn new(urls: &str) -> Result<Self, ClientError> {
        Self::builder(urls.parse()?).build()
    }

    /// Settings for a client of these gateways.
    pub fn builder(endpoints: Endpoints) -> ClientBuilder {
        ClientBuilder {
            endpoints,
            namespace: NAMESPACE_DEFAULT.to_owned(),
            connect_timeout: CONNECT_TIMEOUT,
            call_deadline: CALL_DEADLINE,
        }
    }

    /// The gateways, in order of preference.
    #[must_use]
    pub fn gateways(&self) -> &[Gateway] {
        &self.shared.gateways
    }

    /// The gateway that unary calls go to first: the one that answered last.
    #[must_use]
    pub fn gateway(&self) -> &Gateway {
        self.gateway_at(self.current())
    }

    /// Number of the gateway that answered last.
    pub(crate) fn current(&self) -> usize {
        self.shared.current.load(Ordering::Relaxed)
    }

    /// How long a unary call may take with all its repetitions.
    pub(crate) fn call_deadline(&self) -> Duration {
        self.shared.call_deadline
    }

    /// The gateway of this number; numbers go round.
    pub(crate) fn gateway_at(&self, number: usize) -> &Gateway {
        let gateways = &self.shared.gateways;
        #[expect(
            clippy::indexing_slicing,
            reason = "the rest is below the length, and `Endpoints` is never empty"
        )]
        &gateways[number % gateways.len()]
    }

    /// Sends one unary call, to the next gateway on UNAVAILABLE, with backoff after each round of
    /// them, within the client's deadline. A gateway that cannot even be connected to is passed
    /// over for every call; with [`Repeat::Never`] any other failure ends it.
    ///
    /// # Errors
    /// When a gateway refuses it, or none answers in time.
    pub async fn call<Q, A, F, R>(
        &self,
        request: Q,
        repeat: Repeat,
        send: F,
    ) -> Result<A, CallError>
    where
        Q: Clone,
        F: Fn(Gateway, Request<Q>) -> R,
        R: Future<Output = Result<Response<A>, Status>>,
    {
        self.call_waiting(request, repeat, Duration::ZERO, send)
            .await
    }

    /// As [`Client::call`], for a call that asks the server to wait up to `wait`.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn call_waiting<Q, A, F, R>(
        &self,
        request: Q,
        repeat: Repeat,
        wait: Duration,
        send: F,
    ) -> Result<A, CallError>
    where
        Q: Clone,
        F: Fn(Gateway, Request<Q>) -> R,
        R: Future<Output = Result<Response<A>, Status>>,
    {
        let started = Instant::now();
        let deadline = started + wait + self.shared.call_deadline;
        let mut backoff = Backoff::new();
        let mut tried = 0;
        loop {
            let number = self.current();
            let mut framed = Request::new(request.clone());
            framed.set_timeout(deadline.saturating_duration_since(Instant::now()));
            let sent = send(self.gateway_at(number).clone(), framed);
            let status = match timeout_at(deadline, sent).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => status,
                Err(_elapsed) => {
                    let last = "the deadline of the call passed";
                    return Err(
                        self.unreachable(started, Fault::new(Reason::DeadlineExceeded, last))
                    );
                },
            };
            let was_sent = !is_unconnected(&status);
            let fault = Fault::from(status);
            // A connection that broke in mid-call answers neither yes nor no.
            let is_lost = fault.reason == Reason::OutcomeUnknown;
            if fault.kind != FaultKind::Unavailable && !(is_lost && repeat == Repeat::Safe) {
                return Err(CallError::Refused(fault));
            }
            if was_sent && repeat == Repeat::Never {
                return Err(CallError::Refused(fault));
            }
            self.leave(number);
            tried += 1;
            if tried % self.gateways().len() == 0 {
                let wait = fault.retry_after.unwrap_or_default();
                let wait = backoff.next_wait().max(wait);
                if Instant::now() + wait >= deadline {
                    return Err(self.unreachable(started, fault));
                }
                sleep(wait).await;
            }
        }
    }

    /// Sends unary calls to the gateway behind this one from now on, unless somebody did so
    /// already; answers the place of that next one.
    pub(crate) fn leave(&self, number: usize) -> usize {
        let next = (number + 1) % self.gateways().len();
        let (before, after) = (Ordering::Relaxed, Ordering::Relaxed);
        let moved = self
            .shared
            .current
            .compare_exchange(number, next, before, after);
        if moved.is_ok() {
            tracing::debug!(gateway = self.gateway_at(next).url(), "gateway_changed");
        }
        next
    }

    pub(crate) fn unreachable(&self, started: Instant, last: Fault) -> CallError {
        let urls: Vec<&str> = self.gateways().iter().map(Gateway::url).collect();
        CallError::Unreachable {
            urls: urls.join(","),
            waited: started.elapsed(),
            last,
        }
    }
}

/// Whether the call never left: the connection could not be made.
fn is_unconnected(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_gateway_that_is_left_again_and_again_names_the_next_one() {
        let client = Client::new("http://127.0.0.1:1,http://127.0.0.1:2").unwrap();
        let mut place = client.current();
        for _ in 0..5 {
            let left = place;
            place = client.leave(left);
            assert_eq!(client.current(), place, "unary calls left it too");
            assert_ne!(place, left);
        }
    }
}
