//! What `publish`, `fetch`, `settle`, `due_scheduled`, `scheduled_cancel`, `waiting_expire`,
//! `group_delete`, `task_resolve`, `task_look` and `handover_trim` do to tracked messages.

mod random;

use std::time::Duration;

use bytes::Bytes;
use hive_domain::group::{GroupState, Start};
use hive_store::{
    fetch::Taker,
    publish::{Idempotency, Item, Outcome},
    settle::{Action, Verdict},
    sweep::Take,
    tasks::{Holder, Resolved, TaskOutcome},
    tracked::{End, Tracked, keep, tracking_key},
};

use hive_testkit::wait::until;

use crate::world::{World, header, item, lose, nack, reject, with_group, world};

const LANE: &str = "g/p4r";
const DAY: Duration = Duration::from_secs(86_400);

fn tracked(id: &str) -> Item {
    let mut header = header();
    header.dispatch_key = tracking_key(id).into();
    Item {
        body: header.join(id.as_bytes()),
        ..item(LANE, id)
    }
}

fn expiring(id: &str) -> Item {
    let mut header = header();
    header.dispatch_key = tracking_key(id).into();
    header.expires_at_ms = 1;
    Item {
        body: header.join(id.as_bytes()),
        ..item(LANE, id)
    }
}

fn later(id: &str) -> Item {
    Item {
        not_before_ms: 4_000_000_000_000,
        ..tracked(id)
    }
}

fn given(text: &'static str) -> Action {
    Action::Complete {
        result: keep(&Bytes::from_static(text.as_bytes()), 64),
    }
}

async fn look(world: &World, id: &str) -> Option<Tracked> {
    let seen = world.store.tracked(&world.shard, ("", id));
    seen.await.expect("a row")
}

/// How one ended: outcome, consumer, attempts and what was said.
async fn end(world: &World, id: &str) -> (TaskOutcome, String, u32, String) {
    match look(world, id).await {
        Some(Tracked::Ended(End {
            outcome,
            consumer,
            attempts,
            detail,
            at_ms,
        })) => {
            assert!(at_ms > 0);
            let detail = String::from_utf8_lossy(&detail).into_owned();
            (outcome, consumer, attempts, detail)
        },
        other => panic!("`{id}` has not ended: {other:?}"),
    }
}

async fn cancel(world: &World, id: &str) -> Resolved {
    let cancelled = world
        .store
        .cancel_tracked(&world.shard, id, "not wanted", false);
    cancelled.await.expect("an answer")
}

async fn settled_records(world: &World) -> i64 {
    world.redis(&["XLEN", &world.shard.settled()]).await
}

/// A group with these messages, and a consumer.
async fn with_messages(ids: &[&str]) -> (World, Taker) {
    let world = with_group().await;
    for outcome in world
        .publish(ids.iter().map(|id| tracked(id)).collect())
        .await
    {
        assert_eq!(outcome, Outcome::Added);
    }
    let a = world.join("g", "a", &[]).await;
    (world, a)
}

fn dead(consumer: &str, attempts: u32, why: &str) -> (TaskOutcome, String, u32, String) {
    (
        TaskOutcome::DeadLettered,
        consumer.into(),
        attempts,
        why.into(),
    )
}

#[tokio::test]
async fn a_tracked_message_is_followed_from_its_publish_to_its_result() {
    let (world, a) = with_messages(&["m"]).await;
    assert_eq!(look(&world, "x").await, None);
    assert_eq!(
        look(&world, "m").await,
        Some(Tracked::Waiting { failures: 0 })
    );
    let taken = world.take("g", &a, 1).await;
    let leased = |failures| {
        Some(Tracked::Leased {
            consumer: "a".into(),
            failures,
        })
    };
    assert_eq!(look(&world, "m").await, leased(0));
    world.settle("g", &a, &taken[0], nack(Some(0))).await;
    assert_eq!(
        look(&world, "m").await,
        Some(Tracked::Waiting { failures: 1 })
    );
    let taken = world.take("g", &a, 1).await;
    assert_eq!(look(&world, "m").await, leased(1));
    let verdict = world.settle("g", &a, &taken[0], given("result")).await;
    assert_eq!(verdict, Verdict::Done);
    let ended = (TaskOutcome::Succeeded, "a".into(), 2, "rresult".into());
    assert_eq!(end(&world, "m").await, ended);
    assert_eq!(settled_records(&world).await, 0, "no router is told");
    let figures = world.figures("g").await;
    assert_eq!((figures.settled, figures.acked), (1, 1));
    assert_eq!(figures.unsettled_bytes, 0);
}

#[tokio::test]
async fn an_id_that_is_tracked_is_refused_and_changes_nothing() {
    let (world, a) = with_messages(&["m"]).await;
    let again = world
        .publish(vec![tracked("m"), tracked("n"), tracked("n")])
        .await;
    let refused = Outcome::TrackedBefore;
    assert_eq!(again, [refused.clone(), Outcome::Added, refused.clone()]);
    assert_eq!(world.take("g", &a, 9).await.len(), 2);
    assert_eq!(
        world.publish(vec![tracked("m"), later("m")]).await,
        [refused.clone(), refused]
    );
    assert_eq!(world.figures("g").await.published, 2);
}

#[tokio::test]
async fn a_repetition_under_an_idempotency_key_is_a_duplicate_of_the_first() {
    let (world, a) = with_messages(&[]).await;
    let keyed = |id: &str| Item {
        idempotency: Some(Idempotency {
            key: "k".into(),
            fingerprint: 7,
            message_id: id.into(),
        }),
        ..tracked(id)
    };
    assert_eq!(world.publish(vec![keyed("m")]).await, [Outcome::Added]);
    let duplicate = [Outcome::Duplicate("m".into())];
    for id in ["m", "n"] {
        assert_eq!(world.publish(vec![keyed(id)]).await, duplicate);
    }
    assert_eq!(look(&world, "n").await, None);
    assert_eq!(world.take("g", &a, 9).await.len(), 1);
}

#[tokio::test]
async fn a_flush_sent_again_keeps_the_row_of_the_first() {
    let (world, a) = with_messages(&[]).await;
    let flush = world.flush(vec![tracked("m")]).await;
    let first = world.send(&flush).await;
    assert_eq!(world.send(&flush).await, first);
    assert_eq!(world.take("g", &a, 9).await.len(), 1);
}

#[tokio::test]
async fn whatever_ends_a_delivery_is_kept() {
    let (world, a) = with_messages(&["1", "2", "3", "4", "5"]).await;
    let taken = world.take("g", &a, 5).await;
    let actions = [Action::Ack, reject(), Action::Expire, Action::Cancel];
    for (taken, action) in taken.iter().zip(actions) {
        world.settle("g", &a, taken, action).await;
    }
    let acked = (TaskOutcome::Succeeded, "a".into(), 1, String::new());
    assert_eq!(end(&world, "1").await, acked);
    assert_eq!(
        end(&world, "2").await,
        dead("record", 1, "validation_error")
    );
    assert_eq!(end(&world, "3").await, dead("", 0, "expired"));
    assert_eq!(end(&world, "4").await, dead("", 0, "cancelled"));
    let mut last = taken[4].clone();
    for attempt in 1..=3 {
        world.settle("g", &a, &last, lose(0)).await;
        if attempt < 3 {
            last = world.take("g", &a, 1).await[0].clone();
        }
    }
    assert_eq!(end(&world, "5").await, dead("lost", 3, "timeout"));
    assert_eq!(world.places("g").await, (0, 0, 0, 0, 0, 5));
    assert_eq!(world.figures("g").await.dead, 4);
    assert_eq!(settled_records(&world).await, 0);
}

#[tokio::test]
async fn a_cancelled_message_is_taken_from_its_holder_and_has_one_end() {
    let (world, a) = with_messages(&["m", "n"]).await;
    let taken = world.take("g", &a, 2).await;
    let holder = Holder {
        group: "g".into(),
        lane: LANE.into(),
        id: taken[0].id.clone(),
        consumer: "a".into(),
        deliveries: 1,
    };
    let ended = Resolved::Ended {
        holder: Some(holder),
    };
    assert_eq!(cancel(&world, "m").await, ended);
    let late = world.settle("g", &a, &taken[0], given("late")).await;
    assert_eq!(late, Verdict::Gone);
    let expected = (TaskOutcome::Cancelled, "a".into(), 1, "not wanted".into());
    assert_eq!(end(&world, "m").await, expected);
    world.settle("g", &a, &taken[1], Action::Ack).await;
    let already = Resolved::Already(TaskOutcome::Succeeded);
    assert_eq!(cancel(&world, "n").await, already);
    assert_eq!(world.places("g").await, (0, 0, 0, 0, 0, 2));
}

#[tokio::test]
async fn a_message_cancelled_before_its_delivery_is_never_delivered() {
    let (world, a) = with_messages(&["m", "n"]).await;
    assert_eq!(cancel(&world, "m").await, Resolved::Ended { holder: None });
    assert_eq!(
        world.places("g").await,
        (1, 0, 0, 0, 0, 1),
        "it is not counted"
    );
    let size = tracked("n").body.len() as u64;
    assert_eq!(world.figures("g").await.unsettled_bytes, size);
    let held: u64 = world.redis(&["HGET", &world.shard.sizes(), LANE]).await;
    assert_eq!(held, size);
    let taken = world.take("g", &a, 9).await;
    assert_eq!(taken.len(), 1);
    let expected = (
        TaskOutcome::Cancelled,
        String::new(),
        0,
        "not wanted".into(),
    );
    assert_eq!(end(&world, "m").await, expected);
    assert_eq!(world.places("g").await, (0, 1, 0, 0, 0, 1));
}

async fn make_due(world: &World) {
    let members: Vec<String> = world
        .redis(&["ZRANGE", &world.shard.scheduled(), "0", "-1"])
        .await;
    for member in members {
        let _: i64 = world
            .redis(&["ZADD", &world.shard.scheduled(), "1", &member])
            .await;
    }
    let (lanes, groups) = (
        world.store.lanes(&world.shard).await.expect("lanes"),
        world
            .store
            .groups_on_shard(&world.shard)
            .await
            .expect("groups"),
    );
    let due = world.store.due_scheduled(&world.shard, &lanes, &groups);
    due.await.expect("due");
}

#[tokio::test]
async fn a_delayed_message_is_scheduled_then_waits_and_can_be_cancelled_before() {
    let (world, a) = with_messages(&[]).await;
    world.publish(vec![later("m"), later("n")]).await;
    assert_eq!(look(&world, "m").await, Some(Tracked::Scheduled));
    assert_eq!(cancel(&world, "n").await, Resolved::Ended { holder: None });
    let figures = world.figures("g").await;
    let size = tracked("m").body.len() as u64;
    assert_eq!((figures.scheduled, figures.unsettled_bytes), (1, size));
    make_due(&world).await;
    assert_eq!(
        look(&world, "m").await,
        Some(Tracked::Waiting { failures: 0 })
    );
    let taken = world.take("g", &a, 9).await;
    assert_eq!(taken.len(), 1);
    world.settle("g", &a, &taken[0], Action::Ack).await;
    assert_eq!(end(&world, "m").await.0, TaskOutcome::Succeeded);
    assert_eq!(end(&world, "n").await.0, TaskOutcome::Cancelled);
    assert_eq!(world.figures("g").await.unsettled_bytes, 0);
}

#[tokio::test]
async fn a_purge_of_delayed_messages_tells_what_became_of_them_and_counts_them_off() {
    let (world, _) = with_messages(&["now"]).await;
    world.publish(vec![later("m"), later("n")]).await;
    cancel(&world, "n").await;
    let purged = world.store.cancel_scheduled(&world.shard, "g", (0, true));
    assert_eq!(purged.await.expect("an answer"), (0, 1));
    assert_eq!(end(&world, "m").await, dead("", 0, "cancelled"));
    assert_eq!(end(&world, "n").await.0, TaskOutcome::Cancelled);
    let figures = world.figures("g").await;
    let size = tracked("now").body.len() as u64;
    assert_eq!((figures.scheduled, figures.unsettled_bytes), (0, size));
    assert_eq!((figures.dead, figures.waiting), (1, 1));
    let sizes: Vec<String> = world.redis(&["HKEYS", &world.shard.sizes()]).await;
    assert_eq!(
        sizes,
        [LANE, "~ outcomes"],
        "nothing is scheduled for the lane"
    );
}

#[tokio::test]
async fn a_message_whose_time_passed_before_its_delivery_is_told() {
    let (world, _) = with_messages(&["m"]).await;
    world.publish(vec![expiring("n")]).await;
    let lanes = world.lanes("g").await;
    let (expired, _) = world
        .store
        .expire_waiting(&world.shard, "g", &lanes[0], "-", ("expired", b""))
        .await
        .expect("an answer");
    assert_eq!(expired, 1);
    assert_eq!(end(&world, "n").await, dead("", 0, "expired"));
    assert_eq!(
        look(&world, "m").await,
        Some(Tracked::Waiting { failures: 0 })
    );
}

#[tokio::test]
async fn the_last_messages_of_a_group_that_goes_are_told() {
    let (world, _) = with_messages(&["m", "n"]).await;
    cancel(&world, "n").await;
    assert!(world.set_state("g", GroupState::Deleting, 2).await);
    world
        .store
        .delete_on_shard(&world.shard, "g")
        .await
        .expect("a removal");
    assert_eq!(end(&world, "m").await, dead("", 0, "cancelled"));
    assert_eq!(end(&world, "n").await.0, TaskOutcome::Cancelled);
    assert_eq!(settled_records(&world).await, 0);
}

#[tokio::test]
async fn a_purge_of_a_lane_tells_what_became_of_each() {
    let (world, _) = with_messages(&["m", "n"]).await;
    let lanes = world.lanes("g").await;
    let taken = world
        .store
        .take_waiting(&world.shard, "g", &lanes[0], Take::All, 10)
        .await
        .expect("ids");
    assert_eq!(taken.len(), 2);
    let pending = world.store.pending("g", &lanes, 0, ("-", 10), None).await;
    let items: Vec<hive_store::settle::Settle> = pending
        .expect("entries")
        .iter()
        .map(|entry| hive_store::settle::Settle {
            lease: entry.lease(&lanes, "*", 0),
            attach: 0,
            check_session: false,
            action: Action::Cancel,
        })
        .collect();
    assert_eq!(world.settle_all("g", &items).await, [Verdict::Dead; 2]);
    assert_eq!(end(&world, "m").await, dead("", 0, "cancelled"));
}

#[tokio::test]
async fn outcomes_are_forgotten_with_their_rows_and_open_rows_stay() {
    let (world, a) = with_messages(&["m", "n"]).await;
    let taken = world.take("g", &a, 1).await;
    world.settle("g", &a, &taken[0], given("result")).await;
    let forget = |keep| world.store.forget_outcomes(&world.shard, keep, 10);
    assert_eq!(forget(DAY).await.expect("an answer"), (0, true));
    assert!(
        world
            .store
            .bytes_of_outcomes(&world.shard)
            .await
            .expect("bytes")
            > 0
    );
    age(&world).await;
    assert_eq!(forget(Duration::ZERO).await.expect("an answer"), (1, true));
    assert_eq!(look(&world, "m").await, None);
    assert_eq!(
        look(&world, "n").await,
        Some(Tracked::Waiting { failures: 0 })
    );
    assert_eq!(world.publish(vec![tracked("m")]).await, [Outcome::Added]);
}

/// Comes back when all that is there is older than Redis' present millisecond.
async fn age(world: &World) {
    let now = async || -> u64 {
        let (seconds, micros): (u64, u64) = world.redis(&["TIME"]).await;
        seconds * 1_000 + micros / 1_000
    };
    let began = now().await;
    until(
        Duration::from_secs(5),
        "a millisecond to pass",
        async || now().await > began,
    )
    .await;
}

async fn bytes_of_outcomes(world: &World) -> u64 {
    let bytes = world.store.bytes_of_outcomes(&world.shard);
    bytes.await.expect("bytes")
}

#[tokio::test]
async fn the_bytes_of_outcomes_are_true_also_where_large_ones_lie_behind_small_ones() {
    let ids: Vec<String> = (0..600).map(|number| format!("m{number:03}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let (world, a) = with_messages(&ids).await;
    assert_eq!(bytes_of_outcomes(&world).await, 0);
    let taken = world.take("g", &a, 600).await;
    let large = Action::Complete {
        result: Bytes::from(vec![b'r'; 60_000]),
    };
    for (number, taken) in taken.iter().enumerate() {
        let action = if number < 550 {
            Action::Ack
        } else {
            large.clone()
        };
        world.settle("g", &a, taken, action).await;
    }
    let counted = bytes_of_outcomes(&world).await;
    let outcomes = world.shard.outcomes();
    let usage = ["MEMORY", "USAGE", &outcomes, "SAMPLES", "0"];
    let real: u64 = world.redis(&usage).await;
    assert!(
        (real / 2..=2 * real).contains(&counted),
        "{counted} counted, {real} taken"
    );
    age(&world).await;
    // The small ones are the oldest, and go first: what is left is of the large ones alone.
    let forgotten = world
        .store
        .forget_outcomes(&world.shard, Duration::ZERO, 1)
        .await;
    assert_eq!(forgotten.expect("an answer"), (500, false));
    assert_eq!(
        bytes_of_outcomes(&world).await,
        counted - 500 * (128 + tracking_key("m000").len() as u64)
    );
    let rest = world.store.forget_outcomes(&world.shard, Duration::ZERO, 9);
    assert_eq!(rest.await.expect("an answer"), (100, true));
    assert_eq!(bytes_of_outcomes(&world).await, 0);
}

#[tokio::test]
async fn a_message_whose_entry_was_lost_is_unknown() {
    let (world, _) = with_messages(&["m"]).await;
    let lane = world.shard.lane(&LANE.parse().expect("a lane"));
    let _: i64 = world.redis(&["DEL", &lane]).await;
    assert_eq!(look(&world, "m").await, None);
}

#[tokio::test]
async fn a_message_is_found_among_shards_wherever_its_id_is_known() {
    let (world, _) = with_messages(&["m"]).await;
    let (second, _) = with_messages(&["m", "n"]).await;
    let other = world.store.shard("other", "s", 0);
    let shards = [other, world.shard.clone(), second.shard.clone()];
    let found = |id: &'static str| world.store.shards_of_tracked(&shards, id);
    assert_eq!(found("m").await.expect("an answer"), [1, 2]);
    assert_eq!(found("n").await.expect("an answer"), [2]);
    assert!(found("x").await.expect("an answer").is_empty());
}

#[tokio::test]
async fn an_open_message_of_another_group_is_not_the_one_that_is_asked_for() {
    let (world, _) = with_messages(&["m"]).await;
    world.publish(vec![later("n")]).await;
    for id in ["m", "n"] {
        for (group, is_there) in [("g", true), ("h", false)] {
            let seen = world.store.tracked(&world.shard, (group, id));
            let seen = seen.await.expect("an answer");
            assert_eq!(seen.is_some(), is_there, "{id} of {group}: {seen:?}");
        }
    }
}

#[tokio::test]
async fn a_tracked_message_for_a_group_that_is_not_there_is_refused_and_not_known() {
    let world = world().await;
    world.create("h", Start::Earliest).await;
    assert_eq!(world.publish(vec![tracked("m")]).await, [Outcome::NoGroup]);
    assert_eq!(look(&world, "m").await, None);
}
