//! A Redis, gateways and coordinators for one test, the log of the run, and its verdict.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use hive_client::{CallError, Client, Reason, wire};
use hive_protocol::time::to_duration;
use hive_store::{Store, StoreConfig, header::Header};
use hive_testkit::{
    checker::{self, Report, Terms},
    daemon::Daemon,
    history::{AtRest, Damage, DeadCause, DeadLetter, Event, Failure, Figures, Recorder, Target},
    redis::{RedisBuilder, RedisServer},
    wait,
};
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
};

/// Longest wait of a test for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Category of a reject of these tests; whatever else a dead letter names is another death.
pub(crate) const REJECTED: &str = "rejected";
/// The one stream of a run.
pub(crate) const STREAM: &str = "s";
/// Messages per page of a peek.
const PAGE: u32 = 500;

/// A daemon of a run that a test kills and starts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    /// The gateway of this number.
    Gateway(usize),
    /// The coordinator of this number.
    Coordinator(usize),
    /// The router of this number.
    Router(usize),
    /// The Redis.
    Redis,
}

impl Victim {
    fn name(self) -> String {
        match self {
            Self::Gateway(number) => format!("gateway {number}"),
            Self::Coordinator(number) => format!("coordinator {number}"),
            Self::Router(number) => format!("router {number}"),
            Self::Redis => "redis".to_owned(),
        }
    }

    const fn target(self) -> Target {
        match self {
            Self::Gateway(_) => Target::Gateway,
            Self::Coordinator(_) | Self::Router(_) => Target::Daemon,
            Self::Redis => Target::Redis,
        }
    }
}

/// Everything that runs for one test.
pub(crate) struct World {
    pub(crate) redis: RedisServer,
    pub(crate) gateways: Vec<Daemon>,
    pub(crate) coordinators: Vec<Daemon>,
    pub(crate) routers: Vec<Daemon>,
    pub(crate) log: Arc<Recorder>,
}

impl World {
    /// A Redis, and so many gateways and coordinators on it.
    pub(crate) async fn start(
        redis: RedisBuilder,
        gateways: usize,
        coordinators: usize,
    ) -> Result<Self> {
        let redis = redis.start().await?;
        let log = Arc::new(Recorder::new());
        let mut world = Self {
            redis,
            gateways: Vec::new(),
            coordinators: Vec::new(),
            routers: Vec::new(),
            log,
        };
        for _ in 0..gateways {
            world.add_gateway(&world.redis.url(), &[]).await?;
        }
        for _ in 0..coordinators {
            world
                .coordinators
                .push(Daemon::coordinator(&world.redis.url()).await?);
        }
        Ok(world)
    }

    /// Starts one more gateway, on this way to the Redis.
    pub(crate) async fn add_gateway(
        &mut self,
        redis_url: &str,
        environment: &[(&str, &str)],
    ) -> Result<()> {
        self.gateways
            .push(Daemon::start("hive-gateway", redis_url, environment).await?);
        Ok(())
    }

    /// Starts one more router.
    pub(crate) async fn add_router(&mut self) -> Result<()> {
        let router = Daemon::router(&self.redis.url()).await?;
        self.routers.push(router);
        Ok(())
    }

    /// URLs of whoever takes calls about workflows.
    pub(crate) fn service_urls(&self) -> Vec<String> {
        self.gateways.iter().map(Daemon::url).collect()
    }

    /// Messages of these groups that were acked.
    pub(crate) async fn acked(&self, groups: &[String]) -> Result<u64> {
        let mut acked = 0;
        for group in groups {
            acked += self.figures(group).await?.acked_total;
        }
        Ok(acked)
    }

    /// URLs of all gateways, the given one first.
    pub(crate) fn urls(&self, first: usize) -> String {
        let count = self.gateways.len();
        (0..count)
            .filter_map(|step| self.gateways.get((first + step) % count))
            .map(Daemon::url)
            .collect::<Vec<_>>()
            .join(",")
    }

    /// URL of one gateway.
    pub(crate) fn url(&self, number: usize) -> String {
        self.gateways
            .get(number)
            .map(Daemon::url)
            .unwrap_or_default()
    }

    /// A client that prefers one gateway and knows the others.
    pub(crate) fn client(&self, first: usize) -> Result<Client> {
        Ok(Client::new(&self.urls(first))?)
    }

    /// Creates a group on the stream.
    pub(crate) async fn group(&self, name: &str, settings: wire::GroupSettings) -> Result<()> {
        self.group_of(name, "tester", settings).await
    }

    /// Creates a group on the stream, for agents of a type.
    pub(crate) async fn group_of(
        &self,
        name: &str,
        agent_type: &str,
        settings: wire::GroupSettings,
    ) -> Result<()> {
        let request = wire::CreateGroupRequest {
            name: name.into(),
            stream_name: STREAM.into(),
            agent_type: agent_type.into(),
            settings: Some(settings),
            ..wire::CreateGroupRequest::default()
        };
        self.client(0)?
            .create_group(request)
            .await
            .context("creating a group")?;
        Ok(())
    }

    /// The figures of a group as they are now.
    pub(crate) async fn figures(&self, group: &str) -> Result<wire::GroupFigures> {
        let group = self.client(0)?.get_group(group).await?;
        group.figures.context("a group comes with figures")
    }

    /// Waits until nothing of these groups is unsettled.
    pub(crate) async fn drained(&self, groups: &[&str], patience: Duration) -> Result<()> {
        for group in groups {
            let what = format!("group `{group}` to be drained");
            wait::try_until(patience, &what, || async {
                let figures = self.figures(group).await?;
                let left = figures.lag + figures.pending_count + figures.scheduled_count;
                ensure!(left == 0, "{figures:?}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// A store of the test's own on this Redis.
    pub(crate) fn store(&self) -> Result<Store> {
        Ok(Store::open(StoreConfig {
            url: self.redis.url(),
            ..StoreConfig::default()
        })?)
    }

    /// Kills a daemon or the Redis with SIGKILL.
    pub(crate) fn kill(&mut self, victim: Victim) -> Result<()> {
        self.log.record(Event::FaultBegan {
            name: victim.name().into(),
            target: victim.target(),
            damage: Damage::Killed,
        });
        match victim {
            Victim::Gateway(number) => daemon(&mut self.gateways, number)?.kill9(),
            Victim::Coordinator(number) => daemon(&mut self.coordinators, number)?.kill9(),
            Victim::Router(number) => daemon(&mut self.routers, number)?.kill9(),
            Victim::Redis => self.redis.kill9(),
        }
    }

    /// Starts a killed one again, on its old addresses, and waits until it is ready.
    pub(crate) async fn revive(&mut self, victim: Victim) -> Result<()> {
        match victim {
            Victim::Gateway(number) => daemon(&mut self.gateways, number)?.restart().await?,
            Victim::Coordinator(number) => {
                let coordinator = daemon(&mut self.coordinators, number)?;
                coordinator.restart().await?;
            },
            Victim::Router(number) => daemon(&mut self.routers, number)?.restart().await?,
            Victim::Redis => self.redis.restart().await?,
        }
        self.log.record(Event::FaultEnded {
            name: victim.name().into(),
        });
        Ok(())
    }

    /// Writes down how the groups are now that nothing moves, and judges the run.
    pub(crate) async fn verdict(&self, groups: &[&str], terms: &Terms) -> Result<Report> {
        for group in groups {
            let unsettled = unless_gone(self.unsettled(group).await)?.unwrap_or_default();
            let figures = unless_gone(self.figures(group).await)?;
            self.log.record(Event::AtRest(Box::new(AtRest {
                group: (*group).into(),
                unsettled: unsettled.into_iter().map(Into::into).collect(),
                figures: figures.map(|figures| Figures {
                    lag: figures.lag,
                    pending: figures.pending_count,
                    scheduled: figures.scheduled_count,
                    published_total: figures.published_total,
                    acked_total: figures.acked_total,
                    dead_total: figures.dead_total,
                }),
            })));
        }
        self.note_dead_letters().await?;
        Ok(checker::check(&self.log.snapshot(), terms))
    }

    /// Ids of all unsettled messages of a group.
    async fn unsettled(&self, group: &str) -> Result<Vec<String>> {
        let client = self.client(0)?;
        let mut ids = Vec::new();
        let mut cursor = String::new();
        loop {
            let request = wire::PeekMessagesRequest {
                group: group.into(),
                limit: PAGE,
                cursor,
                ..wire::PeekMessagesRequest::default()
            };
            let page = client.peek_messages(request).await?;
            ids.extend(
                page.messages
                    .into_iter()
                    .filter_map(|one| Some(one.message?.message_id)),
            );
            if page.next_cursor.is_empty() {
                return Ok(ids);
            }
            cursor = page.next_cursor;
        }
    }

    /// All dead letters of the stream, as the store has them.
    pub(crate) async fn dead_letters(&self) -> Result<Vec<hive_store::dead::DeadLetter>> {
        let store = self.store()?;
        let shard = store.shard("default", STREAM, 0);
        let mut all = Vec::new();
        loop {
            let from = all.last().map_or_else(
                || "0-0".to_owned(),
                |last: &hive_store::dead::DeadLetter| last.id.clone(),
            );
            let page = store.dead_letters(&shard, &from, 500).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    async fn note_dead_letters(&self) -> Result<()> {
        for letter in self.dead_letters().await? {
            let (_, envelope) = Header::split(&letter.body)?;
            let message = wire::Message::decode(envelope)?;
            let cause = match letter.category.as_str() {
                REJECTED => DeadCause::Rejected,
                "expired" => DeadCause::Expired,
                "cancelled" => DeadCause::Cancelled,
                _ => DeadCause::AttemptsUsedUp,
            };
            // Who failed is of no matter here: in these runs nothing dies of its failures.
            let failure = Failure {
                consumer: "".into(),
                is_loss: true,
            };
            let failures = vec![failure; usize::try_from(letter.failures)?];
            self.log.record(Event::DeadLetter(Box::new(DeadLetter {
                group: letter.group.into(),
                message: message.message_id.into(),
                cause,
                failures,
            })));
        }
        Ok(())
    }

    /// One command to the Redis, as a person types it; an error answer is an error.
    pub(crate) async fn redis(&self, line: &str) -> Result<String> {
        let mut connection = UnixStream::connect(self.redis.socket()).await?;
        connection
            .write_all(format!("{line}\r\n").as_bytes())
            .await?;
        let mut answer = vec![0; 64 * 1024];
        let length = connection.read(&mut answer).await?;
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        if answer.starts_with('-') {
            bail!("`{line}` was answered `{}`", answer.trim_end());
        }
        Ok(answer)
    }
}

/// What the gateway cannot show any more because it is gone is none, and the checker says so.
fn unless_gone<T>(answer: Result<T>) -> Result<Option<T>> {
    let is_gone = |error: &anyhow::Error| {
        let call = error.downcast_ref::<CallError>();
        call.is_some_and(|call| call.fault().reason == Reason::DataLoss)
    };
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn daemon(daemons: &mut [Daemon], number: usize) -> Result<&mut Daemon> {
    daemons.get_mut(number).context("a daemon of this number")
}

/// Settings of a group for runs with faults: nothing dies of failures, backoffs are short.
pub(crate) fn settings(lease: Duration, grace: Duration) -> wire::GroupSettings {
    let wire_form = |time: Duration| to_duration(u64::try_from(time.as_millis()).unwrap_or(0));
    wire::GroupSettings {
        lease: Some(wire_form(lease)),
        reconnect_grace: Some(wire_form(grace)),
        max_attempts: Some(100),
        initial_backoff: Some(wire_form(Duration::from_millis(100))),
        max_backoff: Some(wire_form(Duration::from_secs(1))),
        ..wire::GroupSettings::default()
    }
}

/// The terms of a run with [`settings`].
pub(crate) fn terms(lease: Duration) -> Terms {
    Terms {
        max_attempts: 100,
        lease,
        ..Terms::default()
    }
}
