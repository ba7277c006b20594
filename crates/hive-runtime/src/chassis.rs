//! What a daemon's own code is built on: its port, tasks, health, drain gate and shutdown.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::admin::Admin;
use crate::config::Config;
use crate::door::Door;
use crate::gate::Gate;
use crate::health::Health;
use crate::metrics::chassis::READY;
use crate::metrics::{Gauge, MetricDef, Scrape};
use crate::shutdown::Shutdown;
use crate::tasks::{BACKGROUND, SERVER, Tasks};
use crate::telemetry::LogFilter;

/// How often observations are folded into their buckets.
const UPKEEP_EVERY: std::time::Duration = std::time::Duration::from_secs(5);

/// The parts of a running daemon. Take it apart and hand on what is needed.
#[derive(Debug)]
pub struct Chassis {
    /// Starts tasks.
    pub tasks: Tasks,
    /// Says when to refuse new work, and when to end.
    pub shutdown: Shutdown,
    /// Keeps the daemon from ending while work runs.
    pub gate: Gate,
    /// Says whether the daemon is ready, and why not.
    pub health: Health,
    /// The main port, bound.
    pub door: Door,
}

/// A port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("`{key}` = `{address}` cannot be listened on")]
pub struct BindError {
    /// The key that holds the address.
    pub key: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// What the system says.
    #[source]
    pub source: io::Error,
}

impl Chassis {
    /// Builds a chassis inside a test: both ports open, nothing of the process touched (no signals,
    /// no log, no panic hook; `/metrics` shows `metrics` at zero). The configuration comes back
    /// with the addresses that were bound.
    ///
    /// # Errors
    /// When a port cannot be opened.
    pub async fn detached<S>(
        config: Config<S>,
        metrics: &[&'static [MetricDef]],
    ) -> Result<(Config<S>, Self), BindError> {
        Self::open(config, Scrape::detached(metrics), LogFilter::detached()).await
    }

    /// Ends the daemon the way a signal does, without its grace: refuses, stops, waits for tasks.
    /// For tests, beside [`Chassis::detached`]; names the tasks that did not end.
    pub async fn close(
        shutdown: &Shutdown,
        tasks: &Tasks,
        limit: std::time::Duration,
    ) -> Vec<String> {
        shutdown.stop();
        tasks.close(limit).await
    }

    pub(crate) async fn open<S>(
        mut config: Config<S>,
        scrape: Scrape,
        log: LogFilter,
    ) -> Result<(Config<S>, Self), BindError> {
        let (listener, address) = bind("server.listen", config.server.listen).await?;
        let (admin_listener, admin_address) = bind("admin.listen", config.admin.listen).await?;
        config.server.listen = address;
        config.admin.listen = admin_address;
        if config.server.advertise.is_empty() {
            config.server.advertise = address.to_string();
        }

        let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
        let (gate, health) = (Gate::new(), Health::new());
        let door = Door {
            listener,
            address,
            component: health.component("server"),
            health: health.clone(),
            tasks: tasks.clone(),
            shutdown: shutdown.clone(),
        };
        let admin = Admin {
            health: health.clone(),
            tasks: tasks.clone(),
            scrape: scrape.clone(),
            log,
            config: config.values.render(),
        };
        // Aborted at the stop, so it has no connections to wait for; still it must not end before.
        let stop = shutdown.clone();
        tasks.spawn(SERVER, "admin", async move {
            tokio::select! {
                served = admin.serve(admin_listener) => served,
                () = stop.stopped() => Ok(()),
            }
        });
        tasks.spawn(BACKGROUND, "metrics_upkeep", upkeep(scrape));
        let addresses = Addresses {
            listen: address,
            advertise: config.server.advertise.clone(),
            admin: admin_address,
        };
        tasks.spawn(
            BACKGROUND,
            "readiness",
            announce(health.clone(), shutdown.clone(), addresses),
        );
        Ok((
            config,
            Self {
                tasks,
                shutdown,
                gate,
                health,
                door,
            },
        ))
    }
}

#[derive(Debug)]
struct Addresses {
    listen: SocketAddr,
    advertise: String,
    admin: SocketAddr,
}

async fn bind(
    key: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), BindError> {
    let refused = |source| BindError {
        key,
        address,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}

async fn upkeep(scrape: Scrape) {
    let mut ticks = tokio::time::interval(UPKEEP_EVERY);
    loop {
        ticks.tick().await;
        scrape.upkeep();
    }
}

/// Logs when the daemon is ready for the first time, and each time it ceases or begins to be.
async fn announce(health: Health, shutdown: Shutdown, addresses: Addresses) {
    let gauge = Gauge::new(&READY, &[]);
    let mut changes = health.watch();
    let (mut was_ready, mut is_first) = (false, true);
    loop {
        let report = changes.borrow_and_update().clone();
        let is_ready = report.is_ready();
        gauge.set(f64::from(u8::from(is_ready)));
        if is_ready && !was_ready && is_first {
            is_first = false;
            let Addresses {
                listen,
                advertise,
                admin,
            } = &addresses;
            tracing::info!(%listen, advertise, %admin, "ready");
        } else if is_ready && !was_ready {
            tracing::info!("ready_again");
        } else if !is_ready && was_ready && !shutdown.is_draining() {
            tracing::warn!(reasons = report.reasons(), "not_ready");
        }
        was_ready = is_ready;
        if changes.changed().await.is_err() {
            return;
        }
    }
}
