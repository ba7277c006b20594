//! What a user gives: a workflow and its tasks.
//!
//! Every field is always set, as in the settings of a group: what a caller left out is filled in at
//! the door. Payloads are not here; a decision never needs one. [`check`] says what is wrong with a
//! definition, all of it at once, and builds its graph.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use crate::{
    capability::CapabilitySet,
    words::{UnknownWord, words},
};

mod check;

pub use self::check::{Addition, Known, check, check_added, graph_of};

/// Longest deadline and timeout of a workflow and its tasks: 365 days.
pub const DURATION_MS_MAX: u64 = 31_536_000_000;
/// Most tasks of a workflow that may be at work at once.
pub const PARALLEL_TASKS_MAX: u32 = 10_000;
/// Tasks at work at once where the workflow does not say.
pub const PARALLEL_TASKS_DEFAULT: u32 = 50;
/// Most labels of a workflow.
pub const LABELS_MAX: usize = 64;
/// Most bytes of all labels, keys and values together.
pub const LABEL_BYTES_MAX: usize = 8_192;
/// Most capabilities that a task may require, as for any message.
pub const REQUIRED_CAPABILITIES_MAX: usize = 16;

/// What a dependency must be for its dependants to start.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum DependencyMode {
    /// All dependencies succeeded.
    #[default]
    Strict,
    /// A quorum of them succeeded.
    BestEffort,
    /// Nothing: tasks start at once, and their success is provisional until all dependencies
    /// succeeded.
    Optimistic,
}

words!(DependencyMode {
    Strict => "strict",
    BestEffort => "best_effort",
    Optimistic => "optimistic",
});

/// How many tasks run at once, and which of the ready ones goes first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// One at a time, in topological order.
    Sequential,
    /// Everything ready, up to `max_parallel_tasks`.
    Parallel,
    /// Parallel, the limit moved by backlog and success rate.
    Adaptive,
    /// Parallel, by priority.
    PriorityBased,
    /// Parallel, the group chosen by capabilities and load.
    CapabilityMatched,
    /// Adaptive, by priority, the group chosen by capabilities.
    #[default]
    Hybrid,
}

words!(Strategy {
    Sequential => "sequential",
    Parallel => "parallel",
    Adaptive => "adaptive",
    PriorityBased => "priority_based",
    CapabilityMatched => "capability_matched",
    Hybrid => "hybrid",
});

impl Strategy {
    /// Whether a higher priority goes first.
    #[must_use]
    pub const fn is_by_priority(self) -> bool {
        matches!(self, Self::PriorityBased | Self::Hybrid)
    }

    /// Whether the limit of tasks at work moves with the load of the groups.
    #[must_use]
    pub const fn is_adaptive(self) -> bool {
        matches!(self, Self::Adaptive | Self::Hybrid)
    }

    /// Whether groups whose consumers have the capabilities are preferred.
    #[must_use]
    pub const fn is_by_capability(self) -> bool {
        matches!(self, Self::CapabilityMatched | Self::Hybrid)
    }
}

/// What the failure of a task means for its run.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum FailurePolicy {
    /// The run fails: what runs is cancelled, the rest is skipped.
    #[default]
    FailWorkflow,
    /// Who needs it is skipped, the rest goes on.
    SkipDependents,
    /// Its dependants see the failure as an input.
    Continue,
    /// The run is paused, and a person decides.
    Pause,
}

words!(FailurePolicy {
    FailWorkflow => "fail_workflow",
    SkipDependents => "skip_dependents",
    Continue => "continue",
    Pause => "pause",
});

/// What completes a task.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Completion {
    /// The ack of its message.
    #[default]
    Ack,
    /// An ack with a result, or a signal after one without.
    Signal,
}

words!(Completion {
    Ack => "ack",
    Signal => "signal",
});

/// How many dependencies must succeed under [`DependencyMode::BestEffort`].
///
/// Its text is `majority`, `any` or the number.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub enum Quorum {
    /// More than half of them.
    #[default]
    Majority,
    /// One.
    Any,
    /// So many, at least 1.
    Count(u32),
}

impl Quorum {
    /// Dependencies that must succeed, of so many.
    #[must_use]
    pub fn of(self, dependencies: u32) -> u32 {
        match self {
            Self::Majority if dependencies == 0 => 0,
            Self::Majority => (dependencies / 2).saturating_add(1),
            Self::Any => dependencies.min(1),
            Self::Count(count) => count,
        }
    }
}

impl fmt::Display for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Majority => f.write_str("majority"),
            Self::Any => f.write_str("any"),
            Self::Count(count) => write!(f, "{count}"),
        }
    }
}

impl FromStr for Quorum {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "majority" => Ok(Self::Majority),
            "any" => Ok(Self::Any),
            other => other
                .parse()
                .map(Self::Count)
                .map_err(|_not_a_number| UnknownWord::new(other, &["majority", "any", "<number>"])),
        }
    }
}

impl TryFrom<String> for Quorum {
    type Error = UnknownWord;

    fn try_from(text: String) -> Result<Self, UnknownWord> {
        text.parse()
    }
}

impl From<Quorum> for String {
    fn from(quorum: Quorum) -> Self {
        quorum.to_string()
    }
}

/// A task as a user gives it, without its payload.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskDefinition {
    /// Its name, unique in the workflow.
    pub id: String,
    /// The type of agent that it is for; may be empty where `group` is set.
    pub kind: String,
    /// The group that it is for, where the user names one.
    pub group: Option<String>,
    /// Ids of the tasks that it waits for.
    pub dependencies: Vec<String>,
    /// Priority, 0 to 9.
    pub priority: u8,
    /// What an agent must be able to do.
    pub required_capabilities: CapabilitySet,
    /// Longest time from its first start to its outcome in ms; 0 for none, at most 365 days.
    pub timeout_ms: u64,
    /// Longest time from its dispatch to its start in ms; 0 for none, at most 365 days.
    pub queue_timeout_ms: u64,
    /// What its failure means, where that is not what the workflow says.
    pub on_failure: Option<FailurePolicy>,
    /// What completes it.
    pub completion: Completion,
    /// Whether it is wanted, in CEL; empty for always.
    pub condition: String,
    /// How many dependencies must succeed under `best_effort`.
    pub quorum: Quorum,
}

impl TaskDefinition {
    /// The place of a task that an open workflow names as a dependency and nobody added yet.
    #[must_use]
    pub fn awaited(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            ..Self::default()
        }
    }

    /// Whether this is only such a place: no agent could get it.
    #[must_use]
    pub const fn is_awaited(&self) -> bool {
        self.kind.is_empty() && self.group.is_none()
    }
}

/// A workflow as a user gives it, without payloads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkflowDefinition {
    /// Its name, unique in the namespace.
    pub workflow_id: String,
    /// Its tasks. Their places are their numbers.
    pub tasks: Vec<TaskDefinition>,
    /// What a dependency must be for its dependants to start.
    pub dependency_mode: DependencyMode,
    /// Which ready task goes first.
    pub strategy: Strategy,
    /// Most tasks at work at once, 1 to 10,000.
    pub max_parallel_tasks: u32,
    /// Longest time from its start in ms; 0 for none, at most 365 days.
    pub deadline_ms: u64,
    /// What the user notes of it: at most 64, together at most 8 KiB.
    pub labels: BTreeMap<String, String>,
    /// What the failure of a task means that does not say so itself.
    pub on_failure: FailurePolicy,
    /// Whether tasks are added call by call, and dependencies may come later than who needs them.
    pub is_open: bool,
}

impl WorkflowDefinition {
    /// The same with a place for each task that an open workflow names as a dependency and does
    /// not have, in the order in which [`check`] numbers them.
    #[must_use]
    pub fn with_awaited(mut self) -> Self {
        if self.is_open {
            let mut known: BTreeSet<&str> = self.tasks.iter().map(|task| &*task.id).collect();
            let named = self.tasks.iter().flat_map(|task| &task.dependencies);
            let places: Vec<TaskDefinition> = named
                .filter(|id| known.insert(id))
                .map(|id| TaskDefinition::awaited(id))
                .collect();
            self.tasks.extend(places);
        }
        self
    }
}

impl Default for WorkflowDefinition {
    fn default() -> Self {
        Self {
            workflow_id: String::new(),
            tasks: Vec::new(),
            dependency_mode: DependencyMode::default(),
            strategy: Strategy::default(),
            max_parallel_tasks: PARALLEL_TASKS_DEFAULT,
            deadline_ms: 0,
            labels: BTreeMap::new(),
            on_failure: FailurePolicy::default(),
            is_open: false,
        }
    }
}

/// How large a workflow may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most tasks, awaited ones included.
    pub tasks_max: usize,
    /// Most dependencies of one task.
    pub dependencies_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tasks_max: 10_000,
            dependencies_max: 100,
        }
    }
}

#[cfg(test)]
mod tests;
