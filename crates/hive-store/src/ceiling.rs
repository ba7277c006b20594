//! The raw ceiling: what the same Redis carries when nothing stands before it.
//!
//! `hive bench` measures the whole path through a gateway against this. It is the least that a
//! message queue on streams must do: pipelined XADD, XREADGROUP and XACK in batches, without
//! leases, retries, priorities or fencing. Nothing is deleted; retention is trimmed by age as the
//! coordinator does. It works on a key of its own and removes that at the end.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::{StreamExt as _, future::try_join_all, stream::FuturesUnordered};
use redis::{
    AsyncConnectionConfig, Client, Pipeline, RedisError, Value, aio::MultiplexedConnection, pipe,
};
use tokio::{sync::mpsc, time::sleep};

mod workflows;

pub use self::workflows::workflows;

/// Messages of one pipeline.
const BATCH: u64 = 100;

/// Pipelines in flight at once, on either side.
const IN_FLIGHT: u64 = 2;

/// Name of the group, and of the one field of an entry.
const GROUP: &str = "ceiling";

/// Entries older than this are trimmed: the default retention of a stream.
const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// Messages between two trims.
const TRIM_EVERY: u64 = 10_000;

/// A run that moves nothing for this long has failed.
const STALLED_AFTER: Duration = Duration::from_secs(30);

/// How long a blocking read waits. The response timeout of the connection is above it.
const BLOCK_MS: u64 = 100;

/// Most bursts sent and not answered yet, when latency is measured.
const BURSTS_MAX: usize = 1000;

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub enum CeilingError {
    /// Redis refused a command, or the connection to it broke.
    #[error("redis: {0}")]
    Redis(#[from] RedisError),
    /// Redis answered what the command cannot answer.
    #[error("redis answered `{command}` with something else than it documents")]
    Reply {
        /// The command.
        command: &'static str,
    },
    /// Nothing moved for a long time.
    #[error("nothing moved for {waited:?}: {settled} of {total} messages are acknowledged")]
    Stalled {
        /// How long.
        waited: Duration,
        /// Messages acknowledged until then.
        settled: u64,
        /// Messages wanted.
        total: u64,
    },
}

/// A burst of messages that are to be sent at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Burst {
    /// The moment; latency counts from here even when the sender comes late.
    pub at: Instant,
    /// How many messages.
    pub messages: u32,
}

/// How long `messages` messages took from the first XADD to the last XACK.
///
/// # Errors
/// When Redis cannot be reached, refuses, or nothing moves for 30 s.
pub async fn throughput(
    url: &str,
    messages: u64,
    payload_bytes: usize,
) -> Result<Duration, CeilingError> {
    let client = Client::open(url)?;
    let key = fresh_key();
    let (mut sender, mut receiver) = (connect(&client).await?, connect(&client).await?);
    create_group(&mut sender, &key).await?;
    let payload = vec![b'x'; payload_bytes];
    let (sent, acked) = (AtomicU64::new(0), AtomicU64::new(0));
    let started = Instant::now();
    let senders = (0..IN_FLIGHT).map(|_| send_all(&sender, &key, &payload, messages, &sent));
    let readers =
        (0..IN_FLIGHT).map(|number| settle_all(&receiver, &key, number, messages, &acked));
    tokio::try_join!(try_join_all(senders), try_join_all(readers))?;
    let elapsed = started.elapsed();
    redis::cmd("UNLINK")
        .arg(&key)
        .exec_async(&mut receiver)
        .await?;
    Ok(elapsed)
}

/// Sends bursts at their moments and answers, per message, the time from there to its reading.
///
/// # Errors
/// When Redis cannot be reached, refuses, or nothing moves for 30 s.
pub async fn latencies(
    url: &str,
    payload_bytes: usize,
    bursts: mpsc::Receiver<Burst>,
) -> Result<Vec<Duration>, CeilingError> {
    let client = Client::open(url)?;
    let key = fresh_key();
    let (mut sender, mut receiver) = (connect(&client).await?, connect(&client).await?);
    create_group(&mut sender, &key).await?;
    let origin = Instant::now();
    // Set once the last burst is sent: the number of messages to wait for.
    let total = Cell::new(None);
    let sending = send_bursts(&sender, &key, payload_bytes, (origin, bursts), &total);
    let reading = read_bursts(&mut receiver, &key, origin, &total);
    let ((), latencies) = tokio::try_join!(sending, reading)?;
    redis::cmd("UNLINK")
        .arg(&key)
        .exec_async(&mut sender)
        .await?;
    Ok(latencies)
}

/// Memory that the Redis at this URL uses, in bytes, as `INFO memory` tells.
///
/// # Errors
/// When Redis cannot be reached, or tells nothing.
pub async fn redis_memory(url: &str) -> Result<u64, CeilingError> {
    let mut connection = connect(&Client::open(url)?).await?;
    let info: String = redis::cmd("INFO")
        .arg("memory")
        .query_async(&mut connection)
        .await?;
    let used = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"))
        .and_then(|text| text.trim().parse().ok());
    used.ok_or(CeilingError::Reply { command: "INFO" })
}

/// CPU time that the Redis at this URL has used since its start, as `INFO cpu` tells.
///
/// # Errors
/// When Redis cannot be reached, or tells nothing.
pub async fn redis_cpu(url: &str) -> Result<Duration, CeilingError> {
    let mut connection = connect(&Client::open(url)?).await?;
    let info: String = redis::cmd("INFO")
        .arg("cpu")
        .query_async(&mut connection)
        .await?;
    let seconds = |name: &str| {
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Duration::try_from_secs_f64(line.trim().parse().ok()?).ok()
    };
    match (seconds("used_cpu_sys"), seconds("used_cpu_user")) {
        (Some(system), Some(user)) => Ok(system + user),
        _ => Err(CeilingError::Reply { command: "INFO" }),
    }
}

/// Sends batches until all messages are taken, trimming as it goes.
async fn send_all(
    connection: &MultiplexedConnection,
    key: &str,
    payload: &[u8],
    messages: u64,
    sent: &AtomicU64,
) -> Result<(), CeilingError> {
    let mut connection = connection.clone();
    loop {
        let first = sent.fetch_add(BATCH, Ordering::Relaxed);
        let batch = BATCH.min(messages.saturating_sub(first));
        if batch == 0 {
            return Ok(());
        }
        let mut pipeline = pipe();
        for _ in 0..batch {
            pipeline
                .cmd("XADD")
                .arg(key)
                .arg("*")
                .arg(GROUP)
                .arg(payload)
                .ignore();
        }
        if first % TRIM_EVERY < BATCH {
            let oldest = now_ms().saturating_sub(millis(RETENTION));
            pipeline
                .cmd("XTRIM")
                .arg(key)
                .arg("MINID")
                .arg("~")
                .arg(oldest)
                .ignore();
        }
        pipeline.exec_async(&mut connection).await?;
    }
}

/// Reads and acknowledges until all messages are acknowledged, by whichever reader.
async fn settle_all(
    connection: &MultiplexedConnection,
    key: &str,
    reader: u64,
    messages: u64,
    acked: &AtomicU64,
) -> Result<(), CeilingError> {
    let mut connection = connection.clone();
    let mut held: Vec<Vec<u8>> = Vec::new();
    let mut moved = Instant::now();
    loop {
        let settled = acked.load(Ordering::Relaxed);
        if settled >= messages && held.is_empty() {
            return Ok(());
        }
        if moved.elapsed() > STALLED_AFTER {
            let waited = moved.elapsed();
            return Err(CeilingError::Stalled {
                waited,
                settled,
                total: messages,
            });
        }
        let mut pipeline = ack(key, &held);
        read(&mut pipeline, key, reader, None);
        let mut replies: Vec<Value> = pipeline.query_async(&mut connection).await?;
        let entries = entries(replies.pop())?;
        if let Some(Value::Int(count)) = replies.pop() {
            acked.fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
            moved = Instant::now();
        }
        held = entries.into_iter().map(|(id, _)| id).collect();
        if held.is_empty() && acked.load(Ordering::Relaxed) < messages {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Sends each burst when it arrives, without waiting for the answers to those before.
async fn send_bursts(
    connection: &MultiplexedConnection,
    key: &str,
    payload_bytes: usize,
    (origin, mut bursts): (Instant, mpsc::Receiver<Burst>),
    total: &Cell<Option<usize>>,
) -> Result<(), CeilingError> {
    let mut answers = FuturesUnordered::new();
    let mut sent = 0;
    loop {
        tokio::select! {
            biased;
            Some(answer) = answers.next(), if !answers.is_empty() => answer?,
            burst = bursts.recv(), if answers.len() < BURSTS_MAX => {
                let Some(burst) = burst else { break };
                let micros = burst.at.saturating_duration_since(origin).as_micros();
                let mut payload = u64::try_from(micros).unwrap_or(u64::MAX).to_le_bytes().to_vec();
                payload.resize(payload_bytes.max(payload.len()), b'x');
                let mut pipeline = pipe();
                for _ in 0..burst.messages {
                    sent += 1;
                    pipeline.cmd("XADD").arg(key).arg("*").arg(GROUP).arg(&payload).ignore();
                }
                let mut connection = connection.clone();
                answers.push(async move { pipeline.exec_async(&mut connection).await });
            },
        }
    }
    while let Some(answer) = answers.next().await {
        answer?;
    }
    total.set(Some(sent));
    Ok(())
}

/// Reads, acknowledges and times messages until all that were sent are there.
async fn read_bursts(
    connection: &mut MultiplexedConnection,
    key: &str,
    origin: Instant,
    total: &Cell<Option<usize>>,
) -> Result<Vec<Duration>, CeilingError> {
    let mut latencies = Vec::new();
    let mut held: Vec<Vec<u8>> = Vec::new();
    let mut moved = Instant::now();
    loop {
        if total.get().is_some_and(|total| latencies.len() >= total) && held.is_empty() {
            return Ok(latencies);
        }
        if moved.elapsed() > STALLED_AFTER {
            let settled = u64::try_from(latencies.len()).unwrap_or(u64::MAX);
            let total = total.get().and_then(|total| u64::try_from(total).ok());
            let total = total.unwrap_or(settled);
            return Err(CeilingError::Stalled {
                waited: moved.elapsed(),
                settled,
                total,
            });
        }
        let mut pipeline = ack(key, &held);
        read(&mut pipeline, key, 0, Some(BLOCK_MS));
        let mut replies: Vec<Value> = pipeline.query_async(connection).await?;
        let entries = entries(replies.pop())?;
        let now = Instant::now();
        if !entries.is_empty() {
            moved = now;
        }
        held.clear();
        for (id, payload) in entries {
            let sent = payload
                .first_chunk()
                .map(|bytes| u64::from_le_bytes(*bytes));
            let sent = sent.ok_or(CeilingError::Reply {
                command: "XREADGROUP",
            })?;
            latencies.push(now.saturating_duration_since(origin + Duration::from_micros(sent)));
            held.push(id);
        }
    }
}

/// A pipeline that acknowledges what is held, or an empty one.
fn ack(key: &str, held: &[Vec<u8>]) -> Pipeline {
    let mut pipeline = pipe();
    if !held.is_empty() {
        pipeline.cmd("XACK").arg(key).arg(GROUP).arg(held);
    }
    pipeline
}

/// Adds the reading of one batch.
fn read(pipeline: &mut Pipeline, key: &str, reader: u64, block_ms: Option<u64>) {
    pipeline
        .cmd("XREADGROUP")
        .arg("GROUP")
        .arg(GROUP)
        .arg(reader)
        .arg("COUNT")
        .arg(BATCH);
    if let Some(block_ms) = block_ms {
        pipeline.arg("BLOCK").arg(block_ms);
    }
    pipeline.arg("STREAMS").arg(key).arg(">");
}

/// An entry: its id and its payload.
type Entry = (Vec<u8>, Vec<u8>);

/// The entries in an answer to XREADGROUP.
fn entries(reply: Option<Value>) -> Result<Vec<Entry>, CeilingError> {
    const WRONG: CeilingError = CeilingError::Reply {
        command: "XREADGROUP",
    };
    let streams = match reply {
        Some(Value::Nil) => return Ok(Vec::new()),
        Some(reply) => list(reply)?,
        None => return Err(WRONG),
    };
    let stream = streams.into_iter().next().ok_or(WRONG)?;
    let found = list(list(stream)?.pop().ok_or(WRONG)?)?;
    found
        .into_iter()
        .map(|entry| {
            let mut entry = list(entry)?;
            let payload = entry
                .pop()
                .map(list)
                .transpose()?
                .and_then(|mut fields| fields.pop());
            match (entry.pop(), payload) {
                (Some(Value::BulkString(id)), Some(Value::BulkString(payload))) => {
                    Ok((id, payload))
                },
                _ => Err(WRONG),
            }
        })
        .collect()
}

/// The items of an array.
fn list(value: Value) -> Result<Vec<Value>, CeilingError> {
    if let Value::Array(items) = value {
        return Ok(items);
    }
    Err(CeilingError::Reply {
        command: "XREADGROUP",
    })
}

/// A connection with timeouts that fit batches and blocking reads.
async fn connect(client: &Client) -> Result<MultiplexedConnection, CeilingError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(3)))
        .set_response_timeout(Some(Duration::from_secs(10)))
        .set_pipeline_buffer_size(1024);
    Ok(client
        .get_multiplexed_async_connection_with_config(&config)
        .await?)
}

/// Makes the stream and its group.
async fn create_group(
    connection: &mut MultiplexedConnection,
    key: &str,
) -> Result<(), CeilingError> {
    let mut create = redis::cmd("XGROUP");
    create
        .arg("CREATE")
        .arg(key)
        .arg(GROUP)
        .arg("0")
        .arg("MKSTREAM");
    Ok(create.exec_async(connection).await?)
}

/// A key that nobody else has.
fn fresh_key() -> String {
    format!("hive-ceiling:{}", uuid::Uuid::now_v7().simple())
}

/// Milliseconds since the epoch, as in entry ids.
fn now_ms() -> u64 {
    millis(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    )
}

/// Whole milliseconds.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
