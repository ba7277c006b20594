//! What happens to a run, what the shell owes after it, and what is refused.

use super::state::Resolution;
use crate::{
    violation::Violations,
    workflow::{
        graph::TaskIndex,
        status::{RunStatus, TaskStatus},
    },
};

/// What became of an attempt: the first terminal record in its shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Acked, or completed by a signal.
    Succeeded {
        /// Whether a result was stored.
        has_result: bool,
    },
    /// Failed for good without a dead letter.
    Failed {
        /// Why.
        reason: String,
    },
    /// Became a dead letter.
    DeadLettered {
        /// Why.
        reason: String,
    },
    /// Took too long.
    TimedOut,
    /// An agent asks for input.
    Suspended {
        /// The question.
        prompt: String,
    },
    /// Ended from outside.
    Cancelled {
        /// Why.
        reason: String,
    },
    /// Never reached an agent, and never will: its group is gone. The task goes to another one.
    Unsent {
        /// Why.
        reason: String,
    },
}

/// What a signal says of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// It is done.
    Succeeded {
        /// Whether a result came with it.
        has_result: bool,
    },
    /// It failed.
    Failed {
        /// Why.
        reason: String,
    },
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A target shard is stored for an attempt, before its first publish.
    Placed {
        /// The task.
        task: TaskIndex,
        /// The attempt.
        attempt: u32,
    },
    /// An agent got an attempt.
    Started {
        /// The task.
        task: TaskIndex,
        /// The attempt.
        attempt: u32,
        /// Who.
        consumer: String,
        /// How often it was delivered.
        deliveries: u32,
    },
    /// An attempt has an outcome.
    Settled {
        /// The task.
        task: TaskIndex,
        /// The attempt.
        attempt: u32,
        /// What became of it.
        outcome: Outcome,
    },
    /// A condition was evaluated.
    Evaluated {
        /// The task.
        task: TaskIndex,
        /// Whether it holds, or why there is no answer.
        holds: Result<bool, String>,
    },
    /// Somebody decides a task from outside.
    Signalled {
        /// The task.
        task: TaskIndex,
        /// How.
        signal: Signal,
    },
    /// The answer to a suspended task came.
    ProvideInput {
        /// The task.
        task: TaskIndex,
        /// The attempt that asked.
        attempt: u32,
    },
    /// The target refused an attempt for good, so no agent ever gets it.
    Undeliverable {
        /// The task.
        task: TaskIndex,
        /// The attempt.
        attempt: u32,
        /// Why.
        reason: String,
    },
    /// Dispatch nothing more for now.
    Pause {
        /// Why.
        reason: String,
    },
    /// Go on; what a person had to decide counts as lost.
    Resume,
    /// End it.
    Cancel {
        /// Why.
        reason: String,
    },
    /// Try a failed task again, and with it all that was skipped or cancelled because of it.
    Retry {
        /// The task.
        task: TaskIndex,
    },
    /// An open workflow takes no more tasks.
    Close,
    /// Time passed.
    Tick,
    /// Most tasks at work at once by the load of the groups; 0 counts as 1.
    ParallelLimit(u32),
    /// Dispatch what the last answer left over.
    Continue,
}

/// What the shell owes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// An attempt goes into the outbox.
    Dispatch {
        /// The task.
        task: TaskIndex,
        /// The attempt.
        attempt: u32,
    },
    /// An attempt in the outbox must not be placed any more.
    Void {
        /// The task.
        task: TaskIndex,
        /// The attempt.
        attempt: u32,
    },
    /// The shard of a placed attempt is to decide it; its outcome follows.
    Resolve {
        /// The task.
        task: TaskIndex,
        /// The attempt.
        attempt: u32,
        /// How.
        resolution: Resolution,
    },
    /// A condition is to be evaluated.
    Evaluate {
        /// The task.
        task: TaskIndex,
    },
    /// A stored result does not count any more.
    DropResult {
        /// The task.
        task: TaskIndex,
    },
    /// An entry of the history.
    Record {
        /// The task; none for the run.
        task: Option<TaskIndex>,
        /// What happened.
        what: Entry,
    },
    /// The run is final.
    Finished {
        /// What it became.
        status: RunStatus,
    },
}

/// An entry of the history of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A task went to another state.
    Became {
        /// The state.
        status: TaskStatus,
        /// Dispatches so far.
        attempt: u32,
        /// Why.
        reason: String,
    },
    /// A provisional success counts for good.
    Confirmed,
    /// The run went to another state.
    RunBecame {
        /// The state.
        status: RunStatus,
        /// Why.
        reason: String,
    },
    /// The run is coming to an end before its tasks do.
    Ending {
        /// What it will become.
        status: RunStatus,
        /// Why.
        reason: String,
    },
    /// A task was added, or filled the place where it was awaited.
    Added,
    /// An open workflow takes no more tasks.
    Closed,
}

/// Why an event was refused. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// There is no such task.
    #[error("task number `{task}` is not in this run")]
    UnknownTask {
        /// Its number.
        task: TaskIndex,
    },
    /// The event is of another attempt than the current one.
    #[error("the attempt is not the current one, `{current}`")]
    StaleAttempt {
        /// The current attempt.
        current: u32,
    },
    /// The task is final.
    #[error("the task is `{status}` already")]
    AlreadyFinal {
        /// What it is.
        status: TaskStatus,
    },
    /// The task has no open attempt.
    #[error("the task is `{status}` and no attempt of it is open")]
    NotOpen {
        /// What it is.
        status: TaskStatus,
    },
    /// A target is stored for the attempt.
    #[error("the attempt has its target already")]
    AlreadyPlaced,
    /// The attempt is not waiting in a queue.
    #[error("the task is `{status}` and must be `queued`")]
    NotQueued {
        /// What it is.
        status: TaskStatus,
    },
    /// Nobody asked for the condition of this task.
    #[error("the condition of the task was not asked for")]
    NotAsked,
    /// The task asked for no input.
    #[error("the task is `{status}` and must be `waiting_input`")]
    NotWaitingInput {
        /// What it is.
        status: TaskStatus,
    },
    /// The task cannot be retried.
    #[error("the task is `{status}` and cannot be retried: {why}")]
    NotRetryable {
        /// What it is.
        status: TaskStatus,
        /// The rule.
        why: String,
    },
    /// The shard was asked to decide the open attempt already.
    #[error("the open attempt is being resolved as `{resolution:?}`")]
    Resolving {
        /// How.
        resolution: Resolution,
    },
    /// The run is final.
    #[error("the run is `{status}`")]
    RunIsFinal {
        /// What it is.
        status: RunStatus,
    },
    /// The run is coming to an end.
    #[error("the run is about to be `{status}`")]
    IsEnding {
        /// What it will be.
        status: RunStatus,
    },
    /// The run is paused already.
    #[error("the run is paused already")]
    AlreadyPaused,
    /// The run is not paused.
    #[error("the run is not paused")]
    NotPaused,
    /// The workflow is not an open one.
    #[error("the workflow is not open: its tasks were all given at its start")]
    NotOpenWorkflow,
    /// The workflow was closed.
    #[error("the workflow was closed and takes no more tasks")]
    AlreadyClosed,
}

/// Why tasks were not added. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The run takes no tasks.
    #[error(transparent)]
    Illegal(#[from] Illegal),
    /// The tasks are not right.
    #[error(transparent)]
    Invalid(#[from] Violations),
}

/// Why a stored run cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// It has not one state for each task.
    #[error("the run has `{states}` states for `{tasks}` tasks")]
    Count {
        /// States.
        states: usize,
        /// Tasks.
        tasks: usize,
    },
    /// Its tasks have no order.
    #[error("the stored definition is not what was checked: {0}")]
    Definition(Violations),
}
