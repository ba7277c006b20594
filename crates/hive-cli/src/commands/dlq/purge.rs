//! `hive dlq purge`: deletes dead letters for good, after a count and a question.

use clap::Args;
use hive_client::{Client, wire};
use serde::Serialize;

use super::filter::{CareArgs, FilterArgs};
use crate::{
    asking::confirm,
    connection::refused,
    exit::{Exit, Failure},
    output::Output,
};

/// Which dead letters to delete.
#[derive(Args, Debug)]
pub(crate) struct PurgeArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// All of them but those that are being replayed, without a filter.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    care: CareArgs,
}

/// What went, or would.
#[derive(Debug, Serialize)]
struct Purged {
    dry_run: bool,
    purged: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    confirm: String,
}

impl PurgeArgs {
    fn check(&self) -> Result<(), Failure> {
        let message = match (self.filter.is_empty(), self.all) {
            (true, false) => "say which by filters, or say --all",
            (false, true) => "--all stands in place of filters",
            (true, true) | (false, false) => return Ok(()),
        };
        Err(Failure::new(Exit::Usage, message))
    }
}

/// Counts, asks, deletes until nothing is left that was counted.
///
/// # Errors
/// When the flags do not fit, nobody answers, it is refused, or not confirmed.
pub(super) async fn run(client: &Client, args: PurgeArgs, out: Output) -> anyhow::Result<Exit> {
    args.check()?;
    let mut request = wire::PurgeDeadLettersRequest {
        filter: Some(args.filter.wire()),
        dry_run: true,
        confirm: String::new(),
    };
    let counted = client.purge_dead_letters(request.clone()).await;
    let counted = counted.map_err(refused)?;
    let count = counted.purged;
    if args.care.dry_run || count == 0 {
        let text = format!("{count} dead letters would be deleted for good");
        let view = Purged {
            dry_run: true,
            purged: count,
            confirm: counted.confirm,
        };
        out.done(&text, &view)?;
        return Ok(Exit::Done);
    }
    if !args.care.yes {
        confirm(&format!("delete {count} dead letters for good?"))?;
    }
    (request.dry_run, request.confirm) = (false, counted.confirm);
    let mut purged = 0;
    loop {
        let answer = client.purge_dead_letters(request.clone()).await;
        let answer = answer.map_err(refused)?;
        purged += answer.purged;
        if !answer.more {
            break;
        }
    }
    let view = Purged {
        dry_run: false,
        purged,
        confirm: String::new(),
    };
    out.done(&format!("{purged} dead letters are deleted"), &view)?;
    Ok(Exit::Done)
}
