//! Figures for as long as somebody looks: of a group, and by [`Frames`] of anything else that a
//! gateway sends again and again.
//!
//! A watch changes nothing, so it goes on at the next gateway when one goes away, and the caller
//! sees a pause at most. What ends it: the group is gone, or nobody answers.

use std::time::Duration;

use hive_protocol::{
    fault::{Fault, FaultKind, Reason},
    wire::{GroupFigures, WatchRequest, WatchResponse},
};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Request, Response, Status, Streaming};

use super::{CallError, Client, Gateway, Repeat};
use crate::backoff::Backoff;

/// A gateway says something at least every 5 s; one that was silent for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// A watch of one group; see [`Client::watch`].
#[derive(Debug)]
pub struct Watch {
    frames: Frames<WatchResponse>,
    group: String,
}

impl Client {
    /// Watches the figures of a group. Nothing is asked before [`Watch::next`].
    #[must_use]
    pub fn watch(&self, group: impl Into<String>) -> Watch {
        Watch {
            frames: Frames::new(self),
            group: group.into(),
        }
    }
}

impl Watch {
    /// The next figures: at once after the first call, then whenever they changed, and at least
    /// every five seconds while a gateway answers.
    ///
    /// # Errors
    /// When a gateway refuses it, also since the group is gone; or when none has answered for 15 s
    /// and the deadline of a call. Asked again it begins anew.
    pub async fn next(&mut self) -> Result<GroupFigures, CallError> {
        let request = WatchRequest {
            group: self.group.clone(),
        };
        let frame = self.frames.next(&request, |gateway, request| async move {
            gateway.groups().watch(request).await
        });
        Ok(frame.await?.figures.unwrap_or_default())
    }
}

/// What gateways send of a watch that says something at least every 5 s.
#[derive(Debug)]
pub(crate) struct Frames<A> {
    client: Client,
    // The number of the gateway that sends, and what it sends.
    open: Option<(usize, Streaming<A>)>,
}

impl<A> Frames<A> {
    /// Nothing is asked yet.
    pub(crate) fn new(client: &Client) -> Self {
        Self {
            client: client.clone(),
            open: None,
        }
    }

    /// The next frame; `ask` opens the watch at a gateway.
    ///
    /// # Errors
    /// When a gateway refuses it, or when none has answered for 15 s and the deadline of a call.
    /// Asked again it begins anew.
    pub(crate) async fn next<Q, F, R>(&mut self, request: &Q, ask: F) -> Result<A, CallError>
    where
        Q: Clone,
        F: Fn(Gateway, Request<Q>) -> R,
        R: Future<Output = Result<Response<Streaming<A>>, Status>>,
    {
        let started = Instant::now();
        let mut backoff = Backoff::new();
        loop {
            let fault = match self.step(request, &ask).await {
                Ok(frame) => return Ok(frame),
                Err(CallError::Refused(fault)) if is_passing(&fault) => fault,
                Err(ended) => {
                    self.open = None;
                    return Err(ended);
                },
            };
            if let Some((number, _)) = self.open.take() {
                self.client.leave(number);
            }
            if started.elapsed() > SILENCE_MAX + self.client.call_deadline() {
                return Err(self.client.unreachable(started, fault));
            }
            sleep(backoff.next_wait()).await;
        }
    }

    /// One frame of the gateway that sends, or of one that is asked now.
    async fn step<Q, F, R>(&mut self, request: &Q, ask: &F) -> Result<A, CallError>
    where
        Q: Clone,
        F: Fn(Gateway, Request<Q>) -> R,
        R: Future<Output = Result<Response<Streaming<A>>, Status>>,
    {
        let frames = match &mut self.open {
            Some((_, frames)) => frames,
            closed => {
                let opened = open(&self.client, request.clone(), ask).await?;
                &mut closed.insert(opened).1
            },
        };
        let end = match timeout(SILENCE_MAX, frames.message()).await {
            Ok(Ok(Some(frame))) => return Ok(frame),
            Ok(Ok(None)) => Fault::new(Reason::Unreachable, "the gateway ended the watch"),
            Ok(Err(status)) => Fault::from(status),
            Err(_elapsed) => Fault::new(
                Reason::Unreachable,
                format!("the gateway was silent for {SILENCE_MAX:?}"),
            ),
        };
        Err(CallError::Refused(end))
    }
}

/// Opens a watch; the number of the gateway that sends, and what it sends.
pub(crate) async fn open<Q, A, F, R>(
    client: &Client,
    request: Q,
    ask: F,
) -> Result<(usize, Streaming<A>), CallError>
where
    Q: Clone,
    F: Fn(Gateway, Request<Q>) -> R,
    R: Future<Output = Result<Response<Streaming<A>>, Status>>,
{
    let opened = client.call(request, Repeat::Safe, |gateway, mut request| {
        // The deadline is that of the opening: a watch has none.
        request.metadata_mut().remove("grpc-timeout");
        ask(gateway, request)
    });
    let frames = opened.await?;
    Ok((client.current(), frames))
}

/// Whether another gateway, or the same one a little later, may go on.
pub(crate) fn is_passing(fault: &Fault) -> bool {
    fault.kind == FaultKind::Unavailable || fault.reason == Reason::OutcomeUnknown
}
