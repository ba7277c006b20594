//! Values as people write them on a command line, and back.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

/// Reads a duration: `30s`, `1h 30m`, `250ms`, or a plain number of seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(u64::from(seconds)));
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it like `30s`"))
}

/// Reads `name=value`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it like `name=value`")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A duration on the wire. `None` only beyond what the wire can say: about 10,000 years.
pub(crate) fn wire_duration(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}

/// Seconds of a duration from the wire; negative ones and none count as zero.
pub(crate) fn seconds(duration: Option<&prost_types::Duration>) -> f64 {
    let duration = duration.and_then(|duration| Duration::try_from(*duration).ok());
    duration.unwrap_or_default().as_secs_f64()
}

/// A moment from the wire as RFC 3339 in UTC.
pub(crate) fn rfc3339(moment: Option<&Timestamp>) -> Option<String> {
    let moment = moment?;
    let moment = jiff::Timestamp::new(moment.seconds, moment.nanos).ok()?;
    Some(format!("{moment:.3}"))
}

/// The moment that lies this far ahead.
pub(crate) fn moment_after(delay: Duration) -> Option<Timestamp> {
    SystemTime::now().checked_add(delay).map(Timestamp::from)
}

/// Seconds as a person reads them: `0`, `0.25s`, `90s`.
pub(crate) fn short_seconds(seconds: f64) -> String {
    if seconds <= 0.0 {
        return "0".to_owned();
    }
    if seconds < 10.0 {
        format!("{seconds:.2}s")
    } else {
        format!("{seconds:.0}s")
    }
}

/// Bytes as text where they are text, else as base64 with a mark.
pub(crate) fn text_of(bytes: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    std::str::from_utf8(bytes).map_or_else(
        |_| format!("base64:{}", STANDARD.encode(bytes)),
        str::to_owned,
    )
}

/// A line as it is, but for what a terminal would obey.
pub(crate) fn harmless(line: &str) -> String {
    let mark = |one: char| match one {
        '\t' => one,
        _ if one.is_control() => '\u{fffd}',
        _ => one,
    };
    line.chars().map(mark).collect()
}

/// At most this many characters of a text, with a mark where it was cut.
pub(crate) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_number_is_seconds_and_a_unit_is_honoured() {
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("soon").is_err());
    }

    #[test]
    fn a_long_text_is_cut_at_a_character_not_inside_one() {
        assert_eq!(cut("äöü", 2), "äö…");
        assert_eq!(cut("äöü", 3), "äöü");
    }

    #[test]
    fn what_a_terminal_would_obey_is_marked() {
        assert_eq!(harmless("a\tb\u{1b}[2Jc"), "a\tb\u{fffd}[2Jc");
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_base64() {
        assert_eq!(text_of(b"plain"), "plain");
        assert_eq!(text_of(&[0xff, 0xfe]), "base64://4=");
    }

    #[test]
    fn a_pair_is_split_at_the_first_equals_sign() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert!(pair("a").is_err());
    }
}
