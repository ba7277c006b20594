//! What rebalances, options and placements look like in requests and answers.

use hive_protocol::{
    limits::REQUIRED_CAPABILITIES_MAX,
    words::coordination::{
        ALLOCATION_MODES, PLACEMENT_STRATEGIES, PROVISIONING_POLICIES, REBALANCE_ACTIONS, words,
    },
};

use crate::rest::shape::{
    Field,
    Kind::{Count, Flag, Many, Name, Names, Seconds, Text, Time, Word},
    Shape, optional, required, shown,
};

const COUNT_32: u64 = 4_294_967_295;
/// Longest reason in an answer.
const REASON_BYTES: usize = 8_192;

const STRATEGIES: &[&str] = &words(&PLACEMENT_STRATEGIES);
const POLICIES: &[&str] = &words(&PROVISIONING_POLICIES);
const MODES: &[&str] = &words(&ALLOCATION_MODES);
const ACTIONS: &[&str] = &words(&REBALANCE_ACTIONS);

/// Whom to rebalance.
pub(super) static REBALANCE_QUERY: Shape = Shape::new(
    "RebalanceQuery",
    "Whom to rebalance.",
    &[&[optional(
        "group",
        Name,
        "The group. Default all of the namespace.",
    )]],
);

/// How to rebalance.
pub(super) static REBALANCE: Shape = Shape::new(
    "Rebalance",
    "How to rebalance.",
    &[&[
        optional("group", Name, "The group. Default all of the namespace."),
        optional("dry_run", Flag, "Plans, and moves nothing. Default false."),
    ]],
);

/// What a rebalance did.
pub(super) static REBALANCED: Shape = Shape::new(
    "Rebalanced",
    "What a rebalance did.",
    &[&[
        required(
            "status",
            Word(&["success", "dry_run"]),
            "`dry_run` where nothing was moved because of that.",
        ),
        required(
            "groups_analyzed",
            Count(0, COUNT_32),
            "Groups that were looked at.",
        ),
        required(
            "operations_performed",
            Many(&OPERATION),
            "What was done; of a dry run, what would be.",
        ),
        required("rebalance_time_ms", Count(0, u64::MAX), "How long it took."),
        required("timestamp", Time, "When."),
    ]],
);

static OPERATION: Shape = Shape::new(
    "RebalanceOperation",
    "One step of a rebalance.",
    &[&[
        required("group", Name, "The group."),
        required(
            "action",
            Word(ACTIONS),
            "`revoke`: deliveries that no handler had begun were asked back from `from`. `offer`: \
             the idle consumer `from` was offered work of the group `to`.",
        ),
        required("from", Text(128), "The consumer."),
        required(
            "to",
            Text(128),
            "Who is meant to get it: a consumer, or the group of an offer.",
        ),
        required("count", Count(0, COUNT_32), "Messages."),
        required("reason", Text(REASON_BYTES), "Why, for a person."),
    ]],
);

/// Options, as they are sent. Bounds are those of the coordinators, which check them again.
const OPTIONS: [Field; 8] = [
    optional(
        "strategy",
        Word(STRATEGIES),
        "What placement goes by. Default hybrid.",
    ),
    optional(
        "provisioning_policy",
        Word(POLICIES),
        "How groups that are made from templates are scaled: by the numbers of today, by a \
         forecast, or by both. Default hybrid.",
    ),
    optional(
        "provision_for_tasks",
        Flag,
        "Whether the group of a type with a template is made for a task that no group serves; else \
         such a task is refused. Default false.",
    ),
    optional(
        "allocation_mode",
        Word(MODES),
        "How a ceiling that groups share is divided. Default adaptive.",
    ),
    optional(
        "enable_cross_group_coordination",
        Flag,
        "Whether idle agents are offered to groups with a backlog that they can work on. Default \
         true.",
    ),
    optional(
        "health_check_interval",
        Seconds(1_000, 3_600_000),
        "Seconds between two looks for imbalance and for work that nobody takes. Default 30.",
    ),
    optional(
        "rebalance_interval",
        Seconds(1_000, 86_400_000),
        "Seconds after which work is evened out whether or not it looks uneven. Default 300.",
    ),
    optional(
        "max_total_consumers",
        Count(0, COUNT_32),
        "Most consumers of all scaled groups of all namespaces; 0 for no limit. Default 0.",
    ),
];

/// All options.
pub(super) static CONFIG: Shape = Shape::new(
    "CoordinatorConfig",
    "The options of all coordinators.",
    &[&shown(OPTIONS)],
);

/// Options to change.
pub(super) static CONFIG_CHANGE: Shape = Shape::new(
    "CoordinatorConfigChange",
    "Options to change. What is left out stays.",
    &[&OPTIONS],
);

/// An agent that wants a group.
pub(super) static AGENT: Shape = Shape::new(
    "PlaceAgent",
    "An agent that wants a group.",
    &[&[
        required("agent_type", Name, "What the agent is; any name."),
        optional(
            "capabilities",
            Names(REQUIRED_CAPABILITIES_MAX),
            "What it can do.",
        ),
        optional(
            "dry_run",
            Flag,
            "Says what would be, and makes no group. Default false.",
        ),
    ]],
);

/// Where an agent goes.
pub(super) static AGENT_PLACED: Shape = Shape::new(
    "AgentPlaced",
    "Where an agent goes.",
    &[&[
        required("group", Name, "The group to join."),
        required("reasoning", Text(REASON_BYTES), "Why this one."),
        required("strategy", Word(STRATEGIES), "By which strategy."),
        required(
            "created",
            Flag,
            "Whether the call made the group; of a dry run, whether it would.",
        ),
        required(
            "scores",
            Many(&SCORE),
            "The groups that were looked at, the best first, at most 20.",
        ),
    ]],
);

static SCORE: Shape = Shape::new(
    "PlacementScore",
    "A group that was looked at.",
    &[&[
        required("group", Name, "Its name."),
        required("score", Count(0, 1_000), "The highest wins, ties by name."),
        required("reason", Text(REASON_BYTES), "What it is made of."),
    ]],
);

/// A task that wants a group.
pub(super) static TASK: Shape = Shape::new(
    "PlaceTask",
    "A task that wants a group: `type`, `group` or both.",
    &[&[
        optional("type", Name, "Type of the task, e.g. `backend`."),
        optional(
            "required_capabilities",
            Names(REQUIRED_CAPABILITIES_MAX),
            "What an agent must be able to do.",
        ),
        optional("group", Name, "The group, where it is named."),
        optional(
            "provision",
            Flag,
            "Where no group serves the type, makes one from the template of the type, if it has \
             one, also while the option `provision_for_tasks` is not set. Default false.",
        ),
        optional(
            "dry_run",
            Flag,
            "Says what would be, and makes no group. Default false.",
        ),
    ]],
);

/// Where a task goes.
pub(super) static TASK_PLACED: Shape = Shape::new(
    "TaskPlaced",
    "Where a task goes.",
    &[&[
        required("group", Name, "The group that gets it."),
        required("reasoning", Text(REASON_BYTES), "Why this one."),
        required(
            "created",
            Flag,
            "Whether the call made the group; of a dry run, whether it would.",
        ),
    ]],
);
