//! How a group is doing, read from Redis: any replica gives the same answer.
//!
//! `waiting = published - settled - pending`, all three kept by scripts or exact in Redis. The lag
//! that XINFO shows is not used: it is null or wrong after deletes and trims.

use std::collections::BTreeMap;

use redis::Pipeline;

use crate::{
    connection::{Purpose, Store},
    error::StoreError,
    fetch::ReadLane,
    keys::{GroupKey, Shard},
    lease::parse_entry_id,
    reply::{self, Reply},
};

/// What a group did in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Minute {
    /// When it began, in ms since 1970.
    pub started_ms: u64,
    /// Acks.
    pub acked: u64,
    /// Failed attempts.
    pub failed: u64,
    /// Time from delivery to ack, summed, in ms.
    pub work_ms: u64,
}

/// Figures of a group on one shard; sums over shards are the group's.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Live members.
    pub members: u64,
    /// Accepted and never delivered.
    pub waiting: u64,
    /// Delivered and not settled.
    pub pending: u64,
    /// Of those pending, held by consumers.
    pub leased: u64,
    /// Of those pending, to be delivered again at once.
    pub ready: u64,
    /// Of those pending, waiting out a backoff.
    pub delayed: u64,
    /// Of those pending, waiting for another message of their ordering key.
    pub parked: u64,
    /// Ordering keys that a dead letter blocks.
    pub blocked_keys: u64,
    /// Bytes of all that is unsettled, delayed messages included.
    pub unsettled_bytes: u64,
    /// Published with a delay that is not over.
    pub scheduled: u64,
    /// Publish time of the oldest message never delivered, in ms since 1970.
    pub oldest_waiting_ms: Option<u64>,
    /// Redis' time of this reading, in ms since 1970.
    pub now_ms: u64,
    /// Accepted since the group's creation.
    pub published: u64,
    /// Settled since then, in whatever way.
    pub settled: u64,
    /// Acked since then.
    pub acked: u64,
    /// Failed attempts since then.
    pub failed: u64,
    /// Moved to the dead letters since then.
    pub dead: u64,
    /// Delivered again since then.
    pub redelivered: u64,
    /// Given back uncounted since then.
    pub released: u64,
    /// Leases that ended without an outcome since then.
    pub expired: u64,
    /// Acked within the last 5 minutes.
    pub recent_acked: u64,
    /// Failed attempts within the last 5 minutes.
    pub recent_failed: u64,
    /// Time from delivery to ack, summed over the last 5 minutes, in ms.
    pub recent_work_ms: u64,
    /// Seconds that the recent figures cover: at most 300.
    pub recent_seconds: u64,
    /// Refs of lanes with waiting messages.
    pub waiting_lanes: Vec<String>,
    /// What was done in the running minute and the five before it, oldest first; minutes without
    /// any outcome are missing.
    pub minutes: Vec<Minute>,
}

impl Store {
    /// Reads the figures of a group on a shard.
    ///
    /// # Errors
    /// As in `StoreError`; `Lost` when a lane lacks the group.
    pub async fn figures(
        &self,
        shard: &Shard,
        group: &str,
        lanes: &[ReadLane],
    ) -> Result<Figures, StoreError> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("TIME");
        pipeline
            .cmd("HGETALL")
            .arg(shard.group(group, GroupKey::Counters));
        pipeline
            .cmd("HLEN")
            .arg(shard.group(group, GroupKey::Members));
        pipeline
            .cmd("ZCARD")
            .arg(shard.group(group, GroupKey::Delayed));
        pipeline
            .cmd("ZCARD")
            .arg(shard.group(group, GroupKey::Parked));
        let mut ready: Vec<&String> = lanes.iter().map(|lane| &lane.ready).collect();
        ready.sort();
        ready.dedup();
        for key in &ready {
            pipeline.cmd("ZCARD").arg(*key);
        }
        for lane in lanes {
            pipeline.cmd("XINFO").arg("GROUPS").arg(&lane.stream);
        }
        let mut replies = self.pipeline(Purpose::Control, pipeline).await?.into_iter();
        let mut next = || replies.next().ok_or_else(|| StoreError::reply("figures"));
        let [seconds, micros] = next()?.array()?;
        let now_ms = seconds.number()? * 1_000 + micros.number()? / 1_000;
        let counters: BTreeMap<String, u64> = reply::pairs(next()?)?
            .into_iter()
            .map(|(name, value)| (name, value.parse().unwrap_or_default()))
            .collect();
        let mut figures = of_counters(&counters, now_ms);
        figures.members = next()?.number()?;
        figures.delayed = next()?.number()?;
        figures.parked = next()?.number()?;
        for _ in &ready {
            figures.ready += next()?.number()?;
        }
        let mut positions = Vec::with_capacity(lanes.len());
        for lane in lanes {
            let (pending, position) =
                position(next()?, group)?.ok_or_else(|| StoreError::Lost {
                    what: format!("group `{group}` on lane `{}`", lane.reference),
                })?;
            figures.pending += pending;
            positions.push(position);
        }
        figures.waiting = figures
            .published
            .saturating_sub(figures.settled)
            .saturating_sub(figures.pending);
        figures.leased = figures
            .pending
            .saturating_sub(figures.ready)
            .saturating_sub(figures.delayed)
            .saturating_sub(figures.parked);
        if figures.waiting > 0 {
            self.read_heads(lanes, &positions, &mut figures).await?;
        }
        Ok(figures)
    }

    async fn read_heads(
        &self,
        lanes: &[ReadLane],
        positions: &[String],
        figures: &mut Figures,
    ) -> Result<(), StoreError> {
        let mut pipeline = Pipeline::new();
        for (lane, position) in lanes.iter().zip(positions) {
            let after = format!("({position}");
            pipeline
                .cmd("XRANGE")
                .arg(&lane.stream)
                .arg(after)
                .arg("+")
                .arg("COUNT")
                .arg(1);
        }
        let heads = self.pipeline(Purpose::Control, pipeline).await?;
        for (lane, head) in lanes.iter().zip(heads) {
            let Some(entry) = head.list()?.into_iter().next() else {
                continue;
            };
            let (id, _) = crate::fetch::read_entry(entry)?;
            figures.waiting_lanes.push(lane.reference.to_string());
            if let Some((ms, _)) = parse_entry_id(&id) {
                let oldest = figures
                    .oldest_waiting_ms
                    .map_or(ms, |oldest| oldest.min(ms));
                figures.oldest_waiting_ms = Some(oldest);
            }
        }
        Ok(())
    }
}

pub(crate) fn of_counters(counters: &BTreeMap<String, u64>, now_ms: u64) -> Figures {
    let of = |name: &str| counters.get(name).copied().unwrap_or_default();
    let minute = now_ms / 60_000;
    let mut figures = Figures {
        now_ms,
        scheduled: of("scheduled"),
        blocked_keys: of("blocked"),
        unsettled_bytes: of("bytes"),
        published: of("published"),
        settled: of("settled"),
        acked: of("acked"),
        failed: of("failed"),
        dead: of("dead"),
        redelivered: of("redelivered"),
        released: of("released"),
        expired: of("expired"),
        recent_seconds: 240 + now_ms / 1_000 % 60 + 1,
        ..Figures::default()
    };
    for slot in 0..6 {
        let began = of(&format!("minute{slot}"));
        let bucket = Minute {
            started_ms: began * 60_000,
            acked: of(&format!("acked{slot}")),
            failed: of(&format!("failed{slot}")),
            work_ms: of(&format!("work{slot}")),
        };
        let age = minute.saturating_sub(began);
        // The running minute and the four before it.
        if age < 5 {
            figures.recent_acked += bucket.acked;
            figures.recent_failed += bucket.failed;
            figures.recent_work_ms += bucket.work_ms;
        }
        if age < 6 && began > 0 {
            figures.minutes.push(bucket);
        }
    }
    figures.minutes.sort_by_key(|minute| minute.started_ms);
    figures
}

/// Pending entries and last delivered id of one group, from XINFO GROUPS.
fn position(groups: Reply, wanted: &str) -> Result<Option<(u64, String)>, StoreError> {
    let found = positions(groups)?.into_iter();
    let mut found = found.filter(|(name, _, _)| name == wanted);
    Ok(found.next().map(|(_, pending, last)| (pending, last)))
}

/// Name, pending entries and last delivered id of each group of a lane, from XINFO GROUPS.
pub(crate) fn positions(groups: Reply) -> Result<Vec<(String, u64, String)>, StoreError> {
    let mut found = Vec::new();
    for info in groups.list()? {
        let mut fields = info.list()?.into_iter();
        let (mut name, mut pending, mut last) = (String::new(), 0, String::new());
        while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
            match field.text()?.as_str() {
                "name" => name = value.text()?,
                "pending" => pending = value.number()?,
                "last-delivered-id" => last = value.text()?,
                _ => {},
            }
        }
        found.push((name, pending, last));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_older_than_five_minutes_do_not_count() {
        let rows = [
            ("minute0", 100),
            ("acked0", 7),
            ("minute1", 95),
            ("acked1", 9),
            ("minute2", 96),
        ];
        let mut counters: BTreeMap<String, u64> = rows
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect();
        counters.insert("acked2".into(), 1);
        let figures = of_counters(&counters, 100 * 60_000);
        assert_eq!(figures.recent_acked, 8);
        let minutes: Vec<(u64, u64)> = figures
            .minutes
            .iter()
            .map(|minute| (minute.started_ms / 60_000, minute.acked))
            .collect();
        assert_eq!(minutes, [(95, 9), (96, 1), (100, 7)]);
        assert_eq!(figures.recent_seconds, 241);
    }
}
