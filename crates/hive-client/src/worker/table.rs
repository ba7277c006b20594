//! What a worker holds: every delivery from its arrival to the answer to its settle.
//!
//! Pure bookkeeping, without I/O and without a clock. One row per entry, so that two handlers of
//! one message cannot be: a redelivery finds the row and only replaces its token. What this never
//! does: forget a row whose outcome is not answered, or settle one that was taken away.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

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
/// How long what cannot be begun here stays away: where nobody else takes it, it comes back here.
const PASSED_ON_FOR: Duration = Duration::from_secs(1);

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
    /// It was taken away, and the handler has not noticed yet, if it ever does. What came again
    /// meanwhile is given back under the new token, for somebody who can begin it.
    Cancelled { again: Option<PassedOn> },
    /// Its outcome waits for the answer of the server.
    Settling {
        action: Action,
        is_sent: bool,
        is_replaced: bool,
        origin: Origin,
    },
}

/// A redelivery that is released and not answered.
#[derive(Debug)]
struct PassedOn {
    is_sent: bool,
}

/// Where an outcome comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// A handler. Its place is free again once it is answered.
    Handler,
    /// No handler began it: it goes back with its place.
    Unstarted,
    /// An older handler of the entry was in its way. Its place is free again once it is answered.
    PassedOn,
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

    /// Whether handlers run, and every one of them for a delivery that was taken away.
    pub(super) fn is_left_to_end(&self) -> bool {
        let mut held = self.rows.values();
        self.running > 0 && !held.any(|held| matches!(held.phase, Phase::Running(_)))
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
            Phase::Cancelled { again } => match again {
                None => {
                    *again = Some(PassedOn { is_sent: false });
                    self.unanswered += 1;
                    self.outbox.push_back(entry);
                },
                // The older token is answered by nobody.
                Some(passed_on) => {
                    self.credit.give_back_one();
                    if std::mem::take(&mut passed_on.is_sent) {
                        self.outbox.push_back(entry);
                    }
                },
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
                self.settle(entry, action, Origin::Handler);
                true
            },
            Phase::Cancelled { again } => {
                self.running -= 1;
                self.credit.finish_one();
                if let Some(passed_on) = again.take() {
                    held.phase = passed_on.into_settling();
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
            self.settle(
                entry,
                job::Outcome::release().into_action(),
                Origin::Unstarted,
            );
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
                Phase::Cancelled { again: None } => {},
                Phase::Cancelled { again: Some(_) } | Phase::Settling { .. } => continue,
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
        self.rows.retain(|_, held| match &mut held.phase {
            Phase::Running(_) => false,
            Phase::Cancelled { again } => match again.take() {
                Some(passed_on) => {
                    held.phase = passed_on.into_settling();
                    true
                },
                None => false,
            },
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
        let status = result.status();
        let (action, is_sent, is_replaced, origin) = match &mut held.phase {
            Phase::Settling {
                action,
                is_sent,
                is_replaced,
                origin,
            } => (action, is_sent, is_replaced, *origin),
            // The row stays for its handler; whatever became of the release, it is nobody's here.
            Phase::Cancelled { again } => {
                if again.take().is_some() {
                    self.unanswered -= 1;
                    self.credit.finish_one();
                }
                return refusal(status, result);
            },
            Phase::Queued(_) | Phase::Running(_) => return None,
        };
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
        self.rows.remove(entry);
        self.unanswered -= 1;
        // Not before the answer: the server caps credit by what it still counts as held.
        match origin {
            Origin::Handler | Origin::PassedOn => self.credit.finish_one(),
            Origin::Unstarted => self.credit.keep_alive(self.held_count()),
        }
        refusal(status, result)
    }

    /// All leases that are still ours or not known to be lost, for a join.
    pub(super) fn leases(&self) -> Vec<String> {
        self.held(|phase| !matches!(phase, Phase::Cancelled { again: None }))
    }

    /// The heartbeat for everything held.
    pub(super) fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            leases: self.leases(),
            begun: self.held(|phase| match phase {
                Phase::Running(_) => true,
                Phase::Settling { origin, .. } => *origin == Origin::Handler,
                Phase::Queued(_) | Phase::Cancelled { .. } => false,
            }),
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
            let is_sent = match &mut held.phase {
                Phase::Settling { is_sent, .. } => is_sent,
                Phase::Cancelled { again: Some(again) } => &mut again.is_sent,
                Phase::Queued(_) | Phase::Running(_) | Phase::Cancelled { again: None } => continue,
            };
            *is_sent = false;
            self.outbox.push_back(entry.clone());
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
            let (action, is_sent) = match &mut held.phase {
                Phase::Settling {
                    action, is_sent, ..
                } => (action.clone(), is_sent),
                Phase::Cancelled { again: Some(again) } => (PassedOn::action(), &mut again.is_sent),
                Phase::Queued(_) | Phase::Running(_) | Phase::Cancelled { again: None } => continue,
            };
            if !std::mem::replace(is_sent, true) {
                let outcome = Outcome {
                    lease: held.lease.clone(),
                    action: Some(action),
                };
                bytes += outcome.encoded_len();
                outcomes.push(outcome);
            }
        }
        SettleBatch { outcomes }
    }

    fn settle(&mut self, entry: String, action: Action, origin: Origin) {
        if let Some(held) = self.rows.get_mut(&entry) {
            held.phase = Phase::Settling {
                action,
                is_sent: false,
                is_replaced: false,
                origin,
            };
            self.unanswered += 1;
            self.outbox.push_back(entry);
        }
    }
}

impl PassedOn {
    fn action() -> Action {
        let retry_after = Some(PASSED_ON_FOR);
        job::Outcome::Release { retry_after }.into_action()
    }

    /// The same where no handler is in its way any more.
    fn into_settling(self) -> Phase {
        Phase::Settling {
            action: Self::action(),
            is_sent: self.is_sent,
            is_replaced: false,
            origin: Origin::PassedOn,
        }
    }
}

/// Why an outcome was not taken; none where it was.
fn refusal(status: SettleStatus, result: &SettleResult) -> Option<String> {
    match status {
        SettleStatus::Ok | SettleStatus::Gone => None,
        SettleStatus::StaleLease
        | SettleStatus::UnknownLease
        | SettleStatus::Invalid
        | SettleStatus::Unspecified => Some(format!("{}: {}", status.as_str_name(), result.error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(id: &str, count: u32) -> Delivery {
        Delivery {
            lease: token(id, count),
            ..Delivery::default()
        }
    }

    fn token(id: &str, count: u32) -> String {
        format!("1|l|{id}|{count}|a|s")
    }

    fn answer(table: &mut Table, lease: String) {
        let result = SettleResult {
            lease,
            status: SettleStatus::Ok.into(),
            error: String::new(),
        };
        assert_eq!(table.answer(&result), None);
    }

    /// A table that granted so many and got the entry "1", whose handler does not end.
    fn hanging(most: u32) -> Table {
        let mut table = Table::default();
        table.rejoin(most, Vec::new());
        assert_eq!(table.credit.grant(), most);
        table.deliver(delivery("1", 1));
        assert!(table.start(&CancellationToken::new()).is_some());
        assert_eq!(table.cancel(vec![token("1", 1)]), [token("1", 1)]);
        table
    }

    fn sent(table: &mut Table) -> Vec<(String, Option<Action>)> {
        let outcomes = table.settles().outcomes.into_iter();
        outcomes
            .map(|outcome| (outcome.lease, outcome.action))
            .collect()
    }

    #[test]
    fn what_comes_again_while_its_old_handler_runs_goes_back_and_stays_away_for_a_while() {
        let mut table = hanging(2);
        assert!(table.is_left_to_end());
        table.deliver(delivery("1", 2));
        let release = Some(PassedOn::action());
        assert!(
            matches!(&release, Some(Action::Release(release)) if release.retry_after.is_some())
        );
        assert_eq!(sent(&mut table), [(token("1", 2), release.clone())]);
        assert_eq!(table.heartbeat().leases, [token("1", 2)]);
        assert!(table.heartbeat().begun.is_empty());
        // On a new connection again, and under the token that came last.
        table.rejoin(2, Vec::new());
        table.credit.grant();
        assert_eq!(sent(&mut table), [(token("1", 2), release.clone())]);
        table.deliver(delivery("1", 3));
        assert_eq!(sent(&mut table), [(token("1", 3), release)]);
        answer(&mut table, token("1", 3));
        assert!(table.is_settled() && !table.is_empty());
        assert!(table.heartbeat().leases.is_empty());
        assert!(!table.has_queued() && table.credit.is_pending());
    }

    #[test]
    fn an_old_handler_that_ends_leaves_the_release_of_what_came_again() {
        let mut table = hanging(2);
        table.deliver(delivery("1", 2));
        assert!(!table.finish("1|l|1".to_owned(), job::Outcome::done().into_action()));
        assert_eq!(table.running(), 0);
        assert_eq!(
            sent(&mut table),
            [(token("1", 2), Some(PassedOn::action()))]
        );
        assert!(table.heartbeat().begun.is_empty());
        answer(&mut table, token("1", 2));
        assert!(table.is_empty());
        assert_eq!(table.credit.grant(), 2);
    }

    #[test]
    fn abandoned_handlers_leave_the_release_of_what_came_again() {
        let mut table = hanging(2);
        table.deliver(delivery("1", 2));
        table.abandon_running();
        assert!(!table.is_settled());
        assert_eq!(sent(&mut table).len(), 1);
        answer(&mut table, token("1", 2));
        assert!(table.is_settled() && table.is_empty());
    }

    #[test]
    fn what_goes_back_unstarted_is_not_told_as_begun() {
        let mut table = Table::default();
        table.rejoin(2, Vec::new());
        table.credit.grant();
        table.deliver(delivery("1", 1));
        table.deliver(delivery("2", 1));
        assert!(table.start(&CancellationToken::new()).is_some());
        assert_eq!(table.revoke(1), 1);
        let beat = table.heartbeat();
        assert_eq!(beat.leases.len(), 2);
        assert_eq!(beat.begun, [token("1", 1)]);
        table.finish("1|l|1".to_owned(), job::Outcome::done().into_action());
        assert_eq!(table.heartbeat().begun, [token("1", 1)]);
    }
}
