//! What a shard hands over to another slot: read on, note what was taken over, forget it later.
//!
//! Who takes over writes its own slot first and notes the position afterwards, so that a crash
//! between makes it take something twice, which it must bear, and never lose it. What was taken
//! over is kept for a while: a failover may have lost the writes of the other slot.

use redis::Cmd;

use crate::{
    connection::{Purpose, Store},
    error::StoreError,
    reply::{self, Reply},
    scripts::{Call, HANDOVER_ADVANCE, HANDOVER_READ},
};

/// The position before the first record.
const FIRST: &str = "0-0";

impl Store {
    /// Up to `count` records of a stream behind `after`, and about 4 MiB of them.
    pub(crate) async fn handed_over(
        &self,
        records: String,
        after: &str,
        count: usize,
    ) -> Result<Vec<Reply>, StoreError> {
        let mut call = Call::new(&HANDOVER_READ);
        call.key(records);
        call.text(after).count(count);
        let value = self.run_safely(Purpose::Control, call).await?;
        let (_, parts) = reply::status("handover_read", value)?;
        let [records] = parts
            .try_into()
            .map_err(|_error| StoreError::reply("handover_read"))?;
        records.list()
    }

    /// The last record that was taken over.
    pub(crate) async fn taken_over(&self, position: String) -> Result<String, StoreError> {
        let mut read = Cmd::new();
        read.arg("HGET").arg(position).arg("id");
        let taken = self.command(Purpose::Control, read).await?.maybe_text()?;
        Ok(taken.unwrap_or_else(|| FIRST.to_owned()))
    }

    /// Which server the records were taken over from last; empty where nobody noted it.
    pub(crate) async fn taken_from(&self, position: String) -> Result<String, StoreError> {
        let mut read = Cmd::new();
        read.arg("HGET").arg(position).arg("server");
        let server = self.command(Purpose::Control, read).await?.maybe_text()?;
        Ok(server.unwrap_or_default())
    }

    /// Notes the server from which the records were taken over.
    pub(crate) async fn note_taken_from(
        &self,
        position: String,
        server: &str,
    ) -> Result<(), StoreError> {
        let mut note = Cmd::new();
        note.arg("HSET").arg(position).arg("server").arg(server);
        self.command(Purpose::Control, note).await.map(drop)
    }

    /// Notes `id`, the last record that was taken over of those behind `from`; an older one than
    /// noted changes nothing. False where what is noted is older than `from`, because Redis lost
    /// data: nothing was noted, and the caller must read on behind what is.
    pub(crate) async fn take_over(
        &self,
        position: String,
        (from, id): (&str, &str),
    ) -> Result<bool, StoreError> {
        let mut call = Call::new(&HANDOVER_ADVANCE);
        call.key(position).text(id).text(from);
        let value = self.run_safely(Purpose::Control, call).await?;
        match reply::status("handover_advance", value)?.0.as_str() {
            "SET" | "KEPT" => Ok(true),
            "BEHIND" => Ok(false),
            _ => Err(StoreError::reply("handover_advance")),
        }
    }

    /// One step of a trim: how many records it forgot, and whether no more may go.
    pub(crate) async fn trim_handed_over(&self, call: Call) -> Result<(u64, bool), StoreError> {
        let value = self.run_safely(Purpose::Control, call).await?;
        let (_, parts) = reply::status("handover_trim", value)?;
        let [removed, more] = parts
            .try_into()
            .map_err(|_error| StoreError::reply("handover_trim"))?;
        Ok((removed.number()?, more.number()? == 0))
    }
}
