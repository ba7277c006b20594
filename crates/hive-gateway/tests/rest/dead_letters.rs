//! Dead letters at both doors of a real gateway, over workers that answer from a script.

use std::time::Duration;

use hive_protocol::{
    fault::{Fault, Reason},
    wire::{self, dead_letter_service_client::DeadLetterServiceClient},
};
use hive_testkit::wait;
use serde_json::{Value, json};
use tonic::Request;

use super::{Hive, refused};
use crate::worker::FakeWorker;

const DLQ: &str = "/api/v1/dlq";
const GUIDE: &str = "/api/v1/consumer-groups/dlq";

impl Hive {
    async fn worker(&self) -> FakeWorker {
        FakeWorker::start(&self.redis.url()).await
    }

    async fn knows_a_worker(&self) {
        let client = &self.client;
        wait::until(Duration::from_secs(10), "a worker is known", || async {
            client.get(&format!("{DLQ}/messages/known")).await.status == 200
        })
        .await;
    }

    async fn with_worker() -> (Self, FakeWorker) {
        let hive = Self::start().await;
        let worker = hive.worker().await;
        hive.knows_a_worker().await;
        (hive, worker)
    }
}

#[tokio::test]
async fn without_a_worker_every_call_says_so_and_may_be_repeated() {
    let hive = Hive::start().await;
    let client = &hive.client;
    for path in [
        format!("{DLQ}/messages"),
        format!("{DLQ}/jobs/j"),
        format!("{GUIDE}/statistics"),
        format!("{GUIDE}/analyze/"),
    ] {
        let answer = client.get(&path).await;
        refused(&answer, 503, "NO_DLQ");
        assert_eq!(answer.headers["retry-after"], "1");
    }
    let replayed = client.bare("POST", &format!("{GUIDE}/replay/d-1")).await;
    refused(&replayed, 503, "NO_DLQ");
    let batch = format!("{GUIDE}/replay/batch");
    refused(&client.post(&batch, &json!({})).await, 503, "NO_DLQ");
    let health = client.get("/api/v1/consumer-groups/health").await;
    assert_eq!(health.body["components"]["dlq"]["status"], "degraded");
    let metrics = client.get("/api/v1/consumer-groups/metrics").await;
    assert_eq!(
        (metrics.status, metrics.body.get("dlq_metrics")),
        (200, None)
    );
}

#[tokio::test]
async fn the_calls_of_the_guide_work_as_printed() {
    let (hive, worker) = Hive::with_worker().await;
    let client = &hive.client;
    let path = format!("{GUIDE}/replay/d-1?priority_boost=true");
    let replayed = client.bare("POST", &path).await;
    let expected = json!({
        "status": "success", "dlq_message_id": "d-1", "replayed": true, "message_id": "m-2",
        "replay_number": 1,
    });
    assert_eq!((replayed.status, replayed.body), (200, expected));
    let asked = worker.replay();
    assert_eq!((&*asked.dlq_id, asked.priority_boost), ("d-1", 2));
    assert!(!asked.force && asked.payload.is_none());
    let path = format!("{GUIDE}/replay/d-1/?target_group=g&target_stream=s&priority_boost=9");
    client.bare("POST", &path).await;
    let asked = worker.replay();
    assert_eq!((&*asked.target_group, &*asked.target_stream), ("g", "s"));
    assert_eq!(asked.priority_boost, 9);
    let path = format!("{GUIDE}/replay/d-1?priority_boost=10&stream=s");
    let faults = client.bare("POST", &path).await;
    refused(&faults, 422, "INVALID_ARGUMENT");
    assert_eq!(faults.faulty_fields(), ["stream", "priority_boost"]);

    let body = json!({
        "filter_criteria": {"failure_category": "timeout"}, "max_messages": 10,
        "priority_boost": true,
    });
    for path in [
        format!("{GUIDE}/replay/batch"),
        format!("{GUIDE}/replay/batch/"),
    ] {
        let batch = client.post(&path, &body).await;
        let asked = worker.batch();
        assert!(asked.job_id.parse::<uuid::Uuid>().is_ok(), "{asked:?}");
        let expected = json!({
            "status": "success",
            "batch_replay_result": {
                "total_attempted": 3, "successful": 2, "failed": 1,
                "errors": ["d-3: somebody else took it"],
            },
            "dry_run": false,
            "job_id": asked.job_id,
        });
        assert_eq!((batch.status, batch.body), (200, expected));
        assert_eq!((asked.limit, asked.priority_boost), (10, 2));
        assert_eq!(asked.filter.unwrap().category, "timeout");
        assert_eq!(asked.wait.unwrap().seconds, 25);
    }

    let expected = json!({
        "total_dlq_messages": 2,
        "messages_by_category": {"timeout": 2},
        "messages_by_status": {"analyzed": 2, "replayed": 5},
        "messages_by_stream": {"reviews": 2},
        "messages_by_consumer_group": {"reviewers": 2},
        "messages_by_age": {"<1h": 2},
        "top_failure_patterns": [{
            "fingerprint": "00000000000000ff", "count": 2, "category": "timeout",
            "group": "reviewers", "error": "no answer",
        }],
        "top_failure_sources": [{"source": "reviewers/agent-1", "count": 2}],
        "dlq_growth_rate": 1.5,
        "recovery_success_rate": 0.5,
        "average_time_in_dlq_hours": 0.5,
        "recovery_recommendations": ["look at agent-1"],
        "breakers": [{
            "group": "reviewers", "state": "open", "reason": "most fail",
            "opened_at": "2023-11-14T22:13:20Z", "probe_at": "2023-11-14T22:13:20Z",
        }],
        "records": 7,
        "records_max": 100_000,
        "is_full": false,
    });
    for path in [format!("{GUIDE}/statistics/"), format!("{DLQ}/statistics")] {
        let figures = client.get(&path).await;
        assert_eq!((figures.status, &figures.body), (200, &expected));
    }
    let metrics = client.get("/api/v1/consumer-groups/metrics").await;
    assert_eq!(metrics.body["dlq_metrics"], expected);
    for path in [format!("{GUIDE}/analyze"), format!("{DLQ}/analyze/")] {
        let path = format!("{path}?window_seconds=3600&group=reviewers");
        let found = client.get(&path).await;
        assert_eq!(found.body["messages_analyzed"], 2);
        assert_eq!(found.body["patterns"][0]["subject"], "agent-1");
        let last = worker.seen().pop().unwrap().request;
        assert!(
            last.contains("seconds: 3600") && last.contains("reviewers"),
            "{last}"
        );
    }
}

#[tokio::test]
async fn dead_letters_are_listed_shown_and_sent_back() {
    let (hive, worker) = Hive::with_worker().await;
    let client = &hive.client;
    let query = "category=timeout&group=g&stream=s&status=analyzed,replayable&fingerprint=ff\
                 &workflow_id=w&message_type=t&error_type=E&from_time=2026-01-01T00:00:00Z\
                 &to_time=2026-01-02T00:00:00Z&limit=2&cursor=c&include_payload=true";
    let page = client.get(&format!("{DLQ}/messages?{query}")).await;
    assert_eq!(page.body["next_cursor"], "next");
    assert_eq!(page.body["messages"][0]["dlq_id"], "d-2");
    let attempt = &page.body["messages"][0]["attempts"][0];
    assert_eq!(attempt["error_type"], "TimeoutError");
    let last = worker.seen().pop().unwrap().request;
    for part in [
        "category: \"timeout\"",
        "status: [Analyzed, Replayable]",
        "cursor: \"c\"",
        "include_payload: true",
        "limit: 2",
    ] {
        assert!(last.contains(part), "{part}: {last}");
    }
    let wrong = "failure_category=x&status=lost&limit=0&from=1";
    let wrong = client.get(&format!("{DLQ}/messages?{wrong}")).await;
    let fields = ["failure_category", "from", "status", "limit"];
    assert_eq!(wrong.faulty_fields(), fields);

    let shown = client.get(&format!("{DLQ}/messages/d-1")).await;
    assert_eq!(shown.body["message"]["payload"], json!({ "n": 1 }));

    let replay = format!("{DLQ}/messages/d-1/replay");
    assert_eq!(client.bare("POST", &replay).await.status, 200);
    assert_eq!(worker.replay().payload, None);
    let body = json!({
        "payload": {"n": 2}, "target_group": "g", "priority_boost": 1, "force": true,
        "by": "me", "why": "mended",
    });
    let replayed = client.post(&replay, &body).await;
    assert_eq!(replayed.body["message_id"], "m-2");
    let asked = worker.replay();
    assert_eq!(asked.payload.unwrap(), "{\"n\":2}");
    assert!(asked.force && asked.by == "me" && asked.why == "mended");
    let both = json!({ "payload": 1, "payload_base64": "eA==", "boost": 1 });
    let both = client.post(&replay, &both).await;
    assert_eq!(both.faulty_fields(), ["boost", "payload_base64"]);

    let status = format!("{DLQ}/messages/d-1/status");
    let body = json!({ "status": "archived", "by": "me", "why": "done" });
    for method in ["PATCH", "POST"] {
        let changed = client.send_json(method, &status, &body).await;
        assert_eq!(changed.body["status"], "archived");
    }
    let wrong = json!({ "status": "replayed" });
    let wrong = client.send_json("PATCH", &status, &wrong).await;
    assert_eq!(wrong.faulty_fields(), ["status"]);
}

#[tokio::test]
async fn jobs_are_begun_followed_and_ended() {
    let (hive, worker) = Hive::with_worker().await;
    let client = &hive.client;
    worker.jobs_are(wire::ReplayJobState::Running);
    let replay = format!("{DLQ}/replay");
    let body = json!({
        "filter_criteria": {"group": "g"}, "max_messages": 5_000, "rate": 5, "canary": 2,
        "job_id": "j-1", "wait_seconds": 0, "by": "me", "force": true,
    });
    let begun = client.post(&replay, &body).await;
    assert_eq!(
        (begun.status, &begun.body["status"]),
        (202, &json!("running"))
    );
    assert_eq!(begun.body["job_id"], "j-1");
    let asked = worker.batch();
    assert_eq!((asked.limit, asked.rate, asked.canary), (5_000, 5, 2));
    assert_eq!((asked.wait.unwrap().seconds, asked.force), (0, true));
    let counted = client.post(&replay, &json!({ "dry_run": true })).await;
    assert_eq!(
        (counted.status, &counted.body["would_replay"]),
        (200, &json!(3))
    );
    assert_eq!(counted.body.get("job_id"), None);
    assert_eq!(worker.batch().job_id, "");

    let jobs = client.get(&format!("{DLQ}/jobs?limit=5")).await;
    assert_eq!(jobs.body["jobs"][0]["state"], "running");
    let job = client.get(&format!("{DLQ}/jobs/j-1")).await;
    assert_eq!(
        job.body["filter_criteria"],
        json!({ "failure_category": "timeout" })
    );
    let ended = client.bare("DELETE", &format!("{DLQ}/jobs/j-1")).await;
    assert_eq!(ended.body["state"], "cancelled");

    let purge = format!("{DLQ}/purge");
    let filter = json!({ "status": "archived" });
    let body = json!({ "filter_criteria": filter, "dry_run": true });
    let counted = client.post(&purge, &body).await;
    let expected = json!({
        "status": "success", "dry_run": true, "purged": 2, "more": false, "confirm": "token",
    });
    assert_eq!(counted.body, expected);
    let body = json!({ "filter_criteria": filter, "confirm": "token" });
    let purged = client.post(&purge, &body).await;
    assert_eq!((purged.status, &purged.body["purged"]), (200, &json!(2)));
    let rash = client
        .post(&purge, &json!({ "filter_criteria": filter }))
        .await;
    assert_eq!(rash.faulty_fields(), ["confirm"]);
}

#[tokio::test]
async fn a_gateway_that_goes_away_does_not_wait_for_a_job() {
    let (hive, worker) = Hive::with_worker().await;
    let Hive {
        client,
        redis: _redis,
        _gateway: mut gateway,
    } = hive;
    worker.jobs_are(wire::ReplayJobState::Running);
    let path = format!("{DLQ}/replay");
    let batch = json!({ "job_id": "j-1" });
    let begun = client.post(&path, &batch);
    let stop = async {
        let is_asked = || async {
            let seen = worker.seen().into_iter();
            seen.last()
                .is_some_and(|one| one.call == "replay_dead_letters")
        };
        wait::until(Duration::from_secs(10), "the job is begun", is_asked).await;
        gateway.sigterm().unwrap();
    };
    let (begun, ()) = tokio::join!(begun, stop);
    assert_eq!((begun.status, &begun.body["job_id"]), (202, &json!("j-1")));
    assert_eq!(worker.batch().wait, None);
}

#[tokio::test]
async fn refusals_of_a_worker_are_problems_in_the_words_of_this_door() {
    let (hive, worker) = Hive::with_worker().await;
    let client = &hive.client;
    let mut faults = hive_domain::violation::Violations::new();
    faults.push("filter.category", "is none");
    faults.push("limit", "is too many");
    worker.refuse(Fault::invalid(faults));
    let answer = client.post(&format!("{DLQ}/replay"), &json!({})).await;
    refused(&answer, 422, "INVALID_ARGUMENT");
    let fields = ["filter_criteria.failure_category", "max_messages"];
    assert_eq!(answer.faulty_fields(), fields);
    worker.refuse(Fault::new(
        Reason::MessageNotFound,
        "there is no dead letter `d`",
    ));
    let answer = client.get(&format!("{DLQ}/messages/d")).await;
    refused(&answer, 404, "MESSAGE_NOT_FOUND");
    worker.refuse(Fault::new(Reason::FailedPrecondition, "it is archived"));
    let answer = client.bare("POST", &format!("{GUIDE}/replay/d")).await;
    refused(&answer, 409, "FAILED_PRECONDITION");
}

#[tokio::test]
async fn what_may_be_repeated_is_and_a_forced_replay_is_not() {
    let (hive, worker) = Hive::with_worker().await;
    let client = &hive.client;
    let lost = || worker.refuse(Fault::new(Reason::OutcomeUnknown, "the connection broke"));
    let replay = format!("{DLQ}/messages/d-1/replay");
    lost();
    assert_eq!(client.bare("POST", &replay).await.status, 200);
    lost();
    let answer = client.post(&replay, &json!({ "force": true })).await;
    refused(&answer, 504, "OUTCOME_UNKNOWN");
    let forced = worker.seen().into_iter();
    let forced = forced.filter(|one| one.request.contains("force: true"));
    assert_eq!(forced.count(), 1);
    lost();
    let answer = client.post(&format!("{DLQ}/replay"), &json!({})).await;
    assert_eq!(answer.status, 200);
    let jobs: Vec<String> = worker
        .seen()
        .into_iter()
        .filter(|one| one.call == "replay_dead_letters")
        .map(|one| one.request)
        .collect();
    // Both name the same job.
    assert_eq!(jobs.len(), 2);
    assert_eq!(jobs[0], jobs[1]);
}

#[tokio::test]
async fn a_call_takes_its_namespace_its_trace_and_its_deadline_along() {
    let (hive, worker) = Hive::with_worker().await;
    let url = format!("http://{}", hive._gateway.listen());
    let mut client = DeadLetterServiceClient::connect(url).await.unwrap();
    let mut request = Request::new(wire::GetDeadLetterRequest {
        dlq_id: "d-9".to_owned(),
    });
    request.set_timeout(Duration::from_secs(5));
    let metadata = request.metadata_mut();
    metadata.insert("hive-namespace", "team-a".parse().unwrap());
    metadata.insert("traceparent", "00-a-b-01".parse().unwrap());
    let answer = client.get_dead_letter(request).await.unwrap().into_inner();
    assert_eq!(answer.message.unwrap().dlq_id, "d-9");
    let last = worker.seen().pop().unwrap();
    assert_eq!((last.call, &*last.namespace), ("get_dead_letter", "team-a"));
    assert_eq!((&*last.trace, last.has_deadline), ("00-a-b-01", true));
}

#[tokio::test]
async fn another_worker_answers_where_one_goes_away() {
    let hive = Hive::start().await;
    let workers = [hive.worker().await, hive.worker().await];
    hive.knows_a_worker().await;
    for number in 0..20 {
        hive.client.get(&format!("{DLQ}/messages/d-{number}")).await;
    }
    assert!(workers.iter().all(|worker| worker.seen().len() > 3));
    for worker in &workers {
        worker.refuse(Fault::new(Reason::Draining, "going away"));
    }
    // Each refuses once; the second round finds one that serves.
    let shown = hive.client.get(&format!("{DLQ}/messages/d-1")).await;
    assert_eq!(
        (shown.status, &shown.body["dlq_id"]),
        (200, &Value::from("d-1"))
    );
    let [gone, _stays] = workers;
    drop(gone);
    for number in 0..10 {
        let shown = hive.client.get(&format!("{DLQ}/messages/d-{number}")).await;
        assert_eq!(shown.status, 200);
    }
}
