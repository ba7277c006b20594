//! An agent by hand: one Consume stream, frame by frame, for what the SDK would never do.

use std::collections::VecDeque;

use anyhow::{Context as _, Result};
use hive_client::{Client, Fault, wire};
use tokio::{sync::mpsc, time::timeout};
use wire::{consume_request::Frame as Ask, consume_response::Frame as Answer, outcome::Action};

use crate::fleet::PATIENCE;

/// One connection of a consumer.
pub(crate) struct Member {
    asks: mpsc::Sender<wire::ConsumeRequest>,
    answers: tonic::Streaming<wire::ConsumeResponse>,
    waiting: VecDeque<wire::Delivery>,
    /// What the gateway answered to the join.
    pub(crate) joined: wire::Joined,
}

/// A join of this consumer with no more than its name.
pub(crate) fn join(group: &str, consumer: &str) -> wire::Join {
    wire::Join {
        group: group.into(),
        consumer_id: consumer.into(),
        ..wire::Join::default()
    }
}

impl Member {
    /// Joins over the gateway with this number.
    pub(crate) async fn join(
        client: &Client,
        gateway: usize,
        join: wire::Join,
    ) -> Result<Self, Fault> {
        let (asks, mut queue) = mpsc::channel::<wire::ConsumeRequest>(64);
        let stream = futures_util::stream::poll_fn(move |context| queue.poll_recv(context));
        let first = wire::ConsumeRequest {
            frame: Some(Ask::Join(join)),
        };
        asks.send(first).await.expect("the queue was made just now");
        let mut stub = client.gateways()[gateway].messaging();
        let mut answers = stub.consume(stream).await?.into_inner();
        let frame = answers.message().await?.and_then(|answer| answer.frame);
        let Some(Answer::Joined(joined)) = frame else {
            panic!("the first frame must be `joined` and is {frame:?}");
        };
        Ok(Self {
            asks,
            answers,
            waiting: VecDeque::new(),
            joined,
        })
    }

    /// Sends a frame.
    pub(crate) async fn ask(&self, frame: Ask) -> Result<()> {
        let frame = wire::ConsumeRequest { frame: Some(frame) };
        self.asks.send(frame).await.context("the stream has ended")
    }

    /// Grants credit.
    pub(crate) async fn credit(&self, messages: u32) -> Result<()> {
        self.ask(Ask::Credit(wire::Credit { messages })).await
    }

    /// The next frame that is neither keep-alive nor deliveries; none at a clean end.
    async fn frame(&mut self) -> Result<Option<Answer>, Fault> {
        loop {
            let message = timeout(PATIENCE, self.answers.message()).await;
            let message = message.expect("the gateway sends keep-alives at least")?;
            match message.map(|answer| answer.frame.expect("a frame is set")) {
                Some(Answer::KeepAlive(_)) => {},
                Some(Answer::Deliveries(more)) => {
                    self.waiting.extend(more.deliveries);
                    return Ok(Some(Answer::KeepAlive(wire::KeepAlive {})));
                },
                other => return Ok(other),
            }
        }
    }

    /// Waits for so many deliveries.
    pub(crate) async fn deliveries(&mut self, count: usize) -> Result<Vec<wire::Delivery>> {
        let arrive = async {
            while self.waiting.len() < count {
                self.frame().await?.context("the stream ended")?;
            }
            anyhow::Ok(())
        };
        let in_time = timeout(PATIENCE, arrive).await;
        let came = self.waiting.len();
        in_time.with_context(|| format!("{came} of {count} deliveries came"))??;
        Ok(self.waiting.drain(..count).collect())
    }

    /// Settles and waits for the verdicts.
    pub(crate) async fn settle(
        &mut self,
        outcomes: Vec<wire::Outcome>,
    ) -> Result<Vec<wire::SettleResult>> {
        self.ask(Ask::Settle(wire::SettleBatch { outcomes }))
            .await?;
        let judged = async {
            loop {
                if let Answer::Settled(settled) = self.frame().await?.context("the stream ended")? {
                    return Ok(settled.results);
                }
            }
        };
        timeout(PATIENCE, judged)
            .await
            .context("no verdicts came")?
    }

    /// Waits for the gateway to cancel deliveries.
    pub(crate) async fn cancelled(&mut self) -> Result<wire::Cancel> {
        let cancelled = async {
            loop {
                if let Answer::Cancel(cancel) = self.frame().await?.context("the stream ended")? {
                    return Ok(cancel);
                }
            }
        };
        timeout(PATIENCE, cancelled)
            .await
            .context("nothing was cancelled")?
    }

    /// Waits to be asked to go.
    pub(crate) async fn drained(&mut self) -> Result<wire::Drain> {
        let drained = async {
            loop {
                if let Answer::Drain(drain) = self.frame().await?.context("the stream ended")? {
                    return Ok(drain);
                }
            }
        };
        timeout(PATIENCE, drained)
            .await
            .context("nobody asks to go")?
    }

    /// Leaves, and waits until the gateway closes the stream.
    pub(crate) async fn leave(mut self) -> Result<()> {
        self.ask(Ask::Leave(wire::Leave {})).await?;
        let ended = async {
            while self.frame().await?.is_some() {}
            Ok(())
        };
        timeout(PATIENCE, ended)
            .await
            .context("the stream does not end")?
    }

    /// Waits for the fault that ends the stream.
    pub(crate) async fn fault(mut self) -> Result<Fault> {
        let ended = async {
            loop {
                match self.frame().await {
                    Ok(Some(_)) => {},
                    Ok(None) => anyhow::bail!("the stream ended without a fault"),
                    Err(fault) => return Ok(fault),
                }
            }
        };
        timeout(PATIENCE, ended)
            .await
            .context("the stream does not end")?
    }
}

/// An outcome of a delivery.
pub(crate) fn outcome(lease: &str, action: Action) -> wire::Outcome {
    wire::Outcome {
        lease: lease.into(),
        action: Some(action),
    }
}

/// The outcome "done".
pub(crate) fn ack(delivery: &wire::Delivery) -> wire::Outcome {
    outcome(&delivery.lease, Action::Ack(wire::Ack::default()))
}

/// The outcome "failed", after the group's backoff again.
pub(crate) fn nack(delivery: &wire::Delivery, reason: &str) -> wire::Outcome {
    let nack = wire::Nack {
        reason: reason.into(),
        ..wire::Nack::default()
    };
    outcome(&delivery.lease, Action::Nack(nack))
}

/// The message of a delivery.
pub(crate) fn message_of(delivery: &wire::Delivery) -> Result<wire::Message> {
    Ok(prost::Message::decode(delivery.message.clone())?)
}

/// The payload of a delivery as text.
pub(crate) fn text_of(delivery: &wire::Delivery) -> Result<String> {
    Ok(String::from_utf8(message_of(delivery)?.payload.to_vec())?)
}

/// The verdicts as words.
pub(crate) fn verdicts(results: &[wire::SettleResult]) -> Vec<wire::SettleStatus> {
    results.iter().map(wire::SettleResult::status).collect()
}
