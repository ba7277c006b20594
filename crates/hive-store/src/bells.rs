//! The bells of the shards and partitions: Redis tells daemons that there may be new work.
//!
//! A bell is a message on a channel, kept by nobody. Who hears none any more does not notice: a
//! subscriber waits, and a line that went silent looks like a shard without work. So the line is
//! asked for a sign of life, and one that gives none is over.

use std::{fmt, time::Duration};

use futures_util::StreamExt as _;
use redis::{
    Cmd, Pipeline,
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

/// What rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// There is new work for consumers of a shard; the channel is its doorbell.
    Work,
    /// It was told what became of tasks of a shard; the channel is named as its `settled`.
    Settled,
    /// A lease of a task is over; the channel is the shard's `cancels`, what is said is a
    /// [`CancelledLease`].
    Cancels,
    /// A tracked message ended; the channel is named as the shard's `outcomes`, what is said is
    /// its key.
    Outcomes,
    /// It was decided how many consumers a group is to have; the channel is the namespace's
    /// `scaling` ([`crate::keys::ControlKeys::namespace_of_scaling`]), what is said is a
    /// [`Desired`].
    Scaling,
}

impl Line {
    const fn tail(self) -> &'static str {
        match self {
            Self::Work => "bell",
            Self::Settled => "settled",
            Self::Cancels => "cancels",
            Self::Outcomes => "outcomes",
            Self::Scaling => "scaling",
        }
    }
}

/// A lease that was ended by the decision of its task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelledLease {
    /// The group.
    pub group: String,
    /// Who had it.
    pub consumer: String,
    /// Ref of the lane.
    pub lane: String,
    /// Id of the entry.
    pub id: String,
    /// How often it was delivered.
    pub deliveries: u64,
}

impl CancelledLease {
    /// Reads what the script says; none where it is something else.
    #[must_use]
    pub fn parse(said: &str) -> Option<Self> {
        let mut words = said.split(' ').map(str::to_owned);
        let mut next = || words.next().filter(|word| !word.is_empty());
        let lease = Self {
            group: next()?,
            consumer: next()?,
            lane: next()?,
            id: next()?,
            deliveries: next()?.parse().ok()?,
        };
        next().is_none().then_some(lease)
    }
}

impl fmt::Display for CancelledLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            group,
            consumer,
            lane,
            id,
            deliveries,
        } = self;
        write!(f, "{group} {consumer} {lane} {id} {deliveries}")
    }
}

/// How many consumers a group is to have by now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The group.
    pub group: String,
    /// Consumers.
    pub consumers: u32,
}

impl Desired {
    /// Reads what the script says; none where it is something else.
    #[must_use]
    pub fn parse(said: &str) -> Option<Self> {
        let (group, consumers) = said.split_once(' ')?;
        Some(Self {
            group: group.to_owned(),
            consumers: consumers.parse().ok()?,
        })
    }
}

/// A line on which bells are heard.
pub struct BellLine {
    asks: PubSubSink,
    bells: PubSubStream,
}

impl fmt::Debug for BellLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BellLine").finish_non_exhaustive()
    }
}

impl BellLine {
    /// Hands over the channel of each bell that rings and what it says, until the line ends, or is
    /// silent for 2 s when it is asked; what rings behind that is lost.
    pub async fn listen(self, mut ring: impl FnMut(&str, &str)) {
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
            let said = std::str::from_utf8(bell.get_payload_bytes()).unwrap_or_default();
            ring(bell.get_channel_name(), said);
            std::future::ready(())
        });
        tokio::select! {
            () = heard => {},
            () = alive => {},
        }
    }
}

impl Store {
    /// Subscribes to the work bells of all shards.
    ///
    /// # Errors
    /// As `lines`.
    pub async fn bells(&self) -> Result<BellLine, StoreError> {
        self.lines(&[Line::Work]).await
    }

    /// Subscribes to these bells of all shards, partitions and namespaces.
    ///
    /// # Errors
    /// `Unavailable` when Redis is away or does not answer within 2 s.
    pub async fn lines(&self, kinds: &[Line]) -> Result<BellLine, StoreError> {
        let (mut asks, bells) = self.subscriber().await?.split();
        let patterns: Vec<String> = kinds
            .iter()
            .map(|kind| format!("{}:{{*}}:{}", self.prefix(), kind.tail()))
            .collect();
        match timeout(PONG_WITHIN, asks.psubscribe(&patterns)).await {
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

    /// Tells gateways of leases that are over. One that is not heard of ends with its next
    /// heartbeat.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn tell_cancelled(
        &self,
        shard: &Shard,
        leases: &[CancelledLease],
    ) -> Result<(), StoreError> {
        if leases.is_empty() {
            return Ok(());
        }
        let mut pipeline = Pipeline::with_capacity(leases.len());
        for lease in leases {
            pipeline
                .cmd("PUBLISH")
                .arg(shard.cancels())
                .arg(lease.to_string());
        }
        self.pipeline(Purpose::Control, pipeline).await.map(drop)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancelled_lease_is_read_and_nothing_else() {
        let lease = CancelledLease::parse("g a g/p4t+gpu 1-0 2").expect("a lease");
        assert_eq!((lease.lane.as_str(), lease.deliveries), ("g/p4t+gpu", 2));
        assert_eq!(lease.to_string(), "g a g/p4t+gpu 1-0 2");
        for other in ["", "g a g/p4t 1-0", "g a g/p4t 1-0 x", "g a g/p4t 1-0 2 3"] {
            assert_eq!(CancelledLease::parse(other), None, "{other}");
        }
    }
}
