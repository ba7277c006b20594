//! Hands calls on to the daemons that answer them.
//!
//! Which of them live is what the last beat said. Calls about one thing go to one daemon as long as
//! it lives, so that what it keeps of that serves all of them; any other one can take its place,
//! and does at once when it does not answer. What a daemon says comes back as it is.
//!
//! Nothing is decided and nothing is kept here; the connections are `hive_runtime::peers`'. The
//! calls stand in tables: `routers`, `dead_letters` and
//! `coordinators`.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use hive_domain::ownership::owner;
use hive_protocol::{
    fault::{Fault, FaultKind, Reason},
    limits::NAMESPACE_HEADER,
};
use hive_runtime::peers::Peers;
use hive_store::registry::places;
use tonic::{
    Request, Response, Status,
    metadata::{AsciiMetadataValue, MetadataMap},
    transport::Channel,
};

use crate::core::Gateway;

/// How long a call may take that names no deadline.
const CALL_WITHIN: Duration = Duration::from_secs(30);
/// How long daemons are looked for that take a call, where all that live refuse.
pub(crate) const LOOK_WITHIN: Duration = Duration::from_secs(3);
/// Between two rounds over all live daemons.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

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

    /// The same call, with `wait` on top where it has no deadline: it asks to wait so long.
    #[must_use]
    pub(crate) fn waiting(mut self, wait: Duration) -> Self {
        let end = || Instant::now().checked_add(CALL_WITHIN.saturating_add(wait));
        self.deadline = self.deadline.or_else(end);
        self
    }

    /// The same call, over after `limit` at most.
    #[must_use]
    pub(crate) fn within(mut self, limit: Duration) -> Self {
        let end = Instant::now().checked_add(limit);
        self.deadline = match (self.deadline, end) {
            (Some(deadline), Some(end)) => Some(deadline.min(end)),
            (deadline, end) => deadline.or(end),
        };
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

/// For tables of calls: may always be sent again.
pub(crate) const fn safe<T>(_request: &T) -> Repeat {
    Repeat::Safe
}

/// For tables of calls: is never sent again.
pub(crate) const fn never<T>(_request: &T) -> Repeat {
    Repeat::Never
}

/// A status of a daemon as one of ours: its code, words and details, and nothing of its transport.
/// What the transport said becomes a fault of ours.
pub(crate) fn passed_on(status: &Status) -> Status {
    if std::error::Error::source(status).is_some() {
        return Fault::from(status).into();
    }
    let details = status.details().to_vec().into();
    Status::with_details(status.code(), status.message(), details)
}

impl Gateway {
    /// Asks the daemon that calls about `id` go to, and others in its place while it cannot be
    /// reached or says that it cannot serve, until the deadline.
    pub(crate) async fn ask<Req, Res, Asked>(
        &self,
        peers: &Peers,
        (onward, id): (&Onward, &str),
        message: Req,
        (repeat, send): (Repeat, impl Fn(Channel, Request<Req>) -> Asked),
    ) -> Result<Res, Status>
    where
        Req: Clone,
        Asked: Future<Output = Result<Response<Res>, Status>>,
    {
        let _pass = self.enter(peers.kind().about)?;
        self.ask_on(peers, (onward, id), message, (repeat, send))
            .await
    }

    /// As [`Gateway::ask`], for a call that was let in.
    pub(crate) async fn ask_on<Req, Res, Asked>(
        &self,
        peers: &Peers,
        (onward, id): (&Onward, &str),
        message: Req,
        (repeat, send): (Repeat, impl Fn(Channel, Request<Req>) -> Asked),
    ) -> Result<Res, Status>
    where
        Req: Clone,
        Asked: Future<Output = Result<Response<Res>, Status>>,
    {
        let begun = Instant::now();
        let end = onward.deadline.unwrap_or_else(|| begun + CALL_WITHIN);
        let last_look = end.min(begun + LOOK_WITHIN);
        let key = format!("{}/{id}", onward.namespace);
        loop {
            let mut left = peers.addresses();
            if left.is_empty() {
                // One that started since the last beat: only the registry itself may say none.
                let replicas = self.store.replicas().await.map_err(Fault::from)?;
                peers.note(places(&replicas));
                left = peers.addresses();
            }
            let mut refusal = peers.none_lives().into();
            while let Some(address) = owner(&key, &left).map(str::to_owned) {
                left.retain(|one| *one != address);
                let within = end.saturating_duration_since(Instant::now());
                if within.is_zero() {
                    let message = "the deadline of the call passed";
                    return Err(Fault::new(Reason::DeadlineExceeded, message).into());
                }
                let request = onward.request(message.clone(), Some(within))?;
                let asked = send(peers.channel(&address)?, request);
                let status = match asked.await {
                    Ok(answer) => return Ok(answer.into_inner()),
                    Err(status) => status,
                };
                let fault = Fault::from(&status);
                let is_lost = fault.reason == Reason::OutcomeUnknown && repeat == Repeat::Safe;
                if fault.kind != FaultKind::Unavailable && !is_lost {
                    return Err(passed_on(&status));
                }
                let daemon = peers.kind().daemon;
                tracing::debug!(daemon, address, %fault, "peer_refused");
                refusal = passed_on(&status);
            }
            let is_known = !peers.addresses().is_empty();
            if !is_known || Instant::now() + ROUND_PAUSE >= last_look {
                return Err(refusal);
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }
}

/// Calls that are handed on as they are: the function that makes their client, the peers that take
/// them, then of each call its request, its answer, whether it may be sent again, and the id that
/// it is about.
macro_rules! handed_on {
    ($client:ident at $peers:ident; $($(#[doc = $doc:literal])+ $call:ident $request:ident
        $response:ident $repeat:ident $of:expr;)*) => {
        impl Gateway {
            $(
                $(#[doc = $doc])+
                ///
                /// # Errors
                /// That no such daemon lives, or what it says.
                pub async fn $call(
                    &self,
                    onward: &Onward,
                    request: wire::$request,
                ) -> Result<wire::$response, Status> {
                    let of: fn(&wire::$request) -> &str = $of;
                    let id = of(&request).to_owned();
                    let send = |channel: Channel, request| async move {
                        $client(channel).$call(request).await
                    };
                    let how = ($repeat(&request), send);
                    self.ask(&self.$peers, (onward, &id), request, how).await
                }
            )*
        }
    };
}

pub(crate) use handed_on;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hive_protocol::fault::{Fault, Reason};
    use tonic::Status;

    use super::{passed_on, timeout};

    #[test]
    fn deadlines_of_callers_are_read() {
        for (text, millis) in [("5S", 5_000), ("1M", 60_000), ("20m", 20), ("0n", 0)] {
            assert_eq!(timeout(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "S", "5", "-5S", "123456789S", "5x", "é"] {
            assert_eq!(timeout(text), None, "{text}");
        }
    }

    #[test]
    fn what_a_daemon_says_is_passed_on_whole() {
        let fault = Fault::new(Reason::WorkflowOver, "the run is over")
            .with_retry_after(Duration::from_secs(3));
        let status = passed_on(&Status::from(&fault));
        assert_eq!(Fault::from(status), fault);
    }
}
