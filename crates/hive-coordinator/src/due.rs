//! Moves what is due: entries whose backoff is over, and messages published with a delay.
//!
//! A backoff may begin at any moment and be short, so the next due time that is known is not the
//! next that there will be: the loop looks ten times a second where something waits or lately did.
//! An idle shard is looked at as often while a replica owns few, and down to once a second when it
//! owns hundreds, so that idle shards together cost Redis little.

use std::time::{Duration, Instant};

use hive_store::StoreError;
use hive_store::fetch::Lanes;

use crate::metrics::{self, Loop};
use crate::shard::{Scope, View, ageing_ms};

/// Longest pause where something waits: due within 100 ms, with the time of the step.
const BUSY_PAUSE: Duration = Duration::from_millis(80);
/// Longest pause of an idle shard.
const IDLE_PAUSE: Duration = Duration::from_secs(1);
/// What each owned shard adds to the pause of an idle one.
const PAUSE_PER_SHARD: Duration = Duration::from_millis(2);
/// A shard without anything due for so long is idle.
const IDLE_AFTER: Duration = Duration::from_secs(30);
/// Shortest pause, so that a clock that differs a little makes no busy loop.
const SHORT_PAUSE: Duration = Duration::from_millis(5);
/// Pause after an error.
const RETRY: Duration = Duration::from_millis(100);
/// How many times a step reads lanes anew that changed under it.
const LANES_TRIES: u32 = 3;

/// What one round found.
#[derive(Debug, Clone, Copy, Default)]
struct Found {
    delayed: u64,
    scheduled: u64,
    /// Earliest due time of what waits, in ms since 1970; 0 for nothing.
    next_ms: u64,
}

/// Moves what is due, round by round.
pub(crate) async fn run(scope: Scope) {
    let (mut lanes, mut busy) = (Lanes::default(), None::<Instant>);
    loop {
        let began = Instant::now();
        let found = round(&scope, &mut lanes).await;
        let next = found.as_ref().ok().copied();
        scope.trouble.note(Loop::Due, began, found.map(|_found| ()));
        let Some(found) = next else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        if found.next_ms > 0 || found.delayed + found.scheduled > 0 {
            busy = Some(Instant::now());
        }
        let is_busy = busy.is_some_and(|busy| busy.elapsed() < IDLE_AFTER);
        tokio::time::sleep(pause(&scope, found, is_busy)).await;
    }
}

fn pause(scope: &Scope, found: Found, is_busy: bool) -> Duration {
    let owned = u32::try_from(scope.owned()).unwrap_or(u32::MAX);
    let longest = if is_busy {
        BUSY_PAUSE
    } else {
        PAUSE_PER_SHARD
            .saturating_mul(owned)
            .clamp(BUSY_PAUSE, IDLE_PAUSE)
    };
    match (found.next_ms, scope.now_ms()) {
        (0, _) | (_, None) => longest,
        (next_ms, Some(now_ms)) => {
            Duration::from_millis(next_ms.saturating_sub(now_ms)).clamp(SHORT_PAUSE, longest)
        },
    }
}

async fn round(scope: &Scope, lanes: &mut Lanes) -> Result<Found, StoreError> {
    let view = scope.view();
    let mut found = Found::default();
    // One command in place of a script for each group, where nothing waits: most shards, mostly.
    let groups: Vec<&str> = view.live().map(|group| group.name.as_str()).collect();
    if !scope.store.has_due(&scope.shard, &groups).await? {
        return Ok(found);
    }
    for _ in 0..LANES_TRIES {
        let is_complete = step(scope, &view, lanes, &mut found).await?;
        if is_complete {
            break;
        }
        *lanes = scope.store.lanes(&scope.shard).await?;
    }
    if found.delayed + found.scheduled > 0 {
        metrics::due(found.delayed, found.scheduled);
        scope.ring().await?;
    }
    Ok(found)
}

/// One call per group and one for the shard; false when there are lanes that were not known.
async fn step(
    scope: &Scope,
    view: &View,
    lanes: &Lanes,
    found: &mut Found,
) -> Result<bool, StoreError> {
    let (store, shard) = (&scope.store, &scope.shard);
    let mut is_complete = true;
    found.next_ms = 0;
    for group in view.live() {
        let read = lanes.of_group(shard, &group.name);
        let due = store
            .due_delayed(shard, &group.name, &read, ageing_ms(group))
            .await
            .map(Some);
        // None where the group is gone, or a lane of it.
        let Some(due) = scope.settle_trouble(&group.name, due).await? else {
            continue;
        };
        found.delayed += due.moved;
        found.next_ms = earlier(found.next_ms, due.next_ms);
        is_complete &= !due.lanes_changed;
    }
    // The counters of every group that is there must be passed, a new one's too.
    let groups = store.groups_on_shard(shard).await?;
    let due = store.due_scheduled(shard, lanes, &groups).await?;
    found.scheduled += due.moved;
    found.next_ms = earlier(found.next_ms, due.next_ms);
    Ok(is_complete && !due.lanes_changed)
}

/// The earlier of two due times, where 0 stands for none.
const fn earlier(a: u64, b: u64) -> u64 {
    if a == 0 || (b != 0 && b < a) { b } else { a }
}

#[cfg(test)]
mod tests {
    use super::earlier;

    #[test]
    fn nothing_due_is_later_than_anything() {
        assert_eq!(
            [earlier(0, 0), earlier(0, 5), earlier(5, 0), earlier(7, 5)],
            [0, 5, 5, 5]
        );
    }
}
