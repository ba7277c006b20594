//! Health: a daemon is ready when each of its parts is, and says which part is not and why.
//!
//! Live it always is: a probe that kills a daemon because Redis is away only adds a restart to the
//! trouble. Losing Redis makes a daemon not ready, never not live.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;

/// Health of a daemon. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Health {
    report: Arc<watch::Sender<Report>>,
}

/// The parts of a daemon and what keeps them from being ready.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Reason by part; no reason means ready.
    pub components: BTreeMap<String, Option<String>>,
}

/// One part of a daemon. It starts as not ready.
#[derive(Debug, Clone)]
pub struct Component {
    name: &'static str,
    report: Arc<watch::Sender<Report>>,
}

impl Report {
    /// Whether every part is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.components.values().all(Option::is_none)
    }

    /// `part: reason` of each part that is not ready, joined by `; `.
    #[must_use]
    pub fn reasons(&self) -> String {
        let of = |(name, reason): (&String, &Option<String>)| {
            reason.as_ref().map(|reason| format!("{name}: {reason}"))
        };
        self.components
            .iter()
            .filter_map(of)
            .collect::<Vec<_>>()
            .join("; ")
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// A daemon without parts.
    #[must_use]
    pub fn new() -> Self {
        Self {
            report: Arc::new(watch::Sender::new(Report::default())),
        }
    }

    /// Adds the part `name`, not ready because it starts; an existing part is found again as it is.
    /// Parts are added before the main port serves, or the daemon is ready without them.
    #[must_use]
    pub fn component(&self, name: &'static str) -> Component {
        self.report.send_if_modified(|report| {
            let is_new = !report.components.contains_key(name);
            if is_new {
                report
                    .components
                    .insert(name.to_owned(), Some("starting".to_owned()));
            }
            is_new
        });
        Component {
            name,
            report: Arc::clone(&self.report),
        }
    }

    /// The parts as they are now.
    #[must_use]
    pub fn report(&self) -> Report {
        self.report.borrow().clone()
    }

    /// Whether every part is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.report.borrow().is_ready()
    }

    /// Follows the parts.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Report> {
        self.report.subscribe()
    }
}

impl Component {
    /// This part works.
    pub fn ready(&self) {
        self.set(None);
    }

    /// This part does not work; `reason` is for an operator.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    fn set(&self, reason: Option<String>) {
        self.report.send_if_modified(|report| {
            let known = report.components.entry(self.name.to_owned()).or_default();
            let is_change = *known != reason;
            *known = reason;
            is_change
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_starts_keeps_the_daemon_from_being_ready() {
        let health = Health::new();
        let redis = health.component("redis");
        assert!(!health.is_ready());
        redis.ready();
        assert!(health.is_ready());
    }

    #[test]
    fn the_reasons_name_each_part_that_is_not_ready() {
        let health = Health::new();
        health.component("redis").not_ready("connection lost");
        health.component("registry").not_ready("lease lost");
        health.component("server").ready();
        assert_eq!(
            health.report().reasons(),
            "redis: connection lost; registry: lease lost"
        );
    }

    #[test]
    fn a_part_that_says_the_same_again_wakes_nobody() {
        let health = Health::new();
        let redis = health.component("redis");
        let watch = health.watch();
        redis.not_ready("starting");
        assert!(!watch.has_changed().unwrap());
    }

    #[test]
    fn asking_for_a_part_again_keeps_its_state() {
        let health = Health::new();
        health.component("redis").ready();
        assert!(health.component("redis").report.borrow().is_ready());
    }
}
