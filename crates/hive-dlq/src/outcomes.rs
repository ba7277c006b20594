//! What became of what replays sent: looked up where the message lies, until it is settled.

use std::{
    future::ready,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use hive_domain::dead_letter::status::Status;
use hive_store::{
    StoreError,
    letters::{Changed, Found, Letter, Letters, LettersKey, Outcome, State, Step, Tally},
    tasks::{TaskOutcome, TaskRow},
};

use crate::{desk::Desk, replay};

/// Records worked on at once.
const AT_ONCE: usize = 16;
/// How long one round carries on what others left: a router that hangs must not stall the rest.
const CARRY_WITHIN: Duration = Duration::from_secs(2);
/// Records looked at in one round.
const SLICE: usize = 200;
/// Shortest and longest pause between two looks at one message: a quarter of its age between.
const LOOK_MS: (u64, u64) = (500, 60_000);
/// A message that nobody knows is given up after so long.
const UNKNOWN_MS: u64 = 60_000;
/// A task waits for its router, and may wait for a group, this long.
const TASK_UNKNOWN_MS: u64 = 86_400_000;

/// Carries on what others left, and looks for outcomes that are due.
pub(crate) async fn round(desk: &Desk, letters: &Letters) -> Result<(), StoreError> {
    let now_ms = desk.now().as_millis();
    let (mut left, mut awaited) = (Vec::new(), Vec::new());
    for key in [LettersKey::Replaying, LettersKey::Awaiting] {
        let ids = desk
            .store
            .letters_until(letters, key, now_ms, SLICE)
            .await?;
        let read = desk.store.read_letters(letters, &ids).await?;
        let mut unreadable = Vec::new();
        for (id, letter) in ids.iter().zip(read) {
            let letter = match letter {
                Found::There(letter) => letter,
                Found::Absent => {
                    desk.store.forget_place(letters, key, id).await?;
                    continue;
                },
                Found::Unreadable => {
                    unreadable.push(id.clone());
                    continue;
                },
            };
            // The record was read behind the list: it may be something else by now.
            let is_under_way = letter.status == Status::Replaying;
            if key == LettersKey::Replaying && is_under_way {
                left.push(letter);
            } else if key == LettersKey::Awaiting && !is_under_way {
                awaited.push(letter);
            }
        }
        let later = now_ms.saturating_add(LOOK_MS.1);
        desk.store
            .postpone_letters(letters, key, &unreadable, later)
            .await?;
    }
    let mut looks = stream::iter(awaited)
        .map(|letter| async move { look(desk, letters, &letter).await })
        .buffer_unordered(AT_ONCE);
    while let Some(looked) = looks.next().await {
        looked?;
    }
    drop(looks);
    let begun = Instant::now();
    let mut carried = stream::iter(left)
        .take_while(|_| ready(begun.elapsed() < CARRY_WITHIN))
        .map(|letter| async move { carry(desk, letters, letter).await })
        .buffer_unordered(AT_ONCE);
    while let Some(end) = carried.next().await {
        end?;
    }
    Ok(())
}

/// Carries on what somebody left.
async fn carry(desk: &Desk, letters: &Letters, letter: Letter) -> Result<(), StoreError> {
    // Nobody else begins before that, unless this one dies too.
    let (id, next) = (letter.id.clone(), desk.now().as_millis() + replay::STALE_MS);
    desk.store
        .postpone_letters(
            letters,
            LettersKey::Replaying,
            std::slice::from_ref(&id),
            next,
        )
        .await?;
    if let Err(fault) = replay::carry_on(desk, letters, letter).await {
        tracing::debug!(dlq_id = id, %fault, "replay_not_carried_on");
    }
    Ok(())
}

/// Looks up what became of one.
async fn look(desk: &Desk, letters: &Letters, letter: &Letter) -> Result<(), StoreError> {
    if letter.state.outcome != Outcome::Pending {
        return desk
            .store
            .forget_place(letters, LettersKey::Awaiting, &letter.id)
            .await;
    }
    let now_ms = desk.now().as_millis();
    let age_ms = now_ms.saturating_sub(letter.state.sent_ms);
    let outcome = match row(desk, letters, letter).await? {
        TaskRow::Acked => Outcome::Succeeded,
        TaskRow::Ended(TaskOutcome::Succeeded) => Outcome::Succeeded,
        TaskRow::Ended(TaskOutcome::Suspended) | TaskRow::Waiting | TaskRow::Leased { .. } => {
            Outcome::Pending
        },
        TaskRow::Ended(
            TaskOutcome::Failed
            | TaskOutcome::DeadLettered
            | TaskOutcome::TimedOut
            | TaskOutcome::Cancelled,
        ) => Outcome::Failed,
        TaskRow::Unknown => {
            let patience = if letter.facts.is_task() {
                TASK_UNKNOWN_MS
            } else {
                UNKNOWN_MS
            };
            if age_ms < patience {
                Outcome::Pending
            } else {
                Outcome::Unknown
            }
        },
    };
    if outcome == Outcome::Pending {
        let next = now_ms.saturating_add((age_ms / 4).clamp(LOOK_MS.0, LOOK_MS.1));
        return desk
            .store
            .postpone_letters(
                letters,
                LettersKey::Awaiting,
                std::slice::from_ref(&letter.id),
                next,
            )
            .await;
    }
    let step = Step {
        state: State {
            outcome,
            ..letter.state.clone()
        },
        tally: match outcome {
            Outcome::Succeeded => Some(Tally::Succeeded),
            Outcome::Failed => Some(Tally::Failed),
            Outcome::Unknown | Outcome::Pending => None,
        },
        ..Step::default()
    };
    let changed = desk
        .store
        .change_letter(letters, letter, letter.status, &step)
        .await?;
    if changed == Changed::Stale {
        tracing::debug!(dlq_id = letter.id, "outcome_was_told_by_another");
    }
    Ok(())
}

/// Where the message stands, on whichever shard of its group knows it.
async fn row(desk: &Desk, letters: &Letters, letter: &Letter) -> Result<TaskRow, StoreError> {
    let (namespace, state) = (letters.namespace(), &letter.state);
    let Some(group) = desk.store.group(namespace, &state.sent_to).await? else {
        return Ok(TaskRow::Unknown);
    };
    let Some(stream) = desk.store.stream(namespace, &group.stream).await? else {
        return Ok(TaskRow::Unknown);
    };
    for index in 0..stream.shards {
        let shard = desk.store.shard(namespace, &stream.name, index);
        let row = desk.store.look_up_task(&shard, &state.track_key).await?;
        if row != TaskRow::Unknown {
            return Ok(row);
        }
    }
    Ok(TaskRow::Unknown)
}

#[cfg(test)]
mod tests {
    use hive_domain::dead_letter::status::Status;
    use hive_store::letters::{LettersKey, Step};

    use super::round;
    use crate::{settings::Policies, world::world};

    #[tokio::test]
    async fn a_record_of_another_build_keeps_its_place_and_one_that_is_gone_does_not() {
        let world = world(Policies::default()).await;
        let step = Step {
            replaying_ms: 1,
            ..Step::default()
        };
        for id in ["a", "b"] {
            world.take(id, Status::Replaying, &step).await;
        }
        world.make_unreadable("a").await;
        world.make_absent("b").await;
        round(&world.desk, &world.letters).await.unwrap();
        let store = &world.desk.store;
        let until = async |until_ms| {
            let key = LettersKey::Replaying;
            let ids = store.letters_until(&world.letters, key, until_ms, 10).await;
            ids.unwrap()
        };
        assert_eq!(until(u64::MAX >> 12).await, ["a"]);
        // It is looked at again, and stands in nobody's way until then.
        assert!(until(world.desk.now().as_millis()).await.is_empty());
    }
}
