//! What people do to a run, and what happens to it from outside.

use super::*;
use crate::workflow::Quorum;

impl World {
    pub(super) fn evaluate(&mut self) {
        let asked: Vec<TaskIndex> = self.observer.asked.iter().copied().collect();
        if let Some(task) = self.chance.pick(&asked) {
            let holds = match self.chance.below(10) {
                0 => Err("no such key".to_owned()),
                1 | 2 => Ok(false),
                _ => Ok(true),
            };
            self.answer_condition(task, holds);
        }
    }

    pub(super) fn answer_condition(&mut self, task: TaskIndex, holds: Result<bool, String>) {
        if holds == Ok(true) {
            self.observer.wanted.insert(task);
        }
        self.observer.asked.remove(&task);
        self.must(Event::Evaluated { task, holds });
    }

    pub(super) fn signal(&mut self) {
        let any = self.tasks(|_| true);
        if let Some(task) = self.chance.pick(&any) {
            let signal = if self.chance.percent(70) {
                Signal::Succeeded { has_result: true }
            } else {
                Signal::Failed {
                    reason: "signalled".to_owned(),
                }
            };
            let is_final = self.run.tasks()[task as usize].status.is_final();
            let is_applied = self.may(Event::Signalled { task, signal });
            assert!(!(is_final && is_applied));
        }
    }

    pub(super) fn answer(&mut self) {
        let waiting = self.tasks(|state| state.status == TaskStatus::WaitingInput);
        if let Some(task) = self.chance.pick(&waiting) {
            self.provide_input(task);
        }
    }

    /// Answers the question of the last attempt; one before it asks no more.
    pub(super) fn provide_input(&mut self, task: TaskIndex) {
        let attempt = self.run.tasks()[task as usize].attempt;
        let earlier = attempt - 1;
        assert!(!self.may(Event::ProvideInput {
            task,
            attempt: earlier
        }));
        self.must(Event::ProvideInput { task, attempt });
    }

    /// A target refuses for good what nobody has begun.
    pub(super) fn refuse(&mut self) {
        let queued = self.tasks(|state| state.status == TaskStatus::Queued);
        let Some(task) = self.chance.pick(&queued) else {
            return;
        };
        let state = &self.run.tasks()[task as usize];
        let attempt = state.attempt;
        if state.is_placed {
            self.observer.closed.insert((task, attempt));
        }
        self.must(Event::Undeliverable {
            task,
            attempt,
            reason: "no such group".to_owned(),
        });
    }

    pub(super) fn control(&mut self) {
        match self.chance.below(8) {
            0 if self.chance.percent(30) => {
                self.may(Event::Cancel {
                    reason: "enough".to_owned(),
                });
            },
            1 if self.run.definition().is_open => {
                self.may(Event::Close);
            },
            _ => {
                self.may(Event::Pause {
                    reason: "lunch".to_owned(),
                });
            },
        }
    }

    pub(super) fn resume(&mut self) {
        let is_paused = self.run.status() == RunStatus::Paused;
        assert_eq!(self.may(Event::Resume), is_paused);
    }

    pub(super) fn retry(&mut self) {
        let failed = self.tasks(|state| state.status.is_final());
        if let Some(task) = self.chance.pick(&failed) {
            let is_kept: Vec<bool> = self.succeeded();
            let wanted = self.observer.wanted.clone();
            // Whoever begins anew is asked anew; who goes on is not.
            if self.may(Event::Retry { task }) {
                for (kept, was) in self.succeeded().into_iter().zip(is_kept) {
                    assert!(kept || !was, "what succeeded stays");
                }
                let run = &self.run;
                self.observer.wanted = wanted;
                self.observer.wanted.retain(|task| {
                    let state = &run.tasks()[*task as usize];
                    state.gate == Gate::Open
                });
            }
        }
    }

    pub(super) fn succeeded(&self) -> Vec<bool> {
        let is_firm =
            |state: &TaskState| state.status == TaskStatus::Succeeded && !state.is_provisional();
        self.run.tasks().iter().map(is_firm).collect()
    }

    pub(super) fn add(&mut self) {
        let count = self.run.tasks().len();
        if count > 70 {
            return;
        }
        let is_open = self.run.definition().is_open;
        let mut one = self.chance.task(count, is_open);
        // Names of tasks that there are; numbers of awaited ones are not names.
        one.dependencies
            .retain(|id| self.run.find(id).is_some() || id.starts_with("later"));
        one.quorum = Quorum::Any;
        if is_open && self.chance.percent(40) {
            one.id = format!("later{}", self.chance.below(4));
        }
        let before = self.run.clone();
        let now = Timestamp(self.now);
        match self.run.add_tasks(vec![one], &Limits::default(), now) {
            Ok(effects) => self.observe(&before, &effects),
            Err(_) => assert_eq!(self.run, before),
        }
    }

    pub(super) fn next_timer(&mut self) {
        let is_soon = |due: &Timestamp| due.0 < self.now + 100_000;
        if let Some(due) = self.run.deadline().filter(is_soon) {
            self.now = self.now.max(due.0);
            self.must(Event::Tick);
        }
    }
}
