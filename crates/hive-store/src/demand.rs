//! How much work the groups of a namespace have, and who is there for it: what their scaling is
//! decided on, and what their metrics show.
//!
//! One answer for all groups in a few round trips, whatever their number. It is read once a second
//! by each coordinator for its groups, so it asks only what it must: the sizes of indexes where a
//! group has something pending, the heads of lanes where something waits.

use std::collections::{BTreeMap, BTreeSet};

use hive_domain::group::GroupDefinition;

use crate::{
    connection::Store,
    error::StoreError,
    facts::{Commands, LaneRead},
    fetch::read_entry,
    figures::{self, Figures},
    keys::{GroupKey, Shard},
    lane::LaneRef,
    lease::parse_entry_id,
    members::{self, Member},
    reply::{self, Reply},
};

/// The work of a group at one moment, summed over its shards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupDemand {
    /// Redis' time of this reading, in ms since 1970.
    pub now_ms: u64,
    /// Accepted since the group's creation.
    pub published: u64,
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
    /// Accepted and never delivered.
    pub waiting: u64,
    /// Held by consumers.
    pub leased: u64,
    /// Delivered before or held for a consumer for a while, to be delivered at once.
    pub ready: u64,
    /// Delayed by a backoff, or parked behind another message of its ordering key.
    pub later: u64,
    /// Age of the oldest waiting message, in ms; 0 without.
    pub oldest_waiting_ms: u64,
    /// Acked within the last 5 minutes.
    pub recent_acked: u64,
    /// Failed attempts within the last 5 minutes.
    pub recent_failed: u64,
    /// Time from delivery to ack, summed over the last 5 minutes, in ms.
    pub recent_work_ms: u64,
    /// What the recent counts cover, in ms: at most 300,000.
    pub recent_ms: u64,
    /// Members, those whose rows cannot be read among them. Who of them is draining is not known
    /// here.
    pub consumers: u32,
    /// Messages that the members work on at once, summed.
    pub slots: u32,
    /// The members by id, without those whose rows cannot be read.
    pub members: Vec<Member>,
}

impl Store {
    /// The work of these groups of a namespace by name; one that is not on its shards yet has none.
    ///
    /// # Errors
    /// As in `StoreError`; `Corrupt` when a key does not parse that is not a member's.
    pub async fn demand(
        &self,
        namespace: &str,
        groups: &[&GroupDefinition],
    ) -> Result<BTreeMap<String, GroupDemand>, StoreError> {
        let live: Vec<(&GroupDefinition, Shard)> = groups
            .iter()
            .flat_map(|group| {
                let shards = 0..group.shards;
                shards.map(move |index| (*group, self.shard(namespace, &group.stream, index)))
            })
            .collect();
        if live.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut parts = self.read_parts(&live).await?;
        self.read_work(&mut parts).await?;
        let mut found: BTreeMap<String, GroupDemand> = BTreeMap::new();
        for part in parts {
            let name = part.group.to_owned();
            part.add_to(found.entry(name).or_default());
        }
        for demand in found.values_mut() {
            // A consumer of several shards is one, and works on as many in all.
            demand.members.sort_by(|a, b| a.consumer.cmp(&b.consumer));
            demand.members.dedup_by(|a, b| a.consumer == b.consumer);
            let slots = demand.members.iter().map(|member| member.concurrency);
            demand.slots = slots.fold(0, u32::saturating_add);
            let known = u32::try_from(demand.members.len()).unwrap_or(u32::MAX);
            demand.consumers = demand.consumers.max(known);
        }
        Ok(found)
    }

    /// Counters, members and positions of all groups, in two steps of round trips.
    async fn read_parts<'a>(
        &self,
        live: &'a [(&GroupDefinition, Shard)],
    ) -> Result<Vec<Part<'a>>, StoreError> {
        let lanes = self.lanes_of(live).await?;
        let mut commands = Commands::default();
        commands.add(&["TIME"]);
        for LaneRead { shard, lane, .. } in &lanes {
            commands.add(&["XINFO", "GROUPS", &shard.lane(lane)]);
        }
        for (group, shard) in live {
            let of_group = |key| shard.group(&group.name, key);
            commands.add(&["HGETALL", &of_group(GroupKey::Counters)]);
            commands.add(&["HGETALL", &of_group(GroupKey::Members)]);
        }
        let mut replies = self.in_rounds_or_empty(commands).await?.into_iter();
        let mut next = || replies.next().ok_or_else(|| StoreError::reply("demand"));
        let [seconds, micros] = next()?.array()?;
        let now_ms = seconds.number()? * 1_000 + micros.number()? / 1_000;
        let wanted: BTreeSet<(&str, &str)> = live
            .iter()
            .map(|(group, shard)| (shard.tag(), group.name.as_str()))
            .collect();
        let mut positions: BTreeMap<(&str, String), Vec<Position<'_>>> = BTreeMap::new();
        for LaneRead { shard, lane, .. } in &lanes {
            for (group, pending, last) in figures::positions(next()?)? {
                if wanted.contains(&(shard.tag(), group.as_str())) {
                    let of_group = positions.entry((shard.tag(), group)).or_default();
                    of_group.push(Position {
                        lane,
                        pending,
                        last,
                    });
                }
            }
        }
        let mut parts = Vec::with_capacity(live.len());
        for (group, shard) in live {
            let counters: BTreeMap<String, u64> = reply::pairs(next()?)?
                .into_iter()
                .map(|(name, value)| (name, value.parse().unwrap_or_default()))
                .collect();
            let members = next()?;
            let place = (shard.tag(), group.name.clone());
            let positions = positions.remove(&place).unwrap_or_default();
            parts.push(Part::new(
                (&group.name, shard),
                figures::of_counters(&counters, now_ms),
                members,
                &positions,
            )?);
        }
        Ok(parts)
    }

    /// Sizes of indexes where something is pending, and heads of lanes where something waits.
    async fn read_work(&self, parts: &mut [Part<'_>]) -> Result<(), StoreError> {
        let mut commands = Commands::default();
        for part in &*parts {
            for key in part.indexes() {
                commands.add(&["ZCARD", &key]);
            }
            for (stream, last) in part.heads() {
                commands.add(&["XRANGE", stream, &format!("({last}"), "+", "COUNT", "1"]);
            }
        }
        let mut replies = self.in_rounds_or_empty(commands).await?.into_iter();
        let mut next = || replies.next().ok_or_else(|| StoreError::reply("demand"));
        for part in parts {
            let mut sizes = Vec::new();
            for _ in part.indexes() {
                sizes.push(next()?.number()?);
            }
            part.place(&sizes);
            let mut oldest: Option<u64> = None;
            for _ in part.heads() {
                if let Some(entry) = next()?.list()?.into_iter().next() {
                    let (id, _) = read_entry(entry)?;
                    let ms = parse_entry_id(&id).map(|(ms, _)| ms);
                    oldest = oldest.into_iter().chain(ms).min();
                }
            }
            part.oldest_ms = oldest;
        }
        Ok(())
    }
}

/// Where a group stands in a lane.
struct Position<'a> {
    lane: &'a LaneRef,
    pending: u64,
    last: String,
}

/// A group on one shard.
struct Part<'a> {
    group: &'a str,
    shard: &'a Shard,
    figures: Figures,
    members: Vec<Member>,
    consumers: usize,
    /// Ready sets of the lanes where it has something pending.
    ready: BTreeSet<String>,
    /// Streams of its lanes, and up to where it read them.
    lanes: Vec<(String, String)>,
    oldest_ms: Option<u64>,
}

impl<'a> Part<'a> {
    fn new(
        (group, shard): (&'a str, &'a Shard),
        mut figures: Figures,
        members: Reply,
        positions: &[Position<'_>],
    ) -> Result<Self, StoreError> {
        figures.pending = positions.iter().map(|position| position.pending).sum();
        figures.waiting = figures
            .published
            .saturating_sub(figures.settled)
            .saturating_sub(figures.pending);
        let rows = reply::pairs(members)?;
        let ready = positions.iter().filter(|position| position.pending > 0);
        Ok(Self {
            group,
            shard,
            consumers: rows.len(),
            members: rows
                .iter()
                .filter_map(|(consumer, row)| members::parse_member(consumer, row))
                .collect(),
            ready: ready
                .map(|position| shard.ready(group, &position.lane.lane.suffix()))
                .collect(),
            lanes: positions
                .iter()
                .map(|position| (shard.lane(position.lane), position.last.clone()))
                .collect(),
            figures,
            oldest_ms: None,
        })
    }

    /// What lies in an index is pending: without that there is nothing to ask for.
    fn indexes(&self) -> Vec<String> {
        if self.figures.pending == 0 {
            return Vec::new();
        }
        let keys = [GroupKey::Delayed, GroupKey::Parked, GroupKey::Held];
        let keys = keys.map(|key| self.shard.group(self.group, key));
        keys.into_iter().chain(self.ready.iter().cloned()).collect()
    }

    fn heads(&self) -> impl Iterator<Item = &(String, String)> {
        let is_waiting = self.figures.waiting > 0;
        self.lanes.iter().filter(move |_| is_waiting)
    }

    /// Tells what is pending apart by the sizes of its indexes.
    fn place(&mut self, sizes: &[u64]) {
        let [delayed, parked, held, ready @ ..] = sizes else {
            return;
        };
        let figures = &mut self.figures;
        // What is held for a consumer for a while is delayed too, and may be worked on at once.
        let held = *held.min(delayed);
        figures.ready = ready.iter().sum::<u64>() + held;
        figures.delayed = delayed - held;
        figures.parked = *parked;
        figures.leased = figures
            .pending
            .saturating_sub(figures.ready)
            .saturating_sub(figures.delayed)
            .saturating_sub(figures.parked);
    }

    fn add_to(self, demand: &mut GroupDemand) {
        let figures = self.figures;
        demand.now_ms = figures.now_ms;
        demand.published += figures.published;
        demand.acked += figures.acked;
        demand.failed += figures.failed;
        demand.dead += figures.dead;
        demand.redelivered += figures.redelivered;
        demand.released += figures.released;
        demand.expired += figures.expired;
        demand.waiting += figures.waiting;
        demand.leased += figures.leased;
        demand.ready += figures.ready;
        demand.later += figures.delayed + figures.parked;
        let age = self.oldest_ms.map(|ms| figures.now_ms.saturating_sub(ms));
        demand.oldest_waiting_ms = demand.oldest_waiting_ms.max(age.unwrap_or_default());
        demand.recent_acked += figures.recent_acked;
        demand.recent_failed += figures.recent_failed;
        demand.recent_work_ms += figures.recent_work_ms;
        demand.recent_ms = figures.recent_seconds * 1_000;
        let consumers = u32::try_from(self.consumers).unwrap_or(u32::MAX);
        demand.consumers = demand.consumers.max(consumers);
        demand.members.extend(self.members);
    }
}
