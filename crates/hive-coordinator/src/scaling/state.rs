//! What the owner of a group stores with each wish: all that the next owner, and whoever asks,
//! needs.

use std::collections::BTreeMap;

use hive_domain::group::GroupDefinition;
use hive_domain::scaling::{Inputs, Memory, Want};
use hive_store::coordination::ScalingRow;
use serde::{Deserialize, Serialize};

/// What is stored with a wish, beside the number.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    /// What the policy needs of the decisions before.
    pub(crate) memory: Memory,
    /// Why so many are wanted.
    pub(crate) reason: String,
    /// What it was decided on.
    pub(crate) inputs: Inputs,
    /// When the group was made, in ms since 1970: another one of its name begins anew.
    pub(crate) created_ms: u64,
    /// Consumers that were told to finish and go.
    pub(crate) draining: BTreeMap<String, Going>,
    /// How carrying it out goes.
    pub(crate) execution: Execution,
    /// Acks among all outcomes, of a thousand: what a shared ceiling is divided by.
    pub(crate) success_permille: u32,
    /// Change of the arrivals expected, in messages per 1,000 s.
    pub(crate) trend_milli: i64,
}

/// A consumer that was told to finish and go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Going {
    /// Since when, in ms since 1970.
    pub(crate) since_ms: u64,
    /// Its session.
    pub(crate) session: String,
}

/// How carrying a wish out goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Execution {
    /// Why it fails; none while it does not.
    pub(crate) error: Option<String>,
    /// Since when, in ms since 1970.
    pub(crate) since_ms: u64,
}

/// What a row says; the state of a row that another build wrote begins anew.
pub(crate) fn of_row(row: &ScalingRow) -> State {
    serde_json::from_str(&row.state).unwrap_or_default()
}

/// What a group wants of a shared ceiling, by what is stored of it.
pub(crate) fn want(name: String, group: &GroupDefinition, asked: u32, state: &State) -> Want {
    Want {
        group: name,
        min: group.settings.min_consumers,
        asked,
        weight: group.settings.scaling.weight,
        backlog: state.inputs.lag.saturating_add(state.inputs.retrying),
        trend_milli: state.trend_milli,
        success_permille: state.success_permille,
        service_ms: state.inputs.service_ms,
    }
}

/// What kind of event it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// More are wanted.
    Up,
    /// Fewer are wanted.
    Down,
    /// A consumer was told to finish and go.
    Drain,
    /// The executor began to fail.
    Failing,
    /// The executor works again.
    Recovered,
}

impl Kind {
    /// The word for it in labels and logs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Drain => "drain",
            Self::Failing => "failing",
            Self::Recovered => "recovered",
        }
    }
}

/// An event as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// When, by Redis' clock, in ms since 1970.
    pub(crate) time_ms: u64,
    pub(crate) group: String,
    pub(crate) kind: Kind,
    /// Wanted before.
    pub(crate) from: u32,
    /// Wanted from now on.
    pub(crate) to: u32,
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) inputs: Inputs,
    /// The consumer of a drain.
    #[serde(default)]
    pub(crate) consumer: String,
    pub(crate) epoch: u64,
}
