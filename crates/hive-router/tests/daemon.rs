//! The real binary from its flags to its exit code: what every daemon owes to its chassis.

#[path = "daemon/process.rs"]
mod process;

use std::fs;
use std::time::Duration;

use hive_protocol::wire;
use hive_router::settings::Workflows;
use hive_runtime::Daemon;
use hive_runtime::config::{check_reference, reference, specs};
use process::{Process, run_to_end};
use prost::Message as _;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

async fn channel(process: &Process) -> Channel {
    Channel::from_shared(format!("http://{}", process.listen))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

#[test]
fn a_daemon_on_port_0_says_where_it_is_and_is_live_and_ready() {
    let process = Process::start(&[], &[]);
    assert_ne!(process.listen.port(), 0);
    assert_ne!(process.admin.port(), 0);
    assert_eq!(process.get("/livez").status, 200);
    let ready = process.get("/readyz");
    assert_eq!(ready.status, 200, "{}", ready.body);
    assert_eq!(
        ready.body,
        r#"{"components":{"redis":null,"server":null},"ready":true}"#
    );
}

#[test]
fn metrics_hold_every_declared_name() {
    let process = Process::start(&[], &[]);
    let body = process.get("/metrics").body;
    let tables = [
        hive_runtime::metrics::chassis::TABLE,
        hive_router::metrics::TABLE,
    ];
    for def in tables.into_iter().flatten() {
        assert!(
            body.contains(&format!("# HELP {} ", def.name)),
            "{} in\n{body}",
            def.name
        );
        assert!(
            body.contains(&format!("\n{}", def.name)),
            "{} in\n{body}",
            def.name
        );
    }
    let build = format!(
        "hive_build_info{{daemon=\"hive-router\",version=\"{}\"}} 1\n",
        env!("CARGO_PKG_VERSION")
    );
    assert!(body.contains(&build), "{body}");
    assert!(body.contains("hive_ready 1\n"), "{body}");
    assert!(
        body.contains("hive_tasks_running{kind=\"server\"} 1\n"),
        "{body}"
    );
}

#[test]
fn the_configuration_and_the_tasks_are_shown() {
    let process = Process::start(&["--log", "debug"], &[("HIVE_SERVER_GRACE", "7s")]);
    let config = process.get("/config").body;
    assert!(config.contains("filter = \"debug\"  # flag\n"), "{config}");
    assert!(
        config.contains("grace = \"7s\"  # environment HIVE_SERVER_GRACE\n"),
        "{config}"
    );
    let tasks = process.get("/tasks").body;
    assert!(
        tasks.contains(r#""name":"readiness","kind":"background""#),
        "{tasks}"
    );
}

#[test]
fn the_log_filter_changes_while_the_daemon_runs() {
    let process = Process::start(&[], &[]);
    let set = process.put("/log", "hive_runtime=debug,warn");
    assert_eq!(
        (set.status, set.body.as_str()),
        (200, "hive_runtime=debug,warn\n")
    );
    let refused = process.put("/log", "hive_runtime=loudest");
    assert_eq!(refused.status, 400);
    assert!(
        refused
            .body
            .starts_with("log filter `hive_runtime=loudest` must be"),
        "{refused:?}"
    );
}

#[test]
fn sigterm_and_sigint_each_end_an_idle_daemon_with_0() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let process = Process::start(&[], &[]);
        process.signal(signal);
        assert_eq!(process.exit_code(), Some(0));
    }
}

#[test]
fn a_daemon_whose_parent_is_another_process_than_announced_ends() {
    let ended = run_to_end(&["--listen", "127.0.0.1:0"], &[("HIVE_PARENT_PID", "1")]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[test]
fn a_flag_that_does_not_exist_exits_64() {
    let ended = run_to_end(&["--port", "8000"], &[]);
    assert_eq!(ended.code, Some(64));
    assert!(ended.stderr.contains("--port"), "{}", ended.stderr);
}

#[test]
fn help_and_version_exit_0() {
    assert_eq!(run_to_end(&["--help"], &[]).code, Some(0));
    let version = run_to_end(&["--version"], &[]);
    assert_eq!(
        version.stdout,
        format!("hive-router {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn a_wrong_configuration_exits_78_with_every_problem() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("router.toml");
    fs::write(
        &file,
        "[server]\ngrace = \"soon\"\nport = 1\n[redis]\nprefix = \"A B\"\n",
    )
    .unwrap();
    let file = file.display().to_string();
    let env = [
        ("HIVE_LOG_FORMAT", "xml"),
        ("HIVE_REDIS_URL", "redis://:hunter2@db"),
    ];
    for extra in [&[][..], &["--check-config"][..]] {
        let args: Vec<_> = ["--config", &file].iter().chain(extra).copied().collect();
        let ended = run_to_end(&args, &env);
        assert_eq!(ended.code, Some(78));
        assert!(
            ended.stderr.starts_with("hive-router: 5 problems"),
            "{}",
            ended.stderr
        );
        for key in [
            "server.grace",
            "server.port",
            "redis.prefix",
            "redis.url",
            "log.format",
        ] {
            assert!(
                ended.stderr.contains(&format!("`{key}`")),
                "{key} in\n{}",
                ended.stderr
            );
        }
        assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    }
}

#[test]
fn a_configuration_file_that_is_missing_exits_78() {
    let ended = run_to_end(&["--config", "/nowhere/router.toml"], &[]);
    assert_eq!(ended.code, Some(78));
    assert!(
        ended
            .stderr
            .contains("`/nowhere/router.toml` cannot be read"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_right_configuration_is_checked_and_printed_with_0() {
    assert_eq!(
        run_to_end(&["--check-config"], &[]).stdout,
        "the configuration is valid\n"
    );
    let printed = run_to_end(&["--print-config", "--listen", "127.0.0.1:0"], &[]);
    assert_eq!(printed.code, Some(0));
    assert!(
        printed
            .stdout
            .contains("listen = \"127.0.0.1:0\"  # flag\n"),
        "{}",
        printed.stdout
    );
    assert!(
        printed.stdout.contains("prefix = \"hive\"  # default\n"),
        "{}",
        printed.stdout
    );
}

#[test]
fn an_address_that_others_reach_is_refused() {
    let ended = run_to_end(&["--listen", "192.0.2.1:8002"], &[]);
    assert_eq!(ended.code, Some(78));
    assert!(
        ended
            .stderr
            .contains("`server.allow_unauthenticated` is true"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_port_that_is_taken_exits_1_and_names_it() {
    let process = Process::start(&[], &[]);
    let ended = run_to_end(&["--listen", &process.listen.to_string()], &[]);
    assert_eq!(ended.code, Some(1));
    let named = format!(
        "`server.listen` = `{}` cannot be listened on",
        process.listen
    );
    assert!(ended.stderr.contains(&named), "{}", ended.stderr);
}

#[tokio::test]
async fn the_health_service_says_serving_until_the_drain() {
    let process = Process::start(&[], &[]);
    let mut client = HealthClient::new(channel(&process).await);
    let request = HealthCheckRequest {
        service: String::new(),
    };
    let mut statuses = client.watch(request).await.unwrap().into_inner();
    let first = statuses.next().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    process.signal(rustix::process::Signal::TERM);
    let second = tokio::time::timeout(Duration::from_secs(10), statuses.next()).await;
    assert_eq!(
        second.unwrap().unwrap().unwrap().status(),
        ServingStatus::NotServing
    );
    assert_eq!(process.exit_code(), Some(0));
}

#[tokio::test]
async fn reflection_lists_what_is_served_and_knows_the_contract() {
    let process = Process::start(&[], &[]);
    let mut client = ServerReflectionClient::new(channel(&process).await);
    let ask = |request| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(request),
    };
    let requests = tokio_stream::iter([ask(MessageRequest::FileContainingSymbol(
        "agenthive.v1.MessagingService".to_owned(),
    ))]);
    let mut answers = client
        .server_reflection_info(requests)
        .await
        .unwrap()
        .into_inner();
    let answer = answers
        .next()
        .await
        .unwrap()
        .unwrap()
        .message_response
        .unwrap();
    let MessageResponse::FileDescriptorResponse(files) = answer else {
        unreachable!("asked for a file and got {answer:?}");
    };
    let known = prost_types::FileDescriptorSet::decode(wire::DESCRIPTORS).unwrap();
    let file = prost_types::FileDescriptorProto::decode(&*files.file_descriptor_proto[0]).unwrap();
    assert!(known.file.contains(&file));
}

#[tokio::test]
async fn a_second_signal_ends_a_daemon_that_still_drains() {
    let process = Process::start(&[], &[]);
    let mut client = HealthClient::new(channel(&process).await);
    let request = HealthCheckRequest {
        service: String::new(),
    };
    let mut statuses = client.watch(request).await.unwrap().into_inner();
    statuses.next().await.unwrap().unwrap();
    process.signal(rustix::process::Signal::TERM);
    statuses.next().await.unwrap().unwrap();
    process.signal(rustix::process::Signal::TERM);
    assert_eq!(process.exit_code(), Some(0));
    assert!(process.log().contains("second_signal"), "{}", process.log());
}

/// With `UPDATE_REFERENCE` in the environment the file is written anew.
#[test]
fn the_reference_file_shows_every_key_with_its_default() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../deploy/config/router.toml"
    );
    let Daemon { name, listen, .. } = hive_router::DAEMON;
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(path, reference(name, &specs::<Workflows>(listen))).unwrap();
    }
    let text = fs::read_to_string(path).unwrap();
    assert_eq!(check_reference::<Workflows>(name, listen, &text), Ok(()));
}
