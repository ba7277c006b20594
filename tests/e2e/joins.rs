//! How soon an agent is a member.

use std::time::{Duration, Instant};

use anyhow::Result;
use hive_client::wire;
use hive_testkit::redis::Aof;

use crate::{
    fleet::Fleet,
    member::{Member, join},
};

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_agents_join_in_less_than_fifty_milliseconds_each() -> Result<()> {
    let fleet = Fleet::start(Aof::Everysec, 2, 0).await?;
    let settings = wire::GroupSettings {
        max_consumers: Some(200),
        ..wire::GroupSettings::default()
    };
    fleet.group("crowd", settings).await?;
    let client = fleet.client(0)?;
    // The connections stand when agents come and go.
    Member::join(&client, 0, join("crowd", "first"))
        .await?
        .leave()
        .await?;
    Member::join(&client, 1, join("crowd", "first"))
        .await?
        .leave()
        .await?;
    let mut waits = Vec::new();
    let mut members = Vec::new();
    for number in 0..200 {
        let asked = Instant::now();
        let join = join("crowd", &format!("agent-{number}"));
        members.push(Member::join(&client, number % 2, join).await?);
        waits.push(asked.elapsed());
    }
    waits.sort();
    assert!(
        waits[197] < Duration::from_millis(50),
        "{:?}",
        &waits[190..]
    );
    fleet.members("crowd", 200).await
}
