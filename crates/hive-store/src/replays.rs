//! Replays of a stream's history: the job as it is stored, and the history as it is read.
//!
//! A job lies on the shard whose history it repeats, and changes only from the version that was
//! read: who carries it on, and who cancels it, do not undo each other. What is published for it
//! goes the way of every message, under an idempotency key made of the job, the lane and the entry;
//! so a step that is done again adds nothing.

use std::collections::BTreeMap;

use bytes::Bytes;
use redis::Cmd;
use serde::{Deserialize, Serialize};

use crate::{
    connection::{Purpose, Store},
    control::{Put, Versioned},
    error::StoreError,
    fetch::{ReadLane, read_entry},
    keys::Shard,
};

/// Most replays that a shard keeps, ended ones counted in.
pub const REPLAYS_KEPT_MAX: usize = 1_000;

/// Whether a replay goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayState {
    /// Under way.
    Running,
    /// All of it is published.
    Done,
    /// Cancelled.
    Cancelled,
    /// It could not go on, or some of it was deleted before it was read.
    Failed,
}

/// A replay of a stream's history to one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// Its id.
    pub id: String,
    /// Version that is stored; 0 for none.
    #[serde(skip)]
    pub version: u64,
    /// The group that gets the messages.
    pub group: String,
    /// Messages published at this time or later, in ms since 1970.
    pub from_ms: u64,
    /// Messages published before this time, in ms since 1970.
    pub to_ms: u64,
    /// Only messages of these types; empty for all.
    pub message_types: Vec<String>,
    /// Only messages of these senders; empty for all.
    pub from_agents: Vec<String>,
    /// Most messages published per second.
    pub rate: u32,
    /// Whether it goes on.
    pub state: ReplayState,
    /// Ref of the lane that it is in; those before it by name are done. Empty at the beginning.
    pub lane: String,
    /// The last entry of that lane that was looked at; empty for none.
    pub after: String,
    /// The settled entry that it has to read next in that lane; empty where it knows of none.
    #[serde(default)]
    pub next: String,
    /// The same of the lanes that it has not begun; none before its first step.
    #[serde(default)]
    pub heads: Option<BTreeMap<String, String>>,
    /// Ref of the first lane of which something was deleted before it was read; empty for none.
    #[serde(default)]
    pub missed: String,
    /// Messages looked at.
    pub examined: u64,
    /// Messages published.
    pub published: u64,
    /// Why it waits, or has failed or will.
    pub error: String,
    /// When it began, in ms since 1970.
    pub started_ms: u64,
    /// When it ended, in ms since 1970; 0 before.
    pub ended_ms: u64,
}

impl Versioned for Replay {
    fn set_version(&mut self, version: u64) {
        self.version = version;
    }
}

impl Store {
    /// A replay; none where the shard has none of this id.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn replay(&self, shard: &Shard, id: &str) -> Result<Option<Replay>, StoreError> {
        self.definition(shard.replays(), id).await
    }

    /// All replays of a shard, by id.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn replays(&self, shard: &Shard) -> Result<Vec<Replay>, StoreError> {
        self.definitions(shard.replays()).await
    }

    /// Stores a replay if its stored version is still `replay.version` (0: absent).
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn put_replay(
        &self,
        namespace: &str,
        shard: &Shard,
        replay: &Replay,
    ) -> Result<Put, StoreError> {
        let (key, version) = (shard.replays(), replay.version);
        self.put(namespace, key, &replay.id, version, Some(replay))
            .await
    }

    /// Forgets a replay if its stored version is still this one.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn remove_replay(
        &self,
        namespace: &str,
        shard: &Shard,
        replay: &Replay,
    ) -> Result<Put, StoreError> {
        let (key, version) = (shard.replays(), replay.version);
        self.put::<Replay>(namespace, key, &replay.id, version, None)
            .await
    }

    /// The next entries of a lane, from a time on or behind an entry, and before a time.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn history(
        &self,
        lane: &ReadLane,
        (from_ms, after): (u64, &str),
        to_ms: u64,
        count: u64,
    ) -> Result<Vec<(String, Bytes)>, StoreError> {
        let start = if after.is_empty() {
            format!("{from_ms}-0")
        } else {
            format!("({after}")
        };
        let mut range = Cmd::new();
        range.arg("XRANGE").arg(&lane.stream).arg(start);
        range.arg(format!("({to_ms}-0")).arg("COUNT").arg(count);
        let entries = self.command(Purpose::Control, range).await?.list()?;
        entries.into_iter().map(read_entry).collect()
    }
}
