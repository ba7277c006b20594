//! `hive workflow`: submits workflows, shows their runs and steers them.

use std::io::Read as _;

use clap::{Args, Subcommand, ValueEnum};
use hive_client::{Client, Workflow, wire};
use hive_protocol::workflow;
use serde::Serialize;

use self::views::{EventView, PlacementView, RunRow, RunView, TaskRow, ViolationView};
use crate::{
    connection::{Common, refused},
    exit::{Exit, Failure},
    output::{Format, Output, note},
    values::pair,
};

mod graph;
mod views;
mod watch;

/// What to do with workflows.
#[derive(Subcommand, Debug)]
pub(crate) enum WorkflowCommand {
    /// Starts a run of the workflow in a file; the same again changes nothing.
    Submit {
        /// YAML or JSON with the fields of the REST API; `-` for stdin.
        file: String,
        /// Call it this instead of what the file says.
        #[arg(long)]
        id: Option<String>,
        /// Go on as `hive workflow watch`.
        #[arg(long, short)]
        watch: bool,
    },
    /// Checks the workflow in a file: what is wrong, or where its tasks would go.
    Validate {
        /// YAML or JSON with the fields of the REST API; `-` for stdin.
        file: String,
    },
    /// Lists runs, the newest first.
    Ls(ListArgs),
    /// Shows a run with its tasks.
    Get {
        #[command(flatten)]
        run: RunArgs,
        /// With the results of its tasks, up to 64 KiB each; in JSON formats.
        #[arg(long)]
        results: bool,
    },
    /// Shows what happens in a run until it is over; exits with 1 unless it succeeded.
    Watch {
        #[command(flatten)]
        run: RunArgs,
    },
    /// Draws the tasks of a run, or of a file, and what they wait for.
    Graph {
        /// The workflow.
        #[arg(required_unless_present = "file")]
        workflow: Option<String>,
        /// The run [default: the newest].
        #[arg(long)]
        run: Option<String>,
        /// Draw the workflow in this file instead; `-` for stdin.
        #[arg(long, conflicts_with_all = ["workflow", "run"])]
        file: Option<String>,
        /// As a Mermaid diagram.
        #[arg(long)]
        mermaid: bool,
    },
    /// Ends a run; agents that work on its tasks are told to stop.
    Cancel(SteerArgs),
    /// Hands out no more tasks of a run; what runs goes on.
    Pause(SteerArgs),
    /// Goes on after a pause.
    Resume {
        /// The workflow.
        workflow: String,
    },
    /// An open workflow takes no more tasks: it is over when its tasks are.
    Close {
        /// The workflow.
        workflow: String,
    },
    /// Tries a failed task again, and all that did not run because of it.
    Retry(TaskArgs),
    /// Starts a new run in which a task and all that depends on it are done again.
    Rerun {
        /// The workflow; its run must be over.
        workflow: String,
        /// The first task to be done again.
        task: String,
    },
    /// Answers a task that waits for input.
    Input {
        #[command(flatten)]
        task: TaskArgs,
        /// The answer; `-` for stdin.
        input: String,
    },
    /// Completes a task from outside, or fails it.
    Signal {
        #[command(flatten)]
        task: TaskArgs,
        /// Its result, e.g. JSON; `-` for stdin.
        #[arg(long, conflicts_with = "fail")]
        result: Option<String>,
        /// Fail it, with this reason.
        #[arg(long, value_name = "REASON")]
        fail: Option<String>,
    },
    /// Says why a task is not running, and what to do about it.
    Explain(TaskArgs),
    /// Lists what happened in a run, the oldest first.
    History {
        #[command(flatten)]
        run: RunArgs,
        /// Only what came after this event.
        #[arg(long, value_name = "EVENT")]
        after: Option<String>,
        /// Most events, 1 to 1,000.
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// Forgets a run that is over; its name may be used again.
    Rm {
        /// The workflow.
        workflow: String,
    },
}

/// Which runs.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Only runs in this state.
    #[arg(long, value_enum)]
    state: Option<State>,
    /// Only runs with this label; may be given more than once.
    #[arg(long, value_parser = pair, value_name = "NAME=VALUE")]
    label: Vec<(String, String)>,
    /// Most runs, 1 to 1,000.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// Go on where an earlier list ended.
    #[arg(long)]
    cursor: Option<String>,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    /// Tasks are handed out as they become ready.
    Running,
    /// No task is handed out.
    Paused,
    /// Everything that counts is done.
    Succeeded,
    /// A task failed.
    Failed,
    /// Somebody ended it.
    Cancelled,
}

/// A run.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// The workflow.
    workflow: String,
    /// The run [default: the newest].
    #[arg(long)]
    run: Option<String>,
}

/// A task of a run.
#[derive(Args, Debug)]
pub(crate) struct TaskArgs {
    /// The workflow.
    workflow: String,
    /// The task.
    task: String,
    /// The run [default: the newest].
    #[arg(long)]
    run: Option<String>,
}

/// A run, and why something is done to it.
#[derive(Args, Debug)]
pub(crate) struct SteerArgs {
    /// The workflow.
    workflow: String,
    /// Why, for people who look at the run.
    #[arg(long, default_value = "")]
    reason: String,
}

/// What a submit did.
#[derive(Debug, Serialize)]
struct Submitted {
    workflow_id: String,
    run_id: String,
    already: bool,
    routed_tasks: Vec<String>,
    waiting_tasks: u32,
}

/// What was done to a run or a task.
#[derive(Debug, Serialize)]
struct Done {
    workflow_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    already: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    triggered_tasks: Option<Vec<String>>,
}

impl Done {
    fn to(workflow_id: &str) -> Self {
        Self {
            workflow_id: workflow_id.to_owned(),
            task_id: None,
            run_id: None,
            already: None,
            triggered_tasks: None,
        }
    }
}

/// Why a task is where it is.
#[derive(Debug, Serialize)]
struct Explained {
    workflow_id: String,
    task_id: String,
    state: &'static str,
    waits_for: String,
    lines: Vec<String>,
}

/// Runs one workflow command.
///
/// # Errors
/// When no gateway answers, or it refuses; or a file cannot be read.
pub(crate) async fn run(command: WorkflowCommand, common: &Common) -> anyhow::Result<Exit> {
    let client = common.client()?;
    let out = common.out();
    match command {
        WorkflowCommand::Submit { file, id, watch } => {
            let run = submit(&client, &file, id, (!watch).then_some(out)).await?;
            if watch {
                return watch::run(&client, &run.workflow_id, Some(&run.run_id), out).await;
            }
            Ok(Exit::Done)
        },
        WorkflowCommand::Validate { file } => validate(&client, &file, out).await,
        WorkflowCommand::Ls(args) => list(&client, args, out).await,
        WorkflowCommand::Get { run, results } => get(&client, run, results, out).await,
        WorkflowCommand::Watch { run } => {
            watch::run(&client, &run.workflow, run.run.as_deref(), out).await
        },
        WorkflowCommand::Graph {
            workflow,
            run,
            file,
            mermaid,
        } => {
            let drawn = match file {
                Some(file) => graph::Graph::of_spec(read_workflow(&file).await?.spec()),
                None => {
                    let request = wire::GetWorkflowRequest {
                        workflow_id: workflow.unwrap_or_default(),
                        run_id: run.unwrap_or_default(),
                        include_results: false,
                    };
                    let run = client.get_workflow(request).await.map_err(refused)?;
                    graph::Graph::of_run(&run)
                },
            };
            drawn.print(mermaid, out)?;
            Ok(Exit::Done)
        },
        WorkflowCommand::History { run, after, limit } => {
            history(&client, run, after, limit, out).await
        },
        WorkflowCommand::Explain(task) => explain(&client, task, out).await,
        WorkflowCommand::Cancel(args) => steer(&client, Steer::Cancel(args), out).await,
        WorkflowCommand::Pause(args) => steer(&client, Steer::Pause(args), out).await,
        WorkflowCommand::Resume { workflow } => steer(&client, Steer::Resume(workflow), out).await,
        WorkflowCommand::Close { workflow } => steer(&client, Steer::Close(workflow), out).await,
        WorkflowCommand::Rm { workflow } => steer(&client, Steer::Forget(workflow), out).await,
        WorkflowCommand::Retry(task) => {
            let request = wire::RetryTaskRequest {
                workflow_id: task.workflow.clone(),
                run_id: task.run.unwrap_or_default(),
                task_id: task.task.clone(),
                ..wire::RetryTaskRequest::default()
            };
            client.retry_task(request).await.map_err(refused)?;
            let text = format!("task `{}` of `{}` is tried again", task.task, task.workflow);
            let mut done = Done::to(&task.workflow);
            done.task_id = Some(task.task);
            out.done(&text, &done)?;
            Ok(Exit::Done)
        },
        WorkflowCommand::Rerun { workflow, task } => {
            let request = wire::RerunWorkflowRequest {
                workflow_id: workflow.clone(),
                from_task: task.clone(),
            };
            let answer = client.rerun_workflow(request).await.map_err(refused)?;
            let text = format!("run `{}` of `{workflow}` begins at `{task}`", answer.run_id);
            let mut done = Done::to(&workflow);
            (done.task_id, done.run_id) = (Some(task), Some(answer.run_id));
            out.done(&text, &done)?;
            Ok(Exit::Done)
        },
        WorkflowCommand::Input { task, input } => {
            let request = wire::ProvideInputRequest {
                workflow_id: task.workflow.clone(),
                run_id: task.run.unwrap_or_default(),
                task_id: task.task.clone(),
                input: bytes_of(input).await?.into(),
            };
            client.provide_input(request).await.map_err(refused)?;
            let text = format!("task `{}` of `{}` has its answer", task.task, task.workflow);
            let mut done = Done::to(&task.workflow);
            done.task_id = Some(task.task);
            out.done(&text, &done)?;
            Ok(Exit::Done)
        },
        WorkflowCommand::Signal { task, result, fail } => {
            signal(&client, task, (result, fail), out).await
        },
    }
}

async fn submit(
    client: &Client,
    file: &str,
    id: Option<String>,
    out: Option<Output>,
) -> anyhow::Result<Submitted> {
    let mut spec: wire::WorkflowSpec = read_workflow(file).await?.into();
    if let Some(id) = id {
        spec.workflow_id = id;
    }
    let answer = client.submit_workflow(spec).await.map_err(refused)?;
    let shown = Submitted {
        workflow_id: answer.workflow_id,
        run_id: answer.run_id,
        already: answer.already,
        routed_tasks: answer.routed_tasks,
        waiting_tasks: answer.waiting_tasks,
    };
    let text = submitted_text(&shown);
    match out {
        Some(out) => out.done(&text, &shown)?,
        // Stdout is for what happens in the run.
        None => note(&text),
    }
    Ok(shown)
}

fn submitted_text(run: &Submitted) -> String {
    let (id, run_id) = (&run.workflow_id, &run.run_id);
    if run.already {
        return format!("`{id}` was submitted before: run `{run_id}`");
    }
    let (routed, waiting) = (run.routed_tasks.len(), run.waiting_tasks);
    format!("run `{run_id}` of `{id}`: handed out {routed}, waiting {waiting}")
}

async fn validate(client: &Client, file: &str, out: Output) -> anyhow::Result<Exit> {
    let workflow = read_workflow(file).await?;
    let answer = client.validate_workflow(workflow).await.map_err(refused)?;
    if answer.field_violations.is_empty() {
        let placements = answer.placements.into_iter().map(PlacementView::from);
        out.list(&placements.collect::<Vec<_>>())?;
        return Ok(Exit::Done);
    }
    let faults = answer.field_violations.into_iter().map(ViolationView::from);
    out.list(&faults.collect::<Vec<_>>())?;
    Ok(Exit::Refused)
}

async fn list(client: &Client, args: ListArgs, out: Output) -> anyhow::Result<Exit> {
    let state = args.state.map(|state| match state {
        State::Running => wire::WorkflowState::Running,
        State::Paused => wire::WorkflowState::Paused,
        State::Succeeded => wire::WorkflowState::Succeeded,
        State::Failed => wire::WorkflowState::Failed,
        State::Cancelled => wire::WorkflowState::Cancelled,
    });
    let request = wire::ListWorkflowsRequest {
        state: state.map_or(0, Into::into),
        labels: args.label.into_iter().collect(),
        limit: args.limit,
        cursor: args.cursor.unwrap_or_default(),
        ..wire::ListWorkflowsRequest::default()
    };
    let answer = client.list_workflows(request).await.map_err(refused)?;
    let runs = answer.workflows.into_iter().map(RunRow::from);
    out.list(&runs.collect::<Vec<_>>())?;
    if !answer.next_cursor.is_empty() {
        note(&format!("there are more: --cursor {}", answer.next_cursor));
    }
    Ok(Exit::Done)
}

async fn get(client: &Client, run: RunArgs, results: bool, out: Output) -> anyhow::Result<Exit> {
    let request = wire::GetWorkflowRequest {
        workflow_id: run.workflow,
        run_id: run.run.unwrap_or_default(),
        include_results: results,
    };
    let run = client.get_workflow(request).await.map_err(refused)?;
    let mut view = RunView::from(run);
    if out.format() == Format::Table {
        let tasks: Vec<TaskRow> = view.take_tasks().into_iter().map(TaskRow::from).collect();
        out.item(&view)?;
        out.text("")?;
        out.list(&tasks)?;
    } else {
        out.item(&view)?;
    }
    Ok(Exit::Done)
}

async fn history(
    client: &Client,
    run: RunArgs,
    after: Option<String>,
    limit: u32,
    out: Output,
) -> anyhow::Result<Exit> {
    let request = wire::GetHistoryRequest {
        workflow_id: run.workflow,
        run_id: run.run.unwrap_or_default(),
        after_event_id: after.unwrap_or_default(),
        limit,
    };
    let answer = client.get_history(request).await.map_err(refused)?;
    let last = answer.events.last().map(|event| event.event_id.clone());
    let events = answer.events.into_iter().map(EventView::from);
    out.list(&events.collect::<Vec<_>>())?;
    if let Some(last) = last.filter(|_| answer.more) {
        note(&format!("there are more: --after {last}"));
    }
    Ok(Exit::Done)
}

async fn explain(client: &Client, task: TaskArgs, out: Output) -> anyhow::Result<Exit> {
    let request = wire::ExplainTaskRequest {
        workflow_id: task.workflow.clone(),
        run_id: task.run.unwrap_or_default(),
        task_id: task.task.clone(),
    };
    let answer = client.explain_task(request).await.map_err(refused)?;
    let shown = Explained {
        state: workflow::task_status(answer.state()).map_or("unspecified", |state| state.as_str()),
        workflow_id: task.workflow,
        task_id: task.task,
        waits_for: answer.waits_for,
        lines: answer.lines,
    };
    let mut text = format!(
        "task `{}` is {} and waits for: {}",
        shown.task_id, shown.state, shown.waits_for
    );
    for line in &shown.lines {
        text.push_str("\n  ");
        text.push_str(line);
    }
    out.done(&text, &shown)?;
    Ok(Exit::Done)
}

/// What is done to a whole run.
enum Steer {
    Cancel(SteerArgs),
    Pause(SteerArgs),
    Resume(String),
    Close(String),
    Forget(String),
}

async fn steer(client: &Client, steer: Steer, out: Output) -> anyhow::Result<Exit> {
    let (workflow_id, word, already) = match steer {
        Steer::Cancel(SteerArgs { workflow, reason }) => {
            let request = wire::CancelWorkflowRequest {
                workflow_id: workflow.clone(),
                reason,
            };
            let answer = client.cancel_workflow(request).await.map_err(refused)?;
            (workflow, "cancelled", answer.already)
        },
        Steer::Pause(SteerArgs { workflow, reason }) => {
            let request = wire::PauseWorkflowRequest {
                workflow_id: workflow.clone(),
                reason,
            };
            let answer = client.pause_workflow(request).await.map_err(refused)?;
            (workflow, "paused", answer.already)
        },
        Steer::Resume(workflow) => {
            let workflow_id = workflow.clone();
            let request = wire::ResumeWorkflowRequest { workflow_id };
            let answer = client.resume_workflow(request).await.map_err(refused)?;
            (workflow, "resumed", answer.already)
        },
        Steer::Close(workflow) => {
            let workflow_id = workflow.clone();
            let request = wire::CloseWorkflowRequest { workflow_id };
            let answer = client.close_workflow(request).await.map_err(refused)?;
            (workflow, "closed", answer.already)
        },
        Steer::Forget(workflow) => {
            let workflow_id = workflow.clone();
            let request = wire::DeleteWorkflowRequest { workflow_id };
            client.delete_workflow(request).await.map_err(refused)?;
            (workflow, "forgotten", false)
        },
    };
    let note = if already {
        "; nothing was left to do"
    } else {
        ""
    };
    let text = format!("{word} `{workflow_id}`{note}");
    let mut done = Done::to(&workflow_id);
    done.already = Some(already);
    out.done(&text, &done)?;
    Ok(Exit::Done)
}

async fn signal(
    client: &Client,
    task: TaskArgs,
    (result, fail): (Option<String>, Option<String>),
    out: Output,
) -> anyhow::Result<Exit> {
    let run_id = task.run.unwrap_or_default();
    let mut done = Done::to(&task.workflow);
    done.task_id = Some(task.task.clone());
    let text = if let Some(reason) = fail {
        let request = wire::SignalTaskFailureRequest {
            workflow_id: task.workflow,
            run_id,
            task_id: task.task.clone(),
            reason,
        };
        let answer = client.signal_task_failure(request).await.map_err(refused)?;
        done.already = Some(answer.already);
        format!("task `{}` failed", task.task)
    } else {
        let result = match result {
            Some(result) => bytes_of(result).await?,
            None => Vec::new(),
        };
        let request = wire::SignalTaskCompletionRequest {
            workflow_id: task.workflow,
            run_id,
            task_id: task.task.clone(),
            result: result.into(),
        };
        let answer = client.signal_task_completion(request).await;
        let answer = answer.map_err(refused)?;
        let count = answer.triggered_tasks.len();
        done.already = Some(answer.already);
        done.triggered_tasks = Some(answer.triggered_tasks);
        format!(
            "task `{}` is complete; {count} tasks were handed out",
            task.task
        )
    };
    out.done(&text, &done)?;
    Ok(Exit::Done)
}

/// The workflow in a file, or on stdin for `-`.
async fn read_workflow(file: &str) -> anyhow::Result<Workflow> {
    let text = if file == "-" {
        String::from_utf8(read_stdin().await?)
            .map_err(|_no_text| Failure::new(Exit::Usage, "stdin is not UTF-8"))?
    } else {
        let read = tokio::fs::read_to_string(file).await;
        read.map_err(|error| Failure::new(Exit::Usage, format!("`{file}`: {error}")))?
    };
    let read = Workflow::read(&text);
    Ok(read.map_err(|error| Failure::new(Exit::Usage, format!("`{file}`: {error}")))?)
}

/// A value as it stands on the command line, or stdin for `-`.
async fn bytes_of(value: String) -> anyhow::Result<Vec<u8>> {
    if value == "-" {
        read_stdin().await
    } else {
        Ok(value.into_bytes())
    }
}

pub(crate) async fn read_stdin() -> anyhow::Result<Vec<u8>> {
    let read = tokio::task::spawn_blocking(|| {
        let mut bytes = Vec::new();
        std::io::stdin()
            .read_to_end(&mut bytes)
            .map(|_length| bytes)
    });
    Ok(read.await??)
}

#[cfg(test)]
mod tests;
