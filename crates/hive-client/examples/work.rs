//! An agent: prints each message of a group and acknowledges it, until Ctrl-C.
//!
//! Usage: `cargo run -p hive-client --example work -- GROUP [URL[,URL...]]`

use std::error::Error;

use hive_client::{Client, Job, Outcome, Worker};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example speaks to a person")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let group = args.next().ok_or("usage: work GROUP [URL[,URL...]]")?;
    let urls = args
        .next()
        .unwrap_or_else(|| "http://127.0.0.1:8000".to_owned());

    let shutdown = CancellationToken::new();
    let mut signal = JoinSet::new();
    let pressed = shutdown.clone();
    signal.spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            pressed.cancel();
        }
    });

    let worker = Worker::builder(Client::new(&urls)?, group, greet)
        .concurrency(4)
        .wait_for_group(true)
        .shutdown(shutdown)
        .on_event(|event| println!("{event:?}"))
        .build();
    let ended = worker.run().await?;
    println!("handled {}", ended.handled);
    Ok(())
}

/// The work: any async function from a job to its outcome.
#[expect(clippy::print_stdout, reason = "an example speaks to a person")]
async fn greet(job: Job) -> Outcome {
    let text = String::from_utf8_lossy(&job.message.payload);
    println!(
        "{} (attempt {}): {text}",
        job.message.message_id, job.attempt
    );
    if text.is_empty() {
        return Outcome::reject("an empty greeting says nothing");
    }
    Outcome::ack("greeted")
}
