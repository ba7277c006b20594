//! `Store::peek`: pages over what is unsettled, by place.

use hive_store::peek::{Page, Place};

use crate::world::{World, id_of, nack, with_group};

async fn peek(world: &World, place: Option<Place>, limit: u64, cursor: &str) -> Page {
    let lanes = world.lanes("g").await;
    let page = world
        .store
        .peek(&world.shard, "g", &lanes, place, (limit, cursor))
        .await;
    page.expect("peek")
}

/// Ids of all pages, and how many pages there were.
async fn all(world: &World, place: Option<Place>, limit: u64) -> (Vec<String>, usize) {
    let (mut ids, mut pages, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let page = peek(world, place, limit, &cursor).await;
        ids.extend(page.seen.iter().map(|seen| id_of(&seen.body)));
        pages += 1;
        cursor = page.next;
        if cursor.is_empty() {
            return (ids, pages);
        }
    }
}

#[tokio::test]
async fn each_place_shows_its_messages_page_by_page() {
    let world = with_group().await;
    world
        .add("g/p4", &["a", "b", "c", "d", "e", "f", "g", "h"])
        .await;
    let agent = world.join("g", "agent", &[]).await;
    let taken = world.take("g", &agent, 6).await;
    for number in [1, 4] {
        world
            .settle("g", &agent, &taken[number], nack(Some(60_000)))
            .await;
    }
    world.settle("g", &agent, &taken[3], nack(Some(0))).await;
    for limit in [1, 2, 9] {
        for (place, expected) in [
            (Some(Place::Leased), vec!["a", "c", "f"]),
            (Some(Place::Delayed), vec!["b", "e"]),
            (Some(Place::Ready), vec!["d"]),
            (Some(Place::Waiting), vec!["g", "h"]),
            (Some(Place::Scheduled), vec![]),
            (None, vec!["a", "b", "c", "d", "e", "f", "g", "h"]),
        ] {
            let seen = all(&world, place, limit).await.0;
            assert_eq!(seen, expected, "{place:?} by {limit}");
        }
    }
}

#[tokio::test]
async fn a_page_that_searches_long_ends_early_with_a_cursor() {
    let world = with_group().await;
    let agent = world.join("g", "agent", &["c"]).await;
    for priority in 0..10 {
        for consumer in ["", "+c", "@agent", "+c@agent", "m", "m+c"] {
            let lane = format!("g/p{priority}{consumer}");
            world.add(&lane, &[&lane]).await;
        }
    }
    let mut leased = 0;
    while leased < 60 {
        leased += world.take("g", &agent, 60).await.len();
    }
    let first = peek(&world, Some(Place::Delayed), 9, "").await;
    assert!(first.seen.is_empty() && !first.next.is_empty());
    let rest = peek(&world, Some(Place::Delayed), 9, &first.next).await;
    assert!(rest.seen.is_empty() && rest.next.is_empty());
    let (ids, pages) = all(&world, Some(Place::Leased), 60).await;
    assert_eq!(ids.len(), 60);
    assert!(pages > 1, "{pages}");
}
