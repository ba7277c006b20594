//! Placement, rebalancing and scaling: where agents and tasks go, and how many agents are wanted.
//!
//! ```no_run
//! use hive_client::Client;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new("http://127.0.0.1:8000")?;
//! let mut watch = client.watch_scaling(vec!["reviewers".to_owned()]);
//! loop {
//!     for group in watch.next().await? {
//!         println!("{}: {:?} wanted", group.group, group.desired_consumers);
//!     }
//! }
//! # }
//! ```
//!
//! All calls may be repeated. A watch changes nothing either, so it goes on at the next gateway
//! when one goes away, and begins there with all groups as they are.

use std::time::Duration;

use hive_protocol::wire::{
    CoordinatorConfig, GetConfigRequest, GetScalingRequest, GroupScaling, ListScalingEventsRequest,
    ListScalingEventsResponse, PlaceAgentRequest, PlaceAgentResponse, PlaceTaskRequest,
    PlaceTaskResponse, RebalanceRequest, RebalanceResponse, UpdateConfigRequest,
    WatchScalingRequest, WatchScalingResponse,
};

use crate::client::{CallError, Client, Repeat, calls, watch::Frames};

/// How long a rebalance may take on top of the deadline of a call: gateways are asked meanwhile.
const REBALANCE_WITHIN: Duration = Duration::from_secs(30);

impl Client {
    calls! {
        /// Says which group an agent joins; makes the group from its template where there is none.
        place_agent(PlaceAgentRequest) -> PlaceAgentResponse, Safe, coordination;
        /// Says which group a task goes to. Sends nothing.
        place_task(PlaceTaskRequest) -> PlaceTaskResponse, Safe, coordination;
        /// A page of scaling decisions and what became of them, the newest first.
        list_scaling_events(ListScalingEventsRequest) -> ListScalingEventsResponse,
            Safe, coordination;
    }

    /// Moves delivered messages that no handler has begun from loaded consumers to free ones.
    ///
    /// # Errors
    /// When it is refused, or nobody answers in time.
    pub async fn rebalance(
        &self,
        request: RebalanceRequest,
    ) -> Result<RebalanceResponse, CallError> {
        let send = |gateway: crate::Gateway, request| async move {
            gateway.coordination().rebalance(request).await
        };
        self.call_waiting(request, Repeat::Safe, REBALANCE_WITHIN, send)
            .await
    }

    /// How many consumers groups have, how many are wanted, and why: of one group, or of all of the
    /// namespace where `group` is empty.
    ///
    /// # Errors
    /// When it is refused, or nobody answers in time.
    pub async fn get_scaling(
        &self,
        group: impl Into<String>,
    ) -> Result<Vec<GroupScaling>, CallError> {
        let group = group.into();
        let request = GetScalingRequest { group };
        let call = self.call(request, Repeat::Safe, |gateway, request| async move {
            gateway.coordination().get_scaling(request).await
        });
        Ok(call.await?.groups)
    }

    /// The options of all coordinators.
    ///
    /// # Errors
    /// When it is refused, or nobody answers in time.
    pub async fn coordinator_config(&self) -> Result<CoordinatorConfig, CallError> {
        let request = GetConfigRequest {};
        let call = self.call(request, Repeat::Safe, |gateway, request| async move {
            gateway.coordination().get_config(request).await
        });
        Ok(call.await?.config.unwrap_or_default())
    }

    /// Changes options of all coordinators, those that are set; answers all of them.
    ///
    /// # Errors
    /// When it is refused, or nobody answers in time.
    pub async fn update_coordinator_config(
        &self,
        change: CoordinatorConfig,
    ) -> Result<CoordinatorConfig, CallError> {
        let config = Some(change);
        let request = UpdateConfigRequest { config };
        let call = self.call(request, Repeat::Safe, |gateway, request| async move {
            gateway.coordination().update_config(request).await
        });
        Ok(call.await?.config.unwrap_or_default())
    }

    /// Watches how many consumers these groups want; none for all of the namespace. Nothing is
    /// asked before [`ScalingWatch::next`].
    #[must_use]
    pub fn watch_scaling(&self, groups: Vec<String>) -> ScalingWatch {
        ScalingWatch {
            frames: Frames::new(self),
            groups,
        }
    }
}

/// A watch of how groups are scaled; see [`Client::watch_scaling`].
#[derive(Debug)]
pub struct ScalingWatch {
    frames: Frames<WatchScalingResponse>,
    groups: Vec<String>,
}

impl ScalingWatch {
    /// The next change: at once all groups, then those that changed, and all of them at least every
    /// five seconds. A group that does not exist yet is told once it does.
    ///
    /// # Errors
    /// When a gateway refuses it; or when none has answered for 15 s and the deadline of a call.
    /// Asked again it begins anew.
    pub async fn next(&mut self) -> Result<Vec<GroupScaling>, CallError> {
        let request = WatchScalingRequest {
            groups: self.groups.clone(),
        };
        let frame = self.frames.next(&request, |gateway, request| async move {
            gateway.coordination().watch_scaling(request).await
        });
        Ok(frame.await?.groups)
    }
}
