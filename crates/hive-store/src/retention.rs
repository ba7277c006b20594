//! Deleting settled messages that retention no longer keeps, and ending old ones that no group
//! reads.

use std::collections::{BTreeMap, BTreeSet};

use redis::{Cmd, Pipeline};

use crate::{
    connection::{Purpose, Store},
    error::StoreError,
    fetch::read_entry,
    keys::{GroupKey, Shard},
    lane::LaneRef,
    lease::parse_entry_id,
    reply,
    scripts::{BUFFERED_EXPIRE, Call, LANE_RETIRE, TRIM},
};

/// Entries looked at per script call: a third of a millisecond of Redis where they are small, so
/// that what is published and delivered meanwhile hardly waits for it.
const LIMIT: u64 = 200;
/// Messages ended per script call: it reads their payloads, which may be a megabyte each.
const BUFFERED_LIMIT: u64 = 50;
/// Producers silent for longer are forgotten: no client resends after a day.
const PRODUCER_MS: u64 = 86_400_000;

/// What retention keeps of the settled messages of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Not older, in ms.
    pub age_ms: u64,
    /// Not more, unsettled ones counted in.
    pub len: u64,
    /// Not more bytes, those of unsettled ones counted in.
    pub bytes: u64,
}

/// What one step of a trim came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trimmed {
    /// Entries that are gone.
    pub deleted: u64,
    /// Where to go on; none at the end.
    pub next: Option<String>,
}

/// What a look at an unused lane came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unused {
    /// It is no longer one of the lanes.
    Retired,
    /// Its stream is gone.
    Removed,
    /// It is used, or was lately: it stays.
    Used,
}

/// What one step ended in a lane that no group reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Messages that no group ever had: they are dead letters.
    pub expired: u64,
    /// Messages that were settled: they are gone.
    pub deleted: u64,
    /// Whether there may be more.
    pub more: bool,
}

/// How much a lane holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Its entries, settled or not.
    pub entries: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// The id of the oldest.
    pub oldest: Option<(u64, u64)>,
}

impl Store {
    /// Trims one slice of a lane, from a cursor on (`-` at first).
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn trim(
        &self,
        shard: &Shard,
        lane: &LaneRef,
        keep: Keep,
        from: &str,
    ) -> Result<Trimmed, StoreError> {
        let mut call = Call::new(&TRIM);
        call.key(shard.lane(lane)).key(shard.sizes());
        call.text(lane.to_string())
            .number(keep.age_ms)
            .number(keep.len)
            .number(keep.bytes)
            .text(from)
            .number(LIMIT)
            .number(0);
        let value = self.run_safely(Purpose::Control, call).await?;
        let (word, parts) = reply::status("trim", value)?;
        if word != "OK" {
            return Err(StoreError::reply("trim"));
        }
        let [deleted, next] = parts
            .try_into()
            .map_err(|_error| StoreError::reply("trim"))?;
        Ok(Trimmed {
            deleted: deleted.number()?,
            next: Some(next.text()?).filter(|next| !next.is_empty()),
        })
    }

    /// Bytes that the lanes of a shard hold, settled or not: one read, for a look every second.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn bytes_by_lane(&self, shard: &Shard) -> Result<BTreeMap<String, u64>, StoreError> {
        let mut read = Cmd::new();
        read.arg("HGETALL").arg(shard.sizes());
        let rows = reply::pairs(self.command(Purpose::Control, read).await?)?;
        Ok(rows
            .into_iter()
            // A name with a space counts delayed messages of a lane.
            .filter(|(name, _)| !name.contains(' '))
            .map(|(name, bytes)| (name, bytes.parse().unwrap_or_default()))
            .collect())
    }

    /// Ends one slice of old messages of a lane, if no group reads it.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn expire_buffered(
        &self,
        shard: &Shard,
        lane: &LaneRef,
        max_age_ms: u64,
    ) -> Result<Ended, StoreError> {
        let mut call = Call::new(&BUFFERED_EXPIRE);
        call.key(shard.lane(lane)).key(shard.dead());
        call.key(shard.settled_below()).key(shard.sizes());
        call.text(lane.to_string());
        call.number(max_age_ms).number(BUFFERED_LIMIT).number(0);
        let value = self.run_safely(Purpose::Control, call).await?;
        let (_, parts) = reply::status("buffered_expire", value)?;
        let [expired, deleted, more] = parts
            .try_into()
            .map_err(|_error| StoreError::reply("buffered_expire"))?;
        let (expired, deleted) = (expired.number()?, deleted.number()?);
        Ok(Ended {
            expired,
            deleted,
            more: more.number()? > 0,
        })
    }

    /// Takes a lane out of use that has nothing and for `idle_ms` got nothing, or removes the
    /// stream of one that was taken out of use so long ago. `groups` are all of the shard.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn retire_lane(
        &self,
        shard: &Shard,
        lane: &LaneRef,
        groups: &[String],
        idle_ms: u64,
    ) -> Result<Unused, StoreError> {
        let mut call = Call::new(&LANE_RETIRE);
        call.key(shard.lanes()).key(shard.sizes());
        call.key(shard.lane(lane));
        for group in groups {
            call.key(shard.group(group, GroupKey::Served));
        }
        call.text(lane.to_string()).number(idle_ms).number(0);
        let value = self.run_safely(Purpose::Control, call).await?;
        match reply::status("lane_retire", value)?.0.as_str() {
            "RETIRED" => Ok(Unused::Retired),
            "REMOVED" => Ok(Unused::Removed),
            "USED" => Ok(Unused::Used),
            _ => Err(StoreError::reply("lane_retire")),
        }
    }

    /// Lanes that were taken out of use, and whose streams are still there.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn retired_lanes(&self, shard: &Shard) -> Result<Vec<LaneRef>, StoreError> {
        let mut read = Cmd::new();
        read.arg("HKEYS").arg(shard.sizes());
        let mut lanes = Vec::new();
        for name in self.command(Purpose::Control, read).await?.list()? {
            let name = name.text()?;
            if let Some(lane) = name.strip_suffix(" retired") {
                lanes.push(lane.parse().map_err(|error| StoreError::Corrupt {
                    what: format!("key `sizes`: {error}"),
                })?);
            }
        }
        Ok(lanes)
    }

    /// The sets of required capabilities that a message of a shard is unsettled or delayed for.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn unsettled_sets(
        &self,
        shard: &Shard,
        lanes: &[LaneRef],
    ) -> Result<BTreeSet<String>, StoreError> {
        let with_set: Vec<&LaneRef> = lanes
            .iter()
            .filter(|lane| !lane.lane.capabilities.is_empty())
            .collect();
        if with_set.is_empty() {
            return Ok(BTreeSet::new());
        }
        let mut pipeline = Pipeline::new();
        for lane in &with_set {
            let scheduled = format!("{lane} scheduled");
            pipeline.cmd("HEXISTS").arg(shard.sizes()).arg(scheduled);
            pipeline.cmd("XINFO").arg("GROUPS").arg(shard.lane(lane));
        }
        let mut replies = self.pipeline(Purpose::Control, pipeline).await?.into_iter();
        let mut sets = BTreeSet::new();
        let mut unread = Pipeline::new();
        let mut asked = Vec::new();
        for lane in with_set {
            let (Some(scheduled), Some(groups)) = (replies.next(), replies.next()) else {
                break;
            };
            let mut is_unsettled = scheduled.number()? > 0;
            let mut positions = Vec::new();
            for group in groups.list()? {
                let mut fields = group.list()?.into_iter();
                while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
                    match field.text()?.as_str() {
                        "pending" => is_unsettled |= value.number()? > 0,
                        "last-delivered-id" => positions.push(format!("({}", value.text()?)),
                        _ => {},
                    }
                }
            }
            if is_unsettled {
                sets.insert(lane.lane.capabilities.clone());
                continue;
            }
            if positions.is_empty() {
                // Nobody reads it: all in it waits.
                positions.push("-".to_owned());
            }
            for position in positions {
                unread.cmd("XRANGE").arg(shard.lane(lane)).arg(position);
                unread.arg("+").arg("COUNT").arg(1);
                asked.push(&lane.lane.capabilities);
            }
        }
        if asked.is_empty() {
            return Ok(sets);
        }
        let heads = self.pipeline(Purpose::Control, unread).await?;
        for (set, head) in asked.into_iter().zip(heads) {
            if !head.list()?.is_empty() {
                sets.insert(set.clone());
            }
        }
        Ok(sets)
    }

    /// How much each of these lanes holds, in their order.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn lane_sizes(
        &self,
        shard: &Shard,
        lanes: &[LaneRef],
    ) -> Result<Vec<Held>, StoreError> {
        let mut pipeline = Pipeline::new();
        for lane in lanes {
            let key = shard.lane(lane);
            pipeline.cmd("XLEN").arg(&key);
            pipeline.cmd("XRANGE").arg(&key).arg("-").arg("+");
            pipeline.arg("COUNT").arg(1);
        }
        if lanes.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = self.bytes_by_lane(shard).await?;
        let replies = self.pipeline(Purpose::Control, pipeline).await?;
        let mut replies = replies.into_iter();
        let mut sizes = Vec::with_capacity(lanes.len());
        for lane in lanes {
            let (Some(length), Some(head)) = (replies.next(), replies.next()) else {
                break;
            };
            let head = head.list()?.into_iter().next().map(read_entry);
            let oldest = head.transpose()?.and_then(|(id, _)| parse_entry_id(&id));
            sizes.push(Held {
                entries: length.number()?,
                bytes: bytes.get(&lane.to_string()).copied().unwrap_or_default(),
                oldest,
            });
        }
        Ok(sizes)
    }

    /// Entries of these lanes, settled or not.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn entries(&self, shard: &Shard, lanes: &[LaneRef]) -> Result<u64, StoreError> {
        let mut pipeline = Pipeline::new();
        for lane in lanes {
            pipeline.cmd("XLEN").arg(shard.lane(lane));
        }
        if lanes.is_empty() {
            return Ok(0);
        }
        let mut total = 0;
        for length in self.pipeline(Purpose::Control, pipeline).await? {
            total += length.number()?;
        }
        Ok(total)
    }

    /// Forgets producers that were silent for a day; one page per call, answers the next cursor.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn forget_producers(
        &self,
        shard: &Shard,
        cursor: u64,
        now_ms: u64,
    ) -> Result<u64, StoreError> {
        let mut scan = Cmd::new();
        scan.arg("HSCAN")
            .arg(shard.producers())
            .arg(cursor)
            .arg("COUNT")
            .arg(200);
        let [next, rows] = self.command(Purpose::Control, scan).await?.array()?;
        let mut silent = reply::pairs(rows)?;
        silent.retain(|(_, row)| {
            let last = row.split(' ').nth(1).and_then(|ms| ms.parse::<u64>().ok());
            last.is_none_or(|last| now_ms.saturating_sub(last) > PRODUCER_MS)
        });
        if !silent.is_empty() {
            // One that published meanwhile may send that again.
            self.forget_rows(shard.producers(), &silent).await?;
        }
        next.number()
    }
}
