//! One agent's membership in a group: takes deliveries, runs handlers, settles their outcomes.
//!
//! A worker joins a group over one stream, keeps its leases by heartbeats whatever its handlers
//! do, and when the connection is lost joins again, first at another gateway, under the same
//! session and with what it holds. Handlers go on meanwhile. Read next: `table` for what becomes
//! of one delivery, `membership` for the frames.

mod credit;
mod event;
mod failure;
mod job;
mod membership;
mod table;

use std::{fmt, sync::Arc, time::Duration};

use hive_protocol::{
    fault::Fault,
    limits::{CONCURRENCY_MAX, IN_FLIGHT_MAX},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::membership::Membership;
pub use self::{
    event::Event,
    failure::Failure,
    job::{Job, Outcome, Work},
};
use crate::client::Client;

/// How long handlers may go on after a shutdown began, unless the builder says otherwise.
const GRACE_DEFAULT: Duration = Duration::from_secs(30);

/// Takes the events of a worker.
type Watch = Arc<dyn Fn(Event) + Send + Sync>;

/// How a worker ended that was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Outcomes that handlers gave and the worker sent.
    pub handled: u64,
    /// Handlers that were still running when the grace was over; their messages were given back.
    pub unfinished: usize,
    /// Whether the server asked it to go for good: fewer agents are wanted, and whoever started it
    /// should not start another one in its place.
    pub drained: bool,
}

/// Why a worker ended by itself.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WorkError {
    /// Another process joined the group under the same id; what this one held is not its own any
    /// more.
    #[error("consumer `{consumer_id}` was replaced by another process with this id: {fault}")]
    Fenced {
        /// The id.
        consumer_id: String,
        /// What the gateway said.
        fault: Fault,
    },
    /// The group does not exist, and the worker was not asked to wait for it.
    #[error("group `{group}` must exist: {fault}")]
    NoGroup {
        /// The group.
        group: String,
        /// What the gateway said.
        fault: Fault,
    },
    /// The gateway refuses the membership, and trying again would not help.
    #[error("membership in group `{group}` was refused: {fault}")]
    Refused {
        /// The group.
        group: String,
        /// What the gateway said.
        fault: Fault,
    },
}

/// Settings of a [`Worker`].
#[must_use]
pub struct WorkerBuilder<W> {
    client: Client,
    settings: Settings,
    work: W,
}

/// What a membership needs to know.
#[derive(Clone)]
struct Settings {
    group: String,
    consumer_id: String,
    capabilities: Vec<String>,
    concurrency: u32,
    max_in_flight: Option<u32>,
    grace: Duration,
    must_exist: bool,
    accept_offers: bool,
    pod: String,
    shutdown: CancellationToken,
    watch: Option<Watch>,
}

impl<W: fmt::Debug> fmt::Debug for WorkerBuilder<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerBuilder")
            .field("group", &self.settings.group)
            .field("consumer_id", &self.settings.consumer_id)
            .field("work", &self.work)
            .finish_non_exhaustive()
    }
}

impl<W: Work> WorkerBuilder<W> {
    /// Id of the agent in the group; a name. Default: `worker-` and a random id. Two live workers
    /// under one id fence each other out.
    pub fn consumer_id(mut self, id: impl Into<String>) -> Self {
        self.settings.consumer_id = id.into();
        self
    }

    /// What the agent can do; messages that require more never reach it. At most 64 names.
    pub fn capabilities<S: Into<String>>(
        mut self,
        capabilities: impl IntoIterator<Item = S>,
    ) -> Self {
        self.settings.capabilities = capabilities.into_iter().map(Into::into).collect();
        self
    }

    /// How many handlers run at once, 1 to 10,000. Default 1.
    pub fn concurrency(mut self, handlers: u32) -> Self {
        self.settings.concurrency = handlers.clamp(1, CONCURRENCY_MAX);
        self
    }

    /// Most deliveries the agent holds, begun or not, 1 to 10,000. More than `concurrency` hides
    /// the way to the gateway from short handlers; with long ones it keeps work from agents that
    /// are free. Default: as `concurrency`.
    pub fn max_in_flight(mut self, deliveries: u32) -> Self {
        self.settings.max_in_flight = Some(deliveries.clamp(1, IN_FLIGHT_MAX));
        self
    }

    /// How long handlers may go on after the shutdown began. Default 30 s.
    pub const fn grace(mut self, grace: Duration) -> Self {
        self.settings.grace = grace;
        self
    }

    /// Waits for a group that does not exist (or is deleted) instead of ending with an error.
    pub const fn wait_for_group(mut self, waits: bool) -> Self {
        self.settings.must_exist = !waits;
        self
    }

    /// Whether the agent helps other groups out while its own has no work. Such an offer comes from
    /// the server. The worker then joins the offered group too, under the same id and with the same
    /// handler, which finds the group in its [`Job`]; over both never more handlers run than
    /// `concurrency`. It leaves once that group gave nothing for 10 s, its own group has work
    /// again, or the worker ends. One group is helped at a time. Default false.
    pub const fn accept_offers(mut self, accepts: bool) -> Self {
        self.settings.accept_offers = accepts;
        self
    }

    /// Name of the pod that the agent runs in as `namespace/name`, at most 320 bytes: when fewer
    /// agents are wanted, Kubernetes is told which pods have the least to lose. Default: none.
    pub fn pod(mut self, name: impl Into<String>) -> Self {
        self.settings.pod = name.into();
        self
    }

    /// Ends the worker when it fires: what is unstarted goes back uncounted, running handlers
    /// finish within the grace, the membership is left.
    pub fn shutdown(mut self, token: CancellationToken) -> Self {
        self.settings.shutdown = token;
        self
    }

    /// Calls `watch` at each event. It stands between frames: it must not block.
    pub fn on_event(mut self, watch: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.settings.watch = Some(Arc::new(watch));
        self
    }

    /// Builds the worker; nothing happens before [`Worker::run`].
    #[must_use]
    pub fn build(self) -> Worker<W> {
        Worker {
            client: self.client,
            settings: self.settings,
            work: Arc::new(self.work),
        }
    }
}

/// One agent of a group.
pub struct Worker<W> {
    client: Client,
    settings: Settings,
    work: Arc<W>,
}

impl<W> fmt::Debug for Worker<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("group", &self.settings.group)
            .field("consumer_id", &self.settings.consumer_id)
            .finish_non_exhaustive()
    }
}

impl<W: Work> Worker<W> {
    /// Settings for an agent of `group` that does `work`.
    pub fn builder(client: Client, group: impl Into<String>, work: W) -> WorkerBuilder<W> {
        let settings = Settings {
            group: group.into(),
            consumer_id: format!("worker-{}", Uuid::now_v7()),
            capabilities: Vec::new(),
            concurrency: 1,
            max_in_flight: None,
            grace: GRACE_DEFAULT,
            must_exist: true,
            accept_offers: false,
            pod: String::new(),
            shutdown: CancellationToken::new(),
            watch: None,
        };
        WorkerBuilder {
            client,
            settings,
            work,
        }
    }

    /// Id of the agent in the group.
    #[must_use]
    pub fn consumer_id(&self) -> &str {
        &self.settings.consumer_id
    }

    /// Works until the shutdown token fires, or the server says that fewer agents are wanted. A
    /// lost connection, a gateway or a Redis that is away do not end it. Dropping the future drops
    /// the connection: what it held is given up by the server after the group's reconnect grace,
    /// and what was begun counts as failed.
    ///
    /// # Errors
    /// When another process took the id over, the group does not exist, or the membership can
    /// never be granted.
    pub async fn run(self) -> Result<Ended, WorkError> {
        Box::pin(Membership::new(self.client, self.settings, self.work).run()).await
    }
}
