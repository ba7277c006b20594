//! The daemon in process: what it answers as long as it has no service, and how it ends.

use std::fs;
use std::time::Duration;

use hive_runtime::config::{Config, Inputs, NoSettings, check_reference, reference, specs};
use hive_runtime::tasks::SERVER;
use hive_runtime::{Chassis, Daemon};
use tonic::Code;
use tonic::transport::Channel;

async fn refusal(channel: Channel) -> tonic::Status {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let path = "/agenthive.v1.DeadLetterService/ListDeadLetters"
        .parse()
        .unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    client
        .unary(tonic::Request::new(()), path, codec)
        .await
        .unwrap_err()
}

#[tokio::test]
async fn every_call_is_refused_with_the_reason_and_the_stop_ends_everything() {
    let daemon = hive_dlq::DAEMON;
    let config = Config::<NoSettings>::resolve("127.0.0.1:0", &Inputs::default()).unwrap();
    let (config, chassis) = Chassis::detached(config, daemon.metrics).await.unwrap();
    let (tasks, shutdown) = (chassis.tasks.clone(), chassis.shutdown.clone());
    let url = format!("http://{}", config.server.advertise);
    tasks.spawn(SERVER, "dlq", hive_dlq::serve(config, chassis));

    let refused = refusal(Channel::from_shared(url).unwrap().connect().await.unwrap()).await;
    assert_eq!(refused.code(), Code::Unimplemented);
    assert_eq!(refused.message(), "this build has no dead-letter service");
    let late = Chassis::close(&shutdown, &tasks, Duration::from_secs(10)).await;
    assert!(late.is_empty(), "{late:?}");
}

/// With `UPDATE_REFERENCE` in the environment the file is written anew.
#[test]
fn the_reference_file_shows_every_key_with_its_default() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/config/dlq.toml");
    let Daemon { name, listen, .. } = hive_dlq::DAEMON;
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(path, reference(name, &specs::<NoSettings>(listen))).unwrap();
    }
    let text = fs::read_to_string(path).unwrap();
    assert_eq!(check_reference::<NoSettings>(name, listen, &text), Ok(()));
}
