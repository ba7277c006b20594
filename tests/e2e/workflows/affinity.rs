//! `workflow_aware`: tasks of a run go to the agent that last worked on it, over two gateways, and
//! to others where it has no room or is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use hive_client::{Job, Outcome, wire};
use hive_testkit::redis::Aof;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use wire::{TaskState, WorkflowState};

use super::flow::{Flow, task, workflow};
use crate::fleet::Agent;

const GROUP: &str = "aware";
/// A held task is anybody's after 2 s; the rest is for a machine that has other things to do.
const ABOUT_TWO_SECONDS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1_900)..=Duration::from_millis(3_500);

/// Which agent got which task: (run, task, agent), in their order.
#[derive(Clone, Default)]
struct By(Arc<Mutex<Vec<[String; 3]>>>);

impl By {
    fn agents_of(&self, run: &str) -> BTreeSet<String> {
        let all = self.0.lock();
        let of_run = all.iter().filter(|[of, ..]| of == run);
        of_run.map(|[.., agent]| agent.clone()).collect()
    }

    fn who(&self, task: &str) -> Vec<String> {
        let all = self.0.lock();
        let of_task = all.iter().filter(|[_, of, _]| of == task);
        of_task.map(|[.., agent]| agent.clone()).collect()
    }

    fn counts(&self) -> BTreeMap<[String; 2], usize> {
        let mut counts = BTreeMap::new();
        for [run, task, _] in self.0.lock().iter() {
            *counts.entry([run.clone(), task.clone()]).or_default() += 1;
        }
        counts
    }
}

/// Two gateways, a router, and a group of this mode.
async fn started() -> Result<Flow> {
    let flow = Flow::start(Aof::Off, 2, 1).await?;
    let settings = wire::GroupSettings {
        routing_mode: wire::RoutingMode::WorkflowAware.into(),
        ..wire::GroupSettings::default()
    };
    flow.fleet.group(GROUP, settings).await?;
    Ok(flow)
}

/// An agent that acks at once, but for the task `long`, which waits for the gate.
fn agent(flow: &Flow, at: usize, id: &'static str, room: u32, by: &By, gate: &Gate) -> Agent {
    let (by, gate) = (by.clone(), gate.0.clone());
    let work = move |job: Job| {
        let (by, gate) = (by.clone(), gate.clone());
        async move {
            let message = &job.message;
            let row = [&message.run_id, &message.task_id, id].map(str::to_owned);
            by.0.lock().push(row);
            if message.task_id == "long" {
                drop(gate.acquire().await);
            }
            Outcome::ack("1")
        }
    };
    let client = flow.fleet.client(at).expect("the gateways have addresses");
    Agent::working(client, GROUP, id, work, |builder| {
        builder.concurrency(room).max_in_flight(room)
    })
}

struct Gate(Arc<Semaphore>);

impl Gate {
    fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    fn open(&self) {
        self.0.add_permits(Semaphore::MAX_PERMITS);
    }
}

fn here(id: &str, dependencies: &[&str]) -> wire::TaskSpec {
    wire::TaskSpec {
        group: GROUP.into(),
        ..task(id, "", dependencies)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_run_stays_with_one_agent_of_two_gateways_while_that_has_room() -> Result<()> {
    const RUNS: usize = 8;
    const TASKS: usize = 6;
    let flow = started().await?;
    let (by, gate) = (By::default(), Gate::new());
    let agents = [
        agent(&flow, 0, "near", 20, &by, &gate),
        agent(&flow, 1, "far", 20, &by, &gate),
    ];
    flow.fleet.members(GROUP, agents.len()).await?;
    let mut runs = Vec::new();
    let began = Instant::now();
    for run in 0..RUNS {
        let ids: Vec<String> = (0..TASKS).map(|at| format!("t{at}")).collect();
        let chain = ids.iter().enumerate().map(|(at, id)| {
            let before: Vec<&str> = at.checked_sub(1).map(|at| &*ids[at]).into_iter().collect();
            here(id, &before)
        });
        let spec = workflow(&format!("chain-{run}"), chain.collect());
        runs.push(flow.submit(spec).await?.run_id);
    }
    for run in 0..RUNS {
        flow.becomes(&format!("chain-{run}"), WorkflowState::Succeeded)
            .await?;
    }
    let all = began.elapsed();
    for run in &runs {
        let agents = by.agents_of(run);
        assert_eq!(agents.len(), 1, "run {run} was worked on by {agents:?}");
    }
    let counts = by.counts();
    assert_eq!(counts.len(), RUNS * TASKS, "none is lost");
    assert!(counts.values().all(|count| *count == 1), "none is doubled");
    // Where each step waited for its time to be over it would be ten.
    assert!(all < Duration::from_secs(8), "{all:?}");
    let figures = flow.fleet.drained(GROUP).await?;
    assert_eq!(figures.redelivered_total, 0);
    for agent in agents {
        agent.stop().await?;
    }
    Ok(())
}

/// A run whose task `first` was done by `near`, which has room for one, and whose task `second`
/// waits for a signal to `gate`; then `far` comes, at the other gateway.
async fn two_steps(flow: &Flow, by: &By, gate: &Gate, is_busy: bool) -> Result<[Agent; 2]> {
    let near = agent(flow, 0, "near", 1, by, gate);
    flow.fleet.members(GROUP, 1).await?;
    let mut by_signal = task("gate", "architecture", &[]);
    by_signal.set_completion(wire::TaskCompletion::Signal);
    let steps = vec![
        here("first", &[]),
        by_signal,
        here("second", &["first", "gate"]),
    ];
    flow.submit(workflow("steps", steps)).await?;
    flow.task_becomes("steps", "first", TaskState::Succeeded)
        .await?;
    if is_busy {
        let long = workflow("busy", vec![here("long", &[])]);
        flow.submit(long).await?;
        flow.task_becomes("busy", "long", TaskState::Running)
            .await?;
    }
    let far = agent(flow, 1, "far", 1, by, gate);
    flow.fleet.members(GROUP, 2).await?;
    Ok([near, far])
}

/// Lets the task `second` begin.
async fn signal(flow: &Flow) -> Result<Instant> {
    let signal = wire::SignalTaskCompletionRequest {
        workflow_id: "steps".into(),
        task_id: "gate".into(),
        result: "1".into(),
        ..wire::SignalTaskCompletionRequest::default()
    };
    flow.service().await?.signal_task_completion(signal).await?;
    Ok(Instant::now())
}

/// How long after this the run was over, and that each task was done once.
async fn over(flow: &Flow, by: &By, began: Instant) -> Result<Duration> {
    flow.becomes("steps", WorkflowState::Succeeded).await?;
    let took = began.elapsed();
    let counts = by.counts();
    ensure!(counts.values().all(|count| *count == 1), "{counts:?}");
    Ok(took)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_agent_is_busy_goes_to_another_after_two_seconds() -> Result<()> {
    let mut flow = started().await?;
    let (by, gate) = (By::default(), Gate::new());
    let agents = two_steps(&flow, &by, &gate, true).await?;
    // The gateways see to it alone.
    for coordinator in &mut flow.fleet.coordinators {
        coordinator.kill9()?;
    }
    let began = signal(&flow).await?;
    let took = over(&flow, &by, began).await?;
    assert_eq!(by.who("second"), ["far"]);
    assert!(ABOUT_TWO_SECONDS.contains(&took), "{took:?}");
    gate.open();
    flow.becomes("busy", WorkflowState::Succeeded).await?;
    for agent in agents {
        agent.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_waits_for_its_agent_that_has_room_again_in_time() -> Result<()> {
    let flow = started().await?;
    let (by, gate) = (By::default(), Gate::new());
    let agents = two_steps(&flow, &by, &gate, true).await?;
    let began = signal(&flow).await?;
    flow.task_becomes("steps", "second", TaskState::Queued)
        .await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(
        by.who("second"),
        Vec::<String>::new(),
        "the other one is idle"
    );
    gate.open();
    let took = over(&flow, &by, began).await?;
    assert_eq!(by.who("second"), ["near"]);
    assert!(took < *ABOUT_TWO_SECONDS.start(), "{took:?}");
    for agent in agents {
        agent.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_agent_died_goes_to_another_within_about_two_seconds() -> Result<()> {
    let mut flow = started().await?;
    let (by, gate) = (By::default(), Gate::new());
    let [near, far] = two_steps(&flow, &by, &gate, false).await?;
    // With its gateway, so that nobody there is left to say so.
    near.task.abort();
    let gateway = flow.fleet.gateways.first_mut().context("a gateway")?;
    gateway.kill9()?;
    let mut service = wire::workflow_service_client::WorkflowServiceClient::connect(
        flow.fleet.gateways.last().context("a gateway")?.url(),
    )
    .await?;
    let signal = wire::SignalTaskCompletionRequest {
        workflow_id: "steps".into(),
        task_id: "gate".into(),
        result: "1".into(),
        ..wire::SignalTaskCompletionRequest::default()
    };
    service.signal_task_completion(signal).await?;
    let began = Instant::now();
    while by.who("second").is_empty() {
        ensure!(began.elapsed() < *ABOUT_TWO_SECONDS.end(), "nobody has it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(by.who("second"), ["far"]);
    far.stop().await?;
    Ok(())
}
