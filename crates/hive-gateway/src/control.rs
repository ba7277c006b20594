//! What coordinators ask about the consumers that are attached here: who holds what, and that some
//! of it goes back, that one goes for good, or that one looks at the work of another group.
//!
//! All of it is told to the client by a frame and noted in its connection in the same step, so
//! that the next plan of the group's dispatcher knows. Nothing is written to Redis: what a consumer
//! gives back comes by its own releases. A session that was told to go is remembered by its client,
//! and by this gateway for its return here; what ends up at another gateway meanwhile is told again
//! by the coordinator, which looks at all of them.

use std::{sync::Arc, time::Duration};

use hive_domain::{name, violation::Violations};
use hive_protocol::{
    fault::{Fault, Reason},
    limits::{CONNECTION_GROUPS_MAX, IN_FLIGHT_MAX},
    outcome::cut_reason,
    wire::{self, consume_response::Frame},
};

use hive_runtime::tasks::BACKGROUND;

use crate::{attached::Attached, core::Gateway, dispatcher::Dispatcher};

/// How long what is given back is kept for those who are meant to get it: agents answer a revoke in
/// much less, and a consumer that needs more meanwhile waits no longer than this.
const SHARED_OUT_WITHIN: Duration = Duration::from_millis(500);

impl Gateway {
    /// Shows the consumers that are attached here, by group and name. Groups that have none are
    /// passed over, as are those that do not exist.
    ///
    /// # Errors
    /// Violations.
    #[expect(clippy::unused_async, reason = "as all calls of a service")]
    pub async fn list_connections(
        &self,
        namespace: &str,
        request: wire::ListConnectionsRequest,
    ) -> Result<wire::ListConnectionsResponse, Fault> {
        let len = request.groups.len();
        if len > CONNECTION_GROUPS_MAX {
            let rule = format!("has `{len}` groups and must have at most {CONNECTION_GROUPS_MAX}");
            return Err(Violations::one("groups", rule).into());
        }
        let mut faults = Violations::new();
        for (index, group) in request.groups.iter().enumerate() {
            faults.take(name::check(&format!("groups[{index}]"), group));
        }
        faults.into_result()?;
        let mut dispatchers: Vec<Arc<Dispatcher>> = if request.groups.is_empty() {
            let all = self.dispatchers().into_iter();
            all.filter(|one| one.namespace == namespace).collect()
        } else {
            let named = request.groups.iter();
            named
                .filter_map(|group| self.dispatcher(namespace, group))
                .collect()
        };
        dispatchers.sort_by(|a, b| a.group.cmp(&b.group));
        dispatchers.dedup_by(|a, b| a.group == b.group);
        let connections = dispatchers.iter().flat_map(|dispatcher| {
            let attached = dispatcher.attached().into_iter();
            attached.map(|one| shown(&dispatcher.group, &one))
        });
        Ok(wire::ListConnectionsResponse {
            connections: connections.collect(),
        })
    }

    /// Asks consumers for deliveries back that no handler has begun. Those that are not attached
    /// here are passed over.
    ///
    /// # Errors
    /// Violations, `BATCH_TOO_LARGE`, or `DRAINING`.
    #[expect(clippy::unused_async, reason = "as all calls of a service")]
    pub async fn revoke_deliveries(
        &self,
        namespace: &str,
        request: wire::RevokeDeliveriesRequest,
    ) -> Result<wire::RevokeDeliveriesResponse, Fault> {
        hive_protocol::request::items("from", request.from.len() + request.shares.len())?;
        let mut faults = Violations::new();
        faults.take(name::check("group", &request.group));
        for (index, from) in request.from.iter().enumerate() {
            let field = format!("from[{index}].consumer_id");
            faults.take(name::check(&field, &from.consumer_id));
            if !(1..=IN_FLIGHT_MAX).contains(&from.messages) {
                faults.push(
                    format!("from[{index}].messages"),
                    format!("`{}` must be between 1 and {IN_FLIGHT_MAX}", from.messages),
                );
            }
        }
        for (index, share) in request.shares.iter().enumerate() {
            let field = format!("shares[{index}].consumer_id");
            faults.take(name::check(&field, &share.consumer_id));
        }
        faults.into_result()?;
        let _pass = self.enter("revoke_deliveries")?;
        let mut asked = 0;
        if let Some(dispatcher) = self.dispatcher(namespace, &request.group) {
            if !request.shares.is_empty() {
                self.limit_to_shares(&dispatcher, &request.shares);
            }
            for from in &request.from {
                if let Some(consumer) = dispatcher.consumer(&from.consumer_id) {
                    consumer.revoke(from.messages);
                    asked += 1;
                }
            }
        }
        Ok(wire::RevokeDeliveriesResponse { asked })
    }

    /// For a while nobody takes more than its share: else whoever is asked first would take most of
    /// what comes back, here or at another gateway.
    fn limit_to_shares(&self, dispatcher: &Arc<Dispatcher>, shares: &[wire::RevokeShare]) {
        for one in dispatcher.attached() {
            let share = shares
                .iter()
                .find(|share| share.consumer_id == *one.consumer);
            let messages = share.map_or(0, |share| share.messages);
            one.limit_to_share(messages, SHARED_OUT_WITHIN);
        }
        let dispatcher = Arc::clone(dispatcher);
        let look_again = async move {
            tokio::time::sleep(SHARED_OUT_WITHIN).await;
            dispatcher.credit_granted();
        };
        self.tasks.spawn(BACKGROUND, "shares", look_again);
    }

    /// Tells a consumer to finish and go for good.
    ///
    /// # Errors
    /// Violations, `FENCED` where another epoch owns the group, `DRAINING`, or what Redis says.
    pub async fn drain_consumer(
        &self,
        namespace: &str,
        request: wire::DrainConsumerRequest,
    ) -> Result<wire::DrainConsumerResponse, Fault> {
        let mut faults = Violations::new();
        faults.take(name::check("group", &request.group));
        faults.take(name::check("consumer_id", &request.consumer_id));
        faults.into_result()?;
        let _pass = self.enter("drain_consumer")?;
        self.check_epoch(namespace, &request.group, request.epoch)
            .await?;
        let attached = self
            .dispatcher(namespace, &request.group)
            .and_then(|dispatcher| Some((dispatcher.consumer(&request.consumer_id)?, dispatcher)));
        if let Some((consumer, dispatcher)) = &attached {
            let reason = cut_reason(request.reason);
            let (group, consumer_id) = (request.group, request.consumer_id);
            tracing::info!(namespace, group, consumer_id, reason, "consumer_drained");
            dispatcher.drain(consumer);
        }
        let told = attached.is_some();
        Ok(wire::DrainConsumerResponse { told })
    }

    /// Refuses who does not own the scaling of a group, as Redis has it now.
    async fn check_epoch(&self, namespace: &str, group: &str, epoch: u64) -> Result<(), Fault> {
        let row = self.store.scaling_row(namespace, group).await?;
        let stored = row.map(|row| row.epoch);
        if stored == Some(epoch) {
            return Ok(());
        }
        let owner = stored.map_or_else(
            || "nobody scales it".to_owned(),
            |stored| format!("its epoch is `{stored}`"),
        );
        Err(Fault::new(
            Reason::Fenced,
            format!("epoch `{epoch}` does not own group `{group}`: {owner}"),
        ))
    }

    /// Offers a consumer the work of another group; one that takes no offers is not told.
    ///
    /// # Errors
    /// Violations, or `DRAINING`.
    #[expect(clippy::unused_async, reason = "as all calls of a service")]
    pub async fn offer_group(
        &self,
        namespace: &str,
        request: wire::OfferGroupRequest,
    ) -> Result<wire::OfferGroupResponse, Fault> {
        let mut faults = Violations::new();
        faults.take(name::check("group", &request.group));
        faults.take(name::check("consumer_id", &request.consumer_id));
        faults.take(name::check("offered_group", &request.offered_group));
        if request.group == request.offered_group {
            let rule = format!("`{}` must be another group", request.offered_group);
            faults.push("offered_group", rule);
        }
        faults.into_result()?;
        let _pass = self.enter("offer_group")?;
        let consumer = self
            .dispatcher(namespace, &request.group)
            .and_then(|dispatcher| dispatcher.consumer(&request.consumer_id))
            .filter(|consumer| consumer.accepts_offers && !consumer.is_draining());
        if let Some(consumer) = &consumer {
            consumer.send(Frame::Offer(wire::Offer {
                group: request.offered_group,
                reason: cut_reason(request.reason),
            }));
        }
        let told = consumer.is_some();
        Ok(wire::OfferGroupResponse { told })
    }
}

fn shown(group: &str, one: &Attached) -> wire::Connection {
    let load = one.load();
    wire::Connection {
        group: group.to_owned(),
        consumer_id: one.consumer.to_string(),
        held: load.held,
        begun: load.begun,
        room: one.room(),
        max_in_flight: one.capacity,
        concurrency: one.concurrency,
        capabilities: one.capabilities.to_vec(),
        idle_ms: u64::try_from(load.idle.as_millis()).unwrap_or(u64::MAX),
        draining: one.is_draining(),
        accepts_offers: one.accepts_offers,
        pod: one.pod.to_string(),
        leaving: load.leaving,
        coming: load.coming,
    }
}
