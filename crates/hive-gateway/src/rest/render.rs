//! Values of the wire as JSON: seconds, times, payloads.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hive_domain::time::Timestamp;
use prost_types::{Duration as WireDuration, Timestamp as WireTimestamp};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::asked::is_json;

/// Milliseconds, shown as a number of seconds: whole where they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seconds(pub(crate) u64);

impl Seconds {
    /// The seconds of a duration of the wire; none when it is unset or negative.
    pub(crate) fn of(wire: Option<&WireDuration>) -> Option<Self> {
        let wire = wire?;
        let seconds = u64::try_from(wire.seconds).ok()?;
        let nanos = u64::try_from(wire.nanos).ok()?;
        let millis = seconds.checked_mul(1_000)?.checked_add(nanos / 1_000_000)?;
        Some(Self(millis))
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 % 1_000 {
            0 => serializer.serialize_u64(self.0 / 1_000),
            _ => serializer.serialize_f64(std::time::Duration::from_millis(self.0).as_secs_f64()),
        }
    }
}

/// A time of the wire by RFC 3339, in UTC; none when it is unset or no time.
pub(crate) fn time(wire: Option<&WireTimestamp>) -> Option<String> {
    let wire = wire?;
    let time = jiff::Timestamp::new(wire.seconds, wire.nanos).ok()?;
    Some(time.to_string())
}

/// Milliseconds since 1970 by RFC 3339, in UTC.
pub(crate) fn millis(time: Timestamp) -> String {
    let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(millis)
        .unwrap_or(jiff::Timestamp::MAX)
        .to_string()
}

/// The clock of this door. It dates answers and turns delays into times; Redis alone decides what
/// is due.
pub(crate) fn now() -> Timestamp {
    let millis = jiff::Timestamp::now().as_millisecond();
    Timestamp(u64::try_from(millis).unwrap_or(0))
}

/// Bytes as JSON where they are JSON, else in base64.
#[derive(Default)]
pub(crate) struct Bytes {
    /// The JSON, as it was published.
    pub(crate) json: Option<Box<RawValue>>,
    /// Everything else.
    pub(crate) base64: Option<String>,
}

impl Bytes {
    /// `bytes` of a media type; an empty one means JSON.
    pub(crate) fn of(bytes: &[u8], media_type: &str) -> Self {
        let json = (media_type.is_empty() || is_json(media_type))
            .then(|| serde_json::from_slice(bytes).ok())
            .flatten();
        let base64 = json.is_none().then(|| STANDARD.encode(bytes));
        Self { json, base64 }
    }
}

/// Whether a number is not worth showing.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
pub(crate) const fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use hive_domain::time::Timestamp;

    use super::{Bytes, Seconds, millis};

    #[test]
    fn whole_seconds_are_shown_without_a_fraction() {
        let shown = |millis| serde_json::to_string(&Seconds(millis)).unwrap();
        assert_eq!(shown(30_000), "30");
        assert_eq!(shown(1_500), "1.5");
        assert_eq!(shown(0), "0");
    }

    #[test]
    fn times_are_shown_in_utc() {
        assert_eq!(millis(Timestamp(1_700_000_000_000)), "2023-11-14T22:13:20Z");
        assert_eq!(
            millis(Timestamp(1_700_000_000_050)),
            "2023-11-14T22:13:20.05Z"
        );
    }

    #[test]
    fn a_json_payload_is_shown_as_it_was_published() {
        let text = r#"{"b":12345678901234567890.10,"a":1}"#;
        let shown = Bytes::of(text.as_bytes(), "");
        assert_eq!(shown.json.unwrap().get(), text);
        assert!(shown.base64.is_none());
    }

    #[test]
    fn what_is_no_json_is_shown_in_base64() {
        assert_eq!(Bytes::of(b"{", "application/json").base64.unwrap(), "ew==");
        assert_eq!(Bytes::of(b"1", "text/plain").base64.unwrap(), "MQ==");
        assert_eq!(Bytes::of(b"", "").base64.unwrap(), "");
    }
}
