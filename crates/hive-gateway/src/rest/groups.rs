//! Consumer groups: create, list, show, change, delete, pause, resume.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, patch, post},
};
use hive_domain::{
    group::{
        INITIAL_BACKOFF_MS_MAX, LEASE_MS_MAX, LEASE_MS_MIN, MAX_ATTEMPTS_MAX, MAX_BACKOFF_MS_MAX,
        MAX_CONSUMERS_MAX, PRIORITY_AGEING_MS_MAX, PRIORITY_AGEING_MS_MIN, RECONNECT_GRACE_MS_MAX,
    },
    violation::Violations,
};
use hive_protocol::{convert, fault::Fault, wire};
use serde::Serialize;
use serde_json::json;

use super::{
    asked::{Asked, JsonBody},
    fields::Fields,
    problem::{Problem, in_our_words, renamed},
    render::{Seconds, now, time},
    shape::{
        Answer, Body, Call, Field,
        Kind::{self, Count, Flag, Name, Number, Text, Time, Word},
        NOTHING, Shape, optional, required, shown,
    },
};
use crate::core::Gateway;

/// The calls of this file.
pub(crate) static CALLS: [Call; 7] = [
    Call {
        method: "GET",
        path: "/consumer-groups",
        id: "listGroups",
        about: "All groups of the namespace with their figures, by name.",
        query: &NOTHING,
        body: Body::None,
        answers: &[Answer { status: 200, about: "The groups.", body: Body::List(&GROUP) }],
        refusals: &[],
        route: || get(list),
    },
    Call {
        method: "POST",
        path: "/consumer-groups",
        id: "createGroup",
        about: "Creates a group, and its stream where that does not exist. Repeating the same \
                call succeeds.",
        query: &NOTHING,
        body: Body::One(&GROUP_CREATE),
        answers: &[
            Answer { status: 201, about: "Created.", body: Body::One(&GROUP_DONE) },
            Answer {
                status: 200,
                about: "It existed already with the same settings.",
                body: Body::One(&GROUP_DONE),
            },
        ],
        refusals: &[409, 429],
        route: || post(create),
    },
    Call {
        method: "GET",
        path: "/consumer-groups/{group_name}",
        id: "getGroup",
        about: "One group with its figures.",
        query: &NOTHING,
        body: Body::None,
        answers: &[Answer { status: 200, about: "The group.", body: Body::One(&GROUP) }],
        refusals: &[404],
        route: || get(show),
    },
    Call {
        method: "PATCH",
        path: "/consumer-groups/{group_name}",
        id: "updateGroup",
        about: "Changes settings; what is left out stays.",
        query: &NOTHING,
        body: Body::One(&GROUP_UPDATE),
        answers: &[Answer { status: 200, about: "The group as it is now.", body: Body::One(&GROUP) }],
        refusals: &[404, 409],
        route: || patch(update),
    },
    Call {
        method: "DELETE",
        path: "/consumer-groups/{group_name}",
        id: "deleteGroup",
        about: "Deletes a group. Refused with `GROUP_NOT_EMPTY` while anything is unsettled, \
                unless forced.",
        query: &DELETE_QUERY,
        body: Body::None,
        answers: &[Answer { status: 200, about: "Deleted.", body: Body::One(&GROUP_DELETED) }],
        refusals: &[404, 409],
        route: || delete(remove),
    },
    Call {
        method: "POST",
        path: "/consumer-groups/{group_name}/pause",
        id: "pauseGroup",
        about: "Stops deliveries; publishes and settles go on.",
        query: &NOTHING,
        body: Body::None,
        answers: &[Answer { status: 200, about: "The group as it is now.", body: Body::One(&GROUP) }],
        refusals: &[404, 409],
        route: || post(pause),
    },
    Call {
        method: "POST",
        path: "/consumer-groups/{group_name}/resume",
        id: "resumeGroup",
        about: "Starts deliveries again.",
        query: &NOTHING,
        body: Body::None,
        answers: &[Answer { status: 200, about: "The group as it is now.", body: Body::One(&GROUP) }],
        refusals: &[404, 409],
        route: || post(resume),
    },
];

const ROUTING_MODES: &[&str] =
    &["load_balanced", "round_robin", "priority_based", "capability_matched"];
const STARTS: &[&str] = &["earliest", "latest"];

const COUNT_32: u64 = 4_294_967_295;
const CONSUMERS_MAX: u64 = MAX_CONSUMERS_MAX as u64;


/// The settings, as they are sent.
const SETTINGS: [Field; 13] = [
    optional(
        "routing_mode",
        Word(ROUTING_MODES),
        "Who gets the next message. Default load_balanced.",
    ),
    optional("max_consumers", Count(1, CONSUMERS_MAX), "Most consumers. Default 10."),
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
];

const ON_THE_STREAM: &str =
    "is a setting of the stream: change it by PATCH /api/v1/streams/{stream}";
const NEVER_CHANGES: &str = "never changes once the group is created";

static GROUP_CREATE: Shape = Shape {
    name: "GroupCreate",
    about: "A group to create. What is left out gets its default.",
    parts: &[
        &[
            required("name", Name, "Name of the group."),
            required("stream_name", Name, "Stream it reads; created where it does not exist."),
            required("agent_type", Name, "What its agents are, e.g. `qa_engineers`."),
        ],
        &SETTINGS,
        &[
            optional(
                "start",
                Word(STARTS),
                "Whether it reads what its stream holds already. Default earliest.",
            ),
            optional("shards", Count(1, COUNT_32), "Shards of the stream. Only 1 is taken."),
        ],
    ],
    elsewhere: &[("retention", ON_THE_STREAM), ("max_backlog", ON_THE_STREAM)],
};

static GROUP_UPDATE: Shape = Shape {
    name: "GroupUpdate",
    about: "Settings to change. What is left out stays.",
    parts: &[&SETTINGS],
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
pub(super) static GROUP: Shape = Shape::new(
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
            required("start", Word(STARTS), "Where it started to read."),
            required("shards", Count(1, COUNT_32), "Shards of its stream."),
            required("paused", Flag, "Whether deliveries are stopped."),
            optional("created_at", Time, "When it was created."),
        ],
        &shown(FIGURES),
    ],
);

const TOTAL: Kind = Count(0, u64::MAX);

const FIGURES: [Field; 16] = [
    optional("current_consumers", TOTAL, "Live members."),
    optional(
        "lag",
        TOTAL,
        "Accepted for this group and never delivered, without scheduled ones.",
    ),
    optional("pending_count", TOTAL, "Delivered and not settled."),
    optional("scheduled_count", TOTAL, "Published with a delay that is not over."),
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
    optional("published_total", TOTAL, "Accepted for this group since its creation."),
    optional("acked_total", TOTAL, "Acked since its creation."),
    optional("failed_total", TOTAL, "Failed attempts since its creation."),
    optional("dead_total", TOTAL, "Moved to the dead letters since its creation."),
    optional("redelivered_total", TOTAL, "Delivered again since its creation."),
    optional("released_total", TOTAL, "Given back uncounted since its creation."),
    optional(
        "expired_total",
        TOTAL,
        "Leases that ended without an outcome since its creation.",
    ),
];

static GROUP_DONE: Shape = Shape::new(
    "GroupDone",
    "What was done to a group.",
    &[&[
        required("status", Word(&["success"]), "Always `success`."),
        required("message", Text(1_024), "What was done, in words."),
        required("group_name", Name, "Name of the group."),
    ]],
);

static GROUP_DELETED: Shape = Shape::new(
    "GroupDeleted",
    "A group is gone.",
    &[&[
        required("status", Word(&["success"]), "Always `success`."),
        required("message", Text(1_024), "What was done, in words."),
        required("group_name", Name, "Name of the group."),
        required("cancelled", TOTAL, "Messages moved to the dead letters."),
    ]],
);

static DELETE_QUERY: Shape = Shape::new(
    "DeleteQuery",
    "How to delete a group.",
    &[&[optional(
        "force",
        Flag,
        "Moves what is unsettled to the dead letters (category `cancelled`) first. Default \
         false.",
    )]],
);

async fn list(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
) -> Result<Json<Vec<GroupOut>>, Problem> {
    let answer = gateway
        .list_groups(&asked.namespace, wire::ListGroupsRequest {})
        .await?;
    Ok(Json(answer.groups.into_iter().map(GroupOut::from).collect()))
}

async fn create(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let request = read_create(Fields::of(&body, &GROUP_CREATE, ""))?;
    let name = request.name.clone();
    let answer = gateway
        .create_group(&asked.namespace, request)
        .await
        .map_err(|fault| in_our_words(fault, ""))?;
    let (status, message) = if answer.created {
        (StatusCode::CREATED, format!("group `{name}` is created"))
    } else {
        let message = format!("group `{name}` exists already with these settings");
        (StatusCode::OK, message)
    };
    let done = json!({ "status": "success", "message": message, "group_name": name });
    Ok((status, Json(done)).into_response())
}

async fn show(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
) -> Result<Json<GroupOut>, Problem> {
    let name = asked.name("group_name");
    let answer = gateway
        .get_group(&asked.namespace, wire::GetGroupRequest { name })
        .await?;
    one(answer.group)
}

async fn update(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Json<GroupOut>, Problem> {
    let mut fields = Fields::of(&body, &GROUP_UPDATE, "");
    let settings = read_settings(&mut fields);
    fields.finish()?;
    let name = asked.name("group_name");
    let settings = Some(settings);
    let answer = gateway
        .update_group(&asked.namespace, wire::UpdateGroupRequest { name, settings })
        .await
        .map_err(|fault| in_our_words(fault, ""))?;
    one(answer.group)
}

async fn remove(
    State(gateway): State<Arc<Gateway>>,
    mut asked: Asked,
) -> Result<Response, Problem> {
    let force = asked.query.take_flag("force").unwrap_or(false);
    let name = asked.name("group_name");
    asked.query.finish()?;
    let request = wire::DeleteGroupRequest { name: name.clone(), force };
    let answer = gateway.delete_group(&asked.namespace, request).await?;
    let done = json!({
        "status": "success",
        "message": format!("group `{name}` is deleted"),
        "group_name": name,
        "cancelled": answer.cancelled,
    });
    Ok(Json(done).into_response())
}

async fn pause(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
) -> Result<Json<GroupOut>, Problem> {
    let name = asked.name("group_name");
    let answer = gateway
        .pause_group(&asked.namespace, wire::PauseGroupRequest { name })
        .await?;
    one(answer.group)
}

async fn resume(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
) -> Result<Json<GroupOut>, Problem> {
    let name = asked.name("group_name");
    let answer = gateway
        .resume_group(&asked.namespace, wire::ResumeGroupRequest { name })
        .await?;
    one(answer.group)
}

fn one(group: Option<wire::Group>) -> Result<Json<GroupOut>, Problem> {
    let group = group.ok_or_else(|| Fault::bug("the gateway answered no group"))?;
    Ok(Json(group.into()))
}

/// The group that a body asks to create.
///
/// # Errors
/// Every fault; once there is one, also those that the gateway would find in the rest.
fn read_create(mut fields: Fields) -> Result<wire::CreateGroupRequest, Violations> {
    let request = wire::CreateGroupRequest {
        name: fields.take_text("name"),
        stream_name: fields.take_text("stream_name"),
        agent_type: fields.take_text("agent_type"),
        settings: Some(read_settings(&mut fields)),
        start: fields
            .take_word("start")
            .and_then(|word| word.parse().ok())
            .map_or(0, |start| convert::start(start).into()),
        shards: fields.take_u32("shards"),
    };
    if fields.has_faults()
        && let Err(more) = convert::create_group(&request, now())
    {
        fields.add_missing(renamed(more, ""));
    }
    fields.finish()?;
    Ok(request)
}

fn read_settings(fields: &mut Fields) -> wire::GroupSettings {
    wire::GroupSettings {
        max_consumers: fields.take_u32("max_consumers"),
        min_consumers: fields.take_u32("min_consumers"),
        auto_scale_enabled: fields.take_flag("auto_scale_enabled"),
        lag_threshold: fields.take_u32("lag_threshold"),
        routing_mode: fields
            .take_word("routing_mode")
            .and_then(|word| word.parse().ok())
            .map_or(0, |mode| convert::routing_mode(mode).into()),
        lease: fields.take_seconds("lease_seconds"),
        max_attempts: fields.take_u32("max_attempts"),
        initial_backoff: fields.take_seconds("initial_backoff_seconds"),
        max_backoff: fields.take_seconds("max_backoff_seconds"),
        priority_ageing: fields.take_seconds("priority_ageing_seconds"),
        reconnect_grace: fields.take_seconds("reconnect_grace_seconds"),
        max_in_flight_per_consumer: fields.take_u32("max_in_flight_per_consumer"),
        max_in_flight: fields.take_u32("max_in_flight"),
    }
}

/// A group as this door shows it.
#[derive(Serialize)]
pub(super) struct GroupOut {
    pub(super) name: String,
    stream_name: String,
    agent_type: String,
    #[serde(flatten)]
    settings: SettingsOut,
    start: &'static str,
    shards: u32,
    paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    #[serde(flatten)]
    figures: FiguresOut,
}

impl From<wire::Group> for GroupOut {
    fn from(group: wire::Group) -> Self {
        let start = match group.start() {
            wire::StartPosition::Unspecified | wire::StartPosition::Earliest => "earliest",
            wire::StartPosition::Latest => "latest",
        };
        Self {
            start,
            created_at: time(group.created_at.as_ref()),
            settings: SettingsOut::from(group.settings.unwrap_or_default()),
            figures: FiguresOut::from(group.figures.unwrap_or_default()),
            name: group.name,
            stream_name: group.stream_name,
            agent_type: group.agent_type,
            shards: group.shards,
            paused: group.paused,
        }
    }
}

#[derive(Serialize)]
struct SettingsOut {
    routing_mode: &'static str,
    max_consumers: Option<u32>,
    min_consumers: Option<u32>,
    auto_scale_enabled: Option<bool>,
    lag_threshold: Option<u32>,
    lease_seconds: Option<Seconds>,
    max_attempts: Option<u32>,
    initial_backoff_seconds: Option<Seconds>,
    max_backoff_seconds: Option<Seconds>,
    priority_ageing_seconds: Option<Seconds>,
    reconnect_grace_seconds: Option<Seconds>,
    max_in_flight_per_consumer: Option<u32>,
    max_in_flight: Option<u32>,
}

impl From<wire::GroupSettings> for SettingsOut {
    fn from(settings: wire::GroupSettings) -> Self {
        let routing_mode = match settings.routing_mode() {
            wire::RoutingMode::Unspecified | wire::RoutingMode::LoadBalanced => "load_balanced",
            wire::RoutingMode::RoundRobin => "round_robin",
            wire::RoutingMode::PriorityBased => "priority_based",
            wire::RoutingMode::CapabilityMatched => "capability_matched",
        };
        Self {
            routing_mode,
            max_consumers: settings.max_consumers,
            min_consumers: settings.min_consumers,
            auto_scale_enabled: settings.auto_scale_enabled,
            lag_threshold: settings.lag_threshold,
            lease_seconds: Seconds::of(settings.lease.as_ref()),
            max_attempts: settings.max_attempts,
            initial_backoff_seconds: Seconds::of(settings.initial_backoff.as_ref()),
            max_backoff_seconds: Seconds::of(settings.max_backoff.as_ref()),
            priority_ageing_seconds: Seconds::of(settings.priority_ageing.as_ref()),
            reconnect_grace_seconds: Seconds::of(settings.reconnect_grace.as_ref()),
            max_in_flight_per_consumer: settings.max_in_flight_per_consumer,
            max_in_flight: settings.max_in_flight,
        }
    }
}

#[derive(Serialize)]
struct FiguresOut {
    current_consumers: u32,
    lag: u64,
    pending_count: u64,
    scheduled_count: u64,
    throughput_msg_per_sec: f64,
    success_rate: f64,
    avg_processing_time_ms: f64,
    oldest_waiting_seconds: f64,
    health: String,
    published_total: u64,
    acked_total: u64,
    failed_total: u64,
    dead_total: u64,
    redelivered_total: u64,
    released_total: u64,
    expired_total: u64,
}

impl From<wire::GroupFigures> for FiguresOut {
    fn from(figures: wire::GroupFigures) -> Self {
        Self {
            current_consumers: figures.current_consumers,
            lag: figures.lag,
            pending_count: figures.pending_count,
            scheduled_count: figures.scheduled_count,
            throughput_msg_per_sec: figures.throughput_msg_per_sec,
            success_rate: figures.success_rate,
            avg_processing_time_ms: figures.avg_processing_time_ms,
            oldest_waiting_seconds: figures.oldest_waiting_seconds,
            health: figures.health,
            published_total: figures.published_total,
            acked_total: figures.acked_total,
            failed_total: figures.failed_total,
            dead_total: figures.dead_total,
            redelivered_total: figures.redelivered_total,
            released_total: figures.released_total,
            expired_total: figures.expired_total,
        }
    }
}

#[cfg(test)]
mod tests;
