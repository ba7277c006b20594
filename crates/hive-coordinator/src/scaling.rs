//! How many consumers each group wants: looked at once a second, stored, and carried out.
//!
//! 1. **Look.** The owner of a group reads what is asked of it (`Store::demand`), of all its groups of
//!    a namespace at once. Groups with work are looked at each second, those at rest each 5 s and at
//!    once when a bell rings for their shard: so the first message wakes a group from zero.
//! 2. **Decide.** `hive_domain::scaling::decide` says how many are wanted, `divide` how many of them a
//!    ceiling that all groups share leaves.
//! 3. **Store.** The wish, what the next decision needs, and events are written under the epoch of the
//!    group's owner. Whoever is not the owner any more is refused and begins anew.
//! 4. **Carry out.** Executors act on what is stored (`executing`); who is to go is told through its
//!    gateway, under the same epoch, again and again until it is gone.
//!
//! Whoever dies between two steps leaves nothing half done: the next owner reads what is stored and
//! goes on. Delivery needs none of this.

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
use hive_domain::scaling::{self, Holder, Want};
use hive_store::StoreError;
use hive_store::coordination::ScalingWrite;

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
    /// Whether a bell is what wakes it.
    is_at_rest: bool,
    /// Doorbells of its shards.
    bells: Vec<String>,
}

/// Looks after what groups want; never ends by itself.
pub(crate) async fn run(desk: Arc<Desk>, executing: Arc<Executing>) {
    let mut scaler = Scaler {
        desk: Arc::clone(&desk),
        executing,
        draining: Draining::default(),
        owned: BTreeMap::new(),
    };
    let mut pace = every(BUSY);
    loop {
        let is_rung = tokio::select! {
            _ = pace.tick() => false,
            () = desk.rung.notified() => true,
        };
        let began = Instant::now();
        scaler.round(is_rung).await;
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
    owned: BTreeMap<GroupName, Owned>,
}

impl Scaler {
    async fn round(&mut self, is_rung: bool) {
        let roster = self.desk.roster();
        let scaled: BTreeMap<GroupName, &GroupDefinition> = roster
            .owned()
            .filter(|(_, group)| group.settings.auto_scale_enabled)
            .collect();
        self.owned.retain(|name, _| scaled.contains_key(name));
        self.executing.keep(&scaled);
        metrics::owned_groups(scaled.len());
        let rung = self.desk.take_rung();
        let now = Instant::now();
        let is_due = |name: &GroupName| {
            self.owned.get(name).is_none_or(|owned| {
                owned.due <= now || is_rung && owned.bells.iter().any(|bell| rung.has(bell))
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
            }
        }
        for (name, owned) in &self.owned {
            let (desk, executing) = (&self.desk, &self.executing);
            let going = owned.state.draining.keys();
            self.draining
                .tell(desk, executing, (name, owned.epoch), going);
        }
        self.draining.forget();
        let at_rest = self.owned.values().filter(|owned| owned.is_at_rest);
        let bells = at_rest.flat_map(|owned| owned.bells.iter().cloned());
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
                looks.push(Look::of(name, definition, demand, &owned.state));
            }
        }
        let granted = self.granted(roster, &looks).await?;
        self.carry_out(namespace, looks, &granted).await
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
            let owned = Owned {
                epoch: row.epoch,
                state: state::of_row(&row),
                desired: row.desired,
                due: now,
                stored: None,
                is_at_rest: false,
                bells: bells.collect(),
            };
            tracing::debug!(group = %name, epoch = row.epoch, "group_claimed");
            self.owned.insert(name.clone(), owned);
        }
        Ok(())
    }

    /// How many each group gets: what it asks for, or its share of a ceiling.
    async fn granted(
        &self,
        roster: &Roster,
        looks: &[Look],
    ) -> Result<BTreeMap<GroupName, (u32, Option<String>)>, StoreError> {
        let options = self.desk.options();
        if options.max_total_consumers == 0 {
            let whole = looks
                .iter()
                .map(|look| (look.name.clone(), (look.asked, None)));
            return Ok(whole.collect());
        }
        let mut wants: BTreeMap<String, Want> = BTreeMap::new();
        for (namespace, groups) in &roster.groups {
            let rows = self.desk.store.scaling_rows(namespace).await?;
            for (name, group) in groups {
                if !group.settings.auto_scale_enabled {
                    continue;
                }
                let key = format!("{namespace}/{name}");
                let min = group.settings.min_consumers;
                let want = match rows.get(&**name) {
                    Some(row) if row.decided_ms > 0 => {
                        state::want(key.clone(), group, row.asked, &state::of_row(row))
                    },
                    // Nothing was decided of it yet: its least is kept for it.
                    Some(_) | None => state::want(key.clone(), group, min, &State::default()),
                };
                wants.insert(key, want);
            }
        }
        for look in looks {
            let key = look.name.to_string();
            let want = state::want(key.clone(), &look.definition, look.asked, &look.state);
            wants.insert(key, want);
        }
        let wants: Vec<Want> = wants.into_values().collect();
        let ceiling = options.max_total_consumers;
        let grants = scaling::divide(options.allocation_mode, ceiling, &wants);
        let mut by_group: BTreeMap<String, (u32, Option<String>)> = grants
            .into_iter()
            .map(|grant| (grant.group, (grant.granted, grant.reason)))
            .collect();
        let of = |look: &Look| by_group.remove(&look.name.to_string());
        Ok(looks
            .iter()
            .map(|look| look.name.clone())
            .zip(
                looks
                    .iter()
                    .map(of)
                    .map(Option::unwrap_or_default)
                    .collect::<Vec<_>>(),
            )
            .collect())
    }

    /// Stores what groups want, then has it carried out.
    async fn carry_out(
        &mut self,
        namespace: &Arc<str>,
        looks: Vec<Look>,
        granted: &BTreeMap<GroupName, (u32, Option<String>)>,
    ) -> Result<(), StoreError> {
        let mut steps = Vec::new();
        for look in looks {
            let (desired, why) = granted.get(&look.name).cloned().unwrap_or_default();
            let Some(owned) = self.owned.get(&look.name) else {
                continue;
            };
            let execution = self.executing.execution(&look.name);
            let known = (owned.epoch, owned.desired);
            metrics::group_scaled(&look.name, look.consumers, desired);
            steps.push(Step::of(look, (desired, why), known, execution));
        }
        self.choose_victims(namespace, &mut steps).await;
        let now = Instant::now();
        steps.retain(|step| {
            let Some(owned) = self.owned.get_mut(&step.look.name) else {
                return false;
            };
            // What arrived before anybody listened to the bell is found by the second look.
            let was_at_rest = std::mem::replace(&mut owned.is_at_rest, step.is_at_rest());
            let is_quiet = was_at_rest && owned.is_at_rest;
            owned.due = now + if is_quiet { AT_REST } else { BUSY };
            let is_old = owned
                .stored
                .is_none_or(|stored| stored + STORE_EVERY <= now);
            let is_news = owned.stored.is_none()
                || step.has_news(owned.desired, &owned.state)
                || is_old && step.look.state != owned.state;
            if !is_news {
                owned.state = step.look.state.clone();
            }
            is_news
        });
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
        if writes.is_empty() {
            return Ok(());
        }
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
                self.owned.remove(&step.look.name);
            }
        }
        Ok(())
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

    /// Names those who are to go where there are more than wanted.
    async fn choose_victims(&self, namespace: &Arc<str>, steps: &mut [Step]) {
        let surplus: Vec<String> = steps
            .iter()
            .filter(|step| step.surplus() > 0)
            .map(|step| step.look.name.group.to_string())
            .collect();
        if surplus.is_empty() {
            return;
        }
        let attached = self.desk.gateways.connections(namespace, &surplus).await;
        for step in steps.iter_mut().filter(|step| step.surplus() > 0) {
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
                    draining: draining.contains_key(&one.consumer_id),
                })
                .collect();
            for victim in scaling::victims(&holders, step.surplus()) {
                step.drain(victim.consumer, victim.reason);
            }
        }
    }
}
