//! `hive bench workflow`: tasks per second by the shape of a workflow, and how long a step waits
//! for the one before it.
//!
//! Agents ack at once, so a figure is what the system costs, not the work. The ceiling is the
//! scripts that a task passes through with nothing between them
//! ([`hive_store::ceiling::workflows`]), measured on the same Redis right after each round. A run
//! that does not succeed whole fails the bench.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::bail;
use clap::Args;
use hive_client::{Client, Job, Outcome, Work, Worker, wire};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

mod stored;

use stored::Stored;

use super::{Quantiles, gateway, median, private::Private, quantiles};
use crate::{
    connection::{Common, refused},
    exit::{Exit, Failure},
    output::{Format, note, progress, table},
};

/// Type of the agents of a bench.
const KIND: &str = "bench-worker";
/// A run that takes longer has failed.
const STALLED_AFTER: Duration = Duration::from_secs(120);
/// Most tasks at work at once in one run.
const PARALLEL: u32 = 10_000;

/// Rounds and load.
#[derive(Args, Debug)]
pub(crate) struct WorkflowBenchArgs {
    /// Rounds of all shapes, each with the ceiling behind it.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Tasks that fan out, and in.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(10..=9_000))]
    width: u32,
    /// Runs of a shape side by side, but for the chain.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Agents.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    agents: u32,
    /// Then run so many small workflows to their end, and measure looking among them.
    #[arg(long, value_name = "N", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    stored: u32,
    /// One small round, to see that nothing is lost; its figures mean little.
    #[arg(long)]
    short: bool,
}

/// The shape of a workflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Shape {
    /// One after the other, on an idle system.
    Chain,
    /// One, then many.
    FanOut,
    /// Many, then one.
    FanIn,
    /// One, many, one, four times over.
    Diamond,
}

impl Shape {
    const ALL: [Self; 4] = [Self::Chain, Self::FanOut, Self::FanIn, Self::Diamond];

    const fn name(self) -> &'static str {
        match self {
            Self::Chain => "chain",
            Self::FanOut => "fan-out",
            Self::FanIn => "fan-in",
            Self::Diamond => "diamond",
        }
    }

    /// A workflow of this shape.
    fn workflow(self, id: &str, width: u32) -> wire::WorkflowSpec {
        let mut spec = wire::WorkflowSpec {
            workflow_id: id.to_owned(),
            strategy: wire::WorkflowStrategy::Parallel.into(),
            max_parallel_tasks: PARALLEL,
            ..wire::WorkflowSpec::default()
        };
        let mut add = |id: String, dependencies: Vec<String>| {
            spec.tasks.push(wire::TaskSpec {
                id,
                r#type: KIND.to_owned(),
                dependencies,
                payload: "{}".into(),
                ..wire::TaskSpec::default()
            });
        };
        let names = |layer: u32, count: u32| (0..count).map(move |n| format!("t{layer}-{n}"));
        match self {
            Self::Chain => {
                for step in 0..width / 2 {
                    let before = step.checked_sub(1).map(|before| format!("t0-{before}"));
                    add(format!("t0-{step}"), before.into_iter().collect());
                }
            },
            Self::FanOut => {
                add("root".to_owned(), Vec::new());
                for name in names(0, width) {
                    add(name, vec!["root".to_owned()]);
                }
            },
            Self::FanIn => {
                // A task has at most 100 dependencies: the many come together in two steps.
                let mut joins = Vec::new();
                for (number, some) in names(0, width).collect::<Vec<_>>().chunks(100).enumerate() {
                    for name in some {
                        add(name.clone(), Vec::new());
                    }
                    let join = format!("join-{number}");
                    add(join.clone(), some.to_vec());
                    joins.push(join);
                }
                add("end".to_owned(), joins);
            },
            Self::Diamond => {
                let mut before = Vec::new();
                for layer in 0..4 {
                    let root = format!("root-{layer}");
                    add(root.clone(), before);
                    before = names(layer, (width / 4).min(100)).collect();
                    for name in &before {
                        add(name.clone(), vec![root.clone()]);
                    }
                }
                add("end".to_owned(), before);
            },
        }
        spec
    }
}

/// What one shape came to in one round.
#[derive(Clone, Copy, Debug, Serialize)]
struct ShapeRun {
    shape: Shape,
    tasks: u32,
    tasks_per_second: f64,
}

/// One round.
#[derive(Clone, Debug, Serialize)]
struct Round {
    shapes: Vec<ShapeRun>,
    /// Tasks per second of all shapes but the chain together.
    tasks_per_second: f64,
    ceiling_tasks_per_second: Option<f64>,
    ratio: Option<f64>,
}

/// All that was measured.
#[derive(Debug, Serialize)]
struct Report {
    tasks: u64,
    /// Tasks that were not done once and only once.
    wrong: u64,
    step_ms: Quantiles,
    median_ratio: Option<f64>,
    rounds: Vec<Round>,
    stored: Option<Stored>,
}

/// When tasks were begun, by workflow and task.
type Begun = Arc<Mutex<Vec<(String, Instant)>>>;

struct Acking(Begun);

impl Work for Acking {
    async fn work(&self, job: Job) -> Outcome {
        self.0.lock().push((job.message.task_id, Instant::now()));
        Outcome::ack("{\"ok\":true}")
    }
}

/// Measures, prints, and fails when a task was not done exactly once.
///
/// # Errors
/// When no gateway or router answers, a run does not succeed, or a task was done twice.
pub(crate) async fn run(args: WorkflowBenchArgs, common: &Common) -> anyhow::Result<Exit> {
    let args = args.shortened();
    let (private, urls) = if common.url.is_empty() {
        let private = Private::start_with_router(None).await?;
        let url = private.url();
        (Some(private), vec![url])
    } else {
        (None, common.url.clone())
    };
    let redis_url = private.as_ref().map(Private::redis_url);
    let client = common.client_of(urls)?;
    let measured = measure(&args, &client, redis_url.as_deref()).await;
    if let Some(private) = private {
        private.stop().await;
    }
    let report = measured?;
    match common.output {
        Format::Table => common.out().text(&report.text())?,
        Format::Json | Format::Jsonl => common.out().item(&report)?,
    }
    if report.wrong > 0 {
        let message = format!(
            "{} of {} tasks were not done exactly once",
            report.wrong, report.tasks
        );
        return Err(Failure::new(Exit::Failed, message).into());
    }
    Ok(Exit::Done)
}

async fn measure(
    args: &WorkflowBenchArgs,
    client: &Client,
    redis_url: Option<&str>,
) -> anyhow::Result<Report> {
    let number = uuid::Uuid::new_v4().as_fields().0;
    let group = format!("bench-{number:08x}");
    gateway::create_group_of(client, &group, KIND)
        .await
        .map_err(refused)?;
    let begun = Begun::default();
    let stop = CancellationToken::new();
    let mut agents = JoinSet::new();
    for number in 0..args.agents {
        let worker = Worker::builder(client.clone(), &group, Acking(Arc::clone(&begun)))
            .consumer_id(format!("bench-{number}"))
            .concurrency(256)
            .shutdown(stop.clone())
            .build();
        agents.spawn(worker.run());
    }
    let measured = measure_with(args, client, redis_url, &begun).await;
    stop.cancel();
    while agents.join_next().await.is_some() {}
    gateway::delete_group(client, &group).await;
    measured
}

async fn measure_with(
    args: &WorkflowBenchArgs,
    client: &Client,
    redis_url: Option<&str>,
    begun: &Begun,
) -> anyhow::Result<Report> {
    let bar = progress(u64::from(args.rounds), "rounds");
    let (mut rounds, mut steps) = (Vec::new(), Vec::new());
    let (mut tasks, mut wrong) = (0, 0);
    // What is new to a router is slower once: connections, definitions.
    shape_run(Shape::Chain, 10, 1, client, begun).await?;
    for round in 0..args.rounds {
        let mut shapes = Vec::new();
        let (mut loaded, mut time) = (0_u32, Duration::ZERO);
        for shape in Shape::ALL {
            let runs = if shape == Shape::Chain { 1 } else { args.runs };
            let done = shape_run(shape, args.width, runs, client, begun).await?;
            tasks += u64::from(done.tasks);
            wrong += done.wrong;
            if shape == Shape::Chain {
                steps.extend(done.steps);
            } else {
                loaded = loaded.saturating_add(done.tasks);
                time += done.elapsed;
            }
            shapes.push(ShapeRun {
                shape,
                tasks: done.tasks,
                tasks_per_second: f64::from(done.tasks) / done.elapsed.as_secs_f64(),
            });
        }
        let tasks_per_second = f64::from(loaded) / time.as_secs_f64();
        let mut ceiling = None;
        if let Some(url) = redis_url {
            let prefix = format!("ceiling{round}");
            let took = hive_store::ceiling::workflows(url, &prefix, loaded).await?;
            ceiling = Some(f64::from(loaded) / took.as_secs_f64());
        }
        rounds.push(Round {
            shapes,
            tasks_per_second,
            ceiling_tasks_per_second: ceiling,
            ratio: ceiling.map(|ceiling| tasks_per_second / ceiling),
        });
        bar.inc(1);
    }
    bar.finish_and_clear();
    let stored = match args.stored {
        0 => None,
        runs => Some(stored::measure(client, runs, redis_url).await?),
    };
    Ok(Report {
        stored,
        tasks,
        wrong,
        step_ms: quantiles(&steps)?,
        median_ratio: median(rounds.iter().filter_map(|round| round.ratio)),
        rounds,
    })
}

/// What runs of one shape came to.
struct Done {
    tasks: u32,
    wrong: u64,
    elapsed: Duration,
    /// From the beginning of a task to that of the next, in the order in which they began.
    steps: Vec<Duration>,
}

/// Submits runs of a shape at once and waits until all of them have succeeded.
async fn shape_run(
    shape: Shape,
    width: u32,
    runs: u32,
    client: &Client,
    begun: &Begun,
) -> anyhow::Result<Done> {
    begun.lock().clear();
    let number = uuid::Uuid::new_v4().as_fields().0;
    let ids: Vec<String> = (0..runs)
        .map(|run| format!("bench-{}-{number:08x}-{run}", shape.name()))
        .collect();
    let started = Instant::now();
    let submits = ids.iter().map(|id| {
        let workflow = shape.workflow(id, width);
        async move { client.submit_workflow(workflow).await.map_err(refused) }
    });
    futures_util::future::try_join_all(submits).await?;
    until_none_runs(client, STALLED_AFTER).await?;
    let elapsed = started.elapsed();
    let mut done = Done {
        tasks: 0,
        wrong: 0,
        elapsed,
        steps: Vec::new(),
    };
    for id in &ids {
        let request = wire::GetWorkflowRequest {
            workflow_id: id.clone(),
            ..wire::GetWorkflowRequest::default()
        };
        let run = client.get_workflow(request).await.map_err(refused)?;
        for task in &run.tasks {
            done.tasks = done.tasks.saturating_add(1);
            let is_right = task.state() == wire::TaskState::Succeeded && task.deliveries == 1;
            done.wrong += u64::from(!is_right);
        }
        let request = wire::DeleteWorkflowRequest {
            workflow_id: id.clone(),
        };
        if let Err(error) = client.delete_workflow(request).await {
            note(&format!("workflow `{id}` is left behind: {error}"));
        }
    }
    let begun = begun.lock();
    let seen = u64::try_from(begun.len()).unwrap_or(u64::MAX);
    done.wrong += seen.abs_diff(u64::from(done.tasks));
    let times = begun.iter().map(|(_, at)| *at);
    done.steps = times
        .clone()
        .zip(times.skip(1))
        .map(|(one, next)| next.saturating_duration_since(one))
        .collect();
    Ok(done)
}

/// Waits until no run goes on.
async fn until_none_runs(client: &Client, patience: Duration) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let request = wire::ListWorkflowsRequest {
            state: wire::WorkflowState::Running.into(),
            limit: 1,
            ..wire::ListWorkflowsRequest::default()
        };
        let going = client.list_workflows(request).await.map_err(refused)?;
        let Some(run) = going.workflows.first() else {
            return Ok(());
        };
        if started.elapsed() > patience {
            bail!("the run of `{}` does not end", run.workflow_id);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl WorkflowBenchArgs {
    fn shortened(self) -> Self {
        if !self.short {
            return self;
        }
        Self {
            rounds: 1,
            width: self.width.min(200),
            runs: self.runs.min(2),
            ..self
        }
    }
}

impl Report {
    /// The report for a person.
    fn text(&self) -> String {
        let figure = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        let rows = self.rounds.iter().enumerate().map(|(number, round)| {
            let of = |shape: Shape| {
                let found = round.shapes.iter().find(|run| run.shape == shape);
                figure(found.map(|run| run.tasks_per_second), 0)
            };
            let mut row = vec![(number + 1).to_string()];
            row.extend(Shape::ALL.map(of));
            row.push(figure(Some(round.tasks_per_second), 0));
            row.push(figure(round.ceiling_tasks_per_second, 0));
            row.push(figure(round.ratio.map(|ratio| ratio * 100.0), 1));
            row
        });
        let titles = [
            "ROUND",
            "CHAIN/S",
            "FAN-OUT/S",
            "FAN-IN/S",
            "DIAMOND/S",
            "LOAD/S",
            "CEILING/S",
            "RATIO %",
        ];
        let rounds = table(&titles, &rows.collect::<Vec<_>>());
        let Self {
            tasks,
            wrong,
            step_ms,
            median_ratio,
            ..
        } = self;
        format!(
            "{rounds}\n\nmedian: {} % of the ceiling\nstep to step: p50 {:.2} ms, p99 {:.2} ms\n\
             tasks {tasks}, not done exactly once {wrong}",
            figure(median_ratio.map(|ratio| ratio * 100.0), 1),
            step_ms.p50,
            step_ms.p99,
        ) + &self
            .stored
            .as_ref()
            .map(|stored| format!("\n{}", stored.text()))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::Shape;

    #[test]
    fn every_shape_stays_within_the_limits_of_a_workflow() {
        for shape in Shape::ALL {
            let spec = shape.workflow("w", 1_000);
            assert!(!spec.tasks.is_empty() && spec.tasks.len() <= 10_000);
            assert!(spec.tasks.iter().all(|task| task.dependencies.len() <= 100));
        }
    }
}
