//! The contract: generated wire types, names and limits, faults and their statuses.
//!
//! Everything that crosses a door is checked and translated here, once for gRPC, REST, the client
//! and the command line: `message` and `outcome` check what agents send, `convert` turns group and
//! stream settings into domain types and back, `workflow` does so for workflows, `fault` is what
//! every refusal looks like inside, `status` and `http` are what it looks like outside.
//!
//! Invariants
//! - A check names every field at fault at once, with the value and the rule.
//! - No bytes from outside make anything here panic.
//! - gRPC codes and HTTP statuses are named in `status` and `http`, nowhere else.

#![warn(
    clippy::unwrap_used,
    clippy::get_unwrap,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::string_slice
)]

pub mod convert;
pub mod externalscaler;
pub mod fault;
pub mod http;
pub mod limits;
pub mod message;
pub mod namespace;
pub mod outcome;
pub mod request;
pub mod status;
pub mod time;
pub mod wire;
pub mod words;
pub mod workflow;
