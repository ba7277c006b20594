//! A server that was made a replica: behind its name another one may write by now.

use std::sync::Arc;

use hive_domain::group::Start;
use hive_store::{
    StoreError,
    publish::{Flushed, Outcome},
};
use hive_testkit::redis::RedisServer;

use crate::world::{item, on};

#[tokio::test]
async fn a_read_only_answer_makes_the_connection_anew() {
    let server = RedisServer::start().await.expect("a server");
    let mut world = on(Arc::new(server)).await;
    world.create("g", Start::Earliest).await;
    let added = Flushed::Done(vec![Outcome::Added]);
    let flush = world.flush(vec![item("g/p4", "a")]).await;
    assert_eq!(world.send(&flush).await, added);
    let before = world.store.reconnects();
    let mut replica_of = redis::cmd("REPLICAOF");
    let () = replica_of
        .clone()
        .arg("127.0.0.1")
        .arg("1")
        .query_async(&mut world.raw)
        .await
        .expect("a replica");
    let next = world.flush(vec![item("g/p4", "b")]).await;
    let refused = world.store.publish(&world.shard, &next).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable { .. })),
        "{refused:?}"
    );
    assert!(world.store.reconnects() > before, "the old line is kept");
    let () = replica_of
        .arg("NO")
        .arg("ONE")
        .query_async(&mut world.raw)
        .await
        .expect("a primary");
    assert_eq!(world.send(&next).await, added);
}
