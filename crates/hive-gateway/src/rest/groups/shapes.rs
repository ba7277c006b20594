//! What groups look like in requests and answers.

use hive_domain::group::{
    INITIAL_BACKOFF_MS_MAX, LEASE_MS_MAX, LEASE_MS_MIN, MAX_ATTEMPTS_MAX, MAX_BACKOFF_MS_MAX,
    MAX_CONSUMERS_MAX, PRIORITY_AGEING_MS_MAX, PRIORITY_AGEING_MS_MIN, PROGRESS_TIMEOUT_MS_MAX,
    RECONNECT_GRACE_MS_MAX,
};

use hive_protocol::limits::ORDERING_KEY_BYTES_MAX;

use crate::rest::{
    scaling::{POLICY, POLICY_SHOWN},
    shape::{
        Field,
        Kind::{self, Count, CountOrNull, Flag, Name, Number, One, Text, Time, Word},
        Shape, optional, required, shown,
    },
    streams::BY_GROUP,
};

pub(super) const ROUTING_MODES: &[&str] = &[
    "load_balanced",
    "round_robin",
    "priority_based",
    "capability_matched",
    "workflow_aware",
];
pub(super) const STARTS: &[&str] = &["earliest", "latest"];

const COUNT_32: u64 = 4_294_967_295;
const CONSUMERS_MAX: u64 = MAX_CONSUMERS_MAX as u64;

/// The settings, as they are sent.
const SETTINGS: [Field; 15] = [
    optional(
        "routing_mode",
        Word(ROUTING_MODES),
        "Who gets the next message. Default load_balanced.",
    ),
    optional(
        "max_consumers",
        Count(1, CONSUMERS_MAX),
        "Most consumers. Default 10.",
    ),
    optional(
        "min_consumers",
        Count(0, CONSUMERS_MAX),
        "Fewest consumers wanted, at most `max_consumers`. Default 1.",
    ),
    optional(
        "auto_scale_enabled",
        Flag,
        "Whether more or fewer consumers are wanted by demand. Default false.",
    ),
    optional(
        "lag_threshold",
        Count(1, COUNT_32),
        "Waiting messages per consumer beyond which more consumers are wanted. Default 100.",
    ),
    optional(
        "lease_seconds",
        Kind::Seconds(LEASE_MS_MIN, LEASE_MS_MAX),
        "How long a delivery stays a consumer's without a heartbeat. Default 30.",
    ),
    optional(
        "max_attempts",
        Count(1, MAX_ATTEMPTS_MAX as u64),
        "Attempts before a message is dead. Default 3.",
    ),
    optional(
        "initial_backoff_seconds",
        Kind::Seconds(0, INITIAL_BACKOFF_MS_MAX),
        "First backoff after a failure. Default 1.",
    ),
    optional(
        "max_backoff_seconds",
        Kind::Seconds(0, MAX_BACKOFF_MS_MAX),
        "Longest backoff, at least the first one. Default 60.",
    ),
    optional(
        "priority_ageing_seconds",
        Kind::Seconds(PRIORITY_AGEING_MS_MIN, PRIORITY_AGEING_MS_MAX),
        "Messages not served for this long count one priority more. Default 30.",
    ),
    optional(
        "reconnect_grace_seconds",
        Kind::Seconds(0, RECONNECT_GRACE_MS_MAX),
        "How long a lost connection may take to come back. Default 3.",
    ),
    optional(
        "max_in_flight_per_consumer",
        Count(0, COUNT_32),
        "Most deliveries one consumer may hold; 0 for no limit beyond its own. Default 0.",
    ),
    optional(
        "max_in_flight",
        Count(0, COUNT_32),
        "Most deliveries the whole group may hold; 0 for no limit. Default 0.",
    ),
    optional(
        "ordering_on_dead",
        Word(&["continue", "block"]),
        "What becomes of an ordering key whose message becomes a dead letter by its failures or a \
         reject: its next one is delivered, or all later ones wait until the key is unblocked. \
         Default continue.",
    ),
    optional(
        "progress_timeout_seconds",
        Kind::Seconds(0, PROGRESS_TIMEOUT_MS_MAX),
        "A delivery that is begun and of which nothing is heard but heartbeats for this long \
         counts as hung: its attempt fails. At least 1, or 0 for no limit. Default 0.",
    ),
];

/// How the group is scaled, as it is sent.
const SCALING: [Field; 1] = [optional(
    "scaling",
    One(&POLICY),
    "How consumers are added and removed where `auto_scale_enabled` is set.",
)];

const ON_THE_STREAM: &str =
    "is a setting of the stream: change it by PATCH /api/v1/streams/{stream}";
const NEVER_CHANGES: &str = "never changes once the group is created";

/// A group to create.
pub(super) static GROUP_CREATE: Shape = Shape {
    name: "GroupCreate",
    about: "A group to create. What is left out gets its default. `max_backlog` and `retention` \
            are the stream's: where it exists, what is sent must be its own.",
    parts: &[
        &[
            required("name", Name, "Name of the group."),
            required(
                "stream_name",
                Name,
                "Stream it reads; created where it does not exist.",
            ),
            required(
                "agent_type",
                Name,
                "What its agents are, e.g. `qa_engineers`.",
            ),
        ],
        &SETTINGS,
        &SCALING,
        &[
            optional(
                "start",
                Word(STARTS),
                "Whether it reads what its stream holds already. Default earliest.",
            ),
            optional(
                "shards",
                Count(1, COUNT_32),
                "Shards of the stream. Only 1 is taken.",
            ),
        ],
        &BY_GROUP,
    ],
    elsewhere: &[],
};

/// Settings to change.
pub(super) static GROUP_UPDATE: Shape = Shape {
    name: "GroupUpdate",
    about: "Settings to change. What is left out stays.",
    parts: &[&SETTINGS, &SCALING],
    elsewhere: &[
        ("name", NEVER_CHANGES),
        ("stream_name", NEVER_CHANGES),
        ("agent_type", NEVER_CHANGES),
        ("start", NEVER_CHANGES),
        ("shards", NEVER_CHANGES),
        ("retention", ON_THE_STREAM),
        ("max_backlog", ON_THE_STREAM),
    ],
};

/// A group, its settings and its figures.
pub(in crate::rest) static GROUP: Shape = Shape::new(
    "Group",
    "A group, its settings and its figures.",
    &[
        &[
            required("name", Name, "Name of the group."),
            required("stream_name", Name, "Stream it reads."),
            required("agent_type", Name, "What its agents are."),
        ],
        &shown(SETTINGS),
        &[
            required("scaling", One(&POLICY_SHOWN), "How it is scaled."),
            required("start", Word(STARTS), "Where it started to read."),
            required("shards", Count(1, COUNT_32), "Shards of its stream."),
            required("paused", Flag, "Whether deliveries are stopped."),
            optional("created_at", Time, "When it was created."),
        ],
        &shown(FIGURES),
    ],
);

const TOTAL: Kind = Count(0, u64::MAX);

const FIGURES: [Field; 19] = [
    optional("current_consumers", TOTAL, "Live members."),
    optional(
        "desired_consumers",
        CountOrNull,
        "Wanted members; null where the group is not scaled or nothing was decided yet.",
    ),
    optional(
        "lag",
        TOTAL,
        "Accepted for this group and never delivered, without scheduled ones.",
    ),
    optional("pending_count", TOTAL, "Delivered and not settled."),
    optional(
        "scheduled_count",
        TOTAL,
        "Published with a delay that is not over.",
    ),
    optional(
        "throughput_msg_per_sec",
        Number,
        "Acks per second over the last 5 minutes.",
    ),
    optional(
        "success_rate",
        Number,
        "acked / (acked + failed attempts) over the last 5 minutes; 1 without traffic.",
    ),
    optional(
        "avg_processing_time_ms",
        Number,
        "Delivery to ack, mean over the last 5 minutes; 0 without traffic.",
    ),
    optional(
        "oldest_waiting_seconds",
        Number,
        "Age of the oldest message never delivered; 0 when there is none.",
    ),
    optional(
        "health",
        Text(64),
        "`healthy`, or what is wrong: `paused`, `no_consumers`, `no_capable_consumer`, \
         `lagging`, `failing`.",
    ),
    optional(
        "published_total",
        TOTAL,
        "Accepted for this group since its creation.",
    ),
    optional("acked_total", TOTAL, "Acked since its creation."),
    optional("failed_total", TOTAL, "Failed attempts since its creation."),
    optional(
        "dead_total",
        TOTAL,
        "Moved to the dead letters since its creation.",
    ),
    optional(
        "redelivered_total",
        TOTAL,
        "Delivered again since its creation.",
    ),
    optional(
        "released_total",
        TOTAL,
        "Given back uncounted since its creation.",
    ),
    optional(
        "expired_total",
        TOTAL,
        "Leases that ended without an outcome since its creation.",
    ),
    optional(
        "blocked_keys",
        TOTAL,
        "Ordering keys that wait for an operator behind a dead letter.",
    ),
    optional(
        "unsettled_bytes",
        TOTAL,
        "Bytes of all that is unsettled, delayed messages included.",
    ),
];

/// Ordering keys that a dead letter blocks.
pub(super) static BLOCKED_KEYS: Shape = Shape::new(
    "BlockedKeys",
    "Ordering keys that wait for an operator behind a dead letter.",
    &[&[required(
        "ordering_keys",
        Kind::Texts(1_000, ORDERING_KEY_BYTES_MAX),
        "Up to 1,000 of them, by name; `blocked_keys` of the group counts all.",
    )]],
);

/// An ordering key to let go.
pub(super) static KEY_UNBLOCK: Shape = Shape::new(
    "KeyUnblock",
    "An ordering key to let go on.",
    &[&[required(
        "ordering_key",
        Text(ORDERING_KEY_BYTES_MAX),
        "The key.",
    )]],
);

/// Whether a key was let go.
pub(super) static KEY_UNBLOCKED: Shape = Shape::new(
    "KeyUnblocked",
    "Whether the key was let go.",
    &[&[required(
        "unblocked",
        Flag,
        "False where no dead letter blocked it: nothing changed.",
    )]],
);

/// What was done.
pub(super) static GROUP_DONE: Shape = Shape::new(
    "GroupDone",
    "What was done to a group.",
    &[&[
        required("status", Word(&["success"]), "Always `success`."),
        required("message", Text(1_024), "What was done, in words."),
        required("group_name", Name, "Name of the group."),
    ]],
);

/// A deletion.
pub(super) static GROUP_DELETED: Shape = Shape::new(
    "GroupDeleted",
    "A group is gone.",
    &[&[
        required("status", Word(&["success"]), "Always `success`."),
        required("message", Text(1_024), "What was done, in words."),
        required("group_name", Name, "Name of the group."),
        required("cancelled", TOTAL, "Messages moved to the dead letters."),
    ]],
);

/// How to delete.
pub(super) static DELETE_QUERY: Shape = Shape::new(
    "DeleteQuery",
    "How to delete a group.",
    &[&[optional(
        "force",
        Flag,
        "Moves what is unsettled to the dead letters (category `cancelled`) first. Default \
         false.",
    )]],
);

/// What to purge.
pub(super) static PURGE: Shape = Shape::new(
    "Purge",
    "What to purge: a dry run, or the name of the group once more.",
    &[&[
        optional(
            "dry_run",
            Flag,
            "Counts what would go, and changes nothing. Default false.",
        ),
        optional(
            "confirm",
            Name,
            "The name of the group; needed unless it is a dry run.",
        ),
        optional(
            "keep_leased",
            Flag,
            "Leaves what consumers hold to them; otherwise that goes too, and their leases are \
             over. Default false.",
        ),
    ]],
);

/// What went.
pub(super) static PURGED: Shape = Shape::new(
    "Purged",
    "What went.",
    &[&[
        required("dry_run", Flag, "False."),
        required("purged", TOTAL, "Messages moved to the dead letters."),
        required(
            "more",
            Flag,
            "True where messages published before the call are left: call again.",
        ),
    ]],
);

/// What would go.
pub(super) static PURGE_COUNTED: Shape = Shape::new(
    "PurgeCounted",
    "What would go.",
    &[&[
        required("dry_run", Flag, "True."),
        required("purged", TOTAL, "All that would go."),
        required("waiting", TOTAL, "Of that, never delivered."),
        required("leased", TOTAL, "Of that, held by consumers."),
        required(
            "retrying",
            TOTAL,
            "Of that, delivered before and waiting to be again.",
        ),
        required(
            "scheduled",
            TOTAL,
            "Of that, with a delay that is not over.",
        ),
    ]],
);
