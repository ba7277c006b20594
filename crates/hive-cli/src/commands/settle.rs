//! `hive settle`: says what became of deliveries that `hive fetch` leased.

use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use hive_protocol::wire::{self, outcome::Action};
use serde::Serialize;

use crate::{
    connection::{Common, refused},
    exit::{Exit, Failure},
    output::{Show, note},
    values::{duration, wire_duration},
};

/// What to settle, and how.
#[derive(Args, Debug)]
pub(crate) struct SettleArgs {
    /// What became of the deliveries.
    #[arg(value_enum)]
    action: Verb,
    /// Their leases, as `hive fetch` printed them.
    #[arg(required = true, num_args = 1..=1000)]
    leases: Vec<String>,
    /// The group.
    #[arg(long, short)]
    group: String,
    /// What came out (ack).
    #[arg(long)]
    result: Option<String>,
    /// Why it failed (nack, reject).
    #[arg(long, default_value = "")]
    reason: String,
    /// Failure category, e.g. `timeout` (nack, reject).
    #[arg(long, default_value = "")]
    category: String,
    /// Type of the error, e.g. `TimeoutError` (nack, reject).
    #[arg(long, default_value = "", value_name = "TYPE")]
    error_type: String,
    /// Stack trace; of more than 4 KiB the middle is left out (nack, reject).
    #[arg(long, default_value = "", value_name = "TEXT")]
    stack: String,
    /// Not delivered again before this long (nack, release).
    #[arg(long, value_parser = duration)]
    delay: Option<Duration>,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Verb {
    /// Done.
    Ack,
    /// Failed; counted, and tried again after a backoff.
    Nack,
    /// Given back, not counted.
    Release,
    /// Can never be done: goes to the dead letters now.
    Reject,
    /// Not settled: the lease starts anew.
    Extend,
}

/// The answer to one outcome, as it is printed.
#[derive(Debug, Serialize)]
struct ResultView {
    lease: String,
    status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

impl Show for ResultView {
    const COLUMNS: &'static [&'static str] = &["LEASE", "STATUS", "ERROR"];

    fn cells(&self) -> Vec<String> {
        vec![self.lease.clone(), self.status.clone(), self.error.clone()]
    }
}

/// Settles all leases in one call; ends with [`Exit::Refused`] when one was not taken.
///
/// # Errors
/// When a flag does not fit the action, no gateway answers, or it refuses the call.
pub(crate) async fn run(args: SettleArgs, common: &Common) -> anyhow::Result<Exit> {
    let action = args.action()?;
    let outcomes = args
        .leases
        .iter()
        .map(|lease| wire::Outcome {
            lease: lease.clone(),
            action: Some(action.clone()),
        })
        .collect();
    let settle = wire::SettleRequest {
        group: args.group,
        outcomes,
    };
    let answer = common.client()?.settle(settle).await.map_err(refused)?;
    let taken = answer
        .results
        .iter()
        .filter(|one| one.status() == wire::SettleStatus::Ok)
        .count();
    let total = answer.results.len();
    common.out().list(
        &answer
            .results
            .into_iter()
            .map(ResultView::from)
            .collect::<Vec<_>>(),
    )?;
    if taken == total {
        return Ok(Exit::Done);
    }
    note(&format!(
        "{} of {total} outcomes were not taken",
        total - taken
    ));
    Ok(Exit::Refused)
}

impl SettleArgs {
    /// The action on the wire, after the flags have been held against it.
    fn action(&self) -> Result<Action, Failure> {
        let fails = matches!(self.action, Verb::Nack | Verb::Reject);
        let waits = matches!(self.action, Verb::Nack | Verb::Release);
        let misfits = [
            (
                "--result",
                self.result.is_some() && self.action != Verb::Ack,
                "ack",
            ),
            (
                "--reason",
                !self.reason.is_empty() && !fails,
                "nack and reject",
            ),
            (
                "--category",
                !self.category.is_empty() && !fails,
                "nack and reject",
            ),
            (
                "--error-type",
                !self.error_type.is_empty() && !fails,
                "nack and reject",
            ),
            (
                "--stack",
                !self.stack.is_empty() && !fails,
                "nack and reject",
            ),
            (
                "--delay",
                self.delay.is_some() && !waits,
                "nack and release",
            ),
        ];
        for (flag, is_wrong, verbs) in misfits {
            if is_wrong {
                let message = format!("`{flag}` belongs to {verbs} only");
                return Err(Failure::new(Exit::Usage, message));
            }
        }
        let delay = self.delay.and_then(wire_duration);
        let (reason, category) = (self.reason.clone(), self.category.clone());
        let (error_type, stack) = (self.error_type.clone(), self.stack.clone());
        Ok(match self.action {
            Verb::Ack => {
                let result = self.result.clone().map(Bytes::from).unwrap_or_default();
                Action::Ack(wire::Ack {
                    result,
                    add_tasks: Vec::new(),
                })
            },
            Verb::Nack => Action::Nack(wire::Nack {
                reason,
                category,
                delay,
                error_type,
                stack,
            }),
            Verb::Release => Action::Release(wire::Release { retry_after: delay }),
            Verb::Reject => Action::Reject(wire::Reject {
                reason,
                category,
                error_type,
                stack,
            }),
            Verb::Extend => Action::Extend(wire::Extend {}),
        })
    }
}

impl From<wire::SettleResult> for ResultView {
    fn from(result: wire::SettleResult) -> Self {
        let status = result.status().as_str_name();
        Self {
            status: status.trim_start_matches("SETTLE_STATUS_").to_lowercase(),
            lease: result.lease,
            error: result.error,
        }
    }
}
