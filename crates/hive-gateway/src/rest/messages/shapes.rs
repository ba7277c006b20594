//! What messages look like in requests and answers.

use hive_protocol::limits::{
    CONTENT_TYPE_BYTES_MAX, CORRELATION_ID_BYTES_MAX, CURSOR_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX,
    INITIAL_BACKOFF_MS_MAX, MAX_ATTEMPTS_MAX, MAX_BACKOFF_MS_MAX, NOT_BEFORE_AHEAD_MS_MAX,
    ORDERING_KEY_BYTES_MAX, PEEK_MESSAGES_MAX, REQUIRED_CAPABILITIES_MAX,
};

use crate::rest::shape::{
    Field,
    Kind::{
        self, Base64, ByName, Count, Flag, Json as AnyJson, Many, Name, Names, Number, One, Pairs,
        Priority, Text, TextOrNull, Time, Word,
    },
    Shape, optional, required,
};

/// Longest time to live: 10 years, so that sums of times stay far from their end.
const TTL_MS_MAX: u64 = 10 * NOT_BEFORE_AHEAD_MS_MAX;

/// What both directions share.
const COMMON: [Field; 12] = [
    optional("from_agent", Name, "Who sends it."),
    optional("to_agent", Name, "The one consumer that may handle it."),
    optional("message_type", Name, "What kind of work this is."),
    optional("payload", AnyJson, "The work itself, as JSON."),
    optional(
        "payload_base64",
        Base64,
        "The work itself, where it is no JSON.",
    ),
    optional(
        "content_type",
        Text(CONTENT_TYPE_BYTES_MAX),
        "Media type of the payload. Default application/json, with `payload_base64` \
         application/octet-stream.",
    ),
    optional(
        "headers",
        Pairs,
        "Free text pairs, at most 64 and 8 KiB together.",
    ),
    optional(
        "correlation_id",
        Text(CORRELATION_ID_BYTES_MAX),
        "Ties a conversation together.",
    ),
    optional(
        "workflow_id",
        Name,
        "The workflow this belongs to, for people and searches.",
    ),
    optional("task_id", Name, "The task of that workflow."),
    optional(
        "required_capabilities",
        Names(REQUIRED_CAPABILITIES_MAX),
        "A consumer must have all of these to get it.",
    ),
    optional(
        "idempotency_key",
        Text(IDEMPOTENCY_KEY_BYTES_MAX),
        "The same key within 24 h is accepted once.",
    ),
];

const COMMON_TOO: [Field; 3] = [
    optional(
        "ordering_key",
        Text(ORDERING_KEY_BYTES_MAX),
        "At most one message per key is in flight in a group, in publish order.",
    ),
    optional(
        "not_before",
        Time,
        "Not delivered before this time, at most 365 days ahead.",
    ),
    optional("retry", One(&RETRY), "Overrides the group's retry policy."),
];

/// A message to publish.
pub(in crate::rest) static MESSAGE: Shape = Shape::new(
    "Message",
    "A message to publish: exactly one of `payload` and `payload_base64`, at most one of \
     `delay_seconds` and `not_before`.",
    &[
        &[optional(
            "message_id",
            Name,
            "The caller's id; a new UUIDv7 where it is left out.",
        )],
        &COMMON,
        &COMMON_TOO,
        &[
            optional(
                "priority",
                Priority,
                "0 (least urgent) to 9, or low (2), normal (4), high (7), urgent or critical \
                 (9). Default 4.",
            ),
            optional(
                "delay_seconds",
                Kind::Seconds(0, NOT_BEFORE_AHEAD_MS_MAX),
                "Not delivered before this long.",
            ),
            optional(
                "ttl_seconds",
                Kind::Seconds(1, TTL_MS_MAX),
                "Not delivered after this long; then it goes to the dead letters as `expired`.",
            ),
            optional(
                "track",
                Flag,
                "Keeps what becomes of it, with a result of up to 64 KiB, for 24 h after its \
                 end: see `getMessage`. To a group alone, and not with an ordering key. Default \
                 false.",
            ),
        ],
    ],
);

/// A retry policy.
pub(in crate::rest) static RETRY: Shape = Shape::new(
    "Retry",
    "How often and how soon a failed message is tried again.",
    &[&[
        optional(
            "max_attempts",
            Count(1, MAX_ATTEMPTS_MAX as u64),
            "Attempts before it is dead.",
        ),
        optional(
            "initial_backoff_seconds",
            Kind::Seconds(0, INITIAL_BACKOFF_MS_MAX),
            "First backoff.",
        ),
        optional(
            "max_backoff_seconds",
            Kind::Seconds(0, MAX_BACKOFF_MS_MAX),
            "Longest backoff.",
        ),
    ]],
);

/// A message as it is handed out.
pub(in crate::rest) static STORED_MESSAGE: Shape = Shape::new(
    "StoredMessage",
    "A message as it was published; what was not set is absent.",
    &[
        &[required("message_id", Name, "Its id.")],
        &COMMON,
        &COMMON_TOO,
        &[
            required(
                "priority",
                Count(0, 9),
                "0 (least urgent) to 9 (most urgent).",
            ),
            optional("expires_at", Time, "Not delivered after this time."),
            optional("published_at", Time, "When the gateway accepted it."),
            optional(
                "run_id",
                Name,
                "The run of the workflow that it is a task of.",
            ),
            optional(
                "inputs",
                ByName(&TASK_INPUT),
                "What the tasks gave that this task depends on, by their ids.",
            ),
            optional(
                "resumption",
                One(&RESUMPTION),
                "The answer to a question of an earlier attempt.",
            ),
            optional("track", Flag, "True where what becomes of it is kept."),
            optional(
                "replay_of",
                Name,
                "What this one repeats: a message, or with `replay_number` a dead letter.",
            ),
            optional(
                "replay_number",
                Count(1, u32::MAX as u64),
                "Which replay of its dead letter this is.",
            ),
        ],
    ],
);

/// What a dependency of a task gave.
pub(super) static TASK_INPUT: Shape = Shape::new(
    "TaskInputShown",
    "What a dependency of a task gave.",
    &[&[
        required(
            "state",
            Text(64),
            "`succeeded`, unless the task goes on without it.",
        ),
        optional("result", AnyJson, "Its result, as JSON."),
        optional("result_base64", Base64, "Its result, where it is no JSON."),
        required(
            "result_omitted",
            Flag,
            "True where the result is too large to ride along: ask for it.",
        ),
        optional("error", Text(4_096), "Why it did not succeed."),
    ]],
);

/// The answer to a question of an earlier attempt.
pub(super) static RESUMPTION: Shape = Shape::new(
    "Resumption",
    "The answer to a question of an earlier attempt of the task.",
    &[&[
        required("prompt", Text(4_096), "The question."),
        optional("state", AnyJson, "What the agent wanted to have back."),
        optional("state_base64", Base64, "The same, where it is no JSON."),
        optional("input", AnyJson, "The answer."),
        optional("input_base64", Base64, "The answer, where it is no JSON."),
    ]],
);

/// Words for where an unsettled message is.
pub(super) const STATES: &[&str] = &[
    "waiting",
    "leased",
    "ready",
    "delayed",
    "parked",
    "scheduled",
];

/// Which messages to look at.
pub(super) static PEEK_QUERY: Shape = Shape::new(
    "PeekQuery",
    "Which messages to look at.",
    &[&[
        optional(
            "state",
            Word(STATES),
            "Only messages in this state. Default all.",
        ),
        optional(
            "limit",
            Count(1, PEEK_MESSAGES_MAX as u64),
            "Most messages. Default 100.",
        ),
        optional(
            "cursor",
            Text(CURSOR_BYTES_MAX),
            "Goes on where an earlier answer ended: its `next_cursor`.",
        ),
    ]],
);

/// A page of messages.
pub(super) static PEEKED: Shape = Shape::new(
    "PeekedMessages",
    "A page of unsettled messages, by lanes, then age.",
    &[&[
        required("messages", Many(&PEEKED_MESSAGE), "The messages."),
        required(
            "next_cursor",
            TextOrNull,
            "Cursor of the next page; null at the end.",
        ),
    ]],
);

static PEEKED_MESSAGE: Shape = Shape::new(
    "PeekedMessage",
    "An unsettled message, looked at and not taken.",
    &[&[
        required("state", Word(STATES), "Where it is."),
        optional("consumer_id", Name, "Who holds it, when it is leased."),
        required(
            "deliveries",
            Count(0, u64::MAX),
            "How often it was delivered.",
        ),
        optional(
            "idle_seconds",
            Number,
            "Time since its last delivery or extension.",
        ),
        optional(
            "message",
            One(&STORED_MESSAGE),
            "The message; missing where its bytes are gone.",
        ),
    ]],
);
