//! Why a job failed: what the dead letters are classified, grouped and explained by.

use std::{any::type_name, error::Error};

use hive_protocol::outcome::{cut_error_type, cut_reason, cut_stack};

/// Why a job failed. What is known of it is kept with each attempt, and shown with the dead letter
/// should it come to that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Failure {
    /// For people, in a line; cut at 1 KiB.
    pub reason: String,
    /// Failure category, e.g. `timeout`; a name, or empty: then it is guessed from the rest.
    pub category: String,
    /// Type of the error, e.g. `TimeoutError`; cut at 128 bytes. May be empty.
    pub error_type: String,
    /// Stack trace; of more than 4 KiB the middle is left out. May be empty.
    pub stack: String,
}

impl Failure {
    /// A failure for this reason, of which nothing more is known.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            ..Self::default()
        }
    }

    /// What an error says of itself: its reason with those of all its sources, each in a line of
    /// the stack too, and its type where that is known, which of a `dyn Error` it is not.
    ///
    /// ```
    /// # use hive_client::Failure;
    /// let error = "x".parse::<u32>().unwrap_err();
    /// let failure = Failure::of(&error).category("validation_error");
    /// assert_eq!(failure.reason, "invalid digit found in string");
    /// assert_eq!(failure.error_type, "core::num::error::ParseIntError");
    /// ```
    #[must_use]
    pub fn of<E: Error + ?Sized>(error: &E) -> Self {
        let mut chain = vec![error.to_string()];
        let mut source = error.source();
        while let Some(error) = source {
            chain.push(error.to_string());
            source = error.source();
        }
        let stack = match chain.as_slice() {
            [] | [_] => String::new(),
            [first, sources @ ..] => {
                let caused = sources.iter().map(|one| format!("\ncaused by: {one}"));
                format!("{first}{}", caused.collect::<String>())
            },
        };
        let name = type_name::<E>();
        let is_known = !name.starts_with("dyn ");
        Self {
            reason: chain.join(": "),
            category: String::new(),
            error_type: if is_known { name } else { "" }.to_owned(),
            stack,
        }
    }

    /// The category, e.g. `timeout`; a name.
    #[must_use]
    pub fn category(mut self, category: impl Into<String>) -> Self {
        self.category = category.into();
        self
    }

    /// The type of the error, e.g. `TimeoutError`.
    #[must_use]
    pub fn error_type(mut self, error_type: impl Into<String>) -> Self {
        self.error_type = error_type.into();
        self
    }

    /// The stack trace.
    #[must_use]
    pub fn stack(mut self, stack: impl Into<String>) -> Self {
        self.stack = stack.into();
        self
    }

    /// At most what is kept. The server cuts longer text too; here it saves the way.
    pub(super) fn cut(self) -> Self {
        Self {
            reason: cut_reason(self.reason),
            category: self.category,
            error_type: cut_error_type(self.error_type),
            stack: cut_stack(&self.stack),
        }
    }
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::new(reason)
    }
}

impl From<&str> for Failure {
    fn from(reason: &str) -> Self {
        Self::new(reason)
    }
}

#[cfg(test)]
mod tests {
    use std::{error::Error, io};

    use super::Failure;

    #[derive(Debug, thiserror::Error)]
    #[error("reading the order")]
    struct Reading(#[source] io::Error);

    #[test]
    fn an_error_tells_its_sources_and_its_type() {
        let error = Reading(io::Error::other("the disk is away"));
        let failure = Failure::of(&error);
        assert_eq!(failure.reason, "reading the order: the disk is away");
        assert_eq!(
            failure.stack,
            "reading the order\ncaused by: the disk is away"
        );
        assert!(failure.error_type.ends_with("Reading"), "{failure:?}");
    }

    #[test]
    fn an_error_whose_type_is_hidden_has_none() {
        let error: Box<dyn Error + Send + Sync> = "broken".into();
        let failure = Failure::of(&*error).error_type("Broken");
        assert_eq!(failure, Failure::new("broken").error_type("Broken"));
        assert_eq!(Failure::of(&*error).error_type, "");
    }
}
