//! The Rust SDK for agents: publish messages, and work on those that others publish.
//!
//! A [`Client`] knows one or more gateways and goes to the next one when one does not answer. On
//! it stand a [`Publisher`] (batches, and retries that never publish twice) and a [`Worker`] (one
//! agent's membership in a group: leases, heartbeats, reconnects, outcomes).
//!
//! ```no_run
//! use hive_client::{Client, Job, Outcome, Publisher, Target, Worker, message};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new("http://127.0.0.1:8000,http://127.0.0.1:8001")?;
//!
//! let publisher = Publisher::new(&client, Target::group("reviewers"));
//! let receipt = publisher.publish(message("review", r#"{"pr": 7}"#)).await?;
//! println!("accepted as {}", receipt.message_id);
//!
//! let worker = Worker::builder(client, "reviewers", |job: Job| async move {
//!     Outcome::ack(format!("{} bytes read", job.message.payload.len()))
//! })
//! .concurrency(4)
//! .build();
//! worker.run().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Invariants
//! - A publisher never sends a lower sequence after a higher one, except when it sends its whole
//!   unanswered suffix again, in order.
//! - A worker never runs two handlers of one entry, and never settles what was taken from it.
//! - Every wait has a deadline and every queue a bound.
//! - What this crate starts ends with the value that started it.
//!
//! The wire contract behind it, for other languages, is `docs/protocol.md`.

#![warn(
    clippy::unwrap_used,
    clippy::get_unwrap,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::string_slice
)]

mod backoff;
mod client;
mod coordination;
mod dead_letters;
mod endpoints;
pub mod lease;
mod publisher;
mod worker;
mod workflows;

pub use hive_protocol::{
    fault::{Fault, FaultKind, Reason},
    wire,
};

pub use crate::{
    client::{
        CallError, Client, ClientBuilder, ClientError, Gateway, Namespaced, Repeat, Stub, Watch,
    },
    coordination::ScalingWatch,
    dead_letters::DeadLetters,
    endpoints::{Endpoints, EndpointsError},
    publisher::{Pending, PublishError, Publisher, PublisherBuilder, Receipt, Target},
    worker::{Ended, Event, Failure, Job, Outcome, Work, WorkError, Worker, WorkerBuilder},
    workflows::{ReadError, Task, Workflow, WorkflowWatch},
};

/// A message of this type with this payload; every other field is unset.
pub fn message(message_type: impl Into<String>, payload: impl Into<bytes::Bytes>) -> wire::Message {
    wire::Message {
        message_type: message_type.into(),
        payload: payload.into(),
        ..wire::Message::default()
    }
}
