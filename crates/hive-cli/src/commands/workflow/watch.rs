//! `hive workflow watch`: a line for each thing that happens in a run.
//!
//! Lines and no screen that is drawn anew, as with groups: what was stays to be read, and a pipe
//! takes it as it is. First a line for each task as it is, then one for each event.

use std::collections::BTreeMap;

use hive_client::{Client, wire, wire::watch_workflow_response::Frame};
use prost_types::Timestamp;
use serde::Serialize;

use super::views::{EventView, RunView, or_dash, short, state_word, task_word, took};
use crate::{
    connection::refused,
    exit::Exit,
    output::{Format, Output},
    values::{cut, rfc3339},
};

/// Columns and their widths; a longer cell pushes those behind it.
const COLUMNS: [(&str, usize); 7] = [
    ("TIME", 24),
    ("TASK", 20),
    ("STATE", 13),
    ("AGENT", 16),
    ("ATTEMPT", 7),
    ("TOOK", 6),
    ("REASON", 0),
];

/// Longest reason of a line, in characters.
const REASON_CHARS: usize = 100;

/// What stands where a line is about the run itself.
const RUN: &str = "(run)";

/// A frame in JSON.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Shown {
    Snapshot(Box<RunView>),
    Event(EventView),
}

/// Prints what happens until the run is over.
///
/// # Errors
/// When the watch is refused, or nobody answers.
pub(super) async fn run(
    client: &Client,
    workflow: &str,
    run_id: Option<&str>,
    out: Output,
) -> anyhow::Result<Exit> {
    let mut watch = client.watch_workflow(workflow);
    if let Some(run_id) = run_id {
        watch = watch.run(run_id);
    }
    let mut view = View::default();
    if out.format() == Format::Table {
        out.text(&line(&COLUMNS.map(|(title, _)| title.to_owned())))?;
    }
    while let Some(frame) = watch.next().await.map_err(refused)? {
        let lines = view.note(&frame);
        if out.format() == Format::Table {
            for cells in lines {
                out.text(&line(&cells))?;
            }
        } else {
            out.item(&match frame {
                Frame::Snapshot(run) => Shown::Snapshot(Box::new(run.into())),
                Frame::Event(event) => Shown::Event(event.into()),
            })?;
        }
    }
    Ok(view.exit())
}

/// What is known of a run so far.
#[derive(Default)]
struct View {
    state: String,
    started: BTreeMap<String, Timestamp>,
    agents: BTreeMap<String, String>,
}

impl View {
    /// Takes a frame in and answers its lines.
    fn note(&mut self, frame: &Frame) -> Vec<[String; 7]> {
        match frame {
            Frame::Snapshot(run) => self.snapshot(run),
            Frame::Event(event) => vec![self.event(event)],
        }
    }

    fn snapshot(&mut self, run: &wire::Workflow) -> Vec<[String; 7]> {
        state_word(run.state()).clone_into(&mut self.state);
        let mut lines = Vec::with_capacity(run.tasks.len() + 1);
        let time = rfc3339(run.created_at.as_ref()).unwrap_or_default();
        lines.push([
            time,
            RUN.to_owned(),
            self.state.clone(),
            or_dash(""),
            or_dash(""),
            took(run.created_at.as_ref(), run.finished_at.as_ref()).map_or(or_dash(""), short),
            cut(&run.reason, REASON_CHARS),
        ]);
        for task in &run.tasks {
            if let Some(started) = task.started_at {
                self.started.insert(task.id.clone(), started);
            }
            if !task.consumer.is_empty() {
                self.agents.insert(task.id.clone(), task.consumer.clone());
            }
            let last = task.finished_at.as_ref().or(task.started_at.as_ref());
            lines.push([
                rfc3339(last).unwrap_or_default(),
                task.id.clone(),
                task_word(task.state()).to_owned(),
                or_dash(&task.consumer),
                task.attempt.to_string(),
                took(task.started_at.as_ref(), task.finished_at.as_ref())
                    .map_or(or_dash(""), short),
                cut(&task.reason, REASON_CHARS),
            ]);
        }
        lines
    }

    fn event(&mut self, event: &wire::WorkflowEvent) -> [String; 7] {
        let time = rfc3339(event.time.as_ref()).unwrap_or_default();
        let reason = cut(&event.reason, REASON_CHARS);
        if event.task_id.is_empty() {
            let is_state = matches!(
                event.what.as_str(),
                "running" | "paused" | "succeeded" | "failed" | "cancelled"
            );
            if is_state {
                self.state.clone_from(&event.what);
            }
            let (what, none) = (event.what.clone(), or_dash(""));
            return [
                time,
                RUN.to_owned(),
                what,
                none.clone(),
                none.clone(),
                none,
                reason,
            ];
        }
        let task = &event.task_id;
        if !event.consumer.is_empty() {
            self.agents.insert(task.clone(), event.consumer.clone());
        }
        match event.what.as_str() {
            // Another attempt: what the one before took is told.
            "pending" | "queued" => {
                self.started.remove(task);
                self.agents.remove(task);
            },
            "running" => {
                if let Some(time) = event.time {
                    self.started.insert(task.clone(), time);
                }
            },
            _ => {},
        }
        let is_begun = event.what != "running";
        let since = self.started.get(task).filter(|_| is_begun);
        [
            time,
            task.clone(),
            event.what.clone(),
            or_dash(self.agents.get(task).map_or("", |agent| agent)),
            event.attempt.to_string(),
            took(since, event.time.as_ref()).map_or(or_dash(""), short),
            reason,
        ]
    }

    /// How the command ends: a run that did not succeed is a failure to scripts.
    fn exit(&self) -> Exit {
        if self.state == "succeeded" {
            Exit::Done
        } else {
            Exit::Failed
        }
    }
}

/// Cells in columns of fixed width.
fn line(cells: &[String; 7]) -> String {
    let cells = cells.iter().zip(COLUMNS);
    let padded = cells.map(|(cell, (_, width))| format!("{cell:<width$}"));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp { seconds, nanos: 0 })
    }

    fn event(task: &str, what: &str, seconds: i64) -> Frame {
        Frame::Event(wire::WorkflowEvent {
            time: at(seconds),
            task_id: task.to_owned(),
            what: what.to_owned(),
            attempt: 1,
            consumer: if what == "running" { "agent-1" } else { "" }.to_owned(),
            ..wire::WorkflowEvent::default()
        })
    }

    fn shown(view: &mut View, frame: &Frame) -> Vec<String> {
        view.note(frame).iter().map(line).collect()
    }

    #[test]
    fn a_task_is_followed_from_its_queue_to_its_end() {
        let mut view = View::default();
        let snapshot = Frame::Snapshot(wire::Workflow {
            state: wire::WorkflowState::Running.into(),
            created_at: at(0),
            finished_at: at(1),
            tasks: vec![wire::Task {
                id: "a".to_owned(),
                state: wire::TaskState::Queued.into(),
                attempt: 1,
                ..wire::Task::default()
            }],
            ..wire::Workflow::default()
        });
        let lines = shown(&mut view, &snapshot);
        assert_eq!(lines.len(), 2);
        assert!(lines[0].contains("(run)") && lines[1].contains("queued"));
        assert_eq!(view.exit(), Exit::Failed);
        let lines = shown(&mut view, &event("a", "running", 10));
        assert!(lines[0].contains("agent-1"), "{lines:?}");
        let lines = shown(&mut view, &event("a", "succeeded", 25));
        assert!(
            lines[0].contains("agent-1") && lines[0].contains("15s"),
            "{lines:?}"
        );
        shown(&mut view, &event("", "succeeded", 26));
        assert_eq!(view.exit(), Exit::Done);
    }

    #[test]
    fn events_stand_below_their_titles() {
        let titles = line(&COLUMNS.map(|(title, _)| title.to_owned()));
        let mut view = View::default();
        let cells = shown(&mut view, &event("a", "running", 10));
        let column = titles.find("AGENT").unwrap();
        assert!(cells[0].get(column..).unwrap().starts_with("agent-1"));
    }
}
