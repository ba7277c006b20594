//! Numbers that look random, and workflows made of them.

use super::{DependencyMode, FailurePolicy, Order, TaskDefinition, WorkflowDefinition};
use crate::workflow::{Completion, Quorum};

/// A generator of numbers: splitmix64, which needs no more than its seed.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).unwrap()
    }

    /// Whether something of so many percent happens.
    pub(super) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One of a list.
    pub(super) fn pick<T: Copy>(&mut self, items: &[T]) -> Option<T> {
        let at = self.below(items.len());
        items.get(at).copied()
    }

    pub(super) fn task(&mut self, number: usize, is_open: bool) -> TaskDefinition {
        let needs = self.below(5);
        let mut dependencies: Vec<String> = Vec::new();
        for _ in 0..needs {
            let id = if is_open && self.percent(10) {
                format!("later{}", self.below(4))
            } else if number == 0 {
                continue;
            } else {
                // Mostly the ones just before, so that chains are long.
                let back = if self.percent(60) { 4 } else { number };
                format!("t{}", number - 1 - self.below(back.min(number)))
            };
            if !dependencies.contains(&id) {
                dependencies.push(id);
            }
        }
        let quorum = match self.below(3) {
            0 => Quorum::Majority,
            1 => Quorum::Any,
            _ if dependencies.is_empty() => Quorum::Any,
            _ => Quorum::Count(u32::try_from(1 + self.below(dependencies.len())).unwrap()),
        };
        let condition = if self.percent(15) { "true" } else { "" };
        TaskDefinition {
            id: format!("t{number}"),
            kind: "worker".to_owned(),
            dependencies,
            priority: u8::try_from(self.below(10)).unwrap(),
            timeout_ms: self.pick(&[0, 0, 5_000, 60_000]).unwrap(),
            queue_timeout_ms: self.pick(&[0, 0, 0, 20_000]).unwrap(),
            on_failure: match self.below(3) {
                0 => None,
                _ => self.pick(&FailurePolicy::ALL),
            },
            completion: self.pick(&Completion::ALL).unwrap(),
            condition: condition.to_owned(),
            quorum,
            ..TaskDefinition::default()
        }
    }

    pub(super) fn workflow(&mut self, tasks: usize) -> WorkflowDefinition {
        let is_open = self.percent(20);
        WorkflowDefinition {
            workflow_id: "w".to_owned(),
            tasks: (0..tasks)
                .map(|number| self.task(number, is_open))
                .collect(),
            dependency_mode: self.pick(&DependencyMode::ALL).unwrap(),
            strategy: self.pick(&Order::ALL).unwrap(),
            max_parallel_tasks: self.pick(&[1, 2, 3, 8, 50]).unwrap(),
            deadline_ms: self.pick(&[0, 0, 0, 300_000]).unwrap(),
            on_failure: self.pick(&FailurePolicy::ALL).unwrap(),
            is_open,
            ..WorkflowDefinition::default()
        }
    }
}
