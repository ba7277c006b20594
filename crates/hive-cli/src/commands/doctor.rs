//! `hive doctor`: looks at everything that can be seen from here and says what to do about it.
//!
//! Checks that find trouble are listed with advice. The exit code is 1 when something needs
//! somebody, and 69 when not even a gateway answers.

mod loss;
mod server;

use clap::Args;
use hive_client::{CallError, wire};
use serde::Serialize;

use crate::{
    connection::{Common, refused},
    exit::Exit,
    output::{Format, Show},
    values::short_seconds,
};

/// Dead letters of a stream beyond which somebody should look at them.
const DEAD_LETTERS_MANY: u64 = 100;

/// Share of `max_backlog` beyond which a stream is nearly full.
const BACKLOG_SHARE_MANY: f64 = 0.8;

/// What to look at.
#[derive(Args, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub(crate) struct DoctorArgs {
    /// Show what is well, too.
    #[arg(long)]
    all: bool,
    /// Look at this Redis, too: is it fit to keep accepted work?
    #[arg(long, env = "HIVE_REDIS_URL", value_name = "URL")]
    redis_url: Option<String>,
    /// First part of the keys in that Redis.
    #[arg(long, env = "HIVE_REDIS_PREFIX", default_value = "hive")]
    redis_prefix: String,
    /// Where Redis lost the data that the daemons knew: write streams and groups back as a gateway
    /// remembers them, and let everything go on without the messages.
    #[arg(long)]
    accept_loss: bool,
    /// Do not ask.
    #[arg(long, requires = "accept_loss")]
    yes: bool,
}

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    /// Nothing to do.
    Well,
    /// Works, and somebody should know.
    Note,
    /// Somebody must act.
    Trouble,
}

/// What one check found.
#[derive(Debug, Serialize)]
struct Finding {
    level: Level,
    what: String,
    finding: String,
    advice: String,
}

impl Show for Finding {
    const COLUMNS: &'static [&'static str] = &["LEVEL", "WHAT", "FINDING", "ADVICE"];

    fn cells(&self) -> Vec<String> {
        let level = match self.level {
            Level::Well => "well",
            Level::Note => "note",
            Level::Trouble => "TROUBLE",
        };
        vec![
            level.to_owned(),
            self.what.clone(),
            self.finding.clone(),
            self.advice.clone(),
        ]
    }
}

impl Finding {
    fn new(level: Level, what: &str, finding: impl Into<String>, advice: &str) -> Self {
        Self {
            level,
            what: what.to_owned(),
            finding: finding.into(),
            advice: advice.to_owned(),
        }
    }
}

/// Runs all checks and prints what they found.
///
/// # Errors
/// When no gateway answers.
pub(crate) async fn run(args: DoctorArgs, common: &Common) -> anyhow::Result<Exit> {
    if args.accept_loss {
        return loss::accept(common, args.yes).await;
    }
    let mut findings = Vec::new();
    if let Some(url) = &args.redis_url {
        findings.extend(server::look(url, &args.redis_prefix).await);
    }
    let reached = reach(common).await?;
    findings.extend(reached.findings);
    let (mut groups, mut streams) = (Vec::new(), Vec::new());
    match reached.state {
        State::Serving => {
            let client = common.client()?;
            let list = client.list_groups(wire::ListGroupsRequest {}).await;
            groups = list.map_err(refused)?.groups;
            let list = client.list_streams(wire::ListStreamsRequest {}).await;
            streams = list.map_err(refused)?.streams;
            findings.extend(groups.iter().map(group));
            findings.extend(streams.iter().map(|one| stream(one, &groups)));
            if groups.is_empty() {
                let advice = "create one: hive group create NAME";
                let finding = "there is none yet";
                findings.push(Finding::new(Level::Note, "groups", finding, advice));
            }
        },
        // Gateways refuse every call then.
        State::Lost => {},
        State::Away(error) => {
            // What Redis told is worth knowing all the same.
            if !findings.iter().any(|finding| finding.what == server::WHAT) {
                return Err(refused(error).into());
            }
            common.out().list(&findings)?;
            return Ok(Exit::Unavailable);
        },
    }
    let worst = findings
        .iter()
        .map(|finding| finding.level)
        .max()
        .unwrap_or(Level::Well);
    findings.retain(|finding| args.all || finding.level > Level::Well);
    let out = common.out();
    if findings.is_empty() && out.format() == Format::Table {
        let count = groups.len();
        out.text(&format!(
            "all is well: {count} groups, {} streams",
            streams.len()
        ))?;
    } else {
        out.list(&findings)?;
    }
    Ok(if worst == Level::Trouble {
        Exit::Failed
    } else {
        Exit::Done
    })
}

/// What asking the gateways came to.
struct Reached {
    findings: Vec<Finding>,
    state: State,
}

enum State {
    /// At least one serves.
    Serving,
    /// They answer, and serve nobody: the data in Redis is not what they knew.
    Lost,
    /// None answers.
    Away(CallError),
}

/// Asks every gateway on its own; the command goes on when at least one answers.
async fn reach(common: &Common) -> anyhow::Result<Reached> {
    let (mut findings, mut away) = (Vec::new(), None);
    let (mut serving, mut lost) = (0, 0);
    for url in common.urls() {
        let client = common.client_of(vec![url.clone()])?;
        let finding = match loss::look(&client).await {
            Ok(answer) if answer.loss.is_empty() => {
                serving += 1;
                Finding::new(Level::Well, &url, "answers", "")
            },
            Ok(answer) => {
                lost += 1;
                let finding = format!(
                    "serves nobody: redis no longer holds the data that it knew, {}",
                    answer.loss
                );
                Finding::new(Level::Trouble, &url, finding, loss::ADVICE)
            },
            Err(error) => {
                let advice = "is the gateway running, and ready? see its /readyz";
                let finding = Finding::new(Level::Trouble, &url, error.to_string(), advice);
                away = Some(error);
                finding
            },
        };
        findings.push(finding);
    }
    let state = match away {
        Some(error) if serving + lost == 0 => State::Away(error),
        Some(_) | None if lost > 0 => State::Lost,
        Some(_) | None => State::Serving,
    };
    Ok(Reached { findings, state })
}

/// What a group's figures say, and what to do about it.
fn group(group: &wire::Group) -> Finding {
    let figures = group.figures.clone().unwrap_or_default();
    let what = format!("group {}", group.name);
    let waiting = format!(
        "{} waiting, the oldest for {}",
        figures.lag,
        short_seconds(figures.oldest_waiting_seconds)
    );
    let name = &group.name;
    let (level, finding, advice) = match figures.health.as_str() {
        "healthy" => (Level::Well, waiting, String::new()),
        "paused" => {
            let advice = format!("when the reason is gone: hive group resume {name}");
            (
                Level::Note,
                format!("deliveries are stopped; {waiting}"),
                advice,
            )
        },
        "no_consumers" => {
            let advice = format!("start an agent: hive work --group {name} --exec '…'");
            (
                Level::Trouble,
                format!("no agent is there; {waiting}"),
                advice,
            )
        },
        "no_capable_consumer" => {
            let advice = "compare `hive peek` (required_capabilities) with `hive consumer ls`";
            (
                Level::Trouble,
                format!("no agent can do what waits; {waiting}"),
                advice.to_owned(),
            )
        },
        "lagging" => {
            let consumers = format!("{} agents; {waiting}", figures.current_consumers);
            (
                Level::Trouble,
                consumers,
                "add agents, or raise their --concurrency".to_owned(),
            )
        },
        "failing" => {
            let percent = figures.success_rate * 100.0;
            let finding = format!("{percent:.1} % of the attempts of 5 minutes succeeded");
            let advice =
                format!("look at the agents' logs, and: hive peek -g {name} --state delayed");
            (Level::Trouble, finding, advice)
        },
        other => (Level::Note, format!("{other}; {waiting}"), String::new()),
    };
    Finding::new(level, &what, finding, &advice)
}

/// What a stream's figures say, and what to do about it.
fn stream(stream: &wire::Stream, groups: &[wire::Group]) -> Finding {
    let what = format!("stream {}", stream.name);
    let settings = stream.settings.unwrap_or_default();
    let unsettled = groups
        .iter()
        .filter(|group| group.stream_name == stream.name)
        .filter_map(|group| group.figures.as_ref())
        .map(|figures| figures.lag + figures.pending_count)
        .max()
        .unwrap_or(0);
    if stream.dead_letters > DEAD_LETTERS_MANY {
        let finding = format!("{} dead letters", stream.dead_letters);
        return Finding::new(Level::Trouble, &what, finding, "find out why they failed");
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "a share of counts far below 2^53"
    )]
    let share = unsettled as f64 / settings.max_backlog().max(1) as f64;
    if share > BACKLOG_SHARE_MANY {
        let finding = format!(
            "{unsettled} unsettled of at most {}",
            settings.max_backlog()
        );
        let advice = "add agents; at the limit, publishes are refused";
        return Finding::new(Level::Trouble, &what, finding, advice);
    }
    if stream.groups.is_empty() && !settings.buffer_without_groups() {
        let advice =
            "publishes to it are refused until a group reads it; `hive stream rm` deletes it";
        return Finding::new(Level::Note, &what, "no group reads it", advice);
    }
    Finding::new(
        Level::Well,
        &what,
        format!("{} messages kept", stream.entries),
        "",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group_with(health: &str) -> wire::Group {
        let figures = wire::GroupFigures {
            health: health.to_owned(),
            ..Default::default()
        };
        wire::Group {
            name: "a".to_owned(),
            figures: Some(figures),
            ..Default::default()
        }
    }

    #[test]
    fn every_unhealthy_group_gets_advice() {
        for health in [
            "paused",
            "no_consumers",
            "no_capable_consumer",
            "lagging",
            "failing",
        ] {
            let finding = group(&group_with(health));
            assert!(finding.level > Level::Well, "{health}");
            assert!(!finding.advice.is_empty(), "{health}");
        }
        assert_eq!(group(&group_with("healthy")).level, Level::Well);
    }

    #[test]
    fn a_stream_near_its_limit_is_trouble() {
        let mut waiting = group_with("healthy");
        waiting.stream_name = "s".to_owned();
        waiting.figures.get_or_insert_default().lag = 9;
        let settings = wire::StreamSettings {
            max_backlog: Some(10),
            ..Default::default()
        };
        let full = wire::Stream {
            name: "s".to_owned(),
            settings: Some(settings),
            groups: vec!["a".to_owned()],
            ..Default::default()
        };
        assert_eq!(stream(&full, &[waiting]).level, Level::Trouble);
    }
}
