//! Tests of `fingerprint`.
