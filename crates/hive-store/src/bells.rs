//! The bells of the shards: Redis tells every gateway that there may be new work.
//!
//! A bell is a message on a channel, kept by nobody. Who hears none any more does not notice: a
//! subscriber waits, and a line that went silent looks like a shard without work. So the line is
//! asked for a sign of life, and one that gives none is over.

use std::time::Duration;

use futures_util::StreamExt as _;
use redis::{
    Cmd,
    aio::{PubSubSink, PubSubStream},
};
use tokio::time::{sleep, timeout};

use crate::{
    connection::{Purpose, Store},
    error::StoreError,
    keys::Shard,
};

/// How often a line is asked whether it lives.
const PING: Duration = Duration::from_secs(1);
/// How long it may take to answer that, or the subscription.
const PONG_WITHIN: Duration = Duration::from_secs(2);

/// A line on which the bells of all shards are heard.
pub struct BellLine {
    asks: PubSubSink,
    bells: PubSubStream,
}

impl std::fmt::Debug for BellLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BellLine").finish_non_exhaustive()
    }
}

impl BellLine {
    /// Hands over the channel of each bell that rings, until the line ends, or is silent for 2 s
    /// when it is asked; what rings behind that is lost.
    pub async fn listen(self, mut ring: impl FnMut(&str)) {
        let Self { mut asks, bells } = self;
        let alive = async {
            loop {
                sleep(PING).await;
                let pong = timeout(PONG_WITHIN, asks.ping::<redis::Value>()).await;
                if !matches!(pong, Ok(Ok(_))) {
                    return;
                }
            }
        };
        let heard = bells.for_each(|bell| {
            ring(bell.get_channel_name());
            std::future::ready(())
        });
        tokio::select! {
            () = heard => {},
            () = alive => {},
        }
    }
}

impl Store {
    /// Subscribes to the bells of all shards.
    ///
    /// # Errors
    /// `Unavailable` when Redis is away or does not answer within 2 s.
    pub async fn bells(&self) -> Result<BellLine, StoreError> {
        let (mut asks, bells) = self.subscriber().await?.split();
        let pattern = format!("{}:{{*}}:bell", self.prefix());
        match timeout(PONG_WITHIN, asks.psubscribe(&pattern)).await {
            Ok(Ok(())) => Ok(BellLine { asks, bells }),
            Ok(Err(error)) => Err(StoreError::of_command(&error)),
            Err(_elapsed) => Err(StoreError::Unavailable {
                detail: "no answer to a subscription in time".into(),
            }),
        }
    }

    /// Rings the bell of a shard: there is new work.
    ///
    /// # Errors
    /// As in `StoreError`; a lost bell costs one poll interval.
    pub async fn ring(&self, purpose: Purpose, shard: &Shard) -> Result<(), StoreError> {
        let mut publish = Cmd::new();
        publish.arg("PUBLISH").arg(shard.doorbell()).arg("");
        self.command(purpose, publish).await.map(drop)
    }

    /// Rings the bell of a shard without waiting for it.
    pub fn ring_soon(&self, shard: &Shard) {
        let (store, shard) = (self.clone(), shard.clone());
        #[expect(
            clippy::disallowed_methods,
            reason = "one command, bounded by the response timeout; the store knows no chassis"
        )]
        let ringing = tokio::spawn(async move { store.ring(Purpose::Control, &shard).await });
        drop(ringing);
    }
}
