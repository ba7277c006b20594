//! Definitions with every kind of fault.

use proptest::{prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::workflow::graph::TaskIndex;

fn task(id: &str, dependencies: &[&str]) -> TaskDefinition {
    TaskDefinition {
        id: id.to_owned(),
        kind: "worker".to_owned(),
        dependencies: dependencies.iter().map(|id| (*id).to_owned()).collect(),
        ..TaskDefinition::default()
    }
}

fn workflow(tasks: Vec<TaskDefinition>) -> WorkflowDefinition {
    WorkflowDefinition {
        workflow_id: "w".to_owned(),
        tasks,
        ..WorkflowDefinition::default()
    }
}

fn faults(definition: &WorkflowDefinition) -> Vec<String> {
    let Err(faults) = check(definition, &Limits::default()) else {
        panic!("it has faults");
    };
    faults.into_iter().map(|fault| fault.to_string()).collect()
}

#[test]
fn all_faults_are_told_in_one_answer() {
    let bad = WorkflowDefinition {
        max_parallel_tasks: 0,
        deadline_ms: DURATION_MS_MAX + 1,
        labels: [("no label".to_owned(), "x".repeat(9_000))].into(),
        tasks: vec![
            task("a", &["b", "a", "x", "b"]),
            task("b", &["a"]),
            task("b", &[]),
            TaskDefinition {
                kind: String::new(),
                priority: 10,
                condition: "1 +".to_owned(),
                quorum: Quorum::Count(2),
                ..task("no name", &["a"])
            },
        ],
        ..workflow(Vec::new())
    };
    let found = faults(&bad);
    let begin: Vec<&str> = found
        .iter()
        .map(|f| f.split(" must").next().unwrap())
        .collect();
    assert_eq!(
        begin[..8],
        [
            "max_parallel_tasks: `0`",
            "deadline: `31536000001 ms`",
            "labels: has `9008` bytes and",
            "labels: `no label`",
            "tasks[3].id: `no name`",
            "tasks[3].type:",
            "tasks[3].priority: `10`",
            begin[7],
        ]
    );
    assert!(found[7].starts_with("tasks[3].condition: `1 +` is not CEL: line 1"));
    assert_eq!(
        found[8..],
        [
            "tasks[3].quorum: `2` must be between 1 and the number of dependencies `1`",
            "tasks[2].id: `b` is the id of tasks[1] too",
            "tasks[0].dependencies[1]: `a` is the task itself",
            "tasks[0].dependencies[2]: `x` is no task of this workflow",
            "tasks[0].dependencies[3]: `b` is named twice",
            "tasks: wait for each other: a -> b -> a",
        ]
    );
}

#[test]
fn only_an_open_workflow_may_be_empty() {
    assert_eq!(faults(&workflow(Vec::new())), ["tasks: must not be empty"]);
    let open = WorkflowDefinition {
        is_open: true,
        ..workflow(Vec::new())
    };
    assert_eq!(
        check(&open, &Limits::default()).map(|graph| graph.len()),
        Ok(0)
    );
}

#[test]
fn an_unknown_dependency_of_an_open_workflow_gets_a_place_behind_the_tasks() {
    let open = WorkflowDefinition {
        is_open: true,
        ..workflow(vec![task("a", &["x", "y"]), task("b", &["y", "a"])])
    };
    let graph = check(&open, &Limits::default()).unwrap();
    assert_eq!(graph.len(), 4);
    assert_eq!(graph.dependencies(0), [2, 3]);
    assert_eq!(graph.dependencies(1), [3, 0]);
}

#[test]
fn a_long_cycle_is_shown_in_part() {
    let ring: Vec<TaskDefinition> = (0..20)
        .map(|n| task(&format!("t{n}"), &[&format!("t{}", (n + 1) % 20)]))
        .collect();
    assert_eq!(
        faults(&workflow(ring)),
        [
            "tasks: wait for each other: t0 -> t1 -> t2 -> t3 -> t4 -> t5 -> t6 -> t7 -> t8 -> \
             t9 -> (10 more) -> t0"
        ]
    );
}

#[test]
fn two_hundred_faults_are_listed_and_the_rest_counted() {
    let bad = (0..300).map(|n| task(&format!("t{n}"), &["x"])).collect();
    let found = faults(&workflow(bad));
    assert_eq!(found.len(), 201);
    assert_eq!(
        found[200],
        "tasks: have `100` more faults that are not listed"
    );
}

#[test]
fn too_many_tasks_or_dependencies_are_a_fault_each() {
    let ids: Vec<String> = (0..101).map(|n| format!("t{n}")).collect();
    let mut tasks: Vec<TaskDefinition> = ids.iter().map(|id| task(id, &[])).collect();
    tasks.push(task(
        "last",
        &ids.iter().map(String::as_str).collect::<Vec<_>>(),
    ));
    let limits = Limits {
        tasks_max: 100,
        ..Limits::default()
    };
    let found = check(&workflow(tasks), &limits).unwrap_err();
    assert_eq!(
        found.to_string(),
        "tasks[101].dependencies: has `101` names and must have at most 100; \
         tasks: has `102` tasks and must have at most 100"
    );
}

#[test]
fn the_words_of_a_quorum_are_read_back() {
    for quorum in [Quorum::Majority, Quorum::Any, Quorum::Count(3)] {
        assert_eq!(quorum.to_string().parse(), Ok(quorum));
    }
    assert!("most".parse::<Quorum>().is_err());
    let needed = |quorum: Quorum| [0, 1, 2, 3, 4].map(|n| quorum.of(n));
    assert_eq!(needed(Quorum::Majority), [0, 1, 2, 2, 3]);
    assert_eq!(needed(Quorum::Any), [0, 1, 1, 1, 1]);
}

#[test]
fn words_and_json_agree() {
    for strategy in &Strategy::ALL {
        let json = serde_json::to_string(strategy).unwrap();
        assert_eq!(json, format!("\"{strategy}\""));
        assert_eq!(strategy.as_str().parse(), Ok(*strategy));
    }
    for policy in &FailurePolicy::ALL {
        assert_eq!(
            serde_json::to_string(policy).unwrap(),
            format!("\"{policy}\"")
        );
    }
    for mode in &DependencyMode::ALL {
        assert_eq!(serde_json::to_string(mode).unwrap(), format!("\"{mode}\""));
    }
}

#[test]
fn a_definition_is_read_back_from_its_json() {
    let whole = WorkflowDefinition {
        labels: [("team".to_owned(), "a".to_owned())].into(),
        tasks: vec![TaskDefinition {
            group: Some("g".to_owned()),
            on_failure: Some(FailurePolicy::Pause),
            quorum: Quorum::Count(1),
            ..task("a", &["b"])
        }],
        ..workflow(Vec::new())
    };
    let json = serde_json::to_string(&whole).unwrap();
    assert_eq!(
        serde_json::from_str::<WorkflowDefinition>(&json).unwrap(),
        whole
    );
}

proptest! {
    #[test]
    fn a_definition_passes_exactly_when_nothing_is_wrong(
        edges in proptest::collection::vec((0..8_usize, 0..9_usize), 0..12)
    ) {
        let ids: Vec<String> = (0..9).map(|n| format!("t{n}")).collect();
        let mut tasks: Vec<TaskDefinition> = ids[..8].iter().map(|id| task(id, &[])).collect();
        for (from, to) in &edges {
            tasks[*from].dependencies.push(ids[*to].clone());
        }
        let distinct: BTreeSet<_> = edges.iter().collect();
        let is_bad = distinct.len() < edges.len()
            || edges.iter().any(|(from, to)| from == to || *to == 8)
            || has_cycle(&edges);
        let checked = check(&workflow(tasks), &Limits::default());
        prop_assert_eq!(checked.is_err(), is_bad);
        if let Ok(graph) = checked {
            for (from, to) in edges {
                let from = TaskIndex::try_from(from).unwrap();
                prop_assert!(graph.dependencies(from).contains(&TaskIndex::try_from(to).unwrap()));
            }
        }
    }
}

/// Whether someone reaches itself, by closing the relation.
fn has_cycle(edges: &[(usize, usize)]) -> bool {
    let mut reach = [[false; 9]; 9];
    for (from, to) in edges {
        reach[*from][*to] = true;
    }
    for middle in 0..9 {
        for from in 0..9 {
            for to in 0..9 {
                reach[from][to] |= reach[from][middle] && reach[middle][to];
            }
        }
    }
    (0..9).any(|n| reach[n][n])
}
