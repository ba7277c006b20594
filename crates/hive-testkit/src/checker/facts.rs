//! The log, sorted by what it speaks of.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Report, Rule, Terms};
use crate::history::{
    Action, AtRest, Damage, DeadLetter, Delivery, Event, History, Loss, Publish, PublishAnswer,
    SettleAnswer, Target,
};

/// A message in a group.
pub(super) type Slot<'a> = (&'a str, &'a str);
/// A consumer in a group.
pub(super) type Member<'a> = (&'a str, &'a str);

/// One call of a publish.
#[derive(Debug)]
pub(super) struct PublishCall<'a> {
    pub(super) publish: &'a Publish,
    pub(super) called: Duration,
    /// Without an answer the outcome is unknown.
    pub(super) answer: Option<(Duration, &'a PublishAnswer)>,
}

impl PublishCall<'_> {
    pub(super) fn is_refused(&self) -> bool {
        matches!(self.answer, Some((_, PublishAnswer::Refused)))
    }

    /// Whether repeating the call cannot store a second entry.
    fn is_safe_to_repeat(&self) -> bool {
        self.publish.is_sequenced || self.publish.idempotency_key.is_some()
    }
}

/// A message by its id.
#[derive(Debug, Default)]
pub(super) struct Message {
    /// Calls that published it.
    pub(super) calls: Vec<u64>,
    /// When an answer first said that it is stored.
    pub(super) stored: Option<Duration>,
    /// Entries that its calls may have made in each group.
    pub(super) entries_max: usize,
}

/// One call of a settle.
#[derive(Debug)]
pub(super) struct Settle {
    pub(super) action: Action,
    pub(super) called: Duration,
    pub(super) answered: Option<Duration>,
    pub(super) answer: SettleAnswer,
}

impl Settle {
    /// Whether it ends the entry when it is taken.
    pub(super) fn is_terminal(&self) -> bool {
        matches!(self.action, Action::Ack | Action::Reject)
    }

    pub(super) fn is_ok(&self) -> bool {
        self.answer == SettleAnswer::Ok
    }

    /// Whether it was taken or may have been.
    pub(super) fn may_be_taken(&self) -> bool {
        matches!(self.answer, SettleAnswer::Ok | SettleAnswer::Unknown)
    }
}

/// One lease as its consumer saw it.
#[derive(Debug)]
pub(super) struct Lease<'a> {
    pub(super) delivery: &'a Delivery,
    pub(super) at: Duration,
    pub(super) begun: Option<Duration>,
    pub(super) heartbeats: Vec<Duration>,
    pub(super) settles: Vec<Settle>,
}

impl<'a> Lease<'a> {
    pub(super) fn slot(&self) -> Slot<'a> {
        (&self.delivery.group, &self.delivery.message)
    }

    pub(super) fn member(&self) -> Member<'a> {
        (&self.delivery.group, &self.delivery.consumer)
    }

    /// Whether this lease was granted after `other`, as far as the log can prove it.
    pub(super) fn is_later_than(&self, other: &Self) -> Option<bool> {
        match (self.delivery.count, other.delivery.count) {
            (Some(mine), Some(theirs)) => Some(mine > theirs),
            (Some(_), None) | (None, Some(_)) | (None, None) => {
                let (mine, theirs) = (self.delivery.attempt, other.delivery.attempt);
                (mine != theirs).then_some(mine > theirs)
            },
        }
    }
}

/// One fault from its start to its end, or to the end of the log.
#[derive(Debug)]
pub(super) struct Fault<'a> {
    pub(super) name: &'a str,
    pub(super) target: Target,
    pub(super) damage: Damage,
    pub(super) from: Duration,
    pub(super) to: Option<Duration>,
}

impl Fault<'_> {
    /// Whether it was on at some time between these two.
    pub(super) fn overlaps(&self, from: Duration, to: Duration) -> bool {
        self.from <= to && self.to.is_none_or(|end| end >= from)
    }
}

/// The log, indexed.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) terms: &'a Terms,
    pub(super) publishes: BTreeMap<u64, PublishCall<'a>>,
    pub(super) messages: BTreeMap<&'a str, Message>,
    pub(super) leases: BTreeMap<&'a str, Lease<'a>>,
    /// Calls of settles: their lease and their place there, none for a lease that was never given.
    settles: BTreeMap<u64, (&'a str, Option<usize>)>,
    /// Leases of each message in each group, in the order of their records.
    pub(super) slots: BTreeMap<Slot<'a>, Vec<&'a str>>,
    /// Leases of each consumer, in the order of their records.
    pub(super) held: BTreeMap<Member<'a>, Vec<&'a str>>,
    pub(super) losses: BTreeMap<Member<'a>, Vec<(Duration, Loss)>>,
    pub(super) concurrency: BTreeMap<Member<'a>, u32>,
    pub(super) faults: Vec<Fault<'a>>,
    pub(super) deleted: BTreeSet<&'a str>,
    pub(super) dead: BTreeMap<Slot<'a>, Vec<&'a DeadLetter>>,
    pub(super) rest: BTreeMap<&'a str, (&'a AtRest, BTreeSet<&'a str>)>,
}

impl<'a> Facts<'a> {
    pub(super) fn gather(history: &'a History, terms: &'a Terms, report: &mut Report) -> Self {
        if history.dropped > 0 {
            let evidence = format!("the log had no room for {} events", history.dropped);
            report.add(Rule::LogBroken, evidence);
        }
        let mut facts = Self {
            terms,
            publishes: BTreeMap::new(),
            messages: BTreeMap::new(),
            leases: BTreeMap::new(),
            settles: BTreeMap::new(),
            slots: BTreeMap::new(),
            held: BTreeMap::new(),
            losses: BTreeMap::new(),
            concurrency: BTreeMap::new(),
            faults: Vec::new(),
            deleted: BTreeSet::new(),
            dead: BTreeMap::new(),
            rest: BTreeMap::new(),
        };
        for entry in &history.entries {
            facts.take(entry.at, &entry.event, report);
        }
        facts.count_entries();
        facts.count_totals(report);
        facts
    }

    fn take(&mut self, at: Duration, event: &'a Event, report: &mut Report) {
        match event {
            Event::PublishCalled { call, publish } => {
                self.messages
                    .entry(&publish.message)
                    .or_default()
                    .calls
                    .push(*call);
                self.publishes.insert(
                    *call,
                    PublishCall {
                        publish,
                        called: at,
                        answer: None,
                    },
                );
            },
            Event::PublishAnswered { call, answer } => self.take_answer(at, *call, answer, report),
            Event::Joined {
                group,
                consumer,
                concurrency,
            } => {
                self.concurrency.insert((group, consumer), *concurrency);
            },
            Event::Delivered(delivery) => self.take_delivery(at, delivery),
            Event::Begun { lease } => {
                if let Some(lease) = self.leases.get_mut(&**lease) {
                    lease.begun.get_or_insert(at);
                }
            },
            Event::Heartbeat { leases } => {
                for lease in leases {
                    if let Some(lease) = self.leases.get_mut(&**lease) {
                        lease.heartbeats.push(at);
                    }
                }
            },
            Event::SettleCalled {
                call,
                lease,
                action,
            } => {
                self.take_settle(at, *call, lease, *action);
            },
            Event::SettleAnswered { call, answer } => {
                self.take_settle_answer(at, *call, *answer, report);
            },
            Event::ConsumerLost {
                group,
                consumer,
                loss,
            } => {
                self.losses
                    .entry((group, consumer))
                    .or_default()
                    .push((at, *loss));
            },
            Event::FaultBegan {
                name,
                target,
                damage,
            } => self.faults.push(Fault {
                name,
                target: *target,
                damage: *damage,
                from: at,
                to: None,
            }),
            Event::FaultEnded { name } => {
                let mut open = self.faults.iter_mut().rev();
                if let Some(fault) = open.find(|f| f.name == &**name && f.to.is_none()) {
                    fault.to = Some(at);
                }
            },
            Event::GroupDeleted { group } => {
                self.deleted.insert(group);
            },
            Event::DeadLetter(letter) => {
                self.dead
                    .entry((&letter.group, &letter.message))
                    .or_default()
                    .push(letter);
            },
            Event::AtRest(rest) => {
                let unsettled = rest.unsettled.iter().map(|id| &**id).collect();
                self.rest.insert(&rest.group, (rest, unsettled));
            },
        }
    }

    fn take_answer(
        &mut self,
        at: Duration,
        call: u64,
        answer: &'a PublishAnswer,
        report: &mut Report,
    ) {
        let Some(known) = self.publishes.get_mut(&call) else {
            let evidence = format!("publish {call} was answered and never called");
            report.add(Rule::LogBroken, evidence);
            return;
        };
        known.answer = Some((at, answer));
        let PublishAnswer::Stored(id) = answer else {
            return;
        };
        match self.messages.get_mut(&**id) {
            Some(message) => {
                message.stored.get_or_insert(at);
            },
            None => {
                let evidence = format!("publish {call} was stored as `{id}`, which nobody sent");
                report.add(Rule::Phantom, evidence);
            },
        }
    }

    fn take_settle(&mut self, at: Duration, call: u64, token: &'a str, action: Action) {
        let Some(lease) = self.leases.get_mut(token) else {
            // Judged when it is answered: a forged token may be tried, not taken.
            self.settles.insert(call, (token, None));
            return;
        };
        self.settles
            .insert(call, (token, Some(lease.settles.len())));
        let answer = SettleAnswer::Unknown;
        lease.settles.push(Settle {
            action,
            called: at,
            answered: None,
            answer,
        });
    }

    fn take_settle_answer(
        &mut self,
        at: Duration,
        call: u64,
        answer: SettleAnswer,
        report: &mut Report,
    ) {
        let Some((token, index)) = self.settles.get(&call) else {
            let evidence = format!("settle {call} was answered and never called");
            report.add(Rule::LogBroken, evidence);
            return;
        };
        match (index, self.leases.get_mut(token)) {
            (Some(index), Some(lease)) => {
                lease.settles[*index].answered = Some(at);
                lease.settles[*index].answer = answer;
            },
            (None, _) | (_, None) => {
                if answer == SettleAnswer::Ok {
                    let evidence = format!("lease `{token}` was never given and settled");
                    report.add(Rule::ForgedAccepted, evidence);
                }
            },
        }
    }

    fn take_delivery(&mut self, at: Duration, delivery: &'a Delivery) {
        // A fetch that repeats its answer shows the same lease again: the first record counts.
        if self.leases.contains_key(&*delivery.lease) {
            return;
        }
        let lease = Lease {
            delivery,
            at,
            begun: None,
            heartbeats: Vec::new(),
            settles: Vec::new(),
        };
        self.slots
            .entry(lease.slot())
            .or_default()
            .push(&delivery.lease);
        self.held
            .entry(lease.member())
            .or_default()
            .push(&delivery.lease);
        self.leases.insert(&delivery.lease, lease);
    }

    fn count_entries(&mut self) {
        for message in self.messages.values_mut() {
            let calls = message
                .calls
                .iter()
                .filter_map(|call| self.publishes.get(call));
            let mut taken = calls.filter(|call| !call.is_refused()).peekable();
            let is_safe = taken.peek().is_none_or(|call| call.is_safe_to_repeat());
            message.entries_max = if is_safe { 1 } else { taken.count() };
        }
    }

    fn count_totals(&self, report: &mut Report) {
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        report.stored = count(
            self.messages
                .values()
                .filter(|m| m.stored.is_some())
                .count(),
        );
        report.dead = count(self.dead.values().map(Vec::len).sum());
        report.redelivered = count(self.leases.len() - self.slots.len());
        let settles = self.leases.values().flat_map(|lease| &lease.settles);
        report.acked = count(
            settles
                .filter(|s| s.action == Action::Ack && s.is_ok())
                .count(),
        );
    }

    /// What the first call of a message said about it.
    pub(super) fn publish_of(&self, message: &str) -> Option<&'a Publish> {
        let call = self.messages.get(message)?.calls.first()?;
        self.publishes.get(call).map(|call| call.publish)
    }

    /// Entries that a message may have in each of its groups.
    pub(super) fn entries_max(&self, message: &str) -> usize {
        self.messages
            .get(message)
            .map_or(1, |message| message.entries_max)
    }

    /// Leases of a message in a group, in the order of their records.
    pub(super) fn leases_of(&self, slot: Slot<'a>) -> impl Iterator<Item = &Lease<'a>> {
        self.slots
            .get(&slot)
            .into_iter()
            .flatten()
            .filter_map(|token| self.leases.get(token))
    }

    /// Whether a kill of Redis may have undone what was answered at this time.
    pub(super) fn may_be_undone(&self, at: Duration) -> bool {
        let Some(window) = self.terms.loss_window else {
            return false;
        };
        let mut kills = self
            .faults
            .iter()
            .filter(|fault| fault.target == Target::Redis && fault.damage == Damage::Killed);
        kills.any(|kill| kill.from >= at && kill.from - at <= window)
    }

    /// Whether this run's Redis was killed and may have undone something.
    pub(super) fn may_have_forgotten(&self) -> bool {
        self.terms.loss_window.is_some()
            && self
                .faults
                .iter()
                .any(|fault| fault.target == Target::Redis && fault.damage == Damage::Killed)
    }
}
