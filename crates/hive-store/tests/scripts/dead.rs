//! What died waits in its shard: until a worker has taken it, and some time longer.

use hive_domain::group::Start;
use rand::Rng as _;

use super::world::{World, reject, with_group, world};

/// Entries of `n` messages that died long ago; their times of death go up by 1 ms.
async fn died_long_ago(world: &World, count: u64) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 1..=count {
        let id = format!("{number}-0");
        let dead = world.shard.dead();
        let head = [
            "XADD", &dead, &id, "m", "body", "group", "g", "lane", "g/p4",
        ];
        let tail = ["id", &id, "count", "3", "category", "timeout"];
        let last = ["record", "", "failures", ""];
        let words: Vec<&str> = head.into_iter().chain(tail).chain(last).collect();
        let added: String = world.redis(&words).await;
        assert_eq!(added, id);
        ids.push(id);
    }
    ids
}

async fn left(world: &World) -> Vec<String> {
    let mut ids = Vec::new();
    loop {
        let after = ids.last().cloned().unwrap_or_else(|| "0-0".to_owned());
        let page = world.store.dead_letters(&world.shard, &after, 500).await;
        let page = page.expect("dead letters");
        if page.is_empty() {
            return ids;
        }
        ids.extend(page.into_iter().map(|dead| dead.id));
    }
}

#[tokio::test]
async fn what_was_rejected_is_forgotten_once_taken_and_old_and_not_before() {
    let world = with_group().await;
    world.add("g/p4", &["a", "b", "c"]).await;
    let taker = world.join("g", "c", &[]).await;
    for taken in world.take("g", &taker, 3).await {
        world.settle("g", &taker, &taken, reject()).await;
    }
    let dead = left(&world).await;
    assert_eq!(dead.len(), 3);
    // The server's clock moves on by a millisecond at least before `keep_ms` 0 means any of them.
    let newest = dead[2].split_once('-').expect("an id").0.to_owned();
    loop {
        let now: (String, String) = world.redis(&["TIME"]).await;
        let ms = format!("{}{:0>6}", now.0, now.1);
        if ms[..newest.len()] > newest[..] {
            break;
        }
        tokio::task::yield_now().await;
    }
    let trim = async |keep_ms: u64| {
        let trimmed = world.store.trim_dead(&world.shard, keep_ms).await;
        trimmed.expect("trimmed")
    };
    assert_eq!(trim(0).await, 0, "nobody has taken them");
    let advanced = world
        .store
        .advance_dead(&world.shard, "0-0", &dead[1])
        .await;
    assert!(advanced.expect("advanced"));
    assert_eq!(trim(600_000).await, 0, "they died just now");
    assert_eq!(trim(0).await, 2);
    assert_eq!(left(&world).await, dead[2..]);
}

#[tokio::test]
async fn a_trim_never_removes_what_is_not_taken_however_much_there_is() {
    let world = world().await;
    assert!(world.create("g", Start::Earliest).await);
    let dead = died_long_ago(&world, 1_300).await;
    let mut rng = hive_testkit::rng::seeded("trim_dead").rng;
    let mut taken = 0_usize;
    while taken < dead.len() {
        taken = rng.random_range(taken + 1..=(taken + 700).min(dead.len()));
        let position = &dead[taken - 1];
        let advanced = world
            .store
            .advance_dead(&world.shard, "0-0", position)
            .await;
        assert!(advanced.expect("advanced"));
        // A worker that stalled notes an older place: it changes nothing.
        let older = &dead[rng.random_range(0..taken)];
        let advanced = world.store.advance_dead(&world.shard, "0-0", older).await;
        assert!(advanced.expect("advanced"));
        let trimmed = world.store.trim_dead(&world.shard, 600_000).await;
        trimmed.expect("trimmed");
        assert_eq!(left(&world).await, dead[taken..], "{taken} were taken");
    }
}
