//! How the hive is doing: health by component, figures of all groups and streams at once.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use hive_domain::time::Timestamp;
use hive_protocol::wire;
use serde::Serialize;

use super::{
    asked::Asked,
    dead_letters::{STATISTICS, StatisticsOut, figures},
    groups::{GROUP, GroupOut},
    problem::Problem,
    render::{millis, now},
    scaling::{self, COORDINATOR_METRICS, CoordinatorMetricsOut},
    shape::{
        Answer, Body, Call,
        Kind::{ByName, One, Text, Time, Word},
        NOTHING, Shape, optional, required,
    },
    streams::{STREAM, StreamOut},
};
use crate::{core::Gateway, health::HealthStatus};

/// The calls of this file.
pub(crate) static CALLS: [Call; 2] = [
    Call {
        method: "GET",
        path: "/consumer-groups/health",
        id: "getHealth",
        about: "Whether the hive works: unhealthy when Redis is away or no gateway can serve, \
                degraded when a daemon is missing or a group needs attention.",
        query: &NOTHING,
        body: Body::None,
        answers: &[
            Answer {
                status: 200,
                about: "Healthy or degraded.",
                body: Body::One(&HEALTH),
            },
            Answer {
                status: 503,
                about: "Unhealthy.",
                body: Body::One(&HEALTH),
            },
        ],
        refusals: &[],
        route: || get(health),
    },
    Call {
        method: "GET",
        path: "/consumer-groups/metrics",
        id: "getMetrics",
        about: "The figures of all groups and streams of the namespace.",
        query: &NOTHING,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "The figures.",
            body: Body::One(&METRICS),
        }],
        refusals: &[],
        route: || get(metrics),
    },
];

static HEALTH: Shape = Shape::new(
    "Health",
    "How the hive is doing.",
    &[&[
        required(
            "status",
            Word(&["healthy", "degraded", "unhealthy"]),
            "All in all.",
        ),
        required("timestamp", Time, "When this was found."),
        required("components", ByName(&COMPONENT), "Its parts, by name."),
    ]],
);

static COMPONENT: Shape = Shape::new(
    "Component",
    "How one part is doing.",
    &[&[
        required("status", Text(64), "A word for it."),
        optional("detail", Text(1_024), "What is wrong, for a person."),
    ]],
);

static METRICS: Shape = Shape::new(
    "Metrics",
    "The figures of a namespace.",
    &[&[
        required("timestamp", Time, "When they were read."),
        required("streams_metrics", ByName(&STREAM), "All streams, by name."),
        required("consumer_groups", ByName(&GROUP), "All groups, by name."),
        optional(
            "dlq_metrics",
            One(&STATISTICS),
            "Figures of dead letters; missing where no `hive-dlq` answers.",
        ),
        optional(
            "coordinator_metrics",
            One(&COORDINATOR_METRICS),
            "Figures of coordination; missing where no `hive-coordinator` answers.",
        ),
    ]],
);

async fn health(State(gateway): State<Arc<Gateway>>, asked: Asked) -> Response {
    let health = gateway.health(&asked.namespace).await;
    let (code, status) = match health.status {
        HealthStatus::Healthy => (StatusCode::OK, "healthy"),
        HealthStatus::Degraded => (StatusCode::OK, "degraded"),
        HealthStatus::Unhealthy => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy"),
    };
    let components = health
        .components
        .into_iter()
        .map(|(name, (status, detail))| (name, ComponentOut { status, detail }));
    let shown = HealthOut {
        status,
        timestamp: millis(Timestamp(health.now_ms)),
        components: components.collect(),
    };
    (code, Json(shown)).into_response()
}

async fn metrics(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
) -> Result<Json<MetricsOut>, Problem> {
    let namespace = &asked.namespace;
    let (groups, streams, dead_letters, coordination) = tokio::join!(
        gateway.list_groups(namespace, wire::ListGroupsRequest {}),
        gateway.list_streams(namespace, wire::ListStreamsRequest {}),
        figures(&gateway, &asked),
        scaling::figures(&gateway, &asked),
    );
    let (groups, streams) = (groups?, streams?);
    let streams = streams.streams.into_iter().map(StreamOut::from);
    let groups = groups.groups.into_iter().map(GroupOut::from);
    Ok(Json(MetricsOut {
        timestamp: millis(now()),
        streams_metrics: streams
            .map(|stream| (stream.name.clone(), stream))
            .collect(),
        consumer_groups: groups.map(|group| (group.name.clone(), group)).collect(),
        dlq_metrics: dead_letters,
        coordinator_metrics: coordination,
    }))
}

#[derive(Serialize)]
struct HealthOut {
    status: &'static str,
    timestamp: String,
    components: BTreeMap<&'static str, ComponentOut>,
}

#[derive(Serialize)]
struct ComponentOut {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

#[derive(Serialize)]
struct MetricsOut {
    timestamp: String,
    streams_metrics: BTreeMap<String, StreamOut>,
    consumer_groups: BTreeMap<String, GroupOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dlq_metrics: Option<StatisticsOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    coordinator_metrics: Option<CoordinatorMetricsOut>,
}
