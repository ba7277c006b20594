//! Adding messages: one flush is one script call, and sent again it adds nothing.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;

use crate::{
    connection::{Purpose, Store},
    error::StoreError,
    keys::{GroupKey, Shard},
    lane::LaneRef,
    reply,
    scripts::{Call, PUBLISH},
};

/// Length of a bucket of idempotency keys: four make the window of 24 h.
const BUCKET_MS: u64 = 21_600_000;
/// Slices of a bucket: with 4,096 keys each, a million a bucket.
const SLICES: u64 = 256;

/// One message as the store takes it.
#[derive(Debug, Clone)]
pub struct Item {
    /// Lanes that it goes to; the first decides its reply.
    pub lanes: Vec<LaneRef>,
    /// Header and envelope.
    pub body: Bytes,
    /// Id of the message.
    pub message_id: String,
    /// Producer and its sequence for this message.
    pub producer: Option<(Arc<str>, u64)>,
    /// Idempotency key, and the hash of what else must be the same.
    pub idempotency: Option<(String, u64)>,
    /// Empty for none. Where an earlier message of the key is refused, this one is too.
    pub ordering_key: String,
    /// In ms since 1970; 0 for at once.
    pub not_before_ms: u64,
}

/// What became of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is in its lanes, or scheduled.
    Added,
    /// Its producer's sequence was stored before.
    SeenSequence,
    /// Its idempotency key was stored before, by this message.
    Duplicate(String),
    /// Its idempotency key was stored before by this message, with other content.
    KeyReused(String),
    /// Its group holds `max_backlog` unsettled messages.
    BacklogFull,
    /// Its group does not exist.
    NoGroup,
    /// Its stream has no groups, and does not buffer without.
    NoGroups,
    /// Too many idempotency keys are remembered.
    DedupFull,
    /// An earlier message of its ordering key was refused.
    EarlierRefused,
}

/// A flush as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flushed {
    /// One outcome per item.
    Done(Vec<Outcome>),
    /// `groups` is not what the shard has: read it again.
    GroupsChanged,
    /// A held lane's consumer is a member of some group by now: address it there.
    MemberByNow(String),
}

/// Messages of one flush.
#[derive(Debug, Clone)]
pub struct Flush {
    /// Rises by one with each new flush of this incarnation; repeated only for the same items.
    pub number: u64,
    /// The sending process, by a random word.
    pub incarnation: Arc<str>,
    /// Most unsettled messages of a group.
    pub max_backlog: u64,
    /// Whether the stream takes messages while it has no group.
    pub buffer_without_groups: bool,
    /// The groups of the shard as the caller knows them; needed where an item goes to all.
    pub groups: Vec<String>,
    /// At most 1,000.
    pub items: Vec<Item>,
    /// On disk before the answer.
    pub durable: bool,
}

impl Store {
    /// Adds a flush to a shard.
    ///
    /// # Errors
    /// As in `StoreError`. After `Unknown` the same flush may be sent again.
    pub async fn publish(&self, shard: &Shard, flush: &Flush) -> Result<Flushed, StoreError> {
        let mut bucket = bucket_now();
        loop {
            let call = publish_call(shard, flush, bucket);
            let value = if flush.durable {
                self.run_durably(Purpose::Publish, call).await?
            } else {
                self.run_safely(Purpose::Publish, call).await?
            };
            let (word, parts) = reply::status("publish", value)?;
            let detail = reply::detail("publish", parts)?;
            match word.as_str() {
                "OK" => return Ok(Flushed::Done(outcomes(&detail, flush.items.len())?)),
                "GROUPS" => return Ok(Flushed::GroupsChanged),
                "MEMBERS" => return Ok(Flushed::MemberByNow(detail)),
                "LOST" => {
                    return Err(StoreError::Lost {
                        what: format!("lane `{detail}`"),
                    });
                },
                "BUCKET" => {
                    // Our clock and Redis' are in different buckets; Redis is right.
                    bucket = detail
                        .parse()
                        .map_err(|_error| StoreError::reply("publish"))?;
                },
                _ => return Err(StoreError::reply("publish")),
            }
        }
    }
}

fn bucket_now() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or_default() / BUCKET_MS
}

/// FNV-1a: spreads keys over slices, the same in every process and build.
pub(crate) fn slice_of(key: &str) -> u64 {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)) % SLICES
}

/// Positions of what the items refer to, from 1, in order of first use.
struct Numbers<K> {
    order: Vec<K>,
    number: BTreeMap<K, usize>,
}

impl<K: Ord + Clone> Numbers<K> {
    fn new() -> Self {
        Self {
            order: Vec::new(),
            number: BTreeMap::new(),
        }
    }

    fn of(&mut self, key: &K) -> usize {
        if let Some(number) = self.number.get(key) {
            return *number;
        }
        self.order.push(key.clone());
        self.number.insert(key.clone(), self.order.len());
        self.order.len()
    }
}

fn publish_call(shard: &Shard, flush: &Flush, bucket: u64) -> Call {
    let mut lanes = Numbers::<&LaneRef>::new();
    let mut producers = Numbers::<&str>::new();
    let mut slices = Numbers::<u64>::new();
    let mut groups: Vec<&str> = flush.groups.iter().map(String::as_str).collect();
    let mut items = Call::new(&PUBLISH);
    let mut item_count = 0_usize;
    let mut holds = false;
    for (number, item) in flush.items.iter().enumerate() {
        let mut first = true;
        for lane in &item.lanes {
            holds |= lane.is_held();
            if !lane.group.is_empty() && !groups.contains(&lane.group.as_str()) {
                groups.push(&lane.group);
            }
            let lane_no = lanes.of(&lane);
            item_count += 1;
            if !first {
                items
                    .text(format!("-{lane_no}"))
                    .text("")
                    .number(0)
                    .number(0)
                    .number(0);
                continue;
            }
            first = false;
            items.count(lane_no).bytes(item.body.clone());
            match &item.producer {
                Some((producer, sequence)) => {
                    items
                        .count(producers.of(&producer.as_ref()))
                        .number(*sequence);
                },
                None => {
                    items.number(0).number(0);
                },
            }
            let member = format!("{}.{}.{number}", flush.incarnation, flush.number);
            add_extra(&mut items, item, member, &mut slices);
        }
    }
    let mut call = Call::new(&PUBLISH);
    call.key(shard.groups())
        .key(shard.lanes())
        .key(shard.flush(&flush.incarnation))
        .key(shard.producers())
        .key(shard.scheduled())
        .key(shard.bodies());
    for lane in &lanes.order {
        call.key(shard.lane(lane));
    }
    for group in &groups {
        call.key(shard.group(group, GroupKey::Counters));
    }
    if holds {
        for group in &groups {
            call.key(shard.group(group, GroupKey::Members));
        }
    }
    for slice in &slices.order {
        for back in 0..5 {
            call.key(shard.dedup(bucket.saturating_sub(back), *slice));
        }
    }
    call.number(flush.number)
        .number(flush.max_backlog)
        .flag(flush.buffer_without_groups)
        .number(bucket)
        .number(0)
        .count(lanes.order.len())
        .count(groups.len())
        .count(producers.order.len())
        .count(if holds { groups.len() } else { 0 })
        .count(item_count);
    for lane in &lanes.order {
        call.text(lane.to_string());
    }
    for group in &groups {
        call.text(*group);
    }
    for producer in &producers.order {
        call.text(*producer);
    }
    call.append_args(items);
    call
}

/// What only some messages need behind the five arguments of each.
fn add_extra(items: &mut Call, item: &Item, member: String, slices: &mut Numbers<u64>) {
    let extra =
        item.idempotency.is_some() || !item.ordering_key.is_empty() || item.not_before_ms > 0;
    items.flag(extra);
    if !extra {
        return;
    }
    match &item.idempotency {
        Some((key, fingerprint)) => {
            items
                .count(slices.of(&slice_of(key)))
                .text(key)
                .text(format!("{fingerprint:016x} {}", item.message_id));
        },
        None => {
            items.number(0).text("").text("");
        },
    }
    items
        .text(&item.ordering_key)
        .number(item.not_before_ms)
        .text(member);
}

fn outcomes(text: &str, expected: usize) -> Result<Vec<Outcome>, StoreError> {
    let wrong = || StoreError::reply("publish");
    let found: Vec<Outcome> = text
        .split(' ')
        .filter(|word| !word.is_empty())
        .map(|word| {
            let mut letters = word.chars();
            let letter = letters.next().ok_or_else(wrong)?;
            let id = letters.as_str().to_owned();
            match letter {
                '+' => Ok(Outcome::Added),
                'S' => Ok(Outcome::SeenSequence),
                'D' => Ok(Outcome::Duplicate(id)),
                'C' => Ok(Outcome::KeyReused(id)),
                'B' => Ok(Outcome::BacklogFull),
                'N' => Ok(Outcome::NoGroup),
                'W' => Ok(Outcome::NoGroups),
                'F' => Ok(Outcome::DedupFull),
                'O' => Ok(Outcome::EarlierRefused),
                _ => Err(wrong()),
            }
        })
        .collect::<Result<_, _>>()?;
    if found.len() == expected {
        Ok(found)
    } else {
        Err(wrong())
    }
}
