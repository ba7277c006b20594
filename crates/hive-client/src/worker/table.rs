//! What a worker holds: every delivery from its arrival to the answer to its settle.
//!
//! Pure bookkeeping, without I/O and without a clock. One row per entry, so that two handlers of
//! one message cannot be: a redelivery finds the row and only replaces its token. What this never
//! does: forget a row whose outcome is not answered, or settle one that was taken away.

use std::collections::{BTreeMap, VecDeque};

use hive_protocol::{
    limits::{BATCH_BYTES_MAX, BATCH_ITEMS_MAX, LEASES_MAX},
    wire::{
        Delivery, Heartbeat, Outcome, SettleBatch, SettleResult, SettleStatus, outcome::Action,
    },
};
use prost::Message as _;
use tokio_util::sync::CancellationToken;

use super::{Failure, credit::Credit, job};
use crate::lease;

/// Category of a failure that stands in for an outcome that broke a rule.
const INVALID_OUTCOME: &str = "invalid_outcome";

/// One delivery.
#[derive(Debug)]
struct Held {
    lease: String,
    phase: Phase,
}

/// How far a delivery is.
#[derive(Debug)]
enum Phase {
    /// No handler has begun it.
    Queued(Delivery),
    /// A handler works on it.
    Running(CancellationToken),
    /// It was taken away, and the handler has not noticed yet. `again` came meanwhile.
    Cancelled { again: Option<Delivery> },
    /// Its outcome waits for the answer of the server.
    Settling {
        action: Action,
        is_sent: bool,
        is_replaced: bool,
        // Whether its place is free again once it is answered: not where a revoke took it.
        earns: bool,
    },
}

/// All deliveries, and the credit for more.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: BTreeMap<String, Held>,
    // Entries in phase `Queued`, oldest first.
    queue: VecDeque<String>,
    // Entries in phase `Settling` that are not sent on this connection.
    outbox: VecDeque<String>,
    running: usize,
    unanswered: usize,
    pub(super) credit: Credit,
}

impl Table {
    /// Deliveries that have a handler, also those that were taken away from it.
    pub(super) const fn running(&self) -> usize {
        self.running
    }

    /// Deliveries that the server counts as ours: until their outcome is answered.
    fn held_count(&self) -> u32 {
        u32::try_from(self.rows.len()).unwrap_or(u32::MAX)
    }

    /// Whether nothing is held at all.
    pub(super) fn is_empty(&self) -> bool {
        self.running == 0 && self.unanswered == 0 && self.queue.is_empty()
    }

    /// Whether deliveries wait for a handler.
    pub(super) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whether every outcome was answered.
    pub(super) const fn is_settled(&self) -> bool {
        self.unanswered == 0
    }

    /// Takes a delivery. One of an entry that is known replaces its token.
    pub(super) fn deliver(&mut self, delivery: Delivery) {
        self.credit.use_one();
        let entry = lease::entry(&delivery.lease).to_owned();
        let Some(held) = self.rows.get_mut(&entry) else {
            let lease = delivery.lease.clone();
            let phase = Phase::Queued(delivery);
            self.rows.insert(entry.clone(), Held { lease, phase });
            self.queue.push_back(entry);
            return;
        };
        held.lease.clone_from(&delivery.lease);
        match &mut held.phase {
            Phase::Queued(queued) => {
                *queued = delivery;
                self.credit.give_back_one();
            },
            Phase::Running(_) => self.credit.give_back_one(),
            Phase::Cancelled { again } => {
                if again.replace(delivery).is_some() {
                    self.credit.give_back_one();
                }
            },
            // What was asked for has happened, and its answer is late: it is tried anew.
            Phase::Settling {
                action: Action::Nack(_) | Action::Release(_) | Action::Suspend(_),
                is_sent: true,
                ..
            } => {
                self.credit.give_back_one();
                self.unanswered -= 1;
                held.phase = Phase::Queued(delivery);
                self.queue.push_back(entry);
            },
            // The work is done: the same outcome holds under the new token.
            Phase::Settling { is_sent, .. } => {
                self.credit.give_back_one();
                if std::mem::take(is_sent) {
                    self.outbox.push_back(entry);
                }
            },
        }
    }

    /// The next delivery to work on, begun by this call.
    pub(super) fn start(&mut self, cancel: &CancellationToken) -> Option<(String, Delivery)> {
        let entry = self.queue.pop_front()?;
        let held = self.rows.get_mut(&entry)?;
        let Phase::Queued(delivery) = &mut held.phase else {
            return None;
        };
        let delivery = std::mem::take(delivery);
        held.phase = Phase::Running(cancel.child_token());
        self.running += 1;
        Some((entry, delivery))
    }

    /// The token that tells the handler of `entry` to stop.
    pub(super) fn cancellation(&self, entry: &str) -> Option<CancellationToken> {
        match &self.rows.get(entry)?.phase {
            Phase::Running(cancel) => Some(cancel.clone()),
            Phase::Queued(_) | Phase::Cancelled { .. } | Phase::Settling { .. } => None,
        }
    }

    /// The handler of `entry` ended. Its outcome counts unless the delivery was taken away; true
    /// when it does.
    pub(super) fn finish(&mut self, entry: String, action: Action) -> bool {
        let Some(held) = self.rows.get_mut(&entry) else {
            return false;
        };
        match &mut held.phase {
            Phase::Running(_) => {
                self.running -= 1;
                self.settle(entry, action, true);
                true
            },
            Phase::Cancelled { again } => {
                self.running -= 1;
                self.credit.finish_one();
                if let Some(delivery) = again.take() {
                    held.phase = Phase::Queued(delivery);
                    self.queue.push_back(entry);
                } else {
                    self.rows.remove(&entry);
                }
                false
            },
            Phase::Queued(_) | Phase::Settling { .. } => false,
        }
    }

    /// Gives back up to `most` unstarted deliveries, the newest first; how many it were.
    pub(super) fn release_unstarted(&mut self, most: usize) -> u32 {
        let mut released = 0;
        while (released as usize) < most {
            let Some(entry) = self.queue.pop_back() else {
                break;
            };
            self.settle(entry, job::Outcome::release().into_action(), false);
            released += 1;
        }
        released
    }

    /// The server takes credit back and asks for unstarted deliveries; how many go back.
    pub(super) fn revoke(&mut self, asked: u32) -> u32 {
        let released = self.release_unstarted(asked as usize);
        self.credit.revoke(asked, released, self.held_count());
        released
    }

    /// These deliveries are no longer ours; those it was true for. An unanswered settle stays: its
    /// own answer tells whether it counted.
    pub(super) fn cancel(&mut self, leases: Vec<String>) -> Vec<String> {
        let mut cancelled = Vec::new();
        for token in leases {
            let entry = lease::entry(&token);
            let Some(held) = self.rows.get_mut(entry) else {
                continue;
            };
            if held.lease != token {
                continue;
            }
            match &mut held.phase {
                Phase::Queued(_) => {
                    self.queue.retain(|queued| queued != entry);
                    self.rows.remove(entry);
                    self.credit.finish_one();
                },
                Phase::Running(cancel) => {
                    cancel.cancel();
                    held.phase = Phase::Cancelled { again: None };
                },
                Phase::Cancelled { again } => {
                    if again.take().is_some() {
                        self.credit.finish_one();
                    }
                },
                Phase::Settling { .. } => continue,
            }
            cancelled.push(token);
        }
        cancelled
    }

    /// Takes everything away: the group is gone, and its leases with it.
    pub(super) fn forget(&mut self) {
        for entry in self.queue.drain(..) {
            self.rows.remove(&entry);
        }
        for held in self.rows.values_mut() {
            match &mut held.phase {
                Phase::Running(cancel) => {
                    cancel.cancel();
                    held.phase = Phase::Cancelled { again: None };
                },
                Phase::Cancelled { again } => *again = None,
                Phase::Queued(_) | Phase::Settling { .. } => {},
            }
        }
        self.rows
            .retain(|_, held| matches!(held.phase, Phase::Cancelled { .. }));
        self.outbox.clear();
        self.unanswered = 0;
    }

    /// The handlers are gone: forgets their deliveries, which the leave gives back.
    pub(super) fn abandon_running(&mut self) {
        self.rows.retain(|_, held| match &held.phase {
            Phase::Running(_) | Phase::Cancelled { .. } => false,
            Phase::Queued(_) | Phase::Settling { .. } => true,
        });
        self.running = 0;
    }

    /// The answer to one settle; the reason when the outcome was refused.
    pub(super) fn answer(&mut self, result: &SettleResult) -> Option<String> {
        let entry = lease::entry(&result.lease);
        let held = self.rows.get_mut(entry)?;
        // An answer about an older token says nothing about the newer one.
        if held.lease != result.lease {
            return None;
        }
        let Phase::Settling {
            action,
            is_sent,
            is_replaced,
            earns,
        } = &mut held.phase
        else {
            return None;
        };
        let status = result.status();
        match status {
            SettleStatus::Invalid if !*is_replaced => {
                let failure = Failure::new(result.error.clone()).category(INVALID_OUTCOME);
                *action = job::nack(failure, None);
                *is_replaced = true;
                if std::mem::take(is_sent) {
                    self.outbox.push_back(entry.to_owned());
                }
                return Some(result.error.clone());
            },
            SettleStatus::Ok
            | SettleStatus::Gone
            | SettleStatus::StaleLease
            | SettleStatus::UnknownLease
            | SettleStatus::Invalid
            | SettleStatus::Unspecified => {},
        }
        let earns = *earns;
        self.rows.remove(entry);
        self.unanswered -= 1;
        // Not before the answer: the server caps credit by what it still counts as held.
        if earns {
            self.credit.finish_one();
        } else {
            self.credit.keep_alive(self.held_count());
        }
        match status {
            SettleStatus::Ok | SettleStatus::Gone => None,
            SettleStatus::StaleLease
            | SettleStatus::UnknownLease
            | SettleStatus::Invalid
            | SettleStatus::Unspecified => {
                Some(format!("{}: {}", status.as_str_name(), result.error))
            },
        }
    }

    /// All leases that are still ours or not known to be lost, for a join.
    pub(super) fn leases(&self) -> Vec<String> {
        self.held(|phase| !matches!(phase, Phase::Cancelled { again: None }))
    }

    /// The heartbeat for everything held.
    pub(super) fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            leases: self.leases(),
            begun: self.held(|phase| matches!(phase, Phase::Running(_) | Phase::Settling { .. })),
        }
    }

    fn held(&self, is_wanted: impl Fn(&Phase) -> bool) -> Vec<String> {
        let wanted = self.rows.values().filter(|held| is_wanted(&held.phase));
        wanted
            .take(LEASES_MAX)
            .map(|held| held.lease.clone())
            .collect()
    }

    /// The current token of an entry that a handler works on.
    pub(super) fn lease_of(&self, entry: &str) -> Option<String> {
        let held = self.rows.get(entry)?;
        matches!(held.phase, Phase::Running(_)).then(|| held.lease.clone())
    }

    /// A new connection stands: what was not answered on the old one is sent again.
    pub(super) fn rejoin(&mut self, max_in_flight: u32, lost: Vec<String>) -> Vec<String> {
        let cancelled = self.cancel(lost);
        self.outbox.clear();
        for (entry, held) in &mut self.rows {
            if let Phase::Settling { is_sent, .. } = &mut held.phase {
                *is_sent = false;
                self.outbox.push_back(entry.clone());
            }
        }
        self.credit.join(max_in_flight, self.held_count());
        cancelled
    }

    pub(super) fn has_outcomes(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// The outcomes that have gathered, at most 1,000 and 4 MiB.
    pub(super) fn settles(&mut self) -> SettleBatch {
        let mut outcomes = Vec::new();
        let mut bytes = 0;
        while outcomes.len() < BATCH_ITEMS_MAX && bytes < BATCH_BYTES_MAX {
            let Some(entry) = self.outbox.pop_front() else {
                break;
            };
            let Some(held) = self.rows.get_mut(&entry) else {
                continue;
            };
            if let Phase::Settling {
                action, is_sent, ..
            } = &mut held.phase
                && !std::mem::replace(is_sent, true)
            {
                let outcome = Outcome {
                    lease: held.lease.clone(),
                    action: Some(action.clone()),
                };
                bytes += outcome.encoded_len();
                outcomes.push(outcome);
            }
        }
        SettleBatch { outcomes }
    }

    fn settle(&mut self, entry: String, action: Action, earns: bool) {
        if let Some(held) = self.rows.get_mut(&entry) {
            held.phase = Phase::Settling {
                action,
                is_sent: false,
                is_replaced: false,
                earns,
            };
            self.unanswered += 1;
            self.outbox.push_back(entry);
        }
    }
}
