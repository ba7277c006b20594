//! Calls about placement, rebalancing and scaling: any `hive-coordinator` answers any of them.
//!
//! All may be sent again when an answer was lost: a group that placement made is there, options
//! that were set are set, and a second rebalance right behind the first moves nothing.

use hive_protocol::{
    fault::Reason,
    limits::FRAME_BYTES_MAX,
    wire::{self, coordinator_service_client::CoordinatorServiceClient},
};
use hive_runtime::peers::Kind;
use tonic::{Request, Status, transport::Channel};

use crate::{
    core::Gateway,
    forwarding::{Forwarded, opening},
    peers::{Onward, handed_on, safe},
};

/// The daemons that take these calls.
pub(crate) static COORDINATORS: Kind = Kind {
    daemon: "coordinator",
    about: "coordination",
    missing: (
        Reason::NoCoordinator,
        "no coordinator is alive: placement, rebalancing and scaling need a `hive-coordinator`",
    ),
};

fn client(channel: Channel) -> CoordinatorServiceClient<Channel> {
    CoordinatorServiceClient::new(channel)
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX)
}

impl Gateway {
    /// Opens a watch of how many consumers groups want.
    ///
    /// # Errors
    /// `TOO_MANY_CONNECTIONS`, `NO_COORDINATOR`, or what the coordinator says.
    pub async fn watch_scaling(
        &self,
        onward: &Onward,
        request: wire::WatchScalingRequest,
    ) -> Result<Forwarded<wire::WatchScalingResponse>, Status> {
        let from = (&self.coordinators, &self.scaling_watches);
        let open = |channel: Channel, asked: Request<_>| async move {
            opening(client(channel).watch_scaling(asked)).await
        };
        self.forward(from, (onward, ""), request, open).await
    }
}

handed_on! {
    client at coordinators;
    /// Says which group an agent joins.
    place_agent PlaceAgentRequest PlaceAgentResponse safe |_asked| "";
    /// Says which group a task goes to.
    place_task PlaceTaskRequest PlaceTaskResponse safe |asked| &asked.group;
    /// Evens work out.
    rebalance RebalanceRequest RebalanceResponse safe |asked| &asked.group;
    /// Shows how many consumers groups have and want.
    get_scaling GetScalingRequest GetScalingResponse safe |asked| &asked.group;
    /// Lists scaling decisions and what became of them.
    list_scaling_events ListScalingEventsRequest ListScalingEventsResponse safe
        |asked| &asked.group;
    /// Shows the options of the coordinators.
    get_config GetConfigRequest GetConfigResponse safe |_asked| "";
    /// Changes options of the coordinators.
    update_config UpdateConfigRequest UpdateConfigResponse safe |_asked| "";
}
