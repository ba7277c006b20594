//! Runs of workflows: where they lie, how one is read whole and written by steps.
//!
//! All keys of a partition share one slot, so that what happened, what it changes and what is owed
//! for it are one step of Redis. What the bytes of a state, a note or an outbox entry mean is the
//! router's business. What is read of many runs is in `listing`.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use redis::Cmd;

mod listing;

pub use self::listing::{
    Heading, HistoryRecord, Inputs, OutboxEntry, Page, TaskInputs, TaskResult,
};

use crate::{
    connection::{Purpose, Store},
    error::StoreError,
    reply::{self, Reply},
    scripts::{Call, RUN_COMMIT, RUN_CREATE, RUN_DELETE, RUN_READ},
};

/// Most history records that are kept of a run: a task has about six, the largest run 10,000 tasks.
pub const HISTORY_MAX: u64 = 100_000;

/// A part of a namespace's workflows; the unit of ownership and of atomicity.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition {
    base: Arc<str>,
}

/// What is stored of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunKey {
    /// Hash: version, times, status, and what else the router keeps of the run as a whole.
    Head,
    /// String: the definition, without contents.
    Plan,
    /// Hash: task number to what its message says.
    Contents,
    /// String: a record of fixed length per task.
    States,
    /// Hash: task number to the texts of its state.
    Notes,
    /// Hash: task number to result.
    Results,
    /// Hash: task number to question and answer, of tasks that asked for input.
    Answers,
    /// Stream: what happened.
    History,
}

impl RunKey {
    /// All of them: what is deleted with a run.
    pub const ALL: [Self; 8] = [
        Self::Head,
        Self::Plan,
        Self::Contents,
        Self::States,
        Self::Notes,
        Self::Results,
        Self::Answers,
        Self::History,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Plan => "plan",
            Self::Contents => "contents",
            Self::States => "states",
            Self::Notes => "notes",
            Self::Results => "results",
            Self::Answers => "answers",
            Self::History => "history",
        }
    }
}

impl Partition {
    /// The partition `number` of a namespace. A tilde is in no name, so that no stream's shard has
    /// its tag.
    #[must_use]
    pub fn new(prefix: &str, namespace: &str, number: u32) -> Self {
        Self {
            base: format!("{prefix}:{{{namespace}/~wf/{number}}}:").into(),
        }
    }

    fn key(&self, tail: &str) -> String {
        format!("{}{tail}", self.base)
    }

    /// Hash: workflow id to the id and digest of its newest run.
    #[must_use]
    pub fn ids(&self) -> String {
        self.key("ids")
    }

    /// Sorted set: all runs by creation time.
    #[must_use]
    pub fn runs(&self) -> String {
        self.key("runs")
    }

    /// Sorted set: the runs of one status by creation time.
    #[must_use]
    pub fn runs_of(&self, status: &str) -> String {
        self.key(&format!("runs:{status}"))
    }

    /// Sorted set: runs by when they must be looked at.
    #[must_use]
    pub fn timers(&self) -> String {
        self.key("timers")
    }

    /// Sorted set: ended runs by when they ended.
    #[must_use]
    pub fn finished(&self) -> String {
        self.key("finished")
    }

    /// Stream: what routers owe to shards.
    #[must_use]
    pub fn outbox(&self) -> String {
        self.key("outbox")
    }

    /// One of the keys of a run.
    #[must_use]
    pub fn run(&self, run_id: &str, key: RunKey) -> String {
        self.key(&format!("run:{run_id}:{}", key.as_str()))
    }

    /// The hash tag with what is before it.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.base
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

/// A run to be stored.
#[derive(Debug, Clone, Default)]
pub struct NewRun {
    /// Its workflow.
    pub workflow_id: String,
    /// Its own id.
    pub run_id: String,
    /// Of what was submitted: the same digest is the same submit.
    pub digest: String,
    /// The run that the workflow's id may name until now; empty where none may.
    pub replaces: String,
    /// The definition, without contents.
    pub plan: Bytes,
    /// What the messages of tasks say, by task number.
    pub contents: Vec<(u32, Bytes)>,
    /// A record per task, one behind the other.
    pub states: Bytes,
    /// The status that it begins with.
    pub status: String,
    /// Whether it ends with its first step.
    pub has_ended: bool,
    /// Run whose contents and results it takes over; empty for none.
    pub copies: String,
    /// Tasks whose results it does not take over.
    pub drops: Vec<u32>,
    /// What it begins with.
    pub first: Step,
}

/// What Redis called the records of a step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Written {
    /// Ids of the outbox entries, in their order.
    pub owed: Vec<String>,
    /// Id of the newest history record; empty where none was written.
    pub newest: String,
}

/// What became of a submit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Created {
    /// Stored.
    Stored {
        /// When, in ms since 1970 by Redis' clock.
        at_ms: u64,
        /// What was written of its first step.
        written: Written,
    },
    /// The same was submitted before, as this run.
    Exists(String),
    /// The id names this run of other content.
    Other(String),
}

/// One step of a run.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// Fields of the head.
    pub head: Vec<(String, Bytes)>,
    /// Records of tasks that changed.
    pub states: Vec<(u32, Bytes)>,
    /// Texts of tasks that changed; empty ones are removed.
    pub notes: Vec<(u32, Bytes)>,
    /// Results that came; empty ones are removed.
    pub results: Vec<(u32, Bytes)>,
    /// What is owed to shards.
    pub outbox: Vec<Bytes>,
    /// What happened.
    pub history: Vec<Bytes>,
    /// The definition, where it changed.
    pub plan: Option<Bytes>,
    /// What the messages of new tasks say.
    pub contents: Vec<(u32, Bytes)>,
    /// Questions and answers of tasks; empty ones are removed.
    pub answers: Vec<(u32, Bytes)>,
    /// When it must be looked at, in ms since 1970.
    pub due_ms: Option<u64>,
}

/// What a step is worked out from, and what it does to the run as a whole.
#[derive(Debug, Clone, Copy)]
pub struct Commit<'a> {
    /// The run.
    pub run_id: &'a str,
    /// Version of the state that the step was worked out from.
    pub version: u64,
    /// Length of a record of a task.
    pub record_bytes: usize,
    /// Status before and after.
    pub status: (&'a str, &'a str),
    /// Whether the run has ended with this step, or had before.
    pub has_ended: bool,
    /// On disk before the answer.
    pub durable: bool,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// Written.
    Done {
        /// The version now.
        version: u64,
        /// What was written.
        written: Written,
    },
    /// The state is another by now, of this version: nothing was written.
    Conflict(u64),
    /// There is no such run.
    Gone,
}

/// A run as it lies in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRun {
    /// Version of this state.
    pub version: u64,
    /// When it was created, in ms since 1970.
    pub created_ms: u64,
    /// The other fields of its head.
    pub head: Vec<(String, Bytes)>,
    /// The definition, without payloads.
    pub plan: Bytes,
    /// A record per task.
    pub states: Bytes,
    /// Texts of tasks, by number.
    pub notes: Vec<(u32, Bytes)>,
}

impl Store {
    /// The partition `number` of a namespace.
    #[must_use]
    pub fn partition(&self, namespace: &str, number: u32) -> Partition {
        Partition::new(self.prefix(), namespace, number)
    }

    /// Stores a run, unless its workflow's id is taken; `durable`: on disk before the answer.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn create_run(
        &self,
        partition: &Partition,
        run: &NewRun,
        durable: bool,
        now_ms: u64,
    ) -> Result<Created, StoreError> {
        let of = |key| partition.run(&run.run_id, key);
        let mut call = Call::new(&RUN_CREATE);
        call.key(partition.ids());
        for key in [
            RunKey::Head,
            RunKey::Plan,
            RunKey::Contents,
            RunKey::States,
            RunKey::Notes,
            RunKey::History,
        ] {
            call.key(of(key));
        }
        call.key(partition.runs())
            .key(partition.runs_of(&run.status))
            .key(partition.timers())
            .key(partition.outbox())
            .key(of(RunKey::Results));
        let copied = if run.copies.is_empty() {
            &run.run_id
        } else {
            &run.copies
        };
        for key in [RunKey::Contents, RunKey::Results] {
            call.key(partition.run(copied, key));
        }
        call.key(partition.finished());
        let first = &run.first;
        call.text(&run.workflow_id)
            .text(&run.run_id)
            .text(&run.digest)
            .text(&run.replaces)
            .bytes(run.plan.clone())
            .bytes(run.states.clone())
            .number(first.due_ms.unwrap_or(0))
            .number(now_ms)
            .count(first.head.len())
            .count(run.contents.len())
            .count(first.notes.len())
            .count(first.outbox.len())
            .count(first.history.len())
            .count(run.drops.len())
            .flag(run.has_ended);
        fields(&mut call, &first.head);
        tasks(&mut call, &run.contents);
        tasks(&mut call, &first.notes);
        entries(&mut call, &first.outbox);
        entries(&mut call, &first.history);
        for task in &run.drops {
            call.number(u64::from(*task));
        }
        let value = if durable {
            self.run_durably(Purpose::Control, call).await?
        } else {
            self.run_safely(Purpose::Control, call).await?
        };
        let (status, detail, written) = answer("run_create", value)?;
        match status.as_str() {
            "CREATED" => Ok(Created::Stored {
                at_ms: detail.number()?,
                written,
            }),
            "EXISTS" => Ok(Created::Exists(detail.text()?)),
            "OTHER" => Ok(Created::Other(detail.text()?)),
            _ => Err(StoreError::reply("run_create")),
        }
    }

    /// Writes one step of a run, if its state is still the one that it was worked out from. Where
    /// the answer is lost, only reading the run anew shows whether it was written.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn commit_run(
        &self,
        partition: &Partition,
        commit: Commit<'_>,
        step: &Step,
        now_ms: u64,
    ) -> Result<Committed, StoreError> {
        let of = |key| partition.run(commit.run_id, key);
        let mut call = Call::new(&RUN_COMMIT);
        for key in [
            RunKey::Head,
            RunKey::States,
            RunKey::Notes,
            RunKey::Results,
            RunKey::History,
        ] {
            call.key(of(key));
        }
        call.key(partition.runs_of(commit.status.0))
            .key(partition.runs_of(commit.status.1))
            .key(partition.timers())
            .key(partition.outbox())
            .key(partition.finished())
            .key(of(RunKey::Plan))
            .key(of(RunKey::Contents))
            .key(of(RunKey::Answers));
        call.text(commit.run_id)
            .number(commit.version)
            .count(commit.record_bytes)
            .number(step.due_ms.unwrap_or(0))
            .flag(commit.has_ended)
            .number(HISTORY_MAX)
            .number(now_ms)
            .count(step.head.len())
            .count(step.states.len())
            .count(step.notes.len())
            .count(step.results.len())
            .count(step.outbox.len())
            .count(step.history.len())
            .count(usize::from(step.plan.is_some()))
            .count(step.contents.len())
            .count(step.answers.len());
        fields(&mut call, &step.head);
        tasks(&mut call, &step.states);
        tasks(&mut call, &step.notes);
        tasks(&mut call, &step.results);
        entries(&mut call, &step.outbox);
        entries(&mut call, &step.history);
        if let Some(plan) = &step.plan {
            call.bytes(plan.clone());
        }
        tasks(&mut call, &step.contents);
        tasks(&mut call, &step.answers);
        let value = if commit.durable {
            self.run_durably_once(Purpose::Control, call).await?
        } else {
            self.run(Purpose::Control, call).await?
        };
        let (status, detail, written) = answer("run_commit", value)?;
        match status.as_str() {
            "OK" => Ok(Committed::Done {
                version: detail.number()?,
                written,
            }),
            "CONFLICT" => Ok(Committed::Conflict(detail.number()?)),
            "GONE" => Ok(Committed::Gone),
            _ => Err(StoreError::reply("run_commit")),
        }
    }

    /// Forgets a run that has ended; `status` and `version` are those that it was seen with.
    /// False when it is another by now; true also when it is gone already.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn delete_run(
        &self,
        partition: &Partition,
        workflow_id: &str,
        run_id: &str,
        (status, version): (&str, u64),
    ) -> Result<bool, StoreError> {
        let mut call = Call::new(&RUN_DELETE);
        call.key(partition.ids())
            .key(partition.run(run_id, RunKey::Head))
            .key(partition.runs())
            .key(partition.runs_of(status))
            .key(partition.timers())
            .key(partition.finished());
        for key in RunKey::ALL.into_iter().filter(|key| *key != RunKey::Head) {
            call.key(partition.run(run_id, key));
        }
        call.text(workflow_id).text(run_id).number(version);
        let value = self.run_safely(Purpose::Control, call).await?;
        match reply::status("run_delete", value)?.0.as_str() {
            "OK" | "GONE" => Ok(true),
            "CONFLICT" => Ok(false),
            _ => Err(StoreError::reply("run_delete")),
        }
    }

    /// Version of the state of a run; none where there is none.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn run_version(
        &self,
        partition: &Partition,
        run_id: &str,
    ) -> Result<Option<u64>, StoreError> {
        let mut get = Cmd::new();
        get.arg("HGET")
            .arg(partition.run(run_id, RunKey::Head))
            .arg("version");
        let version = self.command(Purpose::Control, get).await?.maybe_text()?;
        version
            .map(|text| text.parse().map_err(|_error| StoreError::reply("HGET")))
            .transpose()
    }

    /// The newest run of a workflow, and the digest of what was submitted.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn run_of_workflow(
        &self,
        partition: &Partition,
        workflow_id: &str,
    ) -> Result<Option<(String, String)>, StoreError> {
        let mut get = Cmd::new();
        get.arg("HGET").arg(partition.ids()).arg(workflow_id);
        let row = self.command(Purpose::Control, get).await?.maybe_text()?;
        Ok(row.and_then(|row| {
            let (run_id, digest) = row.split_once(' ')?;
            Some((run_id.to_owned(), digest.to_owned()))
        }))
    }

    /// A run as it lies in Redis, all of it from one moment; none where there is none. Without
    /// `with_plan` the definition is left out: it never changes while tasks are not added.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn read_run(
        &self,
        partition: &Partition,
        run_id: &str,
        with_plan: bool,
    ) -> Result<Option<StoredRun>, StoreError> {
        let mut call = Call::new(&RUN_READ);
        for key in [RunKey::Head, RunKey::Plan, RunKey::States, RunKey::Notes] {
            call.key(partition.run(run_id, key));
        }
        call.flag(with_plan);
        let value = self.run_safely(Purpose::Control, call).await?;
        let (status, parts) = reply::status("run_read", value)?;
        let [head, plan, states, notes]: [Reply; 4] = parts
            .try_into()
            .map_err(|_error| StoreError::reply("run_read"))?;
        if status == "GONE" {
            return Ok(None);
        }
        let mut run = StoredRun {
            version: 0,
            created_ms: 0,
            head: Vec::new(),
            plan: plan.bytes()?.into(),
            states: states.bytes()?.into(),
            notes: Vec::new(),
        };
        for (name, value) in pairs(head)? {
            match name.text()?.as_str() {
                "version" => run.version = value.number()?,
                "created_ms" => run.created_ms = value.number()?,
                other => run.head.push((other.to_owned(), value.bytes()?.into())),
            }
        }
        for (task, note) in pairs(notes)? {
            let task =
                u32::try_from(task.number()?).map_err(|_error| StoreError::reply("run_read"))?;
            run.notes.push((task, note.bytes()?.into()));
        }
        Ok(Some(run))
    }
}

/// Status, detail and what was written, of the scripts that write a step.
fn answer(
    script: &'static str,
    value: redis::Value,
) -> Result<(String, Reply, Written), StoreError> {
    let (status, parts) = reply::status(script, value)?;
    let [detail, owed, newest]: [Reply; 3] = parts
        .try_into()
        .map_err(|_error| StoreError::reply(script))?;
    let owed = owed.list()?.into_iter().map(Reply::text);
    let written = Written {
        owed: owed.collect::<Result<_, _>>()?,
        newest: newest.text()?,
    };
    Ok((status, detail, written))
}

pub(crate) fn pairs(reply: Reply) -> Result<Vec<(Reply, Reply)>, StoreError> {
    let mut list = reply.list()?.into_iter();
    let mut pairs = Vec::new();
    while let (Some(name), Some(value)) = (list.next(), list.next()) {
        pairs.push((name, value));
    }
    Ok(pairs)
}

fn fields(call: &mut Call, fields: &[(String, Bytes)]) {
    for (name, value) in fields {
        call.text(name).bytes(value.clone());
    }
}

fn tasks(call: &mut Call, tasks: &[(u32, Bytes)]) {
    for (task, value) in tasks {
        call.number(u64::from(*task)).bytes(value.clone());
    }
}

fn entries(call: &mut Call, entries: &[Bytes]) {
    for entry in entries {
        call.bytes(entry.clone());
    }
}
