//! How many consumers groups have and want, and what was decided about that.
//!
//! How a group is scaled is part of its settings and read and shown with them. What was decided is
//! asked of a `hive-coordinator`; `shown` has it as JSON.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use futures_util::StreamExt as _;
use hive_protocol::{
    fault::{Fault, Reason},
    http::ProblemJson,
    wire,
    words::coordination::{SCALING_EXECUTORS, SCALING_STRATEGIES, value_of},
};
use serde_json::{Value, json};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

pub(super) use self::{
    shapes::{COORDINATOR_METRICS, POLICY, POLICY_SHOWN},
    shown::{CoordinatorMetricsOut, PolicyOut},
};
use self::{
    shapes::{EVENTS, EVENTS_QUERY, SCALING, SCALING_FRAME, WATCH_QUERY},
    shown::{EventOut, ScalingOut},
};
use super::{
    asked::Asked,
    fields::Fields,
    problem::Problem,
    shape::{Answer, Body, Call, NOTHING},
    workflows::ours,
};
use crate::core::Gateway;

mod shapes;
mod shown;

/// How often a silent stream says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// What browsers are told to wait before they come back.
const COME_BACK: Duration = Duration::from_secs(1);
/// How long all figures of a namespace wait for those of its coordinators.
const FIGURES_WITHIN: Duration = Duration::from_secs(2);

/// The calls of this file.
pub(crate) static CALLS: [Call; 4] = [
    Call {
        method: "GET",
        path: "/scaling",
        id: "listScaling",
        about: "How many consumers each group of the namespace has and wants, and why.",
        query: &NOTHING,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "The groups, by name.",
            body: Body::List(&SCALING),
        }],
        refusals: &[],
        route: || get(list),
    },
    Call {
        method: "GET",
        path: "/scaling/events",
        id: "listScalingEvents",
        about: "Scaling decisions and what became of them, the newest first.",
        query: &EVENTS_QUERY,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "A page of them.",
            body: Body::One(&EVENTS),
        }],
        refusals: &[],
        route: || get(events),
    },
    Call {
        method: "GET",
        path: "/scaling/watch",
        id: "watchScaling",
        about: "Server-sent events: `scaling`, the groups as they are, then those that change, and \
                all of them at least every 5 s. `problem` says why the stream ends.",
        query: &WATCH_QUERY,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "The events.",
            body: Body::Events(&SCALING_FRAME),
        }],
        refusals: &[429],
        route: || get(watch),
    },
    Call {
        method: "GET",
        path: "/scaling/{group_name}",
        id: "getScaling",
        about: "How many consumers one group has and wants, and why.",
        query: &NOTHING,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "The group.",
            body: Body::One(&SCALING),
        }],
        refusals: &[404],
        route: || get(show),
    },
];

/// How a group is to be scaled, from its settings; none where they do not say.
pub(super) fn read_policy(settings: &mut Fields) -> Option<wire::ScalingPolicy> {
    let mut fields = settings.take_object("scaling")?;
    let strategy = fields.take_word("strategy");
    let executor = fields.take_word("executor");
    let target = fields.has("target").then(|| fields.take_text("target"));
    let policy = wire::ScalingPolicy {
        strategy: strategy
            .and_then(|word| value_of(&SCALING_STRATEGIES, word))
            .map_or(0, Into::into),
        drain_target: fields.take_seconds("drain_target_seconds"),
        startup_time: fields.take_seconds("startup_time_seconds"),
        scale_up_window: fields.take_seconds("scale_up_window_seconds"),
        scale_down_window: fields.take_seconds("scale_down_window_seconds"),
        scale_up_cooldown: fields.take_seconds("scale_up_cooldown_seconds"),
        scale_down_cooldown: fields.take_seconds("scale_down_cooldown_seconds"),
        scale_up_step: fields.take_u32("scale_up_step"),
        scale_down_step: fields.take_u32("scale_down_step"),
        weight: fields.take_u32("weight"),
        executor: executor
            .and_then(|word| value_of(&SCALING_EXECUTORS, word))
            .map_or(0, Into::into),
        target,
    };
    settings.close(fields);
    Some(policy)
}

async fn list(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
) -> Result<Json<Vec<ScalingOut>>, Problem> {
    let request = wire::GetScalingRequest {
        group: String::new(),
    };
    let answer = gateway.get_scaling(&asked.onward(), request).await;
    let groups = answer.map_err(ours)?.groups.into_iter();
    Ok(Json(groups.map(ScalingOut::from).collect()))
}

async fn show(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
) -> Result<Json<ScalingOut>, Problem> {
    let group = asked.name("group_name");
    let request = wire::GetScalingRequest {
        group: group.clone(),
    };
    let answer = gateway.get_scaling(&asked.onward(), request).await;
    let found = answer.map_err(ours)?.groups.into_iter().next();
    let found = found.ok_or_else(|| {
        let message = format!("there is no group `{group}`");
        Fault::new(Reason::GroupNotFound, message)
    })?;
    Ok(Json(found.into()))
}

async fn events(
    State(gateway): State<Arc<Gateway>>,
    mut asked: Asked,
) -> Result<Json<Value>, Problem> {
    let request = wire::ListScalingEventsRequest {
        group: asked.query.take_text("group"),
        limit: asked.query.take_u32("limit").unwrap_or(0),
        cursor: asked.query.take_text("cursor"),
    };
    let onward = asked.onward();
    asked.query.finish()?;
    let answer = gateway.list_scaling_events(&onward, request).await;
    let answer = answer.map_err(ours)?;
    let events: Vec<EventOut> = answer.events.into_iter().map(EventOut::from).collect();
    let next_cursor = Some(answer.next_cursor).filter(|cursor| !cursor.is_empty());
    Ok(Json(
        json!({ "events": events, "next_cursor": next_cursor }),
    ))
}

async fn watch(State(gateway): State<Arc<Gateway>>, mut asked: Asked) -> Result<Response, Problem> {
    let onward = asked.onward();
    let groups = asked.query.take_names("groups");
    asked.query.finish()?;
    let request = wire::WatchScalingRequest { groups };
    let watch = gateway.watch_scaling(&onward, request).await;
    let frames = watch.map_err(ours)?.follow(&gateway, "scaling_watch");
    let events = ReceiverStream::new(frames)
        .map(|frame| Ok::<Event, Infallible>(event(frame).retry(COME_BACK)));
    let alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(events).keep_alive(alive).into_response())
}

fn event(frame: Result<wire::WatchScalingResponse, Status>) -> Event {
    let (name, data) = match frame {
        Ok(frame) => {
            let groups = frame.groups.into_iter().map(ScalingOut::from);
            let groups: Vec<ScalingOut> = groups.collect();
            ("scaling", json!({ "groups": groups }).to_string())
        },
        Err(status) => {
            let problem = ProblemJson::from(&Fault::from(status));
            (
                "problem",
                serde_json::to_string(&problem).unwrap_or_default(),
            )
        },
    };
    Event::default().event(name).data(data)
}

/// The figures for the page of all figures: none where no coordinator answers in time.
pub(super) async fn figures(gateway: &Gateway, asked: &Asked) -> Option<CoordinatorMetricsOut> {
    let onward = asked.onward().within(FIGURES_WITHIN);
    let request = wire::GetScalingRequest {
        group: String::new(),
    };
    match gateway.get_scaling(&onward, request).await {
        Ok(answer) => {
            let coordinators = gateway.coordinators.addresses().len();
            Some(CoordinatorMetricsOut::new(coordinators, &answer.groups))
        },
        Err(status) => {
            let fault = Fault::from(status);
            if fault.reason != Reason::NoCoordinator {
                tracing::debug!(%fault, "scaling_not_counted");
            }
            None
        },
    }
}

#[cfg(test)]
mod tests;
