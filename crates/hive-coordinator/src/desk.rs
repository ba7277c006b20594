//! What the loops of groups and the calls have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hive_domain::coordination::CoordinatorConfig;
use hive_runtime::tasks::Tasks;
use hive_store::Store;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::gateways::Gateways;
use crate::observing::Observed;
use crate::roster::Roster;

/// What the loops of groups and the calls have in common.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) store: Store,
    pub(crate) tasks: Tasks,
    /// Name of this replica.
    pub(crate) me: String,
    /// Who lives and what is defined, as of the last beat.
    pub(crate) roster: watch::Receiver<Arc<Roster>>,
    /// The options that all coordinators share.
    pub(crate) options: watch::Sender<CoordinatorConfig>,
    /// What they are where nobody stored any.
    pub(crate) defaults: CoordinatorConfig,
    pub(crate) gateways: Gateways,
    pub(crate) observed: Observed,
    /// Counts changes of what the groups of a namespace want, of all coordinators, for those who
    /// follow them.
    wishes: Mutex<BTreeMap<String, watch::Sender<u64>>>,
    /// Rings when there may be work for groups at rest.
    pub(crate) rung: Notify,
    /// Doorbells that rang since they were looked at; none for all of them.
    bells: Mutex<Rung>,
    /// Doorbells of groups at rest: others ring too often to be heard.
    listened: Mutex<BTreeSet<String>>,
}

/// Doorbells that rang.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rung {
    bells: BTreeSet<String>,
    is_all: bool,
}

impl Rung {
    /// Whether it rang, or may have.
    pub(crate) fn has(&self, bell: &str) -> bool {
        self.is_all || self.bells.contains(bell)
    }
}

impl Desk {
    pub(crate) fn new(
        store: Store,
        tasks: Tasks,
        me: String,
        roster: watch::Receiver<Arc<Roster>>,
        defaults: CoordinatorConfig,
    ) -> Self {
        Self {
            store,
            tasks,
            me,
            roster,
            options: watch::Sender::new(defaults.clone()),
            defaults,
            gateways: Gateways::default(),
            observed: Observed::default(),
            wishes: Mutex::default(),
            rung: Notify::new(),
            bells: Mutex::default(),
            listened: Mutex::default(),
        }
    }

    /// Who lives and what is defined now.
    pub(crate) fn roster(&self) -> Arc<Roster> {
        Arc::clone(&self.roster.borrow())
    }

    /// Follows what the groups of a namespace want: the number changes with it.
    pub(crate) fn follow(&self, namespace: &str) -> watch::Receiver<u64> {
        let mut wishes = self.wishes.lock();
        // Nobody follows the others any more.
        wishes.retain(|name, sender| name == namespace || sender.receiver_count() > 0);
        let sender = wishes.entry(namespace.to_owned());
        sender.or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// Notes that what a group of a namespace wants has changed.
    pub(crate) fn note_wish(&self, namespace: &str) {
        if let Some(sender) = self.wishes.lock().get(namespace) {
            sender.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Notes that a doorbell rang that somebody listens to.
    pub(crate) fn ring(&self, bell: &str) {
        if !self.listened.lock().contains(bell) {
            return;
        }
        let is_first = self.bells.lock().bells.insert(bell.to_owned());
        if is_first {
            self.rung.notify_one();
        }
    }

    /// Notes that any doorbell may have rung.
    pub(crate) fn ring_all(&self) {
        self.bells.lock().is_all = true;
        self.rung.notify_one();
    }

    /// Says which doorbells are listened to: those of groups at rest.
    pub(crate) fn listen_to(&self, bells: BTreeSet<String>) {
        *self.listened.lock() = bells;
    }

    /// The doorbells that rang since the last call.
    pub(crate) fn take_rung(&self) -> Rung {
        std::mem::take(&mut self.bells.lock())
    }

    /// The options now.
    pub(crate) fn options(&self) -> CoordinatorConfig {
        self.options.borrow().clone()
    }
}
