//! A dead-letter worker that answers from a script: it notes what it was asked, and refuses on
//! demand.

use std::sync::Arc;

use hive_protocol::{
    fault::Fault,
    wire::{
        self,
        dead_letter_service_server::{DeadLetterService, DeadLetterServiceServer},
    },
};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tonic::{Request, Response, Status, service::Routes};

use crate::fake::{self, Seen, answers, live};

#[derive(Default)]
struct Script {
    calls: fake::Script,
    replay: Mutex<Option<wire::ReplayDeadLetterRequest>>,
    batch: Mutex<Option<wire::ReplayDeadLettersRequest>>,
    state: Mutex<wire::ReplayJobState>,
}

/// A live worker; dropping it ends it as a crash does.
pub(crate) struct FakeWorker {
    script: Arc<Script>,
    _tasks: JoinSet<()>,
}

impl FakeWorker {
    /// A worker that says at this Redis that it lives.
    pub(crate) async fn start(redis_url: &str) -> Self {
        let script = Arc::new(Script::default());
        *script.state.lock() = wire::ReplayJobState::Done;
        let service = DeadLetterServiceServer::new(Service(script.clone()));
        let tasks = live("dlq", redis_url, Routes::new(service)).await;
        Self {
            script,
            _tasks: tasks,
        }
    }

    /// Refuses the next call.
    pub(crate) fn refuse(&self, fault: Fault) {
        self.script.calls.refuse(fault);
    }

    /// Everything that it was asked.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.script.calls.seen()
    }

    /// The last replay of one, which is forgotten.
    pub(crate) fn replay(&self) -> wire::ReplayDeadLetterRequest {
        self.script.replay.lock().take().unwrap()
    }

    /// The last replay of many, which is forgotten.
    pub(crate) fn batch(&self) -> wire::ReplayDeadLettersRequest {
        self.script.batch.lock().take().unwrap()
    }

    /// How the jobs stand from now on.
    pub(crate) fn jobs_are(&self, state: wire::ReplayJobState) {
        *self.script.state.lock() = state;
    }
}

struct Service(Arc<Script>);

const AT: Option<prost_types::Timestamp> = Some(prost_types::Timestamp {
    seconds: 1_700_000_000,
    nanos: 0,
});

fn letter(dlq_id: &str) -> wire::DeadLetter {
    wire::DeadLetter {
        dlq_id: dlq_id.to_owned(),
        message_id: "m-1".to_owned(),
        stream: "reviews".to_owned(),
        group: "reviewers".to_owned(),
        category: "timeout".to_owned(),
        rule: "given".to_owned(),
        fingerprint: "00000000000000ff".to_owned(),
        status: wire::DeadLetterStatus::Analyzed.into(),
        deliveries: 3,
        failures: 3,
        attempts: vec![wire::FailedAttempt {
            consumer: "agent-1".to_owned(),
            started_at: AT,
            ended_at: AT,
            error_type: "TimeoutError".to_owned(),
            reason: "no answer".to_owned(),
            ..wire::FailedAttempt::default()
        }],
        dead_lettered_at: AT,
        strategy: "delayed_retry".to_owned(),
        payload_bytes: 7,
        ..wire::DeadLetter::default()
    }
}

fn job(job_id: &str, state: wire::ReplayJobState) -> wire::ReplayJob {
    wire::ReplayJob {
        job_id: job_id.to_owned(),
        state: state.into(),
        filter: Some(wire::DeadLetterFilter {
            category: "timeout".to_owned(),
            ..wire::DeadLetterFilter::default()
        }),
        limit: 10,
        total: 3,
        attempted: 3,
        replayed: 2,
        failed: 1,
        errors: vec!["d-3: somebody else took it".to_owned()],
        created_at: AT,
        ..wire::ReplayJob::default()
    }
}

fn count(name: &str, count: u64) -> wire::NamedCount {
    let name = name.to_owned();
    wire::NamedCount { name, count }
}

#[tonic::async_trait]
impl DeadLetterService for Service {
    answers! {
        list_dead_letters ListDeadLettersRequest ListDeadLettersResponse |_me, _asked| {
            wire::ListDeadLettersResponse {
                messages: vec![letter("d-2"), letter("d-1")],
                next_cursor: "next".to_owned(),
            }
        };
        get_dead_letter GetDeadLetterRequest GetDeadLetterResponse |_me, asked| {
            let mut whole = letter(&asked.dlq_id);
            whole.message = Some(wire::Message {
                message_id: "m-1".to_owned(),
                payload: "{\"n\":1}".into(),
                ..wire::Message::default()
            });
            wire::GetDeadLetterResponse { message: Some(whole) }
        };
        replay_dead_letter ReplayDeadLetterRequest ReplayDeadLetterResponse |me, asked| {
            *me.0.replay.lock() = Some(asked);
            wire::ReplayDeadLetterResponse {
                replayed: true,
                message_id: "m-2".to_owned(),
                replay_number: 1,
            }
        };
        replay_dead_letters ReplayDeadLettersRequest ReplayDeadLettersResponse |me, asked| {
            *me.0.batch.lock() = Some(asked.clone());
            let is_running = *me.0.state.lock() == wire::ReplayJobState::Running;
            if is_running && let Some(wait) = asked.wait {
                tokio::time::sleep(wait.try_into().unwrap()).await;
            }
            let job = job(&asked.job_id, *me.0.state.lock());
            wire::ReplayDeadLettersResponse {
                job: (!asked.dry_run).then_some(job),
                would_replay: 3,
                sample: Vec::new(),
            }
        };
        get_replay_job GetReplayJobRequest GetReplayJobResponse |me, asked| {
            let state = *me.0.state.lock();
            wire::GetReplayJobResponse { job: Some(job(&asked.job_id, state)) }
        };
        list_replay_jobs ListReplayJobsRequest ListReplayJobsResponse |me, _asked| {
            let state = *me.0.state.lock();
            wire::ListReplayJobsResponse { jobs: vec![job("j-1", state)] }
        };
        cancel_replay_job CancelReplayJobRequest CancelReplayJobResponse |_me, asked| {
            let state = wire::ReplayJobState::Cancelled;
            wire::CancelReplayJobResponse { job: Some(job(&asked.job_id, state)) }
        };
        get_dead_letter_statistics
            GetDeadLetterStatisticsRequest GetDeadLetterStatisticsResponse |_me, _asked| {
            wire::GetDeadLetterStatisticsResponse {
                total: 2,
                by_category: vec![count("timeout", 2)],
                by_status: vec![count("analyzed", 2), count("replayed", 5)],
                by_stream: vec![count("reviews", 2)],
                by_group: vec![count("reviewers", 2)],
                by_age: vec![count("<1h", 2)],
                top_patterns: vec![wire::FailurePattern {
                    fingerprint: "00000000000000ff".to_owned(),
                    count: 2,
                    category: "timeout".to_owned(),
                    group: "reviewers".to_owned(),
                    error: "no answer".to_owned(),
                }],
                top_sources: vec![count("reviewers/agent-1", 2)],
                growth_per_hour: 1.5,
                recovery_success_rate: 0.5,
                mean_age: Some(prost_types::Duration { seconds: 1_800, nanos: 0 }),
                recommendations: vec!["look at agent-1".to_owned()],
                breakers: vec![wire::GroupBreaker {
                    group: "reviewers".to_owned(),
                    state: "open".to_owned(),
                    reason: "most fail".to_owned(),
                    opened_at: AT,
                    probe_at: AT,
                }],
                records: 7,
                records_max: 100_000,
                is_full: false,
            }
        };
        analyze_dead_letters AnalyzeDeadLettersRequest AnalyzeDeadLettersResponse |_me, _asked| {
            wire::AnalyzeDeadLettersResponse {
                patterns: vec![wire::DeadLetterPattern {
                    kind: "one_consumer".to_owned(),
                    group: "reviewers".to_owned(),
                    subject: "agent-1".to_owned(),
                    evidence: "2 of 2".to_owned(),
                    recommendation: "look at it".to_owned(),
                    share: 1.0,
                    count: 2,
                    first_at: AT,
                    last_at: AT,
                    dlq_ids: vec!["d-1".to_owned()],
                }],
                looked_at: 2,
                recommendations: vec!["look at agent-1".to_owned()],
            }
        };
        set_dead_letter_status
            SetDeadLetterStatusRequest SetDeadLetterStatusResponse |_me, asked| {
            let mut changed = letter(&asked.dlq_id);
            changed.status = asked.status;
            wire::SetDeadLetterStatusResponse { message: Some(changed) }
        };
        purge_dead_letters PurgeDeadLettersRequest PurgeDeadLettersResponse |_me, asked| {
            let confirm = if asked.dry_run { "token" } else { "" };
            wire::PurgeDeadLettersResponse {
                purged: 2,
                confirm: confirm.to_owned(),
                more: false,
            }
        };
    }
}
