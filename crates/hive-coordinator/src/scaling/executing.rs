//! Carries wishes out where somebody must be asked: Kubernetes, and webhooks.
//!
//! One task for each group that needs it, so that a target which does not answer delays nobody
//! else. A task is level-triggered: it brings about the newest wish, repeats it, and backs off
//! while that fails. KEDA and `hive dev` follow the wish by themselves, and need no task.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hive_domain::group::GroupDefinition;
use hive_domain::scaling::Executor;
use hive_runtime::tasks::{BACKGROUND, TaskHandle};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::step::Step;
use crate::desk::Desk;
use crate::executors::kubernetes::Kubernetes;
use crate::executors::webhook::{self, Webhook};
use crate::executors::{ExecutorError, retry_after};
use crate::metrics;
use crate::roster::GroupName;

/// How soon it is looked again whether a wish is what is stored.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often a wish that is carried out is brought about again: somebody else may have changed it.
const AGAIN: Duration = Duration::from_secs(30);

/// Who can be asked.
#[derive(Debug)]
pub(crate) struct Executors {
    pub(crate) kubernetes: Kubernetes,
    pub(crate) webhook: Webhook,
}

/// What an executor is to bring about.
#[derive(Debug, Clone, PartialEq)]
struct Wish {
    name: GroupName,
    target: String,
    /// How many consumers it is to run.
    applied: u32,
    /// How many live.
    consumers: u32,
    reason: String,
    epoch: u64,
    /// When that many were wanted first, in ms since 1970.
    decided_ms: u64,
}

/// The groups whose wishes are carried out here.
#[derive(Debug)]
pub(crate) struct Executing {
    desk: Arc<Desk>,
    executors: Arc<Executors>,
    running: Mutex<BTreeMap<GroupName, Running>>,
}

/// How it went the last time; none before the first.
type Went = Arc<Mutex<Option<Result<(), String>>>>;

#[derive(Debug)]
struct Running {
    executor: Executor,
    wish: watch::Sender<Wish>,
    went: Went,
    task: TaskHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Executing {
    pub(crate) fn new(desk: Arc<Desk>, executors: Executors) -> Self {
        Self {
            desk,
            executors: Arc::new(executors),
            running: Mutex::default(),
        }
    }

    /// Ends what is carried out for groups that are not this replica's any more, or not scaled.
    pub(crate) fn keep(&self, scaled: &BTreeMap<GroupName, &GroupDefinition>) {
        let mut running = self.running.lock();
        running.retain(|name, one| {
            let group = scaled.get(name);
            group.is_some_and(|group| group.settings.scaling.executor == one.executor)
        });
    }

    /// How carrying a group's wish out went the last time; none while that is not known.
    pub(crate) fn execution(
        &self,
        name: &GroupName,
        executor: Executor,
    ) -> Option<Result<(), String>> {
        match executor {
            Executor::None | Executor::Keda | Executor::Process => Some(Ok(())),
            Executor::Kubernetes | Executor::Webhook => {
                let running = self.running.lock();
                running.get(name).and_then(|one| one.went.lock().clone())
            },
        }
    }

    /// Ends what is carried out for a group that has another owner by now.
    pub(crate) fn end(&self, name: &GroupName) {
        self.running.lock().remove(name);
    }

    /// Has a wish carried out that is stored.
    pub(crate) fn wish(&self, step: &Step) {
        let executor = step.look.definition.settings.scaling.executor;
        match executor {
            Executor::None | Executor::Keda | Executor::Process => return,
            Executor::Kubernetes | Executor::Webhook => {},
        }
        let wish = Wish {
            name: step.look.name.clone(),
            target: step.look.definition.settings.scaling.target.clone(),
            applied: step.applied(),
            consumers: step.consumers(),
            reason: step.look.state.reason.clone(),
            epoch: step.epoch,
            decided_ms: step.look.now_ms,
        };
        let mut running = self.running.lock();
        if let Some(known) = running.get(&step.look.name) {
            known.wish.send_if_modified(|before| {
                // Another reason alone is no reason to do it again.
                let is_change = (before.applied, &before.target) != (wish.applied, &wish.target);
                if is_change {
                    *before = wish;
                }
                is_change
            });
            return;
        }
        let name = format!("scale {}", step.look.name);
        let (wish, wishes) = watch::channel(wish);
        let went = Went::default();
        let task = carry_out(
            Arc::clone(&self.desk),
            Arc::clone(&self.executors),
            executor,
            (wishes, Arc::clone(&went)),
        );
        let task = self.desk.tasks.spawn(BACKGROUND, name, task);
        let one = Running {
            executor,
            wish,
            went,
            task,
        };
        running.insert(step.look.name.clone(), one);
    }

    /// Marks a pod so that it is deleted before others, where Kubernetes can be asked.
    pub(crate) async fn mark(&self, pod: &str, cost: i32) {
        if let Err(error) = self.executors.kubernetes.mark(pod, cost).await {
            tracing::debug!(pod, %error, "pod_not_marked");
        }
    }
}

/// Whether the group is still this replica's, under the epoch of the wish.
async fn is_stored(desk: &Desk, wish: &Wish) -> bool {
    let name = &wish.name;
    match desk.store.scaling_row(&name.namespace, &name.group).await {
        Ok(Some(row)) => row.epoch == wish.epoch && row.owner == desk.me,
        Ok(None) => false,
        Err(error) => {
            tracing::debug!(group = %name, %error, "wish_not_compared");
            false
        },
    }
}

impl Executors {
    async fn bring_about(&self, executor: Executor, wish: &Wish) -> Result<(), ExecutorError> {
        match executor {
            Executor::Kubernetes => {
                let scaled = self.kubernetes.scale(&wish.target, wish.applied).await?;
                if scaled.from != scaled.to {
                    let (target, from, to) = (wish.target.as_str(), scaled.from, scaled.to);
                    tracing::info!(group = %wish.name, target, from, to, "deployment_scaled");
                }
                Ok(())
            },
            Executor::Webhook => {
                let told = webhook::Wish {
                    namespace: &wish.name.namespace,
                    group: &wish.name.group,
                    desired_consumers: wish.applied,
                    current_consumers: wish.consumers,
                    reason: &wish.reason,
                    epoch: wish.epoch,
                    decided_ms: wish.decided_ms,
                };
                self.webhook.post(&wish.target, &told).await
            },
            Executor::None | Executor::Keda | Executor::Process => Ok(()),
        }
    }
}

/// Brings about the newest wish, again and again, until it is dropped.
async fn carry_out(
    desk: Arc<Desk>,
    executors: Arc<Executors>,
    executor: Executor,
    (mut wishes, went): (watch::Receiver<Wish>, Went),
) {
    let mut failures = 0_u32;
    loop {
        let wish = wishes.borrow_and_update().clone();
        if !is_stored(&desk, &wish).await {
            // Another one owns the group by now, or Redis does not say: who does not know must not
            // act, or two owners would pull a target to and fro.
            tokio::select! {
                changed = wishes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK_AGAIN) => {},
            }
            continue;
        }
        let done = executors.bring_about(executor, &wish).await;
        let pause = match &done {
            Ok(()) => {
                failures = 0;
                AGAIN
            },
            Err(error) => {
                metrics::executor_failed(executor);
                if failures == 0 {
                    let target = wish.target.as_str();
                    tracing::warn!(group = %wish.name, target, %error, "executor_failed");
                }
                failures = failures.saturating_add(1);
                retry_after(failures, error)
            },
        };
        *went.lock() = Some(done.map_err(|error: ExecutorError| error.to_string()));
        tokio::select! {
            changed = wishes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {},
        }
    }
}
