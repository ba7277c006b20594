//! What is read of runs: lists, timers, debts, history, results.

use bytes::Bytes;
use redis::{Cmd, Pipeline};

use super::{Partition, RunKey, pairs};
use crate::{
    connection::{Purpose, Store},
    error::StoreError,
    reply::{self, Reply},
    scripts::{Call, RUN_INPUTS},
};

/// Largest result that rides along with a task, in bytes.
pub(crate) const INLINE_EACH_MAX: u64 = 65_536;
/// Largest results that ride along with one task together, in bytes.
pub(crate) const INLINE_ALL_MAX: u64 = 1_048_576;

/// Runs read of a partition at least.
const SHARE: usize = 4;

/// A run of a list: when it was created, its id, where it lies.
type Found<'a> = (u64, String, &'a Partition);

/// The head of a run in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heading {
    /// The run.
    pub run_id: String,
    /// When it was created, in ms since 1970.
    pub created_ms: u64,
    /// The fields of its head, version and creation time included.
    pub head: Vec<(String, Bytes)>,
}

/// Some runs of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The newest first; those that were deleted meanwhile are left out.
    pub runs: Vec<Heading>,
    /// Creation time and id of the last one looked at: where the list goes on.
    pub last: Option<(u64, String)>,
    /// Whether there are no more.
    pub is_end: bool,
}

/// What is owed to a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxEntry {
    /// Its id: the time in ms since 1970 when it was written, and a number.
    pub id: String,
    /// What the router wrote.
    pub body: Bytes,
}

/// Something that happened in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRecord {
    /// Its id: the time in ms since 1970 when it was written, and a number.
    pub id: String,
    /// What the router wrote.
    pub body: Bytes,
}

/// A task whose message is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs {
    /// Its number.
    pub task: u32,
    /// The tasks that it depends on.
    pub dependencies: Vec<u32>,
}

/// The result of a dependency, as far as it rides along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskResult {
    /// There is none.
    None,
    /// It is too large.
    Omitted,
    /// It.
    Bytes(Bytes),
}

/// What is stored for the message of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskInputs {
    /// What its message says; empty where nothing is stored.
    pub content: Bytes,
    /// Question and answer, where it asked for input; else empty.
    pub answer: Bytes,
    /// The results of its dependencies, in the order asked for.
    pub results: Vec<TaskResult>,
}

impl Store {
    /// Notes that a namespace has workflows, for those who look after them.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn note_workflows(&self, namespace: &str) -> Result<(), StoreError> {
        let mut add = Cmd::new();
        add.arg("SADD")
            .arg(self.control_keys().workflow_namespaces())
            .arg(namespace);
        self.command(Purpose::Control, add).await.map(drop)
    }

    /// Namespaces that ever had a workflow.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn workflow_namespaces(&self) -> Result<Vec<String>, StoreError> {
        let mut read = Cmd::new();
        read.arg("SMEMBERS")
            .arg(self.control_keys().workflow_namespaces());
        let names = self.command(Purpose::Control, read).await?.list()?;
        names.into_iter().map(Reply::text).collect()
    }

    /// The newest runs of partitions behind `before` (creation time and run id of the last one
    /// seen), created at `since_ms` or later, at most `limit` and often fewer, with their heads;
    /// all, or those of one status.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn list_runs(
        &self,
        partitions: &[Partition],
        status: Option<&str>,
        since_ms: u64,
        before: (u64, &str),
        limit: usize,
    ) -> Result<Page, StoreError> {
        // Of many partitions each has a small share of a page: reading a whole page of each would
        // read most of it for nothing.
        let mut each = limit
            .saturating_mul(2)
            .checked_div(partitions.len())
            .unwrap_or(0)
            .saturating_add(SHARE);
        let (found, last, is_end) = loop {
            let (mut found, cut) = self
                .newest_of_each(partitions, status, (since_ms, before), each)
                .await?;
            // Below the last one of a partition that has more, others may be missing.
            if let Some(cut) = &cut {
                found.retain(|(created, run_id, _)| (*created, run_id) >= (cut.0, &cut.1));
            }
            if found.is_empty() && cut.is_some() {
                // So many of one ms that all that was read is in front of `before`.
                each = each.saturating_mul(4);
                continue;
            }
            let is_end = cut.is_none() && found.len() <= limit;
            found.truncate(limit);
            let last = found
                .last()
                .map(|(created, run_id, _)| (*created, run_id.clone()));
            break (found, last, is_end);
        };
        let mut heads = Pipeline::new();
        for (_, run_id, partition) in &found {
            heads
                .cmd("HGETALL")
                .arg(partition.run(run_id, RunKey::Head));
        }
        if found.is_empty() {
            return Ok(Page {
                runs: Vec::new(),
                last,
                is_end,
            });
        }
        let replies = self.pipeline(Purpose::Control, heads).await?;
        let mut runs = Vec::new();
        for ((created_ms, run_id, _), reply) in found.into_iter().zip(replies) {
            let mut head = Vec::new();
            for (name, value) in pairs(reply)? {
                head.push((name.text()?, value.bytes()?.into()));
            }
            // One that was deleted in between has no head any more.
            if !head.is_empty() {
                runs.push(Heading {
                    run_id,
                    created_ms,
                    head,
                });
            }
        }
        Ok(Page { runs, last, is_end })
    }

    /// The newest `each` runs of each partition behind `before`, in order, and the newest of the
    /// last ones of those partitions that have more.
    async fn newest_of_each<'a>(
        &self,
        partitions: &'a [Partition],
        status: Option<&str>,
        (since_ms, before): (u64, (u64, &str)),
        each: usize,
    ) -> Result<(Vec<Found<'a>>, Option<(u64, String)>), StoreError> {
        let mut ids = Pipeline::new();
        for partition in partitions {
            let key = status.map_or_else(|| partition.runs(), |one| partition.runs_of(one));
            ids.cmd("ZRANGE")
                .arg(key)
                .arg(before.0)
                .arg(since_ms)
                .arg("BYSCORE")
                .arg("REV")
                .arg("LIMIT")
                .arg(0)
                .arg(each)
                .arg("WITHSCORES");
        }
        let (mut found, mut cut) = (Vec::new(), None);
        let replies = self.pipeline(Purpose::Control, ids).await?;
        for (partition, reply) in partitions.iter().zip(replies) {
            let rows = pairs(reply)?;
            let is_full = rows.len() >= each;
            let mut last = None;
            for (run_id, created) in rows {
                let (created, run_id) = (created.number()?, run_id.text()?);
                last = Some((created, run_id.clone()));
                if (created, run_id.as_str()) < before {
                    found.push((created, run_id, partition));
                }
            }
            if is_full {
                cut = cut.max(last);
            }
        }
        found.sort_unstable_by(|a, b| (b.0, &b.1).cmp(&(a.0, &a.1)));
        Ok((found, cut))
    }

    /// For each partition, runs that must be looked at by `now_ms`, at most `limit` of each.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn due_runs(
        &self,
        partitions: &[Partition],
        now_ms: u64,
        limit: usize,
    ) -> Result<Vec<Vec<String>>, StoreError> {
        self.below(partitions, Partition::timers, now_ms, limit)
            .await
    }

    /// For each partition, runs that ended before `ended_ms`, at most `limit` of each.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn runs_ended_before(
        &self,
        partitions: &[Partition],
        ended_ms: u64,
        limit: usize,
    ) -> Result<Vec<Vec<String>>, StoreError> {
        self.below(partitions, Partition::finished, ended_ms, limit)
            .await
    }

    /// Keeps a run that has ended as if it had ended at this time; one that is gone stays so.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn keep_ended(
        &self,
        partition: &Partition,
        run_id: &str,
        ended_ms: u64,
    ) -> Result<(), StoreError> {
        let mut keep = Cmd::new();
        keep.arg("ZADD").arg(partition.finished()).arg("XX");
        keep.arg(ended_ms).arg(run_id);
        self.command(Purpose::Control, keep).await.map(drop)
    }

    async fn below(
        &self,
        partitions: &[Partition],
        key: impl Fn(&Partition) -> String,
        score: u64,
        limit: usize,
    ) -> Result<Vec<Vec<String>>, StoreError> {
        let mut look = Pipeline::new();
        for partition in partitions {
            look.cmd("ZRANGE")
                .arg(key(partition))
                .arg("-inf")
                .arg(score)
                .arg("BYSCORE")
                .arg("LIMIT")
                .arg(0)
                .arg(limit);
        }
        let replies = self.pipeline(Purpose::Control, look).await?;
        replies
            .into_iter()
            .map(|reply| reply.list()?.into_iter().map(Reply::text).collect())
            .collect()
    }

    /// For each partition, what is owed to shards behind an entry (`0-0` from the beginning) and
    /// was written by `until_ms`, the oldest first, at most `limit` of each.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn read_outboxes(
        &self,
        partitions: &[(Partition, String)],
        until_ms: u64,
        limit: usize,
    ) -> Result<Vec<Vec<OutboxEntry>>, StoreError> {
        let mut read = Pipeline::new();
        for (partition, after) in partitions {
            read.cmd("XRANGE")
                .arg(partition.outbox())
                .arg(format!("({after}"))
                .arg(until_ms)
                .arg("COUNT")
                .arg(limit);
        }
        let replies = self.pipeline(Purpose::Control, read).await?;
        replies
            .into_iter()
            .map(|reply| {
                let entries = reply.list()?.into_iter().map(|entry| {
                    let (id, body) = entry.entry()?;
                    Ok(OutboxEntry {
                        id,
                        body: body.into(),
                    })
                });
                entries.collect()
            })
            .collect()
    }

    /// Takes off an outbox what is done.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn clear_outbox(
        &self,
        partition: &Partition,
        ids: &[String],
    ) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut remove = Cmd::new();
        remove.arg("XDEL").arg(partition.outbox()).arg(ids);
        self.command(Purpose::Control, remove).await.map(drop)
    }

    /// History of a run behind a record (`0-0` from the beginning), the oldest first.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn run_history(
        &self,
        partition: &Partition,
        run_id: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<HistoryRecord>, StoreError> {
        let mut read = Cmd::new();
        read.arg("XRANGE")
            .arg(partition.run(run_id, RunKey::History))
            .arg(format!("({after}"))
            .arg("+")
            .arg("COUNT")
            .arg(limit);
        let records = self.command(Purpose::Control, read).await?.list()?;
        let records = records.into_iter().map(|record| {
            let (id, body) = record.entry()?;
            Ok(HistoryRecord {
                id,
                body: body.into(),
            })
        });
        records.collect()
    }

    /// Id of the newest history record of a run; `0-0` where there is none.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn newest_event(
        &self,
        partition: &Partition,
        run_id: &str,
    ) -> Result<String, StoreError> {
        let mut read = Cmd::new();
        read.arg("XREVRANGE")
            .arg(partition.run(run_id, RunKey::History))
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(1);
        let mut records = self.command(Purpose::Control, read).await?.list()?;
        match records.pop() {
            Some(record) => Ok(record.entry()?.0),
            None => Ok("0-0".to_owned()),
        }
    }

    /// What the messages of tasks say, in the order asked for; none where nothing is stored.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn run_contents(
        &self,
        partition: &Partition,
        run_id: &str,
        tasks: &[u32],
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        let key = partition.run(run_id, RunKey::Contents);
        self.values(key, tasks).await
    }

    /// Results of tasks, in the order asked for; none where there is none.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn run_results(
        &self,
        partition: &Partition,
        run_id: &str,
        tasks: &[u32],
    ) -> Result<Vec<Option<Bytes>>, StoreError> {
        let key = partition.run(run_id, RunKey::Results);
        self.values(key, tasks).await
    }

    async fn values(&self, key: String, tasks: &[u32]) -> Result<Vec<Option<Bytes>>, StoreError> {
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        let mut read = Cmd::new();
        read.arg("HMGET").arg(key).arg(tasks);
        let values = self.command(Purpose::Control, read).await?.list()?;
        let values = values.into_iter().map(Reply::maybe_bytes);
        values
            .map(|value| Ok(value?.map(Bytes::from)))
            .collect::<Result<_, _>>()
    }

    /// Lengths of results in bytes, in the order asked for; 0 where there is none.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn result_lengths(
        &self,
        partition: &Partition,
        run_id: &str,
        tasks: &[u32],
    ) -> Result<Vec<u64>, StoreError> {
        let mut look = Pipeline::new();
        for task in tasks {
            look.cmd("HSTRLEN")
                .arg(partition.run(run_id, RunKey::Results))
                .arg(*task);
        }
        if tasks.is_empty() {
            return Ok(Vec::new());
        }
        let lengths = self.pipeline(Purpose::Control, look).await?;
        lengths.into_iter().map(Reply::number).collect()
    }

    /// Question and answer of a task that asked for input; empty where it did not.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn task_answer(
        &self,
        partition: &Partition,
        run_id: &str,
        task: u32,
    ) -> Result<Bytes, StoreError> {
        let mut read = Cmd::new();
        read.arg("HGET")
            .arg(partition.run(run_id, RunKey::Answers))
            .arg(task);
        let value = self.command(Purpose::Control, read).await?;
        Ok(value.maybe_bytes()?.unwrap_or_default().into())
    }

    /// What is stored for the messages of tasks; of the first ones only, where all of them would be
    /// more than 4 MiB.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn task_inputs(
        &self,
        partition: &Partition,
        run_id: &str,
        tasks: &[Inputs],
    ) -> Result<Vec<TaskInputs>, StoreError> {
        let mut call = Call::new(&RUN_INPUTS);
        for key in [RunKey::Contents, RunKey::Results, RunKey::Answers] {
            call.key(partition.run(run_id, key));
        }
        call.number(INLINE_EACH_MAX)
            .number(INLINE_ALL_MAX)
            .count(tasks.len());
        for task in tasks {
            call.number(u64::from(task.task))
                .count(task.dependencies.len());
            for dependency in &task.dependencies {
                call.number(u64::from(*dependency));
            }
        }
        let value = self.run_safely(Purpose::Control, call).await?;
        let (_, mut parts) = reply::status("run_inputs", value)?;
        let found = parts.pop().ok_or_else(|| StoreError::reply("run_inputs"))?;
        let found = found.list()?.into_iter().map(|task| {
            let [content, answer, results] = task.array()?;
            let results = results.list()?.into_iter().map(|result| {
                let bytes = Bytes::from(result.bytes()?);
                Ok(match bytes.first() {
                    None => TaskResult::None,
                    Some(b'+') => TaskResult::Bytes(bytes.slice(1..)),
                    Some(_) => TaskResult::Omitted,
                })
            });
            Ok(TaskInputs {
                content: content.bytes()?.into(),
                answer: answer.bytes()?.into(),
                results: results.collect::<Result<_, StoreError>>()?,
            })
        });
        found.collect()
    }
}
