//! Workflows: which task may start, what a failure means, when a run is over.
//!
//! A workflow is a graph of tasks. `graph` holds who waits for whom, `status` names the states.
//!
//! Nothing here knows of messages, leases or Redis: the router tells what happened, and carries out
//! what is owed.

pub mod graph;
pub mod status;

pub use self::{
    graph::{Graph, TaskIndex},
    status::{RunStatus, TaskStatus},
};
