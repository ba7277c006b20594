//! A private Redis, gateway, coordinator and, for workflows, router for one bench.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::{
    children::Spawner,
    commands::{
        dev::{
            child::{Child, Plan},
            daemon_settings, free_address,
        },
        serve::Daemon,
    },
    exit::{Exit, Failure},
    local_redis::LocalRedis,
};

/// How long it may take until all are ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// What was started for the bench.
#[derive(Debug)]
pub(super) struct Private {
    redis: Arc<LocalRedis>,
    store: Child,
    gateway: Child,
    coordinator: Child,
    router: Option<Child>,
    /// Goes, with all data, when the bench is over.
    _folder: Option<TempDir>,
}

impl Private {
    /// Starts all but the router and waits until they are ready.
    ///
    /// # Errors
    /// When no Redis server is found, or one of them does not become ready.
    pub(super) async fn start(folder: Option<&Path>) -> anyhow::Result<Self> {
        Self::start_with(folder, false).await
    }

    /// As [`Self::start`], and a router.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(super) async fn start_with_router(folder: Option<&Path>) -> anyhow::Result<Self> {
        Self::start_with(folder, true).await
    }

    async fn start_with(folder: Option<&Path>, has_router: bool) -> anyhow::Result<Self> {
        let (folder, temporary) = folder_or_temporary(folder)?;
        let spawner = Spawner::start()?;
        let redis = Arc::new(LocalRedis::in_folder(&folder).await?);
        let store = Child::start(&spawner, Plan::redis(Arc::clone(&redis), false));
        let daemon = |daemon: Daemon| {
            let (listen, admin) = (free_address()?, free_address()?);
            let settings = daemon_settings(&redis.url(), listen, admin, "warn");
            let plan = Plan::daemon(daemon.name().to_owned(), daemon, listen, admin, settings);
            anyhow::Ok(Child::start(&spawner, plan))
        };
        let (gateway, coordinator) = (daemon(Daemon::Gateway)?, daemon(Daemon::Coordinator)?);
        let router = has_router.then(|| daemon(Daemon::Router)).transpose()?;
        let all = Self {
            redis,
            store,
            gateway,
            coordinator,
            router,
            _folder: temporary,
        };
        let ready = async {
            for child in all.children() {
                child.ready().await;
            }
        };
        if timeout(READY_WITHIN, ready).await.is_err() {
            let late = all
                .children()
                .filter(|child| !child.is_ready())
                .map(|it| it.last_words());
            let late = late.collect::<Vec<_>>().join("\n");
            all.stop().await;
            let message = format!("not ready within {READY_WITHIN:?}:\n{late}");
            return Err(Failure::new(Exit::Unavailable, message).into());
        }
        Ok(all)
    }

    fn children(&self) -> impl Iterator<Item = &Child> {
        [&self.store, &self.gateway, &self.coordinator]
            .into_iter()
            .chain(&self.router)
    }

    /// The URL of the gateway.
    pub(super) fn url(&self) -> String {
        self.gateway.address()
    }

    /// The URL of the Redis.
    pub(super) fn redis_url(&self) -> String {
        self.redis.url()
    }

    /// The process id of the gateway.
    pub(super) fn gateway_pid(&self) -> Option<u32> {
        self.gateway.pid()
    }

    /// Stops the daemons, then the Redis.
    pub(super) async fn stop(self) {
        if let Some(router) = self.router {
            router.stop().await;
        }
        tokio::join!(self.gateway.stop(), self.coordinator.stop());
        self.store.stop().await;
    }
}

/// The folder asked for, or a temporary one: beside the working files rather than in memory, where
/// the append-only file would cost nothing.
fn folder_or_temporary(folder: Option<&Path>) -> anyhow::Result<(PathBuf, Option<TempDir>)> {
    if let Some(folder) = folder {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
        return Ok((folder.to_owned(), None));
    }
    let here = env::current_dir().context("the working directory is gone")?;
    let temporary = tempfile::Builder::new()
        .prefix(".hive-bench-")
        .tempdir_in(here)?;
    Ok((temporary.path().to_owned(), Some(temporary)))
}
