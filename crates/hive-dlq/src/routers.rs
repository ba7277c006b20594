//! Calls to routers: they alone send tasks of workflows back.

use std::time::Duration;

use hive_domain::ownership::owner;
use hive_protocol::{
    fault::{Fault, FaultKind, Reason},
    limits::{FRAME_BYTES_MAX, NAMESPACE_HEADER},
    wire::{self, workflow_service_client::WorkflowServiceClient},
};
use hive_runtime::peers::{Kind, Peers};
use tonic::{Request, metadata::AsciiMetadataValue};

/// How long a call may take.
const CALL_WITHIN: Duration = Duration::from_secs(3);

/// The daemons that take these calls.
pub(crate) static ROUTERS: Kind = Kind {
    daemon: "router",
    about: "workflow",
    missing: (Reason::NoRouter, "no router is alive"),
};

/// Has a failed task tried again, by the router that calls about its workflow go to, or another in
/// its place. The call names the attempt that failed, so that it may be repeated.
///
/// # Errors
/// What the router says; `NO_ROUTER` where none lives.
pub(crate) async fn retry_task(
    routers: &Peers,
    namespace: &str,
    message: wire::RetryTaskRequest,
) -> Result<wire::RetryTaskResponse, Fault> {
    let key = format!("{namespace}/{}", message.workflow_id);
    let mut left = routers.addresses();
    let mut refusal = routers.none_lives();
    while let Some(address) = owner(&key, &left).map(str::to_owned) {
        left.retain(|one| *one != address);
        let mut request = Request::new(message.clone());
        let name = AsciiMetadataValue::try_from(namespace)
            .map_err(|_no_header| Fault::bug("a namespace that is no name"))?;
        request.metadata_mut().insert(NAMESPACE_HEADER, name);
        request.set_timeout(CALL_WITHIN);
        let mut client = WorkflowServiceClient::new(routers.channel(&address)?)
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX);
        match client.retry_task(request).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => {
                let fault = Fault::from(&status);
                if !matches!(fault.kind, FaultKind::Unavailable | FaultKind::Timeout) {
                    return Err(fault);
                }
                refusal = fault;
            },
        }
    }
    Err(refusal)
}
