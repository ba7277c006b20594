//! A private Redis or Valkey for one test.
//!
//! It lives in a temporary directory on a Unix socket, so tests neither collide nor meet a server
//! that somebody needs. Which binary runs: `HIVE_REDIS_SERVER`, else `redis-server` on the path,
//! else `redis-check-rdb` of the package redis-tools, which is the same binary and serves when
//! called `redis-server`. A test without any of them fails; it never skips.

use std::{
    env, fs,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use redis::{AsyncConnectionConfig, aio::MultiplexedConnection};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::{program, shim::Shim, wait};

/// Environment variable that names the server binary.
pub const SERVER_VARIABLE: &str = "HIVE_REDIS_SERVER";
/// Where the package redis-tools puts the binary that is also the server.
const CHECK_RDB: &str = "/usr/bin/redis-check-rdb";
/// Longest path of a Unix socket: `sun_path` holds 108 bytes on Linux and 104 on macOS.
const SOCKET_PATH_MAX: usize = 100;
/// How long a server may take to answer, with the load of an append-only file.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// Answer deadline of [`RedisServer::connect`]; redis-rs would take 500 ms, too short for a script
/// over many entries on a busy machine.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Whether and how the server keeps an append-only file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aof {
    /// None: a kill loses everything.
    Off,
    /// Synced once a second.
    Everysec,
    /// Synced before each answer.
    Always,
}

impl Aof {
    fn arguments(self) -> [&'static str; 4] {
        let (on, fsync) = match self {
            Self::Off => ("no", "everysec"),
            Self::Everysec => ("yes", "everysec"),
            Self::Always => ("yes", "always"),
        };
        ["--appendonly", on, "--appendfsync", fsync]
    }
}

/// Settings of a server that is not started yet.
#[derive(Clone, Debug)]
pub struct RedisBuilder {
    aof: Aof,
    maxmemory: Option<String>,
    tcp: bool,
    binary: Option<PathBuf>,
    arguments: Vec<String>,
    is_shimmed: bool,
}

impl RedisBuilder {
    /// Keeps an append-only file, or none (the default).
    #[must_use]
    pub fn aof(mut self, aof: Aof) -> Self {
        self.aof = aof;
        self
    }

    /// Limits memory, for instance `64mb`; the policy stays `noeviction`.
    #[must_use]
    pub fn maxmemory(mut self, limit: &str) -> Self {
        self.maxmemory = Some(limit.to_owned());
        self
    }

    /// Listens on a free loopback port as well, the same over restarts.
    #[must_use]
    pub fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// Runs this binary and not the one that [`find_server`] gives.
    #[must_use]
    pub fn binary(mut self, binary: impl Into<PathBuf>) -> Self {
        self.binary = Some(binary.into());
        self
    }

    /// Adds an option, for instance `("--maxmemory-policy", "allkeys-lru")`. Later ones win.
    #[must_use]
    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.arguments.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Lets a test move the server's clock, slow its disk and fill it; needs a C compiler.
    #[must_use]
    pub fn shimmed(mut self) -> Self {
        self.is_shimmed = true;
        self
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    /// When there is no server binary, it ends at once, or it does not answer within 20 s; with
    /// the tail of its log.
    pub async fn start(self) -> anyhow::Result<RedisServer> {
        let binary = self.binary.clone().map_or_else(find_server, Ok)?;
        let dir = short_directory()?;
        let socket = dir.path().join("redis.sock");
        let port = if self.tcp { free_port()? } else { 0 };
        let shim = self.is_shimmed.then(|| Shim::new(dir.path())).transpose()?;
        let arguments = self.command_line(dir.path(), &socket, port)?;
        let child = spawn(&binary, &arguments, shim.as_ref())?;
        let mut server = RedisServer {
            binary,
            arguments,
            socket,
            port,
            child,
            shim,
            dir,
        };
        server.wait_ready().await?;
        Ok(server)
    }

    fn command_line(self, dir: &Path, socket: &Path, port: u16) -> anyhow::Result<Vec<String>> {
        let port = port.to_string();
        let dir = dir
            .to_str()
            .context("the temporary directory must be valid UTF-8")?;
        let socket = socket
            .to_str()
            .context("the socket path must be valid UTF-8")?;
        let fixed = [
            ["--port", port.as_str()],
            ["--bind", "127.0.0.1"],
            ["--unixsocket", socket],
            ["--unixsocketperm", "700"],
            ["--dir", dir],
            ["--logfile", "redis.log"],
            ["--daemonize", "no"],
            ["--save", ""],
            ["--maxmemory-policy", "noeviction"],
            ["--enable-debug-command", "local"],
        ];
        let mut all: Vec<String> = fixed.iter().flatten().map(ToString::to_string).collect();
        all.extend(self.aof.arguments().map(str::to_owned));
        if let Some(limit) = self.maxmemory {
            all.extend(["--maxmemory".to_owned(), limit]);
        }
        all.extend(self.arguments);
        Ok(all)
    }
}

/// A running Redis or Valkey, killed and removed with its directory when dropped.
#[derive(Debug)]
pub struct RedisServer {
    binary: PathBuf,
    arguments: Vec<String>,
    socket: PathBuf,
    port: u16,
    child: Child,
    shim: Option<Shim>,
    // Dropped last, after `Drop` has killed the server that writes into it.
    dir: TempDir,
}

impl RedisServer {
    /// Settings to start from: no append-only file, no memory limit, Unix socket alone.
    #[must_use]
    pub fn builder() -> RedisBuilder {
        RedisBuilder {
            aof: Aof::Off,
            maxmemory: None,
            tcp: false,
            binary: None,
            arguments: Vec::new(),
            is_shimmed: false,
        }
    }

    /// Starts a server with the default settings.
    ///
    /// # Errors
    /// As [`RedisBuilder::start`].
    pub async fn start() -> anyhow::Result<Self> {
        Self::builder().start().await
    }

    /// URL of the Unix socket, as daemons and redis-rs take it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket.display())
    }

    /// URL of the loopback port.
    ///
    /// # Panics
    /// When the server was built without [`RedisBuilder::tcp`].
    #[must_use]
    pub fn tcp_url(&self) -> String {
        assert!(self.port != 0, "this server was built without `tcp()`");
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Path of the Unix socket, a target for [`crate::proxy::FaultProxy`].
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Directory with the append-only file and the log.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// Process id, the same until [`Self::restart`].
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Opens a connection with an answer deadline of 10 s.
    ///
    /// # Errors
    /// When the server does not take it.
    pub async fn connect(&self) -> anyhow::Result<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER_DEADLINE))
            .set_response_timeout(Some(ANSWER_DEADLINE));
        let client = redis::Client::open(self.url())?;
        Ok(client
            .get_multiplexed_async_connection_with_config(&config)
            .await?)
    }

    /// Kills the server with SIGKILL and waits for its end; the directory stays.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill9(&mut self) -> anyhow::Result<()> {
        program::kill_and_wait(&mut self.child).context("kill of redis-server")
    }

    /// Kills the server if it still runs and starts it again: same directory, same addresses, the
    /// append-only file loaded. Returns when it answers.
    ///
    /// # Errors
    /// As [`RedisBuilder::start`].
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill9()?;
        self.child = spawn(&self.binary, &self.arguments, self.shim.as_ref())?;
        self.wait_ready().await
    }

    /// Stops the server with SIGSTOP: connections stay open and nobody answers.
    ///
    /// # Errors
    /// When the server has ended.
    pub fn pause(&mut self) -> anyhow::Result<()> {
        program::signal_child(&mut self.child, Signal::STOP)
    }

    /// Lets a paused server go on.
    ///
    /// # Errors
    /// When the server has ended.
    pub fn resume(&mut self) -> anyhow::Result<()> {
        program::signal_child(&mut self.child, Signal::CONT)
    }

    /// Moves the server's clock so many ms ahead of the machine's, or behind it; 0 takes that back.
    ///
    /// # Errors
    /// When the server was built without [`RedisBuilder::shimmed`].
    pub fn set_clock(&self, ahead_ms: i64) -> anyhow::Result<()> {
        self.shim()?.set_clock(ahead_ms)
    }

    /// Makes each sync of a file take this long.
    ///
    /// # Errors
    /// When the server was built without [`RedisBuilder::shimmed`].
    pub fn set_sync(&self, takes: Duration) -> anyhow::Result<()> {
        self.shim()?.set_sync(takes)
    }

    /// Fills the server's disk, or makes space again.
    ///
    /// # Errors
    /// When the server was built without [`RedisBuilder::shimmed`].
    pub fn set_full(&self, is_full: bool) -> anyhow::Result<()> {
        self.shim()?.set_full(is_full)
    }

    fn shim(&self) -> anyhow::Result<&Shim> {
        self.shim.as_ref().context("the server is not shimmed")
    }

    async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let socket = self.socket.clone();
        let child = &mut self.child;
        let answered = wait::try_until(START_DEADLINE, "redis-server to answer PING", || {
            let ended = child.try_wait().ok().flatten();
            let socket = socket.clone();
            async move {
                match ended {
                    Some(status) => Ok(Err(anyhow::anyhow!("redis-server ended with {status}"))),
                    None => ping(&socket).await.map(Ok),
                }
            }
        })
        .await;
        answered
            .map_err(anyhow::Error::from)
            .and_then(|result| result)
            .with_context(|| format!("log of redis-server:\n{}", self.log_tail()))
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.dir.path().join("redis.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        drop(program::kill_and_wait(&mut self.child));
    }
}

/// The server binary that tests run.
///
/// # Errors
/// When there is none, with the line that installs one.
pub fn find_server() -> anyhow::Result<PathBuf> {
    if let Some(named) = env::var_os(SERVER_VARIABLE).filter(|value| !value.is_empty()) {
        let path = PathBuf::from(named);
        if path.is_file() {
            return Ok(path);
        }
        bail!(
            "{SERVER_VARIABLE} `{}` must be a server binary",
            path.display()
        );
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .map(|dir| dir.join("redis-server"))
        .chain([PathBuf::from(CHECK_RDB)])
        .find(|candidate| candidate.is_file())
        .with_context(|| {
            format!(
                "no redis-server: run scripts/test, install redis-tools or set {SERVER_VARIABLE}"
            )
        })
}

fn spawn(binary: &Path, arguments: &[String], shim: Option<&Shim>) -> anyhow::Result<Child> {
    Command::new(binary)
        .envs(shim.into_iter().flat_map(Shim::environment))
        // What redis-check-rdb does depends on the name that it is called by.
        .arg0("redis-server")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("start of `{}`", binary.display()))
}

/// A temporary directory whose path leaves room for a socket name, also where `TMPDIR` is long.
fn short_directory() -> anyhow::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("hive-redis-");
    let dir = builder.tempdir()?;
    if dir.path().as_os_str().len() + "/redis.sock".len() <= SOCKET_PATH_MAX {
        return Ok(dir);
    }
    Ok(builder.tempdir_in("/tmp")?)
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// One PING on a fresh connection; a server that still loads its data is not ready.
async fn ping(socket: &Path) -> anyhow::Result<()> {
    let mut connection = UnixStream::connect(socket).await?;
    connection.write_all(b"PING\r\n").await?;
    let mut answer = [0; 64];
    let length = connection.read(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer[..length]);
    if answer.starts_with("+PONG") {
        return Ok(());
    }
    bail!("PING answered `{}`", answer.trim_end())
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    async fn get(server: &RedisServer, key: &str) -> Option<String> {
        let mut connection = server.connect().await.unwrap();
        redis::cmd("GET")
            .arg(key)
            .query_async(&mut connection)
            .await
            .unwrap()
    }

    async fn set(server: &RedisServer, key: &str, value: &str) {
        let mut connection = server.connect().await.unwrap();
        let set = redis::cmd("SET")
            .arg(key)
            .arg(value)
            .exec_async(&mut connection)
            .await;
        set.unwrap();
    }

    #[tokio::test]
    async fn what_an_always_synced_server_answered_survives_kill_9() {
        let mut server = RedisServer::builder()
            .aof(Aof::Always)
            .start()
            .await
            .unwrap();
        set(&server, "k", "v").await;
        let before = server.pid();
        server.kill9().unwrap();
        server.restart().await.unwrap();
        assert_eq!(get(&server, "k").await.as_deref(), Some("v"));
        assert_ne!(server.pid(), before);
    }

    #[tokio::test]
    async fn a_server_without_a_log_forgets() {
        let mut server = RedisServer::start().await.unwrap();
        set(&server, "k", "v").await;
        server.restart().await.unwrap();
        assert_eq!(get(&server, "k").await, None);
    }

    #[tokio::test]
    async fn a_paused_server_is_silent_until_it_goes_on() {
        let mut server = RedisServer::start().await.unwrap();
        server.pause().unwrap();
        assert!(
            timeout(Duration::from_millis(100), ping(server.socket()))
                .await
                .is_err()
        );
        server.resume().unwrap();
        ping(server.socket()).await.unwrap();
    }

    #[tokio::test]
    async fn a_full_server_refuses_writes() {
        let server = RedisServer::builder().maxmemory("1").start().await.unwrap();
        let mut connection = server.connect().await.unwrap();
        let refused = redis::cmd("SET")
            .arg("k")
            .arg("v")
            .exec_async(&mut connection)
            .await;
        assert_eq!(refused.unwrap_err().code(), Some("OOM"));
    }

    #[tokio::test]
    async fn a_loopback_port_is_opened_on_request() {
        let server = RedisServer::builder().tcp().start().await.unwrap();
        let client = redis::Client::open(server.tcp_url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let answer: String = redis::cmd("PING")
            .query_async(&mut connection)
            .await
            .unwrap();
        assert_eq!(answer, "PONG");
    }

    #[tokio::test]
    async fn a_server_dies_with_its_value() {
        let server = RedisServer::start().await.unwrap();
        let (socket, dir) = (server.socket().to_owned(), server.directory().to_owned());
        drop(server);
        assert!(ping(&socket).await.is_err());
        assert!(!dir.exists());
    }

    #[tokio::test]
    async fn a_server_that_does_not_start_shows_its_log() {
        let failed = RedisServer::builder()
            .option("--maxmemory-policy", "bogus")
            .start()
            .await;
        assert!(format!("{:#}", failed.unwrap_err()).contains("ended with"));
    }
}
