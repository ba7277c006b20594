//! The rule of names: what a namespace, stream, group, consumer or capability may be called.
//!
//! Names become parts of Redis keys, of URLs and of metric labels, so they hold no braces (hash
//! tags), spaces, slashes, commas (capability lists) or tildes (placeholder consumers).

use crate::violation::{Violation, quoted};

/// Longest name in bytes; every byte of a name is ASCII.
pub const NAME_LEN_MAX: usize = 128;

/// Names that no group may have: they are fixed paths below `/api/v1/consumer-groups/`.
pub const RESERVED_GROUP_NAMES: [&str; 6] = [
    "coordinator",
    "dlq",
    "health",
    "metrics",
    "rebalance",
    "route",
];

/// Whether `value` follows the rule of names: `[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}`.
#[must_use]
pub fn is_name(value: &str) -> bool {
    let bytes = value.as_bytes();
    bytes.len() <= NAME_LEN_MAX
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'-'))
}

/// Checks that `value` of `field` is a name.
///
/// # Errors
/// A violation that says which of the rules is broken.
pub fn check(field: &str, value: &str) -> Result<(), Violation> {
    if is_name(value) {
        return Ok(());
    }
    let description = if value.is_empty() {
        "must not be empty".to_owned()
    } else if value.len() > NAME_LEN_MAX {
        let len = value.len();
        format!(
            "{} has {len} bytes and must have at most {NAME_LEN_MAX}",
            quoted(value)
        )
    } else {
        format!(
            "{} must begin with a letter or digit and hold only letters, digits and `_.:-`",
            quoted(value)
        )
    };
    Err(Violation::new(field, description))
}

/// Checks that `value` of `field` is empty or a name.
///
/// # Errors
/// A violation that says which of the rules is broken.
pub fn check_optional(field: &str, value: &str) -> Result<(), Violation> {
    if value.is_empty() {
        Ok(())
    } else {
        check(field, value)
    }
}

/// Checks that `value` of `field` is a name that a group may have.
///
/// # Errors
/// A violation: not a name, or one of [`RESERVED_GROUP_NAMES`].
pub fn check_group(field: &str, value: &str) -> Result<(), Violation> {
    check(field, value)?;
    if RESERVED_GROUP_NAMES.contains(&value) {
        return Err(Violation::new(
            field,
            format!("`{value}` is a path of the REST interface and cannot name a group"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{check, check_group, check_optional, is_name};

    proptest! {
        #[test]
        fn whatever_the_pattern_makes_is_a_name(value in "[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}") {
            prop_assert_eq!(check("f", &value), Ok(()));
        }

        #[test]
        fn a_foreign_character_is_refused_anywhere(
            before in "[a-z]{0,5}", odd in "[^A-Za-z0-9_.:-]", after in "[a-z]{0,5}"
        ) {
            let value = format!("{before}{odd}{after}");
            prop_assert!(!is_name(&value));
        }
    }

    #[test]
    fn each_broken_rule_has_its_own_words() {
        let words = |value: &str| check("group", value).unwrap_err().to_string();
        assert_eq!(words(""), "group: must not be empty");
        assert!(words(&"a".repeat(129)).ends_with("has 129 bytes and must have at most 128"));
        assert_eq!(
            words("~ready"),
            "group: `~ready` must begin with a letter or digit and hold only letters, digits and \
             `_.:-`"
        );
    }

    #[test]
    fn an_optional_name_may_be_empty() {
        assert_eq!(check_optional("to_agent", ""), Ok(()));
        assert!(check_optional("to_agent", "a b").is_err());
    }

    #[test]
    fn a_reserved_name_cannot_name_a_group() {
        assert!(check_group("name", "dlq").is_err());
        assert_eq!(check_group("name", "dlq2"), Ok(()));
    }
}
