//! How many consumers each group wants: looked at once a second, stored, and carried out.
//!
//! 1. **Look.** The owner of a group reads what is asked of it (`Store::demand`), of all its groups
//!    of a namespace at once. Groups with work are looked at each second, those at rest each 5 s
//!    and at once when a bell rings for their shard: so the first message wakes a group from zero.
//! 2. **Decide.** `hive_domain::scaling::decide` says how many are wanted, `divide` how many of
//!    them a ceiling that all groups share leaves.
//! 3. **Store.** The wish, what the next decision needs, and events are written under the epoch of
//!    the group's owner. Whoever is not the owner any more is refused and begins anew.
//! 4. **Carry out.** Executors act on what is stored (`executing`); who is to go is told through
//!    its gateway, under the same epoch, again and again until it is gone.
//!
//! Whoever dies between two steps leaves nothing half done: the next owner reads what is stored and
//! goes on. Delivery needs none of this.

mod ceiling;
pub(crate) mod draining;
pub(crate) mod executing;
pub(crate) mod keda;
pub(crate) mod state;
mod step;
pub(crate) mod view;
pub(crate) mod watching;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hive_domain::group::GroupDefinition;
use hive_domain::scaling::{self, Holder};
use hive_store::StoreError;
use hive_store::coordination::ScalingWrite;

use self::ceiling::{Ceiling, Granted};
use self::draining::Draining;
use self::executing::Executing;
use self::state::State;
use self::step::{Look, Step};
use crate::desk::Desk;
use crate::metrics::{self, Loop};
use crate::roster::{GroupName, Roster};
use crate::shard::every;

/// Pause between two looks at groups with work.
const BUSY: Duration = Duration::from_secs(1);
/// Pause between two looks at groups at rest; bells wake them before.
const AT_REST: Duration = Duration::from_secs(5);
/// Least pause between two looks that bells ask for: a flood of them costs no more than this.
const RUNG_PAUSE: Duration = Duration::from_millis(50);
/// What changes with each look alone (rates, forecasts) is stored this often.
const STORE_EVERY: Duration = Duration::from_secs(5);
/// The same of a group at rest: nothing but the time changes.
const STORE_AT_REST: Duration = Duration::from_secs(60);

/// A group that this replica owns.
#[derive(Debug)]
struct Owned {
    epoch: u64,
    state: State,
    desired: Option<u32>,
    /// When it is looked at again.
    due: Instant,
    /// When it was stored last; none where this owner has not yet.
    stored: Option<Instant>,
    /// Whether nothing was there to be done at the last look.
    is_at_rest: bool,
    /// Whether its bells are listened to: at rest, or without anybody who works.
    is_woken_by_bell: bool,
    /// Doorbells of its shards.
    bells: Vec<String>,
}

/// Looks after what groups want; never ends by itself.
pub(crate) async fn run(desk: Arc<Desk>, executing: Arc<Executing>) {
    let mut scaler = Scaler {
        desk: Arc::clone(&desk),
        executing,
        draining: Draining::default(),
        ceiling: Ceiling::default(),
        owned: BTreeMap::new(),
        returns: 0,
    };
    let mut pace = every(BUSY);
    loop {
        let is_rung = tokio::select! {
            _ = pace.tick() => false,
            () = desk.rung.notified() => true,
        };
        let began = Instant::now();
        scaler.round().await;
        metrics::round(Loop::Scale, began.elapsed());
        if is_rung {
            tokio::time::sleep(RUNG_PAUSE).await;
        }
    }
}

struct Scaler {
    desk: Arc<Desk>,
    executing: Arc<Executing>,
    draining: Draining,
    ceiling: Ceiling,
    owned: BTreeMap<GroupName, Owned>,
    /// Returns after which `owned` was learned.
    returns: u64,
}

impl Scaler {
    async fn round(&mut self) {
        let roster = self.desk.roster();
        let scaled: BTreeMap<GroupName, &GroupDefinition> = roster
            .owned()
            .filter(|(_, group)| group.settings.auto_scale_enabled)
            .collect();
        if roster.returns != self.returns {
            self.owned.clear();
            self.returns = roster.returns;
        }
        self.owned.retain(|name, _| scaled.contains_key(name));
        self.executing.keep(&scaled);
        metrics::owned_groups(scaled.len());
        let rung = self.desk.take_rung();
        let now = Instant::now();
        let is_due = |name: &GroupName| {
            self.owned.get(name).is_none_or(|owned| {
                owned.due <= now || owned.bells.iter().any(|bell| rung.has(bell))
            })
        };
        let mut due: BTreeMap<Arc<str>, Vec<(GroupName, &GroupDefinition)>> = BTreeMap::new();
        for (name, group) in &scaled {
            if is_due(name) {
                let of_namespace = due.entry(Arc::clone(&name.namespace)).or_default();
                of_namespace.push((name.clone(), *group));
            }
        }
        for (namespace, groups) in due {
            if let Err(error) = self.look(&roster, &namespace, &groups).await {
                metrics::round_failed(Loop::Scale);
                tracing::debug!(%error, namespace = &*namespace, "scaling_round_failed");
                // The bell that woke them is used up: the next round looks again.
                for (name, _) in &groups {
                    if let Some(owned) = self.owned.get_mut(name) {
                        owned.due = now;
                    }
                }
            }
        }
        for (name, owned) in &self.owned {
            let (desk, executing) = (&self.desk, &self.executing);
            let going = owned.state.draining.keys();
            self.draining
                .tell(desk, executing, (name, owned.epoch), going);
        }
        self.draining.forget();
        let asleep = self.owned.values().filter(|owned| owned.is_woken_by_bell);
        let bells = asleep.flat_map(|owned| owned.bells.iter().cloned());
        self.desk.listen_to(bells.collect());
    }

    /// Looks at some groups of a namespace, and stores and carries out what they want.
    async fn look(
        &mut self,
        roster: &Roster,
        namespace: &Arc<str>,
        groups: &[(GroupName, &GroupDefinition)],
    ) -> Result<(), StoreError> {
        self.claim(namespace, groups).await?;
        let definitions: Vec<&GroupDefinition> = groups.iter().map(|(_, group)| *group).collect();
        let mut demands = self.desk.store.demand(namespace, &definitions).await?;
        let mut looks = Vec::new();
        for (name, definition) in groups {
            let Some(demand) = demands.remove(&*name.group) else {
                continue;
            };
            if let Some(owned) = self.owned.get(name) {
                self.desk.observed.note(name, &demand, owned.desired);
                looks.push(Look::of(
                    name,
                    definition,
                    &demand,
                    (&owned.state, owned.desired),
                ));
            }
        }
        let granted = self.ceiling.granted(&self.desk, roster, &looks).await?;
        let surplus = self.carry_out(namespace, looks, &granted).await?;
        self.send_away(namespace, surplus).await
    }

    /// Becomes the owner of those groups that are not known yet, or takes their epochs up again.
    async fn claim(
        &mut self,
        namespace: &Arc<str>,
        groups: &[(GroupName, &GroupDefinition)],
    ) -> Result<(), StoreError> {
        let unknown: Vec<&(GroupName, &GroupDefinition)> = groups
            .iter()
            .filter(|(name, _)| !self.owned.contains_key(name))
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = unknown.iter().map(|(name, _)| &*name.group).collect();
        let (store, me) = (&self.desk.store, self.desk.me.as_str());
        let rows = store.claim_scaling(namespace, &names, me).await?;
        for ((name, group), row) in unknown.into_iter().zip(rows) {
            let shards = 0..group.shards;
            let bells = shards.map(|index| store.shard(namespace, &group.stream, index).doorbell());
            let now = Instant::now();
            // What is stored of another group of that name, deleted since, is none of this one's.
            let state = state::of_row(&row);
            let is_same = state.created_ms == group.created_at.as_millis();
            let owned = Owned {
                epoch: row.epoch,
                state: if is_same { state } else { State::default() },
                desired: row.desired.filter(|_| is_same),
                due: now,
                stored: None,
                is_at_rest: false,
                is_woken_by_bell: false,
                bells: bells.collect(),
            };
            tracing::debug!(group = %name, epoch = row.epoch, "group_claimed");
            self.owned.insert(name.clone(), owned);
        }
        Ok(())
    }

    /// Stores what groups want, then has it carried out.
    async fn carry_out(
        &mut self,
        namespace: &Arc<str>,
        looks: Vec<Look>,
        granted: &BTreeMap<GroupName, Granted>,
    ) -> Result<Vec<Step>, StoreError> {
        let mut steps = Vec::new();
        for look in looks {
            let (desired, why) = granted.get(&look.name).cloned().unwrap_or_default();
            let Some(owned) = self.owned.get(&look.name) else {
                continue;
            };
            let executor = look.definition.settings.scaling.executor;
            let execution = self.executing.execution(&look.name, executor);
            let known = (owned.epoch, owned.desired);
            steps.push(Step::of(look, (desired, why), known, execution));
        }
        let surplus = self.surplus(&steps);
        let now = Instant::now();
        steps.retain(|step| {
            let Some(owned) = self.owned.get_mut(&step.look.name) else {
                return false;
            };
            // What arrived before anybody listened to the bell is found by the second look.
            let was_at_rest = std::mem::replace(&mut owned.is_at_rest, step.is_at_rest());
            let is_quiet = was_at_rest && owned.is_at_rest;
            owned.is_woken_by_bell = owned.is_at_rest || step.is_deserted();
            owned.due = now + if is_quiet { AT_REST } else { BUSY };
            let every = if is_quiet { STORE_AT_REST } else { STORE_EVERY };
            let is_old = owned.stored.is_none_or(|stored| stored + every <= now);
            let is_news = owned.stored.is_none()
                || step.has_news(owned.desired, &owned.state)
                || is_old && step.look.state != owned.state;
            if !is_news {
                owned.state = step.look.state.clone();
            }
            is_news
        });
        self.write(namespace, steps, now).await?;
        Ok(surplus)
    }

    /// Stores steps under their epochs; whoever is not the owner any more begins anew.
    async fn write(
        &mut self,
        namespace: &Arc<str>,
        steps: Vec<Step>,
        now: Instant,
    ) -> Result<(), StoreError> {
        let texts: Vec<(String, Vec<String>)> = steps.iter().map(Step::texts).collect();
        let writes: Vec<ScalingWrite<'_>> = steps
            .iter()
            .zip(&texts)
            .map(|(step, (state, events))| ScalingWrite {
                group: &step.look.name.group,
                epoch: step.epoch,
                desired: step.desired,
                asked: step.look.asked,
                state,
                events,
            })
            .collect();
        let store = &self.desk.store;
        let taken = store
            .write_scaling(namespace, &self.desk.me, &writes)
            .await?;
        for (step, is_taken) in steps.into_iter().zip(taken) {
            if is_taken {
                self.stored(step, now);
            } else {
                tracing::info!(group = %step.look.name, epoch = step.epoch, "scaling_fenced");
                metrics::scaling_fenced();
                self.executing.end(&step.look.name);
                self.owned.remove(&step.look.name);
            }
        }
        Ok(())
    }

    /// The groups that have more consumers than they want.
    fn surplus(&self, steps: &[Step]) -> Vec<Step> {
        let steps = steps.iter().filter(|step| step.surplus() > 0);
        steps.map(Step::again).collect()
    }

    /// A step that is stored: tells of it, and has it carried out.
    fn stored(&mut self, step: Step, now: Instant) {
        for event in &step.events {
            metrics::scaling_event(event.kind);
            let (group, kind) = (step.look.name.to_string(), event.kind.as_str());
            let (from, to, consumer) = (event.from, event.to, event.consumer.as_str());
            let reason = event.reason.as_str();
            tracing::info!(group, kind, from, to, consumer, reason, "scaling_event");
        }
        self.executing.wish(&step);
        if let Some(owned) = self.owned.get_mut(&step.look.name) {
            owned.state = step.look.state;
            owned.desired = Some(step.desired);
            owned.stored = Some(now);
        }
    }

    /// Names those who are to go where there are more than wanted, and stores that; they are told
    /// behind it.
    async fn send_away(
        &mut self,
        namespace: &Arc<str>,
        mut steps: Vec<Step>,
    ) -> Result<(), StoreError> {
        // Who is fenced by now has nothing to say.
        steps.retain(|step| self.owned.contains_key(&step.look.name));
        if steps.is_empty() {
            return Ok(());
        }
        let groups: Vec<String> = steps
            .iter()
            .map(|step| step.look.name.group.to_string())
            .collect();
        let attached = self.desk.gateways.connections(namespace, &groups).await;
        for step in &mut steps {
            let draining = &step.look.state.draining;
            let holders: Vec<Holder> = attached
                .iter()
                .map(|one| &one.connection)
                .filter(|one| one.group == *step.look.name.group)
                .map(|one| Holder {
                    consumer: one.consumer_id.clone(),
                    held: one.held,
                    begun: one.begun,
                    idle_ms: one.idle_ms,
                    draining: one.draining || draining.contains_key(&one.consumer_id),
                })
                .collect();
            // Members that are not attached (pull consumers, those whose connection was lost) are
            // no reason to send away those who are.
            let staying = holders.iter().filter(|holder| !holder.draining).count();
            let staying = u32::try_from(staying).unwrap_or(u32::MAX);
            let count = staying.saturating_sub(step.desired).min(step.surplus());
            for victim in scaling::victims(&holders, count) {
                step.drain(&victim.consumer, victim.reason);
            }
        }
        steps.retain(|step| !step.events.is_empty());
        let now = Instant::now();
        self.write(namespace, steps, now).await
    }
}
