//! Tells consumers that they are to finish and go, through their gateways, until they are gone.
//!
//! Who is to go is stored before it is told; the gateway compares the epoch with the stored one, so
//! what a former owner says changes nothing. Telling it twice does no harm, and is needed: a
//! consumer that lost its connection meanwhile is attached elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use hive_protocol::wire;
use hive_runtime::tasks::{BACKGROUND, TaskHandle};
use tokio::time::timeout;

use super::executing::Executing;
use crate::desk::Desk;
use crate::gateways::Attached;
use crate::roster::GroupName;

/// How often one is told again.
const AGAIN: Duration = Duration::from_secs(5);
/// Why it is to go, as the agent is told.
const REASON: &str = "fewer agents are wanted";
/// Who is told at a time.
const AT_ONCE: usize = 16;
/// How long the marks of the pods of a group may take.
const MARKED_WITHIN: Duration = Duration::from_secs(5);
/// The lower, the sooner a pod is deleted; others count as 0. Who has left already goes before who
/// still works.
const COST_LEFT: i32 = -2_000;
const COST_AT_WORK: i32 = -1_000;

/// Who was told when.
#[derive(Debug, Default)]
pub(crate) struct Draining {
    told: BTreeMap<(GroupName, String), Instant>,
    telling: BTreeMap<GroupName, TaskHandle>,
}

impl Draining {
    /// Tells those of `going` that were not told for a while.
    pub(crate) fn tell<'a>(
        &mut self,
        desk: &Arc<Desk>,
        executing: &Arc<Executing>,
        (name, epoch): (&GroupName, u64),
        going: impl Iterator<Item = &'a String>,
    ) {
        if self
            .telling
            .get(name)
            .is_some_and(|task| !task.is_finished())
        {
            return;
        }
        let now = Instant::now();
        let mut due = BTreeSet::new();
        for consumer in going {
            let key = (name.clone(), consumer.clone());
            if self.told.get(&key).is_none_or(|told| *told + AGAIN <= now) {
                self.told.insert(key, now);
                due.insert(consumer.clone());
            }
        }
        if due.is_empty() {
            return;
        }
        let task = tell(
            Arc::clone(desk),
            Arc::clone(executing),
            name.clone(),
            epoch,
            due,
        );
        let task = desk.tasks.spawn(BACKGROUND, format!("drain {name}"), task);
        self.telling.insert(name.clone(), task);
    }

    /// Forgets those who were not told again for long: they are gone.
    pub(crate) fn forget(&mut self) {
        self.told.retain(|_, told| told.elapsed() < 2 * AGAIN);
        self.telling.retain(|_, task| !task.is_finished());
    }
}

async fn tell(
    desk: Arc<Desk>,
    executing: Arc<Executing>,
    name: GroupName,
    epoch: u64,
    due: BTreeSet<String>,
) {
    let groups = [name.group.to_string()];
    let attached = desk.gateways.connections(&name.namespace, &groups).await;
    let is_due = |one: &&Attached| due.contains(&one.connection.consumer_id);
    stream::iter(attached.iter().filter(is_due))
        .for_each_concurrent(AT_ONCE, |one| tell_one(&desk, &name, epoch, one))
        .await;
    // Kubernetes removes by these marks whichever pods are too many, also those that stay: theirs
    // are taken back.
    let marks = stream::iter(&attached)
        .filter(|one| std::future::ready(!one.connection.pod.is_empty()))
        .for_each_concurrent(AT_ONCE, |one| {
            let connection = &one.connection;
            let cost = match (due.contains(&connection.consumer_id), connection.held) {
                (false, _) => 0,
                (true, 0) => COST_LEFT,
                (true, _) => COST_AT_WORK,
            };
            executing.mark(&connection.pod, cost)
        });
    if timeout(MARKED_WITHIN, marks).await.is_err() {
        tracing::debug!(group = %name, "pods_not_marked_in_time");
    }
}

async fn tell_one(desk: &Desk, name: &GroupName, epoch: u64, one: &Attached) {
    let request = wire::DrainConsumerRequest {
        group: name.group.to_string(),
        consumer_id: one.connection.consumer_id.clone(),
        epoch,
        reason: REASON.to_owned(),
    };
    let told = desk.gateways.drain(&one.gateway, &name.namespace, request);
    if let Err(fault) = told.await {
        let consumer = one.connection.consumer_id.as_str();
        tracing::debug!(group = %name, consumer, %fault, "drain_not_told");
    }
}
