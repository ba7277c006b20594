//! What recovery does in bounded steps: time, due entries, expired messages, lost index entries.

use redis::Cmd;

use crate::{
    connection::{Purpose, Store},
    error::StoreError,
    fetch::{Lanes, ReadLane},
    keys::{GroupKey, Shard},
    lane::LaneRef,
    members::{PARKED, Pending},
    reply::{self, Reply},
    scripts::{
        CLOCK_TICK, Call, DELAYED_SHIFT, DUE_DELAYED, DUE_SCHEDULED, GROUP_TAKE, LEASE_RESTAMP,
        PARKED_CHECK, REINDEX, ROW_FORGET,
    },
};

/// Entries moved per script call; 4 us each keeps a call under half a millisecond.
const DUE_LIMIT: u64 = 100;

/// Entries put right per script call after the clock went back; 2 us each.
const SHIFT_LIMIT: u64 = 500;

/// Parked entries looked at per script call, and bytes of them, give or take one body.
const PARKED_LIMIT: u64 = 200;
const PARKED_BYTES: u64 = 1024 * 1024;

/// Redis' time, and whether leases may expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// Redis' time in ms since 1970.
    pub now_ms: u64,
    /// No lease expires by deadline before this time.
    pub grace_until_ms: u64,
    /// When the last grace began; 0 for never.
    pub grace_from_ms: u64,
    /// The clock went back by so much, and what goes by it was not put right yet.
    pub back_ms: u64,
}

/// What a due step moved, and when the next one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Entries moved.
    pub moved: u64,
    /// Due time of the next entry in ms since 1970; 0 when there is none.
    pub next_ms: u64,
    /// The lanes that the caller passed are not all there are: read them again.
    pub lanes_changed: bool,
}

/// Which never delivered messages to take out of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// All of them.
    All,
    /// Those published before this time in ms since 1970.
    OlderThan(u64),
    /// From the head on, those whose time to live has passed.
    Expired,
}

impl Store {
    /// Notes the time on a shard; starts a grace of `lease_ms` where Redis restarted or the clock
    /// jumped. A gateway gives its incarnation and is thereby alive.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn tick(
        &self,
        shard: &Shard,
        lease_ms: u64,
        gateway: Option<&str>,
    ) -> Result<Tick, StoreError> {
        if self.run_id().is_empty() {
            self.info("server").await?;
        }
        loop {
            let run_id = self.run_id();
            let mut call = Call::new(&CLOCK_TICK);
            call.key(shard.clock()).key(shard.gateways());
            call.text(&run_id)
                .number(lease_ms)
                .text(gateway.unwrap_or("-"))
                .number(0);
            let value = self.run_safely(Purpose::Control, call).await?;
            // Another server answered than the one that this call named: it would see the restart
            // one tick late.
            if run_id != self.run_id() {
                continue;
            }
            let (_, parts) = reply::status("clock_tick", value)?;
            let [now, grace, from, back] = parts
                .try_into()
                .map_err(|_error| StoreError::reply("clock_tick"))?;
            return Ok(Tick {
                now_ms: now.number()?,
                grace_until_ms: grace.number()?,
                grace_from_ms: from.number()?,
                back_ms: back.number()?,
            });
        }
    }

    /// Shifts one slice of a group's backoffs after the clock went back; false at the end.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn shift_delayed(&self, shard: &Shard, group: &str) -> Result<bool, StoreError> {
        let mut call = Call::new(&DELAYED_SHIFT);
        call.key(shard.group(group, GroupKey::Delayed));
        call.key(shard.clock()).text(group).number(SHIFT_LIMIT);
        let value = self.run_safely(Purpose::Control, call).await?;
        Ok(reply::status("delayed_shift", value)?.0 == "OK")
    }

    /// Starts one slice of a lane's deliveries anew whose time is yet to come; answers where the
    /// next slice begins (`-` at first), or none at the end.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn restamp(
        &self,
        group: &str,
        lane: &ReadLane,
        from: &str,
    ) -> Result<Option<String>, StoreError> {
        let mut call = Call::new(&LEASE_RESTAMP);
        call.key(&lane.stream);
        call.text(group).text(from).number(SHIFT_LIMIT);
        let value = self.run_safely(Purpose::Control, call).await?;
        let (_, parts) = reply::status("lease_restamp", value)?;
        let [last, _restamped] = parts
            .try_into()
            .map_err(|_error| StoreError::reply("lease_restamp"))?;
        let last = last.text()?;
        Ok((!last.is_empty()).then(|| format!("({last}")))
    }

    /// Forgets that the clock went back: all of these groups were put right.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn forget_step_back(&self, shard: &Shard, groups: &[&str]) -> Result<(), StoreError> {
        let mut remove = Cmd::new();
        remove.arg("HDEL").arg(shard.clock());
        remove.arg("back_ms").arg("back_from");
        for group in groups {
            remove.arg(format!("at:{group}"));
        }
        self.command(Purpose::Control, remove).await.map(drop)
    }

    /// Last beat of each gateway that ever served the shard, in ms since 1970.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn gateway_beats(&self, shard: &Shard) -> Result<Vec<(String, u64)>, StoreError> {
        let mut read = Cmd::new();
        read.arg("HGETALL").arg(shard.gateways());
        let rows = reply::pairs(self.command(Purpose::Control, read).await?)?;
        Ok(rows
            .into_iter()
            .map(|(name, ms)| (name, ms.parse().unwrap_or_default()))
            .collect())
    }

    /// Forgets a gateway that has no members any more, if it has not beaten since this time.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn forget_gateway(
        &self,
        shard: &Shard,
        gateway: &str,
        beat_ms: u64,
    ) -> Result<(), StoreError> {
        let seen = [(gateway.to_owned(), beat_ms.to_string())];
        self.forget_rows(shard.gateways(), &seen).await.map(drop)
    }

    /// Removes rows of a hash that are still as they were read; answers how many.
    pub(crate) async fn forget_rows(
        &self,
        key: String,
        seen: &[(String, String)],
    ) -> Result<u64, StoreError> {
        let mut call = Call::new(&ROW_FORGET);
        call.key(key);
        for (name, row) in seen {
            call.text(name).text(row);
        }
        let value = self.run_safely(Purpose::Control, call).await?;
        let (_, parts) = reply::status("row_forget", value)?;
        let [count] = parts
            .try_into()
            .map_err(|_error| StoreError::reply("row_forget"))?;
        count.number()
    }

    /// Whether anything of the shard waits for a time: a backoff of one of these groups, a task
    /// held for a consumer, or a message published with a delay.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn has_due(&self, shard: &Shard, groups: &[&str]) -> Result<bool, StoreError> {
        let mut exists = Cmd::new();
        exists.arg("EXISTS").arg(shard.scheduled());
        for group in groups {
            exists.arg(shard.group(group, GroupKey::Delayed));
            exists.arg(shard.group(group, GroupKey::Held));
        }
        Ok(self.command(Purpose::Control, exists).await?.number()? > 0)
    }

    /// Moves entries whose backoff is over to the ready sets.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn due_delayed(
        &self,
        shard: &Shard,
        group: &str,
        lanes: &[ReadLane],
        ageing_ms: u64,
    ) -> Result<Due, StoreError> {
        let mut call = Call::new(&DUE_DELAYED);
        call.key(shard.group(group, GroupKey::Delayed));
        for lane in lanes {
            call.key(&lane.stream).key(&lane.ready);
        }
        call.text(group)
            .number(ageing_ms)
            .number(DUE_LIMIT)
            .number(0)
            .count(lanes.len());
        for lane in lanes {
            call.text(&lane.reference);
        }
        let value = self.run_safely(Purpose::Control, call).await?;
        match reply::status("due_delayed", value)? {
            (word, _) if word == "LANES" => Ok(LANES_CHANGED),
            (_, parts) => due("due_delayed", parts),
        }
    }

    /// Moves messages whose delay is over into their lanes.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn due_scheduled(
        &self,
        shard: &Shard,
        lanes: &Lanes,
        groups: &[String],
    ) -> Result<Due, StoreError> {
        // Lanes that are gone, and that due messages make anew.
        let mut made: Vec<LaneRef> = Vec::new();
        loop {
            let named = || lanes.all.iter().chain(&made);
            let mut call = Call::new(&DUE_SCHEDULED);
            call.key(shard.scheduled())
                .key(shard.bodies())
                .key(shard.lanes())
                .key(shard.groups())
                .key(shard.dead())
                .key(shard.sizes())
                .key(shard.tasks())
                .key(shard.outcomes());
            for lane in named() {
                call.key(shard.lane(lane));
            }
            for group in groups {
                call.key(shard.group(group, GroupKey::Counters));
            }
            call.number(DUE_LIMIT)
                .number(0)
                .count(named().count())
                .count(groups.len());
            for lane in named() {
                call.text(lane.to_string());
            }
            for group in groups {
                call.text(group);
            }
            let value = self.run_safely(Purpose::Control, call).await?;
            let (word, parts) = reply::status("due_scheduled", value)?;
            if word != "LANES" {
                return due("due_scheduled", parts);
            }
            let lane = reply::detail("due_scheduled", parts)?;
            if lane.is_empty() {
                return Ok(LANES_CHANGED);
            }
            let lane = lane.parse().map_err(|error| StoreError::Corrupt {
                what: format!("key `bodies`: {error}"),
            })?;
            // A message names one lane: there are no more than messages that are due.
            if made.len() as u64 == DUE_LIMIT {
                return Ok(LANES_CHANGED);
            }
            made.push(lane);
        }
    }

    /// Takes never delivered messages out of a lane, to be settled by the caller as `~taken`'s
    /// first delivery; answers their ids.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn take_waiting(
        &self,
        shard: &Shard,
        group: &str,
        lane: &ReadLane,
        which: Take,
        limit: u64,
    ) -> Result<Vec<String>, StoreError> {
        let mut call = Call::new(&GROUP_TAKE);
        call.key(&lane.stream).key(shard.groups());
        call.text(group).number(limit);
        match which {
            Take::All => call.text("+").number(0),
            Take::OlderThan(ms) => call.text(format!("{ms}-0")).number(0),
            Take::Expired => call.text("+").number(1),
        };
        call.number(0);
        let (word, parts) = reply::status("group_take", self.run(Purpose::Control, call).await?)?;
        if word != "OK" {
            return Err(StoreError::reply("group_take"));
        }
        let ids = parts
            .into_iter()
            .next()
            .ok_or_else(|| StoreError::reply("group_take"))?;
        ids.list()?.into_iter().map(Reply::text).collect()
    }

    /// Whether the time to live of parked entries of a lane has passed, from a cursor on (`-` at
    /// first); answers those, and where to go on, none at the end.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn expired_parked(
        &self,
        group: &str,
        (lanes, number): (&[ReadLane], usize),
        from: &str,
    ) -> Result<(Vec<Pending>, Option<String>), StoreError> {
        let Some(lane) = lanes.get(number) else {
            return Ok((Vec::new(), None));
        };
        let mut call = Call::new(&PARKED_CHECK);
        call.key(&lane.stream);
        call.text(group)
            .text(from)
            .number(PARKED_LIMIT)
            .number(PARKED_BYTES)
            .number(0);
        let value = self.run_safely(Purpose::Control, call).await?;
        let (_, parts) = reply::status("parked_check", value)?;
        let [last, rows] = parts
            .try_into()
            .map_err(|_error| StoreError::reply("parked_check"))?;
        let last = last.text()?;
        let (mut rows, mut expired) = (rows.list()?.into_iter(), Vec::new());
        while let (Some(id), Some(count)) = (rows.next(), rows.next()) {
            expired.push(Pending {
                lane: number,
                id: id.text()?,
                owner: PARKED.to_owned(),
                idle_ms: 0,
                count: count.number()?,
            });
        }
        Ok((expired, (!last.is_empty()).then(|| format!("({last}"))))
    }

    /// Puts an entry of a placeholder back into its index if it is missing there; answers whether
    /// it was.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn reindex(
        &self,
        shard: &Shard,
        group: &str,
        lane: &ReadLane,
        id: &str,
        ageing_ms: u64,
    ) -> Result<bool, StoreError> {
        let mut call = Call::new(&REINDEX);
        call.key(&lane.stream).key(&lane.ready);
        call.key(shard.group(group, GroupKey::Delayed));
        call.key(shard.group(group, GroupKey::Parked));
        call.key(shard.group(group, GroupKey::Busy));
        call.text(group)
            .number(ageing_ms)
            .text(&lane.reference)
            .text(id);
        let value = self.run_safely(Purpose::Control, call).await?;
        Ok(reply::status("reindex", value)?.0 == "REPAIRED")
    }
}

const LANES_CHANGED: Due = Due {
    moved: 0,
    next_ms: 0,
    lanes_changed: true,
};

fn due(what: &'static str, parts: Vec<Reply>) -> Result<Due, StoreError> {
    let [moved, next] = parts.try_into().map_err(|_error| StoreError::reply(what))?;
    Ok(Due {
        moved: moved.number()?,
        next_ms: next.number()?,
        lanes_changed: false,
    })
}
