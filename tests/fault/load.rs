//! Publishers under load: the SDK's own, with all that a message can ask for.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use hive_client::{Client, Pending, PublishError, Publisher, Receipt, Target, message, wire};
use hive_protocol::time::to_timestamp;
use hive_testkit::history::{Name, Publish, PublishAnswer, Recorder, payload_hash};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{sync::mpsc, task::JoinHandle, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// How often a publisher hands messages over.
const EVERY: Duration = Duration::from_millis(20);
/// Different ordering keys of one publisher.
const KEYS: u32 = 40;
/// Longest delay of a message in ms.
const DELAY_MS_MAX: u64 = 1_500;

/// What one publisher sends.
pub(crate) struct Spec {
    /// Its number in the run, part of its message ids.
    pub(crate) number: usize,
    /// Where to.
    pub(crate) target: Target,
    /// The groups that must get it.
    pub(crate) groups: Vec<Name>,
    /// Messages per second.
    pub(crate) rate: u32,
    /// Seed of what the messages are like.
    pub(crate) seed: u64,
}

/// A running publisher.
pub(crate) struct Load {
    stop: CancellationToken,
    task: JoinHandle<Result<u64>>,
}

impl Load {
    /// Starts it.
    pub(crate) fn start(client: Client, log: &Arc<Recorder>, spec: Spec) -> Self {
        let stop = CancellationToken::new();
        let running = run(client, Arc::clone(log), spec, stop.clone());
        #[expect(clippy::disallowed_methods, reason = "a test has no chassis")]
        let task = tokio::spawn(running);
        Self { stop, task }
    }

    /// Stops it and waits until every message is answered; says how many there were.
    pub(crate) async fn stop(self) -> Result<u64> {
        self.stop.cancel();
        self.task.await?
    }
}

async fn run(
    client: Client,
    log: Arc<Recorder>,
    spec: Spec,
    stop: CancellationToken,
) -> Result<u64> {
    let publisher = Publisher::builder(&client, spec.target.clone())
        .window(100_000)
        .build();
    let (pending, answers) = mpsc::unbounded_channel();
    #[expect(clippy::disallowed_methods, reason = "a test has no chassis")]
    let noting = tokio::spawn(note_answers(Arc::clone(&log), answers));
    let mut maker = Maker {
        rng: StdRng::seed_from_u64(spec.seed),
        last_keyed: None,
        made: 0,
    };
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut owed: u64 = 0;
    loop {
        tokio::select! {
            _ = ticks.tick() => {},
            () = stop.cancelled() => break,
        }
        owed += u64::from(spec.rate) * u64::try_from(EVERY.as_millis())?;
        while owed >= 1_000 {
            owed -= 1_000;
            let (message, publish) = maker.next(&spec);
            let call = log.publish_called(publish);
            pending.send((call, publisher.enqueue(message).await?))?;
        }
    }
    publisher.close().await;
    drop(pending);
    noting.await?;
    Ok(maker.made)
}

/// Writes down the answers, in the order of the calls.
async fn note_answers(log: Arc<Recorder>, mut answers: mpsc::UnboundedReceiver<(u64, Pending)>) {
    while let Some((call, pending)) = answers.recv().await {
        log.publish_answered(call, answer_of(pending.await));
    }
}

/// What the log calls an answer.
pub(crate) fn answer_of(answer: Result<Receipt, PublishError>) -> PublishAnswer {
    match answer {
        Ok(receipt) => PublishAnswer::Stored(receipt.message_id.into()),
        Err(PublishError::Refused(_) | PublishError::TooLarge { .. }) => PublishAnswer::Refused,
        Err(PublishError::Unknown(_) | PublishError::Closed) => PublishAnswer::Unknown,
    }
}

struct Maker {
    rng: StdRng,
    /// Key and payload of the last message with an idempotency key, to be published again.
    last_keyed: Option<(String, Vec<u8>)>,
    made: u64,
}

impl Maker {
    fn next(&mut self, spec: &Spec) -> (wire::Message, Publish) {
        self.made += 1;
        let number = spec.number;
        let id = format!("m{number}-{}", self.made);
        let mut payload = id.clone().into_bytes();
        payload.resize(self.rng.random_range(16..256), b'.');
        let mut made = message("task", payload);
        made.message_id.clone_from(&id);
        let mut is_delayed = false;
        let priority = if self.rng.random_bool(0.2) {
            self.rng.random_range(0..10)
        } else {
            4
        };
        made.priority = Some(priority);
        match self.rng.random_range(0..100) {
            0..10 => made.ordering_key = format!("k{number}-{}", self.rng.random_range(0..KEYS)),
            10..15 => {
                let delay = self.rng.random_range(50..DELAY_MS_MAX);
                made.not_before = Some(to_timestamp((now_ms() + delay).into()));
                is_delayed = true;
            },
            15..18 => {
                made.idempotency_key = format!("i{id}");
                self.last_keyed = Some((made.idempotency_key.clone(), made.payload.to_vec()));
            },
            18..20 => {
                if let Some((key, payload)) = self.last_keyed.take() {
                    made.idempotency_key = key;
                    made.payload = payload.into();
                }
            },
            _ => {},
        }
        let text = |text: &str| Some(Name::from(text)).filter(|text| !text.is_empty());
        let publish = Publish {
            message: id.into(),
            groups: spec.groups.clone(),
            payload: payload_hash(&made.payload),
            idempotency_key: text(&made.idempotency_key),
            ordering_key: text(&made.ordering_key).filter(|_| !is_delayed),
            priority: u8::try_from(priority).unwrap_or(4),
            is_sequenced: true,
            may_expire: false,
            max_attempts: None,
        };
        (made, publish)
    }
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

/// Publishes these messages by plain calls, one after the other, and writes them down.
pub(crate) async fn publish_plain(
    client: &Client,
    log: &Recorder,
    (target, groups): (&Target, &[&str]),
    messages: Vec<wire::Message>,
) {
    for message in messages {
        let text = |text: &str| Some(Name::from(text)).filter(|text| !text.is_empty());
        let call = log.publish_called(Publish {
            message: message.message_id.as_str().into(),
            groups: groups.iter().map(|group| Name::from(*group)).collect(),
            payload: payload_hash(&message.payload),
            idempotency_key: text(&message.idempotency_key),
            ordering_key: text(&message.ordering_key),
            priority: 4,
            ..Publish::default()
        });
        let (stream, group) = match target {
            Target::Stream(name) => (name.clone(), String::new()),
            Target::Group(name) => (String::new(), name.clone()),
        };
        let request = wire::PublishRequest {
            stream,
            group,
            message: Some(message),
            ..wire::PublishRequest::default()
        };
        let answer = match client.publish(request).await {
            Ok(answer) => PublishAnswer::Stored(answer.message_id.into()),
            // A refusal says itself whether anything may be stored.
            Err(hive_client::CallError::Refused(fault))
                if fault.reason != hive_client::Reason::OutcomeUnknown =>
            {
                PublishAnswer::Refused
            },
            Err(_) => PublishAnswer::Unknown,
        };
        log.publish_answered(call, answer);
    }
}

/// Messages with these ids.
pub(crate) fn named(ids: impl IntoIterator<Item = String>) -> Vec<wire::Message> {
    let one = |id: String| {
        let mut made = message("task", format!("payload of {id}"));
        made.message_id = id;
        made
    };
    ids.into_iter().map(one).collect()
}
