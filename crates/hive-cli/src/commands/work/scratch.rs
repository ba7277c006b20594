//! What a task of a workflow gets besides its payload, in files that go with its run: the results
//! of the tasks before it, and the answer to a question that it asked. Variables could not hold it.

use std::{fs, io};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hive_client::wire;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// The files of one run of a program; they go when this is dropped.
#[derive(Debug)]
pub(super) struct Scratch {
    folder: TempDir,
    has_inputs: bool,
    has_answer: bool,
}

const INPUTS: &str = "inputs.json";
const ANSWER: &str = "answer.json";

impl Scratch {
    /// Writes the files that this message calls for; none where it is no task of a workflow.
    pub(super) fn of(message: &wire::Message) -> io::Result<Option<Self>> {
        if message.inputs.is_empty() && message.resumption.is_none() {
            return Ok(None);
        }
        let folder = tempfile::Builder::new().prefix("hive-work-").tempdir()?;
        let write =
            |name: &str, value: &Value| fs::write(folder.path().join(name), value.to_string());
        if !message.inputs.is_empty() {
            write(INPUTS, &inputs(message))?;
        }
        if let Some(resumption) = &message.resumption {
            write(ANSWER, &answer(resumption))?;
        }
        Ok(Some(Self {
            has_inputs: !message.inputs.is_empty(),
            has_answer: message.resumption.is_some(),
            folder,
        }))
    }

    /// Path of the results of the tasks before it; empty where there are none.
    pub(super) fn inputs(&self) -> String {
        self.path(INPUTS, self.has_inputs)
    }

    /// Path of the answer; empty where nothing was asked.
    pub(super) fn answer(&self) -> String {
        self.path(ANSWER, self.has_answer)
    }

    fn path(&self, name: &str, is_there: bool) -> String {
        if is_there {
            self.folder.path().join(name).display().to_string()
        } else {
            String::new()
        }
    }
}

fn inputs(message: &wire::Message) -> Value {
    let inputs = message.inputs.iter().map(|(id, input)| {
        let mut shown = Map::new();
        shown.insert("state".to_owned(), json!(input.state));
        if input.result_omitted {
            shown.insert("result_omitted".to_owned(), json!(true));
        } else if !input.result.is_empty() {
            put(&mut shown, "result", &input.result);
        }
        if !input.error.is_empty() {
            shown.insert("error".to_owned(), json!(input.error));
        }
        (id.clone(), Value::Object(shown))
    });
    Value::Object(inputs.collect())
}

fn answer(resumption: &wire::Resumption) -> Value {
    let mut shown = Map::new();
    shown.insert("prompt".to_owned(), json!(resumption.prompt));
    put(&mut shown, "state", &resumption.state);
    put(&mut shown, "input", &resumption.input);
    Value::Object(shown)
}

/// Puts bytes in as JSON where they are JSON, else as base64.
fn put(into: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match serde_json::from_slice(bytes) {
        Ok(value) => into.insert(name.to_owned(), value),
        Err(_) if bytes.is_empty() => None,
        Err(_) => into.insert(format!("{name}_base64"), json!(STANDARD.encode(bytes))),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_no_task_has_no_files() {
        assert!(Scratch::of(&wire::Message::default()).unwrap().is_none());
    }

    #[test]
    fn inputs_and_answers_are_json_for_any_program() {
        let input = |result: &'static [u8]| wire::TaskInput {
            result: result.into(),
            state: "succeeded".to_owned(),
            ..wire::TaskInput::default()
        };
        let message = wire::Message {
            inputs: [
                ("json".to_owned(), input(b"{\"a\":1}")),
                ("bytes".to_owned(), input(&[0xff])),
            ]
            .into(),
            resumption: Some(wire::Resumption {
                prompt: "which?".to_owned(),
                state: "half".into(),
                input: "\"blue\"".into(),
            }),
            ..wire::Message::default()
        };
        let scratch = Scratch::of(&message).unwrap().unwrap();
        let read = |path: String| {
            serde_json::from_str::<Value>(&fs::read_to_string(path).unwrap()).unwrap()
        };
        assert_eq!(
            read(scratch.inputs()),
            json!({
                "json": { "state": "succeeded", "result": { "a": 1 } },
                "bytes": { "state": "succeeded", "result_base64": "/w==" },
            })
        );
        assert_eq!(
            read(scratch.answer()),
            json!({ "prompt": "which?", "state_base64": "aGFsZg==", "input": "blue" })
        );
    }
}
