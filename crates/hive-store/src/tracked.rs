//! Tracked messages: where one is, and what became of it.
//!
//! A tracked message is an entry of a tracked lane of one group. Its row lies beside those of the
//! tasks of workflows, under a key made of its id, and the same scripts end it: the first end of it
//! is its outcome. What became of it lies in the stream `outcomes` of the shard, in the order of
//! the ends, and is forgotten from the oldest on, by age and by what all of it takes.

use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, Pipeline};

use crate::{
    connection::{Purpose, Store},
    error::StoreError,
    keys::{GroupKey, Shard},
    lease::{is_entry_id, parse_entry_id},
    reply::Reply,
    scripts::{Call, HANDOVER_TRIM},
    tasks::{Resolved, TaskOutcome, TaskRow},
};

/// What begins the key of a tracked message: no id of a run does, for no name does.
const MARK: char = '~';
/// What begins a kept result.
const RESULT: u8 = b'r';
/// What begins the reason for which a result is not kept.
const REASON: u8 = b'e';
/// Outcomes that one call forgets.
const TRIM_LIMIT: u64 = 500;
/// How often a row is read again that changes meanwhile.
const ROW_TRIES: u32 = 5;
/// Beside the lanes: bytes of outcomes. A name with a space is that of no lane.
pub(crate) const OUTCOMES: &str = "~ outcomes";
/// Shards asked at once where a message is.
const ASKED_TOGETHER: usize = 100;

/// Where a tracked message stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tracked {
    /// Its time has not come.
    Scheduled,
    /// It waits for a consumer.
    Waiting {
        /// Failed attempts before.
        failures: u32,
    },
    /// It is worked on.
    Leased {
        /// Who has it.
        consumer: String,
        /// Failed attempts before.
        failures: u32,
    },
    /// It is settled.
    Ended(End),
}

/// What became of a tracked message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// How.
    pub outcome: TaskOutcome,
    /// Who settled it; empty where nobody held it.
    pub consumer: String,
    /// Attempts, the last one included; 0 where it was never delivered.
    pub attempts: u32,
    /// What its consumer gave, as `keep` made it; else `<category>`, or `<category>: <reason>`.
    pub detail: Bytes,
    /// When, in ms since 1970.
    pub at_ms: u64,
}

/// What a consumer gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// This, and nothing where it is empty.
    Result(Bytes),
    /// Something that is not kept, and why.
    NotKept(String),
}

/// The key of a tracked message, which the header of its body has too.
#[must_use]
pub fn tracking_key(message_id: &str) -> String {
    format!("{MARK}{message_id}")
}

/// Whether a key is that of a tracked message.
#[must_use]
pub fn is_tracking_key(key: &str) -> bool {
    key.starts_with(MARK)
}

/// What is kept of a result, of at most so many bytes.
#[must_use]
pub fn keep(result: &Bytes, bytes_max: usize) -> Bytes {
    if result.is_empty() {
        return Bytes::new();
    }
    let mut kept = Vec::with_capacity(1 + result.len().min(bytes_max));
    if result.len() > bytes_max {
        kept.push(REASON);
        let size = result.len();
        let reason = format!("a result of `{size}` bytes is not kept: at most {bytes_max} are");
        kept.extend_from_slice(reason.as_bytes());
    } else {
        kept.push(RESULT);
        kept.extend_from_slice(result);
    }
    kept.into()
}

/// Reads what `keep` made.
#[must_use]
pub fn given(kept: &Bytes) -> Given {
    match kept.first() {
        Some(&REASON) => Given::NotKept(String::from_utf8_lossy(&kept.slice(1..)).into_owned()),
        Some(_) => Given::Result(kept.slice(1..)),
        None => Given::Result(Bytes::new()),
    }
}

impl Store {
    /// Which of these shards know a tracked message of this id, by their positions: an id is a
    /// message's own within one shard alone.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn shards_of_tracked(
        &self,
        shards: &[Shard],
        message_id: &str,
    ) -> Result<Vec<usize>, StoreError> {
        let (key, mut places) = (tracking_key(message_id), Vec::new());
        for (page, some) in shards.chunks(ASKED_TOGETHER).enumerate() {
            let mut pipeline = Pipeline::with_capacity(some.len());
            for shard in some {
                pipeline.cmd("HEXISTS").arg(shard.tasks()).arg(&key);
            }
            let found = self.pipeline(Purpose::Control, pipeline).await?;
            for (place, there) in found.into_iter().enumerate() {
                if there.number()? == 1 {
                    places.push(page * ASKED_TOGETHER + place);
                }
            }
        }
        Ok(places)
    }

    /// Where a tracked message stands; none where the shard does not know it, or not any more, or
    /// where it is open and of another group than this one, if one is named.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn tracked(
        &self,
        shard: &Shard,
        (group, message_id): (&str, &str),
    ) -> Result<Option<Tracked>, StoreError> {
        let key = tracking_key(message_id);
        for _ in 0..ROW_TRIES {
            let Some(open) = self.open_row(shard, &key).await? else {
                return Ok(self.end_of(shard, &key).await?.map(Tracked::Ended));
            };
            if !group.is_empty() && open.lane.group != group {
                return Ok(None);
            }
            if !is_entry_id(&open.id) {
                return Ok(Some(Tracked::Scheduled));
            }
            // Before the look: an entry that is settled in between is found ended.
            let member = format!("{}|{}", open.reference, open.id);
            let failures = self.failures(shard, &open.lane.group, &member).await?;
            match self.look_up_task(shard, &key).await? {
                TaskRow::Waiting => return Ok(Some(Tracked::Waiting { failures })),
                TaskRow::Leased { consumer, .. } => {
                    return Ok(Some(Tracked::Leased { consumer, failures }));
                },
                TaskRow::Unknown => return Ok(None),
                TaskRow::Acked | TaskRow::Ended(_) => {},
            }
        }
        Err(StoreError::Unavailable {
            detail: format!("the row of message `{message_id}` keeps changing"),
        })
    }

    /// Ends a tracked message that is not ended yet, wherever it is; its consumer is told. With
    /// `durable` it is on disk before the answer.
    ///
    /// # Errors
    /// As in `StoreError`. The same may be asked again whatever the error is.
    pub async fn cancel_tracked(
        &self,
        shard: &Shard,
        message_id: &str,
        reason: &str,
        durable: bool,
    ) -> Result<Resolved, StoreError> {
        let (key, reason) = (tracking_key(message_id), Bytes::from(reason.to_owned()));
        let outcome = TaskOutcome::Cancelled;
        self.resolve(shard, ("", &key), outcome, reason, durable)
            .await
    }

    /// Forgets outcomes that are older than `keep`, at most so many steps of 500 of them; answers
    /// how many, and whether that was all.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn forget_outcomes(
        &self,
        shard: &Shard,
        keep: Duration,
        steps: u32,
    ) -> Result<(u64, bool), StoreError> {
        let keep_ms = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
        let (mut total, mut is_end) = (0, false);
        for _ in 0..steps {
            let mut call = Call::new(&HANDOVER_TRIM);
            call.key(shard.outcomes()).key(shard.tasks());
            call.key(shard.sizes());
            call.number(keep_ms).number(TRIM_LIMIT).number(0);
            call.flag(true);
            let removed;
            (removed, is_end) = self.trim_handed_over(call).await?;
            total += removed;
            if is_end {
                break;
            }
        }
        Ok((total, is_end))
    }

    /// How many bytes the outcomes of a shard take, as the scripts count them that add and forget
    /// them: Redis' own estimate goes by the oldest few, and large results behind small ones, or
    /// the other way round, make it many times too small.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn bytes_of_outcomes(&self, shard: &Shard) -> Result<u64, StoreError> {
        let mut read = Cmd::new();
        read.arg("HGET").arg(shard.sizes()).arg(OUTCOMES);
        let bytes = self.command(Purpose::Control, read).await?.maybe_text()?;
        Ok(bytes.and_then(|bytes| bytes.parse().ok()).unwrap_or(0))
    }

    async fn failures(&self, shard: &Shard, group: &str, member: &str) -> Result<u32, StoreError> {
        let mut read = Cmd::new();
        let key = shard.group(group, GroupKey::Failures);
        read.arg("HGET").arg(key).arg(member);
        let kept = self.command(Purpose::Control, read).await?.maybe_bytes()?;
        let count = kept.as_deref().and_then(<[u8]>::first_chunk::<4>);
        Ok(count.map_or(0, |count| u32::from_be_bytes(*count)))
    }

    /// How a tracked message ended; none where it has not, or where that was forgotten.
    async fn end_of(&self, shard: &Shard, key: &str) -> Result<Option<End>, StoreError> {
        let mut read = Cmd::new();
        read.arg("HGET").arg(shard.tasks()).arg(key);
        let row = self.command(Purpose::Control, read).await?.maybe_text()?;
        let ended = row.as_deref().and_then(|row| row.strip_prefix("ended "));
        let Some((_, id)) = ended.and_then(|rest| rest.split_once(' ')) else {
            return Ok(None);
        };
        let mut read = Cmd::new();
        read.arg("XRANGE").arg(shard.outcomes()).arg(id).arg(id);
        let mut records = self.command(Purpose::Control, read).await?.list()?;
        records.pop().map(read_end).transpose()
    }
}

fn read_end(record: Reply) -> Result<End, StoreError> {
    let [id, fields] = record.array()?;
    let id = id.text()?;
    let (mut outcome, mut consumer) = (String::new(), String::new());
    let (mut attempts, mut detail) = (0, Bytes::new());
    let mut fields = fields.list()?.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        match name.text()?.as_str() {
            "o" => outcome = value.text()?,
            "c" => consumer = value.text()?,
            "n" => attempts = u32::try_from(value.number()?).unwrap_or(u32::MAX),
            "b" => detail = value.bytes()?.into(),
            _ => {},
        }
    }
    Ok(End {
        outcome: TaskOutcome::parse(&outcome).ok_or_else(|| StoreError::Corrupt {
            what: format!("outcome `{outcome}` of a tracked message"),
        })?,
        consumer,
        attempts,
        detail,
        at_ms: parse_entry_id(&id).map_or(0, |(ms, _)| ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_read_back_and_a_large_one_says_why_it_is_not_there() {
        let result = Bytes::from_static(b"done");
        assert_eq!(given(&keep(&result, 4)), Given::Result(result.clone()));
        assert_eq!(given(&keep(&Bytes::new(), 4)), Given::Result(Bytes::new()));
        let reason = "a result of `4` bytes is not kept: at most 3 are";
        assert_eq!(given(&keep(&result, 3)), Given::NotKept(reason.to_owned()));
    }
}
