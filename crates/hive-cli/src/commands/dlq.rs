//! `hive dlq`: what failed for good, why, and sending it back.

use std::time::Duration;

use clap::{Args, Subcommand};
use hive_client::{Client, wire};

use self::{
    figures::{AnalysisView, StatisticsView},
    filter::{ByArgs, FilterArgs, Status},
    purge::PurgeArgs,
    replay::ReplayArgs,
    views::{JobView, LetterView},
};
use crate::{
    connection::{Common, refused},
    exit::{Exit, Failure},
    output::{Format, Output, note},
    values::{duration, wire_duration},
};

mod figures;
mod filter;
mod purge;
mod replay;
mod views;
mod watch;

/// Most dead letters of one page.
const PAGE_MAX: u32 = 1_000;

/// How to go about it, for `--help`.
const REPLAY_EXAMPLES: &str = "\
Examples:
  hive dlq replay 5f0c…                      one, as it was
  hive dlq replay 5f0c… --payload mended.json --why 'a field was missing'
  hive dlq replay --group reviewers --category timeout --dry-run
  hive dlq replay --fingerprint 00c1… --canary 5 --rate 20
Ctrl-C leaves a job running; `hive dlq jobs cancel` ends it.";

/// What to do with dead letters.
#[derive(Subcommand, Debug)]
pub(crate) enum DlqCommand {
    /// Lists dead letters, the newest first, with the next step for each.
    Ls(ListArgs),
    /// Shows one: why it died, all of its attempts, its payload, what happened to it.
    Get {
        /// Its id.
        dlq_id: String,
    },
    /// Shows how many there are, of what kind and where.
    Stats,
    /// Looks for patterns in what failed lately, and says what to do.
    Analyze {
        /// Look so far back, 1 minute to 7 days.
        #[arg(long, value_parser = duration, default_value = "24h")]
        window: Duration,
        /// Only of this group.
        #[arg(long, short)]
        group: Option<String>,
    },
    /// Sends dead letters back: by their ids, or what a filter takes.
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay(Box<ReplayArgs>),
    /// Deletes dead letters for good.
    Purge(Box<PurgeArgs>),
    /// Says what is to become of dead letters.
    SetStatus {
        /// `replayable`: recovery sends it back soon; `permanent_failure`: it is not sent back;
        /// `archived`: out of the way; `analyzed`: waits for a person.
        #[arg(value_enum)]
        status: Status,
        /// Which, by their ids.
        #[arg(required = true, value_name = "DLQ_ID")]
        ids: Vec<String>,
        #[command(flatten)]
        by: ByArgs,
        /// Why, for the history.
        #[arg(long, default_value = "", value_name = "TEXT")]
        why: String,
    },
    /// Lists, shows and ends replay jobs.
    #[command(subcommand)]
    Jobs(JobsCommand),
    /// Shows what dies as it dies, and how many there are in the namespace.
    Watch {
        #[command(flatten)]
        filter: Box<FilterArgs>,
        /// Begin with so many that died before.
        #[arg(long, default_value_t = 5)]
        last: u32,
    },
}

/// Which dead letters to list.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Most of them.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Go on where an earlier list ended.
    #[arg(long)]
    cursor: Option<String>,
    /// With their payloads; in JSON formats.
    #[arg(long)]
    payload: bool,
}

/// What to do with replay jobs.
#[derive(Subcommand, Debug)]
pub(crate) enum JobsCommand {
    /// Lists jobs, the newest first.
    Ls {
        /// Most of them, 1 to 1,000.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Shows how far a job is.
    Get {
        /// Its id.
        job_id: String,
    },
    /// Ends a job; what it sent stays sent.
    Cancel {
        /// Its id.
        job_id: String,
    },
}

/// Runs one dead-letter command.
///
/// # Errors
/// When nobody answers, or it is refused; or the flags do not fit.
pub(crate) async fn run(command: DlqCommand, common: &Common) -> anyhow::Result<Exit> {
    let client = common.client()?;
    let out = common.out();
    match command {
        DlqCommand::Ls(args) => list(&client, args, out).await,
        DlqCommand::Get { dlq_id } => {
            let letter = client.get_dead_letter(dlq_id).await.map_err(refused)?;
            let view = LetterView::from(letter);
            out.done(&view.text(), &view)?;
            Ok(Exit::Done)
        },
        DlqCommand::Stats => {
            let figures = client.dead_letter_statistics().await.map_err(refused)?;
            let view = StatisticsView::from(figures);
            out.done(&view.text(), &view)?;
            Ok(Exit::Done)
        },
        DlqCommand::Analyze { window, group } => {
            let request = wire::AnalyzeDeadLettersRequest {
                window: wire_duration(window),
                group: group.unwrap_or_default(),
            };
            let found = client.analyze_dead_letters(request).await;
            let view = AnalysisView::from(found.map_err(refused)?);
            out.done(&view.text(), &view)?;
            Ok(Exit::Done)
        },
        DlqCommand::Replay(args) => replay::run(&client, *args, out).await,
        DlqCommand::Purge(args) => purge::run(&client, *args, out).await,
        DlqCommand::SetStatus {
            status,
            ids,
            by,
            why,
        } => set_status(&client, status, (ids, by.name(), why), out).await,
        DlqCommand::Jobs(command) => jobs(&client, command, out).await,
        DlqCommand::Watch { filter, last } => watch::run(&client, *filter, last, out).await,
    }
}

/// Lists up to `limit`, page by page.
async fn list(client: &Client, args: ListArgs, out: Output) -> anyhow::Result<Exit> {
    let mut request = wire::ListDeadLettersRequest {
        filter: Some(args.filter.wire()),
        limit: 0,
        cursor: args.cursor.unwrap_or_default(),
        include_payload: args.payload,
    };
    let (mut letters, mut left) = (Vec::new(), args.limit);
    while left > 0 {
        request.limit = left.min(PAGE_MAX);
        let page = client.list_dead_letters(request.clone()).await;
        let page = page.map_err(refused)?;
        left = left.saturating_sub(u32::try_from(page.messages.len()).unwrap_or(u32::MAX));
        letters.extend(page.messages.into_iter().map(LetterView::from));
        request.cursor = page.next_cursor;
        if request.cursor.is_empty() {
            break;
        }
    }
    out.list(&letters)?;
    if !request.cursor.is_empty() {
        note(&format!("there are more: --cursor {}", request.cursor));
    } else if letters.is_empty() && out.format() == Format::Table {
        note("no dead letter fits");
    }
    Ok(Exit::Done)
}

async fn set_status(
    client: &Client,
    status: Status,
    (ids, by, why): (Vec<String>, String, String),
    out: Output,
) -> anyhow::Result<Exit> {
    let settable = [
        Status::Analyzed,
        Status::Replayable,
        Status::PermanentFailure,
        Status::Archived,
    ];
    if !settable.contains(&status) {
        let message = "only `analyzed`, `replayable`, `permanent_failure` and `archived` can be \
                       set; `hive dlq replay` sends one back";
        return Err(Failure::new(Exit::Usage, message).into());
    }
    let mut letters = Vec::new();
    for dlq_id in ids {
        let request = wire::SetDeadLetterStatusRequest {
            dlq_id,
            status: status.wire().into(),
            by: by.clone(),
            why: why.clone(),
        };
        let changed = client.set_dead_letter_status(request).await;
        letters.push(LetterView::from(changed.map_err(refused)?));
    }
    out.list(&letters)?;
    Ok(Exit::Done)
}

async fn jobs(client: &Client, command: JobsCommand, out: Output) -> anyhow::Result<Exit> {
    let job = match command {
        JobsCommand::Ls { limit } => {
            let request = wire::ListReplayJobsRequest { limit };
            let answer = client.list_replay_jobs(request).await.map_err(refused)?;
            let jobs = answer.jobs.into_iter().map(JobView::from);
            out.list(&jobs.collect::<Vec<JobView>>())?;
            return Ok(Exit::Done);
        },
        JobsCommand::Get { job_id } => client.get_replay_job(job_id).await,
        JobsCommand::Cancel { job_id } => client.cancel_replay_job(job_id).await,
    };
    let view = JobView::from(job.map_err(refused)?);
    out.done(&view.text(), &view)?;
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests;
