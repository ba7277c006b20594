//! Dead letters, replay jobs and figures as JSON.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hive_protocol::{
    wire,
    words::{dead_letter_status, replay_job_state, replay_outcome},
};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::rest::{
    messages::MessageOut,
    render::{Bytes, is_zero, time},
};

/// A dead letter as this door shows it.
#[derive(Serialize)]
pub(super) struct DeadLetterOut {
    dlq_id: String,
    message_id: String,
    stream: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    group: String,
    category: String,
    rule: String,
    fingerprint: String,
    status: &'static str,
    deliveries: u64,
    failures: u32,
    attempts: Vec<AttemptOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_lettered_at: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    message_type: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    from_agent: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    workflow_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    run_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    task_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    traceparent: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    strategy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovery_at: Option<String>,
    replays: u32,
    automatic_replays: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    replay_message_id: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    replay_outcome: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    replay_of: String,
    payload_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<MessageOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    edited_payload: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    edited_payload_base64: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    history: Vec<ChangeOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    undecodable_base64: Option<String>,
}

impl From<wire::DeadLetter> for DeadLetterOut {
    fn from(letter: wire::DeadLetter) -> Self {
        let media_type = letter
            .message
            .as_ref()
            .map(|message| &*message.content_type);
        let media_type = media_type.unwrap_or_default();
        let edited = letter.edited_payload.as_ref();
        let edited = edited.map(|bytes| Bytes::of(bytes, media_type));
        let edited = edited.unwrap_or_default();
        let undecodable = &letter.undecodable;
        let undecodable_base64 = (!undecodable.is_empty()).then(|| STANDARD.encode(undecodable));
        Self {
            status: dead_letter_status(letter.status()),
            replay_outcome: replay_outcome(letter.replay_outcome()),
            dead_lettered_at: time(letter.dead_lettered_at.as_ref()),
            recovery_at: time(letter.recovery_at.as_ref()),
            edited_payload: edited.json,
            edited_payload_base64: edited.base64,
            undecodable_base64,
            dlq_id: letter.dlq_id,
            message_id: letter.message_id,
            stream: letter.stream,
            group: letter.group,
            category: letter.category,
            rule: letter.rule,
            fingerprint: letter.fingerprint,
            deliveries: letter.deliveries,
            failures: letter.failures,
            attempts: letter.attempts.into_iter().map(AttemptOut::from).collect(),
            message_type: letter.message_type,
            from_agent: letter.from_agent,
            workflow_id: letter.workflow_id,
            run_id: letter.run_id,
            task_id: letter.task_id,
            traceparent: letter.traceparent,
            strategy: letter.strategy,
            replays: letter.replays,
            automatic_replays: letter.automatic_replays,
            replay_message_id: letter.replay_message_id,
            replay_of: letter.replay_of,
            payload_bytes: letter.payload_bytes,
            message: letter.message.map(MessageOut::from),
            history: letter.history.into_iter().map(ChangeOut::from).collect(),
        }
    }
}

#[derive(Serialize)]
struct AttemptOut {
    #[serde(skip_serializing_if = "String::is_empty")]
    consumer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    category: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    error_type: String,
    reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    stack: String,
}

impl From<wire::FailedAttempt> for AttemptOut {
    fn from(attempt: wire::FailedAttempt) -> Self {
        Self {
            started_at: time(attempt.started_at.as_ref()),
            ended_at: time(attempt.ended_at.as_ref()),
            consumer: attempt.consumer,
            category: attempt.category,
            error_type: attempt.error_type,
            reason: attempt.reason,
            stack: attempt.stack,
        }
    }
}

#[derive(Serialize)]
struct ChangeOut {
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<String>,
    status: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    by: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
}

impl From<wire::DeadLetterChange> for ChangeOut {
    fn from(change: wire::DeadLetterChange) -> Self {
        Self {
            at: time(change.at.as_ref()),
            status: dead_letter_status(change.status()),
            by: change.by,
            why: change.why,
        }
    }
}

/// A filter, in the words of requests.
#[derive(Serialize, Default)]
struct FilterOut {
    #[serde(skip_serializing_if = "String::is_empty")]
    failure_category: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    status: Vec<&'static str>,
    #[serde(skip_serializing_if = "String::is_empty")]
    group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    stream: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    fingerprint: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    message_type: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    workflow_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    error_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_time: Option<String>,
}

impl From<wire::DeadLetterFilter> for FilterOut {
    fn from(filter: wire::DeadLetterFilter) -> Self {
        Self {
            status: filter.status().map(dead_letter_status).collect(),
            from_time: time(filter.from_time.as_ref()),
            to_time: time(filter.to_time.as_ref()),
            failure_category: filter.category,
            group: filter.group,
            stream: filter.stream,
            fingerprint: filter.fingerprint,
            message_type: filter.message_type,
            workflow_id: filter.workflow_id,
            error_type: filter.error_type,
        }
    }
}

/// A replay job as this door shows it.
#[derive(Serialize)]
pub(super) struct JobOut {
    job_id: String,
    state: &'static str,
    filter_criteria: FilterOut,
    #[serde(skip_serializing_if = "is_zero")]
    max_messages: u32,
    #[serde(skip_serializing_if = "is_zero")]
    rate: u32,
    #[serde(skip_serializing_if = "is_zero")]
    canary: u32,
    total: u64,
    attempted: u64,
    replayed: u64,
    failed: u64,
    errors: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    by: String,
}

impl From<wire::ReplayJob> for JobOut {
    fn from(job: wire::ReplayJob) -> Self {
        Self {
            state: replay_job_state(job.state()),
            filter_criteria: job.filter.map(FilterOut::from).unwrap_or_default(),
            created_at: time(job.created_at.as_ref()),
            ended_at: time(job.ended_at.as_ref()),
            job_id: job.job_id,
            max_messages: job.limit,
            rate: job.rate,
            canary: job.canary,
            total: job.total,
            attempted: job.attempted,
            replayed: job.replayed,
            failed: job.failed,
            errors: job.errors,
            error: job.error,
            by: job.by,
        }
    }
}

/// How far a batch is, in the words of the migration guide.
#[derive(Serialize)]
pub(super) struct BatchOut {
    status: &'static str,
    batch_replay_result: BatchResultOut,
    dry_run: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    job_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    would_replay: Option<u64>,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

#[derive(Serialize)]
struct BatchResultOut {
    total_attempted: u64,
    successful: u64,
    failed: u64,
    errors: Vec<String>,
}

impl BatchOut {
    pub(super) fn of(answer: wire::ReplayDeadLettersResponse, is_dry: bool) -> Self {
        use wire::ReplayJobState::{Canary, Cancelled, Done, Failed, Running, Unspecified};
        let job = answer.job.unwrap_or_default();
        let status = match job.state() {
            Done => "success",
            Unspecified if is_dry => "success",
            Unspecified | Running | Canary => "running",
            Cancelled => "cancelled",
            Failed => "failed",
        };
        Self {
            status,
            batch_replay_result: BatchResultOut {
                total_attempted: job.attempted,
                successful: job.replayed,
                failed: job.failed,
                errors: job.errors,
            },
            dry_run: is_dry,
            job_id: job.job_id,
            would_replay: is_dry.then_some(answer.would_replay),
            error: job.error,
        }
    }

    /// Whether the job goes on.
    pub(super) fn is_running(&self) -> bool {
        self.status == "running"
    }
}

/// Counts by name, in the order in which they came.
struct CountsOut(Vec<wire::NamedCount>);

impl Serialize for CountsOut {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|one| (&one.name, one.count)))
    }
}

/// Figures of dead letters as this door shows them.
#[derive(Serialize)]
pub(in crate::rest) struct StatisticsOut {
    total_dlq_messages: u64,
    messages_by_category: CountsOut,
    messages_by_status: CountsOut,
    messages_by_stream: CountsOut,
    messages_by_consumer_group: CountsOut,
    messages_by_age: CountsOut,
    top_failure_patterns: Vec<PatternCountOut>,
    top_failure_sources: Vec<SourceOut>,
    dlq_growth_rate: f64,
    recovery_success_rate: f64,
    average_time_in_dlq_hours: f64,
    recovery_recommendations: Vec<String>,
    breakers: Vec<BreakerOut>,
    records: u64,
    records_max: u64,
    is_full: bool,
}

impl From<wire::GetDeadLetterStatisticsResponse> for StatisticsOut {
    fn from(figures: wire::GetDeadLetterStatisticsResponse) -> Self {
        let mean_age = figures.mean_age.and_then(|age| age.try_into().ok());
        let mean_age: std::time::Duration = mean_age.unwrap_or_default();
        let sources = figures.top_sources.into_iter();
        let patterns = figures.top_patterns.into_iter();
        Self {
            total_dlq_messages: figures.total,
            messages_by_category: CountsOut(figures.by_category),
            messages_by_status: CountsOut(figures.by_status),
            messages_by_stream: CountsOut(figures.by_stream),
            messages_by_consumer_group: CountsOut(figures.by_group),
            messages_by_age: CountsOut(figures.by_age),
            top_failure_patterns: patterns.map(PatternCountOut::from).collect(),
            top_failure_sources: sources
                .map(|one| SourceOut {
                    source: one.name,
                    count: one.count,
                })
                .collect(),
            dlq_growth_rate: figures.growth_per_hour,
            recovery_success_rate: figures.recovery_success_rate,
            average_time_in_dlq_hours: mean_age.as_secs_f64() / 3_600.0,
            recovery_recommendations: figures.recommendations,
            breakers: figures.breakers.into_iter().map(BreakerOut::from).collect(),
            records: figures.records,
            records_max: figures.records_max,
            is_full: figures.is_full,
        }
    }
}

#[derive(Serialize)]
struct PatternCountOut {
    fingerprint: String,
    count: u64,
    category: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    group: String,
    error: String,
}

impl From<wire::FailurePattern> for PatternCountOut {
    fn from(pattern: wire::FailurePattern) -> Self {
        Self {
            fingerprint: pattern.fingerprint,
            count: pattern.count,
            category: pattern.category,
            group: pattern.group,
            error: pattern.error,
        }
    }
}

#[derive(Serialize)]
struct SourceOut {
    source: String,
    count: u64,
}

#[derive(Serialize)]
struct BreakerOut {
    group: String,
    state: String,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    opened_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probe_at: Option<String>,
}

impl From<wire::GroupBreaker> for BreakerOut {
    fn from(breaker: wire::GroupBreaker) -> Self {
        Self {
            opened_at: time(breaker.opened_at.as_ref()),
            probe_at: time(breaker.probe_at.as_ref()),
            group: breaker.group,
            state: breaker.state,
            reason: breaker.reason,
        }
    }
}

/// Patterns as this door shows them.
#[derive(Serialize)]
pub(super) struct AnalysisOut {
    patterns: Vec<PatternOut>,
    messages_analyzed: u64,
    recommendations: Vec<String>,
}

impl From<wire::AnalyzeDeadLettersResponse> for AnalysisOut {
    fn from(found: wire::AnalyzeDeadLettersResponse) -> Self {
        Self {
            patterns: found.patterns.into_iter().map(PatternOut::from).collect(),
            messages_analyzed: found.looked_at,
            recommendations: found.recommendations,
        }
    }
}

#[derive(Serialize)]
struct PatternOut {
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    group: String,
    subject: String,
    evidence: String,
    recommendation: String,
    share: f64,
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_at: Option<String>,
    dlq_ids: Vec<String>,
}

impl From<wire::DeadLetterPattern> for PatternOut {
    fn from(pattern: wire::DeadLetterPattern) -> Self {
        Self {
            first_at: time(pattern.first_at.as_ref()),
            last_at: time(pattern.last_at.as_ref()),
            kind: pattern.kind,
            group: pattern.group,
            subject: pattern.subject,
            evidence: pattern.evidence,
            recommendation: pattern.recommendation,
            share: pattern.share,
            count: pattern.count,
            dlq_ids: pattern.dlq_ids,
        }
    }
}
