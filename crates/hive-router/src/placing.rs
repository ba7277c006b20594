//! Which group gets a task: facts of a namespace, read again when they are old.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use hive_domain::{
    placement::{self, Choice, GroupFacts, LoadFacts, Unserved, Wanted},
    stream::StreamDefinition,
    workflow::{TaskDefinition, WorkflowDefinition},
};
use hive_store::{Store, StoreError};
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use crate::stored::Target;

/// Facts are read again when they are older.
const FRESH: Duration = Duration::from_secs(1);
/// Where no group was found, facts are read again when they are older: it may just have been made.
const FRESH_FOR_UNSERVED: Duration = Duration::from_millis(50);

/// What is known of a namespace.
#[derive(Debug)]
pub(crate) struct Facts {
    groups: Mutex<Vec<GroupFacts>>,
    streams_of: BTreeMap<String, String>,
    streams: BTreeMap<String, StreamDefinition>,
    read: Instant,
}

impl Facts {
    /// Facts of groups, each with its name, its type and its stream.
    #[cfg(test)]
    pub(crate) fn of(groups: &[(&str, &str, &str)]) -> Self {
        let facts = groups.iter().map(|(name, kind, stream)| GroupFacts {
            name: (*name).to_owned(),
            stream: (*stream).to_owned(),
            agent_type: (*kind).to_owned(),
            waiting: 0,
            pending: 0,
            live_consumers: 1,
            max_consumers: 10,
            capabilities: Vec::new(),
            wanted_sets: Vec::new(),
            state: hive_domain::group::GroupState::Active,
        });
        let streams = groups.iter().map(|(name, _, stream)| {
            let (name, stream) = ((*name).to_owned(), (*stream).to_owned());
            (name, stream)
        });
        Self {
            groups: Mutex::new(facts.collect()),
            streams_of: streams.collect(),
            streams: BTreeMap::new(),
            read: Instant::now(),
        }
    }

    /// The group of a task and its stream. What is placed counts as waiting from now on, so that
    /// tasks that start together do not all go to the group that was free a moment ago.
    pub(crate) fn place(
        &self,
        workflow: &WorkflowDefinition,
        task: &TaskDefinition,
    ) -> Result<(Target, Choice), Unserved> {
        let mut groups = self.groups.lock();
        let choice = placement::choose_group(&groups, &wanted(workflow, task))?;
        if let Some(group) = groups.iter_mut().find(|group| group.name == choice.group) {
            group.waiting = group.waiting.saturating_add(1);
        }
        let stream = self.streams_of.get(&choice.group);
        let target = Target {
            stream: stream.cloned().unwrap_or_default(),
            group: choice.group.clone(),
        };
        Ok((target, choice))
    }

    /// As [`Self::place`], and nothing is placed.
    pub(crate) fn look(
        &self,
        workflow: &WorkflowDefinition,
        task: &TaskDefinition,
    ) -> Result<Choice, Unserved> {
        placement::choose_group(&self.groups.lock(), &wanted(workflow, task))
    }

    /// Whether the group that an attempt was sent to is no more, or is another one by now.
    pub(crate) fn is_gone(&self, target: &Target) -> bool {
        self.streams_of.get(&target.group) != Some(&target.stream)
    }

    /// The definition of a stream.
    pub(crate) fn stream(&self, name: &str) -> Option<&StreamDefinition> {
        self.streams.get(name)
    }

    /// What waits in groups and who serves them, for the limit of an adaptive run.
    pub(crate) fn load<'a>(&self, groups: impl Iterator<Item = &'a str>) -> LoadFacts {
        let facts = self.groups.lock();
        let mut load = LoadFacts::default();
        for name in groups {
            if let Some(group) = facts.iter().find(|group| group.name == name) {
                load.waiting = load.waiting.saturating_add(group.waiting);
                load.live_consumers = load.live_consumers.saturating_add(group.live_consumers);
            }
        }
        load
    }

    /// What is known of a group.
    pub(crate) fn group(&self, name: &str) -> Option<GroupFacts> {
        self.groups
            .lock()
            .iter()
            .find(|group| group.name == name)
            .cloned()
    }
}

/// What a task of a workflow asks of a group.
fn wanted(workflow: &WorkflowDefinition, task: &TaskDefinition) -> Wanted {
    Wanted {
        group: task.group.clone(),
        kind: task.kind.clone(),
        required_capabilities: task.required_capabilities.clone(),
        is_by_capability: workflow.strategy.is_by_capability(),
    }
}

/// The facts of all namespaces.
#[derive(Debug)]
pub(crate) struct Placing {
    store: Store,
    known: Mutex<BTreeMap<Arc<str>, Arc<Facts>>>,
    /// One reader at a time: those that come meanwhile take what it brings.
    reading: AsyncMutex<()>,
}

impl Placing {
    pub(crate) fn new(store: Store) -> Self {
        Self {
            store,
            known: Mutex::default(),
            reading: AsyncMutex::default(),
        }
    }

    /// Facts of a namespace, at most a second old.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub(crate) async fn facts(&self, namespace: &Arc<str>) -> Result<Arc<Facts>, StoreError> {
        self.no_older_than(namespace, FRESH).await
    }

    /// Facts of a namespace, read now but for those of a moment ago.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub(crate) async fn fresh(&self, namespace: &Arc<str>) -> Result<Arc<Facts>, StoreError> {
        self.no_older_than(namespace, FRESH_FOR_UNSERVED).await
    }

    /// Facts of a namespace, read now.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub(crate) async fn anew(&self, namespace: &Arc<str>) -> Result<Arc<Facts>, StoreError> {
        self.no_older_than(namespace, Duration::ZERO).await
    }

    async fn no_older_than(
        &self,
        namespace: &Arc<str>,
        age: Duration,
    ) -> Result<Arc<Facts>, StoreError> {
        let known = || {
            let known = self.known.lock().get(namespace).cloned();
            known.filter(|facts| facts.read.elapsed() < age)
        };
        if let Some(facts) = known() {
            return Ok(facts);
        }
        let _one_at_a_time = self.reading.lock().await;
        if let Some(facts) = known() {
            return Ok(facts);
        }
        match self.read(namespace).await {
            Ok(facts) => Ok(facts),
            // Outcomes and cancels need no facts that are new: what was known serves.
            Err(error) => {
                let known = self.known.lock().get(namespace).cloned();
                if known.is_some() {
                    tracing::warn!(%error, "facts_of_groups_not_read");
                }
                known.ok_or(error)
            },
        }
    }

    async fn read(&self, namespace: &Arc<str>) -> Result<Arc<Facts>, StoreError> {
        let read = Instant::now();
        let groups = self.store.group_facts(namespace).await?;
        let definitions = self.store.groups(namespace).await?;
        let streams = self.store.streams(namespace).await?;
        let facts = Arc::new(Facts {
            groups: Mutex::new(groups),
            streams_of: definitions
                .into_iter()
                .map(|group| (group.name, group.stream))
                .collect(),
            streams: streams
                .into_iter()
                .map(|stream| (stream.name.clone(), stream))
                .collect(),
            read,
        });
        self.known
            .lock()
            .insert(Arc::clone(namespace), Arc::clone(&facts));
        Ok(facts)
    }
}
