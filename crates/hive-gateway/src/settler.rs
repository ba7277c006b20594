//! Coalesces concurrent settles of a group: one script call for what gathered meanwhile.
//!
//! As with publishes there are no timers. A second call goes while one is under way only when it is
//! a large one: what gathers meanwhile costs Redis half as much per outcome. A lease is settled by
//! one of the two, and the other finds it gone.
//!
//! A call waits for Redis for the few seconds that the store waits. The outcomes of streams wait
//! longer: else all agents of a gateway would lose their connections together, and join again all
//! at once, because Redis was away for longer than that. They are sent again as they are; what was
//! done meanwhile is found gone.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hive_domain::group::GroupState;
use hive_protocol::fault::{Fault, Reason};
use hive_store::{
    Lease, StoreError,
    settle::{Action, Settle, Verdict},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    catalog::GroupView,
    core::{Gateway, now_ms},
};

/// Most outcomes of a call: 1,000 take a script about 3 ms.
const ITEMS_MAX: usize = 1_000;
/// Calls under way together.
const UNDER_WAY_MAX: usize = 2;
/// Outcomes that are worth a call beside one that is under way.
const BESIDE_MIN: usize = 256;
/// Settles that wait; beyond it callers wait for a place.
const QUEUE: usize = 1_024;

/// How long the outcomes of a stream wait for a Redis that is away before its client is told.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause before outcomes are sent again.
const RETRY: Duration = Duration::from_millis(200);
/// A settler that nobody uses ends after this long.
const RETIRE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Job {
    items: Vec<Settle>,
    asked: Asked,
}

/// Who waits for verdicts, and until when they are tried for.
#[derive(Debug)]
struct Asked {
    until: Instant,
    answer: oneshot::Sender<Result<Vec<Verdict>, StoreError>>,
}

impl Asked {
    /// Whether its outcomes are tried once more when Redis was away.
    fn goes_on(&self) -> bool {
        self.until > Instant::now() && !self.answer.is_closed()
    }
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

    /// Settles; verdicts are in the order of the items. Where Redis is away it is tried once.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn settle(&self, items: Vec<Settle>) -> Result<Vec<Verdict>, StoreError> {
        self.settle_until(items, Instant::now()).await
    }

    /// As `settle`; where Redis is away it is tried again for half a minute, as long as the caller
    /// waits.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn settle_patiently(&self, items: Vec<Settle>) -> Result<Vec<Verdict>, StoreError> {
        self.settle_until(items, Instant::now() + PATIENCE).await
    }

    async fn settle_until(
        &self,
        items: Vec<Settle>,
        until: Instant,
    ) -> Result<Vec<Verdict>, StoreError> {
        let (answer, verdicts) = oneshot::channel();
        let stopped = || StoreError::Unavailable {
            detail: "the settler stopped".into(),
        };
        let asked = Asked { until, answer };
        self.jobs
            .send(Job { items, asked })
            .await
            .map_err(|_stopped| stopped())?;
        verdicts.await.map_err(|_stopped| stopped())?
    }

    /// Whether no handle but this one is left.
    pub(crate) fn is_alone(&self) -> bool {
        self.jobs.strong_count() == 1
    }
}

/// The outcomes of a call, and per job how many of them are its own.
type Sent = (Vec<Settle>, Vec<(usize, Asked)>);

async fn run(
    gateway: Arc<Gateway>,
    namespace: String,
    group: String,
    mut queue: mpsc::Receiver<Job>,
) {
    let mut waiting: VecDeque<Job> = VecDeque::new();
    let mut calls = FuturesUnordered::new();
    let mut open = true;
    // Set while Redis is away: the next call goes then.
    let mut pause: Option<Instant> = None;
    while open || !waiting.is_empty() || !calls.is_empty() {
        while pause.is_none()
            && (calls.is_empty() && !waiting.is_empty()
                || calls.len() < UNDER_WAY_MAX && count(&waiting) >= BESIDE_MIN)
        {
            let (items, asked) = gather(&mut waiting);
            let (gateway, namespace, group) = (gateway.clone(), namespace.clone(), group.clone());
            calls.push(async move {
                let verdicts = gateway.settle_now(&namespace, &group, &items).await;
                (verdicts, (items, asked))
            });
        }
        let is_idle = open && waiting.is_empty() && calls.is_empty();
        tokio::select! {
            Some((verdicts, sent)) = calls.next(), if !calls.is_empty() => match verdicts {
                Ok(verdicts) => hand_out(verdicts, sent.1),
                Err(error) if error.is_transient() => {
                    put_back(&error, sent, &mut waiting);
                    pause = Some(Instant::now() + RETRY);
                },
                Err(error) => {
                    for (_, asked) in sent.1 {
                        drop(asked.answer.send(Err(error.clone())));
                    }
                },
            },
            () = sleep_until(pause.unwrap_or_else(Instant::now)), if pause.is_some() => {
                pause = None;
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
            // Its handle is dropped then, and the queue ends.
            () = sleep(RETIRE), if is_idle => gateway.retire_settler(&namespace, &group),
        }
    }
}

/// The next call: jobs stay whole.
fn gather(waiting: &mut VecDeque<Job>) -> Sent {
    let mut items = Vec::new();
    let mut asked = Vec::new();
    while let Some(job) = waiting.front()
        && (items.is_empty() || items.len() + job.items.len() <= ITEMS_MAX)
    {
        let Some(job) = waiting.pop_front() else {
            break;
        };
        asked.push((job.items.len(), job.asked));
        items.extend(job.items);
    }
    (items, asked)
}

/// Redis is away: who has time stays in the queue, in its place; all others are told.
fn put_back(error: &StoreError, (items, asked): Sent, waiting: &mut VecDeque<Job>) {
    let mut items = items.into_iter();
    let sent: Vec<Job> = asked
        .into_iter()
        .map(|(count, asked)| Job {
            items: items.by_ref().take(count).collect(),
            asked,
        })
        .collect();
    let queued = std::mem::take(waiting);
    for job in sent.into_iter().chain(queued) {
        if job.asked.goes_on() {
            waiting.push_back(job);
        } else {
            // Nobody waits for it any more when the caller hung up.
            drop(job.asked.answer.send(Err(error.clone())));
        }
    }
}

fn count(waiting: &VecDeque<Job>) -> usize {
    waiting.iter().map(|job| job.items.len()).sum()
}

fn hand_out(verdicts: Vec<Verdict>, asked: Vec<(usize, Asked)>) {
    let mut verdicts = verdicts.into_iter();
    for (count, asked) in asked {
        // Nobody waits for it any more when the caller hung up.
        drop(
            asked
                .answer
                .send(Ok(verdicts.by_ref().take(count).collect())),
        );
    }
}

impl Gateway {
    /// Settles a batch, and rings where that may have made messages ready. Of a group that was
    /// deleted meanwhile every delivery is gone.
    ///
    /// # Errors
    /// As in `StoreError`; `Lost` when the data of a group is gone that was not deleted.
    pub async fn settle_now(
        &self,
        namespace: &str,
        group: &str,
        items: &[Settle],
    ) -> Result<Vec<Verdict>, StoreError> {
        let view = match self.catalog.group(namespace, group).await {
            Ok(view) => view,
            Err(fault) if matches!(fault.reason, Reason::GroupNotFound | Reason::GroupGone) => {
                return Ok(vec![Verdict::Gone; items.len()]);
            },
            Err(fault) => return Err(not_read(fault)),
        };
        let lanes = self.catalog.lanes(&view.shard).await?;
        let lanes = lanes.of_group(&view.shard, group);
        let settled = self
            .store
            .settle(&view.shard, view.settling(&lanes), items, now_ms())
            .await;
        let verdicts = self.unless_deleted(&view, settled, items.len()).await?;
        // An end of an ordered entry makes the next one of its key ready.
        let has_ordered = lanes.iter().any(|lane| lane.lane.lane.marked);
        if has_ordered || items.iter().any(|item| item.action != Action::Ack) {
            self.bells.announce(&self.store, &view.shard);
        }
        Ok(verdicts)
    }

    /// Starts leases anew; verdicts are in the order of the items (lease, attach). Of a group that
    /// was deleted meanwhile every delivery is gone.
    ///
    /// # Errors
    /// As `settle_now`.
    pub async fn extend_now(
        &self,
        view: &GroupView,
        items: &[(Lease, u64)],
    ) -> Result<Vec<Verdict>, StoreError> {
        let (shard, group) = (&view.shard, &view.definition.name);
        let lanes = self.catalog.lanes(shard).await?;
        let lanes = lanes.of_group(shard, group);
        let extended = self.store.extend(shard, group, &lanes, items).await;
        self.unless_deleted(view, extended, items.len()).await
    }

    /// Tells a group that was deleted from one whose data is lost.
    async fn unless_deleted(
        &self,
        view: &GroupView,
        judged: Result<Vec<Verdict>, StoreError>,
        count: usize,
    ) -> Result<Vec<Verdict>, StoreError> {
        let lost = match judged {
            Err(lost @ StoreError::Lost { .. }) => lost,
            other => return other,
        };
        self.store.check_dataset().await?;
        let (namespace, group) = (&view.namespace, &view.definition.name);
        let is_there = self
            .store
            .group(namespace, group)
            .await?
            .is_some_and(|found| {
                found.created_at == view.definition.created_at
                    && found.state != GroupState::Deleting
            });
        if is_there {
            return Err(lost);
        }
        self.catalog
            .forget(namespace, group, &view.definition.stream);
        Ok(vec![Verdict::Gone; count])
    }
}

/// Why the group of a settle could not be read.
fn not_read(fault: Fault) -> StoreError {
    let is_loss = fault.reason == Reason::DatasetChanged;
    let detail = fault.message;
    if is_loss {
        StoreError::Dataset { detail }
    } else {
        StoreError::Unavailable { detail }
    }
}

#[cfg(test)]
mod tests {
    use hive_runtime::{gate::Gate, shutdown::Shutdown, tasks::Tasks};
    use hive_store::{Store, StoreConfig};

    use super::*;
    use crate::settings::Settings;

    fn gateway() -> Arc<Gateway> {
        let store = Store::open(StoreConfig::default()).unwrap();
        let settings = Settings { payload_max: 1 };
        let parts = (Tasks::new(), Shutdown::new(), Gate::new());
        Gateway::new(store, settings, "gateway".into(), parts)
    }

    #[tokio::test]
    async fn a_settler_is_dropped_once_nobody_holds_it() {
        let gateway = gateway();
        let held = gateway.settler("default", "g");
        let queue = held.jobs.downgrade();
        gateway.retire_settler("default", "g");
        drop(held);
        assert!(queue.upgrade().is_some(), "it was held, so it stays");
        gateway.retire_settler("default", "g");
        assert!(
            queue.upgrade().is_none(),
            "nobody can settle by it any more"
        );
    }

    #[tokio::test]
    async fn outcomes_of_who_has_time_stay_in_their_place_while_redis_is_away() {
        let job = |patience: u64| {
            let (answer, verdicts) = oneshot::channel();
            let until = Instant::now() + Duration::from_secs(patience);
            let asked = Asked { until, answer };
            (asked, verdicts)
        };
        let item = |id: &str| Settle {
            lease: Lease {
                lane: "g/p4".into(),
                id: id.into(),
                count: 1,
                consumer: "a".into(),
                session: "s".into(),
                delivered_ms: 0,
            },
            attach: 1,
            check_session: true,
            action: Action::Ack,
        };
        let ((patient, _one), (hasty, told), (queued, _two)) = (job(9), job(0), job(9));
        let sent = (
            vec![item("1-0"), item("2-0"), item("3-0")],
            vec![(2, patient), (1, hasty)],
        );
        let mut waiting = VecDeque::from([Job {
            items: vec![item("4-0")],
            asked: queued,
        }]);
        let away = StoreError::Unavailable {
            detail: "away".into(),
        };
        put_back(&away, sent, &mut waiting);
        assert!(told.await.unwrap().is_err());
        let left: Vec<String> = waiting
            .iter()
            .flat_map(|job| job.items.iter().map(|item| item.lease.id.to_string()))
            .collect();
        assert_eq!(left, ["1-0", "2-0", "4-0"]);
    }
}
