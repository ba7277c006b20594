//! What the auditor does about data that is gone from a shard: deliveries without their entries,
//! lanes without a group.
//!
//! None of it can be undone by Redis, so none of it happens by the way: a script looks again at
//! what the auditor saw, and each repair is an alarm. What became of a message whose entry is gone
//! is never made up.

use redis::Cmd;

use crate::{
    connection::{Purpose, Store},
    error::StoreError,
    fetch::ReadLane,
    keys::{GroupKey, Shard},
    reply::{self, Reply},
    scripts::{COUNTERS_MEND, Call, GROUP_RESTORE, PENDING_CHECK, PENDING_WRITE_OFF},
};

/// Entries looked at per call: Redis reads their bodies, 2 us each while they are small.
const CHECK_LIMIT: u64 = 100;
/// Bytes read per call, give or take one body.
const CHECK_BYTES: u64 = 1024 * 1024;
/// Members read per step of a search through an index.
const SCAN_COUNT: u64 = 1_000;

/// What one look at deliveries found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The last id that was looked at; none behind the end.
    pub last: Option<String>,
    /// Ids that are pending and have no entry.
    pub missing: Vec<String>,
}

/// What writing off a delivery came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrittenOff {
    /// So many messages are lost: it, and what was parked behind it and is gone too.
    Lost(u64),
    /// It is settled by now, or its entry is there: nothing was written.
    Sound,
    /// The lanes are not all that there are: read them again.
    LanesChanged,
}

impl Store {
    /// Looks whether deliveries of a lane have their entries, from a cursor on (`-`, or `(id`).
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn check_pending(
        &self,
        group: &str,
        lane: &ReadLane,
        from: &str,
    ) -> Result<Checked, StoreError> {
        let mut call = Call::new(&PENDING_CHECK);
        call.key(&lane.stream);
        call.text(group)
            .text(from)
            .number(CHECK_LIMIT)
            .number(CHECK_BYTES);
        let value = self.run_safely(Purpose::Control, call).await?;
        let (_, parts) = reply::status("pending_check", value)?;
        let [last, missing] = parts
            .try_into()
            .map_err(|_error| StoreError::reply("pending_check"))?;
        let last = Some(last.text()?).filter(|last| !last.is_empty());
        let missing = missing.list()?.into_iter().map(Reply::text);
        Ok(Checked {
            last,
            missing: missing.collect::<Result<_, _>>()?,
        })
    }

    /// Ends the bookkeeping of a delivery whose entry is gone, and lets its ordering key go on.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn write_off(
        &self,
        shard: &Shard,
        (group, ageing_ms): (&str, u64),
        lanes: &[ReadLane],
        (lane, id): (&ReadLane, &str),
    ) -> Result<WrittenOff, StoreError> {
        let member = format!("{}|{id}", lane.reference);
        let busy = shard.group(group, GroupKey::Busy);
        let parked = shard.group(group, GroupKey::Parked);
        // The ordering key stood in the entry that is gone: the indexes are searched for it.
        let (mut order, mut place) = (String::new(), String::new());
        if lane.lane.lane.is_ordered() {
            let rows = self.scan("HSCAN", &busy, "*").await?;
            let holder = rows.into_iter().find(|(_, held)| *held == member);
            order = holder.map(|(order, _)| order).unwrap_or_default();
            let rows = self.scan("ZSCAN", &parked, &format!("*{member}")).await?;
            let mine = rows.into_iter().find(|(one, _)| {
                let tail = one.rsplit('\0').next();
                tail == Some(member.as_str())
            });
            place = mine.map(|(one, _)| one).unwrap_or_default();
        }
        let mut call = Call::new(&PENDING_WRITE_OFF);
        call.key(shard.group(group, GroupKey::Counters));
        call.key(shard.group(group, GroupKey::Delayed));
        call.key(busy).key(parked);
        call.key(shard.group(group, GroupKey::Failures));
        for lane in lanes {
            call.key(&lane.stream).key(&lane.ready);
        }
        call.text(group).number(ageing_ms);
        call.text(&lane.reference).text(id).text(order).text(place);
        call.count(lanes.len());
        for lane in lanes {
            call.text(&lane.reference);
        }
        let value = self.run_safely(Purpose::Control, call).await?;
        let (word, parts) = reply::status("pending_write_off", value)?;
        let detail = reply::detail("pending_write_off", parts)?;
        match word.as_str() {
            "LOST" => Ok(WrittenOff::Lost(detail.parse().unwrap_or(1))),
            "THERE" | "ABSENT" => Ok(WrittenOff::Sound),
            "LANES" => Ok(WrittenOff::LanesChanged),
            _ => Err(StoreError::reply("pending_write_off")),
        }
    }

    /// Gives a group its place back on lanes that lost it, at their oldest retained entry; answers
    /// those lanes, and how many entries each will deliver.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn restore_on_shard(
        &self,
        shard: &Shard,
        group: &str,
    ) -> Result<Vec<(String, u64)>, StoreError> {
        let (lanes, _) = self.read_lanes(shard, group).await?;
        let mut call = Call::new(&GROUP_RESTORE);
        call.key(shard.groups()).key(shard.lanes());
        for key in [
            GroupKey::Counters,
            GroupKey::Served,
            GroupKey::Busy,
            GroupKey::Parked,
        ] {
            call.key(shard.group(group, key));
        }
        call.key(shard.sizes());
        for lane in &*lanes {
            call.key(&lane.stream);
        }
        call.text(group).count(lanes.len());
        for lane in &*lanes {
            call.text(&lane.reference);
        }
        let value = self.run_safely(Purpose::Control, call).await?;
        let (word, parts) = reply::status("group_restore", value)?;
        if !matches!(word.as_str(), "RESTORED" | "SOUND" | "GONE") {
            return Err(StoreError::reply("group_restore"));
        }
        let [restored] = parts
            .try_into()
            .map_err(|_error| StoreError::reply("group_restore"))?;
        let mut restored = restored.list()?.into_iter();
        let mut lanes = Vec::new();
        while let (Some(lane), Some(retained)) = (restored.next(), restored.next()) {
            lanes.push((lane.text()?, retained.number()?));
        }
        Ok(lanes)
    }

    /// Counts as settled and lost what waits by the counters and is in no lane; answers how many.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn mend_counters(&self, shard: &Shard, group: &str) -> Result<u64, StoreError> {
        let (lanes, _) = self.read_lanes(shard, group).await?;
        let mut call = Call::new(&COUNTERS_MEND);
        call.key(shard.groups()).key(shard.lanes());
        call.key(shard.group(group, GroupKey::Counters));
        for lane in &*lanes {
            call.key(&lane.stream);
        }
        call.text(group).count(lanes.len());
        for lane in &*lanes {
            call.text(&lane.reference);
        }
        let value = self.run_safely(Purpose::Control, call).await?;
        let (word, parts) = reply::status("counters_mend", value)?;
        match word.as_str() {
            "MENDED" => {
                let count = reply::detail("counters_mend", parts)?;
                count
                    .parse()
                    .map_err(|_error| StoreError::reply("counters_mend"))
            },
            "SOUND" | "LANES" | "GONE" => Ok(0),
            _ => Err(StoreError::reply("counters_mend")),
        }
    }

    /// All pairs of a hash or a sorted set whose name fits a pattern.
    pub(crate) async fn scan(
        &self,
        command: &str,
        key: &str,
        pattern: &str,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let (mut found, mut cursor) = (Vec::new(), "0".to_owned());
        loop {
            let mut step = Cmd::new();
            step.arg(command).arg(key).arg(&cursor);
            step.arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_COUNT);
            let answer = self.command(Purpose::Control, step).await?;
            let [next, rows] = answer.array()?;
            found.extend(reply::pairs(rows)?);
            cursor = next.text()?;
            if cursor == "0" {
                return Ok(found);
            }
        }
    }
}
