//! One attached connection of a consumer: its credit, what it holds, what is on the way to it.
//!
//! The frame queue is not bounded by a number: deliveries are bounded by credit and by bytes, answers
//! by the frames that the reader takes in, which waits while the queue is long.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hive_protocol::{
    fault::{Fault, Reason},
    wire,
};
use hive_store::{Lease, fetch::Taker};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::{Notify, mpsc};
use tokio_stream::Stream;
use tonic::Status;

/// Bytes on the way to one connection beyond which it gets no more deliveries.
const QUEUED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A frame on its way, or the end of the stream.
type Frame = Result<wire::ConsumeResponse, Status>;

/// A delivery that a connection holds.
#[derive(Debug, Clone)]
pub struct Held {
    /// Its lease.
    pub lease: Lease,
    /// When the lease ends unless extended.
    pub deadline: Instant,
    /// What heartbeats said of it.
    pub told: Told,
    /// Whether the client has sent its outcome, which is not judged yet.
    pub settling: bool,
}

/// What heartbeats said of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    /// None covered it yet.
    Nothing,
    /// It is held, and no handler has begun it.
    Held,
    /// A handler has begun it.
    Begun,
}

/// One attached connection.
#[derive(Debug)]
pub struct Attached {
    /// Id of the consumer.
    pub consumer: String,
    /// Its session.
    pub session: String,
    /// Number of this connection.
    pub attach: u64,
    /// Its sorted capabilities.
    pub capabilities: Vec<String>,
    /// Most deliveries it may hold.
    pub capacity: u32,
    /// How many it works on at once.
    pub concurrency: u32,
    credit: AtomicU32,
    held: Mutex<HashMap<(String, String), Held>>,
    ended: AtomicBool,
    frames: mpsc::UnboundedSender<Frame>,
    queue: Arc<Queue>,
    /// Rings when the set of held deliveries changed, for the timer of deadlines.
    pub changed: Notify,
}

/// What is on the way to a connection.
#[derive(Debug, Default)]
struct Queue {
    frames: AtomicUsize,
    bytes: AtomicUsize,
    drained: Notify,
}

/// The frames of a connection, in order.
#[derive(Debug)]
pub struct Frames {
    receiver: mpsc::UnboundedReceiver<Frame>,
    queue: Arc<Queue>,
}

/// Who attaches, as the join decided.
#[derive(Debug)]
pub struct Member {
    /// Id of the consumer.
    pub consumer: String,
    /// Its session.
    pub session: String,
    /// Number of this connection.
    pub attach: u64,
    /// Its sorted capabilities.
    pub capabilities: Vec<String>,
    /// Most deliveries it may hold.
    pub capacity: u32,
    /// How many it works on at once.
    pub concurrency: u32,
}

impl Attached {
    /// A connection without credit, and the stream of its frames.
    #[must_use]
    pub fn new(member: Member) -> (Arc<Self>, Frames) {
        let (frames, receiver) = mpsc::unbounded_channel();
        let queue = Arc::new(Queue::default());
        let attached = Self {
            consumer: member.consumer,
            session: member.session,
            attach: member.attach,
            capabilities: member.capabilities,
            capacity: member.capacity,
            concurrency: member.concurrency,
            credit: AtomicU32::new(0),
            held: Mutex::default(),
            ended: AtomicBool::new(false),
            frames,
            queue: queue.clone(),
            changed: Notify::new(),
        };
        (Arc::new(attached), Frames { receiver, queue })
    }

    /// The consumer as the store takes it.
    #[must_use]
    pub fn taker(&self) -> Taker {
        Taker {
            consumer: self.consumer.clone(),
            session: self.session.clone(),
            attach: self.attach,
            capabilities: self.capabilities.clone(),
        }
    }

    /// Deliveries that it can take now.
    #[must_use]
    pub fn room(&self) -> u32 {
        if self.has_ended() || self.queue.bytes.load(Ordering::Relaxed) > QUEUED_BYTES_MAX {
            return 0;
        }
        self.credit.load(Ordering::Acquire)
    }

    /// Grants credit, up to the capacity less what is held.
    pub fn grant(&self, messages: u32) {
        let held = u32::try_from(self.held.lock().len()).unwrap_or(u32::MAX);
        let most = self.capacity.saturating_sub(held);
        let update = |credit: u32| credit.saturating_add(messages).min(most);
        self.credit
            .update(Ordering::AcqRel, Ordering::Acquire, update);
    }

    /// Withdraws all credit: nothing more is fetched for it.
    pub fn withdraw(&self) {
        self.credit.store(0, Ordering::Release);
    }

    /// Holds a delivery against one credit; false when the connection has ended.
    #[must_use]
    pub fn hold(&self, lease: Lease, lease_ms: u64) -> bool {
        let mut held = self.held.lock();
        if self.has_ended() {
            return false;
        }
        let take = |credit: u32| credit.saturating_sub(1);
        self.credit
            .update(Ordering::AcqRel, Ordering::Acquire, take);
        let deadline = Instant::now() + Duration::from_millis(lease_ms);
        let key = (lease.lane.clone(), lease.id.clone());
        held.insert(
            key,
            Held {
                lease,
                deadline,
                told: Told::Nothing,
                settling: false,
            },
        );
        drop(held);
        self.changed.notify_one();
        true
    }

    /// Holds again what the client kept over a lost connection.
    pub fn hold_again(&self, lease: Lease, lease_ms: u64) {
        let deadline = Instant::now() + Duration::from_millis(lease_ms);
        let key = (lease.lane.clone(), lease.id.clone());
        // What it kept it may have begun; its next heartbeat says.
        self.held.lock().insert(
            key,
            Held {
                lease,
                deadline,
                told: Told::Nothing,
                settling: false,
            },
        );
    }

    /// Whether this very delivery is held.
    #[must_use]
    pub fn holds(&self, lease: &Lease) -> bool {
        let key = (lease.lane.clone(), lease.id.clone());
        self.held
            .lock()
            .get(&key)
            .is_some_and(|held| held.lease.count == lease.count)
    }

    /// Notes that the client has sent an outcome: from here on its heartbeats are late.
    pub fn settling(&self, lease: &Lease) {
        let key = (lease.lane.clone(), lease.id.clone());
        if let Some(held) = self.held.lock().get_mut(&key) {
            held.settling = true;
        }
    }

    /// Whether the client has sent an outcome that is not judged yet.
    #[must_use]
    pub fn is_settling(&self, lease: &Lease) -> bool {
        let key = (lease.lane.clone(), lease.id.clone());
        self.held.lock().get(&key).is_some_and(|held| held.settling)
    }

    /// Forgets a delivery that is settled or lost.
    pub fn forget(&self, lease: &Lease) {
        let key = (lease.lane.clone(), lease.id.clone());
        let mut held = self.held.lock();
        if held
            .get(&key)
            .is_some_and(|held| held.lease.count == lease.count)
        {
            held.remove(&key);
        }
    }

    /// Notes a heartbeat: leases start anew, and who was begun.
    pub fn beat(&self, lease: &Lease, told: Told, lease_ms: u64) {
        let key = (lease.lane.clone(), lease.id.clone());
        if let Some(held) = self.held.lock().get_mut(&key) {
            held.deadline = Instant::now() + Duration::from_millis(lease_ms);
            held.told = held.told.max(told);
        }
    }

    /// Everything held, oldest delivery first.
    #[must_use]
    pub fn all_held(&self) -> Vec<Held> {
        let mut all: Vec<Held> = self.held.lock().values().cloned().collect();
        all.sort_by(|a, b| {
            (a.lease.delivered_ms, &a.lease.id).cmp(&(b.lease.delivered_ms, &b.lease.id))
        });
        all
    }

    /// When the first lease ends.
    #[must_use]
    pub fn first_deadline(&self) -> Option<Instant> {
        self.held.lock().values().map(|held| held.deadline).min()
    }

    /// Sends leased messages.
    pub fn send_deliveries(&self, deliveries: Vec<wire::Delivery>) {
        self.send(wire::consume_response::Frame::Deliveries(
            wire::Deliveries { deliveries },
        ));
    }

    /// Sends a frame; nothing when the connection has ended.
    pub fn send(&self, frame: wire::consume_response::Frame) {
        let frame = wire::ConsumeResponse { frame: Some(frame) };
        let bytes = frame.encoded_len();
        self.queue.frames.fetch_add(1, Ordering::Relaxed);
        self.queue.bytes.fetch_add(bytes, Ordering::Relaxed);
        // The receiver is gone when the client is: its leases are given up elsewhere.
        drop(self.frames.send(Ok(frame)));
    }

    /// Frames that wait to be sent.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.frames.load(Ordering::Relaxed)
    }

    /// Waits until fewer than `most` frames wait to be sent.
    pub async fn queue_below(&self, most: usize) {
        while self.queued() >= most && !self.has_ended() {
            self.queue.drained.notified().await;
        }
    }

    /// Whether the connection is over.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Marks the connection as over: it takes nothing more.
    pub fn end(&self) {
        // Under the lock of what is held: no delivery slips in behind the give-up.
        let held = self.held.lock();
        self.ended.store(true, Ordering::Release);
        drop(held);
        self.queue.drained.notify_one();
        self.changed.notify_one();
    }

    /// Ends the stream with a fault.
    pub fn end_with(&self, fault: Fault) {
        self.end();
        drop(self.frames.send(Err(fault.into())));
    }

    /// Ends the stream: a newer session or connection has the name.
    pub fn fence(&self) {
        self.end_with(Fault::new(
            Reason::Fenced,
            format!("consumer `{}` joined again elsewhere", self.consumer),
        ));
    }

    /// Ends the stream: the group is gone.
    pub fn end_group_gone(&self) {
        self.end_with(Fault::new(Reason::GroupGone, "the group was deleted"));
    }
}

impl Stream for Frames {
    type Item = Frame;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Frame>> {
        let next = self.receiver.poll_recv(context);
        if let Poll::Ready(Some(Ok(frame))) = &next {
            self.queue.frames.fetch_sub(1, Ordering::Relaxed);
            self.queue
                .bytes
                .fetch_sub(frame.encoded_len(), Ordering::Relaxed);
            self.queue.drained.notify_one();
        }
        next
    }
}
