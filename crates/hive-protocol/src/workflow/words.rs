//! States, modes and policies of the wire, and those of the domain.

use hive_domain::{
    violation::Violation,
    workflow::{Completion, DependencyMode, FailurePolicy, RunStatus, Strategy, TaskStatus},
};

use crate::wire;

/// Declares both directions of one enum; what the wire does not say is `None` on the way in.
macro_rules! both_ways {
    (
        $(#[doc = $to_doc:literal])+
        $to:ident,
        $(#[doc = $from_doc:literal])+
        $from:ident,
        $domain:ident <=> $wire:ident { $($variant:ident),+ $(,)? }
    ) => {
        $(#[doc = $to_doc])+
        #[must_use]
        pub const fn $to(value: $domain) -> wire::$wire {
            match value {
                $($domain::$variant => wire::$wire::$variant,)+
            }
        }

        $(#[doc = $from_doc])+
        #[must_use]
        pub const fn $from(value: wire::$wire) -> Option<$domain> {
            match value {
                wire::$wire::Unspecified => None,
                $(wire::$wire::$variant => Some($domain::$variant),)+
            }
        }
    };
}

both_ways! {
    /// The state of a task on the wire.
    task_state,
    /// The state of a task that the wire says; none where it says nothing.
    task_status,
    TaskStatus <=> TaskState {
        Pending, Awaited, Queued, Running, WaitingInput, Succeeded, Failed, TimedOut,
        DeadLettered, Skipped, Cancelled,
    }
}

both_ways! {
    /// The state of a run on the wire.
    workflow_state,
    /// The state of a run that the wire says; none where it says nothing.
    run_status,
    RunStatus <=> WorkflowState { Running, Paused, Succeeded, Failed, Cancelled }
}

both_ways! {
    /// The dependency mode on the wire.
    dependency_mode,
    /// The dependency mode that the wire says; none where it says nothing.
    dependency_mode_said,
    DependencyMode <=> DependencyMode { Strict, BestEffort, Optimistic }
}

both_ways! {
    /// The strategy on the wire.
    strategy,
    /// The strategy that the wire says; none where it says nothing.
    strategy_said,
    Strategy <=> WorkflowStrategy {
        Sequential, Parallel, Adaptive, PriorityBased, CapabilityMatched, Hybrid,
    }
}

both_ways! {
    /// What the failure of a task means, on the wire.
    failure_policy,
    /// What the failure of a task means by the wire; none where it says nothing.
    failure_policy_said,
    FailurePolicy <=> FailurePolicy { FailWorkflow, SkipDependents, Continue, Pause }
}

both_ways! {
    /// What completes a task, on the wire.
    task_completion,
    /// What completes a task by the wire; none where it says nothing.
    completion_said,
    Completion <=> TaskCompletion { Ack, Signal }
}

/// The dependency mode that a number of the wire stands for; strict where it says nothing.
///
/// # Errors
/// The number is of no known mode.
pub fn read_dependency_mode(number: i32) -> Result<DependencyMode, Violation> {
    let said = known::<wire::DependencyMode>("dependency_mode", number, "dependency mode")?;
    Ok(dependency_mode_said(said).unwrap_or_default())
}

/// The strategy that a number of the wire stands for; hybrid where it says nothing.
///
/// # Errors
/// The number is of no known strategy.
pub fn read_strategy(number: i32) -> Result<Strategy, Violation> {
    let said = known::<wire::WorkflowStrategy>("strategy", number, "strategy")?;
    Ok(strategy_said(said).unwrap_or_default())
}

/// The failure policy that a number of the wire stands for; none where it says nothing.
///
/// # Errors
/// The number is of no known policy.
pub fn read_failure_policy(number: i32) -> Result<Option<FailurePolicy>, Violation> {
    let said = known::<wire::FailurePolicy>("on_failure", number, "failure policy")?;
    Ok(failure_policy_said(said))
}

/// What completes a task, by a number of the wire; its ack where it says nothing.
///
/// # Errors
/// The number is of no known completion.
pub fn read_completion(number: i32) -> Result<Completion, Violation> {
    let said = known::<wire::TaskCompletion>("completion", number, "completion")?;
    Ok(completion_said(said).unwrap_or_default())
}

/// The state of a run that a number of the wire stands for; none where it says nothing.
///
/// # Errors
/// The number is of no known state.
pub fn read_state(number: i32) -> Result<Option<RunStatus>, Violation> {
    let said = known::<wire::WorkflowState>("state", number, "state of a workflow")?;
    Ok(run_status(said))
}

fn known<T: TryFrom<i32>>(field: &str, number: i32, what: &str) -> Result<T, Violation> {
    T::try_from(number)
        .map_err(|_unknown| Violation::new(field, format!("`{number}` is no known {what}")))
}
