//! Placement, rebalancing and scaling at both doors of a real gateway, over coordinators that
//! answer from a script.

use std::time::Duration;

use hive_protocol::{
    fault::{Fault, Reason},
    wire::{self, coordinator_service_client::CoordinatorServiceClient},
};
use hive_testkit::wait;
use serde_json::json;

use super::{GROUPS, Hive, QA, refused};
use crate::coordinator::FakeCoordinator;

const SCALING: &str = "/api/v1/scaling";
const PLACEMENT: &str = "/api/v1/placement";

impl Hive {
    async fn with_coordinator() -> (Self, FakeCoordinator) {
        let hive = Self::start().await;
        let coordinator = FakeCoordinator::start(&hive.redis.url()).await;
        let client = &hive.client;
        wait::until(
            Duration::from_secs(10),
            "a coordinator is known",
            || async { client.get(SCALING).await.status == 200 },
        )
        .await;
        (hive, coordinator)
    }
}

#[tokio::test]
async fn without_a_coordinator_every_call_says_so_and_may_be_repeated() {
    let hive = Hive::start().await;
    let client = &hive.client;
    for path in [
        SCALING.to_owned(),
        format!("{SCALING}/g"),
        format!("{SCALING}/events"),
        format!("{SCALING}/watch"),
        format!("{GROUPS}/coordinator/config"),
    ] {
        let answer = client.get(&path).await;
        refused(&answer, 503, "NO_COORDINATOR");
        assert_eq!(answer.headers["retry-after"], "1");
    }
    let rebalanced = client.bare("POST", &format!("{GROUPS}/rebalance/")).await;
    refused(&rebalanced, 503, "NO_COORDINATOR");
    let metrics = client.get(&format!("{GROUPS}/metrics")).await;
    let section = metrics.body.get("coordinator_metrics");
    assert_eq!((metrics.status, section), (200, None));
}

#[tokio::test]
async fn the_coordinators_calls_of_the_guide_work_as_printed() {
    let (hive, coordinator) = Hive::with_coordinator().await;
    let client = &hive.client;
    let path = format!("{GROUPS}/rebalance");
    let all = client.bare("POST", &path).await;
    let expected = json!({
        "status": "success", "groups_analyzed": 2, "rebalance_time_ms": 1000,
        "timestamp": "2023-11-14T22:13:20Z", "operations_performed": [{
            "group": "g", "action": "revoke", "from": "a", "to": "b", "count": 3,
            "reason": "a holds 7, b nothing",
        }],
    });
    assert_eq!((all.status, all.body), (200, expected));
    let one = client.bare("POST", &format!("{path}?group=g")).await;
    assert_eq!(one.body["groups_analyzed"], 1);
    let dry = client
        .post(&path, &json!({"group": "g", "dry_run": true}))
        .await;
    assert_eq!(dry.body["status"], "dry_run");
    let asked = coordinator.seen().pop().unwrap();
    assert!(asked.request.contains("dry_run: true"), "{asked:?}");
    let crossed = format!("{path}?group=g");
    let crossed = client.post(&crossed, &json!({"group": "h"})).await;
    refused(&crossed, 422, "INVALID_ARGUMENT");
    assert_eq!(crossed.faulty_fields(), ["group"]);

    let path = format!("{GROUPS}/coordinator/config");
    let whole = json!({
        "strategy": "hybrid", "provisioning_policy": "hybrid", "allocation_mode": "adaptive",
        "enable_cross_group_coordination": true, "health_check_interval": 30,
        "rebalance_interval": 300, "max_total_consumers": 0,
        "provision_for_tasks": false,
    });
    assert_eq!(client.get(&path).await.body, whole);
    let change = json!({"strategy": "workload_based", "rebalance_interval": 60});
    let changed = client.send_json("PUT", &path, &change).await;
    assert_eq!((changed.status, changed.body), (200, whole));
    let expected = wire::CoordinatorConfig {
        strategy: wire::PlacementStrategy::WorkloadBased.into(),
        rebalance_interval: Some(prost_types::Duration {
            seconds: 60,
            nanos: 0,
        }),
        ..wire::CoordinatorConfig::default()
    };
    assert_eq!(coordinator.config(), expected);
    let odd = json!({"strategy": "random", "interval": 5});
    let odd = client.send_json("PUT", &path, &odd).await;
    refused(&odd, 422, "INVALID_ARGUMENT");
    assert_eq!(odd.faulty_fields(), ["interval", "strategy"]);
}

#[tokio::test]
async fn what_a_coordinator_refuses_is_told_in_the_words_of_this_door() {
    let (hive, coordinator) = Hive::with_coordinator().await;
    let path = format!("{GROUPS}/coordinator/config");
    let rule = "must be at least the sum of min_consumers";
    coordinator.refuse(Fault::invalid_field("config.max_total_consumers", rule));
    let change = json!({"max_total_consumers": 1});
    let refusal = hive.client.send_json("PUT", &path, &change).await;
    refused(&refusal, 422, "INVALID_ARGUMENT");
    assert_eq!(refusal.faulty_fields(), ["max_total_consumers"]);
    coordinator.refuse(Fault::new(Reason::GroupNotFound, "there is no group `g`"));
    let refusal = hive.client.get(&format!("{SCALING}/g")).await;
    refused(&refusal, 404, "GROUP_NOT_FOUND");
}

#[tokio::test]
async fn agents_and_tasks_are_placed() {
    let (hive, coordinator) = Hive::with_coordinator().await;
    let client = &hive.client;
    let agent = json!({"agent_type": "architects", "capabilities": ["uml"], "dry_run": true});
    let placed = client.post(&format!("{PLACEMENT}/agent"), &agent).await;
    assert_eq!(placed.status, 200, "{placed:?}");
    assert_eq!(placed.body["group"], "architects_consumers");
    assert_eq!(placed.body["created"], false);
    assert_eq!(placed.body["scores"][0]["score"], 900);
    let asked = coordinator.seen().pop().unwrap();
    assert!(asked.request.contains("uml"), "{asked:?}");
    let path = format!("{PLACEMENT}/task");
    let task = json!({"type": "backend", "provision": true});
    let placed = client.post(&path, &task).await;
    assert_eq!(placed.body["group"], "backend_engineers_consumers");
    assert_eq!(placed.body["created"], true);
    let nothing = client.post(&path, &json!({})).await;
    refused(&nothing, 422, "INVALID_ARGUMENT");
    assert_eq!(nothing.faulty_fields(), ["type"]);
}

#[tokio::test]
async fn wishes_are_listed_shown_watched_and_counted() {
    let (hive, coordinator) = Hive::with_coordinator().await;
    let client = &hive.client;
    let all = client.get(&format!("{SCALING}/")).await;
    assert_eq!(all.body[1]["group"], "b", "{all:?}");
    let one = client.get(&format!("{SCALING}/g")).await;
    assert_eq!(one.body["desired_consumers"], 4);
    assert_eq!(one.body["policy"]["executor"], "process");
    assert_eq!(one.body["inputs"]["service_time_seconds"], 2);
    let none = client.get(&format!("{SCALING}/none")).await;
    refused(&none, 404, "GROUP_NOT_FOUND");
    let page = client
        .get(&format!("{SCALING}/events?group=g&limit=5"))
        .await;
    assert_eq!(page.body["events"][0]["kind"], "up", "{page:?}");
    let cursor = page.body["next_cursor"].as_str().unwrap();
    let last = client
        .get(&format!("{SCALING}/events?cursor={cursor}"))
        .await;
    assert_eq!(last.body["next_cursor"], json!(null));
    let text = client
        .text(&format!("{SCALING}/watch?groups=g,h"), &[])
        .await;
    let blocks: Vec<&str> = text.trim().split("\n\n").collect();
    assert_eq!(blocks.len(), 2, "{text}");
    assert!(blocks[1].contains("event: scaling") && blocks[1].contains("\"group\":\"h\""));
    let asked = coordinator.seen().pop().unwrap();
    assert_eq!((asked.call, asked.has_deadline), ("watch_scaling", false));
    let metrics = client.get(&format!("{GROUPS}/metrics")).await;
    let expected = json!({
        "coordinators": 1, "groups_scaled": 2, "desired_consumers": 8, "current_consumers": 2,
        "draining_consumers": 0, "failing_executors": 0,
    });
    assert_eq!(metrics.body["coordinator_metrics"], expected);
}

#[tokio::test]
async fn wishes_are_watched_over_grpc() {
    let (hive, _coordinator) = Hive::with_coordinator().await;
    let url = format!("http://{}", hive._gateway.listen());
    let mut client = CoordinatorServiceClient::connect(url).await.unwrap();
    let request = wire::WatchScalingRequest {
        groups: vec!["g".to_owned()],
    };
    let mut frames = client.watch_scaling(request).await.unwrap().into_inner();
    let frame = frames.message().await.unwrap().unwrap();
    assert_eq!(frame.groups[0].desired_consumers, Some(4));
    assert!(frames.message().await.unwrap().is_none());
}

#[tokio::test]
async fn how_a_group_is_scaled_is_set_shown_and_checked() {
    let hive = Hive::with_group().await;
    let client = &hive.client;
    let change = json!({
        "progress_timeout_seconds": 60,
        "scaling": {"strategy": "reactive", "scale_down_window_seconds": 5, "scale_up_step": 2},
    });
    let changed = client.send_json("PATCH", QA, &change).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    assert_eq!(changed.body["progress_timeout_seconds"], 60);
    assert_eq!(changed.body["desired_consumers"], json!(null));
    let scaling = &changed.body["scaling"];
    assert_eq!(scaling["strategy"], "reactive");
    assert_eq!(scaling["scale_down_window_seconds"], 5);
    assert_eq!(scaling["drain_target_seconds"], 10);
    let odd = json!({"scaling": {"executor": "kubernetes", "target": "nobody", "step": 1}});
    let odd = client.send_json("PATCH", QA, &odd).await;
    refused(&odd, 422, "INVALID_ARGUMENT");
    assert_eq!(odd.faulty_fields(), ["scaling.step"]);
    let odd = json!({"scaling": {"executor": "kubernetes", "target": "nobody"}});
    let odd = client.send_json("PATCH", QA, &odd).await;
    assert_eq!(odd.faulty_fields(), ["scaling.target"]);
}
