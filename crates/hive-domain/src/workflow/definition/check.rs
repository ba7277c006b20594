//! What is wrong with a definition, all of it, and the graph of one with which nothing is.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    DURATION_MS_MAX, LABEL_BYTES_MAX, LABELS_MAX, Limits, PARALLEL_TASKS_MAX, Quorum,
    REQUIRED_CAPABILITIES_MAX, TaskDefinition, WorkflowDefinition,
};
use crate::{
    capability::CapabilitySet,
    group::in_range,
    name,
    violation::{Violation, Violations, quoted},
    workflow::{
        condition::Condition,
        graph::{Cycle, Graph, TaskIndex, place},
    },
};

/// Highest priority of a task, as of a message.
const PRIORITY_MAX: u8 = 9;
/// Most faults that an answer lists: who sends ten thousand broken tasks learns from the first.
const FAULTS_MAX: usize = 200;

/// Most tasks of a cycle that are named.
const CYCLE_TASKS_MAX: usize = 10;

/// Checks a definition and builds its graph. In the graph of an open workflow the dependencies
/// that nobody added yet stand behind the tasks, in the order in which they are named.
///
/// # Errors
/// All faults, with paths like `tasks[3].dependencies[1]`: at most 200, and then one that says how
/// many more there are.
pub fn check(definition: &WorkflowDefinition, limits: &Limits) -> Result<Graph, Violations> {
    let mut faults = Faults::default();
    check_head(definition, &mut faults);
    let tasks = &definition.tasks;
    if tasks.is_empty() && !definition.is_open {
        faults.push("tasks", "must not be empty".to_owned());
    }
    check_tasks(tasks, limits, &mut faults);
    let wiring = wire(tasks, 0, definition.is_open, |_| Known::Nobody, &mut faults);
    check_count(
        tasks.len().saturating_add(wiring.awaited.len()),
        limits,
        &mut faults,
    );
    let mut needs = wiring.needs;
    needs.resize_with(needs.len().saturating_add(wiring.awaited.len()), Vec::new);
    let name = |task: TaskIndex| {
        let own = tasks.get(place(task)).map(|task| task.id.as_str());
        own.unwrap_or("?")
    };
    let graph = Graph::new(needs).map_err(|cycle| faults.cycle(&cycle, name));
    match (graph, faults.is_empty()) {
        (Ok(graph), true) => Ok(graph),
        (Ok(_) | Err(()), _) => Err(faults.into_violations()),
    }
}

/// What the owner of a run knows of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Nothing.
    Nobody,
    /// It is a task that is waited for, and may be filled.
    Awaited(TaskIndex),
    /// It is a task.
    Task(TaskIndex),
}

/// What adding tasks to a run makes of its graph.
#[derive(Debug)]
pub struct Addition {
    /// The place of each added task.
    pub places: Vec<TaskIndex>,
    /// Ids of the tasks that are waited for from now on; their places follow the added ones'.
    pub awaited: Vec<String>,
    /// The graph with all of them.
    pub graph: Graph,
}

/// Checks tasks that are to be added to a run. `known` says what an id is there.
///
/// # Errors
/// All faults, as [`check`] tells them.
pub fn check_added(
    added: &[TaskDefinition],
    definition: &WorkflowDefinition,
    graph: &Graph,
    known: impl Fn(&str) -> Known,
    limits: &Limits,
) -> Result<Addition, Violations> {
    let mut faults = Faults::default();
    let count = graph.len();
    check_tasks(added, limits, &mut faults);
    let wiring = wire(added, count, definition.is_open, known, &mut faults);
    let mut needs: Vec<Vec<TaskIndex>> = (0..)
        .take(count)
        .map(|task| graph.dependencies(task).to_vec())
        .collect();
    for (place_of, of_task) in wiring.places.iter().zip(wiring.needs) {
        match needs.get_mut(place(*place_of)) {
            Some(slot) => *slot = of_task,
            None => needs.push(of_task),
        }
    }
    needs.resize_with(needs.len().saturating_add(wiring.awaited.len()), Vec::new);
    check_count(needs.len(), limits, &mut faults);
    let name = |task: TaskIndex| {
        let filled = wiring.places.iter().position(|place_of| *place_of == task);
        let task = match filled {
            Some(position) => added.get(position),
            None => definition.tasks.get(place(task)),
        };
        task.map_or("?", |task| task.id.as_str())
    };
    let built = Graph::new(needs).map_err(|cycle| faults.cycle(&cycle, name));
    match (built, faults.is_empty()) {
        (Ok(graph), true) => Ok(Addition {
            places: wiring.places,
            awaited: wiring.awaited,
            graph,
        }),
        (Ok(_) | Err(()), _) => Err(faults.into_violations()),
    }
}

/// The graph of a definition that was checked before, awaited tasks among its tasks.
///
/// # Errors
/// A dependency that is no task, or a cycle: it is not what was checked.
pub fn graph_of(definition: &WorkflowDefinition) -> Result<Graph, Violations> {
    let mut faults = Faults::default();
    let tasks = &definition.tasks;
    let wiring = wire(tasks, 0, false, |_| Known::Nobody, &mut faults);
    let name = |task: TaskIndex| {
        let own = tasks.get(place(task)).map(|task| task.id.as_str());
        own.unwrap_or("?")
    };
    let graph = Graph::new(wiring.needs).map_err(|cycle| faults.cycle(&cycle, name));
    match (graph, faults.is_empty()) {
        (Ok(graph), true) => Ok(graph),
        (Ok(_) | Err(()), _) => Err(faults.into_violations()),
    }
}

/// The fields of the workflow itself.
fn check_head(definition: &WorkflowDefinition, faults: &mut Faults) {
    faults.take(name::check("workflow_id", &definition.workflow_id));
    faults.take(in_range(
        "max_parallel_tasks",
        u64::from(definition.max_parallel_tasks),
        1,
        u64::from(PARALLEL_TASKS_MAX),
        "",
    ));
    faults.take(duration("deadline", definition.deadline_ms));
    let labels = &definition.labels;
    if labels.len() > LABELS_MAX {
        let count = labels.len();
        faults.push(
            "labels",
            format!("has `{count}` labels and must have at most {LABELS_MAX}"),
        );
    }
    let bytes = labels
        .iter()
        .map(|(key, value)| key.len().saturating_add(value.len()))
        .fold(0, usize::saturating_add);
    if bytes > LABEL_BYTES_MAX {
        faults.push(
            "labels",
            format!("has `{bytes}` bytes and must have at most {LABEL_BYTES_MAX}"),
        );
    }
    for key in labels.keys() {
        faults.take(name::check("labels", key));
    }
}

fn check_count(count: usize, limits: &Limits, faults: &mut Faults) {
    let max = limits.tasks_max;
    if count > max {
        faults.push(
            "tasks",
            format!("has `{count}` tasks and must have at most {max}"),
        );
    }
}

/// The fields of each task but its dependencies' names.
fn check_tasks(tasks: &[TaskDefinition], limits: &Limits, faults: &mut Faults) {
    for (number, task) in tasks.iter().enumerate() {
        let TaskDefinition {
            id,
            kind,
            group,
            dependencies,
            priority,
            required_capabilities,
            timeout_ms,
            queue_timeout_ms,
            // Any word of it is right.
            on_failure: _,
            completion: _,
            condition,
            quorum,
        } = task;
        let mut own = Violations::new();
        own.take(name::check("id", id));
        own.take(name::check_optional("type", kind));
        if let Some(group) = group {
            own.take(name::check_group("group", group));
        } else if kind.is_empty() {
            own.push("type", "must not be empty where no group is named");
        }
        let count = dependencies.len();
        if count > limits.dependencies_max {
            let max = limits.dependencies_max;
            own.push(
                "dependencies",
                format!("has `{count}` names and must have at most {max}"),
            );
        }
        let max = u64::from(PRIORITY_MAX);
        own.take(in_range("priority", u64::from(*priority), 0, max, ""));
        let names = required_capabilities.names();
        let field = "required_capabilities";
        if let Err(bad) = CapabilitySet::checked(field, names, REQUIRED_CAPABILITIES_MAX) {
            own.nest("", bad);
        }
        own.take(duration("timeout", *timeout_ms));
        own.take(duration("queue_timeout", *queue_timeout_ms));
        if !condition.is_empty()
            && let Err(reason) = Condition::parse(condition)
        {
            own.push("condition", format!("{} {reason}", quoted(condition)));
        }
        if let Quorum::Count(wanted) = *quorum
            && (wanted == 0 || usize::try_from(wanted).map_or(true, |wanted| wanted > count))
        {
            own.push(
                "quorum",
                format!("`{wanted}` must be between 1 and the number of dependencies `{count}`"),
            );
        }
        // The path is only written for what is wrong: ten thousand good tasks cost nothing.
        if !own.is_empty() {
            let path = format!("tasks[{number}]");
            own.into_iter()
                .for_each(|fault| faults.add(fault.below(&path)));
        }
    }
}

fn duration(field: &str, value_ms: u64) -> Result<(), Violation> {
    in_range(field, value_ms, 0, DURATION_MS_MAX, " ms")
}

/// Which places the tasks of a list have and wait for.
struct Wiring {
    places: Vec<TaskIndex>,
    needs: Vec<Vec<TaskIndex>>,
    awaited: Vec<String>,
}

/// Looks up every dependency of `tasks`, of which new ones get places from `count` on. Whoever is
/// not found is awaited where `is_open`, and else a fault.
fn wire(
    tasks: &[TaskDefinition],
    count: usize,
    is_open: bool,
    known: impl Fn(&str) -> Known,
    faults: &mut Faults,
) -> Wiring {
    let mut next = index(count);
    let mut own: BTreeMap<&str, (usize, TaskIndex)> = BTreeMap::new();
    let mut places = Vec::with_capacity(tasks.len());
    for (number, task) in tasks.iter().enumerate() {
        let mut taken = || {
            let free = next;
            next = next.saturating_add(1);
            free
        };
        let is_named = own.get(task.id.as_str()).map(|(first, _)| *first);
        let place = match (is_named, known(&task.id)) {
            (None, Known::Awaited(place)) => place,
            (None, Known::Nobody) => taken(),
            (Some(first), _) => {
                faults.push(
                    &format!("tasks[{number}].id"),
                    format!("{} is the id of tasks[{first}] too", quoted(&task.id)),
                );
                taken()
            },
            (None, Known::Task(_)) => {
                faults.push(
                    &format!("tasks[{number}].id"),
                    format!("{} is a task of this run already", quoted(&task.id)),
                );
                taken()
            },
        };
        own.entry(task.id.as_str()).or_insert((number, place));
        places.push(place);
    }
    let mut awaited: BTreeMap<&str, TaskIndex> = BTreeMap::new();
    let mut names = Vec::new();
    let mut needs = Vec::with_capacity(tasks.len());
    for (number, task) in tasks.iter().enumerate() {
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut of_task = Vec::with_capacity(task.dependencies.len());
        for (position, id) in task.dependencies.iter().enumerate() {
            let field = || format!("tasks[{number}].dependencies[{position}]");
            if *id == task.id {
                faults.push(&field(), format!("{} is the task itself", quoted(id)));
                continue;
            }
            if !seen.insert(id) {
                faults.push(&field(), format!("{} is named twice", quoted(id)));
                continue;
            }
            let found = own
                .get(id.as_str())
                .map(|(_, place)| *place)
                .or_else(|| match known(id) {
                    Known::Awaited(place) | Known::Task(place) => Some(place),
                    Known::Nobody => awaited.get(id.as_str()).copied(),
                });
            match found {
                Some(place) => of_task.push(place),
                None if !is_open => {
                    faults.push(
                        &field(),
                        format!("{} is no task of this workflow", quoted(id)),
                    );
                },
                None => {
                    faults.take(name::check(&field(), id));
                    awaited.insert(id, next);
                    names.push(id.clone());
                    of_task.push(next);
                    next = next.saturating_add(1);
                },
            }
        }
        needs.push(of_task);
    }
    Wiring {
        places,
        needs,
        awaited: names,
    }
}

/// The number of a place; a list that long is refused by its length.
fn index(place: usize) -> TaskIndex {
    TaskIndex::try_from(place).unwrap_or(TaskIndex::MAX)
}

/// Faults up to the number that an answer lists.
#[derive(Default)]
struct Faults {
    listed: Violations,
    more: usize,
}

impl Faults {
    fn add(&mut self, fault: Violation) {
        if self.listed.len() < FAULTS_MAX {
            self.listed.push(fault.field, fault.description);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }

    fn push(&mut self, field: &str, description: String) {
        self.add(Violation::new(field, description));
    }

    fn take(&mut self, checked: Result<(), Violation>) {
        if let Err(fault) = checked {
            self.add(fault);
        }
    }

    /// A cycle, as `a -> b -> a`: each waits for the next.
    fn cycle<'a>(&mut self, cycle: &Cycle, name: impl Fn(TaskIndex) -> &'a str) {
        let Cycle(tasks) = cycle;
        let shown = tasks.iter().take(CYCLE_TASKS_MAX);
        let mut words: Vec<String> = shown.map(|task| name(*task).to_owned()).collect();
        let hidden = tasks.len().saturating_sub(words.len());
        if hidden > 0 {
            words.push(format!("({hidden} more)"));
        }
        words.extend(tasks.first().map(|first| name(*first).to_owned()));
        let way = words.join(" -> ");
        self.push("tasks", format!("wait for each other: {way}"));
    }

    const fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    fn into_violations(self) -> Violations {
        let mut listed = self.listed;
        if self.more > 0 {
            let more = self.more;
            listed.push(
                "tasks",
                format!("have `{more}` more faults that are not listed"),
            );
        }
        listed
    }
}
