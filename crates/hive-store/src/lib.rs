//! Agent Hive's state in Redis: keys, scripts and typed operations.
//!
//! The only crate that speaks to Redis. Each operation that changes state is one Lua script in
//! `scripts/`, whose header states keys, arguments, replies and invariants; a typed call beside it
//! turns the reply into an enum. Nothing here decides policy: what to deliver to whom, when to
//! scale, how to answer a caller is decided in `hive-domain` and carried out by the daemons.
//!
//! Invariants of the message path, as the scripts name them:
//! - **M1** nothing accepted is lost: an entry is deleted only when every group has settled it;
//! - **M2** one entry per idempotency key, producer sequence and flush number;
//! - **M3** a lane has a Redis group for every group that it is for, from its first entry on;
//! - **M4** an unsettled entry has one owner: a consumer, or the placeholder of the one index it is
//!   in;
//! - **M5** at most one entry of an ordering key is in flight in a group;
//! - **M6** only the holder of the latest lease settles;
//! - **M7** an entry is settled at most once per group;
//! - **M8** a restart or a clock step expires no healthy lease;
//! - **D1** dead-lettering and settling are one step; **D2** an entry dies once per group; **D3** a
//!   dead delivery has one record; **D4** one replay of a record is under way at a time; **D5**
//!   what is counted of records is what there is of them;
//! - **E1** an old session, connection or definition changes nothing;
//! - **C1** a definition changes only from the version that was read; **C2** replicas agree on who
//!   lives; **C3** lost data is never gone on with by itself;
//! - **S1** how a group is scaled changes only under the epoch and owner of its row, and the epoch
//!   never goes back;
//! - **W1** a run is stored whole; **W2** there is one run per workflow id and digest; **W3** a
//!   step of a run and what it owes are one; **W4** a step is taken once;
//! - **T1** a task is in a lane once per dispatch key; **T2** a dispatch key has one outcome, told
//!   in the step that ends its entry, and no delivery behind it. Both hold of tracked messages,
//!   each under its id.
//!
//! Read next: `keys.rs`, then `scripts/publish.lua`, `fetch.lua` and `settle.lua`.

#![warn(
    clippy::unwrap_used,
    clippy::get_unwrap,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::string_slice
)]

pub mod attempt;
pub mod bells;
pub mod ceiling;
pub mod connection;
pub mod control;
pub mod coordination;
pub mod dataset;
pub mod dead;
pub mod demand;
pub mod durable;
pub mod error;
pub mod facts;
pub mod fetch;
pub mod figures;
mod handover;
pub mod header;
pub mod keys;
pub mod lane;
pub mod lease;
pub mod letters;
pub mod members;
pub mod peek;
pub mod preflight;
pub mod publish;
pub mod registry;
pub mod repair;
pub mod replays;
pub mod reply;
pub mod retention;
pub mod runs;
pub mod scripts;
pub mod settle;
pub mod streams;
pub mod sweep;
pub mod tasks;
pub mod tracked;

pub use connection::{Purpose, Store, StoreConfig};
pub use error::StoreError;
pub use keys::Shard;
pub use lane::{Lane, LaneKind, LaneRef};
pub use lease::Lease;
