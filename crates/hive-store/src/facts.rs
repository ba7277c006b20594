//! What is known of the groups of a namespace where a task or an agent looks for one.
//!
//! One answer for all groups in three round trips, whatever their number: a choice among groups
//! needs no more than how much is to be done, what that requires and who is there, so this costs
//! far less than the figures of each group. A shared lane is asked once for all of its groups.
//!
//! Callers keep an answer for a second or so; nothing is remembered here.

use std::collections::{BTreeMap, BTreeSet};

use hive_domain::{
    capability::CapabilitySet,
    group::{GroupDefinition, GroupState},
    placement::GroupFacts,
};
use redis::{Pipeline, Value};

use crate::{
    connection::{Purpose, Store},
    error::StoreError,
    figures,
    keys::{GroupKey, Shard},
    lane::{Lane, LaneRef},
    lease::parse_entry_id,
    members,
    reply::{self, Reply},
};

/// Commands of one round trip at most: replies of more would hold up what others ask.
const COMMANDS_MAX: usize = 1_000;
/// Members of a group whose capabilities are read, about: of more, some stand for all.
const MEMBERS_READ: u64 = 1_000;

impl Store {
    /// The groups of a namespace by name, those that are being deleted among them.
    ///
    /// # Errors
    /// As in `StoreError`; `Corrupt` when a row of a member or a lane does not parse.
    pub async fn group_facts(&self, namespace: &str) -> Result<Vec<GroupFacts>, StoreError> {
        let definitions = self.groups(namespace).await?;
        let live: Vec<(&GroupDefinition, Shard)> = definitions
            .iter()
            .filter(|group| group.state != GroupState::Deleting)
            .flat_map(|group| {
                let shards = 0..group.shards;
                shards.map(move |index| (group, self.shard(namespace, &group.stream, index)))
            })
            .collect();
        let mut held = self.held_of(&live).await?;
        let mut found: BTreeMap<&str, GroupFacts> = definitions
            .iter()
            .map(|group| (group.name.as_str(), of_definition(group)))
            .collect();
        let mut commands = Commands::default();
        for (group, shard) in &live {
            let counters = shard.group(&group.name, GroupKey::Counters);
            commands.add(&["HMGET", &counters, "published", "settled"]);
            let members = shard.group(&group.name, GroupKey::Members);
            commands.add(&["HLEN", &members]);
            commands.add(&["HSCAN", &members, "0", "COUNT", &MEMBERS_READ.to_string()]);
        }
        let mut replies = self.in_rounds(commands).await?.into_iter();
        let mut next = || replies.next().ok_or_else(|| StoreError::reply("facts"));
        for (group, shard) in &live {
            let unsettled = unsettled(next()?)?;
            let live_consumers = u32::try_from(next()?.number()?).unwrap_or(u32::MAX);
            let capabilities = capabilities(next()?, &group.name)?;
            let place = (shard.tag().to_owned(), group.name.clone());
            let held = held.remove(&place).unwrap_or_default();
            if let Some(facts) = found.get_mut(group.name.as_str()) {
                let waiting = unsettled.saturating_sub(held.pending);
                facts.pending += held.pending;
                facts.waiting += waiting;
                facts.live_consumers = facts.live_consumers.max(live_consumers);
                facts.capabilities.extend(capabilities);
                // Where nothing waits, the newest entry of a lane is one that came to its end
                // there.
                let waits = if waiting > 0 {
                    held.waits
                } else {
                    BTreeSet::new()
                };
                let wanted: BTreeSet<CapabilitySet> = facts
                    .wanted_sets
                    .drain(..)
                    .chain(held.wanted)
                    .chain(waits)
                    .collect();
                facts.wanted_sets.extend(wanted);
            }
        }
        Ok(found.into_values().collect())
    }

    /// What the lanes say of each group, by the tag of the shard and name.
    async fn held_of(
        &self,
        live: &[(&GroupDefinition, Shard)],
    ) -> Result<BTreeMap<(String, String), Held>, StoreError> {
        let lanes = self.lanes_of(live).await?;
        let mut commands = Commands::default();
        for read in &lanes {
            commands.add(&["XINFO", "GROUPS", &read.shard.lane(&read.lane)]);
        }
        let mut held: BTreeMap<(String, String), Held> = BTreeMap::new();
        for (read, groups) in lanes.iter().zip(self.in_rounds(commands).await?) {
            let (lane, newest) = (&read.lane.lane, parse_entry_id(&read.newest));
            for (name, pending, last) in figures::positions(groups)? {
                let place = (read.shard.tag().to_owned(), name);
                let of_group = held.entry(place).or_default();
                of_group.pending += pending;
                // What is for one consumer asks for nobody else.
                if !lane.consumer.is_empty() {
                    continue;
                }
                if pending > 0 {
                    of_group.wanted.insert(required(lane));
                } else if parse_entry_id(&last) < newest {
                    of_group.waits.insert(required(lane));
                }
            }
        }
        Ok(held)
    }

    /// The lanes that any of these groups reads, each once.
    pub(crate) async fn lanes_of(
        &self,
        live: &[(&GroupDefinition, Shard)],
    ) -> Result<Vec<LaneRead>, StoreError> {
        let names: BTreeSet<(&str, &str)> = live
            .iter()
            .map(|(group, shard)| (shard.tag(), group.name.as_str()))
            .collect();
        let shards: BTreeMap<&str, &Shard> =
            live.iter().map(|(_, shard)| (shard.tag(), shard)).collect();
        let mut commands = Commands::default();
        for shard in shards.values() {
            commands.add(&["HGETALL", &shard.lanes()]);
        }
        let mut lanes = Vec::new();
        for (shard, found) in shards.values().zip(self.in_rounds(commands).await?) {
            for (name, newest) in reply::pairs(found)? {
                let lane: LaneRef = name.parse().map_err(|error| StoreError::Corrupt {
                    what: format!("key `lanes`: {error}"),
                })?;
                // A lane of all groups that names a consumer has no Redis group.
                let is_read = if lane.group.is_empty() {
                    lane.lane.consumer.is_empty()
                } else {
                    names.contains(&(shard.tag(), &lane.group))
                };
                if is_read {
                    lanes.push(LaneRead {
                        shard: (*shard).clone(),
                        lane,
                        newest,
                    });
                }
            }
        }
        Ok(lanes)
    }

    /// As [`Self::in_rounds`], where what is gone or of another kind has an empty reply: the
    /// trouble of one lane is none of the other groups'.
    pub(crate) async fn in_rounds_or_empty(
        &self,
        commands: Commands,
    ) -> Result<Vec<Reply>, StoreError> {
        let mut replies = Vec::with_capacity(commands.count);
        for round in commands.rounds {
            for mut value in self.pipeline_raw(Purpose::Control, round).await? {
                if let Value::ServerError(error) = value {
                    let error = StoreError::of_command(&error.into());
                    if error.is_transient() {
                        return Err(error);
                    }
                    value = Value::Nil;
                }
                replies.push(Reply::new("a command", value));
            }
        }
        Ok(replies)
    }

    pub(crate) async fn in_rounds(&self, commands: Commands) -> Result<Vec<Reply>, StoreError> {
        let mut replies = Vec::with_capacity(commands.count);
        for round in commands.rounds {
            replies.extend(self.pipeline(Purpose::Control, round).await?);
        }
        Ok(replies)
    }
}

/// A lane that some group reads.
pub(crate) struct LaneRead {
    pub(crate) shard: Shard,
    pub(crate) lane: LaneRef,
    /// Id of its newest entry.
    newest: String,
}

/// What the lanes of a shard say of a group.
#[derive(Default)]
struct Held {
    /// Messages that its consumers and indexes hold.
    pending: u64,
    /// What these require.
    wanted: BTreeSet<CapabilitySet>,
    /// What those behind them require, and of lanes whose last ones came to their end undelivered.
    waits: BTreeSet<CapabilitySet>,
}

/// What the entries of a lane require.
fn required(lane: &Lane) -> CapabilitySet {
    let names = lane.capabilities.split(',').filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

/// Commands in round trips of a bounded size.
#[derive(Default)]
pub(crate) struct Commands {
    rounds: Vec<Pipeline>,
    count: usize,
}

impl Commands {
    pub(crate) fn add(&mut self, words: &[&str]) {
        if self.count.is_multiple_of(COMMANDS_MAX) {
            self.rounds.push(Pipeline::new());
        }
        self.count += 1;
        if let (Some(round), Some((name, arguments))) =
            (self.rounds.last_mut(), words.split_first())
        {
            round.cmd(name);
            for argument in arguments {
                round.arg(*argument);
            }
        }
    }
}

fn of_definition(group: &GroupDefinition) -> GroupFacts {
    GroupFacts {
        name: group.name.clone(),
        stream: group.stream.clone(),
        agent_type: group.agent_type.clone(),
        waiting: 0,
        pending: 0,
        live_consumers: 0,
        max_consumers: group.settings.max_consumers,
        capabilities: Vec::new(),
        wanted_sets: Vec::new(),
        state: group.state,
    }
}

/// Accepted and not settled, by the counters of a group.
fn unsettled(counters: Reply) -> Result<u64, StoreError> {
    let [published, settled] = counters.array()?;
    let number = |reply: Reply| -> Result<u64, StoreError> {
        let text = reply.maybe_text()?;
        Ok(text.and_then(|text| text.parse().ok()).unwrap_or_default())
    };
    Ok(number(published)?.saturating_sub(number(settled)?))
}

/// The different sets of capabilities among the members that a scan answers.
fn capabilities(scanned: Reply, group: &str) -> Result<Vec<CapabilitySet>, StoreError> {
    let [_cursor, rows] = scanned.array()?;
    let mut sets = BTreeSet::new();
    for (consumer, row) in reply::pairs(rows)? {
        let member = members::parse_member(&consumer, &row).ok_or_else(|| StoreError::Corrupt {
            what: format!("member `{consumer}` of group `{group}`"),
        })?;
        sets.insert(member.capabilities.into_iter().collect::<CapabilitySet>());
    }
    Ok(sets.into_iter().collect())
}
