//! Faults under load, judged by the history checker; and the checker itself, judged by seeded bugs.
//!
//! Real daemons and a real Redis are killed, stopped, filled and cut off while agents work. What
//! the clients called and were answered goes into one log, and `hive_testkit::checker` says which
//! promises were broken. `torture.rs` is the long one; `scripts/torture` runs it for minutes.

mod crew;
mod dataset;
mod dead_letters;
mod flows;
mod hand;
mod hung;
mod kills;
mod load;
mod machine;
mod many;
mod network;
mod program;
mod sdk;
mod seeded;
mod torture;
mod trouble;
mod world;
