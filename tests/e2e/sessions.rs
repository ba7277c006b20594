//! Connections come and go; leases belong to sessions.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hive_client::{Job, Outcome, Reason, WorkError, message, wire};
use hive_protocol::time::to_duration;
use hive_testkit::{
    proxy::{FaultProxy, Mode},
    redis::Aof,
    wait::until,
};
use wire::{SettleStatus, consume_request::Frame as Ask};

use crate::{
    fleet::{Agent, Fleet, PATIENCE, Seen},
    member::{Member, ack, join, outcome, text_of, verdicts},
};

/// Two gateways, and a group `g` with these settings and so many messages.
async fn fleet(settings: wire::GroupSettings, messages: usize) -> Result<Fleet> {
    let fleet = Fleet::start(Aof::Off, 2, 0).await?;
    fleet.group("g", settings).await?;
    for n in 0..messages {
        fleet.publish("g", message("t", n.to_string())).await?;
    }
    Ok(fleet)
}

/// A consumer that holds so many messages.
async fn holding(fleet: &Fleet, gateway: usize, id: &str, count: usize) -> Result<Held> {
    let mut member = Member::join(&fleet.client(0)?, gateway, join("g", id)).await?;
    member.credit(u32::try_from(count)?).await?;
    let deliveries = member.deliveries(count).await?;
    Ok(Held { member, deliveries })
}

struct Held {
    member: Member,
    deliveries: Vec<wire::Delivery>,
}

impl Held {
    fn lease(&self, position: usize) -> String {
        self.deliveries[position].lease.clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_under_the_same_id_fences_the_first_one_out() -> Result<()> {
    for gateway in [0, 1] {
        let fleet = fleet(wire::GroupSettings::default(), 1).await?;
        let mut first = holding(&fleet, 0, "agent", 1).await?;
        let mut second = Member::join(&fleet.client(0)?, gateway, join("g", "agent")).await?;
        assert_ne!(second.joined.session, first.member.joined.session);
        let late = fleet.settle("g", vec![ack(&first.deliveries[0])]).await?;
        assert_eq!(late, [SettleStatus::StaleLease]);
        if gateway == 1 {
            // Another gateway tells the first one at its next frame.
            let late = first.member.settle(vec![ack(&first.deliveries[0])]).await?;
            assert_eq!(verdicts(&late), [SettleStatus::StaleLease]);
            let leases = vec![first.lease(0)];
            let beat = wire::Heartbeat {
                leases,
                begun: vec![],
            };
            first.member.ask(Ask::Heartbeat(beat)).await?;
        }
        assert_eq!(first.member.fault().await?.reason, Reason::Fenced);
        second.credit(1).await?;
        let again = second.deliveries(1).await?;
        assert_eq!(again[0].attempt, 1, "being fenced out is no failure");
        assert_eq!(
            verdicts(&second.settle(vec![ack(&again[0])]).await?),
            [SettleStatus::Ok]
        );
        let figures = fleet.drained("g").await?;
        assert_eq!((figures.acked_total, figures.failed_total), (1, 0));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_fenced_out_ends_and_says_so() -> Result<()> {
    let fleet = fleet(wire::GroupSettings::default(), 0).await?;
    let idle = |_: Job| async { Outcome::done() };
    let first = Agent::working(fleet.client(0)?, "g", "agent", idle, |builder| builder);
    fleet.members("g", 1).await?;
    let second = Agent::working(fleet.client(1)?, "g", "agent", idle, |builder| builder);
    let ended = tokio::time::timeout(PATIENCE, first.task)
        .await
        .context("it ends")??;
    assert!(matches!(ended, Err(WorkError::Fenced { .. })), "{ended:?}");
    second.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_keeps_the_leases_it_names_at_another_gateway() -> Result<()> {
    let settings = wire::GroupSettings {
        max_attempts: Some(1),
        reconnect_grace: Some(to_duration(1_000)),
        ..wire::GroupSettings::default()
    };
    let fleet = fleet(settings, 3).await?;
    let held = holding(&fleet, 0, "agent", 3).await?;
    let leases: Vec<String> = (0..3).map(|position| held.lease(position)).collect();
    let session = held.member.joined.session.clone();
    drop(held.member);
    let foreign = leases[0].replace("|agent|", "|other|");
    let again = wire::Join {
        session: session.clone(),
        held_leases: vec![leases[0].clone(), leases[1].clone(), foreign.clone()],
        ..join("g", "agent")
    };
    let mut member = Member::join(&fleet.client(0)?, 1, again).await?;
    assert_eq!(
        (&member.joined.session, member.joined.attach),
        (&session, 2)
    );
    assert_eq!(member.joined.lost_leases, [foreign]);
    // What it did not name was given back, uncounted, and comes again.
    member.credit(10).await?;
    let back = member.deliveries(1).await?;
    assert_eq!(
        (text_of(&back[0])?, back[0].attempt),
        (text_of(&held.deliveries[2])?, 1)
    );
    // The old connection's timer passes, and takes nothing.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let mine = vec![
        ack(&held.deliveries[0]),
        ack(&held.deliveries[1]),
        ack(&back[0]),
    ];
    assert_eq!(verdicts(&member.settle(mine).await?), [SettleStatus::Ok; 3]);
    let stale = member.settle(vec![ack(&held.deliveries[2])]).await?;
    assert_ne!(verdicts(&stale), [SettleStatus::Ok]);
    let figures = fleet.drained("g").await?;
    assert_eq!((figures.acked_total, figures.redelivered_total), (3, 1));
    assert_eq!((figures.failed_total, figures.dead_total), (0, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_leaves_gives_back_at_once() -> Result<()> {
    let settings = wire::GroupSettings {
        max_attempts: Some(1),
        reconnect_grace: Some(to_duration(60_000)),
        ..wire::GroupSettings::default()
    };
    let fleet = fleet(settings, 2).await?;
    let held = holding(&fleet, 0, "agent", 2).await?;
    let mut other = Member::join(&fleet.client(0)?, 1, join("g", "other")).await?;
    other.credit(2).await?;
    let left = Instant::now();
    held.member.leave().await?;
    let again = other.deliveries(2).await?;
    assert!(
        left.elapsed() < Duration::from_secs(3),
        "{:?}",
        left.elapsed()
    );
    assert!(
        again.iter().all(|one| one.attempt == 1),
        "leaving is no failure"
    );
    fleet.members("g", 1).await?;
    other.settle(again.iter().map(ack).collect()).await?;
    fleet.drained("g").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_fails_what_was_begun_and_spares_its_neighbours() -> Result<()> {
    let settings = wire::GroupSettings {
        max_attempts: Some(1),
        reconnect_grace: Some(to_duration(200)),
        ..wire::GroupSettings::default()
    };
    let fleet = fleet(settings, 3).await?;
    let held = holding(&fleet, 0, "agent", 3).await?;
    let leases: Vec<String> = (0..3).map(|position| held.lease(position)).collect();
    let begun = vec![leases[1].clone()];
    held.member
        .ask(Ask::Heartbeat(wire::Heartbeat { leases, begun }))
        .await?;
    let mut member = held.member;
    // Frames are taken in order: the heartbeat is before this answer.
    let nothing = member.settle(vec![wire::Outcome::default()]).await?;
    assert_eq!(verdicts(&nothing), [SettleStatus::Invalid]);
    let mut other = Member::join(&fleet.client(0)?, 1, join("g", "other")).await?;
    other.credit(3).await?;
    drop(member);
    let again = other.deliveries(2).await?;
    let mut texts = [text_of(&again[0])?, text_of(&again[1])?];
    texts.sort();
    let mut spared = [text_of(&held.deliveries[0])?, text_of(&held.deliveries[2])?];
    spared.sort();
    assert_eq!(texts, spared);
    assert!(again.iter().all(|one| one.attempt == 1));
    let dead = fleet.dead_letters_come(1).await?;
    assert_eq!(
        (dead.len(), dead[0].category.as_str()),
        (1, "connection_lost")
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_agent_fails_what_it_had_room_to_begin_and_nothing_else() -> Result<()> {
    let settings = wire::GroupSettings {
        max_attempts: Some(1),
        lease: Some(to_duration(1_000)),
        ..wire::GroupSettings::default()
    };
    let fleet = fleet(settings, 4).await?;
    // Not one heartbeat, and the connection stays open.
    let mut hung = holding(&fleet, 0, "agent", 4).await?;
    let mut other = Member::join(&fleet.client(0)?, 1, join("g", "other")).await?;
    other.credit(4).await?;
    let again = other.deliveries(3).await?;
    assert!(again.iter().all(|one| one.attempt == 1));
    let dead = fleet.dead_letters_come(1).await?;
    assert_eq!(
        (dead.len(), dead[0].category.as_str()),
        (1, "lease_expired")
    );
    let late = hung
        .member
        .settle(hung.deliveries.iter().map(ack).collect())
        .await?;
    assert!(
        verdicts(&late).iter().all(|one| *one != SettleStatus::Ok),
        "{late:?}"
    );
    other.settle(again.iter().map(ack).collect()).await?;
    let figures = fleet.drained("g").await?;
    assert_eq!((figures.acked_total, figures.dead_total), (3, 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_consumer_is_refused_on_a_stream() -> Result<()> {
    let fleet = fleet(wire::GroupSettings::default(), 1).await?;
    let held = holding(&fleet, 0, "agent", 1).await?;
    let mut thief = Member::join(&fleet.client(0)?, 0, join("g", "thief")).await?;
    let renamed = held.lease(0).replace("|agent|", "|thief|");
    let stolen = vec![
        ack(&held.deliveries[0]),
        outcome(&renamed, wire::outcome::Action::Ack(wire::Ack::default())),
        outcome("", wire::outcome::Action::Ack(wire::Ack::default())),
    ];
    let judged = verdicts(&thief.settle(stolen).await?);
    assert_eq!(judged[0], SettleStatus::UnknownLease);
    assert!(
        judged.iter().all(|one| *one != SettleStatus::Ok),
        "{judged:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_away_for_longer_than_the_grace_works_on() -> Result<()> {
    let settings = wire::GroupSettings {
        reconnect_grace: Some(to_duration(0)),
        ..wire::GroupSettings::default()
    };
    let fleet = fleet(settings, 1).await?;
    let proxy = FaultProxy::start(fleet.gateways[0].listen()).await?;
    let seen = Seen::default();
    let client = hive_client::Client::new(&proxy.url())?;
    let agent = Agent::acking(client, "g", "agent", &seen, |builder| builder);
    fleet.drained("g").await?;
    proxy.set(Mode::Refuse);
    proxy.reset();
    let gone = || async {
        let figures = fleet.figures("g").await;
        figures.is_ok_and(|figures| figures.current_consumers == 0)
    };
    until(PATIENCE, "the membership is given up", gone).await;
    fleet
        .publish("g", message("t", "while it was away"))
        .await?;
    proxy.set(Mode::Pass);
    fleet.drained("g").await?;
    assert_eq!(seen.messages(), 2);
    agent.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_never_hears_of_its_next_session_is_not_fenced_out_by_it() -> Result<()> {
    let settings = wire::GroupSettings {
        // Longer than the longest pause between two joins: the session that nobody heard of is
        // still there when the agent asks again.
        reconnect_grace: Some(to_duration(5_000)),
        ..wire::GroupSettings::default()
    };
    let fleet = fleet(settings, 1).await?;
    let mut lines = Vec::new();
    for gateway in &fleet.gateways {
        lines.push(FaultProxy::start(gateway.listen()).await?);
    }
    let set = |mode| lines.iter().for_each(|line| line.set(mode));
    let urls: Vec<String> = lines.iter().map(FaultProxy::url).collect();
    let client = hive_client::Client::new(&urls.join(","))?;
    let seen = Seen::default();
    let agent = Agent::acking(client, "g", "agent", &seen, |builder| builder);
    fleet.drained("g").await?;
    let store = fleet.store()?;
    let shard = store.shard("default", "s", 0);
    let member = async || {
        let mut members = store.members(&shard, "g").await.unwrap_or_default();
        members.pop().map(|one| (one.session, one.attach))
    };
    let (first, _) = member().await.context("a member")?;
    set(Mode::Refuse);
    until(PATIENCE, "the membership is given up", async || {
        member().await.is_none()
    })
    .await;
    let mut next = None;
    for lost in 1..=2 {
        set(Mode::DropReplies);
        until(PATIENCE, "a join whose answer is lost", async || {
            member().await.is_some_and(|(_, attach)| attach >= lost)
        })
        .await;
        set(Mode::Refuse);
        let (session, _) = member().await.context("a member")?;
        assert_ne!(session, first);
        assert_eq!(*next.get_or_insert(session.clone()), session);
    }
    set(Mode::Pass);
    fleet
        .publish("g", message("t", "while it was away"))
        .await?;
    fleet.drained("g").await?;
    assert_eq!(seen.messages(), 2);
    agent.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_fails_half_way_costs_no_lease_within_the_grace() -> Result<()> {
    let settings = wire::GroupSettings {
        reconnect_grace: Some(to_duration(20_000)),
        ..wire::GroupSettings::default()
    };
    let fleet = fleet(settings, 1).await?;
    let held = holding(&fleet, 0, "agent", 1).await?;
    let again = || wire::Join {
        session: held.member.joined.session.clone(),
        held_leases: vec![held.lease(0)],
        ..join("g", "agent")
    };
    // The membership is taken over, and then the lane cannot be read.
    let found = fleet.redis("KEYS *:g:g:lane:*").await?;
    let lane = found.lines().find(|line| line.contains(":lane:"));
    let lane = lane.context("a lane")?.trim().to_owned();
    fleet.redis(&format!("RENAME {lane} {{aside}}")).await?;
    fleet.redis(&format!("SET {lane} unreadable")).await?;
    let failed = Member::join(&fleet.client(0)?, 1, again()).await;
    assert!(failed.is_err(), "what it holds cannot be known");
    fleet.redis(&format!("DEL {lane}")).await?;
    fleet.redis(&format!("RENAME {{aside}} {lane}")).await?;
    let mut back = Member::join(&fleet.client(0)?, 1, again()).await?;
    assert_eq!(back.joined.session, held.member.joined.session);
    assert_eq!(back.joined.lost_leases, Vec::<String>::new());
    let answer = back.settle(vec![ack(&held.deliveries[0])]).await?;
    assert_eq!(verdicts(&answer), [SettleStatus::Ok]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_fails_half_way_leaves_no_member_behind() -> Result<()> {
    let fleet = fleet(wire::GroupSettings::default(), 1).await?;
    let found = fleet.redis("KEYS *:g:g:lane:*").await?;
    let lane = found.lines().find(|line| line.contains(":lane:"));
    let lane = lane.context("a lane")?.trim().to_owned();
    fleet.redis(&format!("RENAME {lane} {{aside}}")).await?;
    fleet.redis(&format!("SET {lane} unreadable")).await?;
    let failed = Member::join(&fleet.client(0)?, 0, join("g", "agent")).await;
    assert!(failed.is_err(), "what it holds cannot be known");
    fleet.redis(&format!("DEL {lane}")).await?;
    fleet.redis(&format!("RENAME {{aside}} {lane}")).await?;
    fleet.members("g", 0).await
}
