//! The code generated from `proto/externalscaler`: how KEDA asks how many consumers are wanted.
//!
//! The interface is KEDA's and not ours: nothing may be added to it. It stands here, beside `wire`,
//! because generated code has one home.

#![expect(
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    unused_qualifications,
    reason = "generated code follows its generator"
)]

tonic::include_proto!("externalscaler");

/// The file descriptors of the interface, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/externalscaler.bin"));
