//! What becomes of a dead letter by itself: sent back at a time, or left for a person.
//!
//! Only failures that pass by themselves go back, a bounded number of times in a message's life.
//! The count is handed in: it must follow the message through its replays, and only records know
//! it. The circuit breaker of the group is asked besides; see `breaker`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::category::Category;
use crate::{time::Timestamp, violation::Violations, words::words};

/// What is done about a dead letter.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Sent back at once.
    ImmediateRetry,
    /// Sent back after a backoff.
    DelayedRetry,
    /// Sent back after a backoff, with a higher priority.
    RequeueWithPriority,
    /// A person decides.
    #[default]
    ManualIntervention,
    /// Recommended for a task that its workflow can do without: a person skips it.
    SkipAndContinue,
    /// Recommended where the whole run is to start anew: a person restarts it.
    WorkflowRestart,
    /// Recommended where it will never succeed: a person marks it.
    PermanentDiscard,
}

words!(Strategy {
    ImmediateRetry => "immediate_retry",
    DelayedRetry => "delayed_retry",
    RequeueWithPriority => "requeue_with_priority",
    ManualIntervention => "manual_intervention",
    SkipAndContinue => "skip_and_continue",
    WorkflowRestart => "workflow_restart",
    PermanentDiscard => "permanent_discard",
});

impl Strategy {
    /// The strategy of a word, or none.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        word.parse().ok()
    }

    /// Whether it sends a message back without a person.
    #[must_use]
    pub const fn is_automatic(self) -> bool {
        matches!(
            self,
            Self::ImmediateRetry | Self::DelayedRetry | Self::RequeueWithPriority
        )
    }

    /// Whether it means anything only for a task of a workflow.
    #[must_use]
    pub const fn is_for_tasks(self) -> bool {
        matches!(self, Self::SkipAndContinue | Self::WorkflowRestart)
    }
}

/// The strategies of a namespace and the bounds of those that act by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// The strategy of each category; one that is missing is left to a person.
    pub strategies: BTreeMap<Category, Strategy>,
    /// Automatic replays in the life of a message, 0 to 100; 0 for none.
    pub max_auto_replays: u32,
    /// Longest wait before the first automatic replay, 0 to 1 h, in ms. Doubles with each further.
    pub initial_ms: u64,
    /// Longest wait before any, `initial_ms` to 24 h, in ms.
    pub max_ms: u64,
    /// Automatic replays of a round, 1 to 10,000.
    pub batch: u32,
}

/// Most automatic replays that a policy may allow in the life of a message.
pub const AUTO_REPLAYS_MAX: u32 = 100;
/// Longest first wait that a policy may name, in ms.
pub const INITIAL_MS_MAX: u64 = 3_600_000;
/// Longest wait that a policy may name, in ms.
pub const WAIT_MS_MAX: u64 = 86_400_000;
/// Most automatic replays of a round that a policy may name.
pub const BATCH_MAX: u32 = 10_000;
/// A service that asked for less waits so many times longer before it is asked again: quotas are
/// mostly counted by the minute, which the usual first wait of half a minute would meet again.
const RATE_LIMITED_FACTOR: u64 = 4;

impl Default for Policy {
    fn default() -> Self {
        let strategy = |category: &Category| {
            let strategy = if category.is_transient() {
                Strategy::DelayedRetry
            } else {
                Strategy::ManualIntervention
            };
            (*category, strategy)
        };
        Self {
            strategies: Category::ALL.iter().map(strategy).collect(),
            max_auto_replays: 3,
            initial_ms: 30_000,
            max_ms: 1_800_000,
            batch: 50,
        }
    }
}

impl Policy {
    /// The strategy of a category.
    #[must_use]
    pub fn strategy(&self, category: Category) -> Strategy {
        self.strategies.get(&category).copied().unwrap_or_default()
    }

    /// Checks ranges, and that nothing goes back by itself which cannot pass by itself.
    ///
    /// # Errors
    /// A violation for each field at fault.
    pub fn validate(&self) -> Result<(), Violations> {
        let mut violations = Violations::new();
        for (category, strategy) in &self.strategies {
            if strategy.is_automatic() && !category.is_transient() {
                violations.push(
                    format!("strategies.{category}"),
                    format!(
                        "`{strategy}` acts by itself and must name a failure that passes by \
                             itself"
                    ),
                );
            }
        }
        range(
            &mut violations,
            "max_auto_replays",
            self.max_auto_replays,
            (0, AUTO_REPLAYS_MAX),
        );
        range(
            &mut violations,
            "initial_ms",
            self.initial_ms,
            (0, INITIAL_MS_MAX),
        );
        range(
            &mut violations,
            "max_ms",
            self.max_ms,
            (self.initial_ms, WAIT_MS_MAX),
        );
        range(&mut violations, "batch", self.batch, (1, BATCH_MAX));
        violations.into_result()
    }
}

/// Notes a value out of its range; both ends belong to it.
pub(super) fn range<T: PartialOrd + std::fmt::Display + Copy>(
    violations: &mut Violations,
    field: &str,
    value: T,
    (least, most): (T, T),
) {
    if value < least || value > most {
        violations.push(
            field,
            format!("`{value}` must be between {least} and {most}"),
        );
    }
}

/// What recovery does with a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovery {
    /// It goes back by itself.
    At {
        /// When.
        due: Timestamp,
        /// By which strategy.
        strategy: Strategy,
        /// Whether its priority is raised.
        raises_priority: bool,
    },
    /// A person decides.
    Person {
        /// What is recommended; never one that acts by itself.
        strategy: Strategy,
        /// Why it does not go back by itself, for people.
        why: String,
    },
}

/// What becomes of a dead letter of this category.
///
/// `auto_replays_in_life` counts the automatic replays of the message and of those it is a replay
/// of. `entropy` is any number; the same one gives the same time.
#[must_use]
pub fn decide(
    category: Category,
    is_task: bool,
    auto_replays_in_life: u32,
    policy: &Policy,
    (now, entropy): (Timestamp, u64),
) -> Recovery {
    let strategy = policy.strategy(category);
    let person = |strategy, why| Recovery::Person { strategy, why };
    if !strategy.is_automatic() {
        if strategy.is_for_tasks() && !is_task {
            let why = format!("`{strategy}` is for tasks of workflows, and it is none");
            return person(Strategy::ManualIntervention, why);
        }
        let why = format!("`{category}` is left to a person by the policy");
        return person(strategy, why);
    }
    // A policy that was never validated may say otherwise.
    if !category.is_transient() {
        let why = format!("`{category}` does not pass by itself");
        return person(Strategy::ManualIntervention, why);
    }
    if auto_replays_in_life >= policy.max_auto_replays {
        let most = policy.max_auto_replays;
        let why = format!("it was sent back by itself {auto_replays_in_life} times of {most}");
        return person(Strategy::ManualIntervention, why);
    }
    let wait_ms = match strategy {
        Strategy::ImmediateRetry => 0,
        Strategy::DelayedRetry
        | Strategy::RequeueWithPriority
        | Strategy::ManualIntervention
        | Strategy::SkipAndContinue
        | Strategy::WorkflowRestart
        | Strategy::PermanentDiscard => wait_ms(category, auto_replays_in_life, policy, entropy),
    };
    Recovery::At {
        due: now.plus(wait_ms),
        strategy,
        raises_priority: strategy == Strategy::RequeueWithPriority,
    }
}

/// Half of the backoff, and up to as much again by entropy: messages that died together do not come
/// back together, and none comes back at once.
fn wait_ms(category: Category, replays: u32, policy: &Policy, entropy: u64) -> u64 {
    let first = if category == Category::RateLimited {
        policy.initial_ms.saturating_mul(RATE_LIMITED_FACTOR)
    } else {
        policy.initial_ms
    };
    let factor = 1_u64.checked_shl(replays).unwrap_or(u64::MAX);
    let longest = first.saturating_mul(factor).min(policy.max_ms);
    let half = longest / 2;
    let rest = longest.saturating_sub(half);
    half.saturating_add(entropy.checked_rem(rest.saturating_add(1)).unwrap_or(0))
}

#[cfg(test)]
mod tests;
