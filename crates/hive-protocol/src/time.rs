//! Times and durations of the wire as milliseconds, with their ranges checked.
//!
//! Protobuf allows negative durations and nanoseconds that do not fit their second; both are
//! violations here. Parts of a millisecond are cut from times and round durations up, so that a
//! lease of half a millisecond is not one of 0.

use hive_domain::{time::Timestamp, violation::Violation};
use prost_types::{Duration as WireDuration, Timestamp as WireTimestamp};

/// Last second of the year 9999, the largest that protobuf and RFC 3339 know.
const SECONDS_MAX: i64 = 253_402_300_799;
const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// The milliseconds of a wire time.
///
/// # Errors
/// A violation of `field`: before 1970, after 9999, or nanoseconds outside their second.
pub fn timestamp(field: &str, wire: &WireTimestamp) -> Result<Timestamp, Violation> {
    let seconds = u64::try_from(wire.seconds)
        .ok()
        .filter(|_| wire.seconds <= SECONDS_MAX);
    let nanos = u32::try_from(wire.nanos)
        .ok()
        .filter(|nanos| *nanos < NANOS_PER_SECOND);
    let (Some(seconds), Some(nanos)) = (seconds, nanos) else {
        let (seconds, nanos) = (wire.seconds, wire.nanos);
        return Err(Violation::new(
            field,
            format!(
                "`{seconds} s {nanos} ns` must lie between the years 1970 and 9999, with 0 to \
                 999999999 ns"
            ),
        ));
    };
    Ok(Timestamp(seconds * 1_000 + u64::from(nanos / 1_000_000)))
}

/// The milliseconds of a wire duration of at most `ms_max`.
///
/// # Errors
/// A violation of `field`: negative, longer than `ms_max`, or nanoseconds outside their second.
pub fn duration_ms(field: &str, wire: &WireDuration, ms_max: u64) -> Result<u64, Violation> {
    let seconds = u64::try_from(wire.seconds).ok();
    let nanos = u32::try_from(wire.nanos)
        .ok()
        .filter(|nanos| *nanos < NANOS_PER_SECOND);
    let millis = seconds.zip(nanos).and_then(|(seconds, nanos)| {
        seconds
            .checked_mul(1_000)?
            .checked_add(u64::from(nanos.div_ceil(1_000_000)))
    });
    millis.filter(|millis| *millis <= ms_max).ok_or_else(|| {
        let shown = shown(wire);
        Violation::new(
            field,
            format!("`{shown}` must be between 0 s and {}", seconds_text(ms_max)),
        )
    })
}

/// As [`duration_ms`], for a field that may be unset.
///
/// # Errors
/// As [`duration_ms`].
pub fn optional_duration_ms(
    field: &str,
    wire: Option<&WireDuration>,
    ms_max: u64,
) -> Result<Option<u64>, Violation> {
    wire.map(|wire| duration_ms(field, wire, ms_max))
        .transpose()
}

/// The wire time of a point in time; the last one of the year 9999 when it lies beyond.
#[must_use]
pub fn to_timestamp(time: Timestamp) -> WireTimestamp {
    let (seconds, nanos) = parts(time.as_millis());
    if seconds > SECONDS_MAX {
        return WireTimestamp {
            seconds: SECONDS_MAX,
            nanos: 999_999_999,
        };
    }
    WireTimestamp { seconds, nanos }
}

/// The wire duration of `millis` milliseconds.
#[must_use]
pub fn to_duration(millis: u64) -> WireDuration {
    let (seconds, nanos) = parts(millis);
    WireDuration { seconds, nanos }
}

/// Whole seconds and the nanoseconds of the rest.
fn parts(millis: u64) -> (i64, i32) {
    let seconds = i64::try_from(millis / 1_000).unwrap_or(i64::MAX);
    let nanos = i32::try_from(millis % 1_000 * 1_000_000).unwrap_or(0);
    (seconds, nanos)
}

/// A wire duration for people, also one that breaks the rules of protobuf.
fn shown(wire: &WireDuration) -> String {
    match wire.nanos {
        0 => format!("{} s", wire.seconds),
        nanos => format!("{} s {nanos} ns", wire.seconds),
    }
}

/// Milliseconds in seconds, for people: `30 s`, `1.5 s`.
fn seconds_text(millis: u64) -> String {
    match millis % 1_000 {
        0 => format!("{} s", millis / 1_000),
        rest => {
            let fraction = format!("{rest:03}");
            format!("{}.{} s", millis / 1_000, fraction.trim_end_matches('0'))
        },
    }
}

#[cfg(test)]
mod tests {
    use hive_domain::time::Timestamp;
    use prost_types::{Duration as WireDuration, Timestamp as WireTimestamp};

    use super::{duration_ms, seconds_text, timestamp, to_duration, to_timestamp};

    const fn wire(seconds: i64, nanos: i32) -> WireDuration {
        WireDuration { seconds, nanos }
    }

    #[test]
    fn a_duration_within_its_range_is_taken_and_a_part_of_a_millisecond_rounds_up() {
        assert_eq!(duration_ms("wait", &wire(30, 0), 30_000), Ok(30_000));
        assert_eq!(duration_ms("wait", &wire(0, 1), 30_000), Ok(1));
        assert_eq!(duration_ms("wait", &wire(0, 0), 30_000), Ok(0));
    }

    #[test]
    fn nonsense_durations_are_violations() {
        for bad in [
            wire(-1, 0),
            wire(0, -1),
            wire(0, 1_000_000_000),
            wire(30, 1),
            wire(i64::MAX, 999_999_999),
            wire(i64::MIN, i32::MIN),
        ] {
            assert!(duration_ms("wait", &bad, 30_000).is_err(), "{bad:?}");
        }
        assert_eq!(
            duration_ms("wait", &wire(-5, 0), 1_500)
                .unwrap_err()
                .to_string(),
            "wait: `-5 s` must be between 0 s and 1.5 s"
        );
    }

    #[test]
    fn nonsense_times_are_violations() {
        for (seconds, nanos) in [
            (-1, 0),
            (0, -1),
            (0, 1_000_000_000),
            (253_402_300_800, 0),
            (i64::MAX, i32::MAX),
        ] {
            assert!(timestamp("not_before", &WireTimestamp { seconds, nanos }).is_err());
        }
    }

    #[test]
    fn milliseconds_survive_the_wire() {
        for millis in [0, 1, 999, 1_000, 1_700_000_000_123] {
            let time = Timestamp(millis);
            assert_eq!(timestamp("t", &to_timestamp(time)), Ok(time));
            assert_eq!(duration_ms("d", &to_duration(millis), u64::MAX), Ok(millis));
        }
        assert!(timestamp("t", &to_timestamp(Timestamp(u64::MAX))).is_ok());
    }

    #[test]
    fn seconds_are_shown_without_idle_zeros() {
        assert_eq!(seconds_text(30_000), "30 s");
        assert_eq!(seconds_text(50), "0.05 s");
    }
}
