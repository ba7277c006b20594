//! Coalesces concurrent publishes of a shard into flushes: one script call for what gathered
//! meanwhile.
//!
//! No timers: a lone publish goes at once, and while a flush is under way the next one gathers. Two
//! flushes may be under way together, but never two that carry the same producer or the same
//! ordering key: a retry after a lost connection could put the second before the first, and the
//! producer's sequence check would then call the first a duplicate.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hive_store::{
    Shard, Store, StoreError,
    publish::{Flush, Flushed, Item, Outcome},
};
use tokio::sync::{mpsc, oneshot};

use crate::{bells::Bells, metrics::Metrics};

/// Most messages of a flush: the bound of a script call.
const ITEMS_MAX: usize = 500;
/// Most bytes of a flush.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Flushes under way together: measured to beat one by 28 %.
const UNDER_WAY_MAX: usize = 2;
/// Publishes that wait for a flush; beyond it callers wait for a place.
const QUEUE: usize = 1_024;

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
    answer: oneshot::Sender<Answer>,
}

/// The queue of one shard.
#[derive(Debug, Clone)]
pub struct Publisher {
    jobs: mpsc::Sender<Queued>,
}

impl Publisher {
    /// A queue, and the task that empties it; the task ends when all handles are gone.
    pub fn new(
        store: Store,
        shard: Shard,
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

    /// Queues a job behind those that were queued before; the answer comes once its flush is done.
    ///
    /// # Errors
    /// `Unavailable` when the publisher stopped.
    pub async fn enqueue(&self, job: Job) -> Result<oneshot::Receiver<Answer>, StoreError> {
        let (answer, outcome) = oneshot::channel();
        let queued = Queued { job, answer };
        self.jobs.send(queued).await.map_err(|_stopped| stopped())?;
        Ok(outcome)
    }
}

/// The answer of a job whose publisher stopped before its flush was done.
#[must_use]
pub fn stopped() -> StoreError {
    StoreError::Unavailable {
        detail: "the publisher stopped".into(),
    }
}

/// What two flushes under way must not share.
#[derive(Debug, Default)]
struct Claims {
    producers: HashSet<Arc<str>>,
    keys: HashSet<String>,
}

impl Claims {
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

/// Per job its number of messages, its chain, and where its answer goes.
type Answers = Vec<(usize, Chain, oneshot::Sender<Answer>)>;

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
            tokio::select! {
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
                    let detail = "an earlier batch of this stream was not stored".into();
                    // Nobody waits for it any more when the caller hung up.
                    drop(queued.answer.send(Err(StoreError::Unavailable { detail })));
                }
                continue;
            }
            let size: usize = job.items.iter().map(|item| item.body.len()).sum();
            let is_first = flush.is_none();
            let count = flush.as_ref().map_or(0, |flush| flush.items.len()) + job.items.len();
            if !is_first && (count > ITEMS_MAX || bytes + size > BYTES_MAX) {
                break;
            }
            let clash = held_back.clash(job)
                || self.under_way.iter().any(|(_, claims)| claims.clash(job))
                || flush.as_ref().is_some_and(|flush| !may_share(flush, job));
            if clash {
                held_back.add(job);
                position += 1;
                continue;
            }
            let Some(Queued { job, answer }) = self.waiting.remove(position) else {
                break;
            };
            claims.add(&job);
            bytes += size;
            answers.push((job.items.len(), job.chain, answer));
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
                for (count, _, answer) in answers {
                    let mine = outcomes.by_ref().take(count).collect();
                    // Nobody waits for it any more when the caller hung up.
                    drop(answer.send(Ok(Flushed::Done(mine))));
                }
            },
            not_stored => {
                for (_, chain, answer) in answers {
                    chain.break_off();
                    drop(answer.send(not_stored.clone()));
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
