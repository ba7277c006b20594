//! `hive peek`: looks at the unsettled messages of a group without taking any.

use clap::{Args, ValueEnum};
use hive_protocol::wire;
use serde::Serialize;

use crate::{
    connection::{Common, refused},
    exit::Exit,
    message::{DEFAULT_PRIORITY, MessageView},
    output::Show,
    values::{cut, seconds, short_seconds, text_of},
};

/// Most messages of one call.
const PAGE_MAX: u32 = 1000;

/// Longest payload in a cell of the table, in characters.
const CELL_CHARACTERS_MAX: usize = 48;

/// What to look at.
#[derive(Args, Debug)]
pub(crate) struct PeekArgs {
    /// The group.
    #[arg(long, short)]
    group: String,
    /// Only messages in this state.
    #[arg(long, value_enum)]
    state: Option<State>,
    /// Most messages to show.
    #[arg(long, short = 'n', default_value_t = 100)]
    limit: u32,
}

/// Where an unsettled message is.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum State {
    /// Accepted and never delivered.
    Waiting,
    /// Held by a consumer.
    Leased,
    /// Given back, to be delivered again as soon as somebody is free.
    Ready,
    /// Waiting out a backoff.
    Delayed,
    /// Waiting for another message with its ordering key.
    Parked,
    /// Published with a delay that is not over.
    Scheduled,
}

/// A message that was looked at, as it is printed.
#[derive(Debug, Serialize)]
struct PeekedView {
    state: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    consumer: String,
    deliveries: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_seconds: Option<f64>,
    message: MessageView,
    #[serde(skip)]
    payload: String,
}

impl Show for PeekedView {
    const COLUMNS: &'static [&'static str] = &[
        "MESSAGE",
        "TYPE",
        "PRIORITY",
        "STATE",
        "CONSUMER",
        "DELIVERIES",
        "IDLE",
        "PAYLOAD",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.message.message_id.clone(),
            self.message.message_type.clone(),
            self.message.priority.to_string(),
            self.state.clone(),
            self.consumer.clone(),
            self.deliveries.to_string(),
            self.idle_seconds.map(short_seconds).unwrap_or_default(),
            cut(&self.payload, CELL_CHARACTERS_MAX),
        ]
    }
}

/// Shows up to `limit` messages, page by page.
///
/// # Errors
/// When no gateway answers, or it refuses.
pub(crate) async fn run(args: PeekArgs, common: &Common) -> anyhow::Result<Exit> {
    let client = common.client()?;
    let mut seen = Vec::new();
    let mut cursor = String::new();
    let mut left = args.limit;
    while left > 0 {
        let page = wire::PeekMessagesRequest {
            group: args.group.clone(),
            state: wire_state(args.state).into(),
            limit: left.min(PAGE_MAX),
            cursor,
        };
        let answer = client.peek_messages(page).await.map_err(refused)?;
        left = left.saturating_sub(u32::try_from(answer.messages.len()).unwrap_or(u32::MAX));
        seen.extend(answer.messages.into_iter().map(PeekedView::from));
        cursor = answer.next_cursor;
        if cursor.is_empty() {
            break;
        }
    }
    common.out().list(&seen)?;
    Ok(Exit::Done)
}

/// The state on the wire.
fn wire_state(state: Option<State>) -> wire::MessageState {
    match state {
        None => wire::MessageState::Unspecified,
        Some(State::Waiting) => wire::MessageState::Waiting,
        Some(State::Leased) => wire::MessageState::Leased,
        Some(State::Ready) => wire::MessageState::Ready,
        Some(State::Delayed) => wire::MessageState::Delayed,
        Some(State::Parked) => wire::MessageState::Parked,
        Some(State::Scheduled) => wire::MessageState::Scheduled,
    }
}

impl From<wire::PeekedMessage> for PeekedView {
    fn from(peeked: wire::PeekedMessage) -> Self {
        let state = peeked.state().as_str_name();
        let mut message = peeked.message.unwrap_or_default();
        message.priority.get_or_insert(DEFAULT_PRIORITY);
        Self {
            state: state.trim_start_matches("MESSAGE_STATE_").to_lowercase(),
            consumer: peeked.consumer_id,
            deliveries: peeked.deliveries,
            idle_seconds: peeked.idle.as_ref().map(|idle| seconds(Some(idle))),
            payload: text_of(&message.payload),
            message: message.into(),
        }
    }
}
