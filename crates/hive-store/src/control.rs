//! Definitions of streams and groups, versioned in Redis, and the steps that carry them out on
//! shards.
//!
//! Creating a group touches two slots: the definition is written first as `creating`, then the
//! shard gets its Redis groups, then the definition says `active`. A crash between leaves a
//! `creating` (or `deleting`) definition that a coordinator carries on with; every step is
//! idempotent.
//!
//! A deletion by force begins with the definition: `deleting`, then the shard, then no definition.
//! One without force must not: whether the group is empty is known on the shard alone, where a
//! publish may come at any moment, and a definition that said `deleting` before it was known would
//! be carried on with by force. So the shard decides, in the step that checks, and keeps the group
//! as `deleting`; then it goes on as by force. At each point of a crash one of two things is there:
//! a definition that says `deleting`, or an active one whose shard says so. The group leaves the
//! shard before its definition goes, so that no new group of the name ever finds the old one.
//!
//! No version comes twice for a name, also where it is deleted and made again: versions grow with
//! Redis' time. A shard notes the one that it carried out; so whoever deletes an earlier group of
//! the name is refused there as stale, and changes its definition from a version that is gone.

use std::sync::Arc;

use hive_domain::{
    group::{GroupDefinition, GroupState, Start},
    stream::StreamDefinition,
    time::Timestamp,
};
use redis::Cmd;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    connection::{Purpose, Store},
    error::StoreError,
    fetch::{Lanes, ReadLane},
    keys::{GroupKey, Shard},
    lane::LaneRef,
    reply,
    scripts::{
        Call, DEFINITION_CREATE, DEFINITION_PUT, GROUP_CREATE, GROUP_DELETE, GROUP_STATE,
        SCHEDULED_CANCEL,
    },
};

/// Most groups, and most streams, of a namespace.
pub const DEFINITIONS_MAX: u64 = 10_000;

/// Among the groups of a shard: the stream is being deleted. No group has such a name.
const CLOSED: &str = "~stream";

/// Delayed messages looked at per step of a deletion: 4 us each keeps a step under 2 ms.
const CANCEL_LIMIT: u64 = 400;

/// Answer of a compare-and-set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// Stored under this version.
    Stored(u64),
    /// Another version is there.
    Conflict,
    /// The namespace has its limit of definitions.
    Full,
}

/// A group as its shard has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardGroup {
    /// Its name.
    pub name: String,
    /// Active, paused or deleting.
    pub state: GroupState,
    /// Version of the definition that said so.
    pub version: u64,
}

/// Answer of a step that sets the state of a group on a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateSet {
    /// It is so now.
    Done,
    /// A newer definition was carried out there, of this group or of a later one of the name:
    /// nothing was written.
    Stale,
    /// There is no such group.
    Absent,
}

/// Answer of a step that makes a group on a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// It was not there before.
    Created,
    /// It was there.
    Exists,
    /// Its stream is being deleted: nothing was written.
    Closed,
}

/// Answer of a step that removes a group from a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// Gone; so many messages that came last are dead letters.
    Done(u64),
    /// At least so many messages are unsettled.
    NotEmpty(u64),
    /// It was not there, or is another one by now that nobody deletes.
    Absent,
}

impl Store {
    /// The definition of a group, with its version.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn group(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<GroupDefinition>, StoreError> {
        self.definition(self.control_keys().groups(namespace), name)
            .await
    }

    /// All group definitions of a namespace, by name.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn groups(&self, namespace: &str) -> Result<Vec<GroupDefinition>, StoreError> {
        self.definitions(self.control_keys().groups(namespace))
            .await
    }

    /// The definition of a stream, with its version.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn stream(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<StreamDefinition>, StoreError> {
        self.definition(self.control_keys().streams(namespace), name)
            .await
    }

    /// All stream definitions of a namespace, by name.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn streams(&self, namespace: &str) -> Result<Vec<StreamDefinition>, StoreError> {
        self.definitions(self.control_keys().streams(namespace))
            .await
    }

    /// Namespaces that ever had a definition, by name.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn namespaces(&self) -> Result<Vec<String>, StoreError> {
        let mut read = Cmd::new();
        read.arg("SMEMBERS").arg(self.control_keys().namespaces());
        let names = self.command(Purpose::Control, read).await?.list()?;
        let mut names = names
            .into_iter()
            .map(reply::Reply::text)
            .collect::<Result<Vec<_>, _>>()?;
        names.sort();
        Ok(names)
    }

    /// Stores a group definition if its stored version is still `definition.version` (0: absent).
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn put_group(
        &self,
        namespace: &str,
        definition: &GroupDefinition,
    ) -> Result<Put, StoreError> {
        let key = self.control_keys().groups(namespace);
        self.put(
            namespace,
            key,
            &definition.name,
            definition.version,
            Some(definition),
        )
        .await
    }

    /// Removes a group definition if its stored version is still `version`.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn remove_group(
        &self,
        namespace: &str,
        name: &str,
        version: u64,
    ) -> Result<Put, StoreError> {
        let key = self.control_keys().groups(namespace);
        self.put::<GroupDefinition>(namespace, key, name, version, None)
            .await
    }

    /// Stores a stream definition if its stored version is still `definition.version` (0: absent).
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn put_stream(
        &self,
        namespace: &str,
        definition: &StreamDefinition,
    ) -> Result<Put, StoreError> {
        let key = self.control_keys().streams(namespace);
        self.put(
            namespace,
            key,
            &definition.name,
            definition.version,
            Some(definition),
        )
        .await
    }

    pub(crate) async fn put<T: Serialize>(
        &self,
        namespace: &str,
        key: String,
        name: &str,
        version: u64,
        definition: Option<&T>,
    ) -> Result<Put, StoreError> {
        let text = match definition {
            Some(definition) => {
                serde_json::to_string(definition).map_err(|error| StoreError::Corrupt {
                    what: error.to_string(),
                })?
            },
            None => String::new(),
        };
        if version == 0 {
            let mut add = Cmd::new();
            add.arg("SADD")
                .arg(self.control_keys().namespaces())
                .arg(namespace);
            self.command(Purpose::Control, add).await?;
        }
        self.put_text(key, name, version, &text).await
    }

    /// Stores a text under a name if its stored version is still `version` (0: absent); an empty
    /// one removes it.
    pub(crate) async fn put_text(
        &self,
        key: String,
        name: &str,
        version: u64,
        text: &str,
    ) -> Result<Put, StoreError> {
        let is_new = version == 0 && !text.is_empty();
        let script = if is_new {
            &DEFINITION_CREATE
        } else {
            &DEFINITION_PUT
        };
        let mut call = Call::new(script);
        call.key(key).text(name);
        if is_new {
            call.text(text).number(DEFINITIONS_MAX);
        } else {
            call.number(version).text(text);
        }
        let value = self.run_safely(Purpose::Control, call).await?;
        let (word, parts) = reply::status("definition_put", value)?;
        let detail = reply::detail("definition_put", parts)?;
        match word.as_str() {
            "PUT" => {
                let version = detail
                    .parse()
                    .map_err(|_error| StoreError::reply("definition_put"))?;
                Ok(Put::Stored(version))
            },
            // Our own write whose answer was lost and that was sent again.
            "CONFLICT" if !text.is_empty() => Ok(match detail.split_once(' ') {
                Some((stored, found)) if found == text => stored
                    .parse()
                    .ok()
                    .filter(|stored| *stored > version)
                    .map_or(Put::Conflict, Put::Stored),
                Some(_) | None => Put::Conflict,
            }),
            // The same of a removal.
            "CONFLICT" if detail.is_empty() => Ok(Put::Stored(0)),
            "CONFLICT" => Ok(Put::Conflict),
            "FULL" => Ok(Put::Full),
            _ => Err(StoreError::reply("definition_put")),
        }
    }

    pub(crate) async fn definition<T: DeserializeOwned + Versioned>(
        &self,
        key: String,
        name: &str,
    ) -> Result<Option<T>, StoreError> {
        let mut read = Cmd::new();
        read.arg("HGET").arg(key).arg(name);
        let row = self.command(Purpose::Control, read).await?.maybe_text()?;
        row.map(|row| parse(name, &row)).transpose()
    }

    pub(crate) async fn definitions<T: DeserializeOwned + Versioned>(
        &self,
        key: String,
    ) -> Result<Vec<T>, StoreError> {
        let mut read = Cmd::new();
        read.arg("HGETALL").arg(key);
        let mut rows = reply::pairs(self.command(Purpose::Control, read).await?)?;
        rows.sort();
        rows.iter().map(|(name, row)| parse(name, row)).collect()
    }

    /// Makes a group on a shard.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn create_on_shard(
        &self,
        shard: &Shard,
        definition: &GroupDefinition,
    ) -> Result<Made, StoreError> {
        loop {
            let lanes = self.lanes(shard).await?;
            let shared: Vec<&LaneRef> = lanes
                .all
                .iter()
                .filter(|lane| lane.group.is_empty() && !lane.is_held())
                .collect();
            let mut call = Call::new(&GROUP_CREATE);
            call.key(shard.groups()).key(shard.lanes());
            call.key(shard.group(&definition.name, GroupKey::Counters));
            call.key(shard.sizes());
            for lane in &shared {
                call.key(shard.lane(lane));
            }
            call.text(&definition.name).number(definition.version);
            call.text(match definition.start {
                Start::Earliest => "earliest",
                Start::Latest => "latest",
            });
            call.count(shared.len());
            for lane in &shared {
                call.text(lane.to_string());
            }
            let value = self.run_safely(Purpose::Control, call).await?;
            match reply::status("group_create", value)?.0.as_str() {
                "CREATED" => return Ok(Made::Created),
                "EXISTS" => return Ok(Made::Exists),
                "CLOSED" => return Ok(Made::Closed),
                "LANES" => {},
                _ => return Err(StoreError::reply("group_create")),
            }
        }
    }

    /// Sets the state of a group on a shard.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn set_state_on_shard(
        &self,
        shard: &Shard,
        definition: &GroupDefinition,
    ) -> Result<StateSet, StoreError> {
        let mut call = Call::new(&GROUP_STATE);
        call.key(shard.groups()).text(&definition.name);
        call.text(match definition.state {
            GroupState::Creating | GroupState::Active => "active",
            GroupState::Paused => "paused",
            GroupState::Deleting => "deleting",
        });
        call.number(definition.version);
        let value = self.run_safely(Purpose::Control, call).await?;
        match reply::status("group_state", value)?.0.as_str() {
            "SET" => Ok(StateSet::Done),
            "STALE" => Ok(StateSet::Stale),
            "ABSENT" => Ok(StateSet::Absent),
            _ => Err(StoreError::reply("group_state")),
        }
    }

    /// Moves one slice of the delayed messages in the lanes of a group that is being deleted, or
    /// with `purge` of one that stays, to the dead letters; answers the next cursor, 0 at the end,
    /// and how many went.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn cancel_scheduled(
        &self,
        shard: &Shard,
        group: &str,
        (cursor, purge): (u64, bool),
    ) -> Result<(u64, u64), StoreError> {
        let mut call = Call::new(&SCHEDULED_CANCEL);
        call.key(shard.scheduled())
            .key(shard.bodies())
            .key(shard.dead())
            .key(shard.groups());
        call.key(shard.group(group, GroupKey::Counters));
        call.key(shard.sizes());
        call.key(shard.tasks()).key(shard.outcomes());
        call.text(group).number(cursor).number(CANCEL_LIMIT);
        call.flag(purge);
        let value = self.run_safely(Purpose::Control, call).await?;
        let (word, parts) = reply::status("scheduled_cancel", value)?;
        if word == "LIVE" {
            return Ok((0, 0));
        }
        let [next, moved] = parts
            .try_into()
            .map_err(|_error| StoreError::reply("scheduled_cancel"))?;
        Ok((next.number()?, moved.number()?))
    }

    /// How many delayed messages are for the lanes of this group alone: those that
    /// `cancel_scheduled` moves. Its counter says how many it is to get, those to all groups too.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn scheduled_for(&self, shard: &Shard, group: &str) -> Result<u64, StoreError> {
        let mut read = Cmd::new();
        read.arg("HGETALL").arg(shard.sizes());
        let rows = reply::pairs(self.command(Purpose::Control, read).await?)?;
        let own = rows.into_iter().filter(|(name, _)| {
            let lane = name.strip_suffix(" scheduled");
            lane.and_then(|lane| lane.split_once('/'))
                .is_some_and(|(of, _)| of == group)
        });
        Ok(own.map(|(_, count)| count.parse().unwrap_or(0)).sum())
    }

    /// Whether a delayed message waits for a lane of this group. Its counter alone may say too few:
    /// messages to all groups that are older than the group are taken off it when they come due.
    async fn has_scheduled(&self, shard: &Shard, group: &str) -> Result<bool, StoreError> {
        let mut cursor = 0;
        loop {
            let mut scan = Cmd::new();
            scan.arg("ZSCAN").arg(shard.scheduled()).arg(cursor);
            scan.arg("MATCH").arg(format!("*/{group}/p*"));
            scan.arg("COUNT").arg(1_000);
            let [next, found] = self.command(Purpose::Control, scan).await?.array()?;
            if !found.list()?.is_empty() {
                return Ok(true);
            }
            cursor = next.number()?;
            if cursor == 0 {
                return Ok(false);
            }
        }
    }

    /// Decides the deletion of a group that has nothing unsettled, delayed messages included: it is
    /// in state `deleting` afterwards, on its shard alone.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn retire_on_shard(&self, shard: &Shard, group: &str) -> Result<Removal, StoreError> {
        let is_live = self
            .groups_on_shard(shard)
            .await?
            .iter()
            .any(|name| name == group);
        if is_live && self.has_scheduled(shard, group).await? {
            return Ok(Removal::NotEmpty(1));
        }
        self.remove_on_shard(shard, group, true).await
    }

    /// Removes a group in state `deleting` from a shard if nothing of it is unsettled.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn delete_on_shard(&self, shard: &Shard, group: &str) -> Result<Removal, StoreError> {
        self.remove_on_shard(shard, group, false).await
    }

    async fn remove_on_shard(
        &self,
        shard: &Shard,
        group: &str,
        retire: bool,
    ) -> Result<Removal, StoreError> {
        loop {
            let lanes = self.lanes(shard).await?;
            let own = lanes.of_group(shard, group);
            let mut call = Call::new(&GROUP_DELETE);
            call.key(shard.groups()).key(shard.lanes());
            call.key(shard.dead());
            call.key(shard.group(group, GroupKey::Counters));
            call.key(shard.settled_below()).key(shard.sizes());
            call.key(shard.tasks()).key(shard.settled());
            call.key(shard.outcomes());
            for lane in &*own {
                call.key(&lane.stream);
            }
            let mut ready: Vec<&String> = own.iter().map(|lane| &lane.ready).collect();
            ready.sort();
            ready.dedup();
            for key in ready {
                call.key(key);
            }
            for key in GroupKey::ALL {
                call.key(shard.group(group, key));
            }
            call.text(group).flag(retire).count(own.len());
            for lane in &*own {
                call.text(&lane.reference);
            }
            let value = self.run_safely(Purpose::Control, call).await?;
            let (word, parts) = reply::status("group_delete", value)?;
            let count = reply::detail("group_delete", parts)?.parse();
            match word.as_str() {
                "DELETED" => return Ok(Removal::Done(count.unwrap_or_default())),
                "RETIRED" => return Ok(Removal::Done(0)),
                "ABSENT" | "LIVE" => return Ok(Removal::Absent),
                "NOT_EMPTY" => return Ok(Removal::NotEmpty(count.unwrap_or(1))),
                "LANES" => {},
                _ => return Err(StoreError::reply("group_delete")),
            }
        }
    }

    /// The groups of a shard with their states, by name; without those in a state that this build
    /// does not know.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn shard_groups(&self, shard: &Shard) -> Result<Vec<ShardGroup>, StoreError> {
        Ok(self.shard_state(shard).await?.0)
    }

    /// As [`Store::shard_groups`], and when the stream was created whose deletion was decided here;
    /// none while the shard is open.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn shard_state(
        &self,
        shard: &Shard,
    ) -> Result<(Vec<ShardGroup>, Option<Timestamp>), StoreError> {
        let (mut groups, mut closed) = (Vec::new(), None);
        for (name, row) in self.group_rows(shard).await? {
            let Some((state, number)) = row.split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse() else { continue };
            let state = match state {
                "active" => GroupState::Active,
                "paused" => GroupState::Paused,
                "deleting" => GroupState::Deleting,
                _ => continue,
            };
            if name == CLOSED {
                closed = Some(Timestamp(number));
            } else {
                groups.push(ShardGroup {
                    name,
                    state,
                    version: number,
                });
            }
        }
        Ok((groups, closed))
    }

    /// Names of the groups of a shard that are not being deleted, by name.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn groups_on_shard(&self, shard: &Shard) -> Result<Vec<String>, StoreError> {
        let rows = self.group_rows(shard).await?.into_iter();
        Ok(rows
            .filter(|(_, state)| !state.starts_with("deleting"))
            .map(|(name, _)| name)
            .collect())
    }

    async fn group_rows(&self, shard: &Shard) -> Result<Vec<(String, String)>, StoreError> {
        let mut read = Cmd::new();
        read.arg("HGETALL").arg(shard.groups());
        let mut rows = reply::pairs(self.command(Purpose::Control, read).await?)?;
        rows.sort();
        Ok(rows)
    }

    /// The lanes of a shard that one group reads, and how many lanes the shard has.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn read_lanes(
        &self,
        shard: &Shard,
        group: &str,
    ) -> Result<(Arc<[ReadLane]>, Lanes), StoreError> {
        let lanes = self.lanes(shard).await?;
        Ok((lanes.of_group(shard, group), lanes))
    }
}

/// A definition that knows its stored version.
pub(crate) trait Versioned {
    fn set_version(&mut self, version: u64);
}

impl Versioned for GroupDefinition {
    fn set_version(&mut self, version: u64) {
        self.version = version;
    }
}

impl Versioned for StreamDefinition {
    fn set_version(&mut self, version: u64) {
        self.version = version;
    }
}

fn parse<T: DeserializeOwned + Versioned>(name: &str, row: &str) -> Result<T, StoreError> {
    let wrong = || StoreError::Corrupt {
        what: format!("definition of `{name}`"),
    };
    let (version, text) = row.split_once(' ').ok_or_else(wrong)?;
    let mut definition: T = serde_json::from_str(text).map_err(|_error| wrong())?;
    definition.set_version(version.parse().map_err(|_error| wrong())?);
    Ok(definition)
}
