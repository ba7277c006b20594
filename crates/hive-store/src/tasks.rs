//! Tasks of workflows on a shard: sent to the lanes of their group, decided, asked for, and what
//! became of them.
//!
//! A task is an entry of a task lane under a dispatch key, which names one dispatch of it. The
//! shard is the one place that decides: the first outcome of a dispatch key is the outcome. What
//! the keys and the bytes mean is the router's business.

use bytes::Bytes;
use redis::Cmd;

use crate::{
    connection::{Purpose, Store},
    error::StoreError,
    keys::{GroupKey, Shard},
    lane::{Lane, LaneRef},
    reply::{self, Reply},
    scripts::{Call, HANDOVER_TRIM, TASK_DISPATCH, TASK_LOOK, TASK_RESOLVE},
    tracked::is_tracking_key,
};

/// Most tasks of one script call, 5 us each.
const DISPATCH_MAX: usize = 100;
/// Bytes of tasks of one script call, give or take one task.
const DISPATCH_BYTES: usize = 4 * 1024 * 1024;
/// Records that one call forgets.
const TRIM_LIMIT: u64 = 500;
/// Calls of one trim; what is left is for the next one.
const TRIM_CALLS: u32 = 20;
/// How often a row is read again that changes meanwhile.
const ROW_TRIES: u32 = 5;

/// How a dispatch of a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TaskOutcome {
    /// Handled.
    Succeeded,
    /// It was told to have failed.
    Failed,
    /// Its message went to the dead letters.
    DeadLettered,
    /// It took too long.
    TimedOut,
    /// It waits for an answer, and goes on with another dispatch.
    Suspended,
    /// It is not wanted any more.
    Cancelled,
}

impl TaskOutcome {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Succeeded,
        Self::Failed,
        Self::DeadLettered,
        Self::TimedOut,
        Self::Suspended,
        Self::Cancelled,
    ];

    /// As it is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::DeadLettered => "dead_lettered",
            Self::TimedOut => "timed_out",
            Self::Suspended => "suspended",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads what `as_str` writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|outcome| outcome.as_str() == text)
    }

    fn read(text: &str) -> Result<Self, StoreError> {
        Self::parse(text).ok_or_else(|| StoreError::Corrupt {
            what: format!("outcome `{text}` of a task"),
        })
    }
}

/// One dispatch of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskEntry {
    /// `<run id>/<task number>/<attempt>`, at most 256 bytes; the header of the body has it too.
    pub dispatch_key: String,
    /// Whether an ack without a result leaves it open for a signal.
    pub awaits_signal: bool,
    /// 0 to 9.
    pub priority: u8,
    /// Required capabilities, sorted, with commas between; empty for none.
    pub capabilities: String,
    /// Header and envelope.
    pub body: Bytes,
}

/// The group that tasks are dispatched to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskTarget<'a> {
    /// Its name.
    pub group: &'a str,
    /// Most unsettled messages of it.
    pub max_backlog: u64,
    /// Most bytes of its unsettled messages. The message that passes it is taken still.
    pub max_backlog_bytes: u64,
    /// On disk before the answer.
    pub durable: bool,
}

/// What became of a dispatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dispatched {
    /// Every task has a row now.
    Done {
        /// So many were added; the others were known.
        added: u32,
    },
    /// The group is absent or being deleted; nothing was added.
    GroupGone,
    /// The group has no room for all of them. Those before the first that had none were added: the
    /// same tasks sent again later add what is missing.
    Full,
    /// It is later than the caller meant; nothing more was added.
    Late,
}

/// Who held a delivery that was settled on their behalf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The group.
    pub group: String,
    /// Ref of the lane.
    pub lane: String,
    /// Id of the entry.
    pub id: String,
    /// The consumer.
    pub consumer: String,
    /// How often it was delivered.
    pub deliveries: u64,
}

/// What deciding a task came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// Decided now.
    Ended {
        /// Who worked on it.
        holder: Option<Holder>,
    },
    /// Decided before, as this.
    Already(TaskOutcome),
}

/// Where a task stands on its shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskRow {
    /// The shard does not know it, or has lost its entry: it may be dispatched under the same key.
    Unknown,
    /// It waits for a consumer.
    Waiting,
    /// It is worked on.
    Leased {
        /// Who has it.
        consumer: String,
        /// How often it was delivered.
        deliveries: u64,
    },
    /// It is handled; its signal is waited for.
    Acked,
    /// It is decided.
    Ended(TaskOutcome),
}

/// One record of what became of tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettledRecord {
    /// Its id: records are read on behind it.
    pub id: String,
    /// The dispatch that it is about.
    pub dispatch_key: String,
    /// What it says.
    pub what: SettledWhat,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettledWhat {
    /// It was delivered.
    Started {
        /// To whom.
        consumer: String,
        /// How often by then.
        deliveries: u64,
    },
    /// It is decided. There is one such record of a dispatch key.
    Ended {
        /// How.
        outcome: TaskOutcome,
        /// What its agent gave (an encoded `Ack`, or `Suspend`), else the reason.
        detail: Bytes,
    },
}

/// A row as it names its entry.
pub(crate) struct Open {
    pub(crate) lane: LaneRef,
    pub(crate) reference: String,
    /// Of the entry; of a tracked message with a delay its scheduled member.
    pub(crate) id: String,
}

impl Store {
    /// Adds tasks to the lanes of their group, and rings; what has a row is not added again.
    ///
    /// # Errors
    /// As in `StoreError`. The same tasks may be sent again whatever the error is.
    pub async fn dispatch_tasks(
        &self,
        shard: &Shard,
        target: TaskTarget<'_>,
        not_after_ms: u64,
        entries: &[TaskEntry],
        now_ms: u64,
    ) -> Result<Dispatched, StoreError> {
        let (mut added, mut rest) = (0, entries);
        let mut end = Dispatched::Done { added };
        while !rest.is_empty() {
            let (some, behind) = rest.split_at(in_one_call(rest));
            rest = behind;
            let call = dispatch_call(shard, target, not_after_ms, some, now_ms);
            let value = if target.durable {
                self.run_durably(Purpose::Publish, call).await?
            } else {
                self.run_safely(Purpose::Publish, call).await?
            };
            let (word, parts) = reply::status("task_dispatch", value)?;
            let detail = reply::detail("task_dispatch", parts)?;
            let count = || {
                let count = detail.parse::<u32>();
                count.map_err(|_error| StoreError::reply("task_dispatch"))
            };
            match word.as_str() {
                "DONE" => {
                    added += count()?;
                    end = Dispatched::Done { added };
                    continue;
                },
                "FULL" => {
                    added += count()?;
                    end = Dispatched::Full;
                },
                "GONE" => end = Dispatched::GroupGone,
                "LATE" => end = Dispatched::Late,
                "LOST" => {
                    return Err(StoreError::Lost {
                        what: format!("lane `{detail}`"),
                    });
                },
                _ => return Err(StoreError::reply("task_dispatch")),
            }
            break;
        }
        if added > 0 {
            self.ring_soon(shard);
        }
        Ok(end)
    }

    /// Decides a task from outside: what is not decided yet ends so, wherever its entry is. A
    /// dispatch that comes later adds nothing. No step of it needs the time.
    ///
    /// # Errors
    /// As in `StoreError`. The same may be asked again whatever the error is: where the answer to
    /// the first call is lost, the second one answers `Already`.
    pub async fn resolve_task(
        &self,
        shard: &Shard,
        group: &str,
        dispatch_key: &str,
        outcome: TaskOutcome,
        detail: Bytes,
    ) -> Result<Resolved, StoreError> {
        let key = (group, dispatch_key);
        self.resolve(shard, key, outcome, detail, false).await
    }

    /// As `resolve_task`; with `durable` it is on disk before the answer.
    pub(crate) async fn resolve(
        &self,
        shard: &Shard,
        (group, dispatch_key): (&str, &str),
        outcome: TaskOutcome,
        detail: Bytes,
        durable: bool,
    ) -> Result<Resolved, StoreError> {
        for _ in 0..ROW_TRIES {
            let open = self.open_row(shard, dispatch_key).await?;
            // A task lane is of one group: its own, whatever the caller thinks.
            let group = open.as_ref().map_or(group, |open| &open.lane.group);
            let mut call = Call::new(&TASK_RESOLVE);
            call.key(shard.tasks());
            call.key(if is_tracking_key(dispatch_key) {
                shard.outcomes()
            } else {
                shard.settled()
            });
            call.key(shard.cancels());
            for key in [GroupKey::Counters, GroupKey::Delayed, GroupKey::Failures] {
                call.key(shard.group(group, key));
            }
            call.key(shard.scheduled()).key(shard.bodies());
            call.key(shard.sizes());
            if let Some(open) = &open {
                call.key(shard.lane(&open.lane));
                call.key(shard.ready(group, &open.lane.lane.suffix()));
            }
            call.text(group).text(dispatch_key).text(outcome.as_str());
            call.bytes(detail.clone());
            call.text(open.as_ref().map_or("", |open| &open.reference));
            let value = if durable {
                self.run_durably(Purpose::Control, call).await?
            } else {
                self.run_safely(Purpose::Control, call).await?
            };
            let (word, parts) = reply::status("task_resolve", value)?;
            match word.as_str() {
                "ENDED" => {
                    let [lane, id, consumer, count] = parts
                        .try_into()
                        .map_err(|_error| StoreError::reply("task_resolve"))?;
                    let holder = Holder {
                        group: group.to_owned(),
                        lane: lane.text()?,
                        id: id.text()?,
                        consumer: consumer.text()?,
                        deliveries: count.number()?,
                    };
                    let is_held = !holder.consumer.is_empty();
                    return Ok(Resolved::Ended {
                        holder: is_held.then_some(holder),
                    });
                },
                "ALREADY" => {
                    let before = reply::detail("task_resolve", parts)?;
                    return Ok(Resolved::Already(TaskOutcome::read(&before)?));
                },
                "MOVED" => {},
                _ => return Err(StoreError::reply("task_resolve")),
            }
        }
        Err(keeps_changing())
    }

    /// Where a task stands. One whose entry was lost with data is forgotten by this.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn look_up_task(
        &self,
        shard: &Shard,
        dispatch_key: &str,
    ) -> Result<TaskRow, StoreError> {
        for _ in 0..ROW_TRIES {
            let open = self.open_row(shard, dispatch_key).await?;
            let mut call = Call::new(&TASK_LOOK);
            call.key(shard.tasks());
            if let Some(open) = &open {
                call.key(shard.lane(&open.lane));
            }
            call.text(open.as_ref().map_or("", |open| &open.lane.group));
            call.text(dispatch_key);
            call.text(open.as_ref().map_or("", |open| &open.reference));
            let value = self.run_safely(Purpose::Control, call).await?;
            let (word, parts) = reply::status("task_look", value)?;
            let [detail, count] = parts
                .try_into()
                .map_err(|_error| StoreError::reply("task_look"))?;
            let detail = detail.text()?;
            return Ok(match word.as_str() {
                "UNKNOWN" => TaskRow::Unknown,
                "WAITING" => TaskRow::Waiting,
                "LEASED" => TaskRow::Leased {
                    consumer: detail,
                    deliveries: count.number()?,
                },
                "ACKED" => TaskRow::Acked,
                "ENDED" => TaskRow::Ended(TaskOutcome::read(&detail)?),
                "MOVED" => continue,
                _ => return Err(StoreError::reply("task_look")),
            });
        }
        Err(keeps_changing())
    }

    /// Up to `count` records behind `after` (`0-0` at first), and about 4 MiB of them.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn read_settled(
        &self,
        shard: &Shard,
        after: &str,
        count: usize,
    ) -> Result<Vec<SettledRecord>, StoreError> {
        let records = self.handed_over(shard.settled(), after, count).await?;
        records.into_iter().map(read_record).collect()
    }

    /// The last record that the router has applied; `0-0` where there is none.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn settled_applied(&self, shard: &Shard) -> Result<String, StoreError> {
        self.taken_over(shard.settled_applied()).await
    }

    /// Notes the last record that the router has applied of those behind `from`; an older one than
    /// noted changes nothing. False where what is noted is older than `from`, because Redis lost
    /// data: nothing was noted, and what is behind `settled_applied` must be applied again.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn advance_settled(
        &self,
        shard: &Shard,
        from: &str,
        applied: &str,
    ) -> Result<bool, StoreError> {
        self.take_over(shard.settled_applied(), (from, applied))
            .await
    }

    /// Forgets records that were applied and are older than `keep_ms`, and the outcomes that they
    /// tell; answers how many. A dispatch that may still be under way must not be so old: its key
    /// would be new again.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn trim_settled(
        &self,
        shard: &Shard,
        keep_ms: u64,
        now_ms: u64,
    ) -> Result<u64, StoreError> {
        let mut total = 0;
        for _ in 0..TRIM_CALLS {
            let mut call = Call::new(&HANDOVER_TRIM);
            call.key(shard.settled()).key(shard.tasks());
            call.key(shard.settled_applied());
            call.number(keep_ms).number(TRIM_LIMIT).number(now_ms);
            call.flag(false);
            let (removed, is_end) = self.trim_handed_over(call).await?;
            total += removed;
            if is_end {
                break;
            }
        }
        Ok(total)
    }

    /// The record of how a task ended; none where it has not, or where that was forgotten.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn outcome_of_task(
        &self,
        shard: &Shard,
        dispatch_key: &str,
    ) -> Result<Option<SettledRecord>, StoreError> {
        let mut read = Cmd::new();
        read.arg("HGET").arg(shard.tasks()).arg(dispatch_key);
        let row = self.command(Purpose::Control, read).await?.maybe_text()?;
        let Some(id) = row
            .as_deref()
            .and_then(|row| row.strip_prefix("ended "))
            .and_then(|rest| rest.split(' ').nth(1))
        else {
            return Ok(None);
        };
        let mut read = Cmd::new();
        read.arg("XRANGE").arg(shard.settled()).arg(id).arg(id);
        let mut records = self.command(Purpose::Control, read).await?.list()?;
        records.pop().map(read_record).transpose()
    }

    /// The lane that an open row names.
    pub(crate) async fn open_row(
        &self,
        shard: &Shard,
        key: &str,
    ) -> Result<Option<Open>, StoreError> {
        let mut read = Cmd::new();
        read.arg("HGET").arg(shard.tasks()).arg(key);
        let row = self.command(Purpose::Control, read).await?.maybe_text()?;
        let Some(row) = row.filter(|row| row.starts_with("open ")) else {
            return Ok(None);
        };
        let wrong = || StoreError::Corrupt {
            what: format!("row `{row}` of a task"),
        };
        let mut words = row.splitn(3, ' ');
        let entry = words.nth(2).ok_or_else(wrong)?;
        let (reference, id) = entry.rsplit_once('|').ok_or_else(wrong)?;
        Ok(Some(Open {
            id: id.to_owned(),
            lane: reference.parse().map_err(|_error| wrong())?,
            reference: reference.to_owned(),
        }))
    }
}

/// How many of these tasks ride in one call, at least one.
fn in_one_call(entries: &[TaskEntry]) -> usize {
    let mut bytes = 0;
    for (count, entry) in entries.iter().enumerate() {
        bytes += entry.body.len();
        if count == DISPATCH_MAX || count > 0 && bytes > DISPATCH_BYTES {
            return count;
        }
    }
    entries.len()
}

fn dispatch_call(
    shard: &Shard,
    target: TaskTarget<'_>,
    not_after_ms: u64,
    entries: &[TaskEntry],
    now_ms: u64,
) -> Call {
    let mut lanes: Vec<LaneRef> = Vec::new();
    let mut items = Call::new(&TASK_DISPATCH);
    for entry in entries {
        let lane = Lane::of_tasks(entry.priority, &entry.capabilities);
        let lane = LaneRef::of_group(target.group, lane);
        let number = lanes.iter().position(|known| *known == lane);
        let number = number.unwrap_or_else(|| {
            lanes.push(lane);
            lanes.len() - 1
        });
        items.count(number + 1).text(&entry.dispatch_key);
        items.flag(entry.awaits_signal).bytes(entry.body.clone());
    }
    let mut call = Call::new(&TASK_DISPATCH);
    call.key(shard.groups()).key(shard.lanes());
    call.key(shard.sizes());
    call.key(shard.group(target.group, GroupKey::Counters));
    call.key(shard.tasks());
    for lane in &lanes {
        call.key(shard.lane(lane));
    }
    call.text(target.group)
        .number(target.max_backlog)
        .number(target.max_backlog_bytes)
        .number(not_after_ms)
        .number(now_ms)
        .count(lanes.len())
        .count(entries.len());
    for lane in &lanes {
        call.text(lane.to_string());
    }
    call.append_args(items);
    call
}

fn read_record(record: Reply) -> Result<SettledRecord, StoreError> {
    let wrong = || StoreError::reply("handover_read");
    let [id, fields] = record.array()?;
    let (mut key, mut kind, mut consumer, mut outcome) =
        (String::new(), String::new(), String::new(), String::new());
    let (mut deliveries, mut detail) = (0, Bytes::new());
    let mut fields = fields.list()?.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        match name.text()?.as_str() {
            "d" => key = value.text()?,
            "k" => kind = value.text()?,
            "c" => consumer = value.text()?,
            "n" => deliveries = value.number()?,
            "o" => outcome = value.text()?,
            "b" => detail = value.bytes()?.into(),
            _ => {},
        }
    }
    let what = match kind.as_str() {
        "started" => SettledWhat::Started {
            consumer,
            deliveries,
        },
        "ended" => SettledWhat::Ended {
            outcome: TaskOutcome::read(&outcome)?,
            detail,
        },
        _ => return Err(wrong()),
    };
    Ok(SettledRecord {
        id: id.text()?,
        dispatch_key: key,
        what,
    })
}

fn keeps_changing() -> StoreError {
    StoreError::Unavailable {
        detail: "the row of a task keeps changing".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_read_back_from_its_name() {
        for outcome in TaskOutcome::ALL {
            assert_eq!(TaskOutcome::parse(outcome.as_str()), Some(outcome));
        }
        assert_eq!(TaskOutcome::parse("started"), None);
    }

    #[test]
    fn a_call_takes_a_hundred_tasks_or_a_batch_of_bytes_and_never_none() {
        let entry = |size: usize| TaskEntry {
            dispatch_key: "r/0/1".into(),
            awaits_signal: false,
            priority: 4,
            capabilities: String::new(),
            body: vec![0; size].into(),
        };
        assert_eq!(in_one_call(&vec![entry(1); 250]), 100);
        assert_eq!(in_one_call(&vec![entry(3 << 20); 3]), 1);
        assert_eq!(in_one_call(&[entry(5 << 20)]), 1);
    }
}
