//! Ending and extending leases: batches of outcomes, each judged on its own.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use redis::Cmd;

use crate::{
    connection::{Purpose, Store},
    error::StoreError,
    fetch::ReadLane,
    keys::{GroupKey, Shard},
    lease::{Lease, parse_entry_id},
    reply,
    scripts::{ACK, Call, EXTEND, KEY_UNBLOCK, SETTLE},
};

/// Most items of one script call: what a script may do within a few ms, and what Lua unpacks.
const ITEMS_MAX: usize = 1_000;
/// What begins the holder of an ordering key that a dead letter blocks: no group's name does.
const BLOCKS: char = '!';
/// Ordering keys read per step of a search for those that are blocked.
const SCAN_COUNT: u64 = 1_000;
/// How often lanes are read again for one batch.
const LANES_TRIES: u32 = 3;
/// The script's letter for an item that needs a lane that the caller did not name.
const LANE_UNKNOWN: char = 'k';
/// The script's letter for an item that comes behind all that a call may read.
const NOT_YET: char = 'b';
/// Bytes of entries that a call is to read, as far as their sizes are known.
const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What is to become of a delivery.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Handled.
    Ack,
    /// A task of a workflow or a tracked message is handled, and this came out. Of other messages
    /// nothing is kept.
    Complete {
        /// What came out.
        result: Bytes,
    },
    /// A task of a workflow goes on only once its question is answered.
    Suspend {
        /// The question and what its answer needs.
        asked: Bytes,
    },
    /// A failed attempt: backoff, or the dead letters when attempts are used up.
    Nack {
        /// Backoff in ms, instead of the policy's.
        delay_ms: Option<u64>,
        /// Jitter in millionths of the backoff, where the policy decides it.
        jitter: u32,
        /// Failure category.
        category: String,
        /// What is kept of the attempt.
        record: Bytes,
    },
    /// Given back uncounted.
    Release {
        /// Not delivered again before so many ms.
        retry_after_ms: u64,
    },
    /// To the dead letters now.
    Reject {
        /// Failure category.
        category: String,
        /// What is kept of the attempt.
        record: Bytes,
    },
    /// Its time to live has passed: to the dead letters as `expired`.
    Expire,
    /// Its group is deleted or purged: to the dead letters as `cancelled`.
    Cancel,
    /// Its consumer was lost at work: a failed attempt.
    Lose {
        /// Only if idle for so many ms; 0 for at once.
        idle_ms: u64,
        /// Failure category.
        category: String,
        /// What is kept of the attempt.
        record: Bytes,
    },
    /// Its consumer was lost before it began: given back uncounted.
    GiveBack {
        /// Only if idle for so many ms; 0 for at once.
        idle_ms: u64,
    },
}

impl Action {
    /// What the agent of a task gave.
    fn given(&self) -> &[u8] {
        match self {
            Self::Complete { result } => result,
            Self::Suspend { asked } => asked,
            Self::Ack
            | Self::Nack { .. }
            | Self::Release { .. }
            | Self::Reject { .. }
            | Self::Expire
            | Self::Cancel
            | Self::Lose { .. }
            | Self::GiveBack { .. } => &[],
        }
    }
}

/// One outcome for one delivery.
#[derive(Debug, Clone, PartialEq)]
pub struct Settle {
    /// The delivery.
    pub lease: Lease,
    /// The caller's connection, checked unless 0.
    pub attach: u64,
    /// False for recovery, which acts on whoever owns the entry: the session is not checked.
    pub check_session: bool,
    /// What is to become of it.
    pub action: Action,
}

/// How an outcome was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Taken.
    Done,
    /// Taken, and the message went to the dead letters.
    Dead,
    /// Not pending: settled before. Nothing changed.
    Gone,
    /// The lease is another's by now. Nothing changed.
    Stale,
    /// The session or its connection is an old one; of an extension: the name is another
    /// session's. Nothing changed.
    Fenced,
    /// Of an extension: the session is no member any more, or has a newer connection. Nothing
    /// changed.
    Detached,
    /// Not idle for long enough, or within the grace after a restart. Nothing changed.
    Spared,
    /// The lane is none of the group's. Nothing changed.
    Unknown,
}

impl Verdict {
    fn of(letter: char) -> Result<Self, StoreError> {
        match letter {
            'o' => Ok(Self::Done),
            'd' => Ok(Self::Dead),
            'g' => Ok(Self::Gone),
            's' => Ok(Self::Stale),
            'f' => Ok(Self::Fenced),
            'n' => Ok(Self::Detached),
            'i' => Ok(Self::Spared),
            _ => Err(StoreError::reply("settle")),
        }
    }
}

/// What a settle must know of its group.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "three settings that have nothing to do with each other, named where they are set"
)]
pub struct SettleGroup<'a> {
    /// Its name.
    pub name: &'a str,
    /// All lanes that it reads.
    pub lanes: &'a [ReadLane],
    /// Ageing of priorities in ms; 0 for strict priorities.
    pub ageing_ms: u64,
    /// Attempts before a message is dead.
    pub max_attempts: u32,
    /// First backoff in ms.
    pub initial_backoff_ms: u64,
    /// Longest backoff in ms.
    pub max_backoff_ms: u64,
    /// On disk before the answer.
    pub durable: bool,
    /// Whether settled messages are kept. Where not, the last settle of an entry deletes it.
    pub keep: bool,
    /// Whether a message that dies of its failures blocks its ordering key.
    pub block: bool,
}

/// A run of deliveries of one consumer in one lane: what one range check covers.
struct Section<'a> {
    lane: usize,
    lease: &'a Lease,
    attach: u64,
    /// Positions in the caller's list, by rising entry id.
    items: Vec<usize>,
    work_ms: u64,
}

/// Places of items that a call did not judge.
#[derive(Debug, Default)]
struct Unjudged {
    /// They need lanes read again.
    lane_unknown: Vec<usize>,
    /// They come in the next call.
    not_yet: Vec<usize>,
}

/// A call that is sent again when its answer is lost, and then answers what it answered.
struct Numbered {
    key: String,
    call: u64,
}

/// The calls of one settle: made again with it, the same items are answered what they were answered
/// at first, as long as the shard keeps the last 64 answers of this process.
#[derive(Debug, Default)]
pub struct Ticket {
    made: Vec<Made>,
    next: usize,
}

/// One call of a settle: what it judged, by which script, under which number.
#[derive(Debug, PartialEq, Eq)]
struct Made {
    is_ack: bool,
    order: Vec<usize>,
    number: u64,
}

impl Ticket {
    /// The number of the next call: that of the same call before, else a fresh one.
    fn number(&mut self, is_ack: bool, order: &[usize], fresh: u64) -> u64 {
        let place = self.next;
        self.next += 1;
        if let Some(made) = self.made.get(place)
            && made.is_ack == is_ack
            && made.order == order
        {
            return made.number;
        }
        // Whatever followed it was judged otherwise.
        self.made.truncate(place);
        self.made.push(Made {
            is_ack,
            order: order.to_vec(),
            number: fresh,
        });
        fresh
    }
}

impl Store {
    /// Settles a batch; verdicts are in the order of the items. Where an answer is lost, the call
    /// is sent again under its number and answers what the first one did.
    ///
    /// # Errors
    /// As in `StoreError`; `Unknown` when part of it may be done.
    pub async fn settle(
        &self,
        shard: &Shard,
        group: SettleGroup<'_>,
        items: &[Settle],
        now_ms: u64,
    ) -> Result<Vec<Verdict>, StoreError> {
        let mut ticket = Ticket::default();
        self.settle_again(shard, group, (items, &mut ticket), now_ms)
            .await
    }

    /// As `settle`, under a ticket of its own: where it failed, the same items may be settled again
    /// under it, and what was done the first time is answered as it was then.
    ///
    /// # Errors
    /// As `settle`.
    pub async fn settle_again(
        &self,
        shard: &Shard,
        group: SettleGroup<'_>,
        (items, ticket): (&[Settle], &mut Ticket),
        now_ms: u64,
    ) -> Result<Vec<Verdict>, StoreError> {
        ticket.next = 0;
        let mut verdicts = Vec::with_capacity(items.len());
        for some in items.chunks(ITEMS_MAX) {
            verdicts.extend(
                self.settle_some(shard, group, (some, ticket), now_ms)
                    .await?,
            );
        }
        Ok(verdicts)
    }

    async fn settle_some(
        &self,
        shard: &Shard,
        group: SettleGroup<'_>,
        (items, ticket): (&[Settle], &mut Ticket),
        now_ms: u64,
    ) -> Result<Vec<Verdict>, StoreError> {
        let mut verdicts = vec![None; items.len()];
        let every: Vec<usize> = (0..items.len()).collect();
        let leases = items.iter().map(|item| &item.lease);
        let lanes = self
            .lanes_of_leases(shard, group.name, group.lanes, leases)
            .await?;
        let group = SettleGroup {
            lanes: lanes.as_deref().unwrap_or(group.lanes),
            ..group
        };
        let mut left = self
            .settle_once(
                shard,
                group,
                (items, &every),
                (&mut verdicts, ticket),
                now_ms,
            )
            .await?;
        // Where the next entry of an ordering key lies in a lane made meanwhile.
        for _ in 0..LANES_TRIES {
            if left.is_empty() {
                break;
            }
            let lanes = self.lanes(shard).await?.of_group(shard, group.name);
            let group = SettleGroup {
                lanes: &lanes,
                ..group
            };
            left = self
                .settle_once(
                    shard,
                    group,
                    (items, &left),
                    (&mut verdicts, ticket),
                    now_ms,
                )
                .await?;
        }
        if left.is_empty() {
            Ok(verdicts
                .into_iter()
                .map(|verdict| verdict.unwrap_or(Verdict::Unknown))
                .collect())
        } else {
            Err(StoreError::Unavailable {
                detail: "the lanes keep changing".into(),
            })
        }
    }

    /// The lanes of a group anew where a lease names one that the caller does not know: another
    /// gateway may have delivered from a lane younger than the caller's reading.
    async fn lanes_of_leases(
        &self,
        shard: &Shard,
        group: &str,
        known: &[ReadLane],
        mut leases: impl Iterator<Item = &Lease>,
    ) -> Result<Option<Arc<[ReadLane]>>, StoreError> {
        if leases.all(|lease| lane_of(known, &lease.lane).is_some()) {
            return Ok(None);
        }
        Ok(Some(self.lanes(shard).await?.of_group(shard, group)))
    }

    /// Settles the items at these places; answers the places that need lanes read again.
    async fn settle_once(
        &self,
        shard: &Shard,
        group: SettleGroup<'_>,
        (items, places): (&[Settle], &[usize]),
        (verdicts, ticket): (&mut [Option<Verdict>], &mut Ticket),
        now_ms: u64,
    ) -> Result<Vec<usize>, StoreError> {
        let mut plain = Vec::new();
        let mut other = Vec::new();
        for place in places {
            let Some(item) = items.get(*place) else {
                continue;
            };
            let Some(lane) = lane_of(group.lanes, &item.lease.lane) else {
                continue;
            };
            let is_scripted = group
                .lanes
                .get(lane)
                .is_some_and(|lane| lane.lane.lane.is_scripted());
            // A redelivered entry has a failure history to remove, and one of unknown size must be
            // read: the other script does that.
            let is_first = item.lease.count == 1 && item.lease.bytes > 0;
            if item.action == Action::Ack && !is_scripted && is_first {
                plain.push((*place, lane));
            } else {
                other.push((*place, lane));
            }
        }
        let mut left = Vec::new();
        if !plain.is_empty() {
            let sections = sections(items, &plain, now_ms);
            let order = in_order(&sections);
            let kept = self.numbered(shard, ticket, true, &order);
            let call = ack_call(shard, group, items, &sections, kept);
            let judged = self.run_judged(call, group.durable, &order, verdicts);
            left.extend(judged.await?.lane_unknown);
        }
        // Each of the others is read, and of an ordering key the next one too.
        while !other.is_empty() {
            let rest = other.split_off(readable(items, group.lanes, &other));
            let order: Vec<usize> = other.iter().map(|(position, _)| *position).collect();
            let kept = self.numbered(shard, ticket, false, &order);
            let call = settle_call(shard, group, (items, other.as_slice()), now_ms, kept);
            let judged = self.run_judged(call, group.durable, &order, verdicts);
            let judged = judged.await?;
            left.extend(judged.lane_unknown);
            other.retain(|(position, _)| judged.not_yet.contains(position));
            if other.len() == order.len() {
                return Err(StoreError::reply("settle"));
            }
            other.extend(rest);
        }
        Ok(left)
    }

    /// A number for a call on a shard, and where its verdicts are kept.
    fn numbered(
        &self,
        shard: &Shard,
        ticket: &mut Ticket,
        is_ack: bool,
        order: &[usize],
    ) -> Numbered {
        let (process, fresh) = self.number_call();
        let call = ticket.number(is_ack, order, fresh);
        let key = shard.verdicts(process);
        Numbered { key, call }
    }

    /// Starts leases anew; verdicts are in the order of the items (lease, attach).
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn extend(
        &self,
        shard: &Shard,
        group: &str,
        lanes: &[ReadLane],
        items: &[(Lease, u64)],
    ) -> Result<Vec<Verdict>, StoreError> {
        let mut verdicts = Vec::with_capacity(items.len());
        for some in items.chunks(ITEMS_MAX) {
            verdicts.extend(self.extend_some(shard, group, lanes, some).await?);
        }
        Ok(verdicts)
    }

    async fn extend_some(
        &self,
        shard: &Shard,
        group: &str,
        lanes: &[ReadLane],
        items: &[(Lease, u64)],
    ) -> Result<Vec<Verdict>, StoreError> {
        let settles: Vec<Settle> = items
            .iter()
            .map(|(lease, attach)| Settle {
                lease: lease.clone(),
                attach: *attach,
                check_session: true,
                action: Action::Ack,
            })
            .collect();
        let mut verdicts = vec![None; items.len()];
        let leases = items.iter().map(|(lease, _)| lease);
        let read = self.lanes_of_leases(shard, group, lanes, leases).await?;
        let lanes = read.as_deref().unwrap_or(lanes);
        let known: Vec<(usize, usize)> = settles
            .iter()
            .enumerate()
            .filter_map(|(position, item)| Some((position, lane_of(lanes, &item.lease.lane)?)))
            .collect();
        if known.is_empty() {
            return Ok(vec![Verdict::Unknown; items.len()]);
        }
        let sections = sections(&settles, &known, 0);
        let mut call = Call::new(&EXTEND);
        call.key(shard.group(group, GroupKey::Members));
        let numbers = lane_keys(&mut call, lanes, &sections);
        call.text(group).count(sections.len());
        for (section, number) in sections.iter().zip(numbers) {
            call.count(number)
                .text(&section.lease.consumer)
                .text(&section.lease.session);
            call.number(section.attach).count(section.items.len());
            add_items(&mut call, &settles, section);
        }
        self.run_judged(call, false, &in_order(&sections), &mut verdicts)
            .await?;
        Ok(verdicts
            .into_iter()
            .map(|verdict| verdict.unwrap_or(Verdict::Unknown))
            .collect())
    }

    /// Lets an ordering key go on that a dead letter blocks; false where none does.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn unblock_key(
        &self,
        shard: &Shard,
        (group, ageing_ms): (&str, u64),
        order: &str,
    ) -> Result<bool, StoreError> {
        for _ in 0..LANES_TRIES {
            let lanes = self.lanes(shard).await?.of_group(shard, group);
            let mut call = Call::new(&KEY_UNBLOCK);
            for key in [GroupKey::Busy, GroupKey::Parked, GroupKey::Counters] {
                call.key(shard.group(group, key));
            }
            for lane in &*lanes {
                call.key(&lane.stream).key(&lane.ready);
            }
            call.text(group).number(ageing_ms).text(order);
            call.count(lanes.len());
            for lane in &*lanes {
                call.text(&lane.reference);
            }
            let value = self.run_safely(Purpose::Control, call).await?;
            match reply::status("key_unblock", value)?.0.as_str() {
                "UNBLOCKED" => return Ok(true),
                "FREE" => return Ok(false),
                "LANES" => {},
                _ => return Err(StoreError::reply("key_unblock")),
            }
        }
        Err(StoreError::Unavailable {
            detail: "the lanes keep changing".into(),
        })
    }

    /// Up to `limit` ordering keys that a dead letter blocks, by name.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn blocked_keys(
        &self,
        shard: &Shard,
        group: &str,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        if self.blocked_count(shard, group).await? == 0 {
            return Ok(Vec::new());
        }
        let (mut keys, mut cursor) = (BTreeSet::new(), "0".to_owned());
        while keys.len() < limit {
            let mut step = Cmd::new();
            step.arg("HSCAN").arg(shard.group(group, GroupKey::Busy));
            step.arg(&cursor).arg("COUNT").arg(SCAN_COUNT);
            let [next, rows] = self.command(Purpose::Control, step).await?.array()?;
            let blocked = reply::pairs(rows)?
                .into_iter()
                .filter(|(_, holder)| holder.starts_with(BLOCKS));
            keys.extend(blocked.map(|(key, _)| key));
            cursor = next.text()?;
            if cursor == "0" {
                break;
            }
        }
        Ok(keys.into_iter().take(limit).collect())
    }

    /// How many ordering keys of a group a dead letter blocks.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn blocked_count(&self, shard: &Shard, group: &str) -> Result<u64, StoreError> {
        let mut read = Cmd::new();
        read.arg("HGET");
        read.arg(shard.group(group, GroupKey::Counters))
            .arg("blocked");
        let count = self.command(Purpose::Control, read).await?.maybe_text()?;
        Ok(count.and_then(|count| count.parse().ok()).unwrap_or(0))
    }

    /// Runs a call whose reply has a letter per item; answers the places that have no verdict yet.
    async fn run_judged(
        &self,
        call: Call,
        durable: bool,
        order: &[usize],
        verdicts: &mut [Option<Verdict>],
    ) -> Result<Unjudged, StoreError> {
        let value = if durable {
            self.run_durably(Purpose::Settle, call).await?
        } else {
            self.run_safely(Purpose::Settle, call).await?
        };
        let (word, parts) = reply::status("settle", value)?;
        let letters = reply::detail("settle", parts)?;
        if word != "OK" || letters.len() != order.len() {
            return Err(StoreError::reply("settle"));
        }
        let mut left = Unjudged::default();
        for (position, letter) in order.iter().zip(letters.chars()) {
            if letter == LANE_UNKNOWN {
                left.lane_unknown.push(*position);
            } else if letter == NOT_YET {
                left.not_yet.push(*position);
            } else if let Some(verdict) = verdicts.get_mut(*position) {
                *verdict = Some(Verdict::of(letter)?);
            }
        }
        Ok(left)
    }
}

fn lane_of(lanes: &[ReadLane], reference: &str) -> Option<usize> {
    lanes.iter().position(|lane| *lane.reference == *reference)
}

/// How many of these items one call may read, at least one.
fn readable(items: &[Settle], lanes: &[ReadLane], chosen: &[(usize, usize)]) -> usize {
    let mut bytes = 0;
    for (count, (position, lane)) in chosen.iter().enumerate() {
        let size = items.get(*position).map_or(0, |item| item.lease.bytes);
        let is_ordered = lanes
            .get(*lane)
            .is_some_and(|lane| lane.lane.lane.is_ordered());
        bytes += u64::from(size) * if is_ordered { 2 } else { 1 };
        // What an agent gave is sent along.
        bytes += items
            .get(*position)
            .map_or(0, |item| item.action.given().len() as u64);
        if bytes > BYTES_MAX && count > 0 {
            return count;
        }
    }
    chosen.len()
}

fn in_order(sections: &[Section<'_>]) -> Vec<usize> {
    sections
        .iter()
        .flat_map(|section| section.items.iter().copied())
        .collect()
}

fn sections<'a>(items: &'a [Settle], chosen: &[(usize, usize)], now_ms: u64) -> Vec<Section<'a>> {
    let mut found: Vec<Section<'a>> = Vec::new();
    for (position, lane) in chosen {
        let Some(item) = items.get(*position) else {
            continue;
        };
        let same = |section: &&mut Section<'a>| {
            section.lane == *lane
                && section.lease.consumer == item.lease.consumer
                && section.lease.session == item.lease.session
                && section.attach == item.attach
        };
        let work_ms = now_ms.saturating_sub(item.lease.delivered_ms);
        match found.iter_mut().rev().find(same) {
            Some(section) => {
                section.items.push(*position);
                section.work_ms += work_ms;
            },
            None => found.push(Section {
                lane: *lane,
                lease: &item.lease,
                attach: item.attach,
                items: vec![*position],
                work_ms,
            }),
        }
    }
    for section in &mut found {
        section.items.sort_by_cached_key(|position| {
            items
                .get(*position)
                .and_then(|item| parse_entry_id(&item.lease.id))
        });
    }
    found
}

/// Adds the streams that the sections need as keys; answers each section's lane number.
fn lane_keys(call: &mut Call, lanes: &[ReadLane], sections: &[Section<'_>]) -> Vec<usize> {
    let mut used: Vec<usize> = Vec::new();
    let numbers = sections
        .iter()
        .map(
            |section| match used.iter().position(|lane| *lane == section.lane) {
                Some(number) => number + 1,
                None => {
                    used.push(section.lane);
                    used.len()
                },
            },
        )
        .collect();
    for lane in used {
        if let Some(lane) = lanes.get(lane) {
            call.key(&lane.stream);
        }
    }
    numbers
}

fn add_items(call: &mut Call, items: &[Settle], section: &Section<'_>) {
    for item in section
        .items
        .iter()
        .filter_map(|position| items.get(*position))
    {
        call.text(&item.lease.id).number(item.lease.count);
    }
}

fn ack_call(
    shard: &Shard,
    group: SettleGroup<'_>,
    items: &[Settle],
    sections: &[Section<'_>],
    numbered: Numbered,
) -> Call {
    let mut call = Call::new(&ACK);
    call.key(shard.group(group.name, GroupKey::Members));
    call.key(shard.group(group.name, GroupKey::Counters));
    call.key(numbered.key).key(shard.sizes());
    let numbers = lane_keys(&mut call, group.lanes, sections);
    call.text(group.name).number(0).number(numbered.call);
    call.count(sections.len()).flag(group.keep);
    for (section, number) in sections.iter().zip(numbers) {
        call.count(number)
            .text(&section.lease.lane)
            .text(&section.lease.consumer)
            .text(&section.lease.session);
        call.number(section.attach)
            .number(section.work_ms)
            .count(section.items.len());
        for item in section
            .items
            .iter()
            .filter_map(|position| items.get(*position))
        {
            call.text(&item.lease.id);
            call.number(u64::from(item.lease.bytes));
        }
    }
    call
}

fn settle_call(
    shard: &Shard,
    group: SettleGroup<'_>,
    (items, chosen): (&[Settle], &[(usize, usize)]),
    now_ms: u64,
    numbered: Numbered,
) -> Call {
    let mut call = Call::new(&SETTLE);
    for key in [
        GroupKey::Members,
        GroupKey::Counters,
        GroupKey::Delayed,
        GroupKey::Busy,
    ] {
        call.key(shard.group(group.name, key));
    }
    call.key(shard.group(group.name, GroupKey::Parked));
    call.key(shard.group(group.name, GroupKey::Failures));
    call.key(shard.dead()).key(shard.clock()).key(numbered.key);
    call.key(shard.sizes());
    call.key(shard.tasks()).key(shard.settled());
    for lane in group.lanes {
        call.key(&lane.stream).key(&lane.ready);
    }
    if group.lanes.iter().any(|lane| lane.lane.lane.is_tracked()) {
        call.key(shard.outcomes());
    }
    call.text(group.name)
        .number(group.ageing_ms)
        .number(u64::from(group.max_attempts))
        .number(group.initial_backoff_ms)
        .number(group.max_backoff_ms)
        .number(0)
        .number(numbered.call)
        .count(group.lanes.len())
        .count(chosen.len())
        .flag(group.keep)
        .flag(group.block);
    for lane in group.lanes {
        call.text(&lane.reference);
    }
    for (position, lane) in chosen {
        let Some(item) = items.get(*position) else {
            continue;
        };
        let lease = &item.lease;
        call.count(lane + 1)
            .text(&lease.id)
            .number(lease.count)
            .text(&lease.consumer);
        call.text(if item.check_session {
            &*lease.session
        } else {
            "*"
        });
        call.number(item.attach);
        add_action(
            &mut call,
            &item.action,
            now_ms.saturating_sub(lease.delivered_ms),
        );
    }
    call
}

fn add_action(call: &mut Call, action: &Action, work_ms: u64) {
    let none = Bytes::new();
    match action {
        Action::Ack => call.text("a").number(work_ms).text("").bytes(none),
        Action::Complete { result } => call
            .text("a")
            .number(work_ms)
            .text("")
            .bytes(result.clone()),
        Action::Suspend { asked } => call.text("s").number(0).text("").bytes(asked.clone()),
        Action::Nack {
            delay_ms: Some(delay),
            category,
            record,
            ..
        } => call
            .text("n")
            .number(*delay)
            .text(category)
            .bytes(record.clone()),
        Action::Nack {
            delay_ms: None,
            jitter,
            category,
            record,
        } => call
            .text("n")
            .text(format!("-{}", u64::from(*jitter) + 1))
            .text(category)
            .bytes(record.clone()),
        Action::Release { retry_after_ms } => {
            call.text("r").number(*retry_after_ms).text("").bytes(none)
        },
        Action::Reject { category, record } => call
            .text("j")
            .number(0)
            .text(category)
            .bytes(record.clone()),
        Action::Expire => call.text("x").number(0).text("expired").bytes(none),
        Action::Cancel => call.text("c").number(0).text("cancelled").bytes(none),
        Action::Lose {
            idle_ms,
            category,
            record,
        } => call
            .text("l")
            .number(*idle_ms)
            .text(category)
            .bytes(record.clone()),
        Action::GiveBack { idle_ms } => call.text("u").number(*idle_ms).text("").bytes(none),
    };
}
