//! Tells consumers that they are to finish and go, through their gateways, until they are gone.
//!
//! Who is to go is stored before it is told; the gateway compares the epoch with the stored one, so
//! what a former owner says changes nothing. Telling it twice does no harm, and is needed: a consumer
//! that lost its connection meanwhile is attached elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hive_protocol::wire;
use hive_runtime::tasks::BACKGROUND;

use super::executing::Executing;
use crate::desk::Desk;
use crate::roster::GroupName;

/// How often one is told again.
const AGAIN: Duration = Duration::from_secs(5);
/// Why it is to go, as the agent is told.
const REASON: &str = "fewer agents are wanted";
/// The lower, the sooner a pod is deleted; pods without a mark count as 0.
const COST: i32 = -1_000;

/// Who was told when.
#[derive(Debug, Default)]
pub(crate) struct Draining {
    told: BTreeMap<(GroupName, String), Instant>,
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
        desk.tasks.spawn(BACKGROUND, format!("drain {name}"), task);
    }

    /// Forgets those who were not told again for long: they are gone.
    pub(crate) fn forget(&mut self) {
        self.told.retain(|_, told| told.elapsed() < 2 * AGAIN);
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
    for attached in desk.gateways.connections(&name.namespace, &groups).await {
        let connection = attached.connection;
        if !due.contains(&connection.consumer_id) {
            continue;
        }
        if !connection.pod.is_empty() {
            executing.mark(&connection.pod, COST).await;
        }
        let request = wire::DrainConsumerRequest {
            group: name.group.to_string(),
            consumer_id: connection.consumer_id.clone(),
            epoch,
            reason: REASON.to_owned(),
        };
        let told = desk
            .gateways
            .drain(&attached.gateway, &name.namespace, request)
            .await;
        if let Err(fault) = told {
            let (group, consumer) = (name.to_string(), connection.consumer_id);
            tracing::debug!(group, consumer, %fault, "drain_not_told");
        }
    }
}
