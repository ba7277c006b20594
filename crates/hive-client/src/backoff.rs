//! How long to wait before the next attempt to reach a gateway.
//!
//! Half of each wait is random: agents that lost the same gateway together do not come back
//! together.

use std::time::Duration;

/// First wait.
const FIRST: Duration = Duration::from_millis(50);
/// Longest wait: shorter than the reconnect grace of a group (3 s), so one more try fits in.
const LONGEST: Duration = Duration::from_secs(2);

/// Waits that double from 50 ms to 2 s.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) const fn new() -> Self {
        Self { next: FIRST }
    }

    /// The next wait: between half of it and all of it.
    pub(crate) fn next_wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(LONGEST);
        wait.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// Starts over: the last attempt held.
    pub(crate) const fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::{Backoff, FIRST, LONGEST};

    #[test]
    fn waits_double_up_to_the_longest_and_start_over() {
        let mut backoff = Backoff::new();
        let mut bound = FIRST;
        for _ in 0..12 {
            let wait = backoff.next_wait();
            assert!(wait <= bound && wait >= bound / 2, "{wait:?} of {bound:?}");
            bound = (bound * 2).min(LONGEST);
        }
        backoff.reset();
        assert!(backoff.next_wait() <= FIRST);
    }
}
