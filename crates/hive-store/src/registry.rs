//! Which daemons live: each replica beats once a second and is gone after 4 s of silence.

use crate::{
    connection::{Purpose, Store},
    error::StoreError,
    reply,
    scripts::{Call, DAEMON_BEAT},
};

/// A replica silent for longer is gone, in ms.
pub const GONE_MS: u64 = 4_000;

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
    /// Start time in ms since 1970: orders the starts of one host.
    pub epoch: u64,
}

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
}

impl Store {
    /// Says that this replica lives; answers all that do, by daemon and instance.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn beat(&self, me: &Registration) -> Result<Vec<Replica>, StoreError> {
        self.registry(&format!("{}/{}", me.daemon, me.instance), me, false)
            .await
    }

    /// Takes this replica out of the registry.
    ///
    /// # Errors
    /// As in `StoreError`.
    pub async fn sign_off(&self, me: &Registration) -> Result<(), StoreError> {
        self.registry(&format!("{}/{}", me.daemon, me.instance), me, true)
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
            epoch: 0,
        };
        self.registry("-", &nobody, false).await
    }

    async fn registry(
        &self,
        member: &str,
        me: &Registration,
        leave: bool,
    ) -> Result<Vec<Replica>, StoreError> {
        let mut call = Call::new(&DAEMON_BEAT);
        call.key(self.control_keys().daemons());
        call.text(member)
            .text(&me.advertise)
            .text(&me.version)
            .number(me.epoch);
        call.number(GONE_MS).flag(leave).number(0);
        let value = self.run_safely(Purpose::Control, call).await?;
        let (_, parts) = reply::status("daemon_beat", value)?;
        let [_, rows] = parts
            .try_into()
            .map_err(|_error| StoreError::reply("daemon_beat"))?;
        let mut replicas: Vec<Replica> = reply::pairs(rows)?
            .iter()
            .filter_map(|(name, row)| parse(name, row))
            .collect();
        replicas.sort_by(|a, b| (&a.daemon, &a.instance).cmp(&(&b.daemon, &b.instance)));
        Ok(replicas)
    }
}

fn parse(member: &str, row: &str) -> Option<Replica> {
    let (daemon, instance) = member.split_once('/')?;
    let mut parts = row.split(' ');
    Some(Replica {
        beat_ms: parts.next()?.parse().ok()?,
        advertise: parts.next()?.to_owned(),
        version: parts.next()?.to_owned(),
        daemon: daemon.to_owned(),
        instance: instance.to_owned(),
    })
}
