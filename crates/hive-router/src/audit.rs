//! Proves that runs move, and moves those that cannot: the reconciler and the auditor.
//!
//! An attempt without news for longer than a lease is looked up at its shard. One that the shard
//! does not know, because it lost data, is dispatched again under the same key; one whose start or
//! outcome no router applied gets it. A run that goes on and waits for nothing is a fault of this
//! system: it is counted, and pushed. The limit of adaptive runs is moved on the same round.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
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
/// Attempts that are remembered between rounds; others take the places of those that were looked up
/// or ended.
const REMEMBERED: usize = 200_000;
/// Attempts that one round looks up, some hundred us each.
const LOOK_UPS: usize = 2_000;

/// What the rounds remember.
#[derive(Debug, Default)]
struct Memory {
    seen: Seen,
    /// Where the next round goes on, by namespace and status.
    cursors: BTreeMap<(Arc<str>, RunStatus), Cursor>,
    /// Tasks that succeeded and failed when the limit of a run was last moved.
    outcomes: BTreeMap<RunName, (u32, u32)>,
}

/// Behind which run a list goes on, and in which lap over all of them.
type Cursor = ((u64, String), u64);

/// An open attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Open {
    task: TaskIndex,
    attempt: u32,
    deliveries: u32,
    status: TaskStatus,
    /// Where it was sent.
    target: Option<Target>,
}

/// What was last seen of an attempt, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sight {
    attempt: u32,
    deliveries: u32,
    status: TaskStatus,
    since: Instant,
}

/// What was last seen of a run.
#[derive(Debug)]
struct SeenRun {
    /// As which it was listed, and in which lap over those.
    status: RunStatus,
    lap: u64,
    tasks: BTreeMap<TaskIndex, Sight>,
}

/// What was last seen of attempts, bounded. Nobody who has a place loses it before it is looked up
/// or has ended, or the bound would keep all from ever being looked up; who finds none is seen for
/// the first time in a later lap.
#[derive(Debug, Default)]
struct Seen {
    runs: BTreeMap<RunName, SeenRun>,
    /// Attempts of all of them.
    attempts: usize,
}

impl Seen {
    /// Notes what is open of a run, up to `most` attempts of all runs; answers up to `look_ups` of
    /// them that have been without news for too long, those for longest first. They give up their
    /// places.
    fn silent(
        &mut self,
        name: &RunName,
        (status, lap): (RunStatus, u64),
        mut open: Vec<Open>,
        (most, look_ups): (usize, usize),
        now: Instant,
    ) -> Vec<Open> {
        // What this look frees is for those that come behind it, so that each has its turn.
        let room = most.saturating_sub(self.attempts);
        let before = self.forget(name);
        let (mut tasks, mut silent, mut new) = (BTreeMap::new(), Vec::new(), Vec::new());
        open.retain(|one| one.target.is_some());
        for one in open {
            let mut sight = Sight {
                attempt: one.attempt,
                deliveries: one.deliveries,
                status: one.status,
                since: now,
            };
            let Some(known) = before.get(&one.task) else {
                new.push((one.task, sight));
                continue;
            };
            let since = known.since;
            if *known == (Sight { since, ..sight }) {
                sight.since = since;
            }
            tasks.insert(one.task, sight);
            if now.saturating_duration_since(sight.since) > SILENT {
                silent.push((sight.since, one));
            }
        }
        silent.sort_by_key(|(since, _)| *since);
        silent.truncate(look_ups);
        for (_, one) in &silent {
            tasks.remove(&one.task);
        }
        if new.len() > room {
            // Others each time.
            new.sort_by_cached_key(|(task, _)| {
                let mut turn = DefaultHasher::new();
                (task, lap).hash(&mut turn);
                turn.finish()
            });
        }
        tasks.extend(new.into_iter().take(room));
        if !tasks.is_empty() {
            self.attempts += tasks.len();
            let run = SeenRun { status, lap, tasks };
            self.runs.insert(name.clone(), run);
        }
        silent.into_iter().map(|(_, one)| one).collect()
    }

    /// Forgets a run; answers what was seen of it.
    fn forget(&mut self, name: &RunName) -> BTreeMap<TaskIndex, Sight> {
        let tasks = self.runs.remove(name).map(|run| run.tasks);
        let tasks = tasks.unwrap_or_default();
        self.attempts = self.attempts.saturating_sub(tasks.len());
        tasks
    }

    /// Forgets the runs of a namespace that a whole lap over those of this status did not come to:
    /// they have ended, or another router looks after them.
    fn end_lap(&mut self, namespace: &Arc<str>, (status, lap): (RunStatus, u64)) {
        let left = self
            .runs
            .range(RunName::new(namespace, "")..)
            .take_while(|(name, _)| name.namespace == *namespace)
            .filter(|(_, run)| run.status == status && run.lap != lap);
        let left: Vec<RunName> = left.map(|(name, _)| name.clone()).collect();
        for name in left {
            self.forget(&name);
        }
    }

    /// Forgets the runs of namespaces of which this router looks after nothing.
    fn keep(&mut self, partitions: &BTreeMap<Arc<str>, Vec<u32>>) {
        self.runs.retain(|name, run| {
            let numbers = partitions.get(&name.namespace);
            let is_kept = numbers.is_some_and(|numbers| !numbers.is_empty());
            if !is_kept {
                self.attempts = self.attempts.saturating_sub(run.tasks.len());
            }
            is_kept
        });
    }
}

/// Looks at runs until the future is dropped.
pub(crate) async fn run(desk: &Arc<Desk>, owned: &watch::Receiver<Owned>) {
    let memory = tokio::sync::Mutex::new(Memory::default());
    every(ROUND, Loop::Audit, || async {
        let owned = owned.borrow().clone();
        let mut memory = memory.lock().await;
        if memory.seen.attempts >= REMEMBERED {
            memory.seen.keep(&owned.partitions);
        }
        let mut look_ups = LOOK_UPS;
        for (namespace, numbers) in owned.partitions {
            // What runs goes on in a paused run too.
            for status in [RunStatus::Running, RunStatus::Paused] {
                let of = (&namespace, &*numbers, status);
                audit(desk, &mut memory, &mut look_ups, of).await?;
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
    look_ups: &mut usize,
    (namespace, numbers, status): (&Arc<str>, &[u32], RunStatus),
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
    let cursor = memory.cursors.get(&place).cloned();
    let ((before, id), lap) = cursor.unwrap_or_else(|| (newest(), 0));
    let page = desk
        .store
        .list_runs(&here, Some(status.as_str()), 0, (before, &id), RUNS)
        .await?;
    let next = page.last.filter(|_| !page.is_end);
    let is_end = next.is_none();
    let next = (next.unwrap_or_else(newest), lap + u64::from(is_end));
    memory.cursors.insert(place, next);
    for one in page.runs {
        let name = RunName::new(namespace, &one.run_id);
        match audit_run(desk, memory, look_ups, (&name, status, lap)).await {
            Ok(()) | Err(StepError::Gone) => {},
            Err(StepError::Undecodable(error)) => {
                metrics::undecodable();
                tracing::error!(run_id = &*name.run_id, %error, "run_does_not_decode");
            },
            Err(error) => return Err(error),
        }
    }
    if is_end {
        memory.seen.end_lap(namespace, (status, lap));
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
    /// Attempts at work.
    open: Vec<Open>,
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
            TaskStatus::Queued | TaskStatus::Running => found.open.push(Open {
                task,
                attempt: state.attempt,
                deliveries: state.deliveries,
                status: state.status,
                target: loaded.target(task).cloned(),
            }),
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

async fn audit_run(
    desk: &Arc<Desk>,
    memory: &mut Memory,
    look_ups: &mut usize,
    (name, status, lap): (&RunName, RunStatus, u64),
) -> Result<(), StepError> {
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
    let bounds = (REMEMBERED, *look_ups);
    let as_listed = (status, lap);
    let silent = memory
        .seen
        .silent(name, as_listed, found.open, bounds, Instant::now());
    *look_ups = look_ups.saturating_sub(silent.len());
    for one in silent {
        look_up(desk, name, &one).await?;
    }
    Ok(())
}

/// Asks the shard about an attempt without news.
async fn look_up(desk: &Arc<Desk>, name: &RunName, one: &Open) -> Result<(), StepError> {
    let (task, attempt, status) = (one.task, one.attempt, one.status);
    let Some(target) = &one.target else {
        return Ok(());
    };
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
        .filter_map(|open| Some(open.target.as_ref()?.group.as_str()))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn open(tasks: std::ops::Range<u32>) -> Vec<Open> {
        let open = tasks.map(|task| Open {
            task,
            attempt: 1,
            deliveries: 0,
            status: TaskStatus::Queued,
            target: Some(Target {
                stream: "s".to_owned(),
                group: "g".to_owned(),
            }),
        });
        open.collect()
    }

    fn run(id: &str) -> RunName {
        RunName::new("default", id)
    }

    /// The tasks of a run that are looked up when it is visited in that lap.
    fn visit(seen: &mut Seen, id: &str, lap: u64, open: Vec<Open>, at: Instant) -> Vec<TaskIndex> {
        let listed = (RunStatus::Running, lap);
        let silent = seen.silent(&run(id), listed, open, (4, 2), at);
        assert!(seen.attempts <= 4, "no more than is allowed");
        silent.into_iter().map(|one| one.task).collect()
    }

    #[test]
    fn an_attempt_is_looked_up_once_it_has_been_without_news_for_long() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        let later = start + SILENT;
        let last = later + SILENT + Duration::from_secs(1);
        assert!(visit(&mut seen, "a", 0, open(0..2), start).is_empty());
        let mut begun = open(0..2);
        begun[1].status = TaskStatus::Running;
        let soon = later + Duration::from_millis(1);
        assert_eq!(visit(&mut seen, "a", 0, begun.clone(), soon), [0]);
        assert!(visit(&mut seen, "a", 0, begun.clone(), soon).is_empty());
        assert_eq!(visit(&mut seen, "a", 0, begun, last), [0, 1]);
    }

    #[test]
    fn all_are_looked_up_in_turn_where_more_are_open_than_are_remembered() {
        let (mut seen, mut now) = (Seen::default(), Instant::now());
        let mut looked_up = BTreeMap::new();
        for lap in 0..100 {
            for id in ["a", "b", "c"] {
                for task in visit(&mut seen, id, lap, open(0..5), now) {
                    *looked_up.entry((id, task)).or_insert(0) += 1;
                }
            }
            seen.end_lap(&"default".into(), (RunStatus::Running, lap));
            now += SILENT + Duration::from_secs(1);
        }
        assert_eq!(looked_up.len(), 15, "{looked_up:?}");
    }

    #[test]
    fn what_is_not_open_any_more_gives_up_its_place() {
        let (mut seen, now) = (Seen::default(), Instant::now());
        visit(&mut seen, "a", 0, open(0..4), now);
        visit(&mut seen, "b", 0, open(0..1), now);
        assert!(!seen.runs.contains_key(&run("b")), "it is full");
        // A task has ended, then the run.
        visit(&mut seen, "a", 1, open(0..3), now);
        visit(&mut seen, "b", 1, open(0..1), now);
        assert!(seen.runs.contains_key(&run("b")));
        let namespace = Arc::from("default");
        for lap in [1, 2] {
            seen.end_lap(&namespace, (RunStatus::Paused, lap));
            visit(&mut seen, "b", lap, open(0..1), now);
            seen.end_lap(&namespace, (RunStatus::Running, lap));
        }
        assert!(!seen.runs.contains_key(&run("a")));
        assert_eq!(seen.attempts, 1);
        seen.keep(&BTreeMap::from([(namespace, vec![3])]));
        assert_eq!(seen.attempts, 1);
        seen.keep(&BTreeMap::from([(Arc::from("other"), vec![3])]));
        assert_eq!((seen.attempts, seen.runs.len()), (0, 0));
    }
}
