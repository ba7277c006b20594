//! How a run lies in Redis: a head of a few fields, a record of fixed length per task, and texts
//! where a task has any.
//!
//! Records have one length so that a step writes only what changed, in place. Everything that is
//! not a number is in the note.

use std::collections::BTreeMap;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use hive_domain::{
    time::Timestamp,
    workflow::{
        DependencyMode, Resolution, Run, Strategy, TaskIndex, TaskStatus, WorkflowDefinition,
        run::{Gate, Head, Mark, Parts, TaskState},
    },
};
use hive_store::runs::StoredRun;
use serde::{Deserialize, Serialize};

/// Length of a record of a task, in bytes.
pub(crate) const RECORD_BYTES: usize = 44;
/// Field of the head: the machine's own head.
pub(crate) const MACHINE: &str = "machine";
/// Field of the head: what lists show and never changes.
pub(crate) const META: &str = "meta";
/// Field of the head: tasks in each state, in the order of the states' codes.
pub(crate) const COUNTS: &str = "counts";

/// Where an attempt was sent, once and for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) stream: String,
    pub(crate) group: String,
}

/// What lists show of a run and never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) workflow_id: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) dependency_mode: DependencyMode,
    pub(crate) strategy: Strategy,
    pub(crate) max_parallel_tasks: u32,
    pub(crate) is_open: bool,
}

impl Meta {
    pub(crate) fn of(definition: &WorkflowDefinition) -> Self {
        Self {
            workflow_id: definition.workflow_id.clone(),
            labels: definition.labels.clone(),
            dependency_mode: definition.dependency_mode,
            strategy: definition.strategy,
            max_parallel_tasks: definition.max_parallel_tasks,
            is_open: definition.is_open,
        }
    }
}

/// A run as a router holds it.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) run: Run,
    /// Version of the stored state that this is.
    pub(crate) version: u64,
    pub(crate) created_ms: u64,
    /// Where attempts were sent, by task: the open one or the last one.
    pub(crate) targets: BTreeMap<TaskIndex, Target>,
    /// Id of the newest history record that is known; empty where none is.
    pub(crate) newest: String,
}

/// Why a stored run cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the stored run does not decode: {0}")]
pub(crate) struct Undecodable(String);

/// The texts of a task's state.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Note {
    #[serde(rename = "c", skip_serializing_if = "String::is_empty")]
    consumer: String,
    #[serde(rename = "r", skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(rename = "s", skip_serializing_if = "String::is_empty")]
    stream: String,
    #[serde(rename = "g", skip_serializing_if = "String::is_empty")]
    group: String,
}

impl Loaded {
    /// Reads a run with its definition.
    pub(crate) fn read(stored: StoredRun) -> Result<Self, Undecodable> {
        let undecodable = |what: &str| Undecodable(what.to_owned());
        let definition: WorkflowDefinition =
            serde_json::from_slice(&stored.plan).map_err(|error| Undecodable(error.to_string()))?;
        let head = head_of(&stored.head)?;
        let mut tasks = Vec::with_capacity(definition.tasks.len());
        let mut states = stored.states;
        while states.len() >= RECORD_BYTES {
            let record = states.split_to(RECORD_BYTES);
            tasks.push(decode(record).ok_or_else(|| undecodable("a record of a task"))?);
        }
        let mut targets = BTreeMap::new();
        for (task, note) in stored.notes {
            let note: Note =
                serde_json::from_slice(&note).map_err(|error| Undecodable(error.to_string()))?;
            let place = usize::try_from(task).unwrap_or(usize::MAX);
            let state = tasks
                .get_mut(place)
                .ok_or_else(|| undecodable("a note of no task"))?;
            state.consumer = note.consumer;
            state.reason = note.reason;
            if !note.group.is_empty() {
                let target = Target {
                    stream: note.stream,
                    group: note.group,
                };
                targets.insert(task, target);
            }
        }
        let run = Run::load(Parts {
            definition,
            head,
            tasks,
        })
        .map_err(|error| Undecodable(error.to_string()))?;
        Ok(Self {
            run,
            version: stored.version,
            created_ms: stored.created_ms,
            targets,
            newest: String::new(),
        })
    }

    /// Where an attempt was sent, if it was.
    pub(crate) fn target(&self, task: TaskIndex) -> Option<&Target> {
        self.targets.get(&task)
    }

    /// The text of a task's note; empty where there is nothing to note.
    pub(crate) fn note(&self, task: TaskIndex) -> Bytes {
        let Some(state) = self.run.task(task) else {
            return Bytes::new();
        };
        let target = self.targets.get(&task);
        if state.consumer.is_empty() && state.reason.is_empty() && target.is_none() {
            return Bytes::new();
        }
        json(&Note {
            consumer: state.consumer.clone(),
            reason: state.reason.clone(),
            stream: target.map(|at| at.stream.clone()).unwrap_or_default(),
            group: target.map(|at| at.group.clone()).unwrap_or_default(),
        })
    }
}

/// The machine's head among the fields of a stored one.
pub(crate) fn head_of(fields: &[(String, Bytes)]) -> Result<Head, Undecodable> {
    read_field(fields, MACHINE)
}

/// What lists show, among the fields of a stored head.
pub(crate) fn meta_of(fields: &[(String, Bytes)]) -> Result<Meta, Undecodable> {
    read_field(fields, META)
}

/// Tasks in each state, among the fields of a stored head.
pub(crate) fn counts_of(fields: &[(String, Bytes)]) -> Result<Vec<u32>, Undecodable> {
    read_field(fields, COUNTS)
}

fn read_field<T: for<'de> Deserialize<'de>>(
    fields: &[(String, Bytes)],
    name: &str,
) -> Result<T, Undecodable> {
    let field = fields.iter().find(|(field, _)| field == name);
    let (_, bytes) = field.ok_or_else(|| Undecodable(format!("it has no field `{name}`")))?;
    serde_json::from_slice(bytes).map_err(|error| Undecodable(error.to_string()))
}

/// Tasks in each state, in the order of the states' codes.
pub(crate) fn counts(run: &Run) -> Vec<u32> {
    let mut counts = vec![0_u32; TaskStatus::ALL.len()];
    for state in run.tasks() {
        if let Some(count) = counts.get_mut(usize::from(code(&TaskStatus::ALL, &state.status))) {
            *count = count.saturating_add(1);
        }
    }
    counts
}

/// The fields of the head that a step writes.
pub(crate) fn head_fields(run: &Run) -> Vec<(String, Bytes)> {
    vec![
        (MACHINE.to_owned(), json(run.head())),
        (COUNTS.to_owned(), json(&counts(run))),
    ]
}

/// What is ours always has a JSON form.
pub(crate) fn json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

const MARKS: [Mark; 5] = [
    Mark::Plain,
    Mark::Provisional,
    Mark::Absorbed,
    Mark::Held,
    Mark::Swept,
];
const GATES: [Gate; 3] = [Gate::Closed, Gate::Asked, Gate::Open];
const RESOLUTIONS: [Option<Resolution>; 5] = [
    None,
    Some(Resolution::Succeeded),
    Some(Resolution::Failed),
    Some(Resolution::TimedOut),
    Some(Resolution::Cancelled),
];
/// Stands for no task.
const NOBODY: u32 = u32::MAX;

/// Place of a value in the list of its kind.
fn code<T: PartialEq>(all: &[T], value: &T) -> u8 {
    let place = all.iter().position(|one| one == value);
    place
        .and_then(|place| u8::try_from(place).ok())
        .unwrap_or(u8::MAX)
}

/// The record of a task's state.
pub(crate) fn encode(state: &TaskState) -> Bytes {
    let time = |time: Option<Timestamp>| time.map_or(0, Timestamp::as_millis);
    let mut out = BytesMut::with_capacity(RECORD_BYTES);
    out.put_u8(code(&TaskStatus::ALL, &state.status));
    out.put_u8(u8::from(state.is_placed) | u8::from(state.has_result) << 1);
    out.put_u8(code(&MARKS, &state.mark));
    out.put_u8(code(&GATES, &state.gate));
    out.put_u8(code(&RESOLUTIONS, &state.resolving));
    out.put_bytes(0, 3);
    out.put_u32(state.attempt);
    out.put_u32(state.deliveries);
    out.put_u32(state.cause.unwrap_or(NOBODY));
    out.put_u64(time(state.started_at));
    out.put_u64(time(state.finished_at));
    out.put_u64(time(state.due));
    out.freeze()
}

fn decode(mut record: Bytes) -> Option<TaskState> {
    let status = *TaskStatus::ALL.get(usize::from(record.try_get_u8().ok()?))?;
    let flags = record.try_get_u8().ok()?;
    let mark = *MARKS.get(usize::from(record.try_get_u8().ok()?))?;
    let gate = *GATES.get(usize::from(record.try_get_u8().ok()?))?;
    let resolving = *RESOLUTIONS.get(usize::from(record.try_get_u8().ok()?))?;
    record.advance(3);
    let attempt = record.try_get_u32().ok()?;
    let deliveries = record.try_get_u32().ok()?;
    let cause = record.try_get_u32().ok()?;
    let mut time = || {
        let millis = record.try_get_u64().ok()?;
        Some((millis > 0).then_some(Timestamp(millis)))
    };
    Some(TaskState {
        status,
        attempt,
        is_placed: flags & 1 == 1,
        consumer: String::new(),
        deliveries,
        started_at: time()?,
        finished_at: time()?,
        due: time()?,
        has_result: flags & 2 == 2,
        mark,
        gate,
        resolving,
        cause: (cause != NOBODY).then_some(cause),
        reason: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use hive_domain::workflow::TaskStatus;
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn states()(
            status in proptest::sample::select(&TaskStatus::ALL[..]),
            mark in proptest::sample::select(&MARKS[..]),
            gate in proptest::sample::select(&GATES[..]),
            resolving in proptest::sample::select(&RESOLUTIONS[..]),
            (attempt, deliveries) in (any::<u32>(), any::<u32>()),
            (is_placed, has_result) in (any::<bool>(), any::<bool>()),
            times in proptest::collection::vec(proptest::option::of(1..u64::MAX), 3),
            cause in proptest::option::of(0..NOBODY),
        ) -> TaskState {
            let time = |place: usize| times[place].map(Timestamp);
            TaskState {
                status, attempt, is_placed, deliveries, has_result, mark, gate, resolving, cause,
                started_at: time(0), finished_at: time(1), due: time(2),
                ..TaskState::default()
            }
        }
    }

    proptest! {
        #[test]
        fn a_state_is_read_back_from_its_record(state in states()) {
            let record = encode(&state);
            prop_assert_eq!(record.len(), RECORD_BYTES);
            prop_assert_eq!(decode(record), Some(state));
        }
    }

    #[test]
    fn bytes_that_are_no_record_are_refused_not_guessed() {
        assert_eq!(decode(Bytes::from_static(&[0; 10])), None);
        let mut record = BytesMut::from(&encode(&TaskState::default())[..]);
        record[0] = 200;
        assert_eq!(decode(record.freeze()), None);
    }
}
