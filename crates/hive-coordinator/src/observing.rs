//! The figures of groups for whoever scrapes metrics, each told by the coordinator that owns the
//! group.
//!
//! Groups that are scaled are read for that anyway; the others are read here, every ten seconds.
//! What is shown of a group goes when the group does, or its owner changes. Every coordinator tells
//! what Redis says of itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hive_domain::group::GroupDefinition;
use hive_runtime::metrics::Rows;
use hive_store::StoreError;
use hive_store::demand::GroupDemand;
use parking_lot::Mutex;

use crate::desk::Desk;
use crate::metrics;
use crate::roster::{GroupName, Roster};
use crate::shard::every;

/// Figures are at most so old, but for what a failed reading adds.
const FRESH: Duration = Duration::from_secs(10);
/// Pause between two looks for figures that are too old.
const PAUSE: Duration = Duration::from_secs(2);
/// Groups that are read at once.
const AT_ONCE: usize = 100;

/// What was read of groups last.
#[derive(Debug)]
pub(crate) struct Observed {
    groups: Rows<15>,
    redis: Rows<1>,
    read: Mutex<BTreeMap<GroupName, Instant>>,
}

impl Default for Observed {
    fn default() -> Self {
        Self {
            groups: Rows::shown(&metrics::GROUPS),
            redis: Rows::shown(&metrics::REDIS),
            read: Mutex::default(),
        }
    }
}

impl Observed {
    /// Shows what was read of a group now, and how many consumers it wants where it is scaled.
    pub(crate) fn note(&self, name: &GroupName, demand: &GroupDemand, desired: Option<u32>) {
        let values = metrics::of_group(demand, desired);
        self.groups.set(&[&name.namespace, &name.group], values);
        self.read.lock().insert(name.clone(), Instant::now());
    }

    /// Forgets all groups but those, and answers which of them nobody else reads and were not read
    /// for long.
    fn stale<'a>(
        &self,
        groups: &BTreeMap<GroupName, &'a GroupDefinition>,
    ) -> BTreeMap<Arc<str>, Vec<(GroupName, &'a GroupDefinition)>> {
        let mut read = self.read.lock();
        read.retain(|name, _| groups.contains_key(name));
        self.groups.keep(|labels| match labels {
            [namespace, group] => read.contains_key(&GroupName {
                namespace: namespace.as_str().into(),
                group: group.as_str().into(),
            }),
            _ => false,
        });
        let mut stale: BTreeMap<Arc<str>, Vec<_>> = BTreeMap::new();
        let unscaled = groups
            .iter()
            .filter(|(_, group)| !group.settings.auto_scale_enabled);
        for (name, definition) in unscaled {
            let is_fresh = read
                .get(name)
                .is_some_and(|at| at.elapsed() + PAUSE < FRESH);
            if !is_fresh {
                let of_namespace = stale.entry(Arc::clone(&name.namespace)).or_default();
                of_namespace.push((name.clone(), *definition));
            }
        }
        stale
    }
}

/// Reads the figures of groups again and again; never ends by itself.
pub(crate) async fn run(desk: Arc<Desk>) {
    let mut pace = every(PAUSE);
    let mut asked: Option<Instant> = None;
    loop {
        pace.tick().await;
        let roster = desk.roster();
        if let Err(error) = round(&desk, &roster).await {
            tracing::debug!(%error, "figures_not_read");
        }
        if asked.is_none_or(|at| at.elapsed() + PAUSE > FRESH) {
            asked = Some(Instant::now());
            if let Err(error) = of_redis(&desk).await {
                tracing::debug!(%error, "redis_not_asked");
            }
        }
    }
}

async fn of_redis(desk: &Desk) -> Result<(), StoreError> {
    let mut info = Vec::new();
    for section in ["memory", "clients", "cpu"] {
        info.extend(desk.store.info(section).await?);
    }
    desk.observed.redis.set(&[], metrics::of_redis(&info));
    Ok(())
}

async fn round(desk: &Desk, roster: &Roster) -> Result<(), StoreError> {
    let owned: BTreeMap<GroupName, &GroupDefinition> = roster.owned().collect();
    for (namespace, groups) in desk.observed.stale(&owned) {
        for some in groups.chunks(AT_ONCE) {
            let definitions: Vec<&GroupDefinition> = some.iter().map(|(_, one)| *one).collect();
            let demands = desk.store.demand(&namespace, &definitions).await?;
            for (name, _) in some {
                if let Some(demand) = demands.get(&*name.group) {
                    desk.observed.note(name, demand, None);
                }
            }
        }
    }
    Ok(())
}
