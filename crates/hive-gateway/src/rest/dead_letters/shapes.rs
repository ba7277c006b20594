//! What dead letters and replay jobs look like in requests and answers.

use hive_protocol::limits::{
    ANALYSIS_WINDOW_MS_MAX, ANALYSIS_WINDOW_MS_MIN, CURSOR_BYTES_MAX, DEAD_LETTERS_CANARY_MAX,
    DEAD_LETTERS_LIST_MAX, DEAD_LETTERS_REPLAY_MAX, ERROR_TYPE_BYTES_MAX, REASON_BYTES_MAX,
    REPLAY_RATE_MAX, WAIT_MS_MAX,
};

use crate::rest::{
    messages::STORED_MESSAGE,
    shape::{
        Field,
        Kind::{
            self, Base64, Boost, Count, Counts, Flag, Json as AnyJson, Many, Name, Number, One,
            Seconds, Text, TextOrNull, Texts, Time, Word, Words,
        },
        Shape, optional, required,
    },
};

/// Words for where a dead letter stands.
pub(super) const STATUSES: &[&str] = &[
    "quarantined",
    "analyzed",
    "replayable",
    "replaying",
    "replayed",
    "permanent_failure",
    "archived",
];
/// Those that a person may set.
const SETTABLE: &[&str] = &["analyzed", "replayable", "permanent_failure", "archived"];
/// Words for how a replay job stands.
const JOB_STATES: &[&str] = &["running", "canary", "done", "cancelled", "failed"];
/// Most dead letters of a batch by the guide.
const BATCH_MAX: u64 = 100;
/// Longest category, fingerprint or other word, in bytes.
const WORD_BYTES: usize = 64;
const TOTAL: Kind = Count(0, u64::MAX);

const FILTERS: [Field; 8] = [
    optional("group", Name, "Only of this group."),
    optional("stream", Name, "Only of this stream."),
    optional(
        "fingerprint",
        Text(WORD_BYTES),
        "Only with this fingerprint.",
    ),
    optional("message_type", Name, "Only messages of this type."),
    optional("workflow_id", Name, "Only of this workflow."),
    optional(
        "error_type",
        Text(ERROR_TYPE_BYTES_MAX),
        "Only whose last attempt failed with this type of error.",
    ),
    optional("from_time", Time, "Only dead at this time or later."),
    optional("to_time", Time, "Only dead before this time."),
];

const CATEGORY: &str = "Only of this category, e.g. `timeout`.";

/// Which dead letters a call is about.
pub(super) static FILTER: Shape = Shape {
    name: "DeadLetterFilter",
    about: "Which dead letters: those that fit every field that is set.",
    parts: &[
        &[
            optional("failure_category", Name, CATEGORY),
            optional(
                "status",
                Words(STATUSES),
                "Only in one of these states. Default in a replay `quarantined`, `analyzed` and \
                 `replayable`, in a purge all but `replaying`.",
            ),
        ],
        &FILTERS,
    ],
    elsewhere: &[("category", "is called `failure_category` here")],
};

/// Which dead letters to list.
pub(super) static LIST_QUERY: Shape = Shape {
    name: "DeadLetterQuery",
    about: "Which dead letters to list.",
    parts: &[
        &[
            optional("category", Name, CATEGORY),
            optional(
                "status",
                Words(STATUSES),
                "Only in one of these states. Default all.",
            ),
        ],
        &FILTERS,
        &[
            optional(
                "limit",
                Count(1, DEAD_LETTERS_LIST_MAX as u64),
                "Most of them. Default 50.",
            ),
            optional(
                "cursor",
                Text(CURSOR_BYTES_MAX),
                "Goes on where an earlier answer ended: its `next_cursor`.",
            ),
            optional(
                "include_payload",
                Flag,
                "With the messages; an answer then ends at 4 MiB. Default false.",
            ),
        ],
    ],
    elsewhere: &[("failure_category", "is called `category` here")],
};

/// How to replay one, by the guide.
pub(super) static REPLAY_QUERY: Shape =
    Shape::new("DeadLetterReplayQuery", "How to send it back.", &[&TARGETS]);

const TARGETS: [Field; 3] = [
    optional(
        "target_stream",
        Name,
        "Another stream: every group of it gets the message. Not for tasks of workflows.",
    ),
    optional(
        "target_group",
        Name,
        "Another group. Not for tasks of workflows.",
    ),
    optional(
        "priority_boost",
        Boost,
        "Raises the priority by so much, at most to 9: 0 to 9, true for 2. Default false.",
    ),
];

const SIGNED: [Field; 2] = [
    optional("by", Name, "Who asks, for the history."),
    optional("why", Text(REASON_BYTES_MAX), "Why, for the history."),
];

const FORCE: Field = optional(
    "force",
    Flag,
    "Past the guard against loops; of one message, also again what was replayed before. Default \
     false.",
);

/// How to replay one.
pub(super) static REPLAY: Shape = Shape::new(
    "DeadLetterReplay",
    "How to send it back; at most one of `payload` and `payload_base64`.",
    &[
        &[
            optional(
                "payload",
                AnyJson,
                "In place of the payload, as JSON; the original is kept.",
            ),
            optional("payload_base64", Base64, "The same, where it is no JSON."),
            FORCE,
        ],
        &TARGETS,
        &SIGNED,
    ],
);

/// What became of a replay.
pub(super) static REPLAYED: Shape = Shape::new(
    "DeadLetterReplayed",
    "It was sent back.",
    &[&[
        required("status", Word(&["success"]), "`success`."),
        required("dlq_message_id", Name, "The dead letter."),
        required(
            "replayed",
            Flag,
            "False where an earlier call had replayed it.",
        ),
        required(
            "message_id",
            Name,
            "The message that was sent; of a task of a workflow its new dispatch.",
        ),
        required(
            "replay_number",
            Count(0, u32::MAX as u64),
            "How many replays it has had, this one included.",
        ),
    ]],
);

const BATCH: [Field; 5] = [
    optional(
        "filter_criteria",
        One(&FILTER),
        "Which. Default all that may be replayed.",
    ),
    optional(
        "dry_run",
        Flag,
        "Says how many would be replayed, and replays nothing. Default false.",
    ),
    optional(
        "rate",
        Count(1, REPLAY_RATE_MAX as u64),
        "Most per second. Default as fast as it goes.",
    ),
    optional(
        "canary",
        Count(1, DEAD_LETTERS_CANARY_MAX as u64),
        "Replays so many first and goes on only if all of them succeed. Default none.",
    ),
    optional(
        "job_id",
        Name,
        "Names the job: the same id answers the job that it began. Default a new one.",
    ),
];

/// What to replay, by the guide.
pub(super) static BATCH_REPLAY: Shape = Shape::new(
    "DeadLetterBatchReplay",
    "What to send back: the oldest first.",
    &[
        &[optional(
            "max_messages",
            Count(1, BATCH_MAX),
            "Most of them. Default 10.",
        )],
        &BATCH,
        &TARGETS,
    ],
);

/// What to replay.
pub(super) static JOB_REPLAY: Shape = Shape::new(
    "DeadLetterJobReplay",
    "What to send back: the oldest first.",
    &[
        &[
            optional(
                "max_messages",
                Count(1, DEAD_LETTERS_REPLAY_MAX as u64),
                "Most of them. Default 10.",
            ),
            optional(
                "wait_seconds",
                Seconds(0, WAIT_MS_MAX),
                "Waits so long for the end of the job. Default 25.",
            ),
            FORCE,
            optional("by", Name, "Who asks, for the history."),
        ],
        &BATCH,
        &TARGETS,
    ],
);

/// How far a batch is.
pub(super) static BATCH_REPLAYED: Shape = Shape::new(
    "DeadLetterBatchReplayed",
    "How far the job is.",
    &[&[
        required(
            "status",
            Word(&["success", "running", "cancelled", "failed"]),
            "`success`: all of it was tried, or counted. `running`: it goes on, see \
             `getReplayJob`.",
        ),
        required(
            "batch_replay_result",
            One(&BATCH_RESULT),
            "What became of them so far.",
        ),
        required("dry_run", Flag, "True where nothing was replayed."),
        optional("job_id", Name, "The job; missing in a dry run."),
        optional("would_replay", TOTAL, "In a dry run: how many would be."),
        optional("error", Text(usize::MAX), "Why the job failed or waits."),
    ]],
);

static BATCH_RESULT: Shape = Shape::new(
    "DeadLetterBatchResult",
    "What became of the dead letters of a batch so far.",
    &[&[
        required("total_attempted", TOTAL, "Those that were tried."),
        required("successful", TOTAL, "Those of them that were sent back."),
        required("failed", TOTAL, "Those that were not."),
        required(
            "errors",
            Texts(usize::MAX, usize::MAX),
            "Why not, the first 20.",
        ),
    ]],
);

/// A page of dead letters.
pub(super) static DEAD_LETTERS: Shape = Shape::new(
    "DeadLetters",
    "A page of dead letters, the newest first.",
    &[&[
        required(
            "messages",
            Many(&DEAD_LETTER),
            "The dead letters, each with its last attempt alone. A page may be short, or empty, \
             and not the last.",
        ),
        required(
            "next_cursor",
            TextOrNull,
            "Cursor of the next page; null at the end.",
        ),
    ]],
);

/// A dead letter.
pub(super) static DEAD_LETTER: Shape = Shape::new(
    "DeadLetter",
    "A message that failed for good in a group. What is not known or not set is absent.",
    &[
        &[
            required("dlq_id", Name, "Its id."),
            required("message_id", Name, "Id of the message."),
            required("stream", Name, "Stream that it was published to."),
            optional("group", Name, "Group that it died in."),
            required("category", Text(WORD_BYTES), "What kind of failure it is."),
            required("rule", Text(WORD_BYTES), "The rule that said so."),
            required(
                "fingerprint",
                Text(WORD_BYTES),
                "Equal for failures that look the same but for ids, numbers and paths.",
            ),
            required("status", Word(STATUSES), "Where it stands."),
            required("deliveries", TOTAL, "How often it was delivered."),
            required("failures", TOTAL, "How many attempts failed."),
            required(
                "attempts",
                Many(&ATTEMPT),
                "Failed attempts, the oldest first.",
            ),
            optional("dead_lettered_at", Time, "When it died."),
            optional("message_type", Name, "What it was for."),
            optional("from_agent", Name, "Who sent it."),
            optional("workflow_id", Name, "The workflow that it belongs to."),
            optional("run_id", Name, "The run of the workflow."),
            optional("task_id", Name, "The task of the run."),
            optional("traceparent", Text(1_024), "Its trace."),
        ],
        &[
            optional(
                "strategy",
                Text(WORD_BYTES),
                "What is advised, e.g. `delayed_retry` or `manual_intervention`.",
            ),
            optional(
                "recovery_at",
                Time,
                "When recovery sends it back by itself.",
            ),
            required("replays", TOTAL, "Replays of it so far."),
            required(
                "automatic_replays",
                TOTAL,
                "Replays by recovery in the life of the message.",
            ),
            optional(
                "replay_message_id",
                Name,
                "The message that the last replay sent.",
            ),
            optional(
                "replay_outcome",
                Word(&["pending", "succeeded", "failed"]),
                "What became of that message.",
            ),
            optional(
                "replay_of",
                Name,
                "The dead letter that this message was a replay of.",
            ),
            required("payload_bytes", TOTAL, "Size of the payload."),
            optional("message", One(&STORED_MESSAGE), "The message as it died."),
            optional(
                "edited_payload",
                AnyJson,
                "What a replay sends in place of the payload.",
            ),
            optional(
                "edited_payload_base64",
                Base64,
                "The same, where it is no JSON.",
            ),
            optional("history", Many(&CHANGE), "What happened to it."),
            optional(
                "undecodable_base64",
                Base64,
                "Bytes that no message decodes from.",
            ),
        ],
    ],
);

pub(super) static ATTEMPT: Shape = Shape::new(
    "FailedAttempt",
    "A failed attempt.",
    &[&[
        optional("consumer", Name, "Who had it."),
        optional("started_at", Time, "When it was delivered."),
        optional("ended_at", Time, "When it failed."),
        optional(
            "category",
            Text(WORD_BYTES),
            "The category that was given with the failure.",
        ),
        optional("error_type", Text(WORD_BYTES * 2), "The type of the error."),
        required("reason", Text(4_096), "For people."),
        optional("stack", Text(8_192), "Stack trace."),
    ]],
);

pub(super) static CHANGE: Shape = Shape::new(
    "DeadLetterChange",
    "A change of a dead letter.",
    &[&[
        optional("at", Time, "When."),
        required("status", Word(STATUSES), "Its status from then on."),
        optional("by", Text(1_024), "Who."),
        optional("why", Text(4_096), "Why."),
    ]],
);

/// What is to become of one.
pub(super) static SET_STATUS: Shape = Shape::new(
    "DeadLetterStatusChange",
    "What is to become of it.",
    &[
        &[required(
            "status",
            Word(SETTABLE),
            "`replayable`: recovery sends it back soon; `permanent_failure`: it is not sent back; \
             `archived`: out of the way; `analyzed`: waits for a person.",
        )],
        &SIGNED,
    ],
);

/// Which replay jobs.
pub(super) static JOBS_QUERY: Shape = Shape::new(
    "ReplayJobQuery",
    "Which replay jobs.",
    &[&[optional(
        "limit",
        Count(1, DEAD_LETTERS_LIST_MAX as u64),
        "Most of them. Default 50.",
    )]],
);

/// Replay jobs.
pub(super) static JOBS: Shape = Shape::new(
    "ReplayJobs",
    "Replay jobs.",
    &[&[required("jobs", Many(&JOB), "The newest first.")]],
);

/// A replay job.
pub(super) static JOB: Shape = Shape::new(
    "ReplayJob",
    "A replay of many dead letters.",
    &[&[
        required("job_id", Name, "Its id."),
        required(
            "state",
            Word(JOB_STATES),
            "`canary`: the first ones are out, and what becomes of them decides.",
        ),
        required("filter_criteria", One(&FILTER), "Which it takes."),
        optional("max_messages", TOTAL, "Most to replay."),
        optional("rate", TOTAL, "Most per second."),
        optional("canary", TOTAL, "How many are tried first."),
        required("total", TOTAL, "How many it takes, counted when it began."),
        required("attempted", TOTAL, "Those that were tried."),
        required("replayed", TOTAL, "Those of them that were sent back."),
        required("failed", TOTAL, "Those that were not."),
        required(
            "errors",
            Texts(usize::MAX, usize::MAX),
            "Why not, the first 20.",
        ),
        optional("error", Text(usize::MAX), "Why it failed or waits."),
        optional("created_at", Time, "When it began."),
        optional("ended_at", Time, "When it ended."),
        optional("by", Text(1_024), "Who asked for it."),
    ]],
);

/// What to delete.
pub(super) static PURGE: Shape = Shape::new(
    "DeadLetterPurge",
    "What to delete for good: a dry run first, then the same with what it answered.",
    &[&[
        optional(
            "filter_criteria",
            One(&FILTER),
            "Which. Default all but those that are being replayed.",
        ),
        optional(
            "dry_run",
            Flag,
            "Says how many would go, and what confirms it. Default false.",
        ),
        optional(
            "confirm",
            Text(1_024),
            "What a dry run with the same filter answered within the last 10 minutes.",
        ),
    ]],
);

/// What went.
pub(super) static PURGED: Shape = Shape::new(
    "DeadLetterPurged",
    "What went, or would.",
    &[&[
        required("status", Word(&["success"]), "`success`."),
        required("dry_run", Flag, "True where nothing went."),
        required("purged", TOTAL, "How many went; in a dry run, would go."),
        optional("confirm", Text(1_024), "Of a dry run: what confirms it."),
        required("more", Flag, "True where some are left: call again."),
    ]],
);

/// Figures of dead letters.
pub(in crate::rest) static STATISTICS: Shape = Shape::new(
    "DeadLetterStatistics",
    "Figures of all dead letters: of those neither replayed nor archived where they say nothing \
     else.",
    &[&[
        required("total_dlq_messages", TOTAL, "How many."),
        required("messages_by_category", Counts, "By category."),
        required(
            "messages_by_status",
            Counts,
            "By status, replayed and archived ones included.",
        ),
        required("messages_by_stream", Counts, "By stream."),
        required("messages_by_consumer_group", Counts, "By group."),
        required("messages_by_age", Counts, "By age."),
        required(
            "top_failure_patterns",
            Many(&PATTERN_COUNT),
            "The commonest failures.",
        ),
        required(
            "top_failure_sources",
            Many(&SOURCE_COUNT),
            "The consumers with which most died.",
        ),
        required(
            "dlq_growth_rate",
            Number,
            "Dead letters per hour, by those of the last hour.",
        ),
        required(
            "recovery_success_rate",
            Number,
            "Share of the replays that succeeded, 0 to 1; 1 where there is none.",
        ),
        required("average_time_in_dlq_hours", Number, "Mean age, in hours."),
        required(
            "recovery_recommendations",
            Texts(usize::MAX, usize::MAX),
            "What to do, in words.",
        ),
        required(
            "breakers",
            Many(&BREAKER),
            "Groups in which nothing recovers by itself at the moment.",
        ),
        required("records", TOTAL, "All that are kept."),
        required("records_max", TOTAL, "Most that are kept."),
        required("is_full", Flag, "True while nothing more is taken in."),
    ]],
);

static PATTERN_COUNT: Shape = Shape::new(
    "FailurePattern",
    "Failures that look the same.",
    &[&[
        required("fingerprint", Text(WORD_BYTES), "Their fingerprint."),
        required("count", TOTAL, "How many."),
        required("category", Text(WORD_BYTES), "Their category."),
        optional("group", Name, "Their group."),
        required(
            "error",
            Text(8_192),
            "The error, with what differs between them left out.",
        ),
    ]],
);

static SOURCE_COUNT: Shape = Shape::new(
    "FailureSource",
    "A consumer with which messages died.",
    &[&[
        required("source", Text(1_024), "`<group>/<consumer>`."),
        required("count", TOTAL, "How many."),
    ]],
);

static BREAKER: Shape = Shape::new(
    "GroupBreaker",
    "A group in which nothing recovers by itself at the moment.",
    &[&[
        required("group", Name, "The group."),
        required(
            "state",
            Text(WORD_BYTES),
            "`open`, or `half_open` while one message is tried.",
        ),
        required("reason", Text(4_096), "Why it opened."),
        optional("opened_at", Time, "When it opened."),
        optional("probe_at", Time, "When one message is tried."),
    ]],
);

/// What to analyze.
pub(super) static ANALYZE_QUERY: Shape = Shape::new(
    "DeadLetterAnalyzeQuery",
    "What to look at.",
    &[&[
        optional(
            "window_seconds",
            Seconds(ANALYSIS_WINDOW_MS_MIN, ANALYSIS_WINDOW_MS_MAX),
            "Looks so far back. Default a day.",
        ),
        optional("group", Name, "Only of this group."),
    ]],
);

/// What was found.
pub(super) static ANALYSIS: Shape = Shape::new(
    "DeadLetterAnalysis",
    "Patterns in what failed lately.",
    &[&[
        required("patterns", Many(&PATTERN), "The worst first."),
        required(
            "messages_analyzed",
            TOTAL,
            "How many dead letters were looked at.",
        ),
        required(
            "recommendations",
            Texts(usize::MAX, usize::MAX),
            "What to do, in words.",
        ),
    ]],
);

static PATTERN: Shape = Shape::new(
    "DeadLetterPattern",
    "A pattern in what failed.",
    &[&[
        required(
            "kind",
            Text(WORD_BYTES),
            "`burst`, `one_fingerprint`, `one_consumer`, `one_message_type`, `one_upstream` or \
             `after_event`.",
        ),
        optional("group", Name, "The group, where it is one's alone."),
        required("subject", Text(4_096), "What it is about."),
        required("evidence", Text(8_192), "What was seen."),
        required("recommendation", Text(8_192), "What to do."),
        required(
            "share",
            Number,
            "Share of the dead letters looked at, 0 to 1.",
        ),
        required("count", TOTAL, "How many."),
        optional("first_at", Time, "When the first of them died."),
        optional("last_at", Time, "When the last of them died."),
        required("dlq_ids", Kind::Names(5), "Some of them."),
    ]],
);
