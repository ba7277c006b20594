//! What is wrong with a request: every field at fault, with the value and the rule.
//!
//! Checks collect violations instead of stopping at the first, so that a caller can mend a request
//! in one go.

use std::fmt;

/// Longest excerpt of a caller's value in a description, in characters: enough to recognise it,
/// and an error stays readable when somebody sends a megabyte where a name belongs.
const EXCERPT_CHARS: usize = 64;

/// One field that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Path of the field, e.g. `message.priority`.
    pub field: String,
    /// The value in backticks and the rule, in lower case.
    pub description: String,
}

impl Violation {
    /// `field` breaks the rule that `description` names.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            description: description.into(),
        }
    }

    /// The same violation, its field below `prefix`. An empty `prefix` changes nothing.
    #[must_use]
    pub fn below(mut self, prefix: &str) -> Self {
        self.field = path(prefix, &self.field);
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.description)
    }
}

/// All violations of one request, in the order of the checks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// One violation alone.
    pub fn one(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self(vec![Violation::new(field, description)])
    }

    /// Notes that `field` breaks the rule that `description` names.
    pub fn push(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.0.push(Violation::new(field, description));
    }

    /// Notes the fault of a check, if it found one, and hands on its value otherwise.
    pub fn take<T>(&mut self, checked: Result<T, Violation>) -> Option<T> {
        match checked {
            Ok(value) => Some(value),
            Err(violation) => {
                self.0.push(violation);
                None
            },
        }
    }

    /// Notes all of `inner`, their fields below `prefix`. An empty `prefix` leaves them as they
    /// are.
    pub fn nest(&mut self, prefix: &str, inner: Self) {
        self.0
            .extend(inner.0.into_iter().map(|violation| violation.below(prefix)));
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// The violations, in the order of the checks.
    #[must_use]
    pub fn as_slice(&self) -> &[Violation] {
        &self.0
    }

    /// The violations, in the order of the checks.
    #[must_use]
    pub fn into_vec(self) -> Vec<Violation> {
        self.0
    }

    /// Success when nothing is wrong.
    ///
    /// # Errors
    /// The violations, when there is at least one.
    pub fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl From<Violation> for Violations {
    fn from(violation: Violation) -> Self {
        Self(vec![violation])
    }
}

impl FromIterator<Violation> for Violations {
    fn from_iter<I: IntoIterator<Item = Violation>>(items: I) -> Self {
        Self(items.into_iter().collect())
    }
}

impl IntoIterator for Violations {
    type Item = Violation;
    type IntoIter = std::vec::IntoIter<Violation>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Violations {
    type Item = &'a Violation;
    type IntoIter = std::slice::Iter<'a, Violation>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, violation) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{violation}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Violations {}

/// The path of `field` below `prefix`; `field` itself when `prefix` is empty.
#[must_use]
pub fn path(prefix: &str, field: &str) -> String {
    if prefix.is_empty() {
        field.to_owned()
    } else {
        format!("{prefix}.{field}")
    }
}

/// A caller's text for an error message: in backticks, control characters escaped, cut after 64
/// characters.
#[must_use]
pub fn quoted(value: &str) -> String {
    let mut text = String::from("`");
    for (index, c) in value.chars().enumerate() {
        if index == EXCERPT_CHARS {
            text.push('…');
            break;
        }
        if c.is_control() {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text.push('`');
    text
}

#[cfg(test)]
mod tests {
    use super::{Violation, Violations, quoted};

    #[test]
    fn nesting_puts_the_prefix_before_each_field() {
        let mut all = Violations::new();
        all.nest("settings", Violations::one("lease", "too long"));
        all.nest("", Violations::one("name", "too short"));
        assert_eq!(all.to_string(), "settings.lease: too long; name: too short");
    }

    #[test]
    fn no_violation_is_a_success() {
        assert_eq!(Violations::new().into_result(), Ok(()));
        let one: Violations = Violation::new("a", "b").into();
        assert_eq!(one.clone().into_result(), Err(one));
    }

    #[test]
    fn a_quoted_value_is_escaped_and_cut() {
        assert_eq!(quoted("a\nb"), "`a\\nb`");
        assert_eq!(quoted(&"x".repeat(70)), format!("`{}…`", "x".repeat(64)));
        assert_eq!(quoted(&"x".repeat(64)), format!("`{}`", "x".repeat(64)));
    }
}
