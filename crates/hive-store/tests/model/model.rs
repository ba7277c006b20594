//! What the scripts must do, in plain Rust: one list of messages and, per group, where each is.
//!
//! Priorities are strict and no two lanes of a group share one, so that a fetch has one right
//! answer.

use std::collections::{BTreeMap, BTreeSet};

use hive_store::{
    lease::parse_entry_id,
    settle::{Action, Verdict},
};

/// Where a message is, for one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Waiting,
    Leased(String),
    Ready,
    Delayed,
    Parked,
    Settled,
}

/// A message as one group sees it.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    pub(crate) place: Place,
    pub(crate) count: u64,
    pub(crate) failures: u32,
}

/// A message in its lane.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) lane: &'static str,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) key: String,
    pub(crate) bytes: u64,
}

impl Message {
    pub(crate) fn member(&self) -> String {
        format!("{}|{}", self.lane, self.id)
    }

    fn priority(&self) -> u8 {
        let (_, lane) = self.lane.split_once("/p").expect("a lane");
        lane.as_bytes()[0] - b'0'
    }

    /// Order in a ready set: by priority, then age, then as Redis compares members.
    fn ready_order(&self) -> (u8, u64, String) {
        let (ms, _) = parse_entry_id(&self.id).expect("an id");
        (9 - self.priority(), ms, self.member())
    }

    fn parked_order(&self) -> ((u64, u64), String) {
        (parse_entry_id(&self.id).expect("an id"), self.member())
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) published: u64,
    pub(crate) settled: u64,
    pub(crate) acked: u64,
    pub(crate) failed: u64,
    pub(crate) released: u64,
    pub(crate) dead: u64,
    pub(crate) redelivered: u64,
}

/// One group; seats are in the order of the model's messages.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) seats: BTreeMap<usize, Seat>,
    pub(crate) busy: BTreeMap<String, usize>,
    /// Keys whose message in `busy` is dead, and blocks them.
    pub(crate) blocked: BTreeSet<String>,
    /// Whether a message that dies of its failures blocks its key.
    pub(crate) block: bool,
    /// Consumer -> session, attach.
    pub(crate) members: BTreeMap<String, (String, u64)>,
    pub(crate) totals: Totals,
    credit: BTreeMap<String, u64>,
}

/// A delivery that the model expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) slot: usize,
    pub(crate) message: usize,
    pub(crate) count: u64,
    pub(crate) failures: u32,
}

pub(crate) const MAX_ATTEMPTS: u32 = 3;

impl Group {
    pub(crate) fn new(block: bool) -> Self {
        Self {
            block,
            ..Self::default()
        }
    }

    pub(crate) fn publish(&mut self, message: usize) {
        self.seats.insert(
            message,
            Seat {
                place: Place::Waiting,
                count: 0,
                failures: 0,
            },
        );
        self.totals.published += 1;
    }

    pub(crate) fn at(&self, place: &Place) -> Vec<usize> {
        let here = self.seats.iter().filter(|(_, seat)| seat.place == *place);
        here.map(|(message, _)| *message).collect()
    }

    fn put(&mut self, message: usize, place: Place) {
        self.seats.get_mut(&message).expect("a seat").place = place;
    }

    /// What a fetch must lease: `slots` are (consumer, count).
    pub(crate) fn fetch(
        &mut self,
        messages: &[Message],
        gateway: &str,
        slots: &[(String, u64)],
    ) -> Vec<Expected> {
        let own: u64 = slots.iter().map(|(_, count)| count).sum();
        self.credit.insert(gateway.to_owned(), own);
        let mut limit = u64::MAX;
        if self.credit.len() > 1 {
            let waiting = (self.at(&Place::Ready).len() + self.at(&Place::Waiting).len()) as u64;
            let all: u64 = self.credit.values().sum();
            if waiting < all {
                limit = (waiting * own).div_ceil(all).max(1);
            }
        }
        let mut taken = Vec::new();
        for (slot, (consumer, count)) in slots.iter().enumerate() {
            let mut left = *count;
            while left > 0 && (taken.len() as u64) < limit {
                let ready = self.at(&Place::Ready).into_iter();
                let ready = ready.min_by_key(|message| messages[*message].ready_order());
                let lane = self.at(&Place::Waiting).into_iter();
                let lane = lane.min_by_key(|m| (9 - messages[*m].priority(), *m));
                let first = match (ready, lane) {
                    (None, None) => break,
                    (Some(one), None) | (None, Some(one)) => one,
                    (Some(ready), Some(lane)) => {
                        let behind = messages[ready].priority() < messages[lane].priority();
                        if behind { lane } else { ready }
                    },
                };
                let is_again = Some(first) == ready;
                if is_again {
                    self.totals.redelivered += 1;
                }
                self.seats.get_mut(&first).expect("a seat").count += 1;
                let key = &messages[first].key;
                if !is_again && !key.is_empty() {
                    if self.busy.contains_key(key) {
                        self.put(first, Place::Parked);
                        continue;
                    }
                    self.busy.insert(key.clone(), first);
                }
                self.put(first, Place::Leased(consumer.clone()));
                let seat = &self.seats[&first];
                let (count, failures) = (seat.count, seat.failures);
                taken.push(Expected {
                    slot,
                    message: first,
                    count,
                    failures,
                });
                left -= 1;
            }
        }
        taken
    }

    fn die(&mut self, messages: &[Message], message: usize) -> Verdict {
        let key = &messages[message].key;
        if self.block && self.busy.get(key) == Some(&message) {
            self.blocked.insert(key.clone());
        }
        self.end(messages, message, true)
    }

    /// Lets a key go on that a dead message blocks; false where none does.
    pub(crate) fn unblock(&mut self, messages: &[Message], key: &str) -> bool {
        if !self.blocked.remove(key) {
            return false;
        }
        self.next_of(messages, key);
        true
    }

    fn next_of(&mut self, messages: &[Message], key: &str) {
        let parked = self.at(&Place::Parked).into_iter();
        let next = parked
            .filter(|other| messages[*other].key == *key)
            .min_by_key(|other| messages[*other].parked_order());
        match next {
            Some(next) => {
                self.busy.insert(key.to_owned(), next);
                self.put(next, Place::Ready);
            },
            None => drop(self.busy.remove(key)),
        }
    }

    fn end(&mut self, messages: &[Message], message: usize, is_dead: bool) -> Verdict {
        self.put(message, Place::Settled);
        self.seats.get_mut(&message).expect("a seat").failures = 0;
        self.totals.settled += 1;
        let key = &messages[message].key;
        if self.busy.get(key) == Some(&message) && !self.blocked.contains(key) {
            self.next_of(messages, key);
        }
        if is_dead {
            self.totals.dead += 1;
            return Verdict::Dead;
        }
        self.totals.acked += 1;
        Verdict::Done
    }

    fn fail(&mut self, messages: &[Message], message: usize, place: Place) -> Verdict {
        self.totals.failed += 1;
        let seat = self.seats.get_mut(&message).expect("a seat");
        seat.failures += 1;
        if seat.failures >= MAX_ATTEMPTS {
            return self.die(messages, message);
        }
        self.put(message, place);
        Verdict::Done
    }

    fn give_back(&mut self, message: usize, place: Place) -> Verdict {
        self.totals.released += 1;
        self.put(message, place);
        Verdict::Done
    }

    /// Whether a call of this session and connection is the consumer's own.
    pub(crate) fn is_fresh(&self, consumer: &str, session: &str, attach: u64) -> bool {
        self.members
            .get(consumer)
            .is_some_and(|(held, number)| held == session && (attach == 0 || *number == attach))
    }

    /// Whether another session has the consumer's name.
    pub(crate) fn is_fenced(&self, consumer: &str, session: &str) -> bool {
        self.members
            .get(consumer)
            .is_some_and(|(held, _)| held != session)
    }

    /// Who owns it, if it is pending.
    pub(crate) fn owner(&self, message: usize) -> Option<String> {
        match &self.seats[&message].place {
            Place::Waiting | Place::Settled => None,
            Place::Leased(consumer) => Some(consumer.clone()),
            Place::Ready => Some("~ready".into()),
            Place::Delayed => Some("~delayed".into()),
            Place::Parked => Some("~ordered".into()),
        }
    }

    /// Ends or gives back one delivery of (consumer, count); `is_fresh` is the fence's answer.
    pub(crate) fn settle(
        &mut self,
        messages: &[Message],
        message: usize,
        by: (&str, u64, bool),
        action: &Action,
    ) -> Verdict {
        let (consumer, count, is_fresh) = by;
        let Some(owner) = self.owner(message) else {
            return Verdict::Gone;
        };
        if owner != consumer {
            return Verdict::Stale;
        }
        if !is_fresh {
            return Verdict::Fenced;
        }
        if self.seats[&message].count != count {
            return Verdict::Stale;
        }
        let after = |ms: u64| {
            if ms == 0 {
                Place::Ready
            } else {
                Place::Delayed
            }
        };
        match action {
            Action::Ack | Action::Complete { .. } | Action::Suspend { .. } => {
                self.end(messages, message, false)
            },
            Action::Nack { delay_ms, .. } => {
                self.fail(messages, message, after(delay_ms.unwrap_or(1)))
            },
            Action::Release { retry_after_ms } => self.give_back(message, after(*retry_after_ms)),
            Action::Reject { .. } => {
                self.totals.failed += 1;
                self.die(messages, message)
            },
            Action::Expire | Action::Cancel => self.end(messages, message, true),
            Action::Lose { idle_ms, .. } | Action::GiveBack { idle_ms } if *idle_ms > 0 => {
                Verdict::Spared
            },
            Action::Lose { .. } => self.fail(messages, message, Place::Ready),
            Action::GiveBack { .. } => self.give_back(message, Place::Ready),
        }
    }

    /// Every backoff is over.
    pub(crate) fn end_backoffs(&mut self) {
        for message in self.at(&Place::Delayed) {
            self.put(message, Place::Ready);
        }
    }

    /// A purge takes and cancels the oldest waiting messages of a lane; answers them.
    pub(crate) fn purge(&mut self, messages: &[Message], lane: &str, limit: usize) -> Vec<usize> {
        let waiting = self.at(&Place::Waiting).into_iter();
        let taken: Vec<usize> = waiting
            .filter(|message| messages[*message].lane == lane)
            .take(limit)
            .collect();
        for message in &taken {
            self.seats.get_mut(message).expect("a seat").count = 1;
            self.end(messages, *message, true);
        }
        taken
    }
}
