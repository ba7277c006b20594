//! When a failed message is tried again.
//!
//! Exponential backoff with full jitter: messages that failed together do not come back together.
//! The jitter is a hash of the entry and the count, so a replay of the same history gives the same
//! delays.

use serde::{Deserialize, Serialize};

use crate::hash;

/// How often and how soon a failed message is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Attempts before the message is dead, 1 to 1,000.
    pub max_attempts: u32,
    /// Longest wait after the first failure, 0 to 1 h, in milliseconds.
    pub initial_backoff_ms: u64,
    /// Longest wait after any failure, 0 to 24 h, in milliseconds.
    pub max_backoff_ms: u64,
}

impl RetryPolicy {
    /// Whether a message that failed `failures` times is out of attempts.
    #[must_use]
    pub const fn is_exhausted(&self, failures: u32) -> bool {
        failures >= self.max_attempts
    }
}

/// The longest wait after the given number of failures, in milliseconds: the first backoff,
/// doubled by each further failure, at most `max_backoff_ms`. 0 without a failure.
#[must_use]
pub fn backoff_ms_max(policy: &RetryPolicy, failures: u32) -> u64 {
    let Some(doublings) = failures.checked_sub(1) else {
        return 0;
    };
    let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
    policy
        .initial_backoff_ms
        .saturating_mul(factor)
        .min(policy.max_backoff_ms)
}

/// How long the entry waits after its given number of failures, in milliseconds: anything from 0
/// to [`backoff_ms_max`], always the same for the same entry and count.
#[must_use]
pub fn backoff_ms(policy: &RetryPolicy, failures: u32, entry_id: &str) -> u64 {
    let cap = backoff_ms_max(policy, failures);
    let roll = hash::of(&[entry_id.as_bytes(), &failures.to_le_bytes()]);
    // Scales the roll to 0..=cap without a modulo, whose low bits are the weaker ones. The product
    // of two 64-bit numbers fits 128 bits, so nothing saturates here.
    let scaled = u128::from(roll).saturating_mul(u128::from(cap).saturating_add(1)) >> 64;
    u64::try_from(scaled).unwrap_or(cap)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{RetryPolicy, backoff_ms, backoff_ms_max};

    fn policies() -> impl Strategy<Value = RetryPolicy> {
        (1..=1000_u32, any::<u64>(), any::<u64>()).prop_map(|(max_attempts, initial, max)| {
            RetryPolicy {
                max_attempts,
                initial_backoff_ms: initial,
                max_backoff_ms: max,
            }
        })
    }

    proptest! {
        #[test]
        fn a_backoff_stays_below_its_cap_and_repeats(
            policy in policies(), failures in any::<u32>(), id in ".{0,20}"
        ) {
            let wait = backoff_ms(&policy, failures, &id);
            prop_assert!(wait <= backoff_ms_max(&policy, failures));
            prop_assert_eq!(wait, backoff_ms(&policy, failures, &id));
        }

        #[test]
        fn the_cap_never_falls_with_another_failure(
            policy in policies(), failures in 0..200_u32
        ) {
            let next = failures.saturating_add(1);
            prop_assert!(backoff_ms_max(&policy, failures) <= backoff_ms_max(&policy, next));
        }
    }

    #[test]
    fn the_cap_doubles_up_to_its_limit() {
        let policy = RetryPolicy {
            max_attempts: 9,
            initial_backoff_ms: 1_000,
            max_backoff_ms: 5_000,
        };
        let caps: Vec<u64> = (0..6).map(|n| backoff_ms_max(&policy, n)).collect();
        assert_eq!(caps, [0, 1_000, 2_000, 4_000, 5_000, 5_000]);
    }

    #[test]
    fn entries_that_failed_together_come_back_apart() {
        let policy = RetryPolicy {
            max_attempts: 3,
            initial_backoff_ms: 1_000,
            max_backoff_ms: 60_000,
        };
        let waits: Vec<u64> = (0..1_000)
            .map(|n| backoff_ms(&policy, 1, &format!("1700000000000-{n}")))
            .collect();
        let mean = waits.iter().sum::<u64>() / 1_000;
        assert!(
            (400..600).contains(&mean),
            "mean wait {mean} ms of at most 1000 ms"
        );
    }

    #[test]
    fn attempts_are_used_up_at_the_limit() {
        let policy = RetryPolicy {
            max_attempts: 3,
            initial_backoff_ms: 0,
            max_backoff_ms: 0,
        };
        assert!(!policy.is_exhausted(2));
        assert!(policy.is_exhausted(3));
    }
}
