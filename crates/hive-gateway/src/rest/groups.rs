//! Consumer groups: create, list, show, change, delete, pause, resume.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, patch, post},
};
use hive_domain::violation::Violations;
use hive_protocol::{convert, fault::Fault, wire};
use serde_json::json;

use self::shapes::{
    BLOCKED_KEYS, DELETE_QUERY, GROUP_CREATE, GROUP_DELETED, GROUP_DONE, GROUP_UPDATE, KEY_UNBLOCK,
    KEY_UNBLOCKED, PURGE, PURGE_COUNTED, PURGED,
};
pub(super) use self::{shapes::GROUP, shown::GroupOut};
use super::{
    asked::{Asked, JsonBody},
    fields::Fields,
    problem::{Problem, in_our_words, renamed},
    render::now,
    scaling::read_policy,
    shape::{Answer, Body, Call, NOTHING},
    streams::read_by_group,
};
use crate::core::Gateway;

mod shapes;
mod shown;

/// The calls of this file.
pub(crate) static CALLS: [Call; 10] = [
    Call {
        method: "GET",
        path: "/consumer-groups",
        id: "listGroups",
        about: "All groups of the namespace with their figures, by name.",
        query: &NOTHING,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "The groups.",
            body: Body::List(&GROUP),
        }],
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
            Answer {
                status: 201,
                about: "Created.",
                body: Body::One(&GROUP_DONE),
            },
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
        answers: &[Answer {
            status: 200,
            about: "The group.",
            body: Body::One(&GROUP),
        }],
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
        answers: &[Answer {
            status: 200,
            about: "The group as it is now.",
            body: Body::One(&GROUP),
        }],
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
        answers: &[Answer {
            status: 200,
            about: "Deleted.",
            body: Body::One(&GROUP_DELETED),
        }],
        refusals: &[404, 409],
        route: || delete(remove),
    },
    Call {
        method: "POST",
        path: "/consumer-groups/{group_name}/purge",
        id: "purgeGroup",
        about: "Moves the unsettled messages of a group to the dead letters, category \
                `cancelled`. A dry run counts them and changes nothing.",
        query: &NOTHING,
        body: Body::One(&PURGE),
        answers: &[Answer {
            status: 200,
            about: "What went, or would go.",
            body: Body::Either(&PURGED, &PURGE_COUNTED),
        }],
        refusals: &[404, 409],
        route: || post(purge),
    },
    Call {
        method: "POST",
        path: "/consumer-groups/{group_name}/pause",
        id: "pauseGroup",
        about: "Stops deliveries; publishes and settles go on.",
        query: &NOTHING,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "The group as it is now.",
            body: Body::One(&GROUP),
        }],
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
        answers: &[Answer {
            status: 200,
            about: "The group as it is now.",
            body: Body::One(&GROUP),
        }],
        refusals: &[404, 409],
        route: || post(resume),
    },
    Call {
        method: "GET",
        path: "/consumer-groups/{group_name}/blocked-keys",
        id: "listBlockedKeys",
        about: "Shows ordering keys that wait for an operator behind a dead letter.",
        query: &NOTHING,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "The keys.",
            body: Body::One(&BLOCKED_KEYS),
        }],
        refusals: &[404, 409],
        route: || get(blocked_keys),
    },
    Call {
        method: "POST",
        path: "/consumer-groups/{group_name}/blocked-keys/unblock",
        id: "unblockKey",
        about: "Lets such a key go on with its next message. Repeating it changes nothing.",
        query: &NOTHING,
        body: Body::One(&KEY_UNBLOCK),
        answers: &[Answer {
            status: 200,
            about: "Whether it was let go.",
            body: Body::One(&KEY_UNBLOCKED),
        }],
        refusals: &[404, 409],
        route: || post(unblock),
    },
];

async fn list(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
) -> Result<Json<Vec<GroupOut>>, Problem> {
    let answer = gateway
        .list_groups(&asked.namespace, wire::ListGroupsRequest {})
        .await?;
    Ok(Json(
        answer.groups.into_iter().map(GroupOut::from).collect(),
    ))
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
        .update_group(
            &asked.namespace,
            wire::UpdateGroupRequest { name, settings },
        )
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
    let request = wire::DeleteGroupRequest {
        name: name.clone(),
        force,
    };
    let answer = gateway.delete_group(&asked.namespace, request).await?;
    let done = json!({
        "status": "success",
        "message": format!("group `{name}` is deleted"),
        "group_name": name,
        "cancelled": answer.cancelled,
    });
    Ok(Json(done).into_response())
}

async fn purge(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let mut fields = Fields::of(&body, &PURGE, "");
    let request = wire::PurgeGroupRequest {
        name: asked.name("group_name"),
        dry_run: fields.take_flag("dry_run").unwrap_or(false),
        confirm: fields.take_text("confirm"),
        keep_leased: fields.take_flag("keep_leased").unwrap_or(false),
    };
    fields.finish()?;
    let dry_run = request.dry_run;
    let answer = gateway.purge_group(&asked.namespace, request).await?;
    let shown = if dry_run {
        json!({
            "dry_run": true,
            "purged": answer.purged,
            "waiting": answer.waiting,
            "leased": answer.leased,
            "retrying": answer.retrying,
            "scheduled": answer.scheduled,
        })
    } else {
        json!({ "dry_run": false, "purged": answer.purged, "more": answer.more })
    };
    Ok(Json(shown).into_response())
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

async fn blocked_keys(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
) -> Result<Response, Problem> {
    let name = asked.name("group_name");
    let answer = gateway
        .list_blocked_keys(&asked.namespace, wire::ListBlockedKeysRequest { name })
        .await?;
    Ok(Json(json!({ "ordering_keys": answer.ordering_keys })).into_response())
}

async fn unblock(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let mut fields = Fields::of(&body, &KEY_UNBLOCK, "");
    let ordering_key = fields.take_text("ordering_key");
    fields.finish()?;
    let name = asked.name("group_name");
    let request = wire::UnblockKeyRequest { name, ordering_key };
    let answer = gateway.unblock_key(&asked.namespace, request).await?;
    Ok(Json(json!({ "unblocked": answer.unblocked })).into_response())
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
        stream_settings: Some(read_by_group(&mut fields)),
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
        ordering_on_dead: fields
            .take_word("ordering_on_dead")
            .and_then(|word| word.parse().ok())
            .map_or(0, |word| convert::ordering_on_dead(word).into()),
        scaling: read_policy(fields),
        progress_timeout: fields.take_seconds("progress_timeout_seconds"),
    }
}

#[cfg(test)]
mod tests;
