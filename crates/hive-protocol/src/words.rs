//! The words of JSON and of command lines for the enums of the wire.
//!
//! Routing modes, start positions and durabilities have theirs in `hive_domain`.

pub mod coordination;

use crate::wire::{
    ConsumerKind, DeadLetterStatus, MessageState, ReplayJobState, ReplayOutcome, ReplayState,
    SettleStatus, TrackedState,
};

/// The states of an unsettled message that a caller may ask for, with their words.
pub const MESSAGE_STATES: [(MessageState, &str); 6] = [
    (MessageState::Waiting, "waiting"),
    (MessageState::Leased, "leased"),
    (MessageState::Ready, "ready"),
    (MessageState::Delayed, "delayed"),
    (MessageState::Parked, "parked"),
    (MessageState::Scheduled, "scheduled"),
];

/// The word for the state of an unsettled message; `unspecified` for one that is never answered.
#[must_use]
pub fn message_state(state: MessageState) -> &'static str {
    let found = MESSAGE_STATES.iter().find(|(known, _)| *known == state);
    found.map_or("unspecified", |(_, word)| word)
}

/// The state that a word names, or none.
#[must_use]
pub fn parse_message_state(word: &str) -> Option<MessageState> {
    MESSAGE_STATES
        .iter()
        .find(|(_, known)| *known == word)
        .map(|(state, _)| *state)
}

/// Where a dead letter may stand, with the words for it.
pub const DEAD_LETTER_STATUSES: [(DeadLetterStatus, &str); 7] = [
    (DeadLetterStatus::Quarantined, "quarantined"),
    (DeadLetterStatus::Analyzed, "analyzed"),
    (DeadLetterStatus::Replayable, "replayable"),
    (DeadLetterStatus::Replaying, "replaying"),
    (DeadLetterStatus::Replayed, "replayed"),
    (DeadLetterStatus::PermanentFailure, "permanent_failure"),
    (DeadLetterStatus::Archived, "archived"),
];

/// The word for where a dead letter stands; `unspecified` for one that is never answered.
#[must_use]
pub fn dead_letter_status(status: DeadLetterStatus) -> &'static str {
    let mut known = DEAD_LETTER_STATUSES.iter();
    let found = known.find(|(known, _)| *known == status);
    found.map_or("unspecified", |(_, word)| word)
}

/// The status that a word names, or none.
#[must_use]
pub fn parse_dead_letter_status(word: &str) -> Option<DeadLetterStatus> {
    let mut known = DEAD_LETTER_STATUSES.iter();
    let found = known.find(|(_, known)| *known == word);
    found.map(|(status, _)| *status)
}

/// The word for what became of a replayed message; empty where nothing is known.
#[must_use]
pub const fn replay_outcome(outcome: ReplayOutcome) -> &'static str {
    match outcome {
        ReplayOutcome::Unspecified => "",
        ReplayOutcome::Pending => "pending",
        ReplayOutcome::Succeeded => "succeeded",
        ReplayOutcome::Failed => "failed",
    }
}

/// The word for how a replay job stands.
#[must_use]
pub const fn replay_job_state(state: ReplayJobState) -> &'static str {
    match state {
        ReplayJobState::Unspecified => "unspecified",
        ReplayJobState::Running => "running",
        ReplayJobState::Canary => "canary",
        ReplayJobState::Done => "done",
        ReplayJobState::Cancelled => "cancelled",
        ReplayJobState::Failed => "failed",
    }
}

/// The word for the answer to an outcome.
#[must_use]
pub const fn settle_status(status: SettleStatus) -> &'static str {
    match status {
        SettleStatus::Unspecified => "unspecified",
        SettleStatus::Ok => "ok",
        SettleStatus::Gone => "gone",
        SettleStatus::StaleLease => "stale_lease",
        SettleStatus::UnknownLease => "unknown_lease",
        SettleStatus::Invalid => "invalid",
    }
}

/// The word for where a tracked message stands.
#[must_use]
pub const fn tracked_state(state: TrackedState) -> &'static str {
    match state {
        TrackedState::Unspecified => "unspecified",
        TrackedState::Scheduled => "scheduled",
        TrackedState::Waiting => "waiting",
        TrackedState::Leased => "leased",
        TrackedState::Retrying => "retrying",
        TrackedState::Acked => "acked",
        TrackedState::Dead => "dead",
        TrackedState::Expired => "expired",
        TrackedState::Cancelled => "cancelled",
    }
}

/// The word for whether a replay goes on.
#[must_use]
pub const fn replay_state(state: ReplayState) -> &'static str {
    match state {
        ReplayState::Unspecified => "unspecified",
        ReplayState::Running => "running",
        ReplayState::Done => "done",
        ReplayState::Cancelled => "cancelled",
        ReplayState::Failed => "failed",
    }
}

/// The word for how a consumer gets its work.
#[must_use]
pub const fn consumer_kind(kind: ConsumerKind) -> &'static str {
    match kind {
        ConsumerKind::Unspecified => "unspecified",
        ConsumerKind::Stream => "stream",
        ConsumerKind::Pull => "pull",
    }
}

#[cfg(test)]
mod tests {
    use super::{
        consumer_kind, dead_letter_status, message_state, parse_dead_letter_status,
        parse_message_state, replay_job_state, settle_status,
    };
    use crate::wire::{ConsumerKind, DeadLetterStatus, MessageState, ReplayJobState, SettleStatus};

    /// The word that a name of the wire makes: without its prefix, in lower case.
    fn expected(name: &str, prefix: &str) -> String {
        name.strip_prefix(prefix).unwrap().to_ascii_lowercase()
    }

    #[test]
    fn every_word_is_the_name_of_the_wire_in_lower_case() {
        for number in 0..=8 {
            if let Ok(state) = MessageState::try_from(number) {
                let word = expected(state.as_str_name(), "MESSAGE_STATE_");
                assert_eq!(message_state(state), word);
                if number > 0 {
                    assert_eq!(parse_message_state(&word), Some(state));
                }
            }
            if let Ok(status) = SettleStatus::try_from(number) {
                let word = expected(status.as_str_name(), "SETTLE_STATUS_");
                assert_eq!(settle_status(status), word);
            }
            if let Ok(status) = DeadLetterStatus::try_from(number) {
                let word = expected(status.as_str_name(), "DEAD_LETTER_STATUS_");
                assert_eq!(dead_letter_status(status), word);
                if number > 0 {
                    assert_eq!(parse_dead_letter_status(&word), Some(status));
                }
            }
            if let Ok(state) = ReplayJobState::try_from(number) {
                let word = expected(state.as_str_name(), "REPLAY_JOB_STATE_");
                assert_eq!(replay_job_state(state), word);
            }
            if let Ok(kind) = ConsumerKind::try_from(number) {
                let word = expected(kind.as_str_name(), "CONSUMER_KIND_");
                assert_eq!(consumer_kind(kind), word);
            }
        }
        assert_eq!(parse_message_state("unspecified"), None);
    }
}
