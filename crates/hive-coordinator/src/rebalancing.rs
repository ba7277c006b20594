//! Evens work out: deliveries that no handler has begun go from loaded consumers to free ones.
//!
//! What each consumer holds is asked of the gateways, what is to move is planned by
//! `hive_domain::rebalance`, and the gateways ask it back. It is released uncounted and delivered
//! again to whoever has room. Whoever dies between leaves each message where it is; a second round
//! plans anew.
//!
//! Three things start it: a call, the interval of the options, and a look at how many deliveries
//! each consumer holds that finds them uneven.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hive_domain::capability::CapabilitySet;
use hive_domain::group::{GroupDefinition, GroupState};
use hive_domain::rebalance::{self, Backlog, Holding, Idle};
use hive_protocol::fault::Fault;
use hive_protocol::limits::BATCH_ITEMS_MAX;
use hive_protocol::wire;
use hive_store::StoreError;
use hive_store::demand::GroupDemand;
use hive_store::registry::places;

use crate::desk::Desk;
use crate::gateways::Attached;
use crate::metrics::{self, Loop};
use crate::roster::GroupName;
use crate::shard::every;

/// Pause between two looks at whether it is time.
const TICK: Duration = Duration::from_millis(500);
/// Groups whose gateways are asked in one call.
const GROUPS_MAX: usize = 100;

/// What was done, or would be.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Groups that were looked at.
    pub(crate) analyzed: usize,
    pub(crate) operations: Vec<wire::RebalanceOperation>,
}

/// Looks after the groups of this replica; never ends by itself.
pub(crate) async fn run(desk: Arc<Desk>) {
    let (mut checked, mut rebalanced) = (Instant::now(), Instant::now());
    let mut pace = every(TICK);
    loop {
        pace.tick().await;
        let options = desk.options();
        let is_due =
            |last: Instant, every_ms: u64| last.elapsed() >= Duration::from_millis(every_ms);
        let is_all = is_due(rebalanced, options.rebalance_interval_ms);
        if !is_all && !is_due(checked, options.health_check_interval_ms) {
            continue;
        }
        checked = Instant::now();
        if is_all {
            rebalanced = checked;
        }
        if let Err(error) = round(&desk, is_all).await {
            metrics::round_failed(Loop::Rebalance);
            tracing::debug!(%error, "rebalance_failed");
        }
        metrics::round(Loop::Rebalance, checked.elapsed());
    }
}

/// Evens out what is uneven, or all, of the groups of this replica; offers idle agents elsewhere.
async fn round(desk: &Desk, is_all: bool) -> Result<(), StoreError> {
    let roster = desk.roster();
    let mut owned: BTreeMap<Arc<str>, Vec<&GroupDefinition>> = BTreeMap::new();
    for (GroupName { namespace, .. }, group) in roster.owned() {
        owned.entry(namespace).or_default().push(group);
    }
    for (namespace, groups) in owned {
        let demands = match desk.store.demand(&namespace, &groups).await {
            Ok(demands) => demands,
            // The trouble of one namespace is none of the others'.
            Err(error) => {
                metrics::round_failed(Loop::Rebalance);
                tracing::debug!(namespace = &*namespace, %error, "demand_not_read");
                continue;
            },
        };
        let mut uneven = Vec::new();
        for group in groups {
            let Some(demand) = demands.get(&group.name) else {
                continue;
            };
            // One who holds a single message, or is alone, has nothing to give to anybody.
            let may_move = demand.leased >= 2 && demand.members.len() >= 2;
            let is_wanted = may_move && is_all;
            let is_uneven = may_move && !is_all;
            let is_uneven = is_uneven
                && match is_uneven_now(desk, &namespace, group, demand).await {
                    Ok(is_uneven) => is_uneven,
                    Err(error) => {
                        metrics::round_failed(Loop::Rebalance);
                        tracing::debug!(group = group.name, %error, "holdings_not_read");
                        false
                    },
                };
            if is_wanted || is_uneven {
                uneven.push(group);
            }
        }
        if !uneven.is_empty() {
            let outcome = rebalance(desk, &namespace, &uneven, false).await;
            told(&namespace, &outcome.operations);
        }
    }
    if desk.options().enable_cross_group_coordination {
        for namespace in roster.groups.keys() {
            if roster.is_mine(&format!("{namespace}/~offers")) {
                let operations = offer(desk, namespace, false).await?;
                told(namespace, &operations);
            }
        }
    }
    Ok(())
}

/// Whether what consumers hold is worth a closer look.
async fn is_uneven_now(
    desk: &Desk,
    namespace: &str,
    group: &GroupDefinition,
    demand: &GroupDemand,
) -> Result<bool, StoreError> {
    let mut held: BTreeMap<String, u64> = BTreeMap::new();
    for index in 0..group.shards {
        let shard = desk.store.shard(namespace, &group.stream, index);
        let (lanes, _) = desk.store.read_lanes(&shard, &group.name).await?;
        for (consumer, count) in desk.store.held_counts(&group.name, &lanes).await? {
            *held.entry(consumer).or_default() += count;
        }
    }
    let counts: Vec<(u32, u32)> = demand
        .members
        .iter()
        .map(|member| {
            let held = held.get(&member.consumer).copied().unwrap_or_default();
            (
                u32::try_from(held).unwrap_or(u32::MAX),
                member.concurrency.max(1),
            )
        })
        .collect();
    Ok(rebalance::is_uneven(&counts))
}

/// Evens out what the consumers of some groups of a namespace hold.
pub(crate) async fn rebalance(
    desk: &Desk,
    namespace: &str,
    groups: &[&GroupDefinition],
    is_dry: bool,
) -> Outcome {
    let mut outcome = Outcome {
        analyzed: groups.len(),
        operations: Vec::new(),
    };
    let active = groups
        .iter()
        .filter(|group| group.state == GroupState::Active);
    let names: Vec<String> = active.map(|group| group.name.clone()).collect();
    for names in names.chunks(GROUPS_MAX) {
        let attached = desk.gateways.connections(namespace, names).await;
        for group in names {
            let of_group: Vec<&Attached> = attached
                .iter()
                .filter(|one| one.connection.group == *group)
                .collect();
            let holdings: Vec<Holding> = of_group.iter().map(|one| holding(one)).collect();
            let plan = rebalance::plan(&holdings);
            let (mut asked, mut shares) = (BTreeMap::new(), BTreeMap::new());
            for step in &plan.moves {
                add(&mut asked, &step.from, step.count);
                add(&mut shares, &step.to, step.count);
            }
            let mut unmoved = BTreeSet::new();
            if !is_dry && !asked.is_empty() {
                share_out(desk, (namespace, group), &of_group, &shares).await;
                unmoved = revoke(desk, (namespace, group), &of_group, asked).await;
            }
            let moves = plan.moves.into_iter();
            let moves = moves.filter(|step| !unmoved.contains(&step.from));
            outcome
                .operations
                .extend(moves.map(|step| wire::RebalanceOperation {
                    group: group.clone(),
                    action: wire::RebalanceAction::Revoke.into(),
                    from: step.from,
                    to: step.to,
                    count: step.count,
                    reason: step.reason,
                }));
        }
    }
    outcome
}

fn add(counts: &mut BTreeMap<String, u32>, consumer: &str, count: u32) {
    let sum = counts.entry(consumer.to_owned()).or_default();
    *sum = sum.saturating_add(count);
}

/// Says at all gateways who is meant to get how much, before anything is given back.
async fn share_out(
    desk: &Desk,
    (namespace, group): (&str, &str),
    attached: &[&Attached],
    shares: &BTreeMap<String, u32>,
) {
    let mut by_gateway: BTreeMap<&str, Vec<wire::RevokeShare>> = BTreeMap::new();
    for one in attached {
        let consumer_id = one.connection.consumer_id.clone();
        let messages = shares.get(&consumer_id).copied().unwrap_or_default();
        let of_gateway = by_gateway.entry(&one.gateway).or_default();
        // Who is not named takes nothing: one name is enough where nobody there is meant.
        if messages > 0 || of_gateway.is_empty() {
            of_gateway.push(wire::RevokeShare {
                consumer_id,
                messages,
            });
        }
    }
    let told = by_gateway
        .into_iter()
        .map(|(gateway, mut shares)| async move {
            // Those beyond take nothing for half a second, and get their part of what is left then.
            shares.truncate(BATCH_ITEMS_MAX);
            let request = wire::RevokeDeliveriesRequest {
                group: group.to_owned(),
                from: Vec::new(),
                shares,
            };
            // Where it is not told, whoever has room takes: less even, and nothing is lost.
            if let Err(fault) = desk.gateways.revoke(gateway, namespace, request).await {
                tracing::debug!(gateway, group, %fault, "shares_not_told");
            }
        });
    join_all(told).await;
}

/// Asks consumers for deliveries back, each through its gateway; answers those that were not asked.
async fn revoke(
    desk: &Desk,
    (namespace, group): (&str, &str),
    attached: &[&Attached],
    asked: BTreeMap<String, u32>,
) -> BTreeSet<String> {
    let mut by_gateway: BTreeMap<&str, Vec<wire::RevokeFrom>> = BTreeMap::new();
    let mut unmoved = BTreeSet::new();
    for (consumer_id, messages) in asked {
        let place = attached
            .iter()
            .find(|one| one.connection.consumer_id == consumer_id);
        let Some(place) = place else {
            unmoved.insert(consumer_id);
            continue;
        };
        let from = wire::RevokeFrom {
            consumer_id,
            messages,
        };
        by_gateway.entry(&place.gateway).or_default().push(from);
    }
    for (gateway, from) in by_gateway {
        for from in from.chunks(BATCH_ITEMS_MAX) {
            let messages = from.iter().map(|one| u64::from(one.messages)).sum();
            let request = wire::RevokeDeliveriesRequest {
                group: group.to_owned(),
                from: from.to_vec(),
                shares: Vec::new(),
            };
            match desk.gateways.revoke(gateway, namespace, request).await {
                Ok(_asked) => metrics::revoked(messages),
                // They stay where they are, and the next round plans anew.
                Err(fault) => {
                    tracing::debug!(gateway, group, %fault, "revoke_failed");
                    unmoved.extend(from.iter().map(|one| one.consumer_id.clone()));
                },
            }
        }
    }
    unmoved
}

/// Offers the idle agents of a namespace to groups with a backlog that they can work on.
pub(crate) async fn offer(
    desk: &Desk,
    namespace: &str,
    is_dry: bool,
) -> Result<Vec<wire::RebalanceOperation>, StoreError> {
    let facts = desk.store.group_facts(namespace).await?;
    let backlogs: Vec<Backlog> = facts
        .iter()
        .filter(|group| group.state == GroupState::Active && group.waiting > 0)
        .map(|group| Backlog {
            group: group.name.clone(),
            waiting: group.waiting,
            consumers: group.live_consumers,
            max_consumers: group.max_consumers,
            wanted_sets: group.wanted_sets.clone(),
        })
        .collect();
    if backlogs.is_empty() {
        return Ok(Vec::new());
    }
    let busy: BTreeSet<&str> = backlogs.iter().map(|one| one.group.as_str()).collect();
    let attached = desk.gateways.connections(namespace, &[]).await;
    // All memberships: an agent that is at work in one group is idle in none.
    let idle: Vec<Idle> = attached
        .iter()
        .map(|one| &one.connection)
        .map(|one| {
            let is_free = one.accepts_offers && !one.draining && one.held == 0;
            let is_home_idle = !busy.contains(one.group.as_str());
            Idle {
                group: one.group.clone(),
                consumer: one.consumer_id.clone(),
                capabilities: one.capabilities.iter().cloned().collect::<CapabilitySet>(),
                idle_ms: if is_free && is_home_idle {
                    one.idle_ms
                } else {
                    0
                },
            }
        })
        .collect();
    let mut operations = Vec::new();
    for offer in rebalance::offers(&backlogs, &idle) {
        let place = attached.iter().find(|one| {
            one.connection.consumer_id == offer.consumer && one.connection.group == offer.group
        });
        let Some(place) = place else { continue };
        if !is_dry {
            let request = wire::OfferGroupRequest {
                group: offer.group.clone(),
                consumer_id: offer.consumer.clone(),
                offered_group: offer.to.clone(),
                reason: offer.reason.clone(),
            };
            match desk
                .gateways
                .offer(&place.gateway, namespace, request)
                .await
            {
                Ok(true) => metrics::offered(),
                Ok(false) => continue,
                Err(fault) => {
                    tracing::debug!(consumer = offer.consumer, %fault, "offer_failed");
                    continue;
                },
            }
        }
        operations.push(wire::RebalanceOperation {
            group: offer.group,
            action: wire::RebalanceAction::Offer.into(),
            from: offer.consumer,
            to: offer.to,
            count: 0,
            reason: offer.reason,
        });
    }
    Ok(operations)
}

/// What a call for one group, or all of a namespace, came to.
///
/// # Errors
/// `GROUP_NOT_FOUND`, or what Redis says.
pub(crate) async fn asked(
    desk: &Desk,
    namespace: &str,
    request: &wire::RebalanceRequest,
) -> Result<Outcome, Fault> {
    let mut groups = desk.store.groups(namespace).await?;
    if !request.group.is_empty() {
        groups.retain(|group| group.name == request.group);
        if groups.is_empty() {
            return Err(Fault::no_group(&request.group));
        }
    }
    let groups: Vec<&GroupDefinition> = groups.iter().collect();
    // A gateway that started since the last beat: what it holds would be missing.
    let live = desk.store.replicas().await?;
    desk.gateways.peers.note(places(&live));
    let mut outcome = rebalance(desk, namespace, &groups, request.dry_run).await;
    if request.group.is_empty() && desk.options().enable_cross_group_coordination {
        let offers = offer(desk, namespace, request.dry_run).await?;
        outcome.operations.extend(offers);
    }
    if !request.dry_run {
        told(namespace, &outcome.operations);
    }
    Ok(outcome)
}

fn holding(attached: &Attached) -> Holding {
    let one = &attached.connection;
    Holding {
        consumer: one.consumer_id.clone(),
        // As it will be once what was asked for has moved: a second plan right behind counts on it.
        held: one
            .held
            .saturating_sub(one.leaving)
            .saturating_add(one.coming),
        begun: one.begun,
        room: one.room.saturating_sub(one.coming),
        concurrency: one.concurrency,
        max_in_flight: one.max_in_flight,
        idle_ms: one.idle_ms,
        capabilities: one.capabilities.iter().cloned().collect(),
        draining: one.draining,
        accepts_offers: one.accepts_offers,
    }
}

fn told(namespace: &str, operations: &[wire::RebalanceOperation]) {
    for one in operations {
        let (group, from, to) = (one.group.as_str(), one.from.as_str(), one.to.as_str());
        let (count, reason) = (one.count, one.reason.as_str());
        tracing::info!(namespace, group, from, to, count, reason, "rebalanced");
    }
}
