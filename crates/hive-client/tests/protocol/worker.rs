//! Join, credit, settle, heartbeat, and what happens when the connection is lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hive_client::{
    Client, Ended, Event, Failure, Fault, Job, Outcome, Reason, Work, WorkError, Worker,
    WorkerBuilder,
    wire::{
        Cancel, Deliveries, Delivery, Drain, DrainReason, Heartbeat, Joined, Offer, Revoke,
        SettleResult, SettleStatus, Settled, consume_request::Frame as Sent,
        consume_response::Frame as Answer, outcome::Action,
    },
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::peer::{Consumer, Peer, encoded, within};

/// A worker in a task of its own.
struct Agent {
    run: JoinSet<Result<Ended, WorkError>>,
    shutdown: CancellationToken,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Agent {
    fn start<W: Work>(builder: WorkerBuilder<W>) -> Self {
        let shutdown = CancellationToken::new();
        let (tell, events) = mpsc::unbounded_channel();
        let worker = builder
            .consumer_id("a")
            .shutdown(shutdown.clone())
            .on_event(move |event| drop(tell.send(event)))
            .build();
        let mut run = JoinSet::new();
        run.spawn(worker.run());
        Self {
            run,
            shutdown,
            events,
        }
    }

    async fn end(mut self) -> Result<Ended, WorkError> {
        within("the end of the worker", self.run.join_next())
            .await
            .unwrap()
            .unwrap()
    }

    async fn event(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        let found = async {
            loop {
                let event = self.events.recv().await.expect("the worker lives");
                if wanted(&event) {
                    return event;
                }
            }
        };
        within("an event", found).await
    }
}

fn client(peers: &[&Peer]) -> Client {
    let urls: Vec<&str> = peers.iter().map(|peer| peer.url.as_str()).collect();
    Client::new(&urls.join(",")).unwrap()
}

fn joined(lost: &[&str]) -> Joined {
    Joined {
        session: "s".to_owned(),
        attach: 1,
        max_in_flight: 4,
        heartbeat_interval: Some(Duration::from_millis(100).try_into().unwrap()),
        lost_leases: lost.iter().map(ToString::to_string).collect(),
        ..Joined::default()
    }
}

fn lease(id: &str, count: u32) -> String {
    format!("1|l|{id}|{count}|a|s")
}

async fn deliver(consumer: &Consumer, deliveries: &[(&str, u32)]) {
    let deliveries = deliveries.iter().map(|(id, count)| Delivery {
        lease: lease(id, *count),
        attempt: *count,
        message: encoded(id),
        ..Delivery::default()
    });
    let deliveries = deliveries.collect();
    consumer
        .answer(Answer::Deliveries(Deliveries { deliveries }))
        .await;
}

/// The next settles, as (lease, action).
async fn settles(consumer: &mut Consumer) -> Vec<(String, Action)> {
    consumer
        .until(|frame| {
            let Sent::Settle(batch) = frame else {
                return None;
            };
            Some(batch.outcomes)
        })
        .await
        .into_iter()
        .map(|outcome| (outcome.lease, outcome.action.unwrap()))
        .collect()
}

async fn credit(consumer: &mut Consumer) -> u32 {
    consumer
        .until(|frame| {
            let Sent::Credit(credit) = frame else {
                return None;
            };
            Some(credit.messages)
        })
        .await
}

async fn beat(consumer: &mut Consumer, wanted: impl Fn(&Heartbeat) -> bool) -> Heartbeat {
    consumer
        .until(|frame| {
            let Sent::Heartbeat(beat) = frame else {
                return None;
            };
            wanted(&beat).then_some(beat)
        })
        .await
}

async fn settled(consumer: &Consumer, lease: &str, status: SettleStatus) {
    let result = SettleResult {
        lease: lease.to_owned(),
        status: status.into(),
        error: String::new(),
    };
    let results = vec![result];
    consumer.answer(Answer::Settled(Settled { results })).await;
}

/// Work that holds each job until a permit comes, and counts the jobs that began.
fn gated() -> (impl Work, Arc<Semaphore>, Arc<AtomicUsize>) {
    let gate = Arc::new(Semaphore::new(0));
    let begun = Arc::new(AtomicUsize::new(0));
    let held = (Arc::clone(&gate), Arc::clone(&begun));
    let work = move |job: Job| {
        let (gate, begun) = (Arc::clone(&held.0), Arc::clone(&held.1));
        async move {
            begun.fetch_add(1, Ordering::SeqCst);
            tokio::select! {
                permit = gate.acquire() => permit.unwrap().forget(),
                () = job.cancelled.cancelled() => {},
            }
            Outcome::ack(job.message.payload)
        }
    };
    (work, gate, begun)
}

#[tokio::test]
async fn a_worker_joins_grants_its_window_works_and_grants_one_per_finished_message() {
    let mut peer = Peer::start().await;
    let work = |job: Job| async move { Outcome::ack(job.message.payload) };
    let builder = Worker::builder(client(&[&peer]), "g", work);
    let agent = Agent::start(
        builder
            .capabilities(["gpu"])
            .concurrency(2)
            .max_in_flight(4),
    );
    let (mut consumer, join) = peer.join(joined(&[])).await;
    assert_eq!((join.group.as_str(), join.consumer_id.as_str()), ("g", "a"));
    assert_eq!((join.concurrency, join.max_in_flight), (2, 4));
    assert_eq!(join.capabilities, ["gpu"]);
    assert!(join.session.is_empty() && join.held_leases.is_empty());
    assert_eq!(credit(&mut consumer).await, 4);
    deliver(&consumer, &[("1-0", 1)]).await;
    let sent = settles(&mut consumer).await;
    let result = "1-0".into();
    assert_eq!(
        sent,
        [(
            lease("1-0", 1),
            Action::Ack(hive_client::wire::Ack {
                result,
                add_tasks: Vec::new()
            })
        )]
    );
    settled(&consumer, &lease("1-0", 1), SettleStatus::Ok).await;
    assert_eq!(credit(&mut consumer).await, 1);
    agent.shutdown.cancel();
    consumer
        .until(|frame| matches!(frame, Sent::Leave(_)).then_some(()))
        .await;
    drop(consumer);
    let ended = agent.end().await.unwrap();
    assert_eq!((ended.handled, ended.unfinished), (1, 0));
}

#[tokio::test]
async fn heartbeats_name_everything_held_and_what_was_begun() {
    let mut peer = Peer::start().await;
    let (work, _gate, _) = gated();
    let _agent = Agent::start(Worker::builder(client(&[&peer]), "g", work).max_in_flight(4));
    let (mut consumer, _) = peer.join(joined(&[])).await;
    deliver(&consumer, &[("1-0", 1), ("2-0", 1)]).await;
    let beat = beat(&mut consumer, |beat| beat.leases.len() == 2).await;
    assert_eq!(beat.leases, [lease("1-0", 1), lease("2-0", 1)]);
    assert_eq!(beat.begun, [lease("1-0", 1)]);
}

#[tokio::test]
async fn after_a_cut_it_joins_elsewhere_with_its_session_and_sends_unanswered_settles_again() {
    let (mut first, mut second) = (Peer::start().await, Peer::start().await);
    let (work, gate, begun) = gated();
    let builder = Worker::builder(client(&[&first, &second]), "g", work);
    let _agent = Agent::start(builder.concurrency(2).max_in_flight(4));
    let (mut consumer, _) = first.join(joined(&[])).await;
    deliver(&consumer, &[("1-0", 1)]).await;
    gate.add_permits(1);
    assert_eq!(settles(&mut consumer).await.len(), 1);
    deliver(&consumer, &[("2-0", 1)]).await;
    beat(&mut consumer, |beat| beat.begun.contains(&lease("2-0", 1))).await;
    consumer.cut().await;

    let (mut consumer, join) = second.join(joined(&[])).await;
    assert_eq!(join.session, "s");
    assert_eq!(join.held_leases, [lease("1-0", 1), lease("2-0", 1)]);
    assert_eq!(settles(&mut consumer).await[0].0, lease("1-0", 1));
    // Two of four places are taken: by what still runs, and by what is not answered.
    assert_eq!(credit(&mut consumer).await, 2);
    settled(&consumer, &lease("1-0", 1), SettleStatus::Gone).await;
    assert_eq!(credit(&mut consumer).await, 1);
    gate.add_permits(1);
    assert_eq!(settles(&mut consumer).await[0].0, lease("2-0", 1));
    assert_eq!(begun.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn lost_leases_cancel_their_handlers_and_are_not_settled() {
    let mut peer = Peer::start().await;
    let (work, gate, _) = gated();
    let mut agent = Agent::start(Worker::builder(client(&[&peer]), "g", work).max_in_flight(4));
    let (mut consumer, _) = peer.join(joined(&[])).await;
    deliver(&consumer, &[("1-0", 1)]).await;
    beat(&mut consumer, |beat| beat.begun.len() == 1).await;
    consumer.cut().await;
    let (mut consumer, _) = peer.join(joined(&[&lease("1-0", 1)])).await;
    agent
        .event(|event| matches!(event, Event::Cancelled { .. }))
        .await;
    // The place of the cancelled one is free again, and the next settle is of the next message.
    deliver(&consumer, &[("2-0", 1)]).await;
    gate.add_permits(1);
    assert_eq!(settles(&mut consumer).await[0].0, lease("2-0", 1));
}

#[tokio::test]
async fn a_panic_of_a_handler_is_a_failure_of_its_own_category() {
    let mut peer = Peer::start().await;
    let work = |job: Job| async move {
        assert!(job.attempt > 1, "the first try fails");
        Outcome::done()
    };
    let _agent = Agent::start(Worker::builder(client(&[&peer]), "g", work));
    let (mut consumer, _) = peer.join(joined(&[])).await;
    deliver(&consumer, &[("1-0", 1)]).await;
    let sent = settles(&mut consumer).await;
    let Action::Nack(nack) = &sent[0].1 else {
        panic!("{sent:?}")
    };
    assert_eq!(
        (&*nack.category, &*nack.error_type),
        ("handler_exception", "panic")
    );
    assert!(
        nack.reason.contains("the first try fails"),
        "{}",
        nack.reason
    );
}

#[tokio::test]
async fn a_failure_takes_its_type_and_its_stack_along() {
    let mut peer = Peer::start().await;
    let work = |_: Job| async {
        let error = std::io::Error::other("the disk is away");
        Outcome::nack(Failure::of(&error).category("dependency_failure")).stack("at read")
    };
    let _agent = Agent::start(Worker::builder(client(&[&peer]), "g", work));
    let (mut consumer, _) = peer.join(joined(&[])).await;
    deliver(&consumer, &[("1-0", 1)]).await;
    let sent = settles(&mut consumer).await;
    let Action::Nack(nack) = &sent[0].1 else {
        panic!("{sent:?}")
    };
    assert_eq!(
        (&*nack.reason, &*nack.category),
        ("the disk is away", "dependency_failure")
    );
    assert_eq!(
        (&*nack.error_type, &*nack.stack),
        ("std::io::error::Error", "at read")
    );
}

#[tokio::test]
async fn a_redelivery_of_what_is_worked_on_replaces_the_token_and_starts_nothing() {
    let mut peer = Peer::start().await;
    let (work, gate, begun) = gated();
    let builder = Worker::builder(client(&[&peer]), "g", work);
    let _agent = Agent::start(builder.concurrency(4));
    let (mut consumer, _) = peer.join(joined(&[])).await;
    deliver(&consumer, &[("1-0", 1)]).await;
    deliver(&consumer, &[("1-0", 2)]).await;
    beat(&mut consumer, |beat| beat.leases == [lease("1-0", 2)]).await;
    gate.add_permits(2);
    assert_eq!(settles(&mut consumer).await[0].0, lease("1-0", 2));
    assert_eq!(begun.load(Ordering::SeqCst), 1);
}

/// The server has taken the nack, and its answer is behind the next delivery: to nack that one
/// unseen would use an attempt up.
#[tokio::test]
async fn a_redelivery_before_the_answer_to_a_nack_is_worked_on() {
    let mut peer = Peer::start().await;
    let work = |job: Job| async move {
        if job.attempt > 1 {
            Outcome::done()
        } else {
            Outcome::nack("not yet")
        }
    };
    let _agent = Agent::start(Worker::builder(client(&[&peer]), "g", work));
    let (mut consumer, _) = peer.join(joined(&[])).await;
    deliver(&consumer, &[("1-0", 1)]).await;
    let first = settles(&mut consumer).await;
    assert!(matches!(&first[0], (token, Action::Nack(_)) if *token == lease("1-0", 1)));
    deliver(&consumer, &[("1-0", 2)]).await;
    let second = settles(&mut consumer).await;
    assert!(
        matches!(&second[0], (token, Action::Ack(_)) if *token == lease("1-0", 2)),
        "{second:?}"
    );
}

#[tokio::test]
async fn a_cancel_stops_the_handler_and_nothing_is_settled() {
    let mut peer = Peer::start().await;
    let (work, gate, _) = gated();
    let _agent = Agent::start(Worker::builder(client(&[&peer]), "g", work));
    let (mut consumer, _) = peer.join(joined(&[])).await;
    assert_eq!(credit(&mut consumer).await, 4);
    deliver(&consumer, &[("1-0", 1)]).await;
    let leases = vec![lease("1-0", 1)];
    let reason = "expired".to_owned();
    consumer
        .answer(Answer::Cancel(Cancel { leases, reason }))
        .await;
    assert_eq!(credit(&mut consumer).await, 1);
    deliver(&consumer, &[("2-0", 1)]).await;
    gate.add_permits(1);
    assert_eq!(settles(&mut consumer).await[0].0, lease("2-0", 1));
}

#[tokio::test]
async fn a_revoke_gives_unstarted_deliveries_back_and_lowers_the_window() {
    let mut peer = Peer::start().await;
    let (work, gate, begun) = gated();
    let mut agent = Agent::start(Worker::builder(client(&[&peer]), "g", work).max_in_flight(4));
    let (mut consumer, _) = peer.join(joined(&[])).await;
    assert_eq!(credit(&mut consumer).await, 4);
    deliver(&consumer, &[("1-0", 1), ("2-0", 1), ("3-0", 1), ("4-0", 1)]).await;
    beat(&mut consumer, |beat| beat.begun.len() == 1).await;
    consumer
        .answer(Answer::Revoke(Revoke { messages: 2 }))
        .await;
    let sent = settles(&mut consumer).await;
    let leases: Vec<&str> = sent.iter().map(|(lease, _)| lease.as_str()).collect();
    assert_eq!(leases, [lease("4-0", 1), lease("3-0", 1)]);
    assert!(
        sent.iter()
            .all(|(_, action)| matches!(action, Action::Release(_))),
        "{sent:?}"
    );
    for token in [lease("4-0", 1), lease("3-0", 1)] {
        settled(&consumer, &token, SettleStatus::Ok).await;
    }
    let revoked = agent
        .event(|event| matches!(event, Event::Revoked { .. }))
        .await;
    assert!(
        matches!(
            revoked,
            Event::Revoked {
                asked: 2,
                released: 2
            }
        ),
        "{revoked:?}"
    );
    gate.add_permits(1);
    assert_eq!(settles(&mut consumer).await[0].0, lease("1-0", 1));
    settled(&consumer, &lease("1-0", 1), SettleStatus::Ok).await;
    // The first finished message brings its own place back and one of the revoked.
    assert_eq!(credit(&mut consumer).await, 2);
    assert!(begun.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn a_drain_moves_the_membership_to_another_gateway() {
    let (mut first, mut second) = (Peer::start().await, Peer::start().await);
    let (work, _gate, _) = gated();
    let _agent = Agent::start(Worker::builder(client(&[&first, &second]), "g", work));
    let (mut consumer, _) = first.join(joined(&[])).await;
    deliver(&consumer, &[("1-0", 1)]).await;
    beat(&mut consumer, |beat| beat.begun.len() == 1).await;
    consumer.answer(Answer::Drain(Drain::default())).await;
    let (_consumer, join) = second.join(joined(&[])).await;
    assert_eq!((join.session.as_str(), join.held_leases.len()), ("s", 1));
}

#[tokio::test]
async fn a_drain_of_the_only_gateway_is_used_until_it_ends() {
    let mut peer = Peer::start().await;
    let (work, gate, _) = gated();
    let _agent = Agent::start(Worker::builder(client(&[&peer]), "g", work));
    let (mut consumer, _) = peer.join(joined(&[])).await;
    deliver(&consumer, &[("1-0", 1)]).await;
    consumer.answer(Answer::Drain(Drain::default())).await;
    gate.add_permits(1);
    assert_eq!(settles(&mut consumer).await[0].0, lease("1-0", 1));
    consumer.cut().await;
    let (mut consumer, join) = peer.join(joined(&[])).await;
    assert_eq!(join.session, "s");
    assert_eq!(settles(&mut consumer).await[0].0, lease("1-0", 1));
}

fn for_good() -> Answer {
    Answer::Drain(Drain {
        deadline: None,
        reason: DrainReason::ScaleDown.into(),
    })
}

async fn left(consumer: &mut Consumer) {
    consumer
        .until(|frame| matches!(frame, Sent::Leave(_)).then_some(()))
        .await;
}

#[tokio::test]
async fn a_drain_for_good_gives_back_what_is_unstarted_and_waits_for_what_runs() {
    let mut peer = Peer::start().await;
    let (work, gate, _) = gated();
    let builder = Worker::builder(client(&[&peer]), "g", work).max_in_flight(2);
    // The grace is for a shutdown alone.
    let mut agent = Agent::start(builder.grace(Duration::from_millis(1)));
    let (mut consumer, _) = peer.join(joined(&[])).await;
    deliver(&consumer, &[("1-0", 1), ("2-0", 1)]).await;
    beat(&mut consumer, |beat| beat.begun.len() == 1).await;
    consumer.answer(for_good()).await;
    consumer.answer(for_good()).await;
    let sent = settles(&mut consumer).await;
    assert_eq!(sent[0].0, lease("2-0", 1));
    assert!(matches!(sent[0].1, Action::Release(_)), "{sent:?}");
    settled(&consumer, &lease("2-0", 1), SettleStatus::Ok).await;
    let event = agent.event(|event| !matches!(event, Event::Joined { .. }));
    let event = event.await;
    assert!(
        matches!(event, Event::ScaledDown { running: 1 }),
        "{event:?}"
    );
    // What was on its way goes back too.
    deliver(&consumer, &[("3-0", 1)]).await;
    let sent = settles(&mut consumer).await;
    assert!(matches!(sent[0].1, Action::Release(_)), "{sent:?}");
    settled(&consumer, &lease("3-0", 1), SettleStatus::Ok).await;
    gate.add_permits(1);
    let sent = settles(&mut consumer).await;
    assert!(matches!(sent[0].1, Action::Ack(_)), "{sent:?}");
    settled(&consumer, &lease("1-0", 1), SettleStatus::Ok).await;
    left(&mut consumer).await;
    drop(consumer);
    let ended = agent.end().await.unwrap();
    assert_eq!(
        (ended.handled, ended.unfinished, ended.drained),
        (1, 0, true)
    );
}

#[tokio::test]
async fn a_drain_for_good_ends_though_a_handler_hangs_whose_message_is_cancelled() {
    let mut peer = Peer::start().await;
    let work = |_: Job| async {
        std::future::pending::<()>().await;
        Outcome::done()
    };
    let builder = Worker::builder(client(&[&peer]), "g", work);
    let agent = Agent::start(builder.grace(Duration::from_millis(50)));
    let (mut consumer, _) = peer.join(joined(&[])).await;
    deliver(&consumer, &[("1-0", 1)]).await;
    beat(&mut consumer, |beat| beat.begun.len() == 1).await;
    consumer.answer(for_good()).await;
    let leases = vec![lease("1-0", 1)];
    let reason = "no progress".to_owned();
    consumer
        .answer(Answer::Cancel(Cancel { leases, reason }))
        .await;
    left(&mut consumer).await;
    drop(consumer);
    let ended = agent.end().await.unwrap();
    assert_eq!((ended.unfinished, ended.drained), (1, true));
}

#[tokio::test]
async fn who_is_to_go_for_good_remembers_it_over_a_lost_connection() {
    let (mut first, mut second) = (Peer::start().await, Peer::start().await);
    let (work, gate, _) = gated();
    let agent = Agent::start(Worker::builder(client(&[&first, &second]), "g", work));
    let (mut consumer, _) = first.join(joined(&[])).await;
    deliver(&consumer, &[("1-0", 1)]).await;
    beat(&mut consumer, |beat| beat.begun.len() == 1).await;
    consumer.answer(for_good()).await;
    consumer.cut().await;
    let (mut consumer, join) = second.join(joined(&[])).await;
    assert_eq!((&*join.session, join.held_leases.len()), ("s", 1));
    gate.add_permits(1);
    let next = consumer
        .until(|frame| (!matches!(frame, Sent::Heartbeat(_))).then_some(frame))
        .await;
    assert!(matches!(next, Sent::Settle(_)), "no credit, but {next:?}");
    settled(&consumer, &lease("1-0", 1), SettleStatus::Ok).await;
    left(&mut consumer).await;
    drop(consumer);
    assert!(agent.end().await.unwrap().drained);
}

fn offer(group: &str) -> Answer {
    Answer::Offer(Offer {
        group: group.to_owned(),
        reason: "work waits".to_owned(),
    })
}

#[tokio::test]
async fn a_helped_group_shares_the_handlers_and_is_left_when_the_own_one_has_work() {
    let mut peer = Peer::start().await;
    let (work, gate, begun) = gated();
    let builder = Worker::builder(client(&[&peer]), "g", work).capabilities(["gpu"]);
    let mut agent = Agent::start(builder.accept_offers(true).pod("prod/a"));
    let (mut own, join) = peer.join(joined(&[])).await;
    assert_eq!((join.accepts_offers, &*join.pod), (true, "prod/a"));
    own.answer(offer("other")).await;
    let (mut other, join) = peer.join(joined(&[])).await;
    assert_eq!((&*join.group, &*join.consumer_id), ("other", "a"));
    assert_eq!(
        (join.capabilities, join.accepts_offers),
        (vec!["gpu".to_owned()], false)
    );
    // One at a time.
    own.answer(offer("third")).await;
    deliver(&other, &[("1-0", 1)]).await;
    beat(&mut other, |beat| beat.begun.len() == 1).await;
    deliver(&own, &[("2-0", 1)]).await;
    beat(&mut own, |beat| beat.leases.len() == 1).await;
    assert_eq!(begun.load(Ordering::SeqCst), 1, "its concurrency is 1");
    gate.add_permits(1);
    let sent = settles(&mut other).await;
    assert!(matches!(sent[0].1, Action::Ack(_)), "{sent:?}");
    beat(&mut own, |beat| beat.begun.len() == 1).await;
    settled(&other, &lease("1-0", 1), SettleStatus::Ok).await;
    left(&mut other).await;
    drop(other);
    let event = agent
        .event(|event| matches!(event, Event::Returned { .. }))
        .await;
    assert!(
        matches!(event, Event::Returned { handled: 1, .. }),
        "{event:?}"
    );
    gate.add_permits(1);
    settles(&mut own).await;
    settled(&own, &lease("2-0", 1), SettleStatus::Ok).await;
    agent.shutdown.cancel();
    left(&mut own).await;
    drop(own);
    let ended = agent.end().await.unwrap();
    assert_eq!((ended.handled, ended.drained), (2, false));
}

#[tokio::test]
async fn a_helped_group_is_left_with_the_shutdown_and_a_refused_help_is_no_harm() {
    let mut peer = Peer::start().await;
    let (work, _gate, _) = gated();
    let builder = Worker::builder(client(&[&peer]), "g", work);
    let mut agent = Agent::start(builder.accept_offers(true));
    let (mut own, _) = peer.join(joined(&[])).await;
    own.answer(offer("gone")).await;
    let refused = Fault::no_group("gone");
    peer.consumer().await.end(refused.into()).await;
    let event = agent
        .event(|event| matches!(event, Event::Returned { .. }))
        .await;
    assert!(
        matches!(event, Event::Returned { handled: 0, .. }),
        "{event:?}"
    );
    own.answer(offer("other")).await;
    let (mut other, _) = peer.join(joined(&[])).await;
    agent
        .event(|event| matches!(event, Event::Helping { .. }))
        .await;
    agent.shutdown.cancel();
    left(&mut other).await;
    drop(other);
    left(&mut own).await;
    drop(own);
    assert_eq!(agent.end().await.unwrap().unfinished, 0);
}

#[tokio::test]
async fn a_worker_that_was_replaced_ends_and_says_so() {
    let mut peer = Peer::start().await;
    let agent = Agent::start(Worker::builder(client(&[&peer]), "g", |_| async {
        Outcome::done()
    }));
    let (consumer, _) = peer.join(joined(&[])).await;
    consumer
        .end(Fault::new(Reason::Fenced, "another session joined").into())
        .await;
    let ended = agent.end().await;
    assert!(matches!(ended, Err(WorkError::Fenced { .. })), "{ended:?}");
}

#[tokio::test]
async fn a_group_that_does_not_exist_ends_the_worker_unless_it_waits() {
    let mut peer = Peer::start().await;
    let work = |_: Job| async { Outcome::done() };
    let agent = Agent::start(Worker::builder(client(&[&peer]), "g", work));
    peer.consumer().await.end(Fault::no_group("g").into()).await;
    let ended = agent.end().await;
    assert!(matches!(ended, Err(WorkError::NoGroup { .. })), "{ended:?}");

    let mut agent = Agent::start(Worker::builder(client(&[&peer]), "g", work).wait_for_group(true));
    peer.consumer().await.end(Fault::no_group("g").into()).await;
    agent
        .event(|event| matches!(event, Event::WaitingForGroup))
        .await;
    peer.join(joined(&[])).await;
}

#[tokio::test]
async fn a_shutdown_gives_the_unstarted_back_and_lets_the_running_finish() {
    let mut peer = Peer::start().await;
    let (work, gate, _) = gated();
    let agent = Agent::start(Worker::builder(client(&[&peer]), "g", work).max_in_flight(2));
    let (mut consumer, _) = peer.join(joined(&[])).await;
    deliver(&consumer, &[("1-0", 1), ("2-0", 1)]).await;
    beat(&mut consumer, |beat| beat.begun.len() == 1).await;
    agent.shutdown.cancel();
    let sent = settles(&mut consumer).await;
    assert_eq!(sent[0].0, lease("2-0", 1));
    assert!(matches!(sent[0].1, Action::Release(_)), "{sent:?}");
    settled(&consumer, &lease("2-0", 1), SettleStatus::Ok).await;
    gate.add_permits(1);
    let sent = settles(&mut consumer).await;
    assert_eq!(sent[0].0, lease("1-0", 1));
    assert!(matches!(sent[0].1, Action::Ack(_)), "{sent:?}");
    settled(&consumer, &lease("1-0", 1), SettleStatus::Ok).await;
    consumer
        .until(|frame| matches!(frame, Sent::Leave(_)).then_some(()))
        .await;
    drop(consumer);
    assert_eq!(agent.end().await.unwrap().unfinished, 0);
}

#[tokio::test]
async fn a_shutdown_out_of_grace_stops_its_handlers_and_leaves() {
    let mut peer = Peer::start().await;
    let work = |_: Job| async {
        std::future::pending::<()>().await;
        Outcome::done()
    };
    let builder = Worker::builder(client(&[&peer]), "g", work);
    let agent = Agent::start(builder.grace(Duration::from_millis(50)));
    let (mut consumer, _) = peer.join(joined(&[])).await;
    deliver(&consumer, &[("1-0", 1)]).await;
    beat(&mut consumer, |beat| beat.begun.len() == 1).await;
    agent.shutdown.cancel();
    consumer
        .until(|frame| matches!(frame, Sent::Leave(_)).then_some(()))
        .await;
    drop(consumer);
    assert_eq!(agent.end().await.unwrap().unfinished, 1);
}

#[tokio::test]
async fn an_outcome_that_breaks_a_rule_becomes_a_failure_with_the_reason() {
    let mut peer = Peer::start().await;
    let work = |_: Job| async { Outcome::reject("").category("not a name") };
    let _agent = Agent::start(Worker::builder(client(&[&peer]), "g", work));
    let (mut consumer, _) = peer.join(joined(&[])).await;
    deliver(&consumer, &[("1-0", 1)]).await;
    settles(&mut consumer).await;
    settled(&consumer, &lease("1-0", 1), SettleStatus::Invalid).await;
    let sent = settles(&mut consumer).await;
    let Action::Nack(nack) = &sent[0].1 else {
        panic!("{sent:?}")
    };
    assert_eq!(nack.category, "invalid_outcome");
}
