//! Who lives and what is defined, as of the last beat, for those who look after groups.
//!
//! Groups are shared by rendezvous hashing, as shards are, and apart from them: how many consumers
//! a group wants has nothing to do with where its messages lie.

use std::collections::BTreeMap;
use std::sync::Arc;

use hive_domain::group::{GroupDefinition, GroupState};
use hive_domain::ownership;

/// Name of a group in its namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupName {
    pub(crate) namespace: Arc<str>,
    pub(crate) group: Arc<str>,
}

impl std::fmt::Display for GroupName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.group)
    }
}

/// Groups by namespace, by name.
pub(crate) type Groups = BTreeMap<Arc<str>, BTreeMap<Arc<str>, GroupDefinition>>;

/// What is known of all groups, and who shares them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Roster {
    /// This replica.
    pub(crate) me: String,
    /// Live coordinators; none while Redis holds other data than was known.
    pub(crate) coordinators: Vec<String>,
    /// How often this replica came back after others may have looked after what is its: what it
    /// remembers of that may be old.
    pub(crate) returns: u64,
    /// All groups.
    pub(crate) groups: Groups,
}

impl Roster {
    /// Whether this replica looks after what `key` names.
    pub(crate) fn is_mine(&self, key: &str) -> bool {
        ownership::owner(key, &self.coordinators) == Some(self.me.as_str())
    }

    /// The groups that deliver, or will again, and that this replica looks after.
    pub(crate) fn owned(&self) -> impl Iterator<Item = (GroupName, &GroupDefinition)> {
        let all = self.groups.iter().flat_map(|(namespace, groups)| {
            groups.iter().map(move |(group, definition)| {
                let name = GroupName {
                    namespace: Arc::clone(namespace),
                    group: Arc::clone(group),
                };
                (name, definition)
            })
        });
        all.filter(|(name, definition)| is_live(definition) && self.is_mine(&name.to_string()))
    }
}

/// Whether a group delivers, or will again.
pub(crate) fn is_live(group: &GroupDefinition) -> bool {
    match group.state {
        GroupState::Active | GroupState::Paused => true,
        GroupState::Creating | GroupState::Deleting => false,
    }
}
