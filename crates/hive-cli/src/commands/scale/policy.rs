//! How a group is scaled, as flags and as it is printed.

use std::time::Duration;

use clap::{Args, ValueEnum};
use hive_protocol::{
    wire,
    words::coordination::{SCALING_EXECUTORS, SCALING_STRATEGIES, word_for},
};
use serde::Serialize;

use crate::values::{duration, seconds, wire_duration};

/// On which numbers more or fewer consumers are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Strategy {
    /// On today's.
    Reactive,
    /// On those forecast for when a worker started now would be ready.
    Predictive,
    /// On the larger of both.
    Hybrid,
}

/// Who starts and stops consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Executor {
    /// Nobody: the wish is published alone; `hive dev --scale` makes it `process`.
    None,
    /// KEDA, which asks the coordinator.
    Keda,
    /// The coordinator, by the Deployment `--target`.
    Kubernetes,
    /// `hive dev --scale`.
    Process,
    /// The URL `--target`, by a signed POST.
    Webhook,
}

/// How consumers are added and removed; what is not named keeps its value, or gets its default.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Scaling")]
pub(crate) struct PolicyArgs {
    /// On which numbers more or fewer consumers are wanted.
    #[arg(long, value_enum)]
    strategy: Option<Strategy>,
    /// Within which time a backlog is to be worked off.
    #[arg(long, value_parser = duration)]
    drain_target: Option<Duration>,
    /// How long a worker takes from its start until it works.
    #[arg(long, value_parser = duration)]
    startup_time: Option<Duration>,
    /// More are wanted once that held for so long.
    #[arg(long, value_parser = duration)]
    scale_up_window: Option<Duration>,
    /// Fewer are wanted once that held for so long.
    #[arg(long, value_parser = duration)]
    scale_down_window: Option<Duration>,
    /// Pause between two steps up.
    #[arg(long, value_parser = duration)]
    scale_up_cooldown: Option<Duration>,
    /// Pause between two steps down.
    #[arg(long, value_parser = duration)]
    scale_down_cooldown: Option<Duration>,
    /// Most consumers added by one step; 0 for no limit.
    #[arg(long)]
    scale_up_step: Option<u32>,
    /// Most consumers removed by one step; 0 for no limit.
    #[arg(long)]
    scale_down_step: Option<u32>,
    /// Share of a ceiling that groups share, 1 to 1,000.
    #[arg(long)]
    weight: Option<u32>,
    /// Who starts and stops consumers.
    #[arg(long, value_enum)]
    executor: Option<Executor>,
    /// What the executor acts on: `namespace/deployment`, or a URL.
    #[arg(long)]
    target: Option<String>,
}

impl PolicyArgs {
    /// What is named; none where nothing is.
    pub(crate) fn wire(self) -> Option<wire::ScalingPolicy> {
        let strategy = match self.strategy {
            None => wire::ScalingStrategy::Unspecified,
            Some(Strategy::Reactive) => wire::ScalingStrategy::Reactive,
            Some(Strategy::Predictive) => wire::ScalingStrategy::Predictive,
            Some(Strategy::Hybrid) => wire::ScalingStrategy::Hybrid,
        };
        let executor = match self.executor {
            None => wire::ScalingExecutor::Unspecified,
            Some(Executor::None) => wire::ScalingExecutor::None,
            Some(Executor::Keda) => wire::ScalingExecutor::Keda,
            Some(Executor::Kubernetes) => wire::ScalingExecutor::Kubernetes,
            Some(Executor::Process) => wire::ScalingExecutor::Process,
            Some(Executor::Webhook) => wire::ScalingExecutor::Webhook,
        };
        let policy = wire::ScalingPolicy {
            strategy: strategy.into(),
            drain_target: self.drain_target.and_then(wire_duration),
            startup_time: self.startup_time.and_then(wire_duration),
            scale_up_window: self.scale_up_window.and_then(wire_duration),
            scale_down_window: self.scale_down_window.and_then(wire_duration),
            scale_up_cooldown: self.scale_up_cooldown.and_then(wire_duration),
            scale_down_cooldown: self.scale_down_cooldown.and_then(wire_duration),
            scale_up_step: self.scale_up_step,
            scale_down_step: self.scale_down_step,
            weight: self.weight,
            executor: executor.into(),
            target: self.target,
        };
        (policy != wire::ScalingPolicy::default()).then_some(policy)
    }
}

/// A policy as it is printed: the names of the REST API.
#[derive(Debug, Serialize)]
pub(crate) struct PolicyView {
    strategy: &'static str,
    drain_target_seconds: f64,
    startup_time_seconds: f64,
    scale_up_window_seconds: f64,
    scale_down_window_seconds: f64,
    scale_up_cooldown_seconds: f64,
    scale_down_cooldown_seconds: f64,
    scale_up_step: u32,
    scale_down_step: u32,
    weight: u32,
    pub(super) executor: &'static str,
    target: String,
}

impl From<wire::ScalingPolicy> for PolicyView {
    fn from(policy: wire::ScalingPolicy) -> Self {
        Self {
            strategy: word_for(&SCALING_STRATEGIES, policy.strategy()),
            drain_target_seconds: seconds(policy.drain_target.as_ref()),
            startup_time_seconds: seconds(policy.startup_time.as_ref()),
            scale_up_window_seconds: seconds(policy.scale_up_window.as_ref()),
            scale_down_window_seconds: seconds(policy.scale_down_window.as_ref()),
            scale_up_cooldown_seconds: seconds(policy.scale_up_cooldown.as_ref()),
            scale_down_cooldown_seconds: seconds(policy.scale_down_cooldown.as_ref()),
            scale_up_step: policy.scale_up_step(),
            scale_down_step: policy.scale_down_step(),
            weight: policy.weight(),
            executor: word_for(&SCALING_EXECUTORS, policy.executor()),
            target: policy.target.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        policy: PolicyArgs,
    }

    fn read(line: &[&str]) -> Option<wire::ScalingPolicy> {
        let words = ["hive"].iter().chain(line);
        Line::try_parse_from(words).unwrap().policy.wire()
    }

    #[test]
    fn flags_that_are_not_named_change_nothing() {
        assert_eq!(read(&[]), None);
        let change = read(&["--weight", "7", "--drain-target", "1m"]).unwrap();
        let expected = wire::ScalingPolicy {
            weight: Some(7),
            drain_target: wire_duration(Duration::from_secs(60)),
            ..wire::ScalingPolicy::default()
        };
        assert_eq!(change, expected);
    }

    #[test]
    fn an_executor_is_set_with_its_target_and_shown_by_its_word() {
        let change = read(&["--executor", "kubernetes", "--target", "a/b"]).unwrap();
        assert_eq!(change.executor(), wire::ScalingExecutor::Kubernetes);
        let view = PolicyView::from(change);
        assert_eq!((view.executor, view.target.as_str()), ("kubernetes", "a/b"));
    }
}
