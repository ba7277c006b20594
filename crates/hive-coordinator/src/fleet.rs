//! Who owns what: beats into the registry, and starts and stops the loops of shards.
//!
//! Every replica computes the same owner from the same list of live coordinators. While lists
//! differ, for a beat or two, a shard may have two owners or none. Definitions are read beside the
//! beat: however many namespaces there are, the registry hears of this replica in time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hive_domain::group::GroupState;
use hive_domain::ownership;
use hive_runtime::health::Component;
use hive_runtime::shutdown::Shutdown;
use hive_runtime::tasks::{LOOP, Tasks};
use hive_store::registry::{GONE_MS, Heard, Registration, Unfit, places};
use hive_store::{Store, StoreError};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::desk::Desk;
use crate::metrics::{self, Loop};
use crate::roster::{Groups, Roster};
use crate::settings::Recovery;
use crate::shard::{self, Scope, ShardName, View, every};

/// Pause between two rounds over what is defined.
const ROUND: Duration = Duration::from_secs(1);
/// A namespace that had no definition is looked at again after so long.
const EMPTY_FOR: Duration = Duration::from_secs(5);
/// Others may have taken over what is a replica's that was not heard for so long.
const SILENCE: Duration = Duration::from_millis(GONE_MS - 500);
/// A group that is half made for longer was left so by whoever began.
const STUCK: Duration = Duration::from_secs(10);

/// The shards that this replica looks after.
pub(crate) struct Fleet {
    store: Store,
    me: Registration,
    settings: Recovery,
    tasks: Tasks,
    shutdown: Shutdown,
    /// Tells those who look after groups who lives and what is defined.
    roster: watch::Sender<Arc<Roster>>,
    desk: Arc<Desk>,
    shards: BTreeMap<ShardName, Owned>,
    count: Arc<AtomicUsize>,
    /// Half-made groups by namespace and name: the version, and when it was first seen.
    unfinished: BTreeMap<(String, String), (u64, Instant)>,
    /// Namespaces without definitions, and when that was seen.
    empty: BTreeMap<String, Instant>,
}

struct Owned {
    view: watch::Sender<Arc<View>>,
    stop: CancellationToken,
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Fleet {
    pub(crate) fn new(
        store: Store,
        me: Registration,
        settings: Recovery,
        (roster, desk): (watch::Sender<Arc<Roster>>, Arc<Desk>),
        (tasks, shutdown): (Tasks, Shutdown),
    ) -> Self {
        Self {
            store,
            me,
            settings,
            tasks,
            shutdown,
            roster,
            desk,
            shards: BTreeMap::new(),
            count: Arc::default(),
            unfinished: BTreeMap::new(),
            empty: BTreeMap::new(),
        }
    }

    /// Beats until the daemon drains, then hands everything over by signing off.
    ///
    /// # Errors
    /// `Unfit` when Redis may delete accepted messages, unless `allow_eviction`.
    pub(crate) async fn run(self, redis: Component, allow_eviction: bool) -> Result<(), Unfit> {
        let (store, me) = (self.store.clone(), self.me.clone());
        let (alive, known) = watch::channel(Alive::default());
        let (left, has_left) = oneshot::channel::<()>();
        let stop = async { drop(has_left.await) };
        let gateways = Arc::clone(&self.desk);
        let heard = |heard: Heard<'_>| {
            if let Heard::There { live, .. } = &heard {
                gateways.gateways.peers.note(places(live));
            }
            hear(&heard, me.daemon, &redis, &alive);
        };
        let announced = store.announce(&me, allow_eviction, stop, heard);
        let looked_after = async {
            self.look(known).await;
            // Signed off before, another would look after them while this one still does.
            drop(left);
            Ok(())
        };
        tokio::try_join!(announced, looked_after).map(drop)
    }

    /// Looks after what is this replica's until the daemon drains, then gives all of it up.
    async fn look(mut self, mut alive: watch::Receiver<Alive>) {
        let shutdown = self.shutdown.clone();
        let rounds = async {
            drop(alive.wait_for(|alive| alive.beats > 0).await);
            let mut pace = every(ROUND);
            let (mut losses, mut changes) = (0, 0);
            loop {
                // Whoever comes or goes is no reason to wait: what was theirs has no owner.
                tokio::select! {
                    _ = pace.tick() => {},
                    _ = alive.wait_for(|alive| alive.changes != changes) => {},
                }
                let alive = alive.borrow().clone();
                changes = alive.changes;
                if alive.coordinators.is_empty() || alive.losses != losses {
                    // What the loops know is of data that is gone: they end, and begin anew. While
                    // it is gone nobody may look after anything, this replica included.
                    self.shards.clear();
                    self.set_count();
                    self.roster.send_replace(Arc::default());
                }
                losses = alive.losses;
                if !alive.coordinators.is_empty()
                    && let Err(error) = self.round(&alive).await
                {
                    metrics::round_failed(Loop::Beat);
                    tracing::debug!(%error, "definitions_not_read");
                }
            }
        };
        tokio::select! {
            () = rounds => {},
            () = shutdown.draining() => {},
        }
        self.shards.clear();
        self.set_count();
        self.roster.send_replace(Arc::default());
    }

    /// Looks after the shards that are this replica's among the live coordinators.
    async fn round(&mut self, alive: &Alive) -> Result<(), StoreError> {
        let (views, groups) = self.read_views().await?;
        let coordinators = &alive.coordinators;
        let roster = Roster {
            me: self.me.instance.clone(),
            coordinators: coordinators.clone(),
            returns: alive.losses + alive.silences,
            groups,
        };
        self.roster.send_replace(Arc::new(roster));
        self.shards.retain(|name, _| views.contains_key(name));
        for (name, view) in views {
            let key = format!("{}/{}/{}", name.namespace, name.stream, name.index);
            if ownership::owner(&key, coordinators) == Some(self.me.instance.as_str()) {
                self.look_after(name, view);
            } else if self.shards.remove(&name).is_some() {
                tracing::debug!(shard = key, "shard_handed_over");
            }
        }
        self.set_count();
        Ok(())
    }

    /// What is defined now, by shard, and all groups.
    async fn read_views(&mut self) -> Result<(BTreeMap<ShardName, View>, Groups), StoreError> {
        let mut views: BTreeMap<ShardName, View> = BTreeMap::new();
        let mut all = Groups::new();
        let mut unfinished = BTreeMap::new();
        for namespace in self.store.namespaces().await? {
            let seen = self.empty.get(&namespace);
            if seen.is_some_and(|seen| seen.elapsed() < EMPTY_FOR) {
                continue;
            }
            let streams = self.store.streams(&namespace).await?;
            let groups = self.store.groups(&namespace).await?;
            if streams.is_empty() && groups.is_empty() {
                self.empty.insert(namespace, Instant::now());
                continue;
            }
            self.empty.remove(&namespace);
            for stream in streams {
                for index in 0..stream.shards {
                    let name = ShardName {
                        namespace: namespace.clone(),
                        stream: stream.name.clone(),
                        index,
                    };
                    views.entry(name).or_default().stream = Some(stream.clone());
                }
            }
            let named = groups
                .iter()
                .map(|group| (group.name.as_str().into(), group.clone()));
            all.insert(namespace.as_str().into(), named.collect());
            for group in groups {
                let mut is_stuck = false;
                if matches!(group.state, GroupState::Creating | GroupState::Deleting) {
                    let key = (namespace.clone(), group.name.clone());
                    let since = match self.unfinished.get(&key) {
                        Some((version, since)) if *version == group.version => *since,
                        Some(_) | None => Instant::now(),
                    };
                    is_stuck = since.elapsed() > STUCK;
                    unfinished.insert(key, (group.version, since));
                }
                for index in 0..group.shards {
                    let name = ShardName {
                        namespace: namespace.clone(),
                        stream: group.stream.clone(),
                        index,
                    };
                    let view = views.entry(name).or_default();
                    if is_stuck {
                        view.stuck.push(group.name.clone());
                    }
                    view.groups.push(group.clone());
                }
            }
        }
        self.unfinished = unfinished;
        Ok((views, all))
    }

    fn look_after(&mut self, name: ShardName, view: View) {
        if let Some(owned) = self.shards.get(&name) {
            owned.view.send_if_modified(|known| {
                let is_change = **known != view;
                if is_change {
                    *known = Arc::new(view);
                }
                is_change
            });
            return;
        }
        let key = format!("{}/{}/{}", name.namespace, name.stream, name.index);
        tracing::debug!(shard = key, "shard_taken_over");
        let (sender, receiver) = watch::channel(Arc::new(view));
        let stop = CancellationToken::new();
        let scope = Scope::new(
            self.store.clone(),
            &name,
            receiver,
            self.settings,
            Arc::clone(&self.count),
        );
        let stopped = stop.clone();
        self.tasks.spawn(LOOP, format!("shard {key}"), async move {
            tokio::select! {
                () = shard::run(scope) => {},
                () = stopped.cancelled() => {},
            }
        });
        self.shards.insert(name, Owned { view: sender, stop });
    }

    fn set_count(&self) {
        self.count.store(self.shards.len(), Ordering::Relaxed);
        metrics::owned_shards(self.shards.len());
    }
}

/// What the registry last said.
#[derive(Debug, Clone, Default)]
struct Alive {
    /// Beats that were answered, or refused for the data.
    beats: u64,
    /// How often Redis held other data than this replica knew.
    losses: u64,
    /// How often this replica was silent for so long that others took over what was its.
    silences: u64,
    /// When it was heard last.
    heard: Option<Instant>,
    /// The coordinators that live; none while Redis holds other data.
    coordinators: Vec<String>,
    /// How often that list changed.
    changes: u64,
}

/// Passes on what a beat heard.
fn hear(heard: &Heard<'_>, daemon: &str, redis: &Component, alive: &watch::Sender<Alive>) {
    match heard {
        Heard::There { live, took } => {
            metrics::round(Loop::Beat, *took);
            alive.send_modify(|alive| {
                let coordinators = live.iter().filter(|replica| replica.daemon == daemon);
                let coordinators: Vec<String> =
                    coordinators.map(|one| one.instance.clone()).collect();
                alive.changes += u64::from(alive.coordinators != coordinators);
                alive.coordinators = coordinators;
                let before = alive.heard.replace(Instant::now());
                alive.silences += u64::from(before.is_some_and(|at| at.elapsed() > SILENCE));
                alive.beats += 1;
            });
            redis.ready();
        },
        Heard::Away(error) => {
            metrics::round_failed(Loop::Beat);
            redis.not_ready(error.to_string());
        },
        Heard::Changed(error) => {
            metrics::round_failed(Loop::Beat);
            metrics::dataset_changed(true);
            alive.send_modify(|alive| {
                alive.coordinators.clear();
                alive.changes += 1;
                alive.losses += 1;
                alive.beats += 1;
            });
            redis.not_ready(error.to_string());
        },
        Heard::Accepted => metrics::dataset_changed(false),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hive_runtime::health::Health;
    use hive_store::{
        StoreError,
        registry::{Heard, Replica},
    };
    use tokio::sync::watch;

    use super::{Alive, hear};

    fn replica(daemon: &str, instance: &str) -> Replica {
        Replica {
            daemon: daemon.to_owned(),
            instance: instance.to_owned(),
            advertise: String::new(),
            version: String::new(),
            beat_ms: 0,
            dataset: "-".to_owned(),
        }
    }

    #[test]
    fn a_loss_that_others_accepted_meanwhile_is_not_slept_through() {
        let (alive, known) = watch::channel(Alive::default());
        let redis = Health::new().component("redis");
        let hear = |heard: Heard<'_>| hear(&heard, "coordinator", &redis, &alive);
        let live = [replica("coordinator", "a"), replica("gateway", "b")];
        let there = || Heard::There {
            live: &live,
            took: Duration::ZERO,
        };
        hear(there());
        assert_eq!((known.borrow().losses, known.borrow().beats), (0, 1));
        let detail = "its loss was accepted while this process was away".into();
        hear(Heard::Changed(&StoreError::Dataset { detail }));
        assert!(known.borrow().coordinators.is_empty());
        hear(Heard::Accepted);
        hear(there());
        // Whoever looks only now sees that there was one.
        assert_eq!(known.borrow().losses, 1);
        assert_eq!(known.borrow().coordinators, ["a"]);
    }
}
