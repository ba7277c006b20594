//! The two moments of a shutdown, as tokens that any part of a daemon can hold.
//!
//! `draining` comes first: take no new work, answer UNAVAILABLE to whoever brings some, tell agents
//! to go elsewhere. `stop` comes when the work is done or the grace is over: loops end, leases go
//! back, the port closes. Between them the port stays open, so that work in flight is settled.

use tokio_util::sync::CancellationToken;

/// Where a daemon is in its shutdown. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    draining: CancellationToken,
    stop: CancellationToken,
}

impl Shutdown {
    /// A daemon that runs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins the shutdown; the chassis does the rest.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Whether new work is to be refused.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Ends when new work is to be refused.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Whether everything is to end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Ends when everything is to end.
    pub async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Ends everything. Whoever stops has drained.
    pub(crate) fn stop(&self) {
        self.draining.cancel();
        self.stop.cancel();
    }
}
