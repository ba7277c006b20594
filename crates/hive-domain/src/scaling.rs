//! How many consumers a group wants.
//!
//! Read next: `policy` (how a group is scaled).

mod policy;

pub use policy::{
    DRAIN_TARGET_MS_MIN, Executor, SCALE_MS_MAX, STEP_MAX, ScalingPolicy, Strategy,
    TARGET_BYTES_MAX, WEIGHT_MAX,
};
