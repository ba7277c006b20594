//! Finishes what somebody began and did not end: groups and streams half made or half deleted.
//!
//! Whoever creates or deletes one takes the same steps; each of them is idempotent, so it does
//! no harm that the one who was slow and the coordinator both take them.

use hive_domain::group::{GroupDefinition, GroupSettings, GroupState, Start};
use hive_domain::stream::{StreamDefinition, StreamSettings};
use hive_domain::time::Timestamp;
use hive_store::StoreError;
use hive_store::control::{Made, Put, Removal, ShardGroup, StateSet};
use hive_store::settle::{Action, Settle};
use hive_store::sweep::Take;

use crate::expire;
use crate::shard::{Scope, View};

/// Entries per page of what is delivered and unsettled.
const PAGE: u64 = 200;
/// Slices cancelled per lane and round; the next round goes on.
const SLICES_MAX: u32 = 500;

/// Carries on with what is half done on a shard. The first shard of a stream also says so in the
/// definition.
pub(crate) async fn resume(scope: &Scope, view: &View) -> Result<(), StoreError> {
    let (groups, closed) = scope.store.shard_state(&scope.shard).await?;
    if let Some(stream) = &view.stream
        && closed.is_some()
        && scope.index == 0
    {
        resume_stream(scope, stream).await?;
    }
    for found in groups {
        let is_told = |group: &&GroupDefinition| group.name == found.name;
        if let Some(known) = view.live().find(is_told)
            && known.state != found.state
        {
            reconcile(scope, &found).await?;
        }
        if found.state == GroupState::Deleting && !view.groups.iter().any(|one| is_told(&one)) {
            finish_orphan(scope, found.name, found.version).await?;
        }
    }
    for name in &view.stuck {
        let Some(group) = defined(scope, name).await? else {
            continue;
        };
        match group.state {
            GroupState::Creating => finish_creation(scope, group).await?,
            GroupState::Deleting => finish_deletion(scope, &group).await?,
            GroupState::Active | GroupState::Paused => {},
        }
    }
    Ok(())
}

/// Carries out the end of a stream that was decided; takes the mark of an earlier one off.
async fn resume_stream(scope: &Scope, stream: &StreamDefinition) -> Result<(), StoreError> {
    let (store, shard) = (&scope.store, &scope.shard);
    let (namespace, name) = (&*scope.namespace, stream.name.as_str());
    if store.open_on_shard(shard, stream.created_at).await? {
        tracing::info!(namespace, stream = name, "stream_creation_finished");
    } else if let Put::Stored(_) = store.remove_stream(namespace, stream).await? {
        tracing::info!(namespace, stream = name, "stream_deletion_finished");
    }
    Ok(())
}

/// What is defined now: the view is a beat old.
async fn defined(scope: &Scope, name: &str) -> Result<Option<GroupDefinition>, StoreError> {
    let group = scope.store.group(&scope.namespace, name).await?;
    Ok(group.filter(|group| group.stream == *scope.stream))
}

/// Brings a definition and its shard together: whoever changed the one was cut off before the
/// other. The definition wins, but for a deletion, which the shard decides.
async fn reconcile(scope: &Scope, found: &ShardGroup) -> Result<(), StoreError> {
    let Some(mut group) = defined(scope, &found.name).await? else {
        return Ok(());
    };
    match (group.state, found.state) {
        (GroupState::Creating | GroupState::Deleting, _) => Ok(()),
        (_, GroupState::Deleting) => {
            // Read behind the definition: a group that was deleted and made again meanwhile is
            // active on its shard before its definition says so.
            let now = scope.store.shard_groups(&scope.shard).await?;
            if !now.contains(found) {
                return Ok(());
            }
            group.state = GroupState::Deleting;
            let Put::Stored(version) = scope.store.put_group(&scope.namespace, &group).await?
            else {
                return Ok(());
            };
            group.version = version;
            finish_deletion(scope, &group).await
        },
        (said, there) if said == there => Ok(()),
        (said, _) => {
            // The script refuses it where a newer definition was carried out meanwhile.
            let set = scope.store.set_state_on_shard(&scope.shard, &group).await?;
            if set == StateSet::Done {
                let (shard, version) = (&scope.shard, group.version);
                tracing::info!(?shard, group = group.name, version, "state_carried_out");
                if said == GroupState::Active {
                    scope.ring().await?;
                }
            }
            Ok(())
        },
    }
}

async fn finish_creation(scope: &Scope, mut group: GroupDefinition) -> Result<(), StoreError> {
    if scope.store.create_on_shard(&scope.shard, &group).await? == Made::Closed {
        // Its stream was deleted meanwhile; whoever creates a group makes that anew.
        let stream = StreamDefinition {
            name: group.stream.clone(),
            shards: group.shards,
            created_at: group.created_at,
            version: 0,
            settings: StreamSettings::default(),
        };
        scope.store.ensure_stream(&scope.namespace, &stream).await?;
        return Ok(());
    }
    if scope.index != 0 {
        return Ok(());
    }
    for index in 1..group.shards {
        let shard = scope.store.shard(&scope.namespace, &scope.stream, index);
        scope.store.create_on_shard(&shard, &group).await?;
    }
    let made = group.version;
    group.state = GroupState::Active;
    if let Put::Stored(version) = scope.store.put_group(&scope.namespace, &group).await? {
        let (namespace, group) = (&*scope.namespace, group.name);
        tracing::info!(namespace, group, version, "creation_finished");
        return Ok(());
    }
    // Somebody else went on, or deletes it and has passed the shard before we made it there.
    match defined(scope, &group.name).await? {
        Some(group) if group.state == GroupState::Deleting => finish_deletion(scope, &group).await,
        Some(_) => Ok(()),
        None => finish_orphan(scope, group.name, made).await,
    }
}

/// Deletes what is on the shard of a group that has no definition, where that is of this version or
/// an older one: a group of the name that was made since is newer.
async fn finish_orphan(scope: &Scope, name: String, version: u64) -> Result<(), StoreError> {
    if defined(scope, &name).await?.is_some() {
        return Ok(());
    }
    let group = GroupDefinition {
        name,
        stream: (*scope.stream).to_owned(),
        agent_type: String::new(),
        shards: 1,
        start: Start::default(),
        state: GroupState::Deleting,
        created_at: Timestamp::default(),
        version,
        settings: GroupSettings::default(),
    };
    finish_deletion(scope, &group).await
}

/// Whether the group is in state `deleting` on the shard now; not where it is gone, or where
/// another one of the name was made since: that must lose nothing to an old deletion.
async fn is_deleting(scope: &Scope, group: &GroupDefinition) -> Result<bool, StoreError> {
    let set = scope.store.set_state_on_shard(&scope.shard, group).await?;
    Ok(set == StateSet::Done)
}

async fn finish_deletion(scope: &Scope, group: &GroupDefinition) -> Result<(), StoreError> {
    if scope.store.set_state_on_shard(&scope.shard, group).await? == StateSet::Stale {
        return Ok(());
    }
    // Also first: the lanes of a group that was found empty do not know it any more.
    if !remove(scope, group).await? {
        cancel_all(scope, group).await?;
        if !remove(scope, group).await? {
            // What is left is for the next round.
            return Ok(());
        }
    }
    if scope.index != 0 {
        return Ok(());
    }
    for index in 1..group.shards {
        let shard = scope.store.shard(&scope.namespace, &scope.stream, index);
        if let Removal::NotEmpty(_) = scope.store.delete_on_shard(&shard, &group.name).await? {
            return Ok(());
        }
    }
    let put = scope
        .store
        .remove_group(&scope.namespace, &group.name, group.version)
        .await?;
    if matches!(put, Put::Stored(_)) {
        let (namespace, group) = (&*scope.namespace, group.name.as_str());
        scope.store.forget_scaling(namespace, &[group]).await?;
        tracing::info!(namespace, group, "deletion_finished");
    }
    Ok(())
}

/// Removes a group from the shard; false when it has unsettled messages.
async fn remove(scope: &Scope, group: &GroupDefinition) -> Result<bool, StoreError> {
    let (store, shard) = (&scope.store, &scope.shard);
    let mut delayed = 0;
    loop {
        delayed = store
            .cancel_scheduled(shard, &group.name, (delayed, false))
            .await?
            .0;
        if delayed == 0 {
            break;
        }
    }
    match store.delete_on_shard(shard, &group.name).await? {
        Removal::Done(_) | Removal::Absent => Ok(true),
        Removal::NotEmpty(_) => Ok(false),
    }
}

/// Moves everything unsettled of a group to the dead letters as cancelled.
async fn cancel_all(scope: &Scope, group: &GroupDefinition) -> Result<(), StoreError> {
    let (lanes, _) = scope.store.read_lanes(&scope.shard, &group.name).await?;
    for (number, lane) in lanes.iter().enumerate() {
        for _ in 0..SLICES_MAX {
            if !is_deleting(scope, group).await? {
                return Ok(());
            }
            let ids = expire::take(scope, group, lane, Take::All).await?;
            if ids.is_empty() {
                break;
            }
            expire::end(scope, group, &lanes, lane, &ids, &Action::Cancel).await?;
        }
        let mut cursor = "-".to_owned();
        for _ in 0..SLICES_MAX {
            if !is_deleting(scope, group).await? {
                return Ok(());
            }
            let page = scope
                .store
                .pending(&group.name, &lanes, number, (&cursor, PAGE), None)
                .await?;
            let Some(last) = page.last() else { break };
            cursor = format!("({}", last.id);
            let items: Vec<Settle> = page
                .iter()
                .map(|entry| Settle {
                    lease: entry.lease(&lanes, "*", 0),
                    attach: 0,
                    check_session: false,
                    action: Action::Cancel,
                })
                .collect();
            scope.settle(group, &lanes, &items).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
