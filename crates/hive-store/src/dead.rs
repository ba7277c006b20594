//! The dead-letter stream of a shard: what died and waits for the dead-letter worker to store it.

use crate::{
    attempt::{self, Attempt},
    connection::Store,
    error::StoreError,
    keys::Shard,
    reply::Reply,
    scripts::{Call, HANDOVER_TRIM},
};
use bytes::Bytes;

/// Dead letters that one step of a trim forgets.
const TRIM_LIMIT: u64 = 500;
/// Most dead letters that are counted.
const COUNTED_MAX: usize = 1_000;
/// Steps of one trim.
const TRIM_CALLS: u32 = 20;

/// One dead delivery as its shard holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Id in the dead stream.
    pub id: String,
    /// Header and envelope; empty when the entry was gone before it died.
    pub body: Bytes,
    /// The group that it died in.
    pub group: String,
    /// Ref of its lane.
    pub lane: String,
    /// Id of its entry in the lane.
    pub entry: String,
    /// How often it was delivered.
    pub deliveries: u64,
    /// Failure category of its end.
    pub category: String,
    /// Failed attempts.
    pub failures: u32,
    /// What is kept of them, oldest first; of many the newest.
    pub attempts: Vec<Attempt>,
}

impl Store {
    /// Number of dead letters that the worker has not stored; of more than a page (1,000, or 4 MiB)
    /// that page alone.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn dead_count(&self, shard: &Shard) -> Result<u64, StoreError> {
        let taken = self.dead_taken(shard).await?;
        let page = self.handed_over(shard.dead(), &taken, COUNTED_MAX).await?;
        Ok(u64::try_from(page.len()).unwrap_or(u64::MAX))
    }

    /// Up to `count` dead letters behind `after` (`0-0` at first), and about 4 MiB of them.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn dead_letters(
        &self,
        shard: &Shard,
        after: &str,
        count: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let entries = self.handed_over(shard.dead(), after, count).await?;
        entries.into_iter().map(read).collect()
    }

    /// The last dead letter that the worker has stored; `0-0` where there is none.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn dead_taken(&self, shard: &Shard) -> Result<String, StoreError> {
        self.taken_over(shard.dead_taken()).await
    }

    /// The run id of the server from which dead letters were stored last; empty at first. Another
    /// one may have lost what was stored of them.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn dead_taken_from(&self, shard: &Shard) -> Result<String, StoreError> {
        self.taken_from(shard.dead_taken()).await
    }

    /// Notes that all dead letters of the last minutes are stored on this server.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn note_dead_taken_from(
        &self,
        shard: &Shard,
        server: &str,
    ) -> Result<(), StoreError> {
        self.note_taken_from(shard.dead_taken(), server).await
    }

    /// Notes the last dead letter that the worker has stored of those behind `from`; an older one
    /// than noted changes nothing. False where what is noted is older than `from`, because Redis
    /// lost data: nothing was noted, and what is behind `dead_taken` must be stored again.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn advance_dead(
        &self,
        shard: &Shard,
        from: &str,
        taken: &str,
    ) -> Result<bool, StoreError> {
        self.take_over(shard.dead_taken(), (from, taken)).await
    }

    /// Forgets dead letters that were stored and are older than `keep_ms`; answers how many.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn trim_dead(&self, shard: &Shard, keep_ms: u64) -> Result<u64, StoreError> {
        let mut total = 0;
        for _ in 0..TRIM_CALLS {
            let mut call = Call::new(&HANDOVER_TRIM);
            call.key(shard.dead()).key(shard.tasks());
            call.key(shard.dead_taken());
            call.number(keep_ms).number(TRIM_LIMIT).number(0);
            call.flag(false);
            let (removed, is_end) = self.trim_handed_over(call).await?;
            total += removed;
            if is_end {
                break;
            }
        }
        Ok(total)
    }
}

fn read(entry: Reply) -> Result<DeadLetter, StoreError> {
    let [id, fields] = entry.array()?;
    let mut letter = DeadLetter {
        id: id.text()?,
        body: Bytes::new(),
        group: String::new(),
        lane: String::new(),
        entry: String::new(),
        deliveries: 0,
        category: String::new(),
        failures: 0,
        attempts: Vec::new(),
    };
    let mut fields = fields.list()?.into_iter();
    let mut record = Vec::new();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        match name.text()?.as_str() {
            "record" => record = value.bytes()?,
            "m" => letter.body = Bytes::from(value.bytes()?),
            "group" => letter.group = value.text()?,
            "lane" => letter.lane = value.text()?,
            "id" => letter.entry = value.text()?,
            "count" => letter.deliveries = value.number()?,
            "category" => letter.category = value.text()?,
            "failures" => {
                let bytes = value.bytes()?;
                // One that does not parse must not keep the others of its shard waiting.
                (letter.failures, letter.attempts) = attempt::history(&bytes).unwrap_or_default();
            },
            _ => {},
        }
    }
    // The last attempt stands in the history when it was a failure, and alone when it was a reject.
    if let Some(last) = attempt::parse(&record)
        && letter.attempts.last() != Some(&last)
    {
        letter.attempts.push(last);
    }
    Ok(letter)
}
