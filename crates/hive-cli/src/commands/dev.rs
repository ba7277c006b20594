//! `hive dev`: a whole Agent Hive in one terminal, on a private Redis in a folder.
//!
//! One child process per daemon (`hive serve <daemon>`), and the Redis behind a supervisor. Each is
//! started again, with backoff, when it dies. Children get their settings by environment alone.
//! On SIGINT or SIGTERM local workers (`--scale`) stop first, then the daemons, so that they can
//! hand back what they hold, and the Redis last. When this process is killed, daemons end by
//! themselves (they watch `HIVE_PARENT_PID`), and workers and the Redis are ended by their
//! supervisors.

use std::{
    fs::{self, File, TryLockError},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    process,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    children::Spawner,
    commands::serve::Daemon,
    connection::Common,
    exit::{Exit, Failure},
    local_redis::LocalRedis,
    output::{Format, Show, note},
};

pub(super) mod child;
mod scale;

use child::{Child, Plan};
use scale::{Scale, Scaler, ensure_distinct, scale};

/// How to go about local workers, for `--help`.
const EXAMPLES: &str = "\
Local workers, as many as a group wants:
  hive dev --scale 'reviewers=hive work --group reviewers --exec ./review'
and, in another terminal, where the group is there:
  hive scale set reviewers --enable --min 0 --max 8
The command runs by `sh -c`, once per worker, with HIVE_URL, HIVE_NAMESPACE and HIVE_SCALE_GROUP. A
scaled group without an executor gets the executor `process`. `hive work` in the command takes its
id and its grace, for ever, from HIVE_WORK_ID and HIVE_WORK_GRACE, unless --id and --grace say
otherwise.";

/// How long a first start may take until everything is ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How long an earlier run in the same folder may take to go away.
const FREE_WITHIN: Duration = Duration::from_secs(10);

/// What to run, and where.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DevArgs {
    /// Address of the gateway: gRPC and REST on one port.
    #[arg(long, default_value = "127.0.0.1:8000", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Folder of the private Redis; it may hold other files.
    #[arg(long, default_value = ".hive", value_name = "FOLDER")]
    data_dir: PathBuf,
    /// Use this Redis rather than a private one.
    #[arg(long, env = "HIVE_REDIS_URL", value_name = "URL")]
    redis_url: Option<String>,
    /// Number of gateways; those after the first listen on free ports.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=8))]
    gateways: u16,
    /// Number of coordinators.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=8))]
    coordinators: u16,
    /// Start and stop workers of a group here, as many as it wants; may be given several times.
    #[arg(long, value_name = "GROUP=COMMAND", value_parser = scale)]
    scale: Vec<Scale>,
    /// Show all that the daemons log, not only warnings.
    #[arg(long, short)]
    verbose: bool,
}

/// A process in the table of addresses.
#[derive(Debug, Serialize)]
struct Address {
    name: String,
    pid: Option<u32>,
    address: String,
    admin: String,
}

impl Show for Address {
    const COLUMNS: &'static [&'static str] = &["PROCESS", "PID", "ADDRESS", "ADMIN"];

    fn cells(&self) -> Vec<String> {
        let pid = self.pid.map(|pid| pid.to_string()).unwrap_or_default();
        vec![
            self.name.clone(),
            pid,
            self.address.clone(),
            self.admin.clone(),
        ]
    }
}

/// Runs everything until a signal comes.
///
/// # Errors
/// When no Redis is found, the address is in use, or a daemon refuses its configuration.
pub(crate) async fn run(args: DevArgs, common: &Common) -> anyhow::Result<Exit> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    ensure_distinct(&args.scale)?;
    let spawner = Spawner::start()?;
    ensure_free(args.listen)?;
    fs::create_dir_all(&args.data_dir)
        .with_context(|| format!("cannot make the folder `{}`", args.data_dir.display()))?;
    let _lock = lock(&args)?;

    let redis = match &args.redis_url {
        Some(_) => None,
        None => Some(Arc::new(LocalRedis::in_folder(&args.data_dir).await?)),
    };
    let mut store = None;
    if let Some(redis) = &redis {
        redis.free_within(FREE_WITHIN).await?;
        store = Some(Child::start(
            &spawner,
            Plan::redis(Arc::clone(redis), args.verbose),
        ));
    }
    let redis_url = args
        .redis_url
        .clone()
        .or_else(|| redis.as_ref().map(|redis| redis.url()));
    let redis_url = redis_url.context("either a URL is given or a server was found")?;
    let (plans, urls) = plans(&args, &redis_url)?;
    let daemons = plans
        .into_iter()
        .map(|plan| Child::start(&spawner, plan))
        .collect::<Vec<_>>();
    let scaler = scaler(&spawner, &args.scale, urls, common)?;

    let stopped = async {
        tokio::select! {
            _ = interrupt.recv() => {},
            _ = terminate.recv() => {},
            _ = hangup.recv() => {},
        }
    };
    let life = async {
        ready(store.as_ref(), &daemons).await?;
        show(&redis_url, store.as_ref(), &daemons, common)?;
        first_failure(store.as_ref(), &daemons).await
    };
    let outcome = tokio::select! {
        () = stopped => Ok(Exit::Done),
        failed = life => failed,
    };
    if outcome.is_ok() {
        note("stopping");
    }
    // A second signal ends the patience with whatever still runs.
    let impatient = async {
        tokio::select! {
            _ = interrupt.recv() => {},
            _ = terminate.recv() => {},
        }
    };
    tokio::select! {
        () = stop(scaler.as_ref(), &daemons, store.as_ref()) => {},
        () = impatient => kill(scaler.as_ref(), &daemons, store.as_ref()).await,
    }
    outcome
}

/// Keeps local workers, where groups are named for that.
fn scaler(
    spawner: &Spawner,
    scales: &[Scale],
    urls: Vec<String>,
    common: &Common,
) -> anyhow::Result<Option<Scaler>> {
    if scales.is_empty() {
        return Ok(None);
    }
    let settings = [
        ("HIVE_URL", urls.join(",")),
        ("HIVE_NAMESPACE", common.namespace.clone()),
    ];
    let client = common.client_of(urls)?;
    Ok(Some(Scaler::start(spawner, client, scales, &settings)))
}

/// What to start, with the settings of each, and the URLs of the gateways.
fn plans(args: &DevArgs, redis_url: &str) -> anyhow::Result<(Vec<Plan>, Vec<String>)> {
    let mut wanted = Vec::new();
    for daemon in Daemon::ALL {
        let copies = match daemon {
            Daemon::Gateway => args.gateways,
            Daemon::Coordinator => args.coordinators,
            Daemon::Router | Daemon::Dlq => 1,
        };
        for copy in 1..=copies {
            let is_door = daemon == Daemon::Gateway && copy == 1;
            let listen = if is_door {
                args.listen
            } else {
                free_address()?
            };
            wanted.push((daemon, copy, listen, free_address()?));
        }
    }
    let doors = wanted
        .iter()
        .filter(|(daemon, ..)| *daemon == Daemon::Gateway);
    let urls = doors
        .map(|(_, _, listen, _)| format!("http://{listen}"))
        .collect::<Vec<_>>();
    let level = if args.verbose { "info" } else { "warn" };
    let plan = |(daemon, copy, listen, admin): (Daemon, u16, SocketAddr, SocketAddr)| {
        let name = match copy {
            1 => daemon.name().to_owned(),
            _ => format!("{}-{copy}", daemon.name()),
        };
        let mut settings = daemon_settings(redis_url, listen, admin, level);
        settings.push(("HIVE_URL", urls.join(",")));
        Plan::daemon(name, daemon, listen, admin, settings)
    };
    let plans = wanted.into_iter().map(plan).collect();
    Ok((plans, urls))
}

/// The environment of a daemon of ours. A log filter of the user's own is left alone.
pub(super) fn daemon_settings(
    redis_url: &str,
    listen: SocketAddr,
    admin: SocketAddr,
    level: &str,
) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("HIVE_REDIS_URL", redis_url.to_owned()),
        ("HIVE_SERVER_LISTEN", listen.to_string()),
        ("HIVE_ADMIN_LISTEN", admin.to_string()),
        ("HIVE_PARENT_PID", process::id().to_string()),
    ];
    if std::env::var_os("HIVE_LOG_FILTER").is_none() {
        settings.push(("HIVE_LOG_FILTER", level.to_owned()));
    }
    settings
}

/// Waits until every process is ready, or one has failed for good.
async fn ready(store: Option<&Child>, daemons: &[Child]) -> anyhow::Result<()> {
    let all = async {
        for child in store.into_iter().chain(daemons) {
            child.ready().await;
        }
    };
    tokio::select! {
        () = all => Ok(()),
        failed = first_failure(store, daemons) => failed.map(|_| ()),
        () = tokio::time::sleep(READY_WITHIN) => {
            let late = store.into_iter().chain(daemons).filter(|child| !child.is_ready());
            let late = late.map(|child| child.last_words()).collect::<Vec<_>>().join("\n");
            let message = format!("not ready within {READY_WITHIN:?}:\n{late}");
            Err(Failure::new(Exit::Unavailable, message).into())
        },
    }
}

/// Waits until a process has failed in a way that starting it again cannot mend.
async fn first_failure(store: Option<&Child>, daemons: &[Child]) -> anyhow::Result<Exit> {
    let waits = store
        .into_iter()
        .chain(daemons)
        .map(|child| Box::pin(child.hopeless()));
    let (code, index, _) = futures_util::future::select_all(waits).await;
    let words = store
        .into_iter()
        .chain(daemons)
        .nth(index)
        .map(Child::last_words);
    let exit = match code {
        64 => Exit::Usage,
        78 => Exit::Config,
        _ => Exit::Unavailable,
    };
    Err(Failure::new(exit, words.unwrap_or_default()).into())
}

/// Prints the table of addresses and the line `ready`.
fn show(
    redis_url: &str,
    store: Option<&Child>,
    daemons: &[Child],
    common: &Common,
) -> anyhow::Result<()> {
    let redis = Address {
        name: "redis".to_owned(),
        pid: store.and_then(Child::pid),
        address: redis_url.to_owned(),
        admin: String::new(),
    };
    let rows = daemons.iter().map(|child| Address {
        name: child.name().to_owned(),
        pid: child.pid(),
        address: child.address(),
        admin: child.admin(),
    });
    let out = common.out();
    out.list(&std::iter::once(redis).chain(rows).collect::<Vec<_>>())?;
    match out.format() {
        Format::Table => out.text("ready"),
        Format::Json | Format::Jsonl => {
            note("ready");
            Ok(())
        },
    }
}

/// Stops the local workers, then the daemons, all at once, and then the Redis.
async fn stop(scaler: Option<&Scaler>, daemons: &[Child], store: Option<&Child>) {
    if let Some(scaler) = scaler {
        scaler.stop().await;
    }
    futures_util::future::join_all(daemons.iter().map(Child::stop)).await;
    if let Some(store) = store {
        store.stop().await;
    }
}

/// Kills whatever still runs.
async fn kill(scaler: Option<&Scaler>, daemons: &[Child], store: Option<&Child>) {
    if let Some(scaler) = scaler {
        scaler.kill().await;
    }
    futures_util::future::join_all(daemons.iter().chain(store).map(Child::kill)).await;
}

/// Keeps a second run out of the same folder.
fn lock(args: &DevArgs) -> anyhow::Result<File> {
    let path = args.data_dir.join("dev.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path);
    let file = file.with_context(|| format!("cannot open `{}`", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let folder = args.data_dir.display();
            let message = format!("another `hive dev` runs in `{folder}`; use another --data-dir");
            Err(Failure::new(Exit::Unavailable, message).into())
        },
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock `{}`", path.display()))
        },
    }
}

/// Refuses an address that somebody listens on, before anything is started.
fn ensure_free(address: SocketAddr) -> Result<(), Failure> {
    TcpListener::bind(address).map(drop).map_err(|error| {
        let message = format!("cannot listen on `{address}`: {error}; choose another --listen");
        Failure::new(Exit::Unavailable, message)
    })
}

/// A loopback address that nobody listens on just now.
pub(super) fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?)
}
