//! Publishes a few messages to a group and prints their receipts.
//!
//! Usage: `cargo run -p hive-client --example publish -- GROUP [URL[,URL...]]`

use std::error::Error;

use hive_client::{Client, Publisher, Target, message};

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example speaks to a person")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let group = args.next().ok_or("usage: publish GROUP [URL[,URL...]]")?;
    let urls = args
        .next()
        .unwrap_or_else(|| "http://127.0.0.1:8000".to_owned());

    let publisher = Publisher::new(&Client::new(&urls)?, Target::group(group));
    let messages = (0..10).map(|number| message("greeting", format!(r#"{{"number": {number}}}"#)));
    for answer in publisher.publish_all(messages).await {
        match answer {
            Ok(receipt) => println!("accepted {}", receipt.message_id),
            Err(error) => println!("refused: {error}"),
        }
    }
    publisher.close().await;
    Ok(())
}
