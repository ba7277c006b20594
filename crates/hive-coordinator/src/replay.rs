//! Carries on the replays of a shard: what a stream retains goes once more to one group.
//!
//! The replay is stored after each step, and each message has an idempotency key made of the
//! replay, its lane and its entry: whoever carries on after a crash publishes nothing twice. Lanes
//! go one after the other, each from its oldest entry on. What the group has not settled yet comes
//! to it anyway, and is passed by; so are tasks of workflows, which their router alone repeats.
//!
//! Retention goes on meanwhile, with twice its limits (`retain.rs`). A replay knows a settled entry
//! of each lane that it has yet to read: where that is gone before its turn, it ends as failed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hive_domain::stream::{Durability, StreamDefinition};
use hive_protocol::limits::DIRECT_TTL_MS_DEFAULT;
use hive_protocol::{time, wire};
use hive_store::StoreError;
use hive_store::control::Put;
use hive_store::fetch::ReadLane;
use hive_store::header::Header;
use hive_store::lane::{Lane, LaneKind, LaneRef};
use hive_store::lease::parse_entry_id;
use hive_store::publish::{Flush, Flushed, Idempotency, Item, Outcome, REPLAY_MARK};
use hive_store::replays::{Replay, ReplayState};
use prost::Message as _;
use uuid::Uuid;

use crate::metrics::{self, Loop};
use crate::shard::Scope;

/// Pause between two looks for replays, where none is under way.
const IDLE_PAUSE: Duration = Duration::from_secs(1);
/// Pause between two steps of those under way.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
/// Entries of one step: they may have a megabyte each.
const PAGE: u64 = 16;
/// Entries that a step looks at behind its own, for the one that the next step must find.
const AHEAD: u64 = 2;
/// Steps of one replay in a round, so that others have their turn.
const STEPS_MAX: u32 = 64;
/// How long a replay is kept after its end.
const KEPT_MS: u64 = 7 * 86_400_000;

/// What a replay may publish by now, in thousandths of a message.
#[derive(Debug)]
struct Budget {
    millis: u64,
    at: Instant,
}

impl Budget {
    fn new() -> Self {
        Self {
            millis: 0,
            at: Instant::now(),
        }
    }

    /// What came since the last look is added; at most what a second gives is saved, and one.
    fn fill(&mut self, rate: u32) {
        let past = u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.at += Duration::from_millis(past);
        let (rate, second) = (u64::from(rate), 1_000);
        let more = rate.saturating_mul(past);
        self.millis = self.millis.saturating_add(more).min(rate.max(1) * second);
    }

    const fn messages(&self) -> u64 {
        self.millis / 1_000
    }

    const fn take(&mut self, messages: u64) {
        self.millis = self.millis.saturating_sub(messages * 1_000);
    }
}

/// The flushes of this owner of the shard.
#[derive(Debug)]
struct Line {
    incarnation: Arc<str>,
    number: u64,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It went on.
    On,
    /// It must wait, for its rate or for room.
    Wait,
    /// It is over, or somebody else changed it.
    Over,
}

/// Carries replays on, round by round.
pub(crate) async fn run(scope: Scope) {
    let mut budgets = BTreeMap::new();
    let mut line = Line {
        incarnation: format!("replay-{}", Uuid::new_v4().simple()).into(),
        number: 0,
    };
    loop {
        let began = Instant::now();
        let end = round(&scope, &mut budgets, &mut line).await;
        let is_busy = matches!(end, Ok(true));
        scope.trouble.note(Loop::Replay, began, end.map(drop));
        let idle = IDLE_PAUSE + scope.extra_pause(IDLE_PAUSE);
        tokio::time::sleep(if is_busy { BUSY_PAUSE } else { idle }).await;
    }
}

/// Whether a replay is under way.
async fn round(
    scope: &Scope,
    budgets: &mut BTreeMap<String, Budget>,
    line: &mut Line,
) -> Result<bool, StoreError> {
    let replays = scope.store.replays(&scope.shard).await?;
    let view = scope.view();
    let (mut is_busy, mut published) = (false, 0);
    budgets.retain(|id, _| replays.iter().any(|replay| replay.id == *id));
    for mut replay in replays {
        if replay.state != ReplayState::Running {
            budgets.remove(&replay.id);
            forget(scope, &replay).await?;
            continue;
        }
        // Its definition is read again with the next beat.
        let Some(stream) = &view.stream else {
            continue;
        };
        is_busy = true;
        let budget = budgets.entry(replay.id.clone()).or_insert_with(Budget::new);
        budget.fill(replay.rate);
        let before = replay.published;
        for _ in 0..STEPS_MAX {
            if step(scope, stream, &mut replay, budget, line).await? != Step::On {
                break;
            }
        }
        published += replay.published.saturating_sub(before);
    }
    if published > 0 {
        metrics::replayed(published);
        scope.ring().await?;
    }
    Ok(is_busy)
}

async fn forget(scope: &Scope, replay: &Replay) -> Result<(), StoreError> {
    let is_old = scope
        .now_ms()
        .is_some_and(|now| now > replay.ended_ms.saturating_add(KEPT_MS));
    if is_old {
        let (store, shard) = (&scope.store, &scope.shard);
        store.remove_replay(&scope.namespace, shard, replay).await?;
    }
    Ok(())
}

async fn step(
    scope: &Scope,
    stream: &StreamDefinition,
    replay: &mut Replay,
    budget: &mut Budget,
    line: &mut Line,
) -> Result<Step, StoreError> {
    if budget.messages() == 0 {
        return Ok(Step::Wait);
    }
    let (lanes, all) = scope.store.read_lanes(&scope.shard, &replay.group).await?;
    let is_there = |name: &String| *name == replay.group;
    if !scope
        .store
        .groups_on_shard(&scope.shard)
        .await?
        .iter()
        .any(is_there)
    {
        let why = format!("group `{}` is gone", replay.group);
        return end(scope, replay, ReplayState::Failed, why).await;
    }
    drop(all);
    if replay.heads.is_none() {
        replay.heads = Some(heads(scope, replay, &lanes).await?);
    }
    let keeps = stream.settings.keeps_settled();
    let Some(place) = next_lane(&lanes, &replay.lane) else {
        return finish(scope, replay, keeps).await;
    };
    let Some(lane) = lanes.get(place) else {
        return Ok(Step::Over);
    };
    enter(replay, lane, keeps);
    let count = PAGE.min(budget.messages());
    let from = (replay.from_ms, replay.after.as_str());
    let ahead = count + AHEAD;
    let mut page = scope.store.history(lane, from, replay.to_ms, ahead).await?;
    let ids: Vec<String> = page.iter().map(|(id, _)| id.clone()).collect();
    if keeps && is_gone(&replay.next, &ids, (ids.len() as u64) < ahead) {
        miss(replay, Some(&lane.reference));
    }
    let Some(first) = ids.first() else {
        // A name behind all entries: the next step takes the next lane.
        replay.lane.push(LANE_END);
        replay.after.clear();
        replay.next.clear();
        return store(scope, replay).await;
    };
    let unsettled = Unsettled::read(scope, replay, (&lanes, place), first, ahead).await?;
    page.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    let (mut items, mut entries) = (Vec::new(), Vec::new());
    for (id, body) in &page {
        let is_settled = !unsettled.has(id);
        let copy = is_settled
            .then(|| {
                copy_of(
                    replay,
                    lane,
                    (id, body),
                    scope.now_ms().unwrap_or(replay.to_ms),
                )
            })
            .flatten();
        entries.push((id, copy.is_some()));
        items.extend(copy);
    }
    let (done, why) = if items.is_empty() {
        (usize::MAX, String::new())
    } else {
        match publish(scope, stream, items, line).await? {
            Some(outcomes) => taken(&outcomes),
            None => (0, "the groups of the stream are changing".to_owned()),
        }
    };
    let mut left = done;
    for (id, is_copied) in entries {
        if is_copied {
            if left == 0 {
                break;
            }
            left -= 1;
            replay.published += 1;
            budget.take(1);
        }
        replay.examined += 1;
        id.clone_into(&mut replay.after);
    }
    note_next(replay, &ids, &unsettled);
    let is_waiting = !why.is_empty();
    replay.error = if is_waiting {
        why
    } else {
        words_of_missed(replay)
    };
    let stored = store(scope, replay).await?;
    Ok(if is_waiting && stored == Step::On {
        Step::Wait
    } else {
        stored
    })
}

/// What is behind the name of a lane that is done: behind all names that begin with it, and before
/// those of other lanes that go on otherwise. No name of a lane has it.
const LANE_END: char = '!';

/// Ends a replay that has read all there is; as failed where that was less than there had been.
async fn finish(scope: &Scope, replay: &mut Replay, keeps: bool) -> Result<Step, StoreError> {
    // A lane that is gone before its turn had nothing left.
    let gone = replay.heads.take().unwrap_or_default().into_keys().next();
    miss(replay, gone.filter(|_| keeps).as_deref());
    let state = if replay.missed.is_empty() {
        ReplayState::Done
    } else {
        ReplayState::Failed
    };
    let words = words_of_missed(replay);
    end(scope, replay, state, words).await
}

/// Goes on to a lane, where it is not in it.
fn enter(replay: &mut Replay, lane: &ReadLane, keeps: bool) {
    if *lane.reference == *replay.lane {
        return;
    }
    if keeps && !replay.next.is_empty() {
        let before = replay.lane.clone();
        miss(replay, Some(&before));
    }
    lane.reference.as_ref().clone_into(&mut replay.lane);
    replay.after.clear();
    let heads = replay.heads.as_mut();
    let head = heads.and_then(|heads| heads.remove(&replay.lane));
    replay.next = head.unwrap_or_default();
}

/// Notes which of these entries the next step must find.
fn note_next(replay: &mut Replay, ids: &[String], unsettled: &Unsettled) {
    let after = parse_entry_id(&replay.after);
    let mut behind = ids.iter().filter(|id| parse_entry_id(id) > after);
    match behind.find(|id| !unsettled.has(id)) {
        Some(next) => next.clone_into(&mut replay.next),
        None if parse_entry_id(&replay.next) <= after => replay.next.clear(),
        None => {},
    }
}

/// The first settled entry of each lane that is to be read.
async fn heads(
    scope: &Scope,
    replay: &Replay,
    lanes: &[ReadLane],
) -> Result<BTreeMap<String, String>, StoreError> {
    let mut heads = BTreeMap::new();
    for (place, lane) in lanes.iter().enumerate() {
        if !is_to_come(lane, &replay.lane) {
            continue;
        }
        let from = (replay.from_ms, "");
        let page = scope.store.history(lane, from, replay.to_ms, PAGE).await?;
        let Some((first, _)) = page.first() else {
            continue;
        };
        let unsettled = Unsettled::read(scope, replay, (lanes, place), first, PAGE).await?;
        if let Some((id, _)) = page.iter().find(|(id, _)| !unsettled.has(id)) {
            heads.insert(lane.reference.to_string(), id.clone());
        }
    }
    Ok(heads)
}

/// Whether an entry was deleted that should be among these, or behind them where they are not all.
fn is_gone(next: &str, ids: &[String], are_all: bool) -> bool {
    let is_behind = ids
        .last()
        .is_none_or(|last| parse_entry_id(next) > parse_entry_id(last));
    !next.is_empty() && !ids.iter().any(|id| id == next) && (are_all || !is_behind)
}

/// Notes a lane of which something was deleted before it was read; the first one is told.
fn miss(replay: &mut Replay, lane: Option<&str>) {
    if let Some(lane) = lane.filter(|_| replay.missed.is_empty()) {
        lane.clone_into(&mut replay.missed);
    }
}

fn words_of_missed(replay: &Replay) -> String {
    match replay.missed.as_str() {
        "" => String::new(),
        lane => format!("retention deleted messages of lane `{lane}` before they were read"),
    }
}

/// Whether a lane is replayed, and not done where the replay is in the lane `from`.
fn is_to_come(lane: &ReadLane, from: &str) -> bool {
    let (name, done) = (&*lane.reference, from.strip_suffix(LANE_END));
    !lane.lane.lane.is_of_tasks() && done.map_or(name >= from, |done| name > done)
}

/// The first lane by name from this one on; of lanes that are not replayed none. A name with
/// `LANE_END` stands for the end of its lane.
fn next_lane(lanes: &[ReadLane], from: &str) -> Option<usize> {
    let mut open: Vec<(usize, &str)> = lanes
        .iter()
        .enumerate()
        .filter(|(_, lane)| is_to_come(lane, from))
        .map(|(place, lane)| (place, &*lane.reference))
        .collect();
    open.sort_by_key(|(_, name)| *name);
    open.first().map(|(place, _)| *place)
}

/// Entries of a page that the group has not settled.
struct Unsettled {
    pending: Vec<String>,
    delivered: Option<(u64, u64)>,
}

impl Unsettled {
    async fn read(
        scope: &Scope,
        replay: &Replay,
        (lanes, place): (&[ReadLane], usize),
        first: &str,
        count: u64,
    ) -> Result<Self, StoreError> {
        let (store, group) = (&scope.store, replay.group.as_str());
        // Before what is pending: an entry that is delivered in between is in one of the two.
        let delivered = match lanes.get(place) {
            Some(lane) => parse_entry_id(&store.last_delivered(group, lane).await?),
            None => None,
        };
        let pending = store
            .pending(group, lanes, place, (first, count), None)
            .await?;
        Ok(Self {
            pending: pending.into_iter().map(|entry| entry.id).collect(),
            delivered,
        })
    }

    fn has(&self, id: &str) -> bool {
        parse_entry_id(id) > self.delivered || self.pending.iter().any(|pending| pending == id)
    }
}

/// An entry as a new message of the group; none where it is not asked for, or does not decode.
fn copy_of(
    replay: &Replay,
    lane: &ReadLane,
    (id, body): (&str, &Bytes),
    now_ms: u64,
) -> Option<Item> {
    let (header, envelope) = Header::split(body).ok()?;
    let mut message = wire::Message::decode(envelope).ok()?;
    let is_asked = |names: &[String], name: &String| names.is_empty() || names.contains(name);
    if !is_asked(&replay.message_types, &message.message_type)
        || !is_asked(&replay.from_agents, &message.from_agent)
    {
        return None;
    }
    let key = format!("{REPLAY_MARK}{}/{}/{id}", replay.id, lane.reference);
    message.replay_of = std::mem::take(&mut message.message_id);
    message.message_id = Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes()).to_string();
    message.idempotency_key.clear();
    message.not_before = None;
    message.track = false;
    message.published_at = Some(time::to_timestamp(now_ms.into()));
    // Its time to live was that of the first one; a direct message has one always.
    let expires = if message.to_agent.is_empty() {
        0
    } else {
        now_ms.saturating_add(DIRECT_TTL_MS_DEFAULT)
    };
    message.expires_at = (expires > 0).then(|| time::to_timestamp(expires.into()));
    let header = Header {
        expires_at_ms: expires,
        dispatch_key: "".into(),
        ..header
    };
    let kind = match lane.lane.lane.kind {
        LaneKind::Tracked | LaneKind::Task => LaneKind::Plain,
        kind @ (LaneKind::Plain | LaneKind::Ordered) => kind,
    };
    let target = Lane {
        kind,
        ..lane.lane.lane.clone()
    };
    Some(Item {
        lanes: [LaneRef::of_group(&replay.group, target)].into(),
        body: header.join(&message.encode_to_vec()),
        producer: None,
        idempotency: Some(Idempotency {
            key,
            fingerprint: 0,
            message_id: message.message_id,
        }),
        ordering_key: message.ordering_key,
        not_before_ms: 0,
    })
}

/// None where the groups changed under it: nothing was stored.
async fn publish(
    scope: &Scope,
    stream: &StreamDefinition,
    items: Vec<Item>,
    line: &mut Line,
) -> Result<Option<Vec<Outcome>>, StoreError> {
    line.number += 1;
    let settings = &stream.settings;
    let flush = Flush {
        number: line.number,
        incarnation: line.incarnation.clone(),
        max_backlog: settings.max_backlog,
        max_backlog_bytes: settings.max_backlog_bytes,
        buffer_without_groups: false,
        groups: Vec::new(),
        items,
        durable: settings.durability == Durability::Local,
    };
    Ok(match scope.store.publish(&scope.shard, &flush).await? {
        Flushed::Done(outcomes) => Some(outcomes),
        Flushed::GroupsChanged | Flushed::Closed | Flushed::MemberByNow(_) => None,
    })
}

/// How many from the first on are stored, and why not more.
fn taken(outcomes: &[Outcome]) -> (usize, String) {
    for (count, outcome) in outcomes.iter().enumerate() {
        let why = match outcome {
            Outcome::Added | Outcome::Duplicate(_) => continue,
            Outcome::BacklogFull | Outcome::BacklogBytesFull => {
                "the group holds its limit of unsettled messages"
            },
            Outcome::DedupFull => "too many idempotency keys are remembered",
            Outcome::NoGroup => "the group is going",
            Outcome::SeenSequence
            | Outcome::KeyReused(_)
            | Outcome::NoGroups
            | Outcome::EarlierRefused
            | Outcome::RefusedBefore
            | Outcome::TrackedBefore => "an earlier message of its ordering key was refused",
        };
        return (count, why.to_owned());
    }
    (outcomes.len(), String::new())
}

async fn end(
    scope: &Scope,
    replay: &mut Replay,
    state: ReplayState,
    error: String,
) -> Result<Step, StoreError> {
    replay.state = state;
    replay.error = error;
    replay.ended_ms = scope.now_ms().unwrap_or(replay.to_ms);
    store(scope, replay).await?;
    let (replay, published) = (replay.id.as_str(), replay.published);
    tracing::info!(shard = ?scope.shard, replay, published, ?state, "replay_ended");
    Ok(Step::Over)
}

/// Stores how far it is; over where somebody else changed it.
async fn store(scope: &Scope, replay: &mut Replay) -> Result<Step, StoreError> {
    let (store, shard) = (&scope.store, &scope.shard);
    Ok(
        match store.put_replay(&scope.namespace, shard, replay).await? {
            Put::Stored(version) => {
                replay.version = version;
                Step::On
            },
            Put::Conflict | Put::Full => Step::Over,
        },
    )
}

#[cfg(test)]
mod tests {
    use hive_store::tracked;

    use super::*;

    fn lane(name: &str) -> ReadLane {
        ReadLane {
            lane: name.parse().expect("a lane"),
            reference: name.into(),
            stream: name.into(),
            ready: "r".into(),
        }
    }

    fn replay() -> Replay {
        Replay {
            id: "r".into(),
            version: 1,
            group: "g".into(),
            from_ms: 0,
            to_ms: 10,
            message_types: Vec::new(),
            from_agents: Vec::new(),
            rate: 100,
            state: ReplayState::Running,
            lane: String::new(),
            after: String::new(),
            next: String::new(),
            heads: None,
            missed: String::new(),
            examined: 0,
            published: 0,
            error: String::new(),
            started_ms: 0,
            ended_ms: 0,
        }
    }

    fn body(message: &wire::Message) -> Bytes {
        let header = Header {
            priority: 4,
            max_attempts: 2,
            initial_backoff_ms: 1,
            max_backoff_ms: 2,
            expires_at_ms: 5,
            ordering_key: "".into(),
            dispatch_key: tracked::tracking_key("m").into(),
        };
        header.join(&message.encode_to_vec())
    }

    #[test]
    fn lanes_are_walked_by_name_and_those_of_tasks_are_passed_by() {
        let lanes = ["g/p4", "/p4", "g/p4t", "g/p4r", "/p9m"].map(lane);
        let mut walked = Vec::new();
        let mut from = String::new();
        while let Some(place) = next_lane(&lanes, &from) {
            walked.push(&*lanes[place].reference);
            assert_eq!(next_lane(&lanes, &lanes[place].reference), Some(place));
            from = format!("{}{LANE_END}", lanes[place].reference);
        }
        assert_eq!(walked, ["/p4", "/p9m", "g/p4", "g/p4r"]);
    }

    #[test]
    fn a_copy_is_a_new_message_of_the_group_and_the_same_each_time() {
        let message = wire::Message {
            message_id: "m".into(),
            message_type: "t".into(),
            payload: Bytes::from_static(b"{}"),
            idempotency_key: "k".into(),
            expires_at: Some(time::to_timestamp(5.into())),
            track: true,
            ..wire::Message::default()
        };
        let stored = body(&message);
        let (replay, lane) = (replay(), lane("/p4r"));
        let copy = copy_of(&replay, &lane, ("7-1", &stored), 1_000).expect("a copy");
        let again = copy_of(&replay, &lane, ("7-1", &stored), 1_000).expect("a copy");
        assert_eq!(copy.idempotency, again.idempotency);
        assert_eq!(copy.lanes[0].to_string(), "g/p4");
        let (header, envelope) = Header::split(&copy.body).expect("a header");
        assert_eq!((header.expires_at_ms, header.max_attempts), (0, 2));
        assert_eq!(header.dispatch_key, "");
        let read = wire::Message::decode(envelope).expect("a message");
        assert_eq!((read.replay_of.as_str(), read.track), ("m", false));
        assert_ne!(read.message_id, "m");
        assert_eq!(read.payload, message.payload);
        assert_eq!((read.idempotency_key.as_str(), read.expires_at), ("", None));
        let other = copy_of(&replay, &lane, ("7-2", &stored), 1_000).expect("a copy");
        assert_ne!(copy.idempotency, other.idempotency);
    }

    #[test]
    fn only_what_was_asked_for_is_copied() {
        let message = wire::Message {
            message_type: "t".into(),
            from_agent: "a".into(),
            ..wire::Message::default()
        };
        let (stored, lane) = (body(&message), lane("/p4"));
        for (types, agents, is_copied) in [
            (vec!["t"], vec![], true),
            (vec!["u"], vec![], false),
            (vec!["t", "u"], vec!["a"], true),
            (vec![], vec!["b"], false),
        ] {
            let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
            let replay = Replay {
                message_types: owned(types),
                from_agents: owned(agents),
                ..replay()
            };
            let copy = copy_of(&replay, &lane, ("7-1", &stored), 1_000);
            assert_eq!(copy.is_some(), is_copied, "{replay:?}");
        }
        assert!(copy_of(&replay(), &lane, ("7-1", &Bytes::from_static(b"x")), 1).is_none());
    }

    #[test]
    fn what_is_full_waits_behind_what_was_stored() {
        let (added, full) = (Outcome::Added, Outcome::BacklogFull);
        let (count, why) = taken(&[added.clone(), Outcome::Duplicate("m".into()), full]);
        assert_eq!(count, 2);
        assert!(why.contains("limit of unsettled messages"));
        assert_eq!(taken(&[added]), (1, String::new()));
    }
}
