//! The kinds of failure, and which of them pass by themselves.

use serde::{Deserialize, Serialize};

use crate::words::words;

/// What kind of failure made a message a dead letter.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// A deadline passed: of a request, a query, a tool, a lock, a lease.
    Timeout,
    /// Something could not be parsed or decoded.
    ParsingError,
    /// Well formed, but against a schema, a type, a range, a required field, a known name.
    ValidationError,
    /// A connection was refused, reset or never came about: names, TLS, routes.
    NetworkError,
    /// Memory, disk, files, processes or connections ran out.
    ResourceExhaustion,
    /// A service asked to come back later: 429, throttling, a quota per minute.
    RateLimited,
    /// A service that the agent needs is broken or overloaded.
    DependencyFailure,
    /// Who asks is not known, or may not.
    AuthenticationError,
    /// Tokens, credit, steps or cost are used up.
    BudgetExhausted,
    /// A bug or crash in the agent's own code.
    HandlerException,
    /// The message outlived its time to live.
    Expired,
    /// Somebody cancelled or purged it.
    Cancelled,
    /// No consumer with the capabilities that it asks for came.
    NoCapableConsumer,
    /// None of these is known to be it.
    #[default]
    Unknown,
}

words!(Category {
    Timeout => "timeout",
    ParsingError => "parsing_error",
    ValidationError => "validation_error",
    NetworkError => "network_error",
    ResourceExhaustion => "resource_exhaustion",
    RateLimited => "rate_limited",
    DependencyFailure => "dependency_failure",
    AuthenticationError => "authentication_error",
    BudgetExhausted => "budget_exhausted",
    HandlerException => "handler_exception",
    Expired => "expired",
    Cancelled => "cancelled",
    NoCapableConsumer => "no_capable_consumer",
    Unknown => "unknown",
});

impl Category {
    /// The category of a word, or none.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        word.parse().ok()
    }

    /// Whether the same message may succeed later, with nothing changed in it or in the agent.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        match self {
            Self::Timeout
            | Self::NetworkError
            | Self::ResourceExhaustion
            | Self::RateLimited
            | Self::DependencyFailure => true,
            Self::ParsingError
            | Self::ValidationError
            | Self::AuthenticationError
            | Self::BudgetExhausted
            | Self::HandlerException
            | Self::Expired
            | Self::Cancelled
            | Self::NoCapableConsumer
            | Self::Unknown => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Category;

    #[test]
    fn each_word_is_read_back_and_is_the_one_of_json() {
        for category in &Category::ALL {
            assert_eq!(Category::parse(category.as_str()), Some(*category));
            let json = serde_json::to_string(category).unwrap();
            assert_eq!(json, format!("\"{category}\""));
        }
        assert_eq!(Category::parse("Timeout"), None);
        assert_eq!(Category::ALL.len(), 14);
    }

    #[test]
    fn five_categories_pass_by_themselves() {
        let transient: Vec<&str> = Category::ALL
            .iter()
            .filter(|category| category.is_transient())
            .map(|category| category.as_str())
            .collect();
        assert_eq!(
            transient,
            [
                "timeout",
                "network_error",
                "resource_exhaustion",
                "rate_limited",
                "dependency_failure"
            ]
        );
    }
}
