//! One scenario per bug: the least that shows it.

use std::time::Duration;

use anyhow::{Result, ensure};
use hive_client::{Target, wire};
use hive_testkit::{
    checker::Report,
    history::{Action, Loss},
    proxy::{FaultProxy, Mode},
    wait,
};
use tokio::time::sleep;

use super::{GRACE, LEASE, QUIET, Stage};
use crate::{
    hand::Hand,
    load::{named, publish_plain},
    world::{PATIENCE, STREAM, settings},
};

/// Publishes messages of these ids to group `g`.
async fn publish(stage: &Stage, ids: &[&str]) -> Result<()> {
    publish_to(stage, &Target::group("g"), &["g"], ids).await
}

async fn publish_to(stage: &Stage, target: &Target, groups: &[&str], ids: &[&str]) -> Result<()> {
    let client = stage.world.client(0)?;
    let messages = named(ids.iter().map(ToString::to_string));
    publish_plain(&client, &stage.world.log, (target, groups), messages).await;
    Ok(())
}

/// A new agent of group `g` at a gateway.
async fn agent(stage: &Stage, id: &str, gateway: usize) -> Result<Hand> {
    Hand::join(&stage.world.log, &stage.world.url(gateway), ("g", id)).await
}

/// The lease of a hung agent ends, another gets the message, and then the first one acks.
pub(super) async fn late_ack(mut stage: Stage) -> Result<Report> {
    stage.gateway().await?;
    stage.group("g").await?;
    publish(&stage, &["m"]).await?;
    let (mut hung, mut other) = (agent(&stage, "a", 0).await?, agent(&stage, "b", 0).await?);
    hung.credit(1).await?;
    let first = hung.take_one().await?;
    hung.note_loss(Loss::Stopped);
    other.credit(1).await?;
    let second = other.take_one().await?;
    hung.settle(&first, Action::Ack).await;
    other.settle(&second, Action::Ack).await;
    stage.verdict(&["g"]).await
}

/// Many messages wait before anybody takes them.
pub(super) async fn backlog(mut stage: Stage) -> Result<Report> {
    const MESSAGES: usize = 300;
    stage.gateway().await?;
    stage.group("g").await?;
    // MAXLEN with a whole number trims exactly: 20 stay.
    let ids: Vec<String> = (0..MESSAGES).map(|n| format!("m{n}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    publish(&stage, &ids).await?;
    let mut agent = agent(&stage, "a", 0).await?;
    agent.ack_all(MESSAGES, QUIET).await?;
    stage.verdict(&["g"]).await
}

/// The gateway dies in the middle of a reject: after what it wrote first.
pub(super) async fn reject_in_a_crash(mut stage: Stage) -> Result<Report> {
    let proxy = FaultProxy::start(stage.world.redis.socket()).await?;
    stage.gateway_by(&proxy.redis_url()).await?;
    stage.gateway().await?;
    stage.group("g").await?;
    publish(&stage, &["warm", "m"]).await?;
    let mut first = agent(&stage, "a", 0).await?;
    // Its gateway has the connection for settles from then on.
    first.ack_all(1, PATIENCE).await?;
    let taken = first.take_one().await?;
    proxy.set(Mode::CutBeforeReply);
    let settled = first
        .settle_within(&taken, Action::Reject, Duration::from_millis(500))
        .await;
    ensure!(
        settled == hive_testkit::history::SettleAnswer::Unknown,
        "{settled:?}"
    );
    let world = &stage.world;
    wait::try_until(PATIENCE, "the dead letter", || async {
        ensure!(!world.dead_letters().await?.is_empty());
        Ok(())
    })
    .await?;
    stage.world.kill(crate::world::Victim::Gateway(0))?;
    first.note_loss(Loss::Disconnected);
    let session = first.session();
    drop(first);
    // The same agent, elsewhere: what it no longer holds goes back at its join.
    let (log, url) = (&stage.world.log, stage.world.url(1));
    let mut again = Hand::join_as(log, &url, ("g", "a"), &session, &[]).await?;
    again.ack_all(1, QUIET).await?;
    // The dead gateway stays dead: figures are asked from the living one.
    stage.verdict(&["g"]).await
}

/// Two messages under one idempotency key.
pub(super) async fn same_key_twice(mut stage: Stage) -> Result<Report> {
    stage.gateway().await?;
    stage.group("g").await?;
    let mut messages = named(["m1".to_owned(), "m2".to_owned()]);
    for message in &mut messages {
        message.idempotency_key = "k".into();
        message.payload = "the same".into();
    }
    let client = stage.world.client(0)?;
    let to = (&Target::group("g"), ["g"].as_slice());
    publish_plain(&client, &stage.world.log, to, messages).await;
    let mut agent = agent(&stage, "a", 0).await?;
    agent.ack_all(2, QUIET).await?;
    stage.verdict(&["g"]).await
}

/// A slow old gateway gives up a connection whose consumer has long been elsewhere: by the same
/// session, or as a new process.
pub(super) async fn old_connection_ends(mut stage: Stage, is_resumed: bool) -> Result<Report> {
    // The new connection must work for longer than a lease before the old one is given up, or the
    // checker would hold the loss of the old one against it.
    const LEASE: Duration = Duration::from_secs(2);
    const GRACE: Duration = Duration::from_secs(5);
    stage.gateway().await?;
    stage.gateway().await?;
    stage.group_with("g", settings(LEASE, GRACE)).await?;
    let old = agent(&stage, "a", 0).await?;
    let session = if is_resumed {
        old.session()
    } else {
        String::new()
    };
    old.note_loss(if is_resumed {
        Loss::Disconnected
    } else {
        Loss::Replaced
    });
    let lost = stage.world.log.now();
    drop(old);
    let (log, url) = (&stage.world.log, stage.world.url(1));
    let mut new = Hand::join_as(log, &url, ("g", "a"), &session, &[]).await?;
    let passed = |time: Duration| sleep((lost + time).saturating_sub(log.now()));
    passed(LEASE + Duration::from_millis(200)).await;
    publish(&stage, &["m"]).await?;
    new.credit(1).await?;
    let taken = new.take_one().await?;
    while log.now() < lost + GRACE - LEASE / 4 {
        new.beat(&[&taken]).await?;
        new.take(1, LEASE / 8).await?;
    }
    passed(GRACE + LEASE / 4).await;
    new.settle(&taken, Action::Ack).await;
    stage.verdict_by(&["g"], &crate::world::terms(LEASE)).await
}

/// A group that comes later gets what the stream has retained.
pub(super) async fn late_group(mut stage: Stage) -> Result<Report> {
    stage.gateway().await?;
    stage.group("g").await?;
    publish_to(
        &stage,
        &Target::stream(STREAM),
        &["g", "late"],
        &["m1", "m2"],
    )
    .await?;
    stage.group("late").await?;
    for group in ["g", "late"] {
        let (log, url) = (&stage.world.log, stage.world.url(0));
        Hand::join(log, &url, (group, "a"))
            .await?
            .ack_all(2, QUIET)
            .await?;
    }
    stage.verdict(&["g", "late"]).await
}

/// The first message of a priority makes a lane, under an agent that waits for it.
pub(super) async fn new_lane(mut stage: Stage) -> Result<Report> {
    stage.gateway().await?;
    stage.group("g").await?;
    let mut agent = agent(&stage, "a", 0).await?;
    agent.credit(1).await?;
    publish(&stage, &["m"]).await?;
    for taken in agent.take(1, QUIET).await? {
        agent.settle(&taken, Action::Ack).await;
    }
    stage.verdict(&["g"]).await
}

/// An operator removes a consumer that holds a message.
pub(super) async fn removed_consumer(mut stage: Stage) -> Result<Report> {
    stage.gateway().await?;
    stage.group("g").await?;
    publish(&stage, &["m"]).await?;
    let mut gone = agent(&stage, "a", 0).await?;
    gone.credit(1).await?;
    gone.take_one().await?;
    gone.note_loss(Loss::Left);
    let request = wire::RemoveConsumerRequest {
        group: "g".into(),
        consumer_id: "a".into(),
    };
    stage.world.client(0)?.remove_consumer(request).await?;
    let mut other = agent(&stage, "b", 0).await?;
    other.ack_all(1, QUIET).await?;
    stage.verdict(&["g"]).await
}

/// An agent keeps its connection and says nothing more.
pub(super) async fn hung_agent(mut stage: Stage) -> Result<Report> {
    stage.gateway().await?;
    stage.group("g").await?;
    publish(&stage, &["m"]).await?;
    let mut hung = agent(&stage, "a", 0).await?;
    hung.credit(1).await?;
    hung.take_one().await?;
    hung.note_loss(Loss::Stopped);
    let mut other = agent(&stage, "b", 0).await?;
    other.ack_all(1, LEASE + QUIET).await?;
    stage.verdict(&["g"]).await
}

/// The reply to a flush is lost, and the gateway sends it again.
pub(super) async fn lost_reply(mut stage: Stage) -> Result<Report> {
    let proxy = FaultProxy::start(stage.world.redis.socket()).await?;
    stage.gateway_by(&proxy.redis_url()).await?;
    stage.group("g").await?;
    publish(&stage, &["warm"]).await?;
    proxy.set(Mode::CutBeforeReply);
    let heal = async {
        let world = &stage.world;
        let added = wait::try_until(PATIENCE, "the flush to be carried out", || async {
            let length = world.redis("XLEN hive:{default/s/0}:g:g:lane:p4").await?;
            ensure!(length == ":2\r\n", "{length}");
            Ok(())
        });
        let added = added.await;
        proxy.set(Mode::Pass);
        added
    };
    let (published, added) = tokio::join!(publish(&stage, &["m"]), heal);
    published?;
    added?;
    let mut agent = agent(&stage, "a", 0).await?;
    // One more than there are: the extra one comes only with the bug.
    agent.ack_all(3, QUIET).await?;
    stage.verdict(&["g"]).await
}

/// A message for one of two groups.
pub(super) async fn two_groups(mut stage: Stage) -> Result<Report> {
    stage.gateway().await?;
    stage.group("g").await?;
    stage.group("other").await?;
    publish(&stage, &["m"]).await?;
    for group in ["g", "other"] {
        let (log, url) = (&stage.world.log, stage.world.url(0));
        Hand::join(log, &url, (group, "a"))
            .await?
            .ack_all(1, GRACE + QUIET / 2)
            .await?;
    }
    stage.verdict(&["g", "other"]).await
}

/// Settles must go on when Redis takes nothing new, so that it empties.
pub(super) async fn full_redis(mut stage: Stage) -> Result<Report> {
    stage.gateway().await?;
    stage.group("g").await?;
    publish(&stage, &["m"]).await?;
    let mut agent = agent(&stage, "a", 0).await?;
    agent.credit(1).await?;
    let taken = agent.take_one().await?;
    stage.world.redis("CONFIG SET maxmemory 1").await?;
    agent.settle_within(&taken, Action::Ack, QUIET).await;
    stage.world.redis("CONFIG SET maxmemory 0").await?;
    stage.verdict(&["g"]).await
}

/// The bell of a publish is not heard by the gateway that has the agent.
pub(super) async fn lost_bell(mut stage: Stage) -> Result<Report> {
    stage.gateway().await?;
    stage.gateway().await?;
    stage.group("g").await?;
    let mut agent = agent(&stage, "a", 1).await?;
    publish(&stage, &["m1"]).await?;
    agent.ack_all(1, QUIET).await?;
    // No gateway may ring any more; the agent's credit was granted long ago.
    stage.world.redis("ACL SETUSER default -publish").await?;
    publish(&stage, &["m2"]).await?;
    let taken = agent.take(1, QUIET).await?;
    for taken in taken {
        agent.settle(&taken, Action::Ack).await;
    }
    stage.verdict(&["g"]).await
}
