//! Takes over what died: from the shards' dead streams into records, each classified.
//!
//! A shard's dead letters are read in their order behind a position that is stored with them, and
//! the position moves on when all of a page are stored. Whoever reads them again after a crash
//! finds their records there: the id of a record is made of what died. Where no room is left the
//! position stands still; what died waits in its shard.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use hive_domain::{
    dead_letter::{
        category::Category,
        classify::Failure,
        fingerprint::{fingerprint, mask},
        recovery::{self, Recovery},
        status::Status,
    },
    time::Timestamp,
};
use hive_protocol::{outcome::cut_stack, wire};
use hive_store::{
    StoreError,
    dead::DeadLetter,
    header::Header,
    keys::Shard,
    lease::parse_entry_id,
    letters::{
        Attempt, Facts, Found, Index, Letter, Letters, NewLetter, Order, Outcome, Past, State,
        Step, Taken, Tally,
    },
};
use prost::Message as _;
use uuid::Uuid;

use crate::{
    desk::Desk,
    metrics::{self, Loop},
    trim,
};

/// Dead letters of one page.
const PAGE: usize = 200;
/// Pause between two looks at a shard: what died is listed within it, and some.
const POLL: Duration = Duration::from_millis(200);
/// Pause after Redis did not answer, and while there is no room.
const PAUSE: Duration = Duration::from_millis(500);
/// Dead letters are kept in their shard for so long after they were stored.
const KEEP_MS: u64 = 600_000;
/// Pause between two trims of what was stored long ago.
const FORGET_EVERY: Duration = Duration::from_secs(10);
/// Earlier deaths of a task that are looked at.
const SIBLINGS: usize = 4;

/// Which shard is followed.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) namespace: Arc<str>,
    pub(crate) stream: Arc<str>,
    pub(crate) index: u32,
    pub(crate) shard: Shard,
}

/// Follows one shard until the future is dropped. Where another Redis answers than the one that
/// what was stored last was stored on, what was stored in the last minutes may be lost, and is
/// taken again.
pub(crate) async fn follow(desk: Arc<Desk>, place: Place) {
    let (mut position, mut again) = (None, None);
    let (mut is_told, mut forgot) = (false, Instant::now());
    loop {
        if forgot.elapsed() >= FORGET_EVERY {
            forgot = Instant::now();
            if let Err(error) = desk.store.trim_dead(&place.shard, KEEP_MS).await {
                tracing::debug!(%error, shard = ?place.shard, "taken_not_forgotten");
            }
        }
        match advance(&desk, &place, &mut position, &mut again).await {
            Ok(Advance::More) => is_told = false,
            Ok(Advance::None) => {
                if let Some(server) = again.take() {
                    let noted = desk.store.note_dead_taken_from(&place.shard, &server).await;
                    if noted.is_err() {
                        again = Some(server);
                    }
                }
                tokio::time::sleep(POLL).await;
            },
            Ok(Advance::Full) => {
                if !is_told {
                    let namespace = &*place.namespace;
                    tracing::error!(namespace, advice = FULL_ADVICE, "dead_letters_full");
                    is_told = true;
                }
                metrics::intake_full();
                tokio::time::sleep(PAUSE).await;
            },
            Err(error) => {
                metrics::round_failed(Loop::Intake);
                tracing::debug!(%error, shard = ?place.shard, "dead_letters_not_taken");
                tokio::time::sleep(PAUSE).await;
            },
        }
    }
}

const FULL_ADVICE: &str = "all records are in the queue: replay, archive or purge some, or raise \
                           dead_letters.records_max; what dies meanwhile waits in its shard";

/// What a look at a shard came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Advance {
    /// There may be more.
    More,
    /// There is nothing more now.
    None,
    /// There is no room.
    Full,
}

async fn advance(
    desk: &Desk,
    place: &Place,
    position: &mut Option<String>,
    again: &mut Option<String>,
) -> Result<Advance, StoreError> {
    let after = match position {
        Some(after) => after.clone(),
        None => begin(desk, place, again).await?,
    };
    let page = desk.store.dead_letters(&place.shard, &after, PAGE).await?;
    if page.is_empty() {
        *position = Some(after);
        return Ok(Advance::None);
    }
    let letters = desk.letters(&place.namespace);
    let mut last = None;
    let mut is_full = false;
    for dead in page {
        let id = dead.id.clone();
        if take(desk, place, &letters, dead).await? == Taken::Full {
            is_full = true;
            break;
        }
        last = Some(id);
    }
    if let Some(last) = &last {
        let advanced = desk.store.advance_dead(&place.shard, &after, last);
        if !advanced.await? {
            // Redis came back with less than it had: records of what is before may be gone too.
            *position = None;
            return Ok(Advance::More);
        }
    }
    *position = Some(last.unwrap_or(after));
    Ok(if is_full {
        Advance::Full
    } else {
        Advance::More
    })
}

/// Where to begin: behind what was stored, or some minutes before on a server that may have lost
/// it; then `again` is that server, to be noted once all of it is stored.
async fn begin(
    desk: &Desk,
    place: &Place,
    again: &mut Option<String>,
) -> Result<String, StoreError> {
    let taken = desk.store.dead_taken(&place.shard).await?;
    let known = desk.store.dead_taken_from(&place.shard).await?;
    let server = desk.store.run_id();
    if known == server {
        return Ok(taken);
    }
    *again = Some(server);
    let back = desk.now().as_millis().saturating_sub(KEEP_MS);
    let is_older = parse_entry_id(&taken).is_none_or(|(ms, _)| ms < back);
    Ok(if is_older { taken } else { format!("{back}-0") })
}

/// Stores one dead letter, once; makes room for it where it may.
async fn take(
    desk: &Desk,
    place: &Place,
    letters: &Letters,
    dead: DeadLetter,
) -> Result<Taken, StoreError> {
    let new = record(desk, place, letters, dead).await?;
    let mut taken = Taken::Full;
    for _ in 0..3 {
        taken = desk
            .store
            .take_letter(letters, &new, desk.settings.bounds)
            .await?;
        if taken != Taken::Full || !trim::make_room(desk, letters).await? {
            break;
        }
    }
    if taken == Taken::New {
        let facts = &new.letter.facts;
        metrics::taken(facts.category, desk.now().since(Timestamp(facts.dead_ms)));
    }
    // Whoever stored it may have died before it said so.
    if taken != Taken::Full && !new.letter.facts.replay_of.is_empty() {
        died_again(desk, letters, &new.letter.facts).await?;
    }
    Ok(taken)
}

/// What a replay sent has died: its own record says so.
async fn died_again(desk: &Desk, letters: &Letters, facts: &Facts) -> Result<(), StoreError> {
    let parent = desk.store.read_letter(letters, &facts.replay_of).await?;
    if let Found::There(parent) = parent
        && parent.state.message_id == facts.message_id
        && parent.state.outcome == Outcome::Pending
    {
        let step = Step {
            state: State {
                outcome: Outcome::Failed,
                ..parent.state.clone()
            },
            tally: Some(Tally::Failed),
            ..Step::default()
        };
        // Whoever looks for outcomes may have been first.
        desk.store
            .change_letter(letters, &parent, parent.status, &step)
            .await?;
    }
    Ok(())
}

/// The id of what died: the same delivery always has the same.
fn id_of(place: &Place, dead: &DeadLetter) -> String {
    let name = format!(
        "{}/{}/{}/{}/{}/{}/{}",
        place.namespace,
        place.stream,
        place.index,
        dead.lane,
        dead.entry,
        dead.group,
        dead.deliveries
    );
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).to_string()
}

/// The record of a dead letter: classified, with what becomes of it.
async fn record(
    desk: &Desk,
    place: &Place,
    letters: &Letters,
    dead: DeadLetter,
) -> Result<NewLetter, StoreError> {
    let id = id_of(place, &dead);
    let body = dead.body.clone();
    let mut facts = facts(desk, place, dead);
    facts.past = past(desk, letters, &facts).await?;
    let now = desk.now();
    let policy = &desk.settings.policies.recovery;
    let entropy = Uuid::parse_str(&id).map_or(0, |id| id.as_u64_pair().0);
    let decided = if facts.decodes {
        recovery::decide(
            facts.category,
            facts.is_task(),
            facts.past.automatic,
            policy,
            (now, entropy),
        )
    } else {
        Recovery::Person {
            strategy: recovery::Strategy::ManualIntervention,
            why: "its bytes are no message of this build".to_owned(),
        }
    };
    let mut state = State::default();
    let (status, why) = match decided {
        Recovery::At {
            due,
            strategy,
            raises_priority,
        } => {
            state.strategy = strategy;
            state.raises_priority = raises_priority;
            state.due_ms = due.as_millis();
            let seconds = due.since(now) / 1_000;
            (
                Status::Replayable,
                format!("goes back by itself in {seconds} s"),
            )
        },
        Recovery::Person { strategy, why } => {
            state.strategy = strategy;
            let is_understood = facts.decodes && facts.category != Category::Unknown;
            let status = if is_understood {
                Status::Analyzed
            } else {
                Status::Quarantined
            };
            (status, why)
        },
    };
    let why = format!("{} by rule `{}`: {why}", facts.category, facts.rule);
    let change = desk.change(status, "intake", why);
    Ok(NewLetter {
        letter: Letter {
            id,
            version: 0,
            status,
            facts,
            state,
        },
        body,
        change,
    })
}

/// What is known of a dead letter.
fn facts(desk: &Desk, place: &Place, dead: DeadLetter) -> Facts {
    let (header, message) = match Header::split(&dead.body) {
        Ok((header, envelope)) => (Some(header), wire::Message::decode(envelope).ok()),
        Err(_) => (None, None),
    };
    let decodes = header.is_some() && message.is_some();
    let message = message.unwrap_or_default();
    let attempts: Vec<Attempt> = dead.attempts.into_iter().map(attempt).collect();
    let last = attempts.last().cloned().unwrap_or_default();
    // The script's category is that of the end; an agent may have given none.
    let given = if dead.category.is_empty() {
        last.category.as_str()
    } else {
        dead.category.as_str()
    };
    let text = if last.stack.is_empty() {
        last.reason.clone()
    } else {
        format!("{}\n{}", last.reason, last.stack)
    };
    let classified = desk.settings.policies.rules.classify(&Failure {
        given,
        error_type: &last.error_type,
        text: &text,
    });
    let dead_ms = parse_entry_id(&dead.id).map_or(0, |(ms, _)| ms);
    Facts {
        fingerprint: fingerprint(&dead.group, classified.category, &last.error_type, &text),
        error: mask(if text.is_empty() { given } else { &text }),
        category: classified.category,
        rule: classified.rule.to_owned(),
        stream: place.stream.to_string(),
        shard: place.index,
        group: dead.group,
        lane: dead.lane,
        entry: dead.entry,
        deliveries: dead.deliveries,
        failures: dead.failures,
        error_type: last.error_type,
        attempts,
        priority: header.as_ref().map_or(0, |header| header.priority),
        dispatch_key: header
            .as_ref()
            .map(|header| header.dispatch_key.to_string())
            .unwrap_or_default(),
        is_ordered: !message.ordering_key.is_empty(),
        decodes,
        payload_bytes: u64::try_from(message.payload.len()).unwrap_or(u64::MAX),
        traceparent: message
            .headers
            .get("traceparent")
            .cloned()
            .unwrap_or_default(),
        replay_of: if message.replay_number > 0 {
            message.replay_of
        } else {
            String::new()
        },
        replay_number: message.replay_number,
        message_id: message.message_id,
        message_type: message.message_type,
        from_agent: message.from_agent,
        workflow_id: message.workflow_id,
        run_id: message.run_id,
        task_id: message.task_id,
        past: Past::default(),
        dead_ms,
    }
}

fn attempt(one: hive_store::attempt::Attempt) -> Attempt {
    Attempt {
        consumer: one.consumer,
        started_ms: one.started_ms,
        ended_ms: one.ended_ms,
        category: one.category,
        error_type: one.error_type,
        reason: one.reason,
        stack: cut_stack(&one.stack),
    }
}

/// What happened to a message before: its record tells of which one it is a replay; that of a task
/// is the last one of the task.
async fn past(desk: &Desk, letters: &Letters, facts: &Facts) -> Result<Past, StoreError> {
    let earlier = if facts.is_task() {
        earlier_of_task(desk, letters, facts).await?
    } else if facts.replay_of.is_empty() {
        None
    } else {
        let earlier = desk.store.read_letter(letters, &facts.replay_of).await?;
        earlier.there()
    };
    let Some(earlier) = earlier else {
        // What it repeats is gone: its number counts the replays of its life.
        return Ok(Past {
            replays: facts.replay_number,
            automatic: facts.replay_number,
            same: facts.replay_number,
        });
    };
    let (before, state) = (earlier.facts.past, &earlier.state);
    // One that is not noted as sent yet, and was: here is what it sent.
    let under_way = state.plan.as_ref().filter(|plan| {
        earlier.status == Status::Replaying
            && (facts.is_task() || plan.number == facts.replay_number)
    });
    let more = u32::from(under_way.is_some());
    let more_automatic = u32::from(under_way.is_some_and(|plan| plan.is_automatic));
    let replays = state.replays.saturating_add(more);
    Ok(Past {
        replays: before.replays.saturating_add(replays),
        automatic: before
            .automatic
            .saturating_add(state.automatic)
            .saturating_add(more_automatic),
        same: if earlier.facts.fingerprint == facts.fingerprint {
            before.same.saturating_add(replays)
        } else {
            0
        },
    })
}

/// The last record of an earlier attempt of a task.
async fn earlier_of_task(
    desk: &Desk,
    letters: &Letters,
    facts: &Facts,
) -> Result<Option<Letter>, StoreError> {
    let index = Index::Task(facts.task());
    let until = (0, facts.dead_ms.saturating_add(1));
    let places = desk
        .store
        .letter_ids(letters, &index, (Order::Newest, None), until, SIBLINGS)
        .await?;
    let ids: Vec<String> = places.into_iter().map(|place| place.id).collect();
    let read = desk.store.read_letters(letters, &ids).await?;
    Ok(read.into_iter().filter_map(Found::there).find(|letter| {
        let other = &letter.facts;
        other.dispatch_key != facts.dispatch_key
    }))
}
