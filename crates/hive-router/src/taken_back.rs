//! Takes attempts back from groups that are gone, so that others get them.
//!
//! A task is placed by facts that may be a second old, and so on a group that was just deleted. Its
//! shard refuses it; but an attempt has one place, so that it is never in two. First of all its
//! dispatch key is decided at that shard: whoever still carries the attempt there adds nothing from
//! then on. That decision is an outcome as any other, and the next attempt follows it: whoever
//! follows the shard, or audits the run, goes on where this router dies in between.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use hive_domain::workflow::TaskIndex;
use hive_store::{
    StoreError,
    tasks::{Resolved, TaskOutcome},
};

use crate::{
    desk::{Desk, StepError},
    metrics,
    names::{RunName, dispatch_key},
    outbox::{Owed, is_owed},
    placing::Facts,
    settled,
    stored::Target,
};

/// What the shard's record of a cancelled attempt says where it was taken back. Routers before this
/// one take it for a reason.
pub(crate) const TAKEN_BACK: &[u8] = b"taken back: its group is gone";
/// Attempts that are taken back at once.
const AT_ONCE: usize = 32;

impl Desk {
    /// Takes attempts back that nobody has begun, whose group is gone and whose task another group
    /// serves; answers whether there was one.
    pub(crate) async fn take_back(
        self: &Arc<Self>,
        name: &RunName,
        attempts: &[(TaskIndex, u32)],
    ) -> Result<bool, StepError> {
        if attempts.is_empty() {
            return Ok(false);
        }
        // While no group serves them they are looked at again and again.
        let facts = self.placing.facts(&name.namespace).await?;
        if self.displaced(name, attempts, &facts).await?.is_empty() {
            return Ok(false);
        }
        let facts = self.placing.anew(&name.namespace).await?;
        let displaced = self.displaced(name, attempts, &facts).await?;
        let mut decisions = stream::iter(displaced)
            .map(|(task, attempt, target)| async move {
                let shard = self.store.shard(&name.namespace, &target.stream, 0);
                let key = dispatch_key(&name.run_id, task, attempt);
                let why = Bytes::from_static(TAKEN_BACK);
                let outcome = TaskOutcome::Cancelled;
                let resolved = self
                    .store
                    .resolve_task(&shard, &target.group, &key, outcome, why);
                Ok::<_, StoreError>((task, attempt, resolved.await?))
            })
            .buffer_unordered(AT_ONCE);
        let mut taken = Vec::new();
        while let Some(decided) = decisions.next().await {
            match decided {
                Ok((task, attempt, Resolved::Ended { .. })) => taken.push((task, attempt)),
                // Its outcome is on its way.
                Ok((_, _, Resolved::Already(_))) => {},
                Err(error) => metrics::not_carried_out(&error),
            }
        }
        drop(decisions);
        if taken.is_empty() {
            return Ok(false);
        }
        let why = Bytes::from_static(TAKEN_BACK);
        let step = self.step(name, |draft| {
            for (task, attempt) in &taken {
                let outcome = TaskOutcome::Cancelled;
                // Whoever follows the shard may have been faster.
                if let Err(illegal) = settled::ended(draft, *task, *attempt, outcome, &why) {
                    metrics::illegal_event(&illegal);
                }
            }
            Ok::<(), std::convert::Infallible>(())
        });
        let Ok(()) = step.await?;
        tracing::info!(
            run_id = &*name.run_id,
            attempts = taken.len(),
            "taken_back_from_groups_that_are_gone"
        );
        Ok(true)
    }

    /// Those of the attempts that nobody has begun, whose group is gone and whose task another one
    /// serves; each with the group that is gone.
    async fn displaced(
        &self,
        name: &RunName,
        attempts: &[(TaskIndex, u32)],
        facts: &Facts,
    ) -> Result<Vec<(TaskIndex, u32, Target)>, StepError> {
        let displaced = self.look(name, |loaded| {
            let run = &loaded.run;
            let definition = run.definition();
            let is_served = |task: TaskIndex| {
                let place = usize::try_from(task).unwrap_or(usize::MAX);
                let task = definition.tasks.get(place);
                task.is_some_and(|task| facts.look(definition, task).is_ok())
            };
            let found = attempts.iter().filter_map(|(task, attempt)| {
                let (task, attempt) = (*task, *attempt);
                let target = loaded.target(task)?;
                // Its shard is asked to decide it otherwise.
                let is_free = run.task(task)?.resolving.is_none();
                let is_displaced = is_free
                    && is_owed(run, Owed::Dispatch { task, attempt })
                    && facts.is_gone(target)
                    && is_served(task);
                is_displaced.then(|| (task, attempt, target.clone()))
            });
            found.collect()
        });
        displaced.await
    }
}
