//! Messages for one agent.

use anyhow::Result;
use hive_client::{message, wire};
use hive_testkit::redis::Aof;

use crate::{
    fleet::{Agent, Fleet, Seen},
    member::{Member, ack, join, text_of},
};

fn to(agent: &str, payload: &str) -> wire::Message {
    wire::Message {
        to_agent: agent.into(),
        ..message("t", payload.to_owned())
    }
}

/// Publishes to every group of the stream.
async fn publish_to_stream(fleet: &Fleet, message: wire::Message) -> Result<()> {
    let request = wire::PublishRequest {
        stream: "s".into(),
        message: Some(message),
        ..wire::PublishRequest::default()
    };
    fleet.client(0)?.publish(request).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_one_agent_of_a_group_reaches_no_other() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 2, 0).await?;
    fleet.group("team", wire::GroupSettings::default()).await?;
    let seen = Seen::default();
    let mut agents = Vec::new();
    for (gateway, id) in [(0, "ann"), (1, "bob"), (1, "cy")] {
        let client = fleet.client(gateway)?;
        agents.push(Agent::acking(client, "team", id, &seen, |builder| {
            builder.concurrency(4)
        }));
    }
    fleet.members("team", 3).await?;
    for n in 0..100 {
        fleet.publish("team", to("bob", &n.to_string())).await?;
    }
    fleet.drained("team").await?;
    assert_eq!(
        seen.by_consumer().into_iter().collect::<Vec<_>>(),
        [("bob".to_owned(), 100)]
    );
    for agent in agents {
        agent.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_an_agent_on_the_stream_goes_to_the_groups_where_it_is_a_member() -> Result<()>
{
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    for group in ["one", "two", "three"] {
        fleet.group(group, wire::GroupSettings::default()).await?;
    }
    let client = fleet.client(0)?;
    let mut in_one = Member::join(&client, 0, join("one", "ann")).await?;
    let mut in_two = Member::join(&client, 0, join("two", "ann")).await?;
    publish_to_stream(&fleet, to("ann", "hello")).await?;
    for member in [&mut in_one, &mut in_two] {
        member.credit(1).await?;
        let got = member.deliveries(1).await?;
        assert_eq!(text_of(&got[0])?, "hello");
        member.settle(vec![ack(&got[0])]).await?;
    }
    let other = fleet.figures("three").await?;
    assert_eq!((other.lag, other.pending_count), (0, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_an_agent_that_no_group_has_waits_for_it_to_join() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    fleet.group("one", wire::GroupSettings::default()).await?;
    let seen = Seen::default();
    let other = Agent::acking(fleet.client(0)?, "one", "other", &seen, |builder| builder);
    fleet.members("one", 1).await?;
    publish_to_stream(&fleet, to("late", "by stream")).await?;
    fleet.publish("one", to("late", "by group")).await?;
    let waiting = fleet.figures("one").await?;
    assert!(waiting.lag >= 1, "what waits is in sight: {waiting:?}");
    let client = fleet.client(0)?;
    assert_eq!(client.get_stream("s").await?.held_for_consumers, 1);
    let mut late = Member::join(&client, 0, join("one", "late")).await?;
    late.credit(10).await?;
    let got = late.deliveries(2).await?;
    let mut texts = [text_of(&got[0])?, text_of(&got[1])?];
    texts.sort();
    assert_eq!(texts, ["by group", "by stream"]);
    late.settle(got.iter().map(ack).collect()).await?;
    fleet.drained("one").await?;
    assert_eq!(client.get_stream("s").await?.held_for_consumers, 0);
    assert_eq!(seen.messages(), 0);
    other.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_consumer_gets_what_waited_for_it_at_its_first_fetch() -> Result<()> {
    let fleet = Fleet::start(Aof::Off, 1, 0).await?;
    fleet.group("one", wire::GroupSettings::default()).await?;
    publish_to_stream(&fleet, to("late", "hello")).await?;
    let got = fleet.fetch("one", "late", 10).await?;
    assert_eq!(text_of(&got[0])?, "hello");
    fleet.settle("one", got.iter().map(ack).collect()).await?;
    fleet.drained("one").await?;
    Ok(())
}
