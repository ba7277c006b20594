//! The sections that every daemon has: `[server]`, `[admin]`, `[redis]`, `[log]`.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::is_private;
use super::key::{Key, Spec};
use super::problems::{Problem, Problems};
use super::values::Values;
use crate::telemetry::parse_filter;

/// Keys of the common sections, in the order in which they are shown.
pub const KEYS: &[&Spec] = &[
    LISTEN.spec(),
    ADVERTISE.spec(),
    ALLOW_UNAUTHENTICATED.spec(),
    GRACE.spec(),
    THREADS.spec(),
    ADMIN_LISTEN.spec(),
    REDIS_URL.spec(),
    REDIS_PASSWORD_FILE.spec(),
    REDIS_PREFIX.spec(),
    REDIS_ALLOW_EVICTION.spec(),
    LOG_FILTER.spec(),
    LOG_FORMAT.spec(),
];

/// `server.listen`; each daemon has a default of its own.
pub const LISTEN: Key<SocketAddr> = Key::address(
    "server.listen",
    "127.0.0.1:0",
    "\"127.0.0.1:8000\"",
    "Address of the main port. Port 0 takes any free port, which the log line `ready` names. An \
     address that other machines reach needs server.allow_unauthenticated.",
);
const ADVERTISE: Key<Option<String>> = Key::optional_text(
    "server.advertise",
    "\"10.0.0.7:8000\"",
    "The `host:port` under which other daemons reach this one. Without it the address that the \
     main port is bound to; in Kubernetes the pod's address.",
);
const ALLOW_UNAUTHENTICATED: Key<bool> = Key::flag(
    "server.allow_unauthenticated",
    false,
    "Whether ports that other machines reach may be opened although callers are not \
     authenticated: everybody who reaches such a port can read and change everything.",
);
const GRACE: Key<Duration> = Key::duration(
    "server.grace",
    "25s",
    (Duration::from_secs(0), Duration::from_secs(3600)),
    "\"25s\"",
    "How long a daemon that was asked to stop waits for work that runs. What is late is named in \
     the log, then given up, and the exit code is 3. The process is gone 5 seconds later at the \
     latest, so that the default fits into the 30 seconds of Kubernetes.",
);
const THREADS: Key<Option<u32>> = Key::optional_count(
    "server.threads",
    (1, 1024),
    "4",
    "Threads that run the daemon. Without it one for each two cores: on a machine that it shares \
     with Redis more of them cost more than they bring.",
);
const ADMIN_LISTEN: Key<SocketAddr> = Key::address(
    "admin.listen",
    "127.0.0.1:0",
    "\"127.0.0.1:9100\"",
    "Address of the port for probes and scrapers: /livez, /readyz, /metrics, /config, /tasks and, \
     on a loopback address alone, PUT /log. Port 0 takes any free port, which the log line \
     `ready` names.",
);
const REDIS_URL: Key<String> = Key::url(
    "redis.url",
    "redis://127.0.0.1:6379",
    &["redis://", "rediss://", "redis+unix://"],
    "\"redis://127.0.0.1:6379\"",
    "The Redis that holds all state. `rediss://` is TLS, `redis+unix:///path` a Unix socket. A \
     user may stand in it, a password not.",
);
const REDIS_PASSWORD_FILE: Key<Option<PathBuf>> = Key::file(
    "redis.password_file",
    "\"/run/secrets/redis\"",
    "File that holds the password for Redis; white space around it is left out. A file that is \
     not there is an error.",
);
const REDIS_PREFIX: Key<String> = Key::text(
    "redis.prefix",
    "hive",
    "\"hive\"",
    "First part of every key in Redis: 1 to 32 lower-case letters, digits, `-` or `_`. All daemons \
     of one installation need the same.",
);
const REDIS_ALLOW_EVICTION: Key<bool> = Key::flag(
    "redis.allow_eviction",
    false,
    "Whether to start although the maxmemory-policy of Redis is not noeviction, which means that \
     a full Redis deletes messages.",
);
/// `log.filter`.
pub const LOG_FILTER: Key<String> = Key::text(
    "log.filter",
    "info",
    "\"hive_gateway=debug,info\"",
    "What is logged: a level (error, warn, info, debug, trace), or levels by module with commas.",
);
const LOG_FORMAT: Key<String> = Key::choice(
    "log.format",
    "auto",
    &["auto", "text", "json"],
    "\"json\"",
    "Form of the log on standard error: text, json (one object a line), or auto, which is text on \
     a terminal and json otherwise.",
);

/// `[server]`.
#[derive(Debug, Clone)]
pub struct Server {
    /// Where the main port listens. Once the chassis runs it is the address that was bound.
    pub listen: SocketAddr,
    /// `host:port` for other daemons; empty until the port is bound, if the operator gave none.
    pub advertise: String,
    /// Longest wait for running work at shutdown.
    pub grace: Duration,
    /// Threads of the runtime.
    pub threads: NonZeroUsize,
}

/// `[admin]`.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where the admin port listens. Once the chassis runs it is the address that was bound.
    pub listen: SocketAddr,
}

/// `[redis]`.
#[derive(Debug, Clone)]
pub struct Redis {
    /// `redis://`, `rediss://` or `redis+unix://`, without a password.
    pub url: String,
    /// The password, where one is needed.
    pub password: Option<Secret>,
    /// First part of every key.
    pub prefix: String,
    /// Whether a Redis that evicts keys is accepted.
    pub allow_eviction: bool,
}

/// `[log]`.
#[derive(Debug, Clone)]
pub struct Log {
    /// A filter in the syntax of `tracing_subscriber::EnvFilter`, known to parse.
    pub filter: String,
    /// Form of the log.
    pub format: LogFormat,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` out of logs.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text of the file at `path`, without white space around it.
    ///
    /// # Errors
    /// The rule that it breaks: readable, UTF-8, not empty.
    pub fn of_file(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path);
        let text = text.map_err(|error| format!("must be readable: {error}"))?;
        match text.trim() {
            "" => Err("must hold a secret and is empty".to_owned()),
            secret => Ok(Self::new(secret.to_owned())),
        }
    }

    /// The text, for the one who needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Server {
    pub(super) fn read(values: &Values, problems: &mut Problems) -> Self {
        let listen = values.get(&LISTEN);
        let advertise = values.get(&ADVERTISE);
        refuse_public(&LISTEN, values, problems);
        match &advertise {
            Some(name) if !is_host_and_port(name) => {
                values.refuse(&ADVERTISE, "must be `host:port`", problems);
            },
            None if listen.ip().is_unspecified() => values.refuse(
                &ADVERTISE,
                format!("must be set, because no other daemon reaches this one at `{listen}`"),
                problems,
            ),
            Some(_) | None => {},
        }
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let half = NonZeroUsize::new(cores.div_ceil(2)).unwrap_or(NonZeroUsize::MIN);
        let threads = values
            .get(&THREADS)
            .and_then(|threads| usize::try_from(threads).ok())
            .and_then(NonZeroUsize::new)
            .unwrap_or(half);
        let grace = values.get(&GRACE);
        Self {
            listen,
            advertise: advertise.unwrap_or_default(),
            grace,
            threads,
        }
    }
}

impl Admin {
    pub(super) fn read(values: &Values, problems: &mut Problems) -> Self {
        refuse_public(&ADMIN_LISTEN, values, problems);
        Self {
            listen: values.get(&ADMIN_LISTEN),
        }
    }
}

impl Redis {
    /// The password in plain, where one is needed.
    #[must_use]
    pub fn exposed_password(&self) -> Option<&str> {
        self.password.as_ref().map(Secret::expose)
    }

    pub(super) fn read(values: &Values, problems: &mut Problems) -> Self {
        let prefix = values.get(&REDIS_PREFIX);
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        if prefix.len() > 32 || !prefix.chars().all(is_plain) {
            let rule = "must be 1 to 32 lower-case letters, digits, `-` or `_`";
            values.refuse(&REDIS_PREFIX, rule, problems);
        }
        let password = values.get(&REDIS_PASSWORD_FILE).and_then(|path| {
            Secret::of_file(&path)
                .map_err(|rule| values.refuse(&REDIS_PASSWORD_FILE, rule, problems))
                .ok()
        });
        let allow_eviction = values.get(&REDIS_ALLOW_EVICTION);
        Self {
            url: values.get(&REDIS_URL),
            password,
            prefix,
            allow_eviction,
        }
    }
}

impl Log {
    pub(super) fn read(values: &Values, problems: &mut Problems) -> Self {
        let filter = values.get(&LOG_FILTER);
        if let Err(rule) = parse_filter(&filter) {
            values.refuse(&LOG_FILTER, rule, problems);
        }
        let format = match values.get(&LOG_FORMAT).as_str() {
            "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            _ => LogFormat::Auto,
        };
        Self { filter, format }
    }
}

/// Callers are not authenticated, so a port that others reach is opened only on request.
fn refuse_public(key: &'static Key<SocketAddr>, values: &Values, problems: &mut Problems) {
    if is_private(values.get(key)) || values.get(&ALLOW_UNAUTHENTICATED) {
        return;
    }
    let rule = "must be a loopback address unless `server.allow_unauthenticated` is true: callers \
                are not authenticated, so everybody who reaches this port could read and change \
                everything";
    values.refuse(key, rule, problems);
}

fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let host_is_whole = !host.is_empty() && (!host.contains(':') || host.starts_with('['));
        host_is_whole && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

impl Problem {
    /// A fault of the file `name` itself.
    pub(crate) fn of_file(name: &str, rule: String) -> Self {
        Self {
            key: name.to_owned(),
            given: None,
            rule,
            example: String::new(),
        }
    }
}
