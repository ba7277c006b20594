//! Who looks after what, and the rounds of the owners.
//!
//! Shards and namespaces are split over the live workers by rendezvous hashing. An owner spares
//! others the work; two owners at one time do no harm, because a record is taken once and changes
//! by compare-and-set, and no owner for a moment only delays.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use hive_domain::ownership;
use hive_runtime::{
    shutdown::Shutdown,
    tasks::{LOOP, TaskHandle},
};
use hive_store::{StoreError, letters::Letters};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    desk::Desk,
    intake::{self, Place},
    jobs,
    metrics::{self, Loop},
    outcomes, recovery, trim,
};

/// Pause between two rounds over definitions and owners.
const ROUND: Duration = Duration::from_secs(1);
/// Pause between two rounds over a namespace, and while a job is under way.
const NAMESPACE: Duration = Duration::from_millis(500);
const NAMESPACE_BUSY: Duration = Duration::from_millis(10);
/// Recovery and outcomes come by at least so often while a job is under way.
const OTHERS: Duration = Duration::from_millis(500);
/// Pause between two rounds over what is old.
const CLEANUP: Duration = Duration::from_secs(10);

/// What each namespace that this replica looks after holds: live dead letters, open breakers.
type Held = Arc<Mutex<BTreeMap<Arc<str>, (u64, u64)>>>;

/// Looks after what is this worker's until the daemon drains.
pub(crate) async fn run(
    desk: Arc<Desk>,
    me: String,
    workers: watch::Receiver<Vec<String>>,
    shutdown: Shutdown,
) {
    tokio::select! {
        () = own(&desk, &me, workers) => {},
        () = shutdown.draining() => {},
    }
}

/// A task that ends when this is dropped.
struct Kept {
    task: TaskHandle,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is this worker's, by definitions.
struct Look {
    namespaces: Vec<Arc<str>>,
    places: Vec<Place>,
}

/// Follows the shards and looks after the namespaces that are this worker's.
async fn own(desk: &Arc<Desk>, me: &str, workers: watch::Receiver<Vec<String>>) {
    let mut followed: BTreeMap<String, Kept> = BTreeMap::new();
    let mut kept: BTreeMap<Arc<str>, Kept> = BTreeMap::new();
    let held = Held::default();
    let mut pace = tokio::time::interval(ROUND);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut server = String::new();
    loop {
        pace.tick().await;
        let workers = workers.borrow().clone();
        let is_mine = |key: &str| ownership::owner(key, &workers) == Some(me);
        let now = match look(desk, is_mine).await {
            Ok(now) => now,
            Err(error) => {
                metrics::round_failed(Loop::Beat);
                tracing::debug!(%error, "definitions_not_read");
                continue;
            },
        };
        // Another server, or the same one started anew, may have lost what was stored.
        let answering = desk.store.run_id();
        if answering != server {
            followed.clear();
            server = answering;
        }
        let mine: BTreeSet<&str> = now.places.iter().map(|place| place.shard.tag()).collect();
        followed.retain(|tag, one| mine.contains(tag.as_str()) && !one.task.is_finished());
        for place in &now.places {
            if !followed.contains_key(place.shard.tag()) {
                let name = format!("dead letters of {:?}", place.shard);
                let follow = intake::follow(Arc::clone(desk), place.clone());
                let task = desk.tasks.spawn(LOOP, name, follow);
                followed.insert(place.shard.tag().to_owned(), Kept { task });
            }
        }
        kept.retain(|name, one| now.namespaces.contains(name) && !one.task.is_finished());
        held.lock().retain(|name, _| now.namespaces.contains(name));
        for name in &now.namespaces {
            if !kept.contains_key(name) {
                let task = keep(Arc::clone(desk), Arc::clone(name), Arc::clone(&held));
                let task = desk
                    .tasks
                    .spawn(LOOP, format!("dead letters of `{name}`"), task);
                kept.insert(Arc::clone(name), Kept { task });
            }
        }
        let (live, breakers) = held
            .lock()
            .values()
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        metrics::looked_after(live, breakers);
    }
}

async fn look(desk: &Desk, is_mine: impl Fn(&str) -> bool) -> Result<Look, StoreError> {
    desk.store.read_clock().await?;
    let (mut namespaces, mut places) = (Vec::new(), Vec::new());
    for namespace in desk.store.namespaces().await? {
        let namespace: Arc<str> = namespace.into();
        for stream in desk.store.streams(&namespace).await? {
            for index in 0..stream.shards {
                if is_mine(&format!("{namespace}/{}/{index}", stream.name)) {
                    places.push(Place {
                        namespace: Arc::clone(&namespace),
                        stream: stream.name.as_str().into(),
                        index,
                        shard: desk.store.shard(&namespace, &stream.name, index),
                    });
                }
            }
        }
        if is_mine(&format!("{namespace}/~dead")) {
            namespaces.push(namespace);
        }
    }
    Ok(Look { namespaces, places })
}

/// Looks after one namespace until the future is dropped.
async fn keep(desk: Arc<Desk>, namespace: Arc<str>, held: Held) {
    let letters = desk.letters(&namespace);
    tokio::join!(rounds(&desk, &letters, &held), cleanup(&desk, &letters));
}

async fn rounds(desk: &Desk, letters: &Letters, held: &Held) {
    let (mut groups, mut running) = (recovery::Memory::default(), jobs::Memory::default());
    let mut others = None;
    loop {
        let is_due = others.is_none_or(|at: tokio::time::Instant| at.elapsed() >= OTHERS);
        let round = async {
            if is_due {
                outcomes::round(desk, letters).await?;
                let open = recovery::round(desk, letters, &mut groups).await?;
                let live = desk.store.letter_totals(letters).await?.live;
                let name = Arc::clone(letters.namespace());
                held.lock().insert(name, (live, open));
            }
            jobs::round(desk, letters, &mut running).await
        };
        let is_busy = match round.await {
            Ok(is_busy) => is_busy,
            Err(error) => {
                metrics::round_failed(Loop::Namespace);
                tracing::debug!(%error, namespace = &**letters.namespace(), "round_failed");
                false
            },
        };
        if is_due {
            others = Some(tokio::time::Instant::now());
        }
        tokio::time::sleep(if is_busy { NAMESPACE_BUSY } else { NAMESPACE }).await;
    }
}

/// Removes records that are old.
async fn cleanup(desk: &Desk, letters: &Letters) {
    loop {
        if let Err(error) = trim::old(desk, letters).await {
            metrics::round_failed(Loop::Cleanup);
            tracing::debug!(%error, namespace = &**letters.namespace(), "cleanup_failed");
        }
        tokio::time::sleep(CLEANUP).await;
    }
}
