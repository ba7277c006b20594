//! The loop that finds the lost: the clock, then gateways and members, then every delivery.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hive_store::StoreError;
use hive_store::fetch::{Lanes, ReadLane};
use hive_store::sweep::Tick;

use crate::metrics::Loop;
use crate::shard::{Scope, View};
use crate::sweep::GroupMemory;
use crate::{members, sweep};

/// Pause between two sweeps: what a hung agent loses at most on top of its lease, with the walk.
const SWEEP_EVERY: Duration = Duration::from_millis(500);
/// Pause between two looks at the clock, and at gateways and members.
const TICK_EVERY: Duration = Duration::from_secs(1);
/// The same paces where a replica has many shards: still at every delivery once a second.
const SWEEP_EVERY_MANY: Duration = Duration::from_millis(900);
const TEND_EVERY_MANY: Duration = Duration::from_millis(1_700);
/// Below the five seconds after which a silent clock counts as one that jumped.
const TICK_EVERY_MANY: Duration = Duration::from_secs(3);
/// A longer pause between two looks at the clock means that Redis, or this process, was away.
const BROKEN_AFTER: Duration = Duration::from_secs(5);
/// Pause per page of a walk that found many: a tenth of Redis' time at most goes into it.
const PAUSE_PER_PAGE: Duration = Duration::from_millis(5);

/// What this loop remembers of its shard.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    ticked: Option<Ticked>,
    /// Redis' time at which the current stretch of unbroken time began.
    steady_ms: u64,
    /// The last round failed: how long Redis was away is not known.
    is_broken: bool,
    pub(crate) groups: BTreeMap<String, GroupMemory>,
    /// Last beat of each gateway, in ms since 1970.
    pub(crate) beats: BTreeMap<String, u64>,
    /// Pages read by the last walk.
    pages: u32,
    /// When gateways and members were looked at last.
    tended: Option<Instant>,
    /// The lanes as they were then.
    lanes: Arc<Lanes>,
}

#[derive(Debug, Clone)]
struct Ticked {
    at: Instant,
    run_id: String,
}

/// Time as the steps of one round see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clock {
    /// Redis' time in ms since 1970.
    pub(crate) now_ms: u64,
    /// Nothing ends by its deadline.
    pub(crate) in_grace: bool,
    /// When the current stretch of unbroken time began, in ms since 1970.
    pub(crate) steady_ms: u64,
    /// The clock went back, and what goes by it was not put right yet.
    went_back: bool,
}

/// Recovers, round by round.
pub(crate) async fn run(scope: Scope) {
    let mut memory = Memory::default();
    let mut clock = None;
    loop {
        let began = Instant::now();
        let is_many = scope.is_one_of_many();
        let end = round(&scope, &mut memory, &mut clock).await;
        memory.is_broken |= end.is_err();
        scope.trouble.note(Loop::Recover, began, end);
        let every = if is_many {
            SWEEP_EVERY_MANY
        } else {
            SWEEP_EVERY
        };
        let pause = (PAUSE_PER_PAGE * memory.pages).max(every);
        tokio::time::sleep(pause.saturating_sub(began.elapsed())).await;
    }
}

async fn round(
    scope: &Scope,
    memory: &mut Memory,
    clock: &mut Option<Clock>,
) -> Result<(), StoreError> {
    let view = scope.view();
    memory
        .groups
        .retain(|name, _| view.groups.iter().any(|group| group.name == *name));
    let is_many = scope.is_one_of_many();
    let (tick_every, tend_every) = if is_many {
        (TICK_EVERY_MANY, TEND_EVERY_MANY)
    } else {
        (TICK_EVERY, TICK_EVERY)
    };
    let ticked = memory.ticked.as_ref().map(|ticked| ticked.at);
    let is_tick_due = ticked.is_none_or(|at| at.elapsed() >= tick_every);
    let is_due = memory.tended.is_none_or(|at| at.elapsed() >= tend_every);
    let now = match *clock {
        Some(known) if !is_tick_due && !memory.is_broken => {
            let now_ms = scope.now_ms().unwrap_or(known.now_ms);
            Clock { now_ms, ..known }
        },
        Some(_) | None => tick(scope, memory, &view).await?,
    };
    *clock = Some(now);
    // What lies in a lane that is younger than the last look cannot have lost its lease since.
    if is_due || !is_many {
        memory.lanes = Arc::new(scope.store.lanes(&scope.shard).await?);
    }
    let lanes = Arc::clone(&memory.lanes);
    if now.went_back {
        put_right(scope, &view, &lanes).await?;
        *clock = Some(Clock {
            went_back: false,
            ..now
        });
    }
    if is_due {
        memory.beats = scope
            .store
            .gateway_beats(&scope.shard)
            .await?
            .into_iter()
            .collect();
        members::tend(scope, memory, &view, &lanes, now).await?;
        memory.tended = Some(Instant::now());
    }
    sweep_all(scope, memory, (&view, &lanes), now).await
}

async fn sweep_all(
    scope: &Scope,
    memory: &mut Memory,
    (view, lanes): (&View, &Lanes),
    mut now: Clock,
) -> Result<(), StoreError> {
    memory.pages = 0;
    let mut given_back = 0;
    for group in view.live() {
        let read = lanes.of_group(&scope.shard, &group.name);
        let walk = sweep::walk(scope, group, &read).await;
        let walk = scope.settle_trouble(&group.name, walk).await?;
        memory.pages = memory.pages.saturating_add(walk.pages);
        // A Redis that restarted during the walk has not started its grace yet.
        let is_same = memory
            .ticked
            .as_ref()
            .is_some_and(|ticked| ticked.run_id == scope.store.run_id());
        if !is_same {
            now = tick(scope, memory, view).await?;
        }
        let found = (group, &*read);
        let end = sweep::settle(scope, memory, found, walk, now).await;
        given_back += scope.settle_trouble(&group.name, end).await?;
    }
    if given_back > 0 {
        scope.ring().await?;
    }
    Ok(())
}

/// Notes the time in Redis; a grace starts where it jumped or Redis began anew.
async fn tick(scope: &Scope, memory: &mut Memory, view: &View) -> Result<Clock, StoreError> {
    let longest_ms = view
        .live()
        .map(|group| {
            let own = memory.groups.get(&group.name);
            group
                .settings
                .lease_ms
                .max(own.map_or(0, GroupMemory::told_ms))
        })
        .max()
        .unwrap_or_default();
    let mut run_id = scope.store.run_id();
    let tick = loop {
        let tick = scope.store.tick(&scope.shard, longest_ms, None).await?;
        // The call that finds a new connection was made with the old run id: Redis learns of its
        // restart by the next one.
        let newest = scope.store.run_id();
        if newest == run_id {
            break tick;
        }
        run_id = newest;
        memory.is_broken = true;
    };
    scope.set_clock(tick.now_ms);
    let was_away = memory
        .ticked
        .as_ref()
        .is_some_and(|ticked| ticked.at.elapsed() > BROKEN_AFTER || ticked.run_id != run_id);
    memory.steady_ms = steady_ms(memory, tick, was_away);
    memory.is_broken = false;
    memory.ticked = Some(Ticked {
        at: Instant::now(),
        run_id,
    });
    Ok(Clock {
        now_ms: tick.now_ms,
        in_grace: tick.now_ms < tick.grace_until_ms,
        steady_ms: memory.steady_ms,
        went_back: tick.back_ms > 0,
    })
}

/// After the clock went back: backoffs would end so much later, and deliveries made at a time that
/// is yet to come would not grow old until then. Delayed messages stay where they are: `not_before`
/// names a time of day, and that time is still to come.
async fn put_right(scope: &Scope, view: &View, lanes: &Lanes) -> Result<(), StoreError> {
    let groups: Vec<&str> = view.live().map(|group| group.name.as_str()).collect();
    for group in &groups {
        while scope.store.shift_delayed(&scope.shard, group).await? {}
        for lane in &*lanes.of_group(&scope.shard, group) {
            let end = restamp(scope, group, lane).await;
            scope.settle_trouble(group, end).await?;
        }
    }
    scope.store.forget_step_back(&scope.shard, &groups).await?;
    tracing::warn!(shard = ?scope.shard, "clock_went_back");
    Ok(())
}

async fn restamp(scope: &Scope, group: &str, lane: &ReadLane) -> Result<(), StoreError> {
    let mut from = Some("-".to_owned());
    while let Some(cursor) = from {
        from = scope.store.restamp(group, lane, &cursor).await?;
    }
    Ok(())
}

/// When the current stretch began: a grace tells of a break that another replica saw.
fn steady_ms(memory: &Memory, tick: Tick, was_away: bool) -> u64 {
    let is_break = was_away || (memory.is_broken && memory.ticked.is_some());
    let own = if is_break {
        tick.now_ms
    } else {
        memory.steady_ms.min(tick.now_ms)
    };
    own.max(tick.grace_from_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_grace_makes_no_gateway_seem_alive() {
        let tick = Tick {
            now_ms: 50_000,
            grace_until_ms: 86_401_000,
            grace_from_ms: 1_000,
            back_ms: 0,
        };
        assert_eq!(steady_ms(&Memory::default(), tick, false), 1_000);
        assert_eq!(steady_ms(&Memory::default(), tick, true), 50_000);
    }
}
