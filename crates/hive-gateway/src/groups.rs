//! Groups: creating, changing, deleting, and how they are doing.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _};
use hive_domain::{
    group::{GroupDefinition, GroupState},
    name,
    violation::Violations,
};
use hive_protocol::{
    convert,
    fault::{Fault, Reason},
    limits::ORDERING_KEY_BYTES_MAX,
    time, wire,
};
use hive_store::{
    LaneRef, Shard, StoreError,
    control::{Made, Put, Removal, StateSet},
    coordination::ScalingRow,
    figures::Figures,
    members::{Kind, Leaving, Member},
    settle::{Action, Settle},
};

use crate::{
    catalog::GroupView,
    core::{Gateway, now_ms, reading},
    pull,
    purge::Spare,
    streams::LISTED_TOGETHER,
};

/// How often a change is tried again when somebody else changed the definition meanwhile.
pub(crate) const TRIES: usize = 5;
/// Longest forced deletion in one call; a coordinator carries on with the rest.
const CANCEL_WITHIN: Duration = Duration::from_secs(20);

impl Gateway {
    /// Creates a group, and its stream where that does not exist.
    ///
    /// # Errors
    /// Violations, `GROUP_EXISTS` or `STREAM_EXISTS` with the difference, `DURABILITY_UNREACHABLE`,
    /// or what Redis says.
    pub async fn create_group(
        &self,
        namespace: &str,
        request: wire::CreateGroupRequest,
    ) -> Result<wire::CreateGroupResponse, Fault> {
        let asked = convert::create_group(&request, now_ms().into())?;
        let _pass = self.enter("create_group")?;
        let mut created = false;
        for _ in 0..TRIES {
            let existing = self.store.group(namespace, &asked.name).await?;
            if let Some(existing) = &existing {
                let difference = existing.difference(&asked);
                if !difference.is_empty() {
                    return Err(Fault::new(
                        Reason::GroupExists,
                        format!(
                            "group `{}` exists with other settings: {}",
                            asked.name,
                            difference.join(", ")
                        ),
                    ));
                }
            }
            self.make_stream_of_group(namespace, &asked, &request)
                .await?;
            let shard = self.store.shard(namespace, &asked.stream, 0);
            let mut definition = match existing {
                Some(existing) => existing,
                None => {
                    let mut definition = asked.clone();
                    definition.state = GroupState::Creating;
                    definition.version = 0;
                    match self.store.put_group(namespace, &definition).await? {
                        Put::Stored(version) => definition.version = version,
                        Put::Conflict => continue,
                        Put::Full => return Err(too_many("groups")),
                    }
                    created = true;
                    definition
                },
            };
            if definition.state == GroupState::Deleting {
                return Err(being_deleted(&definition.name));
            }
            // Also for a group that exists: what a crash left half made is finished here.
            let made = self.store.create_on_shard(&shard, &definition).await?;
            if made == Made::Closed {
                // Its stream was deleted behind our back: it is made anew.
                continue;
            }
            if made == Made::Created && definition.state != GroupState::Creating {
                let now = self.store.group(namespace, &definition.name).await?;
                if now.is_none_or(|now| now.created_at != definition.created_at) {
                    // So was the group, and what we made there has no definition.
                    continue;
                }
            }
            let there = self.store.groups_on_shard(&shard).await?;
            if made == Made::Exists && !there.contains(&definition.name) {
                return Err(being_deleted(&definition.name));
            }
            if definition.state == GroupState::Creating {
                definition.state = GroupState::Active;
                match self.store.put_group(namespace, &definition).await? {
                    Put::Stored(version) => definition.version = version,
                    Put::Conflict => continue,
                    Put::Full => return Err(too_many("groups")),
                }
            }
            self.catalog
                .forget(namespace, &definition.name, &definition.stream);
            let view = self.catalog.group(namespace, &definition.name).await?;
            let group = self.shown(&view).await?;
            return Ok(wire::CreateGroupResponse {
                group: Some(group),
                created,
            });
        }
        Err(changing("group", &asked.name))
    }

    /// Shows one group with its figures.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`, or what Redis says.
    pub async fn get_group(
        &self,
        namespace: &str,
        request: wire::GetGroupRequest,
    ) -> Result<wire::GetGroupResponse, Fault> {
        reading(async move {
            name::check("name", &request.name)?;
            let view = self.catalog.group(namespace, &request.name).await?;
            Ok(wire::GetGroupResponse {
                group: Some(self.shown(&view).await?),
            })
        })
        .await
    }

    /// Shows all groups of the namespace with their figures, by name.
    ///
    /// # Errors
    /// What Redis says.
    pub async fn list_groups(
        &self,
        namespace: &str,
        _request: wire::ListGroupsRequest,
    ) -> Result<wire::ListGroupsResponse, Fault> {
        reading(async move {
            let definitions = self.store.groups(namespace).await?;
            let scaled = self.store.scaling_rows(namespace).await?;
            let is_there = |definition: &GroupDefinition| {
                matches!(definition.state, GroupState::Active | GroupState::Paused)
            };
            let shown = definitions.into_iter().filter(is_there).map(|definition| {
                let wanted = wanted(scaled.get(&definition.name), &definition);
                async move { self.listed(namespace, &definition, wanted).await }.boxed()
            });
            let mut shown = futures_util::stream::iter(shown).buffered(LISTED_TOGETHER);
            let mut groups = Vec::new();
            while let Some(listed) = shown.next().await {
                match listed {
                    Ok(group) => groups.push(group),
                    // Deleted while we listed.
                    Err(fault)
                        if matches!(fault.reason, Reason::GroupNotFound | Reason::GroupGone) => {},
                    Err(fault) => return Err(fault),
                }
            }
            Ok(wire::ListGroupsResponse { groups })
        })
        .await
    }

    /// One group of many: that the data of one is gone must not hide the others.
    async fn listed(
        &self,
        namespace: &str,
        definition: &GroupDefinition,
        wanted: Option<u32>,
    ) -> Result<wire::Group, Fault> {
        let view = self.catalog.group(namespace, &definition.name).await?;
        match self.shown_with(&view, wanted).await {
            Err(fault) if fault.reason == Reason::DataLoss => {
                let group = definition.name.as_str();
                tracing::warn!(namespace, group, "group_without_data");
                let figures = wire::GroupFigures {
                    health: "data_lost".to_owned(),
                    ..wire::GroupFigures::default()
                };
                Ok(convert::group(definition, Some(figures)))
            },
            other => other,
        }
    }

    async fn shown(&self, view: &GroupView) -> Result<wire::Group, Fault> {
        let wanted = self.wanted(view).await?;
        self.shown_with(view, wanted).await
    }

    async fn shown_with(
        &self,
        view: &GroupView,
        wanted: Option<u32>,
    ) -> Result<wire::Group, Fault> {
        let (mut shown, _) = self.figures_without_wish(view).await?;
        shown.desired_consumers = wanted;
        Ok(convert::group(&view.definition, Some(shown)))
    }

    /// How many consumers the coordinators want; none where the group is not scaled, or nothing was
    /// decided yet.
    async fn wanted(&self, view: &GroupView) -> Result<Option<u32>, Fault> {
        let (definition, name) = (&view.definition, &view.definition.name);
        if !definition.settings.auto_scale_enabled {
            return Ok(None);
        }
        match self.store.scaling_row(&view.namespace, name).await {
            Ok(row) => Ok(wanted(row.as_ref(), definition)),
            // The group is as well as ever; its coordinator claims the row anew.
            Err(StoreError::Corrupt { what }) => {
                tracing::warn!(group = name.as_str(), what, "scaling_unreadable");
                Ok(None)
            },
            Err(error) => Err(error.into()),
        }
    }

    /// The figures of a group as callers see them, and as Redis has them.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND` and `GROUP_GONE` where it was deleted meanwhile, or what Redis says.
    pub(crate) async fn shown_figures(
        &self,
        view: &GroupView,
    ) -> Result<(wire::GroupFigures, Figures), Fault> {
        let (mut shown, figures) = self.figures_without_wish(view).await?;
        shown.desired_consumers = self.wanted(view).await?;
        Ok((shown, figures))
    }

    async fn figures_without_wish(
        &self,
        view: &GroupView,
    ) -> Result<(wire::GroupFigures, Figures), Fault> {
        let figures = match self.group_figures(view).await {
            // Its lanes, or its places in them, are gone: with it, or without.
            Err(fault) if matches!(fault.reason, Reason::DataLoss | Reason::Bug) => {
                let name = view.definition.name.as_str();
                let there = self.store.groups_on_shard(&view.shard).await?;
                if there.iter().any(|group| group == name) {
                    return Err(fault);
                }
                self.catalog
                    .forget(&view.namespace, name, &view.definition.stream);
                self.catalog.group(&view.namespace, name).await?;
                let states = self.store.shard_groups(&view.shard).await?;
                if states.iter().any(|group| group.name == name) {
                    return Err(being_deleted(name));
                }
                return Err(fault);
            },
            other => other?,
        };
        let is_stranded = self.is_stranded(view, &figures).await?;
        Ok((wire_figures(&figures, view, is_stranded), figures))
    }

    /// Whether messages wait that no member may take.
    async fn is_stranded(&self, view: &GroupView, figures: &Figures) -> Result<bool, StoreError> {
        let mut demanding: Vec<LaneRef> = figures
            .waiting_lanes
            .iter()
            .filter_map(|reference| reference.parse().ok())
            .collect();
        demanding.retain(|one: &LaneRef| !one.lane.suffix().is_empty());
        if demanding.is_empty() {
            return Ok(false);
        }
        let members = self
            .store
            .members(&view.shard, &view.definition.name)
            .await?;
        Ok(demanding.iter().any(|one| {
            !members
                .iter()
                .any(|member| one.lane.serves(&member.consumer, &member.capabilities))
        }))
    }

    /// The figures of a group, from Redis.
    ///
    /// # Errors
    /// What Redis says.
    pub async fn group_figures(&self, view: &GroupView) -> Result<Figures, Fault> {
        let lanes = self.catalog.read_lanes(&view.shard).await?;
        let lanes = lanes.of_group(&view.shard, &view.definition.name);
        Ok(self
            .store
            .figures(&view.shard, &view.definition.name, &lanes)
            .await?)
    }

    /// Changes settings of a group.
    ///
    /// # Errors
    /// Violations, `GROUP_NOT_FOUND`, or what Redis says.
    pub async fn update_group(
        &self,
        namespace: &str,
        request: wire::UpdateGroupRequest,
    ) -> Result<wire::UpdateGroupResponse, Fault> {
        name::check("name", &request.name)?;
        let _pass = self.enter("update_group")?;
        let change = request.settings;
        let view = self
            .change_group(namespace, &request.name, |definition| {
                definition.settings = convert::update_group(&definition.settings, change.as_ref())?;
                Ok(())
            })
            .await?;
        Ok(wire::UpdateGroupResponse {
            group: Some(self.shown(&view).await?),
        })
    }

    /// Stops deliveries of a group.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`, or what Redis says.
    pub async fn pause_group(
        &self,
        namespace: &str,
        request: wire::PauseGroupRequest,
    ) -> Result<wire::PauseGroupResponse, Fault> {
        let group = self
            .set_state(namespace, &request.name, GroupState::Paused)
            .await?;
        Ok(wire::PauseGroupResponse { group: Some(group) })
    }

    /// Starts deliveries of a group again.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`, or what Redis says.
    pub async fn resume_group(
        &self,
        namespace: &str,
        request: wire::ResumeGroupRequest,
    ) -> Result<wire::ResumeGroupResponse, Fault> {
        let group = self
            .set_state(namespace, &request.name, GroupState::Active)
            .await?;
        Ok(wire::ResumeGroupResponse { group: Some(group) })
    }

    async fn set_state(
        &self,
        namespace: &str,
        group: &str,
        state: GroupState,
    ) -> Result<wire::Group, Fault> {
        name::check("name", group)?;
        let _pass = self.enter("set_state")?;
        let view = self
            .change_group(namespace, group, |definition| {
                definition.state = state;
                Ok(())
            })
            .await?;
        self.store
            .set_state_on_shard(&view.shard, &view.definition)
            .await?;
        if state == GroupState::Active {
            self.bells.announce(&self.store, &view.shard);
        }
        self.shown(&view).await
    }

    async fn change_group(
        &self,
        namespace: &str,
        group: &str,
        change: impl Fn(&mut GroupDefinition) -> Result<(), Fault>,
    ) -> Result<Arc<GroupView>, Fault> {
        for _ in 0..TRIES {
            let mut definition = self
                .store
                .group(namespace, group)
                .await?
                .ok_or_else(|| Fault::no_group(group))?;
            if matches!(
                definition.state,
                GroupState::Creating | GroupState::Deleting
            ) {
                return Err(Fault::no_group(group));
            }
            change(&mut definition)?;
            match self.store.put_group(namespace, &definition).await? {
                Put::Stored(_) => {
                    self.catalog.forget(namespace, group, &definition.stream);
                    return self.catalog.group(namespace, group).await;
                },
                Put::Conflict => {},
                Put::Full => return Err(too_many("groups")),
            }
        }
        Err(changing("group", group))
    }

    /// Deletes a group; with `force` what is unsettled goes to the dead letters first.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`, `GROUP_NOT_EMPTY`, or what Redis says.
    pub async fn delete_group(
        &self,
        namespace: &str,
        request: wire::DeleteGroupRequest,
    ) -> Result<wire::DeleteGroupResponse, Fault> {
        name::check("name", &request.name)?;
        let _pass = self.enter("delete_group")?;
        let group = &request.name;
        let definition = self
            .store
            .group(namespace, group)
            .await?
            .ok_or_else(|| Fault::no_group(group))?;
        let shard = self.store.shard(namespace, &definition.stream, 0);
        let is_begun = definition.state == GroupState::Deleting;
        if !request.force
            && !is_begun
            && let Removal::NotEmpty(_) = self.store.retire_on_shard(&shard, group).await?
        {
            let view = self.catalog.group(namespace, group).await?;
            let figures = self.group_figures(&view).await?;
            return Err(Fault::new(
                Reason::GroupNotEmpty,
                format!(
                    "group `{group}` has unsettled messages: lag `{}`, pending `{}`, scheduled \
                     `{}`; settle them, or delete with force",
                    figures.waiting, figures.pending, figures.scheduled
                ),
            ));
        }
        // None: a coordinator was faster.
        let Some(definition) = self.mark_deleting(namespace, &definition).await? else {
            self.catalog.forget(namespace, group, &definition.stream);
            return Ok(wire::DeleteGroupResponse { cancelled: 0 });
        };
        // Another group of the name is there by now: a coordinator was faster here, too.
        if self.store.set_state_on_shard(&shard, &definition).await? == StateSet::Stale {
            self.catalog.forget(namespace, group, &definition.stream);
            return Ok(wire::DeleteGroupResponse { cancelled: 0 });
        }
        let cancelled = self
            .cancel_everything(namespace, &shard, &definition)
            .await?;
        match self
            .store
            .remove_group(namespace, group, definition.version)
            .await?
        {
            Put::Stored(_) => self.store.forget_scaling(namespace, &[group]).await?,
            Put::Conflict | Put::Full => {
                // Who is told to try again would delete the group that was made since.
                let now = self.store.group(namespace, group).await?;
                if now.is_some_and(|now| now.created_at == definition.created_at) {
                    return Err(changing("group", group));
                }
            },
        }
        self.catalog.forget(namespace, group, &definition.stream);
        Ok(wire::DeleteGroupResponse { cancelled })
    }

    /// Says in the definition that the group is being deleted; none when it is gone already, also
    /// where another one of the name was made since.
    async fn mark_deleting(
        &self,
        namespace: &str,
        was: &GroupDefinition,
    ) -> Result<Option<GroupDefinition>, Fault> {
        for _ in 0..TRIES {
            let mut definition = match self.store.group(namespace, &was.name).await? {
                Some(definition) if definition.created_at == was.created_at => definition,
                Some(_) | None => return Ok(None),
            };
            if definition.state == GroupState::Deleting {
                return Ok(Some(definition));
            }
            definition.state = GroupState::Deleting;
            match self.store.put_group(namespace, &definition).await? {
                Put::Stored(version) => {
                    definition.version = version;
                    return Ok(Some(definition));
                },
                Put::Conflict => {},
                Put::Full => return Err(too_many("groups")),
            }
        }
        Err(changing("group", &was.name))
    }

    async fn cancel_everything(
        &self,
        namespace: &str,
        shard: &Shard,
        definition: &GroupDefinition,
    ) -> Result<u64, Fault> {
        let end = std::time::Instant::now() + CANCEL_WITHIN;
        let group = &definition.name;
        let stream = self.store.stream(namespace, &definition.stream).await?;
        let view = GroupView {
            namespace: namespace.to_owned(),
            definition: definition.clone(),
            stream: stream.ok_or_else(|| Fault::no_stream(&definition.stream))?,
            shard: shard.clone(),
        };
        let (mut cancelled, mut delayed) = (0, Some(0));
        while std::time::Instant::now() < end {
            if let Some(cursor) = delayed {
                let (next, moved) = self
                    .store
                    .cancel_scheduled(shard, group, (cursor, false))
                    .await?;
                cancelled += moved;
                delayed = (next > 0).then_some(next);
                if delayed.is_some() {
                    continue;
                }
            }
            // Also first: the lanes of a group that was found empty do not know it any more.
            match self.store.delete_on_shard(shard, group).await? {
                Removal::Done(last) => return Ok(cancelled + last),
                Removal::Absent => return Ok(cancelled),
                Removal::NotEmpty(_) => {},
            }
            let lanes = self.catalog.read_lanes(shard).await?;
            let read = lanes.of_group(shard, group);
            for position in 0..read.len() {
                // Before each: we may have stood still until the group was gone and made again.
                let set = self.store.set_state_on_shard(shard, definition).await?;
                if set != StateSet::Done {
                    return Ok(cancelled);
                }
                let slice = self
                    .cancel_slice(&view, (&read, position), "-", Spare::Nothing)
                    .await?;
                cancelled += slice.tried;
            }
        }
        Err(Fault::new(
            Reason::Unreachable,
            format!("group `{group}` is being deleted; a coordinator carries on with the rest"),
        )
        .with_retry_after(Duration::from_secs(5)))
    }

    /// Shows ordering keys that wait for an operator behind a dead letter.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`, or what Redis says.
    pub async fn list_blocked_keys(
        &self,
        namespace: &str,
        request: wire::ListBlockedKeysRequest,
    ) -> Result<wire::ListBlockedKeysResponse, Fault> {
        reading(async move {
            name::check("name", &request.name)?;
            let view = self.catalog.group(namespace, &request.name).await?;
            let keys = self
                .store
                .blocked_keys(&view.shard, &request.name, BLOCKED_KEYS_MAX);
            Ok(wire::ListBlockedKeysResponse {
                ordering_keys: keys.await?,
            })
        })
        .await
    }

    /// Lets an ordering key go on that a dead letter blocks.
    ///
    /// # Errors
    /// Violations, `GROUP_NOT_FOUND`, or what Redis says.
    pub async fn unblock_key(
        &self,
        namespace: &str,
        request: wire::UnblockKeyRequest,
    ) -> Result<wire::UnblockKeyResponse, Fault> {
        name::check("name", &request.name)?;
        if request.ordering_key.is_empty() {
            let rule = "`` must not be empty";
            return Err(Fault::invalid(Violations::one("ordering_key", rule)));
        }
        if request.ordering_key.len() > ORDERING_KEY_BYTES_MAX {
            let rule = format!(
                "has `{}` bytes and must have at most {ORDERING_KEY_BYTES_MAX}",
                request.ordering_key.len()
            );
            return Err(Fault::invalid(Violations::one("ordering_key", rule)));
        }
        let _pass = self.enter("unblock_key")?;
        let view = self.catalog.group(namespace, &request.name).await?;
        let group = (request.name.as_str(), view.ageing_ms());
        let unblocked = self
            .store
            .unblock_key(&view.shard, group, &request.ordering_key)
            .await?;
        if unblocked {
            self.bells.announce(&self.store, &view.shard);
        }
        Ok(wire::UnblockKeyResponse { unblocked })
    }

    /// Shows the members of a group.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`, or what Redis says.
    pub async fn list_consumers(
        &self,
        namespace: &str,
        request: wire::ListConsumersRequest,
    ) -> Result<wire::ListConsumersResponse, Fault> {
        reading(async move {
            name::check("group", &request.group)?;
            let view = self.catalog.group(namespace, &request.group).await?;
            let lanes = self.catalog.lanes(&view.shard).await?;
            let lanes = lanes.of_group(&view.shard, &request.group);
            let mut consumers = Vec::new();
            for member in self.store.members(&view.shard, &request.group).await? {
                let held = self
                    .store
                    .held_by(&request.group, &lanes, &member.consumer)
                    .await?;
                consumers.push(shown_member(member, held.len() as u64));
            }
            Ok(wire::ListConsumersResponse { consumers })
        })
        .await
    }

    /// Registers a pull consumer.
    ///
    /// # Errors
    /// Violations, `GROUP_NOT_FOUND`, `GROUP_FULL`, `FENCED`, or what Redis says.
    pub async fn add_consumer(
        &self,
        namespace: &str,
        request: wire::AddConsumerRequest,
    ) -> Result<wire::AddConsumerResponse, Fault> {
        // One check for both ways in.
        let fetch = hive_protocol::request::fetch(&wire::FetchRequest {
            group: request.group,
            consumer_id: request.consumer_id,
            capabilities: request.capabilities,
            ..wire::FetchRequest::default()
        })?;
        let _pass = self.enter("add_consumer")?;
        let view = self.catalog.group(namespace, &fetch.group).await?;
        self.pull_member(&view, &fetch.consumer_id, fetch.capabilities.names())
            .await?;
        let member = self
            .store
            .member(&view.shard, &fetch.group, &fetch.consumer_id)
            .await?;
        let member = member.ok_or_else(|| pull::no_consumer(&fetch.group, &fetch.consumer_id))?;
        // It may have been a member before.
        let lanes = self.catalog.read_lanes(&view.shard).await?;
        let lanes = lanes.of_group(&view.shard, &fetch.group);
        let held = self
            .store
            .held_by(&fetch.group, &lanes, &fetch.consumer_id)
            .await?;
        Ok(wire::AddConsumerResponse {
            consumer: Some(shown_member(member, held.len() as u64)),
        })
    }

    /// Removes a member; what it holds is given back, uncounted.
    ///
    /// # Errors
    /// `GROUP_NOT_FOUND`, `CONSUMER_NOT_FOUND`, or what Redis says.
    pub async fn remove_consumer(
        &self,
        namespace: &str,
        request: wire::RemoveConsumerRequest,
    ) -> Result<wire::RemoveConsumerResponse, Fault> {
        let mut faults = Violations::new();
        faults.take(name::check("group", &request.group));
        faults.take(name::check("consumer_id", &request.consumer_id));
        faults.into_result()?;
        let _pass = self.enter("remove_consumer")?;
        let view = self.catalog.group(namespace, &request.group).await?;
        let lanes = self.catalog.read_lanes(&view.shard).await?;
        let read = lanes.of_group(&view.shard, &request.group);
        let (group, consumer) = (&request.group, request.consumer_id.as_str());
        // First the membership: from here on every call of its holder is stale.
        let left = self
            .store
            .leave(&view.shard, group, &read, (consumer, "*", 0))
            .await?;
        if left == Leaving::Absent {
            return Err(pull::no_consumer(group, consumer));
        }
        let held = self.store.held_by(group, &read, consumer).await?;
        let items: Vec<Settle> = held
            .iter()
            .map(|entry| Settle {
                lease: entry.lease(&read, "*", 0),
                attach: 0,
                check_session: false,
                action: Action::GiveBack { idle_ms: 0 },
            })
            .collect();
        for batch in items.chunks(500) {
            self.store
                .settle(&view.shard, view.settling(&read), batch, now_ms())
                .await?;
        }
        self.bells.announce(&self.store, &view.shard);
        Ok(wire::RemoveConsumerResponse {
            released: items.len() as u64,
        })
    }
}

/// How many consumers are wanted, as a row of the scaling says; none where the group is not scaled
/// (any more), or nothing was decided yet.
fn wanted(row: Option<&ScalingRow>, definition: &GroupDefinition) -> Option<u32> {
    row.filter(|_| definition.settings.auto_scale_enabled)
        .and_then(|row| row.desired)
}

fn shown_member(member: Member, in_flight: u64) -> wire::Consumer {
    let kind = match member.kind {
        Kind::Stream => wire::ConsumerKind::Stream,
        Kind::Pull => wire::ConsumerKind::Pull,
    };
    wire::Consumer {
        consumer_id: member.consumer,
        kind: kind.into(),
        capabilities: member.capabilities,
        concurrency: member.concurrency,
        in_flight,
        gateway: if member.kind == Kind::Pull {
            String::new()
        } else {
            member.gateway
        },
        last_seen: Some(time::to_timestamp(member.last_ms.into())),
    }
}

/// Figures as callers see them.
#[expect(
    clippy::cast_precision_loss,
    reason = "figures for people; counts stay below 2^53"
)]
fn wire_figures(figures: &Figures, view: &GroupView, is_stranded: bool) -> wire::GroupFigures {
    let recent = figures.recent_acked + figures.recent_failed;
    let ratio = |part: u64, whole: u64, empty: f64| {
        if whole == 0 {
            empty
        } else {
            part as f64 / whole as f64
        }
    };
    let oldest = figures
        .oldest_waiting_ms
        .map_or(0, |ms| figures.now_ms.saturating_sub(ms));
    let success_rate = ratio(figures.recent_acked, recent, 1.0);
    wire::GroupFigures {
        current_consumers: u32::try_from(figures.members).unwrap_or(u32::MAX),
        lag: figures.waiting,
        pending_count: figures.pending,
        scheduled_count: figures.scheduled,
        throughput_msg_per_sec: ratio(figures.recent_acked, figures.recent_seconds, 0.0),
        success_rate,
        avg_processing_time_ms: ratio(figures.recent_work_ms, figures.recent_acked, 0.0),
        oldest_waiting_seconds: oldest as f64 / 1_000.0,
        health: health_word(figures, view, is_stranded, success_rate).to_owned(),
        published_total: figures.published,
        acked_total: figures.acked,
        failed_total: figures.failed,
        dead_total: figures.dead,
        redelivered_total: figures.redelivered,
        released_total: figures.released,
        expired_total: figures.expired,
        blocked_keys: figures.blocked_keys,
        unsettled_bytes: figures.unsettled_bytes,
        desired_consumers: None,
    }
}

/// Most blocked ordering keys that one answer shows.
const BLOCKED_KEYS_MAX: usize = 1_000;
/// Waiting messages beyond which a group is lagging, as the guide's alert has it.
const LAGGING: u64 = 1_000;
/// Share of successes below which a group is failing, as the guide's alert has it.
const FAILING: f64 = 0.95;

fn health_word(
    figures: &Figures,
    view: &GroupView,
    is_stranded: bool,
    success_rate: f64,
) -> &'static str {
    let work = figures.waiting + figures.pending > 0;
    if view.definition.is_paused() {
        "paused"
    } else if work && figures.members == 0 {
        "no_consumers"
    } else if is_stranded {
        "no_capable_consumer"
    } else if figures.waiting > LAGGING {
        "lagging"
    } else if success_rate < FAILING {
        "failing"
    } else {
        "healthy"
    }
}

fn being_deleted(group: &str) -> Fault {
    let text = format!("group `{group}` is being deleted");
    Fault::new(Reason::GroupGone, text).with_retry_after(Duration::from_secs(1))
}

pub(crate) fn too_many(what: &str) -> Fault {
    Fault::new(
        Reason::TooManyGroups,
        format!("the namespace has its limit of {what}"),
    )
}

pub(crate) fn changing(what: &str, name: &str) -> Fault {
    Fault::new(
        Reason::VersionConflict,
        format!("{what} `{name}` is being changed by others"),
    )
    .with_retry_after(Duration::from_millis(200))
}
