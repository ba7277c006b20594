//! Workflows of the wire, right and wrong, and how long the largest take.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hive_domain::workflow::{
    Completion, DependencyMode, FailurePolicy, Limits, Quorum, RunStatus, Strategy, TaskStatus,
};
use proptest::{prop_assert, proptest};
use prost::Message as _;
use prost_types::Duration as WireDuration;

use super::*;

const PAYLOAD_MAX: usize = 1 << 20;

fn task(id: &str, dependencies: &[&str]) -> wire::TaskSpec {
    wire::TaskSpec {
        id: id.to_owned(),
        r#type: "backend".to_owned(),
        dependencies: dependencies.iter().map(|id| (*id).to_owned()).collect(),
        ..wire::TaskSpec::default()
    }
}

fn workflow(tasks: Vec<wire::TaskSpec>) -> wire::WorkflowSpec {
    wire::WorkflowSpec {
        workflow_id: "w".to_owned(),
        tasks,
        ..wire::WorkflowSpec::default()
    }
}

fn read_one(spec: wire::WorkflowSpec) -> Result<Submitted, Violations> {
    read_workflow(spec, &Limits::default(), PAYLOAD_MAX)
}

fn faults(spec: wire::WorkflowSpec) -> Vec<String> {
    let Err(faults) = read_one(spec) else {
        panic!("it has faults");
    };
    faults.into_iter().map(|fault| fault.to_string()).collect()
}

fn seconds(seconds: i64) -> Option<WireDuration> {
    Some(WireDuration { seconds, nanos: 0 })
}

#[test]
fn what_a_caller_leaves_out_is_filled_in() {
    let read = read_one(workflow(vec![task("a", &[])])).unwrap();
    let definition = &read.definition;
    assert_eq!(definition.max_parallel_tasks, 50);
    assert_eq!(definition.dependency_mode, DependencyMode::Strict);
    assert_eq!(definition.strategy, Strategy::Hybrid);
    assert_eq!(definition.on_failure, FailurePolicy::FailWorkflow);
    assert_eq!(definition.deadline_ms, 0);
    let task = &definition.tasks[0];
    assert_eq!((task.priority, task.timeout_ms), (4, 0));
    assert_eq!((task.on_failure, task.completion), (None, Completion::Ack));
    assert_eq!((&task.group, task.quorum), (&None, Quorum::Majority));
    assert_eq!(
        read.contents,
        [wire::Message {
            message_type: "backend".to_owned(),
            workflow_id: "w".to_owned(),
            task_id: "a".to_owned(),
            priority: Some(4),
            ..wire::Message::default()
        }]
    );
}

#[test]
fn everything_that_a_caller_says_comes_through() {
    let retry = wire::RetryPolicy {
        max_attempts: Some(7),
        ..wire::RetryPolicy::default()
    };
    let spec = wire::WorkflowSpec {
        dependency_mode: wire::DependencyMode::BestEffort.into(),
        strategy: wire::WorkflowStrategy::Sequential.into(),
        max_parallel_tasks: 3,
        deadline: seconds(60),
        labels: [("team".to_owned(), "a".to_owned())].into(),
        on_failure: wire::FailurePolicy::Pause.into(),
        ..workflow(vec![
            task("a", &[]),
            wire::TaskSpec {
                group: "reviewers".to_owned(),
                priority: Some(9),
                payload: "{}".into(),
                content_type: "application/json".to_owned(),
                required_capabilities: vec!["rust".to_owned()],
                timeout: seconds(2),
                queue_timeout: seconds(3),
                retry: Some(retry),
                on_failure: wire::FailurePolicy::Continue.into(),
                condition: "inputs.a == 1".to_owned(),
                completion: wire::TaskCompletion::Signal.into(),
                quorum: "1".to_owned(),
                message_type: "review".to_owned(),
                from_agent: "planner".to_owned(),
                ..task("b", &["a"])
            },
        ])
    };
    let read = read_one(spec).unwrap();
    let definition = &read.definition;
    assert_eq!(definition.dependency_mode, DependencyMode::BestEffort);
    assert_eq!(definition.strategy, Strategy::Sequential);
    assert_eq!(definition.max_parallel_tasks, 3);
    assert_eq!(definition.deadline_ms, 60_000);
    assert_eq!(definition.labels["team"], "a");
    assert_eq!(definition.on_failure, FailurePolicy::Pause);
    let second = &definition.tasks[1];
    assert_eq!(second.group.as_deref(), Some("reviewers"));
    assert_eq!((second.timeout_ms, second.queue_timeout_ms), (2_000, 3_000));
    assert_eq!(second.on_failure, Some(FailurePolicy::Continue));
    assert_eq!(second.completion, Completion::Signal);
    assert_eq!(second.quorum, Quorum::Count(1));
    assert_eq!(read.graph.dependencies(1), [0]);
    let content = &read.contents[1];
    assert_eq!(content.payload, "{}");
    assert_eq!(content.message_type, "review");
    assert_eq!(content.from_agent, "planner");
    assert_eq!(content.priority, Some(9));
    assert_eq!(content.required_capabilities, ["rust"]);
    assert_eq!(content.retry, Some(retry));
    let of_router = (&content.message_id, &content.run_id, &content.resumption);
    assert_eq!(of_router, (&String::new(), &String::new(), &None));
}

#[test]
fn faults_of_fields_and_of_the_graph_come_in_one_answer() {
    let bad = wire::WorkflowSpec {
        workflow_id: "no name".to_owned(),
        dependency_mode: 77,
        deadline: seconds(-1),
        ..workflow(vec![
            wire::TaskSpec {
                priority: Some(300),
                payload: vec![0; 11].into(),
                content_type: "\n".to_owned(),
                timeout: seconds(40_000_000),
                on_failure: 9,
                completion: 8,
                quorum: "most".to_owned(),
                message_type: "a b".to_owned(),
                condition: "1 +".to_owned(),
                retry: Some(wire::RetryPolicy {
                    max_attempts: Some(0),
                    ..wire::RetryPolicy::default()
                }),
                ..task("a", &["a", "b"])
            },
            task("b", &["a"]),
            task("b", &["nobody"]),
        ])
    };
    let Err(found) = read_workflow(bad, &Limits::default(), 10) else {
        panic!("it has faults");
    };
    let fields: Vec<&str> = found.as_slice().iter().map(|it| &*it.field).collect();
    assert_eq!(
        fields,
        [
            "dependency_mode",
            "deadline",
            "tasks[0].payload",
            "tasks[0].content_type",
            "tasks[0].message_type",
            "tasks[0].retry.max_attempts",
            "tasks[0].priority",
            "tasks[0].timeout",
            "tasks[0].on_failure",
            "tasks[0].completion",
            "tasks[0].quorum",
            "workflow_id",
            "tasks[0].condition",
            "tasks[2].id",
            "tasks[0].dependencies[0]",
            "tasks[2].dependencies[0]",
            "tasks",
        ]
    );
    let last = found.as_slice().last().unwrap();
    assert_eq!(last.description, "wait for each other: a -> b -> a");
}

#[test]
fn an_empty_workflow_is_refused_unless_it_is_open() {
    assert_eq!(faults(workflow(Vec::new())), ["tasks: must not be empty"]);
    let open = wire::WorkflowSpec {
        open: true,
        ..workflow(Vec::new())
    };
    assert!(read_one(open).is_ok());
}

#[test]
fn too_many_tasks_are_one_fault() {
    let tasks = (0..10_001)
        .map(|n| task(&format!("t{n}"), &["?"]))
        .collect();
    assert_eq!(
        faults(workflow(tasks)),
        ["tasks: has `10001` tasks and must have at most 10000"]
    );
}

#[test]
fn too_many_dependencies_and_bytes_are_told_with_their_place() {
    let ids: Vec<String> = (0..101).map(|n| format!("t{n}")).collect();
    let mut tasks: Vec<wire::TaskSpec> = ids.iter().map(|id| task(id, &[])).collect();
    let all: Vec<&str> = ids.iter().map(String::as_str).collect();
    tasks.push(task("last", &all));
    assert_eq!(
        faults(workflow(tasks)),
        ["tasks[101].dependencies: has `101` names and must have at most 100"]
    );
    let heavy: Vec<wire::TaskSpec> = (0..5)
        .map(|n| wire::TaskSpec {
            payload: vec![0; PAYLOAD_MAX].into(),
            ..task(&format!("t{n}"), &[])
        })
        .collect();
    let bytes = workflow(heavy.clone()).encoded_len();
    assert_eq!(
        faults(workflow(heavy)),
        [format!(
            "tasks: has `{bytes}` bytes and must have at most 4194304"
        )]
    );
}

#[test]
fn many_faults_are_listed_in_part() {
    let tasks = (0..500)
        .map(|n| wire::TaskSpec {
            priority: Some(10),
            ..task(&format!("t{n}"), &[])
        })
        .collect();
    let found = faults(workflow(tasks));
    assert_eq!(found.len(), 201);
    assert_eq!(
        found[200],
        "tasks: have `300` more faults that are not listed"
    );
}

/// Time enough for a build without optimisation on a busy machine; with it, 50 ms are asked for.
const LIMIT: Duration = Duration::from_millis(if cfg!(debug_assertions) { 2_000 } else { 50 });

#[test]
fn the_longest_chain_and_the_densest_graph_are_read_in_no_time() {
    let chain = (0..10_000)
        .map(|n: u32| {
            let before = n.checked_sub(1).map(|n| format!("t{n}"));
            task(&format!("t{n}"), before.as_deref().as_slice())
        })
        .collect();
    let dense = (0..2_000)
        .map(|n: usize| {
            let before: Vec<String> = (n.saturating_sub(100)..n)
                .map(|n| format!("t{n}"))
                .collect();
            let before: Vec<&str> = before.iter().map(String::as_str).collect();
            task(&format!("t{n}"), &before)
        })
        .collect();
    let ring = (0..10_000)
        .map(|n| task(&format!("t{n}"), &[&format!("t{}", (n + 1) % 10_000)]))
        .collect();
    for (name, tasks, is_right) in [
        ("chain", chain, true),
        ("dense", dense, true),
        ("ring", ring, false),
    ] {
        let spec = workflow(tasks);
        let begun = Instant::now();
        let read = read_one(spec);
        let took = begun.elapsed();
        assert_eq!(read.is_ok(), is_right, "{name}");
        assert!(took < LIMIT, "{name}: {took:?}");
    }
}

#[test]
fn added_tasks_are_read_below_their_field() {
    let bad = wire::TaskSpec {
        timeout: seconds(-1),
        ..task("b", &["x"])
    };
    let specs = vec![task("a", &["x"]), bad.clone()];
    let found = read_tasks(specs, "w", "ack.add_tasks", PAYLOAD_MAX).unwrap_err();
    assert_eq!(found.as_slice()[0].field, "ack.add_tasks[1].timeout");
    let found = read_task(bad, "w", "task", PAYLOAD_MAX).unwrap_err();
    assert_eq!(found.as_slice()[0].field, "task.timeout");
    let read = read_tasks(vec![task("a", &["x"])], "w", "tasks", PAYLOAD_MAX).unwrap();
    assert_eq!(read[0].definition.dependencies, ["x"]);
    assert_eq!(read[0].content.task_id, "a");
}

#[test]
fn one_to_a_thousand_tasks_are_added() {
    for (count, is_right) in [(0, false), (1, true), (1_000, true), (1_001, false)] {
        let specs = (0..count).map(|n| task(&format!("t{n}"), &[])).collect();
        let read = read_tasks(specs, "w", "tasks", PAYLOAD_MAX);
        assert_eq!(read.is_ok(), is_right, "{count}");
    }
}

#[test]
fn faults_of_a_list_of_one_are_those_of_the_field() {
    let mut faults = Violations::one("tasks[0].dependencies[1]", "is named twice");
    faults.push("tasks", "wait for each other: a -> b -> a");
    let moved = of_one_task(faults, "task");
    assert_eq!(
        moved.to_string(),
        "task.dependencies[1]: is named twice; tasks: wait for each other: a -> b -> a"
    );
}

#[test]
fn every_word_of_the_domain_has_its_number_on_the_wire() {
    fn word(name: &str, prefix: &str) -> String {
        name.strip_prefix(prefix).unwrap().to_ascii_lowercase()
    }
    for status in TaskStatus::ALL {
        let wire = task_state(status);
        assert_eq!(word(wire.as_str_name(), "TASK_STATE_"), status.as_str());
        assert_eq!(task_status(wire), Some(status));
    }
    for status in RunStatus::ALL {
        let wire = workflow_state(status);
        assert_eq!(word(wire.as_str_name(), "WORKFLOW_STATE_"), status.as_str());
        assert_eq!(read_state(wire.into()), Ok(Some(status)));
    }
    for mode in &DependencyMode::ALL {
        let wire = dependency_mode(*mode);
        assert_eq!(word(wire.as_str_name(), "DEPENDENCY_MODE_"), mode.as_str());
        assert_eq!(read_dependency_mode(wire.into()), Ok(*mode));
    }
    for one in &Strategy::ALL {
        let wire = strategy(*one);
        assert_eq!(word(wire.as_str_name(), "WORKFLOW_STRATEGY_"), one.as_str());
        assert_eq!(read_strategy(wire.into()), Ok(*one));
    }
    for policy in &FailurePolicy::ALL {
        let wire = failure_policy(*policy);
        assert_eq!(word(wire.as_str_name(), "FAILURE_POLICY_"), policy.as_str());
        assert_eq!(read_failure_policy(wire.into()), Ok(Some(*policy)));
    }
    for completion in &Completion::ALL {
        let wire = task_completion(*completion);
        let name = word(wire.as_str_name(), "TASK_COMPLETION_");
        assert_eq!(name, completion.as_str());
        assert_eq!(read_completion(wire.into()), Ok(*completion));
    }
    assert_eq!(read_state(0), Ok(None));
    assert_eq!(
        read_state(6).unwrap_err().to_string(),
        "state: `6` is no known state of a workflow"
    );
}

#[test]
fn a_list_and_a_history_have_defaults_and_limits() {
    let list_of = |limit| {
        list(&wire::ListWorkflowsRequest {
            limit,
            state: wire::WorkflowState::Paused.into(),
            ..wire::ListWorkflowsRequest::default()
        })
    };
    let read = list_of(0).unwrap();
    assert_eq!((read.limit, read.state), (50, Some(RunStatus::Paused)));
    assert_eq!(list_of(1_000).unwrap().limit, 1_000);
    assert!(list_of(1_001).is_err());
    let history_of = |workflow_id: &str, limit| {
        history(&wire::GetHistoryRequest {
            workflow_id: workflow_id.to_owned(),
            limit,
            ..wire::GetHistoryRequest::default()
        })
    };
    assert_eq!(history_of("w", 0).unwrap().limit, 100);
    let found = history_of("", 1_001).unwrap_err();
    assert_eq!(
        found.to_string(),
        "workflow_id: must not be empty; limit: `1001` must be at most 1000"
    );
    let labels = BTreeMap::from([("a b".to_owned(), "x".repeat(9_000))]);
    assert_eq!(check_labels(&labels).unwrap_err().len(), 2);
}

proptest! {
    #[test]
    fn a_graph_that_only_looks_back_is_always_read(
        backs in proptest::collection::vec(proptest::collection::btree_set(1..8_usize, 0..4), 1..60)
    ) {
        let tasks: Vec<wire::TaskSpec> = backs
            .iter()
            .enumerate()
            .map(|(n, backs)| {
                let needs: Vec<String> = backs
                    .iter()
                    .filter_map(|back| n.checked_sub(*back))
                    .map(|n| format!("t{n}"))
                    .collect();
                let needs: Vec<&str> = needs.iter().map(String::as_str).collect();
                task(&format!("t{n}"), &needs)
            })
            .collect();
        let count = tasks.len();
        let read = read_one(workflow(tasks)).unwrap();
        prop_assert!(read.graph.len() == count && read.contents.len() == count);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        if let Ok(spec) = wire::WorkflowSpec::decode(bytes.as_slice()) {
            let _read: Result<Submitted, Violations> = read_one(spec);
        }
    }
}
