//! Purging a group: what is unsettled becomes dead letters, and nothing is dropped.
//!
//! A forced deletion does the same to all of a group; a purge leaves the group, and what is delayed
//! for all groups: that is theirs as well. All that was published before the call goes. Delayed
//! messages do not say when they were published, so they go first, and only then the time is taken
//! up to which the lanes are emptied: one that comes due meanwhile is found in its lane. What is
//! published before that time may go too; what is published behind it stays.

use std::time::{Duration, Instant};

use hive_domain::{
    name,
    violation::{Violations, quoted},
};
use hive_protocol::{fault::Fault, wire};
use hive_store::{
    bells::CancelledLease,
    fetch::ReadLane,
    lease::parse_entry_id,
    members::{PLACEHOLDER, Pending},
    settle::{Action, Settle, Verdict},
    sweep::Take,
};

use crate::{
    catalog::GroupView,
    core::{Gateway, now_ms, reading},
};

/// Longest purge in one call: shorter than the patience of a client.
const PURGE_WITHIN: Duration = Duration::from_secs(5);
/// Messages cancelled per step.
const CANCEL_STEP: u64 = 500;

/// What stays of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spare {
    /// Nothing.
    Nothing,
    /// What was published after this time, in ms since 1970 by Redis.
    Newer {
        /// The time.
        than_ms: u64,
        /// Whether what consumers hold stays too.
        leased: bool,
    },
}

impl Spare {
    fn spares(self, entry: &Pending) -> bool {
        match self {
            Self::Nothing => false,
            Self::Newer { than_ms, leased } => {
                let published = parse_entry_id(&entry.id).map_or(0, |(ms, _)| ms);
                published > than_ms || leased && is_leased(entry)
            },
        }
    }

    const fn take(self) -> Take {
        match self {
            Self::Nothing => Take::All,
            Self::Newer { than_ms, .. } => Take::OlderThan(than_ms.saturating_add(1)),
        }
    }
}

/// What one step came to.
#[derive(Debug)]
pub(crate) struct Slice {
    /// Messages that were to go.
    pub(crate) tried: u64,
    /// Those of them that are dead letters now.
    dead: u64,
    /// Where the next step begins; none at the end of the lane.
    next: Option<String>,
}

impl Gateway {
    /// Moves the unsettled messages of a group to the dead letters, or counts them.
    ///
    /// # Errors
    /// Violations, `GROUP_NOT_FOUND`, or what Redis says.
    pub async fn purge_group(
        &self,
        namespace: &str,
        request: wire::PurgeGroupRequest,
    ) -> Result<wire::PurgeGroupResponse, Fault> {
        let mut faults = Violations::new();
        faults.take(name::check("name", &request.name));
        if !request.dry_run && request.confirm != request.name {
            let confirm = quoted(&request.confirm);
            let rule = format!("{confirm} must be the name of the group, or dry_run be set");
            faults.push("confirm", rule);
        }
        faults.into_result()?;
        let _pass = self.enter("purge_group")?;
        let view = self.catalog.group(namespace, &request.name).await?;
        if request.dry_run {
            let figures = reading(self.group_figures(&view)).await?;
            let leased = if request.keep_leased {
                0
            } else {
                figures.leased
            };
            let retrying = figures.ready + figures.delayed + figures.parked;
            let scheduled = reading(async {
                let own = self.store.scheduled_for(&view.shard, &request.name);
                Ok(own.await?)
            });
            let scheduled = scheduled.await?;
            return Ok(wire::PurgeGroupResponse {
                purged: figures.waiting + leased + retrying + scheduled,
                waiting: figures.waiting,
                leased,
                retrying,
                scheduled,
                more: false,
            });
        }
        if view.is_durable() {
            self.store.check_durable().await?;
        }
        let (purged, more) = self.purge(&view, request.keep_leased).await?;
        if view.is_durable() {
            self.store.sync(&view.shard).await?;
        }
        let group = request.name.as_str();
        tracing::info!(namespace, group, purged, more, "group_purged");
        Ok(wire::PurgeGroupResponse {
            purged,
            more,
            ..wire::PurgeGroupResponse::default()
        })
    }

    /// How many went, and whether time was over before all had gone.
    async fn purge(&self, view: &GroupView, keep_leased: bool) -> Result<(u64, bool), Fault> {
        let end = Instant::now() + PURGE_WITHIN;
        let (group, mut purged, mut cursor) = (&view.definition.name, 0, 0);
        loop {
            let delayed = self
                .store
                .cancel_scheduled(&view.shard, group, (cursor, true));
            let (next, moved) = delayed.await?;
            purged += moved;
            cursor = next;
            if cursor == 0 {
                break;
            }
            if Instant::now() >= end {
                return Ok((purged, true));
            }
        }
        self.store.read_clock().await?;
        let spare = Spare::Newer {
            than_ms: self.store.now_ms(),
            leased: keep_leased,
        };
        let lanes = self.catalog.read_lanes(&view.shard).await?;
        let read = lanes.of_group(&view.shard, group);
        for position in 0..read.len() {
            // Until a pass finds nothing: what ends lets others of its ordering key go on.
            loop {
                let (mut tried, mut from) = (0, Some("-".to_owned()));
                while let Some(start) = from {
                    if Instant::now() >= end {
                        return Ok((purged, true));
                    }
                    let slice = self
                        .cancel_slice(view, (&read, position), &start, spare)
                        .await?;
                    purged += slice.dead;
                    tried += slice.tried;
                    from = slice.next;
                }
                if tried == 0 {
                    break;
                }
            }
        }
        Ok((purged, false))
    }

    /// Takes what was never delivered off a lane, and cancels a page of what is not settled.
    pub(crate) async fn cancel_slice(
        &self,
        view: &GroupView,
        (read, position): (&[ReadLane], usize),
        from: &str,
        spare: Spare,
    ) -> Result<Slice, Fault> {
        let (shard, group) = (&view.shard, view.definition.name.as_str());
        if let Some(lane) = read.get(position) {
            self.store
                .take_waiting(shard, group, lane, spare.take(), CANCEL_STEP)
                .await?;
        }
        let page = (from, CANCEL_STEP);
        let pending = self
            .store
            .pending(group, read, position, page, None)
            .await?;
        let is_end = (pending.len() as u64) < CANCEL_STEP;
        let next = pending.last().filter(|_| !is_end);
        let next = next.map(|entry| format!("({}", entry.id));
        let going: Vec<&Pending> = pending.iter().filter(|one| !spare.spares(one)).collect();
        let items: Vec<Settle> = going
            .iter()
            .map(|entry| Settle {
                lease: entry.lease(read, "*", 0),
                attach: 0,
                check_session: false,
                action: Action::Cancel,
            })
            .collect();
        let mut dead = 0;
        if !items.is_empty() {
            let settling = view.settling(read);
            let verdicts = self.store.settle(shard, settling, &items, now_ms()).await?;
            let ended = going.iter().zip(&items).zip(verdicts);
            let ended = ended.filter(|(_, verdict)| *verdict == Verdict::Dead);
            let mut held = Vec::new();
            for ((entry, item), _) in ended {
                dead += 1;
                if is_leased(entry) {
                    held.push(CancelledLease {
                        group: group.to_owned(),
                        consumer: entry.owner.clone(),
                        lane: item.lease.lane.to_string(),
                        id: entry.id.clone(),
                        deliveries: entry.count,
                    });
                }
            }
            self.store.tell_cancelled(shard, &held).await?;
        }
        Ok(Slice {
            tried: items.len() as u64,
            dead,
            next,
        })
    }
}

fn is_leased(entry: &Pending) -> bool {
    !entry.owner.starts_with(PLACEHOLDER)
}
