//! Streams: create, list, show, change their limits, delete.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, patch, post},
};
use hive_domain::{
    stream::{COUNT_MAX, RETENTION_MAX_AGE_MS_MAX},
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
        Kind::{self, Count, Flag, Name, Names, One, Text, Time, Word},
        NOTHING, Shape, optional, required, shown,
    },
};
use crate::core::Gateway;

/// The calls of this file.
pub(crate) static CALLS: [Call; 5] = [
    Call {
        method: "GET",
        path: "/streams",
        id: "listStreams",
        about: "All streams of the namespace, by name.",
        query: &NOTHING,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "The streams.",
            body: Body::List(&STREAM),
        }],
        refusals: &[],
        route: || get(list),
    },
    Call {
        method: "POST",
        path: "/streams",
        id: "createStream",
        about: "Creates a stream, which may hold messages before its first group where it \
                buffers. Repeating the same call succeeds. Creating a group makes its stream too.",
        query: &NOTHING,
        body: Body::One(&STREAM_CREATE),
        answers: &[
            Answer {
                status: 201,
                about: "Created.",
                body: Body::One(&STREAM),
            },
            Answer {
                status: 200,
                about: "It existed already with the same settings.",
                body: Body::One(&STREAM),
            },
        ],
        refusals: &[409, 429],
        route: || post(create),
    },
    Call {
        method: "GET",
        path: "/streams/{stream}",
        id: "getStream",
        about: "One stream.",
        query: &NOTHING,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "The stream.",
            body: Body::One(&STREAM),
        }],
        refusals: &[404],
        route: || get(show),
    },
    Call {
        method: "PATCH",
        path: "/streams/{stream}",
        id: "updateStream",
        about: "Changes limits of a stream; what is left out stays.",
        query: &NOTHING,
        body: Body::One(&STREAM_UPDATE),
        answers: &[Answer {
            status: 200,
            about: "The stream as it is now.",
            body: Body::One(&STREAM),
        }],
        refusals: &[404, 409],
        route: || patch(update),
    },
    Call {
        method: "DELETE",
        path: "/streams/{stream}",
        id: "deleteStream",
        about: "Deletes a stream, with the settled messages that it keeps for replay. Refused \
                with `STREAM_NOT_EMPTY`, and the counts, while it has groups, unsettled messages \
                or dead letters.",
        query: &NOTHING,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "Deleted.",
            body: Body::One(&STREAM_DELETED),
        }],
        refusals: &[404, 409],
        route: || delete(remove),
    },
];

const SETTINGS: [Field; 5] = [
    MAX_BACKLOG,
    MAX_BACKLOG_BYTES,
    RETENTION_KEPT,
    optional(
        "durability",
        Word(&["memory", "local"]),
        "When a publish or a settle is acknowledged: as soon as Redis has it in memory, or once \
         it is on disk. Default memory.",
    ),
    optional(
        "buffer_without_groups",
        Flag,
        "Takes messages while it has no group, for the groups to come. Default false.",
    ),
];

const MAX_BACKLOG: Field = optional(
    "max_backlog",
    Count(1, COUNT_MAX),
    "Most unsettled messages; beyond it publishes are refused. Default 1,000,000.",
);
const MAX_BACKLOG_BYTES: Field = optional(
    "max_backlog_bytes",
    Count(1, COUNT_MAX),
    "Most bytes of unsettled messages of a group; beyond it publishes are refused. Default 1 GiB.",
);
const RETENTION_KEPT: Field = optional("retention", One(&RETENTION), "How long messages are kept.");

/// The limits of its stream that a new group may bring.
pub(super) const BY_GROUP: [Field; 3] = [MAX_BACKLOG, MAX_BACKLOG_BYTES, RETENTION_KEPT];

static RETENTION: Shape = Shape::new(
    "Retention",
    "How long messages are kept: settled ones until any limit is passed, unsettled ones that no \
     consumer holds until `max_age_seconds` is; these become dead letters, as `expired`. Any limit \
     of 0 deletes a message when it is settled.",
    &[&[
        optional(
            "max_age_seconds",
            Kind::Seconds(0, RETENTION_MAX_AGE_MS_MAX),
            "Longest time; 0 keeps no settled message, and ends no other. Default 86400.",
        ),
        optional(
            "max_len",
            Count(0, COUNT_MAX),
            "Most messages, of all priorities together. Default 1,000,000.",
        ),
        optional(
            "max_bytes",
            Count(0, COUNT_MAX),
            "Most bytes of messages, of all priorities together. Default 256 MiB.",
        ),
    ]],
);

const NEVER_CHANGES: &str = "never changes once the stream is created";

static STREAM_CREATE: Shape = Shape::new(
    "StreamCreate",
    "A stream to create. What is left out gets its default.",
    &[
        &[required("name", Name, "Name of the stream.")],
        &SETTINGS,
        &[optional(
            "shards",
            Count(1, 4_294_967_295),
            "Number of shards. Only 1 is taken.",
        )],
    ],
);

static STREAM_DELETED: Shape = Shape::new(
    "StreamDeleted",
    "A stream is gone.",
    &[&[
        required("status", Word(&["success"]), "Always `success`."),
        required("message", Text(1_024), "What was done, in words."),
        required("stream", Name, "Name of the stream."),
    ]],
);

static STREAM_UPDATE: Shape = Shape {
    name: "StreamUpdate",
    about: "Limits to change. What is left out stays.",
    parts: &[&SETTINGS],
    elsewhere: &[("name", NEVER_CHANGES), ("shards", NEVER_CHANGES)],
};

/// A stream and its figures.
pub(super) static STREAM: Shape = Shape::new(
    "Stream",
    "A stream and its figures.",
    &[
        &[
            required("name", Name, "Name of the stream."),
            required("shards", Count(1, 4_294_967_295), "Number of shards."),
        ],
        &shown(SETTINGS),
        &[
            required("groups", Names(usize::MAX), "The groups that read it."),
            required(
                "entries",
                Count(0, u64::MAX),
                "Messages kept, settled or not.",
            ),
            required(
                "held_for_consumers",
                Count(0, u64::MAX),
                "Direct messages whose consumer is no member of any group: they wait for it until \
                 their time to live is over.",
            ),
            required(
                "dead_letters",
                Count(0, u64::MAX),
                "Dead letters that nobody has taken yet.",
            ),
            optional("created_at", Time, "When it was created."),
        ],
    ],
);

async fn list(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
) -> Result<Json<Vec<StreamOut>>, Problem> {
    let answer = gateway
        .list_streams(&asked.namespace, wire::ListStreamsRequest {})
        .await?;
    Ok(Json(
        answer.streams.into_iter().map(StreamOut::from).collect(),
    ))
}

async fn show(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
) -> Result<Json<StreamOut>, Problem> {
    let name = asked.name("stream");
    let answer = gateway
        .get_stream(&asked.namespace, wire::GetStreamRequest { name })
        .await?;
    one(answer.stream)
}

async fn update(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Json<StreamOut>, Problem> {
    let mut fields = Fields::of(&body, &STREAM_UPDATE, "");
    let settings = read_settings(&mut fields);
    fields.finish()?;
    let name = asked.name("stream");
    let settings = Some(settings);
    let answer = gateway
        .update_stream(
            &asked.namespace,
            wire::UpdateStreamRequest { name, settings },
        )
        .await
        .map_err(|fault| in_our_words(fault, ""))?;
    one(answer.stream)
}

async fn create(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let request = read_create(Fields::of(&body, &STREAM_CREATE, ""))?;
    let answer = gateway
        .create_stream(&asked.namespace, request)
        .await
        .map_err(|fault| in_our_words(fault, ""))?;
    let status = if answer.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, one(answer.stream)?).into_response())
}

async fn remove(State(gateway): State<Arc<Gateway>>, asked: Asked) -> Result<Response, Problem> {
    let name = asked.name("stream");
    let request = wire::DeleteStreamRequest { name: name.clone() };
    gateway.delete_stream(&asked.namespace, request).await?;
    let done = json!({
        "status": "success",
        "message": format!("stream `{name}` is deleted"),
        "stream": name,
    });
    Ok(Json(done).into_response())
}

/// The stream that a body asks to create.
///
/// # Errors
/// Every fault; once there is one, also those that the gateway would find in the rest.
fn read_create(mut fields: Fields) -> Result<wire::CreateStreamRequest, Violations> {
    let request = wire::CreateStreamRequest {
        name: fields.take_text("name"),
        shards: fields.take_u32("shards"),
        settings: Some(read_settings(&mut fields)),
    };
    if fields.has_faults()
        && let Err(more) = convert::create_stream(&request, now())
    {
        fields.add_missing(renamed(more, ""));
    }
    fields.finish()?;
    Ok(request)
}

fn one(stream: Option<wire::Stream>) -> Result<Json<StreamOut>, Problem> {
    let stream = stream.ok_or_else(|| Fault::bug("the gateway answered no stream"))?;
    Ok(Json(stream.into()))
}

fn read_settings(fields: &mut Fields) -> wire::StreamSettings {
    let limits = read_by_group(fields);
    wire::StreamSettings {
        durability: fields
            .take_word("durability")
            .and_then(|word| word.parse().ok())
            .map_or(0, |durability| convert::durability(durability).into()),
        buffer_without_groups: fields.take_flag("buffer_without_groups"),
        ..limits
    }
}

/// The limits that a new group may bring; the others are left as they are.
pub(super) fn read_by_group(fields: &mut Fields) -> wire::StreamSettings {
    let retention = fields.take_object("retention").map(|mut inner| {
        let age = inner.take_seconds("max_age_seconds");
        let len = inner.take_count("max_len");
        let bytes = inner.take_count("max_bytes");
        fields.close(inner);
        (age, len, bytes)
    });
    let (retention_max_age, retention_max_len, retention_max_bytes) = retention.unwrap_or_default();
    wire::StreamSettings {
        max_backlog: fields.take_count("max_backlog"),
        max_backlog_bytes: fields.take_count("max_backlog_bytes"),
        retention_max_age,
        retention_max_len,
        retention_max_bytes,
        ..wire::StreamSettings::default()
    }
}

/// A stream as this door shows it.
#[derive(Serialize)]
pub(super) struct StreamOut {
    pub(super) name: String,
    shards: u32,
    max_backlog: u64,
    max_backlog_bytes: u64,
    retention: RetentionOut,
    durability: &'static str,
    buffer_without_groups: bool,
    groups: Vec<String>,
    entries: u64,
    held_for_consumers: u64,
    dead_letters: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
}

#[derive(Serialize)]
struct RetentionOut {
    max_age_seconds: Option<Seconds>,
    max_len: u64,
    max_bytes: u64,
}

impl From<wire::Stream> for StreamOut {
    fn from(stream: wire::Stream) -> Self {
        let settings = stream.settings.unwrap_or_default();
        let durability = match settings.durability() {
            wire::Durability::Unspecified | wire::Durability::Memory => "memory",
            wire::Durability::Local => "local",
        };
        Self {
            max_backlog: settings.max_backlog(),
            max_backlog_bytes: settings.max_backlog_bytes(),
            retention: RetentionOut {
                max_age_seconds: Seconds::of(settings.retention_max_age.as_ref()),
                max_len: settings.retention_max_len(),
                max_bytes: settings.retention_max_bytes(),
            },
            durability,
            buffer_without_groups: settings.buffer_without_groups(),
            created_at: time(stream.created_at.as_ref()),
            name: stream.name,
            shards: stream.shards,
            groups: stream.groups,
            entries: stream.entries,
            held_for_consumers: stream.held_for_consumers,
            dead_letters: stream.dead_letters,
        }
    }
}

#[cfg(test)]
mod tests;
