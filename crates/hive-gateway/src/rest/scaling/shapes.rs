//! What policies, wishes and scaling events look like in requests and answers.

use hive_domain::scaling::{
    DRAIN_TARGET_MS_MIN, SCALE_MS_MAX, STEP_MAX, TARGET_BYTES_MAX, WEIGHT_MAX,
};
use hive_protocol::words::coordination::{
    EXECUTOR_STATES, SCALING_EVENT_KINDS, SCALING_EXECUTORS, SCALING_STRATEGIES, words,
};

use crate::rest::shape::{
    Field,
    Kind::{
        self, Count, CountOrNull, Flag, Many, Name, Names, Number, NumberOrNull, One, Seconds,
        Text, TextOrNull, Time, Word,
    },
    Shape, optional, required, shown,
};

const COUNT: Kind = Count(0, u64::MAX);
/// Longest reason in an answer.
const REASON_BYTES: usize = 8_192;
/// Most groups that one watch names.
const WATCHED_MAX: usize = 1_000;
/// Longest cursor.
const CURSOR_BYTES_MAX: usize = 128;

const STRATEGIES: &[&str] = &words(&SCALING_STRATEGIES);
const EXECUTORS: &[&str] = &words(&SCALING_EXECUTORS);
const STATES: &[&str] = &words(&EXECUTOR_STATES);
const KINDS: &[&str] = &words(&SCALING_EVENT_KINDS);

/// How a group is scaled, as it is sent.
const FIELDS: [Field; 12] = [
    optional(
        "strategy",
        Word(STRATEGIES),
        "On which numbers: today's, a forecast for when a worker started now would be ready, or \
         the larger of both. Default hybrid.",
    ),
    optional(
        "drain_target_seconds",
        Seconds(DRAIN_TARGET_MS_MIN, SCALE_MS_MAX),
        "Within which time a backlog is to be worked off. Default 10.",
    ),
    optional(
        "startup_time_seconds",
        Seconds(0, SCALE_MS_MAX),
        "How long a worker takes from its start until it works: how far the forecast looks. \
         Default 10.",
    ),
    optional(
        "scale_up_window_seconds",
        Seconds(0, SCALE_MS_MAX),
        "More are wanted once that held for so long. Default 0.",
    ),
    optional(
        "scale_down_window_seconds",
        Seconds(0, SCALE_MS_MAX),
        "Fewer are wanted once that held for so long. Default 300.",
    ),
    optional(
        "scale_up_cooldown_seconds",
        Seconds(0, SCALE_MS_MAX),
        "Pause between two steps up. Default 0.",
    ),
    optional(
        "scale_down_cooldown_seconds",
        Seconds(0, SCALE_MS_MAX),
        "Pause between two steps down. Default 15.",
    ),
    optional(
        "scale_up_step",
        Count(0, STEP_MAX as u64),
        "Most consumers added by one step; 0 for no limit. Default 0.",
    ),
    optional(
        "scale_down_step",
        Count(0, STEP_MAX as u64),
        "Most consumers removed by one step; 0 for no limit. Default 0.",
    ),
    optional(
        "weight",
        Count(1, WEIGHT_MAX as u64),
        "Share of a ceiling that groups share. Default 100.",
    ),
    optional(
        "executor",
        Word(EXECUTORS),
        "Who starts and stops consumers: KEDA, the coordinator by a Kubernetes Deployment, \
         `hive dev --scale` (process), a webhook, or none of them: then the wish is published \
         alone, until `hive dev --scale` finds it so and makes it process. Default none.",
    ),
    optional(
        "target",
        Text(TARGET_BYTES_MAX),
        "What the executor acts on: `namespace/deployment` for kubernetes, a URL for webhook, \
         else empty.",
    ),
];

/// A policy to set.
pub(in crate::rest) static POLICY: Shape = Shape::new(
    "ScalingPolicyChange",
    "How consumers are added and removed. What is left out keeps its value, or gets its default.",
    &[&FIELDS],
);

/// A policy as it is.
pub(in crate::rest) static POLICY_SHOWN: Shape = Shape::new(
    "ScalingPolicy",
    "How consumers are added and removed.",
    &[&shown(FIELDS)],
);

/// A group with its wish.
pub(super) static SCALING: Shape = Shape::new(
    "Scaling",
    "How many consumers a group has and wants.",
    &[&[
        required("group", Name, "Its name."),
        required("enabled", Flag, "Whether it is scaled."),
        required("policy", One(&POLICY_SHOWN), "How."),
        required("min_consumers", COUNT, "Fewest consumers."),
        required("max_consumers", COUNT, "Most consumers."),
        required("current_consumers", COUNT, "Live consumers."),
        required(
            "draining_consumers",
            COUNT,
            "Of them, those that were told to finish and go.",
        ),
        required(
            "desired_consumers",
            CountOrNull,
            "Wanted consumers; null where the group is not scaled or nothing was decided yet.",
        ),
        required("reason", Text(REASON_BYTES), "Why so many."),
        optional("decided_at", Time, "When that was decided last."),
        required(
            "inputs",
            One(&INPUTS),
            "What it was decided on; read now where nothing was.",
        ),
        required(
            "executor_state",
            Word(STATES),
            "`none`: nobody is asked to carry it out; `ok`: it is carried out; `failing`: the \
             target is missing, refuses or does not answer.",
        ),
        required(
            "executor_error",
            Text(REASON_BYTES),
            "Why it fails; empty where it does not.",
        ),
        required("epoch", COUNT, "Ownership epoch of its coordinator."),
    ]],
);

static INPUTS: Shape = Shape::new(
    "ScalingInputs",
    "The facts of a scaling decision.",
    &[&[
        required("lag", COUNT, "Accepted and never delivered."),
        required("in_flight", COUNT, "Held by consumers."),
        required(
            "retrying",
            COUNT,
            "Delivered before and waiting to be again.",
        ),
        required(
            "oldest_waiting_seconds",
            Number,
            "Age of the oldest message never delivered; 0 without one.",
        ),
        required(
            "arrivals_per_second",
            Number,
            "Messages accepted a second, over the last seconds.",
        ),
        required(
            "forecast_per_second",
            Number,
            "Messages a second expected after the start-up time of a worker; 0 where nothing is \
             forecast.",
        ),
        required(
            "service_time_seconds",
            NumberOrNull,
            "Mean time from delivery to ack; null while none is known.",
        ),
        required(
            "capacity_per_consumer",
            Number,
            "Messages that one consumer works on at once, mean of the live ones.",
        ),
    ]],
);

/// Which groups to watch.
pub(super) static WATCH_QUERY: Shape = Shape::new(
    "ScalingWatchQuery",
    "Which groups to watch.",
    &[&[optional(
        "groups",
        Names(WATCHED_MAX),
        "Their names, with commas between; those that do not exist yet are told once they do. \
         Default all of the namespace.",
    )]],
);

/// A frame of a watch.
pub(super) static SCALING_FRAME: Shape = Shape::new(
    "ScalingFrame",
    "What changed.",
    &[&[required("groups", Many(&SCALING), "By group.")]],
);

/// Which events to list.
pub(super) static EVENTS_QUERY: Shape = Shape::new(
    "ScalingEventsQuery",
    "Which events to list.",
    &[&[
        optional("group", Name, "Only of this group."),
        optional("limit", Count(1, 1_000), "At most so many. Default 100."),
        optional(
            "cursor",
            Text(CURSOR_BYTES_MAX),
            "`next_cursor` of the answer before.",
        ),
    ]],
);

/// A page of events.
pub(super) static EVENTS: Shape = Shape::new(
    "ScalingEvents",
    "Scaling decisions and what became of them.",
    &[&[
        required("events", Many(&EVENT), "The newest first."),
        required(
            "next_cursor",
            TextOrNull,
            "For the next call; null at the end.",
        ),
    ]],
);

/// An event.
pub(super) static EVENT: Shape = Shape::new(
    "ScalingEvent",
    "A scaling decision, or what became of it.",
    &[&[
        required("event_id", Text(128), "Its id; later ones are greater."),
        optional("time", Time, "When."),
        required("group", Name, "The group."),
        required(
            "kind",
            Word(KINDS),
            "More are wanted, fewer are; a consumer was told to finish and go; the executor began \
             to fail, or works again.",
        ),
        required("from", COUNT, "Consumers wanted before."),
        required("to", COUNT, "Consumers wanted from now on."),
        required("reason", Text(REASON_BYTES), "Why."),
        optional("inputs", One(&INPUTS), "What it was decided on."),
        optional("consumer_id", Text(128), "The consumer of a drain."),
        required("epoch", COUNT, "Ownership epoch of who decided."),
    ]],
);

/// Figures of coordination.
pub(in crate::rest) static COORDINATOR_METRICS: Shape = Shape::new(
    "CoordinatorMetrics",
    "Figures of coordination.",
    &[&[
        required("coordinators", COUNT, "Coordinators that live."),
        required("groups_scaled", COUNT, "Groups that are scaled."),
        required(
            "desired_consumers",
            COUNT,
            "Consumers that these want, as far as that is decided.",
        ),
        required("current_consumers", COUNT, "Live consumers of these."),
        required(
            "draining_consumers",
            COUNT,
            "Of them, those that were told to finish and go.",
        ),
        required(
            "failing_executors",
            COUNT,
            "Groups whose wish is not carried out.",
        ),
    ]],
);
