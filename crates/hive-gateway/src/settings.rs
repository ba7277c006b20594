//! The gateway's own configuration.

use hive_protocol::limits::PAYLOAD_BYTES_MAX;
use hive_runtime::config::{Key, Problems, Settings as Sections, Spec, Values};

static PAYLOAD_MAX: Key<u32> = Key::count(
    "gateway.payload_bytes_max",
    1_048_576,
    (1, 8_388_608),
    "1048576",
    "Largest payload of a message in bytes.",
);

/// `[gateway]`.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Largest payload of a message in bytes.
    pub payload_max: usize,
}

impl Sections for Settings {
    const KEYS: &'static [&'static Spec] = &[PAYLOAD_MAX.spec()];

    fn read(values: &Values, _problems: &mut Problems) -> Self {
        let payload_max = usize::try_from(values.get(&PAYLOAD_MAX)).unwrap_or(PAYLOAD_BYTES_MAX);
        Self { payload_max }
    }
}
