//! A supervised program never outlives its parent, whatever ends that.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::process::{is_running, wait_for};

#[path = "shared/process.rs"]
mod process;

const HIVE: &str = env!("CARGO_BIN_EXE_hive");

/// How long anything here may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// The process ids that the program wrote: its own, and that of what it started.
fn written_pids(path: &Path) -> Option<Vec<u32>> {
    let text = fs::read_to_string(path).ok()?;
    let pids = text
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<Vec<u32>, _>>()
        .ok()?;
    (pids.len() == 2).then_some(pids)
}

/// A shell, as the parent, with a supervised program that starts another one and ignores SIGTERM.
fn start(folder: &Path) -> (Child, PathBuf) {
    let pids = folder.join("pids");
    let program = format!(
        "trap '' TERM; sleep 600 & echo $$ $! > {}; wait",
        pids.display()
    );
    let parent = Command::new("sh")
        .args([
            "-c",
            r#""$0" __supervise --parent $$ -- sh -c "$1" & wait"#,
            HIVE,
            &program,
        ])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    (parent, pids)
}

#[test]
fn a_program_and_what_it_started_die_when_the_parent_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut parent, pids) = start(folder.path());
    let pids = wait_for("the program writes its ids", DEADLINE, || {
        written_pids(&pids)
    });
    assert!(pids.iter().all(|pid| is_running(*pid)));
    parent.kill().unwrap();
    parent.wait().unwrap();
    wait_for("the program is gone", DEADLINE, || {
        pids.iter().all(|pid| !is_running(*pid)).then_some(())
    });
}

/// A supervised shell that a SIGTERM ends at once, and what it started, which takes a second to end
/// and leaves a mark then.
fn start_slow(folder: &Path, flags: &[&str]) -> (Child, PathBuf) {
    let (begun, mark) = (folder.join("begun"), folder.join("mark"));
    let script = format!(
        "(trap 'sleep 1; touch {}; exit' TERM; touch {}; while :; do sleep 0.05; done) & wait",
        mark.display(),
        begun.display()
    );
    let own = std::process::id().to_string();
    let supervisor = Command::new(HIVE)
        .args(["__supervise", "--parent", &own])
        .args(flags)
        .args(["--", "sh", "-c", &script])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_for("the program has begun", DEADLINE, || {
        begun.exists().then_some(())
    });
    (supervisor, mark)
}

fn terminate(supervisor: &Child) {
    let pid = Pid::from_raw(i32::try_from(supervisor.id()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
}

fn ended(supervisor: &mut Child) {
    wait_for("the supervisor ends", DEADLINE, || {
        supervisor.try_wait().unwrap()
    });
}

#[test]
fn what_a_program_started_may_finish_where_its_supervisor_is_patient() {
    for (flags, finishes) in [(&["--patient"][..], true), (&[][..], false)] {
        let folder = tempfile::tempdir().unwrap();
        let (mut supervisor, mark) = start_slow(folder.path(), flags);
        terminate(&supervisor);
        ended(&mut supervisor);
        assert_eq!(mark.exists(), finishes, "{flags:?}");
    }
}

#[test]
fn a_second_request_to_stop_ends_the_patience() {
    let folder = tempfile::tempdir().unwrap();
    let (mut supervisor, mark) = start_slow(folder.path(), &["--patient"]);
    terminate(&supervisor);
    // Two signals that come together are one.
    std::thread::park_timeout(Duration::from_millis(200));
    terminate(&supervisor);
    ended(&mut supervisor);
    assert!(!mark.exists());
}

#[test]
fn the_exit_code_of_the_program_comes_through() {
    let own = std::process::id().to_string();
    for code in [0, 65, 75] {
        let script = format!("exit {code}");
        let args = ["__supervise", "--parent", &own, "--", "sh", "-c", &script];
        let status = Command::new(HIVE).args(args).status().unwrap();
        assert_eq!(status.code(), Some(code));
    }
}

#[test]
fn nothing_is_started_for_a_parent_that_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let script = format!("touch {}", mark.display());
    let args = ["__supervise", "--parent", "1", "--", "sh", "-c", &script];
    let status = Command::new(HIVE)
        .args(args)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(69));
    assert!(!mark.exists());
}

#[test]
fn wrong_usage_ends_with_64_and_a_gateway_that_is_away_with_69() {
    let code = |args: &[&str]| {
        let mut command = Command::new(HIVE);
        command
            .args(args)
            .env_remove("HIVE_URL")
            .stderr(Stdio::null());
        command.status().unwrap().code()
    };
    assert_eq!(code(&["frobnicate"]), Some(64));
    assert_eq!(
        code(&["group", "ls", "--url", "http://127.0.0.1:1"]),
        Some(69)
    );
}
