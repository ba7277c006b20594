//! The routers that live: they alone send tasks of workflows back.

use std::{collections::BTreeMap, time::Duration};

use hive_protocol::{
    fault::{Fault, FaultKind, Reason},
    limits::{FRAME_BYTES_MAX, NAMESPACE_HEADER},
    wire::{self, workflow_service_client::WorkflowServiceClient},
};
use hive_store::registry::Replica;
use parking_lot::Mutex;
use tonic::{
    Request,
    metadata::AsciiMetadataValue,
    transport::{Channel, Endpoint},
};

/// The daemon's name in the registry.
const DAEMON: &str = "router";
/// How long a router may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a call may take.
const CALL_WITHIN: Duration = Duration::from_secs(3);
/// What is told of the time to wait where no router lives.
const RETRY: Duration = Duration::from_secs(1);

/// The routers that live, and the connections to them.
#[derive(Debug, Default)]
pub(crate) struct Routers {
    live: Mutex<BTreeMap<String, Option<Channel>>>,
}

impl Routers {
    /// Notes which daemons live.
    pub(crate) fn note(&self, replicas: &[Replica]) {
        let mut live = self.live.lock();
        let mut before = std::mem::take(&mut *live);
        for replica in replicas.iter().filter(|one| one.daemon == DAEMON) {
            let address = &replica.advertise;
            live.insert(address.clone(), before.remove(address).flatten());
        }
    }

    /// Has a failed task tried again. The call names the attempt that failed, so that it may be
    /// repeated.
    ///
    /// # Errors
    /// What the router says; `NO_ROUTER` where none lives.
    pub(crate) async fn retry_task(
        &self,
        namespace: &str,
        message: wire::RetryTaskRequest,
    ) -> Result<wire::RetryTaskResponse, Fault> {
        let addresses: Vec<String> = self.live.lock().keys().cloned().collect();
        let mut refusal =
            Fault::new(Reason::NoRouter, "no router is alive").with_retry_after(RETRY);
        for address in addresses {
            let mut request = Request::new(message.clone());
            let name = AsciiMetadataValue::try_from(namespace)
                .map_err(|_no_header| Fault::bug("a namespace that is no name"))?;
            request.metadata_mut().insert(NAMESPACE_HEADER, name);
            request.set_timeout(CALL_WITHIN);
            match self.client(&address)?.retry_task(request).await {
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

    fn client(&self, address: &str) -> Result<WorkflowServiceClient<Channel>, Fault> {
        let mut live = self.live.lock();
        let known = live.get(address).cloned().flatten();
        let channel = match known {
            Some(channel) => channel,
            None => {
                let endpoint = Endpoint::from_shared(format!("http://{address}"));
                let endpoint = endpoint.map_err(|error| {
                    let message = format!("the address `{address}` of a router is none");
                    Fault::new(Reason::Unreachable, message).with_detail(error.to_string())
                })?;
                let channel = endpoint
                    .connect_timeout(CONNECT_TIMEOUT)
                    .tcp_nodelay(true)
                    .connect_lazy();
                if let Some(place) = live.get_mut(address) {
                    *place = Some(channel.clone());
                }
                channel
            },
        };
        Ok(WorkflowServiceClient::new(channel)
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX))
    }
}
