//! `hive rebalance`: evens out what consumers hold and have not begun.

use std::time::Duration;

use clap::Args;
use hive_client::wire;
use hive_protocol::words::coordination::{REBALANCE_ACTIONS, word_for};
use serde::Serialize;

use crate::{
    connection::{Common, refused},
    exit::Exit,
    output::{Format, Show, note},
    values::rfc3339,
};

/// Whom to rebalance.
#[derive(Args, Debug)]
pub(crate) struct RebalanceArgs {
    /// The group [default: all of the namespace].
    group: Option<String>,
    /// Plan, and move nothing.
    #[arg(long)]
    dry_run: bool,
}

/// What a rebalance did: the names of the REST API.
#[derive(Debug, Serialize)]
struct Rebalanced {
    status: &'static str,
    groups_analyzed: u32,
    operations_performed: Vec<Operation>,
    rebalance_time_ms: u128,
    timestamp: Option<String>,
}

/// One step.
#[derive(Debug, Serialize)]
struct Operation {
    group: String,
    action: &'static str,
    from: String,
    to: String,
    count: u32,
    reason: String,
}

impl Show for Operation {
    const COLUMNS: &'static [&'static str] = &["GROUP", "ACTION", "FROM", "TO", "COUNT", "REASON"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.group.clone(),
            self.action.to_owned(),
            self.from.clone(),
            self.to.clone(),
            self.count.to_string(),
            self.reason.clone(),
        ]
    }
}

impl From<wire::RebalanceOperation> for Operation {
    fn from(operation: wire::RebalanceOperation) -> Self {
        Self {
            action: word_for(&REBALANCE_ACTIONS, operation.action()),
            group: operation.group,
            from: operation.from,
            to: operation.to,
            count: operation.count,
            reason: operation.reason,
        }
    }
}

/// Rebalances once.
///
/// # Errors
/// When nobody answers, or it is refused.
pub(crate) async fn run(args: RebalanceArgs, common: &Common) -> anyhow::Result<Exit> {
    let request = wire::RebalanceRequest {
        group: args.group.unwrap_or_default(),
        dry_run: args.dry_run,
    };
    let answer = common.client()?.rebalance(request).await.map_err(refused)?;
    let elapsed = answer
        .elapsed
        .and_then(|time| Duration::try_from(time).ok());
    let done = Rebalanced {
        status: if args.dry_run { "dry_run" } else { "success" },
        groups_analyzed: answer.groups_analyzed,
        operations_performed: answer.operations.into_iter().map(Operation::from).collect(),
        rebalance_time_ms: elapsed.unwrap_or_default().as_millis(),
        timestamp: rfc3339(answer.timestamp.as_ref()),
    };
    let out = common.out();
    if out.format() != Format::Table {
        out.item(&done)?;
        return Ok(Exit::Done);
    }
    if !done.operations_performed.is_empty() {
        out.list(&done.operations_performed)?;
    }
    let moved = if args.dry_run {
        "would be moved"
    } else {
        "were moved"
    };
    let count: u32 = done.operations_performed.iter().map(|one| one.count).sum();
    note(&format!(
        "{} groups looked at, {count} messages {moved}, in {} ms",
        done.groups_analyzed, done.rebalance_time_ms
    ));
    Ok(Exit::Done)
}
