//! Workflows: steps start once, when their dependencies are done, and get their results.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hive_client::{Job, Outcome, wire};
use hive_testkit::{redis::Aof, wait};
use wire::{TaskState, WorkflowState, workflow_service_client::WorkflowServiceClient};

mod affinity;
mod displaced;
pub(crate) mod flow;
mod provisioning;
mod rest;

use flow::{Answer, Flow, acks, feature_development, state_of, task, workflow};

#[tokio::test(flavor = "multi_thread")]
async fn the_guides_workflow_runs_step_by_step_and_hands_results_on() -> Result<()> {
    let flow = Flow::start(Aof::Off, 1, 1).await?;
    let agents = flow.agents(acks)?;
    let submitted = flow.submit(feature_development()).await?;
    assert_eq!(submitted.routed_tasks, ["architecture_task"]);
    assert_eq!((submitted.waiting_tasks, submitted.already), (3, false));
    let again = flow.submit(feature_development()).await?;
    assert!(again.already && again.run_id == submitted.run_id);
    let run = flow
        .becomes("feature_development_workflow", WorkflowState::Succeeded)
        .await?;
    for task in &run.tasks {
        assert_eq!(task.state(), TaskState::Succeeded, "{task:?}");
        assert_eq!((task.attempt, task.deliveries), (1, 1), "{task:?}");
        let result = format!("{{\"done\":\"{}\"}}", task.id);
        assert_eq!(task.result, result.as_bytes());
    }
    let groups: Vec<&str> = run.tasks.iter().map(|task| task.group.as_str()).collect();
    assert_eq!(groups, flow::GROUPS.map(|(name, _)| name));
    assert!(flow.done.counts().values().all(|count| *count == 1));
    let last = flow.done.of("testing_task").context("it was worked on")?;
    let inputs: Vec<&str> = last.inputs.keys().map(String::as_str).collect();
    assert_eq!(inputs, ["backend_task", "frontend_task"]);
    assert_eq!(
        last.inputs
            .get("backend_task")
            .map(|input| &input.result[..]),
        Some(&b"{\"done\":\"backend_task\"}"[..])
    );
    assert_eq!(last.workflow_id, "feature_development_workflow");
    assert_eq!(last.run_id, submitted.run_id);
    for agent in agents {
        agent.stop().await?;
    }
    Ok(())
}

fn by_signal(mut spec: wire::WorkflowSpec) -> wire::WorkflowSpec {
    for task in &mut spec.tasks {
        task.set_completion(wire::TaskCompletion::Signal);
    }
    spec
}

fn signal(task: &str, result: &'static str) -> wire::SignalTaskCompletionRequest {
    wire::SignalTaskCompletionRequest {
        workflow_id: "feature_development_workflow".into(),
        task_id: task.into(),
        result: result.into(),
        ..wire::SignalTaskCompletionRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_completes_a_task_after_its_ack_and_before_it() -> Result<()> {
    let flow = Flow::start(Aof::Off, 1, 1).await?;
    let mut service = flow.service().await?;
    flow.submit(by_signal(feature_development())).await?;
    // Before any agent is there.
    let answer = service
        .signal_task_completion(signal("architecture_task", "{\"status\":\"completed\"}"))
        .await?
        .into_inner();
    assert_eq!(answer.triggered_tasks, ["backend_task"]);
    assert!(!answer.already);
    let again = service
        .signal_task_completion(signal("architecture_task", "{\"status\":\"completed\"}"))
        .await?
        .into_inner();
    assert_eq!(again.triggered_tasks, ["backend_task"]);
    assert!(again.already);
    let other = service
        .signal_task_completion(signal("architecture_task", "{}"))
        .await;
    let refused = other.map(drop).expect_err("another result");
    assert_eq!(refused.code(), tonic::Code::AlreadyExists, "{refused:?}");
    // After an ack without a result.
    let agents = flow.agents(|_: &Job| Answer::Now(Outcome::done()))?;
    let run = flow
        .task_becomes(
            "feature_development_workflow",
            "backend_task",
            TaskState::Running,
        )
        .await?;
    assert_eq!(state_of(&run, "frontend_task"), Some(TaskState::Pending));
    let answer = service
        .signal_task_completion(signal("backend_task", "1"))
        .await?
        .into_inner();
    assert_eq!(answer.triggered_tasks, ["frontend_task"]);
    for task in ["frontend_task", "testing_task"] {
        flow.task_becomes("feature_development_workflow", task, TaskState::Running)
            .await?;
        service.signal_task_completion(signal(task, "1")).await?;
    }
    flow.becomes("feature_development_workflow", WorkflowState::Succeeded)
        .await?;
    // The one that was signalled before anybody had it was never delivered.
    assert_eq!(flow.done.counts().get("architecture_task"), None);
    let unknown = service
        .signal_task_completion(signal("nothing", "1"))
        .await
        .map(drop)
        .expect_err("no such task");
    assert_eq!(unknown.code(), tonic::Code::NotFound, "{unknown:?}");
    for agent in agents {
        agent.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_stops_dispatch_and_cancel_reaches_the_agent_within_a_second() -> Result<()> {
    let flow = Flow::start(Aof::Off, 1, 1).await?;
    let mut service = flow.service().await?;
    let agents = flow.agents(|job: &Job| {
        let wait = match job.message.task_id.as_str() {
            "first" => Duration::from_millis(300),
            _ => Duration::from_secs(60),
        };
        Answer::Later(wait, Outcome::done())
    })?;
    let tasks = vec![
        task("first", "backend", &[]),
        task("second", "backend", &["first"]),
    ];
    flow.submit(workflow("w", tasks)).await?;
    flow.task_becomes("w", "first", TaskState::Running).await?;
    let pause = wire::PauseWorkflowRequest {
        workflow_id: "w".into(),
        reason: "lunch".into(),
    };
    service.pause_workflow(pause).await?;
    let run = flow
        .task_becomes("w", "first", TaskState::Succeeded)
        .await?;
    assert_eq!(run.state(), WorkflowState::Paused);
    assert_eq!(run.reason, "lunch");
    assert_eq!(state_of(&run, "second"), Some(TaskState::Pending));
    let explain = wire::ExplainTaskRequest {
        workflow_id: "w".into(),
        task_id: "second".into(),
        ..wire::ExplainTaskRequest::default()
    };
    let why = service.explain_task(explain).await?.into_inner();
    assert_eq!(why.waits_for, "resume");
    let resume = wire::ResumeWorkflowRequest {
        workflow_id: "w".into(),
    };
    service.resume_workflow(resume).await?;
    flow.task_becomes("w", "second", TaskState::Running).await?;
    let began = Instant::now();
    let cancel = wire::CancelWorkflowRequest {
        workflow_id: "w".into(),
        reason: "changed our mind".into(),
    };
    service.cancel_workflow(cancel.clone()).await?;
    let run = flow.becomes("w", WorkflowState::Cancelled).await?;
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(state_of(&run, "second"), Some(TaskState::Cancelled));
    let again = service.cancel_workflow(cancel).await?.into_inner();
    assert!(again.already);
    // The agent is free again long before its work would have been done.
    flow.submit(workflow("x", vec![task("first", "backend", &[])]))
        .await?;
    flow.becomes("x", WorkflowState::Succeeded).await?;
    for agent in agents {
        agent.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_fails_the_run_and_a_retry_revives_it() -> Result<()> {
    let flow = Flow::start(Aof::Off, 1, 1).await?;
    let mut service = flow.service().await?;
    let agents = flow.agents(|job: &Job| {
        // The first attempt of the run's second task is poison.
        if job.message.task_id == "second" && job.message.message_id.ends_with(".1") {
            return Answer::Now(Outcome::reject("poison"));
        }
        acks(job)
    })?;
    let tasks = vec![
        task("first", "backend", &[]),
        task("second", "backend", &["first"]),
        task("third", "testing", &["second"]),
    ];
    flow.submit(workflow("w", tasks)).await?;
    let run = flow.becomes("w", WorkflowState::Failed).await?;
    assert_eq!(state_of(&run, "second"), Some(TaskState::DeadLettered));
    assert_eq!(state_of(&run, "third"), Some(TaskState::Skipped));
    let retry = wire::RetryTaskRequest {
        workflow_id: "w".into(),
        task_id: "second".into(),
        ..wire::RetryTaskRequest::default()
    };
    service.retry_task(retry).await?;
    let run = flow.becomes("w", WorkflowState::Succeeded).await?;
    let second = run.tasks.get(1).context("a task")?;
    assert_eq!(second.attempt, 2);
    assert_eq!(flow.done.counts().get("first"), Some(&1));
    for agent in agents {
        agent.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_asks_a_question_and_plans_more_tasks() -> Result<()> {
    let flow = Flow::start(Aof::Off, 1, 1).await?;
    let mut service = flow.service().await?;
    let agents =
        flow.agents(
            |job: &Job| match (&*job.message.task_id, &job.message.resumption) {
                ("plan", None) => Answer::Now(Outcome::suspend("which colour?", "half done")),
                ("plan", Some(resumption)) => {
                    assert_eq!(resumption.prompt, "which colour?");
                    assert_eq!(&resumption.state[..], b"half done");
                    let more = vec![
                        task("paint", "frontend", &["plan"]),
                        task("check", "testing", &["paint"]),
                    ];
                    Answer::Now(Outcome::ack_with(resumption.input.clone(), more))
                },
                _ => acks(job),
            },
        )?;
    flow.submit(workflow("w", vec![task("plan", "architecture", &[])]))
        .await?;
    let run = flow
        .task_becomes("w", "plan", TaskState::WaitingInput)
        .await?;
    assert_eq!(
        run.tasks.first().map(|task| &*task.reason),
        Some("which colour?")
    );
    let input = wire::ProvideInputRequest {
        workflow_id: "w".into(),
        task_id: "plan".into(),
        input: "\"blue\"".into(),
        ..wire::ProvideInputRequest::default()
    };
    service.provide_input(input).await?;
    let run = flow.becomes("w", WorkflowState::Succeeded).await?;
    assert_eq!(run.tasks.len(), 3);
    let paint = flow.done.of("paint").context("it was worked on")?;
    let input = paint.inputs.get("plan").context("an input")?;
    assert_eq!(&input.result[..], b"\"blue\"");
    for agent in agents {
        agent.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_time_is_up_ends_and_its_agent_is_told() -> Result<()> {
    let flow = Flow::start(Aof::Off, 1, 1).await?;
    let agents = flow.agents(|_: &Job| Answer::Later(Duration::from_secs(60), Outcome::done()))?;
    let mut slow = task("slow", "backend", &[]);
    slow.timeout = Some(hive_protocol::time::to_duration(500));
    let began = Instant::now();
    flow.submit(workflow("w", vec![slow])).await?;
    let run = flow.becomes("w", WorkflowState::Failed).await?;
    assert_eq!(state_of(&run, "slow"), Some(TaskState::TimedOut));
    assert!(began.elapsed() < Duration::from_secs(5));
    for agent in agents {
        agent.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_start_no_router_heard_of_is_timed_out_all_the_same() -> Result<()> {
    let mut flow = Flow::start(Aof::Off, 1, 1).await?;
    let mut slow = task("slow", "backend", &[]);
    slow.timeout = Some(hive_protocol::time::to_duration(500));
    flow.submit(workflow("w", vec![slow])).await?;
    let group = "backend_engineers_consumers";
    let sent = wait::try_until(Duration::from_secs(10), "the task in its lane", || async {
        let waiting = flow.fleet.figures(group).await?.lag;
        anyhow::ensure!(waiting == 1, "{waiting} wait");
        anyhow::Ok(())
    });
    sent.await?;
    flow.routers[0].kill9()?;
    let agents = flow.agents(|_: &Job| Answer::Later(Duration::from_secs(300), Outcome::done()))?;
    // What the shard said of it is lost, as the end of a log is with Redis' machine.
    let lost = wait::try_until(Duration::from_secs(10), "the start of the task", || async {
        let keys = flow.fleet.redis("KEYS *settled").await?;
        let settled = keys.lines().find(|line| line.ends_with("settled"));
        let trim = format!("XTRIM {} MAXLEN 0", settled.context("no record yet")?);
        let removed = flow.fleet.redis(&trim).await?;
        anyhow::ensure!(removed.trim_end() == ":1", "{removed}");
        anyhow::Ok(())
    });
    lost.await?;
    flow.routers[0].restart().await?;
    // After half a minute without news it is looked up.
    let ended = wait::try_until(Duration::from_secs(60), "the end of the task", || async {
        let run = flow.get("w").await?;
        anyhow::ensure!(run.state() == WorkflowState::Failed, "{run:?}");
        anyhow::Ok(state_of(&run, "slow"))
    });
    assert_eq!(ended.await?, Some(TaskState::TimedOut));
    for agent in agents {
        agent.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_decides_whether_a_task_is_wanted() -> Result<()> {
    let flow = Flow::start(Aof::Off, 1, 1).await?;
    let agents = flow.agents(acks)?;
    let with = |id: &str, condition: &str| wire::TaskSpec {
        condition: condition.into(),
        ..task(id, "testing", &["first"])
    };
    let tasks = vec![
        task("first", "backend", &[]),
        with("wanted", "inputs.first.done == 'first'"),
        with("unwanted", "inputs.first.done == 'second'"),
    ];
    flow.submit(workflow("w", tasks)).await?;
    let run = flow.becomes("w", WorkflowState::Succeeded).await?;
    assert_eq!(state_of(&run, "wanted"), Some(TaskState::Succeeded));
    assert_eq!(state_of(&run, "unwanted"), Some(TaskState::Skipped));
    assert_eq!(flow.done.counts().get("unwanted"), None);
    for agent in agents {
        agent.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_added_at_one_router_ends_at_once_at_another_that_kept_the_run() -> Result<()> {
    let flow = Flow::start(Aof::Off, 1, 2).await?;
    let agents = flow.agents(acks)?;
    // One of them hears of outcomes, and knows the run as it was before the other added a task.
    for round in 0..3 {
        for (at, router) in flow.routers.iter().enumerate() {
            let id = format!("task-{round}-{at}");
            let request = wire::RouteTaskRequest {
                workflow_id: "open".into(),
                task: Some(task(&id, "architecture", &[])),
            };
            let mut service = WorkflowServiceClient::connect(router.url()).await?;
            service.route_task(request).await?;
            flow.task_becomes("open", &id, TaskState::Succeeded).await?;
        }
    }
    for agent in agents {
        agent.stop().await?;
    }
    Ok(())
}
