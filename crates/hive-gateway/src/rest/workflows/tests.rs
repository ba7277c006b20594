//! Workflows from JSON, runs as JSON, and the shapes that say what both are.

use hive_domain::workflow::{
    Completion, DependencyMode, FailurePolicy, RunStatus, Strategy, TaskStatus,
};
use hive_protocol::wire;
use serde_json::{Value, json};

use super::{
    read::{Manner, own_shape, own_task_shape},
    read_workflow,
    shapes::{
        COMPLETIONS, EVENT, GUIDE_TASK, GUIDE_WORKFLOW, MODES, POLICIES, STATES, STRATEGIES,
        SUBMITTED, TASK_SHOWN, TASK_STATES, WORKFLOW,
    },
    shown::{EventOut, WorkflowOut},
    submitted,
};
use crate::rest::{
    fields::Fields,
    tests::{misfits, raw},
};

fn read(body: &Value) -> Result<wire::WorkflowSpec, Vec<String>> {
    let mut fields = Fields::of(&raw(body), own_shape(), "");
    let manner = (Manner::Ours, own_task_shape());
    let spec = read_workflow(&mut fields, manner, 1 << 20);
    let named = |faults: hive_domain::violation::Violations| {
        faults.into_iter().map(|fault| fault.field).collect()
    };
    fields.finish().map(|()| spec).map_err(named)
}

fn full_task() -> Value {
    json!({
        "id": "b", "type": "backend", "group": "g", "dependencies": ["a"],
        "payload": {"n": 1}, "required_capabilities": ["rust"], "timeout_seconds": 1.5,
        "queue_timeout_seconds": 2, "retry": {"max_attempts": 2}, "on_failure": "continue",
        "condition": "inputs.a == 1", "quorum": 1, "message_type": "m", "from_agent": "f",
        "priority": "high", "completion": "signal",
    })
}

#[test]
fn every_field_of_a_workflow_is_read() {
    let spec = read(&json!({
        "workflow_id": "w", "tasks": [{"id": "a", "task_type": "qa"}, full_task()],
        "dependency_mode": "best_effort", "strategy": "sequential", "max_parallel_tasks": 2,
        "deadline_seconds": 60, "labels": {"team": "a"}, "on_failure": "pause", "open": true,
    }))
    .unwrap();
    assert_eq!(spec.workflow_id, "w");
    assert_eq!(spec.dependency_mode(), wire::DependencyMode::BestEffort);
    assert_eq!(spec.strategy(), wire::WorkflowStrategy::Sequential);
    assert_eq!((spec.max_parallel_tasks, spec.open), (2, true));
    assert_eq!(spec.deadline.unwrap().seconds, 60);
    assert_eq!(spec.labels["team"], "a");
    assert_eq!(spec.on_failure(), wire::FailurePolicy::Pause);
    let [a, b] = spec.tasks.try_into().unwrap();
    assert_eq!((&*a.id, &*a.r#type), ("a", "qa"));
    assert_eq!((a.priority, a.completion, a.payload.len()), (None, 0, 0));
    assert_eq!((b.priority, &*b.quorum), (Some(7), "1"));
    assert_eq!(b.payload, r#"{"n":1}"#);
    assert_eq!(b.timeout.unwrap().nanos, 500_000_000);
    assert_eq!(b.completion(), wire::TaskCompletion::Signal);
    assert_eq!(b.on_failure(), wire::FailurePolicy::Continue);
    assert_eq!(b.retry.unwrap().max_attempts, Some(2));
    assert_eq!(b.required_capabilities, ["rust"]);
}

#[test]
fn faults_of_the_form_and_of_the_graph_come_together() {
    let faults = read(&json!({
        "workflow_id": "w", "nonsense": 1, "strategy": "best",
        "tasks": [
            {"id": "a", "type": "qa", "task_type": "qa", "priority": 10},
            {"id": "b", "type": "qa", "dependencies": ["x"], "quorum": [], "timeout_seconds": -1},
            7,
        ],
    }))
    .unwrap_err();
    assert_eq!(
        faults,
        [
            "nonsense",
            "tasks[0].task_type",
            "tasks[0].priority",
            "tasks[1].timeout_seconds",
            "tasks[1].quorum",
            "tasks[2]",
            "strategy",
            "tasks[2].id",
            "tasks[2].type",
            "tasks[1].dependencies[0]",
        ]
    );
}

#[test]
fn tasks_of_the_guide_count_priorities_from_one_and_are_completed_by_a_signal() {
    let body = json!({ "workflow_id": "w", "tasks": [
        {"id": "a", "type": "architecture", "dependencies": [], "priority": 8},
        {"id": "b", "type": "backend", "priority": "urgent", "completion": "ack"},
        {"id": "c", "type": "backend"},
        {"id": "d", "type": "backend", "priority": 0},
        {"id": "e", "type": "backend", "priority": 11},
    ] });
    let mut fields = Fields::of(&raw(&body), &GUIDE_WORKFLOW, "");
    let spec = read_workflow(&mut fields, (Manner::Guide, &GUIDE_TASK), 1 << 20);
    let read: Vec<(Option<u32>, wire::TaskCompletion)> = spec
        .tasks
        .iter()
        .map(|task| (task.priority, task.completion()))
        .collect();
    use wire::TaskCompletion::{Ack, Signal};
    assert_eq!(
        read,
        [
            (Some(7), Signal),
            (Some(9), Ack),
            (None, Signal),
            (None, Signal),
            (None, Signal)
        ]
    );
    let faults = fields.finish().unwrap_err().into_vec();
    let fields: Vec<&str> = faults.iter().map(|fault| &*fault.field).collect();
    assert_eq!(fields, ["tasks[3].priority", "tasks[4].priority"]);
}

#[test]
fn the_words_of_the_shapes_are_those_of_the_domain() {
    let words = |all: Vec<&'static str>| all;
    assert_eq!(
        MODES,
        words(DependencyMode::ALL.iter().map(|one| one.as_str()).collect())
    );
    assert_eq!(
        STRATEGIES,
        words(Strategy::ALL.iter().map(|one| one.as_str()).collect())
    );
    assert_eq!(
        POLICIES,
        words(FailurePolicy::ALL.iter().map(|one| one.as_str()).collect())
    );
    assert_eq!(
        COMPLETIONS,
        words(Completion::ALL.iter().map(|one| one.as_str()).collect())
    );
    assert_eq!(STATES, RunStatus::ALL.map(RunStatus::as_str));
    assert_eq!(TASK_STATES[..11], TaskStatus::ALL.map(TaskStatus::as_str));
}

fn time(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

fn task(id: &str, state: wire::TaskState) -> wire::Task {
    wire::Task {
        id: id.to_owned(),
        r#type: "backend".to_owned(),
        group: "g".to_owned(),
        dependencies: vec!["x".to_owned()],
        state: state.into(),
        attempt: 1,
        deliveries: 1,
        consumer: "agent-1".to_owned(),
        started_at: time(1),
        finished_at: time(2),
        reason: "because".to_owned(),
        has_result: true,
        result: r#"{"ok":true}"#.into(),
        ..wire::Task::default()
    }
}

#[test]
fn a_run_is_shown_as_its_shape_says() {
    let run = wire::Workflow {
        workflow_id: "w".to_owned(),
        run_id: "r".to_owned(),
        state: wire::WorkflowState::Failed.into(),
        reason: "a task failed".to_owned(),
        created_at: time(0),
        finished_at: time(3),
        deadline_at: time(9),
        tasks: vec![
            task("a", wire::TaskState::Failed),
            task("b", wire::TaskState::WaitingInput),
        ],
        event_id: "7".to_owned(),
        ..wire::Workflow::default()
    };
    let shown = serde_json::to_value(WorkflowOut::whole(run.clone())).unwrap();
    assert_eq!(misfits(&shown, &WORKFLOW), Vec::<String>::new());
    assert_eq!(shown["state"], "failed");
    let [failed, waiting] = [&shown["tasks"][0], &shown["tasks"][1]];
    assert_eq!(misfits(failed, &TASK_SHOWN), ["reason", "result_base64"]);
    assert_eq!(misfits(waiting, &TASK_SHOWN), ["error", "result_base64"]);
    assert_eq!(failed["error"], "because");
    assert_eq!(failed["result"], json!({ "ok": true }));
    assert_eq!(waiting["reason"], "because");
    let listed = serde_json::to_value(WorkflowOut::listed(run)).unwrap();
    assert_eq!(misfits(&listed, &WORKFLOW), ["tasks"]);
}

#[test]
fn an_event_and_a_submit_are_shown_as_their_shapes_say() {
    let event = wire::WorkflowEvent {
        event_id: "1-0".to_owned(),
        time: time(1),
        task_id: "a".to_owned(),
        what: "running".to_owned(),
        attempt: 1,
        reason: "r".to_owned(),
        consumer: "c".to_owned(),
    };
    let shown = serde_json::to_value(EventOut::from(event)).unwrap();
    assert_eq!(misfits(&shown, &EVENT), Vec::<String>::new());
    let answer = submitted(&wire::SubmitWorkflowResponse {
        routed_tasks: vec!["a".to_owned()],
        waiting_tasks: 2,
        ..wire::SubmitWorkflowResponse::default()
    });
    assert_eq!(misfits(&answer, &SUBMITTED), Vec::<String>::new());
    assert_eq!(answer["workflow_routing"]["tasks_waiting"], 2);
}
