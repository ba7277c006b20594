//! Publishes messages in batches over one stream, and again after a lost connection without
//! publishing twice.
//!
//! Each process mints a producer id and numbers its messages from 1. The server keeps the last
//! number it stored, so what is sent again is stored once. There are no timers: a message that
//! finds the wire idle leaves at once, and those that come while batches are in flight gather into
//! the next one. What this never does: give a number to two messages, or send an earlier number
//! after a later one except when it sends all unanswered batches again. Read next: `driver`.

mod batch;
mod driver;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hive_protocol::{
    fault::Fault,
    limits::{BATCH_BYTES_MAX, COUNT_MAX},
    wire::Message,
};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::{batch::Entry, driver::Driver};
use crate::client::Client;

/// Messages that may be unanswered unless the builder says otherwise.
const WINDOW_DEFAULT: usize = 4_096;
/// Largest window: a bound on what one publisher holds in memory.
const WINDOW_MAX: usize = 1 << 20;
/// How long a message may stay unanswered unless the builder says otherwise.
const PATIENCE_DEFAULT: Duration = Duration::from_secs(60);

/// Where a publisher's messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// To every group of this stream.
    Stream(String),
    /// To this group alone.
    Group(String),
}

impl Target {
    /// Every group of this stream.
    pub fn stream(name: impl Into<String>) -> Self {
        Self::Stream(name.into())
    }

    /// This group alone.
    pub fn group(name: impl Into<String>) -> Self {
        Self::Group(name.into())
    }
}

/// The server has the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Id of the stored message; the first one's where `duplicate`.
    pub message_id: String,
    /// True when another publish with the same idempotency key stored it before.
    pub duplicate: bool,
}

/// Why a message has no receipt.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// The server refused it and stored nothing of it. Publish it again when the fault is
    /// retryable, after its `retry_after`: it goes out under a new number.
    #[error("{0}")]
    Refused(Fault),
    /// It is larger than a batch may be; nothing was sent.
    #[error("message of `{bytes}` bytes must be at most 4194304 bytes")]
    TooLarge {
        /// Its encoded size.
        bytes: usize,
    },
    /// Nobody answered in time, or the stream was refused after it had been sent: it may be stored
    /// or not. Only an idempotency key makes it safe to publish it again.
    #[error("outcome of the publish is unknown: {0}")]
    Unknown(Fault),
    /// The publisher was closed.
    #[error("the publisher is closed")]
    Closed,
}

impl PublishError {
    /// How long the server asks to wait before the message is published again.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(fault) => fault.retry_after,
            Self::TooLarge { .. } | Self::Unknown(_) | Self::Closed => None,
        }
    }

    /// Whether nothing is stored and publishing it again later may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(fault) => fault.is_retryable(),
            Self::TooLarge { .. } | Self::Unknown(_) | Self::Closed => false,
        }
    }
}

/// A message on its way: resolves to its receipt. Dropping it does not take the message back.
#[derive(Debug)]
#[must_use = "the receipt says whether the message was accepted"]
pub struct Pending {
    answer: oneshot::Receiver<Result<Receipt, PublishError>>,
}

impl Future for Pending {
    type Output = Result<Receipt, PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.answer).poll(cx));
        Poll::Ready(answer.unwrap_or(Err(PublishError::Closed)))
    }
}

/// Settings of a [`Publisher`].
#[derive(Debug, Clone)]
#[must_use]
pub struct PublisherBuilder {
    client: Client,
    target: Target,
    window: usize,
    patience: Duration,
}

impl PublisherBuilder {
    /// Most unanswered messages, 1 to 1,048,576; `publish` waits for room. Default 4,096.
    pub fn window(mut self, messages: usize) -> Self {
        self.window = messages.clamp(1, WINDOW_MAX);
        self
    }

    /// How long a message may stay unanswered before its publish ends with
    /// [`PublishError::Unknown`]. Default 60 s.
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Builds the publisher. Nothing is connected before the first message. Needs a tokio runtime
    /// around it.
    #[must_use]
    pub fn build(self) -> Publisher {
        let (entries, queue) = mpsc::channel(self.window);
        let (unanswered, watched) = watch::channel(0);
        let closing = CancellationToken::new();
        let producer_id = Uuid::now_v7().to_string();
        let driver = Driver::new(self.client, self.target, producer_id.clone(), self.patience);
        let mut tasks = JoinSet::new();
        tasks.spawn(driver.run(queue, closing.clone()));
        Publisher {
            shared: Arc::new(Shared {
                entries,
                room: Arc::new(Semaphore::new(self.window)),
                unanswered: Arc::new(unanswered),
                watched,
                closing,
                producer_id,
                tasks: Mutex::new(tasks),
            }),
        }
    }
}

/// Publishes to one target. Cheap to clone; clones share the stream and the window.
///
/// Messages leave in the order of their calls. When the last clone is dropped, what is unanswered
/// is dropped with it: call [`Publisher::flush`] or [`Publisher::close`] first.
#[derive(Debug, Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    entries: mpsc::Sender<Entry>,
    room: Arc<Semaphore>,
    // Counts what was taken and not answered.
    unanswered: Arc<watch::Sender<u64>>,
    watched: watch::Receiver<u64>,
    closing: CancellationToken,
    producer_id: String,
    // Aborts the driver when the last clone goes.
    tasks: Mutex<JoinSet<()>>,
}

impl Publisher {
    /// A publisher with the default settings. Needs a tokio runtime around it.
    #[must_use]
    pub fn new(client: &Client, target: Target) -> Self {
        Self::builder(client, target).build()
    }

    /// Settings for a publisher to this target.
    pub fn builder(client: &Client, target: Target) -> PublisherBuilder {
        PublisherBuilder {
            client: client.clone(),
            target,
            window: WINDOW_DEFAULT,
            patience: PATIENCE_DEFAULT,
        }
    }

    /// The id under which this publisher numbers its messages.
    #[must_use]
    pub fn producer_id(&self) -> &str {
        &self.shared.producer_id
    }

    /// Publishes one message and waits for its receipt. A message without an id gets one.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn publish(&self, message: Message) -> Result<Receipt, PublishError> {
        self.enqueue(message).await?.await
    }

    /// Hands one message over, waiting for room in the window only; the answer comes later.
    ///
    /// # Errors
    /// When the message is too large or the publisher is closed.
    pub async fn enqueue(&self, mut message: Message) -> Result<Pending, PublishError> {
        if message.message_id.is_empty() {
            message.message_id = Uuid::now_v7().to_string();
        }
        let bytes = message.encoded_len();
        // The frame around it needs a few bytes as well: the server's limit is on the messages.
        if bytes > BATCH_BYTES_MAX {
            return Err(PublishError::TooLarge { bytes });
        }
        if self.shared.closing.is_cancelled() {
            return Err(PublishError::Closed);
        }
        let room = Arc::clone(&self.shared.room).acquire_owned().await;
        let room = room.map_err(|_closed| PublishError::Closed)?;
        let (answer, pending) = oneshot::channel();
        let counted = batch::Counted::new(Arc::clone(&self.shared.unanswered));
        let entry = Entry::new(message, bytes, answer, (room, counted));
        let sent = self.shared.entries.send(entry).await;
        sent.map_err(|_closed| PublishError::Closed)?;
        Ok(Pending { answer: pending })
    }

    /// Publishes all of them, in order, and waits for every answer; one per message, in order.
    pub async fn publish_all(
        &self,
        messages: impl IntoIterator<Item = Message>,
    ) -> Vec<Result<Receipt, PublishError>> {
        let mut pending = Vec::new();
        for message in messages {
            pending.push(self.enqueue(message).await);
        }
        let mut answers = Vec::with_capacity(pending.len());
        for message in pending {
            answers.push(match message {
                Ok(pending) => pending.await,
                Err(error) => Err(error),
            });
        }
        answers
    }

    /// Waits until nothing is unanswered. It says nothing about the answers.
    pub async fn flush(&self) {
        let mut watched = self.shared.watched.clone();
        // The sender lives in `shared`, so waiting ends only with the count.
        drop(watched.wait_for(|unanswered| *unanswered == 0).await);
    }

    /// Takes no more messages, waits for the answers of those it has, and ends the stream. Each
    /// message is answered within the builder's patience, so this ends too.
    pub async fn close(self) {
        self.shared.closing.cancel();
        self.shared.room.close();
        let mut tasks = std::mem::take(&mut *self.shared.tasks.lock());
        while tasks.join_next().await.is_some() {}
    }
}

/// The number after this one.
const fn after(sequence: u64, count: u64) -> u64 {
    // The server's numbers are exact below 2^53: at a million a second that is 285 years.
    assert!(
        sequence < COUNT_MAX,
        "a producer never numbers 2^53 messages"
    );
    sequence + count
}
