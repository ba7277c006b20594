//! `hive message`: asks what became of a tracked message.

use std::time::Duration;

use clap::Subcommand;
use hive_protocol::wire;
use serde::Serialize;

use crate::{
    connection::{Common, refused},
    exit::Exit,
    values::{duration, text_of, wire_duration},
};

/// What to do with messages.
#[derive(Subcommand, Debug)]
pub(crate) enum MessageCommand {
    /// Shows where a message that was published with --track is, or how it ended.
    Get {
        /// Id of the message.
        message_id: String,
        /// How long to wait for an outcome, up to 30s.
        #[arg(long, short, value_parser = duration, default_value = "0")]
        wait: Duration,
    },
}

/// A tracked message as it is printed.
#[derive(Debug, Serialize)]
struct TrackedView {
    message_id: String,
    state: String,
    attempts: u32,
    consumer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Runs one message command.
///
/// # Errors
/// When no gateway answers, or it refuses.
pub(crate) async fn run(command: MessageCommand, common: &Common) -> anyhow::Result<Exit> {
    let MessageCommand::Get { message_id, wait } = command;
    let get = wire::GetMessageRequest {
        message_id: message_id.clone(),
        wait: wire_duration(wait),
    };
    let answer = common.client()?.get_message(get).await.map_err(refused)?;
    let state = answer.state().as_str_name();
    common.out().item(&TrackedView {
        message_id,
        state: state.trim_start_matches("TRACKED_STATE_").to_lowercase(),
        attempts: answer.attempts,
        consumer: answer.consumer_id,
        result: Some(text_of(&answer.result)).filter(|text| !text.is_empty()),
        error: Some(answer.error).filter(|text| !text.is_empty()),
    })?;
    Ok(Exit::Done)
}
