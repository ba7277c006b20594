//! Takes what shards say of attempts and applies it to their runs.
//!
//! A shard's records are read in their order behind a position that is stored with them, and the
//! position moves on when all of them are applied: whoever reads them after a crash applies some
//! again, which changes nothing. The position that is stored counts: one that is remembered may be
//! ahead of it, where Redis lost the end of its log. Records of one run are applied in one step.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use hive_domain::workflow::{
    Event, Illegal, Limits, Outcome, TaskIndex, TaskStatus,
    run::{Entry, Refused},
};
use hive_protocol::{limits::PAYLOAD_BYTES_MAX, outcome::cut_reason, wire, workflow};
use hive_store::{
    StoreError,
    keys::Shard,
    tasks::{SettledRecord, SettledWhat, TaskOutcome},
};
use prost::Message as _;
use tokio::sync::Notify;

use crate::{
    desk::{Desk, Draft, StepError},
    metrics,
    names::{DispatchKey, RunName},
    taken_back::TAKEN_BACK,
};

/// Records read at once.
const RECORDS: usize = 500;
/// Runs that take their records at once.
const RUNS_AT_ONCE: usize = 32;
/// A shard without a bell is looked at again after so long.
const POLL: Duration = Duration::from_secs(1);
/// Pause after Redis did not answer.
const PAUSE: Duration = Duration::from_millis(200);
/// Records are kept for so long after they were applied: a router that stalled may still ask for
/// what they decided.
const KEEP_MS: u64 = 600_000;

/// Follows one shard until the future is dropped.
pub(crate) async fn follow(desk: Arc<Desk>, namespace: Arc<str>, shard: Shard, bell: Arc<Notify>) {
    let mut position = None;
    loop {
        // Before the look: a bell that rings during it must not be missed.
        let rung = bell.notified();
        match advance(&desk, &namespace, &shard, &mut position).await {
            Ok(true) => continue,
            Ok(false) => {},
            Err(error) => {
                metrics::round_failed(metrics::Loop::Settled);
                tracing::debug!(%error, "settled_not_applied");
                position = None;
                tokio::time::sleep(PAUSE).await;
                continue;
            },
        }
        // The time of a poll is not more exact than that of Redis.
        let _either = tokio::time::timeout(POLL, rung).await;
    }
}

/// Applies the next records; answers whether there may be more.
async fn advance(
    desk: &Arc<Desk>,
    namespace: &Arc<str>,
    shard: &Shard,
    position: &mut Option<String>,
) -> Result<bool, StoreError> {
    let after = match position.take() {
        Some(after) => after,
        None => desk.store.settled_applied(shard).await?,
    };
    let records = desk.store.read_settled(shard, &after, RECORDS).await?;
    let Some(last) = records.last().map(|record| record.id.clone()) else {
        *position = Some(after);
        return Ok(false);
    };
    let mut runs: BTreeMap<String, Vec<(DispatchKey, SettledWhat)>> = BTreeMap::new();
    for SettledRecord {
        dispatch_key, what, ..
    } in records
    {
        match DispatchKey::parse(&dispatch_key) {
            Some(key) => runs
                .entry(key.run_id.clone())
                .or_default()
                .push((key, what)),
            None => {
                metrics::undecodable();
                tracing::error!(dispatch_key, "dispatch_key_does_not_decode");
            },
        }
    }
    let mut steps = stream::iter(runs)
        .map(|(run_id, records)| {
            let name = RunName::new(namespace, &run_id);
            async move { apply(desk, &name, records).await }
        })
        .buffer_unordered(RUNS_AT_ONCE);
    while let Some(applied) = steps.next().await {
        applied?;
    }
    // Redis may have come back with less than it had: what it noted then is where to read on, and
    // steps of runs behind that are gone too. The position is dropped.
    if desk.store.advance_settled(shard, &after, &last).await? {
        *position = Some(last);
    }
    // A read ends early where records are large.
    Ok(true)
}

/// Forgets what was applied long ago.
pub(crate) async fn trim(desk: &Desk, shard: &Shard) -> Result<u64, StoreError> {
    desk.store.trim_settled(shard, KEEP_MS, 0).await
}

/// Applies records of one run in one step. Those of a run that is gone, of another attempt or that
/// came before change nothing, and are counted.
async fn apply(
    desk: &Arc<Desk>,
    name: &RunName,
    records: Vec<(DispatchKey, SettledWhat)>,
) -> Result<(), StoreError> {
    let step = desk
        .step(name, |draft| {
            for (key, what) in &records {
                if let Err(illegal) = take(draft, key, what) {
                    metrics::illegal_event(&illegal);
                }
            }
            Ok::<(), std::convert::Infallible>(())
        })
        .await;
    match step {
        Ok(Ok(())) => Ok(()),
        Err(StepError::Gone) => {
            metrics::unknown_run(records.len());
            Ok(())
        },
        Err(StepError::Undecodable(error)) => {
            metrics::undecodable();
            tracing::error!(run_id = &*name.run_id, %error, "run_does_not_decode");
            Ok(())
        },
        Err(StepError::Contended) => Err(StoreError::Unavailable {
            detail: StepError::Contended.to_string(),
        }),
        Err(StepError::Store(error)) => Err(error),
    }
}

/// Takes one record.
pub(crate) fn take(
    draft: &mut Draft<'_>,
    key: &DispatchKey,
    what: &SettledWhat,
) -> Result<(), Illegal> {
    let (task, attempt) = (key.task, key.attempt);
    match what {
        SettledWhat::Started {
            consumer,
            deliveries,
        } => {
            let seen = |draft: &Draft<'_>| {
                let state = draft.run().task(task);
                state.map(|state| (state.status, state.deliveries))
            };
            let before = seen(draft);
            draft.apply(Event::Started {
                task,
                attempt,
                consumer: consumer.clone(),
                deliveries: u32::try_from(*deliveries).unwrap_or(u32::MAX),
            })?;
            // To the run it is the same; to whoever watches, another agent has it now.
            let is_again = before.is_some_and(|(status, _)| status == TaskStatus::Running);
            if is_again && before != seen(draft) {
                draft.record(
                    task,
                    Entry::Became {
                        status: TaskStatus::Running,
                        attempt,
                        reason: format!("delivery {deliveries}"),
                    },
                );
            }
            Ok(())
        },
        SettledWhat::Ended { outcome, detail } => ended(draft, task, attempt, *outcome, detail),
    }
}

/// Takes the outcome of an attempt, with what came with it.
pub(crate) fn ended(
    draft: &mut Draft<'_>,
    task: TaskIndex,
    attempt: u32,
    outcome: TaskOutcome,
    detail: &Bytes,
) -> Result<(), Illegal> {
    let is_open = draft.run().task(task).is_some_and(|state| {
        state.attempt == attempt && matches!(state.status, TaskStatus::Queued | TaskStatus::Running)
    });
    let words = || cut_reason(String::from_utf8_lossy(detail).into_owned());
    let mut keep = None;
    let outcome = match outcome {
        TaskOutcome::Succeeded => {
            let ack = wire::Ack::decode(detail.clone()).unwrap_or_default();
            // Only of an attempt that counts: an old one adds nothing.
            let added = if is_open && !ack.add_tasks.is_empty() {
                add_tasks(draft, ack.add_tasks)
            } else {
                Ok(())
            };
            match added {
                Ok(()) => {
                    let has_result = !ack.result.is_empty();
                    keep = Some(ack.result);
                    Outcome::Succeeded { has_result }
                },
                Err(reason) => Outcome::Failed {
                    reason: cut_reason(format!("invalid_add_tasks: {reason}")),
                },
            }
        },
        TaskOutcome::Failed => Outcome::Failed { reason: words() },
        TaskOutcome::DeadLettered => Outcome::DeadLettered { reason: words() },
        TaskOutcome::TimedOut => Outcome::TimedOut,
        TaskOutcome::Cancelled if detail == TAKEN_BACK => Outcome::Unsent { reason: words() },
        TaskOutcome::Cancelled => Outcome::Cancelled { reason: words() },
        TaskOutcome::Suspended => {
            let asked = wire::Suspend::decode(detail.clone()).unwrap_or_default();
            if is_open {
                let answer = wire::Resumption {
                    prompt: asked.prompt.clone(),
                    state: asked.state,
                    input: Bytes::new(),
                };
                draft.put_answer(task, answer.encode_to_vec().into());
            }
            Outcome::Suspended {
                prompt: asked.prompt,
            }
        },
    };
    draft.apply(Event::Settled {
        task,
        attempt,
        outcome,
    })?;
    if let Some(result) = keep {
        draft.put_result(task, result);
    }
    Ok(())
}

/// Adds the tasks that an agent planned; all of them or none.
fn add_tasks(draft: &mut Draft<'_>, specs: Vec<wire::TaskSpec>) -> Result<(), String> {
    let workflow_id = draft.run().definition().workflow_id.clone();
    let read = workflow::read_tasks(specs, &workflow_id, "add_tasks", PAYLOAD_BYTES_MAX);
    let added = read
        .map_err(|faults| faults.to_string())?
        .into_iter()
        .map(|task| (task.definition, Bytes::from(task.content.encode_to_vec())))
        .collect();
    draft
        .add_tasks(added, &Limits::default())
        .map_err(|refused| match refused {
            Refused::Illegal(illegal) => illegal.to_string(),
            Refused::Invalid(faults) => faults.to_string(),
        })
}
