//! `hive message`: where a tracked message stands, and its cancellation.

use std::time::Duration;

use clap::Subcommand;
use hive_client::Client;
use hive_protocol::{wire, words::tracked_state};
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    connection::{Common, refused},
    exit::Exit,
    output::Output,
    values::{duration, rfc3339, text_of, wire_duration},
};

/// Longest wait of one call; a longer one is several.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// What to do with tracked messages.
#[derive(Subcommand, Debug)]
pub(crate) enum MessageCommand {
    /// Shows where a message stands that was published with --track.
    Get {
        /// Id of the message.
        message_id: String,
        /// The group that it was published to; it is found sooner so.
        #[arg(long, short, default_value = "")]
        group: String,
        /// Wait for its end for this long.
        #[arg(long, value_parser = duration)]
        wait: Option<Duration>,
    },
    /// Ends one that is not settled: it is not delivered any more.
    Cancel {
        /// Id of the message.
        message_id: String,
        /// The group that it was published to; it is found sooner so.
        #[arg(long, short, default_value = "")]
        group: String,
        /// Why, for people.
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// A tracked message as it is printed: the names of the REST API.
#[derive(Debug, Serialize)]
pub(crate) struct TrackedView {
    message_id: String,
    state: &'static str,
    attempts: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    consumer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_base64: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    #[serde(skip)]
    given: String,
    #[serde(skip)]
    is_acked: bool,
}

/// Runs one message command.
///
/// # Errors
/// When no gateway answers, or it refuses.
pub(crate) async fn run(command: MessageCommand, common: &Common) -> anyhow::Result<Exit> {
    let (client, out) = (common.client()?, common.out());
    match command {
        MessageCommand::Get {
            message_id,
            group,
            wait,
        } => {
            let wait = wait.unwrap_or_default();
            let view = waited(&client, &message_id, &group, wait).await?;
            out.item(&view)?;
        },
        MessageCommand::Cancel {
            message_id,
            group,
            reason,
        } => {
            let cancel = wire::CancelMessageRequest {
                message_id,
                group,
                reason,
            };
            let answer = client.cancel_message(cancel).await.map_err(refused)?;
            let view = TrackedView::from(answer.message.unwrap_or_default());
            out.done(&format!("cancelled `{}`", view.message_id), &view)?;
        },
    }
    Ok(Exit::Done)
}

/// Where a message stands once it has ended, or after this long.
///
/// # Errors
/// When no gateway answers, or it refuses.
pub(crate) async fn waited(
    client: &Client,
    message_id: &str,
    group: &str,
    wait: Duration,
) -> anyhow::Result<TrackedView> {
    let deadline = Instant::now() + wait;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let get = wire::GetMessageRequest {
            message_id: message_id.to_owned(),
            group: group.to_owned(),
            wait: wire_duration(left.min(WAIT_MAX)),
        };
        let answer = client.get_message(get).await.map_err(refused)?;
        let message = answer.message.unwrap_or_default();
        if message.ended_at.is_some() || left.is_zero() {
            return Ok(message.into());
        }
    }
}

impl TrackedView {
    /// Prints what came out, for `hive publish --wait`; one that is not handled is a failure.
    pub(crate) fn print_result(&self, out: Output) -> anyhow::Result<Exit> {
        let text = match (self.is_acked, self.error.is_empty()) {
            (true, true) => self.given.clone(),
            (_, true) => format!("{} is {}", self.message_id, self.state),
            (_, false) => format!("{} is {}: {}", self.message_id, self.state, self.error),
        };
        out.done(&text, self)?;
        Ok(if self.is_acked {
            Exit::Done
        } else {
            Exit::Failed
        })
    }
}

impl From<wire::TrackedMessage> for TrackedView {
    fn from(message: wire::TrackedMessage) -> Self {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let state = message.state();
        let json = serde_json::from_slice::<Value>(&message.result).ok();
        let is_raw = json.is_none() && !message.result.is_empty();
        Self {
            state: tracked_state(state),
            is_acked: state == wire::TrackedState::Acked,
            given: text_of(&message.result),
            result: json,
            result_base64: is_raw.then(|| STANDARD.encode(&message.result)),
            message_id: message.message_id,
            attempts: message.attempts,
            consumer: message.consumer_id,
            error: message.error,
            ended_at: rfc3339(message.ended_at.as_ref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(state: wire::TrackedState, result: &'static [u8]) -> TrackedView {
        TrackedView::from(wire::TrackedMessage {
            message_id: "m".into(),
            state: state.into(),
            result: bytes::Bytes::from_static(result),
            ..wire::TrackedMessage::default()
        })
    }

    #[test]
    fn a_result_is_shown_as_json_where_it_is_json() {
        let shown = view(wire::TrackedState::Acked, b"{\"a\":1}");
        assert_eq!(shown.result, Some(serde_json::json!({ "a": 1 })));
        let shown = view(wire::TrackedState::Acked, b"plain");
        assert_eq!((shown.result, shown.given.as_str()), (None, "plain"));
        assert_eq!(shown.result_base64.as_deref(), Some("cGxhaW4="));
        let shown = view(wire::TrackedState::Dead, b"");
        assert_eq!((shown.result, shown.result_base64), (None, None));
    }
}
