//! Time as a number of milliseconds, so that a test starts at 0.
//!
//! Not `std::time::Instant` or `SystemTime`: these can only be had from a clock, and a decision
//! takes its time as an argument.

use serde::{Deserialize, Serialize};

/// A point in time: milliseconds since the Unix epoch. Arithmetic saturates at both ends.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl From<u64> for Timestamp {
    fn from(millis: u64) -> Self {
        Self(millis)
    }
}

impl Timestamp {
    /// The point in time `millis` milliseconds after the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The point in time `millis` milliseconds later, or the last one there is.
    #[must_use]
    pub const fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// The point in time `millis` milliseconds earlier, or 0.
    #[must_use]
    pub const fn minus(self, millis: u64) -> Self {
        Self(self.0.saturating_sub(millis))
    }

    /// Milliseconds from `earlier` to this point; 0 when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Timestamp;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Timestamp(5).minus(9), Timestamp(0));
        assert_eq!(Timestamp(u64::MAX).plus(1), Timestamp(u64::MAX));
        assert_eq!(Timestamp(3).since(Timestamp(7)), 0);
        assert_eq!(Timestamp(7).since(Timestamp(3)), 4);
    }
}
