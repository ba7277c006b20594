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
use hive_store::dataset::ADVICE;
use hive_store::registry::{GONE_MS, Registration, Replica};
use hive_store::{Store, StoreError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::desk::Desk;
use crate::metrics::{self, Loop};
use crate::roster::{Groups, Roster};
use crate::settings::Recovery;
use crate::shard::{self, Scope, ShardName, View, every};

/// Pause between two beats.
const BEAT: Duration = Duration::from_secs(1);
/// How long after its time a replica that is gone is looked for.
const GONE_MARGIN_MS: u64 = 5;
/// A beat without an answer for so long means that Redis is away.
const BEAT_TIMEOUT: Duration = Duration::from_secs(2);
/// A namespace that had no definition is looked at again after so long.
const EMPTY_FOR: Duration = Duration::from_secs(5);
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
    pub(crate) async fn run(mut self, redis: Component) {
        let shutdown = self.shutdown.clone();
        let (sender, mut alive) = watch::channel(None);
        let desk = Arc::clone(&self.desk);
        let beats = beats(desk, self.me.clone(), redis, sender);
        let rounds = async {
            drop(alive.wait_for(Option::is_some).await);
            let mut pace = every(BEAT);
            loop {
                // Whoever comes or goes is no reason to wait: what was theirs has no owner.
                tokio::select! {
                    _ = pace.tick() => {},
                    _ = alive.changed() => {},
                }
                let coordinators = alive.borrow_and_update().clone();
                if coordinators.as_ref().is_some_and(Vec::is_empty) {
                    // Nobody may look after anything, this replica included.
                    self.shards.clear();
                    self.set_count();
                    self.roster.send_replace(Arc::default());
                } else if let Some(coordinators) = coordinators
                    && let Err(error) = self.round(&coordinators).await
                {
                    metrics::round_failed(Loop::Beat);
                    tracing::debug!(%error, "definitions_not_read");
                }
            }
        };
        tokio::select! {
            () = beats => {},
            () = rounds => {},
            () = shutdown.draining() => {},
        }
        self.shards.clear();
        self.set_count();
        let farewell = tokio::time::timeout(BEAT_TIMEOUT, self.store.sign_off(&self.me)).await;
        if !matches!(farewell, Ok(Ok(()))) {
            tracing::warn!("sign_off_failed");
        }
    }

    /// Looks after the shards that are this replica's among the live coordinators.
    async fn round(&mut self, coordinators: &[String]) -> Result<(), StoreError> {
        let (views, groups) = self.read_views().await?;
        let roster = Roster {
            me: self.me.instance.clone(),
            coordinators: coordinators.to_vec(),
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

/// How long it is until the first of the others is gone if it is not heard of; none where that is
/// further away than the next beat.
fn next_gone<'a>(
    replicas: impl Iterator<Item = &'a Replica> + Clone,
    me: &str,
) -> Option<Duration> {
    let now = replicas.clone().find(|one| one.instance == me)?.beat_ms;
    let others = replicas.filter(|one| one.instance != me);
    let left = others.map(|one| (one.beat_ms + GONE_MS).saturating_sub(now) + GONE_MARGIN_MS);
    let left = left.min().map(Duration::from_millis)?;
    (left < BEAT).then_some(left)
}

/// Tells the registry once a second that this replica lives, and whoever listens who else does.
async fn beats(
    desk: Arc<Desk>,
    me: Registration,
    redis: Component,
    alive: watch::Sender<Option<Vec<String>>>,
) {
    // What was last said of Redis; none when it answers.
    let mut away: Option<String> = None;
    let mut pace = every(BEAT);
    // When a replica is gone that is not heard of until then: what was its has no owner from then on.
    let mut gone_in: Option<Duration> = None;
    loop {
        tokio::select! {
            _ = pace.tick() => {},
            () = tokio::time::sleep(gone_in.unwrap_or(BEAT)), if gone_in.is_some() => {},
        }
        let began = Instant::now();
        let beat = tokio::time::timeout(BEAT_TIMEOUT, desk.store.beat(&me)).await;
        metrics::round(Loop::Beat, began.elapsed());
        let end = beat.unwrap_or_else(|_elapsed| {
            Err(StoreError::Unavailable {
                detail: "no answer in time".into(),
            })
        });
        match end {
            Ok(replicas) => {
                let places = replicas
                    .iter()
                    .map(|one| (one.daemon.as_str(), one.advertise.as_str()));
                desk.gateways.peers.note(places);
                let peers = replicas.iter().filter(|one| one.daemon == me.daemon);
                gone_in = next_gone(peers.clone(), &me.instance);
                let coordinators: Vec<String> = peers.map(|one| one.instance.clone()).collect();
                alive.send_if_modified(|known| {
                    let is_news = known.as_ref() != Some(&coordinators);
                    *known = Some(coordinators);
                    is_news
                });
                if away.take().is_some() {
                    tracing::info!("beat_resumed");
                }
                metrics::dataset_changed(false);
                redis.ready();
            },
            Err(error) => {
                gone_in = None;
                metrics::round_failed(Loop::Beat);
                let text = error.to_string();
                redis.not_ready(text.clone());
                let is_news = away.as_ref() != Some(&text);
                if matches!(error, StoreError::Dataset { .. }) {
                    // What the loops know is of the data that is gone: they end, and begin anew.
                    alive.send_replace(Some(Vec::new()));
                    metrics::dataset_changed(true);
                    if is_news {
                        tracing::error!(error = text, advice = ADVICE, "dataset_changed");
                    }
                } else if is_news {
                    tracing::warn!(error = text, "beat_failed");
                }
                away = Some(text);
            },
        }
    }
}
