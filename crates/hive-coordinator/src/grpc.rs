//! The gRPC door: metadata in, typed calls through, faults out as statuses.

use std::sync::Arc;

use hive_protocol::fault::{Fault, Reason};
use hive_protocol::wire::coordinator_service_server::{
    CoordinatorService, CoordinatorServiceServer,
};
use hive_protocol::{namespace, served, unary, wire};
use hive_runtime::gate::{Gate, Pass};
use hive_runtime::shutdown::Shutdown;
use hive_runtime::tasks::BACKGROUND;
use tokio::sync::Semaphore;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use crate::calls::Calls;
use crate::desk::Desk;
use crate::scaling::watching::{self, WatchFrame};

/// Full name of the service, for whoever asks for its health.
pub(crate) const SERVICE: &str = "agenthive.v1.CoordinatorService";
/// Watches that one replica serves at a time.
const WATCHES_MAX: usize = 256;

/// The service, and what a call needs besides.
#[derive(Debug, Clone)]
struct Door {
    calls: Calls,
    gate: Gate,
    shutdown: Shutdown,
    watches: Arc<Semaphore>,
}

/// The service as routes.
pub(crate) fn routes(desk: &Arc<Desk>, gate: Gate, shutdown: Shutdown) -> Routes {
    let door = Door {
        calls: Calls {
            desk: Arc::clone(desk),
        },
        gate,
        shutdown,
        watches: Arc::new(Semaphore::new(WATCHES_MAX)),
    };
    Routes::new(served!(CoordinatorServiceServer::new(door)))
}

impl Door {
    /// Lets a call in, unless the daemon goes away.
    fn enter(&self, name: &'static str) -> Result<Pass, Fault> {
        if self.shutdown.is_draining() {
            return Err(Fault::new(
                Reason::Draining,
                "this coordinator is going away",
            ));
        }
        Ok(self.gate.enter(name))
    }

    /// As [`Self::enter`], with the namespace of the call.
    fn admit(&self, call: &'static str, metadata: &MetadataMap) -> Result<(Pass, String), Fault> {
        Ok((self.enter(call)?, namespace::from_metadata(metadata)?))
    }
}

#[tonic::async_trait]
impl CoordinatorService for Door {
    type WatchScalingStream = ReceiverStream<WatchFrame>;

    unary! {
        calls after admit;
        place_agent PlaceAgentRequest PlaceAgentResponse;
        place_task PlaceTaskRequest PlaceTaskResponse;
        rebalance RebalanceRequest RebalanceResponse;
        get_scaling GetScalingRequest GetScalingResponse;
        list_scaling_events ListScalingEventsRequest ListScalingEventsResponse;
        get_config GetConfigRequest GetConfigResponse;
        update_config UpdateConfigRequest UpdateConfigResponse;
    }

    async fn watch_scaling(
        &self,
        request: Request<wire::WatchScalingRequest>,
    ) -> Result<Response<Self::WatchScalingStream>, Status> {
        let _inside = self.enter("watch_scaling")?;
        let namespace = namespace::from_metadata(request.metadata())?;
        let groups = self.calls.watched(request.into_inner())?;
        let place = Arc::clone(&self.watches)
            .try_acquire_owned()
            .map_err(|_full| {
                let message = format!("this coordinator serves {WATCHES_MAX} watches already");
                Fault::new(Reason::TooManyConnections, message)
            })?;
        let (frames, taken) = watching::channel();
        let desk = Arc::clone(&self.calls.desk);
        let shutdown = self.shutdown.clone();
        let task = async move {
            watching::follow(Arc::clone(&desk), (namespace, groups), frames, shutdown).await;
            drop(place);
        };
        let tasks = &self.calls.desk.tasks;
        tasks.spawn(BACKGROUND, "scaling_watch", task);
        Ok(Response::new(ReceiverStream::new(taken)))
    }
}
