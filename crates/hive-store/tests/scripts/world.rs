//! One namespace of a real Redis, and the steps that every table begins with.
//!
//! Tests that run at once share a server; each has a namespace of its own. Time is made to pass by
//! changing what Redis stores (scores, idle times), never by waiting.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hive_domain::{
    group::{GroupDefinition, GroupSettings, GroupState, Start},
    time::Timestamp,
};
use hive_store::{
    LaneRef, Lease, Shard, Store, StoreConfig,
    control::{Made, StateSet},
    fetch::{Fetch, Fetched, ReadLane, Taken, Taker},
    figures::Figures,
    header::{GROUP_BACKOFF, Header},
    keys::GroupKey,
    lease::size_of_body,
    members::{Joined, Joining, Kind},
    publish::{Flush, Flushed, Item, Outcome},
    settle::{Action, Settle, SettleGroup, Verdict},
};
use hive_testkit::redis::RedisServer;
use redis::{FromRedisValue, aio::MultiplexedConnection};
use tokio::sync::Mutex;

static SERVER: Mutex<Weak<RedisServer>> = Mutex::const_new(Weak::new());
static NAMESPACE: AtomicU64 = AtomicU64::new(0);

/// Ageing that no test lives to see.
pub(crate) const AGEING_MS: u64 = 30_000;

/// A namespace with one stream of one shard.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) shard: Shard,
    pub(crate) raw: MultiplexedConnection,
    flushes: AtomicU64,
    // Killed with the last world that uses it.
    pub(crate) server: Arc<RedisServer>,
}

/// A header that leaves everything to the group.
pub(crate) fn header() -> Header<'static> {
    Header {
        priority: 4,
        max_attempts: 0,
        initial_backoff_ms: GROUP_BACKOFF,
        max_backoff_ms: GROUP_BACKOFF,
        expires_at_ms: 0,
        ordering_key: "".into(),
        dispatch_key: "".into(),
    }
}

/// A message for one lane, whose envelope is its id.
pub(crate) fn item(lane: &str, id: &str) -> Item {
    Item {
        lanes: [lane_ref(lane)].into(),
        body: header().join(id.as_bytes()),
        producer: None,
        idempotency: None,
        ordering_key: String::new(),
        not_before_ms: 0,
    }
}

/// A message with an ordering key.
pub(crate) fn ordered(lane: &str, id: &str, key: &str) -> Item {
    let mut header = header();
    header.ordering_key = key.into();
    Item {
        body: header.join(id.as_bytes()),
        ordering_key: key.into(),
        ..item(lane, id)
    }
}

pub(crate) fn lane_ref(text: &str) -> LaneRef {
    text.parse().expect("a lane")
}

/// The id that `item` wrote into a body, whose envelope it is.
pub(crate) fn id_of(body: &Bytes) -> String {
    let (_, envelope) = Header::split(body).expect("a header");
    String::from_utf8(envelope.to_vec()).expect("an id")
}

/// Ids of what was taken, in order.
pub(crate) fn ids(taken: &[Taken]) -> Vec<String> {
    taken.iter().map(|taken| id_of(&taken.body)).collect()
}

pub(crate) fn nack(delay_ms: Option<u64>) -> Action {
    Action::Nack {
        delay_ms,
        jitter: 1_000_000,
        category: "unknown".into(),
        record: Bytes::from_static(b"record"),
    }
}

pub(crate) fn reject() -> Action {
    Action::Reject {
        category: "validation_error".into(),
        record: Bytes::from_static(b"record"),
    }
}

pub(crate) fn lose(idle_ms: u64) -> Action {
    Action::Lose {
        idle_ms,
        category: "timeout".into(),
        record: Bytes::from_static(b"lost"),
    }
}

pub(crate) async fn server() -> Arc<RedisServer> {
    let mut held = SERVER.lock().await;
    if let Some(server) = held.upgrade() {
        return server;
    }
    let server = Arc::new(RedisServer::start().await.expect("a redis server"));
    *held = Arc::downgrade(&server);
    server
}

pub(crate) fn open(server: &RedisServer) -> Store {
    open_waiting(server, Duration::from_secs(3))
}

/// A store that waits so long for a Redis that refuses.
pub(crate) fn open_waiting(server: &RedisServer, wait: Duration) -> Store {
    Store::open(StoreConfig {
        url: server.url(),
        prefix: "t".into(),
        wait,
        ..StoreConfig::default()
    })
    .expect("a store")
}

/// How a group settles in the tables.
pub(crate) fn settling<'a>(name: &'a str, lanes: &'a [ReadLane], keep: bool) -> SettleGroup<'a> {
    SettleGroup {
        name,
        lanes,
        ageing_ms: AGEING_MS,
        max_attempts: 3,
        initial_backoff_ms: 1_000,
        max_backoff_ms: 60_000,
        durable: false,
        keep,
        block: false,
    }
}

/// An empty world.
pub(crate) async fn world() -> World {
    on(server().await).await
}

/// An empty world on a given server.
pub(crate) async fn on(server: Arc<RedisServer>) -> World {
    let store = open(&server);
    let number = NAMESPACE.fetch_add(1, Ordering::Relaxed);
    let shard = store.shard(&format!("n{number}"), "s", 0);
    let raw = server.connect().await.expect("a connection");
    World {
        store,
        shard,
        raw,
        flushes: AtomicU64::new(0),
        server,
    }
}

/// A world with group `g`.
pub(crate) async fn with_group() -> World {
    let world = world().await;
    world.create("g", Start::Earliest).await;
    world
}

impl World {
    pub(crate) fn definition(name: &str, start: Start) -> GroupDefinition {
        GroupDefinition {
            name: name.into(),
            stream: "s".into(),
            agent_type: "any".into(),
            shards: 1,
            start,
            state: GroupState::Active,
            created_at: Timestamp::default(),
            version: 1,
            settings: GroupSettings::default(),
        }
    }

    pub(crate) async fn create(&self, name: &str, start: Start) -> bool {
        let definition = Self::definition(name, start);
        let made = self.store.create_on_shard(&self.shard, &definition).await;
        made.expect("create") == Made::Created
    }

    pub(crate) async fn set_state(&self, name: &str, state: GroupState, version: u64) -> bool {
        let mut definition = Self::definition(name, Start::Earliest);
        definition.state = state;
        definition.version = version;
        self.store
            .set_state_on_shard(&self.shard, &definition)
            .await
            .expect("state")
            == StateSet::Done
    }

    pub(crate) async fn flush(&self, items: Vec<Item>) -> Flush {
        Flush {
            number: self.flushes.fetch_add(1, Ordering::Relaxed) + 1,
            incarnation: "gw".into(),
            max_backlog: 1_000_000,
            max_backlog_bytes: 1 << 40,
            buffer_without_groups: false,
            groups: self
                .store
                .groups_on_shard(&self.shard)
                .await
                .expect("groups"),
            items,
            durable: false,
        }
    }

    pub(crate) async fn send(&self, flush: &Flush) -> Flushed {
        self.store
            .publish(&self.shard, flush)
            .await
            .expect("publish")
    }

    pub(crate) async fn publish(&self, items: Vec<Item>) -> Vec<Outcome> {
        match self.send(&self.flush(items).await).await {
            Flushed::Done(outcomes) => outcomes,
            other @ (Flushed::GroupsChanged | Flushed::Closed | Flushed::MemberByNow(_)) => {
                panic!("{other:?}")
            },
        }
    }

    /// Publishes to plain lanes, all accepted.
    pub(crate) async fn add(&self, lane: &str, ids: &[&str]) {
        let items: Vec<Item> = ids.iter().map(|id| item(lane, id)).collect();
        for outcome in self.publish(items).await {
            assert_eq!(outcome, Outcome::Added);
        }
    }

    pub(crate) fn joining<'a>(group: &'a str, consumer: &'a str, session: &'a str) -> Joining<'a> {
        Joining {
            group,
            consumer,
            session,
            resume: None,
            kind: Kind::Stream,
            gateway: "gw",
            concurrency: 4,
            capabilities: &[],
            max_consumers: 100,
            lease_ms: 30_000,
            pod: "",
        }
    }

    pub(crate) async fn joined(&self, joining: &Joining<'_>) -> Joined {
        self.store.join(&self.shard, joining).await.expect("join")
    }

    pub(crate) async fn join(&self, group: &str, consumer: &str, capabilities: &[&str]) -> Taker {
        let capabilities: Vec<String> = capabilities.iter().map(|&c| c.to_owned()).collect();
        let session = format!("session-{consumer}");
        let mut joining = Self::joining(group, consumer, &session);
        joining.capabilities = &capabilities;
        let Joined::Member {
            session, attach, ..
        } = self.joined(&joining).await
        else {
            panic!("`{consumer}` did not join");
        };
        Taker {
            consumer: consumer.into(),
            session: session.into(),
            attach,
            capabilities: capabilities.into(),
        }
    }

    pub(crate) async fn lanes(&self, group: &str) -> Arc<[ReadLane]> {
        self.store
            .read_lanes(&self.shard, group)
            .await
            .expect("lanes")
            .0
    }

    /// A fetch with the lanes as they are now, changed by `change` before it is sent.
    pub(crate) async fn fetch_with(
        &self,
        group: &str,
        takers: &[Taker],
        slots: &[(usize, u32)],
        change: impl FnOnce(&mut Fetch<'_>),
    ) -> Fetched {
        let (lanes, all) = self
            .store
            .read_lanes(&self.shard, group)
            .await
            .expect("lanes");
        let mut fetch = Fetch {
            group,
            gateway: "gw",
            own_free: slots.iter().map(|(_, count)| u64::from(*count)).sum(),
            ageing_ms: AGEING_MS,
            group_limit: 0,
            hold_ms: 0,
            known_lanes: all.all.len(),
            lanes: &lanes,
            takers,
            slots,
        };
        change(&mut fetch);
        self.store.fetch(&self.shard, &fetch).await.expect("fetch")
    }

    pub(crate) async fn take(&self, group: &str, taker: &Taker, count: u32) -> Vec<Taken> {
        let takers = [taker.clone()];
        match self.fetch_with(group, &takers, &[(0, count)], |_| {}).await {
            Fetched::Taken {
                entries,
                fenced,
                detached,
                ..
            } => {
                assert!(fenced.is_empty() && detached.is_empty(), "fenced");
                entries
            },
            other @ (Fetched::Paused | Fetched::Gone | Fetched::LanesChanged) => {
                panic!("{other:?}")
            },
        }
    }

    pub(crate) async fn lease(&self, group: &str, taker: &Taker, taken: &Taken) -> Lease {
        let lanes = self.lanes(group).await;
        Lease {
            lane: lanes[taken.lane].reference.clone(),
            id: taken.id.clone(),
            count: taken.count,
            consumer: taker.consumer.clone(),
            session: taker.session.clone(),
            delivered_ms: 0,
            bytes: size_of_body(&taken.body),
        }
    }

    pub(crate) async fn settle_of(
        &self,
        group: &str,
        taker: &Taker,
        taken: &Taken,
        action: Action,
    ) -> Settle {
        Settle {
            lease: self.lease(group, taker, taken).await,
            attach: taker.attach,
            check_session: true,
            action,
        }
    }

    pub(crate) async fn settle_all(&self, group: &str, items: &[Settle]) -> Vec<Verdict> {
        let lanes = self.lanes(group).await;
        self.settle_with(group, &lanes, items, |_| {}).await
    }

    pub(crate) async fn settle_with(
        &self,
        group: &str,
        lanes: &[ReadLane],
        items: &[Settle],
        change: impl FnOnce(&mut SettleGroup<'_>),
    ) -> Vec<Verdict> {
        let mut settings = settling(group, lanes, true);
        change(&mut settings);
        self.store
            .settle(&self.shard, settings, items, 0)
            .await
            .expect("settle")
    }

    /// Settles one delivery.
    pub(crate) async fn settle(
        &self,
        group: &str,
        taker: &Taker,
        taken: &Taken,
        action: Action,
    ) -> Verdict {
        let item = self.settle_of(group, taker, taken, action).await;
        self.settle_all(group, &[item]).await[0]
    }

    pub(crate) async fn figures(&self, group: &str) -> Figures {
        let lanes = self.lanes(group).await;
        self.store
            .figures(&self.shard, group, &lanes)
            .await
            .expect("figures")
    }

    /// (waiting, leased, ready, delayed, parked, settled).
    pub(crate) async fn places(&self, group: &str) -> (u64, u64, u64, u64, u64, u64) {
        let f = self.figures(group).await;
        (f.waiting, f.leased, f.ready, f.delayed, f.parked, f.settled)
    }

    pub(crate) fn key(&self, group: &str, key: GroupKey) -> String {
        self.shard.group(group, key)
    }

    /// Runs a raw command.
    pub(crate) async fn redis<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        command
            .query_async(&mut self.raw.clone())
            .await
            .expect("a raw command")
    }

    /// Makes every backoff of a group be over.
    pub(crate) async fn end_backoffs(&self, group: &str) {
        self.end_backoffs_as(group, AGEING_MS).await;
    }

    /// The same where priorities age otherwise.
    pub(crate) async fn end_backoffs_as(&self, group: &str, ageing_ms: u64) {
        let key = self.key(group, GroupKey::Delayed);
        let members: Vec<String> = self.redis(&["ZRANGE", &key, "0", "-1"]).await;
        for member in members {
            let _: i64 = self.redis(&["ZADD", &key, "XX", "1", &member]).await;
        }
        let lanes = self.lanes(group).await;
        let due = self
            .store
            .due_delayed(&self.shard, group, &lanes, ageing_ms)
            .await;
        assert!(!due.expect("due").lanes_changed);
    }
}
