//! Ends memberships: of consumers whose gateway died, and of those that no longer call.

use hive_domain::group::GroupDefinition;
use hive_domain::recovery;
use hive_store::StoreError;
use hive_store::fetch::{Lanes, ReadLane};
use hive_store::members::{Kind, Leaving, Member};
use hive_store::settle::{Action, Settle};

use crate::metrics::{self, Gone, Recovered};
use crate::recover::{Clock, Memory};
use crate::shard::{Scope, View, taken};

/// A gateway that is not heard for longer is dead, in ms: it beats every 2 s.
const GATEWAY_SILENCE_MS: u64 = 10_000;
/// The row of a dead gateway without members is kept for an hour, for whoever looks.
const GATEWAY_ROW_MS: u64 = 3_600_000;

/// Looks at every member of every group of the shard.
pub(crate) async fn tend(
    scope: &Scope,
    memory: &mut Memory,
    view: &View,
    lanes: &Lanes,
    now: Clock,
) -> Result<(), StoreError> {
    let mut serving: Vec<String> = Vec::new();
    for group in view.live() {
        let end = tend_group(scope, memory, group, lanes, now).await;
        serving.extend(scope.settle_trouble(&group.name, end).await?);
    }
    for (gateway, beat_ms) in &memory.beats {
        if now.now_ms.saturating_sub(*beat_ms) > GATEWAY_ROW_MS && !serving.contains(gateway) {
            let (store, shard) = (&scope.store, &scope.shard);
            store.forget_gateway(shard, gateway, *beat_ms).await?;
        }
    }
    Ok(())
}

/// Looks at the members of a group; answers which gateways serve any.
async fn tend_group(
    scope: &Scope,
    memory: &mut Memory,
    group: &GroupDefinition,
    lanes: &Lanes,
    now: Clock,
) -> Result<Vec<String>, StoreError> {
    let members = scope.store.members(&scope.shard, &group.name).await?;
    let own = memory.groups.entry(group.name.clone()).or_default();
    own.note_members(&members);
    let read = lanes.of_group(&scope.shard, &group.name);
    let mut serving = Vec::new();
    for member in members {
        match member.kind {
            Kind::Stream => {
                let beat_ms = memory.beats.get(&member.gateway).copied();
                let (joined, steady) = (member.last_ms, now.steady_ms);
                let silence = GATEWAY_SILENCE_MS;
                if recovery::is_gateway_dead(now.now_ms, beat_ms, joined, steady, silence) {
                    give_up(scope, group, &read, &member).await?;
                }
                serving.push(member.gateway);
            },
            Kind::Pull => end_if_silent(scope, group, &read, &member, now).await?,
        }
    }
    Ok(serving)
}

/// Gives back, uncounted, what a member of a dead gateway holds, and ends its membership. Both name
/// the connection: a consumer that came back over another gateway loses nothing.
async fn give_up(
    scope: &Scope,
    group: &GroupDefinition,
    lanes: &[ReadLane],
    member: &Member,
) -> Result<(), StoreError> {
    let held = scope
        .store
        .held_by(&group.name, lanes, &member.consumer)
        .await?;
    let items: Vec<Settle> = held
        .iter()
        .map(|entry| Settle {
            lease: entry.lease(lanes, &member.session, 0),
            attach: member.attach,
            check_session: true,
            action: Action::GiveBack { idle_ms: 0 },
        })
        .collect();
    let given_back = taken(&scope.settle(group, lanes, &items).await?);
    metrics::recovered(Recovered::GatewayLost, given_back);
    if given_back > 0 {
        scope.ring().await?;
    }
    let who = (
        member.consumer.as_str(),
        member.session.as_str(),
        member.attach,
    );
    let left = scope
        .store
        .leave(&scope.shard, &group.name, lanes, who)
        .await?;
    if left == Leaving::Done {
        metrics::member_gone(Gone::GatewayLost);
        tracing::info!(
            shard = ?scope.shard,
            group = group.name,
            consumer = member.consumer,
            gateway = member.gateway,
            given_back,
            "member_of_dead_gateway"
        );
    }
    Ok(())
}

/// Ends the membership of a pull consumer that made no call for too long and holds nothing.
async fn end_if_silent(
    scope: &Scope,
    group: &GroupDefinition,
    lanes: &[ReadLane],
    member: &Member,
    now: Clock,
) -> Result<(), StoreError> {
    let silent_ms = now.now_ms.saturating_sub(member.last_ms);
    if silent_ms <= scope.settings.consumer_ttl_ms {
        return Ok(());
    }
    let name = member.consumer.as_str();
    if !scope
        .store
        .held_by(&group.name, lanes, name)
        .await?
        .is_empty()
    {
        return Ok(());
    }
    // A call that came meanwhile renews the row; the session it keeps would not tell.
    let left = scope
        .store
        .leave_silent(&scope.shard, &group.name, lanes, member)
        .await?;
    if left == Leaving::Done {
        metrics::member_gone(Gone::Silent);
        let group = group.name.as_str();
        tracing::debug!(shard = ?scope.shard, group, consumer = name, silent_ms, "member_silent");
    }
    Ok(())
}
