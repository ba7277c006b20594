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
/// What begins the keys of replays. They have as many slices of their own behind the others: a
/// replay that fills them waits, and publishers have room all the while.
pub const REPLAY_MARK: char = '~';

/// One message as the store takes it.
#[derive(Debug, Clone)]
pub struct Item {
    /// Lanes that it goes to; the first decides its reply. None: the caller has refused it, and
    /// its producer's sequence is noted as refused, so that it is not taken for stored later.
    pub lanes: Arc<[LaneRef]>,
    /// Header and envelope.
    pub body: Bytes,
    /// Producer and its sequence for this message.
    pub producer: Option<(Arc<str>, u64)>,
    /// What makes a second publish of it a duplicate.
    pub idempotency: Option<Idempotency>,
    /// Empty for none. Where an earlier message of the key is refused, this one is too.
    pub ordering_key: String,
    /// In ms since 1970; 0 for at once.
    pub not_before_ms: u64,
}

/// What makes a second publish of a message a duplicate, and what that is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The key.
    pub key: String,
    /// Hash of what else must be the same.
    pub fingerprint: u64,
    /// Id of the message.
    pub message_id: String,
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
    /// Its group holds `max_backlog_bytes` of unsettled messages.
    BacklogBytesFull,
    /// Its group does not exist.
    NoGroup,
    /// Its stream has no groups, and does not buffer without.
    NoGroups,
    /// Too many idempotency keys are remembered.
    DedupFull,
    /// An earlier message of its ordering key was refused.
    EarlierRefused,
    /// The caller had refused it.
    RefusedBefore,
    /// A tracked message of its id is known.
    TrackedBefore,
}

/// A flush as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flushed {
    /// One outcome per item.
    Done(Vec<Outcome>),
    /// `groups` is not what the shard has: read it again.
    GroupsChanged,
    /// The stream is being deleted: nothing was stored.
    Closed,
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
    /// Most bytes of unsettled messages of a group. The message that passes it is taken still.
    pub max_backlog_bytes: u64,
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
                "CLOSED" => return Ok(Flushed::Closed),
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
    let first = if key.starts_with(REPLAY_MARK) {
        SLICES
    } else {
        0
    };
    first + (hash ^ (hash >> 32)) % SLICES
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

/// The runs of a flush, and what they refer to by number.
struct Runs<'a> {
    args: Call,
    count: usize,
    lanes: Numbers<&'a LaneRef>,
    producers: Numbers<&'a str>,
    slices: Numbers<u64>,
}

impl Item {
    fn is_tracked(&self) -> bool {
        self.lanes.iter().any(|lane| lane.lane.is_tracked())
    }

    /// Whether it asks for nothing but its lane: such items ride in runs.
    fn is_plain(&self) -> bool {
        self.lanes.len() == 1
            && !self.is_tracked()
            && self.idempotency.is_none()
            && self.ordering_key.is_empty()
            && self.not_before_ms == 0
    }

    /// Whether it goes on where another plain item ended.
    fn follows(&self, other: &Self) -> bool {
        let producers = match (&other.producer, &self.producer) {
            (None, None) => true,
            (Some((before, last)), Some((after, next))) => before == after && *next == last + 1,
            (None, Some(_)) | (Some(_), None) => false,
        };
        self.is_plain() && self.lanes == other.lanes && producers
    }
}

impl<'a> Runs<'a> {
    fn of(flush: &'a Flush) -> Self {
        let mut runs = Self {
            args: Call::new(&PUBLISH),
            count: 0,
            lanes: Numbers::new(),
            producers: Numbers::new(),
            slices: Numbers::new(),
        };
        let mut rest = flush.items.as_slice();
        let mut number = 0;
        while let [first, after @ ..] = rest {
            let mut length = 1;
            if first.is_plain() {
                let mut last = first;
                for item in after.iter().take_while(|item| {
                    let goes_on = item.follows(last);
                    last = item;
                    goes_on
                }) {
                    debug_assert!(item.is_plain(), "a run holds plain items");
                    length += 1;
                }
            }
            let (run, others) = rest.split_at(length);
            if first.is_plain() {
                runs.add_plain(first, run);
            } else {
                let member = format!("{}.{}.{number}", flush.incarnation, flush.number);
                runs.add_one(first, member);
            }
            number += length;
            rest = others;
        }
        runs
    }

    fn head(&mut self, item: &'a Item, length: usize, extra: bool) {
        let lane = item.lanes.first().map_or(0, |lane| self.lanes.of(&lane));
        self.args.count(lane);
        match &item.producer {
            Some((producer, sequence)) => {
                let producer = self.producers.of(&producer.as_ref());
                self.args.count(producer).number(*sequence);
            },
            None => {
                self.args.number(0).number(0);
            },
        }
        self.args.count(length).flag(extra);
        self.count += 1;
    }

    fn add_plain(&mut self, first: &'a Item, run: &'a [Item]) {
        self.head(first, run.len(), false);
        for item in run {
            self.args.bytes(item.body.clone());
        }
    }

    fn add_one(&mut self, item: &'a Item, member: String) {
        self.head(item, 1, true);
        self.args.bytes(item.body.clone());
        match &item.idempotency {
            Some(Idempotency {
                key,
                fingerprint,
                message_id,
            }) => {
                let slice = self.slices.of(&slice_of(key));
                let value = format!("{fingerprint:016x} {message_id}");
                self.args.count(slice).text(key).text(value);
            },
            None => {
                self.args.number(0).text("").text("");
            },
        }
        self.args
            .text(&item.ordering_key)
            .number(item.not_before_ms)
            .text(member);
        for lane in item.lanes.iter().skip(1) {
            let lane = self.lanes.of(&lane);
            self.args
                .text(format!("-{lane}"))
                .number(0)
                .number(0)
                .number(0)
                .number(0);
            self.count += 1;
        }
    }
}

fn publish_call(shard: &Shard, flush: &Flush, bucket: u64) -> Call {
    let Runs {
        args,
        count,
        lanes,
        producers,
        slices,
    } = Runs::of(flush);
    let holds = lanes.order.iter().any(|lane| lane.is_held());
    let mut groups: Vec<&str> = flush.groups.iter().map(String::as_str).collect();
    for lane in &lanes.order {
        if !lane.group.is_empty() && !groups.contains(&lane.group.as_str()) {
            groups.push(&lane.group);
        }
    }
    let mut call = Call::new(&PUBLISH);
    call.key(shard.groups())
        .key(shard.lanes())
        .key(shard.flush(&flush.incarnation))
        .key(shard.producers())
        .key(shard.scheduled())
        .key(shard.bodies())
        .key(shard.sizes());
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
        // A clock that was set back by less than a bucket has used the next one already.
        call.key(shard.dedup(bucket + 1, *slice));
    }
    if lanes.order.iter().any(|lane| lane.lane.is_tracked()) {
        call.key(shard.tasks());
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
        .count(count)
        .number(flush.max_backlog_bytes);
    for lane in &lanes.order {
        call.text(lane.to_string());
    }
    for group in &groups {
        call.text(*group);
    }
    for producer in &producers.order {
        call.text(*producer);
    }
    call.append_args(args);
    call
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
                'Y' => Ok(Outcome::BacklogBytesFull),
                'N' => Ok(Outcome::NoGroup),
                'W' => Ok(Outcome::NoGroups),
                'F' => Ok(Outcome::DedupFull),
                'O' => Ok(Outcome::EarlierRefused),
                'X' => Ok(Outcome::RefusedBefore),
                'T' => Ok(Outcome::TrackedBefore),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::{Lane, LaneKind};

    fn arity(kind: LaneKind) -> (usize, usize) {
        let lane = Lane {
            kind,
            ..Lane::plain(4)
        };
        let item = Item {
            lanes: [LaneRef::of_group("g", lane)].into(),
            body: Bytes::from_static(b"m"),
            producer: None,
            idempotency: None,
            ordering_key: String::new(),
            not_before_ms: 0,
        };
        let flush = Flush {
            number: 1,
            incarnation: "i".into(),
            max_backlog: 1,
            max_backlog_bytes: 1,
            buffer_without_groups: false,
            groups: Vec::new(),
            items: vec![item],
            durable: false,
        };
        publish_call(&Shard::new("h", "n", "s", 0), &flush, 1).arity()
    }

    #[test]
    fn the_keys_of_replays_take_no_room_from_those_of_publishers() {
        for number in 0..10_000 {
            let key = format!("r/g/p4/{number}-0");
            assert!(slice_of(&key) < SLICES, "{key}");
            let replays = slice_of(&format!("{REPLAY_MARK}{key}"));
            assert!((SLICES..2 * SLICES).contains(&replays), "{key}");
        }
    }

    #[test]
    fn only_a_flush_with_a_tracked_message_pays_for_tracking() {
        // Seven keys, the lane and the counters of its group; eleven arguments, lane and group,
        // the head of the run and the body.
        assert_eq!(arity(LaneKind::Plain), (9, 19));
        // One key more, and what a message that is judged alone brings.
        assert_eq!(arity(LaneKind::Tracked), (10, 25));
    }
}
