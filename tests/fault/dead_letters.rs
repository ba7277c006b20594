//! Dead letters under faults and floods: each taken in once, sent back once, counted as they are.
//!
//! Each test says what died by whom it asked: the agents that failed, and the counts of the shards.
//! Short forms run with all tests; `scripts/torture` runs the long ones.

mod flood;
mod intake;
mod poison;
mod replays;
mod set;
mod sharing;
