//! Rebalancing, the options of the coordinators, and where agents and tasks go.
//!
//! Everything is asked of a `hive-coordinator`; this door reads and shows. The calls below
//! `/consumer-groups` are the migration guide's, by its words.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    routing::{get, post, put},
};
use hive_protocol::{
    fault::Fault,
    wire,
    words::coordination::{
        ALLOCATION_MODES, PLACEMENT_STRATEGIES, PROVISIONING_POLICIES, REBALANCE_ACTIONS, value_of,
        word_for,
    },
};
use serde_json::{Value, json};

use self::shapes::{
    AGENT, AGENT_PLACED, CONFIG, CONFIG_CHANGE, REBALANCE, REBALANCE_QUERY, REBALANCED, TASK,
    TASK_PLACED,
};
use super::{
    asked::{Asked, JsonBody, MaybeJsonBody},
    fields::Fields,
    problem::Problem,
    render::{Seconds, millis, now, time},
    shape::{Answer, Body, Call, NOTHING},
    workflows::ours,
};
use crate::core::Gateway;

mod shapes;

/// The calls of this file.
pub(crate) static CALLS: [Call; 5] = [
    Call {
        method: "POST",
        path: "/consumer-groups/rebalance",
        id: "rebalance",
        about: "Moves delivered messages that no handler has begun from loaded consumers to free \
                ones, of one group or of all. A second call right behind moves nothing.",
        query: &REBALANCE_QUERY,
        body: Body::Maybe(&REBALANCE),
        answers: &[Answer {
            status: 200,
            about: "What was done, or would be.",
            body: Body::One(&REBALANCED),
        }],
        refusals: &[404, 409, 504],
        route: || post(rebalance),
    },
    Call {
        method: "GET",
        path: "/consumer-groups/coordinator/config",
        id: "getCoordinatorConfig",
        about: "The options of all coordinators.",
        query: &NOTHING,
        body: Body::None,
        answers: CONFIG_ANSWERS,
        refusals: &[],
        route: || get(config),
    },
    Call {
        method: "PUT",
        path: "/consumer-groups/coordinator/config",
        id: "setCoordinatorConfig",
        about: "Changes options of all coordinators; what is left out stays. They act within 2 s.",
        query: &NOTHING,
        body: Body::One(&CONFIG_CHANGE),
        answers: CONFIG_ANSWERS,
        refusals: &[409, 504],
        route: || put(set_config),
    },
    Call {
        method: "POST",
        path: "/placement/agent",
        id: "placeAgent",
        about: "Says which group an agent joins, and why; makes the group from its template where \
                there is none.",
        query: &NOTHING,
        body: Body::One(&AGENT),
        answers: &[Answer {
            status: 200,
            about: "The group to join.",
            body: Body::One(&AGENT_PLACED),
        }],
        refusals: &[404, 409, 429, 504],
        route: || post(place_agent),
    },
    Call {
        method: "POST",
        path: "/placement/task",
        id: "placeTask",
        about: "Says which group a task goes to, and why. Sends nothing.",
        query: &NOTHING,
        body: Body::One(&TASK),
        answers: &[Answer {
            status: 200,
            about: "The group that gets it.",
            body: Body::One(&TASK_PLACED),
        }],
        refusals: &[404, 409, 429, 504],
        route: || post(place_task),
    },
];

const CONFIG_ANSWERS: &[Answer] = &[Answer {
    status: 200,
    about: "All options as they are now.",
    body: Body::One(&CONFIG),
}];

async fn rebalance(
    State(gateway): State<Arc<Gateway>>,
    mut asked: Asked,
    MaybeJsonBody(body): MaybeJsonBody,
) -> Result<Json<Value>, Problem> {
    let by_query = asked.query.take_text("group");
    let onward = asked.onward();
    asked.query.finish()?;
    let mut fields = Fields::of(&body, &REBALANCE, "");
    let by_body = fields.take_text("group");
    if !by_query.is_empty() && !by_body.is_empty() && by_query != by_body {
        let rule = format!("`{by_body}` must be `{by_query}`, as the query says");
        fields.fault("group", rule);
    }
    let group = if by_body.is_empty() {
        by_query
    } else {
        by_body
    };
    let dry_run = fields.take_flag("dry_run").unwrap_or(false);
    fields.finish()?;
    let request = wire::RebalanceRequest { group, dry_run };
    let answer = gateway.rebalance(&onward, request).await.map_err(ours)?;
    Ok(Json(rebalanced(&answer, dry_run)))
}

/// What a rebalance did, as JSON.
fn rebalanced(answer: &wire::RebalanceResponse, dry_run: bool) -> Value {
    let operations = answer.operations.iter().map(|one| {
        json!({
            "group": one.group,
            "action": word_for(&REBALANCE_ACTIONS, one.action()),
            "from": one.from,
            "to": one.to,
            "count": one.count,
            "reason": one.reason,
        })
    });
    let elapsed = Seconds::of(answer.elapsed.as_ref()).map_or(0, |Seconds(millis)| millis);
    json!({
        "status": if dry_run { "dry_run" } else { "success" },
        "groups_analyzed": answer.groups_analyzed,
        "operations_performed": operations.collect::<Vec<Value>>(),
        "rebalance_time_ms": elapsed,
        "timestamp": time(answer.timestamp.as_ref()).unwrap_or_else(|| millis(now())),
    })
}

async fn config(State(gateway): State<Arc<Gateway>>, asked: Asked) -> Result<Json<Value>, Problem> {
    let request = wire::GetConfigRequest {};
    let answer = gateway.get_config(&asked.onward(), request).await;
    shown(answer.map_err(ours)?.config)
}

async fn set_config(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, Problem> {
    let mut fields = Fields::of(&body, &CONFIG_CHANGE, "");
    let config = read_config(&mut fields);
    fields.finish()?;
    let request = wire::UpdateConfigRequest {
        config: Some(config),
    };
    let answer = gateway.update_config(&asked.onward(), request).await;
    shown(answer.map_err(ours)?.config)
}

fn read_config(fields: &mut Fields) -> wire::CoordinatorConfig {
    let strategy = fields.take_word("strategy");
    let policy = fields.take_word("provisioning_policy");
    let mode = fields.take_word("allocation_mode");
    wire::CoordinatorConfig {
        strategy: strategy
            .and_then(|word| value_of(&PLACEMENT_STRATEGIES, word))
            .map_or(0, Into::into),
        provisioning_policy: policy
            .and_then(|word| value_of(&PROVISIONING_POLICIES, word))
            .map_or(0, Into::into),
        allocation_mode: mode
            .and_then(|word| value_of(&ALLOCATION_MODES, word))
            .map_or(0, Into::into),
        enable_cross_group_coordination: fields.take_flag("enable_cross_group_coordination"),
        health_check_interval: fields.take_seconds("health_check_interval"),
        rebalance_interval: fields.take_seconds("rebalance_interval"),
        max_total_consumers: fields.take_u32("max_total_consumers"),
        provision_for_tasks: fields.take_flag("provision_for_tasks"),
    }
}

fn shown(config: Option<wire::CoordinatorConfig>) -> Result<Json<Value>, Problem> {
    let config = config.ok_or_else(|| Fault::bug("a coordinator answered no options"))?;
    Ok(Json(json!({
        "strategy": word_for(&PLACEMENT_STRATEGIES, config.strategy()),
        "provisioning_policy": word_for(&PROVISIONING_POLICIES, config.provisioning_policy()),
        "provision_for_tasks": config.provision_for_tasks(),
        "allocation_mode": word_for(&ALLOCATION_MODES, config.allocation_mode()),
        "enable_cross_group_coordination": config.enable_cross_group_coordination(),
        "health_check_interval": Seconds::of(config.health_check_interval.as_ref()),
        "rebalance_interval": Seconds::of(config.rebalance_interval.as_ref()),
        "max_total_consumers": config.max_total_consumers(),
    })))
}

async fn place_agent(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, Problem> {
    let mut fields = Fields::of(&body, &AGENT, "");
    let request = wire::PlaceAgentRequest {
        agent_type: fields.take_text("agent_type"),
        capabilities: fields.take_names("capabilities"),
        dry_run: fields.take_flag("dry_run").unwrap_or(false),
    };
    fields.finish()?;
    let answer = gateway.place_agent(&asked.onward(), request).await;
    let answer = answer.map_err(ours)?;
    let scores = answer
        .scores
        .iter()
        .map(|one| json!({ "group": one.group, "score": one.score, "reason": one.reason }));
    Ok(Json(json!({
        "group": answer.group,
        "reasoning": answer.reasoning,
        "strategy": word_for(&PLACEMENT_STRATEGIES, answer.strategy()),
        "created": answer.created,
        "scores": scores.collect::<Vec<Value>>(),
    })))
}

async fn place_task(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, Problem> {
    let mut fields = Fields::of(&body, &TASK, "");
    let request = wire::PlaceTaskRequest {
        r#type: fields.take_text("type"),
        required_capabilities: fields.take_names("required_capabilities"),
        group: fields.take_text("group"),
        provision: fields.take_flag("provision").unwrap_or(false),
        dry_run: fields.take_flag("dry_run").unwrap_or(false),
    };
    if request.r#type.is_empty() && request.group.is_empty() && !fields.has_faults() {
        fields.fault("type", "must be set where `group` is not");
    }
    fields.finish()?;
    let answer = gateway.place_task(&asked.onward(), request).await;
    let answer = answer.map_err(ours)?;
    Ok(Json(json!({
        "group": answer.group,
        "reasoning": answer.reasoning,
        "created": answer.created,
    })))
}

#[cfg(test)]
mod tests;
