//! Asks a coordinator for the group of a type that none serves.
//!
//! Whether one is made is the coordinators' to say, by their option `provision_for_tasks`; where no
//! coordinator lives, nobody makes one.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use hive_domain::{placement::agent::has_template, workflow::TaskDefinition};
use hive_protocol::{
    fault::{Fault, Reason},
    wire::{self, coordinator_service_client::CoordinatorServiceClient},
};
use hive_runtime::{
    peers::{Kind, Peers},
    tasks::{BACKGROUND, Tasks},
};
use parking_lot::Mutex;

/// How long a coordinator may take.
const WITHIN: Duration = Duration::from_secs(6);
/// How long after it was asked for the group of a task under way it is asked again.
const AGAIN: Duration = Duration::from_secs(5);

static COORDINATORS: Kind = Kind {
    daemon: "coordinator",
    about: "provisioning",
    missing: (
        Reason::NoCoordinator,
        "no coordinator is alive: groups are made from templates by a `hive-coordinator`",
    ),
};

/// The coordinators, and what they were asked for.
#[derive(Debug)]
pub(crate) struct Provisioning {
    pub(crate) peers: Peers,
    /// When the group of a template was asked for last: by namespace and group.
    asked: Mutex<BTreeMap<(Arc<str>, String), Instant>>,
}

impl Provisioning {
    pub(crate) fn new() -> Self {
        Self {
            peers: Peers::new(&COORDINATORS),
            asked: Mutex::default(),
        }
    }

    /// Has the groups made that these tasks lack, each once, or says of a dry run what they would
    /// be; answers by the type of the task. What has no template, or is not to be made, is missing.
    ///
    /// # Errors
    /// Why no coordinator could say it, where one lives.
    pub(crate) async fn ask<'a>(
        &self,
        namespace: &str,
        tasks: impl Iterator<Item = &'a TaskDefinition>,
        dry_run: bool,
    ) -> Result<BTreeMap<String, wire::PlaceTaskResponse>, Fault> {
        let mut answers = BTreeMap::new();
        let mut groups: BTreeMap<String, Option<wire::PlaceTaskResponse>> = BTreeMap::new();
        for task in tasks {
            let Some(template) = has_template(&task.kind).filter(|_| task.group.is_none()) else {
                continue;
            };
            let answer = match groups.get(&template.group) {
                Some(known) => known.clone(),
                None => {
                    let answer = self.one(namespace, &task.kind, dry_run).await?;
                    groups.insert(template.group, answer.clone());
                    answer
                },
            };
            if let Some(answer) = answer {
                answers.insert(task.kind.clone(), answer);
            }
        }
        Ok(answers)
    }

    async fn one(
        &self,
        namespace: &str,
        kind: &str,
        dry_run: bool,
    ) -> Result<Option<wire::PlaceTaskResponse>, Fault> {
        let request = wire::PlaceTaskRequest {
            r#type: kind.to_owned(),
            dry_run,
            ..wire::PlaceTaskRequest::default()
        };
        let place = |channel, request| async move {
            CoordinatorServiceClient::new(channel)
                .place_task(request)
                .await
        };
        let how = (namespace, WITHIN);
        match self.peers.first(how, request, place).await {
            Ok(answer) => Ok(Some(answer)),
            Err(fault) if matches!(fault.reason, Reason::UnservedType | Reason::NoCoordinator) => {
                Ok(None)
            },
            Err(fault) => Err(fault),
        }
    }

    /// Has the group made that a task under way lacks, in the background: the next look at the
    /// task finds it. Asked for at most every few seconds.
    pub(crate) fn ask_later(
        self: &Arc<Self>,
        tasks: &Tasks,
        namespace: &Arc<str>,
        task: &TaskDefinition,
    ) {
        let Some(template) = has_template(&task.kind).filter(|_| task.group.is_none()) else {
            return;
        };
        let mut asked = self.asked.lock();
        asked.retain(|_, at| at.elapsed() < AGAIN);
        let key = (Arc::clone(namespace), template.group);
        if self.peers.addresses().is_empty() || asked.contains_key(&key) {
            return;
        }
        asked.insert(key, Instant::now());
        drop(asked);
        let (me, namespace) = (Arc::clone(self), Arc::clone(namespace));
        let kind = task.kind.clone();
        tasks.spawn(BACKGROUND, "provision", async move {
            if let Err(fault) = me.one(&namespace, &kind, false).await {
                tracing::warn!(%fault, kind, "group_not_provisioned");
            }
        });
    }
}
