//! Lease tokens: what a consumer settles with.
//!
//! A token is text, opaque to clients but for one promise of `docs/protocol.md`: up to its third
//! `|` it names the entry, so that a client knows a redelivery of what it still works on. It is not
//! signed: a forged one must hold the session's 96 random bits and the entry's delivery count to
//! pass the scripts, and who has those is the holder. A holder that lies about the size of its
//! message gets more room by bytes for its own group, which still has its limit by number.

use std::{fmt, str::FromStr, sync::Arc};

/// One delivery of one entry to one consumer. What all deliveries of a consumer have in common is
/// shared, not copied: a gateway makes tens of thousands a second.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    /// Ref of the lane.
    pub lane: Arc<str>,
    /// Id of the entry in its lane.
    pub id: String,
    /// How often the entry was delivered, this time included.
    pub count: u64,
    /// Who holds it.
    pub consumer: Arc<str>,
    /// The holder's session, 24 hex digits.
    pub session: Arc<str>,
    /// When it was delivered, in ms since 1970 by the gateway's clock: for figures, never compared.
    pub delivered_ms: u64,
    /// Size of the entry, at most `ENTRY_BYTES_MAX`; 0 where it is not known. It rides along so
    /// that an ack need not read the entry to count the bytes that it frees.
    pub bytes: u32,
}

/// Larger than any entry: a gRPC message has 16 MiB at most.
pub const ENTRY_BYTES_MAX: u32 = 16 << 20;

/// The size of an entry's body as a lease holds it.
#[must_use]
pub fn size_of_body(body: &[u8]) -> u32 {
    u32::try_from(body.len()).map_or(ENTRY_BYTES_MAX, |bytes| bytes.min(ENTRY_BYTES_MAX))
}

impl Lease {
    /// The token, made in one piece.
    #[must_use]
    pub fn token(&self) -> String {
        use fmt::Write as _;

        let texts = self.lane.len() + self.id.len() + self.consumer.len() + self.session.len();
        let mut token = String::with_capacity(texts + NUMBERS);
        // Writing into a text cannot fail.
        let _infallible = write!(token, "{self}");
        token
    }
}

/// Room for what a token holds besides its texts: version, separators, count, milliseconds, size.
const NUMBERS: usize = 40;

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "1|{}|{}|{}|{}|{}|{}|{}",
            self.lane,
            self.id,
            self.count,
            self.consumer,
            self.session,
            self.delivered_ms,
            self.bytes
        )
    }
}

/// A text that is no lease token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the lease token is none that this system gave out")]
pub struct NotALease;

impl FromStr for Lease {
    type Err = NotALease;

    fn from_str(text: &str) -> Result<Self, NotALease> {
        let mut parts = text.split('|');
        let mut next = || parts.next().ok_or(NotALease);
        if next()? != "1" {
            return Err(NotALease);
        }
        let lane: Arc<str> = next()?.into();
        lane.parse::<crate::LaneRef>().map_err(|_error| NotALease)?;
        let id = next()?.to_owned();
        if !is_entry_id(&id) {
            return Err(NotALease);
        }
        let count = next()?.parse().map_err(|_error| NotALease)?;
        let (consumer, session): (Arc<str>, Arc<str>) = (next()?.into(), next()?.into());
        let delivered_ms = next()?.parse().map_err(|_error| NotALease)?;
        // A token of an older build ends before its size.
        let bytes: u32 = match next() {
            Ok(bytes) => bytes.parse().map_err(|_error| NotALease)?,
            Err(NotALease) => 0,
        };
        if bytes > ENTRY_BYTES_MAX {
            return Err(NotALease);
        }
        let named = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        if parts.next().is_some() || !named(&consumer) || !named(&session) || count == 0 {
            return Err(NotALease);
        }
        Ok(Self {
            lane,
            id,
            count,
            consumer,
            session,
            delivered_ms,
            bytes,
        })
    }
}

/// Whether a text is `<ms>-<sequence>`, both u64, as Redis writes them.
#[must_use]
pub fn is_entry_id(text: &str) -> bool {
    parse_entry_id(text).is_some()
}

/// An entry id as two numbers, which compare as Redis compares ids.
#[must_use]
pub fn parse_entry_id(text: &str) -> Option<(u64, u64)> {
    let (ms, sequence) = text.split_once('-')?;
    Some((ms.parse().ok()?, sequence.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back() {
        let lease = Lease {
            lane: "g/p4+gpu@a".into(),
            id: "1-2".into(),
            count: 3,
            consumer: "a".into(),
            session: "0123456789abcdef01234567".into(),
            delivered_ms: 5,
            bytes: 6,
        };
        assert_eq!(lease.token(), lease.to_string());
        assert_eq!(lease.token().parse(), Ok(lease));
    }

    #[test]
    fn a_token_of_an_older_build_has_no_size() {
        let lease: Lease = "1|g/p4|1-2|3|a|s|5".parse().expect("a lease");
        assert_eq!(lease.bytes, 0);
    }

    #[test]
    fn a_foreign_text_is_no_lease() {
        for text in [
            "",
            "1",
            "2|g/p4|1-2|3|a|s|5",
            "1|g|1-2|3|a|s|5",
            "1|g/p4|+|3|a|s|5",
            "1|g/p4|1-2|0|a|s|5",
            "1|g/p4|1-2|3||s|5",
            "1|g/p4|1-2|3|a|*x y|5",
            "1|g/p4|1-2|3|a|s|5|6|7",
            "1|g/p4|1-2|3|a|s|5|99999999",
        ] {
            assert_eq!(text.parse::<Lease>(), Err(NotALease), "{text}");
        }
    }
}
