//! Turns what somebody wrote for a key into a value that keeps the key's rule, or says the rule.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::key::{Literal, Rule, URLS_MAX};

/// What somebody wrote, before any rule was applied.
#[derive(Debug, Clone)]
pub(super) enum Given {
    /// A value of the configuration file.
    Toml(toml::Value),
    /// The text of an environment variable or of a flag.
    Text(String),
}

/// A value that keeps the rule of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A switch.
    Flag(bool),
    /// An integer, or a size in bytes.
    Count(u64),
    /// A span of time.
    Duration(Duration),
    /// A text, a word of a choice, a URL or a path.
    Text(String),
    /// A list of URLs.
    List(Vec<String>),
    /// An address to listen on.
    Address(SocketAddr),
}

impl From<Literal> for Option<Given> {
    fn from(literal: Literal) -> Self {
        match literal {
            Literal::Unset => None,
            Literal::Flag(on) => Some(Given::Toml(on.into())),
            Literal::Count(count) => Some(Given::Text(count.to_string())),
            Literal::Text(text) => Some(Given::Text(text.to_owned())),
        }
    }
}

impl Given {
    /// What was written, as TOML would show it, with a password in a URL struck out.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Toml(toml::Value::String(text)) => masked(text),
            Self::Toml(toml::Value::Array(items)) => {
                let items = items.iter().map(|item| {
                    let text = item.as_str().map(masked);
                    text.map_or_else(|| item.clone(), toml::Value::from)
                });
                toml::Value::Array(items.collect()).to_string()
            },
            Self::Toml(value) => value.to_string(),
            Self::Text(text) => masked(text),
        }
    }

    /// The texts of a list; the environment has commas between them.
    fn texts(&self) -> Option<Vec<String>> {
        match self {
            Self::Toml(value) => {
                let items = value.as_array()?.iter();
                items.map(|item| item.as_str().map(str::to_owned)).collect()
            },
            Self::Text(text) => Some(text.split(',').map(|item| item.trim().to_owned()).collect()),
        }
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Toml(value) => value.as_str(),
            Self::Text(text) => Some(text),
        }
    }

    fn count(&self) -> Option<u64> {
        match self {
            Self::Toml(value) => value
                .as_integer()
                .and_then(|count| u64::try_from(count).ok()),
            Self::Text(text) => text.parse().ok(),
        }
    }

    fn flag(&self) -> Option<bool> {
        match self {
            Self::Toml(value) => value.as_bool(),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

/// Replaces the password of a URL by `***`; any other text stays as it is.
pub(super) fn masked(text: &str) -> String {
    match password_span(text) {
        Some((start, end)) => {
            let (head, tail) = (text.get(..start), text.get(end..));
            format!(
                "{}***{}",
                head.unwrap_or_default(),
                tail.unwrap_or_default()
            )
        },
        None => text.to_owned(),
    }
}

/// Where in `text` the password of a URL stands: behind the user, before the last `@` of the
/// authority, or behind `password=` in the query of a Unix socket's URL.
fn password_span(text: &str) -> Option<(usize, usize)> {
    let authority = text.find("://")? + "://".len();
    let rest = text.get(authority..)?;
    if let Some((query, _)) = rest.match_indices("password=").next() {
        let start = authority + query + "password=".len();
        let end = text
            .get(start..)?
            .find('&')
            .map_or(text.len(), |end| start + end);
        return (end > start).then_some((start, end));
    }
    let at = rest.rfind('@')?;
    let colon = rest.get(..at)?.find(':')?;
    (at > colon + 1).then_some((authority + colon + 1, authority + at))
}

/// The value of `given` under `rule`.
///
/// # Errors
/// The rule in words, to stand behind the key and what was given for it.
pub(super) fn parse(rule: Rule, given: &Given) -> Result<Value, String> {
    let value = match rule {
        Rule::Flag => given.flag().map(Value::Flag),
        Rule::Count { min, max } => given
            .count()
            .filter(|count| (min..=max).contains(count))
            .map(Value::Count),
        Rule::Duration { min, max } => duration(given)
            .filter(|span| (min..=max).contains(span))
            .map(Value::Duration),
        Rule::Size { min, max } => size(given)
            .filter(|bytes| (min..=max).contains(bytes))
            .map(Value::Count),
        Rule::Text | Rule::File => given
            .text()
            .filter(|text| !text.is_empty())
            .map(|text| Value::Text(text.to_owned())),
        Rule::Choice(words) => given
            .text()
            .filter(|text| words.contains(text))
            .map(|text| Value::Text(text.to_owned())),
        Rule::Address => given.text().and_then(address).map(Value::Address),
        Rule::Url(schemes) => {
            let url = given.text().filter(|text| has_scheme(text, schemes));
            if url.is_some_and(|url| password_span(url).is_some()) {
                return Err(
                    "must not carry a password: put it into a file of its own and name \
                            that file in the section's `password_file`"
                        .to_owned(),
                );
            }
            url.map(|url| Value::Text(url.to_owned()))
        },
        Rule::Urls(schemes) => given
            .texts()
            .filter(|urls| urls.len() <= URLS_MAX)
            .filter(|urls| {
                let is_url = |url: &String| has_scheme(url, schemes) && !url.contains('@');
                urls.iter().all(is_url)
            })
            .map(Value::List),
    };
    value.ok_or_else(|| rule_in_words(rule))
}

fn rule_in_words(rule: Rule) -> String {
    match rule {
        Rule::Flag => "must be true or false".to_owned(),
        Rule::Count { min, max } => format!("must be an integer between {min} and {max}"),
        Rule::Duration { min, max } => format!(
            "must be a duration between {} and {}",
            humantime::format_duration(min),
            humantime::format_duration(max)
        ),
        Rule::Size { min, max } => {
            format!(
                "must be a size between {} and {}",
                size_in_words(min),
                size_in_words(max)
            )
        },
        Rule::Text => "must be a text that is not empty".to_owned(),
        Rule::Choice(words) => format!("must be one of {}", words.join(", ")),
        Rule::Address => {
            "must be `host:port`, where the host is an IP address or localhost".to_owned()
        },
        Rule::Url(schemes) => format!("must be a URL that starts with {}", schemes.join(" or ")),
        Rule::Urls(schemes) => format!(
            "must be a list of at most {URLS_MAX} URLs that start with {} and name no user",
            schemes.join(" or ")
        ),
        Rule::File => "must be the path of a file".to_owned(),
    }
}

fn has_scheme(text: &str, schemes: &[&str]) -> bool {
    schemes.iter().any(|scheme| {
        text.strip_prefix(scheme)
            .is_some_and(|rest| !rest.is_empty())
    })
}

/// A plain integer is a number of seconds, in the file as in the environment.
fn duration(given: &Given) -> Option<Duration> {
    match given.count() {
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None => humantime::parse_duration(given.text()?).ok(),
    }
}

const UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// A plain integer is a number of bytes.
fn size(given: &Given) -> Option<u64> {
    if let Some(bytes) = given.count() {
        return Some(bytes);
    }
    let text = given.text()?.trim();
    let (digits, factor) = UNITS
        .iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit).map(|digits| (digits, *factor)))?;
    digits.trim().parse::<u64>().ok()?.checked_mul(factor)
}

fn size_in_words(bytes: u64) -> String {
    UNITS
        .iter()
        .rev()
        .filter(|(unit, _)| unit.ends_with("iB"))
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor))
        .map_or_else(
            || format!("{bytes}B"),
            |(unit, factor)| format!("{}{unit}", bytes / factor),
        )
}

fn address(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let port = text.strip_prefix("localhost:")?.parse().ok()?;
    Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}
