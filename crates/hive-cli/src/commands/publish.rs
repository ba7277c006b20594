//! `hive publish`: sends one message, or a file of them, to a group or a stream.
//!
//! Messages of one call go through one [`Publisher`]: a lost answer is asked for again without
//! publishing twice. A stream that is full is waited for, up to a limit.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal as _, Read as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use hive_client::{Client, Pending, PublishError, Publisher, Receipt, Target, wire};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    commands::tracked,
    connection::{Common, exit_for, told},
    exit::{Exit, Failure},
    message::{MessageLine, priority},
    output::{Format, Output, Show, note, progress},
    values::{duration, moment_after, pair},
};

/// Messages on their way at once.
const WINDOW: usize = 4096;

/// How long a message is tried that the server refuses for the moment only.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many refusals are told one by one.
const TOLD_MAX: u64 = 10;

/// Longest payload or line that is read: the server's own limit is far below.
const INPUT_BYTES_MAX: u64 = 16 << 20;

/// What to publish, and where to.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("target").required(true))]
pub(crate) struct PublishArgs {
    /// The payload; without one, and without --file, it is read from stdin.
    payload: Option<String>,
    /// To this group alone.
    #[arg(long, short, group = "target")]
    group: Option<String>,
    /// To every group of this stream.
    #[arg(long, short, group = "target")]
    stream: Option<String>,
    /// Read from this file; `-` is stdin.
    #[arg(long, short, conflicts_with = "payload")]
    file: Option<PathBuf>,
    /// One message of JSON per line, with the fields of the REST API.
    #[arg(long, conflicts_with = "payload")]
    jsonl: bool,
    /// Track it, wait for its end for this long, and print the result; anything but an ack is a
    /// failure.
    #[arg(long, value_parser = duration, num_args = 0..=1, default_missing_value = "1h",
        require_equals = true, conflicts_with_all = ["jsonl", "stream"])]
    wait: Option<Duration>,
    #[command(flatten)]
    envelope: EnvelopeArgs,
}

/// Fields of a single message; lines of JSON bring their own.
#[derive(Args, Debug)]
struct EnvelopeArgs {
    /// What kind of work this is.
    #[arg(long = "type", default_value = "", conflicts_with = "jsonl")]
    message_type: String,
    /// Id of the message; a new one when not given.
    #[arg(long, default_value = "", conflicts_with = "jsonl")]
    id: String,
    /// Who sends it.
    #[arg(long, default_value = "", conflicts_with = "jsonl")]
    from: String,
    /// The one consumer that may handle it.
    #[arg(long, default_value = "", conflicts_with = "jsonl")]
    to: String,
    /// 0 to 9, or low, normal, high, urgent.
    #[arg(long, short, value_parser = priority, conflicts_with = "jsonl")]
    priority: Option<u32>,
    /// Media type of the payload.
    #[arg(long, default_value = "", conflicts_with = "jsonl")]
    content_type: String,
    /// A header, as name=value; may be repeated.
    #[arg(long, value_parser = pair, value_name = "NAME=VALUE", conflicts_with = "jsonl")]
    header: Vec<(String, String)>,
    /// Ties messages of one conversation together.
    #[arg(long, default_value = "", conflicts_with = "jsonl")]
    correlation_id: String,
    /// What a consumer must be able to do, with commas between.
    #[arg(long, value_delimiter = ',', conflicts_with = "jsonl")]
    capabilities: Vec<String>,
    /// The same key within 24 h is accepted once.
    #[arg(long, default_value = "", conflicts_with = "jsonl")]
    idempotency_key: String,
    /// At most one message of a key is in flight in a group, in order.
    #[arg(long, default_value = "", conflicts_with = "jsonl")]
    ordering_key: String,
    /// Not delivered before this long.
    #[arg(long, value_parser = duration, conflicts_with = "jsonl")]
    delay: Option<Duration>,
    /// Not delivered after this long.
    #[arg(long, value_parser = duration, conflicts_with = "jsonl")]
    ttl: Option<Duration>,
    /// Keep what becomes of it: see `hive message`. To a group alone.
    #[arg(long, conflicts_with_all = ["jsonl", "stream"])]
    track: bool,
}

/// The answer to one message, as it is printed.
#[derive(Debug, Serialize)]
struct ReceiptView {
    message_id: String,
    duplicate: bool,
}

impl Show for ReceiptView {
    const COLUMNS: &'static [&'static str] = &["MESSAGE", "DUPLICATE"];

    fn cells(&self) -> Vec<String> {
        vec![self.message_id.clone(), self.duplicate.to_string()]
    }
}

/// What became of a file of messages.
#[derive(Debug, Default, Serialize)]
struct Summary {
    published: u64,
    duplicates: u64,
    refused: u64,
}

/// A message on its way, kept until it is answered so that it can be sent again.
struct Sent {
    line: u64,
    message: wire::Message,
    pending: Pending,
}

/// Publishes what the arguments say.
///
/// # Errors
/// When the input cannot be read or is wrong, no gateway answers, or a message is refused.
pub(crate) async fn run(args: PublishArgs, common: &Common) -> anyhow::Result<Exit> {
    let client = common.client()?;
    let target = match (&args.group, &args.stream) {
        (Some(group), _) => Target::group(group),
        (None, stream) => Target::stream(stream.clone().unwrap_or_default()),
    };
    let publisher = publisher(&client, target);
    if args.jsonl {
        return lines(&args, &publisher, common.out()).await;
    }
    let payload = match &args.payload {
        Some(payload) => Bytes::from(payload.clone()),
        None => Bytes::from(read_all(args.file.as_ref())?),
    };
    let mut message = args.envelope.into_message(payload);
    message.track |= args.wait.is_some();
    let deadline = Instant::now() + PATIENCE;
    let receipt = retried(
        &publisher,
        &message,
        publisher.publish(message.clone()).await,
        deadline,
    )
    .await
    .map_err(|error| failure(&error))?;
    publisher.close().await;
    let receipt = ReceiptView::from(receipt);
    if let Some(wait) = args.wait {
        let group = args.group.unwrap_or_default();
        let end = tracked::waited(&client, &receipt.message_id, &group, wait).await?;
        return end.print_result(common.out());
    }
    let text = match receipt.duplicate {
        false => receipt.message_id.clone(),
        true => format!("{} (published before)", receipt.message_id),
    };
    common.out().done(&text, &receipt)?;
    Ok(Exit::Done)
}

/// Publishes a message per line. A line that is wrong ends it before any later one is sent.
async fn lines(args: &PublishArgs, publisher: &Publisher, out: Output) -> anyhow::Result<Exit> {
    let mut input = open(args.file.as_ref())?;
    let bar = progress(0, "published");
    let mut summary = Summary::default();
    let mut sent: VecDeque<Sent> = VecDeque::new();
    let (mut line, mut text, mut wrong) = (0, String::new(), None);
    loop {
        text.clear();
        let read = input.by_ref().take(INPUT_BYTES_MAX).read_line(&mut text);
        line += 1;
        if read.with_context(|| format!("line {line} cannot be read"))? == 0 {
            break;
        }
        if text.trim().is_empty() {
            continue;
        }
        let message = match parsed(&text) {
            Ok(message) => message,
            Err(rule) => {
                wrong = Some(Failure::new(Exit::Usage, format!("line {line}: {rule}")));
                break;
            },
        };
        if sent.len() >= WINDOW
            && let Some(oldest) = sent.pop_front()
        {
            answered(publisher, oldest, &mut summary, out).await?;
            bar.set_position(summary.published);
        }
        let pending = publisher
            .enqueue(message.clone())
            .await
            .map_err(|error| failure(&error))?;
        sent.push_back(Sent {
            line,
            message,
            pending,
        });
    }
    for oldest in sent {
        answered(publisher, oldest, &mut summary, out).await?;
        bar.set_position(summary.published);
    }
    bar.finish_and_clear();
    let Summary {
        published,
        duplicates,
        refused,
    } = summary;
    let text = format!("{published} published, {duplicates} of them before; {refused} refused");
    match out.format() {
        // The receipts are the output; the summary is for the person beside it.
        Format::Jsonl => note(&text),
        Format::Table | Format::Json => out.done(&text, &summary)?,
    }
    match wrong {
        Some(failure) => Err(failure.into()),
        None if refused > 0 => Ok(Exit::Refused),
        None => Ok(Exit::Done),
    }
}

/// Takes the answer to one line into the summary. A lost connection ends the whole file.
async fn answered(
    publisher: &Publisher,
    sent: Sent,
    summary: &mut Summary,
    out: Output,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    match retried(publisher, &sent.message, sent.pending.await, deadline).await {
        Ok(receipt) => {
            summary.published += 1;
            summary.duplicates += u64::from(receipt.duplicate);
            if out.format() == Format::Jsonl {
                out.list(&[ReceiptView::from(receipt)])?;
            }
            Ok(())
        },
        Err(PublishError::Refused(fault)) if exit_for(fault.kind) == Exit::Refused => {
            summary.refused += 1;
            if summary.refused <= TOLD_MAX {
                note(&format!("line {}: {}", sent.line, told(&fault)));
            }
            Ok(())
        },
        Err(error) => Err(failure(&error)).with_context(|| format!("line {}", sent.line)),
    }
}

/// Sends a message again for as long as the server refuses it for the moment only.
async fn retried(
    publisher: &Publisher,
    message: &wire::Message,
    mut answer: Result<Receipt, PublishError>,
    deadline: Instant,
) -> Result<Receipt, PublishError> {
    loop {
        match answer {
            Err(error) if error.is_retryable() && Instant::now() < deadline => {
                let wait = error.retry_after().unwrap_or(Duration::from_millis(200));
                sleep(wait.clamp(Duration::from_millis(50), Duration::from_secs(5))).await;
                answer = publisher.publish(message.clone()).await;
            },
            settled => return settled,
        }
    }
}

/// A publisher with our window and patience.
fn publisher(client: &Client, target: Target) -> Publisher {
    Publisher::builder(client, target)
        .window(WINDOW)
        .patience(PATIENCE)
        .build()
}

/// What a message that was not published means for the exit code.
fn failure(error: &PublishError) -> Failure {
    match error {
        PublishError::Refused(fault) => Failure::new(exit_for(fault.kind), told(fault)),
        PublishError::TooLarge { .. } => Failure::new(Exit::Refused, error.to_string()),
        PublishError::Unknown(_) => Failure::new(Exit::Unavailable, error.to_string()),
        PublishError::Closed => Failure::new(Exit::Failed, error.to_string()),
    }
}

/// One line of JSON as a message.
fn parsed(text: &str) -> Result<wire::Message, String> {
    let line: MessageLine = serde_json::from_str(text).map_err(|error| error.to_string())?;
    line.into_wire()
}

/// The whole input, as a payload.
fn read_all(file: Option<&PathBuf>) -> anyhow::Result<Vec<u8>> {
    let mut payload = Vec::new();
    open(file)?
        .take(INPUT_BYTES_MAX)
        .read_to_end(&mut payload)
        .context("cannot read the payload")?;
    Ok(payload)
}

/// Opens the input.
fn open(file: Option<&PathBuf>) -> anyhow::Result<Box<dyn BufRead>> {
    match file.filter(|path| path.as_os_str() != "-") {
        Some(path) => {
            let opened = File::open(path);
            let opened = opened.with_context(|| format!("cannot open `{}`", path.display()))?;
            Ok(Box::new(BufReader::new(opened)))
        },
        None => {
            if io::stdin().is_terminal() {
                note("reading from the terminal; end with Ctrl-D");
            }
            Ok(Box::new(BufReader::new(io::stdin())))
        },
    }
}

impl EnvelopeArgs {
    fn into_message(self, payload: Bytes) -> wire::Message {
        wire::Message {
            message_id: self.id,
            from_agent: self.from,
            to_agent: self.to,
            message_type: self.message_type,
            payload,
            content_type: self.content_type,
            headers: self.header.into_iter().collect(),
            priority: self.priority,
            correlation_id: self.correlation_id,
            required_capabilities: self.capabilities,
            idempotency_key: self.idempotency_key,
            ordering_key: self.ordering_key,
            not_before: self.delay.and_then(moment_after),
            expires_at: self.ttl.and_then(moment_after),
            track: self.track,
            ..wire::Message::default()
        }
    }
}

impl From<Receipt> for ReceiptView {
    fn from(receipt: Receipt) -> Self {
        Self {
            message_id: receipt.message_id,
            duplicate: receipt.duplicate,
        }
    }
}
