//! Streams: list, show, change their limits.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    routing::{get, patch},
};
use hive_domain::stream::{COUNT_MAX, RETENTION_MAX_AGE_MS_MAX};
use hive_protocol::{convert, fault::Fault, wire};
use serde::Serialize;

use super::{
    asked::{Asked, JsonBody},
    fields::Fields,
    problem::{Problem, in_our_words},
    render::{Seconds, time},
    shape::{
        Answer, Body, Call, Field,
        Kind::{self, Count, Flag, Name, Names, One, Time, Word},
        NOTHING, Shape, optional, required, shown,
    },
};
use crate::core::Gateway;

/// The calls of this file.
pub(crate) static CALLS: [Call; 3] = [
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
];

const SETTINGS: [Field; 5] = [
    optional(
        "max_backlog",
        Count(1, COUNT_MAX),
        "Most unsettled messages; beyond it publishes are refused. Default 1,000,000.",
    ),
    optional(
        "max_backlog_bytes",
        Count(1, COUNT_MAX),
        "Most bytes of unsettled messages of a group; beyond it publishes are refused. Default \
         1 GiB.",
    ),
    optional("retention", One(&RETENTION), "How long messages are kept."),
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

fn one(stream: Option<wire::Stream>) -> Result<Json<StreamOut>, Problem> {
    let stream = stream.ok_or_else(|| Fault::bug("the gateway answered no stream"))?;
    Ok(Json(stream.into()))
}

fn read_settings(fields: &mut Fields) -> wire::StreamSettings {
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
        durability: fields
            .take_word("durability")
            .and_then(|word| word.parse().ok())
            .map_or(0, |durability| convert::durability(durability).into()),
        buffer_without_groups: fields.take_flag("buffer_without_groups"),
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
