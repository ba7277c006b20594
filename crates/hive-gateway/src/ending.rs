//! A connection is over: what becomes of the membership and of what it held.
//!
//! A client that left gives everything back uncounted. One that was lost may come back within its
//! group's grace; after it what was begun counts as failed and the rest goes back uncounted. Each
//! step names (session, attach) and is tried until Redis took it: the coordinator finds members of
//! dead gateways, not those that a living one forgot.

use std::{sync::Arc, time::Duration};

use hive_runtime::metrics::Counter;
use hive_store::{
    StoreError,
    settle::{Action, Settle, Verdict},
};

use crate::{
    attached::{Attached, Held, Told},
    catalog::GroupView,
    core::Gateway,
    outcomes,
};

/// First and longest pause before a membership that could not be ended is tried again.
const END_RETRY: Duration = Duration::from_millis(200);
const END_RETRY_MAX: Duration = Duration::from_secs(5);
/// What a client gets at least to come back once Redis is there again: it pauses between its tries.
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// A membership whose connection is over.
pub(crate) struct Ending {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) view: Arc<GroupView>,
    pub(crate) attached: Arc<Attached>,
}

impl Ending {
    /// The client said that it goes: what it holds goes back uncounted.
    pub(crate) async fn left(&self) {
        let held = self.attached.all_held();
        let items: Vec<Settle> = held
            .iter()
            .map(|held| Settle {
                lease: held.lease.clone(),
                attach: self.attached.attach,
                check_session: true,
                action: Action::GiveBack { idle_ms: 0 },
            })
            .collect();
        self.end_membership(&items, &self.gateway.metrics.given_back_left)
            .await;
    }

    /// The connection is lost: gives everything up unless the client comes back in time.
    pub(crate) async fn lost(&self) {
        self.wait_out_grace().await;
        let held = judged(&self.attached);
        let items = recovery(&self.attached, &held, (0, "connection_lost"));
        self.end_membership(&items, &self.gateway.metrics.given_back_lost)
            .await;
    }

    /// Waits as long as the client may take to come back. While Redis is away it cannot: its time
    /// begins when Redis is there.
    async fn wait_out_grace(&self) {
        let settings = &self.view.definition.settings;
        let grace = Duration::from_millis(settings.reconnect_grace_ms);
        tokio::time::sleep(grace).await;
        let mut was_away = false;
        while let Err(error) = self.gateway.store.groups_on_shard(&self.view.shard).await {
            // Other data than before is as good as none: it may be back in a moment.
            if !error.is_transient() && !matches!(error, StoreError::Dataset { .. }) {
                break;
            }
            was_away = true;
            tokio::select! {
                () = tokio::time::sleep(END_RETRY) => {},
                () = self.gateway.shutdown.draining() => return,
            }
        }
        if was_away {
            tokio::time::sleep(grace.max(BACK_WITHIN)).await;
        }
    }

    /// Settles what was held, then removes the member. Tried until it is so: the coordinator finds
    /// members of dead gateways, not those that a living one forgot.
    async fn end_membership(&self, items: &[Settle], taken: &Counter) {
        let mut pause = END_RETRY;
        while let Err(error) = self.try_end_membership(items, taken).await {
            let (group, consumer) = (&self.view.definition.name, &*self.attached.consumer);
            tracing::warn!(group, consumer, %error, "give_up_failed");
            tokio::select! {
                () = tokio::time::sleep(pause) => {},
                () = self.gateway.shutdown.draining() => return,
            }
            pause = (pause * 2).min(END_RETRY_MAX);
        }
        if !items.is_empty() {
            self.gateway
                .bells
                .announce(&self.gateway.store, &self.view.shard);
        }
    }

    async fn try_end_membership(
        &self,
        items: &[Settle],
        taken: &Counter,
    ) -> Result<(), StoreError> {
        let (namespace, group) = (&self.view.namespace, &self.view.definition.name);
        let shard = &self.view.shard;
        if !self
            .gateway
            .store
            .groups_on_shard(shard)
            .await?
            .contains(group)
        {
            return Ok(());
        }
        for batch in items.chunks(500) {
            let verdicts = self.gateway.settle_now(namespace, group, batch).await?;
            taken.increment(outcomes::taken(&verdicts));
            if verdicts.contains(&Verdict::Fenced) {
                return Ok(());
            }
        }
        let lanes = self
            .gateway
            .catalog
            .read_lanes(shard)
            .await?
            .of_group(shard, group);
        let who = (&*self.attached.consumer, &*self.attached.session);
        let who = (who.0, who.1, self.attached.attach);
        self.gateway
            .store
            .leave(shard, group, &lanes, who)
            .await
            .map(drop)
    }
}

/// Which deliveries count as failed when their consumer is lost: what heartbeats named as begun,
/// and of those that no heartbeat covers, what is among its `concurrency` oldest.
fn counted(held: &[Held], concurrency: u32) -> Vec<bool> {
    let oldest = usize::try_from(concurrency.max(1)).unwrap_or(usize::MAX);
    held.iter()
        .enumerate()
        .map(|(position, held)| match held.told {
            Told::Begun => true,
            Told::Held => false,
            Told::Nothing => position < oldest,
        })
        .collect()
}

/// Everything that a connection holds, and whether its loss counts as a failed attempt.
pub(crate) fn judged(attached: &Attached) -> Vec<(Held, bool)> {
    let held = attached.all_held();
    let counted = counted(&held, attached.concurrency);
    held.into_iter().zip(counted).collect()
}

/// Takes deliveries from a consumer that was lost: by a failed attempt where it counts, else
/// uncounted; only what was idle for `idle_ms`.
pub(crate) fn recovery(
    attached: &Attached,
    held: &[(Held, bool)],
    (idle_ms, category): (u64, &str),
) -> Vec<Settle> {
    held.iter()
        .map(|(held, is_counted)| {
            let lease = held.lease.clone();
            let action = if *is_counted {
                let record = outcomes::record(&lease, category, "the consumer was lost at work");
                Action::Lose {
                    idle_ms,
                    category: category.to_owned(),
                    record,
                }
            } else {
                Action::GiveBack { idle_ms }
            };
            Settle {
                lease,
                attach: attached.attach,
                check_session: true,
                action,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use hive_store::Lease;

    use super::*;

    fn held(id: u64, told: Told) -> Held {
        Held {
            lease: Lease {
                lane: "g/p4".into(),
                id: format!("{id}-0"),
                count: 1,
                consumer: "a".into(),
                session: "s".into(),
                delivered_ms: id,
                bytes: 1,
            },
            deadline: Instant::now(),
            told,
        }
    }

    #[test]
    fn a_lost_consumer_fails_what_it_began_and_nothing_else() {
        let all = [
            held(1, Told::Begun),
            held(2, Told::Held),
            held(3, Told::Nothing),
        ];
        assert_eq!(counted(&all, 1), [true, false, false]);
    }

    #[test]
    fn without_any_heartbeat_the_oldest_deliveries_count() {
        let all = [
            held(1, Told::Nothing),
            held(2, Told::Nothing),
            held(3, Told::Nothing),
        ];
        assert_eq!(counted(&all, 2), [true, true, false]);
    }
}
