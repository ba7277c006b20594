//! Random workflows while routers, gateways, agents and Redis are killed: no task begins before
//! what it depends on is done, none is done twice, and every run ends.
//!
//! What agents saw and what the service says at the end are held against each other from outside.
//! The short form runs with all tests; `scripts/torture --workflows` runs the same test for longer.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use hive_client::{
    Client, Ended, Job, Outcome, Work, WorkError, Worker,
    wire::{self, workflow_service_client::WorkflowServiceClient},
};
use hive_store::Lease;
use hive_testkit::{
    redis::{Aof, RedisServer},
    rng,
};
use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};
use tonic::transport::Channel;

use crate::{
    dataset::page,
    world::{Victim, World, settings},
};

/// Types of agents, each with a group of its own.
const KINDS: [&str; 3] = ["writers", "testers", "reviewers"];
/// Agents of each group.
const AGENTS: usize = 3;
/// Tasks that an agent works on at once.
const CONCURRENCY: u32 = 16;
const LEASE: Duration = Duration::from_secs(6);
const GRACE: Duration = Duration::from_secs(2);
/// Tasks of a workflow.
const TASKS: usize = 100;
/// What may pass between the last fault and the end of the last run.
const DRAIN: Duration = Duration::from_secs(60);

/// How much and how hard.
#[derive(Debug, Clone, Copy)]
struct Plan {
    workflows: usize,
    kills: u64,
}

impl Plan {
    fn read() -> Result<Self> {
        let number = |name: &str, default: u64| match env::var(name) {
            Ok(text) => text
                .parse()
                .with_context(|| format!("{name} `{text}` must be a number")),
            Err(_) => Ok(default),
        };
        Ok(Self {
            workflows: usize::try_from(number("HIVE_TORTURE_WORKFLOWS", 200)?)?,
            kills: number("HIVE_TORTURE_WORKFLOW_KILLS", 10)?,
        })
    }
}

/// Something that an agent saw, in the order in which it was seen.
#[derive(Debug, Clone)]
enum Saw {
    Begin {
        task: (String, String),
        attempt: u32,
        delivery: u64,
    },
    Done {
        task: (String, String),
    },
}

type Log = Arc<Mutex<Vec<Saw>>>;

/// Works for a moment and acks with a result that names the task; now and then it fails.
struct Moody {
    log: Log,
    rng: Mutex<StdRng>,
}

impl Work for Moody {
    async fn work(&self, job: Job) -> Outcome {
        let message = &job.message;
        let task = (message.workflow_id.clone(), message.task_id.clone());
        let attempt = message.message_id.rsplit('.').next();
        let attempt = attempt.and_then(|text| text.parse().ok()).unwrap_or(0);
        let delivery = job.lease.parse::<Lease>().map_or(0, |lease| lease.count);
        self.log.lock().push(Saw::Begin {
            task: task.clone(),
            attempt,
            delivery,
        });
        let (wait, mood) = {
            let mut rng = self.rng.lock();
            (rng.random_range(0..6), rng.random_range(0..100))
        };
        sleep(Duration::from_millis(wait)).await;
        match mood {
            0 | 1 => Outcome::nack("a bad day"),
            2 => Outcome::release(),
            _ => {
                let result = result_of(&task.1);
                self.log.lock().push(Saw::Done { task });
                Outcome::ack(result)
            },
        }
    }
}

fn result_of(task: &str) -> Bytes {
    Bytes::from(format!("{{\"of\":\"{task}\"}}"))
}

struct Agent {
    client: Client,
    group: String,
    id: String,
    task: JoinHandle<Result<Ended, WorkError>>,
}

impl Agent {
    fn start(client: Client, group: &str, id: &str, log: &Log, seed: u64) -> Self {
        let work = Moody {
            log: Arc::clone(log),
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
        };
        let worker = Worker::builder(client.clone(), group, work)
            .consumer_id(id)
            .concurrency(CONCURRENCY)
            .build();
        #[expect(clippy::disallowed_methods, reason = "a test has no chassis")]
        let task = tokio::spawn(worker.run());
        Self {
            client,
            group: group.to_owned(),
            id: id.to_owned(),
            task,
        }
    }

    /// Ends it in the middle of whatever it does.
    fn kill(&self) {
        self.task.abort();
    }
}

/// A workflow of random shape; tasks depend on some of those not long before them.
fn random_workflow(rng: &mut StdRng, number: usize) -> wire::WorkflowSpec {
    let tasks = (0..TASKS).map(|task| {
        let mut dependencies = BTreeSet::new();
        if task > 0 {
            for _ in 0..rng.random_range(0..4) {
                let back = rng.random_range(1..=task.min(12));
                dependencies.insert(format!("t{}", task - back));
            }
        }
        wire::TaskSpec {
            id: format!("t{task}"),
            r#type: (*KINDS.choose(rng).unwrap_or(&KINDS[0])).to_owned(),
            dependencies: dependencies.into_iter().collect(),
            priority: Some(rng.random_range(0..10)),
            payload: Bytes::from_static(b"{}"),
            ..wire::TaskSpec::default()
        }
    });
    let mut spec = wire::WorkflowSpec {
        workflow_id: format!("w{number}"),
        tasks: tasks.collect(),
        max_parallel_tasks: rng.random_range(5..60),
        ..wire::WorkflowSpec::default()
    };
    spec.set_strategy(
        *[
            wire::WorkflowStrategy::Parallel,
            wire::WorkflowStrategy::Hybrid,
            wire::WorkflowStrategy::PriorityBased,
        ]
        .choose(rng)
        .unwrap_or(&wire::WorkflowStrategy::Hybrid),
    );
    spec
}

/// The service at any gateway, asked again until it answers.
#[derive(Clone)]
struct Service {
    urls: Vec<String>,
}

impl Service {
    async fn call<T, F>(
        &self,
        what: &str,
        call: impl Fn(WorkflowServiceClient<Channel>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T, tonic::Status>>,
    {
        Ok(self.call_counted(what, call).await?.0)
    }

    /// As [`Self::call`], and whether an answer was lost before.
    async fn call_counted<T, F>(
        &self,
        what: &str,
        call: impl Fn(WorkflowServiceClient<Channel>) -> F,
    ) -> Result<(T, bool)>
    where
        F: Future<Output = Result<T, tonic::Status>>,
    {
        let end = Instant::now() + DRAIN;
        let mut turn = 0;
        loop {
            let url = self.urls.get(turn % self.urls.len()).context("a url")?;
            turn += 1;
            let error = match WorkflowServiceClient::connect(url.clone()).await {
                Ok(client) => match call(client.max_decoding_message_size(64 << 20)).await {
                    Ok(answer) => return Ok((answer, turn > 1)),
                    Err(status) if is_passing(&status) => status.to_string(),
                    Err(status) => anyhow::bail!("{what}: {status}"),
                },
                Err(error) => error.to_string(),
            };
            ensure!(Instant::now() < end, "{what}: {error}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn get(&self, workflow_id: &str) -> Result<wire::Workflow> {
        let request = wire::GetWorkflowRequest {
            workflow_id: workflow_id.into(),
            include_results: true,
            ..wire::GetWorkflowRequest::default()
        };
        let answer = self
            .call("get", |mut client| {
                let request = request.clone();
                async move { client.get_workflow(request).await }
            })
            .await?;
        answer.into_inner().workflow.context("a workflow")
    }
}

/// Whether asking again may help: the call is idempotent, whatever became of it.
fn is_passing(status: &tonic::Status) -> bool {
    use tonic::Code;
    matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled
    )
}

/// Completes tasks that agents have acked once more; answers how many were completed by that, and
/// how many may have been, whose first answer was lost.
async fn echo(service: Service, log: Log, seed: u64) -> Result<(u64, u64)> {
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut seen, mut completed, mut perhaps) = (0, 0, 0);
    loop {
        let new: Vec<(String, String)> = {
            let log = log.lock();
            let new = log.iter().skip(seen).filter_map(|saw| match saw {
                Saw::Done { task } => Some(task.clone()),
                Saw::Begin { .. } => None,
            });
            let new = new.collect();
            seen = log.len();
            new
        };
        if new.iter().any(|(workflow, _)| workflow.is_empty()) {
            return Ok((completed, perhaps));
        }
        for (workflow_id, task_id) in new {
            if rng.random_range(0..10) > 0 {
                continue;
            }
            let request = wire::SignalTaskCompletionRequest {
                result: result_of(&task_id),
                workflow_id,
                task_id,
                ..wire::SignalTaskCompletionRequest::default()
            };
            // A gateway asks another router by itself where one is gone, so an answer `already` to
            // a call during a kill may be the second one.
            let (answer, is_second) = service
                .call_counted("signal", |mut client| {
                    let request = request.clone();
                    async move { client.signal_task_completion(request).await }
                })
                .await?;
            if !answer.into_inner().already {
                completed += 1;
            } else if is_second {
                perhaps += 1;
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_schedule_of_kills_starts_a_step_early_or_twice_or_never() -> Result<()> {
    let plan = Plan::read()?;
    let mut seeded = rng::seeded("workflows");
    let redis = RedisServer::builder().aof(Aof::Always);
    let mut world = World::start(redis, 2, 1).await?;
    for _ in 0..2 {
        world.add_router().await?;
    }
    for kind in KINDS {
        world
            .group_of(&format!("{kind}_consumers"), kind, settings(LEASE, GRACE))
            .await?;
    }
    let log = Log::default();
    let mut agents: Vec<Agent> = Vec::new();
    for number in 0..KINDS.len() * AGENTS {
        let group = format!("{}_consumers", KINDS[number % KINDS.len()]);
        let client = world.client(number % 2)?;
        let id = format!("agent-{number}");
        agents.push(Agent::start(
            client,
            &group,
            &id,
            &log,
            seeded.seed + number as u64,
        ));
    }
    let service = Service {
        urls: world.service_urls(),
    };
    #[expect(clippy::disallowed_methods, reason = "a test has no chassis")]
    let echoing = tokio::spawn(echo(service.clone(), Arc::clone(&log), seeded.seed));
    let mut specs = BTreeMap::new();
    for number in 0..plan.workflows {
        let spec = random_workflow(&mut seeded.rng, number);
        specs.insert(spec.workflow_id.clone(), spec);
    }
    let started = Instant::now();
    let submitting = {
        let (service, specs) = (service.clone(), specs.clone());
        #[expect(clippy::disallowed_methods, reason = "a test has no chassis")]
        tokio::spawn(async move {
            for spec in specs.into_values() {
                let request = wire::SubmitWorkflowRequest {
                    workflow: Some(spec),
                };
                service
                    .call("submit", |mut client| {
                        let request = request.clone();
                        async move { client.submit_workflow(request).await }
                    })
                    .await?;
            }
            anyhow::Ok(())
        })
    };
    for kill in 0..plan.kills {
        let next = started + Duration::from_millis(1_200 * (kill + 1));
        sleep_until(next).await;
        let victim = match (kill, seeded.rng.random_range(0..10)) {
            (0, _) | (_, 0..4) => Victim::Router(seeded.rng.random_range(0..2)),
            (1, _) | (_, 4..6) => Victim::Gateway(seeded.rng.random_range(0..2)),
            (2, _) | (_, 6) => Victim::Redis,
            (_, 7) => Victim::Coordinator(0),
            _ => {
                let number = seeded.rng.random_range(0..agents.len());
                let agent = agents.remove(number);
                agent.kill();
                let seed = seeded.seed ^ kill;
                let again = Agent::start(agent.client, &agent.group, &agent.id, &log, seed);
                agents.insert(number, again);
                continue;
            },
        };
        world.kill(victim)?;
        sleep(Duration::from_millis(seeded.rng.random_range(0..800))).await;
        world.revive(victim).await?;
    }
    submitting.await??;
    let verdict = verdict(&service, &specs, &log, echoing).await;
    for agent in &agents {
        agent.kill();
    }
    let figures = verdict?;
    world.needed_no_repair().await?;
    let acked = world
        .acked(&KINDS.map(|kind| format!("{kind}_consumers")))
        .await?;
    let (fewest, most) = (acked + figures.completed, figures.perhaps);
    ensure!(
        fewest <= figures.tasks && figures.tasks <= fewest + most + plan.kills,
        "{acked} acks, {figures:?}"
    );
    tell(plan, &figures, started.elapsed());
    Ok(())
}

impl World {
    /// Audits found nothing: a task that they repair has waited for half a minute.
    async fn needed_no_repair(&self) -> Result<()> {
        for router in &self.routers {
            let page = page(router, "/metrics").await?;
            let repairs: Vec<&str> = page
                .lines()
                .filter(|line| line.starts_with("hive_workflow_repairs_total{"))
                .collect();
            ensure!(!repairs.is_empty(), "no such metric: {page}");
            let none = repairs.iter().all(|line| line.ends_with(" 0"));
            ensure!(none, "an audit repaired something: {repairs:#?}");
        }
        Ok(())
    }
}

/// What the run came to.
#[derive(Debug)]
struct Figures {
    tasks: u64,
    begun: u64,
    completed: u64,
    perhaps: u64,
}

/// Waits for the end of every run and judges it.
async fn verdict(
    service: &Service,
    specs: &BTreeMap<String, wire::WorkflowSpec>,
    log: &Log,
    echoing: JoinHandle<Result<(u64, u64)>>,
) -> Result<Figures> {
    let end = Instant::now() + DRAIN;
    let mut runs = BTreeMap::new();
    for workflow_id in specs.keys() {
        loop {
            let run = service.get(workflow_id).await?;
            if run.state() == wire::WorkflowState::Succeeded {
                runs.insert(workflow_id.clone(), run);
                break;
            }
            ensure!(Instant::now() < end, "it is stuck: {run:#?}");
            sleep(Duration::from_millis(50)).await;
        }
    }
    let over = (String::new(), String::new());
    log.lock().push(Saw::Done { task: over });
    let (completed, perhaps) = echoing.await??;
    let mut done: BTreeSet<(String, String)> = BTreeSet::new();
    let mut begun = 0;
    for saw in log.lock().iter() {
        match saw {
            Saw::Done { task } => {
                done.insert(task.clone());
            },
            Saw::Begin {
                task,
                attempt,
                delivery,
            } => {
                begun += 1;
                let (workflow, id) = task;
                let spec = specs.get(workflow).context("a workflow of ours")?;
                let asked = spec.tasks.iter().find(|task| task.id == *id);
                for need in &asked.context("a task of it")?.dependencies {
                    let need = (workflow.clone(), need.clone());
                    ensure!(
                        done.contains(&need),
                        "{task:?} began before {need:?} was done"
                    );
                }
                let run = runs.get(workflow).context("a run")?;
                let shown = run.tasks.iter().find(|task| task.id == *id);
                let shown = shown.context("a task")?;
                ensure!(
                    *attempt == 1 && shown.attempt == 1,
                    "{task:?} was dispatched twice: {shown:?}"
                );
                // A signal may complete a task before its router has heard that it started: then it
                // never learns how often it was delivered.
                let is_known = shown.started_at.is_some();
                ensure!(
                    !is_known || *delivery <= u64::from(shown.deliveries),
                    "{task:?} was delivered again after it was done: {delivery}, {shown:?}"
                );
            },
        }
    }
    let mut tasks = 0;
    for run in runs.values() {
        for task in &run.tasks {
            tasks += 1;
            ensure!(task.state() == wire::TaskState::Succeeded, "{task:?}");
            ensure!(task.result == result_of(&task.id), "{task:?}");
        }
    }
    Ok(Figures {
        tasks,
        begun,
        completed,
        perhaps,
    })
}

#[expect(
    clippy::print_stderr,
    reason = "figures of a run belong beside its seed"
)]
fn tell(plan: Plan, figures: &Figures, took: Duration) {
    let Figures {
        tasks,
        begun,
        completed,
        ..
    } = figures;
    eprintln!(
        "workflows of {plan:?}: {tasks} tasks, begun {begun} times, {completed} completed again, \
         in {took:?}: 0 early, 0 double, 0 stuck"
    );
}
