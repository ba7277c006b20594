//! A worker over a Redis of its own, for tests of single steps.

use std::sync::Arc;

use hive_domain::{
    dead_letter::status::Status,
    group::{GroupDefinition, GroupSettings, GroupState, Start},
    stream::{StreamDefinition, StreamSettings},
    time::Timestamp,
};
use hive_protocol::wire;
use hive_runtime::tasks::Tasks;
use hive_store::{
    Store, StoreConfig,
    control::Put,
    header::{GROUP_BACKOFF, Header},
    letters::{Bounds, Change, Facts, Letter, Letters, NewLetter, State, Step, Taken},
};
use hive_testkit::redis::RedisServer;
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

use crate::{
    desk::Desk,
    settings::{DeadLetters, Policies},
};

/// The dead letters of namespace `n`.
pub(crate) struct World {
    pub(crate) desk: Arc<Desk>,
    pub(crate) letters: Letters,
    redis: RedisServer,
}

/// An empty world under some policies.
pub(crate) async fn world(policies: Policies) -> World {
    let redis = RedisServer::start().await.unwrap();
    let store = Store::open(StoreConfig::new(&redis.url(), None, "t")).unwrap();
    let settings = DeadLetters {
        bounds: Bounds {
            records: 1_000,
            bytes: 1_000_000,
        },
        max_age_ms: 1_000_000,
        archive_dir: None,
        policies,
    };
    World {
        letters: store.letters("n"),
        desk: Desk::new(store, settings, Tasks::new()),
        redis,
    }
}

impl World {
    /// Makes the active group `g` of stream `s`, which takes one unsettled message.
    pub(crate) async fn make_group(&self) {
        let store = &self.desk.store;
        let stream = StreamDefinition {
            name: "s".to_owned(),
            shards: 1,
            created_at: Timestamp::default(),
            version: 0,
            settings: StreamSettings {
                max_backlog: 1,
                ..StreamSettings::default()
            },
        };
        store.ensure_stream("n", &stream).await.unwrap();
        let group = GroupDefinition {
            name: "g".to_owned(),
            stream: "s".to_owned(),
            agent_type: "any".to_owned(),
            shards: 1,
            start: Start::Earliest,
            state: GroupState::Active,
            created_at: Timestamp::default(),
            version: 0,
            settings: GroupSettings::default(),
        };
        let shard = store.shard("n", "s", 0);
        store.create_on_shard(&shard, &group).await.unwrap();
        let put = store.put_group("n", &group).await.unwrap();
        assert!(matches!(put, Put::Stored(_)), "{put:?}");
    }

    /// Stores record `id` of group `g`, then changes it.
    pub(crate) async fn take(&self, id: &str, status: Status, step: &Step) -> Letter {
        let letter = Letter {
            id: id.to_owned(),
            version: 0,
            status: Status::Analyzed,
            facts: Facts {
                group: "g".to_owned(),
                stream: "s".to_owned(),
                decodes: true,
                dead_ms: self.desk.now().as_millis(),
                ..Facts::default()
            },
            state: State::default(),
        };
        let new = NewLetter {
            letter,
            body: Header {
                priority: 4,
                max_attempts: 0,
                initial_backoff_ms: GROUP_BACKOFF,
                max_backoff_ms: GROUP_BACKOFF,
                expires_at_ms: 0,
                ordering_key: "".into(),
                dispatch_key: "".into(),
            }
            .join(&wire::Message::default().encode_to_vec()),
            change: Change {
                at_ms: 0,
                status: Status::Analyzed,
                by: "test".to_owned(),
                why: String::new(),
            },
        };
        let store = &self.desk.store;
        let taken = store.take_letter(&self.letters, &new, self.desk.settings.bounds);
        assert_eq!(taken.await.unwrap(), Taken::New);
        let letter = self.there(id).await;
        let changed = store.change_letter(&self.letters, &letter, status, step);
        changed.await.unwrap();
        self.there(id).await
    }

    /// A record as it is now.
    pub(crate) async fn there(&self, id: &str) -> Letter {
        let found = self.desk.store.read_letter(&self.letters, id).await;
        found.unwrap().there().unwrap()
    }

    /// Writes a record as another build would, which knows a status that this one does not.
    pub(crate) async fn make_unreadable(&self, id: &str) {
        let key = self.letters.letter(id);
        self.raw(&format!("HSET {key} status future")).await;
    }

    /// Takes a record away, and leaves its places.
    pub(crate) async fn make_absent(&self, id: &str) {
        let key = self.letters.letter(id);
        self.raw(&format!("DEL {key}")).await;
    }

    async fn raw(&self, command: &str) {
        let mut connection = UnixStream::connect(self.redis.socket()).await.unwrap();
        let line = format!("{command}\r\n");
        connection.write_all(line.as_bytes()).await.unwrap();
        let mut answer = [0; 64];
        let length = connection.read(&mut answer).await.unwrap();
        assert!(answer[..length].starts_with(b":"), "{answer:?}");
    }
}
