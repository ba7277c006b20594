//! The circuit breaker of a group: while its failures look systemic, nothing goes back by itself.
//!
//! It opens when many messages died lately and either most deliveries fail, or one fault makes
//! nearly all of the dead. After a time one message is replayed as a probe: its success closes the
//! breaker, its failure opens it again for twice as long. A probe that nobody hears of again counts
//! as failed, so that a lost message never keeps a group half open.
//!
//! It never holds back a person: a replay by hand is asked of nobody here.

use serde::{Deserialize, Serialize};

use super::{recovery::range, text::span};
use crate::{time::Timestamp, violation::Violations};

/// When a breaker opens and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Dead letters in the window from which it may open, 1 to 1,000,000.
    pub min_dead: u64,
    /// Share of failed deliveries from which it opens, 1 to 100 percent.
    pub failed_percent: u32,
    /// Share of the commonest fault among the dead from which it opens, 1 to 100 percent.
    pub dominant_percent: u32,
    /// Share of failed deliveries that a dominant fault needs besides, 0 to 100 percent: one odd
    /// producer in a healthy group is no reason to stop.
    pub dominant_failed_percent: u32,
    /// How long it stays open before the first probe, 1 s to 1 h, in ms.
    pub open_ms: u64,
    /// How long it stays open at most, `open_ms` to 24 h, in ms.
    pub open_ms_max: u64,
    /// A probe without an outcome for so long counts as failed, 1 s to 24 h, in ms.
    pub probe_within_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            min_dead: 10,
            failed_percent: 50,
            dominant_percent: 80,
            dominant_failed_percent: 20,
            open_ms: 60_000,
            open_ms_max: 1_800_000,
            probe_within_ms: 600_000,
        }
    }
}

impl Settings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// A violation for each field at fault.
    pub fn validate(&self) -> Result<(), Violations> {
        let mut violations = Violations::new();
        let v = &mut violations;
        range(v, "min_dead", self.min_dead, (1, 1_000_000));
        range(v, "failed_percent", self.failed_percent, (1, 100));
        range(v, "dominant_percent", self.dominant_percent, (1, 100));
        range(
            v,
            "dominant_failed_percent",
            self.dominant_failed_percent,
            (0, 100),
        );
        range(v, "open_ms", self.open_ms, (1_000, 3_600_000));
        range(
            v,
            "open_ms_max",
            self.open_ms_max,
            (self.open_ms, 86_400_000),
        );
        range(
            v,
            "probe_within_ms",
            self.probe_within_ms,
            (1_000, 86_400_000),
        );
        violations.into_result()
    }
}

/// What happened in a group lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Window {
    /// Messages acknowledged.
    pub acked: u64,
    /// Deliveries that failed, dead or to be tried again.
    pub failed_deliveries: u64,
    /// Messages that died.
    pub dead: u64,
    /// Of those, how many by the commonest fault.
    pub top_fingerprint: u64,
    /// How long a time this is, in ms; for words only.
    pub span_ms: u64,
}

impl Window {
    /// Failed deliveries of a hundred; 0 where there were none at all.
    #[must_use]
    pub fn failed_percent(&self) -> u64 {
        let all = self.acked.saturating_add(self.failed_deliveries);
        percent(self.failed_deliveries, all)
    }
}

/// How many of a hundred, rounded down; 0 of none.
pub(super) fn percent(part: u64, whole: u64) -> u64 {
    let percent = u128::from(part)
        .saturating_mul(100)
        .checked_div(u128::from(whole));
    u64::try_from(percent.unwrap_or(0)).unwrap_or(u64::MAX)
}

/// Where a breaker is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// All is well: recovery acts by itself.
    #[default]
    Closed,
    /// Nothing goes back by itself.
    Open {
        /// From when on a probe may go.
        until: Timestamp,
        /// Since when, through all probes.
        opened_at: Timestamp,
        /// Why it opened, for people.
        reason: String,
        /// How often it opened since it was closed last, from 1.
        times: u32,
    },
    /// A probe is under way; nothing else goes back by itself.
    HalfOpen {
        /// The dead letter that is replayed as a probe.
        probe: String,
        /// When it was chosen.
        since: Timestamp,
        /// Since when it is not closed.
        opened_at: Timestamp,
        /// Why it opened, for people.
        reason: String,
        /// How often it opened since it was closed last, from 1.
        times: u32,
    },
}

impl State {
    /// The word for it in JSON and on screens.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen { .. } => "half_open",
        }
    }
}

/// The circuit breaker of one group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Breaker {
    /// Where it is.
    #[serde(flatten)]
    pub state: State,
}

/// What changed, for a record and an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It opened for the first time.
    Opened {
        /// Why, for people.
        reason: String,
        /// From when on a probe may go.
        until: Timestamp,
    },
    /// A probe failed, or nobody heard of it: it is open again.
    OpenedAgain {
        /// Why, for people.
        reason: String,
        /// From when on the next probe may go.
        until: Timestamp,
    },
    /// A probe succeeded.
    Closed,
}

impl Breaker {
    /// Whether recovery may send messages back by itself.
    #[must_use]
    pub const fn admits(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// When to look again without a new fact: a probe may go, or is given up.
    #[must_use]
    pub fn deadline(&self, settings: &Settings) -> Option<Timestamp> {
        match &self.state {
            State::Closed => None,
            State::Open { until, .. } => Some(*until),
            State::HalfOpen { since, .. } => Some(since.plus(settings.probe_within_ms)),
        }
    }

    /// Takes in what happened lately: opens where it looks systemic, and gives up a probe without
    /// an outcome.
    pub fn observe(
        &mut self,
        window: &Window,
        settings: &Settings,
        now: Timestamp,
    ) -> Option<Change> {
        match &self.state {
            State::Closed => {
                let reason = systemic(window, settings)?;
                let until = now.plus(settings.open_ms);
                self.state = State::Open {
                    until,
                    opened_at: now,
                    reason: reason.clone(),
                    times: 1,
                };
                Some(Change::Opened { reason, until })
            },
            State::Open { .. } => None,
            State::HalfOpen { probe, since, .. } => {
                if now.since(*since) < settings.probe_within_ms {
                    return None;
                }
                let seconds = settings.probe_within_ms / 1_000;
                let why = format!("nothing was heard of probe `{probe}` for {seconds} s");
                self.open_again(why, settings, now)
            },
        }
    }

    /// Makes `dlq_id` the probe, if one may go now; answers whether it is.
    pub fn probe(&mut self, dlq_id: &str, now: Timestamp) -> bool {
        let State::Open {
            until,
            opened_at,
            reason,
            times,
        } = &self.state
        else {
            return false;
        };
        if now < *until {
            return false;
        }
        self.state = State::HalfOpen {
            probe: dlq_id.to_owned(),
            since: now,
            opened_at: *opened_at,
            reason: reason.clone(),
            times: *times,
        };
        true
    }

    /// Takes in how a replay ended; one that is not the probe changes nothing.
    pub fn outcome(
        &mut self,
        dlq_id: &str,
        succeeded: bool,
        settings: &Settings,
        now: Timestamp,
    ) -> Option<Change> {
        let State::HalfOpen { probe, .. } = &self.state else {
            return None;
        };
        if probe != dlq_id {
            return None;
        }
        if succeeded {
            self.state = State::Closed;
            return Some(Change::Closed);
        }
        let why = format!("probe `{dlq_id}` failed");
        self.open_again(why, settings, now)
    }

    /// Closes it by a person's word; answers whether it was not closed.
    pub fn reset(&mut self) -> bool {
        let was_closed = self.admits();
        self.state = State::Closed;
        !was_closed
    }

    fn open_again(
        &mut self,
        reason: String,
        settings: &Settings,
        now: Timestamp,
    ) -> Option<Change> {
        let State::HalfOpen {
            opened_at, times, ..
        } = &self.state
        else {
            return None;
        };
        let factor = 1_u64.checked_shl(*times).unwrap_or(u64::MAX);
        let open_ms = settings.open_ms.saturating_mul(factor);
        let until = now.plus(open_ms.min(settings.open_ms_max));
        self.state = State::Open {
            until,
            opened_at: *opened_at,
            reason: reason.clone(),
            times: times.saturating_add(1),
        };
        Some(Change::OpenedAgain { reason, until })
    }
}

/// Why what happened looks systemic, if it does.
fn systemic(window: &Window, settings: &Settings) -> Option<String> {
    if window.dead < settings.min_dead {
        return None;
    }
    let (failed, span) = (window.failed_percent(), span(window.span_ms));
    let all = window.acked.saturating_add(window.failed_deliveries);
    let (dead, top) = (window.dead, window.top_fingerprint);
    if failed >= u64::from(settings.failed_percent) {
        let of = window.failed_deliveries;
        return Some(format!(
            "{of} of {all} deliveries failed in the last {span}, and {dead} messages died"
        ));
    }
    let is_dominant = percent(top, dead) >= u64::from(settings.dominant_percent);
    (is_dominant && failed >= u64::from(settings.dominant_failed_percent)).then(|| {
        format!(
            "{top} of {dead} dead letters of the last {span} have one fault, and \
             {failed} percent of the deliveries failed"
        )
    })
}

#[cfg(test)]
mod tests;
