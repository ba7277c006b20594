//! Looking at processes, and waiting for what they do.

use std::{
    fs,
    time::{Duration, Instant},
};

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits for a condition, which `what` names.
pub(crate) fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(
            started.elapsed() < deadline,
            "not within {deadline:?}: {what}"
        );
        std::thread::park_timeout(LOOK_EVERY);
    }
}

/// Whether a process runs: there, and not merely waiting to be reaped.
pub(crate) fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}
