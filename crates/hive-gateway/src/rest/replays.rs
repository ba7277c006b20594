//! Replays of a stream's history: begin, show, cancel.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use hive_protocol::{
    fault::Fault,
    limits::{REPLAY_NAMES_MAX, REPLAY_RATE_MAX},
    time::to_timestamp,
    wire,
    words::replay_state,
};
use serde::Serialize;

use super::{
    asked::{Asked, JsonBody},
    fields::Fields,
    problem::{Problem, in_our_words},
    render::time,
    shape::{
        Answer, Body, Call, Field,
        Kind::{self, Count, Name, Names, Text, Time, Word},
        NOTHING, Shape, optional, required,
    },
};
use crate::core::Gateway;

/// The calls of this file.
pub(crate) static CALLS: [Call; 3] = [
    Call {
        method: "POST",
        path: "/streams/{stream}/replay",
        id: "replayStream",
        about: "Publishes messages of the history of a stream once more, to one group of it. A \
                coordinator carries it on; the same `replay_id` answers the replay it began.",
        query: &NOTHING,
        body: Body::One(&REPLAY_CREATE),
        answers: &[Answer {
            status: 202,
            about: "It is under way, or was before.",
            body: Body::One(&REPLAY),
        }],
        refusals: &[404, 409, 429],
        route: || post(begin),
    },
    Call {
        method: "GET",
        path: "/streams/{stream}/replay/{replay_id}",
        id: "getReplay",
        about: "How far a replay is. It is kept for 7 days after its end.",
        query: &NOTHING,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "The replay.",
            body: Body::One(&REPLAY),
        }],
        refusals: &[404],
        route: || get(show),
    },
    Call {
        method: "DELETE",
        path: "/streams/{stream}/replay/{replay_id}",
        id: "cancelReplay",
        about: "Ends a replay; what it has published stays. One that has ended answers as it is.",
        query: &NOTHING,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "The replay as it is now.",
            body: Body::One(&REPLAY),
        }],
        refusals: &[404, 409],
        route: || delete(cancel),
    },
];

const TOTAL: Kind = Count(0, u64::MAX);

const FILTERS: [Field; 4] = [
    optional(
        "from",
        Time,
        "Messages published at this time or later. Default the oldest.",
    ),
    optional(
        "to",
        Time,
        "Messages published before this time; at most, and by default, the time of the call.",
    ),
    optional(
        "message_types",
        Names(REPLAY_NAMES_MAX),
        "Only messages of these types. Default all.",
    ),
    optional(
        "from_agents",
        Names(REPLAY_NAMES_MAX),
        "Only messages of these senders. Default all.",
    ),
];

static REPLAY_CREATE: Shape = Shape::new(
    "ReplayCreate",
    "What to replay, and to whom.",
    &[
        &[
            required(
                "group",
                Name,
                "The group of this stream that gets the messages.",
            ),
            optional(
                "replay_id",
                Name,
                "Names the replay; a new UUIDv7 where it is left out.",
            ),
        ],
        &FILTERS,
        &[optional(
            "rate",
            Count(1, REPLAY_RATE_MAX as u64),
            "Most messages published per second. Default 100.",
        )],
    ],
);

static REPLAY: Shape = Shape::new(
    "Replay",
    "A replay of a stream's history.",
    &[
        &[
            required("replay_id", Name, "Its id."),
            required("stream", Name, "The stream."),
            required("group", Name, "The group that gets the messages."),
        ],
        &FILTERS,
        &[
            required("rate", TOTAL, "Most messages published per second."),
            required(
                "state",
                Word(&["running", "done", "cancelled", "failed"]),
                "Whether it goes on.",
            ),
            required("examined", TOTAL, "Messages looked at so far."),
            required("published", TOTAL, "Messages published so far."),
            optional(
                "error",
                Text(usize::MAX),
                "Why it waits, or has failed or will.",
            ),
            required("started_at", Time, "When it began."),
            optional("ended_at", Time, "When it ended."),
        ],
    ],
);

async fn begin(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let mut fields = Fields::of(&body, &REPLAY_CREATE, "");
    let request = wire::ReplayStreamRequest {
        stream: asked.name("stream"),
        group: fields.take_text("group"),
        replay_id: fields.take_text("replay_id"),
        from: fields.take_time("from").map(to_timestamp),
        to: fields.take_time("to").map(to_timestamp),
        message_types: fields.take_names("message_types"),
        from_agents: fields.take_names("from_agents"),
        rate: fields.take_u32("rate").unwrap_or(0),
    };
    fields.finish()?;
    let answer = gateway
        .replay_stream(&asked.namespace, request)
        .await
        .map_err(|fault| in_our_words(fault, ""))?;
    Ok((StatusCode::ACCEPTED, out(answer.replay)?).into_response())
}

async fn show(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
) -> Result<Json<ReplayOut>, Problem> {
    let request = wire::GetReplayRequest {
        stream: asked.name("stream"),
        replay_id: asked.name("replay_id"),
    };
    out(gateway.get_replay(&asked.namespace, request).await?.replay)
}

async fn cancel(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
) -> Result<Json<ReplayOut>, Problem> {
    let request = wire::CancelReplayRequest {
        stream: asked.name("stream"),
        replay_id: asked.name("replay_id"),
    };
    let answer = gateway.cancel_replay(&asked.namespace, request).await?;
    out(answer.replay)
}

fn out(replay: Option<wire::StreamReplay>) -> Result<Json<ReplayOut>, Problem> {
    let replay = replay.ok_or_else(|| Fault::bug("the gateway answered no replay"))?;
    Ok(Json(replay.into()))
}

#[derive(Serialize)]
struct ReplayOut {
    replay_id: String,
    stream: String,
    group: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    message_types: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    from_agents: Vec<String>,
    rate: u32,
    state: &'static str,
    examined: u64,
    published: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
}

impl From<wire::StreamReplay> for ReplayOut {
    fn from(replay: wire::StreamReplay) -> Self {
        Self {
            state: replay_state(replay.state()),
            from: time(replay.from.as_ref()),
            to: time(replay.to.as_ref()),
            started_at: time(replay.started_at.as_ref()),
            ended_at: time(replay.ended_at.as_ref()),
            replay_id: replay.replay_id,
            stream: replay.stream,
            group: replay.group,
            message_types: replay.message_types,
            from_agents: replay.from_agents,
            rate: replay.rate,
            examined: replay.examined,
            published: replay.published,
            error: replay.error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest::tests::misfits;

    #[test]
    fn a_full_answer_has_every_declared_field() {
        let at = Some(to_timestamp(1_000.into()));
        let replay = wire::StreamReplay {
            replay_id: "r".into(),
            stream: "s".into(),
            group: "g".into(),
            from: at,
            to: at,
            message_types: vec!["t".into()],
            from_agents: vec!["a".into()],
            rate: 1,
            state: wire::ReplayState::Running.into(),
            examined: 2,
            published: 1,
            error: "e".into(),
            started_at: at,
            ended_at: at,
        };
        let shown = serde_json::to_value(ReplayOut::from(replay)).unwrap();
        assert_eq!(misfits(&shown, &REPLAY), Vec::<String>::new());
    }
}
