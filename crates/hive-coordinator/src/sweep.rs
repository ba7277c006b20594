//! Walks what a group has delivered and not settled, and takes it from whoever lost it.

use std::collections::BTreeMap;
use std::time::Instant;

use hive_domain::group::GroupDefinition;
use hive_domain::recovery::{self, Held, Owner, Verdict};
use hive_store::StoreError;
use hive_store::attempt::{self, Attempt};
use hive_store::fetch::ReadLane;
use hive_store::lease::parse_entry_id;
use hive_store::members::{Kind, Member, PLACEHOLDER, Pending};
use hive_store::settle::{Action, Settle, Verdict as Settled};

use crate::metrics::{self, Recovered};
use crate::recover::{Clock, Memory};
use crate::shard::Scope;

/// Entries per page: XPENDING gives 1,000 in well under 1 ms.
const PAGE: u64 = 1_000;
/// The place of messages that were taken out to be settled at once.
const TAKEN: &str = "~taken";
/// How much longer than its lease a delivery over a stream is left to the gateway that made it.
const GATEWAY_FIRST_MS: u64 = 500;
/// A gateway that missed two beats is suspect: what expires under it is nobody's failure.
const SUSPECT_MS: u64 = 5_000;
/// Failure category of a lease that ran out.
const LEASE_EXPIRED: &str = "lease_expired";

/// What is remembered of a group between rounds.
#[derive(Debug, Default)]
pub(crate) struct GroupMemory {
    /// The longest lease that a member was told.
    told_ms: u64,
    /// By consumer: what was counted in the failure that goes on.
    charges: BTreeMap<String, Charge>,
}

#[derive(Debug)]
struct Charge {
    session: String,
    count: u32,
    last_ms: u64,
}

/// What one walk found.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Deliveries of consumers, and those taken out; idle times as of the walk's begin.
    found: Vec<Pending>,
    /// Pages read.
    pub(crate) pages: u32,
}

impl GroupMemory {
    /// The longest lease that a member was told, in ms: it may be longer than the group's is now.
    pub(crate) const fn told_ms(&self) -> u64 {
        self.told_ms
    }

    /// Notes who is a member.
    pub(crate) fn note_members(&mut self, members: &[Member]) {
        let told = members.iter().map(|member| member.lease_ms);
        self.told_ms = told.max().unwrap_or_default();
        self.charges
            .retain(|name, _| members.iter().any(|member| member.consumer == *name));
    }

    /// How many deliveries of this member were counted within the last lease.
    fn charged(&mut self, member: &Member, expiry_ms: u64, now_ms: u64) -> u32 {
        let Some(charge) = self.charges.get(&member.consumer) else {
            return 0;
        };
        let is_old = now_ms.saturating_sub(charge.last_ms) > expiry_ms;
        if is_old || charge.session != member.session {
            self.charges.remove(&member.consumer);
            return 0;
        }
        charge.count
    }

    fn charge(&mut self, consumer: &str, session: &str, now_ms: u64) {
        let charge = self
            .charges
            .entry(consumer.to_owned())
            .or_insert_with(|| Charge {
                session: session.to_owned(),
                count: 0,
                last_ms: now_ms,
            });
        charge.count = charge.count.saturating_add(1);
        charge.last_ms = now_ms;
    }
}

/// Reads every page of every lane of a group.
pub(crate) async fn walk(
    scope: &Scope,
    group: &GroupDefinition,
    lanes: &[ReadLane],
) -> Result<Walk, StoreError> {
    let (began, mut walk, mut seen) = (Instant::now(), Walk::default(), 0);
    for lane in 0..lanes.len() {
        let mut cursor = "-".to_owned();
        loop {
            let page = scope
                .store
                .pending(&group.name, lanes, lane, (&cursor, PAGE), None)
                .await?;
            let count = u64::try_from(page.len()).unwrap_or(u64::MAX);
            seen += count;
            walk.pages = walk.pages.saturating_add(1);
            if let Some(last) = page.last() {
                cursor = format!("({}", last.id);
            }
            // Pages that are read later must not make their entries older than others.
            let late_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or_default();
            walk.found.extend(page.into_iter().filter_map(|mut entry| {
                let is_place = entry.owner.starts_with(PLACEHOLDER) && entry.owner != TAKEN;
                entry.idle_ms = entry.idle_ms.saturating_sub(late_ms);
                (!is_place).then_some(entry)
            }));
            if count < PAGE {
                break;
            }
        }
    }
    metrics::swept(seen);
    Ok(walk)
}

/// Takes from their owners what these lost; answers how many entries took another way.
pub(crate) async fn settle(
    scope: &Scope,
    memory: &mut Memory,
    (group, lanes): (&GroupDefinition, &[ReadLane]),
    walk: Walk,
    now: Clock,
) -> Result<u64, StoreError> {
    if walk.found.is_empty() {
        return Ok(0);
    }
    // Members are read after the walk: whoever joined meanwhile and holds something is one of them.
    let members = scope.store.members(&scope.shard, &group.name).await?;
    let own = memory.groups.entry(group.name.clone()).or_default();
    let owners = owners(own, (group, &members), &memory.beats, now);
    let held: Vec<Held> = walk
        .found
        .iter()
        .map(|entry| Held {
            owner: entry.owner.clone(),
            idle_ms: entry.idle_ms,
            age: parse_entry_id(&entry.id).unwrap_or_default(),
        })
        .collect();
    let verdicts = recovery::judge(&held, &owners, now.in_grace);
    let (mut items, mut reasons) = (Vec::new(), Vec::new());
    for (entry, verdict) in walk.found.iter().zip(verdicts) {
        if let Some((action, reason)) = action(entry, verdict, &owners, now.now_ms) {
            items.push(Settle {
                lease: entry.lease(lanes, "*", now.now_ms.saturating_sub(entry.idle_ms)),
                attach: 0,
                check_session: false,
                action,
            });
            reasons.push(reason);
        }
    }
    let mut done = 0;
    let settled = scope.settle(group, lanes, &items).await?;
    for ((item, reason), verdict) in items.iter().zip(reasons).zip(settled) {
        if !matches!(verdict, Settled::Done | Settled::Dead) {
            continue;
        }
        done += 1;
        metrics::recovered(reason, 1);
        let consumer = &*item.lease.consumer;
        if reason == Recovered::LeaseExpired
            && let Some(member) = members.iter().find(|member| member.consumer == consumer)
        {
            own.charge(consumer, &member.session, now.now_ms);
        }
    }
    if done > 0 {
        tracing::debug!(shard = ?scope.shard, group = group.name, entries = done, "recovered");
    }
    Ok(done)
}

fn owners(
    own: &mut GroupMemory,
    (group, members): (&GroupDefinition, &[Member]),
    beats: &BTreeMap<String, u64>,
    now: Clock,
) -> BTreeMap<String, Owner> {
    let mut owners: BTreeMap<String, Owner> = members
        .iter()
        .map(|member| {
            let (slack_ms, is_suspect) = match member.kind {
                Kind::Pull => (0, false),
                Kind::Stream => {
                    let beat_ms = beats.get(&member.gateway).copied();
                    let is_suspect = recovery::is_gateway_dead(
                        now.now_ms,
                        beat_ms,
                        member.last_ms,
                        now.steady_ms,
                        SUSPECT_MS,
                    );
                    (GATEWAY_FIRST_MS, is_suspect)
                },
            };
            let lease_ms = group.settings.lease_ms;
            let expiry_ms = recovery::expiry_ms(lease_ms, member.lease_ms, slack_ms);
            let concurrency = match member.kind {
                Kind::Stream if is_suspect => 0,
                Kind::Stream => member.concurrency,
                Kind::Pull => 1,
            };
            let owner = Owner::Member {
                concurrency,
                expiry_ms,
                charged: own.charged(member, expiry_ms, now.now_ms),
            };
            (member.consumer.clone(), owner)
        })
        .collect();
    owners.insert(TAKEN.to_owned(), Owner::Taken);
    owners
}

fn action(
    entry: &Pending,
    verdict: Verdict,
    owners: &BTreeMap<String, Owner>,
    now_ms: u64,
) -> Option<(Action, Recovered)> {
    match verdict {
        Verdict::Spare => None,
        Verdict::Count { idle_ms } => {
            let record = attempt::record(&Attempt {
                consumer: entry.owner.clone(),
                started_ms: now_ms.saturating_sub(entry.idle_ms),
                ended_ms: now_ms,
                category: LEASE_EXPIRED.to_owned(),
                reason: format!("no heartbeat for {} ms", entry.idle_ms),
                ..Attempt::default()
            });
            let category = LEASE_EXPIRED.to_owned();
            let action = Action::Lose {
                idle_ms,
                category,
                record,
            };
            Some((action, Recovered::LeaseExpired))
        },
        Verdict::GiveBack { idle_ms } => {
            let reason = match owners.get(&entry.owner) {
                Some(Owner::Member { .. }) => Recovered::Unbegun,
                Some(Owner::Taken) => Recovered::Interrupted,
                Some(Owner::Stranger | Owner::Place) | None => Recovered::NoMember,
            };
            Some((Action::GiveBack { idle_ms }, reason))
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_of_a_consumer_goes_with_its_membership() {
        let member = |consumer: &str, lease_ms| Member {
            consumer: consumer.to_owned(),
            session: "s".to_owned(),
            attach: 0,
            kind: Kind::Pull,
            gateway: "-".to_owned(),
            concurrency: 1,
            last_ms: 0,
            capabilities: Vec::new(),
            lease_ms,
            pod: String::new(),
        };
        let mut memory = GroupMemory::default();
        let (a, b) = (member("a", 5), member("b", 30));
        for member in [&a, &b] {
            memory.charge(&member.consumer, "s", 0);
        }
        memory.note_members(&[a, b.clone()]);
        assert_eq!((memory.charges.len(), memory.told_ms()), (2, 30));
        memory.note_members(&[b]);
        assert_eq!(memory.charges.keys().collect::<Vec<_>>(), ["b"]);
    }
}
