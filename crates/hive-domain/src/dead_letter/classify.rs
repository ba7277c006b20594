//! Which kind of failure it is: ordered rules over what the agent gave, its error type and text.
//!
//! Rules are data; those of the configuration come before the built-in ones. The first match counts
//! within one part of a text, and the parts go from what decides to what explains: the exception
//! that was raised last, then its causes, then the whole (`text`). So a wrapper that says nothing
//! is passed over, and what wraps a time-out in a bug of its own is a bug.
//!
//! Case never matters, numbers only where they stand as the status of a call over HTTP. Of a long
//! text only the beginning and the end are looked at; a payload never is.

use serde::{Deserialize, Serialize};

use super::{category::Category, text};
use crate::violation::{Violations, quoted};

mod built_in;
mod given;
mod pattern;

use pattern::{Pattern, Segment};

/// Most rules that a configuration may add.
pub const RULES_MAX: usize = 200;
/// Longest name of a rule, in bytes.
pub const RULE_NAME_BYTES_MAX: usize = 64;
/// Most patterns in one list of a rule.
pub const PATTERNS_MAX: usize = 32;
/// Longest pattern, in bytes.
pub const PATTERN_BYTES_MAX: usize = 128;

/// A failure as its records tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Failure<'a> {
    /// The category that the agent gave on its nack or reject, or the system's own word
    /// (`lease_expired`, `connection_lost`, `expired`, …); may be empty.
    pub given: &'a str,
    /// The type of the error, where it is known; may be empty.
    pub error_type: &'a str,
    /// Reason and stack. Never a payload.
    pub text: &'a str,
}

/// What a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Classified<'a> {
    /// Its category.
    pub category: Category,
    /// The rule that found it: a configured or built-in one; `given` where the agent or the system
    /// said it; `none` where nothing matched.
    pub rule: &'a str,
}

/// The name of the rule where the agent or the system gave the category.
pub const RULE_GIVEN: &str = "given";
/// The name of the rule where nothing matched.
pub const RULE_NONE: &str = "none";

/// One rule as a configuration writes it. Every list that is not empty must be met.
///
/// A pattern is text that occurs, in any case. `|` at an end of it asks for a border of a word
/// there, `*` stands for up to 80 characters of the same line, `#` for a number, and `http:503` or
/// `http:5xx` for a status of HTTP, where a text gives one as such.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuleSpec {
    /// Unique among the configured rules; letters, digits and `_.:-`.
    pub name: String,
    /// What a match is.
    pub category: Category,
    /// Words that the agent may have given as category, whole; one must be it. Such a rule comes
    /// before the agent's own word.
    pub given: Vec<String>,
    /// Patterns of the error type; one must match.
    pub error_type: Vec<String>,
    /// Patterns of the text that must all match.
    pub all_of: Vec<String>,
    /// Patterns of the text of which one must match.
    pub any_of: Vec<String>,
    /// Patterns of the text of which none may match.
    pub none_of: Vec<String>,
}

#[derive(Debug, Clone)]
struct Rule {
    name: String,
    category: Category,
    given: Vec<String>,
    error_type: Vec<Pattern>,
    all_of: Vec<Pattern>,
    any_of: Vec<Pattern>,
    none_of: Vec<Pattern>,
}

/// The rules, in their order.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Of the configuration; over the whole text.
    configured: Vec<Rule>,
    /// Over each part of a text in turn.
    built_in: Vec<Rule>,
    /// Over each part in turn, where no part matched any of those.
    weak: Vec<Rule>,
    /// Over the whole text, where no part matched any.
    last: Vec<Rule>,
}

impl Default for Rules {
    fn default() -> Self {
        Self::built_in()
    }
}

impl Rules {
    /// The rules that are always there.
    #[must_use]
    pub fn built_in() -> Self {
        let (certain, others) = (built_in::RULES, built_in::more::RULES);
        Self {
            configured: Vec::new(),
            built_in: certain.iter().chain(others).map(Rule::of_row).collect(),
            weak: built_in::more::WEAK.iter().map(Rule::of_row).collect(),
            last: built_in::more::LAST.iter().map(Rule::of_row).collect(),
        }
    }

    /// The configured rules before the built-in ones.
    ///
    /// # Errors
    /// A violation for each field at fault of each rule, as `rules[0].name`.
    pub fn with(configured: Vec<RuleSpec>) -> Result<Self, Violations> {
        let mut violations = Violations::new();
        if configured.len() > RULES_MAX {
            let count = configured.len();
            violations.push("rules", format!("`{count}` must be at most {RULES_MAX}"));
        }
        let mut names: Vec<&str> = Vec::new();
        for (index, spec) in configured.iter().take(RULES_MAX).enumerate() {
            let mut inner = spec.faults();
            if names.contains(&spec.name.as_str()) {
                inner.push("name", format!("{} must be unique", quoted(&spec.name)));
            }
            names.push(&spec.name);
            violations.nest(&format!("rules[{index}]"), inner);
        }
        violations.into_result()?;
        Ok(Self {
            configured: configured.into_iter().map(Rule::of_spec).collect(),
            ..Self::built_in()
        })
    }

    /// What a failure is.
    #[must_use]
    pub fn classify(&self, failure: &Failure<'_>) -> Classified<'_> {
        let word = given::normalised(failure.given);
        let given = given::category(&word);
        let text = text::bounded(failure.text).to_ascii_lowercase();
        let error_type = text::bounded(failure.error_type).to_ascii_lowercase();
        let whole = Segment::new(with_type(&error_type, &text));
        let kind = Segment::new(if error_type.is_empty() {
            text::error_type(&text::bounded(failure.text)).to_ascii_lowercase()
        } else {
            error_type.clone()
        });
        let first = |is_of_given: bool| {
            self.configured
                .iter()
                .filter(|rule| rule.given.is_empty() != is_of_given)
                .find(|rule| rule.matches(&word, &kind, &whole))
        };
        if let Some(rule) = first(true) {
            return rule.found();
        }
        if let given::Given::Certain(category) = given {
            return Classified {
                category,
                rule: RULE_GIVEN,
            };
        }
        if let Some(rule) = first(false) {
            return rule.found();
        }
        let mut parts = Vec::new();
        for (index, part) in text::parts(&text).into_iter().enumerate() {
            // The type that was handed in is that of the last exception alone.
            let kind = if index == 0 { error_type.as_str() } else { "" };
            parts.push(Segment::new(with_type(kind, &part)));
        }
        let of_parts = |rules: &'_ [Rule]| -> Option<usize> {
            parts.iter().find_map(|part| {
                rules
                    .iter()
                    .position(|rule| rule.matches(&word, &kind, part))
            })
        };
        let found = of_parts(&self.built_in)
            .and_then(|index| self.built_in.get(index))
            .or_else(|| of_parts(&self.weak).and_then(|index| self.weak.get(index)))
            .or_else(|| {
                self.last
                    .iter()
                    .find(|rule| rule.matches(&word, &kind, &whole))
            })
            .map(Rule::found);
        match (found, given) {
            (Some(found), _) if found.category != Category::Unknown => found,
            (_, given::Given::Default(category)) => Classified {
                category,
                rule: RULE_GIVEN,
            },
            (Some(found), _) => found,
            (None, _) => Classified {
                category: Category::Unknown,
                rule: RULE_NONE,
            },
        }
    }
}

fn with_type(error_type: &str, text: &str) -> String {
    if error_type.is_empty() || text.starts_with(error_type) {
        text.to_owned()
    } else {
        format!("{error_type}: {text}")
    }
}

impl Rule {
    fn of_row(row: &built_in::Row) -> Self {
        let patterns = |list: &str| {
            let texts = list.split(';').map(str::trim);
            texts
                .filter(|text| !text.is_empty())
                .map(Pattern::new)
                .collect()
        };
        Self {
            name: row.name.to_owned(),
            category: row.category,
            given: Vec::new(),
            error_type: Vec::new(),
            all_of: Vec::new(),
            any_of: patterns(row.any_of),
            none_of: patterns(row.none_of),
        }
    }

    fn of_spec(spec: RuleSpec) -> Self {
        let patterns = |texts: &[String]| texts.iter().map(|text| Pattern::new(text)).collect();
        Self {
            given: spec
                .given
                .iter()
                .map(|word| given::normalised(word))
                .collect(),
            error_type: patterns(&spec.error_type),
            all_of: patterns(&spec.all_of),
            any_of: patterns(&spec.any_of),
            none_of: patterns(&spec.none_of),
            name: spec.name,
            category: spec.category,
        }
    }

    fn matches(&self, word: &str, kind: &Segment, text: &Segment) -> bool {
        let any = |patterns: &[Pattern], in_: &Segment| patterns.iter().any(|p| p.is_in(in_));
        (self.given.is_empty() || self.given.iter().any(|given| given == word))
            && (self.error_type.is_empty() || any(&self.error_type, kind))
            && (self.any_of.is_empty() || any(&self.any_of, text))
            && self.all_of.iter().all(|pattern| pattern.is_in(text))
            && !any(&self.none_of, text)
    }

    fn found(&self) -> Classified<'_> {
        Classified {
            category: self.category,
            rule: &self.name,
        }
    }
}

impl RuleSpec {
    fn faults(&self) -> Violations {
        let mut violations = Violations::new();
        violations.take(crate::name::check("name", &self.name));
        bytes(&mut violations, "name", &self.name, RULE_NAME_BYTES_MAX);
        let lists = [
            ("given", &self.given),
            ("error_type", &self.error_type),
            ("all_of", &self.all_of),
            ("any_of", &self.any_of),
            ("none_of", &self.none_of),
        ];
        for (field, list) in lists {
            if list.len() > PATTERNS_MAX {
                let count = list.len();
                violations.push(field, format!("`{count}` must be at most {PATTERNS_MAX}"));
            }
            for (index, text) in list.iter().take(PATTERNS_MAX).enumerate() {
                let field = format!("{field}[{index}]");
                bytes(&mut violations, &field, text, PATTERN_BYTES_MAX);
                if !text.chars().any(char::is_alphanumeric) {
                    let text = quoted(text);
                    violations.push(field, format!("{text} must hold a letter or a digit"));
                }
            }
        }
        let positive = lists.iter().take(4).all(|(_, list)| list.is_empty());
        if positive {
            violations.push(
                "any_of",
                "a rule must name at least one of given, error_type, all_of and any_of",
            );
        }
        violations
    }
}

fn bytes(violations: &mut Violations, field: &str, text: &str, most: usize) {
    if text.len() > most {
        let (text, len) = (quoted(text), text.len());
        violations.push(
            field,
            format!("{text} has {len} bytes and must have at most {most}"),
        );
    }
}

#[cfg(test)]
mod tests;
