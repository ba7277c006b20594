//! Is the system well? One answer for operators, from Redis and the registry.

use std::collections::BTreeMap;

use crate::core::{Gateway, now_ms, reading};

/// How the system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HealthStatus {
    /// Everything is there and keeps up.
    Healthy,
    /// It serves, with a daemon missing or a group in trouble.
    Degraded,
    /// It does not serve: Redis is away.
    Unhealthy,
}

impl HealthStatus {
    /// The word for it in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// The state of the system.
#[derive(Debug, Clone)]
pub struct Health {
    /// The worst of the components.
    pub status: HealthStatus,
    /// By name: its word, and what is wrong.
    pub components: BTreeMap<&'static str, (&'static str, Option<String>)>,
    /// When this was read, in ms since 1970.
    pub now_ms: u64,
}

impl Gateway {
    /// Reads how the system is.
    pub async fn health(&self, namespace: &str) -> Health {
        let mut status = HealthStatus::Healthy;
        let mut components = BTreeMap::new();
        let mut note = |name, worst: HealthStatus, detail: Option<String>| {
            status = status.max(worst);
            components.insert(name, (worst.as_str(), detail));
        };
        let request = hive_protocol::wire::ListGroupsRequest {};
        let (replicas, groups) = tokio::join!(
            reading(async { Ok(self.store.replicas().await?) }),
            self.list_groups(namespace, request),
        );
        for (component, daemon) in [
            ("coordinator", "coordinator"),
            ("router", "router"),
            ("dlq", "dlq"),
        ] {
            match &replicas {
                Ok(live) if live.iter().any(|replica| replica.daemon == daemon) => {
                    note(component, HealthStatus::Healthy, None);
                },
                Ok(_) => {
                    let detail = format!("no `hive-{daemon}` is alive");
                    note(component, HealthStatus::Degraded, Some(detail));
                },
                Err(fault) => {
                    let detail = Some(fault.message.clone());
                    note(component, HealthStatus::Unhealthy, detail);
                },
            }
        }
        match groups {
            Ok(list) => {
                let troubled: Vec<String> = list
                    .groups
                    .iter()
                    .filter_map(|group| {
                        let health = &group.figures.as_ref()?.health;
                        let is_well = health == "healthy" || health == "paused";
                        (!is_well).then(|| format!("{}: {health}", group.name))
                    })
                    .collect();
                if troubled.is_empty() {
                    note("streams", HealthStatus::Healthy, None);
                } else {
                    note("streams", HealthStatus::Degraded, Some(troubled.join(", ")));
                }
            },
            Err(fault) => note("streams", HealthStatus::Unhealthy, Some(fault.message)),
        }
        Health {
            status,
            components,
            now_ms: now_ms(),
        }
    }
}
