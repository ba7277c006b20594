//! Turns leased entries into deliveries, for streams and for fetches alike.
//!
//! An entry that must not be delivered (its time to live has passed, its bytes are none of ours)
//! has an outcome of its own instead.

use std::sync::Arc;

use bytes::Bytes;
use hive_protocol::{time, wire};
use hive_store::{
    Lease,
    fetch::{ReadLane, Taken, Taker},
    header::expiry_and_envelope,
    lease::size_of_body,
    settle::{Action, Settle},
};

use crate::{catalog::GroupView, core::now_ms};

/// What all entries of one fetch have in common.
#[derive(Debug)]
pub struct Deliveries<'a> {
    lanes: &'a [ReadLane],
    lease_ends: prost_types::Timestamp,
    /// By Redis' clock, which is the one that decides.
    now: u64,
    /// By ours, for figures.
    delivered_ms: u64,
}

/// Who takes an entry.
#[derive(Debug, Clone, Copy)]
pub struct Holder<'a> {
    /// Its id.
    pub consumer: &'a Arc<str>,
    /// Its session.
    pub session: &'a Arc<str>,
    /// Its connection; 0 for a pull consumer.
    pub attach: u64,
}

impl<'a> From<&'a Taker> for Holder<'a> {
    fn from(taker: &'a Taker) -> Self {
        Self {
            consumer: &taker.consumer,
            session: &taker.session,
            attach: taker.attach,
        }
    }
}

impl Holder<'_> {
    /// An outcome of this holder.
    #[must_use]
    pub fn settle(self, lease: Lease, action: Action) -> Settle {
        Settle {
            lease,
            attach: self.attach,
            check_session: true,
            action,
        }
    }

    /// Gives back what its holder was never told of. Its session may be over by now, and nobody
    /// else would do it: owner and count of the delivery are this very read's.
    pub fn unheard(lease: Lease) -> Settle {
        Settle {
            lease,
            attach: 0,
            check_session: false,
            action: Action::GiveBack { idle_ms: 0 },
        }
    }
}

/// What is to become of a leased entry.
#[derive(Debug)]
pub enum Fate {
    /// It goes to its holder, under this lease.
    Deliver(Lease, wire::Delivery),
    /// It ends here.
    End(Settle),
}

impl<'a> Deliveries<'a> {
    /// Deliveries of entries that were fetched from `lanes` at `now` by Redis' clock.
    #[must_use]
    pub fn new(view: &GroupView, lanes: &'a [ReadLane], now: u64) -> Self {
        let ends = now.saturating_add(view.definition.settings.lease_ms);
        Self {
            lanes,
            lease_ends: time::to_timestamp(ends.into()),
            now,
            delivered_ms: now_ms(),
        }
    }

    /// What is to become of an entry.
    #[must_use]
    pub fn fate(&self, entry: Taken, holder: Holder<'_>) -> Fate {
        let lane = self.lanes.get(entry.lane);
        let lease = Lease {
            lane: lane.map(|lane| lane.reference.clone()).unwrap_or_default(),
            id: entry.id,
            count: entry.count,
            consumer: holder.consumer.clone(),
            session: holder.session.clone(),
            delivered_ms: self.delivered_ms,
            bytes: size_of_body(&entry.body),
        };
        match expiry_and_envelope(entry.body) {
            Ok((expires, _)) if expires > 0 && expires <= self.now => {
                Fate::End(holder.settle(lease, Action::Expire))
            },
            Ok((_, message)) => {
                let delivery = wire::Delivery {
                    lease: lease.token(),
                    attempt: entry.failures.saturating_add(1),
                    lease_expires_at: Some(self.lease_ends),
                    message,
                };
                Fate::Deliver(lease, delivery)
            },
            Err(error) => {
                tracing::error!(lane = &*lease.lane, id = lease.id, %error, "entry_undecodable");
                let (category, record) = ("parsing_error".to_owned(), Bytes::new());
                Fate::End(holder.settle(lease, Action::Reject { category, record }))
            },
        }
    }
}
