//! Names of all keys. Every key of a shard carries one hash tag, so that a script touches one slot.

use std::{fmt, sync::Arc};

use crate::lane::LaneRef;

/// One shard of a stream: the unit of atomicity.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard {
    base: Arc<str>,
}

impl Shard {
    /// The shard `index` of a stream in a namespace. The names were checked at the door: they hold
    /// neither braces nor slashes, so the tag is unambiguous.
    #[must_use]
    pub fn new(prefix: &str, namespace: &str, stream: &str, index: u32) -> Self {
        Self {
            base: format!("{prefix}:{{{namespace}/{stream}/{index}}}:").into(),
        }
    }

    fn key(&self, tail: &str) -> String {
        format!("{}{tail}", self.base)
    }

    /// Groups and their states.
    #[must_use]
    pub fn groups(&self) -> String {
        self.key("groups")
    }

    /// Lanes and their newest entries.
    #[must_use]
    pub fn lanes(&self) -> String {
        self.key("lanes")
    }

    /// Stored replies of the flushes of one gateway incarnation.
    #[must_use]
    pub fn flush(&self, incarnation: &str) -> String {
        self.key(&format!("flush:{incarnation}"))
    }

    /// Stored verdicts of the last settles of one process.
    #[must_use]
    pub fn verdicts(&self, process: &str) -> String {
        self.key(&format!("verdicts:{process}"))
    }

    /// Last sequence of each producer.
    #[must_use]
    pub fn producers(&self) -> String {
        self.key("producers")
    }

    /// Messages published with a delay, by due time.
    #[must_use]
    pub fn scheduled(&self) -> String {
        self.key("scheduled")
    }

    /// Bodies of the scheduled messages.
    #[must_use]
    pub fn bodies(&self) -> String {
        self.key("scheduled:bodies")
    }

    /// Idempotency keys of one slice and one 6 h bucket.
    #[must_use]
    pub fn dedup(&self, bucket: u64, slice: u64) -> String {
        self.key(&format!("dedup:{bucket}:{slice}"))
    }

    /// Dead letters that no worker has taken yet.
    #[must_use]
    pub fn dead(&self) -> String {
        self.key("dead")
    }

    /// Up to which of these the dead-letter worker has stored them.
    #[must_use]
    pub fn dead_taken(&self) -> String {
        self.key("dead:taken")
    }

    /// Tasks of workflows by dispatch key, and where each stands.
    #[must_use]
    pub fn tasks(&self) -> String {
        self.key("tasks")
    }

    /// What became of tasks, for the router; the channel of its bell has the same name.
    #[must_use]
    pub fn settled(&self) -> String {
        self.key("settled")
    }

    /// Up to which of these records the router has applied them.
    #[must_use]
    pub fn settled_applied(&self) -> String {
        self.key("settled:applied")
    }

    /// What became of tracked messages, for whoever asks; its name is its channel too.
    #[must_use]
    pub fn outcomes(&self) -> String {
        self.key("outcomes")
    }

    /// Replays of the history of the shard.
    #[must_use]
    pub fn replays(&self) -> String {
        self.key("replays")
    }

    /// Channel on which gateways hear that a lease of a task or tracked message is over.
    #[must_use]
    pub fn cancels(&self) -> String {
        self.key("cancels")
    }

    /// Up to which entry all of a lane was settled when its last group went.
    #[must_use]
    pub fn settled_below(&self) -> String {
        self.key("settled_below")
    }

    /// Bytes that each lane holds, and how many delayed messages are for it.
    #[must_use]
    pub fn sizes(&self) -> String {
        self.key("sizes")
    }

    /// Last time seen, run id, grace.
    #[must_use]
    pub fn clock(&self) -> String {
        self.key("clock")
    }

    /// Last beat of each gateway that serves this shard.
    #[must_use]
    pub fn gateways(&self) -> String {
        self.key("gateways")
    }

    /// Channel on which new work is announced.
    #[must_use]
    pub fn doorbell(&self) -> String {
        self.key("bell")
    }

    /// The stream of a lane.
    #[must_use]
    pub fn lane(&self, lane: &LaneRef) -> String {
        if lane.group.is_empty() {
            self.key(&format!("lane:{}", lane.lane))
        } else {
            self.key(&format!("g:{}:lane:{}", lane.group, lane.lane))
        }
    }

    /// One of the keys of a group.
    #[must_use]
    pub fn group(&self, group: &str, key: GroupKey) -> String {
        self.key(&format!("g:{group}:{}", key.as_str()))
    }

    /// The ready set that entries of lanes with this suffix wait in.
    #[must_use]
    pub fn ready(&self, group: &str, suffix: &str) -> String {
        self.key(&format!("g:{group}:ready{suffix}"))
    }

    /// The hash tag with what is before it: two keys with equal tags lie in one slot.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.base
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

/// The keys that every group has once per shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupKey {
    /// Entries waiting out a backoff, by due time.
    Delayed,
    /// Ordering key -> entry in flight.
    Busy,
    /// Entries whose ordering key is busy.
    Parked,
    /// Failed attempts of each entry.
    Failures,
    /// Members and their sessions.
    Members,
    /// Totals and one-minute buckets.
    Counters,
    /// When each lane was last served, and whether it was empty then.
    Served,
    /// Free credit of each gateway.
    Credit,
    /// Tasks held for the consumer that last worked on their run, by due time.
    Held,
    /// Consumer that last worked on each workflow run.
    Affinity,
    /// The same of runs before the latest ones.
    AffinityOld,
}

impl GroupKey {
    /// All of them, for the deletion of a group.
    pub const ALL: [Self; 11] = [
        Self::Delayed,
        Self::Busy,
        Self::Parked,
        Self::Failures,
        Self::Members,
        Self::Counters,
        Self::Served,
        Self::Credit,
        Self::Held,
        Self::Affinity,
        Self::AffinityOld,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Delayed => "delayed",
            Self::Busy => "busy",
            Self::Parked => "parked",
            Self::Failures => "failures",
            Self::Members => "members",
            Self::Counters => "counters",
            Self::Served => "served",
            Self::Credit => "credit",
            Self::Held => "held",
            Self::Affinity => "affinity",
            Self::AffinityOld => "affinity_old",
        }
    }
}

/// Keys of the control plane: definitions and the daemon registry.
#[derive(Debug, Clone)]
pub struct ControlKeys {
    prefix: Arc<str>,
}

impl ControlKeys {
    /// The control keys under a prefix.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.into(),
        }
    }

    /// Stream definitions of a namespace.
    #[must_use]
    pub fn streams(&self, namespace: &str) -> String {
        format!("{}:{{ctl/{namespace}}}:streams", self.prefix)
    }

    /// Group definitions of a namespace.
    #[must_use]
    pub fn groups(&self, namespace: &str) -> String {
        format!("{}:{{ctl/{namespace}}}:groups", self.prefix)
    }

    /// Namespaces that have a definition.
    #[must_use]
    pub fn namespaces(&self) -> String {
        format!("{}:{{ctl}}:namespaces", self.prefix)
    }

    /// Namespaces that ever had a workflow.
    #[must_use]
    pub fn workflow_namespaces(&self) -> String {
        format!("{}:{{ctl}}:workflow_namespaces", self.prefix)
    }

    /// Live daemons.
    #[must_use]
    pub fn daemons(&self) -> String {
        format!("{}:{{ctl}}:daemons", self.prefix)
    }

    /// How the groups of a namespace are scaled; the channel of changes has the same name.
    #[must_use]
    pub fn scaling(&self, namespace: &str) -> String {
        format!("{}:{{ctl/{namespace}}}:scaling", self.prefix)
    }

    /// What was noted of the scaling of a namespace, in order.
    #[must_use]
    pub fn scaling_events(&self, namespace: &str) -> String {
        format!("{}:{{ctl/{namespace}}}:scaling:events", self.prefix)
    }

    /// The namespace whose scaling is told on a channel; none where it is another channel.
    #[must_use]
    pub fn namespace_of_scaling<'a>(&self, channel: &'a str) -> Option<&'a str> {
        let rest = channel.strip_prefix(&*self.prefix)?;
        rest.strip_prefix(":{ctl/")?.strip_suffix("}:scaling")
    }

    /// Configuration of the coordinators.
    #[must_use]
    pub fn coordinator_config(&self) -> String {
        format!("{}:{{ctl}}:coordinator_config", self.prefix)
    }

    /// Random word stored at first start: its absence afterwards means that the data is gone.
    #[must_use]
    pub fn nonce(&self) -> String {
        format!("{}:{{ctl}}:nonce", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::Lane;

    /// Slot of a key by the rule of the Redis Cluster specification: what is between the first
    /// brace and the next closing one is hashed, so equal tags are equal slots.
    fn tag(key: &str) -> &str {
        let (_, rest) = key.split_once('{').expect("a key has a tag");
        rest.split_once('}').expect("a tag ends").0
    }

    #[test]
    fn all_keys_of_a_shard_share_one_slot() {
        let shard = Shard::new("hive", "default", "agent_messages:backend", 0);
        let lane = LaneRef::of_group("g", Lane::plain(4));
        let mut keys = vec![
            shard.groups(),
            shard.lanes(),
            shard.flush("a"),
            shard.producers(),
            shard.scheduled(),
            shard.bodies(),
            shard.dedup(1, 2),
            shard.dead(),
            shard.dead_taken(),
            shard.tasks(),
            shard.settled(),
            shard.settled_applied(),
            shard.outcomes(),
            shard.replays(),
            shard.cancels(),
            shard.settled_below(),
            shard.sizes(),
            shard.clock(),
            shard.gateways(),
            shard.doorbell(),
            shard.lane(&lane),
            shard.lane(&LaneRef::of_all(Lane::plain(4))),
            shard.ready("g", "+gpu"),
        ];
        keys.extend(GroupKey::ALL.map(|key| shard.group("g", key)));
        for key in &keys {
            assert_eq!(tag(key), "default/agent_messages:backend/0", "{key}");
        }
        let mut distinct = keys.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), keys.len(), "no two keys are the same");
    }

    #[test]
    fn the_keys_of_scaling_share_one_slot_and_a_channel_tells_its_namespace() {
        let keys = ControlKeys::new("hive");
        let scaling = keys.scaling("n1");
        assert_eq!(tag(&scaling), tag(&keys.scaling_events("n1")));
        assert_eq!(keys.namespace_of_scaling(&scaling), Some("n1"));
        for other in [keys.scaling_events("n1"), keys.groups("n1"), "x".into()] {
            assert_eq!(keys.namespace_of_scaling(&other), None, "{other}");
        }
    }
}
