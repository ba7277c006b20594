//! What keeps a shard tidy: retention, time to live, members, half-made groups, the auditor.

use std::time::Duration;

use hive_domain::group::{GroupDefinition, GroupSettings, GroupState, Start};
use hive_domain::stream::{StreamDefinition, StreamSettings};
use hive_domain::time::Timestamp;
use hive_store::control::Removal;
use hive_store::keys::GroupKey;
use hive_store::members::Kind;
use hive_store::settle::{Action, Verdict};
use hive_store::streams::Closing;
use hive_store::tracked::Tracked;
use hive_store::{Lane, LaneKind, LaneRef};
use hive_testkit::redis::RedisServer;
use hive_testkit::wait::until;

use crate::seconds;
use crate::world::{GROUP, NAMESPACE, World, coordinator, define, lease, metric, nack, store_on};

const OFTEN: (&str, &str) = ("HIVE_RECOVERY_RETENTION_INTERVAL", "200ms");

#[tokio::test]
async fn retention_deletes_settled_messages_alone() {
    let limits = StreamSettings {
        retention_max_len: 0,
        ..StreamSettings::default()
    };
    let mut world = World::new(lease(30_000), limits).await;
    world.publish(10, Lane::plain(4), 0).await;
    let agent = world.join("a", Kind::Pull, "-").await;
    let leases = world.fetch(&agent, 4).await;
    world.settle(&agent, &leases[..3], Action::Ack).await;
    let daemon = coordinator(&world.redis, &[OFTEN]).await;
    let trimmed = async || metric(&daemon, "hive_messages_trimmed_total").await;
    until(seconds(5), "three settled messages to go", async || {
        trimmed().await == Some(3.0)
    })
    .await;
    assert_eq!(world.fetch(&agent, 10).await.len(), 6);
    let verdicts = world.settle(&agent, &leases[3..], Action::Ack).await;
    assert_eq!(verdicts, [Verdict::Done]);
    until(seconds(5), "the fourth to go as well", async || {
        trimmed().await == Some(4.0)
    })
    .await;
}

#[tokio::test]
async fn the_outcome_of_a_tracked_message_is_forgotten_a_day_after_its_end() {
    let mut world = World::new(lease(30_000), StreamSettings::default()).await;
    let (outcomes, tasks) = (world.shard.outcomes(), world.shard.tasks());
    let old = r#"d ~old k ended o succeeded b "" c a n 1"#;
    assert_eq!(
        world.raw(&format!("XADD {outcomes} 1-1 {old}")).await,
        "$3\r\n1-1"
    );
    let row = r#"~old "ended succeeded 1-1""#;
    assert_eq!(world.raw(&format!("HSET {tasks} {row}")).await, ":1");
    let lane = Lane {
        kind: LaneKind::Tracked,
        ..Lane::plain(4)
    };
    world.publish(1, lane, 0).await;
    let agent = world.join("a", Kind::Pull, "-").await;
    let leases = world.fetch(&agent, 1).await;
    world.settle(&agent, &leases, Action::Ack).await;
    let seen = async |id: &str| {
        let seen = world.store.tracked(&world.shard, ("", id)).await;
        seen.unwrap()
    };
    assert!(matches!(seen("old").await, Some(Tracked::Ended(_))));
    let daemon = coordinator(&world.redis, &[OFTEN]).await;
    until(seconds(5), "the old outcome to be forgotten", async || {
        seen("old").await.is_none()
    })
    .await;
    let new = "work-1-0";
    assert!(
        matches!(seen(new).await, Some(Tracked::Ended(_))),
        "it is kept"
    );
    let forgotten = "hive_outcomes_forgotten_total{reason=\"age\"}";
    until(seconds(5), "it to be counted", async || {
        metric(&daemon, forgotten).await == Some(1.0)
    })
    .await;
}

#[tokio::test]
async fn retention_by_number_holds_for_all_lanes_together_the_oldest_go_first() {
    let limits = StreamSettings {
        retention_max_len: 4,
        ..StreamSettings::default()
    };
    let mut world = World::new(lease(30_000), limits).await;
    for priority in [4, 7, 9] {
        world.publish(3, Lane::plain(priority), 0).await;
        // The age of an entry is its millisecond.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let agent = world.join("a", Kind::Pull, "-").await;
    let leases = world.fetch(&agent, 9).await;
    world.settle(&agent, &leases, Action::Ack).await;
    let _coordinator = coordinator(&world.redis, &[OFTEN]).await;
    let kept = async || {
        let mut kept = Vec::new();
        for priority in [4, 7, 9] {
            let lane = LaneRef::of_group(GROUP, Lane::plain(priority));
            kept.push(world.store.entries(&world.shard, &[lane]).await.unwrap());
        }
        kept
    };
    until(seconds(5), "five messages to go", async || {
        kept().await == [0, 1, 3]
    })
    .await;
}

#[tokio::test]
async fn retention_by_bytes_holds_within_seconds_also_behind_a_leased_head() {
    let limits = StreamSettings {
        retention_max_bytes: 1,
        ..StreamSettings::default()
    };
    let mut world = World::new(lease(30_000), limits).await;
    // The first pass of retention runs at once, the next one long after this test.
    let rare = ("HIVE_RECOVERY_RETENTION_INTERVAL", "1h");
    let daemon = coordinator(&world.redis, &[rare]).await;
    world.publish(4, Lane::plain(4), 0).await;
    let agent = world.join("a", Kind::Pull, "-").await;
    let leases = world.fetch(&agent, 4).await;
    let trimmed = async || metric(&daemon, "hive_messages_trimmed_total").await;
    let verdicts = world.settle(&agent, &leases[1..], Action::Ack).await;
    assert_eq!(verdicts, [Verdict::Done; 3]);
    until(seconds(5), "what is settled to go", async || {
        trimmed().await == Some(3.0)
    })
    .await;
}

#[tokio::test]
async fn a_lane_of_capabilities_goes_when_all_its_messages_are_gone() {
    let limits = StreamSettings {
        retention_max_len: 0,
        ..StreamSettings::default()
    };
    let mut world = World::new(lease(30_000), limits).await;
    let direct = Lane {
        consumer: "a".to_owned(),
        ..Lane::plain(4)
    };
    world.publish(2, direct, 0).await;
    world.publish(1, Lane::plain(4), 0).await;
    let agent = world.join("a", Kind::Pull, "-").await;
    let leases = world.fetch(&agent, 3).await;
    let idle = ("HIVE_RECOVERY_LANE_IDLE", "10s");
    let _coordinator = coordinator(&world.redis, &[OFTEN, idle]).await;
    let count = async || world.store.lanes(&world.shard).await.unwrap().all.len();
    assert_eq!(count().await, 2);
    let verdicts = world.settle(&agent, &leases, Action::Ack).await;
    assert_eq!(verdicts, [Verdict::Done; 3]);
    let lane = LaneRef::of_group(
        GROUP,
        Lane {
            consumer: "a".to_owned(),
            ..Lane::plain(4)
        },
    );
    let stream = world.shard.lane(&lane);
    until(seconds(5), "the lane to be empty", async || {
        world.raw(&format!("XLEN {stream}")).await == ":0"
    })
    .await;
    // Its last message was long ago.
    assert_eq!(world.raw(&format!("XSETID {stream} 1-1")).await, "+OK");
    until(seconds(5), "the direct lane to go", async || {
        count().await == 1
    })
    .await;
    let retired = format!("HSET {} \"{lane} retired\" 1", world.shard.sizes());
    assert_eq!(world.raw(&retired).await, ":0");
    until(seconds(5), "its stream to go", async || {
        let retired = world.store.retired_lanes(&world.shard).await;
        retired.unwrap().is_empty()
    })
    .await;
    let direct = Lane {
        consumer: "a".to_owned(),
        ..Lane::plain(4)
    };
    world.publish(1, direct, 0).await;
    assert_eq!(world.fetch(&agent, 3).await.len(), 1);
}

#[tokio::test]
async fn buffered_messages_beyond_the_age_die_where_no_group_is() {
    let limits = StreamSettings {
        retention_max_age_ms: 1_000,
        buffer_without_groups: true,
        ..StreamSettings::default()
    };
    let mut world = World::new(lease(30_000), limits).await;
    world.drop_group().await;
    world.publish_to_all(3, Lane::plain(4), 0).await;
    let _coordinator = coordinator(&world.redis, &[OFTEN]).await;
    until(seconds(6), "three dead letters", async || {
        world.store.dead_count(&world.shard).await.unwrap() == 3
    })
    .await;
}

#[tokio::test]
async fn unsettled_messages_beyond_the_age_die_unless_they_are_leased() {
    let limits = StreamSettings {
        retention_max_age_ms: 1_000,
        ..StreamSettings::default()
    };
    let mut world = World::new(lease(30_000), limits).await;
    world.publish(4, Lane::plain(4), 0).await;
    let agent = world.join("a", Kind::Pull, "-").await;
    let leases = world.fetch(&agent, 2).await;
    // One waits out a backoff: it is nobody's.
    let verdicts = world.settle(&agent, &leases[..1], nack(60_000)).await;
    assert_eq!(verdicts, [Verdict::Done]);
    let _coordinator = coordinator(&world.redis, &[OFTEN]).await;
    until(seconds(6), "three dead letters", async || {
        world.store.dead_count(&world.shard).await.unwrap() == 3
    })
    .await;
    let letters = world.store.dead_letters(&world.shard, "0-0", 10).await;
    for letter in letters.unwrap() {
        assert_eq!(letter.category, "expired");
    }
    let verdicts = world.settle(&agent, &leases[1..], Action::Ack).await;
    assert_eq!(verdicts, [Verdict::Done]);
}

#[tokio::test]
async fn a_message_whose_time_to_live_passed_dies_with_the_reason() {
    let mut world = World::new(lease(30_000), StreamSettings::default()).await;
    let direct = Lane {
        consumer: "nobody".to_owned(),
        ..Lane::plain(4)
    };
    world.publish(1, Lane::plain(4), 1).await;
    world.publish(1, direct, 1).await;
    world.publish(1, Lane::plain(7), 0).await;
    let _coordinator = coordinator(&world.redis, &[]).await;
    until(seconds(5), "two dead letters", async || {
        world.store.dead_count(&world.shard).await.unwrap() == 2
    })
    .await;
    let letters = world.store.dead_letters(&world.shard, "0-0", 10).await;
    let mut categories: Vec<String> = letters
        .unwrap()
        .into_iter()
        .map(|letter| letter.category)
        .collect();
    categories.sort();
    assert_eq!(categories, ["expired", "no_capable_consumer"]);
    assert_eq!(world.figures().await.waiting, 1);
}

#[tokio::test]
async fn a_pull_consumer_is_a_member_until_its_time_after_its_last_lease() {
    let mut world = World::new(lease(30_000), StreamSettings::default()).await;
    world.publish(1, Lane::plain(4), 0).await;
    let daemon = coordinator(&world.redis, &[("HIVE_RECOVERY_CONSUMER_TTL", "1s")]).await;
    let busy = world.join("busy", Kind::Pull, "-").await;
    world.join("idle", Kind::Pull, "-").await;
    let leases = world.fetch(&busy, 1).await;
    let names = async || -> Vec<String> {
        let members = world.store.members(&world.shard, GROUP).await.unwrap();
        members.into_iter().map(|member| member.consumer).collect()
    };
    until(seconds(5), "the idle one to be gone", async || {
        names().await == ["busy"]
    })
    .await;
    world.settle(&busy, &leases, Action::Ack).await;
    until(seconds(5), "the busy one to be gone", async || {
        names().await.is_empty()
    })
    .await;
    let ended = metric(&daemon, "hive_members_expired_total{reason=\"silent\"}").await;
    assert_eq!(ended, Some(2.0));
}

#[tokio::test]
async fn half_made_and_half_deleted_groups_are_finished() {
    let redis = RedisServer::start().await.unwrap();
    let mut world = World::on(redis, "work", lease(30_000), StreamSettings::default()).await;
    world.publish(3, Lane::plain(4), 0).await;
    let agent = world.join("a", Kind::Pull, "-").await;
    assert_eq!(world.fetch(&agent, 1).await.len(), 1);
    let mut leaving = world.store.group(NAMESPACE, GROUP).await.unwrap().unwrap();
    leaving.state = GroupState::Deleting;
    world.store.put_group(NAMESPACE, &leaving).await.unwrap();
    let store = store_on(&world.redis);
    let settings = (StreamSettings::default(), GroupSettings::default());
    define(
        &store,
        ("other", settings.0),
        ("new", settings.1),
        GroupState::Creating,
    )
    .await;
    let _coordinator = coordinator(&world.redis, &[]).await;
    until(seconds(16), "the new group to be active", async || {
        let group = store.group(NAMESPACE, "new").await.unwrap().unwrap();
        group.state == GroupState::Active
    })
    .await;
    until(seconds(5), "the other group to be gone", async || {
        store.group(NAMESPACE, GROUP).await.unwrap().is_none()
    })
    .await;
    let shard = store.shard(NAMESPACE, "other", 0);
    assert_eq!(store.groups_on_shard(&shard).await.unwrap(), ["new"]);
    assert!(
        store
            .groups_on_shard(&world.shard)
            .await
            .unwrap()
            .is_empty()
    );
    let letters = store.dead_letters(&world.shard, "0-0", 10).await.unwrap();
    assert_eq!(letters.len(), 3);
    assert!(letters.iter().all(|letter| letter.category == "cancelled"));
}

#[tokio::test]
async fn half_deleted_and_half_made_streams_are_finished() {
    let redis = RedisServer::start().await.unwrap();
    let store = store_on(&redis);
    let define = async |name: &str, created_at: u64| {
        let definition = StreamDefinition {
            name: name.to_owned(),
            shards: 1,
            created_at: Timestamp(created_at),
            version: 0,
            settings: StreamSettings::default(),
        };
        store.put_stream(NAMESPACE, &definition).await.unwrap();
        store.shard(NAMESPACE, name, 0)
    };
    // Gateways died: behind the decision, and before the shard of a new stream was opened.
    let going = define("going", 5).await;
    let closed = store.close_on_shard(&going, Timestamp(5)).await.unwrap();
    assert_eq!(closed, Closing::Closed);
    let made = define("made", 6).await;
    store.close_on_shard(&made, Timestamp(5)).await.unwrap();
    // And a group was to be made on a stream that went meanwhile.
    let shard = store.shard(NAMESPACE, "again", 0);
    store.close_on_shard(&shard, Timestamp(0)).await.unwrap();
    let group = GroupDefinition {
        name: GROUP.to_owned(),
        stream: "again".to_owned(),
        agent_type: "a".to_owned(),
        shards: 1,
        start: Start::Earliest,
        state: GroupState::Creating,
        created_at: Timestamp(0),
        version: 0,
        settings: GroupSettings::default(),
    };
    store.put_group(NAMESPACE, &group).await.unwrap();
    let _coordinator = coordinator(&redis, &[]).await;
    until(seconds(5), "the deletion to be finished", async || {
        store.stream(NAMESPACE, "going").await.unwrap().is_none()
    })
    .await;
    until(seconds(5), "the new stream to be open", async || {
        store.shard_state(&made).await.unwrap().1.is_none()
    })
    .await;
    assert!(store.stream(NAMESPACE, "made").await.unwrap().is_some());
    until(
        seconds(16),
        "the group and its stream to be made",
        async || {
            let group = store.group(NAMESPACE, GROUP).await.unwrap().unwrap();
            group.state == GroupState::Active
        },
    )
    .await;
    assert!(store.stream(NAMESPACE, "again").await.unwrap().is_some());
    assert_eq!(store.groups_on_shard(&shard).await.unwrap(), [GROUP]);
}

#[tokio::test]
async fn a_deletion_that_the_shard_decided_is_carried_out() {
    let mut world = World::new(lease(30_000), StreamSettings::default()).await;
    let store = store_on(&world.redis);
    // A lane for all groups, which does not know the group any more afterwards.
    let other = define(
        &store,
        ("work", StreamSettings::default()),
        ("other", lease(30_000)),
        GroupState::Active,
    )
    .await;
    store.create_on_shard(&world.shard, &other).await.unwrap();
    world.publish_to_all(1, Lane::plain(4), 0).await;
    let agent = world.join("a", Kind::Pull, "-").await;
    let leases = world.fetch(&agent, 1).await;
    world.settle(&agent, &leases, Action::Ack).await;
    let retired = store.retire_on_shard(&world.shard, GROUP).await;
    assert_eq!(retired.unwrap(), Removal::Done(0));
    // Here the gateway died.
    let _coordinator = coordinator(&world.redis, &[]).await;
    until(seconds(5), "the definition to be gone", async || {
        store.group(NAMESPACE, GROUP).await.unwrap().is_none()
    })
    .await;
    let there = store.shard_groups(&world.shard).await.unwrap();
    let names: Vec<_> = there.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(names, ["other"]);
    assert_eq!(store.dead_count(&world.shard).await.unwrap(), 0);
}

#[tokio::test]
async fn a_pause_and_a_resume_that_were_cut_off_are_carried_out() {
    let world = World::new(lease(30_000), StreamSettings::default()).await;
    let _coordinator = coordinator(&world.redis, &[]).await;
    for state in [GroupState::Paused, GroupState::Active] {
        let mut group = world.store.group(NAMESPACE, GROUP).await.unwrap().unwrap();
        group.state = state;
        world.store.put_group(NAMESPACE, &group).await.unwrap();
        until(seconds(5), "the shard to follow", async || {
            let there = world.store.shard_groups(&world.shard).await.unwrap();
            there[0].state == state && there[0].version > group.version
        })
        .await;
    }
}

#[tokio::test]
async fn an_entry_that_its_index_lost_is_put_back_and_told() {
    let mut world = World::new(lease(30_000), StreamSettings::default()).await;
    world.publish(1, Lane::plain(4), 0).await;
    let agent = world.join("a", Kind::Pull, "-").await;
    let leases = world.fetch(&agent, 1).await;
    world.settle(&agent, &leases, nack(0)).await;
    let removal = format!(
        "ZREM {} g/p4|{}",
        world.shard.ready(GROUP, ""),
        leases[0].id
    );
    assert_eq!(world.raw(&removal).await, ":1");
    let often = ("HIVE_RECOVERY_AUDIT_INTERVAL", "200ms");
    let daemon = coordinator(&world.redis, &[often]).await;
    until(seconds(5), "the entry to be ready", async || {
        world.figures().await.ready == 1
    })
    .await;
    let series = "hive_invariant_violations_total{invariant=\"placeholder_indexed\"}";
    until(Duration::from_secs(1), "the violation", async || {
        metric(&daemon, series).await == Some(1.0)
    })
    .await;
    assert_eq!(world.fetch(&agent, 1).await.len(), 1);
}

#[tokio::test]
async fn a_group_that_its_lane_lost_is_told_once_and_holds_up_no_other() {
    let mut world = World::new(lease(1_000), StreamSettings::default()).await;
    world.publish(1, Lane::plain(4), 0).await;
    world.publish(1, Lane::plain(7), 0).await;
    let limits = StreamSettings::default();
    let broken = define(
        &world.store,
        ("work", limits),
        ("broken", lease(1_000)),
        GroupState::Active,
    )
    .await;
    world
        .store
        .create_on_shard(&world.shard, &broken)
        .await
        .unwrap();
    let lane = LaneRef::of_all(Lane::plain(2));
    let lost = format!("HSET {} {lane} 1-0", world.shard.lanes());
    assert_eq!(world.raw(&lost).await, ":1");
    let stream = world.shard.lane(&lane);
    let made = format!("XGROUP CREATE {stream} {GROUP} 0 MKSTREAM");
    assert_eq!(world.raw(&made).await, "+OK");
    let daemon = coordinator(&world.redis, &[]).await;
    let hung = world.join("hung", Kind::Pull, "-").await;
    assert_eq!(world.fetch(&hung, 2).await.len(), 2);
    until(seconds(5), "the other group's entries", async || {
        world.figures().await.ready == 2
    })
    .await;
    assert_eq!(metric(&daemon, "hive_data_loss_total").await, Some(1.0));
}

/// Series of the invariant.
fn violations(invariant: &str) -> String {
    format!("hive_invariant_violations_total{{invariant=\"{invariant}\"}}")
}

#[tokio::test]
async fn a_delivery_whose_entry_is_gone_is_told_and_counts_no_longer() {
    let mut world = World::new(lease(30_000), StreamSettings::default()).await;
    world.publish(2, Lane::plain(4), 0).await;
    let agent = world.join("a", Kind::Pull, "-").await;
    let leases = world.fetch(&agent, 2).await;
    let lane = LaneRef::of_group(GROUP, Lane::plain(4));
    let removal = format!("XDEL {} {}", world.shard.lane(&lane), leases[0].id);
    assert_eq!(world.raw(&removal).await, ":1");
    let often = ("HIVE_RECOVERY_AUDIT_INTERVAL", "200ms");
    let daemon = coordinator(&world.redis, &[often]).await;
    until(seconds(5), "the delivery to be written off", async || {
        world.figures().await.pending == 1
    })
    .await;
    let figures = world.figures().await;
    assert_eq!((figures.waiting, figures.settled, figures.acked), (0, 1, 0));
    until(seconds(1), "the alarm", async || {
        metric(&daemon, &violations("delivery_has_entry")).await == Some(1.0)
    })
    .await;
    assert_eq!(metric(&daemon, "hive_data_loss_total").await, Some(1.0));
    let verdicts = world.settle(&agent, &leases, Action::Ack).await;
    assert_eq!(verdicts, [Verdict::Gone, Verdict::Done]);
}

#[tokio::test]
async fn a_group_that_its_lane_lost_is_restored_and_works_on() {
    let mut world = World::new(lease(30_000), StreamSettings::default()).await;
    world.publish(3, Lane::plain(4), 0).await;
    let agent = world.join("a", Kind::Pull, "-").await;
    let leases = world.fetch(&agent, 2).await;
    world.settle(&agent, &leases[..1], Action::Ack).await;
    let daemon = coordinator(&world.redis, &[]).await;
    let lane = LaneRef::of_group(GROUP, Lane::plain(4));
    let loss = format!("XGROUP DESTROY {} {GROUP}", world.shard.lane(&lane));
    assert_eq!(world.raw(&loss).await, ":1");
    // Long before the auditor's own pace: whoever misses the group wakes it.
    until(seconds(5), "the group to be restored", async || {
        metric(&daemon, &violations("lane_has_group")).await == Some(1.0)
    })
    .await;
    assert_eq!(world.figures().await.waiting, 3);
    assert_eq!(world.fetch(&agent, 9).await.len(), 3);
    assert!(daemon.log_tail().contains("group_restored"));
}

#[tokio::test]
async fn a_group_that_cannot_be_audited_keeps_no_other_from_its_audit() {
    let mut world = World::new(lease(30_000), StreamSettings::default()).await;
    let broken = define(
        &world.store,
        ("work", StreamSettings::default()),
        ("broken", lease(30_000)),
        GroupState::Active,
    )
    .await;
    let made = world.store.create_on_shard(&world.shard, &broken);
    made.await.unwrap();
    world.publish(2, Lane::plain(4), 0).await;
    let agent = world.join("a", Kind::Pull, "-").await;
    let leases = world.fetch(&agent, 2).await;
    let lane = LaneRef::of_group(GROUP, Lane::plain(4));
    let removal = format!("XDEL {} {}", world.shard.lane(&lane), leases[0].id);
    assert_eq!(world.raw(&removal).await, ":1");
    let counters = world.shard.group("broken", GroupKey::Counters);
    let spoil = format!("SET {counters} none");
    assert_eq!(world.raw(&spoil).await, "+OK");
    let often = ("HIVE_RECOVERY_AUDIT_INTERVAL", "200ms");
    let daemon = coordinator(&world.redis, &[often]).await;
    until(seconds(5), "the delivery to be written off", async || {
        world.figures().await.pending == 1
    })
    .await;
    assert!(daemon.log_tail().contains("loop_failed"));
}

#[tokio::test]
async fn what_is_parked_behind_a_blocked_key_ends_by_its_own_time_and_by_retention() {
    let by_age = StreamSettings {
        retention_max_age_ms: 500,
        ..StreamSettings::default()
    };
    for (limits, expires_at_ms, dead, parked) in
        [(StreamSettings::default(), 1, 2, 1), (by_age, 0, 3, 0)]
    {
        let mut world = World::new(lease(30_000), limits).await;
        for expires_at_ms in [0, expires_at_ms, 0] {
            world.publish_ordered("k", expires_at_ms).await;
        }
        let agent = world.join("a", Kind::Pull, "-").await;
        let leases = world.fetch(&agent, 3).await;
        assert_eq!((leases.len(), world.figures().await.parked), (1, 2));
        let reject = Action::Reject {
            category: "validation_error".to_owned(),
            record: hive_store::attempt::record(&hive_store::attempt::Attempt::default()),
        };
        let verdicts = world.settle(&agent, &leases, reject).await;
        assert_eq!(verdicts, [Verdict::Dead]);
        let _coordinator = coordinator(&world.redis, &[OFTEN]).await;
        until(seconds(6), "the dead letters", async || {
            world.store.dead_count(&world.shard).await.unwrap() == dead
        })
        .await;
        let figures = world.figures().await;
        assert_eq!((figures.parked, figures.blocked_keys), (parked, 1));
        let (store, shard) = (&world.store, &world.shard);
        assert_eq!(store.blocked_keys(shard, GROUP, 9).await.unwrap(), ["k"]);
        assert!(store.unblock_key(shard, (GROUP, 0), "k").await.unwrap());
        let next = world.fetch(&agent, 3).await;
        assert_eq!(next.len(), usize::try_from(parked).unwrap());
        world.publish_ordered("other", 0).await;
    }
}
