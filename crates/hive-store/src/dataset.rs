//! Is the data in Redis the data that this process knew?
//!
//! The first daemon of all stores a random word, the nonce. Each daemon keeps the nonce that it saw
//! and compares it with every beat, and on every new connection before anything is sent on it. Data
//! that a mistake, an empty replica or a lost disk took away is noticed by that, and from then on
//! the guard in front of all connections refuses every call but the beat: what would be published
//! to an empty Redis would look accepted, and a group that is gone would look deleted.
//!
//! What the key holds: `<current> <earlier…>`, the earlier ones being those whose loss an operator
//! accepted; or `lost <known…>`, the mark that a daemon left which found no nonce.
//!
//! Invariants:
//! - A nonce is made by a beat, and only where there is none and no living daemon knows one. So a
//!   daemon that starts after the loss makes none while another remembers, and the mark tells it
//!   even when all others were started anew.
//! - A process goes on only with a nonce that it knows, or with one that was accepted after the one
//!   that it knows.
//! - While a living daemon knows a nonce that the key does not name, all daemons stop: either that
//!   one or the data is in the wrong place.
//! - Accepting is one script on one key, and the same twice. It changes nothing that is sound.
//! - The right data coming back (a fail-back, a restored snapshot) ends the stop by itself.
//!
//! Not noticed, since nothing remembers: a loss while no daemon ran; an older state of the same
//! data; a Redis that lost other keys and kept the nonce.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use redis::Cmd;

use crate::{
    connection::{Purpose, Store},
    error::StoreError,
    registry::GONE_MS,
    reply,
    scripts::{Call, DATASET_ACCEPT},
};

/// What an operator does about it.
pub const ADVICE: &str = "bring the data back; or accept the loss: hive doctor --accept-loss";

/// First word of the mark of a loss; no nonce is this word.
const LOST: &str = "lost";
/// Claim of a process that knows no nonce.
const NONE: &str = "-";

/// What a process knows of its dataset, and whether its calls are let through.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    is_changed: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    nonce: Option<String>,
    loss: Option<String>,
}

impl Guard {
    /// Whether a call may go to Redis.
    pub(crate) fn admit(&self) -> Result<(), StoreError> {
        if !self.is_changed.load(Ordering::Acquire) {
            return Ok(());
        }
        match self.loss() {
            Some(detail) => Err(StoreError::Dataset { detail }),
            None => Ok(()),
        }
    }

    /// What is wrong, as an operator reads it.
    pub(crate) fn loss(&self) -> Option<String> {
        self.known.lock().loss.clone()
    }

    /// The nonce that this process knows, as it is written beside its beat.
    pub(crate) fn claim(&self) -> String {
        let known = self.known.lock();
        known.nonce.clone().unwrap_or_else(|| NONE.to_owned())
    }

    /// Whether the data is another than this claim was for.
    pub(crate) fn has_moved_on(&self, claim: &str) -> bool {
        claim != NONE && claim != self.claim()
    }

    /// Judges what a beat read: the key, and what the living daemons know.
    pub(crate) fn judge(&self, stored: &str, claims: &[String]) {
        let mut known = self.known.lock();
        let accepted: Vec<&str> = stored.split(' ').filter(|word| !word.is_empty()).collect();
        let is_named = |nonce: &str| nonce == NONE || accepted.contains(&nonce);
        known.loss = match accepted.first() {
            None => Some("the nonce in it is gone".to_owned()),
            Some(&LOST) => Some("the nonce in it was found to be gone".to_owned()),
            Some(_) if !known.nonce.as_deref().is_none_or(is_named) => {
                Some("the nonce in it is another".to_owned())
            },
            Some(_) if !claims.iter().all(|claim| is_named(claim)) => {
                Some("the nonce in it is not the one that another daemon knows".to_owned())
            },
            Some(current) => {
                known.nonce = Some((*current).to_owned());
                None
            },
        };
        self.is_changed
            .store(known.loss.is_some(), Ordering::Release);
    }

    /// Judges the key alone, as a new connection read it: it can show a loss, and never ends one.
    /// A process that has not beaten yet knows nothing to compare.
    pub(crate) fn suspect(&self, stored: Option<&str>) {
        let claim = self.claim();
        let is_beating = claim != NONE;
        if is_beating && !self.is_changed.load(Ordering::Acquire) {
            self.judge(stored.unwrap_or_default(), &[]);
        }
    }
}

impl Store {
    /// What is wrong with the data in Redis; none while it is what this process knew.
    #[must_use]
    pub fn dataset_loss(&self) -> Option<String> {
        self.guard().loss()
    }

    /// Looks now whether the data is what this process knew: for whoever misses something in it.
    ///
    /// # Errors
    /// `Dataset` when it is not, or what Redis says.
    pub async fn check_dataset(&self) -> Result<(), StoreError> {
        let stored = self.nonce_key().await?;
        self.guard().suspect(stored.as_deref());
        self.guard().admit()
    }

    /// Whether some daemon has left the mark that it found no nonce. For a process without memory.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn is_loss_marked(&self) -> Result<bool, StoreError> {
        let stored = self.nonce_key().await?.unwrap_or_default();
        Ok(stored.split(' ').next() == Some(LOST))
    }

    async fn nonce_key(&self) -> Result<Option<String>, StoreError> {
        let mut read = Cmd::new();
        read.arg("GET").arg(self.control_keys().nonce());
        let answer = self.past_guard().command(Purpose::Control, read).await?;
        answer.maybe_text()
    }

    /// Makes the data that is there the one that all daemons go on with; false when no nonce that a
    /// living daemon knows was missing. Daemons go on with their next beat.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn accept_loss(&self) -> Result<bool, StoreError> {
        let mut call = Call::new(&DATASET_ACCEPT);
        call.key(self.control_keys().nonce());
        call.key(self.control_keys().daemons());
        call.text(fresh_nonce()).text(self.guard().claim());
        call.number(GONE_MS).number(0);
        let value = self.past_guard().run_safely(Purpose::Control, call).await?;
        let (word, parts) = reply::status("dataset_accept", value)?;
        let stored = reply::detail("dataset_accept", parts)?;
        self.guard().judge(&stored, &[]);
        match word.as_str() {
            "ACCEPTED" => Ok(true),
            "SOUND" => Ok(false),
            _ => Err(StoreError::reply("dataset_accept")),
        }
    }
}

/// A nonce for the case that there is none.
pub(crate) fn fresh_nonce() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// A guard that knows the nonce `a`.
    fn of_a() -> Guard {
        let guard = Guard::default();
        guard.judge("a", &[]);
        guard
    }

    #[test]
    fn only_what_is_known_or_was_accepted_behind_it_is_gone_on_with() {
        for (stored, claims_of_others, is_sound) in [
            ("a", &["a", "-"][..], true),
            ("b a", &["a", "b"], true),
            ("", &[], false),
            ("lost a", &["a"], false),
            ("b", &[], false),
            ("a", &["a", "c"], false),
        ] {
            let guard = of_a();
            guard.judge(stored, &claims(claims_of_others));
            assert_eq!(guard.admit().is_ok(), is_sound, "`{stored}`");
        }
    }

    #[test]
    fn an_accepted_nonce_is_the_one_that_is_known_from_then_on() {
        let guard = of_a();
        guard.judge("b a", &[]);
        assert_eq!(guard.claim(), "b");
        guard.judge("a", &[]);
        assert!(guard.admit().is_err(), "it went back in time");
    }

    #[test]
    fn a_loss_ends_when_the_known_data_is_back() {
        let guard = of_a();
        guard.judge("", &[]);
        assert_eq!(guard.claim(), "a", "what was lost is not forgotten");
        guard.judge("a", &[]);
        assert_eq!(guard.admit().map_err(|error| error.to_string()), Ok(()));
    }

    #[test]
    fn a_process_without_memory_stops_where_another_remembers() {
        let guard = Guard::default();
        guard.judge("b", &claims(&["a", "-"]));
        assert!(guard.admit().is_err());
        guard.judge("lost a", &[]);
        assert!(guard.admit().is_err());
        assert_eq!(guard.claim(), "-");
    }

    #[test]
    fn a_new_connection_shows_a_loss_and_never_ends_one() {
        let unknowing = Guard::default();
        unknowing.suspect(None);
        assert!(unknowing.admit().is_ok(), "nothing was known");
        let guard = of_a();
        guard.suspect(Some("a"));
        assert!(guard.admit().is_ok());
        guard.suspect(None);
        assert!(guard.admit().is_err());
        guard.suspect(Some("a"));
        assert!(guard.admit().is_err(), "a beat hears what others know");
    }
}
