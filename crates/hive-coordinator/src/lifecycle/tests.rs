//! Single steps, in the order of a process that stood still between them.

use std::sync::Arc;
use std::time::Duration;

use hive_store::header::{GROUP_BACKOFF, Header};
use hive_store::publish::{Flush, Flushed, Item, Outcome};
use hive_store::{Lane, LaneRef, Store, StoreConfig};
use hive_testkit::redis::RedisServer;
use tokio::sync::watch;

use super::*;
use crate::settings::Recovery;
use crate::shard::ShardName;

const NAMESPACE: &str = "n";

struct World {
    scope: Scope,
    _redis: RedisServer,
}

async fn world() -> World {
    let redis = RedisServer::start().await.unwrap();
    let store = Store::open(StoreConfig::new(&redis.url(), None, "t")).unwrap();
    let name = ShardName {
        namespace: NAMESPACE.to_owned(),
        stream: "s".to_owned(),
        index: 0,
    };
    let settings = Recovery {
        consumer_ttl_ms: 60_000,
        retention_every: Duration::from_secs(60),
        audit_every: Duration::from_secs(60),
        lane_idle_ms: 60_000,
    };
    let view = watch::Sender::new(Arc::default()).subscribe();
    World {
        scope: Scope::new(store, &name, view, settings, Arc::default()),
        _redis: redis,
    }
}

impl World {
    /// Stores the definition of group `g` in this state, new or from its version.
    async fn put(&self, was: Option<&GroupDefinition>, state: GroupState) -> GroupDefinition {
        let new = GroupDefinition {
            name: "g".to_owned(),
            stream: "s".to_owned(),
            agent_type: "a".to_owned(),
            shards: 1,
            start: Start::Earliest,
            state,
            created_at: Timestamp(0),
            version: 0,
            settings: GroupSettings::default(),
        };
        let mut group = was.cloned().unwrap_or(new);
        group.state = state;
        let put = self.scope.store.put_group(NAMESPACE, &group).await;
        let Put::Stored(version) = put.unwrap() else {
            panic!("nobody else changes it");
        };
        group.version = version;
        group
    }

    /// Makes group `g`, in the steps of a gateway.
    async fn make(&self) -> GroupDefinition {
        let group = self.put(None, GroupState::Creating).await;
        let (store, shard) = (&self.scope.store, &self.scope.shard);
        let made = store.create_on_shard(shard, &group).await.unwrap();
        assert_eq!(made, Made::Created);
        self.put(Some(&group), GroupState::Active).await
    }

    /// Publishes one message to group `g`.
    async fn publish(&self) {
        let header = Header {
            priority: 4,
            max_attempts: 0,
            initial_backoff_ms: GROUP_BACKOFF,
            max_backoff_ms: GROUP_BACKOFF,
            expires_at_ms: 0,
            ordering_key: "".into(),
            dispatch_key: "".into(),
        };
        let item = Item {
            lanes: [LaneRef::of_group("g", Lane::plain(4))].into(),
            body: header.join(b"m"),
            producer: None,
            idempotency: None,
            ordering_key: String::new(),
            not_before_ms: 0,
        };
        let flush = Flush {
            number: 1,
            incarnation: "gw".into(),
            max_backlog: 10,
            max_backlog_bytes: 1_000,
            buffer_without_groups: false,
            groups: vec!["g".to_owned()],
            items: vec![item],
            durable: false,
        };
        let flushed = self.scope.store.publish(&self.scope.shard, &flush).await;
        assert_eq!(flushed.unwrap(), Flushed::Done(vec![Outcome::Added]));
    }

    async fn on_shard(&self) -> Vec<GroupState> {
        let groups = self.scope.store.shard_groups(&self.scope.shard).await;
        groups.unwrap().iter().map(|group| group.state).collect()
    }

    async fn definition(&self) -> Option<GroupDefinition> {
        self.scope.store.group(NAMESPACE, "g").await.unwrap()
    }

    async fn dead(&self) -> u64 {
        self.scope
            .store
            .dead_count(&self.scope.shard)
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn an_old_deletion_takes_nothing_of_a_group_that_was_made_since() {
    let world = world().await;
    let was = world.make().await;
    let deleting = world.put(Some(&was), GroupState::Deleting).await;
    finish_deletion(&world.scope, &deleting).await.unwrap();
    assert_eq!(world.definition().await, None);
    let now = world.make().await;
    world.publish().await;
    // One that stood still meanwhile: before the shard, and among its steps.
    finish_deletion(&world.scope, &deleting).await.unwrap();
    cancel_all(&world.scope, &deleting).await.unwrap();
    assert_eq!(world.dead().await, 0);
    assert_eq!(world.on_shard().await, [GroupState::Active]);
    assert_eq!(world.definition().await, Some(now));
}

#[tokio::test]
async fn a_creation_that_a_deletion_overtook_leaves_nothing_on_the_shard() {
    for is_gone in [false, true] {
        let world = world().await;
        let creating = world.put(None, GroupState::Creating).await;
        // The deletion finds nothing on the shard; here it may stand still.
        let deleting = world.put(Some(&creating), GroupState::Deleting).await;
        if is_gone {
            let (store, version) = (&world.scope.store, deleting.version);
            let removed = store.remove_group(NAMESPACE, "g", version).await;
            assert_eq!(removed.unwrap(), Put::Stored(0));
        }
        finish_creation(&world.scope, creating).await.unwrap();
        assert_eq!(world.on_shard().await, [], "gone: {is_gone}");
        assert_eq!(world.definition().await, None);
    }
}

#[tokio::test]
async fn a_creation_that_was_overtaken_by_another_one_leaves_that_alone() {
    let world = world().await;
    let creating = world.put(None, GroupState::Creating).await;
    let (store, version) = (&world.scope.store, creating.version);
    let removed = store.remove_group(NAMESPACE, "g", version).await;
    assert_eq!(removed.unwrap(), Put::Stored(0));
    let now = world.make().await;
    finish_creation(&world.scope, creating).await.unwrap();
    assert_eq!(world.on_shard().await, [GroupState::Active]);
    assert_eq!(world.definition().await, Some(now));
}

#[tokio::test]
async fn what_is_deleted_on_a_shard_and_has_no_definition_goes() {
    let world = world().await;
    let was = world.make().await;
    world.publish().await;
    let deleting = GroupDefinition {
        state: GroupState::Deleting,
        ..was.clone()
    };
    let (store, shard) = (&world.scope.store, &world.scope.shard);
    let set = store.set_state_on_shard(shard, &deleting).await.unwrap();
    assert_eq!(set, StateSet::Done);
    let resume = async || resume(&world.scope, &View::default()).await.unwrap();
    resume().await;
    assert_eq!(world.on_shard().await, [GroupState::Deleting]);
    let removed = store.remove_group(NAMESPACE, "g", was.version).await;
    assert_eq!(removed.unwrap(), Put::Stored(0));
    resume().await;
    assert_eq!(world.on_shard().await, []);
    assert_eq!(world.dead().await, 1);
}
