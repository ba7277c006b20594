//! The dead-letter stream of a shard, as far as it is read before the dead-letter worker is built.

use bytes::Bytes;
use redis::Cmd;

use crate::{
    attempt::{self, Attempt},
    connection::{Purpose, Store},
    error::StoreError,
    keys::Shard,
    reply::Reply,
};

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
    /// Number of dead letters that no worker has taken.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn dead_count(&self, shard: &Shard) -> Result<u64, StoreError> {
        let mut length = Cmd::new();
        length.arg("XLEN").arg(shard.dead());
        self.command(Purpose::Control, length).await?.number()
    }

    /// One page of dead letters from a cursor on (`-`, or `(id`).
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn dead_letters(
        &self,
        shard: &Shard,
        from: &str,
        limit: u64,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let mut range = Cmd::new();
        range
            .arg("XRANGE")
            .arg(shard.dead())
            .arg(from)
            .arg("+")
            .arg("COUNT")
            .arg(limit);
        let entries = self.command(Purpose::Control, range).await?.list()?;
        entries.into_iter().map(read).collect()
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
                if !bytes.is_empty() {
                    (letter.failures, letter.attempts) = attempt::history(&bytes)?;
                }
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
