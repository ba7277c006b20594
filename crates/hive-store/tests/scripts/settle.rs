//! `ack`, `settle` and `extend`: only the holder of the latest lease, once, with the right count.

use hive_domain::group::Start;
use hive_store::{
    Lease, attempt,
    fetch::{Taken, Taker},
    header::Header,
    keys::GroupKey,
    members::Leaving,
    publish::Item,
    repair::WrittenOff,
    settle::{Action, Settle, SettleGroup, Ticket, Verdict},
};

use crate::world::{
    AGEING_MS, World, header, id_of, ids, item, lose, nack, ordered, reject, with_group,
};

async fn one(world: &World, items: Vec<Item>) -> (Taker, Vec<Taken>) {
    world.publish(items).await;
    let a = world.join("g", "a", &[]).await;
    let taken = world.take("g", &a, 100).await;
    (a, taken)
}

fn with_policy(id: &str, change: impl FnOnce(&mut Header<'_>)) -> Item {
    let mut header = header();
    change(&mut header);
    Item {
        body: header.join(id.as_bytes()),
        ..item("g/p4", id)
    }
}

#[tokio::test]
async fn a_stale_lease_changes_nothing_whatever_the_action() {
    let actions = [
        Action::Ack,
        nack(None),
        Action::Release { retry_after_ms: 0 },
        reject(),
        Action::Expire,
        Action::Cancel,
        lose(0),
        Action::GiveBack { idle_ms: 0 },
    ];
    for action in actions {
        let world = with_group().await;
        let (a, taken) = one(&world, vec![item("g/p4", "m")]).await;
        let good = world.settle_of("g", &a, &taken[0], action.clone()).await;
        let changed = |change: fn(&mut Settle)| {
            let mut settle = good.clone();
            change(&mut settle);
            settle
        };
        let rows = [
            (changed(|s| s.lease.session = "old".into()), Verdict::Fenced),
            (changed(|s| s.attach = 7), Verdict::Fenced),
            (changed(|s| s.lease.count = 2), Verdict::Stale),
            (changed(|s| s.lease.consumer = "b".into()), Verdict::Stale),
            (changed(|s| s.lease.id = "1-1".into()), Verdict::Gone),
            (changed(|s| s.lease.lane = "g/p9".into()), Verdict::Unknown),
        ];
        for (settle, expected) in rows {
            let verdict = world.settle_all("g", &[settle]).await;
            assert_eq!(verdict, [expected], "{action:?}");
            assert_eq!(world.places("g").await, (0, 1, 0, 0, 0, 0), "{action:?}");
        }
        assert!(matches!(
            world.settle_all("g", &[good]).await[0],
            Verdict::Done | Verdict::Dead
        ));
    }
}

#[tokio::test]
async fn a_lease_that_was_given_to_another_is_stale_for_its_old_holder() {
    for action in [
        Action::Ack,
        nack(None),
        Action::Release { retry_after_ms: 0 },
    ] {
        let world = with_group().await;
        let (a, taken) = one(&world, vec![item("g/p4", "m")]).await;
        world.settle("g", &a, &taken[0], lose(0)).await;
        let b = world.join("g", "b", &[]).await;
        let again = world.take("g", &b, 1).await;
        assert_eq!(
            world.settle("g", &a, &taken[0], action).await,
            Verdict::Stale
        );
        assert_eq!(
            world.settle("g", &b, &again[0], Action::Ack).await,
            Verdict::Done
        );
    }
}

#[tokio::test]
async fn a_batch_of_acks_counts_each_entry_once() {
    let world = with_group().await;
    let items = (0..10).map(|n| item("g/p4", &format!("m{n}"))).collect();
    let (a, taken) = one(&world, items).await;
    let mut settles = Vec::new();
    for taken in taken.iter().rev() {
        settles.push(world.settle_of("g", &a, taken, Action::Ack).await);
    }
    settles.push(settles[3].clone());
    let mut stale = settles[0].clone();
    stale.lease.count = 9;
    settles.push(stale);
    settles[1].lease.delivered_ms = 0;
    let lanes = world.lanes("g").await;
    let verdicts = world.settle_with("g", &lanes, &settles, |_| {}).await;
    assert_eq!(verdicts[..10], [Verdict::Done; 10]);
    assert_eq!(verdicts[10], Verdict::Gone, "a retry beside its original");
    assert_eq!(
        verdicts[11],
        Verdict::Gone,
        "settled by the batch before it"
    );
    let figures = world.figures("g").await;
    assert_eq!(
        (figures.settled, figures.acked, figures.recent_acked),
        (10, 10, 10)
    );
    assert_eq!(
        world.settle_all("g", &settles[..10]).await,
        [Verdict::Gone; 10]
    );
    assert_eq!(world.figures("g").await.settled, 10);
}

#[tokio::test]
async fn work_time_is_summed_over_the_acked() {
    let world = with_group().await;
    let items = vec![item("g/p4", "a"), ordered("g/p4m", "b", "k")];
    let (a, taken) = one(&world, items).await;
    let mut settles = Vec::new();
    for taken in &taken {
        let mut settle = world.settle_of("g", &a, taken, Action::Ack).await;
        settle.lease.delivered_ms = 1_000;
        settles.push(settle);
    }
    let lanes = world.lanes("g").await;
    let group = SettleGroup {
        name: "g",
        lanes: &lanes,
        ageing_ms: 0,
        max_attempts: 3,
        initial_backoff_ms: 0,
        max_backoff_ms: 0,
        durable: false,
        keep: true,
        block: false,
    };
    world
        .store
        .settle(&world.shard, group, &settles, 1_250)
        .await
        .expect("settle");
    assert_eq!(world.figures("g").await.recent_work_ms, 500);
}

#[tokio::test]
async fn attempts_used_up_end_in_the_dead_letters_with_their_history() {
    let world = with_group().await;
    let (a, mut taken) = one(&world, vec![item("g/p4", "m")]).await;
    for attempt in 1..=3_u64 {
        let record = attempt::record(&attempt::Attempt {
            consumer: "a".into(),
            started_ms: attempt,
            ended_ms: attempt,
            category: "timeout".into(),
            reason: format!("reason {attempt}"),
            ..attempt::Attempt::default()
        });
        let action = Action::Nack {
            delay_ms: Some(0),
            jitter: 0,
            category: "timeout".into(),
            record,
        };
        let verdict = world.settle("g", &a, &taken[0], action).await;
        assert_eq!(
            verdict,
            if attempt < 3 {
                Verdict::Done
            } else {
                Verdict::Dead
            }
        );
        taken = world.take("g", &a, 9).await;
        assert_eq!(taken.len(), usize::from(attempt < 3));
    }
    let dead = world
        .store
        .dead_letters(&world.shard, "0-0", 9)
        .await
        .expect("dead");
    assert_eq!(
        (dead.len(), dead[0].failures, dead[0].deliveries),
        (1, 3, 3)
    );
    assert_eq!(
        (dead[0].lane.as_str(), id_of(&dead[0].body).as_str()),
        ("g/p4", "m")
    );
    let rows: Vec<(String, Vec<Vec<u8>>)> = world
        .redis(&["XRANGE", &world.shard.dead(), "-", "+"])
        .await;
    let at = rows[0]
        .1
        .iter()
        .position(|field| field == b"failures")
        .expect("a history");
    let (count, attempts) = attempt::history(&rows[0].1[at + 1]).expect("a history");
    let reasons: Vec<&str> = attempts
        .iter()
        .map(|attempt| attempt.reason.as_str())
        .collect();
    assert_eq!(
        (count, reasons),
        (3, vec!["reason 1", "reason 2", "reason 3"])
    );
    let left: i64 = world
        .redis(&["EXISTS", &world.key("g", GroupKey::Failures)])
        .await;
    assert_eq!(left, 0);
    let figures = world.figures("g").await;
    assert_eq!((figures.failed, figures.dead, figures.settled), (3, 1, 1));
}

#[tokio::test]
async fn sixteen_records_of_failures_are_kept_and_all_are_counted() {
    let world = with_group().await;
    let (a, mut taken) = one(&world, vec![with_policy("m", |h| h.max_attempts = 20)]).await;
    for failed in 0..20 {
        let action = Action::Nack {
            delay_ms: Some(0),
            jitter: 0,
            category: "unknown".into(),
            record: attempt::record(&attempt::Attempt {
                started_ms: failed,
                ..attempt::Attempt::default()
            }),
        };
        world.settle("g", &a, &taken[0], action).await;
        if failed == 18 {
            let key = world.key("g", GroupKey::Failures);
            let kept: Vec<Vec<u8>> = world.redis(&["HVALS", &key]).await;
            let (count, attempts) = attempt::history(&kept[0]).expect("a history");
            assert_eq!((count, attempts.len(), attempts[0].started_ms), (19, 16, 3));
        }
        taken = world.take("g", &a, 9).await;
    }
    assert!(taken.is_empty());
    assert_eq!(world.figures("g").await.dead, 1);
}

#[tokio::test]
async fn a_messages_own_policy_wins() {
    let world = with_group().await;
    let items = vec![
        with_policy("one attempt", |h| h.max_attempts = 1),
        with_policy("own backoff", |h| {
            h.initial_backoff_ms = 500_000;
            h.max_backoff_ms = 600_000;
        }),
        with_policy("no backoff", |h| h.initial_backoff_ms = 0),
        item("g/p4", "group's"),
    ];
    let (a, taken) = one(&world, items).await;
    let mut verdicts = Vec::new();
    for taken in &taken {
        verdicts.push(world.settle("g", &a, taken, nack(None)).await);
    }
    use Verdict::{Dead, Done};
    assert_eq!(verdicts, [Dead, Done, Done, Done]);
    assert_eq!(world.places("g").await, (0, 0, 1, 2, 0, 1));
    let now: (f64, f64) = world.redis(&["TIME"]).await;
    let key = world.key("g", GroupKey::Delayed);
    let due: Vec<(String, f64)> = world
        .redis(&["ZRANGE", &key, "0", "-1", "WITHSCORES"])
        .await;
    let waits: Vec<f64> = due.iter().map(|(_, due)| due - now.0 * 1_000.0).collect();
    assert!((0.0..=2_000.0).contains(&waits[0]), "{waits:?}");
    assert!((498_000.0..=502_000.0).contains(&waits[1]), "{waits:?}");
}

#[tokio::test]
async fn a_backoff_doubles_up_to_its_limit_within_its_jitter() {
    for (failures, jitter, expected) in [
        (0, 1_000_000, 100_000),
        (1, 1_000_000, 200_000),
        (5, 1_000_000, 300_000),
        (0, 0, 0),
    ] {
        let world = with_group().await;
        let policy = |h: &mut Header<'_>| {
            h.initial_backoff_ms = 100_000;
            h.max_backoff_ms = 300_000;
            h.max_attempts = 100;
        };
        let (a, mut taken) = one(&world, vec![with_policy("m", policy)]).await;
        for _ in 0..failures {
            world.settle("g", &a, &taken[0], nack(Some(0))).await;
            taken = world.take("g", &a, 1).await;
        }
        let action = Action::Nack {
            delay_ms: None,
            jitter,
            category: "unknown".into(),
            record: bytes::Bytes::new(),
        };
        world.settle("g", &a, &taken[0], action).await;
        let now: (i64, i64) = world.redis(&["TIME"]).await;
        let key = world.key("g", GroupKey::Delayed);
        let due: Vec<(String, i64)> = world
            .redis(&["ZRANGE", &key, "0", "-1", "WITHSCORES"])
            .await;
        if expected == 0 {
            assert!(due.is_empty(), "no backoff is no index");
            continue;
        }
        let wait = due[0].1 - now.0 * 1_000;
        assert!((wait - expected).abs() < 2_000, "{wait} for {expected}");
    }
}

#[tokio::test]
async fn an_entry_that_is_given_back_without_end_dies() {
    for action in [
        Action::GiveBack { idle_ms: 0 },
        Action::Release { retry_after_ms: 0 },
    ] {
        let world = with_group().await;
        let (a, taken) = one(&world, vec![item("g/p4", "m")]).await;
        let lane = &world.lanes("g").await[0];
        let set = async |count: &str| {
            let words = [
                "XCLAIM",
                &lane.stream,
                "g",
                "a",
                "0",
                &taken[0].id,
                "RETRYCOUNT",
                count,
            ];
            let _: redis::Value = world.redis(&words).await;
        };
        set("1002").await;
        let nearly = Taken {
            count: 1_002,
            ..taken[0].clone()
        };
        assert_eq!(
            world.settle("g", &a, &nearly, action.clone()).await,
            Verdict::Done
        );
        world.take("g", &a, 1).await;
        set("1003").await;
        let last = Taken {
            count: 1_003,
            ..taken[0].clone()
        };
        assert_eq!(world.settle("g", &a, &last, action).await, Verdict::Dead);
        assert_eq!(world.places("g").await, (0, 0, 0, 0, 0, 1));
    }
}

#[tokio::test]
async fn recovery_spares_what_is_not_idle_and_everything_within_a_grace() {
    let world = with_group().await;
    let (_, taken) = one(&world, vec![item("g/p4", "m")]).await;
    let lanes = world.lanes("g").await;
    let lease = Lease {
        lane: "g/p4".into(),
        id: taken[0].id.clone(),
        count: 1,
        consumer: "a".into(),
        session: "*".into(),
        delivered_ms: 0,
        bytes: 0,
    };
    let recover = async |action: Action| {
        let lease = lease.clone();
        let item = Settle {
            lease,
            attach: 0,
            check_session: false,
            action,
        };
        world.settle_all("g", &[item]).await[0]
    };
    assert_eq!(recover(lose(30_000)).await, Verdict::Spared);
    assert_eq!(
        recover(Action::GiveBack { idle_ms: 30_000 }).await,
        Verdict::Spared
    );
    let idle = [
        "XCLAIM",
        &lanes[0].stream,
        "g",
        "a",
        "0",
        &taken[0].id,
        "IDLE",
        "31000",
        "JUSTID",
    ];
    let _: redis::Value = world.redis(&idle).await;
    let clock = world.shard.clock();
    let _: i64 = world
        .redis(&["HSET", &clock, "grace_until", "4000000000000"])
        .await;
    assert_eq!(recover(lose(30_000)).await, Verdict::Spared);
    let _: i64 = world.redis(&["HSET", &clock, "grace_until", "1"]).await;
    assert_eq!(recover(lose(30_000)).await, Verdict::Done);
    let figures = world.figures("g").await;
    assert_eq!((figures.expired, figures.failed, figures.ready), (1, 1, 1));
    assert_eq!(
        recover(lose(30_000)).await,
        Verdict::Stale,
        "it is no consumer's now"
    );
}

#[tokio::test]
async fn the_next_of_a_key_is_let_go_also_in_a_lane_that_the_caller_does_not_know() {
    for action in [Action::Ack, reject()] {
        let world = with_group().await;
        world.publish(vec![ordered("g/p9m", "a", "k")]).await;
        let a = world.join("g", "a", &[]).await;
        let first = world.take("g", &a, 9).await;
        let known = world.lanes("g").await;
        let item = world.settle_of("g", &a, &first[0], action).await;
        world.publish(vec![ordered("g/p4m", "b", "k")]).await;
        assert!(world.take("g", &a, 9).await.is_empty(), "parked");
        let verdicts = world
            .settle_with("g", &known, std::slice::from_ref(&item), |_| {})
            .await;
        assert!(
            matches!(verdicts[0], Verdict::Done | Verdict::Dead),
            "{verdicts:?}"
        );
        assert_eq!(world.places("g").await, (0, 0, 1, 0, 0, 1));
        assert_eq!(ids(&world.take("g", &a, 9).await), ["b"]);
        assert_eq!(world.settle_all("g", &[item]).await, [Verdict::Gone]);
    }
}

#[tokio::test]
async fn a_delivery_of_a_lane_that_the_caller_does_not_know_is_settled_and_extended() {
    let world = with_group().await;
    let (a, taken) = one(&world, vec![item("g/p4", "m"), item("g/p4", "n")]).await;
    let lease = world.lease("g", &a, &taken[0]).await;
    let extended = world
        .store
        .extend(&world.shard, "g", &[], &[(lease, a.attach)])
        .await;
    assert_eq!(extended.expect("extend"), [Verdict::Done]);
    for taken in &taken {
        let item = world.settle_of("g", &a, taken, Action::Ack).await;
        assert_eq!(
            world.settle_with("g", &[], &[item], |_| {}).await,
            [Verdict::Done]
        );
    }
}

#[tokio::test]
async fn a_parked_entry_that_is_cancelled_is_not_let_go_later() {
    let world = with_group().await;
    let items = ["a", "b", "c"].map(|id| ordered("g/p4m", id, "k")).to_vec();
    let (a, taken) = one(&world, items).await;
    let lanes = world.lanes("g").await;
    let parked = world
        .store
        .held_by("g", &lanes, "~ordered")
        .await
        .expect("parked");
    assert_eq!(parked.len(), 2);
    let cancel = Settle {
        lease: parked[0].lease(&lanes, "*", 0),
        attach: 0,
        check_session: false,
        action: Action::Cancel,
    };
    assert_eq!(world.settle_all("g", &[cancel]).await, [Verdict::Dead]);
    assert_eq!(world.places("g").await, (0, 1, 0, 0, 1, 1));
    assert_eq!(
        world.settle("g", &a, &taken[0], Action::Ack).await,
        Verdict::Done
    );
    assert_eq!(ids(&world.take("g", &a, 9).await), ["c"]);
}

#[tokio::test]
async fn what_is_cancelled_in_an_index_leaves_it() {
    let world = with_group().await;
    let (a, taken) = one(&world, vec![item("g/p4", "a"), item("g/p4", "b")]).await;
    world.settle("g", &a, &taken[0], nack(Some(0))).await;
    world.settle("g", &a, &taken[1], nack(Some(60_000))).await;
    let lanes = world.lanes("g").await;
    for place in ["~ready", "~delayed"] {
        let held = world.store.held_by("g", &lanes, place).await.expect("held");
        let cancel = Settle {
            lease: held[0].lease(&lanes, "*", 0),
            attach: 0,
            check_session: false,
            action: Action::Cancel,
        };
        assert_eq!(
            world.settle_all("g", &[cancel]).await,
            [Verdict::Dead],
            "{place}"
        );
    }
    assert_eq!(world.places("g").await, (0, 0, 0, 0, 0, 2));
}

#[tokio::test]
async fn only_the_holder_extends_and_the_count_stays() {
    let world = with_group().await;
    let items = (0..4).map(|n| item("g/p4", &format!("m{n}"))).collect();
    let (a, taken) = one(&world, items).await;
    let lanes = world.lanes("g").await;
    let mut leases = Vec::new();
    for taken in &taken {
        leases.push((world.lease("g", &a, taken).await, a.attach));
    }
    let idle = [
        "XCLAIM",
        &lanes[0].stream,
        "g",
        "a",
        "0",
        &taken[0].id,
        "IDLE",
        "60000",
        "JUSTID",
    ];
    let _: redis::Value = world.redis(&idle).await;
    leases[1].0.count = 5;
    leases[2].0.session = "old".into();
    leases[3].1 = 9;
    let mut absent = leases[0].clone();
    absent.0.id = "1-1".into();
    leases.push(absent);
    let mut other = leases[0].clone();
    other.0.lane = "h/p4".into();
    leases.push(other);
    let verdicts = world
        .store
        .extend(&world.shard, "g", &lanes, &leases)
        .await
        .expect("extend");
    use Verdict::{Detached, Done, Fenced, Gone, Stale, Unknown};
    assert_eq!(verdicts, [Done, Stale, Fenced, Detached, Gone, Unknown]);
    let held = world.store.held_by("g", &lanes, "a").await.expect("held");
    assert!(held[0].idle_ms < 30_000 && held[0].count == 1, "{held:?}");
    let mut many = Vec::new();
    for taken in &taken {
        many.push((world.lease("g", &a, taken).await, 0));
    }
    let verdicts = world
        .store
        .extend(&world.shard, "g", &lanes, &many)
        .await
        .expect("extend");
    assert_eq!(verdicts, [Done; 4]);
    // Given up by a coordinator: it was fenced out by nobody.
    let left = world
        .store
        .leave(&world.shard, "g", &lanes, ("a", "*", 0))
        .await;
    assert_eq!(left.expect("leave"), Leaving::Done);
    let verdicts = world
        .store
        .extend(&world.shard, "g", &lanes, &leases[..3])
        .await;
    assert_eq!(verdicts.expect("extend"), [Detached; 3]);
}

#[tokio::test]
async fn what_a_purge_gives_back_still_waits_for_its_key() {
    let world = with_group().await;
    let (a, first) = one(&world, vec![ordered("g/p4m", "a", "k")]).await;
    world
        .publish(vec![ordered("g/p4m", "b", "k"), ordered("g/p4m", "c", "l")])
        .await;
    let lanes = world.lanes("g").await;
    let taken = world
        .store
        .take_waiting(
            &world.shard,
            "g",
            &lanes[0],
            hive_store::sweep::Take::All,
            9,
        )
        .await;
    assert_eq!(taken.expect("take").len(), 2);
    for held in world
        .store
        .held_by("g", &lanes, "~taken")
        .await
        .expect("held")
    {
        let lease = held.lease(&lanes, "*", 0);
        let action = Action::GiveBack { idle_ms: 0 };
        let item = Settle {
            lease,
            attach: 0,
            check_session: false,
            action,
        };
        assert_eq!(world.settle_all("g", &[item]).await, [Verdict::Done]);
    }
    let free = world.take("g", &a, 9).await;
    assert_eq!(ids(&free), ["c"]);
    assert_eq!(
        world.settle("g", &a, &first[0], Action::Ack).await,
        Verdict::Done
    );
    assert_eq!(ids(&world.take("g", &a, 9).await), ["b"]);
}

#[tokio::test]
async fn a_settle_made_again_under_its_ticket_is_answered_as_it_was() {
    let world = with_group().await;
    let (a, taken) = one(&world, vec![item("g/p4", "m"), item("g/p4", "n")]).await;
    let items = [
        world.settle_of("g", &a, &taken[0], Action::Ack).await,
        world.settle_of("g", &a, &taken[1], nack(None)).await,
    ];
    let lanes = world.lanes("g").await;
    let group = SettleGroup {
        name: "g",
        lanes: &lanes,
        ageing_ms: AGEING_MS,
        max_attempts: 3,
        initial_backoff_ms: 1_000,
        max_backoff_ms: 60_000,
        block: false,
        durable: false,
        keep: true,
    };
    let mut ticket = Ticket::default();
    for _ in 0..2 {
        let what = (items.as_slice(), &mut ticket);
        let verdicts = world.store.settle_again(&world.shard, group, what, 0).await;
        assert_eq!(verdicts.expect("settle"), [Verdict::Done, Verdict::Done]);
    }
    // Other items under the same ticket are another settle.
    let what = (&items[1..], &mut ticket);
    let verdicts = world.store.settle_again(&world.shard, group, what, 0).await;
    assert_eq!(verdicts.expect("settle"), [Verdict::Stale]);
    assert_eq!(world.figures("g").await.acked, 1);
}

#[tokio::test]
async fn where_nothing_is_kept_the_last_settle_of_an_entry_deletes_it() {
    let world = with_group().await;
    world.create("h", Start::Earliest).await;
    world.add("g/p4", &["a", "b", "c"]).await;
    world.add("/p5", &["shared"]).await;
    let a = world.join("g", "a", &[]).await;
    let mut settles = Vec::new();
    for (taken, action) in world.take("g", &a, 9).await.iter().zip([
        Action::Ack,
        Action::Ack,
        reject(),
        nack(Some(60_000)),
    ]) {
        settles.push(world.settle_of("g", &a, taken, action).await);
    }
    let lanes = world.lanes("g").await;
    let verdicts = world
        .settle_with("g", &lanes, &settles, |group| group.keep = false)
        .await;
    assert_eq!(
        verdicts,
        [Verdict::Done, Verdict::Done, Verdict::Dead, Verdict::Done]
    );
    let length = async |lane: &str| -> u64 {
        let lane = world.shard.lane(&crate::world::lane_ref(lane));
        world.redis(&["XLEN", &lane]).await
    };
    assert_eq!(length("g/p4").await, 1, "what waits out a backoff");
    assert_eq!(length("/p5").await, 1, "`h` has not read it");
    let sizes = world
        .store
        .bytes_by_lane(&world.shard)
        .await
        .expect("sizes");
    let key = world.key("g", GroupKey::Counters);
    let bytes: u64 = world.redis(&["HGET", &key, "bytes"]).await;
    assert_eq!(sizes["g/p4"], bytes, "one unsettled message is left");
    assert_eq!(world.places("g").await, (0, 0, 0, 1, 0, 3));
}

#[tokio::test]
async fn a_late_ack_of_a_batch_frees_the_bytes_of_what_it_settles_alone() {
    let world = with_group().await;
    world.add("g/p4", &["a", "bbbbbbbb", "c"]).await;
    let a = world.join("g", "a", &[]).await;
    let mut settles = Vec::new();
    for taken in world.take("g", &a, 9).await {
        settles.push(world.settle_of("g", &a, &taken, Action::Ack).await);
    }
    world.settle_all("g", &settles[..1]).await;
    let verdicts = world.settle_all("g", &settles[..2]).await;
    assert_eq!(verdicts, [Verdict::Gone, Verdict::Done]);
    let key = world.key("g", GroupKey::Counters);
    let bytes: u32 = world.redis(&["HGET", &key, "bytes"]).await;
    assert_eq!(bytes, settles[2].lease.bytes);
}

#[tokio::test]
async fn a_message_that_dies_of_its_failures_blocks_its_key_until_that_is_let_go() {
    let world = with_group().await;
    let items = ["a", "b", "c"].map(|id| ordered("g/p4m", id, "k"));
    let mut items = items.to_vec();
    items.push(ordered("g/p4m", "other", "free"));
    let (a, taken) = one(&world, items).await;
    assert_eq!(ids(&taken), ["a", "other"]);
    let lanes = world.lanes("g").await;
    let settle = async |taken: &Taken, action: Action| {
        let settle = world.settle_of("g", &a, taken, action).await;
        let verdicts = world
            .settle_with("g", &lanes, &[settle], |group| group.block = true)
            .await;
        verdicts[0]
    };
    assert_eq!(settle(&taken[0], reject()).await, Verdict::Dead);
    assert_eq!(settle(&taken[1], Action::Ack).await, Verdict::Done);
    assert_eq!(world.take("g", &a, 9).await, [], "`b` and `c` wait");
    world.publish(vec![ordered("g/p4m", "d", "k")]).await;
    assert_eq!(world.take("g", &a, 9).await, [], "and so does `d`");
    let figures = world.figures("g").await;
    assert_eq!((figures.parked, figures.blocked_keys), (3, 1));
    let blocked = world.store.blocked_keys(&world.shard, "g", 10).await;
    assert_eq!(blocked.expect("blocked"), ["k"]);
    let unblock = async |key: &str| {
        let let_go = world.store.unblock_key(&world.shard, ("g", 0), key).await;
        let_go.expect("key_unblock")
    };
    assert!(!unblock("free").await);
    assert!(unblock("k").await);
    assert!(!unblock("k").await, "it is free");
    let next = world.take("g", &a, 9).await;
    assert_eq!(ids(&next), ["b"]);
    // A time to live and a cancellation end a message without a failure.
    assert_eq!(settle(&next[0], Action::Expire).await, Verdict::Dead);
    let next = world.take("g", &a, 9).await;
    assert_eq!(ids(&next), ["c"]);
    assert_eq!(settle(&next[0], Action::Cancel).await, Verdict::Dead);
    assert_eq!(ids(&world.take("g", &a, 9).await), ["d"]);
    assert_eq!(world.figures("g").await.blocked_keys, 0);
}

#[tokio::test]
async fn a_batch_whose_sections_are_judged_otherwise_is_settled_to_its_end() {
    let world = with_group().await;
    world.add("g/p4", &["a", "b"]).await;
    world.add("g/p5", &["c", "d"]).await;
    let (a, b) = (
        world.join("g", "a", &[]).await,
        world.join("g", "b", &[]).await,
    );
    let mut settles = Vec::new();
    for agent in [&a, &b] {
        for taken in world.take("g", agent, 2).await {
            settles.push(world.settle_of("g", agent, &taken, Action::Ack).await);
        }
    }
    world.settle_all("g", &settles[..1]).await;
    settles[3].lease.session = "old".into();
    // Data is gone: what is acked is not there, and its size is known from its lease.
    let lanes = world.lanes("g").await;
    let lane = lanes.iter().find(|lane| *lane.reference == *"g/p5");
    let stream = &lane.expect("the lane").stream;
    let removed: i64 = world.redis(&["XDEL", stream, &settles[1].lease.id]).await;
    assert_eq!(removed, 1);
    let settle = world.settle_with("g", &lanes, &settles, |group| group.keep = false);
    let expected = [Verdict::Gone, Verdict::Done, Verdict::Done, Verdict::Fenced];
    assert_eq!(settle.await, expected);
    let key = world.key("g", GroupKey::Counters);
    let bytes: u32 = world.redis(&["HGET", &key, "bytes"]).await;
    assert_eq!(bytes, settles[3].lease.bytes);
    assert_eq!(world.figures("g").await.acked, 3);
}

#[tokio::test]
async fn a_parked_entry_whose_time_is_over_ends_and_its_blocked_key_stays_blocked() {
    let world = with_group().await;
    let expiring = |id: &str, expires_at_ms: u64| {
        let mut header = header();
        header.ordering_key = "k".into();
        header.expires_at_ms = expires_at_ms;
        Item {
            body: header.join(id.as_bytes()),
            ..ordered("g/p4m", id, "k")
        }
    };
    let items = vec![
        expiring("a", 1),
        expiring("b", 0),
        expiring("c", 1),
        expiring("d", 1),
    ];
    let (a, taken) = one(&world, items).await;
    let lanes = world.lanes("g").await;
    let settle = world.settle_of("g", &a, &taken[0], reject()).await;
    world
        .settle_with("g", &lanes, &[settle], |group| group.block = true)
        .await;
    let look = async |from: &str| {
        let look = world.store.expired_parked("g", (&lanes, 0), from);
        look.await.expect("parked_check")
    };
    let (expired, next) = look("-").await;
    assert_eq!(expired.len(), 2, "`a` is dead, `b` lives for ever");
    assert_eq!(look(&next.expect("a last id")).await, (vec![], None));
    let settles: Vec<Settle> = expired
        .iter()
        .map(|entry| Settle {
            lease: entry.lease(&lanes, "*", 0),
            attach: 0,
            check_session: false,
            action: Action::Expire,
        })
        .collect();
    assert_eq!(world.settle_all("g", &settles).await, [Verdict::Dead; 2]);
    let figures = world.figures("g").await;
    assert_eq!((figures.parked, figures.blocked_keys), (1, 1));
    let unblocked = world.store.unblock_key(&world.shard, ("g", 0), "k").await;
    assert!(unblocked.expect("key_unblock"));
    assert_eq!(ids(&world.take("g", &a, 9).await), ["b"]);
}

/// Removes the entries that `~ordered` holds, but the last so many.
async fn lose_parked(world: &World, but_last: usize) {
    let lanes = world.lanes("g").await;
    let parked = world.store.held_by("g", &lanes, "~ordered").await;
    let parked = parked.expect("parked");
    for one in &parked[..parked.len() - but_last] {
        let stream = &lanes[one.lane].stream;
        assert_eq!(world.redis::<i64>(&["XDEL", stream, &one.id]).await, 1);
    }
}

#[tokio::test]
async fn a_key_goes_on_with_the_first_that_is_there() {
    for (left, is_blocked) in [(1, false), (0, false), (1, true), (0, true)] {
        let world = with_group().await;
        let items = ["a", "b", "c", "d"].map(|id| ordered("g/p4m", id, "k"));
        let (a, taken) = one(&world, items.to_vec()).await;
        lose_parked(&world, left).await;
        let lanes = world.lanes("g").await;
        let action = if is_blocked { reject() } else { Action::Ack };
        let settle = world.settle_of("g", &a, &taken[0], action).await;
        world
            .settle_with("g", &lanes, &[settle], |group| group.block = is_blocked)
            .await;
        if is_blocked {
            let unblocked = world.store.unblock_key(&world.shard, ("g", 0), "k").await;
            assert!(unblocked.expect("key_unblock"));
        }
        let next = world.take("g", &a, 9).await;
        assert_eq!(ids(&next), ["d"][..left], "{left} {is_blocked}");
        // What is gone is the auditor's, also where it stands before a message that is there.
        for held in world
            .store
            .held_by("g", &lanes, "~ordered")
            .await
            .expect("parked")
        {
            let (lane, id) = (&lanes[held.lane], held.id.as_str());
            let end = world
                .store
                .write_off(&world.shard, ("g", AGEING_MS), &lanes, (lane, id));
            assert_eq!(end.await.expect("write off"), WrittenOff::Lost(1));
        }
        for taken in &next {
            let verdict = world.settle("g", &a, taken, Action::Ack).await;
            assert_eq!(verdict, Verdict::Done);
        }
        let busy = world.key("g", GroupKey::Busy);
        assert_eq!(world.redis::<i64>(&["HLEN", &busy]).await, 0);
        assert_eq!(world.places("g").await, (0, 0, 0, 0, 0, 4));
    }
}

#[tokio::test]
async fn no_more_blocked_keys_are_answered_than_were_asked_for() {
    let world = with_group().await;
    let keys: Vec<String> = (0..5).map(|n| format!("k{n}")).collect();
    let items = keys.iter().map(|key| ordered("g/p4m", key, key)).collect();
    let (a, taken) = one(&world, items).await;
    let lanes = world.lanes("g").await;
    for taken in &taken[1..] {
        let settle = world.settle_of("g", &a, taken, reject()).await;
        world
            .settle_with("g", &lanes, &[settle], |group| group.block = true)
            .await;
    }
    let blocked = async |limit| {
        let blocked = world.store.blocked_keys(&world.shard, "g", limit).await;
        blocked.expect("blocked")
    };
    assert_eq!(blocked(9).await, keys[1..]);
    assert_eq!(blocked(2).await, keys[1..3]);
    let counters = world.key("g", GroupKey::Counters);
    let _: i64 = world.redis(&["HSET", &counters, "blocked", "0"]).await;
    assert!(blocked(9).await.is_empty(), "nothing is searched for none");
}
