//! Which daemons live: each replica beats once a second and is gone after 4 s of silence.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use crate::{
    connection::{Purpose, Store},
    dataset::{ADVICE, fresh_nonce},
    error::StoreError,
    preflight::Severity,
    reply,
    scripts::{Call, DAEMON_BEAT},
};

/// A replica silent for longer is gone, in ms.
pub const GONE_MS: u64 = 4_000;
/// How long after its time a replica that is gone is looked for, in ms.
const GONE_MARGIN_MS: u64 = 5;
/// How often a replica beats.
const BEAT: Duration = Duration::from_secs(1);
/// A beat without an answer for so long means that Redis is away.
const BEAT_WITHIN: Duration = Duration::from_secs(2);

/// This replica, as it announces itself.
#[derive(Debug, Clone)]
pub struct Registration {
    /// `gateway`, `coordinator`, `router` or `dlq`.
    pub daemon: &'static str,
    /// Random word of this start.
    pub instance: String,
    /// Address for callers.
    pub advertise: String,
    /// Build.
    pub version: String,
    /// Start time in ms since 1970, by the clock of its host: for whoever looks at the registry.
    pub started_ms: u64,
}

impl Registration {
    /// This start of a daemon, under a random word that no other start has.
    #[must_use]
    pub fn new(daemon: &'static str, version: &str, advertise: &str) -> Self {
        let started = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            daemon,
            instance: Uuid::new_v4().simple().to_string(),
            advertise: advertise.to_owned(),
            version: version.to_owned(),
            started_ms: u64::try_from(started.as_millis()).unwrap_or_default(),
        }
    }
}

/// What a replica hears of Redis while it is announced. All of it was logged.
#[derive(Debug)]
pub enum Heard<'a> {
    /// Redis answered a beat.
    There {
        /// The replicas that live.
        live: &'a [Replica],
        /// How long the answer took.
        took: Duration,
    },
    /// Redis did not answer a beat.
    Away(&'a StoreError),
    /// Redis answered, and it holds other data than this replica knew: said once.
    Changed(&'a StoreError),
    /// The data is what this replica knew again, or was accepted: said once.
    Accepted,
}

/// This Redis may lose accepted work by its set-up; an operator must mend it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this redis is not fit to keep accepted work: {0}")]
pub struct Unfit(pub String);

/// A live replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// `gateway`, `coordinator`, `router` or `dlq`.
    pub daemon: String,
    /// Random word of its start.
    pub instance: String,
    /// Address for callers.
    pub advertise: String,
    /// Build.
    pub version: String,
    /// Last beat in ms since 1970.
    pub beat_ms: u64,
    /// The nonce of the dataset that it knows; `-` for none.
    pub dataset: String,
}

/// Of each replica its daemon and its address for callers.
pub fn places(replicas: &[Replica]) -> impl Iterator<Item = (&str, &str)> {
    replicas
        .iter()
        .map(|one| (one.daemon.as_str(), one.advertise.as_str()))
}

/// How long it is until the first of the other replicas of this daemon is gone if it is not heard
/// of: what is its has no owner from then on. None where the next beat is sooner.
fn next_gone(live: &[Replica], me: &Registration) -> Option<Duration> {
    let peers = live.iter().filter(|one| one.daemon == me.daemon);
    let now = peers
        .clone()
        .find(|one| one.instance == me.instance)?
        .beat_ms;
    let others = peers.filter(|one| one.instance != me.instance);
    let left = others.map(|one| (one.beat_ms + GONE_MS).saturating_sub(now) + GONE_MARGIN_MS);
    let left = left.min().map(Duration::from_millis)?;
    (left < BEAT).then_some(left)
}

impl Store {
    /// Says that this replica lives; answers all that do, by daemon and instance.
    ///
    /// # Errors
    /// As in `StoreError`; `Dataset` when Redis holds other data than this replica knew.
    pub async fn beat(&self, me: &Registration) -> Result<Vec<Replica>, StoreError> {
        let member = format!("{}/{}", me.daemon, me.instance);
        let (replicas, nonce) = self.past_guard().registry(&member, me, false).await?;
        let claims: Vec<String> = replicas
            .iter()
            .map(|replica| replica.dataset.clone())
            .collect();
        self.guard().judge(&nonce, &claims);
        self.guard().admit()?;
        Ok(replicas)
    }

    /// Takes this replica out of the registry.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn sign_off(&self, me: &Registration) -> Result<(), StoreError> {
        self.past_guard()
            .registry(&format!("{}/{}", me.daemon, me.instance), me, true)
            .await
            .map(drop)
    }

    /// All live replicas, by daemon and instance.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn replicas(&self) -> Result<Vec<Replica>, StoreError> {
        let nobody = Registration {
            daemon: "",
            instance: String::new(),
            advertise: String::new(),
            version: String::new(),
            started_ms: 0,
        };
        let (replicas, _) = self.registry("-", &nobody, false).await?;
        Ok(replicas)
    }

    /// Looks once whether Redis is fit, then beats until `stop`, and signs off. Survives Redis
    /// going away at any time. What is found and what changes is logged; `heard` is told of each
    /// beat.
    ///
    /// # Errors
    /// `Unfit` when the preflight refuses the server, unless `allow_eviction`.
    pub async fn announce(
        &self,
        me: &Registration,
        allow_eviction: bool,
        stop: impl Future<Output = ()>,
        mut heard: impl FnMut(Heard<'_>),
    ) -> Result<(), Unfit> {
        let ended = tokio::select! {
            unfit = self.announce_always(me, allow_eviction, &mut heard) => Err(unfit),
            () = stop => Ok(()),
        };
        // Nobody waits for a replica that did not sign off for longer than four beats.
        let farewell = tokio::time::timeout(BEAT, self.sign_off(me)).await;
        if !matches!(farewell, Ok(Ok(()))) {
            tracing::warn!(daemon = me.daemon, "sign_off_failed");
        }
        ended
    }

    async fn announce_always(
        &self,
        me: &Registration,
        allow_eviction: bool,
        heard: &mut impl FnMut(Heard<'_>),
    ) -> Unfit {
        let mut pace = tokio::time::interval(BEAT);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut log = Log::default();
        let findings = loop {
            pace.tick().await;
            match self.preflight().await {
                Ok(findings) => break findings,
                Err(error) => {
                    log.away(&error);
                    heard(Heard::Away(&error));
                },
            }
        };
        for finding in findings {
            let (topic, text) = (finding.topic, finding.text());
            match finding.severity {
                Severity::Info => tracing::info!(topic, text, "preflight"),
                Severity::Refusal if !allow_eviction => return Unfit(text),
                Severity::Warning | Severity::Refusal => tracing::warn!(topic, text, "preflight"),
            }
        }
        let (mut is_changed, mut known) = (false, self.guard().claim());
        loop {
            let mut gone_in = None;
            let began = Instant::now();
            let beat = tokio::time::timeout(BEAT_WITHIN, self.beat(me)).await;
            let took = began.elapsed();
            let beat = beat.unwrap_or_else(|_elapsed| {
                let detail = "no answer in time".into();
                Err(StoreError::Unavailable { detail })
            });
            match beat {
                Ok(live) => {
                    log.there();
                    gone_in = next_gone(&live, me);
                    // It slept through a loss, and others accepted it.
                    if !is_changed && self.guard().has_moved_on(&known) {
                        let detail = "its loss was accepted while this process was away".into();
                        let error = StoreError::Dataset { detail };
                        tracing::error!(%error, advice = ADVICE, "dataset_changed");
                        heard(Heard::Changed(&error));
                        is_changed = true;
                    }
                    known = self.guard().claim();
                    if std::mem::take(&mut is_changed) {
                        tracing::info!("dataset_accepted");
                        heard(Heard::Accepted);
                    }
                    heard(Heard::There { live: &live, took });
                },
                Err(error @ StoreError::Dataset { .. }) => {
                    if !std::mem::replace(&mut is_changed, true) {
                        tracing::error!(%error, advice = ADVICE, "dataset_changed");
                        heard(Heard::Changed(&error));
                    }
                },
                Err(error) => {
                    log.away(&error);
                    heard(Heard::Away(&error));
                },
            }
            tokio::select! {
                _ = pace.tick() => {},
                () = tokio::time::sleep(gone_in.unwrap_or(BEAT)), if gone_in.is_some() => {},
            }
        }
    }

    async fn registry(
        &self,
        member: &str,
        me: &Registration,
        leave: bool,
    ) -> Result<(Vec<Replica>, String), StoreError> {
        let mut call = Call::new(&DAEMON_BEAT);
        call.key(self.control_keys().daemons());
        call.key(self.control_keys().nonce());
        call.text(member)
            .text(&me.advertise)
            .text(&me.version)
            .number(me.started_ms);
        call.number(GONE_MS).flag(leave).number(0);
        call.text(self.guard().claim()).text(fresh_nonce());
        let value = self.run_safely(Purpose::Control, call).await?;
        let (_, parts) = reply::status("daemon_beat", value)?;
        let [_, rows, nonce] = parts
            .try_into()
            .map_err(|_error| StoreError::reply("daemon_beat"))?;
        let mut replicas: Vec<Replica> = reply::pairs(rows)?
            .iter()
            .filter_map(|(name, row)| parse(name, row))
            .collect();
        replicas.sort_by(|a, b| (&a.daemon, &a.instance).cmp(&(&b.daemon, &b.instance)));
        Ok((replicas, nonce.text()?))
    }
}

/// Says once that Redis is away, and once that it is back.
#[derive(Debug, Default)]
struct Log {
    away: Option<String>,
}

impl Log {
    fn away(&mut self, error: &StoreError) {
        let text = error.to_string();
        if self.away.as_ref() != Some(&text) {
            tracing::warn!(error = text, "redis_away");
            self.away = Some(text);
        }
    }

    fn there(&mut self) {
        if self.away.take().is_some() {
            tracing::info!("redis_back");
        }
    }
}

fn parse(member: &str, row: &str) -> Option<Replica> {
    let (daemon, instance) = member.split_once('/')?;
    let mut parts = row.split(' ');
    Some(Replica {
        beat_ms: parts.next()?.parse().ok()?,
        advertise: parts.next()?.to_owned(),
        version: parts.next()?.to_owned(),
        // Behind the start time; a build that knows no nonce writes none.
        dataset: parts.nth(1).unwrap_or("-").to_owned(),
        daemon: daemon.to_owned(),
        instance: instance.to_owned(),
    })
}
