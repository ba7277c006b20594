//! How many consumers groups have and want, as callers see it.

use hive_domain::group::GroupDefinition;
use hive_domain::scaling::{Executor, Inputs};
use hive_protocol::fault::Fault;
use hive_protocol::{convert, time, wire};
use hive_store::StoreError;
use hive_store::coordination::ScalingRow;
use hive_store::demand::GroupDemand;

use super::state::{self, Event, Kind, State};
use super::step;
use crate::desk::Desk;

/// The groups of a namespace with these names, or all of them, by name.
///
/// # Errors
/// What Redis says.
pub(crate) async fn groups(
    desk: &Desk,
    namespace: &str,
    names: &[String],
) -> Result<Vec<wire::GroupScaling>, StoreError> {
    let mut definitions = desk.store.groups(namespace).await?;
    if !names.is_empty() {
        definitions.retain(|group| names.contains(&group.name));
    }
    let rows = desk.store.scaling_rows(namespace).await?;
    let asked: Vec<&GroupDefinition> = definitions.iter().collect();
    let demands = desk.store.demand(namespace, &asked).await?;
    Ok(definitions
        .iter()
        .map(|group| shown(group, rows.get(&group.name), demands.get(&group.name)))
        .collect())
}

/// One group.
///
/// # Errors
/// `GROUP_NOT_FOUND`, or what Redis says.
pub(crate) async fn group(
    desk: &Desk,
    namespace: &str,
    name: &str,
) -> Result<wire::GroupScaling, Fault> {
    let found = groups(desk, namespace, &[name.to_owned()]).await?.pop();
    found.ok_or_else(|| Fault::no_group(name))
}

fn shown(
    group: &GroupDefinition,
    row: Option<&ScalingRow>,
    demand: Option<&GroupDemand>,
) -> wire::GroupScaling {
    let settings = &group.settings;
    let is_enabled = settings.auto_scale_enabled;
    let row = row.filter(|row| is_enabled && row.decided_ms > 0);
    let state = row.map(state::of_row).unwrap_or_default();
    let members = demand.map_or(&[][..], |demand| &demand.members);
    let draining = members
        .iter()
        .filter(|member| state.draining.contains_key(&member.consumer));
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let now = demand.map(|demand| read_now(demand, &state));
    wire::GroupScaling {
        group: group.name.clone(),
        enabled: is_enabled,
        policy: Some(convert::scaling_policy(&settings.scaling)),
        min_consumers: settings.min_consumers,
        max_consumers: settings.max_consumers,
        current_consumers: count(members.len()),
        draining_consumers: count(draining.count()),
        desired_consumers: row.and_then(|row| row.desired),
        reason: state.reason.clone(),
        decided_at: row.map(|row| time::to_timestamp(hive_domain::time::Timestamp(row.decided_ms))),
        inputs: match row {
            Some(_) => Some(inputs(&state.inputs)),
            None => now,
        },
        executor_state: executor_state(is_enabled, settings.scaling.executor, &state).into(),
        executor_error: state.execution.error.unwrap_or_default(),
        epoch: row.map_or(0, |row| row.epoch),
    }
}

fn executor_state(is_enabled: bool, executor: Executor, state: &State) -> wire::ExecutorState {
    match executor {
        _ if !is_enabled => wire::ExecutorState::None,
        Executor::None => wire::ExecutorState::None,
        Executor::Keda | Executor::Kubernetes | Executor::Process | Executor::Webhook => {
            if state.execution.error.is_some() {
                wire::ExecutorState::Failing
            } else {
                wire::ExecutorState::Ok
            }
        },
    }
}

/// What was read of a group that nobody decided of: its rates are not known.
fn read_now(found: &GroupDemand, state: &State) -> wire::ScalingInputs {
    let demand = step::demand(found, state);
    let capacity = f64::from(demand.slots) / f64::from(demand.consumers.max(1));
    wire::ScalingInputs {
        lag: demand.waiting,
        in_flight: demand.leased,
        retrying: demand.ready.saturating_add(demand.later),
        oldest_waiting: Some(time::to_duration(demand.oldest_waiting_ms)),
        arrivals_per_second: 0.0,
        forecast_per_second: 0.0,
        service_time: demand
            .recent_work_ms
            .checked_div(demand.recent_acked)
            .map(time::to_duration),
        capacity_per_consumer: capacity,
    }
}

fn inputs(inputs: &Inputs) -> wire::ScalingInputs {
    wire::ScalingInputs {
        lag: inputs.lag,
        in_flight: inputs.in_flight,
        retrying: inputs.retrying,
        oldest_waiting: Some(time::to_duration(inputs.oldest_waiting_ms)),
        arrivals_per_second: thousandths(inputs.arrivals_milli),
        forecast_per_second: thousandths(inputs.forecast_milli),
        service_time: inputs.service_ms.map(time::to_duration),
        capacity_per_consumer: thousandths(inputs.capacity_milli),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "shown to people; a rate beyond 2^53 thousandths is none"
)]
fn thousandths(number: u64) -> f64 {
    number as f64 / 1_000.0
}

/// An event as callers see it.
pub(crate) fn event(id: String, event: Event) -> wire::ScalingEvent {
    let kind = match event.kind {
        Kind::Up => wire::ScalingEventKind::Up,
        Kind::Down => wire::ScalingEventKind::Down,
        Kind::Drain => wire::ScalingEventKind::Drain,
        Kind::Failing => wire::ScalingEventKind::Failing,
        Kind::Recovered => wire::ScalingEventKind::Recovered,
    };
    wire::ScalingEvent {
        event_id: id,
        time: Some(time::to_timestamp(hive_domain::time::Timestamp(
            event.time_ms,
        ))),
        group: event.group,
        kind: kind.into(),
        from: event.from,
        to: event.to,
        reason: event.reason,
        inputs: Some(inputs(&event.inputs)),
        consumer_id: event.consumer,
        epoch: event.epoch,
    }
}
