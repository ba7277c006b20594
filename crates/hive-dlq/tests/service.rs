//! The daemon in process: what it answers without Redis, how it ends, and its configuration.

use std::fs;
use std::time::Duration;

use hive_dlq::settings::{DeadLetters, Policies};
use hive_domain::dead_letter::{Category, Strategy};
use hive_protocol::wire::{self, dead_letter_service_client::DeadLetterServiceClient};
use hive_runtime::config::{Config, Inputs, check_reference, reference, specs};
use hive_runtime::tasks::SERVER;
use hive_runtime::{Chassis, Daemon};
use tonic::Code;

#[tokio::test]
async fn a_call_without_redis_is_refused_as_one_to_repeat_and_the_stop_ends_everything() {
    let daemon = hive_dlq::DAEMON;
    let inputs = Inputs {
        env: [(
            "HIVE_REDIS_URL".to_owned(),
            "redis+unix:///nowhere/redis.sock".to_owned(),
        )]
        .into(),
        ..Inputs::default()
    };
    let config = Config::<DeadLetters>::resolve("127.0.0.1:0", &inputs).unwrap();
    let (config, chassis) = Chassis::detached(config, daemon.metrics).await.unwrap();
    let (tasks, shutdown) = (chassis.tasks.clone(), chassis.shutdown.clone());
    let url = format!("http://{}", config.server.advertise);
    tasks.spawn(SERVER, "dlq", hive_dlq::serve(config, chassis));

    let mut client = DeadLetterServiceClient::connect(url).await.unwrap();
    let request = wire::GetDeadLetterRequest {
        dlq_id: "a".to_owned(),
    };
    let refused = client.get_dead_letter(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    drop(client);
    let late = Chassis::close(&shutdown, &tasks, Duration::from_secs(10)).await;
    assert!(late.is_empty(), "{late:?}");
}

/// With `UPDATE_REFERENCE` in the environment the file is written anew.
#[test]
fn the_reference_file_shows_every_key_with_its_default() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/config/dlq.toml");
    let Daemon { name, listen, .. } = hive_dlq::DAEMON;
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(path, reference(name, &specs::<DeadLetters>(listen))).unwrap();
    }
    let text = fs::read_to_string(path).unwrap();
    assert_eq!(check_reference::<DeadLetters>(name, listen, &text), Ok(()));
}

#[test]
fn a_policy_names_all_that_is_wrong_with_it() {
    let good = Policies::parse(
        r#"
        pause_groups = true
        [recovery]
        max_auto_replays = 1
        strategies = { timeout = "manual_intervention" }
        [breaker]
        min_dead = 5
        [[rule]]
        name = "crm"
        category = "dependency_failure"
        any_of = ["crm is closed"]
        "#,
    );
    let good = good.unwrap();
    assert!(good.pause_groups);
    let strategy = |category| good.recovery.strategy(category);
    assert_eq!(strategy(Category::Timeout), Strategy::ManualIntervention);
    // What it does not name stays as it is.
    assert_eq!(strategy(Category::RateLimited), Strategy::DelayedRetry);
    let wrong = Policies::parse(
        r#"
        [recovery]
        batch = 0
        strategies = { validation_error = "delayed_retry" }
        [breaker]
        min_dead = 0
        "#,
    );
    let said = wrong.unwrap_err();
    for field in [
        "recovery.batch",
        "strategies.validation_error",
        "breaker.min_dead",
    ] {
        assert!(said.contains(field), "{field}: {said}");
    }
    for text in ["[recovery]\nbach = 1", "[nothing]", "pause_groups = 3"] {
        assert!(Policies::parse(text).is_err(), "{text}");
    }
}
