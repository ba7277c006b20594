//! The clock of the open-loop load: says when to send how many, whatever the rest does.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use hive_store::ceiling::Burst;
use tokio::sync::mpsc;

/// Time between two bursts.
const TICK: Duration = Duration::from_millis(1);

/// Bursts that may wait for the sender: with these it may fall behind by ten seconds.
const AHEAD_MAX: usize = 10_000;

/// Bursts at this rate for this long. A thread of its own keeps the time: timers of the runtime
/// are exact to a millisecond only, which is more than what is measured.
///
/// # Errors
/// When the system refuses another thread.
pub(super) fn bursts(per_second: u32, time: Duration) -> io::Result<mpsc::Receiver<Burst>> {
    let (bursts, receiver) = mpsc::channel(AHEAD_MAX);
    thread::Builder::new()
        .name("pace".to_owned())
        .spawn(move || {
            let start = Instant::now();
            let mut sent = 0;
            for tick in 1.. {
                let passed = TICK * tick;
                if passed > time {
                    return;
                }
                sleep_until(start + passed);
                let due = due(per_second, passed);
                let messages = u32::try_from(due - sent).unwrap_or(u32::MAX);
                sent = due;
                // A sender that is gone wants no more.
                if messages > 0
                    && bursts
                        .blocking_send(Burst {
                            at: start + passed,
                            messages,
                        })
                        .is_err()
                {
                    return;
                }
            }
        })?;
    Ok(receiver)
}

/// Messages due after this time.
fn due(per_second: u32, passed: Duration) -> u64 {
    let due = u128::from(per_second) * passed.as_micros() / 1_000_000;
    u64::try_from(due).unwrap_or(u64::MAX)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the thread is there to sleep; no runtime is on it"
)]
fn sleep_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holds_as_many_messages_as_the_rate_says() {
        assert_eq!(due(1_500, Duration::from_secs(1)), 1_500);
        assert_eq!(due(1_500, TICK), 1);
        assert_eq!(due(1_500, TICK * 2), 3);
    }
}
