//! Chance that is the same on every machine: splitmix64.

use crate::scaling::number::{consumers, real};

/// A row of numbers from a seed.
pub(super) struct Random(u64);

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Between 0 and 1, neither of them.
    pub(super) fn share(&mut self) -> f64 {
        (real(self.next() >> 11) + 0.5) / real(1 << 53)
    }

    /// A time with mean 1 between two independent events.
    pub(super) fn gap(&mut self) -> f64 {
        -self.share().ln()
    }

    /// How many independent events happen where `mean` are expected.
    pub(super) fn count(&mut self, mean: f64) -> u32 {
        // Beyond this the product below would come too near to 0.
        const MEAN_MAX: f64 = 30.0;
        if mean > MEAN_MAX {
            // Of many, what varies is as good as normally distributed (sum of twelve shares).
            let deviation: f64 = (0..12).map(|_| self.share()).sum::<f64>() - 6.0;
            return consumers(mean + deviation * mean.sqrt());
        }
        let (least, mut product, mut count) = ((-mean.max(0.0)).exp(), self.share(), 0_u32);
        while product > least {
            product *= self.share();
            count = count.saturating_add(1);
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn counts_have_the_mean_that_was_asked_for() {
        for mean in [0.3, 4.0, 80.0] {
            let mut random = Random::new(7);
            let sum: f64 = (0..5_000).map(|_| f64::from(random.count(mean))).sum();
            let seen = sum / 5_000.0;
            let apart = (seen - mean).abs() / mean;
            assert!(apart < 0.05, "{mean} became {seen}");
        }
    }
}
