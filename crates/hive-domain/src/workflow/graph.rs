//! Who waits for whom: a graph without cycles, its order, and the longest path behind each task.
//!
//! Tasks are numbers here, their places in the definition. Nothing recurses: a chain of ten
//! thousand tasks is legal.

use std::collections::VecDeque;

/// A task's place in its workflow.
pub type TaskIndex = u32;

/// A checked graph.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Graph {
    dependencies: Vec<Vec<TaskIndex>>,
    dependants: Vec<Vec<TaskIndex>>,
    order: Vec<TaskIndex>,
    ranks: Vec<u32>,
    tails: Vec<u32>,
}

/// Tasks that wait for each other: each for the next, and the last for the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cycle(pub Vec<TaskIndex>);

impl Graph {
    /// The graph in which task `n` waits for `dependencies[n]`. Places that name no task are left
    /// out: the caller has refused them by name.
    ///
    /// # Errors
    /// A cycle, one of the shortest to read that a walk finds.
    pub fn new(dependencies: Vec<Vec<TaskIndex>>) -> Result<Self, Cycle> {
        let count = dependencies.len();
        let mut dependants: Vec<Vec<TaskIndex>> = vec![Vec::new(); count];
        let mut waits: Vec<usize> = vec![0; count];
        for (task, needs) in (0..).zip(&dependencies) {
            for need in needs {
                if let Some(list) = dependants.get_mut(place(*need)) {
                    list.push(task);
                    add(&mut waits, task, 1);
                }
            }
        }
        let mut order = Vec::with_capacity(count);
        let mut left = waits;
        let mut free: VecDeque<TaskIndex> = (0..)
            .zip(&left)
            .filter(|(_, waits)| **waits == 0)
            .map(|(task, _)| task)
            .collect();
        while let Some(task) = free.pop_front() {
            order.push(task);
            for next in dependants.get(place(task)).into_iter().flatten() {
                if let Some(waits) = left.get_mut(place(*next)) {
                    *waits = waits.saturating_sub(1);
                    if *waits == 0 {
                        free.push_back(*next);
                    }
                }
            }
        }
        if order.len() < count {
            return Err(cycle(&dependencies, &left));
        }
        let mut ranks = vec![0; count];
        for (rank, task) in (0..).zip(&order) {
            set(&mut ranks, *task, rank);
        }
        let mut tails = vec![1_u32; count];
        for task in order.iter().rev() {
            let below = dependants
                .get(place(*task))
                .into_iter()
                .flatten()
                .filter_map(|next| tails.get(place(*next)).copied())
                .max()
                .unwrap_or(0);
            set(&mut tails, *task, below.saturating_add(1));
        }
        Ok(Self {
            dependencies,
            dependants,
            order,
            ranks,
            tails,
        })
    }

    /// How many tasks there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.dependencies.len()
    }

    /// Whether there is no task.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.dependencies.is_empty()
    }

    /// What a task waits for; empty for a task that there is not.
    #[must_use]
    pub fn dependencies(&self, task: TaskIndex) -> &[TaskIndex] {
        self.dependencies
            .get(place(task))
            .map_or(&[], Vec::as_slice)
    }

    /// Who waits for a task; empty for a task that there is not.
    #[must_use]
    pub fn dependants(&self, task: TaskIndex) -> &[TaskIndex] {
        self.dependants.get(place(task)).map_or(&[], Vec::as_slice)
    }

    /// All tasks, each after what it waits for.
    #[must_use]
    pub fn order(&self) -> &[TaskIndex] {
        &self.order
    }

    /// A task's place in [`Self::order`].
    #[must_use]
    pub fn rank(&self, task: TaskIndex) -> u32 {
        self.ranks.get(place(task)).copied().unwrap_or(0)
    }

    /// Tasks on the longest path that begins with this one, itself included: what must still be
    /// done one after the other.
    #[must_use]
    pub fn tail(&self, task: TaskIndex) -> u32 {
        self.tails.get(place(task)).copied().unwrap_or(0)
    }
}

/// The position of a task in a list.
pub(super) const fn place(task: TaskIndex) -> usize {
    task as usize
}

fn set(list: &mut [u32], task: TaskIndex, value: u32) {
    if let Some(slot) = list.get_mut(place(task)) {
        *slot = value;
    }
}

fn add(list: &mut [usize], task: TaskIndex, value: usize) {
    if let Some(slot) = list.get_mut(place(task)) {
        *slot = slot.saturating_add(value);
    }
}

/// Walks from a task that was never free to one that it waits for, until one comes again.
fn cycle(dependencies: &[Vec<TaskIndex>], left: &[usize]) -> Cycle {
    let is_left = |task: TaskIndex| left.get(place(task)).is_some_and(|waits| *waits > 0);
    let count = u32::try_from(left.len()).unwrap_or(u32::MAX);
    let mut path: Vec<TaskIndex> = Vec::new();
    let mut seen = vec![usize::MAX; left.len()];
    let mut at = (0..count).find(|task| is_left(*task));
    while let Some(task) = at {
        let Some(mark) = seen.get_mut(place(task)) else {
            break;
        };
        if *mark != usize::MAX {
            let begin = *mark;
            return Cycle(path.split_off(begin));
        }
        *mark = path.len();
        path.push(task);
        at = dependencies
            .get(place(task))
            .into_iter()
            .flatten()
            .copied()
            .find(|need| is_left(*need));
    }
    Cycle(path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_chain_of_ten_thousand_has_an_order() {
        let chain = (0..10_000_u32)
            .map(|n| n.checked_sub(1).into_iter().collect())
            .collect();
        let graph = Graph::new(chain).expect("no cycle");
        assert!(graph.order().iter().copied().eq(0..10_000));
        assert_eq!(graph.tail(0), 10_000);
        assert_eq!(graph.tail(9_999), 1);
    }

    #[test]
    fn a_cycle_is_shown_without_what_leads_to_it() {
        let graph = Graph::new(vec![vec![1], vec![2], vec![3], vec![1], vec![]]);
        let Err(Cycle(shown)) = graph else {
            panic!("it has a cycle");
        };
        assert_eq!(shown, [1, 2, 3]);
        assert_eq!(Graph::new(vec![vec![0]]), Err(Cycle(vec![0])));
    }

    proptest! {
        #[test]
        fn each_task_comes_after_what_it_waits_for(
            edges in prop::collection::vec((0..40_u32, 0..40_u32), 0..120)
        ) {
            let mut needs: Vec<Vec<u32>> = vec![Vec::new(); 40];
            for (a, b) in edges {
                if a != b && !needs[a.max(b) as usize].contains(&a.min(b)) {
                    needs[a.max(b) as usize].push(a.min(b));
                }
            }
            let graph = Graph::new(needs.clone()).expect("edges go down");
            for (task, needs) in (0..).zip(&needs) {
                for need in needs {
                    prop_assert!(graph.rank(*need) < graph.rank(task));
                    prop_assert!(graph.tail(*need) > graph.tail(task));
                    prop_assert!(graph.dependants(*need).contains(&task));
                }
            }
        }

        #[test]
        fn a_shown_cycle_is_one(
            edges in prop::collection::vec((0..12_u32, 0..12_u32), 0..40)
        ) {
            let mut needs: Vec<Vec<u32>> = vec![Vec::new(); 12];
            for (a, b) in edges {
                needs[a as usize].push(b);
            }
            if let Err(Cycle(shown)) = Graph::new(needs.clone()) {
                prop_assert!(!shown.is_empty());
                let next = shown.iter().cycle().skip(1);
                for (task, next) in shown.iter().zip(next) {
                    prop_assert!(needs[*task as usize].contains(next));
                }
            }
        }
    }
}
