//! `hive stream`: creates, shows and deletes streams, and sets their limits.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use hive_protocol::wire;
use serde::Serialize;

use crate::{
    commands::replay::{self, ReplayCommand},
    connection::{Common, refused},
    exit::Exit,
    output::Show,
    values::{duration, rfc3339, seconds, wire_duration},
};

/// What to do with streams.
#[derive(Subcommand, Debug)]
pub(crate) enum StreamCommand {
    /// Creates a stream, for messages before its first group; repeating it is harmless.
    Create(LimitsArgs),
    /// Lists all streams.
    Ls,
    /// Shows one stream.
    Get {
        /// Name of the stream.
        name: String,
    },
    /// Changes limits of a stream; what is not named stays.
    Update(LimitsArgs),
    /// Publishes its history once more, to one group.
    #[command(subcommand)]
    Replay(ReplayCommand),
    /// Deletes a stream; refused while it has groups, unsettled messages or dead letters.
    Rm {
        /// Name of the stream.
        name: String,
    },
}

/// A stream, and limits of it; what is not named keeps its value, or gets the default of a new one.
#[derive(Args, Debug)]
pub(crate) struct LimitsArgs {
    /// Name of the stream.
    name: String,
    /// Most unsettled messages.
    #[arg(long)]
    max_backlog: Option<u64>,
    /// Most bytes of unsettled messages of a group.
    #[arg(long)]
    max_backlog_bytes: Option<u64>,
    /// How long messages are kept: then settled ones are deleted, and unsettled ones that nobody
    /// holds become dead letters.
    #[arg(long, value_parser = duration)]
    retention_max_age: Option<Duration>,
    /// How many messages are kept; beyond it the oldest settled ones are deleted.
    #[arg(long)]
    retention_max_len: Option<u64>,
    /// How many bytes of messages are kept; beyond it the oldest settled ones are deleted. 0 for
    /// any of the three deletes a message when it is settled.
    #[arg(long)]
    retention_max_bytes: Option<u64>,
    /// When a publish or a settle is acknowledged.
    #[arg(long, value_enum)]
    durability: Option<Durability>,
    /// Take messages while the stream has no group, for the groups to come.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    buffer_without_groups: Option<bool>,
}

/// How reliably a stream keeps what it accepted.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Durability {
    /// Redis has it in memory.
    Memory,
    /// On the disk of the primary.
    Local,
}

/// A stream as it is printed.
#[derive(Debug, Serialize)]
struct StreamView {
    name: String,
    shards: u32,
    groups: Vec<String>,
    entries: u64,
    held_for_consumers: u64,
    dead_letters: u64,
    max_backlog: u64,
    max_backlog_bytes: u64,
    retention_max_age_seconds: f64,
    retention_max_len: u64,
    retention_max_bytes: u64,
    durability: String,
    buffer_without_groups: bool,
    created_at: Option<String>,
}

/// What a deletion did.
#[derive(Debug, Serialize)]
struct Deleted {
    name: String,
}

impl Show for StreamView {
    const COLUMNS: &'static [&'static str] = &[
        "STREAM",
        "SHARDS",
        "ENTRIES",
        "HELD",
        "DEAD LETTERS",
        "DURABILITY",
        "GROUPS",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.shards.to_string(),
            self.entries.to_string(),
            self.held_for_consumers.to_string(),
            self.dead_letters.to_string(),
            self.durability.clone(),
            self.groups.join(","),
        ]
    }
}

/// Runs one stream command.
///
/// # Errors
/// When no gateway answers, or it refuses.
pub(crate) async fn run(command: StreamCommand, common: &Common) -> anyhow::Result<Exit> {
    let client = common.client()?;
    let out = common.out();
    match command {
        StreamCommand::Ls => {
            let list = client
                .list_streams(wire::ListStreamsRequest {})
                .await
                .map_err(refused)?;
            out.list(
                &list
                    .streams
                    .into_iter()
                    .map(StreamView::from)
                    .collect::<Vec<_>>(),
            )?;
        },
        StreamCommand::Get { name } => {
            out.item(&StreamView::from(
                client.get_stream(name).await.map_err(refused)?,
            ))?;
        },
        StreamCommand::Create(args) => {
            let (name, settings) = args.into_wire();
            let create = wire::CreateStreamRequest {
                name,
                shards: None,
                settings: Some(settings),
            };
            let answer = client.create_stream(create).await.map_err(refused)?;
            let word = if answer.created {
                "created"
            } else {
                "exists as asked:"
            };
            let stream = StreamView::from(answer.stream.unwrap_or_default());
            out.done(&format!("{word} stream `{}`", stream.name), &stream)?;
        },
        StreamCommand::Replay(command) => return replay::run(command, common).await,
        StreamCommand::Rm { name } => {
            let delete = wire::DeleteStreamRequest { name: name.clone() };
            client.delete_stream(delete).await.map_err(refused)?;
            out.done(&format!("deleted stream `{name}`"), &Deleted { name })?;
        },
        StreamCommand::Update(args) => {
            let (name, settings) = args.into_wire();
            let update = wire::UpdateStreamRequest {
                name,
                settings: Some(settings),
            };
            let stream = client.update_stream(update).await.map_err(refused)?;
            let stream = StreamView::from(stream);
            out.done(&format!("updated stream `{}`", stream.name), &stream)?;
        },
    }
    Ok(Exit::Done)
}

impl LimitsArgs {
    fn into_wire(self) -> (String, wire::StreamSettings) {
        let durability = match self.durability {
            None => wire::Durability::Unspecified,
            Some(Durability::Memory) => wire::Durability::Memory,
            Some(Durability::Local) => wire::Durability::Local,
        };
        let settings = wire::StreamSettings {
            max_backlog: self.max_backlog,
            max_backlog_bytes: self.max_backlog_bytes,
            retention_max_age: self.retention_max_age.and_then(wire_duration),
            retention_max_len: self.retention_max_len,
            retention_max_bytes: self.retention_max_bytes,
            durability: durability.into(),
            buffer_without_groups: self.buffer_without_groups,
        };
        (self.name, settings)
    }
}

impl From<wire::Stream> for StreamView {
    fn from(stream: wire::Stream) -> Self {
        let settings = stream.settings.unwrap_or_default();
        let durability = settings.durability().as_str_name();
        Self {
            name: stream.name,
            shards: stream.shards,
            groups: stream.groups,
            entries: stream.entries,
            held_for_consumers: stream.held_for_consumers,
            dead_letters: stream.dead_letters,
            durability: durability.trim_start_matches("DURABILITY_").to_lowercase(),
            max_backlog: settings.max_backlog(),
            max_backlog_bytes: settings.max_backlog_bytes(),
            retention_max_age_seconds: seconds(settings.retention_max_age.as_ref()),
            retention_max_len: settings.retention_max_len(),
            retention_max_bytes: settings.retention_max_bytes(),
            buffer_without_groups: settings.buffer_without_groups(),
            created_at: rfc3339(stream.created_at.as_ref()),
        }
    }
}
