//! Records of dead letters: one for each delivery that died, kept in one slot for a namespace.
//!
//! What is known when it dies never changes and lies in `facts`; what a person or a worker decides
//! lies in `state`, behind a version: who changes a record says which version was read. Every index
//! is kept in the step that changes the record.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use hive_domain::dead_letter::{category::Category, recovery::Strategy, status::Status};
use redis::{Cmd, Pipeline};
use serde::{Deserialize, Serialize};

use crate::{
    connection::{Purpose, Store},
    control::{Put, Versioned},
    error::StoreError,
    reply::{self, Reply},
    scripts::{Call, LETTER_CHANGE, LETTER_TAKE},
};

/// Keys of the dead letters of one namespace.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Letters {
    base: Arc<str>,
    namespace: Arc<str>,
}

/// What dead letters are listed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Index {
    /// All of them.
    All,
    /// Those in the queue: neither replayed nor archived.
    Live,
    /// Those in one state.
    Status(Status),
    /// Those of one category.
    Category(Category),
    /// Those of one group.
    Group(String),
    /// Those of one stream.
    Stream(String),
    /// Those with one fingerprint.
    Fingerprint(String),
    /// Those of one workflow.
    Workflow(String),
    /// Those of one task of a run: `<run>/<task>`.
    Task(String),
}

impl Index {
    /// The name that it lists by; empty where it lists by none.
    #[must_use]
    pub fn value(&self) -> &str {
        match self {
            Self::All | Self::Live => "",
            Self::Status(status) => status.as_str(),
            Self::Category(category) => category.as_str(),
            Self::Group(name)
            | Self::Stream(name)
            | Self::Fingerprint(name)
            | Self::Workflow(name)
            | Self::Task(name) => name,
        }
    }
}

impl Letters {
    /// The dead letters of a namespace. A tilde is in no name, so that no stream's shard has their
    /// tag.
    #[must_use]
    pub fn new(prefix: &str, namespace: &str) -> Self {
        Self {
            base: format!("{prefix}:{{{namespace}/~dead}}:").into(),
            namespace: namespace.into(),
        }
    }

    /// The namespace.
    #[must_use]
    pub const fn namespace(&self) -> &Arc<str> {
        &self.namespace
    }

    fn key(&self, tail: &str) -> String {
        format!("{}{tail}", self.base)
    }

    /// One record.
    #[must_use]
    pub fn letter(&self, id: &str) -> String {
        self.key(&format!("letter:{id}"))
    }

    /// An index.
    #[must_use]
    pub fn index(&self, index: &Index) -> String {
        self.key(&match index {
            Index::All => "all".to_owned(),
            Index::Live => "live".to_owned(),
            Index::Status(status) => format!("by:status:{status}"),
            Index::Category(category) => format!("by:category:{category}"),
            Index::Group(name) => format!("by:group:{name}"),
            Index::Stream(name) => format!("by:stream:{name}"),
            Index::Fingerprint(print) => format!("by:fingerprint:{print}"),
            Index::Workflow(id) => format!("by:workflow:{id}"),
            Index::Task(task) => format!("by:task:{task}"),
        })
    }

    /// One of the other keys.
    #[must_use]
    pub fn own(&self, key: LettersKey) -> String {
        self.key(key.as_str())
    }

    /// The hash tag with what is before it.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.base
    }
}

impl fmt::Debug for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

/// The keys that a namespace has once, beside its records and their indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LettersKey {
    /// Records removed lately.
    Gone,
    /// Counts.
    Totals,
    /// Live records by fingerprint.
    Patterns,
    /// What a fingerprint is.
    Examples,
    /// Live records by group and consumer.
    Sources,
    /// Records that go back by themselves.
    Due,
    /// Records with a replay under way.
    Replaying,
    /// Records whose replay has no outcome yet.
    Awaiting,
    /// Replay jobs.
    Jobs,
    /// Counts of replay jobs.
    JobCounts,
    /// Circuit breakers by group.
    Breakers,
    /// Tokens of purges.
    Purges,
}

impl LettersKey {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Totals => "totals",
            Self::Patterns => "patterns",
            Self::Examples => "examples",
            Self::Sources => "sources",
            Self::Due => "due",
            Self::Replaying => "replaying",
            Self::Awaiting => "awaiting",
            Self::Jobs => "jobs",
            Self::JobCounts => "job_counts",
            Self::Breakers => "breakers",
            Self::Purges => "purges",
        }
    }
}

/// One failed attempt, as a record keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Attempt {
    /// Who tried.
    pub consumer: String,
    /// When it was delivered, in ms since 1970.
    pub started_ms: u64,
    /// When it failed, in ms since 1970.
    pub ended_ms: u64,
    /// Category that was given with the failure.
    pub category: String,
    /// Type of the error.
    pub error_type: String,
    /// For people.
    pub reason: String,
    /// Stack trace.
    pub stack: String,
}

/// What happened before to the message that a dead letter is a replay of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Past {
    /// Replays.
    pub replays: u32,
    /// Those that recovery made by itself.
    pub automatic: u32,
    /// Those since which it failed the same way each time.
    pub same: u32,
}

/// What is known of a dead letter from its death on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Id of the message; empty where it does not decode.
    pub message_id: String,
    /// Stream.
    pub stream: String,
    /// Number of the shard.
    pub shard: u32,
    /// Group; empty where no group ever had it.
    pub group: String,
    /// Ref of its lane.
    pub lane: String,
    /// Id of its entry in the lane.
    pub entry: String,
    /// How often it was delivered.
    pub deliveries: u64,
    /// Failed attempts.
    pub failures: u32,
    /// What is kept of them, oldest first.
    pub attempts: Vec<Attempt>,
    /// Category.
    pub category: Category,
    /// The rule that said so.
    pub rule: String,
    /// Equal for failures that look the same.
    pub fingerprint: String,
    /// The error without what differs between failures that look the same.
    pub error: String,
    /// Type of the last error.
    pub error_type: String,
    /// What the message was for.
    pub message_type: String,
    /// Who sent it.
    pub from_agent: String,
    /// Workflow, run and task that it belongs to.
    pub workflow_id: String,
    /// Run.
    pub run_id: String,
    /// Task.
    pub task_id: String,
    /// Names the dispatch of a task; empty for messages.
    pub dispatch_key: String,
    /// Trace.
    pub traceparent: String,
    /// Priority.
    pub priority: u8,
    /// Whether it has an ordering key.
    pub is_ordered: bool,
    /// Whether its body is a message.
    pub decodes: bool,
    /// Size of the payload.
    pub payload_bytes: u64,
    /// Dead letter that the message was a replay of.
    pub replay_of: String,
    /// Which replay of that.
    pub replay_number: u32,
    /// What happened to it before.
    pub past: Past,
    /// When it died, in ms since 1970.
    pub dead_ms: u64,
}

impl Facts {
    /// `<group>/<consumer>` of the last attempt; empty where nobody had it.
    #[must_use]
    pub fn source(&self) -> String {
        match self.attempts.last() {
            Some(last) if !last.consumer.is_empty() => format!("{}/{}", self.group, last.consumer),
            Some(_) | None => String::new(),
        }
    }

    /// Whether it is a task of a workflow: its router alone sends it back.
    #[must_use]
    pub fn is_task(&self) -> bool {
        !self.dispatch_key.is_empty() && !self.run_id.is_empty()
    }

    /// `<run>/<task>` of a task.
    #[must_use]
    pub fn task(&self) -> String {
        format!("{}/{}", self.run_id, self.task_id)
    }

    /// What is kept of its fingerprint: `<category> <group> <error>`.
    fn example(&self) -> String {
        format!("{} {} {}", self.category, self.group, self.error)
    }
}

/// A replay as it was decided: whoever carries it on carries out this.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Plan {
    /// Which replay of the record it is, from 1.
    pub number: u32,
    /// Group that gets it; empty for its own.
    pub target_group: String,
    /// Stream of which every group gets it; empty for its own group.
    pub target_stream: String,
    /// Priority.
    pub priority: u8,
    /// The job that it belongs to; empty for none.
    pub job: String,
    /// Whether recovery decided it.
    pub is_automatic: bool,
    /// Whether it sends the edited payload.
    pub is_edited: bool,
    /// When it was decided, in ms since 1970.
    pub decided_ms: u64,
    /// The status that the record had.
    pub before: Status,
}

/// What became of what a replay sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing was sent, or it is not known.
    #[default]
    Unknown,
    /// It is not settled.
    Pending,
    /// It was handled.
    Succeeded,
    /// It died again.
    Failed,
}

/// What was decided over a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// What is advised.
    pub strategy: Strategy,
    /// Whether recovery raises its priority.
    pub raises_priority: bool,
    /// When it goes back by itself, in ms since 1970; 0 where it does not.
    pub due_ms: u64,
    /// Replays so far, one under way included.
    pub replays: u32,
    /// Those that recovery made.
    pub automatic: u32,
    /// The replay under way, or the last one.
    pub plan: Option<Plan>,
    /// What the last replay sent.
    pub message_id: String,
    /// Group to which it went; empty where several got it.
    pub sent_to: String,
    /// Where the outcome of what was sent is told: a key of `tasks` on the shards of `sent_to`.
    pub track_key: String,
    /// What became of it.
    pub outcome: Outcome,
    /// When it was sent, in ms since 1970.
    pub sent_ms: u64,
}

impl State {
    /// Whether what became of the last replay is not known yet, and will be: of a message with an
    /// ordering key, or of one for all groups, it is never told.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.outcome == Outcome::Pending && !self.track_key.is_empty()
    }
}

/// A line of a record's history.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Change {
    /// When, in ms since 1970.
    pub at_ms: u64,
    /// The status from then on.
    pub status: Status,
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: u64,
    /// Its status.
    pub status: Status,
    /// What is known of it.
    pub facts: Facts,
    /// What was decided.
    pub state: State,
}

/// What of a record is large, and read alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// Version of the record that this was read of.
    pub version: u64,
    /// Header and envelope, as they died.
    pub body: Bytes,
    /// The payload that replays send instead.
    pub edited: Option<Bytes>,
    /// What happened to it, the oldest first.
    pub history: Vec<Change>,
}

/// A record to be stored.
#[derive(Debug, Clone)]
pub struct NewLetter {
    /// The record; its version is not looked at.
    pub letter: Letter,
    /// Header and envelope.
    pub body: Bytes,
    /// How it began.
    pub change: Change,
}

/// How much may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Most records.
    pub records: u64,
    /// Most bytes.
    pub bytes: u64,
}

/// Answer of an intake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Stored.
    New,
    /// It was there, or was removed lately.
    Known,
    /// No room.
    Full,
}

/// Which count of a job grows with a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// One more is tried; `limit` is the most, 0 for no limit.
    Attempted {
        /// The limit.
        limit: u64,
    },
    /// One was sent back.
    Replayed,
    /// One was not.
    Failed,
    /// One more is tried, and was refused at once; `limit` as above.
    Refused {
        /// The limit.
        limit: u64,
    },
}

/// What grows in the totals with a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tally {
    /// A replay was sent.
    Sent,
    /// What was sent was handled.
    Succeeded,
    /// It died again.
    Failed,
}

/// What is found under the id of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are there")]
pub enum Found {
    /// The record.
    There(Letter),
    /// None: it was removed, or never was.
    Absent,
    /// One that another build wrote, so that this one cannot read it. It stays what it is, and must
    /// not stand in the way of others.
    Unreadable,
}

impl Found {
    /// The record, where it can be read.
    #[must_use]
    pub fn there(self) -> Option<Letter> {
        match self {
            Self::There(letter) => Some(letter),
            Self::Absent | Self::Unreadable => None,
        }
    }
}

/// A change of a record.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// The state after.
    pub state: State,
    /// A line for the history.
    pub change: Option<Change>,
    /// The payload that replays send from now on.
    pub edited: Option<Bytes>,
    /// When the replay under way is looked at again; 0 for none under way.
    pub replaying_ms: u64,
    /// When its outcome is looked at; 0 where none is awaited.
    pub awaiting_ms: u64,
    /// A job, and which of its counts grows.
    pub count: Option<(String, Count)>,
    /// What grows in the totals.
    pub tally: Option<Tally>,
}

impl Step {
    /// A step that changes nothing of a record: where it is due stays, and an outcome that is
    /// awaited is looked at at once.
    #[must_use]
    pub fn of(letter: &Letter) -> Self {
        let awaiting_ms = if letter.state.is_awaited() {
            letter.state.sent_ms.max(1)
        } else {
            0
        };
        Self {
            state: letter.state.clone(),
            awaiting_ms,
            ..Self::default()
        }
    }
}

/// Answer of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// Done, under this version.
    Done(u64),
    /// Somebody changed it meanwhile, or it is gone.
    Stale,
    /// The job has tried all that it may.
    Limit,
}

/// Where a page of an index begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The newest first.
    Newest,
    /// The oldest first.
    Oldest,
}

/// A place in an index: what was answered last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Place {
    /// When it died, in ms since 1970.
    pub dead_ms: u64,
    /// Its id.
    pub id: String,
}

/// Counts of all dead letters of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals {
    /// Records.
    pub records: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// Those in the queue.
    pub live: u64,
    /// Sum of the times at which these died, in ms since 1970.
    pub dead_ms: u128,
    /// By status.
    pub by_status: Vec<(String, u64)>,
    /// Live ones by category.
    pub by_category: Vec<(String, u64)>,
    /// Live ones by group.
    pub by_group: Vec<(String, u64)>,
    /// Live ones by stream.
    pub by_stream: Vec<(String, u64)>,
    /// Replays that were sent.
    pub sent: u64,
    /// Those that were handled.
    pub succeeded: u64,
    /// Those that died again.
    pub failed: u64,
}

/// A row that changes by compare-and-set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Row<T> {
    /// Its version; 0 for one that is not stored.
    #[serde(skip)]
    pub version: u64,
    /// What it holds.
    pub value: T,
}

impl<T> Versioned for Row<T> {
    fn set_version(&mut self, version: u64) {
        self.version = version;
    }
}

fn json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt {
        what: error.to_string(),
    })
}

fn parsed<T: for<'a> Deserialize<'a>>(id: &str, text: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(text).map_err(|error| StoreError::Corrupt {
        what: format!("dead letter `{id}`: {error}"),
    })
}

/// The indexes of a record whose values never change.
fn fixed(facts: &Facts) -> Vec<Index> {
    let mut indexes = vec![Index::All, Index::Category(facts.category)];
    indexes.push(Index::Stream(facts.stream.clone()));
    indexes.push(Index::Fingerprint(facts.fingerprint.clone()));
    if !facts.group.is_empty() {
        indexes.push(Index::Group(facts.group.clone()));
    }
    if !facts.workflow_id.is_empty() {
        indexes.push(Index::Workflow(facts.workflow_id.clone()));
    }
    if facts.is_task() {
        indexes.push(Index::Task(facts.task()));
    }
    indexes
}

impl Store {
    /// The dead letters of a namespace.
    #[must_use]
    pub fn letters(&self, namespace: &str) -> Letters {
        Letters::new(self.prefix(), namespace)
    }

    /// Stores a record, once.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn take_letter(
        &self,
        letters: &Letters,
        new: &NewLetter,
        bounds: Bounds,
    ) -> Result<Taken, StoreError> {
        let (letter, facts) = (&new.letter, &new.letter.facts);
        let mut call = Call::new(&LETTER_TAKE);
        call.key(letters.letter(&letter.id));
        for key in [
            LettersKey::Gone,
            LettersKey::Totals,
            LettersKey::Patterns,
            LettersKey::Examples,
            LettersKey::Sources,
            LettersKey::Due,
        ] {
            call.key(letters.own(key));
        }
        call.key(letters.index(&Index::Live));
        call.key(letters.index(&Index::Status(letter.status)));
        for index in fixed(facts) {
            call.key(letters.index(&index));
        }
        call.text(&letter.id)
            .number(bounds.records)
            .number(bounds.bytes)
            .number(facts.dead_ms)
            .text(letter.status.as_str())
            .text(facts.category.as_str())
            .text(&facts.group)
            .text(&facts.stream)
            .text(&facts.fingerprint)
            .text(facts.source())
            .text(facts.example())
            .number(letter.state.due_ms)
            .bytes(new.body.clone())
            .text(json(facts)?)
            .text(json(&letter.state)?)
            .text(json(&new.change)?);
        let value = self.run_safely(Purpose::Control, call).await?;
        let (word, _) = reply::status("letter_take", value)?;
        match word.as_str() {
            "TAKEN" => Ok(Taken::New),
            "KNOWN" => Ok(Taken::Known),
            "FULL" => Ok(Taken::Full),
            _ => Err(StoreError::reply("letter_take")),
        }
    }

    /// Changes a record that still has the version of `letter` to `status`.
    ///
    /// # Errors
    /// As in `StoreError`. Where the answer is lost the change may be made: the call is not sent
    /// again.
    pub async fn change_letter(
        &self,
        letters: &Letters,
        letter: &Letter,
        status: Status,
        step: &Step,
    ) -> Result<Changed, StoreError> {
        self.letter_change(letters, letter, Some(status), step)
            .await
    }

    /// Removes a record that still has the version of `letter`.
    ///
    /// # Errors
    /// As `change_letter`.
    pub async fn remove_letter(
        &self,
        letters: &Letters,
        letter: &Letter,
    ) -> Result<Changed, StoreError> {
        self.letter_change(letters, letter, None, &Step::default())
            .await
    }

    async fn letter_change(
        &self,
        letters: &Letters,
        letter: &Letter,
        status: Option<Status>,
        step: &Step,
    ) -> Result<Changed, StoreError> {
        let facts = &letter.facts;
        let mut call = Call::new(&LETTER_CHANGE);
        call.key(letters.letter(&letter.id));
        for key in [
            LettersKey::Gone,
            LettersKey::Totals,
            LettersKey::Patterns,
            LettersKey::Examples,
            LettersKey::Sources,
            LettersKey::Due,
        ] {
            call.key(letters.own(key));
        }
        call.key(letters.index(&Index::Live));
        for key in [
            LettersKey::Replaying,
            LettersKey::Awaiting,
            LettersKey::JobCounts,
        ] {
            call.key(letters.own(key));
        }
        call.key(letters.index(&Index::Status(letter.status)));
        call.key(letters.index(&Index::Status(status.unwrap_or(letter.status))));
        if status.is_none() {
            for index in fixed(facts) {
                call.key(letters.index(&index));
            }
        }
        let is_live = status.is_some_and(Status::is_live);
        let (job, count, limit) = match &step.count {
            None => ("", "", 0),
            Some((job, Count::Attempted { limit })) => (job.as_str(), "attempted", *limit),
            Some((job, Count::Replayed)) => (job.as_str(), "replayed", 0),
            Some((job, Count::Failed)) => (job.as_str(), "failed", 0),
            Some((job, Count::Refused { limit })) => (job.as_str(), "attempted failed", *limit),
        };
        let tally = match step.tally {
            None => "",
            Some(Tally::Sent) => "sent",
            Some(Tally::Succeeded) => "succeeded",
            Some(Tally::Failed) => "failed",
        };
        let mut edited = Vec::new();
        if let Some(payload) = &step.edited {
            edited.push(b'=');
            edited.extend_from_slice(payload);
        }
        let (state, change) = match status {
            None => (String::new(), String::new()),
            Some(_) => (
                json(&step.state)?,
                step.change
                    .as_ref()
                    .map(json)
                    .transpose()?
                    .unwrap_or_default(),
            ),
        };
        call.text(&letter.id)
            .number(letter.version)
            .text(status.map_or("", Status::as_str))
            .text(if is_live { "1" } else { "0" })
            .number(facts.dead_ms)
            .text(facts.category.as_str())
            .text(&facts.group)
            .text(&facts.stream)
            .text(&facts.fingerprint)
            .text(facts.source())
            .text(state)
            .text(change)
            .bytes(Bytes::from(edited))
            .number(step.state.due_ms)
            .number(step.replaying_ms)
            .number(step.awaiting_ms)
            .text(count)
            .text(job)
            .number(limit)
            .text(tally)
            .number(0);
        let value = self.run(Purpose::Control, call).await?;
        let (word, parts) = reply::status("letter_change", value)?;
        match word.as_str() {
            "DONE" => {
                let version = reply::detail("letter_change", parts)?;
                let version = version.parse();
                Ok(Changed::Done(
                    version.map_err(|_error| StoreError::reply("letter_change"))?,
                ))
            },
            "STALE" => Ok(Changed::Stale),
            "LIMIT" => Ok(Changed::Limit),
            _ => Err(StoreError::reply("letter_change")),
        }
    }

    /// A record by its id.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn read_letter(&self, letters: &Letters, id: &str) -> Result<Found, StoreError> {
        let ids = [id.to_owned()];
        let found = self.read_letters(letters, &ids).await?.pop();
        Ok(found.unwrap_or(Found::Absent))
    }

    /// Records by their ids, in their order.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn read_letters(
        &self,
        letters: &Letters,
        ids: &[String],
    ) -> Result<Vec<Found>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::new();
        for id in ids {
            pipeline.cmd("HMGET").arg(letters.letter(id));
            pipeline
                .arg("version")
                .arg("status")
                .arg("facts")
                .arg("state");
        }
        let replies = self.pipeline(Purpose::Control, pipeline).await?;
        let rows = ids.iter().zip(replies);
        Ok(rows
            .map(|(id, reply)| match decode(id, reply) {
                Ok(Some(letter)) => Found::There(letter),
                Ok(None) => Found::Absent,
                Err(error) => {
                    tracing::error!(dlq_id = id, %error, "dead_letter_does_not_decode");
                    Found::Unreadable
                },
            })
            .collect())
    }

    /// What of a record is large; none where it is not there.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn letter_content(
        &self,
        letters: &Letters,
        id: &str,
    ) -> Result<Option<Content>, StoreError> {
        let mut read = Cmd::new();
        read.arg("HMGET").arg(letters.letter(id));
        read.arg("body").arg("edited").arg("history").arg("version");
        let [body, edited, history, version] =
            self.command(Purpose::Control, read).await?.array()?;
        let Some(body) = body.maybe_bytes()? else {
            return Ok(None);
        };
        let history = history.maybe_text()?.unwrap_or_default();
        let version = version.maybe_text()?.unwrap_or_default();
        Ok(Some(Content {
            version: version.parse().unwrap_or_default(),
            body: body.into(),
            edited: edited.maybe_bytes()?.map(Bytes::from),
            history: history
                .lines()
                .map(|line| parsed(id, line.as_bytes()))
                .collect::<Result<_, _>>()?,
        }))
    }

    /// Ids of an index behind a place, with the time of their death; those at `from_ms` or later,
    /// and before `to_ms` where it is not 0.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn letter_ids(
        &self,
        letters: &Letters,
        index: &Index,
        (order, after): (Order, Option<&Place>),
        (from_ms, to_ms): (u64, u64),
        limit: usize,
    ) -> Result<Vec<Place>, StoreError> {
        let key = letters.index(index);
        let until = if to_ms == 0 {
            "+inf".to_owned()
        } else {
            format!("({to_ms}")
        };
        let mut found = Vec::new();
        // Members of one time are in the order of their ids; those answered before are passed by.
        let mut skip = 0_usize;
        while found.len() < limit {
            let want = limit.saturating_sub(found.len()).clamp(16, 1_000);
            let mut range = Cmd::new();
            match order {
                Order::Newest => {
                    let top =
                        after.map_or_else(|| until.clone(), |place| place.dead_ms.to_string());
                    range
                        .arg("ZREVRANGEBYSCORE")
                        .arg(&key)
                        .arg(top)
                        .arg(from_ms);
                },
                Order::Oldest => {
                    let low = after.map_or(from_ms, |place| place.dead_ms.max(from_ms));
                    range.arg("ZRANGEBYSCORE").arg(&key).arg(low).arg(&until);
                },
            }
            range.arg("WITHSCORES").arg("LIMIT").arg(skip).arg(want);
            let rows = reply::pairs(self.command(Purpose::Control, range).await?)?;
            let count = rows.len();
            skip = skip.saturating_add(count);
            for (id, score) in rows {
                let dead_ms = score.parse().unwrap_or_default();
                let is_behind = after.is_none_or(|place| match order {
                    Order::Newest => (dead_ms, &id) < (place.dead_ms, &place.id),
                    Order::Oldest => (dead_ms, &id) > (place.dead_ms, &place.id),
                });
                if is_behind && found.len() < limit {
                    found.push(Place { dead_ms, id });
                }
            }
            if count < want {
                break;
            }
        }
        Ok(found)
    }

    /// How many an index has between two times (0: without an end).
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn count_letters(
        &self,
        letters: &Letters,
        index: &Index,
        (from_ms, to_ms): (u64, u64),
    ) -> Result<u64, StoreError> {
        let mut count = Cmd::new();
        count.arg("ZCOUNT").arg(letters.index(index)).arg(from_ms);
        count.arg(if to_ms == 0 {
            "+inf".to_owned()
        } else {
            format!("({to_ms}")
        });
        self.command(Purpose::Control, count).await?.number()
    }

    /// Members of one of the sets by time whose time is `until_ms` or before, the earliest first.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn letters_until(
        &self,
        letters: &Letters,
        key: LettersKey,
        until_ms: u64,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        let mut range = Cmd::new();
        range.arg("ZRANGEBYSCORE").arg(letters.own(key));
        range
            .arg("-inf")
            .arg(until_ms)
            .arg("LIMIT")
            .arg(0)
            .arg(limit);
        let ids = self.command(Purpose::Control, range).await?.list()?;
        ids.into_iter().map(Reply::text).collect()
    }

    /// Moves members of one of the sets by time to another time; one that is not there stays so.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn postpone_letters(
        &self,
        letters: &Letters,
        key: LettersKey,
        ids: &[String],
        at_ms: u64,
    ) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut set = Cmd::new();
        set.arg("ZADD").arg(letters.own(key)).arg("XX");
        for id in ids {
            set.arg(at_ms).arg(id);
        }
        self.command(Purpose::Control, set).await.map(drop)
    }

    /// Removes a member of one of the sets by time that names no record.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn forget_place(
        &self,
        letters: &Letters,
        key: LettersKey,
        id: &str,
    ) -> Result<(), StoreError> {
        let mut remove = Cmd::new();
        remove.arg("ZREM").arg(letters.own(key)).arg(id);
        self.command(Purpose::Control, remove).await.map(drop)
    }

    /// All counts.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn letter_totals(&self, letters: &Letters) -> Result<Totals, StoreError> {
        let mut read = Cmd::new();
        read.arg("HGETALL").arg(letters.own(LettersKey::Totals));
        let mut rows = reply::pairs(self.command(Purpose::Control, read).await?)?;
        rows.sort();
        let mut totals = Totals::default();
        for (field, text) in rows {
            let number: u64 = text.parse().unwrap_or_default();
            match field.split_once(':') {
                Some(("s", name)) => totals.by_status.push((name.to_owned(), number)),
                Some(("c", name)) => totals.by_category.push((name.to_owned(), number)),
                Some(("g", name)) => totals.by_group.push((name.to_owned(), number)),
                Some(("r", name)) => totals.by_stream.push((name.to_owned(), number)),
                Some(_) => {},
                None => match field.as_str() {
                    "records" => totals.records = number,
                    "bytes" => totals.bytes = number,
                    "live" => totals.live = number,
                    "dead_ms" => totals.dead_ms = text.parse().unwrap_or_default(),
                    "sent" => totals.sent = number,
                    "succeeded" => totals.succeeded = number,
                    "failed" => totals.failed = number,
                    _ => {},
                },
            }
        }
        Ok(totals)
    }

    /// The members with most live records, of fingerprints or of sources.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn top_letters(
        &self,
        letters: &Letters,
        key: LettersKey,
        limit: usize,
    ) -> Result<Vec<(String, u64)>, StoreError> {
        let mut range = Cmd::new();
        range.arg("ZREVRANGE").arg(letters.own(key)).arg(0);
        range.arg(limit.saturating_sub(1)).arg("WITHSCORES");
        let rows = reply::pairs(self.command(Purpose::Control, range).await?)?;
        let rows = rows.into_iter();
        Ok(rows
            .map(|(name, count)| (name, count.parse().unwrap_or_default()))
            .collect())
    }

    /// What fingerprints are: category, group and error of each, in their order.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn examples(
        &self,
        letters: &Letters,
        fingerprints: &[String],
    ) -> Result<Vec<[String; 3]>, StoreError> {
        if fingerprints.is_empty() {
            return Ok(Vec::new());
        }
        let mut read = Cmd::new();
        read.arg("HMGET").arg(letters.own(LettersKey::Examples));
        for fingerprint in fingerprints {
            read.arg(fingerprint);
        }
        let rows = self.command(Purpose::Control, read).await?.list()?;
        rows.into_iter()
            .map(|row| {
                let row = row.maybe_text()?.unwrap_or_default();
                let mut words = row.splitn(3, ' ').map(str::to_owned);
                let mut next = || words.next().unwrap_or_default();
                Ok([next(), next(), next()])
            })
            .collect()
    }

    /// A row of jobs, breakers or tokens; none where it is not there.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn letter_row<T: for<'a> Deserialize<'a>>(
        &self,
        letters: &Letters,
        key: LettersKey,
        name: &str,
    ) -> Result<Option<Row<T>>, StoreError> {
        self.definition(letters.own(key), name).await
    }

    /// All rows of jobs or breakers, by name.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn letter_rows<T: for<'a> Deserialize<'a>>(
        &self,
        letters: &Letters,
        key: LettersKey,
    ) -> Result<Vec<Row<T>>, StoreError> {
        self.definitions(letters.own(key)).await
    }

    /// Stores a row if its stored version is still `row.version` (0: absent), or removes it.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn put_letter_row<T: Serialize>(
        &self,
        letters: &Letters,
        key: LettersKey,
        name: &str,
        (version, value): (u64, Option<T>),
    ) -> Result<Put, StoreError> {
        let row = value.map(|value| Row { version, value });
        let (namespace, key) = (letters.namespace(), letters.own(key));
        self.put(namespace, key, name, version, row.as_ref()).await
    }

    /// How many dead letters a job has tried, sent back, and not sent back.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn job_counts(&self, letters: &Letters, job: &str) -> Result<[u64; 3], StoreError> {
        let mut read = Cmd::new();
        read.arg("HMGET").arg(letters.own(LettersKey::JobCounts));
        for count in ["attempted", "replayed", "failed"] {
            read.arg(format!("{job}:{count}"));
        }
        let counts = self.command(Purpose::Control, read).await?.array()?;
        let mut numbers = [0; 3];
        for (number, count) in numbers.iter_mut().zip::<[Reply; 3]>(counts) {
            *number = match count.maybe_text()? {
                Some(text) => text.parse().unwrap_or_default(),
                None => 0,
            };
        }
        Ok(numbers)
    }

    /// Forgets the counts of a job.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn forget_job_counts(&self, letters: &Letters, job: &str) -> Result<(), StoreError> {
        let mut remove = Cmd::new();
        remove.arg("HDEL").arg(letters.own(LettersKey::JobCounts));
        for count in ["attempted", "replayed", "failed"] {
            remove.arg(format!("{job}:{count}"));
        }
        self.command(Purpose::Control, remove).await.map(drop)
    }
}

fn decode(id: &str, reply: Reply) -> Result<Option<Letter>, StoreError> {
    let [version, status, facts, state] = reply.array()?;
    let Some(version) = version.maybe_text()? else {
        return Ok(None);
    };
    let wrong = || StoreError::Corrupt {
        what: format!("dead letter `{id}`"),
    };
    let status = status.text()?;
    Ok(Some(Letter {
        id: id.to_owned(),
        version: version.parse().map_err(|_error| wrong())?,
        status: Status::parse(&status).ok_or_else(wrong)?,
        facts: parsed(id, &facts.bytes()?)?,
        state: parsed(id, &state.bytes()?)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_keys_of_a_namespace_share_one_slot() {
        let letters = Letters::new("hive", "default");
        let keys = [
            letters.letter("a"),
            letters.index(&Index::All),
            letters.index(&Index::Group("g".into())),
            letters.own(LettersKey::Jobs),
        ];
        for key in keys {
            assert!(key.starts_with("hive:{default/~dead}:"), "{key}");
        }
    }

    #[test]
    fn a_record_of_an_older_build_is_read() {
        let facts: Facts = serde_json::from_str(r#"{"group":"g"}"#).expect("facts");
        assert_eq!(
            (facts.group.as_str(), facts.category),
            ("g", Category::Unknown)
        );
    }
}
