//! Judges the history of a run: which promises were broken.
//!
//! A pure function over the log. It claims a violation only for what the log proves: an unknown
//! outcome may have happened or not, a frame may be read long after it was sent, and the order of
//! two records of different clients says nothing by itself. What cannot be decided is counted, so
//! that a run whose log proves little is seen as such.
//!
//! The rules are the list of the repository's test plan: nothing acked lost, nothing settled twice
//! or by a stale lease, no live lease taken away, no healthy message dead, one entry per key, order
//! per ordering key, true counters, and the deadlines of [`Terms`].

mod counters;
mod dead;
mod facts;
mod leases;
mod ordering;
mod publishes;
mod timing;

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, time::Duration};

use facts::Facts;

use crate::history::History;

/// What the run was set up to keep.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Attempts that the groups allow; a message may override it.
    pub max_attempts: u32,
    /// Lease time of the groups.
    pub lease: Duration,
    /// What a kill of Redis may undo: none with `appendfsync always`, or how long before the kill
    /// an answer may have come that the kill undid.
    pub loss_window: Option<Duration>,
    /// Whether every message must be settled at the end.
    pub is_drained: bool,
    /// How long after the last fault and the last publish the last settle may come.
    pub drain_within: Option<Duration>,
    /// How long nothing may be delivered in a group while a message waits there. Only for runs
    /// whose consumers always have room.
    pub gap_max: Option<Duration>,
    /// How long what a lost consumer held may take to be delivered again.
    pub redelivery_max: Option<Duration>,
}

impl Default for Terms {
    /// The defaults of a group, a Redis that forgets nothing, and a run that ends drained.
    fn default() -> Self {
        Self {
            max_attempts: 3,
            lease: Duration::from_secs(30),
            loss_window: None,
            is_drained: true,
            drain_within: Some(Duration::from_secs(30)),
            gap_max: None,
            redelivery_max: None,
        }
    }
}

/// A promise that a history can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The log contradicts itself or lacks what a verdict needs.
    LogBroken,
    /// An acked publish is processed, dead or still pending at the end.
    Lost,
    /// Only what was published is delivered, and only to its groups.
    Phantom,
    /// A payload arrives as it was sent.
    PayloadChanged,
    /// One stored message per idempotency key.
    DuplicateKey,
    /// One accepted ack or dead letter per message and group.
    SettledTwice,
    /// What was acked does not come back.
    SettleUndone,
    /// Only the latest lease settles.
    StaleAccepted,
    /// Only a lease that was given settles.
    ForgedAccepted,
    /// A consumer that lives and beats keeps its leases.
    LiveLeaseLost,
    /// A message dies by its own failures alone.
    WronglyDead,
    /// A message dies after exactly its allowed attempts.
    AttemptsWrong,
    /// At most one message per ordering key and group is in flight.
    TwoInFlight,
    /// Messages of one ordering key come in publish order.
    OrderBroken,
    /// Figures equal the truth at rest.
    CounterWrong,
    /// Nothing is left at the end of a drained run.
    NotDrained,
    /// The last settle comes in time after the last fault.
    DrainedLate,
    /// Deliveries go on while something waits.
    GapTooLong,
    /// What a lost consumer held moves on in time.
    RedeliveredLate,
}

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// What the log shows, with group, message, lease and times.
    pub evidence: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.evidence)
    }
}

/// The verdict over a history.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Report {
    /// All broken promises.
    pub violations: Vec<Violation>,
    /// Settles whose lease could not be put in order: equal attempts, no delivery count.
    pub undecided: u64,
    /// Messages that were stored.
    pub stored: u64,
    /// Accepted acks.
    pub acked: u64,
    /// Dead letters.
    pub dead: u64,
    /// Deliveries beyond the first of a message in a group.
    pub redelivered: u64,
    /// Longest time in which a group delivered nothing while a message waited there.
    pub longest_gap: Duration,
    /// For each lease of a lost consumer, how long its message took to be delivered again.
    pub redeliveries: Vec<Duration>,
}

impl Report {
    /// Whether this rule was broken.
    #[must_use]
    pub fn breaks(&self, rule: Rule) -> bool {
        self.violations
            .iter()
            .any(|violation| violation.rule == rule)
    }

    /// Ends a test whose run broke a promise.
    ///
    /// # Panics
    /// When there is any violation, with the report.
    pub fn assert_clean(&self) {
        assert!(self.violations.is_empty(), "{self}");
    }

    fn add(&mut self, rule: Rule, evidence: String) {
        self.violations.push(Violation { rule, evidence });
    }
}

/// Violations shown per rule; the rest is counted.
const SHOWN_MAX: usize = 5;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "stored {}, acked {}, dead {}, redelivered {}, undecided {}, violations {}",
            self.stored,
            self.acked,
            self.dead,
            self.redelivered,
            self.undecided,
            self.violations.len()
        )?;
        let mut shown: BTreeMap<Rule, usize> = BTreeMap::new();
        for violation in &self.violations {
            let count = shown.entry(violation.rule).or_default();
            *count += 1;
            if *count <= SHOWN_MAX {
                writeln!(f, "  {violation}")?;
            }
        }
        for (rule, count) in shown.iter().filter(|(_, count)| **count > SHOWN_MAX) {
            writeln!(f, "  {rule:?}: {} more", count - SHOWN_MAX)?;
        }
        Ok(())
    }
}

/// Judges a history by what its run was set up to keep.
///
/// The history must hold an [`AtRest`](crate::history::Event::AtRest) for each group and all dead
/// letters, recorded when nothing moves any more.
pub fn check(history: &History, terms: &Terms) -> Report {
    let mut report = Report::default();
    let facts = Facts::gather(history, terms, &mut report);
    publishes::check(&facts, &mut report);
    leases::check(&facts, &mut report);
    dead::check(&facts, &mut report);
    ordering::check(&facts, &mut report);
    counters::check(&facts, &mut report);
    timing::check(&facts, &mut report);
    report
}
