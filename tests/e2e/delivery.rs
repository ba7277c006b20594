//! Messages go from publishers to agents.

use anyhow::Result;
use hive_client::{Publisher, Target, message, wire};
use hive_testkit::redis::Aof;

use crate::fleet::{Agent, Fleet, Seen};

#[tokio::test(flavor = "multi_thread")]
async fn every_published_message_is_handled_once_by_one_of_the_agents() -> Result<()> {
    let fleet = Fleet::start(Aof::Everysec, 1, 0).await?;
    fleet
        .group("workers", wire::GroupSettings::default())
        .await?;
    let seen = Seen::default();
    let mut agents = Vec::new();
    for id in ["a", "b", "c"] {
        agents.push(Agent::acking(
            fleet.client(0)?,
            "workers",
            id,
            &seen,
            |builder| builder,
        ));
    }
    let publisher = Publisher::new(&fleet.client(0)?, Target::group("workers"));
    let messages = (0..2_000).map(|n| message("task", format!("{n}")));
    for receipt in publisher.publish_all(messages).await {
        assert!(!receipt?.duplicate);
    }
    let figures = fleet.drained("workers").await?;
    assert_eq!(seen.messages(), 2_000);
    assert_eq!(seen.twice(), Vec::<String>::new());
    assert_eq!(
        (figures.published_total, figures.acked_total),
        (2_000, 2_000)
    );
    for agent in agents {
        agent.stop().await?;
    }
    Ok(())
}
