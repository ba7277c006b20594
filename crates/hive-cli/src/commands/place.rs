//! `hive place`: says which group an agent joins or a task goes to, and why.

use clap::Subcommand;
use hive_client::wire;
use hive_protocol::words::coordination::{PLACEMENT_STRATEGIES, word_for};
use serde::Serialize;

use crate::{
    connection::{Common, refused},
    exit::Exit,
    output::{Format, Show},
};

/// How to go about it, for `--help`.
const EXAMPLES: &str = "\
Examples:
  hive place agent --type qa_engineers --dry-run
  hive work --agent-type qa_engineers --exec ./run-tests     joins the group that this says
  hive place task --type backend --requires rust,sql";

/// What to place.
#[derive(Subcommand, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) enum PlaceCommand {
    /// Says which group an agent joins; makes it from its template where there is none.
    Agent {
        /// What the agent is; any name.
        #[arg(long = "type", value_name = "TYPE")]
        agent_type: String,
        /// What it can do, with commas between.
        #[arg(long, value_delimiter = ',')]
        capabilities: Vec<String>,
        /// Say what would be, and make no group.
        #[arg(long)]
        dry_run: bool,
    },
    /// Says which group a task goes to. Sends nothing.
    Task {
        /// Type of the task.
        #[arg(long = "type", value_name = "TYPE", required_unless_present = "group")]
        task_type: Option<String>,
        /// What an agent must be able to do, with commas between.
        #[arg(long, value_delimiter = ',', value_name = "CAPABILITIES")]
        requires: Vec<String>,
        /// The group, where it is named.
        #[arg(long, short)]
        group: Option<String>,
        /// Where no group serves the type, make one from its template, if it has one.
        #[arg(long)]
        provision: bool,
        /// Say what would be, and make no group.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Where an agent or a task goes: the names of the REST API.
#[derive(Debug, Serialize)]
struct Placed {
    group: String,
    reasoning: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    strategy: Option<&'static str>,
    created: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scores: Vec<Score>,
}

/// A group that was looked at.
#[derive(Debug, Serialize)]
struct Score {
    group: String,
    score: u32,
    reason: String,
}

impl Show for Score {
    const COLUMNS: &'static [&'static str] = &["GROUP", "SCORE", "REASON"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.group.clone(),
            self.score.to_string(),
            self.reason.clone(),
        ]
    }
}

/// Places one agent or task.
///
/// # Errors
/// When nobody answers, or it is refused.
pub(crate) async fn run(command: PlaceCommand, common: &Common) -> anyhow::Result<Exit> {
    let client = common.client()?;
    let (placed, is_dry) = match command {
        PlaceCommand::Agent {
            agent_type,
            capabilities,
            dry_run,
        } => {
            let request = wire::PlaceAgentRequest {
                agent_type,
                capabilities,
                dry_run,
            };
            let answer = client.place_agent(request).await.map_err(refused)?;
            (Placed::from(answer), dry_run)
        },
        PlaceCommand::Task {
            task_type,
            requires,
            group,
            provision,
            dry_run,
        } => {
            let request = wire::PlaceTaskRequest {
                r#type: task_type.unwrap_or_default(),
                required_capabilities: requires,
                group: group.unwrap_or_default(),
                provision,
                dry_run,
            };
            let answer = client.place_task(request).await.map_err(refused)?;
            let placed = Placed {
                group: answer.group,
                reasoning: answer.reasoning,
                strategy: None,
                created: answer.created,
                scores: Vec::new(),
            };
            (placed, dry_run)
        },
    };
    let out = common.out();
    if out.format() != Format::Table {
        out.item(&placed)?;
        return Ok(Exit::Done);
    }
    let made = match (placed.created, is_dry) {
        (true, true) => " (the group would be made)",
        (true, false) => " (the group was made)",
        (false, _) => "",
    };
    out.text(&format!("{}{made}: {}", placed.group, placed.reasoning))?;
    if !placed.scores.is_empty() {
        out.list(&placed.scores)?;
    }
    Ok(Exit::Done)
}

impl From<wire::PlaceAgentResponse> for Placed {
    fn from(answer: wire::PlaceAgentResponse) -> Self {
        let scores = answer.scores.iter().map(|one| Score {
            group: one.group.clone(),
            score: one.score,
            reason: one.reason.clone(),
        });
        Self {
            scores: scores.collect(),
            strategy: Some(word_for(&PLACEMENT_STRATEGIES, answer.strategy())),
            group: answer.group,
            reasoning: answer.reasoning,
            created: answer.created,
        }
    }
}
