//! A configuration key: its path, the rule its value keeps, its default and its documentation.
//!
//! A key is declared once, as a typed constant. From it come the parser, the message that refuses a
//! wrong value, the environment variable, the row of `--print-config` and the reference file, so
//! that none of them can disagree with another. The type parameter is what [`Values::get`] gives.
//!
//! [`Values::get`]: super::Values::get

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::value::Value;

/// A key whose validated value is a `T`.
#[derive(Debug)]
pub struct Key<T> {
    spec: Spec,
    kind: PhantomData<fn() -> T>,
}

/// What is known of a key without its type: what a table of keys holds.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// `section.name`, as in TOML.
    pub path: &'static str,
    /// What a value must be.
    pub rule: Rule,
    /// The value when nobody gives one.
    pub default: Literal,
    /// A value that the rule accepts, as TOML shows it.
    pub example: &'static str,
    /// Meaning, unit and consequences, in sentences.
    pub doc: &'static str,
}

/// A default, as it stands in TOML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Literal {
    /// No value.
    Unset,
    /// `true` or `false`.
    Flag(bool),
    /// An integer.
    Count(u64),
    /// A string.
    Text(&'static str),
}

/// Longest list of URLs.
pub const URLS_MAX: usize = 64;

/// What a value must be. Bounds are inclusive.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    /// `true` or `false`.
    Flag,
    /// An integer.
    Count {
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
    },
    /// A string with a unit (`"25s"`), or an integer number of seconds.
    Duration {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// A string with a unit (`"4MiB"`), or an integer number of bytes.
    Size {
        /// The smallest, in bytes.
        min: u64,
        /// The largest, in bytes.
        max: u64,
    },
    /// A string that is not empty.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `host:port`, where the host is an IP address or `localhost`; port 0 is any free port.
    Address,
    /// A URL with one of these schemes and without a password.
    Url(&'static [&'static str]),
    /// A list of such URLs, at most [`URLS_MAX`]; in the environment with commas between them.
    Urls(&'static [&'static str]),
    /// The path of a file.
    File,
}

impl<T> Key<T> {
    const fn new(
        path: &'static str,
        rule: Rule,
        default: Literal,
        example: &'static str,
        doc: &'static str,
    ) -> Self {
        Self {
            spec: Spec {
                path,
                rule,
                default,
                example,
                doc,
            },
            kind: PhantomData,
        }
    }

    /// What a table of keys holds of this key.
    #[must_use]
    pub const fn spec(&'static self) -> &'static Spec {
        &self.spec
    }

    /// `section.name`.
    #[must_use]
    pub const fn path(&self) -> &'static str {
        self.spec.path
    }
}

impl Key<bool> {
    /// A switch.
    #[must_use]
    pub const fn flag(path: &'static str, default: bool, doc: &'static str) -> Self {
        Self::new(path, Rule::Flag, Literal::Flag(default), "true", doc)
    }
}

impl Key<u32> {
    /// An integer between `min` and `max`.
    #[must_use]
    pub const fn count(
        path: &'static str,
        default: u32,
        (min, max): (u32, u32),
        example: &'static str,
        doc: &'static str,
    ) -> Self {
        let rule = Rule::Count {
            min: min as u64,
            max: max as u64,
        };
        Self::new(path, rule, Literal::Count(default as u64), example, doc)
    }
}

impl Key<Option<u32>> {
    /// An integer between `min` and `max` that may be left out.
    #[must_use]
    pub const fn optional_count(
        path: &'static str,
        (min, max): (u32, u32),
        example: &'static str,
        doc: &'static str,
    ) -> Self {
        let rule = Rule::Count {
            min: min as u64,
            max: max as u64,
        };
        Self::new(path, rule, Literal::Unset, example, doc)
    }
}

impl Key<Duration> {
    /// A span of time between `min` and `max`.
    #[must_use]
    pub const fn duration(
        path: &'static str,
        default: &'static str,
        (min, max): (Duration, Duration),
        example: &'static str,
        doc: &'static str,
    ) -> Self {
        Self::new(
            path,
            Rule::Duration { min, max },
            Literal::Text(default),
            example,
            doc,
        )
    }
}

impl Key<u64> {
    /// A number of bytes between `min` and `max`.
    #[must_use]
    pub const fn size(
        path: &'static str,
        default: &'static str,
        (min, max): (u64, u64),
        example: &'static str,
        doc: &'static str,
    ) -> Self {
        Self::new(
            path,
            Rule::Size { min, max },
            Literal::Text(default),
            example,
            doc,
        )
    }
}

impl Key<String> {
    /// A text that is not empty.
    #[must_use]
    pub const fn text(
        path: &'static str,
        default: &'static str,
        example: &'static str,
        doc: &'static str,
    ) -> Self {
        Self::new(path, Rule::Text, Literal::Text(default), example, doc)
    }

    /// One of `words`.
    #[must_use]
    pub const fn choice(
        path: &'static str,
        default: &'static str,
        words: &'static [&'static str],
        example: &'static str,
        doc: &'static str,
    ) -> Self {
        Self::new(
            path,
            Rule::Choice(words),
            Literal::Text(default),
            example,
            doc,
        )
    }

    /// A URL with one of `schemes`.
    #[must_use]
    pub const fn url(
        path: &'static str,
        default: &'static str,
        schemes: &'static [&'static str],
        example: &'static str,
        doc: &'static str,
    ) -> Self {
        Self::new(
            path,
            Rule::Url(schemes),
            Literal::Text(default),
            example,
            doc,
        )
    }
}

impl Key<Option<String>> {
    /// A text that may be left out.
    #[must_use]
    pub const fn optional_text(
        path: &'static str,
        example: &'static str,
        doc: &'static str,
    ) -> Self {
        Self::new(path, Rule::Text, Literal::Unset, example, doc)
    }
}

impl Key<Vec<String>> {
    /// A list of URLs with one of `schemes`, empty by default.
    #[must_use]
    pub const fn urls(
        path: &'static str,
        schemes: &'static [&'static str],
        example: &'static str,
        doc: &'static str,
    ) -> Self {
        Self::new(path, Rule::Urls(schemes), Literal::Unset, example, doc)
    }
}

impl Key<Option<PathBuf>> {
    /// The path of a file, which may be left out.
    #[must_use]
    pub const fn file(path: &'static str, example: &'static str, doc: &'static str) -> Self {
        Self::new(path, Rule::File, Literal::Unset, example, doc)
    }
}

impl Key<SocketAddr> {
    /// An address to listen on.
    #[must_use]
    pub const fn address(
        path: &'static str,
        default: &'static str,
        example: &'static str,
        doc: &'static str,
    ) -> Self {
        Self::new(path, Rule::Address, Literal::Text(default), example, doc)
    }
}

impl Spec {
    /// The environment variable of this key: `HIVE_`, then the path in upper case with underscores.
    #[must_use]
    pub fn variable(&self) -> String {
        variable_of(self.path)
    }

    /// The part of the path before the dot.
    #[must_use]
    pub fn section(&self) -> &'static str {
        self.path
            .split_once('.')
            .map_or(self.path, |(section, _)| section)
    }

    /// The part of the path behind the dot.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.path
            .split_once('.')
            .map_or(self.path, |(_, name)| name)
    }
}

/// The environment variable of the key or section at `path`.
pub(super) fn variable_of(path: &str) -> String {
    format!("HIVE_{}", path.replace('.', "_").to_ascii_uppercase())
}

impl Literal {
    /// The default as TOML writes it; nothing when there is none.
    #[must_use]
    pub fn toml(&self) -> Option<String> {
        match self {
            Self::Unset => None,
            Self::Flag(on) => Some(on.to_string()),
            Self::Count(count) => Some(count.to_string()),
            Self::Text(text) => Some(toml::Value::from(*text).to_string()),
        }
    }
}

/// How a validated value becomes the type of its key.
pub trait FromValue: Sized {
    /// The value as this type; `None` when the key holds no value of this type.
    fn from_value(value: Option<&Value>) -> Option<Self>;
}

macro_rules! from_value {
    ($($kind:ty: $variant:ident($bound:ident) => $made:expr;)*) => {$(
        impl FromValue for $kind {
            fn from_value(value: Option<&Value>) -> Option<Self> {
                if let Some(Value::$variant($bound)) = value { $made } else { None }
            }
        }
    )*};
}

from_value! {
    bool: Flag(on) => Some(*on);
    u32: Count(count) => u32::try_from(*count).ok();
    u64: Count(count) => Some(*count);
    Duration: Duration(span) => Some(*span);
    String: Text(text) => Some(text.clone());
    PathBuf: Text(text) => Some(PathBuf::from(text));
    SocketAddr: Address(address) => Some(*address);
}

impl FromValue for Vec<String> {
    fn from_value(value: Option<&Value>) -> Option<Self> {
        match value {
            None => Some(Self::new()),
            Some(Value::List(texts)) => Some(texts.clone()),
            Some(_) => None,
        }
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: Option<&Value>) -> Option<Self> {
        match value {
            None => Some(None),
            Some(value) => T::from_value(Some(value)).map(Some),
        }
    }
}
