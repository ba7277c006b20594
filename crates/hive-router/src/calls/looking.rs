//! Showing runs, their results, their history, and why a task is not running.

use std::sync::Arc;

use bytes::Bytes;
use hive_domain::workflow::{RunStatus, TaskIndex};
use hive_protocol::{
    fault::{Fault, Reason},
    wire, workflow,
};

use super::{Answer, Calls};
use crate::{
    desk::StepError,
    history,
    names::{PARTITIONS, RunName},
    view,
};

/// Longest result that rides along with a look at a run, in bytes.
const RESULT_SHOWN: u64 = 65_536;
/// Results that ride along with one look at a run, in bytes.
const RESULTS_SHOWN: u64 = 4 * 1024 * 1024;
/// Runs read at once for a list.
const PAGE: usize = 200;
/// Runs that one call looks through for labels.
const LOOKED_THROUGH: usize = 5_000;

impl Calls {
    pub(crate) async fn get_workflow(
        &self,
        namespace: &str,
        request: wire::GetWorkflowRequest,
    ) -> Answer<wire::GetWorkflowResponse> {
        let name = self
            .run(namespace, &request.workflow_id, &request.run_id)
            .await?;
        let mut workflow = self.snapshot(&name).await?;
        if request.include_results {
            self.fill_results(&name, &mut workflow).await?;
        }
        Ok(wire::GetWorkflowResponse {
            workflow: Some(workflow),
        })
    }

    /// A run with the newest event that it shows.
    pub(crate) async fn snapshot(&self, name: &RunName) -> Answer<wire::Workflow> {
        let partition = name.partition(&self.desk.store).ok_or(StepError::Gone)?;
        // Before the look: what happens in between is shown twice, never missed.
        let event_id = self
            .desk
            .store
            .newest_event(&partition, &name.run_id)
            .await?;
        let mut workflow = self
            .desk
            .look(name, |loaded| view::workflow(loaded, &name.run_id))
            .await?;
        workflow.event_id = event_id;
        Ok(workflow)
    }

    /// Puts results into a shown run, as far as there is room for them.
    pub(super) async fn fill_results(
        &self,
        name: &RunName,
        workflow: &mut wire::Workflow,
    ) -> Answer<()> {
        let partition = name.partition(&self.desk.store).ok_or(StepError::Gone)?;
        let with_result: Vec<TaskIndex> = (0..)
            .zip(&workflow.tasks)
            .filter_map(|(number, task)| task.has_result.then_some(number))
            .collect();
        let (store, run_id) = (&self.desk.store, &name.run_id);
        let mut left = RESULTS_SHOWN;
        for some in with_result.chunks(100) {
            let lengths = store.result_lengths(&partition, run_id, some).await?;
            let shown: Vec<TaskIndex> = some
                .iter()
                .zip(lengths)
                .filter(|(_, length)| {
                    let fits = *length <= RESULT_SHOWN.min(left);
                    left = if fits {
                        left.saturating_sub(*length)
                    } else {
                        left
                    };
                    fits
                })
                .map(|(task, _)| *task)
                .collect();
            let results = store.run_results(&partition, run_id, &shown).await?;
            for (task, result) in shown.iter().zip(results) {
                let place = usize::try_from(*task).unwrap_or(usize::MAX);
                if let (Some(task), Some(result)) = (workflow.tasks.get_mut(place), result) {
                    task.result = result;
                }
            }
        }
        Ok(())
    }

    pub(crate) async fn get_task_result(
        &self,
        namespace: &str,
        request: wire::GetTaskResultRequest,
    ) -> Answer<wire::GetTaskResultResponse> {
        let name = self
            .run(namespace, &request.workflow_id, &request.run_id)
            .await?;
        let task = self
            .task(&name, &request.workflow_id, &request.task_id)
            .await?;
        match self.result(&name, task).await? {
            Some(result) => Ok(wire::GetTaskResultResponse { result }),
            None => Err(Fault::new(
                Reason::ResultNotFound,
                format!("task `{}` has no result", request.task_id),
            )),
        }
    }

    /// The result of a task.
    pub(super) async fn result(&self, name: &RunName, task: TaskIndex) -> Answer<Option<Bytes>> {
        let partition = name.partition(&self.desk.store).ok_or(StepError::Gone)?;
        let (store, run_id) = (&self.desk.store, &name.run_id);
        let mut results = store.run_results(&partition, run_id, &[task]).await?;
        Ok(results.pop().flatten())
    }

    pub(crate) async fn list_workflows(
        &self,
        namespace: &str,
        request: wire::ListWorkflowsRequest,
    ) -> Answer<wire::ListWorkflowsResponse> {
        let listing = workflow::list(&request).map_err(Fault::invalid)?;
        let limit = usize::try_from(listing.limit).unwrap_or(usize::MAX);
        let mut before = (
            listing
                .created_before
                .map_or(u64::MAX >> 11, |at| at.as_millis()),
            String::new(),
        );
        if let Some(cursor) = &listing.cursor {
            before = read_cursor(cursor)
                .ok_or_else(|| Fault::invalid_field("cursor", "is none that a list answered"))?;
        }
        let since = listing.created_since.map_or(0, |at| at.as_millis());
        let here: Vec<_> = (0..PARTITIONS)
            .map(|number| self.desk.store.partition(namespace, number))
            .collect();
        let status = listing.state.map(RunStatus::as_str);
        let (mut workflows, mut seen, mut is_end) = (Vec::new(), 0, false);
        let page_size = if listing.labels.is_empty() {
            limit
        } else {
            PAGE
        };
        while workflows.len() < limit && seen < LOOKED_THROUGH && !is_end {
            let page = self
                .desk
                .store
                .list_runs(&here, status, since, (before.0, &before.1), page_size)
                .await?;
            is_end = page.is_end;
            seen += page.runs.len().max(1);
            let last = page.last;
            for one in page.runs {
                before = (one.created_ms, one.run_id.clone());
                let shown = view::heading(&one).map_err(StepError::from)?;
                let is_wanted = listing
                    .labels
                    .iter()
                    .all(|(key, value)| shown.labels.get(key) == Some(value));
                if is_wanted {
                    workflows.push(shown);
                }
                if workflows.len() == limit {
                    break;
                }
            }
            // The last one read may have been deleted meanwhile; what was not looked at is not
            // passed over.
            let is_full = workflows.len() == limit;
            is_end &= !is_full || last.as_ref() == Some(&before);
            if let Some(last) = last.filter(|_| !is_full) {
                before = last;
            }
        }
        let next_cursor = if is_end {
            String::new()
        } else {
            format!("{}/{}", before.0, before.1)
        };
        Ok(wire::ListWorkflowsResponse {
            workflows,
            next_cursor,
        })
    }

    pub(crate) async fn get_history(
        &self,
        namespace: &str,
        request: wire::GetHistoryRequest,
    ) -> Answer<wire::GetHistoryResponse> {
        let asked = workflow::history(&request).map_err(Fault::invalid)?;
        let run_id = asked.run_id.unwrap_or_default();
        let name = self.run(namespace, &asked.workflow_id, &run_id).await?;
        let limit = usize::try_from(asked.limit).unwrap_or(usize::MAX);
        let after = asked.after_event_id.unwrap_or_default();
        let mut events = self.events(&name, &after, limit.saturating_add(1)).await?;
        let more = events.len() > limit;
        events.truncate(limit);
        Ok(wire::GetHistoryResponse { events, more })
    }

    /// Events of a run behind one; from the beginning where that is empty.
    pub(crate) async fn events(
        &self,
        name: &RunName,
        after: &str,
        limit: usize,
    ) -> Answer<Vec<wire::WorkflowEvent>> {
        let after = if after.is_empty() { "0-0" } else { after };
        let is_event = |text: &str| {
            let parts = text.split_once('-');
            parts.is_some_and(|(ms, number)| {
                ms.parse::<u64>().is_ok() && number.parse::<u64>().is_ok()
            })
        };
        if !is_event(after) {
            return Err(Fault::invalid_field(
                "after_event_id",
                "is none that a history or a watch answered",
            ));
        }
        let partition = name.partition(&self.desk.store).ok_or(StepError::Gone)?;
        let records = self
            .desk
            .store
            .run_history(&partition, &name.run_id, after, limit)
            .await?;
        let read = self.desk.look(name, |loaded| {
            let events = records.into_iter();
            events
                .filter_map(|record| history::event(&loaded.run, record))
                .collect()
        });
        Ok(read.await?)
    }

    pub(crate) async fn explain_task(
        &self,
        namespace: &str,
        request: wire::ExplainTaskRequest,
    ) -> Answer<wire::ExplainTaskResponse> {
        let name = self
            .run(namespace, &request.workflow_id, &request.run_id)
            .await?;
        let task = self
            .task(&name, &request.workflow_id, &request.task_id)
            .await?;
        let namespace = Arc::clone(&name.namespace);
        let facts = self.desk.placing.facts(&namespace).await?;
        let explained = self.desk.look(&name, |loaded| {
            let mut explained = view::explain(loaded, task)?;
            if explained.waits_for == "queue"
                && let Some(group) = loaded.target(task).and_then(|at| facts.group(&at.group))
            {
                explained.lines.push(format!(
                    "the group is {}, {} messages wait in it and {} consumers are there",
                    group.state, group.waiting, group.live_consumers
                ));
            }
            Some(explained)
        });
        explained
            .await?
            .ok_or_else(|| Fault::no_task(&request.workflow_id, &request.task_id))
    }
}

fn read_cursor(cursor: &str) -> Option<(u64, String)> {
    let (created, run_id) = cursor.split_once('/')?;
    Some((created.parse().ok()?, run_id.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::read_cursor;

    #[test]
    fn a_cursor_is_read_back_and_anything_else_refused() {
        assert_eq!(read_cursor("5/a"), Some((5, "a".to_owned())));
        assert_eq!(read_cursor("a"), None);
        assert_eq!(read_cursor("x/a"), None);
    }
}
