//! What an agent can do, and what a message asks for.
//!
//! A set has one canonical text (sorted, each name once, joined by commas), because the text names
//! Redis keys and metric labels: the same set must never have two.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    name,
    violation::{Violations, quoted},
};

/// Capabilities, sorted, each once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub struct CapabilitySet(Vec<String>);

impl CapabilitySet {
    /// No capabilities.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The set of `names` of the list `field`, at most `len_max` different ones.
    ///
    /// # Errors
    /// A violation for each item that is not a name, and one when there are too many.
    pub fn checked(field: &str, names: &[String], len_max: usize) -> Result<Self, Violations> {
        let mut faults = Violations::new();
        // A list too long by far is refused as a whole: a fault for each item would help nobody.
        let set: Self = names.iter().cloned().collect();
        if set.len() > len_max {
            let len = set.len();
            faults.push(
                field,
                format!("has `{len}` names and must have at most {len_max}"),
            );
            return Err(faults);
        }
        for (index, item) in names.iter().enumerate() {
            faults.take(name::check(&format!("{field}[{index}]"), item));
        }
        faults.into_result().map(|()| set)
    }

    /// The set that a canonical or any other comma-separated text names. Empty text is the empty
    /// set.
    ///
    /// # Errors
    /// A violation of `field` for each part that is not a name.
    pub fn parse(field: &str, text: &str) -> Result<Self, Violations> {
        if text.is_empty() {
            return Ok(Self::new());
        }
        let mut faults = Violations::new();
        for part in text.split(',').filter(|part| !name::is_name(part)) {
            faults.push(field, format!("{} is not a name", quoted(part)));
        }
        faults
            .into_result()
            .map(|()| text.split(',').map(str::to_owned).collect())
    }

    /// Whether somebody with these capabilities may take what asks for `required`.
    #[must_use]
    pub fn covers(&self, required: &Self) -> bool {
        required
            .0
            .iter()
            .all(|name| self.0.binary_search(name).is_ok())
    }

    /// The names, sorted.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.0
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl FromIterator<String> for CapabilitySet {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        let mut names: Vec<String> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        Self(names)
    }
}

impl From<Vec<String>> for CapabilitySet {
    fn from(names: Vec<String>) -> Self {
        names.into_iter().collect()
    }
}

impl From<CapabilitySet> for Vec<String> {
    fn from(set: CapabilitySet) -> Self {
        set.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::CapabilitySet;

    fn sets() -> impl Strategy<Value = CapabilitySet> {
        proptest::collection::vec("[a-d]{1,2}", 0..6).prop_map(CapabilitySet::from)
    }

    proptest! {
        #[test]
        fn the_text_of_a_set_parses_to_the_same_set(set in sets()) {
            prop_assert_eq!(CapabilitySet::parse("caps", &set.to_string()), Ok(set));
        }

        #[test]
        fn a_set_covers_another_exactly_when_it_holds_all_its_names(a in sets(), b in sets()) {
            let holds_all = b.names().iter().all(|name| a.names().contains(name));
            prop_assert_eq!(a.covers(&b), holds_all);
        }
    }

    #[test]
    fn order_and_repetition_do_not_make_another_set() {
        let set = CapabilitySet::from(vec!["gpu".to_owned(), "cuda".to_owned(), "gpu".to_owned()]);
        assert_eq!(set.to_string(), "cuda,gpu");
    }

    #[test]
    fn every_bad_name_is_reported_with_its_place() {
        let names = ["ok".to_owned(), "no,comma".to_owned(), String::new()];
        let faults = CapabilitySet::checked("capabilities", &names, 64).unwrap_err();
        let fields: Vec<&str> = faults.as_slice().iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["capabilities[1]", "capabilities[2]"]);
    }

    #[test]
    fn too_many_names_are_one_fault() {
        let names: Vec<String> = (0..17).map(|n| format!("c{n}")).collect();
        let faults = CapabilitySet::checked("required_capabilities", &names, 16).unwrap_err();
        assert_eq!(
            faults.to_string(),
            "required_capabilities: has `17` names and must have at most 16"
        );
        assert_eq!(
            CapabilitySet::checked("f", &names[1..], 16).unwrap().len(),
            16
        );
    }
}
