//! Leasing messages: the script for all cases, and the plain read for the common one.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use redis::{Pipeline, Value};

use crate::{
    connection::{Purpose, Store},
    error::StoreError,
    keys::{GroupKey, Shard},
    lane::LaneRef,
    reply::{self, Reply},
    scripts::{Call, FETCH},
};

/// A lane that a group reads, with its keys made once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadLane {
    /// The lane.
    pub lane: LaneRef,
    /// Its name in scripts.
    pub reference: Arc<str>,
    /// Its stream.
    pub stream: String,
    /// The ready set that its entries come back to.
    pub ready: String,
}

/// The lanes of a shard as they were read.
#[derive(Debug, Default)]
pub struct Lanes {
    /// All of them, held ones included.
    pub all: Vec<LaneRef>,
    /// What was asked for of them: every fetch and every settle asks again.
    by_group: Mutex<HashMap<String, Arc<[ReadLane]>>>,
}

impl Lanes {
    /// These lanes.
    #[must_use]
    pub fn new(all: Vec<LaneRef>) -> Self {
        Self {
            all,
            by_group: Mutex::default(),
        }
    }

    /// Those that a group reads. `shard` is the one that they were read from.
    #[must_use]
    pub fn of_group(&self, shard: &Shard, group: &str) -> Arc<[ReadLane]> {
        let mut by_group = self.by_group.lock();
        if let Some(lanes) = by_group.get(group) {
            return lanes.clone();
        }
        let lanes: Arc<[ReadLane]> = self
            .all
            .iter()
            .filter(|lane| lane.is_read_by(group))
            .map(|lane| ReadLane {
                reference: lane.to_string().into(),
                stream: shard.lane(lane),
                ready: shard.ready(group, &lane.lane.suffix()),
                lane: lane.clone(),
            })
            .collect();
        by_group.insert(group.to_owned(), lanes.clone());
        lanes
    }
}

/// A consumer that messages are fetched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taker {
    /// Its id.
    pub consumer: Arc<str>,
    /// Its session.
    pub session: Arc<str>,
    /// Its connection; 0 for a pull consumer.
    pub attach: u64,
    /// Its sorted capabilities.
    pub capabilities: Arc<[String]>,
}

/// What to fetch.
#[derive(Debug)]
pub struct Fetch<'a> {
    /// The group.
    pub group: &'a str,
    /// The calling gateway's incarnation.
    pub gateway: &'a str,
    /// Free credit of all consumers of the group at this gateway.
    pub own_free: u64,
    /// Ageing of priorities in ms; 0 for strict priorities.
    pub ageing_ms: u64,
    /// Most leased entries of the group; 0 for no limit.
    pub group_limit: u64,
    /// How long a task is held for the consumer that last worked on its run, in ms; 0 for not.
    pub hold_ms: u64,
    /// Number of lanes of the shard as the caller knows it.
    pub known_lanes: usize,
    /// Lanes that the group reads.
    pub lanes: &'a [ReadLane],
    /// Who takes.
    pub takers: &'a [Taker],
    /// Who takes how many, in this order: (position in `takers`, count). A task may go to a taker
    /// before its turn, but never more in all than its slots say.
    pub slots: &'a [(usize, u32)],
}

/// One leased entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Position of its consumer in the call.
    pub taker: usize,
    /// Position in `lanes`; 0 for a plain read, which has one.
    pub lane: usize,
    /// Id of the entry.
    pub id: String,
    /// How often it was delivered, this time included.
    pub count: u64,
    /// Failed attempts before.
    pub failures: u32,
    /// Header and envelope.
    pub body: Bytes,
}

/// Answer of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// What was leased.
    Taken {
        /// In order of slots, but for tasks of runs that somebody works on.
        entries: Vec<Taken>,
        /// Positions in `takers` whose names are another session's.
        fenced: Vec<usize>,
        /// Positions in `takers` whose session is no member any more, or has a newer connection.
        detached: Vec<usize>,
        /// Positions in `lanes` that are left with work; `None` stands for a ready set.
        left: Vec<Option<usize>>,
        /// Entries that were read and not delivered: parked behind another of their ordering key,
        /// held for a consumer, or tasks that were decided meanwhile.
        parked: u64,
        /// In so many ms `due_delayed` makes a held task anybody's; 0 where none is held.
        due_in_ms: u64,
    },
    /// The group is paused.
    Paused,
    /// The group is absent or being deleted.
    Gone,
    /// The shard has lanes that the caller does not know.
    LanesChanged,
}

/// Answer of a plain read.
#[derive(Debug, Clone, Default)]
pub struct PlainFetched {
    /// What was leased.
    pub entries: Vec<Taken>,
    /// Newest entry of every lane of the shard, by ref.
    pub newest: Vec<(String, String)>,
    /// The lane's group is gone: nothing can be read.
    pub lost: bool,
}

impl Store {
    /// Reads which lanes a shard has.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn lanes(&self, shard: &Shard) -> Result<Lanes, StoreError> {
        let mut keys = redis::Cmd::new();
        keys.arg("HKEYS").arg(shard.lanes());
        let names = self.command(Purpose::Control, keys).await?.list()?;
        let mut all = Vec::with_capacity(names.len());
        for name in names {
            let name = name.text()?;
            let lane = name.parse().map_err(|error| StoreError::Corrupt {
                what: format!("key `lanes`: {error}"),
            })?;
            all.push(lane);
        }
        all.sort();
        Ok(Lanes::new(all))
    }

    /// Leases messages by the script. Not idempotent: what a lost reply leased is given back by the
    /// caller's reconciliation, or ends with its lease.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn fetch(&self, shard: &Shard, fetch: &Fetch<'_>) -> Result<Fetched, StoreError> {
        let value = self.run(Purpose::Fetch, fetch_call(shard, fetch)).await?;
        let (word, parts) = reply::status("fetch", value)?;
        match word.as_str() {
            "OK" => {},
            "PAUSED" => return Ok(Fetched::Paused),
            "GONE" => return Ok(Fetched::Gone),
            "LANES" => return Ok(Fetched::LanesChanged),
            _ => return Err(StoreError::reply("fetch")),
        }
        let [chunks, fenced, detached, summary] = parts
            .try_into()
            .map_err(|_error| StoreError::reply("fetch"))?;
        let mut entries = Vec::new();
        for chunk in chunks.list()? {
            read_chunk(chunk, &mut entries)?;
        }
        let [_, left, parked, due_in] = summary.array()?;
        let (parked, due_in_ms) = (parked.number()?, due_in.number()?);
        let left = left
            .list()?
            .into_iter()
            .map(|number| {
                Ok(usize::try_from(number.number()?)
                    .unwrap_or(0)
                    .checked_sub(1))
            })
            .collect::<Result<_, StoreError>>()?;
        Ok(Fetched::Taken {
            entries,
            fenced: positions(fenced)?,
            detached: positions(detached)?,
            left,
            parked,
            due_in_ms,
        })
    }

    /// Leases messages of one plain lane by pipelined reads, one for each consumer and its count:
    /// no fence, no share, no other lane. The caller uses it only for what the last script fetch
    /// showed to be the one source of work.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn fetch_plain(
        &self,
        shard: &Shard,
        group: &str,
        lane: &ReadLane,
        asks: &[(Arc<str>, u32)],
    ) -> Result<PlainFetched, StoreError> {
        let mut pipeline = Pipeline::with_capacity(asks.len() + 1);
        for (consumer, count) in asks {
            pipeline
                .cmd("XREADGROUP")
                .arg("GROUP")
                .arg(group)
                .arg(&**consumer)
                .arg("COUNT")
                .arg(*count)
                .arg("STREAMS")
                .arg(&lane.stream)
                .arg(">");
        }
        pipeline.cmd("HGETALL").arg(shard.lanes());
        let mut replies = self
            .pipeline_raw(Purpose::Fetch, pipeline)
            .await?
            .into_iter();
        let mut found = PlainFetched::default();
        for taker in 0..asks.len() {
            match replies.next() {
                Some(Value::ServerError(error)) => {
                    let error = StoreError::of_command(&error.into());
                    if !matches!(error, StoreError::Lost { .. }) {
                        return Err(error);
                    }
                    found.lost = true;
                },
                Some(Value::Nil) | None => {},
                Some(value) => {
                    for stream in Reply::new("XREADGROUP", value).list()? {
                        let entries = stream
                            .list()?
                            .pop()
                            .ok_or_else(|| StoreError::reply("fetch"))?;
                        for entry in entries.list()? {
                            let (id, body) = read_entry(entry)?;
                            found.entries.push(Taken {
                                taker,
                                lane: 0,
                                id,
                                count: 1,
                                failures: 0,
                                body,
                            });
                        }
                    }
                },
            }
        }
        if let Some(value) = replies.next() {
            found.newest = reply::pairs(Reply::new("HGETALL", value))?;
        }
        Ok(found)
    }
}

fn positions(numbers: Reply) -> Result<Vec<usize>, StoreError> {
    numbers.list()?.into_iter().map(position).collect()
}

fn position(number: Reply) -> Result<usize, StoreError> {
    usize::try_from(number.number()?)
        .ok()
        .and_then(|number| number.checked_sub(1))
        .ok_or_else(|| StoreError::reply("fetch"))
}

fn read_chunk(chunk: Reply, into: &mut Vec<Taken>) -> Result<(), StoreError> {
    let mut parts = chunk.list()?.into_iter();
    let mut next = || parts.next().ok_or_else(|| StoreError::reply("fetch"));
    let (taker, lane, entries) = (position(next()?)?, position(next()?)?, next()?.list()?);
    let count = parts.next().map_or(Ok(1), Reply::number)?;
    let failures = parts.next().map_or(Ok(0), Reply::number)?;
    for entry in entries {
        let (id, body) = read_entry(entry)?;
        let failures = u32::try_from(failures).unwrap_or(u32::MAX);
        into.push(Taken {
            taker,
            lane,
            id,
            count,
            failures,
            body,
        });
    }
    Ok(())
}

/// Reads `[id, [field, value]]`.
pub(crate) fn read_entry(entry: Reply) -> Result<(String, Bytes), StoreError> {
    let (id, body) = entry.entry()?;
    Ok((id, Bytes::from(body)))
}

fn fetch_call(shard: &Shard, fetch: &Fetch<'_>) -> Call {
    let mut call = Call::new(&FETCH);
    call.key(shard.groups()).key(shard.lanes());
    for key in [
        GroupKey::Served,
        GroupKey::Members,
        GroupKey::Counters,
        GroupKey::Busy,
    ] {
        call.key(shard.group(fetch.group, key));
    }
    for key in [GroupKey::Parked, GroupKey::Failures, GroupKey::Credit] {
        call.key(shard.group(fetch.group, key));
    }
    call.key(shard.tasks()).key(shard.settled());
    for key in [
        GroupKey::Delayed,
        GroupKey::Held,
        GroupKey::Affinity,
        GroupKey::AffinityOld,
    ] {
        call.key(shard.group(fetch.group, key));
    }
    for lane in fetch.lanes {
        call.key(&lane.stream).key(&lane.ready);
    }
    call.text(fetch.group)
        .text(fetch.gateway)
        .number(fetch.own_free)
        .number(fetch.ageing_ms)
        .number(fetch.group_limit)
        .count(fetch.known_lanes)
        .number(0)
        .count(fetch.lanes.len())
        .count(fetch.takers.len())
        .count(fetch.slots.len())
        .number(fetch.hold_ms);
    let (classes, class_of) = classes(fetch);
    for lane in fetch.lanes {
        call.text(&*lane.reference);
        let serves: String = classes
            .iter()
            .map(|taker| {
                if lane.lane.lane.serves(&taker.consumer, &taker.capabilities) {
                    '1'
                } else {
                    '0'
                }
            })
            .collect();
        call.text(serves);
    }
    let mut rooms = vec![0_u64; fetch.takers.len()];
    for (taker, count) in fetch.slots {
        if let Some(room) = rooms.get_mut(*taker) {
            *room += u64::from(*count);
        }
    }
    for ((taker, class), room) in fetch.takers.iter().zip(class_of).zip(rooms) {
        call.text(&taker.consumer)
            .text(&taker.session)
            .number(taker.attach)
            .count(class + 1)
            .number(room);
    }
    for (taker, count) in fetch.slots {
        call.count(taker + 1).number(u64::from(*count));
    }
    call
}

/// Takers that the same lanes serve share a class, so that the script compares one letter.
fn classes<'a>(fetch: &Fetch<'a>) -> (Vec<&'a Taker>, Vec<usize>) {
    let addressed = |taker: &Taker| {
        fetch
            .lanes
            .iter()
            .any(|lane| *lane.lane.lane.consumer == *taker.consumer)
    };
    let mut classes: Vec<&Taker> = Vec::new();
    let mut class_of = Vec::with_capacity(fetch.takers.len());
    for taker in fetch.takers {
        let same = |class: &&Taker| {
            class.capabilities == taker.capabilities && !addressed(taker) && !addressed(class)
        };
        let class = classes.iter().position(same).unwrap_or_else(|| {
            classes.push(taker);
            classes.len() - 1
        });
        class_of.push(class);
    }
    (classes, class_of)
}
