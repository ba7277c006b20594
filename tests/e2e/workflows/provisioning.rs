//! Groups that coordinators make for tasks that none serves.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hive_client::{Job, Outcome, wire};
use hive_testkit::{redis::Aof, wait};
use serde_json::json;
use wire::{TaskState, WorkflowState};

use super::{
    flow::{Answer, Answering, Flow, acks, task, workflow},
    rest::call,
};
use crate::fleet::Agent;

/// A fleet whose coordinators make groups for tasks, or do not.
async fn started(provision_for_tasks: bool) -> Result<Flow> {
    let flow = Flow::start(Aof::Off, 1, 1).await?;
    let change = wire::CoordinatorConfig {
        provision_for_tasks: Some(provision_for_tasks),
        ..wire::CoordinatorConfig::default()
    };
    let client = flow.fleet.client(0)?;
    client.update_coordinator_config(change).await?;
    Ok(flow)
}

/// An agent of a group that was not there at the start.
fn agent(flow: &Flow, group: &str) -> Result<Agent> {
    let work = Answering::new(&flow.done, acks);
    let client = flow.fleet.client(0)?;
    Ok(Agent::working(client, group, "late-1", work, |builder| {
        builder
    }))
}

async fn groups(flow: &Flow) -> Result<usize> {
    let all = wire::ListGroupsRequest::default();
    let answer = flow.fleet.client(0)?.list_groups(all).await?;
    Ok(answer.groups.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_nobody_serves_is_refused_unless_groups_are_made_for_tasks() -> Result<()> {
    let flow = started(false).await?;
    let before = groups(&flow).await?;
    let two = || {
        let first = task("look", "security", &[]);
        workflow("w", vec![first, task("ship", "devops", &["look"])])
    };
    let refused = flow.submit(two()).await.err().context("it is refused")?;
    let words = format!("{refused:#}");
    ensure!(
        words.contains("security") && words.contains("devops"),
        "{words}"
    );
    assert_eq!(groups(&flow).await?, before);

    let flow = started(true).await?;
    let request = wire::ValidateWorkflowRequest {
        workflow: Some(two()),
    };
    let mut service = flow.service().await?;
    let validated = service.validate_workflow(request).await?.into_inner();
    let places = validated.placements.iter().map(|one| &*one.group);
    assert_eq!(
        places.collect::<Vec<&str>>(),
        ["security_engineers_consumers", "devops_engineers_consumers"]
    );
    assert_eq!(groups(&flow).await?, before, "a look makes nothing");
    flow.submit(two()).await?;
    assert_eq!(groups(&flow).await?, before + 2);
    let agents = [
        agent(&flow, "security_engineers_consumers")?,
        agent(&flow, "devops_engineers_consumers")?,
    ];
    flow.becomes("w", WorkflowState::Succeeded).await?;
    // A type without a template is no group's, whatever the option says.
    let odd = workflow("odd", vec![task("rhyme", "poets", &[])]);
    let refused = flow.submit(odd).await.err().context("it is refused")?;
    ensure!(format!("{refused:#}").contains("poets"), "{refused:#}");
    for agent in agents {
        agent.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_adds_gets_its_group_made() -> Result<()> {
    let flow = started(true).await?;
    let agents = flow.agents(|job: &Job| match &*job.message.task_id {
        "plan" => {
            let more = vec![task("dig", "data", &["plan"])];
            Answer::Now(Outcome::ack_with("{}", more))
        },
        _ => acks(job),
    })?;
    flow.submit(workflow("w", vec![task("plan", "architecture", &[])]))
        .await?;
    let group = "data_engineers_consumers";
    let client = flow.fleet.client(0)?;
    wait::try_until(Duration::from_secs(10), "the group", || async {
        client.get_group(group).await
    })
    .await?;
    let late = agent(&flow, group)?;
    let run = flow.becomes("w", WorkflowState::Succeeded).await?;
    let dug = run.tasks.iter().find(|one| one.id == "dig");
    assert_eq!(dug.map(wire::Task::state), Some(TaskState::Succeeded));
    late.stop().await?;
    for agent in agents {
        agent.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routed_message_gets_its_group_made() -> Result<()> {
    let flow = started(true).await?;
    let gateway = flow.fleet.gateways.first().context("a gateway")?;
    let message = json!({
        "message_id": "m", "from_agent": "a", "message_type": "scan",
        "payload": { "type": "security" },
    });
    let (status, answer) = call(gateway, "POST", "/consumer-groups/route", &message).await?;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        answer["routing_decision"]["target_group"],
        "security_engineers_consumers"
    );
    Ok(())
}
