//! The code generated from `proto/agenthive/v1`.
//!
//! The one place with a blanket allowance: generated code follows its generator, not this house.

#![expect(
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    unused_qualifications,
    reason = "generated code follows its generator"
)]

tonic::include_proto!("agenthive.v1");

/// The file descriptors of the contract, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/agenthive.bin"));
