//! Collects everything that is wrong with a configuration, so that one run shows it all.

use std::fmt;

/// One fault of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key's path, or the name of the file.
    pub key: String,
    /// What was given and by whom; none when the fault is an absence.
    pub given: Option<String>,
    /// The rule that was broken, to be read behind key and value.
    pub rule: String,
    /// A value that would do, as TOML shows it; empty when there is none.
    pub example: String,
}

/// All faults of a configuration, in the order in which they were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Adds a fault.
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// The faults, first found first.
    #[must_use]
    pub fn all(&self) -> &[Problem] {
        &self.0
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.key)?;
        if let Some(given) = &self.given {
            write!(f, " {given}")?;
        }
        write!(f, " {}", self.rule)?;
        if !self.example.is_empty() {
            write!(f, ", for example {}", self.example)?;
        }
        Ok(())
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            writeln!(f, "  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
