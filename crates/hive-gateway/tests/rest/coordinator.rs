//! A coordinator that answers from a script: it notes what it was asked, and refuses on demand.

use std::sync::Arc;

use hive_protocol::{
    fault::Fault,
    wire::{
        self,
        coordinator_service_server::{CoordinatorService, CoordinatorServiceServer},
    },
};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tonic::{Request, Response, Status, service::Routes};

use crate::fake::{self, Seen, answers, live};

#[derive(Default)]
struct Script {
    calls: fake::Script,
    config: Mutex<wire::CoordinatorConfig>,
}

/// A live coordinator; dropping it ends it as a crash does.
pub(crate) struct FakeCoordinator {
    script: Arc<Script>,
    _tasks: JoinSet<()>,
}

impl FakeCoordinator {
    /// A coordinator that says at this Redis that it lives.
    pub(crate) async fn start(redis_url: &str) -> Self {
        let script = Arc::new(Script::default());
        let service = CoordinatorServiceServer::new(Service(script.clone()));
        let tasks = live("coordinator", redis_url, Routes::new(service)).await;
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

    /// What its options were last asked to be.
    pub(crate) fn config(&self) -> wire::CoordinatorConfig {
        *self.script.config.lock()
    }
}

struct Service(Arc<Script>);

const AT: Option<prost_types::Timestamp> = Some(prost_types::Timestamp {
    seconds: 1_700_000_000,
    nanos: 0,
});

const fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn inputs() -> wire::ScalingInputs {
    wire::ScalingInputs {
        lag: 120,
        oldest_waiting: seconds(3),
        arrivals_per_second: 12.5,
        service_time: seconds(2),
        capacity_per_consumer: 1.0,
        ..wire::ScalingInputs::default()
    }
}

fn policy() -> wire::ScalingPolicy {
    wire::ScalingPolicy {
        strategy: wire::ScalingStrategy::Hybrid.into(),
        drain_target: seconds(10),
        startup_time: seconds(10),
        scale_up_window: seconds(0),
        scale_down_window: seconds(300),
        scale_up_cooldown: seconds(0),
        scale_down_cooldown: seconds(15),
        scale_up_step: Some(0),
        scale_down_step: Some(0),
        weight: Some(100),
        executor: wire::ScalingExecutor::Process.into(),
        target: Some(String::new()),
    }
}

fn scaling(group: &str) -> wire::GroupScaling {
    wire::GroupScaling {
        group: group.to_owned(),
        enabled: true,
        policy: Some(policy()),
        min_consumers: 1,
        max_consumers: 8,
        current_consumers: 1,
        desired_consumers: Some(4),
        reason: "120 waiting".to_owned(),
        decided_at: AT,
        inputs: Some(inputs()),
        executor_state: wire::ExecutorState::Ok.into(),
        epoch: 2,
        ..wire::GroupScaling::default()
    }
}

fn config() -> wire::CoordinatorConfig {
    wire::CoordinatorConfig {
        strategy: wire::PlacementStrategy::Hybrid.into(),
        provisioning_policy: wire::ProvisioningPolicy::Hybrid.into(),
        allocation_mode: wire::AllocationMode::Adaptive.into(),
        enable_cross_group_coordination: Some(true),
        health_check_interval: seconds(30),
        rebalance_interval: seconds(300),
        max_total_consumers: Some(0),
        provision_for_tasks: Some(false),
    }
}

#[tonic::async_trait]
impl CoordinatorService for Service {
    type WatchScalingStream =
        tokio_stream::Iter<std::vec::IntoIter<Result<wire::WatchScalingResponse, Status>>>;

    answers! {
        place_agent PlaceAgentRequest PlaceAgentResponse |_me, asked| wire::PlaceAgentResponse {
            group: format!("{}_consumers", asked.agent_type),
            reasoning: "its type is served there".to_owned(),
            strategy: wire::PlacementStrategy::Hybrid.into(),
            created: !asked.dry_run,
            scores: vec![wire::PlacementScore {
                group: "qa_engineers_consumers".to_owned(),
                score: 900,
                reason: "type 1.0".to_owned(),
            }],
        };
        place_task PlaceTaskRequest PlaceTaskResponse |_me, asked| wire::PlaceTaskResponse {
            group: "backend_engineers_consumers".to_owned(),
            reasoning: format!("`{}` is served there", asked.r#type),
            created: asked.provision,
        };
        rebalance RebalanceRequest RebalanceResponse |_me, asked| wire::RebalanceResponse {
            groups_analyzed: if asked.group.is_empty() { 2 } else { 1 },
            operations: vec![wire::RebalanceOperation {
                group: "g".to_owned(),
                action: wire::RebalanceAction::Revoke.into(),
                from: "a".to_owned(),
                to: "b".to_owned(),
                count: 3,
                reason: "a holds 7, b nothing".to_owned(),
            }],
            elapsed: seconds(1),
            timestamp: AT,
        };
        get_scaling GetScalingRequest GetScalingResponse |_me, asked| wire::GetScalingResponse {
            groups: match asked.group.as_str() {
                "none" => Vec::new(),
                "" => vec![scaling("a"), scaling("b")],
                group => vec![scaling(group)],
            },
        };
        list_scaling_events ListScalingEventsRequest ListScalingEventsResponse |_me, asked| {
            wire::ListScalingEventsResponse {
                events: vec![wire::ScalingEvent {
                    event_id: "7-0".to_owned(),
                    time: AT,
                    group: "g".to_owned(),
                    kind: wire::ScalingEventKind::Up.into(),
                    from: 1,
                    to: 4,
                    reason: "120 waiting".to_owned(),
                    inputs: Some(inputs()),
                    epoch: 2,
                    ..wire::ScalingEvent::default()
                }],
                next_cursor: if asked.cursor.is_empty() { "7-0".to_owned() } else { String::new() },
            }
        };
        get_config GetConfigRequest GetConfigResponse |_me, _asked| wire::GetConfigResponse {
            config: Some(config()),
        };
        update_config UpdateConfigRequest UpdateConfigResponse |me, asked| {
            *me.0.config.lock() = asked.config.unwrap_or_default();
            wire::UpdateConfigResponse { config: Some(config()) }
        };
    }

    async fn watch_scaling(
        &self,
        request: Request<wire::WatchScalingRequest>,
    ) -> Result<Response<Self::WatchScalingStream>, Status> {
        self.0.calls.note("watch_scaling", &request)?;
        let groups = request.into_inner().groups;
        let frames = groups.iter().map(|group| {
            Ok(wire::WatchScalingResponse {
                groups: vec![scaling(group)],
            })
        });
        let frames: Vec<_> = frames.collect();
        Ok(Response::new(tokio_stream::iter(frames)))
    }
}
