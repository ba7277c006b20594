//! The REST door of a real gateway on a real Redis, by raw HTTP. Every answer of these tests is
//! also held against the served OpenAPI document.

use std::time::Duration;

use hive_testkit::{daemon::Daemon, redis::RedisServer, wait};
use serde_json::{Value, json};

use crate::http::{Answer, Client};

#[path = "rest/coordination.rs"]
mod coordination;
#[path = "rest/coordinator.rs"]
mod coordinator;
#[path = "rest/dead_letters.rs"]
mod dead_letters;
#[path = "rest/fake.rs"]
mod fake;
#[path = "rest/http.rs"]
mod http;
#[path = "rest/router.rs"]
mod router;
#[path = "rest/schema.rs"]
mod schema;
#[path = "rest/tracked.rs"]
mod tracked;
#[path = "rest/worker.rs"]
mod worker;
#[path = "rest/workflows.rs"]
mod workflows;

const GROUPS: &str = "/api/v1/consumer-groups";
const QA: &str = "/api/v1/consumer-groups/qa_engineers_consumers";
const STREAM: &str = "/api/v1/streams/agent_messages:qa";

/// A hive of one gateway; dropping it ends everything.
struct Hive {
    client: Client,
    redis: RedisServer,
    _gateway: Daemon,
}

impl Hive {
    async fn start() -> Self {
        Self::on(RedisServer::start().await.unwrap()).await
    }

    async fn on(redis: RedisServer) -> Self {
        let gateway = Daemon::gateway(&redis.url()).await.unwrap();
        let client = Client::connect(gateway.listen()).await;
        Self {
            client,
            redis,
            _gateway: gateway,
        }
    }

    /// A hive with the group that the migration guide creates.
    async fn with_group() -> Self {
        let hive = Self::start().await;
        let created = hive
            .client
            .post(&format!("{GROUPS}/"), &guide_group())
            .await;
        assert_eq!(created.status, 201, "{created:?}");
        hive
    }

    async fn publish(&self, message: &Value) -> String {
        let published = self.client.post(&format!("{QA}/messages"), message).await;
        assert_eq!(published.status, 200, "{published:?}");
        published.body["message_id"].as_str().unwrap().to_owned()
    }

    async fn fetch(&self, max_messages: u32) -> Vec<Value> {
        let body = json!({
            "consumer_id": "qa_agent_1", "max_messages": max_messages, "wait_seconds": 10,
        });
        let fetched = self
            .client
            .post(&format!("{QA}/messages/fetch"), &body)
            .await;
        assert_eq!(fetched.status, 200, "{fetched:?}");
        fetched.body["deliveries"].as_array().unwrap().clone()
    }

    async fn settle(&self, outcomes: &Value) -> Vec<String> {
        let body = json!({ "outcomes": outcomes });
        let settled = self
            .client
            .post(&format!("{QA}/messages/settle"), &body)
            .await;
        assert_eq!(settled.status, 200, "{settled:?}");
        let results = settled.body["results"].as_array().unwrap();
        results
            .iter()
            .map(|one| one["status"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn guide_group() -> Value {
    json!({
        "name": "qa_engineers_consumers",
        "stream_name": "agent_messages:qa",
        "agent_type": "qa_engineers",
        "max_consumers": 8,
        "auto_scale_enabled": true
    })
}

fn refused(answer: &Answer, status: u16, reason: &str) {
    assert_eq!(
        (answer.status, answer.reason()),
        (status, reason),
        "{answer:?}"
    );
}

#[tokio::test]
async fn the_calls_of_the_guide_for_groups_and_consumers_work_as_printed() {
    let hive = Hive::start().await;
    let client = &hive.client;
    for list in [GROUPS.to_owned(), format!("{GROUPS}/")] {
        let empty = client.get(&list).await;
        assert_eq!((empty.status, empty.body), (200, json!([])));
    }
    let created = client.post(&format!("{GROUPS}/"), &guide_group()).await;
    assert_eq!(created.status, 201);
    assert_eq!(created.body["status"], "success");
    assert_eq!(created.body["group_name"], "qa_engineers_consumers");

    let shown = client.get(QA).await;
    assert_eq!(shown.status, 200);
    assert_eq!(shown.body["max_consumers"], 8);
    assert_eq!(shown.body["routing_mode"], "load_balanced");
    assert_eq!(shown.body["lag"], 0);
    assert_eq!(shown.body["success_rate"], 1.0);
    assert_eq!(
        client
            .get(&format!("{GROUPS}/"))
            .await
            .body
            .as_array()
            .unwrap()
            .len(),
        1
    );

    let path = format!("{QA}/consumers?consumer_id=qa_agent_1");
    let added = client.bare("POST", &path).await;
    assert_eq!(
        (added.status, &added.body["status"]),
        (200, &json!("success"))
    );
    assert_eq!(added.body["consumer_id"], "qa_agent_1");
    let members = client.get(&format!("{QA}/consumers")).await;
    assert_eq!(members.body[0]["consumer_id"], "qa_agent_1");
    assert_eq!(members.body[0]["kind"], "pull");

    let removed = client
        .bare("DELETE", &format!("{QA}/consumers/qa_agent_1"))
        .await;
    assert_eq!(
        (removed.status, &removed.body["status"]),
        (200, &json!("success"))
    );
    let again = client
        .bare("DELETE", &format!("{QA}/consumers/qa_agent_1"))
        .await;
    refused(&again, 404, "CONSUMER_NOT_FOUND");
}

#[tokio::test]
async fn the_guides_monitoring_answers_although_names_of_groups_would_fit_its_paths() {
    let hive = Hive::with_group().await;
    let health = hive.client.get(&format!("{GROUPS}/health")).await;
    assert_eq!(
        (health.status, &health.body["status"]),
        (200, &json!("degraded"))
    );
    assert_eq!(
        health.body["components"]["coordinator"]["status"],
        "degraded"
    );
    let metrics = hive.client.get(&format!("{GROUPS}/metrics/")).await;
    assert_eq!(metrics.status, 200);
    assert_eq!(
        metrics.body["consumer_groups"]["qa_engineers_consumers"]["max_consumers"],
        8
    );
    assert_eq!(
        metrics.body["streams_metrics"]["agent_messages:qa"]["shards"],
        1
    );
    for reserved in [
        "coordinator",
        "dlq",
        "health",
        "metrics",
        "rebalance",
        "route",
    ] {
        let mut group = guide_group();
        group["name"] = json!(reserved);
        let answer = hive.client.post(GROUPS, &group).await;
        refused(&answer, 422, "INVALID_ARGUMENT");
        assert_eq!(answer.faulty_fields(), ["name"]);
    }
}

#[tokio::test]
async fn creating_again_succeeds_and_with_other_settings_conflicts() {
    let hive = Hive::with_group().await;
    let again = hive.client.post(GROUPS, &guide_group()).await;
    assert_eq!(
        (again.status, &again.body["status"]),
        (200, &json!("success"))
    );
    let mut other = guide_group();
    other["max_consumers"] = json!(9);
    let conflict = hive.client.post(GROUPS, &other).await;
    refused(&conflict, 409, "GROUP_EXISTS");
    assert!(
        conflict.body["detail"]
            .as_str()
            .unwrap()
            .contains("max_consumers"),
        "{conflict:?}"
    );
}

#[tokio::test]
async fn a_group_is_changed_paused_and_resumed() {
    let hive = Hive::with_group().await;
    let client = &hive.client;
    let change = json!({ "lease_seconds": 2.5, "routing_mode": "round_robin" });
    let changed = client.send_json("PATCH", QA, &change).await;
    assert_eq!(changed.status, 200);
    assert_eq!(changed.body["lease_seconds"], 2.5);
    assert_eq!(changed.body["max_consumers"], 8);
    let frozen = client
        .send_json("PATCH", QA, &json!({ "stream_name": "s" }))
        .await;
    refused(&frozen, 422, "INVALID_ARGUMENT");
    let crossed = client
        .send_json("PATCH", QA, &json!({ "min_consumers": 9 }))
        .await;
    refused(&crossed, 422, "INVALID_ARGUMENT");
    assert_eq!(crossed.faulty_fields(), ["min_consumers"]);
    assert_eq!(
        client.bare("POST", &format!("{QA}/pause")).await.body["paused"],
        true
    );
    assert_eq!(
        client.bare("POST", &format!("{QA}/resume/")).await.body["paused"],
        false
    );
}

#[tokio::test]
async fn a_group_with_messages_is_deleted_only_by_force() {
    let hive = Hive::with_group().await;
    hive.publish(&json!({ "payload": 1 })).await;
    refused(
        &hive.client.bare("DELETE", QA).await,
        409,
        "GROUP_NOT_EMPTY",
    );
    let odd = hive
        .client
        .bare("DELETE", &format!("{QA}?force=perhaps&now=1"))
        .await;
    assert_eq!(odd.status, 422);
    assert_eq!(odd.faulty_fields(), ["now", "force"]);
    let deleted = hive
        .client
        .bare("DELETE", &format!("{QA}?force=true"))
        .await;
    assert_eq!(
        (deleted.status, &deleted.body["cancelled"]),
        (200, &json!(1))
    );
    refused(&hive.client.get(QA).await, 404, "GROUP_NOT_FOUND");
}

#[tokio::test]
async fn an_agent_in_curl_fetches_and_settles() {
    let hive = Hive::with_group().await;
    let payload = json!({ "task": "run_tests", "numbers": [1, 2.5] });
    let message = json!({
        "message_id": "task_123", "from_agent": "orchestrator", "message_type": "task_request",
        "payload": payload, "priority": "high", "headers": {"k": "v"},
    });
    assert_eq!(hive.publish(&message).await, "task_123");
    assert_eq!(hive.client.get(QA).await.body["lag"], 1);
    let deliveries = hive.fetch(10).await;
    assert_eq!(deliveries.len(), 1);
    let delivered = &deliveries[0]["message"];
    assert_eq!(delivered["payload"], payload);
    assert_eq!(delivered["priority"], 7);
    assert_eq!(delivered["headers"]["k"], "v");
    assert_eq!(deliveries[0]["attempt"], 1);
    assert_eq!(hive.client.get(QA).await.body["pending_count"], 1);
    let lease = &deliveries[0]["lease"];
    let outcomes = json!([
        { "lease": lease, "action": "extend" },
        { "lease": "nonsense", "action": "ack" },
        { "lease": lease, "action": "ack", "delay_seconds": 1 },
    ]);
    assert_eq!(
        hive.settle(&outcomes).await,
        ["ok", "unknown_lease", "invalid"]
    );
    let ack = json!([{ "lease": lease, "action": "ack", "result": {"passed": true} }]);
    assert_eq!(hive.settle(&ack).await, ["ok"]);
    assert_eq!(hive.settle(&ack).await, ["gone"]);
    let group = hive.client.get(QA).await.body;
    assert_eq!(
        (&group["lag"], &group["pending_count"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(group["acked_total"], 1);
}

#[tokio::test]
async fn a_failed_message_comes_again_and_a_released_one_uncounted() {
    let hive = Hive::with_group().await;
    hive.publish(&json!({ "payload_base64": "AP8=", "content_type": "image/png" }))
        .await;
    let first = hive.fetch(1).await.remove(0);
    assert_eq!(first["message"]["payload_base64"], "AP8=");
    let nack = json!([{
        "lease": first["lease"], "action": "nack", "reason": "no disk", "category": "resource",
        "delay_seconds": 0,
    }]);
    assert_eq!(hive.settle(&nack).await, ["ok"]);
    let second = hive.fetch(1).await.remove(0);
    assert_eq!(second["attempt"], 2);
    let release = json!([{ "lease": second["lease"], "action": "release" }]);
    assert_eq!(hive.settle(&release).await, ["ok"]);
    let third = hive.fetch(1).await.remove(0);
    assert_eq!(third["attempt"], 2);
    let reject = json!([{ "lease": third["lease"], "action": "reject", "reason": "poison" }]);
    assert_eq!(hive.settle(&reject).await, ["ok"]);
    assert_eq!(hive.client.get(QA).await.body["dead_total"], 1);
}

#[tokio::test]
async fn an_ordering_key_behind_a_dead_letter_is_shown_and_let_go() {
    let hive = Hive::with_group().await;
    let block = json!({ "ordering_on_dead": "block" });
    assert_eq!(hive.client.send_json("PATCH", QA, &block).await.status, 200);
    // Any text is a key.
    let key = "order 17/\u{e9}";
    for payload in ["first", "second"] {
        let message = json!({ "payload": payload, "ordering_key": key });
        hive.publish(&message).await;
    }
    let first = hive.fetch(5).await.remove(0);
    let reject = json!([{ "lease": first["lease"], "action": "reject", "reason": "poison" }]);
    assert_eq!(hive.settle(&reject).await, ["ok"]);
    let path = format!("{QA}/blocked-keys");
    let shown = hive.client.get(&path).await;
    assert_eq!(shown.body["ordering_keys"], json!([key]), "{shown:?}");
    let unblock = format!("{path}/unblock");
    for unblocked in [true, false] {
        let body = json!({ "ordering_key": key });
        let answer = hive.client.post(&unblock, &body).await;
        assert_eq!(answer.body["unblocked"], unblocked, "{answer:?}");
    }
    let next = hive.fetch(5).await.remove(0);
    assert_eq!(next["message"]["payload"], "second");
    let refused = json!({ "ordering_key": "k".repeat(257) });
    let refused = hive.client.post(&unblock, &refused).await;
    assert_eq!(refused.status, 422, "{refused:?}");
    assert_eq!(refused.body["violations"][0]["field"], "ordering_key");
}

#[tokio::test]
async fn a_batch_is_judged_message_by_message() {
    let hive = Hive::with_group().await;
    let batch = json!({ "messages": [
        {"payload": 1, "idempotency_key": "k"},
        {"payload": 2, "priority": "soon"},
        {"payload": 3, "message_id": "three"},
        {"payload": 1, "idempotency_key": "k"},
        {"payload": 5, "colour": "red"},
    ] });
    let published = hive.client.post(&format!("{QA}/messages"), &batch).await;
    assert_eq!(published.status, 200);
    let results = published.body["results"].as_array().unwrap();
    assert_eq!(results[0]["duplicate"], false);
    assert_eq!(
        results[1]["error"]["violations"][0]["field"],
        "messages[1].priority"
    );
    assert_eq!(results[2]["message_id"], "three");
    assert_eq!(results[3]["duplicate"], true);
    assert_eq!(results[3]["message_id"], results[0]["message_id"]);
    assert_eq!(
        results[4]["error"]["violations"][0]["field"],
        "messages[4].colour"
    );
    assert_eq!(hive.client.get(QA).await.body["lag"], 2);
}

#[tokio::test]
async fn a_message_to_a_stream_reaches_every_group_of_it() {
    let hive = Hive::with_group().await;
    let mut other = guide_group();
    other["name"] = json!("other");
    assert_eq!(hive.client.post(GROUPS, &other).await.status, 201);
    let published = hive
        .client
        .post(&format!("{STREAM}/messages"), &json!({"payload": 1}))
        .await;
    assert_eq!(published.status, 200);
    for group in [QA.to_owned(), format!("{GROUPS}/other")] {
        assert_eq!(hive.client.get(&group).await.body["lag"], 1, "{group}");
    }
}

#[tokio::test]
async fn a_look_takes_nothing_and_goes_on_by_cursor() {
    let hive = Hive::with_group().await;
    for payload in 0..3 {
        hive.publish(&json!({ "payload": payload })).await;
    }
    hive.publish(&json!({ "payload": "late", "delay_seconds": 3_600 }))
        .await;
    let page = hive
        .client
        .get(&format!("{QA}/messages?state=waiting&limit=2"))
        .await;
    assert_eq!(page.status, 200);
    let mut seen = page.body["messages"].as_array().unwrap().len();
    assert_eq!(seen, 2);
    let mut cursor = page.body["next_cursor"].as_str().map(str::to_owned);
    while let Some(next) = cursor {
        let path = format!("{QA}/messages?state=waiting&limit=2&cursor={next}");
        let page = hive.client.get(&path).await;
        assert_eq!(page.status, 200, "{page:?}");
        seen += page.body["messages"].as_array().unwrap().len();
        cursor = page.body["next_cursor"].as_str().map(str::to_owned);
    }
    assert_eq!(seen, 3);
    let scheduled = hive
        .client
        .get(&format!("{QA}/messages?state=scheduled"))
        .await;
    assert_eq!(scheduled.body["messages"][0]["message"]["payload"], "late");
    assert_eq!(hive.fetch(10).await.len(), 3);
    let odd = hive
        .client
        .get(&format!("{QA}/messages?state=lost&limit=0"))
        .await;
    assert_eq!(odd.faulty_fields(), ["state", "limit"]);
}

#[tokio::test]
async fn the_trace_of_a_request_rides_in_the_message() {
    let hive = Hive::with_group().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [("content-type", "application/json"), ("traceparent", trace)];
    let path = format!("{QA}/messages");
    let published = hive
        .client
        .call("POST", &path, &headers, b"{\"payload\": 1}")
        .await;
    assert_eq!(published.status, 200);
    let delivery = hive.fetch(1).await.remove(0);
    assert_eq!(delivery["message"]["headers"]["traceparent"], trace);
}

#[tokio::test]
async fn streams_are_listed_shown_and_changed() {
    let hive = Hive::with_group().await;
    let client = &hive.client;
    let listed = client.get("/api/v1/streams/").await;
    assert_eq!(listed.body[0]["name"], "agent_messages:qa");
    assert_eq!(listed.body[0]["groups"], json!(["qa_engineers_consumers"]));
    let change = json!({ "max_backlog": 2, "retention": {"max_age_seconds": 60} });
    let changed = client.send_json("PATCH", STREAM, &change).await;
    assert_eq!(changed.status, 200);
    assert_eq!(changed.body["max_backlog"], 2);
    assert_eq!(changed.body["retention"]["max_age_seconds"], 60);
    assert_eq!(changed.body["retention"]["max_len"], 1_000_000);
    assert_eq!(changed.body["retention"]["max_bytes"], 268_435_456);
    assert_eq!(changed.body["max_backlog_bytes"], 1_073_741_824);
    assert_eq!(client.get(STREAM).await.body, changed.body);
    refused(
        &client.get("/api/v1/streams/none").await,
        404,
        "STREAM_NOT_FOUND",
    );
}

#[tokio::test]
async fn a_stream_is_created_buffers_and_goes_when_it_is_empty() {
    let hive = Hive::start().await;
    let client = &hive.client;
    let (streams, path) = ("/api/v1/streams", "/api/v1/streams/s");
    let body = json!({
        "name": "s", "buffer_without_groups": true, "max_backlog": 5,
        "retention": {"max_age_seconds": 60, "max_len": 10},
    });
    let created = client.post(streams, &body).await;
    assert_eq!(
        (created.status, &created.body["max_backlog"]),
        (201, &json!(5))
    );
    assert_eq!(client.post(streams, &body).await.status, 200);
    let other = client.post(streams, &json!({"name": "s"})).await;
    refused(&other, 409, "STREAM_EXISTS");
    let difference = "max_backlog is `5`, asked for `1000000`";
    let detail = other.body["detail"].as_str().unwrap();
    assert!(detail.contains(difference), "{detail}");
    let sent = client
        .post(&format!("{path}/messages"), &json!({"payload": 1}))
        .await;
    assert_eq!(sent.status, 200);
    let held = client.bare("DELETE", path).await;
    refused(&held, 409, "STREAM_NOT_EMPTY");
    let detail = held.body["detail"].as_str().unwrap();
    assert!(
        detail.contains("buffered messages at least `1`"),
        "{detail}"
    );
    let empty = client.post(streams, &json!({"name": "empty"})).await;
    assert_eq!(empty.status, 201);
    let deleted = client.bare("DELETE", "/api/v1/streams/empty").await;
    assert_eq!(
        (deleted.status, &deleted.body["stream"]),
        (200, &json!("empty"))
    );
    let gone = client.bare("DELETE", "/api/v1/streams/empty").await;
    refused(&gone, 404, "STREAM_NOT_FOUND");
}

#[tokio::test]
async fn a_group_may_bring_limits_of_its_stream_where_they_are_new_or_the_same() {
    let hive = Hive::start().await;
    let client = &hive.client;
    let group = |name: &str, max_backlog: u64| {
        let mut group = guide_group();
        group["name"] = json!(name);
        group["max_backlog"] = json!(max_backlog);
        group["retention"] = json!({"max_age_seconds": 3600});
        group
    };
    for (status, name) in [(201, "a"), (200, "a"), (201, "b")] {
        let created = client.post(GROUPS, &group(name, 7)).await;
        assert_eq!(created.status, status, "{created:?}");
    }
    let stream = client.get(STREAM).await.body;
    assert_eq!(stream["max_backlog"], 7);
    assert_eq!(stream["retention"]["max_age_seconds"], 3600.0);
    assert_eq!(stream["retention"]["max_len"], 1_000_000);
    let other = client.post(GROUPS, &group("c", 8)).await;
    refused(&other, 409, "STREAM_EXISTS");
    let detail = other.body["detail"].as_str().unwrap();
    assert!(
        detail.contains("max_backlog is `7`, asked for `8`"),
        "{detail}"
    );
    refused(
        &client.get(&format!("{GROUPS}/c")).await,
        404,
        "GROUP_NOT_FOUND",
    );
}

#[tokio::test]
async fn a_full_stream_answers_429_and_says_when_to_come_back() {
    let hive = Hive::with_group().await;
    hive.client
        .send_json("PATCH", STREAM, &json!({ "max_backlog": 1 }))
        .await;
    let full = wait::until(Duration::from_secs(10), "the stream is full", async || {
        let path = format!("{QA}/messages");
        let answer = hive.client.post(&path, &json!({ "payload": 1 })).await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    refused(&full, 429, "STREAM_FULL");
    assert!(full.headers.contains_key("retry-after"), "{full:?}");
}

#[tokio::test]
async fn a_full_group_takes_no_more_consumers() {
    let hive = Hive::with_group().await;
    let one = json!({ "max_consumers": 1 });
    assert_eq!(hive.client.send_json("PATCH", QA, &one).await.status, 200);
    let full = wait::until(Duration::from_secs(10), "the group is full", async || {
        for consumer in ["a", "b"] {
            let path = format!("{QA}/consumers?consumer_id={consumer}&capabilities=gpu,web");
            let answer = hive.client.bare("POST", &path).await;
            if answer.status != 200 {
                return Some(answer);
            }
        }
        None
    })
    .await;
    refused(&full, 429, "GROUP_FULL");
}

#[tokio::test]
async fn every_fault_of_a_request_is_named_at_once() {
    let hive = Hive::start().await;
    let group = json!({
        "name": "a b", "agent_type": 5, "max_consumers": 0, "lease_seconds": "30",
        "routing_mode": "fastest", "colour": "red",
    });
    let answer = hive.client.post(GROUPS, &group).await;
    refused(&answer, 422, "INVALID_ARGUMENT");
    let mut fields = answer.faulty_fields();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "agent_type",
            "colour",
            "lease_seconds",
            "max_consumers",
            "name",
            "routing_mode",
            "stream_name"
        ]
    );
    let odd = hive
        .client
        .bare("POST", &format!("{QA}/consumers?id=x"))
        .await;
    assert_eq!(odd.faulty_fields(), ["id", "consumer_id"]);
    let odd = hive.client.get(&format!("{GROUPS}/a%20b?limit=1")).await;
    assert_eq!(odd.faulty_fields(), ["group_name"]);
    let odd = hive.client.get(&format!("{GROUPS}/?limit=1")).await;
    assert_eq!(odd.faulty_fields(), ["limit"]);
    let headers = [("hive-namespace", "a b")];
    let odd = hive.client.call("GET", GROUPS, &headers, b"").await;
    assert_eq!(odd.faulty_fields(), ["hive-namespace"]);
}

#[tokio::test]
async fn bodies_that_are_no_json_are_refused_by_their_status() {
    let hive = Hive::with_group().await;
    let path = format!("{QA}/messages");
    let json = [("content-type", "application/json")];
    refused(
        &hive.client.call("POST", &path, &json, b"{").await,
        400,
        "MALFORMED_BODY",
    );
    refused(
        &hive.client.call("POST", &path, &json, b"").await,
        400,
        "MALFORMED_BODY",
    );
    refused(
        &hive.client.call("POST", &path, &json, b"[1]").await,
        422,
        "INVALID_ARGUMENT",
    );
    let form = [
        ("content-type", "application/x-www-form-urlencoded"),
        ("origin", "https://page.example"),
    ];
    let answer = hive
        .client
        .call("POST", &path, &form, b"{\"payload\":1}")
        .await;
    refused(&answer, 415, "UNSUPPORTED_MEDIA_TYPE");
    let payload = "x".repeat((1 << 20) + 1);
    let large = hive
        .client
        .post(&path, &json!({ "payload": payload }))
        .await;
    refused(&large, 413, "PAYLOAD_TOO_LARGE");
    let many = hive
        .client
        .post(&path, &json!({ "messages": vec![1; 1_001] }))
        .await;
    refused(&many, 413, "BATCH_TOO_LARGE");
    let body = vec![b' '; (16 << 20) + 1];
    refused(
        &hive.client.call("POST", &path, &json, &body).await,
        413,
        "BODY_TOO_LARGE",
    );
}

#[tokio::test]
async fn unknown_paths_methods_and_groups_are_told_apart() {
    let hive = Hive::start().await;
    let client = &hive.client;
    for path in ["/", "/api/v1", "/api/v2/streams", "/api/v1/nothing"] {
        refused(&client.get(path).await, 404, "NOT_FOUND");
    }
    let wrong = client.bare("PUT", QA).await;
    refused(&wrong, 405, "METHOD_NOT_ALLOWED");
    for method in ["GET", "PATCH", "DELETE"] {
        assert!(wrong.headers["allow"].contains(method), "{wrong:?}");
    }
    refused(&client.get(QA).await, 404, "GROUP_NOT_FOUND");
    let fetch = json!({ "consumer_id": "a" });
    let path = format!("{QA}/messages/fetch");
    refused(&client.post(&path, &fetch).await, 404, "GROUP_NOT_FOUND");
}

#[tokio::test]
async fn namespaces_do_not_see_each_other() {
    let hive = Hive::with_group().await;
    let headers = [("hive-namespace", "team-b")];
    let answer = hive.client.call("GET", GROUPS, &headers, b"").await;
    assert_eq!((answer.status, answer.body), (200, json!([])));
}

#[tokio::test]
async fn without_redis_every_call_says_that_repeating_is_safe() {
    let mut hive = Hive::with_group().await;
    hive.redis.kill9().unwrap();
    let away = hive.client.get(QA).await;
    refused(&away, 503, "REDIS_UNAVAILABLE");
    assert!(away.headers.contains_key("retry-after"), "{away:?}");
    let health = hive.client.get(&format!("{GROUPS}/health")).await;
    assert_eq!(
        (health.status, &health.body["status"]),
        (503, &json!("unhealthy"))
    );
}

#[tokio::test]
async fn every_documented_path_is_served_with_and_without_a_slash_at_its_end() {
    let hive = Hive::with_group().await;
    let document = hive.client.document();
    for (template, methods) in document["paths"].as_object().unwrap() {
        let path = template
            .replace("{group_name}", "none")
            .replace("{stream}", "none")
            .replace("{consumer_id}", "none");
        for method in methods.as_object().unwrap().keys() {
            for path in [path.clone(), format!("{path}/")] {
                let answer = hive.client.bare(&method.to_ascii_uppercase(), &path).await;
                let reason = answer.reason();
                assert!(!["NOT_FOUND", "METHOD_NOT_ALLOWED"].contains(&reason));
            }
        }
    }
}
