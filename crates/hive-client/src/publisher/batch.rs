//! Messages on their way: one with its waiter, and a batch of them under its numbers.

use std::{sync::Arc, time::Duration};

use hive_protocol::{
    fault::{Fault, Reason},
    limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX},
    wire::{Message, PublishBatchRequest, PublishOutcome, PublishStreamRequest},
};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot, watch},
    time::Instant,
};

use super::{PublishError, Receipt, Target};

/// Counts one message as unanswered while it lives.
#[derive(Debug)]
pub(super) struct Counted(Arc<watch::Sender<u64>>);

impl Counted {
    pub(super) fn new(count: Arc<watch::Sender<u64>>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_if_modified(|count| {
            *count -= 1;
            *count == 0
        });
    }
}

/// One message and who waits for its answer.
#[derive(Debug)]
pub(super) struct Entry {
    message: Message,
    bytes: usize,
    waiter: Waiter,
}

#[derive(Debug)]
struct Waiter {
    answer: oneshot::Sender<Result<Receipt, PublishError>>,
    since: Instant,
    // Held until the message is answered: its room in the window, its place in the count.
    _held: (OwnedSemaphorePermit, Counted),
}

impl Waiter {
    /// Answers; a caller who no longer waits loses nothing but the answer.
    fn answer(self, answer: Result<Receipt, PublishError>) {
        drop(self.answer.send(answer));
    }
}

impl Entry {
    pub(super) fn new(
        message: Message,
        bytes: usize,
        answer: oneshot::Sender<Result<Receipt, PublishError>>,
        held: (OwnedSemaphorePermit, Counted),
    ) -> Self {
        let waiter = Waiter {
            answer,
            since: Instant::now(),
            _held: held,
        };
        Self {
            message,
            bytes,
            waiter,
        }
    }
}

/// Batches as they leave the queue: at most 1,000 messages and 4 MiB each, never waiting for more.
#[derive(Debug)]
pub(super) struct Gather {
    queue: mpsc::Receiver<Entry>,
    // The one that did not fit into the last batch.
    held_back: Option<Entry>,
}

impl Gather {
    pub(super) const fn new(queue: mpsc::Receiver<Entry>) -> Self {
        Self {
            queue,
            held_back: None,
        }
    }

    /// Takes no more messages; those in the queue still come.
    pub(super) fn close(&mut self) {
        self.queue.close();
    }

    /// What has gathered, at least one message; none at the end. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Vec<Entry>> {
        let first = match self.held_back.take() {
            Some(entry) => entry,
            None => self.queue.recv().await?,
        };
        let mut bytes = first.bytes;
        let mut entries = vec![first];
        while entries.len() < BATCH_ITEMS_MAX {
            let Ok(entry) = self.queue.try_recv() else {
                break;
            };
            if bytes + entry.bytes > BATCH_BYTES_MAX {
                self.held_back = Some(entry);
                break;
            }
            bytes += entry.bytes;
            entries.push(entry);
        }
        Some(entries)
    }
}

/// A batch under its numbers, kept until it is answered.
#[derive(Debug)]
pub(super) struct Batch {
    frame: PublishStreamRequest,
    waiters: Vec<Waiter>,
    // How often it was sent: an answer `duplicate` to a second sending is about the first.
    sent: u32,
}

impl Batch {
    pub(super) fn new(
        number: u64,
        first_sequence: u64,
        producer_id: &str,
        target: &Target,
        entries: Vec<Entry>,
    ) -> Self {
        let mut messages = Vec::with_capacity(entries.len());
        let mut waiters = Vec::with_capacity(entries.len());
        for entry in entries {
            messages.push(entry.message);
            waiters.push(entry.waiter);
        }
        let (stream, group) = match target {
            Target::Stream(name) => (name.clone(), String::new()),
            Target::Group(name) => (String::new(), name.clone()),
        };
        let publish = PublishBatchRequest {
            stream,
            group,
            messages,
            producer_id: producer_id.to_owned(),
            first_sequence,
        };
        let frame = PublishStreamRequest {
            batch: number,
            publish: Some(publish),
        };
        Self {
            frame,
            waiters,
            sent: 0,
        }
    }

    pub(super) const fn number(&self) -> u64 {
        self.frame.batch
    }

    /// The frame to send, the same at each sending.
    pub(super) fn send(&mut self) -> PublishStreamRequest {
        self.sent += 1;
        self.frame.clone()
    }

    /// Since when its first message waits.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.waiters.first().map(|waiter| waiter.since)
    }

    /// Whether its first message waits for longer than `patience`.
    pub(super) fn is_overdue(&self, patience: Duration) -> bool {
        self.oldest()
            .is_some_and(|since| since.elapsed() >= patience)
    }

    /// Answers every message by its outcome; a message without one is unknown.
    pub(super) fn resolve(self, outcomes: Vec<PublishOutcome>) {
        let was_resent = self.sent > 1;
        let messages = self.frame.publish.unwrap_or_default().messages;
        let mut outcomes = outcomes.into_iter();
        for (waiter, message) in self.waiters.into_iter().zip(messages) {
            let Some(outcome) = outcomes.next() else {
                let missing = "the server answered for fewer messages than were sent";
                let fault = Fault::new(Reason::OutcomeUnknown, missing);
                waiter.answer(Err(PublishError::Unknown(fault)));
                continue;
            };
            waiter.answer(answer_of(message, outcome, was_resent));
        }
    }

    /// Answers every message with the same error.
    pub(super) fn fail(self, error: &PublishError) {
        for waiter in self.waiters {
            waiter.answer(Err(error.clone()));
        }
    }
}

/// What one outcome says to the caller.
fn answer_of(
    message: Message,
    outcome: PublishOutcome,
    was_resent: bool,
) -> Result<Receipt, PublishError> {
    if let Some(problem) = outcome.error {
        return Err(PublishError::Refused(Fault::from(problem)));
    }
    // Without an idempotency key only our own first sending can have stored it before.
    let is_own = was_resent && message.idempotency_key.is_empty();
    let message_id = if outcome.message_id.is_empty() {
        message.message_id
    } else {
        outcome.message_id
    };
    Ok(Receipt {
        message_id,
        duplicate: outcome.duplicate && !is_own,
    })
}
