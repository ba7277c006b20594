//! The figures of a group for as long as somebody looks.
//!
//! A watch changes nothing, so it goes on at the next gateway when one goes away, and the caller
//! sees a pause at most. What ends it: the group is gone, or nobody answers.

use std::time::Duration;

use hive_protocol::{
    fault::{Fault, FaultKind, Reason},
    wire::{GroupFigures, WatchRequest, WatchResponse},
};
use tokio::time::{Instant, sleep, timeout};
use tonic::Streaming;

use super::{CallError, Client, Repeat};
use crate::backoff::Backoff;

/// A gateway says something at least every 5 s; one that was silent for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// A watch of one group; see [`Client::watch`].
#[derive(Debug)]
pub struct Watch {
    client: Client,
    group: String,
    // The number of the gateway that sends, and what it sends.
    open: Option<(usize, Streaming<WatchResponse>)>,
}

impl Client {
    /// Watches the figures of a group. Nothing is asked before [`Watch::next`].
    #[must_use]
    pub fn watch(&self, group: impl Into<String>) -> Watch {
        Watch {
            client: self.clone(),
            group: group.into(),
            open: None,
        }
    }
}

impl Watch {
    /// The next figures: at once after the first call, then whenever they changed, and at least
    /// every five seconds while a gateway answers.
    ///
    /// # Errors
    /// When a gateway refuses it, also since the group is gone; or when none has answered for 15 s
    /// and the deadline of a call.
    pub async fn next(&mut self) -> Result<GroupFigures, CallError> {
        let started = Instant::now();
        let mut backoff = Backoff::new();
        loop {
            let fault = match self.step().await {
                Ok(figures) => return Ok(figures),
                Err(CallError::Refused(fault)) if is_passing(&fault) => fault,
                Err(ended) => return Err(ended),
            };
            if let Some((number, _)) = self.open.take() {
                self.client.leave(number);
            }
            if started.elapsed() > SILENCE_MAX + self.client.shared.call_deadline {
                return Err(self.client.unreachable(started, fault));
            }
            sleep(backoff.next_wait()).await;
        }
    }

    /// One message of the gateway that sends, or of one that is asked now.
    async fn step(&mut self) -> Result<GroupFigures, CallError> {
        let frames = match &mut self.open {
            Some((_, frames)) => frames,
            closed => {
                let request = WatchRequest {
                    group: self.group.clone(),
                };
                let ask = self
                    .client
                    .call(request, Repeat::Safe, |gateway, mut request| {
                        // The deadline is that of the opening: a watch has none.
                        request.metadata_mut().remove("grpc-timeout");
                        async move { gateway.groups().watch(request).await }
                    });
                let frames = ask.await?;
                &mut closed.insert((self.client.current(), frames)).1
            },
        };
        let end = match timeout(SILENCE_MAX, frames.message()).await {
            Ok(Ok(Some(frame))) => return Ok(frame.figures.unwrap_or_default()),
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

/// Whether another gateway, or the same one a little later, may go on.
fn is_passing(fault: &Fault) -> bool {
    fault.kind == FaultKind::Unavailable || fault.reason == Reason::OutcomeUnknown
}
