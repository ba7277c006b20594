//! Where a run lies and what its dispatches are called.
//!
//! The id of a run begins with its partition, so that a record that names a run says where it is.

use std::sync::Arc;

use hive_domain::{ownership, workflow::TaskIndex};
use hive_store::{Store, runs::Partition};
use uuid::Uuid;

/// Partitions of a namespace. Fixed: ids of runs and of workflows are found by it.
pub(crate) const PARTITIONS: u32 = 64;

/// A run and its namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RunName {
    pub(crate) namespace: Arc<str>,
    pub(crate) run_id: Arc<str>,
}

impl RunName {
    pub(crate) fn new(namespace: &str, run_id: &str) -> Self {
        Self {
            namespace: namespace.into(),
            run_id: run_id.into(),
        }
    }

    /// Where it lies; none when the id is none of ours.
    pub(crate) fn partition(&self, store: &Store) -> Option<Partition> {
        let number = partition_of_run(&self.run_id)?;
        Some(store.partition(&self.namespace, number))
    }
}

/// The partition of a workflow, and so of all its runs.
pub(crate) fn partition_of_workflow(workflow_id: &str) -> u32 {
    ownership::part(workflow_id, PARTITIONS)
}

fn partition_of_run(run_id: &str) -> Option<u32> {
    let (number, _) = run_id.split_once('-')?;
    number.parse().ok().filter(|number| *number < PARTITIONS)
}

/// A fresh id for a run of a workflow.
pub(crate) fn mint_run_id(workflow_id: &str) -> String {
    let partition = partition_of_workflow(workflow_id);
    format!("{partition}-{}", Uuid::now_v7().simple())
}

/// The dispatch of an attempt: what shards know it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DispatchKey {
    pub(crate) run_id: String,
    pub(crate) task: TaskIndex,
    pub(crate) attempt: u32,
}

impl DispatchKey {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let key = Self {
            run_id: parts.next()?.to_owned(),
            task: parts.next()?.parse().ok()?,
            attempt: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(key)
    }
}

/// The text of a dispatch.
pub(crate) fn dispatch_key(run_id: &str, task: TaskIndex, attempt: u32) -> String {
    format!("{run_id}/{task}/{attempt}")
}

#[cfg(test)]
mod tests {
    use super::{DispatchKey, PARTITIONS, dispatch_key, mint_run_id, partition_of_run};

    #[test]
    fn a_run_says_where_it_lies() {
        for workflow in ["a", "b", "feature_development_workflow"] {
            let run_id = mint_run_id(workflow);
            assert_eq!(
                partition_of_run(&run_id),
                Some(super::partition_of_workflow(workflow))
            );
        }
        for foreign in ["", "x", "64-a", "-1-a"] {
            assert_eq!(partition_of_run(foreign), None, "{foreign}");
        }
        assert!(PARTITIONS.is_power_of_two());
    }

    #[test]
    fn a_dispatch_key_is_read_back() {
        let key = DispatchKey::parse(&dispatch_key("7-a", 12, 3)).expect("a key");
        assert_eq!((key.run_id.as_str(), key.task, key.attempt), ("7-a", 12, 3));
        for foreign in ["", "7-a", "7-a/1", "7-a/1/2/3", "7-a/x/1"] {
            assert_eq!(DispatchKey::parse(foreign), None, "{foreign}");
        }
    }
}
