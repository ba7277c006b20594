//! Connections to Redis: one per purpose, made anew when lost, with every wait bounded.
//!
//! A multiplexed connection answers in order, so a slow command delays all behind it: publishes,
//! fetches, settles and the rest each have their own. A call that finds no connection waits for
//! one, at most `wait`, before it says `Unavailable`: nothing was sent then. A call whose answer is
//! lost says `Unknown`, and the caller decides whether repeating is safe. Writes run in a task of
//! their own, so that a caller who goes away never leaves half a pipeline.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use redis::{
    AsyncConnectionConfig, Cmd, IntoConnectionInfo as _, Pipeline, Value,
    aio::MultiplexedConnection,
};
use tokio::sync::Mutex as AsyncMutex;

use crate::{
    dataset::Guard,
    error::StoreError,
    keys::{ControlKeys, Shard},
    reply::Reply,
    scripts::{self, Call},
};

/// Connecting, including TLS and authentication.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for one answer: above the usual pauses of a healthy Redis (fork, fsync), and below
/// the three seconds in which a caller is answered and a silent connection is replaced. A call that
/// only waited for a slow disk is repeated, which all but a fetch allow.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(2_500);
/// Pause between attempts to connect.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// What a server answers that was made a replica: behind its name another one may write by now, so
/// its connection is made anew.
const READONLY: &str = "READONLY";

/// How to reach Redis.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// `redis://`, `rediss://` or `redis+unix://`.
    pub url: String,
    /// The password, where one is needed; kept out of the URL, which is logged.
    pub password: Option<String>,
    /// First part of every key.
    pub prefix: String,
    /// How long a call waits for a connection before it says that Redis is away.
    pub wait: Duration,
}

impl StoreConfig {
    /// The Redis at `url`, with the password that it asks for, under keys that begin with `prefix`.
    #[must_use]
    pub fn new(url: &str, password: Option<&str>, prefix: &str) -> Self {
        Self {
            url: url.to_owned(),
            password: password.map(str::to_owned),
            prefix: prefix.to_owned(),
            ..Self::default()
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379".into(),
            password: None,
            prefix: "hive".into(),
            wait: Duration::from_secs(3),
        }
    }
}

/// What a connection is for; each has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Adding messages.
    Publish,
    /// Leasing messages.
    Fetch,
    /// Ending leases.
    Settle,
    /// Everything else.
    Control,
}

/// A handle on Redis; clones share its connections.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    // Whether calls go through while Redis holds other data than this process knew.
    is_past_guard: bool,
}

struct Inner {
    client: redis::Client,
    config: StoreConfig,
    control: ControlKeys,
    links: [Link; 4],
    reconnects: AtomicU64,
    server: Mutex<Server>,
    guard: Guard,
    process: String,
    calls: AtomicU64,
    /// Redis' clock when it was last read, in ms since 1970, and when that was.
    clock: Mutex<Option<(Instant, u64)>>,
}

/// What is known of the server behind the newest connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Server {
    run_id: String,
    /// It can be asked to wait for its disk.
    pub(crate) waitaof: bool,
    /// It syncs each write before it answers.
    pub(crate) appendfsync_always: bool,
}

#[derive(Default)]
struct Link {
    connection: AsyncMutex<Option<(u64, MultiplexedConnection)>>,
    generation: AtomicU64,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("prefix", &self.inner.config.prefix)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// A handle; connects at the first call.
    ///
    /// # Errors
    /// `Refused` when the URL is none.
    pub fn open(config: StoreConfig) -> Result<Self, StoreError> {
        let client = client(&config).map_err(|error| StoreError::Refused {
            detail: error.to_string(),
        })?;
        let control = ControlKeys::new(&config.prefix);
        Ok(Self {
            inner: Arc::new(Inner {
                client,
                config,
                control,
                links: Default::default(),
                reconnects: AtomicU64::new(0),
                server: Mutex::new(Server::default()),
                guard: Guard::default(),
                process: uuid::Uuid::now_v7().simple().to_string(),
                calls: AtomicU64::new(0),
                clock: Mutex::new(None),
            }),
            is_past_guard: false,
        })
    }

    /// The same store for the few calls that look after lost data, or end the loss: they go through
    /// while everything else is refused.
    #[must_use]
    pub fn past_guard(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            is_past_guard: true,
        }
    }

    pub(crate) fn guard(&self) -> &Guard {
        &self.inner.guard
    }

    fn admit(&self) -> Result<(), StoreError> {
        if self.is_past_guard {
            return Ok(());
        }
        self.inner.guard.admit()
    }

    /// The shard `index` of a stream.
    #[must_use]
    pub fn shard(&self, namespace: &str, stream: &str, index: u32) -> Shard {
        Shard::new(&self.inner.config.prefix, namespace, stream, index)
    }

    /// Keys of the control plane.
    #[must_use]
    pub fn control_keys(&self) -> &ControlKeys {
        &self.inner.control
    }

    /// Connections made since the start, first ones included.
    #[must_use]
    pub fn reconnects(&self) -> u64 {
        self.inner.reconnects.load(Ordering::Relaxed)
    }

    /// Run id of the server as of the newest connection: another one means that Redis restarted.
    #[must_use]
    pub fn run_id(&self) -> String {
        self.inner.server.lock().run_id.clone()
    }

    pub(crate) fn server(&self) -> Server {
        self.inner.server.lock().clone()
    }

    /// How long a call waits for Redis.
    pub(crate) fn wait(&self) -> Duration {
        self.inner.config.wait
    }

    /// A number for a call that is sent again when its answer is lost, and the word under which
    /// this process keeps what its numbered calls were answered.
    pub(crate) fn number_call(&self) -> (&str, u64) {
        let number = self.inner.calls.fetch_add(1, Ordering::Relaxed) + 1;
        (&self.inner.process, number)
    }

    /// The time of Redis' clock in ms since 1970, as far as the last [`Store::read_clock`] tells:
    /// what decides over messages is one clock, not that of whoever happens to handle them. From
    /// there it goes on by a clock that nobody sets.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        let known = *self.inner.clock.lock();
        known.map_or_else(our_clock_ms, |(read, redis)| {
            let since = u64::try_from(read.elapsed().as_millis()).unwrap_or(u64::MAX);
            redis.saturating_add(since)
        })
    }

    /// Reads Redis' clock, for [`Store::now_ms`].
    ///
    /// # Errors
    /// As in `StoreError`; what was known stays.
    pub async fn read_clock(&self) -> Result<(), StoreError> {
        let mut time = Cmd::new();
        time.arg("TIME");
        let [seconds, micros] = self.command(Purpose::Control, time).await?.array()?;
        let redis = seconds.number()?.saturating_mul(1_000) + micros.number()? / 1_000;
        *self.inner.clock.lock() = Some((Instant::now(), redis));
        Ok(())
    }

    fn link(&self, purpose: Purpose) -> &Link {
        let [publish, fetch, settle, control] = &self.inner.links;
        match purpose {
            Purpose::Publish => publish,
            Purpose::Fetch => fetch,
            Purpose::Settle => settle,
            Purpose::Control => control,
        }
    }

    /// Runs a script; safe to cancel, the command goes on by itself.
    ///
    /// # Errors
    /// As in `StoreError`; `Unknown` when the answer is lost.
    pub async fn run(&self, purpose: Purpose, call: Call) -> Result<Value, StoreError> {
        self.run_once(purpose, Arc::new(call)).await
    }

    async fn run_once(&self, purpose: Purpose, call: Arc<Call>) -> Result<Value, StoreError> {
        let store = self.clone();
        detached(async move {
            match store.send(purpose, &call.command()).await {
                Err(StoreError::Unavailable { detail }) if detail.starts_with("NOSCRIPT") => {
                    let mut load = Cmd::new();
                    load.arg("SCRIPT").arg("LOAD").arg(call.script().text());
                    store.send(purpose, &load).await?;
                    store.send(purpose, &call.command()).await
                },
                other => other,
            }
        })
        .await
    }

    /// Runs an idempotent script, again where the answer is lost, until `wait` is over.
    ///
    /// # Errors
    /// As `run`, after the last attempt.
    pub async fn run_safely(&self, purpose: Purpose, call: Call) -> Result<Value, StoreError> {
        let end = Instant::now() + self.inner.config.wait;
        let call = Arc::new(call);
        loop {
            match self.run_once(purpose, call.clone()).await {
                Err(error) if error.is_transient() && Instant::now() < end => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                },
                other => return other,
            }
        }
    }

    /// Runs one idempotent command, again where the answer is lost, until `wait` is over.
    ///
    /// # Errors
    /// As in `StoreError`, after the last attempt.
    pub async fn command(&self, purpose: Purpose, command: Cmd) -> Result<Reply, StoreError> {
        let end = Instant::now() + self.inner.config.wait;
        loop {
            let (store, command) = (self.clone(), command.clone());
            match detached(async move { store.send(purpose, &command).await }).await {
                Err(error) if error.is_transient() && Instant::now() < end => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                },
                other => return other.map(|value| Reply::new("a command", value)),
            }
        }
    }

    /// Runs idempotent commands in one round trip, again where the answer is lost, until `wait` is
    /// over; the first error answer is the error.
    ///
    /// # Errors
    /// As in `StoreError`, after the last attempt.
    pub async fn pipeline(
        &self,
        purpose: Purpose,
        pipeline: Pipeline,
    ) -> Result<Vec<Reply>, StoreError> {
        let end = Instant::now() + self.inner.config.wait;
        let values = loop {
            match self.pipeline_raw(purpose, pipeline.clone()).await {
                Err(error) if error.is_transient() && Instant::now() < end => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                },
                other => break other?,
            }
        };
        values
            .into_iter()
            .map(|value| {
                if let Value::ServerError(error) = value {
                    return Err(StoreError::of_command(&error.into()));
                }
                Ok(Reply::new("a command", value))
            })
            .collect()
    }

    /// Runs commands in one round trip; each answer may be an error of its own.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn pipeline_raw(
        &self,
        purpose: Purpose,
        pipeline: Pipeline,
    ) -> Result<Vec<Value>, StoreError> {
        let store = self.clone();
        detached(async move {
            let (generation, mut connection) = store.connection(purpose).await?;
            store.admit()?;
            let count = pipeline.len();
            let answer = connection.send_packed_commands(&pipeline, 0, count).await;
            let is_replica = answer.as_ref().is_ok_and(|values| {
                values.iter().any(
                    |value| matches!(value, Value::ServerError(error) if error.code() == READONLY),
                )
            });
            if is_replica {
                store.drop_connection(purpose, generation).await;
            }
            store.judge(purpose, generation, answer).await
        })
        .await
    }

    async fn send(&self, purpose: Purpose, command: &Cmd) -> Result<Value, StoreError> {
        let (generation, mut connection) = self.connection(purpose).await?;
        self.admit()?;
        let answer = connection.send_packed_command(command).await;
        // redis-rs hands an error answer on as a value here.
        let answer = answer.and_then(|value| {
            if let Value::ServerError(error) = value {
                return Err(error.into());
            }
            Ok(value)
        });
        self.judge(purpose, generation, answer).await
    }

    /// Drops a connection that failed, so that the next call makes a new one.
    async fn judge<T>(
        &self,
        purpose: Purpose,
        generation: u64,
        answer: Result<T, redis::RedisError>,
    ) -> Result<T, StoreError> {
        let error = match answer {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if error.is_io_error()
            || error.is_timeout()
            || error.is_unrecoverable_error()
            || error.code() == Some(READONLY)
        {
            self.drop_connection(purpose, generation).await;
        }
        Err(StoreError::of_command(&error))
    }

    async fn drop_connection(&self, purpose: Purpose, generation: u64) {
        let mut held = self.link(purpose).connection.lock().await;
        if held
            .as_ref()
            .is_some_and(|(number, _)| *number == generation)
        {
            *held = None;
        }
    }

    async fn connection(
        &self,
        purpose: Purpose,
    ) -> Result<(u64, MultiplexedConnection), StoreError> {
        let link = self.link(purpose);
        let end = Instant::now() + self.inner.config.wait;
        let mut held = tokio::time::timeout(self.inner.config.wait, link.connection.lock())
            .await
            .map_err(|_error| StoreError::Unavailable {
                detail: "no connection in time".into(),
            })?;
        if let Some((generation, connection)) = held.as_ref() {
            return Ok((*generation, connection.clone()));
        }
        loop {
            match self.connect_in_time().await {
                Ok(connection) => {
                    let generation = link.generation.fetch_add(1, Ordering::Relaxed) + 1;
                    *held = Some((generation, connection.clone()));
                    self.inner.reconnects.fetch_add(1, Ordering::Relaxed);
                    return Ok((generation, connection));
                },
                Err(error) if Instant::now() + RETRY_PAUSE > end => {
                    return Err(StoreError::Unavailable {
                        detail: error.to_string(),
                    });
                },
                Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
            }
        }
    }

    /// As [`Self::connect`], all of it within one wait for an answer: a server that takes
    /// connections and says nothing must not hold callers for the sum of its commands.
    async fn connect_in_time(&self) -> Result<MultiplexedConnection, redis::RedisError> {
        let connect = tokio::time::timeout(RESPONSE_TIMEOUT, self.connect());
        connect.await.unwrap_or_else(|_elapsed| {
            let kind = std::io::ErrorKind::TimedOut;
            Err(std::io::Error::new(kind, "no answer to a new connection").into())
        })
    }

    async fn connect(&self) -> Result<MultiplexedConnection, redis::RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_pipeline_buffer_size(4096);
        let mut connection = self
            .inner
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        // A server that loads its data answers PING with LOADING: it is not there yet.
        let info: String = redis::cmd("INFO")
            .arg("server")
            .query_async(&mut connection)
            .await?;
        redis::cmd("EXISTS")
            .arg("hive")
            .query_async::<i64>(&mut connection)
            .await?;
        let run_id = field(&info, "run_id").unwrap_or_default().to_owned();
        let commands: Value = redis::cmd("COMMAND")
            .arg("INFO")
            .arg("WAITAOF")
            .query_async(&mut connection)
            .await?;
        let waitaof = matches!(&commands, Value::Array(found)
            if found.first().is_some_and(|first| !matches!(first, Value::Nil)));
        let fsync: Vec<String> = redis::cmd("CONFIG")
            .arg("GET")
            .arg("appendfsync")
            .query_async(&mut connection)
            .await
            .unwrap_or_default();
        let aof: Vec<String> = redis::cmd("CONFIG")
            .arg("GET")
            .arg("appendonly")
            .query_async(&mut connection)
            .await
            .unwrap_or_default();
        let appendfsync_always =
            fsync.get(1).is_some_and(|v| v == "always") && aof.get(1).is_some_and(|v| v == "yes");
        // WAITAOF is refused without an append-only file, and waits in vain where nothing syncs it.
        let is_synced = |setting: &[String]| setting.get(1).is_none_or(|value| value != "no");
        let waitaof = waitaof && is_synced(&aof) && is_synced(&fsync);
        let mut load = redis::pipe();
        for script in scripts::ALL {
            load.cmd("SCRIPT").arg("LOAD").arg(script.text()).ignore();
        }
        load.query_async::<()>(&mut connection).await?;
        let nonce: Option<String> = redis::cmd("GET")
            .arg(self.inner.control.nonce())
            .query_async(&mut connection)
            .await?;
        self.inner.guard.suspect(nonce.as_deref());
        *self.inner.server.lock() = Server {
            run_id,
            waitaof,
            appendfsync_always,
        };
        Ok(connection)
    }

    /// A connection of its own for subscriptions.
    pub(crate) async fn subscriber(&self) -> Result<redis::aio::PubSub, StoreError> {
        let connect = self.inner.client.get_async_pubsub();
        match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
            Ok(Ok(pubsub)) => Ok(pubsub),
            Ok(Err(error)) => Err(StoreError::Unavailable {
                detail: error.to_string(),
            }),
            Err(_) => Err(StoreError::Unavailable {
                detail: "no connection in time".into(),
            }),
        }
    }

    /// First part of every key.
    pub(crate) fn prefix(&self) -> &str {
        &self.inner.config.prefix
    }

    /// A connection of its own on which nothing is asked of the server yet.
    pub(crate) async fn bare_connection(&self) -> Result<MultiplexedConnection, StoreError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let client = &self.inner.client;
        let connection = client.get_multiplexed_async_connection_with_config(&config);
        connection.await.map_err(|error| StoreError::Unavailable {
            detail: error.to_string(),
        })
    }

    /// One section of INFO as pairs.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn info(&self, section: &str) -> Result<Vec<(String, String)>, StoreError> {
        let mut info = Cmd::new();
        info.arg("INFO").arg(section);
        let text = self.command(Purpose::Control, info).await?.text()?;
        Ok(text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect())
    }
}

fn client(config: &StoreConfig) -> Result<redis::Client, redis::RedisError> {
    let mut info = config.url.as_str().into_connection_info()?;
    if let Some(password) = &config.password {
        let settings = info.redis_settings().clone().set_password(password);
        info = info.set_redis_settings(settings);
    }
    let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
    redis::Client::open(info.set_tcp_settings(tcp))
}

fn our_clock_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or_default()
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}

/// Runs a future to its end even when the caller goes away.
async fn detached<T: Send + 'static>(
    future: impl Future<Output = Result<T, StoreError>> + Send + 'static,
) -> Result<T, StoreError> {
    #[expect(
        clippy::disallowed_methods,
        reason = "one command, bounded by the response timeout; the store knows no chassis"
    )]
    let task = tokio::spawn(future);
    task.await.unwrap_or_else(|error| {
        Err(StoreError::Unknown {
            detail: error.to_string(),
        })
    })
}
