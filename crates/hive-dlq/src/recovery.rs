//! Sends back by itself what may go, while the groups are healthy.
//!
//! The breaker of a group is a row that changes by compare-and-set, so that two replicas that look
//! after one namespace for a moment open one breaker and choose one probe.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hive_domain::{
    dead_letter::{
        breaker::{Breaker, Change, State, Window},
        status::Status,
    },
    group::{GroupDefinition, GroupState},
};
use hive_store::{
    Purpose, StoreError,
    control::Put,
    figures::Figures,
    letters::{self, Found, Index, Letter, Letters, LettersKey, Order, Outcome, Row, Step},
};
use serde::{Deserialize, Serialize};

use crate::{
    desk::Desk,
    metrics,
    replay::{self, Ask, Begun},
};

/// How far back what happened in a group is looked at, to the minute.
const WINDOW_MS: u64 = 60_000;
/// What happened before a breaker closed may be in a window for so long.
const CLOSED_KEPT_MS: u64 = 2 * WINDOW_MS;
/// Pause between two looks at a group's figures.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Records whose fingerprints say whether one fault dominates.
const FINGERPRINTS: usize = 200;
/// What is due in a group whose breaker is open, or without agents, is looked at again after so
/// long.
const POSTPONE_MS: u64 = 5_000;
const POSTPONE_NO_AGENTS_MS: u64 = 30_000;
/// A breaker for which no probe was found so long after one might have gone closes.
const NO_PROBE_MS: u64 = 15_000;
/// Pages of what is due in one round: what waits for a group that is not healthy must not hold up
/// the others.
const PAGES_MAX: u32 = 10;

/// The breaker of a group, as it is stored.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct GroupBreaker {
    pub(crate) group: String,
    pub(crate) breaker: Breaker,
    /// Whether it paused the group, and so ends the pause.
    #[serde(default)]
    pub(crate) has_paused: bool,
    /// When it closed last, in ms since 1970: what happened before is no reason to open again.
    #[serde(default)]
    pub(crate) closed_ms: u64,
}

/// What is remembered of the groups of a namespace.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    looked: Option<Instant>,
}

/// One round over a namespace; answers how many breakers are not closed.
pub(crate) async fn round(
    desk: &Desk,
    letters: &Letters,
    memory: &mut Memory,
) -> Result<u64, StoreError> {
    let rows: Vec<Row<GroupBreaker>> = desk
        .store
        .letter_rows(letters, LettersKey::Breakers)
        .await?;
    let mut breakers: BTreeMap<String, Row<GroupBreaker>> = rows
        .into_iter()
        .map(|row| (row.value.group.clone(), row))
        .collect();
    if memory
        .looked
        .is_none_or(|looked| looked.elapsed() >= LOOK_EVERY)
    {
        memory.looked = Some(Instant::now());
        look_at_groups(desk, letters, &mut breakers).await?;
    }
    send_due(desk, letters, &mut breakers).await?;
    let open = breakers.values().filter(|row| !row.value.breaker.admits());
    Ok(u64::try_from(open.count()).unwrap_or(u64::MAX))
}

async fn look_at_groups(
    desk: &Desk,
    letters: &Letters,
    breakers: &mut BTreeMap<String, Row<GroupBreaker>>,
) -> Result<(), StoreError> {
    let totals = desk.store.letter_totals(letters).await?;
    let mut groups: Vec<String> = totals.by_group.into_iter().map(|(name, _)| name).collect();
    groups.extend(breakers.keys().cloned());
    groups.sort();
    groups.dedup();
    groups.retain(|name| !name.is_empty());
    for group in groups {
        let Some(definition) = desk.store.group(letters.namespace(), &group).await? else {
            // What is open of a group that is gone closes nothing any more.
            if let Some(row) = breakers.remove(&group) {
                desk.store
                    .put_letter_row::<GroupBreaker>(
                        letters,
                        LettersKey::Breakers,
                        &group,
                        (row.version, None),
                    )
                    .await?;
            }
            continue;
        };
        let mut row = breakers.remove(&group).unwrap_or_else(|| Row {
            version: 0,
            value: GroupBreaker {
                group: group.clone(),
                ..GroupBreaker::default()
            },
        });
        let settings = &desk.settings.policies.breaker;
        let now = desk.now();
        let before = row.value.breaker.clone();
        let window = window(desk, letters, &definition, row.value.closed_ms).await?;
        let mut change = row.value.breaker.observe(&window, settings, now);
        if let State::HalfOpen { probe, .. } = &row.value.breaker.state {
            let probe = probe.clone();
            let found = desk.store.read_letter(letters, &probe).await?;
            if let Some(is_well) = told_by(&found) {
                change = row.value.breaker.outcome(&probe, is_well, settings, now);
            }
        }
        // Nothing is there that could be a probe: whether it is well again shows by itself.
        if let State::Open { until, .. } = row.value.breaker.state
            && now > until.plus(NO_PROBE_MS)
            && row.value.breaker.reset()
        {
            change = Some(Change::Closed);
        }
        if row.value.breaker != before && row.value.breaker.admits() {
            row.value.closed_ms = now.as_millis();
        }
        let kept_until = row.value.closed_ms.saturating_add(CLOSED_KEPT_MS);
        let is_over = row.value.breaker.admits() && now.as_millis() > kept_until;
        let is_news = row.value.breaker != before || is_over && row.version > 0;
        // Also what an earlier look left undone, because somebody changed the group just then.
        if is_news || is_pause_due(desk, &definition, &row.value) {
            change_pause(desk, letters, &definition, (&mut row, change.as_ref())).await?;
        }
        if row.version > 0 {
            breakers.insert(group, row);
        }
    }
    Ok(())
}

/// What a probe says of its group: none while that is not known. One that another build wrote says
/// nothing until its time is over.
fn told_by(probe: &Found) -> Option<bool> {
    match probe {
        Found::There(letter) => match (letter.status, letter.state.outcome) {
            (Status::Replayed, Outcome::Succeeded) => Some(true),
            (Status::Replayed, Outcome::Failed) => Some(false),
            (Status::Replaying | Status::Replayed, _) => None,
            // It was refused, or a person took it: it says nothing of the group.
            (_, _) => Some(false),
        },
        Found::Absent => Some(false),
        Found::Unreadable => None,
    }
}

fn told(group: &str, change: Option<&Change>) {
    match change {
        Some(Change::Opened { reason, .. }) => {
            metrics::breaker_opened();
            tracing::warn!(group, reason, "breaker_opened");
        },
        Some(Change::OpenedAgain { reason, .. }) => {
            metrics::breaker_opened();
            tracing::warn!(group, reason, "breaker_opened_again");
        },
        Some(Change::Closed) => tracing::info!(group, "breaker_closed"),
        None => {},
    }
}

/// Whether a breaker wants its group paused: while it is open, as a probe needs agents.
fn wants_pause(desk: &Desk, breaker: &GroupBreaker) -> bool {
    desk.settings.policies.pause_groups && matches!(breaker.breaker.state, State::Open { .. })
}

/// Whether a group is to be paused, or its pause by the breaker to be ended.
fn is_pause_due(desk: &Desk, definition: &GroupDefinition, breaker: &GroupBreaker) -> bool {
    if wants_pause(desk, breaker) {
        definition.state == GroupState::Active
    } else {
        breaker.has_paused
    }
}

/// Stores a breaker, and pauses its group while it is open where the policy says so. That it is the
/// breaker's pause is stored before it begins and until it is over: whoever comes after a crash,
/// or after somebody who changed the group at that moment, ends it. False where another replica
/// changed the breaker; what changed is told only where it is stored.
async fn change_pause(
    desk: &Desk,
    letters: &Letters,
    definition: &GroupDefinition,
    (row, change): (&mut Row<GroupBreaker>, Option<&Change>),
) -> Result<bool, StoreError> {
    let wants = wants_pause(desk, &row.value);
    let is_due = is_pause_due(desk, definition, &row.value);
    if wants && is_due {
        row.value.has_paused = true;
    } else if is_due {
        row.value.has_paused = definition.state == GroupState::Paused
            && !set_state(desk, letters, definition, GroupState::Active).await?;
    }
    if !store(desk, letters, row).await? {
        return Ok(false);
    }
    told(&row.value.group, change);
    if wants && is_due {
        set_state(desk, letters, definition, GroupState::Paused).await?;
    }
    Ok(true)
}

/// Pauses a group or ends its pause; false where somebody else changed it at this moment.
async fn set_state(
    desk: &Desk,
    letters: &Letters,
    definition: &GroupDefinition,
    state: GroupState,
) -> Result<bool, StoreError> {
    let mut changed = definition.clone();
    changed.state = state;
    let namespace = letters.namespace();
    let Put::Stored(version) = desk.store.put_group(namespace, &changed).await? else {
        return Ok(false);
    };
    changed.version = version;
    let shard = desk.store.shard(namespace, &changed.stream, 0);
    desk.store.set_state_on_shard(&shard, &changed).await?;
    desk.store.ring(Purpose::Control, &shard).await?;
    let (group, is_paused) = (&changed.name, state == GroupState::Paused);
    tracing::warn!(group, is_paused, "breaker_set_pause");
    Ok(true)
}

async fn store(
    desk: &Desk,
    letters: &Letters,
    row: &mut Row<GroupBreaker>,
) -> Result<bool, StoreError> {
    let kept_until = row.value.closed_ms.saturating_add(CLOSED_KEPT_MS);
    let is_over =
        row.value.breaker.admits() && !row.value.has_paused && desk.now().as_millis() > kept_until;
    let value = (!is_over).then(|| row.value.clone());
    if value.is_none() && row.version == 0 {
        return Ok(true);
    }
    let put = desk
        .store
        .put_letter_row(
            letters,
            LettersKey::Breakers,
            &row.value.group,
            (row.version, value),
        )
        .await?;
    match put {
        Put::Stored(version) => {
            row.version = version;
            Ok(true)
        },
        Put::Conflict | Put::Full => Ok(false),
    }
}

/// What happened in a group within the window, and since its breaker closed.
async fn window(
    desk: &Desk,
    letters: &Letters,
    definition: &GroupDefinition,
    closed_ms: u64,
) -> Result<Window, StoreError> {
    let shard = desk.store.shard(letters.namespace(), &definition.stream, 0);
    let lanes = desk.store.lanes(&shard).await?;
    let read = lanes.of_group(&shard, &definition.name);
    let figures = match desk.store.figures(&shard, &definition.name, &read).await {
        Ok(figures) => figures,
        Err(StoreError::Lost { .. }) => Figures::default(),
        Err(error) => return Err(error),
    };
    let now_ms = desk.now().as_millis();
    let since = now_ms.saturating_sub(WINDOW_MS).max(closed_ms);
    let span_ms = now_ms.saturating_sub(since);
    let minutes = figures.minutes.iter();
    let (acked, failed) = minutes
        .filter(|one| one.started_ms.saturating_add(60_000) > since)
        .fold((0_u64, 0_u64), |sum, one| {
            (
                sum.0.saturating_add(one.acked),
                sum.1.saturating_add(one.failed),
            )
        });
    let index = Index::Group(definition.name.clone());
    let dead = desk
        .store
        .count_letters(letters, &index, (since, 0))
        .await?;
    let mut top_fingerprint = 0;
    if dead >= desk.settings.policies.breaker.min_dead {
        let page = desk
            .store
            .letter_ids(
                letters,
                &index,
                (Order::Newest, None),
                (since, 0),
                FINGERPRINTS,
            )
            .await?;
        let ids: Vec<String> = page.into_iter().map(|place| place.id).collect();
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        let looked_at = ids.len();
        for letter in desk
            .store
            .read_letters(letters, &ids)
            .await?
            .into_iter()
            .filter_map(Found::there)
        {
            let count = counts.entry(letter.facts.fingerprint).or_default();
            *count = count.saturating_add(1);
        }
        let most = counts.values().max().copied().unwrap_or(0);
        // Of many the newest stand for all.
        let looked_at = u64::try_from(looked_at).unwrap_or(u64::MAX).max(1);
        top_fingerprint = most.saturating_mul(dead) / looked_at;
    }
    Ok(Window {
        acked,
        // A rejection is no failed attempt, and yet one that failed.
        failed_deliveries: failed.max(dead),
        dead,
        top_fingerprint,
        span_ms,
    })
}

/// Sends what is due, a batch.
async fn send_due(
    desk: &Desk,
    letters: &Letters,
    breakers: &mut BTreeMap<String, Row<GroupBreaker>>,
) -> Result<(), StoreError> {
    let now_ms = desk.now().as_millis();
    let batch = usize::try_from(desk.settings.policies.recovery.batch).unwrap_or(usize::MAX);
    let (mut healthy, mut sent) = (BTreeMap::new(), 0_usize);
    for _ in 0..PAGES_MAX {
        let ids = desk
            .store
            .letters_until(letters, LettersKey::Due, now_ms, batch)
            .await?;
        let read = desk.store.read_letters(letters, &ids).await?;
        let (mut later, mut much_later) = (Vec::new(), Vec::new());
        for (id, letter) in ids.iter().zip(read) {
            let letter = match letter {
                Found::There(letter) => letter,
                Found::Absent => {
                    desk.store
                        .forget_place(letters, LettersKey::Due, id)
                        .await?;
                    continue;
                },
                Found::Unreadable => {
                    much_later.push(id.clone());
                    continue;
                },
            };
            let group = letter.facts.group.clone();
            let is_healthy = match healthy.get(&group) {
                Some(known) => *known,
                None => {
                    let is_healthy = has_agents(desk, letters, &group).await?;
                    healthy.insert(group.clone(), is_healthy);
                    is_healthy
                },
            };
            let mut is_probe = false;
            let may_go = is_healthy
                && match breakers.get_mut(&group) {
                    None => true,
                    Some(row) if row.value.breaker.admits() => true,
                    Some(row) => {
                        is_probe = probe(desk, letters, row, &letter).await?;
                        is_probe
                    },
                };
            if may_go && sent < batch {
                send(desk, letters, &letter, is_probe).await?;
                sent = sent.saturating_add(1);
            } else if is_healthy {
                later.push(id.clone());
            } else {
                much_later.push(id.clone());
            }
        }
        for (ids, after_ms) in [(&later, POSTPONE_MS), (&much_later, POSTPONE_NO_AGENTS_MS)] {
            let at = now_ms.saturating_add(after_ms);
            desk.store
                .postpone_letters(letters, LettersKey::Due, ids, at)
                .await?;
        }
        if ids.len() < batch || sent >= batch {
            break;
        }
    }
    Ok(())
}

/// Makes a record the probe of an open breaker; false where none may go now.
async fn probe(
    desk: &Desk,
    letters: &Letters,
    row: &mut Row<GroupBreaker>,
    letter: &Letter,
) -> Result<bool, StoreError> {
    // What became of a message with an ordering key is not told.
    if letter.facts.is_ordered {
        return Ok(false);
    }
    let mut next = row.clone();
    if !next.value.breaker.probe(&letter.id, desk.now()) {
        return Ok(false);
    }
    let namespace = letters.namespace();
    let Some(definition) = desk.store.group(namespace, &letter.facts.group).await? else {
        return Ok(false);
    };
    if !change_pause(desk, letters, &definition, (&mut next, None)).await? {
        return Ok(false);
    }
    *row = next;
    Ok(true)
}

/// Whether a group delivers, and has somebody to deliver to. A group that a breaker has paused is
/// asked about by its probe alone.
async fn has_agents(desk: &Desk, letters: &Letters, group: &str) -> Result<bool, StoreError> {
    let Some(definition) = desk.store.group(letters.namespace(), group).await? else {
        return Ok(false);
    };
    if !matches!(definition.state, GroupState::Active | GroupState::Paused) {
        return Ok(false);
    }
    let is_paused = definition.state == GroupState::Paused;
    if is_paused && !desk.settings.policies.pause_groups {
        return Ok(false);
    }
    let shard = desk.store.shard(letters.namespace(), &definition.stream, 0);
    Ok(!desk.store.members(&shard, group).await?.is_empty())
}

async fn send(
    desk: &Desk,
    letters: &Letters,
    letter: &Letter,
    is_probe: bool,
) -> Result<(), StoreError> {
    let why = match (is_probe, letter.state.strategy) {
        (true, _) => "probe of the open breaker".to_owned(),
        (false, strategy) => strategy.to_string(),
    };
    let ask = Ask {
        priority_boost: if letter.state.raises_priority { 2 } else { 0 },
        by: "recovery".to_owned(),
        why,
        is_automatic: true,
        ..Ask::default()
    };
    let begun = replay::begin(desk, letters, letter, &ask).await;
    let result = match begun {
        Ok(Begun::Mine(letter)) => replay::carry_on(desk, letters, *letter).await.map(drop),
        Ok(Begun::Before | Begun::UnderWay(_) | Begun::Stale | Begun::Limit) => Ok(()),
        Err(fault) => {
            // A person decides: it would be refused again and again.
            let step = Step {
                state: letters::State {
                    due_ms: 0,
                    ..letter.state.clone()
                },
                change: Some(desk.change(
                    Status::Analyzed,
                    "recovery",
                    format!("not sent back: {fault}"),
                )),
                ..Step::of(letter)
            };
            if replay::is_passing(&fault) {
                return Ok(());
            }
            desk.store
                .change_letter(letters, letter, Status::Analyzed, &step)
                .await?;
            Ok(())
        },
    };
    if let Err(fault) = result {
        tracing::debug!(dlq_id = letter.id, %fault, "not_recovered");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hive_domain::{
        dead_letter::breaker::State,
        group::{GroupDefinition, GroupState},
        time::Timestamp,
    };
    use hive_store::{
        control::Put,
        letters::{Found, LettersKey, Row},
    };

    use super::{GroupBreaker, change_pause, look_at_groups, told_by};
    use crate::{
        settings::Policies,
        world::{World, world},
    };

    /// A world with group `g`, and a policy that pauses groups.
    async fn paused_by_breakers() -> World {
        let world = world(Policies {
            pause_groups: true,
            ..Policies::default()
        })
        .await;
        world.make_group().await;
        world
    }

    impl World {
        async fn group(&self) -> GroupDefinition {
            self.desk.store.group("n", "g").await.unwrap().unwrap()
        }

        /// Somebody changes the group.
        async fn touch(&self) {
            let put = self.desk.store.put_group("n", &self.group().await).await;
            assert!(matches!(put, Ok(Put::Stored(_))), "{put:?}");
        }

        async fn row(&self) -> Row<GroupBreaker> {
            let store = &self.desk.store;
            let row = store
                .letter_row(&self.letters, LettersKey::Breakers, "g")
                .await;
            row.unwrap().unwrap_or_else(|| Row {
                version: 0,
                value: GroupBreaker {
                    group: "g".into(),
                    ..GroupBreaker::default()
                },
            })
        }

        async fn change(&self, definition: &GroupDefinition, row: &mut Row<GroupBreaker>) {
            let changed = change_pause(&self.desk, &self.letters, definition, (row, None)).await;
            assert!(changed.unwrap());
        }

        /// A look of the daemon: rows are read anew each time.
        async fn look(&self) {
            let row = self.row().await;
            let mut breakers = [("g".to_owned(), row)].into();
            look_at_groups(&self.desk, &self.letters, &mut breakers)
                .await
                .unwrap();
        }
    }

    fn open() -> State {
        State::Open {
            until: Timestamp(u64::MAX / 2),
            opened_at: Timestamp(1),
            reason: "a test".into(),
            times: 1,
        }
    }

    #[test]
    fn a_probe_that_another_build_wrote_says_nothing_of_its_group() {
        assert_eq!(told_by(&Found::Unreadable), None);
        assert_eq!(told_by(&Found::Absent), Some(false));
    }

    #[tokio::test]
    async fn a_pause_that_another_change_of_the_group_kept_off_is_made_up_for() {
        let world = paused_by_breakers().await;
        let (mut row, stale) = (world.row().await, world.group().await);
        world.touch().await;
        row.value.breaker.state = open();
        world.change(&stale, &mut row).await;
        assert_eq!(world.group().await.state, GroupState::Active);
        world.look().await;
        assert_eq!(world.group().await.state, GroupState::Paused);
    }

    #[tokio::test]
    async fn a_pause_is_the_breakers_until_the_group_runs_again() {
        let world = paused_by_breakers().await;
        let mut row = world.row().await;
        row.value.breaker.state = open();
        world.change(&world.group().await, &mut row).await;
        let stale = world.group().await;
        assert_eq!(stale.state, GroupState::Paused);
        world.touch().await;
        row.value.breaker.state = State::Closed;
        row.value.closed_ms = world.desk.now().as_millis();
        world.change(&stale, &mut row).await;
        assert_eq!(world.group().await.state, GroupState::Paused);
        assert!(world.row().await.value.has_paused);
        world.look().await;
        assert_eq!(world.group().await.state, GroupState::Active);
        assert!(!world.row().await.value.has_paused);
    }
}
