//! `daemon_beat` and `dataset_accept`: who goes on with which data, and who stops.

use std::{sync::Arc, time::Duration};

use hive_store::{
    Store, StoreConfig, StoreError,
    registry::{Heard, Registration},
};
use hive_testkit::{redis::RedisServer, wait::until};
use redis::aio::MultiplexedConnection;

use crate::world::server;

/// A system of its own on the server that tests share.
struct System {
    server: Arc<RedisServer>,
    prefix: String,
    raw: MultiplexedConnection,
}

/// A daemon as its beat shows it.
struct Daemon {
    store: Store,
    me: Registration,
}

impl Daemon {
    async fn beat(&self) -> Result<usize, StoreError> {
        Ok(self.store.beat(&self.me).await?.len())
    }

    async fn is_stopped(&self) -> bool {
        let beat = matches!(self.beat().await, Err(StoreError::Dataset { .. }));
        let call = self.store.namespaces().await;
        let call = matches!(call, Err(StoreError::Dataset { .. }));
        assert_eq!(
            beat, call,
            "a daemon whose beat is refused does nothing else"
        );
        assert_eq!(self.store.dataset_loss().is_some(), beat);
        beat
    }
}

impl System {
    async fn new(prefix: &str) -> Self {
        let server = server().await;
        Self {
            raw: server.connect().await.expect("a connection"),
            prefix: prefix.into(),
            server,
        }
    }

    fn daemon(&self, name: &'static str) -> Daemon {
        let config = StoreConfig {
            url: self.server.url(),
            prefix: self.prefix.clone(),
            ..StoreConfig::default()
        };
        Daemon {
            store: Store::open(config).expect("a url"),
            me: Registration::new(name, "1", "here:1"),
        }
    }

    fn key(&self, name: &str) -> String {
        format!("{}:{{ctl}}:{name}", self.prefix)
    }

    async fn nonce(&mut self) -> String {
        let mut get = redis::cmd("GET");
        get.arg(self.key("nonce"));
        let nonce: Option<String> = get.query_async(&mut self.raw).await.expect("an answer");
        nonce.unwrap_or_default()
    }

    async fn set(&mut self, nonce: &str) {
        let mut set = redis::cmd("SET");
        set.arg(self.key("nonce")).arg(nonce);
        set.exec_async(&mut self.raw).await.expect("an answer");
    }

    /// What FLUSHALL takes of this system.
    async fn lose_everything(&mut self) {
        for key in ["nonce", "daemons"] {
            let mut unlink = redis::cmd("UNLINK");
            unlink.arg(self.key(key));
            unlink.exec_async(&mut self.raw).await.expect("an answer");
        }
    }
}

#[tokio::test]
async fn the_first_beat_of_all_makes_the_nonce_and_all_others_take_it() {
    let mut system = System::new("first").await;
    let daemons = [system.daemon("a"), system.daemon("b"), system.daemon("c")];
    assert_eq!(daemons[0].store.replicas().await.expect("a reading"), []);
    let [a, b, _] = &daemons;
    a.store.sign_off(&a.me).await.expect("an answer");
    assert_eq!(system.nonce().await, "", "only a beat makes one");
    let (first, second) = tokio::join!(a.beat(), b.beat());
    first.expect("a beat");
    second.expect("a beat");
    let nonce = system.nonce().await;
    assert_eq!(nonce.len(), 32, "`{nonce}`");
    // What the first beat told a daemon, the second one says of it.
    for daemon in daemons.iter().chain(&daemons) {
        assert!(!daemon.is_stopped().await);
    }
    assert_eq!(system.nonce().await, nonce);
    let claims = daemons[0].store.replicas().await.expect("a reading");
    assert!(claims.iter().all(|replica| replica.dataset == nonce));
}

#[tokio::test]
async fn a_loss_stops_who_remembers_and_who_starts_afterwards_until_it_is_accepted() {
    let mut system = System::new("loss").await;
    let (old, other) = (system.daemon("a"), system.daemon("b"));
    for daemon in [&old, &other] {
        daemon.beat().await.expect("a beat");
    }
    let before = system.nonce().await;
    system.lose_everything().await;
    assert!(old.is_stopped().await);
    assert_eq!(system.nonce().await, format!("lost {before}"));
    // It has no memory, and would take the empty Redis for a new one.
    let new = system.daemon("c");
    assert!(new.is_stopped().await);
    assert!(new.store.is_loss_marked().await.expect("a reading"));
    // The mark is told even when nobody who remembers is left.
    for daemon in [&old, &other] {
        daemon.store.sign_off(&daemon.me).await.expect("an answer");
    }
    let newest = system.daemon("d");
    assert!(newest.is_stopped().await);

    let (first, second) = tokio::join!(old.store.accept_loss(), new.store.accept_loss());
    let accepted = [first.expect("an answer"), second.expect("an answer")];
    assert_eq!(accepted.iter().filter(|it| **it).count(), 1, "{accepted:?}");
    let after = system.nonce().await;
    assert!(after.ends_with(&format!(" {before}")), "`{after}`");
    for daemon in [&old, &other, &new, &newest, &system.daemon("e")] {
        assert!(!daemon.is_stopped().await, "{}", daemon.me.daemon);
    }
    assert_eq!(system.nonce().await, after, "one nonce, whoever accepted");
}

#[tokio::test]
async fn another_dataset_stops_everybody_while_someone_knows_the_former() {
    let mut system = System::new("other").await;
    let old = system.daemon("a");
    old.beat().await.expect("a beat");
    system.lose_everything().await;
    // One that was faster than the next beat of those who remember.
    let hasty = system.daemon("b");
    assert!(!hasty.is_stopped().await);
    assert!(old.is_stopped().await);
    assert!(hasty.is_stopped().await, "it hears what the other knows");
    assert!(hasty.store.accept_loss().await.expect("an answer"));
    assert!(!old.is_stopped().await);
    assert!(!hasty.is_stopped().await);
    assert!(
        !old.store.accept_loss().await.expect("an answer"),
        "no loss"
    );
}

#[tokio::test]
async fn data_that_comes_back_ends_the_stop() {
    let mut system = System::new("back").await;
    let daemon = system.daemon("a");
    daemon.beat().await.expect("a beat");
    let nonce = system.nonce().await;
    system.lose_everything().await;
    assert!(daemon.is_stopped().await);
    system.set(&nonce).await;
    assert!(!daemon.is_stopped().await);
}

#[tokio::test]
async fn who_slept_through_a_loss_hears_of_it_when_he_goes_on() {
    let mut system = System::new("slept").await;
    let daemon = system.daemon("a");
    let told = parking_lot::Mutex::new(Vec::new());
    let heard = |heard: Heard<'_>| {
        told.lock().push(match heard {
            Heard::There { .. } => "there",
            Heard::Away(_) => "away",
            Heard::Changed(_) => "changed",
            Heard::Accepted => "accepted",
        });
    };
    let stop = async {
        let beats = async |expected: &[&str]| {
            until(Duration::from_secs(5), "the beats", async || {
                *told.lock() == expected
            })
            .await;
        };
        beats(&["there"]).await;
        let nonce = system.nonce().await;
        system.set(&format!("b {nonce}")).await;
        beats(&["there", "changed", "accepted", "there"]).await;
    };
    let end = daemon.store.announce(&daemon.me, false, stop, heard).await;
    assert_eq!(end, Ok(()));
}

#[tokio::test]
async fn a_new_connection_shows_the_loss_before_anything_is_sent() {
    let redis = Arc::new(RedisServer::start().await.expect("a redis server"));
    let raw = redis.connect().await.expect("a connection");
    let mut system = System {
        server: redis,
        prefix: "t".into(),
        raw,
    };
    let daemon = system.daemon("a");
    daemon.beat().await.expect("a beat");
    system.lose_everything().await;
    assert!(daemon.store.namespaces().await.is_ok(), "nothing shows it");
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL").arg("TYPE").arg("normal");
    kill.exec_async(&mut system.raw).await.expect("an answer");
    let call = daemon.store.namespaces().await;
    assert!(matches!(call, Err(StoreError::Dataset { .. })), "{call:?}");
    let checked = daemon.store.check_dataset().await;
    assert!(matches!(checked, Err(StoreError::Dataset { .. })));
}
