//! The header of an entry: what scripts must know of a message without decoding its envelope.
//!
//! An entry has one field `m` = header, then the encoded `Message`. All numbers are big-endian:
//! version u8, reserved u8 (0), priority u8, reserved u8 (0), max_attempts u16 (0: the group's),
//! first backoff in ms u32 and longest backoff in ms u32 (all ones: the group's), expires_at in ms
//! u64 (0: never), then ordering key and dispatch key with u16 lengths. The message's id is in the
//! envelope alone: bytes that each entry has cost Redis time, and no script reads it.

use std::borrow::Cow;

use bytes::{Buf as _, BufMut, Bytes, BytesMut};

/// Version that this build writes. Readers refuse others: an entry of a later build is not guessed
/// at.
pub const VERSION: u8 = 2;
/// Backoff fields that leave the group's in force.
pub const GROUP_BACKOFF: u32 = u32::MAX;

/// What scripts read of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header<'a> {
    /// 0 to 9.
    pub priority: u8,
    /// Attempts before the message is dead; 0 for the group's.
    pub max_attempts: u16,
    /// First backoff in ms, or `GROUP_BACKOFF`.
    pub initial_backoff_ms: u32,
    /// Longest backoff in ms, or `GROUP_BACKOFF`.
    pub max_backoff_ms: u32,
    /// Not delivered after this time in ms since 1970; 0 for never.
    pub expires_at_ms: u64,
    /// Empty for none.
    pub ordering_key: Cow<'a, str>,
    /// Empty for none; names the dispatch of a workflow task.
    pub dispatch_key: Cow<'a, str>,
}

/// Stored bytes that are no entry of this build.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an entry's header does not decode: {0}")]
pub struct BadHeader(pub &'static str);

const FIXED: usize = 22;

impl Header<'_> {
    /// Bytes that the header takes.
    #[must_use]
    pub fn size(&self) -> usize {
        FIXED + 4 + self.ordering_key.len() + self.dispatch_key.len()
    }

    /// Puts the header before an envelope.
    #[must_use]
    pub fn join(&self, envelope: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(self.size() + envelope.len());
        self.write(&mut out);
        out.put_slice(envelope);
        out.freeze()
    }

    /// Writes the header; the envelope goes behind it.
    pub fn write(&self, out: &mut BytesMut) {
        out.put_u8(VERSION);
        out.put_u8(0);
        out.put_u8(self.priority);
        out.put_u8(0);
        out.put_u16(self.max_attempts);
        out.put_u32(self.initial_backoff_ms);
        out.put_u32(self.max_backoff_ms);
        out.put_u64(self.expires_at_ms);
        // Keys are checked at the door: 256 bytes at most.
        for text in [&self.ordering_key, &self.dispatch_key] {
            out.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
            out.put_slice(text.as_bytes());
        }
    }

    /// Takes an entry's body apart; the envelope shares its memory.
    ///
    /// # Errors
    /// `BadHeader` where the bytes are not what `join` wrote.
    pub fn split(body: &Bytes) -> Result<(Header<'static>, Bytes), BadHeader> {
        let fixed: &[u8; FIXED] = body
            .get(..FIXED)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(BadHeader("it is too short"))?;
        let [
            version,
            _,
            priority,
            _,
            a0,
            a1,
            i0,
            i1,
            i2,
            i3,
            m0,
            m1,
            m2,
            m3,
            expires @ ..,
        ] = *fixed;
        if version != VERSION {
            return Err(BadHeader("its version is not 2"));
        }
        let mut at = FIXED;
        let ordering_key = text(body, &mut at)?;
        let dispatch_key = text(body, &mut at)?;
        let header = Header {
            priority,
            max_attempts: u16::from_be_bytes([a0, a1]),
            initial_backoff_ms: u32::from_be_bytes([i0, i1, i2, i3]),
            max_backoff_ms: u32::from_be_bytes([m0, m1, m2, m3]),
            expires_at_ms: u64::from_be_bytes(expires),
            ordering_key: ordering_key.into(),
            dispatch_key: dispatch_key.into(),
        };
        Ok((header, body.slice(at..)))
    }
}

/// Expiry and envelope alone, for the hot path: nothing is copied, and the body becomes the
/// envelope.
///
/// # Errors
/// `BadHeader` where the bytes are not what `join` wrote.
pub fn expiry_and_envelope(mut body: Bytes) -> Result<(u64, Bytes), BadHeader> {
    let short = BadHeader("it is too short");
    if body.first() != Some(&VERSION) {
        return Err(BadHeader("its version is not 2"));
    }
    let expires: [u8; 8] = body
        .get(14..22)
        .and_then(|b| b.try_into().ok())
        .ok_or_else(|| short.clone())?;
    let mut at = FIXED;
    for _key in 0..2 {
        at = skip(&body, at).ok_or_else(|| short.clone())?;
    }
    if at > body.len() {
        return Err(short);
    }
    body.advance(at);
    Ok((u64::from_be_bytes(expires), body))
}

/// Where the text that begins at `at` with its length ends.
fn skip(body: &Bytes, at: usize) -> Option<usize> {
    let length: [u8; 2] = body.get(at..at + 2)?.try_into().ok()?;
    Some(at + 2 + usize::from(u16::from_be_bytes(length)))
}

fn text(body: &Bytes, at: &mut usize) -> Result<String, BadHeader> {
    let end = skip(body, *at).ok_or(BadHeader("it is too short"))?;
    let bytes = body.get(*at + 2..end).ok_or(BadHeader("it is too short"))?;
    *at = end;
    String::from_utf8(bytes.to_vec()).map_err(|_error| BadHeader("a text is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header<'static> {
        Header {
            priority: 7,
            max_attempts: 5,
            initial_backoff_ms: 1_000,
            max_backoff_ms: GROUP_BACKOFF,
            expires_at_ms: 1_800_000_000_123,
            ordering_key: "k".repeat(256).into(),
            dispatch_key: "".into(),
        }
    }

    #[test]
    fn a_header_and_its_envelope_are_read_back() {
        let body = header().join(b"envelope");
        let (read, envelope) = Header::split(&body).expect("a header");
        assert_eq!(read, header());
        assert_eq!(envelope.as_ref(), b"envelope");
        let (expires, envelope) = expiry_and_envelope(body).expect("a header");
        assert_eq!(
            (expires, envelope.as_ref()),
            (1_800_000_000_123, b"envelope".as_ref())
        );
    }

    #[test]
    fn cut_or_foreign_bytes_are_refused_not_guessed() {
        let body = header().join(b"");
        for end in 0..body.len() {
            assert!(Header::split(&body.slice(..end)).is_err(), "{end}");
            assert!(expiry_and_envelope(body.slice(..end)).is_err(), "{end}");
        }
        assert!(Header::split(&Bytes::from_static(&[1; 40])).is_err());
    }
}
