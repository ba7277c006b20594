//! Proves that runs move, and moves those that cannot: the reconciler and the auditor.
//!
//! An attempt without news for longer than a lease is looked up at its shard. One that the shard
//! does not know, because it lost data, is dispatched again under the same key; one whose start or
//! outcome no router applied gets it. A run that goes on and waits for nothing is a fault of this
//! system: it is counted, and pushed. The limit of adaptive runs is moved on the same round.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use hive_domain::{
    placement,
    workflow::{Event, Illegal, Outcome, RunStatus, TaskIndex, TaskStatus},
};
use hive_store::tasks::{SettledWhat, TaskRow};
use tokio::sync::watch;

use crate::{
    desk::{Desk, Draft, StepError},
    metrics::{self, Loop, Repair},
    names::{DispatchKey, RunName, dispatch_key},
    outbox::Order,
    rounds::{Owned, every},
    settled,
    stored::{Loaded, Target},
};

/// Pause between two rounds.
const ROUND: Duration = Duration::from_secs(2);
/// Runs of a namespace that one round looks at.
const RUNS: usize = 200;
/// An attempt without news for so long is looked up at its shard: the lease of most groups.
const SILENT: Duration = Duration::from_secs(30);
/// Attempts that are remembered between rounds; more are looked up later.
const REMEMBERED: usize = 200_000;

/// What was last seen of an attempt, and since when.
type Seen = BTreeMap<(RunName, TaskIndex), (u32, u32, TaskStatus, Instant)>;

/// What the rounds remember.
#[derive(Debug, Default)]
struct Memory {
    seen: Seen,
    /// Where the next round goes on, by namespace and status.
    cursors: BTreeMap<(Arc<str>, RunStatus), (u64, String)>,
    /// Tasks that succeeded and failed when the limit of a run was last moved.
    outcomes: BTreeMap<RunName, (u32, u32)>,
}

/// Looks at runs until the future is dropped.
pub(crate) async fn run(desk: &Arc<Desk>, owned: &watch::Receiver<Owned>) {
    let memory = tokio::sync::Mutex::new(Memory::default());
    every(ROUND, Loop::Audit, || async {
        let owned = owned.borrow().clone();
        let mut memory = memory.lock().await;
        if memory.seen.len() > REMEMBERED {
            memory.seen.clear();
        }
        for (namespace, numbers) in owned.partitions {
            // What runs goes on in a paused run too.
            for status in [RunStatus::Running, RunStatus::Paused] {
                audit(desk, &mut memory, &namespace, &numbers, status).await?;
            }
        }
        Ok(())
    })
    .await;
}

/// Looks at the next runs of a namespace.
async fn audit(
    desk: &Arc<Desk>,
    memory: &mut Memory,
    namespace: &Arc<str>,
    numbers: &[u32],
    status: RunStatus,
) -> Result<(), StepError> {
    let here: Vec<_> = numbers
        .iter()
        .map(|number| desk.store.partition(namespace, *number))
        .collect();
    if here.is_empty() {
        return Ok(());
    }
    let newest = || (u64::MAX >> 11, String::new());
    let place = (Arc::clone(namespace), status);
    let seen = memory.cursors.get(&place).cloned();
    let (before, id) = seen.unwrap_or_else(newest);
    let page = desk
        .store
        .list_runs(&here, Some(status.as_str()), 0, (before, &id), RUNS)
        .await?;
    let next = page.last.filter(|_| !page.is_end);
    memory.cursors.insert(place, next.unwrap_or_else(newest));
    for one in page.runs {
        let name = RunName::new(namespace, &one.run_id);
        match audit_run(desk, memory, &name).await {
            Ok(()) | Err(StepError::Gone) => {},
            Err(StepError::Undecodable(error)) => {
                metrics::undecodable();
                tracing::error!(run_id = &*name.run_id, %error, "run_does_not_decode");
            },
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What one look at a run finds.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "three things that have nothing to do with each other"
)]
struct Found {
    /// Attempts at work: task, attempt, deliveries, status, where.
    open: Vec<(TaskIndex, u32, u32, TaskStatus, Option<Target>)>,
    is_stuck: bool,
    has_more: bool,
    is_adaptive: bool,
    limit: (u32, u32),
    outcomes: (u32, u32),
}

fn found(loaded: &Loaded) -> Found {
    let run = &loaded.run;
    let mut found = Found {
        open: Vec::new(),
        is_stuck: false,
        has_more: run.has_more(),
        is_adaptive: run.definition().strategy.is_adaptive(),
        limit: (
            run.head().parallel_limit,
            run.definition().max_parallel_tasks,
        ),
        outcomes: (0, 0),
    };
    for (task, state) in (0..).zip(run.tasks()) {
        match state.status {
            TaskStatus::Queued | TaskStatus::Running => found.open.push((
                task,
                state.attempt,
                state.deliveries,
                state.status,
                loaded.target(task).cloned(),
            )),
            TaskStatus::Succeeded => found.outcomes.0 += 1,
            TaskStatus::Failed | TaskStatus::TimedOut | TaskStatus::DeadLettered => {
                found.outcomes.1 += 1;
            },
            TaskStatus::Pending
            | TaskStatus::Awaited
            | TaskStatus::WaitingInput
            | TaskStatus::Skipped
            | TaskStatus::Cancelled => {},
        }
    }
    let waits_for_somebody = run.tasks().iter().any(|state| {
        matches!(state.status, TaskStatus::WaitingInput | TaskStatus::Awaited) || state.is_asked()
    });
    found.is_stuck = found.open.is_empty()
        && run.status() == RunStatus::Running
        && run.deadline().is_none()
        && !waits_for_somebody;
    found
}

async fn audit_run(desk: &Arc<Desk>, memory: &mut Memory, name: &RunName) -> Result<(), StepError> {
    let found = desk.look(name, found).await?;
    if found.is_stuck || found.has_more {
        if found.is_stuck {
            metrics::repaired(Repair::Stuck);
            tracing::error!(run_id = &*name.run_id, "run_waits_for_nothing");
        }
        // An empty step dispatches what may start.
        let nothing = |_: &mut Draft<'_>| Ok::<(), Illegal>(());
        let _written = desk.step(name, nothing).await?;
    }
    if found.is_adaptive {
        adapt(desk, memory, name, &found).await?;
    }
    for (task, attempt, deliveries, status, target) in found.open {
        let key = (name.clone(), task);
        let now = (attempt, deliveries, status);
        let since = match memory.seen.get(&key) {
            Some((a, d, s, since)) if (*a, *d, *s) == now => *since,
            Some(_) | None => {
                let seen = (attempt, deliveries, status, Instant::now());
                memory.seen.insert(key, seen);
                continue;
            },
        };
        if since.elapsed() > SILENT
            && let Some(target) = target
        {
            memory.seen.remove(&key);
            look_up(desk, name, (task, attempt, status), &target).await?;
        }
    }
    Ok(())
}

/// Asks the shard about an attempt without news.
async fn look_up(
    desk: &Arc<Desk>,
    name: &RunName,
    (task, attempt, status): (TaskIndex, u32, TaskStatus),
    target: &Target,
) -> Result<(), StepError> {
    let shard = desk.store.shard(&name.namespace, &target.stream, 0);
    let key = dispatch_key(&name.run_id, task, attempt);
    let asked = desk.now();
    match desk.store.look_up_task(&shard, &key).await? {
        TaskRow::Leased {
            consumer,
            deliveries,
        } if status == TaskStatus::Queued => {
            begun(desk, name, (task, attempt), (consumer, deliveries)).await
        },
        // Whoever it was: it was delivered.
        TaskRow::Acked if status == TaskStatus::Queued => {
            begun(desk, name, (task, attempt), (String::new(), 1)).await
        },
        TaskRow::Waiting | TaskRow::Leased { .. } | TaskRow::Acked => Ok(()),
        TaskRow::Unknown => {
            let facts = desk.placing.facts(&name.namespace).await?;
            if facts.is_gone(target) {
                if desk.take_back(name, &[(task, attempt)]).await? {
                    metrics::repaired(Repair::LostDispatch);
                    return Ok(());
                }
                let reason = format!("group `{}` is gone", target.group);
                let step = desk.step(name, |draft| {
                    let reason = reason.clone();
                    let outcome = Outcome::Failed { reason };
                    draft.apply(Event::Settled {
                        task,
                        attempt,
                        outcome,
                    })
                });
                if step.await?.is_ok() {
                    metrics::repaired(Repair::LostDispatch);
                    tracing::warn!(key, "attempt_of_a_group_that_is_gone_ended");
                }
                return Ok(());
            }
            let order = desk.look(name, |loaded| Order::again(loaded, task, attempt, asked));
            if let Some(order) = order.await? {
                metrics::repaired(Repair::LostDispatch);
                tracing::warn!(key, "dispatched_again");
                desk.carry_out(name, vec![order]).await;
            }
            Ok(())
        },
        TaskRow::Ended(_) => {
            // A record that is still to come is in the shard's stream too, and changes nothing.
            let Some(record) = desk.store.outcome_of_task(&shard, &key).await? else {
                return Ok(());
            };
            let SettledWhat::Ended { outcome, detail } = record.what else {
                return Ok(());
            };
            let step = desk.step(name, |draft| {
                settled::ended(draft, task, attempt, outcome, &detail)
            });
            if step.await?.is_ok() {
                metrics::repaired(Repair::LostOutcome);
                tracing::warn!(key, "outcome_applied_late");
            }
            Ok(())
        },
    }
}

/// Applies that an agent got an attempt: its `timeout` counts from here on.
async fn begun(
    desk: &Arc<Desk>,
    name: &RunName,
    (task, attempt): (TaskIndex, u32),
    (consumer, deliveries): (String, u64),
) -> Result<(), StepError> {
    let key = DispatchKey {
        run_id: name.run_id.to_string(),
        task,
        attempt,
    };
    let started = SettledWhat::Started {
        consumer,
        deliveries,
    };
    let step = desk.step(name, |draft| {
        let status = draft.run().task(task).map(|state| state.status);
        settled::take(draft, &key, &started)?;
        Ok::<_, Illegal>(status == Some(TaskStatus::Queued))
    });
    if step.await? == Ok(true) {
        metrics::repaired(Repair::LostStart);
        tracing::warn!(?key, "start_applied_late");
    }
    Ok(())
}

/// Moves the limit of a run whose strategy follows the load.
async fn adapt(
    desk: &Arc<Desk>,
    memory: &mut Memory,
    name: &RunName,
    found: &Found,
) -> Result<(), StepError> {
    let facts = desk.placing.facts(&name.namespace).await?;
    let mut groups: Vec<&str> = found
        .open
        .iter()
        .filter_map(|open| Some(open.4.as_ref()?.group.as_str()))
        .collect();
    groups.sort_unstable();
    groups.dedup();
    let before = memory
        .outcomes
        .insert(name.clone(), found.outcomes)
        .unwrap_or(found.outcomes);
    let mut load = facts.load(groups.into_iter());
    (load.limit, load.limit_max) = found.limit;
    load.at_work = u32::try_from(found.open.len()).unwrap_or(u32::MAX);
    load.succeeded = found.outcomes.0.saturating_sub(before.0);
    load.failed = found.outcomes.1.saturating_sub(before.1);
    let limit = placement::parallel_limit(&load);
    if limit != found.limit.0 {
        let _written = desk
            .step(name, |draft| draft.apply(Event::ParallelLimit(limit)))
            .await?;
    }
    if memory.outcomes.len() > REMEMBERED {
        memory.outcomes.clear();
    }
    Ok(())
}
