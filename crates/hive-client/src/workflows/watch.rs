//! What happens in a run, for as long as it goes on.
//!
//! A watch changes nothing, so it goes on at the next gateway where one goes away, behind the last
//! event that it saw: nothing is missing and nothing comes twice. Where the history does not reach
//! back so far the run is shown as it is, once more.

use hive_protocol::{
    fault::{Fault, Reason},
    wire::{
        WatchWorkflowRequest, WatchWorkflowResponse, WorkflowState, watch_workflow_response::Frame,
    },
};
use tokio::time::{Instant, sleep};
use tonic::Streaming;

use crate::{
    backoff::Backoff,
    client::{
        CallError, Client,
        watch::{is_passing, open},
    },
};

/// A watch of one run; see [`Client::watch_workflow`].
#[derive(Debug)]
pub struct WorkflowWatch {
    client: Client,
    place: WatchWorkflowRequest,
    // The number of the gateway that sends, and what it sends.
    open: Option<(usize, Streaming<WatchWorkflowResponse>)>,
    is_over: bool,
}

impl Client {
    /// Watches the newest run of a workflow. Nothing is asked before [`WorkflowWatch::next`].
    #[must_use]
    pub fn watch_workflow(&self, workflow_id: impl Into<String>) -> WorkflowWatch {
        WorkflowWatch {
            client: self.clone(),
            place: WatchWorkflowRequest {
                workflow_id: workflow_id.into(),
                ..WatchWorkflowRequest::default()
            },
            open: None,
            is_over: false,
        }
    }
}

impl WorkflowWatch {
    /// Watches this run instead.
    #[must_use]
    pub fn run(mut self, run_id: impl Into<String>) -> Self {
        self.place.run_id = run_id.into();
        self
    }

    /// Goes on behind this event, without a snapshot.
    #[must_use]
    pub fn after(mut self, event_id: impl Into<String>) -> Self {
        self.place.after_event_id = event_id.into();
        self
    }

    /// The id of the newest event that was seen: another watch can go on from here.
    #[must_use]
    pub fn event_id(&self) -> &str {
        &self.place.after_event_id
    }

    /// The run as it is, then each thing that happens; nothing when the run is over.
    ///
    /// # Errors
    /// When it is refused, also since the run is deleted; or when nobody has answered for the
    /// deadline of a call.
    pub async fn next(&mut self) -> Result<Option<Frame>, CallError> {
        let mut backoff = Backoff::new();
        let started = Instant::now();
        let mut lost: Option<Instant> = None;
        loop {
            if self.is_over && self.open.is_none() {
                return Ok(None);
            }
            let fault = match self.step().await {
                Ok(Some(frame)) => {
                    self.note(&frame);
                    return Ok(Some(frame));
                },
                Ok(None) if self.is_over => {
                    self.open = None;
                    return Ok(None);
                },
                Ok(None) => Fault::new(Reason::Unreachable, "the gateway ended the watch"),
                Err(CallError::Refused(fault)) if is_passing(&fault) => fault,
                Err(CallError::Refused(fault)) if self.is_forgotten(&fault) => {
                    self.place.after_event_id.clear();
                    self.open = None;
                    continue;
                },
                Err(ended) => return Err(ended),
            };
            if let Some((number, _)) = self.open.take() {
                self.client.leave(number);
            }
            let since = *lost.get_or_insert_with(Instant::now);
            if since.elapsed() > self.client.call_deadline() {
                return Err(self.client.unreachable(started, fault));
            }
            sleep(backoff.next_wait()).await;
        }
    }

    async fn step(&mut self) -> Result<Option<Frame>, CallError> {
        let frames = match &mut self.open {
            Some((_, frames)) => frames,
            closed => {
                let request = self.place.clone();
                let opened = open(&self.client, request, |gateway, request| async move {
                    gateway.workflows().watch_workflow(request).await
                });
                &mut closed.insert(opened.await?).1
            },
        };
        loop {
            match frames.message().await {
                Ok(Some(frame)) => {
                    // A frame of a newer server is passed over.
                    if let Some(frame) = frame.frame {
                        return Ok(Some(frame));
                    }
                },
                Ok(None) => return Ok(None),
                Err(status) => return Err(CallError::Refused(Fault::from(status))),
            }
        }
    }

    /// Keeps in mind where to go on, and whether the run is over.
    fn note(&mut self, frame: &Frame) {
        match frame {
            Frame::Snapshot(run) => {
                self.place.run_id.clone_from(&run.run_id);
                self.place.after_event_id.clone_from(&run.event_id);
                self.is_over = match run.state() {
                    WorkflowState::Succeeded | WorkflowState::Failed | WorkflowState::Cancelled => {
                        true
                    },
                    WorkflowState::Unspecified | WorkflowState::Running | WorkflowState::Paused => {
                        false
                    },
                };
            },
            Frame::Event(event) => {
                self.place.after_event_id.clone_from(&event.event_id);
                if event.task_id.is_empty() {
                    let what = event.what.as_str();
                    match what {
                        "succeeded" | "failed" | "cancelled" => self.is_over = true,
                        // A retry revives a run.
                        "running" => self.is_over = false,
                        _ => {},
                    }
                }
            },
        }
    }

    /// Whether the history does not reach back to where this watch was.
    fn is_forgotten(&self, fault: &Fault) -> bool {
        fault.reason == Reason::EventNotFound && !self.place.after_event_id.is_empty()
    }
}
