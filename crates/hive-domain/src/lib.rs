//! Decisions of Agent Hive as plain functions: facts in, decision out.
//!
//! Nothing here reads a clock, talks to anybody or keeps state between calls: time, ids and
//! entropy are arguments, so the same input gives the same answer on every replica and in every
//! test. It never logs; what is worth saying is in the return value.
//!
//! Invariants
//! - A value that passed `validate` or `parse` breaks no rule of its type.
//! - Every function is total: odd input has an answer or a violation, never a panic.
//! - Refusals name every field at fault at once, with the value and the rule.
//!
//! Read `name` for the rule of names, `group` for what a group and a stream are, `routing` for who
//! gets the next message, `retry` for when a failed one comes back, `workflow` for which task of a
//! workflow may start and what a failure means, `placement` for the group that gets it,
//! `dead_letter` for what a failure is and when a dead letter may go back.

#![warn(
    clippy::unwrap_used,
    clippy::get_unwrap,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::string_slice,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing
)]

pub mod capability;
pub mod coordination;
pub mod dead_letter;
pub mod group;
mod hash;
pub mod name;
pub mod ownership;
pub mod placement;
pub mod rebalance;
pub mod recovery;
pub mod retry;
pub mod routing;
pub mod scaling;
pub mod stream;
pub mod time;
pub mod violation;
pub mod words;
pub mod workflow;
