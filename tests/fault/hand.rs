//! An agent that a test leads by the hand: it does nothing by itself, not even beat.
//!
//! It speaks the wire protocol over a connection of its own and writes down all that it does.
//! Dropping it closes the connection, as the death of its process would.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use hive_client::{Client, Fault, Gateway, wire};
use hive_protocol::fault::Reason;
use hive_store::Lease;
use hive_testkit::history::{
    Action, Delivery, Event, Loss, Name, Recorder, SettleAnswer, payload_hash,
};
use prost::Message as _;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use wire::{consume_request::Frame as Ask, consume_response::Frame};

use crate::world::{PATIENCE, REJECTED};

/// How long a gateway may take to answer a join.
const JOIN_WITHIN: Duration = Duration::from_secs(5);
/// Frames on their way to the gateway.
const FRAMES_MAX: usize = 64;

/// A joined connection.
pub(crate) struct Link {
    pub(crate) frames: mpsc::Sender<wire::ConsumeRequest>,
    pub(crate) answers: Streaming<wire::ConsumeResponse>,
    pub(crate) joined: wire::Joined,
}

/// Joins over a new stream.
pub(crate) async fn join(gateway: &Gateway, join: wire::Join) -> Result<Link, Fault> {
    let late = |_elapsed| Fault::new(Reason::DeadlineExceeded, "no answer to a join");
    let (frames, outbound) = mpsc::channel(FRAMES_MAX);
    let first = wire::ConsumeRequest {
        frame: Some(Ask::Join(join)),
    };
    // The channel was made above and has room.
    drop(frames.try_send(first));
    let mut stub = gateway.messaging();
    let opened = timeout(JOIN_WITHIN, stub.consume(ReceiverStream::new(outbound)));
    let mut answers = opened.await.map_err(late)??.into_inner();
    let first = timeout(JOIN_WITHIN, answers.message())
        .await
        .map_err(late)??;
    match first.and_then(|first| first.frame) {
        Some(Frame::Joined(joined)) => Ok(Link {
            frames,
            answers,
            joined,
        }),
        other => Err(Fault::bug(format!("a join was answered by {other:?}"))),
    }
}

/// Writes down a delivery and reads its message.
pub(crate) fn note_delivery(
    log: &Recorder,
    member: (&Name, &Name),
    delivery: wire::Delivery,
) -> Result<Taken> {
    let message = wire::Message::decode(delivery.message)?;
    let lease: Name = delivery.lease.into();
    log.delivered(Delivery {
        group: Arc::clone(member.0),
        message: message.message_id.as_str().into(),
        consumer: Arc::clone(member.1),
        attempt: delivery.attempt,
        lease: Arc::clone(&lease),
        count: lease.parse::<Lease>().ok().map(|lease| lease.count),
        payload: payload_hash(&message.payload),
    });
    Ok(Taken {
        lease,
        message,
        attempt: delivery.attempt,
    })
}

/// What the log calls an answer.
pub(crate) fn answer_of(result: &wire::SettleResult) -> SettleAnswer {
    match result.status() {
        wire::SettleStatus::Ok => SettleAnswer::Ok,
        wire::SettleStatus::Gone => SettleAnswer::Gone,
        wire::SettleStatus::StaleLease => SettleAnswer::Stale,
        wire::SettleStatus::Unspecified
        | wire::SettleStatus::UnknownLease
        | wire::SettleStatus::Invalid => SettleAnswer::Refused,
    }
}

/// The frame of one settle.
pub(crate) fn outcome(lease: &Name, action: Action) -> wire::Outcome {
    use wire::outcome::Action as Wire;
    let action = match action {
        Action::Ack => Wire::Ack(wire::Ack::default()),
        Action::Nack => Wire::Nack(wire::Nack::default()),
        Action::Release => Wire::Release(wire::Release::default()),
        Action::Reject => Wire::Reject(wire::Reject {
            category: REJECTED.into(),
            ..wire::Reject::default()
        }),
        Action::Extend => Wire::Extend(wire::Extend {}),
    };
    wire::Outcome {
        lease: lease.to_string(),
        action: Some(action),
    }
}

/// A delivery in the hands of an agent.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) lease: Name,
    pub(crate) message: wire::Message,
    pub(crate) attempt: u32,
}

/// The agent.
pub(crate) struct Hand {
    group: Name,
    consumer: Name,
    log: Arc<Recorder>,
    link: Link,
    inbox: VecDeque<Taken>,
    // Its connections: they close with it.
    _client: Client,
}

impl Hand {
    /// Joins a group at the first gateway of `urls` as a new process.
    pub(crate) async fn join(
        log: &Arc<Recorder>,
        urls: &str,
        (group, consumer): (&str, &str),
    ) -> Result<Self> {
        Self::join_as(log, urls, (group, consumer), "", &[]).await
    }

    /// Joins under a session, with what it holds.
    pub(crate) async fn join_as(
        log: &Arc<Recorder>,
        urls: &str,
        (group, consumer): (&str, &str),
        session: &str,
        held: &[&Taken],
    ) -> Result<Self> {
        let client = Client::new(urls)?;
        let request = wire::Join {
            group: group.into(),
            consumer_id: consumer.into(),
            session: session.into(),
            max_in_flight: 1_000,
            concurrency: 1,
            held_leases: held.iter().map(|taken| taken.lease.to_string()).collect(),
            ..wire::Join::default()
        };
        let link = join(client.gateway(), request).await?;
        let (group, consumer): (Name, Name) = (group.into(), consumer.into());
        log.record(Event::Joined {
            group: Arc::clone(&group),
            consumer: Arc::clone(&consumer),
            concurrency: 1,
        });
        let log = Arc::clone(log);
        Ok(Self {
            group,
            consumer,
            log,
            link,
            inbox: VecDeque::new(),
            _client: client,
        })
    }

    /// Its session, to join again.
    pub(crate) fn session(&self) -> String {
        self.link.joined.session.clone()
    }

    /// Writes down that it is lost to the system; for a dead one drop it as well.
    pub(crate) fn note_loss(&self, loss: Loss) {
        self.log.record(Event::ConsumerLost {
            group: Arc::clone(&self.group),
            consumer: Arc::clone(&self.consumer),
            loss,
        });
    }

    async fn send(&self, frame: Ask) -> Result<()> {
        let frame = wire::ConsumeRequest { frame: Some(frame) };
        let sent = timeout(PATIENCE, self.link.frames.send(frame)).await?;
        sent.context("the stream ended")
    }

    /// Grants credit.
    pub(crate) async fn credit(&self, messages: u32) -> Result<()> {
        self.send(Ask::Credit(wire::Credit { messages })).await
    }

    /// Beats for what it holds; all of it counts as begun.
    pub(crate) async fn beat(&self, held: &[&Taken]) -> Result<()> {
        let leases: Vec<String> = held.iter().map(|taken| taken.lease.to_string()).collect();
        let named = held.iter().map(|taken| Arc::clone(&taken.lease)).collect();
        self.log.record(Event::Heartbeat { leases: named });
        self.send(Ask::Heartbeat(wire::Heartbeat {
            begun: leases.clone(),
            leases,
        }))
        .await
    }

    /// Up to `most` deliveries, those that come within `patience`.
    pub(crate) async fn take(&mut self, most: usize, patience: Duration) -> Result<Vec<Taken>> {
        let end = Instant::now() + patience;
        while self.inbox.len() < most {
            match timeout_at(end, self.link.answers.message()).await {
                Ok(frame) => drop(self.receive(frame?)?),
                Err(_elapsed) => break,
            }
        }
        let count = most.min(self.inbox.len());
        Ok(self.inbox.drain(..count).collect())
    }

    /// One delivery.
    pub(crate) async fn take_one(&mut self) -> Result<Taken> {
        self.take(1, PATIENCE).await?.pop().context("a delivery")
    }

    /// Takes in one frame; settle results are handed on.
    fn receive(&mut self, frame: Option<wire::ConsumeResponse>) -> Result<Vec<wire::SettleResult>> {
        match frame.and_then(|frame| frame.frame) {
            Some(Frame::Deliveries(deliveries)) => {
                for delivery in deliveries.deliveries {
                    let member = (&self.group, &self.consumer);
                    let taken = note_delivery(&self.log, member, delivery)?;
                    self.log.record(Event::Begun {
                        lease: Arc::clone(&taken.lease),
                    });
                    self.inbox.push_back(taken);
                }
                Ok(Vec::new())
            },
            Some(Frame::Settled(settled)) => Ok(settled.results),
            Some(
                Frame::Joined(_)
                | Frame::Revoke(_)
                | Frame::Cancel(_)
                | Frame::Drain(_)
                | Frame::KeepAlive(_)
                | Frame::Offer(_),
            ) => Ok(Vec::new()),
            None => bail!("the gateway closed the stream"),
        }
    }

    /// Settles one delivery; no answer within `patience` is an unknown one.
    pub(crate) async fn settle_within(
        &mut self,
        taken: &Taken,
        action: Action,
        patience: Duration,
    ) -> SettleAnswer {
        let call = self.log.settle_called(&taken.lease, action);
        let answer = timeout(patience, self.settle_answered(taken, action)).await;
        let answer = answer
            .ok()
            .and_then(Result::ok)
            .unwrap_or(SettleAnswer::Unknown);
        self.log.settle_answered(call, answer);
        answer
    }

    /// Settles one delivery.
    pub(crate) async fn settle(&mut self, taken: &Taken, action: Action) -> SettleAnswer {
        self.settle_within(taken, action, PATIENCE).await
    }

    async fn settle_answered(&mut self, taken: &Taken, action: Action) -> Result<SettleAnswer> {
        let outcomes = vec![outcome(&taken.lease, action)];
        self.send(Ask::Settle(wire::SettleBatch { outcomes }))
            .await?;
        loop {
            let frame = self.link.answers.message().await?;
            for result in self.receive(frame)? {
                if *result.lease == *taken.lease {
                    return Ok(answer_of(&result));
                }
            }
        }
    }

    /// Acks all that comes, until `expected` messages did or nothing came for `patience`.
    pub(crate) async fn ack_all(&mut self, expected: usize, patience: Duration) -> Result<usize> {
        self.credit(1_000).await?;
        let mut acked = 0;
        while acked < expected {
            let Some(taken) = self.take(1, patience).await?.pop() else {
                break;
            };
            self.settle(&taken, Action::Ack).await;
            acked += 1;
        }
        Ok(acked)
    }
}
