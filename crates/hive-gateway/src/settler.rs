//! Coalesces concurrent settles of a group: one script call for what gathered meanwhile.
//!
//! As with publishes there are no timers. A second call goes while one is under way only when it is
//! a large one: what gathers meanwhile costs Redis half as much per outcome. A lease is settled by
//! one of the two, and the other finds it gone.

use std::{collections::VecDeque, sync::Arc};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hive_protocol::fault::Reason;
use hive_store::{
    StoreError,
    settle::{Action, Settle, Verdict},
};
use tokio::sync::{mpsc, oneshot};

use crate::core::{Gateway, now_ms};

/// Most outcomes of a call: 1,000 take a script about 3 ms.
const ITEMS_MAX: usize = 1_000;
/// Calls under way together.
const UNDER_WAY_MAX: usize = 2;
/// Outcomes that are worth a call beside one that is under way.
const BESIDE_MIN: usize = 256;
/// Settles that wait; beyond it callers wait for a place.
const QUEUE: usize = 1_024;

#[derive(Debug)]
struct Job {
    items: Vec<Settle>,
    answer: oneshot::Sender<Result<Vec<Verdict>, StoreError>>,
}

/// The queue of one group.
#[derive(Debug, Clone)]
pub struct Settler {
    jobs: mpsc::Sender<Job>,
}

impl Settler {
    /// A queue, and the task that empties it; the task ends when all handles are gone.
    pub fn new(
        gateway: Arc<Gateway>,
        namespace: String,
        group: String,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (jobs, queue) = mpsc::channel(QUEUE);
        (Self { jobs }, run(gateway, namespace, group, queue))
    }

    /// Settles; verdicts are in the order of the items.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn settle(&self, items: Vec<Settle>) -> Result<Vec<Verdict>, StoreError> {
        let (answer, verdicts) = oneshot::channel();
        let stopped = || StoreError::Unavailable {
            detail: "the settler stopped".into(),
        };
        self.jobs
            .send(Job { items, answer })
            .await
            .map_err(|_stopped| stopped())?;
        verdicts.await.map_err(|_stopped| stopped())?
    }
}

async fn run(
    gateway: Arc<Gateway>,
    namespace: String,
    group: String,
    mut queue: mpsc::Receiver<Job>,
) {
    let mut waiting: VecDeque<Job> = VecDeque::new();
    let mut calls = FuturesUnordered::new();
    let mut open = true;
    while open || !waiting.is_empty() || !calls.is_empty() {
        while calls.is_empty() && !waiting.is_empty()
            || calls.len() < UNDER_WAY_MAX && count(&waiting) >= BESIDE_MIN
        {
            let mut items = Vec::new();
            let mut answers = Vec::new();
            while let Some(job) = waiting.front()
                && (items.is_empty() || items.len() + job.items.len() <= ITEMS_MAX)
            {
                let Some(job) = waiting.pop_front() else {
                    break;
                };
                answers.push((job.items.len(), job.answer));
                items.extend(job.items);
            }
            let (gateway, namespace, group) = (gateway.clone(), namespace.clone(), group.clone());
            calls.push(async move {
                (
                    gateway.settle_now(&namespace, &group, &items).await,
                    answers,
                )
            });
        }
        tokio::select! {
            Some((verdicts, answers)) = calls.next(), if !calls.is_empty() => {
                hand_out(verdicts, answers);
            },
            job = queue.recv(), if open && waiting.len() < QUEUE => match job {
                Some(job) => {
                    waiting.push_back(job);
                    while waiting.len() < QUEUE && let Ok(job) = queue.try_recv() {
                        waiting.push_back(job);
                    }
                },
                None => open = false,
            },
        }
    }
}

fn count(waiting: &VecDeque<Job>) -> usize {
    waiting.iter().map(|job| job.items.len()).sum()
}

type Answers = Vec<(usize, oneshot::Sender<Result<Vec<Verdict>, StoreError>>)>;

fn hand_out(verdicts: Result<Vec<Verdict>, StoreError>, answers: Answers) {
    match verdicts {
        Ok(verdicts) => {
            let mut verdicts = verdicts.into_iter();
            for (count, answer) in answers {
                // Nobody waits for it any more when the caller hung up.
                drop(answer.send(Ok(verdicts.by_ref().take(count).collect())));
            }
        },
        Err(error) => {
            for (_, answer) in answers {
                drop(answer.send(Err(error.clone())));
            }
        },
    }
}

impl Gateway {
    /// Settles a batch, and rings where that may have made messages ready.
    ///
    /// # Errors
    /// As in `StoreError`; `Lost` when the group is gone.
    pub async fn settle_now(
        &self,
        namespace: &str,
        group: &str,
        items: &[Settle],
    ) -> Result<Vec<Verdict>, StoreError> {
        let view = self
            .catalog
            .group(namespace, group)
            .await
            .map_err(|fault| {
                let is_loss = fault.reason == Reason::DatasetChanged;
                let detail = fault.message;
                if is_loss {
                    StoreError::Dataset { detail }
                } else {
                    StoreError::Unavailable { detail }
                }
            })?;
        let lanes = self.catalog.lanes(&view.shard).await?;
        let lanes = lanes.of_group(&view.shard, group);
        let verdicts = self
            .store
            .settle(&view.shard, view.settling(&lanes), items, now_ms())
            .await?;
        // An end of an ordered entry makes the next one of its key ready.
        let has_ordered = lanes.iter().any(|lane| lane.lane.lane.marked);
        if has_ordered || items.iter().any(|item| item.action != Action::Ack) {
            self.bells.announce(&self.store, &view.shard);
        }
        Ok(verdicts)
    }
}
