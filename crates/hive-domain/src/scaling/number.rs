//! Numbers between the integers of the facts and the fractions of a forecast.
//!
//! Whatever comes in, what comes out is finite and not negative.

/// A counter as a fraction; beyond 2^53 the last digits are lost, which no decision sees.
pub(super) const fn real(count: u64) -> f64 {
    count as f64
}

/// The nearest whole number, 0 for what is negative or none, the largest for what is too large.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates at both ends and makes 0 of what is no number: that is meant"
)]
pub(super) fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// The nearest whole number of either sign, likewise.
#[expect(
    clippy::cast_possible_truncation,
    reason = "`as` saturates at both ends and makes 0 of what is no number: that is meant"
)]
pub(super) fn signed(value: f64) -> i64 {
    value.round() as i64
}

/// So many consumers that `value` of them are there; a hair above a whole number is that number.
pub(super) fn consumers(value: f64) -> u32 {
    u32::try_from(whole((value - 1e-6).ceil())).unwrap_or(u32::MAX)
}

/// `part / whole`, or 0 where that is no number or infinite.
pub(super) fn ratio(part: f64, whole: f64) -> f64 {
    let ratio = part / whole;
    if ratio.is_finite() { ratio } else { 0.0 }
}

/// Milliseconds as seconds.
pub(super) const fn seconds(millis: u64) -> f64 {
    real(millis) / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::{consumers, ratio, signed, whole};

    #[test]
    fn whatever_comes_in_what_comes_out_is_a_number() {
        for odd in [f64::NAN, f64::NEG_INFINITY, -1.0] {
            assert_eq!(whole(odd), 0);
            assert_eq!(consumers(odd), 0);
        }
        assert_eq!(whole(f64::INFINITY), u64::MAX);
        assert_eq!(consumers(f64::INFINITY), u32::MAX);
        assert_eq!(signed(f64::NEG_INFINITY), i64::MIN);
        assert!(ratio(1.0, 0.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_part_of_a_consumer_is_a_consumer() {
        assert_eq!(consumers(2.0), 2);
        assert_eq!(consumers(2.000_000_1), 2);
        assert_eq!(consumers(2.1), 3);
    }
}
