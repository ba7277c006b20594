//! Between the wire's outcomes and the store's: one translation for streams, unary calls and REST.

use std::sync::Arc;

use bytes::Bytes;
use hive_protocol::{
    fault::Fault,
    limits::TRACKED_RESULT_BYTES_MAX,
    outcome::{self, Action as Wire, Failure},
    wire::{self, SettleResult, SettleStatus},
};
use hive_store::{
    Lease,
    attempt::{self, Attempt},
    lane,
    settle::{Action, Settle, Verdict},
    tracked,
};
use prost::Message as _;

use crate::{
    attached::{Attached, Told},
    catalog::GroupView,
    core::{Gateway, now_ms},
    metrics::Metrics,
};

/// The outcomes of one call or frame, checked: what breaks a rule has its result, the rest is ready
/// for the store.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    results: Vec<SettleResult>,
    items: Vec<Settle>,
    /// Position of each item's result.
    places: Vec<usize>,
    extends: Vec<(Lease, u64)>,
    /// Position of each extended lease's result.
    extend_places: Vec<usize>,
}

impl Batch {
    /// Checks outcomes, those of a connection or of a caller without one. What a connection is to
    /// settle is marked at once, so that a heartbeat behind it does not call it lost; and one that
    /// gives a message back is passed over until it grants credit again.
    pub(crate) fn check(
        metrics: &Metrics,
        view: &GroupView,
        attached: Option<&Attached>,
        outcomes: Vec<wire::Outcome>,
    ) -> Self {
        let mut batch = Self::default();
        let attach = attached.map_or(0, |attached| attached.attach);
        for mut one in outcomes {
            let place = batch.results.len();
            let token = one.lease;
            let (status, error) = match outcome::parse_action(&token, one.action.take()) {
                Err(violations) => (SettleStatus::Invalid, violations.to_string()),
                Ok(action) if !fits(&token, &action) => {
                    let rule = "only a task of a workflow can be suspended, or add tasks";
                    (SettleStatus::Invalid, rule.to_owned())
                },
                Ok(action) => match lease_of(attached, &token, &action) {
                    Ok(lease) => {
                        if action == Wire::Extend {
                            batch.extend_places.push(place);
                            batch.extends.push((lease, attach));
                        } else {
                            batch.places.push(place);
                            batch.items.push(settle(view, lease, attach, action));
                        }
                        (SettleStatus::Ok, String::new())
                    },
                    Err(error) => (SettleStatus::UnknownLease, error),
                },
            };
            match status {
                SettleStatus::Invalid => metrics.settled_invalid.increment(1),
                SettleStatus::UnknownLease => metrics.settled_unknown.increment(1),
                SettleStatus::Unspecified
                | SettleStatus::Ok
                | SettleStatus::Gone
                | SettleStatus::StaleLease => {},
            }
            batch.results.push(SettleResult {
                lease: token,
                status: status.into(),
                error,
            });
        }
        batch
    }

    /// Has all of it judged. The outcomes of a connection wait for Redis longer than a call does:
    /// their client keeps its stream and asks nobody else meanwhile.
    ///
    /// # Errors
    /// What Redis says; the same outcomes may be sent again.
    pub(crate) async fn judge(
        self,
        gateway: &Arc<Gateway>,
        view: &GroupView,
        attached: Option<&Attached>,
    ) -> Result<Vec<SettleResult>, Fault> {
        let mut results = self.results;
        if !self.items.is_empty() {
            let settler = gateway.settler(&view.namespace, &view.definition.name);
            let verdicts = match attached {
                Some(_) => settler.settle_patiently(self.items).await?,
                None => settler.settle(self.items).await?,
            };
            for (place, verdict) in self.places.into_iter().zip(verdicts) {
                note(&gateway.metrics, verdict);
                if let Some(result) = results.get_mut(place) {
                    if let Some(attached) = attached {
                        attached.forget(&result.lease);
                    }
                    judge(result, verdict);
                }
            }
        }
        if !self.extends.is_empty() {
            let verdicts = gateway.extend_now(view, &self.extends).await?;
            for (place, verdict) in self.extend_places.into_iter().zip(verdicts) {
                note(&gateway.metrics, verdict);
                if let Some(result) = results.get_mut(place) {
                    if let Some(attached) = attached
                        && verdict == Verdict::Done
                    {
                        let lease_ms = view.definition.settings.lease_ms;
                        attached.beat(&result.lease, Told::Nothing, lease_ms);
                    }
                    judge(result, verdict);
                }
            }
        }
        Ok(results)
    }
}

/// Whether an outcome may be one of this delivery: what workflows alone understand is for tasks.
/// A token that is none is told as unknown.
fn fits(token: &str, action: &Wire) -> bool {
    let needs_task = match action {
        Wire::Suspend { .. } => true,
        Wire::Ack { add_tasks, .. } => !add_tasks.is_empty(),
        Wire::Nack { .. } | Wire::Release { .. } | Wire::Reject { .. } | Wire::Extend => false,
    };
    let is_other = |lease: Lease| !lane::names_tasks(&lease.lane);
    !(needs_task && token.parse().is_ok_and(is_other))
}

/// The lease that a token says, or why it is none of the caller's.
fn lease_of(attached: Option<&Attached>, token: &str, action: &Wire) -> Result<Lease, String> {
    let Some(attached) = attached else {
        return token.parse::<Lease>().map_err(|error| error.to_string());
    };
    match action {
        // At once, not when it is judged: what it gave back may be read again before.
        Wire::Release { retry_after_ms: 0 } => attached.gives_back(token),
        Wire::Release { .. } => attached.pass_over(),
        Wire::Ack { .. } | Wire::Suspend { .. } | Wire::Nack { .. } | Wire::Reject { .. } => {},
        Wire::Extend => return own_lease(attached, token),
    }
    match attached.settling(token) {
        Some(lease) => Ok(lease),
        None => own_lease(attached, token),
    }
}

fn own_lease(attached: &Attached, token: &str) -> Result<Lease, String> {
    token
        .parse::<Lease>()
        .ok()
        .filter(|lease| lease.consumer == attached.consumer)
        .ok_or_else(|| "the token is none of this consumer's leases".to_owned())
}

/// How many of these outcomes changed something.
pub(crate) fn taken(verdicts: &[Verdict]) -> u64 {
    let is_taken = |verdict: &&Verdict| matches!(verdict, Verdict::Done | Verdict::Dead);
    verdicts.iter().filter(is_taken).count() as u64
}

/// The record of an attempt that ends now.
#[must_use]
pub fn record(lease: &Lease, category: &str, reason: &str) -> Bytes {
    attempt::record(&Attempt {
        consumer: lease.consumer.to_string(),
        started_ms: lease.delivered_ms,
        ended_ms: now_ms(),
        category: category.to_owned(),
        reason: reason.to_owned(),
        ..Attempt::default()
    })
}

/// The record of an attempt that its agent says failed.
fn record_of(lease: &Lease, failure: Failure) -> Bytes {
    attempt::record(&Attempt {
        consumer: lease.consumer.to_string(),
        started_ms: lease.delivered_ms,
        ended_ms: now_ms(),
        category: failure.category,
        reason: failure.reason,
        error_type: failure.error_type,
        stack: failure.stack,
    })
}

/// An outcome as the store takes it. `Extend` is none; callers take it apart before.
#[must_use]
pub fn settle(view: &GroupView, lease: Lease, attach: u64, action: Wire) -> Settle {
    let action = match action {
        Wire::Ack { result, add_tasks }
            if lane::names_tasks(&lease.lane) && !(result.is_empty() && add_tasks.is_empty()) =>
        {
            // As it came: what it says is the router's business.
            let ack = wire::Ack { result, add_tasks };
            Action::Complete {
                result: ack.encode_to_vec().into(),
            }
        },
        Wire::Ack { result, .. } if lane::names_tracked(&lease.lane) && !result.is_empty() => {
            let result = tracked::keep(&result, TRACKED_RESULT_BYTES_MAX);
            Action::Complete { result }
        },
        Wire::Ack { .. } | Wire::Extend => Action::Ack,
        Wire::Suspend { prompt, state } => Action::Suspend {
            asked: wire::Suspend { prompt, state }.encode_to_vec().into(),
        },
        Wire::Nack { failure, delay_ms } => Action::Nack {
            delay_ms,
            jitter: jitter(view, &lease),
            category: failure.category.clone(),
            record: record_of(&lease, failure),
        },
        Wire::Release { retry_after_ms } => Action::Release { retry_after_ms },
        Wire::Reject { failure } => Action::Reject {
            category: failure.category.clone(),
            record: record_of(&lease, failure),
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
        Verdict::Fenced | Verdict::Detached => (
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
        Verdict::Stale | Verdict::Fenced | Verdict::Detached | Verdict::Spared => {
            metrics.settled_stale.increment(1);
        },
        Verdict::Unknown => metrics.settled_unknown.increment(1),
    }
}
