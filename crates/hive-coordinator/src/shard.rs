//! One owned shard: what its loops know, and the loops side by side.
//!
//! The loops are apart because each has its own pace, and a long walk of one must not make another
//! late. All of them may be cut off at any wait: a step is one script, and runs to its end by
//! itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hive_domain::group::{GroupDefinition, GroupState, OrderingOnDead};
use hive_domain::stream::StreamDefinition;
use hive_store::fetch::ReadLane;
use hive_store::settle::{Settle, SettleGroup, Verdict};
use hive_store::{Purpose, Shard, Store, StoreError};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::settings::Recovery;
use crate::trouble::Trouble;
use crate::{audit, due, recover, replay, retain};

/// Deliveries settled per script call: 10 us each keeps a call within 1 ms.
const SETTLE_SLICE: usize = 100;

/// Beyond so many shards of one replica each is looked at less often.
const MANY: usize = 100;

/// What is defined on a shard, as of the last beat.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct View {
    /// The stream; none while its definition is not there.
    pub(crate) stream: Option<StreamDefinition>,
    /// Its groups, by name.
    pub(crate) groups: Vec<GroupDefinition>,
    /// Groups that stay half made or half deleted, by name: whoever began does not go on.
    pub(crate) stuck: Vec<String>,
}

/// What the loops of one shard have in common. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    pub(crate) store: Store,
    pub(crate) namespace: Arc<str>,
    pub(crate) stream: Arc<str>,
    /// Position of the shard in its stream.
    pub(crate) index: u32,
    pub(crate) shard: Shard,
    pub(crate) view: watch::Receiver<Arc<View>>,
    pub(crate) settings: Recovery,
    pub(crate) trouble: Arc<Trouble>,
    /// Redis' time when it was last read.
    clock: Arc<Mutex<Option<(Instant, u64)>>>,
    /// Shards that this replica owns.
    owned: Arc<AtomicUsize>,
}

/// Which shard it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ShardName {
    pub(crate) namespace: String,
    pub(crate) stream: String,
    pub(crate) index: u32,
}

impl Scope {
    pub(crate) fn new(
        store: Store,
        name: &ShardName,
        view: watch::Receiver<Arc<View>>,
        settings: Recovery,
        owned: Arc<AtomicUsize>,
    ) -> Self {
        let shard = store.shard(&name.namespace, &name.stream, name.index);
        Self {
            trouble: Arc::new(Trouble::new(format!("{shard:?}"))),
            store,
            namespace: name.namespace.as_str().into(),
            stream: name.stream.as_str().into(),
            index: name.index,
            shard,
            view,
            settings,
            clock: Arc::default(),
            owned,
        }
    }

    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// Shards that this replica owns, at least this one.
    pub(crate) fn owned(&self) -> usize {
        self.owned.load(Ordering::Relaxed).max(1)
    }

    /// Whether this replica owns so many shards that it looks at each of them less often: so shards
    /// with nothing to do cost Redis little together.
    pub(crate) fn is_one_of_many(&self) -> bool {
        self.owned() > MANY
    }

    /// What is added to a pause of `pause` where there are many shards.
    pub(crate) fn extra_pause(&self, pause: Duration) -> Duration {
        if self.is_one_of_many() {
            pause.saturating_mul(2)
        } else {
            Duration::ZERO
        }
    }

    /// Notes Redis' time.
    pub(crate) fn set_clock(&self, now_ms: u64) {
        *self.clock.lock() = Some((Instant::now(), now_ms));
    }

    /// Redis' time by the last reading; none before the first.
    pub(crate) fn now_ms(&self) -> Option<u64> {
        let (read, now_ms) = (*self.clock.lock())?;
        Some(now_ms + u64::try_from(read.elapsed().as_millis()).unwrap_or_default())
    }

    /// Settles in slices; verdicts are in the order of the items.
    pub(crate) async fn settle(
        &self,
        group: &GroupDefinition,
        lanes: &[ReadLane],
        items: &[Settle],
    ) -> Result<Vec<Verdict>, StoreError> {
        let mut verdicts = Vec::with_capacity(items.len());
        let view = self.view();
        let keep = view
            .stream
            .as_ref()
            .is_none_or(|stream| stream.settings.keeps_settled());
        for slice in items.chunks(SETTLE_SLICE) {
            let group = settle_group(group, lanes, keep);
            verdicts.extend(self.store.settle(&self.shard, group, slice, 0).await?);
        }
        Ok(verdicts)
    }

    /// What a step for one group ends with, so that its trouble does not keep the other groups of
    /// the shard from their turn: a group that was deleted meanwhile has no trouble, and a loss is
    /// told.
    pub(crate) async fn settle_trouble<T: Default>(
        &self,
        group: &str,
        end: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match end {
            Err(error) if !error.is_transient() => {
                let groups = self.store.groups_on_shard(&self.shard).await?;
                if !groups.iter().any(|name| name == group) {
                    return Ok(T::default());
                }
                if is_loss(&error) {
                    self.trouble.lose(error.to_string());
                    return Ok(T::default());
                }
                Err(error)
            },
            other => other,
        }
    }

    /// Wakes the gateways: something is to be delivered.
    pub(crate) async fn ring(&self) -> Result<(), StoreError> {
        self.store.ring(Purpose::Control, &self.shard).await
    }
}

impl View {
    /// Groups that deliver, or will again.
    pub(crate) fn live(&self) -> impl Iterator<Item = &GroupDefinition> {
        self.groups.iter().filter(|group| match group.state {
            GroupState::Active | GroupState::Paused => true,
            GroupState::Creating | GroupState::Deleting => false,
        })
    }
}

/// Ageing of a group's priorities in ms; 0 where they are strict.
pub(crate) const fn ageing_ms(group: &GroupDefinition) -> u64 {
    group.settings.ageing_ms()
}

fn settle_group<'a>(
    group: &'a GroupDefinition,
    lanes: &'a [ReadLane],
    keep: bool,
) -> SettleGroup<'a> {
    SettleGroup {
        name: &group.name,
        lanes,
        ageing_ms: ageing_ms(group),
        max_attempts: group.settings.max_attempts,
        initial_backoff_ms: group.settings.initial_backoff_ms,
        max_backoff_ms: group.settings.max_backoff_ms,
        // Nobody is told of it: what a crash of Redis undoes is found and done again.
        durable: false,
        keep,
        block: group.settings.ordering_on_dead == OrderingOnDead::Block,
    }
}

/// Whether a lane, or a group's place in it, is gone. XINFO says it as a common refusal.
pub(crate) fn is_loss(error: &StoreError) -> bool {
    match error {
        StoreError::Lost { .. } => true,
        StoreError::Refused { detail } => detail.contains("no such key"),
        StoreError::Unavailable { .. }
        | StoreError::Unknown { .. }
        | StoreError::Full
        | StoreError::Durability { .. }
        | StoreError::Dataset { .. }
        | StoreError::Corrupt { .. } => false,
    }
}

/// How many of these verdicts took effect.
pub(crate) fn taken(verdicts: &[Verdict]) -> u64 {
    let taken = verdicts
        .iter()
        .filter(|verdict| matches!(verdict, Verdict::Done | Verdict::Dead));
    u64::try_from(taken.count()).unwrap_or(u64::MAX)
}

/// A pace that never makes up for rounds that took too long.
pub(crate) fn every(period: Duration) -> tokio::time::Interval {
    let mut pace = tokio::time::interval(period);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    pace
}

/// Looks after a shard; never ends by itself.
pub(crate) async fn run(scope: Scope) {
    tokio::join!(
        Box::pin(recover::run(scope.clone())),
        Box::pin(due::run(scope.clone())),
        Box::pin(retain::run(scope.clone())),
        Box::pin(replay::run(scope.clone())),
        Box::pin(audit::run(scope)),
    );
}
