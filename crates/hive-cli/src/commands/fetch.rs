//! `hive fetch`: leases messages to a consumer, for a shell script or a person to work on.
//!
//! Each delivery is printed with its lease, which `hive settle` takes. Nothing keeps the lease
//! alive meanwhile: `hive work` does, this does not.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use hive_protocol::wire;
use prost::Message as _;
use serde::Serialize;

use crate::{
    connection::{Common, refused},
    exit::Exit,
    message::MessageView,
    output::Show,
    values::{cut, duration, rfc3339, text_of, wire_duration},
};

/// Longest payload in a cell of the table, in characters.
const CELL_CHARACTERS_MAX: usize = 40;

/// What to lease, and for whom.
#[derive(Args, Debug)]
pub(crate) struct FetchArgs {
    /// The group.
    #[arg(long, short)]
    group: String,
    /// Id of the consumer; an unknown one is registered.
    #[arg(long, short)]
    consumer: String,
    /// Most messages to lease, 1 to 1000.
    #[arg(long, short = 'n', default_value_t = 1)]
    max_messages: u32,
    /// How long to wait for the first message, up to 30s.
    #[arg(long, short, value_parser = duration, default_value = "0")]
    wait: Duration,
    /// What the consumer can do, with commas between.
    #[arg(long, value_delimiter = ',')]
    capabilities: Vec<String>,
    /// The same id repeats the same answer while its leases live.
    #[arg(long, default_value = "")]
    request_id: String,
}

/// A delivery as it is printed.
#[derive(Debug, Serialize)]
struct DeliveryView {
    lease: String,
    attempt: u32,
    lease_expires_at: Option<String>,
    message: MessageView,
    #[serde(skip)]
    payload: String,
}

impl Show for DeliveryView {
    const COLUMNS: &'static [&'static str] = &[
        "LEASE", "EXPIRES", "ATTEMPT", "MESSAGE", "TYPE", "PRIORITY", "PAYLOAD",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.lease.clone(),
            self.lease_expires_at.clone().unwrap_or_default(),
            self.attempt.to_string(),
            self.message.message_id.clone(),
            self.message.message_type.clone(),
            self.message.priority.to_string(),
            cut(&self.payload, CELL_CHARACTERS_MAX),
        ]
    }
}

/// Leases messages and prints them.
///
/// # Errors
/// When no gateway answers, it refuses, or a stored message does not decode.
pub(crate) async fn run(args: FetchArgs, common: &Common) -> anyhow::Result<Exit> {
    let fetch = wire::FetchRequest {
        group: args.group,
        consumer_id: args.consumer,
        max_messages: args.max_messages,
        wait: wire_duration(args.wait),
        capabilities: args.capabilities,
        request_id: args.request_id,
    };
    let answer = common.client()?.fetch(fetch).await.map_err(refused)?;
    let views = answer.deliveries.into_iter().map(view);
    common
        .out()
        .list(&views.collect::<anyhow::Result<Vec<_>>>()?)?;
    Ok(Exit::Done)
}

/// A delivery with its message decoded.
fn view(delivery: wire::Delivery) -> anyhow::Result<DeliveryView> {
    let message = wire::Message::decode(delivery.message)
        .with_context(|| format!("the message of lease `{}` does not decode", delivery.lease))?;
    Ok(DeliveryView {
        lease: delivery.lease,
        attempt: delivery.attempt,
        lease_expires_at: rfc3339(delivery.lease_expires_at.as_ref()),
        payload: text_of(&message.payload),
        message: message.into(),
    })
}
