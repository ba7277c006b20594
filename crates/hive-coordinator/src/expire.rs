//! Moves messages whose time is over to the dead letters: by their own time to live, or by the
//! retention of their stream. What a consumer holds is left alone.

use std::collections::BTreeMap;

use hive_domain::group::GroupDefinition;
use hive_store::StoreError;
use hive_store::attempt::{self, Attempt};
use hive_store::fetch::ReadLane;
use hive_store::lane::LaneRef;
use hive_store::lease::parse_entry_id;
use hive_store::members::{PARKED, Pending};
use hive_store::settle::{Action, Settle};
use hive_store::sweep::Take;

use crate::metrics::{self, Expired};
use crate::shard::{Scope, taken};

/// Messages taken per call: the script reads their payloads, which may be a megabyte each.
const SLICE: u64 = 20;
/// Entries per page of the delivered ones that are looked at for their age.
const PAGE: u64 = 200;
/// Calls per lane and pass; what is left is for the next pass.
const CALLS_MAX: u32 = 500;
/// Slices per lane and round of a walk behind the head.
const SLICES_BEHIND: u32 = 4;
const TAKEN: &str = "~taken";
/// Places whose entries may be ended from outside: their index is no more than a hint.
const ENDABLE: [&str; 3] = ["~ready", "~delayed", PARKED];

/// Where the walks over lanes go on that look behind the heads, by group (empty for held lanes) and
/// lane; rounds between them take slices, so that a long lane costs Redis little at a time.
pub(crate) type Walks = BTreeMap<(String, String), String>;

/// Goes on with a walk behind the head of a lane: a message that lives longer must not keep those
/// behind it. Where several groups read the lane, an expired message ends at the head.
pub(crate) async fn behind_head(
    scope: &Scope,
    group: &GroupDefinition,
    lanes: &[ReadLane],
    walks: &mut Walks,
) -> Result<(), StoreError> {
    for lane in lanes {
        let key = (group.name.clone(), lane.reference.to_string());
        let (action, reason) = end_of(scope, group, lane).await?;
        let end = if let Action::Reject { category, record } = &action {
            (category.as_str(), record.as_ref())
        } else {
            ("expired", [].as_slice())
        };
        let mut from = Some(walks.remove(&key).unwrap_or_else(|| "-".to_owned()));
        for _ in 0..SLICES_BEHIND {
            let Some(cursor) = from else { break };
            let step = scope
                .store
                .expire_waiting(&scope.shard, &group.name, lane, &cursor, end);
            let expired;
            (expired, from) = step.await?;
            metrics::expired(reason, expired);
        }
        if let Some(cursor) = from {
            walks.insert(key, cursor);
        }
    }
    Ok(())
}

/// Goes on with a walk over what is parked: behind a key that a dead letter blocks nothing is
/// delivered, so that nobody else would find its time over.
pub(crate) async fn parked(
    scope: &Scope,
    group: &GroupDefinition,
    lanes: &[ReadLane],
    walks: &mut Walks,
) -> Result<(), StoreError> {
    let (store, shard) = (&scope.store, &scope.shard);
    let has_keys = lanes.iter().any(|lane| lane.lane.lane.is_ordered());
    if !has_keys || store.blocked_count(shard, &group.name).await? == 0 {
        return Ok(());
    }
    for (number, lane) in lanes.iter().enumerate() {
        if !lane.lane.lane.is_ordered() {
            continue;
        }
        let key = (group.name.clone(), format!("{} parked", lane.reference));
        let mut from = Some(walks.remove(&key).unwrap_or_else(|| "-".to_owned()));
        for _ in 0..SLICES_BEHIND {
            let Some(cursor) = from else { break };
            let expired;
            (expired, from) = store
                .expired_parked(&group.name, (lanes, number), &cursor)
                .await?;
            let items: Vec<Settle> = expired
                .iter()
                .map(|entry| end_of_delivered(lanes, entry))
                .collect();
            let ended = taken(&scope.settle(group, lanes, &items).await?);
            metrics::expired(Expired::Ttl, ended);
        }
        if let Some(cursor) = from {
            walks.insert(key, cursor);
        }
    }
    Ok(())
}

fn end_of_delivered(lanes: &[ReadLane], entry: &Pending) -> Settle {
    Settle {
        lease: entry.lease(lanes, "*", 0),
        attach: 0,
        check_session: false,
        action: Action::Expire,
    }
}

/// Goes on with a walk over a lane of messages whose consumer no group has.
pub(crate) async fn held(
    scope: &Scope,
    lane: &LaneRef,
    walks: &mut Walks,
) -> Result<(), StoreError> {
    let key = (String::new(), lane.to_string());
    let mut from = Some(walks.remove(&key).unwrap_or_else(|| "-".to_owned()));
    for _ in 0..SLICES_BEHIND {
        let Some(cursor) = from else { break };
        let expired;
        (expired, from) = scope.store.expire_held(&scope.shard, lane, &cursor).await?;
        metrics::expired(Expired::NoCapableConsumer, expired);
    }
    if let Some(cursor) = from {
        walks.insert(key, cursor);
    }
    Ok(())
}

/// Ends messages at the heads of lanes whose time to live has passed.
pub(crate) async fn by_ttl(
    scope: &Scope,
    group: &GroupDefinition,
    lanes: &[ReadLane],
) -> Result<(), StoreError> {
    for lane in lanes {
        for _ in 0..CALLS_MAX {
            let ids = take(scope, group, lane, Take::Expired).await?;
            if ids.is_empty() {
                break;
            }
            let (action, reason) = end_of(scope, group, lane).await?;
            let ended = end(scope, group, lanes, lane, &ids, &action).await?;
            metrics::expired(reason, ended);
        }
    }
    Ok(())
}

/// Ends messages that were published before `limit_ms` and that no consumer holds.
pub(crate) async fn by_age(
    scope: &Scope,
    group: &GroupDefinition,
    lanes: &[ReadLane],
    limit_ms: u64,
) -> Result<(), StoreError> {
    for (number, lane) in lanes.iter().enumerate() {
        for _ in 0..CALLS_MAX {
            let ids = take(scope, group, lane, Take::OlderThan(limit_ms)).await?;
            if ids.is_empty() {
                break;
            }
            let ended = end(scope, group, lanes, lane, &ids, &Action::Expire).await?;
            metrics::expired(Expired::Retention, ended);
        }
        delivered_before(scope, group, (lanes, number), limit_ms).await?;
    }
    Ok(())
}

/// Ends old messages that were delivered before and wait to be delivered again, or are parked.
async fn delivered_before(
    scope: &Scope,
    group: &GroupDefinition,
    (lanes, number): (&[ReadLane], usize),
    limit_ms: u64,
) -> Result<(), StoreError> {
    let mut cursor = "-".to_owned();
    for _ in 0..CALLS_MAX {
        let page = scope
            .store
            .pending(&group.name, lanes, number, (&cursor, PAGE), None)
            .await?;
        let is_old =
            |entry: &&Pending| parse_entry_id(&entry.id).is_some_and(|(ms, _)| ms < limit_ms);
        let old: Vec<&Pending> = page.iter().take_while(is_old).collect();
        let items: Vec<Settle> = old
            .iter()
            .filter(|entry| ENDABLE.contains(&entry.owner.as_str()))
            .map(|entry| end_of_delivered(lanes, entry))
            .collect();
        let ended = taken(&scope.settle(group, lanes, &items).await?);
        metrics::expired(Expired::Retention, ended);
        match old.last() {
            Some(last) if old.len() == page.len() => cursor = format!("({}", last.id),
            Some(_) | None => break,
        }
    }
    Ok(())
}

/// How a message of this lane ends when its time to live is over: one for a consumer that is no
/// member waited for nobody.
async fn end_of(
    scope: &Scope,
    group: &GroupDefinition,
    lane: &ReadLane,
) -> Result<(Action, Expired), StoreError> {
    const CATEGORY: &str = "no_capable_consumer";
    let consumer = lane.lane.lane.consumer.as_str();
    if consumer.is_empty() {
        return Ok((Action::Expire, Expired::Ttl));
    }
    let member = scope
        .store
        .member(&scope.shard, &group.name, consumer)
        .await?;
    if member.is_some() {
        return Ok((Action::Expire, Expired::Ttl));
    }
    let record = attempt::record(&Attempt {
        ended_ms: scope.now_ms().unwrap_or_default(),
        category: CATEGORY.to_owned(),
        reason: format!("consumer `{consumer}` did not come in time"),
        ..Attempt::default()
    });
    let action = Action::Reject {
        category: CATEGORY.to_owned(),
        record,
    };
    Ok((action, Expired::NoCapableConsumer))
}

/// Takes a slice of never delivered messages out of a lane.
pub(crate) async fn take(
    scope: &Scope,
    group: &GroupDefinition,
    lane: &ReadLane,
    which: Take,
) -> Result<Vec<String>, StoreError> {
    scope
        .store
        .take_waiting(&scope.shard, &group.name, lane, which, SLICE)
        .await
}

/// Ends messages that were taken out of a lane; answers how many.
pub(crate) async fn end(
    scope: &Scope,
    group: &GroupDefinition,
    lanes: &[ReadLane],
    lane: &ReadLane,
    ids: &[String],
    action: &Action,
) -> Result<u64, StoreError> {
    let Some(number) = lanes.iter().position(|known| known == lane) else {
        return Ok(0);
    };
    let items: Vec<Settle> = ids
        .iter()
        .map(|id| {
            let entry = Pending {
                lane: number,
                id: id.clone(),
                owner: TAKEN.to_owned(),
                idle_ms: 0,
                count: 1,
            };
            Settle {
                lease: entry.lease(lanes, "*", 0),
                attach: 0,
                check_session: false,
                action: action.clone(),
            }
        })
        .collect();
    Ok(taken(&scope.settle(group, lanes, &items).await?))
}
