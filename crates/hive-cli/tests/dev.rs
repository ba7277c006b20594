//! `hive dev`: everything in one terminal, kept running, and gone with it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::process::{is_running, wait_for};

#[path = "shared/process.rs"]
mod process;

const HIVE: &str = env!("CARGO_BIN_EXE_hive");

/// How long a start, a restart or an end may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// A hive in a folder of its own; killed when the test ends early.
struct Dev {
    process: Child,
    url: String,
    /// Process ids by name, as its table shows them.
    table: BTreeMap<String, u32>,
    folder: TempDir,
}

impl Dev {
    /// Starts a hive and reads what it prints up to `ready`.
    fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`Self::start`], with further options.
    fn start_with(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = listener.local_addr().unwrap().to_string();
        drop(listener);
        let log = File::create(folder.path().join("log")).unwrap();
        let mut process = Command::new(HIVE)
            .args(["dev", "--listen", &listen, "--data-dir"])
            .arg(folder.path().join("data"))
            .args(options)
            .env_remove("HIVE_REDIS_URL")
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let mut dev = Self {
            process,
            url: format!("http://{listen}"),
            table: BTreeMap::new(),
            folder,
        };
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = lines
                .recv_timeout(left)
                .unwrap_or_else(|_| dev.fail("no `ready`"));
            if line == "ready" {
                return dev;
            }
            let mut cells = line.split_whitespace();
            if let (Some(name), Some(Ok(pid))) = (cells.next(), cells.next().map(str::parse)) {
                dev.table.insert(name.to_owned(), pid);
            }
        }
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{what}; its log:\n{}", self.log());
    }

    /// What it said so far.
    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// How many local workers of a group run, as it says itself.
    fn workers(&self, group: &str) -> usize {
        let log = self.log();
        let own = format!("scale: {group}/");
        let lines = log.lines().filter(|line| line.starts_with(&own));
        let count = |word: &str| lines.clone().filter(|line| line.contains(word)).count();
        count(" started") - count(" ended")
    }

    /// Runs a client command on it that is to succeed; answers what it prints.
    fn run(&self, args: &[&str]) -> String {
        let done = self.hive(args);
        if !done.status.success() {
            self.fail(&format!("{args:?}: {done:?}"));
        }
        String::from_utf8(done.stdout).unwrap()
    }

    /// Runs a client command on it.
    fn hive(&self, args: &[&str]) -> Output {
        let mut command = Command::new(HIVE);
        command
            .args(args)
            .env("HIVE_URL", &self.url)
            .env_remove("HIVE_NAMESPACE");
        command.output().unwrap()
    }

    /// Waits until the group `g` is shown with the one message that waits in it.
    fn answers(&self) {
        wait_for("the group with its message", DEADLINE, || {
            let shown = self.hive(&["group", "get", "g", "-o", "jsonl"]);
            let text = String::from_utf8_lossy(&shown.stdout);
            (shown.status.success() && text.contains("\"lag\":1,")).then_some(())
        });
    }

    /// Processes that are its own: daemons name it as their parent, the Redis names its folder.
    fn processes(&self) -> Vec<u32> {
        let parent = format!("HIVE_PARENT_PID={}", self.process.id());
        let folder = self.folder.path().to_str().unwrap();
        let is_own = |pid: &u32| {
            let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let has = |bytes: Vec<u8>, text: &str| {
                String::from_utf8_lossy(&bytes)
                    .split('\0')
                    .any(|word| word.contains(text))
            };
            *pid != self.process.id()
                && (has(read("environ"), &parent) || has(read("cmdline"), folder))
        };
        let entries = fs::read_dir("/proc").unwrap();
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter(is_own).filter(|pid| is_running(*pid)).collect()
    }

    /// Waits for its end; answers its exit code once nothing of it is left.
    fn ends(&mut self) -> Option<i32> {
        let status = wait_for("the hive to end", DEADLINE, || {
            self.process.try_wait().unwrap()
        });
        wait_for("its processes to be gone", DEADLINE, || {
            self.processes().is_empty().then_some(())
        });
        let address = self.url.trim_start_matches("http://");
        assert!(TcpListener::bind(address).is_ok(), "the port is free again");
        status.code()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn send(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn a_killed_process_is_started_again_and_the_end_leaves_nothing_behind() {
    let mut dev = Dev::start();
    let names: Vec<&str> = dev.table.keys().map(String::as_str).collect();
    assert_eq!(names, ["coordinator", "dlq", "gateway", "redis", "router"]);
    for args in [
        &["group", "create", "g"][..],
        &["publish", "--group", "g", "--type", "t", "{}"],
    ] {
        let done = dev.hive(args);
        assert!(done.status.success(), "{done:?}");
    }
    dev.answers();
    let before = dev.processes();
    for name in ["gateway", "redis"] {
        let pid = dev.table[name];
        assert!(before.contains(&pid), "`{name}` is one of its processes");
        send(pid, Signal::KILL);
        wait_for("the killed process to be gone", DEADLINE, || {
            (!is_running(pid)).then_some(())
        });
        dev.answers();
    }
    wait_for("as many processes as before", DEADLINE, || {
        (dev.processes().len() == before.len()).then_some(())
    });
    assert!(dev.process.try_wait().unwrap().is_none(), "it goes on");
    send(dev.process.id(), Signal::TERM);
    assert_eq!(dev.ends(), Some(0));
}

#[test]
fn a_message_is_published_and_waited_for_and_a_group_purged_and_replayed() {
    let dev = Dev::start();
    let run = |args: &[&str], code: i32| {
        let done = dev.hive(args);
        assert_eq!(done.status.code(), Some(code), "{args:?}: {done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    run(&["group", "create", "g", "--max-attempts", "1"], 0);
    let mut work = Command::new(HIVE)
        .args([
            "work",
            "-g",
            "g",
            "--exec",
            "read n; test $n = 4 && echo $((n * 10 + 2))",
        ])
        .env("HIVE_URL", &dev.url)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(
        run(&["publish", "-g", "g", "--wait=60s", "4"], 0).trim(),
        "42"
    );
    let failed = run(&["publish", "-g", "g", "--id", "bad", "--wait", "5"], 1);
    assert!(failed.contains("bad is dead: "), "{failed}");
    let shown = run(
        &["message", "get", "bad", "--wait", "30s", "-o", "jsonl"],
        0,
    );
    assert!(
        shown.contains("\"state\":\"dead\",\"attempts\":1,"),
        "{shown}"
    );
    run(&["message", "get", "unknown"], 2);
    send(work.id(), Signal::TERM);
    work.wait().unwrap();
    run(&["publish", "-g", "g", "--id", "m", "--track", "4"], 0);
    let cancelled = run(&["message", "cancel", "m", "-g", "g"], 0);
    assert_eq!(cancelled.trim(), "cancelled `m`");
    run(&["publish", "-g", "g", "4"], 0);
    let counted = run(&["group", "purge", "g", "--dry-run"], 0);
    assert!(counted.contains("messages would go"), "{counted}");
    run(&["group", "purge", "g"], 64);
    run(&["group", "purge", "g", "--confirm", "h"], 2);
    run(&["group", "purge", "g", "--confirm", "g"], 0);
    let lag = |text: &str| {
        let shown = run(&["group", "get", "g", "-o", "jsonl"], 0);
        assert!(shown.contains(text), "{shown}");
    };
    lag("\"lag\":0,");
    let replayed = run(
        &[
            "stream", "replay", "start", "g", "-g", "g", "--id", "r", "--wait",
        ],
        0,
    );
    assert!(replayed.contains("replay `r` is done: "), "{replayed}");
    let shown = run(&["stream", "replay", "get", "g", "r", "-o", "jsonl"], 0);
    assert!(shown.contains("\"state\":\"done\""), "{shown}");
    run(&["stream", "replay", "cancel", "g", "r"], 0);
}

#[test]
fn a_hive_that_is_killed_takes_its_processes_along() {
    let mut dev = Dev::start();
    assert!(dev.processes().len() >= dev.table.len());
    send(dev.process.id(), Signal::KILL);
    assert_eq!(dev.ends(), None);
}

#[test]
#[expect(clippy::print_stdout, reason = "measured times are what one looks for")]
fn a_burst_starts_workers_that_are_drained_afterwards() {
    const TEXTS: usize = 60;
    const MOST: usize = 5;
    let done = tempfile::tempdir().unwrap();
    let folder = done.path().display();
    let exec = format!("n=$(cat); sleep 0.2; echo $HIVE_CONSUMER_ID >>{folder}/$n");
    let scale = format!("workers={HIVE} work --group workers --exec '{exec}'");
    let mut dev = Dev::start_with(&["--scale", &scale]);
    let most = MOST.to_string();
    dev.run(&[
        "group",
        "create",
        "workers",
        "--stream=work",
        "--auto-scale",
        "--min-consumers=0",
        "--max-consumers",
        &most,
        "--drain-target=2s",
        "--startup-time=1s",
        "--scale-down-window=3s",
        "--scale-down-cooldown=1s",
    ]);
    let texts = done.path().join("burst.jsonl");
    let lines = (1..=TEXTS).map(|n| format!("{{\"message_type\":\"text\",\"payload\":{n}}}\n"));
    fs::write(&texts, lines.collect::<String>()).unwrap();
    let published = Command::new(HIVE)
        .args(["publish", "--group", "workers", "--jsonl"])
        .env("HIVE_URL", &dev.url)
        .stdin(File::open(&texts).unwrap())
        .output()
        .unwrap();
    assert!(published.status.success(), "{published:?}");
    fs::remove_file(&texts).unwrap();

    let began = Instant::now();
    let (mut peak, mut handled) = (0, None);
    loop {
        let now = dev.workers("workers");
        peak = peak.max(now);
        if now > MOST {
            dev.fail("there are more workers than the most");
        }
        if handled.is_none() && fs::read_dir(done.path()).unwrap().count() == TEXTS {
            handled = Some(began.elapsed());
        }
        if handled.is_some() && now == 0 {
            break;
        }
        if began.elapsed() > DEADLINE {
            dev.fail("the burst did not come and go");
        }
        thread::park_timeout(Duration::from_millis(10));
    }
    let (handled, gone) = (handled.unwrap(), began.elapsed());
    println!(
        "handled after {handled:.1?} by up to {peak} workers, which were gone after {gone:.1?}"
    );
    assert!(peak >= 2, "the burst starts several workers");
    for entry in fs::read_dir(done.path()).unwrap() {
        let path = entry.unwrap().path();
        let by = fs::read_to_string(&path).unwrap();
        assert_eq!(by.lines().count(), 1, "{path:?} was handled by {by}");
        assert!(by.starts_with("workers-"), "{by}");
    }
    let log = dev.log();
    let drained = log.matches("not to be started again").count();
    if drained < peak || log.contains("SIGTERM") {
        dev.fail("the workers are told to finish and go, and nothing else is needed");
    }
    send(dev.process.id(), Signal::TERM);
    assert_eq!(dev.ends(), Some(0));
}

#[test]
#[expect(clippy::print_stdout, reason = "measured times are what one looks for")]
fn the_first_message_of_an_idle_group_is_handled_in_less_than_a_second() {
    let scale = format!("workers={HIVE} work --group workers --exec cat");
    let dev = Dev::start_with(&["--scale", &scale]);
    dev.run(&[
        "group",
        "create",
        "workers",
        "--auto-scale",
        "--min-consumers=1",
        "--max-consumers=2",
    ]);
    wait_for("a worker that has joined", DEADLINE, || {
        let members = dev.run(&["consumer", "ls", "--group", "workers", "-o", "jsonl"]);
        members
            .contains("\"consumer_id\":\"workers-1-")
            .then_some(())
    });
    // From before the start of the command that publishes until it has the result.
    let times = [1, 2, 3].map(|n| {
        thread::park_timeout(Duration::from_secs(2));
        let began = Instant::now();
        let text = format!("\"{n}\"");
        let result = dev.run(&["publish", "--group", "workers", "--wait=30s", &text]);
        assert!(result.contains(&n.to_string()), "{result}");
        began.elapsed()
    });
    println!("the first message of an idle group is handled after {times:.0?}");
    let best = times.into_iter().min().unwrap();
    assert!(best < Duration::from_secs(1), "{times:?}");
}
