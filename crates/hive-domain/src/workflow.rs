//! Workflows: which task may start, what a failure means, when a run is over.
//!
//! A workflow is a graph of tasks. `definition` says what a user gives and checks it, `graph`
//! holds who waits for whom, `status` names the states, `run` is the machine that takes events and
//! answers with effects, `condition` evaluates what decides at run time whether a task is wanted.
//!
//! Nothing here knows of messages, leases or Redis: the router tells what happened, and carries out
//! what is owed.

pub mod condition;
pub mod definition;
pub mod graph;
pub mod run;
pub mod status;

pub use self::{
    definition::{
        Completion, DependencyMode, FailurePolicy, Limits, Quorum, Strategy, TaskDefinition,
        WorkflowDefinition,
    },
    graph::{Graph, TaskIndex},
    run::{Effect, Event, Illegal, Outcome, Resolution, Run},
    status::{RunStatus, TaskStatus},
};
