//! The line of bells ends when Redis is silent, also where nobody closed it.

use std::time::{Duration, Instant};

use hive_store::{Purpose, Store, StoreConfig};
use hive_testkit::{
    proxy::{FaultProxy, Mode},
    redis::RedisServer,
};
use tokio::{sync::mpsc, time::timeout};

#[tokio::test]
async fn a_silent_line_of_bells_ends_within_four_seconds() {
    let server = RedisServer::start().await.unwrap();
    let proxy = FaultProxy::start(server.socket()).await.unwrap();
    let store = Store::open(StoreConfig {
        url: proxy.redis_url(),
        ..StoreConfig::default()
    })
    .unwrap();
    let shard = store.shard("default", "s", 0);
    let line = store.bells().await.unwrap();
    let (rings, mut heard) = mpsc::unbounded_channel();
    let listen = line.listen(move |doorbell, _| drop(rings.send(doorbell.to_owned())));
    tokio::pin!(listen);
    // It lives for longer than its first pings.
    let lived = timeout(Duration::from_millis(2_500), &mut listen).await;
    assert!(lived.is_err(), "a line that answers goes on");
    store.ring(Purpose::Control, &shard).await.unwrap();
    tokio::select! {
        bell = heard.recv() => assert_eq!(bell, Some(shard.doorbell())),
        () = &mut listen => panic!("the line lives"),
    }
    proxy.set(Mode::HalfOpen);
    let silent = Instant::now();
    let ended = timeout(Duration::from_secs(4), listen).await;
    assert!(ended.is_ok(), "{:?}", silent.elapsed());
}
