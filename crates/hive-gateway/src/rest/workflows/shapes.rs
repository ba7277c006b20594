//! What workflows and tasks look like in requests and answers.

use hive_domain::workflow::definition::{DURATION_MS_MAX, PARALLEL_TASKS_MAX};
use hive_protocol::limits::{
    ADDED_TASKS_MAX, CONTENT_TYPE_BYTES_MAX, CURSOR_BYTES_MAX, EVENT_ID_BYTES_MAX,
    HISTORY_EVENTS_MAX, LIST_RUNS_MAX, REASON_BYTES_MAX, REQUIRED_CAPABILITIES_MAX,
};

use crate::rest::{
    messages::RETRY,
    shape::{
        Field,
        Kind::{
            self, Base64, Count, Counts, Flag, GuidePriority, Json as AnyJson, Many, Name, Names,
            One, Pairs, Priority, Text, TextOrNull, Texts, Time, UpTo, Word,
        },
        Shape, optional, required,
    },
};

/// Most tasks that a list of them shows; how many a workflow may have is for the router to say.
const TASKS_MAX: usize = 100_000;
/// Longest condition that is read here; the router says what is too long.
const CONDITION_BYTES: usize = 4_096;

pub(super) const MODES: &[&str] = &["strict", "best_effort", "optimistic"];
pub(super) const STRATEGIES: &[&str] = &[
    "sequential",
    "parallel",
    "adaptive",
    "priority_based",
    "capability_matched",
    "hybrid",
];
pub(super) const POLICIES: &[&str] = &["fail_workflow", "skip_dependents", "continue", "pause"];
pub(super) const COMPLETIONS: &[&str] = &["ack", "signal"];
/// Words for where a run is.
pub(super) const STATES: &[&str] = &["running", "paused", "succeeded", "failed", "cancelled"];
/// Words for where a task is; `unspecified` is of a newer router.
pub(super) const TASK_STATES: &[&str] = &[
    "pending",
    "awaited",
    "queued",
    "running",
    "waiting_input",
    "succeeded",
    "failed",
    "timed_out",
    "dead_lettered",
    "skipped",
    "cancelled",
    "unspecified",
];

const TASK_FIELDS: [Field; 17] = [
    required("id", Name, "Its name, unique in the workflow."),
    optional(
        "type",
        Name,
        "The type of agent it is for; may be missing where `group` is set.",
    ),
    optional("task_type", Name, "Another name of `type`."),
    optional(
        "group",
        Name,
        "The group it is for. Default the one that serves `type`.",
    ),
    optional(
        "dependencies",
        Names(usize::MAX),
        "Tasks it waits for, at most 100 unless the router is configured otherwise.",
    ),
    optional("payload", AnyJson, "The work itself, as JSON."),
    optional(
        "payload_base64",
        Base64,
        "The work itself, where it is no JSON.",
    ),
    optional(
        "content_type",
        Text(CONTENT_TYPE_BYTES_MAX),
        "Media type of the payload.",
    ),
    optional(
        "required_capabilities",
        Names(REQUIRED_CAPABILITIES_MAX),
        "A consumer must have all of these.",
    ),
    optional(
        "timeout_seconds",
        Kind::Seconds(0, DURATION_MS_MAX),
        "Longest time from its first start to its outcome. Default none.",
    ),
    optional(
        "queue_timeout_seconds",
        Kind::Seconds(0, DURATION_MS_MAX),
        "Longest time from its dispatch to its start. Default none.",
    ),
    optional("retry", One(&RETRY), "Overrides the group's retry policy."),
    optional(
        "on_failure",
        Word(POLICIES),
        "What its failure means to the run. Default what the workflow says.",
    ),
    optional(
        "condition",
        Text(CONDITION_BYTES),
        "Whether it is wanted, in CEL over `inputs`, at most 2 KiB. Default always.",
    ),
    optional(
        "quorum",
        AnyJson,
        "How many dependencies must succeed under `best_effort`: `majority` (default), `any` or \
         a number.",
    ),
    optional(
        "message_type",
        Name,
        "What kind of work this is. Default its type.",
    ),
    optional("from_agent", Name, "Who asks for it."),
];

/// A task to do.
pub(super) static TASK: Shape = Shape::new(
    "TaskSpec",
    "A task to do: at most one of `payload` and `payload_base64`.",
    &[
        &TASK_FIELDS,
        &[
            optional(
                "priority",
                Priority,
                "0 (least urgent) to 9, or low (2), normal (4), high (7), urgent or critical \
                 (9). Default 4.",
            ),
            optional(
                "completion",
                Word(COMPLETIONS),
                "What completes it: `ack` (default), or `signal`, where an ack without a result \
                 does not.",
            ),
        ],
    ],
);

/// A task to do, as the migration guide gives it.
pub(in crate::rest) static GUIDE_TASK: Shape = Shape::new(
    "GuideTaskSpec",
    "A task to do, by the migration guide: priorities count from 1, and a signal completes it.",
    &[
        &TASK_FIELDS,
        &[
            optional(
                "priority",
                GuidePriority,
                "1 (least urgent) to 10, stored as one less, or low, normal, high, urgent, \
                 critical. Default normal.",
            ),
            optional(
                "completion",
                Word(COMPLETIONS),
                "What completes it: `signal` (default), where an ack without a result does not, \
                 or `ack`.",
            ),
        ],
    ],
);

const WORKFLOW_FIELDS: [Field; 7] = [
    optional(
        "dependency_mode",
        Word(MODES),
        "What a dependency must be for its dependants to start. Default strict.",
    ),
    optional(
        "strategy",
        Word(STRATEGIES),
        "How many tasks at once, and who first. Default hybrid.",
    ),
    optional(
        "max_parallel_tasks",
        Count(1, PARALLEL_TASKS_MAX as u64),
        "Most tasks at work at once. Default 50.",
    ),
    optional(
        "deadline_seconds",
        Kind::Seconds(0, DURATION_MS_MAX),
        "The run fails when it takes longer. Default never.",
    ),
    optional(
        "labels",
        Pairs,
        "Text pairs to find it by, at most 64 and 8 KiB together.",
    ),
    optional(
        "on_failure",
        Word(POLICIES),
        "What the failure of a task means that does not say so itself. Default fail_workflow.",
    ),
    optional(
        "open",
        Flag,
        "Whether tasks may be added call by call. Default false.",
    ),
];

/// A workflow to run.
pub(super) static WORKFLOW_SPEC: Shape = Shape::new(
    "WorkflowSpec",
    "A workflow to run: tasks and what they wait for, together at most 4 MiB.",
    &[
        &[
            required("workflow_id", Name, "Its name, and the key of the call."),
            required(
                "tasks",
                UpTo(TASKS_MAX, &TASK),
                "Its tasks, at most 10,000 unless the router is configured otherwise.",
            ),
        ],
        &WORKFLOW_FIELDS,
    ],
);

/// A workflow to run, as the migration guide gives it.
pub(in crate::rest) static GUIDE_WORKFLOW: Shape = Shape::new(
    "GuideWorkflowSpec",
    "A workflow to run, by the migration guide.",
    &[
        &[
            optional(
                "workflow_id",
                Name,
                "Its name, and the key of the call; here or in the query.",
            ),
            required("tasks", UpTo(TASKS_MAX, &GUIDE_TASK), "Its tasks."),
        ],
        &WORKFLOW_FIELDS,
    ],
);

/// What became of a submit.
pub(in crate::rest) static SUBMITTED: Shape = Shape::new(
    "WorkflowSubmitted",
    "A run that is there.",
    &[&[
        required("status", Word(&["success"]), "Always `success`."),
        required("workflow_id", Name, "The workflow."),
        required("run_id", Name, "Its run."),
        required(
            "already",
            Flag,
            "True when the same was submitted before; nothing was started.",
        ),
        required(
            "workflow_routing",
            One(&ROUTING),
            "What became of its tasks.",
        ),
    ]],
);

static ROUTING: Shape = Shape::new(
    "WorkflowRouting",
    "What became of the tasks of a workflow.",
    &[&[
        required(
            "tasks_routed",
            Count(0, u64::MAX),
            "Tasks handed to their groups by this call.",
        ),
        required(
            "tasks_waiting",
            Count(0, u64::MAX),
            "Tasks that wait for others.",
        ),
        required("routed_tasks", Names(usize::MAX), "Ids of the former."),
    ]],
);

/// Whether a workflow would be taken.
pub(super) static VALIDATED: Shape = Shape::new(
    "WorkflowValidated",
    "Whether a workflow would be taken.",
    &[&[
        required("valid", Flag, "Whether nothing is wrong."),
        required("violations", Many(&FAULT), "Every fault."),
        required(
            "placements",
            UpTo(TASKS_MAX, &PLACEMENT),
            "Where its tasks would go now.",
        ),
    ]],
);

static FAULT: Shape = Shape::new(
    "WorkflowFault",
    "One field that breaks a rule.",
    &[&[
        required("field", Text(1_024), "Path of the field."),
        required("description", Text(4_096), "The value and the rule."),
    ]],
);

static PLACEMENT: Shape = Shape::new(
    "TaskPlacement",
    "Where a task would go.",
    &[&[
        required("task_id", Name, "The task."),
        required("group", Name, "The group."),
        required("reason", Text(4_096), "Why this one."),
    ]],
);

/// A run.
pub(super) static WORKFLOW: Shape = Shape::new(
    "Workflow",
    "A run of a workflow; in lists without its tasks.",
    &[&[
        required("workflow_id", Name, "The workflow."),
        required("run_id", Name, "The run."),
        required(
            "state",
            Word(&[
                "running",
                "paused",
                "succeeded",
                "failed",
                "cancelled",
                "unspecified",
            ]),
            "Where it is.",
        ),
        optional(
            "reason",
            Text(4_096),
            "Why it is paused, failed or cancelled.",
        ),
        optional("created_at", Time, "When it began."),
        optional("finished_at", Time, "When it ended."),
        optional(
            "deadline_at",
            Time,
            "When it fails because it takes too long.",
        ),
        required("labels", Pairs, "Its labels."),
        required(
            "dependency_mode",
            Word(MODES),
            "What a dependency must be for its dependants to start.",
        ),
        required(
            "strategy",
            Word(STRATEGIES),
            "How many at once, and who first.",
        ),
        required(
            "max_parallel_tasks",
            Count(0, u64::MAX),
            "Most tasks at work at once, as asked for.",
        ),
        required(
            "parallel_limit",
            Count(0, u64::MAX),
            "Most tasks at work at once by the load of the groups.",
        ),
        required("open", Flag, "Whether tasks may be added call by call."),
        required(
            "ending",
            Flag,
            "Whether it is coming to an end before its tasks do.",
        ),
        required(
            "task_counts",
            Counts,
            "How many tasks are in each state, by its word.",
        ),
        optional(
            "tasks",
            UpTo(TASKS_MAX, &TASK_SHOWN),
            "Its tasks, in their order.",
        ),
        optional(
            "event_id",
            Text(EVENT_ID_BYTES_MAX),
            "The newest event that this shows: listen on from here.",
        ),
    ]],
);

/// A task of a run.
pub(super) static TASK_SHOWN: Shape = Shape::new(
    "Task",
    "A task of a run.",
    &[&[
        required("id", Name, "Its name."),
        optional("type", Name, "The type of agent it is for."),
        optional(
            "group",
            Name,
            "The group that has it, or that was asked for.",
        ),
        required("dependencies", Names(usize::MAX), "Tasks it waits for."),
        required("priority", Count(0, 9), "0 to 9."),
        required("state", Word(TASK_STATES), "Where it is."),
        required("attempt", Count(0, u64::MAX), "Dispatches so far."),
        required(
            "deliveries",
            Count(0, u64::MAX),
            "How often the message of this attempt was delivered.",
        ),
        optional("consumer", Name, "Who has it or had it last."),
        optional("started_at", Time, "When this attempt was first delivered."),
        optional("finished_at", Time, "When it became final."),
        optional(
            "reason",
            Text(4_096),
            "Why it is where it is; the question where it waits for input.",
        ),
        optional("error", Text(4_096), "Why it failed."),
        required("has_result", Flag, "Whether there is a result."),
        optional("result", AnyJson, "The result, where it was asked for."),
        optional("result_base64", Base64, "The result, where it is no JSON."),
        required(
            "provisional",
            Flag,
            "True while its success does not count yet.",
        ),
    ]],
);

/// Which runs.
pub(super) static LIST_QUERY: Shape = Shape::new(
    "ListWorkflowsQuery",
    "Which runs.",
    &[&[
        optional("state", Word(STATES), "Only runs in this state."),
        optional(
            "labels",
            Text(8_192),
            "Only runs with all of these: `team=a,kind=build`.",
        ),
        optional(
            "created_since",
            Time,
            "Only runs created at this time or later.",
        ),
        optional(
            "created_before",
            Time,
            "Only runs created before this time.",
        ),
        optional(
            "limit",
            Count(1, LIST_RUNS_MAX as u64),
            "Most runs. Default 50.",
        ),
        optional(
            "cursor",
            Text(CURSOR_BYTES_MAX),
            "Goes on where an earlier answer ended: its `next_cursor`.",
        ),
    ]],
);

/// A page of runs.
pub(super) static WORKFLOWS: Shape = Shape::new(
    "Workflows",
    "A page of runs, the newest first.",
    &[&[
        required("workflows", Many(&WORKFLOW), "The runs."),
        required(
            "next_cursor",
            TextOrNull,
            "Cursor of the next page; null at the end.",
        ),
    ]],
);

const RUN_ID: Field = optional("run_id", Name, "The run. Default the newest.");

/// Which run, and how much of it.
pub(super) static SHOW_QUERY: Shape = Shape::new(
    "GetWorkflowQuery",
    "Which run, and how much of it.",
    &[&[
        RUN_ID,
        optional(
            "results",
            Flag,
            "Whether results are wanted, each up to 64 KiB and 4 MiB together.",
        ),
    ]],
);

/// Which run.
pub(super) static RUN_QUERY: Shape = Shape::new("RunQuery", "Which run.", &[&[RUN_ID]]);

/// Which events.
pub(super) static EVENTS_QUERY: Shape = Shape::new(
    "WorkflowEventsQuery",
    "Which events.",
    &[&[
        RUN_ID,
        optional(
            "after_event_id",
            Text(EVENT_ID_BYTES_MAX),
            "Go on behind this event, without a snapshot; the header `Last-Event-ID` wins.",
        ),
    ]],
);

/// Which part of a history.
pub(super) static HISTORY_QUERY: Shape = Shape::new(
    "WorkflowHistoryQuery",
    "Which part of a history.",
    &[&[
        RUN_ID,
        optional(
            "after_event_id",
            Text(EVENT_ID_BYTES_MAX),
            "Go on behind this event.",
        ),
        optional(
            "limit",
            Count(1, HISTORY_EVENTS_MAX as u64),
            "Most events. Default 100.",
        ),
    ]],
);

/// A part of a history.
pub(super) static HISTORY: Shape = Shape::new(
    "WorkflowHistory",
    "A part of the history of a run, the oldest first.",
    &[&[
        required("events", Many(&EVENT), "What happened."),
        required(
            "more",
            Flag,
            "True when there are more behind the last one.",
        ),
    ]],
);

/// Something that happened in a run.
pub(super) static EVENT: Shape = Shape::new(
    "WorkflowEvent",
    "Something that happened in a run.",
    &[&[
        required(
            "event_id",
            Text(EVENT_ID_BYTES_MAX),
            "Its place in the history.",
        ),
        optional("time", Time, "When."),
        optional("task_id", Name, "The task; absent for the run."),
        required(
            "what",
            Text(64),
            "A stable word: the state that a task or the run went to, or `confirmed`, `ending`, \
             `added`, `closed`.",
        ),
        optional("attempt", Count(0, u64::MAX), "Attempt of the task."),
        optional("reason", Text(4_096), "Why."),
        optional("consumer", Name, "Who has the task."),
    ]],
);

/// Why something is done.
pub(super) static REASON_QUERY: Shape = Shape::new(
    "WorkflowReasonQuery",
    "Why this is done.",
    &[&[optional(
        "reason",
        Text(REASON_BYTES_MAX),
        "For people who look at the run.",
    )]],
);

/// What was done to a run.
pub(super) static DONE: Shape = Shape::new(
    "WorkflowDone",
    "What was done to a run.",
    &[&[
        required("status", Word(&["success"]), "Always `success`."),
        required("workflow_id", Name, "The workflow."),
        required("already", Flag, "True when nothing was left to do."),
    ]],
);

/// Tasks for a run.
pub(super) static TASKS: Shape = Shape::new(
    "TaskSpecs",
    "Tasks that are added to a run, all of them or none.",
    &[&[required(
        "tasks",
        UpTo(ADDED_TASKS_MAX, &TASK),
        "1 to 1,000 tasks, which may depend on tasks of the run and on each other.",
    )]],
);

/// The result of a task from outside.
pub(super) static COMPLETE: Shape = Shape::new(
    "TaskCompleted",
    "The result of a task: at most one of `result` and `result_base64`.",
    &[&[
        optional("result", AnyJson, "The result, as JSON, at most 1 MiB."),
        optional("result_base64", Base64, "The result, where it is no JSON."),
    ]],
);

/// What a completion started.
pub(super) static TRIGGERED: Shape = Shape::new(
    "TriggeredTasks",
    "What the completion of a task started.",
    &[&[
        required(
            "triggered_tasks",
            Names(usize::MAX),
            "Tasks that were handed to their groups because of it.",
        ),
        required(
            "already",
            Flag,
            "True when it was complete with the same result before.",
        ),
    ]],
);

/// Why a task failed.
pub(super) static FAIL: Shape = Shape::new(
    "TaskFailed",
    "Why a task failed.",
    &[&[optional(
        "reason",
        Text(65_536),
        "For people; the first 1 KiB is kept.",
    )]],
);

/// An answer to a task's question.
pub(super) static INPUT: Shape = Shape::new(
    "TaskInput",
    "The answer to the question of a task: exactly one of `input` and `input_base64`.",
    &[&[
        optional("input", AnyJson, "The answer, as JSON, at most 1 MiB."),
        optional("input_base64", Base64, "The answer, where it is no JSON."),
    ]],
);

/// A new run.
pub(super) static RERUN: Shape = Shape::new(
    "WorkflowRerun",
    "A new run.",
    &[&[
        required("status", Word(&["success"]), "Always `success`."),
        required("workflow_id", Name, "The workflow."),
        required("run_id", Name, "The new run."),
    ]],
);

/// A result.
pub(super) static RESULT: Shape = Shape::new(
    "TaskResult",
    "The result of a task.",
    &[&[
        optional("result", AnyJson, "The result, as JSON."),
        optional("result_base64", Base64, "The result, where it is no JSON."),
    ]],
);

/// Why a task is where it is.
pub(super) static EXPLAINED: Shape = Shape::new(
    "TaskExplained",
    "Why a task is not running.",
    &[&[
        required("state", Word(TASK_STATES), "Where it is."),
        required("waits_for", Text(64), "What it waits for, a stable word."),
        required(
            "lines",
            Texts(1_000, 4_096),
            "What to know and what to do about it.",
        ),
    ]],
);
