//! Replays of history: what retention may take from one that is under way, and what it must see.

use hive_domain::stream::StreamSettings;
use hive_store::control::Put;
use hive_store::members::Kind;
use hive_store::replays::{Replay, ReplayState};
use hive_store::retention::Keep;
use hive_store::settle::Action;
use hive_store::{Lane, LaneRef};
use hive_testkit::wait::until;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::seconds;
use crate::world::{GROUP, NAMESPACE, World, coordinator, lease};

const OFTEN: (&str, &str) = ("HIVE_RECOVERY_RETENTION_INTERVAL", "100ms");
/// More than all that a test has.
const ALL: u64 = 1 << 52;

/// A group that has settled so many messages of each of these priorities, in their order.
async fn with_history(limits: StreamSettings, count: usize, priorities: &[u8]) -> World {
    let mut world = World::new(lease(30_000), limits).await;
    let agent = world.join("a", Kind::Pull, "-").await;
    for priority in priorities {
        world.publish(count, Lane::plain(*priority), 0).await;
        let leases = world.fetch(&agent, 100).await;
        assert_eq!(leases.len(), count);
        world.settle(&agent, &leases, Action::Ack).await;
    }
    world
}

async fn begin(world: &World, rate: u32) {
    let replay = Replay {
        id: "r".into(),
        version: 0,
        group: GROUP.into(),
        from_ms: 0,
        to_ms: world.store.now_ms() + 1,
        message_types: Vec::new(),
        from_agents: Vec::new(),
        rate,
        state: ReplayState::Running,
        lane: String::new(),
        after: String::new(),
        next: String::new(),
        heads: None,
        missed: String::new(),
        examined: 0,
        published: 0,
        error: String::new(),
        started_ms: 0,
        ended_ms: 0,
    };
    let put = world.store.put_replay(NAMESPACE, &world.shard, &replay);
    assert!(matches!(put.await.unwrap(), Put::Stored(_)));
}

async fn seen(world: &World) -> Replay {
    let replay = world.store.replay(&world.shard, "r").await.unwrap();
    replay.expect("it is kept")
}

async fn ended(world: &World) -> Replay {
    until(seconds(20), "the end of the replay", async || {
        seen(world).await.state != ReplayState::Running
    })
    .await;
    seen(world).await
}

#[tokio::test]
async fn what_a_replay_publishes_does_not_push_out_what_it_has_yet_to_read() {
    let limits = StreamSettings {
        retention_max_len: 40,
        ..StreamSettings::default()
    };
    // The lane that is read last has the oldest messages.
    let world = with_history(limits, 20, &[9, 4]).await;
    begin(&world, 40).await;
    let _coordinator = coordinator(&world.redis, &[OFTEN]).await;
    let end = ended(&world).await;
    assert_eq!(
        (end.state, end.published),
        (ReplayState::Done, 40),
        "{end:?}"
    );
    let lanes = [4, 9].map(|priority| LaneRef::of_group(GROUP, Lane::plain(priority)));
    until(seconds(5), "the limit to hold again", async || {
        world.store.entries(&world.shard, &lanes).await.unwrap() == 40
    })
    .await;
}

#[tokio::test]
async fn a_replay_whose_history_is_deleted_before_its_turn_does_not_end_as_done() {
    for priority in [4, 9] {
        let world = with_history(StreamSettings::default(), 20, &[9, 4]).await;
        begin(&world, 20).await;
        let _coordinator = coordinator(&world.redis, &[]).await;
        until(seconds(10), "the replay to begin", async || {
            seen(&world).await.published > 0
        })
        .await;
        let lane = LaneRef::of_group(GROUP, Lane::plain(priority));
        let nothing = Keep {
            age_ms: ALL,
            len: 0,
            bytes: ALL,
        };
        let trimmed = world.store.trim(&world.shard, &lane, nothing, "-").await;
        assert!(trimmed.unwrap().deleted > 0);
        let end = ended(&world).await;
        assert_eq!(end.state, ReplayState::Failed, "{end:?}");
        let words = format!("lane `g/p{priority}` before they were read");
        assert!(end.error.contains(&words), "{end:?}");
        assert!(
            end.published >= 20 - u64::from(priority == 4) * 19,
            "{end:?}"
        );
    }
}

#[tokio::test]
async fn a_replay_asks_what_was_delivered_before_it_asks_what_is_pending() {
    let world = with_history(StreamSettings::default(), 5, &[4]).await;
    let lane = LaneRef::of_group(GROUP, Lane::plain(4));
    let stream = world.shard.lane(&lane);
    let head = world.raw(&format!("XRANGE {stream} - + COUNT 1")).await;
    let first = head.lines().nth(3).expect("an id").to_owned();
    let mut monitor = UnixStream::connect(world.redis.socket()).await.unwrap();
    monitor.write_all(b"MONITOR\r\n").await.unwrap();
    begin(&world, 1_000).await;
    let _coordinator = coordinator(&world.redis, &[]).await;
    assert_eq!(ended(&world).await.published, 5);
    world.raw("PING the-end").await;
    let mut log = Vec::new();
    while !String::from_utf8_lossy(&log).contains("the-end") {
        assert!(monitor.read_buf(&mut log).await.unwrap() > 0);
    }
    let log = String::from_utf8_lossy(&log).into_owned();
    let (mut was_asked, mut asked) = (false, 0);
    for line in log.lines().filter(|line| !line.contains(" lua]")) {
        let has = |words: &str| line.contains(words);
        if has(&format!(r#""XRANGE" "{stream}""#)) && has("-0\" \"COUNT\"") {
            was_asked = false;
        }
        was_asked |= has(&format!(r#""XINFO" "GROUPS" "{stream}""#));
        if has(&format!(r#""XPENDING" "{stream}" "{GROUP}" "{first}""#)) {
            assert!(was_asked, "{line}");
            asked += 1;
        }
    }
    assert!(asked > 0, "{log}");
}
