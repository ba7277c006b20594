//! The gRPC door: metadata in, typed calls through, faults out as statuses.

use std::{pin::Pin, sync::Arc};

use hive_protocol::{
    fault::{Fault, Reason},
    limits::FRAME_BYTES_MAX,
    namespace,
    wire::{
        self,
        dead_letter_service_server::{DeadLetterService, DeadLetterServiceServer},
    },
};
use hive_runtime::{gate::Gate, shutdown::Shutdown};
use tonic::{Request, Response, Status, codec::CompressionEncoding, service::Routes};

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
    let service = DeadLetterServiceServer::new(door)
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd);
    Routes::new(service)
}

/// A future as `async_trait` writes it: macros inside its traits are expanded after it.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'a>>;

macro_rules! unary {
    ($($call:ident $request:ident $response:ident;)*) => {
        $(
            fn $call<'life0, 'async_trait>(
                &'life0 self,
                request: Request<wire::$request>,
            ) -> Boxed<'async_trait, wire::$response>
            where
                'life0: 'async_trait,
                Self: 'async_trait,
            {
                Box::pin(async move {
                    let _inside = self.enter(stringify!($call))?;
                    let namespace = namespace::from_metadata(request.metadata())?;
                    let answer = self.calls.$call(&namespace, request.into_inner()).await?;
                    Ok(Response::new(answer))
                })
            }
        )*
    };
}

impl Door {
    /// Lets a call in, unless the daemon goes away.
    fn enter(&self, name: &'static str) -> Result<hive_runtime::gate::Pass, Fault> {
        if self.shutdown.is_draining() {
            let message = "this dead-letter worker is going away";
            return Err(Fault::new(Reason::Draining, message));
        }
        Ok(self.gate.enter(name))
    }
}

#[tonic::async_trait]
impl DeadLetterService for Door {
    unary! {
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
