//! `Store::group_facts`: what is known of all groups at once.

use hive_domain::{
    group::{GroupState, Start},
    placement::GroupFacts,
};
use hive_store::{control::Put, settle::Action};

use crate::world::{World, nack, with_group};

/// The namespace of a world, from the tag of its shard: `...{<namespace>/...`.
fn namespace(world: &World) -> String {
    let (_, tag) = world.shard.tag().split_once('{').expect("a tag");
    tag.split('/').next().expect("a namespace").to_owned()
}

async fn define(world: &World, name: &str, state: GroupState) {
    let mut definition = World::definition(name, Start::Earliest);
    definition.version = 0;
    definition.state = state;
    let put = world.store.put_group(&namespace(world), &definition).await;
    assert!(matches!(put.expect("put"), Put::Stored(_)));
}

async fn facts(world: &World) -> Vec<GroupFacts> {
    let found = world.store.group_facts(&namespace(world)).await;
    found.expect("facts")
}

#[tokio::test]
async fn work_members_and_capabilities_of_every_group_come_at_once() {
    let world = with_group().await;
    world.create("h", Start::Earliest).await;
    define(&world, "g", GroupState::Active).await;
    define(&world, "h", GroupState::Paused).await;
    define(&world, "old", GroupState::Deleting).await;
    world.add("/p4", &["a", "b"]).await;
    world.add("g/p9", &["c"]).await;
    world.add("/p4@nobody", &["held"]).await;
    let a = world.join("g", "a", &["cuda", "rust"]).await;
    world.join("g", "b", &["cuda", "rust"]).await;
    world.join("g", "c", &[]).await;
    let taken = world.take("g", &a, 2).await;
    world.settle("g", &a, &taken[0], Action::Ack).await;
    world.settle("g", &a, &taken[1], nack(None)).await;
    let [g, h, old] = facts(&world).await.try_into().expect("three groups");
    assert_eq!((&*g.name, &*g.agent_type), ("g", "any"));
    assert_eq!((g.waiting, g.pending, g.live_consumers), (1, 1, 3));
    let sets: Vec<&[String]> = g.capabilities.iter().map(|set| set.names()).collect();
    assert_eq!(sets, [&[][..], &["cuda".to_owned(), "rust".to_owned()][..]]);
    assert_eq!((h.waiting, h.pending, h.live_consumers), (2, 0, 0));
    assert_eq!(h.state, GroupState::Paused);
    assert_eq!((old.waiting, old.state), (0, GroupState::Deleting));
}

#[tokio::test]
async fn facts_agree_with_the_figures_of_a_group() {
    let world = with_group().await;
    define(&world, "g", GroupState::Active).await;
    for lane in ["/p4", "g/p0", "g/p4+cuda"] {
        let ids: Vec<String> = (0..20).map(|n| format!("{lane}-{n}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        world.add(lane, &ids).await;
    }
    let a = world.join("g", "a", &["cuda"]).await;
    world.take("g", &a, 17).await;
    let figures = world.figures("g").await;
    let found = facts(&world).await;
    assert_eq!(found[0].waiting, figures.waiting);
    assert_eq!(found[0].pending, figures.pending);
    assert_eq!(u64::from(found[0].live_consumers), figures.members);
}

#[tokio::test]
async fn a_namespace_without_groups_has_no_facts() {
    let world = with_group().await;
    assert_eq!(facts(&world).await, []);
}

#[tokio::test]
async fn what_waiting_and_held_messages_require_is_told_until_they_are_settled() {
    let world = with_group().await;
    define(&world, "g", GroupState::Active).await;
    let wanted = async || -> Vec<String> {
        let found = facts(&world).await;
        found[0]
            .wanted_sets
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    assert_eq!(wanted().await, [""; 0]);
    world.add("/p4+cuda,gpu", &["a"]).await;
    world.add("g/p9+cuda,gpu", &["b"]).await;
    world.add("g/p4", &["c"]).await;
    // What is for one consumer asks for nobody else.
    let a = world.join("g", "a", &["cuda", "gpu", "rust"]).await;
    world.add("g/p4+rust@a", &["d"]).await;
    assert_eq!(wanted().await, ["", "cuda,gpu"]);
    let taken = world.take("g", &a, 10).await;
    assert_eq!(taken.len(), 4);
    assert_eq!(wanted().await, ["", "cuda,gpu"]);
    for message in &taken {
        world.settle("g", &a, message, Action::Ack).await;
    }
    assert_eq!(wanted().await, [""; 0]);
    let [group] = facts(&world).await.try_into().expect("one group");
    assert_eq!((group.max_consumers, group.stream.is_empty()), (10, false));
}
