//! `hive consumer`: shows and removes the members of a group.

use clap::Subcommand;
use hive_protocol::wire;
use serde::Serialize;

use crate::{
    connection::{Common, refused},
    exit::Exit,
    output::Show,
    values::rfc3339,
};

/// What to do with consumers.
#[derive(Subcommand, Debug)]
pub(crate) enum ConsumerCommand {
    /// Lists the members of a group.
    Ls {
        /// The group.
        #[arg(long, short)]
        group: String,
    },
    /// Removes a member; what it holds is given back, uncounted.
    Rm {
        /// Id of the agent.
        consumer_id: String,
        /// The group.
        #[arg(long, short)]
        group: String,
    },
}

/// A member as it is printed.
#[derive(Debug, Serialize)]
struct ConsumerView {
    consumer_id: String,
    kind: String,
    capabilities: Vec<String>,
    concurrency: u32,
    in_flight: u64,
    gateway: String,
    last_seen: Option<String>,
}

impl Show for ConsumerView {
    const COLUMNS: &'static [&'static str] = &[
        "CONSUMER",
        "KIND",
        "IN FLIGHT",
        "CONCURRENCY",
        "CAPABILITIES",
        "GATEWAY",
        "LAST SEEN",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.consumer_id.clone(),
            self.kind.clone(),
            self.in_flight.to_string(),
            self.concurrency.to_string(),
            self.capabilities.join(","),
            self.gateway.clone(),
            self.last_seen.clone().unwrap_or_default(),
        ]
    }
}

/// What a removal did.
#[derive(Debug, Serialize)]
struct Removed {
    consumer_id: String,
    released: u64,
}

/// Runs one consumer command.
///
/// # Errors
/// When no gateway answers, or it refuses.
pub(crate) async fn run(command: ConsumerCommand, common: &Common) -> anyhow::Result<Exit> {
    let client = common.client()?;
    let out = common.out();
    match command {
        ConsumerCommand::Ls { group } => {
            let list = wire::ListConsumersRequest { group };
            let answer = client.list_consumers(list).await.map_err(refused)?;
            out.list(
                &answer
                    .consumers
                    .into_iter()
                    .map(ConsumerView::from)
                    .collect::<Vec<_>>(),
            )?;
        },
        ConsumerCommand::Rm { consumer_id, group } => {
            let remove = wire::RemoveConsumerRequest {
                group,
                consumer_id: consumer_id.clone(),
            };
            let released = client
                .remove_consumer(remove)
                .await
                .map_err(refused)?
                .released;
            let text = format!("removed `{consumer_id}`; {released} deliveries were given back");
            out.done(
                &text,
                &Removed {
                    consumer_id,
                    released,
                },
            )?;
        },
    }
    Ok(Exit::Done)
}

impl From<wire::Consumer> for ConsumerView {
    fn from(consumer: wire::Consumer) -> Self {
        let kind = consumer.kind().as_str_name();
        Self {
            kind: kind.trim_start_matches("CONSUMER_KIND_").to_lowercase(),
            consumer_id: consumer.consumer_id,
            capabilities: consumer.capabilities,
            concurrency: consumer.concurrency,
            in_flight: consumer.in_flight,
            gateway: consumer.gateway,
            last_seen: rfc3339(consumer.last_seen.as_ref()),
        }
    }
}
