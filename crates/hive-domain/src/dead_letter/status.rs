//! The states of a dead letter, and the one function that says which may follow which.

use serde::{Deserialize, Serialize};

use crate::words::words;

/// Where a dead letter is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Taken in, but not understood: its category is unknown, or its body does not decode.
    #[default]
    Quarantined,
    /// Classified; waits for a person.
    Analyzed,
    /// Recovery or a person says that it may be sent back.
    Replayable,
    /// A replay is under way under a stored plan.
    Replaying,
    /// Sent back.
    Replayed,
    /// A person says that it will never succeed.
    PermanentFailure,
    /// Put away; nothing happens to it but its removal.
    Archived,
}

words!(Status {
    Quarantined => "quarantined",
    Analyzed => "analyzed",
    Replayable => "replayable",
    Replaying => "replaying",
    Replayed => "replayed",
    PermanentFailure => "permanent_failure",
    Archived => "archived",
});

impl Status {
    /// The status of a word, or none.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        word.parse().ok()
    }

    /// Whether a dead letter may go from this state to `next` in one step.
    ///
    /// What was replayed is replayed again only by force, which the caller checks: here it may.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        use Status as S;
        match self {
            S::Quarantined => matches!(
                next,
                S::Analyzed | S::Replayable | S::Replaying | S::PermanentFailure | S::Archived
            ),
            S::Analyzed => matches!(
                next,
                S::Replayable | S::Replaying | S::PermanentFailure | S::Archived
            ),
            S::Replayable => matches!(
                next,
                S::Analyzed | S::Replaying | S::PermanentFailure | S::Archived
            ),
            // Back where the replay was refused, or its job cancelled. It never ends from here by
            // a person's word: a worker may be publishing it.
            S::Replaying => matches!(next, S::Replayed | S::Analyzed | S::Replayable),
            S::Replayed => matches!(next, S::Replaying | S::PermanentFailure | S::Archived),
            S::PermanentFailure => matches!(next, S::Analyzed | S::Archived),
            S::Archived => false,
        }
    }

    /// Whether it counts as still in the queue.
    #[must_use]
    pub const fn is_live(self) -> bool {
        !matches!(self, Self::Replayed | Self::Archived)
    }

    /// Whether a replay may take it without force.
    #[must_use]
    pub const fn is_open_to_replay(self) -> bool {
        matches!(self, Self::Quarantined | Self::Analyzed | Self::Replayable)
    }
}

#[cfg(test)]
mod tests {
    use super::Status;

    #[test]
    fn each_word_is_read_back_and_is_the_one_of_json() {
        for status in &Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(*status));
            assert_eq!(
                serde_json::to_string(status).unwrap(),
                format!("\"{status}\"")
            );
        }
        assert_eq!(Status::parse("gone"), None);
    }

    #[test]
    fn what_is_open_to_replay_may_be_replayed_and_what_is_replaying_may_go_back() {
        for status in Status::ALL
            .iter()
            .filter(|status| status.is_open_to_replay())
        {
            assert!(status.may_become(Status::Replaying), "{status}");
            assert!(status.is_live(), "{status}");
        }
        assert!(Status::Replaying.may_become(Status::Replayed));
        assert!(Status::Replaying.may_become(Status::Analyzed));
        assert!(Status::Replaying.may_become(Status::Replayable));
        assert!(Status::Replayed.may_become(Status::Replaying));
    }

    #[test]
    fn all_but_a_replay_under_way_may_be_given_up_and_put_away() {
        for status in &Status::ALL {
            let (given_up, put_away) = (Status::PermanentFailure, Status::Archived);
            let is_free = *status != Status::Replaying && *status != put_away;
            assert_eq!(status.may_become(put_away), is_free, "{status}");
            let expected = is_free && *status != given_up;
            assert_eq!(status.may_become(given_up), expected, "{status}");
        }
    }

    #[test]
    fn nothing_leaves_the_archive_or_becomes_itself_or_a_quarantine() {
        for status in &Status::ALL {
            assert!(!Status::Archived.may_become(*status), "{status}");
            assert!(!status.may_become(*status), "{status}");
            assert!(!status.may_become(Status::Quarantined), "{status}");
        }
        assert!(Status::PermanentFailure.may_become(Status::Analyzed));
        assert!(!Status::Replayed.may_become(Status::Analyzed));
    }
}
