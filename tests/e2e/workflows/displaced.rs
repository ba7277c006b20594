//! Tasks that were placed on a group that is gone.

use std::time::{Duration, Instant};

use anyhow::Result;
use hive_client::wire;
use hive_testkit::redis::Aof;
use wire::{TaskState, WorkflowState};

use super::flow::{Answering, Flow, acks, task, workflow};
use crate::fleet::Agent;

#[tokio::test(flavor = "multi_thread")]
async fn a_task_placed_on_a_group_that_was_just_deleted_goes_to_another() -> Result<()> {
    let flow = Flow::start(Aof::Off, 1, 2).await?;
    let client = flow.fleet.client(0)?;
    let agents = ["one", "two"].map(|name| format!("{name}_consumers"));
    for name in &agents {
        let request = wire::CreateGroupRequest {
            name: name.clone(),
            stream_name: format!("agent_messages:{name}"),
            agent_type: "printers".into(),
            ..wire::CreateGroupRequest::default()
        };
        client.create_group(request).await?;
    }
    let mut at_work = Vec::new();
    for name in &agents {
        let work = Answering::new(&flow.done, acks);
        let client = flow.fleet.client(0)?;
        let id = format!("{name}-1");
        at_work.push(Agent::working(client, name, &id, work, |builder| builder));
        flow.fleet.members(name, 1).await?;
    }
    // What routers know of groups is of this moment, and serves them for a second.
    flow.submit(workflow("before", vec![task("print", "printers", &[])]))
        .await?;
    let run = flow.becomes("before", WorkflowState::Succeeded).await?;
    let chosen = run.tasks[0].group.clone();
    let other = agents.iter().find(|name| **name != chosen).cloned();
    let delete = wire::DeleteGroupRequest {
        name: chosen,
        force: true,
    };
    client.delete_group(delete).await?;
    let began = Instant::now();
    let many = (0..8).map(|number| task(&format!("print-{number}"), "printers", &[]));
    flow.submit(workflow("after", many.collect())).await?;
    let run = flow.becomes("after", WorkflowState::Succeeded).await?;
    assert!(began.elapsed() < Duration::from_secs(10), "{run:#?}");
    for task in &run.tasks {
        assert_eq!(task.state(), TaskState::Succeeded, "{task:?}");
        assert_eq!(Some(&task.group), other.as_ref(), "{task:?}");
        assert_eq!(flow.done.counts().get(&task.id), Some(&1), "{task:?}");
    }
    for agent in at_work {
        // The agents of the group that is gone have nothing left to stop.
        let _ended = agent.stop().await;
    }
    Ok(())
}
