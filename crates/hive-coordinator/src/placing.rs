//! Which group an agent joins and which a task goes to; makes groups from templates.
//!
//! The decisions are `hive_domain::placement`'s; a group is made by a gateway, as any other is. Two
//! who make the same one at a time make one.

use hive_domain::coordination::{self, ProvisioningPolicy};
use hive_domain::placement::agent::{
    AgentChoice, AgentWanted, Strategy, Template, choose_for_agent, has_template,
};
use hive_domain::placement::{Choice, GroupFacts, Wanted, choose_group};
use hive_protocol::fault::{Fault, FaultKind, Reason};
use hive_protocol::{convert, wire};

use crate::desk::Desk;

/// How often facts are read again where somebody else made the group first.
const TRIES: u32 = 3;
/// Groups that an answer shows.
const SCORES_MAX: usize = 20;

/// The group that an agent joins; makes it where it must be made, unless the call is a dry run.
///
/// # Errors
/// What a gateway or Redis says.
pub(crate) async fn place_agent(
    desk: &Desk,
    namespace: &str,
    wanted: &AgentWanted,
    is_dry: bool,
) -> Result<wire::PlaceAgentResponse, Fault> {
    let options = desk.options();
    let mut refusal = None;
    for _ in 0..TRIES {
        let facts: Vec<GroupFacts> = desk.store.group_facts(namespace).await?;
        let choice = choose_for_agent(options.strategy, &facts, wanted)
            .map_err(|none| Fault::new(Reason::GroupFull, none.to_string()))?;
        let Some(template) = &choice.made_from else {
            return Ok(answer(choice, options.strategy, false));
        };
        if is_dry {
            return Ok(answer(choice, options.strategy, true));
        }
        match make(desk, namespace, template, options.provisioning_policy).await {
            Ok(is_made) => return Ok(answer(choice, options.strategy, is_made)),
            // Somebody made another one of its name meanwhile.
            Err(fault) if fault.kind == FaultKind::Exists => refusal = Some(fault),
            Err(fault) => return Err(fault),
        }
    }
    Err(refusal.unwrap_or_else(|| Fault::bug("placement without a try")))
}

/// The group that a task goes to; where none serves it and `provision` is set, the one of its
/// template is made, unless the call is a dry run.
///
/// # Errors
/// `UNSERVED_TYPE` with all that was looked for; what a gateway or Redis says.
pub(crate) async fn place_task(
    desk: &Desk,
    namespace: &str,
    (kind, wanted): (&str, &Wanted),
    (provision, is_dry): (bool, bool),
) -> Result<wire::PlaceTaskResponse, Fault> {
    let facts = desk.store.group_facts(namespace).await?;
    let unserved = match choose_group(&facts, wanted) {
        Ok(choice) => return Ok(served(choice, false)),
        Err(unserved) => Fault::from(unserved),
    };
    let Some(template) = has_template(kind).filter(|_| provision && wanted.group.is_none()) else {
        return Err(unserved);
    };
    if is_dry {
        return Ok(wire::PlaceTaskResponse {
            reasoning: format!("it is made from the template of `{}`", template.agent_type),
            group: template.group,
            created: true,
        });
    }
    let policy = desk.options().provisioning_policy;
    let is_made = make(desk, namespace, &template, policy).await?;
    let facts = desk.store.group_facts(namespace).await?;
    Ok(served(choose_group(&facts, wanted)?, is_made))
}

/// Makes the group of a template; false where it was there.
async fn make(
    desk: &Desk,
    namespace: &str,
    template: &Template,
    policy: ProvisioningPolicy,
) -> Result<bool, Fault> {
    let settings = coordination::provisioned(template, policy);
    let request = wire::CreateGroupRequest {
        name: template.group.clone(),
        stream_name: template.stream.clone(),
        agent_type: template.agent_type.clone(),
        settings: Some(convert::group_settings(&settings)),
        ..wire::CreateGroupRequest::default()
    };
    let is_made = desk.gateways.create_group(namespace, request).await?;
    if is_made {
        let (group, agent_type) = (template.group.as_str(), template.agent_type.as_str());
        tracing::info!(namespace, group, agent_type, "group_provisioned");
    }
    Ok(is_made)
}

fn answer(choice: AgentChoice, strategy: Strategy, created: bool) -> wire::PlaceAgentResponse {
    let scores = choice.scores.into_iter().take(SCORES_MAX);
    wire::PlaceAgentResponse {
        group: choice.group,
        reasoning: choice.reason,
        strategy: convert::placement_strategy(strategy).into(),
        created,
        scores: scores
            .map(|score| wire::PlacementScore {
                group: score.group,
                score: score.score,
                reason: score.reason,
            })
            .collect(),
    }
}

fn served(choice: Choice, created: bool) -> wire::PlaceTaskResponse {
    wire::PlaceTaskResponse {
        group: choice.group,
        reasoning: choice.reason,
        created,
    }
}
