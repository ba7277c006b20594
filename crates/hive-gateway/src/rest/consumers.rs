//! Members of a group: register a pull consumer, list, remove.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    routing::{delete, get, post},
};
use hive_protocol::{limits::CAPABILITIES_MAX, wire, words::consumer_kind};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    asked::Asked,
    problem::{Problem, in_our_words},
    render::time,
    shape::{
        Answer, Body, Call,
        Kind::{Count, Name, Names, Text, Time, Word},
        NOTHING, Shape, optional, required,
    },
};
use crate::core::Gateway;

/// The calls of this file.
pub(crate) static CALLS: [Call; 3] = [
    Call {
        method: "GET",
        path: "/consumer-groups/{group_name}/consumers",
        id: "listConsumers",
        about: "The members of a group, by id.",
        query: &NOTHING,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "The members.",
            body: Body::List(&CONSUMER),
        }],
        refusals: &[404],
        route: || get(list),
    },
    Call {
        method: "POST",
        path: "/consumer-groups/{group_name}/consumers",
        id: "addConsumer",
        about: "Registers a pull consumer; it gets work only when it fetches.",
        query: &ADD_QUERY,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "It is a member.",
            body: Body::One(&CONSUMER_ADDED),
        }],
        refusals: &[404, 409, 429],
        route: || post(add),
    },
    Call {
        method: "DELETE",
        path: "/consumer-groups/{group_name}/consumers/{consumer_id}",
        id: "removeConsumer",
        about: "Removes a member; what it holds is given back, uncounted.",
        query: &NOTHING,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "It is no member any more.",
            body: Body::One(&CONSUMER_REMOVED),
        }],
        refusals: &[404, 409],
        route: || delete(remove),
    },
];

static ADD_QUERY: Shape = Shape::new(
    "AddConsumerQuery",
    "Who joins.",
    &[&[
        required("consumer_id", Name, "Id of the agent."),
        optional(
            "capabilities",
            Names(CAPABILITIES_MAX),
            "What it can do, with commas between.",
        ),
    ]],
);

static CONSUMER: Shape = Shape::new(
    "Consumer",
    "A member of a group.",
    &[&[
        required("consumer_id", Name, "Id of the agent."),
        required(
            "kind",
            Word(&["stream", "pull", "unspecified"]),
            "`stream` works over gRPC Consume, `pull` fetches.",
        ),
        required("capabilities", Names(CAPABILITIES_MAX), "What it can do."),
        required(
            "concurrency",
            Count(0, 10_000),
            "How many it works on at once.",
        ),
        required("in_flight", Count(0, u64::MAX), "Deliveries it holds."),
        optional(
            "gateway",
            Text(1_024),
            "The gateway it is attached to; absent for `pull`.",
        ),
        optional("last_seen", Time, "Its last join, fetch or settle."),
    ]],
);

static CONSUMER_ADDED: Shape = Shape::new(
    "ConsumerAdded",
    "Who is a member.",
    &[&[
        required("status", Word(&["success"]), "Always `success`."),
        required("message", Text(1_024), "What was done, in words."),
        required("consumer_id", Name, "Id of the agent."),
        required("group_name", Name, "The group."),
    ]],
);

static CONSUMER_REMOVED: Shape = Shape::new(
    "ConsumerRemoved",
    "Who is no member any more.",
    &[&[
        required("status", Word(&["success"]), "Always `success`."),
        required("message", Text(1_024), "What was done, in words."),
        required("consumer_id", Name, "Id of the agent."),
        required("group_name", Name, "The group."),
        required("released", Count(0, u64::MAX), "Deliveries given back."),
    ]],
);

async fn list(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
) -> Result<Json<Vec<ConsumerOut>>, Problem> {
    let group = asked.name("group_name");
    let answer = gateway
        .list_consumers(&asked.namespace, wire::ListConsumersRequest { group })
        .await?;
    Ok(Json(
        answer
            .consumers
            .into_iter()
            .map(ConsumerOut::from)
            .collect(),
    ))
}

async fn add(
    State(gateway): State<Arc<Gateway>>,
    mut asked: Asked,
) -> Result<Json<Value>, Problem> {
    let consumer_id = asked.query.take_text("consumer_id");
    let capabilities = asked.query.take_names("capabilities");
    let group = asked.name("group_name");
    asked.query.finish()?;
    let request = wire::AddConsumerRequest {
        group: group.clone(),
        consumer_id: consumer_id.clone(),
        capabilities,
    };
    gateway
        .add_consumer(&asked.namespace, request)
        .await
        .map_err(|fault| in_our_words(fault, ""))?;
    Ok(Json(json!({
        "status": "success",
        "message": format!("consumer `{consumer_id}` is a member of group `{group}`"),
        "consumer_id": consumer_id,
        "group_name": group,
    })))
}

async fn remove(State(gateway): State<Arc<Gateway>>, asked: Asked) -> Result<Json<Value>, Problem> {
    let (group, consumer_id) = (asked.name("group_name"), asked.name("consumer_id"));
    let request = wire::RemoveConsumerRequest {
        group: group.clone(),
        consumer_id: consumer_id.clone(),
    };
    let answer = gateway.remove_consumer(&asked.namespace, request).await?;
    Ok(Json(json!({
        "status": "success",
        "message": format!("consumer `{consumer_id}` is removed from group `{group}`"),
        "consumer_id": consumer_id,
        "group_name": group,
        "released": answer.released,
    })))
}

#[derive(Serialize)]
struct ConsumerOut {
    consumer_id: String,
    kind: &'static str,
    capabilities: Vec<String>,
    concurrency: u32,
    in_flight: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    gateway: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<String>,
}

impl From<wire::Consumer> for ConsumerOut {
    fn from(consumer: wire::Consumer) -> Self {
        Self {
            kind: consumer_kind(consumer.kind()),
            last_seen: time(consumer.last_seen.as_ref()),
            consumer_id: consumer.consumer_id,
            capabilities: consumer.capabilities,
            concurrency: consumer.concurrency,
            in_flight: consumer.in_flight,
            gateway: consumer.gateway,
        }
    }
}
