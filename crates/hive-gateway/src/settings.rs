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

#[cfg(test)]
mod tests {
    use std::fs;

    use hive_runtime::{
        Daemon,
        config::{check_reference, reference, specs},
    };

    use super::Settings;

    #[test]
    fn the_reference_file_shows_every_key_with_its_default() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../deploy/config/gateway.toml"
        );
        let Daemon { name, listen, .. } = crate::DAEMON;
        if std::env::var_os("UPDATE_REFERENCE").is_some() {
            fs::write(path, reference(name, &specs::<Settings>(listen))).unwrap();
        }
        let text = fs::read_to_string(path).unwrap();
        assert_eq!(check_reference::<Settings>(name, listen, &text), Ok(()));
    }
}
