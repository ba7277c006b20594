//! Workflows at both doors of a real gateway, over routers that answer from a script.

use std::time::Duration;

use hive_protocol::{
    fault::{Fault, Reason},
    wire::{self, workflow_service_client::WorkflowServiceClient},
};
use hive_testkit::wait;
use serde_json::{Value, json};
use tonic::{Request, transport::Channel};

use super::{Hive, refused};
use crate::router::FakeRouter;

const W: &str = "/api/v1/workflows";

impl Hive {
    async fn router(&self) -> FakeRouter {
        FakeRouter::start(&self.redis.url()).await
    }

    /// Waits until the gateway knows a router.
    async fn knows_a_router(&self) {
        let client = &self.client;
        wait::until(Duration::from_secs(10), "a router is known", || async {
            client.get(&format!("{W}/known")).await.status == 200
        })
        .await;
    }

    async fn with_router() -> (Self, FakeRouter) {
        let hive = Self::with_group().await;
        let router = hive.router().await;
        hive.knows_a_router().await;
        (hive, router)
    }

    async fn grpc(&self) -> WorkflowServiceClient<Channel> {
        let url = format!("http://{}", self._gateway.listen());
        WorkflowServiceClient::connect(url).await.unwrap()
    }
}

fn guide_tasks() -> Value {
    json!([
        {"id": "architecture_task", "type": "architecture", "dependencies": [], "priority": 8},
        {"id": "backend_task", "type": "backend", "dependencies": ["architecture_task"],
         "priority": 7},
    ])
}

#[tokio::test]
async fn without_a_router_every_call_says_so_and_may_be_repeated() {
    let hive = Hive::start().await;
    let answer = hive.client.get(&format!("{W}/w")).await;
    refused(&answer, 503, "NO_ROUTER");
    assert_eq!(answer.headers["retry-after"], "1");
    let answer = hive.client.bare("POST", &format!("{W}/w/pause")).await;
    refused(&answer, 503, "NO_ROUTER");
    let answer = hive.client.get(&format!("{W}/w/events")).await;
    refused(&answer, 503, "NO_ROUTER");
}

#[tokio::test]
async fn a_call_takes_its_namespace_its_trace_and_its_deadline_along() {
    let (hive, router) = Hive::with_router().await;
    let mut request = Request::new(wire::GetWorkflowRequest {
        workflow_id: "w".to_owned(),
        ..wire::GetWorkflowRequest::default()
    });
    request.set_timeout(Duration::from_secs(5));
    let metadata = request.metadata_mut();
    metadata.insert("hive-namespace", "team-a".parse().unwrap());
    metadata.insert("traceparent", "00-a-b-01".parse().unwrap());
    let answer = hive.grpc().await.get_workflow(request).await.unwrap();
    assert_eq!(answer.into_inner().workflow.unwrap().run_id, "run-1");
    let last = router.seen().pop().unwrap();
    assert_eq!((last.call, &*last.namespace), ("get_workflow", "team-a"));
    assert_eq!((&*last.trace, last.has_deadline), ("00-a-b-01", true));
}

#[tokio::test]
async fn calls_about_a_workflow_go_to_one_router_and_to_another_while_it_refuses() {
    let hive = Hive::start().await;
    let routers = [hive.router().await, hive.router().await];
    // Both beat by now, so whoever knows one knows the other.
    hive.knows_a_router().await;
    for _ in 0..5 {
        hive.client.get(&format!("{W}/same")).await;
    }
    let counts = routers.each_ref().map(|router| {
        let seen = router.seen();
        seen.iter()
            .filter(|one| one.request.contains("same"))
            .count()
    });
    assert!(counts == [0, 5] || counts == [5, 0], "{counts:?}");
    for number in 0..20 {
        hive.client.get(&format!("{W}/w{number}")).await;
    }
    assert!(routers.iter().all(|router| router.seen().len() > 3));

    let [owner, other] = if counts[0] == 5 {
        routers
    } else {
        let [first, second] = routers;
        [second, first]
    };
    owner.refuse(Fault::new(Reason::Draining, "going away"));
    let answer = hive.client.get(&format!("{W}/same")).await;
    assert_eq!(answer.status, 200);
    let is_there = |router: &FakeRouter| {
        let last = router.seen().pop().unwrap();
        last.request.contains("same")
    };
    assert!(is_there(&owner) && is_there(&other));
    // A refusal for good is not carried elsewhere.
    let before = other.seen().len();
    owner.refuse(Fault::no_workflow("same"));
    let answer = hive.client.get(&format!("{W}/same")).await;
    refused(&answer, 404, "WORKFLOW_NOT_FOUND");
    assert_eq!(other.seen().len(), before);
    // A router that is gone is passed over, also before its beats are missed.
    drop(owner);
    let answer = hive.client.get(&format!("{W}/same")).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_workflow_is_submitted_and_its_faults_come_whole() {
    let (hive, router) = Hive::with_router().await;
    let client = &hive.client;
    let body = json!({
        "workflow_id": "w",
        "tasks": [{"id": "a", "type": "backend", "payload": {"n": 1}, "priority": 9}],
    });
    let answer = client.post(W, &body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.body["workflow_routing"]["tasks_routed"], 1);
    assert_eq!(answer.body["workflow_routing"]["tasks_waiting"], 3);
    let spec = router.submitted().unwrap();
    assert_eq!(spec.tasks[0].priority, Some(9));
    assert_eq!(spec.tasks[0].completion, 0);

    let mut faults = hive_domain::violation::Violations::new();
    for number in 0..200 {
        faults.push(format!("tasks[{number}].timeout"), "is wrong".repeat(20));
    }
    router.refuse(Fault::invalid(faults));
    let wrong = json!({ "workflow_id": "wrong", "tasks": [{"id": "a", "type": "b"}] });
    let answer = client.post(W, &wrong).await;
    refused(&answer, 422, "INVALID_ARGUMENT");
    let fields = answer.faulty_fields();
    assert_eq!(fields.len(), 200);
    assert_eq!(fields[199], "tasks[199].timeout_seconds");

    let answer = client.post(&format!("{W}/validate"), &wrong).await;
    assert_eq!((answer.status, &answer.body["valid"]), (200, &json!(false)));
    let answer = client.post(&format!("{W}/validate"), &body).await;
    assert_eq!(answer.body["placements"][0]["group"], "g");
}

#[tokio::test]
async fn every_call_about_a_run_is_answered_as_documented() {
    let (hive, router) = Hive::with_router().await;
    let client = &hive.client;
    let run = client.get(&format!("{W}/w?run_id=r&results=true")).await;
    assert_eq!(run.body["tasks"][0]["result"], json!({ "ok": true }));
    let runs = client
        .get(&format!("{W}?state=running&labels=team%3Da,kind=b&limit=5"))
        .await;
    assert_eq!(runs.body["next_cursor"], "next");
    let last = router.seen().pop().unwrap();
    assert!(last.request.contains("\"kind\": \"b\""), "{last:?}");
    let history = client.get(&format!("{W}/w/history?limit=1")).await;
    assert_eq!(history.body["more"], true);
    for action in ["pause?reason=later", "resume", "cancel", "close"] {
        let done = client.bare("POST", &format!("{W}/w/{action}")).await;
        assert_eq!(done.status, 200, "{done:?}");
    }
    assert_eq!(client.bare("DELETE", &format!("{W}/w")).await.status, 200);
    let tasks = json!({ "tasks": [{"id": "c", "type": "backend"}] });
    let added = client.post(&format!("{W}/w/tasks"), &tasks).await;
    assert_eq!(added.body["already"], false);

    let a = format!("{W}/w/tasks/a");
    let completed = client
        .post(&format!("{a}/complete"), &json!({ "result": {"x": 1} }))
        .await;
    assert_eq!(completed.body["triggered_tasks"], json!(["b"]));
    let failed = client
        .post(&format!("{a}/fail"), &json!({ "reason": "r" }))
        .await;
    assert_eq!(failed.body["already"], true);
    let input = client
        .post(&format!("{a}/input"), &json!({ "input": "yes" }))
        .await;
    assert_eq!(input.status, 200);
    refused(
        &client.post(&format!("{a}/input"), &json!({})).await,
        422,
        "INVALID_ARGUMENT",
    );
    assert_eq!(client.bare("POST", &format!("{a}/retry")).await.status, 200);
    let again = client.bare("POST", &format!("{a}/rerun")).await;
    assert_eq!(again.body["run_id"], "run-2");
    let why = client.get(&format!("{a}/explain")).await;
    assert_eq!(why.body["waits_for"], "agent");
    let result = client.get(&format!("{a}/result")).await;
    assert_eq!(result.body["result"], json!({ "ok": true }));
    let result = client.get(&format!("{W}/w/tasks/b/result")).await;
    assert_eq!(result.body["result_base64"], "bm8ganNvbg==");
}

#[tokio::test]
async fn a_call_that_may_not_be_done_twice_is_not_sent_twice() {
    let (hive, router) = Hive::with_router().await;
    router.refuse(Fault::new(Reason::OutcomeUnknown, "the connection broke"));
    let answer = hive
        .client
        .bare("POST", &format!("{W}/w/tasks/a/rerun"))
        .await;
    refused(&answer, 504, "OUTCOME_UNKNOWN");
    let reruns = router.seen();
    let reruns = reruns.iter().filter(|one| one.call == "rerun_workflow");
    assert_eq!(reruns.count(), 1);
    router.refuse(Fault::new(Reason::OutcomeUnknown, "the connection broke"));
    let answer = hive.client.bare("POST", &format!("{W}/w/pause")).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn events_come_with_their_places_and_go_on_where_a_reader_was() {
    let (hive, router) = Hive::with_router().await;
    let client = &hive.client;
    let text = client.text(&format!("{W}/w/events"), &[]).await;
    let blocks: Vec<&str> = text.trim().split("\n\n").collect();
    assert_eq!(blocks.len(), 2, "{text}");
    assert!(blocks[0].contains("event: snapshot") && blocks[0].contains("id: 5-0"));
    assert!(blocks[0].contains("\"workflow_id\":\"w\""));
    assert!(blocks[1].contains("event: event") && blocks[1].contains("id: 6-0"));
    let after = [("last-event-id", "5-0")];
    let text = client.text(&format!("{W}/w/events"), &after).await;
    assert!(!text.contains("snapshot"), "{text}");
    let last = router.seen().pop().unwrap();
    assert!(last.request.contains("after_event_id: \"5-0\""));
    let text = client.text(&format!("{W}/broken/events"), &[]).await;
    assert!(
        text.contains("event: problem") && text.contains("DRAINING"),
        "{text}"
    );

    let watch = wire::WatchWorkflowRequest {
        workflow_id: "w".to_owned(),
        ..wire::WatchWorkflowRequest::default()
    };
    let frames = hive.grpc().await.watch_workflow(watch).await.unwrap();
    let mut frames = frames.into_inner();
    let mut count = 0;
    while let Some(frame) = frames.message().await.unwrap() {
        assert!(frame.frame.is_some());
        count += 1;
    }
    assert_eq!(count, 2);
}

fn guide_message(kind: &str) -> Value {
    json!({
        "message_id": "task_123", "from_agent": "orchestrator", "message_type": "task_request",
        "payload": {"task": "run_tests", "type": kind}, "priority": 10,
    })
}

#[tokio::test]
async fn a_message_is_routed_to_the_group_that_serves_it() {
    let hive = Hive::with_group().await;
    let client = &hive.client;
    let path = "/api/v1/consumer-groups/route";
    let answer = client.post(path, &guide_message("testing")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let decision = &answer.body["routing_decision"];
    assert_eq!(decision["target_group"], "qa_engineers_consumers");
    assert_eq!(decision["routing_strategy"], "load_balanced");
    assert_eq!(decision["dependency_wait"], false);
    let [delivery] = hive.fetch(10).await.try_into().unwrap();
    assert_eq!(delivery["message"]["message_id"], "task_123");
    assert_eq!(delivery["message"]["priority"], 9);

    let answer = client.post(path, &guide_message("cooking")).await;
    refused(&answer, 422, "UNSERVED_TYPE");
    let named = format!("{path}?target_group=qa_engineers_consumers");
    let answer = client.post(&named, &guide_message("cooking")).await;
    assert_eq!(answer.status, 200);
    let nobody = format!("{path}?target_group=nobody");
    let answer = client.post(&nobody, &guide_message("testing")).await;
    refused(&answer, 422, "UNSERVED_TYPE");
    let mut other = guide_message("testing");
    other["routing_mode"] = json!("round_robin");
    let answer = client.post(path, &other).await;
    assert_eq!(answer.faulty_fields(), ["routing_mode"]);
    // A task of a workflow needs a router.
    other["routing_mode"] = json!("load_balanced");
    other["workflow_id"] = json!("w");
    let answer = client.post(path, &other).await;
    refused(&answer, 503, "NO_ROUTER");
}

#[tokio::test]
async fn a_message_of_a_workflow_becomes_a_task_of_it() {
    let (hive, router) = Hive::with_router().await;
    let mut message = guide_message("testing");
    message["workflow_id"] = json!("test_workflow_1");
    message["dependencies"] = json!(["build_task"]);
    let path = "/api/v1/consumer-groups/route/";
    let answer = hive.client.post(path, &message).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body["run_id"], "run-1");
    let decision = &answer.body["routing_decision"];
    assert_eq!(decision["dependency_wait"], true);
    assert_eq!(decision["waits_for"], json!(["build_task"]));
    let routed = router.routed().unwrap();
    assert_eq!(routed.workflow_id, "test_workflow_1");
    let task = routed.task.unwrap();
    assert_eq!((&*task.id, &*task.r#type), ("task_123", "testing"));
    assert_eq!(task.completion(), wire::TaskCompletion::Signal);

    let faults = hive_domain::violation::Violations::one("task.id", "is wrong");
    router.refuse(Fault::invalid(faults));
    let answer = hive.client.post(path, &message).await;
    assert_eq!(answer.faulty_fields(), ["message_id"]);
}

#[tokio::test]
async fn a_workflow_of_the_guide_is_taken_in_both_forms() {
    let (hive, router) = Hive::with_router().await;
    let client = &hive.client;
    let path = "/api/v1/consumer-groups/route/workflow";
    let body = json!({ "workflow_id": "feature", "tasks": guide_tasks() });
    for (path, body) in [
        (path.to_owned(), body.clone()),
        (format!("{path}?workflow_id=feature"), guide_tasks()),
    ] {
        let answer = client.post(&path, &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body["workflow_id"], "feature");
        let spec = router.submitted().unwrap();
        assert_eq!(spec.workflow_id, "feature");
        assert_eq!(spec.tasks[0].priority, Some(7));
        assert_eq!(spec.tasks[1].completion(), wire::TaskCompletion::Signal);
    }
    let nameless = client.post(path, &guide_tasks()).await;
    assert_eq!(nameless.faulty_fields(), ["workflow_id"]);
    let other = format!("{path}?workflow_id=other");
    let answer = client.post(&other, &body).await;
    assert_eq!(answer.faulty_fields(), ["workflow_id"]);
}
