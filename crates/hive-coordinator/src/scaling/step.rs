//! One look at a group, and what becomes of it: pure but for the numbers that it is given.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use hive_domain::group::{GroupDefinition, GroupState};
use hive_domain::scaling::{self, Demand, Executor, Limits};
use hive_domain::time::Timestamp;
use hive_store::demand::GroupDemand;

use super::state::{Event, Execution, Going, Kind, State};
use crate::roster::GroupName;

/// Events of one step that are stored; the store takes no more.
const EVENTS_MAX: usize = 16;
/// Consumers of a group that go at a time: what is stored of them must have room in a row.
const DRAINING_MAX: usize = 100;

/// What a look at a group came to.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    pub(crate) name: GroupName,
    pub(crate) definition: GroupDefinition,
    /// Redis' time of the look, in ms since 1970.
    pub(super) now_ms: u64,
    /// Live consumers, draining ones among them.
    pub(super) consumers: u32,
    /// Sessions of the members, by name.
    sessions: BTreeMap<String, String>,
    pub(crate) state: State,
    /// Wanted, before a ceiling that groups share.
    pub(crate) asked: u32,
}

impl Look {
    /// What a group wants now. One that is paused wants what it has wanted: nothing is delivered,
    /// whoever is there.
    pub(crate) fn of(
        name: &GroupName,
        definition: &GroupDefinition,
        found: &GroupDemand,
        (known, desired): (&State, Option<u32>),
    ) -> Self {
        let settings = &definition.settings;
        let demand = demand(found, known);
        let limits = Limits {
            min: settings.min_consumers,
            max: settings.max_consumers,
            lag_threshold: settings.lag_threshold,
        };
        let decision = scaling::decide(&settings.scaling, &limits, &demand, &known.memory);
        let sessions: BTreeMap<String, String> = found
            .members
            .iter()
            .map(|member| (member.consumer.clone(), member.session.clone()))
            .collect();
        let forecast = i64::try_from(decision.inputs.forecast_milli).unwrap_or(i64::MAX);
        let arrivals = i64::try_from(decision.inputs.arrivals_milli).unwrap_or(i64::MAX);
        let outcomes = found.recent_acked.saturating_add(found.recent_failed);
        let success = found
            .recent_acked
            .saturating_mul(1_000)
            .checked_div(outcomes);
        let mut state = State {
            memory: decision.memory,
            reason: decision.reason,
            inputs: decision.inputs,
            created_ms: definition.created_at.as_millis(),
            draining: known.draining.clone(),
            execution: known.execution.clone(),
            success_permille: success
                .and_then(|share| u32::try_from(share).ok())
                .unwrap_or(1_000),
            trend_milli: forecast.saturating_sub(arrivals),
        };
        // A new session under an old name is somebody else.
        state
            .draining
            .retain(|consumer, going| sessions.get(consumer) == Some(&going.session));
        if settings.scaling.executor == Executor::None {
            state.draining.clear();
        }
        let mut asked = decision.asked;
        if definition.state == GroupState::Paused {
            state.reason = "the group is paused: as many are wanted as before".to_owned();
            let before = desired.unwrap_or(demand.consumers.saturating_sub(demand.draining));
            asked = before.clamp(settings.min_consumers, settings.max_consumers);
        }
        Self {
            name: name.clone(),
            definition: definition.clone(),
            now_ms: found.now_ms,
            consumers: demand.consumers,
            sessions,
            state,
            asked,
        }
    }
}

/// What is asked of a group, as the policy takes it.
pub(super) fn demand(found: &GroupDemand, known: &State) -> Demand {
    let (draining, staying): (Vec<_>, Vec<_>) = found
        .members
        .iter()
        .partition(|member| known.draining.contains_key(&member.consumer));
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let slots = staying.iter().fold(0_u32, |sum, member| {
        sum.saturating_add(member.concurrency.max(1))
    });
    Demand {
        now: Timestamp(found.now_ms),
        published: found.published,
        waiting: found.waiting,
        leased: found.leased,
        ready: found.ready,
        later: found.later,
        oldest_waiting_ms: found.oldest_waiting_ms,
        recent_acked: found.recent_acked,
        recent_work_ms: found.recent_work_ms,
        recent_ms: found.recent_ms,
        consumers: count(found.members.len()),
        draining: count(draining.len()),
        slots,
    }
}

/// How many an executor is to run: those wanted, and those that have not gone yet, but never more
/// than the group takes.
pub(crate) fn applied(desired: u32, state: &State, max_consumers: u32) -> u32 {
    let draining = u32::try_from(state.draining.len()).unwrap_or(u32::MAX);
    desired.saturating_add(draining).min(max_consumers)
}

/// A look with what becomes of it.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) look: Look,
    pub(crate) epoch: u64,
    pub(crate) desired: u32,
    pub(crate) events: Vec<Event>,
}

impl Step {
    /// A look with what is granted of it, and why not all; the epoch and the wish before; and how
    /// carrying that out went, where somebody tried.
    pub(crate) fn of(
        mut look: Look,
        (desired, why): (u32, Option<String>),
        (epoch, before): (u64, Option<u32>),
        execution: Option<Result<(), String>>,
    ) -> Self {
        if let Some(why) = why {
            look.state.reason = format!("{}; {why}", look.state.reason);
        }
        let mut step = Self {
            look,
            epoch,
            desired,
            events: Vec::new(),
        };
        let from = before.unwrap_or(step.staying());
        let kind = match desired.cmp(&from) {
            Ordering::Greater => Some(Kind::Up),
            Ordering::Less => Some(Kind::Down),
            Ordering::Equal => None,
        };
        if let Some(kind) = kind {
            let reason = step.look.state.reason.clone();
            step.add_event(kind, from, reason, String::new());
        }
        if let Some(went) = execution {
            step.note_execution(went.err());
        }
        step
    }

    /// Live consumers.
    pub(crate) fn consumers(&self) -> u32 {
        self.look.consumers
    }

    /// How many an executor is to run.
    pub(crate) fn applied(&self) -> u32 {
        let max = self.look.definition.settings.max_consumers;
        applied(self.desired, &self.look.state, max)
    }

    /// Consumers that were not told to go.
    fn staying(&self) -> u32 {
        let draining = self.look.state.draining.len();
        self.consumers()
            .saturating_sub(u32::try_from(draining).unwrap_or(u32::MAX))
    }

    /// How many more are to be told to go.
    pub(crate) fn surplus(&self) -> u32 {
        match self.look.definition.settings.scaling.executor {
            // Nobody of ours starts or stops them.
            Executor::None => 0,
            Executor::Keda | Executor::Kubernetes | Executor::Process | Executor::Webhook => {
                self.staying().saturating_sub(self.desired)
            },
        }
    }

    /// Notes that a consumer is to finish and go. At most [`DRAINING_MAX`] do at a time, and
    /// [`EVENTS_MAX`] more with each step: the others follow.
    pub(crate) fn drain(&mut self, consumer: &str, reason: String) {
        let is_full = self.look.state.draining.len() >= DRAINING_MAX;
        let Some(session) = self.look.sessions.get(consumer) else {
            return;
        };
        if is_full || self.events.len() >= EVENTS_MAX {
            return;
        }
        let going = Going {
            since_ms: self.look.now_ms,
            session: session.clone(),
        };
        let told = self.look.state.draining.insert(consumer.to_owned(), going);
        if told.is_none() {
            self.add_event(Kind::Drain, self.desired, reason, consumer.to_owned());
        }
    }

    /// The same look and wish once more, without what was told of it.
    pub(crate) fn again(&self) -> Self {
        Self {
            look: self.look.clone(),
            epoch: self.epoch,
            desired: self.desired,
            events: Vec::new(),
        }
    }

    /// Whether nobody is there who stays.
    pub(crate) fn is_deserted(&self) -> bool {
        self.staying() == 0
    }

    fn note_execution(&mut self, error: Option<String>) {
        let known = &self.look.state.execution.error;
        if *known == error {
            return;
        }
        let told = match (known, &error) {
            (None, Some(error)) => Some((Kind::Failing, error.clone())),
            (Some(_), None) => Some((Kind::Recovered, "the wish is carried out again".to_owned())),
            // It fails otherwise than before: shown, and no event of its own.
            (Some(_), Some(_)) | (None, None) => None,
        };
        self.look.state.execution = Execution {
            error,
            since_ms: self.look.now_ms,
        };
        if let Some((kind, reason)) = told {
            self.add_event(kind, self.desired, reason, String::new());
        }
    }

    fn add_event(&mut self, kind: Kind, from: u32, reason: String, consumer: String) {
        self.events.push(Event {
            time_ms: self.look.now_ms,
            group: self.look.name.group.to_string(),
            kind,
            from,
            to: self.desired,
            reason,
            inputs: self.look.state.inputs,
            consumer,
            epoch: self.epoch,
        });
    }

    /// Whether there is something that must be stored at once.
    pub(crate) fn has_news(&self, desired: Option<u32>, state: &State) -> bool {
        !self.events.is_empty()
            || desired != Some(self.desired)
            || state.draining != self.look.state.draining
            || state.execution != self.look.state.execution
    }

    /// Whether nothing is there to be done, by anybody.
    pub(crate) fn is_at_rest(&self) -> bool {
        let inputs = &self.look.state.inputs;
        inputs.lag == 0
            && inputs.in_flight == 0
            && inputs.retrying == 0
            && inputs.arrivals_milli == 0
            && self.consumers() == self.desired
            && self.look.state.draining.is_empty()
    }

    /// State and events as they are stored.
    pub(crate) fn texts(&self) -> (String, Vec<String>) {
        let text = |value: Result<String, serde_json::Error>| value.unwrap_or_default();
        let events = self.events.iter().map(serde_json::to_string).map(text);
        let events = events.take(EVENTS_MAX).collect();
        (text(serde_json::to_string(&self.look.state)), events)
    }
}
