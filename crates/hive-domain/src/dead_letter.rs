//! Dead letters: what a failure is, which of them are the same, and what may become of them.
//!
//! `category` names the kinds of failure, `classify` finds the kind by ordered rules, `fingerprint`
//! tells the same fault from another one, `text` finds what of a text decides, `status` says what
//! may follow what, `recovery` and `breaker` when a message may go back by itself, `plan` what a
//! replay takes and how fast, `pattern` what many dead letters have in common.
//!
//! A payload is never looked at: a task of an agent may speak of SQL, timeouts or errors.

pub mod breaker;
pub mod category;
pub mod classify;
pub mod fingerprint;
pub mod pattern;
pub mod plan;
pub mod recovery;
pub mod status;
pub mod text;

pub use self::{
    breaker::Breaker,
    category::Category,
    classify::{Classified, Failure, RuleSpec, Rules},
    fingerprint::{fingerprint, mask},
    recovery::{Policy, Recovery, Strategy},
    status::Status,
};
