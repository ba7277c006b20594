//! Shards, agents, people and a clock around one run.

use super::*;

mod deeds;

/// An attempt as its shard knows it.
#[derive(Default)]
struct Attempt {
    outcome: Option<Outcome>,
    deliveries: u32,
}

/// All that is around a run.
pub(super) struct World {
    chance: Chance,
    run: Run,
    now: u64,
    /// What the shards hold: placed attempts.
    shard: BTreeMap<(TaskIndex, u32), Attempt>,
    observer: Observer,
    /// Whether the router crashes after events.
    is_crashing: bool,
}

impl World {
    pub(super) fn new(seed: u64, tasks: usize) -> Self {
        let mut chance = Chance(seed);
        let definition = chance.workflow(tasks);
        let graph = check(&definition, &Limits::default()).expect("it has no faults");
        let (run, effects) = Run::start(definition, graph, Timestamp(0));
        let is_crashing = chance.percent(50);
        let mut world = Self {
            chance,
            run,
            now: 0,
            shard: BTreeMap::new(),
            observer: Observer::default(),
            is_crashing,
        };
        let first: Vec<TaskState> = (world.run.definition().tasks.iter())
            .map(|task| TaskState {
                status: if task.is_awaited() {
                    TaskStatus::Awaited
                } else {
                    TaskStatus::Pending
                },
                ..TaskState::default()
            })
            .collect();
        world.observer.see(&first, &world.run, &effects);
        world.after(&effects);
        world.run.take_changed();
        world
    }

    /// One thing happens.
    pub(super) fn turn(&mut self) {
        match self.chance.below(40) {
            0..=5 => self.place(),
            6..=9 => self.start(),
            10..=15 => self.work(),
            16..=21 => self.deliver(),
            22 => self.deliver_again(),
            23 => self.stale(),
            24..=26 => self.evaluate(),
            27 => self.signal(),
            28 => self.answer(),
            29 => self.refuse(),
            30 => self.control(),
            31 | 32 => self.retry(),
            33 | 34 => {
                let later = [0, 1, 4_000, 11_000, 61_000];
                self.now += self.chance.pick(&later).unwrap();
                self.must(Event::Tick);
            },
            35 => self.next_timer(),
            36 => {
                let limit = u32::try_from(self.chance.below(9)).unwrap();
                self.may(Event::ParallelLimit(limit));
            },
            37 => self.must(Event::Continue),
            38 if self.chance.percent(50) => self.add(),
            _ => self.resume(),
        }
    }

    /// A new run begins where this one is.
    pub(super) fn rerun(&mut self) {
        let any = self.tasks(|_| true);
        let task = self.chance.pick(&any).expect("there is a task");
        let (run, effects) = self
            .run
            .rerun_from(task, Timestamp(self.now))
            .expect("the task is there");
        let kept = |(number, state): (usize, &TaskState)| {
            let was = &self.run.tasks()[number];
            let is_firm = was.status == TaskStatus::Succeeded && !was.is_provisional();
            let is_again = is_behind(&run, number, task as usize);
            assert_eq!(is_firm && !is_again, state.status == TaskStatus::Succeeded);
            TaskState {
                status: if matches!(state.status, TaskStatus::Succeeded | TaskStatus::Awaited) {
                    state.status
                } else {
                    TaskStatus::Pending
                },
                ..TaskState::default()
            }
        };
        let first: Vec<TaskState> = run.tasks().iter().enumerate().map(kept).collect();
        self.shard.clear();
        self.observer = Observer::default();
        self.observer.see(&first, &run, &effects);
        self.run = run;
        self.after(&effects);
        self.run.take_changed();
    }

    /// Everybody does what is owed until the run is over.
    pub(super) fn finish(&mut self) {
        for _ in 0..20_000 {
            if self.run.status().is_final() {
                return;
            }
            let asked: Vec<TaskIndex> = self.observer.asked.iter().copied().collect();
            let waiting = self.tasks(|state| state.status == TaskStatus::WaitingInput);
            if self.run.status() == RunStatus::Paused {
                self.must(Event::Resume);
            } else if !self.observer.outbox.is_empty() {
                self.place();
            } else if let Some(task) = asked.first() {
                self.answer_condition(*task, Ok(true));
            } else if !self.undecided().is_empty() {
                self.work();
            } else if !self.undelivered().is_empty() {
                self.deliver();
            } else if let Some(task) = waiting.first() {
                self.provide_input(*task);
            } else if self.run.has_more() {
                self.must(Event::Continue);
            } else {
                let due = self.run.deadline().expect("something happens by itself");
                self.now = self.now.max(due.0);
                self.must(Event::Tick);
            }
        }
        panic!("it does not end: {:?}", self.run.tasks());
    }

    /// Applies what is legal.
    fn must(&mut self, event: Event) {
        let words = format!("{event:?}");
        assert!(self.may(event), "{words} is legal");
    }

    /// Applies what may be illegal, and sees that it changes nothing then.
    fn may(&mut self, event: Event) -> bool {
        let before = self.run.clone();
        match self.run.apply(event, Timestamp(self.now)) {
            Ok(effects) => {
                self.observe(&before, &effects);
                true
            },
            Err(_) => {
                assert_eq!(self.run, before, "what is refused changes nothing");
                false
            },
        }
    }

    fn observe(&mut self, before: &Run, effects: &[Effect]) {
        self.observer.see(before.tasks(), &self.run, effects);
        self.after(effects);
        let changed: BTreeSet<TaskIndex> = self.run.take_changed().into_iter().collect();
        for (task, state) in (0..).zip(self.run.tasks()) {
            let is_same = before.task(task) == Some(state);
            assert!(is_same || changed.contains(&task), "each change is told");
        }
        let loaded = Run::load(self.run.parts()).expect("what was stored is loaded");
        assert_eq!(loaded, self.run, "a loaded run is the same as the live one");
        if self.is_crashing {
            self.run = loaded;
        }
    }

    /// The shards do what they are asked.
    fn after(&mut self, effects: &[Effect]) {
        for effect in effects {
            let Effect::Resolve {
                task,
                attempt,
                resolution,
            } = effect
            else {
                continue;
            };
            // A request may get lost; it is repeated.
            let known = self
                .shard
                .get_mut(&(*task, *attempt))
                .expect("it is placed");
            if known.outcome.is_none() && !self.chance.percent(20) {
                known.outcome = Some(match resolution {
                    Resolution::Succeeded => Outcome::Succeeded { has_result: true },
                    Resolution::Failed => failed(),
                    Resolution::TimedOut => Outcome::TimedOut,
                    Resolution::Cancelled => cancelled(),
                });
            }
        }
        let run = &self.run;
        self.observer
            .asked
            .retain(|task| run.tasks()[*task as usize].is_asked());
    }

    fn place(&mut self) {
        let outbox: Vec<_> = self.observer.outbox.iter().copied().collect();
        if let Some((task, attempt)) = self.chance.pick(&outbox) {
            self.observer.outbox.remove(&(task, attempt));
            self.shard.insert((task, attempt), Attempt::default());
            self.must(Event::Placed { task, attempt });
        }
    }

    /// Placed attempts that are open and have no outcome.
    fn undecided(&self) -> Vec<(TaskIndex, u32)> {
        let open = self.shard.iter().filter(|(key, attempt)| {
            attempt.outcome.is_none() && !self.observer.closed.contains(key)
        });
        open.map(|(key, _)| *key).collect()
    }

    /// Open attempts whose outcome the router has not read.
    fn undelivered(&self) -> Vec<(TaskIndex, u32)> {
        let settled = self.shard.iter().filter(|(key, attempt)| {
            attempt.outcome.is_some() && !self.observer.closed.contains(key)
        });
        settled.map(|(key, _)| *key).collect()
    }

    fn start(&mut self) {
        let undecided = self.undecided();
        let Some((task, attempt)) = self.chance.pick(&undecided) else {
            return;
        };
        let known = self.shard.get_mut(&(task, attempt)).expect("it is placed");
        known.deliveries += 1;
        let event = Event::Started {
            task,
            attempt,
            consumer: format!("c{}", known.deliveries),
            deliveries: known.deliveries,
        };
        let first = self.run.tasks()[task as usize].started_at;
        self.must(event);
        let now = self.run.tasks()[task as usize].started_at;
        assert!(
            first.is_none() || first == now,
            "a redelivery starts nothing again"
        );
    }

    /// An agent settles.
    fn work(&mut self) {
        let undecided = self.undecided();
        let Some(key) = self.chance.pick(&undecided) else {
            return;
        };
        let outcome = match self.chance.below(20) {
            0 => failed(),
            1 => Outcome::DeadLettered {
                reason: "tried".to_owned(),
            },
            2 => Outcome::Suspended {
                prompt: "why".to_owned(),
            },
            3 => cancelled(),
            4 => Outcome::TimedOut,
            5 => Outcome::Unsent {
                reason: "no such group".to_owned(),
            },
            _ => Outcome::Succeeded {
                has_result: self.chance.percent(50),
            },
        };
        if let Some(known) = self.shard.get_mut(&key) {
            known.outcome = Some(outcome);
        }
    }

    fn deliver(&mut self) {
        let undelivered = self.undelivered();
        if let Some((task, attempt)) = self.chance.pick(&undelivered) {
            let outcome = self.shard[&(task, attempt)]
                .outcome
                .clone()
                .expect("it has one");
            // Closed before the event: what follows from it may be dispatched in the same step.
            self.observer.closed.insert((task, attempt));
            let was_ending = self.run.is_ending();
            let was_lost = is_hopeless(&self.run, task);
            let is_failure = matches!(
                outcome,
                Outcome::Failed { .. } | Outcome::DeadLettered { .. } | Outcome::TimedOut
            );
            self.must(Event::Settled {
                task,
                attempt,
                outcome,
            });
            if is_failure && !was_ending && !was_lost {
                self.see_failure(task);
            }
        }
    }

    /// A failure did what its policy says.
    fn see_failure(&self, task: TaskIndex) {
        let run = &self.run;
        let state = &run.tasks()[task as usize];
        let is_over = run.is_ending() || run.status().is_final();
        let is_best_effort = run.definition().dependency_mode == DependencyMode::BestEffort;
        assert_eq!(state.cause, None);
        match policy(run, task as usize) {
            FailurePolicy::FailWorkflow => {
                let is_absorbed = is_best_effort && state.is_absorbed();
                assert!(is_over && run.head().ending.is_some() || is_absorbed);
            },
            FailurePolicy::Pause => {
                assert!(state.is_held() && run.status() == RunStatus::Paused);
            },
            FailurePolicy::Continue => assert!(is_satisfied(run, task)),
            FailurePolicy::SkipDependents => assert!(is_lost(run, task)),
        }
    }

    /// An outcome is read twice.
    fn deliver_again(&mut self) {
        let old: Vec<_> = self.observer.closed.iter().copied().collect();
        if let Some((task, attempt)) = self.chance.pick(&old) {
            let known = self.shard.get(&(task, attempt));
            let outcome = known.and_then(|known| known.outcome.clone());
            let outcome = outcome.unwrap_or(Outcome::TimedOut);
            let event = Event::Settled {
                task,
                attempt,
                outcome,
            };
            assert!(!self.may(event), "a second outcome is refused");
        }
    }

    /// Records of attempts that never were, and a second place for one that has its place.
    fn stale(&mut self) {
        let placed: Vec<_> = self.shard.keys().copied().collect();
        if let Some((task, attempt)) = self.chance.pick(&placed) {
            assert!(!self.may(Event::Placed { task, attempt }));
        }
        let task = TaskIndex::try_from(self.chance.below(self.run.tasks().len() + 1)).unwrap();
        let attempt = u32::try_from(self.chance.below(4)).unwrap();
        let key = (task, attempt);
        if self.observer.dispatched.contains(&key) && !self.observer.closed.contains(&key) {
            return;
        }
        assert!(!self.may(Event::Placed { task, attempt }));
        assert!(!self.may(Event::Settled {
            task,
            attempt,
            outcome: Outcome::Succeeded { has_result: true },
        }));
        assert!(!self.may(Event::Started {
            task,
            attempt,
            consumer: "c".to_owned(),
            deliveries: 1,
        }));
    }

    fn tasks(&self, test: fn(&TaskState) -> bool) -> Vec<TaskIndex> {
        let states = (0..).zip(self.run.tasks());
        states
            .filter(|(_, state)| test(state))
            .map(|(task, _)| task)
            .collect()
    }
}

/// Whether a task is another one or depends on it, however far.
fn is_behind(run: &Run, task: usize, other: usize) -> bool {
    let mut left = vec![task];
    let mut seen = BTreeSet::new();
    while let Some(task) = left.pop() {
        if task == other {
            return true;
        }
        if seen.insert(task) {
            let number = TaskIndex::try_from(task).unwrap();
            let needs = run.graph().dependencies(number).iter();
            left.extend(needs.map(|need| *need as usize));
        }
    }
    false
}

fn failed() -> Outcome {
    Outcome::Failed {
        reason: "broke".to_owned(),
    }
}

fn cancelled() -> Outcome {
    Outcome::Cancelled {
        reason: "by somebody".to_owned(),
    }
}
