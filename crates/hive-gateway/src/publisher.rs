//! Coalesces concurrent publishes of a shard into flushes: one script call for what gathered
//! meanwhile.
//!
//! No timers: a lone publish goes at once, and while a flush is under way the next one gathers. Two
//! flushes may be under way together, but never two that carry the same producer or the same
//! ordering key: a retry after a lost connection could put the second before the first, and the
//! producer's sequence check would then call the first a duplicate.
//!
//! What waits is bounded by number, by bytes for all shards of a gateway together, and by time: who
//! was not sent to Redis within the time of a call is told so, and nothing of it was done. Room is
//! taken before a batch is turned into entries, so few of those who wait for room hold memory.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hive_protocol::fault::{Fault, Reason};
use hive_store::{
    Shard, Store, StoreError,
    publish::{Flush, Flushed, Item, Outcome},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, sleep_until, timeout_at},
};

use crate::{bells::Bells, metrics::Metrics};

/// Most messages of a flush: the bound of a script call.
const ITEMS_MAX: usize = 500;
/// Most bytes of a flush.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Flushes under way together: measured to beat one by 28 %.
const UNDER_WAY_MAX: usize = 2;
/// Publishes that wait for a flush; beyond it callers wait for a place.
const QUEUE: usize = 1_024;
/// Most bytes of the messages that wait for a flush or are in one, all shards of a gateway
/// together: sixteen batches of the largest size. Beyond it callers wait for room.
const ROOM_BYTES: usize = 64 * 1024 * 1024;
/// Publishes that wait for room: each is a batch of up to 4 MiB. Beyond it they are refused.
const ROOM_WAITERS: usize = 64;
/// What a caller is told to wait when there is no room.
const RETRY_FULL: Duration = Duration::from_secs(1);
/// How long a publish waits for room and for its flush before it is told that nothing was done.
const SENT_WITHIN: Duration = Duration::from_secs(3);

/// The memory that publishes of a gateway may hold while they wait.
#[derive(Debug, Clone)]
pub struct Room {
    bytes: Arc<Semaphore>,
    waiters: Arc<Semaphore>,
}

/// Room that one publish has, and until when it must be sent.
#[derive(Debug)]
pub struct Place {
    room: OwnedSemaphorePermit,
    end: Instant,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            bytes: Arc::new(Semaphore::new(ROOM_BYTES)),
            waiters: Arc::new(Semaphore::new(ROOM_WAITERS)),
        }
    }
}

impl Room {
    /// Room for so many bytes, until the permit is dropped; none when there is none by `end`, or
    /// too many wait already.
    async fn take(&self, bytes: usize, end: Instant) -> Option<OwnedSemaphorePermit> {
        // A single publish always fits into an empty room.
        let bytes = u32::try_from(bytes.min(ROOM_BYTES)).unwrap_or(u32::MAX);
        if let Ok(room) = self.bytes.clone().try_acquire_many_owned(bytes) {
            return Some(room);
        }
        let _waiter = self.waiters.try_acquire().ok()?;
        let room = self.bytes.clone().acquire_many_owned(bytes);
        timeout_at(end, room).await.ok()?.ok()
    }

    /// A place for a publish of so many bytes; none breaks its chain off.
    ///
    /// # Errors
    /// `SATURATED` when there is no room within 3 s, or too many wait for it.
    pub async fn place(&self, bytes: usize, chain: &Chain) -> Result<Place, Fault> {
        let end = Instant::now() + SENT_WITHIN;
        match self.take(bytes, end).await {
            Some(room) => Ok(Place { room, end }),
            None => {
                chain.break_off();
                Err(saturated("too many bytes wait to be published"))
            },
        }
    }
}

/// One publish: messages that stay together and in order.
#[derive(Debug)]
pub struct Job {
    /// Its messages; at least one.
    pub items: Vec<Item>,
    /// The groups of the shard, where an item goes to all of them.
    pub groups: Vec<String>,
    /// Most unsettled messages of a group.
    pub max_backlog: u64,
    /// Most bytes of unsettled messages of a group.
    pub max_backlog_bytes: u64,
    /// Whether the stream takes messages while it has no group.
    pub buffer_without_groups: bool,
    /// On disk before the answer.
    pub durable: bool,
    /// The stream of batches that this one belongs to.
    pub chain: Chain,
}

/// Batches that must be stored in order or not at all.
///
/// A producer that sees its first batch fail sends it again, under sequences that are lower than
/// those of the batches behind it. Had one of these been stored meanwhile, the shard would take the
/// first for a duplicate, and it would be lost. So once a batch was not stored, none behind it is.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    is_broken: Arc<AtomicBool>,
}

impl Chain {
    /// Whether a batch of it was not stored.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Acquire)
    }

    fn break_off(&self) {
        self.is_broken.store(true, Ordering::Release);
    }
}

/// What a flush answers a job: outcomes of its own messages, where it was done.
pub type Answer = Result<Flushed, StoreError>;

#[derive(Debug)]
struct Queued {
    job: Job,
    asked: Asked,
    /// It must be sent by then.
    end: Instant,
}

/// Where the answer of a job goes, and what the job holds until then.
#[derive(Debug)]
struct Asked {
    chain: Chain,
    answer: oneshot::Sender<Answer>,
    _room: OwnedSemaphorePermit,
}

impl Asked {
    /// Says that nothing of the job was done, nor will be of those behind it in its chain.
    fn refuse(self, why: &str) {
        self.chain.break_off();
        // Nobody waits for it any more when the caller hung up.
        drop(self.answer.send(Err(unavailable(why))));
    }
}

/// The queue of one shard.
#[derive(Debug, Clone)]
pub struct Publisher {
    jobs: mpsc::Sender<Queued>,
}

impl Publisher {
    /// A queue, and the task that empties it; the task ends when all handles are gone.
    pub fn new(
        (store, shard): (Store, Shard),
        incarnation: Arc<str>,
        bells: Arc<Bells>,
        metrics: Arc<Metrics>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let line = Line {
            store,
            shard,
            incarnation,
            bells,
            metrics,
            waiting: VecDeque::new(),
            under_way: Vec::new(),
            number: 0,
        };
        (Self { jobs }, line.run(queue))
    }

    /// Queues a job behind those that were queued before; the answer comes once its flush is done,
    /// or once it waited for 3 s without being sent.
    ///
    /// # Errors
    /// `SATURATED` when too many wait for 3 s, `Unavailable` when the publisher stopped.
    pub async fn enqueue(
        &self,
        job: Job,
        Place { room, end }: Place,
    ) -> Result<oneshot::Receiver<Answer>, Fault> {
        let chain = job.chain.clone();
        let (answer, outcome) = oneshot::channel();
        let asked = Asked {
            chain: chain.clone(),
            answer,
            _room: room,
        };
        let queued = Queued { job, asked, end };
        match timeout_at(end, self.jobs.send(queued)).await {
            Ok(sent) => sent.map_err(|_stopped| stopped())?,
            Err(_elapsed) => {
                chain.break_off();
                return Err(saturated("too many publishes wait"));
            },
        }
        Ok(outcome)
    }

    /// Whether nobody else has a handle on it.
    pub(crate) fn is_alone(&self) -> bool {
        self.jobs.strong_count() == 1
    }
}

fn saturated(why: &str) -> Fault {
    Fault::new(Reason::Saturated, format!("{why}; nothing was stored")).with_retry_after(RETRY_FULL)
}

/// Bytes that a job holds.
fn size(job: &Job) -> usize {
    job.items.iter().map(|item| item.body.len()).sum()
}

fn unavailable(why: &str) -> StoreError {
    let detail = why.to_owned();
    StoreError::Unavailable { detail }
}

/// The answer of a job whose publisher stopped before its flush was done.
#[must_use]
pub fn stopped() -> StoreError {
    unavailable("the publisher stopped")
}

/// What two flushes under way must not share.
#[derive(Debug, Default)]
struct Claims {
    producers: HashSet<Arc<str>>,
    keys: HashSet<String>,
}

impl Claims {
    /// Whether the job has a message of an ordering key that is claimed: one that is refused
    /// refuses the later ones of its key in its flush, and must not refuse another caller's.
    fn shares_key(&self, job: &Job) -> bool {
        let mut keys = job.items.iter().map(|item| &item.ordering_key);
        keys.any(|key| !key.is_empty() && self.keys.contains(key))
    }

    fn clash(&self, job: &Job) -> bool {
        job.items.iter().any(|item| {
            item.producer
                .as_ref()
                .is_some_and(|(producer, _)| self.producers.contains(producer))
                || (!item.ordering_key.is_empty() && self.keys.contains(&item.ordering_key))
        })
    }

    fn add(&mut self, job: &Job) {
        for item in &job.items {
            if let Some((producer, _)) = &item.producer {
                self.producers.insert(producer.clone());
            }
            if !item.ordering_key.is_empty() {
                self.keys.insert(item.ordering_key.clone());
            }
        }
    }
}

struct Line {
    store: Store,
    shard: Shard,
    incarnation: Arc<str>,
    bells: Arc<Bells>,
    metrics: Arc<Metrics>,
    waiting: VecDeque<Queued>,
    under_way: Vec<(u64, Claims)>,
    number: u64,
}

/// Per job its number of messages, and where its answer goes.
type Answers = Vec<(usize, Asked)>;

impl Line {
    async fn run(mut self, mut queue: mpsc::Receiver<Queued>) {
        let mut flushes = FuturesUnordered::new();
        let mut open = true;
        while open || !self.waiting.is_empty() || !flushes.is_empty() {
            while self.under_way.len() < UNDER_WAY_MAX
                && let Some((flush, answers)) = self.gather()
            {
                let (store, shard) = (self.store.clone(), self.shard.clone());
                flushes.push(async move {
                    let answer = store.publish(&shard, &flush).await;
                    (flush.number, answer, answers)
                });
            }
            // The first was queued first.
            let late = self.waiting.front().map(|queued| queued.end);
            tokio::select! {
                () = sleep_until(late.unwrap_or_else(Instant::now)), if late.is_some() => {
                    self.refuse_late();
                },
                Some((number, answer, answers)) = flushes.next(), if !flushes.is_empty() => {
                    self.under_way.retain(|(other, _)| *other != number);
                    self.finish(answer, answers);
                },
                job = queue.recv(), if open && self.waiting.len() < QUEUE => match job {
                    Some(job) => {
                        self.waiting.push_back(job);
                        while self.waiting.len() < QUEUE
                            && let Ok(job) = queue.try_recv()
                        {
                            self.waiting.push_back(job);
                        }
                    },
                    None => open = false,
                },
            }
        }
    }

    /// Refuses what should have been sent by now.
    fn refuse_late(&mut self) {
        let now = Instant::now();
        while let Some(queued) = self.waiting.pop_front_if(|queued| queued.end <= now) {
            queued.asked.refuse("not sent within 3 s");
        }
    }

    /// Takes what may go now: in order, without what clashes with a flush under way.
    fn gather(&mut self) -> Option<(Flush, Answers)> {
        let mut claims = Claims::default();
        // Jobs that must wait keep later ones of their producers and keys behind them.
        let mut held_back = Claims::default();
        let mut flush: Option<Flush> = None;
        let mut answers = Vec::new();
        let mut bytes = 0;
        let mut position = 0;
        while position < self.waiting.len() {
            let Some(Queued { job, .. }) = self.waiting.get(position) else {
                break;
            };
            if job.chain.is_broken() {
                if let Some(queued) = self.waiting.remove(position) {
                    let why = "an earlier batch of this stream was not stored";
                    queued.asked.refuse(why);
                }
                continue;
            }
            let size = size(job);
            let is_first = flush.is_none();
            let count = flush.as_ref().map_or(0, |flush| flush.items.len()) + job.items.len();
            if !is_first && (count > ITEMS_MAX || bytes + size > BYTES_MAX) {
                break;
            }
            let clash = held_back.clash(job)
                || self.under_way.iter().any(|(_, claims)| claims.clash(job))
                || claims.shares_key(job)
                || flush.as_ref().is_some_and(|flush| !may_share(flush, job));
            if clash {
                held_back.add(job);
                position += 1;
                continue;
            }
            let Some(Queued { job, asked, .. }) = self.waiting.remove(position) else {
                break;
            };
            claims.add(&job);
            bytes += size;
            answers.push((job.items.len(), asked));
            match &mut flush {
                Some(flush) => {
                    flush.items.extend(job.items);
                    if flush.groups.is_empty() {
                        flush.groups = job.groups;
                    }
                },
                None => {
                    self.number += 1;
                    flush = Some(Flush {
                        number: self.number,
                        incarnation: self.incarnation.clone(),
                        max_backlog: job.max_backlog,
                        max_backlog_bytes: job.max_backlog_bytes,
                        buffer_without_groups: job.buffer_without_groups,
                        groups: job.groups,
                        items: job.items,
                        durable: job.durable,
                    });
                },
            }
        }
        let flush = flush?;
        self.metrics
            .flush_messages
            .record(count_of(flush.items.len()));
        self.under_way.push((flush.number, claims));
        Some((flush, answers))
    }

    fn finish(&self, answer: Answer, answers: Answers) {
        match answer {
            Ok(Flushed::Done(outcomes)) => {
                let added = outcomes
                    .iter()
                    .filter(|one| **one == Outcome::Added)
                    .count();
                self.metrics.published.increment(added as u64);
                if added > 0 {
                    self.announce();
                }
                let mut outcomes = outcomes.into_iter();
                for (count, asked) in answers {
                    let mine = outcomes.by_ref().take(count).collect();
                    // Nobody waits for it any more when the caller hung up.
                    drop(asked.answer.send(Ok(Flushed::Done(mine))));
                }
            },
            not_stored => {
                for (_, asked) in answers {
                    asked.chain.break_off();
                    drop(asked.answer.send(not_stored.clone()));
                }
            },
        }
    }

    /// Rings here at once, and in the other gateways by Redis.
    fn announce(&self) {
        self.bells.announce(&self.store, &self.shard);
    }
}

/// Jobs share a flush when what the flush says of them is the same.
fn may_share(flush: &Flush, job: &Job) -> bool {
    flush.max_backlog == job.max_backlog
        && flush.max_backlog_bytes == job.max_backlog_bytes
        && flush.buffer_without_groups == job.buffer_without_groups
        && flush.durable == job.durable
        && (flush.groups.is_empty() || job.groups.is_empty() || flush.groups == job.groups)
}

#[expect(clippy::cast_precision_loss, reason = "a count of at most thousands")]
fn count_of(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hive_store::StoreConfig;

    use super::*;

    /// A publish of so many bytes; those of one key never ride in two flushes at once.
    fn job(key: &str, bytes: usize) -> Job {
        let item = Item {
            lanes: Arc::default(),
            body: Bytes::from(vec![0; bytes]),
            producer: None,
            idempotency: None,
            ordering_key: key.into(),
            not_before_ms: 0,
        };
        Job {
            items: vec![item],
            groups: Vec::new(),
            max_backlog: 1,
            max_backlog_bytes: 1,
            buffer_without_groups: false,
            durable: false,
            chain: Chain::default(),
        }
    }

    async fn place() -> Place {
        Room::default().place(1, &Chain::default()).await.unwrap()
    }

    /// A publisher whose Redis takes connections and never answers.
    async fn unanswered() -> (Publisher, tokio::net::TcpListener) {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", silent.local_addr().unwrap());
        let store = Store::open(StoreConfig {
            url,
            ..StoreConfig::default()
        })
        .unwrap();
        let shard = store.shard("default", "s", 0);
        let (publisher, run) = Publisher::new(
            (store, shard),
            "gateway".into(),
            Arc::default(),
            Arc::default(),
        );
        #[expect(clippy::disallowed_methods, reason = "a test has no chassis")]
        tokio::spawn(run);
        (publisher, silent)
    }

    #[tokio::test]
    async fn what_waits_for_a_flush_is_refused_after_three_seconds() {
        let (publisher, _silent) = unanswered().await;
        let first = publisher.enqueue(job("k", 1), place().await).await.unwrap();
        // On one thread the publisher has its turn here: the first goes alone.
        tokio::task::yield_now().await;
        let asked = Instant::now();
        let second = job("k", 1);
        let chain = second.chain.clone();
        let answer = publisher
            .enqueue(second, place().await)
            .await
            .unwrap()
            .await
            .unwrap();
        let waited = asked.elapsed();
        assert!(
            answer.is_err_and(|error| error.is_unavailable()),
            "nothing was done, and repeating is safe"
        );
        assert!(
            waited >= SENT_WITHIN && waited < SENT_WITHIN + Duration::from_secs(1),
            "{waited:?}"
        );
        assert!(chain.is_broken(), "nothing behind it may be stored");
        drop(first);
    }

    #[tokio::test]
    async fn publishes_without_room_are_refused_after_three_seconds_and_too_many_at_once() {
        let room = Room::default();
        let chain = Chain::default();
        let all = room.place(ROOM_BYTES, &chain).await.unwrap();
        let asked = Instant::now();
        let waiting = (0..ROOM_WAITERS).map(|_| room.place(1, &chain));
        let waiting = futures_util::future::join_all(waiting);
        let one_more = async {
            // Behind the others, which all have their turn first.
            tokio::task::yield_now().await;
            let refused = room.place(1, &Chain::default()).await;
            (refused.unwrap_err().reason, asked.elapsed())
        };
        let (waited, (reason, soon)) = tokio::join!(waiting, one_more);
        assert_eq!(reason, Reason::Saturated);
        assert!(soon < Duration::from_secs(1), "{soon:?}");
        assert!(asked.elapsed() >= SENT_WITHIN, "{:?}", asked.elapsed());
        assert!(waited.iter().all(Result::is_err));
        assert!(chain.is_broken(), "nothing behind it may be stored");
        drop(all);
        assert!(room.place(1, &Chain::default()).await.is_ok());
    }

    #[tokio::test]
    async fn room_is_given_back_with_the_answer() {
        let room = Room::default();
        let soon = || Instant::now() + Duration::from_millis(20);
        let all = room.take(ROOM_BYTES * 2, soon()).await;
        assert!(all.is_some(), "the largest publish fits into an empty room");
        assert!(room.take(1, soon()).await.is_none());
        drop(all);
        assert!(room.take(1, soon()).await.is_some());
    }
}
