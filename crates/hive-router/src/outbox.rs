//! What steps owe to shards: dispatches and decisions, carried out and taken off the outbox.
//!
//! An entry names a run, a task and an attempt, nothing more; what is sent is read when it is
//! carried out. Carrying out twice does no harm: a shard knows each dispatch by its key.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use hive_domain::{
    time::Timestamp,
    workflow::{Completion, Event, Resolution, Run, TaskIndex, TaskStatus},
};
use hive_protocol::{message, time, wire};
use hive_store::{
    StoreError,
    header::Header,
    runs::{Inputs, OutboxEntry, TaskInputs, TaskResult},
    tasks::{Dispatched, TaskEntry, TaskOutcome, TaskTarget},
};
use prost::Message as _;

use crate::{
    desk::{Desk, Draft, StepError},
    metrics,
    names::{RunName, dispatch_key},
    stored::{Loaded, Target},
};

/// Most tasks of one call to a shard.
const DISPATCHES: usize = 100;
/// Decisions that are asked of shards at once.
const DECISIONS: usize = 32;
/// An order that is not carried out for so long is left to whoever reads the outbox next: by then
/// the shard may have forgotten what was done with it.
const CARRIED_OUT_WITHIN_MS: u64 = 60_000;

/// What a step owes to a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owed {
    /// An attempt is to be sent to its group.
    Dispatch { task: TaskIndex, attempt: u32 },
    /// An attempt is to be decided by its shard.
    Resolve {
        task: TaskIndex,
        attempt: u32,
        resolution: Resolution,
    },
}

impl Owed {
    /// The entry of the outbox.
    pub(crate) fn encode(&self, run_id: &str) -> Bytes {
        match self {
            Self::Dispatch { task, attempt } => format!("dispatch {run_id} {task} {attempt}"),
            Self::Resolve {
                task,
                attempt,
                resolution,
            } => {
                let word = match resolution {
                    Resolution::Succeeded => "succeeded",
                    Resolution::Failed => "failed",
                    Resolution::TimedOut => "timed_out",
                    Resolution::Cancelled => "cancelled",
                };
                format!("{word} {run_id} {task} {attempt}")
            },
        }
        .into()
    }

    /// What an entry of the outbox says, and of which run.
    fn parse(body: &[u8]) -> Option<(String, Self)> {
        let text = std::str::from_utf8(body).ok()?;
        let mut words = text.split(' ');
        let (word, run_id) = (words.next()?, words.next()?.to_owned());
        let (task, attempt) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let resolve = |resolution| Self::Resolve {
            task,
            attempt,
            resolution,
        };
        let owed = match word {
            "dispatch" => Self::Dispatch { task, attempt },
            "succeeded" => resolve(Resolution::Succeeded),
            "failed" => resolve(Resolution::Failed),
            "timed_out" => resolve(Resolution::TimedOut),
            "cancelled" => resolve(Resolution::Cancelled),
            _ => return None,
        };
        Some((run_id, owed))
    }
}

/// A dispatch with all that its message needs of the run.
#[derive(Debug)]
struct Parcel {
    task: TaskIndex,
    attempt: u32,
    priority: u8,
    capabilities: String,
    awaits_signal: bool,
    /// Dependencies that have ended: number, id, state, why.
    needs: Vec<(TaskIndex, String, TaskStatus, String)>,
}

#[derive(Debug)]
enum What {
    Dispatch(Parcel),
    Resolve {
        key: String,
        outcome: TaskOutcome,
        reason: String,
    },
}

/// Something owed, with all that is needed to carry it out.
#[derive(Debug)]
pub(crate) struct Order {
    /// Its entry in the outbox; empty where it has none.
    entry: String,
    target: Target,
    what: What,
    /// It was owed a while before this: later than this a shard refuses it.
    not_after: Timestamp,
}

impl Order {
    /// What is owed by `entry`; none while no group serves the task, and when it is owed no more.
    pub(crate) fn new(loaded: &Loaded, owed: Owed, entry: String, now: Timestamp) -> Option<Self> {
        if !is_owed(&loaded.run, owed) {
            return None;
        }
        let run = &loaded.run;
        let (task, what) = match owed {
            Owed::Dispatch { task, attempt } => (task, What::Dispatch(parcel(run, task, attempt)?)),
            // Each run has its own partition entry; the key is made where the run's id is known.
            Owed::Resolve {
                task,
                attempt,
                resolution,
            } => (
                task,
                What::Resolve {
                    key: format!("{task}/{attempt}"),
                    outcome: match resolution {
                        Resolution::Succeeded => TaskOutcome::Succeeded,
                        Resolution::Failed => TaskOutcome::Failed,
                        Resolution::TimedOut => TaskOutcome::TimedOut,
                        Resolution::Cancelled => TaskOutcome::Cancelled,
                    },
                    reason: reason_of(run, task, resolution),
                },
            ),
        };
        Some(Self {
            entry,
            target: loaded.target(task)?.clone(),
            what,
            not_after: now.plus(CARRIED_OUT_WITHIN_MS),
        })
    }

    /// An open attempt once more, that its shard did not know at `now`.
    pub(crate) fn again(
        loaded: &Loaded,
        task: TaskIndex,
        attempt: u32,
        now: Timestamp,
    ) -> Option<Self> {
        let state = loaded.run.task(task)?;
        if state.attempt != attempt || !state.status.is_open() {
            return None;
        }
        Some(Self {
            entry: String::new(),
            target: loaded.target(task)?.clone(),
            what: What::Dispatch(parcel(&loaded.run, task, attempt)?),
            not_after: now.plus(CARRIED_OUT_WITHIN_MS),
        })
    }
}

/// Whether the attempt is still open, and for a dispatch: not begun.
pub(crate) fn is_owed(run: &Run, owed: Owed) -> bool {
    let (Owed::Dispatch { task, attempt } | Owed::Resolve { task, attempt, .. }) = owed;
    run.task(task).is_some_and(|state| {
        state.attempt == attempt
            && match owed {
                Owed::Dispatch { .. } => state.status == TaskStatus::Queued,
                Owed::Resolve { .. } => state.status.is_open(),
            }
    })
}

/// Why a shard ends an attempt: the reason of the run's end, else that of the task's own.
fn reason_of(run: &Run, task: TaskIndex, resolution: Resolution) -> String {
    match resolution {
        Resolution::TimedOut => "timeout".to_owned(),
        Resolution::Succeeded | Resolution::Failed => String::new(),
        Resolution::Cancelled => {
            let of_run = run.head().ending.as_ref().map(|ending| &ending.reason);
            let of_task = run.task(task).map(|state| &state.reason);
            let said = of_run.or(of_task).filter(|reason| !reason.is_empty());
            said.cloned().unwrap_or_else(|| "cancelled".to_owned())
        },
    }
}

fn parcel(run: &Run, task: TaskIndex, attempt: u32) -> Option<Parcel> {
    let place = usize::try_from(task).ok()?;
    let definition = run.definition().tasks.get(place)?;
    let needs = run.graph().dependencies(task).iter().filter_map(|need| {
        let state = run.task(*need).filter(|state| state.status.is_final())?;
        let id = run.id(*need)?.to_owned();
        Some((*need, id, state.status, state.reason.clone()))
    });
    Some(Parcel {
        task,
        attempt,
        priority: definition.priority,
        capabilities: definition.required_capabilities.to_string(),
        awaits_signal: definition.completion == Completion::Signal,
        needs: needs.collect(),
    })
}

impl Desk {
    /// Carries out orders of one run and takes them off the outbox. What does not succeed stays
    /// there.
    pub(crate) async fn carry_out(&self, name: &RunName, orders: Vec<Order>) {
        let Some(partition) = name.partition(&self.store) else {
            return;
        };
        let (mut done, mut decisions) = (Vec::new(), Vec::new());
        let mut not_after = Timestamp(u64::MAX);
        let mut parcels: BTreeMap<(String, String), Vec<(String, Parcel)>> = BTreeMap::new();
        for order in orders {
            let Target { stream, group } = order.target;
            not_after = not_after.min(order.not_after);
            match order.what {
                What::Dispatch(parcel) => parcels
                    .entry((stream, group))
                    .or_default()
                    .push((order.entry, parcel)),
                What::Resolve {
                    key,
                    outcome,
                    reason,
                } => decisions.push(async move {
                    let shard = self.store.shard(&name.namespace, &stream, 0);
                    let key = format!("{}/{key}", name.run_id);
                    let resolved =
                        self.store
                            .resolve_task(&shard, &group, &key, outcome, reason.into());
                    resolved.await.map(|_| order.entry)
                }),
            }
        }
        let mut decided = stream::iter(decisions).buffer_unordered(DECISIONS);
        while let Some(decided) = decided.next().await {
            match decided {
                Ok(entry) => done.push(entry),
                Err(error) => metrics::not_carried_out(&error),
            }
        }
        for ((stream, group), parcels) in parcels {
            let target = Target { stream, group };
            match self.dispatch(name, &target, parcels, not_after).await {
                Ok(entries) => done.extend(entries),
                Err(error) => metrics::not_carried_out(&error),
            }
        }
        done.retain(|entry| !entry.is_empty());
        if let Err(error) = self.store.clear_outbox(&partition, &done).await {
            metrics::not_carried_out(&error);
        }
    }

    /// Sends attempts to their group; answers the outbox entries that are done with.
    async fn dispatch(
        &self,
        name: &RunName,
        target: &Target,
        parcels: Vec<(String, Parcel)>,
        not_after: Timestamp,
    ) -> Result<Vec<String>, StoreError> {
        let Some(partition) = name.partition(&self.store) else {
            return Ok(Vec::new());
        };
        let shard = self.store.shard(&name.namespace, &target.stream, 0);
        let facts = self.placing.facts(&name.namespace).await?;
        let settings = facts
            .stream(&target.stream)
            .map(|stream| stream.settings.clone())
            .unwrap_or_default();
        let mut done = Vec::new();
        let mut left = parcels;
        while !left.is_empty() {
            let asked: Vec<Inputs> = left
                .iter()
                .take(DISPATCHES)
                .map(|(_, parcel)| Inputs {
                    task: parcel.task,
                    dependencies: parcel.needs.iter().map(|need| need.0).collect(),
                })
                .collect();
            let found = self
                .store
                .task_inputs(&partition, &name.run_id, &asked)
                .await?;
            let rest = left.split_off(found.len().clamp(1, left.len()));
            let now = self.now();
            let (entries, sent): (Vec<String>, Vec<TaskEntry>) = left
                .into_iter()
                .zip(found)
                .map(|((entry, parcel), inputs)| (entry, entry_of(name, parcel, inputs, now)))
                .unzip();
            let to = TaskTarget {
                group: &target.group,
                max_backlog: settings.max_backlog,
                max_backlog_bytes: settings.max_backlog_bytes,
                durable: self.settings.durable,
            };
            let dispatched = self
                .store
                .dispatch_tasks(&shard, to, not_after.as_millis(), &sent, 0)
                .await?;
            match dispatched {
                Dispatched::Done { added } => {
                    metrics::dispatched(added);
                    done.extend(entries);
                },
                Dispatched::Full => {
                    metrics::refused(metrics::Refusal::Full);
                    return Ok(done);
                },
                Dispatched::GroupGone => {
                    metrics::refused(metrics::Refusal::GroupGone);
                    return Ok(done);
                },
                Dispatched::Late => {
                    metrics::refused(metrics::Refusal::Late);
                    return Ok(done);
                },
            }
            left = rest;
        }
        Ok(done)
    }

    /// Carries out what others left in an outbox: entries of one partition, the oldest first.
    pub(crate) async fn take_over(
        self: &Arc<Self>,
        namespace: &Arc<str>,
        number: u32,
        entries: Vec<OutboxEntry>,
    ) -> Result<(), StepError> {
        let mut runs: BTreeMap<String, Vec<(String, Owed)>> = BTreeMap::new();
        let mut over = Vec::new();
        for entry in entries {
            match Owed::parse(&entry.body) {
                Some((run_id, owed)) => runs.entry(run_id).or_default().push((entry.id, owed)),
                None => {
                    tracing::error!(entry = entry.id, "outbox_entry_does_not_decode");
                    over.push(entry.id);
                },
            }
        }
        let partition = self.store.partition(namespace, number);
        for (run_id, owed) in runs {
            let name = RunName::new(namespace, &run_id);
            let ids: Vec<String> = owed.iter().map(|(id, _)| id.clone()).collect();
            match self.orders(&name, owed).await {
                Ok((orders, of_nothing)) => {
                    over.extend(of_nothing);
                    self.carry_out(&name, orders).await;
                },
                // Nobody is owed anything of a run that was deleted.
                Err(StepError::Gone) => over.extend(ids),
                Err(StepError::Undecodable(error)) => {
                    metrics::undecodable();
                    tracing::error!(run_id, %error, "run_does_not_decode");
                },
                Err(error) => return Err(error),
            }
        }
        self.store.clear_outbox(&partition, &over).await?;
        Ok(())
    }

    /// What is still owed of a run, and the entries that owe nothing any more. An attempt that no
    /// group serves is placed where one does by now, and fails when that takes too long. One whose
    /// group is gone is taken back where another serves the task.
    async fn orders(
        self: &Arc<Self>,
        name: &RunName,
        owed: Vec<(String, Owed)>,
    ) -> Result<(Vec<Order>, Vec<String>), StepError> {
        let patience = self.settings.provision_timeout_ms;
        let now = self.now();
        let mut facts = self.placing.facts(&name.namespace).await?;
        let mut unplaced: Vec<Unplaced> = self
            .look(name, |loaded| {
                owed.iter()
                    .filter_map(|(entry, owed)| {
                        let Owed::Dispatch { task, attempt } = *owed else {
                            return None;
                        };
                        let target = loaded.target(task).cloned();
                        let is_placed = target.as_ref().is_some_and(|at| !facts.is_gone(at));
                        let is_open = is_owed(&loaded.run, *owed);
                        (is_open && !is_placed).then(|| Unplaced {
                            task,
                            attempt,
                            is_late: now.since(written_at(entry)) > patience,
                            target,
                        })
                    })
                    .collect()
            })
            .await?;
        if unplaced
            .iter()
            .any(|one| one.target.is_some() && one.is_late)
        {
            // Another router may have placed it on a group that was made since these were read.
            facts = self.placing.anew(&name.namespace).await?;
            unplaced.retain(|one| one.target.as_ref().is_none_or(|at| facts.is_gone(at)));
        }
        if !unplaced.is_empty() {
            self.look(name, |loaded| {
                let definition = loaded.run.definition();
                for one in unplaced.iter().filter(|one| one.target.is_none()) {
                    let place = usize::try_from(one.task).unwrap_or(usize::MAX);
                    let unserved = definition.tasks.get(place);
                    if let Some(task) = unserved.filter(|t| facts.look(definition, t).is_err()) {
                        let (tasks, namespace) = (&self.tasks, &name.namespace);
                        self.provisioning.ask_later(tasks, namespace, task);
                    }
                }
            })
            .await?;
            let gone = unplaced.iter().filter(|one| one.target.is_some());
            let gone: Vec<(TaskIndex, u32)> = gone.map(|one| (one.task, one.attempt)).collect();
            self.take_back(name, &gone).await?;
            let step = self.step(name, |draft| {
                for one in &unplaced {
                    place_or_end(draft, one);
                }
                Ok::<(), std::convert::Infallible>(())
            });
            let Ok(()) = step.await?;
        }
        let sorted = self.look(name, |loaded| {
            let (mut orders, mut over) = (Vec::new(), Vec::new());
            for (entry, owed) in owed {
                if !is_owed(&loaded.run, owed) {
                    over.push(entry);
                } else if let Some(order) = Order::new(loaded, owed, entry, now) {
                    orders.push(order);
                }
            }
            (orders, over)
        });
        sorted.await
    }
}

/// An attempt that is owed and has no group, or one that is gone.
#[derive(Debug, Clone)]
struct Unplaced {
    task: TaskIndex,
    attempt: u32,
    /// Whether it has waited for longer than it may.
    is_late: bool,
    /// The group that is gone.
    target: Option<Target>,
}

/// Places an attempt that no group served, or ends it where that takes too long. Nothing happens to
/// one that another router has placed or ended since it was looked at.
fn place_or_end(draft: &mut Draft<'_>, one: &Unplaced) {
    let (task, attempt) = (one.task, one.attempt);
    if !is_owed(draft.run(), Owed::Dispatch { task, attempt })
        || draft.target(task) != one.target.as_ref()
    {
        return;
    }
    let reason = match &one.target {
        Some(target) => format!("group `{}` is gone", target.group),
        None if draft.place(task, attempt) => return,
        None => "no group serves it".to_owned(),
    };
    let event = Event::Undeliverable {
        task,
        attempt,
        reason,
    };
    if one.is_late
        && let Err(illegal) = draft.apply(event)
    {
        metrics::illegal_event(&illegal);
    }
}

/// When an entry of a stream was written.
fn written_at(id: &str) -> Timestamp {
    let millis = id.split('-').next().and_then(|text| text.parse().ok());
    Timestamp(millis.unwrap_or_default())
}

/// The entry of a task lane.
fn entry_of(name: &RunName, parcel: Parcel, inputs: TaskInputs, now: Timestamp) -> TaskEntry {
    let dispatch_key = dispatch_key(&name.run_id, parcel.task, parcel.attempt);
    // What was written by a router of this build decodes; else the agent gets what is known.
    let mut message = wire::Message::decode(inputs.content).unwrap_or_default();
    message.message_id = dispatch_key.replace('/', ".");
    message.run_id = name.run_id.to_string();
    message.priority = Some(u32::from(parcel.priority));
    message.published_at = Some(time::to_timestamp(now));
    message.resumption = wire::Resumption::decode(inputs.answer.clone())
        .ok()
        .filter(|_| !inputs.answer.is_empty());
    let needs = parcel.needs.into_iter().zip(inputs.results);
    message.inputs = needs
        .map(|((_, id, status, reason), result)| {
            let (result, result_omitted) = match result {
                TaskResult::None => (Bytes::new(), false),
                TaskResult::Omitted => (Bytes::new(), true),
                TaskResult::Bytes(bytes) => (bytes, false),
            };
            let is_failure = status != TaskStatus::Succeeded;
            let input = wire::TaskInput {
                result,
                result_omitted,
                state: status.to_string(),
                error: if is_failure { reason } else { String::new() },
            };
            (id, input)
        })
        .collect();
    let retry = message::retry(&message);
    let backoff = |millis: Option<u64>| {
        millis.map_or(hive_store::header::GROUP_BACKOFF, |millis| {
            u32::try_from(millis).unwrap_or(u32::MAX - 1)
        })
    };
    let header = Header {
        priority: parcel.priority,
        max_attempts: retry
            .max_attempts
            .and_then(|attempts| u16::try_from(attempts).ok())
            .unwrap_or(0),
        initial_backoff_ms: backoff(retry.initial_backoff_ms),
        max_backoff_ms: backoff(retry.max_backoff_ms),
        expires_at_ms: 0,
        ordering_key: "".into(),
        dispatch_key: dispatch_key.as_str().into(),
    };
    let body = header.join(&message.encode_to_vec());
    TaskEntry {
        dispatch_key,
        awaits_signal: parcel.awaits_signal,
        priority: parcel.priority,
        capabilities: parcel.capabilities,
        body,
    }
}

#[cfg(test)]
mod tests {
    use hive_domain::workflow::{
        Limits, TaskDefinition, TaskStatus, WorkflowDefinition, definition::check,
    };

    use super::*;
    use crate::{desk::draft, placing::Facts};

    #[test]
    fn what_is_owed_is_read_back_from_the_outbox() {
        let all = [
            Owed::Dispatch {
                task: 7,
                attempt: 2,
            },
            Owed::Resolve {
                task: 0,
                attempt: 1,
                resolution: Resolution::TimedOut,
            },
        ];
        for owed in all {
            let (run_id, read) = Owed::parse(&owed.encode("5-a")).expect("an entry");
            assert_eq!((run_id.as_str(), read), ("5-a", owed));
        }
        assert_eq!(Owed::parse(b"dispatch 5-a 1"), None);
        assert_eq!(Owed::parse(b"shout 5-a 1 1"), None);
    }

    /// A run of one task of type `worker`, whose first attempt was sent there.
    fn sent_to(target: Option<Target>) -> Loaded {
        let task = TaskDefinition {
            id: "a".to_owned(),
            kind: "worker".to_owned(),
            ..TaskDefinition::default()
        };
        let definition = WorkflowDefinition {
            workflow_id: "w".to_owned(),
            tasks: vec![task],
            ..WorkflowDefinition::default()
        };
        let graph = check(&definition, &Limits::default()).expect("it has no faults");
        let (mut run, _) = Run::start(definition, graph, Timestamp(0));
        let mut targets = BTreeMap::new();
        if let Some(target) = target {
            let (task, attempt) = (0, 1);
            run.apply(Event::Placed { task, attempt }, Timestamp(0))
                .expect("it has no place yet");
            targets.insert(task, target);
        }
        run.take_changed();
        Loaded {
            run,
            version: 1,
            created_ms: 0,
            targets,
            newest: String::new(),
        }
    }

    fn target(stream: &str, group: &str) -> Target {
        let (stream, group) = (stream.to_owned(), group.to_owned());
        Target { stream, group }
    }

    /// Where the task is when it has waited for too long and a look found that it was sent to
    /// `seen`; and where it is sent.
    fn after(
        mut loaded: Loaded,
        groups: &[(&str, &str, &str)],
        (attempt, seen): (u32, Option<Target>),
    ) -> (TaskStatus, Option<Target>) {
        let facts = Facts::of(groups);
        let one = Unplaced {
            task: 0,
            attempt,
            is_late: true,
            target: seen,
        };
        place_or_end(&mut draft(&mut loaded, &facts, Timestamp(5)), &one);
        let status = loaded.run.tasks()[0].status;
        (status, loaded.target(0).cloned())
    }

    #[test]
    fn an_attempt_that_another_router_has_placed_stays_where_it_is() {
        let two = [("one", "worker", "s1"), ("two", "worker", "s2")];
        for at in [target("s1", "one"), target("s2", "two")] {
            let loaded = sent_to(Some(at.clone()));
            let placed = (TaskStatus::Queued, Some(at));
            assert_eq!(after(loaded, &two, (1, None)), placed);
        }
        // Nobody knows its group here yet, or it was taken back from one that is gone.
        let made = target("s3", "three");
        let before = target("s4", "four");
        for seen in [None, Some(before)] {
            let loaded = sent_to(Some(made.clone()));
            let placed = (TaskStatus::Queued, Some(made.clone()));
            assert_eq!(after(loaded, &two, (1, seen)), placed);
        }
        // Another attempt is the business of another entry.
        let other = after(sent_to(None), &[], (2, None));
        assert_eq!(other, (TaskStatus::Queued, None));
    }

    #[test]
    fn an_attempt_without_a_group_is_placed_or_ends() {
        let (status, at) = after(sent_to(None), &[("one", "worker", "s1")], (1, None));
        assert_eq!(
            (status, at),
            (TaskStatus::Queued, Some(target("s1", "one")))
        );
        assert_eq!(
            after(sent_to(None), &[], (1, None)),
            (TaskStatus::Failed, None)
        );
        let gone = Some(target("s3", "three"));
        let ended = after(sent_to(gone.clone()), &[], (1, gone.clone()));
        assert_eq!(ended, (TaskStatus::Failed, gone));
    }
}
