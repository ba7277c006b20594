//! Deleting settled messages that retention no longer keeps.

use redis::{Cmd, Pipeline};

use crate::{
    connection::{Purpose, Store},
    error::StoreError,
    keys::Shard,
    lane::LaneRef,
    reply,
    scripts::{Call, TRIM},
};

/// Entries deleted per script call.
const LIMIT: u64 = 500;
/// Producers silent for longer are forgotten: no client resends after a day.
const PRODUCER_MS: u64 = 86_400_000;

impl Store {
    /// Trims one slice of a lane; answers how many entries went. Call again while it is 500.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn trim(
        &self,
        shard: &Shard,
        lane: &LaneRef,
        max_age_ms: u64,
        max_len: u64,
    ) -> Result<u64, StoreError> {
        let mut call = Call::new(&TRIM);
        call.key(shard.lane(lane));
        call.number(max_age_ms)
            .number(max_len)
            .number(LIMIT)
            .number(0);
        let value = self.run_safely(Purpose::Control, call).await?;
        let (word, parts) = reply::status("trim", value)?;
        if word != "OK" {
            return Err(StoreError::reply("trim"));
        }
        reply::detail("trim", parts)?
            .parse()
            .map_err(|_error| StoreError::reply("trim"))
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
        let mut remove = Cmd::new();
        remove.arg("HDEL").arg(shard.producers());
        let mut any = false;
        for (producer, row) in reply::pairs(rows)? {
            let last = row.split(' ').nth(1).and_then(|ms| ms.parse::<u64>().ok());
            if last.is_none_or(|last| now_ms.saturating_sub(last) > PRODUCER_MS) {
                remove.arg(producer);
                any = true;
            }
        }
        if any {
            self.command(Purpose::Control, remove).await?;
        }
        next.number()
    }
}
