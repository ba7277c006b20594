//! What all calls of a gateway share: the store, the queues, the dispatchers.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use hive_protocol::{
    fault::{Fault, Reason},
    limits::FORWARDED_WATCHES_MAX,
};
use hive_runtime::{
    gate::{Gate, Pass},
    peers::Peers,
    shutdown::Shutdown,
    tasks::{BACKGROUND, Tasks},
};
use hive_store::{Shard, Store, StoreError, bells::CancelledLease};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::{
    accepting::Memory,
    attached::Attached,
    bells::Bells,
    catalog::{Catalog, GroupView},
    coordinators::COORDINATORS,
    dead_letters::WORKERS,
    dispatcher::Dispatcher,
    metrics::Metrics,
    placing::Facts,
    publisher::{Publisher, Room},
    pull::Answers,
    routers::ROUTERS,
    settings::Settings,
    settler::Settler,
    watching::WATCHES_MAX,
};

/// Our clock in ms since 1970: recorded, never compared with Redis'.
#[must_use]
pub fn now_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or_default()
}

/// How long a call that changes nothing waits for Redis, all its steps together.
const READ_WITHIN: Duration = Duration::from_secs(3);
/// How long a lease may be under way to its consumer that was ended meanwhile.
const CANCEL_AGAIN: Duration = Duration::from_millis(300);
/// How long nobody has published to a shard before its queue is given up.
const PUBLISHER_IDLE: Duration = Duration::from_secs(60);

/// Runs a call that changes nothing under one deadline.
///
/// # Errors
/// The call's own, or `REDIS_UNAVAILABLE` at the deadline.
pub async fn reading<T>(call: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    match tokio::time::timeout(READ_WITHIN, call).await {
        Ok(answer) => answer,
        Err(_elapsed) => {
            let detail = "no answer within 3 s".into();
            Err(StoreError::Unavailable { detail }.into())
        },
    }
}

type ByGroup<T> = Mutex<HashMap<(String, String), T>>;

/// A running gateway.
pub struct Gateway {
    /// Redis.
    pub store: Store,
    /// Definitions and lanes.
    pub catalog: Catalog,
    /// Definitions for the time after a loss.
    pub memory: Memory,
    /// Wakes whoever waits for work.
    pub bells: Arc<Bells>,
    /// Instruments.
    pub metrics: Arc<Metrics>,
    /// Starts tasks.
    pub tasks: Tasks,
    /// Says when to stop.
    pub shutdown: Shutdown,
    /// Random word of this start.
    pub incarnation: Arc<str>,
    /// Configuration.
    pub settings: Settings,
    gate: Gate,
    publishers: Mutex<HashMap<Shard, (Publisher, Instant)>>,
    /// Lines of publishes that there were: each has flush numbers of its own.
    lines: AtomicU64,
    pub(crate) room: Room,
    settlers: ByGroup<Settler>,
    dispatchers: ByGroup<Arc<Dispatcher>>,
    pub(crate) answers: Answers,
    /// Places for watches of groups.
    pub(crate) watches: Arc<Semaphore>,
    /// What is known of groups, for messages that name none.
    pub(crate) facts: Facts,
    /// Routers that take calls about workflows.
    pub routers: Peers,
    /// Places for watches of workflows.
    pub(crate) workflow_watches: Arc<Semaphore>,
    /// Workers that take calls about dead letters.
    pub dead_letters: Peers,
    /// Coordinators that take calls about placement, rebalancing and scaling.
    pub coordinators: Peers,
    /// Places for watches of how groups are scaled.
    pub(crate) scaling_watches: Arc<Semaphore>,
    redis_is_there: AtomicBool,
    gateways: AtomicUsize,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway")
            .field("incarnation", &self.incarnation)
            .finish_non_exhaustive()
    }
}

impl Gateway {
    /// A gateway over a store; starts nothing yet.
    #[must_use]
    pub fn new(
        store: Store,
        settings: Settings,
        incarnation: Arc<str>,
        (tasks, shutdown, gate): (Tasks, Shutdown, Gate),
    ) -> Arc<Self> {
        Arc::new(Self {
            catalog: Catalog::new(store.clone()),
            memory: Memory::default(),
            bells: Arc::new(Bells::default()),
            metrics: Arc::new(Metrics::new()),
            tasks,
            shutdown,
            incarnation,
            settings,
            gate,
            store,
            publishers: Mutex::default(),
            lines: AtomicU64::new(0),
            room: Room::default(),
            settlers: Mutex::default(),
            dispatchers: Mutex::default(),
            answers: Answers::default(),
            watches: Arc::new(Semaphore::new(WATCHES_MAX)),
            facts: Facts::default(),
            routers: Peers::new(&ROUTERS),
            workflow_watches: Arc::new(Semaphore::new(FORWARDED_WATCHES_MAX)),
            dead_letters: Peers::new(&WORKERS),
            coordinators: Peers::new(&COORDINATORS),
            scaling_watches: Arc::new(Semaphore::new(FORWARDED_WATCHES_MAX)),
            redis_is_there: AtomicBool::new(true),
            gateways: AtomicUsize::new(usize::MAX),
        })
    }

    /// Largest payload of a message in bytes.
    #[must_use]
    pub fn payload_max(&self) -> usize {
        self.settings.payload_max
    }

    /// Largest request body in bytes.
    #[must_use]
    pub fn door_bytes_max(&self) -> usize {
        hive_protocol::limits::FRAME_BYTES_MAX
    }

    /// Notes whether Redis answered the last beat.
    pub fn note_redis(&self, is_there: bool) {
        self.redis_is_there.store(is_there, Ordering::Relaxed);
    }

    /// Whether Redis answered the last beat.
    #[must_use]
    pub fn redis_is_there(&self) -> bool {
        self.redis_is_there.load(Ordering::Relaxed)
    }

    /// Notes how many gateways live, this one included.
    pub fn note_gateways(&self, count: usize) {
        self.gateways.store(count, Ordering::Relaxed);
        self.bells.set_alone(count <= 1);
    }

    /// Whether no other gateway is known to live: there is nobody to share with.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.gateways.load(Ordering::Relaxed) <= 1
    }

    /// Lets a unary call in: it is waited for at shutdown.
    ///
    /// # Errors
    /// `DRAINING` once the shutdown began.
    pub fn enter(&self, call: &'static str) -> Result<Pass, Fault> {
        if self.shutdown.is_draining() {
            return Err(Fault::new(Reason::Draining, "this gateway is going away")
                .with_retry_after(Duration::from_millis(200)));
        }
        Ok(self.gate.enter(call))
    }

    /// The publish queue of a shard.
    pub fn publisher(&self, shard: &Shard) -> Publisher {
        let mut publishers = self.publishers.lock();
        if let Some((publisher, used)) = publishers.get_mut(shard) {
            *used = Instant::now();
            return publisher.clone();
        }
        // A word of its own: flush numbers are this task's alone, and begin anew with the next one.
        let line = self.lines.fetch_add(1, Ordering::Relaxed);
        let (publisher, task) = Publisher::new(
            (self.store.clone(), shard.clone()),
            format!("{}.{line}", self.incarnation).into(),
            self.bells.clone(),
            self.metrics.clone(),
        );
        self.tasks.spawn(BACKGROUND, "publisher", task);
        publishers.insert(shard.clone(), (publisher.clone(), Instant::now()));
        publisher
    }

    /// Forgets publishers that nobody used for a minute; they end. Streams come and go.
    pub(crate) fn retire_publishers(&self) {
        // Under the lock: nobody takes another handle meanwhile.
        let mut publishers = self.publishers.lock();
        publishers.retain(|_, (publisher, used)| {
            used.elapsed() < PUBLISHER_IDLE || !publisher.is_alone()
        });
    }

    /// The settle queue of a group.
    pub fn settler(self: &Arc<Self>, namespace: &str, group: &str) -> Settler {
        let key = (namespace.to_owned(), group.to_owned());
        let mut settlers = self.settlers.lock();
        if let Some(settler) = settlers.get(&key) {
            return settler.clone();
        }
        let (settler, task) = Settler::new(self.clone(), key.0.clone(), key.1.clone());
        self.tasks.spawn(BACKGROUND, "settler", task);
        settlers.insert(key, settler.clone());
        settler
    }

    /// Forgets a settler that nobody uses; it ends.
    pub(crate) fn retire_settler(&self, namespace: &str, group: &str) {
        let key = (namespace.to_owned(), group.to_owned());
        // Under the lock: nobody takes another handle meanwhile.
        let mut settlers = self.settlers.lock();
        if settlers.get(&key).is_some_and(Settler::is_alone) {
            settlers.remove(&key);
        }
    }

    /// Attaches a consumer to its group's dispatcher, which its first consumer starts; answers the
    /// dispatcher, and the connection that has to go.
    pub fn attach(
        self: &Arc<Self>,
        view: &GroupView,
        consumer: &Arc<Attached>,
    ) -> (Arc<Dispatcher>, Option<Arc<Attached>>) {
        let key = (view.namespace.clone(), view.definition.name.clone());
        // Under the lock: a dispatcher that is about to retire takes nobody in.
        let mut dispatchers = self.dispatchers.lock();
        let dispatcher = match dispatchers.get(&key) {
            // A group that was deleted and made again may read another stream.
            Some(dispatcher) if dispatcher.shard == view.shard => dispatcher.clone(),
            Some(_) | None => {
                let dispatcher = Arc::new(Dispatcher::new(view, self.bells.listen(&view.shard)));
                let run = dispatcher.clone().run(self.clone());
                self.tasks.spawn(BACKGROUND, "dispatcher", run);
                dispatchers.insert(key, dispatcher.clone());
                dispatcher
            },
        };
        let going = dispatcher.attach(consumer);
        (dispatcher, going)
    }

    /// Forgets a dispatcher that has had no consumer for a while; it ends.
    pub(crate) fn retire(&self, dispatcher: &Arc<Dispatcher>) -> bool {
        let mut dispatchers = self.dispatchers.lock();
        if !dispatcher.is_empty() {
            return false;
        }
        let key = (dispatcher.namespace.clone(), dispatcher.group.clone());
        if dispatchers
            .get(&key)
            .is_some_and(|held| Arc::ptr_eq(held, dispatcher))
        {
            dispatchers.remove(&key);
        }
        true
    }

    /// Takes a lease away whose task was decided elsewhere, where it is a consumer's of this
    /// gateway. `channel` is that of its shard.
    pub(crate) fn cancel(&self, channel: &str, lease: &CancelledLease) {
        let of_group: Vec<Arc<Dispatcher>> = {
            let dispatchers = self.dispatchers.lock();
            let is_meant =
                |one: &&Arc<Dispatcher>| one.group == lease.group && one.shard.cancels() == channel;
            dispatchers.values().filter(is_meant).cloned().collect()
        };
        for dispatcher in of_group {
            if !dispatcher.cancel(lease) {
                // The bell may come before the answer of the fetch that leased it.
                let lease = lease.clone();
                self.tasks.spawn(BACKGROUND, "cancel_again", async move {
                    tokio::time::sleep(CANCEL_AGAIN).await;
                    dispatcher.cancel(&lease);
                });
            }
        }
    }

    /// The dispatcher of a group that has consumers here.
    pub(crate) fn dispatcher(&self, namespace: &str, group: &str) -> Option<Arc<Dispatcher>> {
        let key = (namespace.to_owned(), group.to_owned());
        self.dispatchers.lock().get(&key).cloned()
    }

    /// Dispatchers that have consumers, for the beat of their shards.
    pub(crate) fn dispatchers(&self) -> Vec<Arc<Dispatcher>> {
        self.dispatchers.lock().values().cloned().collect()
    }
}
