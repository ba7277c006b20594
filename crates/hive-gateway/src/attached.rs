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

/// How long a client may take to answer a revoke. Releases that come later are its own.
const REVOKED_WITHIN: Duration = Duration::from_secs(5);

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
    /// When a handler began it, as far as heartbeats say, or last reported progress.
    progressed: Instant,
    /// A revoke asked for it, and its release is not judged yet.
    is_returning: bool,
}

/// What a connection holds, and what it may still be given.
#[derive(Debug)]
struct Holding {
    by_token: HashMap<String, Kept, RandomState>,
    /// Since when nothing is held; of no meaning while something is.
    empty_since: Instant,
    /// No lease ends and nothing hangs before this time; none where nothing is held.
    check_at: Option<Instant>,
    /// Deliveries granted and neither read nor asked for yet.
    credit: u32,
    /// Deliveries that reads under way may bring.
    reserved: u32,
    /// Of the reserved, what a revoke took: not credit again where a read does not bring it.
    owed: u32,
    /// Places that revokes took: each finished delivery gives one back.
    lowered: u32,
    /// Releases that revokes asked for and that were not read yet, and how long they are waited
    /// for.
    revoked: Option<(u32, Instant)>,
    /// Deliveries whose release a revoke asked for, and which is not judged yet.
    returning: u32,
    /// It gave a message back, or all its handlers hang: it gets none until it grants credit again.
    is_passed_over: bool,
    /// How many deliveries were taken away as hung since it granted credit: as many of its handlers
    /// are not free.
    hung: u32,
    /// It gets no more: the gateway goes away, or fewer consumers are wanted.
    is_withdrawn: bool,
    /// How many deliveries more it takes of what others give back, and until when that holds.
    share: Option<(u32, Instant)>,
}

impl Default for Holding {
    fn default() -> Self {
        Self {
            by_token: HashMap::default(),
            empty_since: Instant::now(),
            check_at: None,
            credit: 0,
            reserved: 0,
            owed: 0,
            lowered: 0,
            revoked: None,
            returning: 0,
            is_passed_over: false,
            hung: 0,
            is_withdrawn: false,
            share: None,
        }
    }
}

impl Holding {
    fn count(&self) -> u32 {
        u32::try_from(self.by_token.len()).unwrap_or(u32::MAX)
    }

    /// Deliveries that no handler has begun, as far as heartbeats say, and that no revoke has
    /// called back yet.
    fn unbegun(&self) -> u32 {
        let kept = self.by_token.values();
        let unbegun = kept.filter(|kept| kept.told != Told::Begun && !kept.is_returning);
        u32::try_from(unbegun.count()).unwrap_or(u32::MAX)
    }

    /// Nothing is held, and nothing can come: no delivery would ever finish and earn credit.
    fn is_idle(&self) -> bool {
        self.by_token.is_empty() && self.reserved == 0 && self.credit == 0
    }

    /// Forgets a delivery. What is finished gives a place back that a revoke took.
    fn remove(&mut self, token: &str) {
        let Some(kept) = self.by_token.remove(token) else {
            return;
        };
        if kept.is_returning {
            self.returning = self.returning.saturating_sub(1);
        } else {
            self.lowered = self.lowered.saturating_sub(1);
        }
        if self.by_token.is_empty() {
            self.empty_since = Instant::now();
        }
    }

    /// Keeps a delivery; true when nobody watches its deadline yet.
    fn keep(&mut self, token: String, lease: Lease, lease_ms: u64) -> bool {
        let now = Instant::now();
        let deadline = now + Duration::from_millis(lease_ms);
        let kept = Kept {
            lease: Some(lease),
            deadline,
            told: Told::Nothing,
            progressed: now,
            is_returning: false,
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
    /// Whether it takes offers of other groups' work.
    pub accepts_offers: bool,
    /// Name of its pod as `namespace/name`; empty outside Kubernetes.
    pub pod: Box<str>,
    /// How long a begun delivery may go without a word of progress; none for ever.
    progress_timeout: Option<Duration>,
    held: Mutex<Holding>,
    /// Whether it was told to finish and go for good.
    draining: AtomicBool,
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
    /// Whether it takes offers of other groups' work.
    pub accepts_offers: bool,
    /// Name of its pod as `namespace/name`; empty outside Kubernetes.
    pub pod: String,
    /// How long a begun delivery may go without a word of progress, in ms; 0 for ever.
    pub progress_timeout_ms: u64,
}

/// What a connection holds, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Deliveries it holds.
    pub held: u32,
    /// Of them, those that a handler has begun, and at least as many as it works on at once.
    pub begun: u32,
    /// How long it has held nothing; zero while it holds something.
    pub idle: Duration,
    /// Of those held, how many a revoke asked for that are not given back yet.
    pub leaving: u32,
    /// How many it is meant to get of what others give back, and has not got yet.
    pub coming: u32,
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
            accepts_offers: member.accepts_offers,
            pod: member.pod.into(),
            progress_timeout: (member.progress_timeout_ms > 0)
                .then(|| Duration::from_millis(member.progress_timeout_ms)),
            held: Mutex::default(),
            draining: AtomicBool::new(false),
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
        let share = held.share.filter(|(_, end)| *end > Instant::now());
        match share {
            _ if held.is_passed_over || held.is_withdrawn => 0,
            Some((left, _)) => held.credit.min(left),
            None => held.credit,
        }
    }

    /// For a while it takes no more than so many deliveries: others are meant to get the rest.
    pub fn limit_to_share(&self, messages: u32, within: Duration) {
        self.held.lock().share = Some((messages, Instant::now() + within));
    }

    /// Grants credit, up to the capacity less what is held or on the way. Where revokes took all
    /// places and nothing is held, the grant is the one with which a client goes on: it does not
    /// come twice, and counts.
    pub fn grant(&self, messages: u32) {
        let mut held = self.held.lock();
        if messages > 0 && held.is_idle() {
            held.lowered = held.lowered.min(self.capacity.saturating_sub(1));
        }
        // What goes back because of a revoke is counted once, among the places that it took.
        let most = self
            .capacity
            .saturating_sub(held.count().saturating_sub(held.returning))
            .saturating_sub(held.reserved)
            .saturating_sub(held.lowered);
        held.credit = held.credit.saturating_add(messages).min(most);
        held.is_passed_over = false;
        held.hung = 0;
    }

    /// Passes the consumer over until it grants credit: whatever it has left, it gets nothing.
    pub fn pass_over(&self) {
        self.held.lock().is_passed_over = true;
    }

    /// So many deliveries are about to be taken away as hung. Where every handler hangs, passes the
    /// consumer over until it grants credit. Another one keeps what it has granted: it may have
    /// nothing left to grant.
    pub fn expect_hung(&self, messages: u32) {
        let mut held = self.held.lock();
        if held.hung.saturating_add(messages) >= self.concurrency.max(1) {
            held.is_passed_over = true;
        }
    }

    /// Forgets a delivery whose handler hangs.
    pub fn forget_hung(&self, token: &str) {
        let mut held = self.held.lock();
        held.hung = held.hung.saturating_add(1);
        held.remove(token);
    }

    /// Notes that the client gives a delivery back at once. Where a revoke asked for it, its place
    /// goes along; else the consumer is passed over until it grants credit: it would get the same
    /// message back. Clients grant credit for each release that is answered, but for none that a
    /// revoke asked for: passed over for those, one with credit left would wait for ever. What a
    /// handler has begun no revoke asks for.
    pub fn gives_back(&self, token: &str) {
        let mut held = self.held.lock();
        let now = Instant::now();
        let asked = held.revoked.filter(|(left, end)| *left > 0 && *end > now);
        let Some((left, end)) = asked else {
            held.revoked = None;
            held.is_passed_over = true;
            return;
        };
        let Some(kept) = held.by_token.get_mut(token) else {
            return;
        };
        if kept.told == Told::Begun {
            held.is_passed_over = true;
            return;
        }
        if !std::mem::replace(&mut kept.is_returning, true) {
            held.returning = held.returning.saturating_add(1);
            held.lowered = held.lowered.saturating_add(1);
            // What was begun meanwhile does not come back: nothing is waited for in its place.
            held.revoked = Some(((left - 1).min(held.unbegun()), end));
        }
    }

    /// Takes so many credits away and asks for as many deliveries back that no handler has begun.
    /// The window is lowered in this step, before anything comes back, so that what comes back goes
    /// to others; it grows back by one with each finished delivery. One place stays where nothing
    /// is held: with none, nothing would ever finish.
    pub fn revoke(&self, messages: u32) {
        let mut held = self.held.lock();
        let is_empty = held.by_token.is_empty() && held.reserved == 0;
        let at_hand = held.credit.saturating_sub(u32::from(is_empty));
        let from_credit = at_hand.min(messages);
        held.credit -= from_credit;
        held.lowered = held.lowered.saturating_add(from_credit);
        // A read under way may bring the rest; what it does not bring is not credit again.
        let under_way = held.reserved.saturating_sub(held.owed);
        held.owed = (held.owed).saturating_add(under_way.min(messages - from_credit));
        let now = Instant::now();
        let before = held.revoked.filter(|(_, end)| *end > now);
        let asked = before.map_or(0, |(left, _)| left).saturating_add(messages);
        held.revoked = Some((asked.min(held.unbegun()), now + REVOKED_WITHIN));
        drop(held);
        self.send(wire::consume_response::Frame::Revoke(wire::Revoke {
            messages,
        }));
    }

    /// Marks the consumer as one that goes for good: nothing more is fetched for it. True where it
    /// was not marked before.
    pub fn begin_drain(&self) -> bool {
        self.withdraw();
        !self.draining.swap(true, Ordering::AcqRel)
    }

    /// Whether it was told to finish and go for good.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Tells the client to finish what it has begun, give the rest back and go. The stream stays
    /// open for as long as that takes.
    pub fn send_drain(&self) {
        self.send(wire::consume_response::Frame::Drain(wire::Drain {
            deadline: None,
            reason: wire::DrainReason::ScaleDown.into(),
        }));
    }

    /// What it holds, in numbers.
    #[must_use]
    pub fn load(&self) -> Load {
        let held = self.held.lock();
        let count = held.count();
        let begun = held.by_token.values();
        let begun = begun.filter(|kept| kept.told == Told::Begun).count();
        let begun = u32::try_from(begun).unwrap_or(u32::MAX);
        let now = Instant::now();
        let asked = held.revoked.filter(|(_, end)| *end > now);
        let asked = asked.map_or(0, |(left, _)| left);
        let coming = held.share.filter(|(_, end)| *end > now);
        let idle = if count == 0 {
            held.empty_since.elapsed()
        } else {
            Duration::ZERO
        };
        Load {
            held: count,
            // Heartbeats come late: what it works on by now is among the oldest.
            begun: begun.max(self.concurrency.max(1).min(count)),
            idle,
            leaving: asked.saturating_add(held.returning).min(count),
            coming: coming.map_or(0, |(left, _)| left),
        }
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
        if let Some((left, _)) = &mut held.share {
            *left = left.saturating_sub(messages);
        }
    }

    /// A read is over: what was set aside and not held under is credit again.
    pub fn end_reserve(&self, left: u32) {
        let mut held = self.held.lock();
        held.reserved = held.reserved.saturating_sub(left);
        let taken = left.min(held.owed);
        held.lowered = held.lowered.saturating_add(taken);
        held.credit = held.credit.saturating_add(left - taken);
        if let Some((share, _)) = &mut held.share {
            *share = share.saturating_add(left - taken);
        }
        held.owed = (held.owed - taken).min(held.reserved);
        if taken > 0 && held.is_idle() {
            held.lowered = held.lowered.saturating_sub(1);
            held.credit = 1;
        }
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
        held.owed = held.owed.min(held.reserved);
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
        self.held.lock().remove(token);
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
        held.remove(&token);
        Some(token)
    }

    /// Notes a heartbeat: the lease starts anew. Where it says that a handler has begun, the time
    /// begins in which progress is to be reported.
    pub fn beat(&self, token: &str, told: Told, lease_ms: u64) {
        self.note(token, told, (lease_ms, false));
    }

    /// Notes a report of progress: the lease and the time to the next report start anew.
    pub fn progress(&self, token: &str, lease_ms: u64) {
        self.note(token, Told::Begun, (lease_ms, true));
    }

    fn note(&self, token: &str, told: Told, (lease_ms, is_report): (u64, bool)) {
        let mut held = self.held.lock();
        let Some(kept) = held.by_token.get_mut(token) else {
            return;
        };
        let now = Instant::now();
        kept.deadline = now + Duration::from_millis(lease_ms);
        let begins = told == Told::Begun && kept.told != Told::Begun;
        kept.told = kept.told.max(told);
        if is_report || begins {
            kept.progressed = now;
            if let Some(timeout) = self.progress_timeout {
                let at = now + timeout;
                held.check_at = Some(held.check_at.map_or(at, |first| first.min(at)));
            }
        }
    }

    /// Deliveries that a handler has begun and of which nothing was heard for the group's
    /// `progress_timeout`. Not those whose outcome is on the way.
    #[must_use]
    pub fn hung(&self, now: Instant) -> Vec<Lease> {
        let held = self.held.lock();
        let is_hung = |kept: &&Kept| self.hangs_at(kept).is_some_and(|at| at <= now);
        let hung = held.by_token.values().filter(is_hung);
        hung.filter_map(|kept| kept.lease.clone()).collect()
    }

    fn hangs_at(&self, kept: &Kept) -> Option<Instant> {
        let is_at_work = kept.told == Told::Begun && kept.lease.is_some();
        self.progress_timeout
            .filter(|_| is_at_work)
            .map(|timeout| kept.progressed + timeout)
    }

    /// How long a begun delivery may go without a word of progress; none for ever.
    #[must_use]
    pub fn progress_timeout(&self) -> Option<Duration> {
        self.progress_timeout
    }

    /// Deliveries that no handler has begun, where all that were begun are gone: nobody will begin
    /// them. 0 while a begun one is held.
    #[must_use]
    pub fn stranded(&self) -> u32 {
        let held = self.held.lock();
        let mut kept = held.by_token.values();
        if kept.any(|kept| kept.told == Told::Begun) {
            0
        } else {
            held.count()
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

    /// When to look for leases that ended and for what hangs: at the first deadline, or a little
    /// before.
    #[must_use]
    pub fn check_at(&self) -> Option<Instant> {
        self.held.lock().check_at
    }

    /// Finds out anew when the first lease ends or hangs, after a look at those that did.
    pub fn checked(&self) {
        let mut held = self.held.lock();
        let first_of = |kept: &Kept| {
            self.hangs_at(kept)
                .map_or(kept.deadline, |at| at.min(kept.deadline))
        };
        held.check_at = held.by_token.values().map(first_of).min();
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

    /// Ends the stream: the session is no member any more, or has a newer connection, which may be
    /// of a join that its client had given up. It was fenced out by nobody and may come back.
    pub fn detach(&self) {
        self.end_lost(session_lost(&self.consumer));
    }

    /// Ends the stream: another session has the name.
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

/// The fault of a consumer that is not attached (any more), though nobody took its name.
pub(crate) fn session_lost(consumer: &str) -> Fault {
    let message = format!("consumer `{consumer}` is not attached any more and may join again");
    Fault::new(Reason::SessionLost, message)
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
        let (attached, _frames) = Attached::new(member(capacity));
        attached
    }

    fn member(capacity: u32) -> Member {
        Member {
            consumer: "c".into(),
            session: "s".into(),
            attach: 1,
            capabilities: Vec::new(),
            capacity,
            concurrency: 1,
            accepts_offers: false,
            pod: String::new(),
            progress_timeout_ms: 1_000,
        }
    }

    fn lease() -> Lease {
        numbered(1)
    }

    fn numbered(number: u32) -> Lease {
        Lease {
            lane: "g/p4".into(),
            id: format!("{number}-1"),
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

    /// A consumer that holds so many, under the tokens "1" and so on, and has the rest as credit.
    fn holding(capacity: u32, count: u32) -> Arc<Attached> {
        let one = consumer(capacity);
        one.grant(capacity);
        one.reserve(count);
        for number in 1..=count {
            let token = number.to_string();
            assert!(one.hold(&token, numbered(number), 60_000).is_ok());
        }
        one.end_reserve(0);
        one
    }

    fn release(one: &Attached, token: &str) {
        one.gives_back(token);
        assert!(one.settling(token).is_some());
    }

    #[test]
    fn a_revoke_takes_places_that_come_back_with_finished_work() {
        let one = holding(10, 10);
        one.revoke(6);
        for number in 5..=10 {
            release(&one, &number.to_string());
        }
        // Read and not judged: what a client grants that knows no better is cut off.
        one.grant(6);
        assert_eq!(one.room(), 0);
        for number in 5..=10 {
            one.forget(&number.to_string());
        }
        one.grant(6);
        assert_eq!(one.room(), 0, "what came back goes to others");
        one.forget("1");
        one.grant(2);
        assert_eq!(
            one.room(),
            2,
            "one place for the finished one, and one grown back"
        );
    }

    #[test]
    fn credit_that_a_revoke_took_is_no_credit_after_a_read_that_did_not_use_it() {
        let one = consumer(10);
        one.grant(10);
        one.reserve(6);
        one.revoke(8);
        assert_eq!(
            one.room(),
            0,
            "four were credit, and four of the read are owed"
        );
        one.end_reserve(6);
        assert_eq!(one.room(), 2);
    }

    #[test]
    fn who_gives_back_by_itself_is_passed_over_and_who_was_asked_is_not() {
        let one = holding(4, 2);
        one.revoke(1);
        assert_eq!(one.room(), 1);
        release(&one, "2");
        assert_eq!(one.room(), 1);
        release(&one, "1");
        assert_eq!(one.room(), 0);
        one.forget("1");
        one.grant(1);
        assert_eq!(one.room(), 2);
    }

    #[test]
    fn what_was_begun_is_no_answer_to_a_revoke() {
        let one = holding(4, 3);
        one.beat("1", Told::Begun, 60_000);
        one.beat("2", Told::Begun, 60_000);
        // Two are asked for, and one alone can come back.
        one.revoke(2);
        release(&one, "1");
        one.forget("1");
        one.grant(1);
        assert_eq!(
            one.load().leaving,
            1,
            "its own release is none of the revoke's"
        );
        release(&one, "3");
        assert_eq!(one.room(), 1, "asked for, hence not passed over");
        one.forget("3");
        one.beat("2", Told::Begun, 60_000);
        release(&one, "2");
        assert_eq!(one.room(), 0, "its own");
    }

    #[test]
    fn revokes_that_took_every_place_leave_one_to_go_on_with() {
        let one = holding(2, 2);
        one.revoke(2);
        for token in ["1", "2"] {
            release(&one, token);
            one.forget(token);
        }
        assert_eq!(one.room(), 0);
        one.grant(1);
        assert_eq!(one.room(), 1);

        let one = consumer(3);
        one.grant(3);
        one.revoke(2);
        one.revoke(2);
        assert_eq!(one.room(), 1);

        let one = consumer(2);
        one.grant(2);
        one.reserve(2);
        one.revoke(2);
        one.end_reserve(2);
        assert_eq!(one.room(), 1, "the read brought nothing");
    }

    #[test]
    fn a_consumer_is_passed_over_once_all_its_handlers_hang() {
        let (one, _frames) = Attached::new(Member {
            concurrency: 2,
            ..member(4)
        });
        one.grant(4);
        one.reserve(2);
        for number in 1..=2 {
            let token = number.to_string();
            assert!(one.hold(&token, numbered(number), 60_000).is_ok());
        }
        one.end_reserve(0);
        one.expect_hung(1);
        one.forget_hung("1");
        assert_eq!(
            one.room(),
            2,
            "a handler is free, and nothing is left to grant"
        );
        one.expect_hung(1);
        one.forget_hung("2");
        assert_eq!(one.room(), 0);
        one.grant(1);
        assert_eq!(one.room(), 3);
    }

    #[test]
    fn a_drained_consumer_has_no_room_whatever_it_grants() {
        let one = holding(4, 1);
        assert!(one.begin_drain());
        assert!(!one.begin_drain());
        one.forget("1");
        one.grant(4);
        assert_eq!((one.room(), one.is_draining()), (0, true));
    }

    #[test]
    fn the_load_counts_as_many_begun_as_are_worked_on_at_once() {
        let one = holding(4, 3);
        let load = one.load();
        assert_eq!((load.held, load.begun, load.idle), (3, 1, Duration::ZERO));
        one.beat("1", Told::Begun, 60_000);
        one.beat("2", Told::Begun, 60_000);
        assert_eq!(one.load().begun, 2);
    }

    #[test]
    fn what_is_begun_hangs_without_progress_and_only_that() {
        let one = holding(4, 3);
        one.beat("1", Told::Begun, 60_000);
        one.beat("2", Told::Held, 60_000);
        one.beat("3", Told::Begun, 60_000);
        assert!(one.settling("3").is_some());
        let later = Instant::now() + Duration::from_millis(1_001);
        one.beat("1", Told::Begun, 60_000);
        let hung: Vec<String> = one.hung(later).into_iter().map(|lease| lease.id).collect();
        assert_eq!(hung, ["1-1"], "a heartbeat is no progress");
        assert!(one.check_at().is_some_and(|at| at <= later));
        one.progress("1", 60_000);
        let soon = Instant::now() + Duration::from_millis(900);
        assert!(one.hung(soon).is_empty());
        one.checked();
        assert!(one.check_at().is_some_and(|at| at > soon));
        assert_eq!(one.stranded(), 0);
        one.forget("1");
        one.forget("3");
        assert_eq!(one.stranded(), 1);
    }
}
