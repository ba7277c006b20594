//! What streams, groups and lanes there are, remembered for a moment.
//!
//! Every message needs its group's definition and its shard's lanes; reading both from Redis each
//! time would double the cost of a message. What is remembered is at most a second old, and never
//! trusted where it matters: scripts check state, groups and lanes again and answer that they
//! changed.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use hive_domain::{
    group::{GroupDefinition, GroupState, OrderingOnDead},
    stream::{Durability, StreamDefinition},
};
use hive_protocol::fault::{Fault, Reason};
use hive_store::{
    Shard, Store, StoreError,
    fetch::{Lanes, ReadLane},
    settle::SettleGroup,
};
use parking_lot::Mutex;

/// How long a definition is trusted.
const FRESH: Duration = Duration::from_secs(1);
/// Most remembered entries of a kind; beyond it all are forgotten and read again.
const REMEMBERED_MAX: usize = 20_000;

/// A group as the gateway works with it.
#[derive(Debug, Clone)]
pub struct GroupView {
    /// Its namespace.
    pub namespace: String,
    /// Its definition.
    pub definition: GroupDefinition,
    /// The definition of its stream.
    pub stream: StreamDefinition,
    /// Its shard.
    pub shard: Shard,
}

impl GroupView {
    /// Ageing of priorities as scripts take it: 0 for strict priorities.
    #[must_use]
    pub fn ageing_ms(&self) -> u64 {
        self.definition.settings.ageing_ms()
    }

    /// How long a task is held for who last worked on its run, as the fetch takes it.
    #[must_use]
    pub fn affinity_wait_ms(&self) -> u64 {
        self.definition.settings.routing_mode.affinity_wait_ms()
    }

    /// What a settle must know of the group.
    #[must_use]
    pub fn settling<'a>(&'a self, lanes: &'a [ReadLane]) -> SettleGroup<'a> {
        let settings = &self.definition.settings;
        SettleGroup {
            name: &self.definition.name,
            lanes,
            ageing_ms: self.ageing_ms(),
            max_attempts: settings.max_attempts,
            initial_backoff_ms: settings.initial_backoff_ms,
            max_backoff_ms: settings.max_backoff_ms,
            durable: self.is_durable(),
            keep: self.stream.settings.keeps_settled(),
            block: settings.ordering_on_dead == OrderingOnDead::Block,
        }
    }

    /// Whether an answer waits for the disk.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.stream.settings.durability == Durability::Local
    }
}

/// A stream as the gateway works with it.
#[derive(Debug, Clone)]
pub struct StreamView {
    /// Its definition.
    pub definition: StreamDefinition,
    /// Its shard.
    pub shard: Shard,
    /// The groups that the shard has.
    pub groups: Vec<String>,
}

type Remembered<T> = Mutex<HashMap<(String, String), (Instant, Arc<T>)>>;

/// The catalog.
pub struct Catalog {
    store: Store,
    groups: Remembered<GroupView>,
    streams: Remembered<StreamView>,
    lanes: Mutex<HashMap<Shard, (Instant, Arc<Lanes>)>>,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").finish_non_exhaustive()
    }
}

impl Catalog {
    /// A catalog that remembers nothing yet.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self {
            store,
            groups: Mutex::default(),
            streams: Mutex::default(),
            lanes: Mutex::default(),
        }
    }

    /// A group that takes calls: there, and neither being made nor being deleted.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`, `GROUP_GONE`, or what Redis says.
    pub async fn group(&self, namespace: &str, name: &str) -> Result<Arc<GroupView>, Fault> {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(view) = fresh(&self.groups, &key) {
            return Ok(view);
        }
        match self.read_group(namespace, name).await {
            Ok(view) => {
                remember(&self.groups, key, &view);
                Ok(view)
            },
            // Redis is away: what was known serves until it is back, scripts check again.
            Err(fault) if fault.reason == Reason::RedisUnavailable => {
                stale(&self.groups, &key).ok_or(fault)
            },
            Err(fault) => {
                self.groups.lock().remove(&key);
                Err(fault)
            },
        }
    }

    async fn read_group(&self, namespace: &str, name: &str) -> Result<Arc<GroupView>, Fault> {
        let Some(definition) = self.store.group(namespace, name).await? else {
            // A group that is gone with everything else was not deleted.
            self.store.check_dataset().await?;
            return Err(Fault::no_group(name));
        };
        match definition.state {
            GroupState::Active | GroupState::Paused => {},
            GroupState::Creating => return Err(Fault::no_group(name)),
            GroupState::Deleting => {
                return Err(Fault::new(
                    Reason::GroupGone,
                    format!("group `{name}` is being deleted"),
                ));
            },
        }
        let stream = self
            .store
            .stream(namespace, &definition.stream)
            .await?
            .ok_or_else(|| {
                Fault::from(StoreError::Lost {
                    what: format!("definition of stream `{}`", definition.stream),
                })
            })?;
        let shard = self.store.shard(namespace, &definition.stream, 0);
        let namespace = namespace.to_owned();
        Ok(Arc::new(GroupView {
            namespace,
            definition,
            stream,
            shard,
        }))
    }

    /// A stream and the groups that read it.
    ///
    /// # Errors
    /// `STREAM_NOT_FOUND`, or what Redis says.
    pub async fn stream(&self, namespace: &str, name: &str) -> Result<Arc<StreamView>, Fault> {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(view) = fresh(&self.streams, &key) {
            return Ok(view);
        }
        let Some(definition) = self.store.stream(namespace, name).await? else {
            self.store.check_dataset().await?;
            return Err(Fault::no_stream(name));
        };
        let shard = self.store.shard(namespace, name, 0);
        let groups = self.store.groups_on_shard(&shard).await?;
        let view = Arc::new(StreamView {
            definition,
            shard,
            groups,
        });
        remember(&self.streams, key, &view);
        Ok(view)
    }

    /// The lanes of a shard.
    ///
    /// # Errors
    /// What Redis says.
    pub async fn lanes(&self, shard: &Shard) -> Result<Arc<Lanes>, StoreError> {
        if let Some((read, lanes)) = self.lanes.lock().get(shard)
            && read.elapsed() < FRESH
        {
            return Ok(lanes.clone());
        }
        self.read_lanes(shard).await
    }

    /// The lanes of a shard, read now.
    ///
    /// # Errors
    /// What Redis says.
    pub async fn read_lanes(&self, shard: &Shard) -> Result<Arc<Lanes>, StoreError> {
        let lanes = Arc::new(self.store.lanes(shard).await?);
        let mut remembered = self.lanes.lock();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(shard.clone(), (Instant::now(), lanes.clone()));
        Ok(lanes)
    }

    /// Forgets a group and its stream: something showed that they changed.
    pub fn forget(&self, namespace: &str, group: &str, stream: &str) {
        self.groups
            .lock()
            .remove(&(namespace.to_owned(), group.to_owned()));
        self.forget_stream(namespace, stream);
    }

    /// Forgets a stream and what its groups say of it: something showed that it changed.
    pub fn forget_stream(&self, namespace: &str, stream: &str) {
        self.groups.lock().retain(|(held_namespace, _), (_, view)| {
            held_namespace != namespace || view.definition.stream != stream
        });
        self.streams
            .lock()
            .remove(&(namespace.to_owned(), stream.to_owned()));
    }
}

fn fresh<T>(remembered: &Remembered<T>, key: &(String, String)) -> Option<Arc<T>> {
    let held = remembered.lock();
    held.get(key)
        .filter(|(read, _)| read.elapsed() < FRESH)
        .map(|(_, view)| view.clone())
}

fn stale<T>(remembered: &Remembered<T>, key: &(String, String)) -> Option<Arc<T>> {
    remembered.lock().get(key).map(|(_, view)| view.clone())
}

fn remember<T>(remembered: &Remembered<T>, key: (String, String), view: &Arc<T>) {
    let mut held = remembered.lock();
    if held.len() >= REMEMBERED_MAX {
        held.clear();
    }
    held.insert(key, (Instant::now(), view.clone()));
}
