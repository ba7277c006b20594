//! What a category that came with a failure says: one of ours, a synonym, or nothing.

use crate::dead_letter::category::Category;

/// What the word says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    /// It is this; no text is asked.
    Certain(Category),
    /// It is this where the text says nothing else: SDKs say `handler_exception` of whatever a
    /// handler raised, and a crash tells only where it ended.
    Default(Category),
    /// Nothing that is known.
    Nothing,
}

/// Words of agents and of our own daemons for the categories. Those of the daemons: `lease_expired`
/// and `connection_lost` for a consumer that was lost at work, `undecodable` for a message that
/// does not decode, `invalid_outcome` for an outcome that broke a rule.
const SYNONYMS: &[(Category, &str)] = &[
    (
        Category::Timeout,
        "lease_expired connection_lost timed_out timeout_error time_out deadline \
         deadline_exceeded tool_timeout request_timeout heartbeat_lost",
    ),
    (
        Category::ParsingError,
        "undecodable parsing parse parse_error parse_failure decode_error decoding_error \
         malformed invalid_json json_error deserialization_error",
    ),
    (
        Category::ValidationError,
        "invalid_outcome validation validation_failed invalid invalid_input invalid_argument \
         invalid_request bad_request schema_error",
    ),
    (
        Category::NetworkError,
        "network network_failure connection_error connection dns_error tls_error",
    ),
    (
        Category::ResourceExhaustion,
        "resource resources resource_exhausted out_of_memory oom oom_killed oomkilled memory \
         disk_full",
    ),
    (
        Category::RateLimited,
        "rate_limit rate_limit_error rate_limit_exceeded ratelimit ratelimited throttled \
         throttling too_many_requests",
    ),
    (
        Category::DependencyFailure,
        "dependency dependency_error dependency_failed upstream upstream_error unavailable \
         service_unavailable overloaded external_service_error",
    ),
    (
        Category::AuthenticationError,
        "auth auth_error authentication authentication_failed authorization \
         authorization_error unauthorized unauthenticated forbidden permission_denied",
    ),
    (
        Category::BudgetExhausted,
        "budget budget_exceeded token_limit token_limit_exceeded context_length \
         context_length_exceeded insufficient_quota cost_limit max_tokens",
    ),
    (Category::Expired, "ttl_expired message_expired"),
    (Category::Cancelled, "canceled cancel purged"),
    (Category::NoCapableConsumer, "no_consumer no_capable_agent"),
];

/// Words for a crash that say no more than that there was one.
const CRASHES: &[&str] = &[
    "handler_error",
    "exception",
    "crash",
    "panic",
    "bug",
    "internal_error",
];

/// Longest word that is looked at, in bytes.
const WORD_BYTES_MAX: usize = 64;

/// The word in small letters, with `_` for what separates; empty where it is too long for one.
pub(super) fn normalised(word: &str) -> String {
    let word = word.trim();
    if word.len() > WORD_BYTES_MAX {
        return String::new();
    }
    let one = |c: char| {
        if matches!(c, '-' | ' ' | '.') {
            '_'
        } else {
            c.to_ascii_lowercase()
        }
    };
    word.chars().map(one).collect()
}

/// What a normalised word says.
pub(super) fn category(word: &str) -> Given {
    if CRASHES.contains(&word) {
        return Given::Default(Category::HandlerException);
    }
    let own = Category::parse(word);
    let found = own.or_else(|| {
        let entry = SYNONYMS
            .iter()
            .find(|(_, words)| words.split(' ').any(|one| one == word));
        entry.map(|(category, _)| *category)
    });
    match found {
        Some(Category::Unknown) | None => Given::Nothing,
        Some(Category::HandlerException) => Given::Default(Category::HandlerException),
        Some(category) => Given::Certain(category),
    }
}
