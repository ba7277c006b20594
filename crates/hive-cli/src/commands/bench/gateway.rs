//! The load through a gateway: producers over PublishStream, agents over Consume.
//!
//! It speaks the wire contract itself rather than through the SDK's `Worker`: only so can it count
//! what the gateway confirmed as acknowledged, frame by frame.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures_util::future::try_join_all;
use hive_client::{CallError, Client, wire};
use hive_store::ceiling::Burst;
use prost::Message as _;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use wire::{consume_request::Frame as Ask, consume_response::Frame as Told, outcome::Action};

use super::Load;
use crate::{connection::told, output::note};

/// Messages of one publish frame.
const BATCH: u64 = 100;

/// Publish frames of one producer that wait for their answer.
const FRAMES_AHEAD: usize = 8;

/// Deliveries one agent may hold.
const CREDIT: u32 = 1_000;

/// Credit is granted in portions of so many, or after [`LOOK`]: one read of the gateway then
/// carries many messages, as `docs/protocol.md` tells every client with a large window.
const PORTION: u32 = CREDIT / 8;

/// How often an agent looks whether the run is over, and grants what it has not granted yet.
const LOOK: Duration = Duration::from_millis(5);

/// A run that moves nothing for this long has failed.
const STALLED_AFTER: Duration = Duration::from_secs(30);

/// What all connections of a run share. They run in one thread, so cells do.
struct Tally {
    total: Cell<Option<u64>>,
    acked: Cell<u64>,
    moved: Cell<Instant>,
    /// Per number of a message, whether its acknowledgement is confirmed: each counts once.
    settled: RefCell<Vec<bool>>,
    times: RefCell<Vec<Duration>>,
    origin: Instant,
}

/// A delivery that is not settled yet: the number of its message, and how long that took to come.
type Held = HashMap<String, (u64, Duration)>;

impl Tally {
    fn new(total: Option<u64>) -> Self {
        let now = Instant::now();
        Self {
            total: Cell::new(total),
            acked: Cell::new(0),
            moved: Cell::new(now),
            settled: RefCell::default(),
            times: RefCell::default(),
            origin: now,
        }
    }

    /// Whether all that was sent is acknowledged.
    fn is_complete(&self) -> bool {
        self.total
            .get()
            .is_some_and(|total| self.acked.get() >= total)
    }

    /// Counts a confirmed acknowledgement, once per message.
    fn count(&self, number: u64, time: Duration) {
        let Ok(number) = usize::try_from(number) else {
            return;
        };
        let mut settled = self.settled.borrow_mut();
        if settled.len() <= number {
            settled.resize(number + 1, false);
        }
        if let Some(is_settled) = settled.get_mut(number).filter(|is_settled| !**is_settled) {
            *is_settled = true;
            self.acked.set(self.acked.get() + 1);
            self.times.borrow_mut().push(time);
        }
    }
}

/// Creates the group of a bench, on a stream of its own.
pub(super) async fn create_group(client: &Client, group: &str) -> Result<(), CallError> {
    create_group_of(client, group, "bench").await
}

/// As [`create_group`], for agents of a type.
pub(super) async fn create_group_of(
    client: &Client,
    group: &str,
    agent_type: &str,
) -> Result<(), CallError> {
    let settings = wire::GroupSettings {
        max_consumers: Some(10_000),
        ..Default::default()
    };
    let request = wire::CreateGroupRequest {
        name: group.to_owned(),
        stream_name: group.to_owned(),
        agent_type: agent_type.to_owned(),
        settings: Some(settings),
        ..Default::default()
    };
    client.create_group(request).await.map(drop)
}

/// Deletes the group again. A bench that cannot has measured all the same.
pub(super) async fn delete_group(client: &Client, group: &str) {
    let request = wire::DeleteGroupRequest {
        name: group.to_owned(),
        force: true,
    };
    if let Err(error) = client.delete_group(request).await {
        note(&format!("group `{group}` is left behind: {error}"));
    }
}

/// Sends all messages and acknowledges them; answers how long that took and how many it confirmed.
/// Messages that are missing when nothing moves any more are told by the count.
pub(super) async fn throughput(
    client: &Client,
    group: &str,
    load: &Load,
) -> anyhow::Result<(Duration, u64)> {
    let mut agents = Vec::new();
    for number in 0..load.consumers {
        agents.push(Agent::join(client, group, &format!("bench-{number}")).await?);
    }
    let tally = Tally::new(Some(load.messages));
    let sent = Cell::new(0);
    let started = Instant::now();
    let producers = (0..load.producers).map(|_| produce(client, group, load, &sent));
    let agents = agents.into_iter().map(|agent| agent.work(&tally));
    tokio::try_join!(try_join_all(producers), try_join_all(agents))?;
    Ok((started.elapsed(), tally.acked.get()))
}

/// Sends bursts at their moments; answers how many messages and, per message, the time from its
/// moment to its arrival at an agent. Only acknowledged ones are in.
pub(super) async fn latencies(
    client: &Client,
    group: &str,
    load: &Load,
    bursts: mpsc::Receiver<Burst>,
) -> anyhow::Result<(u64, Vec<Duration>)> {
    let mut agents = Vec::new();
    for number in 0..load.consumers {
        agents.push(Agent::join(client, group, &format!("bench-{number}")).await?);
    }
    let tally = Tally::new(None);
    let agents = agents.into_iter().map(|agent| agent.work(&tally));
    let producer = produce_bursts(client, group, load, bursts, &tally);
    let (sent, _) = tokio::try_join!(producer, try_join_all(agents))?;
    Ok((sent, tally.times.into_inner()))
}

/// How long one agent takes to join; it leaves again.
pub(super) async fn join_time(
    client: &Client,
    group: &str,
    number: u32,
) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let agent = Agent::join(client, group, &format!("bench-join-{number}")).await?;
    let elapsed = started.elapsed();
    agent.leave().await?;
    Ok(elapsed)
}

/// Publishes batches until all messages are taken, with several unanswered.
async fn produce(
    client: &Client,
    group: &str,
    load: &Load,
    sent: &Cell<u64>,
) -> anyhow::Result<()> {
    let (frames, requests) = mpsc::channel(FRAMES_AHEAD);
    let feed = async {
        for batch in 1.. {
            let first = sent.get();
            let count = BATCH.min(load.messages.saturating_sub(first));
            if count == 0 {
                break;
            }
            sent.set(first + count);
            let numbers = first..first + count;
            let messages = numbers
                .map(|number| message(0, number, load.payload_bytes))
                .collect();
            if frames.send(frame(group, batch, messages)).await.is_err() {
                break;
            }
        }
        drop(frames);
        anyhow::Ok(())
    };
    tokio::try_join!(feed, answers(client, requests)).map(drop)
}

/// Publishes bursts at their moments, each stamped with its own.
async fn produce_bursts(
    client: &Client,
    group: &str,
    load: &Load,
    mut bursts: mpsc::Receiver<Burst>,
    tally: &Tally,
) -> anyhow::Result<u64> {
    let (frames, requests) = mpsc::channel(1024);
    let feed = async {
        let (mut batch, mut sent) = (0, 0);
        while let Some(burst) = bursts.recv().await {
            let at = burst.at.saturating_duration_since(tally.origin).as_micros();
            let at = u64::try_from(at).unwrap_or(u64::MAX);
            let numbers = sent..sent + u64::from(burst.messages);
            batch += 1;
            sent = numbers.end;
            let messages = numbers
                .map(|number| message(at, number, load.payload_bytes))
                .collect();
            if frames.send(frame(group, batch, messages)).await.is_err() {
                break;
            }
        }
        drop(frames);
        tally.total.set(Some(sent));
        anyhow::Ok(sent)
    };
    let (sent, ()) = tokio::try_join!(feed, answers(client, requests))?;
    Ok(sent)
}

/// Sends frames and reads their answers until both ends are done. One refused message fails all.
async fn answers(
    client: &Client,
    requests: mpsc::Receiver<wire::PublishStreamRequest>,
) -> anyhow::Result<()> {
    let mut service = client.gateway().messaging();
    let answers = service.publish_stream(ReceiverStream::new(requests)).await;
    let mut answers = answers.context("publish")?.into_inner();
    while let Some(answer) = answers.message().await.context("publish")? {
        for outcome in answer.outcomes {
            if let Some(problem) = outcome.error {
                bail!("a message was refused: {}", told(&problem.into()));
            }
        }
    }
    Ok(())
}

/// One agent's membership, frame by frame.
struct Agent {
    frames: mpsc::Sender<wire::ConsumeRequest>,
    told: Streaming<wire::ConsumeResponse>,
    heartbeat_every: Duration,
}

impl Agent {
    /// Joins and waits for the answer.
    async fn join(client: &Client, group: &str, id: &str) -> anyhow::Result<Self> {
        let (frames, requests) = mpsc::channel(64);
        let join = wire::Join {
            group: group.to_owned(),
            consumer_id: id.to_owned(),
            max_in_flight: CREDIT,
            concurrency: CREDIT,
            ..Default::default()
        };
        frames
            .send(ask(Ask::Join(join)))
            .await
            .context("the frame has room")?;
        let mut service = client.gateway().messaging();
        let told = service
            .consume(ReceiverStream::new(requests))
            .await
            .context("join")?;
        let mut agent = Self {
            frames,
            told: told.into_inner(),
            heartbeat_every: STALLED_AFTER,
        };
        match agent
            .told
            .message()
            .await
            .context("join")?
            .and_then(|told| told.frame)
        {
            Some(Told::Joined(joined)) => {
                let every = joined
                    .heartbeat_interval
                    .and_then(|it| Duration::try_from(it).ok());
                agent.heartbeat_every = every.context("a heartbeat interval is promised")?;
                Ok(agent)
            },
            other => bail!("a join was answered by {other:?}"),
        }
    }

    /// Takes deliveries and acknowledges them until all messages of the run are acknowledged, or
    /// nothing moves any more.
    async fn work(mut self, tally: &Tally) -> anyhow::Result<()> {
        self.send(Ask::Credit(wire::Credit { messages: CREDIT }))
            .await?;
        let mut held = Held::new();
        let mut beat = tokio::time::interval(self.heartbeat_every);
        let mut look = tokio::time::interval(LOOK);
        let mut earned = 0;
        while !tally.is_complete() && tally.moved.get().elapsed() < STALLED_AFTER {
            let frame = tokio::select! {
                frame = self.told.message() => frame.context("consume")?,
                _ = look.tick() => {
                    self.grant(&mut earned, 1).await?;
                    continue;
                },
                _ = beat.tick() => {
                    let mut leases = held.keys().cloned().collect::<Vec<_>>();
                    leases.sort_unstable();
                    let begun = leases.clone();
                    self.send(Ask::Heartbeat(wire::Heartbeat { leases, begun })).await?;
                    continue;
                },
            };
            match frame.context("the gateway closed the stream")?.frame {
                Some(Told::Deliveries(deliveries)) => {
                    let outcomes = handle(deliveries, tally.origin, &mut held)?;
                    self.send(Ask::Settle(wire::SettleBatch { outcomes }))
                        .await?;
                },
                Some(Told::Settled(settled)) => {
                    tally.moved.set(Instant::now());
                    let count = u32::try_from(settled.results.len()).unwrap_or(u32::MAX);
                    for result in settled.results {
                        let status = result.status();
                        match held.remove(&result.lease) {
                            Some((number, time)) if status == wire::SettleStatus::Ok => {
                                tally.count(number, time);
                            },
                            _ => note(&format!("an ack was not taken: {}", status.as_str_name())),
                        }
                    }
                    earned += count;
                    self.grant(&mut earned, PORTION).await?;
                },
                Some(Told::Cancel(cancel)) => {
                    for lease in &cancel.leases {
                        held.remove(lease);
                    }
                },
                Some(
                    Told::Joined(_)
                    | Told::Revoke(_)
                    | Told::Drain(_)
                    | Told::KeepAlive(_)
                    | Told::Offer(_),
                )
                | None => {},
            }
        }
        self.leave().await
    }

    /// Grants what was earned, once it is at least `least`.
    async fn grant(&self, earned: &mut u32, least: u32) -> anyhow::Result<()> {
        if *earned < least {
            return Ok(());
        }
        let messages = std::mem::take(earned);
        self.send(Ask::Credit(wire::Credit { messages })).await
    }

    async fn send(&self, frame: Ask) -> anyhow::Result<()> {
        let sent = timeout(STALLED_AFTER, self.frames.send(ask(frame))).await;
        sent.context("the gateway does not read")?
            .context("the gateway closed the stream")
    }

    /// Leaves and reads until the gateway has closed the stream, for a short time.
    async fn leave(mut self) -> anyhow::Result<()> {
        self.send(Ask::Leave(wire::Leave {})).await?;
        let closed = async { while let Ok(Some(_)) = self.told.message().await {} };
        if timeout(Duration::from_secs(5), closed).await.is_err() {
            note("the gateway did not close a stream that was left");
        }
        Ok(())
    }
}

/// Handles deliveries: decodes each and takes its number and its time.
fn handle(
    deliveries: wire::Deliveries,
    origin: Instant,
    held: &mut Held,
) -> anyhow::Result<Vec<wire::Outcome>> {
    let now = Instant::now();
    let mut outcomes = Vec::with_capacity(deliveries.deliveries.len());
    for delivery in deliveries.deliveries {
        let message = wire::Message::decode(delivery.message).context("a message must decode")?;
        let (at, rest) = message
            .payload
            .split_first_chunk()
            .context("a payload has a moment")?;
        let number = rest.first_chunk().context("a payload has a number")?;
        let at = origin + Duration::from_micros(u64::from_le_bytes(*at));
        let held_as = (
            u64::from_le_bytes(*number),
            now.saturating_duration_since(at),
        );
        held.insert(delivery.lease.clone(), held_as);
        let action = Some(Action::Ack(wire::Ack::default()));
        outcomes.push(wire::Outcome {
            lease: delivery.lease,
            action,
        });
    }
    Ok(outcomes)
}

/// A client frame.
fn ask(frame: Ask) -> wire::ConsumeRequest {
    wire::ConsumeRequest { frame: Some(frame) }
}

/// A message of the bench: its moment in microseconds, its number, and bytes to fill it up.
fn message(at: u64, number: u64, payload_bytes: usize) -> wire::Message {
    let mut payload = Vec::with_capacity(payload_bytes.max(16));
    payload.extend_from_slice(&at.to_le_bytes());
    payload.extend_from_slice(&number.to_le_bytes());
    payload.resize(payload_bytes.max(16), b'x');
    wire::Message {
        message_type: "bench".to_owned(),
        payload: Bytes::from(payload),
        content_type: "application/octet-stream".to_owned(),
        ..Default::default()
    }
}

/// A publish frame to the group alone.
fn frame(group: &str, batch: u64, messages: Vec<wire::Message>) -> wire::PublishStreamRequest {
    let publish = wire::PublishBatchRequest {
        group: group.to_owned(),
        messages,
        ..Default::default()
    };
    wire::PublishStreamRequest {
        batch,
        publish: Some(publish),
    }
}
