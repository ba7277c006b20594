//! One attached connection of a consumer: its credit, what it holds, what is on the way to it.
//!
//! The frame queue is not bounded by a number: deliveries are bounded by credit and by bytes,
//! answers by the frames that the reader takes in, which waits while the queue is long.

use std::{
    collections::{HashMap, HashSet},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
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

use crate::delivery::Holder;

/// Bytes on the way to one connection beyond which it gets no more deliveries.
const QUEUED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A frame on its way, or the end of the stream.
type Frame = Result<wire::ConsumeResponse, Status>;

/// A frame and its bytes, which are counted once.
type Counted = (usize, Frame);

/// A delivery that a connection holds.
#[derive(Debug, Clone)]
pub struct Held {
    /// Its lease.
    pub lease: Lease,
    /// When the lease ends unless extended.
    pub deadline: Instant,
    /// What heartbeats said of it.
    pub told: Told,
}

/// A delivery as it is kept under its token.
#[derive(Debug)]
struct Kept {
    /// Its lease; none once the client has sent an outcome, which is not judged yet. The lease is
    /// moved out then: a copy of its texts for each message is what a gateway has no time for.
    lease: Option<Lease>,
    deadline: Instant,
    told: Told,
}

/// What a connection holds, and what it may still be given.
#[derive(Debug, Default)]
struct Holding {
    by_token: HashMap<String, Kept, RandomState>,
    /// No lease ends before this time; none where nothing is held.
    check_at: Option<Instant>,
    /// Deliveries granted and neither read nor asked for yet.
    credit: u32,
    /// Deliveries that reads under way may bring.
    reserved: u32,
    /// It gave a message back: it gets none until it grants credit again.
    is_passed_over: bool,
    /// It gets no more: the gateway goes away.
    is_withdrawn: bool,
}

impl Holding {
    /// Keeps a delivery; true when nobody watches its deadline yet.
    fn keep(&mut self, token: String, lease: Lease, lease_ms: u64) -> bool {
        let deadline = Instant::now() + Duration::from_millis(lease_ms);
        let kept = Kept {
            lease: Some(lease),
            deadline,
            told: Told::Nothing,
        };
        self.by_token.insert(token, kept);
        let is_first = self.check_at.is_none();
        self.check_at = Some(self.check_at.map_or(deadline, |at| at.min(deadline)));
        is_first
    }
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
    pub consumer: Arc<str>,
    /// Its session.
    pub session: Arc<str>,
    /// Number of this connection.
    pub attach: u64,
    /// Its sorted capabilities.
    pub capabilities: Arc<[String]>,
    /// Most deliveries it may hold.
    pub capacity: u32,
    /// How many it works on at once.
    pub concurrency: u32,
    held: Mutex<Holding>,
    ended: AtomicBool,
    /// Whether it ended by no wish of its client: it may come back to what it holds.
    lost: AtomicBool,
    frames: mpsc::UnboundedSender<Counted>,
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
    receiver: mpsc::UnboundedReceiver<Counted>,
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
            consumer: member.consumer.into(),
            session: member.session.into(),
            attach: member.attach,
            capabilities: member.capabilities.into(),
            capacity: member.capacity,
            concurrency: member.concurrency,
            held: Mutex::default(),
            ended: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            frames,
            queue: queue.clone(),
            changed: Notify::new(),
        };
        (Arc::new(attached), Frames { receiver, queue })
    }

    /// The consumer as the holder of what it is given.
    #[must_use]
    pub fn holder(&self) -> Holder<'_> {
        Holder {
            consumer: &self.consumer,
            session: &self.session,
            attach: self.attach,
        }
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
        let held = self.held.lock();
        if held.is_passed_over || held.is_withdrawn {
            0
        } else {
            held.credit
        }
    }

    /// Grants credit, up to the capacity less what is held or on the way.
    pub fn grant(&self, messages: u32) {
        let mut held = self.held.lock();
        let count = u32::try_from(held.by_token.len()).unwrap_or(u32::MAX);
        let most = self
            .capacity
            .saturating_sub(count)
            .saturating_sub(held.reserved);
        held.credit = held.credit.saturating_add(messages).min(most);
        held.is_passed_over = false;
    }

    /// Passes the consumer over until it grants credit: it gave a message back, and would get the
    /// same one again at once. Clients grant credit for each release that is answered, but for none
    /// that a `revoke` asked for: whoever sends one must not pass over for it.
    pub fn pass_over(&self) {
        self.held.lock().is_passed_over = true;
    }

    /// Withdraws all credit: nothing more is fetched for it.
    pub fn withdraw(&self) {
        self.held.lock().is_withdrawn = true;
    }

    /// Sets credit aside for a read that may bring so many.
    pub fn reserve(&self, messages: u32) {
        let mut held = self.held.lock();
        held.credit = held.credit.saturating_sub(messages);
        held.reserved = held.reserved.saturating_add(messages);
    }

    /// A read is over: what was set aside and not held under is credit again.
    pub fn end_reserve(&self, left: u32) {
        let mut held = self.held.lock();
        held.reserved = held.reserved.saturating_sub(left);
        held.credit = held.credit.saturating_add(left);
    }

    /// Holds a delivery under its token, with credit that was set aside; gives the lease back when
    /// the connection has ended.
    ///
    /// # Errors
    /// The lease, for somebody else.
    pub fn hold(&self, token: &str, lease: Lease, lease_ms: u64) -> Result<(), Lease> {
        let mut held = self.held.lock();
        if self.has_ended() {
            return Err(lease);
        }
        // In this step: counted as set aside and as held, it would cut the client's next grant off.
        held.reserved = held.reserved.saturating_sub(1);
        let is_first = held.keep(token.to_owned(), lease, lease_ms);
        drop(held);
        if is_first {
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Holds again what the client kept over a lost connection. What it kept it may have begun; its
    /// next heartbeat says.
    pub fn hold_again(&self, lease: Lease, lease_ms: u64) {
        self.held.lock().keep(lease.token(), lease, lease_ms);
    }

    /// Which deliveries are held, or have an outcome on the way: lane, entry and count of each.
    #[must_use]
    pub fn holdings(&self) -> HashSet<(Arc<str>, String, u64)> {
        let held = self.held.lock();
        let of = |lease: &Lease| (lease.lane.clone(), lease.id.clone(), lease.count);
        held.by_token
            .iter()
            .filter_map(|(token, kept)| match &kept.lease {
                Some(lease) => Some(of(lease)),
                None => token.parse().ok().as_ref().map(of),
            })
            .collect()
    }

    /// Notes that the client has sent an outcome, and gives its lease out: from here on its
    /// heartbeats are late.
    #[must_use]
    pub fn settling(&self, token: &str) -> Option<Lease> {
        self.held
            .lock()
            .by_token
            .get_mut(token)
            .and_then(|kept| kept.lease.take())
    }

    /// Whether the client has sent an outcome that is not judged yet.
    #[must_use]
    pub fn is_settling(&self, token: &str) -> bool {
        self.held
            .lock()
            .by_token
            .get(token)
            .is_some_and(|kept| kept.lease.is_none())
    }

    /// Forgets a delivery that is settled or lost.
    pub fn forget(&self, token: &str) {
        self.held.lock().by_token.remove(token);
    }

    /// Forgets a delivery by its lane, entry and count, unless an outcome of it is on the way;
    /// answers its token.
    #[must_use]
    pub fn forget_entry(&self, (lane, id, count): (&str, &str, u64)) -> Option<String> {
        let mut held = self.held.lock();
        let is_it = |kept: &Kept| {
            let lease = kept.lease.as_ref();
            lease.is_some_and(|held| (&*held.lane, &*held.id, held.count) == (lane, id, count))
        };
        let token = held
            .by_token
            .iter()
            .find_map(|(token, kept)| is_it(kept).then(|| token.clone()))?;
        held.by_token.remove(&token);
        Some(token)
    }

    /// Notes a heartbeat: the lease starts anew.
    pub fn beat(&self, token: &str, told: Told, lease_ms: u64) {
        if let Some(kept) = self.held.lock().by_token.get_mut(token) {
            kept.deadline = Instant::now() + Duration::from_millis(lease_ms);
            kept.told = kept.told.max(told);
        }
    }

    /// Everything held, oldest delivery first.
    #[must_use]
    pub fn all_held(&self) -> Vec<Held> {
        let held = self.held.lock();
        let mut all: Vec<Held> = held
            .by_token
            .iter()
            .filter_map(|(token, kept)| {
                let lease = kept.lease.clone().or_else(|| token.parse().ok())?;
                Some(Held {
                    lease,
                    deadline: kept.deadline,
                    told: kept.told,
                })
            })
            .collect();
        drop(held);
        all.sort_by(|a, b| {
            (a.lease.delivered_ms, &a.lease.id).cmp(&(b.lease.delivered_ms, &b.lease.id))
        });
        all
    }

    /// When to look for leases that ended: at the first deadline, or a little before.
    #[must_use]
    pub fn check_at(&self) -> Option<Instant> {
        self.held.lock().check_at
    }

    /// Finds out anew when the first lease ends, after a look at those that did.
    pub fn checked(&self) {
        let mut held = self.held.lock();
        held.check_at = held.by_token.values().map(|kept| kept.deadline).min();
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
        drop(self.frames.send((bytes, Ok(frame))));
    }

    /// Waits until nobody takes frames any more: the client hung up.
    pub async fn closed(&self) {
        self.frames.closed().await;
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
        drop(self.frames.send((0, Err(fault.into()))));
    }

    /// Ends the stream with a fault that its client may mend by coming back, here or elsewhere:
    /// what it holds stays its own meanwhile.
    pub fn end_lost(&self, fault: Fault) {
        self.lost.store(true, Ordering::Release);
        self.end_with(fault);
    }

    /// Whether it ended as by [`Self::end_lost`].
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
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
        next.map(|next| {
            let (bytes, frame) = next?;
            if frame.is_ok() {
                self.queue.frames.fetch_sub(1, Ordering::Relaxed);
                self.queue.bytes.fetch_sub(bytes, Ordering::Relaxed);
                self.queue.drained.notify_one();
            }
            Some(frame)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consumer(capacity: u32) -> Arc<Attached> {
        let (attached, _frames) = Attached::new(Member {
            consumer: "c".into(),
            session: "s".into(),
            attach: 1,
            capabilities: Vec::new(),
            capacity,
            concurrency: 1,
        });
        attached
    }

    fn lease() -> Lease {
        Lease {
            lane: "g/p4".into(),
            id: "1-1".into(),
            count: 1,
            consumer: "c".into(),
            session: "s".into(),
            delivered_ms: 0,
            bytes: 1,
        }
    }

    #[test]
    fn credit_that_is_granted_while_the_read_that_used_it_goes_on_counts() {
        let one = consumer(1);
        one.grant(1);
        one.reserve(1);
        assert_eq!(one.room(), 0);
        assert!(one.hold("token", lease(), 1_000).is_ok());
        // Its outcome and its next credit come before the read has ended.
        one.forget("token");
        one.grant(1);
        one.end_reserve(0);
        assert_eq!(one.room(), 1);
    }

    #[test]
    fn credit_that_a_read_did_not_use_is_credit_again_and_never_more_than_the_capacity() {
        let one = consumer(3);
        one.grant(9);
        one.reserve(3);
        assert!(one.hold("token", lease(), 1_000).is_ok());
        one.end_reserve(2);
        assert_eq!(one.room(), 2);
        one.grant(9);
        assert_eq!(one.room(), 2);
    }
}
