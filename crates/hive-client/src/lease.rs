//! What a lease token says to a client: which entry it is for.
//!
//! A token is `1|<lane>|<id>|<count>|...`. The text up to the third `|` names the entry; what
//! follows changes with each delivery of it. Nothing else of a token is for clients.

/// Separators before the part that changes with each delivery.
const ENTRY_PARTS: usize = 3;

/// The part of a token that names the entry: equal for all deliveries of one message in a group.
///
/// A token of another shape is its own entry, so an unknown version is never mixed up.
///
/// ```
/// assert_eq!(hive_client::lease::entry("1|lane:4|17-0|2|agent|9f"), "1|lane:4|17-0");
/// assert_eq!(hive_client::lease::entry("opaque"), "opaque");
/// ```
#[must_use]
pub fn entry(token: &str) -> &str {
    token
        .match_indices('|')
        .nth(ENTRY_PARTS - 1)
        .and_then(|(end, _)| token.get(..end))
        .unwrap_or(token)
}

#[cfg(test)]
mod tests {
    use super::entry;

    #[test]
    fn two_deliveries_of_one_message_name_the_same_entry() {
        assert_eq!(entry("1|lane:4|17-0|1|a|s"), entry("1|lane:4|17-0|2|a|s"));
        assert_ne!(entry("1|lane:4|17-0|1|a|s"), entry("1|lane:4|18-0|1|a|s"));
    }

    #[test]
    fn a_token_of_another_shape_is_its_own_entry() {
        assert_eq!(entry(""), "");
        assert_eq!(entry("a|b"), "a|b");
        assert_eq!(entry("1|é|x|rest"), "1|é|x");
    }
}
