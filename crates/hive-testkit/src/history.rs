//! What the clients of a run did and saw, in one log with one clock.
//!
//! Clients write an event when they *call* and another when they are *answered*: an answer that
//! never came is an unknown outcome, not a failure, and the checker treats it so. Times come from
//! one monotonic clock. Recording takes a lock for a push, so that it does not shape the load.

use std::{
    fs::File,
    hash::{DefaultHasher, Hasher},
    io::{self, BufWriter, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// A name, an id or a token; cheap to share between events.
pub type Name = Arc<str>;

/// Events that one log takes: a guard against a test that loops, far above any run.
const EVENTS_MAX: usize = 50_000_000;

/// A message as its publisher knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Publish {
    /// Id of the message, chosen by the publisher.
    pub message: Name,
    /// The groups that must get it: one, or all of its stream.
    pub groups: Vec<Name>,
    /// [`payload_hash`] of its payload.
    pub payload: u64,
    /// Its idempotency key. Where a run has several streams, put the stream in front of it.
    pub idempotency_key: Option<Name>,
    /// Its ordering key. Leave it out for a message with a delay, which owes no order.
    pub ordering_key: Option<Name>,
    /// Its priority, 0 to 9. Order is only owed among equals.
    pub priority: u8,
    /// Whether a producer sequence makes a repeated call safe.
    pub is_sequenced: bool,
    /// Whether it may end as expired.
    pub may_expire: bool,
    /// Its own number of attempts, where it overrides the group's.
    pub max_attempts: Option<u32>,
}

/// How a publish was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishAnswer {
    /// Stored under this id, which is another message's where it was a duplicate.
    Stored(Name),
    /// Refused: nothing of it is stored.
    Refused,
    /// An error that leaves its fate open, such as a timeout.
    Unknown,
}

/// A message as a consumer got it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Group of the consumer.
    pub group: Name,
    /// Id of the message.
    pub message: Name,
    /// Who got it.
    pub consumer: Name,
    /// 1 plus the failed attempts before.
    pub attempt: u32,
    /// Its lease token.
    pub lease: Name,
    /// The store's count of deliveries of this entry, where the recorder can read the token.
    /// Without it, leases of the same attempt cannot be put in order.
    pub count: Option<u64>,
    /// [`payload_hash`] of its payload.
    pub payload: u64,
}

/// What a consumer asked for a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Done.
    Ack,
    /// Failed, try again.
    Nack,
    /// Given back uncounted.
    Release,
    /// Never to be tried again.
    Reject,
    /// A new lease time; settles nothing.
    Extend,
}

/// How a settle was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettleAnswer {
    /// Taken.
    Ok,
    /// Settled before; nothing changed.
    Gone,
    /// Somebody else's lease by now; nothing changed.
    Stale,
    /// Refused for another reason; nothing changed.
    Refused,
    /// No answer, or one that leaves it open.
    Unknown,
}

/// How a consumer lost what it held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Its process was killed.
    Killed,
    /// Its process was stopped, and may go on.
    Stopped,
    /// Its connection broke.
    Disconnected,
    /// It left, or it was removed.
    Left,
    /// Another process joined under its id.
    Replaced,
}

/// What a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A gateway.
    Gateway,
    /// Any other daemon.
    Daemon,
    /// The Redis.
    Redis,
    /// The network between any two of them.
    Network,
}

/// What a fault does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// SIGKILL.
    Killed,
    /// SIGSTOP, or a silent network.
    Stopped,
    /// Connections are cut or delayed.
    Cut,
    /// Redis is full.
    Full,
}

/// Why a message became a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadCause {
    /// A consumer rejected it.
    Rejected,
    /// Its attempts were used up.
    AttemptsUsedUp,
    /// Its time passed.
    Expired,
    /// Its group was deleted.
    Cancelled,
    /// Any other, such as undecodable bytes: never right in a run of well-formed messages.
    Other,
}

/// One failed attempt as the dead letter tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Who held the message.
    pub consumer: Name,
    /// True when the consumer was lost, false when it said itself that it failed.
    pub is_loss: bool,
}

/// A dead letter as the run left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Group that the message died in.
    pub group: Name,
    /// Id of the message.
    pub message: Name,
    /// Why.
    pub cause: DeadCause,
    /// Its failed attempts, oldest first.
    pub failures: Vec<Failure>,
}

/// A group at the end of a run, when nothing moves any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AtRest {
    /// The group.
    pub group: Name,
    /// Ids of all its unsettled messages.
    pub unsettled: Vec<Name>,
    /// Its figures; none when the run does not check them.
    pub figures: Option<Figures>,
}

/// The figures of a group that must equal the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Accepted and never delivered.
    pub lag: u64,
    /// Delivered and not settled.
    pub pending: u64,
    /// Published with a delay that is not over.
    pub scheduled: u64,
    /// Accepted since creation.
    pub published_total: u64,
    /// Acked since creation.
    pub acked_total: u64,
    /// Dead since creation.
    pub dead_total: u64,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A publish was called; a retry is a call of its own.
    PublishCalled {
        /// Number of the call.
        call: u64,
        /// What was published.
        publish: Box<Publish>,
    },
    /// A publish was answered.
    PublishAnswered {
        /// Number of the call.
        call: u64,
        /// How.
        answer: PublishAnswer,
    },
    /// A consumer joined, or joined again.
    Joined {
        /// Its group.
        group: Name,
        /// Its id.
        consumer: Name,
        /// How many it works on at once.
        concurrency: u32,
    },
    /// A consumer got a message.
    Delivered(Box<Delivery>),
    /// A handler began a delivery.
    Begun {
        /// Its lease.
        lease: Name,
    },
    /// A consumer sent a heartbeat for these leases.
    Heartbeat {
        /// The leases that it named.
        leases: Vec<Name>,
    },
    /// A settle was called; a retry is a call of its own.
    SettleCalled {
        /// Number of the call.
        call: u64,
        /// The lease.
        lease: Name,
        /// What was asked.
        action: Action,
    },
    /// A settle was answered.
    SettleAnswered {
        /// Number of the call.
        call: u64,
        /// How.
        answer: SettleAnswer,
    },
    /// A consumer lost what it held, or may have.
    ConsumerLost {
        /// Its group.
        group: Name,
        /// Its id.
        consumer: Name,
        /// How.
        loss: Loss,
    },
    /// A fault began; a kill lasts until the restart.
    FaultBegan {
        /// Name of the process or proxy, the same in [`Event::FaultEnded`].
        name: Name,
        /// What it hits.
        target: Target,
        /// What it does.
        damage: Damage,
    },
    /// A fault is over.
    FaultEnded {
        /// Name of the process or proxy.
        name: Name,
    },
    /// A group was deleted by force.
    GroupDeleted {
        /// The group.
        group: Name,
    },
    /// A dead letter that the run left.
    DeadLetter(Box<DeadLetter>),
    /// A group when the run is over.
    AtRest(Box<AtRest>),
}

/// An event and its time since the start of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Time since the start of the log.
    pub at: Duration,
    /// What happened.
    pub event: Event,
}

/// All events of a run, in the order of their times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The events, oldest first.
    pub entries: Vec<Entry>,
    /// Events that the log had no room for; a history with any proves nothing.
    pub dropped: u64,
}

impl History {
    /// Writes one event per line, to be read by a person after a failure.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn dump(&self, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        for Entry { at, event } in &self.entries {
            writeln!(file, "{:>14.6} {event:?}", at.as_secs_f64())?;
        }
        file.flush()
    }
}

/// Takes events from all clients of a run; share it in an [`Arc`].
#[derive(Debug)]
pub struct Recorder {
    origin: Instant,
    calls: AtomicU64,
    log: Mutex<History>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// An empty log whose clock starts now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
            calls: AtomicU64::new(1),
            log: Mutex::new(History::default()),
        }
    }

    /// Writes down an event that happens now.
    pub fn record(&self, event: Event) {
        let mut log = self.log.lock();
        if log.entries.len() == EVENTS_MAX {
            log.dropped += 1;
            return;
        }
        // Under the lock, so that the order of the log is the order of its times.
        let at = self.origin.elapsed();
        log.entries.push(Entry { at, event });
    }

    /// Writes down the call of a publish and gives its number, for the answer. Call it before the
    /// request leaves.
    #[must_use]
    pub fn publish_called(&self, publish: Publish) -> u64 {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        self.record(Event::PublishCalled {
            call,
            publish: Box::new(publish),
        });
        call
    }

    /// Writes down the answer of a publish.
    pub fn publish_answered(&self, call: u64, answer: PublishAnswer) {
        self.record(Event::PublishAnswered { call, answer });
    }

    /// Writes down a delivery.
    pub fn delivered(&self, delivery: Delivery) {
        self.record(Event::Delivered(Box::new(delivery)));
    }

    /// Writes down the call of a settle and gives its number, for the answer. Call it before the
    /// request leaves.
    #[must_use]
    pub fn settle_called(&self, lease: &Name, action: Action) -> u64 {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        self.record(Event::SettleCalled {
            call,
            lease: Arc::clone(lease),
            action,
        });
        call
    }

    /// Writes down the answer of a settle.
    pub fn settle_answered(&self, call: u64, answer: SettleAnswer) {
        self.record(Event::SettleAnswered { call, answer });
    }

    /// Time since the start of the log.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// A copy of the log so far.
    #[must_use]
    pub fn snapshot(&self) -> History {
        self.log.lock().clone()
    }

    /// Takes the log away and leaves an empty one; the clock goes on.
    #[must_use]
    pub fn take(&self) -> History {
        std::mem::take(&mut self.log.lock())
    }
}

/// Fingerprint of a payload, the same in every process of a build.
#[must_use]
pub fn payload_hash(payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(payload);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn events_of_many_threads_stand_in_the_order_of_their_times() {
        let recorder = Arc::new(Recorder::new());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let recorder = Arc::clone(&recorder);
                thread::spawn(move || {
                    for _ in 0..250 {
                        let call = recorder.publish_called(Publish::default());
                        recorder.publish_answered(call, PublishAnswer::Unknown);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let history = recorder.take();
        assert_eq!(history.entries.len(), 2_000);
        assert!(history.entries.is_sorted_by_key(|entry| entry.at));
        assert!(recorder.snapshot().entries.is_empty());
    }

    #[test]
    fn a_dump_has_one_line_per_event() {
        let recorder = Recorder::new();
        let call = recorder.settle_called(&"l1".into(), Action::Ack);
        recorder.settle_answered(call, SettleAnswer::Gone);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history");
        recorder.take().dump(&path).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains("SettleAnswered"));
    }
}
