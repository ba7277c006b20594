//! The one task that owns a publisher's stream: numbers batches, sends them, reads answers, and
//! starts over on another gateway with everything unanswered.
//!
//! Answers come in the order of the batches, so the unanswered ones are always a suffix of what
//! was sent. A new stream gets that suffix first, in order and under the same numbers: at the
//! server no number ever follows a higher one that is new to it.

use std::{collections::VecDeque, time::Duration};

use hive_protocol::{
    fault::{Fault, FaultKind, Reason},
    wire::{PublishStreamRequest, PublishStreamResponse},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::{
    PublishError, Target, after,
    batch::{Batch, Entry, Gather},
};
use crate::{backoff::Backoff, client::Client};

/// Batches in flight. Two keep a gateway busy while it answers the one before; the others cover
/// the way there and back.
const BATCHES_IN_FLIGHT: usize = 4;
/// How long a gateway may take to accept the stream.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a batch may stay unanswered on a living connection before another gateway is tried.
/// Gateways wait for Redis up to 3 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Why a stream ends that its server closed without a status.
const CLOSED: &str = "the gateway closed the stream";

/// Owns the stream and everything unanswered.
#[derive(Debug)]
pub(super) struct Driver {
    client: Client,
    target: Target,
    producer_id: String,
    patience: Duration,
    unanswered: VecDeque<Batch>,
    last_batch: u64,
    next_sequence: u64,
}

/// Why a stream is over.
enum End {
    /// Every message is answered and no more come.
    Finished,
    /// The connection or the gateway failed; the unanswered ones are sent again.
    Lost(Fault),
    /// The server refuses these messages' stream; repeating would not help.
    Refused(Fault),
}

impl Driver {
    pub(super) const fn new(
        client: Client,
        target: Target,
        producer_id: String,
        patience: Duration,
    ) -> Self {
        Self {
            client,
            target,
            producer_id,
            patience,
            unanswered: VecDeque::new(),
            last_batch: 0,
            next_sequence: 1,
        }
    }

    /// Publishes until the publisher is closed and all is answered.
    pub(super) async fn run(mut self, queue: mpsc::Receiver<Entry>, closing: CancellationToken) {
        let mut gather = Gather::new(queue);
        let mut backoff = Backoff::new();
        let mut gateway = self.client.current();
        let mut failures = 0;
        loop {
            if self.unanswered.is_empty() && !self.wait_for_work(&mut gather, &closing).await {
                return;
            }
            let answered = self.unanswered.front().map(Batch::number);
            match self.converse(gateway, &mut gather, &closing).await {
                End::Finished => return,
                End::Refused(fault) => {
                    self.fail_all(&PublishError::Unknown(fault));
                    failures = 0;
                },
                End::Lost(fault) => {
                    tracing::debug!(gateway, %fault, "publish_stream_lost");
                    self.give_up_overdue(&fault);
                    gateway = gateway.wrapping_add(1);
                    let has_moved = self.unanswered.front().map(Batch::number) != answered;
                    failures = if has_moved { 1 } else { failures + 1 };
                    if has_moved {
                        backoff.reset();
                    }
                    // The first failure goes to another gateway at once; a full round of them, or
                    // a lone gateway, waits.
                    if failures % self.client.gateways().len() == 0 {
                        sleep(backoff.next_wait()).await;
                    }
                },
            }
        }
    }

    /// Waits for the first batch to send; false when none will come.
    async fn wait_for_work(&mut self, gather: &mut Gather, closing: &CancellationToken) -> bool {
        let mut entries = tokio::select! {
            biased;
            entries = gather.next() => entries,
            () = closing.cancelled() => None,
        };
        if entries.is_none() {
            gather.close();
            entries = gather.next().await;
        }
        let is_work = entries.is_some();
        if let Some(entries) = entries {
            self.number(entries);
        }
        is_work
    }

    /// Gives the entries their numbers and keeps them as the newest batch.
    fn number(&mut self, entries: Vec<Entry>) {
        self.last_batch += 1;
        let first = self.next_sequence;
        let count = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        self.next_sequence = after(first, count);
        let batch = Batch::new(
            self.last_batch,
            first,
            &self.producer_id,
            &self.target,
            entries,
        );
        self.unanswered.push_back(batch);
    }

    /// One stream, from the first sending to its end.
    async fn converse(
        &mut self,
        gateway: usize,
        gather: &mut Gather,
        closing: &CancellationToken,
    ) -> End {
        // Room for every batch that may be unanswered: sending below never waits.
        let (frames, outbound) = mpsc::channel(BATCHES_IN_FLIGHT);
        for batch in &mut self.unanswered {
            if frames.try_send(batch.send()).is_err() {
                return End::Lost(Fault::bug(
                    "more batches are unanswered than may be in flight",
                ));
            }
        }
        let mut stub = self.client.gateway_at(gateway).messaging();
        let accepted = stub.publish_stream(ReceiverStream::new(outbound));
        let mut answers = match timeout(ACCEPT_TIMEOUT, accepted).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return end_of(Fault::from(status)),
            Err(_elapsed) => return End::Lost(late("the gateway did not accept the stream")),
        };
        self.exchange(&frames, &mut answers, gather, closing).await
    }

    /// Sends new batches while there is room, and takes answers.
    async fn exchange(
        &mut self,
        frames: &mpsc::Sender<PublishStreamRequest>,
        answers: &mut Streaming<PublishStreamResponse>,
        gather: &mut Gather,
        closing: &CancellationToken,
    ) -> End {
        let mut patience_ends = Instant::now() + ANSWER_TIMEOUT;
        let mut is_closing = false;
        let mut is_over = false;
        loop {
            if is_over && self.unanswered.is_empty() {
                return End::Finished;
            }
            let has_room = !is_over && self.unanswered.len() < BATCHES_IN_FLIGHT;
            tokio::select! {
                biased;
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => {
                        if let Err(fault) = self.take(answer) {
                            return End::Lost(fault);
                        }
                        patience_ends = Instant::now() + ANSWER_TIMEOUT;
                    },
                    Ok(None) => return End::Lost(Fault::new(Reason::Unreachable, CLOSED)),
                    Err(status) => return end_of(Fault::from(status)),
                },
                entries = gather.next(), if has_room => {
                    if self.unanswered.is_empty() {
                        patience_ends = Instant::now() + ANSWER_TIMEOUT;
                    }
                    let Some(entries) = entries else { is_over = true; continue };
                    self.number(entries);
                    let frame = self.unanswered.back_mut().map(Batch::send);
                    if frame.is_some_and(|frame| frames.try_send(frame).is_err()) {
                        return End::Lost(Fault::new(Reason::Unreachable, CLOSED));
                    }
                },
                () = closing.cancelled(), if !is_closing => {
                    is_closing = true;
                    gather.close();
                },
                () = sleep_until(patience_ends), if !self.unanswered.is_empty() => {
                    return End::Lost(late("the gateway did not answer a batch"));
                },
            }
        }
    }

    /// Takes the answer to the oldest unanswered batch.
    fn take(&mut self, answer: PublishStreamResponse) -> Result<(), Fault> {
        match self.unanswered.pop_front() {
            Some(batch) if batch.number() == answer.batch => {
                batch.resolve(answer.outcomes);
                Ok(())
            },
            other => {
                let message = format!("the gateway answered batch `{}` out of turn", answer.batch);
                if let Some(batch) = other {
                    self.unanswered.push_front(batch);
                }
                Err(Fault::new(Reason::OutcomeUnknown, message))
            },
        }
    }

    /// Answers what waits for too long. Only from the front: what stays is still a suffix.
    fn give_up_overdue(&mut self, fault: &Fault) {
        let patience = self.patience;
        while self
            .unanswered
            .front()
            .is_some_and(|batch| batch.is_overdue(patience))
        {
            if let Some(batch) = self.unanswered.pop_front() {
                batch.fail(&PublishError::Unknown(fault.clone()));
            }
        }
    }

    fn fail_all(&mut self, error: &PublishError) {
        for batch in self.unanswered.drain(..) {
            batch.fail(error);
        }
    }
}

/// What a status means for the stream: most say nothing about the messages and are survived.
fn end_of(fault: Fault) -> End {
    match fault.kind {
        FaultKind::Unavailable
        | FaultKind::Timeout
        | FaultKind::Saturated
        | FaultKind::Fenced
        | FaultKind::Corrupt
        | FaultKind::Bug => End::Lost(fault),
        FaultKind::Invalid
        | FaultKind::Unauthenticated
        | FaultKind::Forbidden
        | FaultKind::NotFound
        | FaultKind::Exists
        | FaultKind::WrongState
        | FaultKind::Unsupported => End::Refused(fault),
    }
}

fn late(message: &str) -> Fault {
    Fault::new(Reason::DeadlineExceeded, message)
}
