//! The calls of `CoordinatorService`: what each reads, decides and answers. Any replica answers any
//! of them, and the same.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use hive_domain::capability::CapabilitySet;
use hive_domain::name;
use hive_domain::placement::Wanted;
use hive_domain::placement::agent::AgentWanted;
use hive_domain::violation::Violations;
use hive_protocol::fault::Fault;
use hive_protocol::limits::CAPABILITIES_MAX;
use hive_protocol::request::capabilities;
use hive_protocol::{convert, time, wire};

use crate::desk::Desk;
use crate::scaling::state::Event;
use crate::scaling::view;
use crate::{options, placing, rebalancing};

/// Events of a page where the call does not say, and at most.
const LIMIT: (u32, u32) = (100, 1_000);
/// Events that one call reads at most to find those of a group.
const READ_MAX: u32 = 10_000;
/// Groups that a watch may name.
const WATCHED_MAX: usize = 1_000;

/// The service over one desk.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    pub(crate) desk: Arc<Desk>,
}

type Answer<T> = Result<T, Fault>;

impl Calls {
    pub(crate) async fn place_agent(
        &self,
        namespace: &str,
        request: wire::PlaceAgentRequest,
    ) -> Answer<wire::PlaceAgentResponse> {
        let mut faults = Violations::new();
        faults.take(name::check("agent_type", &request.agent_type));
        let capabilities = capabilities(&request.capabilities, &mut faults);
        faults.into_result()?;
        let wanted = AgentWanted {
            agent_type: request.agent_type,
            capabilities,
        };
        placing::place_agent(&self.desk, namespace, &wanted, request.dry_run).await
    }

    pub(crate) async fn place_task(
        &self,
        namespace: &str,
        request: wire::PlaceTaskRequest,
    ) -> Answer<wire::PlaceTaskResponse> {
        let mut faults = Violations::new();
        let names = &request.required_capabilities;
        let required_capabilities =
            CapabilitySet::checked("required_capabilities", names, CAPABILITIES_MAX)
                .unwrap_or_else(|inner| {
                    faults.nest("", inner);
                    CapabilitySet::new()
                });
        faults.take(name::check_optional("type", &request.r#type));
        faults.take(name::check_optional("group", &request.group));
        if request.r#type.is_empty() && request.group.is_empty() {
            faults.push("type", "must be given where no group is named");
        }
        faults.into_result()?;
        let kind = request.r#type;
        let wanted = Wanted {
            group: (!request.group.is_empty()).then_some(request.group),
            kind: kind.clone(),
            required_capabilities,
            is_by_capability: true,
        };
        let provision = request.provision || self.desk.options().provision_for_tasks;
        let how = (provision, request.dry_run);
        placing::place_task(&self.desk, namespace, (&kind, &wanted), how).await
    }

    pub(crate) async fn rebalance(
        &self,
        namespace: &str,
        request: wire::RebalanceRequest,
    ) -> Answer<wire::RebalanceResponse> {
        let began = Instant::now();
        let mut faults = Violations::new();
        faults.take(name::check_optional("group", &request.group));
        faults.into_result()?;
        let outcome = rebalancing::asked(&self.desk, namespace, &request).await?;
        let elapsed = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let now = prost_types::Timestamp::from(SystemTime::now());
        Ok(wire::RebalanceResponse {
            groups_analyzed: u32::try_from(outcome.analyzed).unwrap_or(u32::MAX),
            operations: outcome.operations,
            elapsed: Some(time::to_duration(elapsed)),
            timestamp: Some(now),
        })
    }

    pub(crate) async fn get_scaling(
        &self,
        namespace: &str,
        request: wire::GetScalingRequest,
    ) -> Answer<wire::GetScalingResponse> {
        let groups = if request.group.is_empty() {
            view::groups(&self.desk, namespace, &[]).await?
        } else {
            name::check("group", &request.group)?;
            vec![view::group(&self.desk, namespace, &request.group).await?]
        };
        Ok(wire::GetScalingResponse { groups })
    }

    /// The groups that a watch names, checked.
    pub(crate) fn watched(&self, request: wire::WatchScalingRequest) -> Answer<Vec<String>> {
        let mut faults = Violations::new();
        if request.groups.len() > WATCHED_MAX {
            let given = request.groups.len();
            faults.push(
                "groups",
                format!("`{given}` names must be at most {WATCHED_MAX}"),
            );
        }
        for (number, group) in request.groups.iter().take(WATCHED_MAX).enumerate() {
            faults.take(name::check(&format!("groups[{number}]"), group));
        }
        faults.into_result()?;
        Ok(request.groups)
    }

    pub(crate) async fn list_scaling_events(
        &self,
        namespace: &str,
        request: wire::ListScalingEventsRequest,
    ) -> Answer<wire::ListScalingEventsResponse> {
        let mut faults = Violations::new();
        faults.take(name::check_optional("group", &request.group));
        let limit = request.limit;
        if limit > LIMIT.1 {
            faults.push("limit", format!("`{limit}` must be at most {}", LIMIT.1));
        }
        let is_id = |text: &str| {
            let parts = text.split_once('-');
            parts.is_some_and(|(a, b)| a.parse::<u64>().is_ok() && b.parse::<u64>().is_ok())
        };
        if !request.cursor.is_empty() && !is_id(&request.cursor) {
            faults.push("cursor", "must be from an answer of this call");
        }
        faults.into_result()?;
        let limit = usize::try_from(if limit == 0 { LIMIT.0 } else { limit }).unwrap_or(usize::MAX);
        let (mut events, mut cursor, mut read) = (Vec::new(), request.cursor, 0_u32);
        loop {
            let before = (!cursor.is_empty()).then_some(cursor.as_str());
            let page = self
                .desk
                .store
                .scaling_events(namespace, before, LIMIT.1)
                .await?;
            let is_last = page.len() < usize::try_from(LIMIT.1).unwrap_or(usize::MAX);
            read = read.saturating_add(LIMIT.1);
            for (id, text) in page {
                cursor.clone_from(&id);
                // What another build wrote otherwise is not shown, and not in the way.
                let Ok(event) = serde_json::from_str::<Event>(&text) else {
                    continue;
                };
                if request.group.is_empty() || event.group == request.group {
                    events.push(view::event(id, event));
                }
                if events.len() == limit {
                    return Ok(wire::ListScalingEventsResponse {
                        events,
                        next_cursor: cursor,
                    });
                }
            }
            if is_last || read > READ_MAX {
                return Ok(wire::ListScalingEventsResponse {
                    events,
                    next_cursor: String::new(),
                });
            }
        }
    }

    pub(crate) async fn get_config(
        &self,
        _namespace: &str,
        _request: wire::GetConfigRequest,
    ) -> Answer<wire::GetConfigResponse> {
        let (_, config) = options::stored(&self.desk).await?;
        Ok(wire::GetConfigResponse {
            config: Some(convert::coordinator_config(&config)),
        })
    }

    pub(crate) async fn update_config(
        &self,
        _namespace: &str,
        request: wire::UpdateConfigRequest,
    ) -> Answer<wire::UpdateConfigResponse> {
        let config = options::update(&self.desk, request.config.as_ref()).await?;
        Ok(wire::UpdateConfigResponse {
            config: Some(convert::coordinator_config(&config)),
        })
    }
}
