//! Between the wire's outcomes and the store's: one translation for streams, unary calls and REST.

use bytes::Bytes;
use hive_protocol::{
    outcome::Action as Wire,
    wire::{SettleResult, SettleStatus},
};
use hive_store::{
    Lease,
    attempt::{self, Attempt},
    settle::{Action, Settle, Verdict},
};

use crate::{catalog::GroupView, core::now_ms, metrics::Metrics};

/// Category of a nack or reject that names none.
const HANDLER: &str = "handler_exception";

/// The record of an attempt that ends now.
#[must_use]
pub fn record(lease: &Lease, category: &str, reason: &str) -> Bytes {
    attempt::record(&Attempt {
        consumer: lease.consumer.to_string(),
        started_ms: lease.delivered_ms,
        ended_ms: now_ms(),
        category: category.to_owned(),
        reason: reason.to_owned(),
    })
}

/// An outcome as the store takes it. `Extend` is none; callers take it apart before.
#[must_use]
pub fn settle(view: &GroupView, lease: Lease, attach: u64, action: Wire) -> Settle {
    let named = |category: String| {
        if category.is_empty() {
            HANDLER.to_owned()
        } else {
            category
        }
    };
    let action = match action {
        Wire::Ack { .. } | Wire::Extend => Action::Ack,
        Wire::Nack {
            reason,
            category,
            delay_ms,
        } => {
            let category = named(category);
            let record = record(&lease, &category, &reason);
            Action::Nack {
                delay_ms,
                jitter: jitter(view, &lease),
                category,
                record,
            }
        },
        Wire::Release { retry_after_ms } => Action::Release { retry_after_ms },
        Wire::Reject { reason, category } => {
            let category = named(category);
            let record = record(&lease, &category, &reason);
            Action::Reject { category, record }
        },
    };
    Settle {
        lease,
        attach,
        check_session: true,
        action,
    }
}

/// Full jitter in millionths, from a hash of entry and delivery: a replay gives the same wait.
fn jitter(view: &GroupView, lease: &Lease) -> u32 {
    let text = format!("{}/{}/{}", view.definition.name, lease.id, lease.count);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    u32::try_from((hash ^ (hash >> 29)) % 1_000_001).unwrap_or(1_000_000)
}

/// Writes a verdict into its answer.
pub fn judge(result: &mut SettleResult, verdict: Verdict) {
    let (status, error) = match verdict {
        Verdict::Done | Verdict::Dead => (SettleStatus::Ok, ""),
        Verdict::Gone => (SettleStatus::Gone, "already settled; nothing changed"),
        Verdict::Stale => (
            SettleStatus::StaleLease,
            "the lease belongs to somebody else by now; nothing changed",
        ),
        Verdict::Fenced => (
            SettleStatus::StaleLease,
            "the session or its connection is an old one; nothing changed",
        ),
        Verdict::Spared => (
            SettleStatus::StaleLease,
            "the lease has not ended; nothing changed",
        ),
        Verdict::Unknown => (
            SettleStatus::UnknownLease,
            "the token is none of this group's leases",
        ),
    };
    result.status = status.into();
    error.clone_into(&mut result.error);
}

/// Counts a verdict.
pub fn note(metrics: &Metrics, verdict: Verdict) {
    match verdict {
        Verdict::Done | Verdict::Dead => metrics.settled_ok.increment(1),
        Verdict::Gone => metrics.settled_gone.increment(1),
        Verdict::Stale | Verdict::Fenced | Verdict::Spared => metrics.settled_stale.increment(1),
        Verdict::Unknown => metrics.settled_unknown.increment(1),
    }
}
