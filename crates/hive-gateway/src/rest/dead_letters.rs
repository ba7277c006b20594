//! Dead letters: list, show, explain, send back, put aside, delete.
//!
//! Everything is asked of a `hive-dlq`; this door reads and shows. The four calls of the migration
//! guide stand below `/consumer-groups/dlq`, ours below `/dlq`. `shapes` says what all of them
//! look like, `shown` shows answers as JSON.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, patch, post},
};
use hive_domain::violation::Violation;
use hive_protocol::{
    fault::{Fault, FaultKind, Reason},
    time::{to_duration, to_timestamp},
    wire,
    words::parse_dead_letter_status,
};
use serde_json::{Value, json};
use tonic::Status;

pub(super) use self::{shapes::STATISTICS, shown::StatisticsOut};
use self::{
    shapes::{
        ANALYSIS, ANALYZE_QUERY, BATCH_REPLAY, BATCH_REPLAYED, DEAD_LETTER, DEAD_LETTERS, JOB,
        JOB_REPLAY, JOBS, JOBS_QUERY, LIST_QUERY, PURGE, PURGED, REPLAY, REPLAY_QUERY, REPLAYED,
        SET_STATUS,
    },
    shown::{AnalysisOut, BatchOut, DeadLetterOut, JobOut},
};
use super::{
    asked::{Asked, JsonBody, MaybeJsonBody},
    fields::Fields,
    problem::{Problem, renamed},
    shape::{Answer, Body, Call, NOTHING},
    workflows::read_bytes,
};
use crate::core::Gateway;

mod shapes;
mod shown;

/// Most dead letters of a batch that names no number.
const BATCH_DEFAULT: u32 = 10;
/// How long a batch is waited for.
const BATCH_WAIT_MS: u64 = 25_000;
/// How long all figures of a namespace wait for those of its dead letters.
const FIGURES_WITHIN: Duration = Duration::from_secs(2);

/// The calls of the migration guide.
pub(crate) static GUIDE_CALLS: [Call; 4] = [
    Call {
        method: "GET",
        path: "/consumer-groups/dlq/statistics",
        id: "getDlqStatistics",
        about: "Figures of all dead letters of the namespace, by the migration guide.",
        query: &NOTHING,
        body: Body::None,
        answers: STATISTICS_ANSWERS,
        refusals: &[],
        route: || get(statistics),
    },
    Call {
        method: "GET",
        path: "/consumer-groups/dlq/analyze",
        id: "analyzeDlq",
        about: "Patterns in what failed lately, with evidence and advice, by the migration guide.",
        query: &ANALYZE_QUERY,
        body: Body::None,
        answers: ANALYSIS_ANSWERS,
        refusals: &[],
        route: || get(analyze),
    },
    Call {
        method: "POST",
        path: "/consumer-groups/dlq/replay/{dlq_message_id}",
        id: "replayDlqMessage",
        about: "Sends one dead letter back, by the migration guide. A second call answers what the \
                first one did.",
        query: &REPLAY_QUERY,
        body: Body::None,
        answers: REPLAYED_ANSWERS,
        refusals: &[404, 409, 429, 504],
        route: || post(replay_by_guide),
    },
    Call {
        method: "POST",
        path: "/consumer-groups/dlq/replay/batch",
        id: "replayDlqBatch",
        about: "Sends back what a filter takes, by the migration guide; waits up to 25 s for the \
                end.",
        query: &NOTHING,
        body: Body::One(&BATCH_REPLAY),
        answers: BATCH_ANSWERS,
        refusals: &[404, 409, 429, 504],
        route: || post(replay_batch),
    },
];

/// The calls of this door.
pub(crate) static CALLS: [Call; 12] = [
    Call {
        method: "GET",
        path: "/dlq/messages",
        id: "listDeadLetters",
        about: "Dead letters, the newest first.",
        query: &LIST_QUERY,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "A page of them.",
            body: Body::One(&DEAD_LETTERS),
        }],
        refusals: &[],
        route: || get(list),
    },
    Call {
        method: "GET",
        path: "/dlq/messages/{dlq_id}",
        id: "getDeadLetter",
        about: "One dead letter with all of its attempts and its payload.",
        query: &NOTHING,
        body: Body::None,
        answers: DEAD_LETTER_ANSWERS,
        refusals: &[404],
        route: || get(show),
    },
    Call {
        method: "POST",
        path: "/dlq/messages/{dlq_id}/replay",
        id: "replayDeadLetter",
        about: "Sends one dead letter back, with another payload or to another group where asked \
                to. A second call answers what the first one did, unless it is forced.",
        query: &NOTHING,
        body: Body::Maybe(&REPLAY),
        answers: REPLAYED_ANSWERS,
        refusals: &[404, 409, 429, 504],
        route: || post(replay),
    },
    Call {
        method: "PATCH",
        path: "/dlq/messages/{dlq_id}/status",
        id: "setDeadLetterStatus",
        about: "Says what is to become of a dead letter.",
        query: &NOTHING,
        body: Body::One(&SET_STATUS),
        answers: DEAD_LETTER_ANSWERS,
        refusals: &[404, 409, 504],
        route: || patch(set_status),
    },
    Call {
        method: "POST",
        path: "/dlq/messages/{dlq_id}/status",
        id: "postDeadLetterStatus",
        about: "The same, for clients without PATCH.",
        query: &NOTHING,
        body: Body::One(&SET_STATUS),
        answers: DEAD_LETTER_ANSWERS,
        refusals: &[404, 409, 504],
        route: || post(set_status),
    },
    Call {
        method: "POST",
        path: "/dlq/replay",
        id: "replayDeadLetters",
        about: "Sends back what a filter takes, as a job.",
        query: &NOTHING,
        body: Body::One(&JOB_REPLAY),
        answers: BATCH_ANSWERS,
        refusals: &[404, 409, 429, 504],
        route: || post(replay_many),
    },
    Call {
        method: "GET",
        path: "/dlq/jobs",
        id: "listReplayJobs",
        about: "Replay jobs, the newest first. They are kept for 7 days after their end.",
        query: &JOBS_QUERY,
        body: Body::None,
        answers: &[Answer {
            status: 200,
            about: "The jobs.",
            body: Body::One(&JOBS),
        }],
        refusals: &[],
        route: || get(jobs),
    },
    Call {
        method: "GET",
        path: "/dlq/jobs/{job_id}",
        id: "getReplayJob",
        about: "How far a replay job is.",
        query: &NOTHING,
        body: Body::None,
        answers: JOB_ANSWERS,
        refusals: &[404],
        route: || get(job),
    },
    Call {
        method: "DELETE",
        path: "/dlq/jobs/{job_id}",
        id: "cancelReplayJob",
        about: "Ends a replay job; what it sent stays sent. One that has ended answers as it is.",
        query: &NOTHING,
        body: Body::None,
        answers: JOB_ANSWERS,
        refusals: &[404, 504],
        route: || delete(cancel),
    },
    Call {
        method: "POST",
        path: "/dlq/purge",
        id: "purgeDeadLetters",
        about: "Deletes for good what a filter takes. A dry run answers what confirms it.",
        query: &NOTHING,
        body: Body::One(&PURGE),
        answers: &[Answer {
            status: 200,
            about: "What went, or would.",
            body: Body::One(&PURGED),
        }],
        refusals: &[409, 504],
        route: || post(purge),
    },
    Call {
        method: "GET",
        path: "/dlq/statistics",
        id: "getDeadLetterStatistics",
        about: "Figures of all dead letters of the namespace.",
        query: &NOTHING,
        body: Body::None,
        answers: STATISTICS_ANSWERS,
        refusals: &[],
        route: || get(statistics),
    },
    Call {
        method: "GET",
        path: "/dlq/analyze",
        id: "analyzeDeadLetters",
        about: "Patterns in what failed lately, with evidence and advice.",
        query: &ANALYZE_QUERY,
        body: Body::None,
        answers: ANALYSIS_ANSWERS,
        refusals: &[],
        route: || get(analyze),
    },
];

const STATISTICS_ANSWERS: &[Answer] = &[Answer {
    status: 200,
    about: "The figures.",
    body: Body::One(&STATISTICS),
}];

const ANALYSIS_ANSWERS: &[Answer] = &[Answer {
    status: 200,
    about: "The patterns.",
    body: Body::One(&ANALYSIS),
}];

const REPLAYED_ANSWERS: &[Answer] = &[Answer {
    status: 200,
    about: "It was sent back, now or before.",
    body: Body::One(&REPLAYED),
}];

const BATCH_ANSWERS: &[Answer] = &[
    Answer {
        status: 200,
        about: "The job is over, or it was a dry run.",
        body: Body::One(&BATCH_REPLAYED),
    },
    Answer {
        status: 202,
        about: "The job goes on.",
        body: Body::One(&BATCH_REPLAYED),
    },
];

const DEAD_LETTER_ANSWERS: &[Answer] = &[Answer {
    status: 200,
    about: "The dead letter.",
    body: Body::One(&DEAD_LETTER),
}];

const JOB_ANSWERS: &[Answer] = &[Answer {
    status: 200,
    about: "The job.",
    body: Body::One(&JOB),
}];

/// What a worker says, with the fields named as the bodies of this door name them.
fn ours(status: Status) -> Problem {
    named(status, |field| match field {
        "filter.category" => "filter_criteria.failure_category".to_owned(),
        "limit" => "max_messages".to_owned(),
        other => match other.strip_prefix("filter.") {
            Some(field) => format!("filter_criteria.{field}"),
            None => other.to_owned(),
        },
    })
}

/// What a worker says, with the fields named as the queries of this door name them.
fn ours_of_query(status: Status) -> Problem {
    named(status, |field| match field {
        "window" => "window_seconds".to_owned(),
        other => other.strip_prefix("filter.").unwrap_or(other).to_owned(),
    })
}

fn named(status: Status, name: impl Fn(&str) -> String) -> Problem {
    let mut fault = Fault::from(status);
    if fault.kind != FaultKind::Invalid || fault.violations.is_empty() {
        return fault.into();
    }
    let faults = std::mem::take(&mut fault.violations).into_iter();
    let faults = faults.map(|fault| Violation::new(name(&fault.field), fault.description));
    Fault::invalid_because(fault.reason, renamed(faults, "")).into()
}

fn missing(what: &str) -> Fault {
    Fault::bug(format!("a dead-letter worker answered no {what}"))
}

/// A filter, all but its category, which bodies and queries name differently.
fn read_filter(fields: &mut Fields, category: &str) -> wire::DeadLetterFilter {
    let statuses = fields.take_words("status").into_iter();
    let statuses = statuses.filter_map(parse_dead_letter_status);
    let filter = wire::DeadLetterFilter {
        category: fields.take_text(category),
        group: fields.take_text("group"),
        stream: fields.take_text("stream"),
        status: statuses.map(Into::into).collect(),
        fingerprint: fields.take_text("fingerprint"),
        message_type: fields.take_text("message_type"),
        workflow_id: fields.take_text("workflow_id"),
        error_type: fields.take_text("error_type"),
        from_time: fields.take_time("from_time").map(to_timestamp),
        to_time: fields.take_time("to_time").map(to_timestamp),
    };
    if let (Some(from), Some(to)) = (&filter.from_time, &filter.to_time)
        && (from.seconds, from.nanos) >= (to.seconds, to.nanos)
    {
        fields.fault("to_time", "must be after from_time");
    }
    filter
}

fn read_criteria(fields: &mut Fields) -> wire::DeadLetterFilter {
    let Some(mut criteria) = fields.take_object("filter_criteria") else {
        return wire::DeadLetterFilter::default();
    };
    let filter = read_filter(&mut criteria, "failure_category");
    fields.close(criteria);
    filter
}

async fn list(
    State(gateway): State<Arc<Gateway>>,
    mut asked: Asked,
) -> Result<Json<Value>, Problem> {
    let query = &mut asked.query;
    let request = wire::ListDeadLettersRequest {
        filter: Some(read_filter(query, "category")),
        limit: query.take_u32("limit").unwrap_or(0),
        cursor: query.take_text("cursor"),
        include_payload: query.take_flag("include_payload").unwrap_or(false),
    };
    let onward = asked.onward();
    asked.query.finish()?;
    let answer = gateway.list_dead_letters(&onward, request).await;
    let answer = answer.map_err(ours_of_query)?;
    let letters = answer.messages.into_iter().map(DeadLetterOut::from);
    let letters: Vec<DeadLetterOut> = letters.collect();
    let next_cursor = Some(answer.next_cursor).filter(|cursor| !cursor.is_empty());
    Ok(Json(
        json!({ "messages": letters, "next_cursor": next_cursor }),
    ))
}

async fn show(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
) -> Result<Json<DeadLetterOut>, Problem> {
    let request = wire::GetDeadLetterRequest {
        dlq_id: asked.name("dlq_id"),
    };
    let answer = gateway.get_dead_letter(&asked.onward(), request).await;
    let letter = answer.map_err(ours)?.message;
    Ok(Json(letter.ok_or_else(|| missing("dead letter"))?.into()))
}

async fn replay_by_guide(
    State(gateway): State<Arc<Gateway>>,
    mut asked: Asked,
) -> Result<Json<Value>, Problem> {
    let query = &mut asked.query;
    let request = wire::ReplayDeadLetterRequest {
        target_stream: query.take_text("target_stream"),
        target_group: query.take_text("target_group"),
        priority_boost: query.take_boost("priority_boost").unwrap_or(0),
        ..wire::ReplayDeadLetterRequest::default()
    };
    let dlq_id = asked.name("dlq_message_id");
    let onward = asked.onward();
    asked.query.finish()?;
    let request = wire::ReplayDeadLetterRequest { dlq_id, ..request };
    send_back(&gateway, onward, request).await
}

async fn replay(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
    MaybeJsonBody(body): MaybeJsonBody,
) -> Result<Json<Value>, Problem> {
    let mut fields = Fields::of(&body, &REPLAY, "");
    let request = wire::ReplayDeadLetterRequest {
        dlq_id: asked.name("dlq_id"),
        target_stream: fields.take_text("target_stream"),
        target_group: fields.take_text("target_group"),
        priority_boost: fields.take_boost("priority_boost").unwrap_or(0),
        payload: read_bytes(&mut fields, "payload"),
        force: fields.take_flag("force").unwrap_or(false),
        by: fields.take_text("by"),
        why: fields.take_text("why"),
    };
    fields.finish()?;
    send_back(&gateway, asked.onward(), request).await
}

async fn send_back(
    gateway: &Gateway,
    onward: crate::peers::Onward,
    request: wire::ReplayDeadLetterRequest,
) -> Result<Json<Value>, Problem> {
    let dlq_id = request.dlq_id.clone();
    let answer = gateway.replay_dead_letter(&onward, request).await;
    let answer = answer.map_err(ours)?;
    Ok(Json(json!({
        "status": "success",
        "dlq_message_id": dlq_id,
        "replayed": answer.replayed,
        "message_id": answer.message_id,
        "replay_number": answer.replay_number,
    })))
}

/// What the replays of many have in common.
fn read_batch(fields: &mut Fields) -> wire::ReplayDeadLettersRequest {
    wire::ReplayDeadLettersRequest {
        filter: Some(read_criteria(fields)),
        limit: fields.take_u32("max_messages").unwrap_or(BATCH_DEFAULT),
        rate: fields.take_u32("rate").unwrap_or(0),
        canary: fields.take_u32("canary").unwrap_or(0),
        target_stream: fields.take_text("target_stream"),
        target_group: fields.take_text("target_group"),
        priority_boost: fields.take_boost("priority_boost").unwrap_or(0),
        dry_run: fields.take_flag("dry_run").unwrap_or(false),
        job_id: fields.take_text("job_id"),
        wait: Some(to_duration(BATCH_WAIT_MS)),
        ..wire::ReplayDeadLettersRequest::default()
    }
}

async fn replay_batch(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let mut fields = Fields::of(&body, &BATCH_REPLAY, "");
    let request = read_batch(&mut fields);
    fields.finish()?;
    begin_job(&gateway, &asked, request).await
}

async fn replay_many(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let mut fields = Fields::of(&body, &JOB_REPLAY, "");
    let mut request = read_batch(&mut fields);
    let wait = fields.take_seconds("wait_seconds");
    request.wait = wait.or(request.wait);
    request.force = fields.take_flag("force").unwrap_or(false);
    request.by = fields.take_text("by");
    fields.finish()?;
    begin_job(&gateway, &asked, request).await
}

async fn begin_job(
    gateway: &Gateway,
    asked: &Asked,
    mut request: wire::ReplayDeadLettersRequest,
) -> Result<Response, Problem> {
    let is_dry = request.dry_run;
    if is_dry {
        // There is no job whose end could be waited for.
        request.wait = None;
    }
    let answer = gateway.replay_dead_letters(&asked.onward(), request).await;
    let shown = BatchOut::of(answer.map_err(ours)?, is_dry);
    let status = if shown.is_running() {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(shown)).into_response())
}

async fn set_status(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Json<DeadLetterOut>, Problem> {
    let mut fields = Fields::of(&body, &SET_STATUS, "");
    let status = fields
        .take_word("status")
        .and_then(parse_dead_letter_status);
    let request = wire::SetDeadLetterStatusRequest {
        dlq_id: asked.name("dlq_id"),
        status: status.map_or(0, Into::into),
        by: fields.take_text("by"),
        why: fields.take_text("why"),
    };
    fields.finish()?;
    let answer = gateway
        .set_dead_letter_status(&asked.onward(), request)
        .await;
    let letter = answer.map_err(ours)?.message;
    Ok(Json(letter.ok_or_else(|| missing("dead letter"))?.into()))
}

async fn jobs(
    State(gateway): State<Arc<Gateway>>,
    mut asked: Asked,
) -> Result<Json<Value>, Problem> {
    let request = wire::ListReplayJobsRequest {
        limit: asked.query.take_u32("limit").unwrap_or(0),
    };
    let onward = asked.onward();
    asked.query.finish()?;
    let answer = gateway.list_replay_jobs(&onward, request).await;
    let jobs = answer.map_err(ours_of_query)?.jobs.into_iter();
    let jobs: Vec<JobOut> = jobs.map(JobOut::from).collect();
    Ok(Json(json!({ "jobs": jobs })))
}

async fn job(State(gateway): State<Arc<Gateway>>, asked: Asked) -> Result<Json<JobOut>, Problem> {
    let request = wire::GetReplayJobRequest {
        job_id: asked.name("job_id"),
    };
    let answer = gateway.get_replay_job(&asked.onward(), request).await;
    let job = answer.map_err(ours)?.job;
    Ok(Json(job.ok_or_else(|| missing("job"))?.into()))
}

async fn cancel(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
) -> Result<Json<JobOut>, Problem> {
    let request = wire::CancelReplayJobRequest {
        job_id: asked.name("job_id"),
    };
    let answer = gateway.cancel_replay_job(&asked.onward(), request).await;
    let job = answer.map_err(ours)?.job;
    Ok(Json(job.ok_or_else(|| missing("job"))?.into()))
}

async fn purge(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
    JsonBody(body): JsonBody,
) -> Result<Json<Value>, Problem> {
    let mut fields = Fields::of(&body, &PURGE, "");
    let request = wire::PurgeDeadLettersRequest {
        filter: Some(read_criteria(&mut fields)),
        dry_run: fields.take_flag("dry_run").unwrap_or(false),
        confirm: fields.take_text("confirm"),
    };
    if !request.dry_run && request.confirm.is_empty() {
        let rule = "must be set: it is what the same with `dry_run` answers";
        fields.fault("confirm", rule);
    }
    fields.finish()?;
    let is_dry = request.dry_run;
    let answer = gateway.purge_dead_letters(&asked.onward(), request).await;
    let answer = answer.map_err(ours)?;
    let mut shown = json!({
        "status": "success", "dry_run": is_dry, "purged": answer.purged, "more": answer.more,
    });
    if !answer.confirm.is_empty() {
        shown["confirm"] = answer.confirm.into();
    }
    Ok(Json(shown))
}

async fn statistics(
    State(gateway): State<Arc<Gateway>>,
    asked: Asked,
) -> Result<Json<StatisticsOut>, Problem> {
    let request = wire::GetDeadLetterStatisticsRequest {};
    let onward = asked.onward();
    let answer = gateway.get_dead_letter_statistics(&onward, request).await;
    Ok(Json(answer.map_err(ours)?.into()))
}

/// The figures for the page of all figures: none where no worker answers in time.
pub(super) async fn figures(gateway: &Gateway, asked: &Asked) -> Option<StatisticsOut> {
    let onward = asked.onward().within(FIGURES_WITHIN);
    let request = wire::GetDeadLetterStatisticsRequest {};
    match gateway.get_dead_letter_statistics(&onward, request).await {
        Ok(answer) => Some(answer.into()),
        Err(status) => {
            let fault = Fault::from(status);
            if fault.reason != Reason::NoDlq {
                tracing::debug!(%fault, "dead_letters_not_counted");
            }
            None
        },
    }
}

async fn analyze(
    State(gateway): State<Arc<Gateway>>,
    mut asked: Asked,
) -> Result<Json<AnalysisOut>, Problem> {
    let request = wire::AnalyzeDeadLettersRequest {
        window: asked.query.take_seconds("window_seconds"),
        group: asked.query.take_text("group"),
    };
    let onward = asked.onward();
    asked.query.finish()?;
    let answer = gateway.analyze_dead_letters(&onward, request).await;
    Ok(Json(answer.map_err(ours_of_query)?.into()))
}

#[cfg(test)]
mod tests;
