//! `hive group`: creates, shows and steers consumer groups.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use hive_protocol::wire;
use serde::Serialize;

use super::scale::policy::{PolicyArgs, PolicyView};
use crate::{
    connection::{Common, refused},
    exit::Exit,
    output::Show,
    values::{duration, rfc3339, seconds, short_seconds, wire_duration},
};

mod watch;

/// What to do with groups.
#[derive(Subcommand, Debug)]
pub(crate) enum GroupCommand {
    /// Creates a group, and its stream where that does not exist; repeating it is harmless.
    Create(Box<CreateArgs>),
    /// Lists all groups with their figures.
    Ls,
    /// Shows one group.
    Get {
        /// Name of the group.
        name: String,
        /// Go on: a line whenever its figures change, and every five seconds. Ends with the group.
        #[arg(long, short)]
        watch: bool,
    },
    /// Changes settings of a group; what is not named stays.
    Update {
        /// Name of the group.
        name: String,
        #[command(flatten)]
        settings: Box<SettingsArgs>,
    },
    /// Deletes a group; refused while anything in it is unsettled.
    Rm {
        /// Name of the group.
        name: String,
        /// Move what is unsettled to the dead letters first.
        #[arg(long)]
        force: bool,
    },
    /// Moves what is unsettled to the dead letters, and leaves the group.
    Purge {
        /// Name of the group.
        name: String,
        /// Count what would go, and change nothing.
        #[arg(long)]
        dry_run: bool,
        /// The name of the group once more; needed unless it is a dry run.
        #[arg(long, default_value = "", required_unless_present = "dry_run")]
        confirm: String,
        /// Leave what consumers hold to them.
        #[arg(long)]
        keep_leased: bool,
    },
    /// Stops deliveries; publishes and settles go on.
    Pause {
        /// Name of the group.
        name: String,
    },
    /// Starts deliveries again.
    Resume {
        /// Name of the group.
        name: String,
    },
    /// Lists ordering keys that wait for an operator behind a dead letter.
    Blocked {
        /// Name of the group.
        name: String,
    },
    /// Lets such a key go on with its next message.
    Unblock {
        /// Name of the group.
        name: String,
        /// The ordering key.
        ordering_key: String,
    },
}

/// A new group.
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    /// Name of the group.
    name: String,
    /// Stream it reads [default: the group's name].
    #[arg(long)]
    stream: Option<String>,
    /// What its agents are; any name.
    #[arg(long, default_value = "general")]
    agent_type: String,
    /// Where it starts to read its stream.
    #[arg(long, value_enum, default_value = "earliest")]
    start: Start,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// Where a new group starts to read.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Start {
    /// At the oldest retained message.
    Earliest,
    /// At the messages published after its creation.
    Latest,
}

/// Who gets the next message.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Mode {
    /// The consumer with the largest free share of its capacity.
    LoadBalanced,
    /// In turn.
    RoundRobin,
    /// Strictly by priority, then age.
    PriorityBased,
    /// The most specialised capable consumer that is free.
    CapabilityMatched,
    /// Tasks of a workflow run to the consumer that last worked on it, if it has room within 2 s.
    WorkflowAware,
}

/// Settings; what is not named keeps its value, or gets the default of a new group.
#[derive(Args, Debug)]
pub(crate) struct SettingsArgs {
    /// Who gets the next message.
    #[arg(long, value_enum)]
    routing_mode: Option<Mode>,
    /// Most consumers.
    #[arg(long)]
    max_consumers: Option<u32>,
    /// Fewest consumers wanted.
    #[arg(long)]
    min_consumers: Option<u32>,
    /// Whether consumers are added and removed by demand.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    auto_scale: Option<bool>,
    /// Waiting messages per consumer beyond which more are wanted.
    #[arg(long)]
    lag_threshold: Option<u32>,
    /// How long a delivery stays a consumer's without a heartbeat.
    #[arg(long, value_parser = duration)]
    lease: Option<Duration>,
    /// Attempts before a message is dead.
    #[arg(long)]
    max_attempts: Option<u32>,
    /// First backoff after a failure.
    #[arg(long, value_parser = duration)]
    initial_backoff: Option<Duration>,
    /// Longest backoff.
    #[arg(long, value_parser = duration)]
    max_backoff: Option<Duration>,
    /// A lane not served for this long counts one priority more.
    #[arg(long, value_parser = duration)]
    priority_ageing: Option<Duration>,
    /// How long a lost connection may take to come back.
    #[arg(long, value_parser = duration)]
    reconnect_grace: Option<Duration>,
    /// Most deliveries one consumer may hold; 0 for no limit beyond its own.
    #[arg(long)]
    max_in_flight_per_consumer: Option<u32>,
    /// Most deliveries the whole group may hold; 0 for no limit.
    #[arg(long)]
    max_in_flight: Option<u32>,
    /// What becomes of an ordering key whose message becomes a dead letter by its failures.
    #[arg(long, value_enum)]
    ordering_on_dead: Option<OnDead>,
    /// A begun delivery without progress for this long counts as hung: its attempt fails; 0 for no
    /// limit.
    #[arg(long, value_parser = duration)]
    progress_timeout: Option<Duration>,
    #[command(flatten)]
    scaling: PolicyArgs,
}

/// What becomes of an ordering key behind a dead letter.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnDead {
    /// Its next message is delivered.
    Continue,
    /// Its later messages wait until `hive group unblock`.
    Block,
}

/// A group as it is printed: the names of the REST API.
#[derive(Debug, Serialize)]
pub(crate) struct GroupView {
    name: String,
    stream_name: String,
    agent_type: String,
    routing_mode: String,
    max_consumers: u32,
    min_consumers: u32,
    auto_scale_enabled: bool,
    lag_threshold: u32,
    lease_seconds: f64,
    max_attempts: u32,
    initial_backoff_seconds: f64,
    max_backoff_seconds: f64,
    priority_ageing_seconds: f64,
    reconnect_grace_seconds: f64,
    max_in_flight_per_consumer: u32,
    max_in_flight: u32,
    ordering_on_dead: String,
    progress_timeout_seconds: f64,
    scaling: PolicyView,
    paused: bool,
    created_at: Option<String>,
    #[serde(flatten)]
    figures: FiguresView,
}

/// Figures of a group as they are printed: the names of the REST API.
#[derive(Debug, Serialize)]
struct FiguresView {
    health: String,
    current_consumers: u32,
    desired_consumers: Option<u32>,
    lag: u64,
    pending_count: u64,
    scheduled_count: u64,
    throughput_msg_per_sec: f64,
    success_rate: f64,
    avg_processing_time_ms: f64,
    oldest_waiting_seconds: f64,
    published_total: u64,
    acked_total: u64,
    failed_total: u64,
    dead_total: u64,
    redelivered_total: u64,
    released_total: u64,
    expired_total: u64,
    blocked_keys: u64,
    unsettled_bytes: u64,
}

/// Whether a key was let go.
#[derive(Debug, Serialize)]
struct Unblocked {
    ordering_key: String,
    unblocked: bool,
}

/// What a purge did.
#[derive(Debug, Serialize)]
struct Purged {
    name: String,
    dry_run: bool,
    purged: u64,
}

/// What a purge would do.
#[derive(Debug, Serialize)]
struct PurgeCounted {
    name: String,
    dry_run: bool,
    purged: u64,
    waiting: u64,
    leased: u64,
    retrying: u64,
    scheduled: u64,
}

/// An ordering key that a dead letter blocks.
#[derive(Debug, Serialize)]
struct BlockedKey {
    ordering_key: String,
}

impl Show for BlockedKey {
    const COLUMNS: &'static [&'static str] = &["ORDERING KEY"];

    fn cells(&self) -> Vec<String> {
        vec![self.ordering_key.clone()]
    }
}

impl Show for GroupView {
    const COLUMNS: &'static [&'static str] = &[
        "GROUP",
        "STREAM",
        "HEALTH",
        "CONSUMERS",
        "LAG",
        "PENDING",
        "ACKED",
        "DEAD",
        "MSG/S",
        "SUCCESS",
        "OLDEST",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.stream_name.clone(),
            self.figures.health.clone(),
            format!("{}/{}", self.figures.current_consumers, self.max_consumers),
            self.figures.lag.to_string(),
            self.figures.pending_count.to_string(),
            self.figures.acked_total.to_string(),
            self.figures.dead_total.to_string(),
            format!("{:.1}", self.figures.throughput_msg_per_sec),
            format!("{:.1}%", self.figures.success_rate * 100.0),
            short_seconds(self.figures.oldest_waiting_seconds),
        ]
    }
}

/// What a deletion did.
#[derive(Debug, Serialize)]
struct Deleted {
    name: String,
    cancelled: u64,
}

async fn unblock(name: String, ordering_key: String, common: &Common) -> anyhow::Result<Exit> {
    let request = wire::UnblockKeyRequest {
        name,
        ordering_key: ordering_key.clone(),
    };
    let answer = common.client()?.unblock_key(request).await;
    let unblocked = answer.map_err(refused)?.unblocked;
    let text = if unblocked {
        format!("key `{ordering_key}` goes on")
    } else {
        format!("nothing blocks key `{ordering_key}`")
    };
    let shown = Unblocked {
        ordering_key,
        unblocked,
    };
    common.out().done(&text, &shown)?;
    Ok(Exit::Done)
}

/// Runs one group command.
///
/// # Errors
/// When no gateway answers, or it refuses.
pub(crate) async fn run(command: GroupCommand, common: &Common) -> anyhow::Result<Exit> {
    let client = common.client()?;
    let out = common.out();
    let (word, group) = match command {
        GroupCommand::Ls => {
            let list = client
                .list_groups(wire::ListGroupsRequest {})
                .await
                .map_err(refused)?;
            out.list(
                &list
                    .groups
                    .into_iter()
                    .map(GroupView::from)
                    .collect::<Vec<_>>(),
            )?;
            return Ok(Exit::Done);
        },
        GroupCommand::Get { name, watch: true } => return watch::run(&client, &name, out).await,
        GroupCommand::Get { name, watch: false } => {
            out.item(&GroupView::from(
                client.get_group(name).await.map_err(refused)?,
            ))?;
            return Ok(Exit::Done);
        },
        GroupCommand::Rm { name, force } => {
            let delete = wire::DeleteGroupRequest {
                name: name.clone(),
                force,
            };
            let cancelled = client
                .delete_group(delete)
                .await
                .map_err(refused)?
                .cancelled;
            let text = format!("deleted `{name}`; {cancelled} messages went to the dead letters");
            out.done(&text, &Deleted { name, cancelled })?;
            return Ok(Exit::Done);
        },
        GroupCommand::Purge {
            name,
            dry_run,
            confirm,
            keep_leased,
        } => {
            let purge = wire::PurgeGroupRequest {
                name,
                dry_run,
                confirm,
                keep_leased,
            };
            return purge_group(purge, common).await;
        },
        GroupCommand::Blocked { name } => {
            let request = wire::ListBlockedKeysRequest { name };
            let answer = client.list_blocked_keys(request).await.map_err(refused)?;
            let keys = answer.ordering_keys.into_iter();
            let keys: Vec<_> = keys
                .map(|ordering_key| BlockedKey { ordering_key })
                .collect();
            out.list(&keys)?;
            return Ok(Exit::Done);
        },
        GroupCommand::Unblock { name, ordering_key } => {
            return unblock(name, ordering_key, common).await;
        },
        GroupCommand::Create(args) => {
            let answer = client
                .create_group(args.into_request())
                .await
                .map_err(refused)?;
            let word = if answer.created {
                "created"
            } else {
                "exists as asked:"
            };
            (word, answer.group.unwrap_or_default())
        },
        GroupCommand::Update { name, settings } => {
            let update = wire::UpdateGroupRequest {
                name,
                settings: Some(settings.into_wire()),
            };
            (
                "updated",
                client.update_group(update).await.map_err(refused)?,
            )
        },
        GroupCommand::Pause { name } => {
            ("paused", client.pause_group(name).await.map_err(refused)?)
        },
        GroupCommand::Resume { name } => {
            ("resumed", client.resume_group(name).await.map_err(refused)?)
        },
    };
    let group = GroupView::from(group);
    let text = format!("{word} `{}` on stream `{}`", group.name, group.stream_name);
    out.done(&text, &group)?;
    Ok(Exit::Done)
}

/// Purges until nothing of the time before a call is left.
async fn purge_group(purge: wire::PurgeGroupRequest, common: &Common) -> anyhow::Result<Exit> {
    let (client, out, mut purged) = (common.client()?, common.out(), 0);
    loop {
        let answer = client.purge_group(purge.clone()).await.map_err(refused)?;
        purged += answer.purged;
        if purge.dry_run {
            let counted = PurgeCounted {
                name: purge.name,
                dry_run: true,
                purged,
                waiting: answer.waiting,
                leased: answer.leased,
                retrying: answer.retrying,
                scheduled: answer.scheduled,
            };
            let text = format!("{purged} messages would go to the dead letters");
            out.done(&text, &counted)?;
            return Ok(Exit::Done);
        }
        if !answer.more {
            let text = format!(
                "{purged} messages of `{}` went to the dead letters",
                purge.name
            );
            let (name, dry_run) = (purge.name, false);
            let item = Purged {
                name,
                dry_run,
                purged,
            };
            out.done(&text, &item)?;
            return Ok(Exit::Done);
        }
    }
}

impl CreateArgs {
    fn into_request(self) -> wire::CreateGroupRequest {
        let start = match self.start {
            Start::Earliest => wire::StartPosition::Earliest,
            Start::Latest => wire::StartPosition::Latest,
        };
        wire::CreateGroupRequest {
            stream_name: self.stream.unwrap_or_else(|| self.name.clone()),
            name: self.name,
            agent_type: self.agent_type,
            settings: Some(self.settings.into_wire()),
            start: start.into(),
            shards: None,
            stream_settings: None,
        }
    }
}

impl SettingsArgs {
    fn into_wire(self) -> wire::GroupSettings {
        let mode = match self.routing_mode {
            None => wire::RoutingMode::Unspecified,
            Some(Mode::LoadBalanced) => wire::RoutingMode::LoadBalanced,
            Some(Mode::RoundRobin) => wire::RoutingMode::RoundRobin,
            Some(Mode::PriorityBased) => wire::RoutingMode::PriorityBased,
            Some(Mode::CapabilityMatched) => wire::RoutingMode::CapabilityMatched,
            Some(Mode::WorkflowAware) => wire::RoutingMode::WorkflowAware,
        };
        wire::GroupSettings {
            max_consumers: self.max_consumers,
            min_consumers: self.min_consumers,
            auto_scale_enabled: self.auto_scale,
            lag_threshold: self.lag_threshold,
            routing_mode: mode.into(),
            lease: self.lease.and_then(wire_duration),
            max_attempts: self.max_attempts,
            initial_backoff: self.initial_backoff.and_then(wire_duration),
            max_backoff: self.max_backoff.and_then(wire_duration),
            priority_ageing: self.priority_ageing.and_then(wire_duration),
            reconnect_grace: self.reconnect_grace.and_then(wire_duration),
            max_in_flight_per_consumer: self.max_in_flight_per_consumer,
            max_in_flight: self.max_in_flight,
            ordering_on_dead: match self.ordering_on_dead {
                None => wire::OrderingOnDead::Unspecified,
                Some(OnDead::Continue) => wire::OrderingOnDead::Continue,
                Some(OnDead::Block) => wire::OrderingOnDead::Block,
            }
            .into(),
            scaling: self.scaling.wire(),
            progress_timeout: self.progress_timeout.and_then(wire_duration),
        }
    }
}

impl From<wire::Group> for GroupView {
    fn from(group: wire::Group) -> Self {
        let settings = group.settings.unwrap_or_default();
        let mode = settings.routing_mode().as_str_name();
        Self {
            name: group.name,
            stream_name: group.stream_name,
            agent_type: group.agent_type,
            routing_mode: mode.trim_start_matches("ROUTING_MODE_").to_lowercase(),
            max_consumers: settings.max_consumers(),
            min_consumers: settings.min_consumers(),
            auto_scale_enabled: settings.auto_scale_enabled(),
            lag_threshold: settings.lag_threshold(),
            lease_seconds: seconds(settings.lease.as_ref()),
            max_attempts: settings.max_attempts(),
            initial_backoff_seconds: seconds(settings.initial_backoff.as_ref()),
            max_backoff_seconds: seconds(settings.max_backoff.as_ref()),
            priority_ageing_seconds: seconds(settings.priority_ageing.as_ref()),
            reconnect_grace_seconds: seconds(settings.reconnect_grace.as_ref()),
            max_in_flight_per_consumer: settings.max_in_flight_per_consumer(),
            max_in_flight: settings.max_in_flight(),
            ordering_on_dead: match settings.ordering_on_dead() {
                wire::OrderingOnDead::Unspecified | wire::OrderingOnDead::Continue => "continue",
                wire::OrderingOnDead::Block => "block",
            }
            .to_owned(),
            progress_timeout_seconds: seconds(settings.progress_timeout.as_ref()),
            scaling: settings.scaling.unwrap_or_default().into(),
            paused: group.paused,
            created_at: rfc3339(group.created_at.as_ref()),
            figures: group.figures.unwrap_or_default().into(),
        }
    }
}

impl From<wire::GroupFigures> for FiguresView {
    fn from(figures: wire::GroupFigures) -> Self {
        Self {
            health: figures.health,
            current_consumers: figures.current_consumers,
            desired_consumers: figures.desired_consumers,
            lag: figures.lag,
            pending_count: figures.pending_count,
            scheduled_count: figures.scheduled_count,
            throughput_msg_per_sec: figures.throughput_msg_per_sec,
            success_rate: figures.success_rate,
            avg_processing_time_ms: figures.avg_processing_time_ms,
            oldest_waiting_seconds: figures.oldest_waiting_seconds,
            published_total: figures.published_total,
            acked_total: figures.acked_total,
            failed_total: figures.failed_total,
            dead_total: figures.dead_total,
            redelivered_total: figures.redelivered_total,
            released_total: figures.released_total,
            expired_total: figures.expired_total,
            blocked_keys: figures.blocked_keys,
            unsettled_bytes: figures.unsettled_bytes,
        }
    }
}
