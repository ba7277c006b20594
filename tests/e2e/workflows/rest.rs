//! The guide's calls about workflows, as printed there, with nothing but HTTP.

use std::time::Duration;

use anyhow::{Context as _, Result};
use hive_client::{Job, Outcome};
use hive_testkit::{daemon::Daemon, redis::Aof};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::flow::{Answer, Flow, GROUPS, acks};
use crate::fleet::PATIENCE;

/// One call; its status and its JSON.
pub(super) async fn call(
    gateway: &Daemon,
    method: &str,
    path: &str,
    body: &Value,
) -> Result<(u16, Value)> {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let mut stream = TcpStream::connect(gateway.listen()).await?;
    let head = format!(
        "{method} /api/v1{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await??;
    let status = answer.split(' ').nth(1).context("a status")?.parse()?;
    let (_, body) = answer.split_once("\r\n\r\n").context("a body")?;
    Ok((status, serde_json::from_str(body).unwrap_or(Value::Null)))
}

/// The guide's Step 6, word for word but for its language.
fn step_6() -> Value {
    json!({
        "workflow_id": "feature_development_workflow",
        "tasks": [
            { "id": "architecture_task", "type": "architecture", "dependencies": [],
              "priority": 8 },
            { "id": "backend_task", "type": "backend", "dependencies": ["architecture_task"],
              "priority": 7 },
            { "id": "frontend_task", "type": "frontend", "dependencies": ["backend_task"],
              "priority": 6 },
            { "id": "testing_task", "type": "testing",
              "dependencies": ["backend_task", "frontend_task"], "priority": 5 },
        ],
    })
}

/// The guide's Step 7: a task is complete, and its dependants are triggered.
async fn complete(gateway: &Daemon, task: &str) -> Result<Value> {
    let path = format!("/workflows/feature_development_workflow/tasks/{task}/complete");
    let body = json!({ "result": { "status": "completed", "artifacts": [task] } });
    let (status, answer) = call(gateway, "POST", &path, &body).await?;
    anyhow::ensure!(status == 200, "{status}: {answer}");
    Ok(answer.get("triggered_tasks").cloned().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guides_steps_6_and_7_work_as_printed() -> Result<()> {
    let flow = Flow::start(Aof::Off, 1, 1).await?;
    let gateway = flow.fleet.gateways.first().context("a gateway")?;
    // Agents that only say that they saw it: completion is by signal at this door.
    let agents = flow.agents(|_: &Job| Answer::Now(Outcome::done()))?;
    let (status, answer) = call(
        gateway,
        "POST",
        "/consumer-groups/route/workflow",
        &step_6(),
    )
    .await?;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["status"], "success");
    assert_eq!(answer["workflow_routing"]["tasks_waiting"], 3, "{answer}");
    for (task, triggered) in [
        ("architecture_task", json!(["backend_task"])),
        ("backend_task", json!(["frontend_task"])),
        ("frontend_task", json!(["testing_task"])),
        ("testing_task", json!([])),
    ] {
        // Each was really delivered, to an agent of the right group, before it is signalled.
        flow.task_becomes(
            "feature_development_workflow",
            task,
            hive_client::wire::TaskState::Running,
        )
        .await?;
        assert_eq!(complete(gateway, task).await?, triggered, "{task}");
        assert_eq!(complete(gateway, task).await?, triggered, "{task}, again");
    }
    let path = "/workflows/feature_development_workflow";
    let (_, run) = call(gateway, "GET", path, &Value::Null).await?;
    assert_eq!(run["state"], "succeeded", "{run}");
    let tasks = run["tasks"].as_array().context("tasks")?;
    for (task, (group, agent_type)) in tasks.iter().zip(GROUPS) {
        assert_eq!(task["group"], group);
        assert_eq!(task["consumer"], format!("{agent_type}-1"));
    }
    for agent in agents {
        agent.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_list_of_tasks_is_a_workflow_too_and_faults_come_all_at_once() -> Result<()> {
    let flow = Flow::start(Aof::Off, 1, 1).await?;
    let gateway = flow.fleet.gateways.first().context("a gateway")?;
    let tasks = step_6()["tasks"].clone();
    let path = "/consumer-groups/route/workflow?workflow_id=listed";
    let (status, answer) = call(gateway, "POST", path, &tasks).await?;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["workflow_id"], "listed");
    let wrong = json!({
        "workflow_id": "w",
        "tasks": [
            { "id": "a", "type": "backend", "dependencies": ["b"] },
            { "id": "b", "type": "backend", "dependencies": ["a", "nobody"] },
            { "id": "b", "type": "nobody_serves_this" },
        ],
    });
    let began = std::time::Instant::now();
    let (status, answer) = call(gateway, "POST", "/consumer-groups/route/workflow", &wrong).await?;
    assert!(began.elapsed() < Duration::from_millis(500), "at once");
    assert_eq!(status, 422, "{answer}");
    let words = answer["violations"].to_string();
    for fault in ["nobody", "`b`"] {
        assert!(words.contains(fault), "{fault} in {words}");
    }
    let (status, _) = call(gateway, "GET", "/workflows/w", &Value::Null).await?;
    assert_eq!(status, 404, "nothing of it is stored");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routed_task_waits_for_one_that_comes_later() -> Result<()> {
    let flow = Flow::start(Aof::Off, 1, 1).await?;
    let gateway = flow.fleet.gateways.first().context("a gateway")?;
    let agents = flow.agents(acks)?;
    let route = |id: &str, kind: &str, needs: Value| {
        json!({
            "message_id": id, "from_agent": "orchestrator", "message_type": "task_request",
            "payload": { "task_type": kind }, "workflow_id": "routed", "dependencies": needs,
        })
    };
    let later = route("second", "testing", json!(["first"]));
    let (status, answer) = call(gateway, "POST", "/consumer-groups/route", &later).await?;
    assert_eq!(status, 200, "{answer}");
    let decision = &answer["routing_decision"];
    assert_eq!(
        decision["target_group"], "qa_engineers_consumers",
        "{answer}"
    );
    let first = route("first", "backend", json!([]));
    let (status, answer) = call(gateway, "POST", "/consumer-groups/route", &first).await?;
    assert_eq!(status, 200, "{answer}");
    flow.task_becomes("routed", "second", hive_client::wire::TaskState::Succeeded)
        .await?;
    let (status, answer) = call(gateway, "POST", "/workflows/routed/close", &Value::Null).await?;
    assert_eq!(status, 200, "{answer}");
    flow.becomes("routed", hive_client::wire::WorkflowState::Succeeded)
        .await?;
    let again = call(gateway, "POST", "/workflows/routed/close", &Value::Null).await?;
    assert_eq!(again.0, 200, "{}", again.1);
    for agent in agents {
        agent.stop().await?;
    }
    Ok(())
}
