//! Looking at the unsettled messages of a group without taking any.

use bytes::Bytes;
use redis::{Cmd, Pipeline};

use crate::{
    connection::{Purpose, Store},
    error::StoreError,
    fetch::{ReadLane, read_entry},
    keys::Shard,
    members::{PARKED, PLACEHOLDER, Pending},
};

/// Where an unsettled message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Never delivered.
    Waiting,
    /// Held by a consumer.
    Leased,
    /// To be delivered again at once.
    Ready,
    /// Waiting out a backoff.
    Delayed,
    /// Waiting for another message of its ordering key.
    Parked,
    /// Published with a delay that is not over.
    Scheduled,
}

/// The parts of a look, in order.
const PARTS: [&[Place]; 3] = [
    &[Place::Leased, Place::Ready, Place::Delayed, Place::Parked],
    &[Place::Waiting],
    &[Place::Scheduled],
];
/// Steps of one page: beyond them the caller gets what was found so far, and a cursor.
const STEPS_MAX: u32 = 50;
/// Deliveries looked at per step; payloads are read of those alone that are shown.
const PENDING_STEP: u64 = 1_000;

/// One unsettled message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Where it is.
    pub place: Place,
    /// Who holds it; empty unless leased.
    pub consumer: String,
    /// How often it was delivered.
    pub deliveries: u64,
    /// Since its last delivery or extension, in ms.
    pub idle_ms: u64,
    /// Header and envelope; empty where the entry is gone, or what is stored is none.
    pub body: Bytes,
}

/// One page of a look.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// What was seen.
    pub seen: Vec<Seen>,
    /// Where the next page begins; empty at the end.
    pub next: String,
}

impl Store {
    /// Looks at one page. A cursor is `<part>|<lane>|<id>`, with the parts pending, waiting and
    /// scheduled in this order. A page may hold fewer than asked, even none, and still have a
    /// cursor: what is searched for one page is bounded.
    ///
    /// # Errors
    /// As in `StoreError`; `Refused` for a cursor that is none.
    pub async fn peek(
        &self,
        shard: &Shard,
        group: &str,
        lanes: &[ReadLane],
        place: Option<Place>,
        page: (u64, &str),
    ) -> Result<Page, StoreError> {
        let (limit, cursor) = page;
        let (mut part, mut lane, mut from) = parse_cursor(cursor)?;
        let (mut found, mut steps) = (Page::default(), 0);
        while let Some(places) = PARTS.get(part) {
            let can_match = place.is_none_or(|place| places.contains(&place));
            let lanes_of_part = match part {
                _ if !can_match => 0,
                2 => 1,
                _ => lanes.len(),
            };
            while lane < lanes_of_part {
                let left = limit.saturating_sub(found.seen.len() as u64);
                if left == 0 || steps == STEPS_MAX {
                    found.next = format!("{part}|{lane}|{from}");
                    return Ok(found);
                }
                steps += 1;
                let (seen, next) = match part {
                    0 => {
                        let at = (lane, from.as_str());
                        self.peek_pending(group, lanes, at, place, left).await?
                    },
                    1 => self.peek_waiting(group, lanes, lane, (&from, left)).await?,
                    _ => self.peek_scheduled(shard, group, (&from, left)).await?,
                };
                found.seen.extend(seen);
                match next {
                    Some(next) => from = next,
                    None => {
                        lane += 1;
                        from.clear();
                    },
                }
            }
            part += 1;
            lane = 0;
            from.clear();
        }
        Ok(found)
    }

    async fn peek_pending(
        &self,
        group: &str,
        lanes: &[ReadLane],
        (lane, from): (usize, &str),
        place: Option<Place>,
        limit: u64,
    ) -> Result<(Vec<Seen>, Option<String>), StoreError> {
        let start = if from.is_empty() {
            "-".to_owned()
        } else {
            format!("({from}")
        };
        let step = if place.is_some() { PENDING_STEP } else { limit };
        let read = self
            .pending(group, lanes, lane, (&start, step), None)
            .await?;
        let is_end = (read.len() as u64) < step;
        let mut next = read
            .last()
            .filter(|_| !is_end)
            .map(|entry| entry.id.clone());
        let is_wanted = |entry: &Pending| place.is_none_or(|place| place == place_of(entry));
        let mut wanted: Vec<Pending> = read.into_iter().filter(is_wanted).collect();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        if wanted.len() > limit {
            wanted.truncate(limit);
            next = wanted.last().map(|entry| entry.id.clone());
        }
        let Some(read) = lanes.get(lane).filter(|_| !wanted.is_empty()) else {
            return Ok((Vec::new(), next));
        };
        let mut pipeline = Pipeline::new();
        for entry in &wanted {
            pipeline
                .cmd("XRANGE")
                .arg(&read.stream)
                .arg(&entry.id)
                .arg(&entry.id);
        }
        let bodies = self.pipeline(Purpose::Control, pipeline).await?;
        let mut seen = Vec::with_capacity(wanted.len());
        for (entry, body) in wanted.into_iter().zip(bodies) {
            let place = place_of(&entry);
            let body = match body.list()?.into_iter().next() {
                Some(entry) => read_entry(entry)?.1,
                None => Bytes::new(),
            };
            let consumer = if place == Place::Leased {
                entry.owner
            } else {
                String::new()
            };
            let (deliveries, idle_ms) = (entry.count, entry.idle_ms);
            seen.push(Seen {
                place,
                consumer,
                deliveries,
                idle_ms,
                body,
            });
        }
        Ok((seen, next))
    }

    async fn peek_waiting(
        &self,
        group: &str,
        lanes: &[ReadLane],
        lane: usize,
        from: (&str, u64),
    ) -> Result<(Vec<Seen>, Option<String>), StoreError> {
        let Some(read) = lanes.get(lane) else {
            return Ok((Vec::new(), None));
        };
        let start = if from.0.is_empty() {
            self.last_delivered(group, read).await?
        } else {
            from.0.to_owned()
        };
        let mut range = Cmd::new();
        range
            .arg("XRANGE")
            .arg(&read.stream)
            .arg(format!("({start}"))
            .arg("+");
        range.arg("COUNT").arg(from.1);
        let entries = self.command(Purpose::Control, range).await?.list()?;
        let mut seen = Vec::with_capacity(entries.len());
        let mut next = None;
        for entry in entries {
            let (id, body) = read_entry(entry)?;
            next = Some(id);
            let place = Place::Waiting;
            seen.push(Seen {
                place,
                consumer: String::new(),
                deliveries: 0,
                idle_ms: 0,
                body,
            });
        }
        Ok((seen, next))
    }

    async fn peek_scheduled(
        &self,
        shard: &Shard,
        group: &str,
        from: (&str, u64),
    ) -> Result<(Vec<Seen>, Option<String>), StoreError> {
        let offset: u64 = if from.0.is_empty() {
            0
        } else {
            number(from.0)?
        };
        let last = offset.saturating_add(from.1).saturating_sub(1);
        let mut range = Cmd::new();
        range
            .arg("ZRANGE")
            .arg(shard.scheduled())
            .arg(offset)
            .arg(last);
        let members = self.command(Purpose::Control, range).await?.list()?;
        let mut seen = Vec::new();
        let count = members.len() as u64;
        for member in members {
            // A member ends with `/<lane ref>`; those of other groups are not read.
            let member = member.text()?;
            let lane = member.split_once('/').map_or("", |(_, lane)| lane);
            if !lane.starts_with('/') && !lane.starts_with(&format!("{group}/")) {
                continue;
            }
            let mut read = Cmd::new();
            read.arg("HGET").arg(shard.bodies()).arg(member);
            let row = self
                .command(Purpose::Control, read)
                .await?
                .bytes()
                .unwrap_or_default();
            let row = Bytes::from(row);
            let Some(space) = row.iter().position(|byte| *byte == b' ') else {
                continue;
            };
            let (place, body) = (Place::Scheduled, row.slice(space + 1..));
            seen.push(Seen {
                place,
                consumer: String::new(),
                deliveries: 0,
                idle_ms: 0,
                body,
            });
        }
        Ok((
            seen,
            (count == from.1 && count > 0).then(|| (offset + count).to_string()),
        ))
    }

    /// The newest entry of a lane that a group was ever delivered.
    ///
    /// # Errors
    /// As in `StoreError`; `Lost` where the group does not read the lane.
    pub async fn last_delivered(&self, group: &str, lane: &ReadLane) -> Result<String, StoreError> {
        let mut info = Cmd::new();
        info.arg("XINFO").arg("GROUPS").arg(&lane.stream);
        for row in self.command(Purpose::Control, info).await?.list()? {
            let pairs = row.list()?;
            let mut fields = pairs.into_iter();
            let (mut name, mut last) = (String::new(), String::new());
            while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
                match field.text()?.as_str() {
                    "name" => name = value.text()?,
                    "last-delivered-id" => last = value.text()?,
                    _ => {},
                }
            }
            if name == group {
                return Ok(last);
            }
        }
        Err(StoreError::Lost {
            what: format!("group `{group}` on lane `{}`", lane.reference),
        })
    }
}

fn place_of(entry: &Pending) -> Place {
    match entry.owner.as_str() {
        "~delayed" => Place::Delayed,
        PARKED => Place::Parked,
        owner if owner.starts_with(PLACEHOLDER) => Place::Ready,
        _ => Place::Leased,
    }
}

fn parse_cursor(cursor: &str) -> Result<(usize, usize, String), StoreError> {
    if cursor.is_empty() {
        return Ok((0, 0, String::new()));
    }
    let wrong = || StoreError::Refused {
        detail: format!("cursor `{cursor}` is none of ours"),
    };
    let mut parts = cursor.splitn(3, '|');
    let mut next = || parts.next().ok_or_else(wrong);
    let (part, lane) = (next()?, next()?);
    let from = next()?.to_owned();
    let (part, lane) = (
        part.parse().map_err(|_error| wrong())?,
        lane.parse().map_err(|_error| wrong())?,
    );
    if !from.is_empty() && !crate::lease::is_entry_id(&from) && from.parse::<u64>().is_err() {
        return Err(wrong());
    }
    Ok((part, lane, from))
}

fn number(text: &str) -> Result<u64, StoreError> {
    text.parse().map_err(|_error| StoreError::Refused {
        detail: format!("cursor part `{text}` is no number"),
    })
}
