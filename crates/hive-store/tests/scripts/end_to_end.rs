//! One message of every fate, from publish to its end.

use hive_store::settle::{Action, Verdict};

use crate::world::{id_of, ids, nack, ordered, reject, with_group};

#[tokio::test]
async fn a_message_of_every_fate_is_counted_once_and_nothing_is_left() {
    let world = with_group().await;
    world
        .add("g/p4", &["ack", "nack", "release", "reject"])
        .await;
    world.add("/p9", &["all"]).await;
    assert_eq!(world.places("g").await, (5, 0, 0, 0, 0, 0));
    let a = world.join("g", "a", &[]).await;
    let taken = world.take("g", &a, 10).await;
    assert_eq!(ids(&taken), ["all", "ack", "nack", "release", "reject"]);
    assert!(
        taken
            .iter()
            .all(|taken| taken.count == 1 && taken.failures == 0)
    );
    let actions = [
        Action::Ack,
        Action::Ack,
        nack(None),
        Action::Release { retry_after_ms: 0 },
        reject(),
    ];
    let mut settles = Vec::new();
    for (taken, action) in taken.iter().zip(actions) {
        settles.push(world.settle_of("g", &a, taken, action).await);
    }
    let verdicts = world.settle_all("g", &settles).await;
    use Verdict::{Dead, Done};
    assert_eq!(verdicts, [Done, Done, Done, Done, Dead]);
    assert_eq!(world.places("g").await, (0, 0, 1, 1, 0, 3));
    let again = world.settle_all("g", &settles).await;
    use Verdict::{Gone, Stale};
    assert_eq!(again, [Gone, Gone, Stale, Stale, Gone]);
    world.end_backoffs("g").await;
    let taken = world.take("g", &a, 10).await;
    assert_eq!(ids(&taken), ["nack", "release"]);
    assert_eq!((taken[0].count, taken[0].failures), (2, 1));
    assert_eq!((taken[1].count, taken[1].failures), (2, 0));
    for taken in &taken {
        assert_eq!(world.settle("g", &a, taken, Action::Ack).await, Done);
    }
    assert_eq!(world.places("g").await, (0, 0, 0, 0, 0, 5));
    let figures = world.figures("g").await;
    assert_eq!((figures.acked, figures.failed, figures.dead), (4, 2, 1));
    assert_eq!((figures.released, figures.redelivered), (1, 2));
    assert_eq!(figures.recent_acked, 4);
    let dead = world
        .store
        .dead_letters(&world.shard, "0-0", 10)
        .await
        .expect("dead");
    assert_eq!(dead.len(), 1);
    assert_eq!(id_of(&dead[0].body), "reject");
    assert_eq!(
        (dead[0].category.as_str(), dead[0].deliveries),
        ("validation_error", 1)
    );
}

#[tokio::test]
async fn an_ordering_key_is_delivered_one_by_one_in_order() {
    let world = with_group().await;
    world
        .publish(vec![
            ordered("g/p4m", "k1", "k"),
            ordered("g/p4m", "k2", "k"),
            ordered("g/p4m", "k3", "k"),
            ordered("g/p4m", "l1", "l"),
        ])
        .await;
    let a = world.join("g", "a", &[]).await;
    let first = world.take("g", &a, 10).await;
    assert_eq!(ids(&first), ["k1", "l1"]);
    assert_eq!(world.places("g").await, (0, 2, 0, 0, 2, 0));
    for expected in ["k2", "k3"] {
        let before = if expected == "k2" {
            first.clone()
        } else {
            world.take("g", &a, 9).await
        };
        assert_eq!(
            world.settle("g", &a, &before[0], Action::Ack).await,
            Verdict::Done
        );
        assert_eq!(world.places("g").await.2, 1, "{expected} is ready");
    }
    let last = world.take("g", &a, 10).await;
    assert_eq!(ids(&last), ["k3"]);
    assert_eq!(
        world.settle("g", &a, &last[0], Action::Ack).await,
        Verdict::Done
    );
    assert_eq!(
        world.settle("g", &a, &first[1], Action::Ack).await,
        Verdict::Done
    );
    assert_eq!(world.places("g").await, (0, 0, 0, 0, 0, 4));
    let busy: i64 = world
        .redis(&["HLEN", &world.key("g", hive_store::keys::GroupKey::Busy)])
        .await;
    assert_eq!(busy, 0);
}
