//! `hive stream replay`: publishes a stream's history once more, to one group of it.

use std::time::Duration;

use clap::{Args, Subcommand};
use hive_client::Client;
use hive_protocol::{wire, words::replay_state};
use serde::Serialize;
use tokio::time::sleep;

use crate::{
    connection::{Common, refused},
    exit::Exit,
    output::progress,
    values::rfc3339,
};

/// Pause between two looks at a replay that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What to do with replays of a stream.
#[derive(Subcommand, Debug)]
pub(crate) enum ReplayCommand {
    /// Begins a replay; a coordinator carries it on.
    Start(StartArgs),
    /// Shows how far a replay is.
    Get(NamedArgs),
    /// Ends a replay; what it has published stays.
    Cancel(NamedArgs),
}

/// What to replay, and to whom.
#[derive(Args, Debug)]
pub(crate) struct StartArgs {
    /// Name of the stream.
    stream: String,
    /// The group of this stream that gets the messages.
    #[arg(long, short)]
    group: String,
    /// Names the replay: the same id shows the replay that it began; a new one when not given.
    #[arg(long, default_value = "")]
    id: String,
    /// Messages published at this time (RFC 3339) or later; the oldest when not given.
    #[arg(long)]
    from: Option<jiff::Timestamp>,
    /// Messages published before this time (RFC 3339); now when not given.
    #[arg(long)]
    to: Option<jiff::Timestamp>,
    /// Only messages of these types, with commas between.
    #[arg(long = "type", value_delimiter = ',')]
    message_types: Vec<String>,
    /// Only messages of these senders, with commas between.
    #[arg(long = "sender", value_delimiter = ',')]
    from_agents: Vec<String>,
    /// Most messages published per second.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Wait until it has ended.
    #[arg(long)]
    wait: bool,
}

/// A replay.
#[derive(Args, Debug)]
pub(crate) struct NamedArgs {
    /// Name of the stream.
    stream: String,
    /// Id of the replay.
    replay_id: String,
}

/// A replay as it is printed: the names of the REST API.
#[derive(Debug, Serialize)]
struct ReplayView {
    replay_id: String,
    stream: String,
    group: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    message_types: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    from_agents: Vec<String>,
    rate: u32,
    state: &'static str,
    examined: u64,
    published: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
}

/// Runs one replay command.
///
/// # Errors
/// When no gateway answers, or it refuses.
pub(crate) async fn run(command: ReplayCommand, common: &Common) -> anyhow::Result<Exit> {
    let (client, out) = (common.client()?, common.out());
    match command {
        ReplayCommand::Start(args) => {
            let is_waiting = args.wait;
            let answer = client.replay_stream(args.into_wire()).await;
            let mut replay = answer.map_err(refused)?.replay.unwrap_or_default();
            if !is_waiting {
                let view = ReplayView::from(replay);
                out.done(&format!("replay `{}` is under way", view.replay_id), &view)?;
                return Ok(Exit::Done);
            }
            let bar = progress(0, "replayed");
            while replay.state() == wire::ReplayState::Running {
                bar.set_position(replay.published);
                sleep(LOOK_EVERY).await;
                replay = look(&client, replay.stream, replay.replay_id).await?;
            }
            bar.finish_and_clear();
            let is_done = replay.state() == wire::ReplayState::Done;
            let view = ReplayView::from(replay);
            let text = format!(
                "replay `{}` is {}: {} of {} messages published",
                view.replay_id, view.state, view.published, view.examined
            );
            out.done(&text, &view)?;
            Ok(if is_done { Exit::Done } else { Exit::Failed })
        },
        ReplayCommand::Get(NamedArgs { stream, replay_id }) => {
            let replay = look(&client, stream, replay_id).await?;
            out.item(&ReplayView::from(replay))?;
            Ok(Exit::Done)
        },
        ReplayCommand::Cancel(NamedArgs { stream, replay_id }) => {
            let cancel = wire::CancelReplayRequest { stream, replay_id };
            let answer = client.cancel_replay(cancel).await.map_err(refused)?;
            let view = ReplayView::from(answer.replay.unwrap_or_default());
            out.done(
                &format!("replay `{}` is {}", view.replay_id, view.state),
                &view,
            )?;
            Ok(Exit::Done)
        },
    }
}

async fn look(
    client: &Client,
    stream: String,
    replay_id: String,
) -> anyhow::Result<wire::StreamReplay> {
    let get = wire::GetReplayRequest { stream, replay_id };
    let answer = client.get_replay(get).await.map_err(refused)?;
    Ok(answer.replay.unwrap_or_default())
}

impl StartArgs {
    fn into_wire(self) -> wire::ReplayStreamRequest {
        let moment = |at: jiff::Timestamp| prost_types::Timestamp {
            seconds: at.as_second(),
            nanos: at.subsec_nanosecond(),
        };
        wire::ReplayStreamRequest {
            stream: self.stream,
            group: self.group,
            replay_id: self.id,
            from: self.from.map(moment),
            to: self.to.map(moment),
            message_types: self.message_types,
            from_agents: self.from_agents,
            rate: self.rate,
        }
    }
}

impl From<wire::StreamReplay> for ReplayView {
    fn from(replay: wire::StreamReplay) -> Self {
        Self {
            state: replay_state(replay.state()),
            from: rfc3339(replay.from.as_ref()),
            to: rfc3339(replay.to.as_ref()),
            started_at: rfc3339(replay.started_at.as_ref()),
            ended_at: rfc3339(replay.ended_at.as_ref()),
            replay_id: replay.replay_id,
            stream: replay.stream,
            group: replay.group,
            message_types: replay.message_types,
            from_agents: replay.from_agents,
            rate: replay.rate,
            examined: replay.examined,
            published: replay.published,
            error: replay.error,
        }
    }
}
