//! The command line of workflows, and what it prints.

use clap::Parser;

use super::*;
use crate::output::Show as _;

#[derive(Parser, Debug)]
struct Line {
    #[command(subcommand)]
    command: WorkflowCommand,
}

fn parsed(line: &str) -> Result<WorkflowCommand, clap::Error> {
    let words = std::iter::once("workflow").chain(line.split(' '));
    Line::try_parse_from(words).map(|line| line.command)
}

#[test]
fn every_command_is_read() {
    for line in [
        "submit w.yaml --watch --id other",
        "submit -",
        "validate w.yaml",
        "ls --state failed --label team=a --label kind=b --limit 5 --cursor c",
        "get w --run r --results",
        "watch w",
        "graph w --mermaid",
        "graph --file w.yaml",
        "cancel w --reason enough",
        "pause w",
        "resume w",
        "close w",
        "retry w a --run r",
        "rerun w a",
        "input w a yes",
        "signal w a --result {}",
        "signal w a --fail broken",
        "signal w a",
        "explain w a",
        "history w --after 5-0 --limit 7",
        "rm w",
    ] {
        assert!(parsed(line).is_ok(), "{line}: {:?}", parsed(line));
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    for line in [
        "submit",
        "graph",
        "graph w --file f",
        "signal w a --result 1 --fail x",
        "ls --state done",
        "ls --label team",
        "input w a",
        "retry w",
    ] {
        assert!(parsed(line).is_err(), "{line}");
    }
}

#[test]
fn a_submit_says_what_became_of_the_tasks() {
    let mut run = Submitted {
        workflow_id: "w".to_owned(),
        run_id: "r".to_owned(),
        already: false,
        routed_tasks: vec!["a".to_owned()],
        waiting_tasks: 2,
    };
    assert_eq!(
        submitted_text(&run),
        "run `r` of `w`: handed out 1, waiting 2"
    );
    run.already = true;
    assert_eq!(submitted_text(&run), "`w` was submitted before: run `r`");
}

#[test]
fn a_run_is_shown_with_the_names_of_the_rest_api() {
    let run = wire::Workflow {
        workflow_id: "w".to_owned(),
        state: wire::WorkflowState::Succeeded.into(),
        task_counts: [("succeeded".to_owned(), 2), ("skipped".to_owned(), 1)].into(),
        tasks: vec![
            wire::Task {
                id: "a".to_owned(),
                state: wire::TaskState::Succeeded.into(),
                result: "{\"n\":1}".into(),
                ..wire::Task::default()
            },
            wire::Task {
                id: "b".to_owned(),
                state: wire::TaskState::TimedOut.into(),
                result: vec![0xff].into(),
                ..wire::Task::default()
            },
        ],
        ..wire::Workflow::default()
    };
    let json = serde_json::to_value(RunView::from(run.clone())).unwrap();
    assert_eq!(json["state"], "succeeded");
    assert_eq!(json["strategy"], "hybrid");
    assert_eq!(json["tasks"][0]["result"]["n"], 1);
    assert_eq!(json["tasks"][1]["state"], "timed_out");
    assert_eq!(json["tasks"][1]["result_base64"], "/w==");
    let row = RunRow::from(run).cells();
    assert_eq!(row.len(), RunRow::COLUMNS.len());
    assert_eq!(row[3], "2/3");
}

#[tokio::test]
async fn a_file_that_is_no_workflow_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.yaml");
    std::fs::write(&path, "workflow_id: w\ntasks: [{id: a, type: b}]").unwrap();
    let read = read_workflow(path.to_str().unwrap()).await.unwrap();
    assert_eq!(read.spec().tasks.len(), 1);
    std::fs::write(&path, "workflow_id: w\nnonsense: 1").unwrap();
    let fault = read_workflow(path.to_str().unwrap()).await.unwrap_err();
    assert!(fault.to_string().contains("nonsense"), "{fault}");
    assert_eq!(crate::exit::exit_of(&fault), Exit::Usage);
    let fault = read_workflow("/nowhere/w.yaml").await.unwrap_err();
    assert_eq!(crate::exit::exit_of(&fault), Exit::Usage);
}
