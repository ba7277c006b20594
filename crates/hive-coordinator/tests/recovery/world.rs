//! A stream with a group on a real Redis, and the calls that agents and gateways would make.

use std::{sync::Arc, time::Duration};

use hive_domain::group::{GroupDefinition, GroupSettings, GroupState, Start};
use hive_domain::stream::{StreamDefinition, StreamSettings};
use hive_domain::time::Timestamp;
use hive_protocol::wire;
use hive_store::attempt::{self, Attempt};
use hive_store::control::Put;
use hive_store::fetch::{Fetch, Fetched, ReadLane, Taker};
use hive_store::figures::Figures;
use hive_store::header::{GROUP_BACKOFF, Header};
use hive_store::lease::size_of_body;
use hive_store::members::{Joined, Joining, Kind};
use hive_store::publish::{Flush, Flushed, Item, Outcome};
use hive_store::settle::{Action, Settle, SettleGroup, Verdict};
use hive_store::tracked::tracking_key;
use hive_store::{Lane, LaneKind, LaneRef, Lease, Shard, Store, StoreConfig};
use hive_testkit::daemon::Daemon;
use hive_testkit::redis::RedisServer;
use hive_testkit::wait::until;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

pub(crate) const NAMESPACE: &str = "default";
pub(crate) const GROUP: &str = "g";
const SESSION: &str = "0123456789abcdef01234567";

/// Redis, a store on it, and one stream with the group `g`.
pub(crate) struct World {
    pub(crate) redis: RedisServer,
    pub(crate) store: Store,
    pub(crate) shard: Shard,
    stream: String,
    flushes: u64,
}

/// A member as the test plays it.
pub(crate) struct Agent {
    pub(crate) taker: Taker,
    kind: Kind,
}

pub(crate) fn store_on(redis: &RedisServer) -> Store {
    let config = StoreConfig {
        url: redis.url(),
        ..StoreConfig::default()
    };
    Store::open(config).unwrap()
}

pub(crate) fn lease(lease_ms: u64) -> GroupSettings {
    GroupSettings {
        lease_ms,
        ..GroupSettings::default()
    }
}

pub(crate) async fn coordinator(redis: &RedisServer, settings: &[(&str, &str)]) -> Daemon {
    Daemon::start("hive-coordinator", &redis.url(), settings)
        .await
        .unwrap()
}

/// Defines a stream, and a group on it in this state; does nothing on the shard.
pub(crate) async fn define(
    store: &Store,
    stream: (&str, StreamSettings),
    group: (&str, GroupSettings),
    state: GroupState,
) -> GroupDefinition {
    let definition = StreamDefinition {
        name: stream.0.to_owned(),
        shards: 1,
        created_at: Timestamp(0),
        version: 0,
        settings: stream.1,
    };
    store.put_stream(NAMESPACE, &definition).await.unwrap();
    let mut definition = GroupDefinition {
        name: group.0.to_owned(),
        stream: stream.0.to_owned(),
        agent_type: "a".to_owned(),
        shards: 1,
        start: Start::Earliest,
        state,
        created_at: Timestamp(0),
        version: 0,
        settings: group.1,
    };
    let Put::Stored(version) = store.put_group(NAMESPACE, &definition).await.unwrap() else {
        panic!("the group `{}` is new", group.0);
    };
    definition.version = version;
    definition
}

impl World {
    pub(crate) async fn new(group: GroupSettings, stream: StreamSettings) -> Self {
        let redis = RedisServer::start().await.unwrap();
        Self::on(redis, "work", group, stream).await
    }

    pub(crate) async fn on(
        redis: RedisServer,
        name: &str,
        group: GroupSettings,
        stream: StreamSettings,
    ) -> Self {
        let store = store_on(&redis);
        let group = (GROUP, group);
        let definition = define(&store, (name, stream), group, GroupState::Active).await;
        let shard = store.shard(NAMESPACE, name, 0);
        store.create_on_shard(&shard, &definition).await.unwrap();
        Self {
            redis,
            store,
            shard,
            stream: name.to_owned(),
            flushes: 0,
        }
    }

    /// Deletes the group `g`.
    pub(crate) async fn drop_group(&self) {
        let group = self.store.group(NAMESPACE, GROUP).await.unwrap().unwrap();
        let (store, shard) = (&self.store, &self.shard);
        store.retire_on_shard(shard, GROUP).await.unwrap();
        store.delete_on_shard(shard, GROUP).await.unwrap();
        let removed = store.remove_group(NAMESPACE, GROUP, group.version).await;
        assert_eq!(removed.unwrap(), Put::Stored(0));
    }

    /// Starts Redis again and waits until the test's own connections have found it.
    pub(crate) async fn restart_redis(&mut self) {
        self.redis.restart().await.unwrap();
        let deadline = Duration::from_secs(5);
        until(deadline, "the test to reach Redis again", async || {
            self.store.lanes(&self.shard).await
        })
        .await;
    }

    pub(crate) async fn lanes(&self) -> Arc<[ReadLane]> {
        self.store.read_lanes(&self.shard, GROUP).await.unwrap().0
    }

    pub(crate) async fn figures(&self) -> Figures {
        let lanes = self.lanes().await;
        self.store
            .figures(&self.shard, GROUP, &lanes)
            .await
            .unwrap()
    }

    /// Publishes `count` messages to the group into a lane, as one flush.
    pub(crate) async fn publish(&mut self, count: usize, lane: Lane, expires_at_ms: u64) {
        self.publish_at(count, lane, expires_at_ms, 0).await;
    }

    pub(crate) async fn publish_at(
        &mut self,
        count: usize,
        lane: Lane,
        expires_at_ms: u64,
        not_before_ms: u64,
    ) {
        let lane = LaneRef::of_group(GROUP, lane);
        self.publish_ref(count, lane, "", (expires_at_ms, not_before_ms))
            .await;
    }

    /// Publishes `count` messages to whichever groups there are, or held for a consumer.
    pub(crate) async fn publish_to_all(&mut self, count: usize, lane: Lane, expires_at_ms: u64) {
        self.publish_ref(count, LaneRef::of_all(lane), "", (expires_at_ms, 0))
            .await;
    }

    /// Publishes one message to the group with an ordering key.
    pub(crate) async fn publish_ordered(&mut self, key: &str, expires_at_ms: u64) {
        let lane = Lane {
            kind: LaneKind::Ordered,
            ..Lane::plain(4)
        };
        let lane = LaneRef::of_group(GROUP, lane);
        self.publish_ref(1, lane, key, (expires_at_ms, 0)).await;
    }

    async fn publish_ref(
        &mut self,
        count: usize,
        lane: LaneRef,
        ordering_key: &str,
        (expires_at_ms, not_before_ms): (u64, u64),
    ) {
        self.flushes += 1;
        let items = (0..count)
            .map(|number| {
                let message_id = format!("{}-{}-{number}", self.stream, self.flushes);
                let header = Header {
                    priority: lane.lane.priority,
                    max_attempts: 0,
                    initial_backoff_ms: GROUP_BACKOFF,
                    max_backoff_ms: GROUP_BACKOFF,
                    expires_at_ms,
                    ordering_key: ordering_key.into(),
                    dispatch_key: if lane.lane.is_tracked() {
                        tracking_key(&message_id).into()
                    } else {
                        "".into()
                    },
                };
                Item {
                    lanes: [lane.clone()].into(),
                    body: header.join(&envelope(message_id).encode_to_vec()),
                    producer: None,
                    idempotency: None,
                    ordering_key: ordering_key.to_owned(),
                    not_before_ms,
                }
            })
            .collect();
        let flush = Flush {
            number: self.flushes,
            incarnation: "test".into(),
            max_backlog: 1_000_000,
            max_backlog_bytes: 1 << 40,
            buffer_without_groups: true,
            groups: self.store.groups_on_shard(&self.shard).await.unwrap(),
            items,
            durable: false,
        };
        let flushed = self.store.publish(&self.shard, &flush).await.unwrap();
        assert_eq!(flushed, Flushed::Done(vec![Outcome::Added; count]));
    }

    async fn lease_ms(&self) -> u64 {
        let group = self.store.group(NAMESPACE, GROUP).await.unwrap();
        group.unwrap().settings.lease_ms
    }

    pub(crate) async fn join(&self, consumer: &str, kind: Kind, gateway: &str) -> Agent {
        let joining = Joining {
            group: GROUP,
            consumer,
            session: SESSION,
            resume: None,
            kind,
            gateway,
            concurrency: 1,
            capabilities: &[],
            max_consumers: 10,
            lease_ms: self.lease_ms().await,
            pod: "",
        };
        let Joined::Member {
            session, attach, ..
        } = self.store.join(&self.shard, &joining).await.unwrap()
        else {
            panic!("`{consumer}` becomes a member");
        };
        Agent {
            taker: Taker {
                consumer: consumer.into(),
                session: session.into(),
                attach,
                capabilities: Arc::default(),
            },
            kind,
        }
    }

    /// Leases up to `count` messages; answers their leases.
    pub(crate) async fn fetch(&self, agent: &Agent, count: u32) -> Vec<Lease> {
        let (lanes, all) = self.store.read_lanes(&self.shard, GROUP).await.unwrap();
        let fetch = Fetch {
            group: GROUP,
            gateway: "test",
            own_free: u64::from(count),
            ageing_ms: 30_000,
            group_limit: 0,
            hold_ms: 0,
            known_lanes: all.all.len(),
            lanes: &lanes,
            takers: std::slice::from_ref(&agent.taker),
            slots: &[(0, count)],
        };
        let Fetched::Taken { entries, .. } = self.store.fetch(&self.shard, &fetch).await.unwrap()
        else {
            panic!("the group delivers");
        };
        entries
            .into_iter()
            .map(|entry| Lease {
                lane: lanes[entry.lane].reference.clone(),
                id: entry.id,
                count: entry.count,
                consumer: agent.taker.consumer.clone(),
                session: agent.taker.session.clone(),
                delivered_ms: 0,
                bytes: size_of_body(&entry.body),
            })
            .collect()
    }

    pub(crate) async fn settle(
        &self,
        agent: &Agent,
        leases: &[Lease],
        action: Action,
    ) -> Vec<Verdict> {
        let lanes = self.lanes().await;
        let group = SettleGroup {
            name: GROUP,
            lanes: &lanes,
            ageing_ms: 30_000,
            max_attempts: 3,
            initial_backoff_ms: 1_000,
            max_backoff_ms: 1_000,
            durable: false,
            keep: true,
            block: true,
        };
        let items: Vec<Settle> = leases
            .iter()
            .map(|lease| Settle {
                lease: lease.clone(),
                attach: match agent.kind {
                    Kind::Stream => agent.taker.attach,
                    Kind::Pull => 0,
                },
                check_session: true,
                action: action.clone(),
            })
            .collect();
        self.store
            .settle(&self.shard, group, &items, 0)
            .await
            .unwrap()
    }

    /// Sends one command without spaces in its words; gives the first line of the answer.
    pub(crate) async fn raw(&self, command: &str) -> String {
        let mut connection = UnixStream::connect(self.redis.socket()).await.unwrap();
        let line = format!("{command}\r\n");
        connection.write_all(line.as_bytes()).await.unwrap();
        let mut answer = [0; 64];
        let length = connection.read(&mut answer).await.unwrap();
        let text = String::from_utf8_lossy(&answer[..length]);
        text.trim_end().to_owned()
    }
}

fn envelope(message_id: String) -> wire::Message {
    wire::Message {
        message_id,
        ..wire::Message::default()
    }
}

pub(crate) fn nack(delay_ms: u64) -> Action {
    Action::Nack {
        delay_ms: Some(delay_ms),
        jitter: 0,
        category: "test".to_owned(),
        record: attempt::record(&Attempt {
            category: "test".to_owned(),
            ..Attempt::default()
        }),
    }
}

/// A page of the admin port, status line and headers included.
pub(crate) async fn admin(daemon: &Daemon, path: &str) -> String {
    let mut connection = TcpStream::connect(daemon.admin()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut page = Vec::new();
    let read = connection.read_to_end(&mut page);
    tokio::time::timeout(Duration::from_secs(5), read)
        .await
        .unwrap()
        .unwrap();
    String::from_utf8(page).unwrap()
}

/// The value of a series, by its name with labels as Prometheus writes it.
pub(crate) async fn metric(daemon: &Daemon, series: &str) -> Option<f64> {
    let page = admin(daemon, "/metrics").await;
    page.lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .and_then(|value| value.trim().parse().ok())
}
