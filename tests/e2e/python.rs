//! An agent in another language, with nothing but stubs generated from the contract.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use hive_client::{Publisher, Target, message, wire};
use hive_testkit::{program::Program, redis::Aof, wait};

use crate::fleet::{Fleet, PATIENCE};

const INTERPRETER: &str = "HIVE_PYTHON";
const AGENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/python/agent.py");

#[tokio::test(flavor = "multi_thread")]
async fn a_python_agent_works_a_thousand_messages_and_survives_a_killed_gateway() -> Result<()> {
    let python = std::env::var_os(INTERPRETER).with_context(|| {
        format!(
            "`{INTERPRETER}` must name a Python with grpcio and protobuf; `scripts/test` prepares \
             one and sets it"
        )
    })?;
    let mut fleet = Fleet::start(Aof::Everysec, 2, 1).await?;
    fleet
        .group("snakes", wire::GroupSettings::default())
        .await?;
    let mut command = Command::new(python);
    command
        .arg(AGENT)
        .args([
            "--url",
            &fleet.urls(0),
            "--group",
            "snakes",
            "--count",
            "1000",
        ])
        .args(["--id", "python"])
        .stdin(Stdio::null());
    let mut agent = Program::spawn("agent.py", command)?;
    fleet.members("snakes", 1).await?;
    let publisher = Publisher::new(&fleet.client(1)?, Target::group("snakes"));
    for receipt in publisher
        .publish_all((0..400).map(|n| message("t", n.to_string())))
        .await
    {
        receipt?;
    }
    wait::until(PATIENCE, "the agent to be at work", || async {
        anyhow::Ok(fleet.figures("snakes").await?.acked_total > 50)
    })
    .await;
    fleet.gateways[0].kill9()?;
    for receipt in publisher
        .publish_all((400..1_000).map(|n| message("t", n.to_string())))
        .await
    {
        receipt?;
    }
    let figures = fleet.drained("snakes").await?;
    assert_eq!(
        (figures.published_total, figures.acked_total),
        (1_000, 1_000)
    );
    assert_eq!((figures.failed_total, figures.dead_total), (0, 0));
    agent.wait_exit_code(0, PATIENCE).await?;
    let said = agent.lines();
    assert!(
        said.iter().any(|line| line.contains("acked 1000")),
        "{said:?}"
    );
    Ok(())
}
