//! A panic in a running daemon ends the process with exit code 70, whatever the panic hook of
//! the test harness would do. The daemon runs in a child process: this test program once more.

use std::env;
use std::io;
use std::process::{Command, ExitCode};

use hive_runtime::config::{Config, NoSettings};
use hive_runtime::tasks::BACKGROUND;
use hive_runtime::{Chassis, Daemon, run};

const DAEMON: Daemon = Daemon {
    name: "hive-example",
    version: "0",
    about: "Panics",
    listen: "127.0.0.1:0",
    metrics: &[],
};
const CHILD: &str = "EXAMPLE_DAEMON";

async fn serve(_config: Config<NoSettings>, chassis: Chassis) -> io::Result<()> {
    let is_whole = chassis.tasks.list().is_empty();
    chassis.tasks.spawn(BACKGROUND, "a", async move {
        assert!(is_whole, "the slot was empty");
    });
    chassis.shutdown.stopped().await;
    Ok(())
}

#[test]
fn the_daemon_that_panics() {
    if env::var_os(CHILD).is_some() {
        let exit = run(&DAEMON, std::iter::empty(), serve);
        assert_eq!(
            exit,
            ExitCode::from(70),
            "the hook ends the process before this line"
        );
    }
}

#[test]
fn a_panic_in_any_task_is_logged_and_exits_70() {
    let ended = Command::new(env::current_exe().unwrap())
        .args(["--exact", "the_daemon_that_panics", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let log = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(70), "{log}");
    assert!(log.contains("the slot was empty"), "{log}");
}
