//! `hive dlq replay`: sends dead letters back, one by one or by filter.
//!
//! What is named is sent at once. What a filter takes is counted first and sent as a job, which
//! goes on without this command: the command only follows it.

use std::time::Duration;

use clap::Args;
use hive_client::{Client, wire};
use hive_protocol::wire::ReplayJobState;
use serde::Serialize;
use tokio::time::sleep;
use uuid::Uuid;

use super::{
    filter::{ByArgs, CareArgs, FilterArgs},
    views::{JobView, LetterView, ReplayedView},
};
use crate::{
    asking::confirm,
    commands::workflow::read_stdin,
    connection::{exit_for, refused, told},
    exit::{Exit, Failure},
    output::{Format, Output, note, progress},
};

/// Pause between two looks at a job that is followed.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Which dead letters, and how they are sent back.
#[derive(Args, Debug)]
pub(crate) struct ReplayArgs {
    /// Which, by their ids; or say which by filters.
    #[arg(value_name = "DLQ_ID")]
    ids: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// All that may be replayed, without a filter.
    #[arg(long)]
    all: bool,
    /// Most to replay, the oldest first [default: all that the filter takes].
    #[arg(long, value_name = "COUNT")]
    limit: Option<u32>,
    /// Most per second [default: as fast as it goes].
    #[arg(long)]
    rate: Option<u32>,
    /// Replay so many first, and go on only if all of them succeed.
    #[arg(long, value_name = "COUNT")]
    canary: Option<u32>,
    /// To another group.
    #[arg(long, default_value = "", value_name = "GROUP")]
    target_group: String,
    /// To another stream: every group of it gets the messages.
    #[arg(long, default_value = "", value_name = "STREAM")]
    target_stream: String,
    /// Raise the priority by so much, at most to 9: 0 to 9, or `true` for 2.
    #[arg(long, value_name = "STEPS", value_parser = boost, default_value = "0")]
    priority_boost: u32,
    /// Send what is in this file in place of the payload; `-` for stdin. Of one message alone.
    #[arg(long, value_name = "FILE")]
    payload: Option<String>,
    /// Past the guard against loops; of named ones, also again what was replayed before.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    care: CareArgs,
    #[command(flatten)]
    patience: WaitArgs,
    #[command(flatten)]
    by: ByArgs,
    /// Why, for the history of a named one.
    #[arg(long, default_value = "", value_name = "TEXT")]
    why: String,
}

/// Whether a job is followed.
#[derive(Args, Debug)]
struct WaitArgs {
    /// Follow the job to its end (the default).
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Begin the job and say how to follow it.
    #[arg(long, overrides_with = "wait")]
    no_wait: bool,
}

/// What a replay by filter would take.
#[derive(Debug, Serialize)]
struct Counted {
    dry_run: bool,
    would_replay: u64,
    sample: Vec<LetterView>,
}

impl ReplayArgs {
    /// What is wrong with the flags together.
    fn check(&self) -> Result<(), Failure> {
        let is_named = !self.ids.is_empty();
        let is_many = !self.filter.is_empty() || self.all;
        let of_filters = [
            ("--limit", self.limit.is_some()),
            ("--rate", self.rate.is_some()),
            ("--canary", self.canary.is_some()),
            ("--no-wait", self.patience.no_wait),
        ];
        let misfit = of_filters
            .iter()
            .find(|(_, is_given)| is_named && *is_given);
        let message = if is_named && is_many {
            "name dead letters, or say which by filters, not both".to_owned()
        } else if !is_named && !is_many {
            "name dead letters, say which by filters, or say --all".to_owned()
        } else if self.all && !self.filter.is_empty() {
            "--all stands in place of filters".to_owned()
        } else if let Some((flag, _)) = misfit {
            format!("`{flag}` belongs to a replay by filters")
        } else if self.payload.is_some() && self.ids.len() != 1 {
            "`--payload` belongs to one dead letter, named by its id".to_owned()
        } else if !self.why.is_empty() && !is_named {
            "`--why` belongs to dead letters that are named".to_owned()
        } else {
            return Ok(());
        };
        Err(Failure::new(Exit::Usage, message))
    }

    fn request(&self) -> wire::ReplayDeadLettersRequest {
        wire::ReplayDeadLettersRequest {
            filter: Some(self.filter.wire()),
            limit: self.limit.unwrap_or(0),
            rate: self.rate.unwrap_or(0),
            canary: self.canary.unwrap_or(0),
            target_stream: self.target_stream.clone(),
            target_group: self.target_group.clone(),
            priority_boost: self.priority_boost,
            force: self.force,
            by: self.by.name(),
            ..wire::ReplayDeadLettersRequest::default()
        }
    }
}

/// Reads a boost of priorities, as the REST API does.
fn boost(text: &str) -> Result<u32, String> {
    let number = match text {
        "true" => Some(2),
        "false" => Some(0),
        _ => text.parse().ok().filter(|number| *number <= 9),
    };
    number.ok_or_else(|| "write 0 to 9, `true` or `false`".to_owned())
}

/// Replays.
///
/// # Errors
/// When the flags do not fit, nobody answers, or it is refused.
pub(super) async fn run(client: &Client, args: ReplayArgs, out: Output) -> anyhow::Result<Exit> {
    args.check()?;
    if args.ids.is_empty() {
        return many(client, &args, out).await;
    }
    if args.care.dry_run {
        let mut letters = Vec::new();
        for id in &args.ids {
            let letter = client.get_dead_letter(id).await.map_err(refused)?;
            letters.push(LetterView::from(letter));
        }
        out.list(&letters)?;
        return Ok(Exit::Done);
    }
    let payload = match &args.payload {
        Some(file) => Some(read(file).await?),
        None => None,
    };
    let (mut shown, mut exit) = (Vec::new(), Exit::Done);
    for id in &args.ids {
        let request = wire::ReplayDeadLetterRequest {
            dlq_id: id.clone(),
            target_stream: args.target_stream.clone(),
            target_group: args.target_group.clone(),
            priority_boost: args.priority_boost,
            payload: payload.clone().map(Into::into),
            force: args.force,
            by: args.by.name(),
            why: args.why.clone(),
        };
        let mut view = ReplayedView {
            dlq_message_id: id.clone(),
            replayed: false,
            message_id: String::new(),
            replay_number: 0,
            error: String::new(),
        };
        match client.replay_dead_letter(request).await {
            Ok(answer) => {
                view.replayed = answer.replayed;
                view.message_id = answer.message_id;
                view.replay_number = answer.replay_number;
            },
            // One alone is refused as any call is; of several the others are tried all the same.
            Err(error) if args.ids.len() == 1 => return Err(refused(error).into()),
            Err(error) => {
                view.error = told(error.fault());
                exit = exit_for(error.fault().kind);
            },
        }
        shown.push(view);
    }
    out.list(&shown)?;
    Ok(exit)
}

async fn read(file: &str) -> anyhow::Result<Vec<u8>> {
    if file == "-" {
        return read_stdin().await;
    }
    let read = tokio::fs::read(file).await;
    Ok(read.map_err(|error| Failure::new(Exit::Usage, format!("`{file}`: {error}")))?)
}

/// Counts what the filter takes, asks, and replays it as a job.
async fn many(client: &Client, args: &ReplayArgs, out: Output) -> anyhow::Result<Exit> {
    let mut dry = args.request();
    dry.dry_run = true;
    let counted = client.replay_dead_letters(dry).await.map_err(refused)?;
    let count = counted.would_replay;
    let sample: Vec<LetterView> = counted.sample.into_iter().map(LetterView::from).collect();
    if args.care.dry_run || count == 0 {
        let text = match count {
            0 => "no dead letter fits: nothing is replayed".to_owned(),
            _ => format!("{count} dead letters would be replayed, the oldest first"),
        };
        if out.format() == Format::Table {
            out.text(&text)?;
            if !sample.is_empty() {
                out.list(&sample)?;
            }
        } else {
            out.item(&Counted {
                dry_run: true,
                would_replay: count,
                sample,
            })?;
        }
        return Ok(Exit::Done);
    }
    if count > 1 && !args.care.yes {
        for letter in sample.iter().take(5) {
            note(&format!("  {}", letter.line().join("  ")));
        }
        confirm(&format!("send {count} dead letters back?"))?;
    }
    let mut request = args.request();
    // Named here, so that it can be followed and ended even where the answer is lost.
    request.job_id = Uuid::now_v7().to_string();
    let answer = client.replay_dead_letters(request).await.map_err(refused)?;
    let job = answer.job.unwrap_or_default();
    if args.patience.no_wait {
        let view = JobView::from(job);
        let id = &view.job_id;
        let follow = format!("{}\n  follow it: hive dlq jobs get {id}", view.text());
        out.done(&follow, &view)?;
        return Ok(Exit::Done);
    }
    follow(client, job, out).await
}

/// Follows a job to its end. Ctrl-C leaves it running.
async fn follow(client: &Client, mut job: wire::ReplayJob, out: Output) -> anyhow::Result<Exit> {
    let bar = progress(job.total.max(1), "sent back");
    let interrupted = tokio::signal::ctrl_c();
    let mut interrupted = std::pin::pin!(interrupted);
    while is_running(&job) {
        bar.set_length(job.total.max(1));
        bar.set_position(job.attempted);
        bar.set_message(doing(&job));
        tokio::select! {
            () = sleep(LOOK_EVERY) => {},
            _ = &mut interrupted => {
                bar.finish_and_clear();
                note(&left_running(&job.job_id));
                return Ok(Exit::Interrupted);
            },
        }
        match client.get_replay_job(&job.job_id).await {
            Ok(seen) => job = seen,
            // The job goes on, whoever can be asked about it.
            Err(error) if error.fault().is_retryable() => bar.set_message(told(error.fault())),
            Err(error) => return Err(refused(error).into()),
        }
    }
    bar.finish_and_clear();
    let is_whole = job.state() == ReplayJobState::Done && job.failed == 0;
    let view = JobView::from(job);
    out.done(&view.text(), &view)?;
    Ok(if is_whole { Exit::Done } else { Exit::Failed })
}

fn is_running(job: &wire::ReplayJob) -> bool {
    matches!(
        job.state(),
        ReplayJobState::Running | ReplayJobState::Canary
    )
}

fn doing(job: &wire::ReplayJob) -> String {
    if job.state() == ReplayJobState::Canary {
        return format!(
            "sent back; waits for what becomes of the first {}",
            job.canary
        );
    }
    if job.failed > 0 {
        return format!("sent back, {} not", job.failed);
    }
    "sent back".to_owned()
}

fn left_running(job_id: &str) -> String {
    format!(
        "the job goes on\n  follow it: hive dlq jobs get {job_id}\n  end it:    hive dlq jobs \
         cancel {job_id}"
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        args: ReplayArgs,
    }

    fn args(line: &str) -> ReplayArgs {
        let words = std::iter::once("replay").chain(line.split_whitespace());
        Line::try_parse_from(words).unwrap().args
    }

    #[test]
    fn flags_that_do_not_fit_together_are_refused() {
        for line in [
            "",
            "d-1 --group g",
            "d-1 --all",
            "--all --group g",
            "d-1 --rate 5",
            "d-1 --canary 5",
            "d-1 --limit 5",
            "d-1 --no-wait",
            "d-1 d-2 --payload f",
            "--group g --payload f",
            "--group g --why x",
        ] {
            assert!(args(line).check().is_err(), "{line}");
        }
        for line in [
            "d-1 d-2 --force --target-group g --priority-boost 3",
            "d-1 --payload - --why mended --by me",
            "--group g --category timeout --status analyzed,replayable --rate 5 --canary 2 --yes",
            "--all --limit 10 --no-wait --dry-run",
            "--fingerprint ff --from 2026-01-01T00:00:00Z --to 2026-01-02T00:00:00Z",
        ] {
            assert!(args(line).check().is_ok(), "{line}");
        }
    }

    #[test]
    fn a_replay_by_filter_says_all_that_was_given() {
        let given = args(
            "--group g --type t --workflow w --error-type E --stream s --status analyzed \
             --limit 7 --rate 5 --canary 2 --target-group h --priority-boost true --force --by me",
        );
        let request = given.request();
        let filter = request.filter.unwrap();
        assert_eq!((&*filter.group, &*filter.message_type), ("g", "t"));
        assert_eq!((&*filter.workflow_id, &*filter.error_type), ("w", "E"));
        assert_eq!(filter.status, [wire::DeadLetterStatus::Analyzed as i32]);
        assert_eq!((request.limit, request.rate, request.canary), (7, 5, 2));
        assert_eq!((&*request.target_group, request.priority_boost), ("h", 2));
        assert!(request.force && request.by == "me" && !request.dry_run);
    }

    #[test]
    fn who_leaves_a_job_running_is_told_how_to_end_it() {
        let text = left_running("j-1");
        assert!(text.contains("hive dlq jobs cancel j-1"), "{text}");
    }

    #[test]
    fn a_job_that_waits_for_its_canary_says_so() {
        let job = |state: ReplayJobState| wire::ReplayJob {
            state: state.into(),
            canary: 5,
            failed: 1,
            ..wire::ReplayJob::default()
        };
        assert!(doing(&job(ReplayJobState::Canary)).contains("the first 5"));
        assert_eq!(doing(&job(ReplayJobState::Running)), "sent back, 1 not");
        assert!(!is_running(&job(ReplayJobState::Failed)));
    }
}
