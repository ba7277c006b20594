//! Who looks after what, and the rounds of the owners.
//!
//! Shards and partitions are split over the live routers by rendezvous hashing. An owner spares
//! others the work; two owners at one time do no harm, because every step is checked again when it
//! is written, and no owner for a moment only delays.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use hive_domain::{
    ownership,
    workflow::{Event, RunStatus},
};
use hive_runtime::{
    shutdown::Shutdown,
    tasks::{LOOP, TaskHandle},
};
use hive_store::{
    StoreError,
    keys::Shard,
    letters::{Found, Index, Letter, Order},
    runs::Partition,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::{
    desk::{Desk, StepError},
    metrics::{self, Loop},
    names::{PARTITIONS, RunName},
    settled,
};

/// Pause between two rounds over definitions and owners.
const ROUND: Duration = Duration::from_secs(1);
/// Pause between two looks at timers.
const TIMERS: Duration = Duration::from_millis(200);
/// Pause between two looks at outboxes.
const OUTBOXES: Duration = Duration::from_secs(1);
/// Entries of an outbox younger than this are carried out by whoever wrote them.
const LEFT_MS: u64 = 1_000;
/// Entries of an outbox, or runs of a partition, taken in one look.
const SLICE: usize = 1_000;
/// Runs that are worked on at once by one loop.
const RUNS_AT_ONCE: usize = 32;
/// A failed run with dead letters is looked at again after so long.
const KEEP_MS: u64 = 3_600_000;
/// Pause between two rounds that forget what ended long ago.
const RETENTION: Duration = Duration::from_secs(10);

/// What this router looks after now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Owned {
    /// Partitions by namespace.
    pub(crate) partitions: BTreeMap<Arc<str>, Vec<u32>>,
    /// Shards that hold tasks.
    pub(crate) shards: Vec<Shard>,
}

/// The bells of the shards that this router follows.
pub(crate) type Bells = Arc<Mutex<BTreeMap<String, Arc<Notify>>>>;

/// Looks after what is this router's until the daemon drains.
pub(crate) async fn run(
    desk: Arc<Desk>,
    me: String,
    routers: watch::Receiver<Vec<String>>,
    shutdown: Shutdown,
) {
    let (sender, owned) = watch::channel(Owned::default());
    let bells = Bells::default();
    let ears = listen(&desk, &bells);
    let owners = own(&desk, &me, routers, &sender, &bells);
    let timers = every(TIMERS, Loop::Timers, || {
        timers(&desk, owned.borrow().clone())
    });
    let places = tokio::sync::Mutex::new(Places::default());
    let outboxes = every(OUTBOXES, Loop::Outbox, || async {
        let now = owned.borrow().clone();
        outboxes(&desk, now, &mut *places.lock().await).await
    });
    let retention = every(RETENTION, Loop::Retention, || {
        retention(&desk, owned.borrow().clone())
    });
    let audit = crate::audit::run(&desk, &owned);
    tokio::select! {
        () = ears => {},
        () = owners => {},
        () = timers => {},
        () = outboxes => {},
        () = retention => {},
        () = audit => {},
        () = shutdown.draining() => {},
    }
}

/// Does something again and again; an error is counted, and the next round tries again.
pub(crate) async fn every<F>(pause: Duration, of: Loop, mut round: impl FnMut() -> F)
where
    F: Future<Output = Result<(), StepError>>,
{
    let mut pace = tokio::time::interval(pause);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        if let Err(error) = round().await {
            metrics::round_failed(of);
            tracing::debug!(%error, ?of, "round_failed");
        }
    }
}

/// Follows the shards and takes the partitions that are this router's, by the list of live ones.
async fn own(
    desk: &Arc<Desk>,
    me: &str,
    routers: watch::Receiver<Vec<String>>,
    owned: &watch::Sender<Owned>,
    bells: &Bells,
) {
    let mut followed: BTreeMap<Shard, Followed> = BTreeMap::new();
    let mut pace = tokio::time::interval(ROUND);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut server = String::new();
    loop {
        tokio::select! {
            _ = pace.tick() => {},
            () = desk.new_namespace.notified() => {},
        }
        let routers = routers.borrow().clone();
        let is_mine = |key: &str| ownership::owner(key, &routers) == Some(me);
        let now = match look(desk, is_mine).await {
            Ok(now) => now,
            Err(error) => {
                metrics::round_failed(Loop::Beat);
                tracing::debug!(%error, "definitions_not_read");
                continue;
            },
        };
        // Another server, or the same one started anew, may have lost steps.
        let answering = desk.store.run_id();
        if answering != server {
            desk.forget_all();
            // Positions of followers too.
            followed.clear();
            server = answering;
        }
        let partitions = now.partitions.values().map(Vec::len).sum();
        metrics::owned_partitions(partitions);
        let mine: BTreeSet<&Shard> = now.mine.iter().map(|(_, shard)| shard).collect();
        followed.retain(|shard, one| mine.contains(shard) && !one.task.is_finished());
        for (namespace, shard) in &now.mine {
            if !followed.contains_key(shard) {
                let bell = Arc::new(Notify::new());
                bells.lock().insert(shard.settled(), Arc::clone(&bell));
                let (desk, namespace) = (Arc::clone(desk), Arc::clone(namespace));
                let name = format!("settled of {shard:?}");
                let follow = settled::follow(Arc::clone(&desk), namespace, shard.clone(), bell);
                let task = desk.tasks.spawn(LOOP, name, follow);
                followed.insert(shard.clone(), Followed { task });
            }
        }
        bells
            .lock()
            .retain(|channel, _| followed.keys().any(|shard| shard.settled() == *channel));
        owned.send_replace(Owned {
            partitions: now.partitions,
            shards: followed.keys().cloned().collect(),
        });
    }
}

/// A shard that is followed until this is dropped.
struct Followed {
    task: TaskHandle,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is this router's, by definitions.
struct Look {
    partitions: BTreeMap<Arc<str>, Vec<u32>>,
    mine: Vec<(Arc<str>, Shard)>,
}

async fn look(desk: &Desk, is_mine: impl Fn(&str) -> bool) -> Result<Look, StoreError> {
    desk.store.read_clock().await?;
    let (mut partitions, mut mine) = (BTreeMap::new(), Vec::new());
    for namespace in desk.store.workflow_namespaces().await? {
        let namespace: Arc<str> = namespace.into();
        let numbers: Vec<u32> = (0..PARTITIONS)
            .filter(|number| is_mine(&format!("{namespace}/~wf/{number}")))
            .collect();
        for stream in desk.store.streams(&namespace).await? {
            for index in 0..stream.shards {
                if is_mine(&format!("{namespace}/{}/{index}", stream.name)) {
                    let shard = desk.store.shard(&namespace, &stream.name, index);
                    mine.push((Arc::clone(&namespace), shard));
                }
            }
        }
        partitions.insert(namespace, numbers);
    }
    Ok(Look { partitions, mine })
}

/// Hears the bells of shards, and wakes who follows them.
async fn listen(desk: &Desk, bells: &Bells) {
    loop {
        if let Ok(line) = desk.store.lines(&[hive_store::bells::Line::Settled]).await {
            // What rang before is found by the look that this wakes.
            for bell in bells.lock().values() {
                bell.notify_one();
            }
            line.listen(|channel, _| {
                if let Some(bell) = bells.lock().get(channel) {
                    bell.notify_one();
                }
            })
            .await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn partitions(desk: &Desk, namespace: &str, numbers: &[u32]) -> Vec<Partition> {
    let of = |number: &u32| desk.store.partition(namespace, *number);
    numbers.iter().map(of).collect()
}

/// Lets time pass for runs that are due.
async fn timers(desk: &Arc<Desk>, owned: Owned) -> Result<(), StepError> {
    for (namespace, numbers) in owned.partitions {
        let here = partitions(desk, &namespace, &numbers);
        if here.is_empty() {
            continue;
        }
        let now = desk.now().as_millis();
        let due = desk.store.due_runs(&here, now, SLICE).await?;
        let mut ticks = stream::iter(due.into_iter().flatten())
            .map(|run_id| {
                let name = RunName::new(&namespace, &run_id);
                async move { tick(desk, &name).await }
            })
            .buffer_unordered(RUNS_AT_ONCE);
        while let Some(ticked) = ticks.next().await {
            ticked?;
        }
    }
    Ok(())
}

/// Lets time pass for one run.
pub(crate) async fn tick(desk: &Arc<Desk>, name: &RunName) -> Result<(), StepError> {
    match desk.step(name, |draft| draft.apply(Event::Tick)).await {
        Ok(_) | Err(StepError::Gone) => Ok(()),
        Err(StepError::Undecodable(error)) => {
            metrics::undecodable();
            tracing::error!(run_id = &*name.run_id, %error, "run_does_not_decode");
            Ok(())
        },
        Err(error) => Err(error),
    }
}

/// Where the next look at an outbox goes on: what a full group refuses stays in it, and must not
/// hide what stands behind it.
type Places = BTreeMap<(Arc<str>, u32), String>;

/// Carries out what was left in outboxes.
async fn outboxes(desk: &Arc<Desk>, owned: Owned, places: &mut Places) -> Result<(), StepError> {
    for (namespace, numbers) in owned.partitions {
        let here: Vec<(Partition, String)> = numbers
            .iter()
            .map(|number| {
                let after = places.get(&(Arc::clone(&namespace), *number)).cloned();
                let partition = desk.store.partition(&namespace, *number);
                (partition, after.unwrap_or_else(|| "0-0".to_owned()))
            })
            .collect();
        if here.is_empty() {
            continue;
        }
        let until = desk.now().minus(LEFT_MS).as_millis();
        let left = desk.store.read_outboxes(&here, until, SLICE).await?;
        for (number, entries) in numbers.iter().zip(left) {
            let place = (Arc::clone(&namespace), *number);
            match entries.last().filter(|_| entries.len() == SLICE) {
                Some(last) => places.insert(place, last.id.clone()),
                None => places.remove(&place),
            };
            if !entries.is_empty() {
                desk.take_over(&namespace, *number, entries).await?;
            }
        }
    }
    Ok(())
}

/// Forgets runs and records of shards that ended long ago.
async fn retention(desk: &Arc<Desk>, owned: Owned) -> Result<(), StepError> {
    for shard in &owned.shards {
        settled::trim(desk, shard).await?;
    }
    let before = desk.now().minus(desk.settings.retention_ms).as_millis();
    for (namespace, numbers) in owned.partitions {
        let here = partitions(desk, &namespace, &numbers);
        if here.is_empty() {
            continue;
        }
        let ended = desk.store.runs_ended_before(&here, before, SLICE).await?;
        for run_id in ended.into_iter().flatten() {
            let name = RunName::new(&namespace, &run_id);
            if desk.has_dead_letters(&name).await? {
                desk.keep(&name, before.saturating_add(KEEP_MS)).await?;
                continue;
            }
            match desk.delete(&name).await {
                // False: it was revived meanwhile.
                Ok(_) | Err(StepError::Gone) => {},
                Err(StepError::Undecodable(error)) => {
                    metrics::undecodable();
                    tracing::error!(run_id = &*name.run_id, %error, "run_does_not_decode");
                },
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

impl Desk {
    /// Whether a run has failed and dead letters of its tasks are in the queue: a replay takes it
    /// up again.
    async fn has_dead_letters(&self, name: &RunName) -> Result<bool, StepError> {
        let seen = self.look(name, |loaded| {
            let workflow_id = loaded.run.definition().workflow_id.clone();
            (workflow_id, loaded.run.status())
        });
        let (workflow_id, status) = match seen.await {
            Ok(seen) => seen,
            Err(StepError::Gone | StepError::Undecodable(_)) => return Ok(false),
            Err(error) => return Err(error),
        };
        if status != RunStatus::Failed {
            return Ok(false);
        }
        let letters = self.store.letters(&name.namespace);
        let index = Index::Workflow(workflow_id);
        let mut after = None;
        loop {
            let page = self
                .store
                .letter_ids(
                    &letters,
                    &index,
                    (Order::Newest, after.as_ref()),
                    (0, 0),
                    SLICE,
                )
                .await?;
            let ids: Vec<String> = page.iter().map(|place| place.id.clone()).collect();
            let read = self.store.read_letters(&letters, &ids).await?;
            let is_its =
                |letter: &Letter| letter.facts.run_id == *name.run_id && letter.status.is_live();
            if read
                .into_iter()
                .filter_map(Found::there)
                .any(|letter| is_its(&letter))
            {
                return Ok(true);
            }
            if page.len() < SLICE {
                return Ok(false);
            }
            after = page.into_iter().last();
        }
    }

    /// Looks at an ended run again later: it is kept as if it had ended then.
    async fn keep(&self, name: &RunName, ended_ms: u64) -> Result<(), StepError> {
        if let Some(partition) = name.partition(&self.store) {
            self.store
                .keep_ended(&partition, &name.run_id, ended_ms)
                .await?;
        }
        Ok(())
    }

    /// Forgets a run for good, if it has ended; answers whether it had.
    pub(crate) async fn delete(&self, name: &RunName) -> Result<bool, StepError> {
        let seen = self.look(name, |loaded| {
            let definition = loaded.run.definition();
            let workflow_id = definition.workflow_id.clone();
            (workflow_id, loaded.run.status(), loaded.version)
        });
        let (workflow_id, status, version) = match seen.await {
            Ok(seen) => seen,
            Err(StepError::Gone) => return Ok(true),
            Err(error) => return Err(error),
        };
        let has_ended = match status {
            RunStatus::Running | RunStatus::Paused => false,
            RunStatus::Succeeded | RunStatus::Failed | RunStatus::Cancelled => true,
        };
        let Some(partition) = name.partition(&self.store).filter(|_| has_ended) else {
            return Ok(false);
        };
        let as_seen = (status.as_str(), version);
        let deleted = self
            .store
            .delete_run(&partition, &workflow_id, &name.run_id, as_seen)
            .await?;
        if deleted {
            self.forget(name);
        }
        Ok(deleted)
    }
}
