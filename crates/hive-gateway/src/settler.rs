//! Coalesces concurrent settles of a group: one script call for what gathered meanwhile.
//!
//! As with publishes there are no timers. A second call goes while one is under way only when it is
//! a large one: what gathers meanwhile costs Redis half as much per outcome. A lease is settled by
//! one of the two, and the other finds it gone.
//!
//! A call waits for Redis for the few seconds that the store waits. The outcomes of streams wait
//! longer: else all agents of a gateway would lose their connections together, and join again all
//! at once, because Redis was away for longer than that. A call is sent again as it was, so that
//! what was done by it is answered as done.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hive_domain::group::GroupState;
use hive_protocol::fault::{Fault, Reason};
use hive_store::{
    Lease, StoreError,
    settle::{Action, Settle, Ticket, Verdict},
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

/// One call: its outcomes, and per job how many of them are its own and who waits for them.
#[derive(Debug)]
struct Sent {
    items: Vec<Settle>,
    asked: Vec<(usize, Option<Asked>)>,
    ticket: Ticket,
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
    // Calls that found Redis away, and when they are sent again.
    let mut again: Vec<Sent> = Vec::new();
    let mut pause: Option<Instant> = None;
    while open || !waiting.is_empty() || !calls.is_empty() || !again.is_empty() {
        if pause.is_none() {
            let mut next = std::mem::take(&mut again);
            while calls.is_empty() && next.is_empty() && !waiting.is_empty()
                || calls.len() + next.len() < UNDER_WAY_MAX && count(&waiting) >= BESIDE_MIN
            {
                next.push(gather(&mut waiting));
            }
            for mut sent in next {
                let gateway = gateway.clone();
                let (namespace, group) = (namespace.clone(), group.clone());
                calls.push(async move {
                    let what = (sent.items.as_slice(), &mut sent.ticket);
                    let verdicts = gateway.settle_again(&namespace, &group, what).await;
                    (verdicts, sent)
                });
            }
        }
        let is_idle = open && waiting.is_empty() && calls.is_empty() && again.is_empty();
        tokio::select! {
            Some((verdicts, sent)) = calls.next(), if !calls.is_empty() => match verdicts {
                Ok(verdicts) => hand_out(verdicts, sent),
                Err(error) if error.is_transient() => {
                    tell_hasty(&error, &mut waiting);
                    again.extend(unless_hasty(&error, sent));
                    pause = Some(Instant::now() + RETRY);
                },
                Err(error) => {
                    for asked in sent.asked.into_iter().filter_map(|(_, asked)| asked) {
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
        asked.push((job.items.len(), Some(job.asked)));
        items.extend(job.items);
    }
    Sent {
        items,
        asked,
        ticket: Ticket::default(),
    }
}

/// Redis is away: who has no time is told, and its outcomes go along while others have.
fn unless_hasty(error: &StoreError, mut sent: Sent) -> Option<Sent> {
    for (_, asked) in &mut sent.asked {
        // Nobody waits for it any more when the caller hung up.
        if let Some(hasty) = asked.take_if(|asked| !asked.goes_on()) {
            drop(hasty.answer.send(Err(error.clone())));
        }
    }
    let is_wanted = sent.asked.iter().any(|(_, asked)| asked.is_some());
    is_wanted.then_some(sent)
}

/// The same for what was not sent yet: it would be told no other.
fn tell_hasty(error: &StoreError, waiting: &mut VecDeque<Job>) {
    for job in std::mem::take(waiting) {
        if job.asked.goes_on() {
            waiting.push_back(job);
        } else {
            drop(job.asked.answer.send(Err(error.clone())));
        }
    }
}

fn count(waiting: &VecDeque<Job>) -> usize {
    waiting.iter().map(|job| job.items.len()).sum()
}

fn hand_out(verdicts: Vec<Verdict>, sent: Sent) {
    let mut verdicts = verdicts.into_iter();
    for (count, asked) in sent.asked {
        let mine = verdicts.by_ref().take(count).collect();
        if let Some(asked) = asked {
            // Nobody waits for it any more when the caller hung up.
            drop(asked.answer.send(Ok(mine)));
        }
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
        let mut ticket = Ticket::default();
        self.settle_again(namespace, group, (items, &mut ticket))
            .await
    }

    /// As `settle_now`; a call that failed may be made again under its ticket.
    async fn settle_again(
        &self,
        namespace: &str,
        group: &str,
        (items, ticket): (&[Settle], &mut Ticket),
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
            .settle_again(
                &view.shard,
                view.settling(&lanes),
                (items, ticket),
                now_ms(),
            )
            .await;
        let verdicts = self.unless_deleted(&view, settled, items.len()).await?;
        // An end of an ordered entry makes the next one of its key ready.
        let has_ordered = lanes.iter().any(|lane| lane.lane.lane.is_ordered());
        let ends = |action: &Action| {
            matches!(
                action,
                Action::Ack | Action::Complete { .. } | Action::Suspend { .. }
            )
        };
        if has_ordered || items.iter().any(|item| !ends(&item.action)) {
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
    async fn who_has_no_time_is_told_and_the_call_stays_as_it_was() {
        let asked = |patience: u64| {
            let (answer, verdicts) = oneshot::channel();
            let until = Instant::now() + Duration::from_secs(patience);
            (Some(Asked { until, answer }), verdicts)
        };
        let item = |id: &str| Settle {
            lease: Lease {
                lane: "g/p4".into(),
                id: id.into(),
                count: 1,
                consumer: "a".into(),
                session: "s".into(),
                delivered_ms: 0,
                bytes: 1,
            },
            attach: 1,
            check_session: true,
            action: Action::Ack,
        };
        let ((hasty, told), (patient, answered)) = (asked(0), asked(9));
        let sent = Sent {
            items: vec![item("1-0"), item("2-0"), item("3-0")],
            asked: vec![(2, hasty), (1, patient)],
            ticket: Ticket::default(),
        };
        let away = StoreError::Unavailable {
            detail: "away".into(),
        };
        let again = unless_hasty(&away, sent).expect("somebody waits");
        assert!(told.await.unwrap().is_err());
        assert_eq!(again.items.len(), 3, "its number names these very items");
        let verdicts = vec![Verdict::Done, Verdict::Done, Verdict::Gone];
        hand_out(verdicts, again);
        assert_eq!(answered.await.unwrap().unwrap(), [Verdict::Gone]);
    }

    #[tokio::test]
    async fn a_call_that_nobody_waits_for_is_not_sent_again() {
        let (answer, verdicts) = oneshot::channel();
        let until = Instant::now() + PATIENCE;
        let sent = Sent {
            items: Vec::new(),
            asked: vec![(0, Some(Asked { until, answer }))],
            ticket: Ticket::default(),
        };
        drop(verdicts);
        let away = StoreError::Unavailable {
            detail: "away".into(),
        };
        assert!(unless_hasty(&away, sent).is_none());
    }
}
