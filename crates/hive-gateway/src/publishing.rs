//! Taking messages in: checked at the door, turned into entries, queued for a flush.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use hive_domain::{
    stream::{Durability, StreamDefinition},
    violation::Violations,
};
use hive_protocol::{
    fault::{Fault, Reason},
    limits::{DIRECT_TTL_MS_DEFAULT, ORDERING_KEY_BYTES_MAX},
    message,
    request::{self, Producer, Target},
    time, wire,
};
use hive_runtime::gate::Pass;
use hive_store::{
    Lane, LaneKind, LaneRef, Shard, StoreError,
    fetch::Lanes,
    header::{GROUP_BACKOFF, Header},
    publish::{Flushed, Idempotency, Item, Outcome},
    scripts::seeded,
    tracked::tracking_key,
};
use prost::Message as _;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::{
    core::{Gateway, now_ms},
    publisher::{self, Answer, Chain, Job},
};

/// Room for a header, which at times has a key: a guess that saves growing.
const HEADER_ROOM: usize = 48;
/// Sets of required capabilities with unsettled messages beyond which a stream takes no set that it
/// has no lanes for: each is up to ten lanes.
const CAPABILITY_SETS_MAX: usize = 16;
/// Most sets that a stream has lanes for, those counted in whose messages are all settled: their
/// lanes go when retention has deleted the last message and nothing came for a while.
const CAPABILITY_SETS_KEPT_MAX: usize = 64;
/// How often a publish is addressed anew when groups or members change under it.
const TRIES: usize = 5;
/// What a refused publisher is told to wait: a full stream drains in seconds at best.
const RETRY_FULL: Duration = Duration::from_secs(1);

/// Where a publish goes, as far as it is known before the messages are read.
struct Address {
    shard: Shard,
    stream: StreamDefinition,
    /// The one group, or none for all of the stream.
    group: Option<String>,
    /// Groups of the stream, where it goes to all.
    groups: Vec<String>,
}

/// A batch that passed its checks, on its way to a flush.
pub struct Batch {
    target: Target,
    address: Address,
    producer: Option<Arc<str>>,
    checked: Vec<Checked>,
    outcomes: Vec<wire::PublishOutcome>,
    /// A shutdown waits for it.
    _pass: Pass,
}

/// A batch that waits for its flush.
pub struct QueuedBatch {
    batch: Batch,
    /// None where no message of it passed the checks.
    answer: Option<oneshot::Receiver<Answer>>,
}

/// What became of a queued batch.
pub enum Queued {
    /// Each message has its outcome.
    Done(wire::PublishBatchResponse),
    /// Nothing was stored: groups or members changed, it must be addressed anew.
    AddressChanged(Box<Batch>),
}

impl QueuedBatch {
    /// Waits for the flush.
    ///
    /// # Errors
    /// What Redis says; nothing of the batch may be taken for stored then.
    pub async fn outcome(self) -> Result<Queued, Fault> {
        let Self { mut batch, answer } = self;
        if let Some(answer) = answer {
            let answer = answer
                .await
                .unwrap_or_else(|_stopped| Err(publisher::stopped()));
            match answer.map_err(|error| unsure(error, &batch))? {
                Flushed::Done(done) => {
                    for (one, outcome) in batch.checked.iter_mut().zip(done) {
                        note(&mut batch.outcomes, one, outcome, &batch.address);
                    }
                },
                Flushed::Closed => return Err(Fault::no_stream(&batch.address.stream.name)),
                Flushed::GroupsChanged | Flushed::MemberByNow(_) => {
                    return Ok(Queued::AddressChanged(Box::new(batch)));
                },
            }
        }
        Ok(Queued::Done(wire::PublishBatchResponse {
            outcomes: batch.outcomes,
        }))
    }
}

/// The fault of a publish whose target does not hold still; nothing was stored.
#[must_use]
pub fn changing() -> Fault {
    Fault::new(
        Reason::Unreachable,
        "the groups of the stream are changing; nothing was stored",
    )
    .with_retry_after(Duration::from_millis(100))
}

/// A message that passed the checks.
struct Checked {
    /// Position in the request.
    place: usize,
    message: wire::Message,
    sequence: u64,
    /// Refused at the door: it goes along so that its sequence is known to be refused, and the
    /// later ones of its ordering key are refused too.
    is_refused: bool,
}

impl Gateway {
    /// Publishes one message.
    ///
    /// # Errors
    /// Violations, and every reason for which a message can be refused.
    pub async fn publish(
        &self,
        namespace: &str,
        request: wire::PublishRequest,
    ) -> Result<wire::PublishResponse, Fault> {
        let message = request.message.unwrap_or_default();
        request::producer(&request.producer_id, "sequence", request.sequence, 1)?;
        let batch = wire::PublishBatchRequest {
            stream: request.stream,
            group: request.group,
            messages: vec![message],
            producer_id: request.producer_id,
            first_sequence: request.sequence,
        };
        let outcome = self.publish_batch(namespace, batch).await?.outcomes.pop();
        let outcome = outcome.ok_or_else(|| Fault::bug("a publish without an outcome"))?;
        match outcome.error {
            Some(problem) => Err(problem.into()),
            None => Ok(wire::PublishResponse {
                message_id: outcome.message_id,
                duplicate: outcome.duplicate,
            }),
        }
    }

    /// Publishes a batch; each message has an outcome of its own.
    ///
    /// # Errors
    /// Violations of the call as a whole, an unknown target, or what Redis says.
    pub async fn publish_batch(
        &self,
        namespace: &str,
        request: wire::PublishBatchRequest,
    ) -> Result<wire::PublishBatchResponse, Fault> {
        let mut batch = self.check_batch(namespace, request).await?;
        for _ in 0..TRIES {
            let queued = self.queue_batch(batch, Chain::default()).await?;
            match queued.outcome().await? {
                Queued::Done(response) => return Ok(response),
                Queued::AddressChanged(changed) => {
                    self.catalog
                        .forget_stream(namespace, &changed.address.stream.name);
                    let address = self.address(namespace, &changed.target).await?;
                    batch = Batch {
                        address,
                        ..*changed
                    };
                },
            }
        }
        Err(changing())
    }

    /// Checks a batch and finds its shard; messages that break a rule have their outcome by then.
    ///
    /// # Errors
    /// Violations of the call as a whole, an unknown target, or what Redis says.
    pub async fn check_batch(
        &self,
        namespace: &str,
        request: wire::PublishBatchRequest,
    ) -> Result<Batch, Fault> {
        let target = request::target(&request.stream, &request.group)?;
        request::batch(&request.messages)?;
        let count = request.messages.len();
        let sequence = request.first_sequence;
        let producer = request::producer(&request.producer_id, "first_sequence", sequence, count)?;
        let pass = self.enter("publish")?;
        let address = self.address(namespace, &target).await?;
        let mut outcomes = vec![wire::PublishOutcome::default(); count];
        let checked = self
            .check(&address, producer.as_ref(), request.messages, &mut outcomes)
            .await?;
        let producer = producer.map(|producer| producer.id.as_str().into());
        Ok(Batch {
            target,
            address,
            producer,
            checked,
            outcomes,
            _pass: pass,
        })
    }

    /// Queues a checked batch behind those of the shard that were queued before.
    ///
    /// # Errors
    /// What Redis says.
    pub async fn queue_batch(&self, batch: Batch, chain: Chain) -> Result<QueuedBatch, Fault> {
        if batch.checked.is_empty() {
            return Ok(QueuedBatch {
                batch,
                answer: None,
            });
        }
        // Before the entries are made: who waits for room holds its request alone.
        let place = self.room.place(size(&batch), &chain).await?;
        let direct = self.direct_groups(&batch.address, &batch.checked).await?;
        let items = items(&batch, &direct);
        let settings = &batch.address.stream.settings;
        let job = Job {
            items,
            groups: batch.address.groups.clone(),
            max_backlog: settings.max_backlog,
            max_backlog_bytes: settings.max_backlog_bytes,
            buffer_without_groups: settings.buffer_without_groups,
            durable: settings.durability == Durability::Local,
            chain,
        };
        let publisher = self.publisher(&batch.address.shard);
        let answer = publisher.enqueue(job, place).await?;
        Ok(QueuedBatch {
            batch,
            answer: Some(answer),
        })
    }

    async fn address(&self, namespace: &str, target: &Target) -> Result<Address, Fault> {
        match target {
            Target::Group(group) => {
                let view = self.catalog.group(namespace, group).await?;
                if seeded::is(seeded::SHARED_LANE) {
                    return self.address_all(namespace, &view.stream.name).await;
                }
                Ok(Address {
                    shard: view.shard.clone(),
                    stream: view.stream.clone(),
                    group: Some(group.clone()),
                    groups: Vec::new(),
                })
            },
            Target::Stream(stream) => self.address_all(namespace, stream).await,
        }
    }

    /// The address of whatever goes to all groups of a stream.
    async fn address_all(&self, namespace: &str, stream: &str) -> Result<Address, Fault> {
        let view = self.catalog.stream(namespace, stream).await?;
        Ok(Address {
            shard: view.shard.clone(),
            stream: view.definition.clone(),
            group: None,
            groups: view.groups.clone(),
        })
    }

    /// Checks every message; those that break a rule get their outcome here.
    async fn check(
        &self,
        address: &Address,
        producer: Option<&Producer>,
        messages: Vec<wire::Message>,
        outcomes: &mut [wire::PublishOutcome],
    ) -> Result<Vec<Checked>, Fault> {
        let mut lanes = self.catalog.lanes(&address.shard).await?;
        let mut sets = sets_of(&lanes);
        let (mut is_read, mut unsettled) = (false, None);
        let now = now_ms();
        let mut checked = Vec::with_capacity(messages.len());
        let single = messages.len() == 1;
        for (place, mut message) in messages.into_iter().enumerate() {
            // The path is for a fault alone: most messages have none.
            let faults = message::check(&message, "", self.payload_max(), now.into());
            let mut fault = if faults.is_empty() {
                None
            } else {
                let path = if single {
                    "message".to_owned()
                } else {
                    message::place("", place)
                };
                message::accept(&message, &path, self.payload_max(), now.into()).err()
            };
            if fault.is_none() && message.track && address.group.is_none() {
                let field = if single {
                    "message.track".to_owned()
                } else {
                    format!("{}.track", message::place("", place))
                };
                let rule = "a tracked message is for one group: publish it to the group";
                fault = Some(Fault::invalid(Violations::one(field, rule)));
            }
            if fault.is_none() && !message.required_capabilities.is_empty() {
                let set = message::required_capabilities(&message).to_string();
                if !sets.contains(&set) && !is_read {
                    // What is remembered may lack the sets of the last second.
                    lanes = self.catalog.read_lanes(&address.shard).await?;
                    sets.append(&mut sets_of(&lanes));
                    is_read = true;
                }
                let is_new = !sets.contains(&set);
                if is_new && sets.len() >= CAPABILITY_SETS_MAX && unsettled.is_none() {
                    let shard = &address.shard;
                    let mut all = self.store.unsettled_sets(shard, &lanes.all).await?;
                    // Those of this batch are not stored yet.
                    all.extend(sets.difference(&sets_of(&lanes)).cloned());
                    unsettled = Some(all);
                }
                let unsettled = unsettled.as_mut();
                fault = Self::admit_set(&mut sets, unsettled, set, &address.stream.name);
            }
            let sequence = producer.map_or(0, |producer| producer.first_sequence);
            let sequence = sequence + place as u64;
            let is_refused = fault.is_some();
            if let Some(fault) = fault {
                refuse(outcomes, place, &fault);
                if producer.is_none() && message.ordering_key.is_empty() {
                    continue;
                }
            } else {
                let from = producer.map(|producer| (producer.id.as_str(), sequence));
                complete(&mut message, from, now);
            }
            checked.push(Checked {
                place,
                message,
                sequence,
                is_refused,
            });
        }
        Ok(checked)
    }

    /// Takes a set of required capabilities in, or says why not. `unsettled` are those of `sets`
    /// that have unsettled messages, where that was worth asking.
    fn admit_set(
        sets: &mut BTreeSet<String>,
        unsettled: Option<&mut BTreeSet<String>>,
        set: String,
        stream: &str,
    ) -> Option<Fault> {
        if sets.contains(&set) {
            return None;
        }
        let count = unsettled.as_ref().map_or(sets.len(), |sets| sets.len());
        let (limit, what) = if count >= CAPABILITY_SETS_MAX {
            (CAPABILITY_SETS_MAX, "with unsettled messages")
        } else if sets.len() >= CAPABILITY_SETS_KEPT_MAX {
            (CAPABILITY_SETS_KEPT_MAX, "with messages that are kept")
        } else {
            if let Some(unsettled) = unsettled {
                unsettled.insert(set.clone());
            }
            sets.insert(set);
            return None;
        };
        Some(Fault::new(
            Reason::TooManyCapabilitySets,
            format!(
                "stream `{stream}` has `{limit}` sets of required capabilities {what} already; \
                 `{set}` would be one more"
            ),
        ))
    }

    /// For each addressed consumer of a publish to a stream: the groups where it is a member.
    async fn direct_groups(
        &self,
        address: &Address,
        checked: &[Checked],
    ) -> Result<HashMap<String, Vec<String>>, StoreError> {
        let mut found = HashMap::new();
        if address.group.is_some() {
            return Ok(found);
        }
        for one in checked {
            let to = &one.message.to_agent;
            if !to.is_empty() && !one.is_refused && !found.contains_key(to) {
                let groups = self
                    .store
                    .groups_of_consumer(&address.shard, &address.groups, to)
                    .await?;
                found.insert(to.clone(), groups);
            }
        }
        Ok(found)
    }
}

/// The sets of required capabilities that there are lanes for.
fn sets_of(lanes: &Lanes) -> BTreeSet<String> {
    let sets = lanes.all.iter().map(|lane| &lane.lane.capabilities);
    sets.filter(|set| !set.is_empty()).cloned().collect()
}

/// Fills in what the gateway decides; `from` is the producer and the message's sequence.
fn complete(message: &mut wire::Message, from: Option<(&str, u64)>, now: u64) {
    if message.message_id.is_empty() {
        let id = from.map_or_else(Uuid::now_v7, |(producer, sequence)| {
            id_of(producer, sequence)
        });
        message.message_id = id.to_string();
    }
    message.published_at = Some(time::to_timestamp(now.into()));
    if !message.to_agent.is_empty() && message.expires_at.is_none() {
        // It may be delayed for longer than that: its time begins when it may be delivered.
        let from = message::not_before(message).map_or(0, |at| at.as_millis());
        let expires = from.max(now).saturating_add(DIRECT_TTL_MS_DEFAULT);
        message.expires_at = Some(time::to_timestamp(expires.into()));
    }
}

/// The id of a producer's message that came without one: a `UUIDv8` of producer and sequence, so
/// that a repetition is answered the id under which the message is stored. FNV-1a of 128 bits.
fn id_of(producer: &str, sequence: u64) -> Uuid {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let sequence = sequence.to_be_bytes();
    let bytes = producer.bytes().chain([0]).chain(sequence);
    let hash = bytes.fold(OFFSET, |hash, byte| {
        (hash ^ u128::from(byte)).wrapping_mul(PRIME)
    });
    uuid::Builder::from_custom_bytes(hash.to_be_bytes()).into_uuid()
}

/// About how many bytes a batch's entries take.
fn size(batch: &Batch) -> usize {
    let each = |one: &Checked| one.message.encoded_len() + HEADER_ROOM;
    batch.checked.iter().map(each).sum()
}

/// The messages of a batch as entries. Their bodies share one piece of memory, and neighbours in
/// the same lane share its name.
fn items(batch: &Batch, direct: &HashMap<String, Vec<String>>) -> Vec<Item> {
    let producer = batch.producer.as_ref();
    let mut bodies = BytesMut::with_capacity(size(batch));
    let mut items: Vec<Item> = Vec::with_capacity(batch.checked.len());
    let mut before: Option<(Lane, Arc<[LaneRef]>)> = None;
    for one in &batch.checked {
        let message = &one.message;
        let producer = producer.map(|producer| (producer.clone(), one.sequence));
        if one.is_refused {
            items.push(Item {
                lanes: Arc::default(),
                body: Bytes::new(),
                producer,
                idempotency: None,
                ordering_key: refused_key(message),
                not_before_ms: 0,
            });
            continue;
        }
        let lane = lane(message);
        let lanes = match &before {
            Some((same, lanes)) if *same == lane => lanes.clone(),
            Some(_) | None => lanes(&batch.address, &lane, direct),
        };
        before = Some((lane, lanes.clone()));
        header(message).write(&mut bodies);
        // The room was made above, and more would be made: it cannot fail.
        let _infallible = message.encode(&mut bodies);
        let idempotency = (!message.idempotency_key.is_empty()).then(|| Idempotency {
            key: message.idempotency_key.clone(),
            fingerprint: fingerprint(message, &batch.target),
            message_id: message.message_id.clone(),
        });
        items.push(Item {
            lanes,
            body: bodies.split().freeze(),
            producer,
            idempotency,
            ordering_key: message.ordering_key.clone(),
            not_before_ms: message::not_before(message).map_or(0, |at| at.as_millis()),
        });
    }
    items
}

/// The ordering key that a refused message refuses the later ones of; none where the key itself is
/// what broke the rule.
fn refused_key(message: &wire::Message) -> String {
    if message.ordering_key.len() > ORDERING_KEY_BYTES_MAX {
        return String::new();
    }
    message.ordering_key.clone()
}

/// What decides who may take a message.
fn lane(message: &wire::Message) -> Lane {
    Lane {
        priority: message::priority(message),
        // The door lets no message have both.
        kind: match (message.track, message.ordering_key.is_empty()) {
            (true, _) => LaneKind::Tracked,
            (false, true) => LaneKind::Plain,
            (false, false) => LaneKind::Ordered,
        },
        capabilities: message::required_capabilities(message).to_string(),
        consumer: message.to_agent.clone(),
    }
}

fn lanes(address: &Address, lane: &Lane, direct: &HashMap<String, Vec<String>>) -> Arc<[LaneRef]> {
    match &address.group {
        Some(group) => [LaneRef::of_group(group, lane.clone())].into(),
        None => match direct.get(&lane.consumer) {
            Some(groups) if !groups.is_empty() => groups
                .iter()
                .map(|group| LaneRef::of_group(group, lane.clone()))
                .collect(),
            // For all groups; or held for a consumer that no group has.
            Some(_) | None => [LaneRef::of_all(lane.clone())].into(),
        },
    }
}

fn header(message: &wire::Message) -> Header<'_> {
    let retry = message::retry(message);
    let backoff = |ms: Option<u64>| {
        ms.map_or(GROUP_BACKOFF, |ms| {
            u32::try_from(ms).unwrap_or(GROUP_BACKOFF - 1)
        })
    };
    Header {
        priority: message::priority(message),
        max_attempts: retry
            .max_attempts
            .map_or(0, |n| u16::try_from(n).unwrap_or(u16::MAX)),
        initial_backoff_ms: backoff(retry.initial_backoff_ms),
        max_backoff_ms: backoff(retry.max_backoff_ms),
        expires_at_ms: message::expires_at(message).map_or(0, |at| at.as_millis()),
        ordering_key: message.ordering_key.as_str().into(),
        dispatch_key: if message.track {
            tracking_key(&message.message_id).into()
        } else {
            "".into()
        },
    }
}

/// What must be the same for a repeated idempotency key: payload, type and target. FNV-1a over
/// parts with their lengths, the same in every build.
fn fingerprint(message: &wire::Message, target: &Target) -> u64 {
    let (kind, name) = match target {
        Target::Stream(name) => ("s", name),
        Target::Group(name) => ("g", name),
    };
    let parts: [Bytes; 5] = [
        message.payload.clone(),
        Bytes::copy_from_slice(message.message_type.as_bytes()),
        Bytes::copy_from_slice(message.to_agent.as_bytes()),
        Bytes::from_static(kind.as_bytes()),
        Bytes::copy_from_slice(name.as_bytes()),
    ];
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        let length = (part.len() as u64).to_be_bytes();
        for byte in length.iter().chain(part.iter()) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

/// An answer that was lost: repeating is safe where something tells the copies apart.
fn unsure(error: StoreError, batch: &Batch) -> Fault {
    let keyed = batch
        .checked
        .iter()
        .all(|one| !one.message.idempotency_key.is_empty());
    if let StoreError::Unknown { detail } = &error
        && (keyed || batch.producer.is_some())
    {
        return StoreError::Unavailable {
            detail: detail.clone(),
        }
        .into();
    }
    error.into()
}

fn refuse(outcomes: &mut [wire::PublishOutcome], place: usize, fault: &Fault) {
    if let Some(outcome) = outcomes.get_mut(place) {
        outcome.error = Some(fault.into());
    }
}

fn note(
    outcomes: &mut [wire::PublishOutcome],
    one: &mut Checked,
    what: Outcome,
    address: &Address,
) {
    let group = address.group.as_deref().unwrap_or_default();
    let stream = &address.stream.name;
    let fault = match what {
        // Its outcome was written when it was refused.
        Outcome::RefusedBefore => return,
        Outcome::Added | Outcome::SeenSequence => {
            if let Some(outcome) = outcomes.get_mut(one.place) {
                outcome.message_id = std::mem::take(&mut one.message.message_id);
                outcome.duplicate = what == Outcome::SeenSequence;
                // Refused here, and stored before by a gateway that thought otherwise.
                outcome.error = None;
            }
            return;
        },
        Outcome::Duplicate(id) => {
            if let Some(outcome) = outcomes.get_mut(one.place) {
                outcome.message_id = id;
                outcome.duplicate = true;
            }
            return;
        },
        Outcome::TrackedBefore => Fault::new(
            Reason::MessageExists,
            format!("a message `{}` is tracked already", one.message.message_id),
        ),
        Outcome::KeyReused(id) => Fault::new(
            Reason::IdempotencyKeyReused,
            format!(
                "idempotency key `{}` was used by message `{id}` with other content",
                one.message.idempotency_key
            ),
        ),
        Outcome::BacklogFull => Fault::new(
            Reason::StreamFull,
            format!("stream `{stream}` holds its limit of unsettled messages"),
        )
        .with_retry_after(RETRY_FULL),
        Outcome::BacklogBytesFull => Fault::new(
            Reason::StreamFull,
            format!("stream `{stream}` holds its limit of bytes of unsettled messages"),
        )
        .with_retry_after(RETRY_FULL),
        Outcome::NoGroup => Fault::no_group(group),
        Outcome::NoGroups => Fault::new(
            Reason::StreamWithoutGroups,
            format!("stream `{stream}` has no group and does not buffer"),
        ),
        Outcome::DedupFull => Fault::new(
            Reason::TooManyIdempotencyKeys,
            "too many idempotency keys are remembered; try again later",
        )
        .with_retry_after(Duration::from_secs(60)),
        Outcome::EarlierRefused => Fault::new(
            Reason::EarlierMessageRefused,
            format!(
                "an earlier message of key `{}` was refused",
                one.message.ordering_key
            ),
        ),
    };
    refuse(outcomes, one.place, &fault);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_repetition_of_a_producer_has_the_id_of_the_first() {
        let mut first = wire::Message::default();
        let mut again = wire::Message::default();
        complete(&mut first, Some(("p", 7)), 1_000);
        complete(&mut again, Some(("p", 7)), 9_000);
        assert_eq!(first.message_id, again.message_id);
        let id = Uuid::parse_str(&first.message_id).unwrap();
        assert_eq!(id.get_version_num(), 8);
    }

    #[test]
    fn ids_of_producers_differ_with_producer_and_sequence() {
        let mut ids = HashSet::new();
        for producer in ["p", "q", "pp", "a-longer-name"] {
            for sequence in (1..5_000).chain([u64::MAX - 1, u64::MAX]) {
                assert!(
                    ids.insert(id_of(producer, sequence)),
                    "{producer} {sequence}"
                );
            }
        }
    }

    #[test]
    fn the_time_of_a_direct_message_begins_when_it_may_be_delivered() {
        let direct = |not_before: Option<u64>| wire::Message {
            to_agent: "a".into(),
            not_before: not_before.map(|at| time::to_timestamp(at.into())),
            ..wire::Message::default()
        };
        let expires = |mut message: wire::Message| {
            complete(&mut message, None, 1_000);
            message::expires_at(&message).map(|at| at.as_millis())
        };
        let late = 5 * DIRECT_TTL_MS_DEFAULT;
        assert_eq!(expires(direct(None)), Some(1_000 + DIRECT_TTL_MS_DEFAULT));
        assert_eq!(
            expires(direct(Some(late))),
            Some(late + DIRECT_TTL_MS_DEFAULT)
        );
        assert_eq!(
            expires(direct(Some(5))),
            Some(1_000 + DIRECT_TTL_MS_DEFAULT)
        );
        assert_eq!(expires(wire::Message::default()), None);
    }

    #[test]
    fn the_id_that_a_caller_gave_stays() {
        let mut message = wire::Message {
            message_id: "mine".into(),
            ..wire::Message::default()
        };
        complete(&mut message, Some(("p", 7)), 1_000);
        assert_eq!(message.message_id, "mine");
    }
}
