//! `hive workflow graph`: the tasks of a workflow and what they wait for, in rows by how far they
//! are from the beginning, or as a Mermaid diagram.

use std::collections::{BTreeMap, VecDeque};

use hive_client::wire;
use serde::Serialize;

use super::views::task_word;
use crate::output::{Format, Output};

/// Tasks and what they wait for.
#[derive(Debug, Serialize)]
pub(super) struct Graph {
    workflow_id: String,
    tasks: Vec<Node>,
}

/// A task.
#[derive(Debug, Serialize)]
struct Node {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    dependencies: Vec<String>,
    /// Most tasks before it on one path.
    level: usize,
}

impl Graph {
    /// The tasks of a run.
    pub(super) fn of_run(run: &wire::Workflow) -> Self {
        let tasks = run.tasks.iter();
        let nodes = tasks.map(|task| {
            let state = Some(task_word(task.state()));
            (task.id.clone(), state, task.dependencies.clone())
        });
        Self::new(&run.workflow_id, nodes.collect())
    }

    /// The tasks of a workflow that nobody submitted.
    pub(super) fn of_spec(spec: &wire::WorkflowSpec) -> Self {
        let tasks = spec.tasks.iter();
        let nodes = tasks.map(|task| (task.id.clone(), None, task.dependencies.clone()));
        Self::new(&spec.workflow_id, nodes.collect())
    }

    fn new(workflow_id: &str, nodes: Vec<(String, Option<&'static str>, Vec<String>)>) -> Self {
        let levels = levels(&nodes);
        let tasks = nodes.into_iter().zip(levels);
        let mut tasks: Vec<Node> = tasks
            .map(|((id, state, dependencies), level)| Node {
                id,
                state,
                dependencies,
                level,
            })
            .collect();
        // Stable: within a level tasks keep their order.
        tasks.sort_by_key(|node| node.level);
        Self {
            workflow_id: workflow_id.to_owned(),
            tasks,
        }
    }

    /// Prints the graph.
    pub(super) fn print(&self, mermaid: bool, out: Output) -> anyhow::Result<()> {
        if mermaid {
            return out.text(&self.mermaid());
        }
        match out.format() {
            Format::Table => out.text(&self.rows()),
            Format::Json | Format::Jsonl => out.item(self),
        }
    }

    /// A row for each task, the levels set off by their numbers.
    fn rows(&self) -> String {
        let width = |of: fn(&Node) -> usize| self.tasks.iter().map(of).max().unwrap_or(0);
        let id_width = width(|node| node.id.len());
        let state_width = width(|node| node.state.map_or(0, str::len));
        let mut lines = Vec::with_capacity(self.tasks.len());
        let mut before = None;
        for node in &self.tasks {
            let mark = if before == Some(node.level) {
                String::new()
            } else {
                (node.level + 1).to_string()
            };
            before = Some(node.level);
            let state = node.state.unwrap_or_default();
            let needs = if node.dependencies.is_empty() {
                String::new()
            } else {
                format!("<- {}", node.dependencies.join(", "))
            };
            let id = &node.id;
            let line = format!("{mark:>4}  {id:<id_width$}  {state:<state_width$}  {needs}");
            lines.push(line.trim_end().to_owned());
        }
        lines.join("\n")
    }

    /// A Mermaid flowchart. Names of tasks are labels and never ids, which have rules of their own.
    fn mermaid(&self) -> String {
        let tasks = self.tasks.iter().enumerate();
        let numbers: BTreeMap<&str, usize> = tasks
            .map(|(number, node)| (node.id.as_str(), number))
            .collect();
        let mut lines = vec!["flowchart TD".to_owned()];
        for (number, node) in self.tasks.iter().enumerate() {
            let id = &node.id;
            let label = match node.state {
                Some(state) => format!("{id}<br/>{state}"),
                None => id.clone(),
            };
            lines.push(format!("  t{number}[\"{label}\"]"));
        }
        for (number, node) in self.tasks.iter().enumerate() {
            for (place, need) in node.dependencies.iter().enumerate() {
                match numbers.get(need.as_str()) {
                    Some(from) => lines.push(format!("  t{from} --> t{number}")),
                    // Of an open workflow: named, and not there yet.
                    None => lines.push(format!("  w{number}_{place}([\"{need}\"]) -.-> t{number}")),
                }
            }
        }
        lines.join("\n")
    }
}

/// How many tasks stand before each one on its longest path. Tasks that wait for each other, which
/// no server takes, are put at the beginning.
fn levels(nodes: &[(String, Option<&'static str>, Vec<String>)]) -> Vec<usize> {
    let numbers: BTreeMap<&str, usize> = nodes
        .iter()
        .enumerate()
        .map(|(number, (id, ..))| (id.as_str(), number))
        .collect();
    let mut waits = vec![0_usize; nodes.len()];
    let mut after: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (number, (_, _, needs)) in nodes.iter().enumerate() {
        for from in needs.iter().filter_map(|need| numbers.get(need.as_str())) {
            if let (Some(list), Some(count)) = (after.get_mut(*from), waits.get_mut(number)) {
                list.push(number);
                *count += 1;
            }
        }
    }
    let mut levels = vec![0_usize; nodes.len()];
    let mut free: VecDeque<usize> = waits
        .iter()
        .enumerate()
        .filter(|(_, count)| **count == 0)
        .map(|(number, _)| number)
        .collect();
    while let Some(number) = free.pop_front() {
        let level = levels.get(number).copied().unwrap_or(0);
        for next in after.get(number).into_iter().flatten() {
            if let (Some(found), Some(count)) = (levels.get_mut(*next), waits.get_mut(*next)) {
                *found = level.saturating_add(1).max(*found);
                *count = count.saturating_sub(1);
                if *count == 0 {
                    free.push_back(*next);
                }
            }
        }
    }
    levels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diamond() -> wire::Workflow {
        let task = |id: &str, needs: &[&str], state: wire::TaskState| wire::Task {
            id: id.to_owned(),
            dependencies: needs.iter().map(|need| (*need).to_owned()).collect(),
            state: state.into(),
            ..wire::Task::default()
        };
        wire::Workflow {
            workflow_id: "w".to_owned(),
            tasks: vec![
                task("test", &["api", "ui"], wire::TaskState::Pending),
                task("design", &[], wire::TaskState::Succeeded),
                task("api", &["design"], wire::TaskState::Running),
                task("ui", &["design"], wire::TaskState::Queued),
            ],
            ..wire::Workflow::default()
        }
    }

    #[test]
    fn tasks_stand_in_rows_by_their_level() {
        let rows = Graph::of_run(&diamond()).rows();
        let expected = [
            "   1  design  succeeded",
            "   2  api     running    <- design",
            "      ui      queued     <- design",
            "   3  test    pending    <- api, ui",
        ];
        let rows: Vec<&str> = rows.lines().collect();
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_mermaid_diagram_has_a_box_for_each_task_and_an_arrow_for_each_need() {
        let text = Graph::of_run(&diamond()).mermaid();
        let expected = "\
flowchart TD
  t0[\"design<br/>succeeded\"]
  t1[\"api<br/>running\"]
  t2[\"ui<br/>queued\"]
  t3[\"test<br/>pending\"]
  t0 --> t1
  t0 --> t2
  t1 --> t3
  t2 --> t3";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_nobody_added_and_what_waits_for_itself_are_drawn_too() {
        let task = |id: &str, need: &str| wire::TaskSpec {
            id: id.to_owned(),
            dependencies: vec![need.to_owned()],
            ..wire::TaskSpec::default()
        };
        let spec = wire::WorkflowSpec {
            tasks: vec![task("a", "b"), task("b", "a"), task("c", "later")],
            ..wire::WorkflowSpec::default()
        };
        let graph = Graph::of_spec(&spec);
        assert_eq!(graph.rows().lines().count(), 3);
        assert!(graph.mermaid().contains("w2_0([\"later\"]) -.-> t2"));
    }
}
