//! Starts the real binary, reads its log, asks its ports, and ends it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hive_testkit::redis::RedisServer;

/// Longest wait for anything a test waits for.
const LIMIT: Duration = Duration::from_secs(20);

/// A daemon that said it is ready.
pub(crate) struct Process {
    child: Mutex<Child>,
    log: Arc<Mutex<String>>,
    log_closed: Mutex<Receiver<Line>>,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// Lives as long as the daemon that is registered in it.
    _redis: RedisServer,
}

/// How a process ended that was not to stay.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// An answer over HTTP/1.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

type Line = serde_json::Value;

fn command(args: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hive-router"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("HIVE_")) {
        command.env_remove(name);
    }
    command
        .args(args)
        .envs(env.iter().copied())
        .stdin(Stdio::null());
    command
}

/// Runs the binary until it ends by itself.
pub(crate) fn run_to_end(args: &[&str], env: &[(&str, &str)]) -> Ended {
    let output = command(args, env).output().unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A Redis of its own for one daemon. On a thread of its own, since some tests run in a runtime.
fn redis() -> RedisServer {
    let start = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(RedisServer::start()).unwrap()
    };
    thread::spawn(start).join().unwrap()
}

impl Process {
    /// Starts the binary on free ports and waits until it is ready.
    pub(crate) fn start(args: &[&str], env: &[(&str, &str)]) -> Self {
        let args: Vec<_> = ["--listen", "127.0.0.1:0"]
            .iter()
            .chain(args)
            .copied()
            .collect();
        let redis = redis();
        let url = redis.url();
        let mut child = command(&args, env)
            .env("HIVE_REDIS_URL", url)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (sender, lines) = channel();
        let (reader, kept) = (
            BufReader::new(child.stderr.take().unwrap()),
            Arc::clone(&log),
        );
        thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                kept.lock().unwrap().push_str(&format!("{line}\n"));
                if let Ok(line) = serde_json::from_str(&line) {
                    // Nobody reads on once the daemon is ready.
                    drop(sender.send(line));
                }
            }
        });
        let ready = wait_until_ready(&lines);
        let (child, log_closed) = (Mutex::new(child), Mutex::new(lines));
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut process = Self {
            child,
            log,
            _redis: redis,
            log_closed,
            listen: nowhere,
            admin: nowhere,
        };
        let Some(ready) = ready else {
            panic!("not ready within {LIMIT:?}:\n{}", process.log())
        };
        let address = |field: &str| ready[field].as_str().unwrap().parse().unwrap();
        (process.listen, process.admin) = (address("listen"), address("admin"));
        process
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let child = self.child.lock().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the end: the log is closed when the process is gone.
    pub(crate) fn exit_code(&self) -> Option<i32> {
        let lines = self.log_closed.lock().unwrap();
        let started = Instant::now();
        loop {
            match lines.recv_timeout(LIMIT.saturating_sub(started.elapsed())) {
                Ok(_) => {},
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("still there after {LIMIT:?}:\n{}", self.log());
                },
            }
        }
        self.child.lock().unwrap().wait().unwrap().code()
    }

    /// The log so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Asks the admin port.
    pub(crate) fn get(&self, path: &str) -> Answer {
        request(self.admin, "GET", path, "")
    }

    /// Tells the admin port.
    pub(crate) fn put(&self, path: &str, body: &str) -> Answer {
        request(self.admin, "PUT", path, body)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        drop(child.kill());
        drop(child.wait());
    }
}

/// The log line that says ready, or nothing if it does not come in time.
fn wait_until_ready(lines: &Receiver<Line>) -> Option<Line> {
    let started = Instant::now();
    loop {
        let line = lines
            .recv_timeout(LIMIT.saturating_sub(started.elapsed()))
            .ok()?;
        if line["message"] == "ready" {
            return Some(line);
        }
    }
}

/// One call over HTTP/1 on a connection of its own.
pub(crate) fn request(address: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer {
        status,
        body: body.to_owned(),
    }
}
