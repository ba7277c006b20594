//! Asks gateways about the consumers attached to them, and tells these through them.
//!
//! Every call has a deadline: a gateway that does not answer is passed over, and its consumers are
//! as they were. Nothing here is a promise; what counts is what Redis says afterwards.

use std::time::Duration;

use futures_util::future::join_all;
use hive_protocol::fault::{Fault, Reason};
use hive_protocol::wire::gateway_control_service_client::GatewayControlServiceClient;
use hive_protocol::wire::group_service_client::GroupServiceClient;
use hive_protocol::wire::{self, Connection};
use hive_runtime::peers::{Kind, Peers, asking, within};
use tonic::Status;
use tonic::transport::Channel;

/// How long a gateway may take to answer.
const WITHIN: Duration = Duration::from_secs(1);
/// How long the creation of a group may take.
const CREATE_WITHIN: Duration = Duration::from_secs(5);

static GATEWAYS: Kind = Kind {
    daemon: "gateway",
    about: "group",
    missing: (Reason::Unreachable, "no gateway is alive"),
};

/// A consumer, and the gateway that it is attached to.
#[derive(Debug, Clone)]
pub(crate) struct Attached {
    /// Address of the gateway.
    pub(crate) gateway: String,
    pub(crate) connection: Connection,
}

/// The gateways that live.
#[derive(Debug)]
pub(crate) struct Gateways {
    pub(crate) peers: Peers,
}

impl Default for Gateways {
    fn default() -> Self {
        Self {
            peers: Peers::new(&GATEWAYS),
        }
    }
}

impl Gateways {
    /// The attached consumers of these groups, by group and consumer; of all groups of the
    /// namespace where none is named. Those of a gateway that does not answer are missing.
    pub(crate) async fn connections(&self, namespace: &str, groups: &[String]) -> Vec<Attached> {
        let asked = self
            .peers
            .addresses()
            .into_iter()
            .map(|address| async move {
                let request = wire::ListConnectionsRequest {
                    groups: groups.to_vec(),
                };
                let answer = async {
                    let request = asking(namespace, request, WITHIN)?;
                    self.control(&address)?.list_connections(request).await
                };
                match within(WITHIN, answer).await {
                    Ok(answer) => attached(&address, answer.into_inner().connections),
                    Err(status) => {
                        passed_over(&address, &status);
                        Vec::new()
                    },
                }
            });
        let mut found: Vec<Attached> = join_all(asked).await.into_iter().flatten().collect();
        found.sort_by(|a, b| {
            let key = |one: &Attached| {
                (
                    one.connection.group.clone(),
                    one.connection.consumer_id.clone(),
                )
            };
            key(a).cmp(&key(b))
        });
        found
    }

    /// Asks consumers of a gateway for deliveries back; how many were asked.
    pub(crate) async fn revoke(
        &self,
        address: &str,
        namespace: &str,
        request: wire::RevokeDeliveriesRequest,
    ) -> Result<u32, Fault> {
        let request = asking(namespace, request, WITHIN)?;
        let mut client = self.control(address)?;
        let answer = within(WITHIN, client.revoke_deliveries(request)).await?;
        Ok(answer.into_inner().asked)
    }

    /// Tells a consumer to finish and go; false where it is not attached there any more.
    pub(crate) async fn drain(
        &self,
        address: &str,
        namespace: &str,
        request: wire::DrainConsumerRequest,
    ) -> Result<bool, Fault> {
        let request = asking(namespace, request, WITHIN)?;
        let mut client = self.control(address)?;
        let answer = within(WITHIN, client.drain_consumer(request)).await?;
        Ok(answer.into_inner().told)
    }

    /// Offers a consumer the work of another group; false where it is not attached there any more.
    pub(crate) async fn offer(
        &self,
        address: &str,
        namespace: &str,
        request: wire::OfferGroupRequest,
    ) -> Result<bool, Fault> {
        let request = asking(namespace, request, WITHIN)?;
        let mut client = self.control(address)?;
        let answer = within(WITHIN, client.offer_group(request)).await?;
        Ok(answer.into_inner().told)
    }

    /// Makes a group; true when it was not there.
    pub(crate) async fn create_group(
        &self,
        namespace: &str,
        group: wire::CreateGroupRequest,
    ) -> Result<bool, Fault> {
        let create = |channel, request| async move {
            GroupServiceClient::new(channel).create_group(request).await
        };
        let asked = (namespace, CREATE_WITHIN);
        let answer: wire::CreateGroupResponse = self.peers.first(asked, group, create).await?;
        Ok(answer.created)
    }

    fn control(&self, address: &str) -> Result<GatewayControlServiceClient<Channel>, Fault> {
        Ok(GatewayControlServiceClient::new(
            self.peers.channel(address)?,
        ))
    }
}

fn attached(address: &str, connections: Vec<Connection>) -> Vec<Attached> {
    let of = |connection| Attached {
        gateway: address.to_owned(),
        connection,
    };
    connections.into_iter().map(of).collect()
}

fn passed_over(address: &str, status: &Status) {
    tracing::debug!(address, error = status.message(), "gateway_passed_over");
}
