//! Tasks of workflows: a replay takes their run up again.

use anyhow::{Context as _, Result, ensure};
use hive_client::{Outcome, wire};
use hive_testkit::{daemon::Daemon, redis::Aof, wait};
use wire::{DeadLetterStatus, ReplayOutcome, WorkflowState};

use crate::{
    fleet::PATIENCE,
    workflows::flow::{Answer, Flow, feature_development},
};

async fn dead_task(flow: &Flow) -> Result<wire::DeadLetter> {
    let client = flow.fleet.client(0)?;
    let come = wait::try_until(PATIENCE, "the dead letter", || async {
        let mut letters = client.dead_letters(wire::DeadLetterFilter {
            workflow_id: "feature_development_workflow".into(),
            ..wire::DeadLetterFilter::default()
        });
        letters.next().await?.context("none yet")
    });
    Ok(come.await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_is_kept_as_long_as_its_dead_letters_are_in_the_queue() -> Result<()> {
    let mut flow = Flow::start(Aof::Off, 1, 0).await?;
    let url = flow.fleet.redis.url();
    let soon = [("HIVE_WORKFLOWS_RETENTION", "1s")];
    flow.routers
        .push(Daemon::start("hive-router", &url, &soon).await?);
    let _dlq = Daemon::dlq(&url).await?;
    let agents = flow.agents(|job| {
        Answer::Now(match job.message.task_id.as_str() {
            "backend_task" => Outcome::reject("AssertionError: the schema is missing"),
            _ => Outcome::ack("done"),
        })
    })?;
    flow.submit(feature_development()).await?;
    let letter = dead_task(&flow).await?;
    // Retention comes by every 10 s: one that did not keep the run has taken it by then.
    tokio::time::sleep(std::time::Duration::from_secs(13)).await;
    let client = flow.fleet.client(0)?;
    let replay = wire::ReplayDeadLetterRequest {
        dlq_id: letter.dlq_id,
        ..wire::ReplayDeadLetterRequest::default()
    };
    assert!(client.replay_dead_letter(replay).await?.replayed);
    for agent in agents {
        agent.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_that_a_dead_task_stopped_finishes_after_its_replay() -> Result<()> {
    let flow = Flow::start(Aof::Off, 1, 1).await?;
    let _dlq = Daemon::dlq(&flow.fleet.redis.url()).await?;
    let agents = flow.agents(|job| {
        Answer::Now(
            match (job.message.task_id.as_str(), &job.message.payload[..]) {
                ("backend_task", b"{\"fixed\":true}") => Outcome::ack("done"),
                ("backend_task", _) => Outcome::reject("AssertionError: the schema is missing"),
                _ => Outcome::ack("done"),
            },
        )
    })?;
    let submitted = flow.submit(feature_development()).await?;
    flow.becomes("feature_development_workflow", WorkflowState::Failed)
        .await?;
    let letter = dead_task(&flow).await?;
    assert_eq!(letter.task_id, "backend_task");
    assert_eq!(letter.run_id, submitted.run_id);
    assert_eq!(letter.category, "handler_exception");
    let client = flow.fleet.client(0)?;
    let replay = wire::ReplayDeadLetterRequest {
        dlq_id: letter.dlq_id.clone(),
        payload: Some("{\"fixed\":true}".into()),
        ..wire::ReplayDeadLetterRequest::default()
    };
    let elsewhere = wire::ReplayDeadLetterRequest {
        target_group: "qa_engineers_consumers".into(),
        ..replay.clone()
    };
    assert!(client.replay_dead_letter(elsewhere).await.is_err());
    // Twice at once: one new attempt.
    let (one, other) = tokio::join!(
        client.replay_dead_letter(replay.clone()),
        client.replay_dead_letter(replay)
    );
    assert_eq!(one?.message_id, other?.message_id);
    let run = flow
        .becomes("feature_development_workflow", WorkflowState::Succeeded)
        .await?;
    let task = run.tasks.iter().find(|task| task.id == "backend_task");
    let task = task.context("the task")?;
    ensure!(task.attempt == 2, "{task:?}");
    let told = wait::try_until(PATIENCE, "its outcome", || async {
        let letter = client.get_dead_letter(&letter.dlq_id).await?;
        ensure!(
            letter.replay_outcome() == ReplayOutcome::Succeeded,
            "{letter:?}"
        );
        anyhow::Ok(letter)
    });
    assert_eq!(told.await?.status(), DeadLetterStatus::Replayed);
    for agent in agents {
        agent.stop().await?;
    }
    Ok(())
}
