//! Many runs that are over: what they cost in memory, and whether looking stays fast among them.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use hive_client::{Client, wire};
use rand::Rng as _;
use serde::Serialize;

use super::{KIND, Quantiles, quantiles};
use crate::{connection::refused, output::progress};

/// Tasks of each stored run.
const TASKS: u32 = 2;
/// Submits under way at once.
const SUBMITS: usize = 64;
/// Looks of each kind.
const LOOKS: u32 = 500;

/// What was measured among stored runs.
#[derive(Debug, Serialize)]
pub(super) struct Stored {
    pub(super) runs: u32,
    pub(super) tasks: u32,
    /// Memory of Redis for a task, with its share of its run, in bytes.
    pub(super) bytes_per_task: Option<f64>,
    pub(super) list_ms: Quantiles,
    pub(super) get_ms: Quantiles,
    pub(super) watch_ms: Quantiles,
}

/// Runs so many workflows to their end, then looks at them.
pub(super) async fn measure(
    client: &Client,
    runs: u32,
    redis_url: Option<&str>,
) -> anyhow::Result<Stored> {
    let before = memory(redis_url).await?;
    let bar = progress(u64::from(runs), "stored runs");
    stream::iter(0..runs)
        .map(|number| {
            let bar = &bar;
            async move {
                client
                    .submit_workflow(workflow(number))
                    .await
                    .map_err(refused)?;
                bar.inc(1);
                anyhow::Ok(())
            }
        })
        .buffer_unordered(SUBMITS)
        .try_collect::<()>()
        .await?;
    super::until_none_runs(client, Duration::from_secs(600)).await?;
    bar.finish_and_clear();
    let after = memory(redis_url).await?;
    let tasks = runs.saturating_mul(TASKS);
    #[expect(clippy::cast_precision_loss, reason = "bytes far below 2^53")]
    let bytes_per_task = before
        .zip(after)
        .map(|(before, after)| after.saturating_sub(before) as f64 / f64::from(tasks));
    let (mut lists, mut gets, mut watches) = (Vec::new(), Vec::new(), Vec::new());
    for look in 0..LOOKS {
        let state = if look % 2 == 0 {
            wire::WorkflowState::Unspecified
        } else {
            wire::WorkflowState::Succeeded
        };
        let request = wire::ListWorkflowsRequest {
            state: state.into(),
            ..wire::ListWorkflowsRequest::default()
        };
        let began = Instant::now();
        client.list_workflows(request).await.map_err(refused)?;
        lists.push(began.elapsed());
        let workflow_id = name(rand::rng().random_range(0..runs));
        let request = wire::GetWorkflowRequest {
            workflow_id: workflow_id.clone(),
            include_results: true,
            ..wire::GetWorkflowRequest::default()
        };
        let began = Instant::now();
        client.get_workflow(request).await.map_err(refused)?;
        gets.push(began.elapsed());
        let began = Instant::now();
        let mut watch = client.watch_workflow(&workflow_id);
        watch.next().await.map_err(refused)?;
        watches.push(began.elapsed());
    }
    Ok(Stored {
        runs,
        tasks,
        bytes_per_task,
        list_ms: quantiles(&lists)?,
        get_ms: quantiles(&gets)?,
        watch_ms: quantiles(&watches)?,
    })
}

fn name(number: u32) -> String {
    format!("stored-{number}")
}

fn workflow(number: u32) -> wire::WorkflowSpec {
    let task = |id: &str, dependencies: &[&str]| wire::TaskSpec {
        id: id.to_owned(),
        r#type: KIND.to_owned(),
        dependencies: dependencies.iter().map(|id| (*id).to_owned()).collect(),
        payload: "{\"number\":1}".into(),
        ..wire::TaskSpec::default()
    };
    wire::WorkflowSpec {
        workflow_id: name(number),
        tasks: vec![task("first", &[]), task("second", &["first"])],
        ..wire::WorkflowSpec::default()
    }
}

/// Memory that Redis uses, in bytes.
async fn memory(redis_url: Option<&str>) -> anyhow::Result<Option<u64>> {
    let Some(url) = redis_url else {
        return Ok(None);
    };
    Ok(Some(hive_store::ceiling::redis_memory(url).await?))
}

impl Stored {
    /// The figures for a person.
    pub(super) fn text(&self) -> String {
        let of = |name: &str, it: &Quantiles| {
            format!("{name}: p50 {:.2} ms, p99 {:.2} ms", it.p50, it.p99)
        };
        let bytes = self
            .bytes_per_task
            .map_or_else(|| "-".to_owned(), |bytes| format!("{bytes:.0}"));
        format!(
            "{} runs of {TASKS} tasks stored, {bytes} bytes of Redis a task\n{}\n{}\n{}",
            self.runs,
            of("list", &self.list_ms),
            of("get", &self.get_ms),
            of("watch, to its first frame", &self.watch_ms),
        )
    }
}
