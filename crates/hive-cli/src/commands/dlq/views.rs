//! Dead letters, replay jobs and figures as they are printed: the names of the REST API.

use std::{collections::BTreeMap, time::SystemTime};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hive_client::wire::{self, DeadLetterStatus, ReplayOutcome};
use hive_protocol::words::{dead_letter_status, replay_job_state, replay_outcome};
use prost_types::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::{
    message::MessageView,
    output::{Show, Tone},
    values::{cut, harmless, rfc3339},
};

/// Longest error in a table, in characters.
const ERROR_CHARS: usize = 60;

/// A failed attempt.
#[derive(Debug, Serialize)]
pub(super) struct AttemptView {
    #[serde(skip_serializing_if = "String::is_empty")]
    consumer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    category: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    error_type: String,
    reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    stack: String,
}

impl From<wire::FailedAttempt> for AttemptView {
    fn from(attempt: wire::FailedAttempt) -> Self {
        Self {
            started_at: rfc3339(attempt.started_at.as_ref()),
            ended_at: rfc3339(attempt.ended_at.as_ref()),
            consumer: attempt.consumer,
            category: attempt.category,
            error_type: attempt.error_type,
            reason: attempt.reason,
            stack: attempt.stack,
        }
    }
}

impl AttemptView {
    /// The error in one line.
    fn error(&self) -> String {
        let words = self.reason.split_whitespace();
        let line = words.collect::<Vec<&str>>().join(" ");
        harmless(&match (self.error_type.is_empty(), line.is_empty()) {
            (true, _) => line,
            (false, true) => self.error_type.clone(),
            (false, false) => format!("{}: {line}", self.error_type),
        })
    }
}

/// A change of a dead letter.
#[derive(Debug, Serialize)]
struct ChangeView {
    at: Option<String>,
    status: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    by: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
}

/// A dead letter.
#[derive(Debug, Serialize)]
pub(super) struct LetterView {
    pub(super) dlq_id: String,
    message_id: String,
    stream: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    group: String,
    category: String,
    rule: String,
    fingerprint: String,
    pub(super) status: &'static str,
    deliveries: u64,
    failures: u32,
    attempts: Vec<AttemptView>,
    dead_lettered_at: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    message_type: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    from_agent: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    workflow_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    run_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    task_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    traceparent: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    strategy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery_at: Option<String>,
    replays: u32,
    automatic_replays: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    replay_message_id: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    replay_outcome: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    replay_of: String,
    payload_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<MessageView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    edited_payload: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    edited_payload_base64: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    history: Vec<ChangeView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    undecodable_base64: Option<String>,
    #[serde(skip)]
    next: String,
    #[serde(skip)]
    age: String,
    #[serde(skip)]
    tone: Tone,
}

impl From<wire::DeadLetter> for LetterView {
    fn from(letter: wire::DeadLetter) -> Self {
        Self::at(letter, &SystemTime::now().into())
    }
}

impl LetterView {
    /// A dead letter as it is seen at this moment.
    pub(super) fn at(letter: wire::DeadLetter, now: &Timestamp) -> Self {
        let edited = letter.edited_payload.as_ref();
        let edited_payload = edited.and_then(|bytes| serde_json::from_slice(bytes).ok());
        let edited = edited.filter(|_| edited_payload.is_none());
        let undecodable = &letter.undecodable;
        let history = letter.history.iter().map(|change| ChangeView {
            at: rfc3339(change.at.as_ref()),
            status: dead_letter_status(change.status()),
            by: change.by.clone(),
            why: change.why.clone(),
        });
        Self {
            next: next_step(&letter, now),
            age: age(letter.dead_lettered_at.as_ref(), now),
            tone: tone(&letter),
            history: history.collect(),
            edited_payload_base64: edited.map(|bytes| STANDARD.encode(bytes)),
            edited_payload,
            undecodable_base64: (!undecodable.is_empty()).then(|| STANDARD.encode(undecodable)),
            status: dead_letter_status(letter.status()),
            replay_outcome: replay_outcome(letter.replay_outcome()),
            dead_lettered_at: rfc3339(letter.dead_lettered_at.as_ref()),
            recovery_at: rfc3339(letter.recovery_at.as_ref()),
            dlq_id: letter.dlq_id,
            message_id: letter.message_id,
            stream: letter.stream,
            group: letter.group,
            category: letter.category,
            rule: letter.rule,
            fingerprint: letter.fingerprint,
            deliveries: letter.deliveries,
            failures: letter.failures,
            attempts: letter.attempts.into_iter().map(AttemptView::from).collect(),
            message_type: letter.message_type,
            from_agent: letter.from_agent,
            workflow_id: letter.workflow_id,
            run_id: letter.run_id,
            task_id: letter.task_id,
            traceparent: letter.traceparent,
            strategy: letter.strategy,
            replays: letter.replays,
            automatic_replays: letter.automatic_replays,
            replay_message_id: letter.replay_message_id,
            replay_of: letter.replay_of,
            payload_bytes: letter.payload_bytes,
            message: letter.message.map(MessageView::from),
        }
    }

    /// The last error in one line; a dash where nobody had the message.
    pub(super) fn error(&self) -> String {
        let last = self.attempts.last().map(AttemptView::error);
        or_dash(&last.unwrap_or_default())
    }

    /// Time, group, category and error: what a line about a new one says.
    pub(super) fn line(&self) -> [String; 5] {
        [
            self.dead_lettered_at.clone().unwrap_or_default(),
            or_dash(&self.group),
            self.category.clone(),
            self.dlq_id.clone(),
            cut(&self.error(), ERROR_CHARS * 2),
        ]
    }

    /// The whole of it for a person: what died, why, what it held, what happened, what to do.
    pub(super) fn text(&self) -> String {
        let mut text = format!("dead letter {}\n", self.dlq_id);
        let mut field = |name: &str, value: &str| {
            if !value.is_empty() {
                text.push_str(&format!("  {name:<12} {value}\n"));
            }
        };
        field("status", self.status);
        field("next step", &self.next);
        field("died", self.dead_lettered_at.as_deref().unwrap_or_default());
        field("group", &self.group);
        field("stream", &self.stream);
        field("message", &self.message_id);
        field("type", &self.message_type);
        field("from", &self.from_agent);
        if !self.workflow_id.is_empty() {
            let (workflow, run, task) = (&self.workflow_id, &self.run_id, &self.task_id);
            field("task", &format!("{task} of {workflow} (run {run})"));
        }
        field("trace", &self.traceparent);
        field(
            "category",
            &format!("{} (rule {})", self.category, self.rule),
        );
        field("fingerprint", &self.fingerprint);
        field("advice", &self.strategy.replace('_', " "));
        field("recovery", self.recovery_at.as_deref().unwrap_or_default());
        if self.replays > 0 {
            let (count, automatic) = (self.replays, self.automatic_replays);
            let outcome = match self.replay_outcome {
                "" => "what became of it is not known",
                outcome => outcome,
            };
            let sent = &self.replay_message_id;
            let sent = format!("{count} ({automatic} by recovery), the last as {sent}: {outcome}");
            field("replays", &sent);
        }
        field("replay of", &self.replay_of);
        self.write_attempts(&mut text);
        self.write_payload(&mut text);
        if !self.history.is_empty() {
            text.push_str("\nhistory\n");
        }
        for change in &self.history {
            let at = change.at.as_deref().unwrap_or("-");
            let why = if change.why.is_empty() { "" } else { ": " };
            let (status, by) = (change.status, or_dash(&change.by));
            text.push_str(&format!("  {at}  {status} by {by}{why}{}\n", change.why));
        }
        text.trim_end().to_owned()
    }

    fn write_attempts(&self, text: &mut String) {
        let (shown, failures) = (self.attempts.len(), self.failures);
        text.push_str(&format!(
            "\nattempts: {failures} failed of {} deliveries, {shown} shown\n",
            self.deliveries
        ));
        for attempt in &self.attempts {
            let at = attempt.ended_at.as_deref().unwrap_or("-");
            let (consumer, error) = (or_dash(&attempt.consumer), or_dash(&attempt.error()));
            text.push_str(&format!("  {at}  {consumer}: {error}\n"));
            for line in attempt.stack.lines() {
                text.push_str(&format!("      {}\n", harmless(line)));
            }
        }
    }

    fn write_payload(&self, text: &mut String) {
        text.push_str(&format!("\npayload: {} bytes\n", self.payload_bytes));
        let (json, base64) = match &self.message {
            Some(message) => message.payload(),
            None => (None, self.undecodable_base64.as_deref()),
        };
        if let Some(json) = json {
            text.push_str(&format!("  {json}\n"));
        } else if let Some(base64) = base64 {
            text.push_str(&format!("  base64:{base64}\n"));
        }
        if let Some(json) = &self.edited_payload {
            text.push_str(&format!("sent in its place\n  {json}\n"));
        } else if let Some(base64) = &self.edited_payload_base64 {
            text.push_str(&format!("sent in its place\n  base64:{base64}\n"));
        }
    }
}

impl Show for LetterView {
    const COLUMNS: &'static [&'static str] = &[
        "ID",
        "AGE",
        "GROUP",
        "CATEGORY",
        "ATTEMPTS",
        "STATUS",
        "NEXT STEP",
        "LAST ERROR",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.dlq_id.clone(),
            self.age.clone(),
            or_dash(&self.group),
            self.category.clone(),
            self.failures.to_string(),
            self.status.to_owned(),
            self.next.clone(),
            cut(&self.error(), ERROR_CHARS),
        ]
    }

    fn tone(&self, column: usize) -> Option<Tone> {
        (Self::COLUMNS.get(column) == Some(&"STATUS")).then_some(self.tone)
    }
}

fn tone(letter: &wire::DeadLetter) -> Tone {
    match letter.status() {
        DeadLetterStatus::Quarantined => Tone::Bad,
        DeadLetterStatus::Analyzed | DeadLetterStatus::Unspecified => Tone::Attention,
        DeadLetterStatus::Replayable | DeadLetterStatus::Replaying => Tone::Good,
        DeadLetterStatus::Replayed => match letter.replay_outcome() {
            ReplayOutcome::Failed => Tone::Bad,
            ReplayOutcome::Unspecified | ReplayOutcome::Pending | ReplayOutcome::Succeeded => {
                Tone::Faint
            },
        },
        DeadLetterStatus::PermanentFailure | DeadLetterStatus::Archived => Tone::Faint,
    }
}

/// What a person does about it now, in a few words.
fn next_step(letter: &wire::DeadLetter, now: &Timestamp) -> String {
    match letter.status() {
        DeadLetterStatus::Unspecified => "look at it",
        DeadLetterStatus::Quarantined => "find out why, then replay",
        DeadLetterStatus::Analyzed => match &*letter.strategy {
            "immediate_retry" | "delayed_retry" => "replay",
            "requeue_with_priority" => "replay with --priority-boost 2",
            "skip_and_continue" => "skip it: set-status archived",
            "workflow_restart" => "rerun its workflow",
            "permanent_discard" => "give it up: set-status permanent_failure",
            _ => "mend the cause, then replay",
        },
        DeadLetterStatus::Replayable => {
            if let Some(at) = &letter.recovery_at {
                let due = seconds_between(now, at);
                return format!("none: recovers in {}", short_age(due));
            }
            "replay"
        },
        DeadLetterStatus::Replaying => "none: is being sent",
        DeadLetterStatus::Replayed => match letter.replay_outcome() {
            ReplayOutcome::Failed => "see its new dead letter",
            ReplayOutcome::Pending => "none: waits for its outcome",
            ReplayOutcome::Succeeded | ReplayOutcome::Unspecified => "none",
        },
        DeadLetterStatus::PermanentFailure | DeadLetterStatus::Archived => "none",
    }
    .to_owned()
}

/// Seconds from one moment to a later one; 0 to an earlier one.
fn seconds_between(from: &Timestamp, to: &Timestamp) -> u64 {
    u64::try_from(to.seconds.saturating_sub(from.seconds)).unwrap_or(0)
}

fn age(moment: Option<&Timestamp>, now: &Timestamp) -> String {
    moment.map_or_else(
        || "-".to_owned(),
        |moment| short_age(seconds_between(moment, now)),
    )
}

/// A time in its largest unit: `40s`, `5m`, `3h`, `2d`.
pub(super) fn short_age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The text, or a dash for none.
pub(super) fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}

/// What became of the replay of one.
#[derive(Debug, Serialize)]
pub(super) struct ReplayedView {
    pub(super) dlq_message_id: String,
    pub(super) replayed: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) message_id: String,
    pub(super) replay_number: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) error: String,
}

impl Show for ReplayedView {
    const COLUMNS: &'static [&'static str] = &["ID", "REPLAYED", "REPLAY", "MESSAGE"];

    fn cells(&self) -> Vec<String> {
        let is_error = !self.error.is_empty();
        let word = match self.replayed {
            true => "now",
            false if is_error => "refused",
            false => "before",
        };
        let number = if is_error { 0 } else { self.replay_number };
        let number = Some(number).filter(|number| *number > 0);
        vec![
            self.dlq_message_id.clone(),
            word.to_owned(),
            number.map_or_else(|| "-".to_owned(), |number| number.to_string()),
            or_dash(if is_error {
                &self.error
            } else {
                &self.message_id
            }),
        ]
    }

    fn tone(&self, column: usize) -> Option<Tone> {
        let tone = if self.error.is_empty() {
            Tone::Good
        } else {
            Tone::Bad
        };
        (column == 1).then_some(tone)
    }
}

/// A replay job.
#[derive(Debug, Serialize)]
pub(super) struct JobView {
    pub(super) job_id: String,
    pub(super) state: &'static str,
    pub(super) filter_criteria: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_messages: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    canary: Option<u32>,
    pub(super) total: u64,
    pub(super) attempted: u64,
    pub(super) replayed: u64,
    pub(super) failed: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) errors: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) error: String,
    created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    by: String,
}

impl From<wire::ReplayJob> for JobView {
    fn from(job: wire::ReplayJob) -> Self {
        let filter_criteria = job.filter.as_ref().map(criteria).unwrap_or_default();
        let some = |number: u32| Some(number).filter(|number| *number > 0);
        Self {
            state: replay_job_state(job.state()),
            created_at: rfc3339(job.created_at.as_ref()),
            ended_at: rfc3339(job.ended_at.as_ref()),
            max_messages: some(job.limit),
            rate: some(job.rate),
            canary: some(job.canary),
            filter_criteria,
            job_id: job.job_id,
            total: job.total,
            attempted: job.attempted,
            replayed: job.replayed,
            failed: job.failed,
            errors: job.errors,
            error: job.error,
            by: job.by,
        }
    }
}

/// What is set of a filter, by the names of requests.
fn criteria(filter: &wire::DeadLetterFilter) -> BTreeMap<&'static str, String> {
    let statuses: Vec<&str> = filter.status().map(dead_letter_status).collect();
    let time = |at: &Option<Timestamp>| rfc3339(at.as_ref()).unwrap_or_default();
    let all = [
        ("failure_category", filter.category.clone()),
        ("group", filter.group.clone()),
        ("stream", filter.stream.clone()),
        ("status", statuses.join(",")),
        ("fingerprint", filter.fingerprint.clone()),
        ("message_type", filter.message_type.clone()),
        ("workflow_id", filter.workflow_id.clone()),
        ("error_type", filter.error_type.clone()),
        ("from_time", time(&filter.from_time)),
        ("to_time", time(&filter.to_time)),
    ];
    all.into_iter()
        .filter(|(_, value)| !value.is_empty())
        .collect()
}

impl JobView {
    /// How it stands, in a sentence.
    pub(super) fn text(&self) -> String {
        let (id, state) = (&self.job_id, self.state);
        let (replayed, total, failed) = (self.replayed, self.total, self.failed);
        let mut text = format!("job `{id}` is {state}: {replayed} of {total} sent back");
        if failed > 0 {
            text.push_str(&format!(", {failed} not"));
        }
        if !self.error.is_empty() {
            text.push_str(&format!("\n  {}", self.error));
        }
        for error in &self.errors {
            text.push_str(&format!("\n  {error}"));
        }
        text
    }
}

impl Show for JobView {
    const COLUMNS: &'static [&'static str] = &[
        "JOB", "STATE", "SENT", "NOT SENT", "TOTAL", "BEGAN", "BY", "FILTER",
    ];

    fn cells(&self) -> Vec<String> {
        let filter = self.filter_criteria.iter();
        let filter: Vec<String> = filter
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        vec![
            self.job_id.clone(),
            self.state.to_owned(),
            self.replayed.to_string(),
            self.failed.to_string(),
            self.total.to_string(),
            self.created_at.clone().unwrap_or_default(),
            or_dash(&self.by),
            or_dash(&filter.join(" ")),
        ]
    }

    fn tone(&self, column: usize) -> Option<Tone> {
        let tone = match self.state {
            "running" | "canary" => Tone::Attention,
            "done" if self.failed == 0 => Tone::Good,
            "done" | "failed" => Tone::Bad,
            _ => Tone::Faint,
        };
        (column == 1).then_some(tone)
    }
}
