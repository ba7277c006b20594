//! Dead letters: seen with why they failed, sent back once, by a person or by themselves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use hive_client::{Failure, Outcome, Reason, message, wire};
use hive_testkit::wait;
use wire::{DeadLetterStatus, ReplayJobState, ReplayOutcome};

mod set;
mod tasks;

use crate::fleet::PATIENCE;
use set::{A_WHILE, BY_HAND, GROUP, QUICK, Set, one_attempt, reject, reject_as};

fn by_group() -> wire::DeadLetterFilter {
    wire::DeadLetterFilter {
        group: GROUP.to_owned(),
        ..wire::DeadLetterFilter::default()
    }
}

fn batch() -> wire::ReplayDeadLettersRequest {
    wire::ReplayDeadLettersRequest {
        filter: Some(by_group()),
        ..wire::ReplayDeadLettersRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_listed_within_a_second_with_why_it_failed() -> Result<()> {
    let settings = wire::GroupSettings {
        max_attempts: Some(3),
        ..one_attempt()
    };
    let set = Set::start(BY_HAND, settings).await?;
    let last = Arc::new(parking_lot::Mutex::new(None));
    let noted = Arc::clone(&last);
    let agent = set.agent(move |job| {
        *noted.lock() = Some(Instant::now());
        let failure = Failure::new(format!("attempt {} of order 4711", job.attempt))
            .error_type("openai.RateLimitError")
            .stack("Traceback (most recent call last):\nError code: 429 - too many requests");
        Some(Outcome::Nack {
            failure,
            delay: None,
        })
    })?;
    let mut sent = message("report", r#"{"q":"why did the timeout happen?"}"#);
    sent.from_agent = "asker".into();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    sent.headers.insert("traceparent".into(), trace.into());
    let id = set.publish(sent).await?;
    let listed = set.come(1).await?.remove(0);
    let since = last.lock().context("it failed")?.elapsed();
    ensure!(since < Duration::from_millis(1_500), "{since:?}");
    assert_eq!(
        (listed.message_id.as_str(), listed.group.as_str()),
        (&*id, GROUP)
    );
    assert_eq!(listed.category, "rate_limited");
    assert_eq!(listed.status(), DeadLetterStatus::Analyzed);
    assert_eq!((listed.failures, listed.deliveries), (3, 3));
    assert!(listed.message.is_none(), "payloads are asked for");
    let whole = set.get(&listed.dlq_id).await?;
    assert_eq!(whole.attempts.len(), 3);
    let attempt = whole.attempts.last().context("an attempt")?;
    assert_eq!(attempt.consumer, "agent");
    assert_eq!(attempt.error_type, "openai.RateLimitError");
    assert_eq!(attempt.reason, "attempt 3 of order 4711");
    assert!(attempt.stack.contains("429"), "{attempt:?}");
    assert_eq!(whole.traceparent, trace);
    let kept = whole.message.context("the message")?;
    assert_eq!(&kept.payload[..], br#"{"q":"why did the timeout happen?"}"#);
    assert_eq!(whole.history.len(), 1, "{:?}", whole.history);
    agent.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_is_sent_back_once_however_often_it_is_asked_for() -> Result<()> {
    let set = Set::start(BY_HAND, one_attempt()).await?;
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let agent = set.agent(move |_| {
        if is_broken.load(Ordering::Relaxed) {
            reject("KeyError: 'total'")
        } else {
            None
        }
    })?;
    let mut sent = message("sum", r#"{"total":1}"#);
    sent.idempotency_key = "once".into();
    sent.priority = Some(3);
    let first = set.publish(sent).await?;
    let letter = set.come(1).await?.remove(0);
    broken.store(false, Ordering::Relaxed);
    let request = wire::ReplayDeadLetterRequest {
        dlq_id: letter.dlq_id.clone(),
        priority_boost: 9,
        by: "ann".into(),
        why: "fixed".into(),
        ..wire::ReplayDeadLetterRequest::default()
    };
    let client = set.client()?;
    let twice = tokio::join!(
        client.replay_dead_letter(request.clone()),
        client.replay_dead_letter(request.clone())
    );
    let (one, other) = (twice.0?, twice.1?);
    assert_eq!(one.message_id, other.message_id);
    assert!(one.replayed != other.replayed, "{one:?} {other:?}");
    let third = client.replay_dead_letter(request).await?;
    assert_eq!(
        (third.message_id.as_str(), third.replayed),
        (&*one.message_id, false)
    );
    set.handles(1).await?;
    let seen = set.seen.lock().first().cloned().context("a message")?;
    assert_ne!(seen.message_id, first);
    assert_eq!(seen.message_id, one.message_id);
    assert_eq!(
        (seen.replay_of.as_str(), seen.replay_number),
        (&*letter.dlq_id, 1)
    );
    assert_eq!(
        (&seen.payload[..], seen.priority),
        (&br#"{"total":1}"#[..], Some(9))
    );
    let told = |letter: &wire::DeadLetter| letter.replay_outcome() == ReplayOutcome::Succeeded;
    let letter = set.becomes(&letter.dlq_id, "its outcome", told).await?;
    assert_eq!(letter.status(), DeadLetterStatus::Replayed);
    assert!(
        letter.history.iter().any(|one| one.by == "ann"),
        "{:?}",
        letter.history
    );
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(set.handled().len(), 1);
    agent.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_transient_goes_back_by_itself_and_not_for_ever() -> Result<()> {
    let set = Set::start(QUICK, one_attempt()).await?;
    let agent = set.agent(|job| match job.message.message_type.as_str() {
        "flaky" if job.message.replay_number < 1 => reject("503 Service Unavailable"),
        "hopeless" => reject("503 Service Unavailable"),
        "poison" => reject("KeyError: 'total'"),
        _ => None,
    })?;
    for kind in ["flaky", "hopeless", "poison"] {
        set.publish(message(kind, "{}")).await?;
    }
    set.handles(1).await?;
    // The hopeless one dies four times: its own death, and those of three replays.
    let dead = set.come(6).await?;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(set.come(6).await?.len(), dead.len());
    let poison: Vec<_> = dead
        .iter()
        .filter(|one| one.message_type == "poison")
        .collect();
    assert_eq!(poison.len(), 1);
    assert_eq!(poison[0].status(), DeadLetterStatus::Analyzed);
    let mut hopeless: Vec<_> = dead
        .iter()
        .filter(|one| one.message_type == "hopeless")
        .collect();
    hopeless.reverse();
    assert_eq!(hopeless.len(), 4);
    let last = hopeless.pop().context("the last")?;
    assert_eq!(last.automatic_replays, 3);
    let last = set.get(&last.dlq_id).await?;
    assert_eq!(last.status(), DeadLetterStatus::Analyzed, "{last:?}");
    for one in hopeless {
        let failed = |letter: &wire::DeadLetter| letter.replay_outcome() == ReplayOutcome::Failed;
        set.becomes(&one.dlq_id, "its outcome", failed).await?;
    }
    // A fourth replay of the same failure must be forced.
    let mut request = wire::ReplayDeadLetterRequest {
        dlq_id: last.dlq_id.clone(),
        ..wire::ReplayDeadLetterRequest::default()
    };
    let client = set.client()?;
    let refused = client
        .replay_dead_letter(request.clone())
        .await
        .unwrap_err();
    assert_eq!(refused.fault().reason, Reason::ReplayLoop, "{refused:?}");
    request.force = true;
    assert!(client.replay_dead_letter(request).await?.replayed);
    agent.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_replayed_as_a_job_and_each_once() -> Result<()> {
    let set = Set::start(BY_HAND, one_attempt()).await?;
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let agent = set.agent(move |job| {
        if is_broken.load(Ordering::Relaxed) && job.message.message_type == "bad" {
            reject_as("validation_error", "field `to` is required")
        } else {
            None
        }
    })?;
    for number in 0..60 {
        set.publish(message("bad", format!("{{\"n\":{number}}}")))
            .await?;
    }
    let dead = set.come(60).await?;
    let print = dead.first().context("one")?.fingerprint.clone();
    assert!(dead.iter().all(|one| one.fingerprint == print));
    broken.store(false, Ordering::Relaxed);
    let client = set.client()?;
    let dry = wire::ReplayDeadLettersRequest {
        dry_run: true,
        ..batch()
    };
    let dry = client.replay_dead_letters(dry).await?;
    assert_eq!((dry.would_replay, dry.sample.len()), (60, 20));
    assert!(dry.job.is_none() && set.handled().is_empty());
    let limited = wire::ReplayDeadLettersRequest {
        limit: 7,
        ..batch()
    };
    let job = set.replay(limited).await?;
    assert_eq!(job.state(), ReplayJobState::Done);
    assert_eq!((job.attempted, job.replayed, job.failed), (7, 7, 0));
    // The same call twice, and another one beside it: all that is left goes, once.
    let named = wire::ReplayDeadLettersRequest {
        job_id: "again".into(),
        ..batch()
    };
    let by_print = wire::ReplayDeadLettersRequest {
        filter: Some(wire::DeadLetterFilter {
            fingerprint: print,
            ..wire::DeadLetterFilter::default()
        }),
        ..wire::ReplayDeadLettersRequest::default()
    };
    let (a, b, c) = tokio::join!(
        set.replay(named.clone()),
        set.replay(named),
        set.replay(by_print)
    );
    assert_eq!(a?.job_id, b?.job_id);
    assert_eq!(c?.state(), ReplayJobState::Done);
    set.handles(60).await?;
    tokio::time::sleep(A_WHILE).await;
    let handled = set.handled();
    assert_eq!(handled.len(), 60);
    assert!(handled.values().all(|times| *times == 1));
    let left = client.replay_dead_letters(wire::ReplayDeadLettersRequest {
        dry_run: true,
        ..batch()
    });
    assert_eq!(left.await?.would_replay, 0);
    let other = wire::ReplayDeadLettersRequest {
        job_id: "again".into(),
        limit: 3,
        ..batch()
    };
    let refused = client.replay_dead_letters(other).await.unwrap_err();
    assert_eq!(refused.fault().reason, Reason::ReplayJobExists);
    agent.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_fails_keeps_the_rest_back_and_one_that_succeeds_lets_it_go() -> Result<()> {
    let set = Set::start(BY_HAND, one_attempt()).await?;
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let agent = set.agent(move |_| {
        if is_broken.load(Ordering::Relaxed) {
            reject("panicked at src/main.rs:3: index out of bounds")
        } else {
            None
        }
    })?;
    for _ in 0..12 {
        set.publish(message("m", "{}")).await?;
    }
    set.come(12).await?;
    let canary = wire::ReplayDeadLettersRequest {
        canary: 2,
        ..batch()
    };
    let failed = set.replay(canary.clone()).await?;
    assert_eq!(failed.state(), ReplayJobState::Failed, "{failed:?}");
    assert_eq!(failed.attempted, 2, "{failed:?}");
    set.come(14).await?;
    broken.store(false, Ordering::Relaxed);
    let done = set.replay(canary).await?;
    assert_eq!(done.state(), ReplayJobState::Done, "{done:?}");
    // Ten that never went, and the two that died again.
    assert_eq!(done.replayed, 12, "{done:?}");
    set.handles(12).await?;
    agent.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_job_can_be_cancelled_and_keeps_its_rate() -> Result<()> {
    let set = Set::start(BY_HAND, one_attempt()).await?;
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let agent = set.agent(move |_| {
        if is_broken.load(Ordering::Relaxed) {
            reject("no")
        } else {
            None
        }
    })?;
    for _ in 0..30 {
        set.publish(message("m", "{}")).await?;
    }
    set.come(30).await?;
    broken.store(false, Ordering::Relaxed);
    let client = set.client()?;
    let slow = wire::ReplayDeadLettersRequest { rate: 5, ..batch() };
    let begun = Instant::now();
    let job = client
        .replay_dead_letters(slow)
        .await?
        .job
        .context("a job")?;
    set.handles(3).await?;
    let after = begun.elapsed();
    assert!(after > Duration::from_millis(400), "{after:?}");
    let cancelled = client.cancel_replay_job(&job.job_id).await?;
    assert_eq!(cancelled.state(), ReplayJobState::Cancelled);
    tokio::time::sleep(A_WHILE).await;
    let now = client.get_replay_job(&job.job_id).await?;
    assert!(now.attempted < 15, "{now:?}");
    let listed = client
        .list_replay_jobs(wire::ListReplayJobsRequest::default())
        .await?;
    assert_eq!(listed.jobs.len(), 1);
    agent.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_systemic_failure_opens_the_breaker_until_one_probe_succeeds() -> Result<()> {
    let policy = "[recovery]\ninitial_ms = 3000\nmax_ms = 3000\n[breaker]\nopen_ms = 2000\n";
    let set = Set::start(policy, one_attempt()).await?;
    let (broken, tries) = (
        Arc::new(AtomicBool::new(true)),
        Arc::new(AtomicUsize::new(0)),
    );
    let (is_broken, tried) = (Arc::clone(&broken), Arc::clone(&tries));
    let agent = set.agent(move |job| {
        if job.message.replay_number > 0 {
            tried.fetch_add(1, Ordering::Relaxed);
        }
        if is_broken.load(Ordering::Relaxed) {
            reject("upstream llm.example.com answered 503")
        } else {
            None
        }
    })?;
    let begun = Instant::now();
    for _ in 0..40 {
        set.publish(message("m", "{}")).await?;
    }
    let client = set.client()?;
    let state = || async {
        let figures = client.dead_letter_statistics().await?;
        let breaker = figures.breakers.first().map(|one| one.state.clone());
        anyhow::Ok(breaker.unwrap_or_else(|| "closed".to_owned()))
    };
    let opens = wait::try_until(PATIENCE, "the breaker to open", || async {
        let state = state().await?;
        ensure!(state == "open", "{state}");
        anyhow::Ok(())
    });
    opens.await?;
    let opened = begun.elapsed();
    ensure!(opened < Duration::from_secs(10), "{opened:?}");
    // All are due by then, and none goes; then one does, and fails.
    let probed = wait::try_until(PATIENCE, "a probe", || async {
        ensure!(tries.load(Ordering::Relaxed) > 0, "none yet");
        anyhow::Ok(())
    });
    probed.await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(tries.load(Ordering::Relaxed), 1, "one probe alone");
    assert_ne!(state().await?, "closed");
    broken.store(false, Ordering::Relaxed);
    let closes = wait::try_until(PATIENCE, "the breaker to close", || async {
        let state = state().await?;
        ensure!(state == "closed", "{state}");
        anyhow::Ok(())
    });
    closes.await?;
    set.handles(40).await?;
    tokio::time::sleep(A_WHILE).await;
    assert!(set.handled().values().all(|times| *times == 1));
    agent.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_payload_and_another_group_are_sent_and_the_original_is_kept() -> Result<()> {
    let set = Set::start(BY_HAND, one_attempt()).await?;
    set.fleet.group("other", one_attempt()).await?;
    let agent = set.agent(|job| match &job.message.payload[..] {
        b"{}" => reject("jsonschema.ValidationError: 'to' is a required property"),
        _ => None,
    })?;
    set.publish(message("m", "{}")).await?;
    set.publish(message("m", "{}")).await?;
    let dead = set.come(2).await?;
    let client = set.client()?;
    let edited = wire::ReplayDeadLetterRequest {
        dlq_id: dead[0].dlq_id.clone(),
        payload: Some(r#"{"to":"me"}"#.into()),
        ..wire::ReplayDeadLetterRequest::default()
    };
    client.replay_dead_letter(edited).await?;
    set.handles(1).await?;
    let seen = set.seen.lock().first().cloned().context("one")?;
    assert_eq!(&seen.payload[..], br#"{"to":"me"}"#);
    let kept = set.get(&dead[0].dlq_id).await?;
    assert_eq!(&kept.message.context("the message")?.payload[..], b"{}");
    assert_eq!(kept.edited_payload.as_deref(), Some(&br#"{"to":"me"}"#[..]));
    let moved = wire::ReplayDeadLetterRequest {
        dlq_id: dead[1].dlq_id.clone(),
        target_group: "other".into(),
        ..wire::ReplayDeadLetterRequest::default()
    };
    let moved = client.replay_dead_letter(moved).await?;
    let got = set.fleet.fetch_all("other", "puller", 1).await?;
    let taken: wire::Message = prost::Message::decode(got[0].message.clone())?;
    assert_eq!(taken.message_id, moved.message_id);
    let large = wire::ReplayDeadLetterRequest {
        dlq_id: dead[1].dlq_id.clone(),
        payload: Some(vec![0; (1 << 20) + 1].into()),
        force: true,
        ..wire::ReplayDeadLetterRequest::default()
    };
    let refused = client.replay_dead_letter(large).await.unwrap_err();
    assert_eq!(
        refused.fault().reason,
        Reason::InvalidArgument,
        "{refused:?}"
    );
    agent.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_call_has_a_clear_answer_and_changes_nothing() -> Result<()> {
    let set = Set::start(BY_HAND, one_attempt()).await?;
    let agent = set.agent(|_| reject("no"))?;
    set.publish(message("m", "{}")).await?;
    let letter = set.come(1).await?.remove(0);
    let client = set.client()?;
    let nobody = wire::ReplayDeadLetterRequest {
        dlq_id: "nobody".into(),
        ..wire::ReplayDeadLetterRequest::default()
    };
    let refused = client.replay_dead_letter(nobody).await.unwrap_err();
    assert_eq!(refused.fault().reason, Reason::DeadLetterNotFound);
    let refused = client.get_replay_job("nobody").await.unwrap_err();
    assert_eq!(refused.fault().reason, Reason::ReplayJobNotFound);
    let nothing = wire::ReplayDeadLettersRequest {
        filter: Some(wire::DeadLetterFilter {
            group: "nobody".into(),
            ..wire::DeadLetterFilter::default()
        }),
        ..wire::ReplayDeadLettersRequest::default()
    };
    let job = set.replay(nothing).await?;
    assert_eq!((job.state(), job.attempted), (ReplayJobState::Done, 0));
    let purge = wire::PurgeDeadLettersRequest {
        filter: Some(by_group()),
        ..wire::PurgeDeadLettersRequest::default()
    };
    let refused = client.purge_dead_letters(purge.clone()).await.unwrap_err();
    assert_eq!(refused.fault().reason, Reason::ConfirmationNeeded);
    let status = |status: DeadLetterStatus| wire::SetDeadLetterStatusRequest {
        dlq_id: letter.dlq_id.clone(),
        status: status.into(),
        why: "because".into(),
        ..wire::SetDeadLetterStatusRequest::default()
    };
    client
        .set_dead_letter_status(status(DeadLetterStatus::PermanentFailure))
        .await?;
    let replay = wire::ReplayDeadLetterRequest {
        dlq_id: letter.dlq_id.clone(),
        ..wire::ReplayDeadLetterRequest::default()
    };
    let refused = client.replay_dead_letter(replay.clone()).await.unwrap_err();
    assert_eq!(refused.fault().reason, Reason::DeadLetterState);
    let refused = client
        .set_dead_letter_status(status(DeadLetterStatus::Replaying))
        .await
        .unwrap_err();
    assert_eq!(refused.fault().reason, Reason::InvalidArgument);
    client
        .set_dead_letter_status(status(DeadLetterStatus::Analyzed))
        .await?;
    // A group that is gone takes nothing back.
    agent.stop().await?;
    let delete = wire::DeleteGroupRequest {
        name: GROUP.into(),
        force: true,
    };
    client.delete_group(delete).await?;
    let refused = client.replay_dead_letter(replay).await.unwrap_err();
    assert_eq!(refused.fault().reason, Reason::GroupNotFound, "{refused:?}");
    let after = set.get(&letter.dlq_id).await?;
    assert_eq!(after.status(), DeadLetterStatus::Analyzed);
    let counted = wire::PurgeDeadLettersRequest {
        dry_run: true,
        ..purge.clone()
    };
    let counted = client.purge_dead_letters(counted).await?;
    assert_eq!(counted.purged, 1);
    let purged = wire::PurgeDeadLettersRequest {
        confirm: counted.confirm,
        ..purge
    };
    assert_eq!(client.purge_dead_letters(purged).await?.purged, 1);
    let refused = client.get_dead_letter(&letter.dlq_id).await.unwrap_err();
    assert_eq!(refused.fault().reason, Reason::DeadLetterNotFound);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_deleted_group_held_comes_here_as_cancelled() -> Result<()> {
    let set = Set::start(QUICK, one_attempt()).await?;
    for _ in 0..5 {
        set.publish(message("m", "{}")).await?;
    }
    let delete = wire::DeleteGroupRequest {
        name: GROUP.into(),
        force: true,
    };
    set.client()?.delete_group(delete).await?;
    let dead = set.come(5).await?;
    for letter in dead {
        assert_eq!(letter.category, "cancelled");
        assert_eq!(letter.status(), DeadLetterStatus::Analyzed);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_and_patterns_say_what_is_in_the_queue() -> Result<()> {
    let set = Set::start(BY_HAND, one_attempt()).await?;
    let agent = set.agent(|job| match job.message.message_type.as_str() {
        "crm" => reject("POST https://crm.example.com/v1/contacts: connection refused"),
        _ => reject("KeyError: 'total'"),
    })?;
    for number in 0..30 {
        let kind = if number < 24 { "crm" } else { "sum" };
        set.publish(message(kind, "{}")).await?;
    }
    set.come(30).await?;
    let client = set.client()?;
    let figures = client.dead_letter_statistics().await?;
    assert_eq!((figures.total, figures.records), (30, 30));
    let first = figures.by_category.first().context("a category")?;
    assert_eq!((first.name.as_str(), first.count), ("network_error", 24));
    assert_eq!(figures.by_group.first().map(|one| one.count), Some(30));
    assert_eq!(figures.by_age.first().map(|one| one.count), Some(30));
    assert_eq!(figures.top_patterns.len(), 2);
    let source = figures.top_sources.first().context("a source")?;
    assert_eq!((source.name.as_str(), source.count), ("g/agent", 30));
    assert!((figures.growth_per_hour - 30.0).abs() < f64::EPSILON);
    assert!(!figures.recommendations.is_empty());
    let found = client
        .analyze_dead_letters(wire::AnalyzeDeadLettersRequest::default())
        .await?;
    assert_eq!(found.looked_at, 30);
    let upstream = found.patterns.iter().find(|one| one.kind == "one_upstream");
    let upstream = upstream.context("a pattern")?;
    assert_eq!(upstream.subject, "crm.example.com");
    assert!(upstream.evidence.contains("24"), "{upstream:?}");
    agent.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_takes_nothing_in_and_loses_nothing() -> Result<()> {
    let small = [("HIVE_DEAD_LETTERS_RECORDS_MAX", "100")];
    let set = Set::start_with(BY_HAND, &small, one_attempt()).await?;
    let agent = set.agent(|_| reject("no"))?;
    for _ in 0..130 {
        set.publish(message("m", "{}")).await?;
    }
    let client = set.client()?;
    let is_full = wait::try_until(PATIENCE, "the queue to be full", || async {
        let figures = client.dead_letter_statistics().await?;
        ensure!(figures.is_full && figures.records == 100, "{figures:?}");
        anyhow::Ok(())
    });
    is_full.await?;
    // What is archived makes room, and only as much as is needed.
    for letter in set.come(100).await?.into_iter().take(50) {
        let request = wire::SetDeadLetterStatusRequest {
            dlq_id: letter.dlq_id,
            status: DeadLetterStatus::Archived.into(),
            ..wire::SetDeadLetterStatusRequest::default()
        };
        client.set_dead_letter_status(request).await?;
    }
    let all = wait::try_until(PATIENCE, "all to be taken in", || async {
        let figures = client.dead_letter_statistics().await?;
        ensure!(figures.total == 80, "{figures:?}");
        anyhow::Ok(())
    });
    all.await?;
    agent.stop().await
}
