//! `hive scale`: how many consumers groups have and want, why, and how they are scaled.

use clap::{Args, Subcommand};
use hive_client::{Client, wire};
use serde::Serialize;

use self::{
    policy::{PolicyArgs, PolicyView},
    simulate::SimulateArgs,
    views::{EventView, ScalingView},
};
use crate::{
    connection::{Common, refused},
    exit::{Exit, Failure},
    output::{Format, Output, note},
};

pub(crate) mod policy;
mod simulate;
mod views;
mod watch;

/// Most events of one page.
const EVENTS_PAGE_MAX: u32 = 1_000;

/// How to go about it, for `--help`.
const SET_EXAMPLES: &str = "\
Examples:
  hive scale set reviewers --enable --min 0 --max 8
  hive scale set reviewers --drain-target 1m --scale-down-window 2m --scale-up-step 4
  hive scale set reviewers --executor kubernetes --target agents/reviewers
  hive scale set reviewers --disable";

/// What to do about scaling.
#[derive(Subcommand, Debug)]
pub(crate) enum ScaleCommand {
    /// Shows how many consumers groups have, how many are wanted, and why.
    Status {
        /// The group [default: all of the namespace].
        group: Option<String>,
        /// Go on: a line whenever something about a group changes.
        #[arg(long, short)]
        watch: bool,
    },
    /// Lists scaling decisions and what became of them, the newest first.
    Events {
        /// The group [default: all of the namespace].
        group: Option<String>,
        /// Most of them.
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// Go on: the last --limit events, the oldest first, and then each that comes.
        #[arg(long, short)]
        follow: bool,
    },
    /// Changes how a group is scaled; what is not named stays.
    #[command(after_help = SET_EXAMPLES)]
    Set(Box<SetArgs>),
    /// Compares strategies over a load, by simulation; asks no hive.
    #[command(after_help = simulate::EXAMPLES)]
    Simulate(Box<SimulateArgs>),
}

/// How a group is to be scaled.
#[derive(Args, Debug)]
pub(crate) struct SetArgs {
    /// Name of the group.
    group: String,
    /// Add and remove consumers by demand.
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// Leave the number of consumers alone.
    #[arg(long)]
    disable: bool,
    /// Fewest consumers.
    #[arg(long, value_name = "COUNT")]
    min: Option<u32>,
    /// Most consumers.
    #[arg(long, value_name = "COUNT")]
    max: Option<u32>,
    /// Waiting messages per consumer beyond which more are wanted.
    #[arg(long)]
    lag_threshold: Option<u32>,
    #[command(flatten)]
    policy: PolicyArgs,
}

/// How a group is scaled, as it is printed.
#[derive(Debug, Serialize)]
struct Set {
    name: String,
    auto_scale_enabled: bool,
    min_consumers: u32,
    max_consumers: u32,
    lag_threshold: u32,
    scaling: PolicyView,
}

/// Runs one scaling command.
///
/// # Errors
/// When nobody answers, or it is refused; or the flags do not fit.
pub(crate) async fn run(command: ScaleCommand, common: &Common) -> anyhow::Result<Exit> {
    let client = common.client()?;
    let out = common.out();
    match command {
        ScaleCommand::Status { group, watch } => {
            let group = group.unwrap_or_default();
            if watch {
                return watch::status(&client, group, out).await;
            }
            let groups = client.get_scaling(group).await.map_err(refused)?;
            let views = groups.into_iter().map(ScalingView::from);
            out.list(&views.collect::<Vec<ScalingView>>())?;
            Ok(Exit::Done)
        },
        ScaleCommand::Events {
            group,
            limit,
            follow,
        } => {
            let group = group.unwrap_or_default();
            if follow {
                return watch::events(&client, group, limit, out).await;
            }
            events(&client, group, limit, out).await
        },
        ScaleCommand::Set(args) => set(&client, *args, out).await,
        ScaleCommand::Simulate(args) => simulate::run(&args, out),
    }
}

/// Lists up to `limit` events, page by page.
async fn events(client: &Client, group: String, limit: u32, out: Output) -> anyhow::Result<Exit> {
    let mut request = wire::ListScalingEventsRequest {
        group,
        ..wire::ListScalingEventsRequest::default()
    };
    let (mut events, mut left) = (Vec::new(), limit);
    while left > 0 {
        request.limit = left.min(EVENTS_PAGE_MAX);
        let page = client.list_scaling_events(request.clone()).await;
        let page = page.map_err(refused)?;
        left = left.saturating_sub(u32::try_from(page.events.len()).unwrap_or(u32::MAX));
        events.extend(page.events.into_iter().map(EventView::from));
        request.cursor = page.next_cursor;
        if request.cursor.is_empty() {
            break;
        }
    }
    out.list(&events)?;
    if events.is_empty() && out.format() == Format::Table {
        note("nothing was decided yet");
    }
    Ok(Exit::Done)
}

async fn set(client: &Client, args: SetArgs, out: Output) -> anyhow::Result<Exit> {
    let settings = wire::GroupSettings {
        min_consumers: args.min,
        max_consumers: args.max,
        auto_scale_enabled: match (args.enable, args.disable) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            (false, false) => None,
        },
        lag_threshold: args.lag_threshold,
        scaling: args.policy.wire(),
        ..wire::GroupSettings::default()
    };
    if settings == wire::GroupSettings::default() {
        let message = "nothing to change: `hive scale set --help` lists the flags";
        return Err(Failure::new(Exit::Usage, message).into());
    }
    let update = wire::UpdateGroupRequest {
        name: args.group,
        settings: Some(settings),
    };
    let group = client.update_group(update).await.map_err(refused)?;
    let settings = group.settings.unwrap_or_default();
    let shown = Set {
        name: group.name,
        auto_scale_enabled: settings.auto_scale_enabled(),
        min_consumers: settings.min_consumers(),
        max_consumers: settings.max_consumers(),
        lag_threshold: settings.lag_threshold(),
        scaling: settings.scaling.unwrap_or_default().into(),
    };
    out.item(&shown)?;
    if !shown.auto_scale_enabled && out.format() == Format::Table {
        note(&format!(
            "`{}` is not scaled: `hive scale set {} --enable` switches it on",
            shown.name, shown.name
        ));
    }
    Ok(Exit::Done)
}
