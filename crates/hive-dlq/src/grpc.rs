//! The gRPC door: metadata in, typed calls through, faults out as statuses.

use std::sync::Arc;

use hive_protocol::{
    fault::{Fault, Reason},
    namespace, served, unary,
    wire::dead_letter_service_server::{DeadLetterService, DeadLetterServiceServer},
};
use hive_runtime::{
    gate::{Gate, Pass},
    shutdown::Shutdown,
};
use tonic::{metadata::MetadataMap, service::Routes};

use crate::{calls::Calls, desk::Desk};

/// Full name of the service, for whoever asks for its health.
pub(crate) const SERVICES: [&str; 1] = ["agenthive.v1.DeadLetterService"];

/// The service, and what a call needs besides.
#[derive(Debug, Clone)]
struct Door {
    calls: Calls,
    gate: Gate,
    shutdown: Shutdown,
}

/// The service as routes.
pub(crate) fn routes(desk: &Arc<Desk>, gate: Gate, shutdown: Shutdown) -> Routes {
    let door = Door {
        calls: Calls {
            desk: Arc::clone(desk),
        },
        gate,
        shutdown,
    };
    Routes::new(served!(DeadLetterServiceServer::new(door)))
}

impl Door {
    /// Lets a call in, unless the daemon goes away.
    fn enter(&self, name: &'static str) -> Result<Pass, Fault> {
        if self.shutdown.is_draining() {
            let message = "this dead-letter worker is going away";
            return Err(Fault::new(Reason::Draining, message));
        }
        Ok(self.gate.enter(name))
    }

    /// Lets a call in, and says for which namespace it is.
    fn admit(&self, name: &'static str, metadata: &MetadataMap) -> Result<(Pass, String), Fault> {
        let pass = self.enter(name)?;
        Ok((pass, namespace::from_metadata(metadata)?))
    }
}

#[tonic::async_trait]
impl DeadLetterService for Door {
    unary! {
        calls after admit;
        list_dead_letters ListDeadLettersRequest ListDeadLettersResponse;
        get_dead_letter GetDeadLetterRequest GetDeadLetterResponse;
        replay_dead_letter ReplayDeadLetterRequest ReplayDeadLetterResponse;
        replay_dead_letters ReplayDeadLettersRequest ReplayDeadLettersResponse;
        get_replay_job GetReplayJobRequest GetReplayJobResponse;
        list_replay_jobs ListReplayJobsRequest ListReplayJobsResponse;
        cancel_replay_job CancelReplayJobRequest CancelReplayJobResponse;
        get_dead_letter_statistics GetDeadLetterStatisticsRequest GetDeadLetterStatisticsResponse;
        analyze_dead_letters AnalyzeDeadLettersRequest AnalyzeDeadLettersResponse;
        set_dead_letter_status SetDeadLetterStatusRequest SetDeadLetterStatusResponse;
        purge_dead_letters PurgeDeadLettersRequest PurgeDeadLettersResponse;
    }
}
