//! `capability_matched` over several gateways: a message is left for a moment to a more specialised
//! consumer elsewhere.
//!
//! Who is free there is not known here, only who is a member: where all of them are busy, a message
//! that arrives at an idle group comes [`LEAVE_FOR`] later than it could. A backlog is not left to
//! anybody.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hive_domain::{capability::CapabilitySet, group::RoutingMode, routing};
use hive_store::members::Kind;

use super::{Dispatcher, Hungry, Memory};
use crate::{attached::Attached, catalog::GroupView, core::Gateway};

/// How long a message is left to others.
pub(super) const LEAVE_FOR: Duration = Duration::from_millis(200);
/// How long is gone by what was read of the members.
const KNOWN_FOR: Duration = Duration::from_secs(1);

/// What the members at other gateways can do, as they were read last.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    read: Option<Instant>,
    members: Vec<CapabilitySet>,
}

impl Dispatcher {
    /// Those of the hungry whose turn it is: all, but for the first moment after work arrived at an
    /// idle group, when whoever is outdone by a member at another gateway waits.
    pub(super) async fn whose_turn(
        &self,
        gateway: &Gateway,
        view: &GroupView,
        hungry: Hungry,
        memory: &mut Memory,
    ) -> Hungry {
        let mode = view.definition.settings.routing_mode;
        let until = memory.woke + LEAVE_FOR;
        if mode != RoutingMode::CapabilityMatched || gateway.is_alone() || until <= Instant::now() {
            return hungry;
        }
        self.read_elsewhere(gateway, &mut memory.elsewhere).await;
        let Ok(lanes) = gateway.catalog.lanes(&self.shard).await else {
            return hungry;
        };
        let mut wanted: Vec<CapabilitySet> = lanes
            .of_group(&self.shard, &self.group)
            .iter()
            .filter_map(|lane| CapabilitySet::parse("lane", &lane.lane.lane.capabilities).ok())
            .collect();
        wanted.sort();
        wanted.dedup();
        let all = hungry.consumers.len();
        let is_outdone = |(one, _): &(Arc<Attached>, u32)| {
            let own: CapabilitySet = one.capabilities.iter().cloned().collect();
            routing::is_outdone(&own, &memory.elsewhere.members, &wanted)
        };
        let mut hungry = hungry;
        hungry.consumers.retain(|one| !is_outdone(one));
        if hungry.consumers.len() < all {
            memory.again_at = Some(until);
        }
        hungry
    }

    async fn read_elsewhere(&self, gateway: &Gateway, elsewhere: &mut Elsewhere) {
        if elsewhere.read.is_some_and(|at| at.elapsed() < KNOWN_FOR) {
            return;
        }
        // Where Redis is away nobody is known, and nothing is left to anybody.
        let members = gateway.store.members(&self.shard, &self.group).await;
        elsewhere.read = Some(Instant::now());
        elsewhere.members = members
            .unwrap_or_default()
            .into_iter()
            .filter(|one| one.kind == Kind::Stream && *one.gateway != *gateway.incarnation)
            .map(|one| one.capabilities.into_iter().collect())
            .collect();
    }
}
