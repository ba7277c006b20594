//! One printed seed per test, so that a failure replays.

use rand::{SeedableRng, rngs::StdRng};

/// Environment variable that replays a seed.
pub const SEED_VARIABLE: &str = "HIVE_SEED";

/// A generator and the seed that it started from.
#[derive(Debug)]
pub struct Seeded {
    /// The seed, for names and messages.
    pub seed: u64,
    /// The generator.
    pub rng: StdRng,
}

/// Gives a generator seeded from `HIVE_SEED`, or at random, and prints the seed with the line that
/// replays it.
///
/// # Panics
/// When `HIVE_SEED` is set and is not a number below 2^64: a replay of another seed would mislead.
#[must_use]
#[expect(
    clippy::print_stderr,
    reason = "the seed must stand in the output of a failed test"
)]
pub fn seeded(test: &str) -> Seeded {
    let seed = match std::env::var(SEED_VARIABLE) {
        Ok(text) => parse(&text),
        Err(_) => rand::random(),
    };
    eprintln!("{test}: seed {seed} (replay with {SEED_VARIABLE}={seed})");
    Seeded {
        seed,
        rng: StdRng::seed_from_u64(seed),
    }
}

fn parse(text: &str) -> u64 {
    let Ok(seed) = text.trim().parse() else {
        panic!("{SEED_VARIABLE} `{text}` must be a number below 2^64");
    };
    seed
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let numbers = |seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            (0..8).map(|_| rng.random::<u64>()).collect::<Vec<_>>()
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
    }

    #[test]
    #[should_panic(expected = "HIVE_SEED `x` must be a number below 2^64")]
    fn a_seed_that_is_no_number_is_refused() {
        parse("x");
    }
}
