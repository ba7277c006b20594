//! How a stream begins and ends: its definition and the mark on its shard.
//!
//! A stream is made by its definition; the shard gets keys when it gets messages. Its end is
//! decided on the shard, where a message may come at any moment: one script looks that nothing is
//! left, removes the keys and leaves a mark, then the definition goes. While the mark is there the
//! shard takes nothing, so that a gateway which read the definition before its end adds no message
//! that nobody would find.
//!
//! At each point of a crash the times tell what is to be done. A definition that is as old as the
//! mark is going: it is removed. One that is younger is a stream made anew: the mark is taken off.
//! Whoever comes first does it, a coordinator within seconds.

use hive_domain::{stream::StreamDefinition, time::Timestamp};

use crate::{
    connection::{Purpose, Store},
    control::Put,
    error::StoreError,
    keys::Shard,
    reply,
    scripts::{Call, STREAM_CLOSE, STREAM_OPEN},
};

/// How long the mark of a deleted stream stays. Gateways remember a definition for a second, and
/// a publish waits for Redis for seconds; a day is far from both.
const MARK_KEPT_MS: u64 = 86_400_000;
/// How often a change is tried again when somebody else changed the definition meanwhile.
const TRIES: usize = 5;

/// Answer of a creation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ensured {
    /// The stream as it is, open for messages and groups; true when it was not there before.
    There(StreamDefinition, bool),
    /// Others change it all the time.
    Conflict,
    /// The namespace has its limit of streams.
    Full,
}

/// Answer of the step that decides a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    /// Nothing of it is left on the shard, and nothing more comes.
    Closed,
    /// It is still used.
    Filled(Held),
}

/// What keeps a stream from being deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Groups, those that are being deleted included.
    pub groups: u64,
    /// Messages that wait for a group to come: at least so many.
    pub buffered: u64,
    /// Direct messages whose consumer is no member of any group.
    pub held_for_consumers: u64,
    /// Messages that are not due yet.
    pub scheduled: u64,
    /// Dead letters that nobody has taken.
    pub dead_letters: u64,
}

impl Store {
    /// Makes a stream where there is none of the name, and opens its shard for it. What is there
    /// stays as it is; a deletion that was decided is carried out first.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn ensure_stream(
        &self,
        namespace: &str,
        asked: &StreamDefinition,
    ) -> Result<Ensured, StoreError> {
        let shard = self.shard(namespace, &asked.name, 0);
        for _ in 0..TRIES {
            let (definition, created) = match self.stream(namespace, &asked.name).await? {
                Some(existing) => (existing, false),
                None => {
                    let mut new = asked.clone();
                    new.version = 0;
                    // Clocks differ: it must be younger than what was deleted.
                    if let Some(Timestamp(closed)) = self.shard_state(&shard).await?.1 {
                        new.created_at = new.created_at.max(Timestamp(closed + 1));
                    }
                    match self.put_stream(namespace, &new).await? {
                        Put::Stored(version) => new.version = version,
                        Put::Conflict => continue,
                        Put::Full => return Ok(Ensured::Full),
                    }
                    (new, true)
                },
            };
            if self.open_on_shard(&shard, definition.created_at).await? {
                return Ok(Ensured::There(definition, created));
            }
            self.remove_stream(namespace, &definition).await?;
        }
        Ok(Ensured::Conflict)
    }

    /// Removes the definition of a stream whose end was decided, whatever its version is by now.
    /// Another one of the name stays.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn remove_stream(
        &self,
        namespace: &str,
        going: &StreamDefinition,
    ) -> Result<Put, StoreError> {
        let key = self.control_keys().streams(namespace);
        for _ in 0..TRIES {
            let found = self.stream(namespace, &going.name).await?;
            let Some(found) = found.filter(|found| found.created_at == going.created_at) else {
                return Ok(Put::Stored(0));
            };
            let (key, version) = (key.clone(), found.version);
            let put = self.put::<StreamDefinition>(namespace, key, &going.name, version, None);
            if let stored @ Put::Stored(_) = put.await? {
                return Ok(stored);
            }
        }
        Ok(Put::Conflict)
    }

    /// Decides the deletion of a stream that holds nothing, and removes it from its shard.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn close_on_shard(
        &self,
        shard: &Shard,
        created_at: Timestamp,
    ) -> Result<Closing, StoreError> {
        loop {
            let lanes = self.lanes(shard).await?;
            // Read behind the lanes: one that is retired meanwhile is among the one or the other.
            let retired = self.retired_lanes(shard).await?;
            let mut call = Call::new(&STREAM_CLOSE);
            call.key(shard.groups()).key(shard.lanes());
            call.key(shard.scheduled())
                .key(shard.dead())
                .key(shard.dead_taken());
            call.key(shard.settled_below());
            call.key(shard.clock()).key(shard.gateways());
            for lane in &lanes.all {
                call.key(shard.lane(lane));
            }
            for lane in &retired {
                call.key(shard.lane(lane));
            }
            call.key(shard.producers()).key(shard.bodies());
            call.key(shard.sizes()).key(shard.replays());
            call.number(created_at.0).number(MARK_KEPT_MS);
            call.count(lanes.all.len());
            for lane in &lanes.all {
                call.text(lane.to_string());
            }
            let value = self.run_safely(Purpose::Control, call).await?;
            let (word, counts) = reply::status("stream_close", value)?;
            match word.as_str() {
                "CLOSED" => return Ok(Closing::Closed),
                "FILLED" => {
                    let [groups, buffered, held, scheduled, dead] = counts
                        .try_into()
                        .map_err(|_error| StoreError::reply("stream_close"))?;
                    return Ok(Closing::Filled(Held {
                        groups: groups.number()?,
                        buffered: buffered.number()?,
                        held_for_consumers: held.number()?,
                        scheduled: scheduled.number()?,
                        dead_letters: dead.number()?,
                    }));
                },
                "LANES" => {},
                _ => return Err(StoreError::reply("stream_close")),
            }
        }
    }

    /// Takes the mark of an earlier stream of the name off a shard; false when the stream that was
    /// created then, or a later one, is being deleted.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn open_on_shard(
        &self,
        shard: &Shard,
        created_at: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut call = Call::new(&STREAM_OPEN);
        call.key(shard.groups());
        call.key(shard.clock()).key(shard.gateways());
        call.number(created_at.0);
        let value = self.run_safely(Purpose::Control, call).await?;
        Ok(reply::status("stream_open", value)?.0 == "OPEN")
    }
}
