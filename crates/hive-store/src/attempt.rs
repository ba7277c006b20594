//! What is kept of a failed attempt: a short record, stored with the entry until it ends.
//!
//! Fields are separated by the unit separator, so that a record needs no decoder to be read in
//! Redis: consumer, started and ended in ms since 1970, category, reason, and where they are known
//! the type of the error and its stack. Scripts carry it as opaque bytes but for the first five.

use bytes::Bytes;

use crate::error::StoreError;

/// Longest reason that is kept, in bytes.
pub const REASON_BYTES_MAX: usize = 1_024;
const SEPARATOR: char = '\u{1f}';

/// One failed attempt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attempt {
    /// Who tried.
    pub consumer: String,
    /// When it was delivered, in ms since 1970.
    pub started_ms: u64,
    /// When it failed, in ms since 1970.
    pub ended_ms: u64,
    /// Failure category.
    pub category: String,
    /// For people.
    pub reason: String,
    /// Type of the error; empty where nobody said.
    pub error_type: String,
    /// Stack trace; empty where nobody said.
    pub stack: String,
}

/// The stored form of an attempt; a longer reason is cut at a character.
#[must_use]
pub fn record(attempt: &Attempt) -> Bytes {
    let mut reason = attempt.reason.replace(SEPARATOR, " ");
    while reason.len() > REASON_BYTES_MAX {
        reason.pop();
    }
    let mut record = format!(
        "{}{SEPARATOR}{}{SEPARATOR}{}{SEPARATOR}{}{SEPARATOR}{reason}",
        attempt.consumer, attempt.started_ms, attempt.ended_ms, attempt.category
    );
    if !(attempt.error_type.is_empty() && attempt.stack.is_empty()) {
        for text in [&attempt.error_type, &attempt.stack] {
            record.push(SEPARATOR);
            record.push_str(&text.replace(SEPARATOR, " "));
        }
    }
    Bytes::from(record)
}

/// Reads the failure history of an entry: count of failures, and the newest records, oldest first.
///
/// # Errors
/// `Corrupt` where the bytes are not what the scripts write.
pub fn history(bytes: &[u8]) -> Result<(u32, Vec<Attempt>), StoreError> {
    let wrong = || StoreError::Corrupt {
        what: "a failure history".into(),
    };
    let mut rest = bytes;
    let count = number(&mut rest).ok_or_else(wrong)?;
    let mut attempts = Vec::new();
    while !rest.is_empty() {
        let length = usize::try_from(number(&mut rest).ok_or_else(wrong)?).unwrap_or(usize::MAX);
        let (one, after) = rest.split_at_checked(length).ok_or_else(wrong)?;
        rest = after;
        attempts.push(parse(one).ok_or_else(wrong)?);
    }
    Ok((count, attempts))
}

fn number(bytes: &mut &[u8]) -> Option<u32> {
    let (four, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(u32::from_be_bytes(*four))
}

/// Reads one record; none where there is none.
pub(crate) fn parse(bytes: &[u8]) -> Option<Attempt> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut parts = text.splitn(7, SEPARATOR);
    Some(Attempt {
        consumer: parts.next()?.to_owned(),
        started_ms: parts.next()?.parse().ok()?,
        ended_ms: parts.next()?.parse().ok()?,
        category: parts.next()?.to_owned(),
        reason: parts.next()?.to_owned(),
        error_type: parts.next().unwrap_or_default().to_owned(),
        stack: parts.next().unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_read_back() {
        let attempt = Attempt {
            consumer: "a".into(),
            started_ms: 1,
            ended_ms: 2,
            category: "timeout".into(),
            reason: "no answer".into(),
            error_type: "Timeout\u{1f}Error".into(),
            stack: "at main".into(),
        };
        let one = record(&attempt);
        let mut bytes = 7_u32.to_be_bytes().to_vec();
        for _ in 0..2 {
            bytes.extend(u32::try_from(one.len()).expect("short").to_be_bytes());
            bytes.extend_from_slice(&one);
        }
        let (count, attempts) = history(&bytes).expect("a history");
        assert_eq!((count, attempts.len()), (7, 2));
        let read = Attempt {
            error_type: "Timeout Error".into(),
            ..attempt
        };
        assert_eq!(attempts.first(), Some(&read));
        assert!(history(bytes.get(..bytes.len() - 1).expect("not empty")).is_err());
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let attempt = Attempt {
            reason: "ä".repeat(1_000),
            ..Attempt::default()
        };
        let (_, attempts) = {
            let one = record(&attempt);
            let mut bytes = 1_u32.to_be_bytes().to_vec();
            bytes.extend(u32::try_from(one.len()).expect("short").to_be_bytes());
            bytes.extend_from_slice(&one);
            history(&bytes).expect("a history")
        };
        assert_eq!(attempts.first().map(|a| a.reason.len()), Some(1_024));
    }
}
