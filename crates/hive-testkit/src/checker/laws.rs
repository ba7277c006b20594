//! Any run of a broker that keeps its promises passes; one seeded fault in it is found.
//!
//! A small broker of one group runs random operations and writes the log that its clients would
//! write: answers get lost, consumers die with deliveries in hand, settles come late. With a
//! [`Bug`] switched on it breaks one promise, and the checker must say so.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::history::{
    Action, AtRest, DeadCause, DeadLetter, Delivery, Entry, Event, Failure, Figures, Loss, Name,
    Publish, PublishAnswer, SettleAnswer,
};

const CONSUMERS: usize = 3;
const KEYS: u8 = 3;
const MAX_ATTEMPTS: u32 = 3;

/// One thing that a client or the world does.
#[derive(Clone, Debug)]
enum Step {
    Publish {
        key: Option<u8>,
        is_answered: bool,
    },
    Refuse,
    Deliver {
        consumer: usize,
    },
    Begin {
        pick: usize,
    },
    Settle {
        pick: usize,
        action: Action,
        is_answered: bool,
    },
    LateAck {
        pick: usize,
    },
    Kill {
        consumer: usize,
    },
    Repeat {
        pick: usize,
    },
}

/// A promise that the broker breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    /// A plain XACK: any lease settles.
    UnfencedAck,
    /// Trimming by length: the oldest unsettled message vanishes.
    Trim,
    /// A repeated publish is stored again.
    NoDedup,
    /// Ordering keys are ignored.
    NoOrder,
    /// The losses of a killed consumer count for what it had not begun.
    BlameNeighbours,
    /// Acks are counted twice.
    DoubleCount,
    /// A message dies one attempt early.
    EarlyDeath,
}

#[derive(Clone, Debug)]
struct Stored {
    id: Name,
    key: Option<u8>,
    count: u64,
    failures: Vec<Failure>,
}

#[derive(Clone, Debug)]
struct Held {
    lease: Name,
    consumer: usize,
    entry: Stored,
    is_begun: bool,
}

struct Broker {
    bug: Bug,
    history: History,
    calls: u64,
    messages: u64,
    waiting: VecDeque<Stored>,
    held: Vec<Held>,
    /// Leases that ended without their consumer's settle.
    stale: Vec<(Name, Name)>,
    published: Vec<Publish>,
    dead: Vec<DeadLetter>,
    acked: u64,
    stored: u64,
}

impl Broker {
    fn run(bug: Bug, steps: &[Step]) -> History {
        let mut broker = Self {
            bug,
            history: History::default(),
            calls: 0,
            messages: 0,
            waiting: VecDeque::new(),
            held: Vec::new(),
            stale: Vec::new(),
            published: Vec::new(),
            dead: Vec::new(),
            acked: 0,
            stored: 0,
        };
        for step in steps {
            broker.step(step);
        }
        broker.drain();
        broker.history
    }

    fn event(&mut self, event: Event) {
        let at = self
            .history
            .entries
            .last()
            .map_or(Duration::ZERO, |entry| entry.at);
        self.history.entries.push(Entry {
            at: at + Duration::from_millis(1),
            event,
        });
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Publish { key, is_answered } => {
                self.messages += 1;
                let publish = Publish {
                    message: format!("m{}", self.messages).into(),
                    groups: vec!["g".into()],
                    payload: self.messages,
                    idempotency_key: Some(format!("once{}", self.messages).into()),
                    ordering_key: key.map(|key| format!("k{key}").into()),
                    ..Publish::default()
                };
                self.publish(publish, key, is_answered);
            },
            Step::Refuse => {
                let publish = Publish {
                    message: "refused".into(),
                    ..Publish::default()
                };
                let call = self.called(publish);
                self.event(Event::PublishAnswered {
                    call,
                    answer: PublishAnswer::Refused,
                });
            },
            Step::Deliver { consumer } => self.deliver(consumer),
            Step::Begin { pick } => {
                if let Some(held) = pick_mut(&mut self.held, pick) {
                    held.is_begun = true;
                    let lease = Name::clone(&held.lease);
                    self.event(Event::Begun { lease });
                }
            },
            Step::Settle {
                pick,
                action,
                is_answered,
            } => self.settle(pick, action, is_answered),
            Step::LateAck { pick } => self.late_ack(pick),
            Step::Kill { consumer } => self.kill(consumer),
            Step::Repeat { pick } => {
                if let Some(publish) = pick_mut(&mut self.published, pick).cloned() {
                    let is_new = self.bug == Bug::NoDedup;
                    self.messages += 1;
                    // Another client sends the same under the same key and an id of its own.
                    let message = format!("m{}", self.messages).into();
                    let answer = if is_new { &message } else { &publish.message };
                    let answer = PublishAnswer::Stored(Name::clone(answer));
                    let again = Publish {
                        message,
                        ordering_key: None,
                        ..publish
                    };
                    let call = self.called(again.clone());
                    if is_new {
                        self.store(&again, None);
                    }
                    self.event(Event::PublishAnswered { call, answer });
                }
            },
        }
    }

    fn called(&mut self, publish: Publish) -> u64 {
        self.calls += 1;
        let call = self.calls;
        self.event(Event::PublishCalled {
            call,
            publish: Box::new(publish),
        });
        call
    }

    fn publish(&mut self, publish: Publish, key: Option<u8>, is_answered: bool) {
        let call = self.called(publish.clone());
        self.store(&publish, key);
        if is_answered {
            let answer = PublishAnswer::Stored(Name::clone(&publish.message));
            self.event(Event::PublishAnswered { call, answer });
        }
        self.published.push(publish);
    }

    fn store(&mut self, publish: &Publish, key: Option<u8>) {
        self.stored += 1;
        let id = Name::clone(&publish.message);
        self.waiting.push_back(Stored {
            id,
            key,
            count: 0,
            failures: Vec::new(),
        });
        if self.bug == Bug::Trim && self.waiting.len() > 2 {
            self.waiting.pop_front();
        }
    }

    fn deliver(&mut self, consumer: usize) {
        let is_busy = |key: Option<u8>| {
            key.is_some()
                && self.bug != Bug::NoOrder
                && self.held.iter().any(|held| held.entry.key == key)
        };
        let Some(index) = self.waiting.iter().position(|entry| !is_busy(entry.key)) else {
            return;
        };
        let Some(mut entry) = self.waiting.remove(index) else {
            return;
        };
        entry.count += 1;
        let lease: Name = format!("{}/{}", entry.id, entry.count).into();
        let payload = entry.id.trim_start_matches('m').parse().unwrap();
        let original = self
            .published
            .iter()
            .find(|publish| publish.message == entry.id);
        let payload = original.map_or(payload, |publish| publish.payload);
        self.event(Event::Delivered(Box::new(Delivery {
            group: "g".into(),
            message: Name::clone(&entry.id),
            consumer: name_of(consumer),
            attempt: u32::try_from(entry.failures.len()).unwrap() + 1,
            lease: Name::clone(&lease),
            count: Some(entry.count),
            payload,
        })));
        self.held.push(Held {
            lease,
            consumer,
            entry,
            is_begun: false,
        });
    }

    fn settle(&mut self, pick: usize, action: Action, is_answered: bool) {
        if self.held.is_empty() {
            return;
        }
        let held = self.held.remove(pick % self.held.len());
        let call = self.settle_called(&held.lease, action);
        match action {
            Action::Ack => self.acked += if self.bug == Bug::DoubleCount { 2 } else { 1 },
            Action::Nack => self.fail(held, false),
            Action::Release => self.give_back(held),
            Action::Reject => self.bury(&held.entry, DeadCause::Rejected),
            Action::Extend => self.held.push(held),
        }
        if is_answered {
            self.event(Event::SettleAnswered {
                call,
                answer: SettleAnswer::Ok,
            });
        }
    }

    fn settle_called(&mut self, lease: &Name, action: Action) -> u64 {
        self.calls += 1;
        let call = self.calls;
        self.event(Event::SettleCalled {
            call,
            lease: Name::clone(lease),
            action,
        });
        call
    }

    fn late_ack(&mut self, pick: usize) {
        let Some((lease, id)) = pick_mut(&mut self.stale, pick).cloned() else {
            return;
        };
        let call = self.settle_called(&lease, Action::Ack);
        let held = self.held.iter().position(|held| held.entry.id == id);
        let answer = match held {
            Some(index) if self.bug == Bug::UnfencedAck => {
                self.held.remove(index);
                self.acked += 1;
                SettleAnswer::Ok
            },
            Some(_) | None => SettleAnswer::Stale,
        };
        self.event(Event::SettleAnswered { call, answer });
    }

    fn kill(&mut self, consumer: usize) {
        let loss = Loss::Killed;
        self.event(Event::ConsumerLost {
            group: "g".into(),
            consumer: name_of(consumer),
            loss,
        });
        let held = std::mem::take(&mut self.held);
        let (lost, kept): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|held| held.consumer == consumer);
        self.held = kept;
        let any_begun = lost.iter().any(|held| held.is_begun);
        for held in lost {
            self.stale
                .push((Name::clone(&held.lease), Name::clone(&held.entry.id)));
            let is_blamed = any_begun && self.bug == Bug::BlameNeighbours;
            if held.is_begun || is_blamed {
                self.fail(held, true);
            } else {
                self.give_back(held);
            }
        }
    }

    fn fail(&mut self, mut held: Held, is_loss: bool) {
        held.entry.failures.push(Failure {
            consumer: name_of(held.consumer),
            is_loss,
        });
        let allowed = MAX_ATTEMPTS - u32::from(self.bug == Bug::EarlyDeath);
        if u32::try_from(held.entry.failures.len()).unwrap() >= allowed {
            self.bury(&held.entry, DeadCause::AttemptsUsedUp);
        } else {
            self.give_back(held);
        }
    }

    /// Puts it back to its place: in front of later messages of its key.
    fn give_back(&mut self, held: Held) {
        let number = |entry: &Stored| entry.id[1..].parse::<u64>().unwrap();
        let own = number(&held.entry);
        let place = self.waiting.iter().position(|entry| number(entry) > own);
        self.waiting
            .insert(place.unwrap_or(self.waiting.len()), held.entry);
    }

    fn bury(&mut self, entry: &Stored, cause: DeadCause) {
        self.dead.push(DeadLetter {
            group: "g".into(),
            message: Name::clone(&entry.id),
            cause,
            failures: entry.failures.clone(),
        });
    }

    /// Acks all that is left and writes down the end.
    fn drain(&mut self) {
        while !self.waiting.is_empty() || !self.held.is_empty() {
            self.deliver(0);
            self.settle(0, Action::Ack, true);
        }
        for letter in std::mem::take(&mut self.dead) {
            self.event(Event::DeadLetter(Box::new(letter)));
        }
        let dead = self.history.entries.iter();
        let dead = dead
            .filter(|entry| matches!(entry.event, Event::DeadLetter(_)))
            .count();
        let figures = Figures {
            published_total: self.stored,
            acked_total: self.acked,
            dead_total: u64::try_from(dead).unwrap(),
            ..Figures::default()
        };
        let rest = AtRest {
            group: "g".into(),
            unsettled: Vec::new(),
            figures: Some(figures),
        };
        self.event(Event::AtRest(Box::new(rest)));
    }
}

fn name_of(consumer: usize) -> Name {
    format!("c{consumer}").into()
}

fn pick_mut<T>(items: &mut [T], pick: usize) -> Option<&mut T> {
    let length = items.len();
    if length == 0 {
        None
    } else {
        items.get_mut(pick % length)
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let action = prop_oneof![
        4 => Just(Action::Ack),
        2 => Just(Action::Nack),
        1 => Just(Action::Release),
        1 => Just(Action::Reject),
        1 => Just(Action::Extend),
    ];
    let key = prop::option::of(0..KEYS);
    let step = prop_oneof![
        6 => (key, any::<bool>())
            .prop_map(|(key, is_answered)| Step::Publish { key, is_answered }),
        1 => Just(Step::Refuse),
        8 => (0..CONSUMERS).prop_map(|consumer| Step::Deliver { consumer }),
        3 => (0..64_usize).prop_map(|pick| Step::Begin { pick }),
        5 => (0..64_usize, action, any::<bool>())
            .prop_map(|(pick, action, is_answered)| Step::Settle { pick, action, is_answered }),
        2 => (0..64_usize).prop_map(|pick| Step::LateAck { pick }),
        1 => (0..CONSUMERS).prop_map(|consumer| Step::Kill { consumer }),
        1 => (0..64_usize).prop_map(|pick| Step::Repeat { pick }),
    ];
    prop::collection::vec(step, 0..120)
}

proptest! {
    #[test]
    fn every_run_of_a_broker_that_keeps_its_promises_passes(steps in steps()) {
        let report = check(&Broker::run(Bug::None, &steps), &Terms::default());
        prop_assert!(report.violations.is_empty(), "{report}");
        prop_assert_eq!(report.undecided, 0);
    }
}

/// Steps in which each bug has something to break.
fn telling_steps() -> Vec<Step> {
    let publish = |key| Step::Publish {
        key,
        is_answered: true,
    };
    let settle = |pick, action| Step::Settle {
        pick,
        action,
        is_answered: true,
    };
    let mut steps = vec![
        // Two of a key at once; the first is acked late.
        publish(Some(0)),
        publish(Some(0)),
        Step::Repeat { pick: 0 },
        publish(None),
        publish(None),
        Step::Deliver { consumer: 0 },
        Step::Deliver { consumer: 1 },
        Step::Kill { consumer: 0 },
        Step::Deliver { consumer: 2 },
        Step::Deliver { consumer: 2 },
        Step::LateAck { pick: 0 },
    ];
    steps.extend((0..8).map(|_| settle(0, Action::Ack)));
    // Three deaths of a consumer that had begun one of two messages.
    steps.extend([publish(None), publish(None)]);
    for _ in 0..3 {
        steps.extend((0..8).map(|_| Step::Deliver { consumer: 1 }));
        steps.push(Step::Begin { pick: 0 });
        steps.push(Step::Kill { consumer: 1 });
    }
    steps
}

#[test]
fn each_seeded_bug_is_found_by_its_rule() {
    let steps = telling_steps();
    let bugs = BTreeMap::from([
        (Rule::StaleAccepted, Bug::UnfencedAck),
        (Rule::Lost, Bug::Trim),
        (Rule::DuplicateKey, Bug::NoDedup),
        (Rule::TwoInFlight, Bug::NoOrder),
        (Rule::WronglyDead, Bug::BlameNeighbours),
        (Rule::CounterWrong, Bug::DoubleCount),
        (Rule::AttemptsWrong, Bug::EarlyDeath),
    ]);
    check(&Broker::run(Bug::None, &steps), &Terms::default()).assert_clean();
    for (rule, bug) in bugs {
        let report = check(&Broker::run(bug, &steps), &Terms::default());
        assert!(report.breaks(rule), "{bug:?} must break {rule:?}: {report}");
    }
}
