//! `group_create`, `group_state`, `group_delete`, `definition_put`.

use hive_domain::{
    group::{GroupDefinition, GroupState, Start},
    stream::StreamDefinition,
};
use hive_store::{
    control::{Made, Put, Removal, StateSet},
    keys::GroupKey,
    publish::Outcome,
    scripts::{Call, GROUP_DELETE},
    settle::{Action, Settle},
    sweep::Take,
};

use crate::world::{World, ids, item, lane_ref, nack, with_group, world};

#[tokio::test]
async fn a_group_starts_at_the_oldest_retained_message_or_at_the_next() {
    let world = with_group().await;
    world.add("/p4", &["a", "b"]).await;
    world.add("g/p4", &["for g"]).await;
    assert!(world.create("early", Start::Earliest).await);
    assert!(world.create("late", Start::Latest).await);
    assert!(!world.create("late", Start::Latest).await, "it is there");
    world.add("/p4", &["c"]).await;
    for (group, expected) in [("early", vec!["a", "b", "c"]), ("late", vec!["c"])] {
        assert_eq!(
            world.places(group).await.0,
            expected.len() as u64,
            "{group}"
        );
        let a = world.join(group, "a", &[]).await;
        assert_eq!(ids(&world.take(group, &a, 9).await), expected);
    }
}

#[tokio::test]
async fn a_held_lane_gets_no_group() {
    let world = with_group().await;
    world.add("/p4@c", &["held"]).await;
    world.create("h", Start::Earliest).await;
    assert_eq!(world.places("h").await, (0, 0, 0, 0, 0, 0));
}

#[tokio::test]
async fn an_older_definition_does_not_undo_a_newer_state() {
    let world = with_group().await;
    assert!(world.set_state("g", GroupState::Paused, 3).await);
    assert!(!world.set_state("g", GroupState::Active, 2).await);
    assert!(world.set_state("g", GroupState::Deleting, 4).await);
    assert!(
        !world.set_state("g", GroupState::Active, 5).await,
        "deletion is for good"
    );
    assert!(!world.set_state("absent", GroupState::Active, 5).await);
}

async fn retire(world: &World, group: &str) -> Removal {
    let retired = world.store.retire_on_shard(&world.shard, group).await;
    retired.expect("retire")
}

/// Decides a deletion and carries it out.
async fn delete(world: &World, group: &str) -> Removal {
    match retire(world, group).await {
        Removal::Done(_) => {
            let removal = world.store.delete_on_shard(&world.shard, group).await;
            removal.expect("delete")
        },
        refused @ (Removal::NotEmpty(_) | Removal::Absent) => refused,
    }
}

#[tokio::test]
async fn a_deletion_is_decided_on_the_shard_and_stays_until_it_is_carried_out() {
    let world = with_group().await;
    world.create("h", Start::Earliest).await;
    world.add("/p4", &["a"]).await;
    let deleted = world.store.delete_on_shard(&world.shard, "g").await;
    assert_eq!(deleted.expect("delete"), Removal::Absent, "nobody decided");
    let a = world.join("g", "a", &[]).await;
    let taken = world.take("g", &a, 9).await;
    world.settle("g", &a, &taken[0], Action::Ack).await;
    for _ in 0..2 {
        assert_eq!(retire(&world, "g").await, Removal::Done(0));
    }
    let groups = world.store.shard_groups(&world.shard).await;
    let states: Vec<_> = groups
        .expect("groups")
        .into_iter()
        .map(|group| (group.name, group.state, group.version))
        .collect();
    let expected = [
        ("g".to_owned(), GroupState::Deleting, 1),
        ("h".to_owned(), GroupState::Active, 1),
    ];
    assert_eq!(states, expected);
    // From here on nothing reaches it.
    let refused = world.publish(vec![item("g/p4", "late")]).await;
    assert_eq!(refused, [Outcome::NoGroup]);
    world.add("/p4", &["b"]).await;
    assert_eq!(delete(&world, "g").await, Removal::Done(0));
    assert_eq!(delete(&world, "g").await, Removal::Absent);
    assert_eq!(world.places("h").await.0, 2);
}

#[tokio::test]
async fn a_group_with_unsettled_messages_stays() {
    let world = with_group().await;
    world.create("h", Start::Earliest).await;
    world.add("/p4", &["a"]).await;
    world.add("g/p9", &["b"]).await;
    assert_eq!(delete(&world, "g").await, Removal::NotEmpty(2));
    let a = world.join("g", "a", &[]).await;
    let taken = world.take("g", &a, 9).await;
    assert_eq!(delete(&world, "g").await, Removal::NotEmpty(2));
    world.settle("g", &a, &taken[0], nack(None)).await;
    world.settle("g", &a, &taken[1], Action::Ack).await;
    assert_eq!(delete(&world, "g").await, Removal::NotEmpty(1));
    world.end_backoffs("g").await;
    let taken = world.take("g", &a, 9).await;
    world.settle("g", &a, &taken[0], Action::Ack).await;
    assert_eq!(delete(&world, "g").await, Removal::Done(0));
    assert_eq!(delete(&world, "g").await, Removal::Absent);
    assert_eq!(world.places("h").await.0, 1, "the other group still has it");
    let left: Vec<String> = world
        .redis(&["KEYS", &format!("{}g:g:*", world.shard.tag())])
        .await;
    assert!(left.is_empty(), "{left:?}");
    let lanes = world.store.lanes(&world.shard).await.expect("lanes").all;
    assert_eq!(lanes, [lane_ref("/p4")]);
    world.create("g", Start::Latest).await;
    world.add("g/p9", &["new"]).await;
    assert_eq!(world.places("g").await.0, 1);
}

#[tokio::test]
async fn a_purge_takes_and_cancels_what_waits() {
    let world = with_group().await;
    world.add("g/p4", &["a", "b", "c"]).await;
    let lane = world.lanes("g").await[0].clone();
    let take = async |limit| {
        world
            .store
            .take_waiting(&world.shard, "g", &lane, Take::All, limit)
            .await
            .expect("take")
    };
    let mut taken = take(2).await;
    assert_eq!(taken.len(), 2);
    taken.extend(take(2).await);
    assert_eq!((taken.len(), take(2).await.len()), (3, 0));
    let cancels: Vec<Settle> = taken
        .iter()
        .map(|id| Settle {
            lease: hive_store::Lease {
                lane: lane.reference.clone(),
                id: id.clone(),
                count: 1,
                consumer: "~taken".into(),
                session: "*".into(),
                delivered_ms: 0,
                bytes: 0,
            },
            attach: 0,
            check_session: false,
            action: Action::Cancel,
        })
        .collect();
    world.settle_all("g", &cancels).await;
    assert_eq!(world.places("g").await, (0, 0, 0, 0, 0, 3));
    assert_eq!(
        world.store.dead_count(&world.shard).await.expect("count"),
        3
    );
    assert_eq!(delete(&world, "g").await, Removal::Done(0));
    let none = world
        .store
        .take_waiting(&world.shard, "g", &lane, Take::All, 2)
        .await;
    assert!(none.expect("take").is_empty(), "no group, nothing to take");
}

#[tokio::test]
async fn messages_that_reach_a_group_behind_its_purge_do_not_keep_it() {
    let world = with_group().await;
    world.create("h", Start::Earliest).await;
    world.add("/p4", &["a"]).await;
    assert!(world.set_state("g", GroupState::Deleting, 2).await);
    world.add("/p4", &["b"]).await;
    assert_eq!(delete(&world, "g").await, Removal::Done(2));
    let dead = world
        .store
        .dead_letters(&world.shard, "0-0", 9)
        .await
        .expect("dead");
    let seen: Vec<_> = dead
        .iter()
        .map(|d| (d.group.as_str(), d.category.as_str()))
        .collect();
    assert_eq!(seen, [("g", "cancelled"), ("g", "cancelled")]);
    assert_eq!(world.places("h").await.0, 2);
}

async fn delay(world: &World, lane: &str, id: &str) {
    let mut delayed = item(lane, id);
    delayed.not_before_ms = 4_000_000_000_000;
    assert_eq!(world.publish(vec![delayed]).await, [Outcome::Added]);
}

/// Cancels all delayed messages of a group; answers how many there were.
async fn cancel_scheduled(world: &World, group: &str) -> u64 {
    let (mut cursor, mut cancelled) = (0, 0);
    loop {
        let step = world
            .store
            .cancel_scheduled(&world.shard, group, (cursor, false))
            .await;
        let (next, moved) = step.expect("cancel");
        (cursor, cancelled) = (next, cancelled + moved);
        if cursor == 0 {
            return cancelled;
        }
    }
}

#[tokio::test]
async fn a_group_with_delayed_messages_stays() {
    let world = with_group().await;
    delay(&world, "g/p4", "own").await;
    assert_eq!(delete(&world, "g").await, Removal::NotEmpty(1));
    world.create("h", Start::Earliest).await;
    delay(&world, "/p4", "of all").await;
    assert_eq!(delete(&world, "h").await, Removal::NotEmpty(1));
}

#[tokio::test]
async fn a_delayed_message_keeps_its_group_also_where_the_counter_lost_it() {
    let world = with_group().await;
    delay(&world, "g/p4", "own").await;
    let counters = world.key("g", GroupKey::Counters);
    let _: i64 = world.redis(&["HSET", &counters, "scheduled", "0"]).await;
    assert_eq!(delete(&world, "g").await, Removal::NotEmpty(1));
}

#[tokio::test]
async fn delayed_messages_of_a_group_that_is_being_deleted_are_cancelled_at_once() {
    let world = with_group().await;
    world.create("h", Start::Earliest).await;
    delay(&world, "g/p4", "g").await;
    delay(&world, "g/p9@c", "direct").await;
    delay(&world, "h/p4", "h").await;
    delay(&world, "/p4", "all").await;
    assert_eq!(cancel_scheduled(&world, "g").await, 0, "it is alive");
    assert!(world.set_state("g", GroupState::Deleting, 2).await);
    assert_eq!(cancel_scheduled(&world, "g").await, 2);
    assert_eq!(cancel_scheduled(&world, "g").await, 0);
    assert_eq!(delete(&world, "g").await, Removal::Done(0));
    let dead = world.store.dead_letters(&world.shard, "0-0", 9).await;
    let seen: Vec<_> = dead
        .expect("dead")
        .into_iter()
        .map(|dead| (dead.group, dead.category))
        .collect();
    let expected = ("g".to_owned(), "cancelled".to_owned());
    assert_eq!(seen, [expected.clone(), expected]);
    for key in [world.shard.scheduled(), world.shard.bodies()] {
        let word = if key == world.shard.bodies() {
            "HLEN"
        } else {
            "ZCARD"
        };
        let left: i64 = world.redis(&[word, &key]).await;
        assert_eq!(left, 2, "those of `h` and of all stay");
    }
    assert_eq!(world.figures("h").await.scheduled, 2);
}

#[tokio::test]
async fn a_delayed_message_of_a_deleted_group_dies_and_holds_up_nobody() {
    let world = with_group().await;
    world.create("h", Start::Earliest).await;
    for group in ["g", "h"] {
        delay(&world, &format!("{group}/p4"), group).await;
    }
    // A walk that a due message shifted may leave one behind.
    assert!(world.set_state("g", GroupState::Deleting, 2).await);
    assert_eq!(delete(&world, "g").await, Removal::Done(0));
    let members: Vec<String> = world
        .redis(&["ZRANGE", &world.shard.scheduled(), "0", "-1"])
        .await;
    for (due, member) in members.iter().enumerate() {
        let due = (due + 1).to_string();
        let _: i64 = world
            .redis(&["ZADD", &world.shard.scheduled(), &due, member])
            .await;
    }
    let lanes = world.store.lanes(&world.shard).await.expect("lanes");
    let groups = world
        .store
        .groups_on_shard(&world.shard)
        .await
        .expect("groups");
    let due = world
        .store
        .due_scheduled(&world.shard, &lanes, &groups)
        .await
        .expect("due");
    assert_eq!((due.moved, due.next_ms, due.lanes_changed), (2, 0, false));
    assert_eq!(world.places("h").await.0, 1);
    let dead = world
        .store
        .dead_letters(&world.shard, "0-0", 9)
        .await
        .expect("dead");
    assert_eq!(
        (dead[0].group.as_str(), dead[0].category.as_str()),
        ("g", "cancelled")
    );
    let left: Vec<String> = world
        .redis(&["KEYS", &world.key("g", GroupKey::Counters)])
        .await;
    assert!(left.is_empty(), "nothing of the deleted group comes back");
}

#[tokio::test]
async fn a_definition_changes_only_from_the_version_that_was_read() {
    let world = world().await;
    let namespace = format!("{:?}", world.shard);
    let mut definition = World::definition("g", Start::Earliest);
    definition.version = 0;
    let put = async |definition: &GroupDefinition| {
        world
            .store
            .put_group(&namespace, definition)
            .await
            .expect("put")
    };
    let Put::Stored(first) = put(&definition).await else {
        panic!("it is new");
    };
    assert_eq!(
        put(&definition).await,
        Put::Stored(first),
        "the same write, its answer was lost"
    );
    definition.agent_type = "other".into();
    assert_eq!(put(&definition).await, Put::Conflict);
    definition.version = first;
    let Put::Stored(second) = put(&definition).await else {
        panic!("it is of the version that is there");
    };
    assert!(second > first);
    assert_eq!(
        put(&definition).await,
        Put::Stored(second),
        "the same write, its answer was lost"
    );
    let read = world
        .store
        .group(&namespace, "g")
        .await
        .expect("read")
        .expect("a group");
    assert_eq!((read.version, read.agent_type.as_str()), (second, "other"));
    assert_eq!(world.store.groups(&namespace).await.expect("read"), [read]);
    let remove = async |version| {
        world
            .store
            .remove_group(&namespace, "g", version)
            .await
            .expect("remove")
    };
    assert_eq!(remove(first).await, Put::Conflict);
    assert_eq!(remove(second).await, Put::Stored(0));
    assert_eq!(remove(second).await, Put::Stored(0), "gone is gone");
    assert!(
        world
            .store
            .namespaces()
            .await
            .expect("read")
            .contains(&namespace)
    );
    let none: Option<StreamDefinition> = world.store.stream(&namespace, "s").await.expect("read");
    assert_eq!(none, None);
}

/// Stores a definition; answers its version.
async fn put(world: &World, definition: &mut GroupDefinition) {
    let put = world.store.put_group(&namespace(world), definition).await;
    let Put::Stored(version) = put.expect("put") else {
        panic!("nobody else changes it");
    };
    definition.version = version;
}

fn namespace(world: &World) -> String {
    format!("{:?}", world.shard)
}

/// Makes group `g`, in the steps of a gateway.
async fn make(world: &World) -> GroupDefinition {
    let mut group = World::definition("g", Start::Earliest);
    (group.version, group.state) = (0, GroupState::Creating);
    put(world, &mut group).await;
    let made = world.store.create_on_shard(&world.shard, &group).await;
    assert_eq!(made.expect("create"), Made::Created);
    group.state = GroupState::Active;
    put(world, &mut group).await;
    group
}

async fn state_of(world: &World) -> (GroupState, u64) {
    let groups = world.store.shard_groups(&world.shard).await;
    let groups = groups.expect("groups");
    (groups[0].state, groups[0].version)
}

#[tokio::test]
async fn what_deleted_or_changed_a_group_does_nothing_to_one_that_was_made_since() {
    let world = world().await;
    let (store, shard) = (&world.store, &world.shard);
    let before = make(&world).await;
    // A gateway stands still here; a coordinator ends the deletion, and the group is made anew.
    let mut deleting = before.clone();
    deleting.state = GroupState::Deleting;
    put(&world, &mut deleting).await;
    let set = store.set_state_on_shard(shard, &deleting).await;
    assert_eq!(set.expect("set"), StateSet::Done);
    let deleted = store.delete_on_shard(shard, "g").await;
    assert_eq!(deleted.expect("delete"), Removal::Done(0));
    let (namespace, version) = (namespace(&world), deleting.version);
    let removed = store.remove_group(&namespace, "g", version).await;
    assert_eq!(removed.expect("remove"), Put::Stored(0));
    let now = make(&world).await;
    assert!(now.version > deleting.version);
    let (live, _) = state_of(&world).await;
    let set = store.set_state_on_shard(shard, &deleting).await;
    assert_eq!(set.expect("set"), StateSet::Stale);
    assert_eq!(state_of(&world).await.0, live);
    // What was read before goes on as well.
    for old in [&before, &deleting] {
        let put = store.put_group(&namespace, old).await;
        assert_eq!(put.expect("put"), Put::Conflict);
        let removed = store.remove_group(&namespace, "g", old.version).await;
        assert_eq!(removed.expect("remove"), Put::Conflict);
    }
    let there = store.group(&namespace, "g").await.expect("group");
    assert_eq!(there, Some(now));
}

#[tokio::test]
async fn what_is_left_of_an_earlier_group_is_the_new_ones_and_no_longer_deleted() {
    let world = world().await;
    let (store, shard) = (&world.store, &world.shard);
    let mut old = GroupDefinition {
        version: 2,
        ..World::definition("g", Start::Earliest)
    };
    store.create_on_shard(shard, &old).await.expect("create");
    assert_eq!(state_of(&world).await, (GroupState::Active, 2));
    let new = GroupDefinition {
        version: 9,
        ..old.clone()
    };
    for (made, version) in [(&new, 9), (&old, 9)] {
        let made = store.create_on_shard(shard, made).await;
        assert_eq!(made.expect("create"), Made::Exists);
        assert_eq!(state_of(&world).await, (GroupState::Active, version));
    }
    old.state = GroupState::Deleting;
    let set = store.set_state_on_shard(shard, &old).await;
    assert_eq!(set.expect("set"), StateSet::Stale);
    // One that is being deleted stays so.
    assert!(world.set_state("g", GroupState::Deleting, 10).await);
    let later = GroupDefinition { version: 11, ..new };
    let made = store.create_on_shard(shard, &later).await;
    assert_eq!(made.expect("create"), Made::Exists);
    assert_eq!(state_of(&world).await, (GroupState::Deleting, 10));
}

#[tokio::test]
async fn a_definition_of_an_older_build_goes_on_from_its_small_version() {
    let world = world().await;
    let mut group = World::definition("g", Start::Earliest);
    leave_version(&world, &mut group, 3).await;
    let read = world.store.group(&namespace(&world), "g").await;
    assert_eq!(read.expect("read"), Some(group.clone()));
    put(&world, &mut group).await;
    assert!(group.version > 3, "{}", group.version);
    let first = group.version;
    put(&world, &mut group).await;
    assert!(group.version > first);
    // Also where the clock has gone back meanwhile.
    leave_version(&world, &mut group, 9_000_000_000_000_000).await;
    put(&world, &mut group).await;
    assert_eq!(group.version, 9_000_000_000_000_001);
}

/// Stores a definition as another build has left it.
async fn leave_version(world: &World, definition: &mut GroupDefinition, version: u64) {
    let namespace = namespace(world);
    definition.version = 0;
    let found = world.store.group(&namespace, &definition.name).await;
    if found.expect("read").is_none() {
        put(world, definition).await;
    }
    definition.version = version;
    let key = world.store.control_keys().groups(&namespace);
    let text = serde_json::to_string(definition).expect("text");
    let row = format!("{version} {text}");
    let _: i64 = world.redis(&["HSET", &key, &definition.name, &row]).await;
}

#[tokio::test]
async fn a_lane_that_is_retired_under_a_deletion_stops_it_before_any_write() {
    let world = with_group().await;
    world.add("/p4+gpu", &["a"]).await;
    let a = world.join("g", "a", &["gpu"]).await;
    let taken = world.take("g", &a, 9).await;
    world.settle("g", &a, &taken[0], Action::Ack).await;
    // Another call retired it behind this one's reading.
    let _: i64 = world
        .redis(&["HDEL", &world.shard.lanes(), "/p4+gpu"])
        .await;
    let (shard, lane) = (&world.shard, lane_ref("/p4+gpu"));
    let mut call = Call::new(&GROUP_DELETE);
    call.key(shard.groups())
        .key(shard.lanes())
        .key(shard.dead());
    call.key(shard.group("g", GroupKey::Counters));
    call.key(shard.settled_below()).key(shard.sizes());
    call.key(shard.lane(&lane));
    call.text("g").flag(true).number(1).text("/p4+gpu");
    let _: String = world.redis(&["SCRIPT", "LOAD", GROUP_DELETE.text()]).await;
    let mut raw = world.raw.clone();
    let answer: Vec<String> = call
        .command()
        .query_async(&mut raw)
        .await
        .expect("an answer");
    assert_eq!(answer[0], "LANES");
    let groups: Vec<redis::Value> = world.redis(&["XINFO", "GROUPS", &shard.lane(&lane)]).await;
    assert_eq!(groups.len(), 1, "nothing was written");
    assert_eq!(delete(&world, "g").await, Removal::Done(0));
}
